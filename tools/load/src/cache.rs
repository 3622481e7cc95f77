//! Workload: a build cache. Traces are played against repositories that a policy caps, as fast as the server answers: what is
//! there is pulled, what is not is pushed. Beside it stands what simulated caches make of the same requests.
//!
//! It judges that the server hits as often as exact LRU does, within [`POINTS_MAX`] of a hundred, and that what the
//! repository uses is never more than its cap and one image, as the admin API tells it meanwhile.

mod images;
mod simulate;
mod traces;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    admin::Admin,
    clients::{self, Bounds},
    error::LoadError,
    registry::Client,
};
use images::Images;
use simulate::{Policy, simulate};
use traces::{Kind, Trace};

/// How far the server's hits may be from those of exact LRU, of a hundred requests.
const POINTS_MAX: f64 = 2.0;
/// A trace that wrote less than so many times the cap has not shown much.
const WRITTEN_LEAST: u64 = 10;
/// Between two looks at what is used.
const LOOK: Duration = Duration::from_millis(20);
const MIB: f64 = 1024.0 * 1024.0;

/// How much of what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Cache {
    /// The registry, as host:port
    #[arg(long, default_value = "127.0.0.1:5000")]
    address: String,
    /// Traces to play; all, unless told
    #[arg(value_enum)]
    traces: Vec<Kind>,
    /// Bytes that the cache may have
    #[arg(long, default_value_t = 8 << 20)]
    cap: u64,
    /// Requests of each trace
    #[arg(long, default_value_t = u64::MAX)]
    requests: u64,
    /// No request of a trace begins after so many seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How many clients ask at once
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Names traces and content: other seeds, other ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Asks no server: plays so many requests on paper only
    #[arg(long, value_name = "REQUESTS")]
    only_simulate: Option<u64>,
}

/// A trace while it is played.
struct Play {
    trace: Mutex<(Trace, Vec<u64>)>,
    hits: AtomicU64,
    written_bytes: AtomicU64,
    used_most_bytes: AtomicU64,
}

impl Play {
    /// The image that a request is for.
    fn image(&self, index: u64) -> u64 {
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        let (trace, asked) = &mut *trace;
        while asked.len() as u64 <= index {
            asked.push(trace.next());
        }
        asked[index as usize]
    }
}

/// What a trace came to.
struct Row {
    trace: &'static str,
    asked: Vec<u64>,
    seconds: f64,
    hits: u64,
    written_bytes: u64,
    used_most_bytes: u64,
}

impl Cache {
    /// Plays all traces; figures, and what was wrong.
    ///
    /// # Errors
    /// The first request that was not done.
    pub(crate) fn run(&self) -> Result<(Value, Vec<String>), LoadError> {
        let kinds = if self.traces.is_empty() { Kind::ALL.to_vec() } else { self.traces.clone() };
        let (images, mut wrong, mut figures) = (Images::new(self.seed), Vec::new(), Vec::new());
        println!(
            "{:<10} {:>9} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>11} {:>10} {:>10}",
            "trace",
            "requests",
            "a second",
            "hits %",
            "LRU %",
            "off by",
            "FIFO %",
            "Belady",
            "written MiB",
            "cap MiB",
            "used most"
        );
        for kind in kinds {
            let row = match self.only_simulate {
                Some(count) => Self::paper(kind, self.seed, count),
                None => self.play(&images, kind)?,
            };
            figures.push(self.judge(&images, &row, &mut wrong));
        }
        Ok((json!({ "cap_bytes": self.cap, "traces": figures, "wrong": wrong.len() }), wrong))
    }

    /// A trace that nobody plays.
    fn paper(kind: Kind, seed: u64, count: u64) -> Row {
        let mut trace = Trace::new(kind, seed);
        let asked = (0..count).map(|_| trace.next()).collect();
        Row { trace: kind.name(), asked, seconds: 0.0, hits: 0, written_bytes: 0, used_most_bytes: 0 }
    }

