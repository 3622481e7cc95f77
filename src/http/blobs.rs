//! Blobs: whole or one range of them, and their deletion.
//!
//! Small blobs take one call to the registry. HEAD reads no content.

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
    range::{self, Wanted},
    stream::{self, BlobBody},
};
use crate::{digest::Digest, name::RepositoryName, registry::RegistryError, store::StoredContent};

/// Bytes that a fast download reads at a time.
const STEP_LEN: usize = 512 << 10;

/// What a GET found, and its first piece.
enum Found {
    NotModified,
    Unsatisfiable { len: u64 },
    Content { blob: StoredContent, wanted: Wanted, range: Range<u64>, first: Bytes },
}

/// `GET /v2/<name>/blobs/<digest>`
pub(super) async fn get(
    app: &Arc<App>,
    repository: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let step = app.buffers.step(STEP_LEN);
    let step_len = step.len;
    let headers = headers.clone();
    let registry = app.registry.clone();
    let found = app.bridge.call(move || {
        let blob = registry.blob(&repository, &digest)?;
        if is_known(&headers, &digest) {
            return Ok(Found::NotModified);
        }
        let wanted = wanted(&headers, &digest, blob.len());
        let range = match wanted {
            Wanted::Whole => 0..blob.len(),
            Wanted::Part { begin, end } => begin..end,
            Wanted::Unsatisfiable => return Ok(Found::Unsatisfiable { len: blob.len() }),
        };
        // The first piece is checked before the status is sent, so damage there is a 500 and not a broken 200.
        let first = if range.is_empty() { Bytes::new() } else { stream::read_piece(&blob, &range, step_len)? };
        Ok::<_, RegistryError>(Found::Content { blob, wanted, range, first })
    });
    let (blob, wanted, range, first) = match found.await? {
        Found::NotModified => return Ok(not_modified(&digest)),
        Found::Unsatisfiable { len } => return Err(HttpError::range(len)),
        Found::Content { blob, wanted, range, first } => (blob, wanted, range, first),
    };
    let (len, range_len) = (blob.len(), range.end - range.start);
    let left = range.start.saturating_add(first.len() as u64).min(range.end)..range.end;
    let body = if left.is_empty() {
        Body::from(first)
    } else {
        Body::new(BlobBody::new(blob, app.bridge.clone(), step, first, left))
    };
    let mut response = described(&digest, range_len, body);
    if matches!(wanted, Wanted::Part { .. }) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let content_range = format!("bytes {}-{}/{len}", range.start, range.end - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, header_value(content_range));
    }
    Ok(response)
}

/// `HEAD /v2/<name>/blobs/<digest>`
pub(super) async fn head(
    app: &Arc<App>,
    repository: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let registry = app.registry.clone();
    let len = app.bridge.call(move || registry.blob_len(&repository, &digest)).await?;
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
    Ok(response)
}

/// An answer with `len` bytes of the blob.
fn described(digest: &Digest, len: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, etag(digest));
    headers.insert(DOCKER_CONTENT_DIGEST, header_value(digest.to_string()));
    response
}

/// The entity tag of content: its digest, which is as strong as a validator gets.
pub(super) fn etag(digest: &Digest) -> HeaderValue {
    header_value(format!("\"{digest}\""))
}

/// Whether `If-None-Match` says that the client has the content.
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let etag = etag(digest);
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|tags| {
        tags.split(',').map(str::trim).any(|tag| tag == "*" || etag == tag.strip_prefix("W/").unwrap_or(tag))
    })
}

/// The answer to a client that has the content.
pub(super) fn not_modified(digest: &Digest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::ETAG, etag(digest));
    response.headers_mut().insert(DOCKER_CONTENT_DIGEST, header_value(digest.to_string()));
    response
}

fn wanted(headers: &HeaderMap, digest: &Digest, len: u64) -> Wanted {
    if headers.get(header::IF_RANGE).is_some_and(|known| *known != etag(digest)) {
        return Wanted::Whole;
    }
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    range.map_or(Wanted::Whole, |range| range::wanted(range, len))
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
        let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=1-2"))]);
        assert_eq!(wanted(&headers, &digest, 10), Wanted::Part { begin: 1, end: 3 });
        headers.insert(header::IF_RANGE, etag(&digest));
        assert_eq!(wanted(&headers, &digest, 10), Wanted::Part { begin: 1, end: 3 });
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert_eq!(wanted(&headers, &digest, 10), Wanted::Whole);
    }
}
