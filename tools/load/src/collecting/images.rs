//! Images that are pushed and pulled whole, as clients do it; made of numbers, like all that this tool pushes.

use std::sync::Arc;

use serde_json::json;

use crate::{
    content::digest_of,
    measure::stock::{Blob, Stock, block},
    registry::{CallError, Client, MANIFEST_TYPE},
};

/// Lengths of an image's own blobs: its config, and layers.
const OWN_BYTES: [u64; 4] = [700, 2_500, 6_000, 40_000];
/// Length of a base layer, and how many there are.
const BASE_BYTES: u64 = 100_000;
const BASES: u64 = 10;
const BASE_KEY: u64 = u64::MAX;
/// Repositories of an organisation.
const REPOSITORIES: u64 = 20;

/// All images.
pub(super) struct Images {
    own: Vec<Stock>,
    base: Stock,
}

/// An organisation's images of one key, by their numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    pub(super) organisation: &'static str,
    pub(super) key: u64,
    pub(super) number: u64,
}

impl Image {
    pub(super) fn repository(self) -> String {
        format!("{}/app-{}", self.organisation, self.number % REPOSITORIES)
    }

    fn tag(self) -> String {
        format!("v{}-{}", self.key, self.number)
    }
}

impl Images {
    pub(super) fn new() -> Self {
        let block: Arc<[u8]> = block();
        let own = OWN_BYTES.iter().map(|len| Stock::new(&block, *len)).collect();
        Self { own, base: Stock::new(&block, BASE_BYTES) }
    }

    /// Bytes that nobody has any more when an image is gone, without its manifest.
    pub(super) fn own_bytes() -> u64 {
        OWN_BYTES.iter().sum()
    }

    /// Asks for each blob, pushes those that are not there, then the manifest with its tag.
    pub(super) fn push(&self, client: &mut Client, image: Image) -> Result<(), CallError> {
        let repository = image.repository();
        for blob in self.blobs(image) {
            if !client.has_blob(&repository, &blob.digest)? {
                let location = client.start_upload(&repository)?;
                client.finish_upload(&location, &blob, &blob.digest)?;
            }
        }
        client.put_manifest(&repository, &image.tag(), &self.manifest(image))
    }

    /// Reads the manifest by its tag, and all blobs; every byte must be what was pushed.
    pub(super) fn pull(&self, client: &mut Client, image: Image) -> Result<(), CallError> {
        let (repository, tag) = (image.repository(), image.tag());
        let (_, manifest) = client.manifest(&repository, &tag)?;
        require(manifest == self.manifest(image), &format!("{repository}:{tag}"))?;
        for blob in self.blobs(image) {
            let (mut offset, mut same) = (0, true);
            client.blob(&repository, &blob.digest, None, &mut |bytes| {
                same = same && blob.has(offset, bytes);
                offset += bytes.len() as u64;
            })?;
            require(same && offset == blob.len(), &format!("{repository} {}", blob.digest))?;
        }
        Ok(())
    }

    /// Deletes the manifest by its digest, and so its tag.
    pub(super) fn delete(&self, client: &mut Client, image: Image) -> Result<(), CallError> {
        client.delete_manifest(&image.repository(), &digest_of(&self.manifest(image)))
    }

    /// Whether its tag and its manifest are gone.
    pub(super) fn is_gone(&self, client: &mut Client, image: Image) -> Result<bool, CallError> {
        let (repository, digest) = (image.repository(), digest_of(&self.manifest(image)));
        Ok(!client.has_manifest(&repository, &image.tag())? && !client.has_manifest(&repository, &digest)?)
    }

    /// Its blobs: the config, its own layers, the base layer.
    fn blobs(&self, image: Image) -> Vec<Blob> {
        let own = self.own.iter().map(|stock| stock.blob(image.key, image.number));
        own.chain([self.base.blob(BASE_KEY, image.number % BASES)]).collect()
    }

    fn manifest(&self, image: Image) -> Vec<u8> {
        let blobs = self.blobs(image);
        let described =
            |blob: &Blob, media_type| json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.len() });
        let layers = blobs[1..].iter().map(|blob| described(blob, "application/vnd.oci.image.layer.v1.tar"));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(&blobs[0], "application/vnd.oci.image.config.v1+json"),
            "layers": layers.collect::<Vec<_>>(),
        });
        manifest.to_string().into_bytes()
    }
}

fn require(holds: bool, what: &str) -> Result<(), CallError> {
    if holds {
        return Ok(());
    }
    Err(CallError::Wrong {
        call: format!("GET {what}"),
        problem: "the bytes are not those that were pushed".to_owned(),
    })
}
