//! Whether all is well: the process, and the scrub.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, and_more, entries, number};
use crate::admin::format::{between, counted, plain, size, text};

/// The process; that it takes no writes, or that something is damaged, is something to look at.
pub(in crate::admin) fn status(answer: &Value, _: Timestamp) -> Shown {
    let names = |field: &str| {
        let names: Vec<String> = entries(&answer[field]).iter().map(text).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let takes_writes = answer["writes"] == true;
    let writes = match answer["reason"].as_str() {
        _ if takes_writes => "accepted".to_owned(),
        Some(reason) => format!("refused: {}", plain(reason)),
        None => "refused".to_owned(),
    };
    let (damaged, findings) = (number(&answer["damaged_blobs"]), number(&answer["findings"]));
    let mut shown = format!(
        "version   {}\nup        {} s\nwrites    {writes}\nrunning   {}\npaused    {}\n",
        text(&answer["version"]),
        number(&answer["uptime_seconds"]),
        names("running"),
        names("paused")
    );
    if !answer["clock_until"].is_null() {
        shown.push_str(&format!("clock     it jumped; nothing is dropped until {}\n", text(&answer["clock_until"])));
    }
    shown.push_str(&format!("damaged   {}; {}\n", counted(damaged, "blob"), counted(findings, "scrub finding")));
    Shown::new(shown, !takes_writes || damaged + findings > 0)
}

/// How far the scrub is, and what it has found.
pub(in crate::admin) fn scrub(answer: &Value, _: Timestamp) -> Shown {
    let findings = entries(&answer["findings"]);
    let mut shown = String::new();
    for finding in findings {
        let place = match (finding["file"].as_str(), finding["offset"].as_u64()) {
            (Some(file), Some(offset)) => format!("{} at {offset}: ", plain(file)),
            (Some(file), None) => format!("{}: ", plain(file)),
            _ => String::new(),
        };
        shown.push_str(&format!("{}: {place}{}\n", text(&finding["kind"]), text(&finding["what"])));
        shown.push_str(&hurts(finding));
    }
    let more = number(&answer["findings_more"]);
    shown.push_str(&and_more(more, "findings"));
    let pass = &answer["pass"];
    if !pass.is_null() {
        let (bytes, total) = (size(&pass["bytes"]), size(&pass["total_bytes"]));
        let state = match () {
            () if answer["running"] == true => "under way",
            () if answer["paused"] == true => "paused",
            () => "waiting",
        };
        shown.push_str(&format!("pass {state} since {}: {bytes} of about {total} read\n", text(&pass["began_at"])));
        if !pass["expected_end_at"].is_null() {
            let (pace, end) = (size(&pass["bytes_per_second"]), text(&pass["expected_end_at"]));
            shown.push_str(&format!("pace {pace} in a second; ends about {end} at that\n"));
        }
    }
    let last = &answer["last"];
    if !last.is_null() {
        let took = between(&last["began_at"], &last["ended_at"]).map_or_else(String::new, |took| format!(" in {took}"));
        let (records, bytes) = (counted(number(&last["records"]), "record"), size(&last["bytes"]));
        shown.push_str(&format!("last pass: {records}, {bytes}{took}, ended {}\n", text(&last["ended_at"])));
        if let Some(repaired) = last["repaired"].as_str() {
            shown.push_str(&format!("repaired: {}\n", plain(repaired)));
        }
    }
    if !answer["next_at"].is_null() {
        shown.push_str(&format!("next pass: {}\n", text(&answer["next_at"])));
    }
    let total = findings.len() as u64 + more;
    shown.push_str(&if total == 0 { "no findings\n".to_owned() } else { format!("{}\n", counted(total, "finding")) });
    Shown::new(shown, total > 0)
}

/// Whom a finding hurts, indented below it.
pub(super) fn hurts(finding: &Value) -> String {
    let names: Vec<String> = entries(&finding["hurts"]).iter().map(text).collect();
    match (names.is_empty(), finding["hurts_more"] == true) {
        (true, _) => String::new(),
        (false, true) => format!("  hurts {}, and more\n", names.join(", ")),
        (false, false) => format!("  hurts {}\n", names.join(", ")),
    }
}
