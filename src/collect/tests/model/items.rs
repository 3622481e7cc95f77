//! The blobs and manifests of the model test: a fixed graph with all that makes lives hard to tell.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    digest::{Algorithm, Digest},
    journal::operation::Role,
    registry::manifest::{OCI_INDEX, OCI_MANIFEST},
};

/// Uploads above this have a segment of their own.
pub(super) const LARGE_BLOB_BYTES: usize = 4_000;

/// Something that is pushed: a blob, or a manifest that names blobs and manifests.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
    pub(super) media_type: &'static str,
    /// Items that it names, and as what.
    pub(super) references: Vec<(Role, usize)>,
    /// The item that it refers to.
    pub(super) subject: Option<usize>,
}

impl Item {
    /// Items that it names as blobs.
    pub(super) fn blobs(&self) -> impl Iterator<Item = usize> {
        self.references.iter().filter(|(role, _)| role.is_blob()).map(|(_, item)| *item)
    }

    /// Items that it names as children.
    pub(super) fn children(&self) -> impl Iterator<Item = usize> {
        self.references.iter().filter(|(role, _)| !role.is_blob()).map(|(_, item)| *item)
    }
}

/// Lengths of the blobs, which come first; two are large.
const BLOBS: [usize; 11] = [0, 20, 300, 900, 1_500, 40, 700, 2_500, 5_000, 9_000, 64];

/// Number of blobs.
pub(super) const BLOBS_END: usize = BLOBS.len();

/// All of them; what is named comes before what names it.
pub(super) fn all() -> Vec<Item> {
    use Role::{Child, Config, ForeignLayer, IndexedBlob, Layer};
    let mut items: Vec<Item> = BLOBS.iter().enumerate().map(|(number, &len)| blob(number, len)).collect();
    // 11: one digest as config and layer.
    image(&mut items, &[(Config, 1), (Layer, 1)], None);
    // 12, 13, 14: images that share layers; the last one names a layer that may be absent.
    image(&mut items, &[(Config, 1), (Layer, 2), (Layer, 3)], None);
    image(&mut items, &[(Config, 2), (Layer, 3), (Layer, 8)], None);
    image(&mut items, &[(Config, 4), (Layer, 0), (ForeignLayer, 9)], None);
    // 15, 16, 17: indexes that share a child, and one of indexes.
    index(&mut items, &[(Child, 11), (Child, 12)], None);
    index(&mut items, &[(Child, 12), (Child, 13)], None);
    index(&mut items, &[(Child, 15), (Child, 14), (IndexedBlob, 10)], None);
    // 18, 19: a signature, and the signature of that.
    image(&mut items, &[(Config, 5), (Layer, 6)], Some(12));
    image(&mut items, &[(Config, 5), (Layer, 6)], Some(18));
    // 20, 21: referrers that are indexes of each other's subjects.
    index(&mut items, &[(Child, 13)], Some(11));
    index(&mut items, &[(Child, 11)], Some(13));
    // 22: a referrer that is an index of its own subject.
    index(&mut items, &[(Child, 14)], Some(14));
    // 23: the signature of an index of indexes.
    image(&mut items, &[(Config, 5), (Layer, 7)], Some(17));
    // 24: an index of nothing. 25: an index of an index that refers to something.
    index(&mut items, &[], None);
    index(&mut items, &[(Child, 20), (Child, 24)], None);
    items
}

fn blob(number: usize, len: usize) -> Item {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
    let algorithm = if number == 6 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    let digest = Digest::of(algorithm, &bytes);
    Item { bytes: bytes.into(), digest, media_type: "", references: Vec::new(), subject: None }
}

fn image(items: &mut Vec<Item>, references: &[(Role, usize)], subject: Option<usize>) {
    let of = |wanted: fn(Role) -> bool| -> Vec<Value> {
        references.iter().filter(|(role, _)| wanted(*role)).map(|&(role, item)| descriptor(items, role, item)).collect()
    };
    let config = of(|role| role == Role::Config).remove(0);
    let layers = of(|role| role != Role::Config);
    let document = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
    manifest(items, OCI_MANIFEST, document, references, subject);
}

fn index(items: &mut Vec<Item>, references: &[(Role, usize)], subject: Option<usize>) {
    let manifests: Vec<Value> = references.iter().map(|&(role, item)| descriptor(items, role, item)).collect();
    let document = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    manifest(items, OCI_INDEX, document, references, subject);
}

fn manifest(
    items: &mut Vec<Item>,
    media_type: &'static str,
    mut document: Value,
    references: &[(Role, usize)],
    subject: Option<usize>,
) {
    if let Some(subject) = subject {
        document["subject"] = descriptor(items, Role::Child, subject);
    }
    // No two are the same.
    document["annotations"] = json!({ "number": items.len().to_string() });
    let bytes = document.to_string().into_bytes();
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    items.push(Item { bytes: bytes.into(), digest, media_type, references: references.to_vec(), subject });
}

fn descriptor(items: &[Item], role: Role, item: usize) -> Value {
    let Item { bytes, digest, media_type, .. } = &items[item];
    let media_type = match role {
        Role::Config => "application/vnd.oci.image.config.v1+json",
        Role::ForeignLayer => "application/vnd.oci.image.layer.nondistributable.v1.tar",
        Role::Layer | Role::IndexedBlob => "application/vnd.oci.image.layer.v1.tar",
        Role::Child => media_type,
    };
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
}
