use super::leaves_no_trace;
use crate::harness::{OCI_MANIFEST, Orlop, noise, sha256};

/// What has that many of it, and which statuses are right: an answer that is no larger than the thing asked for, or a refusal.
fn floods(blob: &str, manifest: &str, upload: &str) -> Vec<(String, String, &'static [u16])> {
    let request = |request: &str, fields: &str| format!("{request} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let ranges = |range: fn(usize) -> String| (0..1_000).map(range).collect::<Vec<_>>().join(",");
    let get = |path: &str, fields: &str| request(&format!("GET {path}"), fields);
    let parameters = |name: &str, count: usize| vec![format!("{name}=x"); count].join("&");
    let blob = format!("/v2/team/app/blobs/{blob}");
    let (latest, by_digest) = ("/v2/team/app/manifests/latest", format!("/v2/team/app/manifests/{manifest}"));
    let put = |query: &str| request(&format!("PUT {by_digest}?{query}"), "Content-Length: 0\r\n");
    vec![
        (
            "ranges that overlap".to_owned(),
            get(&blob, &format!("Range: bytes={}\r\n", ranges(|_| "0-".to_owned()))),
            &[200, 206, 416],
        ),
        (
            "ranges of a byte".to_owned(),
            get(&blob, &format!("Range: bytes={}\r\n", ranges(|n| format!("{n}-{n}")))),
            &[200, 206, 416],
        ),
        (
            "ranges beyond the end".to_owned(),
            get(&blob, &format!("Range: bytes={}\r\n", ranges(|n| format!("{}-", n + 90_000)))),
            &[200, 416],
        ),
        ("Range headers".to_owned(), get(&blob, &"Range: bytes=0-1\r\n".repeat(90)), &[200, 206, 400]),
        (
            "entity tags".to_owned(),
            get(&blob, &format!("If-None-Match: {}\r\n", vec!["\"x\""; 5_000].join(","))),
            &[200],
        ),
        (
            "types in Accept".to_owned(),
            get(latest, &format!("Accept: {}\r\n", vec!["a/b;q=0.1"; 2_000].join(","))),
            &[200, 404, 406],
        ),
        ("Accept headers".to_owned(), get(latest, &"Accept: */*\r\n".repeat(90)), &[200]),
        ("header fields".to_owned(), get("/v2/", &"X: y\r\n".repeat(2_000)), &[431]),
        ("bytes of a header's name".to_owned(), get("/v2/", &format!("{}: y\r\n", "x".repeat(40 << 10))), &[431]),
        (
            "Content-Length headers".to_owned(),
            request(&format!("PATCH {upload}"), &"Content-Length: 0\r\n".repeat(50)),
            &[202, 400],
        ),
        (
            "Content-Range headers".to_owned(),
            request(
                &format!("PATCH {upload}"),
                &format!("{}Content-Length: 0\r\n", "Content-Range: 5-9\r\n".repeat(50)),
            ),
            &[400, 416],
        ),
        ("tags in one push".to_owned(), put(&parameters("tag", 101)), &[414]),
        ("tags up to the limit of the query".to_owned(), put(&parameters("tag", 1_300)), &[414]),
        ("tags beyond the limit of the query".to_owned(), put(&parameters("tag", 2_000)), &[414]),
        (
            "digests in one upload".to_owned(),
            request(&format!("PUT {upload}?{}", parameters("digest", 500)), "Content-Length: 0\r\n"),
            &[400],
        ),
        (
            "mounts in one request".to_owned(),
            request(&format!("POST /v2/team/app/blobs/uploads/?{}", parameters("mount", 500)), "Content-Length: 0\r\n"),
            &[400],
        ),
        ("page sizes".to_owned(), get(&format!("/v2/_catalog?{}", parameters("n", 500)), ""), &[400]),
        ("places to begin at".to_owned(), get(&format!("/v2/_catalog?{}", parameters("last", 500)), ""), &[200]),
        ("separators".to_owned(), get(&format!("/v2/_catalog?{}", "&".repeat(7_000)), ""), &[200]),
        ("unknown parameters".to_owned(), get(&format!("/v2/?{}", parameters("a", 1_500)), ""), &[200]),
        ("path segments".to_owned(), get(&format!("/v2/{}tags/list", "a/".repeat(3_500)), ""), &[400]),
        ("encoded characters".to_owned(), get(&format!("/v2/{}/tags/list", "%61".repeat(2_500)), ""), &[400]),
    ]
}

#[test]
fn far_too_many_of_something_is_refused_or_answered_within_bounds() {
    leaves_no_trace(&[], |server: &Orlop| {
        let manifest = server.get("/v2/team/app/manifests/latest").is(200).body;
        let layer = noise(1_000_001, 1_000);
        let upload = server.start_upload("team/app");
        for (what, request, expected) in floods(&sha256(&layer), &sha256(&manifest), &upload) {
            let mut connection = server.connect();
            let answer = connection.say(request).try_answer(false).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(expected.contains(&answer.status), "{what}: {expected:?} is right, not {answer:?}");
            assert!(answer.body.len() <= 100_000, "{what}: the answer has {} bytes", answer.body.len());
            if answer.status >= 400 && answer.status != 431 {
                assert!(
                    answer.json()["errors"][0]["message"].as_str().is_some_and(|text| text.len() < 1_000),
                    "{answer:?}"
                );
            }
        }
        server.get(&upload).is(204).has("Range", "0-0");
        server.delete(&upload).is(204);
    });
}

#[test]
fn a_push_of_a_hundred_tags_is_accepted_and_of_one_more_is_not() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "latest", 1);
    let tags = |count: usize| (0..count).map(|tag| format!("tag=t{tag}")).collect::<Vec<_>>().join("&");
    let put = |count| {
        server.put_manifest("team/app", &format!("{}?{}", sha256(&manifest), tags(count)), OCI_MANIFEST, &manifest)
    };
    put(101).refused(414, "UNSUPPORTED", "100 tags");
    assert_eq!(server.get("/v2/team/app/tags/list").json()["tags"], serde_json::json!(["latest"]));
    put(100).is(201);
    assert_eq!(server.get("/v2/team/app/tags/list").json()["tags"].as_array().map(Vec::len), Some(101));
}
