use serde_json::json;

use super::{ALGORITHMS, digest};
use crate::harness::{OCI_MANIFEST, Orlop};

#[test]
fn tags_of_a_push_by_digest_are_told_back_and_listed() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "first", 1);
    let ninety_nine = (10..109).map(|n| format!("&tag=v{n}")).collect::<String>();
    let cases = [
        ("?tag=one", "one"),
        ("?tag=1.2.3&tag=1.2&tag=1&tag=latest", "1.2.3, 1.2, 1, latest"),
        ("?tag=b&tag=a&tag=b", "b, a"),
        ("?ns=x&tag=c&n=5", "c"),
        ("?tag=A%2Eb", "A.b"),
        ("", ""),
    ];
    for algorithm in ALGORITHMS {
        let digest = digest(algorithm, &manifest);
        for (query, tags) in cases {
            let answer = server.put_manifest("team/app", &format!("{digest}{query}"), OCI_MANIFEST, &manifest).is(201);
            assert_eq!(answer.header("oci-tag").unwrap_or_default(), tags, "{query}");
            for tag in tags.split(", ").filter(|tag| !tag.is_empty()) {
                server.head(&format!("/v2/team/app/manifests/{tag}")).is(200).has("Docker-Content-Digest", &digest);
            }
        }
        let many = format!("{digest}?tag=x{ninety_nine}");
        let answer = server.put_manifest("team/app", &many, OCI_MANIFEST, &manifest).is(201);
        assert_eq!(answer.header("oci-tag").unwrap().split(", ").count(), 100);
        let answer = server.put_manifest("team/app", &format!("{many}&tag=y"), OCI_MANIFEST, &manifest);
        answer.refused(414, "UNSUPPORTED", "100 tags");
        server.get("/v2/team/app/manifests/y").is(404);
    }
    // One bad tag refuses all of them. Beside a tag in the path there are no others.
    let bad = format!("{}?tag=good&tag=.bad", digest(ALGORITHMS[0], &manifest));
    server.put_manifest("team/app", &bad, OCI_MANIFEST, &manifest).refused(400, "NAME_INVALID", ".bad");
    server.get("/v2/team/app/manifests/good").is(404);
    let answer = server.put_manifest("team/app", "by-tag?tag=good", OCI_MANIFEST, &manifest).is(201);
    assert_eq!(answer.header("oci-tag"), None);
    server.get("/v2/team/app/manifests/good").is(404);
}

#[test]
fn lists_begin_after_last_with_and_without_n() {
    let server = Orlop::start();
    server.get("/v2/team/app/tags/list").refused(404, "NAME_UNKNOWN", "team/app");
    server.push_blob("team/app", b"no manifest yet");
    assert_eq!(server.get("/v2/team/app/tags/list").is(200).json(), json!({ "name": "team/app", "tags": [] }));
    for (seed, tag) in ["b", "_", "a.1", "B", "a-1", "10", "9"].into_iter().enumerate() {
        server.push_image("team/app", tag, seed as u64);
    }
    let cases: [(&str, &[&str], bool); 10] = [
        ("", &["10", "9", "B", "_", "a-1", "a.1", "b"], false),
        ("?n=1000000000", &["10", "9", "B", "_", "a-1", "a.1", "b"], false),
        ("?n=18446744073709551615", &["10", "9", "B", "_", "a-1", "a.1", "b"], false),
        ("?n=0", &[], false),
        ("?n=0&last=B", &[], false),
        ("?n=2", &["10", "9"], true),
        ("?n=7", &["10", "9", "B", "_", "a-1", "a.1", "b"], false),
        ("?last=_", &["a-1", "a.1", "b"], false),
        ("?last=a", &["a-1", "a.1", "b"], false),
        ("?last=B&n=2", &["_", "a-1"], true),
    ];
    for (query, tags, more) in cases {
        let answer =
            server.get(&format!("/v2/team/app/tags/list{query}")).is(200).has("Content-Type", "application/json");
        assert_eq!(answer.json()["tags"], json!(tags), "{query}");
        assert_eq!(answer.header("link").is_some(), more, "{query}");
    }
}
