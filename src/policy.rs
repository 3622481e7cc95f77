//! Policies: what the owner of repositories says once about what may go, and how much may be there.
//!
//! A [`Policy`] is told for the repositories that its pattern matches. Exactly one governs a repository, as a whole: the
//! most specific of those that match ([`governing`]); fields of several are never mixed, so what is said of a repository stands
//! in one place. What a policy does to a store is decided in `state`; here is only what one is, which are accepted,
//! which wins, and how they are written.
//!
//! Invariants: a [`Policy`] that was read from a text or decoded has passed [`Policy::check`]. Reading what was written gives
//! an equal policy, in every form.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::{
    name::{RepositoryName, Tag},
    words::units,
};

mod codec;
mod form;
mod glob;
mod pattern;

pub use form::PolicyForm;
pub use pattern::{RepositoryPattern, TAG_PATTERNS_MAX, TagPatterns};

/// Most policies of a registry.
pub const POLICIES_MAX: usize = 1_000;
/// Longest name of a policy in bytes.
pub const NAME_LEN_MAX: usize = 64;
/// Most newest tags that a policy keeps.
pub const KEEP_NEWEST_MAX: u32 = 10_000;
/// Longest duration in a policy, in milliseconds: ten years.
pub const DURATION_MAX_MS: u64 = 3_650 * 86_400_000;
/// Shortest duration after which something goes, in milliseconds.
pub const DURATION_MIN_MS: u64 = 1_000;
/// Shortest `not_pulled_for` in milliseconds. Pulls are known to the hour: anything shorter would take what was pulled a
/// moment ago.
pub const NOT_PULLED_MIN_MS: u64 = 2 * 3_600_000;
/// Largest cap in bytes.
pub const SIZE_MAX_BYTES: u64 = 1 << 60;

/// Why something is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A field that has to be there.
    #[error("{field} is missing: {reason}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What it is for.
        reason: &'static str,
    },
    /// A value that the field does not take.
    #[error("{field} = {value} is not accepted: {reason}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value as it was given; of a long one, the beginning.
        value: String,
        /// What is accepted, or what is wrong.
        reason: String,
    },
    /// Fields that do not go together.
    #[error("{field} and {other} do not go together: {reason}")]
    Conflict {
        /// A field.
        field: &'static str,
        /// Another one.
        other: &'static str,
        /// Why.
        reason: &'static str,
    },
}

impl PolicyError {
    /// A value that is not accepted, shown up to a bound.
    fn value(field: &'static str, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        let text = value.to_string();
        let shown: String = text.chars().take(200).collect();
        let value = if shown.len() < text.len() { format!("{shown}…") } else { shown };
        Self::Value { field, value, reason: reason.into() }
    }
}

/// What is to be done with the repositories that a pattern matches. What is absent is not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// By which it is known.
    pub name: PolicyName,
    /// Which repositories it is for.
    pub pattern: RepositoryPattern,
    /// Which tags it may take away, and counts as newest. Other tags are pinned: neither they nor their manifests go by it.
    pub tag_pattern: TagPatterns,
    /// So many newest tags stay, by the time that they were set; ties by the tag.
    pub keep_newest: Option<u32>,
    /// Tags stay that were set in this time.
    pub older_than_ms: Option<u64>,
    /// Tags stay whose manifest was pulled, or which were set, in this time.
    pub not_pulled_for_ms: Option<u64>,
    /// What all its repositories may use together, in bytes: the least recently used goes.
    pub size_max_bytes: Option<u64>,
    /// Tags that may not be pointed at another manifest.
    pub immutable: Option<TagPatterns>,
    /// How long what lost its last reach is held, instead of the setting `registry.retention_window`.
    pub held_for_ms: Option<u64>,
    /// How long after its last push a manifest stays that was pushed by digest and that nothing reaches since.
    pub never_tagged_for_ms: Option<u64>,
}

impl Policy {
    /// A policy that does nothing. One more specific than another takes its repositories out of that.
    pub fn new(name: PolicyName, pattern: RepositoryPattern) -> Self {
        Self {
            name,
            pattern,
            tag_pattern: TagPatterns::default(),
            keep_newest: None,
            older_than_ms: None,
            not_pulled_for_ms: None,
            size_max_bytes: None,
            immutable: None,
            held_for_ms: None,
            never_tagged_for_ms: None,
        }
    }

    /// Holds the fields against their bounds and against each other.
    ///
    /// # Errors
    /// [`PolicyError`], naming the field.
    pub fn check(&self) -> Result<(), PolicyError> {
        if let Some(count) = self.keep_newest.filter(|count| !(1..=KEEP_NEWEST_MAX).contains(count)) {
            return Err(PolicyError::value("keep_newest", count, keep_newest_accepted()));
        }
        if let Some(bytes) = self.size_max_bytes.filter(|bytes| !(1..=SIZE_MAX_BYTES).contains(bytes)) {
            return Err(PolicyError::value("size_max_bytes", bytes, size_accepted()));
        }
        for (field, value, min) in self.durations() {
            if let Some(ms) = value.filter(|ms| !(min..=DURATION_MAX_MS).contains(ms)) {
                return Err(PolicyError::value(field, units::show_duration(ms), duration_accepted(min)));
            }
        }
        if self.size_max_bytes.is_some() && self.held_for_ms.is_some_and(|ms| ms > 0) {
            return Err(PolicyError::Conflict {
                field: "size_max_bytes",
                other: "held_for",
                reason: "what is held still takes space, so a cap could not be kept; leave held_for out, or set it to 0",
            });
        }
        Ok(())
    }

