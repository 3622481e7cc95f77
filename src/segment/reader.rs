//! Reading records: every block is checked before any byte of it is returned.
//!
//! Small records are read whole, checked whole and kept, in one read of the file. Of larger ones header, table of checksums
//! and padding are read first (4 bytes per 64 KiB) and stay known (`known`), then only the blocks that are asked for. Such a
//! record stays pinned, so that it is not erased under its readers.
//!
//! A large record with a file of its own is not read again where its blocks have been checked since the store was opened: it
//! is given out as a range that the kernel sends, unless the settings say that every read is checked. A few blocks that
//! were not, and lie in the kernel's memory, are checked where they are asked for: who hands them to another thread pays more.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    digest::Digest,
    disk::{MappedFile, Reach},
    location::Location,
};

use super::{
    Look, RecordKind, VerifyReads,
    error::{Fault, SegmentError},
    files::{Files, SegmentFile},
    format::{self, BLOCK_BYTES, Layout, RECORD_HEADER_LEN},
    known::KnownRecord,
    piece::{FilePiece, Piece},
    readers::Pin,
};

/// Records up to this are read at once.
const WHOLE_RECORD_MAX: u64 = 256 * 1024;
/// Bytes of content that may be read and checked where nobody may wait: some microseconds.
const AT_ONCE_MAX: u64 = BLOCK_BYTES;
/// Blocks of large content that may be: a range of one block's length mostly lies in two.
const BLOCKS_AT_ONCE_MAX: u64 = 2;
/// Bytes that a verification reads at a time.
const VERIFY_BYTES: usize = 1 << 20;
/// Bytes that are read at a time where they are only checked: few enough to stay in the processor's cache till then.
const CHECK_BYTES: usize = 2 * BLOCK_BYTES as usize;
/// How far ahead of a check the disk is told to read.
const AHEAD_BYTES: u64 = 2 << 20;

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
    /// The file for the kernel to send from, where it may.
    mapped: Option<Arc<MappedFile>>,
    known: Arc<KnownRecord>,
    pin: Arc<Pin>,
}

impl RecordReader {
    pub(super) fn open(
        files: &Files,
        location: Location,
        digest: &Digest,
        payload_len: u64,
        look: Look,
    ) -> Result<Self, SegmentError> {
        let reach = look.reach();
        // Before a byte is read: what is seen without a pin after this is not erased in the middle of it.
        let pin = files.readers.pin(location);
        let file = files.open_within(reach, location.segment).map_err(|error| error.for_content(digest))?;
        let damaged = |fault: Fault| fault.of(location.segment, Some(*digest));
        let layout = Layout::of(payload_len);
        let end = layout.and_then(|layout| location.offset.checked_add(layout.record_len));
        let (Some(layout), Some(end)) = (layout, end) else {
            return Err(damaged(Fault::new(location.offset, "the record's length", "of a record", payload_len)));
        };
        if layout.record_len <= WHOLE_RECORD_MAX {
            if reach == Reach::Memory && payload_len > AT_ONCE_MAX {
                return Err(SegmentError::OutOfReach);
            }
            let mut record = vec![0; to_usize(layout.record_len)];
            file.read_within(reach, &mut record, location.offset, digest)?;
            let header = &record[..RECORD_HEADER_LEN as usize];
            let kind = format::check_record_header(header, location.offset, digest, payload_len).map_err(damaged)?;
            let body = Body::Whole(check_whole(record, &layout, location.offset).map_err(damaged)?);
            return Ok(Self { location, digest: *digest, kind, layout, body });
        }
        let known = match files.known.get(location, digest, payload_len) {
            Ok(known) if look != Look::Anew => known,
            _ if look == Look::AtOnce => return Err(SegmentError::OutOfReach),
            looked_up => {
                // Nothing is allocated by a length that the file does not have.
                let found = file.len()?;
                if found < end {
                    let expected = format!("{end} or more");
                    return Err(damaged(Fault::new(location.offset, "the file's length", expected, found)));
                }
                let read = read_known(&file, &layout, location.offset, digest)?;
                match looked_up {
                    Err(seen) if look == Look::Usual => files.known.insert(location, read, seen),
                    _ => Arc::new(read),
                }
            }
        };
        let is_sent = look != Look::Anew && files.verify_reads == VerifyReads::First;
        let mapped = (is_sent && file.is_sent_from()).then(|| file.file.mapped()).flatten();
        let kind = known.kind;
        let body = Body::Blocks(Blocks { file, mapped, known, pin: Arc::new(pin) });
        Ok(Self { location, digest: *digest, kind, layout, body })
    }

    /// Bytes of content.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks; an empty blob reads like any other")]
    pub fn len(&self) -> u64 {
        self.layout.payload_len
    }

    /// Whether all of it was read, and lies in memory.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.body, Body::Whole(_))
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
        let Range { start: begin, end } = self.inside(offset, len as u64);
        match &self.body {
            Body::Whole(payload) => Ok(payload.slice(to_usize(begin)..to_usize(end))),
            Body::Blocks(_) if begin == end => Ok(Bytes::new()),
            Body::Blocks(blocks) => {
                let (first, last) = (begin / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
                let from = first * BLOCK_BYTES;
                let mut buffer = vec![0; to_usize(self.blocks_len(&(first..last)))];
                self.check(Reach::Disk, blocks, first..last, &mut buffer)?;
                Ok(Bytes::from(buffer).slice(to_usize(begin - from)..to_usize(end - from)))
            }
        }
    }

