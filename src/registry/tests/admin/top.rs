//! What keeps the most: against what-if of each alone, and against deleting it; at its bounds.

use super::{
    super::{items::Item, machine::Machine, model::parse},
    blob, document, image, push,
    random::{NAMES, drop_now, registry},
};
use crate::{
    digest::Digest,
    journal::operation::Role,
    name::RepositoryName,
    registry::{
        Deletion, ManifestsWanted, Reference, Top, TopScope,
        manifest::OCI_MANIFEST,
        top::{self, BOUNDS, Bounds},
    },
    state::decide::find_repository,
};

fn names(machine: &Machine) -> Vec<RepositoryName> {
    let view = machine.registry().store().snapshot();
    NAMES.into_iter().map(parse).filter(|name| find_repository(&*view, name).unwrap().is_some()).collect()
}

fn digests(machine: &Machine, name: &RepositoryName) -> Vec<Digest> {
    let wanted = ManifestsWanted { limit: 1_000, ..ManifestsWanted::default() };
    machine.registry().manifests(name, &wanted).unwrap().items.into_iter().map(|info| info.digest).collect()
}

/// What the registry uses less without the repositories of an organisation.
fn really_freed(machine: &Machine, organisation: &str) -> u64 {
    let copy = machine.copy();
    let before = copy.registry().usage().unwrap().used_bytes;
    for name in names(&copy).into_iter().filter(|name| name.organisation() == organisation) {
        let all = digests(&copy, &name);
        for digest in &all {
            // One that is deleted already is unknown.
            drop(copy.registry().delete_manifest(&name, &Reference::Digest(*digest)));
        }
        drop_now(&copy, &name, &all);
    }
    before - copy.registry().usage().unwrap().used_bytes
}

