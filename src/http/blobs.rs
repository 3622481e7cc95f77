//! Blobs: whole or in parts, and their deletion.
//!
//! Conditions and ranges are those of RFC 9110, sections 13 and 14; an entity tag is the digest. Small blobs take one call
//! to the registry. HEAD reads no content, and has no ranges.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;

use super::{
    App, DOCKER_CONTENT_DIGEST,
    error::HttpError,
    header_value,
    multipart::{self, Multipart},
    range::{self, Wanted},
    sending::Sending,
    stream::{self, BlobBody, Source},
};
use crate::{digest::Digest, disk::Reach, name::RepositoryName, registry::RegistryError};

/// Bytes that a fast download reads at a time.
const STEP_LEN: usize = 512 << 10;

/// What a GET found.
enum Found {
    NotModified,
    Unsatisfiable { len: u64 },
    Content(Content),
}

/// Parts of a blob, and the first piece of the first of them.
struct Content {
    blob: Source,
    /// None of a blob without bytes; one that is the whole unless `is_partial`.
    parts: Vec<Range<u64>>,
    is_partial: bool,
    first: Bytes,
}

/// `GET /v2/<name>/blobs/<digest>`
pub(super) async fn get(
    app: &Arc<App>,
    repository: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
    sending: Option<Sending>,
) -> Result<Response, HttpError> {
    let step = app.buffers.step(STEP_LEN);
    let step_len = step.len;
    let headers = headers.clone();
    let registry = app.registry.clone();
    let found = app.bridge.read(move |reach| {
        let blob = Source::new(registry.reads(reach).blob(&repository, &digest)?, sending.clone());
        find(reach, blob, &digest, &headers, step_len)
    });
    let Content { blob, parts, is_partial, first } = match found.await? {
        Found::NotModified => return Ok(not_modified(&digest)),
        Found::Unsatisfiable { len } => return Err(HttpError::range(len)),
        Found::Content(content) => content,
    };
    let Some(part) = parts.first().cloned() else { return Ok(described(&digest, 0, Body::empty())) };
    let len = blob.len();
    // One part is sent as it is, also when it was asked for in pieces: that is what all clients know.
    let framing = (parts.len() > 1).then(|| Multipart::new(&digest, len));
    let body_type = framing.as_ref().map(Multipart::content_type);
    let body_len = stream::body_len(&parts, framing.as_ref());
    let body = match framing {
        // All of it has been read; what the step holds is for those that still read.
        None if first.len() as u64 == body_len => Body::from(first),
        framing => Body::new(BlobBody::new(blob, app.bridge.clone(), step, first, parts, framing)),
    };
    let mut response = described(&digest, body_len, body);
    if is_partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let (name, value) = match body_type {
            Some(body_type) => (header::CONTENT_TYPE, body_type),
            None => (header::CONTENT_RANGE, header_value(multipart::content_range(&part, len))),
        };
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// What the headers ask of a blob. The first piece is checked before the status is sent, so damage there is a 500 and not
/// a broken 200.
fn find(
    reach: Reach,
    blob: Source,
    digest: &Digest,
    headers: &HeaderMap,
    step_len: usize,
) -> Result<Found, RegistryError> {
    if is_known(headers, digest) {
        return Ok(Found::NotModified);
    }
    let len = blob.len();
    let (parts, is_partial) = match wanted(headers, digest, len) {
        Wanted::Unsatisfiable => return Ok(Found::Unsatisfiable { len }),
        Wanted::Whole => ((len > 0).then_some(0..len).into_iter().collect(), false),
        Wanted::Parts(parts) => (parts, true),
    };
    let first = match parts.first() {
        Some(part) => blob.first(reach, part, step_len)?,
        None => Bytes::new(),
    };
    Ok(Found::Content(Content { blob, parts, is_partial, first }))
}

/// `HEAD /v2/<name>/blobs/<digest>`
pub(super) async fn head(
    app: &Arc<App>,
    repository: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let registry = app.registry.clone();
    let len = app.bridge.read(move |reach| registry.reads(reach).blob_len(&repository, &digest)).await?;
    if is_known(headers, &digest) {
        return Ok(not_modified(&digest));
    }
    Ok(described(&digest, len, Body::empty()))
}

/// `DELETE /v2/<name>/blobs/<digest>`
pub(super) async fn delete(app: &Arc<App>, repository: RepositoryName, digest: Digest) -> Result<Response, HttpError> {
    let registry = app.registry.clone();
    app.bridge.call(move || registry.delete_blob(&repository, &digest)).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(DOCKER_CONTENT_DIGEST, header_value(digest.to_string()));
    Ok(response)
}

/// An answer with `len` bytes of the blob.
fn described(digest: &Digest, len: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    name(headers, digest);
    response
}

/// Names content in the head of an answer, by its digest and by the entity tag of it: parts of one text.
pub(super) fn name(headers: &mut HeaderMap, digest: &Digest) {
    let tag = Bytes::from(etag(digest));
    for (name, text) in [(DOCKER_CONTENT_DIGEST, tag.slice(1..tag.len() - 1)), (header::ETAG, tag)] {
        headers.insert(name, HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("")));
    }
}

/// The entity tag of content: its digest, which is as strong as a validator gets.
fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether `If-None-Match` says that the client has the content.
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    let etag = etag(digest);
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|tags| {
        tags.split(',').map(str::trim).any(|tag| tag == "*" || etag == tag.strip_prefix("W/").unwrap_or(tag))
    })
}

/// The answer to a client that has the content.
pub(super) fn not_modified(digest: &Digest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    name(response.headers_mut(), digest);
    response
}

/// What `Range` asks for, unless `If-Range` says that the client knows something else: a date, a weak tag (which is never
/// strongly equal), or another one. Which of several `Range` lines counts would be a guess, so none does.
fn wanted(headers: &HeaderMap, digest: &Digest, len: u64) -> Wanted {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (lines.next(), lines.next()) else { return Wanted::Whole };
    if headers.get_all(header::IF_RANGE).iter().any(|known| *known != etag(digest)) {
        return Wanted::Whole;
    }
    range.to_str().map_or(Wanted::Whole, |range| range::wanted(range, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn conditions_compare_the_digest() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let own = format!("\"{digest}\"");
        let cases = [
            (own.clone(), true),
            (format!("W/{own}"), true),
            (format!("\"x\", {own}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
            (digest.to_string(), false),
        ];
        for (tags, known) in cases {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, header_value(&tags))]);
            assert_eq!(is_known(&headers, &digest), known, "{tags}");
        }
        let (part, weak) = (Wanted::Parts(std::iter::once(1..3).collect()), format!("W/{own}"));
        let cases = [
            (None, part.clone()),
            (Some(own.as_str()), part),
            (Some(weak.as_str()), Wanted::Whole),
            (Some("\"old\""), Wanted::Whole),
            (Some("*"), Wanted::Whole),
            (Some("Thu, 01 Jan 2099 00:00:00 GMT"), Wanted::Whole),
        ];
        for (known, expected) in cases {
            let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=1-2"))]);
            headers.extend(known.map(|known| (header::IF_RANGE, header_value(known))));
            assert_eq!(wanted(&headers, &digest, 10), expected, "{known:?}");
            headers.append(header::RANGE, HeaderValue::from_static("bytes=1-2"));
            assert_eq!(wanted(&headers, &digest, 10), Wanted::Whole, "two lines");
        }
    }
}
