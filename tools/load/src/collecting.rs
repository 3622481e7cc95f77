//! Workload: deleted images are collected, and a large index loses its tag, while pulls and pushes go on at a set share of what
//! the server can do. How long each of them takes before, meanwhile and after, and what the disk holds.
//!
//! It finds the capacity by clients that ask as fast as they are answered, then loads by the clock (`paced`). It judges that no
//! request fails, that what was deleted goes and the rest stays, never how long anything took.

mod images;
mod paced;
mod phases;
mod settling;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    admin::{Admin, du},
    clients::{self, Bounds},
    error::LoadError,
    registry::Client,
};
use images::{Image, Images};
use paced::Paced;
use phases::{Phases, Row};

/// The organisation that is loaded, and the one whose images are deleted.
const LOADED: &str = "loaded";
const DELETED: &str = "deleted";
/// One of so many pieces is a push.
const PUSH_EVERY: u64 = 5;
/// Clients of the load by the clock: enough for all that is under way while the server stands still for a moment.
const PACED_CLIENTS: u64 = 64;
/// How long the load goes on alone after clients that waited for nothing: what has queued up behind them belongs to no phase
/// that is compared.
const REST: Duration = Duration::from_secs(2);
const MIB: f64 = 1024.0 * 1024.0;

/// How much of what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Collecting {
    /// The registry, as host:port
    #[arg(long, default_value = "127.0.0.1:5000")]
    address: String,
    /// Its data directory, for du
    #[arg(long)]
    data: PathBuf,
    /// Images that are deleted and collected
    #[arg(long, default_value_t = 1_000)]
    deleted: u64,
    /// Images that stay, and are pulled meanwhile
    #[arg(long, default_value_t = 200)]
    kept: u64,
    /// How often that is done
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Manifests of the index that loses its tag; none for no index
    #[arg(long, default_value_t = 28_000)]
    children: u64,
    /// How often it does
    #[arg(long, default_value_t = 5)]
    losses: u64,
    /// Clients that find the capacity
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Share of the capacity in percent that the load is
    #[arg(long, default_value_t = 72)]
    share: u64,
    /// Seconds that the capacity is looked for, and before and after each collection
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Push and delete, and end there
    #[arg(long)]
    only_delete: bool,
    /// Names what is pushed; another one for each run on a server
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A piece of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pull,
    Push,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

impl Collecting {
    /// Does all of it; figures, and what was wrong.
    ///
    /// # Errors
    /// The first call outside of the load that was not done.
    pub(crate) fn run(&self) -> Result<(Value, Vec<String>), LoadError> {
        if self.kept == 0 || self.rounds == 0 {
            return Err(LoadError::Usage("--kept and --rounds need at least 1".to_owned()));
        }
        let (images, mut wrong) = (Images::new(), Vec::new());
        self.push_stock(&images, 0)?;
        if self.only_delete {
            self.delete(&images, 0)?;
            return Ok((json!({ "pushed": self.kept + self.deleted, "deleted": self.deleted }), wrong));
        }
        let rate = self.rate(&images, 10)?;
        let phases = Phases::begin("before");
        let (rounds, paced) = self.loaded(&images, rate, 1, || {
            (0..self.rounds).map(|round| self.round(&images, &phases, round, &mut wrong)).collect::<Result<Vec<_>, _>>()
        })?;
        let collecting = tell(&phases, &paced, &mut wrong);
        let together = phases.together(&paced.samples, "before", ("at work", &["collecting", "compacting"]));
        self.check_kept(&images)?;
        let settling = if self.children > 0 { self.settling(&images, &mut wrong)? } else { Vec::new() };
        let json = |rows: &[Row]| rows.iter().map(Row::to_json).collect::<Value>();
        let figures = json!({
            "load_per_second": rate,
            "rounds": rounds,
            "collecting": json(&collecting),
            "together": json(&together),
            "settling": json(&settling),
            "wrong": wrong.len(),
        });
        Ok((figures, wrong))
    }

    fn kept(&self, number: u64) -> Image {
        Image { organisation: LOADED, key: self.key(0), number }
    }

    fn deleted(&self, round: u64, number: u64) -> Image {
        Image { organisation: DELETED, key: self.key(100 + round), number }
    }

    /// A key for each use of content.
    fn key(&self, of: u64) -> u64 {
        self.seed.wrapping_mul(1_000).wrapping_add(of)
    }

    /// Pushes what is deleted in a round; in the first one also what stays, among the others in the same segments.
    fn push_stock(&self, images: &Images, round: u64) -> Result<(), LoadError> {
        let count = self.deleted.max(1);
        self.all(count, |client, number| {
            if number < self.deleted {
                images.push(client, self.deleted(round, number))?;
            }
            let kept = if round == 0 { number * self.kept / count..(number + 1) * self.kept / count } else { 0..0 };
            kept.into_iter().try_for_each(|kept| Ok(images.push(client, self.kept(kept))?))
        })
    }

    /// Deletes what a round is about.
    fn delete(&self, images: &Images, round: u64) -> Result<(), LoadError> {
        self.all(self.deleted, |client, number| Ok(images.delete(client, self.deleted(round, number))?))
    }

    /// Does `0..count` by the clients.
    fn all(
        &self,
        count: u64,
        work: impl Fn(&mut Client, u64) -> Result<(), LoadError> + Sync,
    ) -> Result<(), LoadError> {
        clients::run(&Bounds::all(self.clients, count), |_| Client::new(&self.address), work).map(drop)
    }

