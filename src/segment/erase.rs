//! Erasing dead records: their bytes are zeroed and their blocks given back, while all around them is in use.
//!
//! What is dead is told by the caller; here it is only made sure that nobody reads it, that the place is one of a record,
//! and that no other byte changes. Erasing again what is erased does nothing, so it can be repeated after a crash.
//!
//! Lock order: `turn`, then those of `append`.

use std::{ops::Range, sync::PoisonError, time::Duration};

use crate::{
    location::{Location, SegmentNumber},
    sync::Mutex,
};

use super::{
    append::SharedWriter,
    error::{Fault, SegmentError},
    files::{Files, SegmentFile},
    format::{self, FILE_HEADER_LEN, RECORD_ALIGN, RECORD_HEADER_LEN},
    readers::wait_until,
};

/// What file systems give back at the least; where theirs is larger, less comes back.
const BLOCK_BYTES: u64 = 4096;

/// A record that nothing names any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadRecord {
    /// Offset of its header in the segment, in bytes.
    pub offset: u64,
    /// Its length in bytes, with header, checksums and padding.
    pub record_len: u64,
}

#[derive(Debug, Default)]
pub(super) struct Eraser {
    /// One punch and sync at a time: of two syncs on one file the second can succeed because the first took the error.
    turn: Mutex<()>,
}

impl Eraser {
    /// Erases the records that nobody reads, or stops reading within `patience`; the others are returned. So is what the kernel
    /// may send from its file: pages that a socket has taken would become zero on their way, whether anybody reads the record
    /// still or not. It is the only record of its segment, which goes with it.
    pub(super) fn erase(
        &self,
        files: &Files,
        shared: &SharedWriter,
        number: SegmentNumber,
        records: &[DeadRecord],
        patience: Duration,
    ) -> Result<Vec<DeadRecord>, SegmentError> {
        files.poison.check()?;
        let file = files.open(number)?;
        records.iter().try_for_each(|record| check(&file, record))?;
        if file.is_sent_from() {
            return Ok(records.to_vec());
        }

        let earlier = files.readers.earlier();
        let is_pinned =
            |record: &DeadRecord| files.readers.is_pinned(Location { segment: number, offset: record.offset });
        let is_quiet = || files.readers.are_over(earlier) && !records.iter().any(is_pinned);
        wait_until(patience, is_quiet);
        if !files.readers.are_over(earlier) {
            return Ok(records.to_vec());
        }
        // Nobody finds any of them now, so what has no pin gets none that matters.
        let (still_read, unread) = records.iter().copied().partition::<Vec<DeadRecord>, _>(is_pinned);
        if !unread.is_empty() {
            for record in &unread {
                files.known.forget(Location { segment: number, offset: record.offset });
            }
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            // In this order: what is settled is in the file whose length is asked for.
            let settled_end = shared.settled_end(number);
            let len = file.len()?;
            for range in merged(unread, len) {
                let range = widened(&file, range, len, settled_end)?;
                files.punch(&file, range.start, range.end - range.start)?;
            }
            shared.sync_punched(&file)?;
        }
        Ok(still_read)
    }
}

/// Refuses a place at which no record can lie, or another one does: a wrong list must not cost what is live. A header that
/// is none is no reason to refuse: the record may be damaged, or half erased by a run that was cut off. Nor is a file that
/// ends before: what was lost by that need not be erased.
fn check(file: &SegmentFile, record: &DeadRecord) -> Result<(), SegmentError> {
    let DeadRecord { offset, record_len } = *record;
    let fault = |expected: String, found: String| {
        Err(Fault::new(offset, "the place of a dead record", expected, found).of(file.number, None))
    };
    let aligned = offset.is_multiple_of(RECORD_ALIGN) && record_len.is_multiple_of(RECORD_ALIGN);
    if !aligned || offset < FILE_HEADER_LEN || record_len == 0 {
        return fault("that of a record".to_owned(), format!("{record_len} bytes from {offset}"));
    }
    if file.len()?.saturating_sub(offset) < RECORD_HEADER_LEN {
        return Ok(());
    }
    let mut header = [0; RECORD_HEADER_LEN as usize];
    file.read(&mut header, offset, None)?;
    match format::decode_record_header(&header) {
        Some(found) if found.layout.record_len != record_len => {
            fault(format!("a record of {record_len} bytes"), format!("one of {}", found.layout.record_len))
        }
        _ => Ok(()),
    }
}

/// What lies in a file of `len` bytes. Ranges that touch become one, so that blocks which they share are given back.
fn merged(mut records: Vec<DeadRecord>, len: u64) -> Vec<Range<u64>> {
    records.sort();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for DeadRecord { offset, record_len } in records {
        let range = offset..offset.saturating_add(record_len).min(len);
        match ranges.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ if range.is_empty() => {}
            _ => ranges.push(range),
        }
    }
    ranges
}

/// Takes in the rest of the first and of the last block where it is zero anyway, mostly because its records were erased
/// before: then nothing changes but that the block is given back. Bytes that an append may be writing, from `settled_end`
/// on, only look zero.
fn widened(file: &SegmentFile, range: Range<u64>, len: u64, settled_end: u64) -> Result<Range<u64>, SegmentError> {
    let Range { mut start, mut end } = range;
    let first = start - start % BLOCK_BYTES;
    if start <= settled_end && is_zero(file, first..start)? {
        start = first;
    }
    let last = end.next_multiple_of(BLOCK_BYTES);
    if last <= settled_end && is_zero(file, end..last.min(len))? {
        end = last;
    }
    Ok(start..end)
}

fn is_zero(file: &SegmentFile, range: Range<u64>) -> Result<bool, SegmentError> {
    let mut bytes = [0; BLOCK_BYTES as usize];
    let len = range.end.saturating_sub(range.start).min(BLOCK_BYTES);
    let bytes = &mut bytes[..len as usize];
    file.read(bytes, range.start, None)?;
    Ok(bytes.iter().all(|&byte| byte == 0))
}
