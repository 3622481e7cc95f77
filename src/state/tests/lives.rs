//! What keeps a manifest alive, where things name each other; what purging frees; samples.

use super::*;
use crate::{
    index::schema::{LinkRow, SampleRow, Scope},
    state::{life::Life, samples, settle},
};

fn index_of(children: &[usize], subject: Option<usize>, number: usize) -> ManifestContent {
    let references = children.iter().map(|&child| reference(Role::Child, child)).collect();
    ManifestContent { subject: subject.map(digest), ..manifest(number, references) }
}

/// Whether a manifest of the first repository lives, and by itself; `None` for one that is not there.
fn life(state: &State, number: usize) -> Option<(bool, bool)> {
    let row: Option<ManifestRow> = schema::get(&state.index, key::manifest(1, &digest(number))).unwrap();
    let parents: Option<ParentsRow> = schema::get(&state.index, key::parents(1, &digest(number))).unwrap();
    row.map(|row| (Life::of(&row, &parents.unwrap_or_default()).is_live(), row.root))
}

fn pushed(pushes: &[(usize, ManifestContent, &[&str])]) -> State {
    let mut state = State { sparse: Sparse::Index, ..State::new() };
    for (number, content, tags) in pushes {
        let push = state.push(&name("a/x"), *number, content.clone(), tags);
        state.done(push);
        state.check();
    }
    state
}

fn delete(number: usize) -> Request {
    Request::Delete { repository: name("a/x"), digest: digest(number), after: None, window_ms: 5_000 }
}

fn untag(tag: &str) -> Request {
    Request::Untag { repository: name("a/x"), tag: tag.parse().unwrap(), window_ms: 5_000 }
}

/// Drops what is due at a time until nothing is.
fn collect(state: &mut State, now_ms: u64) {
    loop {
        let pages = due::TABLES.map(|table| due::page(&state.index, table, None, now_ms, 1_000).unwrap().items);
        let mut dropped = 0;
        for item in pages.into_iter().flatten() {
            dropped +=
                usize::from(state.batch(now_ms, &[Request::Drop { due: item, window_ms: 5_000 }]).remove(0).is_ok());
            state.settle();
        }
        state.check();
        if dropped == 0 {
            return;
        }
    }
}

/// An index that refers to its own child: the child lives by it, and it would live by the child.
#[test]
fn an_index_that_refers_to_its_child_lives_by_itself_and_goes_when_it_is_deleted() {
    let contents = [(100, manifest(100, Vec::new())), (101, index_of(&[100], Some(100), 101))];
    for order in [[0, 1], [1, 0]] {
        let pushes = order.map(|at| (contents[at].0, contents[at].1.clone(), &[][..]));
        let mut state = pushed(&pushes);
        assert_eq!(life(&state, 101), Some((true, true)), "{order:?}");
        assert_eq!(life(&state, 100), Some((true, false)), "{order:?}");
        state.done(delete(101));
        assert_eq!((life(&state, 101), life(&state, 100)), (Some((false, false)), Some((false, false))));
        collect(&mut state, 100_000);
        assert_eq!((life(&state, 101), life(&state, 100)), (None, None));
    }
}

/// Two subjects whose referrers are indexes of the other's subject, in every order of coming.
#[test]
fn referrers_that_name_each_others_subjects_live_until_they_are_deleted() {
    let contents = [
        (100, manifest(100, Vec::new())),
        (101, manifest(101, Vec::new())),
        (102, index_of(&[101], Some(100), 102)),
        (103, index_of(&[100], Some(101), 103)),
    ];
    for order in 0..24 {
        let (mut left, mut pushes) = (contents.to_vec(), Vec::new());
        for choice in [order % 4, order / 4 % 3, order / 12, 0] {
            let (number, content) = left.remove(choice);
            pushes.push((number, content, &[][..]));
        }
        let mut state = pushed(&pushes);
        assert!(contents.iter().all(|(number, _)| life(&state, *number).unwrap().0), "order {order}");
        collect(&mut state, 100_000);
        assert!(contents.iter().all(|(number, _)| life(&state, *number).unwrap().0), "order {order}: something went");
        [102, 103].into_iter().for_each(|number| state.done(delete(number)));
        collect(&mut state, 200_000);
        assert!(contents.iter().all(|(number, _)| life(&state, *number).is_none_or(|it| it.0)), "order {order}");
        assert!(life(&state, 102).is_none() && life(&state, 103).is_none(), "order {order}");
    }
}

