//! Rows counted again, in bounded memory, before a damaged journal is replaced: from then on they are the only witness.

use std::cell::Cell;

use crate::{
    index::{IndexError, Row, View},
    state::recount::{self, MEMORY_FACTOR},
    store::StoreError,
};

/// Why the rows prove nothing; `None` when all that is derived is what the rest adds up to.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn doubt(view: &dyn View, memory_bytes_max: u64) -> Result<Option<String>, StoreError> {
    let bounded = Bounded { view, left: Cell::new(memory_bytes_max / MEMORY_FACTOR), is_over: Cell::new(false) };
    let mut first = None;
    // The first half takes all of the memory.
    let explained = recount::explain(&bounded, &mut |difference| {
        first.get_or_insert(difference);
    });
    let compared = explained.and_then(|explained| {
        explained.compare(view, &mut |difference| {
            first.get_or_insert(difference);
        })
    });
    if bounded.is_over.get() {
        return Ok(Some(format!("counting its rows takes more than {memory_bytes_max} bytes of memory")));
    }
    match compared.map_err(StoreError::from) {
        Ok(()) => Ok(first.map(|difference| difference.to_string())),
        Err(StoreError::Corrupt(text)) => Ok(Some(text)),
        Err(error) => Err(error),
    }
}

/// A view that ends when more bytes of rows were scanned than may be.
struct Bounded<'a> {
    view: &'a dyn View,
    left: Cell<u64>,
    is_over: Cell<bool>,
}

impl View for Bounded<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.view.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let rows = self.view.scan(from, until, limit)?;
        let counted = rows.iter().filter(|(key, _)| recount::is_counted_from(key));
        let bytes = counted.map(|(key, value)| (key.len() + value.len()) as u64).sum();
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => {
                self.is_over.set(true);
                return Err(IndexError::Failed("no more rows may be read".to_owned()));
            }
        }
        Ok(rows)
    }
}
