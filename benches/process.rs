//! What the kernel says of this process.

use std::{fs, thread, time::Duration};

/// Waits until RocksDB has put in order what came in a rush, as far as the CPU time of this process tells; two minutes at
/// most.
pub(crate) fn rest() {
    for _ in 0..120 {
        let before = cpu_ticks();
        thread::sleep(Duration::from_secs(1));
        if cpu_ticks().saturating_sub(before) < 5 {
            return;
        }
    }
}

/// The most memory that it has had.
pub(crate) fn most_memory_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// Hundredths of a second of CPU time that it has used.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
