//! Referrers of a manifest: pages of an image index, with a `Link` to the next.
//!
//! The spec leaves paging to the registry: `n` and `last` are ours, as with tags; a client follows the `Link`. A page
//! can be short or empty and have one. `artifactType` may stand several times: then any of the types matches.

use std::sync::Arc;

use axum::{http::HeaderValue, response::Response};
use percent_encoding::utf8_percent_encode;

use super::{
    App, OCI_FILTERS_APPLIED,
    error::HttpError,
    listings::{self, ENCODED, Paging},
    path,
    query::Query,
};
use crate::{
    digest::Digest,
    name::RepositoryName,
    registry::{ReferrersWanted, manifest::OCI_INDEX},
};

/// `GET /v2/<name>/referrers/<digest>`
pub(super) async fn list(
    app: &Arc<App>,
    repository: RepositoryName,
    subject: Digest,
    query: Option<&str>,
) -> Result<Response, HttpError> {
    let wanted = wanted(query)?;
    let is_filtered = !wanted.artifact_types.is_empty();
    let (registry, name) = (app.registry.clone(), repository.clone());
    let (wanted, page) = app
        .bridge
        .call(move || {
            let page = registry.referrers(&name, &subject, &wanted)?;
            Ok::<_, HttpError>((wanted, page))
        })
        .await?;
    let link = page.next.map(|next| link(&repository, &subject, &wanted, &next));
    let mut response = listings::held(app, page.index, OCI_INDEX, link)?;
    if is_filtered {
        response.headers_mut().insert(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// Reads `artifactType`, `n` and `last`.
///
/// # Errors
/// 400 for a number or digest out of its grammar.
fn wanted(query: Option<&str>) -> Result<ReferrersWanted, HttpError> {
    let Paging { limit, after } = Paging::parse(query)?;
    let after = after.map(|after| path::digest(&after)).transpose()?;
    let query = Query::parse(query)?;
    // No media type has a space: that was the plus sign of a client that does not encode it.
    let artifact_types = query.all("artifactType").filter(|text| !text.is_empty()).map(|text| text.replace(' ', "+"));
    Ok(ReferrersWanted {
        artifact_types: artifact_types.collect(),
        after,
        limit: limit.min(ReferrersWanted::LIMIT_MAX),
    })
}

fn link(repository: &RepositoryName, subject: &Digest, wanted: &ReferrersWanted, next: &Digest) -> String {
    let filters =
        wanted.artifact_types.iter().map(|text| format!("&artifactType={}", utf8_percent_encode(text, ENCODED)));
    let filters: String = filters.collect();
    format!("</v2/{repository}/referrers/{subject}?n={}&last={next}{filters}>; rel=\"next\"", wanted.limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn what_is_wanted() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let cases = [
            (None, Some((vec![], None, 1_000))),
            (Some("artifactType="), Some((vec![], None, 1_000))),
            (Some("artifactType=a/b&n=5"), Some((vec!["a/b"], None, 5))),
            (Some("artifactType=a/b+json&artifactType=c%2Fd%2Bxml&n=0"), Some((vec!["a/b+json", "c/d+xml"], None, 0))),
            (Some("n=100000000000&last="), Some((vec![], None, 1_000))),
            (Some("n=-1"), None),
            (Some("last=latest"), None),
            (Some("artifactType=%ff"), None),
        ];
        for (query, expected) in cases {
            let found = wanted(query).ok().map(|wanted| (wanted.artifact_types, wanted.after, wanted.limit));
            let expected = expected
                .map(|(types, after, limit)| (types.into_iter().map(str::to_owned).collect::<Vec<_>>(), after, limit));
            assert_eq!(found, expected, "{query:?}");
        }
        assert_eq!(wanted(Some(&format!("last={digest}"))).unwrap().after, Some(digest));
    }

    #[test]
    fn a_link_keeps_the_filter() {
        let [subject, next] = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Digest::of(algorithm, b""));
        let wanted = ReferrersWanted { artifact_types: vec!["a/b+c".into(), "d".into()], after: None, limit: 2 };
        let link = link(&"team/app".parse().unwrap(), &subject, &wanted, &next);
        let path = format!("/v2/team/app/referrers/{subject}?n=2&last={next}&artifactType=a%2Fb%2Bc&artifactType=d");
        assert_eq!(link, format!("<{path}>; rel=\"next\""));
    }
}
