//! The slowest that a client may send or read.
//!
//! One rule for silence and for dribbling: in every window of time that was spent *waiting for the client*, at least some
//! bytes must move. Time that the server takes for itself doesn't count. Bodies are wrapped on the way in; on the way
//! out the socket is, as only there one sees whether the client takes what was sent.
//!
//! The kernel accepts some bytes on behalf of a client that reads slowly, and reports room only when a part of its
//! buffer (up to a few MiB) is free again: a window must be long enough for that at the slowest rate that is welcome.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// The rule: at least `bytes_min` in every `window` of waiting.
#[derive(Debug, Clone, Copy)]
pub struct PaceLimits {
    /// Length of a window.
    pub window: Duration,
    /// Fewest bytes that must move in it.
    pub bytes_min: u64,
}

/// The client was slower than the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client moved {bytes} bytes in {} s of waiting; at least {bytes_min} are expected", window.as_secs_f32())]
pub(super) struct TooSlow {
    bytes: u64,
    bytes_min: u64,
    window: Duration,
}

/// The clock of one direction of one client.
#[derive(Debug)]
struct Pace {
    limits: PaceLimits,
    /// Time waited and bytes moved in this window.
    waited: Duration,
    bytes: u64,
    waiting_since: Option<Instant>,
    /// Ends with the window; made when there is something to wait for, which most requests never have.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(limits: PaceLimits) -> Self {
        Self { limits, waited: Duration::ZERO, bytes: 0, waiting_since: None, timer: None }
    }

    /// The client has to move: ready when it did not do so in time.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let now = Instant::now();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(now)));
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            timer.as_mut().reset(now + self.limits.window.saturating_sub(self.waited));
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if self.bytes < self.limits.bytes_min {
                let PaceLimits { window, bytes_min } = self.limits;
                return Poll::Ready(TooSlow { bytes: self.bytes, bytes_min, window });
            }
            let now = Instant::now();
            (self.bytes, self.waited, self.waiting_since) = (0, Duration::ZERO, Some(now));
            timer.as_mut().reset(now + self.limits.window);
        }
    }

    /// The client has moved.
    fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

/// Bytes of a request's body that have come; by default, of a request that has none.
#[derive(Debug, Default)]
pub(super) struct Received(Option<Arc<AtomicU64>>);

impl Received {
    /// Bytes until now.
    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    /// For the body that is counted.
    fn counter(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.0.get_or_insert_default())
    }
}

/// A request's body that fails with [`TooSlow`].
#[derive(Debug)]
pub(super) struct PacedBody<B> {
    body: B,
    pace: Pace,
    received: Arc<AtomicU64>,
}

impl<B> PacedBody<B> {
    /// Wraps a body, of which `received` tells from now on what has come.
    pub(super) fn new(body: B, limits: PaceLimits, received: &mut Received) -> Self {
        Self { body, pace: Pace::new(limits), received: received.counter() }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for PacedBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                self.pace.moved(bytes);
                self.received.fetch_add(bytes as u64, Ordering::Relaxed);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => self.pace.poll_wait(cx).map(|slow| Some(Err(slow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose writes fail with [`TooSlow`] in an error of kind `TimedOut`.
#[derive(Debug)]
pub(super) struct PacedSocket<S> {
    socket: S,
    pace: Pace,
}

impl<S> PacedSocket<S> {
    /// Wraps a socket.
    pub(super) fn new(socket: S, limits: PaceLimits) -> Self {
        Self { socket, pace: Pace::new(limits) }
    }

    /// The socket.
    pub(super) fn into_inner(self) -> S {
        self.socket
    }

    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => {
                self.pace.moved(result.as_ref().map_or(0, bytes));
                Poll::Ready(result)
            }
            Poll::Pending => self.pace.poll_wait(cx).map(|slow| Err(io::Error::new(io::ErrorKind::TimedOut, slow))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.paced(cx, polled, |&count| count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.paced(cx, polled, |&count| count)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        self.paced(cx, polled, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.paced(cx, polled, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, channel::Channel};
    use tokio::time::sleep;

    use super::*;

    const LIMITS: PaceLimits = PaceLimits { window: Duration::from_secs(10), bytes_min: 100 };

    /// Sends `count` frames of `bytes`, each after `gap`, and reads them; the bytes that came or the error.
    async fn paced(count: usize, bytes: usize, gap: Duration) -> Result<usize, String> {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        let sending = tokio::spawn(async move {
            for _ in 0..count {
                sleep(gap).await;
                if sender.send_data(Bytes::from(vec![0; bytes])).await.is_err() {
                    break;
                }
            }
        });
        let mut received = Received::default();
        let result = PacedBody::new(body, LIMITS, &mut received).collect().await;
        sending.abort();
        let len = result.map_err(|error| error.to_string())?.to_bytes().len();
        assert_eq!(received.bytes(), len as u64);
        Ok(len)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_at_the_slowest_pace_comes_through() {
        assert_eq!(paced(200, 12, Duration::from_secs(1)).await, Ok(2400));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_dribbling_are_cut() {
        for (count, bytes, gap) in [(1, 1000, Duration::from_secs(11)), (200, 9, Duration::from_secs(1))] {
            assert!(paced(count, bytes, gap).await.unwrap_err().contains("at least 100"), "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_server_takes_does_not_count() {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        tokio::spawn(async move {
            for _ in 0..5 {
                sender.send_data(Bytes::from_static(b"x")).await.unwrap();
            }
        });
        let mut body = PacedBody::new(body, LIMITS, &mut Received::default());
        let mut frames = 0;
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            frames += 1;
            sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(frames, 5);
    }
}
