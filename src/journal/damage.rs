//! Histories with damage in the middle: what still follows a point that somebody vouches for, and where the sound part ends.
//!
//! It repairs and decides nothing. An index that holds the state at a point can be read on from there whatever is wrong
//! before it, because the next batch names the point by its chain. Whoever has no such index has the history up to the
//! first damage, and [`Survey`] says what they lose with the rest; [`Survey::cut`] then takes that rest away.
//!
//! Invariants:
//! - A point is found by its chain, in a batch that its own checksum proves; a number alone finds nothing.
//! - Nothing is removed: what is cut goes to `lost/`, and is durable there before its place is used again.

use std::sync::Arc;

use super::{
    Batch, DIRECTORY, Journal, JournalError, JournalOptions, Mark, Position,
    format::{self, FILE_HEADER_LEN, FileHeader},
    reader::FileReader,
    recovery::{Gate, LastFile, OpenFile, ReadJournal, list},
};
use crate::disk::Disk;

const HEADER_END: u64 = FILE_HEADER_LEN as u64;
/// Where goes what is cut off.
/// Where goes what could not be proven worthless.
pub const LOST_DIRECTORY: &str = "lost";
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

impl JournalError {
    /// Whether it says that files of the history are missing or not what was written: no other version, no other store,
    /// no disk that fails.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Malformed { .. }
                | Self::BadFile { .. }
                | Self::FileMissing { .. }
                | Self::Gap { .. }
        )
    }
}

/// Reads on from a point to the journal's end, without a look at what lies before the point.
///
/// What is read can't be gone on with in the same files, which are damaged: [`ReadJournal::resume_at`] its end, when a
/// snapshot stands there.
///
/// # Errors
/// `NotInHistory` when no sound batch begins or ends at the point; else as [`read`](super::read).
pub fn read_after<E: From<JournalError>>(
    disk: &dyn Disk,
    options: &JournalOptions,
    from: Mark,
    mut visit: impl FnMut(Batch) -> Result<(), E>,
) -> Result<ReadJournal, E> {
    let paths = files_from(disk, from.position)?;
    let mut gate = Gate::open_at(from);
    let (mut at, mut next_number) = (from, 1);
    for (index, path) in paths.iter().enumerate() {
        let mut reader = FileReader::open(disk, options.store_id, path)?;
        let header = reader.header();
        let offset = match (index, &header) {
            (0, _) => {
                let found = reader.find_point(&from)?;
                found.ok_or(JournalError::NotInHistory { mark: from })?
            }
            (_, Ok(header)) if header.before == at => HEADER_END,
            (_, Ok(header)) => {
                return Err(JournalError::Gap { file: path.clone(), expected: at, found: header.before }.into());
            }
            (_, Err(error)) => return Err(error.clone().into()),
        };
        next_number = header.map_or(next_number, |header| header.number).saturating_add(1);
        let mut file = OpenFile { reader, is_last: index + 1 == paths.len(), offset, at };
        file.read_to_end(&mut gate, &mut visit)?;
        at = file.at;
    }
    if paths.is_empty() {
        return Err(JournalError::NotInHistory { mark: from }.into());
    }
    Ok(ReadJournal { options: options.clone(), end: at, last_file: None, next_number })
}

/// The journal files from the one on whose name says that it holds the point.
fn files_from(disk: &dyn Disk, from: Position) -> Result<Vec<String>, JournalError> {
    let mut paths = list(disk, format::is_journal_file)?;
    let begins = |path: &String| path.rsplit('/').next().and_then(format::journal_position);
    let first = paths.iter().rposition(|path| begins(path).is_some_and(|at| at <= from));
    Ok(first.map_or_else(Vec::new, |first| paths.split_off(first)))
}

/// A history up to its first damage.
#[derive(Debug)]
pub struct Survey {
    options: JournalOptions,
    /// Where its sound part ends.
    pub sound: Mark,
    /// What is wrong there; `None` when all is sound.
    pub damage: Option<JournalError>,
    /// How far sound batches behind the damage show that it went on, when there are any.
    pub went_on_to: Option<Position>,
    /// The file that the sound part ends in; `None` when not even its header is sound.
    last_file: Option<LastFile>,
    /// Files that hold nothing of the sound part.
    later: Vec<String>,
    next_number: u64,
}

