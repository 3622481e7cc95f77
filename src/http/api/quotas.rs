//! Quotas: what organisations and repositories may store.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App, HttpError,
    input::{self, Parameters},
    page, time, told,
};
use crate::{
    name::Owner,
    registry::{List, Quota, Registry, RegistryError},
};

/// `GET quotas`: all, or those that a push to a repository, or to any of an organisation, meets.
pub(super) async fn list(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["organization", "repository", "n", "last"])?;
    let asked = parameters.page()?;
    let after: Option<Owner> = asked.place(|last| last.parse().ok())?;
    let met = match (parameters.organization()?, parameters.repository()?) {
        (None, None) => None,
        (Some(name), None) => Some(vec![Owner::Organisation(name)]),
        (None, Some(name)) => Some(Owner::of(&name).to_vec()),
        (Some(_), Some(_)) => return Err(HttpError::bad_request("name an organization or a repository, or none")),
    };
    let registry = Arc::clone(&app.registry);
    let listed = app.bridge.call(move || {
        let list = match met {
            Some(met) => those(&registry, &met)?,
            None => registry.quotas(after.as_ref(), asked.asked())?,
        };
        Ok::<_, RegistryError>(asked.cut(list.items, list.next))
    });
    let (items, next) = listed.await?;
    page(app, "quotas", items.iter().map(quota).collect(), next)
}

fn those(registry: &Registry, owners: &[Owner]) -> Result<List<Quota>, RegistryError> {
    let found = owners.iter().filter_map(|owner| registry.quota(owner).transpose());
    Ok(List { items: found.collect::<Result<_, _>>()?, next: None })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    organization: Option<String>,
    repository: Option<String>,
    // With a function of its own the field has to be there: nobody is to lose a limit by forgetting it.
    #[serde(deserialize_with = "Option::deserialize")]
    limit_bytes: Option<u64>,
}

/// `PUT quotas`
pub(super) async fn set(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    let wanted: Set = input::json(request.into_body()).await?;
    let owner = input::owner(wanted.organization.as_deref(), wanted.repository.as_deref())?;
    let registry = Arc::clone(&app.registry);
    let set = app.bridge.call(move || registry.set_quota(&owner, wanted.limit_bytes)).await?;
    let warning = set.as_ref().filter(|quota| quota.used_bytes() > quota.limit_bytes).map(|quota| {
        format!(
            "{} has {} bytes, more than its quota of {} bytes: nothing more can be pushed there until it has less",
            quota.owner,
            quota.used_bytes(),
            quota.limit_bytes
        )
    });
    told(app, &json!({ "quota": set.as_ref().map(quota), "warning": warning }))
}

fn quota(quota: &Quota) -> Value {
    let (organization, repository) = match &quota.owner {
        Owner::Organisation(name) => (Some(name), None),
        Owner::Repository(name) => (None, Some(name)),
    };
    json!({
        "organization": organization,
        "repository": repository,
        "limit_bytes": quota.limit_bytes,
        "used_bytes": quota.used_bytes(),
        "stored_bytes": quota.stored_bytes,
        "uploading_bytes": quota.uploading_bytes,
        "free_bytes": quota.limit_bytes.saturating_sub(quota.used_bytes()),
        "reclaimable_bytes": quota.reclaimable_bytes,
        "set_at": time(quota.set_ms),
    })
}
