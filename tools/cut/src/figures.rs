//! What a run of cuts comes to.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::tally::Tally;

/// A cut that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    /// What was acknowledged before it, and under way.
    pub(crate) tally: Tally,
    /// Blocks of 4 KiB that were not flushed, and changes of names.
    pub(crate) unflushed: u64,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Cuts that count.
    pub(crate) trials: Vec<Trial>,
    /// Cuts during the recovery from another.
    pub(crate) recovery_cuts: u64,
    /// Images that the file system itself did not survive.
    pub(crate) refused_mounts: u64,
    /// Stores that took no more writes after an error of the disk.
    pub(crate) poisoned: u64,
    /// File systems that could not be read any more after an error of the disk.
    pub(crate) unreadable: u64,
    /// Times of requests that are acknowledged once they are durable, in milliseconds, over all stores.
    writes_ms: Vec<u64>,
    /// Times of starts after a cut, in milliseconds.
    starts_ms: Vec<u64>,
}

impl Figures {
    /// All as data; quartiles of the trials.
    pub(crate) fn to_json(&self, elapsed: Duration) -> Value {
        let of = |of| quartiles(&self.trials, of);
        json!({
            "trials": self.trials.len(),
            "cuts_of_recoveries": self.recovery_cuts,
            "refused_mounts": self.refused_mounts,
            "poisoned": self.poisoned,
            "unreadable": self.unreadable,
            "acknowledged": of(|trial| trial.tally.acknowledged),
            "under_way": of(|trial| trial.tally.under_way),
            "unflushed": of(|trial| trial.unflushed),
            "writes_ms": spread(&self.writes_ms),
            "starts_ms": spread(&self.starts_ms),
            "seconds": elapsed.as_secs(),
        })
    }

    /// Takes from a server's log how long its writes took.
    pub(crate) fn add_writes(&mut self, log: &Path) {
        let text = fs::read_to_string(log).unwrap_or_default();
        self.writes_ms.extend(text.lines().filter_map(write_ms));
    }

    /// A start took so long.
    pub(crate) fn add_start(&mut self, took: Duration) {
        self.starts_ms.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// The longest write, in milliseconds.
    pub(crate) fn slowest_write_ms(&self) -> u64 {
        self.writes_ms.iter().copied().max().unwrap_or_default()
    }
}

/// How long a line of the server's log says that a write took.
fn write_ms(line: &str) -> Option<u64> {
    let field = |name: &str| line.split_once(name)?.1.split(' ').next();
    matches!(field(" method=")?, "PUT" | "DELETE").then(|| field(" duration_ms=")?.parse().ok()).flatten()
}

/// The value below which a share of all lies.
fn quantile(sorted: &[u64], share: f64) -> Option<u64> {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied()
}

/// The quartiles of something of the trials: a quarter has less than the first, half less than the second.
pub(crate) fn quartiles(trials: &[Trial], of: fn(&Trial) -> u64) -> [u64; 3] {
    let mut values: Vec<u64> = trials.iter().map(of).collect();
    values.sort_unstable();
    [0.25, 0.5, 0.75].map(|share| quantile(&values, share).unwrap_or_default())
}

fn spread(values: &[u64]) -> Value {
    let mut all = values.to_vec();
    all.sort_unstable();
    json!({
        "count": all.len(),
        "p50": quantile(&all, 0.5),
        "p99": quantile(&all, 0.99),
        "max": quantile(&all, 1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_durable_once_answered_counts_as_a_write() {
        let line = |method: &str| format!("INFO request method={method} path=/v2/ status=201 duration_ms=12 bytes=3");
        assert_eq!((write_ms(&line("PUT")), write_ms(&line("DELETE"))), (Some(12), Some(12)));
        assert_eq!((write_ms(&line("GET")), write_ms("orlop is ready duration_ms=5")), (None, None));
    }

    #[test]
    fn quartiles_are_those_of_the_sorted_values() {
        let trials = (0..101).rev().map(|unflushed| Trial { tally: Tally::default(), unflushed });
        assert_eq!(quartiles(&trials.collect::<Vec<_>>(), |trial| trial.unflushed), [25, 50, 75]);
        assert_eq!(quartiles(&[], |trial| trial.unflushed), [0; 3]);
    }
}
