//! Reads the history that the journal's files hold, and finds where it ends.
//!
//! It changes nothing on the disk, so it can be run twice, and on a store that is only looked at. It bridges nothing: a
//! point that is not in the history, a missing file and damage in the middle are errors.
//!
//! The history begins at its *base*: where the newest snapshot stands by its name, or at the origin when there is none.
//! Files that end before the base are superfluous. Some of them may be missing, because a power cut keeps removals in any
//! order; they are read only when the asked point lies among them.
//!
//! Invariants:
//! - From the base's file on the header of every file is checked, of the files that can hold batches after the asked
//!   point every byte is.
//! - Only the last file may end in something that is no batch, and only when no batch of this store follows there. The
//!   writer gives a file its successor after its last sync, and writes a batch after the sync of the one before.
//! - Batches come in order, each once, and only after the asked point was found with its chain.

use std::cmp::Ordering;

use super::{
    Batch, DIRECTORY, JournalError, JournalOptions, Mark, Position,
    format::{self, FILE_HEADER_LEN, FileHeader},
    reader::{FileReader, Next},
    snapshot,
};
use crate::disk::{DirEntry, Disk};

/// A history that was read to its end; what [`Journal::start`](super::Journal::start) goes on from.
#[derive(Debug, Clone)]
pub struct ReadJournal {
    pub(super) options: JournalOptions,
    pub(super) end: Mark,
    /// `None` when a new file is to be begun.
    pub(super) last_file: Option<LastFile>,
    /// The number that a new file gets.
    pub(super) next_number: u64,
}

#[derive(Debug, Clone)]
pub(super) struct LastFile {
    pub(super) header: FileHeader,
    /// Where its last batch ends.
    pub(super) end_offset: u64,
    /// Bytes after that.
    pub(super) cut_bytes: u64,
}

impl ReadJournal {
    /// The point after the last batch.
    pub fn end(&self) -> Mark {
        self.end
    }

    /// Whether there is no journal file at all. In a store that was opened before this means that its journal was
    /// removed: the caller has to refuse it, as a new journal would be started.
    pub fn is_new(&self) -> bool {
        self.last_file.is_none()
    }

    /// Goes on from a point beyond the end instead: a snapshot that stands there proves that the journal has lost its own.
    /// A new file will begin at that point; those before it stay as they are, and nothing bridges the gap.
    pub fn resume_at(self, mark: Mark) -> Self {
        Self { end: mark, last_file: None, ..self }
    }

    /// Bytes of a torn batch after the end, which was never acknowledged; starting the journal cuts them.
    pub fn cut_bytes(&self) -> u64 {
        self.last_file.as_ref().map_or(0, |file| file.cut_bytes)
    }
}

/// Reads the journal from the point `from` to its end, giving each batch after that point to `visit`.
///
/// Files that end before `from` are checked by their headers only, so the time is bounded by what follows `from`. A state
/// that stands at `from` may be replayed on in one pass: when `from` is not in the history, nothing is visited.
/// Memory is bounded by one batch. A missing directory is an empty history.
///
/// # Errors
/// `NotInHistory` when `from` is no point between two batches of the files that are there; `Damaged`, `Malformed`, `BadFile`, `UnknownVersion`,
/// `ForeignStore`, `FileMissing`, `Gap` for files that do not make one history; `Io`; and whatever `visit` returns.
pub fn read<E: From<JournalError>>(
    disk: &dyn Disk,
    options: &JournalOptions,
    from: Mark,
    mut visit: impl FnMut(Batch) -> Result<(), E>,
) -> Result<ReadJournal, E> {
    let headers = read_headers(disk, options.store_id, from.position)?;
    let mut gate = Gate::closed_before(from);
    let skipped = headers.partition_point(|header| header.before.position <= from.position).saturating_sub(1);
    let mut end = headers.get(skipped).map_or(Mark::ORIGIN, |header| header.before);
    let mut last_file = None;
    for (index, header) in headers.iter().enumerate().skip(skipped) {
        if header.before != end {
            return Err(JournalError::Gap { file: header.path(), expected: end, found: header.before }.into());
        }
        let reader = FileReader::open(disk, options.store_id, &header.path())?;
        let is_last = index + 1 == headers.len();
        let mut file = OpenFile { reader, is_last, offset: FILE_HEADER_LEN as u64, at: end };
        file.read_to_end(&mut gate, &mut visit)?;
        end = file.at;
        let cut_bytes = file.reader.len() - file.offset;
        last_file = Some(LastFile { header: *header, end_offset: file.offset, cut_bytes });
    }
    let next_number = headers.last().map_or(1, |last| last.number.saturating_add(1));
    if gate.passes(end)? {
        Ok(ReadJournal { options: options.clone(), end, last_file, next_number })
    } else {
        Err(JournalError::NotInHistory { mark: from }.into())
    }
}

/// Reads the last file only, to find where the journal ends. Without files that is the origin.
///
/// # Errors
/// As [`read`], but for `NotInHistory`.
pub fn read_end(disk: &dyn Disk, options: &JournalOptions) -> Result<ReadJournal, JournalError> {
    let last = read_headers(disk, options.store_id, Position { lsn: u64::MAX, local: u64::MAX })?.pop();
    let Some(last) = last else {
        return Ok(ReadJournal { options: options.clone(), end: Mark::ORIGIN, last_file: None, next_number: 1 });
    };
    read(disk, options, last.before, |_| Ok(()))
}

