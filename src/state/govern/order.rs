//! The order of a repository's tags: so many newest ones, which stay, and the spare ones, with the times at which these go.
//!
//! Only tags that the policy's pattern matches are in order; others are pinned. A tag is newer than another when it was set
//! later, or at the same time and comes behind it in byte order.
//!
//! Invariants:
//! - There are spare tags only where there are as many newest ones as the policy keeps; all of these are newer than all of
//!   those. So a change moves one tag at most from the one side to the other, and costs the same in any repository.
//! - *boundary* is the oldest of the newest; *due* of the repository's row the first of the times at which its tags go.

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        Overlay, View,
        schema::{
            self, DueRepositoryRow, DueTagRow, GovernedRow, NewestTagRow, SchemaError, SpareTagRow, Table, TagRow, key,
        },
    },
    journal::operation::RepositoryId,
    name::Tag,
    policy::Policy,
    state::counts::Change,
};

use super::{first, governed, prefix, put, uses};

/// When a tag was set, and the tag: later ones are newer.
type Age = (u64, Tag);

/// A tag was set, moved, kept or removed. Its own row, and those of the manifests, are as they are then.
pub(in crate::state) fn tag_changed(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    tag: &Tag,
    before: Option<&TagRow>,
    after: Option<&TagRow>,
) -> Result<(), SchemaError> {
    let Some(row) = governed(overlay, repository)? else { return Ok(()) };
    let Some(policy) = row.in_force().filter(|policy| is_ordered(policy, tag)).cloned() else { return Ok(()) };
    let mut order = Order { overlay, repository, policy: &policy, row: row.clone() };
    if let Some(before) = before {
        order.remove(tag, before)?;
    }
    if let Some(after) = after {
        order.insert(tag, after)?;
    }
    order.finish(&row);
    Ok(())
}

/// Whether a policy puts a tag in order.
pub(super) fn is_ordered(policy: &Policy, tag: &Tag) -> bool {
    policy.orders_tags() && policy.tag_pattern.matches(tag)
}

/// The order while it is changed.
pub(super) struct Order<'a, 'b> {
    pub(super) overlay: &'a mut Overlay<'b>,
    pub(super) repository: RepositoryId,
    pub(super) policy: &'a Policy,
    pub(super) row: GovernedRow,
}

impl Order<'_, '_> {
    /// Writes the repository's row, if it is not as before any more.
    pub(super) fn finish(self, before: &GovernedRow) {
        if before.due_ms != self.row.due_ms {
            if let Some(due_ms) = before.due_ms {
                self.overlay.delete(key::due_repository(due_ms, self.repository).bytes());
            }
            if let Some(due_ms) = self.row.due_ms {
                schema::put(self.overlay, key::due_repository(due_ms, self.repository), &DueRepositoryRow {});
            }
        }
        if *before != self.row {
            put(self.overlay, self.repository, &self.row);
        }
    }

    /// Whether a tag is in order already.
    pub(super) fn has(&self, tag: &Tag, row: &TagRow) -> Result<bool, SchemaError> {
        let spare = key::spare_tag(self.repository, row.set_ms, tag).bytes();
        Ok(self.is_newest(tag, row)? || self.overlay.get(&spare)?.is_some())
    }

    fn is_newest(&self, tag: &Tag, row: &TagRow) -> Result<bool, SchemaError> {
        Ok(self.overlay.get(&key::newest_tag(self.repository, row.set_ms, tag).bytes())?.is_some())
    }

    /// Puts a tag in order.
    pub(super) fn insert(&mut self, tag: &Tag, row: &TagRow) -> Result<(), SchemaError> {
        let age = (row.set_ms, tag.clone());
        let kept = self.policy.newest_kept();
        if self.row.newest < kept {
            self.put_newest(&age);
            self.row.newest += 1;
            if self.row.boundary.as_ref().is_none_or(|boundary| age < *boundary) {
                self.row.boundary = Some(age);
            }
            return Ok(());
        }
        match self.row.boundary.clone().filter(|boundary| age > *boundary) {
            None => self.put_spare(&age, row),
            Some(oldest) => {
                self.put_newest(&age);
                self.overlay.delete(key::newest_tag(self.repository, oldest.0, &oldest.1).bytes());
                self.row.boundary = self.first_newest(&oldest)?;
                let row = self.tag(&oldest)?;
                self.put_spare(&oldest, &row)
            }
        }
    }

