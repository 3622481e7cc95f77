//! What is refused, and that it is named.

use super::*;

const ROOT: &str = "/api/v1/";

#[tokio::test]
async fn foreign_pages_reach_no_route() {
    let api = Api::new();
    let json = ("content-type", "application/json");
    let own = ("host", "localhost:5000");
    let cases: &[&[(&str, &str)]] = &[
        &[json],
        &[json, ("host", "evil.example")],
        &[json, ("host", "evil.example:5000")],
        &[json, own, ("origin", "http://evil.example")],
        &[json, own, ("origin", "null")],
        &[json, own, ("sec-fetch-site", "cross-site")],
    ];
    let paths = ["usage", "openapi.json", "collect", "no/such/route", "../v2/", ""];
    for headers in cases {
        for path in paths {
            for method in ["GET", "POST", "OPTIONS", "HEAD"] {
                let answer = api.send(method, &format!("{ROOT}{path}"), headers, "{}").await;
                assert_eq!(answer.error(), (403, "DENIED"), "{method} {path} {headers:?}");
            }
        }
    }
    for headers in [&[("host", "registry.example:5000")][..], &[own, ("origin", "http://localhost:5000")]] {
        let answer = api.send("GET", "/api/v1/usage", headers, "").await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    // A browser asks before it sends JSON to another site; nothing here says yes.
    let preflight = api.send("OPTIONS", "/api/v1/purge", &[own], "").await;
    assert_eq!(preflight.error(), (405, "UNSUPPORTED"));
    assert_eq!(preflight.headers["allow"], "POST");
}

#[tokio::test]
async fn changes_are_json_of_a_bounded_length() {
    let api = Api::new();
    let posts = ["what-if", "restore", "purge", "collect", "compact", "pause", "resume", "verify"];
    for (method, path) in posts.map(|path| ("POST", path)).into_iter().chain([("PUT", "quotas"), ("PUT", "policies/a")])
    {
        let path = format!("{ROOT}{path}");
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            let mut headers = vec![("host", "localhost")];
            headers.extend(content_type.map(|content_type| ("content-type", content_type)));
            assert_eq!(api.send(method, &path, &headers, "{}").await.error(), (415, "UNSUPPORTED"), "{path}");
        }
        let headers = [("host", "localhost"), ("content-type", "application/json")];
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(64 << 10));
        assert_eq!(api.send(method, &path, &headers, long).await.error(), (413, "SIZE_INVALID"), "{path}");
        for body in ["{", "[]", "{\"unheard\":1}", "null", "{}{}", "\u{0}"] {
            let answer = api.send(method, &path, &headers, body).await;
            assert_eq!(answer.error(), (400, "UNSUPPORTED"), "{path} {body}");
            assert!(body != "{\"unheard\":1}" || answer.message().contains("unheard"), "{}", answer.message());
        }
    }
}

#[tokio::test]
async fn what_is_out_of_its_grammar_is_named() {
    let api = Api::new();
    api.image("team/app", Some("latest"), b"layer").await;
    let digest = Digest::of(Algorithm::Sha256, b"absent");
    let cases = [
        ("usage?organisation=team".to_owned(), 400, "organisation"),
        ("usage?organization=team&organization=x".to_owned(), 400, "organization"),
        ("usage?organization=team&repository=team/app".to_owned(), 400, "not for both"),
        ("usage?organization=a/b".to_owned(), 400, "a/b"),
        ("usage?organization=".to_owned(), 400, "not valid"),
        ("usage?repository=..%2F..".to_owned(), 400, "../.."),
        ("usage?repository=A".to_owned(), 400, "\"A\""),
        ("usage?repository=%ff".to_owned(), 400, "UTF-8"),
        ("manifests".to_owned(), 400, "repository"),
        ("manifests?repository=team/app&n=-1".to_owned(), 400, "-1"),
        ("manifests?repository=team/app&n=ten".to_owned(), 400, "ten"),
        ("manifests?repository=team/app&own=yes".to_owned(), 400, "yes"),
        ("manifests?repository=team/app&last=latest".to_owned(), 400, "latest"),
        ("manifests?repository=team/app&digest=md5:00".to_owned(), 400, "md5"),
        ("history?repository=team/app&tag=-x".to_owned(), 400, "-x"),
        ("history?repository=team/app&last=latest".to_owned(), 400, "latest"),
        ("usage/history?last=2026-13-01".to_owned(), 400, "2026-13-01"),
        ("usage/history?last=1969-01-01".to_owned(), 400, "1969-01-01"),
        ("segments?last=first".to_owned(), 400, "first"),
        ("quotas?last=team".to_owned(), 400, "team"),
        ("top?organization=team&repository=team/app".to_owned(), 400, "not for both"),
        ("top?n=-1".to_owned(), 400, "-1"),
        ("top?organization=nobody".to_owned(), 404, "nobody"),
        ("top?repository=team/none".to_owned(), 404, "team/none"),
        ("doctor?n=1".to_owned(), 400, "n"),
        ("quotas?organization=team&repository=team/app".to_owned(), 400, "or none"),
        ("quotas?organization=a/b".to_owned(), 400, "a/b"),
        ("blobs/sha256:00".to_owned(), 400, "sha256:00"),
        (format!("blobs/{digest}?search=1"), 400, "search"),
        ("why".to_owned(), 400, "give a digest"),
        ("why?repository=team/app".to_owned(), 400, "give a digest"),
        (format!("why?digest={digest}&reference=latest"), 400, "give a digest"),
        ("usage?organization=nobody".to_owned(), 404, "nobody"),
        ("usage?repository=team/none".to_owned(), 404, "team/none"),
        ("usage/history?organization=nobody".to_owned(), 404, "nobody"),
        ("repositories?organization=nobody".to_owned(), 404, "nobody"),
        ("manifests?repository=team/none&n=0".to_owned(), 404, "team/none"),
        (format!("manifests?repository=team/app&digest={digest}"), 404, "does-not-matter"),
        ("history?repository=team/app&tag=none".to_owned(), 404, "none"),
        (format!("blobs/{digest}"), 404, "does-not-matter"),
        (format!("blobs/{}", digest.to_string().replace(':', "%3A")), 404, "does-not-matter"),
        (format!("blobs/{digest}?repository=team/none"), 404, "team/none"),
        (format!("why?digest={digest}"), 404, "does-not-matter"),
        ("why?repository=team/app&reference=none".to_owned(), 404, "none"),
        ("nothing".to_owned(), 404, "nothing"),
        ("usage/".to_owned(), 404, "usage/"),
        (format!("blobs/{digest}/x"), 404, "there is nothing"),
        (format!("usage?organization={}", "a".repeat(600)), 414, "600"),
    ];
    for (path, status, named) in cases {
        let named = if named == "does-not-matter" { digest.to_string() } else { named.to_owned() };
        let answer = api.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.message());
        assert!(answer.message().contains(&named), "{path}: {}", answer.message());
    }
}

