//! Reads one journal file through a window of bounded memory.
//!
//! It tells what is at an offset; it does not judge whether that is a torn tail or damage. What is handed out was proven
//! by its checksum in the very bytes that are handed out.
//!
//! Invariant: the window holds at most [`WINDOW_BYTES`] or one batch, whatever the file claims.

use std::sync::Arc;

use super::{
    JournalError, Mark,
    format::{ALIGNMENT, BATCH_HEADER_LEN, BatchHeader, FILE_HEADER_LEN, FileHeader},
};
use crate::disk::{Disk, DiskFile};

const WINDOW_BYTES: u64 = 256 << 10;

/// What stands at an offset where a batch is expected.
pub(super) enum Next<'a> {
    /// A batch that continues the history, and its bytes.
    Batch(BatchHeader, &'a [u8]),
    /// The end of the file.
    End,
    /// Anything else.
    Broken,
}

/// An open journal file.
pub(super) struct FileReader {
    file: Arc<dyn DiskFile>,
    path: String,
    store_id: [u8; 16],
    len: u64,
    window: Vec<u8>,
    window_offset: u64,
}

impl FileReader {
    /// # Errors
    /// `Io`.
    pub(super) fn open(disk: &dyn Disk, store_id: [u8; 16], path: &str) -> Result<Self, JournalError> {
        let file = disk.open(path).map_err(|source| JournalError::io(path, "open", source))?;
        let len = file.len().map_err(|source| JournalError::io(path, "measure", source))?;
        Ok(Self { file, path: path.to_owned(), store_id, len, window: Vec::new(), window_offset: 0 })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Length in bytes when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// # Errors
    /// As [`FileHeader::decode`], and `Io`.
    pub(super) fn header(&self) -> Result<FileHeader, JournalError> {
        let mut header = [0; FILE_HEADER_LEN];
        // Not through the window, which would read much more of every file that is then skipped.
        let header = &mut header[..self.len.min(FILE_HEADER_LEN as u64) as usize];
        self.file.read_exact_at(header, 0).map_err(|source| JournalError::io(&self.path, "read", source))?;
        FileHeader::decode(header, &self.store_id, &self.path)
    }

    /// What stands at `offset`, where the history has come to `at`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn next(&mut self, offset: u64, at: &Mark) -> Result<Next<'_>, JournalError> {
        if offset == self.len {
            return Ok(Next::End);
        }
        match self.proven(offset)? {
            Some((header, bytes)) if header.before == *at => Ok(Next::Batch(header, bytes)),
            _ => Ok(Next::Broken),
        }
    }

    /// Where, at or after `offset`, the next batch of this store begins that comes no earlier in the history than `at`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn find_batch(&mut self, mut offset: u64, at: &Mark) -> Result<Option<u64>, JournalError> {
        let at = at.position;
        while offset < self.len {
            if let Some((header, _)) = self.proven(offset)? {
                let found = header.before.position;
                if found.lsn >= at.lsn && found.local >= at.local {
                    return Ok(Some(offset));
                }
            }
            offset += ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// Visits the batches of this store that are sound by themselves, from `offset` on, whatever lies between: with offset,
    /// the points before and after, and length. It ends when `visit` says `false`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn each_proven(
        &mut self,
        mut offset: u64,
        visit: &mut dyn FnMut(u64, Mark, Mark, u64) -> bool,
    ) -> Result<(), JournalError> {
        while offset < self.len {
            let Some((header, _)) = self.proven(offset)? else {
                offset += ALIGNMENT as u64;
                continue;
            };
            let len = header.batch_len() as u64;
            if !visit(offset, header.before, header.after, len) {
                break;
            }
            offset += len;
        }
        Ok(())
    }

    /// Whether nothing but zeros is left from `offset` on.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn is_zero_from(&mut self, mut offset: u64) -> Result<bool, JournalError> {
        while offset < self.len {
            let bytes = self.bytes(offset, WINDOW_BYTES as usize)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
        Ok(true)
    }

    fn proven(&mut self, offset: u64) -> Result<Option<(BatchHeader, &[u8])>, JournalError> {
        let store_id = self.store_id;
        let Some(header) = BatchHeader::decode(self.bytes(offset, BATCH_HEADER_LEN)?) else {
            return Ok(None);
        };
        // A length beyond the file gives fewer bytes, which the header does not prove.
        let bytes = self.bytes(offset, header.batch_len())?;
        Ok(header.proves(&store_id, bytes).then_some((header, bytes)))
    }

    /// `len` bytes at `offset`; fewer where the file ends.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], JournalError> {
        let left = self.len.saturating_sub(offset);
        let wanted = left.min(len as u64);
        let held = self.window_offset..=self.window_offset + self.window.len() as u64;
        if !(held.contains(&offset) && held.contains(&(offset + wanted))) {
            let fill = left.min(WINDOW_BYTES.max(wanted));
            self.window.clear();
            self.window.resize(fill as usize, 0);
            self.window_offset = offset;
            if let Err(source) = self.file.read_exact_at(&mut self.window, offset) {
                // A window that was not filled must not be taken for the file's bytes later.
                self.window.clear();
                return Err(JournalError::io(&self.path, "read", source));
            }
        }
        let start = (offset - self.window_offset) as usize;
        Ok(&self.window[start..start + wanted as usize])
    }
}
