//! Random calls, faults and restarts, held against the model.
//!
//! A call without a fault answers exactly what the model says. A call that a fault hit may have happened or not; which of
//! both is found out after the restart, and nothing else may be different.

use std::collections::BTreeSet;

use crate::{
    digest::Algorithm,
    disk::sim::{Call, Failure},
    registry::Sparse,
};

use super::{
    items::{self, Item},
    machine::{End, IndexAfter, Machine},
    model::{Answer, Model, Session, Step, next_bytes, parse},
    steps::act,
};

pub(super) const NAMES: [&str; 6] = ["a/x", "a/y", "b/x", "b/x/z", "c/only", "plain"];
const STEPS: usize = 250;

/// Rounds of random tests: from the environment, for longer runs.
pub(super) fn rounds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or(0);
    first..first + number("ORLOP_TEST_ROUNDS").unwrap_or(default)
}

/// Says the seed when its round fails.
pub(super) struct Seed(pub(super) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with ORLOP_TEST_SEED={} ORLOP_TEST_ROUNDS=1", self.0);
        }
    }
}

#[test]
fn any_calls_faults_and_restarts_leave_what_was_acknowledged() {
    let mut seen = BTreeSet::new();
    let rounds = rounds(40);
    for seed in rounds.clone() {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let items = items::random(&mut random);
        let sparse = Sparse::ALL[seed as usize % 3];
        let (machine, model) = (Machine::with(sparse), Model { sparse, ..Model::default() });
        let mut run = Run { random, items, machine, model, seen: std::mem::take(&mut seen), trace: Vec::new() };
        for _ in 0..STEPS {
            run.step();
        }
        run.restart();
        seen = std::mem::take(&mut run.seen);
    }
    if rounds.count() >= 40 {
        let rare: Vec<_> = EXPECTED.iter().filter(|kind| !seen.contains(**kind)).collect();
        assert!(rare.is_empty(), "the rounds say nothing about {rare:?}; they had {seen:?}");
    }
}

/// What a test that means something has met.
const EXPECTED: [&str; 32] = [
    "Cancel Ok",
    "Delete ManifestUnknown",
    "Delete NameUnknown",
    "Delete Ok",
    "DeleteBlob BlobNamed",
    "DeleteBlob BlobUnknown",
    "DeleteBlob NameUnknown",
    "DeleteBlob Ok",
    "Finish DigestMismatch",
    "Finish Full",
    "Finish Ok",
    "Mount Ok false",
    "Mount Ok true",
    "Push DigestMismatch",
    "Push Full",
    "Push ManifestBlobUnknown",
    "Push ManifestInvalid",
    "Push Ok",
    "Put Full",
    "Put Ok",
    "Snapshot fails",
    "Snapshot false",
    "Snapshot loaded, rebuilt false",
    "Snapshot loaded, rebuilt true",
    "Snapshot removes",
    "Snapshot true",
    "Write Full",
    "Write Ok",
    "an absent child is awaited",
    "failed, and was done",
    "failed, and was not done",
    "referrers of an absent subject",
];

/// What is done to the disk during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// All calls fail from the `n`th change on.
    PowerOff(u64),
    /// The `n`th call of a kind fails.
    Fails(Call, u64),
}

pub(super) struct Run {
    pub(super) random: fastrand::Rng,
    pub(super) items: Vec<Item>,
    pub(super) machine: Machine,
    pub(super) model: Model,
    /// Kinds of steps and answers that came.
    seen: BTreeSet<String>,
    trace: Vec<String>,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.trace.len().saturating_sub(25);
            eprintln!("{}", self.trace[last..].join("\n"));
        }
    }
}

impl Run {
    fn step(&mut self) {
        match self.random.u8(..100) {
            0..4 => self.restart(),
            4..6 => self.machine.flush_index(),
            6..10 => self.write_snapshot(),
            10..14 => self.start_upload(),
            14..20 => {
                let fault = self.fault();
                self.step_with_fault(fault);
            }
            20..24 => self.step_on_full_disk(),
            _ => {
                let step = self.random_step();
                self.trace.push(format!("{step:?}"));
                let answer = act(&self.machine, &self.items, &self.model, &step);
                self.saw(&step, &answer);
                assert_eq!(answer, self.model.step(&self.items, &step), "{step:?}");
            }
        }
    }

    fn saw(&mut self, step: &Step, answer: &Answer) {
        let step = format!("{step:?}");
        let step = step.split(' ').next().unwrap_or_default();
        self.seen.insert(match answer {
            Ok(found) if step == "Mount" => format!("Mount Ok {found}"),
            Ok(_) => format!("{step} Ok"),
            Err(error) => format!("{step} {}", error.split(' ').next().unwrap_or_default()),
        });
    }

