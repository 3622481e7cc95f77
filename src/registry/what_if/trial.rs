//! A deletion that is decided and applied for trial, over a state that nobody else sees.
//!
//! First what is settling already is brought to its end, so that it does not count as a gain. Then the deletion, and all
//! that follows from it; then the windows of what left are ended and it is dropped, from those that name to those that
//! are named.

use super::{Deletion, Gain, STAYS_MAX, Scopes, Stay, WhatIf};
use crate::{
    digest::Digest,
    index::{
        Overlay, View,
        schema::{self, Applied, Key, ManifestRow, ParentsRow, SchemaError, Table, TagRow, UsageRow, key},
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    registry::{
        RegistryError,
        inventory::{self, ManifestState},
    },
    state::{
        decide::Batch,
        request::{DROPS_PER_STEP, Due, Outcome, Refusal, Request},
    },
    store::StoreError,
};

/// Rows that a trial may change; they lie in memory while it runs, some 250 bytes each.
pub(super) const CHANGES_MAX: usize = 500_000;

/// Steps of settling that a trial may take, of a thousand digests each.
const SETTLES_MAX: usize = 5_000;

/// Why a trial did not come to its end.
pub(in crate::registry) enum TrialError {
    /// What was to be deleted, and why it cannot be.
    Refused(StoreError, String),
    /// It would change too many rows.
    TooMuch,
}

impl TrialError {
    /// As an error of the registry; `refused` has its words.
    pub(in crate::registry) fn told(self, refused: impl FnOnce(StoreError, &str) -> RegistryError) -> RegistryError {
        match self {
            Self::Refused(error, reference) => refused(error, &reference),
            Self::TooMuch => RegistryError::TooMuch { what: "trying this deletion", max: CHANGES_MAX },
        }
    }
}

impl From<SchemaError> for TrialError {
    fn from(error: SchemaError) -> Self {
        Self::Refused(error.into(), String::new())
    }
}

impl From<StoreError> for TrialError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error, String::new())
    }
}

/// A state in which nothing settles any more: deletions can be tried over it, each by itself.
pub(in crate::registry) struct Settled<'a> {
    pub(super) state: Overlay<'a>,
    applied: Applied,
    window_ms: u64,
}

impl<'a> Settled<'a> {
    /// Brings what is settling to its end, on trial.
    pub(in crate::registry) fn new(view: &'a dyn View, window_ms: u64) -> Result<Self, TrialError> {
        let applied: Applied = schema::expect(view, key::applied())?;
        let mut earlier = Trial::new(view, applied, window_ms, CHANGES_MAX, 0);
        earlier.settle()?;
        Ok(Self { state: earlier.batch.overlay, applied: earlier.batch.applied, window_ms })
    }

    /// Something that is tried over it at a time, in Unix milliseconds, or at that of the last operation if that is later.
    pub(super) fn trial(&self, changes_max: usize, now_ms: u64) -> Trial<'_> {
        Trial::new(&self.state, self.applied.clone(), self.window_ms, changes_max, now_ms)
    }

    /// What a deletion would give, and how many rows it changed on trial: `changes_max` at most.
    pub(in crate::registry) fn gain(
        &self,
        name: &RepositoryName,
        scopes: Scopes,
        deletion: &Deletion,
        changes_max: usize,
    ) -> Result<(WhatIf, usize), TrialError> {
        let before = scopes.usage(&self.state)?;
        // Nothing asked here depends on how late it is since the last operation.
        let mut trial = self.trial(changes_max.min(CHANGES_MAX), 0);
        let mut targets = trial.delete(name, scopes.repository, deletion)?;
        let deleted = scopes.usage(&trial.batch.overlay)?;
        let mut stays = trial.stays(scopes.repository, &targets)?;
        let leaving = left(&self.state, &trial, scopes.repository)?;
        let leave = leaving.len() as u64;
        targets.retain(|(tag, _)| tag.is_none());
        let mut doomed: Vec<Digest> = leaving.into_iter().chain(targets.iter().map(|(_, digest)| *digest)).collect();
        doomed.sort();
        doomed.dedup();
        let wanted = doomed.len();
        let kept = trial.drop_all(scopes.repository, doomed)?;
        let ended = scopes.usage(&trial.batch.overlay)?;
        stays.extend(targets.iter().filter(|(_, digest)| kept.contains(digest)).map(|(_, digest)| Stay {
            digest: *digest,
            tag: None,
            kept_by: "index",
        }));
        stays.truncate(STAYS_MAX);
        let [repository, organisation, registry] = gains(&before, &deleted, &ended);
        let gains = WhatIf { leave, dropped: (wanted - kept.len()) as u64, repository, organisation, registry, stays };
        Ok((gains, trial.batch.overlay.changes().len()))
    }
}

