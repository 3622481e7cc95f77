//! Tagged manifests for benches.

use std::sync::Arc;

use bytes::Bytes;
use orlop::{
    Algorithm, Digest,
    registry::{Registry, RegistryOptions},
};

use crate::{
    engine::Engine,
    table::{Failure, Outcome},
};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &[u8] = b"{}";

/// The manifests of an engine's repository.
pub(crate) struct Images<'a> {
    engine: &'a Engine,
    /// The registry over the engine's store.
    pub(crate) registry: Registry,
}

impl<'a> Images<'a> {
    /// Pushes what all manifests name.
    pub(crate) fn of(engine: &'a Engine) -> Result<Self, Failure> {
        let options = RegistryOptions {
            sparse: orlop::registry::Sparse::Off,
            manifest_bytes_max: 4 << 20,
            references_max: 30_000,
            json_depth_max: 64,
            uploads_max: 10_000,
        };
        engine.store.put(&engine.repository, Algorithm::Sha256, CONFIG)?;
        Ok(Self { engine, registry: Registry::new(Arc::clone(&engine.store), options)? })
    }

    /// Pushes a manifest of its own with the tags `{prefix}-0…`, a hundred at most.
    pub(crate) fn push(&self, prefix: &str, tags: u64) -> Outcome {
        let config = Digest::of(Algorithm::Sha256, CONFIG);
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{TYPE}\",\"config\":{{\"mediaType\":\"application/json\",\
             \"digest\":\"{config}\",\"size\":{}}},\"layers\":[],\"annotations\":{{\"n\":\"{prefix}\"}}}}",
            CONFIG.len()
        );
        let tags: Result<Vec<_>, _> = (0..tags).map(|tag| format!("{prefix}-{tag}").parse()).collect();
        self.registry.put_manifest(&self.engine.repository, None, &tags?, Some(TYPE), &Bytes::from(manifest))?;
        Ok(())
    }
}
