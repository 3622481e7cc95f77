//! HTTP/1.1 by hand: tests must be able to send what no good client library would.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longest wait for anything, generous because machines that run tests are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a server said.
#[derive(Clone)]
pub(crate) struct Answer {
    /// What was asked, for messages of failed tests.
    pub(crate) request: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(500).collect();
        write!(f, "{} was answered {} {:?} {body}", self.request, self.status, self.headers)
    }
}

impl Answer {
    /// A header's value; its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status is as expected.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A header is as expected.
    #[track_caller]
    pub(crate) fn has(self, name: &str, value: &str) -> Self {
        assert_eq!(self.header(name), Some(value), "{name} of {self:?}");
        self
    }

    /// Refused with a status, the one error code, and a message for people that holds `named`.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str, named: &str) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let body = self.json();
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no errors: {self:?}"));
        assert_eq!(errors.len(), 1, "{self:?}");
        assert_eq!(errors[0]["code"], code, "{self:?}");
        let message = errors[0]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.contains(named), "\"{named}\" is not named: {self:?}");
        self
    }

    /// The path and query of `Location`.
    #[track_caller]
    pub(crate) fn location(&self) -> String {
        self.header("location").unwrap_or_else(|| panic!("no Location: {self:?}")).to_owned()
    }
}

/// A connection that sends what it is given.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    said: String,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), said: String::new() })
    }

    /// Sends bytes as they are. A server that has answered need not read the rest, so a failure shows when reading.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
        if self.said.is_empty() {
            self.said = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        }
        let _ = self.stream.get_mut().write_all(bytes);
        self
    }

    /// Sends the head of a request that ends the connection.
    pub(crate) fn say_head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> &mut Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.say(head + "\r\n")
    }

    /// Sends a chunk of the chunked transfer coding; the empty one ends the body.
    pub(crate) fn say_chunk(&mut self, bytes: &[u8]) -> &mut Self {
        self.say([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Says that no more comes.
    pub(crate) fn end(&mut self) -> &mut Self {
        // The server may have closed already.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
        self
    }

    /// The next answer to a request that was not HEAD. `100 Continue` is an answer as well.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap_or_else(|error| panic!("{} has no answer: {error}", self.said))
    }

    /// The next answer; `Err` when the connection ends before it.
    pub(crate) fn try_answer(&mut self, is_head: bool) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None if line.is_empty() => break,
                None => return Err(io::Error::other(format!("no header: {line:?}"))),
            }
        }
        let mut answer = Answer { request: self.said.clone(), status, headers, body: Vec::new() };
        let has_no_body = is_head || status < 200 || matches!(status, 204 | 304);
        if !has_no_body {
            match answer.header("content-length").map(str::parse) {
                Some(Ok(len)) => {
                    answer.body = vec![0; len];
                    self.stream.read_exact(&mut answer.body)?;
                }
                Some(Err(_)) => return Err(io::Error::other("Content-Length is no number")),
                None => drop(self.stream.read_to_end(&mut answer.body)?),
            }
        }
        Ok(answer)
    }

    /// Whether the server ends the connection without a further byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]))
            || matches!(self.stream.fill_buf(), Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Reads until the server ends the connection; how many bytes still came.
    pub(crate) fn rest(&mut self) -> usize {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection of {} is not ended: {error}", self.said),
        }
        rest.len()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}
