//! The scrub: all that is stored is read again, slowly, so that rot is found while another copy can still be pushed.
//!
//! A pass reads the files of the index, the snapshots and the journal, and then all content in the order of digests, as
//! clients get it: headers, checksums, digest. It goes on where it was after a restart, and waits as long as each piece took,
//! so requests have at least half of the disk. It repairs what it has the means for: a bad snapshot or journal file is
//! replaced by a new snapshot of the state, when all of the index could be read and its rows add up. Damaged content is
//! remembered, so that its next upload replaces it, and then the finding is gone. It never calls a dropped or moved record
//! damaged: it reads through the store's one door.
//!
//! What cannot be read for a reason that can pass (no file descriptors, no memory) is no damage: the pass ends with that
//! error, and goes on from there later. What looks damaged is read twice before it is told.
//!
//! Memory: a page of rows, and a bounded number of findings; for counting rows before a repair, what the options allow.

use std::{sync::PoisonError, time::Duration};

use serde::{Deserialize, Serialize};

use super::runs::{Runs, Stop};
use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, BlobRow, SchemaError, SegmentRow, key},
    },
    registry, segment,
    store::{Store, StoreError},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

mod counted;
mod due;
mod notes;
mod passing;

use notes::Notes;
use passing::Passing;

/// Findings that are kept; others are counted.
const FINDINGS_MAX: usize = if cfg!(test) { 50 } else { 1_000 };

/// Settings of the scrub.
#[derive(Debug, Clone)]
pub struct ScrubOptions {
    /// How long a pass over all content may take; so often one begins.
    pub pass: Duration,
    /// Most bytes that are read in a second.
    pub bytes_per_second_max: u64,
    /// Most bytes of memory for counting rows, before a damaged journal is replaced; where they don't do, it is left to
    /// `orlop repair`.
    pub memory_bytes_max: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { pass: Duration::from_secs(30 * 24 * 60 * 60), bytes_per_second_max: 64 << 20, memory_bytes_max: 1 << 30 }
    }
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scrubbed {
    /// Stored bytes that are not what was pushed.
    Content,
    /// The header of a segment's file.
    Segment,
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
    /// Bytes that it has to read in all, about: files of index and journal, headers of segments, live records.
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
    /// Bytes in a second that the pass needs to be done in its time, or may take where somebody waits for it.
    pub bytes_per_second: Option<u64>,
    /// When the pass is expected to end at that pace, in Unix milliseconds.
    pub expected_end_ms: Option<u64>,
    /// When the next pass begins by the schedule, in Unix milliseconds: not before the one under way has ended.
    pub next_ms: u64,
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
        notes.pass.is_some() || due::next_ms(&notes, &self.options).is_none_or(|next_ms| next_ms <= now_ms)
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
            stands(store, &*view, finding).unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        let (notes, now_ms) = (notes.clone(), store.options().clock.now_ms());
        let next_ms = due::next_ms(&notes, &self.options).unwrap_or(now_ms).max(now_ms);
        let Notes { pass, last, findings, findings_more } = notes;
        let rate = pass.as_ref().map(|pass| self.rate(pass, now_ms));
        Ok(ScrubStatus {
            running: self.runs.is_running(),
            expected_end_ms: pass.as_ref().zip(rate).map(|(pass, rate)| due::end_ms(pass, rate, now_ms)),
            bytes_per_second: rate,
            next_ms,
            pass,
            last,
            findings,
            findings_more,
        })
    }

    /// Bytes in a second that a pass reads now.
    fn rate(&self, pass: &Pass, now_ms: u64) -> u64 {
        match self.is_awaited.load(Ordering::Acquire) {
            true => self.options.bytes_per_second_max,
            false => due::rate(pass, &self.options, now_ms),
        }
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

/// Whether what was found is still so: content that was dropped or pushed again is not, nor is a segment without content.
/// All else is looked at again by the next pass.
fn stands(store: &Store, view: &dyn View, finding: &ScrubFinding) -> Result<bool, SchemaError> {
    if let Some(digest) = content_of(finding) {
        let row: Option<BlobRow> = schema::get(view, key::blob(&digest))?;
        return Ok(row.is_some() && store.is_damaged(&digest));
    }
    let segment = finding.file.as_deref().filter(|_| finding.kind == Scrubbed::Segment).and_then(segment::number_of);
    let Some(segment) = segment else { return Ok(true) };
    Ok(schema::get::<SegmentRow>(view, key::segment(segment))?.is_some_and(|row| row.live_records > 0))
}
