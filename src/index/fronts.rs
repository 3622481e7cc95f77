//! Where the queues of the index begin: for each, a key below which it has no rows, kept in memory.
//!
//! Rows of a queue come at its end and go at its start. RocksDB steps over removed rows one by one until a compaction takes
//! them away, so that a look at a queue's start would cost all that has gone through it. Scans begin at the front instead.
//!
//! A front may be lower than the first row, never higher, in every view: it is lowered before rows are written, a view's
//! fronts are those from before it was taken, and what a scan has not found raises a front only as far as nothing was
//! written since its view. After a restart nothing is known, and the first scan finds it out.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use super::{Changes, prefix_end, schema::Table};
use crate::sync::{Mutex, MutexGuard};

/// The tables that are queues.
const QUEUES: [Table; 11] = [
    Table::DueLinks,
    Table::DueManifests,
    Table::DueHistory,
    Table::EmptyRepositories,
    Table::DueDrops,
    Table::Settling,
    Table::LaterRoots,
    Table::Dead,
    Table::Sparse,
    Table::DueRepositories,
    Table::DueRoots,
];
/// Writes that are remembered: a view that is older than these raises no front.
const WRITES: usize = 1_024;

type Keys = [Vec<u8>; QUEUES.len()];
/// The least key that a write puts into each queue.
type Puts = [Option<Vec<u8>>; QUEUES.len()];

/// The fronts of an index.
#[derive(Debug)]
pub(super) struct Fronts(Mutex<State>);

#[derive(Debug)]
struct State {
    keys: Arc<Keys>,
    /// Writes that have begun, and those that are done.
    begun: u64,
    done: u64,
    /// What a write that has begun puts, and what the last ones did; the newest is that of `done`.
    pending: Puts,
    recent: VecDeque<Puts>,
}

/// What is known of a view.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    keys: Arc<Keys>,
    /// All writes up to this one are in the view; `None` when fronts cannot be told from it.
    done: Option<u64>,
}

/// A scan that begins at a front.
pub(super) struct Scan {
    queue: usize,
    from: Vec<u8>,
}

impl Fronts {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            keys: Arc::new(beginnings()),
            begun: 0,
            done: 0,
            pending: Puts::default(),
            recent: VecDeque::new(),
        }))
    }

    /// A panic of another holder leaves a state that is right, if not the best: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a view of the index, with what is known of it.
    pub(super) fn around<V>(&self, take: impl FnOnce() -> V) -> (V, Seen) {
        let (begun, seen) = {
            let state = self.lock();
            (state.begun, Seen { keys: Arc::clone(&state.keys), done: Some(state.done) })
        };
        let view = take();
        if self.lock().begun == begun {
            return (view, seen);
        }
        // Rows that were written meanwhile may lie before these fronts, and in the view.
        (view, Seen { keys: Arc::new(beginnings()), done: None })
    }

    /// Makes way for a write, and makes it. One at a time.
    pub(super) fn write<E>(&self, changes: &Changes, write: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.lock().begin(changes);
        let written = write();
        self.lock().end();
        written
    }

    /// Takes note of what a scan has found first, or of its end where there was nothing.
    pub(super) fn found(&self, scan: &Scan, seen: &Seen, first: &[u8]) {
        if let Some(done) = seen.done {
            self.lock().raise(scan.queue, first, done);
        }
    }
}

impl State {
    fn begin(&mut self, changes: &Changes) {
        self.begun += 1;
        self.pending = QUEUES.map(|queue| least_put(changes, queue));
        for (at, put) in self.pending.iter().enumerate() {
            if let Some(put) = put.as_ref().filter(|put| **put < self.keys[at]) {
                Arc::make_mut(&mut self.keys)[at].clone_from(put);
            }
        }
    }

    fn end(&mut self) {
        self.done += 1;
        self.recent.push_back(std::mem::take(&mut self.pending));
        if self.recent.len() > WRITES {
            self.recent.pop_front();
        }
    }

    fn raise(&mut self, queue: usize, first: &[u8], seen: u64) {
        // Writes behind the view, which are the newest ones.
        let (unseen, known) = (self.done - seen, self.recent.len() as u64);
        if unseen > known {
            return;
        }
        let unseen = self.recent.iter().skip((known - unseen) as usize).filter_map(|puts| puts[queue].as_deref());
        let front = unseen.chain(self.pending[queue].as_deref()).chain([first]).min().unwrap_or(first);
        if self.keys[queue].as_slice() < front {
            Arc::make_mut(&mut self.keys)[queue] = front.to_vec();
        }
    }
}

impl Seen {
    /// Where a scan may begin instead, if it asks for rows before the front of a queue, and of nothing else.
    pub(super) fn scan(&self, from: &[u8], until: &[u8]) -> Option<Scan> {
        let queue = QUEUES.iter().position(|queue| from.first() == Some(&(*queue as u8)))?;
        let front = &self.keys[queue];
        let is_within = until <= prefix_end(&from[..1]).as_slice();
        (is_within && from <= front.as_slice()).then(|| Scan { queue, from: front.clone() })
    }
}

impl Scan {
    /// Where it begins.
    pub(super) fn from(&self) -> &[u8] {
        &self.from
    }
}

fn beginnings() -> Keys {
    QUEUES.map(|queue| vec![queue as u8])
}

fn least_put(changes: &Changes, queue: Table) -> Option<Vec<u8>> {
    let mut all = changes.range(vec![queue as u8]..prefix_end(&[queue as u8]));
    all.find(|(_, change)| change.is_some()).map(|(key, _)| key.clone())
}

#[cfg(test)]
mod tests;
