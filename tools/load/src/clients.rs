//! Many clients at once: threads that draw numbers from one counter, and what came of them as figures.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::error::LoadError;

/// What a run of many clients came to.
#[derive(Debug)]
pub(crate) struct Figures {
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// How long each piece of work took, in no order.
    pub(crate) durations: Vec<Duration>,
}

impl Figures {
    /// Pieces of work for each second.
    pub(crate) fn per_second(&self) -> f64 {
        self.durations.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The duration that `share` (0 to 1) of the pieces stay within.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    /// The figures as data; times in microseconds, except `seconds`.
    pub(crate) fn to_json(&self) -> Value {
        let micros = |share| u64::try_from(self.quantile(share).as_micros()).unwrap_or(u64::MAX);
        json!({
            "count": self.durations.len(),
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": self.per_second(),
            "p50_us": micros(0.5),
            "p99_us": micros(0.99),
            "max_us": micros(1.0),
        })
    }
}

/// Does the pieces `0..count` with `clients` threads, each with a state of its own that `start` makes.
///
/// # Errors
/// The first error of any client; the others stop after the piece that they are at.
pub(crate) fn run<State>(
    clients: usize,
    count: u64,
    start: impl Fn() -> State + Sync,
    work: impl Fn(&mut State, u64) -> Result<(), LoadError> + Sync,
) -> Result<Figures, LoadError> {
    let next = AtomicU64::new(0);
    let stopped = AtomicBool::new(false);
    let outcome = Mutex::new((Vec::new(), None));
    let began = Instant::now();
    let client = || {
        let mut state = start();
        let mut durations = Vec::new();
        let mut failure = None;
        while failure.is_none() && !stopped.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let piece_began = Instant::now();
            match work(&mut state, index) {
                Ok(()) => durations.push(piece_began.elapsed()),
                Err(error) => failure = Some(error),
            }
        }
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.0.append(&mut durations);
        if failure.is_some() {
            stopped.store(true, Ordering::Relaxed);
            outcome.1 = outcome.1.take().or(failure);
        }
    };
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(client);
        }
    });
    let elapsed = began.elapsed();
    let (durations, failure) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(Figures { elapsed, durations }), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        let done = Mutex::new(Vec::new());
        let figures = run(
            4,
            100,
            || (),
            |(), index| {
                done.lock().unwrap().push(index);
                Ok(())
            },
        );
        assert_eq!(figures.unwrap().durations.len(), 100);
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_run() {
        let work = |(): &mut (), index| if index == 5 { Err(LoadError::Usage("five".to_owned())) } else { Ok(()) };
        assert!(run(3, 1_000_000_000, || (), work).is_err());
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_durations() {
        let durations = (1..=101).rev().map(Duration::from_millis).collect();
        let figures = Figures { elapsed: Duration::from_secs(1), durations };
        for (share, expected) in [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 101)] {
            assert_eq!(figures.quantile(share), Duration::from_millis(expected), "{share}");
        }
    }
}
