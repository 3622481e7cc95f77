//! What keeps the most by itself.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, HttpError, input::Parameters, question, told};
use crate::registry::{RegistryError, TOP_MAX, Top, TopManifest, TopScope};

/// Entries where the client does not say.
const TOP_DEFAULT: usize = 10;

/// `GET top`
pub(super) async fn answer(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["organization", "repository", "n"])?;
    let limit = if parameters.text("n").is_some() { parameters.page()?.limit.min(TOP_MAX) } else { TOP_DEFAULT };
    let (organization, repository) = (parameters.organization()?, parameters.repository()?);
    if organization.is_some() && repository.is_some() {
        return Err(HttpError::bad_request("ask for an organization or a repository, not for both"));
    }
    let registry = Arc::clone(&app.registry);
    let top = question(app, move || {
        Ok::<_, RegistryError>(match (organization, repository) {
            (Some(name), _) => list("repositories", &registry.top_repositories(&name, limit)?, scope),
            (_, Some(name)) => list("manifests", &registry.top_manifests(&name, limit)?, manifest),
            (None, None) => list("organizations", &registry.top_organisations(limit)?, scope),
        })
    });
    told(app, &top.await?)
}

fn list<T>(plural: &str, top: &Top<T>, entry: fn(&T) -> Value) -> Value {
    json!({ plural: top.items.iter().map(entry).collect::<Vec<_>>(), "complete": top.complete })
}

fn scope(found: &TopScope) -> Value {
    json!({
        "name": found.name,
        "unique_bytes": found.totals.used_bytes,
        "reclaimable_bytes": found.totals.reclaimable_bytes,
        "freed_bytes": found.freed_bytes,
    })
}

fn manifest(found: &TopManifest) -> Value {
    let info = &found.info;
    json!({
        "digest": info.digest,
        "tags": info.tags,
        "tags_total": info.row.tags,
        "state": info.state.name(),
        "unique_bytes": info.image_bytes,
        "reclaimable_bytes": info.reclaimable_bytes,
        "freed_bytes": found.freed_bytes,
    })
}
