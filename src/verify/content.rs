//! All content, read as clients get it.
//!
//! It is read in the order of its places, so that a disk reads forward, through the store's one door for reads: what was
//! dropped meanwhile is absent, what was moved is read at its new place, and what is damaged is remembered there, so that the
//! next push heals it. Checksums are the door's business; the digest is computed here.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use crate::{
    digest::{Digest, Hasher},
    store::{Store, StoreError},
};

use super::{Finding, FindingKind, Phase, Progress, VerifyError, VerifyReport, places::Live};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Longest wait between two calls of the watcher.
const WAIT_MAX: Duration = Duration::from_millis(200);

pub(super) fn check(
    store: &Store,
    live: Vec<Live>,
    bytes_per_second: Option<u64>,
    report: &mut VerifyReport,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), VerifyError> {
    let total = live.iter().fold(0_u64, |total, live| total.saturating_add(live.size));
    let mut pace = Pace { began: Instant::now(), bytes_per_second, done: 0, total, watch };
    for live in live {
        let before = pace.done;
        match hash(store, &live.digest, &mut pace) {
            Ok(Some(found)) if found != live.digest => {
                let message = format!("the content of {} has digest {found}, though its checksums hold", live.digest);
                report.add(Finding::at(FindingKind::Content, live.location, Some(&live.digest), message));
            }
            Ok(Some(_)) => {}
            // Absent: dropped since the places were read, as every row was looked at before.
            Ok(None) => {}
            // A disk that cannot read one place can read others.
            Err(VerifyError::Store(StoreError::Corrupt(problem) | StoreError::Failed(problem))) => {
                report.add(Finding::at(FindingKind::Content, live.location, Some(&live.digest), problem));
            }
            Err(error) => return Err(error),
        }
        report.content_bytes += pace.done - before;
    }
    Ok(())
}

/// The digest of what the store returns; `None` when the content is not there any more.
fn hash(store: &Store, digest: &Digest, pace: &mut Pace<'_>) -> Result<Option<Digest>, VerifyError> {
    let Some(content) = store.content(digest)? else { return Ok(None) };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut offset = 0;
    while offset < content.len() {
        let bytes = match content.read(offset, PIECE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => {
                // Dropped between two pieces.
                return if store.content(digest)?.is_none() { Ok(None) } else { Err(error.into()) };
            }
        };
        hasher.update(&bytes);
        offset += bytes.len() as u64;
        pace.read(bytes.len() as u64)?;
    }
    Ok(Some(hasher.finish()))
}

/// Keeps to a rate, and tells the watcher.
struct Pace<'a> {
    began: Instant,
    bytes_per_second: Option<u64>,
    done: u64,
    total: u64,
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl Pace<'_> {
    fn read(&mut self, bytes: u64) -> Result<(), VerifyError> {
        self.done = self.done.saturating_add(bytes);
        loop {
            let progress = Progress { phase: Phase::Content, done: self.done, total: Some(self.total) };
            if (self.watch)(progress).is_break() {
                return Err(VerifyError::Stopped);
            }
            let Some(rate) = self.bytes_per_second else { return Ok(()) };
            let due = Duration::from_secs_f64(self.done as f64 / rate.max(1) as f64);
            let wait = due.saturating_sub(self.began.elapsed());
            if wait.is_zero() {
                return Ok(());
            }
            crate::sync::sleep(wait.min(WAIT_MAX));
        }
    }
}