    /// The same bytes as [`read`](Self::read), in a file where they lie in one that the kernel can send from: then they are only
    /// checked.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub fn piece(&self, offset: u64, len: usize) -> Result<Piece, SegmentError> {
        let Range { start: begin, end } = self.inside(offset, len as u64);
        let Some((blocks, piece)) = self.file_piece(begin..end) else {
            return self.read(offset, len).map(Piece::Bytes);
        };
        let ahead = self.inside(begin, AHEAD_BYTES);
        if self.file_piece(ahead.clone()).is_some_and(|(_, piece)| !piece.range().is_in_memory()) {
            let at = self.location.offset + RECORD_HEADER_LEN;
            blocks.file.file.will_read(at + ahead.start, ahead.end - ahead.start);
        }
        let mut buffer = vec![0; CHECK_BYTES];
        let (mut first, last) = (begin / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
        while first < last {
            let next = last.min(first + CHECK_BYTES as u64 / BLOCK_BYTES);
            let len = to_usize(self.blocks_len(&(first..next)));
            self.check(Reach::Disk, blocks, first..next, &mut buffer[..len])?;
            first = next;
        }
        Ok(Piece::File(piece))
    }

    /// At most `len` bytes from `offset` that are there without waiting for the disk: in memory, or checked before (or here, when
    /// that is soon done) and, as far as it is known, in the kernel's memory. `None` where there are none.
    pub fn at_hand(&self, offset: u64, len: usize) -> Option<Piece> {
        let Range { start: begin, end } = self.inside(offset, len as u64);
        let Body::Blocks(blocks @ Blocks { mapped: Some(_), known, .. }) = &self.body else {
            let Body::Whole(payload) = &self.body else { return None };
            return Some(Piece::Bytes(payload.slice(to_usize(begin)..to_usize(end))));
        };
        let (first, last) = (begin / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
        let mut checked = known.checked(first..last);
        let unchecked = first + checked..last;
        if !unchecked.is_empty() && unchecked.end - unchecked.start <= BLOCKS_AT_ONCE_MAX {
            let mut buffer = vec![0; to_usize(self.blocks_len(&unchecked))];
            // What cannot be had at once, or is damaged, is told to who can wait.
            if self.check(Reach::Memory, blocks, unchecked, &mut buffer).is_ok() {
                checked = last - first;
            }
        }
        let end = end.min((first + checked) * BLOCK_BYTES);
        let (_, piece) = self.file_piece(begin..end)?;
        piece.range().is_in_memory().then_some(Piece::File(piece))
    }

    /// What of a range lies inside the content.
    fn inside(&self, offset: u64, len: u64) -> Range<u64> {
        let begin = offset.min(self.len());
        begin..begin.saturating_add(len).min(self.len())
    }

    /// Bytes of the payload as a range of the file, checked or not.
    fn file_piece(&self, bytes: Range<u64>) -> Option<(&Blocks, FilePiece)> {
        let Body::Blocks(blocks @ Blocks { mapped: Some(mapped), pin, .. }) = &self.body else { return None };
        let len = bytes.end.checked_sub(bytes.start).filter(|len| *len > 0)?;
        let range = mapped.range(self.location.offset + RECORD_HEADER_LEN + bytes.start, to_usize(len))?;
        Some((blocks, FilePiece::new(range, Arc::clone(pin))))
    }

    /// Bytes of some blocks: the last of all can be shorter.
    fn blocks_len(&self, blocks: &Range<u64>) -> u64 {
        (blocks.end * BLOCK_BYTES).min(self.len()) - blocks.start * BLOCK_BYTES
    }

    /// Reads whole blocks into a buffer of their length, and checks them.
    fn check(&self, reach: Reach, from: &Blocks, blocks: Range<u64>, buffer: &mut [u8]) -> Result<(), SegmentError> {
        let at = self.location.offset + RECORD_HEADER_LEN + blocks.start * BLOCK_BYTES;
        from.file.read_within(reach, buffer, at, &self.digest)?;
        let sums = from.known.table.get(to_usize(blocks.start * 4)..to_usize(blocks.end * 4)).unwrap_or_default();
        if let Err(fault) = format::check_blocks(buffer, sums, at) {
            from.known.distrust();
            return Err(self.damaged(fault));
        }
        from.known.note_checked(blocks);
        Ok(())
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

/// Header and table of checksums of a record that lies at `at`. The padding behind them is checked; who damages the table is
/// found by the blocks.
fn read_known(file: &SegmentFile, layout: &Layout, at: u64, digest: &Digest) -> Result<KnownRecord, SegmentError> {
    let damaged = |fault: Fault| fault.of(file.number, Some(*digest));
    let mut header = [0; RECORD_HEADER_LEN as usize];
    file.read(&mut header, at, Some(*digest))?;
    let kind = format::check_record_header(&header, at, digest, layout.payload_len).map_err(damaged)?;
    let mut table = vec![0; to_usize(layout.record_len - layout.table_offset())];
    file.read(&mut table, at + layout.table_offset(), Some(*digest))?;
    let padding = table.split_off(to_usize(layout.table_len));
    format::check_zeros(&padding, at + layout.padding_offset()).map_err(damaged)?;
    Ok(KnownRecord::new(*digest, kind, layout.payload_len, table.into()))
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
