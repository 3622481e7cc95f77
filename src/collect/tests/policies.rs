//! What goes by policies: when, how much at once, and how it is told; caps while many push.

use crate::{
    policy::{Policy, PolicyName},
    state::{govern::evict, request::Request},
};

use super::*;

const APP: &str = "ci/app";

fn set(running: &Running, confirmed: bool, change: impl FnOnce(&mut Policy)) -> PolicyName {
    let mut policy = Policy::new("ci".parse().unwrap(), "ci/**".parse().unwrap());
    change(&mut policy);
    let name = policy.name.clone();
    let request = Request::SetPolicy { policy: Box::new(policy), from_settings: false, confirmed };
    running.store().commit(request).unwrap();
    running.settle();
    name
}

fn tags(running: &Running) -> Vec<String> {
    running.registry.read(|reads| reads.tags(&name(APP), None, 100)).unwrap().names
}

#[test]
fn a_policy_takes_more_than_half_of_the_tags_only_when_somebody_has_confirmed_that() {
    let machine = Machine::new();
    let running = machine.start();
    let policy = set(&running, false, |policy| policy.older_than_ms = Some(DAY));
    for id in 0..3_u32 {
        running.push_image(APP, &format!("v{id}"), &[2 * id, 2 * id + 1], 300);
        running.clock.advance(HOUR);
    }
    running.clock.advance(DAY - 3 * HOUR);
    let report = running.collect();
    let gone = report.dropped.iter().filter(|dropped| dropped.kind == Kind::Tag);
    let gone: Vec<_> = gone.map(|dropped| (dropped.tag.as_deref(), dropped.policy.as_deref())).collect();
    assert_eq!((gone, report.held_back.len()), (vec![(Some("v0"), Some("ci"))], 0), "one of three");
    running.clock.advance(DAY);
    let held_back = HeldBack { repository: name(APP), policy: "ci".to_owned(), tags: 2 };
    for dry_run in [true, false, false] {
        let report = running.collector.collect(dry_run).unwrap();
        assert_eq!(report.held_back, std::slice::from_ref(&held_back));
        assert_eq!(tags(&running), ["v1", "v2"], "two of two");
    }
    running.store().commit(Request::ConfirmPolicy { name: policy }).unwrap();
    let plan = running.collector.collect(true).unwrap();
    let is_tag = |dropped: &&Dropped| dropped.kind == Kind::Tag;
    assert_eq!((plan.dropped.iter().filter(is_tag).count(), tags(&running).len()), (2, 2));
    let report = running.collect();
    assert_eq!(report.dropped.iter().filter(is_tag).count(), 2);
    assert!(report.held_back.is_empty() && tags(&running).is_empty());
    running.recount();
}

#[test]
fn a_tag_whose_manifest_was_pulled_stays_for_a_while_and_costs_one_look() {
    let machine = Machine::new();
    let running = machine.start();
    set(&running, true, |policy| policy.not_pulled_for_ms = Some(2 * DAY));
    running.push_image(APP, "used", &[1, 2], 300);
    running.push_image(APP, "idle", &[3, 4], 300);
    running.clock.advance(DAY);
    running.registry.read(|reads| reads.manifest(&name(APP), &Reference::Tag("used".parse().unwrap()))).unwrap();
    running.clock.advance(DAY + HOUR);
    running.collect();
    assert_eq!(tags(&running), ["used"]);
    assert!(running.collector.due().unwrap().kinds.iter().all(|kind| kind.kind != Kind::Tag || kind.count == 0));
    running.clock.advance(DAY);
    running.collect();
    assert!(tags(&running).is_empty());
    running.recount();
}

#[test]
fn a_root_that_never_gets_a_tag_goes() {
    let machine = Machine::new();
    let running = machine.start();
    set(&running, false, |policy| {
        (policy.never_tagged_for_ms, policy.held_for_ms) = (Some(DAY), Some(HOUR));
    });
    running.put(APP, &content(1, 300));
    let digest = running.push(APP, None, &image(&[&content(1, 300)], "root")).unwrap();
    running.clock.advance(DAY - 1);
    running.collect();
    assert!(running.has(&digest));
    running.clock.advance(1);
    let report = running.collect();
    assert!(report.dropped.iter().any(|dropped| dropped.kind == Kind::Root && dropped.digest == Some(digest)));
    running.registry.restore(&name(APP), &digest, None).unwrap();
    running.clock.advance(DAY);
    running.collect();
    running.clock.advance(HOUR);
    running.collect();
    assert!(!running.has(&digest), "it is held for an hour");
    running.recount();
}

