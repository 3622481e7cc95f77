//! What the registry, organisations and repositories store, and lists of them.
//!
//! Totals are rows that every commit keeps, so asking costs one read, and a page of a list one more for each entry. Nothing
//! is summed up here. Shared content counts in each part, so parts add up to more than the whole.

use std::cmp;

use super::{List, Registry, RegistryError, row};
use crate::{
    index::{
        View, prefix_end,
        schema::{OrganisationNameRow, RepositoryNameRow, RepositoryRow, RowValue, SchemaError, Scope, UsageRow, key},
    },
    journal::operation::{OrganisationId, RepositoryId},
    name::{NO_ORGANISATION, RepositoryName},
    store::StoreError,
};

/// Organisations that are stepped over for one page of the repositories that belong to none: a read each.
const SKIPS_MAX: usize = 10_000;

/// What an organisation stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganisationUsage {
    /// The organisation.
    pub name: String,
    /// Its totals.
    pub totals: UsageRow,
}

/// What a repository stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryUsage {
    /// The repository.
    pub name: RepositoryName,
    /// When it was first named, in Unix milliseconds.
    pub created_ms: u64,
    /// Its totals.
    pub totals: UsageRow,
}

impl Registry {
    /// What the whole registry stores.
    ///
    /// # Errors
    /// When the index fails; so with all that follow.
    pub fn usage(&self) -> Result<UsageRow, RegistryError> {
        totals(&*self.store.snapshot(), Scope::Registry)
    }

    /// What an organisation stores.
    ///
    /// # Errors
    /// [`RegistryError::OrganisationUnknown`].
    pub fn organisation_usage(&self, name: &str) -> Result<OrganisationUsage, RegistryError> {
        let view = self.store.snapshot();
        let id = organisation_id(&*view, name)?;
        Ok(OrganisationUsage { name: name.to_owned(), totals: totals(&*view, Scope::Organisation(id))? })
    }

    /// What a repository stores.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`].
    pub fn repository_usage(&self, name: &RepositoryName) -> Result<RepositoryUsage, RegistryError> {
        let view = self.store.snapshot();
        let id = super::repository_id(&*view, name)?.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?;
        repository_usage(&*view, id)
    }

    /// The first `limit` organisations after `after`, in byte order.
    ///
    /// # Errors
    /// When the index fails.
    pub fn organisations(&self, after: Option<&str>, limit: usize) -> Result<List<OrganisationUsage>, RegistryError> {
        organisations(&*self.store.snapshot(), after, limit)
    }

