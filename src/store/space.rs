//! Bytes that go. Who calls this has read in the index that nothing names them, after that was durable.
//!
//! What is dead is never decided here, nor in the layers below: the committer has decided it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    digest::Digest,
    disk::Disk,
    location::{Location, SegmentNumber},
    segment::{Candidate, Candidates, DeadRecord, Removal, SegmentError, SegmentUsage},
};

use super::{Shared, Store, StoreError};

/// Segments that were there when the store was opened. What they had then is not written to any more.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The first number of a segment that this process has begun.
    pub(super) next: u64,
    /// Ends of shared ones that may take more.
    pub(super) unsealed: BTreeMap<SegmentNumber, u64>,
}

impl Shared {
    /// Notes that a record was written for nothing.
    pub(super) fn discard(&self, location: Location, record_len: u64) {
        self.discards().push((location, record_len));
    }
}

impl Store {
    /// Zeroes dead records of one segment, durably; those that are still read after `patience` are returned. A segment
    /// without a file has nothing to erase.
    ///
    /// # Errors
    /// As [`crate::segment::Segments::erase`].
    pub fn erase(
        &self,
        segment: SegmentNumber,
        records: &[DeadRecord],
        patience: Duration,
    ) -> Result<Vec<DeadRecord>, StoreError> {
        match self.shared.segments.erase(segment, records, patience) {
            Err(SegmentError::Missing { .. }) => Ok(Vec::new()),
            result => result.map_err(|error| self.shared.segment_failed(error)),
        }
    }

    /// Removes the file of a segment that the journal says to be gone.
    ///
    /// # Errors
    /// As [`crate::segment::Segments::remove_dead`].
    pub fn remove_segment(&self, segment: SegmentNumber, patience: Duration) -> Result<Removal, StoreError> {
        self.shared.segments.remove_dead(segment, patience).map_err(|error| self.shared.segment_failed(error))
    }

    /// What a segment takes of the disk; `None` when it has no file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn segment_usage(&self, segment: SegmentNumber) -> Result<Option<SegmentUsage>, StoreError> {
        match self.shared.segments.usage(segment) {
            Ok(usage) => Ok(Some(usage)),
            Err(SegmentError::Missing { .. }) => Ok(None),
            Err(error) if error.is_corrupt() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Walks through a segment; `None` when it has no file.
    ///
    /// # Errors
    /// As [`crate::segment::Segments::candidates`].
    pub fn candidates(&self, segment: SegmentNumber) -> Result<Option<Candidates>, StoreError> {
        match self.shared.segments.candidates(segment) {
            Ok(candidates) => Ok(Some(candidates)),
            Err(SegmentError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends a copy of a record to a shared segment. It is durable with the request that names it; if none comes to do
    /// so, [`discard`](Self::discard) it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the record is damaged; else as for an upload.
    pub fn copy(&self, record: &Candidate) -> Result<(Location, u64), StoreError> {
        let copy = self.shared.segments.copy(record).map_err(|error| self.shared.segment_failed(error))?;
        Ok((copy.location, copy.record_len))
    }

    /// Up to where a segment is as an earlier process has left it, in bytes; `None` for one that this process has begun.
    pub fn settled_end(&self, segment: SegmentNumber) -> Option<u64> {
        let found = &self.shared.found;
        (segment.0 < found.next).then(|| found.unsealed.get(&segment).copied().unwrap_or(u64::MAX))
    }

    /// Reads the header of a segment's file again, so that damage there is met by the next read of what lies in it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is damaged; [`StoreError::Failed`] when it cannot be read.
    pub fn check_segment(&self, segment: SegmentNumber) -> Result<(), StoreError> {
        Ok(self.shared.segments.check_header(segment)?)
    }

    /// The path of a segment's file, below the data directory.
    pub fn segment_path(&self, segment: SegmentNumber) -> String {
        crate::segment::path_of(segment)
    }

    /// Walks through any file below the data directory as if it were a segment.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn candidates_in(&self, path: &str) -> Result<Candidates, StoreError> {
        Ok(self.shared.segments.candidates_in(path)?)
    }

    /// The shared segment that takes appends.
    pub fn active_segment(&self) -> Option<SegmentNumber> {
        self.shared.segments.active()
    }

    /// Notes that a copy was written for nothing: the next batch says so.
    pub fn discard(&self, location: Location, record_len: u64) {
        self.shared.discard(location, record_len);
    }

    /// The next upload of this content replaces its stored copy, which is damaged.
    pub fn note_damage(&self, digest: &Digest) {
        self.shared.note_damage(digest);
    }

    /// Lets a shared segment take no more appends; the next one begins another. It is sealed by a later batch.
    pub fn retire_segment(&self, segment: SegmentNumber) {
        self.shared.segments.retire(segment);
    }

    /// The disk of the store.
    pub fn disk(&self) -> &dyn Disk {
        &*self.shared.disk
    }

    /// Whether records wait to be noted as discarded.
    pub fn has_discards(&self) -> bool {
        !self.shared.discards().is_empty()
    }
}

#[cfg(test)]
impl Store {
    /// Writes a record, and forgets it, as a process does that is killed before it has named it.
    pub(crate) fn write_for_nothing(&self, digest: &Digest, bytes: &[u8]) -> crate::segment::Appended {
        self.shared.segments.append(crate::location::RecordKind::Blob, digest, bytes).expect("there is room")
    }
}
