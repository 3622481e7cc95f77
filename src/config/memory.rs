//! How much memory there is for this process, and defaults that fit into it.
//!
//! What is bounded by settings takes at most two thirds of it, so that the rest of the program, and pages of files, have room. It
//! changes defaults only, never what somebody has set; on machines with two GiB or more all but one are as ever.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Config;

const MIB: u64 = 1 << 20;

/// Bytes of memory of the machine, or of the control group of this process or one above it, whichever is least; `None` when
/// the kernel tells none of them.
pub fn available() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| read(&path)?.trim().parse().ok());
    limits.chain(read(Path::new("/proc/meminfo")).and_then(|text| total(&text))).min()
}

/// Lowers the defaults of what lies in memory to what fits.
pub(super) fn fit(config: &mut Config, memory_bytes: u64) {
    // In whole MiB, for people; not less than the setting takes.
    let share = |parts: u64, least: u64| (memory_bytes / parts / MIB * MIB).max(least * MIB);
    let lower = |default: u64, parts: u64, least: u64| default.min(share(parts, least));
    let lower_len = |default: usize, parts: u64, least: u64| {
        usize::try_from(lower(default as u64, parts, least)).unwrap_or(default)
    };
    let (store, http) = (&mut config.store, &mut config.http);
    store.index_memtable_bytes = lower_len(store.index_memtable_bytes, 10, 8);
    store.row_cache_bytes = lower_len(store.row_cache_bytes, 32, 1);
    store.index_cache_bytes = lower_len(store.index_cache_bytes, 16, 1);
    store.buffered_bytes_max = lower(store.buffered_bytes_max, 16, 1);
    http.body_memory_bytes = lower(http.body_memory_bytes, 8, 8);
    http.verify_memory_bytes = lower(http.verify_memory_bytes, 4, 1);
}

/// Bytes of memory that the settings let be filled.
pub fn needed(config: &Config) -> u64 {
    let (store, http) = (&config.store, &config.http);
    [
        store.index_memtable_bytes as u64,
        store.index_cache_bytes as u64,
        store.row_cache_bytes as u64,
        store.buffered_bytes_max,
        http.body_memory_bytes,
        http.verify_memory_bytes,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// Files in which limits may be for a process in these control groups (`/proc/self/cgroup`), from its own up to the root; of
/// both versions. Inside of a container the root is its own.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

/// Of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bounded_by_settings_takes_two_thirds_of_little_memory_and_as_much_as_ever_of_more() {
        let sum = |memory_bytes: u64| {
            let mut config = Config::default();
            fit(&mut config, memory_bytes);
            let (store, http) = (&config.store, &config.http);
            assert!(store.buffered_bytes_max >= store.large_blob_bytes);
            assert!(http.body_memory_bytes >= config.registry.manifest_bytes_max as u64);
            needed(&config)
        };
        for mib in [64, 128, 256, 512, 1024, 2048] {
            assert!(sum(mib * MIB) <= mib * MIB * 2 / 3, "{mib}: {}", sum(mib * MIB) / MIB);
        }
        assert_eq!(sum(8192 * MIB), sum(u64::MAX));
    }

    #[test]
    fn limits_are_looked_for_in_all_groups_above_the_process() {
        let groups = "12:pids:/a\n4:memory:/docker/abc\n0::/system.slice/orlop.service\nno line\n";
        let files: Vec<String> = limit_files(groups).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/system.slice/orlop.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(total("MemTotal:       24606316 kB\nMemFree: 1 kB\n"), Some(24_606_316 << 10));
        assert!(available().is_some());
    }
}
