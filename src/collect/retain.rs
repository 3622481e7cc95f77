//! What goes by policies: tags and roots whose time has come, and what is evicted where a policy's repositories use more than
//! its cap. Found in rows that are in order of time, so it costs what goes, and a look at each repository in which something is
//! due.
//!
//! A policy that nobody has confirmed takes at most half of a repository's tags in one run: where more would go, all of them
//! stay, and the report says so. A real run looks at such a repository again after [`HELD_BACK_MS`] only, as counting may
//! cost as much as half of its tags.

use std::collections::HashMap;

use crate::{
    digest::Digest,
    index::schema::{self, PolicyRow, RepositoryRow, Scope, UsageRow, key},
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    policy::PolicyName,
    state::{
        govern::{self, evict, retain},
        request::{Outcome, Request},
    },
    store::StoreError,
};

use super::{
    report::{CollectionReport, Dropped, HeldBack, Kind},
    steps::Steps,
};

/// Repositories, or roots, that are read at a time.
const PAGE_ROWS: usize = 1_000;
/// Tags that one request takes away: each may end the life of a manifest.
const TAGS_AT_ONCE: usize = 100;
/// How long a repository is left alone in which too much would go, unless its policy changes: 10 minutes.
const HELD_BACK_MS: u64 = 600_000;

/// Repositories in which too much would go: the policy that said so, what is told of it, and until when they are left alone.
pub(super) type Untouched = HashMap<RepositoryId, (PolicyRow, HeldBack, u64)>;

/// One run of policies.
pub(super) struct Retaining<'a, S> {
    pub(super) steps: &'a mut S,
    pub(super) report: &'a mut CollectionReport,
    /// What was due by then goes.
    pub(super) now_ms: u64,
    pub(super) window_ms: u64,
    pub(super) untouched: &'a mut Untouched,
    /// When a manifest was pulled, as far as that is not written yet.
    pub(super) pulled_ms: &'a dyn Fn(RepositoryId, &Digest) -> Option<u64>,
}

