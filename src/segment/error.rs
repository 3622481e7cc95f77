//! What can go wrong with segments, and the poison that stops writes after a failed sync.

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

use crate::{digest::Digest, location::SegmentNumber};

/// Why a call on segments was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SegmentError {
    /// Writing would leave less than the reserve, or the disk is full. Reads go on; room can come back.
    #[error("the disk has no room for {needed} bytes: {free} are free, {reserve} are kept in reserve")]
    Full {
        /// Bytes to be written.
        needed: u64,
        /// Bytes free on the disk.
        free: u64,
        /// Bytes that writes here leave free.
        reserve: u64,
    },
    /// A sync failed, so what was written before it may be lost, or the kernel has made the file system read-only: no more
    /// writes until a restart. Reads go on.
    #[error("segments take no writes any more: {cause}; restart orlop when the disk is in order")]
    Poisoned {
        /// The call and what it failed with.
        cause: Arc<str>,
    },
    /// Stored bytes are not what was written.
    #[error(transparent)]
    Corrupt(Box<Damage>),
    /// The segment's file is not there. It may have been removed since its place was looked up; if the place still
    /// holds, this is damage.
    #[error("segment {segment} has no file")]
    Missing {
        /// The segment.
        segment: SegmentNumber,
    },
    /// A version or kind that this program does not know.
    #[error("segment {segment} has {field} {found}, which this version of orlop does not know; a newer one wrote it")]
    Version {
        /// The segment.
        segment: SegmentNumber,
        /// The unknown field: `format version` or `kind`.
        field: &'static str,
        /// Its value.
        found: u32,
    },
    /// A read that must not wait would have to go to the disk.
    #[error("that is not in memory; read it from the disk")]
    OutOfReach,
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory, below the disk's root.
        path: String,
        /// The answer.
        source: Arc<io::Error>,
    },
}

/// Stored bytes that are not what was written: where, and what should have been there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Content that is hit; `None` when it is the segment itself.
    pub digest: Option<Digest>,
    /// The segment.
    pub segment: SegmentNumber,
    /// Offset in the segment of what was checked, in bytes.
    pub offset: u64,
    /// What was checked.
    pub what: &'static str,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, what, expected, found, .. } = self;
        write!(f, "segment {segment} is damaged at offset {offset}: {what} is {found}, not {expected}")?;
        self.digest.map_or(Ok(()), |digest| write!(f, "; it holds {digest}"))
    }
}

impl std::error::Error for Damage {}

impl SegmentError {
    /// Whether the disk is full, or only its reserve is left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the disk has ended all writes.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }

    /// Whether stored bytes were found to be wrong. [`SegmentError::Missing`] is not yet that.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt(_))
    }

    /// The same, told about the content that was to be read.
    pub(super) fn for_content(mut self, digest: &Digest) -> Self {
        if let Self::Corrupt(damage) = &mut self {
            damage.digest.get_or_insert(*digest);
        }
        self
    }

    pub(super) fn io(action: &'static str, path: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source: Arc::new(source) }
    }
}

/// A check that did not hold, before it is known in which segment and for which content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) what: &'static str,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Fault {
    pub(super) fn new(offset: u64, what: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self { offset, what, expected: expected.to_string(), found: found.to_string() }
    }

    pub(super) fn of(self, segment: SegmentNumber, digest: Option<Digest>) -> SegmentError {
        let Self { offset, what, expected, found } = self;
        SegmentError::Corrupt(Box::new(Damage { digest, segment, offset, what, expected, found }))
    }
}

/// Set once, by the first sync that fails, or by the first write to a file system that is read-only.
#[derive(Debug, Default)]
pub(super) struct Poison(OnceLock<Arc<str>>);

impl Poison {
    pub(super) fn check(&self) -> Result<(), SegmentError> {
        match self.0.get() {
            None => Ok(()),
            Some(cause) => Err(SegmentError::Poisoned { cause: cause.clone() }),
        }
    }

    /// The error that the call that failed, and every later write, is answered with.
    pub(super) fn set(&self, action: &str, path: &str, error: &io::Error) -> SegmentError {
        let cause = self.0.get_or_init(|| {
            tracing::error!(action, path, %error, "the disk has failed: no more writes until a restart");
            format!("cannot {action} {path}: {error}").into()
        });
        SegmentError::Poisoned { cause: cause.clone() }
    }
}