/// The first figures are the largest, in falling order.
#[track_caller]
fn are_the_first(found: Vec<Option<u64>>, mut all: Vec<u64>, limit: usize) {
    all.sort_by_key(|freed| std::cmp::Reverse(*freed));
    all.truncate(limit);
    assert_eq!(found, all.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn those_that_keep_the_most_are_the_first_of_all_by_what_deleting_each_would_free() {
    for seed in 200..220 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = registry(&mut random);
        let told = machine.registry();
        let names = names(&machine);
        let freed =
            |name: &RepositoryName, deletion: Deletion| told.what_if(name, &deletion).unwrap().registry.freed_bytes;
        let mut organisations: Vec<&str> = names.iter().map(RepositoryName::organisation).collect();
        organisations.dedup();
        for limit in 1..4 {
            let top = told.top_organisations(limit).unwrap();
            assert!(top.complete);
            let all = organisations.iter().map(|name| really_freed(&machine, name)).collect();
            are_the_first(top.items.iter().map(|item| item.freed_bytes).collect(), all, limit);
            for organisation in &organisations {
                let top = told.top_repositories(organisation, limit).unwrap();
                assert!(top.complete);
                let here = names.iter().filter(|name| name.organisation() == *organisation);
                let all = here.map(|name| freed(name, Deletion::All)).collect();
                are_the_first(top.items.iter().map(|item| item.freed_bytes).collect(), all, limit);
            }
            for name in &names {
                let top = told.top_manifests(name, limit).unwrap();
                assert!(top.complete);
                let one = |digest: Digest| freed(name, Deletion::Digests(vec![digest]));
                for item in &top.items {
                    assert_eq!(item.freed_bytes, Some(one(item.info.digest)));
                }
                let all = digests(&machine, name).into_iter().map(one).collect();
                are_the_first(top.items.iter().map(|item| item.freed_bytes).collect(), all, limit);
            }
        }
    }
}

/// Two images of 3,000 and 10 bytes of their own, and 5,000 bytes that refer to the smaller one.
fn with_a_large_referrer() -> (Machine, Item) {
    let machine = Machine::new();
    let (config, large, small, report) = (blob(1, 2), blob(2, 3_000), blob(3, 10), blob(4, 5_000));
    let (first, second) = (image(&[&config, &large], 0), image(&[&config, &small], 1));
    push(machine.registry(), "a/x", &[&config, &large], &first, &["large"]);
    push(machine.registry(), "a/x", &[&small], &second, &["small"]);
    let referrer = document(OCI_MANIFEST, &[(Role::Config, &report)], Some(second.digest), 2);
    push(machine.registry(), "a/x", &[&report], &referrer, &[]);
    machine.settle();
    (machine, second)
}

#[test]
fn what_refers_to_a_manifest_counts_for_it_as_it_leaves_with_it() {
    let (machine, small) = with_a_large_referrer();
    let top = machine.registry().top_manifests(&parse("a/x"), 1).unwrap();
    let first = &top.items[0];
    assert_eq!((first.info.digest, first.freed_bytes, top.complete), (small.digest, Some(5_010), true));
    assert_eq!((first.info.image_bytes, first.info.reclaimable_bytes), (Some(12), Some(0)));
    assert_eq!(first.info.tags, ["small"]);
}

#[test]
fn what_two_repositories_of_an_organisation_use_is_freed_once_and_what_another_one_uses_is_not() {
    let machine = Machine::new();
    let told = machine.registry();
    let (both, elsewhere, one, two) = (blob(1, 1_000), blob(2, 300), blob(3, 20), blob(4, 5));
    push(told, "org/one", &[&both, &elsewhere, &one], &image(&[&both, &elsewhere, &one], 0), &["x"]);
    push(told, "org/two", &[&both, &elsewhere, &two], &image(&[&both, &elsewhere, &two], 1), &["x"]);
    push(told, "other/one", &[&elsewhere], &image(&[&elsewhere], 2), &["x"]);
    let freed = |top: Top<TopScope>| {
        assert!(top.complete);
        top.items.into_iter().map(|item| (item.name, item.freed_bytes)).collect::<Vec<_>>()
    };
    let is = |name: &str, bytes| (name.to_owned(), Some(bytes));
    assert_eq!(freed(told.top_organisations(9).unwrap()), [is("org", 1_025), is("other", 0)]);
    assert_eq!(freed(told.top_repositories("org", 9).unwrap()), [is("org/one", 20), is("org/two", 5)]);
    // Two repositories, and three rows of each.
    let view = told.store().snapshot();
    let within =
        |rows| top::top_organisations(&*view, 1, Bounds { rows, ..BOUNDS }).unwrap().items.remove(0).freed_bytes;
    assert_eq!([7, 8].map(within), [None, Some(1_025)]);
}

#[test]
fn beyond_its_bounds_it_says_that_others_may_keep_more() {
    let (machine, _) = with_a_large_referrer();
    let told = machine.registry();
    // Nothing of its own; three others with 100, 200, 300 bytes.
    for (at, name) in ["b/one", "b/two", "c/three"].into_iter().enumerate() {
        let own = blob(10 + at as u8, 100 * (at + 1));
        push(told, name, &[&own], &image(&[&own], 10 + at as u64), &["x"]);
    }
    let view = told.store().snapshot();
    let shown = |top: Top<TopScope>| {
        let items = top.items.into_iter().map(|item| (item.name, item.freed_bytes)).collect::<Vec<_>>();
        (items, top.complete)
    };
    let organisations = |limit, bounds| shown(top::top_organisations(&*view, limit, bounds).unwrap());
    let is = |name: &str, freed| (name.to_owned(), freed);
    let all = vec![is("a", Some(8_012)), is("b", Some(300)), is("c", Some(300))];
    assert_eq!(organisations(9, BOUNDS), (all.clone(), true));
    assert_eq!(organisations(0, BOUNDS), (Vec::new(), true));
    assert_eq!(
        organisations(1, Bounds { candidates: 1, ..BOUNDS }),
        (vec![is("a", Some(8_012))], true),
        "no more needed"
    );
    assert_eq!(organisations(2, Bounds { candidates: 1, ..BOUNDS }), (vec![is("a", Some(8_012))], false));
    assert_eq!(organisations(1, Bounds { looked_at: 2, ..BOUNDS }), (vec![is("a", Some(8_012))], false));
    // One is too large to be worked out: it may keep the most, and its place is by what it uses.
    let (items, complete) = organisations(9, Bounds { rows: 3, ..BOUNDS });
    assert_eq!((items[0].clone(), complete), (is("a", None), false));
    assert_eq!(organisations(1, Bounds { rows: 0, ..BOUNDS }), (vec![is("a", None)], false));
    let repositories = shown(top::top_repositories(&*view, "b", 1, BOUNDS).unwrap());
    assert_eq!(repositories, (vec![is("b/two", Some(200))], true));

    let manifests = |bounds| {
        let top = told.top_manifests_within(&parse("a/x"), 2, bounds).unwrap();
        (top.items.into_iter().map(|item| item.freed_bytes).collect::<Vec<_>>(), top.complete)
    };
    assert_eq!(manifests(BOUNDS), (vec![Some(5_010), Some(5_000)], true));
    assert_eq!(manifests(Bounds { digests: 0, ..BOUNDS }), (Vec::new(), false));
    assert_eq!(manifests(Bounds { rows: 1, ..BOUNDS }), (vec![None, None], false));
    let (items, complete) = manifests(Bounds { looked_at: 1, ..BOUNDS });
    assert_eq!((items.len(), complete), (1, false));
}