/// Reads the history from a point, at which a sound snapshot stands or which is the origin, up to its first damage, giving
/// each batch to `visit`.
///
/// # Errors
/// `Io`, `UnknownVersion`, `ForeignStore`.
pub fn survey(
    disk: &dyn Disk,
    options: &JournalOptions,
    from: Mark,
    visit: &mut dyn FnMut(Batch),
) -> Result<Survey, JournalError> {
    let mut survey = Survey {
        options: options.clone(),
        sound: from,
        damage: None,
        went_on_to: None,
        last_file: None,
        later: Vec::new(),
        next_number: 1,
    };
    let paths = match files_from(disk, from.position)? {
        paths if paths.is_empty() => list(disk, format::is_journal_file)?,
        paths => paths,
    };
    let last = paths.len().saturating_sub(1);
    for (index, path) in paths.into_iter().enumerate() {
        if survey.damage.is_none() {
            survey.read_file(disk, &path, index == last, visit)?;
        } else {
            survey.look_behind(disk, &path, HEADER_END)?;
            survey.later.push(path);
        }
    }
    Ok(survey)
}

impl Survey {
    /// Goes on into the next file. One in which the damage lies before the point is of no use: it can't be gone on with.
    fn read_file(
        &mut self,
        disk: &dyn Disk,
        path: &str,
        is_last: bool,
        visit: &mut dyn FnMut(Batch),
    ) -> Result<(), JournalError> {
        let reader = FileReader::open(disk, self.options.store_id, path)?;
        let is_first = self.last_file.is_none();
        let header = match reader.header() {
            Ok(header) if is_first && header.before.position <= self.sound.position => header,
            Ok(header) if header.before == self.sound => header,
            Ok(header) => {
                let (expected, found) = (self.sound, header.before);
                return self.ended(disk, path, JournalError::Gap { file: path.to_owned(), expected, found });
            }
            Err(error) if error.is_damage() => return self.ended(disk, path, error),
            Err(error) => return Err(error),
        };
        self.next_number = header.number.saturating_add(1);
        let mut gate = Gate::closed_before(self.sound);
        let mut file = OpenFile { reader, is_last, offset: HEADER_END, at: header.before };
        let read = file.read_to_end(&mut gate, &mut |batch| {
            visit(batch);
            Ok::<_, JournalError>(())
        });
        let damage = match read {
            Ok(()) => None,
            Err(error) if error.is_damage() => Some(error),
            Err(error) => return Err(error),
        };
        if !gate.passes(file.at)? {
            // It ends between two batches, but before the point that a snapshot proves.
            let ends = JournalError::Damaged { file: path.to_owned(), offset: file.offset, next_valid_offset: None };
            return self.ended(disk, path, damage.unwrap_or(ends));
        }
        self.sound = file.at;
        let (end_offset, cut_bytes) = (file.offset, file.reader.len().saturating_sub(file.offset));
        self.last_file = Some(LastFile { header, end_offset, cut_bytes });
        self.damage = damage;
        if self.damage.is_some() { self.look_behind(disk, path, end_offset) } else { Ok(()) }
    }

    /// Notes a file that does not belong to the sound part at all.
    fn ended(&mut self, disk: &dyn Disk, path: &str, damage: JournalError) -> Result<(), JournalError> {
        self.damage = Some(damage);
        self.later.push(path.to_owned());
        self.look_behind(disk, path, HEADER_END)
    }

    /// Looks for sound batches behind the damage, which show what is lost.
    fn look_behind(&mut self, disk: &dyn Disk, path: &str, offset: u64) -> Result<(), JournalError> {
        let mut reader = FileReader::open(disk, self.options.store_id, path)?;
        let last = reader.last_proven(offset)?.map(|mark| mark.position);
        self.went_on_to = self.went_on_to.max(last);
        Ok(())
    }

