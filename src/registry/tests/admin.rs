//! What operators ask: usage, listings, history, restoring, what-if, whereabouts, keepers.
//!
//! - `top`: what keeps the most, also at the bounds of the answer.
//! - `random`: answers about a random registry against sums over all of its rows, and against what really happens.

use crate::{
    digest::{Algorithm, Digest},
    journal::operation::Role,
    name::Tag,
    registry::{
        Deletion, Keeper, ManifestState, ManifestsWanted, Reference, Registry, RegistryError, Sought,
        WhereaboutsWanted,
        manifest::{OCI_INDEX, OCI_MANIFEST},
    },
};

use super::{
    items::{Document, Item},
    machine::Machine,
    model::parse,
};

mod random;
mod top;

fn blob(fill: u8, len: usize) -> Item {
    Item::blob(Algorithm::Sha256, vec![fill; len])
}

fn document(media_type: &'static str, references: &[(Role, &Item)], subject: Option<Digest>, salt: u64) -> Item {
    let references = references.iter().map(|(role, item)| (*role, item.digest, item.len())).collect();
    let document = Document { media_type, references, subject, artifact_type: None };
    Item::manifest(Algorithm::Sha256, document, salt)
}

fn image(blobs: &[&Item], salt: u64) -> Item {
    let references: Vec<(Role, &Item)> =
        blobs.iter().enumerate().map(|(at, blob)| (if at == 0 { Role::Config } else { Role::Layer }, *blob)).collect();
    document(OCI_MANIFEST, &references, None, salt)
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// Pushes blobs, and a manifest by tags, or by digest where there is none.
fn push(registry: &Registry, name: &str, blobs: &[&Item], manifest: &Item, tags: &[&str]) {
    let repository = parse(name);
    for blob in blobs {
        registry.store().put(&repository, Algorithm::Sha256, &blob.bytes).unwrap();
    }
    let tags: Vec<Tag> = tags.iter().map(|text| tag(text)).collect();
    let media_type = manifest.document.as_ref().unwrap().media_type;
    registry.put_manifest(&repository, Some(manifest.digest), &tags, Some(media_type), &manifest.bytes).unwrap();
}

fn untag(machine: &Machine, name: &str, text: &str) {
    machine.registry().delete_manifest(&parse(name), &Reference::Tag(tag(text))).unwrap();
    machine.settle();
}

fn manifests(registry: &Registry, name: &str) -> Vec<super::super::ManifestInfo> {
    let wanted = ManifestsWanted { own: true, limit: 1_000, ..ManifestsWanted::default() };
    let list = registry.manifests(&parse(name), &wanted).unwrap();
    assert_eq!(list.next, None);
    list.items
}

fn manifest(registry: &Registry, name: &str, digest: &Digest) -> super::super::ManifestInfo {
    manifests(registry, name).into_iter().find(|info| info.digest == *digest).unwrap()
}

/// The reference case of usage: a 75 MB image, one byte for each kilobyte.
fn reference_case() -> (Machine, [Item; 3], Item) {
    let machine = Machine::new();
    let blobs = [blob(1, 2_000), blob(2, 50_000), blob(3, 23_000)];
    let all: Vec<&Item> = blobs.iter().collect();
    let manifest = image(&all, 0);
    for (name, text) in [
        ("org1/image", "latest"),
        ("org2/image", "latest"),
        ("org2/image", "1.0"),
        ("org3/image", "latest"),
        ("org3/base", "latest"),
    ] {
        push(machine.registry(), name, &all, &manifest, &[text]);
    }
    (machine, blobs, manifest)
}

#[test]
fn one_image_in_three_organisations_is_75_mb_in_the_registry_and_in_every_part() {
    let (machine, _, manifest) = reference_case();
    let registry = machine.registry();
    let whole = registry.usage().unwrap();
    assert_eq!((whole.used_bytes, whole.organisations, whole.repositories), (75_000, 3, 4));
    assert_eq!((whole.tags, whole.manifests, whole.blobs), (5, 1, 3));
    assert_eq!((whole.manifest_bytes, whole.reclaimable_bytes), (manifest.len(), 0));
    for name in ["org1", "org2", "org3"] {
        assert_eq!(registry.organisation_usage(name).unwrap().totals.used_bytes, 75_000, "{name}");
    }
    for name in ["org1/image", "org2/image", "org3/image", "org3/base"] {
        assert_eq!(registry.repository_usage(&parse(name)).unwrap().totals.used_bytes, 75_000, "{name}");
        let info = manifest_of(registry, name, &manifest);
        assert_eq!((info.image_bytes, info.own_bytes), (Some(75_000), Some(0)), "{name}");
    }
    machine.check();
}

fn manifest_of(registry: &Registry, name: &str, item: &Item) -> super::super::ManifestInfo {
    manifest(registry, name, &item.digest)
}

#[test]
fn two_repositories_of_one_organisation_count_once_there_and_the_last_copy_is_what_frees() {
    let machine = Machine::new();
    let registry = machine.registry();
    let blobs = [blob(1, 2_000), blob(2, 50_000), blob(3, 23_000)];
    let all: Vec<&Item> = blobs.iter().collect();
    let manifest = image(&all, 0);
    push(registry, "org/one", &all, &manifest, &["latest"]);
    push(registry, "org/two", &all, &manifest, &["latest"]);
    assert_eq!(registry.organisation_usage("org").unwrap().totals.used_bytes, 75_000);
    assert_eq!(registry.usage().unwrap().used_bytes, 75_000);

    let gains = |deletion: &Deletion| {
        let gains = machine.registry().what_if(&parse("org/one"), deletion).unwrap();
        [gains.repository, gains.organisation, gains.registry].map(|gain| (gain.reclaimable_bytes, gain.freed_bytes))
    };
    let ways = [Deletion::All, Deletion::Tags(vec![tag("latest")]), Deletion::Digests(vec![manifest.digest])];
    for way in &ways {
        assert_eq!(gains(way), [(75_000, 75_000), (0, 0), (0, 0)], "{way:?}");
    }
    untag(&machine, "org/two", "latest");
    // The other copy is held: deleting this one makes all of it reclaimable, and the held one keeps it.
    for way in &ways {
        assert_eq!(gains(way), [(75_000, 75_000), (75_000, 0), (75_000, 0)], "{way:?}");
    }
}

#[test]
fn a_tag_that_remains_and_an_index_that_names_it_keep_a_manifest() {
    let machine = Machine::new();
    let registry = machine.registry();
    let (config, layer, other) = (blob(1, 10), blob(2, 3_000), blob(3, 500));
    let (first, second) = (image(&[&config, &layer], 0), image(&[&config, &other], 1));
    push(registry, "a/x", &[&config, &layer], &first, &["one", "two"]);
    push(registry, "a/x", &[&other], &second, &[]);
    let index = document(OCI_INDEX, &[(Role::Child, &first), (Role::Child, &second)], None, 2);
    push(registry, "a/x", &[], &index, &["all"]);
    let signature = document(OCI_MANIFEST, &[(Role::Config, &config)], Some(index.digest), 3);
    push(registry, "a/x", &[], &signature, &[]);
    machine.settle();

    let what_if = |deletion: Deletion| machine.registry().what_if(&parse("a/x"), &deletion).unwrap();
    let one = what_if(Deletion::Tags(vec![tag("one")]));
    assert_eq!((one.leave, one.registry.reclaimable_bytes, one.stays[0].kept_by), (0, 0, "tag"));
    let both = what_if(Deletion::Tags(vec![tag("one"), tag("two"), tag("one")]));
    assert_eq!((both.leave, both.stays.len(), both.stays[0].kept_by), (0, 2, "index"));
    let whole = what_if(Deletion::Tags(vec![tag("all")]));
    assert_eq!((whole.leave, whole.dropped, whole.registry.freed_bytes), (3, 3, 500), "index, child, signature");
    let child = what_if(Deletion::Digests(vec![first.digest]));
    assert_eq!((child.leave, child.dropped), (1, 0));
    assert_eq!((child.registry.reclaimable_bytes, child.registry.freed_bytes), (3_000, 0));
    assert_eq!((child.stays[0].digest, child.stays[0].kept_by), (first.digest, "index"));
    let all = what_if(Deletion::All);
    assert_eq!((all.leave, all.dropped, all.registry.freed_bytes), (4, 4, 3_510));

    let index = manifest_of(registry, "a/x", &index);
    assert_eq!((index.image_bytes, index.own_bytes), (Some(3_510), Some(500)));
    assert_eq!(registry.usage().unwrap().reclaimable_bytes, 0, "nothing was changed");
}

#[test]
fn what_is_not_there_is_named() {
    let (machine, blobs, manifest) = reference_case();
    let registry = machine.registry();
    let absent = parse("no/thing");
    let wanted = ManifestsWanted { limit: 1, ..ManifestsWanted::default() };
    assert!(matches!(registry.organisation_usage("no"), Err(RegistryError::OrganisationUnknown(name)) if name == "no"));
    assert!(matches!(registry.repository_usages(Some("no"), None, 9), Err(RegistryError::OrganisationUnknown(_))));
    for error in [
        registry.repository_usage(&absent).unwrap_err(),
        registry.manifests(&absent, &wanted).unwrap_err(),
        registry.history(&absent, None, None, 9).unwrap_err(),
        registry.what_if(&absent, &Deletion::All).unwrap_err(),
        registry.restore(&absent, &manifest.digest, None).unwrap_err(),
        registry.keepers(&Sought::Reference(absent.clone(), Reference::Tag(tag("x")))).unwrap_err(),
    ] {
        assert!(matches!(&error, RegistryError::NameUnknown(name) if *name == absent), "{error}");
    }
    let name = parse("org1/image");
    let alone = ManifestsWanted { digest: Some(blobs[0].digest), limit: 1, ..ManifestsWanted::default() };
    for (error, named) in [
        (registry.manifests(&name, &alone).unwrap_err(), blobs[0].digest.to_string()),
        (registry.history(&name, Some(&tag("x")), None, 9).unwrap_err(), "x".to_owned()),
        (registry.what_if(&name, &Deletion::Tags(vec![tag("x")])).unwrap_err(), "x".to_owned()),
        (registry.what_if(&name, &Deletion::Digests(vec![blobs[0].digest])).unwrap_err(), blobs[0].digest.to_string()),
        (registry.restore(&name, &blobs[0].digest, None).unwrap_err(), blobs[0].digest.to_string()),
    ] {
        assert!(matches!(&error, RegistryError::ManifestUnknown { reference, .. } if *reference == named), "{error}");
    }
    let unknown = Digest::of(Algorithm::Sha512, b"unknown");
    let wanted = WhereaboutsWanted { digest: unknown, repository: None, after: None, limit: 9 };
    assert!(matches!(registry.whereabouts(&wanted), Err(RegistryError::DigestUnknown(digest)) if digest == unknown));
    let sought = Sought::Digest(unknown, None);
    assert!(matches!(registry.keepers(&sought), Err(RegistryError::DigestUnknown(digest)) if digest == unknown));
}

#[test]
fn pages_of_every_list_lead_to_its_end() {
    let machine = Machine::new();
    let registry = machine.registry();
    let config = blob(1, 10);
    let names = ["a/x", "a/y/z", "a-b/x", "a", "b", "c/x", "d", "dd/e", "z"];
    for (salt, name) in names.iter().enumerate() {
        for more in 0..3 {
            let manifest = image(&[&config], (salt * 10 + more) as u64);
            push(registry, name, &[&config], &manifest, &["latest", "other"]);
        }
    }
    let repositories = |organisation: Option<&str>| {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let list = registry.repository_usages(organisation, after.as_deref(), 2).unwrap();
            assert!(list.items.len() <= 2);
            found.extend(list.items.iter().map(|usage| usage.name.to_string()));
            after = list.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(repositories(None), sorted);
    assert_eq!(repositories(Some("_")), ["a", "b", "d", "z"]);
    assert_eq!(repositories(Some("a")), ["a/x", "a/y/z"]);
    let first = registry.organisations(None, 4).unwrap();
    let rest = registry.organisations(first.next.as_deref(), 4).unwrap();
    let found: Vec<&str> = first.items.iter().chain(&rest.items).map(|usage| usage.name.as_str()).collect();
    assert_eq!((found, rest.next), (vec!["_", "a", "a-b", "c", "dd"], None));

    let (mut digests, mut after) = (Vec::new(), None);
    loop {
        let wanted = ManifestsWanted { after, limit: 2, ..ManifestsWanted::default() };
        let list = registry.manifests(&parse("b"), &wanted).unwrap();
        digests.extend(list.items.iter().map(|info| info.digest));
        after = list.next;
        if after.is_none() {
            break;
        }
    }
    assert!(digests.len() == 3 && digests.is_sorted());
    for (tagged, expected) in [(None, 6), (Some(tag("latest")), 3)] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let list = registry.history(&parse("b"), tagged.as_ref(), after.as_ref(), 2).unwrap();
            found.extend(list.items.into_iter().map(|entry| (entry.tag, entry.time_ms, entry.until_ms.is_none())));
            after = list.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), expected);
        assert!(found.is_sorted_by(|a, b| (&a.0, a.1) <= (&b.0, b.1)));
        assert_eq!(found.iter().filter(|(_, _, is_present)| *is_present).count(), expected / 3);
    }
    let (mut links, mut after) = (0, None);
    loop {
        let wanted = WhereaboutsWanted { digest: config.digest, repository: None, after, limit: 2 };
        let found = registry.whereabouts(&wanted).unwrap();
        links += found.links.len();
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(links, names.len());
}

