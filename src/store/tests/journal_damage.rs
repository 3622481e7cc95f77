//! Damage anywhere in the journal: the state comes back whole; or it is served and takes no writes; or the open is refused,
//! naming the place, and gives up only what somebody names. Never is history skipped in silence.
//!
//! The trials are counted by `ORLOP_TEST_ROUNDS` (200 by default), and begin with the seed `ORLOP_TEST_SEED`.

use crate::{journal::Position, store::Opening};

use super::*;

mod cuts;

/// Journal files of a few batches, and no snapshot that the test does not ask for.
fn options() -> StoreOptions {
    StoreOptions { journal_file_bytes_max: 1_200, snapshot_bytes_min: u64::MAX, ..Machine::options() }
}

/// A closed store, and all that it was.
struct History {
    disk: SimDisk,
    /// Rows and contents after each put.
    states: Vec<(Vec<String>, u64)>,
    /// The index as it was after some puts: at the end, in the middle, empty.
    indexes: Vec<Arc<MemoryIndex>>,
    /// Which of them stand at the end.
    whole: Vec<bool>,
    /// Journal files with their lengths, and where the last batch begins in the last one.
    files: Vec<(String, u64)>,
    last_batch: u64,
    /// A journal file and where it ended after each put, which is between two batches.
    ends: Vec<(String, u64)>,
}

fn journal_files(disk: &SimDisk) -> Vec<(String, u64)> {
    let entries = disk.list("journal").unwrap().into_iter().filter(|entry| entry.name.ends_with(".journal"));
    entries.map(|entry| (format!("journal/{}", entry.name), entry.len)).collect()
}

impl History {
    fn new(random: &mut fastrand::Rng) -> Self {
        let machine = Machine::new();
        let store = machine.open_with(options()).unwrap();
        let puts = random.u64(6..30);
        let snapshots: Vec<u64> = (0..random.usize(..3)).map(|_| random.u64(..puts)).collect();
        let flush_at = random.u64(..puts);
        let mut states = vec![(dump(&store), 0)];
        let mut indexes = vec![Arc::default()];
        let whole = vec![false, flush_at + 1 == puts, true];
        let (mut last_batch, mut ends) = (0, Vec::new());
        for n in 0..puts {
            let before = journal_files(&machine.disk);
            put(&store, &bytes(n, 100 + n as usize)).unwrap();
            states.push((dump(&store), n + 1));
            let after = journal_files(&machine.disk);
            last_batch = if before.len() == after.len() { before.last().unwrap().1 } else { 72 };
            ends.extend(after.last().cloned());
            if snapshots.contains(&n) {
                store.write_snapshot().unwrap();
            }
            if n == flush_at {
                machine.index.lock().unwrap().flush().unwrap();
                indexes.push(Arc::new(machine.index.lock().unwrap().crashed()));
            }
        }
        store.close().unwrap();
        indexes.push(Arc::new(machine.index.lock().unwrap().crashed()));
        let files = journal_files(&machine.disk);
        Self { disk: machine.disk.kill(), states, indexes, whole, files, last_batch, ends }
    }

    fn machine(&self, index: usize) -> Machine {
        let index = Mutex::new(Arc::new(self.indexes[index].crashed()));
        Machine { disk: self.disk.kill(), index }
    }

    /// How many puts the store knows; its rows are exactly those after them, and all of their contents can be read.
    fn check_state(&self, store: &Store, what: &str) -> usize {
        let rows = dump(store);
        let count = self.states.iter().position(|(state, _)| *state == rows);
        let count = count.unwrap_or_else(|| panic!("{what}: it has rows that it never had"));
        (0..count as u64).for_each(|n| check(store, &bytes(n, 100 + n as usize)));
        count
    }

