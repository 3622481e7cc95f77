//! Connections: our own accept loop, because `axum::serve` has no timeouts and no bounds.
//!
//! It knows nothing of routes. Each connection is a task of its own with these bounds: a place among the connections, a time for a
//! request's head (which is also how long it may idle), sizes of the head, and the pace of bodies both ways.
//! hyper itself accepts at most 100 header fields.
//!
//! When all places are taken, a connection waits a moment for one and is then told 503, so that a client learns what is
//! going on; waiting connections are bounded too, and beyond them the kernel's backlog holds the rest.

use std::{convert::Infallible, future::poll_fn, io, sync::Arc, time::Duration};

use axum::{BoxError, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http_body::Body as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use workers::Seated;
pub use workers::Workers;

use super::{
    pace::{PaceLimits, PacedBody, PacedSocket, Received},
    sending::{Sending, SendingSocket},
};

/// Largest read from a socket and, within one frame more, write buffer in bytes.
const BUFFER_LEN: usize = 64 << 10;
/// How long a connection that the server ends is still read: unread bytes would make the kernel reset it, and the client
/// might lose the answer that says why.
const LINGER: Duration = Duration::from_secs(2);
/// Pause after `accept` failed because of the process or the machine (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Bounds of connections.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections that are served at once. As many again may wait for a place.
    pub connections_max: usize,
    /// Longest wait for a place.
    pub connection_wait: Duration,
    /// Longest time for the head of a request, and longest idling before it.
    pub header_timeout: Duration,
    /// Largest head of a request in bytes.
    pub header_bytes_max: usize,
    /// The slowest that a client may send or read a body.
    pub pace: PaceLimits,
    /// How long requests under way may go on when the server shuts down.
    pub shutdown_grace: Duration,
}

/// What a connection knows of a request beside the request. By default, nothing: of one that came by no connection.
#[derive(Debug, Default)]
pub struct Asked {
    /// How much of its body has come.
    pub(super) received: Received,
    /// Where slices of the answer can stand for ranges of files.
    pub(super) sending: Option<Sending>,
}

/// What answers requests. Each connection has a clone. The body of an answer to HEAD is dropped by who asks.
pub trait Service: Clone + Send + Unpin + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// Answers a request.
    fn answer(self, request: Request, asked: Asked) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because they were not done within the grace.
    pub cut: usize,
}

/// Serves connections on `workers` until `shutdown` completes; then stops accepting, lets requests under way finish within the
/// grace, and cuts what is left.
pub async fn serve(
    listener: TcpListener,
    workers: &Workers,
    service: impl Service,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let grace = limits.shutdown_grace;
    let (close, closing) = watch::channel(false);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    {
        let connection = Connection { service, limits: Arc::new(limits), places, closing };
        tokio::select! {
            () = shutdown => {}
            () = accept(&listener, workers, &connection, &mut connections) => {}
        }
    }
    drop(listener);
    close.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    let in_time = timeout(grace, drained).await.is_ok();
    let cut = if in_time { 0 } else { connections.len() };
    connections.shutdown().await;
    Drained { cut }
}

/// Accepts for ever.
async fn accept(
    listener: &TcpListener,
    workers: &Workers,
    connection: &Connection<impl Service>,
    connections: &mut JoinSet<()>,
) {
    // One more than waits: who does not fit into the waiting room stays in the kernel's backlog.
    let room = Arc::new(Semaphore::new(connection.limits.connections_max.saturating_mul(2)));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(seat) = room.clone().acquire_owned().await else { return };
        // Without the reactor of this thread: it is another one's from here on.
        match listener.accept().await.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                tracing::trace!(%peer, "connection");
                let (runtime, seated) = workers.seat();
                connections.spawn_on(connection.clone().run(stream, (seat, seated)), runtime);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(reason = %error, "connections cannot be accepted; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused | E::Interrupted)
}

/// What a connection needs.
#[derive(Debug, Clone)]
struct Connection<S> {
    service: S,
    limits: Arc<ServerLimits>,
    places: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl<S: Service> Connection<S> {
    /// Serves one connection; its seats are given back when nothing is left of it.
    async fn run(mut self, stream: std::net::TcpStream, _seats: (OwnedSemaphorePermit, Seated)) {
        let mut stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(reason = %error, "a connection cannot be waited for"),
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(reason = %error, "TCP_NODELAY was refused");
        }
        let place = tokio::select! {
            place = timeout(self.limits.connection_wait, self.places.clone().acquire_owned()) => place,
            () = closed(&mut self.closing) => return,
        };
        let Ok(Ok(place)) = place else {
            refuse(&mut stream).await;
            return linger(stream).await;
        };
        let ended = self.converse(stream).await;
        drop(place);
        match ended {
            Ok(Some(stream)) => linger(stream).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(reason = %error, "connection broke"),
        }
    }

    /// Answers requests until either side has enough; the socket, if it is worth lingering on.
    async fn converse(&mut self, stream: TcpStream) -> hyper::Result<Option<TcpStream>> {
        let (service, pace) = (self.service.clone(), self.limits.pace);
        let sending = Sending::default();
        let socket = SendingSocket::new(stream, sending.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut asked = Asked { received: Received::default(), sending: Some(sending.clone()) };
            let request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::new(PacedBody::new(body, pace, &mut asked.received)),
            });
            let answer = service.clone().answer(request, asked);
            Box::pin(async { Ok::<_, Infallible>(answer.await) })
        });
        let io = TokioIo::new(PacedSocket::new(socket, pace));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_header_size(self.limits.header_bytes_max)
            .max_buf_size(self.limits.header_bytes_max.max(BUFFER_LEN))
            .serve_connection(io, service);
        let mut is_closing = false;
        loop {
            tokio::select! {
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                    ended?;
                    let stream = connection.into_parts().io.into_inner().into_inner().into_inner();
                    return Ok((!is_closing).then_some(stream));
                }
                () = closed(&mut self.closing), if !is_closing => {
                    is_closing = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }
}

/// Completes when the server closes.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error says that the server is gone, which is as good.
    let _ = closing.wait_for(|&closing| closing).await;
}

/// Says 503 without having read a request: reading one would take the place that there is not.
async fn refuse(stream: &mut TcpStream) {
    let body = r#"{"errors":[{"code":"UNKNOWN","message":"too many connections; try again soon"}]}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tracing::warn!("a connection was refused: all places are taken");
    if let Ok(Err(error)) = timeout(LINGER, stream.write_all(answer.as_bytes())).await {
        tracing::debug!(reason = %error, "a refused connection broke");
    }
}

/// Says that nothing more comes, and reads what still does for a moment.
async fn linger(mut stream: TcpStream) {
    let mut scrap = [0; 8 << 10];
    let reading = async {
        stream.shutdown().await?;
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // The answer is sent; whether the client ended as well, or the time did, changes nothing.
    let _ = timeout(LINGER, reading).await;
}

#[cfg(test)]
mod tests;
mod workers;
