//! What keeps the most by itself: the organisations of the registry, the repositories of an organisation, the manifests of a
//! repository, by the bytes that deleting just that one would free.
//!
//! What one would free is at most what it uses: that is known, or cheap to find. So the exact figures are worked out in the
//! order of what is used, and no more of them once the last of the best is no less than what the next one uses. What does
//! not fit into the bounds is left out, and the answer says that it is not complete.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    ops::ControlFlow,
};

use super::{
    List, Registry, RegistryError,
    images::ImageWalk,
    inventory::{self, ManifestInfo},
    refused, repository_id, row, usage,
    what_if::{Deletion, Scopes, Settled, TrialError},
};
use crate::{
    digest::Digest,
    index::{
        View,
        schema::{
            CountRow, Key, ManifestRow, RepositoryRow, RowValue, SchemaError, Scope, Table, UsageRow, each_row, expect,
            key,
        },
    },
    journal::operation::{OrganisationId, RepositoryId},
    name::RepositoryName,
    store::StoreError,
};

/// Entries of one answer at most.
pub const TOP_MAX: usize = 100;
/// Candidates that are held, those that use the most; some hundred bytes each.
const CANDIDATES_MAX: usize = 10_000;
/// Organisations, repositories or manifests that are looked at for them.
const LOOKED_AT_MAX: usize = 200_000;
/// Digests that are read for what manifests use.
const DIGESTS_MAX: usize = 1_000_000;
/// Rows that are read, or changed on trial, for the exact figures of one answer.
const ROWS_MAX: usize = 1_000_000;
/// Entries of a list that are read at once.
const PAGE: usize = 1_000;

/// How much is done for one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) candidates: usize,
    pub(super) looked_at: usize,
    pub(super) digests: usize,
    pub(super) rows: usize,
}

pub(super) const BOUNDS: Bounds =
    Bounds { candidates: CANDIDATES_MAX, looked_at: LOOKED_AT_MAX, digests: DIGESTS_MAX, rows: ROWS_MAX };

/// Those that keep the most by themselves, the first of them first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top<T> {
    /// As many as were asked for, or all there are.
    pub items: Vec<T>,
    /// Whether no other one can keep more than these. Else there was too much to look at.
    pub complete: bool,
}

/// An organisation or a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopScope {
    /// Its name.
    pub name: String,
    /// Its totals.
    pub totals: UsageRow,
    /// Used bytes that the registry would have less without it; `None` where that takes too long to work out.
    pub freed_bytes: Option<u64>,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopManifest {
    /// The manifest.
    pub info: ManifestInfo,
    /// Used bytes that the registry would have less in the end if it were deleted by its digest; `None` where that takes too
    /// long to work out.
    pub freed_bytes: Option<u64>,
}

impl Registry {
    /// The organisations that keep the most by themselves, at most [`TOP_MAX`].
    ///
    /// # Errors
    /// When the index fails.
    pub fn top_organisations(&self, limit: usize) -> Result<Top<TopScope>, RegistryError> {
        let view = self.store.snapshot();
        top_organisations(&*view, limit, BOUNDS)
    }

    /// The repositories of an organisation that keep the most by themselves, at most [`TOP_MAX`].
    ///
    /// # Errors
    /// [`RegistryError::OrganisationUnknown`].
    pub fn top_repositories(&self, organisation: &str, limit: usize) -> Result<Top<TopScope>, RegistryError> {
        let view = self.store.snapshot();
        top_repositories(&*view, organisation, limit, BOUNDS)
    }

