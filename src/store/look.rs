//! What who verifies a store has to see of it, beside its rows and its content.

use crate::{
    index::{
        View,
        schema::{self, SegmentRow, key},
    },
    location::SegmentNumber,
    segment::SegmentError,
};

use super::{Store, StoreError, snapshot};

impl Store {
    /// The state at a moment when no change of lives is under way: only then do derived rows add up. Waits for one.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when there was none in a thousand looks, some seconds; or the index fails.
    pub fn settled_snapshot(&self) -> Result<Box<dyn View + '_>, StoreError> {
        let (view, _) = snapshot::settled_view(&self.shared, &mut || Ok(()))?;
        Ok(view)
    }

    /// Length of a segment's file in bytes; `None` when there is no such segment now.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it should have a file and has none.
    pub fn segment_len(&self, number: SegmentNumber) -> Result<Option<u64>, StoreError> {
        match self.shared.segments.usage(number) {
            Ok(usage) => Ok(Some(usage.len)),
            Err(error @ SegmentError::Missing { .. }) => {
                match schema::get::<SegmentRow>(&*self.shared.index, key::segment(number))? {
                    Some(_) => Err(error.into()),
                    None => Ok(None),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}
