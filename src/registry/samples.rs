//! Growth over time: a sample of usage for each day on which something changed.

use super::{List, Registry, RegistryError, usage::organisation_id};
use crate::{
    index::{
        prefix_end,
        schema::{RowValue, SampleRow, SchemaError, Scope, key},
    },
    store::StoreError,
};

/// A day since 1970-01-01 (UTC), and what was used at its end, or is used now.
pub type Sample = (u32, SampleRow);

impl Registry {
    /// A page of the samples of an organisation, or of the whole registry: the first `limit` after the day `after`.
    ///
    /// # Errors
    /// [`RegistryError::OrganisationUnknown`].
    pub fn samples(
        &self,
        organisation: Option<&str>,
        after: Option<u32>,
        limit: usize,
    ) -> Result<List<Sample, u32>, RegistryError> {
        let view = self.store.snapshot();
        let scope = match organisation {
            Some(name) => Scope::Organisation(organisation_id(&*view, name)?),
            None => Scope::Registry,
        };
        let prefix = key::samples(scope).bytes();
        let from =
            after.map_or_else(|| prefix.clone(), |day| [key::sample(scope, day).bytes().as_slice(), &[0]].concat());
        let mut list = List { items: Vec::<Sample>::new(), next: None };
        let rows = view.scan(&from, &prefix_end(&prefix), limit.saturating_add(1)).map_err(StoreError::from)?;
        for (key, value) in rows {
            if list.items.len() == limit {
                list.next = list.items.last().map(|(day, _)| *day);
                break;
            }
            let day = key[prefix.len()..].try_into().map(u32::from_be_bytes);
            let day = day.map_err(|_| StoreError::from(SchemaError::Missing { table: "samples" }))?;
            list.items.push((day, SampleRow::from_bytes(&value).map_err(StoreError::from)?));
        }
        Ok(list)
    }
}
