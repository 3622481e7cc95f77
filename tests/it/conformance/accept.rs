use serde_json::json;

use crate::harness::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Orlop, descriptor, image, noise, sha256};

const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// A client's name, its `Accept`, and the digests that it gets for four tags.
type Case<'a> = (&'a str, Option<&'a str>, [Option<&'a String>; 4]);

/// Pushes an index for arm64 and, if there is one, amd64, under the tag `index_tag`; the digests of index and amd64 image.
fn push_index(server: &Orlop, index_tag: &str, [index_type, image_type]: [&str; 2], has_amd64: bool) -> [String; 2] {
    let config = noise(1, 100);
    server.push_blob("team/app", &config);
    let mut images = ["arm64", "amd64"].map(|architecture| {
        let mut image = image(&config, &[]);
        image["mediaType"] = json!(image_type);
        image["annotations"] = json!({ "for": format!("{architecture} {index_tag}") });
        let text = image.to_string();
        server.put_manifest("team/app", &sha256(&text), image_type, &text).is(201);
        let mut child = descriptor(image_type, &text);
        child["platform"] = json!({ "os": "linux", "architecture": architecture });
        child
    });
    let digest = images[1]["digest"].as_str().unwrap().to_owned();
    if !has_amd64 {
        images[1]["platform"]["os"] = json!("windows");
    }
    let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": images }).to_string();
    server.put_manifest("team/app", index_tag, index_type, &index).is(201);
    [sha256(&index), digest]
}

#[test]
fn a_tag_is_answered_by_what_the_client_takes() {
    let server = Orlop::start();
    let oci = push_index(&server, "oci", [OCI_INDEX, OCI_MANIFEST], true);
    let docker = push_index(&server, "docker", [DOCKER_LIST, DOCKER_MANIFEST], true);
    let foreign = push_index(&server, "foreign", [OCI_INDEX, OCI_MANIFEST], false);
    let image = sha256(server.push_image("team/app", "image", 7));
    let everything = format!("{SCHEMA_1}, {DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_INDEX}, {OCI_MANIFEST}");
    let (docker_17, script) =
        (format!("{SCHEMA_1}, {DOCKER_MANIFEST}, {DOCKER_LIST}"), format!("{DOCKER_MANIFEST};q=1"));
    let containerd = format!("{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*");
    // What a client says; the digests that it gets for the tags oci, docker, foreign and image.
    let [all, none] = [[Some(&oci[0]), Some(&docker[0]), Some(&foreign[0]), Some(&image)], [None; 4]];
    let cases: Vec<Case<'_>> = vec![
        ("an old script", None, all),
        ("curl", Some("*/*"), all),
        ("a script for JSON", Some("application/json"), all),
        ("java", Some("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"), all),
        ("garbage", Some("é"), all),
        ("skopeo, docker", Some(&everything), all),
        ("containerd", Some(&containerd), all),
        ("oras for an image", Some(OCI_MANIFEST), [Some(&oci[1]), None, None, Some(&image)]),
        ("docker 17", Some(&docker_17), [None, Some(&docker[0]), None, None]),
        ("a script for digests", Some(&script), [None, Some(&docker[1]), None, None]),
        ("a client of indexes", Some(OCI_INDEX), [Some(&oci[0]), None, Some(&foreign[0]), None]),
        ("docker 1.9", Some(SCHEMA_1), none),
    ];
    for (client, accept, expected) in cases {
        let headers: Vec<_> = accept.map(|accept| ("Accept", accept)).into_iter().collect();
        for (tag, expected) in ["oci", "docker", "foreign", "image"].into_iter().zip(expected) {
            let path = format!("/v2/team/app/manifests/{tag}");
            let (get, head) = (server.send("GET", &path, &headers, ""), server.send("HEAD", &path, &headers, ""));
            println!("{client}, {tag}: {}", get.status);
            let Some(digest) = expected else {
                get.refused(404, "MANIFEST_UNKNOWN", "Accept").has("Vary", "Accept");
                head.is(404);
                continue;
            };
            assert_eq!(sha256(&get.body), *digest);
            let own = format!("\"{digest}\"");
            let known = [headers.clone(), vec![("If-None-Match", own.as_str())]].concat();
            server.send("GET", &path, &known, "").is(304);
            for answer in [get.is(200), head.is(200)] {
                answer.has("Docker-Content-Digest", digest).has("Vary", "Accept");
            }
        }
    }
}

/// A digest has one document; its type was learnt with it.
#[test]
fn a_digest_is_answered_whatever_the_client_takes() {
    let server = Orlop::start();
    let [index, image] = push_index(&server, "index", [OCI_INDEX, OCI_MANIFEST], true);
    for (digest, media_type) in [(&index, OCI_INDEX), (&image, OCI_MANIFEST)] {
        for accept in [DOCKER_MANIFEST, SCHEMA_1, "text/plain", "*/*;q=0"] {
            for method in ["GET", "HEAD"] {
                let path = format!("/v2/team/app/manifests/{digest}");
                let answer = server.send(method, &path, &[("Accept", accept)], "").is(200);
                answer.has("Content-Type", media_type).has("Docker-Content-Digest", digest);
            }
        }
    }
}

#[test]
fn an_image_that_was_deleted_is_not_given_for_its_index() {
    let server = Orlop::start();
    let [_, image] = push_index(&server, "index", [OCI_INDEX, OCI_MANIFEST], true);
    let get = || server.send("GET", "/v2/team/app/manifests/index", &[("Accept", OCI_MANIFEST)], "");
    get().is(200).has("Docker-Content-Digest", &image);
    server.delete(&format!("/v2/team/app/manifests/{image}")).is(202);
    get().refused(404, "MANIFEST_UNKNOWN", OCI_INDEX);
    server.get("/v2/team/app/manifests/index").is(200);
}
