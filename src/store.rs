//! The store: one facade over segments, journal, state and index.
//!
//! - `open`: from a directory to a state that serves; recovery and rebuild.
//! - `base`: what an index is built from: a snapshot, or the journal's origin.
//! - `submit`: changes on their way to the committer.
//! - `commit`: the committer, one thread that decides, journals, applies, acknowledges.
//! - `flush`: the thread that makes the index durable now and then.
//! - `snapshot`: the thread that writes snapshots, so that the journal before them can go.
//! - `repair`: a journal that is damaged in its middle.
//! - `upload`: bytes on their way in.
//! - `read`: bytes on their way out.
//! - `pace`: how fast background work may go; reading content for itself.
//! - `space`: bytes that go, for who knows that nobody needs them.
//! - `condition`: what is known of its files without reading them.
//! - `clock`: where the time of operations comes from.
//! - `format`: the file that says what the directory is.
//! - `error`: why something was not done.
//!
//! What is acknowledged is durable: segment bytes are synced, then the journal that names them, then the index is changed
//! and the caller told. After a failed sync the store is poisoned: reads go on, writes are refused until it is opened
//! again. It is synchronous; callers on an async runtime run it on threads that may block.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock, PoisonError},
};

use crate::{
    digest::{Algorithm, Digest},
    disk::{Disk, Reach, Syncs},
    index::{Index, View, schema::SchemaError},
    journal::{ReadJournal, operation::SessionId},
    location::{Location, RecordKind, SegmentNumber},
    name::{Owner, RepositoryName},
    segment::{Look, SegmentError, Segments},
    state::{dump, request::Request},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

mod accounts;
mod base;
mod clock;
mod commit;
mod condition;
mod error;
mod flush;
mod format;
mod open;
mod pace;
mod read;
mod repair;
mod reserve;
mod snapshot;
mod space;
mod submit;
#[cfg(test)]
mod tests;
mod upload;

pub use accounts::Hold;
pub use clock::Clock;
pub use commit::Reply;
pub use condition::{History, Lost, Reserve, formats};
pub use error::{OpenError, StoreError};
pub use open::{IndexStart, OpenIndex, Opening, Recovery};
pub use pace::Pace;
pub use read::StoredContent;
pub use repair::GivenUp;
pub use snapshot::SnapshotReport;
pub use upload::Upload;

pub use crate::segment::{FilePiece, Piece, VerifyReads};

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// An upload that passes this many bytes gets a segment of its own; smaller ones are buffered.
    pub large_blob_bytes: u64,
    /// Most bytes that all buffered uploads hold together; above it an upload gets a segment of its own at once.
    pub buffered_bytes_max: u64,
    /// Length in bytes at which a shared segment is ended.
    pub shared_segment_bytes_max: u64,
    /// Segment files that are kept open for reading.
    pub open_files_max: usize,
    /// Which reads of large content are checked.
    pub verify_reads: VerifyReads,
    /// Bytes that uploads leave free on the disk.
    pub reserve_bytes: u64,
    /// Bytes of journal after which the index is flushed: what a start has to replay at most, about.
    pub flush_bytes: u64,
    /// Length in bytes at which a journal file is ended.
    pub journal_file_bytes_max: u64,
    /// Bytes of journal after which a snapshot of it is written, at least; three quarters of the last snapshot's where that
    /// is more. `u64::MAX` for never.
    pub snapshot_bytes_min: u64,
    /// Requests that may wait for the committer.
    pub queue_max: usize,
    /// Bytes of rows of the index that are held in memory because they are read often, about.
    pub row_cache_bytes: usize,
    /// Bytes of RocksDB's block cache.
    pub index_cache_bytes: usize,
    /// Bytes of rows that RocksDB holds in memory before they are on disk.
    pub index_memtable_bytes: usize,
    /// How long content that no manifest names is kept after its last upload, in milliseconds.
    pub grace_ms: u64,
    /// How long a manifest that nothing reaches any more can be restored, in milliseconds.
    pub window_ms: u64,
    /// Where the time of operations comes from.
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            large_blob_bytes: 1 << 20,
            buffered_bytes_max: 64 << 20,
            shared_segment_bytes_max: 256 << 20,
            open_files_max: 1_024,
            verify_reads: VerifyReads::First,
            reserve_bytes: 256 << 20,
            flush_bytes: 8 << 20,
            journal_file_bytes_max: 16 << 20,
            snapshot_bytes_min: 64 << 20,
            queue_max: 4_096,
            row_cache_bytes: 32 << 20,
            index_cache_bytes: 128 << 20,
            index_memtable_bytes: 96 << 20,
            grace_ms: 24 * 60 * 60 * 1_000,
            window_ms: 14 * 24 * 60 * 60 * 1_000,
            clock: Clock::default(),
        }
    }
}

