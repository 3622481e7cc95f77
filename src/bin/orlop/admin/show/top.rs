//! What keeps the most by itself.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, entries, manifests::tags};
use crate::admin::{
    format::{self, size},
    table::{Column, left, render, right},
};

/// The answer as a table of whatever it lists.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let name = |head| vec![left(head, |entry| format::text(&entry["name"]))];
    let (plural, list, mut columns) = match answer {
        _ if answer["organizations"].is_array() => ("organisations", &answer["organizations"], name("ORGANISATION")),
        _ if answer["repositories"].is_array() => ("repositories", &answer["repositories"], name("REPOSITORY")),
        _ => ("manifests", &answer["manifests"], vec![left("TAGS", tags)]),
    };
    columns.extend(figures());
    if plural == "manifests" {
        columns.extend([
            left("STATE", |entry| format::text(&entry["state"])),
            left("DIGEST", |entry| format::text(&entry["digest"])),
        ]);
    }
    let mut text = match entries(list) {
        [] => format!("no {plural}\n"),
        list => {
            let table = render(columns, list);
            format!("{table}\nFREED is what deleting that one alone gives back; what others keep, too, stays.\n")
        }
    };
    if answer["complete"] == false {
        text.push_str(
            "Others may keep more: there is too much for one answer. Ask for an organisation or a repository.\n",
        );
    }
    Shown::plain(text)
}

fn figures() -> [Column; 3] {
    [
        right("FREED", |entry| size(&entry["freed_bytes"])),
        right("STORED", |entry| size(&entry["unique_bytes"])),
        right("RECLAIMABLE", |entry| size(&entry["reclaimable_bytes"])),
    ]
}
