use std::{
    thread,
    time::{Duration, Instant},
};

use super::leaves_no_trace;
use crate::harness::{Orlop, PATIENCE, noise, sha256};

/// Lengths of content that is buffered, and of content that gets a segment of its own.
const LENGTHS: [usize; 2] = [1_000, 200_000];

/// Waits until an upload says that it has `len` bytes: the server learns of a broken connection when it gets to it.
fn wait_for(server: &Orlop, upload: &str, len: usize) {
    let begun = Instant::now();
    while server.upload_last_byte(upload) + 1 != len {
        let has = server.upload_last_byte(upload) + 1;
        assert!(begun.elapsed() < PATIENCE, "the upload has {has} bytes, not {len}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn id(upload: &str) -> &str {
    upload.rsplit('/').next().unwrap()
}

/// Ends an upload that has the first `len` of `bytes`, and reads what became of it.
fn finish(server: &Orlop, upload: &str, bytes: &[u8], len: usize) {
    let digest = sha256(bytes);
    if len < bytes.len() {
        server.patch(upload, len, &bytes[len..]).is(202).has("Range", &format!("0-{}", bytes.len() - 1));
    }
    server.put(upload, &digest, b"").is(201);
    assert_eq!(server.get(&format!("/v2/team/app/blobs/{digest}")).is(200).body, bytes);
}

#[test]
fn unknown_finished_cancelled_and_foreign_sessions_are_not_known() {
    let server = Orlop::start();
    for len in LENGTHS {
        let bytes = noise(1, len);
        let digest = sha256(&bytes);
        let finished = server.start_upload("team/app");
        server.put(&finished, &digest, &bytes).is(201);
        let cancelled = server.start_upload("team/app");
        server.patch(&cancelled, 0, &bytes).is(202);
        server.delete(&cancelled).is(204);
        let own = server.start_upload("team/app");
        server.patch(&own, 0, &bytes[..500]).is(202);
        let foreign = own.replace("team/app", "other/app");
        let near = own.replace("team/app", "team");
        let gone = [
            finished.as_str(),
            &cancelled,
            &foreign,
            &near,
            "/v2/team/app/blobs/uploads/00000000000000000000000000000000",
            "/v2/team/app/blobs/uploads/1",
            "/v2/team/app/blobs/uploads/%2e%2e",
            &own.to_uppercase().replace("/V2/TEAM/APP/BLOBS/UPLOADS", "/v2/team/app/blobs/uploads"),
        ];
        for upload in gone {
            let named = id(upload).replace("%2e", ".");
            server.get(upload).refused(404, "BLOB_UPLOAD_UNKNOWN", &named);
            server.head(upload).is(404);
            server.patch(upload, 500, &bytes).refused(404, "BLOB_UPLOAD_UNKNOWN", &named);
            server.send("PATCH", upload, &[], &bytes).refused(404, "BLOB_UPLOAD_UNKNOWN", &named);
            server.put(upload, &digest, &bytes).refused(404, "BLOB_UPLOAD_UNKNOWN", &named);
            server.put(upload, &digest, b"").refused(404, "BLOB_UPLOAD_UNKNOWN", &named);
            server.delete(upload).refused(404, "BLOB_UPLOAD_UNKNOWN", &named);
        }
        finish(&server, &own, &bytes, 500);
        server.get("/v2/other/app/tags/list").is(404);
    }
}

#[test]
fn a_chunk_out_of_order_is_416_and_the_session_goes_on() {
    let server = Orlop::start();
    for len in LENGTHS {
        let bytes = noise(2, len);
        let half = len / 2;
        let upload = server.start_upload("team/app");
        server.patch(&upload, 1, &bytes[1..half]).refused(416, "BLOB_UPLOAD_INVALID", "byte 1");
        server.patch(&upload, 0, &bytes[..half]).is(202);
        let range = format!("0-{}", half - 1);
        for begins in [0, 1, half - 1, half + 1, len, 1 << 40] {
            let answer = server.patch(&upload, begins, &bytes[half..]);
            let answer = answer.refused(416, "BLOB_UPLOAD_INVALID", &format!("byte {begins}"));
            answer.has("Range", &range).has("Location", &upload);
            let last = format!("{begins}-{}", begins + len - half - 1);
            let path = format!("{upload}?digest={}", sha256(&bytes));
            let answer = server.send("PUT", &path, &[("Content-Range", &last)], &bytes[half..]);
            answer.refused(416, "BLOB_UPLOAD_INVALID", &half.to_string()).has("Range", &range);
        }
        server.get(&upload).is(204).has("Range", &range).has("Location", &upload);
        finish(&server, &upload, &bytes, half);
    }
}

#[test]
fn ranges_that_say_nothing_or_lie_are_refused() {
    let server = Orlop::start();
    let bytes = noise(3, 100);
    let upload = server.start_upload("team/app");
    let cases = [
        ("x", "Content-Range"),
        ("10-5", "Content-Range"),
        ("-5", "Content-Range"),
        ("0-", "Content-Range"),
        ("bytes=0-99", "Content-Range"),
        ("0-99999999999999999999", "Content-Range"),
        ("0-98", "Content-Length is 100"),
        ("0-100", "Content-Length is 100"),
        ("bytes 0-100/101", "Content-Length is 100"),
    ];
    for (range, named) in cases {
        server.send("PATCH", &upload, &[("Content-Range", range)], &bytes).refused(400, "SIZE_INVALID", named);
        let path = format!("{upload}?digest={}", sha256(&bytes));
        server.send("PUT", &path, &[("Content-Range", range)], &bytes).refused(400, "SIZE_INVALID", named);
    }
    server.get(&upload).is(204).has("Range", "0-0");
    finish(&server, &upload, &bytes, 0);
}

#[test]
fn put_without_digest_is_refused_and_the_session_goes_on() {
    let server = Orlop::start();
    for len in LENGTHS {
        let bytes = noise(4, len);
        let upload = server.start_upload("team/app");
        server.patch(&upload, 0, &bytes[..600]).is(202);
        for query in ["", "?", "?digest", "?digest=", "?Digest=sha256:00", "?x=1"] {
            let path = format!("{upload}{query}");
            server.send("PUT", &path, &[], &bytes[600..]).refused(400, "DIGEST_INVALID", "digest");
        }
        server.get(&upload).is(204).has("Range", "0-599");
        finish(&server, &upload, &bytes, 600);
    }
}

#[test]
fn what_came_of_an_aborted_body_is_kept_and_the_upload_can_be_resumed() {
    let server = Orlop::start();
    for (seed, len) in [(5, 1_000), (6, 200_000), (7, 3 << 20)] {
        let bytes = noise(seed, len);
        let (digest, came) = (sha256(&bytes), len / 3);
        let lens = [("Content-Length", len.to_string())];
        let announced: Vec<(&str, &str)> = lens.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for method in ["PATCH", "PUT"] {
            let upload = server.start_upload("team/app");
            let path = if method == "PUT" { format!("{upload}?digest={digest}") } else { upload.clone() };
            // The connection is dropped with the body unfinished.
            server.connect().say_head(method, &path, &announced).say(&bytes[..came]);
            wait_for(&server, &upload, came);
            // The same in the chunked coding, in the middle of a chunk.
            let mut connection = server.connect();
            connection.say_head(method, &path, &[("Transfer-Encoding", "chunked")]);
            connection.say_chunk(&bytes[came..came + 100]).say(b"ff\r\n").say(&bytes[came + 100..came + 200]);
            drop(connection);
            wait_for(&server, &upload, came + 200);
            // A client that waits for its answer gets one.
            let mut connection = server.connect();
            connection.say_head(method, &path, &announced).say(&bytes[came + 200..came + 300]).end();
            if let Ok(answer) = connection.try_answer(false) {
                answer.refused(400, "SIZE_INVALID", "broke off");
            }
            wait_for(&server, &upload, came + 300);
            finish(&server, &upload, &bytes, came + 300);
        }
    }
}

#[test]
fn an_aborted_single_request_leaves_nothing() {
    let bytes = noise(8, 300_000);
    leaves_no_trace(&[], |server| {
        for came in [0, 100, 299_999] {
            let path = format!("/v2/team/app/blobs/uploads/?digest={}", sha256(&bytes));
            let mut connection = server.connect();
            connection.say_head("POST", &path, &[("Content-Length", "300000")]).say(&bytes[..came]).end();
            if let Ok(answer) = connection.try_answer(false) {
                answer.refused(400, "SIZE_INVALID", "broke off");
            }
        }
        let manifest = server.get("/v2/team/app/manifests/latest").is(200).body;
        let mut connection = server.connect();
        let len = (manifest.len() + 1).to_string();
        let headers = [("Content-Length", len.as_str())];
        connection.say_head("PUT", "/v2/team/app/manifests/short", &headers).say(&manifest).end();
        if let Ok(answer) = connection.try_answer(false) {
            answer.refused(400, "SIZE_INVALID", "broke off");
        }
        server.get("/v2/team/app/manifests/short").is(404);
        let begun = Instant::now();
        while server.segment_files().len() > 1 && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
    });
}

/// The handler of a request whose client is gone is dropped wherever it stands. It used to forget its session, which
/// counted as open for a day.
#[test]
fn clients_that_go_away_leave_no_session_behind() {
    let server = Orlop::start_with(&[("registry.uploads_max", "1")]);
    let bytes = noise(15, 3 << 20);
    let path = format!("/v2/team/app/blobs/uploads/?digest={}", sha256("other bytes"));
    let whole = [bytes.len(); 100];
    for came in whole.into_iter().chain([bytes.len() - 1, 2 << 20, 1]) {
        let len = bytes.len().to_string();
        server.connect().say_head("POST", &path, &[("Content-Length", &len)]).say(&bytes[..came]);
        let begun = Instant::now();
        loop {
            let answer = server.post("/v2/team/app/blobs/uploads/");
            if answer.status == 202 {
                server.delete(&answer.location()).is(204);
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the session of a client that went away is still open: {answer:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_body_longer_or_shorter_than_its_range_is_refused_and_keeps_what_was_announced() {
    let server = Orlop::start();
    for len in LENGTHS {
        let bytes = noise(9, len);
        // What the range announces, what comes, what the session has then.
        for (announced, comes, named) in [(500, 501, "longer"), (500, 900, "longer"), (501, 500, "500 bytes")] {
            let upload = server.start_upload("team/app");
            let range = format!("0-{}", announced - 1);
            let mut connection = server.connect();
            let headers = [("Transfer-Encoding", "chunked"), ("Content-Range", range.as_str())];
            connection.say_head("PATCH", &upload, &headers);
            connection.say_chunk(&bytes[..400]).say_chunk(&bytes[400..comes]).say_chunk(b"");
            connection.answer().refused(400, "SIZE_INVALID", named);
            wait_for(&server, &upload, 500);
            finish(&server, &upload, &bytes, 500);
        }
    }
}

#[test]
fn bytes_after_the_announced_length_are_no_part_of_the_body() {
    let server = Orlop::start();
    let bytes = noise(10, 1_000);
    let upload = server.start_upload("team/app");
    let mut connection = server.connect();
    let head = format!("PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n");
    connection.say(head).say(&bytes[..800]);
    connection.answer().is(202).has("Range", "0-499");
    if let Ok(answer) = connection.try_answer(false) {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    finish(&server, &upload, &bytes, 500);
}

#[test]
fn a_session_has_one_writer_at_a_time() {
    let server = Orlop::start();
    for len in LENGTHS {
        let bytes = noise(11, len);
        let upload = server.start_upload("team/app");
        let mut first = server.connect();
        first.say_head("PATCH", &upload, &[("Content-Length", &len.to_string())]);
        // The body is taken in steps of up to a MiB; one that short is written when it is whole. Until then the session
        // belongs to nobody, so the two writers race, and each byte is taken from only one of them.
        first.say(&bytes[..len - 1]);
        server.patch(&upload, 0, &bytes).is(202);
        let refused = first.say(&bytes[len - 1..]).answer();
        assert!(matches!(refused.status, 202 | 409 | 416), "{refused:?}");
        let has = server.upload_last_byte(&upload) + 1;
        assert_eq!(has, if refused.status == 202 { 2 * len } else { len });
        server.delete(&upload).is(204);
    }
}

#[test]
fn a_session_being_written_to_cannot_be_finished_or_cancelled() {
    let server = Orlop::start();
    let bytes = noise(12, 5 << 20);
    let upload = server.start_upload("team/app");
    let mut writer = server.connect();
    writer.say_head("PATCH", &upload, &[("Content-Length", &bytes.len().to_string())]);
    // The body is written step by step; the file says that the first step was, so the session has its writer.
    writer.say(&bytes[..3 << 20]);
    let begun = Instant::now();
    while server.segment_files().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nothing is written");
        thread::sleep(Duration::from_millis(5));
    }
    server.put(&upload, &sha256("x"), b"x").refused(409, "BLOB_UPLOAD_INVALID", id(&upload));
    server.delete(&upload).refused(409, "BLOB_UPLOAD_INVALID", id(&upload));
    server.patch(&upload, 0, b"x").refused(409, "BLOB_UPLOAD_INVALID", id(&upload));
    server.get(&upload).is(204);
    writer.say(&bytes[3 << 20..]).answer().is(202);
    finish(&server, &upload, &bytes, bytes.len());
}

#[test]
fn a_blob_beyond_the_limit_is_refused_and_the_session_goes_on() {
    let server = Orlop::start_with(&[("registry.blob_bytes_max", "3000")]);
    let bytes = noise(13, 3_000);
    let upload = server.start_upload("team/app");
    server.patch(&upload, 0, &bytes[..1_000]).is(202);
    server.send("PATCH", &upload, &[], noise(14, 3_001)).refused(413, "SIZE_INVALID", "3000");
    server.send("PATCH", &upload, &[], noise(14, 2_001)).refused(413, "SIZE_INVALID", "3000");
    let mut connection = server.connect();
    connection.say_head("PATCH", &upload, &[("Transfer-Encoding", "chunked")]);
    connection.say_chunk(&noise(14, 5_000)).say_chunk(b"").answer().refused(413, "SIZE_INVALID", "3000");
    server.get(&upload).is(204).has("Range", "0-999");
    let path = format!("/v2/team/app/blobs/uploads/?digest={}", sha256(noise(14, 4_000)));
    server.send("POST", &path, &[], noise(14, 4_000)).refused(413, "SIZE_INVALID", "3000");
    finish(&server, &upload, &bytes, 1_000);
}

#[test]
fn more_uploads_than_allowed_are_told_to_come_again() {
    let server = Orlop::start_with(&[("registry.uploads_max", "2")]);
    let uploads = [server.start_upload("a"), server.start_upload("b")];
    let answer = server.post("/v2/c/blobs/uploads/").refused(429, "TOOMANYREQUESTS", "2 uploads");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    server.delete(&uploads[0]).is(204);
    server.push_blob("c", b"now there is room");
}
