//! Each check against its bounds, and all of them over a store on a simulated disk.

use std::{collections::BTreeMap, time::Duration};

use super::{
    files, host, policies,
    upkeep::{self, Times},
    *,
};
use crate::{
    collect::{
        CollectOptions, DiskUsage, DueKind, DueSummary, Kind, Pausable, Pause, ScrubFinding, ScrubOptions, ScrubReport,
        ScrubStatus, Scrubbed,
    },
    digest::Algorithm,
    disk::{
        FileSystem, Nature, Volume,
        sim::{Call, Failure, SimDisk},
    },
    index::memory::MemoryIndex,
    name::Owner,
    policy::Policy,
    registry::{PolicyInfo, RegistryOptions, Sparse, Waiting},
    store::{Clock, History, Lost, Recovery, Reserve, StoreOptions},
};

const GIB: u64 = 1 << 30;
const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The level and a part of what is said; a remedy stands there when something is not well, and then only.
#[track_caller]
fn is(check: &Check, level: Level, said: &str) {
    assert_eq!(check.level, level, "{check:?}");
    assert!(check.what.contains(said), "{said}: {check:?}");
    assert_eq!(check.remedy.is_some(), level != Level::Ok, "{check:?}");
    assert!(NAMES.contains(&check.name), "{check:?}");
}

#[test]
fn file_systems_are_judged_by_what_they_stand_on() {
    let volume = |name: &str, nature, is_read_only| Volume {
        file_system: FileSystem { name: name.to_owned(), nature },
        size_bytes: GIB,
        files_free: None,
        is_read_only,
    };
    for (nature, level, said) in [
        (Nature::Local, Level::Ok, "lies on there"),
        (Nature::Memory, Level::Warning, "in memory"),
        (Nature::Layers, Level::Warning, "container"),
        (Nature::Network, Level::Warning, "not a disk of this machine"),
        (Nature::Program, Level::Warning, "run by a program"),
        (Nature::Unknown, Level::Note, "not known"),
    ] {
        is(&host::file_system(&volume("there", nature, false)), level, said);
        is(&host::file_system(&volume("there", nature, true)), Level::Problem, "read only");
    }
    let tried = |punches, allocates| host::holes(Ok(Abilities { punches, allocates }));
    is(&tried(true, true), Level::Ok, "gives back");
    is(&tried(false, true), Level::Warning, "no ranges");
    is(&tried(false, false), Level::Warning, "no ranges");
    is(&tried(true, false), Level::Note, "no blocks aside");
    is(&host::holes(Err(io::ErrorKind::StorageFull.into())), Level::Note, "could not be tried");
}

#[test]
fn space_is_judged_by_what_can_still_be_pushed() {
    for (free, size, reserve, level, said) in [
        (100 * GIB, 1_000 * GIB, GIB, Level::Ok, "100.0 GiB of 1000.0 GiB are free"),
        (GIB, 1_000 * GIB, GIB, Level::Problem, "507"),
        (0, GIB, 0, Level::Problem, "507"),
        (11 * GIB - 1, 1_000 * GIB, GIB, Level::Warning, "can still be pushed"),
        (11 * GIB, 1_000 * GIB, GIB, Level::Ok, "uploads leave 1.0 GiB"),
        (2 * GIB, 10 * GIB, GIB, Level::Ok, "2.0 GiB of 10.0 GiB"),
        (2 * GIB - 1, 10 * GIB, GIB, Level::Warning, "can still be pushed"),
        (u64::MAX, u64::MAX, 0, Level::Warning, "nothing can be deleted"),
    ] {
        is(&host::space(free, size, reserve), level, said);
    }
    is(&host::inodes(None), Level::Ok, "as many files as fit");
    is(&host::inodes(Some(10_000)), Level::Ok, "10000");
    is(&host::inodes(Some(9_999)), Level::Warning, "9999");
    is(&host::inodes(Some(0)), Level::Problem, "0 more files");
}

#[test]
fn the_process_is_judged_by_what_its_settings_need() {
    let files = |files_allowed| host::open_files(&Host { files_allowed, files_needed: 3_328, ..Host::default() });
    is(&files(None), Level::Ok, "any number");
    is(&files(Some(3_328)), Level::Ok, "3328");
    is(&files(Some(1_024)), Level::Warning, "1024 files may be open");
    let memory = |memory_bytes| host::memory(&Host { memory_bytes, memory_needed_bytes: 2 * GIB, ..Host::default() });
    is(&memory(None), Level::Note, "does not tell");
    is(&memory(Some(3 * GIB)), Level::Ok, "2.0 GiB");
    is(&memory(Some(3 * GIB - 3)), Level::Note, "two thirds");
    is(&memory(Some(2 * GIB - 1)), Level::Warning, "let 2.0 GiB be filled");
}

