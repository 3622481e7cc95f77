//! Operations that drop: a link, a manifest, an entry of a tag's history, a repository; and the records of drops.

use crate::{
    digest::Digest,
    index::{
        Overlay,
        schema::{
            self, Applied, DropRow, DroppedRow, DueDropRow, LinkRow, ManifestRow, OrganisationRow, RepositoryRow,
            SchemaError, Scope, UsageRow, key,
        },
    },
    journal::operation::{DropKind, RepositoryId},
    name::Tag,
    state::{
        counts::{self, Change},
        govern, samples,
        settle::Lives,
    },
};

use super::{Moment, places};

/// How long the record of a drop is kept: 90 days, in milliseconds.
const DROP_RECORD_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// A repository may serve a blob no longer.
pub(super) fn link(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), SchemaError> {
    let Some(row) = schema::get::<LinkRow>(overlay, key::link(repository, digest))? else { return Ok(()) };
    overlay.delete(key::link(repository, digest).bytes());
    counts::link_changed(overlay, repository, digest, Some(&row), None)?;
    record(overlay, applied, at, DropKind::Link, repository, digest, row.size)
}

/// A repository has a manifest no longer. What it names is released in steps.
pub(super) fn manifest(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    repository: RepositoryId,
    digest: &Digest,
    held_until_ms: u64,
) -> Result<(), SchemaError> {
    let row: ManifestRow = schema::expect(overlay, key::manifest(repository, digest))?;
    counts::manifest_changed(overlay, repository, digest, row.size, Change::Leaves)?;
    let held_until_ms = match held_until_ms {
        // Of version 1: what it was a root's reason for has the window that it had, and none when that was ended.
        0 => at.time_ms.saturating_add(row.held_until_ms.saturating_sub(row.left_ms)),
        held_until_ms => held_until_ms,
    };
    let mut lives = Lives::exact(overlay, applied, held_until_ms);
    lives.drop_manifest(repository, digest, &row)?;
    lives.settle()?;
    record(overlay, applied, at, DropKind::Manifest, repository, digest, row.size)
}

/// Notes a drop. Where nobody has the content any more, its place is dead from now on.
fn record(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    what: DropKind,
    repository: RepositoryId,
    digest: &Digest,
    size: u64,
) -> Result<(), SchemaError> {
    let last = !counts::is_held(overlay, digest)?;
    if last {
        places::release(overlay, applied, digest)?;
    }
    let RepositoryRow { name, .. } = schema::expect(overlay, key::repository(repository))?;
    let (time_ms, until_ms) = (at.time_ms, at.time_ms.saturating_add(DROP_RECORD_MS));
    put_record(overlay, at.lsn, &DropRow { what, repository: name, digest: *digest, size, time_ms, last, until_ms });
    Ok(())
}

pub(in crate::state) fn put_record(overlay: &mut Overlay<'_>, lsn: u64, row: &DropRow) {
    schema::put(overlay, key::drop_record(lsn), row);
    schema::put(overlay, key::dropped(&row.digest, lsn), &DroppedRow {});
    schema::put(overlay, key::due_drop(row.until_ms, lsn), &DueDropRow {});
}

/// Entries of the history of tags are forgotten.
pub(super) fn history(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    entries: &[(Tag, u64, u64)],
) -> Result<(), SchemaError> {
    for (tag, lsn, due_ms) in entries {
        overlay.delete(key::due_history(*due_ms, repository, tag, *lsn).bytes());
        overlay.delete(key::history(repository, tag, *lsn).bytes());
    }
    let count = entries.len() as u64;
    counts::total_changed(overlay, repository, |usage| Change::Leaves.step(&mut usage.history, count))
}

/// An empty repository goes, and with the last one its organisation.
pub(super) fn repository(overlay: &mut Overlay<'_>, at: Moment, repository: RepositoryId) -> Result<(), SchemaError> {
    let row: RepositoryRow = schema::expect(overlay, key::repository(repository))?;
    govern::end(overlay, repository)?;
    overlay.delete(key::empty_repository(repository).bytes());
    overlay.delete(key::repository_name(row.name.as_str()).bytes());
    overlay.delete(key::repository(repository).bytes());
    counts::repository_changed(overlay, row.organisation, Change::Leaves)?;
    let scope = Scope::Organisation(row.organisation);
    let usage = schema::get::<UsageRow>(overlay, key::usage(scope))?.unwrap_or_default();
    samples::take_of(overlay, at.time_ms, row.organisation)?;
    if usage.repositories == 0 {
        let OrganisationRow { name } = schema::expect(overlay, key::organisation(row.organisation))?;
        overlay.delete(key::organisation_name(&name).bytes());
        overlay.delete(key::organisation(row.organisation).bytes());
        samples::forget(overlay, scope, u32::MAX)?;
    }
    Ok(())
}

/// Records of drops are forgotten.
pub(super) fn forget(overlay: &mut Overlay<'_>, lsns: &[u64]) -> Result<(), SchemaError> {
    for lsn in lsns {
        if let Some(row) = schema::get::<DropRow>(overlay, key::drop_record(*lsn))? {
            overlay.delete(key::drop_record(*lsn).bytes());
            overlay.delete(key::dropped(&row.digest, *lsn).bytes());
            overlay.delete(key::due_drop(row.until_ms, *lsn).bytes());
        }
    }
    Ok(())
}
