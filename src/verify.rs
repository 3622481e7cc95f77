//! The store against itself: whether what it says adds up, and whether its bytes are what they were.
//!
//! - *Index* (`files`): all rows are read from its files again, past every cache.
//! - *Rows*: every derived row is counted again from manifests, tags, links and places alone (`state::recount`).
//! - *Places* (`places`): live records lie apart from each other, from dead ones and inside of files that are there.
//! - *History* (`history`): snapshots and journal are read to their ends; no file lies around that nothing names.
//! - *Content* (`content`), if asked for: every live record is read as a client would get it, and checked by its checksums and
//!   its digest.
//!
//! It changes and repairs nothing, and it runs while the store is in use.
//!
//! Invariants: rows and places are read from one view, taken while nothing is settling, so a finding is never a change that
//! is under way. What a later view or a second look explains (content dropped meanwhile, a segment removed) is none.
//! Memory: counting takes about 8 bytes for each byte of primary rows (some 1.6 KiB for a layer that nothing shares), and is
//! reckoned with [`MEMORY_FACTOR`]; above [`VerifyOptions::memory_bytes_max`] it is refused before it has them. Places take
//! some 100 bytes for each record.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    index::{
        IndexError, View,
        schema::{self, Applied, SchemaError, Scope, UsageRow, key},
    },
    location::{Location, SegmentNumber},
    registry,
    state::recount::{self, MEMORY_FACTOR},
    store::{Store, StoreError},
};

mod content;
mod files;
mod history;
mod places;
#[cfg(test)]
mod tests;
mod watch;

pub use files::refused;
use watch::Watched;

/// How long a verification waits for a moment in which nothing is settling.
const SETTLING_MAX: Duration = Duration::from_secs(600);
/// Findings that a report names; the others are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What to look at, and how hard.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Whether all content is read.
    pub content: bool,
    /// Most bytes of content that are read in a second; `None` for no bound.
    pub content_bytes_per_second: Option<u64>,
    /// Most bytes of memory for counting, about; `None` for no bound.
    pub memory_bytes_max: Option<u64>,
    /// Whether what opening the store had to mend is told, too: for who has opened it to verify it.
    pub opening: bool,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What it is at.
    pub phase: Phase,
    /// Rows that were read, records that were looked at, or bytes that were read, by phase.
    pub done: u64,
    /// How many there are, where that is known.
    pub total: Option<u64>,
}

/// The parts of a verification, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The files of the index are read, in bytes of rows.
    Index,
    /// Primary rows are read and counted.
    Counting,
    /// All rows are held against what was counted.
    Comparing,
    /// Records and files are held against each other.
    Places,
    /// Journal and snapshots are read, in bytes.
    Journal,
    /// Content is read, in bytes.
    Content,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// A row of the index that is not what others add up to, or that cannot be read.
    Row,
    /// A record, or a dead one, that lies where it must not.
    Place,
    /// A segment's file that is missing or too short.
    Segment,
    /// Stored bytes that are not what was pushed.
    Content,
    /// A file of the index, or that it had to be built anew because it was damaged.
    Index,
    /// A journal file or a snapshot that is not what was written.
    Journal,
    /// A file that nothing names.
    File,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// The file concerned, below the data directory.
    pub file: Option<String>,
    /// The content concerned.
    pub digest: Option<String>,
    /// Repositories, tags and manifests that can't be pulled whole because of it.
    pub hurts: Vec<String>,
    /// Whether there are, or may be, more.
    pub hurts_more: bool,
    /// The segment concerned.
    pub segment: Option<u64>,
    /// The place in it, in bytes.
    pub offset: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// When it ended, in Unix milliseconds.
    pub ended_ms: u64,
    /// The last operation of the state that was looked at.
    pub lsn: u64,
    /// The hash over the facts of all its repositories, worked out from these; `None` where damage ended the counting.
    pub state_hash: Option<String>,
    /// Manifests in it, each counted once.
    pub manifests: u64,
    /// Live records in it: blobs and manifests, each stored once.
    pub records: u64,
    /// Segments in it.
    pub segments: u64,
    /// Bytes of content that were read; 0 when that was not asked for.
    pub content_bytes: u64,
    /// The first [`FINDINGS_MAX`] findings.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_more: u64,
    /// The first [`FINDINGS_MAX`] things that could not be looked at for a reason that can pass: neither sound nor damaged.
    pub unchecked: Vec<Finding>,
    /// How many more there are.
    pub unchecked_more: u64,
    /// What opening the store had to do, where that was asked for and is no finding.
    pub opening: Vec<String>,
}

/// Why a verification came to no end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// The watcher broke it off.
    #[error("the verification was stopped before its end")]
    Stopped,
    /// Counting would take more memory than is allowed.
    #[error(
        "counting this store again takes more than {max} bytes of memory, the most that it may take here; stop the \
         server and run `orlop verify --data DIR`, which has no such bound"
    )]
    TooLarge {
        /// The bound.
        max: u64,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VerifyReport {
    fn begun(began_ms: u64) -> Self {
        Self {
            began_ms,
            ended_ms: began_ms,
            lsn: 0,
            state_hash: None,
            manifests: 0,
            records: 0,
            segments: 0,
            content_bytes: 0,
            findings: Vec::new(),
            findings_more: 0,
            unchecked: Vec::new(),
            unchecked_more: 0,
            opening: Vec::new(),
        }
    }

    fn add_unchecked(&mut self, finding: Finding) {
        if self.unchecked.len() < FINDINGS_MAX {
            self.unchecked.push(finding);
        } else {
            self.unchecked_more += 1;
        }
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_more += 1;
        }
    }

    fn add_row(&mut self, what: impl ToString) {
        let kind = FindingKind::Row;
        self.add(Finding { kind, what: what.to_string(), ..Finding::nowhere() });
    }
}

