//! When manifests were pulled last: to the hour as it is told and written, exactly as long as it is remembered here.
//!
//! A pull is noted in memory; nothing is written for it. Whoever schedules that writes what is new, a few times in an hour,
//! in batches, so that a manifest costs at most one small write in an hour however often it is pulled. What was noted since
//! is lost in a crash: a time that is told is then too early by at most that, and never too late.
//!
//! An hour is too coarse for who has to say which of two was pulled longer ago ([`Pulls::last_ms`]). So what is written is
//! remembered as long as there is room, and a caller who needs the exact time of one manifest writes that one's.
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

/// Pulls of the last hours, and what else there is room for.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<HashMap<(RepositoryId, Digest), Noted>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    /// In Unix milliseconds.
    pulled_ms: u64,
    /// Whether its hour is.
    is_written: bool,
}

/// The beginning of its hour.
pub(super) fn hour(time_ms: u64) -> u64 {
    time_ms - time_ms % PULL_PRECISION_MS
}

impl Pulls {
    /// Notes a pull.
    pub(super) fn note(&self, repository: RepositoryId, digest: &Digest, now_ms: u64) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = noted.len() >= NOTED_MAX;
        match noted.get_mut(&(repository, *digest)) {
            Some(known) if known.pulled_ms >= now_ms => {}
            Some(known) => {
                known.is_written &= hour(known.pulled_ms) == hour(now_ms);
                known.pulled_ms = now_ms;
            }
            None if is_full => {}
            None => drop(noted.insert((repository, *digest), Noted { pulled_ms: now_ms, is_written: false })),
        }
    }

    /// The hour of a manifest's last pull, as far as it is noted here.
    pub(super) fn noted_ms(&self, repository: RepositoryId, digest: &Digest) -> Option<u64> {
        self.last_ms(repository, digest).map(hour)
    }

    /// The exact time of a manifest's last pull, in Unix milliseconds, as far as it is noted here.
    pub(super) fn last_ms(&self, repository: RepositoryId, digest: &Digest) -> Option<u64> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(&(repository, *digest)).map(|pull| pull.pulled_ms)
    }

    /// What is not written yet, by repository and hour. It counts as written from here on. Where there is little room, what
    /// was written is forgotten: that of earlier hours, and all of it where that does not help.
    fn take(&self, now_ms: u64) -> HashMap<(RepositoryId, u64), Vec<Digest>> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news: HashMap<_, Vec<Digest>> = HashMap::new();
        for ((repository, digest), pull) in noted.iter_mut().filter(|(_, pull)| !pull.is_written) {
            news.entry((*repository, hour(pull.pulled_ms))).or_default().push(*digest);
            pull.is_written = true;
        }
        if noted.len() > NOTED_MAX / 2 {
            noted.retain(|_, pull| hour(pull.pulled_ms) >= hour(now_ms));
        }
        if noted.len() > NOTED_MAX / 2 {
            noted.clear();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    #[test]
    fn the_exact_time_outlives_its_being_written_and_the_hour() {
        let (pulls, begin) = (Pulls::default(), 1_000 * PULL_PRECISION_MS);
        pulls.note(1, &digest(1), begin + 5);
        pulls.note(1, &digest(2), begin + 7);
        pulls.note(1, &digest(1), begin + 9);
        pulls.note(1, &digest(1), begin + 8);
        assert_eq!((pulls.last_ms(1, &digest(1)), pulls.noted_ms(1, &digest(1))), (Some(begin + 9), Some(begin)));
        assert_eq!(pulls.take(begin + 10)[&(1, begin)].len(), 2);
        // In the same hour nothing is new; in the next one it is.
        pulls.note(1, &digest(1), begin + 20);
        assert!(pulls.take(begin + 21).is_empty());
        let later = begin + 3 * PULL_PRECISION_MS;
        pulls.note(1, &digest(1), later + 1);
        assert_eq!(pulls.take(later + 2).into_iter().collect::<Vec<_>>(), [((1, later), vec![digest(1)])]);
        assert_eq!((pulls.last_ms(1, &digest(1)), pulls.last_ms(1, &digest(2))), (Some(later + 1), Some(begin + 7)));
        assert_eq!(pulls.last_ms(2, &digest(1)), None);
    }

    #[test]
    fn what_is_noted_is_bounded_and_earlier_hours_go_first() {
        let (pulls, begin) = (Pulls::default(), 1_000 * PULL_PRECISION_MS);
        let later = begin + PULL_PRECISION_MS;
        (0..NOTED_MAX / 2).for_each(|number| pulls.note(1, &digest(number), begin));
        pulls.take(begin);
        pulls.note(1, &digest(NOTED_MAX), later);
        pulls.take(later);
        assert_eq!((pulls.last_ms(1, &digest(0)), pulls.last_ms(1, &digest(NOTED_MAX))), (None, Some(later)));
        (0..NOTED_MAX + 10).for_each(|number| pulls.note(1, &digest(number), later));
        assert_eq!(pulls.last_ms(1, &digest(NOTED_MAX + 9)), None, "there is no room");
        assert_eq!(pulls.take(later).values().map(Vec::len).sum::<usize>(), NOTED_MAX - 1);
        assert_eq!(pulls.last_ms(1, &digest(NOTED_MAX)), None);
    }
}
