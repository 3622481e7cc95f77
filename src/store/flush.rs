//! The thread that flushes the index, so that a start has little to replay.
//!
//! It is woken when the journal has grown by the set number of bytes since the last flush. Now and then it also looks
//! whether blocks can be set aside for a full disk. A flush that fails loses nothing of the index, which the journal has. But the
//! disk may have lost what others wrote: the committer asks for that before it acknowledges anything more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::sync::{
    atomic::Ordering,
    mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use super::{Shared, reserve};

/// How soon blocks are set aside again after a full disk, at most.
const RESERVE_PERIOD: Duration = Duration::from_secs(10);

pub(super) struct Flusher {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the flusher that the journal has grown.
pub(super) struct Waker(Option<SyncSender<()>>);

impl Waker {
    pub(super) fn grew(&self, shared: &Shared, bytes: u64) {
        let unflushed = shared.unflushed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(wake) = self.0.as_ref().filter(|_| unflushed >= shared.options.flush_bytes) {
            // When a wake-up waits already, one more is not needed.
            let _ = wake.try_send(());
        }
    }
}

impl Flusher {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (wake, woken) = sync_channel(1);
        let thread = thread::Builder::new().name("index-flush".to_owned()).spawn(move || {
            loop {
                match woken.recv_timeout(RESERVE_PERIOD) {
                    Ok(()) => flush(&shared),
                    Err(RecvTimeoutError::Timeout) => reserve::keep(&*shared.disk, &shared.options),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        let thread = thread.inspect_err(|error| tracing::error!(%error, "cannot start the index's flush thread")).ok();
        Self { wake: Some(wake), thread }
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(self.wake.clone())
    }

    /// Ends the thread; the committer, which holds the waker, has ended before.
    pub(super) fn stop(&mut self) {
        self.wake.take();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the index's flush thread has panicked");
        }
    }
}

fn flush(shared: &Shared) {
    let unflushed = shared.unflushed.load(Ordering::Relaxed);
    if unflushed < shared.options.flush_bytes {
        return;
    }
    let began = Instant::now();
    reserve::spend_if_short(&*shared.disk, &shared.options);
    match shared.index.flush() {
        Ok(()) => {
            reserve::keep(&*shared.disk, &shared.options);
            // What came during the flush may or may not be in it; it counts for the next one.
            shared.unflushed.fetch_sub(unflushed, Ordering::Relaxed);
            tracing::debug!(
                journal_bytes = unflushed,
                duration_ms = began.elapsed().as_millis() as u64,
                "index flushed"
            );
        }
        Err(error) => tracing::error!(%error, "the index was not flushed; a start will replay more"),
    }
}
