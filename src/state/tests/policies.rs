//! Policies against a reference that looks at everything: random repositories, tags, manifests, pulls, times and changes of
//! policies; the same decisions. At the end of each round the rows are counted again, and come back from facts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::*;
use crate::{
    index::schema::{ByUseRow, GovernedRow, PolicyRow, Scope, TagRow},
    journal::operation::RepositoryId,
    name::Tag,
    policy::{self, Policy, TagPatterns},
    state::{
        facts,
        govern::{self, evict, retain},
        life::Life,
    },
};

type TagOf = (RepositoryId, Tag);

/// All rows of a table, with the ends of their keys.
fn all<R: RowValue>(view: &dyn View) -> Vec<(Vec<u8>, R)> {
    let rows = schema::page(view, R::TABLE, None, usize::MAX).unwrap().rows;
    rows.into_iter().map(|(key, value)| (key[1..].to_vec(), R::from_bytes(&value).unwrap())).collect()
}

/// Repositories with the policies that govern them.
fn governed(view: &dyn View) -> Vec<(RepositoryId, Policy)> {
    let policies: Vec<Policy> = all::<PolicyRow>(view).into_iter().map(|(_, row)| row.policy).collect();
    let of = |(key, row): (Vec<u8>, RepositoryRow)| {
        let id = u32::from_be_bytes(key.try_into().unwrap());
        policy::governing(&policies, &row.name).map(|policy| (id, policy.clone()))
    };
    all::<RepositoryRow>(view).into_iter().filter_map(of).collect()
}

fn tags_of(view: &dyn View, repository: RepositoryId) -> Vec<(Tag, TagRow)> {
    let of = all::<TagRow>(view).into_iter().filter(|(key, _)| key[..4] == repository.to_be_bytes());
    of.map(|(key, row)| (String::from_utf8(key[4..].to_vec()).unwrap().parse().unwrap(), row)).collect()
}

/// Tags that match and are none of the newest.
fn spare_of(view: &dyn View, repository: RepositoryId, policy: &Policy) -> Vec<(Tag, TagRow)> {
    let mut tags = tags_of(view, repository);
    tags.retain(|(tag, _)| policy.tag_pattern.matches(tag));
    tags.sort_by_key(|(tag, row)| Reverse((row.set_ms, tag.clone())));
    tags.into_iter().skip(policy.keep_newest.unwrap_or(0) as usize).collect()
}

fn pulled_ms(view: &dyn View, repository: RepositoryId, digest: &Digest) -> u64 {
    schema::get::<PullRow>(view, key::pull(repository, digest)).unwrap().map_or(0, |row| row.pulled_ms)
}

/// The tags that go at some time.
fn going(view: &dyn View, now_ms: u64) -> BTreeSet<TagOf> {
    let mut going = BTreeSet::new();
    for (repository, policy) in governed(view) {
        let conditions = [policy.older_than_ms, policy.not_pulled_for_ms, policy.keep_newest.map(u64::from)];
        if conditions.iter().all(Option::is_none) {
            continue;
        }
        for (tag, row) in spare_of(view, repository, &policy) {
            let is_old = policy.older_than_ms.is_none_or(|ms| row.set_ms + ms <= now_ms);
            let used_ms = row.set_ms.max(pulled_ms(view, repository, &row.digest));
            if is_old && policy.not_pulled_for_ms.is_none_or(|ms| used_ms + ms <= now_ms) {
                going.insert((repository, tag));
            }
        }
    }
    going
}

/// Every manifest of a repository, with what keeps it.
fn manifests_of(view: &dyn View, repository: RepositoryId) -> Vec<(Digest, ManifestRow, ParentsRow)> {
    let ids = all::<ManifestIdRow>(view).into_iter().filter(|(_, row)| row.repository == repository);
    let found = ids.filter_map(|(_, id)| {
        let row: ManifestRow = schema::get(view, key::manifest(repository, &id.digest)).unwrap()?;
        let parents = schema::get(view, key::parents(repository, &id.digest)).unwrap().unwrap_or_default();
        Some((id.digest, row, parents))
    });
    found.collect()
}

/// The roots that go at some time.
fn roots_going(view: &dyn View, now_ms: u64) -> BTreeSet<(RepositoryId, Digest)> {
    let mut going = BTreeSet::new();
    for (repository, policy) in governed(view) {
        for (digest, row, _) in manifests_of(view, repository) {
            let is_over = policy.never_tagged_for_ms.is_some_and(|ms| row.pushed_ms + ms <= now_ms);
            if row.root && !row.deleted && is_over {
                going.insert((repository, digest));
            }
        }
    }
    going
}

