//! What is known of some content: where it is, who has to do with it, and why it is kept.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::{
    App, HttpError,
    input::{self, Parameters},
    optional_time, space, time, told,
};
use crate::{
    http::path,
    index::schema::{BlobRow, DropRow},
    journal::operation::DropKind,
    location::RecordKind,
    registry::{
        Chain, Keeper, Keepers, Linked, Naming, Owning, RegistryError, Sought, Whereabouts, WhereaboutsWanted,
        role_name,
    },
};

/// `GET blobs/{digest}`
pub(super) async fn blob(app: &Arc<App>, digest: &str, query: Option<&str>) -> Result<Response, HttpError> {
    let digest = path::digest(digest)?;
    let parameters = Parameters::parse(query, &["repository", "search", "n", "last"])?;
    let wants_search = parameters.flag("search")?;
    let asked = parameters.page()?;
    let wanted = WhereaboutsWanted {
        digest,
        repository: parameters.repository()?,
        after: asked.place(|last| last.parse().ok())?,
        limit: asked.asked(),
    };
    let registry = Arc::clone(&app.registry);
    let found = app.bridge.call(move || {
        let mut found = registry.whereabouts(&wanted)?;
        (found.links, found.next) = asked.cut(found.links, found.next);
        Ok::<_, RegistryError>(found)
    });
    let mut answer = whereabouts(&found.await?);
    answer["digest"] = digest.to_string().into();
    if wants_search {
        answer["search"] = space::search(app, digest).await?;
    }
    told(app, &answer)
}

/// Whether a query asks for a search of all files, which takes long.
pub(super) fn is_search(query: Option<&str>) -> bool {
    Parameters::parse(query, &["repository", "search", "n", "last"])
        .and_then(|parameters| parameters.flag("search"))
        .is_ok_and(|wanted| wanted)
}

fn whereabouts(found: &Whereabouts) -> Value {
    let stored = found.stored.as_ref();
    json!({
        "present": stored.is_some(),
        "kind": stored.map(|row| match row.kind {
            RecordKind::Blob => "blob",
            RecordKind::Manifest => "manifest",
        }),
        "size": stored.map(|row| row.size),
        "location": stored.map(location),
        "links": found.links.iter().map(link).collect::<Vec<_>>(),
        "next": found.next.map(|next| next.to_string()),
        "named_by": found.named_by.iter().map(naming).collect::<Vec<_>>(),
        "named_by_more": found.named_by_more,
        "manifest_in": found.manifest_in.iter().map(owning).collect::<Vec<_>>(),
        "manifest_in_more": found.manifest_in_more,
        "drops": found.drops.iter().map(dropped).collect::<Vec<_>>(),
    })
}

fn location(row: &BlobRow) -> Value {
    json!({ "segment": row.location.segment.0, "offset": row.location.offset, "length": row.record_len })
}

fn link(link: &Linked) -> Value {
    json!({
        "repository": link.repository,
        "linked_at": time(link.linked_ms),
        "named": link.named,
        "live": link.live,
        "due_at": optional_time(link.due_ms),
    })
}

fn naming(naming: &Naming) -> Value {
    json!({
        "repository": naming.repository,
        "digest": naming.digest,
        "media_type": naming.media_type,
        "state": naming.state.name(),
        "as": naming.roles.iter().map(|role| role_name(*role)).collect::<Vec<_>>(),
    })
}

fn owning(owning: &Owning) -> Value {
    json!({
        "repository": owning.repository,
        "media_type": owning.media_type,
        "state": owning.state.name(),
        "held_until": optional_time(owning.held_until_ms),
    })
}

fn dropped(row: &DropRow) -> Value {
    json!({
        "what": match row.what {
            DropKind::Link => "link",
            DropKind::Manifest => "manifest",
        },
        "repository": row.repository,
        "size": row.size,
        "at": time(row.time_ms),
        "last": row.last,
    })
}

/// `GET why`
pub(super) async fn why(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["digest", "repository", "reference"])?;
    let (digest, repository) = (parameters.digest("digest")?, parameters.repository()?);
    let sought = match (digest, repository, parameters.text("reference")) {
        (Some(digest), repository, None) => Sought::Digest(digest, repository),
        (None, Some(repository), Some(reference)) => Sought::Reference(repository, input::reference(reference)?),
        _ => {
            let message = "give a digest (with or without a repository), or a repository and a reference";
            return Err(HttpError::bad_request(message));
        }
    };
    let registry = Arc::clone(&app.registry);
    let keepers = app.bridge.call(move || registry.keepers(&sought)).await?;
    told(app, &kept(&keepers))
}

fn kept(keepers: &Keepers) -> Value {
    json!({
        "digest": keepers.digest,
        "kept": !keepers.chains.is_empty(),
        "chains": keepers.chains.iter().map(chain).collect::<Vec<_>>(),
        "more": keepers.more,
    })
}

fn chain(chain: &Chain) -> Value {
    let path = chain.path.iter().map(|link| json!({ "digest": link.digest, "as": link.kept_as }));
    let (by, tag, until) = match &chain.keeper {
        Keeper::Tag(tag) => ("tag", Some(tag), None),
        Keeper::Root => ("root", None, None),
        Keeper::Window(until_ms) => ("window", None, Some(*until_ms)),
        Keeper::Grace(until_ms) => ("grace", None, Some(*until_ms)),
    };
    json!({
        "repository": chain.repository,
        "path": path.collect::<Vec<_>>(),
        "by": by,
        "tag": tag,
        "until": optional_time(until),
    })
}