    /// Changes some bytes of a file's range; what was done.
    fn damage(&self, disk: &SimDisk, path: &str, range: std::ops::Range<u64>, random: &mut fastrand::Rng) -> String {
        let ends = self.ends.iter().filter(|(file, end)| file == path && range.contains(end));
        match random.choice(ends.collect::<Vec<_>>()) {
            Some((_, end)) if random.u8(..8) == 0 => {
                disk.open(path).unwrap().set_len(*end).unwrap();
                format!("{path}: cut at {end}, between two batches")
            }
            _ => damage(disk, path, range, random),
        }
    }
}

fn damage(disk: &SimDisk, path: &str, range: std::ops::Range<u64>, random: &mut fastrand::Rng) -> String {
    let file = disk.open(path).unwrap();
    let at = random.u64(range.clone());
    let len = random.u64(1..=(range.end - at).min(64));
    let mut old = vec![0; usize::try_from(len).unwrap()];
    file.read_exact_at(&mut old, at).unwrap();
    match random.u8(..4) {
        0 => {
            let new = [old[0] ^ 1 << random.u8(..8)];
            file.write_all_at(&new, at).unwrap();
            format!("{path}: a bit at {at}")
        }
        1 => {
            let new: Vec<u8> = old.iter().map(|byte| byte ^ random.u8(1..)).collect();
            file.write_all_at(&new, at).unwrap();
            format!("{path}: {len} bytes at {at}")
        }
        2 if old.iter().any(|byte| *byte != 0) => {
            file.write_all_at(&vec![0; old.len()], at).unwrap();
            format!("{path}: {len} zeros at {at}")
        }
        _ => {
            file.set_len(at).unwrap();
            format!("{path}: cut at {at}")
        }
    }
}

