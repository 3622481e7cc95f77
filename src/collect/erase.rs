//! Giving space back: dead records are erased, segments in which nothing lives are removed.
//!
//! What is dead stands in the index, after it was durable, with a row for each record until its bytes are gone; so a run
//! that is cut off leaves nothing behind that the next one does not find. Order: what the journal says is durable → bytes go →
//! the journal says that they are gone.
//!
//! A segment goes in three steps: the journal says so, its file is unlinked, the rows of its dead records go. A crash after
//! the first leaves a file that the next start removes.

use std::{
    collections::BTreeSet,
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{
    codec::{DecodeError, Decoder},
    index::{
        View, prefix_end,
        schema::{self, DeadRow, Key, RowValue, SchemaError, SegmentRow, Table, key},
    },
    journal::operation::LocalRecord,
    location::{Location, SegmentNumber},
    segment::{DeadRecord, Removal},
    state::request::{DROPS_PER_STEP, Outcome, Refusal, Request},
    store::{Store, StoreError},
    sync::{Mutex, MutexGuard},
};

use super::{
    Stop,
    report::CollectionReport,
    steps::{GivingWay, Live},
};

/// Segments that are removed at once.
const SEGMENTS_AT_ONCE: usize = 128;

/// Segments that the journal says to be gone and whose files could not be removed. The next start would do it.
#[derive(Debug, Default)]
pub(super) struct Unremoved(Mutex<BTreeSet<SegmentNumber>>);

impl Unremoved {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<SegmentNumber>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run of erasing.
pub(super) struct Erasing<'a> {
    pub(super) store: &'a Store,
    pub(super) stop: &'a Stop,
    pub(super) unremoved: &'a Unremoved,
    pub(super) report: &'a mut CollectionReport,
    /// Until when it waits for readers, all together.
    pub(super) patient_until: Instant,
}

impl Erasing<'_> {
    /// Erases and removes all that is dead.
    pub(super) fn run(&mut self, way: &mut GivingWay<'_>) -> Result<(), StoreError> {
        // A batch by itself, if there is nothing else to do: it takes note of what was sealed, and written for nothing.
        self.commit(Request::Discard(Vec::new()))?;
        self.remove_again();
        self.remove_dead()?;
        self.erase_dead(way)
    }

    fn commit(&self, request: Request) -> Result<Outcome, StoreError> {
        Live { store: self.store, stop: self.stop }.commit(&request)
    }

    fn patience(&self) -> Duration {
        self.patient_until.saturating_duration_since(Instant::now())
    }

    fn remove_again(&mut self) {
        let unremoved: Vec<SegmentNumber> = self.unremoved.lock().iter().copied().collect();
        unremoved.into_iter().for_each(|number| self.unlink(number));
    }

    /// Removes all segments in which nothing lives.
    fn remove_dead(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = sparse(&*self.store.snapshot(), after, DROPS_PER_STEP)?;
            after = page.last().map(|(number, _)| *number);
            let dead = page.iter().filter(|(_, row)| row.live_records == 0).map(|(number, _)| *number);
            for some in dead.collect::<Vec<_>>().chunks(SEGMENTS_AT_ONCE) {
                self.remove(some)?;
            }
            if page.len() < DROPS_PER_STEP {
                return Ok(());
            }
        }
    }

    /// Removes those of some segments in which nothing lives; how many.
    pub(super) fn remove(&mut self, numbers: &[SegmentNumber]) -> Result<usize, StoreError> {
        self.stop.check()?;
        let requests: Vec<Request> = numbers.iter().map(|number| Request::RemoveSegment(*number)).collect();
        let results = Live { store: self.store, stop: self.stop }.commit_all(&requests);
        let (mut removed, mut failure) = (Vec::new(), None);
        for (number, result) in numbers.iter().zip(results) {
            match result {
                Ok(_) => removed.push(*number),
                // Something was placed there meanwhile.
                Err(StoreError::Refused(Refusal::NotDue)) => {}
                Err(error) => failure = Some(error),
            }
        }
        removed.iter().for_each(|number| self.unlink(*number));
        self.forget_dead(&removed)?;
        failure.map_or(Ok(removed.len()), Err)
    }

    fn unlink(&mut self, number: SegmentNumber) {
        let allocated = self.allocated(number);
        match self.store.remove_segment(number, self.patience()) {
            Ok(removal) => {
                self.unremoved.lock().remove(&number);
                self.report.segments_removed += 1;
                match removal {
                    Removal::Freed => self.report.returned_bytes += allocated,
                    Removal::StillRead | Removal::TakesAppends => self.report.still_read += 1,
                }
            }
            Err(error) => {
                tracing::error!(%error, segment.id = number.0, "a dead segment stays for now; it is tried again");
                self.unremoved.lock().insert(number);
            }
        }
    }

    fn allocated(&self, number: SegmentNumber) -> u64 {
        self.store.segment_usage(number).ok().flatten().map_or(0, |usage| usage.allocated_bytes)
    }

    /// The rows of dead records in segments that are gone.
    fn forget_dead(&mut self, numbers: &[SegmentNumber]) -> Result<(), StoreError> {
        let mut records = Vec::new();
        for number in numbers {
            let prefix = Key::of(Table::Dead).u64(number.0).bytes();
            let (mut from, until) = (prefix.clone(), prefix_end(&prefix));
            loop {
                let page = dead(&*self.store.snapshot(), &from, &until)?;
                records.extend(page.iter().map(|(location, _)| *location));
                if records.len() >= DROPS_PER_STEP {
                    records.chunks(DROPS_PER_STEP).try_for_each(|some| self.note_erased(some.to_vec()))?;
                    records.clear();
                }
                match page.last() {
                    Some((last, _)) if page.len() == DROPS_PER_STEP => {
                        from = [key::dead(*last).bytes(), vec![0]].concat()
                    }
                    _ => break,
                }
            }
        }
        self.note_erased(records)
    }

    fn note_erased(&mut self, records: Vec<Location>) -> Result<(), StoreError> {
        if !records.is_empty() {
            self.report.erased_records += records.len() as u64;
            self.commit(Request::Note(LocalRecord::Erased { records }))?;
        }
        Ok(())
    }

    /// Erases every dead record. The rows of those that cannot be erased now stay, and are passed over.
    fn erase_dead(&mut self, way: &mut GivingWay<'_>) -> Result<(), StoreError> {
        let mut from = Key::of(Table::Dead).bytes();
        let until = prefix_end(&from);
        loop {
            let page = dead(&*self.store.snapshot(), &from, &until)?;
            let mut erased = Vec::new();
            let done = page.chunk_by(|a, b| a.0.segment == b.0.segment).try_for_each(|records| {
                let mut left = records;
                while !left.is_empty() {
                    self.stop.check()?;
                    let (some, rest) = left.split_at(way.piece(left.len()));
                    erased.append(&mut way.after(|| self.erase_some(some))?);
                    left = rest;
                }
                Ok::<_, StoreError>(())
            });
            // All segments' in one commit, and also when one of them has failed.
            self.note_erased(erased)?;
            done?;
            match page.last() {
                Some((last, _)) if page.len() == DROPS_PER_STEP => from = [key::dead(*last).bytes(), vec![0]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Erases dead records of one segment; those whose bytes are gone now.
    fn erase_some(&mut self, records: &[(Location, u64)]) -> Result<Vec<Location>, StoreError> {
        let Some(&(Location { segment, .. }, _)) = records.first() else { return Ok(Vec::new()) };
        let row: Option<SegmentRow> = schema::get(&*self.store.snapshot(), key::segment(segment))?;
        if row.is_none() || self.store.segment_usage(segment)?.is_none() {
            // It was removed by a run that was cut off before it had forgotten these; or its file is lost.
            return Ok(records.iter().map(|(location, _)| *location).collect());
        }
        let before = self.allocated(segment);
        let dead: Vec<DeadRecord> =
            records.iter().map(|(location, len)| DeadRecord { offset: location.offset, record_len: *len }).collect();
        let left = match self.store.erase(segment, &dead, self.patience()) {
            Ok(left) => {
                self.report.still_read += left.len() as u64;
                left
            }
            // One of them is not what the index says; the others must not suffer for that.
            Err(StoreError::Corrupt(_)) => self.erase_singly(segment, &dead)?,
            Err(error) => self.failed(segment, error, dead.clone())?,
        };
        self.report.returned_bytes += before.saturating_sub(self.allocated(segment));
        let erased = records.iter().map(|(location, _)| *location);
        Ok(erased.filter(|location| left.iter().all(|left| left.offset != location.offset)).collect())
    }

    fn erase_singly(&mut self, segment: SegmentNumber, dead: &[DeadRecord]) -> Result<Vec<DeadRecord>, StoreError> {
        let mut left = Vec::new();
        for record in dead {
            match self.store.erase(segment, std::slice::from_ref(record), Duration::ZERO) {
                Ok(still) => left.extend(still),
                Err(error) => left.extend(self.failed(segment, error, vec![*record])?),
            }
        }
        Ok(left)
    }

    /// A segment that fails does not keep others from being erased; a store that takes no writes ends the run.
    fn failed(
        &mut self,
        segment: SegmentNumber,
        error: StoreError,
        left: Vec<DeadRecord>,
    ) -> Result<Vec<DeadRecord>, StoreError> {
        if matches!(error, StoreError::Unavailable(_)) {
            return Err(error);
        }
        tracing::error!(%error, segment.id = segment.0, records = left.len(), "dead records could not be erased");
        self.report.incomplete = Some(format!("segment {segment}: {error}"));
        Ok(left)
    }
}

/// Sparse segments after one, in order of their numbers.
pub(super) fn sparse(
    view: &dyn View,
    after: Option<SegmentNumber>,
    limit: usize,
) -> Result<Vec<(SegmentNumber, SegmentRow)>, SchemaError> {
    let all = Key::of(Table::Sparse).bytes();
    let from = after.map_or_else(|| all.clone(), |after| [key::sparse(after).bytes(), vec![0]].concat());
    let mut segments = Vec::new();
    for (row, _) in view.scan(&from, &prefix_end(&all), limit)? {
        let number = Decoder::new(&row[1..]).key_u64("segment").map_err(|source| bad(Table::Sparse, source))?;
        let number = SegmentNumber(number);
        segments.push((number, schema::expect(view, key::segment(number))?));
    }
    Ok(segments)
}

/// Dead records and their lengths.
pub(super) fn dead(view: &dyn View, from: &[u8], until: &[u8]) -> Result<Vec<(Location, u64)>, SchemaError> {
    let rows = view.scan(from, until, DROPS_PER_STEP)?;
    rows.iter()
        .map(|(key, value)| {
            let mut d = Decoder::new(&key[1..]);
            let mut part = |field| d.key_u64(field).map_err(|source| bad(Table::Dead, source));
            let location = Location { segment: SegmentNumber(part("segment")?), offset: part("offset")? };
            Ok((location, DeadRow::from_bytes(value)?.record_len))
        })
        .collect()
}

fn bad(table: Table, source: DecodeError) -> SchemaError {
    SchemaError::Row { table: table.name(), source }
}
