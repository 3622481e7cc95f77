use serde_json::json;

use crate::harness::{OCI_INDEX, OCI_MANIFEST, Orlop, descriptor, image, index, noise, sha256};

const CACHE: &str = "application/vnd.buildkit.cacheconfig.v0";

fn manifest(server: &Orlop, reference: &str, status: u16) {
    server.get(&format!("/v2/team/app/manifests/{reference}")).is(status);
}

#[test]
fn indexes_nest_as_deep_as_they_like_and_may_be_empty() {
    let mut server = Orlop::start();
    let mut inner = (OCI_MANIFEST, server.push_image("team/app", "image", 1));
    for depth in 0..60 {
        let mut outer = index(&[]);
        outer["manifests"] = json!([descriptor(inner.0, &inner.1), descriptor(inner.0, &inner.1)]);
        let outer = outer.to_string();
        let reference = if depth % 2 == 0 { sha256(&outer) } else { format!("depth-{depth}") };
        server.put_manifest("team/app", &reference, OCI_INDEX, &outer).is(201);
        inner = (OCI_INDEX, outer);
    }
    server.put_manifest("team/app", "empty", OCI_INDEX, &index(&[]).to_string()).is(201);
    // A manifest in the middle can be deleted: what names it stays, and is no longer whole.
    server.delete("/v2/team/app/manifests/depth-41").is(202);
    let middle = server.get("/v2/team/app/manifests/depth-43").is(200).json();
    let child = middle["manifests"][0]["digest"].as_str().unwrap().to_owned();
    server.delete(&format!("/v2/team/app/manifests/{child}")).is(202);
    manifest(&server, &child, 404);
    manifest(&server, "depth-43", 200);
    let before = server.facts();
    assert_eq!(server.facts(), before);
}

/// One digest can be child, blob and subject of the same index; each use is checked by itself.
#[test]
fn one_digest_in_several_roles() {
    let server = Orlop::start();
    let child = server.push_image("team/app", "image", 1);
    let digest = sha256(&child);
    let mut outer = index(&[&child]);
    outer["subject"] = descriptor(OCI_MANIFEST, &child);
    outer["manifests"].as_array_mut().unwrap().push(descriptor(CACHE, &child));
    let text = outer.to_string();
    // As a blob it is not there yet: that a manifest has these bytes gives no blob.
    server.put_manifest("team/app", "all", OCI_INDEX, &text).refused(400, "MANIFEST_BLOB_UNKNOWN", &digest);
    server.push_blob("team/app", &child);
    server.put_manifest("team/app", "all", OCI_INDEX, &text).is(201).has("OCI-Subject", &digest);
    let referrers = format!("/v2/team/app/referrers/{digest}");
    assert_eq!(server.get(&referrers).is(200).json()["manifests"][0]["digest"], sha256(&text));
    let blob = format!("/v2/team/app/blobs/{digest}");
    server.delete(&blob).refused(405, "UNSUPPORTED", &sha256(&text));
    // The manifest goes without the blob, and the blob when nothing names it.
    server.delete(&format!("/v2/team/app/manifests/{digest}")).is(202);
    assert_eq!(server.get(&blob).is(200).body, child.as_bytes());
    server.delete(&format!("/v2/team/app/manifests/{}", sha256(&text))).is(202);
    assert_eq!(server.get(&referrers).is(200).json()["manifests"], json!([]));
    server.delete(&blob).is(202);
}

/// The remedy is named where it helps.
#[test]
fn what_is_absent_is_refused_unless_a_setting_allows_it() {
    let config = noise(1, 100);
    let layer = noise(2, 1_000);
    let child = image(&config, &[&layer]).to_string();
    let mut cache = index(&[]);
    cache["manifests"] = json!([descriptor(CACHE, "a blob")]);
    let cases = [
        ("image", OCI_MANIFEST, child.clone(), [400, 400, 201]),
        ("index", OCI_INDEX, index(&[&child]).to_string(), [400, 201, 201]),
        ("cache", OCI_INDEX, cache.to_string(), [400, 201, 201]),
    ];
    for (at, sparse) in ["off", "index", "any"].into_iter().enumerate() {
        let server = Orlop::start_with(&[("registry.sparse", sparse)]);
        for (tag, media_type, text, statuses) in &cases {
            let answer = server.put_manifest("team/app", tag, media_type, text).is(statuses[at]);
            if statuses[at] == 400 {
                answer.refused(400, "MANIFEST_BLOB_UNKNOWN", "registry.sparse");
                server.get(&format!("/v2/team/app/manifests/{tag}")).is(404);
            } else {
                assert_eq!(server.get(&format!("/v2/team/app/manifests/{tag}")).is(200).body, text.as_bytes());
            }
        }
    }
}

#[test]
fn what_a_sparse_manifest_names_comes_in_any_order_and_gives_no_right_before() {
    let mut server = Orlop::start_with(&[("registry.sparse", "any")]);
    let (config, layer) = (noise(1, 100), noise(2, 1_000));
    let child = image(&config, &[&layer]).to_string();
    let outer = index(&[&child]).to_string();
    // Another repository has it all; naming it opens nothing.
    server.push_blob("team/private", &layer);
    server.put_manifest("team/private", "latest", OCI_MANIFEST, &child).is(201);
    server.put_manifest("team/app", "outer", OCI_INDEX, &outer).is(201);
    manifest(&server, &sha256(&child), 404);
    server.put_manifest("team/app", &sha256(&child), OCI_MANIFEST, &child).is(201);
    manifest(&server, &sha256(&child), 200);
    let layer_path = format!("/v2/team/app/blobs/{}", sha256(&layer));
    server.get(&layer_path).refused(404, "BLOB_UNKNOWN", &sha256(&layer));
    server.head(&layer_path).is(404);
    server.delete(&layer_path).is(404);
    let mount = format!("/v2/team/app/blobs/uploads/?mount={}&from=team/private", sha256(&layer));
    server.post(&mount).is(201);
    server.push_blob("team/app", &config);
    for blob in [&config, &layer] {
        assert_eq!(&server.get(&format!("/v2/team/app/blobs/{}", sha256(blob))).is(200).body, blob);
    }
    server.delete(&layer_path).refused(405, "UNSUPPORTED", &sha256(&child));
    let facts = server.facts();
    let usage = facts.iter().find(|line| line.starts_with("usage scope=registry")).unwrap();
    assert!(usage.contains("\"used_bytes\":1100,\"blobs\":2,"), "{usage}");
    assert!(!facts.iter().any(|line| line.starts_with("awaited ")), "the child has come");
    // What is there is still held against what the manifest says.
    let wrong = child.replace("\"size\":1000", "\"size\":1001");
    server.put_manifest("team/app", "wrong", OCI_MANIFEST, &wrong).refused(400, "MANIFEST_INVALID", &sha256(&layer));
}
