//! The state hash: what changes it, and what does not.

use super::*;
use crate::{
    index::schema::{Scope, StateHash},
    journal::operation::Pausable,
    state::{facts, recount::explain},
};

impl State {
    fn hash_of(&self, scope: Scope) -> StateHash {
        let usage: Option<UsageRow> = schema::get(&self.index, key::usage(scope)).unwrap();
        usage.unwrap_or_default().state_hash
    }

    /// The registry's, as it is kept; it must be what the facts add up to, also while lives are still being told.
    pub(super) fn hash(&self) -> StateHash {
        let explained = explain(&self.index, &mut |difference| {
            let text = difference.to_string();
            assert!(!text.contains("state hash"), "{text}");
        });
        let kept = self.hash_of(Scope::Registry);
        assert_eq!(explained.unwrap().state_hash(), kept);
        kept
    }

    fn image(&mut self, repository: &RepositoryName) {
        let upload = self.upload(repository, 0);
        self.done(upload);
        let push = self.push(repository, 100, manifest(100, vec![reference(Role::Layer, 0)]), &["latest"]);
        self.done(push);
    }
}

#[test]
fn local_records_leave_the_hash_as_it_is() {
    let mut state = State::new();
    let repository = name("a/x");
    state.image(&repository);
    let upload = state.upload(&repository, 1);
    state.done(upload);
    let before = state.hash();
    let from = Location { segment: SegmentNumber(1), offset: 0 };
    let to = Location { segment: SegmentNumber(2), offset: 0 };
    let (digest, session, segment) = (digest(0), [1; 16], SegmentNumber(9));
    let (kind, len, record_len) = (RecordKind::Blob, size(0), size(0) + 128);
    let reported =
        |number, text: &str| LocalRecord::Reported { number, summary: text.to_owned(), items: String::new() };
    let records = [
        LocalRecord::Renewed { repository: 1, digest: super::digest(1), due_ms: 1_000_000 },
        LocalRecord::Renewed { repository: 1, digest, due_ms: 1_000_000 },
        LocalRecord::Moved { digest, from, to },
        LocalRecord::Erased { records: vec![from] },
        LocalRecord::Placed { digest, kind, single: true, location: from, len, record_len },
        LocalRecord::Discarded { location: Location { offset: 50_000, ..to }, record_len: 64 },
        LocalRecord::Sealed { segment: SegmentNumber(1), len: 100_000 },
        LocalRecord::UploadMarked { session, repository: repository.clone(), segment, bytes: 4_096 },
        LocalRecord::UploadEnded { session },
        reported(1, "{}"),
        LocalRecord::Paused { what: Pausable::Collect, until_ms: 7 },
        LocalRecord::SegmentRemoved { segment: SegmentNumber(2) },
    ];
    for record in records {
        let rows = state.dump();
        state.batch(5_000, &[Request::Note(record.clone())]).remove(0).unwrap();
        assert_eq!(state.hash(), before, "{record:?}");
        assert_ne!(state.dump(), rows, "{record:?} did nothing");
    }
}

#[test]
fn every_logical_change_gives_another_hash_and_none_comes_again() {
    let mut state = State::new();
    let repository = name("a/x");
    let mut seen = vec![StateHash::default()];
    let mut now_ms = 0;
    let mut step = |state: &mut State, request: Request| {
        now_ms += 100;
        state.batch(now_ms, std::slice::from_ref(&request)).remove(0).unwrap();
        let hash = state.hash();
        assert!(!seen.contains(&hash), "{request:?}");
        seen.push(hash);
    };
    let (window_ms, tag) = (5_000, Some("again".parse().unwrap()));
    for number in [0, 0] {
        let upload = state.upload(&repository, number);
        step(&mut state, upload);
    }
    let from = repository.clone();
    step(&mut state, Request::Mount { repository: name("b/y"), digest: digest(0), from, grace_ms: 1_000 });
    step(&mut state, Request::Unlink { repository: name("b/y"), digest: digest(0) });
    for tags in [&[][..], &["latest"], &["latest"]] {
        let push = state.push(&repository, 100, manifest(100, vec![reference(Role::Layer, 0)]), tags);
        step(&mut state, push);
    }
    let digest = digest(100);
    step(&mut state, Request::Untag { repository: repository.clone(), tag: "latest".parse().unwrap(), window_ms });
    step(&mut state, Request::Restore { repository: repository.clone(), digest, tag, window_ms });
    step(&mut state, Request::Delete { repository: repository.clone(), digest, after: None, window_ms });
    step(&mut state, Request::EndWindows { repository: 1, digests: vec![digest] });
    state.collect_all(0);
    assert_eq!(state.hash(), StateHash::default(), "nothing is left");
}

#[test]
fn a_scope_has_the_sum_of_its_parts_and_ids_do_not_matter() {
    let names = ["a/x", "a/y", "b/z"];
    let filled = |names: &[&str]| {
        let mut state = State::new();
        for repository in names {
            let upload = state.upload(&name(repository), 0);
            state.done(upload);
        }
        state
    };
    let state = filled(&names);
    let [x, y, z] = [1, 2, 3].map(|id| state.hash_of(Scope::Repository(id)));
    let mut both = x;
    both += y;
    assert_eq!([1, 2].map(|id| state.hash_of(Scope::Organisation(id))), [both, z]);
    both += z;
    assert_eq!(state.hash(), both);
    assert!(x != y && y != z);
    let other = filled(&["b/z", "a/y", "a/x"]);
    assert_eq!((other.hash(), other.hash_of(Scope::Repository(1))), (both, z));
}

#[test]
fn a_state_that_comes_back_from_its_facts_has_the_same_hash() {
    let mut state = State::new();
    state.image(&name("a/x"));
    state.image(&name("b/y"));
    state.done(Request::Untag { repository: name("b/y"), tag: "latest".parse().unwrap(), window_ms: 5_000 });
    let header = facts::header(&state.index).unwrap().unwrap();
    // Written in the middle, as after a page of a snapshot: what was loaded before counts once.
    let mut count = 0;
    facts::each(&state.index, &mut |_| {
        count += 1;
        Ok::<_, schema::SchemaError>(())
    })
    .unwrap();
    for written in 0..=count {
        let index = MemoryIndex::new();
        let mut loader = facts::Loader::new(&index, [0; 16], &header);
        let mut loaded = 0;
        facts::each(&state.index, &mut |fact| {
            if loaded == written {
                loader.write()?;
            }
            loaded += 1;
            loader.load(fact)
        })
        .unwrap();
        loader.finish().unwrap();
        let other = State { index, ..State::new() };
        assert_eq!((other.hash(), other.dump()), (state.hash(), state.dump()), "written before fact {written}");
    }
}
