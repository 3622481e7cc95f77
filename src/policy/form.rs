//! A policy as JSON and TOML: what clients send, settings say, and answers show.
//!
//! Every field is read as any value first, so that whatever stands there is refused by the field's name with the reason, and
//! not by a type of ours. Durations are texts (`30d`), a size may be one (`20GiB`) or a number of bytes; both are shown as
//! they can be read again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    DURATION_MAX_MS, DURATION_MIN_MS, NOT_PULLED_MIN_MS, Policy, PolicyError, PolicyName, SIZE_MAX_BYTES, TagPatterns,
    duration_accepted, keep_newest_accepted, size_accepted,
};
use crate::words::units;

const NAME: &str = "every policy has a name of its own, such as \"ci-cache\"";
const PATTERN: &str = "say for which repositories the policy is, such as \"team/**\"";
const TAGS: &str = "a pattern such as \"v*\", or a list of such, those with ! excluded";

/// The fields of a policy as they are written. Absent and `null` are the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_pattern: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_newest: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    older_than: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_pulled_for: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_max_bytes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    immutable: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_for: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    never_tagged_for: Option<Value>,
}

impl PolicyForm {
    /// The policy, under its own name.
    ///
    /// # Errors
    /// [`PolicyError`]: the first field that is not accepted, with the reason.
    pub fn policy(mut self) -> Result<Policy, PolicyError> {
        let name = self.name.take().ok_or(PolicyError::Missing { field: "name", reason: NAME })?;
        let name = text("name", &name, NAME)?.parse()?;
        self.filled(name)
    }

    /// The policy under a name that was given beside it. A name in it has to be the same.
    ///
    /// # Errors
    /// As [`Self::policy`].
    pub fn named(mut self, name: PolicyName) -> Result<Policy, PolicyError> {
        match self.name.take() {
            Some(own) if own != name.as_str() => {
                Err(PolicyError::value("name", own, format!("the policy is addressed as \"{name}\"")))
            }
            _ => self.filled(name),
        }
    }

    fn filled(&self, name: PolicyName) -> Result<Policy, PolicyError> {
        let missing = PolicyError::Missing { field: "pattern", reason: PATTERN };
        let pattern = text("pattern", self.pattern.as_ref().ok_or(missing)?, PATTERN)?.parse()?;
        let mut policy = Policy::new(name, pattern);
        if let Some(value) = &self.tag_pattern {
            policy.tag_pattern = tags("tag_pattern", value, TAGS)?;
        }
        policy.keep_newest = self.keep_newest.as_ref().map(keep_newest).transpose()?;
        policy.older_than_ms = duration("older_than", self.older_than.as_ref(), DURATION_MIN_MS)?;
        policy.not_pulled_for_ms = duration("not_pulled_for", self.not_pulled_for.as_ref(), NOT_PULLED_MIN_MS)?;
        policy.size_max_bytes = self.size_max_bytes.as_ref().map(size).transpose()?;
        policy.immutable = match &self.immutable {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(policy.tag_pattern.clone()),
            Some(other) => Some(tags("immutable", other, &format!("true, false, {TAGS}"))?),
        };
        policy.held_for_ms = duration("held_for", self.held_for.as_ref(), 0)?;
        policy.never_tagged_for_ms = duration("never_tagged_for", self.never_tagged_for.as_ref(), DURATION_MIN_MS)?;
        policy.check()?;
        Ok(policy)
    }
}

impl From<&Policy> for PolicyForm {
    fn from(policy: &Policy) -> Self {
        let shown = |ms: Option<u64>| ms.map(|ms| Value::from(units::show_duration(ms)));
        let listed = |patterns: &TagPatterns| Value::from(patterns.texts());
        Self {
            name: Some(policy.name.as_str().into()),
            pattern: Some(policy.pattern.as_str().into()),
            tag_pattern: Some(listed(&policy.tag_pattern)),
            keep_newest: policy.keep_newest.map(Value::from),
            older_than: shown(policy.older_than_ms),
            not_pulled_for: shown(policy.not_pulled_for_ms),
            size_max_bytes: policy.size_max_bytes.map(Value::from),
            immutable: policy.immutable.as_ref().map(|immutable| match immutable == &policy.tag_pattern {
                true => Value::Bool(true),
                false => listed(immutable),
            }),
            held_for: shown(policy.held_for_ms),
            never_tagged_for: shown(policy.never_tagged_for_ms),
        }
    }
}

impl Serialize for Policy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PolicyForm::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PolicyForm::deserialize(deserializer)?.policy().map_err(serde::de::Error::custom)
    }
}

fn text<'a>(field: &'static str, value: &'a Value, accepted: &str) -> Result<&'a str, PolicyError> {
    value.as_str().ok_or_else(|| PolicyError::value(field, value, accepted))
}

fn keep_newest(value: &Value) -> Result<u32, PolicyError> {
    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| PolicyError::value("keep_newest", value, keep_newest_accepted()))
}

fn size(value: &Value) -> Result<u64, PolicyError> {
    let bytes = match value {
        Value::String(text) => units::bytes(text, (1, SIZE_MAX_BYTES)),
        other => other.as_u64().filter(|bytes| (1..=SIZE_MAX_BYTES).contains(bytes)),
    };
    bytes.ok_or_else(|| PolicyError::value("size_max_bytes", value, size_accepted()))
}

fn duration(field: &'static str, value: Option<&Value>, min: u64) -> Result<Option<u64>, PolicyError> {
    let Some(value) = value else { return Ok(None) };
    let ms = match value {
        Value::String(text) => units::duration(text, (min, DURATION_MAX_MS)),
        // Nothing at all needs no unit.
        other => other.as_u64().filter(|number| *number == 0 && min == 0),
    };
    ms.map(Some).ok_or_else(|| PolicyError::value(field, value, duration_accepted(min)))
}

fn tags(field: &'static str, value: &Value, accepted: &str) -> Result<TagPatterns, PolicyError> {
    let patterns = match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    TagPatterns::new(field, patterns.ok_or_else(|| PolicyError::value(field, value, accepted))?)
}
