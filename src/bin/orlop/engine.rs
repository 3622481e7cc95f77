//! Opens what a configuration names.

use std::sync::Arc;

use orlop::{config::Config, registry::Registry, store::Store};

use crate::Failure;

/// Opens the store, and logs what that had to do.
pub(crate) fn open_store(config: &Config) -> Result<Arc<Store>, Failure> {
    let store = open(config)?;
    let recovery = store.recovery();
    tracing::info!(
        data = %config.data.display(),
        created = recovery.created,
        rebuilt = recovery.rebuilt.as_deref(),
        snapshot = recovery.snapshot.as_deref(),
        loaded_facts = recovery.loaded_facts,
        replayed_records = recovery.replayed_records,
        replayed_bytes = recovery.replayed_bytes,
        lost_records = recovery.lost_records,
        journal_cut_bytes = recovery.journal_cut_bytes,
        duration_ms = u64::try_from(recovery.duration.as_millis()).unwrap_or(u64::MAX),
        "store opened",
    );
    Ok(Arc::new(store))
}

#[cfg(feature = "rocksdb")]
fn open(config: &Config) -> Result<Store, Failure> {
    Ok(Store::open(&config.data, config.store.clone())?)
}

/// Built without RocksDB, the index lies in memory and is built from the journal at every start. For development.
#[cfg(not(feature = "rocksdb"))]
fn open(config: &Config) -> Result<Store, Failure> {
    use orlop::{disk::RealDisk, index::memory::MemoryIndex};
    let disk = RealDisk::new(&config.data).map_err(|error| format!("{}: {error}", config.data.display()))?;
    Ok(Store::open_on(Arc::new(disk), config.store.clone(), &|_| Ok(Box::new(MemoryIndex::new())))?)
}

/// Opens the registry over a store.
pub(crate) fn open_registry(store: &Arc<Store>, config: &Config) -> Result<Arc<Registry>, Failure> {
    Ok(Arc::new(Registry::new(Arc::clone(store), config.registry.clone())?))
}

/// Closes the store: its threads end and its index is durable. Whoever else had it must have let it go.
pub(crate) fn close_store(store: Arc<Store>) -> Result<(), Failure> {
    match Arc::into_inner(store) {
        Some(store) => Ok(store.close()?),
        // Nothing acknowledged is lost by that; the next start replays what was not flushed.
        None => Err("the store is still in use and was not closed; the next start takes longer".into()),
    }
}
