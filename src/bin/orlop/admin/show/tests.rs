//! Tables from canned answers, word for word.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::admin::table::{Column, render};

mod policies;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

#[track_caller]
fn check(show: fn(&Value, Timestamp) -> Shown, answer: &Value, text: &str, findings: bool) {
    let shown = show(answer, now());
    assert_eq!(shown.text.replace(DIGEST, "E3B0").replace(OTHER, "BA78"), text);
    assert_eq!(shown.outcome, if findings { Outcome::Findings } else { Outcome::Done });
}

#[track_caller]
fn check_list(columns: Vec<Column>, entries: &[Value], text: &str) {
    assert_eq!(render(columns, entries).replace(DIGEST, "E3B0").replace(OTHER, "BA78"), text);
}

#[test]
fn usage_of_the_registry() {
    let answer = json!({
        "scope": "registry", "unique_bytes": 75_000_000, "manifest_bytes": 405, "reclaimable_bytes": 0, "settling": 0,
        "manifests": 1, "tags": 5, "blobs": 2, "organizations": 3, "repositories": 4,
        "disk_bytes": 75_100_000, "live_bytes": 75_005_000, "dead_bytes": 1_024,
    });
    let text = "\
registry
stored         71.5 MiB in 2 blobs
manifests      405 B in 1 manifest
reclaimable    0 B of what is stored
tags           5
repositories   4
organisations  3
disk           71.6 MiB
live           71.5 MiB of segments
dead           1.0 KiB of segments

Shared layers count in each part, so parts add up to more than the whole.
";
    check(usage::show, &answer, text, false);
}

#[test]
fn usage_that_is_still_being_counted_says_so() {
    let answer = json!({
        "scope": "repository", "name": "org1/image", "organization": "org1", "created_at": "2026-11-20T12:00:00.5Z",
        "unique_bytes": 10, "manifest_bytes": 5, "reclaimable_bytes": 3, "settling": 2, "manifests": 2, "tags": 0, "blobs": 1,
    });
    let text = "\
repository org1/image
stored       10 B in 1 blob
manifests    5 B in 2 manifests
reclaimable  3 B of what is stored; still being counted
tags         0
created      2026-11-20T12:00:00Z

Shared layers count in each part, so parts add up to more than the whole.
";
    check(usage::show, &answer, text, false);
    check_list(
        usage::scopes("REPOSITORY", false),
        &[answer],
        "REPOSITORY  MANIFESTS  TAGS  BLOBS  STORED  RECLAIMABLE\norg1/image          2     0      1    10 B         ~3 B\n",
    );
}

#[test]
fn usage_of_organisations_and_by_days() {
    let organisation = json!({
        "scope": "organization", "name": "_", "repositories": 1, "unique_bytes": 2_000, "manifest_bytes": 5,
        "reclaimable_bytes": 1_024, "settling": 0, "manifests": 2, "tags": 1, "blobs": 1,
    });
    let head = "ORGANISATION  REPOSITORIES  MANIFESTS  TAGS  BLOBS   STORED  RECLAIMABLE\n";
    let row = "_                        1          2     1      1  2.0 KiB      1.0 KiB\n";
    check_list(usage::scopes("ORGANISATION", true), std::slice::from_ref(&organisation), &format!("{head}{row}"));
    let shown = usage::show(&organisation, now());
    assert!(shown.text.starts_with("organisation _\n") && shown.text.contains("repositories  1\n"), "{}", shown.text);
    let sample = json!({
        "day": "2026-11-20", "unique_bytes": 2_000, "manifest_bytes": 5, "reclaimable_bytes": 0, "manifests": 2, "tags": 1,
        "blobs": 1, "repositories": 1,
    });
    let text = "\
DAY         REPOSITORIES  MANIFESTS  TAGS  BLOBS   STORED  RECLAIMABLE
2026-11-20             1          2     1      1  2.0 KiB          0 B
";
    check_list(usage::samples(), &[sample], text);
}

