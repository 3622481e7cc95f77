//! Moving what lives out of sparse segments, so that their files can go.
//!
//! Copy → the committer names the copy, if the old place still holds → the old place is dead → when nothing lives in the
//! segment, it is removed. A run that is cut off at any point has lost nothing: what was not moved lives where it was, and
//! a copy that nobody names is erased like any dead record.
//!
//! Bounds: so many bytes per second, reads and writes together; after each piece it rests as long as that took, so that
//! requests have the disk and the committer at least half of the time, and longer while clients ask for anything.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    index::schema::{self, BlobRow, SegmentRow, key},
    location::{Location, SegmentNumber},
    segment::{Candidate, Candidates},
    state::request::{DROPS_PER_STEP, Outcome, Request},
    store::{self, Store, StoreError},
};

use super::{
    Stop,
    erase::{self, Erasing, Unremoved},
    report::{CollectionReport, CompactedSegment, CompactionReport, DROPPED_LISTED, Trigger},
    steps::{GivingWay, Live, Patience},
};

/// Records and bytes that are copied before they are committed.
const RECORDS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 4 << 20;
/// It may take longer than a collection, which frees more by less; but where garbage comes as fast as it goes, the disk must not
/// fill up meanwhile.
pub(super) const PATIENCE: Patience =
    Patience { behind_max: Duration::from_secs(600), always_max: Duration::from_secs(1) };
/// What the segment that takes appends may take in vain: less is not worth another file.
const ACTIVE_SLACK_BYTES: u64 = 64 << 10;
/// Segments that are remembered as not worth it.
const JUDGED_MAX: usize = 100_000;

/// A pace that rests where it can be stopped.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    stop: &'a Stop,
    pace: store::Pace,
}

impl<'a> Pace<'a> {
    pub(super) fn new(stop: &'a Stop, bytes_per_second: u64) -> Self {
        Self { stop, pace: store::Pace::new(Some(bytes_per_second)) }
    }

    /// Waits until so many bytes may be spent.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.pace.spend(bytes);
        let left = self.pace.left();
        if !left.is_zero() {
            self.stop.rest(left);
        }
    }
}

/// Segments that looked sparse and are not worth moving, as they were then: bytes that lived, and that were erased.
pub(super) type Judged = HashMap<SegmentNumber, (u64, u64)>;

/// One run.
pub(super) struct Compacting<'a> {
    pub(super) store: &'a Store,
    pub(super) stop: &'a Stop,
    pub(super) unremoved: &'a Unremoved,
    pub(super) judged: &'a mut Judged,
    pub(super) pace: Pace<'a>,
    pub(super) report: &'a mut CompactionReport,
}

/// A copy that waits to be named.
type Copied = (Candidate, Location, u64);

