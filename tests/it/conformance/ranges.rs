use std::{fs, ops::Range};

use super::{ALGORITHMS, push_blob};
use crate::harness::{Answer, Orlop, noise};

/// The parts of a `multipart/byteranges` body, with their places; nothing else stands in it.
fn parts(answer: &Answer, len: usize) -> Vec<(Range<usize>, Vec<u8>)> {
    let boundary =
        answer.header("content-type").and_then(|value| value.strip_prefix("multipart/byteranges; boundary="));
    let delimiter = format!("\r\n--{}", boundary.unwrap_or_else(|| panic!("{answer:?}")));
    let (mut rest, mut parts) = (&answer.body[..], Vec::new());
    loop {
        rest = rest.strip_prefix(delimiter.as_bytes()).unwrap_or_else(|| panic!("no boundary: {answer:?}"));
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let place = head.strip_prefix("\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes ").unwrap();
        let (first, last) = place.strip_suffix(&format!("/{len}")).unwrap().split_once('-').unwrap();
        let range = first.parse().unwrap()..last.parse::<usize>().unwrap() + 1;
        rest = &rest[end + 4..];
        parts.push((range.clone(), rest[..range.len()].to_vec()));
        rest = &rest[range.len()..];
    }
}

/// One part comes as it is.
#[track_caller]
fn is_part(answer: Answer, bytes: &[u8], part: Range<usize>) {
    let place = format!("bytes {}-{}/{}", part.start, part.end - 1, bytes.len());
    let answer = answer.is(206).has("Content-Range", &place).has("Content-Type", "application/octet-stream");
    assert!(answer.has("Content-Length", &part.len().to_string()).body == bytes[part.clone()], "{part:?}");
}

#[test]
fn one_range_is_served_clamped_and_refused() {
    let server = Orlop::start();
    for algorithm in ALGORITHMS {
        for len in [2_048, 300_000] {
            let bytes = noise(1, len);
            let digest = push_blob(&server, algorithm, &bytes);
            let path = format!("/v2/team/app/blobs/{digest}");
            let get = |range: &str| server.send("GET", &path, &[("Range", range)], "");
            let cases = [
                ("bytes=500-1499", 500..1_500),
                ("bytes=500-", 500..len),
                ("bytes=-500", len - 500..len),
                ("bytes=2000-500000", 2_000..len),
                ("bytes=0-", 0..len),
                ("bytes=-500000", 0..len),
            ];
            for (range, part) in cases {
                is_part(get(range).has("Docker-Content-Digest", &digest), &bytes, part);
            }
            for range in ["bytes=500-0", "bytes=500000-1000000", "bytes=500000-", "bytes=-0", "bytes=500000-,600000-"] {
                let answer = get(range).refused(416, "SIZE_INVALID", &len.to_string());
                answer.has("Content-Range", &format!("bytes */{len}"));
            }
            let many = format!("bytes={}", (0..1_000).map(|n| format!("{}-{0}", 2 * n)).collect::<Vec<_>>().join(","));
            for range in ["bytes=é-5", "bytes=1-é", "bits=1-2", "bytes=x", "bytes 1-2", "bytes=1-2,x", "", &many] {
                let answer = get(range).is(200).has("Content-Length", &len.to_string());
                assert!(answer.body == bytes && answer.header("content-range").is_none(), "{range}");
            }
            let lines = [("Range", "bytes=0-1"), ("Range", "bytes=5-6")];
            assert!(server.send("GET", &path, &lines, "").is(200).body == bytes);
            let head = server.send("HEAD", &path, &[("Range", "bytes=500-1499")], "").is(200);
            head.has("Content-Length", &len.to_string());
        }
    }
}

#[test]
fn a_blob_without_bytes_has_no_parts() {
    let server = Orlop::start();
    for algorithm in ALGORITHMS {
        let path = format!("/v2/team/app/blobs/{}", push_blob(&server, algorithm, b""));
        let cases = [("bytes=0-", 200), ("bytes=0-99", 200), ("bytes=-5", 200), ("bytes=0-,5-", 200)];
        for (range, status) in cases.into_iter().chain([("bytes=5-", 416), ("bytes=-0", 416), ("bytes=5-1", 416)]) {
            let answer = server.send("GET", &path, &[("Range", range)], "").is(status);
            match status {
                200 => assert!(answer.has("Content-Length", "0").body.is_empty(), "{range}"),
                _ => drop(answer.has("Content-Range", "bytes */0")),
            }
        }
    }
}

