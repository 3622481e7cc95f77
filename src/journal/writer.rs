//! Appends batches: one write and one sync each, into files whose blocks were reserved before.
//!
//! It retries nothing. A sync that failed once reports success the next time although the data is gone, so the first
//! failure of a write or sync ends this journal; only reading and starting it anew tells what is really there.
//!
//! Invariants:
//! - On return from `append` the batch is durable, and so is all before it.
//! - A full disk is met where space is reserved, before anything of the batch is written.
//! - A file gets its name when its header is durable, and its first batch when its name is.

use std::sync::Arc;

use super::{
    Appended, DIRECTORY, JournalError, JournalOptions, Mark, Position, RawRecord,
    format::{self, FILE_HEADER_LEN, FileHeader},
    reader::{FileReader, Next},
    recovery::{self, LastFile, ReadJournal},
};
use crate::disk::{Disk, DiskFile};

const HEADER_END: u64 = FILE_HEADER_LEN as u64;

/// The journal, open for appending. One per store: the caller holds the store's lock.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    options: JournalOptions,
    header: FileHeader,
    file: Growing,
    at: Mark,
    /// Whether the next batch begins another file.
    is_ended: bool,
    poison: Option<Arc<JournalError>>,
}

impl Journal {
    /// Goes on after what was read, or begins a new journal.
    ///
    /// The last file is written anew, without a torn tail, and synced before it takes the old one's name: after a failed
    /// sync pages of the old file can look clean and not be on the disk, and to sync those again would prove nothing.
    /// What crashes left unfinished is removed. On return all that was read is durable.
    ///
    /// # Errors
    /// `Full` when there is no room for the copy of the last file, `Damaged` when it changed since it was read, `Io`. The
    /// files hold the same history as before.
    pub fn start(disk: Arc<dyn Disk>, read: ReadJournal) -> Result<Self, JournalError> {
        let options = &read.options;
        for path in recovery::list(&*disk, format::is_temporary)? {
            disk.remove(&path).map_err(|source| JournalError::io(&path, "remove", source))?;
        }
        let (header, file) = match &read.last_file {
            Some(last) => (last.header, rewrite(&*disk, options, last, read.end)?),
            None => {
                disk.create_dir(DIRECTORY).map_err(|source| JournalError::io_or_full(DIRECTORY, "create", source))?;
                disk.sync_dir("").map_err(|source| JournalError::io("", "sync the directory", source))?;
                let header = FileHeader { number: read.next_number, before: read.end };
                (header, begin(&*disk, options, &header, HEADER_END)?)
            }
        };
        if read.cut_bytes() > 0 {
            tracing::warn!(
                journal.file = header.path(),
                journal.lsn = read.end.position.lsn,
                cut_bytes = read.cut_bytes(),
                "cut a batch from the journal's end that was never acknowledged"
            );
        }
        Ok(Self { disk, options: read.options, header, file, at: read.end, is_ended: false, poison: None })
    }

    /// Makes a batch durable and numbers its records on from [`Journal::position`]. No records, no batch.
    ///
    /// # Errors
    /// `Full` and `BatchTooLarge`: nothing was written, the next batch may succeed. `Poisoned`: nothing will be written
    /// any more; whether the batch of the first such error is on the disk is known after the next start.
    pub fn append(&mut self, time_ms: u64, records: &[RawRecord]) -> Result<Appended, JournalError> {
        if let Some(cause) = &self.poison {
            return Err(JournalError::Poisoned { cause: Arc::clone(cause) });
        }
        let mut bytes = 0;
        if !records.is_empty() {
            let batch = format::encode_batch(&self.options.store_id, self.at, time_ms, records)?;
            bytes = batch.bytes.len() as u64;
            self.write(&batch.bytes).map_err(|error| self.poisoned(error))?;
            self.at = batch.after;
        }
        Ok(Appended { last: self.at.position, chain: self.at.chain, bytes })
    }

    /// Has the next batch begin another file, so that a snapshot behind it makes the present one superfluous.
    pub fn end_file(&mut self) {
        self.is_ended = true;
    }

    /// Position of the last durable records.
    pub fn position(&self) -> Position {
        self.at.position
    }

    /// The point after the last durable batch.
    pub fn mark(&self) -> Mark {
        self.at
    }

    fn write(&mut self, batch: &[u8]) -> Result<(), JournalError> {
        let len = batch.len() as u64;
        let is_full = self.file.end.saturating_add(len) > self.options.file_bytes_max;
        if self.file.end > HEADER_END && (is_full || self.is_ended) {
            let header = FileHeader { number: self.header.number.saturating_add(1), before: self.at };
            // Room for the batch is reserved with the file: a full disk leaves no file without a batch behind.
            self.file = begin(&*self.disk, &self.options, &header, HEADER_END + len)?;
            self.header = header;
            self.is_ended = false;
        }
        self.file.reserve(self.file.end + len, &self.options)?;
        self.file.write(batch, "write")?;
        self.file.sync()
    }