#[test]
fn what_was_held_or_deleted_is_told_and_comes_back() {
    let (machine, _, manifest) = reference_case();
    let (registry, name) = (machine.registry(), parse("org1/image"));
    untag(&machine, "org1/image", "latest");
    let held = manifest_of(registry, "org1/image", &manifest);
    assert_eq!(held.state, ManifestState::Held);
    assert!(held.held_until_ms.unwrap() > held.row.left_ms && held.tags.is_empty());
    let history = registry.history(&name, None, None, 9).unwrap().items;
    assert_eq!(history.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [Some(manifest.digest), None]);
    assert_eq!(history[0].state, Some(ManifestState::Held));
    assert_eq!(registry.repository_usage(&name).unwrap().totals.reclaimable_bytes, 75_000);

    assert_eq!(registry.restore(&name, &manifest.digest, Some(&tag("back"))).unwrap(), ManifestState::Live);
    machine.settle();
    assert_eq!(manifest_of(registry, "org1/image", &manifest).tags, ["back"]);
    assert_eq!(registry.repository_usage(&name).unwrap().totals.reclaimable_bytes, 0);
    registry.delete_manifest(&name, &Reference::Digest(manifest.digest)).unwrap();
    assert_eq!(manifest_of(registry, "org1/image", &manifest).state, ManifestState::Deleted);
    registry.restore(&name, &manifest.digest, None).unwrap();
    let back = manifest_of(registry, "org1/image", &manifest);
    assert!(back.state == ManifestState::Live && back.row.root && back.held_until_ms.is_none());

    registry.delete_manifest(&name, &Reference::Digest(manifest.digest)).unwrap();
    random::drop_now(&machine, &name, &[manifest.digest]);
    let error = registry.restore(&name, &manifest.digest, None).unwrap_err();
    assert!(matches!(error, RegistryError::Dropped { time_ms, .. } if time_ms > 0), "{error}");
    let wanted = WhereaboutsWanted { digest: manifest.digest, repository: Some(name), after: None, limit: 9 };
    let found = registry.whereabouts(&wanted).unwrap();
    assert!(found.stored.is_some() && !found.drops[0].last, "other repositories have it");
    assert!(found.manifest_in.is_empty() && found.named_by.is_empty());
}