/// The headers in order, continuous by their numbers: from the file on that holds the base; from an earlier one, when
/// `from` lies there and no file between is missing or unsound.
fn read_headers(disk: &dyn Disk, store_id: [u8; 16], from: Position) -> Result<Vec<FileHeader>, JournalError> {
    let base = snapshot::list(disk)?.first().map_or(Position::default(), |newest| newest.position);
    let mut headers: Vec<FileHeader> = Vec::new();
    for path in list(disk, format::is_journal_file)?.into_iter().rev() {
        let next = headers.last();
        if next.is_some_and(|next| next.before.position <= from.min(base)) {
            break;
        }
        match read_header(disk, store_id, &path, next) {
            Ok(header) => headers.push(header),
            Err(error @ JournalError::Io { .. }) => return Err(error),
            // Nothing needs a superfluous file but a state that stands in it, which can be rebuilt from the base.
            Err(_) if next.is_some_and(|next| next.before.position <= base) => break,
            Err(error) => return Err(error),
        }
    }
    headers.reverse();
    match headers.first() {
        Some(first) if first.before.position > base && first.number > 1 => {
            let (expected, found) = (if base == Position::default() { 1 } else { first.number - 1 }, first.number);
            Err(JournalError::FileMissing { file: first.path(), expected, found })
        }
        Some(first) if first.before.position > base => {
            Err(JournalError::Gap { file: first.path(), expected: Mark::ORIGIN, found: first.before })
        }
        None if base > from => Err(JournalError::NotInHistory { mark: Mark { position: from, ..Mark::ORIGIN } }),
        _ => Ok(headers),
    }
}

/// The header of a file, which has the number before that of the `next` one.
fn read_header(
    disk: &dyn Disk,
    store_id: [u8; 16],
    path: &str,
    next: Option<&FileHeader>,
) -> Result<FileHeader, JournalError> {
    let header = FileReader::open(disk, store_id, path)?.header()?;
    match next {
        Some(next) if header.number.checked_add(1) != Some(next.number) => {
            let expected = header.number.saturating_add(1);
            Err(JournalError::FileMissing { file: next.path(), expected, found: next.number })
        }
        _ => Ok(header),
    }
}

/// Paths of the files in the journal's directory whose names are asked for, sorted.
pub(super) fn list(disk: &dyn Disk, wanted: fn(&str) -> bool) -> Result<Vec<String>, JournalError> {
    let names = entries(disk)?.into_iter().filter(|entry| wanted(&entry.name));
    Ok(names.map(|entry| format!("{DIRECTORY}/{}", entry.name)).collect())
}

/// The files in the journal's directory, sorted by name; none when it is missing.
pub(super) fn entries(disk: &dyn Disk) -> Result<Vec<DirEntry>, JournalError> {
    match disk.list(DIRECTORY) {
        Ok(entries) => Ok(entries.into_iter().filter(|entry| !entry.is_dir).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(JournalError::io(DIRECTORY, "list", source)),
    }
}

/// Lets batches pass once the asked point was met, by position and chain.
pub(super) struct Gate {
    from: Mark,
    is_open: bool,
}

impl Gate {
    /// For a reader that stands before the point, or at it.
    pub(super) fn closed_before(from: Mark) -> Self {
        Self { from, is_open: false }
    }

    /// For a reader that stands at the point already.
    pub(super) fn open_at(from: Mark) -> Self {
        Self { from, is_open: true }
    }

    /// Whether what comes after the point `at` is asked for.
    pub(super) fn passes(&mut self, at: Mark) -> Result<bool, JournalError> {
        self.is_open |= at == self.from;
        match at.position.cmp(&self.from.position) {
            Ordering::Less => Ok(false),
            _ if self.is_open => Ok(true),
            _ => Err(JournalError::NotInHistory { mark: self.from }),
        }
    }
}

/// A file on the way to its end.
pub(super) struct OpenFile {
    pub(super) reader: FileReader,
    pub(super) is_last: bool,
    pub(super) offset: u64,
    pub(super) at: Mark,
}

impl OpenFile {
    /// Gives each batch that passes the gate to `visit`.
    pub(super) fn read_to_end<E: From<JournalError>>(
        &mut self,
        gate: &mut Gate,
        visit: &mut impl FnMut(Batch) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let passes = gate.passes(self.at)?;
            let (header, batch) = match self.reader.next(self.offset, &self.at)? {
                Next::Batch(header, bytes) => (header, passes.then(|| header.batch(bytes))),
                Next::End => return Ok(()),
                Next::Broken => return Ok(self.judge_end()?),
            };
            if let Some(batch) = batch {
                let file = self.reader.path();
                visit(batch.map_err(|source| JournalError::Malformed {
                    file: file.to_owned(),
                    offset: self.offset,
                    source,
                })?)?;
            }
            self.offset += header.batch_len() as u64;
            self.at = header.after;
        }
    }

    /// Whether the history may end where no batch follows although bytes do.
    fn judge_end(&mut self) -> Result<(), JournalError> {
        let damaged = |reader: &FileReader, next_valid_offset| JournalError::Damaged {
            file: reader.path().to_owned(),
            offset: self.offset,
            next_valid_offset,
        };
        if self.is_last {
            let next_valid = self.reader.find_batch(self.offset, &self.at)?;
            next_valid.map_or(Ok(()), |offset| Err(damaged(&self.reader, Some(offset))))
        } else if self.reader.is_zero_from(self.offset)? {
            Ok(())
        } else {
            Err(damaged(&self.reader, None))
        }
    }
}
