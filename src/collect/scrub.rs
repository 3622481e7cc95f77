//! The scrub: all that is stored is read again, slowly, so that rot is found while another copy can still be pushed.
//!
//! A pass reads the files of the index, the snapshots and the journal, and then all content in the order of digests, as
//! clients get it: headers, checksums, digest. It goes on where it was after a restart, and waits as long as each piece took,
//! so requests have at least half of the disk. It repairs what it has the means for: a bad snapshot or journal file is
//! replaced by a new snapshot of the state, when all of the index could be read. Damaged content is remembered, so that its
//! next upload replaces it, and then the finding is gone. It never calls a dropped or moved record damaged: it reads through
//! the store's one door.
//!
//! Memory: a page of rows, and a bounded number of findings.

use std::{
    ops::ControlFlow,
    sync::PoisonError,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::runs::{Runs, Stop};
use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        prefix_end,
        schema::{self, BlobRow, RowValue, SchemaError, SegmentRow, Table, key},
    },
    location::SegmentNumber,
    registry,
    store::{Pace, Store, StoreError},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

mod notes;

use notes::Notes;

/// Findings that are kept; others are counted.
const FINDINGS_MAX: usize = 1_000;
/// Rows that are read at once.
const PAGE: usize = 500;
/// A pass of a small store need not be drawn out.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Longest rest after a piece.
const REST_MAX: Duration = Duration::from_secs(1);
/// How often is noted where it is, and looked whether it is paused.
const NOTE_EACH: Duration = Duration::from_secs(10);

/// Settings of the scrub.
#[derive(Debug, Clone)]
pub struct ScrubOptions {
    /// How long a pass over all content may take; so often one begins.
    pub pass: Duration,
    /// Most bytes that are read in a second.
    pub bytes_per_second_max: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { pass: Duration::from_secs(30 * 24 * 60 * 60), bytes_per_second_max: 64 << 20 }
    }
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scrubbed {
    /// Stored bytes that are not what was pushed.
    Content,
    /// A journal file or snapshot.
    Journal,
    /// The index.
    Index,
}

/// Damage that was found and still stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubFinding {
    /// What is damaged.
    pub kind: Scrubbed,
    /// Its file, below the data directory.
    pub file: Option<String>,
    /// The place in it, in bytes: of the record, for content.
    pub offset: Option<u64>,
    /// The content concerned.
    pub digest: Option<String>,
    /// Repositories, tags and manifests that can't be pulled whole.
    pub hurts: Vec<String>,
    /// Whether there are, or may be, more.
    pub hurts_more: bool,
    /// What is wrong, and what helps, for people.
    pub what: String,
    /// When it was found, in Unix milliseconds.
    pub found_ms: u64,
}

/// A pass under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// The last content that was read; `None` before the first.
    pub after: Option<String>,
    /// Records that were read.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes of live records when it began.
    pub total_bytes: u64,
    /// What was repaired.
    pub repaired: Option<String>,
}

/// What a pass came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// When it ended, in Unix milliseconds.
    pub ended_ms: u64,
    /// Records that were read.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Whether it came to its end; else it was paused, and goes on.
    pub complete: bool,
    /// What was repaired.
    pub repaired: Option<String>,
}

/// How far the scrub is, and what it has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Whether it reads now.
    pub running: bool,
    /// The pass that is not done.
    pub pass: Option<Pass>,
    /// The last that was.
    pub last: Option<ScrubReport>,
    /// What stands.
    pub findings: Vec<ScrubFinding>,
    /// How many more there are.
    pub findings_more: u64,
}

/// The scrub of a store.
#[derive(Debug)]
pub(super) struct Scrub {
    options: ScrubOptions,
    notes: Mutex<Notes>,
    runs: Runs<ScrubReport>,
    /// Whether somebody waits for the pass.
    is_awaited: AtomicBool,
}