    /// Keeps what must end the journal. A full disk does not: it is told before anything is written.
    fn poisoned(&mut self, error: JournalError) -> JournalError {
        if matches!(error, JournalError::Full { .. }) {
            return error;
        }
        tracing::error!(error = %error, "the journal failed and takes no more writes until a restart");
        let cause = Arc::new(error);
        self.poison = Some(Arc::clone(&cause));
        JournalError::Poisoned { cause }
    }
}

/// Creates a file with nothing but its header, and room up to `end`.
fn begin(disk: &dyn Disk, options: &JournalOptions, header: &FileHeader, end: u64) -> Result<Growing, JournalError> {
    publish(disk, &header.path(), |file| {
        file.reserve(end, options)?;
        file.write(&header.encode(&options.store_id), "write the header of")
    })
}

/// Writes the last file anew up to where its last batch ends.
fn rewrite(disk: &dyn Disk, options: &JournalOptions, last: &LastFile, end: Mark) -> Result<Growing, JournalError> {
    let path = last.header.path();
    let mut old = FileReader::open(disk, options.store_id, &path)?;
    publish(disk, &path, |file| {
        file.reserve(last.end_offset, options)?;
        file.write(&last.header.encode(&options.store_id), "copy")?;
        let mut at = last.header.before;
        // The bytes are proven again as they are copied: a page that was read before may have been dropped since, and
        // what the disk has in its place may be older.
        while file.end < last.end_offset {
            match old.next(file.end, &at)? {
                Next::Batch(batch, bytes) => {
                    file.write(bytes, "copy")?;
                    at = batch.after;
                }
                Next::End | Next::Broken => break,
            }
        }
        if file.end == last.end_offset && at == end {
            Ok(())
        } else {
            Err(JournalError::Damaged { file: path.clone(), offset: file.end, next_valid_offset: None })
        }
    })
}

/// Fills a file under a temporary name, syncs it, and gives it its name for good.
fn publish(
    disk: &dyn Disk,
    path: &str,
    fill: impl FnOnce(&mut Growing) -> Result<(), JournalError>,
) -> Result<Growing, JournalError> {
    let temporary = format::temporary(path);
    let mut file = Growing::create(disk, &temporary)?;
    let filled = fill(&mut file).and_then(|()| file.sync()).and_then(|()| {
        disk.rename(&temporary, path).map_err(|source| JournalError::io_or_full(path, "rename a new file to", source))
    });
    if let Err(error) = filled {
        // Only to give the space back; what cannot be removed here is removed at the next start.
        disk.remove(&temporary).ok();
        return Err(error);
    }
    disk.sync_dir(DIRECTORY).map_err(|source| JournalError::io(DIRECTORY, "sync the directory", source))?;
    file.path = path.to_owned();
    Ok(file)
}

/// A file that grows at its end.
#[derive(Debug)]
struct Growing {
    file: Arc<dyn DiskFile>,
    path: String,
    end: u64,
    reserved: u64,
}

impl Growing {
    fn create(disk: &dyn Disk, path: &str) -> Result<Self, JournalError> {
        let created = match disk.create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(path).and_then(|()| disk.create(path))
            }
            other => other,
        };
        let file = created.map_err(|source| JournalError::io_or_full(path, "create", source))?;
        Ok(Self { file, path: path.to_owned(), end: 0, reserved: 0 })
    }

    /// Reserves blocks up to `end`: a whole step when the disk has one, else just what is needed.
    fn reserve(&mut self, end: u64, options: &JournalOptions) -> Result<(), JournalError> {
        if end <= self.reserved {
            return Ok(());
        }
        let step = options.allocate_bytes.max(1);
        // Past the length at which the file is ended blocks would stay unused.
        let ahead = end.div_ceil(step).saturating_mul(step).min(options.file_bytes_max).max(end);
        let mut result = self.file.allocate(self.reserved, ahead - self.reserved).map(|()| ahead);
        if ahead > end && result.as_ref().is_err_and(crate::disk::is_full) {
            result = self.file.allocate(self.reserved, end - self.reserved).map(|()| end);
        }
        self.reserved = result.map_err(|source| JournalError::io_or_full(&self.path, "reserve space for", source))?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], action: &'static str) -> Result<(), JournalError> {
        self.file.write_all_at(bytes, self.end).map_err(|source| JournalError::io(&self.path, action, source))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|source| JournalError::io(&self.path, "sync", source))
    }
}
