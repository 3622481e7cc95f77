//! Finding the records of a segment, for who moves them elsewhere.
//!
//! Where records lie is known by the index, by digest and not by place. So a segment is walked: at every place where a
//! record can begin, a header that holds makes a *candidate*. Between records lie zeros of erased ones, and bytes of dead
//! ones or of failed writes, which can hold anything, headers too. Therefore a candidate is a record only if the index
//! says that its digest lies exactly there, and only then may what it covers be passed over.
//!
//! Invariants:
//! - Every record that is whole, lies in the file when the walk begins and is not inside of a passed candidate becomes a
//!   candidate, whatever lies around it. So when all that the index confirms is moved, the index has nothing left there.
//! - Memory is one window; nothing is allocated by what is read. Payloads are not looked at, nor their checksums.

use std::ops::Range;

use crate::{
    digest::Digest,
    location::{Location, SegmentNumber},
};

use super::{
    RecordKind, SegmentError,
    files::{Files, SegmentFile},
    format::{self, FILE_HEADER_LEN, RECORD_ALIGN, RECORD_HEADER_LEN},
};

/// Bytes that are read at a time, and held.
const WINDOW_BYTES: u64 = 256 * 1024;

/// What may be a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Where it would lie.
    pub location: Location,
    /// What it would hold.
    pub kind: RecordKind,
    /// The digest that its header tells.
    pub digest: Digest,
    /// Bytes of its content.
    pub payload_len: u64,
    /// Its length in bytes, with header, checksums and padding; the file is as long.
    pub record_len: u64,
}

/// A walk through one segment.
#[derive(Debug)]
pub struct Candidates {
    file: SegmentFile,
    /// The file's length when the walk began.
    end: u64,
    /// Where it goes on.
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Candidates {
    pub(super) fn open(files: &Files, number: SegmentNumber) -> Result<Self, SegmentError> {
        Self::of(files.open(number)?)
    }

    pub(super) fn of(file: SegmentFile) -> Result<Self, SegmentError> {
        let end = file.len()?;
        Ok(Self { file, end, at: FILE_HEADER_LEN, window: Vec::new(), window_at: 0 })
    }

    /// The next candidate, in order of place; `None` at the end. `pace` is told how many bytes are about to be read, at most
    /// 256 KiB at a time, and may wait.
    ///
    /// # Errors
    /// [`SegmentError::Io`], [`SegmentError::Corrupt`] when the file has become shorter. The next call tries there again.
    pub fn next(&mut self, pace: &mut dyn FnMut(u64)) -> Result<Option<Candidate>, SegmentError> {
        while self.end.saturating_sub(self.at) >= RECORD_HEADER_LEN {
            self.look_at(pace)?;
            let begin = (self.at - self.window_at) as usize;
            let header = self.window.get(begin..begin + RECORD_HEADER_LEN as usize).unwrap_or_default();
            let (offset, header) = (self.at, format::decode_record_header(header));
            self.at += RECORD_ALIGN;
            if let Some(header) = header
                && header.layout.record_len <= self.end - offset
            {
                return Ok(Some(Candidate {
                    location: Location { segment: self.file.number, offset },
                    kind: header.kind,
                    digest: header.digest,
                    payload_len: header.layout.payload_len,
                    record_len: header.layout.record_len,
                }));
            }
        }
        Ok(None)
    }

    /// The file's length when the walk began, in bytes.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether all bytes of a range are zero, as far as the file goes.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn is_zero(&self, range: Range<u64>) -> Result<bool, SegmentError> {
        let (mut at, end) = (range.start, range.end.min(self.end));
        let mut bytes = vec![0; end.saturating_sub(at).min(WINDOW_BYTES) as usize];
        while at < end {
            let some = bytes.len().min((end - at) as usize);
            self.file.read(&mut bytes[..some], at, None)?;
            if bytes[..some].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += some as u64;
        }
        Ok(true)
    }

    /// Goes on behind a candidate. Only for one that the index confirms, or lists as dead at exactly this place: with any
    /// other, live records could be passed over.
    pub fn pass(&mut self, confirmed: &Candidate) {
        self.at = self.at.max(confirmed.location.offset.saturating_add(confirmed.record_len));
    }

    /// Makes the window hold a header's length from where the walk is.
    fn look_at(&mut self, pace: &mut dyn FnMut(u64)) -> Result<(), SegmentError> {
        let window_end = self.window_at + self.window.len() as u64;
        if self.at >= self.window_at && self.at + RECORD_HEADER_LEN <= window_end {
            return Ok(());
        }
        let len = (self.end - self.at).min(WINDOW_BYTES);
        pace(len);
        self.window_at = self.at;
        self.window.resize(len as usize, 0);
        let read = self.file.read(&mut self.window, self.at, None);
        if read.is_err() {
            self.window.clear();
        }
        read
    }
}
