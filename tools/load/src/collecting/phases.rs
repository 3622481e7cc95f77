//! What went on when, and how long pulls and pushes took meanwhile.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};

use super::{Kind, paced::Sample};
use crate::clients::Sorted;

/// The phases of a run, in their order. A name can come again: it is the same phase then.
#[derive(Debug)]
pub(super) struct Phases(Mutex<Vec<(Instant, &'static str)>>);

/// What a kind of work was like in a phase; times in milliseconds.
#[derive(Debug)]
pub(super) struct Row {
    phase: &'static str,
    kind: &'static str,
    count: usize,
    p50: f64,
    p99: f64,
    max: f64,
    /// The p99 to that of the first phase.
    ratio: f64,
}

impl Phases {
    /// The first phase begins.
    pub(super) fn begin(name: &'static str) -> Self {
        Self(Mutex::new(vec![(Instant::now(), name)]))
    }

    /// Another one begins.
    pub(super) fn enter(&self, name: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), name));
    }

    /// All phases; a sample belongs to the one in which it was to begin.
    pub(super) fn rows(&self, samples: &[Sample<Kind>]) -> Vec<Row> {
        let mut names: Vec<&'static str> = Vec::new();
        for (_, name) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let each: Vec<_> = names.into_iter().map(|name| (name, vec![name])).collect();
        self.grouped(samples, &each)
    }

    /// What the first phase was like, and what some others were like taken together, under a name for them: the medians of
    /// the rounds, which each begin with the first phase, so that one stall of the machine does not decide.
    pub(super) fn together(
        &self,
        samples: &[Sample<Kind>],
        first: &'static str,
        (name, others): (&'static str, &[&'static str]),
    ) -> Vec<Row> {
        let begins: Vec<Instant> = {
            let changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            changes.iter().filter(|(_, phase)| *phase == first).map(|(began, _)| *began).collect()
        };
        let round_of = |sample: &Sample<Kind>| begins.partition_point(|began| *began <= sample.planned).max(1);
        let groups = [(first, vec![first]), (name, others.to_vec())];
        let round = |round| {
            let of: Vec<_> = samples.iter().filter(|sample| round_of(sample) == round).copied().collect();
            self.grouped(&of, &groups)
        };
        let rounds: Vec<_> = (1..=begins.len()).map(round).collect();
        // A round in which nothing was done says nothing.
        let nth =
            |row: usize| Row::median(rounds.iter().filter_map(|round| round.get(row)).filter(|row| row.count > 0));
        (0..rounds.first().map_or(0, Vec::len)).filter_map(nth).collect()
    }

    fn grouped(&self, samples: &[Sample<Kind>], groups: &[(&'static str, Vec<&'static str>)]) -> Vec<Row> {
        let changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = |planned: Instant| {
            let before = changes.iter().take_while(|(began, _)| *began <= planned).last();
            before.or(changes.first()).map_or("", |(_, name)| *name)
        };
        let mut rows: Vec<Row> = Vec::new();
        for (name, phases) in groups {
            for kind in [Kind::Pull, Kind::Push] {
                let of = samples.iter().filter(|sample| sample.kind == kind && phases.contains(&phase(sample.planned)));
                let took: Vec<_> = of.map(|sample| sample.took).collect();
                let (count, sorted) = (took.len(), Sorted::of(took.into_iter()));
                let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| sorted.micros(share) as f64 / 1e3);
                let first = rows.iter().find(|row| row.kind == kind.name()).map_or(p99, |row| row.p99);
                rows.push(Row { phase: name, kind: kind.name(), count, p50, p99, max, ratio: p99 / first.max(1e-3) });
            }
        }
        rows
    }
}

impl Row {
    /// The medians of some rows for the same; none of none. All is counted that was done, and the longest that it took.
    fn median<'a>(rows: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let rows: Vec<&Self> = rows.collect();
        let first = rows.first()?;
        let of = |field: fn(&Self) -> f64| {
            let mut values: Vec<f64> = rows.iter().map(|row| field(row)).collect();
            values.sort_by(f64::total_cmp);
            f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
        };
        Some(Self {
            phase: first.phase,
            kind: first.kind,
            count: rows.iter().map(|row| row.count).sum(),
            p50: of(|row| row.p50),
            p99: of(|row| row.p99),
            max: rows.iter().map(|row| row.max).fold(0.0, f64::max),
            ratio: of(|row| row.ratio),
        })
    }

    /// The head of a table of them.
    pub(super) fn head() -> String {
        format!(
            "{:<20} {:<6} {:>8} {:>10} {:>10} {:>10} {:>14}",
            "phase", "work", "done", "median ms", "p99 ms", "max ms", "p99 to first"
        )
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        let Self { phase, kind, count, p50, p99, max, ratio } = self;
        format!("{phase:<20} {kind:<6} {count:>8} {p50:>10.2} {p99:>10.2} {max:>10.2} {ratio:>14.2}")
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { phase, kind, count, p50, p99, max, ratio } = self;
        json!({ "phase": phase, "work": kind, "count": count, "p50_ms": p50, "p99_ms": p99, "max_ms": max, "p99_ratio": ratio })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn samples_belong_to_the_phase_in_which_they_were_planned() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let phases = Phases(Mutex::new(vec![(at(0), "before"), (at(10), "during"), (at(20), "before")]));
        let sample = |planned, took, kind| Sample { planned: at(planned), took: Duration::from_millis(took), kind };
        let samples =
            [sample(1, 2, Kind::Pull), sample(9, 50, Kind::Push), sample(10, 6, Kind::Pull), sample(25, 2, Kind::Pull)];
        let rows = phases.rows(&samples);
        let found: Vec<_> = rows.iter().map(|row| (row.phase, row.kind, row.count, row.p99, row.ratio)).collect();
        assert_eq!(
            found,
            [
                ("before", "pull", 2, 2.0, 1.0),
                ("before", "push", 1, 50.0, 1.0),
                ("during", "pull", 1, 6.0, 3.0),
                ("during", "push", 0, 0.0, 0.0),
            ]
        );
        let together = phases.together(&samples, "before", ("all", &["before", "during"]));
        let counts: Vec<_> = together.iter().map(|row| (row.phase, row.kind, row.count)).collect();
        assert_eq!(counts, [("before", "pull", 2), ("before", "push", 1), ("all", "pull", 3), ("all", "push", 1)]);
        assert_eq!(together[1].p99, 50.0, "the round without a push does not count");
    }

    #[test]
    fn one_round_of_three_does_not_decide() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let names = ["before", "busy", "after", "before", "busy", "after", "before", "busy"];
        let phases = Phases(Mutex::new((0..).step_by(10).map(at).zip(names).collect()));
        let took = [2, 4, 9, 100, 10, 9, 2, 50];
        let sample =
            |(planned, took)| Sample { planned: at(planned), took: Duration::from_millis(took), kind: Kind::Pull };
        let samples: Vec<_> = (5..).step_by(10).zip(took).map(sample).collect();
        let rows = phases.together(&samples, "before", ("at work", &["busy"]));
        let pulls = rows.iter().filter(|row| row.kind == "pull");
        let found: Vec<_> = pulls.map(|row| (row.phase, row.count, row.p99, row.max, row.ratio)).collect();
        assert_eq!(found, [("before", 3, 2.0, 100.0, 1.0), ("at work", 3, 10.0, 50.0, 2.0)]);
    }
}
