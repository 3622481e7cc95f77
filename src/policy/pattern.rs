//! Which repositories and which tags: globs that something can match, and which of two is the more specific one.
//!
//! A pattern that no name can match is refused: whoever wrote it meant another one, and would wait for it in vain.

use std::{cmp::Ordering, cmp::Reverse, str::FromStr};

use super::{
    PolicyError,
    glob::{self, Part},
    shown_as_text,
};
use crate::name::{REPOSITORY_LEN_MAX, RepositoryName, TAG_LEN_MAX, Tag};

/// Most globs in a list of tag patterns.
pub const TAG_PATTERNS_MAX: usize = 100;

/// A glob over repository names: `*` for any characters but `/`, `**` for any; without either, a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryPattern(String);
shown_as_text!(RepositoryPattern);

impl RepositoryPattern {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a repository is one of those.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        glob::matches(&self.0, name.as_str())
    }

    /// The repository that it names, if it names one.
    pub fn exact(&self) -> Option<RepositoryName> {
        self.0.parse().ok()
    }

    /// Whether there can be a repository that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        glob::overlap(&self.0, &other.0)
    }

    /// Whether all that `other` matches is matched here; `false` also where that cannot be seen part by part.
    pub fn covers(&self, other: &Self) -> bool {
        glob::covers(&self.0, &other.0)
    }

    /// What of it stands for itself: a prefix of every name that it matches, and whole where it names one.
    pub fn literal_prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// Characters that stand for themselves; `**`; `*`.
    fn counts(&self) -> (usize, usize, usize) {
        glob::parts(&self.0).fold((0, 0, 0), |(literals, double, single), part| match part {
            Part::Byte(_) => (literals + 1, double, single),
            Part::Stars => (literals, double + 1, single),
            Part::Star => (literals, double, single + 1),
        })
    }

    /// Which of two is the more specific: [`Ordering::Less`] for this one. An exact name before all others; then the one
    /// with more characters that stand for themselves; fewer `**`; fewer `*`; the first in byte order.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let rank = |pattern: &Self| {
            let (literals, double, single) = pattern.counts();
            (double + single > 0, Reverse(literals), double, single)
        };
        rank(self).cmp(&rank(other)).then_with(|| self.0.cmp(&other.0))
    }

    /// Why this one wins over another one that does not, in words that go on after its name.
    pub fn why_before(&self, other: &Self) -> String {
        let ((literals, double, single), (literals_there, double_there, single_there)) =
            (self.counts(), other.counts());
        if double + single == 0 && double_there + single_there > 0 {
            "names the repository itself".to_owned()
        } else if literals != literals_there {
            format!("has more characters that stand for themselves ({literals} against {literals_there})")
        } else if double != double_there {
            format!("has fewer ** ({double} against {double_there})")
        } else if single != single_there {
            format!("has fewer * ({single} against {single_there})")
        } else {
            "comes first in byte order, being no more specific".to_owned()
        }
    }
}

impl FromStr for RepositoryPattern {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let refuse = |reason: &str| PolicyError::value("pattern", format_args!("{text:?}"), reason);
        if text.is_empty() {
            return Err(refuse(
                "use a repository's name, or one with * (any characters but /) and ** (any characters)",
            ));
        }
        if text.len() > REPOSITORY_LEN_MAX {
            return Err(refuse("a pattern has at most 255 characters"));
        }
        if text.contains("***") {
            return Err(refuse("use * (any characters but /) or ** (any characters)"));
        }
        // With a letter for each wildcard, a pattern is a name exactly if any name matches it: a letter between what is written
        // out ends runs of separators, which are the shorter then, and needs less room than the wildcard.
        let name = text.replace("**", "0").replace('*', "0");
        if name.parse::<RepositoryName>().is_err() {
            return Err(refuse(
                "no repository can have such a name: there are lower-case letters and digits, separated by one of \
                 . _ __ - in components that are separated by /; only * and ** stand for others",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Globs over tags, in which `*` stands for any characters. A tag matches if one of them does, and none of those that begin
/// with `!`. With those alone, all others match.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TagPatterns(Vec<String>);

impl Default for TagPatterns {
    /// All tags.
    fn default() -> Self {
        Self(vec!["*".to_owned()])
    }
}

impl std::fmt::Debug for TagPatterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

impl std::fmt::Display for TagPatterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl TagPatterns {
    /// Reads them, those of `field`.
    ///
    /// # Errors
    /// When there are none, too many, one that no tag can match, or all of them are excluded again.
    pub fn new(field: &'static str, patterns: Vec<String>) -> Result<Self, PolicyError> {
        if patterns.is_empty() {
            return Err(PolicyError::value(field, "[]", "an empty list matches no tag; leave it out for all tags"));
        }
        if patterns.len() > TAG_PATTERNS_MAX {
            let reason = format!("a list has at most {TAG_PATTERNS_MAX} patterns");
            return Err(PolicyError::value(field, format_args!("[{} patterns]", patterns.len()), reason));
        }
        for text in &patterns {
            check_glob(field, text)?;
        }
        let read = Self(patterns);
        if read.included().all(|glob| read.excluded().any(|out| glob::covers(out, glob))) {
            let reason = "it matches no tag: all that it includes is excluded with ! again";
            return Err(PolicyError::value(field, format_args!("{read:?}"), reason));
        }
        Ok(read)
    }

    /// Their texts, in the order in which they were given.
    pub fn texts(&self) -> &[String] {
        &self.0
    }

    /// Whether a tag is one of those.
    pub fn matches(&self, tag: &Tag) -> bool {
        let is_match = |glob: &str| glob::matches(glob, tag.as_str());
        self.included().any(is_match) && !self.excluded().any(is_match)
    }

    /// Whether it is all tags, for certain.
    pub fn is_all(&self) -> bool {
        self.excluded().next().is_none() && self.included().any(|glob| glob == "*")
    }

    fn excluded(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|text| text.strip_prefix('!'))
    }

    fn included(&self) -> impl Iterator<Item = &str> {
        let only_excludes = self.0.iter().all(|text| text.starts_with('!'));
        only_excludes
            .then_some("*")
            .into_iter()
            .chain(self.0.iter().map(String::as_str).filter(|t| !t.starts_with('!')))
    }
}

fn check_glob(field: &'static str, text: &str) -> Result<(), PolicyError> {
    let refuse = |reason: &str| PolicyError::value(field, format_args!("{text:?}"), reason);
    let glob = text.strip_prefix('!').unwrap_or(text);
    if glob.is_empty() {
        return Err(refuse("use a tag, or one with * (any characters); with ! in front it is excluded"));
    }
    if glob.len() > TAG_LEN_MAX {
        return Err(refuse("a pattern of tags has at most 128 characters"));
    }
    if glob.contains("**") {
        return Err(refuse("use *, which stands for any characters"));
    }
    if glob.replace('*', "0").parse::<Tag>().is_err() {
        return Err(refuse("no tag can match it: there are letters, digits and _ . -, not beginning with . or -"));
    }
    Ok(())
}
