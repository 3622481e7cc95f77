//! JSON that every reader understands alike: well-formed, bounded in depth, without duplicate keys.
//!
//! RFC 8259, section 4 leaves duplicate keys to the reader, and readers differ: one checks the first value, another runs
//! the second. A manifest that could mean two things is refused. Nothing is built in memory but hashes of
//! the keys of the objects that are open.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Why some bytes are not such JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not acceptable JSON: {0}")]
pub struct JsonError(String);

/// Checks a whole document.
///
/// # Errors
/// When it is not JSON, nests deeper than `depth_max` (at most 127) or has an object with a key twice.
pub(super) fn check(bytes: &[u8], depth_max: usize) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Checked { depth_left: depth_max }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| JsonError(error.to_string()))
}

#[derive(Clone, Copy)]
struct Checked {
    depth_left: usize,
}

impl Checked {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1);
        depth_left.map(|depth_left| Self { depth_left }).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        // Hashes and not the keys: half a million of them, which a manifest can have, took tens of MiB. Two keys that are
        // not equal have equal hashes once in more than 10^8 documents of that size; that one is refused.
        let (hasher, mut hashes) = (RandomState::new(), HashSet::new());
        while let Some(key) = entries.next_key::<String>()? {
            if !hashes.insert(hasher.hash_one(&key)) {
                let shown: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("key \"{shown}\" stands twice in one object")));
            }
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_documents() {
        for good in ["{}", "[]", "1", "\"x\"", "null", r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#, "[[[[]]]]"] {
            assert_eq!(check(good.as_bytes(), 4), Ok(()), "{good}");
        }
        let cases = [
            ("", "EOF"),
            ("{", "EOF"),
            ("{}{}", "trailing"),
            ("[[[[[]]]]]", "too deep"),
            (r#"{"a":1,"a":1}"#, "\"a\" stands twice"),
            (r#"{"a":1,"\u0061":1}"#, "\"a\" stands twice"),
            (r#"[{"x":{"a":1,"b":2,"a":3}}]"#, "\"a\" stands twice"),
            ("{\"a\":\"\u{1}\"}", "control character"),
        ];
        for (bad, reason) in cases {
            let error = check(bad.as_bytes(), 4).unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
        assert!(check(b"\"\xff\"", 4).is_err());
        assert!(check("[".repeat(1_000_000).as_bytes(), usize::MAX).is_err(), "no stack is exhausted");
    }
}
