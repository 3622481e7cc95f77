//! Policies: setting and removing them, what each governs, why one governs a repository, and which wait to be confirmed.
//!
//! What a policy would take away now is worked out by doing it on trial (`what_if/policy`). One that would take more than half of
//! a repository at once is set only by who says so, or has seen it: the policies of the last dry runs are remembered.

use std::{collections::VecDeque, sync::PoisonError};

use super::{List, PolicyPlan, Registry, RegistryError, repository_id, row, what_if};
use crate::{
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{GovernedRow, Key, PolicyRow, RepositoryRow, ReviewPhase, Scope, Table, UsageRow, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    policy::{self, Policy, PolicyName},
    state::{
        govern::{self, evict, retain},
        request::{Refusal, Request},
    },
    store::StoreError,
    words::{bytes, counted},
};

/// Policies that were tried and are remembered.
const TRIED_MAX: usize = 100;
/// Spare tags that are counted for an explanation.
const SPARE_COUNTED: usize = 1_000;
/// Repositories in which tags are due that are looked at for policies that wait, and tags that are counted for that: the
/// collector knows of larger ones.
const DUE_REPOSITORIES_MAX: usize = 1_000;
const DUE_TAGS_MAX: u64 = 100_000;
/// Sentences of one kind that are said of a policy.
const SAID_MAX: usize = 10;

/// A policy, and what it has under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInfo {
    /// What it says.
    pub policy: Policy,
    /// Whether it stands in the settings; else it was set by the admin API.
    pub from_settings: bool,
    /// Whether it may take more than half of a repository's tags at once.
    pub confirmed: bool,
    /// When it was set, in Unix milliseconds; 0 for one that is only tried.
    pub set_ms: u64,
    /// How many repositories it governs.
    pub repositories: u64,
    /// What these use, in bytes: each by itself.
    pub used_bytes: u64,
}

/// How a policy is to be set.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetPolicy {
    /// Whether nothing is to be changed.
    pub dry_run: bool,
    /// Whether it may take more than half of a repository at once.
    pub yes: bool,
}

/// A policy that was set, or tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet {
    /// The policy as it is now, or would be.
    pub info: PolicyInfo,
    /// What it takes away now; `None` where that was not asked and would take too much to work out.
    pub plan: Option<PolicyPlan>,
    /// What to know of it, in sentences.
    pub warnings: Vec<String>,
}

/// Why a policy governs a repository, and what it does there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// All policies that match its name, the one that governs it first.
    pub matching: Vec<PolicyInfo>,
    /// Why the first wins over each that comes behind it, in words.
    pub reasons: Vec<String>,
    /// What there is of the repository; `None` for one that is not there.
    pub effect: Option<Effect>,
}

/// What a policy makes of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whether a change of policies is not told to the repository yet, so that what follows may be about an earlier one.
    pub under_review: bool,
    /// The repository's tags.
    pub tags: u64,
    /// Those among the newest, which stay.
    pub newest: u64,
    /// Those that may go; at most `SPARE_COUNTED`.
    pub spare: u64,
    /// Whether there are more.
    pub spare_more: bool,
    /// When the first of these is due, in Unix milliseconds; it goes then unless it was pulled.
    pub next_due_ms: Option<u64>,
    /// What the repository uses, in bytes.
    pub used_bytes: u64,
    /// How long what loses its last reach is held here, in milliseconds.
    pub window_ms: u64,
}

/// A policy that would take more than half of a repository's tags at once, and may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The policy.
    pub policy: PolicyName,
    /// Where.
    pub repository: RepositoryName,
    /// How many tags the repository has. More than half of them are due.
    pub tags: u64,
}

/// Policies that were tried last, the latest at the end.
#[derive(Debug, Default)]
pub(super) struct Tried(VecDeque<Policy>);

impl Tried {
    fn note(&mut self, policy: &Policy) {
        self.0.retain(|known| known != policy);
        if self.0.len() >= TRIED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(policy.clone());
    }

    fn has(&self, policy: &Policy) -> bool {
        self.0.contains(policy)
    }
}

