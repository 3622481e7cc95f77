//! Uploads: POST, PATCH, PUT, their status and their end; mounts, which are uploads that need no bytes.
//!
//! The routes and their headers are here, the bytes go through `intake`.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use http_body::Body as _;

use super::{
    App, DOCKER_CONTENT_DIGEST, DOCKER_UPLOAD_UUID, body::BodyReader, error::HttpError, header_value, path,
    query::Query, range,
};
use crate::{
    digest::{Algorithm, Digest},
    name::RepositoryName,
    registry::RegistryError,
};
use intake::Intake;

mod intake;

/// `POST /v2/<name>/blobs/uploads/`: starts an upload, or mounts (`?mount=&from=`), or takes all of it (`?digest=`). What is
/// started hashes with `?digest-algorithm=`, or as the digest that could not be mounted.
pub(super) async fn start(app: &Arc<App>, repository: RepositoryName, request: Request) -> Result<Response, HttpError> {
    let query = Query::parse(request.uri().query())?;
    let mut algorithm = query.get("digest-algorithm").map(str::parse).transpose().map_err(RegistryError::Digest)?;
    if let Some(digest) = query.get("mount") {
        let digest = path::digest(digest)?;
        algorithm = algorithm.or(Some(digest.algorithm()));
        let from: Option<RepositoryName> =
            query.get("from").filter(|from| !from.is_empty()).map(str::parse).transpose()?;
        let (registry, name) = (app.registry.clone(), repository.clone());
        if app.bridge.call(move || registry.mount(&name, &digest, from.as_ref(), may_read)).await? {
            return Ok(created(&repository, &digest));
        }
    } else if let Some(digest) = query.get("digest") {
        let digest = path::digest(digest)?;
        let body = reader(app, request, None)?;
        let intake = Intake::new(app, repository.clone(), None, None, Some(digest));
        intake::take(app, intake, body).await?;
        return Ok(created(&repository, &digest));
    }
    let algorithm = algorithm.unwrap_or(Algorithm::Sha256);
    let id = app.bridge.at_once(|| app.registry.start_upload(&repository, algorithm))?;
    Ok(standing(StatusCode::ACCEPTED, &repository, &id, 0))
}

/// `GET /v2/<name>/blobs/uploads/<id>`
pub(super) async fn status(app: &Arc<App>, repository: RepositoryName, id: String) -> Result<Response, HttpError> {
    let offset = app.bridge.at_once(|| app.registry.upload_offset(&repository, &id))?;
    Ok(standing(StatusCode::NO_CONTENT, &repository, &id, offset))
}

/// `PATCH /v2/<name>/blobs/uploads/<id>`: a stream, or a chunk with `Content-Range`.
pub(super) async fn append(
    app: &Arc<App>,
    repository: RepositoryName,
    id: String,
    request: Request,
) -> Result<Response, HttpError> {
    let chunk = chunk(request.headers())?;
    let body = reader(app, request, chunk)?;
    let begins = chunk.map(|chunk| chunk.begins);
    let intake = Intake::new(app, repository.clone(), Some(id.clone()), begins, None);
    let offset = intake::take(app, intake, body).await?;
    Ok(standing(StatusCode::ACCEPTED, &repository, &id, offset))
}

/// `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>`, with or without a last chunk.
pub(super) async fn finish(
    app: &Arc<App>,
    repository: RepositoryName,
    id: String,
    request: Request,
) -> Result<Response, HttpError> {
    let query = Query::parse(request.uri().query())?;
    let digest = path::digest(query.get("digest").ok_or_else(HttpError::digest_missing)?)?;
    // Some clients announce an empty last chunk; there is no range of no bytes, so nothing can be checked.
    let has_body = request.body().size_hint().exact() != Some(0);
    let chunk = if has_body { chunk(request.headers())? } else { None };
    let body = reader(app, request, chunk)?;
    let begins = chunk.map(|chunk| chunk.begins);
    let intake = Intake::new(app, repository.clone(), Some(id), begins, Some(digest));
    intake::take(app, intake, body).await?;
    Ok(created(&repository, &digest))
}

/// `DELETE /v2/<name>/blobs/uploads/<id>`
pub(super) async fn cancel(app: &Arc<App>, repository: RepositoryName, id: String) -> Result<Response, HttpError> {
    let registry = app.registry.clone();
    app.bridge.call(move || registry.cancel_upload(&repository, &id)).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Which repositories the caller may read, and so mount from. There are no logins: whoever is let in may read all.
fn may_read(_repository: &RepositoryName) -> bool {
    true
}

/// The announced place of a chunk.
fn chunk(headers: &HeaderMap) -> Result<Option<range::Chunk>, HttpError> {
    let mut values = headers.get_all(header::CONTENT_RANGE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HttpError::size("a chunk has one Content-Range"));
    }
    match value.to_str().ok().and_then(range::chunk) {
        Some(chunk) => Ok(Some(chunk)),
        None => Err(HttpError::size(format!("Content-Range {value:?} is not <first byte>-<last byte>"))),
    }
}

/// The body of a chunk. When its length is announced twice, both must agree.
fn reader(app: &Arc<App>, request: Request, chunk: Option<range::Chunk>) -> Result<BodyReader, HttpError> {
    let body = request.into_body();
    let (hint, announced) = (body.size_hint(), chunk.map(|chunk| chunk.len));
    if let (Some(length), Some(announced)) = (hint.exact(), announced)
        && length != announced
    {
        return Err(HttpError::size(format!("Content-Length is {length}, Content-Range has {announced} bytes")));
    }
    if hint.lower() > app.limits.blob_bytes_max {
        return Err(HttpError::too_large("blob", app.limits.blob_bytes_max));
    }
    Ok(BodyReader::new(body, announced))
}

fn location(repository: &RepositoryName, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The range of the bytes that an upload has. Of none it cannot tell; `0-0` is what clients expect.
fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn standing(status: StatusCode, repository: &RepositoryName, id: &str, offset: u64) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(location(repository, id)));
    headers.insert(header::RANGE, header_value(received(offset)));
    headers.insert(DOCKER_UPLOAD_UUID, header_value(id));
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(format!("/v2/{repository}/blobs/{digest}")));
    headers.insert(DOCKER_CONTENT_DIGEST, header_value(digest.to_string()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}
