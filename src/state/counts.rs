//! Named counts and used bytes, for a repository, its organisation and the registry.
//!
//! A repository counts the manifests that name a blob, each once. It *uses* the blob while that count is above zero and
//! the blob is linked; an organisation counts the repositories that use it, the registry the organisations. Every count
//! that goes from 0 to 1 or back moves the blob's size in or out of its scope's used bytes, in the same commit.

use crate::{
    digest::Digest,
    index::{
        Overlay, View,
        schema::{self, CountRow, DueRow, LinkRow, ManifestCountRow, RepositoryRow, SchemaError, Scope, UsageRow, key},
    },
    journal::operation::{OrganisationId, RepositoryId},
};

/// Something enters a scope or leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Enters,
    Leaves,
}

impl Change {
    /// Moves `value` by `amount`. Saturates: a count that would fall below zero is a bug that `verify` shows, not a
    /// reason to stop replaying a journal.
    pub(super) fn step(self, value: &mut u64, amount: u64) {
        *value = match self {
            Self::Enters => value.saturating_add(amount),
            Self::Leaves => value.saturating_sub(amount),
        };
    }
}

/// One manifest more or less of the repository names the digest.
pub(super) fn name_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    change: Change,
) -> Result<(), SchemaError> {
    let mut count = repository_count(overlay, repository, digest)?;
    let before = count.named;
    change.step(&mut count.named, 1);
    let first_or_last = (before == 0) != (count.named == 0);
    let link: Option<LinkRow> = if first_or_last { schema::get(overlay, key::link(repository, digest))? } else { None };
    if let Some(link) = link {
        count.size = link.size;
        use_changed(overlay, repository, digest, link.size, change)?;
        match change {
            Change::Enters => overlay.delete(key::due(link.due_ms, repository, digest).bytes()),
            Change::Leaves => schema::put(overlay, key::due(link.due_ms, repository, digest), &DueRow {}),
        }
    }
    put_count(overlay, Scope::Repository(repository), digest, &count);
    Ok(())
}

/// The repository's link to the digest was made or removed. Names that came before it begin, or cease, to count.
pub(super) fn link_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    size: u64,
    change: Change,
) -> Result<(), SchemaError> {
    let mut count = repository_count(overlay, repository, digest)?;
    if count.named > 0 {
        count.size = if change == Change::Enters { size } else { 0 };
        put_count(overlay, Scope::Repository(repository), digest, &count);
        use_changed(overlay, repository, digest, size, change)?;
    }
    Ok(())
}

/// Whether a manifest of the repository, present or not, names the digest.
pub(super) fn is_named(view: &dyn View, repository: RepositoryId, digest: &Digest) -> Result<bool, SchemaError> {
    Ok(repository_count(view, repository, digest)?.named > 0)
}

/// A manifest came into a repository that did not have it, or is dropped from it.
pub(super) fn manifest_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    size: u64,
    change: Change,
) -> Result<(), SchemaError> {
    let organisation = organisation_of(overlay, repository)?;
    let mut entered = vec![Scope::Repository(repository)];
    for scope in [Scope::Organisation(organisation), Scope::Registry] {
        let row: Option<ManifestCountRow> = schema::get(overlay, key::manifest_count(scope, digest))?;
        let mut row = row.unwrap_or(ManifestCountRow { count: 0 });
        let before = row.count;
        change.step(&mut row.count, 1);
        if row.count == 0 {
            overlay.delete(key::manifest_count(scope, digest).bytes());
        } else {
            schema::put(overlay, key::manifest_count(scope, digest), &row);
        }
        if (before == 0) == (row.count == 0) {
            break;
        }
        entered.push(scope);
    }
    for scope in entered {
        with_usage(overlay, scope, |usage| {
            change.step(&mut usage.manifests, 1);
            change.step(&mut usage.manifest_bytes, size);
        })?;
    }
    Ok(())
}

/// A tag was made or removed.
pub(super) fn tags_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    change: Change,
) -> Result<(), SchemaError> {
    let organisation = organisation_of(overlay, repository)?;
    for scope in [Scope::Repository(repository), Scope::Organisation(organisation), Scope::Registry] {
        with_usage(overlay, scope, |usage| change.step(&mut usage.tags, 1))?;
    }
    Ok(())
}

/// The repository begins or ceases to use the blob: upwards as long as a scope's count leaves or reaches zero.
fn use_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    size: u64,
    change: Change,
) -> Result<(), SchemaError> {
    let organisation = organisation_of(overlay, repository)?;
    let in_use = |usage: &mut UsageRow| {
        change.step(&mut usage.blobs, 1);
        change.step(&mut usage.used_bytes, size);
    };
    with_usage(overlay, Scope::Repository(repository), in_use)?;
    for scope in [Scope::Organisation(organisation), Scope::Registry] {
        let row: Option<CountRow> = schema::get(overlay, key::count(scope, digest))?;
        let mut row = row.unwrap_or(CountRow { named: 0, live: 0, size });
        let before = row.named;
        change.step(&mut row.named, 1);
        put_count(overlay, scope, digest, &row);
        if (before == 0) == (row.named == 0) {
            break;
        }
        with_usage(overlay, scope, in_use)?;
    }
    Ok(())
}

fn repository_count(view: &dyn View, repository: RepositoryId, digest: &Digest) -> Result<CountRow, SchemaError> {
    let row = schema::get(view, key::count(Scope::Repository(repository), digest))?;
    Ok(row.unwrap_or(CountRow { named: 0, live: 0, size: 0 }))
}

fn put_count(overlay: &mut Overlay<'_>, scope: Scope, digest: &Digest, row: &CountRow) {
    if row.named == 0 {
        overlay.delete(key::count(scope, digest).bytes());
    } else {
        schema::put(overlay, key::count(scope, digest), row);
    }
}

fn with_usage(overlay: &mut Overlay<'_>, scope: Scope, change: impl FnOnce(&mut UsageRow)) -> Result<(), SchemaError> {
    let mut row: UsageRow = schema::get(overlay, key::usage(scope))?.unwrap_or_default();
    change(&mut row);
    schema::put(overlay, key::usage(scope), &row);
    Ok(())
}

fn organisation_of(view: &dyn View, repository: RepositoryId) -> Result<OrganisationId, SchemaError> {
    Ok(schema::expect::<RepositoryRow>(view, key::repository(repository))?.organisation)
}
