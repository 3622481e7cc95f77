//! The commands, and what each asks.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Column, Outcome, Plan, Shape, Target,
    agreeing::agree,
    arguments::{
        Blob, Compact, Doctor, Gc, History, Ls, Pausable, Pausing, Policy, Purge, Quota, Restore, Scrub, Segments,
        Status, Top, Usage, Verify, WhatIf, Why,
    },
    call::{Call, is_unknown},
    refused, run,
    show::{self, HINT},
    transport::Transport,
};
use crate::Failure;

/// What names an organisation or a repository.
const SCOPE: &str = "\
O is an organisation, R a repository. A name with a slash in it is a repository; so is one without, if there is such a
repository (it belongs to organisation _); else it is an organisation. A slash at the end (O/) always means the organisation.";

const GC_HELP: &str = "\
Without a terminal to ask on, --free needs --yes. Ends with 1 when less was freed than was asked for, or less would be.

Example:
  orlop gc --free 20GiB --dry-run";

#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Shows what the registry, an organisation or a repository stores, and what of it is reclaimable.
    #[command(after_help = format!("{SCOPE}\n\nExample:\n  orlop usage org1/image"))]
    Usage(Usage),
    /// Lists organisations, the repositories of one, or the manifests of a repository, with their usage.
    #[command(after_help = format!("{SCOPE}\n\nExample:\n  orlop ls org1/image --own"))]
    Ls(Ls),
    /// Sets what an organisation or a repository may store, or shows such quotas and what is used of them.
    #[command(after_help = format!("{SCOPE}\n\nExample:\n  orlop quota org1/ 20GiB"))]
    Quota(Quota),
    /// Says what is done with the repositories of a pattern: which tags go, how much may be there, what may not be moved.
    #[command(after_help = "Example:\n  orlop policy explain org1/image")]
    Policy(Policy),
    /// Tells what deleting a repository, tags or manifests of it would give back; changes nothing.
    #[command(after_help = "Example:\n  orlop what-if org1/image --tag 1.0 --tag 1.1")]
    WhatIf(WhatIf),
    /// Shows what keeps the most by itself: organisations, repositories of one, or manifests of a repository.
    #[command(after_help = format!("{SCOPE}\n\nExample:\n  orlop top org1 -n 5"))]
    Top(Top),
    /// Shows what tags pointed to, as far back as it is kept.
    #[command(after_help = "Example:\n  orlop history org1/image latest")]
    History(History),
    /// Makes a manifest present again that was deleted or lost its tag; points the tag to it, if one is named.
    #[command(
        override_usage = "orlop restore [OPTIONS] <R> [TAG] <DIGEST>",
        after_help = "Example:\n  orlop restore org1/image latest sha256:0123…"
    )]
    Restore(Restore),
    /// Ends the windows of held manifests now, and waits until their bytes are off the disk.
    #[command(after_help = format!("{SCOPE}\n\nExample:\n  orlop purge org1 --dry-run"))]
    Purge(Purge),
    /// Collects what is due now, and waits until its bytes are off the disk; with --free also what is held, as far as needed.
    #[command(after_help = GC_HELP)]
    Gc(Gc),
    /// Copies what lives out of segments that are half dead, and removes these.
    #[command(after_help = "Example:\n  orlop compact --dry-run")]
    Compact(Compact),
    /// Lists the segments: what each takes on the disk, and what of that lives.
    #[command(after_help = "Example:\n  orlop segments -n 10")]
    Segments(Segments),
    /// Tells where content lies, who links and names it, until when; or when it was dropped.
    #[command(after_help = "Example:\n  orlop blob sha256:0123… --search")]
    Blob(Blob),
    /// Shows the chains of tags and manifests that keep some content.
    #[command(after_help = "Example:\n  orlop why org1/image:latest")]
    Why(Why),
    /// Stops collecting, compacting or scrubbing, until it is resumed; kept over restarts.
    #[command(after_help = "Example:\n  orlop pause compact")]
    Pause(Pausing),
    /// Lets collecting, compacting or scrubbing go on.
    #[command(after_help = "Example:\n  orlop resume compact")]
    Resume(Pausing),
    /// Counts everything again from the manifests alone, and compares; with --content reads and checks every byte, too.
    #[command(
        after_help = "Ends with 1 when there are findings, with 2 when something could not be looked at and nothing was found.\n\n\
                      With --data the store is opened first, as a start does: that finishes what a killed process has left, \
                      and what it had to do is told, as a finding where something was lost or damaged.\n\nExample:\n  orlop \
                      verify --data /srv/orlop --deep"
    )]
    Verify(Verify),
    /// Reads all that is stored again, now, and tells what is damaged; with --status only what is known.
    #[command(after_help = "Ends with 1 when there are findings.\n\nExample:\n  orlop scrub --status")]
    Scrub(Scrub),
    /// Tells whether the server takes writes, what it does, what is paused, and whether anything is damaged.
    #[command(after_help = "Ends with 1 when writes are refused or something is damaged.\n\nExample:\n  orlop status")]
    Status(Status),
    /// Looks at the store, what it lies on and what it runs in; says in words whether all is well, and what to do where not.
    #[command(
        after_help = "Ends with 1 when there is a warning or a problem.\n\nExample:\n  orlop doctor --data /srv/orlop"
    )]
    Doctor(Doctor),
}

