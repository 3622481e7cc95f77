//! Cuts again and again: load, cut, recover, look whether all that was acknowledged is there.
//!
//! A store goes through many cuts, each on what the one before has left. The log of acknowledgements lies on another file
//! system and is read before the image is taken.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::Value;

use crate::{
    breaking::is_refusal,
    command::{run, said},
    content::{BLOCK_BYTES, Survival},
    error::{CutError, file_error},
    figures::{Figures, Trial},
    mount::Faults,
    server::{LoadBounds, Programs, Server, Settings, draw_settings},
    tally::{Tally, merge, whole_lines},
    tree::Tree,
};

/// Cuts that one store goes through.
const CUTS_PER_STORE: u64 = 15;
/// The load ends with the server; the time is for a server that does not end.
const LOAD: LoadBounds = LoadBounds { clients: 8, images: u64::MAX, seconds: 3600 };

/// How long a cut is put off for a moment in which more can be lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether it has come.
const LOOK: Duration = Duration::from_micros(200);

/// What can lose its power.
pub(crate) trait Ground {
    /// Makes it new and empty.
    fn fresh(&mut self) -> Result<(), CutError>;
    /// All as it is at this moment, with what is not durable, if so many blocks of 4 KiB and changes of names could be lost
    /// now. It goes on by itself.
    fn freeze(&self, unflushed_min: u64) -> Option<Tree>;
    /// What goes wrong from now on, or takes its time.
    fn set_faults(&self, faults: Faults);
    /// Calls that failed on purpose so far.
    fn failed(&self) -> u64;
    /// Goes on from what a cut has left.
    fn go_on_from(&mut self, image: Tree) -> Result<(), CutError>;
    /// The directory of what is stored.
    fn path(&self) -> &Path;
}

/// How many cuts, from which seed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Rounds {
    /// Cuts that count: with operations acknowledged and others under way
    #[arg(long, default_value_t = 10)]
    count: u64,
    /// Draws settings, times, and what survives
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Longest time of load before a cut, in milliseconds
    #[arg(long, default_value_t = 400)]
    load_ms_max: u64,
    /// Longest delay of each read, write and flush of the disk, in milliseconds; most are much shorter
    #[arg(long, default_value_t = 0)]
    slow_ms: u64,
    /// Longest time of a write by the server's log, in milliseconds; a longer one is wrong
    #[arg(long)]
    write_ms_max: Option<u64>,
    /// Where stores are kept that failed
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Before each cut, let a write or flush of the disk fail, once or for good
    #[arg(long)]
    errors: bool,
    #[command(flatten)]
    pub(crate) programs: Programs,
}

/// A run of cuts.
pub(crate) struct Run<'a> {
    pub(crate) options: &'a Rounds,
    pub(crate) ground: &'a mut dyn Ground,
    pub(crate) acks: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) rng: Rng,
    settings: Settings,
    /// How slow the disk is.
    pub(crate) faults: Faults,
    /// On what the last cut has left, found to be right.
    server: Option<Server>,
    /// What the last cut has left, to keep it when it turns out to be wrong.
    image: Option<Tree>,
    /// How much of what was pending the last cut has left.
    survival: Option<Survival>,
    pub(crate) figures: Figures,
    wrong: Vec<String>,
}

impl Rounds {
    /// Cuts so often; the figures, and what is wrong.
    ///
    /// # Errors
    /// When the ground or the programs fail, which is no verdict.
    pub(crate) fn run(&self, work: &Path, ground: &mut dyn Ground) -> Result<(Value, Vec<String>), CutError> {
        let began = Instant::now();
        let mut run = Run {
            options: self,
            ground,
            acks: work.join("acks"),
            log: work.join("server.log"),
            rng: Rng::with_seed(self.seed),
            settings: Settings::new(),
            faults: Faults::default(),
            server: None,
            image: None,
            survival: None,
            figures: Figures::default(),
            wrong: Vec::new(),
        };
        let mut round = 0;
        while (run.figures.trials.len() as u64) < self.count && run.wrong.is_empty() {
            if round % CUTS_PER_STORE == 0 {
                run.begin_store()?;
                run.start(round)?;
            }
            run.round(round)?;
            round += 1;
        }
        run.figures.add_writes(&run.log);
        let slowest_ms = run.figures.slowest_write_ms();
        if let Some(max) = self.write_ms_max.filter(|max| slowest_ms > *max) {
            run.wrong.push(format!("seed {}: a write took {slowest_ms} ms, more than {max} ms", self.seed));
        }
        Ok((run.figures.to_json(began.elapsed()), run.wrong))
    }

    fn seed_of(&self, round: u64) -> u64 {
        self.seed.wrapping_mul(1_000_003).wrapping_add(round)
    }
}

