//! What is read ahead of a decision, against what the decision reads.

use std::{cell::RefCell, collections::BTreeSet};

use super::*;
use crate::{
    index::{IndexError, Row},
    state::ahead,
};

/// A view that knows which rows it was asked for.
struct Watched<'a> {
    view: &'a dyn View,
    keys: RefCell<BTreeSet<Vec<u8>>>,
}

impl<'a> Watched<'a> {
    fn new(view: &'a dyn View) -> Self {
        Self { view, keys: RefCell::default() }
    }
}

impl View for Watched<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.keys.borrow_mut().insert(key.to_vec());
        self.view.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.view.scan(from, until, limit)
    }
}

/// How many rows of which tables the decision asks for that were not read before it, but those that nearly all ask for.
fn missed(state: &State, request: &Request) -> String {
    let (before, decision) = (Watched::new(&state.index), Watched::new(&state.index));
    ahead::read(&before, request).unwrap();
    let mut batch = Batch::new(&decision, state.applied.clone(), 10_000);
    let result = batch.decide(request);
    assert!(result.is_ok(), "{request:?}: {result:?}");
    let (before, decision) = (before.keys.into_inner(), decision.keys.into_inner());
    let mut tables: BTreeMap<&str, usize> = BTreeMap::new();
    for key in decision.difference(&before) {
        *tables.entry(Table::of(key).unwrap().name()).or_default() += 1;
    }
    let tables = tables.into_iter().filter(|(table, _)| !["usage", "samples", "segments"].contains(table));
    tables.map(|(table, count)| format!("{count} {table}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn hardly_a_decision_asks_for_a_row_that_was_not_read_ahead() {
    let mut state = State::new();
    let (repository, other) = (name("a/x"), name("b/x"));
    for blob in 0..4 {
        let upload = state.upload(&repository, blob);
        state.done(upload);
    }
    let layers = |number: usize, child: Option<usize>| {
        let references = [reference(Role::Config, 0), reference(Role::Layer, 1), reference(Role::Layer, 2)];
        let child = child.map(|child| reference(Role::Child, child));
        manifest(number, references.into_iter().chain(child).collect())
    };
    for number in [100, 101] {
        let push = state.push(&repository, number, layers(number, None), &["latest"]);
        state.done(push);
    }
    let upload = state.upload(&other, 3);
    state.done(upload);
    let tag = || "latest".parse().unwrap();
    let due = |digest| Due::Link { repository: 1, digest };
    let cases = [
        ("an upload", state.upload(&repository, 7), ""),
        ("one that is there already", state.upload(&repository, 1), ""),
        ("a mount", Request::Mount { repository: other, digest: digest(0), from: repository.clone(), grace_ms: 1 }, ""),
        ("a removed link", Request::Unlink { repository: repository.clone(), digest: digest(3) }, ""),
        // By an id that it has from then on.
        ("a first push", state.push(&repository, 102, layers(102, Some(101)), &["new"]), "1 settling"),
        ("another tag", state.push(&repository, 101, layers(101, None), &["new"]), ""),
        // What it names is told that it lives again.
        ("a tag that moves", state.push(&repository, 100, layers(100, None), &["latest"]), "1 references"),
        ("a removed tag", Request::Untag { repository: repository.clone(), tag: tag(), window_ms: 1 }, ""),
        ("a delete", Request::Delete { repository, digest: digest(100), after: None, window_ms: 1 }, ""),
        ("a dropped link", Request::Drop { due: due(digest(3)), window_ms: 5_000 }, ""),
        (
            "a dropped manifest",
            Request::Drop { due: Due::Manifest { repository: 1, digest: digest(100) }, window_ms: 5_000 },
            "",
        ),
    ];
    for (what, request, expected) in cases {
        assert_eq!(missed(&state, &request), expected, "{what}");
    }
}