/// What a name names.
enum Scope {
    Organisation(String),
    Repository(String),
}

impl Scope {
    fn parameter(&self) -> (&'static str, &str) {
        match self {
            Self::Organisation(name) => ("organization", name),
            Self::Repository(name) => ("repository", name),
        }
    }

    fn of(call: Call, scope: Option<&Self>) -> Call {
        match scope.map(Self::parameter) {
            Some((name, value)) => call.with(name, value),
            None => call,
        }
    }
}

/// Finds out what a name names; asks only where the name alone does not say it.
fn scope(transport: &dyn Transport, name: &str) -> Result<Scope, Failure> {
    if let Some(organisation) = name.strip_suffix('/') {
        return Ok(Scope::Organisation(organisation.to_owned()));
    }
    if name.contains('/') {
        return Ok(Scope::Repository(name.to_owned()));
    }
    if name == "_" {
        return Ok(Scope::Organisation(name.to_owned()));
    }
    match transport.ask(&Call::get("usage").with("repository", name)) {
        Ok(_) => Ok(Scope::Repository(name.to_owned())),
        Err(error) if is_unknown(&error) => Ok(Scope::Organisation(name.to_owned())),
        Err(error) => Err(error),
    }
}

fn optional_scope(transport: &dyn Transport, name: Option<&str>) -> Result<Option<Scope>, Failure> {
    name.map(|name| scope(transport, name)).transpose()
}

