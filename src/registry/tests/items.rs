//! The blobs and manifests that are pushed: made from a seed, the same for every repository.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    digest::{Algorithm, Digest},
    journal::operation::Role,
    registry::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const SIGNATURE: &str = "application/vnd.example.signature";

/// Something that can be pushed as a blob and, if it is a document, as a manifest.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
    pub(super) document: Option<Document>,
}

/// What a manifest says.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// The type that it is usually pushed with.
    pub(super) media_type: &'static str,
    /// Role, digest and stated size, in the order of the document.
    pub(super) references: Vec<(Role, Digest, u64)>,
    pub(super) subject: Option<Digest>,
    pub(super) artifact_type: Option<&'static str>,
}

impl Item {
    pub(super) fn blob(algorithm: Algorithm, bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(algorithm, &bytes), bytes: bytes.into(), document: None }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// A manifest: an index when it has children or no config.
    pub(super) fn manifest(algorithm: Algorithm, document: Document, salt: u64) -> Self {
        let descriptor = |(role, digest, size): &(Role, Digest, u64)| {
            let media_type = match role {
                Role::Config => CONFIG,
                Role::Layer | Role::IndexedBlob => "application/vnd.oci.image.layer.v1.tar",
                Role::ForeignLayer => "application/vnd.oci.image.layer.nondistributable.v1.tar",
                Role::Child => OCI_MANIFEST,
            };
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
        };
        let of = |roles: &[Role]| {
            let chosen = document.references.iter().filter(|(role, ..)| roles.contains(role));
            chosen.map(descriptor).collect::<Vec<_>>().join(",")
        };
        let body = if document.media_type == OCI_INDEX {
            format!(r#""manifests":[{}]"#, of(&[Role::Child, Role::IndexedBlob]))
        } else {
            format!(r#""config":{},"layers":[{}]"#, of(&[Role::Config]), of(&[Role::Layer, Role::ForeignLayer]))
        };
        let subject = document.subject.map(|digest| (Role::Child, digest, 7));
        let subject = subject.map_or(String::new(), |subject| format!(r#","subject":{}"#, descriptor(&subject)));
        let artifact_type = document.artifact_type.map_or(String::new(), |text| format!(r#","artifactType":"{text}""#));
        let text = format!(r#"{{"schemaVersion":2,{body}{subject}{artifact_type},"annotations":{{"salt":"{salt}"}}}}"#);
        Self { document: Some(document), ..Self::blob(algorithm, text.into_bytes()) }
    }

    /// What it says that it is: by itself, or by its config.
    pub(super) fn artifact_type(&self) -> Option<&'static str> {
        let document = self.document.as_ref()?;
        let has_config = document.media_type != OCI_INDEX;
        document.artifact_type.filter(|text| !text.is_empty()).or(has_config.then_some(CONFIG))
    }
}

/// Blobs of lengths around every bound, then manifests; what a manifest names comes before it, except for subjects.
pub(super) fn random(random: &mut fastrand::Rng) -> Vec<Item> {
    let mut items = Vec::new();
    for len in [0, 1, 50, 700, 3_999, 4_000, 4_001, 9_000, 65_536, 120_000] {
        let algorithm = if random.u8(..5) == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        items.push(Item::blob(algorithm, std::iter::repeat_with(|| random.u8(..)).take(len).collect()));
    }
    let blobs = items.len();
    for salt in 0..18 {
        let document = document(random, &items, blobs);
        let algorithm = if random.u8(..8) == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        items.push(Item::manifest(algorithm, document, salt));
    }
    items
}

fn document(random: &mut fastrand::Rng, items: &[Item], blobs: usize) -> Document {
    let has_manifests = items.len() > blobs;
    let is_index = has_manifests && random.bool();
    let mut references: Vec<(Role, Digest, u64)> = Vec::new();
    let mut wrong_size = BTreeSet::new();
    let mut name = |role: Role, item: &Item, wrong: bool| {
        // The parser refuses a digest that stands there with two sizes.
        if wrong && !references.iter().any(|(_, digest, _)| *digest == item.digest) {
            wrong_size.insert(item.digest);
        }
        let size = item.len() + u64::from(wrong_size.contains(&item.digest));
        if !references.iter().any(|(before, digest, _)| (*before, *digest) == (role, item.digest)) {
            references.push((role, item.digest, size));
        }
    };
    let wrong = random.u8(..10) == 0;
    if is_index {
        for _ in 0..random.usize(..4) {
            name(Role::Child, &items[random.usize(blobs..items.len())], wrong);
        }
        if random.u8(..3) == 0 {
            name(Role::IndexedBlob, &items[random.usize(..items.len())], false);
        }
    } else {
        let config = random.usize(..blobs);
        name(Role::Config, &items[config], false);
        for _ in 0..random.usize(..4) {
            name(Role::Layer, &items[random.usize(..blobs)], wrong);
        }
        match random.u8(..6) {
            0 => name(Role::Layer, &items[config], false),
            1 | 2 => name(Role::ForeignLayer, &items[random.usize(..blobs)], false),
            // A manifest's bytes as a layer: content that is both.
            3 if has_manifests => name(Role::Layer, &items[random.usize(blobs..items.len())], false),
            _ => {}
        }
    }
    let subject = (random.u8(..3) == 0).then(|| match random.bool() {
        true if has_manifests => items[random.usize(blobs..items.len())].digest,
        _ => Digest::of(Algorithm::Sha256, &[random.u8(..3)]),
    });
    let media_type = match (is_index, random.bool()) {
        (true, _) => OCI_INDEX,
        (false, true) => OCI_MANIFEST,
        (false, false) => DOCKER_MANIFEST,
    };
    let artifact_type = [None, Some(""), Some(SIGNATURE)][random.usize(..3)];
    Document { media_type, references, subject, artifact_type }
}
