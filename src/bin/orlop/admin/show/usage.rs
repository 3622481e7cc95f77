//! Usage: of one scope, of many, and by days.

use jiff::Timestamp;
use serde_json::Value;

use super::{HINT, Shown, number};
use crate::admin::{
    format::{self, bytes, count, counted, size, text},
    table::{self, Column, left, right},
};

/// One scope.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let scope = match answer["scope"].as_str() {
        Some("organization") => "organisation".to_owned(),
        _ => text(&answer["scope"]),
    };
    let name = if answer["name"].is_string() { text(&answer["name"]) } else { String::new() };
    let held = if number(&answer["settling"]) > 0 { "; still being counted" } else { "" };
    let of = |field: &str, one: &str| counted(number(&answer[field]), one);
    let mut facts = vec![
        ("stored", format!("{} in {}", size(&answer["unique_bytes"]), of("blobs", "blob"))),
        ("manifests", format!("{} in {}", size(&answer["manifest_bytes"]), of("manifests", "manifest"))),
        ("reclaimable", format!("{} of what is stored{held}", size(&answer["reclaimable_bytes"]))),
        ("tags", count(&answer["tags"])),
    ];
    for (field, name) in [("repositories", "repositories"), ("organizations", "organisations")] {
        if !answer[field].is_null() {
            facts.push((name, count(&answer[field])));
        }
    }
    if !answer["created_at"].is_null() {
        facts.push(("created", format::time(&answer["created_at"])));
    }
    if !answer["disk_bytes"].is_null() {
        facts.push(("disk", size(&answer["disk_bytes"])));
        facts.push(("live", format!("{} of segments", size(&answer["live_bytes"]))));
        facts.push(("dead", format!("{} of segments", size(&answer["dead_bytes"]))));
    }
    let head = format!("{scope} {name}");
    Shown::plain(format!("{}\n{}\n{HINT}\n", head.trim_end(), table::facts(&facts)))
}

/// Columns of organisations, or repositories.
pub(in crate::admin) fn scopes(head: &'static str, has_repositories: bool) -> Vec<Column> {
    let mut columns = vec![left(head, |entry| text(&entry["name"]))];
    if has_repositories {
        columns.push(right("REPOSITORIES", |entry| count(&entry["repositories"])));
    }
    columns.extend([
        right("MANIFESTS", |entry| count(&entry["manifests"])),
        right("TAGS", |entry| count(&entry["tags"])),
        right("BLOBS", |entry| count(&entry["blobs"])),
        right("STORED", |entry| size(&entry["unique_bytes"])),
        right("RECLAIMABLE", reclaimable),
    ]);
    columns
}

/// With a mark where it is still being counted.
fn reclaimable(entry: &Value) -> String {
    let mark = if number(&entry["settling"]) > 0 { "~" } else { "" };
    entry["reclaimable_bytes"].as_u64().map_or_else(|| format::NONE.to_owned(), |size| format!("{mark}{}", bytes(size)))
}

/// Columns of daily samples.
pub(in crate::admin) fn samples() -> Vec<Column> {
    vec![
        left("DAY", |entry| text(&entry["day"])),
        right("REPOSITORIES", |entry| count(&entry["repositories"])),
        right("MANIFESTS", |entry| count(&entry["manifests"])),
        right("TAGS", |entry| count(&entry["tags"])),
        right("BLOBS", |entry| count(&entry["blobs"])),
        right("STORED", |entry| size(&entry["unique_bytes"])),
        right("RECLAIMABLE", |entry| size(&entry["reclaimable_bytes"])),
    ]
}