    fn play(&self, images: &Images, kind: Kind) -> Result<Row, LoadError> {
        let repository = format!("cache-{}/{}", self.seed, kind.name());
        Admin::new(&self.address).cap(&format!("cache-{}-{}", self.seed, kind.name()), &repository, self.cap)?;
        let play = Play {
            trace: Mutex::new((Trace::new(kind, self.seed), Vec::new())),
            hits: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            used_most_bytes: AtomicU64::new(0),
        };
        let time = Some(Duration::from_secs(self.seconds));
        let bounds = Bounds { clients: self.clients, count: self.requests, time, errors_max: 0 };
        let is_over = AtomicBool::new(false);
        let played = thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(&play, &repository, &is_over));
            let start = |_| Client::new(&self.address);
            let played =
                clients::run(&bounds, start, |client, index| Self::ask(images, &play, &repository, client, index));
            is_over.store(true, Ordering::Relaxed);
            let watched = watch.join().map_err(|_| LoadError::Usage("who watches what is used panicked".to_owned()))?;
            watched.and(played)
        })?;
        let (_, mut asked) = play.trace.into_inner().unwrap_or_else(PoisonError::into_inner);
        asked.truncate(played.pieces.len());
        Ok(Row {
            trace: kind.name(),
            asked,
            seconds: played.elapsed.as_secs_f64(),
            hits: play.hits.into_inner(),
            written_bytes: play.written_bytes.into_inner(),
            used_most_bytes: play.used_most_bytes.into_inner(),
        })
    }

    /// A request: a pull, or a push of what is not there.
    fn ask(images: &Images, play: &Play, repository: &str, client: &mut Client, index: u64) -> Result<(), LoadError> {
        let image = play.image(index);
        if images.pull(client, repository, image)? {
            play.hits.fetch_add(1, Ordering::Relaxed);
        } else {
            images.push(client, repository, image)?;
            play.written_bytes.fetch_add(images.bytes_of(image), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Looks at what is used until the trace is over, and once after that.
    fn watch(&self, play: &Play, repository: &str, is_over: &AtomicBool) -> Result<(), LoadError> {
        let mut admin = Admin::new(&self.address);
        loop {
            let is_last = is_over.load(Ordering::Relaxed);
            play.used_most_bytes.fetch_max(admin.used_bytes(repository)?, Ordering::Relaxed);
            if is_last {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
    }

    /// Prints what a trace came to, beside what it comes to on paper.
    fn judge(&self, images: &Images, row: &Row, wrong: &mut Vec<String>) -> Value {
        let requests = row.asked.len() as u64;
        let share = |hits: u64| hits as f64 * 100.0 / requests.max(1) as f64;
        let paper = |policy| simulate(policy, &row.asked, self.cap, |image| images.bytes_of(image));
        let [lru, fifo, belady] = [Policy::Lru, Policy::Fifo, Policy::Belady].map(paper);
        let is_played = self.only_simulate.is_none();
        let written_bytes = if is_played { row.written_bytes } else { lru.written_bytes };
        let off = share(row.hits) - share(lru.hits);
        println!(
            "{:<10} {requests:>9} {:>8.0} {:>7.2} {:>7.2} {:>+7.2} {:>7.2} {:>7.2} {:>11.1} {:>10.1} {:>10.2}",
            row.trace,
            requests as f64 / row.seconds.max(1e-3),
            share(row.hits),
            share(lru.hits),
            if is_played { off } else { 0.0 },
            share(fifo.hits),
            share(belady.hits),
            written_bytes as f64 / MIB,
            self.cap as f64 / MIB,
            row.used_most_bytes as f64 / MIB,
        );
        if is_played && off.abs() > POINTS_MAX {
            wrong.push(format!(
                "{}: {:.2} of 100 hit, by exact LRU {:.2}",
                row.trace,
                share(row.hits),
                share(lru.hits)
            ));
        }
        if row.used_most_bytes > self.cap + images.bytes_most() {
            wrong.push(format!("{}: {} bytes were used; the cap is {}", row.trace, row.used_most_bytes, self.cap));
        }
        if written_bytes < WRITTEN_LEAST * self.cap {
            wrong.push(format!("{}: only {written_bytes} bytes were written; the cap is {}", row.trace, self.cap));
        }
        json!({
            "trace": row.trace,
            "requests": requests,
            "seconds": row.seconds,
            "hit_percent": share(row.hits),
            "lru_percent": share(lru.hits),
            "fifo_percent": share(fifo.hits),
            "belady_percent": share(belady.hits),
            "written_bytes": written_bytes,
            "used_most_bytes": row.used_most_bytes,
        })
    }
}
