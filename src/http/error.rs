//! Errors become answers here: the only table of status codes and of the codes that OCI clients read.
//!
//! Every error has two messages. The client's names what the client can change; of the inside it says only that it
//! failed. The log's has all facts. The codes are those of OCI distribution 1.1 ("Error Codes") and `UNKNOWN`, which
//! clients know from Docker's registry: libraries take a code that they don't know for a fault of the server.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{api::time, buffers::Buffers, header_value};
use crate::{
    digest::{Digest, DigestError},
    name::{NameError, Owner},
    registry::RegistryError,
};

/// Seconds after which a request that met a bound is worth another try.
const RETRY_SOON: &str = "1";
/// The same where the store takes no writes: somebody has to act first.
const RETRY_LATER: &str = "30";

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
    log: Option<String>,
    is_out_of_reach: bool,
}

impl HttpError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: Value::Null,
            headers: Vec::new(),
            log: None,
            is_out_of_reach: false,
        }
    }

    /// A path that is no route.
    pub(super) fn no_route(path: &str) -> Self {
        let shown: String = path.chars().take(200).collect();
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", format!("there is nothing at {shown}"))
    }

    /// A method that the route does not have.
    pub(super) fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", format!("only {allowed} work here"))
            .with(header::ALLOW, allowed)
    }

    /// A request that cannot be read; no OCI code says which.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
    }

    /// A request that comes from where none may come from.
    pub(super) fn forbidden(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    /// Something that can be done once at a time is being done.
    pub(super) fn conflict(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "UNSUPPORTED", message)
    }

    /// A question that takes more to answer than is allowed.
    pub(super) fn too_much(message: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "UNSUPPORTED", message)
    }

    /// A change whose body is not announced as JSON.
    pub(super) fn not_json(found: String) -> Self {
        let message = format!("Content-Type \"{found}\" is not accepted: send application/json");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED", message)
    }

    /// One push names too many tags.
    pub(super) fn too_many_tags(max: usize) -> Self {
        let message = format!("one push sets at most {max} tags here; set the others by further pushes");
        Self::new(StatusCode::URI_TOO_LONG, "UNSUPPORTED", message)
    }

    /// Path and query are longer than the limit.
    pub(super) fn uri_too_long(max: usize) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "UNSUPPORTED", format!("path and query have at most {max} bytes here"))
    }

    /// There is a manifest, of a type that the client does not take. 404 and not 406, as clients know it from Docker's
    /// registry and OCI distribution has it for what cannot be pulled.
    pub(super) fn not_taken(tag: &str, digest: &Digest, media_type: &str) -> Self {
        let message = format!(
            "\"{tag}\" is of type {media_type}, which the request's Accept does not have; add it there, or ask for {digest}"
        );
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message).with(header::VARY, "Accept")
    }

    /// A digest that must be there is not.
    pub(super) fn digest_missing() -> Self {
        let message = "the digest of the blob is missing: finish an upload with PUT <location>?digest=<digest>";
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    /// A text that is no digest, where one must be.
    pub(super) fn digest_invalid(text: &str, error: &DigestError) -> Self {
        let shown: String = text.chars().take(200).collect();
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", format!("\"{shown}\" is not a digest: {error}"))
    }

    /// Length and announced range of a body disagree.
    pub(super) fn size(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
    }

    /// The body is larger than what is accepted. The connection is closed, as the rest of the body will not be read.
    pub(super) fn too_large(what: &str, max: u64) -> Self {
        let message = format!("the {what} is larger than {max} bytes, the most that this registry accepts");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message).with(header::CONNECTION, "close")
    }

    /// The client sent its body too slowly.
    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "SIZE_INVALID", message).with(header::CONNECTION, "close")
    }

    /// No byte of the content lies in the range.
    pub(super) fn range(len: u64) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", format!("the content has only {len} bytes"))
            .with(header::CONTENT_RANGE, format!("bytes */{len}"))
    }

    /// Too many requests wait.
    pub(super) fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", "the registry is busy; try again soon")
            .with(header::RETRY_AFTER, RETRY_SOON)
    }

    /// The server is closing.
    pub(super) fn closing() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", "the registry is shutting down; try again soon")
            .with(header::RETRY_AFTER, RETRY_SOON)
    }

    /// The request took longer than the limit.
    pub(super) fn timed_out(limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", format!("the request was not done within {seconds} s"))
            .with(header::RETRY_AFTER, RETRY_SOON)
            .with(header::CONNECTION, "close")
    }

    /// Something that cannot happen did.
    pub(super) fn bug(log: String) -> Self {
        Self::inside("the registry failed; its log says why", log)
    }

    fn inside(message: &str, log: String) -> Self {
        Self { log: Some(log), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message) }
    }

    fn detailed(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    fn logged(self, log: String) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Adds a header to the answer.
    pub(super) fn with(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.headers.push((name, header_value(value)));
        self
    }

    /// Whether it says only that a read has to wait.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.is_out_of_reach
    }

    /// The status.
    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The code that clients read.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Tells the operator: an error when someone must act, a warning when the registry refuses to do its work.
    pub(super) fn log(&self) {
        let reason = self.log.as_deref().unwrap_or(&self.message);
        match self.status.as_u16() {
            500 => tracing::error!(status = 500, reason, "request failed"),
            status @ 501.. => tracing::warn!(status, reason, "request refused"),
            status => tracing::debug!(status, code = self.code, reason, "request refused"),
        }
    }

    /// The answer; logs it. One that names very much lies in memory until the client has read it: it is held in the budget.
    pub(super) fn into_response(self, buffers: &Buffers) -> Response {
        self.log();
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        let body = Bytes::from(json!({ "errors": [error] }).to_string());
        let body = match buffers.hold(body.len() as u64) {
            Ok(held) => held.keep(body),
            Err(overloaded) => return overloaded.into_response(buffers),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<NameError> for HttpError {
    fn from(error: NameError) -> Self {
        RegistryError::from(error).into()
    }
}

impl From<RegistryError> for HttpError {
    /// The table.
    fn from(error: RegistryError) -> Self {
        use StatusCode as S;
        let text = error.to_string();
        match error {
            RegistryError::NameUnknown(name) => {
                Self::new(S::NOT_FOUND, "NAME_UNKNOWN", text).detailed(json!({ "name": name.as_str() }))
            }
            RegistryError::OrganisationUnknown(name) => {
                Self::new(S::NOT_FOUND, "NAME_UNKNOWN", text).detailed(json!({ "name": name }))
            }
            RegistryError::DigestUnknown(digest) => {
                Self::new(S::NOT_FOUND, "BLOB_UNKNOWN", text).detailed(json!({ "digest": digest.to_string() }))
            }
            RegistryError::TooMuch { .. } => Self::new(S::PAYLOAD_TOO_LARGE, "UNSUPPORTED", text),
            RegistryError::Name(_) => Self::new(S::BAD_REQUEST, "NAME_INVALID", text),
            RegistryError::Digest(_) => Self::new(S::BAD_REQUEST, "DIGEST_INVALID", text),
            RegistryError::DigestMismatch { expected, found } => Self::new(S::BAD_REQUEST, "DIGEST_INVALID", text)
                .detailed(json!({ "expected": expected.to_string(), "found": found.to_string() })),
            RegistryError::BlobUnknown { digest, .. } => {
                Self::new(S::NOT_FOUND, "BLOB_UNKNOWN", text).detailed(json!({ "digest": digest.to_string() }))
            }
            RegistryError::BlobNamed { manifest, .. } => Self::new(S::METHOD_NOT_ALLOWED, "UNSUPPORTED", text)
                .detailed(json!({ "manifest": manifest.to_string() }))
                .with(header::ALLOW, "GET, HEAD"),
            RegistryError::ManifestUnknown { reference, .. } => {
                Self::new(S::NOT_FOUND, "MANIFEST_UNKNOWN", text).detailed(json!({ "reference": reference }))
            }
            RegistryError::Dropped { digest, time_ms, .. } => {
                let dropped_at = time(time_ms);
                Self::new(S::GONE, "MANIFEST_UNKNOWN", format!("{text} (dropped at {dropped_at})"))
                    .detailed(json!({ "digest": digest.to_string(), "dropped_at": dropped_at }))
            }
            RegistryError::ManifestBlobUnknown { missing, .. } => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                Self::new(S::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", text).detailed(json!({ "missing": missing }))
            }
            RegistryError::ManifestInvalid(_) => Self::new(S::BAD_REQUEST, "MANIFEST_INVALID", text),
            RegistryError::ManifestTooLarge { max } => Self::too_large("manifest", max as u64),
            RegistryError::UploadUnknown(_) => Self::new(S::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", text),
            // Not 416: that would send the client on to an offset that another request is just moving.
            RegistryError::UploadBusy(_) => Self::new(S::CONFLICT, "BLOB_UPLOAD_INVALID", text),
            RegistryError::UploadOutOfOrder { .. } => Self::new(S::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", text),
            RegistryError::QuotaExceeded(exceeded) => {
                let mut detail = json!({
                    "limit_bytes": exceeded.limit_bytes,
                    "used_bytes": exceeded.used_bytes,
                    "needed_bytes": exceeded.needed_bytes,
                    "reclaimable_bytes": exceeded.reclaimable_bytes,
                });
                match &exceeded.owner {
                    Owner::Organisation(name) => detail["organization"] = json!(name),
                    Owner::Repository(name) => detail["repository"] = json!(name),
                }
                Self::new(S::FORBIDDEN, "DENIED", text).detailed(detail)
            }
            RegistryError::ImmutableTag(tag) => Self::new(S::FORBIDDEN, "DENIED", text).detailed(json!({
                "tag": tag.tag.as_str(),
                "policy": tag.policy.as_str(),
                "digest": tag.points_to.to_string(),
            })),
            RegistryError::CapExceeded(exceeded) => Self::new(S::FORBIDDEN, "DENIED", text).detailed(json!({
                "policy": exceeded.policy.as_str(),
                "limit_bytes": exceeded.cap_bytes,
                "used_bytes": exceeded.used_bytes,
                "needed_bytes": exceeded.image_bytes,
            })),
            RegistryError::PolicyUnknown(name) => {
                Self::new(S::NOT_FOUND, "NAME_UNKNOWN", text).detailed(json!({ "policy": name.as_str() }))
            }
            RegistryError::PolicyConflict(_) => Self::new(S::CONFLICT, "UNSUPPORTED", text),
            RegistryError::TooManyUploads { .. } => {
                Self::new(S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", text).with(header::RETRY_AFTER, RETRY_SOON)
            }
            RegistryError::Full(_) => {
                Self::new(S::INSUFFICIENT_STORAGE, "UNKNOWN", "the registry's disk is full").logged(text)
            }
            RegistryError::Overloaded(_) => {
                Self::new(S::SERVICE_UNAVAILABLE, "UNKNOWN", text).with(header::RETRY_AFTER, RETRY_SOON)
            }
            RegistryError::Unavailable(_) => {
                Self::new(S::SERVICE_UNAVAILABLE, "UNKNOWN", "the registry does not take writes now")
                    .logged(text)
                    .with(header::RETRY_AFTER, RETRY_LATER)
            }
            RegistryError::Corrupt(_) => {
                Self::inside("the stored content is damaged; the registry's log says where", text)
            }
            // Nobody is told: it is read again by who may wait.
            RegistryError::OutOfReach => Self { is_out_of_reach: true, ..Self::bug(text) },
            RegistryError::Failed(_) => Self::bug(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::{digest::Algorithm, state::quota::QuotaExceeded};

    fn buffers() -> Buffers {
        Buffers::new(1 << 20)
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"")
    }

    fn every_registry_error() -> Vec<(RegistryError, u16, &'static str)> {
        let repository = "team/app".parse::<crate::name::RepositoryName>().unwrap();
        let name = repository.clone();
        vec![
            (RegistryError::NameUnknown(name.clone()), 404, "NAME_UNKNOWN"),
            (RegistryError::OrganisationUnknown("x".to_owned()), 404, "NAME_UNKNOWN"),
            (NameError::Tag("é".to_owned()).into(), 400, "NAME_INVALID"),
            (DigestError::Shape.into(), 400, "DIGEST_INVALID"),
            (RegistryError::DigestMismatch { expected: digest(), found: digest() }, 400, "DIGEST_INVALID"),
            (RegistryError::BlobUnknown { repository: name.clone(), digest: digest() }, 404, "BLOB_UNKNOWN"),
            (RegistryError::BlobNamed { digest: digest(), manifest: digest() }, 405, "UNSUPPORTED"),
            (
                RegistryError::ManifestUnknown { repository: name.clone(), reference: "x".to_owned() },
                404,
                "MANIFEST_UNKNOWN",
            ),
            (RegistryError::ManifestBlobUnknown { repository, missing: vec![digest()] }, 400, "MANIFEST_BLOB_UNKNOWN"),
            (RegistryError::ManifestInvalid("x".to_owned()), 400, "MANIFEST_INVALID"),
            (RegistryError::ManifestTooLarge { max: 4 << 20 }, 413, "SIZE_INVALID"),
            (RegistryError::UploadUnknown("x".to_owned()), 404, "BLOB_UPLOAD_UNKNOWN"),
            (RegistryError::UploadBusy("x".to_owned()), 409, "BLOB_UPLOAD_INVALID"),
            (RegistryError::UploadOutOfOrder { begins: 1, offset: 0 }, 416, "BLOB_UPLOAD_INVALID"),
            (
                RegistryError::QuotaExceeded(QuotaExceeded {
                    owner: Owner::Repository(name.clone()),
                    limit_bytes: 1,
                    used_bytes: 2,
                    needed_bytes: 3,
                    reclaimable_bytes: 4,
                }),
                403,
                "DENIED",
            ),
            (RegistryError::TooManyUploads { max: 1 }, 429, "TOOMANYREQUESTS"),
            (RegistryError::Full("secret".to_owned()), 507, "UNKNOWN"),
            (RegistryError::Unavailable("secret".to_owned()), 503, "UNKNOWN"),
            (RegistryError::Corrupt("secret".to_owned()), 500, "UNKNOWN"),
            (RegistryError::Failed("secret".to_owned()), 500, "UNKNOWN"),
        ]
    }

    #[tokio::test]
    async fn every_error_has_its_status_code_and_json() {
        for (error, status, code) in every_registry_error() {
            let response = HttpError::from(error.clone()).into_response(&buffers());
            assert_eq!(response.status().as_u16(), status, "{error}");
            assert_eq!(response.headers()["content-type"], "application/json");
            assert_eq!(response.headers().contains_key("retry-after"), matches!(status, 429 | 503), "{error}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["errors"][0]["code"], code, "{error}");
            let message = body["errors"][0]["message"].as_str().unwrap();
            assert!(!message.is_empty() && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn the_log_keeps_what_the_client_is_not_told() {
        for error in [RegistryError::Full("secret".to_owned()), RegistryError::Corrupt("secret".to_owned())] {
            assert!(HttpError::from(error).log.unwrap().contains("secret"));
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let repository = "a".parse().unwrap();
        let error = RegistryError::ManifestBlobUnknown { repository, missing: vec![digest()] };
        let body = HttpError::from(error).into_response(&buffers()).into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["detail"]["missing"][0], digest().to_string());
        assert!(body["errors"][0]["message"].as_str().unwrap().contains(&digest().to_string()));
    }

    /// 100 clients that pushed a manifest of 25,000 missing layers and did not read the answer took 440 MiB of memory.
    #[tokio::test]
    async fn an_answer_that_names_very_much_is_held_in_the_budget() {
        let error = || {
            let missing = vec![digest(); 30_000];
            HttpError::from(RegistryError::ManifestBlobUnknown { repository: "a".parse().unwrap(), missing })
        };
        let buffers = Buffers::new(3 << 20);
        let unread = error().into_response(&buffers);
        assert_eq!(error().into_response(&buffers).status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = unread.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["errors"][0]["detail"]["missing"].as_array().unwrap().len(), 30_000);
        assert!(json["errors"][0]["message"].as_str().unwrap().contains("and 29900 more"));
        drop(body);
        assert_eq!(error().into_response(&buffers).status(), StatusCode::BAD_REQUEST);
    }
}
