//! A pass: what is read in which order, at which pace, and what becomes a finding.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{Pass, Scrub, ScrubFinding, ScrubReport, Scrubbed, Stop, counted};
use crate::{
    codec::Decoder,
    digest::Digest,
    disk::Disk,
    index::{
        self, View,
        schema::{self, BlobRow, RowValue, SchemaError, SegmentRow, Table, key},
    },
    journal::JournalError,
    location::SegmentNumber,
    registry,
    store::{Pace, Store, StoreError},
    sync::atomic::Ordering,
};

/// Rows of the index that are read at once.
const PAGE: usize = 500;
/// Longest rest after a piece.
const REST_MAX: Duration = Duration::from_secs(1);
/// How often is kept where it is, and looked whether it is paused.
const KEEP_EACH: Duration = Duration::from_secs(10);
/// How often is asked for a moment in which nothing is settling; each time for some seconds.
const SETTLED_TRIES: u32 = 30;
/// Bytes that a segment's header stands for.
const HEADER_BYTES: u64 = 4 << 10;

pub(super) struct Passing<'a> {
    scrub: &'a Scrub,
    store: &'a Store,
    stop: &'a Stop,
    is_paused: &'a dyn Fn() -> bool,
    pass: Pass,
    pace: Pace,
    /// When the piece was begun that is read now.
    piece_began: Instant,
    kept: Instant,
}

impl<'a> Passing<'a> {
    pub(super) fn new(scrub: &'a Scrub, store: &'a Store, stop: &'a Stop, is_paused: &'a dyn Fn() -> bool) -> Self {
        let began_ms = store.options().clock.now_ms();
        let new = || Pass { began_ms, after: None, records: 0, bytes: 0, total_bytes: 0, repaired: None };
        let pass = scrub.notes().pass.clone().unwrap_or_else(new);
        let now = Instant::now();
        Self { scrub, store, stop, is_paused, pass, pace: Pace::new(Some(1)), piece_began: now, kept: now }
    }

