use crate::harness::{Answer, Orlop, noise, sha256, sha512};

/// A way to bring a blob in; the answer to its last request.
type Way = fn(&Orlop, &str, &[u8]) -> Answer;

const WAYS: &[(&str, Way)] = &[
    ("POST with all bytes", |server, digest, bytes| {
        server.send("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}"), &[], bytes)
    }),
    ("POST, then PUT with all bytes", |server, digest, bytes| {
        let upload = server.start_upload("team/app");
        server.put(&upload, digest, bytes)
    }),
    ("PATCH as a stream, then PUT", |server, digest, bytes| {
        let upload = server.start_upload("team/app");
        let mut connection = server.connect();
        connection.say_head("PATCH", &upload, &[("Transfer-Encoding", "chunked")]);
        for chunk in bytes.chunks(50_000) {
            connection.say_chunk(chunk);
        }
        let answer = connection.say_chunk(b"").answer().is(202);
        let upload = answer.has("Range", &format!("0-{}", bytes.len().saturating_sub(1))).location();
        server.put(&upload, digest, b"")
    }),
    ("PATCH with a length, then PUT", |server, digest, bytes| {
        let upload = server.start_upload("team/app");
        let upload = server.send("PATCH", &upload, &[], bytes).is(202).location();
        server.put(&upload, digest, b"")
    }),
    ("PATCH in ranges, then PUT with the last", |server, digest, bytes| {
        let mut upload = server.start_upload("team/app");
        let (first, last) = bytes.split_at(bytes.len() / 2);
        let mut begins = 0;
        for chunk in first.chunks(40_000) {
            upload = server.patch(&upload, begins, chunk).is(202).location();
            begins += chunk.len();
            server.get(&upload).is(204).has("Range", &format!("0-{}", begins - 1));
        }
        let range = format!("{begins}-{}", (begins + last.len()).saturating_sub(1));
        server.send("PUT", &format!("{upload}?digest={digest}"), &[("Content-Range", &range)], last)
    }),
    ("PATCH in ranges as RFC 9110 writes them", |server, digest, bytes| {
        let upload = server.start_upload("team/app");
        if !bytes.is_empty() {
            let range = format!("bytes 0-{}/{}", bytes.len() - 1, bytes.len());
            server.send("PATCH", &upload, &[("Content-Range", &range)], bytes).is(202);
        }
        server.put(&upload, digest, b"")
    }),
    ("the digest with its colon encoded", |server, digest, bytes| {
        let upload = server.start_upload("team/app");
        server.put(&upload, &digest.replace(':', "%3A"), bytes)
    }),
];

#[test]
fn what_is_uploaded_is_served() {
    let server = Orlop::start();
    // Around the length where content gets a segment of its own, and where it takes several steps.
    let lengths = [0, 1, 1_000, 65_535, 65_536, 65_537, 200_000, (2 << 20) + 7];
    for (number, (way, upload)) in WAYS.iter().enumerate() {
        for (seed, len) in lengths.iter().enumerate() {
            let bytes = noise((number * 100 + seed) as u64, *len);
            for digest in [sha256(&bytes), sha512(&bytes)] {
                let path = format!("/v2/team/app/blobs/{digest}");
                let answer = upload(&server, &digest, &bytes);
                assert_eq!(answer.status, 201, "{way}, {len} bytes: {answer:?}");
                answer.has("Location", &path).has("Docker-Content-Digest", &digest);
                let answer = server.get(&path).is(200);
                assert!(answer.body == bytes, "{way}, {len} bytes: other bytes are served");
                for answer in [answer, server.head(&path).is(200)] {
                    answer.has("Content-Length", &len.to_string()).has("Docker-Content-Digest", &digest);
                }
            }
        }
    }
}

#[test]
fn a_session_tells_where_it_stands_and_can_be_cancelled() {
    let server = Orlop::start();
    for len in [1_000, 200_000] {
        let answer = server.post("/v2/team/app/blobs/uploads/").is(202).has("Range", "0-0");
        let upload = answer.location();
        assert_eq!(answer.header("docker-upload-uuid"), upload.rsplit('/').next());
        server.get(&upload).is(204).has("Range", "0-0").has("Location", &upload);
        server.patch(&upload, 0, &noise(1, len)).is(202);
        server.head(&upload).is(204).has("Range", &format!("0-{}", len - 1));
        server.delete(&upload).is(204);
        server.get(&upload).is(404);
        assert!(server.segment_files().is_empty(), "a cancelled upload leaves no file");
    }
    // The route without its last slash.
    server.post("/v2/team/app/blobs/uploads").is(202);
}

#[test]
fn an_upload_of_what_is_there_is_accepted_again() {
    let server = Orlop::start();
    for len in [1_000, 200_000] {
        let bytes = noise(len as u64, len);
        server.push_blob("team/app", &bytes);
        let files = server.segment_files();
        for repository in ["team/app", "team/other"] {
            let digest = server.push_blob(repository, &bytes);
            assert_eq!(server.get(&format!("/v2/{repository}/blobs/{digest}")).is(200).body, bytes);
        }
        assert_eq!(server.segment_files(), files, "the first copy is the only one");
    }
}
