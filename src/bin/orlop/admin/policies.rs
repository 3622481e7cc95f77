//! `orlop policy …`: what each of its verbs asks.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    Outcome, Plan, Shape,
    arguments::{Policy, PolicySet, PolicyVerb},
    call::Call,
    run, show,
};
use crate::Failure;

/// Most bytes of a file with a policy: what the server takes.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl Policy {
    /// Asks, and prints the answer.
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let one = |call: Call, show| Ok(Plan { call, shape: Shape::One(show) });
        match &self.verb {
            PolicyVerb::Set(it) => run(&it.target, |_| one(it.call()?, show::policies::set)),
            PolicyVerb::Ls(it) => run(&it.target, |_| {
                let (columns, limit) = (show::policies::columns(), it.limit.count);
                let shape = Shape::List { field: "policies", columns, limit, note: None };
                Ok(Plan { call: Call::get("policies"), shape })
            }),
            PolicyVerb::Rm(it) => run(&it.target, |_| one(Call::delete(&path(&it.name)), show::policies::removed)),
            PolicyVerb::Confirm(it) => run(&it.target, |_| {
                let call = Call::post(&format!("{}/confirm", path(&it.name)), json!({}));
                one(call, show::policies::confirmed)
            }),
            PolicyVerb::Explain(it) => run(&it.target, |_| {
                one(Call::get("policies/explain").with("repository", &it.repository), show::policies::explanation)
            }),
        }
    }
}

/// The server says what is wrong with a name; one with a slash would be another route.
fn path(name: &str) -> String {
    format!("policies/{}", name.replace('/', "%2F"))
}

impl PolicySet {
    fn call(&self) -> Result<Call, Failure> {
        let (name, body) = match &self.file {
            Some(file) => self.of_file(file)?,
            None => (self.name.clone().unwrap_or_default(), self.fields()),
        };
        Ok(Call::put(&path(&name), body).flag("dry_run", self.dry_run).flag("yes", self.yes))
    }

    fn fields(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::from);
        put("pattern", text(&self.pattern));
        put("tag_pattern", (!self.tag_pattern.is_empty()).then(|| json!(self.tag_pattern)));
        put("keep_newest", self.keep_newest.map(Value::from));
        put("older_than", text(&self.older_than));
        put("not_pulled_for", text(&self.not_pulled_for));
        put("size_max_bytes", text(&self.size_max));
        put("held_for", text(&self.held_for));
        put("never_tagged_for", text(&self.never_tagged_for));
        let own: Vec<&String> = self.immutable.iter().filter(|pattern| !pattern.is_empty()).collect();
        put(
            "immutable",
            match (self.immutable.is_empty(), own.is_empty()) {
                (true, _) => None,
                (false, true) => Some(json!(true)),
                (false, false) => Some(json!(own)),
            },
        );
        Value::Object(fields)
    }

    /// A policy as it stands in a file, under the name that was given, or its own.
    fn of_file(&self, file: &Path) -> Result<(String, Value), Failure> {
        let shown = file.display();
        let len = std::fs::metadata(file).map_err(|error| format!("{shown}: {error}"))?.len();
        if len > FILE_BYTES_MAX {
            return Err(format!("{shown}: {len} bytes are no policy; it has at most {FILE_BYTES_MAX}").into());
        }
        let text = std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
        let body: Value = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))?,
            false => toml::from_str(&text).map_err(|error| format!("{shown}: {error}"))?,
        };
        let own = body["name"].as_str().map(str::to_owned);
        let name = self.name.clone().or(own);
        let name = name.ok_or_else(|| format!("{shown}: the policy has no name, and none was given"))?;
        Ok((name, body))
    }
}
