//! Where some content is: its place, who links, names and has it, until when, and when it was dropped.
//!
//! Every list is bounded. Links are read in pages; who names it, and the records of drops, up to a number. Who has a
//! manifest is not told by a key that begins with its digest, so that is looked for in organisations that count it, in a
//! bounded number of reads.

use super::{
    Registry, RegistryError,
    inventory::{self, ManifestState},
    repository_id, row,
};
use crate::{
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{
            self, BlobRow, CountRow, DropRow, LinkRow, ManifestIdRow, ManifestRow, NameRow, RepositoryRow, RowValue,
            SchemaError, Scope, key,
        },
    },
    journal::operation::{RepositoryId, Role},
    name::RepositoryName,
    store::StoreError,
};

pub(super) mod owners;

/// Manifests that are told which name the content, repositories that have it as one, and records of drops.
const TOLD_MAX: usize = 100;
/// Records of drops of one digest that are read to find the newest.
const DROPS_READ_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct WhereaboutsWanted {
    /// The content.
    pub digest: Digest,
    /// Only what this repository has to do with it.
    pub repository: Option<RepositoryName>,
    /// Only links behind this one; what the page before gave.
    pub after: Option<u32>,
    /// Most links.
    pub limit: usize,
}

/// Where some content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its record; `None` when its bytes are not stored.
    pub stored: Option<BlobRow>,
    /// A page of the repositories that may serve it as a blob.
    pub links: Vec<Linked>,
    /// Behind which link the next page begins.
    pub next: Option<u32>,
    /// Manifests that name it.
    pub named_by: Vec<Naming>,
    /// Whether more name it.
    pub named_by_more: bool,
    /// Repositories that have it as a manifest.
    pub manifest_in: Vec<Owning>,
    /// Whether more may have it.
    pub manifest_in_more: bool,
    /// When it was dropped, newest first.
    pub drops: Vec<DropRow>,
}

/// A repository's right to serve a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The repository.
    pub repository: RepositoryName,
    /// When it was last uploaded or mounted there, in Unix milliseconds.
    pub linked_ms: u64,
    /// Manifests there that name it.
    pub named: u64,
    /// Live ones of these.
    pub live: u64,
    /// When its grace ends, in Unix milliseconds; `None` while a manifest names it.
    pub due_ms: Option<u64>,
}

/// A manifest that names some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Its repository.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// What it is to clients.
    pub state: ManifestState,
    /// How it names the content.
    pub roles: Vec<Role>,
}

/// A repository that has some content as a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owning {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest's type there.
    pub media_type: String,
    /// What it is to clients.
    pub state: ManifestState,
    /// Until when it can be restored, in Unix milliseconds; `None` while it lives.
    pub held_until_ms: Option<u64>,
}

impl Registry {
    /// Where some content is, and who has to do with it.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`]; [`RegistryError::DigestUnknown`] where nothing is known of it.
    pub fn whereabouts(&self, wanted: &WhereaboutsWanted) -> Result<Whereabouts, RegistryError> {
        let view = self.store.snapshot();
        let repository = match &wanted.repository {
            Some(name) => Some(repository_id(&*view, name)?.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?),
            None => None,
        };
        let digest = &wanted.digest;
        let stored: Option<BlobRow> = row(&*view, key::blob(digest))?;
        let (links, next) = links(&*view, wanted, repository).map_err(StoreError::from)?;
        let (named_by, named_by_more) = named_by(&*view, digest, repository).map_err(StoreError::from)?;
        let (manifest_in, manifest_in_more) = manifest_in(&*view, digest, repository).map_err(StoreError::from)?;
        let drops = drops(&*view, digest, wanted.repository.as_ref()).map_err(StoreError::from)?;
        if stored.is_none() && drops.is_empty() && links.is_empty() && named_by.is_empty() {
            return Err(RegistryError::DigestUnknown(*digest));
        }
        Ok(Whereabouts { stored, links, next, named_by, named_by_more, manifest_in, manifest_in_more, drops })
    }
}

fn name_of(view: &dyn View, repository: RepositoryId) -> Result<RepositoryName, SchemaError> {
    Ok(schema::expect::<RepositoryRow>(view, key::repository(repository))?.name)
}

