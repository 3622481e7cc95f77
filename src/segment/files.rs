//! The files of segments: creating them durably, opening them checked, writing, syncing and removing.
//!
//! All that writes or syncs a segment goes through here, so that a failed sync poisons and a full disk is told as such in
//! one place. Numbers are given out here and never twice.

use std::{collections::HashSet, io, sync::Arc};

use crate::{
    digest::Digest,
    disk::{self, Disk, DiskFile, Reach},
    location::SegmentNumber,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    SegmentKind, SegmentOptions, SegmentUsage, VerifyReads,
    cache::Cache,
    error::{Fault, Poison, SegmentError},
    format,
    known::KnownRecords,
    readers::Readers,
    space::Space,
};

/// No directory has this number.
const NO_FAN_OUT: u64 = u64::MAX;

/// An open segment whose header was checked, with what is zero behind it. Clones share the handle.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) number: SegmentNumber,
    pub(super) kind: SegmentKind,
    pub(super) file: Arc<dyn DiskFile>,
}

impl SegmentFile {
    /// Fills `buffer`; a file that ends before is damaged.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64, digest: Option<Digest>) -> Result<(), SegmentError> {
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let end = offset.saturating_add(buffer.len() as u64);
                Err(Fault::new(offset, "the file's length", format!("{end} or more"), self.len()?)
                    .of(self.number, digest))
            }
            result => result.map_err(|error| self.io("read", error)),
        }
    }

    /// The same as far as `reach`; where that is memory, a file that ends before is left to who may wait.
    pub(super) fn read_within(
        &self,
        reach: Reach,
        buffer: &mut [u8],
        offset: u64,
        digest: &Digest,
    ) -> Result<(), SegmentError> {
        if reach == Reach::Disk {
            return self.read(buffer, offset, Some(*digest));
        }
        match self.file.read_at_once(buffer, offset) {
            Ok(count) if count == buffer.len() => Ok(()),
            _ => Err(SegmentError::OutOfReach),
        }
    }

    /// Whether the kernel may send from it. A shared segment may still grow, and is punched.
    pub(super) fn is_sent_from(&self) -> bool {
        self.kind == SegmentKind::Single && self.file.mapped().is_some()
    }

    pub(super) fn len(&self) -> Result<u64, SegmentError> {
        self.file.len().map_err(|error| self.io("ask for the length of", error))
    }

    pub(super) fn io(&self, action: &'static str, error: io::Error) -> SegmentError {
        SegmentError::io(action, format::path_of(self.number), error)
    }
}

#[derive(Debug)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    store_id: [u8; 16],
    next_number: AtomicU64,
    /// The last directory whose own name is known to be durable. Numbers ascend, so one is enough.
    durable_fan_out: AtomicU64,
    /// Segments that the index lists and that had no file at open.
    pub(super) missing: HashSet<SegmentNumber>,
    cache: Cache,
    pub(super) known: KnownRecords,
    pub(super) verify_reads: VerifyReads,
    space: Space,
    pub(super) readers: Arc<Readers>,
    pub(super) poison: Poison,
}

