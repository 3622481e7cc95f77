//! HTTP: the OCI distribution routes and the admin API over a [`Registry`].
//!
//! `server` owns connections, `path` says what a request is about, one file per resource answers it, and `error` has the
//! only table of status codes. `api` has the routes of operators. What may touch the disk crosses one `bridge`. Nothing
//! here knows where bytes lie, and nothing below here knows of status codes.
//!
//! Invariants: every wait for a client has a bound (`pace`, `server`), every buffer comes out of a budget (`buffers`),
//! and a request that cannot be served now is told so (429, 503) rather than queued without end.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Uri, header},
    response::Response,
};

use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    collect::Collector,
    doctor::{Doctor, Host},
    registry::Registry,
};
use bridge::Bridge;
use buffers::Buffers;
use error::HttpError;
use exchange::Exchange;
use path::Route;
use query::Query;
use sending::Sending;
use server::Asked;

mod accept;
mod api;
mod blobs;
mod body;
mod bridge;
mod buffers;
mod error;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod listings;
mod manifests;
mod multipart;
mod pace;
mod path;
mod query;
mod range;
mod referrers;
mod sending;
pub mod server;
mod stream;
mod uploads;

pub use api::verify::answer as verify_answer;
pub use exchange::{LoggedBody, REQUESTS};
pub use pace::PaceLimits;

const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Longest `ns` that is told back: a host and port.
const NAMESPACE_LEN_MAX: usize = 260;

/// Bounds of the handlers; those of connections are [`server::ServerLimits`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest path and query in bytes.
    pub uri_bytes_max: usize,
    /// Longest time until a request is answered, uploads excepted: those may be long, and are bound by their pace.
    pub request_timeout: Duration,
    /// Largest blob in bytes.
    pub blob_bytes_max: u64,
    /// Memory in bytes for the bodies on their way; beyond it they go on in small steps.
    pub body_memory_bytes: u64,
    /// Calls into the registry that run at once, each on a thread.
    pub blocking_threads: usize,
    /// Requests that may wait for such a thread; more are answered 503.
    pub blocking_queue: usize,
    /// Names, beside IP addresses and `localhost`, by which the admin API may be reached; lower case, without ports.
    pub api_hosts: Vec<String>,
    /// Memory in bytes that a verification may take for counting, about.
    pub verify_memory_bytes: u64,
    /// Bytes of content that a verification reads in a second, at most.
    pub verify_bytes_per_second: u64,
    /// Whether a verification tells what opening the store had to mend; no setting, but for who opens it to verify it.
    pub verify_opening: bool,
}

/// What the handlers share.
#[derive(Debug)]
pub struct App {
    registry: Arc<Registry>,
    collector: Arc<Collector>,
    doctor: Arc<Doctor>,
    bridge: Bridge,
    buffers: Buffers,
    /// Places for questions of the admin API that take long or much memory.
    questions: Arc<Semaphore>,
    /// Places for orders of the admin API that take as long as they take.
    orders: Arc<Semaphore>,
    verification: api::verify::Verification,
    /// When the handlers were made.
    began: std::time::Instant,
    limits: Limits,
}

impl server::Service for Arc<App> {
    type Body = LoggedBody;

    async fn answer(self, request: Request, asked: Asked) -> Response<LoggedBody> {
        let exchange = Exchange::begin(&request, asked.received);
        exchange.answered(answer(&self, request, asked.sending).await)
    }
}

impl App {
    /// Handlers over a registry, and over what collects in it, in a process that `host` tells of. What they call there runs on the
    /// blocking pool of `runtime`, which has to outlive them.
    pub fn new(
        registry: Arc<Registry>,
        collector: Arc<Collector>,
        host: Host,
        limits: Limits,
        runtime: Handle,
    ) -> Self {
        let doctor = Arc::new(Doctor::new(Arc::clone(&registry), Arc::clone(&collector), host));
        let bridge = Bridge::new(runtime, limits.blocking_threads, limits.blocking_queue);
        let buffers = Buffers::new(limits.body_memory_bytes);
        let questions = Arc::new(Semaphore::new(api::QUESTIONS_MAX));
        let orders = Arc::new(Semaphore::new(api::ORDERS_MAX));
        let verification = api::verify::Verification::default();
        Self {
            registry,
            collector,
            doctor,
            bridge,
            buffers,
            questions,
            orders,
            verification,
            began: std::time::Instant::now(),
            limits,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What collects in the registry.
    pub fn collector(&self) -> &Arc<Collector> {
        &self.collector
    }

    /// Ends uploads that nobody has written to for longer than `idle`; failures are logged. For the caller to schedule.
    pub async fn expire_uploads(&self, idle: Duration) {
        let registry = Arc::clone(&self.registry);
        match self.bridge.go_on(move || registry.expire_uploads(idle)).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "idle uploads were ended"),
            Err(error) => error.log(),
        }
    }

    /// Writes when manifests were pulled; failures are logged. For the caller to schedule; [`close`](Self::close) does it a last
    /// time.
    pub async fn write_pulls(&self) {
        let registry = Arc::clone(&self.registry);
        if let Err(error) = self.bridge.go_on(move || registry.write_pulls()).await {
            error.log();
        }
    }

