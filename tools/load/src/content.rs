//! Content that is a function of numbers: whoever knows seed, index and length knows every byte.
//!
//! So an upload that a kill cut off can be continued at any offset by another process, and a log of acknowledgements needs
//! no copy of what was pushed. The bytes do not compress, and two different (seed, index) differ in their first word.

use std::io::{self, BufRead, BufReader, Read};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD_BYTES: u64 = 8;

/// Most bytes of made content that lie in memory.
const BUFFER_BYTES: u64 = 256 * 1024;

/// What a request can carry.
pub(crate) trait Payload {
    /// Bytes that are still to be read.
    fn remaining(&self) -> u64;
    /// Those bytes.
    fn into_reader(self) -> impl BufRead;
}

/// The bytes of one blob, read from where `offset` stands.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    key: u64,
    len: u64,
    offset: u64,
}

impl Content {
    /// The blob `index` of a seed, `len` bytes long.
    pub(crate) fn new(seed: u64, index: u64, len: u64) -> Self {
        Self { key: mix(mix(seed) ^ index), len, offset: 0 }
    }

    /// Bytes of the whole.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The same content from `offset` on; empty when that lies at or beyond the end.
    pub(crate) fn from(&self, offset: u64) -> Self {
        Self { offset: offset.min(self.len), ..*self }
    }

    /// The same content cut after `end`.
    pub(crate) fn until(&self, end: u64) -> Self {
        Self { len: end.min(self.len), ..*self }
    }

    /// The digest of what is still to be read.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = Hasher::default();
        let mut rest = self.clone();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match rest.fill(&mut buffer) {
                0 => return hasher.finish(),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() && self.offset < self.len {
            let word = mix(self.key.wrapping_add((self.offset / WORD_BYTES).wrapping_mul(GOLDEN))).to_le_bytes();
            let skip = (self.offset % WORD_BYTES) as usize;
            let wanted =
                (self.len - self.offset).min((buffer.len() - filled) as u64).min(WORD_BYTES - skip as u64) as usize;
            buffer[filled..filled + wanted].copy_from_slice(&word[skip..skip + wanted]);
            filled += wanted;
            self.offset += wanted as u64;
        }
        filled
    }
}

impl Payload for Content {
    fn remaining(&self) -> u64 {
        self.len - self.offset
    }

    fn into_reader(self) -> impl BufRead {
        BufReader::with_capacity(self.remaining().min(BUFFER_BYTES) as usize, self)
    }
}

impl Payload for &[u8] {
    fn remaining(&self) -> u64 {
        self.len() as u64
    }

    fn into_reader(self) -> impl BufRead {
        self
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.fill(buffer))
    }
}

/// The finaliser of splitmix64: a bijection, so different keys stay different.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A running SHA-256 that ends in the registry's spelling.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// Takes more bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest, `sha256:` and 64 hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        format!("sha256:{}", HEXLOWER.encode(&self.0.finalize()))
    }
}

/// The digest of bytes at hand.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(mut content: Content) -> Vec<u8> {
        let mut all = Vec::new();
        content.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn any_part_is_the_same_part_of_the_whole() {
        let content = Content::new(7, 3, 1001);
        let whole = bytes(content.clone());
        assert_eq!(whole.len(), 1001);
        for (from, until) in [(0, 1001), (1, 9), (8, 16), (13, 1000), (1000, 1001), (1001, 1001)] {
            assert_eq!(bytes(content.until(until).from(from)), whole[from as usize..until as usize], "{from}..{until}");
        }
        assert_eq!(content.digest(), digest_of(&whole));
    }

    #[test]
    fn other_seeds_and_indexes_begin_differently() {
        let firsts: std::collections::BTreeSet<_> =
            (0..50).flat_map(|seed| (0..50).map(move |index| bytes(Content::new(seed, index, 8)))).collect();
        assert_eq!(firsts.len(), 2500);
    }

    #[test]
    fn digest_is_spelled_as_registries_do() {
        assert_eq!(digest_of(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