#[test]
fn referrers_go_with_their_subject_and_theirs_with_them() {
    let mut state = pushed(&[
        (100, manifest(100, Vec::new()), &["latest"]),
        (101, index_of(&[], Some(100), 101), &[]),
        (102, index_of(&[], Some(101), 102), &[]),
        (103, index_of(&[100], None, 103), &["all"]),
    ]);
    state.done(untag("latest"));
    assert!([100, 101, 102].iter().all(|&number| life(&state, number) == Some((true, false))));
    state.done(untag("all"));
    assert!([100, 101, 102, 103].iter().all(|&number| life(&state, number) == Some((false, false))));
    collect(&mut state, 100_000);
    assert!([100, 101, 102, 103].iter().all(|&number| life(&state, number).is_none()));
}

/// Live counts come in steps, and so do the lives of an index's children: between them a blob that is about to live again
/// must not be taken for one that nothing needs.
#[test]
fn a_blob_of_what_is_restored_cannot_be_deleted_before_that_is_told() {
    let blobs: Vec<usize> = (0..3 * settle::STEP_DIGESTS as usize).collect();
    let image = |number, blobs: &[usize]| {
        manifest(number, blobs.iter().map(|&blob| reference(Role::Layer, blob)).collect::<Vec<_>>())
    };
    let children: Vec<usize> = blobs.iter().map(|blob| 100 + blob).collect();
    for is_index in [false, true] {
        let mut state = State::new();
        for &blob in &blobs {
            let upload = state.upload(&name("a/x"), blob);
            state.done(upload);
        }
        let mut pushes = vec![(99, image(99, &blobs))];
        if is_index {
            pushes = children.iter().zip(&blobs).map(|(&child, &blob)| (child, image(child, &[blob]))).collect();
            pushes.push((99, index_of(&children, None, 99)));
        }
        for (number, content) in pushes {
            let push = state.push(&name("a/x"), number, content, &[]);
            state.done(push);
        }
        state.done(delete(99));
        let restore = Request::Restore { repository: name("a/x"), digest: digest(99), tag: None, window_ms: 5_000 };
        state.batch(0, &[restore]).remove(0).unwrap();
        assert!(state.applied.settling > 0, "all was told in one step");
        for &blob in &blobs {
            let unlink = Request::Unlink { repository: name("a/x"), digest: digest(blob) };
            state.batch(0, &[unlink]).remove(0).unwrap_err();
        }
        state.settle();
        state.done(delete(99));
        let unlink = Request::Unlink { repository: name("a/x"), digest: digest(blobs[0]) };
        state.done(unlink);
        state.check();
    }
}

/// A clock that stands still tells nothing of what came first.
#[test]
fn what_was_linked_after_a_manifest_keeps_its_grace_when_that_is_purged_in_the_same_millisecond() {
    for later in [false, true] {
        let mut state = State::new();
        for blob in [0, 1] {
            let upload = state.upload(&name("a/x"), blob);
            state.done(upload);
        }
        let content = manifest(100, [0, 1].map(|blob| reference(Role::Layer, blob)).to_vec());
        let push = state.push(&name("a/x"), 100, content, &[]);
        state.done(push);
        let end = Request::EndWindows { repository: 1, digests: vec![digest(100)] };
        let requests = [delete(100), end];
        requests.into_iter().for_each(|request| state.done(request));
        if later {
            let upload = state.upload(&name("a/x"), 0);
            state.done(upload);
        }
        collect(&mut state, 0);
        let link = |blob| schema::get::<LinkRow>(&state.index, key::link(1, &digest(blob))).unwrap();
        assert_eq!((link(0).is_some(), link(1).is_some()), (later, false));
    }
}

