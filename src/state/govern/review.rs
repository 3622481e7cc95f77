//! What a change of policies has made to do: repositories are looked at by name, and those that another policy governs now
//! are brought under that: rows of the earlier one are taken away, then tags and manifests put in order.
//!
//! A step is an operation of its own and takes [`STEP_ROWS`] rows at most. It is told nothing: where it goes on stands in the one
//! row of *reviewing*, which goes with the last step. When policies change meanwhile it begins with the first name again; a
//! repository in the middle of it is begun anew then, as its own row says that it is not done.
//!
//! While rows are taken away, changes of the repository put nothing in order; while it is filled they do so at once, and what
//! they have put in order is passed over.

use crate::{
    codec::{DecodeError, Decoder},
    digest::Digest,
    index::{
        Overlay, Row, View, prefix_end,
        schema::{
            self, Applied, GovernedRow, RepositoryNameRow, RepositoryRow, ReviewPhase, ReviewRow, RowValue,
            SchemaError, SpareTagRow, Table, TagRow, UseRow, key,
        },
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    policy::{self, Policy},
    state::counts::Change,
};

use super::{
    order::{self, Order},
    policies, prefix, put, repository_changed, uses,
};

/// Rows that one step looks at. Part of the meaning of the operation. Tests have smaller repositories.
const STEP_ROWS: usize = if cfg!(test) { 12 } else { 1_000 };

/// The tables whose rows follow from a repository's policy, in the order in which they are cleared; rows of others go with
/// them.
const CLEARED: [Table; 3] = [Table::NewestTags, Table::SpareTags, Table::Uses];
/// The tables that are put in order.
const FILLED: [Table; 2] = [Table::Manifests, Table::Tags];

/// Policies have changed: repositories whose names begin so may be governed by another now.
pub(in crate::state) fn begin(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    prefixes: &[&str],
) -> Result<(), SchemaError> {
    let known: Option<ReviewRow> = schema::get(overlay, key::review())?;
    let all = prefixes.iter().copied().chain(known.as_ref().map(|row| row.prefix.as_str()));
    let prefix = all.reduce(common).unwrap_or_default().to_owned();
    applied.reviewing = true;
    schema::put(overlay, key::review(), &ReviewRow { prefix, ..ReviewRow::default() });
    Ok(())
}

/// What both begin with.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let len = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    // Patterns and names are ASCII.
    one.get(..len).unwrap_or_default()
}

/// The next step.
pub(in crate::state) fn step(overlay: &mut Overlay<'_>, applied: &mut Applied) -> Result<(), SchemaError> {
    let Some(row) = schema::get(overlay, key::review())? else { return Ok(()) };
    let policies: Vec<Policy> = policies(overlay)?.into_iter().map(|row| row.policy).collect();
    let mut review = Review { overlay, policies, row, left: STEP_ROWS };
    if review.run()? {
        applied.reviewing = false;
        overlay.delete(key::review().bytes());
    } else {
        let Review { row, .. } = review;
        schema::put(overlay, key::review(), &row);
    }
    Ok(())
}

struct Review<'a, 'b> {
    overlay: &'a mut Overlay<'b>,
    policies: Vec<Policy>,
    row: ReviewRow,
    /// Rows that may still be looked at.
    left: usize,
}

impl Review<'_, '_> {
    /// Whether all is done.
    fn run(&mut self) -> Result<bool, SchemaError> {
        loop {
            if self.row.repository > 0 {
                if !self.bring(self.row.repository)? {
                    return Ok(false);
                }
                (self.row.repository, self.row.cursor) = (0, Vec::new());
            }
            let prefix = key::repository_name(&self.row.prefix).bytes();
            let from = match self.row.after.as_str() {
                "" => prefix.clone(),
                after => [key::repository_name(after).bytes().as_slice(), &[0]].concat(),
            };
            let names = self.overlay.scan(&from, &prefix_end(&prefix), self.left)?;
            let is_end = names.len() < self.left;
            for (name, value) in names {
                self.left -= 1;
                let name = name_of(&name).map_err(bad(Table::RepositoryNames))?;
                name.as_str().clone_into(&mut self.row.after);
                let repository = RepositoryNameRow::from_bytes(&value)?.repository;
                if self.look(repository, &name)? {
                    self.row.repository = repository;
                    break;
                }
            }
            if self.row.repository == 0 {
                return Ok(is_end);
            }
        }
    }

