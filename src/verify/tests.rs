//! What is sound has no finding; each kind of damage has one that names it.

use std::sync::Arc;

use super::*;
use crate::{
    digest::Algorithm,
    disk::{
        Disk,
        sim::{Call, Failure, SimDisk},
    },
    index::{
        Changes, Index,
        memory::MemoryIndex,
        schema::{
            BlobRow, CountRow, DeadRow, HistoryRow, Key, LinkRow, ManifestRow, ReferencesRow, RepositoryRow, RowValue,
            SegmentRow, Table, TagRow,
        },
    },
    location::RecordKind,
    registry::{Registry, RegistryOptions, Sparse},
    state::request::Request,
    store::StoreOptions,
};

mod rot;

const LAYERS: [&[u8]; 3] = [&[1; 1_000], &[2; 5_000], &[3; 300_000]];

struct Machine {
    disk: SimDisk,
    index: Arc<MemoryIndex>,
    registry: Registry,
}

impl Machine {
    /// Two repositories with an image each; the second was pushed over, so that it has a held manifest and a history.
    fn new() -> Self {
        let (disk, index) = (SimDisk::new(), Arc::new(MemoryIndex::new()));
        // Rows are changed behind the store's back.
        let row_cache_bytes = 0;
        let options =
            StoreOptions { large_blob_bytes: 200_000, reserve_bytes: 0, row_cache_bytes, ..StoreOptions::default() };
        let opened: Result<Store, _> =
            Store::open_on(Arc::new(disk.clone()), options, &|_| Ok(Box::new(Arc::clone(&index))));
        let options = RegistryOptions {
            manifest_bytes_max: 100_000,
            references_max: 100,
            json_depth_max: 16,
            uploads_max: 3,
            sparse: Sparse::Off,
        };
        let machine = Self { disk, index, registry: Registry::new(Arc::new(opened.unwrap()), options).unwrap() };
        machine.push("one/app", &LAYERS[..2]);
        machine.push("two/app", &LAYERS[1..]);
        machine.push("two/app", &LAYERS);
        machine
    }