/// A referrer whose subject came to be held and is then carried only lives by itself again: its subject is there.
#[test]
fn what_refers_to_a_subject_that_is_carried_again_lives_again() {
    let mut state = pushed(&[
        (100, manifest(100, Vec::new()), &["image"]),
        (101, index_of(&[], Some(100), 101), &[]),
        (102, manifest(102, Vec::new()), &["other"]),
    ]);
    state.done(untag("image"));
    assert_eq!(life(&state, 101), Some((false, false)));
    let push = state.push(&name("a/x"), 103, index_of(&[100], Some(102), 103), &[]);
    state.done(push);
    state.check();
    assert_eq!((life(&state, 100), life(&state, 101)), (Some((true, false)), Some((true, true))));
}

/// Whoever restores a referrer alone wants it, with or without its subject.
#[test]
fn a_referrer_that_was_restored_while_its_subject_was_held_outlives_it() {
    let mut state = pushed(&[(100, manifest(100, Vec::new()), &["image"]), (101, index_of(&[], Some(100), 101), &[])]);
    state.done(untag("image"));
    state.done(Request::Restore { repository: name("a/x"), digest: digest(101), tag: None, window_ms: 5_000 });
    collect(&mut state, 100_000);
    assert_eq!((life(&state, 100), life(&state, 101)), (None, Some((true, true))));
}

/// Also one that was a root for its subject's sake before.
#[test]
fn a_referrer_that_is_asked_for_while_its_subject_is_held_is_no_root_for_its_sake() {
    for by_push in [false, true] {
        let mut state = pushed(&[(100, manifest(100, Vec::new()), &[]), (101, index_of(&[100], Some(100), 101), &[])]);
        assert_eq!(life(&state, 101), Some((true, true)));
        state.done(delete(100));
        let again = match by_push {
            true => state.push(&name("a/x"), 101, index_of(&[100], Some(100), 101), &[]),
            false => Request::Restore { repository: name("a/x"), digest: digest(101), tag: None, window_ms: 5_000 },
        };
        state.done(again);
        let stays: ManifestRow = schema::get(&state.index, key::manifest(1, &digest(101))).unwrap().unwrap();
        assert!(stays.root && !stays.stays_root, "pushed: {by_push}");
        state.check();
    }
}

/// The last reach of a referrer of what was merely carried ends with the subject; then it has a window of its own.
#[test]
fn a_root_for_its_subjects_sake_is_held_when_that_is_dropped() {
    let mut state = pushed(&[
        (100, manifest(100, Vec::new()), &[]),
        (101, manifest(101, Vec::new()), &["image"]),
        (102, index_of(&[100], Some(101), 102), &[]),
        (103, index_of(&[], Some(100), 103), &[]),
    ]);
    assert_eq!((life(&state, 100), life(&state, 103)), (Some((true, false)), Some((true, true))));
    state.done(untag("image"));
    assert_eq!((life(&state, 100), life(&state, 103)), (Some((false, false)), Some((true, true))));
    let mut now_ms = 5_000;
    while life(&state, 100).is_some() {
        collect(&mut state, now_ms);
        now_ms += 1;
    }
    assert_eq!(life(&state, 103), Some((false, false)));
    collect(&mut state, now_ms + 4_000);
    assert!(life(&state, 103).is_some());
    collect(&mut state, now_ms + 5_000);
    assert_eq!(life(&state, 103), None);
}

/// Found by the crash model: the first went with its index, which lives only for the sake of a subject whose window was ended,
/// without any window of its own.
#[test]
fn what_was_pushed_after_a_purge_is_held_when_what_reached_it_is_dropped_with_its_subject() {
    let mut state = pushed(&[
        (98, manifest(98, Vec::new()), &[]),
        (100, manifest(100, Vec::new()), &[]),
        (101, manifest(101, Vec::new()), &["image"]),
        (102, index_of(&[100], Some(101), 102), &[]),
        (103, index_of(&[98], Some(100), 103), &[]),
    ]);
    state.done(untag("image"));
    let held = vec![digest(100), digest(101), digest(102)];
    state.done(Request::EndWindows { repository: 1, digests: held });
    assert_eq!([98, 100, 103].map(|number| life(&state, number).unwrap().0), [true, false, true]);
    let push = state.push(&name("a/x"), 98, manifest(98, Vec::new()), &[]);
    state.batch(1_000, &[push]).remove(0).unwrap();
    collect(&mut state, 1_000);
    assert_eq!(
        (life(&state, 100), life(&state, 103), life(&state, 98)),
        (None, Some((false, false)), Some((false, false)))
    );
    collect(&mut state, 5_999);
    assert!(life(&state, 98).is_some());
    for now_ms in [6_000, 7_000] {
        collect(&mut state, now_ms);
    }
    assert_eq!((life(&state, 103), life(&state, 98)), (None, None));
}

