//! The collector: takes what is due, gives its space back, and tells what it did.
//!
//! - `drops`: what is due is dropped in the committer, in bounded pages, until nothing new is due.
//! - `retain`: what goes by policies.
//! - `steps`: the same steps for real, and on paper for a dry run.
//! - `purge`: ends windows early.
//! - `free`: ends what is held until so much has left.
//! - `erase`: dead records are erased, dead segments removed.
//! - `explain`: what killed processes have left in segments.
//! - `compact`: what lives in sparse segments moves elsewhere.
//! - `scrub`: all that is stored is read again.
//! - `search`: proof that content is gone.
//! - `pauses`: what somebody has paused; clocks that jump.
//! - `runs`: one run at a time; who asks meanwhile gets its report.
//! - `status`: what is due, segments, the disk, reports.
//! - `report`: all of that as data.
//!
//! It decides nothing: that something is due, or a segment dead, is decided by the committer, against the state in the
//! step that says so. It can be ended at any point; what was not done is found by the next run, in rows of the index. It
//! starts no thread: whoever has one calls [`Collector::tick`] again and again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    digest::Digest,
    journal::operation::{LocalRecord, RepositoryId},
    name::Owner,
    registry::{Registry, RegistryError},
    state::{
        govern::{evict, retain::is_any_due},
        request::Request,
    },
    store::{Store, StoreError},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

mod compact;
mod drops;
mod erase;
mod explain;
mod free;
mod pauses;
mod purge;
mod report;
mod retain;
mod runs;
mod scrub;
mod search;
mod status;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(all(fuzzing, not(test)))]
#[expect(dead_code, unused_imports, reason = "a fuzzer runs the model only")]
pub(crate) mod tests;

pub use crate::journal::operation::Pausable;
pub use report::*;
pub use scrub::{Pass, ScrubFinding, ScrubOptions, ScrubReport, ScrubStatus, Scrubbed};

use compact::{Compacting, Judged, Pace};
use drops::Drops;
use erase::{Erasing, Unremoved};
use pauses::Pauses;
use retain::{Retaining, Untouched};
use runs::{Runs, Stop};
use scrub::Scrub;
use search::Search;
use steps::{Courteous, GivingWay, Live, Patience, Plan, Steps};

/// Of a collection: garbage may come as fast as it goes.
const PATIENCE: Patience = Patience { behind_max: Duration::from_secs(30), always_max: Duration::ZERO };

/// Settings of the collector.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Time between two looks at what is due: what is due is dropped, and its bytes erased, that much later at most, and
    /// the time that it takes.
    pub interval: Duration,
    /// Bytes that compaction reads and writes in a second.
    pub compact_bytes_per_second: u64,
    /// Bytes that searches, and looks for what killed processes have left, read in a second.
    pub read_bytes_per_second: u64,
    /// How long a run waits for those who read what is to be erased. What they still read then goes in a later run.
    pub reader_patience: Duration,
    /// Settings of the scrub.
    pub scrub: ScrubOptions,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            compact_bytes_per_second: 64 << 20,
            read_bytes_per_second: 256 << 20,
            reader_patience: Duration::from_secs(10),
            scrub: ScrubOptions::default(),
        }
    }
}

/// The collector of a registry. Many threads may call it.
#[derive(Debug)]
pub struct Collector {
    registry: Arc<Registry>,
    options: CollectOptions,
    stop: Stop,
    collections: Runs<CollectionReport>,
    compactions: Runs<CompactionReport>,
    scrub: Scrub,
    pauses: Pauses,
    unremoved: Unremoved,
    judged: Mutex<Judged>,
    /// Repositories in which policies would take too much at once.
    untouched: Mutex<Untouched>,
    /// The number of the next report.
    next_report: AtomicU64,
    /// Whether what killed processes have left was looked for.
    remains_found: AtomicBool,
    /// Why the last scheduled runs failed: said once.
    failures: Mutex<BTreeMap<Pausable, String>>,
}

