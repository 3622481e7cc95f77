//! A journal that is damaged in its middle: what is served then, how writes come back, and what can be given up.
//!
//! Nothing of this happens by itself. Where an index, or a snapshot, holds the state behind the damage, and sound batches
//! lead from there to the journal's end, no acknowledged change is lost: the store serves reads, and takes no writes until
//! [`Store::repair`] has written the state down. Where nothing does, the store is not opened; [`give_up`] opens it without
//! what came after the damage, for somebody who has named the place.
//!
//! Invariant: what is damaged is not removed before a snapshot that makes it superfluous was read again to its hash. What
//! is given up goes to `lost/`.

use std::sync::PoisonError;

use crate::{
    digest::Digest,
    disk::Disk,
    index::{
        Index,
        schema::{self, Applied, key},
    },
    journal::{
        self, Checked, Journal, JournalError, JournalOptions, Mark, Position, ReadJournal, Survey,
        operation::LocalRecord,
        snapshot::{self, SnapshotFile},
    },
    state::{facts::mark, request::Request},
    sync::{MutexGuard, atomic::Ordering},
};

use super::{
    OpenError, OpenIndex, Recovery, Shared, SnapshotReport, Store, StoreError, base,
    open::{self, IndexStart, Stand},
    snapshot::{Wanted, write},
};

/// History that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// What was wrong with the journal.
    pub damage: String,
    /// The last records that are left.
    pub after: Position,
    /// How far sound batches behind the damage show that the history went on, when there are any.
    pub went_on_to: Option<Position>,
}

/// Why a store with such a journal takes no writes.
pub(super) fn reason(damage: &JournalError) -> String {
    format!(
        "the journal is damaged, so the store takes no writes: {damage}. Nothing is lost: the index holds the state behind \
         the damage, and reads go on. Stop orlop and run `orlop repair --data DIR`, which writes that state down as a \
         snapshot, so that the damaged part is not needed any more"
    )
}

/// A refusal with the place, and the ways out.
pub(super) fn refused(disk: &dyn Disk, options: &JournalOptions, error: JournalError) -> OpenError {
    let survey = newest_sound(disk, options)
        .and_then(|base| Ok(journal::survey(disk, options, base.map_or(Mark::ORIGIN, |(_, mark)| mark), &mut drop)?));
    match survey {
        Ok(Survey { damage: Some(damage), sound, went_on_to, .. }) => {
            OpenError::DamagedJournal { damage, after: sound.position, went_on: went_on(went_on_to) }
        }
        _ => error.into(),
    }
}

fn went_on(to: Option<Position>) -> String {
    to.map_or_else(|| "nothing sound follows it".to_owned(), |to| format!("the history went on to {to} at least"))
}

fn newest_sound(disk: &dyn Disk, options: &JournalOptions) -> Result<Option<(SnapshotFile, Mark)>, OpenError> {
    for snapshot in snapshot::list(disk)? {
        if let Some(header) = base::sound(disk, options, &snapshot)? {
            return Ok(Some((snapshot, header.mark)));
        }
    }
    Ok(None)
}

/// Builds the index from the history up to its first damage, which must come right after `lsn`. The caller cuts the
/// journal there as its last step.
///
/// # Errors
/// `NotToGiveUp` where the journal is sound, or the damage is elsewhere; else as any open. Nothing is destroyed then.
pub(super) fn give_up(
    disk: &dyn Disk,
    options: &JournalOptions,
    open_index: OpenIndex<'_>,
    lsn: u64,
    recovery: &mut Recovery,
) -> Result<(Box<dyn Index>, Applied, Survey), OpenError> {
    let base = newest_sound(disk, options)?;
    let from = base.as_ref().map_or(Mark::ORIGIN, |(_, mark)| *mark);
    let survey = journal::survey(disk, options, from, &mut drop)?;
    let (sound, went_on_to) = (survey.sound.position, survey.went_on_to);
    let Some(damage) = survey.damage.as_ref().map(ToString::to_string) else {
        let text = "the journal is sound, so there is nothing to give up; leave out --lose-after";
        return Err(OpenError::NotToGiveUp(text.to_owned()));
    };
    if sound.lsn != lsn {
        return Err(OpenError::NotToGiveUp(format!(
            "the journal is sound up to {sound}, and not up to LSN {lsn}: {damage}; say --lose-after {} to give up what came \
             after that",
            sound.lsn
        )));
    }
    let stood = match open::stand(open_index, &open::empty(options))? {
        Stand::Of(_, applied) => mark(&applied).position,
        Stand::Nowhere { .. } => Position::default(),
    };
    open::keep_if_ahead(disk, stood, sound)?;
    tracing::error!(damage, journal = %sound, went_on_to = ?went_on_to, "giving up what the journal had behind its damage");
    let index = open_index(IndexStart::Empty)?;
    let empty = open::empty(options);
    let applied = match &base {
        Some((snapshot, _)) => base::load(disk, &*index, snapshot, empty, recovery)?,
        None => empty,
    };
    let (applied, survey) = open::replay_sound(disk, options, &*index, applied)?;
    if mark(&applied) != survey.sound || survey.sound.position != sound {
        return Err(JournalError::NotInHistory { mark: survey.sound }.into());
    }
    // Damaged ones of a later place would be taken for the newest by their names.
    let newer = snapshot::list(disk)?.into_iter().take_while(|snapshot| snapshot.position > from.position);
    newer.into_iter().try_for_each(|snapshot| journal::move_to_lost(disk, &snapshot.path))?;
    recovery.rebuilt = Some("history was given up".to_owned());
    recovery.lost_records = went_on_to.map_or(1, |to| sound.records_until(to).max(1));
    recovery.given_up = Some(GivenUp { damage, after: sound, went_on_to });
    Ok((index, applied, survey))
}

