//! What an operation or a local record changes in the index.
//!
//! Deterministic: the same operations give the same rows on every machine and at every replay. It reads only rows and the
//! operation itself, and refuses nothing; an error here is a failing or damaged index.
//!
//! - `manifests`: what changes manifests and tags, and with them lives.
//! - `drops`: what is dropped, and its records.
//! - `places`: local records: where this machine has what.

use crate::{
    digest::Digest,
    index::{
        Changes, Overlay,
        schema::{
            self, Applied, LinkRow, OrganisationNameRow, OrganisationRow, PolicyRow, QuotaRow, RepositoryNameRow,
            RepositoryRow, SchemaError, key,
        },
    },
    journal::operation::{Operation, OrganisationId, Record, RepositoryId},
    name::RepositoryName,
    policy::{Policy, PolicyName},
    state::{
        counts::{self, Change},
        govern, hash, samples,
        settle::Lives,
    },
};

pub(super) mod drops;
pub(super) mod manifests;
pub(super) mod places;

/// When and as what an operation is applied.
#[derive(Debug, Clone, Copy)]
struct Moment {
    lsn: u64,
    time_ms: u64,
}

/// Applies the next record: it takes its number, and ids that it gives out are noted in `applied`. The time is that of
/// `applied`, in which the caller has put the batch's.
///
/// # Errors
/// When the index fails or is damaged.
pub fn record(overlay: &mut Overlay<'_>, applied: &mut Applied, record: &Record) -> Result<(), SchemaError> {
    match record {
        Record::Logical(record) => {
            applied.lsn += 1;
            operation(overlay, applied, record)?;
            record.repository().map_or(Ok(()), |repository| samples::take(overlay, applied.time_ms, repository))
        }
        Record::Local(record) => {
            applied.local += 1;
            places::apply(overlay, applied, record)
        }
    }
}

/// Ends what was applied: the changes with all that follows from them, and the mark of their place, to be written as one.
///
/// # Errors
/// When the index fails or is damaged.
pub fn finish(overlay: &mut Overlay<'_>, applied: &Applied) -> Result<Changes, SchemaError> {
    schema::put(overlay, key::applied(), applied);
    finish_part(overlay)
}

/// The same without the mark: the changes so far, of which alone no state is made.
pub(super) fn finish_part(overlay: &mut Overlay<'_>) -> Result<Changes, SchemaError> {
    hash::keep(overlay)?;
    Ok(overlay.take_changes())
}

fn operation(overlay: &mut Overlay<'_>, applied: &mut Applied, operation: &Operation) -> Result<(), SchemaError> {
    let at = Moment { lsn: applied.lsn, time_ms: applied.time_ms };
    match operation {
        Operation::Intern { organisation, repository, name } => {
            intern(overlay, applied, at, *organisation, *repository, name)
        }
        Operation::Link { repository, digest, size, mounted_from, due_ms } => {
            let row = LinkRow {
                size: *size,
                linked_ms: at.time_ms,
                due_ms: *due_ms,
                mounted_from: mounted_from.map_or(0, |id| u64::from(id) + 1),
            };
            if link(overlay, *repository, digest, &row)? {
                // What something names already was linked after that was pushed, also in the same millisecond.
                let row = LinkRow { linked_ms: at.time_ms.saturating_add(1), ..row };
                schema::put(overlay, key::link(*repository, digest), &row);
            }
            Ok(())
        }
        Operation::Unlink { repository, digest } | Operation::DropLink { repository, digest } => {
            drops::link(overlay, applied, at, *repository, digest)
        }
        Operation::DropManifest { repository, digest, held_until_ms, .. } => {
            drops::manifest(overlay, applied, at, *repository, digest, *held_until_ms)
        }
        Operation::DropHistory { repository, entries } => drops::history(overlay, *repository, entries),
        Operation::DropRepository { repository } => drops::repository(overlay, at, *repository),
        Operation::ForgetDrops { lsns } => drops::forget(overlay, lsns),
        Operation::SetQuota { owner, limit_bytes } => {
            match *limit_bytes {
                Some(limit_bytes) => {
                    schema::put(overlay, key::quota(owner), &QuotaRow { limit_bytes, set_ms: at.time_ms });
                }
                None => overlay.delete(key::quota(owner).bytes()),
            }
            Ok(())
        }
        Operation::SetPolicy { policy, from_settings, confirmed } => {
            let row = PolicyRow {
                policy: (**policy).clone(),
                from_settings: *from_settings,
                confirmed: *confirmed,
                set_ms: at.time_ms,
            };
            set_policy(overlay, applied, &policy.name, Some(row))
        }
        Operation::RemovePolicy { name } => set_policy(overlay, applied, name, None),
        Operation::Review => govern::review::step(overlay, applied),
        Operation::Settle { held_until_ms, from } => Lives::new(overlay, applied, *held_until_ms).settle_noted(*from),
        _ => manifests::apply(overlay, applied, at, operation),
    }
}