#[test]
fn manifests_with_many_tags_and_with_none() {
    let manifest = |tags: Value, total: u64, state: &str, held: Value, size: Value| {
        json!({
            "digest": DIGEST, "media_type": "application/x", "size": 405, "image_bytes": size, "own_bytes": 10,
            "tags": tags, "tags_total": total, "state": state, "held_until": held, "pushed_at": "2026-11-20T12:00:00Z",
            "pulled_at": null,
        })
    };
    let entries = [
        manifest(json!(["1.0", "1.1", "1.2", "1.3"]), 120, "live", Value::Null, json!(75_000_000)),
        manifest(json!([]), 0, "held", json!("2026-12-05T12:00:00.123Z"), Value::Null),
    ];
    let text = "\
TAGS              STATE      SIZE   OWN  PUSHED                PULLED  HELD UNTIL            DIGEST
1.0,1.1,1.2,+117  live   71.5 MiB  10 B  2026-11-20T12:00:00Z  -       -                     E3B0
-                 held          -  10 B  2026-11-20T12:00:00Z  -       2026-12-05T12:00:00Z  E3B0
";
    // Digests are shortened by this test after they were aligned, and stand last.
    check_list(manifests::columns(true), &entries, text);
    let text = render(manifests::columns(false), &entries);
    assert!(!text.contains("OWN"), "{text}");
}

#[test]
fn history_and_restores() {
    let entries = [
        json!({ "tag": "latest", "digest": DIGEST, "at": "2026-11-01T00:00:00Z", "until": "2026-11-22T00:00:00Z", "state": "dropped" }),
        json!({ "tag": "latest", "digest": null, "at": "2026-11-08T00:00:00Z", "until": null, "state": null }),
    ];
    let text = "\
TAG     FROM                  KEPT UNTIL            STATE    DIGEST
latest  2026-11-01T00:00:00Z  2026-11-22T00:00:00Z  dropped  E3B0
latest  2026-11-08T00:00:00Z  -                     removed  -
";
    check_list(history::columns(), &entries, text);
    let answer = json!({ "repository": "a/b", "tag": "latest", "digest": DIGEST, "state": "live" });
    check(history::restored, &answer, "a/b:latest is E3B0 again\n", false);
    let answer = json!({ "repository": "a/b", "tag": null, "digest": DIGEST, "state": "live" });
    check(history::restored, &answer, "a/b@E3B0 is live again, without a tag\n", false);
}

#[test]
fn what_a_deletion_would_give() {
    let gain = |reclaimable: u64, freed: u64| json!({ "reclaimable_bytes": reclaimable, "freed_bytes": freed, "manifest_bytes": 405 });
    let answer = json!({
        "repository": "org1/image", "organization": "org1", "manifests": { "leave": 1, "dropped": 2 },
        "in_repository": gain(75_000_000, 75_000_000), "in_organization": gain(1_024, 2_048), "in_registry": gain(0, 0),
        "stays": [{ "digest": DIGEST, "tag": "1.0", "kept_by": "index" }],
    });
    let text = "\
1 manifest would cease to live, 2 would be dropped in the end; nothing was changed

IN                     RECLAIMABLE AT ONCE  FREED IN THE END  OF MANIFESTS
repository org1/image             71.5 MiB          71.5 MiB         405 B
organisation org1                  1.0 KiB           2.0 KiB         405 B
registry                               0 B               0 B         405 B

Shared layers count in each part, so parts add up to more than the whole.

These would live on all the same:
TAG  KEPT BY  DIGEST
1.0  index    E3B0
";
    check(what_if::show, &answer, text, false);
}

fn report(still_read: u64, kept: Value, dry: bool) -> Value {
    json!({
        "id": 7, "trigger": "request", "dry_run": dry, "began_at": "2026-11-21T12:00:00Z", "ended_at": "2026-11-21T12:00:01.5Z",
        "dropped": [
            { "kind": "manifest", "digest": DIGEST, "repository": "org1/image", "bytes": 405, "last": true },
            { "kind": "link", "digest": OTHER, "repository": "org1/image", "bytes": 75_000_000, "last": false },
        ],
        "dropped_more": 3, "freed_bytes": 75_000_405, "returned_bytes": 75_005_952, "segments_removed": 1,
        "dropped_totals": { "manifest": 1, "link": 3, "history": 1 }, "still_read": still_read, "kept": kept,
        "kept_more": false, "incomplete": null,
    })
}