    /// What pushes in unusual orders have left.
    fn saw_rows(&mut self, rows: &[String]) {
        let absent = |row: &&String| {
            let child =
                row.split(' ').nth(2).and_then(|part| part.strip_prefix("child=").or(part.strip_prefix("digest=")));
            child.is_some_and(|child| !rows.iter().any(|row| row.starts_with("manifests ") && row.contains(child)))
        };
        if rows.iter().filter(|row| row.starts_with("parents ")).any(|row| absent(&row)) {
            self.seen.insert("an absent child is awaited".to_owned());
        }
        let referrers = rows.iter().filter(|row| row.starts_with("referrers "));
        let mut subjects = referrers.filter_map(|row| row.split(' ').nth(2)?.strip_prefix("subject="));
        if subjects.any(|subject| !rows.iter().any(|row| row.starts_with("blobs ") && row.contains(subject))) {
            self.seen.insert("referrers of an absent subject".to_owned());
        }
    }

    fn start_upload(&mut self) {
        let repository = self.name();
        let item = self.item();
        let algorithm = if item.is_multiple_of(2) { Algorithm::Sha256 } else { Algorithm::Sha512 };
        let id = self.machine.registry().start_upload(&parse(&repository), algorithm).unwrap();
        self.trace.push(format!("start {id} of item {item} ({} bytes)", self.items[item].len()));
        self.model.sessions.insert(id, Session { repository, item, written: 0, kept: None });
    }

    /// Half of them meet a fault, and the end of the process after it. Whatever became of the snapshot and of the files below
    /// the one before, no row is different.
    fn write_snapshot(&mut self) {
        let before = self.machine.dump();
        let fault = if self.random.bool() { Some(self.fault_in_snapshot()) } else { None };
        match fault {
            Some(Fault::PowerOff(changes)) => self.machine.disk.power_off_after(changes),
            Some(Fault::Fails(call, nth)) => self.machine.disk.fail(call, nth, Failure::Io),
            None => {}
        }
        let written = self.machine.registry().store().write_snapshot();
        self.trace.push(format!("snapshot with {fault:?}: {written:?}"));
        self.seen.insert(match &written {
            Ok(Some(report)) if report.removed.files > 0 => "Snapshot removes".to_owned(),
            Ok(written) => format!("Snapshot {}", written.is_some()),
            Err(_) => "Snapshot fails".to_owned(),
        });
        if fault.is_none() {
            written.unwrap();
            assert!(self.machine.snapshots() <= 2);
            return;
        }
        if written.is_err() {
            assert_eq!(self.machine.dump(), before);
        }
        let end = self.sudden_end();
        self.end_and_check(end, &before);
    }

    fn fault_in_snapshot(&mut self) -> Fault {
        match self.random.u8(..6) {
            0 => Fault::Fails(Call::SyncData, 1),
            1 => Fault::Fails(Call::Write, self.random.u64(1..4)),
            2 => Fault::Fails(Call::SyncDir, 1),
            3 => Fault::Fails(Call::Names, self.random.u64(1..8)),
            _ => Fault::PowerOff(self.random.u64(..16)),
        }
    }

    fn restart(&mut self) {
        let before = self.machine.dump();
        self.saw_rows(&before);
        let end = match self.random.u8(..6) {
            0 => End::Close,
            1 => End::Drop,
            _ => self.sudden_end(),
        };
        self.end_and_check(end, &before);
    }

    fn sudden_end(&mut self) -> End {
        let after = if self.random.u8(..4) == 0 { IndexAfter::Lost } else { IndexAfter::Flushed };
        if self.random.bool() { End::Kill(after) } else { End::PowerCut(self.random.u64(..), after) }
    }

    fn end_and_check(&mut self, end: End, before: &[String]) {
        self.trace.push(format!("{end:?}"));
        self.machine.end(end);
        self.model.restart();
        self.reopen();
        if end == End::Close {
            assert_eq!(self.machine.registry().store().recovery().replayed_records, 0);
        }
        assert_eq!(self.machine.dump(), before, "a restart changes no row");
        let found = self.model.difference(&self.items, &NAMES, self.machine.registry());
        assert_eq!(found, Ok(()));
        self.machine.check();
        self.resume_some();
    }