fn intern(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    organisation: OrganisationId,
    repository: RepositoryId,
    name: &RepositoryName,
) -> Result<(), SchemaError> {
    if organisation > applied.organisations {
        applied.organisations = organisation;
        put_organisation(overlay, organisation, OrganisationRow { name: name.organisation().to_owned() });
    }
    applied.repositories = applied.repositories.max(repository);
    let policy = govern::governing(overlay, name)?;
    put_repository(overlay, repository, (name, organisation, at.time_ms), policy.as_ref())
}

/// A policy is set, or taken away. One that says the same as before changes nothing for repositories.
fn set_policy(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    name: &PolicyName,
    after: Option<PolicyRow>,
) -> Result<(), SchemaError> {
    let before: Option<PolicyRow> = schema::get(overlay, key::policy(name))?;
    match &after {
        Some(row) => schema::put(overlay, key::policy(name), row),
        None => overlay.delete(key::policy(name).bytes()),
    }
    let (before, after) = (before.map(|row| row.policy), after.map(|row| row.policy));
    if before == after {
        return Ok(());
    }
    let patterns: Vec<&str> = before.iter().chain(after.iter()).map(|policy| policy.pattern.literal_prefix()).collect();
    govern::review::begin(overlay, applied, &patterns)
}

pub(super) fn put_organisation(overlay: &mut Overlay<'_>, organisation: OrganisationId, row: OrganisationRow) {
    schema::put(overlay, key::organisation_name(&row.name), &OrganisationNameRow { organisation });
    schema::put(overlay, key::organisation(organisation), &row);
}

/// Brings a repository in, by its name, organisation and time, under the policy that governs it.
pub(super) fn put_repository(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    (name, organisation, created_ms): (&RepositoryName, OrganisationId, u64),
    policy: Option<&Policy>,
) -> Result<(), SchemaError> {
    let governed = policy.is_some();
    let by = policy.map_or_else(String::new, |policy| policy.name.as_str().to_owned());
    let row = RepositoryRow { name: name.clone(), organisation, created_ms, governed, policy: by };
    schema::put(overlay, key::repository_name(name.as_str()), &RepositoryNameRow { repository, organisation });
    schema::put(overlay, key::repository(repository), &row);
    counts::repository_changed(overlay, organisation, Change::Enters)?;
    policy.map_or(Ok(()), |policy| govern::begin(overlay, repository, policy))
}

/// Makes or renews a repository's right to serve a blob. Whether a manifest names it already.
pub(super) fn link(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    row: &LinkRow,
) -> Result<bool, SchemaError> {
    let before: Option<LinkRow> = schema::get(overlay, key::link(repository, digest))?;
    let is_named = counts::link_changed(overlay, repository, digest, before.as_ref(), Some(row))?;
    schema::put(overlay, key::link(repository, digest), row);
    Ok(is_named)
}