impl Run<'_> {
    fn begin_store(&mut self) -> Result<(), CutError> {
        self.server = None;
        self.ground.set_faults(Faults::default());
        self.ground.fresh()?;
        // Disks take their time to flush; what is written meanwhile is what a cut can take.
        let quick = Duration::from_micros([0, 5_000, 40_000][self.rng.usize(0..3)]);
        let delay_max = Duration::from_millis(self.options.slow_ms);
        let flush_delay_max = if delay_max.is_zero() { quick } else { delay_max };
        self.faults = Faults { delay_max, flush_delay_max, ..Faults::default() };
        self.ground.set_faults(self.faults);
        self.settings = draw_settings(&mut self.rng);
        self.image = None;
        self.figures.add_writes(&self.log);
        for file in [&self.acks, &self.log] {
            fs::write(file, "").map_err(file_error(file))?;
        }
        Ok(())
    }

    /// One cut, and what it has left.
    fn round(&mut self, round: u64) -> Result<(), CutError> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let before = self.read_acks()?;
        let load = server.load(&self.options.programs, &self.acks, self.options.seed_of(round), LOAD)?;
        thread::sleep(Duration::from_millis(self.rng.u64(30..=self.options.load_ms_max.max(30))));
        let mut wrong = if self.options.errors { self.break_disk(&server)? } else { None };
        let crashed = server.has_ended();
        let (at_cut_len, frozen) = self.freeze()?;
        let acks = self.read_acks()?;

        server.kill();
        self.ground.set_faults(self.faults);
        let loaded = load.wait_with_output().map_err(file_error(&self.options.programs.load))?;
        let (at_cut, during) = acks.split_at(whole_lines(&acks[..at_cut_len]).len());
        let merged = merge(at_cut, during);
        fs::write(&self.acks, merged).map_err(file_error(&self.acks))?;
        if crashed || !(loaded.status.success() || self.options.errors && is_refusal(&loaded)) {
            wrong = Some(format!("the server had ended: {crashed}; the load: {}", said(&loaded)));
        }
        if let Some(wrong) = wrong {
            return self.fail(round, &format!("before the cut: {wrong}"));
        }
        let tally = Tally::of(&at_cut[before.len()..]);
        let unflushed = frozen.unflushed();
        self.cut(&frozen)?;
        if self.rng.u8(0..4) == 0 {
            self.cut_recovery()?;
        }
        self.start(round)?;
        if tally.acknowledged > 0 && tally.under_way > 0 && self.wrong.is_empty() {
            self.figures.trials.push(Trial { tally, unflushed });
        }
        Ok(())
    }

    /// What there is at the moment of the cut, and how long the log of acknowledgements was before it. Mostly it waits for a
    /// moment in which much could be lost: there are few, as every answer comes after a flush.
    fn freeze(&mut self) -> Result<(usize, Tree), CutError> {
        let wanted = [0, 1, 4, 8, 16, 48][self.rng.usize(0..6)];
        let until = Instant::now() + PATIENCE;
        loop {
            let len = fs::metadata(&self.acks).map_err(file_error(&self.acks))?.len();
            let unflushed_min = if Instant::now() < until { wanted } else { 0 };
            if let Some(frozen) = self.ground.freeze(unflushed_min) {
                return Ok((usize::try_from(len).unwrap_or(usize::MAX), frozen));
            }
            thread::sleep(LOOK);
        }
    }

    /// Another cut at any moment of the start after a cut, or soon after it.
    fn cut_recovery(&mut self) -> Result<(), CutError> {
        let mut server = self.launch()?;
        thread::sleep(Duration::from_millis(self.rng.u64(1..=150)));
        let (_, frozen) = self.freeze()?;
        server.kill();
        self.figures.recovery_cuts += 1;
        self.cut(&frozen)
    }

    /// Starts a server, which is left running when nothing is wrong.
    fn start(&mut self, round: u64) -> Result<(), CutError> {
        let mut server = self.launch()?;
        match server.await_start() {
            Ok(took) => self.figures.add_start(took),
            Err(why) => {
                server.kill();
                return self.fail(round, &why);
            }
        }
        let programs = &self.options.programs;
        // All that was acknowledged is read by the first; what else there is, now and then.
        let content = self.rng.u8(0..4) == 0;
        let found = [
            server.check(programs, &self.acks)?,
            server.verify(programs, content)?,
            server.find_unlisted(programs, &self.ground.path().join("data"))?,
        ];
        let wrong: Vec<String> = found.into_iter().flatten().collect();
        if !wrong.is_empty() {
            server.kill();
            return self.fail(round, &wrong.join("; "));
        }
        self.server = Some(server);
        Ok(())
    }

    fn launch(&self) -> Result<Server, CutError> {
        Server::launch(&self.options.programs, &self.ground.path().join("data"), &self.log, &self.settings)
    }

    /// Goes on from one of the ways in which a cut could leave what was frozen.
    fn cut(&mut self, frozen: &Tree) -> Result<(), CutError> {
        let mut survival = Survival::draw(&mut self.rng);
        self.survival = Some(survival);
        let mut image = frozen.cut(survival, &mut self.rng);
        self.image = Some(image.clone());
        if self.ground.go_on_from(image).is_ok() {
            return Ok(());
        }
        // xfs takes for granted that its blocks of metadata are not torn, as they are not on disks with larger sectors:
        // then it cannot be mounted, and there is nothing to check.
        self.figures.refused_mounts += 1;
        survival.atom_bytes = BLOCK_BYTES;
        self.survival = Some(survival);
        image = frozen.cut(survival, &mut self.rng);
        self.image = Some(image.clone());
        self.ground.go_on_from(image)
    }

    pub(crate) fn read_acks(&self) -> Result<String, CutError> {
        fs::read_to_string(&self.acks).map_err(file_error(&self.acks))
    }

    /// Notes what is wrong, and keeps the store as the last cut has left it.
    fn fail(&mut self, round: u64, why: &str) -> Result<(), CutError> {
        let (seed, settings, survival) = (self.options.seed, &self.settings, &self.survival);
        self.wrong
            .push(format!("seed {seed}, round {round}: {why}; settings {settings:?}; the last cut: {survival:?}"));
        let (Some(keep), Some(image)) = (&self.options.keep, self.image.take()) else { return Ok(()) };
        let to = keep.join(format!("seed-{}-round-{round}", self.options.seed));
        fs::create_dir_all(&to).map_err(file_error(&to))?;
        self.ground.go_on_from(image)?;
        for from in [self.ground.path().join("data"), self.acks.clone(), self.log.clone()] {
            run("cp", ["-a".as_ref(), from.as_os_str(), to.as_os_str()])?;
        }
        Ok(())
    }
}
