//! The threads that connections live on, each with a reactor of its own.
//!
//! A connection stays where it was put. Threads that share their tasks wake each other for each request and hand connections
//! from core to core, which costs more than most requests; here nobody waits for another thread unless a call has to go off
//! the reactor. It knows nothing of connections but how many each thread has.

use std::{
    io, iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Threads for connections. Dropping them ends all that runs there.
#[derive(Debug)]
pub struct Workers {
    first: Worker,
    others: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// `None` once it was told to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` of them, at least one.
    ///
    /// # Errors
    /// When a thread or its reactor cannot be had.
    pub fn start(count: usize) -> io::Result<Self> {
        let others = (1..count).map(|_| Worker::start()).collect::<io::Result<_>>()?;
        Ok(Self { first: Worker::start()?, others })
    }

    /// The one with the fewest connections, and its count, which is one higher until the answer is dropped.
    pub(super) fn seat(&self) -> (&Handle, Seated) {
        let count = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let fewer = |least, other| if count(other) < count(least) { other } else { least };
        let worker = self.others.iter().fold(&self.first, fewer);
        worker.connections.fetch_add(1, Ordering::Relaxed);
        (&worker.runtime, Seated(Arc::clone(&worker.connections)))
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // An error says that nobody is left who could tell it to stop.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name("orlop-http".to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, connections: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut workers: Vec<&mut Worker> = iter::once(&mut self.first).chain(&mut self.others).collect();
        workers.iter_mut().for_each(|worker| drop(worker.stop.take()));
        for thread in workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of connections has panicked");
            }
        }
    }
}

/// A connection's place on a thread.
#[derive(Debug)]
pub(super) struct Seated(Arc<AtomicUsize>);

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
