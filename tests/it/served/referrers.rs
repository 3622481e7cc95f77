use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use serde_json::{Value, json};

use crate::harness::{Answer, OCI_INDEX, OCI_MANIFEST, Orlop, descriptor, image, index, sha256, sha512};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const SBOM: &str = "application/vnd.example.sbom.v1+json";

fn list(server: &Orlop, subject: &str, query: &str) -> Answer {
    let answer = server.get(&format!("/v2/team/app/referrers/{subject}{query}")).is(200);
    let answer = answer.has("Content-Type", OCI_INDEX);
    let index = answer.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    answer
}

fn descriptors(answer: &Answer) -> Vec<Value> {
    serde_json::from_value(answer.json()["manifests"].clone()).unwrap()
}

/// Follows `Link` to the end; all descriptors, and how many pages there were.
fn follow(server: &Orlop, subject: &str, query: &str) -> (Vec<Value>, usize) {
    let (mut query, mut found, mut pages) = (query.to_owned(), Vec::new(), 0);
    loop {
        let answer = list(server, subject, &query);
        found.extend(descriptors(&answer));
        pages += 1;
        assert!(pages < 1_000, "the pages do not end");
        let Some(link) = answer.header("link") else { return (found, pages) };
        let next = link.strip_prefix(&format!("</v2/team/app/referrers/{subject}"));
        query =
            next.and_then(|next| next.strip_suffix(">; rel=\"next\"")).unwrap_or_else(|| panic!("{link}")).to_owned();
    }
}

/// A signature-like image that is like no other.
fn referrer(subject: &Value, artifact_type: Option<&str>, annotations: Value) -> String {
    let mut manifest = image("{}", &[]);
    manifest["mediaType"] = json!(OCI_MANIFEST);
    manifest["subject"] = subject.clone();
    manifest["annotations"] = annotations;
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = json!(artifact_type);
    }
    manifest.to_string()
}

/// Pushes by digest, and the answer says that the subject was understood.
fn push(server: &Orlop, media_type: &str, subject: &str, text: &str) {
    let answer = server.put_manifest("team/app", &sha256(text), media_type, text).is(201);
    answer.has("OCI-Subject", subject);
}

