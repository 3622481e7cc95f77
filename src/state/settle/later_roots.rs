//! What was asked for by its digest while lives were being told.
//!
//! Between two steps what a manifest's rows say of what reaches it may be about to be taken back. So a push or a restore by
//! digest is noted then, and answered when nothing in its repository is settling any more: the manifest becomes a root if
//! nothing reaches it by then. Until that it is not dropped, whether it lives or not.

use std::collections::BTreeSet;

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{self, Key, LaterRootRow, SchemaError, Scope, Table, UsageRow, key},
    },
    journal::operation::RepositoryId,
    state::{counts::Change, life::is_reached},
};

use super::Lives;

/// Whether what the rows of a repository say of what reaches a manifest may be about to be taken back.
pub(in crate::state) fn is_settling(view: &dyn View, repository: RepositoryId) -> Result<bool, SchemaError> {
    let usage: Option<UsageRow> = schema::get(view, key::usage(Scope::Repository(repository)))?;
    Ok(usage.is_some_and(|usage| usage.settling > 0))
}

/// Whether a manifest is noted.
pub(in crate::state) fn is_noted(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<bool, SchemaError> {
    Ok(schema::get::<LaterRootRow>(view, key::later_root(repository, digest))?.is_some())
}

/// Whether a repository has any.
pub(in crate::state) fn are_in(view: &dyn View, repository: RepositoryId) -> Result<bool, SchemaError> {
    let prefix = key::later_roots(repository).bytes();
    Ok(!view.scan(&prefix, &prefix_end(&prefix), 1)?.is_empty())
}

impl Lives<'_, '_> {
    /// A manifest was asked for by its digest while what its rows say of what reaches it may be about to be taken back.
    pub(in crate::state) fn note_later_root(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<(), SchemaError> {
        if !is_noted(self.overlay, repository, digest)? {
            schema::put(self.overlay, key::later_root(repository, digest), &LaterRootRow {});
            Change::Enters.step(&mut self.applied.settling, 1);
        }
        Ok(())
    }

    /// Something reaches it for sure, or it was deleted: it does not become a root later.
    pub(in crate::state) fn forget_later_root(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<(), SchemaError> {
        if self.applied.settling > 0 && is_noted(self.overlay, repository, digest)? {
            self.overlay.delete(key::later_root(repository, digest).bytes());
            Change::Leaves.step(&mut self.applied.settling, 1);
        }
        Ok(())
    }

    /// Makes roots of what was asked for while something was settling in its repository, where nothing is any more and nothing
    /// reaches it.
    pub(super) fn make_later_roots(&mut self, repositories: &mut BTreeSet<RepositoryId>) -> Result<(), SchemaError> {
        let all = Key::of(Table::LaterRoots).bytes();
        let (mut from, until) = (all.clone(), prefix_end(&all));
        while self.left > 0 {
            let Some((key, _)) = self.overlay.scan(&from, &until, 1)?.pop() else { break };
            self.left -= 1;
            let mut d = Decoder::new(&key[1..]);
            let read = d.key_u32("repository").and_then(|repository| Ok((repository, d.digest("digest")?)));
            let (repository, digest) =
                read.map_err(|source| SchemaError::Row { table: Table::LaterRoots.name(), source })?;
            if is_settling(self.overlay, repository)? {
                from = prefix_end(&key::later_roots(repository).bytes());
                continue;
            }
            self.forget_later_root(repository, &digest)?;
            self.change(repository, &digest, |row, parents| row.root |= !is_reached(row, parents))?;
            self.weigh_sake(repository, &digest, true)?;
            repositories.insert(repository);
            self.settle()?;
            from = [key.as_slice(), &[0]].concat();
        }
        Ok(())
    }
}
