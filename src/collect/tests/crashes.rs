//! The power goes, or the process is killed, at any call of a collection or compaction: what was promised is there, all
//! rows add up, and what was dropped is in no file after the next run.

use super::*;

/// A store with something to drop and to move; `keep` says which images stay.
fn prepare(running: &Running) -> Vec<u32> {
    let mut kept = Vec::new();
    for image in 0..12_u32 {
        let ids: Vec<u32> = (0..8).map(|id| image * 10 + id).collect();
        let len = if image == 5 || image == 6 { 24_000 } else { 2_500 };
        let manifest = running.push_image("team/app", &format!("t{image}"), &ids, len);
        if image % 3 == 0 {
            kept.extend(ids);
        } else {
            running.delete("team/app", digest_of(&manifest));
        }
    }
    for id in 200..210 {
        running.put("team/loose", &content(id, 700));
    }
    running.clock.advance(WINDOW);
    running.settle();
    kept
}

fn len_of(id: u32) -> usize {
    match id {
        200.. => 700,
        50..70 => 24_000,
        _ => 2_500,
    }
}

fn dropped(kept: &[u32]) -> Vec<u32> {
    (0..12_u32)
        .flat_map(|image| (0..8).map(move |id| image * 10 + id))
        .chain(200..210)
        .filter(|id| !kept.contains(id))
        .collect()
}

/// Whether a machine that was ended in the middle has all that it promised, and can be brought to an end.
fn check(machine: &Machine, kept: &[u32], power: u64) {
    let running = machine.start();
    running.recount();
    let is_kept = |running: &Running| kept.iter().all(|&id| running.has(&digest_of(&content(id, len_of(id)))));
    assert!(is_kept(&running), "power {power}");
    // As long as it is listed it can be read.
    for id in dropped(kept) {
        let digest = digest_of(&content(id, len_of(id)));
        if let Some(found) = running.store().content(&digest).unwrap() {
            assert_eq!(digest_of(&found.read_all().unwrap()), digest, "power {power}");
        }
    }
    running.collector.resume(Pausable::Collect).unwrap();
    for _ in 0..2 {
        running.collect();
        running.collector.compact(false).unwrap();
    }
    running.collect();
    assert!(is_kept(&running), "power {power}");
    for id in dropped(kept) {
        assert_eq!(running.files_with(id), [""; 0], "content {id} is left, power {power}");
    }
    let search = running.collector.search(&digest_of(&content(200, 700))).unwrap();
    assert!(search.gone, "power {power}: {search:?}");
    assert_eq!(running.rows("dead"), 0);
    running.recount();
}

fn run(power: Option<u64>) -> (Machine, Vec<u32>, bool) {
    let machine = Machine::new();
    let running = machine.start();
    let kept = prepare(&running);
    if let Some(power) = power {
        running.disk.power_off_after(power);
    }
    let collected = running.collector.collect(false).is_ok();
    let compacted = running.collector.compact(false).is_ok();
    let finished = collected && compacted && running.collector.collect(false).is_ok();
    (machine, kept, finished)
}

#[test]
fn the_power_may_go_at_any_call_of_a_collection_and_compaction() {
    let first = std::env::var("ORLOP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut power = first;
    loop {
        let (machine, kept, finished) = run(Some(power));
        check(&machine.cut(power), &kept, power);
        if finished {
            break;
        }
        power += 1;
    }
    assert!(power > 30, "{power} calls");
}

#[test]
fn a_kill_at_some_calls_and_a_lost_index_leave_the_same() {
    for power in (0..200).step_by(17) {
        let (machine, kept, _) = run(Some(power));
        let killed = machine.killed();
        check(&Machine { index: Arc::default(), ..killed }, &kept, power);
    }
    let (machine, kept, finished) = run(None);
    assert!(finished);
    check(&machine.killed(), &kept, u64::MAX);
}
