//! `Accept` of requests for manifests (RFC 9110, section 12.5.1): which types of manifests a client takes.
//!
//! Weights matter only where they are 0: there is at most one document to choose. What cannot be read is skipped, and a
//! header with nothing left says nothing. `application/json` takes every manifest, as all of them are JSON.

use axum::http::{HeaderMap, header};

use crate::registry::manifest::MEDIA_TYPES;

/// The types that a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accept([bool; MEDIA_TYPES.len()]);

impl Accept {
    /// Reads all lines of the header.
    pub(super) fn parse(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let mut said = [None; MEDIA_TYPES.len()];
        let mut any = false;
        for (range, taken) in lines.flat_map(|line| line.split(',')).filter_map(element) {
            any = true;
            for (said, media_type) in said.iter_mut().zip(MEDIA_TYPES) {
                // The range that fits a type best decides on it, and among equals one that takes it.
                *said = (*said).max(fit(range, media_type).map(|fit| (fit, taken)));
            }
        }
        Self(said.map(|said| said.map_or(!any, |(_, taken)| taken)))
    }

    /// Whether the client takes manifests of a type.
    pub(super) fn takes(&self, media_type: &str) -> bool {
        MEDIA_TYPES.iter().zip(self.0).any(|(known, taken)| taken && *known == media_type)
    }
}

/// A media range, and whether its weight takes it. `None` for what is not one.
fn element(text: &str) -> Option<(&str, bool)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| range.contains('/'))?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let is_zero = weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0);
    Some((range, !is_zero))
}

/// How well a range fits a type; `None` if it does not.
fn fit(range: &str, media_type: &str) -> Option<usize> {
    let ranges = [media_type, "application/json", "application/*", "*/*"];
    let place = ranges.iter().position(|known| range.eq_ignore_ascii_case(known))?;
    Some(ranges.len() - place)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::registry::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

    #[test]
    fn headers_of_real_clients_and_of_none() {
        let all = &MEDIA_TYPES[..];
        let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let cases: Vec<(Vec<&str>, &[&str])> = vec![
            (vec![], all),
            (vec![""], all),
            (vec![" , ;q=1, *"], all),
            (vec!["*/*"], all),
            (vec!["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], all),
            (vec!["application/json"], all),
            (vec!["application/*"], all),
            (vec!["text/plain"], &[]),
            (vec![old], &[]),
            (vec![OCI_MANIFEST], &[OCI_MANIFEST]),
            (vec!["Application/VND.oci.image.manifest.v1+JSON; charset=utf-8"], &[OCI_MANIFEST]),
            (vec![OCI_INDEX, OCI_MANIFEST], &[OCI_MANIFEST, OCI_INDEX]),
            (vec![DOCKER_MANIFEST, "*/*"], all),
            (vec!["*/*;q=0"], &[]),
            (vec!["*/*, application/vnd.oci.image.index.v1+json;q=0"], &[OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_LIST]),
            (vec!["application/*;q=0.0, application/vnd.oci.image.index.v1+json;q=0.1"], &[OCI_INDEX]),
        ];
        for (lines, expected) in cases {
            let headers =
                lines.iter().map(|line| (header::ACCEPT, HeaderValue::from_str(line).unwrap())).collect::<HeaderMap>();
            let accept = Accept::parse(&headers);
            for media_type in MEDIA_TYPES {
                assert_eq!(accept.takes(media_type), expected.contains(&media_type), "{lines:?} {media_type}");
            }
        }
        let list = format!("{DOCKER_MANIFEST}, {DOCKER_LIST},{OCI_INDEX} ,{old}");
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(&list).unwrap())]);
        assert_eq!(Accept::parse(&headers), Accept(MEDIA_TYPES.map(|media_type| media_type != OCI_MANIFEST)));
        let bytes = HeaderValue::from_bytes(b"\xff\xfe, text/plain").unwrap();
        let headers = HeaderMap::from_iter([(header::ACCEPT, bytes)]);
        assert!(Accept::parse(&headers).takes(OCI_INDEX), "what is no text says nothing");
    }
}
