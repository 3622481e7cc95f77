use super::leaves_no_trace;
use crate::harness::{OCI_MANIFEST, noise, sha256, sha512};

#[test]
fn malformed_digests_are_refused_on_every_route() {
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let digests = [
        "sha256:".to_owned(),
        "sha256:abc".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}00"),
        format!("sha256:{}zz", &hex[2..]),
        format!("sha512:{hex}"),
        format!("md5:{}", &hex[..32]),
        format!("SHA256:{hex}"),
        format!(":{hex}"),
        format!("sha256:..%2f..%2f{}", &hex[10..]),
        format!("sha256:{}%00", &hex[1..]),
    ];
    leaves_no_trace(&[], |server| {
        let upload = server.start_upload("team/app");
        let manifest = String::from_utf8(server.get("/v2/team/app/manifests/latest").body).unwrap();
        for digest in &digests {
            // What is shown is decoded; up to the first encoded character it is the same.
            let named = digest.split('%').next().unwrap();
            let refused = |method: &str, path: &str, body: &[u8]| {
                server.send(method, path, &[], body).refused(400, "DIGEST_INVALID", named);
            };
            refused("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}"), b"x");
            refused("POST", &format!("/v2/team/app/blobs/uploads/?mount={digest}&from=team/app"), b"");
            refused("POST", &format!("/v2/team/app/blobs/uploads/?mount={digest}"), b"");
            refused("PUT", &format!("{upload}?digest={digest}"), b"x");
            refused("PUT", &format!("/v2/team/app/manifests/{digest}"), manifest.as_bytes());
            for resource in ["blobs", "manifests"] {
                refused("GET", &format!("/v2/team/app/{resource}/{digest}"), b"");
                refused("DELETE", &format!("/v2/team/app/{resource}/{digest}"), b"");
                assert_eq!(server.head(&format!("/v2/team/app/{resource}/{digest}")).status, 400);
            }
        }
        // Without a colon it is a tag where tags are, and no digest elsewhere.
        for path in ["/v2/team/app/blobs/latest".to_owned(), format!("/v2/team/app/blobs/{hex}")] {
            server.get(&path).refused(400, "DIGEST_INVALID", path.rsplit('/').next().unwrap());
        }
        for path in ["/v2/team/app/blobs/uploads/?digest=", "/v2/team/app/blobs/uploads/?mount="] {
            server.post(path).refused(400, "DIGEST_INVALID", "digest");
        }
        // The session that was refused so often is still open.
        server.delete(&upload).is(204);
    });
}

#[test]
fn content_with_another_digest_is_not_stored() {
    let (small, large) = (noise(7, 500), noise(8, 300_000));
    leaves_no_trace(&[], |server| {
        for bytes in [&small, &large] {
            for (wrong, right) in [(sha256("x"), sha256(bytes)), (sha512("x"), sha512(bytes))] {
                let refused = |answer: crate::harness::Answer| {
                    let answer = answer.refused(400, "DIGEST_INVALID", &wrong);
                    assert_eq!(answer.json()["errors"][0]["detail"]["found"], right.as_str());
                };
                let path = format!("/v2/team/app/blobs/uploads/?digest={wrong}");
                refused(server.send("POST", &path, &[], bytes));
                let upload = server.start_upload("team/app");
                refused(server.put(&upload, &wrong, bytes));
                server.get(&upload).refused(404, "BLOB_UPLOAD_UNKNOWN", upload.rsplit('/').next().unwrap());
                let upload = server.start_upload("team/app");
                server.patch(&upload, 0, bytes).is(202);
                refused(server.put(&upload, &wrong, b""));
                let upload = server.start_upload("new/repository");
                server.patch(&upload, 0, &bytes[..100]).is(202);
                refused(server.put(&upload, &wrong, &bytes[100..]));
                for digest in [&wrong, &right] {
                    assert_eq!(server.head(&format!("/v2/team/app/blobs/{digest}")).status, 404);
                }
            }
        }
    });
}

#[test]
fn a_manifest_with_another_digest_is_not_stored() {
    leaves_no_trace(&[], |server| {
        let manifest = String::from_utf8(server.get("/v2/team/app/manifests/latest").body).unwrap() + " ";
        for wrong in [sha256("x"), sha512("x")] {
            let answer = server.put_manifest("team/app", &format!("{wrong}?tag=other"), OCI_MANIFEST, &manifest);
            answer.refused(400, "DIGEST_INVALID", &wrong);
        }
        server.get(&format!("/v2/team/app/manifests/{}", sha256(&manifest))).is(404);
        server.get("/v2/team/app/manifests/other").is(404);
    });
}
