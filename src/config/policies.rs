//! Policies in the configuration file: tables `[[policies]]`, each with the fields of a policy.
//!
//! One that is not accepted is refused with its number, its line, its field and the reason; then nothing of the file counts.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use crate::policy::{POLICIES_MAX, Policy, PolicyForm};

/// The key of the list.
pub(super) const KEY: &str = "policies";

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    policies: Vec<Spanned<PolicyForm>>,
}

/// The policies of a file that is TOML.
pub(super) fn read(file: &Path, text: &str) -> Result<Vec<Policy>, ConfigError> {
    let syntax = |error: toml::de::Error| ConfigError::Syntax { file: file.to_owned(), problem: error.to_string() };
    let File { policies: forms } = toml::from_str(text).map_err(syntax)?;
    let mut policies: Vec<Policy> = Vec::new();
    let (mut names, mut patterns) = (BTreeMap::new(), BTreeMap::new());
    for (at, form) in forms.into_iter().enumerate() {
        let (number, line) = (at + 1, text[..form.span().start].matches('\n').count() + 1);
        let refuse = |problem| ConfigError::Policy { file: file.to_owned(), number, line, problem };
        if number > POLICIES_MAX {
            return Err(refuse(format!("there are at most {POLICIES_MAX} policies")));
        }
        let policy = form.into_inner().policy().map_err(|error| refuse(error.to_string()))?;
        if let Some(before) = names.insert(policy.name.clone(), number) {
            return Err(refuse(format!("name = \"{}\" is that of policy {before}, too", policy.name)));
        }
        if let Some(before) = patterns.insert(policy.pattern.clone(), number) {
            let (name, pattern) = (&policy.name, &policy.pattern);
            let problem =
                format!("pattern = \"{pattern}\" of \"{name}\" is that of policy {before}, too; make it one policy");
            return Err(refuse(problem));
        }
        policies.push(policy);
    }
    Ok(policies)
}

/// The policies as they stand in a file.
pub(super) fn describe(policies: &[Policy]) -> String {
    let table = |policy: &Policy| {
        // A policy has fields that TOML has, and no others.
        let fields = toml::to_string(policy).unwrap_or_default();
        format!("# What is done with the repositories of a pattern. (file)\n[[policies]]\n{fields}\n")
    };
    policies.iter().map(table).collect()
}
