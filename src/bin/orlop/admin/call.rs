//! A request to the admin API, and what its answer means for who asked.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::format;
use crate::Failure;

/// What stands for itself in a path or a value of a query.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');
/// Most characters of an answer that is no error of ours, in a message.
const SHOWN_MAX: usize = 300;

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    method: &'static str,
    path: String,
    query: Vec<(&'static str, String)>,
    /// What is to be changed; none where the request only reads.
    body: Option<Value>,
}

/// An answer: its status, and its bytes.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Call {
    /// A request that reads; `path` is below `/api/v1/`.
    pub(super) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), query: Vec::new(), body: None }
    }

    /// A request that changes something, or asks by a document.
    pub(super) fn post(path: &str, body: Value) -> Self {
        Self { method: "POST", body: Some(body), ..Self::get(path) }
    }

    /// A request that sets something.
    pub(super) fn put(path: &str, body: Value) -> Self {
        Self { method: "PUT", ..Self::post(path, body) }
    }

    /// A request that takes something away.
    pub(super) fn delete(path: &str) -> Self {
        Self { method: "DELETE", ..Self::get(path) }
    }

    /// Adds a parameter.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a parameter that is true; or none.
    pub(super) fn flag(self, name: &'static str, value: bool) -> Self {
        if value { self.with(name, "true") } else { self }
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// Path and query as they stand in a request line.
    pub(super) fn target(&self) -> String {
        let mut target = format!("/api/v1/{}", utf8_percent_encode(&self.path, ENCODED));
        for (at, (name, value)) in self.query.iter().enumerate() {
            let separator = if at == 0 { '?' } else { '&' };
            // Writing to a string does not fail.
            let _ = write!(target, "{separator}{name}={}", utf8_percent_encode(value, ENCODED));
        }
        target
    }

    pub(super) fn body(&self) -> Option<String> {
        self.body.as_ref().map(Value::to_string)
    }
}

impl Answer {
    /// The document, if the request was done.
    ///
    /// # Errors
    /// What the server said, and what can be done about it.
    pub(super) fn into_json(self) -> Result<Value, Failure> {
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        match json {
            Some(json) if (200..300).contains(&self.status) => Ok(json),
            Some(json) if json["errors"][0]["message"].is_string() => {
                let error = &json["errors"][0];
                let message = format::plain(error["message"].as_str().unwrap_or_default());
                let code = error["code"].as_str().unwrap_or_default();
                let remedy = match error["detail"]["policy"].is_string() && self.status == 404 {
                    true => "; `orlop policy ls` lists them",
                    false => remedy(self.status, code),
                };
                Err(Box::new(Refused { status: self.status, text: message + remedy }))
            }
            _ => {
                let text: String = String::from_utf8_lossy(&self.body).trim().chars().take(SHOWN_MAX).collect();
                let text = format!(
                    "what answers there is no orlop with an admin API (status {}: {}); check --server",
                    self.status,
                    format::plain(&text)
                );
                Err(Box::new(Refused { status: self.status, text }))
            }
        }
    }
}

/// A request that was answered, and refused.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refused {
    status: u16,
    text: String,
}

/// Whether what was asked for is not there.
pub(super) fn is_unknown(error: &Failure) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404)
}

/// What can be done, where the message alone does not say it.
fn remedy(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (404, "UNSUPPORTED") => "; this server has no such function: is it an older orlop?",
        (404, "MANIFEST_UNKNOWN") => "; `orlop ls REPOSITORY` lists the manifests, `orlop history REPOSITORY` the tags",
        (404, "BLOB_UNKNOWN") => "; `orlop ls REPOSITORY` lists digests",
        (404, _) => "; `orlop ls` lists the organisations, `orlop ls ORGANISATION` its repositories",
        (410, _) => "; `orlop history REPOSITORY` shows what can still be restored",
        (507, _) => "; `orlop gc` gives back what is due, `orlop gc --free SIZE` also what is held",
        (500, _) => "; `orlop verify` looks for damage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_line_holds_names_as_they_are_and_all_else_encoded() {
        let call = Call::get("usage").with("repository", "team/app").with("last", "a b&c=d%").flag("own", true);
        assert_eq!(call.target(), "/api/v1/usage?repository=team/app&last=a%20b%26c%3Dd%25&own=true");
        assert_eq!((call.method(), call.body()), ("GET", None));
        let call = Call::post("collect", json!({})).flag("dry_run", false);
        assert_eq!(
            (call.method(), call.target().as_str(), call.body().as_deref()),
            ("POST", "/api/v1/collect", Some("{}"))
        );
        assert_eq!(Call::get("blobs/sha256:00").target(), "/api/v1/blobs/sha256:00");
    }

    #[test]
    fn a_refusal_is_told_with_what_can_be_done() {
        let refused = |status: u16, body: &str| {
            let error = Answer { status, body: body.as_bytes().to_vec() }.into_json().unwrap_err();
            (error.to_string(), is_unknown(&error))
        };
        let errors = |code: &str| json!({ "errors": [{ "code": code, "message": "no \u{1b}[31m\"x\"" }] }).to_string();
        for (status, code, remedy) in [
            (404, "NAME_UNKNOWN", "`orlop ls` lists"),
            (404, "UNSUPPORTED", "older orlop"),
            (404, "MANIFEST_UNKNOWN", "`orlop history"),
            (410, "MANIFEST_UNKNOWN", "can still be restored"),
            (507, "UNKNOWN", "`orlop gc`"),
        ] {
            let (text, unknown) = refused(status, &errors(code));
            assert!(text.starts_with("no \\u{1b}[31m\"x\"; ") && text.contains(remedy), "{text}");
            assert_eq!(unknown, status == 404);
        }
        for (status, body) in [(200, "<html>"), (404, "not\nhere"), (502, "{}"), (500, r#"{"errors":[]}"#)] {
            let (text, _) = refused(status, body);
            assert!(text.contains("no orlop") && text.contains(&status.to_string()) && !text.contains('\n'), "{text}");
        }
        let answer = Answer { status: 200, body: b"{\"a\":1}".to_vec() }.into_json().unwrap();
        assert_eq!(answer, json!({ "a": 1 }));
    }
}
