//! What a request is about: its path, parsed from the right.
//!
//! Repository names contain slashes and may contain the words of the routes (`a/blobs/uploads` is a name), so the end of the path
//! decides. The path comes as it was sent: fixed words are compared undecoded, each other component is decoded once and
//! may not decode to a slash. So no encoding turns one route into another, and `%2f` or `..` end in NAME_INVALID.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::HttpError;
use crate::{digest::Digest, name::RepositoryName};

/// A resource, with its names parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags { repository: RepositoryName },
    /// `/v2/<name>/manifests/<reference>`; what a reference out of its grammar means depends on the method.
    Manifest { repository: RepositoryName, reference: String },
    /// `/v2/<name>/referrers/<digest>`
    Referrers { repository: RepositoryName, subject: Digest },
    /// `/v2/<name>/blobs/<digest>`
    Blob { repository: RepositoryName, digest: Digest },
    /// `/v2/<name>/blobs/uploads/`
    Uploads { repository: RepositoryName },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload { repository: RepositoryName, id: String },
}

impl Route {
    /// The methods that it has, for `Allow`.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => "GET, HEAD",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::Uploads { .. } => "POST",
            Self::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }
}

/// Parses the path of a request as it was sent.
///
/// # Errors
/// 404 for what is no route, NAME_INVALID and DIGEST_INVALID for a route with a name or digest out of its grammar.
pub(super) fn parse(path: &str) -> Result<Route, HttpError> {
    let Some(rest) = path.strip_prefix("/v2") else { return Err(HttpError::no_route(path)) };
    if rest.is_empty() {
        return Ok(Route::Base);
    }
    let Some(rest) = rest.strip_prefix('/') else { return Err(HttpError::no_route(path)) };
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [""] => Ok(Route::Base),
        ["_catalog"] => Ok(Route::Catalog),
        [name @ .., "tags", "list"] => Ok(Route::Tags { repository: repository(name)? }),
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            Ok(Route::Uploads { repository: repository(name)? })
        }
        [name @ .., "blobs", "uploads", id] => {
            Ok(Route::Upload { repository: repository(name)?, id: decode(id).into_owned() })
        }
        [name @ .., "blobs", digest] => {
            Ok(Route::Blob { repository: repository(name)?, digest: self::digest(&decode(digest))? })
        }
        [name @ .., "manifests", reference] => {
            Ok(Route::Manifest { repository: repository(name)?, reference: decode(reference).into_owned() })
        }
        [name @ .., "referrers", subject] => {
            Ok(Route::Referrers { repository: repository(name)?, subject: digest(&decode(subject))? })
        }
        _ => Err(HttpError::no_route(path)),
    }
}

/// A digest in a path or query.
///
/// # Errors
/// DIGEST_INVALID, naming what stands there.
pub(super) fn digest(text: &str) -> Result<Digest, HttpError> {
    text.parse().map_err(|error| HttpError::digest_invalid(text, &error))
}

fn repository(parts: &[&str]) -> Result<RepositoryName, HttpError> {
    let mut name = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            name.push('/');
        }
        let part = decode(part);
        // A slash that was encoded becomes a character that no name has: it must not separate components.
        if part.contains('/') { name.push_str(&part.replace('/', "%2f")) } else { name.push_str(&part) }
    }
    Ok(name.try_into()?)
}

