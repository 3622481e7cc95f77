//! A capped repository as a cache: what goes is what exact LRU would let go, whatever hour it is.

use std::collections::BTreeMap;

use crate::policy::{Policy, TagPatterns};

use super::*;

const REPOSITORY: &str = "ci/cache";

/// An image's blobs: a config and a layer of one of some lengths.
fn lens(id: u32) -> [usize; 2] {
    [300, 400 + (id as usize % 7) * 150]
}

fn push(running: &Running, id: u32) -> Digest {
    let [config, layer] = lens(id);
    let (config, layer) = (content(2 * id, config), content(2 * id + 1, layer));
    running.put(REPOSITORY, &config);
    running.put(REPOSITORY, &layer);
    let manifest = image(&[&config, &layer], "");
    running.push(REPOSITORY, Some(&format!("k{id}")), &manifest).unwrap()
}

fn used(running: &Running) -> u64 {
    running.registry.repository_usage(&name(REPOSITORY)).map_or(0, |usage| usage.totals.used_bytes)
}

#[test]
fn a_capped_repository_keeps_what_exact_lru_keeps() {
    for seed in 0..if cfg!(debug_assertions) { 2 } else { 6 } {
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = Machine::new();
        let running = machine.start();
        // Some hundred images: more than are put to their places at once.
        let cap_bytes = 200_000;
        let mut policy = Policy::new("ci".parse().unwrap(), "ci/*".parse().unwrap());
        policy.size_max_bytes = Some(cap_bytes);
        policy.tag_pattern = TagPatterns::new("tag_pattern", vec!["!pinned-*".to_owned()]).unwrap();
        let request = Request::SetPolicy { policy: Box::new(policy), from_settings: false, confirmed: true };
        running.store().commit(request).unwrap();
        running.settle();
        // Image → when it was used last; what is there of it.
        let (mut there, mut tick) = (BTreeMap::<u32, u64>::new(), 0);
        let bytes = |id: &u32| lens(*id).iter().sum::<usize>() as u64;
        let (mut hits, mut evicted) = (0, 0);
        for step in 0..1_500 {
            tick += 1;
            // Now and then an hour passes, and pulls are written or not.
            machine.clock.advance(if random.u16(..200) == 0 { HOUR } else { 1 + random.u64(..3) });
            if random.u16(..100) == 0 {
                running.registry.write_pulls().unwrap();
            }
            // Half of all requests are for images of before.
            let id = if random.bool() { random.u32(..150) } else { random.u32(..600) };
            let tag = Reference::Tag(format!("k{id}").parse().unwrap());
            let found = running.registry.read(|reads| reads.manifest(&name(REPOSITORY), &tag)).is_ok();
            assert_eq!(found, there.contains_key(&id), "seed {seed}, step {step}: image {id}");
            hits += u32::from(found);
            if !found {
                push(&running, id);
            }
            there.insert(id, tick);
            while there.keys().map(bytes).sum::<u64>() > cap_bytes {
                let oldest = *there.iter().min_by_key(|(_, used)| **used).unwrap().0;
                there.remove(&oldest);
                evicted += 1;
            }
            if !found {
                running.settle();
                assert_eq!(used(&running), there.keys().map(bytes).sum::<u64>(), "seed {seed}, step {step}");
            }
        }
        assert!(hits > 300 && evicted > 300, "seed {seed}: {hits} hits, {evicted} evicted");
        running.recount();
    }
}