fn links(
    view: &dyn View,
    wanted: &WhereaboutsWanted,
    only: Option<RepositoryId>,
) -> Result<(Vec<Linked>, Option<u32>), SchemaError> {
    let (prefix, digest) = (key::links(&wanted.digest).bytes(), &wanted.digest);
    let from = wanted.after.map(|after| [key::link(after, digest).bytes().as_slice(), &[0]].concat());
    let (from, until) = match only {
        Some(repository) => {
            let key = key::link(repository, digest).bytes();
            (from.unwrap_or_default().max(key.clone()), [key.as_slice(), &[0]].concat())
        }
        None => (from.unwrap_or_else(|| prefix.clone()), prefix_end(&prefix)),
    };
    let (mut found, mut last) = (Vec::new(), None);
    for (key, value) in view.scan(&from, &until, wanted.limit.saturating_add(1))? {
        if found.len() == wanted.limit {
            return Ok((found, last));
        }
        let id = key[prefix.len()..].try_into().map_err(|_| SchemaError::Missing { table: "links" })?;
        let (id, row) = (u32::from_be_bytes(id), LinkRow::from_bytes(&value)?);
        let count: Option<CountRow> = schema::get(view, key::count(Scope::Repository(id), digest))?;
        let (named, live) = count.map_or((0, 0), |count| (count.named, count.live));
        let due_ms = (named == 0).then_some(row.due_ms);
        found.push(Linked { repository: name_of(view, id)?, linked_ms: row.linked_ms, named, live, due_ms });
        last = Some(id);
    }
    Ok((found, None))
}

/// The first manifests that name some content, and whether there are more.
fn named_by(view: &dyn View, digest: &Digest, only: Option<RepositoryId>) -> Result<(Vec<Naming>, bool), SchemaError> {
    let prefix = only.map_or_else(|| key::all_names(digest), |repository| key::names(digest, repository)).bytes();
    let rows = view.scan(&prefix, &prefix_end(&prefix), TOLD_MAX + 1)?;
    let mut found = Vec::new();
    for (key, value) in rows.iter().take(TOLD_MAX) {
        let id = key.get(key.len().saturating_sub(8)..).and_then(|id| id.try_into().ok());
        let id = u64::from_be_bytes(id.ok_or(SchemaError::Missing { table: "names" })?);
        let row: Option<ManifestIdRow> = schema::get(view, key::manifest_id(id))?;
        let Some(ManifestIdRow { repository, digest: namer }) = row else { continue };
        // One that was dropped takes its names back in steps.
        let manifest: Option<ManifestRow> = schema::get(view, key::manifest(repository, &namer))?;
        let Some(manifest) = manifest.filter(|manifest| manifest.manifest == id) else { continue };
        found.push(Naming {
            repository: name_of(view, repository)?,
            digest: namer,
            state: ManifestState::of(view, repository, &namer, &manifest)?,
            media_type: manifest.media_type,
            roles: roles(NameRow::from_bytes(value)?.roles),
        });
    }
    Ok((found, rows.len() > TOLD_MAX))
}

/// The roles of a row's bits.
pub(super) fn roles(bits: u8) -> Vec<Role> {
    Role::ALL.into_iter().filter(|&role| bits & 1 << role as u8 != 0).collect()
}

/// Records of drops, newest first.
fn drops(view: &dyn View, digest: &Digest, only: Option<&RepositoryName>) -> Result<Vec<DropRow>, SchemaError> {
    let prefix = key::dropped_of(digest).bytes();
    let mut drops = Vec::new();
    for (key, _) in view.scan(&prefix, &prefix_end(&prefix), DROPS_READ_MAX)?.iter().rev() {
        let lsn = key[prefix.len()..].try_into().map_err(|_| SchemaError::Missing { table: "dropped" })?;
        let row: DropRow = schema::expect(view, key::drop_record(u64::from_be_bytes(lsn)))?;
        if only.is_none_or(|only| *only == row.repository) && drops.len() < TOLD_MAX {
            drops.push(row);
        }
    }
    Ok(drops)
}

fn manifest_in(
    view: &dyn View,
    digest: &Digest,
    only: Option<RepositoryId>,
) -> Result<(Vec<Owning>, bool), SchemaError> {
    let (owners, more) = match only {
        Some(repository) => (vec![repository], false),
        None => owners::of(view, digest, TOLD_MAX)?,
    };
    let owners = owners.into_iter().filter_map(|repository| owning(view, repository, digest).transpose());
    Ok((owners.collect::<Result<_, _>>()?, more))
}

/// A manifest of a repository as one that has it.
fn owning(view: &dyn View, repository: RepositoryId, digest: &Digest) -> Result<Option<Owning>, SchemaError> {
    let row: Option<ManifestRow> = schema::get(view, key::manifest(repository, digest))?;
    let Some(row) = row else { return Ok(None) };
    let state = ManifestState::of(view, repository, digest, &row)?;
    Ok(Some(Owning {
        repository: name_of(view, repository)?,
        held_until_ms: inventory::held_until_ms(state, &row),
        media_type: row.media_type,
        state,
    }))
}