#[test]
fn referrers_are_listed_with_type_and_annotations_from_before_their_subject_until_they_are_deleted() {
    let server = Orlop::start();
    server.push_blob("team/app", "{}");
    let subject = image("{}", &[]).to_string();
    let named = descriptor(OCI_MANIFEST, &subject);
    let digest = sha256(&subject);
    assert_eq!(descriptors(&list(&server, &digest, "")), [] as [Value; 0], "no repository has it, and it is 200");

    let annotations = json!({ "org.opencontainers.image.created": "2022-01-01T14:42:55Z", "é\"\n": "\\" });
    let by_config = referrer(&named, None, json!({}));
    let by_type = referrer(&named, Some(SBOM), annotations.clone());
    let by_empty_type = referrer(&named, Some(""), json!({ "a": "b" }));
    let mut plain_index = index(&[]);
    plain_index["subject"] = named.clone();
    let mut typed_index = plain_index.clone();
    typed_index["artifactType"] = json!(SBOM);
    let (plain_index, typed_index) = (plain_index.to_string(), typed_index.to_string());
    let mut expected: Vec<Value> = [
        (OCI_MANIFEST, &by_config, json!({ "artifactType": CONFIG, "annotations": {} })),
        (OCI_MANIFEST, &by_type, json!({ "artifactType": SBOM, "annotations": annotations })),
        (OCI_MANIFEST, &by_empty_type, json!({ "artifactType": CONFIG, "annotations": { "a": "b" } })),
        (OCI_INDEX, &plain_index, json!({})),
        (OCI_INDEX, &typed_index, json!({ "artifactType": SBOM })),
    ]
    .into_iter()
    .map(|(media_type, text, fields)| {
        push(&server, media_type, &digest, text);
        let mut expected = descriptor(media_type, text);
        expected.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        expected
    })
    .collect();
    expected.sort_by_key(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
    assert_eq!(descriptors(&list(&server, &digest, "")), expected, "the subject may come later");
    server.put_manifest("team/app", "latest", OCI_MANIFEST, &subject).is(201);
    assert_eq!(descriptors(&list(&server, &digest, "")), expected);
    assert_eq!(server.head(&format!("/v2/team/app/referrers/{digest}")).is(200).body, b"");

    server.delete(&format!("/v2/team/app/manifests/{}", sha256(&by_type))).is(202);
    expected.retain(|descriptor| descriptor["digest"] != json!(sha256(&by_type)));
    assert_eq!(descriptors(&list(&server, &digest, "")), expected, "gone at once");
    server.delete(&format!("/v2/team/app/manifests/{digest}")).is(202);
    assert_eq!(descriptors(&list(&server, &digest, "")), expected, "its subject is gone, they are not");
    push(&server, OCI_MANIFEST, &digest, &by_type);
    assert_eq!(descriptors(&list(&server, &digest, "")).len(), 5, "pushed again");
}

#[test]
fn a_filter_is_applied_and_said_to_be() {
    let server = Orlop::start();
    server.push_blob("team/app", "{}");
    let named = descriptor(OCI_MANIFEST, "a subject that never comes");
    let subject = sha256("a subject that never comes");
    for n in 0..12 {
        let artifact_type = [None, Some(SBOM), Some("a/b")][n % 3];
        push(&server, OCI_MANIFEST, &subject, &referrer(&named, artifact_type, json!({ "n": n.to_string() })));
    }
    let cases = [
        ("?artifactType=application%2Fvnd.example.sbom.v1%2Bjson", vec![SBOM]),
        ("?artifactType=application/vnd.example.sbom.v1+json", vec![SBOM]),
        ("?artifactType=application/vnd.oci.image.config.v1%2Bjson", vec![CONFIG]),
        ("?artifactType=a/b&artifactType=application/vnd.example.sbom.v1%2Bjson", vec!["a/b", SBOM]),
        ("?artifactType=a/c", vec![]),
    ];
    for (query, types) in cases {
        let answer = list(&server, &subject, query).has("OCI-Filters-Applied", "artifactType");
        let found = descriptors(&answer);
        assert_eq!(found.len(), 4 * types.len(), "{query}");
        assert!(found.iter().all(|descriptor| types.iter().any(|text| descriptor["artifactType"] == *text)), "{query}");
        for n in [1, 2, 3, 7] {
            assert_eq!(follow(&server, &subject, &format!("{query}&n={n}")).0, found, "{query} in pages of {n}");
        }
    }
    for query in ["", "?artifactType=", "?filter=a/b"] {
        let answer = list(&server, &subject, query);
        assert_eq!((descriptors(&answer).len(), answer.header("oci-filters-applied")), (12, None), "{query}");
    }
}

#[test]
fn referrers_come_in_pages_to_the_end_past_deleted_ones() {
    let server = Orlop::start();
    server.push_blob("team/app", "{}");
    let mut named = descriptor(OCI_MANIFEST, "a subject that never comes");
    named["digest"] = json!(sha512("a subject that never comes"));
    let subject = sha512("a subject that never comes");
    let mut digests = Vec::new();
    for n in 0..30 {
        let text = referrer(&named, None, json!({ "n": n.to_string() }));
        push(&server, OCI_MANIFEST, &subject, &text);
        digests.push(sha256(&text));
    }
    // One that is named by its longer digest comes behind all of the others.
    let text = referrer(&named, None, json!({ "n": "long" }));
    server.put_manifest("team/app", &sha512(&text), OCI_MANIFEST, &text).is(201).has("OCI-Subject", &subject);
    digests.sort();
    digests.push(sha512(&text));
    let found = |(found, pages): (Vec<Value>, usize)| {
        let digests = found.iter().map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
        (digests.collect::<Vec<_>>(), pages)
    };
    for (n, pages) in [(1, 31), (7, 5), (30, 2), (31, 1), (1_000_000_000, 1)] {
        assert_eq!(found(follow(&server, &subject, &format!("?n={n}"))), (digests.clone(), pages), "n={n}");
    }
    let after = format!("?n=4&last={}", digests[9]);
    assert_eq!(found(follow(&server, &subject, &after)).0, digests[10..]);
    let none = list(&server, &subject, "?n=0");
    assert_eq!((descriptors(&none).len(), none.header("link")), (0, None));
    // Pages that hold deleted ones only are empty and lead on.
    for digest in &digests[..20] {
        server.delete(&format!("/v2/team/app/manifests/{digest}")).is(202);
    }
    assert_eq!(found(follow(&server, &subject, "?n=5")), (digests[20..].to_vec(), 7));
    assert_eq!(found(follow(&server, &subject, "")), (digests[20..].to_vec(), 1));
    assert_eq!(found(follow(&server, &sha256("another"), "")), (Vec::new(), 1));

    let path = format!("/v2/team/app/referrers/{subject}");
    for query in ["n=-1", "n=x", "n=18446744073709551616"] {
        server.get(&format!("{path}?{query}")).refused(400, "UNSUPPORTED", "n=");
    }
    server.get(&format!("{path}?last=latest")).refused(400, "DIGEST_INVALID", "latest");
    server.get("/v2/team/app/referrers/latest").refused(400, "DIGEST_INVALID", "latest");
    server.get("/v2/team/app/referrers/sha256:00").refused(400, "DIGEST_INVALID", "sha256:00");
    server.send("PUT", &path, &[], "x").refused(405, "UNSUPPORTED", "GET");
}

/// What is served must not pass the largest manifest, which clients take for the largest index.
#[test]
fn a_page_is_no_longer_than_a_manifest_may_be() {
    let server = Orlop::start_with(&[("registry.manifest_bytes_max", "8KiB")]);
    server.push_blob("team/app", "{}");
    let named = descriptor(OCI_MANIFEST, "a subject that never comes");
    let subject = sha256("a subject that never comes");
    for n in 0..10 {
        let annotations = json!({ "n": n.to_string(), "long": "x".repeat(3_000) });
        push(&server, OCI_MANIFEST, &subject, &referrer(&named, None, annotations));
    }
    let first = list(&server, &subject, "");
    assert_eq!(descriptors(&first).len(), 2);
    assert!(first.body.len() <= 8 << 10, "{} bytes", first.body.len());
    let (found, pages) = follow(&server, &subject, "");
    assert_eq!((found.len(), pages), (10, 5));
}

/// Annotations that the image spec does not know must not spoil the list for those that read it.
#[test]
fn annotations_that_are_no_texts_are_left_out() {
    let server = Orlop::start();
    server.push_blob("team/app", "{}");
    let named = descriptor(OCI_MANIFEST, "a subject that never comes");
    let subject = sha256("a subject that never comes");
    for annotations in [json!({ "a": 1 }), json!(["a"]), json!("a"), json!(null), json!({ "a": { "b": "c" } })] {
        push(&server, OCI_MANIFEST, &subject, &referrer(&named, None, annotations));
    }
    let found = descriptors(&list(&server, &subject, ""));
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|descriptor| descriptor.get("annotations").is_none()), "{found:?}");
}

