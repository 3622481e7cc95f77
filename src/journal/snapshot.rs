//! Snapshots: files of all facts at one point of the history, so that the journal before it can go.
//!
//! It knows facts as bytes with a kind; which there are is told by `state::facts`, and when one is written by the store. It
//! applies nothing, and believes no file before all of it was read.
//!
//! Invariants:
//! - A snapshot gets its name when its bytes are synced and were read again; nothing is removed before that name is durable.
//! - What is removed lies wholly below the *previous* snapshot, so there are two ways to the state: the newest one and the
//!   journal behind it, and the one before and the journal behind that.
//! - The last journal file, which is appended to, is never touched.
//!
//! The bytes are told in FORMAT.md, *Snapshots*.

use super::{
    DIRECTORY, JournalError, Mark, Position,
    format::{self, chunk},
    recovery,
};
use crate::{
    codec::{DecodeError, Decoder, Encoder},
    disk::Disk,
};

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Page, Part, Proven, SnapshotReader};
pub use writer::{Sealed, SnapshotWriter};

const FILE_MAGIC: &[u8; 8] = b"ORLOPSNP";
const PAGE_MAGIC: &[u8; 8] = b"ORLSPAGE";
const END_MAGIC: &[u8; 8] = b"ORLSPEND";
/// The version of the files that are written.
pub const VERSION: u32 = 1;

const HEADER_LEN: usize = 96;
const PAGE_HEADER_LEN: usize = 24;
/// Bytes of the end that the hash covers: magic, pages, facts.
const END_FIELDS_LEN: usize = 24;
const END_LEN: usize = END_FIELDS_LEN + 32;

/// A page takes no more facts once it has so many bytes. Only a fact that is larger by itself makes one longer.
const PAGE_BYTES: usize = 256 << 10;
/// Most bytes of a page, and so of a fact. A manifest's fact is little longer than the operation that pushed it, which
/// fitted into a batch.
const PAGE_BYTES_MAX: u32 = 2 * format::BODY_BYTES_MAX;

/// What a snapshot says about itself: where it stands, and what had been given out there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The point of the history whose state it is.
    pub mark: Mark,
    /// Time of the last batch before that point, in Unix milliseconds.
    pub time_ms: u64,
    /// Organisation ids that were given out.
    pub organisations: u32,
    /// Repository ids that were given out.
    pub repositories: u32,
    /// Manifest ids that were given out.
    pub manifests: u64,
    /// The first segment number that the journal never named.
    pub next_segment: u64,
}

impl SnapshotHeader {
    /// The snapshot's path. Its name tells the numbers of the last records that it holds.
    fn path(&self) -> String {
        let Position { lsn, local } = self.mark.position;
        format!("{DIRECTORY}/{lsn:016x}-{local:016x}{}", format::SNAPSHOT_SUFFIX)
    }

    fn encode(&self, store_id: &[u8; 16]) -> Vec<u8> {
        let mut fields = Encoder::new();
        let Mark { position, chain } = self.mark;
        fields.raw(store_id).u64(position.lsn).u64(position.local).raw(&chain.0).u64(self.time_ms);
        fields.u32(self.organisations).u32(self.repositories).u64(self.manifests).u64(self.next_segment);
        let fields = fields.finish();
        let mut header = Encoder::new();
        header.raw(FILE_MAGIC).u32(VERSION).u32(header_checksum(&fields)).raw(&fields);
        header.finish()
    }

    /// # Errors
    /// `UnknownVersion`, `ForeignStore`, or `BadSnapshot` for anything that is no sound header of the file `path`.
    fn decode(bytes: &[u8], store_id: &[u8; 16], path: &str) -> Result<Self, JournalError> {
        let bad = |problem| JournalError::BadSnapshot { file: path.to_owned(), offset: 0, problem };
        let short = |_: DecodeError| bad("it is shorter than a header");
        let mut header = Decoder::new(bytes);
        if header.raw(FILE_MAGIC.len(), "magic").map_err(short)? != FILE_MAGIC {
            return Err(bad("it does not begin with a snapshot's magic"));
        }
        let version = header.u32("version").map_err(short)?;
        if version != VERSION {
            return Err(JournalError::UnknownVersion { file: path.to_owned(), found: version, known: VERSION });
        }
        let checksum = header.u32("checksum").map_err(short)?;
        let fields = header.raw(HEADER_LEN - 16, "fields").map_err(short)?;
        if checksum != header_checksum(fields) {
            return Err(bad("its header's checksum is wrong"));
        }
        let mut fields = Decoder::new(fields);
        let found = chunk(&mut fields, "store id").map_err(short)?;
        if found != *store_id {
            return Err(JournalError::ForeignStore { file: path.to_owned(), expected: *store_id, found });
        }
        Self::decode_fields(&mut fields).map_err(short)
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let position = Position { lsn: d.u64("LSN")?, local: d.u64("local number")? };
        Ok(Self {
            mark: Mark { position, chain: super::Chain(chunk(d, "chain")?) },
            time_ms: d.u64("time")?,
            organisations: d.u32("organisation ids")?,
            repositories: d.u32("repository ids")?,
            manifests: d.u64("manifest ids")?,
            next_segment: d.u64("next segment")?,
        })
    }
}

