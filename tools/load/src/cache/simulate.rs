//! Caches on paper, bounded by bytes: what is asked for and not there is put in, and what has to goes. A store that evicts
//! least recently used images should hit as often as the first of them.

use std::collections::{BTreeSet, HashMap};

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// What was asked for longest ago.
    Lru,
    /// What was put in longest ago: what a store comes to that does not know when anything was pulled.
    Fifo,
    /// What is asked for again last, or never; it may be what was just put in. Who knows what comes does no better where all
    /// images are of one size, and hardly better where they are not.
    Belady,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Simulated {
    /// Requests for what was there.
    pub(crate) hits: u64,
    /// Bytes that were put in.
    pub(crate) written_bytes: u64,
}

/// Plays a trace.
pub(crate) fn simulate(policy: Policy, trace: &[u64], cap_bytes: u64, bytes_of: impl Fn(u64) -> u64) -> Simulated {
    // What is there, by when it goes: the last of them first for Belady, else the first.
    let (mut order, mut there) = (BTreeSet::new(), HashMap::<u64, u64>::new());
    let (mut used, mut simulated) = (0, Simulated::default());
    let asked_next = if policy == Policy::Belady { next_asked(trace) } else { Vec::new() };
    for (at, &image) in trace.iter().enumerate() {
        let known = there.get(&image).copied();
        let key = match (policy, known) {
            (Policy::Belady, _) => asked_next[at],
            (Policy::Fifo, Some(known)) => known,
            _ => at as u64,
        };
        match known {
            Some(known) => {
                simulated.hits += 1;
                order.remove(&(known, image));
            }
            None => {
                used += bytes_of(image);
                simulated.written_bytes += bytes_of(image);
            }
        }
        order.insert((key, image));
        there.insert(image, key);
        while used > cap_bytes
            && let Some((_, gone)) = if policy == Policy::Belady { order.pop_last() } else { order.pop_first() }
        {
            there.remove(&gone);
            used -= bytes_of(gone);
        }
    }
    simulated
}

/// When each request's image is asked for again.
fn next_asked(trace: &[u64]) -> Vec<u64> {
    let (mut next, mut seen) = (vec![u64::MAX; trace.len()], HashMap::new());
    for (at, image) in trace.iter().enumerate().rev() {
        if let Some(later) = seen.insert(image, at) {
            next[at] = later as u64;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(image: u64) -> u64 {
        1 + image % 5
    }

    /// LRU as a list: what was asked for last stands last.
    fn naive_lru(trace: &[u64], cap_bytes: u64) -> Simulated {
        let (mut list, mut simulated) = (Vec::<u64>::new(), Simulated::default());
        for &image in trace {
            match list.iter().position(|known| *known == image) {
                Some(at) => {
                    list.remove(at);
                    simulated.hits += 1;
                }
                None => simulated.written_bytes += bytes_of(image),
            }
            list.push(image);
            while list.iter().map(|image| bytes_of(*image)).sum::<u64>() > cap_bytes {
                list.remove(0);
            }
        }
        simulated
    }

    /// The most hits that any choice comes to, where all are of one size.
    fn best(trace: &[u64], room: usize, there: &[u64]) -> u64 {
        let Some((first, rest)) = trace.split_first() else { return 0 };
        if there.contains(first) {
            return 1 + best(rest, room, there);
        }
        let with: Vec<u64> = there.iter().copied().chain([*first]).collect();
        if with.len() <= room {
            return best(rest, room, &with);
        }
        let without = |gone: &u64| with.iter().copied().filter(|image| image != gone).collect::<Vec<_>>();
        with.iter().map(|gone| best(rest, room, &without(gone))).max().unwrap_or(0)
    }

    #[test]
    fn lru_is_what_a_list_makes_of_it() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let trace: Vec<u64> = (0..300).map(|_| random.u64(..20)).collect();
            let cap = random.u64(5..40);
            assert_eq!(simulate(Policy::Lru, &trace, cap, bytes_of), naive_lru(&trace, cap), "seed {seed}");
        }
    }

    #[test]
    fn belady_is_as_good_as_the_best_of_all_choices() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let trace: Vec<u64> = (0..12).map(|_| random.u64(..5)).collect();
            let room = random.usize(1..4);
            let found = simulate(Policy::Belady, &trace, room as u64, |_| 1).hits;
            assert_eq!(found, best(&trace, room, &[]), "seed {seed}: {trace:?} in {room}");
        }
    }

    #[test]
    fn what_was_put_in_first_goes_first_whether_it_was_asked_for_or_not() {
        let trace = [1, 2, 1, 3, 1, 2];
        let hits = |policy| simulate(policy, &trace, 2, |_| 1).hits;
        // 3 drives 1 out by FIFO, which drives 2 out when it comes back; by LRU 2 goes.
        assert_eq!((hits(Policy::Fifo), hits(Policy::Lru), hits(Policy::Belady)), (1, 2, 3));
    }

    #[test]
    fn an_image_larger_than_the_cache_passes_through() {
        assert_eq!(simulate(Policy::Lru, &[4, 0, 4], 3, bytes_of), Simulated { hits: 0, written_bytes: 11 });
    }
}
