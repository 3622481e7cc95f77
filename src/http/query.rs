//! The query of a request: pairs of decoded text.
//!
//! Unknown keys are let pass, as clients and proxies add their own; a key that counts once is taken from its first place.

use percent_encoding::percent_decode_str;

use super::error::HttpError;

/// A decoded query. Its size is bounded by that of the URI.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes a query as it was sent.
    ///
    /// # Errors
    /// 400 for text that is no UTF-8 once decoded.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, HttpError> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        Ok(Self { pairs: pairs.collect::<Result<_, HttpError>>()? })
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// The keys, in the order of the query, with repetitions.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(key, _)| key.as_str())
    }

    /// All values of a key.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Result<String, HttpError> {
    // A plus sign is a space in queries that forms and most client libraries write.
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(HttpError::bad_request(format!("the query holds \"{text}\", which is not UTF-8 once decoded"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_once() {
        let query = Query::parse(Some("digest=sha256%3Aab&mount=&tag=a&tag=b%2526&x&&n=1=2")).unwrap();
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("mount"), Some(""));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b%26"]);
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("n"), Some("1=2"));
        assert_eq!(query.get("from"), None);
        assert_eq!(Query::parse(None).unwrap().get(""), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(Query::parse(Some("last=%ff")).unwrap_err().status().as_u16(), 400);
    }
}
