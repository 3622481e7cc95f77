//! CPU time that processes have used, from /proc. What is not there counts as nothing.

use std::{fs, time::Duration};

/// The kernel tells times to programs in hundredths of a second (USER_HZ), whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of all threads of a process, those that have ended too.
pub(crate) fn used(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    TICK.saturating_mul(ticks(&stat).unwrap_or(0))
}

/// User and system ticks: the 14th and 15th field. The second one, the program's name, may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()?.saturating_add(next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 70 5 0 0 20 0 1";
        assert_eq!(ticks(stat), Some(75));
        assert_eq!(ticks("12 (a) S 1 2"), None);
        assert_eq!(used("none"), Duration::ZERO);
    }
}
