//! How fast background work may go. It waits for nobody: whoever works waits, and can be stopped meanwhile.

use std::time::{Duration, Instant};

use super::{Store, StoreError};
use crate::digest::{Digest, Hasher};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes per second; what was not spent in time is not saved up.
#[derive(Debug)]
pub struct Pace {
    /// `None` for no bound.
    bytes_per_second: Option<u64>,
    /// Until when what was spent is paid for.
    paid: Instant,
}

impl Pace {
    /// A pace that begins now.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.map(|rate| rate.max(1)), paid: Instant::now() }
    }

    /// Another rate from now on.
    pub fn set_rate(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = Some(bytes_per_second.max(1));
    }

    /// Spends so many bytes.
    pub fn spend(&mut self, bytes: u64) {
        if let Some(rate) = self.bytes_per_second {
            let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.paid = self.paid.max(Instant::now()) + Duration::from_micros(micros);
        }
    }

    /// How long to wait now until what was spent is paid for.
    pub fn left(&self) -> Duration {
        self.paid.saturating_duration_since(Instant::now())
    }
}

impl Store {
    /// Reads some content as a client would get it, checked by its checksums, and gives the digest of what was read; `None`
    /// when it is not there, or not any more. `piece` is told the bytes of each piece, may wait, and ends it by an error.
    ///
    /// # Errors
    /// As [`StoredContent::read`](super::StoredContent::read); damage is remembered. What `piece` returns.
    pub fn rehash<E: From<StoreError>>(
        &self,
        digest: &Digest,
        piece: &mut dyn FnMut(u64) -> Result<(), E>,
    ) -> Result<Option<Digest>, E> {
        let Some(content) = self.content(digest)? else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut offset = 0;
        while offset < content.len() {
            let bytes = match content.read(offset, PIECE_BYTES) {
                Ok(bytes) => bytes,
                // Dropped between two pieces.
                Err(_) if self.content(digest)?.is_none() => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            piece(bytes.len() as u64)?;
        }
        Ok(Some(hasher.finish()))
    }
}
