//! What a verification found.

use jiff::Timestamp;
use serde_json::Value;

use super::{Outcome, Shown, and_more, entries, health::hurts, number};
use crate::admin::format::{between, counted, plain, size, text};

/// The findings, what could not be looked at, and what was.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let mut shown = String::new();
    for line in entries(&answer["opening"]) {
        shown.push_str(&format!("opening: {}\n", text(line)));
    }
    let total = list(&mut shown, answer, "findings", "", "findings");
    let unchecked = list(&mut shown, answer, "unchecked", "not looked at: ", "things that were not looked at");
    let mut verdict = if total == 0 { "no findings".to_owned() } else { counted(total, "finding") };
    if unchecked > 0 {
        verdict.push_str(&format!(", {unchecked} not looked at"));
    }
    let content = match answer["content_bytes"].as_u64() {
        Some(0) | None => "no content read".to_owned(),
        Some(_) => format!("{} of content read", size(&answer["content_bytes"])),
    };
    let took =
        between(&answer["began_at"], &answer["ended_at"]).map_or_else(String::new, |took| format!(", in {took}"));
    shown.push_str(&format!(
        "{verdict}: {} counted again, {} in {} looked at, {content}{took}\n",
        counted(number(&answer["manifests"]), "manifest"),
        counted(number(&answer["records"]), "record"),
        counted(number(&answer["segments"]), "segment"),
    ));
    if let Some(hash) = answer["state_hash"].as_str() {
        shown.push_str(&format!("state hash {} after operation {}\n", plain(hash), number(&answer["lsn"])));
    }
    let outcome = match (total, unchecked) {
        (0, 0) => Outcome::Done,
        (0, _) => Outcome::Unchecked,
        _ => Outcome::Findings,
    };
    Shown { text: shown, outcome }
}

/// The entries of a field, and how many there are with those that are only counted.
fn list(shown: &mut String, answer: &Value, field: &str, prefix: &str, many: &str) -> u64 {
    let listed = entries(&answer[field]);
    for finding in listed {
        let place = match (finding["file"].as_str(), finding["offset"].as_u64()) {
            (Some(file), Some(offset)) => format!(" ({} at {offset})", plain(file)),
            (Some(file), None) => format!(" ({})", plain(file)),
            (None, Some(offset)) => format!(" (at {offset})"),
            (None, None) => String::new(),
        };
        shown.push_str(&format!("{prefix}{}: {}{place}\n", text(&finding["kind"]), text(&finding["what"])));
        shown.push_str(&hurts(finding));
    }
    let more = number(&answer[&format!("{field}_more")]);
    shown.push_str(&and_more(more, many));
    listed.len() as u64 + more
}
