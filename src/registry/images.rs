//! How large an image is, and what it alone keeps: a walk over what a manifest and those below it name.
//!
//! Worked out when asked. The walk reads each manifest below once, and one to three rows for each blob. Every digest that it
//! reads is taken from a budget; when that is spent it ends without an answer, so an index of 28,000 children can be
//! asked for but does not make a page of a list take as long as it likes.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use super::inventory;
use crate::{
    digest::Digest,
    index::{
        View,
        schema::{
            self, CountRow, ManifestRow, NamedDigest, ParentsRow, REFERENCES_PER_ROW, ReferencesRow, RepositoryRow,
            SchemaError, Scope, key,
        },
    },
    journal::operation::{ManifestId, OrganisationId, RepositoryId},
};

/// What an image comes to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ImageBytes {
    /// Of the blobs that it and the manifests below it name, each once, as far as the repository has them.
    pub(super) all: u64,
    /// Of those of them that only held manifests of the repository keep.
    pub(super) held: u64,
    /// Of those of them that nothing in the registry names but it, and children that nothing else keeps.
    pub(super) own: u64,
}

/// Bytes that ending a held manifest gives at most, with all that can leave with it: itself, and what no live manifest of
/// the repository names. `None` when the budget of digests ended before.
///
/// # Errors
/// When the index fails or is damaged.
pub(crate) fn held_reach(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
    budget: &mut usize,
) -> Result<Option<u64>, SchemaError> {
    let reach = ImageWalk::reach_of_both(view, repository, digest, budget)?;
    Ok(reach.map(|(blobs, manifests)| blobs.held.saturating_add(manifests)))
}

/// The same of a manifest that lives: itself, what it reaches, and what refers to any of that.
///
/// # Errors
/// When the index fails or is damaged.
pub(crate) fn reach(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
    budget: &mut usize,
) -> Result<Option<u64>, SchemaError> {
    let reach = ImageWalk::reach_of_both(view, repository, digest, budget)?;
    Ok(reach.map(|(blobs, manifests)| blobs.all.saturating_add(manifests)))
}

/// A walk down from one manifest.
pub(super) struct ImageWalk<'a> {
    view: &'a dyn View,
    repository: RepositoryId,
    /// Digests that may still be read.
    budget: &'a mut usize,
    /// Blobs, and how many manifests name each of those that are kept by the first alone.
    blobs: HashMap<Digest, u64>,
    /// Children, and how often such manifests name each.
    children: HashMap<Digest, u32>,
}

impl<'a> ImageWalk<'a> {
    /// What a manifest comes to; `None` when the budget ended before. Without `wants_own` that part stays 0.
    pub(super) fn measure(
        view: &'a dyn View,
        repository: RepositoryId,
        row: &ManifestRow,
        wants_own: bool,
        budget: &'a mut usize,
    ) -> Result<Option<ImageBytes>, SchemaError> {
        let walk = Self { view, repository, budget, blobs: HashMap::new(), children: HashMap::new() };
        walk.run(row.manifest, wants_own)
    }

    /// Bytes of the blobs of all that can leave with a manifest: those below it, those that refer to any of them, and so on;
    /// `None` when the budget ended before.
    pub(super) fn reach(
        view: &'a dyn View,
        repository: RepositoryId,
        digest: &Digest,
        budget: &'a mut usize,
    ) -> Result<Option<u64>, SchemaError> {
        Ok(Self::reach_of_both(view, repository, digest, budget)?.map(|(blobs, _)| blobs.all))
    }

    /// The same, and the bytes of the manifests themselves.
    fn reach_of_both(
        view: &'a dyn View,
        repository: RepositoryId,
        digest: &Digest,
        budget: &'a mut usize,
    ) -> Result<Option<(ImageBytes, u64)>, SchemaError> {
        let mut walk = Self { view, repository, budget, blobs: HashMap::new(), children: HashMap::new() };
        let (mut open, mut seen) = (vec![*digest], HashSet::from([*digest]));
        let mut manifests: u64 = 0;
        while let Some(digest) = open.pop() {
            let row: Option<ManifestRow> = schema::get(view, key::manifest(repository, &digest))?;
            let Some(row) = row else { continue };
            manifests = manifests.saturating_add(row.size);
            let Some(children) = walk.read(row.manifest, 0)? else { return Ok(None) };
            let Some(referrers) = walk.referrers(&digest)? else { return Ok(None) };
            open.extend(children.into_iter().chain(referrers).filter(|digest| seen.insert(*digest)));
        }
        Ok(Some((walk.sum(false)?, manifests)))
    }

