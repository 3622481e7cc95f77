//! The texts of values: counts, sizes (`64MiB`), durations (`30s`), addresses.
//!
//! Units are the binary ones only; `MB`, which half of all people read as something else, is refused.

use std::time::Duration;

/// Smallest and largest value, inclusive.
pub(super) type Bounds = (u64, u64);

const SIZES: [(&str, u64); 6] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
const DURATIONS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A whole number.
pub(super) fn count(text: &str, bounds: Bounds) -> Option<u64> {
    scaled(text, &[("", 1)], bounds)
}

/// A size; without a unit in bytes.
pub(super) fn bytes(text: &str, bounds: Bounds) -> Option<u64> {
    scaled(text, &SIZES, bounds)
}

/// A duration; its bounds are in milliseconds. A unit is needed, except for nothing at all.
pub(super) fn duration(text: &str, bounds_ms: Bounds) -> Option<Duration> {
    let text = if text == "0" { "0s" } else { text };
    scaled(text, &DURATIONS_MS, bounds_ms).map(Duration::from_millis)
}

fn scaled(text: &str, units: &[(&str, u64)], (min, max): Bounds) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let value = number.parse::<u64>().ok()?.checked_mul(*scale)?;
    (min..=max).contains(&value).then_some(value)
}

/// A size in the largest unit that it is whole in.
pub(super) fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// A duration in the largest unit that it is whole in.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 { "0s".to_owned() } else { show(ms, &DURATIONS_MS) }
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    match units.iter().find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        None => value.to_string(),
    }
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

    const ANY: Bounds = (0, u64::MAX);

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("17", Some(17)),
            ("17B", Some(17)),
            ("4KiB", Some(4096)),
            ("64 MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("64MB", None),
            ("64M", None),
            ("-1", None),
            ("+1", None),
            ("1.5MiB", None),
            ("MiB", None),
            ("", None),
            ("é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text, ANY), expected, "{text}");
        }
        assert_eq!(bytes("9", (10, 20)), None);
        assert_eq!(bytes("10", (10, 20)), Some(10));
        assert_eq!(bytes("21", (10, 20)), None);
    }

    #[test]
    fn durations() {
        let cases = [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("24h", Some(86_400_000)),
            ("14d", Some(1_209_600_000)),
            ("0", Some(0)),
            ("30", None),
            ("1h30m", None),
            ("s", None),
            ("99999999999999999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text, ANY), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn shown_values_are_read_again() {
        for value in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 30, u64::MAX] {
            assert_eq!(bytes(&show_bytes(value), ANY), Some(value));
            assert_eq!(duration(&show_duration(Duration::from_millis(value)), ANY), Some(Duration::from_millis(value)));
        }
        assert_eq!([show_bytes(64 << 20), show_bytes(1500)], ["64MiB", "1500B"]);
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
    }

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
