//! What the collector tells: plans and reports, as data. Times are Unix milliseconds, sizes bytes.

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, journal::operation::Pausable, location::Location, name::RepositoryName};

/// Things that were dropped, one by one, in a report; more are counted.
pub const DROPPED_LISTED: usize = 1_000;
/// Things that stay, one by one, in a report.
pub const KEPT_LISTED: usize = 100;

/// Who wanted a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// It was due.
    Schedule,
    /// Somebody asked for it.
    Request,
    /// Somebody ended windows.
    Purge,
}

/// What can be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A repository's link to a blob.
    Link,
    /// A manifest.
    Manifest,
    /// An entry in the history of a tag.
    History,
    /// An empty repository.
    Repository,
    /// The record of an earlier drop.
    DropRecord,
    /// A tag that a policy took away. What it pointed to is held for its window.
    Tag,
    /// A manifest that never got a tag in the time of a policy, likewise.
    Root,
    /// A manifest that went with its tags for the cap of a policy.
    Eviction,
}

/// Something that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// What it was.
    pub kind: Kind,
    /// Of a link or manifest.
    pub digest: Option<Digest>,
    /// Where it was.
    pub repository: Option<RepositoryName>,
    /// Length of a link's or manifest's content.
    pub bytes: u64,
    /// Whether no repository had the content any more: it leaves the disk.
    pub last: bool,
    /// Of a tag, its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The policy by which it went, if it did by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// A repository in which a policy would take more than half of the tags, and that nobody has confirmed: all of them stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The repository.
    pub repository: RepositoryName,
    /// The policy.
    pub policy: String,
    /// How many tags there are, of which more than half would go.
    pub tags: u64,
}

/// All that was dropped of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindTotal {
    /// The kind.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// Their bytes, each counted.
    pub bytes: u64,
}

/// Why something stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A held manifest or an entry of a tag's history: it can be restored until its window ends.
    Window,
    /// A blob that no manifest names: its grace is not over.
    Grace,
    /// The same, prolonged by an upload that is open in its repository.
    OpenUpload,
}

/// Something that stays for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What it is.
    pub kind: Kind,
    /// Of a link or manifest.
    pub digest: Option<Digest>,
    /// Where it is.
    pub repository: Option<RepositoryName>,
    /// Length of its content.
    pub bytes: u64,
    /// Why it stays.
    pub reason: Reason,
    /// Until when.
    pub until_ms: u64,
}

/// What a collection did; of a dry run, what it would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionReport {
    /// Its number; 0 for one that was not recorded: a dry run, or a scheduled one that had nothing to do.
    pub id: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Who wanted it.
    pub trigger: Trigger,
    /// When it began.
    pub began_ms: u64,
    /// When all that was due was dropped; from then on it erased.
    pub dropped_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// What it dropped: the first [`DROPPED_LISTED`]. Of old reports only counts are kept.
    pub dropped: Vec<Dropped>,
    /// How many more.
    pub dropped_more: u64,
    /// All of it, by kind.
    pub totals: Vec<KindTotal>,
    /// Bytes of content that nobody has any more.
    pub freed_bytes: u64,
    /// Bytes of the disk that came back; 0 in a dry run.
    pub returned_bytes: u64,
    /// Records whose bytes were erased.
    pub erased_records: u64,
    /// Segments whose files went.
    pub segments_removed: u64,
    /// Dead records and segments that are still read; they go when their readers are done.
    pub still_read: u64,
    /// What stays of what could go one day: what goes next first, at most [`KEPT_LISTED`].
    pub kept: Vec<Kept>,
    /// Whether there is more.
    pub kept_more: bool,
    /// Repositories in which a policy would take too much at once; at most [`KEPT_LISTED`].
    #[serde(default)]
    pub held_back: Vec<HeldBack>,
    /// What is paused, so that nothing was dropped.
    pub paused: Option<Pausable>,
    /// Why not all that is due was done, if so.
    pub incomplete: Option<String>,
}

impl CollectionReport {
    /// One of nothing.
    pub(super) fn new(trigger: Trigger, dry_run: bool, began_ms: u64) -> Self {
        Self {
            id: 0,
            dry_run,
            trigger,
            began_ms,
            dropped_ms: began_ms,
            ended_ms: began_ms,
            dropped: Vec::new(),
            dropped_more: 0,
            totals: Vec::new(),
            freed_bytes: 0,
            returned_bytes: 0,
            erased_records: 0,
            segments_removed: 0,
            still_read: 0,
            kept: Vec::new(),
            kept_more: false,
            held_back: Vec::new(),
            paused: None,
            incomplete: None,
        }
    }

    /// Counts `count` things of a kind, of which one is told.
    pub(super) fn add(&mut self, count: u64, dropped: Dropped) {
        let total = match self.totals.iter_mut().position(|total| total.kind == dropped.kind) {
            Some(at) => &mut self.totals[at],
            None => {
                self.totals.push(KindTotal { kind: dropped.kind, count: 0, bytes: 0 });
                let last = self.totals.len() - 1;
                &mut self.totals[last]
            }
        };
        total.count += count;
        total.bytes = total.bytes.saturating_add(dropped.bytes);
        if dropped.last {
            self.freed_bytes = self.freed_bytes.saturating_add(dropped.bytes);
        }
        // What has no name is told by its count only.
        match dropped.kind {
            Kind::History | Kind::DropRecord => {}
            _ if self.dropped.len() < DROPPED_LISTED => self.dropped.push(dropped),
            _ => self.dropped_more += 1,
        }
    }

