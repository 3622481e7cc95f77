//! Images of a build cache: a config and a layer of their own, of one of a few sizes, under a tag that is the key.

use std::sync::Arc;

use serde_json::json;

use crate::{
    content::mix,
    measure::stock::{Blob, Stock, block},
    registry::{CallError, Client, MANIFEST_TYPE},
};

const CONFIG_BYTES: u64 = 400;
/// Lengths of layers; the number of an image draws one.
const LAYER_BYTES: [u64; 8] = [5_000, 9_000, 15_000, 22_000, 30_000, 40_000, 55_000, 80_000];
/// Tries of a push whose blobs are driven out by those of others.
const PUSHES_MAX: usize = 5;

/// All images of a seed.
pub(super) struct Images {
    seed: u64,
    config: Stock,
    layers: Vec<Stock>,
}

impl Images {
    pub(super) fn new(seed: u64) -> Self {
        let block: Arc<[u8]> = block();
        let layers = LAYER_BYTES.iter().map(|len| Stock::new(&block, *len)).collect();
        Self { seed, config: Stock::new(&block, CONFIG_BYTES), layers }
    }

    fn size_class(image: u64) -> usize {
        mix(image) as usize % LAYER_BYTES.len()
    }

    /// Bytes of an image's blobs.
    pub(super) fn bytes_of(&self, image: u64) -> u64 {
        CONFIG_BYTES + LAYER_BYTES[Self::size_class(image)]
    }

    /// The most that one has.
    pub(super) fn bytes_most(&self) -> u64 {
        CONFIG_BYTES + LAYER_BYTES.into_iter().max().unwrap_or(0)
    }

    fn blobs(&self, image: u64) -> [Blob; 2] {
        [self.config.blob(self.seed, image), self.layers[Self::size_class(image)].blob(self.seed, image)]
    }

    /// Reads an image; false where it is not there, or goes meanwhile.
    pub(super) fn pull(&self, client: &mut Client, repository: &str, image: u64) -> Result<bool, CallError> {
        let Some((_, manifest)) = if_there(client.manifest(repository, &tag(image)))? else { return Ok(false) };
        if manifest != self.manifest(image) {
            let problem = "the manifest is not the one that was pushed".to_owned();
            return Err(CallError::Wrong { call: format!("GET {repository}:{}", tag(image)), problem });
        }
        for blob in self.blobs(image) {
            if if_there(client.read_blob(repository, &blob.digest))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pushes an image.
    pub(super) fn push(&self, client: &mut Client, repository: &str, image: u64) -> Result<(), CallError> {
        let manifest = self.manifest(image);
        for left in (0..PUSHES_MAX).rev() {
            for blob in self.blobs(image) {
                let location = client.start_upload(repository)?;
                client.finish_upload(&location, &blob, &blob.digest)?;
            }
            match client.put_manifest(repository, &tag(image), &manifest) {
                // Somebody else had pushed it, too, and what he had was driven out.
                Err(CallError::Refused { status: 404, .. }) if left > 0 => {}
                done => return done,
            }
        }
        Ok(())
    }

    fn manifest(&self, image: u64) -> Vec<u8> {
        let [config, layer] = self.blobs(image);
        let described =
            |blob: &Blob, media_type| json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": [described(&layer, "application/vnd.oci.image.layer.v1.tar")],
        });
        manifest.to_string().into_bytes()
    }
}

fn tag(image: u64) -> String {
    format!("key-{image}")
}

fn if_there<T>(result: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(CallError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
