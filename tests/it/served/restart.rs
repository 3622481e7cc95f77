use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{Connection, OCI_INDEX, Orlop, PATIENCE, index, noise, sha256};

/// Everything that clients can see of a store.
fn seen(server: &Orlop) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut see = |path: String| {
        let answer = server.get(&path);
        assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        seen.push((format!("{path} {} {:?}", answer.status, answer.header("content-type")), answer.body));
    };
    see("/v2/_catalog".to_owned());
    for repository in ["team/app", "team/other"] {
        see(format!("/v2/{repository}/tags/list"));
        for reference in ["one", "two", "list", "deleted"] {
            see(format!("/v2/{repository}/manifests/{reference}"));
        }
        for seed in 1..4 {
            for bytes in [noise(seed, 100), noise(seed + 1_000_000, 1_000), noise(seed, 300_000)] {
                see(format!("/v2/{repository}/blobs/{}", sha256(&bytes)));
            }
        }
    }
    seen
}

fn fill(server: &Orlop) {
    let one = server.push_image("team/app", "one", 1);
    let two = server.push_image("team/app", "two", 2);
    server.put_manifest("team/app", "list", OCI_INDEX, &index(&[&one, &two]).to_string()).is(201);
    server.push_image("team/app", "deleted", 3);
    server.delete("/v2/team/app/manifests/deleted").is(202);
    for seed in 1..4 {
        server.push_blob("team/other", noise(seed, 300_000));
    }
    server.delete(&format!("/v2/team/other/blobs/{}", sha256(noise(3, 300_000)))).is(202);
    let digest = sha256(noise(1, 100));
    server.post(&format!("/v2/team/other/blobs/uploads/?mount={digest}&from=team/app")).is(201);
}

#[test]
fn what_was_acknowledged_survives_kills_ends_and_the_loss_of_the_index() {
    let mut server = Orlop::start();
    fill(&server);
    let before = seen(&server);
    assert_eq!(before.iter().filter(|(line, _)| line.contains(" 404 ")).count(), 14, "{before:#?}");
    server.kill();
    server.start_again();
    assert!(seen(&server) == before, "after a kill");
    let facts = server.facts();
    assert!(seen(&server) == before, "after an orderly end");
    assert_eq!(server.facts_at_end(), facts);
    // Without RocksDB there is none, and every start is one without an index.
    let _ = fs::remove_dir_all(server.data().join("index"));
    server.start_again();
    assert!(seen(&server) == before, "after the loss of the index");
    assert_eq!(server.facts_at_end(), facts);
}

#[test]
fn a_large_upload_goes_on_after_a_kill_where_its_last_patch_ended() {
    let mut server = Orlop::start();
    let bytes = noise(1, 3 << 20);
    let (first, second) = (1 << 20, 2 << 20);
    let upload = server.start_upload("team/app");
    server.patch(&upload, 0, &bytes[..first]).is(202);
    server.kill();
    server.start_again();
    server.get(&upload).is(204).has("Range", &format!("0-{}", first - 1));
    server.get(&upload.replace("team/app", "team/other")).refused(404, "BLOB_UPLOAD_UNKNOWN", "");
    server.patch(&upload, first + 1, &bytes[first + 1..second]).is(416);
    server.patch(&upload, first, &bytes[first..second]).is(202);
    // A kill in the middle of a PATCH keeps at least what the one before had.
    let mut connection = server.connect();
    connection.say_head("PATCH", &upload, &[("Content-Length", &(bytes.len() - second).to_string())]);
    connection.say(&bytes[second..bytes.len() - 100]);
    server.kill();
    server.start_again();
    let has = server.upload_last_byte(&upload) + 1;
    assert!((second..bytes.len()).contains(&has), "{has}");
    server.patch(&upload, has, &bytes[has..]).is(202);
    server.put(&upload, &sha256(&bytes), b"").is(201);
    server.kill();
    server.start_again();
    server.get(&upload).refused(404, "BLOB_UPLOAD_UNKNOWN", "");
    assert!(server.get(&format!("/v2/team/app/blobs/{}", sha256(&bytes))).is(200).body == bytes);
}

#[test]
fn a_small_upload_is_gone_after_a_kill_or_tells_what_is_there() {
    let mut server = Orlop::start();
    let bytes = noise(1, 1_000);
    let upload = server.start_upload("team/app");
    server.patch(&upload, 0, &bytes).is(202);
    server.kill();
    server.start_again();
    match server.get(&upload).status {
        404 => {}
        _ => drop(server.put(&upload, &sha256(&bytes), b"").is(201)),
    }
    server.push_blob("team/app", &bytes);
}

#[test]
fn a_cancelled_upload_stays_cancelled() {
    let mut server = Orlop::start();
    let upload = server.start_upload("team/app");
    server.patch(&upload, 0, &noise(1, 200_000)).is(202);
    server.delete(&upload).is(204);
    server.kill();
    server.start_again();
    server.get(&upload).refused(404, "BLOB_UPLOAD_UNKNOWN", "");
    assert!(server.segment_files().is_empty());
}

#[test]
fn sigterm_lets_a_slow_upload_finish() {
    let mut server = Orlop::start();
    let bytes = noise(1, 300_000);
    let digest = sha256(&bytes);
    let mut idle = server.connect();
    let mut slow = server.connect();
    let headers = [("Expect", "100-continue"), ("Content-Length", "300000")];
    slow.say_head("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}"), &headers);
    // The request is under way. That another one was answered would not say so: that may be on another thread.
    slow.answer().is(100);
    slow.say(&bytes[..100_000]);
    server.terminate();
    let begun = Instant::now();
    while Connection::try_open(server.address()).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it still accepts connections");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(idle.is_closed(), "an idle connection is ended");
    for part in bytes[100_000..].chunks(50_000) {
        thread::sleep(Duration::from_millis(50));
        slow.say(part);
    }
    slow.answer().is(201);
    assert_eq!(server.wait(), Some(0));
    server.start_again();
    assert!(server.get(&format!("/v2/team/app/blobs/{digest}")).is(200).body == bytes);
    assert_eq!(server.get("/v2/_catalog").json(), json!({ "repositories": ["team/app"] }));
}

#[test]
fn sigterm_cuts_an_upload_that_outlasts_the_grace_and_keeps_what_came() {
    let mut server = Orlop::start_with(&[("http.shutdown_grace", "300ms")]);
    let bytes = noise(1, 300_000);
    let upload = server.start_upload("team/app");
    server.patch(&upload, 0, &bytes[..100_000]).is(202);
    let mut slow = server.connect();
    slow.say_head("PATCH", &upload, &[("Content-Length", "200000")]).say(&bytes[100_000..200_000]);
    server.get("/v2/").is(200);
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    server.start_again();
    let has = server.upload_last_byte(&upload) + 1;
    assert!((100_000..=200_000).contains(&has), "{has}");
    server.patch(&upload, has, &bytes[has..]).is(202);
    server.put(&upload, &sha256(&bytes), b"").is(201);
}
