//! Opening: what the disk has is made to fit what the index lists.
//!
//! Only lengths and names are looked at, so an open costs a directory entry per segment. Contents are checked when they
//! are read; damage to one segment never keeps the others from being served.

use std::collections::{BTreeMap, BTreeSet};

use crate::{disk::Disk, location::SegmentNumber};

use super::{
    ListedSegment, SealedSegment, SegmentKind, UnlistedFiles,
    error::SegmentError,
    files::{Files, SegmentFile},
    format,
};

/// What [`Segments::open`](super::Segments::open) found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Listed segments that lack acknowledged bytes.
    pub damaged: Vec<DamagedSegment>,
    /// Segments that had bytes which were never acknowledged.
    pub cut: Vec<CutSegment>,
    /// Files that were not listed and were removed.
    pub removed: Vec<SegmentNumber>,
    /// Files that were not listed and went to `lost/`.
    pub moved: Vec<SegmentNumber>,
}

/// A segment that is shorter than what the journal has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// Its committed end in bytes.
    pub expected: u64,
    /// Length of its file in bytes; `None` when there is no file.
    pub found: Option<u64>,
}

/// A segment whose end was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// The length in bytes that it had.
    pub from: u64,
    /// The length in bytes that it has.
    pub to: u64,
}

pub(super) struct Recovered {
    pub(super) report: OpenReport,
    /// Above every number that the journal, the list or a file has.
    pub(super) next_number: u64,
    /// Shared segments without damage that may take appends.
    pub(super) unsealed: Vec<ListedSegment>,
}

pub(super) fn recover(
    disk: &dyn Disk,
    next_number: u64,
    listed: &[ListedSegment],
    unlisted: UnlistedFiles,
) -> Result<Recovered, SegmentError> {
    create_directory(disk, "segments")?;
    let mut found = scan(disk)?;
    let highest = found.keys().copied().chain(listed.iter().map(|segment| segment.number)).max();
    let above = highest.map_or(0, |number| number.0.saturating_add(1));

    let mut report = OpenReport::default();
    let mut unsealed = Vec::new();
    for segment in listed {
        let ListedSegment { number, committed_end: expected, .. } = *segment;
        match found.remove(&number) {
            Some(len) if len >= expected => {
                if len > expected {
                    cut(disk, number, expected)?;
                    report.cut.push(CutSegment { number, from: len, to: expected });
                }
                if segment.kind == SegmentKind::Shared && !segment.sealed {
                    unsealed.push(*segment);
                }
            }
            found => {
                tracing::error!(segment.id = number.0, expected, ?found, "a segment lacks acknowledged bytes");
                report.damaged.push(DamagedSegment { number, expected, found });
            }
        }
    }
    let left: Vec<SegmentNumber> = found.into_keys().collect();
    match unlisted {
        UnlistedFiles::Remove => {
            remove_all(disk, &left)?;
            report.removed = left;
        }
        UnlistedFiles::Leave => {}
        UnlistedFiles::MoveToLost => {
            move_to_lost(disk, &left)?;
            report.moved = left;
        }
    }
    Ok(Recovered { report, next_number: next_number.max(above), unsealed })
}

/// How appends go on.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// The segment that takes them, and its end.
    pub(super) active: Option<(SegmentFile, u64)>,
    /// Segments that take no more.
    pub(super) sealed: Vec<SealedSegment>,
}

/// Chooses the newest unsealed segment with room to take appends; the others are sealed.
pub(super) fn resume(files: &Files, bytes_max: u64, mut unsealed: Vec<ListedSegment>) -> Result<Resumed, SegmentError> {
    unsealed.sort_by_key(|segment| segment.number);
    let Resumed { mut active, mut sealed } = Resumed::default();
    for ListedSegment { number, committed_end: end, .. } in unsealed.into_iter().rev() {
        let has_room = (format::FILE_HEADER_LEN..bytes_max).contains(&end) && end.is_multiple_of(format::RECORD_ALIGN);
        if !has_room || active.is_some() {
            sealed.push(SealedSegment { number, len: end });
            continue;
        }
        match files.open_uncached(number) {
            Ok(file) => active = Some((file, end)),
            // What it holds may still be read; only more must not be put there.
            Err(error) if error.is_corrupt() => tracing::error!(segment.id = number.0, %error, "takes no more appends"),
            Err(error) => return Err(error),
        }
    }
    sealed.reverse();
    Ok(Resumed { active, sealed })
}

/// All segment files and their lengths. Other names are none of the store's business, and stay.
fn scan(disk: &dyn Disk) -> Result<BTreeMap<SegmentNumber, u64>, SegmentError> {
    let mut found = BTreeMap::new();
    for directory in list(disk, "segments")? {
        let path = format!("segments/{}", directory.name);
        let entries = if directory.is_dir { list(disk, &path)? } else { Vec::new() };
        for entry in entries {
            let path = format!("{path}/{}", entry.name);
            match format::number_of(&path) {
                Some(number) if !entry.is_dir => drop(found.insert(number, entry.len)),
                _ => tracing::warn!(path, "left alone: not the name of a segment"),
            }
        }
    }
    Ok(found)
}

fn list(disk: &dyn Disk, path: &str) -> Result<Vec<crate::disk::DirEntry>, SegmentError> {
    disk.list(path).map_err(|error| SegmentError::io("list", path, error))
}

fn create_directory(disk: &dyn Disk, path: &str) -> Result<(), SegmentError> {
    disk.create_dir(path).map_err(|error| SegmentError::io("create", path, error))?;
    sync_dir(disk, "")
}

fn sync_dir(disk: &dyn Disk, path: &str) -> Result<(), SegmentError> {
    disk.sync_dir(path).map_err(|error| SegmentError::io("sync", path, error))
}

/// Not synced: a cut that is lost is made again by the next open, and bytes beyond the end are never read.
fn cut(disk: &dyn Disk, number: SegmentNumber, len: u64) -> Result<(), SegmentError> {
    let path = format::path_of(number);
    disk.open(&path).and_then(|file| file.set_len(len)).map_err(|error| SegmentError::io("cut", path, error))
}

/// Not synced: what comes back is not listed at the next open either.
fn remove_all(disk: &dyn Disk, numbers: &[SegmentNumber]) -> Result<(), SegmentError> {
    for &number in numbers {
        let path = format::path_of(number);
        disk.remove(&path).map_err(|error| SegmentError::io("remove", path, error))?;
        tracing::debug!(segment.id = number.0, "removed a segment that nothing names");
    }
    Ok(())
}

/// The new names are durable before the old ones go, so that a crash leaves each file under one of them at least.
fn move_to_lost(disk: &dyn Disk, numbers: &[SegmentNumber]) -> Result<(), SegmentError> {
    if numbers.is_empty() {
        return Ok(());
    }
    create_directory(disk, "lost")?;
    let mut taken: BTreeSet<String> = list(disk, "lost")?.into_iter().map(|entry| entry.name).collect();
    for &number in numbers {
        let mut name = format::file_name(number);
        for copy in 1_u64.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{}.{copy}", format::file_name(number));
        }
        let path = format::path_of(number);
        disk.rename(&path, &format!("lost/{name}")).map_err(|error| SegmentError::io("move to lost/", path, error))?;
        tracing::warn!(segment.id = number.0, "moved a segment that nothing names to lost/");
    }
    sync_dir(disk, "lost")?;
    let directories: BTreeSet<String> = numbers.iter().map(|&number| format::directory_of(number)).collect();
    directories.iter().try_for_each(|directory| sync_dir(disk, directory))
}
