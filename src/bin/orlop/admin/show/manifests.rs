//! Manifests of a repository.

use serde_json::Value;

use super::{entries, number};
use crate::admin::{
    format::{self, size, text, time},
    table::{Column, left, right},
};

/// Tags that stand in a line.
const TAGS_MAX: usize = 3;

/// Columns of manifests.
pub(in crate::admin) fn columns(own: bool) -> Vec<Column> {
    let mut columns = vec![
        left("TAGS", tags),
        left("STATE", |entry| text(&entry["state"])),
        right("SIZE", |entry| size(&entry["image_bytes"])),
    ];
    if own {
        columns.push(right("OWN", |entry| size(&entry["own_bytes"])));
    }
    columns.extend([
        left("PUSHED", |entry| time(&entry["pushed_at"])),
        left("PULLED", |entry| time(&entry["pulled_at"])),
        left("HELD UNTIL", |entry| time(&entry["held_until"])),
        left("DIGEST", |entry| text(&entry["digest"])),
    ]);
    columns
}

/// The first tags, and how many more there are.
pub(super) fn tags(entry: &Value) -> String {
    let tags = entries(&entry["tags"]);
    if tags.is_empty() {
        return format::NONE.to_owned();
    }
    let shown: Vec<String> = tags.iter().take(TAGS_MAX).map(text).collect();
    let total = number(&entry["tags_total"]).max(tags.len() as u64);
    let more = total.saturating_sub(shown.len() as u64);
    let more = if more > 0 { format!(",+{more}") } else { String::new() };
    format!("{}{more}", shown.join(","))
}
