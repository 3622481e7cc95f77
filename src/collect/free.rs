//! Freeing so much: what is held ends in an order, the first of it first, until enough content has left; then tags that policies take
//! one day, in the order in which they are due; then what policies may evict, the least recently used first.
//!
//! How much one thing gives is not known before it is tried: layers are shared. But it gives no more than all that can
//! leave with it, which is read. So a round ends the shortest run of things that could come to what is missing, drops what
//! that makes due, and looks at what has left. So no more is ended than the order demands: without the last one, all those
//! before it could not have reached the goal. On paper or for real, these are the same steps.
//!
//! Where things come from is a [`Source`]. What a later source ends may be held then; so each round begins with the first.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, Applied, ManifestRow, PullRow, RepositoryRow, SchemaError, Table, TagRow, key},
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    registry::{held_reach, reach},
    state::{
        due,
        govern::{self, evict, retain},
        request::{Due, Request},
    },
    store::StoreError,
};

use super::{
    drops::Drops,
    report::{Ended, Goal, Shortfall, Source},
    steps::Steps,
};

/// Things that a round ends at most.
const ENDED_AT_ONCE: usize = 200;
/// Digests that are read in a round for what things can give; one whose part does not fit in ends its round.
const DIGESTS_MAX: usize = 100_000;
/// Of each policy so many manifests are looked at for those that were used least recently.
const CANDIDATES: usize = 1_000;
/// Tags that are looked at in a round.
const TAGS_LOOKED_AT: usize = 4 * ENDED_AT_ONCE;
/// Rounds in a row that come to nothing because others use what they were about, before the run gives up.
const VAIN_ROUNDS_MAX: usize = 3;

/// When a manifest was pulled last, as far as that is remembered better than the index has it.
pub(super) type Pulled<'a> = &'a dyn Fn(RepositoryId, &Digest) -> Option<u64>;

/// Something that can be ended, and what does it.
struct Candidate {
    ended: Ended,
    request: Request,
    /// Ends the window of what the request leaves held, as otherwise its blobs would keep the grace of their upload.
    then: Option<Request>,
}

/// Ends things until `bytes` of content have left in this run, what was due by itself included, or nothing is left to end.
/// What was due has been dropped.
pub(super) fn free<S: Steps>(drops: &mut Drops<'_, S>, bytes: u64, pulled: Pulled<'_>) -> Result<(), StoreError> {
    let mut goal = Goal { bytes, reached: false, ended: Vec::new(), ended_more: 0, shortfall: None };
    let mut vain_rounds = 0;
    let shortfall = loop {
        let missing = bytes.saturating_sub(drops.report.freed_bytes);
        if missing == 0 {
            break None;
        }
        if drops.steps.end().is_some() {
            break Some(Shortfall::PlanEnds);
        }
        let now_ms = drops.now_ms;
        let candidates = drops.steps.read(|view| candidates(view, now_ms, missing, pulled))?;
        if candidates.is_empty() || vain_rounds == VAIN_ROUNDS_MAX {
            break Some(Shortfall::NothingLeft);
        }
        vain_rounds = if end(drops.steps, &mut goal, candidates)? > 0 { 0 } else { vain_rounds + 1 };
        drops.run()?;
    };
    goal.reached = shortfall.is_none();
    goal.shortfall = shortfall;
    drops.report.goal = Some(goal);
    Ok(())
}

/// Ends candidates; how many.
fn end<S: Steps>(steps: &mut S, goal: &mut Goal, candidates: Vec<Candidate>) -> Result<usize, StoreError> {
    let decided = steps.take(candidates.iter().map(|candidate| candidate.request.clone()).collect())?;
    // What was refused is used again, or gone.
    let (mut count, mut then) = (0, Vec::new());
    for (candidate, _) in candidates.into_iter().zip(decided).filter(|(_, decided)| decided.is_ok()) {
        goal.add(candidate.ended);
        then.extend(candidate.then);
        count += 1;
    }
    if !then.is_empty() {
        steps.take(then)?;
    }
    steps.settle()?;
    Ok(count)
}

/// What is ended next: of the first source that has anything, in its order, as many as could give what is missing.
fn candidates(view: &dyn View, now_ms: u64, missing: u64, pulled: Pulled<'_>) -> Result<Vec<Candidate>, SchemaError> {
    for source in Source::ORDER {
        let mut round = Round { view, missing, digests: DIGESTS_MAX, found: Vec::new() };
        match source {
            Source::Held => round.held(now_ms)?,
            Source::SpareTag => round.spare_tags()?,
            Source::LeastUsed => round.least_used(pulled)?,
        }
        if !round.found.is_empty() {
            return Ok(round.found);
        }
    }
    Ok(Vec::new())
}

/// Candidates of one round.
struct Round<'a> {
    view: &'a dyn View,
    /// What is to be given by more than those that were found.
    missing: u64,
    digests: usize,
    found: Vec<Candidate>,
}

