//! What an index is built from: the newest sound snapshot and the journal behind it, or the journal from its origin.
//!
//! All of it is read before anything is destroyed for it: a snapshot to its hash, the journal to its end. Nothing is
//! bridged: a snapshot that the journal does not go on from is passed over, except one beyond the journal's end, which
//! proves that the journal has lost acknowledged history, and holds it.

use crate::{
    disk::Disk,
    index::{Index, schema::Applied},
    journal::{
        self, JournalError, JournalOptions, Mark, Position, ReadJournal,
        snapshot::{self, Part, SnapshotFile, SnapshotHeader, SnapshotReader},
    },
    state::facts::Loader,
};

use super::{OpenError, Recovery};

/// Where building begins, and the journal as it was read from there.
pub(super) struct Base {
    /// `None` for the origin.
    snapshot: Option<SnapshotFile>,
    read: ReadJournal,
    /// What is wrong with the journal before the snapshot, in files that hold what follows it, too.
    pub(super) damage: Option<JournalError>,
    /// Records between the journal's end and a snapshot beyond it.
    pub(super) lost_records: u64,
}

/// Finds the base.
///
/// # Errors
/// When there is none; when a file is of an unknown version or another store; when the journal is damaged or unreadable.
pub(super) fn find(disk: &dyn Disk, options: &JournalOptions) -> Result<Base, OpenError> {
    let snapshots = snapshot::list(disk)?;
    let newest = snapshots.first().map(|snapshot| snapshot.path.clone());
    for snapshot in snapshots {
        let Some(header) = sound(disk, options, &snapshot)? else { continue };
        match journal::read(disk, options, header.mark, |_| Ok::<_, JournalError>(())) {
            Ok(read) => return Ok(Base { snapshot: Some(snapshot), read, damage: None, lost_records: 0 }),
            Err(JournalError::NotInHistory { .. }) => {}
            // Damage that lies before the snapshot is in nobody's way.
            Err(error) if error.is_damage() => {
                let read = journal::read_after(disk, options, header.mark, |_| Ok::<_, JournalError>(()));
                let read = read.map_err(|_| error.clone())?;
                return Ok(Base { snapshot: Some(snapshot), read, damage: Some(error), lost_records: 0 });
            }
            Err(error) => return Err(error.into()),
        }
        let read = journal::read_end(disk, options)?;
        let end = read.end().position;
        if end < header.mark.position {
            tracing::error!(
                snapshot.file = snapshot.path,
                journal = %end,
                "the journal ends before this snapshot: its end is damaged or an older copy was put back; going on from \
                 the snapshot"
            );
            let lost_records = end.records_until(header.mark.position);
            return Ok(Base {
                snapshot: Some(snapshot),
                read: read.resume_at(header.mark),
                damage: None,
                lost_records,
            });
        }
        tracing::error!(
            snapshot.file = snapshot.path,
            "the journal does not go on from this snapshot; falling back to what is older"
        );
    }
    match (journal::read(disk, options, Mark::ORIGIN, |_| Ok::<_, JournalError>(())), newest) {
        (Ok(read), _) => Ok(Base { snapshot: None, read, damage: None, lost_records: 0 }),
        (Err(JournalError::NotInHistory { .. }), Some(snapshot)) => Err(OpenError::NoBase { snapshot }),
        (Err(error), _) => Err(error.into()),
    }
}

/// Whether a sound snapshot stands beyond the end of the journal.
pub(super) fn is_beyond(disk: &dyn Disk, options: &JournalOptions, end: Position) -> Result<bool, OpenError> {
    for snapshot in snapshot::list(disk)?.into_iter().take_while(|snapshot| snapshot.position > end) {
        if sound(disk, options, &snapshot)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads a snapshot to its end. One that is damaged or cannot be read is named in the log.
pub(super) fn sound(
    disk: &dyn Disk,
    options: &JournalOptions,
    snapshot: &SnapshotFile,
) -> Result<Option<SnapshotHeader>, OpenError> {
    match SnapshotReader::prove(disk, options.store_id, snapshot) {
        Ok((header, _)) => Ok(Some(header)),
        Err(error @ (JournalError::BadSnapshot { .. } | JournalError::Io { .. })) => {
            tracing::error!(%error, "a snapshot of the journal is of no use; falling back to what is older");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl Base {
    /// Where the history ends: the journal's end, or a snapshot beyond it.
    pub(super) fn end(&self) -> Position {
        self.read.end().position
    }

    /// Loads the snapshot into an index without rows; `empty` is what stands at the origin.
    ///
    /// # Errors
    /// When the index fails, or the snapshot has changed since it was read.
    pub(super) fn load(
        &self,
        disk: &dyn Disk,
        index: &dyn Index,
        empty: Applied,
        recovery: &mut Recovery,
    ) -> Result<Applied, OpenError> {
        let Some(snapshot) = &self.snapshot else { return Ok(empty) };
        load(disk, index, snapshot, empty, recovery)
    }

    /// The journal to go on with, when no batch of it follows the base.
    pub(super) fn into_journal_beyond_its_end(self) -> Option<ReadJournal> {
        (self.lost_records > 0).then_some(self.read)
    }
}

/// Loads a snapshot into an index without rows.
///
/// # Errors
/// As [`Base::load`].
pub(super) fn load(
    disk: &dyn Disk,
    index: &dyn Index,
    snapshot: &SnapshotFile,
    empty: Applied,
    recovery: &mut Recovery,
) -> Result<Applied, OpenError> {
    let mut reader = SnapshotReader::open(disk, empty.store, snapshot)?;
    let mut loader = Loader::new(index, empty.store, reader.header());
    recovery.snapshot = Some(snapshot.path.clone());
    loop {
        match reader.next_part()? {
            Part::Page(page) => {
                page.each(|fact| {
                    recovery.loaded_facts += 1;
                    loader.load(fact).map_err(OpenError::from)
                })?;
                loader.write()?;
            }
            Part::End(_) => return Ok(loader.finish()?),
        }
    }
}
