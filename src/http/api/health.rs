//! Whether all is well: what the process does and takes, what the scrub has found, and what the doctor says to it all.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde_json::{Value, json};

use super::{
    App, HttpError,
    collect::{Nothing, clock_until, paused},
    input::{self, Parameters},
    order, question, time, told,
};
use crate::{
    collect::{Collector, Pausable, ScrubFinding, ScrubReport, ScrubStatus},
    doctor::Level,
    registry::RegistryError,
};

/// `GET status`
pub(super) async fn status(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    Parameters::parse(query, &[])?;
    let (registry, collector) = (Arc::clone(&app.registry), Arc::clone(&app.collector));
    let uptime = app.began.elapsed().as_secs();
    let verifying = app.verification.is_running();
    let known = app.bridge.call(move || {
        let store = registry.store();
        let (doing, scrub) = (collector.status()?, collector.scrub_status()?);
        let running = [
            ("collect", doing.collecting),
            ("compact", doing.compacting),
            ("scrub", scrub.running),
            ("verify", verifying),
        ];
        let running: Vec<&str> = running.into_iter().filter(|(_, runs)| *runs).map(|(name, _)| name).collect();
        let refusal = store.poisoned();
        Ok::<_, RegistryError>(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": uptime,
            "time": time(store.options().clock.now_ms()),
            "writes": refusal.is_none(),
            "read_only": store.read_only().is_some(),
            "reason": refusal,
            "paused": paused(&doing),
            "clock_until": clock_until(&doing),
            "running": running,
            "damaged_blobs": store.damaged_count(),
            "findings": scrub.findings.len() as u64 + scrub.findings_more,
        }))
    });
    told(app, &known.await?)
}

/// `GET doctor`
pub(super) async fn doctor(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    Parameters::parse(query, &[])?;
    let doctor = Arc::clone(&app.doctor);
    let checks = question(app, move || Ok::<_, RegistryError>(doctor.examine())).await?;
    let level = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    told(app, &json!({ "level": level, "checks": checks }))
}

/// `GET scrub`
pub(super) async fn scrub_status(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    Parameters::parse(query, &[])?;
    let collector = Arc::clone(&app.collector);
    told(app, &app.bridge.call(move || scrub(&collector)).await?)
}

/// `POST scrub`
pub(super) async fn run_scrub(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    input::json::<Nothing>(request.into_body()).await?;
    let collector = Arc::clone(&app.collector);
    let done = order(app, move || {
        collector.scrub()?;
        scrub(&collector)
    });
    told(app, &done.await?)
}

fn scrub(collector: &Collector) -> Result<Value, RegistryError> {
    let status = collector.scrub_status()?;
    let (bytes_per_second, expected_end_ms) = (status.bytes_per_second, status.expected_end_ms);
    let ScrubStatus { running, pass, last, findings, findings_more, next_ms, .. } = status;
    let is_paused = collector.status()?.pauses.iter().any(|pause| pause.what == Pausable::Scrub);
    let pass = pass.map(|pass| {
        json!({
            "began_at": time(pass.began_ms),
            "records": pass.records,
            "bytes": pass.bytes,
            "total_bytes": pass.total_bytes,
            "bytes_per_second": bytes_per_second,
            "expected_end_at": expected_end_ms.map(time),
        })
    });
    Ok(json!({
        "running": running,
        "paused": is_paused,
        "pass": pass,
        "last": last.as_ref().map(report),
        "next_at": time(next_ms),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_more": findings_more,
    }))
}

fn report(report: &ScrubReport) -> Value {
    json!({
        "began_at": time(report.began_ms),
        "ended_at": time(report.ended_ms),
        "records": report.records,
        "bytes": report.bytes,
        "repaired": report.repaired,
    })
}

fn finding(finding: &ScrubFinding) -> Value {
    json!({
        "kind": finding.kind,
        "file": finding.file,
        "offset": finding.offset,
        "digest": finding.digest,
        "hurts": finding.hurts,
        "hurts_more": finding.hurts_more,
        "what": finding.what,
        "found_at": time(finding.found_ms),
    })
}
