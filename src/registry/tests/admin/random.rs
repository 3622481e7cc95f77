//! A random registry: sizes and what is kept alone against sets over all rows, what-if against doing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use crate::{
    digest::{Algorithm, Digest},
    index::{
        View,
        schema::{self, Key, LinkRow, ManifestRow, NamedDigest, ReferencesRow, RowValue, Scope, Table, UsageRow, key},
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    registry::{
        Deletion, Gain, ManifestState, ManifestsWanted, Reference, Sparse,
        tests::{
            items::{self, Item},
            machine::Machine,
            model::parse,
        },
        usage,
    },
    state::{
        decide::find_repository,
        request::{Due, Refusal, Request},
    },
    store::StoreError,
};

pub(super) const NAMES: [&str; 4] = ["org/a", "org/b", "other/a", "solo"];
const TAGS: [&str; 4] = ["1.0", "latest", "a", "Z"];

/// Pushes, mounts and deletions of what hangs together in every way that indexes, subjects and shared blobs allow.
pub(super) fn registry(random: &mut fastrand::Rng) -> Machine {
    let machine = Machine::with(if random.bool() { Sparse::Any } else { Sparse::Index });
    let items = items::random(random);
    let blobs = items.iter().take_while(|item| item.document.is_none()).count();
    let registry = machine.registry();
    for _ in 0..random.usize(20..80) {
        let name = parse(NAMES[random.usize(..NAMES.len())]);
        let item = &items[random.usize(blobs..items.len())];
        let tag: Tag = TAGS[random.usize(..TAGS.len())].parse().unwrap();
        // What is refused, or not there, leaves the state as it was.
        match random.u8(..10) {
            0 => drop(registry.delete_manifest(&name, &Reference::Tag(tag))),
            1 => drop(registry.delete_manifest(&name, &Reference::Digest(item.digest))),
            _ => push(&machine, &items, &name, item, random.bool().then_some(tag), random),
        }
    }
    machine.settle();
    machine
}

fn push(
    machine: &Machine,
    items: &[Item],
    name: &RepositoryName,
    item: &Item,
    tag: Option<Tag>,
    random: &mut fastrand::Rng,
) {
    let document = item.document.as_ref().unwrap();
    for (role, digest, _) in &document.references {
        if role.is_blob() && random.u8(..8) > 0 {
            let item = items.iter().find(|item| item.digest == *digest).unwrap();
            machine.registry().store().put(name, digest.algorithm(), &item.bytes).unwrap();
        }
    }
    let tags: Vec<Tag> = tag.into_iter().collect();
    let pushed =
        machine.registry().put_manifest(name, Some(item.digest), &tags, Some(document.media_type), &item.bytes);
    drop(pushed);
}

/// All that a recount needs: manifests with what they name, by repository; and links.
#[derive(Default)]
struct World {
    manifests: BTreeMap<(RepositoryId, Digest), (ManifestRow, Vec<NamedDigest>)>,
    links: BTreeMap<(RepositoryId, Digest), u64>,
}

