//! A blob, or parts of it, as the body of an answer: checked chunks, read off the reactor, one ahead.
//!
//! Where the connection's socket knows files (`sending`), a chunk can be a range of one. One that was checked before, and whose
//! bytes are in the kernel's memory, needs no reading, so it is made where the client takes it; the others are read and
//! checked off the reactor first, which brings their bytes into that memory.
//!
//! A chunk that fails its check is never sent: the body ends in an error, which breaks the connection before the announced
//! length is reached, so that no client takes what came for the whole. Memory is two chunks, however many parts there are.

use std::{
    collections::VecDeque,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::{bridge::Bridge, buffers::Step, error::HttpError, multipart::Multipart, sending::Sending};
use crate::{disk::Reach, registry::RegistryError, store::StoredContent};

/// Longest chunk that is made without reading, in bytes.
const AT_HAND_LEN: usize = 1 << 20;

/// A blob, for one connection.
#[derive(Debug, Clone)]
pub(super) struct Source {
    blob: StoredContent,
    /// Where the socket sends from files.
    sending: Option<Sending>,
}

impl Source {
    /// A blob for the connection that `sending` is of.
    pub(super) fn new(blob: StoredContent, sending: Option<Sending>) -> Self {
        Self { blob, sending }
    }

    pub(super) fn len(&self) -> u64 {
        self.blob.len()
    }

    /// The beginning of `range`, at hand or read.
    pub(super) fn first(&self, reach: Reach, range: &Range<u64>, step: usize) -> Result<Bytes, RegistryError> {
        match self.at_hand(range) {
            Some(bytes) => Ok(bytes),
            None if reach == Reach::Memory && !self.blob.is_in_memory() => Err(RegistryError::OutOfReach),
            None => self.read(range, step),
        }
    }

    /// The beginning of `range`, if it can be sent without reading it.
    fn at_hand(&self, range: &Range<u64>) -> Option<Bytes> {
        let sending = self.sending.as_ref()?;
        let piece = self.blob.at_hand(range.start, piece_len(range, AT_HAND_LEN))?;
        Some(sending.bytes(piece))
    }

    /// The next piece of `range`: up to `step` bytes, ending where a step of the blob ends, so that no stored block is
    /// read and checked twice.
    fn read(&self, range: &Range<u64>, step: usize) -> Result<Bytes, RegistryError> {
        let len = piece_len(range, step);
        match &self.sending {
            Some(sending) => Ok(sending.bytes(self.blob.piece(range.start, len)?)),
            None => Ok(self.blob.read(range.start, len)?),
        }
    }
}

fn piece_len(range: &Range<u64>, step: usize) -> usize {
    let step = step.max(1) as u64;
    let len = (step - range.start % step).min(range.end.saturating_sub(range.start));
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// The body.
#[derive(Debug)]
pub(super) struct BlobBody {
    blob: Source,
    bridge: Bridge,
    step: Step,
    /// What stands around several parts; `None` around one, and once the last part has its end.
    framing: Option<Multipart>,
    /// What has been read or written around it, and not been taken yet.
    ready: VecDeque<Bytes>,
    /// What has not been read yet of the part at hand, the read under way included.
    left: Range<u64>,
    /// The parts after it.
    later: vec::IntoIter<Range<u64>>,
    reading: Option<JoinHandle<Result<Bytes, HttpError>>>,
    unsent: u64,
}

impl BlobBody {
    /// A body of `parts`, none of them empty, with `framing` around them; `first`, the beginning of the first part, was
    /// read before.
    pub(super) fn new(
        blob: Source,
        bridge: Bridge,
        step: Step,
        first: Bytes,
        parts: Vec<Range<u64>>,
        framing: Option<Multipart>,
    ) -> Self {
        let unsent = body_len(&parts, framing.as_ref());
        let (ready, left, later) = (VecDeque::new(), 0..0, parts.into_iter());
        let mut body = Self { blob, bridge, step, framing, ready, left, later, reading: None, unsent };
        body.begin_part();
        body.take(first);
        body
    }

    /// Goes on to the next part, or to the end of the last.
    fn begin_part(&mut self) {
        match self.later.next() {
            Some(part) => {
                self.ready.extend(self.framing.as_ref().map(|framing| framing.head(&part)));
                self.left = part;
            }
            None => self.ready.extend(self.framing.take().map(|framing| framing.tail())),
        }
    }

    fn take(&mut self, bytes: Bytes) {
        self.left.start = self.left.start.saturating_add(bytes.len() as u64).min(self.left.end);
        self.ready.push_back(bytes);
        if self.left.is_empty() {
            self.begin_part();
        }
    }

    /// Takes what is at hand, or begins to read. A task of its own: a future here would be polled only when the client takes
    /// more, and hold its thread till then.
    fn read_ahead(&mut self) {
        if self.reading.is_none() && self.ready.is_empty() && !self.left.is_empty() {
            if let Some(bytes) = self.blob.at_hand(&self.left) {
                return self.take(bytes);
            }
            let (blob, bridge, left, step) = (self.blob.clone(), self.bridge.clone(), self.left.clone(), self.step.len);
            self.reading = Some(tokio::spawn(async move { bridge.go_on(move || blob.read(&left, step)).await }));
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, HttpError>>> {
        if self.ready.is_empty() {
            self.read_ahead();
        }
        if self.ready.is_empty() {
            let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            match read.unwrap_or_else(|panic| Err(HttpError::bug(format!("a read did not end: {panic}")))) {
                Ok(bytes) if bytes.is_empty() => {
                    let (digest, at) = (self.blob.blob.digest(), self.left.start);
                    return Poll::Ready(Some(Err(HttpError::bug(format!("blob {digest} gave no bytes at {at}")))));
                }
                Ok(bytes) => self.take(bytes),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(self.ready.pop_front().map(Ok))
    }

    /// Nothing more is read.
    fn give_up(&mut self) {
        self.left.end = self.left.start;
        self.later = Vec::new().into_iter();
        self.framing = None;
    }
}

/// Bytes of a body with these parts.
pub(super) fn body_len(parts: &[Range<u64>], framing: Option<&Multipart>) -> u64 {
    match framing {
        Some(framing) => framing.body_len(parts),
        None => parts.iter().map(|part| part.end - part.start).sum(),
    }
}

impl Drop for BlobBody {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = ready!(self.poll_piece(cx));
        Poll::Ready(piece.map(|piece| match piece {
            Ok(bytes) => {
                self.unsent = self.unsent.saturating_sub(bytes.len() as u64);
                self.read_ahead();
                Ok(Frame::data(bytes))
            }
            Err(error) => {
                tracing::error!(
                    blob.digest = %self.blob.blob.digest(),
                    offset = self.left.start,
                    "a blob could not be sent whole; its connection is broken off"
                );
                error.log();
                self.give_up();
                Err(std::io::Error::other("the blob could not be read"))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.unsent == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_where_steps_of_the_blob_end() {
        for (range, expected) in [(0..100, 10), (3..100, 7), (10..12, 2), (99..100, 1), (95..105, 5), (7..7, 0)] {
            assert_eq!(piece_len(&range, 10), expected, "{range:?}");
        }
        assert_eq!(piece_len(&(0..u64::MAX), 10), 10);
    }
}
