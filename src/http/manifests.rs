//! Manifests: bytes and type exactly as they were pushed.
//!
//! `Accept` is not consulted. A registry that holds one document under a digest has nothing to choose from, and refusing
//! it would break clients that send no `Accept` or a short one.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use http_body::Body as _;

use super::{App, DOCKER_CONTENT_DIGEST, OCI_SUBJECT, blobs, body, error::HttpError, header_value, path, query::Query};
use crate::{
    name::{RepositoryName, Tag},
    registry::{Manifest, Reference, RegistryError},
};

/// Most `tag` parameters of one push.
const TAGS_MAX: usize = 100;

/// `GET /v2/<name>/manifests/<reference>`
pub(super) async fn get(
    app: &Arc<App>,
    repository: RepositoryName,
    reference: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let reference = existing(&repository, reference)?;
    let registry = app.registry.clone();
    let manifest = app.bridge.call(move || registry.manifest(&repository, &reference)).await?;
    if blobs::is_known(headers, &manifest.digest) {
        return Ok(blobs::not_modified(&manifest.digest));
    }
    let held = app.buffers.hold(manifest.len)?;
    let body = Body::from(held.keep(manifest.bytes.clone()));
    Ok(described(&manifest, body))
}

/// `HEAD /v2/<name>/manifests/<reference>`
pub(super) async fn head(
    app: &Arc<App>,
    repository: RepositoryName,
    reference: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let reference = existing(&repository, reference)?;
    let registry = app.registry.clone();
    let manifest = app.bridge.call(move || registry.manifest_head(&repository, &reference)).await?;
    if blobs::is_known(headers, &manifest.digest) {
        return Ok(blobs::not_modified(&manifest.digest));
    }
    Ok(described(&manifest, Body::empty()))
}

/// `PUT /v2/<name>/manifests/<reference>`; with a digest, `?tag=` names tags to set in the same step.
pub(super) async fn put(
    app: &Arc<App>,
    repository: RepositoryName,
    reference: &str,
    request: Request,
) -> Result<Response, HttpError> {
    let (expected, tags) = match parse(reference)? {
        Reference::Digest(digest) => (Some(digest), tags(&Query::parse(request.uri().query())?)?),
        Reference::Tag(tag) => (None, vec![tag]),
    };
    let media_type = match request.headers().get(header::CONTENT_TYPE).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => return Err(RegistryError::ManifestInvalid("its Content-Type is not ASCII".to_owned()).into()),
    };
    let bytes_max = app.registry.options().manifest_bytes_max;
    let body = request.into_body();
    let _held = app.buffers.hold(body.size_hint().exact().unwrap_or(u64::MAX).min(bytes_max as u64))?;
    let bytes = body::whole(body, "manifest", bytes_max).await?;
    let (registry, name) = (app.registry.clone(), repository.clone());
    let pushed =
        app.bridge.call(move || registry.put_manifest(&name, expected, &tags, media_type.as_deref(), &bytes)).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(format!("/v2/{repository}/manifests/{}", pushed.digest)));
    headers.insert(DOCKER_CONTENT_DIGEST, header_value(pushed.digest.to_string()));
    if let Some(subject) = pushed.subject {
        headers.insert(OCI_SUBJECT, header_value(subject.to_string()));
    }
    Ok(response)
}

/// `DELETE /v2/<name>/manifests/<reference>`
pub(super) async fn delete(app: &Arc<App>, repository: RepositoryName, reference: &str) -> Result<Response, HttpError> {
    let reference = existing(&repository, reference)?;
    let registry = app.registry.clone();
    app.bridge.call(move || registry.delete_manifest(&repository, &reference)).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn described(manifest: &Manifest, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header_value(&manifest.media_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(manifest.len));
    headers.insert(header::ETAG, blobs::etag(&manifest.digest));
    headers.insert(DOCKER_CONTENT_DIGEST, header_value(manifest.digest.to_string()));
    response
}

/// A reference: no tag has a colon and every digest has one.
fn parse(reference: &str) -> Result<Reference, HttpError> {
    if reference.contains(':') {
        Ok(Reference::Digest(path::digest(reference)?))
    } else {
        Ok(Reference::Tag(reference.parse::<Tag>()?))
    }
}

/// A reference to something that was pushed. What no tag can be called is not there: 404, as the conformance suite expects.
fn existing(repository: &RepositoryName, reference: &str) -> Result<Reference, HttpError> {
    if reference.contains(':') || reference.parse::<Tag>().is_ok() {
        return parse(reference);
    }
    let reference = reference.chars().take(200).collect();
    Err(RegistryError::ManifestUnknown { repository: repository.clone(), reference }.into())
}

fn tags(query: &Query) -> Result<Vec<Tag>, HttpError> {
    let tags = query.all("tag").map(|tag| Ok(tag.parse::<Tag>()?)).collect::<Result<Vec<_>, HttpError>>()?;
    if tags.len() > TAGS_MAX {
        return Err(HttpError::bad_request(format!("one push sets at most {TAGS_MAX} tags")));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_out_of_their_grammar() {
        let repository: RepositoryName = "a".parse().unwrap();
        let cases = [
            (".INVALID_MANIFEST_NAME", (400, "NAME_INVALID"), (404, "MANIFEST_UNKNOWN")),
            ("", (400, "NAME_INVALID"), (404, "MANIFEST_UNKNOWN")),
            ("sha256:0", (400, "DIGEST_INVALID"), (400, "DIGEST_INVALID")),
            ("md5:00", (400, "DIGEST_INVALID"), (400, "DIGEST_INVALID")),
        ];
        let shown = |error: HttpError| (error.status().as_u16(), error.code());
        for (reference, pushed, asked) in cases {
            assert_eq!(parse(reference).map_err(shown).unwrap_err(), pushed, "{reference}");
            assert_eq!(existing(&repository, reference).map_err(shown).unwrap_err(), asked, "{reference}");
        }
    }

    #[test]
    fn tags_of_a_push_are_parsed_and_bounded() {
        let parsed = |text: &str| tags(&Query::parse(Some(text)).unwrap()).map(|tags| tags.len()).ok();
        assert_eq!(parsed("tag=a&tag=b"), Some(2));
        assert_eq!(parsed("tag=.a"), None);
        assert_eq!(parsed(&"tag=a&".repeat(TAGS_MAX)), Some(TAGS_MAX));
        assert_eq!(parsed(&"tag=a&".repeat(TAGS_MAX + 1)), None);
    }
}
