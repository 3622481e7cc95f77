//! The disk of the operating system, below one directory.
//!
//! It adds no buffering and, but for a lock, no retry of its own: a call returns what the kernel said. Syncs go to the kernel directly,
//! because `std` repeats an interrupted `fdatasync`, and what the second one says proves nothing about the first.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, IoSliceMut},
    num::NonZeroU64,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant, UNIX_EPOCH},
};

use rustix::{
    fs::{Advice, FallocateFlags, StatVfsMountFlags, fadvise, fallocate, fdatasync, fsync, statfs, statvfs},
    io::{Errno, ReadWriteFlags, preadv2},
};

use crate::sync;

use super::{DirEntry, Disk, DiskFile, FileSystem, MappedFile, Volume};

/// Unit of [`MetadataExt::blocks`], whatever the file system's blocks are.
const STAT_BLOCK_BYTES: u64 = 512;
/// Zeros that are written at a time where no hole can be punched.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How long a lock is tried for, and how often. A process that this one has just started, for something else, has all of its
/// locks until it runs its own program, also those that were let go meanwhile.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// A directory of the operating system's file system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The disk below `root`, which is created (durably, with its parents) when it is missing.
    ///
    /// # Errors
    /// When the directory cannot be created, or is not a directory.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        create_durably(&root)?;
        Ok(Self { root: root.canonicalize()? })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// A root whose own name is lost in a power cut takes every acknowledged write with it, so parents are synced as well.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    create_if_missing(path)?;
    sync_directory(parent)
}

