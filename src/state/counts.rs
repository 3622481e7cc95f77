//! Named and live counts, used and reclaimable bytes, for a repository, its organisation and the registry.
//!
//! A repository counts the manifests that name a blob, each once, and those of them that are live. It *uses* the blob
//! while the first count is above zero and the blob is linked; an organisation counts the repositories that use it, and
//! those where a live manifest names it; the registry counts the organisations. Used blobs that nothing live names are
//! reclaimable. Every count that goes from 0 to 1 or back moves the blob's size in its scope's totals, in the same commit.
//!
//! Besides, an organisation and the registry count who links some content, and who has it as a manifest: what nobody has any
//! more can go from the disk.

use crate::{
    digest::Digest,
    index::{
        Overlay, View,
        schema::{
            self, CountRow, DueLinkRow, EmptyRepositoryRow, LinkRow, RepositoryRow, SchemaError, Scope, UsageRow, key,
        },
    },
    journal::operation::{OrganisationId, RepositoryId},
    state::govern,
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

    /// The change of what was so before and is so after, if it is one.
    pub(super) fn between(before: bool, after: bool) -> Option<Self> {
        match (before, after) {
            (false, true) => Some(Self::Enters),
            (true, false) => Some(Self::Leaves),
            _ => None,
        }
    }
}

/// One manifest more or less of the repository names the digest.
pub(super) fn name_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    change: Change,
) -> Result<(), SchemaError> {
    let named = repository_count(overlay, repository, digest)?.named;
    let first_or_last = (named == 0) == (change == Change::Enters) && named <= 1;
    let link: Option<LinkRow> = if first_or_last { schema::get(overlay, key::link(repository, digest))? } else { None };
    count_changed(overlay, repository, digest, |count| {
        change.step(&mut count.named, 1);
        if let Some(link) = &link {
            (count.links, count.size) = (1, link.size);
        }
    })?;
    if let Some(link) = &link {
        put_due_link(overlay, repository, digest, link, change == Change::Leaves);
    }
    Ok(())
}

/// One live manifest more or less of the repository names the digest.
pub(super) fn live_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    change: Change,
) -> Result<(), SchemaError> {
    count_changed(overlay, repository, digest, |count| change.step(&mut count.live, 1)).map(|_| ())
}

/// The repository's link to the digest was made, renewed or removed. Names that came before it begin, or cease, to count.
/// Whether there are such names.
pub(super) fn link_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    before: Option<&LinkRow>,
    after: Option<&LinkRow>,
) -> Result<bool, SchemaError> {
    let (_, count) = count_changed(overlay, repository, digest, |count| {
        count.links = u64::from(after.is_some());
        count.size = after.map_or(0, |link| link.size);
    })?;
    if let Some(before) = before {
        put_due_link(overlay, repository, digest, before, false);
    }
    if let Some(after) = after {
        put_due_link(overlay, repository, digest, after, count.named == 0);
    }
    if let Some(change) = Change::between(before.is_some(), after.is_some()) {
        let size = after.or(before).map_or(0, |link| link.size);
        total_changed(overlay, repository, |usage| change.step(&mut usage.links, 1))?;
        held_changed(
            overlay,
            repository,
            digest,
            (size, change),
            |count| &mut count.links,
            |usage| {
                change.step(&mut usage.linked_bytes, size);
            },
        )?;
    }
    Ok(count.named > 0)
}

fn put_due_link(overlay: &mut Overlay<'_>, repository: RepositoryId, digest: &Digest, link: &LinkRow, is_due: bool) {
    let key = key::due_link(link.due_ms, repository, digest);
    if is_due {
        schema::put(overlay, key, &DueLinkRow {});
    } else {
        overlay.delete(key.bytes());
    }
}

/// How many manifests of the repository, live or not, name the digest, and how many live ones.
pub(super) fn repository_count(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<CountRow, SchemaError> {
    count(view, Scope::Repository(repository), digest)
}

fn count(view: &dyn View, scope: Scope, digest: &Digest) -> Result<CountRow, SchemaError> {
    Ok(schema::get(view, key::count(scope, digest))?.unwrap_or_default())
}

/// Whether any repository links some content, or has it as a manifest.
pub(super) fn is_held(view: &dyn View, digest: &Digest) -> Result<bool, SchemaError> {
    let count = count(view, Scope::Registry, digest)?;
    Ok(count.links > 0 || count.manifests > 0)
}

/// A manifest came into a repository that did not have it, or was dropped from it.
pub(super) fn manifest_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    size: u64,
    change: Change,
) -> Result<(), SchemaError> {
    held_changed(
        overlay,
        repository,
        digest,
        (size, change),
        |count| &mut count.manifests,
        |usage| {
            change.step(&mut usage.manifests, 1);
            change.step(&mut usage.manifest_bytes, size);
        },
    )
}

/// A repository has some content from now on, or no longer: counted by `counter` in each scope around it, as far as that
/// leaves or reaches zero. `total` changes the totals of the scopes that have it from then on, or no longer.
fn held_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    (size, change): (u64, Change),
    counter: impl Fn(&mut CountRow) -> &mut u64,
    total: impl Fn(&mut UsageRow),
) -> Result<(), SchemaError> {
    let organisation = organisation_of(overlay, repository)?;
    with_usage(overlay, Scope::Repository(repository), &total)?;
    for scope in [Scope::Organisation(organisation), Scope::Registry] {
        let mut row = count(overlay, scope, digest)?;
        row.size = size;
        let before = *counter(&mut row);
        change.step(counter(&mut row), 1);
        let is_passed_on = (before == 0) != (*counter(&mut row) == 0);
        put_count(overlay, scope, digest, &row);
        if !is_passed_on {
            break;
        }
        with_usage(overlay, scope, &total)?;
    }
    Ok(())
}

