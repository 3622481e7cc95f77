//! From a directory to a state that serves.
//!
//! The index stands at some point of the journal's history. When that point is found in the journal, what follows is
//! replayed; when it is not (the index is missing, older than the journal's files, beyond its end, of another store, or
//! damaged), it is built from the newest sound snapshot, or from the origin. Before that the journal's last file is written
//! anew; then segments are cut at what the journal names, and files that nothing names are removed.
//!
//! Damage in the middle of the journal is bridged by nothing but an index or a snapshot that stands behind it, and the store
//! takes no writes then (`repair`). Where neither does, the open is refused.

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::{
    codec::DecodeError,
    disk::{Disk, Syncs},
    index::{
        self, Index, IndexError, Overlay,
        cached::CachedIndex,
        schema::{self, Applied, INDEX_VERSION, RowValue, SchemaError, SegmentRow, Table, UploadRow, key},
    },
    journal::{
        self, Batch, Journal, JournalError, JournalOptions, LOST_DIRECTORY, Position, ReadJournal, RecordClass, Survey,
        operation::{LocalRecord, Operation, Record},
        snapshot,
    },
    location::SegmentNumber,
    segment::{ListedSegment, OpenReport, SegmentKind, SegmentOptions, Segments, SingleWriter, UnlistedFiles},
    state::{apply, facts::mark},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use super::{
    OpenError, Shared, StoreOptions,
    accounts::Accounts,
    base, format,
    repair::{self, GivenUp},
    reserve,
    snapshot::{Growth, trim},
    space::Found,
};

/// The directory of RocksDB, below the disk's root.
pub(super) const INDEX_DIRECTORY: &str = index::DIRECTORY;

/// How an index is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexStart {
    /// With the rows that it has.
    AsItIs,
    /// Without rows: what was there is destroyed.
    Empty,
}

/// What an open is to do beside opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Opening {
    /// Nothing.
    #[default]
    Usual,
    /// Destroy the index, once there is something to build it from, and build it anew.
    RebuildIndex,
    /// Give up what the journal had after the first damage in it, and build the index from what is before. Refused unless
    /// the damage comes right after this LSN: who says so has read what is lost.
    LoseAfter(u64),
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
    /// Whether that was because its files or rows were damaged: not because they were missing, old, or another store's.
    pub index_was_damaged: bool,
    /// The snapshot that the index was built from, if it was; its path below the data directory.
    pub snapshot: Option<String>,
    /// Facts that were loaded from it.
    pub loaded_facts: u64,
    /// Records that were replayed.
    pub replayed_records: u64,
    /// Bytes of those records.
    pub replayed_bytes: u64,
    /// Records that the index or a snapshot had and the journal has not: acknowledged history that is lost. What a snapshot
    /// had of it is in the state; an index that knew more went to `lost/`, and so did segments that nothing names any more.
    pub lost_records: u64,
    /// Bytes of a torn batch at the journal's end, never acknowledged, that were cut.
    pub journal_cut_bytes: u64,
    /// What was cut, removed and moved among the segments.
    pub segments: OpenReport,
    /// Why the store takes no writes: its journal is damaged before the state that the index holds.
    pub read_only: Option<String>,
    /// What was given up, if that was asked for.
    pub given_up: Option<GivenUp>,
    /// Time of the last operation before, in Unix milliseconds; 0 for a new store.
    pub last_operation_ms: u64,
    /// What the clock said, in Unix milliseconds.
    pub opened_ms: u64,
    /// How long it all took.
    pub duration: Duration,
}

