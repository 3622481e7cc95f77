//! What is known of the store's files without reading them, for who asks whether all is well.

use crate::{
    index::schema::INDEX_VERSION,
    journal::{
        self, JournalError, Position, fact, operation,
        snapshot::{self, SnapshotFile},
    },
    segment,
};

use super::{Store, StoreError, format, reserve};

/// Blocks that are kept for a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// How much is to be set aside, in bytes; 0 for nothing.
    pub wanted_bytes: u64,
    /// How much is, by the blocks that the file takes; `None` when there is no file.
    pub kept_bytes: Option<u64>,
}

/// From what the state could be built again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Lengths in bytes of the snapshots, the newest first.
    pub snapshots: Vec<u64>,
    /// Bytes of the journal behind the newest snapshot, or of all of it; about.
    pub bytes_after: u64,
    /// How many of these make the next snapshot due.
    pub snapshot_due_bytes: u64,
    /// Bytes of the journal that a start would replay into the index that is there.
    pub unflushed_bytes: u64,
}

/// What lies in `lost/`: what an open found that nothing names, and could not prove to be worthless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files and directories in it.
    pub entries: u64,
    /// Bytes of the disk that the files in it take; those of directories in it are not counted.
    pub bytes: u64,
}

/// What is written: formats and their versions, as FORMAT.md tells them.
pub fn formats() -> [(&'static str, String); 7] {
    [
        ("directory", format::VERSION.to_owned()),
        ("journal", journal::VERSION.to_string()),
        ("snapshots", snapshot::VERSION.to_string()),
        ("segments", segment::VERSION.to_string()),
        ("operations", operation::VERSION.to_string()),
        ("facts", fact::VERSION.to_string()),
        ("index", INDEX_VERSION.to_string()),
    ]
}

impl Store {
    /// The blocks that are kept for a full disk.
    ///
    /// # Errors
    /// When the data directory cannot be listed.
    pub fn reserve(&self) -> Result<Reserve, StoreError> {
        let entries = self
            .disk()
            .list("")
            .map_err(|error| StoreError::Failed(format!("cannot list the data directory: {error}")))?;
        let kept = entries.into_iter().find(|entry| entry.name == reserve::PATH);
        let wanted_bytes = reserve::wanted(self.options());
        Ok(Reserve { wanted_bytes, kept_bytes: kept.map(|entry| entry.allocated_bytes) })
    }

    /// What lies in `lost/`.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn lost(&self) -> Result<Lost, StoreError> {
        let entries = match self.disk().list(journal::LOST_DIRECTORY) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Lost::default()),
            entries => entries.map_err(|error| StoreError::Failed(format!("cannot list lost/: {error}")))?,
        };
        let bytes = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.allocated_bytes));
        Ok(Lost { entries: entries.len() as u64, bytes })
    }

    /// From what the state could be built again.
    ///
    /// # Errors
    /// When the journal's directory cannot be listed.
    pub fn history(&self) -> Result<History, StoreError> {
        let failed = |error: JournalError| StoreError::Failed(error.to_string());
        let snapshots = snapshot::list(self.disk()).map_err(failed)?;
        let newest = snapshots.first().map_or(Position::default(), |newest: &SnapshotFile| newest.position);
        Ok(History {
            bytes_after: snapshot::journal_bytes_after(self.disk(), newest).map_err(failed)?,
            snapshots: snapshots.into_iter().map(|snapshot| snapshot.len).collect(),
            snapshot_due_bytes: self.shared.growth.due_bytes(),
            unflushed_bytes: self.unflushed_bytes(),
        })
    }
}
