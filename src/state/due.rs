//! What is due: a bounded read of the rows that say when something ends, in the order of time.
//!
//! What it finds may not be due any more when it is dropped; `decide` looks again.

use std::collections::BTreeMap;

use crate::{
    codec::{DecodeError, Decoder},
    index::{
        View, prefix_end,
        schema::{SchemaError, Table, key},
    },
    journal::operation::RepositoryId,
    name::Tag,
    state::request::Due,
};

/// The tables in which something can be due, in an order in which each drop makes the next possible.
pub const TABLES: [Table; 5] =
    [Table::DueManifests, Table::DueHistory, Table::DueLinks, Table::EmptyRepositories, Table::DueDrops];

/// A part of what is due.
#[derive(Debug, Clone, Default)]
pub struct DuePage {
    /// What is due. Entries of history are together by repository.
    pub items: Vec<Due>,
    /// Where the next page begins; `None` when there is no more.
    pub next: Option<Vec<u8>>,
}

/// Reads at most `limit` rows of one of [`TABLES`] from the key `from`, or the first, as far as they are due at `now_ms`.
///
/// # Errors
/// When the index fails or is damaged.
pub fn page(
    view: &dyn View,
    table: Table,
    from: Option<&[u8]>,
    now_ms: u64,
    limit: usize,
) -> Result<DuePage, SchemaError> {
    let prefix = vec![table as u8];
    let until = match table {
        Table::EmptyRepositories => prefix_end(&prefix),
        _ => [prefix.as_slice(), &now_ms.saturating_add(1).to_be_bytes()].concat(),
    };
    let rows = view.scan(from.unwrap_or(&prefix), &until, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| [key.as_slice(), &[0]].concat());
    let mut page = DuePage { items: Vec::new(), next };
    let mut history: BTreeMap<RepositoryId, Vec<(Tag, u64, u64)>> = BTreeMap::new();
    let mut records = Vec::new();
    for (key, _) in &rows {
        match item(table, &key[1..]).map_err(|source| SchemaError::Row { table: table.name(), source })? {
            Found::Item(item) => page.items.push(item),
            Found::Entry(repository, entry) => history.entry(repository).or_default().push(entry),
            Found::Record(lsn) => records.push(lsn),
        }
    }
    page.items.extend(history.into_iter().map(|(repository, entries)| Due::History { repository, entries }));
    if !records.is_empty() {
        page.items.push(Due::Records(records));
    }
    Ok(page)
}

enum Found {
    Item(Due),
    Entry(RepositoryId, (Tag, u64, u64)),
    Record(u64),
}

fn item(table: Table, key: &[u8]) -> Result<Found, DecodeError> {
    let mut d = Decoder::new(key);
    if table == Table::EmptyRepositories {
        return Ok(Found::Item(Due::Repository(d.key_u32("repository")?)));
    }
    let due_ms = d.key_u64("due")?;
    if table == Table::DueDrops {
        return Ok(Found::Record(d.key_u64("lsn")?));
    }
    let repository = d.key_u32("repository")?;
    Ok(match table {
        Table::DueLinks => Found::Item(Due::Link { repository, digest: d.digest("digest")? }),
        Table::DueManifests => Found::Item(Due::Manifest { repository, digest: d.digest("digest")? }),
        _ => {
            let (tag, lsn) = key::read_history(&mut d)?;
            Found::Entry(repository, (tag, lsn, due_ms))
        }
    })
}
