//! The scrub: what it calls damage and what not, what it repairs by itself, where it goes on, and how fast.

use std::{collections::BTreeSet, thread};

use super::*;
use crate::{
    disk::sim::{Call, Failure},
    index::{
        Changes, Index,
        schema::{self, BlobRow, CountRow, RowValue, Scope, key},
    },
};

/// Images of small layers, and a snapshot in the middle; how many records there are.
fn filled(images: u32) -> (Machine, u64) {
    let machine = Machine::new();
    let running = machine.start();
    for n in 0..images {
        running.push_image("team/app", &format!("v{n}"), &[n, 1_000 + n % 3], 900);
        if n == images / 2 {
            running.store().write_snapshot().unwrap();
        }
    }
    let records = running.rows("blobs") as u64;
    drop(running);
    (machine, records)
}

fn history(disk: &SimDisk) -> BTreeSet<String> {
    disk.list("journal").unwrap().into_iter().map(|entry| entry.name).collect()
}

fn collector(running: &Running, scrub: ScrubOptions) -> Arc<Collector> {
    let options = CollectOptions { scrub, ..CollectOptions::default() };
    Collector::new(Arc::clone(&running.registry), options).unwrap()
}

/// A read that failed once made the scrub write a snapshot in the journal's place, and remove what was sound; each record
/// that could not be opened was held for damaged, for good.
#[test]
fn a_read_that_fails_once_is_no_damage_and_nothing_is_repaired_for_it() {
    let (machine, records) = filled(6);
    for failure in [Failure::Io, Failure::NoFiles] {
        let mut met = 0;
        for nth in 1.. {
            let machine = machine.killed();
            let running = machine.start();
            let before = history(&machine.disk);
            machine.disk.fail(Call::Read, nth, failure);
            let done = running.collector.scrub();
            let is_met = machine.disk.faults_to_come() == 0;
            machine.disk.heal();
            let what = format!("{failure:?} at read {nth}");
            match done {
                Ok(report) => {
                    assert_eq!((report.records, report.repaired), (records, None), "{what}");
                    met += 1;
                }
                Err(error) => assert!(!error.to_string().contains("is damaged"), "{what}: {error}"),
            }
            assert_eq!(running.collector.scrub_status().unwrap().findings, [], "{what}");
            assert_eq!(running.store().damaged_count(), 0, "{what}");
            assert_eq!(history(&machine.disk), before, "{what}");
            if !is_met {
                break;
            }
        }
        assert!(met > 10, "{met}");
    }
}

/// No file can be opened for a while: that is no finding, and what was read before is not read again.
#[test]
fn a_scrub_without_file_descriptors_finds_nothing_and_goes_on_later() {
    let (machine, records) = filled(6);
    let whole = {
        let machine = machine.killed();
        machine.start().collector.scrub().unwrap()
    };
    let mut partial = 0;
    for nth in 1..200 {
        let machine = machine.killed();
        let running = machine.start();
        let before = history(&machine.disk);
        machine.disk.fail_from(Call::Read, nth, Failure::NoFiles);
        let failed = running.collector.scrub().is_err();
        let pass = running.collector.scrub_status().unwrap().pass;
        machine.disk.heal();
        let what = format!("from read {nth}: {pass:?}");
        let status = running.collector.scrub_status().unwrap();
        assert_eq!((status.findings, running.store().damaged_count()), (Vec::new(), 0), "{what}");
        assert_eq!(history(&machine.disk), before, "{what}");
        let report = running.collector.scrub().unwrap();
        assert_eq!((report.complete, report.records), (true, records), "{what}");
        if failed && pass.is_some_and(|pass| pass.records > 0) {
            partial += 1;
            assert_eq!(report.bytes, whole.bytes, "{what}: read once");
        }
    }
    assert!(partial > 3, "{partial}");
}

