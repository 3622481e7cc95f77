//! What a policy would take away if it were set now: it is set on trial, its repositories come under it, and all that is
//! due, or over its cap, goes. Then the windows of what left are ended, so that what is told to be free is what comes in
//! the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Gain,
    trial::{self, CHANGES_MAX, Settled, Trial, TrialError, left},
};
use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, ManifestRow, PolicyRow, RepositoryRow, SchemaError, Scope, TagRow, UsageRow, key},
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    policy::Policy,
    registry::{RegistryError, images::ImageWalk},
    state::{
        govern::{self, evict, retain},
        request::{DROPS_PER_STEP, Outcome, Refusal, Request},
    },
    store::StoreError,
};

/// Things that go which a plan names one by one; more are counted.
const GOING_LISTED: usize = 1_000;
/// Images whose sizes are looked at for the largest.
const LARGEST_OF: usize = 1_000;
/// Digests that are read for that.
const LARGEST_DIGESTS: usize = 100_000;

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoingBy {
    /// Its tag is none of the newest, old enough, and was not pulled for long enough; as far as the policy says so.
    Retention,
    /// It never got a tag.
    NeverTagged,
    /// It was used least recently, and the cap is passed.
    Cap,
}

impl GoingBy {
    /// As it is called in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::NeverTagged => "never-tagged",
            Self::Cap => "cap",
        }
    }
}

/// A tag, or a manifest, that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Going {
    /// Where.
    pub repository: RepositoryName,
    /// The tag; `None` for a manifest that goes with all of its tags, or has none.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: Digest,
    /// Why.
    pub by: GoingBy,
}

/// A repository of which more than half goes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverHalf {
    /// The repository.
    pub repository: RepositoryName,
    /// What is counted: `tag` or `manifest`.
    pub what: &'static str,
    /// How many go.
    pub going: u64,
    /// Of how many.
    pub of: u64,
}

/// What a policy would take away now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyPlan {
    /// Repositories that it would govern.
    pub repositories: u64,
    /// What these use before anything goes, in bytes: each by itself.
    pub used_bytes: u64,
    /// Tags that go.
    pub tags: u64,
    /// Manifests that cease to live, or are dropped.
    pub manifests: u64,
    /// What goes, in the order in which it does; at most `GOING_LISTED`.
    pub going: Vec<Going>,
    /// How much more.
    pub going_more: u64,
    /// What the registry would gain.
    pub gain: Gain,
    /// Where more than half goes at once.
    pub over_half: Vec<OverHalf>,
    /// By how much its repositories use more than its cap when all has gone that may, in bytes.
    pub exceeding_bytes: u64,
    /// The largest image that it may take, in bytes; of a policy with a cap only, and of those used least recently.
    pub largest_bytes: Option<u64>,
}

/// When somebody pulled a manifest, where that is known better than the index has it.
pub(in crate::registry) type PulledMs<'a> = &'a dyn Fn(RepositoryId, &Digest) -> Option<u64>;

/// What a policy would take away now, over a state that nobody else sees.
pub(in crate::registry) fn plan(
    view: &dyn View,
    policy: &Policy,
    window_ms: u64,
    now_ms: u64,
    pulled_ms: PulledMs<'_>,
) -> Result<PolicyPlan, RegistryError> {
    let told = |error: TrialError| match error {
        TrialError::Refused(error, _) => error.into(),
        TrialError::TooMuch => RegistryError::TooMuch { what: "trying this policy", max: CHANGES_MAX },
    };
    if schema::get::<schema::Applied>(view, key::applied()).map_err(StoreError::from)?.is_none() {
        return Ok(PolicyPlan::default());
    }
    let settled = Settled::new(view, window_ms).map_err(told)?;
    let trial = settled.trial(CHANGES_MAX, now_ms);
    Run { policy, now_ms, window_ms, base: &settled, trial, plan: PolicyPlan::default(), gone: BTreeMap::new() }
        .run(pulled_ms)
        .map_err(told)
}

/// What went of a repository.
#[derive(Default)]
struct Gone {
    tags: u64,
    roots: u64,
}

struct Run<'a, 'b> {
    policy: &'a Policy,
    now_ms: u64,
    window_ms: u64,
    base: &'a Settled<'b>,
    trial: Trial<'a>,
    plan: PolicyPlan,
    gone: BTreeMap<RepositoryId, Gone>,
}

