//! All that reads bytes of others, as functions of any bytes, with the properties that must hold for each.
//!
//! Only tests and builds under `cfg(fuzzing)` have this; it is no part of the library. Each layer's `fuzzing` module states
//! its properties beside the code, where it can see what is private, and this is the list of them. A property that does not
//! hold panics. The crate in `fuzz/` lets libFuzzer look for such bytes and measures memory; a test here replays the bytes that it
//! has found worth keeping, and changes them at random.
//!
//! It refuses to know of any fuzzer.

use crate::{Digest, RepositoryName, Tag};
use crate::{collect, config, http, journal, name, registry, segment, state};

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
    collect::tests::model::operations,
    collect::tests::model::operation_seeds,
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
const SETTINGS: &[&str] =
    &["[http]", "[store]", "[registry]", "[collect]", "= \"", "KiB", "TiB", "ms", "d\"", "listen", "'''", "0x", "inf"];

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
    let digest = Digest::of(crate::Algorithm::Sha512, b"x");
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
mod tests {
    use super::*;

    /// Names the input when a property does not hold.
    fn check(target: &Target, input: &[u8]) {
        let result = std::panic::catch_unwind(|| (target.check)(input));
        assert!(result.is_ok(), "{}: {}", target.name, data_encoding::HEXLOWER.encode(input));
    }

    /// An input that is a little different: bytes changed, taken away, doubled; a word put in.
    fn changed(input: &[u8], words: &[&str], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..=bytes.len());
            let until = (at + random.usize(..16)).min(bytes.len());
            match random.u8(..6) {
                0 if at < until => bytes[at] ^= 1 << random.u8(..8),
                1 if at < until => bytes[at] = random.u8(..),
                2 => drop(bytes.drain(at..until)),
                3 => drop(bytes.splice(at..at, bytes[at..until].to_vec())),
                4 => bytes.truncate(at),
                _ if !words.is_empty() => drop(bytes.splice(at..at, words[random.usize(..words.len())].bytes())),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        bytes
    }

    #[test]
    fn properties_hold_for_what_was_kept_and_for_what_is_like_it() {
        let seed = std::env::var("ORLOP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        println!("ORLOP_TEST_SEED={seed}");
        for target in TARGETS.iter().chain([&OPERATIONS]) {
            let mut random = fastrand::Rng::with_seed(seed);
            let inputs = [(target.seeds)(), unpack(target.corpus).into_iter().map(<[u8]>::to_vec).collect()].concat();
            assert!(!inputs.is_empty() && !inputs[0].is_empty(), "{} has no seeds", target.name);
            inputs.iter().for_each(|input| check(target, input));
            let rounds = if target.name == "operations" { 20 } else { 2_000 };
            for _ in 0..rounds {
                check(target, &changed(&inputs[random.usize(..inputs.len())], target.words, &mut random));
            }
        }
    }

    #[test]
    fn a_corpus_that_was_packed_is_unpacked() {
        let inputs: [&[u8]; 3] = [b"a", b"", b"longer"];
        let packed = pack(inputs.into_iter());
        assert_eq!(unpack(&packed), inputs);
        assert_eq!(unpack(&packed[..packed.len() - 1]), inputs[..2]);
    }
}
