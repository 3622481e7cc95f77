use super::leaves_no_trace;
use crate::harness::{Orlop, noise, sha256};

/// Sends a text as it stands, line ends made those of HTTP; the status, or `None` when there was no answer.
fn status(server: &Orlop, text: &str) -> Option<u16> {
    let mut connection = server.connect();
    connection.say(text.replace('\n', "\r\n"));
    connection.try_answer(text.starts_with("HEAD")).ok().map(|answer| answer.status)
}

#[test]
fn routes_that_do_not_exist_are_told_so() {
    leaves_no_trace(&[], |server| {
        let paths = [
            "/",
            "/v1/",
            "/v2x",
            "/v2/team",
            "/v2/team/app",
            "/v2/_catalog/",
            "/v2/team/app/tags",
            "/v2/team/app/tags/",
            "/v2/team/app/tags/list/",
            "/v2/team/app/manifests/a/b",
            "/v2/team/app/blobs",
            "/favicon.ico",
            "//v2/",
            "/v2/../v2/",
            "/V2/",
            "/v2/%5fcatalog",
            "/v2/team/app/%62lobs/uploads/",
        ];
        for path in paths {
            for method in ["GET", "PUT", "POST", "DELETE"] {
                server.send(method, path, &[], "").refused(404, "UNSUPPORTED", path);
            }
        }
        server.get("/v2/").is(200).has("Docker-Distribution-Api-Version", "registry/2.0");
        server.get("/v2").is(200);
    });
}

#[test]
fn methods_that_a_route_lacks_are_refused_with_those_that_it_has() {
    let digest = sha256("x");
    let routes = [
        ("/v2/".to_owned(), "GET, HEAD"),
        ("/v2/_catalog".to_owned(), "GET, HEAD"),
        ("/v2/team/app/tags/list".to_owned(), "GET, HEAD"),
        ("/v2/team/app/manifests/latest".to_owned(), "GET, HEAD, PUT, DELETE"),
        (format!("/v2/team/app/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/team/app/blobs/uploads/".to_owned(), "POST"),
        ("/v2/team/app/blobs/uploads/1".to_owned(), "GET, HEAD, PATCH, PUT, DELETE"),
    ];
    leaves_no_trace(&[], |server| {
        for (path, allowed) in routes {
            for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"] {
                if !allowed.split(", ").any(|allowed| allowed == method) {
                    let answer = server.send(method, &path, &[], "");
                    answer.refused(405, "UNSUPPORTED", allowed).has("Allow", allowed);
                }
            }
        }
    });
}

#[test]
fn heads_that_cannot_be_read_are_refused() {
    let flood: String = (0..200).map(|n| format!("X-{n}: y\n")).collect();
    let cases: Vec<(&str, String, &[u16])> = vec![
        ("no HTTP", "hello\n\n".to_owned(), &[400]),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\n\n".to_owned(), &[400]),
        ("HTTP/3.0", "GET /v2/ HTTP/3.0\nHost: x\n\n".to_owned(), &[400, 505]),
        ("space in a name", "GET /v2/ HTTP/1.1\nHo st: x\n\n".to_owned(), &[400]),
        ("no colon", "GET /v2/ HTTP/1.1\nHost\n\n".to_owned(), &[400]),
        ("control character", "GET /v2/ HTTP/1.1\nX: a\u{0}b\n\n".to_owned(), &[400]),
        ("control character in path", "GET /v2/\u{1} HTTP/1.1\nHost: x\n\n".to_owned(), &[400]),
        ("many fields", format!("GET /v2/ HTTP/1.1\n{flood}\n"), &[431]),
        ("long field", format!("GET /v2/ HTTP/1.1\nX: {}\n\n", "y".repeat(40 << 10)), &[431]),
        ("long path", format!("GET /v2/{} HTTP/1.1\nHost: x\n\n", "a".repeat(9 << 10)), &[414]),
        ("long query", format!("GET /v2/?{} HTTP/1.1\nHost: x\n\n", "a".repeat(9 << 10)), &[414]),
        ("path beyond the head", format!("GET /v2/{} HTTP/1.1\nHost: x\n\n", "a".repeat(200 << 10)), &[414, 431]),
    ];
    leaves_no_trace(&[], |server| {
        for (what, text, expected) in &cases {
            let found = status(server, text);
            assert!(found.is_some_and(|found| expected.contains(&found)), "{what}: {found:?}, not {expected:?}");
        }
        // A client that speaks HTTP/2 understands no answer of HTTP/1.1.
        assert_eq!(status(server, "PRI * HTTP/2.0\n\nSM\n\n"), None);
        server.get(&format!("/v2/{}", "a/".repeat(4_500))).refused(414, "UNSUPPORTED", "8192");
        server.get("/v2/").is(200);
    });
}