impl Registry {
    /// The first `limit` policies after `after`, by name.
    ///
    /// # Errors
    /// When the index fails; so with all that follow.
    pub fn policies(&self, after: Option<&PolicyName>, limit: usize) -> Result<List<PolicyInfo>, RegistryError> {
        let view = self.store.snapshot();
        let rows = govern::policies(&*view).map_err(StoreError::from)?;
        let mut rest = rows.into_iter().filter(|row| after.is_none_or(|after| row.policy.name > *after));
        let items: Vec<_> = rest.by_ref().take(limit).map(|row| info(&*view, row)).collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rest.next().is_some()).map(|last| last.policy.name.to_string());
        Ok(List { items, next })
    }

    /// A policy.
    ///
    /// # Errors
    /// [`RegistryError::PolicyUnknown`].
    pub fn policy(&self, name: &PolicyName) -> Result<PolicyInfo, RegistryError> {
        let view = self.store.snapshot();
        let found: Option<PolicyRow> = row(&*view, key::policy(name))?;
        info(&*view, found.ok_or_else(|| RegistryError::PolicyUnknown(name.clone()))?)
    }

    /// Sets a policy, or tells what setting it would do; durable on return. Repositories come under it in steps that
    /// follow.
    ///
    /// # Errors
    /// [`RegistryError::PolicyConflict`] where another policy has the pattern, the settings have the policy, or it would take
    /// more than half of a repository at once and nobody has said or seen that; [`RegistryError::TooMuch`] for a dry run that
    /// would.
    pub fn set_policy(&self, policy: &Policy, how: SetPolicy) -> Result<PolicySet, RegistryError> {
        let known: Option<PolicyRow> = row(&*self.store.snapshot(), key::policy(&policy.name))?;
        if known.as_ref().is_some_and(|row| row.from_settings) && !how.dry_run {
            return Err(StoreError::Refused(Refusal::PolicyOfSettings(policy.name.clone())).into());
        }
        let confirmed = how.yes
            || self.tried.lock().unwrap_or_else(PoisonError::into_inner).has(policy)
            || known.is_some_and(|row| row.confirmed && row.policy == *policy);
        let plan = match self.try_policy(policy) {
            Err(RegistryError::TooMuch { .. }) if confirmed && !how.dry_run => None,
            Err(RegistryError::TooMuch { max, .. }) if !how.dry_run => {
                return Err(RegistryError::PolicyConflict(format!(
                    "policy {} concerns more than {max} rows, so nobody can tell whether it takes more than half of a \
                     repository at once: say so if it may (`yes`, --yes)",
                    policy.name
                )));
            }
            plan => Some(plan?),
        };
        if let Some(over) = plan.as_ref().and_then(|plan| plan.over_half.first()).filter(|_| !confirmed && !how.dry_run)
        {
            return Err(RegistryError::PolicyConflict(format!(
                "policy {} would take {} of {} from repository {} at once, more than half: look at what goes (`dry_run`, \
                 --dry-run), or say that it may (`yes`, --yes)",
                policy.name,
                over.going,
                counted(over.of, over.what),
                over.repository
            )));
        }
        let warnings = self.warnings(policy, plan.as_ref())?;
        if how.dry_run {
            // Seen by whoever asked.
            self.tried.lock().unwrap_or_else(PoisonError::into_inner).note(policy);
            let (repositories, used_bytes) = plan.as_ref().map_or((0, 0), |plan| (plan.repositories, plan.used_bytes));
            let (policy, from_settings) = (policy.clone(), false);
            let info = PolicyInfo { policy, from_settings, confirmed, set_ms: 0, repositories, used_bytes };
            return Ok(PolicySet { info, plan, warnings });
        }
        let request = Request::SetPolicy { policy: Box::new(policy.clone()), from_settings: false, confirmed };
        self.store.commit(request)?;
        let mut info = self.policy(&policy.name)?;
        // Repositories come under it one after the other; it is told as it will be.
        if let Some(plan) = &plan {
            (info.repositories, info.used_bytes) = (plan.repositories, plan.used_bytes);
        }
        Ok(PolicySet { info, plan, warnings })
    }

    /// What setting a policy would do, whoever has one of that name. Nothing is changed; nor is it remembered as seen.
    ///
    /// # Errors
    /// As [`Self::set_policy`] for a dry run.
    pub fn what_if_policy(&self, policy: &Policy) -> Result<PolicySet, RegistryError> {
        let plan = self.try_policy(policy)?;
        let warnings = self.warnings(policy, Some(&plan))?;
        let (repositories, used_bytes) = (plan.repositories, plan.used_bytes);
        let (policy, from_settings, confirmed) = (policy.clone(), false, false);
        let info = PolicyInfo { policy, from_settings, confirmed, set_ms: 0, repositories, used_bytes };
        Ok(PolicySet { info, plan: Some(plan), warnings })
    }

    fn try_policy(&self, policy: &Policy) -> Result<PolicyPlan, RegistryError> {
        let view = self.store.snapshot();
        let now_ms = self.store.options().clock.now_ms();
        let pulled = |repository: RepositoryId, digest: &Digest| self.pulls.last_ms(repository, digest);
        what_if::plan(&*view, policy, self.window_ms(), now_ms, &pulled)
    }

    /// Removes a policy; durable on return.
    ///
    /// # Errors
    /// [`RegistryError::PolicyUnknown`]; [`RegistryError::PolicyConflict`] for one of the settings.
    pub fn remove_policy(&self, name: &PolicyName) -> Result<(), RegistryError> {
        self.store.commit(Request::RemovePolicy { name: name.clone(), from_settings: false })?;
        Ok(())
    }

    /// Lets a policy take more than half of a repository at once; durable on return.
    ///
    /// # Errors
    /// [`RegistryError::PolicyUnknown`].
    pub fn confirm_policy(&self, name: &PolicyName) -> Result<PolicyInfo, RegistryError> {
        self.store.commit(Request::ConfirmPolicy { name: name.clone() })?;
        self.policy(name)
    }

    /// Makes the policies of the settings those that are given, and no others; how many were changed. Those of the admin API stay.
    ///
    /// # Errors
    /// [`RegistryError::PolicyConflict`] where one of the admin API has the pattern of one of these.
    pub fn sync_policies(&self, wanted: &[Policy]) -> Result<usize, RegistryError> {
        let known = govern::policies(&*self.store.snapshot()).map_err(StoreError::from)?;
        let mut changed = 0;
        // First those that go, and those whose pattern may be another one's now.
        for row in known.iter().filter(|row| row.from_settings) {
            let name = &row.policy.name;
            if !wanted.iter().any(|policy| policy.name == *name && policy.pattern == row.policy.pattern) {
                self.store.commit(Request::RemovePolicy { name: name.clone(), from_settings: true })?;
                changed += 1;
            }
        }
        for policy in wanted {
            if known.iter().any(|row| row.from_settings && row.policy == *policy) {
                continue;
            }
            let policy = Box::new(policy.clone());
            self.store.commit(Request::SetPolicy { policy, from_settings: true, confirmed: false })?;
            changed += 1;
        }
        Ok(changed)
    }

    /// Which policy governs a repository, and why. The repository need not be there.
    ///
    /// # Errors
    /// When the index fails.
    pub fn explain_policy(&self, repository: &RepositoryName) -> Result<Explanation, RegistryError> {
        let view = self.store.snapshot();
        let rows = govern::policies(&*view).map_err(StoreError::from)?;
        let found = policy::matching(rows.iter().map(|row| &row.policy), repository);
        let reasons = found.iter().skip(1).map(|other| match found.first() {
            Some(first) => first.pattern.why_before(&other.pattern),
            None => String::new(),
        });
        let reasons = reasons.collect();
        let winner = found.first().copied().cloned();
        let found = found.iter().filter_map(|policy| rows.iter().find(|row| row.policy.name == policy.name));
        let matching = found.map(|row| info(&*view, row.clone())).collect::<Result<_, _>>()?;
        let effect =
            repository_id(&*view, repository)?.map(|id| self.effect(&*view, id, winner.as_ref())).transpose()?;
        Ok(Explanation { matching, reasons, effect })
    }

    fn effect(
        &self,
        view: &dyn View,
        repository: RepositoryId,
        winner: Option<&Policy>,
    ) -> Result<Effect, RegistryError> {
        let governed = govern::governed(view, repository).map_err(StoreError::from)?;
        let usage: UsageRow = row(view, key::usage(Scope::Repository(repository)))?.unwrap_or_default();
        let window_ms = govern::window_ms(view, repository).map_err(StoreError::from)?;
        let is_done = governed.as_ref().is_none_or(|row| row.phase == ReviewPhase::Done as u8);
        let under_review = !is_done || governed.as_ref().and_then(|row| row.policy.as_ref()) != winner;
        let spare = match &governed {
            Some(_) => self.spare(view, repository)?,
            None => 0,
        };
        let GovernedRow { newest, due_ms, .. } = governed.unwrap_or_else(|| GovernedRow::new(None, ReviewPhase::Done));
        Ok(Effect {
            under_review,
            tags: usage.tags,
            newest: newest.into(),
            spare: spare.min(SPARE_COUNTED) as u64,
            spare_more: spare > SPARE_COUNTED,
            next_due_ms: due_ms,
            used_bytes: usage.used_bytes,
            window_ms: window_ms.unwrap_or_else(|| self.window_ms()),
        })
    }

    /// How many tags of a repository are spare, up to one more than are counted.
    fn spare(&self, view: &dyn View, repository: RepositoryId) -> Result<usize, RegistryError> {
        let prefix = Key::of(Table::SpareTags).u32(repository).bytes();
        Ok(view.scan(&prefix, &prefix_end(&prefix), SPARE_COUNTED + 1).map_err(StoreError::from)?.len())
    }

    /// Policies that would take more than half of a repository's tags at once, and wait for somebody who confirms that.
    ///
    /// # Errors
    /// When the index fails.
    pub fn policies_waiting(&self) -> Result<Vec<Waiting>, RegistryError> {
        let (view, now_ms) = (self.store.snapshot(), self.store.options().clock.now_ms());
        let (due, _) =
            retain::due_repositories(&*view, None, now_ms, DUE_REPOSITORIES_MAX).map_err(StoreError::from)?;
        let (mut waiting, mut left) = (Vec::new(), DUE_TAGS_MAX);
        for repository in due {
            let agreed = govern::agreed(&*view, repository).map_err(StoreError::from)?;
            let Some(agreed) = agreed.filter(|row| !row.confirmed) else { continue };
            let usage: UsageRow = row(&*view, key::usage(Scope::Repository(repository)))?.unwrap_or_default();
            let half = usage.tags / 2;
            let Some(rest) = left.checked_sub(half) else { continue };
            left = rest;
            let going = retain::count_going(&*view, repository, &agreed.policy, now_ms, half);
            let Some(RepositoryRow { name, .. }) = row(&*view, key::repository(repository))? else { continue };
            if going.map_err(StoreError::from)? > half {
                waiting.push(Waiting { policy: agreed.policy.name, repository: name, tags: usage.tags });
            }
        }
        Ok(waiting)
    }

    /// Policies whose repositories use more than their caps, and by how many bytes. What is being evicted does not count.
    ///
    /// # Errors
    /// When the index fails.
    pub fn policies_over_cap(&self) -> Result<Vec<(PolicyName, u64)>, RegistryError> {
        let over = evict::all_over(&*self.store.snapshot()).map_err(StoreError::from)?;
        let settled = over.into_iter().filter(|over| !over.is_settling);
        Ok(settled.map(|over| (over.policy, over.used_bytes.saturating_sub(over.cap_bytes))).collect())
    }

    /// What to know of a policy that is set, or tried.
    fn warnings(&self, policy: &Policy, plan: Option<&PolicyPlan>) -> Result<Vec<String>, RegistryError> {
        let rows = govern::policies(&*self.store.snapshot()).map_err(StoreError::from)?;
        let others = rows.iter().map(|row| &row.policy).filter(|other| other.name != policy.name);
        let overlapping: Vec<_> = others.filter(|other| other.pattern.overlaps(&policy.pattern)).collect();
        let mut warnings: Vec<String> = overlapping.iter().take(SAID_MAX).map(|other| overlap(policy, other)).collect();
        if overlapping.len() > SAID_MAX {
            warnings.push(format!("its pattern overlaps those of {} more", overlapping.len() - SAID_MAX));
        }
        if policy.is_idle() {
            warnings.push(
                "it says nothing to do: it only takes its repositories out of what other policies say".to_owned(),
            );
        }
        let Some(plan) = plan else {
            warnings.push("it concerns so much that what it takes away was not worked out".to_owned());
            return Ok(warnings);
        };
        if plan.repositories == 0 {
            warnings.push("it governs no repository now".to_owned());
        }
        if let Some(cap_bytes) = policy.size_max_bytes {
            if plan.used_bytes > cap_bytes {
                let (used, cap) = (bytes(plan.used_bytes), bytes(cap_bytes));
                warnings.push(format!(
                    "its repositories use {used}, more than its cap of {cap}: what was used least recently goes"
                ));
            }
            if plan.exceeding_bytes > 0 {
                let over = bytes(plan.exceeding_bytes);
                warnings.push(format!(
                    "when all that it may take is gone, {over} are still there beyond its cap: they are pinned, among the \
                     newest, or kept by an index; nothing can be pushed there"
                ));
            }
            if let Some(largest) = plan.largest_bytes.filter(|largest| *largest > cap_bytes) {
                let (largest, cap) = (bytes(largest), bytes(cap_bytes));
                warnings.push(format!(
                    "an image there has {largest}, more than its cap of {cap}: such an image cannot be pushed again"
                ));
            }
        }
        Ok(warnings)
    }
}

/// Who wins where two policies match.
fn overlap(policy: &Policy, other: &Policy) -> String {
    let (first, second) = match policy.precedence(other).is_lt() {
        true => (policy, other),
        false => (other, policy),
    };
    let why = first.pattern.why_before(&second.pattern);
    format!(
        "its pattern overlaps {} of policy {}: where both match, {} governs, as its pattern {why}",
        other.pattern, other.name, first.name
    )
}

fn info(view: &dyn View, row: PolicyRow) -> Result<PolicyInfo, RegistryError> {
    let PolicyRow { policy, from_settings, confirmed, set_ms } = row;
    let usage = govern::usage(view, policy.name.as_str()).map_err(StoreError::from)?;
    let (repositories, used_bytes) = (usage.repositories, usage.used_bytes);
    Ok(PolicyInfo { policy, from_settings, confirmed, set_ms, repositories, used_bytes })
}
