//! What a run of cuts comes to.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::tally::Tally;

/// A cut that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    /// What was acknowledged before it, and under way.
    pub(crate) tally: Tally,
    /// Blocks that were not flushed, and changes of names.
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
}

impl Figures {
    /// All as data; medians of the trials.
    pub(crate) fn to_json(&self, elapsed: Duration, log: &Path) -> Value {
        let median = |of| median(&self.trials, of);
        json!({
            "trials": self.trials.len(),
            "cuts_of_recoveries": self.recovery_cuts,
            "refused_mounts": self.refused_mounts,
            "poisoned": self.poisoned,
            "unreadable": self.unreadable,
            "acknowledged": median(|trial| trial.tally.acknowledged),
            "under_way": median(|trial| trial.tally.under_way),
            "unflushed": median(|trial| trial.unflushed),
            "writes_ms": write_latencies(log),
            "seconds": elapsed.as_secs(),
        })
    }
}

/// The median of something of the trials.
pub(crate) fn median(trials: &[Trial], of: fn(&Trial) -> u64) -> u64 {
    let mut values: Vec<u64> = trials.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How long the server of the last store took for requests that are acknowledged once they are durable: half of them, all
/// but a hundredth, and the slowest.
fn write_latencies(log: &Path) -> Value {
    let text = fs::read_to_string(log).unwrap_or_default();
    let field = |line: &str, name: &str| line.split_once(name)?.1.split(' ').next().map(str::to_owned);
    let took = |line: &str| match field(line, " method=")?.as_str() {
        "PUT" | "DELETE" => field(line, " duration_ms=")?.parse().ok(),
        _ => None,
    };
    let mut all: Vec<u64> = text.lines().filter_map(took).collect();
    all.sort_unstable();
    let quantile = |share: f64| all.get((all.len().saturating_sub(1) as f64 * share) as usize).copied();
    json!({ "count": all.len(), "p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1.0) })
}
