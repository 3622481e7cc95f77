//! Snapshots of the journal: whatever ends one, and whatever is damaged, the state comes back the same, or is refused.

use crate::{
    index::View,
    journal::snapshot::{self, SnapshotFile},
    state::request::Request,
};

use super::*;

/// Journal files of a few batches, and no snapshot that the test does not ask for.
fn options() -> StoreOptions {
    StoreOptions { journal_file_bytes_max: 1_000, snapshot_bytes_min: u64::MAX, ..Machine::options() }
}

fn snapshots(machine: &Machine) -> Vec<SnapshotFile> {
    snapshot::list(&machine.disk).unwrap()
}

fn flip(machine: &Machine, path: &str, at: u64) {
    let file = machine.disk.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// A store with so many snapshots and content behind each; the rows it has.
fn filled(machine: &Machine, count: u64) -> Vec<String> {
    let store = machine.open_with(options()).unwrap();
    for n in 0..count {
        put_many(&store, 10 * n..10 * n + 10, |seed| 300 * (seed as usize % 7));
        store.write_snapshot().unwrap().unwrap();
    }
    put_many(&store, 1_000..1_005, |_| 100);
    let rows = dump(&store);
    store.close().unwrap();
    rows
}

/// Opens with the index as it is and without, and finds the same rows.
#[track_caller]
fn check_rows(machine: &Machine, rows: &[String], what: &str) {
    for is_lost in [false, true] {
        let copy = Machine { disk: machine.disk.kill(), index: Mutex::default() };
        if !is_lost {
            *copy.index.lock().unwrap() = Arc::new(machine.index.lock().unwrap().crashed());
        }
        let store = copy.open_with(options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(recounted(&store), rows, "{what}");
        assert_eq!(store.recovery().lost_records, 0, "{what}");
        put(&store, b"one more").unwrap();
    }
}

#[test]
fn a_lost_index_comes_back_from_the_newest_snapshot_and_the_journal_behind_it() {
    for count in 0..4 {
        let machine = Machine::new();
        let rows = filled(&machine, count);
        assert_eq!(snapshots(&machine).len() as u64, count.min(2));
        machine.lose_index();
        let store = machine.open_with(options()).unwrap();
        assert_eq!(recounted(&store), rows);
        let recovery = store.recovery();
        assert_eq!((recovery.snapshot.is_some(), recovery.loaded_facts > 0), (count > 0, count > 0), "{recovery:?}");
        assert_eq!(recovery.replayed_records, if count > 0 { 10 } else { 11 }, "{recovery:?}");
        assert!(recovery.rebuilt.is_none());
    }
}

#[test]
fn an_index_inside_the_journal_is_brought_up_to_date_without_reading_a_snapshot() {
    let machine = Machine::new();
    let rows = filled(&machine, 3);
    for snapshot in snapshots(&machine) {
        flip(&machine, &snapshot.path, snapshot.len / 2);
    }
    let store = machine.open_with(options()).unwrap();
    assert_eq!((dump(&store), store.recovery().snapshot.clone()), (rows, None));
}

#[test]
fn an_index_that_is_older_than_the_journal_is_built_anew() {
    let machine = Machine::new();
    let store = machine.open_with(options()).unwrap();
    put(&store, b"first").unwrap();
    store.close().unwrap();
    let stale = machine.index.lock().unwrap().crashed();
    let rows = filled(&machine, 2);
    *machine.index.lock().unwrap() = Arc::new(stale);
    let store = machine.open_with(options()).unwrap();
    assert_eq!(dump(&store), rows);
    assert!(store.recovery().rebuilt.as_deref().unwrap().contains("not in the journal"));
    assert!(store.recovery().snapshot.is_some());
}

/// At every changing call that writing and trimming make, and for several things that the disk may have kept.
#[test]
fn a_power_cut_or_kill_at_any_call_of_a_snapshot_changes_no_row() {
    let mut ends = std::collections::BTreeSet::new();
    for count in 0..3 {
        for changes in 0..30 {
            let mut machine = Machine::new();
            let rows = filled(&machine, count);
            let store = machine.open_with(options()).unwrap();
            machine.disk.power_off_after(changes);
            let done = store.write_snapshot();
            drop(store);
            ends.insert((count, done.is_ok(), files_of(&machine.disk.kill())));
            check_rows(&machine, &rows, &format!("kill after {changes} changes"));
            let disk = machine.disk.clone();
            for seed in 0..6 {
                machine.disk = disk.crash(seed);
                check_rows(&machine, &rows, &format!("power cut after {changes} changes, seed {seed}"));
            }
        }
    }
    assert!(ends.len() > 8, "too few different ends: {ends:?}");
}

/// How many snapshots, and how many files in all.
fn files_of(disk: &SimDisk) -> (usize, usize) {
    (snapshot::list(disk).unwrap().len(), disk.list("journal").unwrap().len())
}

/// Whatever call fails: no snapshot is left half, writes go on, and the next one succeeds. Only a sync that fails ends all
/// writes.
#[test]
fn a_failing_call_at_any_place_of_a_snapshot_stops_nothing_but_a_sync() {
    let mut failed = 0;
    for call in [Call::Read, Call::Write, Call::SyncData, Call::SyncDir, Call::Names] {
        for nth in 1..12 {
            let machine = Machine::new();
            filled(&machine, 2);
            let store = machine.open_with(options()).unwrap();
            put(&store, b"new").unwrap();
            let rows = dump(&store);
            machine.disk.fail(call, nth, Failure::Io);
            let done = store.write_snapshot();
            failed += usize::from(done.is_err());
            // A fault that did not come to pass would hit what follows.
            let machine = Machine { disk: machine.disk.kill(), index: machine.index };
            assert!(machine.disk.list("journal").unwrap().iter().all(|entry| !entry.name.ends_with(".new")));
            let is_sync = matches!(call, Call::SyncData | Call::SyncDir);
            assert_eq!(store.poisoned().is_some(), done.is_err() && is_sync, "{call:?} {nth}: {done:?}");
            check_rows(&machine, &rows, &format!("{call:?} {nth}"));
            drop(store);
            let store = machine.open_with(options()).unwrap();
            put(&store, b"newer").unwrap();
            store.write_snapshot().unwrap().unwrap();
            assert_eq!(snapshots(&machine).len(), 2);
        }
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn a_damaged_newest_snapshot_falls_back_to_the_one_before() {
    let machine = Machine::new();
    let rows = filled(&machine, 3);
    let newest = &snapshots(&machine)[0];
    for at in (0..newest.len).step_by(97).filter(|at| !(8..12).contains(at)) {
        let copy = Machine { disk: machine.disk.kill(), index: Mutex::default() };
        flip(&copy, &newest.path, at);
        let store = copy.open_with(options()).unwrap();
        assert_eq!(dump(&store), rows, "byte {at}");
        assert_ne!(store.recovery().snapshot.as_deref(), Some(newest.path.as_str()));
        // The next one finds it as its previous one, and does not trust it.
        put(&store, b"more").unwrap();
        let (rows, report) = (dump(&store), store.write_snapshot().unwrap().unwrap());
        drop(store);
        assert!(snapshots(&copy).iter().all(|snapshot| snapshot.path != newest.path), "{report:?}");
        flip(&copy, &report.path, report.bytes / 2);
        copy.lose_index();
        assert_eq!(dump(&copy.open_with(options()).unwrap()), rows, "byte {at}");
    }
}

#[test]
fn without_any_base_nothing_is_destroyed_and_the_open_is_refused_by_name() {
    let machine = Machine::new();
    filled(&machine, 3);
    let all = snapshots(&machine);
    all.iter().for_each(|snapshot| flip(&machine, &snapshot.path, snapshot.len - 1));
    let before = machine.disk.list("journal").unwrap();
    let foreign = Machine::new();
    filled(&foreign, 1);
    *machine.index.lock().unwrap() = Arc::clone(&foreign.index.lock().unwrap());
    let error = machine.open_with(options()).unwrap_err();
    assert!(matches!(&error, OpenError::NoBase { snapshot } if *snapshot == all[0].path), "{error}");
    assert_eq!(machine.disk.list("journal").unwrap(), before);
    assert!(!machine.index.lock().unwrap().scan(&[], &[u8::MAX], 1).unwrap().is_empty(), "the index is as it was");
}

#[test]
fn a_snapshot_beyond_the_journals_end_brings_back_what_the_journal_has_lost() {
    for is_index_lost in [false, true] {
        let machine = Machine::new();
        let store = machine.open_with(options()).unwrap();
        put_many(&store, 0..10, |_| 500);
        store.close().unwrap();
        let (old, old_index) = (machine.disk.kill(), machine.index.lock().unwrap().crashed());
        let store = machine.open_with(options()).unwrap();
        put_many(&store, 10..20, |_| 500);
        let rows = dump(&store);
        store.write_snapshot().unwrap().unwrap();
        store.close().unwrap();
        // An older copy of the journal is put back, and perhaps of the index.
        let names =
            |disk: &SimDisk| disk.list("journal").unwrap().into_iter().filter(|entry| entry.name.ends_with(".journal"));
        names(&machine.disk).for_each(|entry| machine.disk.remove(&format!("journal/{}", entry.name)).unwrap());
        for entry in names(&old) {
            let path = format!("journal/{}", entry.name);
            let mut bytes = vec![0; entry.len as usize];
            old.open(&path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
            machine.disk.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
        }
        if is_index_lost {
            machine.lose_index();
        } else {
            *machine.index.lock().unwrap() = Arc::new(old_index);
        }
        let store = machine.open_with(options()).unwrap();
        assert_eq!(store.recovery().lost_records, 20);
        assert_eq!(dump(&store), rows);
        (10..20).for_each(|seed| check(&store, &bytes(seed, 500)));
        put(&store, b"it goes on").unwrap();
        let rows = dump(&store);
        drop(store);
        check_rows(&machine, &rows, "behind the gap");
    }
}

#[test]
fn a_full_disk_ends_a_snapshot_and_leaves_the_reserve() {
    let machine = Machine::new();
    filled(&machine, 2);
    let store = machine.open_with(StoreOptions { reserve_bytes: 10_000, ..options() }).unwrap();
    put(&store, b"new").unwrap();
    let before = machine.disk.list("journal").unwrap();
    let used = |machine: &Machine| {
        machine.disk.set_capacity(Some(1 << 40));
        (1 << 40) - machine.disk.free_bytes().unwrap()
    };
    let used = used(&machine);
    // An answer about free space is used for 100 ms.
    std::thread::sleep(std::time::Duration::from_millis(120));
    for free in [0, 100, 9_999, 10_100] {
        machine.disk.set_capacity(Some(used + free));
        let result = store.write_snapshot();
        assert!(matches!(result, Err(StoreError::Full(_))), "{free}: {result:?}");
        assert_eq!(machine.disk.list("journal").unwrap(), before);
    }
    machine.disk.set_capacity(None);
    assert!(store.write_snapshot().unwrap().unwrap().removed.files > 0);
    assert!(store.poisoned().is_none());
}

/// Lets a store work for rounds, and holds its journal against its snapshot after each.
fn check_growth(what: &str, journal_file_bytes_max: u64, rounds: u64, prepare: fn(&Store), work: fn(&Store, u64)) {
    let machine = Machine::new();
    let options =
        StoreOptions { snapshot_bytes_min: 4_000, journal_file_bytes_max, large_blob_bytes: 3_000, ..options() };
    let store = machine.open_with(options).unwrap();
    prepare(&store);
    let bytes = |suffix: &str| -> u64 {
        let entries = machine.disk.list("journal").unwrap();
        entries.iter().filter(|entry| entry.name.ends_with(suffix)).map(|entry| entry.len).sum()
    };
    for round in 0..rounds {
        work(&store, round);
        // The thread runs beside this one; when it has caught up, the bound holds.
        let newest = || snapshots(&machine).first().map_or(0, |snapshot| snapshot.len);
        let caught_up = (0..2_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            bytes(".journal") <= 2 * newest()
        });
        let (journal, snapshot) = (bytes(".journal"), newest());
        eprintln!("{what}, round {round}: {journal} bytes of journal, {snapshot} of the newest snapshot");
        assert!(caught_up, "the journal stays above twice the state");
    }
    // Closing would abandon what the thread is at, were it only to remove the oldest snapshot.
    drop(store.write_snapshot().unwrap());
    let rows = dump(&store);
    store.close().unwrap();
    check_rows(&machine, &rows, what);
    assert_eq!(snapshots(&machine).len(), 2);
}

#[test]
fn the_journal_of_a_busy_store_stays_within_twice_its_state() {
    // The state stays as it is: the same content comes again and again.
    let prepare = |store: &Store| put_many(store, 0..400, |_| 20);
    check_growth("uploads", 1_000, 20, prepare, |store, _| put_many(store, 0..400, |_| 20));
    // The state grows by the history of the tag.
    check_growth("tags", 2_000, 20, fixture::tell_uploads, |store, round| {
        let [image, docker, ..] = &fixture::documents();
        for n in 0..300 {
            fixture::push(store, if (n + round) % 2 == 0 { image } else { docker }, &["latest"]);
        }
    });
}

#[test]
fn a_store_that_has_grown_without_snapshots_gets_one_when_it_is_opened() {
    let machine = Machine::new();
    let rows = filled(&machine, 0);
    let options = StoreOptions { snapshot_bytes_min: 500, ..options() };
    let store = machine.open_with(options).unwrap();
    for _ in 0..1_000 {
        if snapshots(&machine).len() == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(store);
    assert_eq!(snapshots(&machine).len(), 1);
    check_rows(&machine, &rows, "after the first snapshot");
}

#[test]
fn many_writers_and_snapshots_at_once_lose_nothing() {
    let machine = Machine::new();
    let store = machine.open_with(StoreOptions { snapshot_bytes_min: 2_000, ..options() }).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..150 {
                    put(store, &bytes(1_000 * thread + n, 40)).unwrap();
                    if n % 3 == 0 {
                        let digest = Digest::of(Algorithm::Sha256, &bytes(1_000 * thread + n, 40));
                        store.commit(Request::Unlink { repository: repository(), digest }).unwrap();
                    }
                }
            });
        }
        (0..50).for_each(|_| drop(store.write_snapshot().unwrap()));
    });
    // Closing would abandon what the thread is at, were it only to remove the oldest snapshot.
    drop(store.write_snapshot().unwrap());
    let rows = dump(&store);
    drop(store);
    check_rows(&machine, &rows, "after writers and snapshots at once");
    assert_eq!(snapshots(&machine).len(), 2);
}
