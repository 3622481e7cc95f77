//! Bytes on their way out: the one function through which all reads of content go.
//!
//! A place is looked up and opened in one epoch, so that it cannot be erased in between, and what is open is not erased at
//! all. It can still be moved, and its segment be removed. So after a read that failed the place is looked up again: a
//! place that the index still names is damaged; another one is read; and when there is none, the content was dropped
//! meanwhile, which is absence. What is damaged is remembered, so that the next upload of the same content replaces it.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;

use crate::{
    digest::Digest,
    index::schema::{self, BlobRow, key},
    location::Location,
    segment::{Look, Piece, RecordReader, SegmentError},
    sync::{Mutex, MutexGuard},
};

use super::{Shared, StoreError};

/// Damaged digests that are remembered. A store with more has other problems than which upload heals what first.
const DAMAGED_MAX: usize = 65_536;

/// Content that can be read, whole or in parts, by many threads.
#[derive(Clone)]
pub struct StoredContent {
    shared: Arc<Shared>,
    digest: Digest,
    len: u64,
    look: Look,
    opened: Arc<Mutex<Opened>>,
}

/// Opens content; `None` when it is not there.
pub(super) fn content(shared: &Arc<Shared>, digest: &Digest, look: Look) -> Result<Option<StoredContent>, StoreError> {
    let opened = open(shared, digest, look, None)?;
    // Where it is looked at again, somebody waits.
    let look = if look == Look::AtOnce { Look::Usual } else { look };
    Ok(opened.map(|opened| StoredContent {
        shared: Arc::clone(shared),
        digest: *digest,
        len: opened.reader.len(),
        look,
        opened: Arc::new(Mutex::new(opened)),
    }))
}

/// Content at the place where the index had it.
#[derive(Clone)]
struct Opened {
    location: Location,
    reader: RecordReader,
}

/// Opens content where the index has it now; `None` when it has it nowhere. `before` is a place that was read in vain, and
/// with what error: where it is still named, that error stands. So each turn follows a move of the content.
fn open(
    shared: &Shared,
    digest: &Digest,
    look: Look,
    mut before: Option<(Location, SegmentError)>,
) -> Result<Option<Opened>, StoreError> {
    loop {
        let _epoch = shared.segments.enter();
        // A snapshot: what requests read so is worth holding.
        let Some(row) = schema::get::<BlobRow>(&*shared.snapshot_within(look.reach()), key::blob(digest))? else {
            return Ok(None);
        };
        let location = row.location;
        match before {
            Some((place, error)) if place == location => return Err(failed(shared, digest, place, error)),
            _ => match shared.segments.reader_by(look, location, digest, row.size) {
                Ok(reader) => return Ok(Some(Opened { location, reader })),
                Err(SegmentError::OutOfReach) => return Err(StoreError::OutOfReach),
                Err(error) => before = Some((location, error)),
            },
        }
    }
}

fn failed(shared: &Shared, digest: &Digest, place: Location, error: SegmentError) -> StoreError {
    let error = StoreError::from(error);
    if matches!(error, StoreError::Corrupt(_)) {
        tracing::error!(blob.digest = %digest, %error, "stored content is damaged; pushing it again heals it");
        // The damage may be in the file's header: what is appended there would be as unreadable, and a push would heal nothing.
        shared.segments.retire(place.segment);
        shared.note_damage(digest);
    }
    error
}

impl Shared {
    /// Remembers content as damaged.
    pub(super) fn note_damage(&self, digest: &Digest) {
        self.segments.distrust(digest);
        let mut damaged = self.damaged();
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(*digest);
        }
    }
}

impl StoredContent {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads `len` bytes from `offset`, checked. The range must lie inside the content.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a checksum does not hold; nothing of a damaged block is returned.
    /// [`StoreError::Failed`] when such content was dropped since it was opened.
    pub fn read(&self, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.read_by(|reader| reader.read(offset, len))
    }

    /// The same bytes, for the kernel to send where it can: then they are checked, and not kept.
    ///
    /// # Errors
    /// As [`StoredContent::read`].
    pub fn piece(&self, offset: u64, len: usize) -> Result<Piece, StoreError> {
        self.read_by(|reader| reader.piece(offset, len))
    }

    /// Whether all of it has been read, and lies in memory.
    pub fn is_in_memory(&self) -> bool {
        self.lock().reader.is_in_memory()
    }

    /// At most `len` bytes from `offset` that can be sent without waiting for the disk; `None` where there are none. Not
    /// for the end of the content.
    pub fn at_hand(&self, offset: u64, len: usize) -> Option<Piece> {
        self.lock().reader.at_hand(offset, len)
    }

    /// Reads where it is open, and where it has moved to since.
    fn read_by<T>(&self, read: impl Fn(&RecordReader) -> Result<T, SegmentError>) -> Result<T, StoreError> {
        let mut opened = self.lock().clone();
        loop {
            let error = match read(&opened.reader) {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            let again = open(&self.shared, &self.digest, self.look, Some((opened.location, error)))?;
            opened = again.ok_or_else(|| {
                StoreError::Failed(format!(
                    "blob {} was dropped while it was read, and cannot be read to its end",
                    self.digest
                ))
            })?;
            *self.lock() = opened.clone();
        }
    }

    /// Reads all of it; for content that is known to be small.
    ///
    /// # Errors
    /// As [`StoredContent::read`].
    pub fn read_all(&self) -> Result<Bytes, StoreError> {
        let len = usize::try_from(self.len).map_err(|_| StoreError::Failed("too large to be read at once".into()))?;
        self.read(0, len)
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StoredContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredContent({}, {} bytes)", self.digest, self.len)
    }
}
