//! The index: sorted rows of bytes, the state that the journal's operations add up to.
//!
//! It is derived: whatever is lost here is replayed or rebuilt from the journal, so nothing in this module syncs on the
//! path of a request. One trait, two implementations: `rocks` (the only door to RocksDB) and `memory` (an ordered map for
//! tests, simulation and fuzzing); a differential test holds them equal. What the rows mean is told in `state`.

use std::{cell::RefCell, collections::BTreeMap, fmt, ops::Bound};

pub mod cached;
#[cfg(any(test, fuzzing))]
pub(crate) mod double;
#[cfg(any(feature = "rocksdb", test))]
mod fronts;
pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod schema;

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Why the index could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// RocksDB found damage; the index has to be rebuilt from the journal.
    #[error("the index is damaged: {0}; stop orlop and remove the index directory, it is rebuilt from the journal")]
    Corrupt(String),
    /// Anything else that RocksDB says: an I/O error, a full disk, a stopped background job.
    #[error("the index failed: {0}")]
    Failed(String),
    /// A read that must not wait would have to go to the disk.
    #[error("that is not in memory; read it from the disk")]
    OutOfReach,
}

/// The directory of RocksDB, below the data directory.
pub const DIRECTORY: &str = "index";

/// The file of the index that a message of RocksDB's names, below the data directory.
pub fn file_named(message: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let names = message.split(|c| !is_part(c)).filter_map(|word| word.rsplit('/').next());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut files = names.map(|name| name.trim_end_matches('.')).filter(|name| {
        let is_table = name.split_once('.').is_some_and(|(number, kind)| is_number(number) && kind == "sst");
        let is_manifest = name.strip_prefix("MANIFEST-").is_some_and(is_number);
        is_table || is_manifest || *name == "CURRENT"
    });
    files.next().map(|name| format!("{DIRECTORY}/{name}"))
}

/// Reads of one state of the rows.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// Never for a key that is merely absent; damage is never `None`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// At most `limit` rows with `from <= key < until`, in key order; none when the range is empty or turned around.
    ///
    /// # Errors
    /// When any of the rows cannot be read: fewer rows than there are is never the answer to damage.
    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError>;
}

/// The rows and their changes. A write is atomic and visible at once; it is durable only after a flush.
pub trait Index: View + Send + Sync + fmt::Debug {
    /// Applies all changes or none.
    ///
    /// # Errors
    /// Nothing was applied; the store does not go on without the batch.
    fn write(&self, changes: &Changes) -> Result<(), IndexError>;
    /// Makes all that was written durable. Runs long; called by a thread of its own.
    ///
    /// # Errors
    /// Nothing is known to be durable beyond the last flush that succeeded.
    fn flush(&self) -> Result<(), IndexError>;
    /// Whether a write would go through now. Cheap; asked before each batch is journaled.
    ///
    /// # Errors
    /// What stops writes.
    fn health(&self) -> Result<(), IndexError>;
    /// Whether all that it has flushed so far reached the disk, or found that full (a user's quota is no full disk to RocksDB, and
    /// ends its writes for good). Cheap; asked before a batch is acknowledged.
    ///
    /// # Errors
    /// How the disk has failed: what others have written to it may be lost, too.
    fn flushed(&self) -> Result<(), IndexError> {
        Ok(())
    }
    /// Reads all rows from the files again, past what is in memory, and tells how many bytes each page had; `read` ends the
    /// check by `false`. What is not flushed yet has no file. Cheap enough for once in a while only.
    ///
    /// # Errors
    /// When a file is damaged or missing.
    fn check(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<(), IndexError> {
        let _ = read(0);
        Ok(())
    }
    /// A state that later writes do not change.
    fn snapshot(&self) -> Box<dyn View + '_>;
    /// The same, of what can be read without waiting: reads of all else end in [`IndexError::OutOfReach`].
    fn in_memory(&self) -> Box<dyn View + '_> {
        self.snapshot()
    }
    /// The rows that can be read without waiting, each as it is when it is read: two of them need not be of one state. It sees while
    /// a write is under way, too. For who reads ahead of a change, which is decided later by what is true then.
    fn at_hand(&self) -> Box<dyn View + '_>;
}