    /// The manifests that name this one as their subject. `None` when the budget does not have so many.
    fn referrers(&mut self, subject: &Digest) -> Result<Option<Vec<Digest>>, SchemaError> {
        let prefix = key::referrers(self.repository, subject).bytes();
        let mut referrers = Vec::new();
        schema::each_row(self.view, &prefix, |key, _| {
            referrers.push(inventory::digest(&prefix, key)?);
            Ok(if referrers.len() > *self.budget { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let Some(left) = self.budget.checked_sub(referrers.len()) else { return Ok(None) };
        *self.budget = left;
        Ok(Some(referrers))
    }

    fn run(mut self, first: ManifestId, wants_own: bool) -> Result<Option<ImageBytes>, SchemaError> {
        let mut alone = vec![first];
        // A child is kept by these alone when all that name it are among them, and nothing else keeps it.
        while let Some(manifest) = alone.pop() {
            let Some(children) = self.read(manifest, u64::from(wants_own))? else { return Ok(None) };
            for child in children {
                let named = self.children.entry(child).or_default();
                *named += 1;
                let named = *named;
                if wants_own && let Some(row) = self.kept_by(&child, named)? {
                    self.children.remove(&child);
                    alone.push(row.manifest);
                }
            }
        }
        let mut shared: Vec<Digest> = self.children.keys().copied().collect();
        let mut seen: HashSet<Digest> = self.children.drain().map(|(digest, _)| digest).collect();
        while let Some(child) = shared.pop() {
            let row: Option<ManifestRow> = schema::get(self.view, key::manifest(self.repository, &child))?;
            let Some(row) = row else { continue };
            let Some(children) = self.read(row.manifest, 0)? else { return Ok(None) };
            shared.extend(children.into_iter().filter(|child| seen.insert(*child)));
        }
        self.sum(wants_own).map(Some)
    }

    /// Takes note of the blobs that a manifest names; its children. `None` when the budget does not have so many.
    fn read(&mut self, manifest: ManifestId, names: u64) -> Result<Option<Vec<Digest>>, SchemaError> {
        let mut children = Vec::new();
        for page in 0.. {
            let row: Option<ReferencesRow> = schema::get(self.view, key::references(manifest, page))?;
            let references = row.map(|row| row.references).unwrap_or_default();
            let Some(left) = self.budget.checked_sub(references.len().max(1)) else { return Ok(None) };
            *self.budget = left;
            for named in &references {
                self.note(named, names, &mut children);
            }
            if references.len() < REFERENCES_PER_ROW {
                break;
            }
        }
        Ok(Some(children))
    }

    fn note(&mut self, named: &NamedDigest, names: u64, children: &mut Vec<Digest>) {
        if named.is_blob() {
            *self.blobs.entry(named.digest).or_default() += names;
        }
        if named.is_child() {
            children.push(named.digest);
        }
    }

    /// A child's row, if these `named` are all that keeps it.
    fn kept_by(&self, child: &Digest, named: u32) -> Result<Option<ManifestRow>, SchemaError> {
        let parents: Option<ParentsRow> = schema::get(self.view, key::parents(self.repository, child))?;
        if parents.is_none_or(|parents| parents.all != named) {
            return Ok(None);
        }
        let row: Option<ManifestRow> = schema::get(self.view, key::manifest(self.repository, child))?;
        Ok(row.filter(|row| row.tags == 0 && !row.root && !row.attached))
    }

    fn sum(&self, wants_own: bool) -> Result<ImageBytes, SchemaError> {
        let RepositoryRow { organisation, .. } = schema::expect(self.view, key::repository(self.repository))?;
        let mut bytes = ImageBytes::default();
        for (digest, &names) in &self.blobs {
            let scope = Scope::Repository(self.repository);
            let count: CountRow = schema::expect(self.view, key::count(scope, digest))?;
            if count.links == 0 {
                continue;
            }
            bytes.all = bytes.all.saturating_add(count.size);
            bytes.held = bytes.held.saturating_add(if count.live == 0 { count.size } else { 0 });
            if wants_own && count.named == names && self.is_only_here(organisation, digest)? {
                bytes.own = bytes.own.saturating_add(count.size);
            }
        }
        Ok(bytes)
    }

    /// Whether no other repository names and links a blob.
    fn is_only_here(&self, organisation: OrganisationId, digest: &Digest) -> Result<bool, SchemaError> {
        for scope in [Scope::Organisation(organisation), Scope::Registry] {
            if schema::expect::<CountRow>(self.view, key::count(scope, digest))?.named != 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
