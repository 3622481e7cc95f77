//! When manifests were pulled: to the hour, over restarts, and no longer than the manifest is there.

use std::collections::BTreeMap;

use crate::{
    index::{prefix_end, schema::Table},
    registry::{ManifestsWanted, PULL_PRECISION_MS},
};

use super::*;

const APP: &str = "team/app";

/// The hour of the last pull, as it is told.
fn pulled_ms(running: &Running, digest: &Digest) -> Option<u64> {
    let wanted = ManifestsWanted { digest: Some(*digest), limit: 1, ..ManifestsWanted::default() };
    running.registry.manifests(&name(APP), &wanted).unwrap().items[0].pulled_ms
}

fn rows(running: &Running) -> usize {
    let table = [Table::Pulls as u8];
    running.store().snapshot().scan(&table, &prefix_end(&table), 1_000).unwrap().len()
}

#[test]
fn pulls_are_told_to_the_hour_and_those_that_were_written_survive_whatever_comes() {
    let mut random = fastrand::Rng::with_seed(9);
    let mut machine = Machine::new();
    let mut running = machine.start();
    let images: Vec<Digest> =
        (0..6_u32).map(|id| digest_of(&running.push_image(APP, &format!("v{id}"), &[id, 100 + id], 300))).collect();
    // Hours of pulls: as told, and as written.
    let (mut told, mut written) = (BTreeMap::<Digest, u64>::new(), BTreeMap::new());
    for round in 0..400 {
        let at = random.usize(..images.len());
        let reference = match random.bool() {
            true => Reference::Tag(format!("v{at}").parse().unwrap()),
            false => Reference::Digest(images[at]),
        };
        match random.u8(..12) {
            0..6 => {
                match random.bool() {
                    true => drop(running.registry.read(|reads| reads.manifest(&name(APP), &reference)).unwrap()),
                    false => drop(running.registry.read(|reads| reads.manifest_head(&name(APP), &reference)).unwrap()),
                }
                let now_ms = machine.clock.now_ms();
                told.insert(images[at], now_ms - now_ms % PULL_PRECISION_MS);
            }
            6 | 7 => machine.clock.advance(random.u64(..HOUR)),
            8 => {
                running.registry.write_pulls().unwrap();
                written = told.clone();
                // Whatever was pulled again in the same hour is no news.
                assert_eq!(running.registry.write_pulls().unwrap(), 0);
            }
            9 => {
                running.store().write_snapshot().unwrap();
            }
            10 => {
                drop(running);
                machine = match random.u8(..3) {
                    0 => Machine { index: Arc::default(), ..machine.killed() },
                    1 => machine.cut(round),
                    _ => machine.killed(),
                };
                running = machine.start();
                told = written.clone();
            }
            _ => {
                for digest in &images {
                    assert_eq!(pulled_ms(&running, digest), told.get(digest).copied(), "round {round}");
                }
                running.recount();
            }
        }
    }
    running.registry.write_pulls().unwrap();
    assert_eq!(rows(&running), told.len());
    images.iter().for_each(|digest| running.delete(APP, *digest));
    machine.clock.advance(WINDOW + GRACE + HOUR);
    running.collect();
    assert_eq!(rows(&running), 0, "nothing is known of what is gone");
}
