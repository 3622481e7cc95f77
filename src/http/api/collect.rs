//! The collector: running it, what it did, what is due, and the emergency switches.
//!
//! Who orders a run waits for its end, however long that is, in one of few places; who asks while one runs joins it. When
//! the server shuts down, a run ends at its next safe point.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    App, HttpError,
    input::{self, Parameters},
    optional_time, order, time, told,
};
use crate::{
    collect::{CollectionReport, DueSummary, Kept, Kind, Pausable, Reason, Status},
    registry::RegistryError,
};

/// Reports of the status where the client does not say: they can be long.
const REPORTS_DEFAULT: usize = 10;

/// A body without fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `GET collect`
pub(super) async fn status(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["n"])?;
    let limit = if parameters.text("n").is_some() { parameters.page()?.limit } else { REPORTS_DEFAULT };
    let collector = Arc::clone(&app.collector);
    let known = app.bridge.call(move || {
        let status = collector.status()?;
        let due = due(&collector.due()?);
        let reports: Vec<Value> = collector.reports(limit)?.iter().map(|kept| report(kept, &status)).collect();
        Ok::<_, RegistryError>(json!({
            "running": status.collecting,
            "compacting": status.compacting,
            "paused": paused(&status),
            "clock_until": clock_until(&status),
            "due": due,
            "reports": reports,
        }))
    });
    told(app, &known.await?)
}

/// `POST collect`
pub(super) async fn run(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    let dry_run = Parameters::parse(request.uri().query(), &["dry_run"])?.flag("dry_run")?;
    input::json::<Nothing>(request.into_body()).await?;
    let collector = Arc::clone(&app.collector);
    let done = order(app, move || {
        let done = collector.collect(dry_run)?;
        Ok::<_, RegistryError>(report(&done, &collector.status()?))
    });
    told(app, &done.await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purged {
    organization: Option<String>,
    repository: Option<String>,
}

/// `POST purge`
pub(super) async fn purge(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    let dry_run = Parameters::parse(request.uri().query(), &["dry_run"])?.flag("dry_run")?;
    let purged: Purged = input::json(request.into_body()).await?;
    let of = input::owner(purged.organization.as_deref(), purged.repository.as_deref())?;
    let collector = Arc::clone(&app.collector);
    let done = order(app, move || {
        let done = collector.purge(&of, dry_run)?;
        Ok::<_, RegistryError>(report(&done, &collector.status()?))
    });
    told(app, &done.await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switched {
    what: Switch,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Switch {
    Collect,
    Compact,
    Scrub,
}

/// `POST pause` and `POST resume`
pub(super) async fn switch(app: &Arc<App>, request: Request, on: bool) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    let switched: Switched = input::json(request.into_body()).await?;
    let what = match switched.what {
        Switch::Collect => Pausable::Collect,
        Switch::Compact => Pausable::Compact,
        Switch::Scrub => Pausable::Scrub,
    };
    let collector = Arc::clone(&app.collector);
    let status = app.bridge.call(move || {
        if on {
            collector.pause(what)?
        } else {
            collector.resume(what)?
        }
        collector.status()
    });
    told(app, &json!({ "paused": paused(&status.await?) }))
}

/// What somebody has paused.
pub(super) fn paused(status: &Status) -> Vec<&'static str> {
    let name = |what| match what {
        Pausable::Collect => Some("collect"),
        Pausable::Compact => Some("compact"),
        Pausable::Scrub => Some("scrub"),
        Pausable::Clock => None,
    };
    status.pauses.iter().filter_map(|pause| name(pause.what)).collect()
}

/// Until when nothing is dropped because the clock has jumped.
pub(super) fn clock_until(status: &Status) -> Value {
    let pause = status.pauses.iter().find(|pause| pause.what == Pausable::Clock);
    optional_time(pause.and_then(|pause| pause.until_ms))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Link => "link",
        Kind::Manifest => "manifest",
        Kind::History => "history",
        Kind::Repository => "repository",
        Kind::DropRecord => "record",
        Kind::Tag => "tag",
        Kind::Root => "root",
        Kind::Eviction => "eviction",
    }
}

fn due(due: &DueSummary) -> Value {
    let kinds = due.kinds.iter().map(|kind| {
        let count = json!({ "count": kind.count, "more": kind.more, "next_at": optional_time(kind.next_due_ms) });
        (kind_name(kind.kind).to_owned(), count)
    });
    let mut all: Map<String, Value> = kinds.collect();
    all.insert("erase".to_owned(), json!({ "count": due.dead_records, "more": due.dead_more, "next_at": null }));
    all.into()
}

/// A report as it is told; what keeps everything stands first among what stays.
fn report(report: &CollectionReport, status: &Status) -> Value {
    let dropped = report.dropped.iter().map(|dropped| {
        json!({
            "kind": kind_name(dropped.kind),
            "digest": dropped.digest,
            "repository": dropped.repository,
            "bytes": dropped.bytes,
            "last": dropped.last,
            "tag": dropped.tag,
            "policy": dropped.policy,
        })
    });
    let totals: Map<String, Value> =
        report.totals.iter().map(|total| (kind_name(total.kind).to_owned(), total.count.into())).collect();
    let stopped = report.paused.map(|what| match what {
        Pausable::Clock => stopped("clock", clock_until(status)),
        _ => stopped("paused", Value::Null),
    });
    json!({
        "id": report.id,
        "trigger": report.trigger,
        "dry_run": report.dry_run,
        "began_at": time(report.began_ms),
        "dropped_at": time(report.dropped_ms),
        "ended_at": time(report.ended_ms),
        "dropped": dropped.collect::<Vec<_>>(),
        "dropped_more": report.dropped_more,
        "dropped_totals": totals,
        "freed_bytes": report.freed_bytes,
        "returned_bytes": report.returned_bytes,
        "erased_records": report.erased_records,
        "segments_removed": report.segments_removed,
        "still_read": report.still_read,
        "kept": stopped.into_iter().chain(report.kept.iter().map(kept)).collect::<Vec<_>>(),
        "kept_more": report.kept_more,
        "held_back": report.held_back,
        "incomplete": report.incomplete,
    })
}

fn stopped(why: &str, until: Value) -> Value {
    json!({ "kind": why, "digest": null, "repository": null, "bytes": 0, "why": why, "until": until })
}

fn kept(kept: &Kept) -> Value {
    json!({
        "kind": kind_name(kept.kind),
        "digest": kept.digest,
        "repository": kept.repository,
        "bytes": kept.bytes,
        "why": match kept.reason {
            Reason::Window => "window",
            Reason::Grace => "grace",
            Reason::OpenUpload => "upload",
        },
        "until": time(kept.until_ms),
    })
}
