//! Each call of the disk that a load makes fails, once or from then on: an error that says so, or none, and nothing else.
//!
//! The load is the first calls of the model's stores: pushes small and large, uploads in parts, manifests, tags, deletes,
//! restores, collections with erasing and compaction, snapshots, restarts. It goes on after the fault. Then what was promised
//! is there, in the process that had the fault and after a kill or a power cut; after a failed sync reads go on, writes are
//! refused with a reason, and what the kernel then forgets was never acknowledged.

use super::*;
use crate::{
    digest::Algorithm,
    disk::sim::{
        Call::{self, *},
        Failure::{self, *},
    },
};

/// Calls of the load.
const CALLS: usize = 150;
/// Loads: stores of so many seeds.
const LOADS: u64 = 10;
/// One case of so many is tried in the fast suite; `ORLOP_TEST_STRIDE=1` tries all.
const STRIDE: u64 = if cfg!(feature = "rocksdb") { 7 } else { 31 };

/// Calls that fail, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    call: Call,
    failure: Failure,
}

impl Fault {
    pub(super) fn is_of_a_files_sync(self) -> bool {
        self.call == SyncData
    }
}

impl World {
    /// A failure has the class of its cause, and its message names the file, or the disk where that is full or does not tell
    /// how full it is. Nothing becomes unknown by it.
    pub(super) fn check_failure(&self, error: &RegistryError) {
        let Some(Fault { call, failure }) = self.fault else { return };
        // A directory that cannot be opened is not synced.
        let is_sync = matches!(call, SyncData | SyncDir) && failure != NoFiles;
        let is_right = match error {
            // A sync has failed, or a write that may be half done.
            RegistryError::Unavailable(_) => self.is_down() && call != Read,
            RegistryError::Full(_) => failure == Full && !is_sync,
            RegistryError::Corrupt(_) => call == Read,
            RegistryError::Failed(_) => failure != Full && !is_sync,
            _ => false,
        };
        assert!(is_right, "{call:?} fails with {failure:?}, and the answer is {error:?}");
        let said = error.to_string();
        let places =
            ["segments", "segment ", "journal/", "directory journal", "the disk has no room", "free bytes of the disk"];
        assert!(places.iter().any(|place| said.contains(place)), "{call:?} fails somewhere: {said}");
    }
}

const KINDS: [(Call, &[Failure]); 8] = [
    (Read, &[Io, Short]),
    (Write, &[Io, Full, Short]),
    (SetLen, &[Io, Full]),
    (Allocate, &[Io, Full]),
    (Punch, &[Io, Full, Short]),
    (SyncData, &[Io, Full]),
    (SyncDir, &[Io, NoFiles]),
    (Names, &[Io, Full]),
];

/// Runs the load with a fault in it; whether it came to it.
fn run_case(seed: u64, call: Call, nth: u64, failure: Failure, lasts: bool) -> bool {
    let mut world = World::of_seed(seed, false);
    world.fault = Some(Fault { call, failure });
    if lasts {
        world.disk.fail_from(call, nth, failure)
    } else {
        world.disk.fail(call, nth, failure)
    }
    world.trace.push(format!("{call:?} {nth} fails with {failure:?}, lasting: {lasts}"));
    for call in 0..CALLS {
        world.settle();
        if world.is_down() {
            break;
        }
        world.lsn = world.last_lsn();
        // Some calls of the disk are a start's only, and those that take sessions up again.
        if call == CALLS / 2 { world.restart() } else { world.step() }
    }
    let was_met = world.disk.faults_to_come() == 0;
    world.disk.heal();
    if world.is_down() {
        check_poisoned(&mut world);
    } else {
        world.settle();
        world.fault = None;
        world.lsn = world.last_lsn();
        world.check();
    }
    world.fault = None;
    world.end();
    world.recover();
    // What is acknowledged after the failure does not rest on what it has lost.
    for _ in 0..10 {
        world.settle();
        world.lsn = world.last_lsn();
        world.step();
    }
    world.settle();
    world.lsn = world.last_lsn();
    let left = world.disk.crash(nth);
    world.open = None;
    world.disk = left;
    world.recover();
    was_met
}

/// After a failed sync what was acknowledged is read, also when the kernel has forgotten pages: blobs, manifests, tags; all
/// writes are refused.
fn check_poisoned(world: &mut World) {
    if world.last_lsn() > world.lsn
        && let Some(change) = world.unsure.take()
    {
        change(world);
        world.conclude();
    }
    world.disk.evict();
    let store = world.registry().store();
    let reason = store.poisoned().unwrap().to_string();
    assert!(reason.contains("segments/") || reason.contains("segments:") || reason.contains("journal"), "{reason}");
    let refused = store.put(&parse("a/x"), Algorithm::Sha256, b"more");
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let tagged =
        store.commit(Request::Untag { repository: parse("a/x"), tag: "1.0".parse().unwrap(), window_ms: WINDOW_MS });
    assert!(matches!(tagged, Err(StoreError::Unavailable(_))), "{tagged:?}");
    world.check_answers();
}

/// Every case of one load; how many calls of each kind have failed. `stride` leaves out all but one of so many.
fn run_load(seed: u64, stride: u64) -> BTreeMap<String, u64> {
    let (mut cases, mut counts) = (0_u64, BTreeMap::new());
    for (call, failures) in KINDS {
        for nth in 1.. {
            let mut was_met = true;
            for &failure in failures {
                for lasts in [false, true] {
                    cases += 1;
                    // The first call of each kind is always tried: some kinds are rare.
                    if nth > 1 && !cases.is_multiple_of(stride) {
                        continue;
                    }
                    match run_case(seed, call, nth, failure, lasts) {
                        true => *counts.entry(format!("{call:?}")).or_insert(0) += 1,
                        false => was_met = false,
                    }
                }
            }
            if !was_met {
                break;
            }
        }
    }
    counts
}

#[test]
fn whatever_call_of_the_disk_fails_what_was_acknowledged_is_there() {
    let stride = std::env::var("ORLOP_TEST_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(STRIDE);
    let all = Mutex::new(BTreeMap::new());
    let loads = each_seed(LOADS, |seed| {
        let _seed = Seed(seed);
        let counts = run_load(seed, stride);
        let mut all = all.lock().unwrap();
        counts.into_iter().for_each(|(call, count)| *all.entry(call).or_insert(0) += count);
    });
    let counts = all.into_inner().unwrap();
    println!("{} cases: {counts:?}", counts.values().sum::<u64>());
    assert!(loads < LOADS || counts.len() == KINDS.len(), "some kinds of calls did not fail: {counts:?}");
}
