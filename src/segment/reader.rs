//! Reading records: every block is checked before any byte of it is returned.
//!
//! Small records are read whole, checked whole and kept, in one read of the file. Of larger ones header, table of checksums
//! and padding are read first (4 bytes per 64 KiB, shared by all clones), then only the blocks that are asked for. Such a
//! record stays pinned, so that it is not erased under its readers.

use std::sync::Arc;

use bytes::Bytes;

use crate::{digest::Digest, disk::Reach, location::Location};

use super::{
    RecordKind,
    error::{Fault, SegmentError},
    files::{Files, SegmentFile},
    format::{self, BLOCK_BYTES, Layout, RECORD_HEADER_LEN},
    readers::Pin,
};

/// Records up to this are read at once.
const WHOLE_RECORD_MAX: u64 = 256 * 1024;
/// Bytes of content that may be read and checked where nobody may wait: some microseconds.
const AT_ONCE_MAX: u64 = BLOCK_BYTES;
/// Bytes that a verification reads at a time.
const VERIFY_BYTES: usize = 1 << 20;

/// A record that can be read by many threads: its bytes stay readable when it is dropped or its segment removed. As long as
/// any clone of a large one lives, it is not erased and its segment's file is held open; a small one holds its bytes only.
#[derive(Debug, Clone)]
pub struct RecordReader {
    location: Location,
    digest: Digest,
    kind: RecordKind,
    layout: Layout,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    /// The payload, checked.
    Whole(Bytes),
    /// What the payload's blocks are read from and checked by.
    Blocks(Blocks),
}

/// Dropped in this order: where there is no pin any more, the file is not held open either.
#[derive(Debug, Clone)]
struct Blocks {
    file: SegmentFile,
    /// The table of checksums.
    table: Bytes,
    _pin: Arc<Pin>,
}

impl RecordReader {
    pub(super) fn open(
        files: &Files,
        location: Location,
        digest: &Digest,
        payload_len: u64,
        reach: Reach,
    ) -> Result<Self, SegmentError> {
        if reach == Reach::Memory && payload_len > AT_ONCE_MAX {
            return Err(SegmentError::OutOfReach);
        }
        // Before a byte is read: what is seen without a pin after this is not erased in the middle of it.
        let pin = files.readers.pin(location);
        let file = files.open_within(reach, location.segment).map_err(|error| error.for_content(digest))?;
        let damaged = |fault: Fault| fault.of(location.segment, Some(*digest));
        let layout = Layout::of(payload_len);
        let end = layout.and_then(|layout| location.offset.checked_add(layout.record_len));
        let (Some(layout), Some(end)) = (layout, end) else {
            return Err(damaged(Fault::new(location.offset, "the record's length", "of a record", payload_len)));
        };
        let whole = layout.record_len <= WHOLE_RECORD_MAX;
        if !whole {
            // Nothing is allocated by a length that the file does not have.
            let found = file.len()?;
            if found < end {
                return Err(damaged(Fault::new(location.offset, "the file's length", format!("{end} or more"), found)));
            }
        }
        let head_len = if whole { layout.record_len } else { RECORD_HEADER_LEN };
        let mut head = vec![0; to_usize(head_len)];
        file.read_within(reach, &mut head, location.offset, digest)?;
        let header = &head[..RECORD_HEADER_LEN as usize];
        let kind = format::check_record_header(header, location.offset, digest, payload_len).map_err(damaged)?;
        let body = if whole {
            Body::Whole(check_whole(head, &layout, location.offset).map_err(damaged)?)
        } else {
            let table = read_table(&file, &layout, location.offset, digest)?;
            Body::Blocks(Blocks { file, table, _pin: Arc::new(pin) })
        };
        Ok(Self { location, digest: *digest, kind, layout, body })
    }

    /// Bytes of content.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks; an empty blob reads like any other")]
    pub fn len(&self) -> u64 {
        self.layout.payload_len
    }

    /// What the record holds.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// At most `len` bytes from `offset`, checked; fewer only at the end of the content. Reads and checks whole blocks of
    /// 64 KiB, so aligned calls cost least.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] when a checksum does not hold, [`SegmentError::Io`]; no byte is returned then.
    pub fn read(&self, offset: u64, len: usize) -> Result<Bytes, SegmentError> {
        let begin = offset.min(self.len());
        let end = begin.saturating_add(len as u64).min(self.len());
        match &self.body {
            Body::Whole(payload) => Ok(payload.slice(to_usize(begin)..to_usize(end))),
            Body::Blocks(_) if begin == end => Ok(Bytes::new()),
            Body::Blocks(Blocks { file, table, .. }) => {
                let (first, last) = (begin / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
                let from = first * BLOCK_BYTES;
                let mut blocks = vec![0; to_usize((last * BLOCK_BYTES).min(self.len()) - from)];
                let at = self.location.offset + RECORD_HEADER_LEN + from;
                file.read(&mut blocks, at, Some(self.digest))?;
                let sums = table.get(to_usize(first * 4)..to_usize(last * 4)).unwrap_or_default();
                format::check_blocks(&blocks, sums, at).map_err(|fault| self.damaged(fault))?;
                Ok(Bytes::from(blocks).slice(to_usize(begin - from)..to_usize(end - from)))
            }
        }
    }

    /// Checks every byte of the record that opening it did not.
    pub(super) fn verify(&self) -> Result<(), SegmentError> {
        let mut offset = 0;
        while offset < self.len() {
            offset += self.read(offset, VERIFY_BYTES)?.len() as u64;
        }
        Ok(())
    }

    fn damaged(&self, fault: Fault) -> SegmentError {
        fault.of(self.location.segment, Some(self.digest))
    }
}

/// The table of checksums of a record that lies at `at`. The padding behind it is checked; who damages the table is found
/// by the blocks.
fn read_table(file: &SegmentFile, layout: &Layout, at: u64, digest: &Digest) -> Result<Bytes, SegmentError> {
    let begin = at + layout.table_offset();
    let mut table = vec![0; to_usize(layout.record_len - layout.table_offset())];
    file.read(&mut table, begin, Some(*digest))?;
    let padding = table.split_off(to_usize(layout.table_len));
    let checked = format::check_zeros(&padding, at + layout.padding_offset());
    checked.map_err(|fault| fault.of(file.number, Some(*digest)))?;
    Ok(table.into())
}

/// The payload of a record that lies at `at`, checked with what surrounds it.
fn check_whole(record: Vec<u8>, layout: &Layout, at: u64) -> Result<Bytes, Fault> {
    let record = Bytes::from(record);
    let (table, padding) = (to_usize(layout.table_offset()), to_usize(layout.padding_offset()));
    let payload = record.slice(RECORD_HEADER_LEN as usize..table);
    format::check_blocks(&payload, &record[table..padding], at + RECORD_HEADER_LEN)?;
    format::check_zeros(&record[padding..], at + layout.padding_offset())?;
    Ok(payload)
}

/// Lengths of what is about to be in memory; on a machine where one does not fit, the allocation fails by itself.
fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