/// Why a check of the history came to no end.
enum Ended {
    Store(StoreError),
    Journal(JournalError),
}

impl From<JournalError> for Ended {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl Shared {
    /// The journal as it was read, when it is damaged.
    pub(super) fn damaged_journal(&self) -> Option<ReadJournal> {
        self.damaged_lock().clone()
    }

    fn damaged_lock(&self) -> MutexGuard<'_, Option<ReadJournal>> {
        self.damaged_journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Reads all of the history again, snapshots and journal, and tells what is wrong with which file: what two readings
    /// one after the other have found at the same places. `read` is told how many bytes were read, and may wait; it ends
    /// the check by an error.
    ///
    /// # Errors
    /// What `read` returns; when the directory cannot be listed; when each reading finds something else.
    pub fn check_history(
        &self,
        read: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Vec<JournalError>, StoreError> {
        const READINGS_MAX: usize = 5;
        let mut before: Option<Vec<JournalError>> = None;
        for _ in 0..READINGS_MAX {
            let wrong = self.read_history(read)?;
            let places = |wrong: &[JournalError]| -> Vec<String> { wrong.iter().map(ToString::to_string).collect() };
            if wrong.is_empty() || before.as_ref().is_some_and(|before| places(before) == places(&wrong)) {
                return Ok(wrong);
            }
            before = Some(wrong);
        }
        let last = before.iter().flatten().map(ToString::to_string).next().unwrap_or_default();
        Err(StoreError::Failed(format!("the journal reads differently each time; the last time: {last}")))
    }

    fn read_history(
        &self,
        read: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Vec<JournalError>, StoreError> {
        let options = JournalOptions::new(self.shared.store_id);
        let known: Option<Applied> = schema::get(&*self.shared.index, key::applied())?;
        let checked = journal::check(&*self.shared.disk, &options, &mut |bytes| read(bytes).map_err(Ended::Store));
        let Checked { mut wrong, end } = checked.map_err(|ended| match ended {
            Ended::Store(error) => error,
            Ended::Journal(error) => StoreError::Failed(error.to_string()),
        })?;
        // What looks like a torn end is none where the state has come further.
        if let (Some(known), Some((mark_at_end, file, offset))) = (known, end)
            && mark_at_end.position < mark(&known).position
        {
            wrong.push(JournalError::Damaged { file, offset, next_valid_offset: None });
        }
        Ok(wrong)
    }

    /// Reads all files of the index again. `read` is told how many bytes were read; it ends the check by `false`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when one is damaged: the index comes back from the journal at the next start.
    pub fn check_index(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<(), StoreError> {
        Ok(self.shared.index.check(read)?)
    }

    /// Whether the stored copy of some content was found damaged, and not replaced since.
    pub fn is_damaged(&self, digest: &Digest) -> bool {
        self.shared.damaged().contains(digest)
    }

    /// How many digests are remembered as damaged.
    pub fn damaged_count(&self) -> usize {
        self.shared.damaged().len()
    }

    /// Why the store takes no writes since it was opened, although no write has failed.
    pub fn read_only(&self) -> Option<&str> {
        self.recovery.read_only.as_deref()
    }

    /// Writes the state down as a snapshot, and begins the next journal file behind it, so that damaged files of the journal
    /// are not needed any more; then removes them. For who has verified that the index is sound: from then on it is the
    /// only witness of what the damaged files held.
    ///
    /// A store that was opened without writes has them after its next open.
    ///
    /// # Errors
    /// As [`Store::write_snapshot`]; what is damaged stays then.
    pub fn repair(&self, pause: &mut dyn FnMut()) -> Result<Option<SnapshotReport>, StoreError> {
        let mut paused = || {
            pause();
            Ok(())
        };
        let Some(read) = self.shared.damaged_journal() else {
            // The file that is appended to can be the damaged one: the snapshot has to stand behind it.
            self.shared.end_journal_file.store(true, Ordering::Release);
            self.commit(Request::Note(LocalRecord::Erased { records: Vec::new() }))?;
            return Ok(write(&self.shared, Wanted::Anew, &mut paused)?);
        };
        let report = write(&self.shared, Wanted::Anew, &mut paused)?;
        let end = read.end();
        let started = Journal::start(std::sync::Arc::clone(&self.shared.disk), read.resume_at(end));
        started.map_err(|error| StoreError::Failed(error.to_string()))?;
        *self.shared.damaged_lock() = None;
        Ok(report)
    }
}
