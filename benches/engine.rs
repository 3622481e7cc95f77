//! Stores for benches, with the index that the build has.

use std::{path::Path, sync::Arc};

use orlop::{RepositoryName, Store, StoreOptions};

use crate::table::{Failure, Outcome};

/// Which index it is.
pub(crate) const INDEX: &str = if cfg!(feature = "rocksdb") { "RocksDB" } else { "index in memory" };

#[cfg(feature = "rocksdb")]
fn open(path: &Path, options: StoreOptions) -> Result<Store, Failure> {
    Ok(Store::open(path, options)?)
}

#[cfg(not(feature = "rocksdb"))]
fn open(path: &Path, options: StoreOptions) -> Result<Store, Failure> {
    use orlop::{disk::RealDisk, index::memory::MemoryIndex};
    let disk = Arc::new(RealDisk::new(path)?);
    Ok(Store::open_on(disk, options, &|_| Ok(Box::new(MemoryIndex::new())))?)
}

/// A store and one repository in it.
pub(crate) struct Engine {
    /// The store.
    pub(crate) store: Arc<Store>,
    /// The repository.
    pub(crate) repository: RepositoryName,
}

impl Engine {
    /// Opens a directory.
    pub(crate) fn open(path: &Path, options: StoreOptions) -> Result<Self, Failure> {
        Ok(Self { store: Arc::new(open(path, options)?), repository: "bench/images".parse()? })
    }

    /// Ends it as a server does that is told to. Whoever else had the store must have let it go.
    pub(crate) fn close(self) -> Outcome {
        Ok(Arc::into_inner(self.store).ok_or("the store is still in use")?.close()?)
    }
}
