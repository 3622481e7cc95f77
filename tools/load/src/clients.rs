//! Many clients at once: threads that draw numbers from one counter, and what came of them as figures.
//!
//! The clock starts when every client is ready, so that dialling and threads' births are not part of what is measured.

use std::{
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::error::LoadError;

/// How much is done at most, by how many.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Threads; at least one.
    pub(crate) clients: usize,
    /// Pieces of work.
    pub(crate) count: u64,
    /// No piece is begun after this time.
    pub(crate) time: Option<Duration>,
    /// Pieces that may fail; one more ends the run.
    pub(crate) errors_max: u64,
}

impl Bounds {
    /// So many pieces, all of which have to be done.
    pub(crate) fn all(clients: usize, count: u64) -> Self {
        Self { clients, count, time: None, errors_max: 0 }
    }
}

/// What a run of many clients came to.
#[derive(Debug)]
pub(crate) struct Figures<Done = ()> {
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// How long each piece of work took that was done, and what it says of itself; in no order.
    pub(crate) pieces: Vec<(Duration, Done)>,
    /// Pieces that failed.
    pub(crate) errors: u64,
    /// Why the first one did.
    pub(crate) first_error: Option<LoadError>,
}

impl<Done> Figures<Done> {
    /// The figures as data; times in microseconds, except `seconds`.
    pub(crate) fn to_json(&self) -> Value {
        let sorted = Sorted::of(self.pieces.iter().map(|(duration, _)| *duration));
        json!({
            "count": self.pieces.len(),
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": self.pieces.len() as f64 / self.elapsed.as_secs_f64().max(1e-9),
            "p50_us": sorted.micros(0.5),
            "p99_us": sorted.micros(0.99),
            "max_us": sorted.micros(1.0),
        })
    }
}

/// Durations in order, every one of them: quantiles are exact.
#[derive(Debug)]
pub(crate) struct Sorted(Vec<Duration>);

impl Sorted {
    /// Sorts them.
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// The duration that `share` (0 to 1) of them stay within.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    /// The same in microseconds.
    pub(crate) fn micros(&self, share: f64) -> u64 {
        u64::try_from(self.quantile(share).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Does the pieces `0..count`, each client with a state of its own that `start` makes from the client's number.
///
/// # Errors
/// The first error of any client, once there are more than allowed; the others stop after the piece that they are at.
pub(crate) fn run<State, Done: Send>(
    bounds: &Bounds,
    start: impl Fn(u64) -> State + Sync,
    work: impl Fn(&mut State, u64) -> Result<Done, LoadError> + Sync,
) -> Result<Figures<Done>, LoadError> {
    let next = AtomicU64::new(0);
    let errors = AtomicU64::new(0);
    let stopped = AtomicBool::new(false);
    let ready = Barrier::new(bounds.clients.saturating_add(1));
    let outcome = Mutex::new((Vec::new(), None));
    let client = |number: u64| {
        let mut state = start(number);
        let mut pieces = Vec::new();
        let mut failure = None;
        ready.wait();
        let until = bounds.time.and_then(|time| Instant::now().checked_add(time));
        while !stopped.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            if index >= bounds.count || until.is_some_and(|until| began >= until) {
                break;
            }
            match work(&mut state, index) {
                Ok(done) => pieces.push((began.elapsed(), done)),
                Err(error) => {
                    failure = failure.or(Some(error));
                    if errors.fetch_add(1, Ordering::Relaxed) >= bounds.errors_max {
                        stopped.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.0.append(&mut pieces);
        outcome.1 = outcome.1.take().or(failure);
    };
    let began = thread::scope(|scope| {
        for number in 0..bounds.clients as u64 {
            let client = &client;
            scope.spawn(move || client(number));
        }
        ready.wait();
        Instant::now()
    });
    let elapsed = began.elapsed();
    let (pieces, first_error) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    let errors = errors.into_inner();
    match first_error {
        Some(error) if errors > bounds.errors_max => Err(error),
        first_error => Ok(Figures { elapsed, pieces, errors, first_error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        let done = Mutex::new(Vec::new());
        let figures = run(
            &Bounds::all(4, 100),
            |_| (),
            |(), index| {
                done.lock().unwrap().push(index);
                Ok(index)
            },
        );
        assert_eq!(figures.unwrap().pieces.len(), 100);
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_run_unless_errors_are_counted() {
        let work = |(): &mut (), index| if index == 5 { Err(LoadError::Usage("five".to_owned())) } else { Ok(()) };
        assert!(run(&Bounds::all(3, 1_000_000_000), |_| (), work).is_err());
        let counted = run(&Bounds { errors_max: 1, ..Bounds::all(3, 100) }, |_| (), work).unwrap();
        assert_eq!((counted.pieces.len(), counted.errors), (99, 1));
        assert_eq!(counted.first_error.unwrap().to_string(), "five");
    }

    #[test]
    fn no_piece_begins_after_the_time() {
        let bounds = Bounds { time: Some(Duration::from_millis(50)), ..Bounds::all(2, u64::MAX) };
        let figures = run(
            &bounds,
            |_| (),
            |(), _| {
                thread::sleep(Duration::from_millis(5));
                Ok(())
            },
        );
        assert!((1..=22).contains(&figures.unwrap().pieces.len()));
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_durations() {
        let sorted = Sorted::of((1..=101).rev().map(Duration::from_millis));
        for (share, expected) in [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 101)] {
            assert_eq!(sorted.quantile(share), Duration::from_millis(expected), "{share}");
        }
    }
}
