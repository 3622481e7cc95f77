//! Calls as bytes, which a fuzzer chooses.

use super::{Choices, Sparse, World};

/// Does what some bytes say, and then looks whether all that was promised is there.
pub(crate) fn operations(input: &[u8]) {
    const CALLS_MAX: usize = 300;
    let (&mode, choices) = input.split_first().unwrap_or((&0, &[]));
    let mut world = World::new(Choices::bytes(choices), Sparse::ALL[usize::from(mode) % 3], false);
    for _ in 0..CALLS_MAX {
        if world.random.are_over() {
            break;
        }
        world.step();
    }
    world.check();
    world.collect();
    world.check();
}

/// Stories that have all kinds of calls.
pub(crate) fn operation_seeds() -> Vec<Vec<u8>> {
    let story = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..1_000).map(|_| random.u8(..)).collect()
    };
    (0..16).map(story).collect()
}
