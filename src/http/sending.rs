//! Bodies that the kernel sends from files: the socket of a connection, and what it knows of the slices that it is given.
//!
//! hyper hands the socket slices of bytes. One that stands for a range of a file (a slice of its mapping) is found by its
//! address in a table of the connection, and sent by `sendfile`: its bytes are neither mapped in nor copied. An entry is
//! there for as long as the slice is, so no other bytes can have the address. A slice that is not found is written as it
//! lies there: slow, and never wrong.
//!
//! One call sends a bounded amount, and after some of them the connection's task lets others have its thread.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::store::{FilePiece, Piece};

/// Most bytes that are sent by one call.
const CALL_BYTES: usize = 1 << 20;
/// Bytes after which a client that takes all at once waits for other tasks.
const TURN_BYTES: usize = 2 << 20;

/// The slices of one connection that stand for ranges of files.
#[derive(Debug, Clone, Default)]
pub(super) struct Sending(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: Mutex<Vec<Entry>>,
    /// How many there are, for the many writes that have nothing to do with files.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    /// Where the slice begins in memory. Two of the same range have the same.
    address: usize,
    piece: FilePiece,
}

/// What the bytes of a slice belong to; when they are dropped, so is the slice's entry.
struct Owner {
    piece: FilePiece,
    address: usize,
    table: Arc<Table>,
}

/// A slice among others, as a part of a file's range.
struct Found {
    index: usize,
    piece: FilePiece,
    skip: usize,
    len: usize,
}

impl Sending {
    /// Bytes that this connection sends, one way or the other.
    pub(super) fn bytes(&self, piece: Piece) -> Bytes {
        let piece = match piece {
            Piece::Bytes(bytes) => return bytes,
            Piece::File(piece) => piece,
        };
        let address = piece.as_ref().as_ptr().addr();
        let mut entries = self.0.entries();
        entries.push(Entry { address, piece: piece.clone() });
        self.0.count.store(entries.len(), Ordering::Release);
        drop(entries);
        Bytes::from_owner(Owner { piece, address, table: Arc::clone(&self.0) })
    }

    /// The first of some slices that stands for a range of a file.
    fn find(&self, slices: &[IoSlice<'_>]) -> Option<Found> {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let entries = self.0.entries();
        slices.iter().enumerate().find_map(|(index, slice)| {
            let (address, len) = (slice.as_ptr().addr(), slice.len());
            let skip_in = |entry: &Entry| {
                let skip = address.checked_sub(entry.address)?;
                (len > 0 && skip.checked_add(len)? <= entry.piece.range().len()).then_some(skip)
            };
            let mut found = entries.iter().filter_map(|entry| Some((entry, skip_in(entry)?)));
            found.next().map(|(entry, skip)| Found { index, piece: entry.piece.clone(), skip, len })
        })
    }
}

impl Table {
    /// A panic of another holder leaves entries that are true.
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.piece.as_ref()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut entries = self.table.entries();
        let is_own =
            |entry: &Entry| entry.address == self.address && entry.piece.range().len() == self.piece.range().len();
        let own = entries.iter().position(is_own).map(|own| entries.swap_remove(own));
        self.table.count.store(entries.len(), Ordering::Release);
        drop(entries);
        // Not under the lock: it may be the last that holds the file.
        drop(own);
    }
}

/// The socket of a connection.
#[derive(Debug)]
pub(super) struct SendingSocket {
    stream: TcpStream,
    sending: Sending,
    /// Bytes that were sent from files since the task last waited for anything.
    at_once: usize,
}

impl SendingSocket {
    /// Wraps a socket; slices of `sending` are sent from their files.
    pub(super) fn new(stream: TcpStream, sending: Sending) -> Self {
        Self { stream, sending, at_once: 0 }
    }

    /// The socket.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>], found: &Found) -> Poll<io::Result<usize>> {
        if self.at_once >= TURN_BYTES {
            self.at_once = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let (before, len) = (&slices[..found.index], found.len.min(CALL_BYTES));
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                self.at_once = 0;
                return Poll::Pending;
            }
            let send = || found.piece.range().send(&self.stream, before, found.skip, len);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Ok(count) => {
                    self.at_once += count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for SendingSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SendingSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.sending.find(slices) {
            Some(found) => self.poll_send(cx, slices, &found),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    /// hyper would copy the slices into one otherwise.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
