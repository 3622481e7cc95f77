//! The manifests of a repository.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, HttpError, input::Parameters, optional_time, page, question, time};
use crate::registry::{ManifestInfo, ManifestsWanted, RegistryError};

/// `GET manifests`
pub(super) async fn list(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["repository", "digest", "own", "n", "last"])?;
    let (repository, asked) = (parameters.needed_repository()?, parameters.page()?);
    let wanted = ManifestsWanted {
        digest: parameters.digest("digest")?,
        own: parameters.flag("own")?,
        after: asked.place(|last| last.parse().ok())?,
        limit: asked.asked(),
    };
    let (registry, own) = (Arc::clone(&app.registry), wanted.own);
    let listed = question(app, move || {
        let list = registry.manifests(&repository, &wanted)?;
        Ok::<_, RegistryError>(asked.cut(list.items, list.next))
    });
    let (items, next) = listed.await?;
    page(app, "manifests", items.iter().map(|info| manifest(info, own)).collect(), next.map(|next| next.to_string()))
}

fn manifest(info: &ManifestInfo, own: bool) -> Value {
    let row = &info.row;
    let mut manifest = json!({
        "digest": info.digest,
        "media_type": row.media_type,
        "artifact_type": row.artifact_type.as_ref().filter(|text| !text.is_empty()),
        "subject": row.subject,
        "size": row.size,
        "image_bytes": info.image_bytes,
        "tags": info.tags,
        "tags_total": row.tags,
        "root": row.root,
        "state": info.state.name(),
        "held_until": optional_time(info.held_until_ms),
        "pushed_at": time(row.pushed_ms),
        "pulled_at": optional_time(info.pulled_ms),
    });
    if own {
        manifest["own_bytes"] = info.own_bytes.into();
    }
    manifest
}
