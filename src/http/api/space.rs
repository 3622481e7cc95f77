//! Space: segments, compacting them, and the search for copies of what should be gone.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde_json::{Value, json};

use super::{
    App, HttpError,
    collect::Nothing,
    input::{self, Parameters},
    optional_time, order, page, time, told,
};
use crate::{
    collect::{CompactionReport, Filling, SearchReport, SegmentInfo, SegmentState},
    digest::Digest,
    registry::RegistryError,
};

/// `GET segments`
pub(super) async fn segments(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let asked = Parameters::parse(query, &["n", "last"])?.page()?;
    let after = asked.place(|last| last.parse().ok())?;
    let collector = Arc::clone(&app.collector);
    let listed = app.bridge.call(move || {
        let segments = collector.segments(after, asked.asked())?;
        // A full page is followed by another one, which may be empty.
        let next = segments.last().filter(|_| segments.len() == asked.asked()).map(|last| last.number);
        Ok::<_, RegistryError>(asked.cut(segments, next))
    });
    let (segments, next) = listed.await?;
    page(app, "segments", segments.iter().map(segment).collect(), next.map(|next| next.to_string()))
}

fn segment(segment: &SegmentInfo) -> Value {
    json!({
        "number": segment.number,
        "kind": match segment.kind {
            Filling::Shared => "shared",
            Filling::Single => "single",
        },
        "state": match segment.state {
            SegmentState::Open => "open",
            SegmentState::Sealed => "sealed",
        },
        "allocated_bytes": segment.allocated_bytes,
        "length": segment.len,
        "live_bytes": segment.live_bytes,
        "dead_bytes": segment.dead_bytes,
        "live_records": segment.live_records,
        "created_at": optional_time(segment.created_ms),
    })
}

/// `POST compact`
pub(super) async fn compact(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    let dry_run = Parameters::parse(request.uri().query(), &["dry_run"])?.flag("dry_run")?;
    input::json::<Nothing>(request.into_body()).await?;
    let collector = Arc::clone(&app.collector);
    let done = order(app, move || collector.compact(dry_run)).await?;
    told(app, &compaction(&done))
}

fn compaction(report: &CompactionReport) -> Value {
    json!({
        "dry_run": report.dry_run,
        "began_at": time(report.began_ms),
        "ended_at": time(report.ended_ms),
        "segments": report.segments.len() as u64 + report.segments_more,
        "segments_removed": report.segments_removed,
        "moved_records": report.moved_records,
        "moved_bytes": report.moved_bytes,
        "returned_bytes": report.returned_bytes,
        "paused": report.paused,
        "incomplete": report.incomplete,
        "details": report.segments,
    })
}

/// Searches all files for copies of some content.
pub(super) async fn search(app: &Arc<App>, digest: Digest) -> Result<Value, HttpError> {
    let collector = Arc::clone(&app.collector);
    Ok(found(&order(app, move || collector.search(&digest)).await?))
}

fn found(report: &SearchReport) -> Value {
    json!({
        "began_at": time(report.began_ms),
        "ended_at": time(report.ended_ms),
        "files": report.files,
        "bytes": report.bytes,
        "found": report.found,
        "gone": report.gone,
        "places": report.places,
        "places_more": report.places_more,
    })
}
