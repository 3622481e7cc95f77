//! The integration tests: one binary, so that they link once.

/// RocksDB against its double in memory, against kills and against damaged files.
#[cfg(feature = "rocksdb")]
mod index;