impl<T: View + ?Sized> View for &T {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        (**self).get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        (**self).scan(from, until, limit)
    }
}

impl<T: View + ?Sized> View for std::sync::Arc<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        (**self).get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        (**self).scan(from, until, limit)
    }
}

/// An index that a test keeps a hand on.
impl<T: Index + ?Sized> Index for std::sync::Arc<T> {
    fn write(&self, changes: &Changes) -> Result<(), IndexError> {
        (**self).write(changes)
    }

    fn flush(&self) -> Result<(), IndexError> {
        (**self).flush()
    }

    fn health(&self) -> Result<(), IndexError> {
        (**self).health()
    }

    fn flushed(&self) -> Result<(), IndexError> {
        (**self).flushed()
    }

    fn check(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<(), IndexError> {
        (**self).check(read)
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        (**self).snapshot()
    }

    fn in_memory(&self) -> Box<dyn View + '_> {
        (**self).in_memory()
    }

    fn at_hand(&self) -> Box<dyn View + '_> {
        (**self).at_hand()
    }
}

/// Changes to rows, in key order: a value to put, or `None` to delete.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A view with changes laid over it: the operations of one batch see each other through it.
pub struct Overlay<'a> {
    base: &'a dyn View,
    changes: Changes,
    /// What the base has under the keys of hashed tables that were read, so that the batch's end need not read them again.
    read: RefCell<Changes>,
}

impl<'a> Overlay<'a> {
    /// No changes yet.
    pub fn new(base: &'a dyn View) -> Self {
        Self { base, changes: Changes::new(), read: RefCell::default() }
    }

    /// Sets a row.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    /// Removes a row; it may be missing.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// The changes so far.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Forgets that rows whose keys begin with `prefix` were removed, for a caller who knows that the base has none of
    /// them: a scan need not step over what came and went.
    pub fn forget_removed(&mut self, prefix: &[u8]) {
        let rows = self.changes.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let removed: Vec<Vec<u8>> = rows.filter(|(_, row)| row.is_none()).map(|(key, _)| key.clone()).collect();
        for key in removed {
            self.changes.remove(&key);
        }
    }

    /// The changes so far, to be written now; the overlay goes on without them.
    pub fn take_changes(&mut self) -> Changes {
        self.read.get_mut().clear();
        std::mem::take(&mut self.changes)
    }

    /// The value without the changes. A row that the state hash is of is read once.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn before(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        if !schema::Table::of(key).is_some_and(|table| schema::Table::HASHED.contains(&table)) {
            return self.base.get(key);
        }
        if let Some(value) = self.read.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.base.get(key)?;
        self.read.borrow_mut().insert(key.to_vec(), value.clone());
        Ok(value)
    }
}

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.before(key),
        }
    }

    /// Merges pages of the base with the changes of the same range. Reads `limit` rows of the base, and more only when
    /// changes delete some of them.
    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let mut rows = Vec::new();
        let mut from = from.to_vec();
        let mut page_rows = limit;
        while rows.len() < limit && from.as_slice() < until {
            let page = self.base.scan(&from, until, page_rows)?;
            // A full page speaks only for keys up to its last; a short one for the whole range.
            let end = match page.last() {
                Some((last, _)) if page.len() >= page_rows => [last.as_slice(), &[0]].concat(),
                _ => until.to_vec(),
            };
            let mut merged: Changes = page.into_iter().map(|(key, value)| (key, Some(value))).collect();
            let range = (Bound::Included(from.as_slice()), Bound::Excluded(end.as_slice()));
            let changed = self.changes.range::<[u8], _>(range);
            merged.extend(changed.map(|(key, change)| (key.clone(), change.clone())));
            rows.extend(merged.into_iter().filter_map(|(key, change)| Some((key, change?))));
            from = end;
            // Doubled, so that looking for one row behind a thousand deleted ones takes ten reads of the base.
            page_rows = page_rows.saturating_mul(2);
        }
        rows.truncate(limit);
        Ok(rows)
    }
}

impl fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({} changes)", self.changes.len())
    }
}

/// The end of the range of all keys that begin with `prefix`: the next key of the same length.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Tables begin with a byte below 255, so no row lies at or behind this, and a prefix of such bytes has no rows.
    vec![u8::MAX]
}

#[cfg(test)]
mod tests;