impl Scrub {
    /// Takes up what an earlier process has left: content that it found damaged is healed by its next upload still.
    pub(super) fn new(store: &Store, options: ScrubOptions) -> Self {
        let notes = Notes::load(store);
        for digest in notes.findings.iter().filter_map(content_of) {
            store.note_damage(&digest);
        }
        Self { options, notes: Mutex::new(notes), runs: Runs::default(), is_awaited: AtomicBool::new(false) }
    }

    /// Whether a pass is to go on or to begin by the schedule.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        let notes = self.notes();
        let period = u64::try_from(self.options.pass.as_millis()).unwrap_or(u64::MAX);
        let over = |last: &ScrubReport| last.began_ms.saturating_add(period) <= now_ms;
        notes.pass.is_some() || notes.last.as_ref().is_none_or(over)
    }

    /// Does the pass under way, or a new one; joins one that runs, which then goes as fast as it may.
    pub(super) fn run(
        &self,
        store: &Store,
        stop: &Stop,
        awaited: bool,
        is_paused: &dyn Fn() -> bool,
    ) -> Result<ScrubReport, registry::RegistryError> {
        self.is_awaited.fetch_or(awaited, Ordering::AcqRel);
        let result = self.runs.join(|| {
            let mut pass = Passing::new(self, store, stop, is_paused);
            let done = pass.run();
            pass.keep();
            Ok(done?)
        });
        self.is_awaited.store(false, Ordering::Release);
        result
    }

    /// What is known; what was healed or dropped since is no finding any more.
    pub(super) fn status(&self, store: &Store) -> Result<ScrubStatus, StoreError> {
        let view = store.snapshot();
        let mut notes = self.notes();
        let mut failure = None;
        notes.findings.retain(|finding| {
            let Some(digest) = content_of(finding) else { return true };
            let row: Result<Option<BlobRow>, SchemaError> = schema::get(&*view, key::blob(&digest));
            let stands = row.map(|row| row.is_some() && store.is_damaged(&digest));
            stands.unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        let Notes { pass, last, findings, findings_more } = notes.clone();
        Ok(ScrubStatus { running: self.runs.is_running(), pass, last, findings, findings_more })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, finding: ScrubFinding) {
        tracing::error!(
            kind = ?finding.kind,
            file = finding.file,
            offset = finding.offset,
            blob.digest = finding.digest,
            hurts = ?finding.hurts,
            "the scrub found damage: {}",
            finding.what
        );
        let mut notes = self.notes();
        let same = |old: &ScrubFinding| {
            (old.kind, &old.file, old.offset, &old.digest)
                == (finding.kind, &finding.file, finding.offset, &finding.digest)
        };
        notes.findings.retain(|old| !same(old));
        if notes.findings.len() < FINDINGS_MAX {
            notes.findings.push(finding);
        } else {
            notes.findings_more += 1;
        }
    }
}

/// The content that a finding is about.
fn content_of(finding: &ScrubFinding) -> Option<Digest> {
    finding.digest.as_ref().filter(|_| finding.kind == Scrubbed::Content)?.parse().ok()
}

/// A pass.
struct Passing<'a> {
    scrub: &'a Scrub,
    store: &'a Store,
    stop: &'a Stop,
    is_paused: &'a dyn Fn() -> bool,
    pass: Pass,
    pace: Pace,
    /// When the piece was begun that is read now.
    piece_began: Instant,
    noted: Instant,
}

impl<'a> Passing<'a> {
    fn new(scrub: &'a Scrub, store: &'a Store, stop: &'a Stop, is_paused: &'a dyn Fn() -> bool) -> Self {
        let began_ms = store.options().clock.now_ms();
        let new = || Pass { began_ms, after: None, records: 0, bytes: 0, total_bytes: 0, repaired: None };
        let pass = scrub.notes().pass.clone().unwrap_or_else(new);
        let pace = Pace::new(Some(BYTES_PER_SECOND_MIN));
        let now = Instant::now();
        Self { scrub, store, stop, is_paused, pass, pace, piece_began: now, noted: now }
    }