impl<S: Steps> Retaining<'_, S> {
    pub(super) fn run(&mut self) -> Result<(), StoreError> {
        let mut from = None::<Vec<u8>>;
        while self.steps.end().is_none() {
            let now_ms = self.now_ms;
            let page = self.steps.read(|view| retain::due_repositories(view, from.as_deref(), now_ms, PAGE_ROWS))?;
            page.0.into_iter().try_for_each(|repository| self.tags(repository))?;
            from = page.1;
            if from.is_none() {
                break;
            }
        }
        self.roots()?;
        let over = self.steps.read(evict::all_over)?;
        over.into_iter().try_for_each(|over| self.evict(&over.policy))
    }

    fn name(&self, repository: RepositoryId) -> Result<Option<RepositoryName>, StoreError> {
        let row: Option<RepositoryRow> = self.steps.read(|view| schema::get(view, key::repository(repository)))?;
        Ok(row.map(|row| row.name))
    }

    /// Takes the tags of a repository away that are due.
    fn tags(&mut self, repository: RepositoryId) -> Result<(), StoreError> {
        let Some(row) = self.steps.read(|view| govern::agreed(view, repository))? else { return Ok(()) };
        if self.is_too_much(repository, &row)? {
            return Ok(());
        }
        let (now_ms, window_ms, mut after) = (self.now_ms, self.window_ms, None::<(u64, Tag)>);
        let name = self.name(repository)?;
        while self.steps.end().is_none() {
            let page =
                self.steps.read(|view| retain::due_tags(view, repository, after.as_ref(), now_ms, TAGS_AT_ONCE))?;
            let Some(last) = page.last().cloned() else { break };
            let tags = page.into_iter().map(|(_, tag)| tag).collect();
            let policy = Box::new(row.policy.clone());
            let decided = self.steps.take(vec![Request::Retain { repository, policy, tags, window_ms }])?;
            for outcome in decided {
                match outcome {
                    Ok(Outcome::Retained { gone }) => {
                        gone.iter().for_each(|tag| self.tell(Kind::Tag, &name, Some(tag), None, &row.policy.name));
                    }
                    // The policy is another by now.
                    _ => return Ok(()),
                }
            }
            after = Some(last);
        }
        self.steps.settle()
    }

    /// Whether a policy that nobody has confirmed would take more than half of a repository's tags.
    fn is_too_much(&mut self, repository: RepositoryId, row: &PolicyRow) -> Result<bool, StoreError> {
        if row.confirmed {
            return Ok(false);
        }
        let is_same = |known: &&(PolicyRow, HeldBack, u64)| known.0 == *row && known.2 > self.now_ms;
        if let Some((_, told, _)) = self.untouched.get(&repository).filter(is_same) {
            self.report.hold_back(told.clone());
            return Ok(true);
        }
        self.untouched.remove(&repository);
        let now_ms = self.now_ms;
        let (of, going) = self.steps.read(|view| {
            let usage: Option<UsageRow> = schema::get(view, key::usage(Scope::Repository(repository)))?;
            let of = usage.map_or(0, |usage| usage.tags);
            Ok::<_, StoreError>((of, retain::count_going(view, repository, &row.policy, now_ms, of / 2)?))
        })?;
        if going <= of / 2 {
            return Ok(false);
        }
        let Some(name) = self.name(repository)? else { return Ok(true) };
        let told = HeldBack { repository: name, policy: row.policy.name.to_string(), tags: of };
        self.report.hold_back(told.clone());
        self.untouched.insert(repository, (row.clone(), told, now_ms.saturating_add(HELD_BACK_MS)));
        Ok(true)
    }

    /// Deletes what never got a tag in time.
    fn roots(&mut self) -> Result<(), StoreError> {
        let (now_ms, window_ms, mut from) = (self.now_ms, self.window_ms, None::<Vec<u8>>);
        while self.steps.end().is_none() {
            let (roots, next) = self.steps.read(|view| retain::due_roots(view, from.as_deref(), now_ms, PAGE_ROWS))?;
            for some in roots.chunks(TAGS_AT_ONCE) {
                let requests = some.iter().map(|(repository, digest)| Request::RetainRoot {
                    repository: *repository,
                    digest: *digest,
                    window_ms,
                });
                let decided = self.steps.take(requests.collect())?;
                for ((repository, digest), outcome) in some.iter().zip(decided) {
                    let policy = self.steps.read(|view| govern::in_force(view, *repository))?;
                    if let (Ok(Outcome::Done), Some(policy)) = (outcome, policy) {
                        let name = self.name(*repository)?;
                        self.tell(Kind::Root, &name, None, Some(*digest), &policy.name);
                    }
                }
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        self.steps.settle()
    }

    /// Evicts what was used longest ago until a policy's cap is kept, or nothing more may go.
    fn evict(&mut self, policy: &PolicyName) -> Result<(), StoreError> {
        let mut waits = 0;
        while self.steps.end().is_none() {
            let pulled_ms = self.pulled_ms;
            let candidate = self.steps.read(|view| {
                let row: Option<PolicyRow> = schema::get(view, key::policy(policy))?;
                match row.map(|row| evict::over(view, &row)).transpose()?.flatten() {
                    Some(_) => evict::least_used(view, policy, pulled_ms, |_| true),
                    None => Ok(None),
                }
            })?;
            let Some(evict::Candidate { repository, digest, .. }) = candidate else { return Ok(()) };
            let request = Request::Evict { policy: policy.clone(), repository, digest };
            match self.steps.take(vec![request])?.pop() {
                Some(Ok(Outcome::Settling { .. })) if waits < 3 => {
                    waits += 1;
                    self.steps.settle()?;
                }
                // Others keep it from being told: the next run goes on.
                Some(Ok(Outcome::Settling { .. })) | None => return Ok(()),
                Some(Ok(_)) => {
                    waits = 0;
                    let name = self.name(repository)?;
                    self.tell(Kind::Eviction, &name, None, Some(digest), policy);
                }
                // Used again, or gone.
                Some(Err(_)) => {
                    waits += 1;
                    if waits > 100 {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn tell(
        &mut self,
        kind: Kind,
        repository: &Option<RepositoryName>,
        tag: Option<&Tag>,
        digest: Option<Digest>,
        policy: &PolicyName,
    ) {
        let dropped = Dropped {
            kind,
            digest,
            repository: repository.clone(),
            bytes: 0,
            last: false,
            tag: tag.map(ToString::to_string),
            policy: Some(policy.to_string()),
        };
        self.report.add(1, dropped);
    }
}
