use std::{
    thread,
    time::{Duration, Instant},
};

use super::{ALGORITHMS, digest};
use crate::harness::{Answer, Orlop, PATIENCE, noise};

fn end_of(begins: usize, bytes: &[u8]) -> String {
    format!("{begins}-{}", (begins + bytes.len()).saturating_sub(1))
}

/// Sends the last chunk in the PUT.
fn put_chunk(server: &Orlop, upload: &str, digest: &str, begins: usize, bytes: &[u8]) -> Answer {
    let range = end_of(begins, bytes);
    server.send("PUT", &format!("{upload}?digest={digest}"), &[("Content-Range", &range)], bytes)
}

#[test]
fn chunks_out_of_order_are_416_and_the_session_goes_on_from_where_it_stands() {
    let server = Orlop::start();
    for algorithm in ALGORITHMS {
        for len in [3_067, 250_000] {
            for last_in_put in [false, true] {
                let bytes = noise(len as u64 + u64::from(last_in_put), len);
                let digest = digest(algorithm, &bytes);
                let chunk_len = len / 3 + 1;
                let answer = server.post("/v2/team/app/blobs/uploads/").is(202).has("Range", "0-0");
                let mut upload = answer.location();
                for (number, chunk) in bytes.chunks(chunk_len).enumerate() {
                    let begins = number * chunk_len;
                    // A chunk too far ahead, or the first one again.
                    let wrong = if begins + chunk_len >= len { 0 } else { begins + chunk_len };
                    let stands = format!("0-{}", begins.saturating_sub(1));
                    let wrong_chunk = &bytes[wrong..(wrong + chunk_len).min(len)];
                    for answer in [
                        server.patch(&upload, wrong, wrong_chunk),
                        put_chunk(&server, &upload, &digest, wrong, wrong_chunk),
                    ] {
                        let answer = answer.refused(416, "BLOB_UPLOAD_INVALID", &format!("has {begins} bytes"));
                        answer.has("Range", &stands).has("Location", &upload);
                    }
                    upload = server.get(&upload).is(204).has("Range", &stands).location();
                    if last_in_put && begins + chunk.len() == len {
                        put_chunk(&server, &upload, &digest, begins, chunk).is(201);
                    } else {
                        let answer = server.patch(&upload, begins, chunk).is(202);
                        upload = answer.has("Range", &format!("0-{}", begins + chunk.len() - 1)).location();
                    }
                }
                if !last_in_put {
                    let path = format!("/v2/team/app/blobs/{digest}");
                    server.put(&upload, &digest, b"").is(201).has("Location", &path);
                }
                assert!(server.get(&format!("/v2/team/app/blobs/{digest}")).is(200).body == bytes);
            }
        }
    }
}

/// The digest that ends a session need not be in the algorithm that began it.
#[test]
fn any_algorithm_ends_a_session_that_announced_any() {
    let mut server = Orlop::start();
    let announced = ["", "?digest-algorithm=sha256", "?digest-algorithm=sha512"];
    for (number, announced) in announced.into_iter().enumerate() {
        for algorithm in ALGORITHMS {
            for len in [0, 1_000, 200_000] {
                let start = || server.post(&format!("/v2/team/app/blobs/uploads/{announced}")).is(202).location();
                let bytes = noise(number as u64, len);
                let digest = digest(algorithm, &bytes);
                let path = format!("/v2/team/app/blobs/{digest}");
                let (first, last) = bytes.split_at(len / 2);
                let in_one = start();
                server.put(&in_one, &digest, &bytes).is(201).has("Docker-Content-Digest", &digest);
                assert!(server.get(&path).is(200).body == bytes);
                server.delete(&path).is(202);
                let in_two = start();
                server.send("PATCH", &in_two, &[], first).is(202);
                server.put(&in_two, &digest, last).is(201);
                assert!(server.get(&path).is(200).body == bytes);
            }
        }
    }
    // After a restart the bytes are read again, in whichever algorithm.
    let bytes = noise(9, 200_000);
    let upload = server.post("/v2/team/app/blobs/uploads/?digest-algorithm=sha512").is(202).location();
    server.patch(&upload, 0, &bytes[..150_000]).is(202);
    server.kill();
    server.start_again();
    server.get(&upload).is(204).has("Range", "0-149999");
    server.put(&upload, &digest(ALGORITHMS[1], &bytes), &bytes[150_000..]).is(201);
}