    /// The durations: field, value, least value.
    fn durations(&self) -> [(&'static str, Option<u64>, u64); 4] {
        [
            ("older_than", self.older_than_ms, DURATION_MIN_MS),
            ("not_pulled_for", self.not_pulled_for_ms, NOT_PULLED_MIN_MS),
            ("held_for", self.held_for_ms, 0),
            ("never_tagged_for", self.never_tagged_for_ms, DURATION_MIN_MS),
        ]
    }

    /// Whether tags go by it. A cap alone takes none away for their age or number.
    pub fn retains_tags(&self) -> bool {
        self.keep_newest.is_some() || self.older_than_ms.is_some() || self.not_pulled_for_ms.is_some()
    }

    /// Whether tags have an order by it: newest ones that stay, and spare ones that may go.
    pub fn orders_tags(&self) -> bool {
        self.retains_tags() || self.size_max_bytes.is_some()
    }

    /// Whether it does anything at all.
    pub fn is_idle(&self) -> bool {
        !self.orders_tags()
            && self.immutable.is_none()
            && self.held_for_ms.is_none()
            && self.never_tagged_for_ms.is_none()
    }

    /// How many newest tags stay; 0 where it does not say so.
    pub fn newest_kept(&self) -> u32 {
        self.keep_newest.unwrap_or(0)
    }

    /// Whether a tag may not be moved.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable.as_ref().is_some_and(|patterns| patterns.matches(tag))
    }

    /// The window of what lost its last reach, in milliseconds; `None` for that of the settings. Under a cap there is none.
    pub fn window_ms(&self) -> Option<u64> {
        if self.size_max_bytes.is_some() { Some(0) } else { self.held_for_ms }
    }

    /// When a spare tag goes, in Unix milliseconds: the latest of all given conditions. `None` where no tag goes by itself.
    ///
    /// `used_ms` is the last time that its manifest was pulled; one before `set_ms` changes nothing.
    pub fn due_ms(&self, set_ms: u64, used_ms: u64) -> Option<u64> {
        let age = self.older_than_ms.map(|ms| set_ms.saturating_add(ms));
        let idle = self.not_pulled_for_ms.map(|ms| set_ms.max(used_ms).saturating_add(ms));
        let newest = self.keep_newest.map(|_| set_ms);
        [age, idle, newest].into_iter().flatten().max()
    }

    /// Which of two policies governs a repository that both match: [`Ordering::Less`] for this one. Total: two policies are
    /// equal in it only with the same pattern and name.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.pattern.precedence(&other.pattern).then_with(|| self.name.cmp(&other.name))
    }
}

/// Of those that match a repository, the one that governs it.
pub fn governing<'a>(policies: impl IntoIterator<Item = &'a Policy>, name: &RepositoryName) -> Option<&'a Policy> {
    policies.into_iter().filter(|policy| policy.pattern.matches(name)).min_by(|a, b| a.precedence(b))
}

/// Those that match a repository, the one that governs it first.
pub fn matching<'a>(policies: impl IntoIterator<Item = &'a Policy>, name: &RepositoryName) -> Vec<&'a Policy> {
    let mut found: Vec<_> = policies.into_iter().filter(|policy| policy.pattern.matches(name)).collect();
    found.sort_by(|a, b| a.precedence(b));
    found
}

fn keep_newest_accepted() -> String {
    format!("a whole number from 1 to {KEEP_NEWEST_MAX}")
}

fn size_accepted() -> String {
    format!("a size from 1B to {}, such as 20GiB, or so many bytes as a number", units::show_bytes(SIZE_MAX_BYTES))
}

fn duration_accepted(min: u64) -> String {
    let [min, max] = [min, DURATION_MAX_MS].map(units::show_duration);
    format!("a duration from {min} to {max}, such as 12h or 30d")
}

/// A policy's name, such as `ci-cache`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(String);

impl PolicyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyName {
    type Err = PolicyError;

    /// `[a-z0-9][a-z0-9._-]{0,63}`, but not `explain`.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.len() <= NAME_LEN_MAX
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || b"._-".contains(&byte));
        if text == "explain" {
            let reason = "the admin API explains under that name which policy governs a repository; use another one";
            return Err(PolicyError::value("name", format_args!("{text:?}"), reason));
        }
        if valid {
            return Ok(Self(text.to_owned()));
        }
        let reason = format!(
            "use at most {NAME_LEN_MAX} lower-case letters, digits and . _ -, beginning with a letter or a digit"
        );
        Err(PolicyError::value("name", format_args!("{text:?}"), reason))
    }
}

/// A text that is shown and written as it is, and read by its grammar.
macro_rules! shown_as_text {
    ($($name:ty),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )*};
}
use shown_as_text;
shown_as_text!(PolicyName);

#[cfg(test)]
mod tests;
