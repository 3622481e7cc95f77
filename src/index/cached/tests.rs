//! The cache against the index that it stands before: old views, failing writes, and threads.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use super::*;
use crate::index::{
    double::{Watched, Watcher},
    memory::MemoryIndex,
};

/// Few keys, so that reads and writes meet; of any length.
fn key(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) + 1]
}

/// Writes fail on demand, after they were begun.
#[derive(Debug, Default)]
struct Failing(AtomicBool);

impl Watcher for Failing {
    fn write(&self) -> Result<(), IndexError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(IndexError::Failed("as it was told to".to_owned())),
            false => Ok(()),
        }
    }
}

/// What a view has under a key; `None` where it must not wait for it.
fn value(view: &dyn View, key: &[u8]) -> Option<Option<Vec<u8>>> {
    match view.get(key) {
        Err(IndexError::OutOfReach) => None,
        value => Some(value.unwrap()),
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn random_changes(random: &mut fastrand::Rng, keys: u8) -> Changes {
    let change = |random: &mut fastrand::Rng| {
        // Some are too long to be held.
        let len = if random.u8(..8) == 0 { VALUE_BYTES_MAX + 1 } else { random.usize(..40) };
        (random.u8(..5) > 0).then(|| std::iter::repeat_with(|| random.u8(..)).take(len).collect())
    };
    (0..random.usize(1..6)).map(|_| (key(random.u8(..keys)), change(random))).collect()
}

fn apply(model: &mut Model, changes: &Changes) {
    for (key, change) in changes {
        match change {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

#[test]
fn each_view_shows_its_own_time_whatever_is_read_and_written_around_it() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for bytes in [0, SHARDS * 200, SHARDS * 600, 1 << 20] {
        for keys in [3, 200] {
            let failing = Arc::new(Failing::default());
            let index = Watched { index: Arc::default(), watcher: Arc::clone(&failing) };
            let cached = CachedIndex::new(Box::new(index), bytes);
            let mut model = Model::new();
            let mut views: Vec<(bool, Box<dyn View + '_>, Model)> = Vec::new();
            let (mut asked_in_memory, mut answered) = (0, 0);
            for _ in 0..10_000 {
                match random.u8(..10) {
                    0 => {
                        let changes = random_changes(&mut random, keys);
                        let fails = random.u8(..4) == 0;
                        failing.0.store(fails, Ordering::Relaxed);
                        assert_eq!(cached.write(&changes).is_err(), fails);
                        if !fails {
                            apply(&mut model, &changes);
                        }
                    }
                    1 => {
                        let is_in_memory = random.bool();
                        let view = if is_in_memory { cached.in_memory() } else { cached.snapshot() };
                        views.push((is_in_memory, view, model.clone()));
                    }
                    2 if views.len() > 3 => drop(views.swap_remove(random.usize(..views.len()))),
                    _ => {
                        let key = key(random.u8(..keys));
                        assert_eq!(cached.get(&key).unwrap().as_ref(), model.get(&key), "now, of {bytes} bytes");
                        let at_hand = cached.at_hand().get(&key).unwrap();
                        assert_eq!(at_hand.as_ref(), model.get(&key), "at hand, of {bytes} bytes");
                        if let Some((is_in_memory, view, model)) = random.choice(&views) {
                            let value = value(&**view, &key);
                            assert!(*is_in_memory || value.is_some(), "a view that may wait, of key {key:?}");
                            asked_in_memory += usize::from(*is_in_memory);
                            answered += usize::from(*is_in_memory && value.is_some());
                            let is_right = value.is_none_or(|value| value.as_ref() == model.get(&key));
                            assert!(is_right, "a view, of {bytes} bytes, of key {key:?}");
                        }
                    }
                }
            }
            assert!(answered > 0, "none of {asked_in_memory} by views in memory");
        }
    }
}

#[test]
fn threads_never_see_two_writes_in_one_view_nor_go_back_in_time() {
    const KEYS: u8 = 24;
    const WRITES: u32 = 20_000;
    for bytes in [SHARDS * 200, 1 << 20] {
        let cached = CachedIndex::new(Box::new(MemoryIndex::new()), bytes);
        let write = |number: u32| {
            let all = (0..KEYS).map(|of| (key(of), Some(number.to_le_bytes().to_vec())));
            cached.write(&all.collect()).unwrap();
        };
        write(0);
        let read = |view: &dyn View, of| {
            let value = value(view, &key(of))?;
            Some(u32::from_le_bytes(value.unwrap().try_into().unwrap()))
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < WRITES {
                        let view = if fastrand::bool() { cached.snapshot() } else { cached.in_memory() };
                        if let Some(first) = read(&*view, fastrand::u8(..KEYS)) {
                            for _ in 0..KEYS {
                                let again = read(&*view, fastrand::u8(..KEYS));
                                assert!(again.is_none_or(|again| again == first), "{again:?} after {first}");
                            }
                            assert!(first >= last, "{first} after {last}");
                            last = first;
                        }
                        let now = read(&cached, fastrand::u8(..KEYS)).unwrap();
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                    }
                });
            }
            (1..=WRITES).for_each(write);
        });
    }
}

#[test]
fn what_is_held_stays_within_its_bytes_and_what_requests_ask_again_stays() {
    let cached = CachedIndex::new(Box::new(MemoryIndex::new()), 1 << 20);
    let row = |number: u32| ([b"row".as_slice(), &number.to_be_bytes()].concat(), Some(vec![7; 100]));
    cached.write(&(0..100_000).map(row).collect()).unwrap();
    let is_there = |view: &dyn View, number| assert!(view.get(&row(number).0).unwrap().is_some());
    let view = cached.snapshot();
    for _ in 0..2 {
        (0..1_000).for_each(|number| is_there(&*view, number));
    }
    // What a writer reads ahead, and reads again.
    for number in 0..100_000 {
        is_there(&cached, number);
        is_there(&cached, number);
    }
    let held: u64 = cached.shards.iter().map(|shard| shard.lock().unwrap().rows.weight()).sum();
    assert!((900 << 10..=1 << 20).contains(&held), "{held}");
    let held = |number: &u32| cached.place(&row(*number).0).0.rows.contains_key(row(*number).0.as_slice());
    let stayed = (0..1_000).filter(held).count();
    assert!(stayed > 950, "{stayed} of 1,000");
}

/// Many requests read their rows before the first of them is decided, while the cache is full of what others ask for.
#[test]
fn what_was_read_ahead_is_held_until_it_is_read_again() {
    const BYTES: usize = 4 << 20;
    const AHEAD: std::ops::Range<u32> = 0..3_000;
    let cached = CachedIndex::new(Box::new(MemoryIndex::new()), BYTES);
    let key = |number: u32| [&[7; 40], number.to_be_bytes().as_slice()].concat();
    let rows = (BYTES / (ROW_BYTES + key(0).len())) as u32;
    let (view, mut random) = (cached.snapshot(), fastrand::Rng::with_seed(1));
    for _ in 0..10 * rows {
        let number = AHEAD.end + random.u32(..2 * rows);
        assert!(view.get(&key(number)).unwrap().is_none());
    }
    AHEAD.for_each(|number| assert!(cached.get(&key(number)).unwrap().is_none()));
    let held = |number: &u32| cached.place(&key(*number)).0.rows.contains_key(key(*number).as_slice());
    let held = AHEAD.filter(held).count();
    assert!(held > 2_700, "{held} of {}", AHEAD.len());
}