    /// Looks at a repository. Whether it has to be brought under another policy.
    fn look(&mut self, repository: RepositoryId, name: &RepositoryName) -> Result<bool, SchemaError> {
        let wanted = policy::governing(&self.policies, name).cloned();
        let known = super::governed(self.overlay, repository)?;
        let is_done = known.as_ref().is_none_or(|row| row.phase == ReviewPhase::Done as u8);
        let policy = known.as_ref().and_then(|row| row.policy.clone());
        if is_done && policy == wanted {
            return Ok(false);
        }
        if policy.as_ref().map(|policy| &policy.name) != wanted.as_ref().map(|policy| &policy.name) {
            for (policy, change) in [(&policy, Change::Leaves), (&wanted, Change::Enters)] {
                if let Some(policy) = policy {
                    repository_changed(self.overlay, repository, policy.name.as_str(), change)?;
                }
            }
        }
        if let (true, Some(before), Some(wanted), Some(row)) = (is_done, &policy, &wanted, &known)
            && has_same_rows(before, wanted)
        {
            put(self.overlay, repository, &GovernedRow { policy: Some(wanted.clone()), ..row.clone() });
            return Ok(false);
        }
        let mut row = GovernedRow::new(wanted, ReviewPhase::Clearing);
        match &known {
            // There is nothing to take away.
            None => row.phase = ReviewPhase::Filling as u8,
            Some(known) if known.phase == ReviewPhase::Clearing as u8 => row.was.clone_from(&known.was),
            Some(_) => row.was = policy.map_or_else(String::new, |policy| policy.name.as_str().to_owned()),
        }
        if let Some(due_ms) = known.and_then(|row| row.due_ms) {
            self.overlay.delete(key::due_repository(due_ms, repository).bytes());
        }
        self.mark(repository, true, row.policy.as_ref())?;
        put(self.overlay, repository, &row);
        Ok(true)
    }

    /// Says in a repository's own row whether it is governed, and by what.
    fn mark(&mut self, repository: RepositoryId, governed: bool, policy: Option<&Policy>) -> Result<(), SchemaError> {
        let before: RepositoryRow = schema::expect(self.overlay, key::repository(repository))?;
        let policy = policy.map_or_else(String::new, |policy| policy.name.as_str().to_owned());
        let after = RepositoryRow { governed, policy, ..before.clone() };
        if after != before {
            schema::put(self.overlay, key::repository(repository), &after);
        }
        Ok(())
    }

    /// Brings a repository under its policy. Whether that is done.
    fn bring(&mut self, repository: RepositoryId) -> Result<bool, SchemaError> {
        let Some(mut row) = super::governed(self.overlay, repository)? else { return Ok(true) };
        if row.phase == ReviewPhase::Clearing as u8 {
            if !self.clear(repository, &row.was)? {
                return Ok(false);
            }
            self.row.cursor.clear();
            if row.policy.is_none() {
                self.overlay.delete(key::governed(repository).bytes());
                self.mark(repository, false, None)?;
                return Ok(true);
            }
            (row.phase, row.was) = (ReviewPhase::Filling as u8, String::new());
            put(self.overlay, repository, &row);
        }
        let Some(policy) = row.policy else { return Ok(true) };
        if !self.fill(repository, &policy)? {
            return Ok(false);
        }
        if let Some(row) = super::governed(self.overlay, repository)? {
            put(self.overlay, repository, &GovernedRow { phase: ReviewPhase::Done as u8, ..row });
        }
        Ok(true)
    }

