//! The state machine: requests are decided into operations, operations become changes of the index.
//!
//! Pure: no file, no clock, no setting. [`decide`] may refuse; [`apply`] refuses nothing, because what it applies was
//! decided and journaled. Both read and write through an overlay, so that the operations of a batch see each other.
//!
//! - `ahead`: what a decision will ask for, read before it.
//! - `request`: what callers may ask for, and what they are told.
//! - `decide`: a request against the current state.
//! - `apply`: an operation's or a local record's changes.
//! - `life`: which manifests live.
//! - `settle`: telling lives to what manifests name, in bounded steps.
//! - `counts`: named and live counts, used and reclaimable bytes, kept by `apply`.
//! - `quota`: what owners may store.
//! - `govern`: which policy governs a repository, and what follows from that.
//! - `facts`: the state as facts of a snapshot, and back.
//! - `due`: what is due.
//! - `dump`: every row as text.
//! - `hash`: a hash over the facts of repositories, kept with every write.
//! - `recount`: the derived rows, counted again from the primary ones.

pub mod ahead;
pub mod apply;
mod counts;
pub mod decide;
pub mod due;
pub mod dump;
pub mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod govern;
mod hash;
pub mod life;
pub mod quota;
pub mod recount;
pub mod request;
pub mod samples;
mod settle;

#[cfg(test)]
mod tests;
