//! Sizes, durations and counts as people read them. `units`: as people write them.

use jiff::SignedDuration;

pub mod units;

/// A size with a unit: exact below 1 KiB, else with one decimal.
pub fn bytes(bytes: u64) -> String {
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

/// A duration in milliseconds, tenths of seconds, or its two largest units: whatever is long enough.
pub fn duration(duration: SignedDuration) -> String {
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
pub fn counted(count: u64, one: &str) -> String {
    let many = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
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
    fn counts_have_the_form_of_their_number() {
        let shown = [0, 1, 2].map(|count| (counted(count, "blob"), counted(count, "repository")));
        let expected = [("0 blobs", "0 repositories"), ("1 blob", "1 repository"), ("2 blobs", "2 repositories")];
        assert_eq!(shown, expected.map(|(blobs, repositories)| (blobs.to_owned(), repositories.to_owned())));
    }
}
