//! What the kernel does with files by itself, the one place of the library with `unsafe`: it sends their bytes (`sendfile`),
//! and begins to write them to the disk.
//!
//! What is handed on as bytes has to lie somewhere in memory, so a file that is sent is mapped, and a range of it is a slice of the
//! mapping. Whoever sends a slice is meant to know its range and to have the kernel send that; the mapping is never touched
//! then, and costs neither memory nor page faults. A slice that is written like any other is slow, and as right.
//!
//! It refuses to know what may be mapped: the caller promises that no byte of the file changes any more, and not its length,
//! until the file is removed. That is more than for as long as a range is held: what a socket has taken are the file's pages,
//! not copies of them, and they lie in its queue, or in that of a client on this machine, after the call has returned. A
//! range that is punched then arrives as zeros. Removing the file changes no page.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use memmap2::Mmap;
use rustix::{
    fs::sendfile,
    io::{Errno, ReadWriteFlags, preadv2},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};

/// How far apart the bytes lie whose pages are looked for. Pages come and go in larger pieces, those of one time together;
/// a look costs a microsecond, so that looking at each page would cost a third of what sending it does.
const LOOK_BYTES: usize = 256 << 10;

/// A file that does not change any more, and where its bytes would lie in memory.
#[derive(Debug)]
pub struct MappedFile {
    file: Arc<File>,
    map: Mmap,
}

/// A range of such a file.
#[derive(Debug, Clone)]
pub struct FileRange {
    file: Arc<MappedFile>,
    offset: usize,
    len: usize,
}

impl MappedFile {
    /// Maps a file that does not change until it is removed.
    ///
    /// # Errors
    /// When it cannot be mapped.
    #[expect(unsafe_code, reason = "memory that a file can change has no safe door")]
    pub(super) fn of(file: &Arc<File>) -> io::Result<Self> {
        // SAFETY: A mapping must not change while somebody looks at a slice of it, nor must the file become shorter. The caller
        // promises both (`DiskFile::mapped`), and the store's lock keeps other stores out. The library itself looks at no
        // slice: it gives them to `sendfile`, or to a write, which tells of pages that are not there (EFAULT) instead of
        // ending the process.
        let map = unsafe { Mmap::map(&**file)? };
        Ok(Self { file: Arc::clone(file), map })
    }

    /// A range of it; `None` where the file ends before.
    pub fn range(self: &Arc<Self>, offset: u64, len: usize) -> Option<FileRange> {
        let offset = usize::try_from(offset).ok()?;
        let is_inside = offset.checked_add(len)? <= self.map.len();
        is_inside.then(|| FileRange { file: Arc::clone(self), offset, len })
    }
}

impl FileRange {
    /// Bytes of it.
    #[expect(clippy::len_without_is_empty, reason = "nobody makes an empty one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether its bytes are in the kernel's memory, as far as looking at some of them tells: then sending them waits for no
    /// disk. What is there now may be gone when it is sent; that is slow, and nothing else.
    pub fn is_in_memory(&self) -> bool {
        let looked_at = (0..self.len).step_by(LOOK_BYTES).chain(self.len.checked_sub(1));
        looked_at.into_iter().all(|at| {
            let mut byte = [0];
            let offset = (self.offset + at) as u64;
            let read = preadv2(&*self.file.file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
            match read {
                Ok(count) => count == 1,
                // A file system that cannot say so is taken to have them: it is asked as often as it is read.
                Err(error) => matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL),
            }
        })
    }

    /// Gives a socket the bytes of `before`, and then at most `len` of the range from `skip` bytes behind its beginning; how
    /// many bytes it took in all. To the socket's other end it is one piece.
    ///
    /// # Errors
    /// `WouldBlock` when a socket that does not wait takes none; `UnexpectedEof` when the file has become shorter;
    /// `Unsupported` where this file system has no such call. Bytes that were taken before an error are told instead of it.
    pub fn send(&self, socket: &impl AsFd, before: &[IoSlice<'_>], skip: usize, len: usize) -> io::Result<usize> {
        let mut sent = 0;
        if !before.is_empty() {
            let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            sent = sendmsg(socket, before, &mut SendAncillaryBuffer::default(), flags)?;
            if sent < before.iter().map(|slice| slice.len()).sum() {
                return Ok(sent);
            }
        }
        let mut offset = (self.offset + skip.min(self.len)) as u64;
        let len = len.min(self.len.saturating_sub(skip));
        match sendfile(socket, &*self.file.file, Some(&mut offset), len) {
            Ok(0) if sent == 0 && len > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(sent + count),
            Err(_) if sent > 0 => Ok(sent),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsRef<[u8]> for FileRange {
    fn as_ref(&self) -> &[u8] {
        &self.file.map[self.offset..self.offset + self.len]
    }
}

/// Begins to write a range of a file to the disk, so that a later sync has less to wait for. Nothing is durable by that. A
/// write that fails is told by the file's next sync: this call waits for none, so it takes no error away from that.
#[expect(unsafe_code, reason = "sync_file_range has no safe door")]
pub(super) fn begin_writing(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: It takes a descriptor, which is open as long as `file` is, and numbers; no memory of ours. That it may fail, or
    // be unknown to a file system, changes nothing: the sync does it all then.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn mapped(bytes: &[u8]) -> Arc<MappedFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(MappedFile::of(&Arc::new(file)).unwrap())
    }

    #[test]
    fn ranges_are_those_of_the_file_and_end_with_it() {
        let file = mapped(b"0123456789");
        assert_eq!(file.range(2, 3).unwrap().as_ref(), b"234");
        assert_eq!(file.range(2, 8).unwrap().len(), 8);
        for (offset, len) in [(2, 9), (11, 0), (u64::MAX, 1), (1, usize::MAX)] {
            assert!(file.range(offset, len).is_none(), "{offset} {len}");
        }
        assert!(file.range(0, 10).unwrap().is_in_memory());
        assert!(mapped(b"").range(0, 1).is_none());
    }

    #[test]
    fn what_stands_before_is_sent_before_and_a_cut_file_is_told() {
        let (to, mut from) = UnixStream::pair().unwrap();
        let file = mapped(b"0123456789");
        let range = file.range(2, 6).unwrap();
        let before = [IoSlice::new(b"head"), IoSlice::new(b":")];
        assert_eq!(range.send(&to, &before, 0, 100).unwrap(), 11);
        assert_eq!(range.send(&to, &[], 4, 1).unwrap(), 1);
        let mut text = [0; 12];
        from.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"head:2345676");
        file.file.set_len(3).unwrap();
        assert_eq!(range.send(&to, &[], 1, 5).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
