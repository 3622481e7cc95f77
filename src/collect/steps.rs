//! Two ways to take the steps of a run: in the committer, or on paper.
//!
//! A dry run takes the same steps as a real one, over a view of the state in a batch that is never written: so its plan is
//! what would happen, with all that a drop makes possible next.

use std::{
    collections::BTreeMap,
    mem,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use crate::{
    index::{
        View,
        schema::{self, Applied, RowValue, SchemaError, SettlingRow, Table, key},
    },
    registry::Registry,
    state::{
        decide::Batch,
        request::{Outcome, Refusal, Request},
    },
    store::{Store, StoreError},
    sync::mpsc::channel,
};

use super::Stop;

/// Steps that a plan takes at most: each is held in memory.
const PLANNED_STEPS: usize = 10_000;
/// How long a step waits for a place in the committer's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a pass waits for what was settling when it began to wait. What is not settled then is looked at again by the next
/// run.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// How many times as long as a piece of work the rest after it is, while clients ask for anything.
const RESTS: u32 = 4;
/// The longest of these rests: what takes longer than pieces do has waited itself, for those who read what is erased, or for a
/// pace.
const REST_MAX: Duration = Duration::from_millis(200);
/// Requests, or records, of a piece while clients ask for anything: some of them in a batch of the committer hold it up for a
/// millisecond or two.
const PIECE_MAX: usize = 32;

/// What a request came to; a refusal is no failure.
pub(super) type Decided = Result<Outcome, Refusal>;

/// A way to take steps.
pub(super) trait Steps {
    /// Reads the state after the steps so far.
    fn read<R>(&self, read: impl FnOnce(&dyn View) -> R) -> R;

    /// Takes steps, in any order.
    fn take(&mut self, requests: Vec<Request>) -> Result<Vec<Decided>, StoreError>;

    /// Waits until what they have changed is told to all that it concerns.
    fn settle(&mut self) -> Result<(), StoreError>;

    /// Why no more steps can be taken, if so.
    fn end(&self) -> Option<String>;
}

/// Steps in the committer, several in flight so that they share its syncs.
pub(super) struct Live<'a> {
    pub(super) store: &'a Store,
    pub(super) stop: &'a Stop,
}

impl Live<'_> {
    /// One request, which waits for its turn while the queue is full.
    pub(super) fn commit(&self, request: &Request) -> Result<Outcome, StoreError> {
        let began = Instant::now();
        loop {
            match self.store.commit(request.clone()) {
                Err(StoreError::Overloaded) if began.elapsed() < QUEUE_PATIENCE && !self.stop.is_set() => {
                    self.stop.rest(LOOK * 10);
                }
                result => return result,
            }
        }
    }
}

impl Live<'_> {
    /// All requests at once; what each came to.
    pub(super) fn commit_all(&self, requests: &[Request]) -> Vec<Result<Outcome, StoreError>> {
        let (send, receive) = channel();
        for (at, request) in requests.iter().enumerate() {
            let send = send.clone();
            self.store.submit(request.clone(), Box::new(move |result| drop(send.send((at, result)))));
        }
        drop(send);
        let mut results: BTreeMap<usize, Result<Outcome, StoreError>> = receive.into_iter().collect();
        let lost = || Err(StoreError::Unavailable("the store was closed".to_owned()));
        let result = |(at, request): (usize, &Request)| match results.remove(&at).unwrap_or_else(lost) {
            Err(StoreError::Overloaded) => self.commit(request),
            result => result,
        };
        requests.iter().enumerate().map(result).collect()
    }
}

/// How work in the background gives way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// After how long it does not rest any more for those who ask.
    pub(super) behind_max: Duration,
    /// The longest rest, as long as the piece before it, that it has whoever asks: for clients of whom nothing is seen but that
    /// they are served, as long as a transfer takes, and for the disk.
    pub(super) always_max: Duration,
}

impl Patience {
    /// The rest after a piece that `took` so long, of work that has `gone_on` for so long.
    pub(super) fn rest(&self, took: Duration, gone_on: Duration, is_asked: bool) -> Duration {
        let always = took.min(self.always_max);
        if !is_asked {
            return always;
        }
        let left = self.behind_max.saturating_sub(gone_on).div_duration_f64(self.behind_max);
        always.max((took * RESTS).min(REST_MAX).mul_f64(left))
    }
}

/// Work in the background that gives way to clients: each piece is followed by a rest of so many times its length, for as long
/// as they ask for anything. These rests become shorter the longer it goes on, and none are left after a while: it must come to
/// an end while clients never pause.
pub(super) struct GivingWay<'a> {
    stop: &'a Stop,
    registry: &'a Registry,
    began: Instant,
    patience: Patience,
    /// How often clients had asked when the last piece ended.
    asked: u64,
    /// Whether they did during that and the rest before it. Taken to be so before the first.
    is_asked: bool,
}

