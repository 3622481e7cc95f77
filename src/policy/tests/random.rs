//! Random patterns, names and policies, against definitions that are slow and plain. `ORLOP_TEST_SEED` begins with another
//! seed, `ORLOP_TEST_ROUNDS` runs so many.

use std::ops::Range;

use fastrand::Rng;

use super::*;

fn seeds(default: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or(0);
    first..first + number("ORLOP_TEST_ROUNDS").unwrap_or(default)
}

/// Runs `round` for each seed, and says which one failed.
fn each_seed(default: u64, round: impl Fn(&mut Rng)) {
    struct Said(u64);
    impl Drop for Said {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with ORLOP_TEST_SEED={} ORLOP_TEST_ROUNDS=1", self.0);
            }
        }
    }
    for seed in seeds(default) {
        let _said = Said(seed);
        round(&mut Rng::with_seed(seed));
    }
}

/// A short text of few letters, so that chance makes many match.
fn text(random: &mut Rng, pieces: &[&str], len_max: usize) -> String {
    (0..random.usize(..=len_max)).map(|_| pieces[random.usize(..pieces.len())]).collect()
}

const PATTERN_PIECES: &[&str] = &["a", "b", "/", "-", "*", "**", "ab"];
const NAME_PIECES: &[&str] = &["a", "b", "/", "-", "ab"];

fn pattern(random: &mut Rng) -> RepositoryPattern {
    loop {
        if let Ok(pattern) = text(random, PATTERN_PIECES, 8).parse() {
            return pattern;
        }
    }
}

fn name(random: &mut Rng) -> RepositoryName {
    loop {
        if let Ok(name) = text(random, NAME_PIECES, 10).parse() {
            return name;
        }
    }
}

/// What a glob means, by trying everything.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|len| is_match(rest, &text[len..])),
        [b'*', rest @ ..] => {
            let reach = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=reach).any(|len| is_match(rest, &text[len..]))
        }
        [byte, rest @ ..] => text.first() == Some(byte) && is_match(rest, &text[1..]),
    }
}

#[test]
fn globs_match_what_trying_everything_matches() {
    each_seed(20_000, |random| {
        let (pattern, name) = (pattern(random), name(random));
        let expected = is_match(pattern.as_str().as_bytes(), name.as_str().as_bytes());
        assert_eq!(pattern.matches(&name), expected, "{pattern} {name}");
    });
}

/// Every short text of few letters: patterns overlap exactly if one of them is matched by both.
#[test]
fn overlapping_and_covering_are_what_texts_say() {
    let mut texts = vec![String::new()];
    for from in [0, 1, 5, 21, 85, 341] {
        let longer: Vec<_> =
            texts[from..].iter().flat_map(|text| ["a", "b", "/", "-"].map(|c| format!("{text}{c}"))).collect();
        texts.extend(longer);
    }
    each_seed(1_000, |random| {
        let short = |random: &mut Rng| loop {
            let pattern = pattern(random);
            if pattern.as_str().len() <= 5 {
                break pattern;
            }
        };
        let (one, other) = (short(random), short(random));
        let matched = |pattern: &RepositoryPattern, text: &str| is_match(pattern.as_str().as_bytes(), text.as_bytes());
        let in_both = texts.iter().any(|text| matched(&one, text) && matched(&other, text));
        // A text that both match may be longer than those.
        assert!(one.overlaps(&other) || !in_both, "{one} {other}");
        assert_eq!(one.overlaps(&other), other.overlaps(&one), "{one} {other}");
        if one.covers(&other) {
            assert!(one.overlaps(&other), "{one} {other}");
            assert!(texts.iter().all(|text| matched(&one, text) || !matched(&other, text)), "{one} {other}");
        }
        let literals = one.as_str().bytes().chain(other.as_str().bytes()).filter(|byte| *byte != b'*').count();
        if literals <= 6 {
            assert_eq!(one.overlaps(&other), in_both, "{one} {other}");
        }
        assert!(one.covers(&one) && one.overlaps(&one));
    });
}

/// Each pattern that is accepted has a name that it matches; none of those that are refused has one.
#[test]
fn accepted_patterns_are_those_that_a_name_matches() {
    let mut names = vec![String::new()];
    for from in [0, 1, 4, 13, 40, 121, 364] {
        let longer: Vec<_> =
            names[from..].iter().flat_map(|name| ["a", "/", "-"].map(|c| format!("{name}{c}"))).collect();
        names.extend(longer);
    }
    names.retain(|name| name.parse::<RepositoryName>().is_ok());
    each_seed(2_000, |random| {
        let text = text(random, &["a", "/", "-", "*", "**"], 5);
        if text.contains("***") || text.len() > 7 {
            return;
        }
        let is_matched = names.iter().any(|name| is_match(text.as_bytes(), name.as_bytes()));
        assert_eq!(text.parse::<RepositoryPattern>().is_ok(), is_matched, "{text}");
    });
}

