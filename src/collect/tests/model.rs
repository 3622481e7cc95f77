//! A million random calls, collections, compactions and restarts against what was promised to clients.
//!
//! After each call nothing that was promised is missing; counts equal a recount; after a collection every byte of the
//! segments belongs to a record that the index names, or is zero; and when all is deleted and its time is over, nothing is
//! left. One seed is one store; `ORLOP_TEST_SEED` and `ORLOP_TEST_ROUNDS` choose others.
//!
//! A call that fails because the power went, or a sync failed, is done wholly or not at all; which of both, the first number
//! of an operation that the next start knows tells, and then all of it holds, or none.
//!
//! - `choices`: what is to be done next.
//! - `stories`: calls as bytes.
//! - `items`: what is pushed.
//! - `policies`: policies that take nothing away, and what follows from them.
//! - `promises`: what has to be there.
//! - `sessions`: uploads in parts, which restarts interrupt.
//! - `batch`: several requests in one batch of the committer.
//! - `checks`: the store against the promises.
//! - `crash`: power that goes at any call of the disk, and indexes that forget.
//! - `seeds`: many stores, by seeds.
//! - `faults`: each call of the disk that a load makes fails, once or from then on.

mod batch;
mod checks;
mod choices;
mod crash;
mod faults;
mod items;
mod policies;
mod promises;
mod seeds;
mod sessions;
pub(crate) mod stories;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use crate::collect::{CollectOptions, Collector, Pausable};
use crate::{
    disk::sim::SimDisk,
    index::{
        View,
        double::Watched,
        memory::MemoryIndex,
        schema::{self, Applied, LinkRow, ManifestRow, key},
    },
    journal::Position,
    name::{Owner, RepositoryName, Tag},
    registry::{Reference, Registry, RegistryError, RegistryOptions, Sparse},
    state::{
        decide::find_repository,
        facts,
        request::{Refusal, Request},
    },
    store::{Clock, IndexStart, Store, StoreError, StoreOptions},
};

use batch::Gate;
use choices::Choices;
use faults::Fault;
use items::{BLOBS_END, Item, LARGE_BLOB_BYTES};
use promises::Repository;
use seeds::{Seed, each_seed};
use sessions::Session;

const HOUR_MS: u64 = 60 * 60 * 1_000;
const GRACE_MS: u64 = 24 * HOUR_MS;
const WINDOW_MS: u64 = 14 * 24 * HOUR_MS;
const NAMES: [&str; 4] = ["a/x", "a/y", "b/x", "plain"];
const TAGS: [&str; 3] = ["1.0", "edge", "latest"];
/// Calls to one store.
const CALLS: usize = 20_000;
/// Calls to all of them; without RocksDB the test runs a second time in the same gate.
const ALL_CALLS: usize = if cfg!(feature = "rocksdb") { 1_000_000 } else { 100_000 };

/// What was promised, by repository.
type Promised = BTreeMap<&'static str, Repository>;

/// A change of what is promised.
type Change = Box<dyn FnOnce(&mut World)>;

