//! orlop: a content-addressed registry storage engine on local disk, and the OCI registry built on it.
//!
//! Bytes lie in *segments*. What they are (names, links, manifests, tags) is told by an append-only *journal* of
//! decisions, which alone is the truth. The *index* is what the journal adds up to, in rows that are quick to read; it can be
//! deleted and comes back. One thread, the committer, changes the state: it decides the requests that wait against
//! the state, makes their bytes durable, then the journal, then changes the index, then answers. So what was
//! acknowledged is there after a crash, in whole, and a reader never sees half of a change.
//!
//! From below to above; each knows only what is below it:
//!
//! - [`digest`], [`name`], [`location`], [`codec`]: small types, parsed once at the boundary. [`words`]: figures as people
//!   read them. `sync`: threads and locks. [`policy`]: what may go, and how much may be there, as it is said once.
//! - [`disk`]: the only door to the file system, and a double of it that forgets what was not synced.
//! - [`segment`], [`journal`], [`index`]: the three kinds of files.
//! - [`state`]: requests are decided into operations, operations become changes of the index. Pure.
//! - [`store`]: the facade over all of that. Whoever needs content by digest and no OCI begins and ends here: see [`Store`].
//! - [`registry`]: what OCI means: manifests, references, tags, uploads.
//! - [`collect`]: what is due goes, and its space comes back.
//! - [`verify`]: the store against itself.
//! - [`doctor`]: whether all is well with a store and what it lies on, in words with remedies.
//! - [`http`]: the routes, the bounds of what clients may do, the table of status codes.
//! - [`config`]: all settings of `orlop serve`.
//!
//! The library starts no background work beside the threads of an open [`Store`], and prints nothing. ARCHITECTURE.md
//! is the map of the sources, FORMAT.md tells every byte on the disk.

pub mod codec;
pub mod collect;
pub mod config;
pub mod digest;
pub mod disk;
pub mod doctor;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod index;
pub mod journal;
pub mod location;
pub mod name;
pub mod policy;
pub mod registry;
pub mod segment;
pub mod state;
pub mod store;
mod sync;
pub mod verify;
pub mod words;

pub use digest::{Algorithm, Digest};
pub use name::{RepositoryName, Tag};
pub use store::{OpenError, Store, StoreError, StoreOptions, StoredContent, Upload};
