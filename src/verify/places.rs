//! Where records lie: apart from each other, from what is dead, and inside of their files.
//!
//! Erasing zeroes what the index lists as dead, without a look at what is there. So a dead record that overlaps a live one
//! is damage that has only not happened yet, and the worst that can be found here.

use std::ops::ControlFlow;

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, BlobRow, DeadRow, RowValue, SegmentRow, Table, UploadRow},
    },
    location::{Location, SegmentNumber},
    store::{Store, StoreError},
};

use super::{Broken, Finding, FindingKind, Phase, Progress, VerifyReport, Watched};

/// A live record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) location: Location,
    pub(super) record_len: u64,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

impl Live {
    fn end(&self) -> u64 {
        self.location.offset.saturating_add(self.record_len)
    }
}

/// All live records, by place.
pub(super) fn check(
    store: &Store,
    view: &dyn View,
    report: &mut VerifyReport,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Live>, Broken> {
    let total = records(view)?;
    let view = Watched::new(view, Phase::Places, None, watch).of(total);
    let checked = read_live(&view).and_then(|live| {
        report.records = live.len() as u64;
        check_live(&live, report);
        check_dead(&view, &live, report)?;
        check_segments(store, &view, report)?;
        Ok(live)
    });
    // The reason for which the view was closed comes before the error that this looked like.
    view.end(Ok(()))?;
    checked
}

/// Live records as their segments count them, and the segments. Dead records come on top: they are erased soon, so there
/// are few.
fn records(view: &dyn View) -> Result<u64, Broken> {
    let mut records = 0_u64;
    each(view, Table::Segments, |_, value| {
        let row = SegmentRow::from_bytes(value)?;
        records = records.saturating_add(row.live_records).saturating_add(1);
        Ok(())
    })?;
    Ok(records)
}

fn read_live(view: &dyn View) -> Result<Vec<Live>, Broken> {
    let mut live = Vec::new();
    each(view, Table::Blobs, |key, value| {
        let mut d = crate::codec::Decoder::new(key);
        let digest = schema::key::read_by_digest(&mut d).and_then(|digest| d.finish("key").map(|()| digest));
        let digest = digest.map_err(|source| schema::SchemaError::Row { table: Table::Blobs.name(), source })?;
        let BlobRow { location, size, record_len, .. } = BlobRow::from_bytes(value)?;
        live.push(Live { location, record_len, size, digest });
        Ok(())
    })?;
    live.sort_unstable_by_key(|live| (live.location.segment.0, live.location.offset));
    Ok(live)
}

fn check_live(live: &[Live], report: &mut VerifyReport) {
    for pair in live.windows(2) {
        let [first, second] = pair else { continue };
        if first.location.segment == second.location.segment && first.end() > second.location.offset {
            let message = format!(
                "the record of {} at byte {} of segment {} has {} bytes and reaches into that of {} at byte {}",
                first.digest,
                first.location.offset,
                first.location.segment.0,
                first.record_len,
                second.digest,
                second.location.offset
            );
            report.add(Finding::at(FindingKind::Place, second.location, Some(&second.digest), message));
        }
    }
}

/// Dead records come in the order of their places, too.
fn check_dead(view: &dyn View, live: &[Live], report: &mut VerifyReport) -> Result<(), Broken> {
    let mut before: Option<(Location, u64)> = None;
    each(view, Table::Dead, |key, value| {
        let [segment, offset] = numbers(Table::Dead, key)?;
        let location = Location { segment: SegmentNumber(segment), offset };
        let end = offset.saturating_add(DeadRow::from_bytes(value)?.record_len);
        // The first live record that ends behind the dead one's begin: those of a segment don't overlap, so their ends are
        // in order, too.
        let at = live.partition_point(|live| (live.location.segment.0, live.end()) <= (segment, offset));
        let hit = live.get(at).filter(|live| live.location.segment.0 == segment && live.location.offset < end);
        if let Some(hit) = hit {
            let message = format!(
                "bytes {offset} to {end} of segment {segment} are listed as dead, and {} lives at byte {} there; erasing \
                 would destroy it: stop collecting with `orlop pause collect`",
                hit.digest, hit.location.offset
            );
            report.add(Finding::at(FindingKind::Place, hit.location, Some(&hit.digest), message));
        }
        if let Some((_, until)) = before.filter(|(place, until)| place.segment.0 == segment && *until > offset) {
            let message = format!("bytes {offset} to {end} of segment {segment} are dead, and so is all up to {until}");
            report.add(Finding::at(FindingKind::Place, location, None, message));
        }
        before = Some((location, end));
        Ok(())
    })
}

/// Every segment has a file that is as long as the journal says; every upload that is kept writes to a segment of its own.
fn check_segments(store: &Store, view: &dyn View, report: &mut VerifyReport) -> Result<(), Broken> {
    each(view, Table::Segments, |key, value| {
        let [number] = numbers(Table::Segments, key)?;
        report.segments += 1;
        let row = SegmentRow::from_bytes(value)?;
        let location = Location { segment: SegmentNumber(number), offset: row.committed_end };
        let usage = match store.segment_usage(location.segment) {
            Err(StoreError::Failed(problem) | StoreError::Unreadable(problem)) => {
                report.add_unchecked(Finding::at(FindingKind::Segment, location, None, problem));
                return Ok(());
            }
            usage => usage.map_err(|error| Broken::Ended(error.into()))?,
        };
        let problem = match usage {
            Some(usage) if usage.len >= row.committed_end => {
                let again = |_| store.check_segment(location.segment);
                match store.check_segment(location.segment).or_else(again) {
                    Err(StoreError::Corrupt(problem) | StoreError::Unreadable(problem)) if row.live_records > 0 => {
                        problem
                    }
                    Err(StoreError::Failed(problem)) if row.live_records > 0 => {
                        report.add_unchecked(Finding::at(FindingKind::Segment, location, None, problem));
                        return Ok(());
                    }
                    _ => return Ok(()),
                }
            }
            Some(usage) => format!("its file has only {} bytes", usage.len),
            None => {
                let key = schema::key::segment(location.segment);
                if schema::get::<SegmentRow>(&*store.snapshot(), key)?.is_none() {
                    // It was removed since the view was taken.
                    return Ok(());
                }
                "its file is missing, or cannot be read as one".to_owned()
            }
        };
        let message = format!("segment {number} should have {} bytes: {problem}", row.committed_end);
        report.add(Finding::at(FindingKind::Segment, location, None, message));
        Ok(())
    })?;
    each(view, Table::Uploads, |_, value| {
        let UploadRow { repository, segment, .. } = UploadRow::from_bytes(value)?;
        let row: Option<SegmentRow> = schema::get(view, schema::key::segment(segment))?;
        if row.is_some_and(|row| row.live_records > 0) {
            let message = format!("an open upload of {repository} writes to segment {}, which has content", segment.0);
            report.add(Finding::at(FindingKind::Segment, Location { segment, offset: 0 }, None, message));
        }
        Ok(())
    })
}

/// Whether a row is read for itself, and not only because it lies between blobs.
pub(super) fn is_checked(key: &[u8]) -> bool {
    !Table::of(key).is_some_and(|table| table.is_by_digest() && table != Table::Blobs)
}

/// Visits the rows of a table: keys without their prefix.
fn each(
    view: &dyn View,
    table: Table,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut ended = Ok(());
    schema::each_row_of(view, table, |key, value| {
        ended = visit(key.get(1..).unwrap_or_default(), value);
        Ok(if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    ended
}

/// The numbers that a key is made of.
fn numbers<const N: usize>(table: Table, key: &[u8]) -> Result<[u64; N], schema::SchemaError> {
    let mut d = crate::codec::Decoder::new(key);
    let mut numbers = [0; N];
    let read = numbers.iter_mut().try_for_each(|number| d.key_u64("number").map(|read| *number = read));
    read.and_then(|()| d.finish("key")).map_err(|source| schema::SchemaError::Row { table: table.name(), source })?;
    Ok(numbers)
}
