//! Manifests as policies see them: which a cap may evict, by when they were used last, and which roots are due.
//!
//! A manifest may be evicted when it lives by spare tags only, or as a root, and no strong index has it as child: what an index
//! keeps goes after that. One that is only held, and that nothing else holds, comes before all others: it takes space
//! and serves nobody.
//!
//! Every change of what a manifest's place follows from ends in [`follow`], which compares the place that it should have with
//! that which it has.

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        Overlay, View,
        schema::{
            self, ByUseRow, DueRootRow, ManifestRow, ParentsRow, PolicyUsageRow, PullRow, SchemaError, Table, UseRow,
            key,
        },
    },
    journal::operation::RepositoryId,
    policy::Policy,
    state::{counts::Change, life::Life},
};

use super::{first, in_force, with_usage};

/// A manifest, what names it, or when it was pulled has changed.
pub(in crate::state) fn changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), SchemaError> {
    match in_force(overlay, repository)?.filter(has_uses) {
        Some(policy) => follow(overlay, repository, &policy, digest, |_| {}),
        None => Ok(()),
    }
}

/// Whether a policy has anything to do with manifests.
pub(super) fn has_uses(policy: &Policy) -> bool {
    policy.size_max_bytes.is_some() || policy.never_tagged_for_ms.is_some()
}

/// One tag of a manifest more or less is spare.
pub(super) fn spare_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    policy: &Policy,
    digest: &Digest,
    change: Change,
) -> Result<(), SchemaError> {
    if policy.size_max_bytes.is_none() {
        return Ok(());
    }
    follow(overlay, repository, policy, digest, |row| {
        row.spare = match change {
            Change::Enters => row.spare.saturating_add(1),
            Change::Leaves => row.spare.saturating_sub(1),
        };
    })
}

/// Brings a manifest to its place.
pub(super) fn follow(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    policy: &Policy,
    digest: &Digest,
    change: impl FnOnce(&mut UseRow),
) -> Result<(), SchemaError> {
    let before: UseRow = schema::get(overlay, key::use_of(repository, digest))?.unwrap_or_default();
    let mut after = before.clone();
    change(&mut after);
    let row: Option<ManifestRow> = schema::get(overlay, key::manifest(repository, digest))?;
    let is_root = row.as_ref().filter(|row| row.root && !row.deleted);
    after.due_ms = is_root.and_then(|row| Some(row.pushed_ms.saturating_add(policy.never_tagged_for_ms?)));
    after.used_ms = match row.filter(|_| policy.size_max_bytes.is_some()) {
        Some(row) => used_ms(overlay, repository, digest, &row, after.spare)?,
        None => None,
    };
    if after == before {
        return Ok(());
    }
    if before.due_ms != after.due_ms {
        if let Some(due_ms) = before.due_ms {
            overlay.delete(key::due_root(due_ms, repository, digest).bytes());
        }
        if let Some(due_ms) = after.due_ms {
            schema::put(overlay, key::due_root(due_ms, repository, digest), &DueRootRow {});
        }
    }
    move_used(overlay, policy.name.as_str(), repository, digest, (before.used_ms, after.used_ms))?;
    if after == UseRow::default() {
        overlay.delete(key::use_of(repository, digest).bytes());
    } else {
        schema::put(overlay, key::use_of(repository, digest), &after);
    }
    Ok(())
}

/// When a manifest was used last, if it may be evicted; 0 for one that is only held.
fn used_ms(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
    row: &ManifestRow,
    spare: u32,
) -> Result<Option<u64>, SchemaError> {
    let parents = schema::get::<ParentsRow>(view, key::parents(repository, digest))?.unwrap_or_default();
    if !Life::of(row, &parents).is_live() {
        return Ok((parents.all == 0).then_some(0));
    }
    let lives_by_spare = row.root || (row.tags > 0 && spare == row.tags);
    if !lives_by_spare || parents.strong > 0 {
        return Ok(None);
    }
    let pulled: Option<PullRow> = schema::get(view, key::pull(repository, digest))?;
    Ok(Some(row.pushed_ms.max(pulled.map_or(0, |row| row.pulled_ms))))
}

/// Moves a manifest in the order of use of a policy.
pub(super) fn move_used(
    overlay: &mut Overlay<'_>,
    policy: &str,
    repository: RepositoryId,
    digest: &Digest,
    (before, after): (Option<u64>, Option<u64>),
) -> Result<(), SchemaError> {
    if before == after {
        return Ok(());
    }
    if let Some(used_ms) = after {
        schema::put(overlay, key::by_use(policy, used_ms, repository, digest), &ByUseRow {});
    }
    let known = super::usage(overlay, policy)?.first_used_ms;
    let mut next = known.into_iter().chain(after).min();
    if let Some(used_ms) = before {
        overlay.delete(key::by_use(policy, used_ms, repository, digest).bytes());
        if next == Some(used_ms) {
            next = first_used(overlay, policy, used_ms)?;
        }
    }
    match next == known {
        true => Ok(()),
        false => with_usage(overlay, policy, |usage: &mut PolicyUsageRow| usage.first_used_ms = next),
    }
}

/// The first time from one on in the order of use.
fn first_used(view: &dyn View, policy: &str, from_ms: u64) -> Result<Option<u64>, SchemaError> {
    let prefix = key::uses_of(policy).bytes();
    let found = first(view, &prefix, &[prefix.as_slice(), &from_ms.to_be_bytes()].concat())?;
    let used_ms = found.map(|end| Decoder::new(&end).key_u64("used")).transpose();
    used_ms.map_err(|source| SchemaError::Row { table: Table::ByUse.name(), source })
}
