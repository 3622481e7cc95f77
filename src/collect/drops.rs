//! Taking what is due: read in pages in the order of time, dropped in the committer, which looks again.
//!
//! A drop makes others due (children, referrers, links, repositories), so passes follow each other until one drops nothing.
//! A run takes what was due when it began: what becomes due while it goes on is for the next. It reads rows of what is
//! due and of what it drops, and no others, so it costs the garbage.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, Applied, LinkRow, ManifestRow, RepositoryRow, SchemaError, Table, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    state::{
        due,
        request::{Due, Outcome, Request},
    },
    store::StoreError,
};

use super::{
    pauses::AHEAD_MS,
    report::{CollectionReport, Dropped, Kept, Kind, Reason},
    steps::Steps,
};

/// Rows of what is due that are read at a time.
const PAGE_ROWS: usize = 1_000;
/// Requests that are in flight at once, and rows that they change at most, about: a batch of the committer with all of them
/// holds up clients for some milliseconds.
const REQUESTS_AT_ONCE: usize = 128;
const ROWS_AT_ONCE: u64 = 2_000;

/// One run of drops.
pub(super) struct Drops<'a, S> {
    pub(super) steps: &'a mut S,
    pub(super) report: &'a mut CollectionReport,
    /// What was due by then is taken.
    pub(super) now_ms: u64,
    /// Whether the run ends windows: what that releases is due by the time of the operations that release it.
    pub(super) ends_windows: bool,
    pub(super) began: Instant,
    pub(super) grace_ms: u64,
    pub(super) window_ms: u64,
    /// Repositories in which uploads are open.
    pub(super) uploading: &'a dyn Fn() -> HashSet<RepositoryName>,
}

/// Something due, with what a report says of it.
struct Item {
    due: Due,
    kind: Kind,
    digest: Option<Digest>,
    repository: Option<RepositoryName>,
    /// How many things it is.
    count: u64,
    /// Rows that its drop changes at once, about.
    rows: u64,
}

