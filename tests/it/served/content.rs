use serde_json::json;

use crate::harness::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Orlop, descriptor, image, index, noise, sha256, sha512,
};

#[test]
fn manifests_are_served_as_they_were_pushed() {
    let server = Orlop::start();
    let (config, layer) = (noise(1, 100), noise(2, 1_000));
    for bytes in [&config, &layer] {
        server.push_blob("team/app", bytes);
    }
    let child = image(&config, &[&layer]).to_string();
    server.put_manifest("team/app", "child", OCI_MANIFEST, &child).is(201);
    let typed = |media_type: &str, mut manifest: serde_json::Value| {
        manifest["mediaType"] = json!(media_type);
        // White space and order are the client's.
        format!("\n {} \t\r\n", serde_json::to_string_pretty(&manifest).unwrap())
    };
    let mut referrer = image(&config, &[]);
    referrer["subject"] = descriptor(OCI_MANIFEST, "a subject that never comes");
    referrer["artifactType"] = json!("application/vnd.example.signature");
    let cases = [
        ("oci", OCI_MANIFEST, typed(OCI_MANIFEST, image(&config, &[&layer, &layer]))),
        ("docker", DOCKER_MANIFEST, typed(DOCKER_MANIFEST, image(&config, &[&layer]))),
        ("list", DOCKER_LIST, typed(DOCKER_LIST, index(&[&child]))),
        ("index", OCI_INDEX, typed(OCI_INDEX, index(&[&child, &child]))),
        ("empty", OCI_INDEX, typed(OCI_INDEX, index(&[]))),
        ("referrer", OCI_MANIFEST, typed(OCI_MANIFEST, referrer)),
    ];
    for (tag, media_type, text) in &cases {
        for digest in [sha256(text), sha512(text)] {
            let answer = if digest.starts_with("sha256") {
                server.put_manifest("team/app", tag, media_type, text)
            } else {
                server.put_manifest("team/app", &format!("{digest}?tag={tag}-512&tag={tag}.512"), media_type, text)
            };
            let place = format!("/v2/team/app/manifests/{digest}");
            let answer = answer.is(201).has("Location", &place).has("Docker-Content-Digest", &digest);
            let subject = sha256("a subject that never comes");
            assert_eq!(answer.header("oci-subject"), (*tag == "referrer").then_some(subject.as_str()));
        }
    }
    for (tag, media_type, text) in &cases {
        let (short, long) = (sha256(text), sha512(text));
        let names = [
            (*tag, &short),
            (&format!("{tag}-512"), &long),
            (&format!("{tag}.512"), &long),
            (&short, &short),
            (&long, &long),
        ];
        for (reference, digest) in names {
            let path = format!("/v2/team/app/manifests/{reference}");
            let answer = server.get(&path).is(200);
            assert_eq!(answer.body, text.as_bytes());
            for answer in [answer, server.head(&path).is(200)] {
                answer
                    .has("Content-Type", media_type)
                    .has("Content-Length", &text.len().to_string())
                    .has("Docker-Content-Digest", digest);
            }
        }
    }
    server.get(&format!("/v2/team/other/manifests/{}", sha256(&child))).refused(404, "NAME_UNKNOWN", "team/other");
}

#[test]
fn a_type_that_the_request_leaves_out_is_the_document_s() {
    let server = Orlop::start();
    let child = server.push_image("team/app", "latest", 1);
    let text = index(&[&child]).to_string();
    server.send("PUT", "/v2/team/app/manifests/list", &[], &text).is(201);
    server.get("/v2/team/app/manifests/list").is(200).has("Content-Type", OCI_INDEX);
    server.put_manifest("team/app", "list", &format!("{OCI_INDEX}; charset=utf-8"), &text).is(201);
    server.get("/v2/team/app/manifests/list").is(200).has("Content-Type", OCI_INDEX);
}

#[test]
fn layers_that_are_distributed_elsewhere_need_not_be_there() {
    let server = Orlop::start();
    let config = noise(1, 100);
    server.push_blob("team/app", &config);
    let mut manifest = image(&config, &[]);
    manifest["layers"] = json!([
        descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "elsewhere"),
        descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "elsewhere too"),
    ]);
    server.put_manifest("team/app", "windows", OCI_MANIFEST, &manifest.to_string()).is(201);
}

#[test]
fn what_is_deleted_is_gone_and_the_rest_stays() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "one", 1);
    let digest = sha256(&manifest);
    let by_digest = format!("/v2/team/app/manifests/{digest}");
    for tag in ["two", "three"] {
        server.put_manifest("team/app", tag, OCI_MANIFEST, &manifest).is(201);
    }
    let other = server.push_image("team/app", "other", 2);
    let tags = |expected: &[&str]| {
        assert_eq!(server.get("/v2/team/app/tags/list").is(200).json()["tags"], json!(expected));
    };
    // A tag goes alone.
    server.delete("/v2/team/app/manifests/one").is(202);
    server.get("/v2/team/app/manifests/one").refused(404, "MANIFEST_UNKNOWN", "one");
    server.delete("/v2/team/app/manifests/one").refused(404, "MANIFEST_UNKNOWN", "one");
    tags(&["other", "three", "two"]);
    assert_eq!(server.get(&by_digest).is(200).body, manifest.as_bytes());
    // A manifest goes with its tags.
    server.delete(&by_digest).is(202);
    server.get(&by_digest).refused(404, "MANIFEST_UNKNOWN", &digest);
    server.delete(&by_digest).refused(404, "MANIFEST_UNKNOWN", &digest);
    tags(&["other"]);
    assert_eq!(server.get("/v2/team/app/manifests/other").is(200).body, other.as_bytes());
    // Its blobs stay until they are deleted themselves, which nothing hinders any more.
    for bytes in [noise(1, 100), noise(1_000_001, 1_000)] {
        let path = format!("/v2/team/app/blobs/{}", sha256(&bytes));
        assert_eq!(server.get(&path).is(200).body, bytes);
        server.delete(&path).is(202);
        server.get(&path).is(404);
        server.delete(&path).is(404);
    }
    let answer = server.put_manifest("team/app", "again", OCI_MANIFEST, &manifest);
    answer.refused(400, "MANIFEST_BLOB_UNKNOWN", &sha256(noise(1, 100)));
    // Pushed again, all of it is there again.
    server.push_image("team/app", "again", 1);
    assert_eq!(server.get(&by_digest).is(200).body, manifest.as_bytes());
    tags(&["again", "other"]);
}

#[test]
fn a_manifest_with_many_tags_goes_with_all_of_them() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "latest", 1);
    let digest = sha256(&manifest);
    for page in 0..13 {
        let tags: String = (0..100).map(|tag| format!("&tag=t{page}-{tag}")).collect();
        let reference = format!("{digest}?{}", tags.trim_start_matches('&'));
        server.put_manifest("team/app", &reference, OCI_MANIFEST, &manifest).is(201);
    }
    let count = || server.get("/v2/team/app/tags/list").is(200).json()["tags"].as_array().unwrap().len();
    assert_eq!(count(), 1_301);
    server.delete(&format!("/v2/team/app/manifests/{digest}")).is(202);
    assert_eq!(count(), 0);
}
