//! A disk that remembers the first sync that failed, whosever it was.
//!
//! A device that fails a flush may have lost whatever lay in its cache, of other files too, and it tells whoever flushes next
//! that all is well. So a sync that succeeds is worth something only while no other has failed, and whoever is about to rely on
//! one asks here afterwards. Only what the kernel has told one of our threads can be known.
//!
//! Two failures are left to whoever asked for the sync, as they take nothing of others along: that of a file's bytes for which a
//! full disk has no room, and that of a directory for which there was no file descriptor.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{DirEntry, Disk, DiskFile, MappedFile, Volume, is_full, is_out_of_files};

/// What became of the syncs of a disk. Clones tell of the same.
#[derive(Debug, Clone, Default)]
pub struct Syncs(Arc<OnceLock<String>>);

impl Syncs {
    /// A disk that does as `disk` does, and what becomes of its syncs.
    pub fn watch(disk: Arc<dyn Disk>) -> (Arc<dyn Disk>, Self) {
        let syncs = Self::default();
        (Arc::new(WatchedDisk { disk, syncs: syncs.clone() }), syncs)
    }

    /// Which sync was the first to fail, and by what; `None` while all have succeeded.
    pub fn failure(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn note(&self, path: &str, result: io::Result<()>, is_excused: fn(&io::Error) -> bool) -> io::Result<()> {
        result.inspect_err(|error| {
            if !is_excused(error) {
                let at = if path.is_empty() { "the data directory" } else { path };
                self.0.get_or_init(|| format!("cannot sync {at}: {error}"));
            }
        })
    }
}

#[derive(Debug)]
struct WatchedDisk {
    disk: Arc<dyn Disk>,
    syncs: Syncs,
}

impl WatchedDisk {
    fn watched(&self, path: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { file, path: path.to_owned(), syncs: self.syncs.clone() })
    }
}

impl Disk for WatchedDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watched(path, self.disk.create(path)?))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watched(path, self.disk.open(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.syncs.note(path, self.disk.sync_dir(path), is_out_of_files)
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.lock(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn volume(&self) -> io::Result<Volume> {
        self.disk.volume()
    }

    fn root(&self) -> &Path {
        self.disk.root()
    }
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    path: String,
    syncs: Syncs,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at_once(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.note(&self.path, self.file.sync_data(), is_full)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }

    fn created_ms(&self) -> io::Result<Option<u64>> {
        self.file.created_ms()
    }

    fn mapped(&self) -> Option<Arc<MappedFile>> {
        self.file.mapped()
    }

    fn will_sync(&self, offset: u64, len: u64) {
        self.file.will_sync(offset, len);
    }

    fn will_read(&self, offset: u64, len: u64) {
        self.file.will_read(offset, len);
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{Call, Failure, SimDisk};

    #[test]
    fn the_first_sync_that_fails_is_remembered_and_no_other_failure() {
        let sim = SimDisk::new();
        let (disk, syncs) = Syncs::watch(Arc::new(sim.clone()));
        let file = disk.create("f").unwrap();
        sim.fail(Call::Write, 1, Failure::Io);
        file.write_all_at(&[1], 0).unwrap_err();
        sim.fail(Call::SyncDir, 1, Failure::NoFiles);
        disk.sync_dir("").unwrap_err();
        sim.fail(Call::SyncData, 1, Failure::Full);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(syncs.failure(), None);
        sim.fail(Call::SyncDir, 1, Failure::Full);
        disk.sync_dir("").unwrap_err();
        sim.fail(Call::SyncData, 1, Failure::Io);
        disk.open("f").unwrap().sync_data().unwrap_err();
        let failure = syncs.failure().unwrap();
        assert!(failure.starts_with("cannot sync the data directory: No space left on device"), "{failure}");
    }
}