    pub(super) fn run(&mut self) -> Result<ScrubReport, StoreError> {
        if self.pass.after.is_none() {
            // What was read of these before a restart is read again.
            self.pass.bytes = 0;
            self.pass.total_bytes = self.content_left()?.saturating_add(self.files_bytes()?);
            self.tell();
            let mut notes = self.scrub.notes();
            notes.findings.retain(|finding| finding.kind == Scrubbed::Content);
            // Those that no finding has are found again.
            notes.findings_more = 0;
            drop(notes);
            let is_index_sound = self.check_index()?;
            self.check_history(is_index_sound)?;
            self.check_headers()?;
        }
        self.pass.total_bytes = self.pass.bytes.saturating_add(self.content_left()?);
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

    /// Keeps where it is.
    pub(super) fn keep(&mut self) {
        self.tell();
        let copy = self.scrub.notes().clone();
        copy.save(self.store);
        self.kept = Instant::now();
    }

    /// Tells who asks where it is.
    fn tell(&self) {
        let mut notes = self.scrub.notes();
        let is_done = notes.last.as_ref().is_some_and(|last| last.began_ms == self.pass.began_ms);
        notes.pass = (!is_done).then(|| self.pass.clone());
    }

    fn set_rate(&mut self) {
        let now_ms = self.store.options().clock.now_ms();
        self.pace.set_rate(self.scrub.rate(&self.pass, now_ms));
    }

    /// Bytes of content that are still to be read: all, or the share that lies behind the last digest. Digests are spread
    /// evenly.
    fn content_left(&self) -> Result<u64, StoreError> {
        let mut bytes = 0_u64;
        schema::each_row_of(&*self.store.snapshot(), Table::Segments, |_, value| {
            bytes = bytes.saturating_add(SegmentRow::from_bytes(value)?.live_bytes);
            Ok(ControlFlow::Continue(()))
        })?;
        let after = self.pass.after.as_ref().and_then(|after| after.parse::<Digest>().ok());
        let read = after.map_or(0, |after| after.hash().iter().take(4).fold(0, |at, &byte| at << 8 | u64::from(byte)));
        let left = (u128::from(bytes) * u128::from((1_u64 << 32) - read)) >> 32;
        Ok(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// Bytes of the files that are read before content.
    fn files_bytes(&self) -> Result<u64, StoreError> {
        let disk = self.store.disk();
        let mut segments = 0_u64;
        schema::each_row_of(&*self.store.snapshot(), Table::Segments, |_, _| {
            segments += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        let files = bytes_in(disk, "index")?.saturating_add(bytes_in(disk, crate::journal::DIRECTORY)?);
        Ok(files.saturating_add(segments.saturating_mul(HEADER_BYTES)))
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
            Err(StoreError::Corrupt(text)) => {
                let file = index::file_named(&text).unwrap_or_else(|| index::DIRECTORY.to_owned());
                let what = format!("{text}. It comes back from the journal by `orlop rebuild-index --data DIR`");
                self.add(Scrubbed::Index, Some(file), None, what);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// What of it is damaged is not needed any more once a snapshot of a sound index stands behind it. That removes what
    /// it replaces, so it is done for bytes that are wrong, and never for a file that could not be read.
    fn check_history(&mut self, is_index_sound: bool) -> Result<(), StoreError> {
        let store = self.store;
        let wrong = store.check_history(&mut |bytes| self.read(bytes))?;
        if wrong.is_empty() {
            return Ok(());
        }
        if let Some(error) = wrong.iter().find(|error| error.may_pass()) {
            return Err(StoreError::Failed(error.to_string()));
        }
        let damage = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        // The files were there when this version opened the store, or are its own: a version that it does not know is rot.
        let is_rot = wrong.iter().all(|error| error.is_rot() || matches!(error, JournalError::UnknownVersion { .. }));
        if is_rot && is_index_sound && store.poisoned().is_none() && self.adds_up()? {
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

    /// Whether all rows that are derived are what the others add up to.
    fn adds_up(&mut self) -> Result<bool, StoreError> {
        let doubt = counted::doubt(&*self.settled()?, self.scrub.options.memory_bytes_max)?;
        if let Some(doubt) = &doubt {
            tracing::error!(
                doubt,
                "the journal is damaged, and no snapshot takes its place: the index is in doubt, too"
            );
        }
        Ok(doubt.is_none())
    }

    fn settled(&self) -> Result<Box<dyn View + 'a>, StoreError> {
        let mut view = self.store.settled_snapshot();
        for _ in 1..SETTLED_TRIES {
            self.stop.check()?;
            if !matches!(view, Err(StoreError::Stopped(_))) {
                break;
            }
            view = self.store.settled_snapshot();
        }
        view
    }

    /// Headers of segments are checked when a file is opened, and files stay open. What lies in one whose header is damaged
    /// is found when it is read, as well.
    fn check_headers(&mut self) -> Result<(), StoreError> {
        let (store, view) = (self.store, self.store.snapshot());
        let mut ended = None;
        schema::each_row_of(&*view, Table::Segments, |key, value| {
            let number = Decoder::new(key.get(1..).unwrap_or_default()).key_u64("segment");
            let bad = |source| SchemaError::Row { table: Table::Segments.name(), source };
            let number = SegmentNumber(number.map_err(bad)?);
            if SegmentRow::from_bytes(value)?.live_records > 0 {
                ended = self.check_header(store, number).err();
            }
            ended = ended.take().or_else(|| self.read(HEADER_BYTES).err());
            Ok(if ended.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        ended.map_or(Ok(()), Err)
    }

    fn check_header(&self, store: &Store, number: SegmentNumber) -> Result<(), StoreError> {
        let what = match store.check_segment(number).or_else(|_| store.check_segment(number)) {
            Ok(()) => return Ok(()),
            Err(StoreError::Corrupt(text) | StoreError::Unreadable(text)) => text,
            Err(error) => return Err(error),
        };
        // It was removed since the view was taken.
        let row: Option<SegmentRow> = schema::get(&*store.snapshot(), key::segment(number))?;
        if row.is_some_and(|row| row.live_records > 0) {
            let what = format!("{what}. Pushing again what lies in it heals that");
            self.add(Scrubbed::Segment, Some(store.segment_path(number)), Some(0), what);
        }
        Ok(())
    }

    fn add(&self, kind: Scrubbed, file: Option<String>, offset: Option<u64>, what: String) {
        let found_ms = self.store.options().clock.now_ms();
        let hurts = Vec::new();
        self.scrub.add(ScrubFinding { kind, file, offset, digest: None, hurts, hurts_more: false, what, found_ms });
    }

    /// All content behind what was read; whether its end was reached.
    fn read_content(&mut self) -> Result<bool, StoreError> {
        let after = self.pass.after.as_ref().and_then(|after| after.parse::<Digest>().ok());
        let mut from = after.map(|after| schema::behind_digest(&after));
        loop {
            let page = schema::page(&*self.store.snapshot(), Table::Blobs, from.as_deref(), PAGE)?;
            for (key, value) in &page.rows {
                let mut d = Decoder::new(key.get(1..).unwrap_or_default());
                let bad = |source| SchemaError::Row { table: Table::Blobs.name(), source };
                let digest = key::read_by_digest(&mut d).map_err(bad)?;
                let before = self.pass.bytes;
                // What it is ended in is read again from its begin.
                self.look_at(digest, &BlobRow::from_bytes(value)?).inspect_err(|_| self.pass.bytes = before)?;
                self.pass.after = Some(digest.to_string());
                self.tell();
                if self.kept.elapsed() >= KEEP_EACH {
                    if self.pass.bytes >= self.pass.total_bytes {
                        self.pass.total_bytes = self.pass.bytes.saturating_add(self.content_left()?);
                    }
                    self.keep();
                    if (self.is_paused)() && !self.scrub.is_awaited.load(Ordering::Acquire) {
                        return Ok(false);
                    }
                }
            }
            if page.next.is_none() {
                return Ok(true);
            }
            from = page.next;
        }
    }

    fn look_at(&mut self, digest: Digest, row: &BlobRow) -> Result<(), StoreError> {
        let store = self.store;
        let damage = store.examine(&digest, &mut |bytes| self.read(bytes))?;
        self.pass.records += 1;
        let Some(what) = damage else { return Ok(()) };
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

/// Bytes of the files that lie directly in a directory, which may be missing.
fn bytes_in(disk: &dyn Disk, directory: &str) -> Result<u64, StoreError> {
    match disk.list(directory) {
        Ok(entries) => Ok(entries.iter().map(|entry| entry.len).sum()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::Failed(format!("cannot list {directory}/: {error}"))),
    }
}