/// The more specific of two, where one matches all that the other does and more, is the narrower one.
#[test]
fn precedence_is_a_total_order_and_narrower_patterns_win() {
    each_seed(5_000, |random| {
        let [a, b, c] = [(); 3].map(|()| pattern(random));
        assert_eq!(a.precedence(&b), b.precedence(&a).reverse());
        assert_eq!(a.precedence(&b) == Ordering::Equal, a == b);
        if a.precedence(&b) == Ordering::Less && b.precedence(&c) == Ordering::Less {
            assert_eq!(a.precedence(&c), Ordering::Less);
        }
        let name = name(random);
        if let (Some(exact), true) = (a.exact(), b.matches(&name)) {
            assert!(exact != name || a.precedence(&b) == Ordering::Less || a == b);
        }
    });
}

fn tag_patterns(random: &mut Rng) -> TagPatterns {
    loop {
        let count = random.usize(1..4);
        let glob = |random: &mut Rng| {
            let glob = text(random, &["a", "b", "v", "*", "-", "1"], 4);
            if random.u8(..3) == 0 { format!("!{glob}") } else { glob }
        };
        let globs = (0..count).map(|_| glob(random)).collect();
        if let Ok(patterns) = TagPatterns::new("tag_pattern", globs) {
            return patterns;
        }
    }
}

#[test]
fn tag_patterns_are_their_globs_and_match_something() {
    each_seed(5_000, |random| {
        let patterns = tag_patterns(random);
        let Ok(tag) = text(random, &["a", "b", "v", "-", "1"], 6).parse::<Tag>() else { return };
        let is_of = |glob: &str| is_match(glob.as_bytes(), tag.as_str().as_bytes());
        let (out, within): (Vec<_>, Vec<_>) = patterns.texts().iter().partition(|text| text.starts_with('!'));
        let included = within.is_empty() || within.iter().any(|glob| is_of(glob));
        let expected = included && !out.iter().any(|glob| is_of(&glob[1..]));
        assert_eq!(patterns.matches(&tag), expected, "{patterns:?} {tag}");
        assert!(!patterns.is_all() || expected, "{patterns:?} {tag}");
    });
}

/// A policy with any of its fields.
pub(crate) fn policy(random: &mut Rng) -> Policy {
    let name = format!("p{}", random.u8(..)).parse().unwrap();
    let mut policy = Policy::new(name, pattern(random));
    let some = |random: &mut Rng, range: std::ops::RangeInclusive<u64>| random.bool().then(|| random.u64(range));
    policy.tag_pattern = tag_patterns(random);
    policy.keep_newest = some(random, 1..=10_000).map(|count| count as u32);
    policy.older_than_ms = some(random, DURATION_MIN_MS..=DURATION_MAX_MS);
    policy.not_pulled_for_ms = some(random, NOT_PULLED_MIN_MS..=DURATION_MAX_MS);
    policy.size_max_bytes = some(random, 1..=SIZE_MAX_BYTES);
    policy.immutable = random.bool().then(|| tag_patterns(random));
    policy.held_for_ms = some(random, 0..=DURATION_MAX_MS).filter(|ms| *ms == 0 || policy.size_max_bytes.is_none());
    policy.never_tagged_for_ms = some(random, DURATION_MIN_MS..=DURATION_MAX_MS);
    policy
}

#[test]
fn every_form_gives_the_policy_back() {
    each_seed(2_000, |random| {
        let policy = policy(random);
        assert_eq!(policy.check(), Ok(()));
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy, "{json}");
        let toml = toml::to_string(&policy).unwrap();
        assert_eq!(toml::from_str::<Policy>(&toml).unwrap(), policy, "{toml}");
        let mut encoder = Encoder::new();
        policy.encode(&mut encoder);
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        assert_eq!(Policy::decode(&mut decoder), Ok(policy));
        assert_eq!(decoder.finish("policy"), Ok(()));
        for len in 0..bytes.len() {
            assert!(Policy::decode(&mut Decoder::new(&bytes[..len])).is_err(), "cut at {len}");
        }
    });
}

/// Whatever the bytes: no panic, and what is decoded has exactly these bytes.
#[test]
fn any_bytes_decode_to_themselves_or_not_at_all() {
    each_seed(5_000, |random| {
        let mut encoder = Encoder::new();
        policy(random).encode(&mut encoder);
        let mut bytes = encoder.finish();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let mut decoder = Decoder::new(&bytes);
        if let Ok(policy) = Policy::decode(&mut decoder) {
            let mut encoder = Encoder::new();
            policy.encode(&mut encoder);
            assert_eq!(encoder.finish(), bytes[..bytes.len() - decoder.rest().len()]);
        }
    });
}
