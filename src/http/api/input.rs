//! What comes in: parameters and bodies. What is not known, stands there twice or is out of its grammar is refused by name.

use axum::body::Body;
use serde::de::DeserializeOwned;

use super::super::{body, error::HttpError, path, query::Query, range};
use crate::{
    digest::Digest,
    name::{Owner, RepositoryName, Tag},
    registry::{Reference, RegistryError},
};

/// Largest body in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Entries of a page where the client does not say.
const PAGE_DEFAULT: usize = 100;
/// Most entries of a page.
const PAGE_MAX: usize = 1_000;

/// The parameters of a route, each at most once.
#[derive(Debug)]
pub(super) struct Parameters(Query);

impl Parameters {
    /// Reads the query of a route that knows these parameters.
    ///
    /// # Errors
    /// 400 naming one that it does not know, or that stands there twice.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, HttpError> {
        let query = Query::parse(query)?;
        for key in query.keys() {
            let shown: String = key.chars().take(100).collect();
            if !known.contains(&key) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!("parameter \"{shown}\" is not known here; there are: {known}");
                return Err(HttpError::bad_request(message));
            }
            if query.all(key).nth(1).is_some() {
                return Err(HttpError::bad_request(format!("parameter \"{shown}\" stands there twice")));
            }
        }
        Ok(Self(query))
    }

    /// A parameter's text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }

    /// A parameter that is `true` or `false`, and `false` where it is missing.
    pub(super) fn flag(&self, key: &str) -> Result<bool, HttpError> {
        match self.text(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(refused(key, text, "use true or false")),
        }
    }

    /// `repository`.
    pub(super) fn repository(&self) -> Result<Option<RepositoryName>, HttpError> {
        Ok(self.text("repository").map(str::parse).transpose()?)
    }

    /// `repository`, where it must be there.
    pub(super) fn needed_repository(&self) -> Result<RepositoryName, HttpError> {
        self.repository()?.ok_or_else(|| HttpError::bad_request("parameter \"repository\" is missing"))
    }

    /// `organization`.
    pub(super) fn organization(&self) -> Result<Option<String>, HttpError> {
        Ok(self.text("organization").map(organization).transpose()?)
    }

    /// A digest.
    pub(super) fn digest(&self, key: &str) -> Result<Option<Digest>, HttpError> {
        self.text(key).map(path::digest).transpose()
    }

    /// `n` and `last`.
    pub(super) fn page(&self) -> Result<Page, HttpError> {
        let limit = match self.text("n") {
            None => PAGE_DEFAULT,
            Some(text) => match range::strict(text) {
                Some(n) => usize::try_from(n).unwrap_or(PAGE_MAX).min(PAGE_MAX),
                None => return Err(refused("n", text, "use a whole number")),
            },
        };
        Ok(Page { limit, last: self.text("last").filter(|last| !last.is_empty()).map(str::to_owned) })
    }
}

/// Which page of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Entries at most; 0 to `PAGE_MAX`.
    pub(super) limit: usize,
    last: Option<String>,
}

impl Page {
    /// How many entries to ask for: one for an empty page, as what is unknown is still unknown.
    pub(super) fn asked(&self) -> usize {
        self.limit.max(1)
    }

    /// The place behind which the page begins, as text.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The same, read by `read`.
    ///
    /// # Errors
    /// 400 where that gives nothing.
    pub(super) fn place<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, HttpError> {
        let Some(text) = self.last() else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| refused("last", text, "use what a page before gave as next"))
    }

    /// The list as it is told: nothing of it where nothing was asked for.
    pub(super) fn cut<T, P>(&self, items: Vec<T>, next: Option<P>) -> (Vec<T>, Option<P>) {
        if self.limit == 0 { (Vec::new(), None) } else { (items, next) }
    }
}

fn refused(key: &str, text: &str, remedy: &str) -> HttpError {
    let shown: String = text.chars().take(100).collect();
    HttpError::bad_request(format!("{key}=\"{shown}\" is not accepted: {remedy}"))
}

/// An organisation's name: a repository's without a slash, or that of those that belong to none.
///
/// # Errors
/// NAME_INVALID.
pub(super) fn organization(text: &str) -> Result<String, RegistryError> {
    Owner::organisation(text)?;
    Ok(text.to_owned())
}

/// An organisation or a repository, of which one is named.
///
/// # Errors
/// 400 when it is none of them, or both; NAME_INVALID.
pub(super) fn owner(organization: Option<&str>, repository: Option<&str>) -> Result<Owner, HttpError> {
    match (organization, repository) {
        (Some(name), None) => Ok(Owner::organisation(name)?),
        (None, Some(name)) => Ok(Owner::Repository(name.parse()?)),
        _ => Err(HttpError::bad_request("name an organization or a repository, and not both")),
    }
}

/// What a tag or digest names.
///
/// # Errors
/// NAME_INVALID, DIGEST_INVALID.
pub(super) fn reference(text: &str) -> Result<Reference, HttpError> {
    if text.contains(':') { Ok(Reference::Digest(path::digest(text)?)) } else { Ok(Reference::Tag(tag(text)?)) }
}

/// A tag.
///
/// # Errors
/// NAME_INVALID.
pub(super) fn tag(text: &str) -> Result<Tag, HttpError> {
    Ok(text.parse::<Tag>()?)
}

/// A body of JSON; none at all is an empty object.
///
/// # Errors
/// 413 when it is too long, 400 naming what is wrong in it.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, HttpError> {
    let bytes = body::whole(body, "body", BODY_BYTES_MAX).await?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    // An array would be read as the values of the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(HttpError::bad_request("the body is not accepted: send a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let text: String = error.to_string().chars().take(300).collect();
        HttpError::bad_request(format!("the body is not accepted: {text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: HttpError) -> (u16, String) {
        (error.status().as_u16(), format!("{error:?}"))
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        let known = ["n", "own"];
        assert!(Parameters::parse(Some("n=1&own=true"), &known).is_ok());
        for (query, named) in [("m=1", "\\\"m\\\""), ("n=1&n=2", "twice"), ("=x", "\\\"\\\""), ("own%20=true", "own ")]
        {
            let (status, text) = message(Parameters::parse(Some(query), &known).unwrap_err());
            assert!(status == 400 && text.contains(named), "{query}: {text}");
        }
    }

    #[test]
    fn pages_and_flags() {
        let page = |query: &str| Parameters::parse(Some(query), &["n", "last"]).unwrap().page();
        for (query, limit) in
            [("", 100), ("n=0", 0), ("n=7&last=", 7), ("n=1000", 1000), ("n=18446744073709551615", 1000)]
        {
            assert_eq!(page(query).unwrap(), Page { limit, last: None }, "{query}");
        }
        for query in ["n=-1", "n=x", "n=", "n=1.0", "n=%2B1", "n=18446744073709551616"] {
            assert_eq!(message(page(query).unwrap_err()).0, 400, "{query}");
        }
        let flag = |query: &str| Parameters::parse(Some(query), &["own"]).unwrap().flag("own");
        assert_eq!(
            [flag("").ok(), flag("own=true").ok(), flag("own=false").ok()],
            [Some(false), Some(true), Some(false)]
        );
        assert!(flag("own=").is_err() && flag("own=1").is_err());
    }

    #[test]
    fn organisations_have_no_slash() {
        for good in ["_", "team", "a.b-c"] {
            assert_eq!(organization(good).unwrap(), good);
        }
        for bad in ["", "a/b", "A", "..", "a/"] {
            assert!(matches!(organization(bad), Err(RegistryError::Name(_))), "{bad}");
        }
    }
}