    fn run(&mut self) -> Result<ScrubReport, StoreError> {
        if self.pass.total_bytes == 0 {
            self.pass.total_bytes = live_bytes(self.store)?;
        }
        self.set_rate();
        if self.pass.after.is_none() {
            self.scrub.notes().findings.retain(|finding| finding.kind == Scrubbed::Content);
            let is_index_sound = self.check_index()?;
            self.check_history(is_index_sound)?;
            self.check_headers()?;
        }
        let complete = self.read_content()?;
        let Pass { began_ms, records, bytes, .. } = self.pass;
        let ended_ms = self.store.options().clock.now_ms();
        let report = ScrubReport { began_ms, ended_ms, records, bytes, complete, repaired: self.pass.repaired.clone() };
        if complete {
            self.scrub.notes().last = Some(report.clone());
            tracing::info!(records, bytes, duration_ms = ended_ms.saturating_sub(began_ms), "scrubbed");
        }
        Ok(report)
    }

    /// Notes where it is.
    fn keep(&mut self) {
        let mut notes = self.scrub.notes();
        let is_done = notes.last.as_ref().is_some_and(|last| last.began_ms == self.pass.began_ms);
        notes.pass = (!is_done).then(|| self.pass.clone());
        let copy = notes.clone();
        drop(notes);
        copy.save(self.store);
        self.noted = Instant::now();
    }

    fn set_rate(&mut self) {
        let ScrubOptions { pass, bytes_per_second_max: max } = self.scrub.options;
        let needed = self.pass.total_bytes / pass.as_secs().max(1);
        let is_awaited = self.scrub.is_awaited.load(Ordering::Acquire);
        let rate = if is_awaited { max } else { needed.clamp(BYTES_PER_SECOND_MIN.min(max), max) };
        self.pace.set_rate(rate);
    }

    /// Rests after a piece.
    fn read(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.pass.bytes = self.pass.bytes.saturating_add(bytes);
        self.set_rate();
        self.pace.spend(bytes);
        self.stop.rest(self.pace.left().max(self.piece_began.elapsed().min(REST_MAX)).min(REST_MAX));
        while !self.pace.left().is_zero() && !self.stop.is_set() {
            self.stop.rest(self.pace.left().min(REST_MAX));
        }
        self.piece_began = Instant::now();
        self.stop.check()
    }

