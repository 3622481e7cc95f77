//! What the tests at the HTTP boundary share.

/// A client over plain TCP.
mod client;
/// Bytes, digests and manifests.
mod content;
/// The program as a process.
mod process;

pub(crate) use client::{Answer, Connection, PATIENCE};
pub(crate) use content::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, descriptor, image, index, noise, sha256, sha512,
};
pub(crate) use process::{LARGE_BLOB_BYTES, Orlop, Ran, run};