/// However many push at once: what is used never passes the cap by more than one image, and pinned tags stay.
#[cfg(not(shuttle))]
#[test]
fn a_cap_holds_while_many_push() {
    const IMAGE: u64 = 2 * 400;
    const CAP: u64 = 5 * IMAGE;
    let machine = Machine::new();
    let running = machine.start();
    let policy = set(&running, false, |policy| {
        policy.size_max_bytes = Some(CAP);
        policy.tag_pattern = crate::policy::TagPatterns::new("tag_pattern", vec!["!pinned".to_owned()]).unwrap();
    });
    let used = || crate::state::govern::usage(&*running.store().snapshot(), policy.as_str()).unwrap().used_bytes;
    running.push_image(APP, "pinned", &[9_000, 9_001], 400);
    running.push_image("ci/other", "hot", &[9_002, 9_003], 400);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (running, used) = (&running, &used);
            scope.spawn(move || {
                for round in 0..25_u32 {
                    let id = 10 * (thread * 25 + round);
                    let repository = if thread == 3 { "ci/other" } else { APP };
                    running.push_image(repository, &format!("v{id}"), &[id, id + 1], 400);
                    assert!(used() <= CAP + IMAGE, "{} of {CAP}", used());
                    running.clock.advance(1);
                    let hot = Reference::Tag("hot".parse().unwrap());
                    // Three others may have come since it was last pulled.
                    drop(running.registry.read(|reads| reads.manifest(&name("ci/other"), &hot)));
                }
            });
        }
    });
    running.settle();
    assert!(used() <= CAP);
    assert!(tags(&running).contains(&"pinned".to_owned()));
    running.recount();
    let too_large: Vec<Vec<u8>> = (0..6).map(|id| content(8_000 + id, 800)).collect();
    for blob in &too_large {
        running.put(APP, blob);
    }
    let manifest = image(&too_large.iter().map(Vec::as_slice).collect::<Vec<_>>(), "large");
    let refused = running.push(APP, Some("large"), &manifest).unwrap_err().to_string();
    assert!(refused.contains("4800 bytes") && refused.contains(&format!("{CAP} bytes")), "{refused}");
}

#[test]
fn a_cap_that_is_lowered_is_kept_by_the_collector_and_one_full_of_pinned_tags_refuses() {
    let machine = Machine::new();
    let running = machine.start();
    for id in 0..6_u32 {
        running.push_image(APP, &format!("v{id}"), &[2 * id, 2 * id + 1], 400);
        running.clock.advance(1);
    }
    let pinned = |patterns: &[&str]| {
        let patterns = patterns.iter().map(|text| (*text).to_owned()).collect();
        crate::policy::TagPatterns::new("tag_pattern", patterns).unwrap()
    };
    let policy = set(&running, false, |policy| {
        (policy.size_max_bytes, policy.tag_pattern) = (Some(2_000), pinned(&["!v1"]));
    });
    let plan = running.collector.collect(true).unwrap();
    let report = running.collect();
    for report in [&plan, &report] {
        let evicted = report.dropped.iter().filter(|dropped| dropped.kind == Kind::Eviction).count();
        assert_eq!(evicted, 4, "{report:?}");
    }
    assert_eq!(tags(&running), ["v1", "v5"]);
    assert!(evict::all_over(&*running.store().snapshot()).unwrap().is_empty());
    set(&running, false, |policy| {
        (policy.size_max_bytes, policy.tag_pattern) = (Some(1_500), pinned(&["!v*"]));
    });
    running.put(APP, &content(100, 400));
    let refused = running.push(APP, Some("w"), &image(&[&content(100, 400)], "w")).unwrap_err().to_string();
    assert!(refused.contains("nothing more may be evicted"), "{refused}");
    assert_eq!(tags(&running), ["v1", "v5"], "{policy}");
    running.recount();
}