/// Bytes that are no UTF-8 become U+FFFD, which no grammar here has.
fn decode(part: &str) -> Cow<'_, str> {
    percent_decode_str(part).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn the_end_of_the_path_decides() {
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        let manifest = |repository: &str, reference: &str| Route::Manifest {
            repository: name(repository),
            reference: reference.to_owned(),
        };
        let cases = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/list".to_owned(), Route::Tags { repository: name("a") }),
            ("/v2/tags/list/tags/list".to_owned(), Route::Tags { repository: name("tags/list") }),
            ("/v2/a/b/c/manifests/latest".to_owned(), manifest("a/b/c", "latest")),
            (format!("/v2/a/manifests/sha256:{HEX}"), manifest("a", &format!("sha256:{HEX}"))),
            (format!("/v2/a/manifests/sha256%3A{HEX}"), manifest("a", &format!("sha256:{HEX}"))),
            ("/v2/a/manifests/.bad".to_owned(), manifest("a", ".bad")),
            ("/v2/a/manifests/manifests/manifests".to_owned(), manifest("a/manifests", "manifests")),
            ("/v2/blobs/uploads/manifests/list".to_owned(), manifest("blobs/uploads", "list")),
            ("/v2/te%61m/app/manifests/1".to_owned(), manifest("team/app", "1")),
            (format!("/v2/a/blobs/sha256:{HEX}"), Route::Blob { repository: name("a"), digest }),
            (format!("/v2/blobs/blobs/sha256%3a{HEX}"), Route::Blob { repository: name("blobs"), digest }),
            (
                format!("/v2/a/manifests/referrers/sha256:{HEX}"),
                Route::Referrers { repository: name("a/manifests"), subject: digest },
            ),
            ("/v2/referrers/tags/list".to_owned(), Route::Tags { repository: name("referrers") }),
            ("/v2/a/referrers/manifests/x".to_owned(), manifest("a/referrers", "x")),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads { repository: name("a") }),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads { repository: name("a") }),
            ("/v2/a/blobs/uploads/x-1".to_owned(), Route::Upload { repository: name("a"), id: "x-1".to_owned() }),
            ("/v2/a/blobs/uploads/blobs/uploads/".to_owned(), Route::Uploads { repository: name("a/blobs/uploads") }),
        ];
        for (path, expected) in cases {
            assert_eq!(parse(&path).ok(), Some(expected), "{path}");
        }
    }

    #[test]
    fn evil_paths_end_in_a_clear_refusal() {
        let long = format!("/v2/{}/manifests/latest", "a".repeat(300));
        let cases = [
            ("", 404, "UNSUPPORTED"),
            ("/", 404, "UNSUPPORTED"),
            ("*", 404, "UNSUPPORTED"),
            ("/v1/", 404, "UNSUPPORTED"),
            ("/v2x", 404, "UNSUPPORTED"),
            ("/v2/a", 404, "UNSUPPORTED"),
            ("/v2/_catalog/", 404, "UNSUPPORTED"),
            ("/v2/a/tags", 404, "UNSUPPORTED"),
            ("/v2/a/tags/list/", 404, "UNSUPPORTED"),
            ("/v2/a/manifests/x/y", 404, "UNSUPPORTED"),
            ("/v2/a%2fmanifests%2fx", 404, "UNSUPPORTED"),
            ("/v2/a%2fb/manifests/x", 400, "NAME_INVALID"),
            ("/v2/a%2Fb/tags/list", 400, "NAME_INVALID"),
            ("/v2/a/../b/manifests/x", 400, "NAME_INVALID"),
            ("/v2/%2e%2e/manifests/x", 400, "NAME_INVALID"),
            ("/v2/a%252fb/manifests/x", 400, "NAME_INVALID"),
            ("/v2//manifests/x", 400, "NAME_INVALID"),
            ("/v2/manifests/x", 400, "NAME_INVALID"),
            ("/v2//a/tags/list", 400, "NAME_INVALID"),
            ("/v2/A/tags/list", 400, "NAME_INVALID"),
            ("/v2/a%00/tags/list", 400, "NAME_INVALID"),
            ("/v2/%ff/tags/list", 400, "NAME_INVALID"),
            ("/v2/a%/tags/list", 400, "NAME_INVALID"),
            (&long, 400, "NAME_INVALID"),
            ("/v2/blobs/uploads/", 400, "NAME_INVALID"),
            ("/v2/a/blobs/", 400, "DIGEST_INVALID"),
            ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
            ("/v2/a/blobs/sha256:00", 400, "DIGEST_INVALID"),
            ("/v2/a/blobs/sha256:..%2f..%2fetc", 400, "DIGEST_INVALID"),
            ("/v2/a/referrers", 404, "UNSUPPORTED"),
            ("/v2/a/referrers/", 400, "DIGEST_INVALID"),
            ("/v2/a/referrers/latest", 400, "DIGEST_INVALID"),
            ("/v2/a/referrers/sha256:00", 400, "DIGEST_INVALID"),
            ("/v2/A/referrers/sha256:00", 400, "NAME_INVALID"),
        ];
        for (path, status, code) in cases {
            let error = parse(path).unwrap_err();
            assert_eq!((error.status().as_u16(), error.code()), (status, code), "{path}");
        }
    }
}