impl<S: Steps> Drops<'_, S> {
    /// Takes all that is due.
    pub(super) fn run(&mut self) -> Result<(), StoreError> {
        loop {
            let mut dropped = 0;
            for table in due::TABLES {
                dropped += self.table(table)?;
                self.steps.settle()?;
            }
            if let Some(reason) = self.steps.end() {
                self.report.incomplete = Some(reason);
                return Ok(());
            }
            if dropped == 0 {
                return Ok(());
            }
        }
    }

    fn table(&mut self, table: Table) -> Result<u64, StoreError> {
        if self.ends_windows {
            self.now_ms = self.now_ms.max(self.released_by()?);
        }
        let (mut dropped, mut from) = (0, None::<Vec<u8>>);
        while self.steps.end().is_none() {
            let now_ms = self.now_ms;
            let page = self.steps.read(|view| due::page(view, table, from.as_deref(), now_ms, PAGE_ROWS))?;
            let items = self.steps.read(|view| items(view, page.items))?;
            let items = if table == Table::DueLinks { self.without_kept(items)? } else { items };
            dropped += self.drop_all(items)?;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        Ok(dropped)
    }

    /// The time of operations. Where it is far ahead of the clock, which was wrong then, nothing else must end by it.
    fn released_by(&self) -> Result<u64, StoreError> {
        let applied: Option<Applied> = self.steps.read(|view| schema::get(view, key::applied()))?;
        let elapsed_ms = self.began.elapsed().as_millis() as u64;
        let latest_ms = self.report.began_ms.saturating_add(elapsed_ms).saturating_add(AHEAD_MS);
        Ok(applied.map_or(0, |applied| applied.time_ms).min(latest_ms))
    }

    /// While an upload is open in its repository, a blob that no manifest names yet gets another grace, as long as one can
    /// be had: the manifest comes after the last upload.
    fn without_kept(&mut self, items: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let uploading = (self.uploading)();
        let (held, free): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| item.repository.as_ref().is_some_and(|name| uploading.contains(name)));
        let grace_ms = self.grace_ms;
        let renewals = held.iter().filter_map(|item| match (&item.due, &item.repository) {
            (Due::Link { digest, .. }, Some(name)) => {
                Some(Request::Renew { repository: name.clone(), digest: *digest, grace_ms })
            }
            _ => None,
        });
        let renewals: Vec<Request> = renewals.collect();
        for some in renewals.chunks(REQUESTS_AT_ONCE) {
            self.steps.take(some.to_vec())?;
        }
        let mut due = free;
        for item in held {
            let Due::Link { repository, digest } = &item.due else { continue };
            let link = key::link(*repository, digest);
            match self.steps.read(|view| schema::get::<LinkRow>(view, link))? {
                Some(link) if link.due_ms > self.now_ms => self.report.keep(Kept {
                    kind: Kind::Link,
                    digest: Some(*digest),
                    repository: item.repository,
                    bytes: link.size,
                    reason: Reason::OpenUpload,
                    until_ms: link.due_ms,
                }),
                _ => due.push(item),
            }
        }
        Ok(due)
    }

    fn drop_all(&mut self, items: Vec<Item>) -> Result<u64, StoreError> {
        let mut dropped = 0;
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let (mut some, mut rows) = (Vec::new(), 0);
            while some.len() < REQUESTS_AT_ONCE
                && let Some(item) = items.next_if(|item| rows == 0 || rows + item.rows <= ROWS_AT_ONCE)
            {
                rows += item.rows;
                some.push(item);
            }
            let window_ms = self.window_ms;
            let requests = some.iter().map(|item| Request::Drop { due: item.due.clone(), window_ms });
            let decided = self.steps.take(requests.collect())?;
            for (item, decided) in some.into_iter().zip(decided) {
                let (bytes, last) = match decided {
                    Ok(Outcome::Dropped { size, last }) => (size, last),
                    Ok(_) => (0, false),
                    // Used again, named by what is not dropped yet, or not told to all: not due, or for the next pass.
                    Err(_) => continue,
                };
                dropped += item.count;
                let Item { kind, digest, repository, count, .. } = item;
                self.report.add(count, Dropped { kind, digest, repository, bytes, last, tag: None, policy: None });
            }
        }
        Ok(dropped)
    }
}

fn items(view: &dyn View, due: Vec<Due>) -> Result<Vec<Item>, SchemaError> {
    let mut names: BTreeMap<RepositoryId, Option<RepositoryName>> = BTreeMap::new();
    due.into_iter().map(|due| item(view, &mut names, due)).collect()
}

fn item(
    view: &dyn View,
    names: &mut BTreeMap<RepositoryId, Option<RepositoryName>>,
    due: Due,
) -> Result<Item, SchemaError> {
    let mut name = |id: RepositoryId| match names.get(&id) {
        Some(name) => Ok(name.clone()),
        None => {
            let name = schema::get::<RepositoryRow>(view, key::repository(id))?.map(|row| row.name);
            names.insert(id, name.clone());
            Ok::<_, SchemaError>(name)
        }
    };
    let (kind, digest, repository, count, rows) = match &due {
        Due::Link { repository, digest } => (Kind::Link, Some(*digest), name(*repository)?, 1, 10),
        Due::Manifest { repository, digest } => {
            let row: Option<ManifestRow> = schema::get(view, key::manifest(*repository, digest))?;
            let references = row.map_or(0, |row| u64::from(row.references));
            (Kind::Manifest, Some(*digest), name(*repository)?, 1, 10 + references.min(1_000))
        }
        Due::History { repository, entries } => {
            (Kind::History, None, name(*repository)?, entries.len() as u64, entries.len() as u64)
        }
        Due::Repository(repository) => (Kind::Repository, None, name(*repository)?, 1, 10),
        Due::Records(lsns) => (Kind::DropRecord, None, None, lsns.len() as u64, lsns.len() as u64),
    };
    Ok(Item { due, kind, digest, repository, count, rows })
}
