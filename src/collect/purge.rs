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

/// Ends the windows of all that is held in a repository.
pub(super) fn end_windows<S: Steps>(steps: &mut S, repository: RepositoryId) -> Result<(), StoreError> {
    let prefix = Key::of(Table::Manifests).u32(repository).bytes();
    let (mut from, until) = (prefix.clone(), prefix_end(&prefix));
    loop {
        let rows = steps.read(|view| view.scan(&from, &until, PAGE_ROWS))?;
        let held = rows.iter().filter_map(|(key, value)| held(&key[prefix.len()..], value).transpose());
        let held: Vec<Digest> = held.collect::<Result<_, _>>()?;
        for digests in held.chunks(WINDOWS_AT_ONCE) {
            steps.take(vec![Request::EndWindows { repository, digests: digests.to_vec() }])?;
        }
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE_ROWS && steps.end().is_none() => from = [last, &[0][..]].concat(),
            _ => return steps.settle(),
        }
    }
}

/// The digest of a manifest that is held and whose window was not ended: also one whose window is over by itself, as
/// what it names goes with it at once then.
fn held(key: &[u8], value: &[u8]) -> Result<Option<Digest>, SchemaError> {
    if ManifestRow::from_bytes(value)?.held_until_ms == 0 {
        return Ok(None);
    }
    let digest = Decoder::new(key).digest("digest");
    Ok(Some(digest.map_err(|source| SchemaError::Row { table: Table::Manifests.name(), source })?))
}