#[test]
fn bodies_whose_length_is_unclear_are_refused() {
    let fields: &[(&str, &str)] = &[
        ("no number", "Content-Length: abc"),
        ("negative", "Content-Length: -1"),
        ("signed", "Content-Length: +3"),
        ("beyond 64 bits", "Content-Length: 18446744073709551616"),
        ("two lengths", "Content-Length: 3\nContent-Length: 4"),
        ("list of lengths", "Content-Length: 3, 4"),
        ("unknown coding", "Transfer-Encoding: gzip"),
        ("chunked is not last", "Transfer-Encoding: chunked, gzip"),
        ("chunk of no size", "Transfer-Encoding: chunked\n\nzz\nxxx"),
        ("endless chunk", "Transfer-Encoding: chunked\n\nfffffffffffffffff\nxxx"),
        ("chunk longer than its size", "Transfer-Encoding: chunked\n\n1\nxxx\n0"),
    ];
    leaves_no_trace(&[], |server| {
        let digest = sha256("xxx");
        for (what, fields) in fields {
            let body = if fields.contains("\n\n") { "\n\n" } else { "\n\nxxx" };
            let head = format!("POST /v2/team/app/blobs/uploads/?digest={digest} HTTP/1.1\nHost: x\n");
            let found = status(server, &format!("{head}{fields}{body}"));
            assert_eq!(found, Some(400), "{what}");
            assert_eq!(server.head(&format!("/v2/team/app/blobs/{digest}")).status, 404, "{what}");
        }
    });
}

#[test]
fn a_request_cannot_be_smuggled_behind_two_lengths() {
    let server = Orlop::start();
    let digest = sha256("xxx");
    for fields in ["Content-Length: 60\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\nContent-Length: 3"] {
        let head = format!("POST /v2/team/app/blobs/uploads/?digest={digest} HTTP/1.1\nHost: x\n{fields}\n\n");
        let body = "3\nxxx\n0\n\nGET /v2/_catalog HTTP/1.1\nHost: x\n\n";
        let mut connection = server.connect();
        connection.say(format!("{head}{body}").replace('\n', "\r\n"));
        // The coding wins, as RFC 9112, section 6.3 has it, and the connection ends before anything else is read.
        connection.answer().is(201);
        assert!(connection.is_closed(), "{fields}");
    }
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let server = Orlop::start();
    let mut connection = server.connect();
    connection.say("GET /v2/_catalog HTTP/1.0\r\n\r\n");
    assert_eq!(connection.answer().is(200).json(), serde_json::json!({ "repositories": [] }));
    assert!(connection.is_closed());
    let mut connection = server.connect();
    connection.say("POST /v2/a/blobs/uploads/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    connection.answer().is(400);
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let server = Orlop::start();
    let digest = server.push_blob("a", b"content");
    let mut connection = server.connect();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    connection.say([get("/v2/_catalog"), get(&format!("/v2/a/blobs/{digest}")), get("/v2/nothing")].concat());
    connection.answer().is(200).has("Content-Type", "application/json");
    assert_eq!(connection.answer().is(200).body, b"content");
    connection.answer().is(404);
}

#[test]
fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let server = Orlop::start();
    let bytes = noise(1, 100_000);
    let digest = sha256(&bytes);
    let upload = server.start_upload("a");
    let len = bytes.len().to_string();
    let headers = [("Expect", "100-continue"), ("Content-Length", len.as_str())];
    let mut connection = server.connect();
    connection.say_head("PATCH", &upload, &headers).answer().is(100);
    connection.say(&bytes).answer().is(202);
    server.put(&upload, &digest, b"").is(201);
    // A request that is refused by its head is never told to go on.
    for path in [format!("{upload}?digest=nonsense"), format!("/v2/A/blobs/uploads/1?digest={digest}")] {
        let mut connection = server.connect();
        connection.say_head("PUT", &path, &headers).answer().is(400);
    }
    let mut connection = server.connect();
    let headers = [("Expect", "100-continue"), ("Content-Length", "1099511627776")];
    connection.say_head("PUT", "/v2/a/manifests/x", &headers).answer().refused(413, "SIZE_INVALID", "manifest");
}
