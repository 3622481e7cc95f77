//! Limits: who is let in, against a model that adds up what is there; and many at once around a limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    digest::{Algorithm, Digest},
    name::{Owner, RepositoryName},
    registry::RegistryError,
};

use super::{
    machine::{End, IndexAfter, LARGE_BLOB_BYTES, Machine},
    model::parse,
};

const REPOSITORIES: [&str; 4] = ["a/x", "a/y", "b/x", "plain"];
const OWNERS: [&str; 6] = ["o:a", "o:b", "o:_", "r:a/x", "r:b/x", "r:plain"];

fn content(number: usize) -> Vec<u8> {
    // Every third has a segment of its own.
    let len = if number.is_multiple_of(3) { LARGE_BLOB_BYTES + 1_000 } else { 500 };
    [format!("{number} ").into_bytes(), vec![b'.'; len + number]].concat()
}

fn digest(number: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &content(number))
}

/// An upload that is open.
struct Open {
    repository: &'static str,
    id: String,
    number: usize,
}

/// What is there, by adding it up each time.
#[derive(Default)]
struct Model {
    stored: BTreeMap<&'static str, BTreeSet<usize>>,
    open: Vec<Open>,
    limits: BTreeMap<Owner, u64>,
}

impl Model {
    /// What counts for an owner: each blob once.
    fn stored_in(&self, owner: &Owner) -> BTreeSet<usize> {
        let within = self.stored.iter().filter(|(name, _)| Owner::of(&parse(name)).contains(owner));
        within.flat_map(|(_, numbers)| numbers.iter().copied()).collect()
    }

    fn charged(&self, owner: &Owner) -> u64 {
        self.stored_in(owner).into_iter().map(|number| content(number).len() as u64).sum()
    }

    fn held(&self, owner: &Owner) -> u64 {
        let open = self.open.iter().filter(|open| Owner::of(&parse(open.repository)).contains(owner));
        open.map(|open| content(open.number).len() as u64).sum()
    }

    /// Whether owners with limits have room for bytes of which they have `free` already in their open uploads; a blob that
    /// they have needs none.
    fn fits(&self, repository: &str, bytes: u64, free: u64, blob: Option<usize>) -> bool {
        Owner::of(&parse(repository)).iter().all(|owner| {
            let Some(limit) = self.limits.get(owner) else { return true };
            let needed = if blob.is_some_and(|number| self.stored_in(owner).contains(&number)) { 0 } else { bytes };
            needed == 0 || self.charged(owner) + self.held(owner) - free + needed <= *limit
        })
    }

    /// Whether owners with limits, of which there is one, have a blob all.
    fn is_free(&self, repository: &str, number: usize) -> bool {
        let owners = Owner::of(&parse(repository));
        let limited: Vec<_> = owners.iter().filter(|owner| self.limits.contains_key(owner)).collect();
        !limited.is_empty() && limited.iter().all(|owner| self.stored_in(owner).contains(&number))
    }

    fn check(&self, machine: &Machine, seed: u64) {
        for code in OWNERS {
            let owner: Owner = code.parse().unwrap();
            let quota = machine.registry().quota(&owner).unwrap();
            let limit = self.limits.get(&owner);
            assert_eq!(quota.as_ref().map(|quota| quota.limit_bytes), limit.copied(), "{code}, seed {seed}");
            if let Some(quota) = quota {
                assert_eq!(quota.stored_bytes, self.charged(&owner), "{code}, seed {seed}");
                assert_eq!(quota.uploading_bytes, self.held(&owner), "{code}, seed {seed}");
            }
        }
    }
}

