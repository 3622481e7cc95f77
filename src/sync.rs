//! Threads, and what they share: the standard library's, or those of `shuttle` under `cfg(shuttle)`.
//!
//! `shuttle` runs all threads of a test on one, switches between them wherever one of these types is touched, and so tries
//! orders that a real machine would hardly ever take; `tools/schedules` does it. Whatever a thread of the store waits for, or
//! shares with another one, comes from here; a lock of the standard library's would stop all of `shuttle`'s threads at once.
//! What only an async runtime waits for (`http`) and what the program has (`bin`) are not run so, and use `std`.
//!
//! It refuses to be more than that: it has no type of its own. `shuttle` knows no time, so the waits with an end are functions
//! here: they end at once there, after all others had a turn.

use std::time::Duration;

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic, mpsc},
    thread,
};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic, mpsc},
    thread,
};

/// [`thread::sleep`].
pub(crate) fn sleep(time: Duration) {
    #[cfg(not(shuttle))]
    thread::sleep(time);
    #[cfg(shuttle)]
    {
        let _ = time;
        thread::yield_now();
    }
}

/// [`thread::park_timeout`].
pub(crate) fn park_for(time: Duration) {
    #[cfg(not(shuttle))]
    thread::park_timeout(time);
    #[cfg(shuttle)]
    {
        let _ = time;
        thread::yield_now();
    }
}

/// Waits while something is so, for at most a time. A poisoned lock says nothing about what is waited for.
pub(crate) fn wait_for<T>(
    changed: &Condvar,
    guard: MutexGuard<'_, T>,
    time: Duration,
    is_so: impl FnMut(&mut T) -> bool,
) {
    #[cfg(not(shuttle))]
    drop(changed.wait_timeout_while(guard, time, is_so));
    #[cfg(shuttle)]
    {
        let _ = (changed, time, is_so);
        drop(guard);
        thread::yield_now();
    }
}

/// A number of this thread: those that are begun one after the other have numbers that follow one another.
pub(crate) fn thread_number() -> usize {
    #[cfg(not(shuttle))]
    {
        use atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        std::thread_local!(static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed));
        OWN.with(|own| *own)
    }
    #[cfg(shuttle)]
    usize::from(thread::current().id())
}
