//! Where the time of operations comes from: the clocks of the operating system, or a test's own.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::sync::atomic::{AtomicU64, Ordering};

/// A wall clock, and one that only ever runs on. Clones are the same clocks.
#[derive(Clone)]
pub struct Clock(Arc<Kind>);

enum Kind {
    System { began: Instant },
    Manual { wall_ms: AtomicU64, monotonic_ms: AtomicU64 },
}

impl Default for Clock {
    /// Those of the operating system.
    fn default() -> Self {
        Self(Arc::new(Kind::System { began: Instant::now() }))
    }
}

impl Clock {
    /// Clocks that stand until they are moved; the wall clock begins at a Unix time in milliseconds.
    pub fn manual(wall_ms: u64) -> Self {
        Self(Arc::new(Kind::Manual { wall_ms: AtomicU64::new(wall_ms), monotonic_ms: AtomicU64::new(0) }))
    }

    /// The wall clock in Unix milliseconds; a clock before 1970 counts as that.
    pub fn now_ms(&self) -> u64 {
        match &*self.0 {
            Kind::System { .. } => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as u64),
            Kind::Manual { wall_ms, .. } => wall_ms.load(Ordering::SeqCst),
        }
    }

    /// Milliseconds since some moment, whatever anybody sets the wall clock to.
    pub fn monotonic_ms(&self) -> u64 {
        match &*self.0 {
            Kind::System { began } => began.elapsed().as_millis() as u64,
            Kind::Manual { monotonic_ms, .. } => monotonic_ms.load(Ordering::SeqCst),
        }
    }

    /// Lets time pass on manual clocks.
    pub fn advance(&self, ms: u64) {
        if let Kind::Manual { wall_ms, monotonic_ms } = &*self.0 {
            wall_ms.fetch_add(ms, Ordering::SeqCst);
            monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Sets a manual wall clock, without that any time has passed.
    pub fn set_wall(&self, ms: u64) {
        if let Kind::Manual { wall_ms, .. } = &*self.0 {
            wall_ms.store(ms, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            // Not what it says now: two of them are the same clock.
            Kind::System { .. } => f.write_str("Clock(system)"),
            Kind::Manual { .. } => write!(f, "Clock({})", self.now_ms()),
        }
    }
}
