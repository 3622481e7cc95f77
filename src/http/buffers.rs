//! Memory for bodies on their way: a budget that all of them share.
//!
//! A stream asks once for its two buffers (one is filled while the other is used). When the budget is spent it still goes on,
//! in steps so small that the bound on connections bounds them too. So memory is bounded and no stream waits for the
//! memory of a slower one. What must lie in memory whole (manifests) is refused instead.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::HttpError;

/// A step that needs no budget, in bytes. A multiple of the block that stored checksums cover (64 KiB).
const SMALL: usize = 64 << 10;

/// The budget.
#[derive(Debug, Clone)]
pub(super) struct Buffers {
    /// One permit per KiB.
    budget: Arc<Semaphore>,
}

/// How much a stream moves at a time, for as long as this lives.
#[derive(Debug)]
pub(super) struct Step {
    /// Bytes.
    pub(super) len: usize,
    _budget: Option<OwnedSemaphorePermit>,
}

/// Budget for something that lies in memory whole, for as long as this lives; small things need none.
#[derive(Debug)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// Bytes that keep the budget for as long as any part of them is referred to.
    pub(super) fn keep(self, bytes: Bytes) -> Bytes {
        struct Kept {
            bytes: Bytes,
            _held: Held,
        }
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        if self.0.is_some() { Bytes::from_owner(Kept { bytes, _held: self }) } else { bytes }
    }
}

impl Buffers {
    /// A budget of `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let kibibytes = usize::try_from(bytes >> 10).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { budget: Arc::new(Semaphore::new(kibibytes)) }
    }

    /// The step of a new stream: `wanted` bytes while the budget has two buffers of that size. A small one needs none.
    pub(super) fn step(&self, wanted: usize) -> Step {
        if wanted <= SMALL {
            return Step { len: SMALL, _budget: None };
        }
        let kibibytes = u32::try_from(wanted >> 9).unwrap_or(u32::MAX);
        match self.budget.clone().try_acquire_many_owned(kibibytes) {
            Ok(budget) => Step { len: wanted, _budget: Some(budget) },
            Err(_) => Step { len: SMALL, _budget: None },
        }
    }

    /// Budget for `len` bytes.
    ///
    /// # Errors
    /// 503 when the budget does not have them now.
    pub(super) fn hold(&self, len: u64) -> Result<Held, HttpError> {
        if len <= SMALL as u64 {
            return Ok(Held(None));
        }
        let kibibytes = u32::try_from(len >> 10).unwrap_or(u32::MAX);
        match self.budget.clone().try_acquire_many_owned(kibibytes) {
            Ok(budget) => Ok(Held(Some(budget))),
            Err(_) => Err(HttpError::overloaded()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_makes_steps_small_and_comes_back() {
        let buffers = Buffers::new(4 << 20);
        let first = buffers.step(1 << 20);
        let second = buffers.step(1 << 20);
        assert_eq!([first.len, second.len, buffers.step(1 << 20).len], [1 << 20, 1 << 20, SMALL]);
        drop(first);
        let small: Vec<Step> = (0..100).map(|_| buffers.step(1_000)).collect();
        assert_eq!(buffers.step(1 << 20).len, 1 << 20, "small ones take none of it");
        drop(small);
    }

    #[test]
    fn what_lies_in_memory_whole_is_counted_until_its_last_part_is_gone() {
        let buffers = Buffers::new(1 << 20);
        let held = buffers.hold(1 << 20).unwrap();
        assert_eq!(buffers.hold(1 << 20).unwrap_err().status().as_u16(), 503);
        assert!(buffers.hold(1 << 10).is_ok());
        let bytes = held.keep(Bytes::from(vec![7; 1 << 20]));
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(buffers.hold(1 << 20).is_err());
        assert_eq!(part, [7; 10][..]);
        drop(part);
        assert!(buffers.hold(1 << 20).is_ok());
    }
}
