//! `Range` of a download (RFC 9110, section 14) and `Content-Range` of a chunk (OCI distribution, "Pushing a blob in chunks").
//!
//! One range per request. Several, or another unit, are answered with the whole, as RFC 9110 allows; numbers too large
//! for 64 bits lie behind every end and are read so.

/// What a `Range` header asks of `len` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no range, or one that may be ignored.
    Whole,
    /// From `begin` up to, not including, `end`; never empty, inside the content.
    Part { begin: u64, end: u64 },
    /// No byte of the content lies in the range.
    Unsatisfiable,
}

/// Reads a `Range` header.
pub(super) fn wanted(header: &str, len: u64) -> Wanted {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    let (begin, end) = match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(count) => (len.saturating_sub(count), len),
            None => return Wanted::Whole,
        },
        (first, "") => match number(first) {
            Some(begin) => (begin, len),
            None => return Wanted::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(begin), Some(last)) if begin <= last => (begin, last.saturating_add(1).min(len)),
            _ => return Wanted::Whole,
        },
    };
    if begin < end { Wanted::Part { begin, end } } else { Wanted::Unsatisfiable }
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

/// Reads a chunk's `Content-Range`: `a-b` as OCI has it, or `bytes a-b/…` as RFC 9110 does. `None` when it is neither.
pub(super) fn chunk(header: &str) -> Option<Chunk> {
    let range = match header.strip_prefix("bytes ") {
        Some(rest) => rest.split_once('/').map_or(rest, |(range, _)| range),
        None => header,
    };
    let (first, last) = range.trim().split_once('-')?;
    let (begins, last) = (strict(first)?, strict(last)?);
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
        let part = |begin, end| Wanted::Part { begin, end };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=2-4", part(2, 5)),
            ("bytes=2-400", part(2, 10)),
            ("bytes=9-", part(9, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-30", part(0, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-12", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1-2,4-5", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("", Wanted::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(wanted(header, 10), expected, "{header}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted("bytes=-5", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn chunks_in_both_notations() {
        let cases = [
            ("0-0", Some((0, 1))),
            ("10-19", Some((10, 10))),
            ("bytes 10-19/*", Some((10, 10))),
            ("bytes 10-19/200", Some((10, 10))),
            ("bytes 10-19", Some((10, 10))),
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
