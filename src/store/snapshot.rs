//! The thread that writes snapshots of the journal, so that what lies before them can go.
//!
//! It is woken when the journal has grown by three quarters of the last snapshot's size, and by a floor. From the previous
//! snapshot on, where its files begin, the journal then stays within twice the state, files that are begun included. The state
//! is read from a view of the index, which always stands at the end of a batch that is durable in the journal. After each
//! page it rests as long as the page took. A snapshot that fails leaves nothing behind, stops nothing unless a sync has failed, and
//! is tried again when the journal has grown by another quarter; closing abandons it.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    disk::Disk,
    index::{View, schema::SchemaError},
    journal::{
        JournalError, Position,
        snapshot::{self, Part, SnapshotFile, SnapshotHeader, SnapshotReader, SnapshotWriter, Trimmed},
    },
    segment::SegmentError,
    state::facts,
    sync::{
        self,
        atomic::{AtomicBool, AtomicU64, Ordering},
        thread::{self, JoinHandle, Thread},
    },
};

use super::{Shared, Store, StoreError};

/// Longest rest after a page, so that a disk that hangs for once does not hold up a snapshot for as long again.
const REST_MAX: Duration = Duration::from_secs(1);

/// What writing a snapshot came to.
#[derive(Debug, Clone)]
pub struct SnapshotReport {
    /// Its path below the data directory.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Facts in it.
    pub facts: u64,
    /// What lies below the previous snapshot and was removed.
    pub removed: Trimmed,
    /// How long it took, rests included.
    pub duration: Duration,
}

/// How far the journal has grown, and when a snapshot is due.
#[derive(Debug)]
pub(super) struct Growth {
    bytes_min: u64,
    /// Journal bytes since the last snapshot, about.
    bytes: AtomicU64,
    /// How many of them make the next one due.
    due_at: AtomicU64,
}

impl Growth {
    /// What the files tell.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn read(disk: &dyn Disk, bytes_min: u64) -> Result<Self, JournalError> {
        let newest = snapshot::list(disk)?.into_iter().next();
        let (position, len) = newest.map_or((Position::default(), 0), |newest| (newest.position, newest.len));
        let bytes = snapshot::journal_bytes_after(disk, position)?;
        let growth = Self { bytes_min, bytes: AtomicU64::new(bytes), due_at: AtomicU64::new(0) };
        growth.due_at.store(growth.step(len), Ordering::Relaxed);
        Ok(growth)
    }

    /// Growth after which a snapshot of this size is followed by another.
    fn step(&self, snapshot_len: u64) -> u64 {
        self.bytes_min.max(snapshot_len - snapshot_len / 4)
    }

    /// How much growth makes the next snapshot due, in bytes.
    pub(super) fn due_bytes(&self) -> u64 {
        self.due_at.load(Ordering::Relaxed)
    }

    fn is_due(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.due_bytes()
    }

    /// `grown` of the bytes are in a snapshot of that length now.
    fn written(&self, grown: u64, snapshot_len: u64) {
        self.bytes.fetch_sub(grown, Ordering::Relaxed);
        self.due_at.store(self.step(snapshot_len), Ordering::Relaxed);
    }

    fn postpone(&self) {
        let (bytes, due_at) = (self.bytes.load(Ordering::Relaxed), self.due_at.load(Ordering::Relaxed));
        self.due_at.store(bytes.saturating_add(self.bytes_min.max(due_at) / 4).max(1), Ordering::Relaxed);
    }
}

/// Tells the thread that the journal has grown.
pub(super) struct Waker(Option<Thread>);

impl Waker {
    pub(super) fn grew(&self, shared: &Shared, bytes: u64) {
        shared.growth.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(thread) = self.0.as_ref().filter(|_| shared.growth.is_due()) {
            thread.unpark();
        }
    }
}

pub(super) struct Snapshots {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("journal-snapshot".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if shared.growth.is_due() {
                    write_paced(&shared, &stopped);
                } else {
                    thread::park();
                }
            }
        });
        let thread = thread.inspect_err(|error| tracing::error!(%error, "cannot start the snapshot thread")).ok();
        Self { stop, thread }
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(self.thread.as_ref().map(|thread| thread.thread().clone()))
    }

    /// Abandons the snapshot that is being written, and ends the thread.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            tracing::error!("the snapshot thread has panicked");
        }
    }
}

