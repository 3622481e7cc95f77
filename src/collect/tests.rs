//! The collector over a disk and an index that forget what was not synced, and clocks that stand until they are moved.
//!
//! - `courtesy`: a run gives way to clients.
//! - `dropping`: what goes when, and what stays.
//! - `evicting`: what a cap lets go.
//! - `freeing`: what goes early so that so much is freed.
//! - `holding`: what clients were told to be there stays for its grace.
//! - `policies`: what goes by policies, and caps.
//! - `reporting`: reports, joined runs, pauses, clocks.
//! - `space`: what comes back of the disk.
//! - `crashes`: the power goes at any call.
//! - `races`: two or three who meet, in any order of their steps.
//! - `scrubbing`: the scrub: what is damage and what is not, where it goes on, how fast.
//! - `rot`: bytes change behind the store's back.
//! - `model`: a million random calls against what was promised.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::{
    digest::{Algorithm, Digest},
    disk::{Disk, sim::SimDisk},
    index::memory::MemoryIndex,
    name::{Owner, RepositoryName},
    registry::{Reference, Registry, RegistryError, RegistryOptions, Sparse},
    state::{facts, recount::recount},
    store::{Clock, IndexStart, Store, StoreOptions},
};

use super::*;

mod courtesy;
mod crashes;
mod dropping;
mod evicting;
mod freeing;
mod holding;
pub(crate) mod model;
mod policies;
mod pulls;
mod races;
mod reporting;
mod rot;
mod scrubbing;
mod space;

const HOUR: u64 = 60 * 60 * 1_000;
const DAY: u64 = 24 * HOUR;
const GRACE: u64 = DAY;
const WINDOW: u64 = 14 * DAY;
/// Some day.
const BEGIN: u64 = 1_700_000_000_000;
/// Uploads above this have a segment of their own.
const LARGE: usize = 20_000;

/// A machine: what survives a process, and the clocks.
struct Machine {
    disk: SimDisk,
    index: Arc<MemoryIndex>,
    clock: Clock,
    window_ms: u64,
    /// Uploads above this have a segment of their own; a shared one takes five of them.
    large_bytes: u64,
}

/// A process on it.
struct Running {
    registry: Arc<Registry>,
    collector: Arc<Collector>,
    clock: Clock,
    disk: SimDisk,
}

impl Machine {
    fn new() -> Self {
        Self {
            disk: SimDisk::new(),
            index: Arc::default(),
            clock: Clock::manual(BEGIN),
            window_ms: WINDOW,
            large_bytes: LARGE as u64,
        }
    }

    fn start(&self) -> Running {
        self.try_start().unwrap()
    }

    fn try_start(&self) -> Result<Running, String> {
        let index = Mutex::new(Arc::clone(&self.index));
        let options = StoreOptions {
            large_blob_bytes: self.large_bytes,
            buffered_bytes_max: 1 << 24,
            shared_segment_bytes_max: 5 * self.large_bytes,
            reserve_bytes: 0,
            // Rows come and go.
            row_cache_bytes: 64 << 10,
            flush_bytes: u64::MAX,
            snapshot_bytes_min: u64::MAX,
            grace_ms: GRACE,
            window_ms: self.window_ms,
            clock: self.clock.clone(),
            ..StoreOptions::default()
        };
        let store = Store::open_on(Arc::new(self.disk.clone()), options, &|start| {
            let mut index = index.lock().unwrap();
            if start == IndexStart::Empty {
                *index = Arc::default();
            }
            Ok(Box::new(Arc::clone(&*index)))
        });
        let store = Arc::new(store.map_err(|error| error.to_string())?);
        let options = RegistryOptions {
            manifest_bytes_max: 100_000,
            references_max: 1_000,
            json_depth_max: 16,
            uploads_max: 100,
            sparse: Sparse::Off,
        };
        let registry = Arc::new(Registry::new(store, options).map_err(|error| error.to_string())?);
        let options = CollectOptions {
            compact_bytes_per_second: u64::MAX / 2_000_000,
            read_bytes_per_second: u64::MAX / 2_000_000,
            // In many orders of steps nobody waits by the clock.
            reader_patience: Duration::from_millis(if cfg!(shuttle) { 0 } else { 200 }),
            ..CollectOptions::default()
        };
        let collector = Collector::new(Arc::clone(&registry), options).map_err(|error| error.to_string())?;
        Ok(Running { registry, collector, clock: self.clock.clone(), disk: self.disk.clone() })
    }

    /// What a kill leaves, and an index that was flushed or lost.
    fn killed(&self) -> Self {
        Self { disk: self.disk.kill(), ..self.cut(0) }
    }