/// Changes totals that are plain sums: in the repository, its organisation and the registry.
pub(super) fn total_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    change: impl Fn(&mut UsageRow),
) -> Result<(), SchemaError> {
    let organisation = organisation_of(overlay, repository)?;
    total_changed_in(overlay, repository, organisation, change)
}

/// The same for a repository whose row may be gone.
pub(super) fn total_changed_in(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    organisation: OrganisationId,
    change: impl Fn(&mut UsageRow),
) -> Result<(), SchemaError> {
    [Scope::Repository(repository), Scope::Organisation(organisation), Scope::Registry]
        .into_iter()
        .try_for_each(|scope| with_usage(overlay, scope, &change))
}

/// A repository came to be, or was dropped; with the first and the last so does its organisation.
pub(super) fn repository_changed(
    overlay: &mut Overlay<'_>,
    organisation: OrganisationId,
    change: Change,
) -> Result<(), SchemaError> {
    let mut only = false;
    with_usage(overlay, Scope::Organisation(organisation), |usage| {
        let before = usage.repositories;
        change.step(&mut usage.repositories, 1);
        only = (before == 0) != (usage.repositories == 0);
    })?;
    with_usage(overlay, Scope::Registry, |usage| {
        change.step(&mut usage.repositories, 1);
        change.step(&mut usage.organisations, u64::from(only));
    })
}

/// What a count says of its scope: whether the blob is used there, and whether something live names it. In a repository that
/// needs a link, too; what the counts around it are of has one.
fn state_of(scope: Scope, count: &CountRow) -> (bool, bool) {
    let used = count.named > 0 && (count.links > 0 || !matches!(scope, Scope::Repository(_)));
    (used, used && count.live > 0)
}

/// Changes a repository's count, and carries what that changes upwards, as far as counts leave or reach zero. The
/// repository's count before and after.
fn count_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    change: impl FnOnce(&mut CountRow),
) -> Result<(CountRow, CountRow), SchemaError> {
    let before = repository_count(overlay, repository, digest)?;
    let mut after = before.clone();
    change(&mut after);
    let scope = Scope::Repository(repository);
    put_count(overlay, scope, digest, &after);
    let size = before.size.max(after.size);
    let (mut was, mut is) = (state_of(scope, &before), state_of(scope, &after));
    if was == is {
        return Ok((before, after));
    }
    let organisation = organisation_of(overlay, repository)?;
    totals_changed(overlay, scope, size, was, is)?;
    for scope in [Scope::Organisation(organisation), Scope::Registry] {
        let mut row = CountRow { size, ..count(overlay, scope, digest)? };
        let outer = state_of(scope, &row);
        for (value, before, after) in [(&mut row.named, was.0, is.0), (&mut row.live, was.1, is.1)] {
            if let Some(change) = Change::between(before, after) {
                change.step(value, 1);
            }
        }
        put_count(overlay, scope, digest, &row);
        (was, is) = (outer, state_of(scope, &row));
        if was == is {
            break;
        }
        totals_changed(overlay, scope, size, was, is)?;
    }
    Ok((before, after))
}

fn totals_changed(
    overlay: &mut Overlay<'_>,
    scope: Scope,
    size: u64,
    was: (bool, bool),
    is: (bool, bool),
) -> Result<(), SchemaError> {
    let is_reclaimable = |(used, live): (bool, bool)| used && !live;
    with_usage(overlay, scope, |usage| {
        if let Some(change) = Change::between(was.0, is.0) {
            change.step(&mut usage.blobs, 1);
            change.step(&mut usage.used_bytes, size);
        }
        if let Some(change) = Change::between(is_reclaimable(was), is_reclaimable(is)) {
            change.step(&mut usage.reclaimable_bytes, size);
        }
    })
}

/// A row is absent where there is nothing to count. In a repository a link's own row says enough.
fn put_count(overlay: &mut Overlay<'_>, scope: Scope, digest: &Digest, row: &CountRow) {
    let is_held = !matches!(scope, Scope::Repository(_)) && (row.links > 0 || row.manifests > 0);
    if row.named == 0 && !is_held {
        overlay.delete(key::count(scope, digest).bytes());
    } else {
        schema::put(overlay, key::count(scope, digest), row);
    }
}

fn with_usage(overlay: &mut Overlay<'_>, scope: Scope, change: impl FnOnce(&mut UsageRow)) -> Result<(), SchemaError> {
    let mut row: UsageRow = schema::get(overlay, key::usage(scope))?.unwrap_or_default();
    let (was_empty, before) = (row.is_empty(), row.clone());
    change(&mut row);
    if let Scope::Repository(repository) = scope {
        govern::usage_changed(overlay, repository, &before, &row)?;
        match Change::between(was_empty, row.is_empty()) {
            Some(Change::Enters) => schema::put(overlay, key::empty_repository(repository), &EmptyRepositoryRow {}),
            Some(Change::Leaves) => overlay.delete(key::empty_repository(repository).bytes()),
            None => {}
        }
    }
    if row == UsageRow::default() {
        overlay.delete(key::usage(scope).bytes());
    } else {
        schema::put(overlay, key::usage(scope), &row);
    }
    Ok(())
}

/// The organisation of a repository.
pub(super) fn organisation_of(view: &dyn View, repository: RepositoryId) -> Result<OrganisationId, SchemaError> {
    Ok(schema::expect::<RepositoryRow>(view, key::repository(repository))?.organisation)
}
