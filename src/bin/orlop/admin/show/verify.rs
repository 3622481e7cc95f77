//! What a verification found.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, and_more, entries, health::hurts, number};
use crate::admin::format::{between, counted, plain, size, text};

/// The findings, and what was looked at.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let findings = entries(&answer["findings"]);
    let more = number(&answer["findings_more"]);
    let mut shown: String = findings
        .iter()
        .map(|finding| {
            let file = finding["file"].as_str().map_or_else(String::new, |file| format!(" ({})", plain(file)));
            format!("{}: {}{file}\n{}", text(&finding["kind"]), text(&finding["what"]), hurts(finding))
        })
        .collect();
    shown.push_str(&and_more(more, "findings"));
    let total = findings.len() as u64 + more;
    let verdict = if total == 0 { "no findings".to_owned() } else { counted(total, "finding") };
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
    Shown { text: shown, findings: total > 0 }
}
