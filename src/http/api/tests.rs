//! The admin API over a registry on a simulated disk.
//!
//! - `document`: answers and routes against `openapi.json`.
//! - `policies`: set, tried, explained, enforced, refused.
//! - `refusals`: foreign pages, bad input, what is not there.

use std::sync::Arc;

use axum::{body::Body, http::HeaderMap};
use serde_json::{Value, json};

use crate::{
    digest::{Algorithm, Digest},
    http::{
        App,
        tests::{app, exchange},
    },
};

mod document;
mod policies;
mod refusals;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Api {
    app: Arc<App>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    json: Value,
}

impl Answer {
    fn error(&self) -> (u16, &str) {
        (self.status, self.json["errors"][0]["code"].as_str().unwrap_or_default())
    }

    fn message(&self) -> &str {
        self.json["errors"][0]["message"].as_str().unwrap_or_default()
    }
}

impl Api {
    fn new() -> Self {
        Self { app: Arc::new(app().0) }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (parts, body) = exchange(&self.app, method, path, headers, body.into()).await;
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, json }
    }

    /// As a program on this machine asks.
    async fn get(&self, path: &str) -> Answer {
        self.send("GET", &format!("/api/v1/{path}"), &[("host", "localhost:5000")], "").await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.order("POST", path, body).await
    }

    async fn order(&self, method: &str, path: &str, body: Value) -> Answer {
        let headers = [("host", "localhost:5000"), ("content-type", "application/json")];
        self.send(method, &format!("/api/v1/{path}"), &headers, body.to_string()).await
    }

    async fn blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send("POST", &path, &[], content.to_vec()).await.status, 201);
        digest
    }

    /// Pushes a manifest by a tag or its digest.
    async fn manifest(&self, name: &str, reference: Option<&str>, media_type: &str, manifest: &Value) -> Digest {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let by_digest = digest.to_string();
        let path = format!("/v2/{name}/manifests/{}", reference.unwrap_or(&by_digest));
        assert_eq!(self.send("PUT", &path, &[("content-type", media_type)], bytes).await.status, 201);
        digest
    }

    /// Pushes an image of a config and one layer; the digests of manifest and layer.
    async fn image(&self, name: &str, tag: Option<&str>, layer: &[u8]) -> (Digest, Digest) {
        let config = self.blob(name, b"{}").await;
        let (len, layer) = (layer.len(), self.blob(name, layer).await);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": len }],
        });
        (self.manifest(name, tag, IMAGE, &manifest).await, layer)
    }

    async fn delete(&self, name: &str, reference: &str) {
        let path = format!("/v2/{name}/manifests/{reference}");
        assert_eq!(self.send("DELETE", &path, &[], "").await.status, 202);
    }
}

#[tokio::test]
async fn what_is_deleted_is_held_comes_back_and_goes_when_it_is_purged() {
    let api = Api::new();
    let (digest, layer) = api.image("team/app", Some("latest"), &[7; 5_000]).await;
    api.delete("team/app", "latest").await;
    let usage = api.get("usage?repository=team/app").await.json;
    assert_eq!((&usage["unique_bytes"], &usage["reclaimable_bytes"]), (&json!(5_002), &json!(5_002)));
    let restored = api.post("restore", json!({ "repository": "team/app", "tag": "back", "digest": digest })).await;
    assert_eq!((restored.status, &restored.json["state"]), (200, &json!("live")));
    assert_eq!(api.get("manifests?repository=team/app").await.json["manifests"][0]["tags"], json!(["back"]));
    let gains = api.post("what-if", json!({ "repository": "team/app", "tags": ["back"] })).await.json;
    assert_eq!(gains["in_registry"]["freed_bytes"], 5_002);

    api.delete("team/app", "back").await;
    let purge = json!({ "organization": "team" });
    let dry = api.post("purge?dry_run=true", purge.clone()).await.json;
    assert_eq!((&dry["dry_run"], dry["dropped"].as_array().unwrap().len()), (&json!(true), 3), "{dry:#}");
    assert_eq!(api.get("manifests?repository=team/app").await.json["manifests"][0]["state"], "held");
    let report = api.post("purge", purge).await.json;
    assert_eq!(
        (&report["trigger"], report["freed_bytes"].as_u64() > Some(5_002)),
        (&json!("purge"), true),
        "{report:#}"
    );
    let gone = api.get(&format!("blobs/{layer}?search=true")).await.json;
    assert_eq!((&gone["present"], &gone["search"]["gone"]), (&json!(false), &json!(true)), "{gone:#}");
    assert_eq!(gone["drops"][0]["last"], true);
    assert_eq!(api.get("collect").await.json["reports"][0]["id"], report["id"]);
    assert_eq!(api.get("usage").await.json["unique_bytes"], 0, "nothing is left of it but its history");
    assert_eq!(api.get("history?repository=team/app").await.json["history"][0]["state"], "dropped");

    let late = api.post("restore", json!({ "repository": "team/app", "digest": digest })).await;
    assert_eq!(late.error(), (410, "MANIFEST_UNKNOWN"));
    let dropped_at = late.json["errors"][0]["detail"]["dropped_at"].as_str().unwrap();
    assert!(late.message().contains(dropped_at) && dropped_at.ends_with('Z'), "{}", late.message());
}

