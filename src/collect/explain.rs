//! Which bytes of a shared segment belong to what: live records, dead ones that wait to be erased, and the rest.
//!
//! The rest is what processes that were killed have written and not named: whole records or parts of them. The index does
//! not know such bytes; they are what is left when a segment was walked and all that the index names is taken away. Only
//! what an earlier process has left is taken: in this one a record that nothing names may be about to be.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    digest::Digest,
    index::schema::{self, BlobRow, Key, RowValue, SegmentRow, Table, key},
    location::{Location, SegmentNumber},
    segment::{Candidates, FIRST_RECORD_OFFSET, SegmentError},
    state::request::{DROPS_PER_STEP, Request},
    store::{Store, StoreError},
};

use super::{Pace, Stop, steps::Live};

/// A place in a segment: offset, and length in bytes.
type Piece = (u64, u64);

/// A record that was found in a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundRecord {
    pub(super) piece: Piece,
    pub(super) is_live: bool,
}

/// What a walk has found.
#[derive(Debug)]
pub(super) struct Walked {
    /// Pieces that belong to nothing that is known. Each begins where a record may begin; some are zero.
    pub(super) unknown: Vec<Piece>,
    /// Dead records that wait to be erased.
    pub(super) dead: Vec<Piece>,
    /// Records of the digest that was looked for, dead ones included.
    pub(super) wanted: Vec<FoundRecord>,
    /// Whether all live records were found. Damage hides some, and then what they cover looks unknown.
    pub(super) is_whole: bool,
    /// What the index knew of the segment.
    row: SegmentRow,
    /// The segment's file.
    pub(super) candidates: Candidates,
}

/// Walks through a shared segment, up to what the index has in it; `None` where there is none any more. No piece lies on
/// both sides of `cut`.
pub(super) fn walk(
    store: &Store,
    number: SegmentNumber,
    cut: u64,
    wanted: Option<&Digest>,
    pace: &mut dyn FnMut(u64),
) -> Result<Option<Walked>, StoreError> {
    let view = store.snapshot();
    let Some(row) = schema::get::<SegmentRow>(&*view, key::segment(number))? else { return Ok(None) };
    let mut dead: BTreeMap<u64, u64> = BTreeMap::new();
    schema::each_row(&*view, &Key::of(Table::Dead).u64(number.0).bytes(), |key, value| {
        let mut offset = [0; 8];
        offset.copy_from_slice(key.get(9..17).ok_or(schema::SchemaError::Missing { table: "dead" })?);
        dead.insert(u64::from_be_bytes(offset), schema::DeadRow::from_bytes(value)?.record_len);
        Ok(ControlFlow::Continue(()))
    })?;
    let Some(mut candidates) = store.candidates(number)? else { return Ok(None) };
    let (mut live_records, mut live_bytes) = (0, 0);
    let mut found = Vec::new();
    let mut gap = Gap { at: FIRST_RECORD_OFFSET, headers: Vec::new(), pieces: Vec::new() };
    while let Some(candidate) = candidates.next(pace)? {
        let piece = (candidate.location.offset, candidate.record_len);
        if piece.0 >= row.committed_end {
            break;
        }
        if gap.at < cut && piece.0 >= cut {
            gap.end(cut, cut);
        }
        let blob: Option<BlobRow> = schema::get(&*view, key::blob(&candidate.digest))?;
        let is_live = blob.is_some_and(|row| row.location == candidate.location && row.record_len == piece.1);
        if wanted == Some(&candidate.digest) {
            found.push(FoundRecord { piece, is_live });
        }
        if is_live || dead.get(&piece.0) == Some(&piece.1) {
            gap.end(piece.0, piece.0.saturating_add(piece.1));
            candidates.pass(&candidate);
            live_records += u64::from(is_live);
            live_bytes += if is_live { piece.1 } else { 0 };
        } else {
            gap.headers.push(piece);
        }
    }
    if gap.at < cut {
        gap.end(cut.min(row.committed_end), cut.min(row.committed_end));
    }
    gap.end(row.committed_end, row.committed_end);
    Ok(Some(Walked {
        unknown: without(gap.pieces, &dead),
        dead: dead.into_iter().collect(),
        wanted: found,
        is_whole: (live_records, live_bytes) == (row.live_records, row.live_bytes),
        row,
        candidates,
    }))
}

/// What lies between two records that are known.
struct Gap {
    at: u64,
    /// Headers that were found in it.
    headers: Vec<Piece>,
    pieces: Vec<Piece>,
}

impl Gap {
    /// The gap ends, and the next one begins. It is cut where whole records begin and end, so that each piece is either a
    /// record or something without a header: only such are erased.
    fn end(&mut self, end: u64, next: u64) {
        let mut at = self.at;
        for (offset, len) in std::mem::take(&mut self.headers) {
            let fits = offset.checked_add(len).is_some_and(|record_end| record_end <= end);
            // Inside of a record before it, or content that looks like a header.
            if offset < at || !fits {
                continue;
            }
            if offset > at {
                self.pieces.push((at, offset - at));
            }
            self.pieces.push((offset, len));
            at = offset + len;
        }
        if end > at {
            self.pieces.push((at, end - at));
        }
        self.at = self.at.max(next);
    }
}

