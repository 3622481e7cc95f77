//! Content to push: bytes that are the same in every run, and manifests of it.

use orlop::digest::{Algorithm, Digest};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(Algorithm::Sha256, bytes.as_ref()).to_string()
}

pub(crate) fn sha512(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(Algorithm::Sha512, bytes.as_ref()).to_string()
}

/// Bytes that no compression and no confusion of offsets gets past.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// A descriptor of some bytes.
pub(crate) fn descriptor(media_type: &str, bytes: impl AsRef<[u8]>) -> Value {
    let bytes = bytes.as_ref();
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

/// An image manifest without `mediaType`.
pub(crate) fn image(config: impl AsRef<[u8]>, layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    json!({ "schemaVersion": 2, "config": config, "layers": layers })
}

/// An index of image manifests.
pub(crate) fn index(children: &[&str]) -> Value {
    let children: Vec<Value> = children.iter().map(|child| descriptor(OCI_MANIFEST, child)).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children })
}
