use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{OCI_INDEX, Orlop, PATIENCE, index, noise, sha256};

/// Windows that a test can wait for.
const SHORT: [(&str, &str); 4] = [
    ("registry.grace", "1s"),
    ("registry.retention_window", "0s"),
    ("collect.interval", "100ms"),
    ("collect.reader_patience", "100ms"),
];

/// Files below a directory that have some bytes, raw: RocksDB's included.
fn files_with(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_deleted_leaves_the_disk_by_itself_and_what_is_kept_stays() {
    let mut server = Orlop::start_with(&SHORT);
    let large = noise(77, 3 << 20);
    server.push_blob("team/loose", &large);
    let kept = server.push_image("team/app", "kept", 1);
    let children: Vec<String> = (2..6).map(|seed| server.push_image("team/app", &format!("t{seed}"), seed)).collect();
    let list: Vec<&str> = children.iter().map(String::as_str).collect();
    server.put_manifest("team/app", "list", OCI_INDEX, &index(&list).to_string()).is(201);
    assert_eq!(files_with(&server.data(), &noise(3, 100)).len(), 1);
    until("a blob that no manifest names is still there", || {
        server.head(&format!("/v2/team/loose/blobs/{}", sha256(&large))).status == 404
    });
    until("its bytes are still there", || files_with(&server.data(), &large[..100]).is_empty());
    for tag in ["t2", "t3", "t4", "t5"] {
        server.delete(&format!("/v2/team/app/manifests/{tag}")).is(202);
    }
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(files_with(&server.data(), &noise(3, 100)).len(), 1, "the index names its image");
    server.delete("/v2/team/app/manifests/list").is(202);
    for seed in 2..6 {
        let (config, layer) = (noise(seed, 100), noise(seed + 1_000_000, 1_000));
        until("what was deleted is still on the disk", || {
            files_with(&server.data(), &config).is_empty() && files_with(&server.data(), &layer[..100]).is_empty()
        });
    }
    assert_eq!(files_with(&server.data(), children[0].as_bytes()), [""; 0]);
    assert_eq!(server.get("/v2/team/app/manifests/kept").is(200).body, kept.as_bytes());
    assert_eq!(server.get(&format!("/v2/team/app/blobs/{}", sha256(noise(1, 100)))).is(200).body, noise(1, 100));
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], serde_json::json!(["team/app"]));
    let facts = server.facts_at_end();
    let rows = |table: &str| facts.iter().filter(|line| line.starts_with(table)).count();
    assert_eq!((rows("manifests "), rows("links "), rows("dead ")), (1, 2, 0), "{facts:#?}");
    assert!(rows("reports ") > 0);
}

#[test]
fn it_ends_soon_while_it_collects_and_goes_on_after_a_kill() {
    let mut server = Orlop::start_with(&SHORT);
    for seed in 0..150 {
        server.push_blob("team/loose", noise(seed, 3_000));
    }
    thread::sleep(Duration::from_millis(1_000));
    server.terminate();
    let begun = Instant::now();
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.start_again();
    thread::sleep(Duration::from_millis(150));
    server.kill();
    server.start_again();
    until("it does not go on", || (0..150).all(|seed| files_with(&server.data(), &noise(seed, 100)).is_empty()));
    until("the repository is still there", || {
        server.get("/v2/_catalog").json()["repositories"] == serde_json::json!([])
    });
}
