//! Addresses, hosts, and how far a name is from another one. Sizes and durations are read by [`units`].

use std::time::Duration;

use crate::words::units;
pub(super) use crate::words::units::{Bounds, bytes, count, show_bytes};

/// A duration; its bounds are in milliseconds. A unit is needed, except for nothing at all.
pub(super) fn duration(text: &str, bounds_ms: Bounds) -> Option<Duration> {
    units::duration(text, bounds_ms).map(Duration::from_millis)
}

/// A duration in the largest unit that it is whole in.
pub(super) fn show_duration(duration: Duration) -> String {
    units::show_duration(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a text is host and port. Whether the host is there is seen when it is bound.
pub(super) fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
    })
}

/// Whether a text can be the host of a request, without a port.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Edits (insert, remove, replace a character) between two texts.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (line, x) in a.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        row[0] = left;
        for (above, y) in row[1..].iter_mut().zip(b.chars()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *above;
            left = replaced.min(diagonal + 1).min(left + 1);
            *above = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:5000", "localhost:0", "[::]:5000", "registry.example:65535"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "5000", ":5000", "127.0.0.1", "::1:5000", "a:65536", "a:", "a:b"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
