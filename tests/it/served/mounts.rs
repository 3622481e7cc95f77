use crate::harness::{Orlop, noise, sha256, sha512};

fn mount(repository: &str, digest: &str, from: &str) -> String {
    let from = if from.is_empty() { String::new() } else { format!("&from={from}") };
    format!("/v2/{repository}/blobs/uploads/?mount={digest}{from}")
}

#[test]
fn a_mount_gives_the_blob_to_another_repository() {
    let mut server = Orlop::start();
    for (number, len) in [1_000, 200_000].into_iter().enumerate() {
        let bytes = noise(1, len);
        let digest = server.push_blob("source/app", &bytes);
        for (name, from) in [("with", "source/app"), ("encoded", "source%2Fapp"), ("without", "")] {
            let repository = format!("target{number}/{name}");
            let path = format!("/v2/{repository}/blobs/{digest}");
            server.get(&path).refused(404, "BLOB_UNKNOWN", &digest);
            let answer = server.post(&mount(&repository, &digest, from)).is(201);
            answer.has("Location", &path).has("Docker-Content-Digest", &digest);
            assert_eq!(server.get(&path).is(200).body, bytes);
            // Deleting it there takes it from nobody else.
            server.delete(&path).is(202);
            server.get(&path).is(404);
            assert_eq!(server.get(&format!("/v2/source/app/blobs/{digest}")).is(200).body, bytes);
        }
    }
    let facts = server.facts_at_end();
    assert_eq!(facts.iter().filter(|fact| fact.starts_with("blobs ")).count(), 2);
}

#[test]
fn a_mount_of_what_is_not_there_is_an_upload() {
    let server = Orlop::start();
    let there = noise(1, 1_000);
    let absent: Vec<_> = (2..5).map(|seed| noise(seed, 1_000)).collect();
    let digest = server.push_blob("source/app", &there);
    let cases = [
        (sha256(&absent[0]), "source/app", &absent[0]),
        (sha256(&absent[1]), "", &absent[1]),
        (sha256(&absent[2]), "nobody/here", &absent[2]),
        (sha512(&there), "source/app", &there),
        // The blob is there, but not in the repository that is named.
        (digest.clone(), "nobody/here", &there),
        (digest, "target/0", &there),
    ];
    for (number, (digest, from, bytes)) in cases.into_iter().enumerate() {
        let repository = format!("target/{}", number + 1);
        let upload = server.post(&mount(&repository, &digest, from)).is(202).has("Range", "0-0").location();
        assert!(upload.starts_with(&format!("/v2/{repository}/blobs/uploads/")), "{upload}");
        server.get(&format!("/v2/{repository}/blobs/{digest}")).is(404);
        server.put(&upload, &digest, bytes).is(201);
        assert_eq!(&server.get(&format!("/v2/{repository}/blobs/{digest}")).is(200).body, bytes);
    }
}

#[test]
fn a_mounted_blob_can_be_named_by_a_manifest() {
    let server = Orlop::start();
    let manifest = server.push_image("source/app", "latest", 1);
    let parsed: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for digest in [&parsed["config"]["digest"], &parsed["layers"][0]["digest"]] {
        server.post(&mount("target/app", digest.as_str().unwrap(), "source/app")).is(201);
    }
    server.put_manifest("target/app", "latest", crate::harness::OCI_MANIFEST, &manifest).is(201);
    assert_eq!(server.get("/v2/target/app/manifests/latest").is(200).body, manifest.as_bytes());
}
