//! What ends, and what is given back before it does: drops, windows, restoring, renewing, pulls.
//!
//! Whoever asks for a drop has read that it is due; here it is read again, in the step whose records are journaled next.
//! What was pushed, named or linked anew in between stays.

use crate::{
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{
            self, DropRow, HistoryRow, LinkRow, ManifestIdRow, ManifestRow, ParentsRow, PullRow, SchemaError, Scope,
            SettlingRow, UsageRow, key,
        },
    },
    journal::operation::{DropKind, LocalRecord, ManifestId, Operation, RepositoryId},
    name::{RepositoryName, Tag},
    state::{
        counts, govern,
        life::Life,
        request::{Due, GRACES_MAX, Outcome, Refusal},
        settle::{self, later_roots},
    },
};

use super::{Batch, namers};

impl Batch<'_> {
    pub(super) fn drop_due(&mut self, due: &Due, window_ms: u64) -> Result<Outcome, Refusal> {
        let operation = match due {
            Due::Link { repository, digest } => self.drop_link(*repository, digest)?,
            Due::Manifest { repository, digest } => {
                let window_ms = govern::window_ms(&self.overlay, *repository)?.unwrap_or(window_ms);
                self.drop_manifest(*repository, digest, self.time_ms().saturating_add(window_ms))?
            }
            Due::History { repository, entries } => self.drop_history(*repository, entries)?,
            Due::Repository(repository) => self.drop_repository(*repository)?,
            Due::Records(lsns) => Some(Operation::ForgetDrops { lsns: lsns.clone() }),
        };
        let leaves_record = matches!(due, Due::Link { .. } | Due::Manifest { .. });
        self.logical(operation.ok_or(Refusal::NotDue)?)?;
        if leaves_record { self.dropped() } else { Ok(Outcome::Done) }
    }

    /// What the last operation has dropped.
    pub(super) fn dropped(&self) -> Result<Outcome, Refusal> {
        let DropRow { size, last, .. } = schema::expect(&self.overlay, key::drop_record(self.applied.lsn))?;
        Ok(Outcome::Dropped { size, last })
    }

    fn drop_link(&self, repository: RepositoryId, digest: &Digest) -> Result<Option<Operation>, SchemaError> {
        let link: Option<LinkRow> = schema::get(&self.overlay, key::link(repository, digest))?;
        let is_due = link.is_some_and(|link| link.due_ms <= self.time_ms())
            && counts::repository_count(&self.overlay, repository, digest)?.named == 0;
        Ok(is_due.then_some(Operation::DropLink { repository, digest: *digest }))
    }

    /// A manifest goes when it does not live and its window is over, nothing names it as child, and all that it names
    /// knows that it does not live; nor while it may yet become a root. What lived for its sake only can be restored until
    /// then.
    pub(super) fn drop_manifest(
        &self,
        repository: RepositoryId,
        digest: &Digest,
        held_until_ms: u64,
    ) -> Result<Option<Operation>, SchemaError> {
        let row: Option<ManifestRow> = schema::get(&self.overlay, key::manifest(repository, digest))?;
        let Some(row) = row.filter(|row| row.held_until_ms <= self.time_ms()) else { return Ok(None) };
        let parents = schema::get::<ParentsRow>(&self.overlay, key::parents(repository, digest))?.unwrap_or_default();
        let settling: Option<SettlingRow> = schema::get(&self.overlay, key::settling(row.manifest))?;
        let lives = Life::of(&row, &parents).is_live() || Life::told(&row).is_live();
        let is_later_root = self.applied.settling > 0 && later_roots::is_noted(&self.overlay, repository, digest)?;
        let is_due = !lives && parents.all == 0 && settling.is_none() && !is_later_root;
        let manifest = row.manifest;
        Ok(is_due.then_some(Operation::DropManifest { repository, manifest, digest: *digest, held_until_ms }))
    }

    fn drop_history(
        &self,
        repository: RepositoryId,
        entries: &[(Tag, u64, u64)],
    ) -> Result<Option<Operation>, SchemaError> {
        let mut due = Vec::new();
        for (tag, lsn, due_ms) in entries {
            let row: Option<HistoryRow> = schema::get(&self.overlay, key::history(repository, tag, *lsn))?;
            if row.is_some_and(|row| row.until_ms == *due_ms && row.until_ms <= self.time_ms()) {
                due.push((tag.clone(), *lsn, *due_ms));
            }
        }
        Ok((!due.is_empty()).then_some(Operation::DropHistory { repository, entries: due }))
    }

    fn drop_repository(&self, repository: RepositoryId) -> Result<Option<Operation>, SchemaError> {
        let known = self.overlay.get(&key::empty_repository(repository).bytes())?.is_some();
        let usage: Option<UsageRow> = schema::get(&self.overlay, key::usage(Scope::Repository(repository)))?;
        let is_due = known && usage.is_none_or(|usage| usage.is_empty()) && self.is_reviewed(repository)?;
        Ok(is_due.then_some(Operation::DropRepository { repository }))
    }

    /// One step of what is settling, if anything is: from a manifest on. And one of a review under way.
    pub(super) fn settle(&mut self, window_ms: u64, from: ManifestId) -> Result<Outcome, Refusal> {
        let mut next = from;
        if self.applied.settling > 0 {
            let held_until_ms = self.time_ms().saturating_add(window_ms);
            next = settle::first_noted(&self.overlay, from)?.map_or(0, |first| first.saturating_add(1));
            self.logical(Operation::Settle { held_until_ms, from })?;
        }
        self.review()?;
        Ok(if self.applied.is_settling() { Outcome::Settling { next } } else { Outcome::Done })
    }

    pub(super) fn end_windows(&mut self, repository: RepositoryId, digests: &[Digest]) -> Result<Outcome, Refusal> {
        let mut held = Vec::new();
        for digest in digests {
            let row: Option<ManifestRow> = schema::get(&self.overlay, key::manifest(repository, digest))?;
            if row.is_some_and(|row| row.held_until_ms > 0) {
                held.push(*digest);
            }
        }
        if !held.is_empty() {
            self.logical(Operation::EndWindows { repository, digests: held })?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn restore(
        &mut self,
        name: &RepositoryName,
        digest: &Digest,
        tag: Option<&Tag>,
        window_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let repository = self.repository(name)?;
        let row: Option<ManifestRow> = schema::get(&self.overlay, key::manifest(repository, digest))?;
        let Some(row) = row else { return Err(self.why_missing(name, digest)?) };
        self.check_immutable(repository, tag.map_or(&[], std::slice::from_ref), digest)?;
        let held_until_ms = self.time_ms().saturating_add(window_ms);
        let may_be_root = tag.is_none() && row.tags == 0;
        let (manifest, digest, tag) = (row.manifest, *digest, tag.cloned());
        let restore = Operation::Restore { repository, manifest, digest, tag, held_until_ms };
        self.ask_for(repository, digest, may_be_root, restore)?;
        Ok(Outcome::Done)
    }

    /// Whether a manifest that is not there was dropped, or never known.
    fn why_missing(&self, name: &RepositoryName, digest: &Digest) -> Result<Refusal, SchemaError> {
        const DROPS_READ: usize = 1_000;
        let prefix = key::dropped_of(digest).bytes();
        let mut dropped = None;
        for (key, _) in self.overlay.scan(&prefix, &prefix_end(&prefix), DROPS_READ)? {
            let lsn = key[prefix.len()..].try_into().map_err(|_| SchemaError::Missing { table: "dropped" })?;
            let row: DropRow = schema::expect(&self.overlay, key::drop_record(u64::from_be_bytes(lsn)))?;
            if row.repository == *name && row.what == DropKind::Manifest {
                dropped = Some(Refusal::Dropped { digest: *digest, time_ms: row.time_ms });
            }
        }
        Ok(dropped.unwrap_or(Refusal::ManifestUnknown(*digest)))
    }

    /// Notes when manifests were pulled.
    pub(super) fn pulled(
        &mut self,
        repository: RepositoryId,
        pulled_ms: u64,
        digests: &[Digest],
    ) -> Result<Outcome, Refusal> {
        let mut pulled = Vec::new();
        for digest in digests {
            let known: Option<PullRow> = schema::get(&self.overlay, key::pull(repository, digest))?;
            let is_news = known.is_none_or(|known| known.pulled_ms < pulled_ms);
            if is_news && schema::get::<ManifestRow>(&self.overlay, key::manifest(repository, digest))?.is_some() {
                pulled.push(*digest);
            }
        }
        if !pulled.is_empty() {
            self.local(LocalRecord::Pulled { repository, pulled_ms, digests: pulled })?;
        }
        Ok(Outcome::Done)
    }

    /// Prolongs the grace of a blob that no manifest names when less than half of it is left, up to so many graces after
    /// its last upload. One that a purge is about to take is linked anew.
    pub(super) fn renew(&mut self, name: &RepositoryName, digest: &Digest, grace_ms: u64) -> Result<Outcome, Refusal> {
        let repository = self.repository(name)?;
        let link: Option<LinkRow> = schema::get(&self.overlay, key::link(repository, digest))?;
        let link = link.ok_or(Refusal::BlobUnknown(*digest))?;
        if is_given_up(&self.overlay, repository, digest, &link)? {
            let due_ms = self.time_ms().saturating_add(grace_ms);
            let mounted_from = link.mounted_from.checked_sub(1).map(|id| id as RepositoryId);
            self.logical(Operation::Link { repository, digest: *digest, size: link.size, mounted_from, due_ms })?;
        } else if let Some(due_ms) = renewed(&link, self.time_ms(), grace_ms) {
            self.local(LocalRecord::Renewed { repository, digest: *digest, due_ms })?;
        }
        Ok(Outcome::Done)
    }
}

/// Until when a link's grace is to be prolonged when a client is told that the blob is there, if it is worth it: when less
/// than half of it is left, and at most so many graces after the last upload.
pub fn renewed(link: &LinkRow, now_ms: u64, grace_ms: u64) -> Option<u64> {
    let due_ms =
        now_ms.saturating_add(grace_ms).min(link.linked_ms.saturating_add(grace_ms.saturating_mul(GRACES_MAX)));
    let is_late = link.due_ms < now_ms.saturating_add(grace_ms / 2);
    (is_late && due_ms > link.due_ms).then_some(due_ms)
}

/// Whether a manifest whose window was ended names a blob that was linked before its last push: when it is dropped it takes
/// the link with it, whatever is left of the grace. Of very many that name the blob only the first are looked at; then it is
/// taken to be so.
pub fn is_given_up(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
    link: &LinkRow,
) -> Result<bool, SchemaError> {
    let (namers, are_all) = namers(view, repository, digest)?;
    for (id, _) in namers {
        let ManifestIdRow { digest: namer, .. } = schema::expect(view, key::manifest_id(id))?;
        let row: Option<ManifestRow> = schema::get(view, key::manifest(repository, &namer))?;
        let purged_ms = match row.filter(|row| row.manifest == id) {
            Some(row) => {
                let parents = schema::get::<ParentsRow>(view, key::parents(repository, &namer))?.unwrap_or_default();
                let is_purged = row.held_until_ms == 0 && !Life::of(&row, &parents).is_live();
                is_purged.then_some(row.pushed_ms)
            }
            // It was dropped, and takes its names back.
            None => schema::get::<SettlingRow>(view, key::settling(id))?.map(|row| row.purged_ms),
        };
        if purged_ms.is_some_and(|purged_ms| link.linked_ms <= purged_ms) {
            return Ok(true);
        }
    }
    Ok(!are_all)
}