    /// Ends the journal where its sound part ends, durably, and goes on from there. What lies behind goes to `lost/`.
    ///
    /// A crash on the way leaves a journal with a gap or with its damage, which is refused as before.
    ///
    /// # Errors
    /// As [`Journal::start`].
    pub fn cut(self, disk: Arc<dyn Disk>) -> Result<Journal, JournalError> {
        let Self { options, sound, last_file, mut later, next_number, .. } = self;
        create_lost(&*disk)?;
        let begun = FileHeader { number: next_number, before: sound }.path();
        let replaced = last_file.as_ref().map_or(begun, |last| last.header.path());
        copy_to_lost(&*disk, &replaced)?;
        later.retain(|path| *path != replaced);
        sync(&*disk, LOST_DIRECTORY)?;
        let read = ReadJournal { options, end: sound, last_file, next_number };
        let journal = Journal::start(Arc::clone(&disk), read)?;
        later.iter().rev().try_for_each(|path| move_to_lost(&*disk, path))?;
        Ok(journal)
    }
}

/// Moves a file of the journal's directory to `lost/`, durably.
///
/// # Errors
/// `Io`.
pub fn move_to_lost(disk: &dyn Disk, path: &str) -> Result<(), JournalError> {
    create_lost(disk)?;
    let to = free_name(disk, path)?;
    disk.rename(path, &to).map_err(|source| JournalError::io(path, "move to lost/", source))?;
    sync(disk, LOST_DIRECTORY)?;
    sync(disk, DIRECTORY)
}

fn create_lost(disk: &dyn Disk) -> Result<(), JournalError> {
    disk.create_dir(LOST_DIRECTORY).map_err(|source| JournalError::io(LOST_DIRECTORY, "create", source))?;
    sync(disk, "")
}

fn sync(disk: &dyn Disk, directory: &str) -> Result<(), JournalError> {
    disk.sync_dir(directory).map_err(|source| JournalError::io(directory, "sync", source))
}

/// Keeps a file that is about to be written anew, durably but for its name. One that is not there needs none.
fn copy_to_lost(disk: &dyn Disk, path: &str) -> Result<(), JournalError> {
    let failed = |source| JournalError::io_or_full(path, "copy to lost/", source);
    let from = match disk.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let len = from.len().map_err(failed)?;
    let to = disk.create(&free_name(disk, path)?).map_err(failed)?;
    let (mut offset, mut buffer) = (0, vec![0; COPY_BYTES]);
    while offset < len {
        let piece = buffer.len().min(usize::try_from(len - offset).unwrap_or(usize::MAX));
        from.read_exact_at(&mut buffer[..piece], offset).map_err(failed)?;
        to.write_all_at(&buffer[..piece], offset).map_err(failed)?;
        offset += piece as u64;
    }
    to.sync_data().map_err(failed)
}

/// A name in `lost/` that nothing has, after that of a file.
fn free_name(disk: &dyn Disk, path: &str) -> Result<String, JournalError> {
    let taken = disk.list(LOST_DIRECTORY).map_err(|source| JournalError::io(LOST_DIRECTORY, "list", source))?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut free = name.to_owned();
    for copy in 1_u64.. {
        if taken.iter().all(|entry| entry.name != free) {
            break;
        }
        free = format!("{name}.{copy}");
    }
    Ok(format!("{LOST_DIRECTORY}/{free}"))
}

impl FileReader {
    /// Where what follows the point begins: behind the header, behind a batch that ends at it, or before one that begins
    /// there.
    fn find_point(&mut self, point: &Mark) -> Result<Option<u64>, JournalError> {
        if self.header().is_ok_and(|header| header.before == *point) {
            return Ok(Some(HEADER_END));
        }
        let mut found = None;
        self.each_proven(HEADER_END, &mut |offset, before, after, len| {
            found = match () {
                () if before == *point => Some(offset),
                () if after == *point => Some(offset + len),
                () => None,
            };
            found.is_none()
        })?;
        Ok(found)
    }

    /// The point after the last sound batch from `offset` on.
    fn last_proven(&mut self, offset: u64) -> Result<Option<Mark>, JournalError> {
        let mut last = None;
        self.each_proven(offset, &mut |_, _, after, _| {
            last = Some(after);
            true
        })?;
        Ok(last)
    }
}
