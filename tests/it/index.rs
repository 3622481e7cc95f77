//! RocksDB as the index: that it answers as the map in memory does, and what a kill and damaged files leave of it.

use orlop::index::rocks::RocksOptions;

/// Bytes changed and files lost behind its back.
mod damage;
/// The same random calls against both indexes.
mod differential;
/// Killed processes, full disks, directories that vanish.
mod kill;
/// A store whose index is deleted, put back from earlier, or damaged.
mod rot;

/// So small that memtables fill and files are compacted within a test.
fn tiny() -> RocksOptions {
    RocksOptions { memtable_bytes: 512 << 10, cache_bytes: 1 << 20, open_files_max: 64 }
}
