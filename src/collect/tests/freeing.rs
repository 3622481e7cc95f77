//! Freeing so much: the shortest beginning of what is held, in its order, that comes to it; and what is said where nothing does.

use crate::{
    name::Tag,
    policy::{Policy, TagPatterns},
};

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
            assert_eq!(goal.shortfall, shortest.is_none().then_some(Shortfall::NothingLeft), "seed {seed}");
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

/// Sets a policy for organisation `ci`, and waits until what is there is under it.
fn set(running: &Running, change: impl FnOnce(&mut Policy)) {
    let mut policy = Policy::new("ci".parse().unwrap(), "ci/*".parse().unwrap());
    change(&mut policy);
    policy.check().unwrap();
    let request = Request::SetPolicy { policy: Box::new(policy), from_settings: false, confirmed: true };
    running.store().commit(request).unwrap();
    running.settle();
}

/// Frees on paper and for real; what was ended, in words.
fn free(running: &Running, bytes: u64) -> Vec<String> {
    let told = |report: &CollectionReport| -> Vec<String> {
        let ended = report.goal.as_ref().unwrap().ended.iter();
        ended
            .map(|it| format!("{:?} {} {:?}", it.source, it.digest.unwrap(), it.tag.as_ref().map(Tag::as_str)))
            .collect()
    };
    let plan = running.collector.free(bytes, true).unwrap();
    let report = running.collector.free(bytes, false).unwrap();
    assert_eq!((told(&plan), &plan.totals), (told(&report), &report.totals));
    running.recount();
    told(&report)
}

#[test]
fn behind_what_is_held_tags_go_that_policies_take_in_the_order_in_which_they_are_due() {
    let machine = Machine::new();
    let running = machine.start();
    set(&running, |policy| {
        policy.keep_newest = Some(1);
        policy.not_pulled_for_ms = Some(3 * HOUR);
        policy.tag_pattern = TagPatterns::new("tag_pattern", vec!["v*".to_owned()]).unwrap();
    });
    let mut images = Vec::new();
    for number in 0..4_u32 {
        images.push(digest_of(&running.push_image(
            "ci/app",
            &format!("v{number}"),
            &[2 * number, 2 * number + 1],
            2_000,
        )));
        machine.clock.advance(HOUR / 2);
    }
    let pinned = digest_of(&running.push_image("ci/app", "pinned", &[20, 21], 2_000));
    let other = digest_of(&running.push_image("team/app", "v1", &[30, 31], 2_000));
    let held = digest_of(&running.push_image("team/app", "gone", &[32, 33], 2_000));
    running.delete("team/app", held);
    running.settle();
    // The first one is pulled, and written, so that its tag is due after the second one's.
    machine.clock.advance(HOUR);
    running.registry.read(|reads| reads.manifest(&name("ci/app"), &Reference::Tag("v0".parse().unwrap()))).unwrap();
    running.registry.write_pulls().unwrap();

    assert_eq!(free(&running, 1), [format!("Held {held} None")]);
    // Its blobs, too, whatever is left of their grace.
    assert_eq!(free(&running, 4_000), [format!("SpareTag {} Some(\"v1\")", images[1])]);
    assert!(running.files_with(2).is_empty() && running.files_with(3).is_empty());
    let rest = [(2, "v2"), (0, "v0")].map(|(number, tag)| format!("SpareTag {} Some({tag:?})", images[number]));
    assert_eq!(free(&running, 1 << 30), rest);
    assert!([images[3], pinned, other].iter().all(|digest| running.has(digest)));
}

#[test]
fn at_last_what_policies_may_evict_goes_the_least_recently_used_first_by_exact_times() {
    let machine = Machine::new();
    let running = machine.start();
    set(&running, |policy| {
        policy.size_max_bytes = Some(1 << 30);
        policy.tag_pattern = TagPatterns::new("tag_pattern", vec!["!pinned".to_owned()]).unwrap();
    });
    let mut images = Vec::new();
    for number in 0..4_u32 {
        let repository = ["ci/app", "ci/other"][number as usize % 2];
        images.push(digest_of(&running.push_image(
            repository,
            &format!("v{number}"),
            &[2 * number, 2 * number + 1],
            2_000,
        )));
        machine.clock.advance(1);
    }
    let pinned = digest_of(&running.push_image("ci/app", "pinned", &[20, 21], 2_000));
    // All within one hour, and not written.
    for number in [2, 0] {
        machine.clock.advance(1);
        let reference = Reference::Tag(format!("v{number}").parse().unwrap());
        running.registry.read(|reads| reads.manifest(&name("ci/app"), &reference)).unwrap();
    }
    let used = [1, 3, 2, 0].map(|number: usize| format!("LeastUsed {} None", images[number]));
    assert_eq!(free(&running, 5_000), used[..2]);
    assert_eq!(free(&running, 1 << 30), used[2..]);
    assert!(running.has(&pinned));
}