#[test]
fn algorithms_that_are_not_known_are_refused_before_anything_is_sent() {
    let server = Orlop::start_with(&[("registry.uploads_max", "1")]);
    for name in ["md5", "sha384", "SHA512", "", "sha512%20", "%00"] {
        let shown = name.replace("%20", " ").replace("%00", "\0");
        for query in
            [format!("digest-algorithm={name}"), format!("mount=sha256:{}&digest-algorithm={name}", "0".repeat(64))]
        {
            let answer = server.post(&format!("/v2/team/app/blobs/uploads/?{query}"));
            let message = answer.refused(400, "DIGEST_INVALID", "use sha256 or sha512").json();
            assert!(message["errors"][0]["message"].as_str().unwrap().contains(&format!("\"{shown}\"")));
        }
    }
    // None of them left a session.
    server.start_upload("team/app");
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused_on_every_way_in() {
    let server = Orlop::start();
    for algorithm in ALGORITHMS {
        for len in [3_067, 200_000] {
            let (bytes, other) = (noise(1, len), digest(algorithm, noise(2, len)));
            let (first, last) = bytes.split_at(len / 2);
            let upload = || server.start_upload("team/app");
            let patched = |sent: &[u8]| {
                let upload = upload();
                server.patch(&upload, 0, sent).is(202).location()
            };
            let answers = [
                server.send("POST", &format!("/v2/team/app/blobs/uploads/?digest={other}"), &[], &bytes),
                server.put(&upload(), &other, &bytes),
                server.put(&patched(&bytes), &other, b""),
                put_chunk(&server, &patched(first), &other, first.len(), last),
            ];
            for answer in answers {
                answer.refused(400, "DIGEST_INVALID", &other);
                server.get(&format!("/v2/team/app/blobs/{other}")).is(404);
                server.get(&format!("/v2/team/app/blobs/{}", digest(algorithm, &bytes))).is(404);
            }
        }
    }
}

#[test]
fn ranges_of_chunks_that_say_nothing_or_contradict_themselves_are_refused() {
    let server = Orlop::start();
    let upload = server.start_upload("team/app");
    let target = format!("{upload}?digest={}", digest(ALGORITHMS[0], b"0123456789"));
    let ranges = [
        "",
        "ten",
        "0",
        "-9",
        "0-",
        "9-0",
        "0-9-10",
        "bytes=0-9",
        "bytes 0-9/9",
        "bytes 0-9/x",
        "bytes */10",
        "+0-9",
        "0-é",
        "0-18446744073709551616",
        "0-8",
        "0-10",
    ];
    for range in ranges {
        for (method, path) in [("PATCH", &upload), ("PUT", &target)] {
            let answer = server.send(method, path, &[("Content-Range", range)], "0123456789");
            answer.refused(400, "SIZE_INVALID", "Content-Range");
        }
    }
    let lines = [("Content-Range", "0-9"), ("Content-Range", "0-9")];
    server.send("PATCH", &upload, &lines, "0123456789").refused(400, "SIZE_INVALID", "one Content-Range");
    server.get(&upload).is(204).has("Range", "0-0");
    for (begins, range) in ["0-1", "bytes 2-3/*", "bytes 4-5/10", "bytes 6-7"].into_iter().enumerate() {
        let chunk = &b"0123456789"[2 * begins..][..2];
        server.send("PATCH", &upload, &[("Content-Range", range)], chunk).is(202);
    }
    server.send("PUT", &target, &[("Content-Range", "8-9")], "89").is(201);
}

#[test]
fn sessions_that_nobody_writes_to_expire() {
    let server = Orlop::start_with(&[("registry.upload_idle", "2s")]);
    let [silent, small, large] = [(); 3].map(|()| server.start_upload("team/app"));
    let kept = server.start_upload("team/app");
    server.patch(&small, 0, &noise(1, 1_000)).is(202);
    server.patch(&large, 0, &noise(1, 200_000)).is(202);
    assert_eq!(server.segment_files().len(), 1);
    let (begun, mut sent) = (Instant::now(), 0);
    while [&silent, &small, &large].iter().any(|upload| server.get(upload).status != 404) {
        assert!(begun.elapsed() < PATIENCE, "the sessions are still there");
        server.patch(&kept, sent, &[7; 10]).is(202);
        sent += 10;
        thread::sleep(Duration::from_millis(100));
    }
    server.get(&silent).refused(404, "BLOB_UPLOAD_UNKNOWN", "expired");
    server.patch(&large, 200_000, b"more").refused(404, "BLOB_UPLOAD_UNKNOWN", "expired");
    assert!(server.segment_files().is_empty(), "what they held is gone");
    server.put(&kept, &digest(ALGORITHMS[0], vec![7; sent]), b"").is(201);
}