pub(super) struct Opened {
    pub(super) shared: Shared,
    /// `None` where it is damaged.
    pub(super) journal: Option<Journal>,
    pub(super) applied: Applied,
    pub(super) recovery: Recovery,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    opening: Opening,
    index: OpenIndex<'_>,
) -> Result<Opened, OpenError> {
    let began = Instant::now();
    let (disk, syncs) = Syncs::watch(disk);
    // Before the lock, which would leave a file in a directory that is somebody else's.
    format::read(&*disk)?;
    let lock = disk.lock("lock").map_err(|error| OpenError::io("lock the data directory".to_owned(), error))?;
    let lock = lock.ok_or_else(|| OpenError::InUse(disk.root().display().to_string()))?;
    let mut recovery = Recovery::default();
    let format = match format::read(&*disk)? {
        Some(format) => format,
        None => {
            recovery.created = true;
            format::create(&*disk, options.clock.now_ms())?
        }
    };
    let journal_options =
        JournalOptions { file_bytes_max: options.journal_file_bytes_max, ..JournalOptions::new(format.store) };
    // Before the index is touched: without a journal it may be all that is left to know what the segments hold.
    if is_empty(&*disk, journal::DIRECTORY)? && !is_empty(&*disk, "segments")? {
        return Err(OpenError::Format {
            directory: disk.root().display().to_string(),
            problem: "it has segments but no journal, which alone knows what they hold; put the journal directory back"
                .to_owned(),
        });
    }
    reserve::spend_if_short(&*disk, &options);
    let store_id = format.store;
    let (index, applied, read, segments) = if let Opening::LoseAfter(lsn) = opening {
        let (index, applied, survey) = repair::give_up(&*disk, &journal_options, index, lsn, &mut recovery)?;
        // Before the journal: while that is damaged, a crash here is met by the same refusal, and not by an open that would
        // remove segments which it does not name any more.
        let segments = open_segments(&disk, &options, store_id, &*index, &applied, UnlistedFiles::MoveToLost)?;
        (index, applied, Read::Started(survey.cut(Arc::clone(&disk))?), Some(segments))
    } else {
        let (started, cut_bytes) = start_if_sound(&disk, &journal_options)?;
        let (index, applied, read) = match_journal(&*disk, &journal_options, index, opening, &mut recovery)?;
        recovery.journal_cut_bytes = cut_bytes;
        let read = match (&recovery.read_only, started) {
            (Some(_), _) => Read::Damaged(read),
            (None, Some(journal)) if journal.mark() == read.end() => Read::Started(journal),
            (None, _) => Read::Started(Journal::start(Arc::clone(&disk), read)?),
        };
        (index, applied, read, None)
    };
    // The start has synced the names of all snapshots, so what they stand for can go. Where history is lost, all is kept.
    if recovery.lost_records == 0 && recovery.read_only.is_none() {
        trim(&*disk);
    }
    let growth = Growth::read(&*disk, options.snapshot_bytes_min)?;
    let unlisted = match &recovery {
        recovery if recovery.read_only.is_some() => UnlistedFiles::Leave,
        recovery if recovery.lost_records > 0 => UnlistedFiles::MoveToLost,
        _ => UnlistedFiles::Remove,
    };
    let (segments, found, report) = match segments {
        Some(segments) => segments,
        None => open_segments(&disk, &options, store_id, &*index, &applied, unlisted)?,
    };
    let (journal, damaged_journal) = match read {
        Read::Started(journal) => (Some(journal), None),
        Read::Damaged(read) => (None, Some(read)),
    };
    let poison = OnceLock::new();
    if let Some(reason) = &recovery.read_only {
        poison.get_or_init(|| reason.clone());
    }
    if recovery.read_only.is_none() {
        reserve::keep(&*disk, &options);
    }
    recovery.segments = report;
    recovery.duration = began.elapsed();
    recovery.last_operation_ms = applied.time_ms;
    recovery.opened_ms = options.clock.now_ms();
    let accounts = Arc::new(Accounts::load(&*index)?);
    let shared = Shared {
        disk,
        syncs,
        accounts,
        index: Box::new(CachedIndex::new(index, options.row_cache_bytes)),
        segments,
        unflushed: AtomicU64::new(recovery.replayed_bytes),
        options,
        store_id,
        growth,
        found,
        snapshotting: Mutex::default(),
        poison,
        damaged_journal: Mutex::new(damaged_journal),
        end_journal_file: AtomicBool::new(false),
        damaged: Mutex::default(),
        discards: Mutex::default(),
        buffered: AtomicU64::new(0),
        _lock: lock,
    };
    Ok(Opened { shared, journal, applied, recovery })
}

/// The journal, as far as it can be gone on with.
enum Read {
    Started(Journal),
    Damaged(ReadJournal),
}

/// Makes the journal's end durable before the index is built on it, which otherwise could be ahead of it after a power cut
/// in the middle of this open. Where the journal is not sound, matching it with the index tells what can be done. How many
/// bytes after the end were cut.
fn start_if_sound(disk: &Arc<dyn Disk>, options: &JournalOptions) -> Result<(Option<Journal>, u64), OpenError> {
    match journal::read_end(&**disk, options) {
        Ok(read) if !read.is_new() => {
            let cut_bytes = read.cut_bytes();
            Ok((Some(Journal::start(Arc::clone(disk), read)?), cut_bytes))
        }
        _ => Ok((None, 0)),
    }
}

