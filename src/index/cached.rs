//! Rows that are asked for often, in memory, in front of any index.
//!
//! A read of a row by its key costs RocksDB microseconds, more the larger the store is; what many requests read (names,
//! repositories, totals, blobs and manifests of many pulls) comes from here. That a row is missing is kept, too. Scans are
//! not kept.
//!
//! Every answer is what the index would say. Writes are numbered. A row that is held was written or read, and is true *since*
//! some write until the next one that changes it, which changes it here before it shows in the index. A view knows a write
//! that it saw whole, and trusts rows that are true since then or before. What a view reads is held only if no write has begun
//! since that could have changed it; as the cache forgets which rows those were, groups of keys keep the last write to any of
//! them. So neither a view that is older than a row, nor a row that is older than a view, is ever taken for the other.

use std::{cell::OnceCell, fmt, hash::BuildHasher, sync::PoisonError};

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    unsync::{Cache, DefaultLifecycle},
};

use super::{Changes, Index, IndexError, Row, View};
use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// Parts with a lock of their own, and groups of keys in each. One where every lock is a step of a schedule.
const SHARDS: usize = if cfg!(shuttle) { 1 } else { 64 };
const GROUPS: usize = 64;
/// The part of the cache that rows have which were asked for again. The rest is that of rows which were read ahead of a change and
/// are read once more when it is decided: of 32 MiB, those of some hundred requests.
const OFTEN: f64 = 0.75;
/// A row whose value is longer is not held.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// What holding a row takes beside its key and value, in bytes, about: two allocations, and its place in the cache.
const ROW_BYTES: usize = 144;

/// An index with the rows that are read most in memory.
pub struct CachedIndex {
    index: Box<dyn Index>,
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHashBuilder,
    /// The number of the last write that has begun. Held for a write: one at a time.
    begun: Mutex<u64>,
    /// The number of the last write that succeeded.
    done: AtomicU64,
}

struct Shard {
    rows: Cache<Box<[u8]>, Held, Bytes>,
    /// The last write to each group of keys.
    written: [u64; GROUPS],
}

/// What the index has under a key, true since a write.
#[derive(Clone)]
struct Held {
    since: u64,
    value: Option<Vec<u8>>,
}

/// Whose read it is. Only those of requests, which go through snapshots, tell which rows are worth holding. The writer's, of the
/// index itself, come in pairs: what is read ahead of a change is read again when that is decided, and then perhaps never.
#[derive(Clone, Copy)]
enum Asked {
    ByRequest,
    ByWriter,
}

/// Rows weigh what they take of memory.
#[derive(Clone)]
struct Bytes;

impl Weighter<Box<[u8]>, Held> for Bytes {
    fn weight(&self, key: &Box<[u8]>, held: &Held) -> u64 {
        (ROW_BYTES + key.len() + held.value.as_ref().map_or(0, Vec::len)) as u64
    }
}

impl CachedIndex {
    /// Holds rows of an index that take `bytes` of memory together, about. Nobody else may write to it.
    pub fn new(index: Box<dyn Index>, bytes: usize) -> Self {
        let shard_bytes = (bytes / SHARDS) as u64;
        let rows = bytes / SHARDS / ROW_BYTES;
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(rows).weight_capacity(shard_bytes).hot_allocation(OFTEN);
        #[expect(clippy::expect_used, reason = "it fails where one of the two capacities is not set")]
        let options = options.build().expect("both capacities are set");
        let shard = || {
            let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
            let rows = Cache::with_options(options.clone(), Bytes, hasher, lifecycle);
            Mutex::new(Shard { rows, written: [0; GROUPS] })
        };
        Self {
            index,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: DefaultHashBuilder::default(),
            begun: Mutex::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// The shard of a key, and its group in it. A panic of another holder leaves rows that are true.
    fn place(&self, key: &[u8]) -> (MutexGuard<'_, Shard>, usize) {
        let hash = self.hasher.hash_one(key) as usize;
        let shard = self.shards[hash % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        (shard, hash / SHARDS % GROUPS)
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// What is held of a key and true for a view that shows the write `seen`.
    fn held(&self, seen: u64, key: &[u8], asked: Asked) -> Option<Held> {
        let (shard, _) = self.place(key);
        let held = match asked {
            Asked::ByRequest => shard.rows.get(key),
            Asked::ByWriter => shard.rows.peek(key),
        };
        held.filter(|held| held.since <= seen).cloned()
    }

    /// What a view has under a key; it shows the write `seen` and all before it.
    fn get_through(&self, view: &dyn View, seen: u64, key: &[u8], asked: Asked) -> Result<Option<Vec<u8>>, IndexError> {
        match self.held(seen, key, asked) {
            Some(held) => Ok(held.value),
            None => self.read_through(view, seen, key),
        }
    }

    /// The same of a row that is not held, which is held from then on.
    fn read_through(&self, view: &dyn View, seen: u64, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let value = view.get(key)?;
        if value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX) {
            let (mut shard, group) = self.place(key);
            if shard.written[group] <= seen {
                shard.rows.insert(key.into(), Held { since: seen, value: value.clone() });
            }
        }
        Ok(value)
    }

    /// Changes what is held of a row, before a write shows in the index.
    fn begin(&self, number: u64, key: &[u8], change: Option<&Vec<u8>>) {
        let (mut shard, group) = self.place(key);
        shard.written[group] = number;
        if change.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            shard.rows.remove(key);
        } else if let Some(mut held) = shard.rows.peek_mut(key) {
            *held = Held { since: number, value: change.cloned() };
        }
    }
}

impl View for CachedIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.get_through(&*self.index, self.done(), key, Asked::ByWriter)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.index.scan(from, until, limit)
    }
}

