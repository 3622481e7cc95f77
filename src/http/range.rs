//! `Range` of a download (RFC 9110, section 14) and `Content-Range` of a chunk (OCI distribution, "Pushing a blob in chunks").
//!
//! Ranges that overlap or touch are made one, so an answer is never longer than the content and the heads of its parts.
//! What is no range of bytes, or asks for too many, is answered with the whole, as RFC 9110 allows; only a range that runs
//! backwards is told so. Numbers too large for 64 bits lie behind every end and are read so.

use std::ops::Range;

/// Most ranges of one header; with more it is ignored, before any is sorted.
const RANGES_MAX: usize = 512;

/// Most parts of one answer, after ranges that touch were made one. Each costs at least the read of a stored block.
const PARTS_MAX: usize = 128;

/// What a `Range` header asks of `len` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no range, or one that may be ignored.
    Whole,
    /// These parts: one at least, none empty, none touching another, in the order of the header.
    Parts(Vec<Range<u64>>),
    /// No byte of the content lies in any of the ranges.
    Unsatisfiable,
}

/// One range of a header, against the length of the content.
enum Spec {
    /// Bytes that are there.
    Satisfiable(Range<u64>),
    /// All bytes of content that has none: there is nothing to choose from.
    AllOfNothing,
    Beyond,
    Backwards,
    Malformed,
}

/// Reads a `Range` header.
pub(super) fn wanted(header: &str, len: u64) -> Wanted {
    let Some((unit, set)) = header.split_once('=') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.split(',').nth(RANGES_MAX).is_some() {
        return Wanted::Whole;
    }
    let mut ranges = Vec::new();
    let mut beyond = false;
    for text in set.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match spec(text, len) {
            Spec::Satisfiable(range) => ranges.push(range),
            Spec::Beyond => beyond = true,
            Spec::Backwards => return Wanted::Unsatisfiable,
            Spec::AllOfNothing | Spec::Malformed => return Wanted::Whole,
        }
    }
    let parts = joined(ranges);
    match parts.len() {
        0 if beyond => Wanted::Unsatisfiable,
        0 => Wanted::Whole,
        1..=PARTS_MAX => Wanted::Parts(parts),
        _ => Wanted::Whole,
    }
}

fn spec(text: &str, len: u64) -> Spec {
    let Some((first, last)) = text.split_once('-') else { return Spec::Malformed };
    let (begin, end) = match (first, last, number(first), number(last)) {
        ("", _, _, Some(0)) => return Spec::Beyond,
        ("", _, _, Some(count)) => (len.saturating_sub(count), len),
        (_, "", Some(begin), _) => (begin, len),
        (_, _, Some(begin), Some(last)) if begin > last => return Spec::Backwards,
        (_, _, Some(begin), Some(last)) => (begin, last.saturating_add(1).min(len)),
        _ => return Spec::Malformed,
    };
    if begin < end {
        Spec::Satisfiable(begin..end)
    } else if begin == 0 {
        Spec::AllOfNothing
    } else {
        Spec::Beyond
    }
}

/// Makes one of ranges that overlap or touch; it takes the place of the first of them in the order of the header.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<(usize, Range<u64>)> = ranges.into_iter().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.start);
    let mut parts: Vec<(usize, Range<u64>)> = Vec::with_capacity(sorted.len());
    for (order, range) in sorted {
        match parts.last_mut() {
            Some((first, part)) if range.start <= part.end => {
                *first = order.min(*first);
                part.end = range.end.max(part.end);
            }
            _ => parts.push((order, range)),
        }
    }
    parts.sort_by_key(|(order, _)| *order);
    parts.into_iter().map(|(_, range)| range).collect()
}

/// Decimal digits only: `u64::from_str` would also take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The place of a chunk in its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its first byte.
    pub(super) begins: u64,
    /// Its length, at least one byte.
    pub(super) len: u64,
}

/// Reads a chunk's `Content-Range`: `a-b` as OCI has it, or `bytes a-b/…` as RFC 9110 does. `None` when it is neither, or
/// contradicts itself.
pub(super) fn chunk(header: &str) -> Option<Chunk> {
    let (range, whole) = match header.strip_prefix("bytes ") {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "*")),
        None => (header, "*"),
    };
    let (first, last) = range.trim().split_once('-')?;
    let (begins, last) = (strict(first)?, strict(last)?);
    if whole != "*" && strict(whole)? <= last {
        return None;
    }
    Some(Chunk { begins, len: last.checked_sub(begins)?.checked_add(1)? })
}

