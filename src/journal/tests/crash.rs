//! Power cuts, kills and failing calls at random moments of random lives of one journal.
//!
//! After each, the history must begin with all batches that were acknowledged or that a started journal had presented,
//! and may go on with the one batch that was in flight. Nothing else, and no error.

use super::*;

/// What must be there, and what may follow it.
#[derive(Default)]
struct Model {
    durable: Vec<Batch>,
    in_flight: Option<Batch>,
}

impl Model {
    #[track_caller]
    fn check(&self, presented: &[Batch], seed: u64) {
        let (promised, more) = presented.split_at(self.durable.len().min(presented.len()));
        assert_eq!(promised, self.durable, "seed {seed}");
        match more {
            [] => {}
            [batch] => {
                let expected = self.in_flight.as_ref();
                // Its chain was never told to the writer's caller.
                let same = expected.is_some_and(|expected| Batch { chain: batch.chain, ..expected.clone() } == *batch);
                assert!(same, "seed {seed}: {batch:?} instead of {expected:?}");
            }
            _ => panic!("seed {seed}: {} batches too many", more.len()),
        }
    }

    /// Opens the journal and writes until something fails, or enough was written.
    fn live(&mut self, disk: &SimDisk, rng: &mut fastrand::Rng, seed: u64) -> Result<(), JournalError> {
        let (presented, read) = read_from(disk, Mark::ORIGIN)?;
        self.check(&presented, seed);
        let mut journal = Journal::start(Arc::new(disk.clone()), read)?;
        self.durable = presented;
        self.in_flight = None;
        for _ in 0..rng.usize(..20) {
            let payload = vec![rng.u8(1..); rng.usize(..rng.clone().usize(1..1200))];
            let records = if rng.bool() { vec![logical(&payload)] } else { vec![local(&payload), logical(b"")] };
            let batch = Batch { first: journal.position(), time_ms: rng.u64(..), records, chain: journal.mark().chain };
            self.in_flight = Some(batch.clone());
            match journal.append(batch.time_ms, &batch.records) {
                Ok(appended) => self.durable.push(Batch { chain: appended.chain, ..batch }),
                Err(JournalError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            self.in_flight = None;
        }
        Ok(())
    }
}

/// Which failures a run of lives has beside its crashes.
fn lives(seed: u64, faults: &[Call]) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut disk = SimDisk::new();
    let mut model = Model::default();
    for _ in 0..rng.usize(2..6) {
        match rng.choice(faults) {
            Some(call) if rng.bool() => {
                let failure = if rng.bool() { Failure::Io } else { Failure::Full };
                disk.fail(*call, rng.u64(1..8), failure);
            }
            _ => disk.power_off_after(rng.u64(..60)),
        }
        // A life may end in any error of the disk, but never find damage.
        if let Err(error) = model.live(&disk, &mut rng, seed) {
            use JournalError::{Full, Io, Poisoned};
            assert!(matches!(error, Full { .. } | Io { .. } | Poisoned { .. }), "seed {seed}: {error}");
        }
        disk = if rng.u8(..3) > 0 { disk.crash(rng.u64(..)) } else { disk.kill() };
    }
    for disk in [disk.kill(), disk.crash(rng.u64(..))] {
        let history = history(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.check(&history, seed);
    }
    model.durable.len()
}

#[test]
fn power_cuts_at_any_moment_keep_what_was_acknowledged() {
    let batches: usize = (0..6000).map(|seed| lives(seed, &[])).sum();
    assert!(batches > 10_000, "{batches} batches are too few to have tried much");
}

#[test]
fn failing_calls_and_power_cuts_keep_what_was_acknowledged() {
    let faults = [Call::Write, Call::SyncData, Call::SyncDir, Call::Names, Call::Allocate];
    let batches: usize = (0..6000).map(|seed| lives(seed, &faults)).sum();
    assert!(batches > 10_000, "{batches} batches are too few to have tried much");
}

/// A failed sync leaves pages that look clean and are not on the disk. A journal that is then opened presents their
/// batch, and must not lose it in the next power cut, although syncing the old file again would report success.
#[test]
fn what_a_reopened_journal_presents_after_a_failed_sync_is_durable() {
    for seed in 0..300 {
        let disk = SimDisk::new();
        let mut journal = open(&disk).unwrap();
        appended(&mut journal, 1, vec![logical(b"first")]);
        disk.fail(Call::SyncData, 1, Failure::Io);
        assert!(journal.append(2, &[logical(b"second")]).is_err());
        let mut journal = open(&disk).unwrap();
        let presented = history(&disk).unwrap();
        assert_eq!(presented.len(), 2);
        assert_eq!(history(&disk.crash(seed)).unwrap(), presented, "seed {seed}");
        let third = appended(&mut journal, 3, vec![logical(b"third")]);
        assert_eq!(history(&disk.crash(seed)).unwrap(), [presented, vec![third]].concat(), "seed {seed}");
    }
}
