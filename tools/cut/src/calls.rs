//! Kills a real server before each of its calls that change the disk or make it durable, one after the other.
//!
//! Each kill has a store of its own, from its birth: the same load of pushes and deletes, while windows are purged, content is
//! collected and segments are compacted, journal files end and snapshots are written. So the Nth call of a kind is about
//! the same in each run, and all are met once. After a kill the start is killed too, at one of its calls of that kind; then all
//! that was acknowledged is there. What the kernel holds survives: that it is durable is what power cuts show.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value, json};

use crate::{
    command::{run, said},
    error::{CutError, file_error},
    figures::{Trial, quartiles},
    server::{LoadBounds, Programs, Server, Settings},
    tally::Tally,
    tracer::{Call, Tracer},
};

const LOAD: LoadBounds = LoadBounds { clients: 4, images: 5, seconds: 60 };
/// Between two rounds of purging, collecting and compacting.
const REST: Duration = Duration::from_millis(20);
/// Two runs do not make exactly as many calls: so many have to end by themselves before a kind is done.
const UNHURT_MAX: u64 = 3;
/// Calls of a start among which the one is chosen at which it is killed.
const START_CALLS: u64 = 12;
/// For a server that does not end when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Which calls.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Calls {
    /// Kinds of calls
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "fdatasync,fsync,rename,unlink,fallocate,truncate,mkdir"
    )]
    calls: Vec<Call>,
    /// Take only every so manieth call, beginning with one that the seed chooses
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Names what is pushed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where a store is kept that failed
    #[arg(long)]
    keep: Option<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

/// Small bounds, so that a second of load ends files, flushes the index, writes snapshots and moves content.
fn settings() -> Settings {
    let pairs = [
        ("ORLOP_REGISTRY_RETENTION_WINDOW", "1h"),
        ("ORLOP_COLLECT_INTERVAL", "100ms"),
        ("ORLOP_STORE_RESERVE_BYTES", "32MiB"),
        ("ORLOP_STORE_SHARED_SEGMENT_BYTES_MAX", "1MiB"),
        ("ORLOP_STORE_LARGE_BLOB_BYTES", "64KiB"),
        ("ORLOP_STORE_FLUSH_BYTES", "1MiB"),
        ("ORLOP_STORE_JOURNAL_FILE_BYTES_MAX", "16KiB"),
        ("ORLOP_STORE_SNAPSHOT_BYTES_MIN", "4KiB"),
        ("ORLOP_HTTP_VERIFY_BYTES_PER_SECOND", "10GiB"),
        ("ORLOP_HTTP_SHUTDOWN_GRACE", "2s"),
    ];
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

/// A run over all kinds.
struct Run<'a> {
    options: &'a Calls,
    data: PathBuf,
    acks: PathBuf,
    log: PathBuf,
    trials: Vec<Trial>,
    kills: u64,
    start_kills: u64,
}

impl Calls {
    /// Kills at all of them; the figures, and what is wrong.
    ///
    /// # Errors
    /// When the programs fail, which is no verdict.
    pub(crate) fn run(&self, work: &Path) -> Result<(Value, Vec<String>), CutError> {
        let began = Instant::now();
        let (data, acks, log) = (work.join("data"), work.join("acks"), work.join("server.log"));
        let mut run = Run { options: self, data, acks, log, trials: Vec::new(), kills: 0, start_kills: 0 };
        let (mut by_kind, mut wrong) = (Map::new(), None);
        for &call in &self.calls {
            let before = run.kills;
            wrong = run.kind(call)?;
            by_kind.insert(call.name(), (run.kills - before).into());
            if wrong.is_some() {
                break;
            }
        }
        let figures = json!({
            "trials": run.trials.len(),
            "kills": run.kills,
            "kills_by_call": by_kind,
            "kills_of_starts": run.start_kills,
            "acknowledged": quartiles(&run.trials, |trial| trial.tally.acknowledged),
            "under_way": quartiles(&run.trials, |trial| trial.tally.under_way),
            "seconds": began.elapsed().as_secs(),
        });
        Ok((figures, wrong.into_iter().collect()))
    }
}

