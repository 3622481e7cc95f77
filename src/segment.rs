//! Segments: the files that hold the bytes of blobs and manifests (FORMAT.md, *Segments*).
//!
//! Shared segments take small content by append; large content gets a single segment of its own while it is uploaded.
//! Which records there are, and which are live, is not known here: the journal and the index tell where a record lies, and
//! this layer says whether it is intact. It never looks for records, never moves or repairs one, and never decides what
//! is dead.
//!
//! Invariants:
//! - A number is given to one file only, above all that the journal or the disk ever showed.
//! - A segment's name, header and directories are durable before its first record can be written.
//! - Bytes below a segment's committed end never change; bytes beyond it are cut at open, unread.
//! - A reader returns no byte whose checksum it did not check, and damage is never told as absence.
//! - After a failed sync nothing is written until the store is opened again.

use std::sync::Arc;

use crate::{
    digest::Digest,
    disk::Disk,
    location::{Location, SegmentNumber},
};

mod append;
mod cache;
mod error;
mod files;
mod format;
mod reader;
mod recovery;
mod single;
mod space;
#[cfg(test)]
mod tests;

pub use crate::location::RecordKind;
pub use error::{Damage, SegmentError};
pub use format::SegmentKind;
pub use reader::RecordReader;
pub use recovery::{CutSegment, DamagedSegment, OpenReport};
pub use single::SingleWriter;

/// Settings of the segments of one store.
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    /// The store that the segments belong to; a file of another one is refused.
    pub store_id: [u8; 16],
    /// Length in bytes from which a shared segment takes no more records; only a record that is larger by itself makes
    /// one longer.
    pub shared_bytes_max: u64,
    /// Most files kept open for reading. A reader that is in use holds its own open beyond that.
    pub open_files_max: usize,
    /// Bytes of the disk that writes here leave free.
    pub reserve_bytes: u64,
}

impl SegmentOptions {
    /// 256 MiB per shared segment, 512 open files, 64 MiB in reserve.
    pub fn new(store_id: [u8; 16]) -> Self {
        Self { store_id, shared_bytes_max: 256 << 20, open_files_max: 512, reserve_bytes: 64 << 20 }
    }
}

/// A segment as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// How it is filled.
    pub kind: SegmentKind,
    /// Where what the journal names in it ends, in bytes of the file. For a single segment whose upload is not finished:
    /// [`SingleWriter::committed_end`] of the durable payload.
    pub committed_end: u64,
    /// Whether a shared segment takes no more records.
    pub sealed: bool,
}

/// What [`Segments::open`] does with files that are not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlistedFiles {
    /// They are proven worthless: the journal was read to its end and the store's id fits.
    Remove,
    /// They go to `lost/`.
    MoveToLost,
}

/// A record that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where it lies.
    pub location: Location,
    /// Its length in bytes, with header, checksums and padding.
    pub record_len: u64,
}

/// A shared segment that will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// End of its last record in bytes, acknowledged or not. All of it is durable.
    pub len: u64,
}

/// The segments of one store. All calls may be made by many threads at once.
#[derive(Debug)]
pub struct Segments {
    files: Arc<files::Files>,
    shared: append::SharedWriter,
}

