//! Large content, which the kernel sends from its file: the same bytes as by any other way, and none that are damaged.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::FileExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Connection, LARGE_BLOB_BYTES, Orlop, PATIENCE, noise, sha256};

/// Blocks that a checksum covers.
const BLOCK: usize = 64 << 10;

fn path_of(bytes: &[u8]) -> String {
    format!("/v2/team/app/blobs/{}", sha256(bytes))
}

/// Whether the server has files of segments mapped, to send from.
fn sends_from_files(server: &Orlop) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.process_id())).unwrap();
    maps.lines().any(|line| line.ends_with(".segment"))
}

/// A part of some content over a connection that goes on.
#[track_caller]
fn check_range(connection: &mut Connection, content: &[u8], at: usize, len: usize) {
    let request =
        format!("GET {} HTTP/1.1\r\nHost: registry\r\nRange: bytes={at}-{}\r\n\r\n", path_of(content), at + len - 1);
    let answer = connection.say(request).answer().is(206);
    assert!(answer.body == content[at..at + len], "{at} {len}");
}

/// The segment's file that has some bytes, and where.
fn place_of(server: &Orlop, bytes: &[u8]) -> (PathBuf, u64) {
    let files = server.segment_files().into_iter();
    let mut found = files.filter_map(|path| {
        let at = fs::read(&path).unwrap().windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at as u64))
    });
    found.next().unwrap()
}

/// Changes a byte of a block of stored content.
fn rot(server: &Orlop, content: &[u8], block: usize) {
    let (path, at) = place_of(server, &content[block * BLOCK..][..64]);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[!content[block * BLOCK]], at).unwrap();
}

/// What comes of a whole pull, and whether it is as much as was announced.
fn pull(server: &Orlop, content: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n", path_of(content));
    stream.write_all(request.as_bytes()).unwrap();
    let mut came = Vec::new();
    // A connection that is broken off may end so.
    let _ = stream.read_to_end(&mut came);
    let head_len = came.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let is_ok = came.starts_with(b"HTTP/1.1 200 ");
    let body = came.split_off(head_len);
    (if is_ok { body.clone() } else { Vec::new() }, is_ok && body.len() == content.len())
}

#[test]
fn whole_pulls_and_ranges_are_the_same_bytes_the_first_time_and_later() {
    let server = Orlop::start();
    let contents = [noise(1, 5 * (1 << 20) + 12_345), noise(2, LARGE_BLOB_BYTES + 1), noise(3, 300_000)];
    for content in &contents {
        server.push_blob("team/app", content);
    }
    let mut random = fastrand::Rng::with_seed(4);
    let mut connection = server.connect();
    for _ in 0..300 {
        let content = &contents[random.usize(..contents.len())];
        let at = random.usize(..content.len());
        let most = [70, 70_000, 1 << 21][random.usize(..3)];
        let len = random.usize(1..=most).min(content.len() - at);
        check_range(&mut connection, content, at, len);
    }
    for _ in 0..3 {
        for content in &contents {
            let request = format!("GET {} HTTP/1.1\r\nHost: registry\r\n\r\n", path_of(content));
            assert!(connection.say(request).answer().is(200).body == *content);
            let path = path_of(content);
            server.head(&path).is(200).has("Content-Length", &content.len().to_string());
            let tag = format!("\"{}\"", sha256(content));
            let parts = [("Range", "bytes=0-70000,200000-200009,-3"), ("If-Range", tag.as_str())];
            let answer = server.send("GET", &path, &parts, "");
            if content.len() > 200_009 {
                let text = answer.is(206).body;
                let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
                assert!([&content[..=70_000], &content[200_000..=200_009]].into_iter().all(has));
            }
            let other = [("Range", "bytes=5-9"), ("If-Range", "\"other\"")];
            assert!(server.send("GET", &path, &other, "").is(200).body == *content);
            server.send("GET", &path, &[("If-None-Match", &tag)], "").is(304);
        }
    }
    assert!(sends_from_files(&server));
    // Requests that don't wait for answers.
    let request = format!("GET {} HTTP/1.1\r\nHost: registry\r\n\r\n", path_of(&contents[0]));
    connection.say(request.repeat(3));
    for _ in 0..3 {
        assert!(connection.answer().is(200).body == contents[0]);
    }
}

