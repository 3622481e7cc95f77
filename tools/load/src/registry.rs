//! The calls of a registry that the workloads make, each with the one status that counts as done.
//!
//! Anything else is an error that carries method, path, status and the server's own words: a load that tolerated odd
//! answers would hide what it is there to find.

use std::{
    io::{self, BufRead},
    ops::Range,
};

use crate::{
    content::{Hasher, Payload, digest_of},
    http::{Connection, HttpError, Request, Response},
};

/// The media type of the manifests that the workloads push.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// That of an index.
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const ACCEPT: [(&str, &str); 2] = [("Accept", MANIFEST_TYPE), ("Accept", "*/*")];
const BLOB_TYPE: (&str, &str) = ("Content-Type", "application/octet-stream");

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer: the server went away, or never was there.
    #[error("{call}: {source}")]
    NoAnswer {
        /// Method and path.
        call: String,
        /// What happened.
        source: HttpError,
    },
    /// An answer that the call does not expect.
    #[error("{call}: status {status}: {text}")]
    Refused {
        /// Method and path.
        call: String,
        /// What came.
        status: u16,
        /// The beginning of the body.
        text: String,
    },
    /// The status is right and the rest is not.
    #[error("{call}: {problem}")]
    Wrong {
        /// Method and path.
        call: String,
        /// What is wrong.
        problem: String,
    },
}

impl CallError {
    /// Whether the server was there to answer.
    pub(crate) fn is_answer(&self) -> bool {
        !matches!(self, Self::NoAnswer { .. })
    }

    /// Whether the server said that it cannot, or broke off what it could not go on with.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Refused { status: 500.., .. })
    }
}

/// One client of one registry.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Connection,
}

impl Client {
    /// To the registry at `host:port`; nothing is sent yet.
    pub(crate) fn new(address: &str) -> Self {
        Self { connection: Connection::new(address) }
    }

    /// Dials now, so that the first call need not.
    pub(crate) fn connect(&mut self) -> Result<(), CallError> {
        self.connection.connect().map_err(|source| CallError::NoAnswer { call: "a connection".to_owned(), source })
    }

    /// Opens an upload; returns its location.
    pub(crate) fn start_upload(&mut self, repository: &str) -> Result<String, CallError> {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let response = self.call(&[202], "POST", &target, &[], &mut io::empty(), 0)?;
        location(&target, &response)
    }

    /// Gives a repository a blob that another one has.
    pub(crate) fn mount(&mut self, repository: &str, digest: &str, from: &str) -> Result<(), CallError> {
        let target = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        self.call(&[201], "POST", &target, &[], &mut io::empty(), 0).map(drop)
    }

    /// Makes a deleted manifest present again, by orlop's own call, with a tag to it; `false` when its window is over, or was
    /// ended by a purge.
    pub(crate) fn restore(&mut self, repository: &str, tag: &str, digest: &str) -> Result<bool, CallError> {
        let wanted = serde_json::json!({ "repository": repository, "tag": tag, "digest": digest }).to_string();
        let headers = [("Content-Type", "application/json")];
        let len = wanted.len() as u64;
        let answer = self.call(&[200, 404, 410], "POST", "/api/v1/restore", &headers, &mut wanted.as_bytes(), len)?;
        Ok(answer.status == 200)
    }

    /// Sends bytes of a blob from where `content` stands, as a stream or, with a range, as a chunk; returns the next location.
    pub(crate) fn patch(
        &mut self,
        location_before: &str,
        content: impl Payload,
        range: Option<&str>,
    ) -> Result<String, CallError> {
        let mut headers = vec![BLOB_TYPE];
        headers.extend(range.map(|range| ("Content-Range", range)));
        let len = content.remaining();
        let response = self.call(&[202], "PATCH", location_before, &headers, &mut content.into_reader(), len)?;
        location(location_before, &response)
    }

