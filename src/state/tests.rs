//! Decide and apply against a recount, over the index in memory, without files.

mod ahead;
mod hash;
mod lives;
mod policies;

use std::collections::BTreeMap;

use super::{
    apply,
    decide::Batch,
    due, dump,
    recount::recount,
    request::{Content, Due, Outcome, Placement, PushRequest, Refusal, Request, Sparse, TAGS_PER_STEP},
};
use crate::{
    codec::Encoder,
    digest::{Algorithm, Digest},
    index::{
        Index, Overlay, View,
        memory::MemoryIndex,
        schema::{
            self, Applied, INDEX_VERSION, Key, LinkRow, ManifestIdRow, ManifestRow, ParentsRow, PullRow,
            REFERENCES_PER_ROW, RepositoryRow, RowValue, Table, UsageRow, key,
        },
    },
    journal::operation::{LocalRecord, ManifestContent, NamedReference, Role},
    location::{Location, RecordKind, SegmentNumber},
    name::RepositoryName,
    policy::Policy,
};

/// An index, how far it is, the next free place in a segment that nobody writes, and a setting.
struct State {
    index: MemoryIndex,
    applied: Applied,
    end: u64,
    sparse: Sparse,
}

impl State {
    fn new() -> Self {
        let applied = Applied {
            version: INDEX_VERSION,
            store: [0; 16],
            lsn: 0,
            local: 0,
            chain: [0; 16],
            time_ms: 0,
            organisations: 0,
            repositories: 0,
            manifests: 0,
            settling: 0,
            reviewing: false,
            next_segment: 1,
        };
        Self { index: MemoryIndex::new(), applied, end: 0, sparse: Sparse::Off }
    }

    /// Decides and applies requests as one batch.
    fn batch(&mut self, now_ms: u64, requests: &[Request]) -> Vec<Result<Outcome, String>> {
        let mut batch = Batch::new(&self.index, self.applied.clone(), now_ms);
        let results = requests.iter().map(|request| batch.decide(request).map_err(|refusal| refusal.to_string()));
        let results = results.collect();
        self.index.write(&apply::finish(&mut batch.overlay, &batch.applied).unwrap()).unwrap();
        self.applied = batch.applied;
        results
    }

    fn done(&mut self, request: Request) {
        while let Outcome::More { .. } = self.batch(0, std::slice::from_ref(&request)).remove(0).unwrap() {}
        self.settle();
    }

    fn settle(&mut self) {
        while self.applied.is_settling() {
            self.batch(0, &[Request::Settle { window_ms: 5_000, from: 0 }]).remove(0).unwrap();
        }
    }

    /// Deletes every manifest, lets all windows end, and collects: nothing stays that is told by no listing.
    fn collect_all(&mut self, seed: u64) {
        self.settle();
        let mut manifests = Vec::new();
        for (key, value) in self.index.scan(&[Table::Manifests as u8], &[Table::Manifests as u8 + 1], 10_000).unwrap() {
            let row = ManifestRow::from_bytes(&value).unwrap();
            let id: ManifestIdRow = schema::get(&self.index, key::manifest_id(row.manifest)).unwrap().unwrap();
            let repository: RepositoryRow = schema::get(&self.index, key::repository(id.repository)).unwrap().unwrap();
            assert_eq!(key, key::manifest(id.repository, &id.digest).bytes());
            if !row.deleted {
                manifests.push(Request::Delete {
                    repository: repository.name,
                    digest: id.digest,
                    after: None,
                    window_ms: 5_000,
                });
            }
        }
        manifests.into_iter().for_each(|request| self.done(request));
        let mut now_ms = self.applied.time_ms;
        for _ in 0..50 {
            now_ms += 50_000;
            for table in due::TABLES.into_iter().filter(|table| *table != Table::DueDrops) {
                for item in due::page(&self.index, table, None, now_ms, 10_000).unwrap().items {
                    self.batch(now_ms, &[Request::Drop { due: item, window_ms: 5_000 }]).remove(0).unwrap();
                }
                while self.applied.is_settling() {
                    self.batch(now_ms, &[Request::Settle { window_ms: 0, from: 0 }]).remove(0).unwrap();
                }
            }
        }
        recount(&self.index, &mut |difference| panic!("seed {seed}: {difference}")).unwrap();
        let left: Vec<String> = self.dump();
        let known = ["meta", "usage", "segments", "dead", "sparse", "drops", "dropped", "due-drops", "samples"];
        let lines = left.iter().filter(|line| !known.contains(&line.split(' ').next().unwrap())).collect::<Vec<_>>();
        assert!(lines.is_empty(), "seed {seed}: left are {lines:#?}");
        assert!(!left.iter().any(|line| line.contains("\"live_records\":") && !line.contains("\"live_records\":0,")));
    }