/// What a run does besides taking what is due.
#[derive(Debug, Clone, Copy)]
enum Task<'a> {
    /// Nothing.
    Due,
    /// It ends the windows of these repositories.
    Purge(&'a [RepositoryId]),
    /// It ends windows until so many bytes have left.
    Free(u64),
}

impl Collector {
    /// A collector, which looks at the clock; nothing runs yet. Made soon after the store was opened.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn new(registry: Arc<Registry>, options: CollectOptions) -> Result<Arc<Self>, RegistryError> {
        let pauses = Pauses::new(registry.store())?;
        let next_report = status::next_report(&*registry.store().snapshot()).map_err(StoreError::from)?;
        let scrub = Scrub::new(registry.store(), options.scrub.clone());
        Ok(Arc::new(Self {
            registry,
            options,
            scrub,
            stop: Stop::default(),
            collections: Runs::default(),
            compactions: Runs::default(),
            pauses,
            unremoved: Unremoved::default(),
            judged: Mutex::new(HashMap::new()),
            untouched: Mutex::default(),
            next_report: AtomicU64::new(next_report),
            remains_found: AtomicBool::new(false),
            failures: Mutex::default(),
        }))
    }

    /// The settings.
    pub fn options(&self) -> &CollectOptions {
        &self.options
    }

    /// Drops all that is due, and gives its space back; its bytes are off the disk on return, but for what is still read
    /// (the report tells). While a run is under way, waits for that one and returns its report. A dry run changes nothing.
    ///
    /// # Errors
    /// When the store takes no writes, or fails; what was done stays done.
    pub fn collect(&self, dry_run: bool) -> Result<CollectionReport, RegistryError> {
        self.collect_for(Trigger::Request, dry_run)
    }

    fn collect_for(&self, trigger: Trigger, dry_run: bool) -> Result<CollectionReport, RegistryError> {
        if dry_run {
            return self.plan(trigger, Task::Due);
        }
        self.collections.join(|| self.run(trigger, Task::Due))
    }

    /// Collects, then ends windows of what is held, what ends first by itself first, then what policies let go, and no more of it
    /// than it takes, until so many bytes of content have left in all. Whether they have, what was ended, and why it was not
    /// enough, is in the report.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn free(&self, bytes: u64, dry_run: bool) -> Result<CollectionReport, RegistryError> {
        if dry_run {
            return self.plan(Trigger::Free, Task::Free(bytes));
        }
        self.collections.follow(|| self.run(Trigger::Free, Task::Free(bytes)))
    }

    /// Ends the windows of all that is held in a repository or organisation, and collects. What of it stays for now (an
    /// upload, a grace) is in the report.
    ///
    /// # Errors
    /// When there is no such repository or organisation; else as [`collect`](Self::collect).
    pub fn purge(&self, of: &Owner, dry_run: bool) -> Result<CollectionReport, RegistryError> {
        let repositories = purge::repositories(&*self.store().snapshot(), of)?;
        if dry_run {
            return self.plan(Trigger::Purge, Task::Purge(&repositories));
        }
        self.collections.follow(|| self.run(Trigger::Purge, Task::Purge(&repositories)))
    }

    /// Moves what lives in sparse segments elsewhere, and removes them, at the set pace. While a run is under way, waits for
    /// that one and returns its report. A dry run changes nothing.
    ///
    /// # Errors
    /// When the store takes no writes, is full, or fails; what was done stays done.
    pub fn compact(&self, dry_run: bool) -> Result<CompactionReport, RegistryError> {
        if dry_run {
            return self.run_compaction(true);
        }
        self.compactions.join(|| self.run_compaction(false))
    }

    /// Collects if anything is due, and returns how long to wait before the next call. A failure is logged, once until it
    /// is over.
    pub fn tick(&self) -> Duration {
        self.scheduled(Pausable::Collect, || {
            self.pauses.look(self.store());
            self.pauses.show_time(self.store())?;
            let is_first = !self.remains_found.load(Ordering::Acquire);
            if is_first || self.due()?.is_due() || self.is_over_cap()? || self.store().has_discards() {
                self.collect_for(Trigger::Schedule, false)?;
            }
            Ok(())
        })
    }

    /// Compacts, likewise. It can take long, at the set pace, so it has a thread of its own.
    pub fn tick_compaction(&self) -> Duration {
        self.scheduled(Pausable::Compact, || self.compact(false).map(drop))
    }

    /// Goes on with the pass of the scrub, or begins one when it is time. It takes as long as a pass may take, so it has a
    /// thread of its own. A store that takes no writes is scrubbed, too.
    pub fn tick_scrub(&self) -> Duration {
        if !self.stop.is_set() && self.scrub.is_due(self.now_ms()) && !self.is_scrub_paused() {
            let run = self.scrub.run(self.store(), &self.stop, false, &|| self.is_scrub_paused());
            if let Err(error) = run
                && !self.stop.is_set()
            {
                tracing::error!(%error, "the scrub came to no end; it goes on later");
            }
        }
        self.options.interval
    }

    /// Reads all that is stored and checks it, as fast as the scrub may; joins a pass under way.
    ///
    /// # Errors
    /// When the index or the disk fails. What is damaged is a finding of [`scrub_status`](Self::scrub_status).
    pub fn scrub(&self) -> Result<ScrubReport, RegistryError> {
        self.scrub.run(self.store(), &self.stop, true, &|| self.is_scrub_paused())
    }

    /// How far the scrub is, and what is damaged.
    ///
    /// # Errors
    /// When the index fails or is damaged.
    pub fn scrub_status(&self) -> Result<ScrubStatus, RegistryError> {
        Ok(self.scrub.status(self.store())?)
    }

    fn is_scrub_paused(&self) -> bool {
        let pauses = self.pauses.list(&*self.store().snapshot());
        pauses.is_ok_and(|pauses| pauses.iter().any(|pause| pause.what == Pausable::Scrub))
    }

    fn scheduled(&self, what: Pausable, work: impl FnOnce() -> Result<(), RegistryError>) -> Duration {
        let done = match self.store().poisoned() {
            _ if self.stop.is_set() => Ok(()),
            Some(reason) => Err(RegistryError::Unavailable(reason)),
            None => work(),
        };
        let failure = done.err().map(|error| error.to_string()).filter(|_| !self.stop.is_set());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(error) if failures.get(&what) != Some(&error) => {
                tracing::error!(error, ?what, "scheduled work failed; it waits, and is tried again");
                failures.insert(what, error);
            }
            Some(_) => {}
            None => drop(failures.remove(&what)),
        }
        self.options.interval
    }

    /// Why scheduled work failed that has not been done since.
    pub fn failures(&self) -> BTreeMap<Pausable, String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends what runs at its next safe point; later calls are refused. The store can be closed when they have returned.
    pub fn stop(&self) {
        self.stop.set();
    }

    /// The last reports, newest first; those of the last 100 runs with what they dropped one by one. At most 1,000 are kept.
    ///
    /// # Errors
    /// When the index fails or is damaged.
    pub fn reports(&self, limit: usize) -> Result<Vec<CollectionReport>, RegistryError> {
        let next = self.next_report.load(Ordering::Acquire);
        Ok(status::reports(&*self.store().snapshot(), next, limit)?)
    }

    /// What is due now, and when the next is.
    ///
    /// # Errors
    /// When the index fails or is damaged.
    pub fn due(&self) -> Result<DueSummary, RegistryError> {
        let now_ms = self.now_ms();
        Ok(status::due_summary(&*self.store().snapshot(), now_ms).map_err(StoreError::from)?)
    }

    /// Repositories in which a policy that nobody has confirmed would take too much, as far as runs of this process met them
    /// within ten minutes or so.
    pub fn held_back(&self) -> Vec<HeldBack> {
        let now_ms = self.now_ms();
        self.untouched().values().filter(|(.., until_ms)| *until_ms > now_ms).map(|(_, told, _)| told.clone()).collect()
    }

    fn is_over_cap(&self) -> Result<bool, RegistryError> {
        let over = evict::all_over(&*self.store().snapshot()).map_err(StoreError::from)?;
        Ok(!over.is_empty())
    }

    /// What runs and what is paused.
    ///
    /// # Errors
    /// When the index fails or is damaged.
    pub fn status(&self) -> Result<Status, RegistryError> {
        let pauses = self.pauses.list(&*self.store().snapshot()).map_err(StoreError::from)?;
        let (collecting, compacting) = (self.collections.is_running(), self.compactions.is_running());
        Ok(Status { collecting, compacting, pauses })
    }

    /// Pauses some work until it is resumed, also over restarts. A run under way goes on to its end.
    ///
    /// # Errors
    /// When the store takes no writes. [`Pausable::Clock`] cannot be asked for: collecting is paused instead.
    pub fn pause(&self, what: Pausable) -> Result<(), RegistryError> {
        let what = if what == Pausable::Clock { Pausable::Collect } else { what };
        Ok(pauses::set(self.store(), what, u64::MAX)?)
    }

    /// Lets some work go on. Collecting goes on also after the clock has jumped: whoever says so has looked at it.
    ///
    /// # Errors
    /// When the store takes no writes.
    pub fn resume(&self, what: Pausable) -> Result<(), RegistryError> {
        if matches!(what, Pausable::Collect | Pausable::Clock) {
            self.pauses.clock_is_right();
            self.pauses.look(self.store());
        }
        let what = if what == Pausable::Clock { Pausable::Collect } else { what };
        Ok(pauses::set(self.store(), what, 0)?)
    }

    /// Segments behind the number `after`, in order of their numbers; at most 1,000.
    ///
    /// # Errors
    /// When the index or the disk fails.
    pub fn segments(&self, after: Option<u64>, limit: usize) -> Result<Vec<SegmentInfo>, RegistryError> {
        Ok(status::segments(self.store(), after, limit)?)
    }

    /// What the data directory takes. Costs a look at the name of each file.
    ///
    /// # Errors
    /// When the index or the disk fails.
    pub fn disk(&self) -> Result<DiskUsage, RegistryError> {
        Ok(status::disk(self.store())?)
    }

    /// Looks in every file that can hold content whether any copy of some content is left. Reads all segments.
    ///
    /// # Errors
    /// When the index or the disk fails.
    pub fn search(&self, digest: &Digest) -> Result<SearchReport, RegistryError> {
        let pace = Pace::new(&self.stop, self.options.read_bytes_per_second);
        Ok(Search::new(self.store(), &self.stop, pace, *digest).run()?)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    /// What is due by the wall clock, not by the last operation's time: that may come from a clock that was wrong.
    fn now_ms(&self) -> u64 {
        self.store().options().clock.now_ms()
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untouched(&self) -> MutexGuard<'_, Untouched> {
        self.untouched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps drops from being made, noted in a report.
    fn is_paused(&self, task: Task<'_>, report: &mut CollectionReport) -> Result<bool, StoreError> {
        self.pauses.look(self.store());
        report.paused = self.pauses.of_drops(&*self.store().snapshot())?;
        if let Task::Free(bytes) = task {
            // What is told unless it comes to more.
            let shortfall = Some(if report.paused.is_some() { Shortfall::Paused } else { Shortfall::NothingLeft });
            report.goal = Some(Goal { bytes, reached: bytes == 0, ended: Vec::new(), ended_more: 0, shortfall });
        }
        Ok(report.paused.is_some())
    }

    /// A run on paper.
    fn plan(&self, trigger: Trigger, task: Task<'_>) -> Result<CollectionReport, RegistryError> {
        let mut report = CollectionReport::new(trigger, true, self.now_ms());
        if !self.is_paused(task, &mut report)? {
            let (view, window_ms) = (self.store().snapshot(), self.store().options().window_ms);
            let plan = Plan::new(&*view, &self.stop, report.began_ms, window_ms).map_err(StoreError::from)?;
            if let Some(mut plan) = plan {
                self.drop_due(&mut plan, &mut Untouched::new(), task, &mut report)?;
            }
        }
        report.ended_ms = self.now_ms();
        Ok(report)
    }

    /// A run.
    fn run(&self, trigger: Trigger, task: Task<'_>) -> Result<CollectionReport, RegistryError> {
        let began = Instant::now();
        let mut report = CollectionReport::new(trigger, false, self.now_ms());
        let done = self.run_into(&mut report, task);
        report.ended_ms = self.now_ms();
        if let Err(error) = &done {
            report.incomplete = Some(error.to_string());
        }
        let is_told = trigger != Trigger::Schedule || report.did_something();
        if is_told && report.paused != Some(Pausable::Collect) {
            // What was done stays done, whether the journal can say so or not.
            if let Err(error) = self.record(&mut report) {
                tracing::warn!(%error, "the report of a collection could not be kept");
            }
            tracing::info!(
                report.id,
                ?trigger,
                dropped = report.totals.iter().map(|total| total.count).sum::<u64>(),
                freed_bytes = report.freed_bytes,
                returned_bytes = report.returned_bytes,
                erased_records = report.erased_records,
                segments_removed = report.segments_removed,
                still_read = report.still_read,
                paused = ?report.paused,
                duration_ms = began.elapsed().as_millis() as u64,
                "collected"
            );
        }
        done.map_err(RegistryError::from).map(|()| report)
    }

    fn run_into(&self, report: &mut CollectionReport, task: Task<'_>) -> Result<(), StoreError> {
        if !self.is_paused(task, report)? {
            // A tag goes or stays by when its manifest was pulled.
            if is_any_due(&*self.store().snapshot(), report.began_ms)? {
                self.registry.write_pulls().map_err(|error| StoreError::Failed(error.to_string()))?;
            }
            let live = Live { store: self.store(), stop: &self.stop };
            let mut steps = Courteous { live, way: self.giving_way() };
            // Taken out: runs follow each other, and a dry run beside one has its own.
            let mut untouched = std::mem::take(&mut *self.untouched());
            let done = self.drop_due(&mut steps, &mut untouched, task, report);
            *self.untouched() = untouched;
            done?;
        }
        report.dropped_ms = self.now_ms();
        // What is dead already has nothing to do with the clock.
        if report.paused == Some(Pausable::Collect) { Ok(()) } else { self.erase(report) }
    }

    fn drop_due<S: Steps>(
        &self,
        steps: &mut S,
        untouched: &mut Untouched,
        task: Task<'_>,
        report: &mut CollectionReport,
    ) -> Result<(), StoreError> {
        let (now_ms, window_ms) = (report.began_ms, self.store().options().window_ms);
        let pulled_ms = |repository, digest: &Digest| self.registry.last_pull_ms(repository, digest);
        let pulled_ms = &pulled_ms;
        let scope = if let Task::Purge(repositories) = task { Some(repositories) } else { None };
        // A purge does what was asked for.
        if scope.is_none() {
            Retaining { steps: &mut *steps, report: &mut *report, now_ms, window_ms, untouched, pulled_ms }.run()?;
        }
        scope.unwrap_or_default().iter().try_for_each(|repository| purge::end_windows(steps, *repository))?;
        let ends_windows = !matches!(task, Task::Due);
        let uploading = || self.registry.uploading();
        let grace_ms = self.store().options().grace_ms;
        let began = Instant::now();
        let mut drops =
            Drops { steps, report, now_ms, ends_windows, began, grace_ms, window_ms, uploading: &uploading };
        drops.run()?;
        if let Task::Free(bytes) = task {
            free::free(&mut drops, bytes, pulled_ms)?;
        }
        Ok(steps.read(|view| status::tell_kept(view, now_ms, scope, report))?)
    }

    fn erase(&self, report: &mut CollectionReport) -> Result<(), StoreError> {
        let patient_until = Instant::now() + self.options.reader_patience;
        let (store, stop, unremoved) = (self.store(), &self.stop, &self.unremoved);
        let way = &mut self.giving_way();
        Erasing { store, stop, unremoved, report: &mut *report, patient_until }.run(way)?;
        // Where the journal has lost history, what it named then looks like remains, and may be wanted.
        if !self.remains_found.load(Ordering::Acquire) && store.recovery().lost_records == 0 {
            let mut pace = Pace::new(stop, self.options.read_bytes_per_second);
            if explain::discard_remains(store, stop, &mut pace)? > 0 {
                Erasing { store, stop, unremoved, report, patient_until }.run(way)?;
            }
        }
        self.remains_found.store(true, Ordering::Release);
        Ok(())
    }

    fn giving_way(&self) -> GivingWay<'_> {
        GivingWay::new(PATIENCE, &self.stop, &self.registry)
    }

    /// Gives a report its number, and keeps it.
    fn record(&self, report: &mut CollectionReport) -> Result<(), StoreError> {
        let json = |error: serde_json::Error| StoreError::Failed(format!("a report has no JSON form: {error}"));
        let number = self.next_report.load(Ordering::Acquire);
        report.id = number;
        let items = serde_json::to_string(&report.dropped).map_err(json)?;
        let goal = report.goal.clone().map(Goal::summary);
        let summary = CollectionReport { dropped: Vec::new(), goal, ..report.clone() };
        let summary = serde_json::to_string(&summary).map_err(json)?;
        let record = LocalRecord::Reported { number, summary, items };
        let live = Live { store: self.store(), stop: &self.stop };
        live.commit(&Request::Note(record)).inspect_err(|_| report.id = 0)?;
        self.next_report.store(number + 1, Ordering::Release);
        Ok(())
    }

    fn run_compaction(&self, dry_run: bool) -> Result<CompactionReport, RegistryError> {
        let began_ms = self.now_ms();
        let mut report = CompactionReport {
            dry_run,
            began_ms,
            ended_ms: began_ms,
            segments: Vec::new(),
            segments_more: 0,
            segments_removed: 0,
            moved_records: 0,
            moved_bytes: 0,
            returned_bytes: 0,
            paused: false,
            incomplete: None,
        };
        let pauses = self.pauses.list(&*self.store().snapshot()).map_err(StoreError::from)?;
        report.paused = pauses.iter().any(|pause| pause.what == Pausable::Compact);
        if !report.paused {
            // Taken out, so that a dry run beside a long real one does not wait for it.
            let mut judged = std::mem::take(&mut *self.judged());
            let (store, stop, unremoved) = (self.store(), &self.stop, &self.unremoved);
            let pace = Pace::new(stop, self.options.compact_bytes_per_second);
            let way = &mut GivingWay::new(compact::PATIENCE, stop, &self.registry);
            let done = Compacting { store, stop, unremoved, judged: &mut judged, pace, report: &mut report }.run(way);
            self.judged().extend(judged);
            done?;
        }
        report.ended_ms = self.now_ms();
        if report.moved_records > 0 || report.segments_removed > 0 {
            tracing::info!(
                segments_removed = report.segments_removed,
                moved_records = report.moved_records,
                moved_bytes = report.moved_bytes,
                returned_bytes = report.returned_bytes,
                duration_ms = report.ended_ms.saturating_sub(began_ms),
                "compacted"
            );
        }
        Ok(report)
    }
}
