//! The time machine: what tags pointed to, and restoring.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App, HttpError,
    input::{self, Parameters},
    optional_time, page, time, told,
};
use crate::{
    digest::Digest,
    name::{RepositoryName, Tag},
    registry::{HistoryEntry, HistoryPlace, ManifestState, RegistryError},
};

/// `GET history`
pub(super) async fn list(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["repository", "tag", "n", "last"])?;
    let (repository, asked) = (parameters.needed_repository()?, parameters.page()?);
    let tag = parameters.text("tag").map(input::tag).transpose()?;
    let after = asked.place(place)?;
    let registry = Arc::clone(&app.registry);
    let listed = app.bridge.call(move || {
        let list = registry.history(&repository, tag.as_ref(), after.as_ref(), asked.asked())?;
        Ok::<_, RegistryError>(asked.cut(list.items, list.next))
    });
    let (items, next) = listed.await?;
    page(app, "history", items.iter().map(entry).collect(), next.map(|(tag, lsn)| format!("{tag}:{lsn}")))
}

/// A place in the list: no tag has a colon.
fn place(text: &str) -> Option<HistoryPlace> {
    let (tag, lsn) = text.split_once(':')?;
    Some((tag.parse().ok()?, lsn.parse().ok()?))
}

fn entry(entry: &HistoryEntry) -> Value {
    let state = match (&entry.digest, entry.state) {
        (None, _) => Value::Null,
        (Some(_), state) => state.map_or("dropped", ManifestState::name).into(),
    };
    json!({
        "tag": entry.tag,
        "digest": entry.digest,
        "at": time(entry.time_ms),
        "until": optional_time(entry.until_ms),
        "state": state,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restoring {
    repository: String,
    digest: String,
    tag: Option<String>,
}

/// `POST restore`
pub(super) async fn restore(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    let wanted: Restoring = input::json(request.into_body()).await?;
    let repository: RepositoryName = wanted.repository.parse()?;
    let digest: Digest = super::super::path::digest(&wanted.digest)?;
    let tag: Option<Tag> = wanted.tag.as_deref().map(input::tag).transpose()?;
    let registry = Arc::clone(&app.registry);
    let restored = app.bridge.call(move || {
        let state = registry.restore(&repository, &digest, tag.as_ref())?;
        Ok::<_, RegistryError>(json!({
            "repository": repository, "tag": tag, "digest": digest, "state": state.name(),
        }))
    });
    told(app, &restored.await?)
}
