//! The committer: the one thread that changes the state.
//!
//! It takes the requests that wait, decides each against the state that those before it leave, writes the manifests that they
//! bring along where they are needed, and makes the whole batch durable with one sync of the segments and one of the journal;
//! then it changes the index and replies. The order is the promise: segment bytes → journal → index → reply. A failed sync
//! poisons the store. Batch N+1 is not begun before N is done.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    index::schema::Applied,
    journal::{
        Journal, JournalError, RawRecord, RecordClass,
        operation::{LocalRecord, ManifestId, Record},
    },
    location::{Location, RecordKind, SegmentNumber},
    segment::{Appended, SealedSegment, SegmentError},
    state::{
        apply,
        decide::{Batch, Keeper},
        request::{Content, DROPS_PER_STEP, Outcome, Placement, Refusal, Request},
    },
    sync::{
        Mutex,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
        thread::{self, JoinHandle},
    },
};

use super::{Shared, StoreError, flush, reserve, snapshot, upload};

/// Called once with a request's result, on the committer's thread.
pub type Reply = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;

/// Requests in one batch.
const BATCH_REQUESTS_MAX: usize = 512;
/// Bytes of records at which a batch takes no more requests. A single request's records stay far below the journal's
/// bound, because manifests are bounded.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Time between tries to go on with what is settling while no batch can be written.
const POLL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
/// A step of what is settling is followed by a rest of so many times its length, for as long as requests come: clients
/// must not wait for a large change of somebody else's.
const SETTLE_RESTS: u32 = if cfg!(shuttle) { 0 } else { 4 };
/// The rests become shorter the longer anything is settling, and none are left after this time: it must come to an end while
/// requests never pause.
const SETTLE_BEHIND_MAX: Duration = Duration::from_secs(10);
/// When none has come for this long, nobody waits.
const REQUESTS_OVER: Duration = Duration::from_millis(10);

struct Job {
    request: Request,
    /// The bytes of a manifest that comes with it, which are written when they are needed.
    brought: Option<Bytes>,
    reply: Reply,
}

/// The threads that follow the journal's growth.
pub(super) struct Wakers {
    pub(super) flush: flush::Waker,
    pub(super) snapshot: snapshot::Waker,
}

/// The way to the committer's thread.
pub(super) struct Committer {
    /// `None` once the store closes.
    queue: Mutex<Option<SyncSender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(shared: Arc<Shared>, journal: Option<Journal>, applied: Applied, wakers: Wakers) -> Self {
        let (sender, receiver) = sync_channel(shared.options.queue_max);
        let work = Work {
            shared,
            journal,
            applied,
            sealed: Vec::new(),
            discards: Vec::new(),
            gone: Arc::default(),
            wakers,
            settle_at: Instant::now(),
            settle_from: 0,
            settling_since: None,
            asked_at: None,
        };
        let thread = thread::Builder::new().name("committer".to_owned()).spawn(move || work.run(&receiver));
        let thread = thread.inspect_err(|error| tracing::error!(%error, "cannot start the committer's thread")).ok();
        Self { queue: Mutex::new(Some(sender)), thread }
    }

    pub(super) fn submit(&self, request: Request, brought: Option<Bytes>, reply: Reply) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let job = Job { request, brought, reply };
        let closed =
            || StoreError::Unavailable("the store is closed, or its committer has ended; restart orlop".into());
        let (job, error) = match queue {
            None => (job, closed()),
            Some(queue) => match queue.try_send(job) {
                Ok(()) => return,
                Err(TrySendError::Full(job)) => (job, StoreError::Overloaded),
                Err(TrySendError::Disconnected(job)) => (job, closed()),
            },
        };
        (job.reply)(Err(error));
    }

    /// Lets the thread do what waits, and ends it.
    pub(super) fn stop(&mut self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the committer's thread has panicked");
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    /// `None` where it is damaged: then the store is poisoned, too.
    journal: Option<Journal>,
    applied: Applied,
    /// Segments whose end is still to be journaled.
    sealed: Vec<SealedSegment>,
    /// Records of requests that came to nothing, to be journaled as such.
    discards: Vec<(Location, u64)>,
    /// Shared segments that were removed since the store was opened: what was written there cannot be named any more.
    gone: Arc<BTreeSet<SegmentNumber>>,
    wakers: Wakers,
    /// When what is settling is gone on with, and where: each has its turn.
    settle_at: Instant,
    settle_from: ManifestId,
    /// Since when anything is settling.
    settling_since: Option<Instant>,
    /// When the last request came.
    asked_at: Option<Instant>,
}

