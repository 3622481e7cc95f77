//! A million random calls, collections, compactions and restarts against what was promised to clients.
//!
//! After each call nothing that was promised is missing; counts equal a recount; after a collection every byte of the
//! segments belongs to a record that the index names, or is zero; and when all is deleted and its time is over, nothing is
//! left. One seed is one store; `ORLOP_TEST_SEED` and `ORLOP_TEST_ROUNDS` choose others.
//!
//! A fuzzer chooses by bytes instead: they are the calls.
//!
//! - `choices`: what is to be done next.
//! - `items`: what is pushed.
//! - `promises`: what has to be there.

mod choices;
mod items;
mod promises;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use crate::collect::{CollectOptions, Collector, PlaceKind, PurgeScope, SearchReport};
use crate::{
    disk::sim::SimDisk,
    index::{
        View,
        memory::MemoryIndex,
        schema::{self, LinkRow, ManifestRow, key},
    },
    name::{RepositoryName, Tag},
    registry::{Reference, Registry, RegistryError, RegistryOptions, Sparse},
    state::{
        decide::find_repository,
        dump, facts,
        recount::recount,
        request::{Refusal, Request},
    },
    store::{Clock, IndexStart, Store, StoreError, StoreOptions},
};

use choices::Choices;
use items::{BLOBS_END, Item, LARGE_BLOB_BYTES};
use promises::Repository;

const HOUR_MS: u64 = 60 * 60 * 1_000;
const GRACE_MS: u64 = 24 * HOUR_MS;
const WINDOW_MS: u64 = 14 * 24 * HOUR_MS;
const NAMES: [&str; 4] = ["a/x", "a/y", "b/x", "plain"];
const TAGS: [&str; 3] = ["1.0", "edge", "latest"];
/// Calls to one store.
const CALLS: usize = 20_000;
/// Calls to all of them; without RocksDB the test runs a second time in the same gate.
const ALL_CALLS: usize = if cfg!(feature = "rocksdb") { 1_000_000 } else { 100_000 };

/// A store of one seed.
struct World {
    random: Choices,
    items: Vec<Item>,
    disk: SimDisk,
    index: Arc<MemoryIndex>,
    clock: Clock,
    sparse: Sparse,
    /// `None` only while it is restarted.
    open: Option<(Arc<Registry>, Arc<Collector>)>,
    promised: BTreeMap<&'static str, Repository>,
    seen: BTreeSet<String>,
    trace: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace[self.trace.len().saturating_sub(40)..].join("\n"));
        }
    }
}

impl World {
    fn new(random: Choices, sparse: Sparse) -> Self {
        let mut world = Self {
            random,
            items: items::all(),
            disk: SimDisk::new(),
            index: Arc::default(),
            clock: Clock::manual(1_800_000_000_000),
            sparse,
            open: None,
            promised: NAMES.map(|name| (name, Repository::default())).into(),
            seen: BTreeSet::new(),
            trace: Vec::new(),
        };
        world.start();
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

    fn start(&mut self) {
        let options = StoreOptions {
            large_blob_bytes: LARGE_BLOB_BYTES as u64,
            shared_segment_bytes_max: 30_000,
            open_files_max: 8,
            reserve_bytes: 0,
            flush_bytes: 20_000,
            snapshot_bytes_min: 200_000,
            journal_file_bytes_max: 50_000,
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
            Ok(Box::new(Arc::clone(&*index)))
        });
        self.index = index.into_inner().unwrap();
        let options = RegistryOptions {
            manifest_bytes_max: 100_000,
            references_max: 100,
            json_depth_max: 16,
            uploads_max: 100,
            sparse: self.sparse,
        };
        let registry = Arc::new(Registry::new(Arc::new(store.unwrap()), options).unwrap());
        let options = CollectOptions {
            compact_bytes_per_second: u64::MAX,
            read_bytes_per_second: u64::MAX,
            ..CollectOptions::default()
        };
        let collector = Collector::new(Arc::clone(&registry), options).unwrap();
        self.open = Some((registry, collector));
    }

