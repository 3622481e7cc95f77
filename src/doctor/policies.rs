//! What policies say, and cannot do or do nowhere: one that waits until somebody confirms it, a cap that is passed by what may
//! not go, patterns that match nothing or meet each other half.

use crate::{
    collect::{Collector, HeldBack},
    policy::POLICIES_MAX,
    registry::{PolicyInfo, Registry, RegistryError, Waiting},
    words::{bytes, counted},
};

use super::{Check, Level, upkeep::some};

const NAME: &str = "policies";
/// Policies that are held against each other.
const COMPARED_MAX: usize = 200;

/// All policies.
pub(super) fn policies(registry: &Registry, collector: &Collector) -> Check {
    let look = || -> Result<Check, RegistryError> {
        let mut waiting = registry.policies_waiting()?;
        for HeldBack { repository, policy, tags } in collector.held_back() {
            let is_known = |known: &Waiting| known.repository == repository && known.policy.as_str() == policy;
            if let Some(policy) = policy.parse().ok().filter(|_| !waiting.iter().any(is_known)) {
                waiting.push(Waiting { policy, repository, tags });
            }
        }
        let over = registry.policies_over_cap()?.into_iter();
        let over: Vec<_> = over.map(|(name, over)| (name.to_string(), over)).collect();
        let all = registry.policies(None, POLICIES_MAX)?.items;
        Ok(judged(&all, &waiting, &over))
    };
    Check::tried(NAME, look())
}

/// The worst that there is to say of them; `over` are those whose caps are passed, and by how many bytes.
pub(super) fn judged(all: &[PolicyInfo], waiting: &[Waiting], over: &[(String, u64)]) -> Check {
    if let Some(first) = waiting.first() {
        let what = format!(
            "policy {} would take more than half of the {} of repository {} at once, so it takes none there{}",
            first.policy,
            counted(first.tags, "tag"),
            first.repository,
            more(waiting.len() - 1, "repository waits likewise", "repositories wait likewise")
        );
        let remedy = format!(
            "`orlop policy explain {}` tells what it does there; `orlop policy confirm {}` lets it, `orlop policy rm {}` ends it",
            first.repository, first.policy, first.policy
        );
        return Check::new(NAME, Level::Warning, what, remedy);
    }
    if let Some((name, bytes_over)) = over.first() {
        let what = format!(
            "the repositories of policy {name} use {} more than its cap, and nothing can be pushed there until less is used{}",
            bytes(*bytes_over),
            more(over.len() - 1, "cap is passed, too", "caps are passed, too")
        );
        let remedy = format!(
            "nothing, while it becomes less (`orlop gc`); else delete what is pinned there, or raise the cap: `orlop policy set \
             {name}`"
        );
        return Check::new(NAME, Level::Warning, what, remedy);
    }
    let idle: Vec<_> =
        all.iter().filter(|info| info.repositories == 0).map(|info| info.policy.name.to_string()).collect();
    if !idle.is_empty() {
        let what = format!("no repository is governed by {}", some(&idle));
        let remedy = "nothing, if its repositories are still to come; else see that its pattern is what was meant: `orlop policy ls`";
        return Check::new(NAME, Level::Note, what, remedy);
    }
    if let Some((first, second)) = crossing(all) {
        let (winner, other) =
            if first.policy.precedence(&second.policy).is_lt() { (first, second) } else { (second, first) };
        let what = format!(
            "the patterns of policies {} ({}) and {} ({}) overlap, and neither lies within the other: where both match, {} governs",
            first.policy.name, first.policy.pattern, second.policy.name, second.policy.pattern, winner.policy.name
        );
        let remedy = format!(
            "nothing, if that is meant; else make one of the patterns narrower, such as that of {}",
            other.policy.name
        );
        return Check::new(NAME, Level::Note, what, remedy);
    }
    Check::ok(NAME, format!("{}, each does what it says", counted(all.len() as u64, "policy")))
}

/// Two whose patterns overlap, neither within the other. That one lies within another is how exceptions are said.
fn crossing(all: &[PolicyInfo]) -> Option<(&PolicyInfo, &PolicyInfo)> {
    let some = &all[..all.len().min(COMPARED_MAX)];
    let pairs =
        some.iter().enumerate().flat_map(|(at, first)| some[at + 1..].iter().map(move |second| (first, second)));
    pairs.into_iter().find(|(first, second)| {
        let (one, other) = (&first.policy.pattern, &second.policy.pattern);
        one.overlaps(other) && !one.covers(other) && !other.covers(one)
    })
}

fn more(count: usize, one: &str, many: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!("; 1 {one}"),
        count => format!("; {count} {many}"),
    }
}