/// A store of one seed.
struct World {
    random: Choices,
    items: Arc<Vec<Item>>,
    disk: SimDisk,
    index: Arc<MemoryIndex>,
    /// The index as it was flushed at some points.
    kept: Vec<MemoryIndex>,
    gate: Arc<Gate>,
    clock: Clock,
    sparse: Sparse,
    /// Whether threads of the store write by themselves: then a seed does not always do the same.
    flushes_by_itself: bool,
    /// The calls of the disk that fail, and are not the end of all writes.
    fault: Option<Fault>,
    /// `None` only while it is restarted.
    open: Option<(Arc<Registry>, Arc<Collector>)>,
    promised: Promised,
    sessions: Vec<Session>,
    /// Sessions that have ended, with their repositories.
    ended: Vec<(String, &'static str)>,
    /// What the call that was cut short has changed, if it turns out to be done.
    unsure: Option<Change>,
    /// The last operation before the call under way.
    lsn: u64,
    /// How far the history has come that the index has shown, and that so was durable.
    shown: Position,
    /// Operations so far, those since the last start that were acknowledged, and those under way.
    operations: u64,
    acknowledged: u64,
    under_way: u64,
    seen: BTreeSet<String>,
    trace: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let later = self.trace.len().saturating_sub(40).max(1);
            self.trace.iter().take(1).chain(self.trace.iter().skip(later)).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl World {
    fn of_seed(seed: u64, flushes_by_itself: bool) -> Self {
        Self::new(Choices::random(seed), Sparse::ALL[seed as usize % 3], flushes_by_itself)
    }

    fn new(random: Choices, sparse: Sparse, flushes_by_itself: bool) -> Self {
        let mut world = Self {
            random,
            items: Arc::new(items::all()),
            disk: SimDisk::new(),
            index: Arc::default(),
            kept: Vec::new(),
            gate: Arc::default(),
            flushes_by_itself,
            fault: None,
            clock: Clock::manual(1_800_000_000_000),
            sparse,
            open: None,
            promised: NAMES.map(|name| (name, Repository::default())).into(),
            sessions: Vec::new(),
            ended: Vec::new(),
            unsure: None,
            lsn: 0,
            shown: Position::default(),
            operations: 0,
            acknowledged: 0,
            under_way: 0,
            seen: BTreeSet::new(),
            trace: Vec::new(),
        };
        world.start().unwrap();
        world
    }

    fn registry(&self) -> &Registry {
        &self.open.as_ref().expect("it runs").0
    }

    fn collector(&self) -> &Collector {
        &self.open.as_ref().expect("it runs").1
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn is_faulty(&self) -> bool {
        self.fault.is_some()
    }

    /// Whether the process takes no more writes: it has no power, or a sync has failed.
    fn is_down(&self) -> bool {
        !self.disk.has_power() || self.registry().store().poisoned().is_some()
    }

    fn start(&mut self) -> Result<(), String> {
        let by_itself = |bytes: u64| if self.flushes_by_itself { bytes } else { u64::MAX };
        let options = StoreOptions {
            large_blob_bytes: LARGE_BLOB_BYTES as u64,
            shared_segment_bytes_max: 30_000,
            open_files_max: 8,
            reserve_bytes: 0,
            // Rows come and go.
            row_cache_bytes: 64 << 10,
            flush_bytes: by_itself(20_000),
            snapshot_bytes_min: by_itself(200_000),
            journal_file_bytes_max: if self.flushes_by_itself { 50_000 } else { 8_000 },
            grace_ms: GRACE_MS,
            window_ms: WINDOW_MS,
            clock: self.clock.clone(),
            ..StoreOptions::default()
        };
        let index = Mutex::new(Arc::clone(&self.index));
        let store = Store::open_on(Arc::new(self.disk.clone()), options, &|start| {
            let mut index = index.lock().unwrap();
            if start == IndexStart::Empty {
                *index = Arc::default();
            }
            Ok(Box::new(Watched { index: Arc::clone(&*index), watcher: Arc::clone(&self.gate) }))
        });
        self.index = index.into_inner().unwrap();
        let store = Arc::new(store.map_err(|error| error.to_string())?);
        let options = RegistryOptions {
            manifest_bytes_max: 100_000,
            references_max: 100,
            json_depth_max: 16,
            uploads_max: 100,
            sparse: self.sparse,
        };
        let registry = Arc::new(Registry::new(store, options).map_err(|error| error.to_string())?);
        let options = CollectOptions {
            compact_bytes_per_second: u64::MAX,
            read_bytes_per_second: u64::MAX,
            ..CollectOptions::default()
        };
        let collector = Collector::new(Arc::clone(&registry), options).map_err(|error| error.to_string())?;
        self.open = Some((registry, collector));
        Ok(())
    }

    fn saw(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    fn settle(&self) {
        let began = std::time::Instant::now();
        // On a disk that stays full it is never done.
        let has_time = || !self.disk.is_failing() || began.elapsed().as_millis() < 2;
        while facts::is_settling(&*self.registry().store().snapshot()).unwrap() && !self.is_down() && has_time() {
            std::thread::yield_now();
        }
    }

    /// Lets time pass, in steps that are shorter than a window.
    fn advance(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(WINDOW_MS / 2);
            self.clock.advance(step);
            left -= step;
            self.conclude();
        }
    }

    fn conclude(&mut self) {
        let now_ms = self.now_ms();
        self.promised.values_mut().for_each(|repository| repository.conclude(&self.items, now_ms));
    }

    fn step(&mut self) {
        let name = NAMES[self.random.usize(..NAMES.len())];
        let blob = self.random.usize(..BLOBS_END);
        let item = self.random.usize(BLOBS_END..self.items.len());
        let tag = TAGS[self.random.usize(..TAGS.len())];
        let pushes = [&[][..], &[], &[tag], &[tag, "latest"]];
        (self.operations, self.under_way) = (self.operations + 1, 1);
        match self.random.u16(..1_000) {
            0..150 => self.put(name, blob),
            150..205 => self.mount(name, blob),
            205..265 => self.head(name, blob),
            265..290 => self.pull(name, blob, item, tag),
            290..520 => {
                let tags = pushes[self.random.usize(..pushes.len())];
                self.push(name, item, tags);
            }
            520..590 => self.untag(name, tag),
            590..645 => self.delete(name, item),
            645..670 => self.delete_blob(name, blob),
            670..725 => {
                let tag = self.random.bool().then_some(tag);
                self.restore(name, item, tag);
            }
            725..740 => self.purge(name),
            740..775 => self.collect(),
            775..790 => self.compact(),
            790..860 => {
                let most_ms = [HOUR_MS, GRACE_MS, 5 * GRACE_MS][self.random.usize(..3)];
                let ms = self.random.u64(1..most_ms);
                self.advance(ms);
            }
            860..863 => self.restart(),
            863..870 => self.write_snapshot(),
            870..880 => self.flush_index(),
            880..940 => self.step_session(name),
            940..990 => self.batch(),
            990..995 => self.disk.evict(),
            995..998 => self.policy(),
            _ => self.resume(),
        }
        if self.trace.len() > 1_000 {
            self.trace.drain(..900);
        }
        self.conclude();
        if !self.is_down() {
            self.acknowledged += self.under_way;
            self.check_rows(name);
            self.check_lives(name);
        }
    }

    /// A call has failed: where the power went or a sync failed, it may be done all the same, which changes what `done` does.
    /// Nothing else may fail, unless the disk is faulty: then what is done is known at once.
    fn cut_short(&mut self, error: impl Into<RegistryError>, done: impl FnOnce(&mut Self) + 'static) {
        let error = error.into();
        self.check_failure(&error);
        if self.is_down() {
            self.unsure = Some(Box::new(done));
            return;
        }
        assert!(self.is_faulty(), "{error}");
        if self.last_lsn() > self.lsn {
            done(self);
        }
    }

    fn write_snapshot(&mut self) {
        let written = self.registry().store().write_snapshot();
        self.log("snapshot", "", (), &written);
        match written {
            // A file whose sync has failed is thrown away, and nothing else has failed by that.
            Err(StoreError::Failed(_)) if !self.flushes_by_itself => {}
            Err(StoreError::Full(_)) if self.fault.is_some_and(Fault::is_of_a_files_sync) => {}
            Err(error) => self.cut_short(error, |_| ()),
            Ok(_) => {}
        }
    }

    /// Somebody has looked at the clock, so that things are dropped soon after a start.
    fn resume(&mut self) {
        if let Err(error) = self.collector().resume(Pausable::Collect) {
            self.cut_short(error, |_| ());
        }
    }

    fn log(&mut self, call: &str, name: &str, of: impl std::fmt::Debug, answer: &impl std::fmt::Debug) {
        self.trace.push(format!("{} {call} {name} {of:?}: {answer:?}", self.now_ms()));
    }

    fn promised(&mut self, name: &str) -> &mut Repository {
        self.promised.get_mut(name).expect("it is one of the names")
    }

    fn put(&mut self, name: &'static str, blob: usize) {
        let Item { digest, bytes, .. } = &self.items[blob];
        let stored = self.registry().store().put(&parse(name), digest.algorithm(), bytes).map(|_| ());
        self.log("put", name, blob, &stored);
        match stored {
            Ok(()) => self.linked(name, blob),
            Err(error) => self.cut_short(error, move |world| world.linked(name, blob)),
        }
    }

    fn linked(&mut self, name: &str, blob: usize) {
        let (items, now_ms) = (Arc::clone(&self.items), self.now_ms());
        self.promised(name).linked(&items, blob, now_ms);
    }

    fn mount(&mut self, name: &'static str, blob: usize) {
        let from = NAMES[self.random.usize(..NAMES.len())];
        let digest = self.items[blob].digest;
        let mounted = self.registry().mount(&parse(name), &digest, Some(&parse(from)), |_| true);
        self.log("mount", name, (blob, from), &mounted);
        match mounted {
            Ok(true) => self.linked(name, blob),
            Ok(false) => assert!(!self.promised[from].has_blob(blob, self.now_ms()), "{from} has it"),
            Err(error) => self.cut_short(error, move |world| world.linked(name, blob)),
        }
        self.saw("mount");
    }

    fn head(&mut self, name: &'static str, blob: usize) {
        let digest = self.items[blob].digest;
        let found = self.registry().read(|reads| reads.blob_len(&parse(name), &digest));
        self.log("head", name, blob, &found);
        let now_ms = self.now_ms();
        match found {
            Ok(len) => {
                assert_eq!(len, self.items[blob].bytes.len() as u64);
                // When the store takes no writes, it is right for as long as the grace lasts anyway.
                if !self.is_down() && !self.is_faulty() {
                    self.promised(name).told(blob, now_ms);
                }
            }
            Err(RegistryError::BlobUnknown { .. }) => assert!(!self.promised[name].has_blob(blob, now_ms)),
            Err(error) => self.cut_short(error, |_| ()),
        }
    }

    fn push(&mut self, name: &'static str, item: usize, tags: &[&'static str]) {
        let Item { digest, bytes, media_type, .. } = &self.items[item];
        let parsed: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let pushed = self.registry().push_manifest(&parse(name), Some(*digest), &parsed, Some(media_type), bytes);
        self.log("push", name, (item, tags), &pushed);
        match pushed {
            Ok(_) => self.pushed(name, item, tags),
            Err(RegistryError::ManifestBlobUnknown { .. }) => {
                assert!(!self.promised[name].has_references(&self.items, item, self.now_ms()), "all of it is there");
                self.saw("push of what is not all there");
            }
            Err(error) => {
                let tags = tags.to_vec();
                self.cut_short(error, move |world| world.pushed(name, item, &tags));
            }
        }
    }

    /// A push was accepted, so all that the manifest names is there, but for what the setting lets be absent.
    fn pushed(&mut self, name: &str, item: usize, tags: &[&'static str]) {
        for named in self.needed_by(item) {
            assert!(self.answers(name, named), "manifest {item} was accepted in {name} without {named}");
        }
        self.there_again(name, item, tags);
    }

    /// A manifest is there, with the blobs that the repository has.
    fn there_again(&mut self, name: &str, item: usize, tags: &[&'static str]) {
        let view = self.registry().store().snapshot();
        let has = self.items[item].blobs().filter(|blob| self.link(&*view, name, *blob).is_some()).collect();
        drop(view);
        let (items, now_ms) = (Arc::clone(&self.items), self.now_ms());
        self.promised(name).pushed(&items, item, tags, has, now_ms);
    }

    fn untag(&mut self, name: &'static str, tag: &'static str) {
        let done = self.registry().delete_manifest(&parse(name), &Reference::Tag(tag.parse().unwrap()));
        self.log("untag", name, tag, &done);
        let is_there = self.promised[name].tags.contains_key(tag);
        match done {
            Ok(()) => {
                assert!(is_there);
                self.promised(name).untagged(tag);
            }
            Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown { .. }) => assert!(!is_there),
            Err(error) => self.cut_short(error, move |world| world.promised(name).untagged(tag)),
        }
    }

    fn delete(&mut self, name: &'static str, item: usize) {
        let done = self.registry().delete_manifest(&parse(name), &Reference::Digest(self.items[item].digest));
        self.log("delete", name, item, &done);
        let answers = self.promised[name].manifest(item, self.now_ms());
        match done {
            Ok(()) => {
                assert_ne!(answers, Some(false), "it answered no more");
                self.promised(name).deleted(item);
            }
            Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown { .. }) => {
                assert_ne!(answers, Some(true), "it has to answer");
                self.promised(name).gone(item);
            }
            Err(error) => self.cut_short(error, move |world| world.promised(name).deleted(item)),
        }
    }

    fn delete_blob(&mut self, name: &'static str, blob: usize) {
        let done = self.registry().delete_blob(&parse(name), &self.items[blob].digest);
        self.log("delete blob", name, blob, &done);
        let now_ms = self.now_ms();
        let (needed, has) =
            (self.promised[name].needs_blob(&self.items, blob, now_ms), self.promised[name].has_blob(blob, now_ms));
        match done {
            Ok(()) => {
                assert!(!needed, "something that lives names it");
                self.promised(name).unlinked(blob);
            }
            Err(RegistryError::BlobNamed { .. }) => self.saw("delete of a blob in use"),
            Err(RegistryError::BlobUnknown { .. } | RegistryError::NameUnknown { .. }) => assert!(!has, "it is there"),
            Err(error) => self.cut_short(error, move |world| world.promised(name).unlinked(blob)),
        }
    }

    fn restore(&mut self, name: &'static str, item: usize, tag: Option<&'static str>) {
        let (repository, digest) = (parse(name), self.items[item].digest);
        let parsed = tag.map(|tag| tag.parse().unwrap());
        let request = Request::Restore { repository, digest, tag: parsed, window_ms: WINDOW_MS };
        let restored = self.registry().store().commit(request);
        self.log("restore", name, (item, tag), &restored);
        match restored {
            Ok(_) => {
                self.there_again(name, item, tag.as_slice());
                self.saw("restore");
            }
            Err(StoreError::Refused(refusal)) => {
                assert_eq!(self.promised[name].manifest(item, self.now_ms()), None, "it can be restored: {refusal}");
                if let Refusal::Dropped { .. } = refusal {
                    self.saw("restore of what was dropped");
                }
            }
            Err(error) => self.cut_short(error, move |world| world.there_again(name, item, tag.as_slice())),
        }
    }

    fn purge(&mut self, name: &'static str) {
        let now_ms = self.now_ms();
        let of_organisation = self.random.bool();
        let scope = match of_organisation {
            true => Owner::Organisation(parse(name).organisation().to_owned()),
            false => Owner::Repository(parse(name)),
        };
        let purged = self.collector().purge(&scope, false);
        self.log("purge", name, of_organisation, &purged.as_ref().map(|report| &report.totals));
        let is_in = |other: &str| match &scope {
            Owner::Organisation(organisation) => parse(other).organisation() == organisation,
            Owner::Repository(_) => other == name,
        };
        for (_, repository) in self.promised.iter_mut().filter(|(other, _)| is_in(other)) {
            repository.purged(&self.items, now_ms);
        }
        self.saw(format!("purge {}", purged.is_ok()));
        match purged {
            Ok(_) | Err(RegistryError::NameUnknown(_) | RegistryError::OrganisationUnknown(_)) => {}
            Err(error) => self.cut_short(error, |_| ()),
        }
    }

    fn collect(&mut self) {
        let report = self.collector().collect(false);
        self.log("collect", "", (), &report.as_ref().map(|report| &report.totals));
        match report {
            Ok(report) if report.freed_bytes > 0 => self.saw("collection that frees"),
            Ok(_) => {}
            Err(error) => return self.cut_short(error, |_| ()),
        }
        self.settle();
        // A run on a faulty disk leaves some for the next one.
        if !self.is_down() && !self.is_faulty() {
            self.check_bytes();
        }
    }

    fn compact(&mut self) {
        let report = self.collector().compact(false);
        self.log("compact", "", (), &report.as_ref().map(|report| (report.segments.len(), report.moved_records)));
        match report {
            Ok(report) if report.moved_records > 0 => self.saw("compaction that moves"),
            Ok(_) => {}
            Err(error) => self.cut_short(error, |_| ()),
        }
    }
}

fn parse(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// What a test that means something has met.
const EXPECTED: [&str; 12] = [
    "all gone",
    "collection that frees",
    "compaction that moves",
    "delete of a blob in use",
    "mount",
    "policy",
    "purge false",
    "purge true",
    "push of what is not all there",
    "restart",
    "restore",
    "restore of what was dropped",
];

fn run(seed: u64, calls: usize) -> BTreeSet<String> {
    let _seed = Seed(seed);
    let mut world = World::of_seed(seed, true);
    for call in 1..=calls {
        world.step();
        if call % 400 == 0 {
            world.check();
        }
        if call % 5_000 == 0 {
            world.check_that_all_can_go();
        }
    }
    std::mem::take(&mut world.seen)
}

#[test]
fn a_million_calls_lose_nothing_that_was_promised_and_leave_nothing_that_was_not() {
    let seen = Mutex::new(BTreeSet::new());
    let rounds = each_seed((ALL_CALLS / CALLS) as u64, |seed| {
        let kinds = run(seed, CALLS);
        seen.lock().unwrap().extend(kinds);
    });
    let seen = seen.into_inner().unwrap();
    if rounds > 5 {
        let rare: Vec<_> = EXPECTED.iter().filter(|kind| !seen.contains(**kind)).collect();
        assert!(rare.is_empty(), "nothing was said about {rare:?}; there was {seen:?}");
    }
}