impl Work {
    fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let next = match (queue.try_recv(), self.rest()) {
                (Ok(job), _) => Some(job),
                (Err(TryRecvError::Disconnected), _) => return,
                (Err(TryRecvError::Empty), None) => match queue.recv() {
                    Ok(job) => Some(job),
                    Err(_) => return,
                },
                (Err(TryRecvError::Empty), Some(rest)) if rest.is_zero() => None,
                (Err(TryRecvError::Empty), Some(rest)) => match queue.recv_timeout(rest) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    next => next.ok(),
                },
            };
            if next.is_some() {
                self.asked_at = Some(Instant::now());
            }
            if !self.serve(next, queue) {
                self.settle_at = Instant::now() + POLL;
            }
        }
    }

    /// How long to wait for a request before what is settling is gone on with; `None` when nothing is.
    fn rest(&self) -> Option<Duration> {
        self.applied.is_settling().then(|| self.settle_at.saturating_duration_since(Instant::now()))
    }

    /// A step of what is settling, if it is time for one.
    fn settle(&mut self, batch: &mut Batch<'_>) -> Result<(), Refusal> {
        let began = Instant::now();
        if !batch.applied.is_settling() {
            self.settling_since = None;
            return Ok(());
        }
        let behind = self.settling_since.get_or_insert(began).elapsed();
        if began < self.settle_at {
            return Ok(());
        }
        let request = Request::Settle { window_ms: self.shared.options.window_ms, from: self.settle_from };
        if let Outcome::Settling { next } = batch.decide(&request)? {
            self.settle_from = next;
        }
        let is_asked = self.asked_at.is_some_and(|asked_at| asked_at.elapsed() < REQUESTS_OVER);
        let patience = 1.0 - (behind.as_secs_f64() / SETTLE_BEHIND_MAX.as_secs_f64()).min(1.0);
        let rest = (began.elapsed() * SETTLE_RESTS).mul_f64(patience);
        self.settle_at = Instant::now() + if is_asked { rest } else { Duration::ZERO };
        Ok(())
    }

    /// One batch: the first job, those that wait behind it, and a step of what is settling. Whether it was written.
    fn serve(&mut self, first: Option<Job>, queue: &Receiver<Job>) -> bool {
        let shared = Arc::clone(&self.shared);
        self.sealed.extend(shared.segments.take_sealed());
        self.discards.append(&mut shared.discards());
        let gone = Arc::clone(&self.gone);
        let batch = Batch::new(&*shared.index, self.applied.clone(), shared.options.clock.now_ms()).without(&gone);
        let accounts = Arc::clone(&shared.accounts);
        let mut batch = batch.with(&*accounts);
        let mut results: Vec<(Reply, Result<Outcome, StoreError>)> = Vec::new();
        let mut written = Vec::new();
        let mut failure = self.cannot_begin(&mut batch);
        let mut next = first;
        let mut bytes = 0;
        let mut is_push = next.is_some();
        while let Some(job) = next {
            is_push &= job.request.is_push();
            bytes += size_of_request(&job.request) + job.brought.as_ref().map_or(0, Bytes::len);
            let result = match &failure {
                Some(failure) => Err(failure.clone()),
                None => decide(&shared, &mut batch, &job, &mut written),
            };
            if let Err(StoreError::Refused(Refusal::Schema(error))) = &result {
                failure = Some(self.shared.index_failed(error));
            }
            results.push((job.reply, result));
            let more = results.len() < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX;
            next = if more { queue.try_recv().ok() } else { None };
        }
        if failure.is_none()
            && let Err(Refusal::Schema(error)) = self.settle(&mut batch)
        {
            failure = Some(self.shared.index_failed(&error));
        }
        let failure = failure.or_else(|| self.write(batch, is_push).err());
        if failure.is_some()
            && let Err(error) = accounts.undo(&*shared.index)
        {
            self.shared.index_failed(&error);
        }
        // Where the journal may name them, the next open finds out.
        if failure.as_ref().is_some_and(|failure| !matches!(failure, StoreError::Unavailable(_))) {
            written.iter().for_each(|record: &Appended| shared.discard(record.location, record.record_len));
        }
        for (reply, result) in results {
            // Refusals too: they were decided against changes that did not come to be.
            reply(failure.as_ref().map_or(result, |failure| Err(failure.clone())));
        }
        failure.is_none()
    }

    /// Why no batch can be written now; else the batch begins with what this machine has to note.
    fn cannot_begin(&self, batch: &mut Batch<'_>) -> Option<StoreError> {
        if let Err(poisoned) = self.shared.poisoned().map_or_else(|| self.shared.all_synced(), Err) {
            return Some(poisoned);
        }
        if let Err(error) = self.shared.index.health() {
            return Some(StoreError::Stopped(error.to_string()));
        }
        let sealed = self
            .sealed
            .iter()
            .try_for_each(|sealed| batch.local(LocalRecord::Sealed { segment: sealed.number, len: sealed.len }));
        let discards = &self.discards[..self.discards.len().min(DROPS_PER_STEP)];
        let noted = sealed.map_err(Refusal::from).and_then(|()| match discards {
            [] => Ok(Outcome::Done),
            some => batch.decide(&Request::Discard(some.to_vec())),
        });
        match noted {
            Err(Refusal::Schema(error)) => Some(self.shared.index_failed(&error)),
            _ => None,
        }
    }

    /// Makes a batch durable and visible. One that holds nothing but pushes is refused by a full disk; only others may have the
    /// blocks that were set aside for that.
    fn write(&mut self, mut batch: Batch<'_>, is_push: bool) -> Result<(), StoreError> {
        let discarded = self.discards.len().min(DROPS_PER_STEP);
        if batch.records.is_empty() {
            self.discards.drain(..discarded);
            return Ok(());
        }
        if is_push && reserve::is_spent(&*self.shared.disk, &self.shared.options) {
            return Err(StoreError::Full(
                "the disk is full, and what was set aside for that is left to deletes".to_owned(),
            ));
        }
        let removed = std::mem::take(&mut batch.removed);
        self.shared.segments.sync().map_err(|error| self.shared.segment_failed(error))?;
        // No reference is durable before what it points to.
        self.shared.all_synced()?;
        let records: Vec<RawRecord> = batch.records.iter().map(raw).collect();
        let Some(journal) = &mut self.journal else {
            return Err(StoreError::Unavailable("the journal is damaged".to_owned()));
        };
        if self.shared.end_journal_file.swap(false, Ordering::AcqRel) {
            journal.end_file();
        }
        let mut appended = journal.append(batch.time_ms(), &records);
        if matches!(appended, Err(JournalError::Full { .. })) && !is_push && reserve::spend(&*self.shared.disk) {
            appended = journal.append(batch.time_ms(), &records);
        }
        let appended = appended.map_err(|error| self.journal_failed(&error))?;
        // The journal may have the batch now, and the state has not: what fails here has ended all decisions.
        self.shared.all_synced()?;
        batch.applied.chain = appended.chain.0;
        // From here on the batch is durable. When it cannot be applied the state in memory is behind the journal: no
        // more decisions until it is opened again.
        let changes = apply::finish(&mut batch.overlay, &batch.applied);
        let shared = &self.shared;
        let written = changes.and_then(|changes| {
            shared.index.write(&changes)?;
            shared.accounts.written(&*shared.index, &changes)
        });
        written.map_err(|error| self.shared.index_failed(&error))?;
        self.applied = batch.applied;
        self.sealed.clear();
        self.discards.drain(..discarded);
        if !removed.is_empty() {
            Arc::make_mut(&mut self.gone).extend(removed);
        }
        self.wakers.flush.grew(&self.shared, appended.bytes);
        self.wakers.snapshot.grew(&self.shared, appended.bytes);
        Ok(())
    }

    fn journal_failed(&self, error: &JournalError) -> StoreError {
        match error {
            JournalError::Full { .. } => StoreError::Full(error.to_string()),
            JournalError::BatchTooLarge { .. } => StoreError::Failed(error.to_string()),
            _ => {
                self.shared.poison(error.to_string());
                StoreError::Unavailable(error.to_string())
            }
        }
    }
}

