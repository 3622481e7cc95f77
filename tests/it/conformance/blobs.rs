use super::{ALGORITHMS, digest, push_blob};
use crate::harness::{OCI_MANIFEST, Orlop, image, noise, sha256};

/// Nothing, the empty JSON that artifacts share, content of both kinds of segments.
fn contents() -> [Vec<u8>; 4] {
    [Vec::new(), b"{}".to_vec(), noise(1, 2_048), noise(2, 200_000)]
}

#[test]
fn a_blob_is_described_by_get_and_head_until_it_is_deleted() {
    let server = Orlop::start();
    for algorithm in ALGORITHMS {
        for bytes in contents() {
            let digest = digest(algorithm, &bytes);
            let path = format!("/v2/team/app/blobs/{digest}");
            let gone = || {
                server.get(&path).refused(404, "BLOB_UNKNOWN", &digest);
                assert!(server.head(&path).is(404).body.is_empty());
                server.delete(&path).is(404);
            };
            gone();
            push_blob(&server, algorithm, &bytes);
            server.push_blob("other/app", &bytes);
            let whole = server.get(&path).is(200);
            assert!(whole.body == bytes, "{digest}");
            for answer in [whole, server.head(&path).is(200)] {
                answer
                    .has("Content-Length", &bytes.len().to_string())
                    .has("Content-Type", "application/octet-stream")
                    .has("Accept-Ranges", "bytes")
                    .has("ETag", &format!("\"{digest}\""))
                    .has("Docker-Content-Digest", &digest)
                    .has("Docker-Distribution-Api-Version", "registry/2.0");
            }
            server.delete(&path).is(202).has("Docker-Content-Digest", &digest);
            gone();
            let other = format!("/v2/other/app/blobs/{}", sha256(&bytes));
            assert!(server.get(&other).is(200).body == bytes, "the bytes live on elsewhere");
        }
    }
}

#[test]
fn conditions_are_answered_without_content() {
    let server = Orlop::start();
    for algorithm in ALGORITHMS {
        for bytes in contents() {
            let digest = push_blob(&server, algorithm, &bytes);
            let (path, own) = (format!("/v2/team/app/blobs/{digest}"), format!("\"{digest}\""));
            let (weak, list) = (format!("W/{own}"), format!("\"x\" , {own}"));
            let cases = [
                (vec![("If-None-Match", own.as_str())], 304),
                (vec![("If-None-Match", &weak)], 304),
                (vec![("If-None-Match", &list)], 304),
                (vec![("If-None-Match", "*")], 304),
                (vec![("If-None-Match", "\"x\""), ("If-None-Match", &own)], 304),
                // The condition comes before the range.
                (vec![("If-None-Match", &own), ("Range", "bytes=0-0")], 304),
                (vec![("If-None-Match", "\"x\"")], 200),
                (vec![("If-None-Match", &digest)], 200),
                (vec![("If-None-Match", "\"é\"")], 200),
                (vec![("If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT")], 200),
            ];
            for (headers, status) in cases {
                for method in ["GET", "HEAD"] {
                    let answer = server.send(method, &path, &headers, "").is(status).has("ETag", &own);
                    let expected = if status == 200 && method == "GET" { &bytes[..] } else { b"" };
                    assert!(answer.has("Docker-Content-Digest", &digest).body == expected, "{method} {headers:?}");
                }
            }
        }
    }
}

#[test]
fn a_blob_can_be_deleted_once_only_deleted_manifests_name_it() {
    let server = Orlop::start();
    for (number, algorithm) in ALGORITHMS.into_iter().enumerate() {
        let config = noise(number as u64, 100);
        server.push_blob("team/app", &config);
        let path = format!("/v2/team/app/blobs/{}", sha256(&config));
        let manifests: Vec<String> = ["one", "two"]
            .map(|name| {
                let mut manifest = image(&config, &[]);
                manifest["annotations"] = serde_json::json!({ "name": name });
                let manifest = manifest.to_string();
                let digest = digest(algorithm, &manifest);
                server.put_manifest("team/app", &digest, OCI_MANIFEST, &manifest).is(201);
                digest
            })
            .to_vec();
        let by_digest = |digest: &String| format!("/v2/team/app/manifests/{digest}");
        let answer = server.delete(&path).refused(405, "UNSUPPORTED", &sha256(&config)).has("allow", "GET, HEAD");
        let named = answer.json()["errors"][0]["detail"]["manifest"].as_str().unwrap().to_owned();
        let other = manifests.iter().find(|digest| **digest != named).unwrap();
        server.delete(&by_digest(&named)).is(202);
        server.delete(&path).refused(405, "UNSUPPORTED", other);
        server.get(&path).is(200);
        server.delete(&by_digest(other)).is(202);
        server.delete(&path).is(202);
        server.get(&path).is(404);
    }
}
