//! What owners with limits have, and what open uploads hold of it, in memory.
//!
//! An upload holds its bytes before they come: for its repository and its organisation, whether these have limits or not, as
//! one may be set while it is open. The committer turns what is held into what is stored, in the same step as it decides
//! that: nobody sees both, or neither. Everything is under one lock, which is held for memory only.
//!
//! Invariants:
//! - What an owner with a limit is charged for stands here as the index has it, or the batch that is being made.
//! - A [`Hold`] that is dropped gives back what it has.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, PoisonError},
};

use crate::{
    codec::Decoder,
    index::{
        Changes, View,
        schema::{self, QuotaRow, RowValue, SchemaError, Table, UsageRow, key},
    },
    name::{Owner, RepositoryName},
    state::quota::{self, Account, Growth, QuotaExceeded},
    sync::{Mutex, MutexGuard},
};

/// What is known of all owners that have limits or open uploads.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    books: HashMap<Owner, Book>,
    /// The owner of a row of totals, for those that have limits.
    scopes: HashMap<Vec<u8>, Owner>,
    /// What the batch that is being made has taken from open uploads, and from whom; and whose charge it has changed.
    taken: Vec<([Owner; 2], u64)>,
    grown: Vec<Owner>,
}

#[derive(Debug, Default)]
struct Book {
    limit: Option<Limit>,
    /// What open uploads hold, in bytes.
    held_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    limit_bytes: u64,
    charged_bytes: u64,
    reclaimable_bytes: u64,
}

impl Accounts {
    /// The limits of an index.
    pub(super) fn load(view: &dyn View) -> Result<Self, SchemaError> {
        let accounts = Self::default();
        let mut owners = Vec::new();
        schema::each_row_of(view, Table::Quotas, |key, _| {
            owners.push(owner_of(Table::Quotas, key)?);
            Ok(ControlFlow::Continue(()))
        })?;
        accounts.read_again(view, owners)?;
        Ok(accounts)
    }

    /// Takes note of a batch that is in the index.
    pub(super) fn written(&self, view: &dyn View, changes: &Changes) -> Result<(), SchemaError> {
        let mut state = self.lock();
        state.taken.clear();
        state.grown.clear();
        for (key, row) in schema::changes_of(changes, Table::Usage) {
            let Some(owner) = state.scopes.get(key) else { continue };
            let usage = row.as_deref().map(UsageRow::from_bytes).transpose()?.unwrap_or_default();
            let owner = owner.clone();
            if let Some(limit) = state.books.get_mut(&owner).and_then(|book| book.limit.as_mut()) {
                limit.charged_bytes = quota::charged(&usage);
                limit.reclaimable_bytes = usage.reclaimable_bytes;
            }
        }
        let mut changed = Vec::new();
        for table in [Table::Quotas, Table::OrganisationNames, Table::RepositoryNames] {
            for (key, _) in schema::changes_of(changes, table) {
                let owner = owner_of(table, key)?;
                let has_limit = state.books.get(&owner).is_some_and(|book| book.limit.is_some());
                if table == Table::Quotas || has_limit {
                    changed.push(owner);
                }
            }
        }
        drop(state);
        self.read_again(view, changed)
    }

    /// Takes back what a batch has taken that did not come to be.
    pub(super) fn undo(&self, view: &dyn View) -> Result<(), SchemaError> {
        let mut state = self.lock();
        for (owners, bytes) in std::mem::take(&mut state.taken) {
            owners.into_iter().for_each(|owner| state.book(owner).held_bytes += bytes);
        }
        let grown = std::mem::take(&mut state.grown);
        drop(state);
        self.read_again(view, grown)
    }

    /// What open uploads hold, in bytes.
    pub(super) fn held_bytes(&self, owner: &Owner) -> u64 {
        self.lock().held_bytes(owner)
    }

