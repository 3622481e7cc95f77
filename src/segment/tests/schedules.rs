//! Readers against erasers, step by step: whatever the order of their steps, nobody reads what is erased.

use std::cell::{Cell, RefCell};

use super::*;
use crate::segment::readers::{Earlier, Epoch, Pin, Readers};

const PLACE: Location = Location { segment: SegmentNumber(3), offset: 64 };

/// What all actors see: one record, and whether the index names it.
struct World {
    readers: Arc<Readers>,
    named: Cell<bool>,
    erased: Cell<bool>,
}

impl World {
    fn new() -> Self {
        Self { readers: Arc::new(Readers::new()), named: Cell::new(true), erased: Cell::new(false) }
    }
}

/// A reader's steps: enter, look up, pin, leave, read, unpin.
#[derive(Default)]
struct Reader<'a> {
    step: usize,
    found: bool,
    epoch: Option<Epoch<'a>>,
    pin: Option<Pin>,
}

impl<'a> Reader<'a> {
    const STEPS: usize = 6;

    fn step(&mut self, world: &'a World) {
        match self.step {
            0 => self.epoch = Some(world.readers.enter()),
            1 => self.found = world.named.get(),
            2 if self.found => self.pin = Some(world.readers.pin(PLACE)),
            3 => self.epoch = None,
            4 => assert!(!self.found || !world.erased.get(), "a reader sees an erased record"),
            _ => self.pin = None,
        }
        self.step += 1;
    }
}

/// An eraser's steps: drop, then ask until nobody reads, then erase.
#[derive(Default)]
struct Eraser {
    step: usize,
    earlier: RefCell<Option<Earlier>>,
}

impl Eraser {
    fn step(&mut self, world: &World) {
        match self.step {
            0 => world.named.set(false),
            1 => *self.earlier.borrow_mut() = Some(world.readers.earlier()),
            _ => {
                if world.readers.are_over(self.earlier.borrow().unwrap()) && !world.readers.is_pinned(PLACE) {
                    world.erased.set(true);
                }
            }
        }
        self.step += 1;
    }
}

/// Runs one order of steps, given as the actor of each; the last actors are the erasers. At its end all may be erased.
fn run(schedule: impl Iterator<Item = usize>, readers: usize, erasers: usize) {
    let world = World::new();
    let mut reading: Vec<Reader<'_>> = (0..readers).map(|_| Reader::default()).collect();
    let mut erasing: Vec<Eraser> = (0..erasers).map(|_| Eraser::default()).collect();
    for actor in schedule {
        match reading.get_mut(actor) {
            Some(reader) => reader.step(&world),
            None => erasing[actor - readers].step(&world),
        }
    }
    for reader in &mut reading {
        (reader.step..Reader::STEPS).for_each(|_| reader.step(&world));
    }
    for eraser in &mut erasing {
        (eraser.step..3).for_each(|_| eraser.step(&world));
        eraser.step(&world);
    }
    assert!(world.erased.get(), "all readers are gone, and the eraser still waits");
}

#[test]
fn in_every_order_of_one_reader_and_one_eraser_none_sees_an_erased_record() {
    const LOOKS: u32 = 5;
    let steps = Reader::STEPS as u32 + LOOKS;
    let mut orders = 0;
    for erasing in 0_u32..1 << steps {
        if erasing.count_ones() == LOOKS {
            run((0..steps).map(|step| (erasing >> step & 1) as usize), 1, 1);
            orders += 1;
        }
    }
    assert_eq!(orders, 462);
}

#[test]
fn in_many_orders_of_readers_and_erasers_none_sees_an_erased_record() {
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut schedule: Vec<usize> =
            (0..3).flat_map(|reader| [reader; Reader::STEPS]).chain([3; 6]).chain([4; 6]).collect();
        rng.shuffle(&mut schedule);
        if std::panic::catch_unwind(|| run(schedule.into_iter(), 3, 2)).is_err() {
            panic!("seed {seed}");
        }
    }
}

#[test]
fn who_comes_later_is_not_waited_for() {
    let readers = Arc::new(Readers::new());
    let first = readers.enter();
    let before = readers.earlier();
    assert!(!readers.are_over(before));
    let second = readers.enter();
    drop(first);
    assert!(readers.are_over(before));
    assert!(!readers.are_over(readers.earlier()));
    drop(second);
    assert!(readers.are_over(readers.earlier()));
}

#[test]
fn pins_are_counted_per_record_and_seen_per_segment() {
    let readers = Arc::new(Readers::new());
    let other = Location { offset: 96, ..PLACE };
    let pins = [readers.pin(PLACE), readers.pin(PLACE)];
    let seen = || [readers.is_pinned(PLACE), readers.is_pinned(other), readers.is_segment_pinned(PLACE.segment)];
    assert_eq!(seen(), [true, false, true]);
    let [first, second] = pins;
    drop(first);
    assert_eq!(seen(), [true, false, true]);
    drop(second);
    assert_eq!(seen(), [false; 3]);
    let _pin = readers.pin(other);
    assert_eq!(seen(), [false, true, true]);
    assert!(!readers.is_segment_pinned(SegmentNumber(4)));
}