/// Damage is told, not left out; the pages around it go on, and the next push heals it.
#[test]
fn a_damaged_referrer_is_an_error_of_its_page() {
    let server = Orlop::start();
    server.push_blob("team/app", "{}");
    let named = descriptor(OCI_MANIFEST, "a subject that never comes");
    let subject = sha256("a subject that never comes");
    let texts: Vec<String> = (0..3).map(|n| referrer(&named, None, json!({ "n": format!("number {n}") }))).collect();
    texts.iter().for_each(|text| push(&server, OCI_MANIFEST, &subject, text));
    let mut digests: Vec<String> = texts.iter().map(sha256).collect();
    digests.sort();
    let damaged = texts.iter().find(|text| sha256(text) == digests[1]).unwrap();
    for file in server.segment_files() {
        let bytes = fs::read(&file).unwrap();
        if let Some(at) = bytes.windows(damaged.len()).position(|part| part == damaged.as_bytes()) {
            File::options().write(true).open(&file).unwrap().write_all_at(b"!", at as u64 + 5).unwrap();
        }
    }
    let path = format!("/v2/team/app/referrers/{subject}");
    server.get(&path).refused(500, "UNKNOWN", "damaged");
    let only = |query: &str, digest: &str| {
        let answer = list(&server, &subject, query);
        assert_eq!(descriptors(&answer)[0]["digest"], digest);
        assert_eq!(descriptors(&answer).len(), 1);
    };
    only("?n=1", &digests[0]);
    only(&format!("?last={}", digests[1]), &digests[2]);
    push(&server, OCI_MANIFEST, &subject, damaged);
    assert_eq!(descriptors(&list(&server, &subject, "")).len(), 3);
}
