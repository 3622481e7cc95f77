//! Reports, joined runs, pauses, clocks.

use super::*;

#[test]
fn reports_are_numbered_and_outlive_restarts_lost_indexes_and_snapshots() {
    let mut machine = Machine::new();
    let mut running = machine.start();
    let mut expected = Vec::new();
    for id in 1..=4 {
        running.put("team/app", &content(id, 500));
        running.clock.advance(GRACE);
        expected.insert(0, running.collect());
        assert_eq!(running.collector.reports(10).unwrap(), expected);
        if id == 3 {
            running.store().write_snapshot().unwrap().unwrap();
        }
        // The wall clock moves only while the process runs, so that no start finds it ahead.
        let kept = if id % 2 == 0 { Machine { index: Arc::default(), ..machine.killed() } } else { machine.killed() };
        drop(running);
        machine = kept;
        running = machine.start();
        assert_eq!(running.collector.reports(10).unwrap(), expected);
    }
    assert_eq!(expected.iter().map(|report| report.id).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!(running.collector.reports(2).unwrap(), expected[..2]);
}

#[test]
fn a_scheduled_run_with_nothing_to_do_leaves_no_report() {
    let machine = Machine::new();
    let running = machine.start();
    for _ in 0..3 {
        assert_eq!(running.collector.tick(), running.collector.options().interval);
    }
    assert_eq!(running.collector.reports(10).unwrap(), []);
    running.put("team/app", &content(1, 500));
    running.clock.advance(GRACE);
    assert!(running.collector.due().unwrap().is_due());
    running.collector.tick();
    let reports = running.collector.reports(10).unwrap();
    assert_eq!((reports.len(), reports[0].trigger), (1, Trigger::Schedule));
    assert_eq!(running.files_with(1), [""; 0]);
}

#[test]
fn old_reports_lose_their_lists_and_the_oldest_go() {
    let machine = Machine::new();
    let running = machine.start();
    running.put("team/app", &content(1, 500));
    running.clock.advance(GRACE);
    assert_eq!(running.collect().dropped.len(), 2);
    for _ in 0..99 {
        running.collect();
    }
    assert_eq!(running.collector.reports(200).unwrap().last().unwrap().dropped.len(), 2);
    running.collect();
    let reports = running.collector.reports(200).unwrap();
    let oldest = reports.last().unwrap();
    assert_eq!((reports.len(), oldest.id, oldest.dropped.len(), oldest.dropped_more), (101, 1, 0, 2));
    for _ in 101..1_002 {
        running.collect();
    }
    let reports = running.collector.reports(2_000).unwrap();
    assert_eq!((reports.len(), reports.last().unwrap().id), (1_000, 3));
    assert_eq!(running.rows("reports"), 1_000);
}

#[test]
fn a_second_call_joins_the_run_under_way_and_gets_its_report() {
    let machine = Machine::new();
    let running = machine.start();
    for id in 0..200 {
        running.put("team/app", &content(id, 300));
    }
    running.clock.advance(GRACE);
    let reports: Vec<CollectionReport> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| running.collect())).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let ids: std::collections::BTreeSet<u64> = reports.iter().map(|report| report.id).collect();
    assert!(ids.len() < 8, "all ran by themselves");
    for (at, report) in reports.iter().enumerate() {
        let same = reports[..at].iter().filter(|other| other.id == report.id);
        same.for_each(|other| assert_eq!(other, report, "a run has one report"));
    }
    assert!(reports.iter().any(|report| report.totals[..].iter().any(|total| total.count == 200)));
    assert!(!running.collector.status().unwrap().collecting);
}

#[test]
fn what_is_paused_stays_paused_over_a_restart() {
    let mut machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    running.collector.pause(Pausable::Collect).unwrap();
    running.collector.pause(Pausable::Compact).unwrap();
    running.clock.advance(GRACE);
    // An operation, so that the start does not find the clock ahead.
    running.put("team/other", &content(2, 500));
    drop(running);
    machine.index = Arc::default();
    let running = machine.start();
    let pauses = running.collector.status().unwrap().pauses;
    let forever = |what| Pause { what, until_ms: None };
    assert_eq!(pauses, [forever(Pausable::Collect), forever(Pausable::Compact)]);
    let report = running.collect();
    assert_eq!((report.paused, report.id, running.has(&digest)), (Some(Pausable::Collect), 0, true));
    assert!(running.collector.compact(false).unwrap().paused);
    assert!(running.collector.purge(&Owner::Repository(name("team/app")), false).unwrap().paused.is_some());
    running.collector.tick();
    assert!(running.has(&digest));
    running.collector.resume(Pausable::Collect).unwrap();
    running.collector.resume(Pausable::Compact).unwrap();
    assert_eq!(running.collector.status().unwrap().pauses, []);
    running.collect();
    assert!(!running.has(&digest));
}

