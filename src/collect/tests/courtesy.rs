//! A run gives way to clients, and comes to an end.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use super::*;

#[test]
fn pieces_are_small_while_clients_ask_and_whole_when_they_do_not() {
    let machine = Machine::new();
    let running = machine.start();
    let (stop, registry) = (Stop::default(), &running.registry);
    let mut way = GivingWay::new(PATIENCE, &stop, registry);
    let small = way.piece(1_000);
    assert!(small < 100, "nobody knows yet");
    assert_eq!([way.piece(5), way.piece(0)], [5, 1]);
    way.after(|| ());
    assert_eq!([way.piece(1_000), way.piece(0)], [1_000, 1]);
    way.after(|| registry.note_asked());
    assert_eq!(way.piece(1_000), small);
    way.after(|| ());
    assert_eq!(way.piece(1_000), 1_000);
}

#[test]
fn who_asks_during_a_rest_only_is_given_way_to() {
    let machine = Machine::new();
    let running = machine.start();
    let (stop, registry) = (Stop::default(), &running.registry);
    let mut way = GivingWay::new(PATIENCE, &stop, registry);
    let small = way.piece(1_000);
    thread::scope(|scope| {
        let (resting, rests) = mpsc::channel();
        scope.spawn(move || {
            rests.recv().unwrap();
            thread::sleep(Duration::from_millis(50));
            registry.note_asked();
        });
        // A rest of 200 ms follows.
        way.after(|| {
            registry.note_asked();
            thread::sleep(Duration::from_millis(60));
            resting.send(()).unwrap();
        });
    });
    way.after(|| ());
    assert_eq!(way.piece(1_000), small);
    way.after(|| ());
    assert_eq!(way.piece(1_000), 1_000);
}

#[test]
fn a_rest_ends_with_the_store() {
    let machine = Machine::new();
    let running = machine.start();
    let stop = Stop::default();
    let mut way = GivingWay::new(PATIENCE, &stop, &running.registry);
    let piece = Duration::from_millis(100);
    let began = Instant::now();
    way.after(|| {
        running.registry.note_asked();
        thread::sleep(piece);
    });
    assert!(began.elapsed() > piece * 2, "it rests");
    stop.set();
    let began = Instant::now();
    way.after(|| {
        running.registry.note_asked();
        thread::sleep(piece);
    });
    assert!(began.elapsed() < piece * 2);
}

#[test]
fn rests_end_after_a_time_but_for_those_that_are_always() {
    let ms = Duration::from_millis;
    let (collecting, compacting) = (PATIENCE, compact::PATIENCE);
    let cases = [
        (collecting, ms(5), ms(0), [ms(0), ms(20)]),
        (collecting, ms(5), ms(15_000), [ms(0), ms(10)]),
        (collecting, ms(5), ms(30_000), [ms(0), ms(0)]),
        (collecting, ms(5), ms(60_000), [ms(0), ms(0)]),
        (collecting, ms(500), ms(0), [ms(0), ms(200)]),
        (compacting, ms(5), ms(0), [ms(5), ms(20)]),
        (compacting, ms(5), ms(300_000), [ms(5), ms(10)]),
        (compacting, ms(5), ms(600_000), [ms(5), ms(5)]),
        (compacting, ms(500), ms(0), [ms(500), ms(500)]),
        (compacting, ms(5_000), ms(0), [ms(1_000), ms(1_000)]),
    ];
    for (patience, took, gone_on, rests) in cases {
        let found = [false, true].map(|is_asked| patience.rest(took, gone_on, is_asked));
        assert_eq!(found, rests, "{patience:?} {took:?} {gone_on:?}");
    }
}

#[test]
fn under_clients_that_never_pause_as_much_is_moved_as_without() {
    let reports = [false, true].map(|is_asked| {
        let machine = Machine::new();
        let running = machine.start();
        for tag in 0..400 {
            let manifest = running.push_image("team/app", &format!("t{tag}"), &[0, tag + 1], 300);
            if tag % 4 != 0 {
                running.delete("team/app", digest_of(&manifest));
            }
        }
        running.store().retire_segment(running.store().active_segment().unwrap());
        running.clock.advance(WINDOW + GRACE);
        running.collect();
        let report = while_asked(&running, is_asked, || running.collector.compact(false).unwrap());
        running.recount();
        (report.moved_records, report.moved_bytes, report.segments_removed)
    });
    assert!(reports[0].0 > 100, "{reports:?}");
    assert_eq!(reports[0], reports[1]);
}

/// Does something, while clients ask all the time or not at all.
fn while_asked<T>(running: &Running, is_asked: bool, work: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while is_asked && !ended.load(Ordering::Relaxed) {
                running.registry.note_asked();
                thread::yield_now();
            }
        });
        let done = work();
        ended.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        done
    })
}

#[test]
fn under_clients_that_never_pause_as_much_goes_as_without() {
    let reports = [false, true].map(|is_asked| {
        let machine = Machine::new();
        let running = machine.start();
        for tag in 0..60 {
            let manifest = running.push_image("team/app", &format!("t{tag}"), &[0, tag + 1], 3_000);
            if tag % 2 == 0 {
                running.delete("team/app", digest_of(&manifest));
            }
        }
        running.clock.advance(WINDOW + GRACE);
        let report = while_asked(&running, is_asked, || running.collect());
        running.recount();
        (report.freed_bytes, report.erased_records, report.totals)
    });
    assert!(reports[0].0 > 30 * 3_000);
    assert_eq!(reports[0], reports[1]);
}