#[test]
fn several_ranges_come_as_parts_in_the_order_of_the_request() {
    let server = Orlop::start();
    let len = (3 << 20) + 7;
    let bytes = noise(1, len);
    for algorithm in ALGORITHMS {
        let digest = push_blob(&server, algorithm, &bytes);
        let path = format!("/v2/team/app/blobs/{digest}");
        let get = |range: &str| server.send("GET", &path, &[("Range", range)], "");
        let cases: [(&str, &[Range<usize>]); 5] = [
            ("bytes=0-0,5-9", &[0..1, 5..10]),
            ("bytes=-3, 0-1 , 70000-140000", &[len - 3..len, 0..2, 70_000..140_001]),
            ("bytes=2000000-,0-999999", &[2_000_000..len, 0..1_000_000]),
            ("bytes=9-9,99999999-,1-2,3-4,9-12", &[9..13, 1..5]),
            ("bytes=0-1500000,1500002-3000000", &[0..1_500_001, 1_500_002..3_000_001]),
        ];
        for (range, expected) in cases {
            let answer = get(range).is(206).has("Docker-Content-Digest", &digest).has("ETag", &format!("\"{digest}\""));
            assert!(answer.header("content-length").is_some(), "the length is known in advance");
            assert_eq!(answer.header("content-range"), None);
            let found = parts(&answer, len);
            assert_eq!(found.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>(), expected);
            assert!(found.iter().all(|(range, part)| bytes[range.clone()] == part[..]), "{range}");
        }
        // What touches is one, and one part is no multipart.
        is_part(get("bytes=5-9,0-4"), &bytes, 0..10);
        is_part(get("bytes=0-9,4-2000000,99999999-"), &bytes, 0..2_000_001);
        is_part(get("bytes=0-,-1"), &bytes, 0..len);
    }
}

#[test]
fn any_ranges_are_served_as_the_bytes_have_them() {
    let server = Orlop::start();
    for (number, len) in [999, 300_000].into_iter().enumerate() {
        let bytes = noise(number as u64, len);
        let path = format!("/v2/team/app/blobs/{}", server.push_blob("team/app", &bytes));
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let ranges: Vec<(usize, usize)> = (0..random.usize(1..60))
                .map(|_| {
                    let first = random.usize(..len);
                    (first, (first + random.usize(..len / 30)).min(len + 5))
                })
                .collect();
            let text = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",");
            let answer = server.send("GET", &path, &[("Range", &format!("bytes={text}"))], "").is(206);
            let found = if answer.header("content-range").is_some() {
                let place = answer.header("content-range").unwrap().strip_prefix("bytes ").unwrap();
                let first: usize = place.split('-').next().unwrap().parse().unwrap();
                vec![(first..first + answer.body.len(), answer.body)]
            } else {
                parts(&answer, len)
            };
            let mut wanted = vec![false; len];
            ranges.iter().for_each(|&(first, last)| wanted[first..len.min(last + 1)].fill(true));
            for (range, part) in found {
                assert!(bytes[range.clone()] == part[..], "seed {seed}: {range:?} of {len}");
                assert!(wanted[range.clone()].iter().all(|wanted| *wanted), "seed {seed}: nobody asked for {range:?}");
                wanted[range].fill(false);
            }
            assert!(!wanted.contains(&true), "seed {seed}: bytes are missing");
        }
    }
}

#[test]
fn if_range_needs_the_very_tag() {
    let server = Orlop::start();
    let bytes = noise(1, 2_048);
    for algorithm in ALGORITHMS {
        let digest = push_blob(&server, algorithm, &bytes);
        let path = format!("/v2/team/app/blobs/{digest}");
        let (own, weak) = (format!("\"{digest}\""), format!("W/\"{digest}\""));
        let cases = [
            (own.as_str(), 206),
            (&weak, 200),
            ("\"other\"", 200),
            (&digest, 200),
            ("*", 200),
            ("Thu, 01 Jan 2099 00:00:00 GMT", 200),
            ("\"é\"", 200),
        ];
        for (known, status) in cases {
            for range in ["bytes=1-2", "bytes=1-2,5-6"] {
                let answer = server.send("GET", &path, &[("Range", range), ("If-Range", known)], "");
                assert_eq!(answer.status, status, "{known} {range}");
                assert!(status == 206 || answer.body == bytes);
            }
            // A range that cannot be met is ignored with the rest.
            let beyond = [("Range", "bytes=9999-"), ("If-Range", known)];
            assert_eq!(server.send("GET", &path, &beyond, "").status, if status == 206 { 416 } else { 200 }, "{known}");
        }
    }
}

#[test]
fn damage_in_a_later_part_breaks_the_connection_off() {
    let server = Orlop::start();
    // Longer than what is checked whole before anything of it is sent.
    let bytes = noise(1, 400_000);
    let path = format!("/v2/team/app/blobs/{}", server.push_blob("team/app", &bytes));
    let file = server.segment_files().into_iter().next().unwrap();
    let mut stored = fs::read(&file).unwrap();
    let at = stored.windows(64).position(|window| window == &bytes[150_000..150_064]).unwrap();
    stored[at] ^= 1;
    fs::write(&file, stored).unwrap();
    let get = |range: &str| {
        let mut connection = server.connect();
        connection.say_head("GET", &path, &[("Range", range)]).try_answer(false)
    };
    // The first piece is checked before the status is sent, what comes later before it is sent itself.
    get("bytes=150000-150009,0-9").unwrap().refused(500, "UNKNOWN", "damaged");
    assert!(get("bytes=0-9,150000-150009").is_err(), "a body that ends before its length");
    assert_eq!(parts(&get("bytes=0-9,100-109").unwrap().is(206), 400_000).len(), 2);
}