impl Round<'_> {
    fn is_full(&self) -> bool {
        self.missing == 0 || self.found.len() >= ENDED_AT_ONCE
    }

    /// Adds what a request ends. What is too much to read may be all that is missing.
    fn add(&mut self, ended: Ended, request: Request, then: Option<Request>, at_most_bytes: Option<u64>) {
        self.missing = self.missing.saturating_sub(at_most_bytes.unwrap_or(u64::MAX));
        self.found.push(Candidate { ended, request, then });
    }

    fn name(&self, repository: RepositoryId) -> Result<RepositoryName, SchemaError> {
        Ok(schema::expect::<RepositoryRow>(self.view, key::repository(repository))?.name)
    }

    /// Held manifests, in the order in which their windows end.
    fn held(&mut self, now_ms: u64) -> Result<(), SchemaError> {
        let applied: Option<Applied> = schema::get(self.view, key::applied())?;
        let now_ms = now_ms.max(applied.map_or(0, |applied| applied.time_ms));
        // What is due by then and is still there was refused, or waits for others; its time was looked at.
        let mut from = Some([&[Table::DueManifests as u8][..], &now_ms.saturating_add(1).to_be_bytes()].concat());
        while let Some(begin) = from.filter(|_| !self.is_full()) {
            let page = due::page(self.view, Table::DueManifests, Some(&begin), u64::MAX - 1, ENDED_AT_ONCE)?;
            for item in page.items {
                if let Due::Manifest { repository, digest } = item
                    && !self.is_full()
                    && let Some(row) = schema::get::<ManifestRow>(self.view, key::manifest(repository, &digest))?
                {
                    let ended = Ended {
                        left_ms: Some(row.left_ms).filter(|left_ms| *left_ms > 0),
                        until_ms: Some(row.held_until_ms),
                        ..Ended::new(Source::Held, self.name(repository)?, Some(digest))
                    };
                    let reach = held_reach(self.view, repository, &digest, &mut self.digests)?;
                    self.add(ended, end_window(repository, digest), None, reach);
                }
            }
            from = page.next;
        }
        Ok(())
    }

    /// Tags that policies take one day, in the order in which they are due, pulls counted as they will be then.
    fn spare_tags(&mut self) -> Result<(), SchemaError> {
        let (repositories, _) = retain::due_repositories(self.view, None, u64::MAX - 1, ENDED_AT_ONCE)?;
        let mut next = BinaryHeap::new();
        for repository in repositories {
            if govern::agreed(self.view, repository)?.is_some() {
                next.extend(self.due_tag(repository, None)?);
            }
        }
        for _ in 0..TAGS_LOOKED_AT {
            let Some(Reverse(Spare { due_ms, repository, tag, is_exact })) = next.pop().filter(|_| !self.is_full())
            else {
                break;
            };
            if !is_exact {
                next.extend(self.due_tag(repository, Some(&(due_ms, tag.clone())))?);
            }
            let Some(row) = schema::get::<TagRow>(self.view, key::tag(repository, &tag))? else { continue };
            let pulled: Option<PullRow> = schema::get(self.view, key::pull(repository, &row.digest))?;
            let pulled_ms = pulled.map_or(0, |row| row.pulled_ms).max(row.pulled_ms);
            let policy = govern::agreed(self.view, repository)?.map(|row| row.policy);
            let exact_ms = policy.and_then(|policy| policy.due_ms(row.set_ms, pulled_ms)).unwrap_or(due_ms);
            if exact_ms > due_ms && !is_exact {
                next.push(Reverse(Spare { due_ms: exact_ms, repository, tag, is_exact: true }));
                continue;
            }
            let name = self.name(repository)?;
            let ended = Ended {
                tag: Some(tag.clone()),
                until_ms: Some(due_ms),
                ..Ended::new(Source::SpareTag, name.clone(), Some(row.digest))
            };
            let reach = reach(self.view, repository, &row.digest, &mut self.digests)?;
            let untag = Request::Untag { repository: name, tag, window_ms: 0 };
            self.add(ended, untag, Some(end_window(repository, row.digest)), reach);
        }
        Ok(())
    }

    /// The first of a repository's tags that are due one day, behind one of them.
    fn due_tag(
        &self,
        repository: RepositoryId,
        after: Option<&(u64, Tag)>,
    ) -> Result<Option<Reverse<Spare>>, SchemaError> {
        let due = retain::due_tags(self.view, repository, after, u64::MAX - 1, 1)?.pop();
        Ok(due.map(|(due_ms, tag)| Reverse(Spare { due_ms, repository, tag, is_exact: false })))
    }

    /// What policies may evict, the least recently used first, whatever is left of their caps.
    fn least_used(&mut self, pulled: Pulled<'_>) -> Result<(), SchemaError> {
        let mut all = Vec::new();
        for row in govern::policies(self.view)?.into_iter().filter(|row| row.policy.size_max_bytes.is_some()) {
            for candidate in evict::candidates(self.view, &row.policy.name, CANDIDATES)? {
                let known_ms = pulled(candidate.repository, &candidate.digest).unwrap_or(0);
                // What is only held has no use, and goes by its window.
                if candidate.used_ms > 0
                    && govern::agreed(self.view, candidate.repository)?
                        .is_some_and(|agreed| agreed.policy == row.policy)
                {
                    all.push((candidate.used_ms.max(known_ms), candidate));
                }
            }
        }
        all.sort_by_key(|(used_ms, candidate)| (*used_ms, candidate.repository, candidate.digest));
        for (used_ms, evict::Candidate { repository, digest, .. }) in all {
            if self.is_full() {
                break;
            }
            let name = self.name(repository)?;
            let ended = Ended { used_ms: Some(used_ms), ..Ended::new(Source::LeastUsed, name.clone(), Some(digest)) };
            let reach = reach(self.view, repository, &digest, &mut self.digests)?;
            let delete = Request::Delete { repository: name, digest, after: None, window_ms: 0 };
            self.add(ended, delete, Some(end_window(repository, digest)), reach);
        }
        Ok(())
    }
}

fn end_window(repository: RepositoryId, digest: Digest) -> Request {
    Request::EndWindows { repository, digests: vec![digest] }
}

/// A tag that goes one day; the first is the one that goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spare {
    due_ms: u64,
    repository: RepositoryId,
    tag: Tag,
    /// Whether pulls were looked at.
    is_exact: bool,
}
