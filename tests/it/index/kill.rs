//! A killed process, a directory that vanishes under an open index, and two at once.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use orlop::index::{Changes, Index, IndexError, View, memory::MemoryIndex, rocks::RocksIndex};

use super::tiny;

const META: &[u8] = b"\x00lsn";
const CHILD: &str = "ORLOP_TEST_KILLED_INDEX";

/// The batch of an LSN, the same in parent and child.
fn batch(lsn: u64) -> Changes {
    let mut random = fastrand::Rng::with_seed(lsn);
    let mut changes = Changes::from([(META.to_vec(), Some(lsn.to_le_bytes().to_vec()))]);
    for _ in 0..200 {
        let key = [&[1][..], &random.u16(..).to_be_bytes()].concat();
        let value = (random.u8(..3) > 0).then(|| vec![random.u8(..); random.usize(..80)]);
        changes.insert(key, value);
    }
    changes
}

fn applied_lsn(index: &dyn View) -> u64 {
    index.get(META).unwrap().map_or(0, |lsn| u64::from_le_bytes(lsn.try_into().unwrap()))
}

/// Runs in the child only: writes batches for ever, and prints each LSN that a flush made durable.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(path) = env::var_os(CHILD) else { return };
    let index = RocksIndex::open(Path::new(&path), &tiny()).unwrap();
    let mut lsn = applied_lsn(&index);
    println!("flushed {lsn}");
    loop {
        for _ in 0..fastrand::u64(1..30) {
            lsn += 1;
            index.write(&batch(lsn)).unwrap();
        }
        if fastrand::bool() {
            index.flush().unwrap();
            println!("flushed {lsn}");
        }
    }
}

/// Starts the child, kills it at a random moment, and gives the last LSN that it called durable.
fn run_and_kill(path: &Path) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "index::kill::child_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        let lines = stdout.lines().map_while(Result::ok);
        lines.filter_map(|line| line.split_once("flushed ")?.1.parse().ok()).max().unwrap_or(0)
    });
    thread::sleep(Duration::from_millis(fastrand::u64(100..500)));
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn a_kill_leaves_a_cut_between_two_batches_and_all_that_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let memory = MemoryIndex::new();
    let mut lsn = 0;
    for kill in 0..10 {
        let flushed = run_and_kill(&path);
        let index = RocksIndex::open(&path, &tiny()).unwrap();
        let found = applied_lsn(&index);
        println!("kill {kill}: LSN {flushed} was flushed, {found} is there");
        assert!(found >= flushed && found >= lsn, "LSN {found} after {flushed} was flushed and {lsn} found");
        for lsn in lsn + 1..=found {
            memory.write(&batch(lsn)).unwrap();
        }
        let rows = index.scan(b"", b"\xff", usize::MAX).unwrap();
        assert!(rows == memory.scan(b"", b"\xff", usize::MAX).unwrap(), "rows differ at LSN {found}");
        lsn = found;
    }
    assert!(lsn > 0, "the child never got to write");
}

#[test]
fn closing_without_a_flush_keeps_what_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let index = RocksIndex::open(dir.path(), &tiny()).unwrap();
    index.write(&batch(1)).unwrap();
    index.flush().unwrap();
    index.write(&batch(2)).unwrap();
    drop(index);
    assert!(applied_lsn(&RocksIndex::open(dir.path(), &tiny()).unwrap()) >= 1);
}

#[test]
fn an_index_whose_directory_vanishes_fails_its_flush_and_is_not_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let (path, gone) = (dir.path().join("index"), dir.path().join("gone"));
    let index = RocksIndex::open(&path, &tiny()).unwrap();
    index.write(&batch(1)).unwrap();
    index.flush().unwrap();
    index.health().unwrap();
    index.write(&batch(2)).unwrap();
    fs::rename(&path, &gone).unwrap();
    index.flush().unwrap_err();
    index.health().unwrap_err();
    assert_eq!(applied_lsn(&index), 2, "reads go on");
    drop(index);
    assert_eq!(applied_lsn(&RocksIndex::open(&gone, &tiny()).unwrap()), 1);
}

#[test]
fn a_second_open_is_refused_and_is_not_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let _first = RocksIndex::open(path, &tiny()).unwrap();
    for second in [RocksIndex::open(path, &tiny()).map(drop), RocksIndex::destroy(path)] {
        assert!(matches!(second, Err(IndexError::Failed(_))), "{second:?}");
    }
}

#[test]
fn destroying_what_is_not_there_is_done() {
    let dir = tempfile::tempdir().unwrap();
    RocksIndex::destroy(&dir.path().join("index")).unwrap();
}
