//! What the operator does while clients load a server: asks and orders by the admin API, and looks at the disk.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    error::{LoadError, file_error},
    http::{Connection, Request},
    registry::CallError,
};

/// The admin API of a server.
pub(crate) struct Admin {
    connection: Connection,
}

impl Admin {
    pub(crate) fn new(address: &str) -> Self {
        Self { connection: Connection::new(address) }
    }

    /// Ends the windows of an organisation's held manifests and collects.
    pub(crate) fn purge(&mut self, organisation: &str) -> Result<Value, CallError> {
        self.call("POST", "/api/v1/purge", &json!({ "organization": organisation }))
    }

    /// Compacts.
    pub(crate) fn compact(&mut self) -> Result<Value, CallError> {
        self.call("POST", "/api/v1/compact", &json!({}))
    }

    /// Brings a manifest back that lost its tag.
    pub(crate) fn restore(&mut self, repository: &str, tag: &str, digest: &str) -> Result<(), CallError> {
        let body = json!({ "repository": repository, "tag": tag, "digest": digest });
        self.call("POST", "/api/v1/restore", &body).map(drop)
    }

    /// Whether all that was changed in an organisation is counted.
    pub(crate) fn is_settled(&mut self, organisation: &str) -> Result<bool, CallError> {
        let usage = self.call("GET", &format!("/api/v1/usage?organization={organisation}"), &Value::Null)?;
        Ok(usage["settling"] == 0)
    }

    /// Removes a tag.
    pub(crate) fn untag(&mut self, repository: &str, tag: &str) -> Result<(), CallError> {
        self.send("DELETE", &format!("/v2/{repository}/manifests/{tag}"), 202, &[], b"").map(drop)
    }

    /// Stores an image index with a tag.
    pub(crate) fn put_index(&mut self, repository: &str, tag: &str, bytes: &[u8]) -> Result<(), CallError> {
        let target = format!("/v2/{repository}/manifests/{tag}");
        self.send("PUT", &target, 201, &[("Content-Type", "application/vnd.oci.image.index.v1+json")], bytes).map(drop)
    }

    /// Caps a repository, or what a pattern matches, by a policy of that name.
    pub(crate) fn cap(&mut self, policy: &str, pattern: &str, bytes: u64) -> Result<(), CallError> {
        let body = json!({ "pattern": pattern, "size_max_bytes": bytes });
        self.call("PUT", &format!("/api/v1/policies/{policy}"), &body).map(drop)
    }

    /// Bytes of the blobs that a repository uses; none where there is no such repository.
    pub(crate) fn used_bytes(&mut self, repository: &str) -> Result<u64, CallError> {
        match self.call("GET", &format!("/api/v1/usage?repository={repository}"), &Value::Null) {
            Ok(usage) => Ok(usage["unique_bytes"].as_u64().unwrap_or(0)),
            Err(CallError::Refused { status: 404, .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn call(&mut self, method: &str, target: &str, body: &Value) -> Result<Value, CallError> {
        let (headers, body): (&[_], _) = match body {
            Value::Null => (&[], Vec::new()),
            body => (&[("Content-Type", "application/json")], body.to_string().into_bytes()),
        };
        let answer = self.send(method, target, 200, headers, &body)?;
        let wrong = |error: serde_json::Error| CallError::Wrong {
            call: format!("{method} {target}"),
            problem: format!("its body is no JSON: {error}"),
        };
        serde_json::from_slice(&answer).map_err(wrong)
    }

    fn send(
        &mut self,
        method: &str,
        target: &str,
        expected: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let call = || format!("{method} {target}");
        let response = self
            .connection
            .send(Request { method, target, headers }, &mut { body }, body.len() as u64)
            .map_err(|source| CallError::NoAnswer { call: call(), source })?;
        if response.status == expected {
            return Ok(response.body);
        }
        let text = String::from_utf8_lossy(&response.body[..response.body.len().min(500)]).into_owned();
        Err(CallError::Refused { call: call(), status: response.status, text })
    }
}

/// What `du` says of a directory, in bytes.
pub(crate) fn du(directory: &Path) -> Result<u64, LoadError> {
    // Files that go while it looks make it complain, and matter not.
    let said = Command::new("du").args(["-s", "--block-size=1"]).arg(directory).output();
    let said = String::from_utf8_lossy(&said.map_err(file_error(Path::new("du")))?.stdout).into_owned();
    let bytes = said.split_ascii_whitespace().next().and_then(|bytes| bytes.parse().ok());
    bytes.ok_or_else(|| LoadError::Usage(format!("du says nothing of {}", directory.display())))
}
