//! The admin API of a running server, over HTTP/1.1.
//!
//! One connection for each request: they are few, and each may be the last for an hour. There is no time limit on an answer,
//! as collecting and verifying take what they take; a server that is gone shows by its connection.

use std::{error::Error as _, time::Duration};

use axum::{
    body::Body,
    http::{Request, Uri, header},
};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Runtime};

use super::{ANSWER_BYTES_MAX, Transport};
use crate::{
    Failure,
    admin::call::{Answer, Call},
};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);

pub(super) struct Remote {
    runtime: Runtime,
    /// As it was given, for messages.
    url: String,
    /// Host and port as the request names them.
    authority: String,
    host: String,
    port: u16,
}

impl Remote {
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let invalid = |problem: &str| -> Failure { format!("--server {url}: {problem}").into() };
        let uri: Uri = url.parse().map_err(|_| invalid("it is no URL; http://HOST:PORT is expected"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(invalid("https is not built yet; ask the server itself by http")),
            _ => return Err(invalid("http://HOST:PORT is expected")),
        }
        let authority = uri.authority().ok_or_else(|| invalid("http://HOST:PORT is expected"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("there are no logins yet; leave out what stands before the @"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(invalid("only host and port are expected, and no path"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self {
            runtime,
            url: url.to_owned(),
            authority: authority.as_str().to_owned(),
            port: authority.port_u16().unwrap_or(80),
            host,
        })
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, Failure> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match tokio::time::timeout(CONNECT_MAX, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error.to_string())),
            Err(_) => return Err(self.unreachable(&format!("no connection within {} s", CONNECT_MAX.as_secs()))),
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(call.method())
            .uri(call.target())
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json");
        let body = call.body();
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(body.unwrap_or_default()))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body =
            body.map_err(|error| -> Failure { format!("the answer of {} is cut off: {error}", self.url).into() })?;
        connection.abort();
        Ok(Answer { status, body: body.to_bytes().to_vec() })
    }

    fn unreachable(&self, reason: &str) -> Failure {
        format!(
            "no server answers at {} ({reason}); start one with `orlop serve`, name another with --server URL, or open the \
             store of a stopped one with --data DIR",
            self.url
        )
        .into()
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!(
            "{} ended the connection ({error}{source}); what was asked for may have been done or not: see its log",
            self.url
        )
        .into()
    }
}

impl Transport for Remote {
    fn send(&self, call: &Call) -> Result<Answer, Failure> {
        self.runtime.block_on(self.exchange(call))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (url, authority, host, port) in [
            ("http://127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1", 5000),
            ("http://registry/", "registry", "registry", 80),
            ("http://[::1]:81", "[::1]:81", "::1", 81),
        ] {
            let remote = Remote::new(url).unwrap();
            assert_eq!((remote.authority.as_str(), remote.host.as_str(), remote.port), (authority, host, port));
        }
        for (url, problem) in [
            ("https://registry:5000", "https is not built yet"),
            ("127.0.0.1:5000", "http://HOST:PORT"),
            ("registry", "http://HOST:PORT"),
            ("ftp://registry", "http://HOST:PORT"),
            ("http://", "no URL"),
            ("http://me:secret@registry", "no logins"),
            ("http://registry/path", "no path"),
            ("http://registry/?a=b", "no path"),
            ("a b", "no URL"),
        ] {
            let error = Remote::new(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(problem) && error.contains(url), "{url}: {error}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_both_remedies() {
        // Port 1 is nobody's.
        let error = Remote::new("http://127.0.0.1:1").unwrap().send(&Call::get("usage")).unwrap_err().to_string();
        for named in ["http://127.0.0.1:1", "refused", "--server", "--data"] {
            assert!(error.contains(named), "{error}");
        }
    }
}
