//! Why a store could not be opened, and why a call was not done: absent, a caller's mistake, damaged, full, failed and
//! stopped are different things.

use std::sync::Arc;

use crate::{
    digest::Digest,
    disk,
    index::{IndexError, schema::SchemaError},
    journal::{self, JournalError},
    segment::SegmentError,
    state::request::Refusal,
};

/// Why a store could not be opened. Each says what to do where something can be done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another orlop process; stop that one, or name another directory")]
    InUse(String),
    /// Not an orlop data directory.
    #[error("{directory}: {problem}")]
    Format {
        /// The directory.
        directory: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The answer.
        source: Arc<std::io::Error>,
    },
    /// The journal cannot be read; nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal is damaged in its middle, and neither index nor snapshot holds the state behind that; nothing was changed.
    #[error(
        "{damage}; the history up to {after} is sound, and {went_on}. No index or snapshot holds the state behind the \
         damage. Put a sound copy of the file back; or give up all that came after with \
         `orlop rebuild-index --data DIR --lose-after {lsn}`",
        lsn = .after.lsn
    )]
    DamagedJournal {
        /// What is wrong.
        damage: JournalError,
        /// The last records that are sound.
        after: journal::Position,
        /// What is known of what follows.
        went_on: String,
    },
    /// History was to be given up that begins elsewhere, or is not damaged at all; nothing was changed.
    #[error("{0}")]
    NotToGiveUp(String),
    /// The journal has a record that cannot be decoded.
    #[error("the journal has a record after {after} that this version of orlop cannot read: {source}")]
    Record {
        /// The last record before it.
        after: journal::Position,
        /// What is wrong with it.
        source: crate::codec::DecodeError,
    },
    /// The index could not be opened, nor built anew.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// There is nothing to build the index from.
    #[error(
        "the index has to be built, but no snapshot in journal/ is sound and the journal before them is gone; put a sound copy of {snapshot} or of index/ back"
    )]
    NoBase {
        /// The newest snapshot.
        snapshot: String,
    },
    /// The segments could not be opened.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl OpenError {
    /// The file and the offset there that are damaged, where damage of the journal or of all snapshots keeps the store from
    /// being opened; `None` for other reasons.
    pub fn damage(&self) -> Option<(Option<String>, Option<u64>)> {
        let error = match self {
            Self::DamagedJournal { damage, .. } => damage,
            Self::Journal(error) if error.is_rot() => error,
            Self::NoBase { snapshot } => return Some((Some(snapshot.clone()), None)),
            _ => return None,
        };
        let (file, offset) = error.place();
        Some((file.map(str::to_owned), offset))
    }

    pub(super) fn io(action: String, source: std::io::Error) -> Self {
        Self::Io { action, source: Arc::new(source) }
    }
}

impl From<IndexError> for OpenError {
    fn from(error: IndexError) -> Self {
        Self::Schema(error.into())
    }
}

/// Why a call was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The request is refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk is full, or only its reserve is left; nothing was changed.
    #[error("{0}")]
    Full(String),
    /// The store takes no writes: poisoned, closing, or its index stopped. A request that was under way may have been
    /// done or not.
    #[error("{0}")]
    Unavailable(String),
    /// The store takes no writes for the moment; nothing was changed.
    #[error("{0}")]
    Stopped(String),
    /// Too many requests wait; nothing was changed.
    #[error("too many requests wait for the committer; try again soon")]
    Overloaded,
    /// The bytes have another digest than was announced.
    #[error("the content has digest {found}, not {expected}")]
    DigestMismatch {
        /// As announced.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// Stored bytes are not what was written.
    #[error("{0}")]
    Corrupt(String),
    /// The disk does not give stored bytes back.
    #[error("{0}")]
    Unreadable(String),
    /// A read that must not wait would have to go to the disk.
    #[error("that is not in memory; read it from the disk")]
    OutOfReach,
    /// Anything else that failed below. It can pass.
    #[error("{0}")]
    Failed(String),
}

impl From<SegmentError> for StoreError {
    fn from(error: SegmentError) -> Self {
        let text = error.to_string();
        match error {
            SegmentError::Full { .. } => Self::Full(text),
            SegmentError::Poisoned { .. } => Self::Unavailable(text),
            SegmentError::Corrupt(_) | SegmentError::Missing { .. } | SegmentError::Version { .. } => {
                Self::Corrupt(text)
            }
            SegmentError::Io { action: "read", source, .. } if disk::is_unreadable(&source) => Self::Unreadable(text),
            SegmentError::OutOfReach => Self::OutOfReach,
            SegmentError::Io { .. } => Self::Failed(text),
        }
    }
}

impl From<SchemaError> for StoreError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Index(IndexError::OutOfReach) => Self::OutOfReach,
            SchemaError::Index(IndexError::Failed(_)) => Self::Failed(error.to_string()),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> Self {
        SchemaError::from(error).into()
    }
}
