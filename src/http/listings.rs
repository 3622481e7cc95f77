//! Tags of a repository, and the repositories: pages in byte order, with a `Link` to the next.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{App, error::HttpError, header_value, query::Query, range};
use crate::{
    name::RepositoryName,
    registry::{Page, RegistryError},
};

/// Most names of one page, and as many as are sent when the client doesn't say.
const PAGE_MAX: usize = 10_000;

/// What a query parameter encodes: all but the unreserved characters of RFC 3986.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paging {
    /// Names at most; 0 to `PAGE_MAX`.
    pub(super) limit: usize,
    /// The name before the first.
    pub(super) after: Option<String>,
}

impl Paging {
    /// Reads `n` and `last`.
    ///
    /// # Errors
    /// 400 when `n` is negative, not a number or longer than 64 bits. A larger one than the maximum is clamped.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, HttpError> {
        let query = Query::parse(query)?;
        let limit = match query.get("n") {
            None => PAGE_MAX,
            Some(text) => match range::strict(text) {
                Some(n) => usize::try_from(n).unwrap_or(PAGE_MAX).min(PAGE_MAX),
                None => {
                    let text: String = text.chars().take(40).collect();
                    let message = format!("n=\"{text}\" is not accepted: use a whole number");
                    return Err(HttpError::bad_request(message));
                }
            },
        };
        Ok(Self { limit, after: query.get("last").filter(|last| !last.is_empty()).map(str::to_owned) })
    }

    /// Reads the page. For `n=0` one name is asked for and thrown away: an unknown repository is still unknown.
    fn read(&self, list: impl FnOnce(Option<&str>, usize) -> Result<Page, RegistryError>) -> Result<Page, HttpError> {
        let page = list(self.after.as_deref(), self.limit.max(1))?;
        Ok(if self.limit == 0 { Page { names: Vec::new(), more: false } } else { page })
    }

    /// The link to the page after `page`, if there is one.
    fn next(&self, path: &str, page: &Page) -> Option<String> {
        let last = page.names.last().filter(|_| page.more)?;
        Some(format!("<{path}?n={}&last={}>; rel=\"next\"", self.limit, utf8_percent_encode(last, ENCODED)))
    }
}

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: &'a [String],
}

#[derive(Serialize)]
struct Repositories<'a> {
    repositories: &'a [String],
}

/// `GET /v2/<name>/tags/list`
pub(super) async fn tags(
    app: &Arc<App>,
    repository: RepositoryName,
    query: Option<&str>,
) -> Result<Response, HttpError> {
    let paging = Paging::parse(query)?;
    let (registry, name, wanted) = (app.registry.clone(), repository.clone(), paging.clone());
    let page = app.bridge.read(move |reach| {
        let reads = registry.reads(reach);
        wanted.read(|after, limit| reads.tags(&name, after, limit))
    });
    let page = page.await?;
    let link = paging.next(&format!("/v2/{repository}/tags/list"), &page);
    listed(app, &Tags { name: repository.as_str(), tags: &page.names }, link)
}

/// `GET /v2/_catalog`
pub(super) async fn catalog(app: &Arc<App>, query: Option<&str>) -> Result<Response, HttpError> {
    let paging = Paging::parse(query)?;
    let (registry, wanted) = (app.registry.clone(), paging.clone());
    let page = app.bridge.read(move |reach| {
        let reads = registry.reads(reach);
        wanted.read(|after, limit| reads.repositories(after, limit))
    });
    let page = page.await?;
    let link = paging.next("/v2/_catalog", &page);
    listed(app, &Repositories { repositories: &page.names }, link)
}

/// A page of long names has megabytes, which lie in memory until the client has read them: they are held in the budget.
pub(super) fn listed(app: &App, page: &impl Serialize, link: Option<String>) -> Result<Response, HttpError> {
    let page = serde_json::to_vec(page).map_err(|error| HttpError::bug(format!("a page has no JSON: {error}")))?;
    held(app, Bytes::from(page), "application/json", link)
}

/// An answer with a page of a list, and the link to the next, if there is one.
pub(super) fn held(
    app: &App,
    page: Bytes,
    media_type: &'static str,
    link: Option<String>,
) -> Result<Response, HttpError> {
    let held = app.buffers.hold(page.len() as u64)?;
    let mut response = Response::new(Body::from(held.keep(page)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, header_value(link));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_and_last() {
        let paging = |limit, after: Option<&str>| Some(Paging { limit, after: after.map(str::to_owned) });
        let cases = [
            (None, paging(PAGE_MAX, None)),
            (Some(""), paging(PAGE_MAX, None)),
            (Some("n=0"), paging(0, None)),
            (Some("n=5&last=a%2Fb"), paging(5, Some("a/b"))),
            (Some("last="), paging(PAGE_MAX, None)),
            (Some("n=10000"), paging(PAGE_MAX, None)),
            (Some("n=10001"), paging(PAGE_MAX, None)),
            (Some("n=18446744073709551615"), paging(PAGE_MAX, None)),
            (Some("n=18446744073709551616"), None),
            (Some("n=-1"), None),
            (Some("n=%2B1"), None),
            (Some("n="), None),
            (Some("n=ten"), None),
            (Some("n=1.0"), None),
        ];
        for (query, expected) in cases {
            assert_eq!(Paging::parse(query).ok(), expected, "{query:?}");
        }
    }

    #[test]
    fn a_link_leads_to_the_name_after_the_last() {
        let paging = Paging { limit: 2, after: None };
        let page = |more| Page { names: vec!["a".to_owned(), "b/c&d".to_owned()], more };
        let link = paging.next("/v2/_catalog", &page(true));
        assert_eq!(link.as_deref(), Some("</v2/_catalog?n=2&last=b%2Fc%26d>; rel=\"next\""));
        assert_eq!(paging.next("/v2/_catalog", &page(false)), None);
    }

    #[test]
    fn n_0_asks_whether_the_repository_is_there_and_shows_nothing() {
        let page = Paging { limit: 0, after: None }.read(|_, limit| {
            assert_eq!(limit, 1);
            Ok(Page { names: vec!["a".to_owned()], more: true })
        });
        assert_eq!(page.ok(), Some(Page { names: Vec::new(), more: false }));
        let unknown = RegistryError::NameUnknown("a".parse().unwrap());
        let error = Paging { limit: 0, after: None }.read(|_, _| Err(unknown)).unwrap_err();
        assert_eq!(error.status().as_u16(), 404);
    }
}