    /// Ends soon what may take very long, so that shutting down need not wait for it: to be called as that begins.
    pub fn end_long_work(&self) {
        self.verification.close();
        self.collector.stop();
    }

    /// Refuses new calls into the registry and waits until those that run have ended. Only then may it be closed: a
    /// connection that was cut leaves its last call running.
    pub async fn close(&self) {
        self.end_long_work();
        self.write_pulls().await;
        self.bridge.close().await;
    }
}

async fn answer(app: &Arc<App>, request: Request, sending: Option<Sending>) -> Response {
    if api::is_api(request.uri().path()) {
        // A box, as it takes twice the room of what is asked most.
        let answer = Box::pin(api::answer(app, request)).await;
        return answer.unwrap_or_else(|error| error.into_response(&app.buffers));
    }
    let namespace = namespace(request.uri().query());
    let mut response = match route(app, request, sending).await {
        Ok(response) => response,
        Err(error) => error.into_response(&app.buffers),
    };
    response.headers_mut().insert(DOCKER_API_VERSION, HeaderValue::from_static("registry/2.0"));
    if let Some(namespace) = namespace {
        response.headers_mut().insert(OCI_NAMESPACE, namespace);
    }
    response
}

/// The `ns` of a client that takes this registry for a proxy of another (OCI distribution, "Registry Proxying"). Names mean
/// the same with and without it; it is told back, so that such a client goes on. What is no host is passed over.
fn namespace(query: Option<&str>) -> Option<HeaderValue> {
    let query = Query::parse(query.filter(|query| query.contains("ns="))).ok()?;
    let namespace = query.get("ns")?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte);
    let valid = !namespace.is_empty() && namespace.len() <= NAMESPACE_LEN_MAX && namespace.bytes().all(is_host);
    valid.then(|| header_value(namespace))
}

/// Refuses a path and query that are longer than the limit.
fn check_uri(app: &App, uri: &Uri) -> Result<(), HttpError> {
    if uri.path().len() + uri.query().map_or(0, str::len) > app.limits.uri_bytes_max {
        return Err(HttpError::uri_too_long(app.limits.uri_bytes_max));
    }
    Ok(())
}

async fn route(app: &Arc<App>, request: Request, sending: Option<Sending>) -> Result<Response, HttpError> {
    let uri = request.uri();
    check_uri(app, uri)?;
    let route = path::parse(uri.path())?;
    if matches!(route, Route::Uploads { .. } | Route::Upload { .. }) {
        return dispatch(app, route, request, sending).await;
    }
    let limit = app.limits.request_timeout;
    tokio::time::timeout(limit, dispatch(app, route, request, sending))
        .await
        .unwrap_or_else(|_| Err(HttpError::timed_out(limit)))
}

/// Every route and method. The server drops the body of an answer to HEAD; where making one costs, handlers are told.
async fn dispatch(
    app: &Arc<App>,
    route: Route,
    request: Request,
    sending: Option<Sending>,
) -> Result<Response, HttpError> {
    app.registry.note_asked();
    let allowed = route.methods();
    match (route, request.method().as_str()) {
        (Route::Base, "GET" | "HEAD") => Ok(json_response(&serde_json::json!({}))),
        (Route::Catalog, "GET" | "HEAD") => listings::catalog(app, request.uri().query()).await,
        (Route::Tags { repository }, "GET" | "HEAD") => listings::tags(app, repository, request.uri().query()).await,

        (Route::Manifest { repository, reference }, "GET") => {
            manifests::get(app, repository, &reference, request.headers()).await
        }
        (Route::Manifest { repository, reference }, "HEAD") => {
            manifests::head(app, repository, &reference, request.headers()).await
        }
        (Route::Manifest { repository, reference }, "PUT") => {
            manifests::put(app, repository, &reference, request).await
        }
        (Route::Manifest { repository, reference }, "DELETE") => manifests::delete(app, repository, &reference).await,

        (Route::Referrers { repository, subject }, "GET" | "HEAD") => {
            referrers::list(app, repository, subject, request.uri().query()).await
        }

        (Route::Blob { repository, digest }, "GET") => {
            blobs::get(app, repository, digest, request.headers(), sending).await
        }
        (Route::Blob { repository, digest }, "HEAD") => blobs::head(app, repository, digest, request.headers()).await,
        (Route::Blob { repository, digest }, "DELETE") => blobs::delete(app, repository, digest).await,

        // Boxes, as these take three times the room of all others, which every request would be made with.
        (Route::Uploads { repository }, "POST") => Box::pin(uploads::start(app, repository, request)).await,
        (Route::Upload { repository, id }, "GET" | "HEAD") => uploads::status(app, repository, id).await,
        (Route::Upload { repository, id }, "PATCH") => Box::pin(uploads::append(app, repository, id, request)).await,
        (Route::Upload { repository, id }, "PUT") => Box::pin(uploads::finish(app, repository, id, request)).await,
        (Route::Upload { repository, id }, "DELETE") => uploads::cancel(app, repository, id).await,
        _ => Err(HttpError::method(allowed)),
    }
}

fn json_response(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A header value of text that a parser let through; an empty one where it holds what a header cannot.
fn header_value(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