const DROPPED: &str = "\
WHAT          SIZE  CONTENT          REPOSITORY  DIGEST
manifest     405 B  leaves           org1/image  E3B0
link      71.5 MiB  stays elsewhere  org1/image  BA78
… and 3 more dropped

";

#[test]
fn a_collection_tells_what_left_and_what_stays() {
    let kept = json!([
        { "kind": "manifest", "digest": DIGEST, "repository": "org1/image", "bytes": 405, "why": "window", "until": "2026-12-05T12:00:00Z" },
        { "kind": "link", "digest": OTHER, "repository": "org1/image", "bytes": 10, "why": "upload", "until": null },
    ]);
    let text = format!(
        "Dropped:\n{DROPPED}Kept for now:
WHAT       SIZE  WHY                UNTIL                 REPOSITORY  DIGEST
manifest  405 B  can be restored    2026-12-05T12:00:00Z  org1/image  E3B0
link       10 B  an upload is open  -                     org1/image  BA78

5 things dropped: 71.5 MiB of content left, 71.5 MiB of the disk came back, 1 segment removed, in 1.5s
"
    );
    check(collection::report, &report(0, kept, false), &text, false);
}

#[test]
fn a_collection_names_the_policies_by_which_things_went_or_stay() {
    let mut answer = report(0, json!([]), false);
    let by_policies = json!([
        { "kind": "tag", "digest": null, "repository": "a", "bytes": 0, "last": false, "tag": "old", "policy": "keep" },
        { "kind": "eviction", "digest": DIGEST, "repository": "b", "bytes": 0, "last": false, "tag": null, "policy": "cap" },
    ]);
    (answer["dropped"], answer["dropped_more"]) = (by_policies, json!(0));
    answer["held_back"] = json!([{ "repository": "c", "policy": "much", "tags": 7 }]);
    let shown = collection::report(&answer, now());
    let table = "\
Gone by policies:
WHAT      POLICY  REPOSITORY  TAG  DIGEST
tag       keep    a           old  -
eviction  cap     b           -    E3B0

";
    assert!(shown.text.replace(DIGEST, "E3B0").starts_with(table), "{}", shown.text);
    let end = "Policy much would take more than half of the 7 tags of c at once, so all stay: `orlop policy confirm much` lets it\n";
    assert!(shown.outcome == Outcome::Findings && shown.text.ends_with(end), "{}", shown.text);
}

#[test]
fn a_collection_that_did_not_do_all_has_findings() {
    let end =
        "5 things dropped: 71.5 MiB of content left, 71.5 MiB of the disk came back, 1 segment removed, in 1.5s\n";
    let text =
        format!("Dropped:\n{DROPPED}{end}2 records not erased yet: clients still read; it is tried again by itself\n");
    check(collection::report, &report(2, json!([]), false), &text, true);
    let paused =
        json!([{ "kind": "paused", "digest": null, "repository": null, "bytes": 0, "why": "paused", "until": null }]);
    let shown = collection::report(&report(0, paused, false), now());
    assert!(
        shown.outcome == Outcome::Findings && shown.text.ends_with("`orlop resume collect` lets it go on\n"),
        "{}",
        shown.text
    );
    let mut broken = report(0, json!([]), false);
    broken["incomplete"] = json!("the disk is full");
    let shown = collection::report(&broken, now());
    assert!(
        shown.outcome == Outcome::Findings && shown.text.ends_with("Not all was done: the disk is full\n"),
        "{}",
        shown.text
    );
    let clock = json!([{ "kind": "clock", "digest": null, "repository": null, "bytes": 0, "why": "clock", "until": "2026-11-22T12:00:00Z" }]);
    let shown = collection::report(&report(0, clock, false), now());
    assert!(shown.text.ends_with("nothing is dropped until 2026-11-22T12:00:00Z (in 1d)\n"), "{}", shown.text);
}

