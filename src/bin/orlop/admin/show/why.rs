//! What keeps some content: chains of manifests, from it up to a tag.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, entries};
use crate::admin::format::{text, time_from};

/// The chains, a step a line.
pub(in crate::admin) fn show(answer: &Value, now: Timestamp) -> Shown {
    let digest = text(&answer["digest"]);
    if answer["kept"] != true {
        return Shown::plain(format!("nothing keeps {digest}\n"));
    }
    let mut shown = format!("{digest} is kept by:\n");
    for chain in entries(&answer["chains"]) {
        shown.push('\n');
        shown.push_str(&format!("{}: {}\n", text(&chain["repository"]), end(chain, now)));
        // From the top down, as one pulls: each step is indented below what names it.
        for (depth, step) in entries(&chain["path"]).iter().rev().enumerate() {
            let role = step["as"].as_str().map_or_else(String::new, |_| format!(" ({})", text(&step["as"])));
            shown.push_str(&format!("{:indent$}{}{role}\n", "", text(&step["digest"]), indent = 2 * (depth + 1)));
        }
    }
    if answer["more"] == true {
        shown.push_str("\n… and there may be more\n");
    }
    Shown::plain(shown)
}

fn end(chain: &Value, now: Timestamp) -> String {
    let until = || time_from(&chain["until"], now);
    match chain["by"].as_str() {
        Some("tag") => format!("tag {}", text(&chain["tag"])),
        Some("root") => "was pushed by digest, and lives by itself".to_owned(),
        Some("window") => format!("can be restored until {}", until()),
        Some("grace") => format!("never had a manifest; kept until {}", until()),
        _ => text(&chain["by"]),
    }
}
