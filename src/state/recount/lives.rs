//! Which manifests live, worked out from nothing: repeated until nothing changes any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    digest::Digest,
    index::schema::{DueManifestRow, ManifestRow, NamedDigest, ParentsRow, SchemaError, key},
    journal::operation::RepositoryId,
};

use super::Recount;

/// A manifest with what it names.
pub(super) struct Found {
    pub(super) row: ManifestRow,
    pub(super) named: Vec<NamedDigest>,
    strong: bool,
    attached: bool,
    carried: bool,
}

impl Found {
    pub(super) fn new(row: ManifestRow, named: Vec<NamedDigest>) -> Self {
        Self { row, named, strong: false, attached: false, carried: false }
    }

    pub(super) fn is_live(&self) -> bool {
        self.strong || self.attached || self.carried
    }
}

pub(super) type AllManifests = BTreeMap<(RepositoryId, Digest), Found>;

/// What names each child.
pub(super) fn parents(manifests: &AllManifests) -> BTreeMap<(RepositoryId, Digest), ParentsRow> {
    let mut parents: BTreeMap<(RepositoryId, Digest), ParentsRow> = BTreeMap::new();
    for ((repository, _), parent) in manifests {
        for named in parent.named.iter().filter(|named| named.is_child()) {
            let row = parents.entry((*repository, named.digest)).or_default();
            row.all += 1;
            row.strong += u32::from(parent.strong);
            row.carried += u32::from(parent.attached || parent.carried);
        }
    }
    parents
}

impl Recount<'_> {
    /// Works out all lives, and what follows from them: the rows of manifests, of what names children, and due times.
    pub(super) fn lives(&mut self, manifests: &mut AllManifests) -> Result<(), SchemaError> {
        let mut named = parents(manifests);
        loop {
            let attaching: BTreeSet<_> =
                manifests.iter().filter(|(_, it)| it.strong || it.attached).map(|(key, _)| *key).collect();
            let mut changed = false;
            for (&(repository, digest), it) in manifests.iter_mut().filter(|(_, it)| !it.row.deleted) {
                let parents = named.get(&(repository, digest)).cloned().unwrap_or_default();
                let strong = it.row.root || it.row.tags > 0 || parents.strong > 0;
                let attached = it.row.subject.is_some_and(|subject| attaching.contains(&(repository, subject)));
                let carried = parents.carried > 0;
                changed |= (strong, attached, carried) != (it.strong, it.attached, it.carried);
                (it.strong, it.attached, it.carried) = (strong, attached, carried);
            }
            if !changed {
                break;
            }
            named = parents(manifests);
        }
        for (&(repository, digest), it) in manifests.iter() {
            let parents = named.get(&(repository, digest)).cloned().unwrap_or_default();
            let attached = it.row.subject.is_some_and(|subject| {
                manifests.get(&(repository, subject)).is_some_and(|subject| subject.strong || subject.attached)
            });
            let named = it.row.tags > 0 || parents.strong > 0 || parents.carried > 0;
            let told = u8::from(it.strong) | u8::from(it.attached) << 1 | u8::from(it.carried) << 2;
            // Whether it ever lived by itself cannot be counted, only that it does not where something reaches it.
            let root = it.row.root && !named && (it.row.stays_root || !attached) && !it.row.deleted;
            let stays_root = it.row.stays_root && root;
            let mut row = ManifestRow { attached, told, root, stays_root, ..it.row.clone() };
            if it.is_live() {
                (row.left_ms, row.held_until_ms) = (0, 0);
            } else if parents.all == 0 {
                self.expect(key::due_manifest(row.held_until_ms, repository, &digest), &DueManifestRow {});
            }
            self.expect(key::manifest(repository, &digest), &row);
        }
        for ((repository, child), row) in &named {
            self.expect(key::parents(*repository, child), row);
        }
        Ok(())
    }
}
