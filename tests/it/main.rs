//! The integration tests: one binary, so that they link once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

/// The real program with a directory of its own, a client that says exactly what a test says, content to push.
mod harness;

/// Administrative commands, against a server and on a store that none has.
mod admin;
/// What the conformance tool of OCI distribution looks at, and what else its specification says, resource by resource.
mod conformance;
/// Many clients at once: one digest, one tag.
mod crowd;
/// RocksDB against its double in memory, against kills and against damaged files.
#[cfg(feature = "rocksdb")]
mod index;
/// Bad input: its status, its code, a message that names the thing; nothing stored, nothing lost.
mod refused;
/// Good input: what was pushed is served, by every way in, and after a restart.
mod served;
/// The rules of the house, read from the sources.
mod tidy;