impl Admin {
    /// Asks, and prints the answer.
    pub(crate) fn run(&self) -> Result<Outcome, Failure> {
        let one = |target: &Target, call: Call, show| run(target, |_| Ok(Plan { call, shape: Shape::One(show) }));
        let long = |target: &Target, call: Call, show, doing| {
            run(target, |_| Ok(Plan { call, shape: Shape::Long { show, doing, far: None } }))
        };
        let no_fields = || json!({});
        match self {
            Self::Usage(it) => run(&it.target, |transport| it.plan(transport)),
            Self::Ls(it) => run(&it.target, |transport| it.plan(transport)),
            Self::Quota(it) => run(&it.target, |transport| it.plan(transport)),
            Self::Policy(it) => it.run(),
            Self::WhatIf(it) => one(&it.target, it.call(), show::what_if::show),
            Self::Top(it) => run(&it.target, |transport| {
                let scope = optional_scope(transport, it.scope.as_deref())?;
                let call = Call::get("top").with("n", it.count.unwrap_or(10).to_string());
                Ok(Plan { call: Scope::of(call, scope.as_ref()), shape: Shape::One(show::top::show) })
            }),
            Self::History(it) => run(&it.target, |_| Ok(it.plan())),
            Self::Restore(it) => one(&it.target, it.call(), show::history::restored),
            Self::Purge(it) => run(&it.target, |transport| it.plan(transport)),
            Self::Gc(it) if it.status => {
                let n = it.count.unwrap_or(10).to_string();
                one(&it.target, Call::get("collect").with("n", n), show::collection::status)
            }
            Self::Gc(it) => run(&it.target, |transport| it.plan(transport)),
            Self::Compact(it) => {
                let call = Call::post("compact", no_fields()).flag("dry_run", it.dry_run);
                long(&it.target, call, show::collection::compaction, "compacting")
            }
            Self::Segments(it) => run(&it.target, |_| {
                let shape = list("segments", show::segments::columns(), it.limit.count, None);
                Ok(Plan { call: Call::get("segments"), shape })
            }),
            Self::Blob(it) => {
                let call = Call::get(&format!("blobs/{}", it.digest)).with("n", "1000").flag("search", it.search);
                let show = show::blob::show;
                if it.search { long(&it.target, call, show, "searching") } else { one(&it.target, call, show) }
            }
            Self::Why(it) => one(&it.target, it.call(), show::why::show),
            Self::Pause(it) => one(&it.target, it.call("pause"), show::collection::paused),
            Self::Resume(it) => one(&it.target, it.call("resume"), show::collection::paused),
            Self::Scrub(it) if it.status => one(&it.target, Call::get("scrub"), show::health::scrub),
            Self::Scrub(it) => long(&it.target, Call::post("scrub", no_fields()), show::health::scrub, "scrubbing"),
            Self::Status(it) => one(&it.target, Call::get("status"), show::health::status),
            Self::Doctor(it) => one(&it.target, Call::get("doctor"), show::doctor::show),
            Self::Verify(it) => {
                let done = run(&it.target, |_| {
                    let call = Call::post("verify", json!({ "content": it.content }));
                    let far = Some(Call::get("verify"));
                    Ok(Plan { call, shape: Shape::Long { show: show::verify::show, doing: "verifying", far } })
                });
                done.or_else(|error| refused(&it.target, error))
            }
        }
    }
}

fn list(field: &'static str, columns: Vec<Column>, limit: Option<u64>, note: Option<&'static str>) -> Shape {
    Shape::List { field, columns, limit, note }
}

impl Usage {
    fn plan(&self, transport: &dyn Transport) -> Result<Plan, Failure> {
        let scope = optional_scope(transport, self.scope.as_deref())?;
        if !self.history {
            return Ok(Plan {
                call: Scope::of(Call::get("usage"), scope.as_ref()),
                shape: Shape::One(show::usage::show),
            });
        }
        let call = Call::get("usage/history");
        let call = match scope {
            None => call,
            Some(Scope::Organisation(name)) => call.with("organization", name),
            Some(Scope::Repository(_)) => {
                return Err("usage is kept by days for the registry and for organisations: name one, as in \
                            `orlop usage org1/ --history`"
                    .into());
            }
        };
        Ok(Plan { call, shape: list("samples", show::usage::samples(), None, None) })
    }
}

impl Ls {
    fn plan(&self, transport: &dyn Transport) -> Result<Plan, Failure> {
        let limit = self.limit.count;
        let scope = optional_scope(transport, self.scope.as_deref())?;
        let (call, shape) = match &scope {
            None => (
                Call::get("organizations"),
                list("organizations", show::usage::scopes("ORGANISATION", true), limit, Some(HINT)),
            ),
            Some(Scope::Organisation(_)) if self.own => {
                return Err("--own is for the manifests of a repository: name one".into());
            }
            Some(Scope::Organisation(_)) => (
                Call::get("repositories"),
                list("repositories", show::usage::scopes("REPOSITORY", false), limit, Some(HINT)),
            ),
            Some(Scope::Repository(_)) => (
                Call::get("manifests").flag("own", self.own),
                list("manifests", show::manifests::columns(self.own), limit, Some(HINT)),
            ),
        };
        Ok(Plan { call: Scope::of(call, scope.as_ref()), shape })
    }
}