#[test]
fn policies_are_judged_by_what_they_cannot_do() {
    let info = |name: &str, pattern: &str, repositories| PolicyInfo {
        policy: Policy::new(name.parse().unwrap(), pattern.parse().unwrap()),
        from_settings: false,
        confirmed: false,
        set_ms: 1,
        repositories,
        used_bytes: 0,
    };
    let fine = [info("all", "**", 5), info("team", "team/**", 2)];
    is(&policies::judged(&[], &[], &[]), Level::Ok, "0 policies");
    is(&policies::judged(&fine, &[], &[]), Level::Ok, "2 policies, each does");
    let idle = [info("all", "**", 5), info("gone", "gone/*", 0)];
    is(&policies::judged(&idle, &[], &[]), Level::Note, "no repository is governed by gone");
    let crossing = [info("apps", "*/app", 1), info("team", "team/*", 1)];
    is(
        &policies::judged(&crossing, &[], &[]),
        Level::Note,
        "overlap, and neither lies within the other: where both match, team governs",
    );
    let over = [("ci".to_owned(), 5 * GIB), ("x".to_owned(), 1)];
    is(&policies::judged(&idle, &[], &over), Level::Warning, "policy ci use 5.0 GiB more than its cap");
    let waiting = Waiting { policy: "old".parse().unwrap(), repository: "team/app".parse().unwrap(), tags: 7 };
    let check = policies::judged(&idle, &[waiting.clone(), waiting], &over);
    is(&check, Level::Warning, "policy old would take more than half of the 7 tags of repository team/app at once");
    assert!(check.what.ends_with("; 1 repository waits likewise"), "{check:?}");
    assert!(check.remedy.unwrap().contains("`orlop policy confirm old`"));
}

#[test]
fn clocks_that_stand_behind_jump_or_were_never_set() {
    let times = Times { now_ms: NOW_MS, last_ms: NOW_MS - 5, rested_ms: 0, paused_until_ms: None };
    is(&upkeep::clock_of(&times), Level::Ok, "2027-01-15");
    is(&upkeep::clock_of(&Times { now_ms: 5, ..times }), Level::Problem, "1970-01-01");
    is(&upkeep::clock_of(&Times { last_ms: NOW_MS + 60_000, ..times }), Level::Ok, "2027");
    is(&upkeep::clock_of(&Times { last_ms: NOW_MS + DAY_MS, ..times }), Level::Warning, "1d later");
    let paused = Times { paused_until_ms: Some(NOW_MS + DAY_MS), ..times };
    is(&upkeep::clock_of(&paused), Level::Warning, "jumped ahead: nothing is dropped until 2027-01-16");
    let rested = upkeep::clock_of(&Times { rested_ms: 2 * DAY_MS, ..paused });
    is(&rested, Level::Note, "2d after the last operation");
}

#[test]
fn the_stores_own_files() {
    is(&files::refusal(None, false), Level::Ok, "taken");
    let sync = files::refusal(Some("a sync failed"), false);
    is(&sync, Level::Problem, "a sync failed");
    assert!(sync.remedy.unwrap().contains("restart"));
    assert!(files::refusal(Some("damaged"), true).remedy.unwrap().contains("orlop repair"));

    let reserve = |wanted_bytes, kept_bytes, free| files::reserved(Reserve { wanted_bytes, kept_bytes }, free);
    is(&reserve(0, None, GIB), Level::Note, "store.reserve_bytes is 0");
    is(&reserve(1_024, Some(1_024), GIB), Level::Ok, "1.0 KiB are set aside");
    is(&reserve(1_024, Some(0), GIB), Level::Warning, "has only 0 B of the 1.0 KiB");
    is(&reserve(1_024, None, 2_047), Level::Warning, "spent");
    is(&reserve(1_024, None, 2_048), Level::Note, "not set aside yet");

    let recovery = |lost_records, rebuilt: Option<&str>| Recovery {
        lost_records,
        rebuilt: rebuilt.map(str::to_owned),
        replayed_bytes: 4 << 20,
        duration: Duration::from_secs(2),
        ..Recovery::default()
    };
    let plain = recovery(0, None);
    is(&files::started(&plain), Level::Ok, "replayed 4.0 MiB of journal (2s)");
    is(&files::started(&recovery(0, Some("it was missing"))), Level::Note, "it was missing");
    is(&files::started(&recovery(3, Some("it was missing"))), Level::Problem, "3 acknowledged records");
    is(&files::started(&Recovery { created: true, ..Recovery::default() }), Level::Ok, "new store");

    let history = |snapshots: &[u64], bytes_after| History {
        snapshots: snapshots.to_vec(),
        bytes_after,
        snapshot_due_bytes: 100 << 20,
        unflushed_bytes: 8 << 20,
    };
    let sound = files::recoverable(&history(&[60 << 20, 50 << 20], 20 << 20), &plain);
    is(&sound, Level::Ok, "2 snapshots, the newest of 60.0 MiB, and 20.0 MiB of journal behind");
    is(&sound, Level::Ok, "replay 8.0 MiB, and 80.0 MiB if the index were lost (4s and 40s at");
    is(&files::recoverable(&history(&[], 8 << 20), &Recovery::default()), Level::Ok, "no snapshot yet, and 8.0 MiB");
    is(&files::recoverable(&history(&[], 303 << 20), &plain), Level::Warning, "due after 100.0 MiB");

    is(&files::kept(Lost::default()), Level::Ok, "empty");
    is(&files::kept(Lost { entries: 2, bytes: 1_024 }), Level::Warning, "2 entries (1.0 KiB)");
    is(&files::versions(), if cfg!(feature = "rocksdb") { Level::Ok } else { Level::Note }, "journal 1, snapshots 1");
}

