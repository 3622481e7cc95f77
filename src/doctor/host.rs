//! What the store lies on and runs in: the file system and its space, open files, memory.

use std::io;

use super::{Check, Level};
use crate::{
    disk::{Disk, DiskFile, Nature, Volume},
    words::bytes,
};

/// What the process may have, and what its settings let it take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Host {
    /// Files that it may have open at once; `None` for any number.
    pub files_allowed: Option<u64>,
    /// Files that the settings let it have open.
    pub files_needed: u64,
    /// Memory in bytes of the machine or the control group; `None` where that is not known.
    pub memory_bytes: Option<u64>,
    /// Memory in bytes that the settings let be filled.
    pub memory_needed_bytes: u64,
}

const SUITABLE: &str = "move the data directory to a local ext4, xfs or btrfs";

/// Less than this beyond the reserve is little on any disk, and no disk needs more than it to be called roomy.
const ROOMY_BYTES: u64 = 10 << 30;
/// Files that a busy registry makes in a short while: segments, the index's.
const FILES_FEW: u64 = 10_000;

/// A file for trying the file system out; it has no other use, and is gone when that is done.
const PROBE: &str = "probe";
const PROBE_BYTES: u64 = 256 << 10;

/// What a file system can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It gives a range of a file back.
    pub(super) punches: bool,
    /// It sets blocks aside for a range of a file.
    pub(super) allocates: bool,
}