/// A store that is open. Share it behind an [`Arc`]: all calls may be made by many threads at once. Closing it, or dropping
/// it, stops its threads; its directory is locked until the last [`Upload`] and [`StoredContent`] of it is dropped, too.
///
/// ```
/// # #[cfg(feature = "rocksdb")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// use orlop::{Algorithm, Digest, Store, StoreOptions};
///
/// let store = Store::open(directory.path(), StoreOptions::default())?;
/// let repository = "ci/outputs".parse()?;
///
/// // Durable when `put` returns.
/// let digest = store.put(&repository, Algorithm::Sha256, b"an object file")?;
/// let content = store.content(&digest)?.ok_or("it was just put")?;
/// assert_eq!(content.read_all()?, b"an object file"[..]);
///
/// // What is not there is `None`; what is there and damaged is an error.
/// let other = Digest::of(Algorithm::Sha256, b"another one");
/// assert!(store.content(&other)?.is_none());
///
/// store.close()?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "rocksdb"))]
/// # fn main() {}
/// ```
pub struct Store {
    shared: Arc<Shared>,
    committer: commit::Committer,
    flusher: flush::Flusher,
    snapshots: snapshot::Snapshots,
    recovery: Recovery,
}

/// What the store's threads and its callers share.
struct Shared {
    disk: Arc<dyn Disk>,
    /// What became of all syncs of that disk.
    syncs: Syncs,
    index: Box<dyn Index>,
    accounts: Arc<accounts::Accounts>,
    segments: Segments,
    options: StoreOptions,
    store_id: [u8; 16],
    /// Why no more writes are taken.
    poison: OnceLock<String>,
    /// The journal as it was read, when it is damaged: then the store is poisoned from the start.
    damaged_journal: Mutex<Option<ReadJournal>>,
    /// Whether the next batch is to begin another journal file.
    end_journal_file: AtomicBool,
    /// Content whose stored copy was found to be damaged: the next upload replaces it.
    damaged: Mutex<HashSet<Digest>>,
    /// Records that were written for requests that came to nothing. The next batch says so.
    discards: Mutex<Vec<(Location, u64)>>,
    /// Bytes that buffered uploads hold.
    buffered: AtomicU64,
    /// Journal bytes since the last flush of the index.
    unflushed: AtomicU64,
    /// Journal bytes since the last snapshot.
    growth: snapshot::Growth,
    /// Segments that were there at the open.
    found: space::Found,
    /// Held by whoever writes a snapshot.
    snapshotting: Mutex<()>,
    /// Keeps other processes out; last, so that it is released after all files.
    _lock: Box<dyn Send + Sync>,
}

impl Shared {
    fn poisoned(&self) -> Option<StoreError> {
        self.poison.get().map(|reason| StoreError::Unavailable(reason.clone()))
    }

    /// Whether what was synced a moment ago is on the disk for certain: a sync of another file that failed meanwhile can have
    /// taken it along, and this one succeeds all the same. One that has failed ends all writes.
    fn all_synced(&self) -> Result<(), StoreError> {
        if let Some(failure) = self.syncs.failure() {
            let reason = format!(
                "{failure}; what was written before, whoever wrote it, may not be on the disk: restart orlop when that is in order"
            );
            self.poison(reason.clone());
            return Err(StoreError::Unavailable(reason));
        }
        self.index.flushed().map_err(|error| self.index_failed(&error.into()))
    }

    fn index_failed(&self, error: &SchemaError) -> StoreError {
        let reason = format!("the store takes no writes since its index failed: {error}; restart orlop");
        self.poison(reason.clone());
        StoreError::Unavailable(reason)
    }

    /// Ends all writes. The first reason stays.
    fn poison(&self, reason: String) {
        if self.poison.set(reason.clone()).is_ok() {
            tracing::error!(reason, "the store takes no more writes; reads go on");
        }
    }

    /// What a failed call on segments means for the store: a failed sync is the end of all writes.
    fn segment_failed(&self, error: SegmentError) -> StoreError {
        if error.is_poisoned() {
            self.poison(error.to_string());
        }
        error.into()
    }

    /// Removes a segment that the journal does not name. Where that fails, the next start does it.
    fn remove_unlisted(&self, segment: SegmentNumber) {
        if let Err(error) = self.segments.remove(segment) {
            tracing::warn!(%error, segment.id = segment.0, "an unused segment stays until the next start");
        }
    }

