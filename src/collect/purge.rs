//! Ending windows early: what is held in a repository, or in all of an organisation, is due at once.
//!
//! Costs the manifests of the repositories that are purged, which are read in pages; live ones are left alone.

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{self, Key, ManifestRow, OrganisationNameRow, RepositoryNameRow, RowValue, SchemaError, Table, key},
    },
    journal::operation::RepositoryId,
    name::Owner,
    registry::RegistryError,
    state::{decide::find_repository, request::Request},
    store::StoreError,
};

use super::steps::Steps;

/// Rows that are read at a time.
const PAGE_ROWS: usize = 1_000;
/// Windows that one request ends: fewer than it may, so that clients wait less long.
const WINDOWS_AT_ONCE: usize = 200;

/// The repository, or all repositories of the organisation, in the order of their ids.
///
/// # Errors
/// When there is none of that name.
pub(super) fn repositories(view: &dyn View, owner: &Owner) -> Result<Vec<RepositoryId>, RegistryError> {
    match owner {
        Owner::Repository(name) => {
            let id = find_repository(view, name).map_err(StoreError::from)?;
            Ok(vec![id.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?])
        }
        Owner::Organisation(name) => {
            let row: Option<OrganisationNameRow> =
                schema::get(view, key::organisation_name(name)).map_err(StoreError::from)?;
            row.ok_or_else(|| RegistryError::OrganisationUnknown(name.clone()))?;
            let mut ids = of_organisation(view, name).map_err(StoreError::from)?;
            ids.sort_unstable();
            Ok(ids)
        }
    }
}

/// Names are in byte order, so an organisation's lie together; those of `_` are found by stepping over each other one.
fn of_organisation(view: &dyn View, organisation: &str) -> Result<Vec<RepositoryId>, SchemaError> {
    let all = Key::of(Table::RepositoryNames).bytes();
    let only = match organisation {
        "_" => all.clone(),
        name => [all.as_slice(), name.as_bytes(), b"/"].concat(),
    };
    let (mut from, until) = (only.clone(), prefix_end(&only));
    let mut ids = Vec::new();
    loop {
        let rows = view.scan(&from, &until, PAGE_ROWS)?;
        let mut behind = None;
        for (key, value) in &rows {
            match key.iter().position(|&byte| byte == b'/').filter(|_| organisation == "_") {
                None => ids.push(RepositoryNameRow::from_bytes(value)?.repository),
                Some(slash) => {
                    // Behind all names of this organisation: they may be many.
                    behind = Some([&key[..slash], &[b'/' + 1]].concat());
                    break;
                }
            }
        }
        from = match (behind, rows.last()) {
            (Some(behind), _) => behind,
            (None, Some((last, _))) if rows.len() == PAGE_ROWS => [last.as_slice(), &[0]].concat(),
            _ => return Ok(ids),
        };
    }
}

/// Ends the windows of all that is held in a repository, and of what lives for the sake of such a manifest only: that would
/// leave with it when it is dropped, and have a window from then on.
pub(super) fn end_windows<S: Steps>(steps: &mut S, repository: RepositoryId) -> Result<(), StoreError> {
    loop {
        let sakes = end_held(steps, repository)?;
        steps.settle()?;
        end(steps, repository, &sakes)?;
        steps.settle()?;
        // What left with them may be more than one step tells, and another's subject.
        let mut have_left = false;
        for digest in &sakes {
            have_left |= !steps.read(|view| is_for_a_sake(view, repository, digest))?;
        }
        if !have_left || steps.end().is_some() {
            return Ok(());
        }
    }
}

/// Ends the windows of what is held; what lives for a subject's sake.
fn end_held<S: Steps>(steps: &mut S, repository: RepositoryId) -> Result<Vec<Digest>, StoreError> {
    let prefix = Key::of(Table::Manifests).u32(repository).bytes();
    let (mut from, until) = (prefix.clone(), prefix_end(&prefix));
    let mut sakes = Vec::new();
    loop {
        let rows = steps.read(|view| view.scan(&from, &until, PAGE_ROWS))?;
        let mut held = Vec::new();
        for (key, value) in &rows {
            let row = ManifestRow::from_bytes(value)?;
            // Also what is held and whose window is over by itself, as what it names goes with it at once then.
            if row.held_until_ms > 0 || row.stays_root {
                let some = if row.stays_root { &mut sakes } else { &mut held };
                let digest = Decoder::new(&key[prefix.len()..]).digest("digest");
                some.push(digest.map_err(|source| SchemaError::Row { table: Table::Manifests.name(), source })?);
            }
        }
        end(steps, repository, &held)?;
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE_ROWS && steps.end().is_none() => from = [last, &[0][..]].concat(),
            _ => return Ok(sakes),
        }
    }
}

fn end<S: Steps>(steps: &mut S, repository: RepositoryId, digests: &[Digest]) -> Result<(), StoreError> {
    for digests in digests.chunks(WINDOWS_AT_ONCE) {
        steps.take(vec![Request::EndWindows { repository, digests: digests.to_vec() }])?;
    }
    Ok(())
}

fn is_for_a_sake(view: &dyn View, repository: RepositoryId, digest: &Digest) -> Result<bool, SchemaError> {
    let row: Option<ManifestRow> = schema::get(view, key::manifest(repository, digest))?;
    Ok(row.is_some_and(|row| row.stays_root))
}
