//! `multipart/byteranges`: several parts of one blob in one body (RFC 9110, section 14.6).
//!
//! Only what stands around the parts is made here; `stream` reads and checks them. The boundary is the blob's own hash: to
//! hold it, content would have to hold its own hash, so no part is ever taken for the end of one. It needs no chance, and
//! the same ranges have the same answer each time.

use std::ops::Range;

use axum::http::HeaderValue;
use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::header_value;
use crate::digest::Digest;

/// Bytes of the hash in a boundary, which has at most 70 characters (RFC 2046, section 5.1.1).
const BOUNDARY_HASH_LEN: usize = 32;

/// What stands around the parts of one blob.
#[derive(Debug)]
pub(super) struct Multipart {
    boundary: String,
    /// Length of the whole blob in bytes.
    len: u64,
}

impl Multipart {
    /// For parts of a blob of `len` bytes.
    pub(super) fn new(digest: &Digest, len: u64) -> Self {
        let hash = digest.hash();
        Self { boundary: HEXLOWER.encode(hash.get(..BOUNDARY_HASH_LEN).unwrap_or(hash)), len }
    }

    /// The answer's Content-Type.
    pub(super) fn content_type(&self) -> HeaderValue {
        header_value(format!("multipart/byteranges; boundary={}", self.boundary))
    }

    /// What stands before a part.
    pub(super) fn head(&self, part: &Range<u64>) -> Bytes {
        let content_range = content_range(part, self.len);
        let Self { boundary, .. } = self;
        format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {content_range}\r\n\r\n")
            .into()
    }

    /// What stands behind the last part.
    pub(super) fn tail(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }

    /// Bytes of a body with these parts.
    pub(super) fn body_len(&self, parts: &[Range<u64>]) -> u64 {
        let len = |part: &Range<u64>| self.head(part).len() as u64 + (part.end - part.start);
        parts.iter().map(len).sum::<u64>() + self.tail().len() as u64
    }
}

/// The place of a part in the whole, which has `len` bytes.
pub(super) fn content_range(part: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", part.start, part.end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn heads_and_lengths_are_those_of_the_body() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"0123456789");
            let multipart = Multipart::new(&digest, 10);
            let boundary = &digest.to_string()[7..71];
            assert_eq!(multipart.content_type(), format!("multipart/byteranges; boundary={boundary}"));
            let expected = format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
                 \r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-0/10\r\n\r\n0\
                 \r\n--{boundary}--\r\n"
            );
            let body =
                [&multipart.head(&(8..10))[..], b"89", &multipart.head(&(0..1)), b"0", &multipart.tail()].concat();
            assert_eq!(String::from_utf8(body).unwrap(), expected);
            assert_eq!(multipart.body_len(&[8..10, 0..1]), expected.len() as u64);
        }
    }
}
