//! Policies: what each says, what it governs, what it would take away, and why one wins.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, and_more, entries, number};
use crate::admin::{
    format::{self, bytes, counted, duration, size, text, time_from},
    table::{self, Column, left, render, right},
};

/// Columns of policies.
pub(in crate::admin) fn columns() -> Vec<Column> {
    vec![
        left("POLICY", |entry| text(&entry["policy"]["name"])),
        left("REPOSITORIES", |entry| text(&entry["policy"]["pattern"])),
        right("GOVERNED", |entry| format::count(&entry["repositories"])),
        right("USED", |entry| size(&entry["used_bytes"])),
        left("FROM", |entry| text(&entry["source"])),
        left("CONFIRMED", |entry| if entry["confirmed"] == true { "yes" } else { "no" }.to_owned()),
        left("SAYS", |entry| says(&entry["policy"])),
    ]
}

/// What a policy says, in a line.
fn says(policy: &Value) -> String {
    let field = |name: &str| Some(&policy[name]).filter(|value| !value.is_null());
    let mut parts = Vec::new();
    if let Some(count) = field("keep_newest") {
        parts.push(format!("keep the {} newest", format::count(count)));
    }
    for (name, words) in [("older_than", "older than"), ("not_pulled_for", "not pulled for")] {
        parts.extend(field(name).map(|value| format!("{words} {}", text(value))));
    }
    parts.extend(field("size_max_bytes").map(|value| format!("at most {}", size(value))));
    if let Some(immutable) = field("immutable") {
        parts.push(match immutable.as_array() {
            Some(patterns) => format!("immutable {}", words(patterns)),
            None => "immutable".to_owned(),
        });
    }
    for (name, words) in [("held_for", "held for"), ("never_tagged_for", "never tagged for")] {
        parts.extend(field(name).map(|value| format!("{words} {}", text(value))));
    }
    let tags = entries(&policy["tag_pattern"]);
    if !tags.is_empty() && tags != [Value::from("*")] {
        parts.push(format!("of tags {}", words(tags)));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

fn words(patterns: &[Value]) -> String {
    patterns.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// A policy that was set, or what it would take away.
pub(in crate::admin) fn set(answer: &Value, _: Timestamp) -> Shown {
    let (info, plan) = (&answer["policy"], &answer["plan"]);
    let dry = answer["dry_run"] == true;
    let mut shown = format!("policy {}\n", text(&info["policy"]["name"]));
    shown.push_str(&table::facts(&[
        ("repositories", format!("{}, {} now", text(&info["policy"]["pattern"]), format::count(&info["repositories"]))),
        ("says", says(&info["policy"])),
        ("used", size(&info["used_bytes"])),
    ]));
    if !plan.is_null() {
        shown.push_str(&planned(plan, dry));
    }
    for warning in entries(&answer["warnings"]) {
        shown.push_str(&format!("Note: {}\n", text(warning)));
    }
    if dry {
        shown.push_str("Nothing was changed\n");
    }
    Shown::plain(shown)
}

fn planned(plan: &Value, dry: bool) -> String {
    let going = entries(&plan["going"]);
    let mut shown = String::new();
    if dry && !going.is_empty() {
        shown.push_str("\nWould go now:\n");
        shown.push_str(&render(
            vec![
                left("BY", |entry| text(&entry["by"])),
                left("REPOSITORY", |entry| text(&entry["repository"])),
                left("TAG", |entry| text(&entry["tag"])),
                left("DIGEST", |entry| text(&entry["digest"])),
            ],
            going,
        ));
        shown.push_str(&and_more(number(&plan["going_more"]), "going"));
        shown.push('\n');
    }
    shown.push_str(&format!(
        "{} and {} {}: {} of content in the end, {} of it reclaimable at once\n",
        counted(number(&plan["tags"]), "tag"),
        counted(number(&plan["manifests"]), "manifest"),
        if dry { "would go now" } else { "go" },
        size(&plan["freed_bytes"]),
        size(&plan["reclaimable_bytes"]),
    ));
    for over in entries(&plan["over_half"]) {
        shown.push_str(&format!(
            "More than half of repository {}: {} of {}\n",
            text(&over["repository"]),
            format::count(&over["going"]),
            counted(number(&over["of"]), over["what"].as_str().unwrap_or("tag")),
        ));
    }
    shown
}

/// A policy that is gone.
pub(in crate::admin) fn removed(answer: &Value, _: Timestamp) -> Shown {
    Shown::plain(format!("policy {} is removed\n", text(&answer["removed"])))
}

/// A policy that may take more than half of a repository.
pub(in crate::admin) fn confirmed(answer: &Value, _: Timestamp) -> Shown {
    let name = text(&answer["policy"]["policy"]["name"]);
    Shown::plain(format!("policy {name} is confirmed: it may take more than half of a repository at once\n"))
}

/// Which policy governs a repository, and why.
pub(in crate::admin) fn explanation(answer: &Value, now: Timestamp) -> Shown {
    let (repository, matching) = (text(&answer["repository"]), entries(&answer["matching"]));
    let Some(first) = matching.first() else {
        return Shown::plain(format!("no policy matches {repository}\n"));
    };
    let mut shown = format!(
        "{repository} is governed by policy {} ({}): {}\n",
        text(&first["policy"]["name"]),
        text(&first["policy"]["pattern"]),
        says(&first["policy"])
    );
    for behind in &matching[1..] {
        shown.push_str(&format!(
            "It wins over {} ({}): its pattern {}\n",
            text(&behind["policy"]["name"]),
            text(&behind["policy"]["pattern"]),
            text(&behind["behind_because"])
        ));
    }
    let effect = &answer["effect"];
    if effect.is_null() {
        shown.push_str("There is no such repository now\n");
        return Shown::plain(shown);
    }
    let more = if effect["spare_more"] == true { " or more" } else { "" };
    let mut facts = vec![
        ("tags", format::count(&effect["tags"])),
        ("newest, which stay", format::count(&effect["newest"])),
        ("others that may go", format!("{}{more}", format::count(&effect["spare"]))),
        ("the first goes", time_from(&effect["next_due_at"], now)),
        ("held for", window(&effect["window_ms"])),
        ("used here", size(&effect["used_bytes"])),
    ];
    if let Some(cap) = first["policy"]["size_max_bytes"].as_u64() {
        facts.push(("cap", format!("{} of {} are used", size(&first["used_bytes"]), bytes(cap))));
    }
    shown.push_str(&table::facts(&facts));
    if effect["under_review"] == true {
        shown.push_str(
            "The repository is just being brought under the policy; figures may be those of an earlier one\n",
        );
    }
    Shown::plain(shown)
}

fn window(ms: &Value) -> String {
    let ms = ms.as_i64().unwrap_or(i64::MAX);
    duration(jiff::SignedDuration::from_millis(ms))
}
