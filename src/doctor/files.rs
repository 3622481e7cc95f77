//! The store's own files: whether it takes writes, the reserve, the formats, the last start, the journal, `lost/`.

use super::{Check, Level};
use crate::{
    store::{History, Lost, Recovery, Reserve, Store, formats},
    words::{bytes, counted, duration},
};

/// Bytes of a replay from which its pace can be told.
const PACE_BYTES_MIN: u64 = 1 << 20;

/// Whether writes are taken.
pub(super) fn writes(store: &Store) -> Check {
    refusal(store.poisoned().as_deref(), store.read_only().is_some())
}

pub(super) fn refusal(reason: Option<&str>, is_read_only: bool) -> Check {
    const NAME: &str = "writes";
    let Some(reason) = reason else { return Check::ok(NAME, "writes are taken") };
    let remedy = match is_read_only {
        true => "stop orlop, run `orlop repair --data DIR`, start it again",
        false => {
            "see that the disk is sound (the kernel's log), then restart orlop: a start finds out what is on the disk"
        }
    };
    Check::new(NAME, Level::Problem, format!("writes are refused, reads go on: {reason}"), remedy)
}

/// Whether blocks are kept for a full disk.
pub(super) fn reserve(store: &Store, free_bytes: u64) -> Check {
    Check::tried("reserve", store.reserve().map(|found| reserved(found, free_bytes)))
}

pub(super) fn reserved(found: Reserve, free_bytes: u64) -> Check {
    const NAME: &str = "reserve";
    let wanted = bytes(found.wanted_bytes);
    let enough = bytes(found.wanted_bytes.saturating_mul(2));
    match found.kept_bytes {
        _ if found.wanted_bytes == 0 => Check::new(
            NAME,
            Level::Note,
            "no blocks are set aside for a disk that others fill, as store.reserve_bytes is 0",
            "set store.reserve_bytes to 256MiB or more",
        ),
        // A setting may have been raised since: the file is not made anew for that.
        Some(kept) if kept >= found.wanted_bytes / 2 => {
            Check::ok(NAME, format!("{} are set aside for a disk that others fill", bytes(kept)))
        }
        Some(kept) => Check::new(
            NAME,
            Level::Warning,
            format!("the file `reserve` has only {} of the {wanted} that are to be set aside", bytes(kept)),
            "use a file system that sets blocks aside (ext4, xfs, btrfs); where it does, stop orlop, remove the file, and \
             start it: it is made anew",
        ),
        None if free_bytes < found.wanted_bytes.saturating_mul(2) => Check::new(
            NAME,
            Level::Warning,
            format!("the {wanted} for a disk that others fill are spent, or never were set aside: too little is free"),
            format!("make room: they are set aside when {enough} are free"),
        ),
        None => Check::new(
            NAME,
            Level::Note,
            format!("the {wanted} for a disk that others fill are not set aside yet"),
            "nothing: a store that takes writes does it within ten seconds; when it does not, look at the log",
        ),
    }
}

/// What this program is and writes.
pub(super) fn versions() -> Check {
    const NAME: &str = "versions";
    let formats = formats().map(|(format, version)| format!("{format} {version}")).join(", ");
    let what = format!("orlop {} with the formats {formats}", env!("CARGO_PKG_VERSION"));
    if cfg!(feature = "rocksdb") {
        return Check::ok(NAME, what);
    }
    let what =
        format!("{what}; it is built without RocksDB, so the index lies in memory, and each start builds it anew");
    Check::new(NAME, Level::Note, what, "use a build with the feature rocksdb for more than development")
}

/// What the last start had to do.
pub(super) fn start(store: &Store) -> Check {
    started(store.recovery())
}

