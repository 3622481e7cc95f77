use std::sync::Barrier;

use crate::harness::{OCI_MANIFEST, Orlop, image, noise, sha256};

const CLIENTS: u64 = 32;

/// Does the same from many clients, which begin together; what each got.
fn at_once<T: Send>(client: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(CLIENTS as usize);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (barrier, client) = (&barrier, &client);
                scope.spawn(move || {
                    barrier.wait();
                    client(number)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn one_digest_from_many_clients_is_accepted_from_each_and_stored_once() {
    let mut server = Orlop::start();
    let contents = [noise(1, 5_000), noise(2, 300_000)];
    for bytes in &contents {
        let digest = sha256(bytes);
        at_once(|number| {
            let repository = ["team/app", "team/other"][number as usize % 2];
            if number % 4 < 2 {
                server.push_blob(repository, bytes);
            } else {
                let upload = server.start_upload(repository);
                server.put(&upload, &digest, bytes).is(201);
            }
        });
        for repository in ["team/app", "team/other"] {
            assert_eq!(&server.get(&format!("/v2/{repository}/blobs/{digest}")).is(200).body, bytes);
        }
    }
    let files = server.segment_files();
    assert_eq!(files.len(), 2, "one shared segment, and one of the large blob: {files:?}");
    let facts = server.facts_at_end();
    let count = |table: &str| facts.iter().filter(|fact| fact.starts_with(&format!("{table} "))).count();
    assert_eq!((count("blobs"), count("links"), count("uploads")), (2, 4, 0), "{facts:#?}");
    let segments: Vec<_> = facts.iter().filter(|fact| fact.starts_with("segments ")).collect();
    assert!(
        segments
            .iter()
            .all(|segment| segment.contains("\"live_records\":1,") || segment.contains("\"live_records\":1}")),
        "{segments:#?}"
    );
}

#[test]
fn one_tag_from_many_clients_ends_at_one_of_their_manifests() {
    let mut server = Orlop::start();
    let (config, layer) = (noise(1, 100), noise(2, 100));
    server.push_blob("team/app", &config);
    server.push_blob("team/app", &layer);
    let manifests = at_once(|number| {
        let mut manifest = image(&config, &[&layer]);
        manifest["annotations"] = serde_json::json!({ "client": number.to_string() });
        let manifest = manifest.to_string();
        let answer = server.put_manifest("team/app", "latest", OCI_MANIFEST, &manifest).is(201);
        answer.has("Docker-Content-Digest", &sha256(&manifest));
        manifest
    });
    let body = server.get("/v2/team/app/manifests/latest").is(200).body;
    assert!(manifests.iter().any(|manifest| manifest.as_bytes() == body));
    for manifest in &manifests {
        let path = format!("/v2/team/app/manifests/{}", sha256(manifest));
        assert_eq!(server.get(&path).is(200).body, manifest.as_bytes());
    }
    let facts = server.facts_at_end();
    let count = |table: &str| facts.iter().filter(|fact| fact.starts_with(&format!("{table} "))).count();
    assert_eq!((count("tags"), count("manifest-tags")), (1, 1));
    assert_eq!((count("history"), count("manifests")), (CLIENTS as usize, CLIENTS as usize));
    // The blob of each manifest, the config and the layer.
    assert_eq!(count("blobs"), CLIENTS as usize + 2);
}

#[test]
fn one_repository_and_one_manifest_from_many_clients_come_to_be_once() {
    let mut server = Orlop::start();
    at_once(|number| {
        let tag = format!("v{}", number % 4);
        server.push_image("new/organisation/app", &tag, 7)
    });
    let facts = server.facts_at_end();
    let count = |table: &str| facts.iter().filter(|fact| fact.starts_with(&format!("{table} "))).count();
    for (table, expected) in [("organisations", 1), ("repositories", 1), ("manifests", 1), ("manifest-ids", 1)] {
        assert_eq!(count(table), expected, "{table}");
    }
    assert_eq!((count("tags"), count("blobs"), count("links")), (4, 3, 2));
}
