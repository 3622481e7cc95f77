//! Segments.

use crate::admin::{
    format::{count, size, text, time},
    table::{Column, left, right},
};

/// Columns of segments.
pub(in crate::admin) fn columns() -> Vec<Column> {
    vec![
        right("SEGMENT", |entry| count(&entry["number"])),
        left("KIND", |entry| text(&entry["kind"])),
        left("STATE", |entry| text(&entry["state"])),
        right("ON DISK", |entry| size(&entry["allocated_bytes"])),
        right("LENGTH", |entry| size(&entry["length"])),
        right("LIVE", |entry| size(&entry["live_bytes"])),
        right("DEAD", |entry| size(&entry["dead_bytes"])),
        right("RECORDS", |entry| count(&entry["live_records"])),
        left("CREATED", |entry| time(&entry["created_at"])),
    ]
}
