//! What each command takes.

use clap::{Args, ValueEnum};

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