#[test]
fn a_dry_run_says_that_nothing_was_changed() {
    let end = "5 things would be dropped and 71.5 MiB of content leave; nothing was changed\n";
    check(collection::report, &report(0, json!([]), true), &format!("Would be dropped:\n{DROPPED}{end}"), false);
    let compaction = json!({
        "began_at": "2026-11-21T12:00:00Z", "ended_at": "2026-11-21T12:00:02Z", "dry_run": true, "segments": 1,
        "moved_records": 20, "moved_bytes": 4_096, "returned_bytes": 0,
    });
    check(
        collection::compaction,
        &compaction,
        "1 segment would be compacted: 20 records (4.0 KiB) moved; nothing was changed\n",
        false,
    );
    let compaction = json!({
        "began_at": "2026-11-21T12:00:00Z", "ended_at": "2026-11-21T12:00:02Z", "segments": 2, "moved_records": 1,
        "moved_bytes": 4_096, "returned_bytes": 1 << 20, "paused": false, "incomplete": null,
    });
    check(
        collection::compaction,
        &compaction,
        "2 segments compacted: 1 record (4.0 KiB) moved, 1.0 MiB of the disk came back, in 2s\n",
        false,
    );
}

#[test]
fn the_state_of_the_collector() {
    let answer = json!({
        "running": false, "compacting": true, "paused": ["compact"], "clock_until": null,
        "due": {
            "links": { "count": 1_000, "more": true, "next_at": "2026-11-21T11:00:00Z" },
            "manifests": { "count": 0, "more": false, "next_at": "2026-12-04T16:00:00Z" },
            "records": { "count": 0, "more": false, "next_at": null },
        },
        "reports": [report(0, json!([]), false)],
    });
    let text = "\
collecting  no
compacting  yes
paused      compact

WHAT       DUE NOW  NEXT
links        1000+  2026-11-21T11:00:00Z
manifests        0  2026-12-04T16:00:00Z (in 13d 4h)
records          0  -

BEGAN                 TOOK  BY       DROPPED      LEFT  DISK BACK  SEGMENTS  STILL READ
2026-11-21T12:00:00Z  1.5s  request        5  71.5 MiB   71.5 MiB         1           0
";
    check(collection::status, &answer, text, false);
    let answer =
        json!({ "running": true, "paused": [], "clock_until": "2026-11-21T13:00:00Z", "due": {}, "reports": [] });
    let text = "\
collecting  yes
paused      nothing
clock       it jumped; nothing is dropped until 2026-11-21T13:00:00Z (in 1h)

no collections yet
";
    check(collection::status, &answer, text, false);
    check(collection::paused, &json!({ "paused": ["collect", "compact"] }), "paused: collect, compact\n", false);
}

#[test]
fn segments_are_told_with_what_is_live_and_dead() {
    let segment = json!({
        "number": 12, "kind": "shared", "state": "sealed", "allocated_bytes": 4_096, "length": 1_048_576, "live_bytes": 1_000,
        "dead_bytes": 3_096, "live_records": 2, "created_at": null,
    });
    let text = "\
SEGMENT  KIND    STATE   ON DISK   LENGTH    LIVE     DEAD  RECORDS  CREATED
     12  shared  sealed  4.0 KiB  1.0 MiB  1000 B  3.0 KiB        2  -
";
    check_list(segments::columns(), &[segment], text);
}

#[test]
fn a_blob_that_is_stored() {
    let answer = json!({
        "digest": DIGEST, "present": true, "kind": "blob", "size": 75_000_000,
        "location": { "segment": 3, "offset": 4_096, "length": 75_004_672 },
        "links": [{ "repository": "org1/image", "linked_at": "2026-11-20T12:00:00Z", "named": 1, "live": 1, "due_at": null }],
        "next": "org1/image",
        "named_by": [{ "repository": "org1/image", "digest": OTHER, "media_type": "application/x", "state": "live", "as": ["layer", "config"] }],
        "named_by_more": false, "manifest_in": [], "manifest_in_more": false, "drops": [],
    });
    let text = "\
digest  E3B0
stored  71.5 MiB as blob
place   segment 3, byte 4096, 71.5 MiB long

Repositories that may serve it:
REPOSITORY  LINKED                NAMED BY  LIVE  DUE
org1/image  2026-11-20T12:00:00Z         1     1  -
… and more

Manifests that name it:
REPOSITORY  STATE  AS            MANIFEST
org1/image  live   layer,config  BA78
";
    check(blob::show, &answer, text, false);
}

