//! OCI distribution, resource by resource, in both digest algorithms: what the conformance tool of its main branch checks,
//! so that nobody needs a copy of it, and what the specification or RFC 9110 says beyond.

use orlop::digest::{Algorithm, Digest};

/// Types that clients take.
mod accept;
/// Blobs whole: headers, conditions, deletion.
mod blobs;
/// Kinds of manifests, pushed, pulled and deleted in every way.
mod manifests;
/// Clients that take this registry for a proxy of another.
mod proxies;
/// Parts of blobs.
mod ranges;
/// Tags of a push by digest, and lists of tags.
mod tags;
/// Sessions: chunks, order, algorithms, digests, expiry.
mod uploads;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

fn digest(algorithm: Algorithm, bytes: impl AsRef<[u8]>) -> String {
    Digest::of(algorithm, bytes.as_ref()).to_string()
}

/// Stores a blob under a digest in some algorithm; the digest.
fn push_blob(server: &crate::harness::Orlop, algorithm: Algorithm, bytes: impl AsRef<[u8]>) -> String {
    let digest = digest(algorithm, &bytes);
    server.send("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}"), &[], bytes).is(201);
    digest
}
