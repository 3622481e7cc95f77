//! Which policy governs a repository, and the rows that follow from that: kept in the operations that change what they follow
//! from, so that evaluating a policy reads what it takes away and little else.
//!
//! - `order`: a repository's tags, newest ones and others, and when these are due.
//! - `uses`: manifests by when they were used last, and roots by when they are due.
//! - `review`: bounded steps that bring repositories under another policy.
//!
//! A repository has a copy of its policy in its row. What is decided and applied there goes by that copy, so that its rows
//! are always those of one policy, whatever was set meanwhile; a review brings it up to date. Nothing is taken away by a copy
//! that is not what the policy says now.
//!
//! Invariants:
//! - A repository's own row says whether it is governed, and by what: others cost no look.
//! - While nothing is under review, every repository has the policy that `policy::governing` gives.
//! - All rows but those of policies follow from policies, tags, manifests and pulls: loaded and counted again they are the same.

use std::ops::ControlFlow;

use crate::{
    index::{
        Overlay, View,
        schema::{
            self, GovernedRow, Key, PolicyRow, PolicyUsageRow, RepositoryRow, ReviewPhase, RowValue, SchemaError,
            Scope, Table, UsageRow, key,
        },
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    policy::{self, Policy},
    state::counts::Change,
};

pub mod evict;
pub(super) mod order;
pub mod retain;
pub(super) mod review;
pub(super) mod uses;

/// All policies.
///
/// # Errors
/// When the index fails or is damaged.
pub fn policies(view: &dyn View) -> Result<Vec<PolicyRow>, SchemaError> {
    let mut all = Vec::new();
    schema::each_row_of(view, Table::Policies, |_, value| {
        all.push(PolicyRow::from_bytes(value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// The one that governs a repository of this name, whether it is there or not.
///
/// # Errors
/// As [`policies`].
pub fn governing(view: &dyn View, name: &RepositoryName) -> Result<Option<Policy>, SchemaError> {
    let all = policies(view)?;
    Ok(policy::governing(all.iter().map(|row| &row.policy), name).cloned())
}

/// What is known of a governed repository; `None` for one that is not, or is not there.
///
/// # Errors
/// As [`policies`].
pub fn governed(view: &dyn View, repository: RepositoryId) -> Result<Option<GovernedRow>, SchemaError> {
    let row: Option<RepositoryRow> = schema::get(view, key::repository(repository))?;
    match row.is_some_and(|row| row.governed) {
        true => schema::expect(view, key::governed(repository)).map(Some),
        false => Ok(None),
    }
}

/// The policy that is in force in a repository.
///
/// # Errors
/// As [`policies`].
pub fn in_force(view: &dyn View, repository: RepositoryId) -> Result<Option<Policy>, SchemaError> {
    Ok(governed(view, repository)?.and_then(|row| row.in_force().cloned()))
}

/// The same, where it also is what the policy of that name says now: only then anything may go by it.
///
/// # Errors
/// As [`policies`].
pub fn agreed(view: &dyn View, repository: RepositoryId) -> Result<Option<PolicyRow>, SchemaError> {
    let Some(policy) = in_force(view, repository)? else { return Ok(None) };
    let row: Option<PolicyRow> = schema::get(view, key::policy(&policy.name))?;
    Ok(row.filter(|row| row.policy == policy))
}

/// How long what loses its last reach in a repository is held, in milliseconds, if its policy says so.
///
/// # Errors
/// As [`policies`].
pub fn window_ms(view: &dyn View, repository: RepositoryId) -> Result<Option<u64>, SchemaError> {
    Ok(governed(view, repository)?.and_then(|row| row.policy?.window_ms()))
}

/// What the repositories of a policy have together.
///
/// # Errors
/// As [`policies`].
pub fn usage(view: &dyn View, policy: &str) -> Result<PolicyUsageRow, SchemaError> {
    Ok(schema::get(view, key::policy_usage(policy))?.unwrap_or_default())
}

/// A repository comes to be, or back from a snapshot, with nothing in it: it is governed by the policy from then on. Its own
/// row says so already.
pub(super) fn begin(overlay: &mut Overlay<'_>, repository: RepositoryId, policy: &Policy) -> Result<(), SchemaError> {
    put(overlay, repository, &GovernedRow::new(Some(policy.clone()), ReviewPhase::Done));
    with_usage(overlay, policy.name.as_str(), |usage| Change::Enters.step(&mut usage.repositories, 1))
}

/// An empty repository goes.
pub(super) fn end(overlay: &mut Overlay<'_>, repository: RepositoryId) -> Result<(), SchemaError> {
    let Some(row) = governed(overlay, repository)? else { return Ok(()) };
    overlay.delete(key::governed(repository).bytes());
    match row.policy {
        Some(policy) => with_usage(overlay, policy.name.as_str(), |usage| {
            Change::Leaves.step(&mut usage.repositories, 1);
        }),
        None => Ok(()),
    }
}

/// The totals of a repository have changed.
pub(super) fn usage_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    before: &UsageRow,
    after: &UsageRow,
) -> Result<(), SchemaError> {
    if (before.used_bytes, before.settling) == (after.used_bytes, after.settling) {
        return Ok(());
    }
    // One that is going has no row any more.
    let row: Option<RepositoryRow> = schema::get(overlay, key::repository(repository))?;
    let Some(row) = row.filter(|row| !row.policy.is_empty()) else { return Ok(()) };
    with_usage(overlay, &row.policy, |usage| {
        usage.used_bytes = usage.used_bytes.saturating_sub(before.used_bytes).saturating_add(after.used_bytes);
        usage.settling = usage.settling.saturating_sub(before.settling).saturating_add(after.settling);
    })
}

/// A repository as a whole comes under a policy, or from under it.
fn repository_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    policy: &str,
    change: Change,
) -> Result<(), SchemaError> {
    let of: UsageRow = schema::get(overlay, key::usage(Scope::Repository(repository)))?.unwrap_or_default();
    with_usage(overlay, policy, |usage| {
        change.step(&mut usage.repositories, 1);
        change.step(&mut usage.used_bytes, of.used_bytes);
        change.step(&mut usage.settling, of.settling);
    })
}

fn with_usage(
    overlay: &mut Overlay<'_>,
    policy: &str,
    change: impl FnOnce(&mut PolicyUsageRow),
) -> Result<(), SchemaError> {
    let mut row = usage(overlay, policy)?;
    change(&mut row);
    if row == PolicyUsageRow::default() {
        overlay.delete(key::policy_usage(policy).bytes());
    } else {
        schema::put(overlay, key::policy_usage(policy), &row);
    }
    Ok(())
}

fn put(overlay: &mut Overlay<'_>, repository: RepositoryId, row: &GovernedRow) {
    schema::put(overlay, key::governed(repository), row);
}

/// The first row of a queue from a key on, and what its key ends with.
fn first(view: &dyn View, prefix: &[u8], from: &[u8]) -> Result<Option<Vec<u8>>, SchemaError> {
    let found = view.scan(from, &crate::index::prefix_end(prefix), 1)?.pop();
    Ok(found.map(|(key, _)| key[prefix.len()..].to_vec()))
}

fn prefix(table: Table, repository: RepositoryId) -> Vec<u8> {
    Key::of(table).u32(repository).bytes()
}