/// A place that the disk never gives back is damage: it is named, and a push heals it.
#[test]
fn what_the_disk_never_gives_back_is_a_finding_that_a_push_heals() {
    let (machine, _) = filled(2);
    let running = machine.start();
    let digest = digest_of(&content(0, 900));
    running.store().note_damage(&digest);
    assert!(running.store().is_damaged(&digest));
    running.collector.scrub().unwrap();
    assert!(!running.store().is_damaged(&digest), "a sound reading clears the mark");
    // Nothing can be read in the midst of a record any more.
    let content_of = |running: &Running| running.store().content(&digest).unwrap().unwrap();
    let open = content_of(&running);
    machine.disk.fail_from(Call::Read, 1, Failure::Io);
    let examined = running.store().examine::<StoreError>(&digest, &mut |_| Ok(()));
    machine.disk.heal();
    assert!(matches!(&examined, Ok(Some(what)) if what.contains("cannot read")), "{examined:?}");
    assert!(running.store().is_damaged(&digest));
    running.put("team/app", &content(0, 900));
    assert!(!running.store().is_damaged(&digest));
    drop(open);
    assert_eq!(content_of(&running).read_all().unwrap(), content(0, 900));
}

/// Before, the index was asked for damaged blocks only, and its rows became the truth although they were wrong.
#[test]
fn a_damaged_journal_is_not_replaced_where_the_rows_do_not_add_up() {
    for memory_bytes_max in [1 << 30, 1_000] {
        let (machine, _) = filled(4);
        let running = machine.start();
        let digest = digest_of(&content(1, 900));
        let key = key::count(Scope::Registry, &digest);
        let row: CountRow = schema::expect(&*machine.index, key.clone()).unwrap();
        let set = |row: &CountRow| {
            machine.index.write(&Changes::from([(key.clone().bytes(), Some(row.to_bytes()))])).unwrap();
        };
        if memory_bytes_max > 1_000 {
            set(&CountRow { named: row.named + 1, ..row.clone() });
        }
        let snapshot = history(&machine.disk).into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
        let path = format!("journal/{snapshot}");
        machine.disk.open(&path).unwrap().write_all_at(b"rot", 200).unwrap();
        let before = history(&machine.disk);
        let scrub = ScrubOptions { memory_bytes_max, ..ScrubOptions::default() };
        // Its index is the map that was just changed.
        let running = Running { collector: collector(&running, scrub), ..running };
        let report = running.collector.scrub().unwrap();
        assert_eq!((report.repaired, history(&machine.disk)), (None, before));
        let findings = running.collector.scrub_status().unwrap().findings;
        assert!(
            findings.iter().any(|it| it.kind == Scrubbed::Journal && it.file.as_ref() == Some(&path)),
            "{findings:?}"
        );
        set(&row);
        let running = Running { collector: collector(&running, ScrubOptions::default()), ..running };
        assert!(running.collector.scrub().unwrap().repaired.is_some());
        assert_eq!(running.collector.scrub_status().unwrap().findings, []);
    }
}

/// How many there were beyond those that are kept never fell: `orlop scrub` had findings for ever.
#[test]
fn findings_beyond_those_that_are_kept_go_when_they_are_healed() {
    let machine = Machine::new();
    let running = machine.start();
    let blobs: Vec<Vec<u8>> = (0..70).map(|id| content(id, 600)).collect();
    for blob in &blobs {
        running.put("team/app", blob);
    }
    for blob in &blobs {
        let row: BlobRow = schema::expect(&*running.store().snapshot(), key::blob(&digest_of(blob))).unwrap();
        let file = machine.disk.open(&running.store().segment_path(row.location.segment)).unwrap();
        file.write_all_at(b"rot", row.location.offset + 300).unwrap();
    }
    running.collector.scrub().unwrap();
    let status = running.collector.scrub_status().unwrap();
    assert_eq!((status.findings.len(), status.findings_more), (50, 20));
    running.collector.scrub().unwrap();
    let status = running.collector.scrub_status().unwrap();
    assert_eq!((status.findings.len(), status.findings_more), (50, 20), "each is counted once");
    for blob in &blobs {
        running.put("team/app", blob);
    }
    running.collector.scrub().unwrap();
    let status = running.collector.scrub_status().unwrap();
    assert_eq!((status.findings.len(), status.findings_more), (0, 0));
}

