//! What must hold for manifests of any bytes. For fuzzers and tests only.

use super::{
    json,
    manifest::{self, DOCKER_LIST, DOCKER_MANIFEST, MEDIA_TYPES, ManifestBounds, OCI_INDEX, OCI_MANIFEST},
    platform,
};
use crate::digest::{Algorithm, Digest};

const BOUNDS: ManifestBounds = ManifestBounds { references_max: 8, depth_max: 16 };

/// What is accepted is within its bounds, means the same under its own type and in other words, and names nothing twice.
pub(crate) fn manifest(input: &[u8]) {
    let (&mode, bytes) = input.split_first().unwrap_or((&0, &[]));
    let content_type = MEDIA_TYPES.get(usize::from(mode)).copied();
    let strict = json::check(bytes, BOUNDS.depth_max);
    let value = serde_json::from_slice::<serde_json::Value>(bytes);
    assert!(strict.is_err() || value.is_ok(), "what is checked is no JSON");
    let _ = platform::default_entry(bytes);
    let Ok(content) = manifest::parse(bytes, content_type, BOUNDS) else { return };
    assert!(strict.is_ok() && content.size == bytes.len() as u64);
    assert!(content.references.len() + usize::from(content.subject.is_some()) <= BOUNDS.references_max);
    assert!(MEDIA_TYPES.contains(&content.media_type.as_str()));
    assert_eq!(manifest::parse(bytes, Some(&content.media_type), BOUNDS).as_ref(), Ok(&content));
    let named = |a: usize, b: usize| {
        let (a, b) = (content.references[a], content.references[b]);
        (a.role, a.digest) != (b.role, b.digest) && (a.digest != b.digest || a.size == b.size)
    };
    assert!((0..content.references.len()).all(|a| (0..a).all(|b| named(a, b))));
    let Ok(value) = value else { return };
    let again = value.to_string();
    let same = manifest::parse(again.as_bytes(), content_type, BOUNDS);
    let same = same.map(|same| (same.media_type, same.artifact_type, same.subject, same.references));
    assert_eq!(same, Ok((content.media_type, content.artifact_type, content.subject, content.references)));
}

/// Documents of each type, and some that are to be refused.
pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    let [a, b] = [&b"a"[..], b"b"].map(|bytes| Digest::of(Algorithm::Sha256, bytes).to_string());
    let c = Digest::of(Algorithm::Sha512, b"c").to_string();
    let image = |media_type: &str, more: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"c/c","digest":"{a}","size":1}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{b}","size":1}},{{"mediaType":"l/l","digest":"{c}","size":9}}]{more}}}"#
        )
    };
    let index = |media_type: &str, child: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{{"mediaType":"{child}","digest":"{a}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}},{{"mediaType":"x/y","digest":"{b}","size":7}}],"annotations":{{"a":"\u00e9"}}}}"#
        )
    };
    let subject = format!(r#","subject":{{"mediaType":"m/m","digest":"{b}","size":3}},"artifactType":"a/b""#);
    let documents = [
        image(OCI_MANIFEST, &subject),
        image(DOCKER_MANIFEST, ""),
        index(OCI_INDEX, OCI_MANIFEST),
        index(DOCKER_LIST, DOCKER_MANIFEST),
        image(OCI_MANIFEST, r#","a":1,"a":2"#),
        image(OCI_MANIFEST, r#","x":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]"#),
        r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
        r#"{"schemaVersion":2.0,"config":null,"layers":[]}"#.to_owned(),
        r#"{"schemaVersion":2e0,"mediaType":null}"#.to_owned(),
    ];
    documents.iter().flat_map(|text| [0, 9].map(|mode| [&[mode], text.as_bytes()].concat())).collect()
}