    fn push(&self, repository: &str, layers: &[&[u8]]) {
        let repository = repository.parse().unwrap();
        let descriptors: Vec<String> = layers
            .iter()
            .map(|layer| {
                let digest = self.store().put(&repository, Algorithm::Sha256, layer).unwrap();
                format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":{}}}"#, layer.len())
            })
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{},"layers":[{}]}}"#,
            descriptors[0],
            descriptors.join(",")
        );
        let tags = ["latest".parse().unwrap()];
        self.registry.push_manifest(&repository, None, &tags, Some(media_type), &manifest.into()).unwrap();
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn digest(layer: usize) -> Digest {
        Digest::of(Algorithm::Sha256, LAYERS[layer])
    }

    fn blob(&self, layer: usize) -> BlobRow {
        schema::expect(&*self.index, key::blob(&Self::digest(layer))).unwrap()
    }

    fn set<R: RowValue>(&self, key: schema::Key, row: &R) {
        self.set_raw(key, Some(row.to_bytes()));
    }

    fn set_raw(&self, key: schema::Key, value: Option<Vec<u8>>) {
        self.index.write(&Changes::from([(key.bytes(), value)])).unwrap();
    }

    /// The file of a segment.
    fn file(&self, number: SegmentNumber) -> String {
        let mut paths = self.disk.list("segments").unwrap().into_iter().flat_map(|directory| {
            let files = self.disk.list(&format!("segments/{}", directory.name)).unwrap();
            files.into_iter().map(move |file| format!("segments/{}/{}", directory.name, file.name))
        });
        paths.find(|path| path.contains(&format!("{:x}.segment", number.0))).unwrap()
    }

    fn verify(&self, content: bool) -> VerifyReport {
        let options = VerifyOptions { content, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
        verify(self.store(), &options, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    /// After some damage there are findings of one kind only, and the first names what is damaged.
    #[track_caller]
    fn finds(&self, content: bool, kind: FindingKind, named: &str) {
        let report = self.verify(content);
        assert!(!report.findings.is_empty(), "nothing was found");
        assert!(report.findings.iter().all(|finding| finding.kind == kind), "{report:#?}");
        assert!(report.findings[0].what.contains(named), "\"{named}\" is not named: {report:#?}");
    }
}

#[test]
fn a_sound_store_has_no_findings_and_all_of_it_was_looked_at() {
    let machine = Machine::new();
    let report = machine.verify(true);
    assert_eq!(report.findings, []);
    assert_eq!((report.manifests, report.records, report.segments), (3, 6, 2));
    let manifests: u64 =
        schema::get::<UsageRow>(&*machine.index, key::usage(Scope::Registry)).unwrap().unwrap().manifest_bytes;
    assert_eq!(report.content_bytes, 306_000 + manifests);
    assert!(report.lsn > 0 && report.began_ms <= report.ended_ms);
    let usage: UsageRow = schema::expect(&*machine.index, key::usage(Scope::Registry)).unwrap();
    assert_eq!(report.state_hash, Some(usage.state_hash.to_string()));
    assert_eq!(machine.verify(false).content_bytes, 0);
}

/// After a server was killed that deleted large indexes, its store could not be verified: two seconds were too short.
#[test]
fn what_is_settling_is_waited_for_and_the_wait_can_be_broken_off() {
    let machine = Machine::new();
    let applied: Applied = schema::expect(&*machine.index, key::applied()).unwrap();
    let change = |settling| machine.set(key::applied(), &Applied { settling, ..applied.clone() });
    let options =
        VerifyOptions { content: false, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
    change(1);
    let stopped = verify(machine.store(), &options, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(VerifyError::Stopped)), "{stopped:?}");
    let report = verify(machine.store(), &options, &mut |_| {
        change(0);
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().findings, []);
}

#[test]
fn an_empty_store_is_sound() {
    let disk = SimDisk::new();
    let options = StoreOptions { reserve_bytes: 0, ..StoreOptions::default() };
    let store = Store::open_on(Arc::new(disk), options, &|_| Ok(Box::new(MemoryIndex::new()))).unwrap();
    let options = VerifyOptions {
        content: true,
        content_bytes_per_second: Some(100_000),
        memory_bytes_max: Some(0),
        opening: false,
    };
    let report = verify(&store, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.findings, report.records, report.lsn), (Vec::new(), 0, 0));
}

#[test]
fn a_wrong_row_is_found() {
    let machine = Machine::new();
    let key = key::count(Scope::Registry, &Machine::digest(1));
    let row: CountRow = schema::expect(&*machine.index, key.clone()).unwrap();
    machine.set(key, &CountRow { named: row.named + 1, ..row });
    machine.finds(false, FindingKind::Row, "counts");
}

#[test]
fn a_missing_row_is_found() {
    let machine = Machine::new();
    machine.set_raw(key::usage(Scope::Registry), None);
    machine.finds(false, FindingKind::Row, "usage");
}

/// The first row of a table whose value `change` can change, changed.
fn change_first<R: RowValue>(machine: &Machine, table: Table, change: impl Fn(&[u8], &mut R) -> bool) {
    for (key, value) in schema::page(&*machine.index, table, None, 1_000).unwrap().rows {
        let mut row = R::from_bytes(&value).unwrap();
        if change(&key, &mut row) {
            machine.index.write(&Changes::from([(key, Some(row.to_bytes()))])).unwrap();
            return;
        }
    }
    panic!("no row of {} was changed", table.name());
}

/// Nothing else follows from most of these, so that only the state hash can tell.
#[test]
fn a_fact_that_is_lost_or_changed_is_found_and_its_repository_named() {
    let id_of = |machine: &Machine| {
        let row = schema::expect::<schema::RepositoryNameRow>(&*machine.index, key::repository_name("two/app"));
        row.unwrap().repository
    };
    let is_of = |key: &[u8], id: u32| key[1..5] == id.to_be_bytes();
    type Damage<'a> = (&'a str, &'a dyn Fn(&Machine, u32));
    let damages: [Damage<'_>; 6] = [
        ("the time of a repository", &|machine, id| {
            change_first(machine, Table::Repositories, |key, row: &mut RepositoryRow| {
                row.created_ms += 1;
                is_of(key, id)
            });
        }),
        ("the time of a link", &|machine, id| {
            change_first(machine, Table::Links, |key, row: &mut LinkRow| {
                row.linked_ms += 1;
                key.ends_with(&id.to_be_bytes())
            });
        }),
        ("the time of a manifest", &|machine, id| {
            change_first(machine, Table::Manifests, |key, row: &mut ManifestRow| {
                row.pushed_ms += 1;
                is_of(key, id)
            });
        }),
        ("the time of a tag", &|machine, id| {
            change_first(machine, Table::Tags, |key, row: &mut TagRow| {
                row.set_ms += 1;
                is_of(key, id)
            });
        }),
        ("an entry of history and what follows from it", &|machine, id| {
            let prefix = Key::of(Table::History).u32(id).bytes();
            let mut rows = machine.index.scan(&prefix, &crate::index::prefix_end(&prefix), 100).unwrap();
            let (key, value) = rows.remove(0);
            let until_ms = HistoryRow::from_bytes(&value).unwrap().until_ms;
            assert!(until_ms > 0, "it has passed");
            let due = [&Key::of(Table::DueHistory).u64(until_ms).bytes()[..], &key[1..]].concat();
            assert!(machine.index.get(&due).unwrap().is_some());
            let mut changes = Changes::from([(key, None), (due, None)]);
            let organisation =
                schema::expect::<RepositoryRow>(&*machine.index, key::repository(id)).unwrap().organisation;
            for scope in [Scope::Repository(id), Scope::Organisation(organisation), Scope::Registry] {
                let mut usage: UsageRow = schema::expect(&*machine.index, key::usage(scope)).unwrap();
                usage.history -= 1;
                changes.insert(key::usage(scope).bytes(), Some(usage.to_bytes()));
            }
            machine.index.write(&changes).unwrap();
        }),
        ("the size of what a manifest names", &|machine, id| {
            let mut manifest = 0;
            for (key, value) in machine.index.scan(&[Table::Manifests as u8], &[Table::Manifests as u8 + 1], 9).unwrap()
            {
                manifest = if is_of(&key, id) { ManifestRow::from_bytes(&value).unwrap().manifest } else { manifest };
            }
            change_first(machine, Table::References, |key, row: &mut ReferencesRow| {
                row.references[0].size += 1;
                key[1..9] == manifest.to_be_bytes()
            });
        }),
    ];
    for (what, damage) in damages {
        let machine = Machine::new();
        let sound = machine.verify(false).state_hash;
        damage(&machine, id_of(&machine));
        let report = machine.verify(false);
        let named: Vec<_> = report.findings.iter().filter(|it| it.what.contains("of repository two/app")).collect();
        assert_eq!(named.len(), 1, "{what}: {report:#?}");
        assert!(report.findings.iter().all(|it| it.kind == FindingKind::Row && !it.what.contains("one/app")), "{what}");
        assert_ne!(report.state_hash, sound, "{what}");
    }
}

#[test]
fn a_row_that_cannot_be_read_is_a_finding_and_the_places_are_looked_at_all_the_same() {
    let machine = Machine::new();
    let repository = schema::expect::<schema::RepositoryNameRow>(&*machine.index, key::repository_name("one/app"));
    let tag = key::tag(repository.unwrap().repository, &"latest".parse().unwrap());
    assert!(schema::get::<TagRow>(&*machine.index, tag.clone()).unwrap().is_some());
    machine.set_raw(tag, Some(vec![9; 3]));
    machine.finds(false, FindingKind::Row, "tags");
    assert_eq!(machine.verify(false).records, 6);
}

#[test]
fn a_dead_record_on_a_live_one_is_found_before_it_is_erased() {
    for (layer, before) in [(0, 32), (1, 0), (2, 0)] {
        let machine = Machine::new();
        let mut location = machine.blob(layer).location;
        location.offset -= before;
        machine.set(key::dead(location), &DeadRow { record_len: 64 });
        machine.finds(false, FindingKind::Place, &Machine::digest(layer).to_string());
    }
}

#[test]
fn dead_records_on_each_other_are_found_and_those_beside_each_other_are_not() {
    let machine = Machine::new();
    let live = machine.blob(1);
    let segment = live.location.segment;
    let report = |offsets: [u64; 2]| {
        let places = offsets.map(|offset| Location { segment, offset: (1 << 30) + offset });
        places.iter().for_each(|place| machine.set(key::dead(*place), &DeadRow { record_len: 64 }));
        let report = machine.verify(false);
        places.iter().for_each(|place| machine.set_raw(key::dead(*place), None));
        report.findings.len()
    };
    assert_eq!((report([0, 64]), report([0, 32])), (0, 1));
}

#[test]
fn live_records_on_each_other_are_found() {
    let machine = Machine::new();
    let (first, second) = (machine.blob(0), machine.blob(1));
    let location = Location { offset: first.location.offset + 32, ..first.location };
    machine.set(key::blob(&Machine::digest(1)), &BlobRow { location, ..second });
    machine.finds(false, FindingKind::Place, &Machine::digest(1).to_string());
}

#[test]
fn a_segment_without_a_file_or_with_a_short_one_is_found() {
    let machine = Machine::new();
    let segment = machine.blob(2).location.segment;
    let row: SegmentRow = schema::expect(&*machine.index, key::segment(segment)).unwrap();
    machine.disk.open(&machine.file(segment)).unwrap().set_len(row.committed_end - 1).unwrap();
    machine.finds(false, FindingKind::Segment, &format!("has only {} bytes", row.committed_end - 1));
    machine.disk.remove(&machine.file(segment)).unwrap();
    let report = machine.verify(false);
    assert_eq!(report.findings.iter().filter(|finding| finding.kind == FindingKind::Segment).count(), 1, "{report:#?}");
}

#[test]
fn a_changed_byte_is_found_only_where_content_is_read() {
    for layer in 0..LAYERS.len() {
        let machine = Machine::new();
        let location = machine.blob(layer).location;
        let file = machine.disk.open(&machine.file(location.segment)).unwrap();
        file.write_all_at(b"x", location.offset + 500).unwrap();
        assert_eq!(machine.verify(false).findings, []);
        machine.finds(true, FindingKind::Content, &Machine::digest(layer).to_string());
        assert_eq!(machine.verify(true).findings.len(), 1);
    }
}

/// Checksums that hold prove only that nothing changed since the bytes were written.
#[test]
fn content_of_another_digest_is_found_though_its_checksums_hold() {
    let machine = Machine::new();
    let claimed = Digest::of(Algorithm::Sha256, b"what was claimed");
    let content = machine.store().stage(RecordKind::Blob, claimed, b"what was written").unwrap();
    let repository = "one/app".parse().unwrap();
    let request = Request::Upload { repository, content, session: None, held_bytes: 0, grace_ms: 1_000_000 };
    machine.store().commit(request).unwrap();
    machine.finds(true, FindingKind::Content, &claimed.to_string());
}

#[test]
fn what_is_dropped_after_the_places_were_read_is_no_finding() {
    let machine = Machine::new();
    let options =
        VerifyOptions { content: true, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
    let mut dropped = false;
    let report = verify(machine.store(), &options, &mut |progress| {
        if progress.phase == Phase::Content && !dropped {
            dropped = true;
            machine.set_raw(key::blob(&Machine::digest(2)), None);
        }
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert!(dropped && report.content_bytes < 300_000, "{report:#?}");
    assert_eq!(report.findings, []);
}

#[test]
fn the_watcher_sees_every_phase_and_can_stop_in_each() {
    let machine = Machine::new();
    for phase in [Phase::Index, Phase::Counting, Phase::Comparing, Phase::Places, Phase::Journal, Phase::Content] {
        let options =
            VerifyOptions { content: true, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
        let mut calls = 0;
        let result = verify(machine.store(), &options, &mut |progress| {
            calls += 1;
            if progress.phase == phase { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Err(VerifyError::Stopped)), "{phase:?}: {result:?}");
        assert!(calls > 0);
    }
}

/// Without file descriptors each record was told to be damaged, and each journal file to be removed.
#[test]
fn what_could_not_be_looked_at_is_neither_sound_nor_damaged() {
    let machine = Machine::new();
    let sound = machine.verify(true);
    let (mut contents, mut journals) = (0, 0);
    for nth in 1..400 {
        machine.disk.fail_from(Call::Read, nth, Failure::NoFiles);
        let options =
            VerifyOptions { content: true, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
        let done = verify(machine.store(), &options, &mut |_| ControlFlow::Continue(()));
        let is_failing = machine.disk.is_failing();
        machine.disk.heal();
        assert_eq!(machine.store().damaged_count(), 0, "from read {nth} on");
        let report = done.unwrap();
        assert_eq!(report.findings, [], "from read {nth} on");
        assert_eq!(report.unchecked.is_empty(), !is_failing, "from read {nth} on: {:#?}", report.unchecked);
        if !is_failing {
            assert_eq!(report.content_bytes, sound.content_bytes);
            break;
        }
        let of = |kind| report.unchecked.iter().filter(|it| it.kind == kind).count();
        contents += of(FindingKind::Content);
        journals += of(FindingKind::Journal);
    }
    assert!(contents > 6 && journals > 1, "{contents}, {journals}");
    assert_eq!(machine.verify(true).findings, []);
}

/// What cannot be read once is read again, and is sound; what was held for damaged by mistake is not any more.
#[test]
fn a_sound_reading_clears_the_mark_of_damage() {
    let machine = Machine::new();
    let digest = Machine::digest(0);
    machine.store().note_damage(&digest);
    assert_eq!(machine.verify(true).findings, []);
    assert!(!machine.store().is_damaged(&digest));
}

#[test]
fn progress_has_a_total_where_one_is_known_and_never_passes_it() {
    let machine = Machine::new();
    let options =
        VerifyOptions { content: true, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
    let mut seen = std::collections::BTreeMap::new();
    let done = verify(machine.store(), &options, &mut |progress| {
        assert!(progress.total.is_none_or(|total| progress.done <= total), "{progress:?}");
        let is_first = seen.insert(format!("{:?}", progress.phase), progress.total.is_some()).is_none();
        // The blobs are read then. What lies between them is no progress.
        assert!(!is_first || progress.phase != Phase::Places || Some(progress.done) < progress.total, "{progress:?}");
        ControlFlow::Continue(())
    });
    assert_eq!(done.unwrap().findings, []);
    let phases = [("Comparing", false), ("Content", true), ("Counting", false), ("Index", false)];
    let phases = phases.into_iter().chain([("Journal", true), ("Places", true)]);
    assert_eq!(seen, phases.map(|(name, total)| (name.to_owned(), total)).collect());
}

#[test]
fn a_store_that_takes_too_much_memory_is_refused() {
    let machine = Machine::new();
    let check = |max: u64| {
        let options = VerifyOptions {
            content: false,
            content_bytes_per_second: None,
            memory_bytes_max: Some(max),
            opening: false,
        };
        verify(machine.store(), &options, &mut |_| ControlFlow::Continue(()))
    };
    assert!(matches!(check(1_000), Err(VerifyError::TooLarge { max: 1_000 })));
    assert!(check(1 << 20).is_ok());
    // Counts of the registry and of organisations are told by other rows. That many of them lie between links and blobs takes
    // no memory.
    for number in 0..2_000_u32 {
        let digest = Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        for scope in [Scope::Registry, Scope::Organisation(1)] {
            machine.set(key::count(scope, &digest), &CountRow::default());
        }
    }
    assert!(check(1 << 20).is_ok());
}

#[test]
fn content_is_read_no_faster_than_it_may() {
    let machine = Machine::new();
    let options = VerifyOptions {
        content: true,
        content_bytes_per_second: Some(600_000),
        memory_bytes_max: None,
        opening: false,
    };
    let began = std::time::Instant::now();
    assert_eq!(verify(machine.store(), &options, &mut |_| ControlFlow::Continue(())).unwrap().findings, []);
    assert!(began.elapsed().as_millis() >= 500, "{:?}", began.elapsed());
}
