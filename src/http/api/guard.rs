//! Who may ask: nobody on behalf of a web page of somebody else's.
//!
//! There is no login, so a browser inside the network must not be turned against the registry. A page that points its own
//! name at the registry's address (DNS rebinding) is known by its `Host`: only addresses, `localhost` and configured names
//! are accepted. Other pages are known by `Origin` and `Sec-Fetch-Site`. And changes must be `application/json`, which a
//! page can send to another site only after a preflight request that nothing here answers.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderName, header, uri::Authority},
};

use super::super::error::HttpError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests to foreign hosts and from foreign pages.
///
/// # Errors
/// 403 that says which header is refused and what is accepted.
pub(super) fn check(request: &Request, names: &[String]) -> Result<(), HttpError> {
    let host = only(request, &header::HOST)?.unwrap_or_default();
    let authority = host.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
    if !authority.is_some_and(|authority| is_own(authority.host(), names)) {
        return Err(HttpError::forbidden(format!(
            "Host \"{}\" is not accepted here: use an IP address or localhost, or let the operator add the name to the \
             setting http.api_hosts",
            shown(host)
        )));
    }
    // A target in absolute form counts more than Host to other servers, so it must say the same.
    if request.uri().authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(host)) {
        return Err(HttpError::forbidden("the request's target names another host than its Host".to_owned()));
    }
    if let Some(origin) = only(request, &header::ORIGIN)? {
        // TLS may end at a proxy.
        let own = ["http://", "https://"].into_iter().filter_map(|scheme| origin.strip_prefix(scheme));
        if !own.into_iter().any(|from| from.eq_ignore_ascii_case(host)) {
            return Err(HttpError::forbidden(format!("requests of pages of \"{}\" are not accepted", shown(origin))));
        }
    }
    match only(request, &SEC_FETCH_SITE)? {
        None | Some("same-origin" | "none") => Ok(()),
        Some(site) => {
            Err(HttpError::forbidden(format!("requests of other sites' pages are not accepted ({})", shown(site))))
        }
    }
}

/// Refuses a change whose body is not announced as JSON.
///
/// # Errors
/// 415.
pub(super) fn check_json(request: &Request) -> Result<(), HttpError> {
    let found = only(request, &header::CONTENT_TYPE)?.unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(HttpError::not_json(shown(found))) }
}

/// A header's value, where it may stand once.
fn only<'a>(request: &'a Request, name: &HeaderName) -> Result<Option<&'a str>, HttpError> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.to_str().unwrap_or("?"))),
        _ => Err(HttpError::forbidden(format!("{name} stands there twice"))),
    }
}

fn is_own(host: &str, names: &[String]) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_name = |name: &str| host.eq_ignore_ascii_case(name);
    address.parse::<IpAddr>().is_ok() || is_name("localhost") || names.iter().any(|name| is_name(name))
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let build = Request::builder().uri("/api/v1/usage");
        headers.iter().fold(build, |build, (name, value)| build.header(*name, *value)).body(Body::empty()).unwrap()
    }

    fn accepts(headers: &[(&str, &str)]) -> bool {
        check(&request(headers), &["registry.example".to_owned()]).is_ok()
    }

    #[test]
    fn own_hosts_are_addresses_localhost_and_configured_names() {
        for host in
            ["127.0.0.1", "10.1.2.3:5000", "[::1]:5000", "[fd00::1]", "localhost:1", "LOCALHOST", "Registry.example:80"]
        {
            assert!(accepts(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "registry.example.evil.example:5000",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost:x y",
            "[::1",
            "2130706433",
        ] {
            assert!(!accepts(&[("host", host)]), "{host}");
        }
        assert!(!accepts(&[]));
        assert!(!accepts(&[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let cases = [
            (("origin", "http://localhost:5000"), true),
            (("origin", "https://localhost:5000"), true),
            (("origin", "http://localhost"), false),
            (("origin", "http://evil.example"), false),
            (("origin", "http://localhost:5000.evil.example"), false),
            (("origin", "null"), false),
            (("origin", "localhost:5000"), false),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "none"), true),
            (("sec-fetch-site", "same-site"), false),
            (("sec-fetch-site", "cross-site"), false),
        ];
        for (header, accepted) in cases {
            assert_eq!(accepts(&[("host", "localhost:5000"), header]), accepted, "{header:?}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_names_the_same_host() {
        let request = |uri: &str| Request::builder().uri(uri).header("host", "localhost").body(Body::empty()).unwrap();
        assert!(check(&request("http://localhost/api/v1/usage"), &[]).is_ok());
        assert!(check(&request("http://evil.example/api/v1/usage"), &[]).is_err());
    }

    #[test]
    fn changes_are_announced_as_json() {
        for (value, accepted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("text/plain; application/json", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            assert_eq!(check_json(&request(&[("content-type", value)])).is_ok(), accepted, "{value}");
        }
        assert!(check_json(&request(&[])).is_err());
    }
}
