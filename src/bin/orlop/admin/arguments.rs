//! What each command takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Target;

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// An organisation or a repository; without it, the registry.
    #[arg(value_name = "O|R")]
    pub(super) scope: Option<String>,
    /// How the usage of the registry, or of an organisation, went, by days.
    #[arg(long)]
    pub(super) history: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// An organisation or a repository; without it, all organisations.
    #[arg(value_name = "O|R")]
    pub(super) scope: Option<String>,
    /// Also what only each manifest keeps; takes longer.
    #[arg(long, requires = "scope")]
    pub(super) own: bool,
    #[command(flatten)]
    pub(super) limit: Limit,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Quota {
    /// An organisation or a repository; without it, all quotas are listed.
    #[arg(value_name = "O|R")]
    pub(super) scope: Option<String>,
    /// What it may store, such as 20GiB; `none` takes its quota away. Without it, what a push there meets is shown.
    #[arg(value_name = "SIZE|none", value_parser = parse_limit)]
    pub(super) limit_bytes: Option<LimitBytes>,
    #[command(flatten)]
    pub(super) limit: Limit,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What a quota is set to: a size, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitBytes(pub(super) Option<u64>);

fn parse_limit(text: &str) -> Result<LimitBytes, String> {
    match (text, orlop::config::parse_bytes(text)) {
        ("none", _) => Ok(LimitBytes(None)),
        (_, Some(bytes)) => Ok(LimitBytes(Some(bytes))),
        _ => Err("give a size such as 500MiB, 20GiB or 1TiB, or none".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = orlop::config::parse_bytes(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "give a size such as 500MiB, 20GiB or 1TiB".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct WhatIf {
    /// The repository.
    #[arg(value_name = "R")]
    pub(super) repository: String,
    /// Only these tags.
    #[arg(long = "tag", value_name = "TAG")]
    pub(super) tags: Vec<String>,
    /// Only these manifests.
    #[arg(long = "digest", value_name = "DIGEST", conflicts_with = "tags")]
    pub(super) digests: Vec<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(super) verb: PolicyVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Sets a policy, or tells with --dry-run what it would take away.
    #[command(after_help = PATTERNS)]
    Set(Box<PolicySet>),
    /// Lists all policies, and what each governs.
    Ls(PolicyLs),
    /// Removes a policy; what has gone by it stays gone.
    Rm(PolicyNamed),
    /// Tells which policy governs a repository, why, and what it does there.
    Explain(PolicyExplain),
    /// Lets a policy take more than half of a repository's tags at once.
    Confirm(PolicyNamed),
}

const PATTERNS: &str = "\
In a pattern of repositories * stands for any characters but /, and ** for any. Of several policies that match a repository one
governs it, as a whole: the one that names it; else the one whose pattern has more characters that stand for themselves.
A tag goes when all conditions hold that are given: it is none of the newest, old enough, and not pulled for long enough.
A policy that would take more than half of a repository at once is set with --yes only, or after a --dry-run of the same server.

Example:
  orlop policy set ci-cache --pattern 'ci/**' --size-max 20GiB --tag-pattern '!pinned-*' --dry-run";

#[derive(Debug, Args)]
pub(super) struct PolicySet {
    /// The policy's name.
    #[arg(required_unless_present = "file")]
    pub(super) name: Option<String>,
    /// Reads all of the policy from a file of JSON or TOML, with the names of fields that the admin API has.
    #[arg(long, value_name = "FILE", conflicts_with_all = FIELDS)]
    pub(super) file: Option<PathBuf>,
    /// Which repositories it is for, such as 'team/**'.
    #[arg(long, value_name = "P", required_unless_present = "file")]
    pub(super) pattern: Option<String>,
    /// Which tags it may take away, such as 'v*', or '!pinned-*' for all others; several times for several.
    #[arg(long, value_name = "G")]
    pub(super) tag_pattern: Vec<String>,
    /// So many newest tags stay.
    #[arg(long, value_name = "N")]
    pub(super) keep_newest: Option<u64>,
    /// Tags go that were set so long ago, such as 30d.
    #[arg(long, value_name = "TIME")]
    pub(super) older_than: Option<String>,
    /// Tags go that were neither pulled nor set for so long.
    #[arg(long, value_name = "TIME")]
    pub(super) not_pulled_for: Option<String>,
    /// What its repositories may use together, such as 20GiB: what was used least recently goes.
    #[arg(long, value_name = "SIZE")]
    pub(super) size_max: Option<String>,
    /// Tags that may not be moved: those of --tag-pattern, or of a pattern of their own.
    #[arg(long, value_name = "G", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(super) immutable: Vec<String>,
    /// How long what lost its last reach can be restored.
    #[arg(long, value_name = "TIME")]
    pub(super) held_for: Option<String>,
    /// Manifests go that were pushed by digest so long ago and never got a tag.
    #[arg(long, value_name = "TIME")]
    pub(super) never_tagged_for: Option<String>,
    /// Tells what would go, and changes nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// It may take more than half of a repository at once.
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What a file has all of.
const FIELDS: [&str; 9] = [
    "pattern",
    "tag_pattern",
    "keep_newest",
    "older_than",
    "not_pulled_for",
    "size_max",
    "immutable",
    "held_for",
    "never_tagged_for",
];

#[derive(Debug, Args)]
pub(super) struct PolicyLs {
    #[command(flatten)]
    pub(super) limit: Limit,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(super) struct PolicyNamed {
    /// The policy's name.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(super) struct PolicyExplain {
    /// The repository; it need not be there.
    #[arg(value_name = "R")]
    pub(super) repository: String,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// An organisation or a repository; without it, the registry.
    #[arg(value_name = "O|R")]
    pub(super) scope: Option<String>,
    /// How many to show, at most 100 [default: 10]
    #[arg(short = 'n', value_name = "COUNT")]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The repository.
    #[arg(value_name = "R")]
    pub(super) repository: String,
    /// Only this tag.
    pub(super) tag: Option<String>,
    #[command(flatten)]
    pub(super) limit: Limit,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The repository.
    #[arg(value_name = "R")]
    pub(super) repository: String,
    /// The tag to point to it, if one shall; then the manifest's digest.
    #[arg(value_name = "TAG|DIGEST", num_args = 1..=2, required = true)]
    pub(super) what: Vec<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// An organisation or a repository.
    #[arg(value_name = "O|R")]
    pub(super) scope: String,
    /// Tells what would be done, and does nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Tells what would be done, and does nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Frees so much, such as 20GiB: what is held ends early, what would go first by itself first; then what policies let go; and no
    /// more than that takes. The plan is shown, and done when you agree.
    #[arg(long = "free", value_name = "SIZE", value_parser = parse_size)]
    pub(super) free_bytes: Option<u64>,
    /// With --free: does it without asking.
    #[arg(long, requires = "free_bytes", conflicts_with = "dry_run")]
    pub(super) yes: bool,
    /// Shows the last collections, what is due, and when; collects nothing.
    #[arg(long, conflicts_with_all = ["dry_run", "free_bytes"])]
    pub(super) status: bool,
    /// How many of the last collections to show [default: 10]
    #[arg(short = 'n', value_name = "COUNT", requires = "status")]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// Tells what would be done, and does nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Segments {
    #[command(flatten)]
    pub(super) limit: Limit,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Blob {
    /// The digest of a blob or manifest.
    pub(super) digest: String,
    /// Also reads all files of the data directory for copies of its bytes; slow.
    #[arg(long)]
    pub(super) search: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// A digest, or R:TAG, or R@DIGEST.
    #[arg(value_name = "DIGEST|REF")]
    pub(super) reference: String,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Pausing {
    pub(super) what: Pausable,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Pausable {
    /// Dropping what is due.
    Collect,
    /// Moving what lives out of sparse segments.
    Compact,
    /// Reading all that is stored again.
    Scrub,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Reads all content, and checks it by its checksums and its digest.
    #[arg(long, visible_alias = "deep")]
    pub(super) content: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Shows how far the scrub is and what it has found; reads nothing.
    #[arg(long)]
    pub(super) status: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(super) target: Target,
}

/// How much of a list is shown.
#[derive(Debug, Args)]
pub(super) struct Limit {
    /// Most entries; without it, all.
    #[arg(short = 'n', value_name = "COUNT")]
    pub(super) count: Option<u64>,
}
