//! Limits of what organisations and repositories may store: setting them, and what they have of them.

use super::{List, Registry, RegistryError, row};
use crate::{
    codec::Decoder,
    index::{
        View, prefix_end,
        schema::{QuotaRow, RowValue, SchemaError, Table, UsageRow, key},
    },
    name::Owner,
    state::{quota, request::Request},
    store::StoreError,
};

/// A limit, and what its owner has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Whose it is.
    pub owner: Owner,
    /// What the owner may have, in bytes.
    pub limit_bytes: u64,
    /// When it was set, in Unix milliseconds.
    pub set_ms: u64,
    /// Linked blobs and manifests, each once, in bytes.
    pub stored_bytes: u64,
    /// What open uploads hold, in bytes.
    pub uploading_bytes: u64,
    /// What only held manifests keep, in bytes; part of what is stored.
    pub reclaimable_bytes: u64,
}

impl Quota {
    /// What is charged: all that counts against the limit, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.stored_bytes.saturating_add(self.uploading_bytes)
    }
}

impl Registry {
    /// Sets what an owner may store, or takes the limit away; durable on return. A limit below what is there is none the less
    /// one: nothing more comes in. The limit as it is then.
    ///
    /// # Errors
    /// When the store takes no writes.
    pub fn set_quota(&self, owner: &Owner, limit_bytes: Option<u64>) -> Result<Option<Quota>, RegistryError> {
        self.store.commit(Request::SetQuota { owner: owner.clone(), limit_bytes })?;
        self.quota(owner)
    }

    /// The limit of an owner, if there is one.
    ///
    /// # Errors
    /// When the index fails.
    pub fn quota(&self, owner: &Owner) -> Result<Option<Quota>, RegistryError> {
        let view = self.store.snapshot();
        let limit: Option<QuotaRow> = row(&*view, key::quota(owner))?;
        limit.map(|limit| self.told(&*view, owner.clone(), &limit)).transpose()
    }

    /// The first `limit` limits after that of `after`: organisations, then repositories, each in byte order.
    ///
    /// # Errors
    /// When the index fails.
    pub fn quotas(&self, after: Option<&Owner>, limit: usize) -> Result<List<Quota>, RegistryError> {
        let view = self.store.snapshot();
        let table = [Table::Quotas as u8];
        let from = after.map_or_else(|| table.to_vec(), |after| [key::quota(after).bytes(), vec![0]].concat());
        let rows = view.scan(&from, &prefix_end(&table), limit.saturating_add(1)).map_err(StoreError::from)?;
        let mut items = Vec::new();
        for (row_key, value) in rows.iter().take(limit) {
            let bad = |source| StoreError::from(SchemaError::Row { table: Table::Quotas.name(), source });
            let owner = key::read_rest(&mut Decoder::new(&row_key[1..]), "owner").map_err(bad)?;
            items.push(self.told(&*view, owner, &QuotaRow::from_bytes(value).map_err(StoreError::from)?)?);
        }
        let next = items.last().filter(|_| rows.len() > limit).map(|last: &Quota| last.owner.code());
        Ok(List { items, next })
    }

    fn told(&self, view: &dyn View, owner: Owner, limit: &QuotaRow) -> Result<Quota, RegistryError> {
        let scope = quota::scope(view, &owner).map_err(StoreError::from)?;
        let usage = scope.map(|scope| row::<UsageRow>(view, key::usage(scope))).transpose()?.flatten();
        let usage = usage.unwrap_or_default();
        let uploading_bytes = self.store.held_bytes(&owner);
        Ok(Quota {
            owner,
            limit_bytes: limit.limit_bytes,
            set_ms: limit.set_ms,
            stored_bytes: quota::charged(&usage),
            uploading_bytes,
            reclaimable_bytes: usage.reclaimable_bytes,
        })
    }
}
