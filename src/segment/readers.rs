//! Who reads: what erasing has to wait for.
//!
//! A reader enters an [`Epoch`] before it looks a place up, pins the record while it is in it, and leaves it; the pin
//! stays for as long as the record is read. So when the drop of a record is in the index, and then all epochs that began
//! before are over, every reader that found its place has pinned it, and no later one finds it: without a pin nobody
//! reads it any more.
//!
//! Readers wait for nothing here but each other, in shards, for a few instructions. Who erases asks again and again; it
//! refuses to wait for readers that come later, so that a record that is read all the time can be erased.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    location::{Location, SegmentNumber},
    sync::{
        self, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// Locks that readers spread over. More than cores, so that two rarely meet.
const SHARDS: usize = 64;
/// Pauses between two looks at readers that are waited for.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// The readers of one store's segments.
#[derive(Debug)]
pub(super) struct Readers {
    epoch: AtomicU64,
    /// Readers inside an epoch, by its number.
    inside: [Mutex<BTreeMap<u64, usize>>; SHARDS],
    /// Pins by record.
    pins: [Mutex<HashMap<Location, usize>>; SHARDS],
}

/// A time in which a place that was looked up is not erased. It is meant to be short: it ends when the record that was
/// found there has been opened, which pins it.
#[derive(Debug)]
pub struct Epoch<'a> {
    readers: &'a Readers,
    shard: usize,
    number: u64,
}

/// Keeps a record from being erased.
#[derive(Debug)]
pub(super) struct Pin {
    readers: Arc<Readers>,
    location: Location,
}

/// The epochs that had begun at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earlier(u64);

impl Readers {
    pub(super) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            inside: std::array::from_fn(|_| Mutex::default()),
            pins: std::array::from_fn(|_| Mutex::default()),
        }
    }

    pub(super) fn enter(&self) -> Epoch<'_> {
        let shard = own_shard();
        // Who gets the number that `earlier` made comes after it, and sees every drop that was applied before it. Who gets
        // an older number late is waited for without need.
        let number = self.epoch.load(Ordering::Acquire);
        *lock(&self.inside[shard]).entry(number).or_default() += 1;
        Epoch { readers: self, shard, number }
    }

    /// Pins a record. Only in an epoch that was entered before its place was looked up does this come in time; else the
    /// record may be erased already, which its checksums tell.
    pub(super) fn pin(self: &Arc<Self>, location: Location) -> Pin {
        *lock(self.pins_of(location)).entry(location).or_default() += 1;
        Pin { readers: Arc::clone(self), location }
    }

    /// The epochs that have begun.
    pub(super) fn earlier(&self) -> Earlier {
        Earlier(self.epoch.fetch_add(1, Ordering::AcqRel))
    }

    /// Whether all of them are over.
    pub(super) fn are_over(&self, earlier: Earlier) -> bool {
        self.inside.iter().all(|shard| lock(shard).range(..=earlier.0).next().is_none())
    }

    pub(super) fn is_pinned(&self, location: Location) -> bool {
        lock(self.pins_of(location)).contains_key(&location)
    }

    /// Whether any record of a segment is pinned. Looks at all pins.
    pub(super) fn is_segment_pinned(&self, number: SegmentNumber) -> bool {
        self.pins.iter().any(|shard| lock(shard).keys().any(|location| location.segment == number))
    }

    fn pins_of(&self, location: Location) -> &Mutex<HashMap<Location, usize>> {
        // Offsets and numbers are regular; their product with an odd number without pattern is not in its upper bits.
        let mixed = (location.segment.0.rotate_left(40) ^ location.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.pins[(mixed >> 32) as usize % SHARDS]
    }
}

impl Drop for Epoch<'_> {
    fn drop(&mut self) {
        let mut inside = lock(&self.readers.inside[self.shard]);
        count_down(inside.get_mut(&self.number)).then(|| inside.remove(&self.number));
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(self.readers.pins_of(self.location));
        count_down(pins.get_mut(&self.location)).then(|| pins.remove(&self.location));
    }
}

/// Whether the count has come to nothing.
fn count_down(count: Option<&mut usize>) -> bool {
    count.is_some_and(|count| {
        *count = count.saturating_sub(1);
        *count == 0
    })
}

/// Asks until it is so, or `patience` is over; whether it is so.
pub(super) fn wait_until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    while !is_so() {
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return false;
        }
        sync::sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
    true
}

/// The shard of this thread: threads take them in turn, so that as many as there are shards never meet.
fn own_shard() -> usize {
    sync::thread_number() % SHARDS
}

/// A panic of another holder leaves nothing half-changed: counts change by calls that cannot.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
