//! Answers as text: a file for each kind. What an answer lacks is shown as `-`, so that a newer server can be asked, too.

use serde_json::Value;

use super::Outcome;

pub(super) mod blob;
pub(super) mod collection;
pub(super) mod doctor;
mod freed;
pub(super) mod health;
pub(super) mod history;
pub(super) mod manifests;
pub(super) mod policies;
pub(super) mod quotas;
pub(super) mod segments;
#[cfg(test)]
mod tests;
pub(super) mod top;
pub(super) mod usage;
pub(super) mod verify;
pub(super) mod what_if;
pub(super) mod why;

/// Said wherever sums of parts are shown.
pub(super) const HINT: &str = "Shared layers count in each part, so parts add up to more than the whole.";

/// What a command prints, and whether there is something to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) outcome: Outcome,
}

impl Shown {
    fn new(text: String, has_findings: bool) -> Self {
        Self { text, outcome: if has_findings { Outcome::Findings } else { Outcome::Done } }
    }

    fn plain(text: String) -> Self {
        Self { text, outcome: Outcome::Done }
    }
}

/// The entries of a list; none where it is missing.
fn entries(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Whether a count says that something was left out.
fn and_more(count: u64, what: &str) -> String {
    if count == 0 { String::new() } else { format!("… and {count} more {what}\n") }
}
