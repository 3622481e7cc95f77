//! What owners may store: whether a growth fits.
//!
//! An owner is charged for each blob that is linked in it, once, whether something names it or not; for each manifest, once;
//! and for what open uploads have, or have announced. What it holds already costs nothing more. Growth is decided where all
//! changes are, against the batch's own state; uploads, which come before that, are known to an [`Account`].

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{
            self, CountRow, LinkRow, ManifestRow, OrganisationNameRow, QuotaRow, SchemaError, Scope, UsageRow, key,
        },
    },
    name::{Owner, RepositoryName},
    state::decide,
};

/// A growth of an owner that has a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The owner.
    pub owner: Owner,
    /// What it may have, in bytes.
    pub limit_bytes: u64,
    /// What it has, without open uploads, in bytes.
    pub charged_bytes: u64,
    /// What comes, in bytes.
    pub added_bytes: u64,
    /// What it could get back, in bytes.
    pub reclaimable_bytes: u64,
}

/// A growth does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner} may store {limit_bytes} bytes and has {used_bytes} with its open uploads; this needs {needed_bytes} more. \
     Delete something, purge what is held ({reclaimable_bytes} bytes), wait for other uploads to end, or raise the quota"
)]
pub struct QuotaExceeded {
    /// The owner.
    pub owner: Owner,
    /// What it may have, in bytes.
    pub limit_bytes: u64,
    /// What it has, open uploads included, in bytes.
    pub used_bytes: u64,
    /// What should come, in bytes.
    pub needed_bytes: u64,
    /// What it could get back, in bytes.
    pub reclaimable_bytes: u64,
}

impl Growth {
    /// Whether it fits beside what open uploads hold.
    ///
    /// # Errors
    /// When it does not.
    pub fn fits(&self, held_bytes: u64) -> Result<(), QuotaExceeded> {
        let used_bytes = self.charged_bytes.saturating_add(held_bytes);
        // What needs nothing is let in also where a quota was set below what is there.
        if self.added_bytes == 0 || used_bytes.saturating_add(self.added_bytes) <= self.limit_bytes {
            return Ok(());
        }
        Err(QuotaExceeded {
            owner: self.owner.clone(),
            limit_bytes: self.limit_bytes,
            used_bytes,
            needed_bytes: self.added_bytes,
            reclaimable_bytes: self.reclaimable_bytes,
        })
    }
}

/// What open uploads hold of limits.
pub trait Account {
    /// Lets growths in, all or none, that turn `held_bytes` of the caller's own open upload into content.
    ///
    /// # Errors
    /// The first that does not fit.
    fn admit(&self, owners: &[Owner; 2], held_bytes: u64, growths: &[Growth]) -> Result<(), QuotaExceeded>;
}

/// No upload is open.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoUploads;

impl Account for NoUploads {
    fn admit(&self, _: &[Owner; 2], _: u64, growths: &[Growth]) -> Result<(), QuotaExceeded> {
        growths.iter().try_for_each(|growth| growth.fits(0))
    }
}

/// What comes into a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming<'a> {
    /// A link to a blob.
    Blob(&'a Digest),
    /// A manifest.
    Manifest(&'a Digest),
    /// An upload: of what is known when it ends.
    Upload,
}

/// How much the owners of a repository that have limits grow when something of so many bytes comes there.
///
/// # Errors
/// When the index fails or is damaged.
pub fn growths(
    view: &dyn View,
    repository: &RepositoryName,
    coming: Coming<'_>,
    size: u64,
) -> Result<Vec<Growth>, SchemaError> {
    let mut growths = Vec::new();
    for owner in Owner::of(repository) {
        let Some(QuotaRow { limit_bytes, .. }) = schema::get(view, key::quota(&owner))? else { continue };
        let scope = scope(view, &owner)?;
        let has = scope.map_or(Ok(false), |scope| has(view, scope, coming))?;
        let usage: UsageRow = match scope {
            Some(scope) => schema::get(view, key::usage(scope))?.unwrap_or_default(),
            None => UsageRow::default(),
        };
        growths.push(Growth {
            owner,
            limit_bytes,
            charged_bytes: charged(&usage),
            added_bytes: if has { 0 } else { size },
            reclaimable_bytes: usage.reclaimable_bytes,
        });
    }
    Ok(growths)
}

/// What an owner is charged for beside its open uploads, in bytes.
pub fn charged(usage: &UsageRow) -> u64 {
    usage.linked_bytes.saturating_add(usage.manifest_bytes)
}

/// What an owner is in the index; `None` where nothing of it is there.
///
/// # Errors
/// When the index fails or is damaged.
pub fn scope(view: &dyn View, owner: &Owner) -> Result<Option<Scope>, SchemaError> {
    Ok(match owner {
        Owner::Repository(name) => decide::find_repository(view, name)?.map(Scope::Repository),
        Owner::Organisation(name) => {
            let row: Option<OrganisationNameRow> = schema::get(view, key::organisation_name(name))?;
            row.map(|row| Scope::Organisation(row.organisation))
        }
    })
}

fn has(view: &dyn View, scope: Scope, coming: Coming<'_>) -> Result<bool, SchemaError> {
    let count = |digest| schema::get::<CountRow>(view, key::count(scope, digest)).map(Option::unwrap_or_default);
    Ok(match (coming, scope) {
        (Coming::Upload, _) => false,
        (Coming::Blob(digest), Scope::Repository(id)) => schema::get::<LinkRow>(view, key::link(id, digest))?.is_some(),
        (Coming::Manifest(digest), Scope::Repository(id)) => {
            schema::get::<ManifestRow>(view, key::manifest(id, digest))?.is_some()
        }
        (Coming::Blob(digest), _) => count(digest)?.links > 0,
        (Coming::Manifest(digest), _) => count(digest)?.manifests > 0,
    })
}