/// It stood in the log only.
#[test]
fn a_damaged_header_of_a_segment_is_a_finding_until_nothing_lies_in_it() {
    let (machine, _) = filled(2);
    let running = machine.start();
    let row: BlobRow = schema::expect(&*running.store().snapshot(), key::blob(&digest_of(&content(0, 900)))).unwrap();
    let path = running.store().segment_path(row.location.segment);
    machine.disk.open(&path).unwrap().write_all_at(b"rot", 9).unwrap();
    running.collector.scrub().unwrap();
    let findings = running.collector.scrub_status().unwrap().findings;
    let named =
        |it: &&ScrubFinding| it.kind == Scrubbed::Segment && it.file.as_ref() == Some(&path) && it.offset == Some(0);
    assert_eq!(findings.iter().filter(named).count(), 1, "{findings:?}");
    for n in 0..2 {
        running.push_image("team/app", &format!("v{n}"), &[n, 1_000 + n % 3], 900);
    }
    assert_eq!(running.collector.scrub_status().unwrap().findings, []);
}

/// Stopped at any moment, again and again, by processes that end: each record is read once.
#[test]
fn a_scrub_that_is_stopped_goes_on_in_a_new_process_and_reads_nothing_twice() {
    let (machine, records) = filled(20);
    let first = fastrand::u64(..1 << 40);
    println!("from seed {first}");
    let whole = {
        let machine = machine.killed();
        machine.start().collector.scrub().unwrap()
    };
    for seed in first..first + 4 {
        let machine = machine.killed();
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut before, mut resumed) = (None, 0);
        loop {
            let running = machine.start();
            // So slow that it is ended in the midst of it.
            let scrub = ScrubOptions { bytes_per_second_max: 100_000, ..ScrubOptions::default() };
            let collector = collector(&running, scrub);
            let found = collector.scrub_status().unwrap();
            assert_eq!(found.pass, before, "seed {seed}: it begins where it was");
            let ended = thread::scope(|threads| {
                let scrubbing = threads.spawn(|| collector.tick_scrub());
                let records = random.u64(1..8);
                let enough = |pass: Option<Pass>| {
                    pass.is_some_and(|pass| {
                        pass.records >= before.as_ref().map_or(0, |before: &Pass| before.records) + records
                    })
                };
                while !scrubbing.is_finished() && !enough(collector.scrub_status().unwrap().pass) {
                    thread::yield_now();
                }
                collector.stop();
                scrubbing.join().unwrap();
                collector.scrub_status().unwrap()
            });
            resumed += u32::from(found.pass.is_some_and(|pass| pass.after.is_some()));
            if let Some(last) = ended.last {
                assert_eq!((last.records, last.bytes), (records, whole.bytes), "seed {seed}");
                break;
            }
            before = ended.pass;
        }
        assert!(resumed > 2, "seed {seed}: {resumed}");
    }
}

#[test]
fn a_pass_says_at_which_pace_it_reads_and_when_it_will_end() {
    let (machine, _) = filled(20);
    let running = machine.start();
    let pass = Duration::from_secs(1_000);
    let scrub = ScrubOptions { pass, bytes_per_second_max: 200_000, ..ScrubOptions::default() };
    let collector = collector(&running, scrub);
    thread::scope(|threads| {
        let scrubbing = threads.spawn(|| collector.tick_scrub());
        while collector.scrub_status().unwrap().pass.is_none_or(|pass| pass.records == 0) {
            thread::yield_now();
        }
        collector.stop();
        scrubbing.join().unwrap();
    });
    let status = collector.scrub_status().unwrap();
    let pass = status.pass.unwrap();
    let left = pass.total_bytes - pass.bytes;
    assert!(left > 0 && status.bytes_per_second == Some(200_000), "{pass:?}, {:?}", status.bytes_per_second);
    assert_eq!(status.expected_end_ms, Some(BEGIN + left * 1_000 / 200_000));
    assert_eq!(status.next_ms, BEGIN + 1_000_000);
}