fn header_checksum(fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(FILE_MAGIC);
    hasher.update(&VERSION.to_le_bytes());
    hasher.update(fields);
    hasher.finalize()
}

/// The checksum of a page: over its header's other fields and its facts.
fn page_checksum(len: u32, facts: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(PAGE_MAGIC);
    hasher.update(&len.to_le_bytes());
    hasher.update(&facts.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// A snapshot by its name; what is in it nobody has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its path below the disk's root.
    pub path: String,
    /// Where its name says that it stands.
    pub position: Position,
    /// Its length in bytes.
    pub len: u64,
}

/// The snapshots that have their names, the newest first. A missing directory has none.
///
/// # Errors
/// `Io`.
pub fn list(disk: &dyn Disk) -> Result<Vec<SnapshotFile>, JournalError> {
    let entries = recovery::entries(disk)?;
    let mut files: Vec<SnapshotFile> = entries
        .into_iter()
        .filter_map(|entry| {
            let position = format::snapshot_position(&entry.name)?;
            Some(SnapshotFile { path: format!("{DIRECTORY}/{}", entry.name), position, len: entry.len })
        })
        .collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.position));
    Ok(files)
}

/// Bytes of the journal files that begin at the point or after it. What the file before them has after the point is not
/// counted, so this is less than what follows the point by at most a file.
///
/// # Errors
/// `Io`.
pub fn journal_bytes_after(disk: &dyn Disk, position: Position) -> Result<u64, JournalError> {
    let entries = recovery::entries(disk)?;
    let after = entries.iter().filter(|entry| format::journal_position(&entry.name).is_some_and(|at| at >= position));
    Ok(after.map(|entry| entry.len).sum())
}

/// What was removed because it lies below the previous snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Journal files and snapshots.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes a snapshot that is of no use.
///
/// # Errors
/// `Io`.
pub fn remove(disk: &dyn Disk, snapshot: &SnapshotFile) -> Result<(), JournalError> {
    disk.remove(&snapshot.path).map_err(|source| JournalError::io(&snapshot.path, "remove", source))
}

/// Removes the journal files that lie wholly below the newest snapshot, and all other snapshots: for who knows that these
/// are damaged, and has read that one again. Until the next snapshot there is one way to the state.
///
/// # Errors
/// `Io`; some may have been removed.
pub fn trim_to_newest(disk: &dyn Disk) -> Result<Trimmed, JournalError> {
    let snapshots = list(disk)?;
    let Some(newest) = snapshots.first() else { return Ok(Trimmed::default()) };
    remove_below(disk, newest.position, &snapshots[1..])
}

/// Removes the journal files that lie wholly below the previous snapshot, and the snapshots before that one.
///
/// The caller has made sure that the newest snapshot's name is durable, by syncing the directory in this run. The
/// removals are not durable: whichever of them a power cut takes back are superfluous still, and removed by the next call.
///
/// # Errors
/// `Io`; some may have been removed.
pub fn trim(disk: &dyn Disk) -> Result<Trimmed, JournalError> {
    let snapshots = list(disk)?;
    let Some(previous) = snapshots.get(1) else { return Ok(Trimmed::default()) };
    remove_below(disk, previous.position, &snapshots[2..])
}

/// Removes the journal files that lie wholly below a point, and the snapshots that are named.
fn remove_below(disk: &dyn Disk, point: Position, snapshots: &[SnapshotFile]) -> Result<Trimmed, JournalError> {
    let journal: Vec<_> = recovery::entries(disk)?
        .into_iter()
        .filter_map(|entry| Some((format::journal_position(&entry.name)?, entry)))
        .collect();
    let below = journal.windows(2).filter(|pair| pair[1].0 <= point).map(|pair| &pair[0].1);
    let mut superfluous: Vec<(String, u64)> =
        below.map(|entry| (format!("{DIRECTORY}/{}", entry.name), entry.len)).collect();
    superfluous.extend(snapshots.iter().map(|snapshot| (snapshot.path.clone(), snapshot.len)));
    let mut trimmed = Trimmed::default();
    for (path, len) in superfluous {
        disk.remove(&path).map_err(|source| JournalError::io(&path, "remove", source))?;
        trimmed.files += 1;
        trimmed.bytes += len;
    }
    Ok(trimmed)
}
