use serde_json::{Value, json};

use super::leaves_no_trace;
use crate::harness::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Orlop, descriptor, image, index, noise, sha256, sha512,
};

/// The config and the layer of the image that each store here has.
fn stored() -> (Vec<u8>, Vec<u8>) {
    (noise(1, 100), noise(1_000_001, 1_000))
}

/// That image with one field changed or added.
fn with(field: &str, value: Value) -> String {
    let (config, layer) = stored();
    let mut manifest = image(&config, &[&layer]);
    manifest[field] = value;
    manifest.to_string()
}

fn sized(mut descriptor: Value, size: Value) -> Value {
    descriptor["size"] = size;
    descriptor
}

#[test]
fn documents_that_are_no_manifests_are_refused() {
    let (config, layer) = stored();
    let good = image(&config, &[&layer]).to_string();
    let (config_digest, layer_digest) = (sha256(&config), sha256(&layer));
    let layer_of = |size: Value| json!([sized(descriptor("a/b", &layer), size)]);
    let cases: Vec<(&str, String, &str)> = vec![
        (OCI_MANIFEST, String::new(), "JSON"),
        (OCI_MANIFEST, "hello".to_owned(), "JSON"),
        (OCI_MANIFEST, good[..good.len() - 1].to_owned(), "JSON"),
        (OCI_MANIFEST, good.clone() + "}", "JSON"),
        (OCI_MANIFEST, good.replace("schemaVersion", "schema\u{1}"), "JSON"),
        (OCI_MANIFEST, "[]".to_owned(), "manifest"),
        (OCI_MANIFEST, "{}".to_owned(), "schemaVersion"),
        (OCI_MANIFEST, with("schemaVersion", json!(1)), "schemaVersion"),
        (OCI_MANIFEST, with("schemaVersion", json!("2")), "manifest"),
        (OCI_MANIFEST, with("deep", serde_json::from_str(&("[".repeat(64) + &"]".repeat(64))).unwrap()), "deep"),
        (OCI_MANIFEST, "[".repeat(1 << 20), "deep"),
        (OCI_MANIFEST, r#"{"a":"#.repeat(100_000), "deep"),
        (OCI_MANIFEST, good.replacen('{', r#"{"schemaVersion":2,"#, 1), "\"schemaVersion\""),
        (OCI_MANIFEST, good.replacen('{', r#"{"config":null,"#, 1), "\"config\""),
        (OCI_MANIFEST, good.replacen("\"size\"", r#""\u0073ize":1,"size""#, 1), "\"size\""),
        (OCI_MANIFEST, with("annotations", json!(null)).replace("null", r#"{"k":1,"k":2}"#), "\"k\""),
        (OCI_MANIFEST, with("mediaType", json!(DOCKER_MANIFEST)), DOCKER_MANIFEST),
        (DOCKER_MANIFEST, with("mediaType", json!(OCI_MANIFEST)), DOCKER_MANIFEST),
        (OCI_INDEX, with("mediaType", json!(OCI_MANIFEST)), OCI_INDEX),
        ("text/plain", good.clone(), "text/plain"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", good.clone(), "v1+prettyjws"),
        (OCI_INDEX, good.clone(), OCI_INDEX),
        (DOCKER_LIST, good.clone(), DOCKER_LIST),
        (OCI_MANIFEST, index(&[]).to_string(), "mediaType"),
        (OCI_MANIFEST, with("manifests", json!([])), "manifests"),
        (OCI_MANIFEST, with("fsLayers", json!([])), "fsLayers"),
        (OCI_MANIFEST, with("layers", json!(null)), "layers"),
        (OCI_MANIFEST, with("config", json!(null)), "config"),
        (OCI_MANIFEST, with("layers", json!({})), "manifest"),
        (OCI_MANIFEST, with("layers", json!([{}])), "manifest"),
        (OCI_MANIFEST, with("layers", json!([{ "mediaType": "a/b", "digest": "sha256:00", "size": 1 }])), "layers[0]"),
        (OCI_MANIFEST, with("layers", json!([{ "digest": sha256(&layer), "size": 1_000 }])), "layers[0]"),
        (OCI_MANIFEST, with("layers", layer_of(json!(-1))), "-1"),
        (OCI_MANIFEST, with("layers", layer_of(json!(1.5))), "1.5"),
        (OCI_MANIFEST, with("layers", layer_of(json!(u64::MAX))), "18446744073709551615"),
        (OCI_MANIFEST, with("layers", layer_of(json!("1000"))), "manifest"),
        (OCI_MANIFEST, with("layers", layer_of(json!(999))), &layer_digest),
        (OCI_MANIFEST, with("layers", layer_of(json!(0))), &layer_digest),
        (OCI_MANIFEST, with("config", sized(descriptor("a/b", &config), json!(101))), &config_digest),
        (OCI_MANIFEST, with("subject", json!({ "digest": "x", "size": 1, "mediaType": "a/b" })), "subject"),
        (OCI_MANIFEST, with("artifactType", json!("a".repeat(256))), "artifactType"),
    ];
    leaves_no_trace(&[], |server| {
        for (media_type, text, named) in cases {
            let answer = server.put_manifest("team/app", "bad", media_type, &text);
            answer.refused(400, "MANIFEST_INVALID", named);
            let by_digest = format!("{}?tag=bad", sha512(&text));
            server.put_manifest("team/app", &by_digest, media_type, &text).refused(400, "MANIFEST_INVALID", named);
            server.get("/v2/team/app/manifests/bad").is(404);
            if text != good {
                server.get(&format!("/v2/team/app/manifests/{}", sha256(&text))).is(404);
            }
        }
    });
}

#[test]
fn a_child_of_another_size_is_refused() {
    leaves_no_trace(&[], |server| {
        let child = String::from_utf8(server.get("/v2/team/app/manifests/latest").body).unwrap();
        let mut list = index(&[&child]);
        list["manifests"][0]["size"] = json!(child.len() - 1);
        let answer = server.put_manifest("team/app", "list", OCI_INDEX, &list.to_string());
        answer.refused(400, "MANIFEST_INVALID", &sha256(&child));
    });
}

#[test]
fn a_manifest_may_have_4_mib_and_not_a_byte_more() {
    let mut server = Orlop::start();
    server.push_image("team/app", "latest", 1);
    let room = (4 << 20) - with("annotations", json!({ "a": "" })).len();
    let [fits, too_large] = [room, room + 1].map(|len| with("annotations", json!({ "a": "x".repeat(len) })));
    assert_eq!(fits.len(), 4 << 20);
    for reference in ["large", &sha256(&too_large), &sha512(&too_large)] {
        let path = format!("/v2/team/app/manifests/{reference}");
        server.put_manifest("team/app", reference, OCI_MANIFEST, &too_large).refused(413, "SIZE_INVALID", "4194304");
        let mut connection = server.connect();
        connection.say_head("PUT", &path, &[("Transfer-Encoding", "chunked"), ("Content-Type", OCI_MANIFEST)]);
        connection.say_chunk(too_large.as_bytes()).say_chunk(b"").answer().refused(413, "SIZE_INVALID", "4194304");
        server.get(&path).is(404);
    }
    // One that is far too large is refused by its announced length, before it is sent.
    let mut connection = server.connect();
    let headers = [("Content-Length", "1099511627776"), ("Content-Type", OCI_MANIFEST)];
    connection.say_head("PUT", "/v2/team/app/manifests/large", &headers).answer().refused(
        413,
        "SIZE_INVALID",
        "manifest",
    );

    server.put_manifest("team/app", "large", OCI_MANIFEST, &fits).is(201);
    assert_eq!(server.get("/v2/team/app/manifests/large").is(200).body, fits.as_bytes());
    let facts = server.facts_at_end();
    assert_eq!(facts.iter().filter(|fact| fact.starts_with("manifests ")).count(), 2);
}

#[test]
fn references_that_the_repository_lacks_are_all_named() {
    let (config, layer) = stored();
    let missing: Vec<Vec<u8>> = (0..5).map(|seed| noise(100 + seed, 50)).collect();
    leaves_no_trace(&[], |server| {
        let child = String::from_utf8(server.get("/v2/team/app/manifests/latest").body).unwrap();
        let layers: Vec<&[u8]> = missing[1..].iter().map(Vec::as_slice).chain([layer.as_slice()]).collect();
        let lacking = image(&missing[0], &layers).to_string();
        let all: Vec<String> = missing.iter().map(sha256).collect();
        let cases = [
            ("team/app", OCI_MANIFEST, lacking.clone(), all),
            // What another repository has is not this one's.
            ("team/new", OCI_MANIFEST, child.clone(), vec![sha256(&config), sha256(&layer)]),
            ("team/new", OCI_INDEX, index(&[&child]).to_string(), vec![sha256(&child)]),
            ("team/app", OCI_INDEX, index(&[&child, &lacking]).to_string(), vec![sha256(&lacking)]),
            // A blob is no manifest, and a manifest no blob.
            (
                "team/app",
                OCI_INDEX,
                {
                    let mut list = index(&[]);
                    list["manifests"] = json!([descriptor(OCI_MANIFEST, &layer)]);
                    list.to_string()
                },
                vec![sha256(&layer)],
            ),
            ("team/app", OCI_MANIFEST, image(&config, &[child.as_bytes()]).to_string(), vec![sha256(&child)]),
        ];
        for (repository, media_type, text, lacks) in cases {
            for reference in ["lacking".to_owned(), sha256(&text)] {
                let answer = server.put_manifest(repository, &reference, media_type, &text);
                let answer = answer.refused(400, "MANIFEST_BLOB_UNKNOWN", repository);
                let error = &answer.json()["errors"][0];
                let mut lacks = lacks.clone();
                lacks.sort();
                assert_eq!(error["detail"]["missing"], json!(lacks), "{answer:?}");
                for digest in lacks {
                    assert!(error["message"].as_str().unwrap().contains(&digest), "{answer:?}");
                }
                assert_eq!(server.get(&format!("/v2/{repository}/manifests/{reference}")).status, 404);
            }
        }
    });
}

#[test]
fn a_digest_that_is_there_keeps_its_type() {
    leaves_no_trace(&[], |server| {
        // Without mediaType the document fits OCI and Docker alike.
        let manifest = String::from_utf8(server.get("/v2/team/app/manifests/latest").body).unwrap();
        for reference in ["latest", "other", &sha256(&manifest)] {
            let answer = server.put_manifest("team/app", reference, DOCKER_MANIFEST, &manifest);
            answer.refused(400, "MANIFEST_INVALID", OCI_MANIFEST);
        }
        server.get("/v2/team/app/manifests/latest").is(200).has("Content-Type", OCI_MANIFEST);
        server.get("/v2/team/app/manifests/other").is(404);
    });
}

#[test]
fn more_references_than_the_setting_are_refused() {
    leaves_no_trace(&[("registry.references_max", "4")], |server| {
        let (config, layer) = stored();
        let layers = [layer.as_slice(); 4];
        let too_many = image(&config, &layers).to_string();
        server.put_manifest("team/app", "many", OCI_MANIFEST, &too_many).refused(400, "MANIFEST_INVALID", "5");
        let child = String::from_utf8(server.get("/v2/team/app/manifests/latest").body).unwrap();
        let list = index(&[child.as_str(); 5]).to_string();
        server.put_manifest("team/app", "many", OCI_INDEX, &list).refused(400, "MANIFEST_INVALID", "5");
        let mut with_subject = image(&config, &layers[..3]);
        with_subject["subject"] = descriptor(OCI_MANIFEST, &child);
        let with_subject = with_subject.to_string();
        server.put_manifest("team/app", "many", OCI_MANIFEST, &with_subject).refused(400, "MANIFEST_INVALID", "5");
    });
}

#[test]
fn a_blob_in_use_cannot_be_deleted() {
    leaves_no_trace(&[], |server| {
        let (config, layer) = stored();
        let manifest = server.get("/v2/team/app/manifests/latest").body;
        for blob in [config, layer] {
            let path = format!("/v2/team/app/blobs/{}", sha256(&blob));
            server.delete(&path).refused(405, "UNSUPPORTED", &sha256(&manifest));
            server.get(&path).is(200);
        }
    });
}
