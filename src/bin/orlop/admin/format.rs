//! Sizes, times and texts as people read them.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// What stands where nothing is known or nothing applies.
pub(super) const NONE: &str = "-";

/// A size with a unit: exact below 1 KiB, else with one decimal.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Rounded in tenths, so that 1,048,575 bytes are 1.0 MiB and not 1024.0 KiB.
    let mut tenths = (u128::from(bytes) * 10 + 512) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        unit += 1;
        let divisor = 1_u128 << (10 * (unit + 1));
        tenths = (u128::from(bytes) * 10 + divisor / 2) / divisor;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A size of an answer.
pub(super) fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| NONE.to_owned(), bytes)
}

/// A number of an answer.
pub(super) fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| NONE.to_owned(), |count| count.to_string())
}

/// A text of an answer.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| NONE.to_owned(), plain)
}

/// A text without what would change how a terminal behaves.
pub(super) fn plain(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A time of an answer, to the second.
pub(super) fn time(value: &Value) -> String {
    match value.as_str().map(str::parse::<Timestamp>) {
        Some(Ok(time)) => Timestamp::from_second(time.as_second()).unwrap_or(time).to_string(),
        _ => text(value),
    }
}

/// A time, and how far it is from now.
pub(super) fn time_from(value: &Value, now: Timestamp) -> String {
    let Some(Ok(at)) = value.as_str().map(str::parse::<Timestamp>) else { return text(value) };
    let shown = time(value);
    if at <= now { shown } else { format!("{shown} (in {})", duration(at.duration_since(now))) }
}

/// The time between two times of an answer.
pub(super) fn between(from: &Value, to: &Value) -> Option<String> {
    let from: Timestamp = from.as_str()?.parse().ok()?;
    let to: Timestamp = to.as_str()?.parse().ok()?;
    Some(duration(to.duration_since(from)))
}

/// A duration in milliseconds, tenths of seconds, or its two largest units: whatever is long enough.
pub(super) fn duration(duration: SignedDuration) -> String {
    let ms = u64::try_from(duration.as_millis().max(0)).unwrap_or(u64::MAX);
    if (1..1_000).contains(&ms) {
        return format!("{ms}ms");
    }
    if ms < 10_000 {
        return if ms % 1_000 == 0 {
            format!("{}s", ms / 1_000)
        } else {
            format!("{}.{}s", ms / 1_000, ms % 1_000 / 100)
        };
    }
    let seconds = ms / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in &units[first..units.len().min(first + 2)] {
        if rest >= *unit {
            parts.push(format!("{}{name}", rest / unit));
        }
        rest %= unit;
    }
    parts.join(" ")
}

/// `1 blob`, `2 blobs`.
pub(super) fn counted(count: u64, one: &str) -> String {
    let many = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_have_the_unit_that_reads_best() {
        for (size, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (75_000_000, "71.5 MiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        for (ms, shown) in [
            (-5, "0s"),
            (0, "0s"),
            (250, "250ms"),
            (1_250, "1.2s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (90_000, "1m 30s"),
            (3_600_000, "1h"),
            (86_400_000 * 13 + 3_600_000 * 4 + 60_000, "13d 4h"),
            (86_400_000 + 5_000, "1d"),
        ] {
            assert_eq!(duration(SignedDuration::from_millis(ms)), shown);
        }
    }

    #[test]
    fn times_are_told_to_the_second_and_what_is_no_time_as_it_is() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(time(&json!("2026-11-21T12:00:00.789Z")), "2026-11-21T12:00:00Z");
        assert_eq!(time(&json!("soon\n")), "soon\\n");
        assert_eq!(time(&Value::Null), "-");
        assert_eq!(time_from(&json!("2026-12-05T12:00:00Z"), now), "2026-12-05T12:00:00Z (in 14d)");
        assert_eq!(time_from(&json!("2026-11-20T12:00:00Z"), now), "2026-11-20T12:00:00Z");
        assert_eq!(between(&json!("2026-11-21T12:00:00Z"), &json!("2026-11-21T12:00:01.5Z")).as_deref(), Some("1.5s"));
        assert_eq!(
            (counted(1, "repository"), counted(0, "repository")),
            ("1 repository".into(), "0 repositories".into())
        );
    }
}
