//! The admin API: what operators ask and order, as JSON. `openapi.json` tells every route, parameter and field; a test holds
//! the two together.
//!
//! - `guard`: who may ask; no web page of somebody else's.
//! - `input`: parameters and bodies; what is not known is refused by name.
//! - `usage`, `quotas`, `policies`, `manifests`, `history`, `what_if`, `top`, `contents`, `collect`, `space`, `verify`, `health`: the routes,
//!   by what they are about.
//!
//! Answers are JSON objects; sizes are bytes, times RFC 3339. Lists have `n`, `last` and `next`.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, header},
    response::Response,
};
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{App, check_uri, error::HttpError, listings};
use input::Parameters;

mod collect;
mod contents;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod guard;
mod health;
mod history;
mod input;
mod manifests;
mod policies;
mod quotas;
mod space;
#[cfg(test)]
mod tests;
mod top;
mod usage;
pub(super) mod verify;
mod what_if;

/// Questions that are worked out at once of those that take long or much memory; the others wait.
pub(super) const QUESTIONS_MAX: usize = 2;

/// Orders that run, or wait for a run to join, at once; more are refused, or they would hold all threads of requests.
pub(super) const ORDERS_MAX: usize = 8;

/// Where all routes are.
const ROOT: &str = "/api/v1/";
/// The description of all routes.
const OPENAPI: &str = include_str!("api/openapi.json");

/// All routes behind `ROOT`, and their methods. `{digest}` and `{name}` stand for a component. `GET` answers `HEAD`, too.
const ROUTES: &[(&str, &str)] = &[
    ("openapi.json", "GET"),
    ("usage", "GET"),
    ("usage/history", "GET"),
    ("organizations", "GET"),
    ("repositories", "GET"),
    ("manifests", "GET"),
    ("quotas", "GET, PUT"),
    ("policies", "GET"),
    ("policies/explain", "GET"),
    ("policies/{name}", "PUT, DELETE"),
    ("policies/{name}/confirm", "POST"),
    ("what-if", "POST"),
    ("top", "GET"),
    ("history", "GET"),
    ("restore", "POST"),
    ("blobs/{digest}", "GET"),
    ("why", "GET"),
    ("collect", "GET, POST"),
    ("purge", "POST"),
    ("compact", "POST"),
    ("segments", "GET"),
    ("pause", "POST"),
    ("resume", "POST"),
    ("verify", "GET, POST"),
    ("scrub", "GET, POST"),
    ("status", "GET"),
    ("doctor", "GET"),
];

/// Routes whose POST takes as long as it takes, and ends by itself when the server shuts down. So does a search.
const LONG: &[&str] = &["collect", "purge", "compact", "verify", "scrub"];

/// Whether a path belongs to this API.
pub(super) fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// Answers a request whose path belongs here.
pub(super) async fn answer(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    check_uri(app, request.uri())?;
    guard::check(&request, &app.limits.api_hosts)?;
    if is_long(&request) {
        return dispatch(app, request).await;
    }
    let limit = app.limits.request_timeout;
    tokio::time::timeout(limit, dispatch(app, request)).await.unwrap_or_else(|_| Err(HttpError::timed_out(limit)))
}

fn is_long(request: &Request) -> bool {
    match route(request.uri().path()) {
        Some((route, ..)) if request.method() == Method::POST => LONG.contains(&route),
        Some(("blobs/{digest}", ..)) => contents::is_search(request.uri().query()),
        _ => false,
    }
}