    /// Takes rows away that were made by an earlier policy. Whether none are left.
    fn clear(&mut self, repository: RepositoryId, was: &str) -> Result<bool, SchemaError> {
        for table in CLEARED {
            while let Some(rows) = self.next_rows(table, repository)? {
                let begin = prefix(table, repository).len();
                for (row_key, value) in rows {
                    let end = &row_key[begin..];
                    match table {
                        Table::SpareTags => self.clear_spare(repository, end, &SpareTagRow::from_bytes(&value)?)?,
                        Table::Uses => self.clear_use(repository, was, end, &UseRow::from_bytes(&value)?)?,
                        _ => {}
                    }
                    self.overlay.delete(row_key);
                }
                if self.left == 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn clear_spare(&mut self, repository: RepositoryId, end: &[u8], row: &SpareTagRow) -> Result<(), SchemaError> {
        let (_, tag) = key::read_spare(&mut Decoder::new(end)).map_err(bad(Table::SpareTags))?;
        if let Some(due_ms) = row.due_ms {
            self.overlay.delete(key::due_tag(repository, due_ms, &tag).bytes());
        }
        Ok(())
    }

    fn clear_use(&mut self, repository: RepositoryId, was: &str, end: &[u8], row: &UseRow) -> Result<(), SchemaError> {
        let digest: Digest = Decoder::new(end).digest("digest").map_err(bad(Table::Uses))?;
        if let Some(due_ms) = row.due_ms {
            self.overlay.delete(key::due_root(due_ms, repository, &digest).bytes());
        }
        uses::move_used(self.overlay, was, repository, &digest, (row.used_ms, None))
    }

    /// Puts tags and manifests in order. Whether all are.
    fn fill(&mut self, repository: RepositoryId, policy: &Policy) -> Result<bool, SchemaError> {
        for table in FILLED {
            let is_wanted = if table == Table::Tags { policy.orders_tags() } else { uses::has_uses(policy) };
            while is_wanted && let Some(rows) = self.next_rows(table, repository)? {
                let begin = prefix(table, repository).len();
                for (row_key, value) in rows {
                    let mut d = Decoder::new(&row_key[begin..]);
                    if table == Table::Tags {
                        let tag = key::read_tag(&mut d).map_err(bad(table))?;
                        self.fill_tag(repository, policy, &tag, &TagRow::from_bytes(&value)?)?;
                    } else {
                        let digest = d.digest("digest").map_err(bad(table))?;
                        uses::follow(self.overlay, repository, policy, &digest, |_| {})?;
                    }
                }
                if self.left == 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn fill_tag(
        &mut self,
        repository: RepositoryId,
        policy: &Policy,
        tag: &Tag,
        tag_row: &TagRow,
    ) -> Result<(), SchemaError> {
        if !order::is_ordered(policy, tag) {
            return Ok(());
        }
        let row: GovernedRow = schema::expect(self.overlay, key::governed(repository))?;
        let mut order = Order { overlay: self.overlay, repository, policy, row: row.clone() };
        if !order.has(tag, tag_row)? {
            order.insert(tag, tag_row)?;
        }
        order.finish(&row);
        Ok(())
    }

    /// The next rows of a repository in a table, behind those that were looked at; `None` behind the last. The cursor stands in
    /// the tables of one phase from the first to the last.
    fn next_rows(&mut self, table: Table, repository: RepositoryId) -> Result<Option<Vec<Row>>, SchemaError> {
        let prefix = prefix(table, repository);
        let from = match self.row.cursor.first() {
            Some(at) if *at == table as u8 => [self.row.cursor.as_slice(), &[0]].concat(),
            Some(at) if *at > table as u8 => return Ok(None),
            _ => prefix.clone(),
        };
        if self.left == 0 {
            return Ok(Some(Vec::new()));
        }
        let rows = self.overlay.scan(&from, &prefix_end(&prefix), self.left)?;
        self.left -= rows.len();
        match rows.last() {
            Some((last, _)) => self.row.cursor.clone_from(last),
            None => return Ok(None),
        }
        Ok(Some(rows))
    }
}

/// Whether both put a repository in the same order: then there is nothing to do in it.
fn has_same_rows(one: &Policy, other: &Policy) -> bool {
    let rows = |policy: &Policy| {
        let Policy { name, tag_pattern, keep_newest, older_than_ms, not_pulled_for_ms, .. } = policy.clone();
        let ordered = (tag_pattern, keep_newest, older_than_ms, not_pulled_for_ms);
        (name, policy.orders_tags().then_some(ordered), policy.size_max_bytes.is_some(), policy.never_tagged_for_ms)
    };
    rows(one) == rows(other)
}

fn name_of(row_key: &[u8]) -> Result<RepositoryName, DecodeError> {
    key::read_rest(&mut Decoder::new(&row_key[1..]), "name")
}

fn bad(table: Table) -> impl FnOnce(DecodeError) -> SchemaError {
    move |source| SchemaError::Row { table: table.name(), source }
}
