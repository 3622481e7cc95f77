//! The integration tests: one binary, so that they link once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

/// RocksDB against its double in memory, against kills and against damaged files.
#[cfg(feature = "rocksdb")]
mod index;
