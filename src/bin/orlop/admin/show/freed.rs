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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_ends_before_its_time_is_told_with_what_it_was() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let entry = |source: &str, tag: Value, left: Value, until: Value, used: Value| {
            json!({ "source": source, "repository": "b", "digest": DIGEST, "tag": tag, "left_at": left, "until": until,
                "used_at": used })
        };
        let (yesterday, tomorrow) = (json!("2026-11-20T12:00:00Z"), json!("2026-11-22T12:00:00Z"));
        let ended_things = [
            entry("held", Value::Null, yesterday.clone(), tomorrow.clone(), Value::Null),
            entry("spare-tag", json!("v1"), Value::Null, tomorrow, Value::Null),
            entry("least-used", Value::Null, Value::Null, Value::Null, yesterday),
        ];
        let text = ended(&json!({ "ended": ended_things, "ended_more": 2 }), true, now);
        let expected = "\
Would end before its time:
WHAT               LAST USED             UNTIL                         REPOSITORY  TAG  DIGEST
can be restored    2026-11-20T12:00:00Z  2026-11-22T12:00:00Z (in 1d)  b           -    E3B0
a policy takes it  -                     2026-11-22T12:00:00Z (in 1d)  b           v1   E3B0
can be evicted     2026-11-20T12:00:00Z  -                             b           -    E3B0
… and 2 more ended

";
        assert_eq!(text.replace(DIGEST, "E3B0"), expected);
        assert_eq!(ended(&json!({ "ended": [], "ended_more": 0 }), true, now) + &ended(&Value::Null, false, now), "");
    }

    #[test]
    fn what_is_still_missing_is_told_with_what_can_be_done() {
        let said = |reached: bool, shortfall: Value, dry: bool| {
            goal(&json!({ "goal": { "bytes": 20 << 20, "reached": reached, "shortfall": shortfall } }), dry)
        };
        assert_eq!(said(true, Value::Null, true), "That reaches the 20.0 MiB that were asked for\n");
        assert_eq!(said(true, Value::Null, false), "The 20.0 MiB that were asked for are reached\n");
        for (shortfall, part) in [
            ("nothing-left", "`orlop compact` gives back"),
            ("plan-ends", "the run would go on\n"),
            ("paused", "nothing is dropped now\n"),
        ] {
            assert!(said(false, json!(shortfall), true).contains(part), "{shortfall}");
        }
        assert_eq!(goal(&json!({ "goal": null }), false), "");
    }
}