    /// The first `limit` repositories of an organisation, or of all, after `after`, in byte order. `after` is a name or
    /// what the page before gave; a page of those without an organisation can be short where very many
    /// organisations lie between them.
    ///
    /// # Errors
    /// [`RegistryError::OrganisationUnknown`].
    pub fn repository_usages(
        &self,
        organisation: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<List<RepositoryUsage>, RegistryError> {
        repositories(&*self.store.snapshot(), organisation, after, limit)
    }
}

/// A page of organisations.
pub(super) fn organisations(
    view: &dyn View,
    after: Option<&str>,
    limit: usize,
) -> Result<List<OrganisationUsage>, RegistryError> {
    let table = key::organisation_name("").bytes();
    let mut list = List { items: Vec::new(), next: None };
    let from = behind(&table, after);
    for (found, value) in scan(view, &from, &prefix_end(&table), limit.saturating_add(1))? {
        if list.items.len() == limit {
            list.next = list.items.last().map(|last: &OrganisationUsage| last.name.clone());
            break;
        }
        let id = OrganisationNameRow::from_bytes(&value).map_err(StoreError::from)?.organisation;
        let name = text(&found, &table);
        list.items.push(OrganisationUsage { name, totals: totals(view, Scope::Organisation(id))? });
    }
    Ok(list)
}

/// A page of repositories, of an organisation or of all.
pub(super) fn repositories(
    view: &dyn View,
    organisation: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> Result<List<RepositoryUsage>, RegistryError> {
    let List { items, next } = repository_ids(view, organisation, after, limit)?;
    let items = items.into_iter().map(|id| repository_usage(view, id)).collect::<Result<_, _>>()?;
    Ok(List { items, next })
}

/// The same, by their ids alone.
pub(super) fn repository_ids(
    view: &dyn View,
    organisation: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> Result<List<RepositoryId>, RegistryError> {
    let table = key::repository_name("").bytes();
    let prefix = match organisation {
        Some(name) => {
            organisation_id(view, name)?;
            let within = if name == NO_ORGANISATION { String::new() } else { format!("{name}/") };
            [table.as_slice(), within.as_bytes()].concat()
        }
        None => table.clone(),
    };
    let from = cmp::max(behind(&table, after), prefix.clone());
    let range = Range { table: &table, from, until: prefix_end(&prefix) };
    match organisation {
        Some(NO_ORGANISATION) => range.without_organisation(view, limit),
        _ => range.all(view, limit),
    }
}

/// Names of repositories, from a key on.
struct Range<'a> {
    table: &'a [u8],
    from: Vec<u8>,
    until: Vec<u8>,
}

impl Range<'_> {
    fn all(self, view: &dyn View, limit: usize) -> Result<List<RepositoryId>, RegistryError> {
        let rows = scan(view, &self.from, &self.until, limit.saturating_add(1))?;
        let next = rows.get(..limit).filter(|page| page.len() < rows.len()).and_then(<[_]>::last);
        let next = next.map(|(key, _)| text(key, self.table));
        let items = rows.iter().take(limit).map(|(_, value)| id(value)).collect::<Result<_, _>>()?;
        Ok(List { items, next })
    }

    /// Those whose names have no slash. What lies between them belongs to an organisation, all of which is stepped over.
    fn without_organisation(mut self, view: &dyn View, limit: usize) -> Result<List<RepositoryId>, RegistryError> {
        /// Rows that are read at once: those behind the first of an organisation are read in vain.
        const READ_AHEAD: usize = 16;
        let mut list = List { items: Vec::new(), next: None };
        let mut last = String::new();
        for _ in 0..SKIPS_MAX {
            let rows = scan(view, &self.from, &self.until, READ_AHEAD)?;
            let Some((end, _)) = rows.last() else { return Ok(list) };
            self.from = [end.as_slice(), &[0]].concat();
            for (key, value) in &rows {
                let name = text(key, self.table);
                if let Some((organisation, _)) = name.split_once('/') {
                    // Behind every name of the organisation, as no component of a name has this byte.
                    last = format!("{organisation}/~");
                    self.from = [self.table, last.as_bytes()].concat();
                    break;
                }
                if list.items.len() == limit {
                    return Ok(List { next: Some(last), ..list });
                }
                list.items.push(id(value)?);
                last = name;
            }
        }
        Ok(List { next: Some(last), ..list })
    }
}

/// An organisation's id.
pub(super) fn organisation_id(view: &dyn View, name: &str) -> Result<OrganisationId, RegistryError> {
    let row: Option<OrganisationNameRow> = row(view, key::organisation_name(name))?;
    Ok(row.ok_or_else(|| RegistryError::OrganisationUnknown(name.to_owned()))?.organisation)
}

/// The totals of a scope.
pub(super) fn totals(view: &dyn View, scope: Scope) -> Result<UsageRow, RegistryError> {
    Ok(row(view, key::usage(scope))?.unwrap_or_default())
}

fn repository_usage(view: &dyn View, id: RepositoryId) -> Result<RepositoryUsage, RegistryError> {
    let repository: Option<RepositoryRow> = row(view, key::repository(id))?;
    let lost = || StoreError::from(SchemaError::Missing { table: "repositories" });
    let RepositoryRow { name, created_ms, .. } = repository.ok_or_else(lost)?;
    Ok(RepositoryUsage { name, created_ms, totals: totals(view, Scope::Repository(id))? })
}

fn id(value: &[u8]) -> Result<RepositoryId, RegistryError> {
    Ok(RepositoryNameRow::from_bytes(value).map_err(StoreError::from)?.repository)
}

fn behind(table: &[u8], after: Option<&str>) -> Vec<u8> {
    after.map_or_else(|| table.to_vec(), |after| [table, after.as_bytes(), &[0]].concat())
}

fn scan(view: &dyn View, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<crate::index::Row>, RegistryError> {
    Ok(view.scan(from, until, limit).map_err(StoreError::from)?)
}

fn text(key: &[u8], table: &[u8]) -> String {
    String::from_utf8_lossy(key.get(table.len()..).unwrap_or_default()).into_owned()
}