pub(super) fn started(recovery: &Recovery) -> Check {
    const NAME: &str = "start";
    let took = jiff::SignedDuration::try_from(recovery.duration).map_or_else(|_| "long".to_owned(), duration);
    let replayed = format!("{} of journal ({took})", bytes(recovery.replayed_bytes));
    if recovery.lost_records > 0 {
        let lost = counted(recovery.lost_records, "acknowledged record");
        return Check::new(
            NAME,
            Level::Problem,
            format!("at the last start the journal lacked at least {lost}: what was pushed or deleted last is lost"),
            "find out why the disk lost what was synced; push again what is missed; `orlop verify` tells whether the rest \
             is whole; what may still be of use lies in lost/",
        );
    }
    match &recovery.rebuilt {
        Some(reason) => Check::new(
            NAME,
            Level::Note,
            format!("the last start built the index anew from {replayed}: {reason}"),
            "nothing, if it was removed on purpose; else see that the disk is sound, and run `orlop scrub`",
        ),
        None if recovery.created => Check::ok(NAME, "the last start made a new store"),
        None => Check::ok(NAME, format!("the last start replayed {replayed}")),
    }
}

/// From what the state could be built again, and how long that takes.
pub(super) fn journal(store: &Store) -> Check {
    Check::tried("journal", store.history().map(|history| recoverable(&history, store.recovery())))
}

pub(super) fn recoverable(history: &History, recovery: &Recovery) -> Check {
    const NAME: &str = "journal";
    let History { snapshots, bytes_after, snapshot_due_bytes, unflushed_bytes } = history;
    let whole = snapshots.first().copied().unwrap_or_default().saturating_add(*bytes_after);
    let from = match snapshots.first() {
        Some(newest) => {
            format!("{}, the newest of {}, and", counted(snapshots.len() as u64, "snapshot"), bytes(*newest))
        }
        None => "no snapshot yet, and".to_owned(),
    };
    let pace = pace(recovery).map_or_else(String::new, |per_second| {
        let long = |bytes: u64| {
            let seconds = i64::try_from(bytes / per_second).unwrap_or(i64::MAX);
            duration(jiff::SignedDuration::from_secs(seconds.max(1)))
        };
        format!(" ({} and {} at the pace of the last start)", long(*unflushed_bytes), long(whole))
    });
    let what = format!(
        "{from} {} of journal behind; a start would replay {}, and {} if the index were lost{pace}",
        bytes(*bytes_after),
        bytes(*unflushed_bytes),
        bytes(whole)
    );
    // A snapshot is begun when it is due, and read twice at half of the disk's pace.
    if *snapshot_due_bytes > 0 && *bytes_after / 3 > *snapshot_due_bytes {
        return Check::new(
            NAME,
            Level::Warning,
            format!("{what}; a snapshot was due after {}", bytes(*snapshot_due_bytes)),
            "look for \"no snapshot of the journal was written\" in the log, which says why; make room if the disk is full",
        );
    }
    Check::ok(NAME, what)
}

/// Bytes in a second of the last start's replay, where it was long enough to tell.
fn pace(recovery: &Recovery) -> Option<u64> {
    let ms = u64::try_from(recovery.duration.as_millis()).ok()?.max(1);
    let per_second = recovery.replayed_bytes.saturating_mul(1_000) / ms;
    (recovery.replayed_bytes >= PACE_BYTES_MIN && per_second > 0).then_some(per_second)
}

/// What a start could neither use nor prove to be worthless.
pub(super) fn lost(store: &Store) -> Check {
    Check::tried("lost", store.lost().map(kept))
}

pub(super) fn kept(found: Lost) -> Check {
    const NAME: &str = "lost";
    if found.entries == 0 {
        return Check::ok(NAME, "lost/ is empty");
    }
    let what = format!(
        "lost/ has {} ({}) that starts found and nothing names",
        counted(found.entries, "entry"),
        bytes(found.bytes)
    );
    let remedy = "read in the log of the start why; push again what is missed; then remove what lies there, as nothing else \
                  does";
    Check::new(NAME, Level::Warning, what, remedy)
}