impl World {
    fn read(view: &dyn View) -> Self {
        let mut world = Self::default();
        schema::each_row_of(view, Table::Manifests, |key, value| {
            let row = ManifestRow::from_bytes(value)?;
            let (digest, _) = Digest::decode(&key[5..]).unwrap();
            let mut named = Vec::new();
            schema::each_row(view, &Key::of(Table::References).u64(row.manifest).bytes(), |_, value| {
                named.extend(ReferencesRow::from_bytes(value)?.references);
                Ok(ControlFlow::Continue(()))
            })?;
            let repository = u32::from_be_bytes(key[1..5].try_into().unwrap());
            world.manifests.insert((repository, digest), (row, named));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        schema::each_row_of(view, Table::Links, |key, value| {
            let (digest, repository) = Digest::decode(&key[1..]).unwrap();
            let repository = u32::from_be_bytes(repository[1..].try_into().unwrap());
            world.links.insert((repository, digest), LinkRow::from_bytes(value)?.size);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        world
    }

    fn blobs(&self, repository: RepositoryId, of: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        let named = of.iter().filter_map(|digest| self.manifests.get(&(repository, *digest)));
        named.flat_map(|(_, named)| named).filter(|named| named.is_blob()).map(|named| named.digest).collect()
    }

    fn bytes(&self, repository: RepositoryId, blobs: impl IntoIterator<Item = Digest>) -> u64 {
        blobs.into_iter().filter_map(|digest| self.links.get(&(repository, digest))).sum()
    }

    /// A manifest and all below it.
    fn below(&self, repository: RepositoryId, digest: Digest) -> BTreeSet<Digest> {
        let (mut below, mut open) = (BTreeSet::new(), vec![digest]);
        while let Some(digest) = open.pop() {
            if let Some((_, named)) = self.manifests.get(&(repository, digest))
                && below.insert(digest)
            {
                open.extend(named.iter().filter(|named| named.is_child()).map(|named| named.digest));
            }
        }
        below
    }

    /// A manifest and those below it that nothing else keeps: taken in until none is left to take.
    fn alone(&self, repository: RepositoryId, digest: Digest) -> BTreeSet<Digest> {
        let mut alone = BTreeSet::from([digest]);
        loop {
            let more = self.below(repository, digest).into_iter().find(|child| {
                let (row, _) = &self.manifests[&(repository, *child)];
                let mut namers = self.manifests.iter().filter(|((at, _), (_, named))| {
                    *at == repository && named.iter().any(|named| named.is_child() && named.digest == *child)
                });
                !alone.contains(child)
                    && row.tags == 0
                    && !row.root
                    && !row.attached
                    && namers.all(|((_, namer), _)| alone.contains(namer))
            });
            match more {
                Some(child) => alone.insert(child),
                None => return alone,
            };
        }
    }

    fn own_bytes(&self, repository: RepositoryId, digest: Digest) -> u64 {
        let alone = self.alone(repository, digest);
        let elsewhere = |blob: &Digest| {
            self.manifests.iter().any(|((at, manifest), (_, named))| {
                !(*at == repository && alone.contains(manifest))
                    && self.links.contains_key(&(*at, *blob))
                    && named.iter().any(|named| named.is_blob() && named.digest == *blob)
            })
        };
        let own: Vec<Digest> = self.blobs(repository, &alone).into_iter().filter(|blob| !elsewhere(blob)).collect();
        self.bytes(repository, own)
    }
}

#[test]
fn sizes_of_images_and_what_they_keep_alone_are_what_a_recount_finds() {
    for seed in 0..60 {
        println!("seed {seed}");
        let machine = registry(&mut fastrand::Rng::with_seed(seed));
        let view = machine.registry().store().snapshot();
        let world = World::read(&*view);
        for name in NAMES.map(parse) {
            let Some(id) = find_repository(&*view, &name).unwrap() else { continue };
            let wanted = ManifestsWanted { own: true, limit: 1_000, ..ManifestsWanted::default() };
            let found = machine.registry().manifests(&name, &wanted).unwrap().items;
            assert_eq!(found.len(), world.manifests.keys().filter(|(at, _)| *at == id).count());
            for info in found {
                let all = world.bytes(id, world.blobs(id, &world.below(id, info.digest)));
                let own = world.own_bytes(id, info.digest);
                assert_eq!((info.image_bytes, info.own_bytes), (Some(all), Some(own)), "{name} {}", info.digest);
            }
        }
    }
}

/// Ends the windows of manifests and drops those of them that nothing else keeps.
pub(super) fn drop_now(machine: &Machine, name: &RepositoryName, digests: &[Digest]) {
    let store = machine.registry().store();
    machine.settle();
    let repository = find_repository(&*store.snapshot(), name).unwrap().unwrap();
    store.commit(Request::EndWindows { repository, digests: digests.to_vec() }).unwrap();
    loop {
        let mut dropped = false;
        for &digest in digests {
            match store.commit(Request::Drop { due: Due::Manifest { repository, digest }, window_ms: 0 }) {
                Ok(_) => dropped = true,
                Err(StoreError::Refused(Refusal::NotDue)) => {}
                Err(error) => panic!("{error}"),
            }
            machine.settle();
        }
        if !dropped {
            return;
        }
    }
}

fn live(machine: &Machine, name: &RepositoryName) -> BTreeSet<Digest> {
    let wanted = ManifestsWanted { limit: 1_000, ..ManifestsWanted::default() };
    let found = machine.registry().manifests(name, &wanted).unwrap().items;
    found.into_iter().filter(|info| info.state == ManifestState::Live).map(|info| info.digest).collect()
}

fn totals(machine: &Machine, name: &RepositoryName) -> [UsageRow; 3] {
    let view = machine.registry().store().snapshot();
    let repository = find_repository(&*view, name).unwrap().unwrap();
    let organisation = usage::organisation_id(&*view, name.organisation()).unwrap();
    [Scope::Repository(repository), Scope::Organisation(organisation), Scope::Registry]
        .map(|scope| schema::get(&*view, key::usage(scope)).unwrap().unwrap_or_default())
}

/// Does the deletion in a copy, lets it be dropped, and says what it gave: gains, manifests that left, that were dropped.
fn really(machine: &Machine, name: &RepositoryName, deletion: &Deletion) -> ([Gain; 3], u64, u64) {
    let copy = machine.copy();
    copy.settle();
    let registry = copy.registry();
    let (before, lived) = (totals(&copy, name), live(&copy, name));
    let wanted = ManifestsWanted { limit: 1_000, ..ManifestsWanted::default() };
    let all: Vec<Digest> = registry.manifests(name, &wanted).unwrap().items.iter().map(|info| info.digest).collect();
    let (tags, digests) = match deletion {
        Deletion::All => (Vec::new(), all),
        Deletion::Tags(tags) => (tags.clone(), Vec::new()),
        Deletion::Digests(digests) => (Vec::new(), digests.clone()),
    };
    for tag in tags {
        registry.delete_manifest(name, &Reference::Tag(tag)).unwrap();
    }
    for digest in &digests {
        // One that is deleted already is unknown.
        drop(registry.delete_manifest(name, &Reference::Digest(*digest)));
    }
    copy.settle();
    let (deleted, lives) = (totals(&copy, name), live(&copy, name));
    let doomed: BTreeSet<Digest> = lived.difference(&lives).copied().chain(digests).collect();
    let doomed: Vec<Digest> = doomed.into_iter().collect();
    let count = |copy: &Machine| copy.registry().manifests(name, &wanted).unwrap().items.len() as u64;
    let there = count(&copy);
    drop_now(&copy, name, &doomed);
    let ended = totals(&copy, name);
    let gains = [0, 1, 2].map(|at| Gain {
        reclaimable_bytes: deleted[at].reclaimable_bytes - before[at].reclaimable_bytes,
        freed_bytes: before[at].used_bytes - ended[at].used_bytes,
        manifest_bytes: before[at].manifest_bytes - ended[at].manifest_bytes,
    });
    (gains, lived.difference(&lives).count() as u64, there - count(&copy))
}

fn deletions(machine: &Machine, name: &RepositoryName, random: &mut fastrand::Rng) -> Vec<Deletion> {
    let wanted = ManifestsWanted { limit: 1_000, ..ManifestsWanted::default() };
    let found = machine.registry().manifests(name, &wanted).unwrap().items;
    let tags: Vec<Tag> = machine
        .registry()
        .read(|reads| reads.tags(name, None, 100))
        .unwrap()
        .names
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let one = found.get(random.usize(..found.len().max(1))).map(|info| vec![info.digest]);
    let some = found.iter().filter(|_| random.bool()).map(|info| info.digest).collect();
    let mut deletions = vec![Deletion::All, Deletion::Digests(some)];
    deletions.extend(one.map(Deletion::Digests));
    deletions.push(Deletion::Tags(tags.iter().filter(|_| random.bool()).cloned().collect()));
    deletions.push(Deletion::Tags(tags));
    deletions
}

#[test]
fn what_if_tells_what_deleting_really_gives() {
    for seed in 100..130 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = registry(&mut random);
        let name = parse(NAMES[random.usize(..NAMES.len())]);
        if find_repository(&*machine.registry().store().snapshot(), &name).unwrap().is_none() {
            continue;
        }
        for deletion in deletions(&machine, &name, &mut random) {
            let told = machine.registry().what_if(&name, &deletion).unwrap();
            let (gains, leave, dropped) = really(&machine, &name, &deletion);
            assert_eq!([told.repository, told.organisation, told.registry], gains, "{name} {deletion:?}");
            assert_eq!((told.leave, told.dropped), (leave, dropped), "{name} {deletion:?}");
        }
        machine.check();
    }
}

#[test]
fn a_repository_without_manifests_has_nothing_to_give() {
    let machine = Machine::new();
    let name = parse("org/a");
    machine.registry().store().put(&name, Algorithm::Sha256, b"unnamed").unwrap();
    let told = machine.registry().what_if(&name, &Deletion::All).unwrap();
    assert_eq!([told.repository, told.organisation, told.registry], [Gain::default(); 3]);
    assert_eq!((told.leave, told.dropped), (0, 0));
}
