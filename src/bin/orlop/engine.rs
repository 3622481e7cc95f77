//! Opens what a configuration names.

use std::{path::Path, sync::Arc};

use orlop::{
    collect::Collector,
    config::{Config, memory},
    doctor::Host,
    http::App,
    registry::Registry,
    store::{Opening, Recovery, Store},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Handle, Runtime};

use crate::Failure;

/// Threads of the pool beside those of requests: the name to listen on is looked up there.
const SPARE_THREADS: usize = 4;
/// Open files beside connections and segments: journal, index, logs, uploads that nobody writes to just now.
const SPARE_FILES: u64 = 768;

/// Refuses a directory that is no store: a name with a typing error would otherwise become an empty one.
pub(crate) fn must_exist(data: &Path) -> Result<(), Failure> {
    if !data.join("FORMAT").is_file() {
        return Err(format!("{} is no orlop data directory: it has no file FORMAT", data.display()).into());
    }
    Ok(())
}

/// Opens the store, and logs what that had to do.
pub(crate) fn open_store(config: &Config) -> Result<Arc<Store>, Failure> {
    open_store_as(config, Opening::Usual)
}

/// The same, and does something beside opening.
pub(crate) fn open_store_as(config: &Config, opening: Opening) -> Result<Arc<Store>, Failure> {
    let store = open(config, opening)?;
    let recovery = store.recovery();
    if recovery.rebuilt.is_some() {
        tracing::warn!(reason = recovery.rebuilt.as_deref(), "{}", rebuilt(recovery));
    }
    if let Some(reason) = &recovery.read_only {
        tracing::error!(reason, "the store takes no writes");
    }
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

/// From what the index was built, and how fast, in words.
pub(crate) fn rebuilt(recovery: &Recovery) -> String {
    let seconds = recovery.duration.as_secs_f64().max(0.001);
    let from = recovery.snapshot.as_deref().map_or_else(
        || "the journal's origin".to_owned(),
        |snapshot| format!("{snapshot} ({} facts)", recovery.loaded_facts),
    );
    let operations = recovery.replayed_records.saturating_add(recovery.loaded_facts);
    format!(
        "built the index from {from} and {} records of the journal behind it ({:.1} MB) in {seconds:.2} s: {:.1} MB/s of \
         journal, {:.0} operations/s",
        recovery.replayed_records,
        recovery.replayed_bytes as f64 / 1e6,
        recovery.replayed_bytes as f64 / 1e6 / seconds,
        operations as f64 / seconds
    )
}

#[cfg(feature = "rocksdb")]
fn open(config: &Config, opening: Opening) -> Result<Store, Failure> {
    Ok(Store::open_as(&config.data, config.store.clone(), opening)?)
}

/// Built without RocksDB, the index lies in memory and is built from the journal at every start. For development.
#[cfg(not(feature = "rocksdb"))]
fn open(config: &Config, opening: Opening) -> Result<Store, Failure> {
    use orlop::{disk::RealDisk, index::memory::MemoryIndex};
    let disk = RealDisk::new(&config.data).map_err(|error| format!("{}: {error}", config.data.display()))?;
    Ok(Store::open_on_as(Arc::new(disk), config.store.clone(), opening, &|_| Ok(Box::new(MemoryIndex::new())))?)
}

/// What this process may have, and what the settings let it take. Lifts the soft limit of open files to the hard one: many
/// systems start processes with 1,024, fewer than the bounds on connections and segments add up to.
pub(crate) fn host(config: &Config) -> Host {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(reason = %error, "the limit of open files could not be raised");
    }
    // Each may wait for a place, and each that has one may hold a segment.
    let connections = config.server.connections_max.saturating_mul(3);
    let files = connections.saturating_add(config.store.open_files_max) as u64;
    Host {
        files_allowed: getrlimit(Resource::Nofile).current,
        files_needed: files.saturating_add(SPARE_FILES),
        memory_bytes: memory::available(),
        memory_needed_bytes: memory::needed(config),
    }
}

/// The handlers over a store, in a process that `host` tells of; their calls run on the blocking pool of `runtime`.
pub(crate) fn open_app(store: &Arc<Store>, config: &Config, host: Host, runtime: &Handle) -> Result<Arc<App>, Failure> {
    let registry = Arc::new(Registry::new(Arc::clone(store), config.registry.clone())?);
    let mut collect = config.collect.clone();
    collect.scrub.memory_bytes_max = config.http.verify_memory_bytes;
    let collector = Collector::new(Arc::clone(&registry), collect)?;
    Ok(Arc::new(App::new(registry, collector, host, config.http.clone(), runtime.clone())))
}

/// What the main thread runs on, with the pool of threads for calls that handlers must not wait for.
pub(crate) fn runtime(config: &Config) -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(config.http.blocking_threads.saturating_add(SPARE_THREADS))
        .thread_name("orlop")
        .build()?)
}

/// Closes the store: its threads end and its index is durable. Whoever else had it must have let it go.
pub(crate) fn close_store(store: Arc<Store>) -> Result<(), Failure> {
    match Arc::into_inner(store) {
        Some(store) => Ok(store.close()?),
        // Nothing acknowledged is lost by that; the next start replays what was not flushed.
        None => Err("the store is still in use and was not closed; the next start takes longer".into()),
    }
}