impl<'a> GivingWay<'a> {
    /// What begins now.
    pub(super) fn new(patience: Patience, stop: &'a Stop, registry: &'a Registry) -> Self {
        Self { stop, registry, began: Instant::now(), patience, asked: registry.times_asked(), is_asked: true }
    }

    /// Does a piece, and rests.
    pub(super) fn after<T>(&mut self, piece: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = piece();
        let asked = self.registry.times_asked();
        self.is_asked = mem::replace(&mut self.asked, asked) != asked;
        let rest = self.patience.rest(began.elapsed(), self.began.elapsed(), self.is_asked);
        if !rest.is_zero() {
            self.stop.rest(rest);
        }
        done
    }

    /// How large a piece may be that has at most `all`.
    pub(super) fn piece(&self, all: usize) -> usize {
        if self.is_asked { PIECE_MAX.min(all).max(1) } else { all.max(1) }
    }
}

/// Steps in the committer that give way.
pub(super) struct Courteous<'a> {
    pub(super) live: Live<'a>,
    pub(super) way: GivingWay<'a>,
}

impl Steps for Courteous<'_> {
    fn read<R>(&self, read: impl FnOnce(&dyn View) -> R) -> R {
        self.live.read(read)
    }

    fn take(&mut self, mut requests: Vec<Request>) -> Result<Vec<Decided>, StoreError> {
        let mut decided = Vec::with_capacity(requests.len());
        while !requests.is_empty() {
            let rest = requests.split_off(self.way.piece(requests.len()));
            decided.append(&mut self.way.after(|| self.live.take(requests))?);
            requests = rest;
        }
        Ok(decided)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.live.settle()
    }

    fn end(&self) -> Option<String> {
        self.live.end()
    }
}

impl Steps for Live<'_> {
    fn read<R>(&self, read: impl FnOnce(&dyn View) -> R) -> R {
        read(&*self.store.snapshot())
    }

    fn take(&mut self, requests: Vec<Request>) -> Result<Vec<Decided>, StoreError> {
        self.stop.check()?;
        let decided = self.commit_all(&requests).into_iter().map(|result| match result {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(StoreError::Refused(Refusal::Schema(error))) => Err(error.into()),
            Err(StoreError::Refused(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        });
        decided.collect()
    }

    /// The committer does that by itself. What others have changed since is not waited for: they may never pause.
    fn settle(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let mut settling = Vec::new();
        schema::each_row_of(&*self.store.snapshot(), Table::Settling, |key, row| {
            settling.push((key.to_vec(), SettlingRow::from_bytes(row)?));
            Ok(ControlFlow::Continue(()))
        })?;
        while let Some((key, before)) = settling.last_mut() {
            let now = self.store.snapshot().get(key)?.map(|row| SettlingRow::from_bytes(&row)).transpose()?;
            match now {
                Some(now) if now.goes_on_from(before) => *before = now,
                // It is told; or what others have changed since is being told.
                _ => {
                    settling.pop();
                    continue;
                }
            }
            if began.elapsed() >= SETTLE_PATIENCE {
                return Ok(());
            }
            if let Some(reason) = self.store.poisoned() {
                return Err(StoreError::Unavailable(reason));
            }
            self.stop.check()?;
            self.stop.rest(LOOK);
        }
        Ok(())
    }

    fn end(&self) -> Option<String> {
        None
    }
}

/// Steps on paper.
pub(super) struct Plan<'a> {
    batch: Batch<'a>,
    stop: &'a Stop,
    window_ms: u64,
    steps: usize,
}

impl<'a> Plan<'a> {
    /// `None` where nothing was ever stored.
    pub(super) fn new(
        view: &'a dyn View,
        stop: &'a Stop,
        now_ms: u64,
        window_ms: u64,
    ) -> Result<Option<Self>, SchemaError> {
        let applied: Option<Applied> = schema::get(view, key::applied())?;
        Ok(applied.map(|applied| Self { batch: Batch::new(view, applied, now_ms), stop, window_ms, steps: 0 }))
    }

    fn step(&mut self, request: &Request) -> Result<Decided, StoreError> {
        self.steps += 1;
        let decided = self.batch.decide(request);
        self.batch.records.clear();
        match decided {
            Err(Refusal::Schema(error)) => Err(error.into()),
            decided => Ok(decided),
        }
    }
}

impl Steps for Plan<'_> {
    fn read<R>(&self, read: impl FnOnce(&dyn View) -> R) -> R {
        read(&self.batch.overlay)
    }

    fn take(&mut self, requests: Vec<Request>) -> Result<Vec<Decided>, StoreError> {
        self.stop.check()?;
        requests.iter().map(|request| self.step(request)).collect()
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        let request = Request::Settle { window_ms: self.window_ms, from: 0 };
        while self.end().is_none() && matches!(self.step(&request)?, Ok(Outcome::Settling { .. })) {}
        Ok(())
    }

    fn end(&self) -> Option<String> {
        (self.steps >= PLANNED_STEPS).then(|| format!("the plan ends after {PLANNED_STEPS} steps; the run would go on"))
    }
}
