//! Freeing so much: the shortest beginning of what is held, in its order, that comes to it; and what is said where nothing does.

use super::*;

/// Images of a few layers that they share, in three repositories; some are deleted, at different times. Those, the first first.
fn fill(machine: &Machine, running: &Running, random: &mut fastrand::Rng) -> Vec<(String, Digest)> {
    let mut images = Vec::new();
    for tag in 0..12 {
        let repository = ["a/x", "a/y", "b"][random.usize(..3)].to_owned();
        let layers: Vec<u32> = (0..random.usize(1..4)).map(|_| random.u32(..10)).collect();
        let ids: Vec<u32> = [100 + tag].into_iter().chain(layers).collect();
        let manifest = running.push_image(&repository, &format!("v{tag}"), &ids, 1_000);
        images.push((repository, digest_of(&manifest)));
    }
    random.shuffle(&mut images);
    images.truncate(random.usize(3..10));
    for (repository, digest) in &images {
        machine.clock.advance(random.u64(1..HOUR));
        running.delete(repository, *digest);
        running.settle();
    }
    images
}

fn repository_id(running: &Running, repository: &str) -> RepositoryId {
    purge::repositories(&*running.store().snapshot(), &Owner::Repository(name(repository))).unwrap()[0]
}

/// What leaves when the windows of these end, and of nothing else.
fn freed_by(machine: &Machine, ended: &[(String, Digest)], seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let other = Machine { clock: Clock::manual(BEGIN), ..Machine::new() };
    let running = other.start();
    fill(&other, &running, &mut random);
    assert_eq!(other.clock.now_ms(), machine.clock.now_ms(), "the same history");
    for (repository, digest) in ended {
        let repository = repository_id(&running, repository);
        running.store().commit(Request::EndWindows { repository, digests: vec![*digest] }).unwrap();
    }
    running.collect().freed_bytes
}

fn ended(report: &CollectionReport) -> Vec<(String, Digest)> {
    let goal = report.goal.as_ref().unwrap();
    goal.ended.iter().map(|ended| (ended.repository.to_string(), ended.digest.unwrap())).collect()
}

#[test]
fn no_more_is_ended_than_it_takes_in_the_order_of_time() {
    for seed in 0..if cfg!(debug_assertions) { 10 } else { 60 } {
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = Machine::new();
        let running = machine.start();
        let images = fill(&machine, &running, &mut random);
        let all = freed_by(&machine, &images, seed);
        let wanted = random.u64(1..all + all / 4);
        let shortest = (0..=images.len()).find(|&count| freed_by(&machine, &images[..count], seed) >= wanted);

        let plan = running.collector.free(wanted, true).unwrap();
        assert!(images.iter().all(|(_, digest)| running.has(digest)), "seed {seed}: a plan does nothing");
        let report = running.collector.free(wanted, false).unwrap();
        for (report, dry) in [(&plan, true), (&report, false)] {
            let goal = report.goal.as_ref().unwrap();
            assert_eq!((report.trigger, report.dry_run, goal.bytes), (Trigger::Free, dry, wanted));
            assert_eq!(goal.reached, shortest.is_some(), "seed {seed}: {wanted} of {all}");
            assert_eq!(goal.shortfall, shortest.is_none().then_some(Shortfall::NothingHeld), "seed {seed}");
            assert_eq!(ended(report), images[..shortest.unwrap_or(images.len())], "seed {seed}: {wanted} of {all}");
            assert_eq!(report.freed_bytes, freed_by(&machine, &ended(report), seed), "seed {seed}");
        }
        assert_eq!(plan.totals, report.totals, "seed {seed}");
        running.recount();
    }
}

#[test]
fn an_index_goes_with_what_it_names_before_younger_things() {
    let machine = Machine::new();
    let running = machine.start();
    let mut children = Vec::new();
    for id in 0..4 {
        let (config, layer) = (content(id * 2, 500), content(id * 2 + 1, 2_000));
        running.put("team/app", &config);
        running.put("team/app", &layer);
        let child = image(&[&config, &layer], &format!("{id}"));
        running.push("team/app", None, &child).unwrap();
        children.push(child);
    }
    let index = index(&children.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let index = running.push("team/app", Some("multi"), &index).unwrap();
    let younger = digest_of(&running.push_image("other", "1", &[50, 51], 2_000));
    running.delete("team/app", index);
    running.settle();
    machine.clock.advance(HOUR);
    running.delete("other", younger);
    running.settle();

    let report = running.collector.free(9_000, false).unwrap();
    assert!(report.goal.as_ref().unwrap().reached && report.freed_bytes >= 9_000, "{report:?}");
    assert!(running.has(&younger), "{report:?}");
    assert!((0..4).any(|id| running.files_with(id * 2 + 1).is_empty()));
    running.recount();
}

#[test]
fn what_is_due_by_itself_counts_first() {
    let machine = Machine::new();
    let running = machine.start();
    running.put("team/app", &content(1, 5_000));
    let held = digest_of(&running.push_image("team/app", "1", &[2, 3], 2_000));
    machine.clock.advance(GRACE);
    running.delete("team/app", held);
    running.settle();
    let report = running.collector.free(5_000, false).unwrap();
    assert!(report.goal.unwrap().ended.is_empty() && running.has(&held));
    assert!(running.files_with(1).is_empty());
}

#[test]
fn while_nothing_is_dropped_nothing_is_ended() {
    let machine = Machine::new();
    let running = machine.start();
    let held = digest_of(&running.push_image("team/app", "1", &[2, 3], 2_000));
    running.delete("team/app", held);
    running.collector.pause(Pausable::Collect).unwrap();
    for dry_run in [true, false] {
        let goal = running.collector.free(1, dry_run).unwrap().goal.unwrap();
        assert_eq!((goal.reached, goal.shortfall, goal.ended.len()), (false, Some(Shortfall::Paused), 0));
    }
    running.collector.resume(Pausable::Collect).unwrap();
    let report = running.collector.free(1, false).unwrap();
    assert!(report.goal.unwrap().reached && !running.has(&held));
    // Kept reports tell how many there were.
    let kept = running.collector.reports(1).unwrap().remove(0).goal.unwrap();
    assert_eq!((kept.reached, kept.ended.len(), kept.ended_more), (true, 0, 1));
}