/// A number of 64 bits in decimal digits.
pub(super) fn strict(text: &str) -> Option<u64> {
    number(text).and(text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let part = |begin: u64, end: u64| Wanted::Parts(std::iter::once(begin..end).collect());
        let parts = |parts: &[(u64, u64)]| Wanted::Parts(parts.iter().map(|&(begin, end)| begin..end).collect());
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=2-4", part(2, 5)),
            ("bytes=2-400", part(2, 10)),
            ("bytes=9-", part(9, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-30", part(0, 10)),
            ("Bytes= 2-4 ", part(2, 5)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-12", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=4-2", Wanted::Unsatisfiable),
            ("bytes=0-1,4-2", Wanted::Unsatisfiable),
            ("bytes=10-,-0,30-31", Wanted::Unsatisfiable),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1-2;4-5", Wanted::Whole),
            ("bytes=1-2,x", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=1 - 2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("", Wanted::Whole),
            ("bytes=1-2,4-5", parts(&[(1, 3), (4, 6)])),
            ("bytes=8-, 0-1 ,,4-5", parts(&[(8, 10), (0, 2), (4, 6)])),
            ("bytes=5-5,20-,1-1", parts(&[(5, 6), (1, 2)])),
            ("bytes=1-2,3-4", part(1, 5)),
            ("bytes=3-4,1-2,0-0", part(0, 5)),
            ("bytes=0-,2-3,-1", part(0, 10)),
            ("bytes=8-8,2-3,0-0,3-5,1-1", parts(&[(8, 9), (0, 6)])),
        ];
        for (header, expected) in cases {
            assert_eq!(wanted(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn content_without_bytes_is_whole_from_its_beginning() {
        for (header, expected) in [
            ("bytes=0-", Wanted::Whole),
            ("bytes=0-0", Wanted::Whole),
            ("bytes=-5", Wanted::Whole),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=1-", Wanted::Unsatisfiable),
            ("bytes=1-0", Wanted::Unsatisfiable),
        ] {
            assert_eq!(wanted(header, 0), expected, "{header}");
        }
    }

    #[test]
    fn too_many_ranges_are_ignored() {
        let every_second = |count: u64| (0..count).map(|n| format!("{}-{0}", 2 * n)).collect::<Vec<_>>().join(",");
        let count = |header: &str| match wanted(header, 1 << 20) {
            Wanted::Parts(parts) => parts.len(),
            _ => 0,
        };
        assert_eq!(count(&format!("bytes={}", every_second(PARTS_MAX as u64))), PARTS_MAX);
        assert_eq!(count(&format!("bytes={}", every_second(PARTS_MAX as u64 + 1))), 0);
        assert_eq!(count(&format!("bytes={}0-0", "1-1,".repeat(RANGES_MAX - 1))), 1);
        assert_eq!(count(&format!("bytes={}0-0", "1-1,".repeat(RANGES_MAX))), 0);
    }

    #[test]
    fn joined_ranges_hold_the_same_bytes() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let ranges: Vec<Range<u64>> = (0..random.usize(1..12))
                .map(|_| {
                    let begin = random.u64(0..60);
                    begin..random.u64(begin + 1..64)
                })
                .collect();
            let bytes =
                |ranges: &[Range<u64>]| (0..64).map(|at| ranges.iter().any(|r| r.contains(&at))).collect::<Vec<_>>();
            let parts = joined(ranges.clone());
            assert_eq!(bytes(&parts), bytes(&ranges), "seed {seed}: {ranges:?}");
            for (number, part) in parts.iter().enumerate() {
                let apart = |other: &Range<u64>| part.end < other.start || other.end < part.start;
                assert!(parts[number + 1..].iter().all(apart), "seed {seed}: {ranges:?} {parts:?}");
            }
        }
    }

    #[test]
    fn chunks_in_both_notations() {
        let cases = [
            ("0-0", Some((0, 1))),
            ("10-19", Some((10, 10))),
            ("bytes 10-19/*", Some((10, 10))),
            ("bytes 10-19/200", Some((10, 10))),
            ("bytes 10-19", Some((10, 10))),
            ("bytes 10-19/20", Some((10, 10))),
            ("bytes 10-19/19", None),
            ("bytes 10-19/x", None),
            ("bytes 10-19/", None),
            ("bytes */20", None),
            ("18446744073709551614-18446744073709551615", Some((u64::MAX - 1, 2))),
            ("0-18446744073709551615", None),
            ("0-18446744073709551616", None),
            ("5-4", None),
            ("-4", None),
            ("4-", None),
            ("+4-5", None),
            ("bytes=4-5", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(chunk(header).map(|chunk| (chunk.begins, chunk.len)), expected, "{header}");
        }
    }
}