    /// What a power cut leaves.
    fn cut(&self, seed: u64) -> Self {
        let (disk, index) = (self.disk.crash(seed), Arc::new(self.index.crashed()));
        Self { disk, index, clock: self.clock.clone(), window_ms: self.window_ms, large_bytes: self.large_bytes }
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Content any 24 bytes of which tell which it is.
fn content(id: u32, len: usize) -> Vec<u8> {
    let marks = (0..).flat_map(|at: u32| {
        [*b"<content", format!("{id:08}").into_bytes().try_into().unwrap(), {
            let [a, b, c, d] = at.to_le_bytes();
            [b'>', a, b, c, d, 0, 0, 0]
        }]
    });
    marks.flatten().take(len).collect()
}

fn mark(id: u32) -> Vec<u8> {
    format!("<content{id:08}>").into_bytes()
}

/// An image manifest that names these blobs; the first is its config.
fn image(blobs: &[&[u8]], note: &str) -> Vec<u8> {
    let descriptor = |blob: &[u8]| serde_json::json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(blob).to_string(), "size": blob.len() });
    let layers: Vec<_> = blobs[1..].iter().map(|blob| descriptor(blob)).collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(blobs[0]),
        "layers": layers,
        "annotations": { "note": note },
    }))
    .unwrap()
}

/// An index that names these manifests.
fn index(manifests: &[&[u8]]) -> Vec<u8> {
    let manifests: Vec<_> = manifests
        .iter()
        .map(|bytes| {
            serde_json::json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest_of(bytes).to_string(), "size": bytes.len() })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }))
    .unwrap()
}

impl Running {
    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn put(&self, repository: &str, bytes: &[u8]) -> Digest {
        self.store().put(&name(repository), Algorithm::Sha256, bytes).unwrap()
    }

    /// Pushes a manifest, by tag or by digest.
    fn push(&self, repository: &str, tag: Option<&str>, bytes: &[u8]) -> Result<Digest, RegistryError> {
        let tags: Vec<_> = tag.into_iter().map(|tag| tag.parse().unwrap()).collect();
        let expected = tags.is_empty().then(|| digest_of(bytes));
        let bytes = Bytes::copy_from_slice(bytes);
        Ok(self.registry.push_manifest(&name(repository), expected, &tags, None, &bytes)?.digest)
    }

    /// Pushes an image of some contents under a tag.
    fn push_image(&self, repository: &str, tag: &str, ids: &[u32], len: usize) -> Vec<u8> {
        let blobs: Vec<Vec<u8>> = ids.iter().map(|id| content(*id, len)).collect();
        for blob in &blobs {
            self.put(repository, blob);
        }
        let manifest = image(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>(), tag);
        self.push(repository, Some(tag), &manifest).unwrap();
        manifest
    }

    fn delete(&self, repository: &str, digest: Digest) {
        self.registry.delete_manifest(&name(repository), &Reference::Digest(digest)).unwrap();
    }

    fn collect(&self) -> CollectionReport {
        self.collector.collect(false).unwrap()
    }

    fn settle(&self) {
        let stop = Stop::default();
        while facts::is_settling(&*self.store().snapshot()).unwrap() && self.store().poisoned().is_none() {
            stop.rest(Duration::from_millis(2));
        }
    }

    /// Derived rows are what the primary ones add up to.
    fn recount(&self) {
        self.settle();
        recount(&*self.store().snapshot(), &mut |difference| panic!("{difference}")).unwrap();
    }

    fn has(&self, digest: &Digest) -> bool {
        let found = self.store().content(digest).unwrap();
        found.is_some_and(|found| digest_of(&found.read_all().unwrap()) == *digest)
    }

    /// Files in which a mark stands, as raw bytes.
    fn files_with(&self, id: u32) -> Vec<String> {
        files_with(&self.disk, id)
    }

    fn rows(&self, table: &str) -> usize {
        let mut count = 0;
        self.store().dump(&mut |line| count += usize::from(line.starts_with(&format!("{table} ")))).unwrap();
        count
    }
}

fn files_with(disk: &SimDisk, id: u32) -> Vec<String> {
    let (mark, mut found, mut open) = (mark(id), Vec::new(), vec![String::new()]);
    while let Some(path) = open.pop() {
        for entry in disk.list(&path).unwrap() {
            let path = if path.is_empty() { entry.name } else { format!("{path}/{}", entry.name) };
            if entry.is_dir {
                open.push(path);
                continue;
            }
            let mut bytes = vec![0; entry.len as usize];
            disk.open(&path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
            if bytes.windows(mark.len()).any(|window| window == mark) {
                found.push(path);
            }
        }
    }
    found
}
