//! What a build cache is asked for, from a seed: images by their numbers, without end. The same seed asks the same anywhere.

use std::collections::VecDeque;

/// Ways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Few images are asked for often, many seldom; which ones, changes slowly
    Zipf,
    /// Builds of branches that share a base, change their last layers with each commit, and die
    Branches,
    /// A hot set, a loop over more than fits, and what is asked for once only
    Loops,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Zipf, Self::Branches, Self::Loops];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zipf => "zipf",
            Self::Branches => "branches",
            Self::Loops => "loops",
        }
    }
}

/// A trace.
#[derive(Debug)]
pub(crate) struct Trace {
    random: fastrand::Rng,
    next_image: u64,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Zipf { ranks: Vec<u64>, shares: Shares, asked: u64 },
    Branches { base: Vec<u64>, shares: Shares, branches: Vec<Vec<u64>>, build: VecDeque<u64> },
    Loops { hot: Vec<u64>, round: Vec<u64>, place: usize },
}

const ZIPF_IMAGES: usize = 2_000;
const ZIPF_POWER: f64 = 0.9;
/// One of so many requests is followed by another image's taking the place of one.
const ZIPF_DRIFT: u64 = 20;

const BASE_IMAGES: usize = 60;
const BASE_ASKED: usize = 5;
const BRANCHES: usize = 16;
/// Steps of a branch's build that are cached, each an image.
const BRANCH_STEPS: usize = 12;
/// One of so many builds is the last one of its branch.
const BRANCH_BUILDS: u64 = 20;

const HOT_IMAGES: usize = 80;
const LOOP_IMAGES: usize = 600;

impl Trace {
    /// A trace from its beginning.
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        let mut trace = Self {
            random: fastrand::Rng::with_seed(seed),
            next_image: 0,
            shape: Shape::Loops { hot: Vec::new(), round: Vec::new(), place: 0 },
        };
        trace.shape = match kind {
            Kind::Zipf => {
                Shape::Zipf { ranks: trace.fresh(ZIPF_IMAGES), shares: Shares::zipf(ZIPF_IMAGES, ZIPF_POWER), asked: 0 }
            }
            Kind::Branches => Shape::Branches {
                base: trace.fresh(BASE_IMAGES),
                shares: Shares::zipf(BASE_IMAGES, 1.0),
                branches: (0..BRANCHES).map(|_| trace.fresh(BRANCH_STEPS)).collect(),
                build: VecDeque::new(),
            },
            Kind::Loops => Shape::Loops { hot: trace.fresh(HOT_IMAGES), round: trace.fresh(LOOP_IMAGES), place: 0 },
        };
        trace
    }

    /// Images that were never asked for.
    fn fresh(&mut self, count: usize) -> Vec<u64> {
        let first = self.next_image;
        self.next_image += count as u64;
        (first..self.next_image).collect()
    }

    /// The next image that is asked for.
    pub(crate) fn next(&mut self) -> u64 {
        let Self { random, next_image, shape } = self;
        let mut fresh = || {
            *next_image += 1;
            *next_image - 1
        };
        match shape {
            Shape::Zipf { ranks, shares, asked } => {
                *asked += 1;
                if asked.is_multiple_of(ZIPF_DRIFT) {
                    let place = random.usize(..ranks.len());
                    ranks[place] = fresh();
                }
                ranks[shares.draw(random)]
            }
            Shape::Branches { base, shares, branches, build } => loop {
                if let Some(image) = build.pop_front() {
                    return image;
                }
                let at = random.usize(..branches.len());
                // A new branch begins as another one is; a commit changes the steps from some one on.
                if random.u64(..BRANCH_BUILDS) == 0 {
                    branches[at] = branches[random.usize(..BRANCHES)].clone();
                }
                let first = random.usize(..=BRANCH_STEPS);
                branches[at][first..].iter_mut().for_each(|step| *step = fresh());
                build.extend((0..BASE_ASKED).map(|_| base[shares.draw(random)]));
                build.extend(branches[at].iter().copied());
            },
            Shape::Loops { hot, round, place } => match random.u8(..10) {
                0..5 => hot[random.usize(..hot.len())],
                5..8 => {
                    *place = (*place + 1) % round.len();
                    round[*place]
                }
                _ => fresh(),
            },
        }
    }
}

