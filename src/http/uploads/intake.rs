//! The bytes of an upload on their way from a body into the registry.
//!
//! The next chunk is received while the last one is written, so memory is bounded by two chunks; a body of one chunk takes
//! a single call, and holds the upload only for that. The upload is taken when the first chunk is there: a client
//! that says nothing blocks nobody. What came before a body failed is kept.

use std::{mem, sync::Arc};

use axum::http::header;

use super::{location, received};
use crate::{
    digest::{Algorithm, Digest},
    http::{App, DOCKER_UPLOAD_UUID, body::BodyReader, bridge::Bridge, error::HttpError},
    name::RepositoryName,
    registry::{Registry, RegistryError, UploadLease},
};

/// Bytes that a fast upload receives and writes at a time.
const STEP_LEN: usize = 1 << 20;

/// An upload being written to by one request. It moves into each call into the registry and comes back out.
#[derive(Debug)]
pub(super) struct Intake {
    registry: Arc<Registry>,
    bridge: Bridge,
    repository: RepositoryName,
    /// `None` for an upload of this request's own that is not started yet.
    id: Option<String>,
    /// Whether the upload ends with this request: its id was told to nobody.
    own: bool,
    begins: Option<u64>,
    finish: Option<Digest>,
    blob_bytes_max: u64,
    /// Bytes that the body has, as far as that was announced.
    announced: u64,
    lease: Option<UploadLease>,
}

impl Intake {
    /// Bytes for the upload `id`, or for one that lives as long as the request. They must begin at `begins`, if that
    /// is announced; when the body has come whole, the upload becomes the blob `finish`, or stays open.
    pub(super) fn new(
        app: &App,
        repository: RepositoryName,
        id: Option<String>,
        begins: Option<u64>,
        finish: Option<Digest>,
    ) -> Self {
        let own = id.is_none();
        let blob_bytes_max = app.limits.blob_bytes_max;
        let (registry, bridge) = (app.registry.clone(), app.bridge.clone());
        Self { registry, bridge, repository, id, own, begins, finish, blob_bytes_max, announced: 0, lease: None }
    }

    /// Writes a chunk that is not the last.
    fn write(mut self, chunk: &[u8]) -> Result<Self, HttpError> {
        match self.try_write(chunk) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    /// Writes the last chunk and ends the request's part; the bytes that the upload then has.
    fn end(mut self, chunk: &[u8], whole: bool) -> Result<u64, HttpError> {
        let ended = self.try_write(chunk).and_then(|()| self.try_end(whole));
        if ended.is_err() || !whole {
            self.give_up();
        }
        ended
    }

    fn try_write(&mut self, chunk: &[u8]) -> Result<(), HttpError> {
        let mut lease = match self.lease.take() {
            Some(lease) => lease,
            None => self.open()?,
        };
        let written = match lease.offset().checked_add(chunk.len() as u64) {
            Some(len) if len <= self.blob_bytes_max => lease.write(chunk).map_err(HttpError::from),
            _ => Err(HttpError::too_large("blob", self.blob_bytes_max)),
        };
        self.lease = Some(lease);
        written
    }

    fn open(&mut self) -> Result<UploadLease, HttpError> {
        let algorithm = self.finish.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.id.insert(self.registry.start_upload(&self.repository, algorithm)?).clone(),
        };
        let mut lease = self.registry.lease_upload(&self.repository, &id)?;
        if self.finish.is_some() {
            lease.hash_with(algorithm);
        }
        let offset = lease.offset();
        match self.begins {
            // The client is told where to go on; the upload stays as it is.
            Some(begins) if begins != offset => {
                Err(HttpError::from(RegistryError::UploadOutOfOrder { begins, offset })
                    .with(header::LOCATION, location(&self.repository, &id))
                    .with(header::RANGE, received(offset))
                    .with(DOCKER_UPLOAD_UUID, id))
            }
            _ => {
                lease.announce(self.announced, self.finish.as_ref())?;
                Ok(lease)
            }
        }
    }

    fn try_end(&mut self, whole: bool) -> Result<u64, HttpError> {
        let lease = self.lease.take().ok_or_else(|| HttpError::bug("an upload ended that was not open".to_owned()))?;
        match self.finish.filter(|_| whole) {
            Some(digest) => {
                let offset = lease.offset();
                lease.finish(digest)?;
                self.own = false;
                Ok(offset)
            }
            None => Ok(lease.keep()?),
        }
    }

    /// Gives the upload back, or ends it if nobody could go on with it.
    fn give_up(&mut self) {
        self.lease = None;
        if let Some(id) = self.id.as_ref().filter(|_| self.own) {
            cancel(&self.registry, &self.repository, id);
            self.own = false;
        }
    }
}

impl Drop for Intake {
    /// A handler whose client is gone is dropped between any two steps. Its own upload would stay open until it expires,
    /// and cancelling it may touch the disk.
    fn drop(&mut self) {
        self.lease = None;
        let Some(id) = self.id.take().filter(|_| self.own) else { return };
        // Without a runtime the process ends, and sessions end with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (registry, bridge, repository) = (self.registry.clone(), self.bridge.clone(), self.repository.clone());
        runtime.spawn(async move {
            let cancelled = bridge.go_on(move || {
                cancel(&registry, &repository, &id);
                Ok::<_, HttpError>(())
            });
            if let Err(error) = cancelled.await {
                error.log();
            }
        });
    }
}

fn cancel(registry: &Registry, repository: &RepositoryName, id: &str) {
    if let Err(error) = registry.cancel_upload(repository, id) {
        // It may be gone already; if not, it expires.
        tracing::debug!(upload = id, reason = %error, "an upload given up could not be cancelled");
    }
}

/// Takes a body in; the bytes that the upload then has.
///
/// # Errors
/// What the registry refuses, and the failure of the body: then what came is in the upload, unless that was the request's own.
pub(super) async fn take(app: &Arc<App>, mut intake: Intake, mut body: BodyReader) -> Result<u64, HttpError> {
    intake.announced = body.len_max().unwrap_or_default();
    // One more than there is: a body that comes in one chunk then ends with it.
    let len = body.len_max().map_or(STEP_LEN, |len| len.saturating_add(1).min(STEP_LEN as u64) as usize);
    let step = app.buffers.step(len);
    let (mut chunk, mut spare) = (Vec::new(), Vec::new());
    let mut came = body.fill(&mut chunk, step.len).await;
    let mut admitted = false;
    while let Ok(true) = came {
        let full = mem::replace(&mut chunk, spare);
        let write = move || Ok::<_, HttpError>((intake.write(&full)?, full));
        let writing = call(app, admitted, write);
        let (written, next) = tokio::join!(writing, body.fill(&mut chunk, step.len));
        (intake, spare) = written?;
        spare.clear();
        came = next;
        admitted = true;
    }
    let whole = came.is_ok();
    let offset = call(app, admitted, move || intake.end(&chunk, whole)).await?;
    came?;
    Ok(offset)
}

async fn call<T: Send + 'static>(
    app: &App,
    admitted: bool,
    call: impl FnOnce() -> Result<T, HttpError> + Send + 'static,
) -> Result<T, HttpError> {
    if admitted { app.bridge.go_on(call).await } else { app.bridge.call(call).await }
}