    fn snapshot_within(&self, reach: Reach) -> Box<dyn View + '_> {
        match reach {
            Reach::Memory => self.index.in_memory(),
            Reach::Disk => self.index.snapshot(),
        }
    }

    fn discards(&self) -> MutexGuard<'_, Vec<(Location, u64)>> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens the store in a directory of the file system, creating it when the directory is empty or missing.
    ///
    /// # Errors
    /// When another process has it, when it is no store or one of an unknown version, and when its journal is damaged.
    #[cfg(feature = "rocksdb")]
    pub fn open(directory: impl Into<std::path::PathBuf>, options: StoreOptions) -> Result<Self, OpenError> {
        Self::open_as(directory, options, Opening::Usual)
    }

    /// As [`Store::open`], and does something beside it.
    ///
    /// # Errors
    /// As [`Store::open`], and when there is no reason to do what was asked for.
    #[cfg(feature = "rocksdb")]
    pub fn open_as(
        directory: impl Into<std::path::PathBuf>,
        options: StoreOptions,
        opening: Opening,
    ) -> Result<Self, OpenError> {
        use crate::index::rocks::{RocksIndex, RocksOptions};
        let directory = directory.into();
        let disk = crate::disk::RealDisk::new(&directory)
            .map_err(|error| OpenError::io(format!("open directory {}", directory.display()), error))?;
        let path = directory.join(open::INDEX_DIRECTORY);
        let rocks = RocksOptions {
            cache_bytes: options.index_cache_bytes,
            memtable_bytes: options.index_memtable_bytes,
            ..RocksOptions::default()
        };
        Self::open_on_as(Arc::new(disk), options, opening, &|start| {
            if start == IndexStart::Empty {
                RocksIndex::destroy(&path)?;
            }
            Ok(Box::new(RocksIndex::open(&path, &rocks)?))
        })
    }

    /// Opens the store on any disk, with any index; creates it when the disk is empty.
    ///
    /// # Errors
    /// When another process has it, when it is no store or one of an unknown version, and when its journal is damaged.
    pub fn open_on(disk: Arc<dyn Disk>, options: StoreOptions, index: OpenIndex<'_>) -> Result<Self, OpenError> {
        Self::open_on_as(disk, options, Opening::Usual, index)
    }

    /// As [`Store::open_on`], and does something beside it.
    ///
    /// # Errors
    /// As [`Store::open_on`], and when there is no reason to do what was asked for.
    pub fn open_on_as(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        opening: Opening,
        index: OpenIndex<'_>,
    ) -> Result<Self, OpenError> {
        let opened = match open::open(Arc::clone(&disk), options.clone(), opening, index) {
            // In rows that nothing before has read. The index is derived: that is no reason to stay down.
            Err(OpenError::Schema(error)) if opening == Opening::Usual && open::is_damage(&error) => {
                tracing::warn!(%error, "the index is damaged");
                let mut opened = open::open(disk, options, Opening::RebuildIndex, index)?;
                (opened.recovery.rebuilt, opened.recovery.index_was_damaged) = (Some(error.to_string()), true);
                opened
            }
            opened => opened?,
        };
        let shared = Arc::new(opened.shared);
        let flusher = flush::Flusher::start(Arc::clone(&shared));
        let snapshots = snapshot::Snapshots::start(Arc::clone(&shared));
        let wakers = commit::Wakers { flush: flusher.waker(), snapshot: snapshots.waker() };
        let committer = commit::Committer::start(Arc::clone(&shared), opened.journal, opened.applied, wakers);
        Ok(Self { shared, committer, flusher, snapshots, recovery: opened.recovery })
    }

    /// What opening had to do.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The settings.
    pub fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    /// Why writes are refused, if they are.
    pub fn poisoned(&self) -> Option<String> {
        // A sync that has failed since the last batch is a reason, too.
        let _ = self.shared.all_synced();
        self.shared.poison.get().cloned()
    }

    /// The state as it is now; later changes do not show in it.
    pub fn snapshot(&self) -> Box<dyn View + '_> {
        self.shared.index.snapshot()
    }

    /// The same; where `reach` is memory, reads of what is not there end in an error.
    pub fn snapshot_within(&self, reach: Reach) -> Box<dyn View + '_> {
        self.shared.snapshot_within(reach)
    }

    /// Rows that are in memory, each as it is when it is read.
    pub fn at_hand(&self) -> Box<dyn View + '_> {
        self.shared.index.at_hand()
    }

    /// Opens some content by its digest, whoever has it.
    ///
    /// # Errors
    /// When the index or the segment fails, or is damaged. What is not there is `None`.
    pub fn content(&self, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        self.content_within(Reach::Disk, digest)
    }

    /// The same as far as `reach`. Where that is memory, reads of large content still go to the disk.
    ///
    /// # Errors
    /// As [`content`](Self::content), and [`StoreError::OutOfReach`].
    pub fn content_within(&self, reach: Reach, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        let look = if reach == Reach::Memory { Look::AtOnce } else { Look::Usual };
        read::content(&self.shared, digest, look)
    }

    /// Begins an upload.
    pub fn upload(&self) -> Upload {
        Upload::new(Arc::clone(&self.shared), Algorithm::Sha256)
    }

    /// Goes on with an upload of an earlier run that was marked: what it has is read and hashed.
    ///
    /// # Errors
    /// When its segment cannot be read.
    pub fn resume_upload(&self, segment: SegmentNumber, bytes: u64) -> Result<Upload, StoreError> {
        Upload::resume(Arc::clone(&self.shared), segment, bytes)
    }

    /// Stores a whole blob in a repository; durable on return. Without a manifest that names it there it is kept for the
    /// grace, counted from its last upload.
    ///
    /// # Errors
    /// When the disk is full or the store takes no writes.
    pub fn put(&self, repository: &RepositoryName, algorithm: Algorithm, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut upload = Upload::new(Arc::clone(&self.shared), algorithm);
        upload.write(bytes)?;
        let digest = upload.digest(algorithm)?;
        self.finish_upload(upload, repository, digest, None, None)?;
        Ok(digest)
    }

    /// What an upload to a repository holds of its limits: nothing yet.
    pub fn hold(&self, repository: &RepositoryName) -> Hold {
        Hold::new(&self.shared.accounts, repository)
    }

    /// What open uploads hold of an owner's limit, in bytes.
    pub fn held_bytes(&self, owner: &Owner) -> u64 {
        self.shared.accounts.held_bytes(owner)
    }

    /// Ends an upload: its bytes become a blob of the repository, durably. `session` names it where it was marked, `hold` is
    /// what it holds of limits.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`], and whatever keeps it from being stored; the upload is gone then. Where not
    /// even that could be journaled, a marked one is there as it was marked.
    pub fn finish_upload(
        &self,
        upload: Upload,
        repository: &RepositoryName,
        digest: Digest,
        session: Option<SessionId>,
        hold: Option<Hold>,
    ) -> Result<(), StoreError> {
        let grace_ms = self.shared.options.grace_ms;
        let held_bytes = hold.as_ref().map_or(0, Hold::bytes);
        let commit = |content| {
            let repository = repository.clone();
            self.commit(Request::Upload { repository, content, session, held_bytes, grace_ms })
        };
        let end = || {
            let Some(session) = session else { return true };
            let ended = self.commit(Request::EndUpload { session });
            ended.inspect_err(|error| tracing::warn!(%error, "a failed upload stays in the journal")).is_ok()
        };
        let finished = upload.finish(digest, RecordKind::Blob, commit, end);
        if let (Ok(()), Some(hold)) = (&finished, hold) {
            hold.spent();
        }
        finished
    }

    /// Writes content and names it nowhere, as the first half of an upload does: for tests that want the second halves of
    /// several in one batch.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn stage(
        &self,
        kind: RecordKind,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<crate::state::request::Content, StoreError> {
        upload::stage(&self.shared, kind, digest, bytes)
    }

    /// Removes the segment of an upload that the journal names no more.
    pub fn remove_unlisted(&self, segment: SegmentNumber) {
        self.shared.remove_unlisted(segment);
    }

    /// Gives every row of the index as a line of text.
    ///
    /// # Errors
    /// When the index fails or is damaged.
    pub fn dump(&self, line: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
        Ok(dump::dump(&*self.snapshot(), line)?)
    }

    /// Writes a snapshot of the journal now, whatever it has grown by, and removes what lies below the previous one. The store
    /// does that by itself when it is time; this is for whoever wants it at a moment of their own. `None` when the newest
    /// snapshot stands at the present state already.
    ///
    /// # Errors
    /// When the disk is full or fails, or the index is damaged: the old ones stay then. When a sync failed the store takes no more
    /// writes.
    pub fn write_snapshot(&self) -> Result<Option<SnapshotReport>, StoreError> {
        Ok(snapshot::write(&self.shared, snapshot::Wanted::WhenNew, &mut || Ok(()))?)
    }

    /// Ends the threads and makes the index durable, so that the next open replays nothing.
    ///
    /// # Errors
    /// When the index cannot be flushed; nothing is lost, the next open replays the journal.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.snapshots.stop();
        self.committer.stop();
        self.flusher.stop();
        Ok(self.shared.index.flush()?)
    }

    /// Journal bytes that a start would replay now.
    pub fn unflushed_bytes(&self) -> u64 {
        self.shared.unflushed.load(Ordering::Relaxed)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.snapshots.stop();
        self.committer.stop();
        self.flusher.stop();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared.disk.root().display())
    }
}