impl Segments {
    /// Opens the segments that the index lists, cuts what lies beyond their committed ends, and clears away files that are
    /// not listed. `next_number` is the first number that the journal never named.
    ///
    /// A listed file that is missing or too short is told in the report and does not stop the rest; reads that need what
    /// is gone fail as [`SegmentError::Corrupt`]. Nothing here costs more than one directory entry per segment.
    ///
    /// # Errors
    /// [`SegmentError::Io`]; [`SegmentError::Version`] when the segment to append to was written by a newer version.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: SegmentOptions,
        next_number: u64,
        listed: Vec<ListedSegment>,
        unlisted: UnlistedFiles,
    ) -> Result<(Self, OpenReport), SegmentError> {
        let recovered = recovery::recover(&*disk, next_number, &listed, unlisted)?;
        let missing = recovered.report.damaged.iter().filter(|damaged| damaged.found.is_none());
        let missing = missing.map(|damaged| damaged.number).collect();
        let files = Arc::new(files::Files::new(disk, &options, recovered.next_number, missing));
        let resumed = recovery::resume(&files, options.shared_bytes_max, recovered.unsealed)?;
        let shared = append::SharedWriter::new(files.clone(), options.shared_bytes_max, resumed);
        Ok((Self { files, shared }, recovered.report))
    }

    /// Appends a record to a shared segment. It is not durable before a [`sync`](Self::sync) that begins after this returned.
    ///
    /// # Errors
    /// [`SegmentError::Full`], [`SegmentError::Poisoned`], [`SegmentError::Io`]; what was written of it is dead.
    pub fn append(&self, kind: RecordKind, digest: &Digest, payload: &[u8]) -> Result<Appended, SegmentError> {
        self.shared.append(kind, digest, payload)
    }

    /// Makes every append durable that returned before this call.
    ///
    /// # Errors
    /// [`SegmentError::Poisoned`], now and from then on, when a sync fails: it is never tried again.
    pub fn sync(&self) -> Result<(), SegmentError> {
        self.shared.sync()
    }

    /// Shared segments that take no more appends, have none under way and are synced. Each is told once per open.
    pub fn take_sealed(&self) -> Vec<SealedSegment> {
        self.shared.take_sealed()
    }

    /// Begins a single segment. Its file, name and header are durable on return.
    ///
    /// # Errors
    /// [`SegmentError::Full`], [`SegmentError::Poisoned`], [`SegmentError::Io`].
    pub fn create_single(&self) -> Result<SingleWriter, SegmentError> {
        SingleWriter::create(self.files.clone())
    }

    /// Takes up a single segment again at `offset` bytes of its payload; what lies beyond is cut. The payload up to there
    /// is read once, and given to `each_block` in order, in pieces of at most 64 KiB.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] when the file has fewer bytes, [`SegmentError::Missing`], [`SegmentError::Version`],
    /// [`SegmentError::Poisoned`], [`SegmentError::Io`].
    pub fn reopen_single(
        &self,
        number: SegmentNumber,
        offset: u64,
        each_block: &mut dyn FnMut(&[u8]),
    ) -> Result<SingleWriter, SegmentError> {
        SingleWriter::reopen(self.files.clone(), number, offset, each_block)
    }

    /// Opens the record at a place, which must hold the content `digest` of `payload_len` bytes.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] when it does not, [`SegmentError::Missing`], [`SegmentError::Version`],
    /// [`SegmentError::Io`].
    pub fn reader(&self, location: Location, digest: &Digest, payload_len: u64) -> Result<RecordReader, SegmentError> {
        RecordReader::open(&self.files, location, digest, payload_len)
    }

    /// Reads a whole record and checks every byte of it: header, blocks, padding. It does not compute the digest.
    ///
    /// # Errors
    /// As [`reader`](Self::reader) and [`RecordReader::read`].
    pub fn verify_record(&self, location: Location, digest: &Digest, payload_len: u64) -> Result<(), SegmentError> {
        self.reader(location, digest, payload_len)?.verify()
    }

    /// Removes the file of a segment that nothing names any more and that nobody writes to. Readers that have it open
    /// read on. The removal is not durable; a file that comes back after a crash is not listed.
    ///
    /// # Errors
    /// [`SegmentError::Missing`], [`SegmentError::Io`].
    pub fn remove(&self, number: SegmentNumber) -> Result<(), SegmentError> {
        self.files.remove(number)
    }

    /// Allows `needed` bytes to be written to another file on the same disk, as appends are allowed: the reserve stays free.
    ///
    /// # Errors
    /// [`SegmentError::Full`], [`SegmentError::Poisoned`], [`SegmentError::Io`].
    pub fn claim(&self, needed: u64) -> Result<(), SegmentError> {
        self.files.claim(needed)
    }

    /// The number that the next segment gets.
    pub fn next_number(&self) -> u64 {
        self.files.next_number()
    }
}