/// Brings the index to the journal's end: from where it stands if that is in the journal, else from a base.
fn match_journal(
    disk: &dyn Disk,
    options: &JournalOptions,
    open_index: OpenIndex<'_>,
    opening: Opening,
    recovery: &mut Recovery,
) -> Result<(Box<dyn Index>, Applied, ReadJournal), OpenError> {
    let empty = empty(options);
    let newest = snapshot::list(disk)?.first().map_or(Position::default(), |newest| newest.position);
    let mut stood = Position::default();
    let mut index_was_damaged = false;
    let reason = match stand(open_index, &empty)? {
        Stand::Of(_, applied) if mark(&applied) == journal::Mark::ORIGIN && newest > stood => None,
        Stand::Of(index, applied) => {
            stood = mark(&applied).position;
            match replay(disk, options, &*index, applied, Way::Whole, recovery) {
                _ if opening == Opening::RebuildIndex => Some("somebody asked for that".to_owned()),
                Ok((applied, read)) if !base::is_beyond(disk, options, read.end().position)? => {
                    return Ok((index, applied, read));
                }
                Ok(_) => Some("a snapshot stands beyond the journal's end".to_owned()),
                Err(ReplayError::Journal(JournalError::NotInHistory { .. })) => {
                    Some("its place is not in the journal".to_owned())
                }
                // Below a snapshot the journal is superfluous, and so is damage in it.
                Err(ReplayError::Journal(error)) if stood < newest && !matches!(error, JournalError::Io { .. }) => {
                    Some(error.to_string())
                }
                Err(ReplayError::Schema(error)) if is_damage(&error) => {
                    index_was_damaged = true;
                    Some(error.to_string())
                }
                Err(ReplayError::Journal(error)) if error.is_damage() => {
                    let reached = replay_behind(disk, options, &*index, &error, recovery);
                    let (applied, read) = reached.map_err(|_| repair::refused(disk, options, error))?;
                    return Ok((index, applied, read));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Stand::Nowhere { reason, is_damaged } => {
            index_was_damaged = is_damaged;
            Some(reason)
        }
    };
    // Before anything is destroyed.
    let base = base::find(disk, options).map_err(|error| match error {
        OpenError::Journal(error) if error.is_damage() => repair::refused(disk, options, error),
        error => error,
    })?;
    let lost_records = base.lost_records + keep_if_ahead(disk, stood, base.end())?;
    tracing::warn!(reason, "building the index anew from the journal");
    let created = recovery.created;
    *recovery = Recovery { rebuilt: reason, index_was_damaged, created, lost_records, ..Recovery::default() };
    let index = open_index(IndexStart::Empty)?;
    let applied = base.load(disk, &*index, empty, recovery)?;
    recovery.read_only = base.damage.as_ref().map(repair::reason);
    let way = if base.damage.is_some() { Way::Behind } else { Way::Whole };
    if let Some(read) = base.into_journal_beyond_its_end() {
        return Ok((index, applied, read));
    }
    let (applied, read) = replay(disk, options, &*index, applied, way, recovery)?;
    Ok((index, applied, read))
}

/// Brings an index that stands behind the damage to the journal's end. A replay may have moved it before it met the damage.
fn replay_behind(
    disk: &dyn Disk,
    options: &JournalOptions,
    index: &dyn Index,
    damage: &JournalError,
    recovery: &mut Recovery,
) -> Result<(Applied, ReadJournal), ReplayError> {
    let applied = schema::expect(index, key::applied()).map_err(ReplayError::Schema)?;
    let reached = replay(disk, options, index, applied, Way::Behind, recovery)?;
    recovery.read_only = Some(repair::reason(damage));
    Ok(reached)
}

/// An index that stands where neither journal nor snapshot have come to proves that acknowledged history is lost: a damaged
/// last batch, which by itself looks torn, or an older copy of the journal. What it knows is kept for whoever repairs that;
/// how many records are lost at least.
pub(super) fn keep_if_ahead(disk: &dyn Disk, stood: Position, end: Position) -> Result<u64, OpenError> {
    let lost = end.records_until(stood);
    if lost == 0 {
        return Ok(0);
    }
    tracing::error!(
        index = %stood,
        journal = %end,
        "the journal ends before what was acknowledged: its end is damaged, or an older copy was put back; what the index \
         knew beyond it goes to lost/"
    );
    if !is_empty(disk, INDEX_DIRECTORY)? {
        keep_index(disk, stood).map_err(|error| OpenError::io("move the index to lost/".to_owned(), error))?;
    }
    Ok(lost)
}

/// The same backup can be put back twice: the name that an index of this place would get may be taken.
pub(super) fn keep_index(disk: &dyn Disk, stood: Position) -> std::io::Result<()> {
    disk.create_dir(LOST_DIRECTORY)?;
    let taken = disk.list(LOST_DIRECTORY)?;
    let mut name = format!("index-{}-{}", stood.lsn, stood.local);
    for copy in 1_u64.. {
        if taken.iter().all(|entry| entry.name != name) {
            break;
        }
        name = format!("index-{}-{}.{copy}", stood.lsn, stood.local);
    }
    disk.rename(INDEX_DIRECTORY, &format!("{LOST_DIRECTORY}/{name}"))?;
    disk.sync_dir(LOST_DIRECTORY)?;
    disk.sync_dir("")
}

/// Where an index stands.
pub(super) enum Stand {
    Of(Box<dyn Index>, Applied),
    /// It is of no use, and why; whether it is damaged, or only of another version or store.
    Nowhere {
        reason: String,
        is_damaged: bool,
    },
}

/// Opens the index and finds where it stands; an empty one stands at the beginning. One that cannot be opened now (no
/// file descriptors, an I/O error) is not damaged: that is an error, and nothing is destroyed.
pub(super) fn stand(open_index: OpenIndex<'_>, empty: &Applied) -> Result<Stand, OpenError> {
    match try_stand(open_index, empty) {
        Ok(stand) => Ok(stand),
        Err(error) if is_damage(&error) => Ok(Stand::Nowhere { reason: error.to_string(), is_damaged: true }),
        Err(error) => Err(error.into()),
    }
}

fn try_stand(open_index: OpenIndex<'_>, empty: &Applied) -> Result<Stand, SchemaError> {
    let index = open_index(IndexStart::AsItIs)?;
    let applied: Option<Applied> = schema::get(&*index, key::applied())?;
    let Some(applied) = applied else {
        let rows = index.scan(&[], &[u8::MAX], 1)?;
        let is_new = rows.is_empty();
        return Ok(if is_new {
            Stand::Of(index, empty.clone())
        } else {
            Stand::Nowhere { reason: "it has no mark of its place".to_owned(), is_damaged: true }
        });
    };
    if applied.version != INDEX_VERSION {
        let reason = format!("it has index version {}, this orlop writes {INDEX_VERSION}", applied.version);
        return Ok(Stand::Nowhere { reason, is_damaged: false });
    }
    if applied.store != empty.store {
        return Ok(Stand::Nowhere { reason: "it belongs to another store".to_owned(), is_damaged: false });
    }
    Ok(Stand::Of(index, applied))
}

/// What stands at the origin.
pub(super) fn empty(options: &JournalOptions) -> Applied {
    Applied { store: options.store_id, ..nothing_applied() }
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
        settling: 0,
        reviewing: false,
        next_segment: 1,
    }
}

/// How the journal is read from a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With all of the file that the point lies in.
    Whole,
    /// Without what lies before the point.
    Behind,
}

enum ReplayError {
    Journal(JournalError),
    Record(Position, DecodeError),
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
            ReplayError::Record(after, source) => Self::Record { after, source },
            ReplayError::Schema(error) => error.into(),
        }
    }
}