#[test]
fn a_blob_that_was_dropped_and_searched_for() {
    let answer = |found: bool, places: Value| {
        json!({
            "digest": DIGEST, "present": false, "kind": null, "size": null, "location": null, "links": [], "next": null,
            "named_by": [], "named_by_more": false, "manifest_in": [], "manifest_in_more": false,
            "drops": [{ "what": "link", "repository": "org1/image", "size": 10, "at": "2026-11-20T12:00:00Z", "last": true }],
            "search": {
                "began_at": "2026-11-21T12:00:00Z", "ended_at": "2026-11-21T12:00:02Z", "files": 3, "bytes": 1_024,
                "found": found, "gone": places == json!([]), "places": places, "places_more": 0,
            },
        })
    };
    let head = "\
digest  E3B0
stored  no

It was dropped:
AT                    WHAT  SIZE  CONTENT  REPOSITORY
2026-11-20T12:00:00Z  link  10 B  left     org1/image

";
    let clean =
        "No copy of its bytes is left in any file of the data directory (3 files looked at, 1.0 KiB read, in 2s)\n";
    check(blob::show, &answer(false, json!([])), &format!("{head}{clean}"), false);
    let place = |what: &str| json!([{ "what": what, "path": "segments/0/1.segment", "offset": 64, "len": 32 }]);
    let looked = "(3 files looked at, 1.0 KiB read, in 2s)";
    let found = format!(
        "It is not stored, but copies of it were found {looked}
WHAT                      FILE                  AT  SIZE
it, and nothing names it  segments/0/1.segment  64  32 B
"
    );
    check(blob::show, &answer(true, place("record")), &format!("{head}{found}"), true);
    let doubt = format!(
        "No copy was found, but some bytes are not accounted for: `orlop gc` clears what is dead {looked}
WHAT            FILE                  AT  SIZE
something dead  segments/0/1.segment  64  32 B
"
    );
    check(blob::show, &answer(false, place("dead")), &format!("{head}{doubt}"), true);
}

#[test]
fn what_keeps_some_content() {
    let answer = json!({
        "digest": DIGEST, "kept": true, "more": true,
        "chains": [
            {
                "repository": "org1/image", "by": "tag", "tag": "latest", "until": null,
                "path": [{ "digest": DIGEST, "as": "layer" }, { "digest": OTHER, "as": null }],
            },
            { "repository": "org2/image", "by": "grace", "tag": null, "until": "2026-11-22T00:00:00Z", "path": [{ "digest": DIGEST, "as": null }] },
        ],
    });
    let text = "\
E3B0 is kept by:

org1/image: tag latest
  BA78
    E3B0 (layer)

org2/image: never had a manifest; kept until 2026-11-22T00:00:00Z (in 12h)
  E3B0

… and there may be more
";
    check(why::show, &answer, text, false);
    let answer = json!({ "digest": DIGEST, "kept": false, "chains": [], "more": false });
    check(why::show, &answer, "nothing keeps E3B0\n", false);
}

