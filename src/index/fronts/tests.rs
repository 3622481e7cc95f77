//! Scans that begin at a front find all that scans of the whole range do, whatever is written, looked at and kept meanwhile.

use std::{cell::RefCell, collections::BTreeMap};

use super::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// An index as RocksDB is one, but for its bytes.
struct Queues {
    fronts: Fronts,
    rows: RefCell<Rows>,
    kept: RefCell<Vec<(Rows, Seen)>>,
    random: RefCell<fastrand::Rng>,
}

#[test]
fn nothing_is_hidden_behind_a_front() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let queues = Queues {
        fronts: Fronts::new(),
        rows: RefCell::default(),
        kept: RefCell::default(),
        random: RefCell::new(fastrand::Rng::with_seed(seed)),
    };
    for _ in 0..20_000 {
        match queues.random(6) {
            0..2 => queues.write(),
            2 => queues.view(),
            _ => queues.scan(),
        }
    }
}

/// What makes looking at an empty queue cheap.
#[test]
fn a_front_follows_what_has_gone() {
    let fronts = Fronts::new();
    let key = |number: u8| vec![Table::DueLinks as u8, number];
    let write = |number, is_put: bool| {
        let changes = Changes::from([(key(number), is_put.then(Vec::new))]);
        fronts.write(&changes, || Ok::<_, ()>(())).unwrap();
    };
    let until = vec![Table::DueLinks as u8 + 1];
    let start = |seen: &Seen| seen.scan(&key(0)[..1], &until).map(|scan| scan.from().to_vec());
    let ((), seen) = fronts.around(|| ());
    assert_eq!(start(&seen), Some(vec![Table::DueLinks as u8]), "nothing is known");
    write(5, true);
    let ((), seen) = fronts.around(|| ());
    fronts.found(&seen.scan(&key(0)[..1], &until).unwrap(), &seen, &key(5));
    write(9, true);
    write(5, false);
    let ((), seen) = fronts.around(|| ());
    assert_eq!(start(&seen), Some(key(5)), "the first row was there");
    fronts.found(&seen.scan(&key(0)[..1], &until).unwrap(), &seen, &key(9));
    let ((), old) = fronts.around(|| ());
    assert_eq!(start(&old), Some(key(9)), "the next one is the first");
    write(3, true);
    let ((), seen) = fronts.around(|| ());
    assert_eq!(start(&seen), Some(key(3)), "one came before it");
    assert_eq!(start(&old), Some(key(9)), "which the older view does not have");
}

impl Queues {
    fn random(&self, below: usize) -> usize {
        self.random.borrow_mut().usize(..below)
    }

    fn key(&self) -> Vec<u8> {
        let table = [Table::Pauses, Table::DueLinks, Table::DueManifests][self.random(3)];
        vec![table as u8, self.random(30) as u8]
    }

    /// A write, with looks at all before and after its rows are there, as other threads would take them.
    fn write(&self) {
        let some = |_| (self.key(), (self.random(3) == 0).then(Vec::new));
        let changes: Changes = (0..self.random(12)).map(some).collect();
        let write = || {
            self.look();
            for (key, change) in &changes {
                match change {
                    Some(value) => drop(self.rows.borrow_mut().insert(key.clone(), value.clone())),
                    None => drop(self.rows.borrow_mut().remove(key)),
                }
            }
            self.look();
            Ok::<_, ()>(())
        };
        self.fronts.write(&changes, write).unwrap();
    }

    fn look(&self) {
        match self.random(4) {
            0 => self.view(),
            1 => self.scan(),
            _ => {}
        }
    }

    /// Keeps a view; now and then something is written while it is taken.
    fn view(&self) {
        let is_writing = self.fronts.lock().pending.iter().any(Option::is_some);
        let (writes_before, writes_after) = (self.random(5) == 0, self.random(5) == 0);
        let view = self.fronts.around(|| {
            if writes_before && !is_writing {
                self.write();
            }
            let rows = self.rows.borrow().clone();
            if writes_after && !is_writing {
                self.write();
            }
            rows
        });
        let mut kept = self.kept.borrow_mut();
        kept.push(view);
        if kept.len() > 10 {
            let oldest = self.random(10);
            kept.swap_remove(oldest);
        }
    }

    /// A scan of a kept view.
    fn scan(&self) {
        let kept = self.kept.borrow();
        if kept.is_empty() {
            return;
        }
        let (rows, seen) = &kept[self.random(kept.len())];
        let from = if self.random(2) == 0 { self.key() } else { self.key()[..1].to_vec() };
        let until = if self.random(2) == 0 { self.key() } else { prefix_end(&from[..1]) };
        let Some(scan) = seen.scan(&from, &until) else { return };
        let first = |from: &[u8]| rows.range(from.to_vec()..).next().filter(|(key, _)| **key < until).map(|row| row.0);
        assert_eq!(first(scan.from()), first(&from), "{from:?}..{until:?} begins at {:?}", scan.from());
        self.fronts.found(&scan, seen, first(&from).unwrap_or(&until));
    }
}
