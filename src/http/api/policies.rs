//! Policies: what is done with the repositories of a pattern.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use serde_json::{Value, json};

use super::{
    App, HttpError,
    collect::Nothing,
    input::{self, Parameters},
    optional_time, page, question, time, told,
};
use crate::{
    policy::{Policy, PolicyForm, PolicyName},
    registry::{Effect, Explanation, Going, OverHalf, PolicyInfo, PolicyPlan, PolicySet, SetPolicy},
};

/// `GET policies`
pub(super) async fn list(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(query, &["n", "last"])?;
    let asked = parameters.page()?;
    let after: Option<PolicyName> = asked.place(|last| last.parse().ok())?;
    let registry = Arc::clone(&app.registry);
    let limit = asked.asked();
    let listed = app.bridge.call(move || registry.policies(after.as_ref(), limit)).await?;
    let (items, next) = asked.cut(listed.items, listed.next);
    page(app, "policies", items.iter().map(info).collect(), next)
}

/// `PUT policies/{name}`
pub(super) async fn set(app: &Arc<App>, name: &str, request: Request) -> Result<Response, HttpError> {
    let parameters = Parameters::parse(request.uri().query(), &["dry_run", "yes"])?;
    let how = SetPolicy { dry_run: parameters.flag("dry_run")?, yes: parameters.flag("yes")? };
    let form: PolicyForm = input::json(request.into_body()).await?;
    let policy = form.named(self::name(name)?).map_err(|error| HttpError::bad_request(error.to_string()))?;
    let registry = Arc::clone(&app.registry);
    let set = question(app, move || registry.set_policy(&policy, how)).await?;
    told(app, &was_set(&set, how.dry_run))
}

/// `DELETE policies/{name}`
pub(super) async fn remove(app: &Arc<App>, name: &str, query: Option<&str>) -> Result<Response, HttpError> {
    Parameters::parse(query, &[])?;
    let name = self::name(name)?;
    let registry = Arc::clone(&app.registry);
    let removed = app.bridge.call(move || registry.remove_policy(&name).map(|()| name)).await?;
    told(app, &json!({ "removed": removed }))
}

/// `POST policies/{name}/confirm`
pub(super) async fn confirm(app: &Arc<App>, name: &str, request: Request) -> Result<Response, HttpError> {
    Parameters::parse(request.uri().query(), &[])?;
    input::json::<Nothing>(request.into_body()).await?;
    let name = self::name(name)?;
    let registry = Arc::clone(&app.registry);
    let confirmed = app.bridge.call(move || registry.confirm_policy(&name)).await?;
    told(app, &json!({ "policy": info(&confirmed) }))
}

/// `GET policies/explain`
pub(super) async fn explain(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let repository = Parameters::parse(query, &["repository"])?.needed_repository()?;
    let (registry, asked) = (Arc::clone(&app.registry), repository.clone());
    let explained = app.bridge.call(move || registry.explain_policy(&asked)).await?;
    told(app, &explanation(repository.as_str(), &explained))
}

/// What a policy would take away, asked by `POST what-if`.
pub(super) async fn what_if(app: &Arc<App>, policy: Policy) -> Result<Response, HttpError> {
    let registry = Arc::clone(&app.registry);
    let how = SetPolicy { dry_run: true, yes: false };
    let set = question(app, move || registry.what_if_policy(&policy)).await?;
    told(app, &was_set(&set, how.dry_run))
}

/// A policy of a body that names it.
pub(super) fn named(form: PolicyForm) -> Result<Policy, HttpError> {
    form.policy().map_err(|error| HttpError::bad_request(format!("policy: {error}")))
}

fn name(text: &str) -> Result<PolicyName, HttpError> {
    text.parse().map_err(|error: crate::policy::PolicyError| HttpError::bad_request(error.to_string()))
}

fn was_set(set: &PolicySet, dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "policy": info(&set.info),
        "plan": set.plan.as_ref().map(plan),
        "warnings": set.warnings,
    })
}

fn info(info: &PolicyInfo) -> Value {
    json!({
        "policy": info.policy,
        "source": if info.from_settings { "settings" } else { "api" },
        "confirmed": info.confirmed,
        "set_at": optional_time(Some(info.set_ms).filter(|ms| *ms > 0)),
        "repositories": info.repositories,
        "used_bytes": info.used_bytes,
    })
}

fn plan(plan: &PolicyPlan) -> Value {
    json!({
        "repositories": plan.repositories,
        "used_bytes": plan.used_bytes,
        "tags": plan.tags,
        "manifests": plan.manifests,
        "going": plan.going.iter().map(going).collect::<Vec<_>>(),
        "going_more": plan.going_more,
        "reclaimable_bytes": plan.gain.reclaimable_bytes,
        "freed_bytes": plan.gain.freed_bytes,
        "manifest_bytes": plan.gain.manifest_bytes,
        "over_half": plan.over_half.iter().map(over_half).collect::<Vec<_>>(),
        "exceeding_bytes": plan.exceeding_bytes,
    })
}

fn going(going: &Going) -> Value {
    json!({ "repository": going.repository, "tag": going.tag, "digest": going.digest, "by": going.by.name() })
}

fn over_half(over: &OverHalf) -> Value {
    json!({ "repository": over.repository, "what": over.what, "going": over.going, "of": over.of })
}

fn explanation(repository: &str, explained: &Explanation) -> Value {
    let reasons = std::iter::once(None).chain(explained.reasons.iter().map(Some));
    let matching = explained.matching.iter().zip(reasons).map(|(policy, behind)| {
        let mut told = info(policy);
        told["behind_because"] = json!(behind);
        told
    });
    json!({
        "repository": repository,
        "governed_by": explained.matching.first().map(|first| &first.policy.name),
        "matching": matching.collect::<Vec<_>>(),
        "effect": explained.effect.as_ref().map(effect),
    })
}

fn effect(effect: &Effect) -> Value {
    json!({
        "under_review": effect.under_review,
        "tags": effect.tags,
        "newest": effect.newest,
        "spare": effect.spare,
        "spare_more": effect.spare_more,
        "next_due_at": effect.next_due_ms.map(time),
        "used_bytes": effect.used_bytes,
        "window_ms": effect.window_ms,
    })
}
