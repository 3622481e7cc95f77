//! What has been read of large records and stays true: their kind, their table of checksums, and which of their blocks have
//! been checked since the store was opened.
//!
//! The place of a record holds one content for ever, or zeros once it is dead: so what is known of it is dropped before it is
//! erased or its segment removed, and cannot come back by whoever read it before. When damage is found, nothing that was
//! checked counts any more, also for those who read the record at the time.
//!
//! It holds no file and no pin, so nothing is kept on the disk by it. Memory is bounded.

use std::{
    ops::Range,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use quick_cache::{Weighter, unsync::Cache};

use crate::{
    digest::Digest,
    location::{Location, SegmentNumber},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use super::RecordKind;

/// Memory for all of it: 4 bytes and a bit for each 64 KiB, so that 120 GiB of content can be known.
const BYTES_MAX: u64 = 8 << 20;
/// What a record takes beside its table and its bits, in bytes, about.
const RECORD_BYTES: u64 = 320;

/// A large record whose header was checked, and the padding behind its table.
#[derive(Debug)]
pub(super) struct KnownRecord {
    pub(super) digest: Digest,
    pub(super) kind: RecordKind,
    pub(super) payload_len: u64,
    /// The table of checksums. Who has damaged it is found by the blocks.
    pub(super) table: Bytes,
    /// A bit for each block that was checked.
    checked: Box<[AtomicU64]>,
}

/// The large records of one store.
#[derive(Debug)]
pub(super) struct KnownRecords(Mutex<State>);

struct State {
    records: Cache<Location, Arc<KnownRecord>, Weights>,
    removals: u64,
}

/// The removals at the time of a lookup: an insert is refused when there were more since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removals(u64);

#[derive(Clone)]
struct Weights;

impl Weighter<Location, Arc<KnownRecord>> for Weights {
    fn weight(&self, _: &Location, record: &Arc<KnownRecord>) -> u64 {
        RECORD_BYTES + (record.table.len() + record.checked.len() * 8) as u64
    }
}

impl KnownRecord {
    pub(super) fn new(digest: Digest, kind: RecordKind, payload_len: u64, table: Bytes) -> Self {
        let words = (table.len() / 4).div_ceil(64);
        Self { digest, kind, payload_len, table, checked: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// How many blocks in a row were checked, from the first one of `blocks`.
    pub(super) fn checked(&self, blocks: Range<u64>) -> u64 {
        let is_checked = |block: u64| {
            let word = self.checked.get((block / 64) as usize);
            word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (block % 64) != 0)
        };
        blocks.clone().find(|block| !is_checked(*block)).unwrap_or(blocks.end) - blocks.start
    }

    /// Blocks have been checked.
    pub(super) fn note_checked(&self, blocks: Range<u64>) {
        for block in blocks {
            if let Some(word) = self.checked.get((block / 64) as usize) {
                word.fetch_or(1 << (block % 64), Ordering::AcqRel);
            }
        }
    }

    /// No block counts as checked any more.
    pub(super) fn distrust(&self) {
        self.checked.iter().for_each(|word| word.store(0, Ordering::Release));
    }
}

impl KnownRecords {
    pub(super) fn new() -> Self {
        let records = Cache::with_weighter((BYTES_MAX / RECORD_BYTES / 4) as usize, BYTES_MAX, Weights);
        Self(Mutex::new(State { records, removals: 0 }))
    }

    /// What is known of the record at a place, if it is that of some content.
    pub(super) fn get(
        &self,
        location: Location,
        digest: &Digest,
        payload_len: u64,
    ) -> Result<Arc<KnownRecord>, Removals> {
        let state = self.lock();
        let found = state.records.get(&location);
        let found = found.filter(|record| record.digest == *digest && record.payload_len == payload_len);
        found.cloned().ok_or(Removals(state.removals))
    }

    /// Keeps what was read after `seen` was looked up, unless another one was quicker; what is known then.
    pub(super) fn insert(&self, location: Location, record: KnownRecord, seen: Removals) -> Arc<KnownRecord> {
        let record = Arc::new(record);
        let mut state = self.lock();
        if state.removals != seen.0 {
            return record;
        }
        if let Some(known) = state.records.get(&location).filter(|known| known.digest == record.digest) {
            return Arc::clone(known);
        }
        state.records.insert(location, Arc::clone(&record));
        record
    }

    /// Forgets a record that is about to be erased.
    pub(super) fn forget(&self, location: Location) {
        let mut state = self.lock();
        state.removals += 1;
        state.records.remove(&location);
    }

    /// Forgets all records of a segment.
    pub(super) fn forget_segment(&self, number: SegmentNumber) {
        self.retain(|location, _| location.segment != number);
    }

    /// Forgets all records of some content, of which damage was found.
    pub(super) fn distrust(&self, digest: &Digest) {
        self.retain(|_, record| {
            let is_meant = record.digest == *digest;
            if is_meant {
                record.distrust();
            }
            !is_meant
        });
    }

    /// Looks at all records, some ten thousand at most.
    fn retain(&self, keep: impl Fn(&Location, &KnownRecord) -> bool) {
        let mut state = self.lock();
        state.removals += 1;
        state.records.retain(|location, record| keep(location, record));
    }

    /// A panic of another holder leaves records that are true.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} known records", self.records.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn record(content: &[u8], blocks: usize) -> KnownRecord {
        let digest = Digest::of(Algorithm::Sha256, content);
        KnownRecord::new(digest, RecordKind::Blob, 1, vec![0; blocks * 4].into())
    }

    fn place(segment: u64, offset: u64) -> Location {
        Location { segment: SegmentNumber(segment), offset }
    }

    #[test]
    fn blocks_are_checked_one_by_one_and_none_is_after_damage() {
        let record = record(b"", 200);
        assert_eq!(record.checked(0..200), 0);
        record.note_checked(60..130);
        record.note_checked(131..200);
        for (blocks, expected) in
            [(60..130, 70), (60..200, 70), (59..70, 0), (131..200, 69), (199..300, 1), (64..64, 0)]
        {
            assert_eq!(record.checked(blocks.clone()), expected, "{blocks:?}");
        }
        record.distrust();
        assert_eq!(record.checked(60..130), 0);
    }

    #[test]
    fn a_record_that_was_read_before_it_was_forgotten_does_not_come_back() {
        let known = KnownRecords::new();
        let digest = record(b"a", 1).digest;
        let forgetting: [&dyn Fn(); 3] =
            [&|| known.forget(place(1, 64)), &|| known.forget_segment(SegmentNumber(1)), &|| known.distrust(&digest)];
        for forget in forgetting {
            let seen = known.get(place(1, 64), &digest, 1).unwrap_err();
            forget();
            let held = known.insert(place(1, 64), record(b"a", 1), seen);
            assert!(known.get(place(1, 64), &digest, 1).is_err());
            let seen = known.get(place(1, 64), &digest, 1).unwrap_err();
            known.insert(place(1, 64), record(b"a", 1), seen).note_checked(0..1);
            let found = known.get(place(1, 64), &digest, 1).unwrap();
            assert!(!Arc::ptr_eq(&held, &found));
            assert!(Arc::ptr_eq(&found, &known.insert(place(1, 64), record(b"a", 1), seen)), "the first one stays");
            forget();
            assert!(known.get(place(1, 64), &digest, 1).is_err());
        }
        let seen = known.get(place(1, 64), &digest, 1).unwrap_err();
        let held = known.insert(place(1, 64), record(b"a", 1), seen);
        held.note_checked(0..1);
        known.distrust(&digest);
        assert_eq!(held.checked(0..1), 0, "who reads it at the time must not trust it either");
    }

    #[test]
    fn what_is_asked_for_is_what_is_known_and_memory_is_bounded() {
        let known = KnownRecords::new();
        let (a, b) = (record(b"a", 1).digest, record(b"b", 1).digest);
        let seen = known.get(place(1, 64), &a, 1).unwrap_err();
        known.insert(place(1, 64), record(b"a", 1), seen);
        assert!(known.get(place(1, 64), &a, 1).is_ok());
        assert!(known.get(place(1, 64), &b, 1).is_err() && known.get(place(1, 64), &a, 2).is_err());
        assert!(known.get(place(1, 65), &a, 1).is_err());
        for offset in 0..100_000 {
            let seen = known.get(place(2, offset), &a, 1).unwrap_err();
            known.insert(place(2, offset), record(b"a", 100), seen);
        }
        assert!(known.lock().records.weight() <= BYTES_MAX);
        let seen = known.get(place(3, 0), &a, 1).unwrap_err();
        known.insert(place(3, 0), record(b"a", 10_000_000), seen);
        assert!(known.lock().records.weight() <= BYTES_MAX, "one that is larger than all");
    }
}
