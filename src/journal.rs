//! The journal: the append-only history of the store, as batches of records in files.
//!
//! It knows records as a class and bytes; what they mean is told by `operation`. It never decides, never applies, and
//! deletes no file of its history but those that two snapshots stand for. `read` looks at the files and changes nothing;
//! `Journal::start` makes what was read durable once more and goes on from there.
//!
//! Invariants:
//! - A batch is there in whole or not at all, and proves by its chain that all before it is what was written.
//! - A batch is written only after the one before it was synced; nothing is written after a sync that failed.
//! - Every file but the last was synced to its end before its successor got its name.
//! - Only the end of the last file may be torn; anything else that does not fit is an error that names its place.
//! - The history may begin where a snapshot stands instead of at its origin; behind that it has no hole.
//!
//! The bytes are told in FORMAT.md.

use std::{fmt, io, sync::Arc};

use data_encoding::HEXLOWER;

use crate::codec::DecodeError;

mod check;
mod damage;
pub mod fact;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod operation;
mod reader;
mod recovery;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{Checked, check};
pub use damage::{LOST_DIRECTORY, Survey, move_to_lost, read_after, survey};
pub use format::{BODY_BYTES_MAX, Batch, VERSION};
pub use recovery::{ReadJournal, read, read_end};
pub use writer::Journal;

/// The directory of the journal's files, below the disk's root.
pub const DIRECTORY: &str = "journal";

/// What a journal is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// The store that the journal belongs to; another one's files are refused.
    pub store_id: [u8; 16],
    /// Length in bytes at which a file is ended and the next begun. Only a file of one batch can be longer.
    pub file_bytes_max: u64,
    /// Step in bytes by which blocks are reserved ahead of writes.
    pub allocate_bytes: u64,
}

impl JournalOptions {
    /// Files of 64 MiB, reserved in steps of 4 MiB.
    pub fn new(store_id: [u8; 16]) -> Self {
        Self { store_id, file_bytes_max: 64 << 20, allocate_bytes: 4 << 20 }
    }
}

/// How far a history has come: the numbers of its last logical and its last local record, 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// LSN of the last logical record.
    pub lsn: u64,
    /// Number of the last local record.
    pub local: u64,
}

impl Position {
    /// The position after so many more records; `None` when a number would not fit.
    pub(crate) fn advance(self, logical: u32, local: u32) -> Option<Self> {
        Some(Self { lsn: self.lsn.checked_add(logical.into())?, local: self.local.checked_add(local.into())? })
    }
}

impl Position {
    /// How many records of both classes lie between this point and a later one.
    pub fn records_until(self, later: Self) -> u64 {
        later.lsn.saturating_sub(self.lsn).saturating_add(later.local.saturating_sub(self.local))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {} local {}", self.lsn, self.local)
    }
}

/// A hash over a store's whole history up to some batch. Equal chains mean equal histories.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain(pub [u8; 16]);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({self})")
    }
}

/// A point in a history, between two batches: how far, and by which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The last records before the point.
    pub position: Position,
    /// The chain after them.
    pub chain: Chain,
}

impl Mark {
    /// Where every history begins.
    pub const ORIGIN: Self = Self { position: Position { lsn: 0, local: 0 }, chain: Chain([0; 16]) };
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} chain {}", self.position, self.chain)
    }
}

/// Which sequence of numbers a record takes its own from. The number is its code in batches (FORMAT.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordClass {
    /// An operation that means the same on any machine; takes an LSN.
    Logical = 1,
    /// A fact about this machine's files; takes a local number.
    Local = 2,
}

/// A record as the journal sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its class.
    pub class: RecordClass,
    /// Its bytes, opaque here.
    pub payload: Vec<u8>,
}

/// What an append made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the batch's last records.
    pub last: Position,
    /// The chain after the batch.
    pub chain: Chain,
    /// Bytes that the journal grew by.
    pub bytes: u64,
}

