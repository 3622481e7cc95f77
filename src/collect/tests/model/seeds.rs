//! Stores of many seeds, and the seed of one that fails.

use std::sync::atomic::{AtomicU64, Ordering};

/// Says the seed when its store fails.
pub(super) struct Seed(pub(super) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with ORLOP_TEST_SEED={} ORLOP_TEST_ROUNDS=1", self.0);
        }
    }
}

/// Runs a store of each seed, by some threads at once. The environment chooses others.
pub(super) fn each_seed(rounds: u64, run: impl Fn(u64) + Sync) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or(0);
    let rounds = number("ORLOP_TEST_ROUNDS").unwrap_or(rounds);
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..number("ORLOP_TEST_THREADS").unwrap_or(2) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < first + rounds
                {
                    run(seed);
                }
            });
        }
    });
    rounds
}