    /// Reads what the index says of owners, all of which have a limit or just lost it.
    fn read_again(&self, view: &dyn View, owners: Vec<Owner>) -> Result<(), SchemaError> {
        for owner in owners {
            let quota: Option<QuotaRow> = schema::get(view, key::quota(&owner))?;
            let row = quota::scope(view, &owner)?.map(|scope| key::usage(scope).bytes());
            let usage = row.as_ref().map(|row| view.get(row)).transpose().map_err(SchemaError::from)?.flatten();
            let usage = usage.as_deref().map(UsageRow::from_bytes).transpose()?.unwrap_or_default();
            let mut state = self.lock();
            state.scopes.retain(|_, of| *of != owner);
            let limit = quota.map(|quota| Limit {
                limit_bytes: quota.limit_bytes,
                charged_bytes: quota::charged(&usage),
                reclaimable_bytes: usage.reclaimable_bytes,
            });
            if let (Some(row), true) = (row, limit.is_some()) {
                state.scopes.insert(row, owner.clone());
            }
            state.book(owner.clone()).limit = limit;
            state.forget_if_empty(&owner);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn book(&mut self, owner: Owner) -> &mut Book {
        self.books.entry(owner).or_default()
    }

    fn held_bytes(&self, owner: &Owner) -> u64 {
        self.books.get(owner).map_or(0, |book| book.held_bytes)
    }

    fn forget_if_empty(&mut self, owner: &Owner) {
        if self.books.get(owner).is_some_and(|book| book.held_bytes == 0 && book.limit.is_none()) {
            self.books.remove(owner);
        }
    }

    fn give_back(&mut self, owners: &[Owner; 2], bytes: u64) {
        for owner in owners {
            if let Some(book) = self.books.get_mut(owner) {
                book.held_bytes = book.held_bytes.saturating_sub(bytes);
            }
            self.forget_if_empty(owner);
        }
    }
}

impl Account for Accounts {
    fn admit(&self, owners: &[Owner; 2], held_bytes: u64, growths: &[Growth]) -> Result<(), QuotaExceeded> {
        let mut state = self.lock();
        for growth in growths {
            growth.fits(state.held_bytes(&growth.owner).saturating_sub(held_bytes))?;
        }
        if held_bytes > 0 {
            state.give_back(owners, held_bytes);
            state.taken.push((owners.clone(), held_bytes));
        }
        for growth in growths {
            if let Some(limit) = state.books.get_mut(&growth.owner).and_then(|book| book.limit.as_mut()) {
                limit.charged_bytes = growth.charged_bytes.saturating_add(growth.added_bytes);
                state.grown.push(growth.owner.clone());
            }
        }
        Ok(())
    }
}

/// What an open upload holds of its owners' limits. Dropped, it gives that back.
#[derive(Debug)]
pub struct Hold {
    accounts: Arc<Accounts>,
    owners: [Owner; 2],
    bytes: u64,
}

impl Hold {
    /// Nothing yet.
    pub(super) fn new(accounts: &Arc<Accounts>, repository: &RepositoryName) -> Self {
        Self { accounts: Arc::clone(accounts), owners: Owner::of(repository), bytes: 0 }
    }

    /// What it has, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds so many bytes, if that is more than before.
    ///
    /// # Errors
    /// When they do not fit; it is as before then.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), QuotaExceeded> {
        let Some(added_bytes) = bytes.checked_sub(self.bytes).filter(|added| *added > 0) else { return Ok(()) };
        let mut state = self.accounts.lock();
        for owner in &self.owners {
            let Some(Book { limit: Some(limit), held_bytes }) = state.books.get(owner) else { continue };
            let Limit { limit_bytes, charged_bytes, reclaimable_bytes } = *limit;
            let growth = Growth { owner: owner.clone(), limit_bytes, charged_bytes, added_bytes, reclaimable_bytes };
            growth.fits(*held_bytes)?;
        }
        for owner in &self.owners {
            state.book(owner.clone()).held_bytes += added_bytes;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Holds so many bytes whether they fit or not: they are there.
    pub fn set(&mut self, bytes: u64) {
        let mut state = self.accounts.lock();
        state.give_back(&self.owners, self.bytes);
        if bytes > 0 {
            self.owners.iter().for_each(|owner| state.book(owner.clone()).held_bytes += bytes);
        }
        self.bytes = bytes;
    }

    /// What it held is stored now.
    pub fn spent(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.accounts.lock().give_back(&self.owners, self.bytes);
        }
    }
}

/// The owner whose name a key ends with.
fn owner_of(table: Table, row_key: &[u8]) -> Result<Owner, SchemaError> {
    let mut d = Decoder::new(&row_key[1..]);
    let owner = match table {
        Table::OrganisationNames => key::read_rest::<String>(&mut d, "name").map(Owner::Organisation),
        Table::RepositoryNames => key::read_rest(&mut d, "name").map(Owner::Repository),
        _ => key::read_rest(&mut d, "owner"),
    };
    owner.map_err(|source| SchemaError::Row { table: table.name(), source })
}
