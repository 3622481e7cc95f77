//! All that reads bytes of others, as functions of any bytes, with the properties that must hold for each.
//!
//! Only tests and builds under `cfg(fuzzing)` have this; it is no part of the library. Each layer's `fuzzing` module states
//! its properties beside the code, where it can see what is private, and this is the list of them. A property that does not
//! hold panics. The crate in `fuzz/` lets libFuzzer look for such bytes and measures memory; a test here replays the bytes that it
//! has found worth keeping, and changes them at random.
//!
//! It refuses to know of any fuzzer.

use crate::{
    collect, config,
    digest::{Algorithm, Digest},
    http, journal,
    name::{self, RepositoryName, Tag},
    registry, segment, state,
};

/// Something that reads bytes.
pub struct Target {
    /// Its name: of the fuzzer's program, and of the file of what it keeps.
    pub name: &'static str,
    /// Panics when a property does not hold.
    pub check: fn(&[u8]),
    /// Bytes to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What a fuzzer has found worth keeping, as [`unpack`] reads it.
    pub corpus: &'static [u8],
    /// Words that are worth trying.
    pub words: &'static [&'static str],
    /// Most bytes that may be allocated at one time: so many, and so many more for each byte of the input.
    pub allocated_max: (usize, usize),
}

/// Declares a target; its corpus lies in `tests/fixtures/fuzz`.
macro_rules! target {
    ($name:literal, $check:expr, $seeds:expr, $words:expr, $allocated_max:expr) => {
        Target {
            name: $name,
            check: $check,
            seeds: $seeds,
            corpus: include_bytes!(concat!("../tests/fixtures/fuzz/", $name, ".corpus")),
            words: $words,
            allocated_max: $allocated_max,
        }
    };
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    target!("segment_headers", segment::fuzzing::headers, segment::fuzzing::header_seeds, BINARY, (4 << 10, 8)),
    target!("segment_walk", segment::fuzzing::walk, segment::fuzzing::walk_seeds, BINARY, (512 << 10, 16)),
    target!("journal_records", journal::fuzzing::record, journal::fuzzing::record_seeds, NAMES, (4 << 10, 64)),
    target!("journal_files", journal::fuzzing::files, journal::fuzzing::file_seeds, BINARY, (64 << 10, 64)),
    target!("snapshot", journal::fuzzing::snapshot, journal::fuzzing::snapshot_seeds, BINARY, (64 << 10, 64)),
    target!("rows", state::fuzzing::rows, state::fuzzing::row_seeds, NAMES, (64 << 10, 256)),
    target!("manifest", registry::fuzzing::manifest, registry::fuzzing::manifest_seeds, JSON, (64 << 10, 64)),
    target!("names", names, name_seeds, NAMES, (4 << 10, 8)),
    target!("ranges", http::fuzzing::ranges, http::fuzzing::range_seeds, RANGES, (4 << 10, 64)),
    target!("texts", http::fuzzing::texts, http::fuzzing::text_seeds, TEXTS, (16 << 10, 128)),
    target!("config", config::fuzzing::file, config::fuzzing::file_seeds, SETTINGS, (256 << 10, 1_024)),
    target!("requests", http::fuzzing::request, http::fuzzing::request_seeds, TEXTS, (64 << 20, 1_024)),
];

/// The target that is no parser: calls of a registry, against what they have promised.
pub const OPERATIONS: Target = target!(
    "operations",
    collect::tests::model::stories::operations,
    collect::tests::model::stories::operation_seeds,
    &[],
    (256 << 20, 1 << 20)
);

const BINARY: &[&str] = &["ORLOPSEG", "OREC", "ORLOPJNL", "ORLBATCH", "ORLOPSNP", "ORLSPAGE", "ORLSPEND"];
const NAMES: &[&str] = &["sha256:", "sha512:", "a/b", "__", "--", "latest", "\u{ff}\u{ff}\u{ff}\u{7f}"];
const JSON: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "fsLayers",
    "digest",
    "size",
    "platform",
    "\\u0061",
    "null",
    "1e400",
    "-0",
    "18446744073709551616",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
];
const RANGES: &[&str] = &["bytes=", "bytes ", "0-", "-1", ",", "/*", "18446744073709551615", "18446744073709551616"];
const TEXTS: &[&str] = &[
    "/v2/",
    "/api/v1/",
    "/manifests/",
    "/blobs/",
    "uploads/",
    "/referrers/",
    "/tags/list",
    "_catalog",
    "%2f",
    "%2e%2e",
    "%00",
    "?n=",
    "&last=",
    "digest=",
    "mount=",
    "from=",
    "tag=",
    "{blob}",
    "{manifest}",
    "{upload}",
    "range: bytes=",
    "content-range: ",
    "content-type: application/json",
    "host: localhost",
    "GET ",
    "PUT ",
    "PATCH ",
    "POST ",
    "DELETE ",
];
const SETTINGS: &[&str] = &[
    "[[policies]]\nname='a'\npattern='**'\n",
    "[http]",
    "[store]",
    "[registry]",
    "[collect]",
    "= \"",
    "KiB",
    "TiB",
    "ms",
    "d\"",
    "listen",
    "'''",
    "0x",
    "inf",
];

/// Names, tags and digests: what is accepted is written as it was read.
fn names(input: &[u8]) {
    let _ = Digest::decode(input).map(|(digest, rest)| {
        let mut again = Vec::new();
        digest.encode(&mut again);
        assert_eq!([&again, rest].concat(), input);
    });
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert!(tag.as_str() == text && text.len() <= 128 && text.is_ascii());
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert!(name.as_str() == text && text.len() <= 255 && !text.contains("..") && !text.contains("//"));
        assert!(name.organisation() == name::NO_ORGANISATION || text.starts_with(name.organisation()));
    }
}

fn name_seeds() -> Vec<Vec<u8>> {
    let digest = Digest::of(Algorithm::Sha512, b"x");
    let mut encoded = Vec::new();
    digest.encode(&mut encoded);
    let texts = ["a", "a/b-c/d__e/f.g", "latest", "v1.0_x-Y", &digest.to_string()].map(|text| text.as_bytes().to_vec());
    texts.into_iter().chain([encoded]).collect()
}

/// Inputs that were kept: each is its length in four bytes, little-endian, and itself.
pub fn unpack(mut corpus: &[u8]) -> Vec<&[u8]> {
    let mut inputs = Vec::new();
    while let Some((len, rest)) = corpus.split_first_chunk()
        && let Some((input, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)
    {
        inputs.push(input);
        corpus = rest;
    }
    inputs
}

/// Inputs as [`unpack`] reads them.
pub fn pack<'a>(inputs: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    inputs.flat_map(|input| [&(input.len() as u32).to_le_bytes(), input].concat()).collect()
}

#[cfg(test)]
mod tests;
