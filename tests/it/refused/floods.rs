use super::leaves_no_trace;
use crate::harness::{Orlop, sha256};

/// Every route, with what it is answered when nothing is wrong.
fn routes(server: &Orlop) -> Vec<(&'static str, String, u16)> {
    server.push_image("team/app", "latest", 1);
    let blob = server.push_blob("team/app", b"content");
    vec![
        ("GET", "/v2/".to_owned(), 200),
        ("GET", "/v2/_catalog".to_owned(), 200),
        ("GET", "/v2/team/app/tags/list".to_owned(), 200),
        ("GET", "/v2/team/app/manifests/latest".to_owned(), 200),
        ("HEAD", "/v2/team/app/manifests/latest".to_owned(), 200),
        ("GET", format!("/v2/team/app/blobs/{blob}"), 200),
        ("HEAD", format!("/v2/team/app/blobs/{blob}"), 200),
        ("GET", "/v2/team/app/blobs/uploads/none".to_owned(), 404),
        ("PATCH", "/v2/team/app/blobs/uploads/none".to_owned(), 404),
        ("DELETE", "/v2/team/app/manifests/none".to_owned(), 404),
    ]
}

#[test]
fn floods_of_parameters_and_headers_are_passed_over_or_refused() {
    let server = Orlop::start();
    let parameters: [(String, bool); 5] = [
        ((0..1_000).map(|n| format!("x{n}&")).collect(), true),
        ("x=y&".repeat(1_900), true),
        ("&".repeat(7_000), true),
        (format!("x={}", "%20".repeat(2_500)), true),
        ((0..2_000).map(|n| format!("x{n}=y&")).collect(), false),
    ];
    let headers: [(Vec<(&str, String)>, bool); 6] = [
        (vec![("X", "y".to_owned()); 80], true),
        (vec![("Accept", "application/x, ".repeat(1_500) + "*/*")], true),
        (vec![("If-None-Match", "\"x\", ".repeat(4_000) + "\"y\"")], true),
        (vec![("Range", format!("bytes={}0-0", "0-0,".repeat(5_000)))], true),
        (vec![("X", "y".to_owned()); 200], false),
        (vec![("X", "y".repeat(40 << 10))], false),
    ];
    for (method, path, status) in routes(&server) {
        for (query, fits) in &parameters {
            let answer = server.send(method, &format!("{path}?{query}"), &[], "");
            assert_eq!(answer.status, if *fits { status } else { 414 }, "{method} {path}");
        }
        for (headers, fits) in &headers {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = server.send(method, &path, &headers, "");
            assert_eq!(answer.status, if *fits { status } else { 431 }, "{method} {path} {}", headers[0].0);
        }
    }
}

#[test]
fn header_values_that_are_no_ascii_are_passed_over_where_they_may_be() {
    leaves_no_trace(&[], |server| {
        let manifest = server.get("/v2/team/app/manifests/latest").is(200).body;
        let blob = format!("/v2/team/app/blobs/{}", sha256(&manifest));
        for name in ["Accept", "If-None-Match", "If-Range", "User-Agent", "Authorization", "X", "Content-Range"] {
            server.send("GET", "/v2/team/app/manifests/latest", &[(name, "é\u{80}")], "").is(200);
            server.send("GET", &blob, &[(name, "é"), ("Range", "bytes=é")], "").is(404);
            server.send("DELETE", "/v2/team/app/manifests/none", &[(name, "é")], "").is(404);
        }
        let answer = server.send("PUT", "/v2/team/app/manifests/x", &[("Content-Type", "é")], &manifest);
        answer.refused(400, "MANIFEST_INVALID", "not ASCII");
        let upload = server.start_upload("team/app");
        let answer = server.send("PATCH", &upload, &[("Content-Range", "é")], "x");
        answer.refused(400, "SIZE_INVALID", "Content-Range");
        server.send("PATCH", &upload, &[("Content-Length", "é")], "").is(400);
        server.delete(&upload).is(204);
    });
}

#[test]
fn page_sizes_of_any_length_are_numbers_or_refused() {
    leaves_no_trace(&[], |server| {
        let many = "9".repeat(5_000);
        let cases = [
            ("-1", 400),
            ("0", 200),
            ("1000000000", 200),
            ("18446744073709551615", 200),
            ("18446744073709551616", 400),
        ];
        for (n, status) in
            cases.into_iter().chain([(many.as_str(), 400), ("00000000000000000000000001", 200), ("é", 400)])
        {
            for path in ["/v2/_catalog", "/v2/team/app/tags/list"] {
                let answer = server.get(&format!("{path}?n={n}"));
                assert_eq!(answer.status, status, "{n}");
                assert!(answer.body.len() < 500, "an answer does not repeat a flood");
            }
        }
    });
}