    fn content(&mut self, kind: RecordKind, digest: Digest, len: u64) -> Content {
        let location = Location { segment: SegmentNumber(1 + self.end / 5_000), offset: self.end };
        let record_len = len + 128;
        self.end += record_len;
        let placement = Some(Placement { kind, single: false, location, record_len });
        Content { digest, len, placement, replaces_damaged: false }
    }

    fn upload(&mut self, repository: &RepositoryName, number: usize) -> Request {
        let content = self.content(RecordKind::Blob, digest(number), size(number));
        Request::Upload { repository: repository.clone(), content, session: None, held_bytes: 0, grace_ms: 1_000 }
    }

    fn push(
        &mut self,
        repository: &RepositoryName,
        number: usize,
        manifest: ManifestContent,
        tags: &[&str],
    ) -> Request {
        let content = self.content(RecordKind::Manifest, digest(number), manifest.size);
        let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        Request::Push(Box::new(PushRequest {
            repository: repository.clone(),
            content,
            manifest,
            tags,
            sparse: self.sparse,
            window_ms: 5_000,
        }))
    }

    fn check(&self) {
        recount(&self.index, &mut |difference| panic!("{difference}")).unwrap();
    }

    fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        dump::dump(&self.index, &mut |line| lines.push(line.to_owned())).unwrap();
        lines
    }
}

fn digest(number: usize) -> Digest {
    Digest::of(Algorithm::Sha256, number.to_string().as_bytes())
}

fn size(number: usize) -> u64 {
    100 + number as u64
}

fn manifest(number: usize, references: Vec<NamedReference>) -> ManifestContent {
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    ManifestContent { size: size(number), media_type, artifact_type: None, subject: None, references }
}