impl Run<'_> {
    /// Kills at the calls of a kind, until there are no more; what is wrong.
    fn kind(&mut self, call: Call) -> Result<Option<String>, CutError> {
        let every = self.options.every;
        let (mut nth, mut unhurt) = (1 + self.options.seed % every, 0);
        while unhurt < UNHURT_MAX {
            let before = self.kills;
            if let Some(wrong) = self.kill_at(call, nth)? {
                let seed = self.options.seed;
                self.keep()?;
                return Ok(Some(format!("seed {seed}, killed at {} {nth}: {wrong}", call.name())));
            }
            unhurt = if self.kills > before { 0 } else { unhurt + 1 };
            nth += every;
        }
        Ok(None)
    }

    /// One life of a store; what is wrong.
    fn kill_at(&mut self, call: Call, nth: u64) -> Result<Option<String>, CutError> {
        if self.data.exists() {
            fs::remove_dir_all(&self.data).map_err(file_error(&self.data))?;
        }
        for file in [&self.acks, &self.log] {
            fs::write(file, "").map_err(file_error(file))?;
        }
        let mut server = self.launch()?;
        let tracer = Tracer::attach(server.id(), call, nth)?;
        let mut wrong = server.await_start().err();
        if wrong.is_none() {
            wrong = self.work(&mut server)?;
        }
        stop(&mut server);
        if !tracer.join()?.was_killed {
            return Ok(wrong);
        }
        self.kills += 1;
        let acks = fs::read_to_string(&self.acks).map_err(file_error(&self.acks))?;
        let tally = Tally::of(&acks);
        if tally.acknowledged > 0 && tally.under_way > 0 {
            self.trials.push(Trial { tally, unflushed: 0 });
        }
        self.kill_start(call, 1 + nth % START_CALLS)?;
        self.check(nth)
    }

    /// The load, and all that removes and moves content beside it; what is wrong.
    fn work(&self, server: &mut Server) -> Result<Option<String>, CutError> {
        let programs = &self.options.programs;
        let mut load = server.load(programs, &self.acks, self.options.seed, LOAD)?;
        loop {
            let is_over = has_ended(&mut load);
            for order in [["purge", "cut/"].as_slice(), &["gc"], &["compact"]] {
                // Before the first push there is nothing to be purged, and a server that was killed does nothing.
                server.order(programs, order)?;
            }
            if is_over || server.has_ended() {
                break;
            }
            thread::sleep(REST);
        }
        let loaded = load.wait_with_output().map_err(file_error(&programs.load))?;
        Ok((!loaded.status.success()).then(|| format!("the load: {}", said(&loaded))))
    }

    /// Starts once more, and kills that at a call of its own.
    fn kill_start(&mut self, call: Call, nth: u64) -> Result<(), CutError> {
        let mut server = self.launch()?;
        let tracer = Tracer::attach(server.id(), call, nth)?;
        // Whether it comes up is seen at the next start.
        let _ = server.await_start();
        server.kill();
        self.start_kills += u64::from(tracer.join()?.was_killed);
        Ok(())
    }

    /// Starts, and looks whether all is there; what is wrong.
    fn check(&self, nth: u64) -> Result<Option<String>, CutError> {
        let programs = &self.options.programs;
        let mut server = self.launch()?;
        if let Err(why) = server.await_start() {
            return Ok(Some(why));
        }
        let found = [
            server.check(programs, &self.acks)?,
            server.verify(programs, nth.is_multiple_of(4))?,
            server.find_unlisted(programs, &self.data)?,
        ];
        let wrong: Vec<String> = found.into_iter().flatten().collect();
        Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
    }

    fn launch(&self) -> Result<Server, CutError> {
        Server::launch(&self.options.programs, &self.data, &self.log, &settings())
    }

    /// Keeps the store as it was found to be wrong.
    fn keep(&self) -> Result<(), CutError> {
        let Some(keep) = &self.options.keep else { return Ok(()) };
        fs::create_dir_all(keep).map_err(file_error(keep))?;
        for from in [&self.data, &self.acks, &self.log] {
            run("cp", ["-a".as_ref(), from.as_os_str(), keep.as_os_str()])?;
        }
        Ok(())
    }
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

/// Lets the server end by itself, unless it is gone, as it has calls to make then, too.
fn stop(server: &mut Server) {
    let Ok(process) = i32::try_from(server.id()) else { return };
    if !server.has_ended() && kill(Pid::from_raw(process), Signal::SIGTERM).is_ok() {
        let began = Instant::now();
        while !server.has_ended() && began.elapsed() < STOP_MAX {
            thread::sleep(Duration::from_millis(5));
        }
    }
    server.kill();
}
