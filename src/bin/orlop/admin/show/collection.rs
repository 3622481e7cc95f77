//! Collections: what left, what stays and why, what is due; and the emergency switches.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, and_more, entries, freed, number};
use crate::admin::{
    format::{self, between, counted, size, text, time, time_from},
    table::{left, render, right},
};

/// What a collection or purge did, or would do. Something to look at is what was asked for and did not come about.
pub(in crate::admin) fn report(answer: &Value, now: Timestamp) -> Shown {
    let dry = answer["dry_run"] == true;
    let (by_policies, dropped): (Vec<Value>, Vec<Value>) =
        entries(&answer["dropped"]).iter().cloned().partition(|entry| entry["policy"].is_string());
    // What stops everything is told by itself, below.
    let stops = |entry: &&Value| matches!(entry["why"].as_str(), Some("paused" | "clock"));
    let stopped = entries(&answer["kept"]).iter().find(stops);
    let kept: Vec<Value> = entries(&answer["kept"]).iter().filter(|entry| !stops(entry)).cloned().collect();
    let mut text = freed::ended(&answer["goal"], dry, now) + &by_policies_table(&by_policies, dry);
    if !dropped.is_empty() {
        text.push_str(if dry { "Would be dropped:\n" } else { "Dropped:\n" });
        text.push_str(&render(
            vec![
                left("WHAT", |entry| format::text(&entry["kind"])),
                right("SIZE", |entry| size(&entry["bytes"])),
                left("CONTENT", |entry| if entry["last"] == true { "leaves" } else { "stays elsewhere" }.to_owned()),
                left("REPOSITORY", |entry| format::text(&entry["repository"])),
                left("DIGEST", |entry| format::text(&entry["digest"])),
            ],
            &dropped,
        ));
        text.push_str(&and_more(number(&answer["dropped_more"]), "dropped"));
        text.push('\n');
    }
    if !kept.is_empty() {
        text.push_str(&kept_table(answer, &kept));
    }
    text.push_str(&summary(answer, dry));
    let still_read = number(&answer["still_read"]);
    if still_read > 0 {
        text.push_str(&format!(
            "{} not erased yet: clients still read; it is tried again by itself\n",
            counted(still_read, "record")
        ));
    }
    let held_back = held_back(answer);
    text.push_str(&held_back);
    let incomplete = incomplete(answer);
    text.push_str(&incomplete);
    text.push_str(&freed::goal(answer, dry));
    match stopped.map(|entry| (entry["why"].as_str(), &entry["until"])) {
        Some((Some("paused"), _)) => text.push_str("Collecting is paused: `orlop resume collect` lets it go on\n"),
        Some((_, until)) => {
            text.push_str(&format!("The clock jumped, so nothing is dropped until {}\n", time_from(until, now)));
        }
        None => {}
    }
    let is_left = still_read > 0 || stopped.is_some() || !incomplete.is_empty() || !held_back.is_empty();
    let is_short = answer["goal"]["reached"] == false;
    Shown::new(text, is_short || (!dry && is_left))
}

/// What policies took away; what it named goes when nothing else keeps it.
fn by_policies_table(entries: &[Value], dry: bool) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let table = render(
        vec![
            left("WHAT", |entry| format::text(&entry["kind"])),
            left("POLICY", |entry| format::text(&entry["policy"])),
            left("REPOSITORY", |entry| format::text(&entry["repository"])),
            left("TAG", |entry| format::text(&entry["tag"])),
            left("DIGEST", |entry| format::text(&entry["digest"])),
        ],
        entries,
    );
    format!("{} by policies:\n{table}\n", if dry { "Would go" } else { "Gone" })
}

/// Policies that nobody has confirmed, and that would take too much.
fn held_back(answer: &Value) -> String {
    let said = |entry: &Value| {
        format!(
            "Policy {policy} would take more than half of the {} of {} at once, so all stay: `orlop policy confirm {policy}` \
             lets it\n",
            counted(number(&entry["tags"]), "tag"),
            text(&entry["repository"]),
            policy = text(&entry["policy"]),
        )
    };
    entries(&answer["held_back"]).iter().map(said).collect()
}

fn incomplete(answer: &Value) -> String {
    answer["incomplete"].as_str().map_or_else(String::new, |why| format!("Not all was done: {}\n", format::plain(why)))
}

fn kept_table(answer: &Value, kept: &[Value]) -> String {
    let table = render(
        vec![
            left("WHAT", |entry| format::text(&entry["kind"])),
            right("SIZE", |entry| size(&entry["bytes"])),
            left("WHY", |entry| why(entry["why"].as_str().unwrap_or(format::NONE))),
            left("UNTIL", |entry| time(&entry["until"])),
            left("REPOSITORY", |entry| format::text(&entry["repository"])),
            left("DIGEST", |entry| format::text(&entry["digest"])),
        ],
        kept,
    );
    let more = if answer["kept_more"] == true { "… and more\n" } else { "" };
    format!("Kept for now:\n{table}{more}\n")
}

