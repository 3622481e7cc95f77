//! Writes a snapshot: pages under a temporary name, then the end, then the name.
//!
//! The caller paces it and makes room for each page. A writer that is dropped on the way removes its file; what it cannot
//! remove, the next start does.

use std::sync::Arc;

use super::{
    END_MAGIC, PAGE_BYTES, PAGE_BYTES_MAX, PAGE_HEADER_LEN, PAGE_MAGIC, Part, SnapshotFile, SnapshotHeader,
    SnapshotReader, page_checksum,
};
use crate::{
    codec::Encoder,
    digest::{Algorithm, Digest, Hasher},
    disk::{Disk, DiskFile, is_out_of_files},
    journal::{DIRECTORY, JournalError, fact::Fact, format},
};

/// Bytes after which what was written is synced, so that the last sync of a large snapshot does not hold up the journal's.
const SYNC_BYTES: u64 = 8 << 20;

/// A snapshot that is being written.
pub struct SnapshotWriter<'a> {
    store_id: [u8; 16],
    temporary: Temporary<'a>,
    file: Arc<dyn DiskFile>,
    path: String,
    header: SnapshotHeader,
    hasher: Hasher,
    end: u64,
    unsynced: u64,
    page: Vec<u8>,
    page_facts: u32,
    pages: u64,
    facts: u64,
}

impl<'a> SnapshotWriter<'a> {
    /// Begins a snapshot under its temporary name; what an earlier one left there is replaced.
    ///
    /// # Errors
    /// `Full`, `Io`.
    pub fn create(disk: &'a dyn Disk, store_id: [u8; 16], header: SnapshotHeader) -> Result<Self, JournalError> {
        let path = header.path();
        let name = format::temporary(&path);
        let created = match disk.create(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(&name).and_then(|()| disk.create(&name))
            }
            other => other,
        };
        let file = created.map_err(|source| JournalError::io_or_full(&name, "create", source))?;
        let mut writer = Self {
            store_id,
            temporary: Temporary { disk, path: name },
            file,
            path,
            header,
            hasher: Hasher::new(Algorithm::Sha256),
            end: 0,
            unsynced: 0,
            page: Vec::new(),
            page_facts: 0,
            pages: 0,
            facts: 0,
        };
        writer.write(&header.encode(&store_id))?;
        Ok(writer)
    }

    /// Adds a fact to the page in memory.
    ///
    /// # Errors
    /// `BatchTooLarge` for a fact that no page could hold.
    pub fn push(&mut self, fact: &Fact) -> Result<(), JournalError> {
        let fact = fact.encode();
        let len = self.page.len() as u64 + 4 + fact.len() as u64;
        if len > PAGE_BYTES_MAX.into() {
            return Err(JournalError::BatchTooLarge { records: 1, bytes: len, bytes_max: PAGE_BYTES_MAX.into() });
        }
        self.page.extend_from_slice(&(fact.len() as u32).to_le_bytes());
        self.page.extend_from_slice(&fact);
        self.page_facts += 1;
        Ok(())
    }

    /// Whether the page in memory is to be written before the next fact is added.
    pub fn is_page_full(&self) -> bool {
        self.page.len() >= PAGE_BYTES
    }

    /// Bytes that the next write takes.
    pub fn pending_bytes(&self) -> u64 {
        (PAGE_HEADER_LEN + self.page.len()) as u64
    }

    /// Writes the page in memory, if it has facts.
    ///
    /// # Errors
    /// `Full`, `Io`.
    pub fn write_page(&mut self) -> Result<(), JournalError> {
        if self.page_facts == 0 {
            return Ok(());
        }
        let len = self.page.len() as u32;
        let mut page = Encoder::new();
        page.raw(PAGE_MAGIC).u32(len).u32(self.page_facts).u32(page_checksum(len, self.page_facts, &self.page)).u32(0);
        page.raw(&self.page);
        self.write(&page.finish())?;
        self.pages += 1;
        self.facts += u64::from(self.page_facts);
        self.page.clear();
        self.page_facts = 0;
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes the rest and the end, and syncs all of it.
    ///
    /// # Errors
    /// `Full`, `Io`; the file is gone.
    pub fn seal(mut self) -> Result<Sealed<'a>, JournalError> {
        self.write_page()?;
        let mut end = Encoder::new();
        end.raw(END_MAGIC).u64(self.pages).u64(self.facts);
        let end = end.finish();
        let mut hasher = self.hasher.clone();
        hasher.update(&end);
        let hash = hasher.finish();
        self.write(&[&end, hash.hash()].concat())?;
        self.sync()?;
        let Self { store_id, temporary, path, header, facts, end, .. } = self;
        let file = SnapshotFile { path, position: header.mark.position, len: end };
        Ok(Sealed { store_id, temporary, file, facts, hash })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let written = self.file.write_all_at(bytes, self.end);
        written.map_err(|source| JournalError::io_or_full(&self.temporary.path, "write", source))?;
        self.hasher.update(bytes);
        self.end += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|source| JournalError::io_or_full(&self.temporary.path, "sync", source))?;
        self.unsynced = 0;
        Ok(())
    }
}

/// A snapshot that is synced, under its temporary name.
pub struct Sealed<'a> {
    store_id: [u8; 16],
    temporary: Temporary<'a>,
    file: SnapshotFile,
    facts: u64,
    hash: Digest,
}

impl Sealed<'_> {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.file.len
    }

    /// Facts in it.
    pub fn facts(&self) -> u64 {
        self.facts
    }

    /// Reads all of it again, and gives it its name for good. `pause` is called after each page; an error of its ends the
    /// snapshot.
    ///
    /// # Errors
    /// `BadSnapshot` when it is not what was written, `Full`, `Io`, and what `pause` returns: there is no snapshot then.
    /// `Poisoned` when the directory could not be synced: whether a journal file that was begun meanwhile has its name
    /// for good is not known either, so nothing may be acknowledged any more.
    pub fn publish<E: From<JournalError>>(self, mut pause: impl FnMut() -> Result<(), E>) -> Result<SnapshotFile, E> {
        let Self { store_id, temporary, file, facts, hash } = self;
        let Temporary { disk, path } = &temporary;
        let mut reader = SnapshotReader::open_as(*disk, store_id, path, file.position)?;
        let proven = loop {
            match reader.next_part()? {
                Part::Page(_) => pause()?,
                Part::End(proven) => break proven,
            }
        };
        if (proven.facts, proven.hash) != (facts, hash) {
            let problem = "it is not what was written";
            return Err(JournalError::BadSnapshot { file: path.clone(), offset: 0, problem }.into());
        }
        disk.rename(path, &file.path)
            .map_err(|source| JournalError::io_or_full(&file.path, "rename a file to", source))?;
        if let Err(source) = disk.sync_dir(DIRECTORY) {
            disk.remove(&file.path).ok();
            if is_out_of_files(&source) {
                return Err(JournalError::io(DIRECTORY, "open, to sync it, the directory", source).into());
            }
            let cause = Arc::new(JournalError::io(DIRECTORY, "sync the directory", source));
            return Err(JournalError::Poisoned { cause }.into());
        }
        Ok(file)
    }
}

/// A name that goes when the writer does; after the rename nothing has it any more.
struct Temporary<'a> {
    disk: &'a dyn Disk,
    path: String,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Only to give the space back.
        self.disk.remove(&self.path).ok();
    }
}