/// What a policy would evict first, if its repositories use more than its cap; and whether they do.
fn evicted_first(view: &dyn View, policy: &Policy) -> (bool, Option<(u64, RepositoryId, Digest)>) {
    let of: Vec<RepositoryId> =
        governed(view).into_iter().filter(|(_, by)| by.name == policy.name).map(|(id, _)| id).collect();
    let used = |id: &RepositoryId| {
        let usage: Option<UsageRow> = schema::get(view, key::usage(Scope::Repository(*id))).unwrap();
        usage.map_or(0, |usage| usage.used_bytes)
    };
    let is_over = policy.size_max_bytes.is_some_and(|cap| of.iter().map(used).sum::<u64>() > cap);
    let mut candidates = Vec::new();
    for repository in of {
        let spare: BTreeSet<Tag> = spare_of(view, repository, policy).into_iter().map(|(tag, _)| tag).collect();
        let tags = tags_of(view, repository);
        for (digest, row, parents) in manifests_of(view, repository) {
            let mut own = tags.iter().filter(|(_, tag)| tag.digest == digest);
            let lives_by_spare = row.root || (row.tags > 0 && own.all(|(tag, _)| spare.contains(tag)));
            match Life::of(&row, &parents).is_live() {
                false if parents.all == 0 => candidates.push((0, repository, digest)),
                true if lives_by_spare && parents.strong == 0 => {
                    candidates.push((row.pushed_ms.max(pulled_ms(view, repository, &digest)), repository, digest));
                }
                _ => {}
            }
        }
    }
    (is_over, candidates.into_iter().min())
}

fn random_policy(random: &mut fastrand::Rng) -> Policy {
    let names = ["p1", "p2", "p3"];
    let patterns = ["a/*", "**", "a/x", "b/**", "plain", "*/x"];
    let tags: [&[&str]; 4] = [&["*"], &["t*", "!t2"], &["t1"], &["!t3"]];
    let name = names[random.usize(..names.len())].parse().unwrap();
    let mut policy = Policy::new(name, patterns[random.usize(..patterns.len())].parse().unwrap());
    let texts = tags[random.usize(..tags.len())].iter().map(|text| (*text).to_owned()).collect();
    policy.tag_pattern = TagPatterns::new("tag_pattern", texts).unwrap();
    let mut some = |odds: u8, value: u64| (random.u8(..odds) == 0).then_some(value);
    policy.keep_newest = some(2, 1).map(|count| count as u32);
    policy.older_than_ms = some(3, 3_000);
    policy.not_pulled_for_ms = some(3, policy::NOT_PULLED_MIN_MS);
    policy.never_tagged_for_ms = some(3, 2_000);
    policy.size_max_bytes = some(3, 260);
    policy.held_for_ms = some(4, 900).filter(|_| policy.size_max_bytes.is_none());
    policy.immutable = some(5, 0).map(|_| TagPatterns::new("immutable", vec!["t1".to_owned()]).unwrap());
    policy
}

fn policy_request(random: &mut fastrand::Rng) -> Request {
    let name: policy::PolicyName = ["p1", "p2", "p3"][random.usize(..3)].parse().unwrap();
    match random.u8(..6) {
        0 => Request::RemovePolicy { name, from_settings: true },
        1 => Request::ConfirmPolicy { name },
        _ => {
            let (from_settings, confirmed) = (random.bool(), random.bool());
            Request::SetPolicy { policy: Box::new(random_policy(random)), from_settings, confirmed }
        }
    }
}

/// Takes all tags and roots away that are due, as the collector does; they must be those of the reference.
fn retain_all(state: &mut State, seed: u64, now_ms: u64) -> usize {
    let wanted = going(&state.index, now_ms);
    let mut gone = BTreeSet::new();
    for repository in retain::due_repositories(&state.index, None, now_ms, usize::MAX).unwrap().0 {
        let policy = govern::agreed(&state.index, repository).unwrap().unwrap().policy;
        let due = retain::due_tags(&state.index, repository, None, now_ms, usize::MAX).unwrap();
        let count = retain::count_going(&state.index, repository, &policy, now_ms, u64::MAX).unwrap();
        let tags: Vec<Tag> = due.into_iter().map(|(_, tag)| tag).collect();
        let request = Request::Retain { repository, policy: Box::new(policy), tags, window_ms: 5_000 };
        let Outcome::Retained { gone: tags } = state.batch(now_ms, &[request]).remove(0).unwrap() else { panic!() };
        assert_eq!(tags.len() as u64, count, "seed {seed}");
        gone.extend(tags.into_iter().map(|tag| (repository, tag)));
    }
    assert_eq!(gone, wanted, "seed {seed}");
    state.settle();
    let wanted_roots = roots_going(&state.index, now_ms);
    let roots: BTreeSet<_> = retain::due_roots(&state.index, None, now_ms, usize::MAX).unwrap().0.into_iter().collect();
    assert_eq!(roots, wanted_roots, "seed {seed}");
    for &(repository, digest) in &roots {
        // What one root refers to may keep the next.
        let done = state.batch(now_ms, &[Request::RetainRoot { repository, digest, window_ms: 5_000 }]).remove(0);
        assert!(done.is_ok() || !roots_going(&state.index, now_ms).contains(&(repository, digest)), "seed {seed}");
    }
    state.settle();
    assert!(going(&state.index, now_ms).is_empty(), "seed {seed}");
    gone.len() + roots.len()
}