    /// Opens again; sometimes the power fails meanwhile.
    fn reopen(&mut self) {
        while self.random.u8(..4) == 0 {
            self.machine.disk.power_off_after(self.random.u64(..12));
            let opened = self.machine.open();
            self.trace.push(format!("open without power: {:?}", opened.err()));
            self.machine.end(if self.random.bool() {
                End::Kill(IndexAfter::Flushed)
            } else {
                End::PowerCut(self.random.u64(..), IndexAfter::Flushed)
            });
        }
        self.machine.open().unwrap();
        let recovery = self.machine.registry().store().recovery();
        assert_eq!(recovery.lost_records, 0);
        // An index that was not flushed for long is older than what two snapshots have left of the journal.
        let is_too_old = recovery.snapshot.is_some() && self.machine.snapshots() == 2;
        assert!(recovery.rebuilt.is_none() || is_too_old, "{recovery:?}");
        if recovery.snapshot.is_some() {
            self.seen.insert(format!("Snapshot loaded, rebuilt {}", recovery.rebuilt.is_some()));
        }
    }

    /// Uploads that came through go on with the right bytes.
    fn resume_some(&mut self) {
        for (id, session) in &self.model.sessions {
            if self.random.bool() {
                let lease = self.machine.registry().lease_upload(&parse(&session.repository), id).unwrap();
                assert_eq!(lease.offset(), session.written);
            }
        }
    }

    fn step_with_fault(&mut self, fault: Fault) {
        let step = self.random_step();
        self.trace.push(format!("{step:?} with {fault:?}"));
        let mut after = self.model.clone();
        let expected = after.step(&self.items, &step);
        match fault {
            Fault::PowerOff(changes) => self.machine.disk.power_off_after(changes),
            Fault::Fails(call, nth) => self.machine.disk.fail(call, nth, Failure::Io),
        }
        let answer = act(&self.machine, &self.items, &self.model, &step);
        self.trace.push(format!("  answered {answer:?}"));
        let mut possible = vec![after];
        if answer.is_err() {
            possible.push(self.model.clone());
            possible.extend(half_done(&self.items, &self.model, &step));
        } else {
            assert_eq!(answer, expected);
        }
        let end = self.sudden_end();
        self.trace.push(format!("{end:?}"));
        self.machine.end(end);
        self.reopen();
        possible.iter_mut().for_each(Model::restart);
        let refused = answer.is_err() && answer == expected;
        let chosen = self.choose(possible);
        if answer.is_err() && !refused {
            self.seen.insert(["failed, and was done", "failed, and was not done"][chosen.min(1)].to_owned());
        }
        self.machine.check();
        self.resume_some();
    }

    /// Takes the first of the possible models that the registry is like.
    fn choose(&mut self, possible: Vec<Model>) -> usize {
        let mut reasons = Vec::new();
        for (at, model) in possible.into_iter().enumerate() {
            match model.difference(&self.items, &NAMES, self.machine.registry()) {
                Ok(()) => {
                    self.model = model;
                    return at;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        panic!("neither done nor not done: {reasons:#?}");
    }

    /// What needs room is refused, and only that; the next call goes on as if nothing had been.
    fn step_on_full_disk(&mut self) {
        let step = self.random_step();
        let mut after = self.model.clone();
        let expected = after.step(&self.items, &step);
        self.machine.disk.set_capacity(Some(0));
        let answer = act(&self.machine, &self.items, &self.model, &step);
        self.machine.disk.set_capacity(None);
        self.trace.push(format!("{step:?} on a full disk: {answer:?}"));
        self.saw(&step, &answer);
        if answer == expected {
            self.model = after;
            return;
        }
        assert_eq!(answer, Err("Full".to_owned()), "instead of {expected:?}");
        let mut possible = half_done(&self.items, &self.model, &step);
        if !matches!(step, Step::Finish { .. }) {
            possible.push(self.model.clone());
        }
        self.choose(possible);
    }

    fn fault(&mut self) -> Fault {
        let nth = self.random.u64(1..6);
        match self.random.u8(..6) {
            0 => Fault::Fails(Call::SyncData, nth.min(3)),
            1 => Fault::Fails(Call::Write, nth),
            2 => Fault::Fails(Call::SyncDir, nth.min(2)),
            _ => Fault::PowerOff(self.random.u64(..12)),
        }
    }
}

/// States besides before and after that a step may leave when it fails in between.
fn half_done(items: &[Item], model: &Model, step: &Step) -> Vec<Model> {
    let mut half = model.clone();
    match step {
        // The session ends even when its content could not be stored, if there is room to say so.
        Step::Finish { session } => {
            let mut kept = half.clone();
            let ended = half.end_session(session);
            if let Some(written) = ended.kept {
                kept.sessions.insert(session.clone(), Session { written, ..ended });
                return vec![half, kept];
            }
        }
        // The bytes came, and only keeping them failed.
        Step::Write { session, len, .. } => {
            if let Some(session) = half.sessions.get_mut(session) {
                session.written += next_bytes(items, session, *len).len() as u64;
            }
        }
        _ => return Vec::new(),
    }
    vec![half]
}
