//! A view that tells how much was read through it, and that can be closed under its reader.
//!
//! What reads rows (`state::recount`) knows nothing of progress, of being stopped or of memory. It reads in pages, and after
//! an error it reads no more: so a page that is refused ends it, and [`Watched::end`] says what the refusal meant.

use std::{cell::RefCell, ops::ControlFlow};

use crate::{
    index::{IndexError, Row, View, schema::SchemaError},
    state::recount,
};

use super::{Broken, Phase, Progress, VerifyError, places};

pub(super) struct Watched<'a> {
    view: &'a dyn View,
    phase: Phase,
    /// Bytes of rows that may be read, and the bytes of memory that they stand for.
    bytes_max: Option<(u64, u64)>,
    /// Rows that there are, where that is known.
    total: Option<u64>,
    inner: RefCell<Inner<'a>>,
}

struct Inner<'a> {
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    rows: u64,
    bytes: u64,
    ended: Option<VerifyError>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(
        view: &'a dyn View,
        phase: Phase,
        bytes_max: Option<(u64, u64)>,
        watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        let inner = RefCell::new(Inner { watch, rows: 0, bytes: 0, ended: None });
        Self { view, phase, bytes_max, total: None, inner }
    }

    /// The same, with the number of rows that are to be read.
    pub(super) fn of(self, total: u64) -> Self {
        Self { total: Some(total), ..self }
    }

    /// What the reader came to, or why it was ended.
    pub(super) fn end<T>(&self, result: Result<T, SchemaError>) -> Result<T, Broken> {
        match self.inner.borrow_mut().ended.take() {
            Some(ended) => Err(Broken::Ended(ended)),
            None => Ok(result?),
        }
    }

    /// Rows that only lie between those that are read for themselves are no progress, and take no memory.
    fn count(&self, rows: &[Row]) -> Result<(), IndexError> {
        let mut inner = self.inner.borrow_mut();
        for (key, value) in rows {
            let is_wanted = match self.phase {
                Phase::Counting => recount::is_counted_from(key),
                Phase::Places => places::is_checked(key),
                _ => true,
            };
            if is_wanted {
                inner.rows += 1;
                inner.bytes += (key.len() + value.len()) as u64;
            }
        }
        let done = self.total.map_or(inner.rows, |total| inner.rows.min(total));
        let progress = Progress { phase: self.phase, done, total: self.total };
        if (inner.watch)(progress).is_break() {
            inner.ended = Some(VerifyError::Stopped);
        } else if let Some((_, max)) = self.bytes_max.filter(|(rows_max, _)| inner.bytes > *rows_max) {
            inner.ended = Some(VerifyError::TooLarge { max });
        }
        match &inner.ended {
            Some(ended) => Err(IndexError::Failed(ended.to_string())),
            None => Ok(()),
        }
    }
}

impl View for Watched<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.view.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let rows = self.view.scan(from, until, limit)?;
        self.count(&rows)?;
        Ok(rows)
    }
}
