//! The store over a disk and an index that forget what was not synced.

use std::sync::{Arc, Mutex};

use crate::{
    digest::{Algorithm, Digest},
    disk::{
        Disk, RealDisk,
        sim::{Call, Failure, SimDisk},
    },
    index::{Index, IndexError, memory::MemoryIndex},
    journal::Position,
    location::RecordKind,
    name::RepositoryName,
    state::{
        dump,
        recount::recount,
        request::{Content, Request},
    },
};

use super::{IndexStart, OpenError, Store, StoreError, StoreOptions, open};

mod dropping;
mod fixture;
mod journal_damage;
mod snapshots;

/// A disk, the index on it, and the store that was last opened there.
struct Machine {
    disk: SimDisk,
    index: Mutex<Arc<MemoryIndex>>,
}

impl Machine {
    fn new() -> Self {
        Self { disk: SimDisk::new(), index: Mutex::default() }
    }

    fn options() -> StoreOptions {
        StoreOptions {
            large_blob_bytes: 10_000,
            buffered_bytes_max: 100_000,
            shared_segment_bytes_max: 50_000,
            reserve_bytes: 0,
            ..StoreOptions::default()
        }
    }

    fn open(&self) -> Result<Store, OpenError> {
        self.open_with(Self::options())
    }

    fn open_with(&self, options: StoreOptions) -> Result<Store, OpenError> {
        Store::open_on(Arc::new(self.disk.clone()), options, &|start| {
            let mut index = self.index.lock().unwrap();
            if start == IndexStart::Empty {
                *index = Arc::default();
            }
            Ok(Box::new(Arc::clone(&*index)))
        })
    }

    fn lose_index(&self) {
        *self.index.lock().unwrap() = Arc::default();
    }

    /// Cuts the power: the disk keeps what was durable and some of the rest, the index what was flushed.
    fn crash(&mut self, seed: u64) {
        self.disk = self.disk.crash(seed);
        let mut index = self.index.lock().unwrap();
        *index = Arc::new(index.crashed());
    }
}

fn repository() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn put(store: &Store, content: &[u8]) -> Result<Digest, StoreError> {
    store.put(&repository(), Algorithm::Sha256, content)
}

fn put_many(store: &Store, seeds: std::ops::Range<u64>, len: impl Fn(u64) -> usize) {
    for seed in seeds {
        put(store, &bytes(seed, len(seed))).unwrap();
    }
}

fn check(store: &Store, content: &[u8]) {
    let stored = store.content(&Digest::of(Algorithm::Sha256, content)).unwrap().expect("it was acknowledged");
    assert_eq!(stored.read_all().unwrap(), content);
}

/// All rows, after they were counted again, the state hash among them.
fn recounted(store: &Store) -> Vec<String> {
    recount(&*store.snapshot(), &mut |difference| panic!("{difference}")).unwrap();
    dump(store)
}

fn dump(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    store.dump(&mut |line| lines.push(line.to_owned())).unwrap();
    lines
}

#[test]
fn what_was_put_is_there_after_reopen_and_after_power_cut() {
    let contents: Vec<Vec<u8>> = [0, 1, 9_999, 10_000, 10_001, 200_000].map(|len| bytes(len as u64, len)).into();
    for seed in 0..50 {
        let mut machine = Machine::new();
        let store = machine.open().unwrap();
        for content in &contents {
            put(&store, content).unwrap();
        }
        drop(store);
        machine.crash(seed);
        let store = machine.open().unwrap();
        contents.iter().for_each(|content| check(&store, content));
        let (before, _) = (dump(&store), store.close().unwrap());
        let store = machine.open().unwrap();
        assert_eq!(store.recovery().replayed_records, 0, "a clean close leaves nothing to replay");
        assert_eq!(dump(&store), before);
    }
}

