//! From a directory to a state that serves.
//!
//! The index stands at some point of the journal's history. When that point is found in the journal, what follows is
//! replayed; when it is not (the index is missing, stale beyond the journal, of another store, or damaged), all of it is.
//! Then the journal's last file is written anew, segments are cut at what the journal names, and files that nothing names
//! are removed.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    codec::DecodeError,
    disk::Disk,
    index::{
        Index, IndexError, Overlay,
        schema::{self, Applied, INDEX_VERSION, RowValue, SchemaError, SegmentRow, Table, UploadRow, key},
    },
    journal::{
        self, Batch, Journal, JournalError, JournalOptions, ReadJournal, RecordClass,
        operation::{LocalRecord, Operation, Record},
    },
    location::SegmentNumber,
    segment::{ListedSegment, SegmentKind, SegmentOptions, Segments, SingleWriter, UnlistedFiles},
    state::apply,
};

use super::{OpenError, Shared, StoreOptions, format, mark};

/// The directory of RocksDB, below the disk's root.
#[cfg(feature = "rocksdb")]
pub(super) const INDEX_DIRECTORY: &str = "index";

/// How an index is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexStart {
    /// With the rows that it has.
    AsItIs,
    /// Without rows: what was there is destroyed.
    Empty,
}

/// Opens an index.
pub type OpenIndex<'a> = &'a dyn Fn(IndexStart) -> Result<Box<dyn Index>, IndexError>;

/// What opening had to do.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Whether the store was created.
    pub created: bool,
    /// Why the index was built anew, if it was.
    pub rebuilt: Option<String>,
    /// Records that were replayed.
    pub replayed_records: u64,
    /// Bytes of those records.
    pub replayed_bytes: u64,
    /// Bytes of a torn batch at the journal's end, never acknowledged, that were cut.
    pub journal_cut_bytes: u64,
    /// How long it all took.
    pub duration: Duration,
}

pub(super) struct Opened {
    pub(super) shared: Shared,
    pub(super) journal: Journal,
    pub(super) applied: Applied,
    pub(super) recovery: Recovery,
}

pub(super) fn open(disk: Arc<dyn Disk>, options: StoreOptions, index: OpenIndex<'_>) -> Result<Opened, OpenError> {
    let began = Instant::now();
    let lock = disk.lock("lock").map_err(|error| OpenError::io("lock the data directory".to_owned(), error))?;
    let lock = lock.ok_or_else(|| OpenError::InUse(disk.root().display().to_string()))?;
    let mut recovery = Recovery::default();
    let format = match format::read(&*disk)? {
        Some(format) => format,
        None => {
            recovery.created = true;
            format::create(&*disk, now_ms())?
        }
    };
    let journal_options =
        JournalOptions { file_bytes_max: options.journal_file_bytes_max, ..JournalOptions::new(format.store) };
    let (index, applied, read) = match_journal(&*disk, &journal_options, index, &mut recovery)?;
    if read.is_new() && has_segments(&*disk)? {
        return Err(OpenError::Format {
            directory: disk.root().display().to_string(),
            problem: "it has segments but no journal, which alone knows what they hold; put the journal directory back"
                .to_owned(),
        });
    }
    recovery.journal_cut_bytes = read.cut_bytes();
    let journal = Journal::start(Arc::clone(&disk), read)?;
    let segments = open_segments(&disk, &options, format.store, &*index, &applied)?;
    recovery.duration = began.elapsed();
    let shared = Shared {
        disk,
        index,
        segments,
        unflushed: AtomicU64::new(recovery.replayed_bytes),
        options,
        poison: OnceLock::new(),
        damaged: Mutex::default(),
        buffered: AtomicU64::new(0),
        _lock: lock,
    };
    Ok(Opened { shared, journal, applied, recovery })
}

/// Brings the index to the journal's end: from where it stands if that is in the journal, else from the beginning.
fn match_journal(
    disk: &dyn Disk,
    journal_options: &JournalOptions,
    open_index: OpenIndex<'_>,
    recovery: &mut Recovery,
) -> Result<(Box<dyn Index>, Applied, ReadJournal), OpenError> {
    let empty = Applied { store: journal_options.store_id, ..nothing_applied() };
    let reason = match stand(open_index, &empty) {
        Ok((index, applied)) => match replay(disk, journal_options, &*index, applied, recovery) {
            Ok((applied, read)) => return Ok((index, applied, read)),
            Err(ReplayError::Journal(JournalError::NotInHistory { .. })) => {
                "its place is not in the journal".to_owned()
            }
            Err(ReplayError::Schema(error)) if is_damage(&error) => error.to_string(),
            Err(error) => return Err(error.into()),
        },
        Err(reason) => reason,
    };
    tracing::warn!(reason, "building the index anew from the journal");
    *recovery = Recovery { rebuilt: Some(reason), created: recovery.created, ..Recovery::default() };
    let index = open_index(IndexStart::Empty)?;
    let (applied, read) = replay(disk, journal_options, &*index, empty, recovery)?;
    Ok((index, applied, read))
}

