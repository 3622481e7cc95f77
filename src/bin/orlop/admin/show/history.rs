//! The time machine: what tags pointed to, and what came back.

use jiff::Timestamp;
use serde_json::Value;

use super::Shown;
use crate::admin::{
    format::{text, time},
    table::{Column, left},
};

/// Columns of a tag's history.
pub(in crate::admin) fn columns() -> Vec<Column> {
    vec![
        left("TAG", |entry| text(&entry["tag"])),
        left("FROM", |entry| time(&entry["at"])),
        left("KEPT UNTIL", |entry| time(&entry["until"])),
        left("STATE", |entry| if entry["digest"].is_null() { "removed".to_owned() } else { text(&entry["state"]) }),
        left("DIGEST", |entry| text(&entry["digest"])),
    ]
}

/// What a restore came to.
pub(in crate::admin) fn restored(answer: &Value, _: Timestamp) -> Shown {
    let (repository, digest) = (text(&answer["repository"]), text(&answer["digest"]));
    Shown::plain(match answer["tag"].as_str() {
        Some(_) => format!("{repository}:{} is {digest} again\n", text(&answer["tag"])),
        None => format!("{repository}@{digest} is {} again, without a tag\n", text(&answer["state"])),
    })
}