#[test]
fn what_a_verification_found() {
    let answer = |findings: Value, more: u64, content: u64| {
        json!({
            "began_at": "2026-11-21T12:00:00Z", "ended_at": "2026-11-21T12:01:30Z", "lsn": 9, "manifests": 1, "records": 3,
            "segments": 2, "content_bytes": content, "findings": findings, "findings_more": more,
        })
    };
    let end = "1 manifest counted again, 3 records in 2 segments looked at";
    check(verify::show, &answer(json!([]), 0, 0), &format!("no findings: {end}, no content read, in 1m 30s\n"), false);
    let finding = json!([{ "kind": "content", "digest": DIGEST, "file": "segments/00/1.segment", "segment": 1, "offset": 64, "what": "it is damaged\u{7}" }]);
    let text = format!(
        "content: it is damaged\\u{{7}} (segments/00/1.segment at 64)\n… and 2 more findings\n3 findings: {end}, 1.0 KiB of content read, in 1m 30s\n"
    );
    check(verify::show, &answer(finding, 2, 1_024), &text, true);
    let mut counted = answer(json!([]), 0, 0);
    counted["state_hash"] = "5e1f".into();
    let text = format!("no findings: {end}, no content read, in 1m 30s\nstate hash 5e1f after operation 9\n");
    check(verify::show, &counted, &text, false);
    counted["opening"] = json!(["removed segments/00/9.segment"]);
    counted["unchecked"] = json!([{ "kind": "journal", "file": "journal/1.journal", "what": "no files are left" }]);
    counted["unchecked_more"] = 2.into();
    let shown = verify::show(&counted, now());
    let text = format!(
        "opening: removed segments/00/9.segment\nnot looked at: journal: no files are left (journal/1.journal)\n… and 2 more \
         things that were not looked at\nno findings, 3 not looked at: {end}, no content read, in 1m 30s\nstate hash 5e1f \
         after operation 9\n"
    );
    assert_eq!((shown.text, shown.outcome), (text, Outcome::Unchecked));
    counted["findings"] = json!([{ "kind": "row", "what": "it differs" }]);
    assert_eq!(verify::show(&counted, now()).outcome, Outcome::Findings);
}

#[test]
fn what_the_doctor_says() {
    let check = |level: &str, name: &str, what: &str, remedy: Value| json!({ "level": level, "name": name, "what": what, "remedy": remedy });
    let ok = check("ok", "writes", "writes are taken", Value::Null);
    let note = check("note", "scrub", "never", json!("nothing"));
    let answer = |checks: &[&Value]| json!({ "level": "ok", "checks": checks });
    let text = "\
LEVEL  CHECK   WHAT
ok     writes  writes are taken
note   scrub   never
               → nothing
all is well
";
    self::check(doctor::show, &answer(&[&ok, &note]), text, false);
    let problem = check("problem", "space", "507\u{7}", json!("make room"));
    let warning = check("warning", "file system", "nfs", json!("move it"));
    let text = "\
LEVEL    CHECK        WHAT
problem  space        507\\u{7}
                      → make room
warning  file system  nfs
                      → move it
1 problem, 1 warning
";
    self::check(doctor::show, &answer(&[&problem, &warning]), text, true);
}

#[test]
fn what_keeps_the_most() {
    let scope = |name: &str, freed: Value| json!({ "name": name, "freed_bytes": freed, "unique_bytes": 4_096, "reclaimable_bytes": 1_024 });
    let answer =
        json!({ "organizations": [scope("big", Value::Null), scope("team", json!(2_048))], "complete": false });
    let text = "\
ORGANISATION    FREED   STORED  RECLAIMABLE
big                 -  4.0 KiB      1.0 KiB
team          2.0 KiB  4.0 KiB      1.0 KiB

FREED is what deleting that one alone gives back; what others keep, too, stays.
Others may keep more: there is too much for one answer. Ask for an organisation or a repository.
";
    check(top::show, &answer, text, false);
    let manifest = json!({
        "digest": DIGEST, "tags": ["1.0"], "tags_total": 1, "state": "live", "freed_bytes": 0, "unique_bytes": 4_096,
        "reclaimable_bytes": 0,
    });
    let text = "\
TAGS  FREED   STORED  RECLAIMABLE  STATE  DIGEST
1.0     0 B  4.0 KiB          0 B  live   E3B0

FREED is what deleting that one alone gives back; what others keep, too, stays.
";
    check(top::show, &json!({ "manifests": [manifest], "complete": true }), text, false);
    check(top::show, &json!({ "repositories": [], "complete": true }), "no repositories\n", false);
}
