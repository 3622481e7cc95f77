//! The manifests of a repository as an operator sees them: all that are not dropped, held and deleted ones included.
//!
//! A page is one range read and a few rows for each manifest; sizes of images are worked out within a budget for the whole
//! page, so a page of large images is short and not slow.

use super::{List, Registry, RegistryError, images::ImageWalk, pulls::hour, repository_id};
use crate::{
    digest::Digest,
    index::{
        Row, View, prefix_end,
        schema::{self, Key, ManifestRow, ParentsRow, PullRow, RowValue, SchemaError, Table, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    state::life::Life,
    store::StoreError,
};

/// Tags that are told of one manifest.
const TAGS_MAX: usize = 100;
/// Digests that are read for one page.
const PAGE_DIGESTS_MAX: usize = 100_000;
/// Digests that are read for one manifest that is asked for alone: an index of 28,000 images.
const ALONE_DIGESTS_MAX: usize = 500_000;

/// Which manifests are asked for.
#[derive(Debug, Clone, Default)]
pub struct ManifestsWanted {
    /// Only this one.
    pub digest: Option<Digest>,
    /// Whether [`ManifestInfo::own_bytes`] is wanted, too.
    pub own: bool,
    /// Only those behind this one.
    pub after: Option<Digest>,
    /// Most of them.
    pub limit: usize,
}

/// What a manifest is to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestState {
    /// Something reaches it.
    Live,
    /// Nothing reaches it; it answers by digest until its window ends.
    Held,
    /// It was deleted by digest, and can be restored until its window ends.
    Deleted,
}

impl ManifestState {
    /// As it is called in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Held => "held",
            Self::Deleted => "deleted",
        }
    }

    /// What a manifest's rows say.
    pub(super) fn of(view: &dyn View, repository: RepositoryId, digest: &Digest, row: &ManifestRow) -> Read<Self> {
        let parents: Option<ParentsRow> = schema::get(view, key::parents(repository, digest))?;
        Ok(match Life::of(row, &parents.unwrap_or_default()).is_live() {
            _ if row.deleted => Self::Deleted,
            true => Self::Live,
            false => Self::Held,
        })
    }
}

type Read<T> = Result<T, SchemaError>;

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its head.
    pub row: ManifestRow,
    /// What it is to clients.
    pub state: ManifestState,
    /// Until when it can be restored, in Unix milliseconds; `None` while it lives.
    pub held_until_ms: Option<u64>,
    /// Bytes of the blobs that it and the manifests below it name, each once; `None` when that took too long.
    pub image_bytes: Option<u64>,
    /// Of these bytes, those that only held manifests of the repository keep; `None` as above.
    pub reclaimable_bytes: Option<u64>,
    /// Of these bytes, those that nothing in the registry keeps but it; `None` when not asked for, or as above.
    pub own_bytes: Option<u64>,
    /// Its first tags, in byte order; how many there are says its head.
    pub tags: Vec<String>,
    /// The beginning of the hour in which it was pulled last, in Unix milliseconds; `None` for one that never was.
    pub pulled_ms: Option<u64>,
}

impl Registry {
    /// A page of a repository's manifests, in the order of their digests.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`]; [`RegistryError::ManifestUnknown`] when one is asked for that is not there.
    pub fn manifests(
        &self,
        repository: &RepositoryName,
        wanted: &ManifestsWanted,
    ) -> Result<List<ManifestInfo, Digest>, RegistryError> {
        let view = self.store.snapshot();
        let id = repository_id(&*view, repository)?.ok_or_else(|| RegistryError::NameUnknown(repository.clone()))?;
        if let Some(digest) = &wanted.digest {
            let row = super::row::<ManifestRow>(&*view, key::manifest(id, digest))?;
            let unknown =
                || RegistryError::ManifestUnknown { repository: repository.clone(), reference: digest.to_string() };
            let mut budget = ALONE_DIGESTS_MAX;
            let info = info(&*view, id, *digest, row.ok_or_else(unknown)?, wanted.own, &mut budget);
            let items = vec![self.pulled(id, info.map_err(StoreError::from)?)];
            return Ok(List { items, next: None });
        }
        let List { items, next } = page(&*view, id, wanted).map_err(StoreError::from)?;
        Ok(List { items: items.into_iter().map(|info| self.pulled(id, info)).collect(), next })
    }

