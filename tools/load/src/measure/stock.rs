//! Blobs and manifests that cost next to nothing to make: a thousand a second must not tire the machine that is measured.
//!
//! A blob is the same random block over and over, and in its last bytes what makes it unique. So all blobs of one length
//! share their bytes in memory and the state of the hash before those last bytes: the digest of 64 MiB is that of a few
//! words. The same bytes at hand check what comes back, byte by byte, faster than a digest would. What they do not have is
//! content that differs from the first byte on; a registry that stores parts of blobs once would look too good.

use std::{
    io::{self, BufRead, Read},
    sync::Arc,
};

use serde_json::json;

use crate::{
    content::{Hasher, Payload, digest_of, mix},
    registry::MANIFEST_TYPE,
};

/// No power of two, so that pieces of one blob at round offsets differ.
const BLOCK_BYTES: usize = (8 << 20) + 8191;
const TAIL_BYTES: usize = 32;
/// Blobs that a manifest names: a config and layers.
pub(crate) const NAMED_BLOBS: u64 = 5;

/// The random block that all blobs are made of.
pub(crate) fn block() -> Arc<[u8]> {
    let mut block = vec![0; BLOCK_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut block);
    block.into()
}

/// All blobs of one length.
#[derive(Clone)]
pub(crate) struct Stock {
    block: Arc<[u8]>,
    len: u64,
    /// Of all but the last bytes.
    hasher: Hasher,
}

/// A blob: reads like its bytes, and knows its digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    block: Arc<[u8]>,
    len: u64,
    tail: [u8; TAIL_BYTES],
    /// Its digest.
    pub(crate) digest: String,
}

impl Stock {
    /// Blobs of `len` bytes, at least 32.
    pub(crate) fn new(block: &Arc<[u8]>, len: u64) -> Self {
        let len = len.max(TAIL_BYTES as u64);
        let mut hasher = Hasher::default();
        let mut rest = len - TAIL_BYTES as u64;
        while rest > 0 {
            let count = rest.min(block.len() as u64);
            hasher.update(&block[..count as usize]);
            rest -= count;
        }
        Self { block: Arc::clone(block), len, hasher }
    }

    /// The blob `index` of a key. Others of key or index have another digest.
    pub(crate) fn blob(&self, key: u64, index: u64) -> Blob {
        let mut tail = [0; TAIL_BYTES];
        for (place, word) in tail.chunks_exact_mut(8).zip([key, index, mix(key ^ index), mix(index)]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let mut hasher = self.hasher.clone();
        hasher.update(&tail);
        Blob { block: Arc::clone(&self.block), len: self.len, tail, digest: hasher.finish() }
    }
}

impl Blob {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What lies in memory in one piece from `offset` on; empty at the end.
    fn piece(&self, offset: u64) -> &[u8] {
        let body = self.len - TAIL_BYTES as u64;
        if offset >= body {
            return self.tail.get((offset - body) as usize..).unwrap_or_default();
        }
        let begin = (offset % self.block.len() as u64) as usize;
        let count = (body - offset).min((self.block.len() - begin) as u64) as usize;
        &self.block[begin..begin + count]
    }

    /// Whether these are its bytes from `offset` on.
    pub(crate) fn has(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = self.piece(offset);
            let count = piece.len().min(bytes.len());
            if count == 0 || piece[..count] != bytes[..count] {
                return false;
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
        true
    }
}

/// Reads a blob out of the memory that all share.
struct Reader<'a> {
    blob: &'a Blob,
    offset: u64,
}

impl Payload for &Blob {
    fn remaining(&self) -> u64 {
        self.len
    }

    fn into_reader(self) -> impl BufRead {
        Reader { blob: self, offset: 0 }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.blob.piece(self.offset))
    }

    fn consume(&mut self, count: usize) {
        self.offset += count as u64;
    }
}

/// Manifests that name the same blobs and differ in an annotation.
pub(crate) struct Manifests {
    /// All up to the annotation's value.
    start: String,
}

impl Manifests {
    /// Naming the first blobs of a stock's key.
    pub(crate) fn new(stock: &Stock, key: u64) -> Self {
        let descriptor = |index, media_type: &str| {
            let blob = stock.blob(key, index);
            json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.len })
        };
        let layer = |index| descriptor(index, "application/vnd.oci.image.layer.v1.tar+gzip");
        let all = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(0, "application/vnd.oci.image.config.v1+json"),
            "layers": (1..NAMED_BLOBS).map(layer).collect::<Vec<_>>(),
        });
        let all = all.to_string();
        Self { start: format!("{},\"annotations\":{{\"n\":\"", all.trim_end_matches('}')) }
    }

    /// The manifest `index` of a key.
    pub(crate) fn bytes(&self, key: u64, index: u64) -> Vec<u8> {
        format!("{}{key}-{index}\"}}}}", self.start).into_bytes()
    }

    /// Its digest.
    pub(crate) fn digest(&self, key: u64, index: u64) -> String {
        digest_of(&self.bytes(key, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(blob: &Blob) -> Vec<u8> {
        let mut bytes = Vec::new();
        blob.into_reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn digests_are_those_of_the_bytes_and_every_blob_has_another() {
        let block = block();
        let mut digests = std::collections::BTreeSet::new();
        for len in [32, 33, 4096, BLOCK_BYTES as u64 + 31, BLOCK_BYTES as u64 + 33, 2 * BLOCK_BYTES as u64 + 5000] {
            let stock = Stock::new(&block, len);
            for (key, index) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let blob = stock.blob(key, index);
                let bytes = bytes(&blob);
                assert_eq!((bytes.len() as u64, blob.len(), (&blob).remaining()), (len, len, len));
                assert_eq!(blob.digest, digest_of(&bytes), "{len} {key} {index}");
                assert!(digests.insert(blob.digest.clone()));
            }
        }
    }

    #[test]
    fn one_wrong_byte_is_found_wherever_it_is() {
        let blob = Stock::new(&block(), BLOCK_BYTES as u64 + 5000).blob(3, 4);
        let mut bytes = bytes(&blob);
        assert!(blob.has(0, &bytes) && blob.has(7, &bytes[7..100_000]) && blob.has(blob.len(), &[]));
        assert!(!blob.has(1, &bytes) && !blob.has(blob.len(), &[0]));
        for at in [0, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, bytes.len() - 32, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert!(!blob.has(0, &bytes), "{at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn manifests_are_json_and_differ() {
        let stock = Stock::new(&block(), 4096);
        let manifests = Manifests::new(&stock, 0);
        let found: serde_json::Value = serde_json::from_slice(&manifests.bytes(1, 2)).unwrap();
        assert_eq!(found["annotations"]["n"], "1-2");
        assert_eq!(found["layers"][3]["digest"], stock.blob(0, 4).digest);
        assert_ne!(manifests.digest(1, 2), manifests.digest(1, 3));
    }
}
