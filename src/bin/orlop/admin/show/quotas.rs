//! Quotas, and what is used of them.

use jiff::Timestamp;
use serde_json::Value;

use super::Shown;
use crate::admin::{
    format::{self, size, text},
    table::{self, Column, left, right},
};

/// Columns of quotas.
pub(in crate::admin) fn columns() -> Vec<Column> {
    vec![
        left("QUOTA OF", owner),
        right("LIMIT", |entry| size(&entry["limit_bytes"])),
        right("USED", |entry| size(&entry["used_bytes"])),
        right("UPLOADING", |entry| size(&entry["uploading_bytes"])),
        right("FREE", |entry| size(&entry["free_bytes"])),
        right("RECLAIMABLE", |entry| size(&entry["reclaimable_bytes"])),
        left("SET", |entry| format::time(&entry["set_at"])),
    ]
}

/// As commands take it: an organisation's name has a slash at its end.
fn owner(entry: &Value) -> String {
    match entry["organization"].is_string() {
        true => format!("{}/", text(&entry["organization"])),
        false => text(&entry["repository"]),
    }
}

/// What a quota was set to.
pub(in crate::admin) fn set(answer: &Value, _: Timestamp) -> Shown {
    let quota = &answer["quota"];
    if quota.is_null() {
        return Shown::plain("there is no quota there any more\n".to_owned());
    }
    let facts = table::facts(&[
        ("limit", size(&quota["limit_bytes"])),
        ("used", format!("{}, {} of it uploads", size(&quota["used_bytes"]), size(&quota["uploading_bytes"]))),
        ("free", size(&quota["free_bytes"])),
        ("reclaimable", size(&quota["reclaimable_bytes"])),
    ]);
    let warning = match answer["warning"].as_str() {
        Some(warning) => format!("Warning: {}\n", format::plain(warning)),
        None => String::new(),
    };
    Shown::plain(format!("quota of {}\n{facts}{warning}", owner(quota)))
}