#[test]
fn what_is_paused_due_and_dead() {
    let pause = |what| Pause { what, until_ms: None };
    is(&upkeep::paused(&[]), Level::Ok, "nothing");
    is(&upkeep::paused(&[pause(Pausable::Clock)]), Level::Ok, "nothing is paused");
    let both = upkeep::paused(&[pause(Pausable::Collect), pause(Pausable::Scrub)]);
    is(&both, Level::Warning, "collect is paused, so nothing that is due leaves the disk; scrub is paused");
    assert_eq!(both.remedy.as_deref(), Some("`orlop resume collect`, `orlop resume scrub`"));

    let kind = |more| DueKind { kind: Kind::Link, count: 2, more, next_due_ms: Some(NOW_MS) };
    let due = |more| DueSummary { now_ms: NOW_MS, kinds: vec![kind(more)], dead_records: 1, dead_more: false };
    let none = BTreeMap::new();
    is(&upkeep::due(&due(false), 0, &none), Level::Ok, "2 things are due, 1 dead record wait");
    is(&upkeep::due(&due(true), 0, &none), Level::Note, "2 or more things are due");
    let failed = BTreeMap::from([(Pausable::Compact, "the disk is full".to_owned())]);
    is(&upkeep::due(&due(true), 0, &failed), Level::Warning, "compacting fails: the disk is full");

    let usage = |live_bytes, dead_bytes| DiskUsage { disk_bytes: 0, live_bytes, dead_bytes };
    is(&upkeep::dead(&usage(0, GIB)), Level::Ok, "1.0 GiB beyond");
    is(&upkeep::dead(&usage(4 * GIB, 2 * GIB)), Level::Ok, "2.0 GiB beyond the 4.0 GiB");
    is(&upkeep::dead(&usage(4 * GIB, 2 * GIB + 1)), Level::Note, "beyond");
}

#[test]
fn the_last_scrub_and_each_of_its_findings() {
    let options = ScrubOptions { pass: Duration::from_secs(30 * 24 * 60 * 60), ..ScrubOptions::default() };
    let report = |began_ms, repaired: Option<&str>| ScrubReport {
        began_ms,
        ended_ms: began_ms + 1,
        records: 3,
        bytes: 2_048,
        complete: true,
        repaired: repaired.map(str::to_owned),
    };
    let status = |last| ScrubStatus {
        running: false,
        pass: None,
        last,
        findings: Vec::new(),
        findings_more: 0,
        bytes_per_second: None,
        expected_end_ms: None,
        next_ms: 0,
    };
    let scrubbed = |last| upkeep::scrubbed(&status(last), &options, NOW_MS);
    is(&scrubbed(None), Level::Note, "never read again");
    is(&scrubbed(Some(report(NOW_MS - 61 * DAY_MS, None))), Level::Ok, "3 records, 2.0 KiB");
    is(&scrubbed(Some(report(NOW_MS - 62 * DAY_MS, None))), Level::Warning, "a pass should take 30d");
    is(&scrubbed(Some(report(NOW_MS - DAY_MS, Some("the journal")))), Level::Note, "repaired something: the journal");

    let finding = |kind| ScrubFinding {
        kind,
        file: Some("segments/0/1.segment".to_owned()),
        offset: Some(64),
        digest: None,
        hurts: (0..7).map(|n| format!("team/app:{n}")).collect(),
        hurts_more: false,
        what: "a block is damaged".to_owned(),
        found_ms: NOW_MS,
    };
    let found = |findings: Vec<ScrubFinding>, findings_more, damaged| {
        upkeep::damage(&ScrubStatus { findings, findings_more, ..status(None) }, damaged)
    };
    let [well] = &found(Vec::new(), 0, 0)[..] else { panic!("one check") };
    is(well, Level::Ok, "nothing is known to be damaged");
    for (kind, remedy) in
        [(Scrubbed::Content, "push"), (Scrubbed::Journal, "orlop repair"), (Scrubbed::Index, "orlop rebuild-index")]
    {
        let checks = found(vec![finding(kind)], 0, u64::from(kind == Scrubbed::Content));
        assert_eq!(checks.len(), 1, "{checks:?}");
        is(&checks[0], Level::Problem, "segments/0/1.segment at 64: a block is damaged; it hurts team/app:0, ");
        is(&checks[0], Level::Problem, "team/app:4 and 2 more");
        assert!(checks[0].remedy.as_ref().unwrap().contains(remedy));
    }
    let many = found(vec![finding(Scrubbed::Content); 101], 5, 101);
    assert_eq!(many.len(), 101);
    is(&many[100], Level::Problem, "6 damaged places more");
    let read = found(vec![finding(Scrubbed::Journal)], 0, 2);
    is(&read[1], Level::Problem, "damage was met in 2 blobs");
}

