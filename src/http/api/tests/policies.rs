//! Policies by the API: what is refused and leaves the old one, what is said of one, what more than half needs, who governs.

use super::*;

impl Api {
    async fn put(&self, name: &str, body: Value) -> Answer {
        self.order("PUT", &format!("policies/{name}"), body).await
    }

    /// The policies there are, by name.
    async fn named(&self) -> Vec<String> {
        let answer = self.get("policies").await.json;
        let names = answer["policies"].as_array().unwrap().iter().map(|it| it["policy"]["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }

    async fn governor(&self, repository: &str) -> Value {
        self.get(&format!("policies/explain?repository={repository}")).await.json["governed_by"].clone()
    }
}

fn has(answer: &Answer, status: u16, parts: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.json);
    let text = answer.json.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
}

#[tokio::test]
async fn a_malformed_policy_is_refused_with_its_place_and_the_old_one_stays() {
    let api = Api::new();
    api.image("team/app", Some("latest"), b"layer").await;
    has(&api.put("a", json!({ "pattern": "team/**", "keep_newest": 5 })).await, 200, &["\"keep_newest\":5"]);
    let before = api.get("policies").await.json;
    let cases = [
        (json!({}), "pattern is missing"),
        (json!({ "pattern": "team//x" }), "pattern = "),
        (json!({ "pattern": "**", "name": "b" }), "name = "),
        (json!({ "pattern": "**", "keep_newest": 0 }), "keep_newest = 0 is not accepted"),
        (json!({ "pattern": "**", "older_than": 30 }), "older_than = 30 is not accepted"),
        (json!({ "pattern": "**", "tag_pattern": ["a", "!*"] }), "it matches no tag"),
        (json!({ "pattern": "**", "size_max_bytes": "20GB" }), "size_max_bytes"),
        (json!({ "pattern": "**", "size_max_bytes": 1, "held_for": "1d" }), "do not go together"),
        (json!({ "pattern": "**", "keep": 1 }), "`keep`"),
    ];
    for (body, named) in cases {
        has(&api.put("a", body).await, 400, &[named]);
        assert_eq!(api.get("policies").await.json, before);
    }
    for name in ["A", "explain%20x", &"a".repeat(65), "-a"] {
        has(&api.put(name, json!({ "pattern": "x" })).await, 400, &["name = "]);
    }
    has(&api.put("b", json!({ "pattern": "team/**" })).await, 409, &["policy a has the pattern team/** already"]);
    has(&api.put("b?dry_run=yes", json!({ "pattern": "x" })).await, 400, &["dry_run"]);
    has(&api.order("DELETE", "policies/b", json!(null)).await, 404, &["NAME_UNKNOWN", "\\\"b\\\""]);
    assert_eq!(api.get("policies").await.json, before);
}

#[tokio::test]
async fn the_most_specific_one_governs_and_what_overlaps_or_matches_nothing_is_said() {
    let api = Api::new();
    api.image("team/app", Some("latest"), b"layer").await;
    has(
        &api.put("all", json!({ "pattern": "**", "keep_newest": 5 })).await,
        200,
        &["\"repositories\":1", "\"warnings\":[]"],
    );
    let answer = api.put("team", json!({ "pattern": "team/**", "keep_newest": 5 })).await;
    has(
        &answer,
        200,
        &["overlaps ** of policy all: where both match, team governs, as its pattern has more characters"],
    );
    has(
        &api.put("idle", json!({ "pattern": "team/none*" })).await,
        200,
        &["governs no repository now", "says nothing to do"],
    );
    assert_eq!(api.named().await, ["all", "idle", "team"]);
    assert_eq!(api.governor("team/app").await, "team");
    assert_eq!(api.governor("team/none-yet").await, "idle");
    assert_eq!(api.governor("other").await, "all");
    let page = api.get("policies?n=2").await.json;
    assert_eq!((page["policies"].as_array().map(Vec::len), &page["next"]), (Some(2), &json!("idle")));
    assert_eq!(api.get("policies?n=2&last=idle").await.json["policies"][0]["policy"]["name"], "team");
    let explained = api.get("policies/explain?repository=team/app").await.json;
    assert_eq!(
        explained["matching"][1]["behind_because"],
        "has more characters that stand for themselves (5 against 0)"
    );
    assert_eq!(explained["effect"]["tags"], 1);
    assert_eq!(api.order("DELETE", "policies/team", json!(null)).await.status, 200);
    assert_eq!(api.governor("team/app").await, "all");
}

#[tokio::test]
async fn more_than_half_needs_a_yes_or_a_look_before() {
    let api = Api::new();
    for n in 0..3 {
        api.image("team/app", Some(&format!("t{n}")), &[n; 300]).await;
    }
    let policy = json!({ "pattern": "team/app", "keep_newest": 1 });
    let denied = ["would take 2 of 3 tags from repository team/app at once", "dry_run", "yes"];
    has(&api.put("a", policy.clone()).await, 409, &denied);
    assert!(api.named().await.is_empty(), "nothing was set");
    let plan = api.put("a?dry_run=true", policy.clone()).await.json;
    assert!(api.named().await.is_empty(), "a dry run sets nothing");
    assert_eq!(
        (&plan["plan"]["tags"], &plan["plan"]["manifests"], &plan["plan"]["freed_bytes"]),
        (&json!(2), &json!(2), &json!(600))
    );
    let going: Vec<_> = plan["plan"]["going"].as_array().unwrap().iter().map(|it| it["tag"].clone()).collect();
    assert_eq!(going, [json!("t0"), json!("t1")]);
    // Another one was not looked at.
    has(&api.put("a", json!({ "pattern": "team/*", "keep_newest": 1 })).await, 409, &denied);
    let set = api.put("a", policy.clone()).await;
    has(&set, 200, &["\"confirmed\":true"]);
    assert_eq!(set.json["plan"], plan["plan"]);
    has(&api.put("b?yes=true", json!({ "pattern": "team/*", "keep_newest": 1 })).await, 200, &["\"confirmed\":true"]);
    // What takes less needs neither; it may be confirmed later.
    has(
        &api.put("a", json!({ "pattern": "team/app", "keep_newest": 2 })).await,
        200,
        &["\"confirmed\":false", "\"tags\":1"],
    );
    has(&api.post("policies/a/confirm", json!({})).await, 200, &["\"confirmed\":true"]);
}

#[tokio::test]
async fn a_cap_below_what_is_used_or_one_image_is_said_and_large_images_are_refused() {
    let api = Api::new();
    for n in 0..3 {
        api.image("ci/cache", Some(&format!("t{n}")), &[n; 1_000]).await;
    }
    let capped = api.put("ci?dry_run=true", json!({ "pattern": "ci/**", "size_max_bytes": 2_500 })).await;
    has(&capped, 200, &["more than its cap of 2.4 KiB", "\"by\":\"cap\""]);
    assert_eq!((&capped.json["plan"]["tags"], &capped.json["plan"]["exceeding_bytes"]), (&json!(1), &json!(0)));
    let pinned = json!({ "pattern": "ci/**", "size_max_bytes": 2_500, "tag_pattern": "!t*" });
    let pinned = api.put("ci?dry_run=true", pinned).await;
    has(&pinned, 200, &["are still there beyond its cap", "\"tags\":0"]);
    has(
        &api.put("ci?dry_run=true", json!({ "pattern": "ci/**", "size_max_bytes": 500 })).await,
        200,
        &["an image there has 1002 B"],
    );
    assert_eq!(api.put("ci?yes=true", json!({ "pattern": "ci/**", "size_max_bytes": 500 })).await.status, 200);
    let config = api.blob("ci/new", b"{}").await;
    let layer = api.blob("ci/new", &[9; 1_000]).await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 1_000 }],
    });
    let path = "/v2/ci/new/manifests/latest";
    let answer = api.send("PUT", path, &[("content-type", IMAGE)], manifest.to_string()).await;
    assert_eq!(answer.error(), (403, "DENIED"));
    has(&answer, 403, &["the image has 1002 bytes", "policy ci", "500 bytes"]);
}

#[tokio::test]
async fn a_tag_that_may_not_move_does_not() {
    let api = Api::new();
    let (digest, _) = api.image("team/app", Some("v1"), &[1; 300]).await;
    let (other, _) = api.image("team/app", Some("latest"), &[2; 300]).await;
    assert_eq!(api.put("a", json!({ "pattern": "team/**", "immutable": "v*" })).await.status, 200);
    let manifest = api.send("GET", &format!("/v2/team/app/manifests/{other}"), &[], "").await;
    assert_eq!(manifest.status, 200);
    let push = |tag: &'static str| {
        let body = manifest.json.to_string();
        let (api, path) = (&api, format!("/v2/team/app/manifests/{tag}"));
        async move { api.send("PUT", &path, &[("content-type", IMAGE)], body).await }
    };
    let denied = push("v1").await;
    assert_eq!(denied.error(), (403, "DENIED"));
    has(&denied, 403, &["v1", "policy a", &digest.to_string()]);
    assert_eq!(push("latest").await.status, 201);
    api.delete("team/app", "v1").await;
    assert_eq!(push("v1").await.status, 201);
}