    /// With the pulls that are not written yet. What was noted before it was dropped and pushed again is not its.
    fn pulled(&self, repository: RepositoryId, info: ManifestInfo) -> ManifestInfo {
        let noted_ms = self.pulls.noted_ms(repository, &info.digest);
        let noted_ms = noted_ms.filter(|noted_ms| *noted_ms >= hour(info.row.pushed_ms));
        ManifestInfo { pulled_ms: info.pulled_ms.max(noted_ms), ..info }
    }
}

fn page(view: &dyn View, repository: RepositoryId, wanted: &ManifestsWanted) -> Read<List<ManifestInfo, Digest>> {
    let prefix = Key::of(Table::Manifests).u32(repository).bytes();
    let from = match &wanted.after {
        Some(after) => [key::manifest(repository, after).bytes().as_slice(), &[0]].concat(),
        None => prefix.clone(),
    };
    let rows = view.scan(&from, &prefix_end(&prefix), wanted.limit.saturating_add(1))?;
    let mut list = List { items: Vec::<ManifestInfo>::new(), next: None };
    let mut budget = PAGE_DIGESTS_MAX;
    for (key, value) in &rows {
        let (digest, row) = (digest(&prefix, key)?, ManifestRow::from_bytes(value)?);
        let info = match list.items.len() < wanted.limit {
            true => info(view, repository, digest, row, wanted.own, &mut budget)?,
            false => return Ok(List { next: list.items.last().map(|last| last.digest), ..list }),
        };
        // What is left of the budget may be too little for this one, and the whole of it enough.
        if info.image_bytes.is_none() && !list.items.is_empty() {
            return Ok(List { next: list.items.last().map(|last| last.digest), ..list });
        }
        list.items.push(info);
    }
    Ok(list)
}

/// The digest that a key ends with.
pub(super) fn digest(prefix: &[u8], key: &[u8]) -> Read<Digest> {
    match Digest::decode(key.get(prefix.len()..).unwrap_or_default()) {
        Some((digest, [])) => Ok(digest),
        _ => Err(SchemaError::Missing { table: "manifests" }),
    }
}

/// What is told of a manifest.
pub(super) fn info(
    view: &dyn View,
    repository: RepositoryId,
    digest: Digest,
    row: ManifestRow,
    own: bool,
    budget: &mut usize,
) -> Read<ManifestInfo> {
    let state = ManifestState::of(view, repository, &digest, &row)?;
    let bytes = ImageWalk::measure(view, repository, &row, own, budget)?;
    let tags = key::manifest_tags(repository, row.manifest).bytes();
    let tag = |(key, _): &Row| String::from_utf8_lossy(key.get(tags.len()..).unwrap_or_default()).into_owned();
    Ok(ManifestInfo {
        digest,
        state,
        held_until_ms: held_until_ms(state, &row),
        image_bytes: bytes.map(|bytes| bytes.all),
        reclaimable_bytes: bytes.map(|bytes| bytes.held),
        own_bytes: bytes.map(|bytes| bytes.own).filter(|_| own),
        tags: view.scan(&tags, &prefix_end(&tags), TAGS_MAX)?.iter().map(tag).collect(),
        pulled_ms: schema::get::<PullRow>(view, key::pull(repository, &digest))?.map(|row| hour(row.pulled_ms)),
        row,
    })
}

/// Until when a manifest can be restored. The window of one that was purged ended no earlier than it began.
pub(super) fn held_until_ms(state: ManifestState, row: &ManifestRow) -> Option<u64> {
    (state != ManifestState::Live).then_some(row.held_until_ms.max(row.left_ms))
}
