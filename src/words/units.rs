//! Sizes (`64MiB`) and durations (`30s`) as settings and policies are written: read, and shown so that they can be read again.
//!
//! Units are the binary ones only; `MB`, which half of all people read as something else, is refused.

/// Smallest and largest value, inclusive.
pub type Bounds = (u64, u64);

const SIZES: [(&str, u64); 6] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
const DURATIONS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A whole number.
pub fn count(text: &str, bounds: Bounds) -> Option<u64> {
    scaled(text, &[("", 1)], bounds)
}

/// A size; without a unit in bytes.
pub fn bytes(text: &str, bounds: Bounds) -> Option<u64> {
    scaled(text, &SIZES, bounds)
}

/// A duration, as milliseconds; so are its bounds. A unit is needed, except for nothing at all.
pub fn duration(text: &str, bounds_ms: Bounds) -> Option<u64> {
    let text = if text == "0" { "0s" } else { text };
    scaled(text, &DURATIONS_MS, bounds_ms)
}

fn scaled(text: &str, units: &[(&str, u64)], (min, max): Bounds) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let value = number.parse::<u64>().ok()?.checked_mul(*scale)?;
    (min..=max).contains(&value).then_some(value)
}

/// A size in the largest unit that it is whole in.
pub fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// A duration, in milliseconds, in the largest unit that it is whole in.
pub fn show_duration(ms: u64) -> String {
    if ms == 0 { "0s".to_owned() } else { show(ms, &DURATIONS_MS) }
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    match units.iter().find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        None => value.to_string(),
    }
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
            assert_eq!(duration(text, ANY), expected, "{text}");
        }
    }

    #[test]
    fn shown_values_are_read_again() {
        for value in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 30, u64::MAX] {
            assert_eq!(bytes(&show_bytes(value), ANY), Some(value));
            assert_eq!(duration(&show_duration(value), ANY), Some(value));
        }
        assert_eq!([show_bytes(64 << 20), show_bytes(1500)], ["64MiB", "1500B"]);
        assert_eq!(show_duration(90_000), "90s");
    }
}