    fn check_index(&mut self) -> Result<bool, StoreError> {
        let (store, mut failure) = (self.store, None);
        let checked = store.check_index(&mut |bytes| {
            failure = self.read(bytes).err();
            failure.is_none()
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match checked {
            Ok(()) => Ok(true),
            Err(StoreError::Corrupt(text) | StoreError::Failed(text)) => {
                let what = format!("{text}. It comes back from the journal by `orlop rebuild-index --data DIR`");
                self.add(Scrubbed::Index, Some("index".to_owned()), None, what);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// What of it is damaged is not needed any more once a snapshot of a sound index stands behind it.
    fn check_history(&mut self, is_index_sound: bool) -> Result<(), StoreError> {
        let store = self.store;
        let wrong = store.check_history(&mut |bytes| self.read(bytes))?;
        if wrong.is_empty() {
            return Ok(());
        }
        let damage = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if is_index_sound && store.poisoned().is_none() {
            tracing::error!(damage, "the journal is damaged; a new snapshot takes its place, as the index is sound");
            match store.repair(&mut || ()) {
                Ok(_) => {
                    self.pass.repaired =
                        Some(format!("a new snapshot replaces what was damaged of the journal: {damage}"));
                    return Ok(());
                }
                Err(error) => tracing::error!(%error, "no snapshot could be written"),
            }
        }
        for error in wrong {
            let (file, offset) = error.place();
            let (file, what) =
                (file.map(str::to_owned), format!("{error}. Stop orlop and run `orlop repair --data DIR`"));
            self.add(Scrubbed::Journal, file, offset, what);
        }
        Ok(())
    }

    /// Headers of segments are checked when a file is opened, and files stay open. What lies in one whose header is damaged
    /// is found when it is read.
    fn check_headers(&mut self) -> Result<(), StoreError> {
        const HEADER_BYTES: u64 = 4 << 10;
        let (store, view) = (self.store, self.store.snapshot());
        let mut stopped = None;
        schema::each_row(&*view, &[Table::Segments as u8], |key, value| {
            let number = Decoder::new(key.get(1..).unwrap_or_default()).key_u64("segment");
            let bad = |source| SchemaError::Row { table: Table::Segments.name(), source };
            let number = SegmentNumber(number.map_err(bad)?);
            if SegmentRow::from_bytes(value)?.live_records > 0
                && let Err(error) = store.check_segment(number)
            {
                tracing::error!(segment.id = number.0, %error, "a segment's header cannot be read");
            }
            stopped = self.read(HEADER_BYTES).err();
            Ok(if stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        stopped.map_or(Ok(()), Err)
    }

    fn add(&self, kind: Scrubbed, file: Option<String>, offset: Option<u64>, what: String) {
        let found_ms = self.store.options().clock.now_ms();
        let hurts = Vec::new();
        self.scrub.add(ScrubFinding { kind, file, offset, digest: None, hurts, hurts_more: false, what, found_ms });
    }

    /// All content behind what was read; whether its end was reached.
    fn read_content(&mut self) -> Result<bool, StoreError> {
        let prefix = [Table::Blobs as u8];
        loop {
            let from = match self.pass.after.as_ref().and_then(|after| after.parse::<Digest>().ok()) {
                Some(after) => [key::blob(&after).bytes().as_slice(), &[0]].concat(),
                None => prefix.to_vec(),
            };
            let rows = self.store.snapshot().scan(&from, &prefix_end(&prefix), PAGE)?;
            for (key, value) in &rows {
                let mut d = Decoder::new(key.get(1..).unwrap_or_default());
                let bad = |source| SchemaError::Row { table: Table::Blobs.name(), source };
                let digest = d.digest("digest").map_err(bad)?;
                self.look_at(digest, &BlobRow::from_bytes(value)?)?;
                self.pass.after = Some(digest.to_string());
                if self.noted.elapsed() >= NOTE_EACH {
                    self.keep();
                    if (self.is_paused)() && !self.scrub.is_awaited.load(Ordering::Acquire) {
                        return Ok(false);
                    }
                }
            }
            if rows.len() < PAGE {
                return Ok(true);
            }
        }
    }

    fn look_at(&mut self, digest: Digest, row: &BlobRow) -> Result<(), StoreError> {
        let store = self.store;
        let what = match store.rehash(&digest, &mut |bytes| self.read(bytes).map_err(Ended::Stopped)) {
            Ok(Some(found)) if found != digest => {
                store.note_damage(&digest);
                format!("the content of {digest} has digest {found}, though its checksums hold")
            }
            Ok(_) => {
                self.pass.records += 1;
                return Ok(());
            }
            // A disk that can't read one place can read others.
            Err(Ended::Store(StoreError::Corrupt(text) | StoreError::Failed(text))) => {
                store.note_damage(&digest);
                text
            }
            Err(Ended::Store(error) | Ended::Stopped(error)) => return Err(error),
        };
        self.pass.records += 1;
        let (hurts, hurts_more) = registry::hurt(&*store.snapshot(), &digest)?;
        self.scrub.add(ScrubFinding {
            kind: Scrubbed::Content,
            file: Some(store.segment_path(row.location.segment)),
            offset: Some(row.location.offset),
            digest: Some(digest.to_string()),
            hurts,
            hurts_more,
            what: format!("{what}. Pushing it again heals it"),
            found_ms: store.options().clock.now_ms(),
        });
        Ok(())
    }
}

/// Why a record was not read to its end.
enum Ended {
    Stopped(StoreError),
    Store(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn live_bytes(store: &Store) -> Result<u64, StoreError> {
    let mut bytes = 0_u64;
    schema::each_row(&*store.snapshot(), &[Table::Segments as u8], |_, value| {
        bytes = bytes.saturating_add(SegmentRow::from_bytes(value)?.live_bytes);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(bytes)
}
