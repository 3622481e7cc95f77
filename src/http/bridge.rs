//! The one way from handlers, which must not block, into the registry, which may.
//!
//! A read is tried at once, as far as memory goes: to hand it to another thread and back costs more than most of them. What
//! has to wait for the disk goes the way of all other calls.
//!
//! A bounded number of calls run at once, each on a thread of the runtime's blocking pool; a bounded number wait; more are
//! refused (503), so that overload shows at once instead of as timeouts. A call that has begun runs to its end, even
//! when its request is gone: what it decides is then as true as if the answer had been sent.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{runtime::Handle, sync::Semaphore};

use super::error::HttpError;
use crate::disk::Reach;

/// The bridge. Clones share its bounds.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    threads: u32,
    /// Whose blocking pool the calls run on, whichever thread their requests live on.
    runtime: Handle,
}

impl Bridge {
    /// At most `threads` calls run, on the blocking pool of `runtime`, and `queue` more wait.
    pub(super) fn new(runtime: Handle, threads: usize, queue: usize) -> Self {
        let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        let admitted = (threads as usize).saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(threads as usize)),
            admitted: Arc::new(Semaphore::new(admitted)),
            threads,
            runtime,
        }
    }

    /// Reads what is in memory here and now, and off the reactor where `read` says that it is not
    /// ([`RegistryError::OutOfReach`](crate::registry::RegistryError::OutOfReach)). It may be asked twice.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub(super) async fn read<T, E>(&self, read: impl Fn(Reach) -> Result<T, E> + Send + 'static) -> Result<T, HttpError>
    where
        T: Send + 'static,
        E: Into<HttpError> + Send + 'static,
    {
        match self.at_once(|| read(Reach::Memory)) {
            Err(error) if error.is_out_of_reach() => self.call(move || read(Reach::Disk)).await,
            result => result,
        }
    }

    /// Does here and now what waits for nothing but other threads' short steps in memory.
    ///
    /// # Errors
    /// What the call returns; 503 when the server closes; 500 when the call panicked.
    pub(super) fn at_once<T, E: Into<HttpError>>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, HttpError> {
        if self.running.is_closed() {
            return Err(HttpError::closing());
        }
        // What it leaves behind by a panic is what a panic on another thread would: the registry's locks bear that.
        match catch_unwind(AssertUnwindSafe(|| call().map_err(Into::into))) {
            Ok(result) => result,
            Err(panic) => Err(unended(said(&*panic))),
        }
    }

    /// Runs a call off the reactor.
    ///
    /// # Errors
    /// What the call returns; 503 when the queue is full or the server closes; 500 when the call panicked.
    pub(super) async fn call<T, E>(&self, call: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, HttpError>
    where
        T: Send + 'static,
        E: Into<HttpError> + Send + 'static,
    {
        let _admitted = self.admitted.try_acquire().map_err(|_| HttpError::overloaded())?;
        self.go_on(call).await
    }

    /// The same for the next step of a request that was admitted before: it waits its turn and is not refused, or a long
    /// transfer would fail in its middle by bad luck. Such requests are bounded by the connections.
    ///
    /// # Errors
    /// As of [`Self::call`], except for the full queue.
    pub(super) async fn go_on<T, E>(&self, call: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, HttpError>
    where
        T: Send + 'static,
        E: Into<HttpError> + Send + 'static,
    {
        let running = self.running.clone().acquire_owned().await.map_err(|_| HttpError::closing())?;
        let call = self.runtime.spawn_blocking(move || {
            let result = call();
            drop(running);
            result
        });
        match call.await {
            Ok(result) => result.map_err(Into::into),
            Err(panic) => Err(unended(&panic.to_string())),
        }
    }

    /// Refuses new calls and waits for those that run.
    pub(super) async fn close(&self) {
        // An error says that another caller has closed it, so nothing runs any more.
        if let Ok(_all) = self.running.acquire_many(self.threads).await {
            self.running.close();
        }
    }
}

/// The answer to a call that panicked.
fn unended(why: &str) -> HttpError {
    HttpError::bug(format!("a call into the registry did not end: {why}"))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;
    use crate::registry::RegistryError;

    #[tokio::test]
    async fn beyond_the_queue_a_call_is_refused_with_retry_after() {
        let bridge = Bridge::new(Handle::current(), 1, 1);
        let (release, wait) = mpsc::channel::<()>();
        let first = bridge.clone();
        let first =
            tokio::spawn(async move { first.call(move || wait.recv().map_err(|_| HttpError::overloaded())).await });
        let second = bridge.clone();
        let second = tokio::spawn(async move { second.call(|| Ok::<_, RegistryError>(2)).await });
        while bridge.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let error = bridge.call(|| Ok::<_, RegistryError>(3)).await.unwrap_err();
        assert_eq!(error.status().as_u16(), 503);
        assert!(error.into_response(&super::super::buffers::Buffers::new(0)).headers().contains_key("retry-after"));
        release.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
        assert_eq!(second.await.unwrap().ok(), Some(2));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_and_gives_its_place_back() {
        let bridge = Bridge::new(Handle::current(), 1, 0);
        let error = bridge.call(|| -> Result<(), RegistryError> { panic!("a bug") }).await.unwrap_err();
        assert_eq!(error.status().as_u16(), 500);
        assert_eq!(bridge.call(|| Ok::<_, RegistryError>(1)).await.ok(), Some(1));
    }

    #[tokio::test]
    async fn what_is_not_in_memory_is_read_off_the_reactor() {
        let bridge = Bridge::new(Handle::current(), 1, 0);
        let here = std::thread::current().id();
        let read = move |reach| match reach {
            Reach::Memory => Err(RegistryError::OutOfReach),
            Reach::Disk => Ok(std::thread::current().id()),
        };
        assert_ne!(bridge.read(read).await.ok(), Some(here));
        let read = |reach| Ok::<_, RegistryError>((reach, std::thread::current().id()));
        assert_eq!(bridge.read(read).await.ok(), Some((Reach::Memory, here)));
    }

    #[tokio::test]
    async fn a_panic_of_a_read_is_a_500() {
        let bridge = Bridge::new(Handle::current(), 1, 0);
        let error = bridge.read(|_| -> Result<(), RegistryError> { panic!("a bug") }).await.unwrap_err();
        assert_eq!(error.status().as_u16(), 500);
    }

    #[tokio::test]
    async fn close_waits_for_what_runs_and_refuses_what_comes() {
        let bridge = Bridge::new(Handle::current(), 2, 0);
        let ended = Arc::new(AtomicBool::new(false));
        let (flag, other) = (ended.clone(), bridge.clone());
        let running = tokio::spawn(async move {
            other
                .call(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    flag.store(true, Ordering::SeqCst);
                    Ok::<_, RegistryError>(())
                })
                .await
        });
        while bridge.running.available_permits() == 2 {
            tokio::task::yield_now().await;
        }
        bridge.close().await;
        assert!(ended.load(Ordering::SeqCst));
        assert!(running.await.unwrap().is_ok());
        assert_eq!(bridge.call(|| Ok::<_, RegistryError>(())).await.unwrap_err().status().as_u16(), 503);
        assert_eq!(bridge.read(|_| Ok::<_, RegistryError>(())).await.unwrap_err().status().as_u16(), 503);
    }
}
