//! Reads a snapshot page by page, and says at its end whether all of it is what was written.
//!
//! Invariant: memory is bounded by a page, and a page by what the file really has, whatever the file claims. A page was
//! proven by its checksum; that none is missing, doubled or exchanged is known only once [`Proven`] came.

use std::sync::Arc;

use super::{
    END_FIELDS_LEN, END_LEN, END_MAGIC, HEADER_LEN, PAGE_BYTES_MAX, PAGE_HEADER_LEN, PAGE_MAGIC, SnapshotFile,
    SnapshotHeader, page_checksum,
};
use crate::{
    codec::{DecodeError, Decoder},
    digest::{Algorithm, Digest, Hasher},
    disk::{Disk, DiskFile},
    journal::{JournalError, Position, fact::Fact},
};

/// A snapshot on the way to its end.
pub struct SnapshotReader {
    file: Arc<dyn DiskFile>,
    path: String,
    header: SnapshotHeader,
    len: u64,
    offset: u64,
    hasher: Hasher,
    pages: u64,
    facts: u64,
}

/// What comes next in a snapshot.
#[derive(Debug)]
pub enum Part {
    /// Facts.
    Page(Page),
    /// The end: what came before is the whole snapshot.
    End(Proven),
}

/// The facts of a page.
#[derive(Debug)]
pub struct Page {
    path: String,
    offset: u64,
    body: Vec<u8>,
    facts: u32,
}

/// A snapshot that was read to its end and is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Facts in it.
    pub facts: u64,
    /// SHA-256 over all of it.
    pub hash: Digest,
}

impl SnapshotReader {
    /// Opens a snapshot and reads its header.
    ///
    /// # Errors
    /// `BadSnapshot`, `UnknownVersion`, `ForeignStore`, `Io`.
    pub fn open(disk: &dyn Disk, store_id: [u8; 16], snapshot: &SnapshotFile) -> Result<Self, JournalError> {
        Self::open_as(disk, store_id, &snapshot.path, snapshot.position)
    }

    /// Opens a snapshot that must stand at `position`, under any name.
    pub(super) fn open_as(
        disk: &dyn Disk,
        store_id: [u8; 16],
        path: &str,
        position: Position,
    ) -> Result<Self, JournalError> {
        let file = disk.open(path).map_err(|source| JournalError::io(path, "open", source))?;
        let len = file.len().map_err(|source| JournalError::io(path, "measure", source))?;
        let mut bytes = [0; HEADER_LEN];
        let bytes = &mut bytes[..len.min(HEADER_LEN as u64) as usize];
        file.read_exact_at(bytes, 0).map_err(|source| JournalError::io(path, "read", source))?;
        let header = SnapshotHeader::decode(bytes, &store_id, path)?;
        if header.mark.position != position {
            let problem = "its name is not that of its last records";
            return Err(JournalError::BadSnapshot { file: path.to_owned(), offset: 0, problem });
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        Ok(Self { file, path: path.to_owned(), header, len, offset: HEADER_LEN as u64, hasher, pages: 0, facts: 0 })
    }

    /// Reads a snapshot to its end, with every fact in it.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`next_part`](Self::next_part), and `Malformed`.
    pub fn prove(
        disk: &dyn Disk,
        store_id: [u8; 16],
        snapshot: &SnapshotFile,
    ) -> Result<(SnapshotHeader, Proven), JournalError> {
        let mut reader = Self::open(disk, store_id, snapshot)?;
        loop {
            match reader.next_part()? {
                Part::Page(page) => page.each(|_| Ok::<_, JournalError>(()))?,
                Part::End(proven) => return Ok((reader.header, proven)),
            }
        }
    }

    /// What the snapshot says about itself.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The next page, or the end after the last one.
    ///
    /// # Errors
    /// `BadSnapshot` for anything that is no page and no end, `Io`.
    pub fn next_part(&mut self) -> Result<Part, JournalError> {
        let offset = self.offset;
        let head = self.take(PAGE_HEADER_LEN)?;
        let mut d = Decoder::new(&head);
        let magic = d.raw(PAGE_MAGIC.len(), "magic").map_err(|_| self.bad(offset, "it ends too soon"))?;
        if magic == END_MAGIC {
            return self.end(offset, &head).map(Part::End);
        }
        if magic != PAGE_MAGIC {
            return Err(self.bad(offset, "there is neither a page nor the end"));
        }
        let short = |_: DecodeError| self.bad(offset, "it ends too soon");
        let len = d.u32("length").map_err(short)?;
        let facts = d.u32("facts").map_err(short)?;
        let checksum = d.u32("checksum").map_err(short)?;
        let zero = d.u32("zero").map_err(short)?;
        if len > PAGE_BYTES_MAX || zero != 0 {
            return Err(self.bad(offset, "a page's header is wrong"));
        }
        let body = self.take(len as usize)?;
        if checksum != page_checksum(len, facts, &body) {
            return Err(self.bad(offset, "a page's checksum is wrong"));
        }
        self.hasher.update(&head);
        self.hasher.update(&body);
        self.pages += 1;
        self.facts += u64::from(facts);
        Ok(Part::Page(Page { path: self.path.clone(), offset, body, facts }))
    }

    fn end(&mut self, offset: u64, head: &[u8]) -> Result<Proven, JournalError> {
        const _: () = assert!(END_FIELDS_LEN == PAGE_HEADER_LEN);
        let stored = self.take(END_LEN - END_FIELDS_LEN)?;
        let mut d = Decoder::new(&head[END_MAGIC.len()..]);
        let counts = (d.u64("pages").ok(), d.u64("facts").ok());
        self.hasher.update(head);
        let hash = self.hasher.clone().finish();
        if counts != (Some(self.pages), Some(self.facts)) || hash.hash() != stored {
            return Err(self.bad(offset, "the hash over all of it is wrong"));
        }
        if self.offset != self.len {
            return Err(self.bad(self.offset, "bytes follow its end"));
        }
        Ok(Proven { facts: self.facts, hash })
    }

    /// The next `len` bytes, which must be there before memory is taken for them.
    fn take(&mut self, len: usize) -> Result<Vec<u8>, JournalError> {
        if self.len - self.offset < len as u64 {
            return Err(self.bad(self.offset, "it ends too soon"));
        }
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, self.offset);
        read.map_err(|source| JournalError::io(&self.path, "read", source))?;
        self.offset += len as u64;
        Ok(bytes)
    }

    fn bad(&self, offset: u64, problem: &'static str) -> JournalError {
        JournalError::BadSnapshot { file: self.path.clone(), offset, problem }
    }
}

impl Page {
    /// Gives each fact to `visit`, in order.
    ///
    /// # Errors
    /// `Malformed` for what this version cannot decode, and whatever `visit` returns.
    pub fn each<E: From<JournalError>>(&self, mut visit: impl FnMut(Fact) -> Result<(), E>) -> Result<(), E> {
        let malformed = |source| JournalError::Malformed { file: self.path.clone(), offset: self.offset, source };
        let mut d = Decoder::new(&self.body);
        for _ in 0..self.facts {
            let fact = d.bytes("fact").and_then(Fact::decode).map_err(malformed)?;
            visit(fact)?;
        }
        d.finish("page").map_err(|source| malformed(source).into())
    }
}
