//! Checked bytes of a record on their way out: in memory, or in a file that the kernel sends from.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::FileRange;

use super::readers::Pin;

/// Checked bytes of a record.
#[derive(Debug, Clone)]
pub enum Piece {
    /// They are in memory.
    Bytes(Bytes),
    /// They are in a file.
    File(FilePiece),
}

/// A range of a segment's file whose blocks have been checked since the store was opened. Its record is not erased while any
/// clone of it lives.
///
/// Dropped in this order: where there is no pin any more, the file is not held open either.
#[derive(Debug, Clone)]
pub struct FilePiece {
    range: FileRange,
    _pin: Arc<Pin>,
}

impl FilePiece {
    pub(super) fn new(range: FileRange, pin: Arc<Pin>) -> Self {
        Self { range, _pin: pin }
    }

    /// The range, to be sent while this lives.
    pub fn range(&self) -> &FileRange {
        &self.range
    }
}

impl AsRef<[u8]> for FilePiece {
    fn as_ref(&self) -> &[u8] {
        self.range.as_ref()
    }
}
