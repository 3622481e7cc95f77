//! What the registry, organisations and repositories store, alone and in lists.

use std::sync::Arc;

use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{App, HttpError, input::Parameters, page, time, told};
use crate::{
    collect::DiskUsage,
    index::schema::UsageRow,
    registry::{OrganisationUsage, RegistryError, RepositoryUsage, Sample},
};

/// `GET usage`
pub(super) async fn of_scope(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["organization", "repository"])?;
    let (organization, repository) = (parameters.organization()?, parameters.repository()?);
    let (registry, collector) = (Arc::clone(&app.registry), Arc::clone(&app.collector));
    let usage = app.bridge.call(move || match (organization, repository) {
        (None, None) => Ok(whole(&registry.usage()?, &collector.disk()?)),
        (Some(name), None) => Ok(organization_json(&registry.organisation_usage(&name)?)),
        (None, Some(name)) => Ok(repository_json(&registry.repository_usage(&name)?)),
        (Some(_), Some(_)) => Err(HttpError::bad_request("ask for an organization or a repository, not for both")),
    });
    told(app, &usage.await?)
}

/// `GET organizations`
pub(super) async fn organizations(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let wanted = Parameters::parse(query, &["n", "last"])?.page()?;
    let registry = Arc::clone(&app.registry);
    let listed = app.bridge.call(move || {
        let list = registry.organisations(wanted.last(), wanted.asked())?;
        Ok::<_, RegistryError>(wanted.cut(list.items, list.next))
    });
    let (items, next) = listed.await?;
    page(app, "organizations", items.iter().map(organization_json).collect(), next)
}

/// `GET repositories`
pub(super) async fn repositories(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["organization", "n", "last"])?;
    let (organization, wanted) = (parameters.organization()?, parameters.page()?);
    let registry = Arc::clone(&app.registry);
    let listed = app.bridge.call(move || {
        let list = registry.repository_usages(organization.as_deref(), wanted.last(), wanted.asked())?;
        Ok::<_, RegistryError>(wanted.cut(list.items, list.next))
    });
    let (items, next) = listed.await?;
    page(app, "repositories", items.iter().map(repository_json).collect(), next)
}

/// `GET usage/history`
pub(super) async fn samples(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["organization", "n", "last"])?;
    let (organization, asked) = (parameters.organization()?, parameters.page()?);
    let after = asked.place(day_of)?;
    let registry = Arc::clone(&app.registry);
    let listed = app.bridge.call(move || {
        let list = registry.samples(organization.as_deref(), after, asked.asked())?;
        Ok::<_, RegistryError>(asked.cut(list.items, list.next))
    });
    let (items, next) = listed.await?;
    page(app, "samples", items.iter().map(sample).collect(), next.map(date))
}

fn sample((day, row): &Sample) -> Value {
    json!({
        "day": date(*day),
        "unique_bytes": row.used_bytes,
        "manifest_bytes": row.manifest_bytes,
        "reclaimable_bytes": row.reclaimable_bytes,
        "manifests": row.manifests,
        "tags": row.tags,
        "blobs": row.blobs,
        "repositories": row.repositories,
    })
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A day since 1970-01-01 as a date.
fn date(day: u32) -> String {
    time(u64::from(day) * DAY_MS).chars().take_while(|&letter| letter != 'T').collect()
}

/// The day of a date.
fn day_of(text: &str) -> Option<u32> {
    let time: Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
    u32::try_from(u64::try_from(time.as_millisecond()).ok()? / DAY_MS).ok()
}

fn whole(totals: &UsageRow, disk: &DiskUsage) -> Value {
    let own = json!({
        "scope": "registry",
        "organizations": totals.organisations,
        "repositories": totals.repositories,
        "disk_bytes": disk.disk_bytes,
        "live_bytes": disk.live_bytes,
        "dead_bytes": disk.dead_bytes,
    });
    with_totals(own, totals)
}

fn organization_json(usage: &OrganisationUsage) -> Value {
    let own = json!({
        "scope": "organization", "name": usage.name, "repositories": usage.totals.repositories,
    });
    with_totals(own, &usage.totals)
}

fn repository_json(usage: &RepositoryUsage) -> Value {
    let own = json!({
        "scope": "repository", "name": usage.name, "organization": usage.name.organisation(),
        "created_at": time(usage.created_ms),
    });
    with_totals(own, &usage.totals)
}

fn with_totals(mut usage: Value, totals: &UsageRow) -> Value {
    let numbers = [
        ("unique_bytes", totals.used_bytes),
        ("manifest_bytes", totals.manifest_bytes),
        ("reclaimable_bytes", totals.reclaimable_bytes),
        ("settling", totals.settling),
        ("manifests", totals.manifests),
        ("tags", totals.tags),
        ("blobs", totals.blobs),
    ];
    for (name, number) in numbers {
        usage[name] = number.into();
    }
    usage["state_hash"] = totals.state_hash.to_string().into();
    usage
}