/// Whether a call was done; any other refusal than that of a limit is wrong.
fn done<T>(result: Result<T, RegistryError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(RegistryError::QuotaExceeded(exceeded)) => {
            assert!(exceeded.used_bytes + exceeded.needed_bytes > exceeded.limit_bytes, "{exceeded}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Begins an upload and brings its bytes; gives it up where there is no room for them.
fn bring(machine: &Machine, repository: &str, number: usize, told: Option<&Digest>) -> Option<String> {
    let (registry, repository, bytes) = (machine.registry(), parse(repository), content(number));
    let id = registry.start_upload(&repository, Algorithm::Sha256).unwrap();
    let mut lease = registry.lease_upload(&repository, &id).unwrap();
    let came = lease.announce(bytes.len() as u64, told).and_then(|()| lease.write(&bytes)).and_then(|()| lease.keep());
    if done(came).is_none() {
        registry.cancel_upload(&repository, &id).unwrap();
        return None;
    }
    Some(id)
}

fn finish(machine: &Machine, repository: &str, id: &str, number: usize) -> bool {
    let lease = machine.registry().lease_upload(&parse(repository), id).unwrap();
    done(lease.finish(digest(number))).is_some()
}

#[test]
fn who_is_let_in_is_who_has_room() {
    let seeds = if cfg!(debug_assertions) { 0..5 } else { 0..60 };
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut machine, mut model) = (Machine::new(), Model::default());
        let mut counts = [0; 2];
        for _ in 0..120 {
            let (repository, number) = (REPOSITORIES[random.usize(..4)], random.usize(..12));
            let bytes = content(number).len() as u64;
            match random.u8(..12) {
                0..=2 => {
                    let owner: Owner = OWNERS[random.usize(..OWNERS.len())].parse().unwrap();
                    let limit = (random.u8(..4) > 0).then(|| random.u64(..25_000));
                    machine.registry().set_quota(&owner, limit).unwrap();
                    match limit {
                        Some(limit) => model.limits.insert(owner, limit),
                        None => model.limits.remove(&owner),
                    };
                }
                3..=5 => {
                    let fits = model.fits(repository, bytes, 0, None);
                    let id = bring(&machine, repository, number, None);
                    assert_eq!(id.is_some(), fits, "seed {seed}: {number} to {repository}");
                    counts[usize::from(fits)] += 1;
                    model.open.extend(id.map(|id| Open { repository, id, number }));
                }
                6 | 7 if !model.open.is_empty() => {
                    let open = model.open.swap_remove(random.usize(..model.open.len()));
                    let fits = model.fits(open.repository, content(open.number).len() as u64, 0, Some(open.number));
                    assert_eq!(finish(&machine, open.repository, &open.id, open.number), fits, "seed {seed}");
                    if fits {
                        model.stored.entry(open.repository).or_default().insert(open.number);
                    }
                }
                8 if !model.open.is_empty() => {
                    let open = model.open.swap_remove(random.usize(..model.open.len()));
                    machine.registry().cancel_upload(&parse(open.repository), &open.id).unwrap();
                }
                9 => {
                    let from = REPOSITORIES[random.usize(..4)];
                    if model.stored.get(from).is_some_and(|numbers| numbers.contains(&number)) {
                        let fits = model.fits(repository, bytes, 0, Some(number));
                        let mounted =
                            machine.registry().mount(&parse(repository), &digest(number), Some(&parse(from)), |_| true);
                        assert_eq!(done(mounted).is_some(), fits, "seed {seed}: {number} from {from} to {repository}");
                        if fits {
                            model.stored.entry(repository).or_default().insert(number);
                        }
                    }
                }
                10 => {
                    if model.stored.entry(repository).or_default().remove(&number) {
                        machine.registry().delete_blob(&parse(repository), &digest(number)).unwrap();
                    }
                }
                11 if random.u8(..3) == 0 => {
                    let after = if random.bool() { IndexAfter::Flushed } else { IndexAfter::Lost };
                    machine.end(End::Kill(after));
                    machine.open().unwrap();
                    // What is small lay in memory.
                    model.open.retain(|open| content(open.number).len() > LARGE_BLOB_BYTES);
                }
                _ => {
                    // The whole at once, by a client that tells the digest.
                    let fits = model.is_free(repository, number) || model.fits(repository, bytes, 0, None);
                    let id = bring(&machine, repository, number, Some(&digest(number)));
                    assert_eq!(id.is_some(), fits, "seed {seed}: {number} to {repository}, told");
                    if let Some(id) = id {
                        assert!(finish(&machine, repository, &id, number), "seed {seed}: it had its room");
                        model.stored.entry(repository).or_default().insert(number);
                    }
                }
            }
            model.check(&machine, seed);
        }
        machine.check();
        assert!(counts[0] > 0 && counts[1] > 0, "seed {seed}: {counts:?}");
    }
}

/// First seed and rounds: from the environment, for longer runs.
fn rounds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or(0);
    first..first + number("ORLOP_TEST_ROUNDS").unwrap_or(default)
}

#[test]
fn of_many_at_once_exactly_those_get_in_for_whom_there_is_room() {
    const PUSHERS: usize = 64;
    for seed in rounds(40) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut machine = Machine::new();
        let blob = |number: usize| [format!("{number:04} of {seed} ").into_bytes(), vec![b'.'; 1_000]].concat();
        let bytes = blob(0).len() as u64;
        let room = random.usize(..PUSHERS + 8);
        let spare = random.u64(..bytes);
        let owner = Owner::Organisation("a".to_owned());
        machine.registry().set_quota(&owner, Some(room as u64 * bytes + spare)).unwrap();
        let cut = random.bool().then(|| random.u64(1..600));
        if let Some(calls) = cut {
            machine.disk.power_off_after(calls);
        }
        let acknowledged = AtomicUsize::new(0);
        let push = |number: usize| {
            let repository: RepositoryName = format!("a/{}", number % 5).parse().unwrap();
            let registry = machine.registry();
            let (blob, hash) = (blob(number), Digest::of(Algorithm::Sha256, &blob(number)));
            let Ok(id) = registry.start_upload(&repository, Algorithm::Sha256) else { return };
            let Ok(mut lease) = registry.lease_upload(&repository, &id) else { return };
            let announced = if number.is_multiple_of(2) { lease.announce(bytes, None) } else { Ok(()) };
            let pushed = announced.and_then(|()| lease.write(&blob)).and_then(|()| lease.finish(hash));
            match pushed {
                Ok(()) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    assert!(cut.is_some() || matches!(error, RegistryError::QuotaExceeded(_)), "seed {seed}: {error}");
                    let _ = registry.cancel_upload(&repository, &id);
                }
            }
        };
        thread::scope(|scope| {
            let push = &push;
            (0..PUSHERS).for_each(|number| drop(scope.spawn(move || push(number))));
        });
        let acknowledged = acknowledged.into_inner();
        if cut.is_some() {
            machine.end(End::PowerCut(seed, IndexAfter::Flushed));
            machine.open().unwrap();
        } else {
            assert_eq!(acknowledged, room.min(PUSHERS), "seed {seed}");
        }
        let quota = machine.registry().quota(&owner).unwrap().unwrap();
        assert!(quota.used_bytes() <= quota.limit_bytes, "seed {seed}: {quota:?}");
        assert!(quota.stored_bytes >= acknowledged as u64 * bytes, "seed {seed}: {quota:?}");
        assert_eq!(quota.uploading_bytes, 0, "seed {seed}");
        machine.check();
    }
}
