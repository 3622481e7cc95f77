//! What is told of policies, word for word.

use super::*;
use crate::admin::show::policies;

fn policy() -> Value {
    json!({
        "policy": {
            "name": "ci-cache", "pattern": "ci/**", "tag_pattern": ["*", "!pinned-*"], "keep_newest": 5, "older_than": "30d",
            "size_max_bytes": 2048, "immutable": true, "held_for": "0s",
        },
        "source": "settings", "confirmed": false, "set_at": "2026-11-20T12:00:00.5Z", "repositories": 2, "used_bytes": 4_096,
    })
}

#[test]
fn policies_and_what_they_say() {
    let other =
        json!({ "policy": { "name": "a", "pattern": "**", "tag_pattern": ["*"] }, "source": "api", "confirmed": true });
    let text = "\
POLICY    REPOSITORIES  GOVERNED     USED  FROM      CONFIRMED  SAYS
ci-cache  ci/**                2  4.0 KiB  settings  no         keep the 5 newest, older than 30d, at most 2.0 KiB, \
                immutable, held for 0s, of tags * !pinned-*
a         **                   -        -  api       yes        nothing
";
    check_list(policies::columns(), &[policy(), other], text);
}

#[test]
fn what_a_policy_would_take_away() {
    let mut answer = json!({
        "dry_run": true, "policy": policy(), "warnings": ["its repositories use much"],
        "plan": {
            "repositories": 2, "used_bytes": 4_096, "tags": 1, "manifests": 2, "going_more": 1, "reclaimable_bytes": 10,
            "freed_bytes": 1_024, "manifest_bytes": 5, "exceeding_bytes": 0,
            "going": [
                { "repository": "ci/a", "tag": "x", "digest": DIGEST, "by": "retention" },
                { "repository": "ci/a", "tag": null, "digest": OTHER, "by": "cap" },
            ],
            "over_half": [{ "repository": "ci/a", "what": "tag", "going": 1, "of": 1 }],
        },
    });
    let head = "\
policy ci-cache
repositories  ci/**, 2 now
says          keep the 5 newest, older than 30d, at most 2.0 KiB, immutable, held for 0s, of tags * !pinned-*
used          4.0 KiB
";
    let text = format!(
        "{head}
Would go now:
BY         REPOSITORY  TAG  DIGEST
retention  ci/a        x    E3B0
cap        ci/a        -    BA78
… and 1 more going

1 tag and 2 manifests would go now: 1.0 KiB of content in the end, 10 B of it reclaimable at once
More than half of repository ci/a: 1 of 1 tag
Note: its repositories use much
Nothing was changed
"
    );
    check(policies::set, &answer, &text, false);
    (answer["dry_run"], answer["plan"], answer["warnings"]) = (json!(false), Value::Null, json!([]));
    check(policies::set, &answer, head, false);
    check(policies::removed, &json!({ "removed": "a" }), "policy a is removed\n", false);
}

#[test]
fn why_a_policy_governs_a_repository() {
    let mut second = json!({ "policy": { "name": "a", "pattern": "**" }, "behind_because": "has more letters" });
    let answer = json!({
        "repository": "ci/a", "governed_by": "ci-cache", "matching": [policy(), second],
        "effect": {
            "under_review": true, "tags": 9, "newest": 5, "spare": 4, "spare_more": false,
            "next_due_at": "2026-11-22T12:00:00Z", "used_bytes": 1_024, "window_ms": 0,
        },
    });
    let text = "\
ci/a is governed by policy ci-cache (ci/**): keep the 5 newest, older than 30d, at most 2.0 KiB, immutable, held for 0s, of tags \
                * !pinned-*
It wins over a (**): its pattern has more letters
tags                9
newest, which stay  5
others that may go  4
the first goes      2026-11-22T12:00:00Z (in 1d)
held for            0s
used here           1.0 KiB
cap                 4.0 KiB of 2.0 KiB are used
The repository is just being brought under the policy; figures may be those of an earlier one
";
    check(policies::explanation, &answer, text, false);
    let none = json!({ "repository": "x", "governed_by": null, "matching": [], "effect": null });
    check(policies::explanation, &none, "no policy matches x\n", false);
    second["policy"]["tag_pattern"] = json!(["*"]);
    let absent = json!({ "repository": "x", "governed_by": "a", "matching": [second], "effect": null });
    let text = "x is governed by policy a (**): nothing\nThere is no such repository now\n";
    check(policies::explanation, &absent, text, false);
}
