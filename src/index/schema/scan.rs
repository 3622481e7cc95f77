//! Rows in bounded pages: those of a prefix, and those of a table.
//!
//! The rows of a table by digest lie between those of the others. A page of them is read together with what lies between,
//! up to a number of rows in all, and the next begins where a row of the table can be again: a digest that a million
//! repositories link costs who reads blobs one page. So to read one of these tables takes at most what it takes to read all
//! of them.
//!
//! It refuses to step over a key that is of no table: that may be a row of this one, damaged.

use std::ops::ControlFlow;

use super::{Key, SchemaError, Table};
use crate::{
    codec::DecodeError,
    digest::Digest,
    index::{Changes, Row, View, prefix_end},
};

/// Rows that are read at once.
const PAGE: usize = 1_000;

/// A page of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its rows, in key order. Few, or none, do not say that it is the last.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` behind the last.
    pub next: Option<Vec<u8>>,
}

/// Reads a page of a table, from its beginning or from a key on; of at most `rows_read` rows, those of other tables
/// included.
///
/// # Errors
/// When the index fails, or a key between the rows is of no table.
pub fn page(view: &dyn View, table: Table, from: Option<&[u8]>, rows_read: usize) -> Result<Page, SchemaError> {
    let prefix = [table.prefix()];
    let read = view.scan(from.unwrap_or(&prefix), &prefix_end(&prefix), rows_read)?;
    let last = read.last().filter(|_| read.len() >= rows_read);
    let next = last.map(|(last, _)| behind(table, last)).transpose()?;
    let mut rows = Vec::with_capacity(if table.is_by_digest() { 0 } else { read.len() });
    for row in read {
        if Table::of(&row.0).ok_or_else(|| of_none(table))? == table {
            rows.push(row);
        }
    }
    Ok(Page { rows, next })
}

/// The first key behind one of its range that a table may have.
fn behind(table: Table, last: &[u8]) -> Result<Vec<u8>, SchemaError> {
    let next = [last, &[0]].concat();
    if !table.is_by_digest() {
        return Ok(next);
    }
    let (digest, _) = Digest::decode(last.get(1..).unwrap_or_default()).ok_or_else(|| of_none(table))?;
    let own = Key::by_digest(table, &digest).bytes();
    if last < own.as_slice() {
        return Ok(own);
    }
    Ok(if last.starts_with(&own) { next } else { behind_digest(&digest) })
}

/// Where the rows of the tables by digest begin that are of the next ones.
pub fn behind_digest(digest: &Digest) -> Vec<u8> {
    prefix_end(&Key::begin(Table::Blobs).digest(digest).bytes())
}

fn of_none(table: Table) -> SchemaError {
    SchemaError::Row { table: table.name(), source: DecodeError { field: "key", problem: "is of no table" } }
}

/// Visits the rows of a table, in key order and bounded pages, until the visitor breaks.
///
/// # Errors
/// As [`page`], and whatever the visitor returns.
pub fn each_row_of(
    view: &dyn View,
    table: Table,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, SchemaError>,
) -> Result<(), SchemaError> {
    let mut from = None;
    loop {
        let Page { rows, next } = page(view, table, from.as_deref(), PAGE)?;
        for (key, value) in &rows {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
        }
        if next.is_none() {
            return Ok(());
        }
        from = next;
    }
}

/// Visits the rows whose keys begin with `prefix`, in key order and bounded pages, until the visitor breaks.
///
/// # Errors
/// When the index fails, and whatever the visitor returns.
pub fn each_row(
    view: &dyn View,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, SchemaError>,
) -> Result<(), SchemaError> {
    let (mut from, until) = (prefix.to_vec(), prefix_end(prefix));
    loop {
        let rows = view.scan(&from, &until, PAGE)?;
        for (key, value) in &rows {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
        }
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => from = [last, &[0][..]].concat(),
            _ => return Ok(()),
        }
    }
}

/// The changes to rows of a table, in key order.
pub fn changes_of(changes: &Changes, table: Table) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
    let prefix = vec![table.prefix()];
    let until = prefix_end(&prefix);
    changes.range(prefix..until).filter(move |(key, _)| !table.is_by_digest() || Table::of(key) == Some(table))
}
