//! Reads the history that the journal's files hold, and finds where it ends.
//!
//! It changes nothing on the disk, so it can be run twice, and on a store that is only looked at. It bridges nothing: a
//! point that is not in the history, a missing file and damage in the middle are errors.
//!
//! Invariants:
//! - Of every file the header is checked, of the files that can hold batches after the asked point every byte is.
//! - Only the last file may end in something that is no batch, and only when no batch of this store follows there. The
//!   writer gives a file its successor after its last sync, and writes a batch after the sync of the one before.
//! - Batches come in order, each once, and only after the asked point was found with its chain.

use std::cmp::Ordering;

use super::{
    Batch, DIRECTORY, JournalError, JournalOptions, Mark,
    format::{self, FILE_HEADER_LEN, FileHeader},
    reader::{FileReader, Next},
};
use crate::disk::Disk;

/// A history that was read to its end; what [`Journal::start`](super::Journal::start) goes on from.
#[derive(Debug)]
pub struct ReadJournal {
    pub(super) options: JournalOptions,
    pub(super) end: Mark,
    /// `None` when there is no file yet.
    pub(super) last_file: Option<LastFile>,
}

#[derive(Debug)]
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
/// `NotInHistory` when `from` is no point between two batches; `Damaged`, `Malformed`, `BadFile`, `UnknownVersion`,
/// `ForeignStore`, `FileMissing`, `Gap` for files that do not make one history; `Io`; and whatever `visit` returns.
pub fn read<E: From<JournalError>>(
    disk: &dyn Disk,
    options: &JournalOptions,
    from: Mark,
    mut visit: impl FnMut(Batch) -> Result<(), E>,
) -> Result<ReadJournal, E> {
    let headers = read_headers(disk, options.store_id)?;
    let mut gate = Gate { from, is_open: false };
    let skipped = headers.partition_point(|header| header.before.position <= from.position).saturating_sub(1);
    let mut end = if skipped == 0 { Mark::ORIGIN } else { headers[skipped].before };
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
    if gate.passes(end)? {
        Ok(ReadJournal { options: options.clone(), end, last_file })
    } else {
        Err(JournalError::NotInHistory { mark: from }.into())
    }
}

/// The headers of all files in order, continuous by their numbers.
fn read_headers(disk: &dyn Disk, store_id: [u8; 16]) -> Result<Vec<FileHeader>, JournalError> {
    let mut headers: Vec<FileHeader> = Vec::new();
    for path in list(disk, format::is_journal_file)? {
        let header = FileReader::open(disk, store_id, &path)?.header()?;
        let expected = headers.last().map_or(1, |last| last.number.saturating_add(1));
        if header.number != expected {
            return Err(JournalError::FileMissing { file: path, expected, found: header.number });
        }
        headers.push(header);
    }
    Ok(headers)
}

/// Paths of the files in the journal's directory whose names are asked for, sorted.
pub(super) fn list(disk: &dyn Disk, wanted: fn(&str) -> bool) -> Result<Vec<String>, JournalError> {
    let entries = match disk.list(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(JournalError::io(DIRECTORY, "list", source)),
    };
    let names = entries.into_iter().filter(|entry| !entry.is_dir && wanted(&entry.name));
    Ok(names.map(|entry| format!("{DIRECTORY}/{}", entry.name)).collect())
}

/// Lets batches pass once the asked point was met, by position and chain.
struct Gate {
    from: Mark,
    is_open: bool,
}

impl Gate {
    /// Whether what comes after the point `at` is asked for.
    fn passes(&mut self, at: Mark) -> Result<bool, JournalError> {
        self.is_open |= at == self.from;
        match at.position.cmp(&self.from.position) {
            Ordering::Less => Ok(false),
            _ if self.is_open => Ok(true),
            _ => Err(JournalError::NotInHistory { mark: self.from }),
        }
    }
}

/// A file on the way to its end.
struct OpenFile {
    reader: FileReader,
    is_last: bool,
    offset: u64,
    at: Mark,
}

impl OpenFile {
    /// Gives each batch that passes the gate to `visit`.
    fn read_to_end<E: From<JournalError>>(
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
