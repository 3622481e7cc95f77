//! `orlop serve`: the registry over HTTP, and the work in the background that the library leaves to its caller.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use clap::Args;
use orlop::{
    collect::Collector,
    config::{Config, Loaded},
    http::{App, server},
    registry::RegistryError,
};
use rustix::net::sockopt::set_tcp_congestion;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{ConfigArguments, Failure, engine, logging};

/// How often uploads are looked at that nobody writes to; more often where they are kept for less than twice as long.
const EXPIRY_PERIOD: Duration = Duration::from_secs(60);
/// How often is written when manifests were pulled.
const PULLS_PERIOD: Duration = Duration::from_secs(300);
/// A congestion control that every kernel has and lets everybody use.
const UNPACED: &str = "reno";

/// Arguments of `orlop serve`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Host and port to listen on.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Prints the effective configuration, with the origin of each value, and ends.
    #[arg(long)]
    print_config: bool,
}

/// Serves until a signal comes, then drains and closes.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let flags = arguments.listen.iter().map(|listen| ("listen", listen.clone())).collect();
    let loaded = arguments.config.load(flags)?;
    if arguments.print_config {
        for variable in &loaded.unknown_variables {
            eprintln!("orlop: {variable} is set and is no setting");
        }
        print!("{}", loaded.describe());
        return Ok(());
    }
    let Loaded { config, unknown_variables, .. } = loaded;
    let _gathering = logging::start_serving(&config)?;
    for variable in unknown_variables {
        tracing::warn!(variable, "the environment has a variable that is no setting");
    }
    let host = engine::host(&config);
    if let Some(allowed) = host.files_allowed.filter(|&allowed| allowed < host.files_needed) {
        let wanted = host.files_needed;
        tracing::warn!(allowed, wanted, "few open files are allowed; raise the limit or lower the bounds");
    }

    let store = engine::open_store(&config)?;
    let runtime = engine::runtime(&config)?;
    let app = engine::open_app(&store, &config, host, runtime.handle())?;
    sync_policies(&app, &config)?;
    let collector = Arc::clone(app.collector());
    let scheduled = Scheduled::start(&collector)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = server::Workers::start(cores)?;
    let served = runtime.block_on(serve(app, &config, &workers));
    scheduled.end(&collector);
    drop(collector);
    // What still holds the store lives in tasks, which end with the runtime.
    drop(workers);
    drop(runtime);
    engine::close_store(store)?;
    served?;
    tracing::info!("closed");
    Ok(())
}

/// Makes the policies of the settings those of the registry. Where nothing can be written the earlier ones stay.
fn sync_policies(app: &App, config: &Config) -> Result<(), Failure> {
    match app.registry().sync_policies(&config.policies) {
        Ok(0) => {}
        Ok(changed) => tracing::info!(changed, "policies were changed as the settings say"),
        Err(RegistryError::PolicyConflict(reason)) => {
            return Err(format!("a policy of the settings is not accepted: {reason}").into());
        }
        Err(error) => tracing::error!(reason = %error, "the policies of the settings could not be taken over"),
    }
    Ok(())
}

async fn serve(app: Arc<App>, config: &Config, workers: &server::Workers) -> Result<(), Failure> {
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    if let Err(error) = unpace(&listener) {
        tracing::debug!(reason = %error, "the congestion control stays as it is");
    }
    let (signal, ending) = (until_signal()?, Arc::clone(&app));
    let shutdown = async move {
        signal.await;
        ending.end_long_work();
    };
    tracing::info!(
        listen = %listener.local_addr()?,
        data = %config.data.display(),
        version = env!("CARGO_PKG_VERSION"),
        "serving",
    );
    let (expiring, writing, idle) = (Arc::clone(&app), Arc::clone(&app), config.upload_idle);
    let scheduled = [
        tokio::spawn(every(EXPIRY_PERIOD.min(idle / 2), async move || expiring.expire_uploads(idle).await)),
        tokio::spawn(every(PULLS_PERIOD, async move || writing.write_pulls().await)),
    ];
    let drained = server::serve(listener, workers, Arc::clone(&app), config.server.clone(), shutdown).await;
    if drained.cut > 0 {
        tracing::warn!(connections = drained.cut, "connections were cut: they were not done within the grace");
    }
    scheduled.iter().for_each(tokio::task::JoinHandle::abort);
    app.close().await;
    Ok(())
}

/// A network can be congested, this machine cannot. Where connections come from here only (a proxy in front of the registry), a
/// congestion control that sends by a clock, as BBR does, would wait with the end of most answers, for some microseconds
/// and at the cost of a timer for each. Whether this is such a listener, which has another one now.
fn unpace(listener: &TcpListener) -> io::Result<bool> {
    let is_local = listener.local_addr()?.ip().is_loopback();
    if is_local {
        set_tcp_congestion(listener, UNPACED)?;
    }
    Ok(is_local)
}

/// Does something again and again.
async fn every(period: Duration, task: impl AsyncFn()) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        task().await;
    }
}

/// The threads that collect and compact by the schedule.
struct Scheduled {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Scheduled {
    fn start(collector: &Arc<Collector>) -> Result<Self, Failure> {
        let mut scheduled = Self { ended: Arc::default(), threads: Vec::new() };
        scheduled.add("collect", collector, Collector::tick)?;
        scheduled.add("compact", collector, Collector::tick_compaction)?;
        scheduled.add("scrub", collector, Collector::tick_scrub)?;
        Ok(scheduled)
    }

    /// It waits first: after a start there are clients that have waited longer.
    fn add(&mut self, name: &str, collector: &Arc<Collector>, tick: fn(&Collector) -> Duration) -> io::Result<()> {
        let (collector, ended) = (Arc::clone(collector), Arc::clone(&self.ended));
        let run = move || {
            let mut wait = collector.options().interval;
            while !ended.load(Ordering::Acquire) {
                thread::park_timeout(wait);
                wait = tick(&collector);
            }
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// What is under way ends at its next safe point.
    fn end(self, collector: &Collector) {
        self.ended.store(true, Ordering::Release);
        collector.stop();
        for thread in self.threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread of the collector has panicked");
            }
        }
    }
}

/// Completes on the first SIGTERM or SIGINT. The second ends the process at once, which is safe at any time. They are waited for on
/// a thread of their own, whatever the others wait for.
fn until_signal() -> io::Result<impl Future<Output = ()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (first, shutdown) = oneshot::channel::<()>();
    let wait = async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("shutting down; a second signal ends at once");
        // Nobody listens any more when serving has ended by itself.
        let _ = first.send(());
        next().await;
        tracing::warn!("ended by a second signal");
        std::process::exit(2);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
    Ok(async move { drop(shutdown.await) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_on_the_loopback_takes_another_congestion_control_and_others_do_not() {
        for (address, is_local) in [("127.0.0.1:0", true), ("0.0.0.0:0", false)] {
            let listener = TcpListener::bind(address).await.unwrap();
            assert_eq!(unpace(&listener).unwrap(), is_local, "{address}");
        }
    }
}