#[test]
fn damage_in_what_was_not_checked_since_the_start_is_never_served() {
    let server = Orlop::start();
    let content = noise(1, 40 * BLOCK);
    server.push_blob("team/app", &content);
    let mut connection = server.connect();
    check_range(&mut connection, &content, 0, 2 * BLOCK);
    check_range(&mut connection, &content, 30 * BLOCK, 2 * BLOCK);
    rot(&server, &content, 20);
    check_range(&mut connection, &content, 100, BLOCK);
    let range = format!("bytes={}-{}", 20 * BLOCK + 7, 21 * BLOCK);
    server.send("GET", &path_of(&content), &[("Range", &range)], "").refused(500, "UNKNOWN", "damaged");
    for _ in 0..3 {
        let (came, is_whole) = pull(&server, &content);
        assert!(!is_whole && came == content[..came.len()] && came.len() <= 20 * BLOCK, "{} bytes", came.len());
    }
    check_range(&mut connection, &content, 30 * BLOCK, 2 * BLOCK);
    // The next push heals it.
    server.push_blob("team/app", &content);
    assert!(pull(&server, &content) == (content.clone(), true));
}

#[test]
fn where_all_reads_are_checked_damage_is_found_whenever_it_appears() {
    let server = Orlop::start_with(&[("store.verify_reads", "always")]);
    let content = noise(1, 40 * BLOCK);
    server.push_blob("team/app", &content);
    for _ in 0..2 {
        assert!(pull(&server, &content) == (content.clone(), true));
    }
    assert!(!sends_from_files(&server));
    rot(&server, &content, 20);
    let (came, is_whole) = pull(&server, &content);
    assert!(!is_whole && came == content[..came.len()], "{} bytes", came.len());
}

#[test]
fn a_pull_under_way_gets_right_bytes_while_its_content_is_deleted_and_erased() {
    let server = Orlop::start_with(&[
        ("registry.grace", "10s"),
        ("registry.retention_window", "0s"),
        ("collect.interval", "100ms"),
        ("collect.reader_patience", "10ms"),
    ]);
    // More than the kernel takes for a client that does not read.
    let content = noise(1, 24 << 20);
    server.push_blob("team/app", &content);
    assert!(pull(&server, &content).1);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n", path_of(&content));
    stream.write_all(request.as_bytes()).unwrap();
    let is_its = |path: &PathBuf| fs::metadata(path).unwrap().len() > content.len() as u64;
    let path = server.segment_files().into_iter().find(is_its).unwrap();
    server.delete(&path_of(&content)).is(202);
    let begun = Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < PATIENCE, "it is not collected");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(300));
    server.get(&path_of(&content)).is(404);
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    assert!(came.ends_with(&content), "{} bytes", came.len());
    // When the last reader is done nothing holds the file.
    let begun = Instant::now();
    while sends_from_files(&server) {
        assert!(begun.elapsed() < PATIENCE, "the file of what was deleted is held");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_and_memory_does_not_grow_with_clients() {
    let server = Orlop::start_with(&[("http.body_window", "500ms")]);
    let content = noise(1, 24 << 20);
    server.push_blob("team/app", &content);
    assert!(pull(&server, &content).1);
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    let request = format!("GET {} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n", path_of(&content));
    let mut connections: Vec<Connection> = (0..24).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.say(&request);
    }
    thread::sleep(Duration::from_millis(300));
    let grown = memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB for 24 clients that don't read");
    // A window with what the kernel took, and one without.
    thread::sleep(Duration::from_secs(3));
    for connection in &mut connections {
        let came = connection.rest();
        assert!(came < content.len(), "{came} bytes came to a client that did not read");
    }
}