#[test]
fn a_lost_or_stale_index_comes_back_the_same() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    put_many(&store, 0..20, |seed| 500 * seed as usize);
    store.close().unwrap();
    let stale = machine.index.lock().unwrap().crashed();
    let store = machine.open().unwrap();
    put_many(&store, 20..40, |seed| 500 * seed as usize);
    let before = recounted(&store);
    store.close().unwrap();

    *machine.index.lock().unwrap() = Arc::new(stale);
    let store = machine.open().unwrap();
    assert!(store.recovery().rebuilt.is_none(), "a stale index is brought up to date");
    assert_eq!(recounted(&store), before);
    drop(store);

    machine.lose_index();
    let store = machine.open().unwrap();
    assert_eq!(recounted(&store), before);
    drop(store);

    let foreign = Machine::new();
    let store = foreign.open().unwrap();
    put_many(&store, 0..60, |_| 10);
    store.close().unwrap();
    *machine.index.lock().unwrap() = Arc::clone(&foreign.index.lock().unwrap());
    let store = machine.open().unwrap();
    assert!(store.recovery().rebuilt.as_deref().unwrap().contains("another store"));
    assert_eq!(recounted(&store), before);
}

/// Whatever sync fails, and wherever: nothing that was acknowledged is lost, nothing more is acknowledged, reads go on.
#[test]
fn a_failed_sync_ends_writes_and_loses_nothing() {
    for nth in 1..40 {
        let mut machine = Machine::new();
        let store = machine.open().unwrap();
        put(&store, b"first").unwrap();
        machine.disk.fail(Call::SyncData, nth, Failure::Io);
        let mut acknowledged = vec![b"first".to_vec()];
        let mut failed = false;
        for seed in 0..30 {
            let content = bytes(seed, 900 * seed as usize);
            match put(&store, &content) {
                Ok(_) => {
                    assert!(!failed, "an acknowledgement after a failed sync (the {nth}th)");
                    acknowledged.push(content);
                }
                Err(StoreError::Unavailable(_)) => failed = true,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(failed, store.poisoned().is_some());
        check(&store, b"first");
        drop(store);
        let store = machine.open().unwrap();
        put(&store, b"after the restart").unwrap();
        acknowledged.push(b"after the restart".to_vec());
        drop(store);
        machine.crash(nth);
        let store = machine.open().unwrap();
        acknowledged.iter().for_each(|content| check(&store, content));
    }
}

/// A device whose flush fails loses what it was given of all files, and tells so to whoever asked for that flush. Here that is
/// somebody else, right before each of the syncs of a push: large content as it comes and as it ends, small content, the journal.
/// In real cuts below xfs a blob was acknowledged so, and its bytes were not there.
#[test]
fn what_a_sync_of_another_file_may_have_taken_is_not_acknowledged() {
    for (len, syncs) in [(900, 2), (20_000, 3)] {
        let mut told = 0;
        for nth in 1..=syncs {
            let mut machine = Machine::new();
            let store = machine.open().unwrap();
            put(&store, b"first").unwrap();
            let (disk, sim) = (Arc::clone(&store.shared.disk), machine.disk.clone());
            machine.disk.interrupt_sync(nth, move || {
                sim.fail(Call::SyncData, 1, Failure::Io);
                disk.create("another").unwrap().sync_data().unwrap_err();
            });
            let content = bytes(1, len);
            match put(&store, &content) {
                Err(StoreError::Unavailable(why)) => {
                    assert!(why.contains("cannot sync another: Input/output error"), "{why}");
                    told += 1;
                }
                other => panic!("a push of {len} bytes with the {nth}th sync interrupted: {other:?}"),
            }
            assert!(put(&store, b"later").is_err());
            check(&store, b"first");
            drop(store);
            // What was not acknowledged may be there or not, but what is named is on the disk, and not in memory only.
            machine.disk.evict();
            machine.crash(nth);
            let store = machine.open().unwrap();
            check(&store, b"first");
            if let Some(stored) = store.content(&Digest::of(Algorithm::Sha256, &content)).unwrap() {
                assert_eq!(stored.read_all().unwrap(), content);
            }
            put(&store, &content).unwrap();
        }
        assert_eq!(told, syncs);
    }
}

/// The same by a flush of the index's own files, between batches and during each sync of one.
#[test]
fn what_a_flush_of_the_index_may_have_taken_is_not_acknowledged() {
    for nth in 0..=2 {
        let machine = Machine::new();
        let store = machine.open().unwrap();
        put(&store, b"first").unwrap();
        let index = Arc::clone(&machine.index.lock().unwrap());
        match nth {
            0 => index.set_failed(),
            nth => machine.disk.interrupt_sync(nth, move || index.set_failed()),
        }
        match put(&store, b"second") {
            Err(StoreError::Unavailable(why)) => assert!(why.contains("told that the disk has failed"), "{why}"),
            other => panic!("sync {nth}: {other:?}"),
        }
        assert!(store.poisoned().is_some());
        check(&store, b"first");
    }
}

#[test]
fn a_snapshot_that_cannot_be_synced_ends_writes() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    put(&store, b"first").unwrap();
    machine.disk.fail(Call::SyncData, 1, Failure::Io);
    store.write_snapshot().unwrap_err();
    assert!(matches!(put(&store, b"second"), Err(StoreError::Unavailable(why)) if why.contains("snapshot")));
    check(&store, b"first");
}

#[test]
fn a_file_system_that_has_become_read_only_refuses_writes_with_its_reason_and_serves_reads() {
    for len in [10, 50_000] {
        let machine = Machine::new();
        let store = machine.open().unwrap();
        put(&store, b"before").unwrap();
        for call in [Call::Write, Call::Names, Call::SetLen, Call::Allocate, Call::Punch] {
            machine.disk.fail_from(call, 1, Failure::ReadOnly);
        }
        for seed in 0..3 {
            let error = put(&store, &bytes(seed, len)).unwrap_err();
            assert!(
                matches!(&error, StoreError::Unavailable(text) if text.contains("Read-only file system")),
                "{error}"
            );
        }
        let reason = store.poisoned().unwrap().to_string();
        assert!(reason.contains("Read-only file system"), "{reason}");
        check(&store, b"before");
    }
}

#[test]
fn a_full_disk_refuses_uploads_and_serves_reads() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    put(&store, b"before").unwrap();
    machine.disk.set_capacity(Some(0));
    for len in [10, 50_000] {
        assert!(matches!(put(&store, &bytes(1, len)), Err(StoreError::Full(_))), "{len}");
    }
    check(&store, b"before");
    machine.disk.set_capacity(None);
    put(&store, &bytes(1, 50_000)).unwrap();
    check(&store, &bytes(1, 50_000));
}