/// A store on a simulated disk of a TiB, and who looks at it.
fn doctor() -> (Doctor, SimDisk) {
    let disk = SimDisk::new();
    disk.set_capacity(Some(1 << 40));
    let options = StoreOptions { clock: Clock::manual(NOW_MS), ..StoreOptions::default() };
    let store = Store::open_on(Arc::new(disk.clone()), options, &|_| Ok(Box::new(MemoryIndex::new()))).unwrap();
    let options = RegistryOptions {
        manifest_bytes_max: 4_096,
        references_max: 100,
        json_depth_max: 16,
        uploads_max: 3,
        sparse: Sparse::Off,
    };
    let registry = Arc::new(Registry::new(Arc::new(store), options).unwrap());
    let collector = Collector::new(Arc::clone(&registry), CollectOptions::default()).unwrap();
    (Doctor::new(registry, collector, Host::default()), disk)
}

fn named<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap()
}

#[test]
fn a_new_store_is_well_and_everything_is_looked_at() {
    let (doctor, disk) = doctor();
    let checks = doctor.examine();
    assert_eq!(checks.iter().map(|check| check.name).collect::<Vec<_>>(), NAMES);
    for check in &checks {
        assert!(check.level <= Level::Note, "{check:?}");
        assert_eq!(check.remedy.is_some(), check.level != Level::Ok, "{check:?}");
    }
    is(named(&checks, "holes"), Level::Ok, "gives back");
    is(named(&checks, "reserve"), Level::Ok, "48.0 MiB are set aside");
    assert!(disk.open("probe").is_err(), "what was tried out is gone");
}

#[test]
fn what_is_not_well_is_found() {
    let (doctor, disk) = doctor();
    // Of a process that was killed.
    disk.create("probe").unwrap();
    disk.fail(Call::Write, 1, Failure::Full);
    is(named(&doctor.examine(), "holes"), Level::Note, "could not be tried");
    assert!(disk.open("probe").is_err());
    is(named(&doctor.examine(), "holes"), Level::Ok, "gives back");

    doctor.collector.pause(Pausable::Compact).unwrap();
    doctor.registry.set_quota(&Owner::organisation("team").unwrap(), Some(10)).unwrap();
    doctor.store().put(&"team/app".parse().unwrap(), Algorithm::Sha256, b"nine byte").unwrap();
    disk.create_dir("lost").unwrap();
    disk.create("lost/7.segment").unwrap();
    disk.set_capacity(Some(300 << 20));
    let checks = doctor.examine();
    is(named(&checks, "pauses"), Level::Warning, "compact is paused");
    is(named(&checks, "quotas"), Level::Note, "organization team");
    is(named(&checks, "lost"), Level::Warning, "1 entry");
    is(named(&checks, "space"), Level::Problem, "507");

    disk.set_capacity(None);
    disk.fail(Call::SyncData, 1, Failure::Io);
    doctor.store().put(&"team/app".parse().unwrap(), Algorithm::Sha256, b"x").unwrap_err();
    is(named(&doctor.examine(), "writes"), Level::Problem, "writes are refused, reads go on");
    disk.remove_dir_all("lost").unwrap();
    doctor.store().options().clock.set_wall(5);
    is(named(&doctor.examine(), "clock"), Level::Problem, "never set");
}