/// Why the journal could not be read or written. Files are named by their paths below the disk's root.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The disk is full. Nothing was written: the batch is refused, and the journal takes the next one.
    #[error("no space is left for {file}")]
    Full {
        /// The file that could not grow.
        file: String,
    },
    /// A batch that no file could hold. Nothing was written.
    #[error("a batch of {records} records and {bytes} bytes does not fit into the journal; it takes {bytes_max} bytes")]
    BatchTooLarge {
        /// Records in the batch.
        records: usize,
        /// Bytes of their encoding.
        bytes: u64,
        /// What a batch may have.
        bytes_max: u64,
    },
    /// A write or sync failed, now or before. What it was to write may or may not be on the disk; it was not
    /// acknowledged. The journal takes no batch any more until it is opened again.
    #[error("the journal takes no more writes: {cause}; restart orlop once the disk is sound")]
    Poisoned {
        /// What failed first.
        cause: Arc<JournalError>,
    },
    /// The disk failed.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// The file or directory.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// Bytes in the middle of the history are not what was written, so this is no torn end.
    #[error("{file} is damaged at offset {offset}, but the history went on {}", next_valid(*.next_valid_offset))]
    Damaged {
        /// The file.
        file: String,
        /// Where the batch begins that is damaged.
        offset: u64,
        /// Where a later valid batch begins in the same file; `None` when a later file, or what was read there before,
        /// proves that the history went on.
        next_valid_offset: Option<u64>,
    },
    /// A batch whose bytes are as they were written, but which this version cannot decode.
    #[error("{file} has a batch at offset {offset} that this version cannot read: {source}")]
    Malformed {
        /// The file.
        file: String,
        /// Where the batch begins.
        offset: u64,
        /// What is wrong in it.
        source: DecodeError,
    },
    /// A file without a sound header, or under a name that is not its own.
    #[error("{file} is no sound journal file: {problem}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A snapshot that is not what was written, or not all of it.
    #[error("{file} is no sound snapshot: {problem} (offset {offset})")]
    BadSnapshot {
        /// The file.
        file: String,
        /// Where that was found.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file of a format that this version does not know.
    #[error("{file} has format version {found}; this version of orlop reads version {known}")]
    UnknownVersion {
        /// The file.
        file: String,
        /// The version that it states.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// A file of another store.
    #[error("{file} belongs to store {}, not to {}", HEXLOWER.encode(.found), HEXLOWER.encode(.expected))]
    ForeignStore {
        /// The file.
        file: String,
        /// This store.
        expected: [u8; 16],
        /// The store that the file names.
        found: [u8; 16],
    },
    /// A whole file is missing.
    #[error("{file} has number {found}, but number {expected} must come first: a journal file is missing")]
    FileMissing {
        /// The file after the one that is missing.
        file: String,
        /// The number that comes next.
        expected: u64,
        /// The number that was found.
        found: u64,
    },
    /// A file does not begin where the one before it ends.
    #[error("{file} begins at {found}, but the history before it ends at {expected}")]
    Gap {
        /// The file.
        file: String,
        /// Where the history stands before it.
        expected: Mark,
        /// Where the file begins.
        found: Mark,
    },
    /// The point to read from is not between two batches of the history that is there: whatever state stands there is older
    /// than the journal's first file, or came about in another way, and has to be rebuilt from a snapshot or from
    /// [`Mark::ORIGIN`].
    #[error("the journal has no point {mark} in its history")]
    NotInHistory {
        /// The point.
        mark: Mark,
    },
}

impl JournalError {
    /// The file that it is about, as far as it is about one, and the offset there.
    pub fn place(&self) -> (Option<&str>, Option<u64>) {
        match self {
            Self::Damaged { file, offset, .. }
            | Self::Malformed { file, offset, .. }
            | Self::BadSnapshot { file, offset, .. } => (Some(file), Some(*offset)),
            Self::Full { file }
            | Self::Io { file, .. }
            | Self::BadFile { file, .. }
            | Self::UnknownVersion { file, .. }
            | Self::ForeignStore { file, .. }
            | Self::FileMissing { file, .. }
            | Self::Gap { file, .. } => (Some(file), None),
            Self::BatchTooLarge { .. } | Self::Poisoned { .. } | Self::NotInHistory { .. } => (None, None),
        }
    }

    /// Whether bytes on the disk are not what was written: of the history, or of a snapshot of it. Not so where a file
    /// could not be read.
    pub fn is_rot(&self) -> bool {
        self.is_damage() || matches!(self, Self::BadSnapshot { .. })
    }

    /// Whether a file could not be read for a reason that can pass.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if !crate::disk::is_unreadable(source))
    }

    fn io(file: &str, action: &'static str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), action, source: Arc::new(source) }
    }

    /// An error of a call that reserves space, before anything counts as written.
    fn io_or_full(file: &str, action: &'static str, source: io::Error) -> Self {
        if crate::disk::is_full(&source) {
            Self::Full { file: file.to_owned() }
        } else {
            Self::io(file, action, source)
        }
    }
}

fn next_valid(offset: Option<u64>) -> String {
    match offset {
        Some(offset) => format!("at offset {offset}"),
        None => "after it".to_owned(),
    }
}
