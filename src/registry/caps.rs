//! Room under the caps of policies: what a push needs is made before it answers, by evicting what was used longest ago.
//!
//! A push comes in only while its policy's repositories use no more than the cap; then it makes room, so that they never use
//! more than the cap and one image. What evicts asks the committer for one manifest at a time, which looks at all of it again:
//! any number of pushes may do that at once.

use std::time::{Duration, Instant};

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{PolicyRow, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    policy::PolicyName,
    state::{
        govern::{self, evict},
        request::{Outcome, Refusal, Request},
    },
    store::StoreError,
    sync,
};

use super::{Registry, RegistryError, repository_id, row};

/// How long a push makes room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether what was evicted is counted no more.
const LOOK: Duration = Duration::from_millis(1);
/// So many of the first that were pulled later than the index knows are put to their places, all at once: they would be looked
/// at again for each that is evicted. A manifest costs that once while it moves from the last place to the first.
const MISPLACED: usize = 64;

impl Registry {
    /// Evicts until the repositories of a policy use no more than its cap. Whether they do then: not, when nothing more may
    /// go but what is `kept`.
    ///
    /// # Errors
    /// When the store takes no writes, or so much has to go that it takes too long: the rest goes later.
    pub(super) fn make_room(
        &self,
        policy: &PolicyName,
        kept: Option<(RepositoryId, Digest)>,
    ) -> Result<bool, RegistryError> {
        let began = Instant::now();
        loop {
            let view = self.store.snapshot();
            let known: Option<PolicyRow> = row(&*view, key::policy(policy))?;
            let over = known.map(|row| evict::over(&*view, &row)).transpose().map_err(StoreError::from)?.flatten();
            let Some(over) = over else { return Ok(true) };
            if began.elapsed() > PATIENCE {
                return Err(RegistryError::Overloaded(format!(
                    "room is being made under policy {policy}; try again soon"
                )));
            }
            if over.is_settling {
                drop(view);
                sync::sleep(LOOK);
                continue;
            }
            let pulled_ms = |repository, digest: &Digest| self.pulls.last_ms(repository, digest);
            let misplaced = evict::misplaced(&*view, policy, pulled_ms, MISPLACED).map_err(StoreError::from)?;
            if misplaced.len() == MISPLACED {
                drop(view);
                let pulls = misplaced.into_iter().map(|(it, pulled_ms)| (it.repository, it.digest, pulled_ms));
                self.store.commit(Request::PulledAt(pulls.collect()))?;
                continue;
            }
            let is_free = |candidate: &evict::Candidate| kept != Some((candidate.repository, candidate.digest));
            let candidate = evict::least_used(&*view, policy, pulled_ms, is_free).map_err(StoreError::from)?;
            let Some(evict::Candidate { repository, digest, .. }) = candidate else { return Ok(false) };
            drop(view);
            match self.store.commit(Request::Evict { policy: policy.clone(), repository, digest }) {
                Ok(Outcome::Settling { .. }) => sync::sleep(LOOK),
                // Somebody else was faster, or it was used meanwhile.
                Ok(_) | Err(StoreError::Refused(Refusal::NotDue)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes room for a manifest that has come. That it is there is durable, so nothing here makes the push fail: the
    /// collector goes on.
    pub(super) fn keep_under_cap(&self, repository: &RepositoryName, digest: &Digest) {
        let kept = || -> Result<(), RegistryError> {
            let view = self.store.snapshot();
            let Some(id) = repository_id(&*view, repository)? else { return Ok(()) };
            let policy = govern::in_force(&*view, id).map_err(StoreError::from)?;
            drop(view);
            match policy.filter(|policy| policy.size_max_bytes.is_some()) {
                Some(policy) => self.make_room(&policy.name, Some((id, *digest))).map(drop),
                None => Ok(()),
            }
        };
        if let Err(error) = kept() {
            tracing::warn!(%error, repository = repository.as_str(), "no room was made after a push; the collector goes on");
        }
    }

    /// Whether room may have to be made for what comes into a repository, as far as `view` knows it.
    pub(super) fn may_have_cap(&self, view: &dyn View, repository: &RepositoryName) -> Result<bool, RegistryError> {
        let Some(id) = repository_id(view, repository)? else { return Ok(true) };
        let policy = govern::in_force(view, id).map_err(StoreError::from)?;
        Ok(policy.is_some_and(|policy| policy.size_max_bytes.is_some()))
    }

    /// When a manifest was pulled last, in Unix milliseconds, as far as that is known here and perhaps not written yet.
    pub fn last_pull_ms(&self, repository: RepositoryId, digest: &Digest) -> Option<u64> {
        self.pulls.last_ms(repository, digest)
    }
}