fn reference(role: Role, number: usize) -> NamedReference {
    NamedReference { role, digest: digest(number), size: size(number) }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

const BLOBS: std::ops::Range<usize> = 0..8;
const MANIFESTS: std::ops::Range<usize> = 100..112;

/// What a manifest names is fixed by its number, as content is by its digest: blobs, also one in two roles or one that
/// may be absent; for some a child, for some a subject that may be there or not. One refers to its own child, and two to
/// each other's.
fn manifest_of(number: usize) -> ManifestContent {
    let roles = [Role::Config, Role::Layer, Role::ForeignLayer, Role::IndexedBlob];
    let mut references: Vec<NamedReference> =
        (0..number % 4).map(|at| reference(roles[(number / 3 + at) % 4], (number * 7 + at / 2) % BLOBS.end)).collect();
    let (child, subject) = match number {
        109 => (Some(108), Some(108)),
        110 => (Some(101), Some(100)),
        111 => (Some(100), Some(101)),
        _ => {
            let child = (number.is_multiple_of(3) && number > MANIFESTS.start).then(|| number - 1);
            (child, number.is_multiple_of(5).then_some(number + 1))
        }
    };
    references.extend(child.map(|child| reference(Role::Child, child)));
    let subject = subject.map(digest);
    ManifestContent { subject, ..manifest(number, references) }
}

fn random_request(state: &mut State, random: &mut fastrand::Rng, now_ms: u64) -> Request {
    let names = ["a/x", "a/y", "b/x", "plain"];
    let repository = name(names[random.usize(..names.len())]);
    let from = name(names[random.usize(..names.len())]);
    let (blob, number) = (random.usize(BLOBS), random.usize(MANIFESTS));
    let tags = ["t1", "t2", "t3"];
    let tag = tags[random.usize(..tags.len())];
    let push = |state: &mut State, tags: &[&str]| state.push(&repository, number, manifest_of(number), tags);
    match random.u8(..20) {
        0..4 => state.upload(&repository, blob),
        4 => Request::Mount { repository, digest: digest(blob), from, grace_ms: 500 },
        5 => Request::Unlink { repository, digest: digest(blob) },
        6..9 => push(state, &[]),
        9 => push(state, &[tag]),
        10 => push(state, &tags),
        11 => Request::Untag { repository, tag: tag.parse().unwrap(), window_ms: 5_000 },
        12 | 13 => Request::Delete { repository, digest: digest(number), after: None, window_ms: 5_000 },
        14 => {
            let tag = random.bool().then(|| tag.parse().unwrap());
            Request::Restore { repository, digest: digest(number), tag, window_ms: 5_000 }
        }
        15 => Request::EndWindows { repository: random.u32(1..5), digests: vec![digest(number), digest(number + 1)] },
        16 => Request::Renew { repository, digest: digest(blob), grace_ms: 1_000 },
        17 => Request::Settle { window_ms: 5_000, from: random.u64(..20) },
        _ => {
            let table = due::TABLES[random.usize(..due::TABLES.len())];
            let items = due::page(&state.index, table, None, now_ms + 2_000, 10).unwrap().items;
            match items.is_empty() {
                true => Request::Settle { window_ms: 5_000, from: random.u64(..20) },
                false => Request::Drop { due: items[random.usize(..items.len())].clone(), window_ms: 5_000 },
            }
        }
    }
}

/// The operations of one batch see each other exactly as if each had been a batch of its own.
#[test]
fn batches_of_any_length_add_up_to_the_same_rows_and_to_the_recount() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for seed in rounds(200) {
        let mut random = fastrand::Rng::with_seed(seed);
        let sparse = Sparse::ALL[seed as usize % 3];
        let (mut single, mut many) = (State { sparse, ..State::new() }, State { sparse, ..State::new() });
        for round in 0..40 {
            let (end, now_ms) = (single.end, round * 400);
            let requests: Vec<Request> =
                (0..random.usize(1..10)).map(|_| random_request(&mut single, &mut random, now_ms)).collect();
            assert_eq!(many.end, end);
            many.end = single.end;
            let results = many.batch(now_ms, &requests);
            for (request, expected) in requests.iter().zip(&results) {
                let result = single.batch(now_ms, std::slice::from_ref(request)).remove(0);
                assert_eq!(&result, expected, "seed {seed}: {request:?}");
                let kind: String = format!("{request:?}").chars().take_while(|c| c.is_alphabetic()).collect();
                *kinds.entry(format!("{kind} {}", result.is_ok())).or_default() += 1;
            }
            assert_eq!(single.dump(), many.dump(), "seed {seed}");
            single.hash();
            *kinds.entry("a change that is told in steps".to_owned()).or_default() +=
                usize::from(many.applied.settling > 0);
            if random.bool() {
                single.settle();
                many.settle();
                recount(&many.index, &mut |difference| panic!("seed {seed}: {difference}")).unwrap();
            }
        }
        many.collect_all(seed);
    }
    assert!(kinds["a change that is told in steps"] > 0, "{kinds:?}");
    for kind in ["Upload", "Mount", "Unlink", "Push", "Delete", "Untag", "Restore", "EndWindows", "Renew", "Drop"] {
        assert!(kinds.contains_key(&format!("{kind} true")), "nothing was said about {kind}: {kinds:?}");
    }
}

/// First seed and rounds of a random test: from the environment, for longer runs.
fn rounds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or(0);
    first..first + number("ORLOP_TEST_ROUNDS").unwrap_or(default)
}

