//! Reading all of the history again, while it is in use: which of its files are not what was written.
//!
//! It changes nothing and bridges nothing. A file that is removed meanwhile was superfluous, and the end of the last file is
//! being written, so what looks wrong there is looked at again before it is told.

use std::time::Duration;

use super::{
    JournalError, JournalOptions, Mark,
    format::{self, FILE_HEADER_LEN},
    reader::FileReader,
    recovery::{Gate, OpenFile, list},
    snapshot::{self, Part, SnapshotReader},
};
use crate::{
    disk::{Disk, is_gone},
    sync,
};

/// How often a last file is looked at before it is called damaged, and how long apart: longer than a batch is written.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });

/// What a check came to.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong with which file.
    pub wrong: Vec<JournalError>,
    /// Where the last sound batch of the last file ends: the point, the file, the offset there.
    pub end: Option<(Mark, String, u64)>,
}

/// Reads every snapshot and every journal file from the oldest snapshot on, and tells what is wrong with which. `read` is
/// told how many bytes were read, and may wait; it ends the check by an error.
///
/// # Errors
/// What `read` returns; `Io` when the directory cannot be listed. A file that cannot be read is among what is wrong, with
/// `Io`: whether it is damaged is not known.
pub fn check<E: From<JournalError>>(
    disk: &dyn Disk,
    options: &JournalOptions,
    read: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Checked, E> {
    let mut wrong = Vec::new();
    let mut oldest = None;
    for file in snapshot::list(disk)? {
        let checked = check_snapshot(disk, options, &file, read)?;
        wrong.extend(checked.err().filter(|_| !is_gone(disk, &file.path)));
        oldest = Some(file.position);
    }
    let mut paths = list(disk, format::is_journal_file)?;
    let begins = |path: &String| path.rsplit('/').next().and_then(format::journal_position);
    let below = |path: &String| oldest.is_some_and(|oldest| begins(path).is_some_and(|at| at <= oldest));
    let first = paths.iter().rposition(below).unwrap_or(0);
    let paths = paths.split_off(first);
    let mut end: Option<(Mark, String, u64)> = None;
    for (index, path) in paths.iter().enumerate() {
        let before = end.take().map(|(mark, ..)| mark);
        let mut checked = check_file(disk, options, path, index + 1 == paths.len(), before);
        for _ in 1..LOOKS {
            if checked.is_ok() {
                break;
            }
            sync::sleep(BETWEEN_LOOKS);
            let last = list(disk, format::is_journal_file)?.pop();
            checked = check_file(disk, options, path, last.as_ref() == Some(path), before);
        }
        match checked {
            Ok((mark, offset, len)) => {
                end = Some((mark, path.clone(), offset));
                read(len)?;
            }
            Err(_) if is_gone(disk, path) => {}
            Err(error) => wrong.push(error),
        }
    }
    Ok(Checked { wrong, end })
}

fn check_snapshot<E: From<JournalError>>(
    disk: &dyn Disk,
    options: &JournalOptions,
    file: &snapshot::SnapshotFile,
    read: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Result<(), JournalError>, E> {
    let mut reader = match SnapshotReader::open(disk, options.store_id, file) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error)),
    };
    // Pages are of about one size.
    const PAGE: u64 = 256 << 10;
    loop {
        match reader.next_part() {
            Ok(Part::Page(page)) => {
                if let Err(error) = page.each(|_| Ok::<_, JournalError>(())) {
                    return Ok(Err(error));
                }
                read(PAGE)?;
            }
            Ok(Part::End(_)) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Where the history of a file ends, at which offset, and the file's length.
fn check_file(
    disk: &dyn Disk,
    options: &JournalOptions,
    path: &str,
    is_last: bool,
    before: Option<Mark>,
) -> Result<(Mark, u64, u64), JournalError> {
    let reader = FileReader::open(disk, options.store_id, path)?;
    let (header, len) = (reader.header()?, reader.len());
    if let Some(expected) = before.filter(|before| *before != header.before) {
        return Err(JournalError::Gap { file: path.to_owned(), expected, found: header.before });
    }
    let mut file = OpenFile { reader, is_last, offset: FILE_HEADER_LEN as u64, at: header.before };
    file.read_to_end(&mut Gate::open_at(header.before), &mut |_| Ok::<_, JournalError>(()))?;
    Ok((file.at, file.offset, len))
}