/// Evicts until all caps are kept, or nothing more may go; each time what the reference would.
fn evict_all(state: &mut State, seed: u64, now_ms: u64) -> usize {
    let mut count = 0;
    for row in govern::policies(&state.index).unwrap() {
        let name = row.policy.name.clone();
        loop {
            let (is_over, wanted) = evicted_first(&state.index, &row.policy);
            let over = evict::over(&state.index, &row).unwrap();
            assert_eq!(over.is_some(), is_over, "seed {seed}");
            let found = evict::least_used(&state.index, &name, |_, _| None, |_| true).unwrap();
            let found = found.map(|it| (it.used_ms, it.repository, it.digest));
            if row.policy.size_max_bytes.is_some() {
                assert_eq!(found, wanted, "seed {seed}: {row:?}");
            }
            let (true, Some((_, repository, digest))) = (is_over, found) else { break };
            let request = Request::Evict { policy: name.clone(), repository, digest };
            state.batch(now_ms, &[request]).remove(0).unwrap();
            state.settle();
            count += 1;
            assert!(count < 1_000, "seed {seed}: evicting comes to no end");
        }
    }
    count
}

/// The same rows come back from facts.
fn comes_back(state: &State, seed: u64) {
    let header = facts::header(&state.index).unwrap().unwrap();
    let index = MemoryIndex::new();
    let mut loader = facts::Loader::new(&index, [0; 16], &header);
    facts::each(&state.index, &mut |fact| loader.load(fact)).unwrap();
    loader.finish().unwrap();
    let other = State { index, ..State::new() };
    assert_eq!(other.dump(), state.dump(), "seed {seed}");
}

#[test]
fn policies_decide_what_a_look_at_everything_does() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in rounds(100) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = State::new();
        let mut now_ms = 1_000_000;
        for _ in 0..30 {
            now_ms += random.u64(..1_500);
            if random.u8(..10) == 0 {
                now_ms += policy::NOT_PULLED_MIN_MS / 2;
            }
            for _ in 0..random.usize(1..10) {
                let request = match random.u8(..12) {
                    0 => policy_request(&mut random),
                    1 => {
                        let digests = vec![digest(random.usize(MANIFESTS)), digest(random.usize(MANIFESTS))];
                        Request::Pulled { repository: random.u32(1..5), pulled_ms: now_ms - now_ms % 1_000, digests }
                    }
                    _ => random_request(&mut state, &mut random, now_ms),
                };
                drop(state.batch(now_ms, &[request]));
            }
            *kinds.entry("under review").or_default() += usize::from(state.applied.reviewing);
            if random.bool() {
                continue;
            }
            state.settle();
            state.check();
            *kinds.entry("governed").or_default() += all::<GovernedRow>(&state.index).len();
            *kinds.entry("by use").or_default() += all::<ByUseRow>(&state.index).len();
            *kinds.entry("gone").or_default() += retain_all(&mut state, seed, now_ms);
            *kinds.entry("evicted").or_default() += evict_all(&mut state, seed, now_ms);
            state.check();
            comes_back(&state, seed);
        }
        for name in ["p1", "p2", "p3"] {
            drop(state.batch(now_ms, &[Request::RemovePolicy { name: name.parse().unwrap(), from_settings: true }]));
        }
        state.collect_all(seed);
    }
    for kind in ["under review", "governed", "by use", "gone", "evicted"] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 0), "nothing was {kind}: {kinds:?}");
    }
}

fn set(state: &mut State, policy: Policy) {
    let request = Request::SetPolicy { policy: Box::new(policy), from_settings: false, confirmed: false };
    state.batch(0, &[request]).remove(0).unwrap();
    state.settle();
}

fn for_all(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::new("all".parse().unwrap(), "**".parse().unwrap());
    change(&mut policy);
    policy
}

