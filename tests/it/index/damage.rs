//! Bytes of the index changed, cut off and removed behind its back.
//!
//! The promise under test: damage is an error, or the index is an exact earlier state (the store sees that by its LSN and
//! replays or rebuilds), or it is empty. Never a wrong value, never a row that is quietly missing.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use orlop::index::{Changes, Index, IndexError, View, memory::MemoryIndex, rocks::RocksIndex};

use super::tiny;

const META: &[u8] = b"\x00lsn";
/// Not a multiple of the four files that start a compaction: one that meets damage waits a second in RocksDB.
const GENERATIONS: u64 = 11;

/// What each LSN's state is, by number; state 0 is empty.
fn build(path: &Path, random: &mut fastrand::Rng) -> Vec<MemoryIndex> {
    let rocks = RocksIndex::open(path, &tiny()).unwrap();
    let memory = MemoryIndex::new();
    let mut states = vec![memory.crashed()];
    for lsn in 1..=GENERATIONS {
        let mut changes = Changes::from([(META.to_vec(), Some(lsn.to_le_bytes().to_vec()))]);
        for _ in 0..1_500 {
            let key = [&[1][..], &random.u16(..8_000).to_be_bytes()].concat();
            let value = (random.u8(..4) > 0).then(|| (0..60).map(|_| random.u8(..)).collect());
            changes.insert(key, value);
        }
        for index in [&rocks as &dyn Index, &memory] {
            index.write(&changes).unwrap();
            index.flush().unwrap();
        }
        states.push(memory.crashed());
    }
    states
}

/// Opens a damaged index and reads all of it, by scan and row by row.
///
/// `Ok` gives the LSN of the exact state that it has.
fn examine(path: &Path, states: &[MemoryIndex]) -> Result<u64, IndexError> {
    let rocks = RocksIndex::open(path, &tiny())?;
    let lsn = rocks.get(META)?.map_or(0, |lsn| u64::from_le_bytes(lsn.try_into().unwrap()));
    let state = &states[usize::try_from(lsn).unwrap()];
    let mut failed = None;
    for number in 0..8_000_u16 {
        let key = [&[1][..], &number.to_be_bytes()].concat();
        match rocks.get(&key) {
            Ok(value) => assert_eq!(value, state.get(&key)?, "get {number} at LSN {lsn}"),
            Err(error) => failed = Some(error),
        }
    }
    match rocks.scan(b"", b"\xff", usize::MAX) {
        Ok(rows) => assert_eq!(rows, state.scan(b"", b"\xff", usize::MAX)?, "scan at LSN {lsn}"),
        Err(error) => failed = Some(error),
    }
    failed.map_or(Ok(lsn), Err)
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Damages one copy after the other and counts what comes of it: detected, an exact earlier state, no effect.
fn check(trials: usize, damage: impl Fn(&Path, &mut fastrand::Rng) -> String) -> [usize; 3] {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let states = build(&whole, &mut random);
    let mut counts = [0; 3];
    for trial in 0..trials {
        let path = dir.path().join("damaged");
        copy(&whole, &path);
        let done = damage(&path, &mut random);
        println!("trial {trial}: {done}");
        match examine(&path, &states) {
            Err(error) => {
                assert!(matches!(error, IndexError::Corrupt(_)), "{done}: {error:?}");
                counts[0] += 1;
            }
            Ok(lsn) if lsn < GENERATIONS => counts[1] += 1,
            Ok(_) => counts[2] += 1,
        }
        RocksIndex::destroy(&path).unwrap();
        let again = RocksIndex::open(&path, &tiny()).unwrap();
        assert_eq!(again.scan(b"", b"\xff", 1).unwrap(), [], "after {done} and destroy");
        drop(again);
        fs::remove_dir_all(&path).unwrap();
    }
    println!("detected, earlier state, no effect: {counts:?}");
    counts
}

/// A file that holds something; those that only log or lock are damaged without effect.
fn choose(path: &Path, random: &mut fastrand::Rng) -> (PathBuf, Vec<u8>) {
    let candidates: Vec<_> = files(path).into_iter().filter(|file| fs::metadata(file).unwrap().len() > 0).collect();
    let file = random.choice(&candidates).unwrap().clone();
    let bytes = fs::read(&file).unwrap();
    (file, bytes)
}

#[test]
fn a_changed_byte_is_never_served() {
    let [detected, ..] = check(150, |path, random| {
        let (file, mut bytes) = choose(path, random);
        let offset = random.usize(..bytes.len());
        bytes[offset] ^= random.u8(1..);
        fs::write(&file, &bytes).unwrap();
        format!("{} offset {offset} changed", file.file_name().unwrap().display())
    });
    assert!(detected > 0);
}

#[test]
fn a_cut_file_is_damage_or_an_earlier_state() {
    let [detected, ..] = check(80, |path, random| {
        let (file, bytes) = choose(path, random);
        let len = random.usize(..bytes.len());
        fs::write(&file, &bytes[..len]).unwrap();
        format!("{} of {} cut to {len}", file.file_name().unwrap().display(), bytes.len())
    });
    assert!(detected > 0);
}

#[test]
fn a_missing_file_is_damage_or_an_empty_index() {
    let [detected, ..] = check(60, |path, random| {
        let file = random.choice(files(path)).unwrap();
        fs::remove_file(&file).unwrap();
        format!("{} removed", file.file_name().unwrap().display())
    });
    assert!(detected > 0);
}

#[test]
fn an_open_index_tells_damage_when_it_meets_it_and_serves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let states = build(&path, &mut fastrand::Rng::with_seed(1));
    let rocks = RocksIndex::open(&path, &tiny()).unwrap();
    let tables = files(&path).into_iter().filter(|file| file.extension().is_some_and(|end| end == "sst"));
    let largest = tables.max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[..32 << 10].fill(0xa5);
    fs::write(&largest, &bytes).unwrap();

    let (mut damaged, mut read) = (0, 0);
    for number in 0..8_000_u16 {
        let key = [&[1][..], &number.to_be_bytes()].concat();
        match rocks.get(&key) {
            Err(IndexError::Corrupt(_)) => damaged += 1,
            Err(error) => panic!("{error}"),
            Ok(value) => {
                assert_eq!(value, states.last().unwrap().get(&key).unwrap());
                read += 1;
            }
        }
    }
    assert!(damaged > 100 && read > 100, "{damaged} damaged, {read} read");
    assert!(matches!(rocks.scan(b"", b"\xff", usize::MAX), Err(IndexError::Corrupt(_))));
}

#[test]
fn a_compaction_that_meets_damage_stops_writes_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&path, &mut fastrand::Rng::with_seed(1));
    for file in files(&path).into_iter().filter(|file| file.extension().is_some_and(|end| end == "sst")) {
        let mut bytes = fs::read(&file).unwrap();
        bytes[..4 << 10].fill(0xa5);
        fs::write(&file, &bytes).unwrap();
    }
    let rocks = RocksIndex::open(&path, &tiny()).unwrap();
    let row = Changes::from([(b"\x01".to_vec(), Some(vec![0; 100]))]);
    let begun = Instant::now();
    let error = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "writes go on over damaged files");
        if let Err(error) = rocks.health().and_then(|()| rocks.write(&row)).and_then(|()| rocks.flush()) {
            break error;
        }
    };
    assert!(matches!(error, IndexError::Corrupt(_)), "{error:?}");
    assert!(matches!(rocks.health(), Err(IndexError::Corrupt(_))), "{:?}", rocks.health());
    assert_eq!(rocks.get(b"\x02").unwrap(), None, "reads go on");
}