/// A state with an index of so many children that what it tells takes several steps.
fn with_large_index() -> (State, Vec<usize>) {
    let children: Vec<usize> = (200..200 + 3 * settle::STEP_DIGESTS as usize).collect();
    let mut pushes: Vec<_> = children.iter().map(|&child| (child, manifest(child, Vec::new()), &[][..])).collect();
    pushes.push((100, index_of(&children, None, 100), &["all"]));
    (pushed(&pushes), children)
}

fn later_roots(state: &State) -> usize {
    state.index.scan(&[Table::LaterRoots as u8], &[Table::LaterRoots as u8 + 1], 100).unwrap().len()
}

/// Found by the crash model: what a delete has to tell is told in steps, and a push between them took what was about to be
/// taken back for something that reaches it.
#[test]
fn what_is_asked_for_while_what_reached_it_is_taken_back_lives_by_itself() {
    let restore = |child| Request::Restore { repository: name("a/x"), digest: digest(child), tag: None, window_ms: 9 };
    for is_restored in [false, true] {
        let (_, children) = with_large_index();
        for &child in &children {
            let (mut state, _) = with_large_index();
            state.batch(0, &[delete(100)]).remove(0).unwrap();
            let request = match is_restored {
                true => restore(child),
                false => state.push(&name("a/x"), child, manifest(child, Vec::new()), &[]),
            };
            state.batch(0, &[request]).remove(0).unwrap();
            assert_eq!(later_roots(&state), 1);
            state.settle();
            state.check();
            assert_eq!((life(&state, child), later_roots(&state)), (Some((true, true)), 0), "{child}");
            collect(&mut state, 100_000);
            let left = children.iter().filter(|&&child| life(&state, child).is_some()).count();
            assert_eq!((left, life(&state, child)), (1, Some((true, true))));
        }
    }
}

/// The first thing that surely reaches it ends that, as it does for every root; so does deleting it.
#[test]
fn what_is_reached_or_deleted_meanwhile_is_no_root_later() {
    let child = 205;
    for (what, lives) in
        [("nothing", Some(true)), ("a tag", Some(false)), ("an index", Some(false)), ("deleting it", None)]
    {
        let (mut state, _) = with_large_index();
        state.batch(0, &[untag("all")]).remove(0).unwrap();
        let push = state.push(&name("a/x"), child, manifest(child, Vec::new()), &[]);
        let more = match what {
            "a tag" => Some(state.push(&name("a/x"), child, manifest(child, Vec::new()), &["mine"])),
            "an index" => Some(state.push(&name("a/x"), 101, index_of(&[child], None, 101), &["mine"])),
            "deleting it" => Some(delete(child)),
            _ => None,
        };
        let has_tag = lives == Some(false);
        let requests: Vec<_> = [Some(push), more, has_tag.then(|| untag("mine"))].into_iter().flatten().collect();
        assert!(state.batch(0, &requests).iter().all(Result::is_ok), "{what}");
        state.settle();
        state.check();
        let row: ManifestRow = schema::expect(&state.index, key::manifest(1, &digest(child))).unwrap();
        assert_eq!((!row.deleted).then_some(row.root), lives, "{what}");
    }
}

/// Until it is known whether it lives, it is not dropped, however far the clock is, nor may its blobs be deleted.
#[test]
fn what_may_become_a_root_is_neither_dropped_nor_robbed() {
    let (mut state, _) = with_large_index();
    let upload = state.upload(&name("a/x"), 1);
    state.done(upload);
    let image = || manifest(150, vec![reference(Role::Layer, 1)]);
    let push = state.push(&name("a/x"), 150, image(), &["image"]);
    state.done(push);
    state.batch(0, &[untag("all"), untag("image")]);
    let push = state.push(&name("a/x"), 150, image(), &[]);
    state.batch(0, &[push]).remove(0).unwrap();
    // As if it had left since.
    let key = key::manifest(1, &digest(150));
    let mut overlay = Overlay::new(&state.index);
    let row: ManifestRow = schema::expect(&overlay, key.clone()).unwrap();
    schema::put(&mut overlay, key, &ManifestRow { root: false, told: 0, held_until_ms: 1, ..row });
    let changes = overlay.take_changes();
    state.index.write(&changes).unwrap();
    let drop = Request::Drop { due: Due::Manifest { repository: 1, digest: digest(150) }, window_ms: 5_000 };
    let unlink = Request::Unlink { repository: name("a/x"), digest: digest(1) };
    let refused = state.batch(90_000, &[drop, unlink]);
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
}

