//! All content, read as clients get it.
//!
//! It is read in the order of its places, so that a disk reads forward, through the store's one door for reads: what was
//! dropped meanwhile is absent, what was moved is read at its new place, and what is damaged is remembered there, so that the
//! next push heals it. Checksums are the door's business; the digest is computed here.

use std::{ops::ControlFlow, time::Duration};

use crate::store::{Pace, Store, StoreError};

use super::{Finding, FindingKind, Phase, Progress, VerifyError, VerifyReport, places::Live};

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
    let mut pace = Paced::new(Phase::Content, bytes_per_second, Some(total), watch);
    for live in live {
        let before = pace.done;
        let about = |what| Finding::at(FindingKind::Content, live.location, Some(&live.digest), what);
        match store.examine(&live.digest, &mut |bytes| pace.read(bytes)) {
            // Sound, or absent: dropped since the places were read, as every row was looked at before.
            Ok(None) => {}
            Ok(Some(problem)) => report.add(about(problem)),
            // Others may be read.
            Err(VerifyError::Store(StoreError::Failed(problem))) => report.add_unchecked(about(problem)),
            Err(error) => return Err(error),
        }
        report.content_bytes += pace.done - before;
    }
    Ok(())
}

/// Keeps to a rate, and tells the watcher.
pub(super) struct Paced<'a> {
    phase: Phase,
    pace: Pace,
    done: u64,
    total: Option<u64>,
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl<'a> Paced<'a> {
    pub(super) fn new(
        phase: Phase,
        bytes_per_second: Option<u64>,
        total: Option<u64>,
        watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        Self { phase, pace: Pace::new(bytes_per_second), done: 0, total, watch }
    }

    pub(super) fn read(&mut self, bytes: u64) -> Result<(), VerifyError> {
        self.done = self.done.saturating_add(bytes);
        self.pace.spend(bytes);
        loop {
            // Sizes are about, and what looks damaged is read twice.
            let done = self.total.map_or(self.done, |total| self.done.min(total));
            let progress = Progress { phase: self.phase, done, total: self.total };
            if (self.watch)(progress).is_break() {
                return Err(VerifyError::Stopped);
            }
            let wait = self.pace.left();
            if wait.is_zero() {
                return Ok(());
            }
            crate::sync::sleep(wait.min(WAIT_MAX));
        }
    }
}
