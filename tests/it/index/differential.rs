//! The same random calls against RocksDB and against the map: any difference is a bug in one of them.

use std::fmt::Debug;

use orlop::{
    disk::Reach,
    index::{Changes, Index, IndexError, View, memory::MemoryIndex, rocks::RocksIndex, schema::Table},
};

use super::tiny;

#[test]
fn rocksdb_answers_as_the_map_in_memory() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let memory = MemoryIndex::new();
    for _ in 0..8 {
        let rocks = RocksIndex::open(&path, &tiny()).unwrap();
        compare(&rocks, &memory, &mut random);
        for _ in 0..20 {
            round(&rocks, &memory, &mut random);
        }
        rocks.flush().unwrap();
    }
}

/// Snapshots are taken first and compared last, behind the writes and the flush that must not show in them.
fn round(rocks: &RocksIndex, memory: &MemoryIndex, random: &mut fastrand::Rng) {
    let snapshots = (rocks.snapshot(), memory.snapshot());
    let in_memory = rocks.in_memory();
    for _ in 0..random.usize(..20) {
        let changes = random_changes(random);
        rocks.health().unwrap();
        rocks.write(&changes).unwrap();
        memory.write(&changes).unwrap();
        compare(rocks, memory, random);
    }
    if random.u8(..5) == 0 {
        rocks.flush().unwrap();
    }
    compare(rocks, memory, random);
    compare(&*snapshots.0, &*snapshots.1, random);
    compare_within(Reach::Memory, &*in_memory, &*snapshots.1, random);
}

fn compare(rocks: &dyn View, memory: &dyn View, random: &mut fastrand::Rng) {
    compare_within(Reach::Disk, rocks, memory, random);
}

/// What must not wait may say so, and nothing else that is not so.
fn compare_within(reach: Reach, rocks: &dyn View, memory: &dyn View, random: &mut fastrand::Rng) {
    for _ in 0..10 {
        let key = random_key(random);
        is_same(reach, rocks.get(&key), memory.get(&key), || format!("get {key:?}"));
    }
    for limit in [0, 1, 2, 100, usize::MAX] {
        let (from, until) = (random_key(random), random_key(random));
        let asked = || format!("scan {from:?}..{until:?} limit {limit}");
        is_same(reach, rocks.scan(&from, &until, limit), memory.scan(&from, &until, limit), asked);
    }
    is_same(reach, rocks.scan(b"", b"\xff", 5), memory.scan(b"", b"\xff", 5), || "the first five".to_owned());
}

fn is_same<T: PartialEq + Debug>(
    reach: Reach,
    found: Result<T, IndexError>,
    expected: Result<T, IndexError>,
    asked: impl FnOnce() -> String,
) {
    if reach == Reach::Disk || !matches!(found, Err(IndexError::OutOfReach)) {
        assert_eq!(found.unwrap(), expected.unwrap(), "{}", asked());
    }
}

#[test]
fn what_must_not_wait_finds_rows_of_files_once_they_were_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let key = key(Table::Blobs as u8, 1);
    let changes = Changes::from([(key.clone(), Some(b"row".to_vec()))]);
    let rocks = RocksIndex::open(&path, &tiny()).unwrap();
    rocks.write(&changes).unwrap();
    assert_eq!(rocks.in_memory().get(&key).unwrap().as_deref(), Some(&b"row"[..]), "a row that was just written");
    rocks.flush().unwrap();
    drop(rocks);
    let rocks = RocksIndex::open(&path, &tiny()).unwrap();
    assert!(matches!(rocks.in_memory().get(&key), Err(IndexError::OutOfReach)));
    assert!(matches!(rocks.in_memory().scan(&key, b"\xff", 1), Err(IndexError::OutOfReach)));
    rocks.get(&key).unwrap();
    assert_eq!(rocks.in_memory().get(&key).unwrap().as_deref(), Some(&b"row"[..]));
    assert_eq!(rocks.in_memory().scan(&key, b"\xff", 1).unwrap().len(), 1);
}

/// Up to 200 rows; now and then a run of neighbours is deleted, as the collector does.
fn random_changes(random: &mut fastrand::Rng) -> Changes {
    let mut changes = Changes::new();
    for _ in 0..random.usize(..200) {
        let value = (random.u8(..4) > 0).then(|| vec![random.u8(..); random.usize(..100)]);
        changes.insert(random_key(random), value);
    }
    if random.u8(..4) == 0 {
        let (table, first) = (random.u8(..3), random.u16(..3_000));
        changes.extend((first..first + 300).map(|number| (key(table, number), None)));
    }
    changes
}

fn random_key(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut key = key(random.u8(..3), random.u16(..3_000));
    if random.u8(..10) == 0 {
        key.truncate(random.usize(..=key.len()));
    }
    key
}

fn key(table: u8, number: u16) -> Vec<u8> {
    // One of them is a queue, which has a front.
    [&[table + Table::DueDrops as u8][..], &number.to_be_bytes()].concat()
}