#[tokio::test]
async fn orders_name_what_they_mean() {
    let api = Api::new();
    api.image("team/app", Some("latest"), b"layer").await;
    let digest = Digest::of(Algorithm::Sha256, b"absent");
    let cases = [
        ("what-if", json!({ "repository": "team/app", "tags": ["none"] }), 404, "none".to_owned()),
        ("what-if", json!({ "repository": "team/app", "digests": [digest] }), 404, digest.to_string()),
        (
            "what-if",
            json!({ "repository": "team/app", "tags": ["a"], "digests": [digest] }),
            400,
            "not both".to_owned(),
        ),
        ("what-if", json!({ "repository": "team/app", "tags": ["-"] }), 400, "\"-\"".to_owned()),
        ("what-if", json!({ "repository": "team/app", "tag": "latest" }), 400, "`tag`".to_owned()),
        ("what-if", json!({}), 400, "`repository`, or a policy".to_owned()),
        ("what-if", json!({ "repository": "team/app", "policy": {} }), 400, "not both".to_owned()),
        ("what-if", json!({ "policy": { "name": "a" } }), 400, "policy: pattern is missing".to_owned()),
        ("policies/none/confirm", json!({}), 404, "\"none\"".to_owned()),
        ("what-if", json!({ "repository": "team/none" }), 404, "team/none".to_owned()),
        ("what-if?dry_run=true", json!({ "repository": "team/app" }), 400, "dry_run".to_owned()),
        ("restore", json!({ "repository": "team/app" }), 400, "digest".to_owned()),
        ("restore", json!({ "repository": "team/app", "digest": "latest" }), 400, "latest".to_owned()),
        ("restore", json!({ "repository": "team/app", "digest": digest }), 404, digest.to_string()),
        ("purge", json!({}), 400, "organization".to_owned()),
        ("purge", json!({ "organization": "team", "repository": "team/app" }), 400, "not both".to_owned()),
        ("purge", json!({ "organization": "nobody" }), 404, "nobody".to_owned()),
        ("purge", json!({ "organization": "a/b" }), 400, "a/b".to_owned()),
        ("purge?dry_run=maybe", json!({ "organization": "team" }), 400, "maybe".to_owned()),
        ("collect?dry_run", json!({}), 400, "dry_run".to_owned()),
        ("collect", json!({ "free_bytes": 0 }), 400, "nonzero".to_owned()),
        ("collect", json!({ "free_bytes": "1GiB" }), 400, "1GiB".to_owned()),
        ("collect", json!({ "bytes": 1 }), 400, "`bytes`".to_owned()),
        ("pause", json!({ "what": "clock" }), 400, "clock".to_owned()),
        ("pause", json!({ "what": "everything" }), 400, "everything".to_owned()),
    ];
    for (path, body, status, named) in cases {
        let answer = api.post(path, body.clone()).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.message());
        assert!(answer.message().contains(&named), "{path} {body}: {}", answer.message());
    }
    for (body, named) in [
        (json!({ "limit_bytes": 1 }), "name an organization or a repository"),
        (json!({ "organization": "team" }), "limit_bytes"),
        (json!({ "organization": "team", "limit_bytes": -1 }), "-1"),
        (json!({ "organization": "team", "limit_bytes": 1.5 }), "1.5"),
        (json!({ "organization": "team", "limit_bytes": "1GiB" }), "1GiB"),
        (json!({ "organization": "a/b", "limit_bytes": 1 }), "a/b"),
        (json!({ "repository": "A", "limit_bytes": 1 }), "\"A\""),
    ] {
        let answer = api.order("PUT", "quotas", body.clone()).await;
        assert!(answer.status == 400 && answer.message().contains(named), "{body}: {}", answer.message());
    }
    assert_eq!(api.get("quotas").await.json["quotas"], json!([]), "nothing was set");
}
