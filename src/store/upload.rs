//! Bytes on their way in: hashed as they come, buffered while they are few, in a segment of their own once they are many.
//!
//! A buffered upload is appended to a shared segment once, when it ends, and only if nobody stored the same content
//! before. Nothing of an upload is visible until the committer has journaled it.

use std::sync::Arc;

use crate::{
    digest::{Algorithm, Digest, Hasher},
    index::schema::{self, BlobRow, key},
    location::{RecordKind, SegmentNumber},
    segment::{Appended, SingleWriter},
    state::request::{Content, Outcome, Placement},
    sync::atomic::Ordering,
};

use super::{Shared, StoreError};

/// An upload under way. Dropped, it leaves nothing that outlives the next start.
pub struct Upload {
    shared: Arc<Shared>,
    hasher: Hasher,
    bytes: Bytes,
}

enum Bytes {
    Buffered(Buffer),
    Single(SingleWriter),
}

/// Buffered bytes, counted against the bound of all buffers.
struct Buffer {
    shared: Arc<Shared>,
    bytes: Vec<u8>,
}

impl Buffer {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: Vec::new() }
    }

    /// Takes more bytes if this upload and all together stay within their bounds.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let options = &self.shared.options;
        let count = bytes.len() as u64;
        if self.bytes.len() as u64 + count > options.large_blob_bytes {
            return false;
        }
        let before = self.shared.buffered.fetch_add(count, Ordering::Relaxed);
        if before + count > options.buffered_bytes_max {
            self.shared.buffered.fetch_sub(count, Ordering::Relaxed);
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shared.buffered.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Upload {
    pub(super) fn new(shared: Arc<Shared>, algorithm: Algorithm) -> Self {
        let buffer = Buffer::new(Arc::clone(&shared));
        Self { shared, hasher: Hasher::new(algorithm), bytes: Bytes::Buffered(buffer) }
    }

    pub(super) fn resume(shared: Arc<Shared>, segment: SegmentNumber, bytes: u64) -> Result<Self, StoreError> {
        // What the journal says of the segment may be newer than what the index knows then.
        if let Some(poisoned) = shared.poisoned() {
            return Err(poisoned);
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let single = shared.segments.reopen_single(segment, bytes, &mut |block| hasher.update(block))?;
        Ok(Self { shared, hasher, bytes: Bytes::Single(single) })
    }

    /// Hashes with `algorithm` from the beginning. With bytes that came before it stays as it is, and [`Upload::digest`]
    /// reads them again.
    pub fn hash_with(&mut self, algorithm: Algorithm) {
        if self.len() == 0 {
            self.hasher = Hasher::new(algorithm);
        }
    }

    /// Bytes that it has.
    #[expect(clippy::len_without_is_empty, reason = "an offset to go on from, not a collection")]
    pub fn len(&self) -> u64 {
        match &self.bytes {
            Bytes::Buffered(buffer) => buffer.bytes.len() as u64,
            Bytes::Single(single) => single.len(),
        }
    }

    /// Appends bytes; not durable on return. After an error it is as before.
    ///
    /// # Errors
    /// When the disk is full or fails, or the store takes no writes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(poisoned) = self.shared.poisoned() {
            return Err(poisoned);
        }
        match &mut self.bytes {
            Bytes::Single(single) => single.write(bytes).map_err(|error| self.shared.segment_failed(error))?,
            Bytes::Buffered(buffer) => {
                if !buffer.take(bytes) {
                    let single = self.shared.segments.create_single();
                    let mut single = single.map_err(|error| self.shared.segment_failed(error))?;
                    let written = single.write(&buffer.bytes).and_then(|()| single.write(bytes));
                    if let Err(error) = written {
                        discard(single);
                        return Err(self.shared.segment_failed(error));
                    }
                    self.bytes = Bytes::Single(single);
                }
            }
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Its segment, if it has one: with an open file, for as long as the upload lives.
    pub fn segment(&self) -> Option<SegmentNumber> {
        match &self.bytes {
            Bytes::Buffered(_) => None,
            Bytes::Single(single) => Some(single.number()),
        }
    }

    /// Makes what it has durable, if it is of the kind that outlives a restart; then tells the segment.
    ///
    /// # Errors
    /// When the sync fails: the store is poisoned then.
    pub fn sync(&self) -> Result<Option<SegmentNumber>, StoreError> {
        match &self.bytes {
            Bytes::Buffered(_) => Ok(None),
            Bytes::Single(single) => {
                single.sync().map_err(|error| self.shared.segment_failed(error))?;
                Ok(Some(single.number()))
            }
        }
    }

    /// The digest of what it has. Another algorithm than the one that it was begun with reads everything again.
    ///
    /// # Errors
    /// When the bytes cannot be read.
    pub fn digest(&self, algorithm: Algorithm) -> Result<Digest, StoreError> {
        if self.hasher.algorithm() == algorithm {
            return Ok(self.hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        match &self.bytes {
            Bytes::Buffered(buffer) => hasher.update(&buffer.bytes),
            Bytes::Single(single) => {
                let mut block = vec![0; 1 << 20];
                let mut at = 0;
                while at < single.len() {
                    let count = single.read_at(at, &mut block)?;
                    hasher.update(&block[..count]);
                    at += count as u64;
                }
            }
        }
        Ok(hasher.finish())
    }

    /// Throws it away.
    pub fn discard(self) {
        if let Bytes::Single(single) = self.bytes {
            discard(single);
        }
    }

    /// Writes the bytes where they stay and has them committed by `commit`, which is asked again with a placement when
    /// the stored copy that the first try relied on is gone. When they cannot be stored, `end` makes the journal forget
    /// the upload's session and says whether it has; only then does its segment go, because a segment that the journal
    /// names must not be missing after a crash.
    pub(super) fn finish(
        self,
        expected: Digest,
        kind: RecordKind,
        commit: impl Fn(Content) -> Result<Outcome, StoreError>,
        end: impl FnOnce() -> bool,
    ) -> Result<(), StoreError> {
        let checked = self.digest(expected.algorithm()).and_then(|found| {
            if found == expected { Ok(()) } else { Err(StoreError::DigestMismatch { expected, found }) }
        });
        if let Err(error) = checked {
            if end() {
                self.discard();
            }
            return Err(error);
        }
        let len = self.len();
        let Self { shared, bytes, .. } = self;
        match bytes {
            Bytes::Buffered(buffer) => commit_bytes(&shared, kind, expected, &buffer.bytes, commit),
            Bytes::Single(single) if len <= shared.options.large_blob_bytes => {
                let number = single.number();
                let result = read_small(&single, &expected)
                    .and_then(|bytes| commit_bytes(&shared, kind, expected, &bytes, commit));
                let unused = match &result {
                    Ok(()) => true,
                    Err(StoreError::Unavailable(_)) => false,
                    Err(_) => end(),
                };
                if unused {
                    shared.remove_unlisted(number);
                }
                result
            }
            Bytes::Single(single) => {
                let number = single.number();
                let result = single.finish(kind, &expected).map_err(|error| shared.segment_failed(error));
                // By itself, so that nobody who notes damage waits for the commit.
                let replaces_damaged = shared.damaged().contains(&expected);
                let result = result.and_then(|appended| {
                    let placement = Some(placement(kind, true, appended));
                    commit(Content { digest: expected, len, placement, replaces_damaged })
                });
                settle_single(&shared, &expected, number, &result, end);
                result.map(drop)
            }
        }
    }
}

/// All bytes of a small upload that has a segment only because the buffers were full when it came: it is stored like any
/// other small one, or each would leave a file for ever. They are hashed again, as no checksum covers them yet.
fn read_small(single: &SingleWriter, expected: &Digest) -> Result<Vec<u8>, StoreError> {
    let len = usize::try_from(single.len()).map_err(|_| StoreError::Failed("too large to be read at once".into()))?;
    let mut bytes = vec![0; len];
    single.read_at(0, &mut bytes)?;
    match Digest::of(expected.algorithm(), &bytes) {
        found if found == *expected => Ok(bytes),
        found => Err(StoreError::Corrupt(format!(
            "segment {} gave other bytes of an upload than were written: they have digest {found}, not {expected}",
            single.number()
        ))),
    }
}

/// Commits content that is in memory. It is written only where the store does not have it.
fn commit_bytes(
    shared: &Shared,
    kind: RecordKind,
    digest: Digest,
    bytes: &[u8],
    commit: impl Fn(Content) -> Result<Outcome, StoreError>,
) -> Result<(), StoreError> {
    let len = bytes.len() as u64;
    let replaces_damaged = shared.damaged().contains(&digest);
    let mut content = Content { digest, len, placement: None, replaces_damaged };
    let is_stored = shared.index.get(&key::blob(&digest).bytes())?.is_some();
    if is_stored && commit(content)? != Outcome::ContentNeeded {
        return Ok(());
    }
    for _ in 0..PLACES_TRIED {
        let appended = shared.segments.append(kind, &digest, bytes).map_err(|error| shared.segment_failed(error))?;
        content.placement = Some(placement(kind, false, appended));
        match commit(content) {
            // Its segment was removed before anything was named there.
            Ok(Outcome::ContentNeeded) => {}
            Ok(_) => {
                if replaces_damaged {
                    shared.damaged().remove(&digest);
                }
                return Ok(());
            }
            Err(error) => {
                // Whether the journal names it is not known then: the next open finds out.
                if !matches!(error, StoreError::Unavailable(_)) {
                    shared.discard(appended.location, appended.record_len);
                }
                return Err(error);
            }
        }
    }
    Err(StoreError::Failed("segments were removed as fast as content was written to them; try again".to_owned()))
}

#[cfg(any(test, fuzzing))]
pub(super) fn stage(shared: &Shared, kind: RecordKind, digest: Digest, bytes: &[u8]) -> Result<Content, StoreError> {
    let mut content = Content { digest, len: bytes.len() as u64, placement: None, replaces_damaged: false };
    if shared.index.get(&key::blob(&digest).bytes())?.is_none() {
        let appended = shared.segments.append(kind, &digest, bytes).map_err(|error| shared.segment_failed(error))?;
        content.placement = Some(placement(kind, false, appended));
    }
    Ok(content)
}

/// How often content is written that ends up in a segment that is removed. Once is a race; it needs a segment that was
/// filled, and emptied, between the end of a write and the committer's turn.
const PLACES_TRIED: usize = 4;

/// After a try to commit: the segment is the blob's, or nobody's. It is removed only when that is certain; after an error
/// that leaves it open, the next start decides.
fn settle_single(
    shared: &Shared,
    digest: &Digest,
    number: SegmentNumber,
    result: &Result<Outcome, StoreError>,
    end: impl FnOnce() -> bool,
) {
    let unused = match result {
        Ok(_) => {
            let row: Result<Option<BlobRow>, _> = schema::get(&*shared.index, key::blob(digest));
            // Where the old copy was kept, what is known of its damage stands.
            if matches!(&row, Ok(Some(row)) if row.location.segment == number) {
                shared.damaged().remove(digest);
            }
            matches!(row, Ok(Some(row)) if row.location.segment != number)
        }
        Err(StoreError::Unavailable(_)) => false,
        Err(_) => end(),
    };
    if unused {
        shared.remove_unlisted(number);
    }
}

pub(super) fn placement(kind: RecordKind, single: bool, appended: Appended) -> Placement {
    Placement { kind, single, location: appended.location, record_len: appended.record_len }
}

fn discard(single: SingleWriter) {
    let number = single.number();
    if let Err(error) = single.discard() {
        tracing::warn!(%error, segment.id = number.0, "an unused segment stays until the next start");
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({} bytes)", self.len())
    }
}
