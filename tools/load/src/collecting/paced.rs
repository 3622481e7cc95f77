//! Load at a set rate, whatever the answers take.
//!
//! Each piece of work has its time, and how long it took counts from then: a server that stands still for a moment delays
//! all pieces of that moment, and each of them says so. Clients that wait for an answer before they ask again would not
//! notice. Every sample is kept, so that what a phase was like can be told when all is over.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::error::LoadError;

/// A piece of work that was done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample<Kind> {
    /// When it was to begin.
    pub(super) planned: Instant,
    /// From then to its end.
    pub(super) took: Duration,
    /// What it was.
    pub(super) kind: Kind,
}

/// What all clients came to.
#[derive(Debug)]
pub(super) struct Paced<Kind> {
    /// In no order.
    pub(super) samples: Vec<Sample<Kind>>,
    /// Pieces that failed.
    pub(super) errors: u64,
    /// Why the first one did.
    pub(super) first_error: Option<LoadError>,
}

/// Begins `rate` pieces a second until `stop` is set. There have to be clients for all that is under way at once; where
/// there are not, pieces begin late, and that counts.
pub(super) fn run<State, Kind: Send>(
    rate: f64,
    clients: u64,
    stop: &AtomicBool,
    start: impl Fn(u64) -> State + Sync,
    work: impl Fn(&mut State, u64) -> Result<Kind, LoadError> + Sync,
) -> Paced<Kind> {
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let all = Mutex::new(Paced { samples: Vec::new(), errors: 0, first_error: None });
    let client = |number| {
        let mut state = start(number);
        let mut own = Paced { samples: Vec::new(), errors: 0, first_error: None };
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let planned = began + Duration::from_secs_f64(index as f64 / rate);
            thread::sleep(planned.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match work(&mut state, index) {
                Ok(kind) => own.samples.push(Sample { planned, took: planned.elapsed(), kind }),
                Err(error) => {
                    own.errors += 1;
                    own.first_error.get_or_insert(error);
                }
            }
        }
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.samples.append(&mut own.samples);
        all.errors += own.errors;
        all.first_error = all.first_error.take().or(own.first_error);
    };
    thread::scope(|scope| {
        for number in 0..clients {
            let client = &client;
            scope.spawn(move || client(number));
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_for_every_piece_that_was_planned_in_it() {
        let stop = AtomicBool::new(false);
        let pause = Duration::from_millis(200);
        // One client, so that a piece that takes long delays those behind it.
        let paced = run(
            100.0,
            1,
            &stop,
            |_| (),
            |(), index| {
                if index == 10 {
                    thread::sleep(pause);
                }
                stop.store(index == 40, Ordering::Relaxed);
                Ok(())
            },
        );
        let late = paced.samples.iter().filter(|sample| sample.took > pause / 4).count();
        assert!((10..=25).contains(&late), "{late} of {} were late", paced.samples.len());
        assert_eq!(paced.errors, 0);
    }
}
