//! A registry that can be killed, cut off from power and opened again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    disk::sim::SimDisk,
    index::{Index, memory::MemoryIndex},
    registry::{Registry, RegistryOptions, Sparse},
    state::recount::recount,
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
            retention_window: Duration::from_secs(1_000),
        };
        self.registry = Some(Registry::new(Arc::new(store?), options).unwrap());
        Ok(())
    }

    /// Every row as text.
    pub(super) fn dump(&self) -> Vec<String> {
        dump(self.registry().store())
    }

    /// Derived rows are what the primary ones add up to, and all rows are what the journal adds up to from nothing.
    pub(super) fn check(&self) {
        let view = self.registry().store().snapshot();
        recount(&*view, &mut |difference| panic!("{difference}")).unwrap();
        let rebuilt = open(&self.disk.kill(), &Mutex::default()).unwrap();
        assert_eq!(dump(&rebuilt), self.dump(), "a store that was rebuilt from the journal, and the one that runs");
    }
}

fn open(disk: &SimDisk, index: &Mutex<Arc<MemoryIndex>>) -> Result<Store, OpenError> {
    let options = StoreOptions {
        large_blob_bytes: LARGE_BLOB_BYTES as u64,
        buffered_bytes_max: BUFFERED_BYTES_MAX as u64,
        shared_segment_bytes_max: 30_000,
        open_files_max: 8,
        reserve_bytes: 0,
        // Only the test flushes, so that a seed always does the same.
        flush_bytes: u64::MAX,
        journal_file_bytes_max: 20_000,
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