#[test]
fn a_store_opens_on_a_disk_of_which_somebody_else_has_taken_the_last_block() {
    let machine = Machine::new();
    let options = || StoreOptions {
        reserve_bytes: 400_000,
        journal_file_bytes_max: 100_000,
        flush_bytes: 10_000,
        ..Machine::options()
    };
    machine.disk.set_capacity(Some(10_000_000));
    let store = machine.open_with(options()).unwrap();
    let contents: Vec<Vec<u8>> = (0..100).map(|seed| bytes(seed, 1_000)).collect();
    contents.iter().for_each(|content| assert!(put(&store, content).is_ok()));
    drop(store);
    machine.lose_index();
    let used = 10_000_000 - machine.disk.free_bytes().unwrap();
    machine.disk.set_capacity(Some(used));
    let store = machine.open_with(options()).unwrap();
    contents.iter().for_each(|content| check(&store, content));
    assert!(matches!(put(&store, b"more"), Err(StoreError::Full(_))));
    assert!(machine.disk.open("reserve").is_err());
    drop(store);
    machine.disk.set_capacity(None);
    let store = machine.open_with(options()).unwrap();
    assert!(machine.disk.open("reserve").is_ok());
    put(&store, b"more").unwrap();
}

/// With the journal's blocks used up every delete was told that the disk is full, while blocks lay set aside for just that.
#[test]
fn deletes_go_on_with_the_blocks_that_were_set_aside_and_pushes_do_not() {
    let machine = Machine::new();
    let options = StoreOptions {
        reserve_bytes: 400_000,
        journal_file_bytes_max: 100_000,
        flush_bytes: 10_000,
        ..Machine::options()
    };
    machine.disk.set_capacity(Some(10_000_000));
    let store = machine.open_with(options).unwrap();
    let digests: Vec<Digest> = (0..300).map(|seed| put(&store, &bytes(seed, 100)).unwrap()).collect();
    let used = 10_000_000 - machine.disk.free_bytes().unwrap();
    machine.disk.set_capacity(Some(used));
    let link = |digest| Request::Mount { repository: repository(), digest, from: repository(), grace_ms: 1 };
    // What needs no bytes meets the end of the journal's own blocks, whether a flush has spent the others meanwhile or not.
    let mut mounts = digests.iter().cycle().take(10_000).map(|digest| store.commit(link(*digest)));
    let refused = mounts.find_map(Result::err).expect("the journal's blocks have an end");
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    for digest in &digests {
        store.commit(Request::Unlink { repository: repository(), digest: *digest }).unwrap();
    }
    assert!(machine.disk.open("reserve").is_err());
    assert!(matches!(store.commit(link(digests[0])), Err(StoreError::Full(_) | StoreError::Refused(_))));
    assert!(matches!(put(&store, b"more"), Err(StoreError::Full(_))));
}

