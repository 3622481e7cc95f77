//! Properties hold for seeds, for what fuzzers have kept, and for what is like them.

use super::*;

/// Names the input when a property does not hold.
fn check(target: &Target, input: &[u8]) {
    let result = std::panic::catch_unwind(|| (target.check)(input));
    assert!(result.is_ok(), "{}: {}", target.name, data_encoding::HEXLOWER.encode(input));
}

/// An input that is a little different: bytes changed, taken away, doubled; a word put in.
fn changed(input: &[u8], words: &[&str], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        let until = (at + random.usize(..16)).min(bytes.len());
        match random.u8(..6) {
            0 if at < until => bytes[at] ^= 1 << random.u8(..8),
            1 if at < until => bytes[at] = random.u8(..),
            2 => drop(bytes.drain(at..until)),
            3 => drop(bytes.splice(at..at, bytes[at..until].to_vec())),
            4 => bytes.truncate(at),
            _ if !words.is_empty() => drop(bytes.splice(at..at, words[random.usize(..words.len())].bytes())),
            _ => bytes.insert(at, random.u8(..)),
        }
    }
    bytes
}

#[test]
fn properties_hold_for_what_was_kept_and_for_what_is_like_it() {
    let seed = std::env::var("ORLOP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    println!("ORLOP_TEST_SEED={seed}");
    for target in TARGETS.iter().chain([&OPERATIONS]) {
        let mut random = fastrand::Rng::with_seed(seed);
        let inputs = [(target.seeds)(), unpack(target.corpus).into_iter().map(<[u8]>::to_vec).collect()].concat();
        assert!(!inputs.is_empty() && !inputs[0].is_empty(), "{} has no seeds", target.name);
        inputs.iter().for_each(|input| check(target, input));
        let rounds = if target.name == "operations" { 20 } else { 2_000 };
        for _ in 0..rounds {
            check(target, &changed(&inputs[random.usize(..inputs.len())], target.words, &mut random));
        }
    }
}

#[test]
fn a_corpus_that_was_packed_is_unpacked() {
    let inputs: [&[u8]; 3] = [b"a", b"", b"longer"];
    let packed = pack(inputs.into_iter());
    assert_eq!(unpack(&packed), inputs);
    assert_eq!(unpack(&packed[..packed.len() - 1]), inputs[..2]);
}
