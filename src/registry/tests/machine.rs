//! A registry that can be killed, cut off from power and opened again.

use std::sync::{Arc, Mutex};

use crate::{
    digest::Digest,
    disk::{Disk, sim::SimDisk},
    index::{
        Index, View,
        memory::MemoryIndex,
        schema::{self, Applied, CountRow, Scope, UsageRow, key},
    },
    journal::{JournalError, fact::Fact, snapshot},
    registry::{Registry, RegistryOptions, Sparse},
    state::{
        decide::find_repository,
        facts::{self, Loader},
        recount::recount,
    },
    store::{IndexStart, OpenError, Store, StoreOptions},
};

/// Uploads above this have a segment of their own.
pub(super) const LARGE_BLOB_BYTES: usize = 4_000;

/// What all buffered uploads may hold: far more than the random runs do.
pub(super) const BUFFERED_BYTES_MAX: usize = 1_000_000;

/// What becomes of the index when the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexAfter {
    /// It has what was flushed.
    Flushed,
    /// It is gone.
    Lost,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Drop,
    Kill(IndexAfter),
    PowerCut(u64, IndexAfter),
}

/// A disk and an index with an open registry on them.
pub(super) struct Machine {
    pub(super) disk: SimDisk,
    index: Arc<MemoryIndex>,
    registry: Option<Registry>,
    sparse: Sparse,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self::with(Sparse::Off)
    }

    /// One with this setting.
    pub(super) fn with(sparse: Sparse) -> Self {
        let mut machine = Self { disk: SimDisk::new(), index: Arc::default(), registry: None, sparse };
        machine.open().unwrap();
        machine
    }

    pub(super) fn registry(&self) -> &Registry {
        self.registry.as_ref().expect("the machine runs")
    }

    pub(super) fn flush_index(&self) {
        self.index.flush().unwrap();
    }

    /// Whether the index takes writes for now.
    pub(super) fn stop_index(&self, stopped: bool) {
        self.index.set_stopped(stopped);
    }

    /// Ends the process.
    pub(super) fn end(&mut self, end: End) {
        let (disk, after) = match end {
            End::Close | End::Drop => (self.disk.clone(), IndexAfter::Flushed),
            End::Kill(after) => (self.disk.kill(), after),
            End::PowerCut(seed, after) => (self.disk.crash(seed), after),
        };
        let registry = self.registry.take();
        match (end, registry) {
            (End::Close, Some(registry)) => {
                let store = Arc::clone(registry.store());
                drop(registry);
                Arc::into_inner(store).expect("nobody else has the store").close().unwrap();
            }
            (_, registry) => drop(registry),
        }
        self.disk = disk;
        match (end, after) {
            (End::Close | End::Drop, _) => {}
            (_, IndexAfter::Flushed) => self.index = Arc::new(self.index.crashed()),
            (_, IndexAfter::Lost) => self.index = Arc::default(),
        }
    }

    /// Starts the process.
    pub(super) fn open(&mut self) -> Result<(), OpenError> {
        let index = Mutex::new(Arc::clone(&self.index));
        let store = open(&self.disk, &index);
        self.index = index.into_inner().unwrap();
        let options = RegistryOptions {
            manifest_bytes_max: 100_000,
            references_max: 100,
            json_depth_max: 16,
            uploads_max: 1_000,
            sparse: self.sparse,
        };
        self.registry = Some(Registry::new(Arc::new(store?), options).unwrap());
        Ok(())
    }

    /// A machine of its own with what this one has now.
    pub(super) fn copy(&self) -> Self {
        let mut copy = Self { disk: self.disk.kill(), index: Arc::default(), registry: None, sparse: self.sparse };
        copy.open().unwrap();
        copy
    }

    /// Waits until the committer has told all lives that have changed, if it takes writes.
    pub(super) fn settle(&self) {
        let store = self.registry().store();
        while facts::is_settling(&*store.snapshot()).unwrap() && store.poisoned().is_none() {
            std::thread::yield_now();
        }
    }

    /// Whether a live manifest of the repository names a digest as a blob.
    pub(super) fn is_named_live(&self, repository: &str, digest: &Digest) -> bool {
        let view = || self.registry().store().snapshot();
        let Some(id) = find_repository(&*view(), &repository.parse().unwrap()).unwrap() else { return false };
        loop {
            let view = view();
            let usage: Option<UsageRow> = schema::get(&*view, key::usage(Scope::Repository(id))).unwrap();
            if usage.is_none_or(|usage| usage.settling == 0) {
                let count: Option<CountRow> = schema::get(&*view, key::count(Scope::Repository(id), digest)).unwrap();
                return count.is_some_and(|count| count.live > 0);
            }
            drop(view);
            std::thread::yield_now();
        }
    }

    /// Every row as text, when nothing is settling.
    pub(super) fn dump(&self) -> Vec<String> {
        self.settle();
        dump(self.registry().store())
    }

    /// Derived rows are what the primary ones add up to, and all rows are what the journal adds up to from nothing.
    pub(super) fn check(&self) {
        self.settle();
        let view = self.registry().store().snapshot();
        recount(&*view, &mut |difference| panic!("{difference}")).unwrap();
        let rebuilt = open(&self.disk.kill(), &Mutex::default()).unwrap();
        assert_eq!(dump(&rebuilt), self.dump(), "a store that was rebuilt from the journal, and the one that runs");
        drop(rebuilt);
        self.check_facts(&*view);
        self.check_damaged_snapshot();
    }

    /// The facts of the state add up to the same rows, all of them.
    fn check_facts(&self, view: &dyn View) {
        let Some(header) = facts::header(view).unwrap() else { return };
        let store = schema::get::<Applied>(view, key::applied()).unwrap().unwrap().store;
        let loaded = MemoryIndex::new();
        let mut loader = Loader::new(&loaded, store, &header);
        facts::each(view, &mut |fact| loader.load(Fact::decode(&fact.encode()).unwrap())).unwrap();
        loader.finish().unwrap();
        let rows = |view: &dyn View| view.scan(&[], &[u8::MAX], usize::MAX).unwrap();
        assert_eq!(rows(&loaded), rows(view), "the rows of a snapshot, and those of the history");
    }

    /// Of two snapshots the newest can be lost; so can the only one.
    fn check_damaged_snapshot(&self) {
        let disk = self.disk.kill();
        let Some(newest) = snapshot::list(&disk).unwrap().into_iter().next() else { return };
        let file = disk.open(&newest.path).unwrap();
        let (at, mut byte) = (fastrand::Rng::with_seed(newest.len).u64(..newest.len), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        match open(&disk, &Mutex::default()) {
            Ok(rebuilt) => assert_eq!(dump(&rebuilt), self.dump(), "a store without its newest snapshot"),
            Err(OpenError::Journal(JournalError::UnknownVersion { .. })) if (8..12).contains(&at) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// How many snapshots there are.
    pub(super) fn snapshots(&self) -> usize {
        snapshot::list(&self.disk).unwrap().len()
    }
}

fn open(disk: &SimDisk, index: &Mutex<Arc<MemoryIndex>>) -> Result<Store, OpenError> {
    let options = StoreOptions {
        large_blob_bytes: LARGE_BLOB_BYTES as u64,
        buffered_bytes_max: BUFFERED_BYTES_MAX as u64,
        shared_segment_bytes_max: 30_000,
        open_files_max: 8,
        reserve_bytes: 0,
        // Rows come and go.
        row_cache_bytes: 64 << 10,
        // Only the test flushes, so that a seed always does the same.
        flush_bytes: u64::MAX,
        // Likewise.
        snapshot_bytes_min: u64::MAX,
        journal_file_bytes_max: 4_000,
        ..StoreOptions::default()
    };
    Store::open_on(Arc::new(disk.clone()), options, &|start| {
        let mut index = index.lock().unwrap();
        if start == IndexStart::Empty {
            *index = Arc::default();
        }
        Ok(Box::new(Arc::clone(&*index)))
    })
}

fn dump(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    store.dump(&mut |line| lines.push(line.to_owned())).unwrap();
    lines
}