    fn restart(&mut self) {
        let keeps_index = self.random.u8(..4) > 0;
        let ends_well = self.random.u8(..3) == 0;
        let disk = match (ends_well, self.random.bool()) {
            (true, _) => self.disk.clone(),
            (false, true) => self.disk.kill(),
            (false, false) => self.disk.crash(self.random.u64(..)),
        };
        self.open = None;
        self.disk = disk;
        if !ends_well {
            self.index = if keeps_index { Arc::new(self.index.crashed()) } else { Arc::default() };
        }
        self.start();
        self.saw("restart");
    }

    fn saw(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    fn settle(&self) {
        while facts::is_settling(&*self.registry().store().snapshot()).unwrap() {
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
        match self.random.u16(..1_000) {
            0..180 => self.put(name, blob),
            180..240 => self.mount(name, blob),
            240..340 => self.head(name, blob),
            340..600 => {
                let tags = pushes[self.random.usize(..pushes.len())];
                self.push(name, item, tags);
            }
            600..680 => self.untag(name, tag),
            680..740 => self.delete(name, item),
            740..770 => self.delete_blob(name, blob),
            770..830 => {
                let tag = self.random.bool().then_some(tag);
                self.restore(name, item, tag);
            }
            830..850 => self.purge(name),
            850..890 => self.collect(),
            890..900 => self.compact(),
            900..990 => {
                let most_ms = [HOUR_MS, GRACE_MS, 5 * GRACE_MS][self.random.usize(..3)];
                let ms = self.random.u64(1..most_ms);
                self.advance(ms);
            }
            990..993 => self.restart(),
            993..996 => drop(self.registry().store().write_snapshot().unwrap()),
            _ => self.trace.clear(),
        }
        self.conclude();
        self.check_rows(name);
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
        stored.unwrap();
        self.linked(name, blob);
    }

    fn linked(&mut self, name: &str, blob: usize) {
        let now_ms = self.now_ms();
        let items = std::mem::take(&mut self.items);
        self.promised(name).linked(&items, blob, now_ms);
        self.items = items;
    }

    fn mount(&mut self, name: &'static str, blob: usize) {
        let from = NAMES[self.random.usize(..NAMES.len())];
        let digest = self.items[blob].digest;
        let mounted = self.registry().mount(&parse(name), &digest, Some(&parse(from)), |_| true);
        self.log("mount", name, (blob, from), &mounted);
        match mounted.unwrap() {
            true => self.linked(name, blob),
            false => assert!(!self.promised[from].has_blob(blob, self.now_ms()), "{from} has it"),
        }
        self.saw("mount");
    }

    fn head(&mut self, name: &'static str, blob: usize) {
        let digest = self.items[blob].digest;
        let found = self.registry().blob_len(&parse(name), &digest);
        self.log("head", name, blob, &found);
        let now_ms = self.now_ms();
        match found {
            Ok(len) => {
                assert_eq!(len, self.items[blob].bytes.len() as u64);
                self.promised(name).told(blob, now_ms);
            }
            Err(RegistryError::BlobUnknown { .. }) => assert!(!self.promised[name].has_blob(blob, now_ms)),
            Err(error) => panic!("{error}"),
        }
    }

    fn push(&mut self, name: &'static str, item: usize, tags: &[&'static str]) {
        let Item { digest, bytes, media_type, .. } = &self.items[item];
        let parsed: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let pushed = self.registry().put_manifest(&parse(name), Some(*digest), &parsed, Some(media_type), bytes);
        self.log("push", name, (item, tags), &pushed);
        match pushed {
            Ok(_) => self.there_again(name, item, tags),
            Err(RegistryError::ManifestBlobUnknown { .. }) => {
                assert!(!self.promised[name].has_references(&self.items, item, self.now_ms()), "all of it is there");
                self.saw("push of what is not all there");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A manifest is there, with the blobs that the repository has.
    fn there_again(&mut self, name: &str, item: usize, tags: &[&'static str]) {
        let view = self.registry().store().snapshot();
        let has = self.items[item].blobs().filter(|blob| self.link(&*view, name, *blob).is_some()).collect();
        drop(view);
        let now_ms = self.now_ms();
        let items = std::mem::take(&mut self.items);
        self.promised(name).pushed(&items, item, tags, has, now_ms);
        self.items = items;
    }

    fn untag(&mut self, name: &'static str, tag: &'static str) {
        let done = self.registry().delete_manifest(&parse(name), &Reference::Tag(tag.parse().unwrap()));
        self.log("untag", name, tag, &done);
        assert_eq!(done.is_ok(), self.promised[name].tags.contains_key(tag));
        self.promised(name).untagged(tag);
    }

    fn delete(&mut self, name: &'static str, item: usize) {
        let done = self.registry().delete_manifest(&parse(name), &Reference::Digest(self.items[item].digest));
        self.log("delete", name, item, &done);
        match self.promised[name].manifest(item, self.now_ms()) {
            Some(answers) => assert_eq!(done.is_ok(), answers),
            None => assert!(matches!(
                done,
                Ok(()) | Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown { .. })
            )),
        }
        self.promised(name).deleted(item);
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
            Err(error) => panic!("{error}"),
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
            Err(error) => panic!("{error}"),
        }
    }

    fn purge(&mut self, name: &'static str) {
        let now_ms = self.now_ms();
        let of_organisation = self.random.bool();
        let scope = match of_organisation {
            true => PurgeScope::Organisation(parse(name).organisation().to_owned()),
            false => PurgeScope::Repository(parse(name)),
        };
        let purged = self.collector().purge(&scope, false);
        self.log("purge", name, of_organisation, &purged.as_ref().map(|report| &report.totals));
        let is_in = |other: &str| match &scope {
            PurgeScope::Organisation(organisation) => parse(other).organisation() == organisation,
            PurgeScope::Repository(_) => other == name,
        };
        for (_, repository) in self.promised.iter_mut().filter(|(other, _)| is_in(other)) {
            repository.purged(&self.items, now_ms);
        }
        self.saw(format!("purge {}", purged.is_ok()));
    }

    fn collect(&mut self) {
        let report = self.collector().collect(false).unwrap();
        self.log("collect", "", (), &report.totals);
        if report.freed_bytes > 0 {
            self.saw("collection that frees");
        }
        self.settle();
        self.check_bytes();
    }

    fn compact(&mut self) {
        let report = self.collector().compact(false).unwrap();
        self.log("compact", "", (), &(report.segments.len(), report.moved_records));
        if report.moved_records > 0 {
            self.saw("compaction that moves");
        }
    }

    /// Every byte of the segments belongs to a record that the index names, or is zero.
    fn check_bytes(&mut self) {
        let item = self.random.usize(..self.items.len());
        let search = self.collector().search(&self.items[item].digest).unwrap();
        assert!(is_accounted_for(&search), "{search:?}");
    }

    fn id(&self, view: &dyn View, name: &str) -> Option<u32> {
        find_repository(view, &parse(name)).unwrap()
    }

    fn link(&self, view: &dyn View, name: &str, blob: usize) -> Option<LinkRow> {
        schema::get(view, key::link(self.id(view, name)?, &self.items[blob].digest)).unwrap()
    }

    fn manifest(&self, view: &dyn View, name: &str, item: usize) -> Option<ManifestRow> {
        schema::get(view, key::manifest(self.id(view, name)?, &self.items[item].digest)).unwrap()
    }

    /// What was promised of a repository has its rows.
    fn check_rows(&self, name: &str) {
        let (view, now_ms) = (self.registry().store().snapshot(), self.now_ms());
        let promised = &self.promised[name];
        for item in BLOBS_END..self.items.len() {
            let Some(answers) = promised.manifest(item, now_ms) else { continue };
            let row = self.manifest(&*view, name, item);
            assert_eq!(row.map(|row| !row.deleted), Some(answers), "manifest {item} of {name}");
        }
        for blob in (0..BLOBS_END).filter(|blob| promised.has_blob(*blob, now_ms)) {
            assert!(self.link(&*view, name, blob).is_some(), "blob {blob} of {name}");
        }
    }

    /// What was promised is served, bit for bit; tags are exactly those that were set; counts are those of a recount.
    fn check(&self) {
        self.settle();
        let now_ms = self.now_ms();
        for (name, promised) in &self.promised {
            let repository = parse(name);
            for (item, Item { bytes, digest, .. }) in self.items.iter().enumerate() {
                if item < BLOBS_END && promised.has_blob(item, now_ms) {
                    let content = self.registry().blob(&repository, digest).unwrap();
                    assert_eq!(content.read_all().unwrap(), bytes, "blob {item} of {name}");
                }
                match promised.manifest(item, now_ms) {
                    Some(true) => {
                        let manifest = self.registry().manifest(&repository, &Reference::Digest(*digest)).unwrap();
                        assert_eq!(manifest.bytes, bytes, "manifest {item} of {name}");
                    }
                    Some(false) => {
                        let manifest = self.registry().manifest(&repository, &Reference::Digest(*digest));
                        assert!(matches!(manifest, Err(RegistryError::ManifestUnknown { .. })), "{item} of {name}");
                    }
                    None => {}
                }
            }
            let tags = self.registry().tags(&repository, None, 100).map(|page| page.names).unwrap_or_default();
            assert_eq!(tags, promised.tags.keys().copied().collect::<Vec<_>>(), "tags of {name}");
        }
        recount(&*self.registry().store().snapshot(), &mut |difference| panic!("{difference}")).unwrap();
    }

    /// Deletes all that is there, waits for long enough, and collects: nothing is left.
    fn check_that_all_can_go(&mut self) {
        for name in NAMES {
            for item in BLOBS_END..self.items.len() {
                self.delete(name, item);
            }
        }
        for _ in 0..8 {
            self.advance(WINDOW_MS + 8 * GRACE_MS);
            self.collect();
        }
        self.advance(100 * GRACE_MS);
        self.collect();
        self.check();
        let mut left = Vec::new();
        dump::dump(&*self.registry().store().snapshot(), &mut |line| left.push(line.to_owned())).unwrap();
        let known = ["meta ", "samples ", "segments ", "reports ", "pauses "];
        left.retain(|line| !known.iter().any(|table| line.starts_with(table)));
        assert!(left.is_empty(), "left are {left:#?}");
        for item in &self.items {
            let search = self.collector().search(&item.digest).unwrap();
            assert!(search.gone, "{search:?}");
        }
        self.saw("all gone");
    }
}

/// Whether each byte that was read belongs to a record that the index names, or is zero.
fn is_accounted_for(search: &SearchReport) -> bool {
    search.places_more == 0 && search.places.iter().all(|place| place.what == PlaceKind::Live)
}

fn parse(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// What a test that means something has met.
const EXPECTED: [&str; 11] = [
    "all gone",
    "collection that frees",
    "compaction that moves",
    "delete of a blob in use",
    "mount",
    "purge false",
    "purge true",
    "push of what is not all there",
    "restart",
    "restore",
    "restore of what was dropped",
];

fn run(seed: u64, calls: usize) -> BTreeSet<String> {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with ORLOP_TEST_SEED={} ORLOP_TEST_ROUNDS=1", self.0);
            }
        }
    }
    let _seed = Seed(seed);
    let mut world = World::new(Choices::random(seed), Sparse::ALL[seed as usize % 3]);
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

/// Does what some bytes say, and then looks whether all that was promised is there.
pub(crate) fn operations(input: &[u8]) {
    const CALLS_MAX: usize = 300;
    let (&mode, choices) = input.split_first().unwrap_or((&0, &[]));
    let mut world = World::new(Choices::bytes(choices), Sparse::ALL[usize::from(mode) % 3]);
    for _ in 0..CALLS_MAX {
        if world.random.are_over() {
            break;
        }
        world.step();
    }
    world.check();
    world.collect();
    world.check();
}

/// Stories that have all kinds of calls.
pub(crate) fn operation_seeds() -> Vec<Vec<u8>> {
    let story = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..1_000).map(|_| random.u8(..)).collect()
    };
    (0..16).map(story).collect()
}

#[test]
fn a_million_calls_lose_nothing_that_was_promised_and_leave_nothing_that_was_not() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or(0);
    let rounds = number("ORLOP_TEST_ROUNDS").unwrap_or((ALL_CALLS / CALLS) as u64);
    let next = std::sync::atomic::AtomicU64::new(first);
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                    && seed < first + rounds
                {
                    let kinds = run(seed, CALLS);
                    seen.lock().unwrap().extend(kinds);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    if rounds > 5 {
        let rare: Vec<_> = EXPECTED.iter().filter(|kind| !seen.contains(**kind)).collect();
        assert!(rare.is_empty(), "nothing was said about {rare:?}; there was {seen:?}");
    }
}
