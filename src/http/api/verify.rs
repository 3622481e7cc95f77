//! The store against itself, while it is in use: one verification at a time.
//!
//! It takes what it takes, so it has no time limit; it ends early when its client goes away, and when the server shuts
//! down. How far it is can be asked for meanwhile.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App, HttpError,
    input::{self, Parameters},
    time, told,
};
use crate::verify::{self, Phase, Progress, VerifyError, VerifyOptions, VerifyReport};

/// The verification under way, if there is one.
#[derive(Debug, Default)]
pub(in crate::http) struct Verification {
    progress: Mutex<Option<Progress>>,
    closing: AtomicBool,
}

impl Verification {
    /// Ends the one under way soon, and each later one.
    pub(in crate::http) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_running(&self) -> bool {
        self.progress().is_some()
    }

    fn progress(&self) -> MutexGuard<'_, Option<Progress>> {
        // A holder that panicked has changed nothing by half.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    content: bool,
}

/// The place of a verification: free again when it is dropped, whatever became of it.
struct Place(Arc<App>);

impl Place {
    fn take(app: &Arc<App>) -> Result<Self, HttpError> {
        let mut progress = app.verification.progress();
        if progress.is_some() {
            return Err(HttpError::conflict(
                "a verification is under way already; GET /api/v1/verify tells how far it is",
            ));
        }
        *progress = Some(Progress { phase: Phase::Counting, done: 0, total: None });
        drop(progress);
        Ok(Self(Arc::clone(app)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.verification.progress() = None;
    }
}

/// Says, when it is dropped, that nobody waits any more.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// `POST verify`
pub(super) async fn run(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    let asked: Asked = input::json(request.into_body()).await?;
    let place = Place::take(app)?;
    let gone = Gone(Arc::default());
    let is_gone = Arc::clone(&gone.0);
    let options = VerifyOptions {
        content: asked.content,
        content_bytes_per_second: Some(app.limits.verify_bytes_per_second),
        memory_bytes_max: Some(app.limits.verify_memory_bytes),
        opening: app.limits.verify_opening,
    };
    let report = app.bridge.call(move || {
        let Place(app) = &place;
        verify::verify(app.registry.store(), &options, &mut |progress| {
            *app.verification.progress() = Some(progress);
            let closing = app.verification.closing.load(Ordering::Acquire);
            if closing || is_gone.load(Ordering::Acquire) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    let report: Result<VerifyReport, HttpError> = report.await;
    drop(gone);
    told(app, &answer(&report?))
}

/// A report as it is answered.
pub fn answer(report: &VerifyReport) -> Value {
    json!({
        "began_at": time(report.began_ms),
        "ended_at": time(report.ended_ms),
        "lsn": report.lsn,
        "state_hash": report.state_hash,
        "manifests": report.manifests,
        "records": report.records,
        "segments": report.segments,
        "content_bytes": report.content_bytes,
        "findings": report.findings,
        "findings_more": report.findings_more,
        "unchecked": report.unchecked,
        "unchecked_more": report.unchecked_more,
        "opening": report.opening,
    })
}

/// `GET verify`
pub(super) fn status(app: &App, query: Option<&str>) -> Result<Response, HttpError> {
    Parameters::parse(query, &[])?;
    let progress = *app.verification.progress();
    let far = json!({
        "running": progress.is_some(),
        "phase": progress.map(|progress| progress.phase),
        "done": progress.map(|progress| progress.done),
        "total": progress.and_then(|progress| progress.total),
    });
    told(app, &far)
}

impl From<VerifyError> for HttpError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Stopped => Self::closing(),
            VerifyError::TooLarge { .. } => Self::too_much(error.to_string()),
            VerifyError::Store(error) => crate::registry::RegistryError::from(error).into(),
        }
    }
}
