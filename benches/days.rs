//! A CI that pushes each of its tags again on every day: what its store takes of the disk, and what it writes.
//!
//! An image has a base layer that changes by the month, a layer of dependencies that changes by the week, and two small
//! layers and a config that are new each time. What a tag pointed to before is held for the usual fourteen days, then it
//! goes: by that time the store keeps its size, and whatever it writes beside the pushes is its own affair.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use orlop::{
    Algorithm, Digest, RepositoryName, StoreOptions,
    collect::{CollectOptions, Collector},
    disk::Reach,
    registry::Registry,
    store::Clock,
};

use crate::{
    allocated, content,
    engine::Engine,
    fill::{Images, TYPE},
    point,
    table::{Failure, Outcome, Table},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Some day.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Threads that push.
const PUSHERS: u64 = 16;
/// Tags of a repository.
const TAGS: u64 = 10;
/// Bytes of an image's blobs, and after how many days each is another one.
const LAYERS: [(usize, u64); 5] = [(2_000_000, 30), (500_000, 7), (60_000, 1), (8_000, 1), (3_000, 1)];

/// Plays it in a store of its own. Each day's points are what the store is like when that day's garbage is collected and
/// compacted.
pub(crate) fn play(table: &Table, days: u64, tags: u64) -> Outcome {
    let path = table.path("store");
    let clock = Clock::manual(BEGIN_MS);
    let engine = Engine::open(&path, StoreOptions { clock: clock.clone(), ..StoreOptions::default() })?;
    let images = Images::of(&engine.store)?;
    // The pace is there to leave room for requests; here are none meanwhile.
    let options = CollectOptions { compact_bytes_per_second: 1 << 40, ..CollectOptions::default() };
    let collector = Collector::new(Arc::clone(&images.registry), options)?;
    let began = written()?;
    let ci = Ci { registry: &images.registry, pushed_bytes: AtomicU64::new(0), known: Mutex::default() };
    for day in 0..days {
        thread::scope(|scope| {
            // A repository's tags are one pusher's: nobody pushes their base twice.
            let push = |first: u64| {
                let repositories = (first..tags.div_ceil(TAGS)).step_by(PUSHERS as usize);
                let mut of = repositories.flat_map(|at| at * TAGS..tags.min((at + 1) * TAGS));
                of.try_for_each(|tag| ci.push(day, tag))
            };
            let pushers: Vec<_> = (0..PUSHERS).map(|first| scope.spawn(move || push(first))).collect();
            pushers.into_iter().try_for_each(|pusher| pusher.join().unwrap_or_else(|_| Err("a pusher panicked".into())))
        })?;
        clock.advance(DAY_MS);
        collector.collect(false)?;
        collector.compact(false)?;
        let (blobs, bytes) = content(&engine.store)?;
        let usage = collector.disk()?;
        let segments = (usage.live_bytes + usage.dead_bytes) as f64;
        let size = day + 1;
        point(
            "CI: bytes on the disk for each byte of content",
            "times",
            size,
            usage.disk_bytes as f64 / bytes.max(1) as f64,
        );
        point("CI: bytes of segments for each byte of content", "times", size, segments / bytes.max(1) as f64);
        point(
            "CI: bytes of the index for each blob and manifest",
            "bytes",
            size,
            allocated(&path.join("index"))? as f64 / blobs.max(1) as f64,
        );
        point(
            "CI: bytes written for each byte pushed",
            "times",
            size,
            (written()? - began) as f64 / ci.pushed_bytes.load(Ordering::Relaxed).max(1) as f64,
        );
        point("CI: content", "mib-resident", size, bytes as f64 / f64::from(1 << 20));
    }
    drop((images, collector));
    engine.close()
}

/// Bytes that this process has had written to disks: the pages that it made dirty, and what went there directly.
fn written() -> Result<u64, Failure> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("the kernel does not count what is written")?.parse()?)
}

/// Who pushes, and what they have pushed.
struct Ci<'a> {
    registry: &'a Registry,
    pushed_bytes: AtomicU64,
    /// The digests of blobs by their names: what is there already need not be made again to be known.
    known: Mutex<HashMap<String, Digest>>,
}

impl Ci<'_> {
    /// Pushes what of an image is not there, and its manifest.
    fn push(&self, day: u64, tag: u64) -> Outcome {
        let repository = format!("ci/app-{}", tag / TAGS).parse()?;
        let mut described = Vec::new();
        for (layer, (len, days)) in LAYERS.iter().enumerate() {
            // Tags change their layers on different days; a repository's share the base.
            let owner = if layer == 0 { tag / TAGS } else { tag };
            let name = format!("{layer} {owner} {}", (day + owner) / days);
            let digest = self.blob(&repository, name, *len)?;
            described
                .push(format!("{{\"mediaType\":\"application/octet-stream\",\"digest\":\"{digest}\",\"size\":{len}}}"));
        }
        let config = described.pop().unwrap_or_default();
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{TYPE}\",\"config\":{config},\"layers\":[{}]}}",
            described.join(",")
        );
        self.pushed_bytes.fetch_add(manifest.len() as u64, Ordering::Relaxed);
        self.registry.put_manifest(
            &repository,
            None,
            &[format!("t{tag}").parse()?],
            Some(TYPE),
            &Bytes::from(manifest),
        )?;
        Ok(())
    }

    /// A blob's digest; the blob is there then.
    fn blob(&self, repository: &RepositoryName, name: String, len: usize) -> Result<Digest, Failure> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&name).copied();
        if let Some(digest) = known
            && self.registry.reads(Reach::Disk).blob_len(repository, &digest).is_ok()
        {
            return Ok(digest);
        }
        let digest = self.registry.store().put(repository, Algorithm::Sha256, &random(&name, len))?;
        self.pushed_bytes.fetch_add(len as u64, Ordering::Relaxed);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, digest);
        Ok(digest)
    }
}

/// Bytes that no other name has.
fn random(name: &str, len: usize) -> Vec<u8> {
    let seed = Digest::of(Algorithm::Sha256, name.as_bytes());
    let seed = seed.hash().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