impl Files {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: &SegmentOptions,
        next_number: u64,
        missing: HashSet<SegmentNumber>,
    ) -> Self {
        Self {
            disk,
            store_id: options.store_id,
            next_number: AtomicU64::new(next_number),
            durable_fan_out: AtomicU64::new(NO_FAN_OUT),
            missing,
            cache: Cache::new(options.open_files_max),
            known: KnownRecords::new(),
            verify_reads: options.verify_reads,
            space: Space::new(options.reserve_bytes),
            readers: Arc::new(Readers::new()),
            poison: Poison::default(),
        }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next_number.load(Ordering::Acquire)
    }

    /// A new segment with nothing but its header; durable on return, header, length and name.
    pub(super) fn create(&self, kind: SegmentKind) -> Result<SegmentFile, SegmentError> {
        self.poison.check()?;
        let number = SegmentNumber(self.next_number.fetch_add(1, Ordering::AcqRel));
        self.create_directory(number)?;
        let path = format::path_of(number);
        let file = self.disk.create(&path).map_err(|error| self.write_error(0, "create", &path, error))?;
        let file = SegmentFile { number, kind, file };
        match self.make_durable(&file) {
            Ok(()) => Ok(file),
            Err(error) => {
                // Pushes on a full disk must not leave a file each; if this fails too, the next open removes it.
                if let Err(error) = self.disk.remove(&path) {
                    tracing::warn!(segment.id = number.0, %error, "cannot remove a segment that could not be created");
                }
                Err(error)
            }
        }
    }

    fn create_directory(&self, number: SegmentNumber) -> Result<(), SegmentError> {
        let fan_out = format::fan_out(number);
        if self.durable_fan_out.load(Ordering::Acquire) == fan_out {
            return Ok(());
        }
        let path = format::directory_of(number);
        self.disk.create_dir(&path).map_err(|error| self.write_error(0, "create", &path, error))?;
        self.sync_dir("segments")?;
        self.durable_fan_out.store(fan_out, Ordering::Release);
        Ok(())
    }

    fn make_durable(&self, file: &SegmentFile) -> Result<(), SegmentError> {
        let mut header = format::encode_file_header(file.kind, file.number, &self.store_id);
        if file.kind == SegmentKind::Single {
            // The file is as long as the place of its payload from the start, so that its length tells how much came.
            header.resize(format::SINGLE_PAYLOAD_OFFSET as usize, 0);
        }
        self.write(file, &header, 0)?;
        self.sync(file)?;
        self.sync_dir(&format::directory_of(file.number))
    }

    /// Opens a segment, or takes it from the cache.
    pub(super) fn open(&self, number: SegmentNumber) -> Result<SegmentFile, SegmentError> {
        let seen = match self.cache.get(number) {
            Ok(file) => return Ok(file),
            Err(seen) => seen,
        };
        let file = self.open_uncached(number)?;
        self.cache.insert(file.clone(), seen);
        Ok(file)
    }

    /// The same; where `reach` is memory, only from the cache.
    pub(super) fn open_within(&self, reach: Reach, number: SegmentNumber) -> Result<SegmentFile, SegmentError> {
        match reach {
            Reach::Memory => self.cache.get(number).map_err(|_| SegmentError::OutOfReach),
            Reach::Disk => self.open(number),
        }
    }

    /// Opens a segment by itself, for writing.
    pub(super) fn open_uncached(&self, number: SegmentNumber) -> Result<SegmentFile, SegmentError> {
        let file = self.open_unchecked(number)?;
        let mut file = SegmentFile { number, kind: SegmentKind::Shared, file };
        let mut header = [0; format::FILE_HEADER_LEN as usize];
        file.read(&mut header, 0, None)?;
        file.kind = format::check_file_header(&header, number, &self.store_id)?;
        if file.kind == SegmentKind::Single {
            let mut zeros = [0; (format::SINGLE_RECORD_OFFSET - format::FILE_HEADER_LEN) as usize];
            file.read(&mut zeros, format::FILE_HEADER_LEN, None)?;
            let checked = format::check_zeros(&zeros, format::FILE_HEADER_LEN);
            checked.map_err(|fault| fault.of(number, None))?;
        }
        Ok(file)
    }

    /// Reads a segment's header again, which is checked once per handle otherwise. After damage no handle is left that
    /// somebody would read through.
    pub(super) fn check_header(&self, number: SegmentNumber) -> Result<(), SegmentError> {
        let checked = self.open_uncached(number).map(drop);
        if checked.is_err() {
            self.forget(number);
        }
        checked
    }

    fn open_unchecked(&self, number: SegmentNumber) -> Result<Arc<dyn DiskFile>, SegmentError> {
        let path = format::path_of(number);
        match self.disk.open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.missing.contains(&number) => {
                Err(Fault::new(0, "the segment's file", "there", "missing").of(number, None))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SegmentError::Missing { segment: number }),
            Err(error) => Err(SegmentError::io("open", path, error)),
        }
    }

    /// Lengths of a segment's file. A listing of many must not drive others out of the cache.
    pub(super) fn usage(&self, number: SegmentNumber) -> Result<SegmentUsage, SegmentError> {
        let file = self.open_unchecked(number)?;
        let asked = file.len().and_then(|len| {
            Ok(SegmentUsage { len, allocated_bytes: file.allocated_bytes()?, created_ms: file.created_ms()? })
        });
        asked.map_err(|error| SegmentError::io("ask for the length of", format::path_of(number), error))
    }

    /// Removes a segment's file. The name's end is not durable: what comes back after a crash is unlisted and goes at open.
    pub(super) fn remove(&self, number: SegmentNumber) -> Result<(), SegmentError> {
        let path = format::path_of(number);
        let result = self.disk.remove(&path);
        self.forget(number);
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SegmentError::Missing { segment: number }),
            Err(error) => Err(SegmentError::io("remove", path, error)),
        }
    }

    /// Nothing is left of a segment by which somebody would read it unlooked-at.
    fn forget(&self, number: SegmentNumber) {
        self.known.forget_segment(number);
        self.cache.remove(number);
    }

    /// Allows `needed` bytes to be written, or says why not.
    pub(super) fn claim(&self, needed: u64) -> Result<(), SegmentError> {
        self.poison.check()?;
        self.space.claim(&*self.disk, needed)
    }

    /// Writes; nothing is durable. After an error any part may have been written.
    pub(super) fn write(&self, file: &SegmentFile, bytes: &[u8], offset: u64) -> Result<(), SegmentError> {
        file.file
            .write_all_at(bytes, offset)
            .map_err(|error| self.write_error(bytes.len() as u64, "write", &format::path_of(file.number), error))
    }

    /// Cuts a file to a length; nothing is durable.
    pub(super) fn cut(&self, file: &SegmentFile, len: u64) -> Result<(), SegmentError> {
        let result = file.file.set_len(len);
        result.map_err(|error| self.write_error(0, "cut", &format::path_of(file.number), error))
    }

    /// Zeroes a range and gives its whole blocks back; nothing is durable. After an error any part may be zero.
    pub(super) fn punch(&self, file: &SegmentFile, offset: u64, len: u64) -> Result<(), SegmentError> {
        let result = file.file.punch(offset, len);
        result.map_err(|error| self.write_error(0, "punch", &format::path_of(file.number), error))
    }

    /// Makes what was written to a file durable, or ends all writes.
    pub(super) fn sync(&self, file: &SegmentFile) -> Result<(), SegmentError> {
        self.poison.check()?;
        file.file.sync_data().map_err(|error| self.poison.set("sync", &format::path_of(file.number), &error))
    }

    /// A directory has to be opened to be synced. Where no descriptor is left for that, no sync has failed.
    pub(super) fn sync_dir(&self, path: &str) -> Result<(), SegmentError> {
        self.disk.sync_dir(path).map_err(|error| match error {
            error if disk::is_out_of_files(&error) => SegmentError::io("open, to sync it,", path, error),
            error => self.poison.set("sync", path, &error),
        })
    }

    /// The error for what no disk has room for.
    pub(super) fn full(&self, needed: u64) -> SegmentError {
        self.space.full(&*self.disk, needed)
    }

    /// The kernel makes a file system read-only when the disk below it has failed, often before a sync of ours could: it
    /// ends all writes likewise.
    fn write_error(&self, needed: u64, action: &'static str, path: &str, error: io::Error) -> SegmentError {
        match error {
            error if disk::is_full(&error) => self.full(needed),
            error if error.kind() == io::ErrorKind::ReadOnlyFilesystem => self.poison.set(action, path, &error),
            error => SegmentError::io(action, path, error),
        }
    }
}
