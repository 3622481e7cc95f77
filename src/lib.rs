//! orlop: a content-addressed registry storage engine on local disk, and the OCI registry built on it.

pub mod codec;
pub mod config;
pub mod digest;
pub mod disk;
pub mod http;
pub mod index;
pub mod journal;
pub mod location;
pub mod name;
pub mod registry;
pub mod segment;
pub mod state;
pub mod store;