    /// Notes something that stays, once, with the first reason that is found.
    pub(super) fn keep(&mut self, kept: Kept) {
        let is_known = |it: &Kept| (it.kind, it.digest, &it.repository) == (kept.kind, kept.digest, &kept.repository);
        if self.kept.iter().any(is_known) {
            return;
        }
        if self.kept.len() < KEPT_LISTED { self.kept.push(kept) } else { self.kept_more = true }
    }

    /// Notes a repository in which all tags stay, as too many would go.
    pub(super) fn hold_back(&mut self, held_back: HeldBack) {
        if self.held_back.len() < KEPT_LISTED {
            self.held_back.push(held_back);
        }
    }

    /// Whether anything was done.
    pub(super) fn did_something(&self) -> bool {
        !self.totals.is_empty() || self.erased_records > 0 || self.segments_removed > 0
    }
}

/// What moved out of a segment, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactedSegment {
    /// Its number.
    pub segment: u64,
    /// What it took of the disk before.
    pub allocated_bytes: u64,
    /// Records that live in it.
    pub live_records: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Whether it is gone now.
    pub removed: bool,
}

/// What a compaction did; of a dry run, what it would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// When it began.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// The sparse segments that it took on: the first [`DROPPED_LISTED`].
    pub segments: Vec<CompactedSegment>,
    /// How many more.
    pub segments_more: u64,
    /// Segments whose files went.
    pub segments_removed: u64,
    /// Records that were moved.
    pub moved_records: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Bytes of the disk that came back, less those that the moved records take; in a dry run those that would.
    pub returned_bytes: u64,
    /// Whether compaction is paused.
    pub paused: bool,
    /// Why not all was done, if so.
    pub incomplete: Option<String>,
}

/// What is due of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueKind {
    /// The kind.
    pub kind: Kind,
    /// How many are due now, counted up to 1,000.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
    /// When the next is due that is not due now.
    pub next_due_ms: Option<u64>,
}

/// What is due when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueSummary {
    /// The time that counts.
    pub now_ms: u64,
    /// By kind.
    pub kinds: Vec<DueKind>,
    /// Dead records that wait to be erased, counted up to 1,000.
    pub dead_records: u64,
    /// Whether there are more.
    pub dead_more: bool,
}

impl DueSummary {
    /// Whether anything can be done now.
    pub fn is_due(&self) -> bool {
        self.dead_records > 0 || self.kinds.iter().any(|kind| kind.count > 0)
    }

    /// When something is due, if nothing is now.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.kinds.iter().filter_map(|kind| kind.next_due_ms).min()
    }
}

/// What is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What.
    pub what: Pausable,
    /// Until when; `None` until somebody resumes it.
    pub until_ms: Option<u64>,
}

/// What the collector does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a collection runs.
    pub collecting: bool,
    /// Whether a compaction runs.
    pub compacting: bool,
    /// What is paused. [`Pausable::Clock`] says that drops are, because the clock has jumped.
    pub pauses: Vec<Pause>,
}

/// How a segment is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filling {
    /// With many records.
    Shared,
    /// With one.
    Single,
}

/// Whether a segment takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentState {
    /// It does.
    Open,
    /// No more.
    Sealed,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// How it is filled.
    pub kind: Filling,
    /// Whether it takes records.
    pub state: SegmentState,
    /// What it takes of the disk, as `du` sees it.
    pub allocated_bytes: u64,
    /// Length of its file.
    pub len: u64,
    /// Bytes of its live records.
    pub live_bytes: u64,
    /// What it takes beyond those.
    pub dead_bytes: u64,
    /// Its live records.
    pub live_records: u64,
    /// When its file was created, where the file system knows.
    pub created_ms: Option<u64>,
}

/// What the data directory takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// All of it, as `du` sees it: segments, journal, index and the rest.
    pub disk_bytes: u64,
    /// Bytes of live records in segments.
    pub live_bytes: u64,
    /// What the segments take beyond those.
    pub dead_bytes: u64,
}

/// A place at which a digest was found, or that cannot be told not to have its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPlace {
    /// The file below the data directory.
    pub path: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// What it is.
    pub what: PlaceKind,
}

/// What a search can find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// A record of the digest, where the index has it.
    Live,
    /// A record of the digest that the index does not name.
    Record,
    /// A dead record that waits to be erased: of any digest.
    Dead,
    /// Bytes of a segment that belong to nothing that is known.
    Unknown,
    /// An upload that is not finished.
    Upload,
    /// A file that nothing names.
    Unlisted,
}

/// Whether any copy of some content is left in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchReport {
    /// What was searched for.
    pub digest: Digest,
    /// When it began.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// Files of segments, and of `lost/`, that were read.
    pub files: u64,
    /// Bytes that were read or are holes.
    pub bytes: u64,
    /// Where the index has it.
    pub place: Option<Location>,
    /// Whether a record of it was found anywhere.
    pub found: bool,
    /// Whether it is certain that no copy is left: no record of it was found, and every byte in segments belongs to a
    /// record of something else or is zero.
    pub gone: bool,
    /// What was found, and what speaks against certainty: the first [`DROPPED_LISTED`].
    pub places: Vec<FoundPlace>,
    /// How many more.
    pub places_more: u64,
}
