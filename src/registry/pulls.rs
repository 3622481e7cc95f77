//! When manifests were pulled last, to the hour.
//!
//! A pull is noted in memory; nothing is written for it. Whoever schedules that writes what is new, a few times in an hour,
//! in batches, so that a manifest costs at most one small write in an hour however often it is pulled. What was noted since
//! is lost in a crash: a time that is told is then too early by at most that, and never too late.
//!
//! Both GET and HEAD are pulls: a client that has an image already asks only whether it is still that one.

use std::{collections::HashMap, sync::PoisonError};

use super::{Registry, RegistryError};
use crate::{
    digest::Digest,
    journal::operation::RepositoryId,
    state::request::{DROPS_PER_STEP, Request},
    sync::Mutex,
};

/// The precision of pull times, in milliseconds.
pub const PULL_PRECISION_MS: u64 = 3_600_000;
/// Manifests that are noted at once. A pull beyond that goes unnoted until some are written.
const NOTED_MAX: usize = 100_000;

/// Pulls of the last hour or two.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<HashMap<(RepositoryId, Digest), Noted>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    /// The beginning of the hour, in Unix milliseconds.
    pulled_ms: u64,
    /// The last pull itself.
    last_ms: u64,
    is_written: bool,
}

fn hour(now_ms: u64) -> u64 {
    now_ms - now_ms % PULL_PRECISION_MS
}

impl Pulls {
    /// Notes a pull.
    pub(super) fn note(&self, repository: RepositoryId, digest: &Digest, now_ms: u64) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pulled_ms, is_full) = (hour(now_ms), noted.len() >= NOTED_MAX);
        match noted.get_mut(&(repository, *digest)) {
            Some(known) if known.pulled_ms >= pulled_ms => known.last_ms = known.last_ms.max(now_ms),
            Some(known) => *known = Noted { pulled_ms, last_ms: now_ms, is_written: false },
            None if is_full => {}
            None => {
                noted.insert((repository, *digest), Noted { pulled_ms, last_ms: now_ms, is_written: false });
            }
        }
    }

    /// The hour of a manifest's last pull, as far as it is noted here.
    pub(super) fn noted_ms(&self, repository: RepositoryId, digest: &Digest) -> Option<u64> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(&(repository, *digest)).map(|pull| pull.pulled_ms)
    }

    /// A manifest's last pull, likewise, to the millisecond.
    pub(super) fn last_ms(&self, repository: RepositoryId, digest: &Digest) -> Option<u64> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(&(repository, *digest)).map(|pull| pull.last_ms)
    }

    /// What is not written yet, by repository and hour. It counts as written from here on. What was written in an earlier
    /// hour is forgotten, and so is all that was written where there is little room.
    fn take(&self, now_ms: u64) -> HashMap<(RepositoryId, u64), Vec<Digest>> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (this_hour, is_narrow) = (hour(now_ms), noted.len() > NOTED_MAX / 2);
        let mut news: HashMap<_, Vec<Digest>> = HashMap::new();
        noted.retain(|(repository, digest), pull| {
            if !pull.is_written {
                news.entry((*repository, pull.pulled_ms)).or_default().push(*digest);
                pull.is_written = true;
            }
            pull.pulled_ms >= this_hour && !is_narrow
        });
        news
    }
}

impl Registry {
    /// Writes the pulls that were noted since the last call, durably; how many were new to the hour. For the caller to
    /// schedule, and to call before it closes the store. One that takes no writes is left alone.
    ///
    /// # Errors
    /// When the store fails; what was noted is lost then.
    pub fn write_pulls(&self) -> Result<usize, RegistryError> {
        let mut count = 0;
        if self.store.poisoned().is_some() {
            return Ok(count);
        }
        for ((repository, pulled_ms), digests) in self.pulls.take(self.store.options().clock.now_ms()) {
            for digests in digests.chunks(DROPS_PER_STEP) {
                self.store.commit(Request::Pulled { repository, pulled_ms, digests: digests.to_vec() })?;
                count += digests.len();
            }
        }
        Ok(count)
    }
}