    /// A piece of the load; `key` and `index` name what it pushes.
    fn piece(&self, images: &Images, client: &mut Client, key: u64, index: u64) -> Result<Kind, LoadError> {
        if index.is_multiple_of(PUSH_EVERY) {
            images.push(client, Image { organisation: LOADED, key: self.key(key), number: index })?;
            return Ok(Kind::Push);
        }
        images.pull(client, self.kept(fastrand::u64(..self.kept)))?;
        Ok(Kind::Pull)
    }

    /// Pieces a second that the load is: the share of what clients get done that wait for nothing but answers. Looked for
    /// before each part, as what a machine can do changes with what else it does.
    fn rate(&self, images: &Images, key: u64) -> Result<f64, LoadError> {
        let time = Some(Duration::from_secs(self.seconds));
        let bounds = Bounds { clients: self.clients, count: u64::MAX, time, errors_max: 0 };
        let start = |_| Client::new(&self.address);
        let figures = clients::run(&bounds, start, |client, index| self.piece(images, client, key, index))?;
        let capacity = figures.pieces.len() as f64 / figures.elapsed.as_secs_f64();
        let rate = capacity * self.share as f64 / 100.0;
        println!("capacity {capacity:.0} images a second by {} clients; the load is {rate:.0}", self.clients);
        Ok(rate)
    }

    /// Does something under the load.
    fn loaded<T>(
        &self,
        images: &Images,
        rate: f64,
        key: u64,
        work: impl FnOnce() -> Result<T, LoadError>,
    ) -> Result<(T, Paced<Kind>), LoadError> {
        let stop = AtomicBool::new(false);
        let (done, paced) = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let start = |_| Client::new(&self.address);
                paced::run(rate, PACED_CLIENTS, &stop, start, |client, index| self.piece(images, client, key, index))
            });
            let done = work();
            stop.store(true, Ordering::Relaxed);
            (done, load.join())
        });
        Ok((done?, paced.map_err(|_| LoadError::Usage("the load panicked".to_owned()))?))
    }

    /// One round: a time before, the deletion, the collection, a time after.
    fn round(&self, images: &Images, phases: &Phases, round: u64, wrong: &mut Vec<String>) -> Result<Value, LoadError> {
        let mut admin = Admin::new(&self.address);
        if round > 0 {
            phases.enter("pushing more");
            self.push_stock(images, round)?;
            rest(phases);
            phases.enter("before");
        }
        thread::sleep(Duration::from_secs(self.seconds));
        let before = du(&self.data)?;
        phases.enter("deleting");
        self.delete(images, round)?;
        rest(phases);
        let deleted = du(&self.data)?;

        phases.enter("collecting");
        let began = Instant::now();
        let collection = admin.purge(DELETED)?;
        let collected = began.elapsed();
        phases.enter("compacting");
        let compaction = admin.compact()?;
        let compacted = began.elapsed().saturating_sub(collected);
        let after = du(&self.data)?;
        phases.enter("after");
        thread::sleep(Duration::from_secs(self.seconds));

        let number = |report: &Value, field: &str| report[field].as_u64().unwrap_or(0);
        println!(
            "round {round}: purged in {:.2} s ({:.1} MiB of content freed, {:.1} MiB of disk returned), compacted in {:.2} s \
             ({} records moved, {:.1} MiB returned); du: {:.1} MiB before, {:.1} MiB deleted, {:.1} MiB collected",
            collected.as_secs_f64(),
            number(&collection, "freed_bytes") as f64 / MIB,
            number(&collection, "returned_bytes") as f64 / MIB,
            compacted.as_secs_f64(),
            number(&compaction, "moved_records"),
            number(&compaction, "returned_bytes") as f64 / MIB,
            before as f64 / MIB,
            deleted as f64 / MIB,
            after as f64 / MIB,
        );
        let (freed, least) = (number(&collection, "freed_bytes"), self.deleted * Images::own_bytes());
        if freed < least {
            wrong.push(format!("round {round}: the collection freed {freed} bytes; what was deleted has {least}"));
        }
        self.check_deleted(images, round, wrong)?;
        Ok(json!({
            "collect_seconds": collected.as_secs_f64(),
            "compact_seconds": compacted.as_secs_f64(),
            "freed_bytes": freed,
            "returned_bytes": collection["returned_bytes"],
            "moved_records": compaction["moved_records"],
            "du_before": before,
            "du_deleted": deleted,
            "du_collected": after,
        }))
    }

    /// What was deleted does not answer.
    fn check_deleted(&self, images: &Images, round: u64, wrong: &mut Vec<String>) -> Result<(), LoadError> {
        let mut client = Client::new(&self.address);
        for number in 0..self.deleted {
            let image = self.deleted(round, number);
            if !images.is_gone(&mut client, image)? {
                wrong.push(format!("image {number} of {} is still there", image.repository()));
            }
        }
        Ok(())
    }

    /// What stays is whole.
    fn check_kept(&self, images: &Images) -> Result<(), LoadError> {
        self.all(self.kept, |client, number| Ok(images.pull(client, self.kept(number))?))
    }
}

fn rest(phases: &Phases) {
    phases.enter("resting");
    thread::sleep(REST);
}

/// Prints what the load was like, and notes its failures.
fn tell(phases: &Phases, paced: &Paced<Kind>, wrong: &mut Vec<String>) -> Vec<Row> {
    let rows = phases.rows(&paced.samples);
    println!("{}", Row::head());
    rows.iter().for_each(|row| println!("{}", row.line()));
    println!("{} requests for images, {} failed", paced.samples.len() as u64 + paced.errors, paced.errors);
    if let Some(error) = &paced.first_error {
        wrong.push(format!("{} requests failed, first: {error}", paced.errors));
    }
    rows
}