#[tokio::test]
async fn a_quota_refuses_what_is_too_much_and_says_what_would_help() {
    let api = Api::new();
    let set = async |limit: Value| {
        let quota = json!({ "organization": "team", "limit_bytes": limit });
        api.order("PUT", "quotas", quota).await.json
    };
    assert_eq!(set(json!(6_000)).await["warning"], Value::Null);
    api.image("team/app", Some("latest"), &[7; 5_000]).await;
    let used = api.get("quotas?repository=team/app").await.json["quotas"][0].clone();
    let used_bytes = used["used_bytes"].as_u64().unwrap();
    assert_eq!((&used["organization"], used["free_bytes"].as_u64()), (&json!("team"), Some(6_000 - used_bytes)));
    assert!(used_bytes > 5_002 && used["uploading_bytes"] == 0, "{used:#}");

    let more = vec![8; 1_000];
    let path = format!("/v2/team/more/blobs/uploads/?digest={}", Digest::of(Algorithm::Sha256, &more));
    let refused = api.send("POST", &path, &[], more.clone()).await;
    assert_eq!(refused.error(), (403, "DENIED"));
    assert_eq!(
        refused.json["errors"][0]["detail"],
        json!({
            "organization": "team",
            "limit_bytes": 6_000,
            "used_bytes": used_bytes,
            "needed_bytes": 1_000,
            "reclaimable_bytes": 0,
        })
    );
    // What the organisation has costs nothing more, in whatever repository.
    api.blob("team/more", &[7; 5_000]).await;
    let below = set(json!(100)).await;
    assert!(below["warning"].as_str().unwrap().contains("nothing more can be pushed"), "{below:#}");
    assert_eq!(below["quota"]["free_bytes"], 0);
    assert_eq!(set(Value::Null).await["quota"], Value::Null);
    assert_eq!(api.get("quotas").await.json["quotas"], json!([]));
    api.blob("team/more", &more).await;
}

#[tokio::test]
async fn pauses_are_told_and_end() {
    let api = Api::new();
    assert_eq!(api.post("pause", json!({ "what": "collect" })).await.json["paused"], json!(["collect"]));
    assert_eq!(api.post("pause", json!({ "what": "compact" })).await.json["paused"], json!(["collect", "compact"]));
    let paused = api.post("collect", json!({})).await.json;
    assert_eq!(paused["kept"][0]["why"], "paused", "{paused:#}");
    assert_eq!(api.get("collect").await.json["paused"], json!(["collect", "compact"]));
    assert_eq!(api.post("compact", json!({})).await.json["paused"], true);
    assert_eq!(api.post("resume", json!({ "what": "collect" })).await.json["paused"], json!(["compact"]));
    assert_eq!(api.post("resume", json!({ "what": "compact" })).await.json["paused"], json!([]));
}

#[tokio::test]
async fn lists_go_on_where_the_page_before_says() {
    let api = Api::new();
    for name in ["a/x", "a/y", "b/x", "solo", "zero"] {
        api.image(name, Some("1"), name.as_bytes()).await;
        api.image(name, Some("2"), format!("{name}2").as_bytes()).await;
    }
    let cases = [
        ("organizations?", "organizations", 3),
        ("repositories?", "repositories", 5),
        ("repositories?organization=a&", "repositories", 2),
        ("repositories?organization=_&", "repositories", 2),
        ("manifests?repository=a/x&", "manifests", 2),
        ("history?repository=a/x&", "history", 2),
        ("history?repository=a/x&tag=1&", "history", 1),
        ("usage/history?", "samples", 1),
        ("usage/history?organization=a&", "samples", 1),
        ("segments?", "segments", 1),
        ("quotas?", "quotas", 3),
    ];
    for owner in [json!({ "repository": "a/x" }), json!({ "organization": "_" }), json!({ "organization": "none" })] {
        let mut quota = owner;
        quota["limit_bytes"] = json!(1_000_000);
        assert_eq!(api.order("PUT", "quotas", quota).await.status, 200);
    }
    for (path, plural, count) in cases {
        let (mut found, mut last) = (0, String::new());
        loop {
            let page = api.get(&format!("{path}n=1&last={last}")).await;
            assert_eq!(page.status, 200, "{path}: {}", page.message());
            let items = page.json[plural].as_array().unwrap().len();
            assert!(items <= 1, "{path}");
            found += items;
            match page.json["next"].as_str() {
                Some(next) => last = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(found, count, "{path}");
        let none = api.get(&format!("{path}n=0")).await;
        assert_eq!(none.json, json!({ plural: [], "next": null }), "{path}");
    }
}
