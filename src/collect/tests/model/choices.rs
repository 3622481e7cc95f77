//! Where the model's choices come from: a seed, or bytes that a fuzzer gives.

use std::ops::{Bound, RangeBounds};

/// A source of choices.
#[derive(Clone)]
pub(super) enum Choices {
    Random(fastrand::Rng),
    /// Each choice takes as many bytes as its range needs. When they are over, it is the first of its range.
    Bytes {
        bytes: Vec<u8>,
        at: usize,
    },
}

impl Choices {
    pub(super) fn random(seed: u64) -> Self {
        Self::Random(fastrand::Rng::with_seed(seed))
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes { bytes: bytes.to_vec(), at: 0 }
    }

    /// Whether bytes are over; choices of a seed never are.
    pub(super) fn are_over(&self) -> bool {
        matches!(self, Self::Bytes { bytes, at } if *at >= bytes.len())
    }

    pub(super) fn bool(&mut self) -> bool {
        self.u8(..2) == 1
    }

    pub(super) fn u8(&mut self, range: impl RangeBounds<u8>) -> u8 {
        self.number(map(&range, u64::from), u8::MAX.into()) as u8
    }

    pub(super) fn u16(&mut self, range: impl RangeBounds<u16>) -> u16 {
        self.number(map(&range, u64::from), u16::MAX.into()) as u16
    }

    pub(super) fn usize(&mut self, range: impl RangeBounds<usize>) -> usize {
        self.number(map(&range, |number| number as u64), u64::MAX) as usize
    }

    pub(super) fn u64(&mut self, range: impl RangeBounds<u64>) -> u64 {
        self.number(map(&range, |number| number), u64::MAX)
    }

    fn number(&mut self, (from, last): (u64, Option<u64>), max: u64) -> u64 {
        let last = last.unwrap_or(max);
        match self {
            Self::Random(random) => random.u64(from..=last),
            Self::Bytes { bytes, at } => {
                let span = last - from;
                let taken = 8 - span.leading_zeros() as usize / 8;
                let next = (*at..*at + taken).map(|at| u64::from(bytes.get(at).copied().unwrap_or(0)));
                let number = next.fold(0, |number, byte| number << 8 | byte);
                *at += taken;
                if span == u64::MAX { number } else { from + number % (span + 1) }
            }
        }
    }
}

/// The first and the last number of a range.
fn map<T: Copy>(range: &impl RangeBounds<T>, number: impl Fn(T) -> u64) -> (u64, Option<u64>) {
    let from = match range.start_bound() {
        Bound::Included(&from) => number(from),
        Bound::Excluded(&from) => number(from) + 1,
        Bound::Unbounded => 0,
    };
    let last = match range.end_bound() {
        Bound::Included(&last) => Some(number(last)),
        Bound::Excluded(&end) => Some(number(end) - 1),
        Bound::Unbounded => None,
    };
    (from, last)
}
