//! Power that goes, or a sync that fails, at any call of the disk, in the middle of whatever is under way: of a batch, a
//! collection, a compaction, a snapshot, an open.
//!
//! The disk comes back as a power cut or the death of the process leaves it; the index as it was at any point before, or not
//! at all. Then every promise holds, an operation under way is there wholly or not at all, all rows add up, and what a
//! rebuild from the journal gives is the same. One seed is a store with some lives. It does the same each time, but for
//! how many of a collection's requests the committer takes at once. `tools/crash-model` runs many; the environment chooses
//! others, as for the test without crashes.

use std::ops::ControlFlow;

use super::*;
use crate::{
    disk::sim::{Call, Failure},
    index::Index,
    verify::{VerifyOptions, verify},
};

/// Lives of one store.
const LIVES: usize = 20;
/// Calls in a life that nothing cuts short.
const CALLS_MAX: u64 = 250;
/// Stores in the fast suite.
const STORES: u64 = if cfg!(feature = "rocksdb") { 200 } else { 60 };

/// What lives came to.
#[derive(Default)]
struct Tally {
    operations: u64,
    /// Lives that ended.
    crashes: u64,
    /// Of those with something acknowledged and something under way: how much of each, and what the disk had not synced.
    acknowledged: Vec<u64>,
    under_way: Vec<u64>,
    unsynced: Vec<u64>,
    /// Ends in the middle of an open.
    in_opens: u64,
    seen: BTreeSet<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.crashes += other.crashes;
        self.acknowledged.extend(other.acknowledged);
        self.under_way.extend(other.under_way);
        self.unsynced.extend(other.unsynced);
        self.in_opens += other.in_opens;
        self.seen.extend(other.seen);
    }
}

impl World {
    /// The last operation that the index knows.
    pub(super) fn last_lsn(&self) -> u64 {
        self.position().lsn
    }

    /// The index is durable as it is now, and a copy of it may come back at any time.
    pub(super) fn flush_index(&mut self) {
        self.index.flush().unwrap();
        self.keep(self.index.crashed());
    }

    fn keep(&mut self, index: MemoryIndex) {
        if self.kept.len() == 6 {
            let one = self.random.usize(..6);
            self.kept.swap_remove(one);
        }
        self.kept.push(index);
    }

    fn position(&self) -> Position {
        let applied: Option<Applied> = schema::get(&*self.registry().store().snapshot(), key::applied()).unwrap();
        applied.map_or(Position::default(), |Applied { lsn, local, .. }| Position { lsn, local })
    }

    /// The process ends: what its index shows is durable, whatever becomes of the index.
    fn note_position(&mut self) {
        if self.open.is_some() {
            let position = self.position();
            let Position { lsn, local } = &mut self.shown;
            (*lsn, *local) = ((*lsn).max(position.lsn), (*local).max(position.local));
        }
    }

    /// No record is missing that an index has ever shown.
    fn check_position(&self) {
        let Position { lsn, local } = self.position();
        assert!(lsn >= self.shown.lsn && local >= self.shown.local, "{lsn} {local} after {}", self.shown);
    }

    /// The process ends here, by a kill or a power cut.
    pub(super) fn end(&mut self) {
        // The index before the disk: what the committer still does by itself must not be in the index alone.
        if let Some(kept) = self.gate.take_kept() {
            self.keep(kept);
        }
        self.note_position();
        self.index.flush().unwrap();
        let now = self.index.crashed();
        let disk = if self.random.u8(..3) == 0 { self.disk.kill() } else { self.disk.crash(self.random.u64(..)) };
        self.open = None;
        self.disk = disk;
        self.index = match self.random.u8(..8) {
            0 => Arc::default(),
            1..4 => Arc::new(now),
            _ if self.kept.is_empty() => Arc::default(),
            _ => Arc::new(self.kept[self.random.usize(..self.kept.len())].crashed()),
        };
    }

    /// The process ends, and another begins.
    pub(super) fn restart(&mut self) {
        let before = self.disk.clone();
        if self.random.u8(..3) == 0 {
            self.note_position();
            self.open = None;
            self.disk = self.disk.kill();
        } else {
            self.end();
        }
        if self.is_faulty() {
            self.disk.take_faults_of(&before);
        }
        if let Err(error) = self.start() {
            assert!(self.is_faulty(), "{error}");
            self.open = None;
            self.disk.heal();
            self.start().unwrap();
        }
        self.check_position();
        self.find_sessions(false);
        self.saw("restart");
    }