fn why(why: &str) -> String {
    match why {
        "window" => "can be restored",
        "grace" => "never had a manifest",
        "upload" => "an upload is open",
        "child" => "an index names it",
        other => return format::plain(other),
    }
    .to_owned()
}

/// Of old reports only the totals are kept, and what has no name of its own is counted there only.
fn total(answer: &Value) -> u64 {
    let listed = entries(&answer["dropped"]).len() as u64 + number(&answer["dropped_more"]);
    answer["dropped_totals"].as_object().map_or(listed, |totals| totals.values().map(number).sum())
}

fn summary(answer: &Value, dry: bool) -> String {
    let total = total(answer);
    let took =
        between(&answer["began_at"], &answer["ended_at"]).map_or_else(String::new, |took| format!(", in {took}"));
    if dry {
        return format!(
            "{} would be dropped and {} of content leave; nothing was changed\n",
            counted(total, "thing"),
            size(&answer["freed_bytes"])
        );
    }
    format!(
        "{} dropped: {} of content left, {} of the disk came back, {} removed{took}\n",
        counted(total, "thing"),
        size(&answer["freed_bytes"]),
        size(&answer["returned_bytes"]),
        counted(number(&answer["segments_removed"]), "segment")
    )
}

/// The collector: whether it runs, what is due, its last reports.
pub(in crate::admin) fn status(answer: &Value, now: Timestamp) -> Shown {
    let mut facts = vec![("collecting", if answer["running"] == true { "yes" } else { "no" }.to_owned())];
    if !answer["compacting"].is_null() {
        facts.push(("compacting", if answer["compacting"] == true { "yes" } else { "no" }.to_owned()));
    }
    facts.push(("paused", list(&answer["paused"])));
    if !answer["clock_until"].is_null() {
        facts
            .push(("clock", format!("it jumped; nothing is dropped until {}", time_from(&answer["clock_until"], now))));
    }
    let due = answer["due"].as_object().into_iter().flatten().map(|(kind, due)| {
        let mut entry = due.clone();
        entry["kind"] = Value::from(kind.as_str());
        entry["next_shown"] = Value::from(time_from(&due["next_at"], now));
        entry
    });
    let due: Vec<Value> = due.collect();
    let mut text = crate::admin::table::facts(&facts);
    if !due.is_empty() {
        text.push('\n');
        text.push_str(&render(
            vec![
                left("WHAT", |entry| format::text(&entry["kind"])),
                right("DUE NOW", due_now),
                left("NEXT", |entry| format::text(&entry["next_shown"])),
            ],
            &due,
        ));
    }
    let reports = entries(&answer["reports"]);
    if reports.is_empty() {
        text.push_str("\nno collections yet\n");
    } else {
        text.push('\n');
        text.push_str(&render(report_columns(), reports));
    }
    Shown::plain(text)
}

/// A bounded count: `1000+` where there are more.
fn due_now(entry: &Value) -> String {
    entry["count"].as_u64().map_or_else(
        || format::NONE.to_owned(),
        |count| format!("{count}{}", if entry["more"] == true { "+" } else { "" }),
    )
}

fn report_columns() -> Vec<crate::admin::Column> {
    vec![
        left("BEGAN", |entry| time(&entry["began_at"])),
        left("TOOK", |entry| {
            between(&entry["began_at"], &entry["ended_at"]).unwrap_or_else(|| format::NONE.to_owned())
        }),
        left("BY", |entry| text(&entry["trigger"])),
        right("DROPPED", |entry| total(entry).to_string()),
        right("LEFT", |entry| size(&entry["freed_bytes"])),
        right("DISK BACK", |entry| size(&entry["returned_bytes"])),
        right("SEGMENTS", |entry| format::count(&entry["segments_removed"])),
        right("STILL READ", |entry| format::count(&entry["still_read"])),
    ]
}

/// What compacting did, or would do.
pub(in crate::admin) fn compaction(answer: &Value, _: Timestamp) -> Shown {
    let segments = counted(number(&answer["segments"]), "segment");
    let moved = counted(number(&answer["moved_records"]), "record");
    let bytes = size(&answer["moved_bytes"]);
    let paused = answer["paused"] == true;
    let mut rest = incomplete(answer);
    if paused {
        rest.push_str("Compacting is paused: `orlop resume compact` lets it go on\n");
    }
    if answer["dry_run"] == true {
        let text = format!("{segments} would be compacted: {moved} ({bytes}) moved; nothing was changed\n{rest}");
        return Shown::plain(text);
    }
    let took =
        between(&answer["began_at"], &answer["ended_at"]).map_or_else(String::new, |took| format!(", in {took}"));
    let back = size(&answer["returned_bytes"]);
    let text = format!("{segments} compacted: {moved} ({bytes}) moved, {back} of the disk came back{took}\n{rest}");
    Shown::new(text, !rest.is_empty())
}

/// What is paused now.
pub(in crate::admin) fn paused(answer: &Value, _: Timestamp) -> Shown {
    Shown::plain(format!("paused: {}\n", list(&answer["paused"])))
}

fn list(value: &Value) -> String {
    let names: Vec<String> = entries(value).iter().map(text).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