/// Pieces without what is known to be dead: half erased records have no header by which a walk would find them.
fn without(pieces: Vec<Piece>, dead: &BTreeMap<u64, u64>) -> Vec<Piece> {
    let mut left = Vec::new();
    for (offset, len) in pieces {
        let (mut at, end) = (offset, offset.saturating_add(len));
        for (&dead_at, &dead_len) in dead.range(..end) {
            let dead_end = dead_at.saturating_add(dead_len);
            if dead_end <= at {
                continue;
            }
            if dead_at > at {
                left.push((at, dead_at - at));
            }
            at = dead_end;
        }
        if at < end {
            left.push((at, end - at));
        }
    }
    left
}

/// Notes as dead what processes that were killed have left in segments; how many pieces. Costs a look at the row of each
/// segment, and a walk through those that have more bytes than the index accounts for.
pub(super) fn discard_remains(store: &Store, stop: &Stop, pace: &mut Pace<'_>) -> Result<u64, StoreError> {
    let mut suspects = Vec::new();
    schema::each_row_of(&*store.snapshot(), Table::Segments, |key, value| {
        let row = SegmentRow::from_bytes(value)?;
        let mut number = [0; 8];
        number.copy_from_slice(key.get(1..9).ok_or(schema::SchemaError::Missing { table: "segments" })?);
        let known = FIRST_RECORD_OFFSET.saturating_add(row.live_bytes).saturating_add(row.erased_bytes);
        if !row.single && row.committed_end > known {
            suspects.push(SegmentNumber(u64::from_be_bytes(number)));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut count = 0;
    for number in suspects {
        stop.check()?;
        let Some(settled_end) = store.settled_end(number) else { continue };
        let Some(walked) = walk(store, number, settled_end, None, &mut |bytes| pace.spend(bytes))? else { continue };
        if !walked.is_whole {
            tracing::warn!(segment.id = number.0, "a segment has damaged records; what else lies in it is left alone");
            continue;
        }
        let remains = walked.left_before(settled_end, &mut |bytes| pace.spend(bytes))?;
        if !remains.is_empty() {
            tracing::info!(segment.id = number.0, pieces = remains.len(), "erasing what was written and never named");
        }
        for some in remains.chunks(DROPS_PER_STEP) {
            let records = some.iter().map(|(offset, len)| (Location { segment: number, offset: *offset }, *len));
            Live { store, stop }.commit(&Request::Discard(records.collect()))?;
            count += some.len() as u64;
        }
    }
    Ok(count)
}

impl Walked {
    /// What an earlier process has left before `settled_end`: unknown pieces that are not zero; and of those that are, as
    /// many bytes as were never counted as erased, so that the segment is not suspected again. A byte that counts twice
    /// would hide another that is left later.
    fn left_before(&self, settled_end: u64, pace: &mut dyn FnMut(u64)) -> Result<Vec<Piece>, SegmentError> {
        let (mut left, zero) = self.unknown_before(settled_end, pace)?;
        // What this process writes is in neither sum then.
        if self.row.committed_end <= settled_end {
            let zero_bytes = zero.iter().map(|(_, len)| len).sum::<u64>();
            let mut uncounted = zero_bytes.saturating_sub(self.row.erased_bytes);
            for (offset, len) in zero {
                let len = len.min(uncounted);
                if len > 0 {
                    left.push((offset, len));
                }
                uncounted -= len;
            }
        }
        Ok(left)
    }

    /// Unknown pieces that are not zero.
    pub(super) fn remains(&self) -> Result<Vec<Piece>, SegmentError> {
        Ok(self.unknown_before(u64::MAX, &mut |_| {})?.0)
    }

    /// Unknown pieces that end by `until`: those that are not zero, and those that are.
    fn unknown_before(&self, until: u64, pace: &mut dyn FnMut(u64)) -> Result<(Vec<Piece>, Vec<Piece>), SegmentError> {
        let (mut left, mut zero) = (Vec::new(), Vec::new());
        for &(offset, len) in &self.unknown {
            let end = offset.saturating_add(len);
            if end <= until {
                pace(len);
                if self.candidates.is_zero(offset..end)? { &mut zero } else { &mut left }.push((offset, len));
            }
        }
        Ok((left, zero))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_cut_where_whole_records_begin_and_end() {
        let mut gap = Gap { at: 64, headers: Vec::new(), pieces: Vec::new() };
        gap.headers = vec![(96, 96), (128, 96), (192, 96), (320, 9_600)];
        gap.end(416, 1_000);
        assert_eq!(gap.pieces, [(64, 32), (96, 96), (192, 96), (288, 128)]);
        assert_eq!(gap.at, 1_000);
        gap.end(1_000, 1_096);
        assert_eq!(gap.pieces.len(), 4);
    }

    #[test]
    fn what_is_known_to_be_dead_is_taken_away() {
        let dead = BTreeMap::from([(0, 64), (96, 32), (192, 96), (512, 96)]);
        assert_eq!(without(vec![(64, 256), (480, 128)], &dead), [(64, 32), (128, 64), (288, 32), (480, 32)]);
    }
}
