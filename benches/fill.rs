//! Fills a store with very many small images, many pushes in flight, so that they share syncs.
//!
//! Each image has a config of its own, a layer that it shares with the next three, and two base layers that repositories
//! share; a tag, and a hundred of them a repository. All is a function of the image's number.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use orlop::{
    Algorithm, Digest, RepositoryName, Store,
    registry::{Registry, RegistryOptions, Sparse},
};

use crate::table::{Failure, Outcome};

pub(crate) const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Images that lie in one repository, and those that share a layer.
pub(crate) const IMAGES_PER_REPOSITORY: u64 = 100;
pub(crate) const IMAGES_PER_LAYER: u64 = 4;
const REPOSITORIES_PER_ORGANISATION: u64 = 10;
const BASES: u64 = 20;
/// More pushes at once than a batch of the committer takes: it never waits for the next one.
const PUSHERS: u64 = 600;

/// A registry with images.
pub(crate) struct Images {
    /// The registry.
    pub(crate) registry: Arc<Registry>,
}

/// Its organisation's name.
pub(crate) fn organisation(image: u64) -> String {
    format!("org-{}", image / IMAGES_PER_REPOSITORY / REPOSITORIES_PER_ORGANISATION)
}

/// Its repository.
pub(crate) fn repository(image: u64) -> Result<RepositoryName, Failure> {
    Ok(format!("{}/app-{}", organisation(image), image / IMAGES_PER_REPOSITORY).parse()?)
}

impl Images {
    /// The registry over a store.
    pub(crate) fn of(store: &Arc<Store>) -> Result<Self, Failure> {
        let options = RegistryOptions {
            sparse: Sparse::Off,
            manifest_bytes_max: 4 << 20,
            references_max: 30_000,
            json_depth_max: 64,
            uploads_max: 10_000,
        };
        Ok(Self { registry: Arc::new(Registry::new(Arc::clone(store), options)?) })
    }

    /// Pushes images, each repository's by one of many threads.
    pub(crate) fn fill(&self, images: Range<u64>) -> Outcome {
        let next = AtomicU64::new(images.start);
        let pusher = || -> Outcome {
            loop {
                let begin = next.fetch_add(IMAGES_PER_REPOSITORY, Ordering::Relaxed);
                if begin >= images.end {
                    return Ok(());
                }
                (begin..images.end.min(begin + IMAGES_PER_REPOSITORY)).try_for_each(|image| self.push(image))?;
            }
        };
        thread::scope(|scope| {
            let pushers: Vec<_> = (0..PUSHERS).map(|_| scope.spawn(pusher)).collect();
            pushers.into_iter().try_for_each(|pusher| pusher.join().unwrap_or_else(|_| Err("a pusher panicked".into())))
        })
    }

    /// Pushes an image: what of its blobs its neighbours have not brought, and its manifest with its tag.
    pub(crate) fn push(&self, image: u64) -> Outcome {
        let repository = repository(image)?;
        let put = |content: &[u8]| self.registry.store().put(&repository, Algorithm::Sha256, content);
        if image.is_multiple_of(IMAGES_PER_REPOSITORY) {
            bases(image).into_iter().try_for_each(|base| put(&content("base", base, 3_000)).map(drop))?;
        }
        if image.is_multiple_of(IMAGES_PER_LAYER) {
            put(&content("layer", image / IMAGES_PER_LAYER, 1_000))?;
        }
        put(&content("config", image, 300))?;
        self.put_manifest(image, &format!("v{image}"))
    }

    /// Pushes an image's manifest with a tag.
    pub(crate) fn put_manifest(&self, image: u64, tag: &str) -> Outcome {
        let bytes = manifest(image);
        self.registry.put_manifest(&repository(image)?, None, &[tag.parse()?], Some(TYPE), &bytes)?;
        Ok(())
    }
}

/// The manifest of an image.
pub(crate) fn manifest(image: u64) -> Bytes {
    let named =
        |digest, len| format!("{{\"mediaType\":\"application/octet-stream\",\"digest\":\"{digest}\",\"size\":{len}}}");
    let digest = |kind, number, len| Digest::of(Algorithm::Sha256, &content(kind, number, len));
    let layers = bases(image).map(|base| named(digest("base", base, 3_000), 3_000)).join(",");
    let layer = named(digest("layer", image / IMAGES_PER_LAYER, 1_000), 1_000);
    let config = named(config(image), 300);
    Bytes::from(format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{TYPE}\",\"config\":{config},\"layers\":[{layers},{layer}]}}"
    ))
}

/// The config of an image.
pub(crate) fn config(image: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &content("config", image, 300))
}

/// The base layers of its repository.
fn bases(image: u64) -> [u64; 2] {
    let repository = image / IMAGES_PER_REPOSITORY;
    [repository % BASES, BASES + repository / BASES % BASES]
}

/// Content that no other kind or number has.
fn content(kind: &str, number: u64, len: usize) -> Vec<u8> {
    let mut content = format!("{kind} {number:012} ").into_bytes();
    content.resize(len, b'.');
    content
}
