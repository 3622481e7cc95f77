//! What the registry, organisations and repositories store, alone and in lists.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, HttpError, input::Parameters, page, time, told};
use crate::{
    index::schema::UsageRow,
    registry::{OrganisationUsage, RegistryError, RepositoryUsage},
};

/// `GET usage`
pub(super) async fn of_scope(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["organization", "repository"])?;
    let (organization, repository) = (parameters.organization()?, parameters.repository()?);
    let registry = Arc::clone(&app.registry);
    let usage = app.bridge.call(move || match (organization, repository) {
        (None, None) => Ok(whole(&registry.usage()?)),
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

fn whole(totals: &UsageRow) -> Value {
    let own = json!({
        "scope": "registry", "organizations": totals.organisations, "repositories": totals.repositories,
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
    usage
}
