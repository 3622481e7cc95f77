//! Freeing so much: what ends for it before its time, and whether it is enough.

use jiff::Timestamp;
use serde_json::Value;

use super::{and_more, entries, number};
use crate::admin::{
    format::{self, size, time_from},
    table::{left, render},
};

/// What ends before its time, to free so much.
pub(super) fn ended(goal: &Value, dry: bool, now: Timestamp) -> String {
    let ended = entries(&goal["ended"]);
    if ended.is_empty() {
        return String::new();
    }
    let shown = ended.iter().map(|entry| {
        let mut entry = entry.clone();
        let last = if entry["left_at"].is_null() { &entry["used_at"] } else { &entry["left_at"] };
        entry["last_shown"] = Value::from(time_from(last, now));
        entry["until_shown"] = Value::from(time_from(&entry["until"], now));
        entry
    });
    let table = render(
        vec![
            left("WHAT", |entry| source(entry["source"].as_str().unwrap_or(format::NONE))),
            left("LAST USED", |entry| format::text(&entry["last_shown"])),
            left("UNTIL", |entry| format::text(&entry["until_shown"])),
            left("REPOSITORY", |entry| format::text(&entry["repository"])),
            left("TAG", |entry| format::text(&entry["tag"])),
            left("DIGEST", |entry| format::text(&entry["digest"])),
        ],
        &shown.collect::<Vec<_>>(),
    );
    let head = if dry { "Would end before its time:" } else { "Ended before its time:" };
    format!("{head}\n{table}{}\n", and_more(number(&goal["ended_more"]), "ended"))
}

fn source(source: &str) -> String {
    match source {
        "held" => "can be restored",
        "spare-tag" => "a policy takes it",
        "least-used" => "can be evicted",
        other => return format::plain(other),
    }
    .to_owned()
}

/// Whether as much was freed as was asked for; where not, what else can be done.
pub(super) fn goal(answer: &Value, dry: bool) -> String {
    let goal = &answer["goal"];
    let asked = size(&goal["bytes"]);
    match (goal["reached"].as_bool(), goal["shortfall"].as_str()) {
        (None, _) => String::new(),
        (Some(true), _) if dry => format!("That reaches the {asked} that were asked for\n"),
        (Some(true), _) => format!("The {asked} that were asked for are reached\n"),
        (_, Some("paused")) => format!("The {asked} that were asked for are not reached: nothing is dropped now\n"),
        (_, Some("plan-ends")) => {
            format!("The plan does not reach the {asked} that were asked for; the run would go on\n")
        }
        _ => format!(
            "The {asked} that were asked for are not reached: nothing more is held, and no policy lets anything else go.\nWhat never \
             had a manifest goes when its grace ends. All else is in use: `orlop top` shows what keeps the most, `orlop what-if` \
             what deleting it\nwould give, `orlop policy` lets things go by themselves; `orlop compact` gives back what dead bytes \
             take of the disk\n"
        ),
    }
}