fn write_paced(shared: &Shared, stop: &AtomicBool) {
    let mut page_began = Instant::now();
    let result = write(shared, Wanted::WhenNew, &mut || {
        let until = Instant::now() + page_began.elapsed().min(REST_MAX);
        while !stop.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                page_began = Instant::now();
                return Ok(());
            }
            sync::park_for(left);
        }
        Err(SnapshotError::Closing)
    });
    match result {
        Ok(Some(_)) | Err(SnapshotError::Closing) => {}
        // Nothing was applied since the last one: the growth that was counted lies before it.
        Ok(None) => shared.growth.postpone(),
        Err(error) => {
            shared.growth.postpone();
            let error = StoreError::from(error);
            tracing::error!(%error, "no snapshot of the journal was written; what it would have replaced stays, and it is tried again while writes are taken");
        }
    }
}

/// Why there is no snapshot.
pub(super) enum SnapshotError {
    Closing,
    Unsettled,
    Poisoned(StoreError),
    Journal(JournalError),
    Schema(SchemaError),
    Segment(SegmentError),
}

impl From<JournalError> for SnapshotError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl From<SchemaError> for SnapshotError {
    fn from(error: SchemaError) -> Self {
        Self::Schema(error)
    }
}

impl From<SegmentError> for SnapshotError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(error)
    }
}

impl From<SnapshotError> for StoreError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Closing => Self::Unavailable("the store is closing".to_owned()),
            SnapshotError::Unsettled => Self::Stopped(
                "large changes follow each other too fast; a snapshot waits until they are done".to_owned(),
            ),
            SnapshotError::Poisoned(error) => error,
            SnapshotError::Journal(error @ JournalError::Full { .. }) => Self::Full(error.to_string()),
            SnapshotError::Journal(error @ JournalError::Poisoned { .. }) => Self::Unavailable(error.to_string()),
            SnapshotError::Journal(error @ JournalError::BadSnapshot { .. }) => Self::Corrupt(error.to_string()),
            SnapshotError::Journal(error) => Self::Failed(error.to_string()),
            SnapshotError::Schema(error) => error.into(),
            SnapshotError::Segment(error) => error.into(),
        }
    }
}

/// A view, and what a snapshot of it says of itself; nothing when nothing was ever applied.
pub(super) type Settled<'a> = (Box<dyn View + 'a>, Option<SnapshotHeader>);

/// A view in which nothing is settling: facts are taken of no other.
pub(super) fn settled_view<'a>(
    shared: &'a Shared,
    pause: &mut dyn FnMut() -> Result<(), SnapshotError>,
) -> Result<Settled<'a>, SnapshotError> {
    const TRIES: usize = 1_000;
    for _ in 0..TRIES {
        let view = shared.index.snapshot();
        let header = facts::header(&*view)?;
        if header.is_none() || !facts::is_settling(&*view)? {
            return Ok((view, header));
        }
        drop(view);
        pause()?;
        sync::park_for(Duration::from_millis(2));
    }
    Err(SnapshotError::Unsettled)
}

impl Store {
    /// The state at a moment when no change of lives is under way: only then do derived rows add up. Waits for one.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when there was none in a thousand looks, some seconds; or the index fails.
    pub fn settled_snapshot(&self) -> Result<Box<dyn View + '_>, StoreError> {
        let (view, _) = settled_view(&self.shared, &mut || Ok(()))?;
        Ok(view)
    }
}

/// Which snapshot is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One that stands behind the newest.
    WhenNew,
    /// One in any case, because what is there is damaged. It replaces a newest one of the same place, and all before it goes.
    Anew,
}

