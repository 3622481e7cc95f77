//! The index as an ordered map in memory: for tests, simulation, fuzzing, and builds without RocksDB.
//!
//! It is the double of `rocks` and answers as that does; a differential test holds the two equal. It models what a crash
//! takes: rows are durable only after a flush, and [`MemoryIndex::crashed`] is what a new process would find. It does not
//! model RocksDB's flushes of its own, which can only make a later state durable; whoever wants those calls `flush`.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{Arc, PoisonError},
};

use crate::sync::{
    RwLock,
    atomic::{AtomicBool, Ordering},
};

use super::{Changes, Index, IndexError, Row, View};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// An index in memory. Snapshots share its rows; the first write after one was taken copies them all.
#[derive(Default)]
pub struct MemoryIndex {
    states: RwLock<States>,
    stopped: AtomicBool,
    failed: AtomicBool,
}

#[derive(Default)]
struct States {
    current: Arc<Rows>,
    flushed: Arc<Rows>,
}

impl MemoryIndex {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is there after a crash now: the rows as they were at the last flush.
    ///
    /// The copy lives by itself, so one that is kept from earlier stands for a stale index that somebody put back.
    pub fn crashed(&self) -> Self {
        let flushed = self.read(|states| Arc::clone(&states.flushed));
        Self { states: RwLock::new(States { current: Arc::clone(&flushed), flushed }), ..Self::default() }
    }

    /// Lets the index say that it takes no writes, as RocksDB does when it cannot keep up, or that it does again.
    pub fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    /// Lets the index say that the disk has failed a flush of its own.
    pub fn set_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    // A writer that panics leaves both maps valid, so a poisoned lock says nothing about the rows.
    fn read<T>(&self, read: impl FnOnce(&States) -> T) -> T {
        read(&self.states.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, update: impl FnOnce(&mut States)) {
        update(&mut self.states.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn rows(&self) -> Arc<Rows> {
        self.read(|states| Arc::clone(&states.current))
    }
}

impl View for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        // Under the lock, because a reference to the rows that outlives it would make a writer copy them.
        Ok(self.read(|states| states.current.get(key).cloned()))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        Ok(self.read(|states| page(&states.current, from, until, limit)))
    }
}

impl Index for MemoryIndex {
    fn write(&self, changes: &Changes) -> Result<(), IndexError> {
        self.update(|states| {
            let rows = Arc::make_mut(&mut states.current);
            for (key, change) in changes {
                match change {
                    Some(value) => drop(rows.insert(key.clone(), value.clone())),
                    None => drop(rows.remove(key)),
                }
            }
        });
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.update(|states| states.flushed = Arc::clone(&states.current));
        Ok(())
    }

    fn health(&self) -> Result<(), IndexError> {
        let stopped = self.stopped.load(Ordering::Relaxed);
        if stopped { Err(IndexError::Failed("it was told to take no writes".to_owned())) } else { Ok(()) }
    }

    fn flushed(&self) -> Result<(), IndexError> {
        let failed = self.failed.load(Ordering::Relaxed);
        if failed { Err(IndexError::Failed("it was told that the disk has failed".to_owned())) } else { Ok(()) }
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        Box::new(MemorySnapshot(self.rows()))
    }

    fn at_hand(&self) -> Box<dyn View + '_> {
        Box::new(self)
    }
}

impl fmt::Debug for MemoryIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryIndex({} rows)", self.rows().len())
    }
}

struct MemorySnapshot(Arc<Rows>);

impl View for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        Ok(page(&self.0, from, until, limit))
    }
}

fn page(rows: &Rows, from: &[u8], until: &[u8], limit: usize) -> Vec<Row> {
    // The map panics on a range that ends before it begins.
    if from >= until {
        return Vec::new();
    }
    let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)));
    range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &MemoryIndex, key: &str, value: &str) {
        index.write(&Changes::from([(key.into(), Some(value.into()))])).unwrap();
    }

    #[test]
    fn a_crash_takes_what_was_written_since_the_last_flush() {
        let index = MemoryIndex::new();
        put(&index, "a", "1");
        assert_eq!(index.crashed().get(b"a").unwrap(), None);
        index.flush().unwrap();
        let stale = index.crashed();
        put(&index, "a", "2");
        put(&index, "b", "2");
        let crashed = index.crashed();
        assert_eq!(crashed.scan(b"", b"z", 9).unwrap(), [(b"a".to_vec(), b"1".to_vec())]);
        put(&crashed, "c", "3");
        assert_eq!(crashed.crashed().get(b"c").unwrap(), None, "a crash right after a crash");
        index.flush().unwrap();
        assert_eq!(index.crashed().get(b"b").unwrap(), Some(b"2".to_vec()));
        assert_eq!(stale.get(b"a").unwrap(), Some(b"1".to_vec()), "a kept copy stays as it was");
    }
}