    /// The manifests of a repository, held ones among them, that keep the most by themselves, at most [`TOP_MAX`].
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`].
    pub fn top_manifests(&self, name: &RepositoryName, limit: usize) -> Result<Top<TopManifest>, RegistryError> {
        self.top_manifests_within(name, limit, BOUNDS)
    }

    pub(super) fn top_manifests_within(
        &self,
        name: &RepositoryName,
        limit: usize,
        mut bounds: Bounds,
    ) -> Result<Top<TopManifest>, RegistryError> {
        let view = self.store.snapshot();
        let unknown = || RegistryError::NameUnknown(name.clone());
        let repository = repository_id(&*view, name)?.ok_or_else(unknown)?;
        let RepositoryRow { organisation, .. } = row(&*view, key::repository(repository))?.ok_or_else(unknown)?;
        let refused = |error: TrialError| error.told(|store, reference| refused(store, name, reference));
        let candidates = manifests(&*view, repository, &mut bounds).map_err(StoreError::from)?;
        let ground = Settled::new(&*view, self.window_ms()).map_err(refused);
        let ground = match ground {
            Ok(ground) => Some(ground),
            // Too much is settling: nothing can be tried before that is done.
            Err(RegistryError::TooMuch { .. }) => None,
            Err(error) => return Err(error),
        };
        let best = best(candidates, limit, |digest| {
            let Some(ground) = &ground else { return Ok(None) };
            let deletion = Deletion::Digests(vec![*digest]);
            match ground.gain(name, Scopes { repository, organisation }, &deletion, bounds.rows) {
                Ok((gains, changes)) => {
                    bounds.rows = bounds.rows.saturating_sub(changes);
                    Ok(Some(gains.registry.freed_bytes))
                }
                Err(TrialError::TooMuch) => Ok(None),
                Err(error) => Err(refused(error)),
            }
        })?;
        best.told(|(digest, freed_bytes)| {
            let head: ManifestRow = expect(&*view, key::manifest(repository, &digest)).map_err(StoreError::from)?;
            let info = inventory::info(&*view, repository, digest, head, false, &mut bounds.digests);
            Ok(TopManifest { info: info.map_err(StoreError::from)?, freed_bytes })
        })
    }
}

pub(super) fn top_organisations(
    view: &dyn View,
    limit: usize,
    mut bounds: Bounds,
) -> Result<Top<TopScope>, RegistryError> {
    let mut candidates = Candidates::new(bounds.candidates);
    candidates.add_pages(&mut bounds, |last, limit| {
        let page = usage::organisations(view, last, limit)?;
        let known = page.items.into_iter().map(|found| (found.totals.used_bytes, found.name)).collect();
        Ok(List { items: known, next: page.next })
    })?;
    let best = best(candidates, limit, |name| freed_with_organisation(view, name, &mut bounds))?;
    best.told(|(name, freed_bytes)| {
        let organisation = usage::organisation_id(view, &name)?;
        Ok(TopScope { totals: usage::totals(view, Scope::Organisation(organisation))?, name, freed_bytes })
    })
}

pub(super) fn top_repositories(
    view: &dyn View,
    organisation: &str,
    limit: usize,
    mut bounds: Bounds,
) -> Result<Top<TopScope>, RegistryError> {
    let id: OrganisationId = usage::organisation_id(view, organisation)?;
    let mut candidates = Candidates::new(bounds.candidates);
    candidates.add_pages(&mut bounds, |last, limit| {
        let page = usage::repositories(view, Some(organisation), last, limit)?;
        let known = page.items.into_iter().map(|found| (found.totals.used_bytes, found.name)).collect();
        Ok(List { items: known, next: page.next })
    })?;
    let repository = |name: &RepositoryName| -> Result<RepositoryId, RegistryError> {
        repository_id(view, name)?.ok_or_else(|| RegistryError::NameUnknown(name.clone()))
    };
    let best = best(candidates, limit, |name| freed_with_repository(view, repository(name)?, id, &mut bounds))?;
    best.told(|(name, freed_bytes)| {
        let totals = usage::totals(view, Scope::Repository(repository(&name)?))?;
        Ok(TopScope { totals, name: name.to_string(), freed_bytes })
    })
}

/// The manifests of a repository, with the bytes of all that could leave with each.
fn manifests(
    view: &dyn View,
    repository: RepositoryId,
    bounds: &mut Bounds,
) -> Result<Candidates<Digest>, SchemaError> {
    let mut candidates = Candidates::new(bounds.candidates);
    let prefix = Key::of(Table::Manifests).u32(repository).bytes();
    each_row(view, &prefix, |key, _| {
        let digest = inventory::digest(&prefix, key)?;
        let is_within = bounds.looked_at > 0;
        bounds.looked_at = bounds.looked_at.saturating_sub(1);
        let reach = match is_within {
            true => ImageWalk::reach(view, repository, &digest, &mut bounds.digests)?,
            false => None,
        };
        let Some(bytes) = reach else {
            candidates.leave_out(u64::MAX);
            return Ok(ControlFlow::Break(()));
        };
        candidates.add(bytes, digest);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(candidates)
}

/// Bytes of the blobs that are used in an organisation and in no other; `None` when its repositories have more rows than are
/// left to read. What several of these use is counted once.
fn freed_with_organisation(view: &dyn View, name: &str, bounds: &mut Bounds) -> Result<Option<u64>, RegistryError> {
    let organisation = Scope::Organisation(usage::organisation_id(view, name)?);
    if is_too_much(view, organisation, bounds)? {
        return Ok(None);
    }
    let (mut freed, mut shared): (u64, HashSet<Digest>) = (0, HashSet::new());
    let mut last: Option<String> = None;
    loop {
        let limit = PAGE.min(bounds.rows);
        if limit == 0 {
            return Ok(None);
        }
        let page = usage::repository_ids(view, Some(name), last.as_deref(), limit)?;
        bounds.rows = bounds.rows.saturating_sub(page.items.len().max(1));
        for repository in page.items {
            let is_whole = each_used(view, repository, bounds, |digest, size| {
                let is_freed = is_only(view, Scope::Registry, digest)?
                    && (is_only(view, organisation, digest)? || shared.insert(*digest));
                freed = freed.saturating_add(if is_freed { size } else { 0 });
                Ok(())
            })?;
            if !is_whole {
                return Ok(None);
            }
        }
        match page.next {
            Some(next) => last = Some(next),
            None => return Ok(Some(freed)),
        }
    }
}

/// Bytes of the blobs that are used in a repository and in no other; `None` when it has more rows than are left to read.
fn freed_with_repository(
    view: &dyn View,
    repository: RepositoryId,
    organisation: OrganisationId,
    bounds: &mut Bounds,
) -> Result<Option<u64>, RegistryError> {
    if is_too_much(view, Scope::Repository(repository), bounds)? {
        return Ok(None);
    }
    let mut freed: u64 = 0;
    let is_whole = each_used(view, repository, bounds, |digest, size| {
        let is_freed =
            is_only(view, Scope::Organisation(organisation), digest)? && is_only(view, Scope::Registry, digest)?;
        freed = freed.saturating_add(if is_freed { size } else { 0 });
        Ok(())
    })?;
    Ok(is_whole.then_some(freed))
}

/// A row for each blob, at least: what is too much need not be begun.
fn is_too_much(view: &dyn View, scope: Scope, bounds: &Bounds) -> Result<bool, RegistryError> {
    Ok(usage::totals(view, scope)?.blobs > bounds.rows as u64)
}

/// Whether something that is used in a scope is so in one of its parts only.
fn is_only(view: &dyn View, scope: Scope, digest: &Digest) -> Result<bool, SchemaError> {
    Ok(expect::<CountRow>(view, key::count(scope, digest))?.named == 1)
}

/// Visits the blobs that are used in a repository, with their sizes; whether there were rows left to read for all.
fn each_used(
    view: &dyn View,
    repository: RepositoryId,
    bounds: &mut Bounds,
    mut visit: impl FnMut(&Digest, u64) -> Result<(), SchemaError>,
) -> Result<bool, RegistryError> {
    let counts = key::counts(repository).bytes();
    let mut is_whole = true;
    each_row(view, &counts, |key, value| {
        let (digest, count) = (inventory::digest(&counts, key)?, CountRow::from_bytes(value)?);
        is_whole = bounds.rows > 0;
        bounds.rows = bounds.rows.saturating_sub(1);
        if is_whole && count.named > 0 && count.links > 0 {
            visit(&digest, count.size)?;
        }
        Ok(if is_whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .map_err(StoreError::from)?;
    Ok(is_whole)
}

/// Those of whom the exact figure may be worked out: the largest by what it is at most, of the same the first.
struct Candidates<T> {
    kept: BinaryHeap<Reverse<(u64, Reverse<T>)>>,
    max: usize,
    /// The most that one which is not kept may come to.
    left_out: Option<u64>,
}

impl<T: Ord> Candidates<T> {
    fn new(max: usize) -> Self {
        Self { kept: BinaryHeap::new(), max, left_out: None }
    }

    fn add(&mut self, at_most: u64, what: T) {
        self.kept.push(Reverse((at_most, Reverse(what))));
        if self.kept.len() > self.max
            && let Some(Reverse((least, _))) = self.kept.pop()
        {
            self.leave_out(least);
        }
    }

    fn leave_out(&mut self, at_most: u64) {
        self.left_out = self.left_out.max(Some(at_most));
    }

    /// Adds a list page by page.
    fn add_pages(
        &mut self,
        bounds: &mut Bounds,
        page: impl Fn(Option<&str>, usize) -> Result<List<(u64, T)>, RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut last: Option<String> = None;
        loop {
            let limit = PAGE.min(bounds.looked_at);
            if limit == 0 {
                self.leave_out(u64::MAX);
                return Ok(());
            }
            let List { items, next } = page(last.as_deref(), limit)?;
            // A page of those without an organisation may be empty, and has been looked for none the less.
            bounds.looked_at = bounds.looked_at.saturating_sub(items.len().max(1));
            items.into_iter().for_each(|(at_most, what)| self.add(at_most, what));
            match next {
                Some(next) => last = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// The best, with their figures as far as they are known.
struct Best<T> {
    items: Vec<(T, Option<u64>)>,
    complete: bool,
}

impl<T> Best<T> {
    fn told<U>(self, tell: impl FnMut((T, Option<u64>)) -> Result<U, RegistryError>) -> Result<Top<U>, RegistryError> {
        let items = self.items.into_iter().map(tell).collect::<Result<_, _>>()?;
        Ok(Top { items, complete: self.complete })
    }
}

/// Works exact figures out, from the largest candidate on, until no other one can be among the best.
fn best<T: Ord>(
    candidates: Candidates<T>,
    limit: usize,
    mut exact: impl FnMut(&T) -> Result<Option<u64>, RegistryError>,
) -> Result<Best<T>, RegistryError> {
    let Candidates { kept, mut left_out, .. } = candidates;
    let limit = limit.min(TOP_MAX);
    if limit == 0 {
        return Ok(Best { items: Vec::new(), complete: true });
    }
    // Both from the largest on: those whose figure is known, and those of whom only the most is known.
    let mut known: Vec<(u64, T)> = Vec::new();
    let mut open: Vec<(u64, T)> = Vec::new();
    let last_of = |known: &[(u64, T)]| known.get(limit - 1).map(|(freed, _)| *freed);
    for Reverse((at_most, Reverse(what))) in kept.into_sorted_vec() {
        if last_of(&known).is_some_and(|last| last >= at_most) {
            break;
        }
        match exact(&what)? {
            Some(freed) => {
                let place = known.partition_point(|(more, _)| *more >= freed);
                known.insert(place, (freed, what));
                known.truncate(limit);
            }
            None if open.len() < limit => open.push((at_most, what)),
            None => left_out = left_out.max(Some(at_most)),
        }
    }
    let last = last_of(&known);
    let may_be_more = |at_most: u64| last.is_none_or(|last| at_most > last);
    open.retain(|(at_most, _)| may_be_more(*at_most));
    let complete = open.is_empty() && !left_out.is_some_and(may_be_more);
    let known = known.into_iter().map(|(freed, what)| (freed, what, Some(freed)));
    let mut items: Vec<_> = open.into_iter().map(|(at_most, what)| (at_most, what, None)).chain(known).collect();
    items.sort_by_key(|(most, ..)| Reverse(*most));
    items.truncate(limit);
    Ok(Best { items: items.into_iter().map(|(_, what, freed)| (what, freed)).collect(), complete })
}
