//! The time machine: what tags pointed to, and bringing back what can be.
//!
//! An entry is kept for a window after it passed. A manifest can be brought back until it is dropped, whether an entry
//! still tells of it or not.

use super::{List, Registry, RegistryError, inventory::ManifestState, refused, repository_id, row};
use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{self, HistoryRow, Key, ManifestRow, RowValue, SchemaError, Table, key},
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    state::request::Request,
    store::StoreError,
};

/// The place of an entry in the history of a repository: its tag, and the operation that wrote it.
pub type HistoryPlace = (Tag, u64);

/// What a tag became at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The tag.
    pub tag: Tag,
    /// What it pointed to from then on; `None` when it was removed.
    pub digest: Option<Digest>,
    /// When, in Unix milliseconds.
    pub time_ms: u64,
    /// Until when the entry is kept, in Unix milliseconds; `None` while it is what the tag is.
    pub until_ms: Option<u64>,
    /// What that manifest is now; `None` when it was dropped, or the tag removed.
    pub state: Option<ManifestState>,
}

impl Registry {
    /// A page of the history of one tag, or of all tags of a repository: by tag in byte order, then oldest first.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`]; [`RegistryError::ManifestUnknown`] for a tag that has no history.
    pub fn history(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        after: Option<&HistoryPlace>,
        limit: usize,
    ) -> Result<List<HistoryEntry, HistoryPlace>, RegistryError> {
        let view = self.store.snapshot();
        let id = repository_id(&*view, repository)?.ok_or_else(|| RegistryError::NameUnknown(repository.clone()))?;
        let list = page(&*view, id, tag, after, limit).map_err(StoreError::from)?;
        match tag {
            Some(tag) if list.items.is_empty() && after.is_none() => {
                Err(RegistryError::ManifestUnknown { repository: repository.clone(), reference: tag.to_string() })
            }
            _ => Ok(list),
        }
    }

    /// Makes a manifest present again that was deleted or lost what reached it, and points `tag` at it; without a tag it
    /// lives by itself where nothing reaches it. Durable on return. What it is from then on.
    ///
    /// # Errors
    /// [`RegistryError::Dropped`] when it is too late; [`RegistryError::ManifestUnknown`].
    pub fn restore(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<ManifestState, RegistryError> {
        let request = Request::Restore {
            repository: repository.clone(),
            digest: *digest,
            tag: tag.cloned(),
            window_ms: self.window_ms(),
        };
        self.store.commit(request).map_err(|error| refused(error, repository, &digest.to_string()))?;
        let view = self.store.snapshot();
        let unknown =
            || RegistryError::ManifestUnknown { repository: repository.clone(), reference: digest.to_string() };
        let id = repository_id(&*view, repository)?.ok_or_else(unknown)?;
        let row: ManifestRow = row(&*view, key::manifest(id, digest))?.ok_or_else(unknown)?;
        Ok(ManifestState::of(&*view, id, digest, &row).map_err(StoreError::from)?)
    }
}

fn page(
    view: &dyn View,
    repository: RepositoryId,
    tag: Option<&Tag>,
    after: Option<&HistoryPlace>,
    limit: usize,
) -> Result<List<HistoryEntry, HistoryPlace>, SchemaError> {
    let all = Key::of(Table::History).u32(repository).bytes();
    let prefix = match tag {
        Some(tag) => [all.as_slice(), tag.as_str().as_bytes(), &[0]].concat(),
        None => all.clone(),
    };
    let from = after.map(|(tag, lsn)| [key::history(repository, tag, *lsn).bytes().as_slice(), &[0]].concat());
    let from = from.map_or_else(|| prefix.clone(), |from| from.max(prefix.clone()));
    let mut list = List { items: Vec::new(), next: None };
    let mut last = None;
    for (key, value) in view.scan(&from, &prefix_end(&prefix), limit.saturating_add(1))? {
        if list.items.len() == limit {
            list.next = last;
            break;
        }
        let place = key::read_history(&mut Decoder::new(&key[all.len()..]))
            .map_err(|source| SchemaError::Row { table: Table::History.name(), source })?;
        list.items.push(entry(view, repository, place.0.clone(), HistoryRow::from_bytes(&value)?)?);
        last = Some(place);
    }
    Ok(list)
}

fn entry(view: &dyn View, repository: RepositoryId, tag: Tag, row: HistoryRow) -> Result<HistoryEntry, SchemaError> {
    let HistoryRow { digest, time_ms, until_ms } = row;
    let mut state = None;
    if let Some(digest) = &digest
        && let Some(row) = schema::get::<ManifestRow>(view, key::manifest(repository, digest))?
    {
        state = Some(ManifestState::of(view, repository, digest, &row)?);
    }
    Ok(HistoryEntry { tag, digest, time_ms, until_ms: (until_ms > 0).then_some(until_ms), state })
}