fn gains(before: &[UsageRow; 3], deleted: &[UsageRow; 3], ended: &[UsageRow; 3]) -> [Gain; 3] {
    [0, 1, 2].map(|at| gain(&before[at], &deleted[at], &ended[at]))
}

/// What a scope gains from before to when things were deleted, and to when these are gone.
pub(super) fn gain(before: &UsageRow, deleted: &UsageRow, ended: &UsageRow) -> Gain {
    Gain {
        reclaimable_bytes: deleted.reclaimable_bytes.saturating_sub(before.reclaimable_bytes),
        freed_bytes: before.used_bytes.saturating_sub(ended.used_bytes),
        manifest_bytes: before.manifest_bytes.saturating_sub(ended.manifest_bytes),
    }
}

/// Manifests that lived before the trial and do not any more.
pub(super) fn left(base: &dyn View, trial: &Trial<'_>, repository: RepositoryId) -> Result<Vec<Digest>, SchemaError> {
    let prefix = Key::of(Table::Manifests).u32(repository).bytes();
    let changed = trial.batch.overlay.changes().range(prefix.clone()..);
    let mut left = Vec::new();
    for (key, _) in changed.take_while(|(key, _)| key.starts_with(&prefix)) {
        let digest = inventory::digest(&prefix, key)?;
        let lived = |view: &dyn View| match schema::get::<ManifestRow>(view, key::manifest(repository, &digest))? {
            Some(row) => Ok(ManifestState::of(view, repository, &digest, &row)? == ManifestState::Live),
            None => Ok::<_, SchemaError>(false),
        };
        if lived(base)? && !lived(&trial.batch.overlay)? {
            left.push(digest);
        }
    }
    Ok(left)
}

/// What is to be deleted: a tag and what it points to, or a manifest by digest.
type Target = (Option<Tag>, Digest);

pub(super) struct Trial<'a> {
    pub(super) batch: Batch<'a>,
    window_ms: u64,
    changes_max: usize,
    settles: usize,
    /// Whether nothing is settling in the state below.
    is_on_settled: bool,
}

impl<'a> Trial<'a> {
    fn new(view: &'a dyn View, applied: Applied, window_ms: u64, changes_max: usize, now_ms: u64) -> Self {
        let (is_on_settled, batch) = (!applied.is_settling(), Batch::new(view, applied, now_ms));
        Self { batch, window_ms, changes_max, settles: 0, is_on_settled }
    }

    pub(super) fn decide(
        &mut self,
        request: &Request,
        reference: impl FnOnce() -> String,
    ) -> Result<Outcome, TrialError> {
        let outcome = self.batch.decide(request);
        // They are what a journal would hold; nothing here reads them.
        self.batch.records.clear();
        if self.batch.overlay.changes().len() > self.changes_max {
            return Err(TrialError::TooMuch);
        }
        outcome.map_err(|refusal| match refusal {
            Refusal::Schema(error) => error.into(),
            refusal => TrialError::Refused(refusal.into(), reference()),
        })
    }

    pub(super) fn settle(&mut self) -> Result<(), TrialError> {
        let request = Request::Settle { window_ms: self.window_ms, from: 0 };
        while self.decide(&request, String::new)? != Outcome::Done {
            self.settles += 1;
            if self.settles > SETTLES_MAX {
                return Err(TrialError::TooMuch);
            }
            // Settling looks for the first such row, again and again.
            if self.is_on_settled {
                self.batch.overlay.forget_removed(&[Table::Settling as u8]);
            }
        }
        Ok(())
    }