fn create_if_missing(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    Ok(fsync(File::open(path)?)?)
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.at(path))?;
        Ok(Arc::new(RealFile::new(file, false)))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = match OpenOptions::new().read(true).write(true).open(self.at(path)) {
            // What the kernel does to a file system whose disk has failed. All in it can still be read.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                RealFile::new(File::open(self.at(path))?, true)
            }
            opened => RealFile::new(opened?, false),
        };
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.at(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        create_if_missing(&self.at(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(path))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                // The store writes ASCII names only; a lossy copy of this one would name another file.
                tracing::warn!(directory = path, name = ?entry.file_name(), "left alone: a name that is not UTF-8");
                continue;
            };
            let metadata = match entry.metadata() {
                // Renamed or removed by another thread since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let is_dir = metadata.is_dir();
            let allocated_bytes = metadata.blocks().saturating_mul(STAT_BLOCK_BYTES);
            entries.push(DirEntry { name, is_dir, len: if is_dir { 0 } else { metadata.len() }, allocated_bytes });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        sync_directory(&self.at(path))
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.at(path))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Box::new(file))),
                Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => sync::sleep(LOCK_LOOK),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = statvfs(&self.root)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn volume(&self) -> io::Result<Volume> {
        let found = statvfs(&self.root)?;
        Ok(Volume {
            // The numbers have 32 bits; the field is wider on some machines, and signed on some.
            file_system: FileSystem::of(statfs(&self.root)?.f_type as u32),
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            files_free: (found.f_files > 0).then_some(found.f_favail),
            is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    fn root(&self) -> &Path {
        &self.root
    }
}

#[derive(Debug)]
struct RealFile {
    file: Arc<File>,
    /// Whether it could be opened for reading only, because the file system is read-only.
    is_read_only: bool,
    /// Made when it is first asked for.
    mapped: OnceLock<Option<Arc<MappedFile>>>,
}

impl RealFile {
    fn new(file: File, is_read_only: bool) -> Self {
        Self { file: Arc::new(file), is_read_only, mapped: OnceLock::new() }
    }

    /// The file, to change it. The kernel would call a write to what is open for reading a mistake of ours (EBADF).
    fn to_change(&self) -> io::Result<&File> {
        if self.is_read_only { Err(Errno::ROFS.into()) } else { Ok(&self.file) }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match preadv2(&*self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            // What a file system says that cannot tell.
            Err(Errno::OPNOTSUPP) => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read?),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.to_change()?.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(fdatasync(&*self.file)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.to_change()?.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let file = self.to_change()?;
        loop {
            match fallocate(file, FallocateFlags::KEEP_SIZE, offset, len) {
                Err(Errno::INTR) => {}
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let file = self.to_change()?;
        loop {
            match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(file, offset, len),
                result => return Ok(result?),
            }
        }
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks().saturating_mul(STAT_BLOCK_BYTES))
    }

    fn created_ms(&self) -> io::Result<Option<u64>> {
        let created = self.file.metadata()?.created().ok();
        Ok(created.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_millis() as u64))
    }

    fn mapped(&self) -> Option<Arc<MappedFile>> {
        let map = || MappedFile::of(&self.file).map(Arc::new);
        let map = || map().inspect_err(|error| tracing::debug!(%error, "a file cannot be mapped; it is read")).ok();
        self.mapped.get_or_init(map).clone()
    }

    fn will_sync(&self, offset: u64, len: u64) {
        super::mapped::begin_writing(&self.file, offset, len);
    }

    fn will_read(&self, offset: u64, len: u64) {
        // It is advice: who does not take it has said nothing about the bytes.
        let _ = fadvise(&*self.file, offset, NonZeroU64::new(len), Advice::WillNeed);
    }
}

/// What a punch does to the bytes of the file, without giving blocks back.
fn write_zeros(file: &File, mut offset: u64, len: u64) -> io::Result<()> {
    let end = offset.saturating_add(len).min(file.metadata()?.len());
    while offset < end {
        let count = (end - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..count as usize], offset)?;
        offset += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_a_moment_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path()).unwrap();
        let held = disk.lock("lock").unwrap().unwrap();
        assert!(disk.lock("lock").unwrap().is_none());
        let letting_go = sync::thread::spawn(move || {
            sync::sleep(LOCK_PATIENCE / 10);
            drop(held);
        });
        assert!(disk.lock("lock").unwrap().is_some());
        letting_go.join().unwrap();
    }

    #[test]
    fn what_must_not_wait_reads_what_is_in_memory_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path()).unwrap();
        let file = disk.create("f").unwrap();
        file.write_all_at(&[7; 8192], 0).unwrap();
        file.sync_data().unwrap();
        let mut buffer = [0; 4096];
        match file.read_at_once(&mut buffer, 0) {
            Ok(count) => assert_eq!((count, buffer[0]), (4096, 7)),
            // A file system that cannot tell.
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        let raw = File::open(directory.path().join("f")).unwrap();
        rustix::fs::fadvise(&raw, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        match file.read_at_once(&mut buffer, 0) {
            // A file system that lies in memory.
            Ok(count) => assert_eq!(count, 4096),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 4096);
        assert_eq!(file.read_at_once(&mut buffer, 0).unwrap(), 4096);
    }

    #[test]
    fn names_bytes_and_lengths_are_those_of_the_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path().join("a/b")).unwrap();
        disk.create_dir("d").unwrap();
        disk.create_dir("d").unwrap();
        let file = disk.create("d/f").unwrap();
        assert_eq!(disk.create("d/f").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.open("d/g").unwrap_err().kind(), io::ErrorKind::NotFound);
        file.write_all_at(b"hello", 3).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("d").unwrap();
        disk.sync_dir("").unwrap();
        let mut buffer = [9; 8];
        assert!(disk.open("d/f").unwrap().read_exact_at(&mut buffer, 0).is_ok());
        assert_eq!(&buffer, b"\0\0\0hello");
        assert_eq!(file.read_exact_at(&mut buffer, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(4).unwrap();
        disk.rename("d/f", "d/e").unwrap();
        let allocated_bytes = file.allocated_bytes().unwrap();
        let entry = DirEntry { name: "e".to_owned(), is_dir: false, len: 4, allocated_bytes };
        assert_eq!(disk.list("d").unwrap(), [entry]);
        disk.remove("d/e").unwrap();
        disk.remove_dir_all("d").unwrap();
        disk.remove_dir_all("d").unwrap();
        assert_eq!(disk.list("").unwrap(), []);
        let volume = disk.volume().unwrap();
        assert!(!volume.is_read_only && volume.size_bytes >= disk.free_bytes().unwrap(), "{volume:?}");
        assert!(disk.free_bytes().unwrap() > 0);
    }

    /// Zeroes ranges of a file by `punch`, and says what blocks it takes after each.
    fn check_zeroed(punch: impl Fn(&RealFile, u64, u64) -> io::Result<()>) -> Vec<u64> {
        let directory = tempfile::tempdir().unwrap();
        let file = RealFile::new(File::create_new(directory.path().join("f")).unwrap(), false);
        file.write_all_at(&[7; 300_000], 0).unwrap();
        let mut expected = vec![7; 300_000];
        let mut allocated = Vec::new();
        for (offset, len) in [(0, 0), (100, 1), (5_000, 100_000), (4_096, 8_192), (299_999, 1), (290_000, 90_000)] {
            punch(&file, offset, len).unwrap();
            let end = (offset + len).min(300_000) as usize;
            expected[offset as usize..end].fill(0);
            let mut found = vec![9; 300_000];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected, "{offset} {len}");
            assert_eq!(file.len().unwrap(), 300_000);
            file.sync_data().unwrap();
            allocated.push(file.allocated_bytes().unwrap());
        }
        allocated
    }

    #[test]
    fn a_punched_range_is_zero_to_the_byte_and_its_blocks_come_back() {
        let allocated = check_zeroed(|file, offset, len| file.punch(offset, len));
        assert!(allocated[0] >= 300_000, "{allocated:?}");
        assert!(allocated.windows(2).all(|pair| pair[1] <= pair[0]), "{allocated:?}");
        assert!(allocated[5] < allocated[0] - 90_000, "the file system punches no holes: {allocated:?}");
    }

    #[test]
    fn where_no_hole_can_be_punched_the_same_bytes_are_zero() {
        let allocated = check_zeroed(|file, offset, len| write_zeros(&file.file, offset, len));
        assert!(allocated.iter().all(|bytes| *bytes >= 300_000), "{allocated:?}");
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path()).unwrap();
        let held = disk.lock("lock").unwrap();
        assert!(held.is_some());
        assert!(disk.lock("lock").unwrap().is_none());
        drop(held);
        assert!(disk.lock("lock").unwrap().is_some());
    }
}
