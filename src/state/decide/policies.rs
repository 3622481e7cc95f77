//! Policies: setting them, what they let come, and what goes by them.
//!
//! What goes was found due, or over a cap, by somebody who read that; here it is looked at again, by the policy that is in
//! force in its repository and only if that is what the policy says now.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    index::schema::{self, ManifestRow, ParentsRow, PolicyRow, SchemaError, TagRow, UseRow, key},
    journal::operation::{NamedReference, Operation, RepositoryId},
    name::Tag,
    policy::{POLICIES_MAX, Policy, PolicyName},
    state::{
        govern::{
            self,
            retain::{self, Verdict},
        },
        life::Life,
        request::{CapExceeded, DROPS_PER_STEP, ImmutableTag, Outcome, PushRequest, Refusal},
    },
};

use super::Batch;

impl Batch<'_> {
    pub(super) fn set_policy(
        &mut self,
        policy: &Policy,
        from_settings: bool,
        confirmed: bool,
    ) -> Result<Outcome, Refusal> {
        let all = govern::policies(&self.overlay)?;
        let known = all.iter().find(|row| row.policy.name == policy.name);
        if known.is_some_and(|row| row.from_settings && !from_settings) {
            return Err(Refusal::PolicyOfSettings(policy.name.clone()));
        }
        let taken = all.iter().find(|row| row.policy.pattern == policy.pattern && row.policy.name != policy.name);
        if let Some(row) = taken {
            let (pattern, by) = (policy.pattern.clone(), row.policy.name.clone());
            return Err(Refusal::PatternTaken { pattern, by });
        }
        if known.is_none() && all.len() >= POLICIES_MAX {
            return Err(Refusal::TooManyPolicies);
        }
        let confirmed = confirmed || known.is_some_and(|row| row.confirmed && row.policy == *policy);
        let is_known =
            |row: &PolicyRow| (&row.policy, row.from_settings, row.confirmed) == (policy, from_settings, confirmed);
        if known.is_some_and(is_known) {
            return Ok(Outcome::Done);
        }
        self.logical(Operation::SetPolicy { policy: Box::new(policy.clone()), from_settings, confirmed })?;
        self.review()?;
        Ok(Outcome::Done)
    }

    pub(super) fn confirm_policy(&mut self, name: &PolicyName) -> Result<Outcome, Refusal> {
        let row: Option<PolicyRow> = schema::get(&self.overlay, key::policy(name))?;
        let PolicyRow { policy, from_settings, .. } = row.ok_or_else(|| Refusal::PolicyUnknown(name.clone()))?;
        self.set_policy(&policy, from_settings, true)
    }

    pub(super) fn remove_policy(&mut self, name: &PolicyName, from_settings: bool) -> Result<Outcome, Refusal> {
        let row: Option<PolicyRow> = schema::get(&self.overlay, key::policy(name))?;
        let row = row.ok_or_else(|| Refusal::PolicyUnknown(name.clone()))?;
        if row.from_settings && !from_settings {
            return Err(Refusal::PolicyOfSettings(name.clone()));
        }
        self.logical(Operation::RemovePolicy { name: name.clone() })?;
        self.review()?;
        Ok(Outcome::Done)
    }

    /// A step of what a change of policies has made to do, if anything is left of that.
    pub(super) fn review(&mut self) -> Result<(), SchemaError> {
        if self.applied.reviewing { self.logical(Operation::Review) } else { Ok(()) }
    }

    /// Takes away those of a repository's tags that are due; those that were pulled stay.
    pub(super) fn retain(
        &mut self,
        repository: RepositoryId,
        policy: &Policy,
        tags: &[Tag],
        window_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let agreed = govern::agreed(&self.overlay, repository)?.filter(|row| row.policy == *policy);
        agreed.ok_or(Refusal::NotDue)?;
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for tag in tags.iter().take(DROPS_PER_STEP).collect::<BTreeSet<_>>() {
            match retain::verdict(&self.overlay, repository, policy, tag, self.time_ms())? {
                Verdict::Goes => gone.push(tag.clone()),
                Verdict::Stays { pulled_ms } => kept.push((tag.clone(), pulled_ms)),
                Verdict::NotDue => {}
            }
        }
        if !kept.is_empty() {
            self.logical(Operation::KeepTags { repository, tags: kept })?;
        }
        if !gone.is_empty() {
            let held_until_ms = self.time_ms().saturating_add(window_ms);
            self.logical(Operation::Untag { repository, tags: gone.clone(), held_until_ms })?;
        }
        Ok(Outcome::Retained { gone })
    }

    /// Deletes a root that never got a tag in time.
    pub(super) fn retain_root(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        window_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let policy = govern::agreed(&self.overlay, repository)?.ok_or(Refusal::NotDue)?.policy;
        let row: Option<ManifestRow> = schema::get(&self.overlay, key::manifest(repository, digest))?;
        let row = row.filter(|row| retain::is_due_root(&policy, row, self.time_ms())).ok_or(Refusal::NotDue)?;
        let held_until_ms = self.time_ms().saturating_add(window_ms);
        let (manifest, digest) = (row.manifest, *digest);
        self.logical(Operation::Delete { repository, manifest, digest, held_until_ms })?;
        Ok(Outcome::Done)
    }

    /// Evicts a manifest, if the policy's repositories use more than its cap. What was evicted before and is still counted is
    /// waited for: else too much would go.
    pub(super) fn evict(
        &mut self,
        policy: &PolicyName,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Outcome, Refusal> {
        let row = govern::agreed(&self.overlay, repository)?.filter(|row| row.policy.name == *policy);
        let over = row.map(|row| govern::evict::over(&self.overlay, &row)).transpose()?.flatten();
        if over.ok_or(Refusal::NotDue)?.is_settling {
            return Ok(Outcome::Settling { next: 0 });
        }
        let place: Option<UseRow> = schema::get(&self.overlay, key::use_of(repository, digest))?;
        place.and_then(|place| place.used_ms).ok_or(Refusal::NotDue)?;
        let row: ManifestRow = schema::expect(&self.overlay, key::manifest(repository, digest))?;
        let (manifest, held_until_ms) = (row.manifest, self.time_ms());
        if row.root {
            self.logical(Operation::Delete { repository, manifest, digest: *digest, held_until_ms })?;
        } else if row.tags > 0 {
            let tags = self.some_tags(repository, manifest, None)?;
            let are_all = tags.len() == row.tags as usize;
            self.logical(Operation::Untag { repository, tags, held_until_ms })?;
            if !are_all {
                return Ok(Outcome::More { after: None });
            }
        }
        self.drop_evicted(repository, digest)
    }

    /// Drops what nothing keeps any more, as far as that is told to all that it names. Its window may be that of an earlier
    /// policy.
    fn drop_evicted(&mut self, repository: RepositoryId, digest: &Digest) -> Result<Outcome, Refusal> {
        let row: ManifestRow = schema::expect(&self.overlay, key::manifest(repository, digest))?;
        let parents = schema::get::<ParentsRow>(&self.overlay, key::parents(repository, digest))?.unwrap_or_default();
        if Life::of(&row, &parents).is_live() || parents.all > 0 {
            return Ok(Outcome::Done);
        }
        if row.held_until_ms > self.time_ms() {
            self.logical(Operation::EndWindows { repository, digests: vec![*digest] })?;
        }
        match self.drop_manifest(repository, digest, self.time_ms())? {
            None => Ok(Outcome::Done),
            Some(operation) => {
                self.logical(operation)?;
                self.dropped()
            }
        }
    }

    /// Refuses to point tags at a manifest that may not be moved.
    pub(super) fn check_immutable(
        &self,
        repository: RepositoryId,
        tags: &[Tag],
        digest: &Digest,
    ) -> Result<(), Refusal> {
        if tags.is_empty() {
            return Ok(());
        }
        let policy = govern::governed(&self.overlay, repository)?.and_then(|row| row.policy);
        let Some(policy) = policy.filter(|policy| policy.immutable.is_some()) else { return Ok(()) };
        for tag in tags.iter().filter(|tag| policy.is_immutable(tag)) {
            let row: Option<TagRow> = schema::get(&self.overlay, key::tag(repository, tag))?;
            if let Some(row) = row.filter(|row| row.digest != *digest) {
                let (tag, policy, points_to) = (tag.clone(), policy.name.clone(), row.digest);
                return Err(ImmutableTag { tag, policy, points_to }.into());
            }
        }
        Ok(())
    }

    /// Lets a manifest in that a repository does not have, as long as the cap of its policy is not passed yet; never one that
    /// is too large for it by itself.
    pub(super) fn admit_under_cap(&self, push: &PushRequest, known: Option<RepositoryId>) -> Result<(), Refusal> {
        let policy = match known {
            Some(repository) => govern::governed(&self.overlay, repository)?.and_then(|row| row.policy),
            None => govern::governing(&self.overlay, &push.repository)?,
        };
        let Some((policy, cap_bytes)) = policy.and_then(|policy| Some((policy.name, policy.size_max_bytes?))) else {
            return Ok(());
        };
        let image_bytes = image_bytes(&push.manifest.references);
        let used_bytes = govern::usage(&self.overlay, policy.as_str())?.used_bytes;
        let is_too_large = image_bytes > cap_bytes;
        if !is_too_large && used_bytes <= cap_bytes {
            return Ok(());
        }
        Err(CapExceeded { policy, cap_bytes, used_bytes, image_bytes, is_too_large }.into())
    }

    /// Whether a repository is not in the middle of being brought under another policy.
    pub(super) fn is_reviewed(&self, repository: RepositoryId) -> Result<bool, SchemaError> {
        let row = govern::governed(&self.overlay, repository)?;
        Ok(row.is_none_or(|row| row.phase == schema::ReviewPhase::Done as u8))
    }
}

/// What the blobs take that a manifest names, each once, in bytes.
fn image_bytes(references: &[NamedReference]) -> u64 {
    let mut seen = BTreeSet::new();
    let blobs = references.iter().filter(|named| named.role.is_blob() && seen.insert(named.digest));
    blobs.fold(0, |sum, named| sum.saturating_add(named.size))
}