    /// Takes a tag out of order, whose row was this. One that is not in order yet is left alone.
    pub(super) fn remove(&mut self, tag: &Tag, row: &TagRow) -> Result<(), SchemaError> {
        let age = (row.set_ms, tag.clone());
        if !self.is_newest(tag, row)? {
            let spare: Option<SpareTagRow> = schema::get(self.overlay, key::spare_tag(self.repository, age.0, tag))?;
            return spare.map_or(Ok(()), |spare| self.remove_spare(&age, &spare, &row.digest));
        }
        self.overlay.delete(key::newest_tag(self.repository, age.0, tag).bytes());
        let was_full = self.row.newest >= self.policy.newest_kept();
        if was_full && let Some(next) = self.first_spare()? {
            let row = self.tag(&next)?;
            let key = key::spare_tag(self.repository, next.0, &next.1);
            let spare: SpareTagRow = schema::expect(self.overlay, key)?;
            self.remove_spare(&next, &spare, &row.digest)?;
            self.put_newest(&next);
            self.row.boundary = Some(next);
            return Ok(());
        }
        self.row.newest = self.row.newest.saturating_sub(1);
        if self.row.boundary.as_ref() == Some(&age) {
            self.row.boundary = self.first_newest(&age)?;
        }
        Ok(())
    }

    fn tag(&self, (_, tag): &Age) -> Result<TagRow, SchemaError> {
        schema::expect(self.overlay, key::tag(self.repository, tag))
    }

    fn put_newest(&mut self, (set_ms, tag): &Age) {
        schema::put(self.overlay, key::newest_tag(self.repository, *set_ms, tag), &NewestTagRow {});
    }

    /// The oldest of the newest that is not older than this.
    fn first_newest(&self, (set_ms, tag): &Age) -> Result<Option<Age>, SchemaError> {
        let prefix = prefix(Table::NewestTags, self.repository);
        let found = first(self.overlay, &prefix, &key::newest_tag(self.repository, *set_ms, tag).bytes())?;
        let age = found.map(|end| key::read_newest(&mut Decoder::new(&end))).transpose();
        age.map_err(|source| SchemaError::Row { table: Table::NewestTags.name(), source })
    }

    /// The newest of those that are spare: all of them are older than the boundary.
    fn first_spare(&self) -> Result<Option<Age>, SchemaError> {
        let Some((set_ms, tag)) = &self.row.boundary else { return Ok(None) };
        let prefix = prefix(Table::SpareTags, self.repository);
        let found = first(self.overlay, &prefix, &key::spare_tag(self.repository, *set_ms, tag).bytes())?;
        let age = found.map(|end| key::read_spare(&mut Decoder::new(&end))).transpose();
        age.map_err(|source| SchemaError::Row { table: Table::SpareTags.name(), source })
    }

    fn put_spare(&mut self, (set_ms, tag): &Age, row: &TagRow) -> Result<(), SchemaError> {
        let due_ms = self.policy.due_ms(*set_ms, row.pulled_ms);
        schema::put(self.overlay, key::spare_tag(self.repository, *set_ms, tag), &SpareTagRow { due_ms });
        if let Some(due_ms) = due_ms {
            schema::put(self.overlay, key::due_tag(self.repository, due_ms, tag), &DueTagRow {});
            self.row.due_ms = Some(self.row.due_ms.map_or(due_ms, |first| first.min(due_ms)));
        }
        self.spare_changed(&row.digest, Change::Enters)
    }

    fn remove_spare(&mut self, (set_ms, tag): &Age, spare: &SpareTagRow, of: &Digest) -> Result<(), SchemaError> {
        self.overlay.delete(key::spare_tag(self.repository, *set_ms, tag).bytes());
        if let Some(due_ms) = spare.due_ms {
            self.overlay.delete(key::due_tag(self.repository, due_ms, tag).bytes());
            if self.row.due_ms == Some(due_ms) {
                self.row.due_ms = self.first_due(due_ms)?;
            }
        }
        self.spare_changed(of, Change::Leaves)
    }

    /// The first time from one on at which a tag goes.
    fn first_due(&self, from_ms: u64) -> Result<Option<u64>, SchemaError> {
        let prefix = prefix(Table::DueTags, self.repository);
        let from = [prefix.as_slice(), &from_ms.to_be_bytes()].concat();
        let found = first(self.overlay, &prefix, &from)?;
        let due_ms = found.map(|end| Decoder::new(&end).key_u64("due")).transpose();
        due_ms.map_err(|source| SchemaError::Row { table: Table::DueTags.name(), source })
    }

    fn spare_changed(&mut self, digest: &Digest, change: Change) -> Result<(), SchemaError> {
        uses::spare_changed(self.overlay, self.repository, self.policy, digest, change)
    }
}
