use crate::harness::{OCI_MANIFEST, Orlop, sha256};

/// Follows `Link` from a first page to the end; all names, and how many pages there were.
fn follow(server: &Orlop, first: &str, field: &str) -> (Vec<String>, usize) {
    let (mut path, mut names, mut pages) = (first.to_owned(), Vec::new(), 0);
    loop {
        let answer = server.get(&path).is(200);
        let page: Vec<String> = serde_json::from_value(answer.json()[field].clone()).unwrap();
        names.extend(page);
        pages += 1;
        assert!(pages < 1_000, "the pages do not end");
        let Some(link) = answer.header("link") else { return (names, pages) };
        let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        path = next.unwrap_or_else(|| panic!("{link}")).to_owned();
    }
}

#[test]
fn tags_come_in_pages_to_the_end() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "latest", 1);
    let mut expected: Vec<String> = (0..99).map(|n| format!("v{n}")).collect();
    let query: String = expected.iter().map(|tag| format!("&tag={tag}")).collect();
    let reference = format!("{}?{}", sha256(&manifest), query.trim_start_matches('&'));
    server.put_manifest("team/app", &reference, OCI_MANIFEST, &manifest).is(201);
    expected.extend(["latest", "A", "_x", "v1.0-rc.1"].map(str::to_owned));
    for tag in &expected[100..] {
        server.put_manifest("team/app", tag, OCI_MANIFEST, &manifest).is(201);
    }
    server.push_image("team/app-2", "another", 2);
    expected.sort();
    for (n, pages) in [(1, 103), (2, 52), (10, 11), (102, 2), (103, 1), (104, 1)] {
        let found = follow(&server, &format!("/v2/team/app/tags/list?n={n}"), "tags");
        assert_eq!(found, (expected.clone(), pages), "n={n}");
    }
    let (all, _) = follow(&server, "/v2/team/app/tags/list", "tags");
    assert_eq!(all, expected);
    let (after, _) = follow(&server, "/v2/team/app/tags/list?n=7&last=v50", "tags");
    assert_eq!(after, expected[expected.iter().position(|tag| tag == "v51").unwrap()..]);
    let answer = server.get("/v2/team/app/tags/list").is(200);
    assert_eq!(answer.json()["name"], "team/app");
}

#[test]
fn repositories_come_in_pages_to_the_end() {
    let server = Orlop::start();
    let mut expected: Vec<String> = (0..20).map(|n| format!("team/app-{n}")).collect();
    expected.extend(["a", "team", "team-2/x", "team/app-1/x", "z.z/z__z/0"].map(str::to_owned));
    for repository in &expected {
        server.push_blob(repository, b"content");
    }
    expected.sort();
    for (n, pages) in [(1, 25), (4, 7), (24, 2), (25, 1), (26, 1)] {
        let found = follow(&server, &format!("/v2/_catalog?n={n}"), "repositories");
        assert_eq!(found, (expected.clone(), pages), "n={n}");
    }
    let (after, _) = follow(&server, "/v2/_catalog?n=3&last=team%2Fapp-1", "repositories");
    assert_eq!(after, expected[expected.iter().position(|name| name == "team/app-1").unwrap() + 1..]);
    // A name that is not there is a place all the same.
    let (after, _) = follow(&server, "/v2/_catalog?last=team/app-19x", "repositories");
    assert_eq!(after[0], "team/app-2");
}