/// Whether the index itself is bad, so that building it anew helps.
pub(super) fn is_damage(error: &SchemaError) -> bool {
    !matches!(error, SchemaError::Index(IndexError::Failed(_)))
}

fn replay(
    disk: &dyn Disk,
    options: &JournalOptions,
    index: &dyn Index,
    applied: Applied,
    way: Way,
    recovery: &mut Recovery,
) -> Result<(Applied, ReadJournal), ReplayError> {
    let from = mark(&applied);
    let mut replay = Replay { index, overlay: Overlay::new(index), applied, unwritten_bytes: 0 };
    let visit = |batch: Batch| {
        let bytes = batch.records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
        recovery.replayed_records += batch.records.len() as u64;
        recovery.replayed_bytes += bytes;
        replay.batch(&batch, bytes)
    };
    let read = match way {
        Way::Behind => journal::read_after(disk, options, from, visit)?,
        Way::Whole => journal::read(disk, options, from, visit)?,
    };
    replay.write()?;
    Ok((replay.applied, read))
}

/// Replays what is sound behind the place of an index without more, and tells what ends it.
pub(super) fn replay_sound(
    disk: &dyn Disk,
    options: &JournalOptions,
    index: &dyn Index,
    applied: Applied,
) -> Result<(Applied, Survey), OpenError> {
    let from = mark(&applied);
    let mut replay = Replay { index, overlay: Overlay::new(index), applied, unwritten_bytes: 0 };
    let mut replayed = Ok(());
    let survey = journal::survey(disk, options, from, &mut |batch| {
        let bytes = batch.records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
        if replayed.is_ok() {
            replayed = replay.batch(&batch, bytes);
        }
    })?;
    replayed.and_then(|()| replay.write())?;
    Ok((replay.applied, survey))
}