impl Run<'_, '_> {
    fn run(mut self, pulled_ms: PulledMs<'_>) -> Result<PolicyPlan, TrialError> {
        let before: UsageRow = usage(&self.base.state, Scope::Registry)?;
        self.set()?;
        let governed = govern::usage(&self.trial.batch.overlay, self.policy.name.as_str())?;
        (self.plan.repositories, self.plan.used_bytes) = (governed.repositories, governed.used_bytes);
        self.retain_tags()?;
        self.retain_roots()?;
        self.evict(pulled_ms)?;
        self.over_half()?;
        let deleted = usage(&self.trial.batch.overlay, Scope::Registry)?;
        self.end_windows()?;
        let ended = usage(&self.trial.batch.overlay, Scope::Registry)?;
        self.plan.gain = trial::gain(&before, &deleted, &ended);
        Ok(self.plan)
    }

    /// The policy is set, and told to its repositories.
    fn set(&mut self) -> Result<(), TrialError> {
        let known: Option<PolicyRow> = schema::get(&self.trial.batch.overlay, key::policy(&self.policy.name))?;
        let from_settings = known.is_some_and(|row| row.from_settings);
        let policy = Box::new(self.policy.clone());
        self.trial.decide(&Request::SetPolicy { policy, from_settings, confirmed: true }, String::new)?;
        self.trial.settle()
    }

    /// Whether a repository is governed by it.
    fn governs(&self, repository: RepositoryId) -> Result<bool, SchemaError> {
        let agreed = govern::agreed(&self.trial.batch.overlay, repository)?;
        Ok(agreed.is_some_and(|row| row.policy.name == self.policy.name))
    }

    fn retain_tags(&mut self) -> Result<(), TrialError> {
        let mut from = None::<Vec<u8>>;
        loop {
            let page =
                retain::due_repositories(&self.trial.batch.overlay, from.as_deref(), self.now_ms, DROPS_PER_STEP)?;
            for repository in page.0 {
                if self.governs(repository)? {
                    self.retain_tags_of(repository)?;
                }
            }
            from = page.1;
            if from.is_none() {
                return self.trial.settle();
            }
        }
    }

    fn retain_tags_of(&mut self, repository: RepositoryId) -> Result<(), TrialError> {
        let mut after = None::<(u64, Tag)>;
        loop {
            let view = &self.trial.batch.overlay;
            let due = retain::due_tags(view, repository, after.as_ref(), self.now_ms, DROPS_PER_STEP)?;
            let Some(last) = due.last().cloned() else { return Ok(()) };
            let mut digests = BTreeMap::new();
            for (_, tag) in &due {
                let row: TagRow = schema::expect(view, key::tag(repository, tag))?;
                digests.insert(tag.clone(), row.digest);
            }
            let request = Request::Retain {
                repository,
                policy: Box::new(self.policy.clone()),
                tags: due.into_iter().map(|(_, tag)| tag).collect(),
                window_ms: self.window_ms,
            };
            if let Some(Outcome::Retained { gone }) = self.trial.try_decide(&request)? {
                for tag in gone {
                    if let Some(digest) = digests.get(&tag).copied() {
                        self.plan.tags += 1;
                        self.gone.entry(repository).or_default().tags += 1;
                        self.list(repository, Some(tag), digest, GoingBy::Retention)?;
                    }
                }
            }
            after = Some(last);
        }
    }

    fn retain_roots(&mut self) -> Result<(), TrialError> {
        let mut from = None::<Vec<u8>>;
        loop {
            let page = retain::due_roots(&self.trial.batch.overlay, from.as_deref(), self.now_ms, DROPS_PER_STEP)?;
            for (repository, digest) in page.0 {
                if !self.governs(repository)? {
                    continue;
                }
                let request = Request::RetainRoot { repository, digest, window_ms: self.window_ms };
                if self.trial.try_decide(&request)?.is_some() {
                    self.gone.entry(repository).or_default().roots += 1;
                    self.list(repository, None, digest, GoingBy::NeverTagged)?;
                }
            }
            from = page.1;
            if from.is_none() {
                return self.trial.settle();
            }
        }
    }

