//! An index in memory whose calls a test sees, holds up or refuses. For tests only.

use std::{fmt, sync::Arc};

use super::{Changes, Index, IndexError, Row, View, memory::MemoryIndex};

/// What a test does at the calls of an index.
pub(crate) trait Watcher: fmt::Debug + Send + Sync {
    /// A row was read, of the index or of a snapshot; the reader does not have it yet.
    fn read(&self, _key: &[u8]) {}

    /// Somebody is about to write.
    ///
    /// # Errors
    /// When nothing is to be written.
    fn write(&self) -> Result<(), IndexError> {
        Ok(())
    }

    /// Something was written.
    fn written(&self, _index: &MemoryIndex) {}

    /// Somebody asks whether a write would go through.
    fn asked_for_health(&self) {}
}

/// An index and who watches it.
#[derive(Debug)]
pub(crate) struct Watched<W> {
    pub(crate) index: Arc<MemoryIndex>,
    pub(crate) watcher: Arc<W>,
}

impl<W: Watcher> View for Watched<W> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let found = self.index.get(key);
        self.watcher.read(key);
        found
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.index.scan(from, until, limit)
    }
}

impl<W: Watcher> Index for Watched<W> {
    fn write(&self, changes: &Changes) -> Result<(), IndexError> {
        self.watcher.write()?;
        self.index.write(changes)?;
        self.watcher.written(&self.index);
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.index.flush()
    }

    fn health(&self) -> Result<(), IndexError> {
        self.watcher.asked_for_health();
        self.index.health()
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        Box::new(Snapshot { snapshot: self.index.snapshot(), watcher: &*self.watcher })
    }

    fn at_hand(&self) -> Box<dyn View + '_> {
        Box::new(self)
    }
}

struct Snapshot<'a, W> {
    snapshot: Box<dyn View + 'a>,
    watcher: &'a W,
}

impl<W: Watcher> View for Snapshot<'_, W> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let found = self.snapshot.get(key);
        self.watcher.read(key);
        found
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.snapshot.scan(from, until, limit)
    }
}
