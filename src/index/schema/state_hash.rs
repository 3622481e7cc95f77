//! A state hash: the sum of the SHA-256 hashes of facts, modulo 2²⁵⁶.
//!
//! The order of facts does not matter, and one that was added and taken away leaves no trace. So a hash that is kept by
//! changes is the one that is worked out from all facts. It tells that two states differ; it proves nothing against
//! somebody who makes up facts. Which facts there are is told in `state::hash`.

use std::{
    fmt,
    ops::{AddAssign, SubAssign},
};

use data_encoding::HEXLOWER;

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::{Algorithm, Digest},
};

/// The sum; its words are little-endian, the lowest first. That of no facts is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateHash([u64; 4]);

impl StateHash {
    /// That of one fact: SHA-256 of its bytes.
    pub fn of(fact: &[u8]) -> Self {
        let mut words = [0; 4];
        for (at, byte) in Digest::of(Algorithm::Sha256, fact).hash().iter().enumerate() {
            words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        Self(words)
    }

    pub(super) fn encode(self, e: &mut Encoder) {
        for word in self.0 {
            e.u64(word);
        }
    }

    pub(super) fn decode(d: &mut Decoder<'_>, field: &'static str) -> Result<Self, DecodeError> {
        Ok(Self([d.u64(field)?, d.u64(field)?, d.u64(field)?, d.u64(field)?]))
    }

    /// Adds or takes away word by word, and what each carries to the next.
    fn step(&mut self, by: Self, step: fn(u64, u64) -> (u64, bool)) {
        let mut carried = false;
        for (word, by) in self.0.iter_mut().zip(by.0) {
            let (partial, first) = step(*word, by);
            let (whole, second) = step(partial, carried.into());
            (*word, carried) = (whole, first || second);
        }
    }
}

impl AddAssign for StateHash {
    fn add_assign(&mut self, by: Self) {
        self.step(by, u64::overflowing_add);
    }
}

impl SubAssign for StateHash {
    fn sub_assign(&mut self, by: Self) {
        self.step(by, u64::overflowing_sub);
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut e = Encoder::new();
        self.encode(&mut e);
        f.write_str(&HEXLOWER.encode(&e.finish()))
    }
}

impl serde::Serialize for StateHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_taken_away_in_any_order_leaves_no_trace() {
        let facts: Vec<StateHash> = (0..100_u32).map(|number| StateHash::of(&number.to_le_bytes())).collect();
        let (mut forwards, mut backwards) = (StateHash::default(), StateHash::default());
        facts.iter().for_each(|fact| forwards += *fact);
        facts.iter().rev().for_each(|fact| backwards += *fact);
        assert_eq!(forwards, backwards);
        facts.iter().for_each(|fact| forwards -= *fact);
        assert_eq!(forwards, StateHash::default());
    }

    #[test]
    fn what_is_carried_goes_through_all_words_and_out_of_the_last() {
        let all = StateHash([u64::MAX; 4]);
        let one = StateHash([1, 0, 0, 0]);
        let mut sum = all;
        sum += one;
        assert_eq!(sum, StateHash::default());
        sum -= one;
        assert_eq!(sum, all);
        sum += all;
        assert_eq!(sum, StateHash([u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]));
        let mut sum = StateHash([u64::MAX, u64::MAX, 7, 0]);
        sum += one;
        assert_eq!(sum, StateHash([0, 0, 8, 0]));
    }

    #[test]
    fn that_of_one_fact_is_shown_as_its_sha_256() {
        let digest = Digest::of(Algorithm::Sha256, b"a fact");
        assert_eq!(format!("sha256:{}", StateHash::of(b"a fact")), digest.to_string());
    }
}