/// Shares of a whole, drawn from by chance.
#[derive(Debug)]
struct Shares(Vec<f64>);

impl Shares {
    /// The share of the nth is 1 / n^power.
    fn zipf(count: usize, power: f64) -> Self {
        let mut sum = 0.0;
        let upto = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-power);
            sum
        });
        let upto: Vec<f64> = upto.collect();
        Self(upto.iter().map(|share| share / sum).collect())
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let drawn = random.f64();
        self.0.partition_point(|upto| *upto <= drawn).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn first(kind: Kind, seed: u64, count: usize) -> Vec<u64> {
        let mut trace = Trace::new(kind, seed);
        (0..count).map(|_| trace.next()).collect()
    }

    #[test]
    fn a_seed_asks_the_same_and_another_one_something_else() {
        for kind in Kind::ALL {
            assert_eq!(first(kind, 7, 5_000), first(kind, 7, 5_000));
            assert_ne!(first(kind, 7, 5_000), first(kind, 8, 5_000));
        }
    }

    #[test]
    fn few_are_asked_for_often_and_not_always_the_same_ones() {
        let trace = first(Kind::Zipf, 1, 100_000);
        let most = |part: &[u64]| {
            let mut counts: HashMap<u64, usize> = HashMap::new();
            part.iter().for_each(|image| *counts.entry(*image).or_default() += 1);
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by_key(|(image, count)| (std::cmp::Reverse(*count), *image));
            counts.truncate(100);
            let share = counts.iter().map(|(_, count)| count).sum::<usize>() as f64 / part.len() as f64;
            (counts.into_iter().map(|(image, _)| image).collect::<HashSet<u64>>(), share)
        };
        let ((early, share), (late, _)) = (most(&trace[..20_000]), most(&trace[80_000..]));
        assert!((0.3..0.7).contains(&share), "{share}");
        let same = early.intersection(&late).count();
        assert!((5..60).contains(&same), "{same} of 100 are the same");
    }

    #[test]
    fn branches_die_and_their_base_lives_on() {
        let trace = first(Kind::Branches, 1, 60_000);
        let (early, late): (HashSet<u64>, HashSet<u64>) =
            (trace[..10_000].iter().copied().collect(), trace[50_000..].iter().copied().collect());
        let base = (0..BASE_IMAGES as u64).filter(|image| early.contains(image) && late.contains(image)).count();
        assert!(base > BASE_IMAGES / 2, "{base}");
        let branches = early.iter().filter(|image| **image >= BASE_IMAGES as u64 && late.contains(image)).count();
        assert!(branches < early.len() / 20, "{branches} of {}", early.len());
    }

    #[test]
    fn a_loop_comes_round_and_a_scan_does_not() {
        let trace = first(Kind::Loops, 1, 30_000);
        let mut counts: HashMap<u64, usize> = HashMap::new();
        trace.iter().for_each(|image| *counts.entry(*image).or_default() += 1);
        let of = |range: std::ops::Range<usize>| range.map(|image| counts[&(image as u64)]).collect::<Vec<_>>();
        assert!(of(0..HOT_IMAGES).into_iter().all(|count| count > 100));
        assert!(of(HOT_IMAGES..HOT_IMAGES + LOOP_IMAGES).into_iter().all(|count| (10..20).contains(&count)));
        let once = counts.values().filter(|count| **count == 1).count();
        assert!((5_000..7_000).contains(&once), "{once}");
        assert!(counts.iter().all(|(image, count)| *image < (HOT_IMAGES + LOOP_IMAGES) as u64 || *count == 1));
    }
}
