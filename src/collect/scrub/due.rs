//! How fast a pass has to read to be done in its time, and when one is due. Pure: times are given.

use super::{Notes, Pass, ScrubOptions};

/// A pass of a small store need not be drawn out.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// Bytes in a second that do what is left in the time that is left, within bounds: pauses and restarts are made up for.
pub(super) fn rate(pass: &Pass, options: &ScrubOptions, now_ms: u64) -> u64 {
    let max = options.bytes_per_second_max;
    let period_ms = period_ms(options);
    // A clock that was put back does not give it more time than a whole pass has.
    let left_ms = pass.began_ms.saturating_add(period_ms).saturating_sub(now_ms).min(period_ms).max(1);
    let needed = (u128::from(left_bytes(pass)) * 1_000).div_ceil(left_ms.into());
    u64::try_from(needed).unwrap_or(u64::MAX).clamp(BYTES_PER_SECOND_MIN.min(max), max)
}

/// When a pass ends that reads so many bytes in a second, in Unix milliseconds.
pub(super) fn end_ms(pass: &Pass, rate: u64, now_ms: u64) -> u64 {
    let left_ms = u128::from(left_bytes(pass)) * 1_000 / u128::from(rate.max(1));
    now_ms.saturating_add(u64::try_from(left_ms).unwrap_or(u64::MAX))
}

/// When the next pass begins; `None` for at once.
pub(super) fn next_ms(notes: &Notes, options: &ScrubOptions) -> Option<u64> {
    let under_way = notes.pass.as_ref().map(|pass| pass.began_ms);
    let began_ms = under_way.or_else(|| notes.last.as_ref().map(|last| last.began_ms))?;
    Some(began_ms.saturating_add(period_ms(options)))
}

fn period_ms(options: &ScrubOptions) -> u64 {
    u64::try_from(options.pass.as_millis()).unwrap_or(u64::MAX)
}

fn left_bytes(pass: &Pass) -> u64 {
    pass.total_bytes.saturating_sub(pass.bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PIECE: u64 = 1 << 20;

    /// The rate was what a whole pass needs on average, so each pause, each restart and each slow hour made the pass longer.
    #[test]
    fn a_pass_ends_in_its_time_whatever_it_was_held_up_by_while_the_disk_can_do_it() {
        let first = fastrand::u64(..1 << 40);
        for seed in first..first + 500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let period_ms = random.u64(60_000..10_000_000);
            let options = ScrubOptions {
                pass: Duration::from_millis(period_ms),
                bytes_per_second_max: 64 << 20,
                ..ScrubOptions::default()
            };
            let total_bytes = random.u64(1..=(period_ms * ((64 << 20) / 1_000)) / 3);
            let mut pass = Pass { began_ms: 5_000, after: None, records: 0, bytes: 0, total_bytes, repaired: None };
            let mut now_ms = 5_000;
            while pass.bytes < total_bytes {
                let rate = rate(&pass, &options, now_ms);
                assert!((BYTES_PER_SECOND_MIN..=64 << 20).contains(&rate), "seed {seed}: {rate}");
                pass.bytes += PIECE;
                now_ms += (PIECE * 1_000).div_ceil(rate);
                let pause = random.u64(..period_ms / 10);
                // What is left takes this long at the most that the disk may do, with a fifth for rounding.
                let least_ms = left_bytes(&pass) * 1_200 / (64 << 20);
                if random.u8(..20) == 0 && now_ms + pause + least_ms <= 5_000 + period_ms {
                    now_ms += pause;
                }
            }
            // The last pieces may be cut to whole milliseconds.
            let late_ms = now_ms.saturating_sub(5_000 + period_ms);
            assert!(late_ms <= 1_000, "seed {seed}: {late_ms} ms late of {period_ms}");
        }
    }

    #[test]
    fn what_cannot_be_done_in_time_is_done_as_fast_as_it_may() {
        let options = ScrubOptions { bytes_per_second_max: 5 << 20, ..ScrubOptions::default() };
        let pass = Pass { began_ms: 0, after: None, records: 0, bytes: 0, total_bytes: 1 << 60, repaired: None };
        assert_eq!(rate(&pass, &options, 0), 5 << 20);
        assert_eq!(rate(&pass, &options, u64::MAX), 5 << 20);
        assert_eq!(rate(&Pass { total_bytes: 10, ..pass }, &options, 0), BYTES_PER_SECOND_MIN);
    }
}