/// Calls `trial` with random numbers of a known seed each.
fn trials(count: u64, mut trial: impl FnMut(u64, &mut fastrand::Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let count = number("ORLOP_TEST_ROUNDS").unwrap_or(count);
    println!("{count} trials from seed {first}");
    (first..first + count).for_each(|seed| trial(seed, &mut fastrand::Rng::with_seed(seed)));
}

#[test]
fn a_damaged_end_costs_the_last_batch_only() {
    let mut costs = [0, 0];
    trials(200, |seed, random| {
        let history = History::new(random);
        let index = random.usize(..history.indexes.len());
        let machine = history.machine(index);
        let (path, len) = history.files.last().unwrap();
        let done = history.damage(&machine.disk, path, history.last_batch..*len, random);
        let what = format!("seed {seed}, index {index}, {done}");
        let store = machine.open_with(options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(store.read_only(), None, "{what}");
        let (count, all) = (history.check_state(&store, &what), history.states.len() - 1);
        assert!(count + 1 >= all, "{what}: {count} of {all}");
        // A snapshot behind the batch holds it; an index that has it shows that it is lost.
        let knew = history.whole[index];
        let lost = store.recovery().lost_records > 0;
        assert!(count == all || lost == knew, "{what}: {:?}", store.recovery());
        costs[all - count] += 1;
        put(&store, b"goes on").unwrap();
    });
    println!("nothing lost, the last batch lost: {costs:?}");
}

#[test]
fn damage_in_the_middle_is_never_skipped() {
    let mut outcomes = std::collections::BTreeMap::new();
    trials(200, |seed, random| {
        let history = History::new(random);
        let index = random.usize(..history.indexes.len());
        let machine = history.machine(index);
        let number = random.usize(..history.files.len());
        let is_last = number + 1 == history.files.len();
        let (path, len) = &history.files[number];
        let end = if is_last { history.last_batch } else { *len };
        // The version of a file is not damaged here: an unknown one is refused by name, whatever holds the state.
        if (is_last && end <= 12) || *len <= 12 {
            return;
        }
        let done = history.damage(&machine.disk, path, 12..end.max(13), random);
        let what = format!("seed {seed}, index {index}, {done}");
        let outcome = check_middle(&history, &machine, &what);
        *outcomes.entry(outcome).or_insert(0) += 1;
    });
    println!("{outcomes:?}");
}

fn check_middle(history: &History, machine: &Machine, what: &str) -> &'static str {
    let all = history.states.len() - 1;
    let error = match machine.open_with(options()) {
        Ok(store) if store.read_only().is_none() => {
            // Below a snapshot or the index damage is in nobody's way; cut inside the last file it is the end that is torn.
            let count = history.check_state(&store, what);
            let is_cut = what.contains("cut at") && what.contains(history.files.last().unwrap().0.as_str());
            assert!(count == all || is_cut, "{what}: {count} of {all}: {:?}", store.recovery());
            put(&store, b"goes on").unwrap();
            return if count == all { "whole" } else { "end cut" };
        }
        Ok(store) => {
            assert_eq!(history.check_state(&store, what), all, "{what}");
            assert!(
                matches!(put(&store, b"more"), Err(StoreError::Unavailable(text)) if text.contains("orlop repair"))
            );
            store.repair(&mut || ()).unwrap();
            drop(store);
            check_repaired(history, machine, what);
            return "read only";
        }
        Err(error) => error,
    };
    let text = error.to_string();
    let OpenError::DamagedJournal { after, .. } = error else { panic!("{what}: {error:?}") };
    assert!(text.contains("journal/") && text.contains(&format!("--lose-after {}", after.lsn)), "{what}: {text}");
    let wrong = machine.open_as(Opening::LoseAfter(after.lsn + 1)).unwrap_err();
    assert!(matches!(wrong, OpenError::NotToGiveUp(_)), "{what}: {wrong}");
    assert!(machine.open_with(options()).is_err(), "{what}: a refusal changes nothing");
    check_given_up(history, machine, after, what);
    "refused, given up"
}

/// The store takes writes again, and has the same rows from the index and from the journal.
fn check_repaired(history: &History, machine: &Machine, what: &str) {
    let store = machine.open_with(options()).unwrap_or_else(|error| panic!("{what}, repaired: {error}"));
    assert_eq!((store.read_only(), store.recovery().lost_records), (None, 0), "{what}, repaired");
    assert_eq!(history.check_state(&store, what), history.states.len() - 1, "{what}, repaired");
    put(&store, b"goes on").unwrap();
    let rows = dump(&store);
    drop(store);
    machine.lose_index();
    let store = machine.open_with(options()).unwrap_or_else(|error| panic!("{what}, repaired, no index: {error}"));
    assert_eq!(dump(&store), rows, "{what}, repaired, no index");
}

/// All up to the damage is there, and nothing of what was given up is left in the way.
fn check_given_up(history: &History, machine: &Machine, after: Position, what: &str) {
    let store = machine.open_as(Opening::LoseAfter(after.lsn)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let count = history.check_state(&store, what);
    // A snapshot may hold all that the damaged file had; that it had no more, nobody knows.
    let all = history.states.len() - 1;
    assert!(count < all || store.recovery().snapshot.is_some(), "{what}: nothing was to be given up");
    assert!(store.recovery().given_up.is_some() && store.recovery().lost_records > 0, "{what}");
    assert!(!machine.disk.list("lost").unwrap().is_empty(), "{what}");
    put(&store, b"goes on").unwrap();
    let rows = dump(&store);
    drop(store);
    machine.lose_index();
    let store = machine.open_with(options()).unwrap_or_else(|error| panic!("{what}, given up: {error}"));
    assert_eq!(dump(&store), rows, "{what}, given up, no index");
}

impl Machine {
    fn open_as(&self, opening: Opening) -> Result<Store, OpenError> {
        Store::open_on_as(Arc::new(self.disk.clone()), options(), opening, &|start| {
            let mut index = self.index.lock().unwrap();
            if start == IndexStart::Empty {
                *index = Arc::default();
            }
            Ok(Box::new(Arc::clone(&*index)))
        })
    }
}