impl Index for CachedIndex {
    fn write(&self, changes: &Changes) -> Result<(), IndexError> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        *begun += 1;
        for (key, change) in changes {
            self.begin(*begun, key, change.as_ref());
        }
        let written = self.index.write(changes);
        if written.is_ok() {
            self.done.store(*begun, Ordering::Release);
        } else {
            // They hold what never came to be.
            for key in changes.keys() {
                self.place(key).0.rows.remove(key.as_slice());
            }
        }
        written
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.index.flush()
    }

    fn health(&self) -> Result<(), IndexError> {
        self.index.health()
    }

    fn flushed(&self) -> Result<(), IndexError> {
        self.index.flushed()
    }

    fn check(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<(), IndexError> {
        self.index.check(read)
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        // In this order: the snapshot has that write at least.
        let seen = self.done();
        Box::new(CachedSnapshot { index: self, seen, snapshot: self.index.snapshot() })
    }

    fn in_memory(&self) -> Box<dyn View + '_> {
        Box::new(CachedMemory { index: self, seen: self.done(), below: OnceCell::new() })
    }

    fn at_hand(&self) -> Box<dyn View + '_> {
        Box::new(CachedAtHand { index: self, below: self.index.at_hand() })
    }
}

impl fmt::Debug for CachedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedIndex({:?})", self.index)
    }
}

struct CachedSnapshot<'a> {
    index: &'a CachedIndex,
    seen: u64,
    snapshot: Box<dyn View + 'a>,
}

impl View for CachedSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.get_through(&*self.snapshot, self.seen, key, Asked::ByRequest)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.snapshot.scan(from, until, limit)
    }
}

/// What is held, and below it what the index has in memory, of which a view is taken only when something is not held: most
/// questions need none.
struct CachedMemory<'a> {
    index: &'a CachedIndex,
    seen: u64,
    below: OnceCell<Box<dyn View + 'a>>,
}

impl CachedMemory<'_> {
    /// The view below. It shows the same write as what is held when no other has begun before it was taken.
    fn below(&self) -> Result<&dyn View, IndexError> {
        if let Some(below) = self.below.get() {
            return Ok(&**below);
        }
        let below = self.index.index.in_memory();
        match self.index.begun.try_lock() {
            Ok(begun) if *begun == self.seen => Ok(&**self.below.get_or_init(|| below)),
            _ => Err(IndexError::OutOfReach),
        }
    }
}

impl View for CachedMemory<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match self.index.held(self.seen, key, Asked::ByRequest) {
            Some(held) => Ok(held.value),
            None => self.index.read_through(self.below()?, self.seen, key),
        }
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.below()?.scan(from, until, limit)
    }
}

/// The same for a writer, whose reads are each of a state of their own.
struct CachedAtHand<'a> {
    index: &'a CachedIndex,
    below: Box<dyn View + 'a>,
}

impl View for CachedAtHand<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.get_through(&*self.below, self.index.done(), key, Asked::ByWriter)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.below.scan(from, until, limit)
    }
}

#[cfg(test)]
mod tests;
