//! The power goes at each call of a repair, and of giving history up: the state stays whole, or is refused as before, and what
//! was begun can be brought to its end.

use super::*;

impl Machine {
    /// The same disk and index for another life.
    fn copy(&self) -> Self {
        let index = Mutex::new(Arc::new(self.index.lock().unwrap().crashed()));
        Self { disk: self.disk.kill(), index }
    }
}

/// A machine with an index of the history's and lasting damage before the last batch; what was done.
fn damaged(history: &History, index: usize, random: &mut fastrand::Rng) -> Option<(Machine, String)> {
    let machine = history.machine(index);
    let number = random.usize(..history.files.len());
    let (path, len) = &history.files[number];
    let end = if number + 1 == history.files.len() { history.last_batch } else { *len };
    if end <= 12 {
        return None;
    }
    let done = history.damage(&machine.disk, path, 12..end, random);
    machine.disk.open(path).unwrap().sync_data().unwrap();
    Some((machine, done))
}

#[test]
fn a_repair_can_be_cut_at_every_call() {
    let mut cuts = 0;
    trials(20, |seed, random| {
        let history = History::new(random);
        let all = history.states.len() - 1;
        let Some((machine, done)) = damaged(&history, history.indexes.len() - 1, random) else { return };
        if !matches!(machine.copy().open_with(options()), Ok(store) if store.read_only().is_some()) {
            return;
        }
        for power in 0.. {
            let what = format!("seed {seed}, {done}, power {power}");
            let mut cut = machine.copy();
            let store = cut.open_with(options()).unwrap();
            cut.disk.power_off_after(power);
            let is_repaired = store.repair(&mut || ()).is_ok();
            drop(store);
            cut.crash(seed ^ power << 32);
            if !is_repaired {
                let store = cut.open_with(options()).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!((history.check_state(&store, &what), store.recovery().lost_records), (all, 0), "{what}");
                if store.read_only().is_some() {
                    store.repair(&mut || ()).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                }
            }
            check_repaired(&history, &cut, &what);
            cuts += 1;
            if is_repaired {
                break;
            }
        }
    });
    println!("{cuts} cuts");
}

#[test]
fn giving_up_can_be_cut_at_every_call() {
    let (mut cuts, mut refused) = (0, 0);
    trials(20, |seed, random| {
        let history = History::new(random);
        let index = random.usize(..history.indexes.len());
        let Some((machine, done)) = damaged(&history, index, random) else { return };
        let Err(OpenError::DamagedJournal { after, .. }) = machine.copy().open_with(options()) else { return };
        let lose = Opening::LoseAfter(after.lsn);
        let kept = history.check_state(&machine.copy().open_as(lose).unwrap(), &done);
        for power in 0.. {
            let what = format!("seed {seed}, index {index}, {done}, power {power}");
            let mut cut = machine.copy();
            cut.disk.power_off_after(power);
            let is_done = cut.open_as(lose).is_ok();
            cut.crash(seed ^ power << 32);
            let store = match cut.open_with(options()) {
                Err(OpenError::DamagedJournal { after: again, .. }) => {
                    assert!(!is_done && again == after, "{what}: {again}, not {after}");
                    refused += 1;
                    cut.open_as(lose).unwrap_or_else(|error| panic!("{what}, again: {error}"))
                }
                opened => opened.unwrap_or_else(|error| panic!("{what}: {error}")),
            };
            assert_eq!((store.read_only(), history.check_state(&store, &what)), (None, kept), "{what}");
            put(&store, b"goes on").unwrap();
            cuts += 1;
            if is_done {
                break;
            }
        }
    });
    println!("{cuts} cuts, of which {refused} left the refusal");
}