impl Compacting<'_> {
    /// Takes on every sparse segment once.
    pub(super) fn run(&mut self, way: &mut GivingWay<'_>) -> Result<(), StoreError> {
        if !self.report.dry_run {
            self.retire_active()?;
        }
        let mut after = None;
        loop {
            let page = erase::sparse(&*self.store.snapshot(), after, DROPS_PER_STEP)?;
            after = page.last().map(|(number, _)| *number);
            for (number, row) in &page {
                self.stop.check()?;
                self.look_at(*number, row, way)?;
            }
            if page.len() < DROPS_PER_STEP {
                return Ok(());
            }
        }
    }

    /// The segment that takes appends can be as sparse as any: then it takes no more, and is like the others.
    fn retire_active(&mut self) -> Result<(), StoreError> {
        let Some(number) = self.store.active_segment() else { return Ok(()) };
        let row: Option<SegmentRow> = schema::get(&*self.store.snapshot(), key::segment(number))?;
        let (Some(row), Some(usage)) = (row, self.store.segment_usage(number)?) else { return Ok(()) };
        if !row.wastes_blocks(usage.allocated_bytes.saturating_sub(ACTIVE_SLACK_BYTES)) {
            return Ok(());
        }
        self.store.retire_segment(number);
        // One batch syncs what was appended last, the next one takes note of the seal.
        let live = Live { store: self.store, stop: self.stop };
        for _ in 0..2 {
            live.commit(&Request::Discard(Vec::new()))?;
        }
        Ok(())
    }

    fn look_at(&mut self, number: SegmentNumber, row: &SegmentRow, way: &mut GivingWay<'_>) -> Result<(), StoreError> {
        let seen = (row.live_bytes, row.erased_bytes);
        // Those in which nothing lives are removed by the collection.
        if row.single || row.live_records == 0 || self.judged.get(&number) == Some(&seen) {
            return Ok(());
        }
        let Some(usage) = self.store.segment_usage(number)? else { return Ok(()) };
        let allocated = usage.allocated_bytes;
        if !row.wastes(allocated) {
            self.judge(number, seen);
            return Ok(());
        }
        let gain = allocated.saturating_sub(row.live_bytes);
        let removed = if self.report.dry_run { false } else { self.move_out(number, way)? };
        if removed || self.report.dry_run {
            self.report.returned_bytes += gain;
        } else {
            self.judge(number, seen);
        }
        if self.report.segments.len() < DROPPED_LISTED {
            let SegmentRow { live_records, live_bytes, .. } = *row;
            let allocated_bytes = allocated;
            let segment = number.0;
            self.report.segments.push(CompactedSegment { segment, allocated_bytes, live_records, live_bytes, removed });
        } else {
            self.report.segments_more += 1;
        }
        Ok(())
    }

    fn judge(&mut self, number: SegmentNumber, seen: (u64, u64)) {
        if self.judged.len() >= JUDGED_MAX {
            self.judged.clear();
        }
        self.judged.insert(number, seen);
    }

    /// Moves all that lives in a segment elsewhere, and removes it; whether it is gone.
    fn move_out(&mut self, number: SegmentNumber, way: &mut GivingWay<'_>) -> Result<bool, StoreError> {
        let Some(mut candidates) = self.store.candidates(number)? else { return Ok(false) };
        loop {
            let records_max = way.piece(RECORDS_AT_ONCE);
            if !way.after(|| self.move_some(&mut candidates, records_max))? {
                return self.remove(number);
            }
        }
    }

    /// Moves the next records elsewhere; whether there may be more.
    fn move_some(&mut self, candidates: &mut Candidates, records_max: usize) -> Result<bool, StoreError> {
        let mut copied = Vec::new();
        let more = self.copy_some(candidates, records_max, &mut copied);
        // Also what was copied before something failed.
        self.commit(copied)?;
        more
    }

    fn copy_some(
        &mut self,
        candidates: &mut Candidates,
        records_max: usize,
        copied: &mut Vec<Copied>,
    ) -> Result<bool, StoreError> {
        let mut bytes = 0;
        while copied.len() < records_max && bytes < BYTES_AT_ONCE {
            self.stop.check()?;
            let walk = &mut |read| {
                bytes += read;
                self.pace.spend(read);
            };
            let Some(candidate) = candidates.next(walk)? else { return Ok(false) };
            if !self.lives(&candidate)? {
                continue;
            }
            candidates.pass(&candidate);
            if let Some((location, record_len)) = self.copy(&candidate)? {
                copied.push((candidate, location, record_len));
                bytes += candidate.record_len;
            }
        }
        Ok(true)
    }

    fn lives(&self, candidate: &Candidate) -> Result<bool, StoreError> {
        let row: Option<BlobRow> = schema::get(&*self.store.snapshot(), key::blob(&candidate.digest))?;
        Ok(row.is_some_and(|row| row.location == candidate.location && row.record_len == candidate.record_len))
    }

    /// Copies a record; `None` for one that is damaged: it stays, and so does its segment.
    fn copy(&mut self, candidate: &Candidate) -> Result<Option<(Location, u64)>, StoreError> {
        self.pace.spend(candidate.record_len.saturating_mul(2));
        match self.store.copy(candidate) {
            Ok(copy) => Ok(Some(copy)),
            Err(StoreError::Corrupt(text)) if self.lives(candidate)? => {
                tracing::error!(blob.digest = %candidate.digest, error = text, "stored content is damaged; pushing it again heals it");
                self.store.note_damage(&candidate.digest);
                self.report.incomplete = Some(text);
                Ok(None)
            }
            Err(StoreError::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has copies named, each if its old place still holds.
    fn commit(&mut self, copied: Vec<Copied>) -> Result<(), StoreError> {
        let requests: Vec<Request> = copied
            .iter()
            .map(|&(candidate, to, record_len)| Request::Move {
                digest: candidate.digest,
                from: candidate.location,
                to,
                record_len,
            })
            .collect();
        let mut failure = Ok(());
        let results = Live { store: self.store, stop: self.stop }.commit_all(&requests);
        for ((candidate, location, record_len), result) in copied.into_iter().zip(results) {
            match result {
                Ok(Outcome::ContentNeeded) => {}
                Ok(_) => {
                    self.report.moved_records += 1;
                    self.report.moved_bytes += candidate.record_len;
                }
                Err(error) => {
                    // Whether the journal names it is not known then: the next open finds out.
                    if !matches!(error, StoreError::Unavailable(_)) {
                        self.store.discard(location, record_len);
                    }
                    failure = Err(error);
                }
            }
        }
        failure
    }

    fn remove(&mut self, number: SegmentNumber) -> Result<bool, StoreError> {
        let mut report = CollectionReport::new(Trigger::Schedule, false, 0);
        let mut erasing = Erasing {
            store: self.store,
            stop: self.stop,
            unremoved: self.unremoved,
            report: &mut report,
            patient_until: Instant::now(),
        };
        let removed = erasing.remove(&[number])?;
        self.report.segments_removed += report.segments_removed;
        Ok(removed > 0)
    }
}