    /// Ends an upload with what `content` still has to give.
    pub(crate) fn finish_upload(
        &mut self,
        location: &str,
        content: impl Payload,
        digest: &str,
    ) -> Result<(), CallError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={digest}");
        let len = content.remaining();
        self.call(&[201], "PUT", &target, &[BLOB_TYPE], &mut content.into_reader(), len).map(drop)
    }

    /// Bytes that an upload has, or `None` when the registry does not know it.
    pub(crate) fn upload_offset(&mut self, location: &str) -> Result<Option<u64>, CallError> {
        let response = self.call(&[204, 404], "GET", location, &[], &mut io::empty(), 0)?;
        if response.status == 404 {
            return Ok(None);
        }
        let wrong =
            || CallError::Wrong { call: format!("GET {location}"), problem: "no usable Range header".to_owned() };
        let range = response.header("range").ok_or_else(wrong)?;
        let end = range.trim_start_matches("bytes=").split_once('-').ok_or_else(wrong)?.1;
        match end.parse::<u64>() {
            // The registries' custom: 0-0 stands for nothing; nobody here sends a first chunk of one byte.
            Ok(0) => Ok(Some(0)),
            Ok(last) => last.checked_add(1).map(Some).ok_or_else(wrong),
            Err(_) => Err(wrong()),
        }
    }

    /// Reads a whole blob; it must have the digest that it was asked for by.
    pub(crate) fn read_blob(&mut self, repository: &str, digest: &str) -> Result<(), CallError> {
        let mut hasher = Hasher::default();
        self.blob(repository, digest, None, &mut |bytes| hasher.update(bytes))?;
        same_digest(&format!("/v2/{repository}/blobs/{digest}"), digest, &hasher.finish())
    }

    /// Reads a blob or a range of it piece by piece; how many bytes.
    pub(crate) fn blob(
        &mut self,
        repository: &str,
        digest: &str,
        range: Option<Range<u64>>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, CallError> {
        let target = format!("/v2/{repository}/blobs/{digest}");
        let expected = if range.is_some() { 206 } else { 200 };
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let headers: Vec<_> = range.iter().map(|range| ("Range", range.as_str())).collect();
        let request = Request { method: "GET", target: &target, headers: &headers };
        let (mut start, mut len) = (Vec::new(), 0);
        let response = self
            .connection
            .send_to(request, &mut io::empty(), 0, &mut |bytes| {
                if start.is_empty() {
                    start = bytes[..bytes.len().min(500)].to_vec();
                }
                len += bytes.len() as u64;
                sink(bytes);
            })
            .map_err(|source| CallError::NoAnswer { call: format!("GET {target}"), source })?;
        if response.status != expected {
            return Err(refused("GET", &target, response.status, &start));
        }
        Ok(len)
    }

    /// Whether a blob is there.
    pub(crate) fn has_blob(&mut self, repository: &str, digest: &str) -> Result<bool, CallError> {
        let target = format!("/v2/{repository}/blobs/{digest}");
        Ok(self.call(&[200, 404], "HEAD", &target, &[], &mut io::empty(), 0)?.status == 200)
    }

    /// Whether a manifest is there, by tag or digest.
    pub(crate) fn has_manifest(&mut self, repository: &str, reference: &str) -> Result<bool, CallError> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        Ok(self.call(&[200, 404], "HEAD", &target, &ACCEPT, &mut io::empty(), 0)?.status == 200)
    }

    /// Deletes a blob that no manifest names.
    pub(crate) fn delete_blob(&mut self, repository: &str, digest: &str) -> Result<(), CallError> {
        let target = format!("/v2/{repository}/blobs/{digest}");
        self.call(&[202], "DELETE", &target, &[], &mut io::empty(), 0).map(drop)
    }

    /// Deletes a manifest by its digest, or a tag.
    pub(crate) fn delete_manifest(&mut self, repository: &str, digest: &str) -> Result<(), CallError> {
        let target = format!("/v2/{repository}/manifests/{digest}");
        self.call(&[202], "DELETE", &target, &[], &mut io::empty(), 0).map(drop)
    }

    /// The first `count` tags after `last`, as JSON.
    pub(crate) fn tags(&mut self, repository: &str, count: u64, last: &str) -> Result<Vec<u8>, CallError> {
        let target = format!("/v2/{repository}/tags/list?n={count}&last={last}");
        Ok(self.call(&[200], "GET", &target, &[], &mut io::empty(), 0)?.body)
    }

    /// Stores a manifest under a tag or digest.
    pub(crate) fn put_manifest(&mut self, repository: &str, reference: &str, bytes: &[u8]) -> Result<(), CallError> {
        self.put_typed(repository, reference, MANIFEST_TYPE, bytes)
    }

    /// Stores a manifest of any type under a tag or digest.
    pub(crate) fn put_typed(
        &mut self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), CallError> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let headers = [("Content-Type", media_type)];
        self.call(&[201], "PUT", &target, &headers, &mut { bytes }, bytes.len() as u64).map(drop)
    }

    /// Reads a manifest by tag or digest; returns its digest, counted from the bytes, and the bytes.
    pub(crate) fn manifest(&mut self, repository: &str, reference: &str) -> Result<(String, Vec<u8>), CallError> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let response = self.call(&[200], "GET", &target, &ACCEPT, &mut io::empty(), 0)?;
        let digest = digest_of(&response.body);
        if let Some(announced) = response.header("docker-content-digest") {
            same_digest(&target, announced, &digest)?;
        }
        Ok((digest, response.body))
    }

    fn call(
        &mut self,
        expected: &[u16],
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &mut dyn BufRead,
        len: u64,
    ) -> Result<Response, CallError> {
        let response = self
            .connection
            .send(Request { method, target, headers }, body, len)
            .map_err(|source| CallError::NoAnswer { call: format!("{method} {target}"), source })?;
        if expected.contains(&response.status) {
            return Ok(response);
        }
        Err(refused(method, target, response.status, &response.body))
    }
}

fn refused(method: &str, target: &str, status: u16, body: &[u8]) -> CallError {
    let text = String::from_utf8_lossy(&body[..body.len().min(500)]).trim_end().to_owned();
    CallError::Refused { call: format!("{method} {target}"), status, text }
}

fn same_digest(target: &str, expected: &str, found: &str) -> Result<(), CallError> {
    if expected == found {
        return Ok(());
    }
    let problem = format!("the bytes have digest {found}, not {expected}");
    Err(CallError::Wrong { call: format!("GET {target}"), problem })
}

/// The Location header as a path; some registries send a whole URL.
fn location(call: &str, response: &Response) -> Result<String, CallError> {
    let wrong = || CallError::Wrong { call: call.to_owned(), problem: "no Location header".to_owned() };
    let location = response.header("location").ok_or_else(wrong)?;
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|start| rest[start..].to_owned()).ok_or_else(wrong),
        None => Ok(location.to_owned()),
    }
}