    /// Deletes the targets, and lets everything that follows from it happen.
    fn delete(
        &mut self,
        name: &RepositoryName,
        repository: RepositoryId,
        deletion: &Deletion,
    ) -> Result<Vec<Target>, TrialError> {
        let mut targets: Vec<Target> = Vec::new();
        match deletion {
            Deletion::All => {}
            Deletion::Tags(tags) => {
                for tag in tags {
                    let row: Option<TagRow> = schema::get(&self.batch.overlay, key::tag(repository, tag))?;
                    if row.is_none() && targets.iter().any(|(known, _)| known.as_ref() == Some(tag)) {
                        continue;
                    }
                    let (repository, window_ms) = (name.clone(), self.window_ms);
                    let request = Request::Untag { repository, tag: tag.clone(), window_ms };
                    self.decide(&request, || tag.to_string())?;
                    targets.extend(row.map(|row| (Some(tag.clone()), row.digest)));
                }
            }
            Deletion::Digests(digests) => {
                for digest in digests {
                    self.delete_manifest(name, repository, digest)?;
                    targets.push((None, *digest));
                }
            }
        }
        self.settle()?;
        Ok(targets)
    }

    fn delete_manifest(
        &mut self,
        name: &RepositoryName,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<(), TrialError> {
        let row: Option<ManifestRow> = schema::get(&self.batch.overlay, key::manifest(repository, digest))?;
        if row.is_some_and(|row| row.deleted) {
            return Ok(());
        }
        let (mut after, window_ms) = (None, self.window_ms);
        loop {
            let request = Request::Delete { repository: name.clone(), digest: *digest, after, window_ms };
            match self.decide(&request, || digest.to_string())? {
                Outcome::More { after: last } => after = last,
                _ => return Ok(()),
            }
        }
    }

    /// Manifests that live on without the tag that was deleted.
    fn stays(&self, repository: RepositoryId, targets: &[Target]) -> Result<Vec<Stay>, SchemaError> {
        let view = &self.batch.overlay;
        let mut stays = Vec::new();
        for (tag, digest) in targets.iter().filter(|(tag, _)| tag.is_some()) {
            let row: ManifestRow = schema::expect(view, key::manifest(repository, digest))?;
            let parents: ParentsRow = schema::get(view, key::parents(repository, digest))?.unwrap_or_default();
            let reasons = [
                (row.tags > 0, "tag"),
                (row.root, "root"),
                (parents.strong > 0 || parents.carried > 0, "index"),
                (row.attached, "subject"),
            ];
            if let Some((_, kept_by)) = reasons.into_iter().find(|(is, _)| *is && !row.deleted) {
                stays.push(Stay { digest: *digest, tag: tag.clone(), kept_by });
            }
        }
        Ok(stays)
    }

    /// Ends the windows of these manifests and drops those that nothing else keeps; the rest.
    pub(super) fn drop_all(
        &mut self,
        repository: RepositoryId,
        doomed: Vec<Digest>,
    ) -> Result<Vec<Digest>, TrialError> {
        for digests in doomed.chunks(DROPS_PER_STEP) {
            self.decide(&Request::EndWindows { repository, digests: digests.to_vec() }, String::new)?;
        }
        let mut waiting = self.latest_first(repository, doomed)?;
        loop {
            let before = waiting.len();
            let mut kept = Vec::new();
            for digest in waiting {
                let (due, window_ms) = (Due::Manifest { repository, digest }, self.window_ms);
                match self.decide(&Request::Drop { due, window_ms }, String::new) {
                    Ok(_) => self.settle()?,
                    Err(TrialError::Refused(StoreError::Refused(Refusal::NotDue), _)) => kept.push(digest),
                    Err(error) => return Err(error),
                }
            }
            if kept.len() == before || kept.is_empty() {
                return Ok(kept);
            }
            waiting = kept;
        }
    }

    /// What names comes after what it names, mostly; so one round drops nearly all.
    fn latest_first(&self, repository: RepositoryId, digests: Vec<Digest>) -> Result<Vec<Digest>, SchemaError> {
        let mut numbered = Vec::new();
        for digest in digests {
            let row: ManifestRow = schema::expect(&self.batch.overlay, key::manifest(repository, &digest))?;
            numbered.push((std::cmp::Reverse(row.manifest), digest));
        }
        numbered.sort();
        Ok(numbered.into_iter().map(|(_, digest)| digest).collect())
    }
}
