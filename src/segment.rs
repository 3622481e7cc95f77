//! Segments: the files that hold the bytes of blobs and manifests (FORMAT.md, *Segments*).
//!
//! Shared segments take small content by append; large content gets a single segment of its own while it is uploaded.
//! Which records there are, and which are live, is not known here: the journal and the index tell where a record lies, and
//! this layer says whether it is intact. It repairs none, and never decides what is dead or where content lies from now on:
//! it erases, copies and removes what it is told to.
//!
//! Invariants:
//! - A number is given to one file only, above all that the journal or the disk ever showed.
//! - A segment's name, header and directories are durable before its first record can be written.
//! - Bytes below a segment's committed end never change, but that dead ones become zero; bytes beyond it are cut at open,
//!   unread.
//! - No record is erased that a reader has open, or is about to open in an [`Epoch`].
//! - No byte changes in a segment from which the kernel sends, until it is removed.
//! - A reader returns no byte whose checksum it did not check, and damage is never told as absence. What it gives to the
//!   kernel to send has been checked since the open.
//! - After a failed sync nothing is written until the store is opened again.

use std::{sync::Arc, time::Duration};

use crate::{
    digest::Digest,
    disk::{Disk, Reach},
    location::{Location, SegmentNumber},
};

mod append;
mod cache;
mod erase;
mod error;
mod files;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod known;
mod piece;
mod reader;
mod readers;
mod recovery;
mod single;
mod space;
#[cfg(test)]
mod tests;
mod walk;

pub use crate::location::RecordKind;
pub use erase::DeadRecord;
pub use error::{Damage, SegmentError};
pub use format::{SegmentKind, VERSION, number_of, path_of};
pub use piece::{FilePiece, Piece};
pub use reader::RecordReader;
pub use readers::Epoch;
pub use recovery::{CutSegment, DamagedSegment, OpenReport};
pub use single::SingleWriter;
pub use walk::{Candidate, Candidates};

/// Where the first record of a shared segment can begin, in bytes.
pub const FIRST_RECORD_OFFSET: u64 = format::FILE_HEADER_LEN;

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
    /// Which reads of large content are checked.
    pub verify_reads: VerifyReads,
}

/// How a record is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Without waiting: what is not in memory ends in [`SegmentError::OutOfReach`].
    AtOnce,
    /// By what is known of it, and by the disk.
    Usual,
    /// By what is on the disk alone: nothing counts that was read of the record before, nor does anybody else learn of it.
    Anew,
}

impl Look {
    /// How far it goes.
    pub fn reach(self) -> Reach {
        if self == Self::AtOnce { Reach::Memory } else { Reach::Disk }
    }
}

/// Which reads of large content are checked against its checksums. That of small records, and that by background work, always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyReads {
    /// The first one of each block since the store was opened; from then on the kernel may send it from its memory.
    #[default]
    First,
    /// All of them.
    Always,
}

impl VerifyReads {
    /// How settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Always => "always",
        }
    }

    /// By its name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::First, Self::Always].into_iter().find(|reads| reads.name() == name)
    }
}

impl SegmentOptions {
    /// 256 MiB per shared segment, 512 open files, 64 MiB in reserve.
    pub fn new(store_id: [u8; 16]) -> Self {
        let (shared_bytes_max, reserve_bytes) = (256 << 20, 64 << 20);
        Self { store_id, shared_bytes_max, open_files_max: 512, reserve_bytes, verify_reads: VerifyReads::First }
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
    /// They stay where they are.
    Leave,
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

/// How much of the disk a segment takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentUsage {
    /// Length of its file in bytes, erased ranges included.
    pub len: u64,
    /// Bytes of the blocks that it takes, as `du` counts them.
    pub allocated_bytes: u64,
    /// When the file was created, in Unix milliseconds, where the file system knows it.
    pub created_ms: Option<u64>,
}

/// What became of a segment that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its name is durably gone, and its blocks are free.
    Freed,
    /// Its name is durably gone. Its blocks are freed when the last reader is done.
    StillRead,
    /// It takes appends, or has some that are not all done and synced: nothing was changed.
    TakesAppends,
}

/// The segments of one store. All calls may be made by many threads at once.
#[derive(Debug)]
pub struct Segments {
    files: Arc<files::Files>,
    shared: append::SharedWriter,
    eraser: erase::Eraser,
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
        Ok((Self { files, shared, eraser: erase::Eraser::default() }, recovered.report))
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

    /// Lets a shared segment take no more appends, so that it is sealed before it is full.
    pub fn retire(&self, number: SegmentNumber) {
        self.shared.retire(number);
    }

    /// Reads a segment's header again. One that is damaged takes no more appends, and what lies in it is told as damaged by the
    /// next read, as it would be after a restart.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`], [`SegmentError::Version`], [`SegmentError::Missing`], [`SegmentError::Io`].
    pub fn check_header(&self, number: SegmentNumber) -> Result<(), SegmentError> {
        self.files.check_header(number).inspect_err(|_| self.shared.retire(number))
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

    /// Enters an epoch: to be held from before a place is looked up until [`reader`](Self::reader) has returned. What is
    /// found in it can be opened, however soon it is dropped; its segment may be gone, if it was moved or removed.
    pub fn enter(&self) -> Epoch<'_> {
        self.files.readers.enter()
    }

    /// Opens the record at a place, which must hold the content `digest` of `payload_len` bytes. Looked up outside of an
    /// [`Epoch`], it may have been erased since: then it reads as damaged, and its place has to be looked up again.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] when it does not, [`SegmentError::Missing`], [`SegmentError::Version`],
    /// [`SegmentError::Io`].
    pub fn reader(&self, location: Location, digest: &Digest, payload_len: u64) -> Result<RecordReader, SegmentError> {
        self.reader_by(Look::Usual, location, digest, payload_len)
    }

