//! How fast background work may go. It waits for nobody: whoever works waits, and can be stopped meanwhile.

use std::time::{Duration, Instant};

use super::{Store, StoreError, read};
use crate::{
    digest::{Digest, Hasher},
    segment::Look,
};

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

/// Why content was not read to its end.
enum Ended<E> {
    Store(StoreError),
    Piece(E),
}

impl<E> From<StoreError> for Ended<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Store {
    /// Reads some content and says what is wrong with it, if anything is; content that is not there is not damaged. What
    /// looks damaged is read twice. Damage is remembered, so that the next upload replaces it; content that is read in
    /// full and sound is not held for damaged any more. `piece` as for [`Store::rehash`].
    ///
    /// # Errors
    /// When it could not be read for a reason that can pass: then it is neither damaged nor sound. What `piece` returns.
    pub fn examine<E: From<StoreError>>(
        &self,
        digest: &Digest,
        piece: &mut dyn FnMut(u64) -> Result<(), E>,
    ) -> Result<Option<String>, E> {
        let mut problem = None;
        for _ in 0..2 {
            let was_damaged = self.is_damaged(digest);
            problem = Some(match self.rehash(digest, &mut |bytes| piece(bytes).map_err(Ended::Piece)) {
                Ok(Some(found)) if found == *digest => {
                    if was_damaged {
                        tracing::info!(blob.digest = %digest, "content that was held for damaged was read in full, and is sound");
                        self.shared.damaged().remove(digest);
                    }
                    return Ok(None);
                }
                Ok(None) => return Ok(None),
                Ok(Some(found)) => StoreError::Corrupt(format!(
                    "the content of {digest} has digest {found}, though its checksums hold"
                )),
                Err(Ended::Store(error)) => error,
                Err(Ended::Piece(error)) => return Err(error),
            });
        }
        match problem {
            Some(StoreError::Corrupt(text) | StoreError::Unreadable(text)) => {
                self.note_damage(digest);
                Ok(Some(text))
            }
            Some(error) => Err(error.into()),
            None => Ok(None),
        }
    }

    /// Reads some content anew, whatever was read of it before, checked by its checksums, and gives the digest of what was read; `None`
    /// when it is not there, or not any more. `piece` is told the bytes of each piece, may wait, and ends it by an error.
    ///
    /// # Errors
    /// As [`StoredContent::read`](super::StoredContent::read); damage is remembered. What `piece` returns.
    pub fn rehash<E: From<StoreError>>(
        &self,
        digest: &Digest,
        piece: &mut dyn FnMut(u64) -> Result<(), E>,
    ) -> Result<Option<Digest>, E> {
        let Some(content) = read::content(&self.shared, digest, Look::Anew)? else { return Ok(None) };
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