/// A repository with a policy of every kind: a newest tag, one that is due, a root.
fn tell_policies(state: &mut State) {
    let mut policy = Policy::new("ci".parse().unwrap(), "ci/**".parse().unwrap());
    (policy.keep_newest, policy.size_max_bytes, policy.never_tagged_for_ms) = (Some(1), Some(7), Some(5_000));
    state.done(Request::SetPolicy { policy: Box::new(policy), from_settings: false, confirmed: true });
    let repository = name("ci/x");
    for (number, tags) in [(106, &["one"][..]), (107, &["two"]), (108, &[])] {
        let push = state.push(&repository, number, manifest(number, Vec::new()), tags);
        state.done(push);
    }
}

/// Every single row of the counted tables that is changed, removed or invented is told.
/// Where in the row of a link its due time lies.
fn due_of(link: &[u8]) -> std::ops::Range<usize> {
    let row = LinkRow::from_bytes(link).unwrap();
    let len =
        |numbers: &[u64]| numbers.iter().map(|number| Encoder::new().varint(*number).clone().finish().len()).sum();
    let begin: usize = len(&[row.size, row.linked_ms]);
    begin..begin + len(&[row.due_ms])
}

#[test]
fn a_recount_tells_every_wrong_row() {
    let mut state = State::new();
    let repository = name("a/x");
    for request in [state.upload(&repository, 0), state.upload(&repository, 1)] {
        state.done(request);
    }
    let parsed = ManifestContent { subject: Some(digest(9)), ..manifest(100, vec![reference(Role::Layer, 0)]) };
    let push = state.push(&repository, 100, parsed, &["latest"]);
    state.done(push);
    let push = state.push(&repository, 101, manifest(101, vec![reference(Role::Child, 100)]), &[]);
    state.done(push);
    let second = state.push(&repository, 102, manifest(102, Vec::new()), &["latest"]);
    state.done(second);
    let other = name("b/x");
    let upload = state.upload(&other, 5);
    state.done(upload);
    state.done(Request::Unlink { repository: other, digest: digest(5) });
    state.batch(0, &[Request::Note(LocalRecord::Sealed { segment: SegmentNumber(1), len: 50_000 })]).remove(0).unwrap();
    state.sparse = Sparse::Index;
    let push = state.push(&repository, 104, manifest(104, vec![reference(Role::Child, 103)]), &[]);
    state.done(push);
    let held = state.push(&repository, 105, manifest(105, Vec::new()), &["held"]);
    state.done(held);
    state.done(Request::Untag { repository, tag: "held".parse().unwrap(), window_ms: 5_000 });
    state.done(Request::SetQuota { owner: "o:a".parse().unwrap(), limit_bytes: Some(1 << 40) });
    state.done(Request::Pulled { repository: 1, pulled_ms: 7, digests: vec![digest(100), digest(77)] });
    tell_policies(&mut state);
    state.check();
    let differences = |change: &dyn Fn(&mut Overlay<'_>)| {
        let mut overlay = Overlay::new(&state.index);
        change(&mut overlay);
        let mut count = 0;
        recount(&overlay, &mut |_| count += 1).map(|()| count)
    };
    assert_eq!(differences(&|_| ()).unwrap(), 0);
    let mut tables = std::collections::BTreeSet::new();
    for (key, value) in state.index.scan(&[], &[u8::MAX], 1_000).unwrap() {
        let table = Table::of(&key).unwrap();
        let told = |change: &dyn Fn(&mut Overlay<'_>)| differences(change).is_ok_and(|count| count == 0);
        let primary =
            matches!(table, Table::Meta | Table::Uploads | Table::Dead | Table::Samples | Table::Quotas | Table::Pulls);
        assert_eq!(told(&|overlay| overlay.delete(key.clone())), primary, "{} removed", table.name());
        tables.insert(table.name());
        let counted = matches!(
            table,
            Table::Counts | Table::RegistryCounts | Table::OrganisationCounts | Table::Usage | Table::References
        ) || Table::HASHED.contains(&table);
        // The due time of a link that something names is a fact of this machine alone.
        let local = if table == Table::Links { due_of(&value) } else { 0..0 };
        for at in (0..value.len()).filter(|at| counted && !local.contains(at)) {
            let mut value = value.clone();
            value[at] ^= 1;
            assert!(!told(&|overlay| overlay.put(key.clone(), value.clone())), "{} changed at {at}", table.name());
        }
    }
    let missing: Vec<_> = Table::ALL.iter().filter(|table| !tables.contains(table.name())).collect();
    assert_eq!(
        missing,
        [&Table::Settling, &Table::LaterRoots, &Table::Uploads, &Table::Reports, &Table::Pauses, &Table::Reviewing],
        "all others are looked at"
    );
    let pull = PullRow { pulled_ms: 7 }.to_bytes();
    for (key, row) in [(key::due_link(77, 1, &digest(0)), Vec::new()), (key::pull(1, &digest(77)), pull)] {
        assert_eq!(differences(&|overlay| overlay.put(key.clone().bytes(), row.clone())).unwrap(), 1);
    }
}

#[test]
fn a_manifest_with_very_many_tags_loses_them_in_steps() {
    let mut state = State::new();
    let repository = name("a/x");
    let tags: Vec<String> = (0..2 * TAGS_PER_STEP + 1).map(|number| format!("t{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let push = state.push(&repository, 100, manifest(100, Vec::new()), &tags);
    state.done(push);
    let mut after = None;
    let mut step = |state: &mut State| {
        let delete =
            Request::Delete { repository: repository.clone(), digest: digest(100), after: after.clone(), window_ms: 0 };
        let result = state.batch(0, &[delete]).remove(0);
        if let Ok(Outcome::More { after: last }) = &result {
            after.clone_from(last);
        }
        result.map(|outcome| outcome == Outcome::Done)
    };
    assert_eq!(step(&mut state), Ok(false));
    // A tag set meanwhile, before the place where the next step goes on, goes as well.
    let push = state.push(&repository, 100, manifest(100, Vec::new()), &["a"]);
    state.done(push);
    assert_eq!([step(&mut state), step(&mut state), step(&mut state)], [Ok(false), Ok(false), Ok(true)]);
    assert_eq!(step(&mut state), Err(Refusal::ManifestUnknown(digest(100)).to_string()));
    state.check();
    let prefix = Key::of(Table::Tags).bytes();
    assert!(state.index.scan(&prefix, &[prefix[0] + 1], 1).unwrap().is_empty());
}

#[test]
fn references_over_several_rows_count_each_digest_once() {
    let mut state = State::new();
    let repository = name("a/x");
    let count = REFERENCES_PER_ROW + 2;
    for number in 0..count {
        let upload = state.upload(&repository, number);
        state.done(upload);
    }
    let references = (0..count).map(|number| reference(Role::Layer, number));
    // The first layer is the config, too, far behind it and in another row.
    let references = references.chain([reference(Role::Config, 0)]).collect();
    let push = state.push(&repository, 100_000, manifest(100_000, references), &["latest"]);
    state.done(push);
    state.check();
    let usage: UsageRow = schema::get(&state.index, key::usage(schema::Scope::Registry)).unwrap().unwrap();
    let bytes = (0..count).map(size).sum();
    assert_eq!((usage.blobs, usage.used_bytes), (count as u64, bytes));
}

fn parents_and_root(state: &State, number: usize) -> (u32, bool) {
    let row: ManifestRow = schema::get(&state.index, key::manifest(1, &digest(number))).unwrap().unwrap();
    let parents: Option<ParentsRow> = schema::get(&state.index, key::parents(1, &digest(number))).unwrap();
    (parents.map_or(0, |row| row.all), row.root)
}

#[test]
fn a_child_that_comes_after_its_indexes_is_reached_by_them() {
    let mut state = State { sparse: Sparse::Index, ..State::new() };
    let repository = name("a/x");
    // The last one names the child as a blob too, and so does an image that is no parent.
    let both = vec![reference(Role::Child, 101), reference(Role::IndexedBlob, 101)];
    let pushes = [
        (100, Vec::new()),
        (102, vec![reference(Role::Child, 101)]),
        (103, vec![reference(Role::Child, 101), reference(Role::Child, 102)]),
        (104, both),
    ];
    for (number, references) in pushes {
        let push = state.push(&repository, number, manifest(number, references), &[]);
        state.done(push);
        state.check();
    }
    let delete = Request::Delete { repository: repository.clone(), digest: digest(103), after: None, window_ms: 5_000 };
    state.done(delete);
    let push = state.push(&repository, 101, manifest(101, Vec::new()), &[]);
    state.done(push);
    state.check();
    let found = [100, 101, 102, 104].map(|number| parents_and_root(&state, number));
    assert_eq!(found, [(0, true), (3, false), (1, false), (0, true)]);
    let delete = Request::Delete { repository: repository.clone(), digest: digest(101), after: None, window_ms: 5_000 };
    state.done(delete);
    // It is no longer absent but deleted: what names it from now on counts there.
    let push = state.push(&repository, 105, manifest(105, vec![reference(Role::Child, 101)]), &[]);
    state.done(push);
    assert_eq!(parents_and_root(&state, 101), (4, false));
    state.check();
}

#[test]
fn what_may_be_absent_is_decided_by_role() {
    let roles = [Role::Config, Role::Layer, Role::ForeignLayer, Role::Child, Role::IndexedBlob];
    let cases = [
        (Sparse::Off, [false, false, true, false, false]),
        (Sparse::Index, [false, false, true, true, true]),
        (Sparse::Any, [true; 5]),
    ];
    for (sparse, accepted) in cases {
        assert_eq!(Sparse::of_name(sparse.name()), Some(sparse));
        for (role, accepted) in roles.into_iter().zip(accepted) {
            let mut state = State { sparse, ..State::new() };
            // The repository is not known either.
            let push = state.push(&name("a/x"), 100, manifest(100, vec![reference(role, 1)]), &["latest"]);
            let result = state.batch(0, &[push]).remove(0);
            assert_eq!(result.is_ok(), accepted, "{sparse:?} {role:?}: {result:?}");
            state.check();
        }
    }
    assert_eq!(Sparse::of_name("Any"), None);
}

/// A manifest that names what is absent states its size, which nobody can check; what comes counts with its own.
#[test]
fn layers_that_come_later_count_with_their_real_size() {
    let mut state = State { sparse: Sparse::Any, ..State::new() };
    let repository = name("a/x");
    let wrong = NamedReference { size: 77_777, ..reference(Role::Layer, 0) };
    let push = |state: &mut State| {
        let request = state.push(&repository, 100, manifest(100, vec![wrong, reference(Role::Config, 1)]), &[]);
        state.batch(0, &[request]).remove(0)
    };
    let used = |state: &State| {
        state.check();
        let usage: UsageRow = schema::get(&state.index, key::usage(schema::Scope::Registry)).unwrap().unwrap();
        (usage.blobs, usage.used_bytes)
    };
    assert_eq!(push(&mut state), Ok(Outcome::Done));
    assert_eq!(used(&state), (0, 0));
    for (number, expected) in [(0, (1, size(0))), (1, (2, size(0) + size(1)))] {
        let upload = state.upload(&repository, number);
        state.done(upload);
        assert_eq!(used(&state), expected);
    }
    assert!(push(&mut state).unwrap_err().contains("states 77777 bytes"), "now it can be checked");
    state.done(Request::Delete { repository: repository.clone(), digest: digest(100), after: None, window_ms: 5_000 });
    state.done(Request::Unlink { repository: repository.clone(), digest: digest(0) });
    assert_eq!(used(&state), (1, size(1)));
    assert_eq!(push(&mut state), Ok(Outcome::Done), "absent again");
}