    /// Calls until one is cut short, or enough.
    fn live(&mut self, tally: &mut Tally) {
        (self.acknowledged, self.under_way) = (0, 0);
        let before = self.operations;
        match self.random.u8(..8) {
            0 => self.disk.fail(Call::SyncData, self.random.u64(1..100), Failure::Io),
            1 => self.disk.fail(Call::SyncDir, self.random.u64(1..6), Failure::Io),
            _ => self.disk.power_off_after(self.random.u64(1..220)),
        }
        self.gate.keep_after(self.random.u64(1..100));
        for _ in 0..CALLS_MAX {
            self.settle();
            if self.is_down() {
                break;
            }
            NAMES.into_iter().for_each(|name| self.check_lives(name));
            self.lsn = self.last_lsn();
            self.step();
        }
        tally.operations += self.operations - before;
        tally.crashes += 1;
        if self.is_down() && self.acknowledged > 0 && self.under_way > 0 {
            tally.acknowledged.push(self.acknowledged);
            tally.under_way.push(self.under_way);
            tally.unsynced.push(self.disk.unsynced() as u64);
        }
    }

    /// Starts, sometimes cut short as well, and holds what is there against what was promised.
    fn come_back(&mut self, tally: &mut Tally) {
        while self.random.u8(..4) == 0 {
            match self.random.u8(..4) {
                0 => self.disk.fail(Call::SyncData, self.random.u64(1..6), Failure::Io),
                _ => self.disk.power_off_after(self.random.u64(..40)),
            }
            let started = self.start();
            self.log("start without power", "", (), &started);
            self.end();
            tally.in_opens += 1;
        }
        self.recover();
    }

    /// Starts, finds out what became of the call that was cut short, and holds all against what was promised.
    pub(super) fn recover(&mut self) {
        if self.random.u8(..4) == 0 {
            self.disk.evict();
        }
        self.start().unwrap();
        let recovery = self.registry().store().recovery().clone();
        self.log("start", "", (), &recovery);
        assert_eq!(recovery.lost_records, 0, "{recovery:?}");
        self.check_position();
        let done = self.last_lsn() > self.lsn;
        if let Some(change) = self.unsure.take()
            && done
        {
            change(self);
            self.conclude();
        }
        self.saw(if done { "cut short, and done" } else { "cut short, and not done" });
        self.find_sessions(done);
        self.check();
    }

    /// A store that is built from the journal and snapshots alone has the same rows; a verification finds nothing.
    fn check_deeply(&mut self) {
        self.resume();
        self.collect();
        self.compact();
        self.collect();
        self.settle();
        self.check();
        let rows = |world: &Self| {
            world.settle();
            world.registry().store().snapshot().scan(&[], &[u8::MAX], usize::MAX).unwrap()
        };
        let before = rows(self);
        self.disk = self.disk.kill();
        self.open = None;
        self.index = Arc::default();
        self.start().unwrap();
        assert!(rows(self) == before, "a rebuilt index has other rows");
        let options =
            VerifyOptions { content: true, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
        let report = verify(self.registry().store(), &options, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.findings, []);
        self.find_sessions(false);
    }
}

fn run_store(seed: u64) -> Tally {
    let _seed = Seed(seed);
    let (mut world, mut tally) = (World::of_seed(seed, false), Tally::default());
    for life in 1..=LIVES {
        world.live(&mut tally);
        world.end();
        world.come_back(&mut tally);
        if life % 10 == 0 {
            world.check_deeply();
        }
    }
    world.check_that_all_can_go();
    tally.seen = std::mem::take(&mut world.seen);
    tally
}

/// The values below which a quarter, a half and three quarters of all lie.
fn quartiles(mut counts: Vec<u64>) -> String {
    counts.sort_unstable();
    let at = |quarter: usize| counts.get(counts.len() * quarter / 4).copied().unwrap_or_default();
    format!("{}–{}–{}", at(1), at(2), at(3))
}

#[test]
fn the_power_may_go_at_any_call_and_nothing_that_was_promised_is_lost() {
    let all = Mutex::new(Tally::default());
    let rounds = each_seed(STORES, |seed| {
        let tally = run_store(seed);
        all.lock().unwrap().add(tally);
    });
    let Tally { operations, crashes, acknowledged, under_way, unsynced, in_opens, seen } = all.into_inner().unwrap();
    println!(
        "{operations} operations, {crashes} crashes and {in_opens} more during opens; {} with operations acknowledged \
         and others under way, quartiles {} / {} / {} unsynced",
        under_way.len(),
        quartiles(acknowledged),
        quartiles(under_way),
        quartiles(unsynced)
    );
    if rounds > 50 {
        let expected = ["batch", "cut short, and done", "cut short, and not done"];
        let more = ["write to a session", "finish of a session"];
        let rare: Vec<_> =
            EXPECTED.iter().chain(&expected).chain(&more).filter(|kind| !seen.contains(**kind)).collect();
        assert!(rare.is_empty(), "nothing was said about {rare:?}; there was {seen:?}");
    }
}