#[test]
fn identical_uploads_at_once_keep_one_copy() {
    for len in [4_000, 40_000] {
        let machine = Machine::new();
        let store = machine.open().unwrap();
        let content = bytes(7, len);
        std::thread::scope(|scope| {
            (0..16).for_each(|_| drop(scope.spawn(|| put(&store, &content).unwrap())));
        });
        check(&store, &content);
        let records: Vec<_> = dump(&store).into_iter().filter(|line| line.starts_with("segments ")).collect();
        let (live, dead): (Vec<_>, Vec<_>) = records.iter().partition(|line| line.contains("\"live_records\":1,"));
        let is_dead = |line: &&String| line.contains("\"live_records\":0,");
        assert!(live.len() == 1 && dead.iter().all(is_dead), "{records:?}");
    }
}

/// The file's header was damaged while the segment took appends, and what healed its content was appended behind it.
#[test]
fn damage_of_a_segments_header_is_healed_by_the_next_upload() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    put(&store, b"small").unwrap();
    let directory = &machine.disk.list("segments").unwrap()[0].name;
    let name = &machine.disk.list(&format!("segments/{directory}")).unwrap()[0].name;
    let file = machine.disk.open(&format!("segments/{directory}/{name}")).unwrap();
    file.write_all_at(&[0xff], 55).unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"small");
    let read = store.content(&digest).and_then(|stored| stored.unwrap().read_all());
    assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    put(&store, b"small").unwrap();
    check(&store, b"small");
    put(&store, b"another").unwrap();
    check(&store, b"another");
}

#[test]
fn damage_is_told_and_healed_by_the_next_upload() {
    for len in [500, 40_000] {
        let machine = Machine::new();
        let store = machine.open().unwrap();
        let content = bytes(3, len);
        let digest = put(&store, &content).unwrap();
        let directory = &machine.disk.list("segments").unwrap()[0].name;
        let name = &machine.disk.list(&format!("segments/{directory}")).unwrap()[0].name;
        let file = machine.disk.open(&format!("segments/{directory}/{name}")).unwrap();
        let mut segment = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut segment, 0).unwrap();
        let at = segment.windows(100).position(|window| window == &content[100..200]).unwrap();
        file.write_all_at(&[!content[100]], at as u64).unwrap();
        let read = store.content(&digest).and_then(|stored| stored.unwrap().read_all());
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
        put(&store, &content).unwrap();
        check(&store, &content);
    }
}

