//! What a deletion would give, and what a policy would take away.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App, HttpError,
    input::{self, Parameters},
    policies, question, told,
};
use crate::{
    name::RepositoryName,
    policy::PolicyForm,
    registry::{Deletion, Gain, RegistryError, Stay},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    repository: Option<String>,
    tags: Option<Vec<String>>,
    digests: Option<Vec<String>>,
    policy: Option<PolicyForm>,
}

/// `POST what-if`
pub(super) async fn answer(app: &Arc<App>, request: Request) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    let asked: Asked = input::json(request.into_body()).await?;
    if let Some(form) = asked.policy {
        if asked.repository.is_some() || asked.tags.is_some() || asked.digests.is_some() {
            return Err(HttpError::bad_request("name a policy or a repository, and not both"));
        }
        return policies::what_if(app, policies::named(form)?).await;
    }
    let Some(repository) = asked.repository else {
        return Err(HttpError::bad_request("missing field `repository`, or a policy"));
    };
    let repository: RepositoryName = repository.parse()?;
    let deletion = match (asked.tags, asked.digests) {
        (None, None) => Deletion::All,
        (Some(tags), None) => Deletion::Tags(tags.iter().map(|tag| input::tag(tag)).collect::<Result<_, _>>()?),
        (None, Some(digests)) => {
            let digests = digests.iter().map(|digest| super::super::path::digest(digest));
            Deletion::Digests(digests.collect::<Result<_, _>>()?)
        }
        (Some(_), Some(_)) => return Err(HttpError::bad_request("name tags or digests, not both")),
    };
    let registry = Arc::clone(&app.registry);
    let answer = question(app, move || {
        let gains = registry.what_if(&repository, &deletion)?;
        Ok::<_, RegistryError>(json!({
            "repository": repository,
            "organization": repository.organisation(),
            "manifests": { "leave": gains.leave, "dropped": gains.dropped },
            "in_repository": gain(&gains.repository),
            "in_organization": gain(&gains.organisation),
            "in_registry": gain(&gains.registry),
            "stays": gains.stays.iter().map(stay).collect::<Vec<_>>(),
        }))
    });
    told(app, &answer.await?)
}

fn gain(gain: &Gain) -> Value {
    json!({
        "reclaimable_bytes": gain.reclaimable_bytes,
        "freed_bytes": gain.freed_bytes,
        "manifest_bytes": gain.manifest_bytes,
    })
}

fn stay(stay: &Stay) -> Value {
    json!({ "digest": stay.digest, "tag": stay.tag, "kept_by": stay.kept_by })
}