    fn evict(&mut self, pulled_ms: PulledMs<'_>) -> Result<(), TrialError> {
        self.plan.largest_bytes = self.largest()?;
        let mut refused = BTreeSet::new();
        loop {
            let view = &self.trial.batch.overlay;
            let row: PolicyRow = schema::expect(view, key::policy(&self.policy.name))?;
            let Some(over) = evict::over(view, &row)? else { return Ok(()) };
            let is_free = |it: &evict::Candidate| !refused.contains(&(it.repository, it.digest));
            let Some(next) = evict::least_used(view, &self.policy.name, pulled_ms, is_free)? else {
                self.plan.exceeding_bytes = over.used_bytes.saturating_sub(over.cap_bytes);
                return Ok(());
            };
            let (repository, digest) = (next.repository, next.digest);
            let row: ManifestRow = schema::expect(view, key::manifest(repository, &digest))?;
            let request = Request::Evict { policy: self.policy.name.clone(), repository, digest };
            let mut went = false;
            while let Some(outcome) = self.trial.try_decide(&request)? {
                went |= !matches!(outcome, Outcome::Settling { .. });
                self.trial.settle()?;
                if matches!(outcome, Outcome::Done | Outcome::Dropped { .. }) {
                    break;
                }
            }
            if !went {
                refused.insert((repository, digest));
                continue;
            }
            // One that is only held has left before.
            if next.used_ms > 0 {
                self.plan.tags += u64::from(row.tags);
                let gone = self.gone.entry(repository).or_default();
                gone.tags += u64::from(row.tags);
                gone.roots += u64::from(row.root);
                self.list(repository, None, digest, GoingBy::Cap)?;
            } else {
                self.gone.entry(repository).or_default();
            }
        }
    }

    /// The largest of the images that may be evicted, of the first of them.
    fn largest(&self) -> Result<Option<u64>, SchemaError> {
        if self.policy.size_max_bytes.is_none() {
            return Ok(None);
        }
        let view = &self.trial.batch.overlay;
        let (mut largest, mut budget) = (None, LARGEST_DIGESTS);
        for candidate in evict::candidates(view, &self.policy.name, LARGEST_OF)? {
            let row: ManifestRow = schema::expect(view, key::manifest(candidate.repository, &candidate.digest))?;
            let image = ImageWalk::measure(view, candidate.repository, &row, false, &mut budget)?;
            largest = largest.max(image.map(|image| image.all));
        }
        Ok(largest)
    }

    fn list(
        &mut self,
        repository: RepositoryId,
        tag: Option<Tag>,
        digest: Digest,
        by: GoingBy,
    ) -> Result<(), SchemaError> {
        if self.plan.going.len() >= GOING_LISTED {
            self.plan.going_more += 1;
            return Ok(());
        }
        let RepositoryRow { name, .. } = schema::expect(&self.base.state, key::repository(repository))?;
        self.plan.going.push(Going { repository: name, tag, digest, by });
        Ok(())
    }

    fn over_half(&mut self) -> Result<(), SchemaError> {
        for (repository, gone) in &self.gone {
            let usage: UsageRow = usage(&self.base.state, Scope::Repository(*repository))?;
            let counts = [("tag", gone.tags, usage.tags), ("manifest", gone.roots, usage.manifests)];
            let Some((what, going, of)) = counts.into_iter().find(|(_, going, of)| *going > of / 2) else { continue };
            let RepositoryRow { name, .. } = schema::expect(&self.base.state, key::repository(*repository))?;
            self.plan.over_half.push(OverHalf { repository: name, what, going, of });
        }
        Ok(())
    }

    /// Ends the windows of all that has left, and drops it. What a cap takes is dropped already.
    fn end_windows(&mut self) -> Result<(), TrialError> {
        let repositories: Vec<RepositoryId> = self.gone.keys().copied().collect();
        for repository in repositories {
            let all = left(&self.base.state, &self.trial, repository)?;
            self.plan.manifests += all.len() as u64;
            let mut held = Vec::new();
            for digest in all {
                let row: Option<ManifestRow> =
                    schema::get(&self.trial.batch.overlay, key::manifest(repository, &digest))?;
                held.extend(row.map(|_| digest));
            }
            self.trial.drop_all(repository, held)?;
        }
        Ok(())
    }
}

fn usage(view: &dyn View, scope: Scope) -> Result<UsageRow, SchemaError> {
    Ok(schema::get(view, key::usage(scope))?.unwrap_or_default())
}

impl Trial<'_> {
    /// A request that may find that there is nothing to do.
    fn try_decide(&mut self, request: &Request) -> Result<Option<Outcome>, TrialError> {
        match self.decide(request, String::new) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(TrialError::Refused(StoreError::Refused(Refusal::NotDue), _)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
