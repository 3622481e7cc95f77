//! Freeing so much: what is held ends in an order, the first of it first, until enough content has left.
//!
//! How much one thing gives is not known before it is tried: layers are shared. But it gives no more than all that can
//! leave with it, which is read. So a round ends the shortest run of things that could come to what is missing, drops what
//! that makes due, and looks at what has left. So no more is ended than the order demands: without the last one, all those
//! before it could not have reached the goal. On paper or for real, these are the same steps.
//!
//! Where things come from is a [`Source`]. What a later source ends may be held then; so each round begins with the first.

use crate::{
    index::{
        View,
        schema::{self, Applied, ManifestRow, RepositoryRow, SchemaError, Table, key},
    },
    registry::held_reach,
    state::{
        due,
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

/// Something that can be ended, and what does it.
struct Candidate {
    ended: Ended,
    request: Request,
    /// It gives no more than that.
    at_most_bytes: u64,
}

/// Ends things until `bytes` of content have left in this run, what was due by itself included, or nothing is left to end.
/// What was due has been dropped.
pub(super) fn reach<S: Steps>(drops: &mut Drops<'_, S>, bytes: u64) -> Result<(), StoreError> {
    let mut goal = Goal { bytes, reached: false, ended: Vec::new(), ended_more: 0, shortfall: None };
    let shortfall = loop {
        let missing = bytes.saturating_sub(drops.report.freed_bytes);
        if missing == 0 {
            break None;
        }
        if drops.steps.end().is_some() {
            break Some(Shortfall::PlanEnds);
        }
        let now_ms = drops.now_ms;
        let candidates = drops.steps.read(|view| candidates(view, now_ms, missing))?;
        if candidates.is_empty() {
            break Some(Shortfall::NothingHeld);
        }
        end(drops.steps, &mut goal, candidates)?;
        drops.run()?;
    };
    goal.reached = shortfall.is_none();
    goal.shortfall = shortfall;
    drops.report.goal = Some(goal);
    Ok(())
}

fn end<S: Steps>(steps: &mut S, goal: &mut Goal, candidates: Vec<Candidate>) -> Result<(), StoreError> {
    let (ended, requests): (Vec<Ended>, Vec<Request>) =
        candidates.into_iter().map(|candidate| (candidate.ended, candidate.request)).unzip();
    let decided = steps.take(requests)?;
    // What was refused is used again, or gone.
    let done = ended.into_iter().zip(decided).filter(|(_, decided)| decided.is_ok());
    done.for_each(|(ended, _)| goal.add(ended));
    steps.settle()
}

/// What is ended next: of the first source that has anything, in its order, as many as could give what is missing.
fn candidates(view: &dyn View, now_ms: u64, missing: u64) -> Result<Vec<Candidate>, SchemaError> {
    for source in Source::ORDER {
        let mut round = Round { view, missing, digests: DIGESTS_MAX, found: Vec::new() };
        match source {
            Source::Held => round.held(now_ms)?,
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

    fn add(&mut self, candidate: Candidate) {
        self.missing = self.missing.saturating_sub(candidate.at_most_bytes);
        self.found.push(candidate);
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
                    let name = schema::expect::<RepositoryRow>(self.view, key::repository(repository))?.name;
                    let reach = held_reach(self.view, repository, &digest, &mut self.digests)?;
                    self.add(Candidate {
                        ended: Ended {
                            source: Source::Held,
                            repository: name,
                            digest: Some(digest),
                            tag: None,
                            left_ms: Some(row.left_ms).filter(|left_ms| *left_ms > 0),
                            until_ms: Some(row.held_until_ms),
                        },
                        request: Request::EndWindows { repository, digests: vec![digest] },
                        // What is too much to read may be all that is missing.
                        at_most_bytes: reach.unwrap_or(u64::MAX),
                    });
                }
            }
            from = page.next;
        }
        Ok(())
    }
}
