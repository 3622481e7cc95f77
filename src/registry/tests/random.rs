//! Random calls, faults and restarts, held against the model.
//!
//! A call without a fault answers exactly what the model says. A call that a fault hit may have happened or not; which of
//! both is found out after the restart, and nothing else may be different.

use crate::{
    disk::sim::{Call, Failure},
    name::Tag,
    registry::{
        Reference,
        manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
    },
};

use super::{
    items::{self, Item},
    machine::{End, IndexAfter, Machine},
    model::{Answer, Model, Session, Step, error_name, next_bytes, parse},
};

const NAMES: [&str; 6] = ["a/x", "a/y", "b/x", "b/x/z", "c/only", "plain"];
const TAGS: [&str; 4] = ["1.0", "latest", "a", "Z"];
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
    for seed in rounds(40) {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let items = items::random(&mut random);
        let mut run = Run { random, items, machine: Machine::new(), model: Model::default(), trace: Vec::new() };
        for _ in 0..STEPS {
            run.step();
        }
        run.restart();
    }
}

/// What is done to the disk during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// All calls fail from the `n`th change on.
    PowerOff(u64),
    /// The `n`th call of a kind fails.
    Fails(Call, u64),
}

struct Run {
    random: fastrand::Rng,
    items: Vec<Item>,
    machine: Machine,
    model: Model,
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
            4..8 => self.machine.flush_index(),
            8..14 => self.start_upload(),
            14..20 => {
                let fault = self.fault();
                self.step_with_fault(fault);
            }
            20..24 => self.step_on_full_disk(),
            _ => {
                let step = self.random_step();
                self.trace.push(format!("{step:?}"));
                let answer = act(&self.machine, &self.items, &self.model, &step);
                assert_eq!(answer, self.model.step(&self.items, &step), "{step:?}");
            }
        }
    }

    fn start_upload(&mut self) {
        let repository = self.name();
        let item = self.item();
        let id = self.machine.registry().start_upload(&parse(&repository)).unwrap();
        self.trace.push(format!("start {id} of item {item} ({} bytes)", self.items[item].len()));
        self.model.sessions.insert(id, Session { repository, item, written: 0, kept: None });
    }

    fn restart(&mut self) {
        let before = self.machine.dump();
        let after = if self.random.u8(..4) == 0 { IndexAfter::Lost } else { IndexAfter::Flushed };
        let end = match self.random.u8(..6) {
            0 => End::Close,
            1 => End::Drop,
            2 | 3 => End::Kill(after),
            _ => End::PowerCut(self.random.u64(..), after),
        };
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
        assert_eq!(self.machine.registry().store().recovery().rebuilt, None);
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
        let index = if self.random.u8(..4) == 0 { IndexAfter::Lost } else { IndexAfter::Flushed };
        let end = if self.random.bool() { End::Kill(index) } else { End::PowerCut(self.random.u64(..), index) };
        self.trace.push(format!("{end:?}"));
        self.machine.end(end);
        self.reopen();
        possible.iter_mut().for_each(Model::restart);
        self.choose(possible);
        self.machine.check();
        self.resume_some();
    }

    /// The one of the possible models that the registry is like.
    fn choose(&mut self, possible: Vec<Model>) {
        let mut reasons = Vec::new();
        for model in possible {
            match model.difference(&self.items, &NAMES, self.machine.registry()) {
                Ok(()) => {
                    self.model = model;
                    return;
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

    fn name(&mut self) -> String {
        NAMES[self.random.usize(..NAMES.len())].to_owned()
    }

    fn tag(&mut self) -> String {
        TAGS[self.random.usize(..TAGS.len())].to_owned()
    }

    /// Mostly a blob.
    fn item(&mut self) -> usize {
        let manifest_too = self.random.u8(..8) == 0;
        let blobs = self.items.iter().take_while(|item| item.document.is_none()).count();
        self.random.usize(..if manifest_too { self.items.len() } else { blobs })
    }

    fn manifest(&mut self) -> usize {
        let blobs = self.items.iter().take_while(|item| item.document.is_none()).count();
        self.random.usize(blobs..self.items.len())
    }

    fn random_step(&mut self) -> Step {
        let repository = self.name();
        let sessions: Vec<&String> = self.model.sessions.keys().collect();
        if !sessions.is_empty() && self.random.u8(..10) < 4 {
            let session = sessions[self.random.usize(..sessions.len())].clone();
            return match self.random.u8(..10) {
                0 => Step::Cancel { session },
                1..4 => Step::Finish { session },
                _ => {
                    let len = [10, 1_000, 4_000, 60_000, 200_000][self.random.usize(..5)];
                    Step::Write { session, len: self.random.usize(..=len), keep: self.random.bool() }
                }
            };
        }
        match self.random.u8(..20) {
            0..4 => Step::Put { repository, item: self.item() },
            4..6 => {
                let from = if self.random.bool() { Some(self.name()) } else { None };
                Step::Mount { repository, item: self.item(), from }
            }
            6..8 => Step::DeleteBlob { repository, item: self.item() },
            8..10 => Step::Delete { repository, reference: self.tag() },
            10..12 => {
                let item = self.manifest();
                Step::Delete { repository, reference: self.items[item].digest.to_string() }
            }
            _ => self.push(repository),
        }
    }

    /// A push of what can often be pushed: its blobs come just before, as a client does it.
    fn push(&mut self, repository: String) -> Step {
        let item = self.manifest();
        let document = self.items[item].document.clone().unwrap();
        if self.random.u8(..3) > 0 {
            for (role, digest, _) in &document.references {
                if role.is_blob() && self.random.u8(..10) > 0 {
                    let item = self.items.iter().position(|item| item.digest == *digest).unwrap();
                    let put = Step::Put { repository: repository.clone(), item };
                    let answer = act(&self.machine, &self.items, &self.model, &put);
                    assert_eq!(answer, self.model.step(&self.items, &put));
                }
            }
        }
        let media_type = match (document.media_type, self.random.u8(..10)) {
            (OCI_INDEX, _) => OCI_INDEX,
            (_, 0) => OCI_MANIFEST,
            (_, 1) => DOCKER_MANIFEST,
            (usual, _) => usual,
        };
        let digest = self.items[item].digest;
        let (tags, expected) = match self.random.u8(..10) {
            0 => (vec![self.tag(), "2.0".to_owned()], Some(digest)),
            1 => (Vec::new(), Some(self.items[0].digest)),
            2..6 => (vec![self.tag()], Some(digest)),
            _ => (Vec::new(), Some(digest)),
        };
        // Without an expected digest the registry takes SHA-256.
        let sha256 = digest.algorithm() == crate::digest::Algorithm::Sha256;
        let expected = if sha256 && !tags.is_empty() { None } else { expected };
        Step::Push { repository, item, media_type, tags, expected }
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

/// Does a step in the registry. `model` is as before the step.
pub(super) fn act(machine: &Machine, items: &[Item], model: &Model, step: &Step) -> Answer {
    let registry = machine.registry();
    let result = match step {
        Step::Put { repository, item } => {
            let Item { digest, bytes, .. } = &items[*item];
            let stored = registry.store().put(&parse(repository), digest.algorithm(), bytes);
            stored.map(|stored| assert_eq!(stored, *digest)).map(|()| String::new()).map_err(Into::into)
        }
        Step::Write { session: id, len, keep } => {
            let session = &model.sessions[id];
            registry.lease_upload(&parse(&session.repository), id).and_then(|mut lease| {
                lease.write(next_bytes(items, session, *len))?;
                let offset = lease.offset();
                if *keep { lease.keep() } else { Ok(offset) }.map(|offset| offset.to_string())
            })
        }
        Step::Finish { session: id } => {
            let session = &model.sessions[id];
            let lease = registry.lease_upload(&parse(&session.repository), id);
            lease.and_then(|lease| lease.finish(items[session.item].digest)).map(|()| String::new())
        }
        Step::Cancel { session } => {
            let repository = parse(&model.sessions[session].repository);
            registry.cancel_upload(&repository, session).map(|()| String::new())
        }
        Step::Mount { repository, item, from } => {
            let from = from.as_deref().map(parse);
            registry.mount(&parse(repository), &items[*item].digest, from.as_ref()).map(|found| found.to_string())
        }
        Step::DeleteBlob { repository, item } => {
            registry.delete_blob(&parse(repository), &items[*item].digest).map(|()| String::new())
        }
        Step::Push { repository, item, media_type, tags, expected } => {
            let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            let pushed =
                registry.put_manifest(&parse(repository), *expected, &tags, Some(media_type), &items[*item].bytes);
            pushed.map(|pushed| format!("{} {:?}", pushed.digest, pushed.subject))
        }
        Step::Delete { repository, reference } => {
            let reference = match reference.parse() {
                Ok(digest) => Reference::Digest(digest),
                Err(_) => Reference::Tag(reference.parse().unwrap()),
            };
            registry.delete_manifest(&parse(repository), &reference).map(|()| String::new())
        }
    };
    result.map_err(|error| error_name(&error))
}