/// Writes a snapshot of the state as it is now, then removes what lies below the previous one. `pause` is called after
/// each page. `None` when the newest snapshot stands there already, or nothing was ever applied.
pub(super) fn write(
    shared: &Shared,
    wanted: Wanted,
    pause: &mut dyn FnMut() -> Result<(), SnapshotError>,
) -> Result<Option<SnapshotReport>, SnapshotError> {
    let _one_at_a_time = shared.snapshotting.lock().unwrap_or_else(PoisonError::into_inner);
    // A store that takes no writes because its journal is damaged gets them back by this very snapshot.
    let is_repair = wanted == Wanted::Anew && shared.damaged_journal().is_some();
    if let Some(poisoned) = shared.poisoned().filter(|_| !is_repair) {
        return Err(SnapshotError::Poisoned(poisoned));
    }
    let began = Instant::now();
    // Before the view is taken: what is applied in between counts for the next one, too.
    let grown = shared.growth.bytes.load(Ordering::Relaxed);
    let (view, header) = settled_view(shared, pause)?;
    let Some(header) = header else { return Ok(None) };
    let newest = snapshot::list(&*shared.disk)?.into_iter().next();
    if wanted == Wanted::WhenNew && newest.is_some_and(|newest| newest.position == header.mark.position) {
        return Ok(None);
    }
    let mut writer = SnapshotWriter::create(&*shared.disk, shared.store_id, header)?;
    tracing::debug!(journal.lsn = header.mark.position.lsn, "snapshot begun");
    facts::each(&*view, &mut |fact| {
        writer.push(&fact)?;
        if writer.is_page_full() {
            shared.segments.claim(writer.pending_bytes())?;
            writer.write_page()?;
            pause()?;
        }
        Ok::<_, SnapshotError>(())
    })?;
    drop(view);
    shared.segments.claim(writer.pending_bytes())?;
    let sealed = writer.seal()?;
    tracing::debug!(bytes = sealed.bytes(), "snapshot written; reading it again");
    let facts = sealed.facts();
    let file = sealed.publish(&mut *pause)?;
    // Nothing is removed on the word of syncs of which one may have been told too much.
    shared.all_synced().map_err(SnapshotError::Poisoned)?;
    shared.growth.written(grown, file.len);
    tracing::debug!(file = file.path, "snapshot has its name; removing what lies below the previous one");
    let removed = match prove_previous(shared, wanted, pause) {
        Ok(()) if wanted == Wanted::Anew => snapshot::trim_to_newest(&*shared.disk)?,
        Ok(()) => trim(&*shared.disk),
        Err(SnapshotError::Closing) => Trimmed::default(),
        Err(error) => {
            let error = StoreError::from(error);
            tracing::warn!(%error, "the previous snapshot could not be read; what lies below it stays for now");
            Trimmed::default()
        }
    };
    let report = SnapshotReport { path: file.path, bytes: file.len, facts, removed, duration: began.elapsed() };
    tracing::info!(
        file = report.path,
        bytes = report.bytes,
        facts,
        removed_files = removed.files,
        removed_bytes = removed.bytes,
        duration_ms = report.duration.as_millis() as u64,
        "snapshot of the journal written"
    );
    Ok(Some(report))
}

/// Reads the previous snapshot, by which the journal is about to be cut, to its end. One that is damaged goes, and the one
/// before is the previous one again.
fn prove_previous(
    shared: &Shared,
    wanted: Wanted,
    pause: &mut dyn FnMut() -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    if wanted == Wanted::Anew {
        return Ok(());
    }
    for previous in snapshot::list(&*shared.disk)?.into_iter().skip(1) {
        match prove(shared, &previous, pause) {
            Err(SnapshotError::Journal(error @ JournalError::BadSnapshot { .. })) => {
                tracing::error!(%error, "a snapshot of the journal was damaged; it is removed, as a newer one is sound");
                snapshot::remove(&*shared.disk, &previous)?;
            }
            proven => return proven,
        }
    }
    Ok(())
}

fn prove(
    shared: &Shared,
    snapshot: &SnapshotFile,
    pause: &mut dyn FnMut() -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let mut reader = SnapshotReader::open(&*shared.disk, shared.store_id, snapshot)?;
    while let Part::Page(_) = reader.next_part()? {
        pause()?;
    }
    Ok(())
}

/// Removes what two snapshots stand for. What cannot be removed now is tried again after the next snapshot or start.
pub(super) fn trim(disk: &dyn Disk) -> Trimmed {
    snapshot::trim(disk).unwrap_or_else(|error| {
        tracing::warn!(%error, "superfluous files of the journal stay until the next snapshot or start");
        Trimmed::default()
    })
}