#[test]
fn a_clock_that_jumps_ahead_ends_nothing_for_a_grace() {
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    running.collector.tick();
    running.clock.set_wall(BEGIN + 400 * DAY);
    let report = running.collect();
    assert_eq!((report.paused, running.has(&digest)), (Some(Pausable::Clock), true));
    let pause = running.collector.status().unwrap().pauses[0];
    assert_eq!((pause.what, pause.until_ms), (Pausable::Clock, Some(BEGIN + 400 * DAY + GRACE)));
    // What is written now has that time, and the next start finds nothing wrong.
    running.put("team/other", &content(2, 500));
    drop(running);
    let running = machine.start();
    assert_eq!(running.collect().paused, Some(Pausable::Clock), "a restart does not end the pause");
    // Somebody sets the clock right.
    running.clock.set_wall(BEGIN + HOUR);
    running.clock.advance(GRACE - HOUR - 1);
    assert_eq!(running.collect().paused, Some(Pausable::Clock));
    running.clock.advance(HOUR + 1);
    assert_eq!(running.collect().paused, None);
    assert_eq!(running.collector.status().unwrap().pauses, []);
    assert!(!running.has(&digest), "its grace is over by the right clock");
    assert!(running.has(&digest_of(&content(2, 500))), "what was pushed meanwhile has more time, never less");
    assert_eq!(running.rows("pauses"), 0);
}

#[test]
fn a_start_long_after_the_last_operation_pauses_until_somebody_has_looked() {
    let machine = Machine::new();
    let digest = machine.start().put("team/app", &content(1, 500));
    machine.clock.advance(HOUR);
    assert_eq!(machine.start().collect().paused, None, "an hour is nothing");
    machine.clock.advance(GRACE);
    let running = machine.start();
    assert_eq!((running.collect().paused, running.has(&digest)), (Some(Pausable::Clock), true));
    running.collector.resume(Pausable::Collect).unwrap();
    assert_eq!((running.collect().paused, running.has(&digest)), (None, false));
    running.clock.set_wall(BEGIN);
    assert_eq!(running.collect().paused, None, "a clock that runs back ends nothing early");
}

#[test]
fn a_restart_after_a_quiet_day_pauses_nothing() {
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    running.collector.pause(Pausable::Collect).unwrap();
    for _ in 0..100 {
        running.clock.advance(HOUR / 4);
        running.collector.tick();
    }
    drop(running);
    machine.clock.advance(HOUR / 4);
    let running = machine.start();
    let pauses = running.collector.status().unwrap().pauses;
    assert_eq!(pauses, [Pause { what: Pausable::Collect, until_ms: None }], "the clock is not among them");
    running.collector.resume(Pausable::Collect).unwrap();
    assert_eq!((running.collect().paused, running.has(&digest)), (None, false));
}

#[test]
fn what_is_due_is_counted_and_the_next_time_told() {
    let machine = Machine::new();
    let running = machine.start();
    running.put("team/app", &content(1, 500));
    running.clock.advance(10);
    running.put("team/app", &content(2, 500));
    let due = running.collector.due().unwrap();
    assert_eq!((due.is_due(), due.next_due_ms()), (false, Some(BEGIN + GRACE)));
    running.clock.advance(GRACE - 10);
    let due = running.collector.due().unwrap();
    let links = due.kinds.iter().find(|kind| kind.kind == Kind::Link).unwrap();
    assert_eq!((links.count, links.more, links.next_due_ms), (1, false, Some(BEGIN + GRACE + 10)));
}

#[test]
fn after_a_stop_nothing_runs() {
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    running.clock.advance(GRACE);
    running.collector.stop();
    assert!(matches!(running.collector.collect(false), Err(RegistryError::Unavailable(_))));
    running.collector.tick();
    assert!(running.has(&digest));
}

#[test]
fn reports_are_json_and_back() {
    let machine = Machine::new();
    let running = machine.start();
    running.push_image("team/app", "1", &[1, 2], 500);
    running.put("team/app", &content(3, 500));
    running.clock.advance(GRACE);
    let report = running.collect();
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains(r#""trigger":"request""#) && text.contains(r#""kind":"link""#), "{text}");
    assert_eq!(serde_json::from_str::<CollectionReport>(&text).unwrap(), report);
}
