use super::leaves_no_trace;
use crate::harness::{OCI_MANIFEST, sha256};

/// Names as they stand in a path, and what a refusal calls them.
fn bad_names() -> Vec<(String, &'static str)> {
    vec![
        ("..".to_owned(), "\"..\""),
        ("a/../b".to_owned(), "\"a/../b\""),
        ("team/%2e%2e/app".to_owned(), "\"team/../app\""),
        ("team%2fapp".to_owned(), "\"team%2fapp\""),
        ("team%252fapp".to_owned(), "\"team%2fapp\""),
        ("%2e%2e%2f%2e%2e".to_owned(), "\"..%2f..\""),
        ("Team/app".to_owned(), "\"Team/app\""),
        ("team/APP".to_owned(), "\"team/APP\""),
        ("team//app".to_owned(), "\"team//app\""),
        ("/team".to_owned(), "\"/team\""),
        ("team/".to_owned(), "\"team/\""),
        ("-team".to_owned(), "\"-team\""),
        ("team.".to_owned(), "\"team.\""),
        ("te..am".to_owned(), "\"te..am\""),
        ("te___am".to_owned(), "\"te___am\""),
        ("te%20am".to_owned(), "\"te am\""),
        ("te%00am".to_owned(), "repository name"),
        ("te%ffam".to_owned(), "repository name"),
        ("t%C3%A9am".to_owned(), "\"téam\""),
        ("te%5cam".to_owned(), "repository name"),
        ("a".repeat(300), "300"),
        (format!("team/{}", "a".repeat(251)), "256"),
    ]
}

#[test]
fn malformed_names_are_refused_on_every_route() {
    let digest = sha256("x");
    let routes = [
        ("GET", "tags/list".to_owned()),
        ("GET", "manifests/latest".to_owned()),
        ("PUT", "manifests/latest".to_owned()),
        ("DELETE", "manifests/latest".to_owned()),
        ("GET", format!("blobs/{digest}")),
        ("DELETE", format!("blobs/{digest}")),
        ("POST", "blobs/uploads/".to_owned()),
        ("POST", format!("blobs/uploads/?digest={digest}")),
        ("POST", format!("blobs/uploads/?mount={digest}&from=team/app")),
        ("PATCH", "blobs/uploads/00000000000000000000000000000000".to_owned()),
        ("PUT", format!("blobs/uploads/00000000000000000000000000000000?digest={digest}")),
    ];
    leaves_no_trace(&[], |server| {
        for (name, named) in bad_names() {
            for (method, route) in &routes {
                let body = if *method == "POST" { "x" } else { "" };
                let path = format!("/v2/{name}/{route}");
                server.send(method, &path, &[], body).refused(400, "NAME_INVALID", named);
                let head = format!("/v2/{name}/blobs/{digest}");
                assert_eq!(server.head(&head).status, 400, "{head}");
            }
        }
    });
}

#[test]
fn mounting_from_a_malformed_name_is_refused() {
    leaves_no_trace(&[], |server| {
        for from in ["..", "A", "a%2f%2fb", "a%252fb", &"a".repeat(300)] {
            let path = format!("/v2/new/blobs/uploads/?mount={}&from={from}", sha256("x"));
            server.post(&path).refused(400, "NAME_INVALID", "name");
        }
    });
}

#[test]
fn malformed_tags_cannot_be_pushed_and_are_not_there() {
    let long = "a".repeat(129);
    let tags = [
        (".hidden", "\".hidden\""),
        ("-x", "\"-x\""),
        ("a%20b", "\"a b\""),
        ("a%2fb", "\"a/b\""),
        ("%2e%2e", "\"..\""),
        ("t%C3%A9", "\"té\""),
        ("a+b", "\"a+b\""),
        ("", "\"\""),
        (&long, "aaa"),
    ];
    leaves_no_trace(&[], |server| {
        let manifest = server.get("/v2/team/app/manifests/latest").is(200).body;
        let manifest = String::from_utf8(manifest).unwrap();
        let digest = sha256(&manifest);
        for (tag, named) in tags {
            server.put_manifest("team/app", tag, OCI_MANIFEST, &manifest).refused(400, "NAME_INVALID", named);
            let by_query = format!("{digest}?tag={}", tag.replace('+', "%2B"));
            server.put_manifest("team/app", &by_query, OCI_MANIFEST, &manifest).refused(400, "NAME_INVALID", named);
            let path = format!("/v2/team/app/manifests/{tag}");
            assert_eq!(server.get(&path).status, 404, "{tag}");
            assert_eq!(server.delete(&path).status, 404, "{tag}");
        }
    });
}

#[test]
fn what_is_not_there_is_named() {
    let digest = sha256("never pushed");
    leaves_no_trace(&[], |server| {
        let cases = [
            ("GET", "nobody/here/tags/list".to_owned(), "NAME_UNKNOWN", "nobody/here"),
            ("GET", "nobody/here/manifests/latest".to_owned(), "NAME_UNKNOWN", "nobody/here"),
            ("DELETE", "nobody/here/manifests/latest".to_owned(), "NAME_UNKNOWN", "nobody/here"),
            ("GET", "team/app/manifests/other".to_owned(), "MANIFEST_UNKNOWN", "other"),
            ("DELETE", "team/app/manifests/other".to_owned(), "MANIFEST_UNKNOWN", "other"),
            ("GET", format!("team/app/manifests/{digest}"), "MANIFEST_UNKNOWN", &digest),
            ("DELETE", format!("team/app/manifests/{digest}"), "MANIFEST_UNKNOWN", &digest),
            ("GET", format!("team/app/blobs/{digest}"), "BLOB_UNKNOWN", &digest),
            ("DELETE", format!("team/app/blobs/{digest}"), "BLOB_UNKNOWN", &digest),
            ("GET", format!("nobody/here/blobs/{digest}"), "BLOB_UNKNOWN", &digest),
        ];
        for (method, path, code, named) in cases {
            server.send(method, &format!("/v2/{path}"), &[], "").refused(404, code, named);
        }
    });
}