/// Opens the index and finds where it stands; an empty one stands at the beginning. `Err` says why it is of no use.
fn stand(open_index: OpenIndex<'_>, empty: &Applied) -> Result<(Box<dyn Index>, Applied), String> {
    let index = open_index(IndexStart::AsItIs).map_err(|error| error.to_string())?;
    let applied: Option<Applied> = schema::get(&*index, key::applied()).map_err(|error| error.to_string())?;
    let Some(applied) = applied else {
        let rows = index.scan(&[], &[u8::MAX], 1).map_err(|error| error.to_string())?;
        return if rows.is_empty() {
            Ok((index, empty.clone()))
        } else {
            Err("it has no mark of its place".to_owned())
        };
    };
    if applied.version != INDEX_VERSION {
        return Err(format!("it has index version {}, this orlop writes {INDEX_VERSION}", applied.version));
    }
    if applied.store != empty.store {
        return Err("it belongs to another store".to_owned());
    }
    Ok((index, applied))
}

fn nothing_applied() -> Applied {
    let chain = journal::Mark::ORIGIN.chain.0;
    Applied {
        version: INDEX_VERSION,
        store: [0; 16],
        lsn: 0,
        local: 0,
        chain,
        time_ms: 0,
        organisations: 0,
        repositories: 0,
        manifests: 0,
        next_segment: 1,
    }
}

enum ReplayError {
    Journal(JournalError),
    Record(DecodeError),
    Schema(SchemaError),
}

impl From<JournalError> for ReplayError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl From<ReplayError> for OpenError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Journal(error) => error.into(),
            ReplayError::Record(error) => error.into(),
            ReplayError::Schema(error) => error.into(),
        }
    }
}

/// Whether the index itself is bad, so that building it anew helps.
fn is_damage(error: &SchemaError) -> bool {
    !matches!(error, SchemaError::Index(IndexError::Failed(_)))
}

fn replay(
    disk: &dyn Disk,
    options: &JournalOptions,
    index: &dyn Index,
    mut applied: Applied,
    recovery: &mut Recovery,
) -> Result<(Applied, ReadJournal), ReplayError> {
    let from = mark(&applied);
    let read = journal::read(disk, options, from, |batch: Batch| {
        recovery.replayed_records += batch.records.len() as u64;
        recovery.replayed_bytes += batch.records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
        replay_batch(index, &mut applied, &batch)
    })?;
    Ok((applied, read))
}

fn replay_batch(index: &dyn Index, applied: &mut Applied, batch: &Batch) -> Result<(), ReplayError> {
    let mut overlay = Overlay::new(index);
    applied.time_ms = batch.time_ms;
    applied.chain = batch.chain.0;
    for raw in &batch.records {
        let record = match raw.class {
            RecordClass::Logical => Operation::decode(&raw.payload).map(Record::Logical),
            RecordClass::Local => LocalRecord::decode(&raw.payload).map(Record::Local),
        };
        let record = record.map_err(ReplayError::Record)?;
        apply::record(&mut overlay, applied, &record).map_err(ReplayError::Schema)?;
    }
    schema::put(&mut overlay, key::applied(), applied);
    index.write(&overlay.into_changes()).map_err(|error| ReplayError::Schema(error.into()))
}

fn has_segments(disk: &dyn Disk) -> Result<bool, OpenError> {
    match disk.list("segments") {
        Ok(entries) => Ok(!entries.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::io("list the segments".to_owned(), error)),
    }
}

fn open_segments(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    store_id: [u8; 16],
    index: &dyn Index,
    applied: &Applied,
) -> Result<Segments, OpenError> {
    let mut listed = Vec::new();
    schema::each_row(index, &[Table::Segments as u8], |key, value| {
        let row = SegmentRow::from_bytes(value)?;
        let kind = if row.single { SegmentKind::Single } else { SegmentKind::Shared };
        let number = SegmentNumber(number(key));
        listed.push(ListedSegment { number, kind, committed_end: row.committed_end, sealed: row.sealed });
        Ok(ControlFlow::Continue(()))
    })?;
    schema::each_row(index, &[Table::Uploads as u8], |_, value| {
        let row = UploadRow::from_bytes(value)?;
        let committed_end = SingleWriter::committed_end(row.bytes);
        let (number, kind) = (row.segment, SegmentKind::Single);
        listed.push(ListedSegment { number, kind, committed_end, sealed: false });
        Ok(ControlFlow::Continue(()))
    })?;
    let segment_options = SegmentOptions {
        shared_bytes_max: options.shared_segment_bytes_max,
        open_files_max: options.open_files_max,
        reserve_bytes: options.reserve_bytes,
        ..SegmentOptions::new(store_id)
    };
    let disk = Arc::clone(disk);
    let (segments, report) =
        Segments::open(disk, segment_options, applied.next_segment, listed, UnlistedFiles::Remove)?;
    tracing::debug!(?report, "segments opened");
    Ok(segments)
}

/// The number at the end of a key of the segments table.
fn number(key: &[u8]) -> u64 {
    key[1..].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The wall clock in Unix milliseconds; a clock before 1970 counts as that.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
