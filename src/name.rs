//! Names that clients choose: repositories and tags, parsed once at the boundary.
//!
//! The grammars are those of the OCI distribution specification 1.1 ("Pulling manifests"); a repository name has at most
//! 255 bytes, as most clients assume. Nothing that failed to parse gets past this module, so no later code meets `..`,
//! upper case or an empty component.

use std::{fmt, str::FromStr};

/// Longest repository name in bytes.
pub const REPOSITORY_LEN_MAX: usize = 255;
/// Longest tag in bytes.
pub const TAG_LEN_MAX: usize = 128;
/// The organisation of repositories whose name has no slash.
pub const NO_ORGANISATION: &str = "_";

/// Why a text is not a repository name or not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A repository name out of the grammar.
    #[error(
        "repository name \"{0}\" is not valid: use lower-case letters and digits, separated by one of . _ __ - \
         in components that are separated by /"
    )]
    Repository(String),
    /// A repository name that is too long.
    #[error("a repository name has at most {REPOSITORY_LEN_MAX} bytes; this one has {0}")]
    RepositoryLength(usize),
    /// A tag out of the grammar.
    #[error("tag \"{0}\" is not valid: use at most {TAG_LEN_MAX} letters, digits and _ . -, not beginning with . or -")]
    Tag(String),
}

/// A repository's name, such as `team/app`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The organisation: the first component, or `_` for a name without a slash.
    pub fn organisation(&self) -> &str {
        self.0.split_once('/').map_or(NO_ORGANISATION, |(first, _)| first)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if text.len() > REPOSITORY_LEN_MAX {
            return Err(NameError::RepositoryLength(text.len()));
        }
        if text.split('/').all(is_component) { Ok(Self(text)) } else { Err(NameError::Repository(text)) }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_in_words = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    ends_in_words
        && bytes
            .split(|&byte| word(byte))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

/// Whom a rule is for, by name: it need not be there yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// An organisation, `_` among them.
    Organisation(String),
    /// A repository.
    Repository(RepositoryName),
}

impl Owner {
    /// An organisation.
    ///
    /// # Errors
    /// When no repository's first component can be that.
    pub fn organisation(name: &str) -> Result<Self, NameError> {
        if name != NO_ORGANISATION && (name.contains('/') || name.parse::<RepositoryName>().is_err()) {
            return Err(NameError::Repository(name.to_owned()));
        }
        Ok(Self::Organisation(name.to_owned()))
    }

    /// Those that a repository's content counts for: itself and its organisation.
    pub fn of(repository: &RepositoryName) -> [Self; 2] {
        [Self::Repository(repository.clone()), Self::Organisation(repository.organisation().to_owned())]
    }

    /// Its text in formats: `o:team`, `r:team/app`.
    pub fn code(&self) -> String {
        match self {
            Self::Organisation(name) => format!("o:{name}"),
            Self::Repository(name) => format!("r:{name}"),
        }
    }
}

impl FromStr for Owner {
    type Err = NameError;

    /// Reads what [`Self::code`] gave.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            Some(("o", name)) => Self::organisation(name),
            Some(("r", name)) => Ok(Self::Repository(name.parse()?)),
            _ => Err(NameError::Repository(text.chars().take(200).collect())),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organisation(name) => write!(f, "organization {name}"),
            Self::Repository(name) => write!(f, "repository {name}"),
        }
    }
}

/// A tag, such as `latest`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    /// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = text.len() <= TAG_LEN_MAX
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if valid { Ok(Self(text.to_owned())) } else { Err(NameError::Tag(text.chars().take(200).collect())) }
    }
}

macro_rules! shown_as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown_as_text!(RepositoryName, Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_grammar() {
        for good in ["a", "team/app", "a.b_c__d-e---f/0", "library/debian", "a/b/c/d/e/f/g"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(REPOSITORY_LEN_MAX + 1);
        let bad = [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", ".", "..", "a/../b", "a._b", "a%2fb", "a b",
            "é", &long,
        ];
        for bad in bad {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        assert!("a".repeat(REPOSITORY_LEN_MAX).parse::<RepositoryName>().is_ok());
    }

    #[test]
    fn organisation_is_the_first_component() {
        for (name, organisation) in [("team/app/x", "team"), ("debian", "_")] {
            assert_eq!(name.parse::<RepositoryName>().unwrap().organisation(), organisation);
        }
    }

    #[test]
    fn owners_have_a_text_of_their_own() {
        let owners = [
            Owner::Organisation("team".into()),
            Owner::Organisation("_".into()),
            Owner::Repository("team".parse().unwrap()),
        ];
        for owner in owners.into_iter().chain(Owner::of(&"team/app".parse().unwrap())) {
            assert_eq!(owner.code().parse(), Ok(owner));
        }
        for bad in ["", "team", "o:", "o:a/b", "o:A", "r:", "r:_", "x:team"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tag_grammar() {
        for good in ["latest", "1.0", "_", "A-b.c_d", &"x".repeat(TAG_LEN_MAX)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "a:b", "é", "sha256:x", &"x".repeat(TAG_LEN_MAX + 1)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