#[test]
fn immutable_tags_stay_where_they_are_and_can_be_deleted() {
    let mut state = State::new();
    let repository = name("a/x");
    let tags = TagPatterns::new("immutable", vec!["v*".to_owned()]).unwrap();
    set(&mut state, for_all(|policy| policy.immutable = Some(tags)));
    let push = |state: &mut State, number: usize, tag: &str| {
        let request = state.push(&repository, number, manifest(number, Vec::new()), &[tag]);
        state.batch(0, &[request]).remove(0)
    };
    assert_eq!(push(&mut state, 100, "v1"), Ok(Outcome::Done));
    assert_eq!(push(&mut state, 100, "v1"), Ok(Outcome::Done), "it stays where it is");
    let refused = push(&mut state, 101, "v1").unwrap_err();
    assert!(refused.contains("tag \"v1\" is immutable by policy all and points to"), "{refused}");
    assert_eq!(push(&mut state, 101, "latest"), Ok(Outcome::Done));
    let restore = |tag: &str| Request::Restore {
        repository: repository.clone(),
        digest: digest(101),
        tag: Some(tag.parse().unwrap()),
        window_ms: 5_000,
    };
    assert_eq!(state.batch(0, &[restore("v1")]).remove(0).unwrap_err(), refused);
    let untag = Request::Untag { repository: repository.clone(), tag: "v1".parse().unwrap(), window_ms: 5_000 };
    assert_eq!(state.batch(0, &[untag]).remove(0), Ok(Outcome::Done));
    assert_eq!(state.batch(0, &[restore("v1")]).remove(0), Ok(Outcome::Done));
    state.settle();
    state.check();
}

#[test]
fn a_policy_says_how_long_things_are_held() {
    let mut state = State::new();
    let repository = name("a/x");
    set(&mut state, for_all(|policy| policy.held_for_ms = Some(77)));
    let push = state.push(&repository, 100, manifest(100, Vec::new()), &["v1"]);
    state.done(push);
    state
        .batch(1_000, &[Request::Untag { repository, tag: "v1".parse().unwrap(), window_ms: 5_000 }])
        .remove(0)
        .unwrap();
    let row: ManifestRow = schema::expect(&state.index, key::manifest(1, &digest(100))).unwrap();
    assert_eq!(row.held_until_ms, 1_077);
    let entries: Vec<schema::HistoryRow> = all(&state.index).into_iter().map(|(_, row)| row).collect();
    assert!(entries.iter().all(|entry| entry.until_ms == 1_077), "{entries:?}");
}

#[test]
fn an_image_comes_in_while_the_cap_is_kept_and_none_that_is_too_large_for_it() {
    let mut state = State::new();
    let repository = name("a/x");
    set(&mut state, for_all(|policy| policy.size_max_bytes = Some(250)));
    for blob in 0..4 {
        let upload = state.upload(&repository, blob);
        state.done(upload);
    }
    let push = |state: &mut State, number: usize, blobs: &[usize]| {
        let named = blobs.iter().map(|blob| reference(Role::Layer, *blob)).collect();
        let request = state.push(&repository, number, manifest(number, named), &[&format!("t{number}")]);
        state.batch(number as u64, &[request]).remove(0)
    };
    let refused = push(&mut state, 100, &[0, 1, 2]).unwrap_err();
    assert!(refused.contains("the image has 303 bytes") && refused.contains("may use 250 bytes"), "{refused}");
    assert_eq!(push(&mut state, 101, &[0, 1]), Ok(Outcome::Done));
    assert_eq!(push(&mut state, 102, &[2, 3]), Ok(Outcome::Done), "the cap is kept before it");
    let refused = push(&mut state, 103, &[0]).unwrap_err();
    assert!(refused.contains("may use 250 bytes together and use 406"), "{refused}");
    assert_eq!(push(&mut state, 102, &[2, 3]), Ok(Outcome::Done), "what is there needs nothing");
    assert_eq!(evict_all(&mut state, 0, 200), 1);
    assert_eq!(tags_of(&state.index, 1).len(), 1);
    assert_eq!(push(&mut state, 103, &[2]), Ok(Outcome::Done));
    state.settle();
    state.check();
}

#[test]
fn what_another_has_or_the_settings_say_is_refused() {
    let mut state = State::new();
    let policy = |name: &str, pattern: &str| Box::new(Policy::new(name.parse().unwrap(), pattern.parse().unwrap()));
    let mut set = |name: &str, pattern: &str, from_settings: bool| {
        let request = Request::SetPolicy { policy: policy(name, pattern), from_settings, confirmed: false };
        state.batch(0, &[request]).remove(0).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(set("one", "a/*", true), Ok(Outcome::Done));
    assert!(set("two", "a/*", false).unwrap_err().contains("policy one has the pattern a/*"));
    assert!(set("one", "b/*", false).unwrap_err().contains("stands in the settings"));
    assert_eq!(set("two", "b/*", false), Ok(Outcome::Done));
    let remove = |name: &str| Request::RemovePolicy { name: name.parse().unwrap(), from_settings: false };
    let removed = state.batch(0, &[remove("one"), remove("two"), remove("two")]);
    assert!(removed[0].is_err() && removed[1].is_ok() && removed[2].is_err(), "{removed:?}");
}
