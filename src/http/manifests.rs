//! Manifests: bytes and type exactly as they were pushed.
//!
//! `Accept` decides only where a tag is asked for and names what the client cannot read:
//! - No `Accept`, or one with a wildcard, takes what is there: curl, wget, containerd. Docker's registry has both taken for
//!   clients of schema 1 and refuses them OCI manifests; those clients are gone, and scripts are not to be punished.
//! - By digest it is not consulted. A digest has one document, whose type the client learnt where it learnt the digest.
//! - A client that lists types, but not that of the index that the tag names, gets the index's image for linux/amd64 if it
//!   takes that: old Docker, and scripts that list only image manifests.
//! - What is left is 404 with a message that names the type, which an old client shows; given a document that it does not
//!   know it would fail with less said.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use http_body::Body as _;
use tokio::sync::oneshot;

use super::{
    App, DOCKER_CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, accept::Accept, blobs, body, error::HttpError, header_value,
    path, query::Query,
};
use crate::{
    digest::Digest,
    name::{RepositoryName, Tag},
    registry::{Manifest, PushedManifest, Reads, Reference, Registry, RegistryError, manifest},
};

/// Most `tag` parameters of one push.
const TAGS_MAX: usize = 100;
/// Longest manifest in bytes that is read where other connections wait. It can name some twenty digests, each of which has six rows
/// in memory: a fifth of a millisecond.
const READ_AT_ONCE_MAX: usize = 4 << 10;

/// `GET /v2/<name>/manifests/<reference>`
pub(super) async fn get(
    app: &Arc<App>,
    repository: RepositoryName,
    reference: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let reference = existing(&repository, reference)?;
    let (registry, accept, negotiated) = (app.registry.clone(), Accept::parse(headers), is_tag(&reference));
    let find = move |reach| {
        let reads = registry.reads(reach);
        let found = reads.manifest(&repository, &reference)?;
        match instead(reads, &repository, &reference, &found, accept)? {
            Some(image) => Ok(reads.manifest(&repository, &Reference::Digest(image.digest))?),
            None => Ok::<_, HttpError>(found),
        }
    };
    let manifest = app.bridge.read(find).await?;
    if blobs::is_known(headers, &manifest.digest) {
        return Ok(varying(blobs::not_modified(&manifest.digest), negotiated));
    }
    let held = app.buffers.hold(manifest.len)?;
    let body = Body::from(held.keep(manifest.bytes.clone()));
    Ok(varying(described(&manifest, body), negotiated))
}

/// `HEAD /v2/<name>/manifests/<reference>`
pub(super) async fn head(
    app: &Arc<App>,
    repository: RepositoryName,
    reference: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let reference = existing(&repository, reference)?;
    let (registry, accept, negotiated) = (app.registry.clone(), Accept::parse(headers), is_tag(&reference));
    let find = move |reach| {
        let reads = registry.reads(reach);
        let found = reads.manifest_head(&repository, &reference)?;
        let instead = instead(reads, &repository, &reference, &found, accept)?;
        Ok::<_, HttpError>(instead.unwrap_or(found))
    };
    let manifest = app.bridge.read(find).await?;
    if blobs::is_known(headers, &manifest.digest) {
        return Ok(varying(blobs::not_modified(&manifest.digest), negotiated));
    }
    Ok(varying(described(&manifest, Body::empty()), negotiated))
}

/// What a client gets instead of what it asked for: nothing else, or the image of an index that it does not take.
///
/// # Errors
/// 404 when there is no such image, or the client does not take that either.
fn instead(
    reads: Reads<'_>,
    repository: &RepositoryName,
    reference: &Reference,
    found: &Manifest,
    accept: Accept,
) -> Result<Option<Manifest>, HttpError> {
    let Reference::Tag(tag) = reference else { return Ok(None) };
    if accept.takes(&found.media_type) {
        return Ok(None);
    }
    let is_index = manifest::is_index(&found.media_type);
    let image = if is_index { reads.default_image(repository, &found.digest)? } else { None };
    match image.filter(|image| accept.takes(&image.media_type)) {
        Some(image) => Ok(Some(image)),
        None => Err(HttpError::not_taken(tag.as_str(), &found.digest, &found.media_type)),
    }
}

