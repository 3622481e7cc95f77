//! Where this machine has content: what is decided about copies, records that nobody names, and segments.
//!
//! Whoever writes a record does so before it is decided that anybody names it. So a segment that is about to be removed can
//! get a name for one of its records in the same batch: all of that is decided here, one after the other, and a record in a
//! segment that is gone is never named.

use crate::{
    digest::Digest,
    index::schema::{self, BlobRow, SchemaError, SegmentRow, key},
    journal::operation::LocalRecord,
    location::{Location, SegmentNumber},
    state::request::{Outcome, Refusal},
};

use super::Batch;

impl Batch<'_> {
    /// Whether a shared segment was removed.
    pub(super) fn is_gone(&self, segment: SegmentNumber) -> bool {
        self.removed.contains(&segment) || self.gone.is_some_and(|gone| gone.contains(&segment))
    }

    pub(super) fn move_content(
        &mut self,
        digest: &Digest,
        from: Location,
        to: Location,
        record_len: u64,
    ) -> Result<Outcome, Refusal> {
        if self.is_gone(to.segment) {
            return Ok(Outcome::ContentNeeded);
        }
        let row: Option<BlobRow> = schema::get(&self.overlay, key::blob(digest))?;
        match row.filter(|row| row.location == from && row.record_len == record_len) {
            Some(_) => self.local(LocalRecord::Moved { digest: *digest, from, to })?,
            None => self.discard(to, record_len)?,
        }
        Ok(Outcome::Done)
    }

    /// A segment that is gone has no bytes to erase, and what has a name is not for nobody.
    pub(super) fn discard(&mut self, location: Location, record_len: u64) -> Result<(), SchemaError> {
        if self.is_gone(location.segment) {
            return Ok(());
        }
        self.local(LocalRecord::Discarded { location, record_len })
    }

    pub(super) fn remove_segment(&mut self, segment: SegmentNumber) -> Result<Outcome, Refusal> {
        let row: Option<SegmentRow> = schema::get(&self.overlay, key::segment(segment))?;
        let row = row.filter(|row| row.sealed && row.live_records == 0).ok_or(Refusal::NotDue)?;
        self.local(LocalRecord::SegmentRemoved { segment })?;
        // What has a segment of its own is written to it by one upload, which has named it.
        if !row.single {
            self.removed.push(segment);
        }
        Ok(Outcome::Done)
    }
}
