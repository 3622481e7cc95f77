//! What is known of some content.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, and_more, entries, number};
use crate::admin::{
    format::{self, between, count, counted, size, text, time},
    table::{self, left, render, right},
};

/// Where it lies, who has it, who names it, when it was dropped, and what a search found.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let present = answer["present"] == true;
    let mut facts = vec![("digest", text(&answer["digest"]))];
    if present {
        let place = &answer["location"];
        facts.push(("stored", format!("{} as {}", size(&answer["size"]), text(&answer["kind"]))));
        facts.push((
            "place",
            format!(
                "segment {}, byte {}, {} long",
                count(&place["segment"]),
                count(&place["offset"]),
                size(&place["length"])
            ),
        ));
    } else {
        facts.push(("stored", "no".to_owned()));
    }
    let mut shown = table::facts(&facts);
    let mut part = |head: &str, table: String, more: bool| {
        if !table.is_empty() {
            let more = if more { "… and more\n" } else { "" };
            shown.push_str(&format!("\n{head}\n{table}{more}"));
        }
    };
    part("Repositories that may serve it:", links(entries(&answer["links"])), !answer["next"].is_null());
    part("Manifests that name it:", names(entries(&answer["named_by"])), answer["named_by_more"] == true);
    part("It is a manifest in:", manifests(entries(&answer["manifest_in"])), answer["manifest_in_more"] == true);
    part("It was dropped:", drops(entries(&answer["drops"])), false);
    let (search, findings) = search(&answer["search"], present);
    shown.push_str(&search);
    Shown::new(shown, findings)
}

fn links(links: &[Value]) -> String {
    render(
        vec![
            left("REPOSITORY", |entry| text(&entry["repository"])),
            left("LINKED", |entry| time(&entry["linked_at"])),
            right("NAMED BY", |entry| count(&entry["named"])),
            right("LIVE", |entry| count(&entry["live"])),
            left("DUE", |entry| time(&entry["due_at"])),
        ],
        links,
    )
}

fn names(names: &[Value]) -> String {
    render(
        vec![
            left("REPOSITORY", |entry| text(&entry["repository"])),
            left("STATE", |entry| text(&entry["state"])),
            left("AS", |entry| entries(&entry["as"]).iter().map(text).collect::<Vec<_>>().join(",")),
            left("MANIFEST", |entry| text(&entry["digest"])),
        ],
        names,
    )
}

fn manifests(manifests: &[Value]) -> String {
    render(
        vec![
            left("REPOSITORY", |entry| text(&entry["repository"])),
            left("STATE", |entry| text(&entry["state"])),
            left("HELD UNTIL", |entry| time(&entry["held_until"])),
            left("TYPE", |entry| text(&entry["media_type"])),
        ],
        manifests,
    )
}

fn drops(drops: &[Value]) -> String {
    render(
        vec![
            left("AT", |entry| time(&entry["at"])),
            left("WHAT", |entry| text(&entry["what"])),
            right("SIZE", |entry| size(&entry["size"])),
            left("CONTENT", |entry| if entry["last"] == true { "left" } else { "stayed elsewhere" }.to_owned()),
            left("REPOSITORY", |entry| text(&entry["repository"])),
        ],
        drops,
    )
}

/// What a search found: whether a copy is left, and what speaks against certainty. Only of what should be gone that is
/// something to look at.
fn search(search: &Value, present: bool) -> (String, bool) {
    if !search.is_object() {
        return (String::new(), false);
    }
    let verdict = match (present, search["found"] == true, search["gone"] == true) {
        (true, _, _) => "It is stored, so its bytes are there",
        (false, true, _) => "It is not stored, but copies of it were found",
        (false, false, true) => "No copy of its bytes is left in any file of the data directory",
        (false, false, false) => {
            "No copy was found, but some bytes are not accounted for: `orlop gc` clears what is dead"
        }
    };
    let looked = format!("{} looked at, {} read", counted(number(&search["files"]), "file"), size(&search["bytes"]));
    let took =
        between(&search["began_at"], &search["ended_at"]).map_or_else(String::new, |took| format!(", in {took}"));
    let places = render(
        vec![
            left("WHAT", |entry| place(entry["what"].as_str().unwrap_or(format::NONE))),
            left("FILE", |entry| text(&entry["path"])),
            right("AT", |entry| count(&entry["offset"])),
            right("SIZE", |entry| size(&entry["len"])),
        ],
        entries(&search["places"]),
    );
    let more = and_more(number(&search["places_more"]), "places");
    (format!("\n{verdict} ({looked}{took})\n{places}{more}"), !present && search["gone"] != true)
}

fn place(what: &str) -> String {
    match what {
        "live" => "it, stored",
        "record" => "it, and nothing names it",
        "dead" => "something dead",
        "unknown" => "not known",
        "upload" => "an open upload",
        "unlisted" => "a file of nobody",
        other => return format::plain(other),
    }
    .to_owned()
}
