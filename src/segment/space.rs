//! Keeps a part of the disk free, so that deletes, the journal and the index go on when pushes fill it.
//!
//! Asking the operating system costs a system call, so an answer is used for at most 100 ms and 8 MiB of writes; what is
//! written elsewhere meanwhile is not seen, and the reserve has to be larger than that.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{disk::Disk, sync::Mutex};

use super::error::SegmentError;

const ANSWER_BYTES_MAX: u64 = 8 << 20;
const ANSWER_AGE_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Space {
    reserve_bytes: u64,
    /// What may be written on the last answer, and until when; `None` when the last answer was no.
    answer: Mutex<Option<(u64, Instant)>>,
}

impl Space {
    pub(super) fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, answer: Mutex::new(None) }
    }

    /// Allows `needed` bytes to be written, or says that the disk is full.
    pub(super) fn claim(&self, disk: &dyn Disk, needed: u64) -> Result<(), SegmentError> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((left, until)) = answer.as_mut()
            && *left >= needed
            && now < *until
        {
            *left -= needed;
            return Ok(());
        }
        *answer = None;
        let free =
            disk.free_bytes().map_err(|error| SegmentError::io("ask for the free bytes of", "the disk", error))?;
        let Some(left) = free.checked_sub(self.reserve_bytes).and_then(|usable| usable.checked_sub(needed)) else {
            return Err(SegmentError::Full { needed, free, reserve: self.reserve_bytes });
        };
        *answer = Some((left.min(ANSWER_BYTES_MAX), now + ANSWER_AGE_MAX));
        Ok(())
    }

    /// The error for a write that the disk itself found no room for.
    pub(super) fn full(&self, disk: &dyn Disk, needed: u64) -> SegmentError {
        SegmentError::Full { needed, free: disk.free_bytes().unwrap_or(0), reserve: self.reserve_bytes }
    }
}
