use std::{
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Connection, Orlop, PATIENCE, noise, sha256};

/// Few places, so that one that is not given back is missed; short times, so that the test is.
const SETTINGS: &[(&str, &str)] = &[
    ("http.connections_max", "8"),
    ("http.header_timeout", "400ms"),
    ("http.body_window", "400ms"),
    ("http.connection_wait", "20s"),
    ("registry.uploads_max", "40"),
];
const UPLOADS_MAX: usize = 40;
/// More than the buffers of a connection hold.
const BIG_LEN: usize = 30 << 20;

/// Where a client stops: what it has sent by then.
fn phases(upload: &str, blob: &str) -> Vec<(&'static str, String)> {
    let head = |request: &str, len: usize| format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
    let chunked = |request: &str| format!("{request} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let other = sha256("never all of it");
    let (part, manifest) = ("x".repeat(5_000), "PUT /v2/team/app/manifests/slow");
    let post = format!("POST /v2/team/app/blobs/uploads/?digest={other}");
    let patch = format!("PATCH {upload}");
    vec![
        ("before a request", String::new()),
        ("in the request line", "GET /v2/team/a".to_owned()),
        ("in the header", "GET /v2/ HTTP/1.1\r\nHost: x\r\nAccept: app".to_owned()),
        ("before the last line of the head", "GET /v2/ HTTP/1.1\r\nHost: x\r\n".to_owned()),
        ("after an answered request", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("in the second request", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/".to_owned()),
        ("before the body of a manifest", head(manifest, 500)),
        ("in the body of a manifest", head(manifest, 500) + "{\"schemaVersion\":"),
        ("in a manifest of unknown length", chunked(manifest) + "5\r\n{\"sch"),
        ("before the body of a blob", head(&post, 9_000)),
        ("in the body of a blob", head(&post, 9_000) + &part),
        ("in a chunk's size", chunked(&post) + "13"),
        ("in a chunk", chunked(&post) + "ffff\r\n" + &part),
        ("before the last chunk", chunked(&post) + "3\r\nxxx\r\n"),
        ("in the trailers", chunked(&post) + "3\r\nxxx\r\n0\r\nX-Trailer: "),
        ("before the body of a chunk of an upload", head(&patch, 9_000)),
        (
            "waiting to be told to go on",
            format!("{patch} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"),
        ),
        ("in the answer", format!("GET /v2/team/big/blobs/{blob} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("in many answers", format!("GET /v2/team/big/blobs/{blob} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(20)),
    ]
}

/// Eight clients at once are served, which takes all places.
fn all_places_are_free(server: &Orlop, after: &str) {
    let mut connections: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.say("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    for connection in &mut connections {
        let answer = connection.try_answer(false);
        assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{after}: {answer:?}");
    }
}

/// Stops `clients` clients in each phase, by `stop`; all places come back each time, and every stored fact stays as it was.
fn check(clients: usize, stop: impl Fn(Connection) -> Option<Connection>) {
    let mut server = Orlop::start_with(SETTINGS);
    server.push_image("team/app", "latest", 1);
    let blob = server.push_blob("team/big", noise(5, BIG_LEN));
    let before = server.facts();
    let upload = server.start_upload("team/app");
    // Kept to the end: those of one phase have to lose their places before the ones of the next can be served.
    let mut stopped = Vec::new();
    for (phase, sent) in phases(&upload, &blob) {
        for _ in 0..clients {
            let mut connection = server.connect();
            connection.say(&sent);
            stopped.extend(stop(connection));
        }
        server.get("/v2/").is(200);
        all_places_are_free(&server, phase);
    }
    thread::sleep(Duration::from_secs(1));
    for connection in &mut stopped {
        assert!(connection.rest() < BIG_LEN, "an answer that nobody read came whole");
    }
    server.get(&upload).is(204).has("Range", "0-0");
    server.delete(&upload).is(204);
    no_session_is_left(&server);
    assert_eq!(server.facts_at_end(), before);
}

#[test]
fn a_client_that_goes_away_in_any_phase_leaves_nothing_behind() {
    check(20, |connection| {
        drop(connection);
        None
    });
}

#[test]
fn a_client_that_stalls_in_any_phase_is_ended_and_others_are_served_meanwhile() {
    // One place is left, for those who are served meanwhile; the others come back although nobody hangs up.
    check(7, Some);
}

/// Waits until no client that is gone has a session: then all that there may be can be opened.
fn no_session_is_left(server: &Orlop) {
    let begun = Instant::now();
    loop {
        let uploads: Vec<_> = (0..UPLOADS_MAX).map(|_| server.post("/v2/team/app/blobs/uploads/")).collect();
        let opened: Vec<_> = uploads.iter().filter(|answer| answer.status == 202).collect();
        for answer in &opened {
            server.delete(&answer.location()).is(204);
        }
        if opened.len() == UPLOADS_MAX {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "sessions of clients that are gone are still open");
        thread::sleep(Duration::from_millis(20));
    }
}