fn is_tag(reference: &Reference) -> bool {
    matches!(reference, Reference::Tag(_))
}

/// Tells caches that the answer depends on `Accept`.
fn varying(mut response: Response, negotiated: bool) -> Response {
    if negotiated {
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    response
}

/// `PUT /v2/<name>/manifests/<reference>`; with a digest, `?tag=` names tags to set in the same step. `OCI-Tag` lists those
/// that were (OCI distribution, "Pushing Manifests"), in one line: many clients bound the number of lines.
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
    let named = expected.map_or(String::new(), |_| tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", "));
    let media_type = match request.headers().get(header::CONTENT_TYPE).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => return Err(RegistryError::ManifestInvalid("its Content-Type is not ASCII".to_owned()).into()),
    };
    let bytes_max = app.registry.options().manifest_bytes_max;
    let body = request.into_body();
    let _held = app.buffers.hold(body.size_hint().exact().unwrap_or(u64::MAX).min(bytes_max as u64))?;
    let bytes = body::whole(body, "manifest", bytes_max).await?;
    let put = Put { repository: repository.clone(), expected, tags, media_type, bytes };
    let pushed = match put.at_once(app).await {
        Err(error) if error.is_out_of_reach() => {
            let registry = app.registry.clone();
            app.bridge.call(move || put.whole(&registry)).await?
        }
        pushed => pushed?,
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(format!("/v2/{repository}/manifests/{}", pushed.digest)));
    headers.insert(DOCKER_CONTENT_DIGEST, header_value(pushed.digest.to_string()));
    if !named.is_empty() {
        headers.insert(OCI_TAG, header_value(named));
    }
    if let Some(subject) = pushed.subject {
        headers.insert(OCI_SUBJECT, header_value(subject.to_string()));
    }
    Ok(response)
}

/// A manifest that has come.
struct Put {
    repository: RepositoryName,
    expected: Option<Digest>,
    tags: Vec<Tag>,
    media_type: Option<String>,
    bytes: Bytes,
}

impl Put {
    /// Lets the committer have it from here, with no thread in between that would wait for it.
    ///
    /// # Errors
    /// As [`Registry::begin_manifest`]; a long one is out of reach, as it takes too long to read.
    async fn at_once(&self, app: &App) -> Result<PushedManifest, HttpError> {
        if self.bytes.len() > READ_AT_ONCE_MAX {
            return Err(RegistryError::OutOfReach.into());
        }
        let Self { repository, expected, tags, media_type, bytes } = self;
        let (tell, told) = oneshot::channel();
        // Nobody waits any more when the client is gone.
        let ended = move |pushed| drop(tell.send(pushed));
        app.bridge.at_once(|| {
            app.registry.begin_manifest(repository, *expected, tags, media_type.as_deref(), bytes, ended)
        })?;
        Ok(told.await.map_err(|_| HttpError::closing())??)
    }

    fn whole(&self, registry: &Registry) -> Result<PushedManifest, RegistryError> {
        let Self { repository, expected, tags, media_type, bytes } = self;
        registry.put_manifest(repository, *expected, tags, media_type.as_deref(), bytes)
    }
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
    blobs::name(headers, &manifest.digest);
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

/// The tags of a push, each once.
fn tags(query: &Query) -> Result<Vec<Tag>, HttpError> {
    if query.all("tag").nth(TAGS_MAX).is_some() {
        return Err(HttpError::too_many_tags(TAGS_MAX));
    }
    let mut tags = Vec::new();
    for tag in query.all("tag") {
        let tag = tag.parse::<Tag>()?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
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
        assert_eq!(parsed("tag=a&tag=b&tag=a"), Some(2));
        let many = |count| (0..count).map(|n| format!("tag=v{n}&")).collect::<String>();
        assert_eq!(parsed(&many(TAGS_MAX)), Some(TAGS_MAX));
        assert_eq!(parsed(&many(TAGS_MAX + 1)), None);
        assert_eq!(parsed(&"tag=a&".repeat(TAGS_MAX + 1)), None);
    }
}