/// Decides a job, and writes what it brings along if that is needed; `written` gets to know.
fn decide(
    shared: &Shared,
    batch: &mut Batch<'_>,
    job: &Job,
    written: &mut Vec<Appended>,
) -> Result<Outcome, StoreError> {
    let keeper = job.brought.as_ref().map(|brought| Keeping { shared, brought, appended: Cell::default() });
    let decided = batch.decide_with(&job.request, keeper.as_ref().map(|keeper| keeper as &dyn Keeper));
    match (keeper.and_then(|keeper| keeper.appended.into_inner()), decided) {
        (Some(Err(error)), Ok(Outcome::ContentNeeded)) => Err(shared.segment_failed(error)),
        (Some(Ok(record)), Err(refusal)) => {
            shared.discard(record.location, record.record_len);
            Err(refusal.into())
        }
        (appended, decided) => {
            written.extend(appended.and_then(Result::ok));
            Ok(decided?)
        }
    }
}

/// Writes what one request brings along, and remembers what came of it.
struct Keeping<'a> {
    shared: &'a Shared,
    brought: &'a Bytes,
    appended: Cell<Option<Result<Appended, SegmentError>>>,
}

impl Keeper for Keeping<'_> {
    fn write(&self, content: &Content) -> Option<Placement> {
        let kind = RecordKind::Manifest;
        let appended = self.shared.segments.append(kind, &content.digest, self.brought);
        let placement = appended.as_ref().ok().map(|appended| upload::placement(kind, false, *appended));
        self.appended.set(Some(appended));
        placement
    }
}

fn raw(record: &Record) -> RawRecord {
    match record {
        Record::Logical(operation) => RawRecord { class: RecordClass::Logical, payload: operation.encode() },
        Record::Local(record) => RawRecord { class: RecordClass::Local, payload: record.encode() },
    }
}

/// About how many bytes a request's records will have.
fn size_of_request(request: &Request) -> usize {
    const SMALL: usize = 512;
    const REFERENCE: usize = 74;
    match request {
        Request::Note(LocalRecord::Reported { summary, items, .. }) => SMALL + summary.len() + items.len(),
        Request::Note(LocalRecord::Erased { records }) => SMALL + records.len() * 16,
        Request::Discard(records) => SMALL + records.len() * 32,
        Request::Push(push) => SMALL + push.manifest.references.len() * REFERENCE + push.tags.len() * 132,
        Request::Delete { .. } => SMALL + crate::state::request::TAGS_PER_STEP * 132,
        Request::Retain { tags, .. } => SMALL + tags.len() * 150,
        _ => SMALL,
    }
}