    /// The same, looked at in one of the ways.
    ///
    /// # Errors
    /// As [`reader`](Self::reader), and [`SegmentError::OutOfReach`].
    pub fn reader_by(
        &self,
        look: Look,
        location: Location,
        digest: &Digest,
        payload_len: u64,
    ) -> Result<RecordReader, SegmentError> {
        RecordReader::open(&self.files, location, digest, payload_len, look)
    }

    /// Damage was found in a copy of some content: every block of it is checked again before it is sent.
    pub fn distrust(&self, digest: &Digest) {
        self.files.known.distrust(digest);
    }

    /// Reads a whole record and checks every byte of it, and those before it that are its segment's: headers, blocks, padding.
    /// It does not compute the digest.
    ///
    /// # Errors
    /// As [`reader`](Self::reader) and [`RecordReader::read`].
    pub fn verify_record(&self, location: Location, digest: &Digest, payload_len: u64) -> Result<(), SegmentError> {
        self.files.check_header(location.segment).map_err(|error| error.for_content(digest))?;
        self.reader_by(Look::Anew, location, digest, payload_len)?.verify()
    }

    /// Zeroes dead records of one segment, durably, and gives their blocks back; those that are still read after `patience`
    /// are left, and returned. That they are dead must be durable, and in the index, before this is called. Records around
    /// them, and appends to the segment, go on. It may be called again for what is erased or half erased. Called inside of
    /// an [`Epoch`] it waits for itself, in vain. A segment with one record, from which the kernel sends, is left as well: it
    /// has to be [removed](Self::remove_dead).
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] when no record lies at a place, or one of another length: then nothing is erased.
    /// [`SegmentError::Missing`], [`SegmentError::Version`], [`SegmentError::Full`], [`SegmentError::Io`]: any of them may
    /// be erased. [`SegmentError::Poisoned`], now and from then on, when the sync fails.
    pub fn erase(
        &self,
        number: SegmentNumber,
        records: &[DeadRecord],
        patience: Duration,
    ) -> Result<Vec<DeadRecord>, SegmentError> {
        self.eraser.erase(&self.files, &self.shared, number, records, patience)
    }

    /// Removes the file of a segment in which nothing is live, durably, and waits up to `patience` for its readers, who read
    /// on. The journal must have said before that it goes: a listed segment without a file is damage. One that has no file
    /// any more counts as removed.
    ///
    /// # Errors
    /// [`SegmentError::Io`]; [`SegmentError::Poisoned`], now and from then on, when the sync of its directory fails.
    pub fn remove_dead(&self, number: SegmentNumber, patience: Duration) -> Result<Removal, SegmentError> {
        self.files.poison.check()?;
        if self.shared.takes_appends(number) {
            return Ok(Removal::TakesAppends);
        }
        match self.files.remove(number) {
            Ok(()) | Err(SegmentError::Missing { .. }) => self.files.sync_dir(&format::directory_of(number))?,
            Err(error) => return Err(error),
        }
        let is_unread = || !self.files.readers.is_segment_pinned(number);
        Ok(if readers::wait_until(patience, is_unread) { Removal::Freed } else { Removal::StillRead })
    }

    /// Walks through a segment to find its records.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`], [`SegmentError::Missing`], [`SegmentError::Version`], [`SegmentError::Io`].
    pub fn candidates(&self, number: SegmentNumber) -> Result<Candidates, SegmentError> {
        Candidates::open(&self.files, number)
    }

    /// Walks through any file of the disk as if it were a segment, whatever its header says.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn candidates_in(&self, path: &str) -> Result<Candidates, SegmentError> {
        let file = self.files.disk.open(path).map_err(|error| SegmentError::io("open", path, error))?;
        Candidates::of(files::SegmentFile { number: SegmentNumber(0), kind: SegmentKind::Shared, file })
    }

    /// The shared segment that takes appends.
    pub fn active(&self) -> Option<SegmentNumber> {
        self.shared.active()
    }

    /// Appends a copy of a record to a shared segment; its content is in memory meanwhile. Its checksums and its digest are
    /// checked, so that no damage gets good checksums. As with [`append`](Self::append) a [`sync`](Self::sync) makes it
    /// durable. When the index comes to name another place instead, the copy is dead and has to be erased.
    ///
    /// # Errors
    /// As [`append`](Self::append) and [`reader`](Self::reader); nothing is written of what does not hold. Damage is proven
    /// only if the index still names the place afterwards.
    pub fn copy(&self, record: &Candidate) -> Result<Appended, SegmentError> {
        let Candidate { location, kind, digest, payload_len, .. } = *record;
        let reader = self.reader_by(Look::Anew, location, &digest, payload_len)?;
        let payload = reader.read(0, usize::try_from(payload_len).unwrap_or(usize::MAX))?;
        let found = Digest::of(digest.algorithm(), &payload);
        if found != digest {
            let fault = error::Fault::new(location.offset, "the digest of the content", digest, found);
            return Err(fault.of(location.segment, Some(digest)));
        }
        self.append(kind, &digest, &payload)
    }

    /// How much of the disk a segment takes. Its header is not checked.
    ///
    /// # Errors
    /// [`SegmentError::Missing`], [`SegmentError::Io`].
    pub fn usage(&self, number: SegmentNumber) -> Result<SegmentUsage, SegmentError> {
        self.files.usage(number)
    }

    /// Removes the file of a segment that nothing ever named and that nobody writes to. The removal is not durable; a file that comes back after a crash is not listed.
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
