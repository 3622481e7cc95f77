//! HTTP/1.1 on one kept connection: small, blocking, and exact about what was sent when a connection breaks.
//!
//! It refuses to be clever: no redirects, no retries, no pool. A broken connection is an error that ends the request; the
//! next request dials again. It is to cost little beside the server that it measures: bodies go out of the memory where they
//! lie, and come in through one buffer.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;
/// Most bytes of an answer that are kept in memory; what follows is read and forgotten.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A request up to this size leaves in one write, as a real client's would.
const ONE_WRITE_BYTES: u64 = 64 * 1024;
/// Most bytes of one read from the socket.
const READ_BYTES: usize = 256 * 1024;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The connection could not be made, broke, or was silent for a minute.
    #[error("{doing}: {source}")]
    Broken {
        /// What was going on.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// What came is not HTTP/1.1 as this client understands it.
    #[error("the answer cannot be understood: {0}")]
    Malformed(&'static str),
}

fn broken(doing: &'static str) -> impl FnOnce(io::Error) -> HttpError {
    move |source| HttpError::Broken { doing, source }
}

/// A request without its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// GET, PUT …
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    /// Headers besides Host and Content-Length.
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

/// An answer; its body is here or went where the caller wanted it.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The head as it came.
    head: Vec<u8>,
    /// The body, if it was kept.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split(|&byte| byte == b'\n').skip(1);
        lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':')).find_map(|(key, value)| {
            let is_it = key.eq_ignore_ascii_case(name);
            is_it.then_some(value.trim())
        })
    }
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// To `host:port`; dialled by the first request.
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Dials, if there is no connection, so that the first request need not.
    pub(crate) fn connect(&mut self) -> Result<(), HttpError> {
        if self.stream.is_none() {
            self.stream = Some(dial(&self.address)?);
        }
        Ok(())
    }

    /// Sends a request with a body of `len` bytes and keeps the answer's body.
    pub(crate) fn send(
        &mut self,
        request: Request<'_>,
        body: &mut dyn BufRead,
        len: u64,
    ) -> Result<Response, HttpError> {
        let mut kept = Vec::new();
        let mut response = self.send_to(request, body, len, &mut |bytes| {
            let room = KEPT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        })?;
        response.body = kept;
        Ok(response)
    }

    /// Sends a request and hands the answer's body to `sink` piece by piece.
    pub(crate) fn send_to(
        &mut self,
        request: Request<'_>,
        body: &mut dyn BufRead,
        len: u64,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Response, HttpError> {
        // Taken out, so that after any error the connection is gone with its half-sent request.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => dial(&self.address)?,
        };
        let sent = write_request(stream.get_mut(), &self.address, request, body, len);
        // A server may refuse early and close: its answer says more than the broken pipe.
        let response = match (sent, read_head(&mut stream)) {
            (_, Ok(response)) => response,
            (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(error),
        };
        let bodiless = request.method == "HEAD" || matches!(response.status, 204 | 304);
        let reusable = bodiless || read_body(&mut stream, &response, sink)?;
        let closing = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if reusable && !closing {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

fn dial(address: &str) -> Result<BufReader<TcpStream>, HttpError> {
    let stream = TcpStream::connect(address).map_err(broken("connecting"))?;
    let set = || {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))
    };
    set().map_err(broken("connecting"))?;
    Ok(BufReader::with_capacity(READ_BYTES, stream))
}

fn write_request(
    stream: &mut TcpStream,
    host: &str,
    request: Request<'_>,
    body: &mut dyn BufRead,
    len: u64,
) -> Result<(), HttpError> {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", request.method, request.target);
    for (name, value) in request.headers {
        // A write into a text does not fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !matches!(request.method, "GET" | "HEAD" | "DELETE") {
        let _ = write!(head, "Content-Length: {len}\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if len <= ONE_WRITE_BYTES {
        copy(body, len, "making the body", &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        return stream.write_all(&bytes).map_err(broken("sending"));
    }
    stream.write_all(&bytes).map_err(broken("sending the head"))?;
    copy(body, len, "making the body", &mut |piece| stream.write_all(piece).map_err(broken("sending the body")))
}

fn read_head(stream: &mut impl BufRead) -> Result<Response, HttpError> {
    loop {
        let response = read_one_head(stream)?;
        if !(100..200).contains(&response.status) {
            return Ok(response);
        }
    }
}

fn read_one_head(stream: &mut impl BufRead) -> Result<Response, HttpError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let before = head.len();
        let mut limited = stream.take((HEAD_BYTES_MAX - head.len()) as u64);
        limited.read_until(b'\n', &mut head).map_err(broken("waiting for the answer"))?;
        if head.len() == before {
            return Err(broken("waiting for the answer")(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    match parsed.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(HttpError::Malformed("its head")),
    }
    let status = parsed.code.unwrap_or(0);
    Ok(Response { status, head, body: Vec::new() })
}

/// Reads the body to its end; returns whether the connection can be used again.
fn read_body(stream: &mut impl BufRead, response: &Response, sink: &mut dyn FnMut(&[u8])) -> Result<bool, HttpError> {
    if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        while let len @ 1.. = read_chunk_size(stream)? {
            receive(stream, len, sink)?;
            receive(stream, 2, &mut |_| {})?;
        }
        receive(stream, 2, &mut |_| {})?;
        return Ok(true);
    }
    let Some(len) = response.header("content-length") else {
        return Err(HttpError::Malformed("neither Content-Length nor chunked"));
    };
    let len = len.parse().map_err(|_| HttpError::Malformed("Content-Length"))?;
    receive(stream, len, sink)?;
    Ok(true)
}

fn read_chunk_size(stream: &mut impl BufRead) -> Result<u64, HttpError> {
    let mut line = String::new();
    stream.take(64).read_line(&mut line).map_err(broken("reading the body"))?;
    let size = line.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(size, 16).map_err(|_| HttpError::Malformed("chunk size"))
}

fn receive(stream: &mut impl BufRead, len: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), HttpError> {
    copy(stream, len, "reading the body", &mut |piece| {
        sink(piece);
        Ok(())
    })
}

/// Hands on `len` bytes in the pieces in which they lie in memory.
fn copy<Source: BufRead + ?Sized>(
    source: &mut Source,
    len: u64,
    doing: &'static str,
    each: &mut dyn FnMut(&[u8]) -> Result<(), HttpError>,
) -> Result<(), HttpError> {
    let mut rest = len;
    while rest > 0 {
        let buffer = source.fill_buf().map_err(broken(doing))?;
        if buffer.is_empty() {
            return Err(broken(doing)(io::ErrorKind::UnexpectedEof.into()));
        }
        let count = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        each(&buffer[..count])?;
        source.consume(count);
        rest -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, expected: Result<(u16, &str), ()>) {
        let mut stream = answer.as_bytes();
        let mut body = Vec::new();
        let found = read_head(&mut stream).and_then(|response| {
            read_body(&mut stream, &response, &mut |bytes| body.extend_from_slice(bytes))?;
            Ok(response.status)
        });
        let found = found.map(|status| (status, String::from_utf8(body).unwrap())).map_err(|_| ());
        assert_eq!(found, expected.map(|(status, body)| (status, body.to_owned())), "{answer:?}");
    }

    #[test]
    fn answers_are_read_to_their_end_or_refused() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", Ok((200, "abc")));
        check("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", Ok((201, "")));
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", Ok((200, "x")));
        check(
            "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
            Ok((404, "abcd")),
        );
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Err(()));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Err(()));
        check("HTTP/1.1 200 OK\r\n\r\n", Err(()));
        check("HTTP/1.1 200 OK\r\nContent-", Err(()));
        check("gibberish\r\n\r\n", Err(()));
    }
}
