//! What is paused: by somebody who asked for it, or because the clock has jumped.
//!
//! A clock that is wrong by months would end all graces and windows at once. So when the wall clock runs away from the
//! one that only runs on, or stands far behind the last operation's time at a start, nothing is dropped for a grace: time for
//! somebody to look. The pause is durable, because the next start could not tell any more: what was done meanwhile has
//! the wrong time, too. Whoever has looked lets collecting go on.

use std::sync::PoisonError;

use crate::{
    index::{
        View,
        schema::{self, Applied, PauseRow, SchemaError, key},
    },
    journal::operation::{LocalRecord, Pausable},
    state::request::Request,
    store::{Clock, Store, StoreError},
    sync::{Mutex, MutexGuard},
};

use super::report::Pause;

/// How far the wall clock may run ahead.
pub(super) const AHEAD_MS: u64 = 60 * 60 * 1_000;

/// How old the last operation may become while the process runs: less than what makes the next start wait.
const SEEN_MS: u64 = 20 * 60 * 1_000;

/// The clock as it was seen last, and what that led to.
#[derive(Debug)]
pub(super) struct Pauses {
    clock: Clock,
    grace_ms: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    wall_ms: u64,
    monotonic_ms: u64,
    /// Until when drops pause, by the clock that only runs on.
    paused_until: Option<u64>,
    /// What the journal is still to be told of that: until when, by the wall clock; 0 that it is over.
    untold: Option<u64>,
}

impl Pauses {
    /// Looks at what the start of the store has seen.
    pub(super) fn new(store: &Store) -> Result<Self, StoreError> {
        let (clock, grace_ms) = (store.options().clock.clone(), store.options().grace_ms);
        let (wall_ms, monotonic_ms) = (clock.now_ms(), clock.monotonic_ms());
        let seen = Seen { wall_ms, monotonic_ms, paused_until: None, untold: None };
        let pauses = Self { clock, grace_ms, seen: Mutex::new(seen) };
        let recovery = store.recovery();
        let earlier: Option<PauseRow> = schema::get(&*store.snapshot(), key::pause(Pausable::Clock))?;
        let mut seen = pauses.seen();
        if let Some(earlier) = earlier {
            let left = earlier.until_ms.saturating_sub(wall_ms).min(grace_ms);
            if left == 0 {
                seen.untold = Some(0);
            } else {
                seen.paused_until = Some(monotonic_ms.saturating_add(left));
            }
        }
        let last_ms = recovery.last_operation_ms;
        if last_ms > 0 && recovery.opened_ms > last_ms.saturating_add(AHEAD_MS) {
            pauses.pause(&mut seen, recovery.opened_ms - last_ms);
        }
        drop(seen);
        Ok(pauses)
    }

    /// Looks at the clocks, and tells the journal what follows. Called before anything is dropped.
    pub(super) fn look(&self, store: &Store) {
        let mut seen = self.seen();
        let (wall_ms, monotonic_ms) = (self.clock.now_ms(), self.clock.monotonic_ms());
        let expected_ms = seen.wall_ms.saturating_add(monotonic_ms.saturating_sub(seen.monotonic_ms));
        if wall_ms > expected_ms.saturating_add(AHEAD_MS) {
            self.pause(&mut seen, wall_ms - expected_ms);
        }
        (seen.wall_ms, seen.monotonic_ms) = (wall_ms, monotonic_ms);
        if seen.paused_until.is_some_and(|until| until <= monotonic_ms) {
            tracing::info!("drops go on: a grace has passed since the clock jumped");
            (seen.paused_until, seen.untold) = (None, Some(0));
        }
        let Some(until_ms) = seen.untold else { return };
        drop(seen);
        // A store that takes no writes drops nothing either; it is told later.
        if set(store, Pausable::Clock, until_ms).is_ok() {
            let mut seen = self.seen();
            if seen.untold == Some(until_ms) {
                seen.untold = None;
            }
        }
    }

    /// Lets the journal know that the process was there, when nobody else does: a start soon after a quiet day must not look
    /// like one with a wrong clock.
    pub(super) fn show_time(&self, store: &Store) -> Result<(), StoreError> {
        let applied: Option<Applied> = schema::get(&*store.snapshot(), key::applied())?;
        let is_old = |applied: Applied| applied.time_ms.saturating_add(SEEN_MS) <= self.clock.now_ms();
        if applied.is_some_and(is_old) {
            store.commit(Request::Note(LocalRecord::Erased { records: Vec::new() }))?;
        }
        Ok(())
    }

    fn pause(&self, seen: &mut Seen, ahead_ms: u64) {
        tracing::warn!(
            ahead_ms,
            pause_ms = self.grace_ms,
            "the clock is far ahead of what it should be, or nothing was done for long: nothing is dropped for a grace; \
             resume collecting once the clock is right"
        );
        seen.paused_until = Some(self.clock.monotonic_ms().saturating_add(self.grace_ms));
        seen.untold = Some(self.clock.now_ms().saturating_add(self.grace_ms));
    }

    /// Somebody has looked at the clock.
    pub(super) fn clock_is_right(&self) {
        let mut seen = self.seen();
        (seen.paused_until, seen.untold) = (None, Some(0));
    }

    /// All that is paused.
    pub(super) fn list(&self, view: &dyn View) -> Result<Vec<Pause>, SchemaError> {
        let mut pauses = Vec::new();
        for what in [Pausable::Collect, Pausable::Compact, Pausable::Scrub] {
            if let Some(PauseRow { until_ms }) = schema::get(view, key::pause(what))? {
                pauses.push(Pause { what, until_ms: (until_ms != u64::MAX).then_some(until_ms) });
            }
        }
        if let Some(until) = self.seen().paused_until {
            let left = until.saturating_sub(self.clock.monotonic_ms());
            let until_ms = Some(self.clock.now_ms().saturating_add(left));
            pauses.push(Pause { what: Pausable::Clock, until_ms });
        }
        Ok(pauses)
    }

    /// What keeps drops from being made, if anything does.
    pub(super) fn of_drops(&self, view: &dyn View) -> Result<Option<Pausable>, SchemaError> {
        let list = self.list(view)?;
        Ok(list.into_iter().map(|pause| pause.what).find(|what| matches!(what, Pausable::Collect | Pausable::Clock)))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses some work, durably, or lets it go on; nothing is written when that is so already.
pub(super) fn set(store: &Store, what: Pausable, until_ms: u64) -> Result<(), StoreError> {
    let row: Option<PauseRow> = schema::get(&*store.snapshot(), key::pause(what))?;
    if row.map_or(0, |row| row.until_ms) != until_ms {
        store.commit(Request::Note(LocalRecord::Paused { what, until_ms }))?;
    }
    Ok(())
}
