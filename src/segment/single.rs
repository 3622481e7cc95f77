//! Large content in a segment of its own, written while its upload runs.
//!
//! Payload first, in order; then, when the digest is known, checksums and header, made durable by one sync. Until the
//! header is written its place is zero, and no record can be read there. Dropped without an end, a writer leaves the
//! file as it is, so that the upload can be taken up again.

use std::sync::Arc;

use crate::{
    digest::Digest,
    location::{Location, SegmentNumber},
};

use super::{
    Appended, RecordKind, SegmentKind,
    error::{Fault, SegmentError},
    files::{Files, SegmentFile},
    format::{self, BlockSums, Layout, SINGLE_PAYLOAD_OFFSET, SINGLE_RECORD_OFFSET},
};

/// Bytes of payload after which the disk is given what has come: at the end, the sync waits for the last of them only.
const WRITE_OUT_BYTES: u64 = 4 << 20;

/// Writes one single segment. It holds 4 bytes of memory per 64 KiB of payload.
#[derive(Debug)]
pub struct SingleWriter {
    files: Arc<Files>,
    file: SegmentFile,
    sums: BlockSums,
    len: u64,
}

impl SingleWriter {
    pub(super) fn create(files: Arc<Files>) -> Result<Self, SegmentError> {
        files.claim(SINGLE_PAYLOAD_OFFSET)?;
        let file = files.create(SegmentKind::Single)?;
        Ok(Self { files, file, sums: BlockSums::default(), len: 0 })
    }

    pub(super) fn reopen(
        files: Arc<Files>,
        number: SegmentNumber,
        offset: u64,
        each_block: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, SegmentError> {
        files.poison.check()?;
        let file = files.open_uncached(number)?;
        let damaged = |fault: Fault| fault.of(number, None);
        if file.kind != SegmentKind::Single {
            return Err(damaged(Fault::new(0, "the segment's kind", "single", "shared")));
        }
        let end = SINGLE_PAYLOAD_OFFSET.saturating_add(offset);
        let found = file.len()?;
        if found < end {
            return Err(damaged(Fault::new(0, "the segment's length", end, found)));
        }
        files.cut(&file, end)?;
        // A finish that was never acknowledged may have left its header.
        files.write(&file, &[0; format::RECORD_HEADER_LEN as usize], SINGLE_RECORD_OFFSET)?;

        let mut writer = Self { files, file, sums: BlockSums::default(), len: offset };
        let mut block = vec![0; format::BLOCK_BYTES as usize];
        let mut at = 0;
        while at < offset {
            let count = writer.read_at(at, &mut block)?;
            writer.sums.update(&block[..count]);
            each_block(&block[..count]);
            at += count as u64;
        }
        Ok(writer)
    }

    /// The segment.
    pub fn number(&self) -> SegmentNumber {
        self.file.number
    }

    /// Bytes of payload that were written.
    #[expect(clippy::len_without_is_empty, reason = "an offset to go on from, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The end that the index has to list for this segment when the first `len` bytes of its payload are durable.
    pub fn committed_end(len: u64) -> u64 {
        SINGLE_PAYLOAD_OFFSET.saturating_add(len)
    }

    /// Writes more of the payload; not durable on return. After an error [`len`](Self::len) is as before, and the same
    /// bytes can be written again.
    ///
    /// # Errors
    /// [`SegmentError::Full`], [`SegmentError::Poisoned`], [`SegmentError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        let count = bytes.len() as u64;
        self.files.claim(count)?;
        let len = self.len.checked_add(count).filter(|&len| Layout::of(len).is_some());
        let len = len.ok_or_else(|| self.files.full(count))?;
        self.files.write(&self.file, bytes, SINGLE_PAYLOAD_OFFSET + self.len)?;
        self.sums.update(bytes);
        let (begun, complete) = (self.len / WRITE_OUT_BYTES, len / WRITE_OUT_BYTES);
        if complete > begun {
            let (from, until) = (begun * WRITE_OUT_BYTES, complete * WRITE_OUT_BYTES);
            self.file.file.will_sync(SINGLE_PAYLOAD_OFFSET + from, until - from);
        }
        self.len = len;
        Ok(())
    }

    /// Makes all bytes up to [`len`](Self::len) durable.
    ///
    /// # Errors
    /// [`SegmentError::Poisoned`], now and from then on, when the sync fails.
    pub fn sync(&self) -> Result<(), SegmentError> {
        self.files.sync(&self.file)
    }

    /// Reads payload that was written, to hash it again; how much, which is less than asked for only at the end. The
    /// bytes are not checked: their hash will be.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] when the file is shorter than what was written; [`SegmentError::Io`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SegmentError> {
        let left = self.len.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.file.read(&mut buffer[..count], SINGLE_PAYLOAD_OFFSET.saturating_add(offset), None)?;
        Ok(count)
    }

    /// Ends the record; durable on return. After an error the segment can be taken up again or removed.
    ///
    /// # Errors
    /// [`SegmentError::Full`], [`SegmentError::Poisoned`], [`SegmentError::Io`].
    pub fn finish(self, kind: RecordKind, digest: &Digest) -> Result<Appended, SegmentError> {
        let layout = Layout::of(self.len).ok_or_else(|| self.files.full(self.len))?;
        let tail = self.sums.finish(&layout);
        self.files.poison.check()?;
        self.files.write(&self.file, &tail, SINGLE_RECORD_OFFSET + layout.table_offset())?;
        let header = format::encode_record_header(kind, digest, self.len);
        self.files.write(&self.file, &header, SINGLE_RECORD_OFFSET)?;
        self.files.sync(&self.file)?;
        let location = Location { segment: self.file.number, offset: SINGLE_RECORD_OFFSET };
        Ok(Appended { location, record_len: layout.record_len })
    }

    /// Removes the segment.
    ///
    /// # Errors
    /// [`SegmentError::Missing`], [`SegmentError::Io`].
    pub fn discard(self) -> Result<(), SegmentError> {
        self.files.remove(self.file.number)
    }
}