#[test]
fn content_tells_where_it_is_and_the_chains_that_keep_it() {
    let (machine, blobs, first) = reference_case();
    let registry = machine.registry();
    let lonely = blob(9, 77);
    registry.store().put(&parse("org1/image"), Algorithm::Sha256, &lonely.bytes).unwrap();
    let index = document(OCI_INDEX, &[(Role::Child, &first)], None, 5);
    push(registry, "org2/image", &[], &index, &["all"]);

    let wanted = WhereaboutsWanted { digest: blobs[1].digest, repository: None, after: None, limit: 9 };
    let found = registry.whereabouts(&wanted).unwrap();
    assert_eq!(found.stored.map(|row| row.size), Some(50_000));
    let linked: Vec<(&str, u64, Option<u64>)> =
        found.links.iter().map(|link| (link.repository.as_str(), link.live, link.due_ms)).collect();
    assert_eq!(linked, ["org1/image", "org2/image", "org3/image", "org3/base"].map(|name| (name, 1, None)));
    assert_eq!(found.named_by.len(), 4);
    assert!(found.named_by.iter().all(|naming| naming.digest == first.digest && naming.roles == [Role::Layer]));
    let wanted = WhereaboutsWanted { digest: first.digest, ..wanted };
    let owners = registry.whereabouts(&wanted).unwrap().manifest_in;
    let mut owners: Vec<&str> = owners.iter().map(|owning| owning.repository.as_str()).collect();
    owners.sort_unstable();
    assert_eq!(owners, ["org1/image", "org2/image", "org3/base", "org3/image"]);

    let keepers = registry.keepers(&Sought::Digest(blobs[1].digest, Some(parse("org2/image")))).unwrap();
    let told: Vec<(Vec<Digest>, &Keeper)> = keepers
        .chains
        .iter()
        .map(|chain| (chain.path.iter().map(|link| link.digest).collect(), &chain.keeper))
        .collect();
    let [one, all] = ["1.0", "all"].map(|tag| Keeper::Tag(tag.to_owned()));
    let (short, long) = (vec![blobs[1].digest, first.digest], vec![blobs[1].digest, first.digest, index.digest]);
    assert_eq!(told, [(short, &one), (long, &all)]);
    let kept_as: Vec<_> = keepers.chains[1].path.iter().map(|link| link.kept_as).collect();
    assert_eq!(kept_as, [Some("layer"), Some("child"), None]);
    assert_eq!(registry.keepers(&Sought::Digest(blobs[1].digest, None)).unwrap().chains.len(), 5);
    let sought = Sought::Reference(parse("org2/image"), Reference::Tag(tag("all")));
    assert_eq!(registry.keepers(&sought).unwrap().chains.len(), 1);
    let grace = registry.keepers(&Sought::Digest(lonely.digest, None)).unwrap();
    assert!(matches!(grace.chains[0].keeper, Keeper::Grace(until_ms) if until_ms > 0));
}