impl Quota {
    fn plan(&self, transport: &dyn Transport) -> Result<Plan, Failure> {
        let scope = optional_scope(transport, self.scope.as_deref())?;
        let (Some(scope), Some(limit)) = (&scope, self.limit_bytes) else {
            let shape = list("quotas", show::quotas::columns(), self.limit.count, None);
            return Ok(Plan { call: Scope::of(Call::get("quotas"), scope.as_ref()), shape });
        };
        let (name, value) = scope.parameter();
        let call = Call::put("quotas", json!({ name: value, "limit_bytes": limit.0 }));
        Ok(Plan { call, shape: Shape::One(show::quotas::set) })
    }
}

impl WhatIf {
    fn call(&self) -> Call {
        let mut body = json!({ "repository": self.repository });
        for (name, values) in [("tags", &self.tags), ("digests", &self.digests)] {
            if !values.is_empty() {
                body[name] = json!(values);
            }
        }
        Call::post("what-if", body)
    }
}

impl History {
    fn plan(&self) -> Plan {
        let call = Call::get("history").with("repository", &self.repository);
        let call = match &self.tag {
            Some(tag) => call.with("tag", tag),
            None => call,
        };
        Plan { call, shape: list("history", show::history::columns(), self.limit.count, None) }
    }
}

impl Restore {
    fn call(&self) -> Call {
        let mut body = json!({ "repository": self.repository });
        // The digest is the last of them; clap gives one or two.
        if let Some((digest, before)) = self.what.split_last() {
            body["digest"] = json!(digest);
            if let Some(tag) = before.first() {
                body["tag"] = json!(tag);
            }
        }
        Call::post("restore", body)
    }
}

impl Purge {
    fn plan(&self, transport: &dyn Transport) -> Result<Plan, Failure> {
        let scope = scope(transport, &self.scope)?;
        let (name, value) = scope.parameter();
        let body: Value = json!({ name: value });
        let call = Call::post("purge", body).flag("dry_run", self.dry_run);
        Ok(Plan { call, shape: Shape::Long { show: show::collection::report, doing: "purging", far: None } })
    }
}

impl Gc {
    /// What is to be freed is asked for when whoever asks agrees to what that takes.
    fn plan(&self, transport: &dyn Transport) -> Result<Plan, Failure> {
        let (show, doing) =
            (show::collection::report, if self.free_bytes.is_some() { "freeing" } else { "collecting" });
        let body = self.free_bytes.map_or_else(|| json!({}), |bytes| json!({ "free_bytes": bytes }));
        let call = |dry_run| Call::post("collect", body.clone()).flag("dry_run", dry_run);
        if self.free_bytes.is_some() && !self.dry_run && !self.yes {
            agree(transport, &call(true), show)?;
        }
        Ok(Plan { call: call(self.dry_run), shape: Shape::Long { show, doing, far: None } })
    }
}

impl Why {
    fn call(&self) -> Call {
        let call = Call::get("why");
        let reference = self.reference.as_str();
        let is_digest = |text: &str| text.parse::<orlop::Digest>().is_ok();
        match (reference.split_once('@'), reference.split_once(':')) {
            _ if is_digest(reference) => call.with("digest", reference),
            (Some((repository, digest)), _) => call.with("repository", repository).with("reference", digest),
            (None, Some((repository, tag))) => call.with("repository", repository).with("reference", tag),
            // The server says what is wrong with it.
            (None, None) => call.with("digest", reference),
        }
    }
}

impl Pausing {
    fn call(&self, path: &str) -> Call {
        let what = match self.what {
            Pausable::Collect => "collect",
            Pausable::Compact => "compact",
            Pausable::Scrub => "scrub",
        };
        Call::post(path, json!({ "what": what }))
    }
}