#[test]
fn purging_releases_what_was_uploaded_for_it_at_once_and_keeps_what_came_since() {
    let repository = name("a/x");
    let mut state = State::new();
    for number in [0, 1] {
        let request = state.upload(&repository, number);
        state.batch(1_000, &[request]).remove(0).unwrap();
    }
    let layers = vec![reference(Role::Layer, 0), reference(Role::Layer, 1)];
    let push = state.push(&repository, 100, manifest(100, layers), &["latest"]);
    state.batch(1_100, &[push]).remove(0).unwrap();
    let again = state.upload(&repository, 1);
    state.batch(1_200, &[again]).remove(0).unwrap();
    state.batch(1_300, &[untag("latest")]).remove(0).unwrap();
    state.settle();
    let end = Request::EndWindows { repository: 1, digests: vec![digest(100)] };
    state.batch(1_400, &[end]).remove(0).unwrap();
    collect(&mut state, 1_400);
    assert_eq!(life(&state, 100), None);
    let links = [0, 1].map(|number| schema::get::<LinkRow>(&state.index, key::link(1, &digest(number))).unwrap());
    assert_eq!(links.clone().map(|link| link.is_some()), [false, true], "{links:?}");
    collect(&mut state, 3_000);
    assert!(schema::get::<LinkRow>(&state.index, key::link(1, &digest(1))).unwrap().is_none());
}

#[test]
fn each_day_keeps_what_was_used_at_its_end_for_so_many_days() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let repository = name("a/x");
    let mut state = State::new();
    let sample = |state: &State, scope, day| -> Option<SampleRow> {
        schema::get(&state.index, key::sample(scope, day)).unwrap()
    };
    let push = |state: &mut State, number, day: u64| {
        let upload = state.upload(&repository, number);
        let push =
            state.push(&repository, 100 + number, manifest(100 + number, vec![reference(Role::Layer, number)]), &["t"]);
        state.batch(day * DAY_MS + 5, &[upload, push]).into_iter().for_each(|result| drop(result.unwrap()));
        state.settle();
    };
    [(0, 7), (1, 7), (2, 9)].into_iter().for_each(|(number, day)| push(&mut state, number, day));
    for scope in [Scope::Registry, Scope::Organisation(1)] {
        let used =
            [6, 7, 8, 9].map(|day| sample(&state, scope, day).map(|row| (row.used_bytes, row.reclaimable_bytes)));
        let [first, second, third] = [size(0), size(1), size(2)];
        assert_eq!(used, [None, Some((first + second, first)), None, Some((first + second + third, first + second))]);
    }
    push(&mut state, 3, 7 + u64::from(samples::DAYS_KEPT));
    let kept = [7, 9].map(|day| sample(&state, Scope::Registry, day).is_some());
    assert_eq!(kept, [false, true]);
}

/// It may have been about to be told that it lives again, when it was deleted.
#[test]
fn what_is_held_and_then_deleted_has_its_window_from_then_on() {
    let mut state = pushed(&[(100, manifest(100, Vec::new()), &["latest"])]);
    let until = |state: &State| {
        let row: ManifestRow = schema::get(&state.index, key::manifest(1, &digest(100))).unwrap().unwrap();
        (row.left_ms, row.held_until_ms)
    };
    state.batch(1_000, &[untag("latest")]).remove(0).unwrap();
    assert_eq!(until(&state), (1_000, 6_000));
    state.batch(3_000, &[delete(100)]).remove(0).unwrap();
    assert_eq!(until(&state), (3_000, 8_000));
    state.check();
    collect(&mut state, 7_999);
    assert!(life(&state, 100).is_some());
    collect(&mut state, 8_000);
    assert!(life(&state, 100).is_none());
}
