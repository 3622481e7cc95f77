//! One run at a time, whose report goes to all who asked while it went on; and the flag that ends it early.

use std::{sync::PoisonError, time::Duration};

use crate::{
    registry::RegistryError,
    store::StoreError,
    sync::{
        self, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// A flag that ends work at its next safe point.
#[derive(Debug, Default)]
pub(super) struct Stop {
    set: AtomicBool,
    turn: Mutex<()>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn set(&self) {
        self.set.store(true, Ordering::Release);
        drop(self.turn.lock());
        self.changed.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// # Errors
    /// When it is set.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.is_set() {
            true => {
                Err(StoreError::Unavailable("the store is closing; what was not done is done by the next run".into()))
            }
            false => Ok(()),
        }
    }

    /// Rests, but not for longer than until the flag is set.
    pub(super) fn rest(&self, time: Duration) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        sync::wait_for(&self.changed, turn, time, |()| !self.is_set());
    }
}

/// Runs of one kind.
#[derive(Debug)]
pub(super) struct Runs<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// Runs that have begun.
    begun: u64,
    running: bool,
    /// What the last one came to.
    last: Option<Result<T, RegistryError>>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { begun: 0, running: false, last: None }), ended: Condvar::new() }
    }
}

/// The right to run.
struct Turn<'a, T> {
    runs: &'a Runs<T>,
    result: Option<Result<T, RegistryError>>,
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let panicked =
            || Err(RegistryError::Failed("the run ended by a fault of orlop's; the log says more".to_owned()));
        let mut state = self.runs.state();
        state.running = false;
        state.last = Some(self.result.take().unwrap_or_else(panicked));
        drop(state);
        self.runs.ended.notify_all();
    }
}

impl<T: Clone> Runs<T> {
    /// Runs, or waits for the run under way and takes what that comes to.
    pub(super) fn join(&self, run: impl FnOnce() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut state = self.state();
        if state.running {
            let joined = state.begun;
            while state.running && state.begun == joined {
                state = self.wait(state);
            }
            if let Some(result) = &state.last {
                return result.clone();
            }
        }
        self.begin(state, run)
    }

    /// Waits for the run under way, and runs then.
    pub(super) fn follow(&self, run: impl FnOnce() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut state = self.state();
        while state.running {
            state = self.wait(state);
        }
        self.begin(state, run)
    }

    pub(super) fn is_running(&self) -> bool {
        self.state().running
    }

    fn begin(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        run: impl FnOnce() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        state.running = true;
        state.begun += 1;
        drop(state);
        let mut turn = Turn { runs: self, result: None };
        let result = run();
        turn.result = Some(result.clone());
        result
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.ended.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Runs<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