/// Every route and method.
async fn dispatch(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    let path = request.uri().path().to_owned();
    let (route, allowed, component) = route(&path).ok_or_else(|| HttpError::no_route(&path))?;
    let method = match request.method().as_str() {
        "HEAD" if allowed.contains("GET") => "GET",
        method => method,
    };
    if matches!(method, "POST" | "PUT") && allowed.contains(method) {
        guard::check_json(&request)?;
    }
    let query = request.uri().query();
    match (route, method) {
        ("openapi.json", "GET") => {
            Parameters::parse(query, &[])?;
            Ok(json_bytes(Bytes::from_static(OPENAPI.as_bytes())))
        }
        ("usage", "GET") => usage::of_scope(app, query).await,
        ("organizations", "GET") => usage::organizations(app, query).await,
        ("repositories", "GET") => usage::repositories(app, query).await,
        ("manifests", "GET") => manifests::list(app, query).await,
        ("quotas", "GET") => quotas::list(app, query).await,
        ("quotas", "PUT") => quotas::set(app, request).await,
        ("policies", "GET") => policies::list(app, query).await,
        ("policies/explain", "GET") => policies::explain(app, query).await,
        ("policies/{name}", "PUT") => policies::set(app, &component, request).await,
        ("policies/{name}", "DELETE") => policies::remove(app, &component, query).await,
        ("policies/{name}/confirm", "POST") => policies::confirm(app, &component, request).await,
        ("what-if", "POST") => what_if::answer(app, request).await,
        ("top", "GET") => top::answer(app, query).await,
        ("history", "GET") => history::list(app, query).await,
        ("restore", "POST") => history::restore(app, request).await,
        ("blobs/{digest}", "GET") => contents::blob(app, &component, query).await,
        ("why", "GET") => contents::why(app, query).await,
        ("usage/history", "GET") => usage::samples(app, query).await,
        ("collect", "GET") => collect::status(app, query).await,
        ("collect", "POST") => collect::run(app, request).await,
        ("purge", "POST") => collect::purge(app, request).await,
        ("compact", "POST") => space::compact(app, request).await,
        ("segments", "GET") => space::segments(app, query).await,
        ("pause", "POST") => collect::switch(app, request, true).await,
        ("resume", "POST") => collect::switch(app, request, false).await,
        ("verify", "GET") => verify::status(app, query),
        ("verify", "POST") => verify::run(app, request).await,
        ("scrub", "GET") => health::scrub_status(app, query).await,
        ("scrub", "POST") => health::run_scrub(app, request).await,
        ("status", "GET") => health::status(app, query).await,
        ("doctor", "GET") => health::doctor(app, query).await,
        _ => Err(HttpError::method(match allowed {
            "GET" => "GET, HEAD",
            "GET, POST" => "GET, HEAD, POST",
            "GET, PUT" => "GET, HEAD, PUT",
            only => only,
        })),
    }
}

/// The route of a path, its methods, and the component that it names, decoded once.
fn route(path: &str) -> Option<(&'static str, &'static str, String)> {
    let rest = path.strip_prefix(ROOT)?;
    for &(route, methods) in ROUTES {
        match route.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?.1))) {
            Some((before, behind)) => {
                let component = rest.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
                if let Some(component) = component.filter(|component| !component.contains('/')) {
                    let component = percent_decode_str(component).decode_utf8_lossy().into_owned();
                    return Some((route, methods, component));
                }
            }
            None if route == rest => return Some((route, methods, String::new())),
            None => {}
        }
    }
    None
}

/// An answer, held in the budget of bodies while the client reads it.
fn told(app: &App, value: &Value) -> Result<Response, HttpError> {
    listings::held(app, Bytes::from(value.to_string()), "application/json", None)
}

/// A page of a list.
fn page(app: &App, plural: &str, items: Vec<Value>, next: Option<String>) -> Result<Response, HttpError> {
    told(app, &json!({ plural: items, "next": next }))
}

fn json_bytes(bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A time in Unix milliseconds as RFC 3339; one beyond the year 9999 as the last there is.
pub(super) fn time(time_ms: u64) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(Timestamp::MAX).to_string()
}

/// The same of a time that may be absent.
fn optional_time(time_ms: Option<u64>) -> Value {
    time_ms.map_or(Value::Null, |time_ms| time(time_ms).into())
}

/// Runs a call that takes long or much memory in one of few places: when it has begun it keeps its place to its end, even
/// when nobody waits for it any more.
async fn question<T, E>(app: &App, call: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, HttpError>
where
    T: Send + 'static,
    E: Into<HttpError> + Send + 'static,
{
    let place = Arc::clone(&app.questions).acquire_owned().await.map_err(|_| HttpError::closing())?;
    app.bridge
        .call(move || {
            let result = call();
            drop(place);
            result
        })
        .await
}

/// Runs an order that takes as long as it takes, or refuses it when very many do.
async fn order<T, E>(app: &App, call: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, HttpError>
where
    T: Send + 'static,
    E: Into<HttpError> + Send + 'static,
{
    let place = Arc::clone(&app.orders).try_acquire_owned().map_err(|_| HttpError::overloaded())?;
    app.bridge
        .call(move || {
            let result = call();
            drop(place);
            result
        })
        .await
}
