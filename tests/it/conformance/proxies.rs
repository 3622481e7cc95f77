use crate::harness::{OCI_MANIFEST, Orlop, sha256};

#[test]
fn a_namespace_changes_nothing_and_is_told_back_on_every_route() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "latest", 1);
    let blob = server.push_blob("team/app", b"content");
    let upload = server.start_upload("team/app");
    let digest = sha256(&manifest);
    let routes = [
        ("GET", "/v2/".to_owned(), 200),
        ("GET", "/v2/_catalog".to_owned(), 200),
        ("GET", "/v2/team/app/tags/list".to_owned(), 200),
        ("GET", "/v2/team/app/manifests/latest".to_owned(), 200),
        ("HEAD", format!("/v2/team/app/manifests/{digest}"), 200),
        ("GET", format!("/v2/team/app/blobs/{blob}"), 200),
        ("HEAD", format!("/v2/team/app/blobs/{blob}"), 200),
        ("POST", "/v2/team/app/blobs/uploads/".to_owned(), 202),
        ("GET", upload.clone(), 204),
        ("PATCH", upload.clone(), 202),
        ("PUT", format!("{upload}?digest={}", sha256("")), 201),
        ("GET", "/v2/team/app/manifests/missing".to_owned(), 404),
        ("GET", "/v2/nobody/here/tags/list".to_owned(), 404),
        ("DELETE", "/v2/team/app/manifests/latest".to_owned(), 202),
        ("GET", "/nothing".to_owned(), 404),
    ];
    for (method, path, status) in routes {
        let separator = if path.contains('?') { '&' } else { '?' };
        let answer = server.send(method, &format!("{path}{separator}ns=docker.io"), &[], "").is(status);
        answer.has("OCI-Namespace", "docker.io").has("Docker-Distribution-Api-Version", "registry/2.0");
    }
    server.send("PUT", "/v2/team/app/manifests/x?ns=docker.io", &[("Content-Type", OCI_MANIFEST)], &manifest).is(201);
}

#[test]
fn what_is_no_host_is_passed_over() {
    let server = Orlop::start();
    let long = format!("ns={}", "a".repeat(261));
    let cases = [
        ("ns=localhost:5000", Some("localhost:5000")),
        ("ns=%5B::1%5D:5000", Some("[::1]:5000")),
        ("x=y&ns=ghcr.io&ns=quay.io", Some("ghcr.io")),
        ("ns=", None),
        ("ns", None),
        ("answers=docker.io", None),
        ("ns=a%0d%0aSet-Cookie:%20x", None),
        ("ns=%00", None),
        ("ns=%ff", None),
        ("ns=%C3%A9.example", None),
        ("ns=a/b", None),
        (&long, None),
    ];
    for (query, expected) in cases {
        let answer = server.get(&format!("/v2/?{query}")).is(200);
        assert_eq!(answer.header("oci-namespace"), expected, "{query}");
        assert_eq!(answer.header("set-cookie"), None);
    }
}