/// The old copy was found to be damaged when the new one was under way already, so the old one was kept; and then nobody
/// knew of the damage any more.
#[test]
fn what_is_known_of_damage_stands_where_the_damaged_copy_was_kept() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    let content = bytes(3, 40_000);
    let digest = put(&store, &content).unwrap();
    let again = |damaged_meanwhile: bool| {
        let mut upload = store.upload();
        upload.write(&content).unwrap();
        let commit = |content: Content| {
            if damaged_meanwhile {
                store.note_damage(&digest);
            }
            let repository: RepositoryName = "team/app".parse().unwrap();
            store.commit(Request::Upload { repository, content, session: None, held_bytes: 0, grace_ms: 1_000 })
        };
        upload.finish(digest, RecordKind::Blob, commit, || true).unwrap();
        store.is_damaged(&digest)
    };
    assert!(again(true), "the copy that is damaged was kept");
    assert!(!again(false), "it was replaced");
    assert!(!again(false), "there is nothing to know");
}

#[test]
fn a_second_opener_and_a_foreign_directory_are_refused_by_name() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    assert!(matches!(machine.open(), Err(OpenError::InUse(_))));
    drop(store);
    let other = Machine::new();
    other.disk.create("photo.jpg").unwrap();
    let error = other.open().unwrap_err().to_string();
    assert_eq!(other.disk.list("").unwrap().len(), 1, "nothing is left in a foreign directory");
    assert!(error.contains("photo.jpg") && error.contains("not an orlop data directory"), "{error}");
}

/// The index was destroyed before the open was refused, and with it the last copy of what the segments hold.
#[test]
fn a_journal_that_was_taken_away_is_not_taken_for_a_new_store() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    put(&store, b"content").unwrap();
    let rows = dump(&store);
    store.close().unwrap();
    machine.disk.remove_dir_all("journal").unwrap();
    let error = machine.open().unwrap_err().to_string();
    assert!(error.contains("no journal"), "{error}");
    let mut lines = Vec::new();
    dump::dump(&*machine.index.lock().unwrap().snapshot(), &mut |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(lines, rows, "the index is as it was");
}

/// The last batch was cut as torn, the index that knew better was destroyed, and the segments that only it named were
/// removed: one flipped bit took acknowledged bytes from the disk.
#[test]
fn what_only_the_index_still_knows_is_kept() {
    let machine = Machine::new();
    let store = machine.open().unwrap();
    put(&store, b"first").unwrap();
    let large = bytes(1, 50_000);
    put(&store, &large).unwrap();
    store.close().unwrap();
    let name = &machine.disk.list("journal").unwrap()[0].name;
    let file = machine.disk.open(&format!("journal/{name}")).unwrap();
    let end = file.len().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, end - 20).unwrap();
    file.write_all_at(&[!byte[0]], end - 20).unwrap();

    let store = machine.open().unwrap();
    assert!(store.recovery().lost_records > 0, "{:?}", store.recovery());
    check(&store, b"first");
    assert!(store.content(&Digest::of(Algorithm::Sha256, &large)).unwrap().is_none());
    assert_eq!(machine.disk.list("lost").unwrap().len(), 1, "the segment of the lost upload");
}

/// Any error was taken for damage, so that a lack of file descriptors destroyed a good index.
#[test]
fn an_index_that_fails_is_not_destroyed() {
    let machine = Machine::new();
    put(&machine.open().unwrap(), b"content").unwrap();
    let disk = Arc::new(machine.disk.clone());
    let opened = Store::open_on(disk, Machine::options(), &|start| {
        assert_eq!(start, IndexStart::AsItIs);
        Err(IndexError::Failed("too many open files".to_owned()))
    });
    assert!(opened.unwrap_err().to_string().contains("too many open files"));
}

/// When the same older journal was put back twice, the second open found the name taken and failed, again and again.
#[test]
fn an_index_is_kept_beside_one_that_was_kept_before() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(directory.path()).unwrap();
    for _ in 0..3 {
        disk.create_dir("index").unwrap();
        disk.create("index/CURRENT").unwrap();
        open::keep_index(&disk, Position { lsn: 7, local: 9 }).unwrap();
    }
    let names: Vec<String> = disk.list("lost").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["index-7-9", "index-7-9.1", "index-7-9.2"]);
}
