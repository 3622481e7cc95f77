//! Bytes on their way out: the one function through which all reads of content go.
//!
//! A place is looked up in a view, and read from a segment. A read that fails looks its place up again before it calls
//! the content damaged: it may have been moved or replaced in between. What is damaged is remembered, so that the next
//! upload of the same content replaces it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, BlobRow, key},
    },
    segment::{RecordReader, SegmentError},
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
    reader: Arc<Mutex<RecordReader>>,
}

/// Opens content that is in the view; `None` when it is not.
pub(super) fn content(
    shared: &Arc<Shared>,
    view: &dyn View,
    digest: &Digest,
) -> Result<Option<StoredContent>, StoreError> {
    let Some(row) = schema::get::<BlobRow>(view, key::blob(digest))? else { return Ok(None) };
    let reader = match open(shared, digest, &row) {
        Ok(reader) => reader,
        Err(_) => reopen(shared, digest)?,
    };
    let (shared, digest, len) = (Arc::clone(shared), *digest, row.size);
    Ok(Some(StoredContent { shared, digest, len, reader: Arc::new(Mutex::new(reader)) }))
}

fn open(shared: &Shared, digest: &Digest, row: &BlobRow) -> Result<RecordReader, SegmentError> {
    shared.segments.reader(row.location, digest, row.size)
}

/// Looks the place up once more; what fails now is damage.
fn reopen(shared: &Shared, digest: &Digest) -> Result<RecordReader, StoreError> {
    let row: BlobRow = schema::expect(&*shared.index, key::blob(digest))?;
    open(shared, digest, &row).map_err(|error| failed(shared, digest, error))
}

fn failed(shared: &Shared, digest: &Digest, error: SegmentError) -> StoreError {
    let error = StoreError::from(error);
    if matches!(error, StoreError::Corrupt(_)) {
        tracing::error!(blob.digest = %digest, %error, "stored content is damaged; pushing it again heals it");
        let mut damaged = shared.damaged();
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(*digest);
        }
    }
    error
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
    pub fn read(&self, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(bytes) = reader.read(offset, len) {
            return Ok(bytes);
        }
        let reader = reopen(&self.shared, &self.digest)?;
        let bytes = reader.read(offset, len).map_err(|error| failed(&self.shared, &self.digest, error))?;
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = reader;
        Ok(bytes)
    }

    /// Reads all of it; for content that is known to be small.
    ///
    /// # Errors
    /// As [`StoredContent::read`].
    pub fn read_all(&self) -> Result<Bytes, StoreError> {
        let len = usize::try_from(self.len).map_err(|_| StoreError::Failed("too large to be read at once".into()))?;
        self.read(0, len)
    }
}

impl fmt::Debug for StoredContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredContent({}, {} bytes)", self.digest, self.len)
    }
}
