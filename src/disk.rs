//! The only door to the file system: a small set of calls on files below one root.
//!
//! What is above asks for exactly the durability it needs: `sync_data` for a file's bytes and length, `sync_dir` for the
//! names in a directory. Nothing here retries a failed sync: on Linux the next one reports success although the data is
//! gone, so a failed sync must reach the store, which stops writing.

use std::{fmt, io, path::Path, sync::Arc};

use rustix::io::Errno;

mod mapped;
mod real;
pub mod sim;
mod volume;
mod watched;

pub use mapped::{FileRange, MappedFile};
pub use real::RealDisk;
pub use volume::{FileSystem, Nature, Volume};
pub use watched::Syncs;

/// How far a read may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To what is in memory, for who must not wait; what is not there ends in an error that says so.
    Memory,
    /// To the disk.
    Disk,
}

/// A directory tree in which the store lives. Paths are relative to its root and use `/`.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates a file that must not exist; open for reading and writing.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that must exist, for reading and writing; where the file system has become read-only, for reading.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it. Between two directories it is two changes: sync the new one first.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes a directory and all in it; it may be missing.
    fn remove_dir_all(&self, path: &str) -> io::Result<()>;
    /// Creates a directory; its parent exists, it may itself exist. The new name is not durable yet.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// What lies directly in a directory, sorted by name; `""` is the root.
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>>;
    /// Makes the names in a directory durable; `""` is the root.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Takes an exclusive lock on a file, creating it when missing; `None` when another process holds it, and goes on holding
    /// it for a moment.
    /// It is released when the returned value is dropped.
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// Bytes that this user can still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// What the root lies on.
    fn volume(&self) -> io::Result<Volume>;
    /// The root as the operating system names it, for what opens its own files (RocksDB) and for messages.
    fn root(&self) -> &Path;
}

/// An open file. All calls name their offset, so that one handle serves many threads.
#[expect(clippy::len_without_is_empty, reason = "a length that the operating system is asked for, not a collection")]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at most `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same without waiting for the disk: [`io::ErrorKind::WouldBlock`] where bytes are not in memory, or nobody can tell.
    /// Fewer bytes than there are say only that the next one may not be.
    fn read_at_once(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Writes all of `bytes`. After an error any part of them may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes bytes and length durable (`fdatasync`). After an error nothing is known about what was written before.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves real blocks for a range without changing the length (`fallocate`, `KEEP_SIZE`); where the file system has
    /// no such call, does nothing.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes a range read as zeros and gives its whole blocks back (`fallocate`, `PUNCH_HOLE`); where the file system cannot,
    /// zeros are written. The length stays. Nothing is durable before a sync; after an error any part may be zero.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Bytes of the disk that the file's blocks take, as `du` counts them.
    fn allocated_bytes(&self) -> io::Result<u64>;
    /// When the file was created, in Unix milliseconds; `None` where the file system does not know.
    fn created_ms(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// The file for the kernel to send from, where it lies in the operating system and can be mapped. Only to be asked of a file
    /// of which nothing changes until it is removed: what was sent may be on its way long after. An implementation that has
    /// its bytes elsewhere (in memory, in an object store) has none, and is read; one with a local copy may give that.
    fn mapped(&self) -> Option<Arc<MappedFile>> {
        None
    }
    /// Says that a range which was written is complete and will be synced, so that its writing can begin; nothing is durable by
    /// that, nothing waits for it, and what fails is told by the sync.
    fn will_sync(&self, _offset: u64, _len: u64) {}
    /// Says that a range will be read soon, so that it can be fetched meanwhile; nothing waits for it, or fails by it.
    fn will_read(&self, _offset: u64, _len: u64) {}

    /// Fills `buffer` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The last component of its path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes of a file; 0 for a directory.
    pub len: u64,
    /// Bytes of the disk that its blocks take, as `du` counts them.
    pub allocated_bytes: u64,
}

/// Whether an error says that the process, or the system, has no file descriptor left. No sync fails with it; opening a
/// directory to sync it does.
pub fn is_out_of_files(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Whether an error says that the device, or the checksums of the file system, do not give back what was written: another
/// try gets the same. All else that keeps a file from being read (no file descriptors, no memory, no rights) can pass.
pub fn is_unreadable(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    let errnos = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA, Errno::ILSEQ];
    errnos.iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Whether a file is gone. One that cannot be opened for another reason is there.
pub fn is_gone(disk: &dyn Disk, path: &str) -> bool {
    disk.open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether an error says that the disk (or the user's quota on it) is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