/// Tries a file system out.
pub(super) fn try_out(disk: &dyn Disk) -> io::Result<Abilities> {
    match disk.remove(PROBE) {
        // One that a killed process has left.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(PROBE)?;
    let tried = try_out_on(&*file);
    disk.remove(PROBE)?;
    tried
}

fn try_out_on(file: &dyn DiskFile) -> io::Result<Abilities> {
    file.allocate(0, PROBE_BYTES)?;
    file.sync_data()?;
    let allocates = file.allocated_bytes()? >= PROBE_BYTES;
    // Not to be compressed: what takes no blocks gives none back.
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(PROBE_BYTES as usize).collect();
    file.write_all_at(&noise, 0)?;
    file.sync_data()?;
    let before = file.allocated_bytes()?;
    file.punch(0, PROBE_BYTES / 2)?;
    file.sync_data()?;
    Ok(Abilities { allocates, punches: file.allocated_bytes()?.saturating_add(PROBE_BYTES / 4) <= before })
}

/// Whether the file system is one that syncs and locks can be trusted on.
pub(super) fn file_system(volume: &Volume) -> Check {
    const NAME: &str = "file system";
    let name = &volume.file_system.name;
    if volume.is_read_only {
        return Check::new(
            NAME,
            Level::Problem,
            format!("the data directory lies on {name}, which is mounted to be read only"),
            "find out why in the kernel's log, repair the file system, mount it for writing, and restart orlop",
        );
    }
    let (level, what, remedy) = match volume.file_system.nature {
        Nature::Local => return Check::ok(NAME, format!("the data directory lies on {name}")),
        Nature::Memory => (
            Level::Warning,
            format!("the data directory lies on {name}, in memory: all of it is gone when the machine goes down"),
            SUITABLE.to_owned(),
        ),
        Nature::Layers => (
            Level::Warning,
            format!(
                "the data directory lies on {name}, the layers of a container: it goes with the container, and what its \
                 syncs are worth depends on its settings"
            ),
            format!("mount a volume for the data directory, or {SUITABLE}"),
        ),
        Nature::Network => (
            Level::Warning,
            format!(
                "the data directory lies on {name}, which is not a disk of this machine: whether synced bytes are durable, \
                 and the lock keeps a second orlop out, is up to its server"
            ),
            SUITABLE.to_owned(),
        ),
        Nature::Program => (
            Level::Warning,
            format!(
                "the data directory lies on {name}, run by a program: whether synced bytes are durable is up to that"
            ),
            SUITABLE.to_owned(),
        ),
        Nature::Unknown => (
            Level::Note,
            format!("the data directory lies on a file system that is not known here, of kind {name}"),
            format!("see that synced bytes are durable there, or {SUITABLE}"),
        ),
    };
    Check::new(NAME, level, what, remedy)
}

/// Whether space can be given back, and set aside.
pub(super) fn holes(tried: io::Result<Abilities>) -> Check {
    const NAME: &str = "holes";
    match tried {
        Ok(Abilities { punches: true, allocates: true }) => {
            Check::ok(NAME, "the file system gives back ranges of files and sets blocks aside")
        }
        Ok(Abilities { punches: false, .. }) => Check::new(
            NAME,
            Level::Warning,
            "the file system gives back no ranges of files (fallocate, PUNCH_HOLE): what is deleted is overwritten with \
             zeros, and its space comes back only when its segment is compacted or removed",
            SUITABLE,
        ),
        Ok(Abilities { allocates: false, .. }) => Check::new(
            NAME,
            Level::Note,
            "the file system sets no blocks aside (fallocate): there is no reserve for a disk that others fill, and a start \
             may need room that is not there",
            SUITABLE,
        ),
        Err(error) => Check::new(
            NAME,
            Level::Note,
            format!("whether the file system gives back ranges of files could not be tried: {error}"),
            "ask again when there is room and the store takes writes",
        ),
    }
}

/// What is free beyond what uploads leave.
pub(super) fn space(free_bytes: u64, size_bytes: u64, reserve_bytes: u64) -> Check {
    const NAME: &str = "space";
    let (free, size, reserve) = (bytes(free_bytes), bytes(size_bytes), bytes(reserve_bytes));
    let figures = format!("{free} of {size} are free, of which uploads leave {reserve} (store.reserve_bytes)");
    let room = "make room: `orlop gc` and `orlop purge` give back what was deleted, `orlop top` says what is large; or \
                enlarge the file system";
    match free_bytes.checked_sub(reserve_bytes) {
        None | Some(0) => Check::new(NAME, Level::Problem, format!("pushes are refused (507): {figures}"), room),
        Some(left) if left < ROOMY_BYTES.min(size_bytes / 10) => {
            Check::new(NAME, Level::Warning, format!("{} can still be pushed: {figures}", bytes(left)), room)
        }
        Some(_) if reserve_bytes == 0 => Check::new(
            NAME,
            Level::Warning,
            format!("{figures}: when the disk is full, nothing can be deleted either"),
            "set store.reserve_bytes to 256MiB or more",
        ),
        Some(_) => Check::ok(NAME, figures),
    }
}

/// How many files can still be made.
pub(super) fn inodes(files_free: Option<u64>) -> Check {
    const NAME: &str = "inodes";
    match files_free {
        None => Check::ok(NAME, "the file system has as many files as fit"),
        Some(files) if files < FILES_FEW => Check::new(
            NAME,
            if files == 0 { Level::Problem } else { Level::Warning },
            format!("{files} more files can be made there; each blob above store.large_blob_bytes takes one"),
            "remove files of others from the file system, or make it anew with more inodes",
        ),
        Some(files) => Check::ok(NAME, format!("{files} more files can be made there")),
    }
}

/// What may be open, against what the settings may need.
pub(super) fn open_files(host: &Host) -> Check {
    const NAME: &str = "open files";
    let needed = host.files_needed;
    match host.files_allowed {
        Some(allowed) if allowed < needed => Check::new(
            NAME,
            Level::Warning,
            format!("{allowed} files may be open (RLIMIT_NOFILE), and the settings may need {needed}"),
            format!(
                "allow {needed} or more (LimitNOFILE= of the service, or `ulimit -n`), or lower http.connections_max or \
                 store.open_files_max"
            ),
        ),
        Some(allowed) => Check::ok(NAME, format!("{allowed} files may be open; the settings need {needed} at most")),
        None => Check::ok(NAME, format!("any number of files may be open; the settings need {needed} at most")),
    }
}

/// What there is, against what the settings may fill.
pub(super) fn memory(host: &Host) -> Check {
    const NAME: &str = "memory";
    let needed = bytes(host.memory_needed_bytes);
    let remedy = "lower those of store.index_memtable_bytes, store.index_cache_bytes, store.row_cache_bytes, \
                  store.buffered_bytes_max, http.body_memory and http.verify_memory that are set, or don't set them: the \
                  defaults fit";
    match host.memory_bytes {
        None => Check::new(
            NAME,
            Level::Note,
            format!("the settings let {needed} be filled; how much there is, the system does not tell"),
            "see that there is half as much again",
        ),
        Some(there) if host.memory_needed_bytes > there => Check::new(
            NAME,
            Level::Warning,
            format!("the settings let {needed} be filled, and there are {} (machine or control group)", bytes(there)),
            remedy,
        ),
        Some(there) if host.memory_needed_bytes > there / 3 * 2 => Check::new(
            NAME,
            Level::Note,
            format!("the settings let {needed} be filled: more than two thirds of the {} that there are", bytes(there)),
            remedy,
        ),
        Some(there) => {
            Check::ok(NAME, format!("the settings let {needed} be filled, of {} that there are", bytes(there)))
        }
    }
}
