//! One log line per request, written when its answer has been sent or given up.
//!
//! It has the path but neither query nor headers, which may hold what is not for logs.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::Body,
    extract::Request,
    http::{Method, StatusCode},
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::pace::Received;

/// Target of these lines, by which whoever writes logs knows them.
pub const REQUESTS: &str = "orlop::requests";
/// Longest path in a log line, in characters.
const PATH_LEN_MAX: usize = 512;

/// What is known of a request; logged when dropped, so that one whose client went away is logged too.
#[derive(Debug)]
pub(super) struct Exchange {
    method: Method,
    path: Box<str>,
    begun: Instant,
    received: Received,
    status: Option<StatusCode>,
    sent: u64,
    complete: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        tracing::info!(
            target: REQUESTS,
            method = %self.method,
            path = %self.path,
            status = self.status.map_or(0, |status| status.as_u16()),
            duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            received_bytes = self.received.bytes(),
            sent_bytes = self.sent,
            "{}",
            if self.complete { "request" } else { "request cut short" },
        );
    }
}

impl Exchange {
    /// What is known as a request comes, whose body `received` counts.
    pub(super) fn begin(request: &Request, received: Received) -> Self {
        Self {
            method: request.method().clone(),
            // A copy: what it is a part of would stay in memory for as long as the answer takes.
            path: shortened(request.uri().path()).into(),
            begun: Instant::now(),
            received,
            status: None,
            sent: 0,
            complete: false,
        }
    }

    /// Goes along with the answer.
    pub(super) fn answered(mut self, response: Response) -> Response<LoggedBody> {
        self.status = Some(response.status());
        // The body of an answer to HEAD is thrown away unread.
        self.complete = self.method == Method::HEAD || response.body().is_end_stream();
        response.map(|body| LoggedBody { body, exchange: self })
    }
}

fn shortened(path: &str) -> &str {
    match path.len() > PATH_LEN_MAX {
        true => path.char_indices().nth(PATH_LEN_MAX).map_or(path, |(end, _)| &path[..end]),
        false => path,
    }
}

/// An answer's body that counts what is taken of it.
#[derive(Debug)]
pub struct LoggedBody {
    body: Body,
    exchange: Exchange,
}

impl http_body::Body for LoggedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        self.exchange.complete |= matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