/// A replay under way. Many batches of the journal become one of the index: rows that each of them changes (usage,
/// segments) are then read and written once. The mark of the last one goes with them, so every write is a point of the
/// history.
struct Replay<'a> {
    index: &'a dyn Index,
    overlay: Overlay<'a>,
    applied: Applied,
    unwritten_bytes: u64,
}

impl Replay<'_> {
    /// Bytes of records whose changes are held in memory.
    const UNWRITTEN_BYTES_MAX: u64 = 1 << 20;

    fn batch(&mut self, batch: &Batch, bytes: u64) -> Result<(), ReplayError> {
        self.applied.time_ms = batch.time_ms;
        self.applied.chain = batch.chain.0;
        for raw in &batch.records {
            let record = match raw.class {
                RecordClass::Logical => Operation::decode(&raw.payload).map(Record::Logical),
                RecordClass::Local => LocalRecord::decode(&raw.payload).map(Record::Local),
            };
            let after = mark(&self.applied).position;
            let record = record.map_err(|error| ReplayError::Record(after, error))?;
            apply::record(&mut self.overlay, &mut self.applied, &record).map_err(ReplayError::Schema)?;
        }
        self.unwritten_bytes += bytes;
        if self.unwritten_bytes >= Self::UNWRITTEN_BYTES_MAX { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), ReplayError> {
        if self.unwritten_bytes == 0 {
            return Ok(());
        }
        self.unwritten_bytes = 0;
        let changes = apply::finish(&mut self.overlay, &self.applied).map_err(ReplayError::Schema)?;
        self.index.write(&changes).map_err(|error| ReplayError::Schema(error.into()))
    }
}

fn is_empty(disk: &dyn Disk, directory: &str) -> Result<bool, OpenError> {
    match disk.list(directory) {
        Ok(entries) => Ok(entries.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(OpenError::io(format!("list {directory}"), error)),
    }
}

fn open_segments(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    store_id: [u8; 16],
    index: &dyn Index,
    applied: &Applied,
    unlisted: UnlistedFiles,
) -> Result<(Segments, Found, OpenReport), OpenError> {
    let mut listed = Vec::new();
    schema::each_row_of(index, Table::Segments, |key, value| {
        let row = SegmentRow::from_bytes(value)?;
        let kind = if row.single { SegmentKind::Single } else { SegmentKind::Shared };
        let number = SegmentNumber(number(key));
        listed.push(ListedSegment { number, kind, committed_end: row.committed_end, sealed: row.sealed });
        Ok(ControlFlow::Continue(()))
    })?;
    schema::each_row_of(index, Table::Uploads, |_, value| {
        let row = UploadRow::from_bytes(value)?;
        let committed_end = SingleWriter::committed_end(row.bytes);
        let (number, kind) = (row.segment, SegmentKind::Single);
        listed.push(ListedSegment { number, kind, committed_end, sealed: false });
        Ok(ControlFlow::Continue(()))
    })?;
    let unsealed = listed.iter().filter(|segment| segment.kind == SegmentKind::Shared && !segment.sealed);
    let unsealed = unsealed.map(|segment| (segment.number, segment.committed_end)).collect();
    let segment_options = SegmentOptions {
        shared_bytes_max: options.shared_segment_bytes_max,
        open_files_max: options.open_files_max,
        reserve_bytes: options.reserve_bytes,
        verify_reads: options.verify_reads,
        ..SegmentOptions::new(store_id)
    };
    let disk = Arc::clone(disk);
    let (segments, report) = Segments::open(disk, segment_options, applied.next_segment, listed, unlisted)?;
    tracing::debug!(?report, "segments opened");
    let found = Found { next: segments.next_number(), unsealed };
    Ok((segments, found, report))
}

/// The number at the end of a key of the segments table.
fn number(key: &[u8]) -> u64 {
    key[1..].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