impl Finding {
    fn at(kind: FindingKind, location: Location, digest: Option<&Digest>, what: String) -> Self {
        let Location { segment: SegmentNumber(segment), offset } = location;
        let digest = digest.map(Digest::to_string);
        let file = Some(crate::segment::path_of(location.segment));
        Self { kind, file, digest, segment: Some(segment), offset: Some(offset), what, ..Self::nowhere() }
    }

    fn nowhere() -> Self {
        let (kind, what, hurts) = (FindingKind::Row, String::new(), Vec::new());
        Self { kind, file: None, digest: None, hurts, hurts_more: false, segment: None, offset: None, what }
    }
}

/// Verifies a store. `watch` is called at least once for a thousand rows or a MiB, and several times a second while content
/// is paced; it breaks the verification off.
///
/// # Errors
/// [`VerifyError`]. What is damaged is a finding and no error, as far as the rest can still be looked at.
pub fn verify(
    store: &Store,
    options: &VerifyOptions,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<VerifyReport, VerifyError> {
    let clock = &store.options().clock;
    let began_ms = clock.now_ms();
    let mut report = VerifyReport::begun(began_ms);
    if options.opening {
        files::tell_opening(store, &mut report);
    }
    files::check_index(store, options.content_bytes_per_second, &mut report, watch)?;
    let view = settled(store, watch)?;
    let memory_max = options.memory_bytes_max;
    looked(count_rows(&*view, &mut report, memory_max, watch), &mut report)?;
    let live = looked(places::check(store, &*view, &mut report, watch), &mut report)?.unwrap_or_default();
    // A view that is held keeps the index from forgetting old rows, and reading content can take hours.
    drop(view);
    history::check(store, options.content_bytes_per_second, &mut report, watch)?;
    if options.content {
        content::check(store, live, options.content_bytes_per_second, &mut report, watch)?;
    }
    name_hurt(store, &mut report);
    report.ended_ms = clock.now_ms();
    Ok(report)
}

/// Verifies what the index says, alone.
///
/// # Errors
/// As [`verify`].
pub fn verify_rows(
    store: &Store,
    options: &VerifyOptions,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<VerifyReport, VerifyError> {
    let view = settled(store, watch)?;
    let mut report = VerifyReport::begun(store.options().clock.now_ms());
    looked(count_rows(&*view, &mut report, options.memory_bytes_max, watch), &mut report)?;
    Ok(report)
}

/// A view in which nothing is settling. What a killed server has left may take a while at a start, as may indexes of many
/// thousands of manifests that are deleted one after the other.
fn settled<'a>(
    store: &'a Store,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Box<dyn View + 'a>, VerifyError> {
    let began = Instant::now();
    loop {
        match store.settled_snapshot() {
            Err(StoreError::Stopped(_)) if began.elapsed() < SETTLING_MAX => {}
            view => return Ok(view?),
        }
        if watch(Progress { phase: Phase::Counting, done: 0, total: None }).is_break() {
            return Err(VerifyError::Stopped);
        }
    }
}

/// Names the repositories and tags that damaged content hurts.
fn name_hurt(store: &Store, report: &mut VerifyReport) {
    let view = store.snapshot();
    for finding in &mut report.findings {
        let Some(digest) = finding.digest.as_ref().and_then(|digest| digest.parse::<Digest>().ok()) else { continue };
        // An index that is damaged itself was told already.
        if let Ok((hurts, hurts_more)) = registry::hurt(&*view, &digest) {
            (finding.hurts, finding.hurts_more) = (hurts, hurts_more);
        }
    }
}

/// Why a part came to no end.
enum Broken {
    Schema(SchemaError),
    Ended(VerifyError),
}

impl From<SchemaError> for Broken {
    fn from(error: SchemaError) -> Self {
        Self::Schema(error)
    }
}

/// Makes damage that ends a part a finding, so that the next part is looked at.
fn looked<T>(result: Result<T, Broken>, report: &mut VerifyReport) -> Result<Option<T>, VerifyError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Broken::Ended(error)) => Err(error),
        Err(Broken::Schema(SchemaError::Index(error @ IndexError::Failed(_)))) => Err(StoreError::from(error).into()),
        Err(Broken::Schema(error)) => {
            report.add_row(error);
            Ok(None)
        }
    }
}

fn count_rows(
    view: &dyn View,
    report: &mut VerifyReport,
    memory_max: Option<u64>,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), Broken> {
    report.lsn = schema::get::<Applied>(view, key::applied())?.map_or(0, |applied| applied.lsn);
    report.manifests = schema::get::<UsageRow>(view, key::usage(Scope::Registry))?.map_or(0, |usage| usage.manifests);
    let rows_max = memory_max.map(|max| (max / MEMORY_FACTOR, max));
    let counting = Watched::new(view, Phase::Counting, rows_max, watch);
    let explained = counting.end(recount::explain(&counting, &mut |difference| report.add_row(difference)))?;
    report.state_hash = Some(explained.state_hash().to_string());
    let comparing = Watched::new(view, Phase::Comparing, None, watch);
    comparing.end(explained.compare(&comparing, &mut |difference| report.add_row(difference)))
}
