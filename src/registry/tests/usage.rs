//! Used bytes of known images: shared content counts once in every scope.

use crate::{
    digest::Algorithm,
    index::schema::{self, OrganisationNameRow, Scope, UsageRow, key},
    journal::operation::Role,
    registry::{Reference, manifest::OCI_MANIFEST},
    state::decide::find_repository,
};

use super::{
    items::{Document, Item},
    machine::Machine,
    model::parse,
};

/// 75 MB in three blobs, one byte for each kilobyte.
const IMAGE_BYTES: u64 = 75_000;

fn image() -> [Item; 4] {
    let blob = |fill: u8, len: usize| Item::blob(Algorithm::Sha256, vec![fill; len]);
    let (config, base, app) = (blob(1, 2_000), blob(2, 50_000), blob(3, 23_000));
    let references = [(Role::Config, &config), (Role::Layer, &base), (Role::Layer, &app)];
    let references = references.map(|(role, item)| (role, item.digest, item.len())).to_vec();
    let manifest = Document { media_type: OCI_MANIFEST, references, subject: None, artifact_type: None };
    let manifest = Item::manifest(Algorithm::Sha256, manifest, 0);
    [config, base, app, manifest]
}

fn push(machine: &Machine, items: &[Item], name: &str, tag: &str) {
    let (manifest, blobs) = items.split_last().unwrap();
    let repository = parse(name);
    for blob in blobs {
        machine.registry().store().put(&repository, Algorithm::Sha256, &blob.bytes).unwrap();
    }
    let tag = tag.parse().unwrap();
    machine.registry().put_manifest(&repository, None, &[tag], Some(OCI_MANIFEST), &manifest.bytes).unwrap();
}

fn check(machine: &Machine, cases: &[(&str, u64)]) {
    let view = machine.registry().store().snapshot();
    for &(of, used_bytes) in cases {
        let scope = match of {
            "registry" => Scope::Registry,
            _ if of.contains('/') => Scope::Repository(find_repository(&*view, &parse(of)).unwrap().unwrap()),
            _ => {
                let row: OrganisationNameRow = schema::expect(&*view, key::organisation_name(of)).unwrap();
                Scope::Organisation(row.organisation)
            }
        };
        let usage: UsageRow = schema::get(&*view, key::usage(scope)).unwrap().unwrap();
        assert_eq!(usage.used_bytes, used_bytes, "{of}");
    }
    machine.check();
}

#[test]
fn one_image_in_three_organisations_counts_once_in_each_scope() {
    let machine = Machine::new();
    let image = image();
    let pushes = [
        ("org1/image", "latest"),
        ("org2/image", "latest"),
        ("org2/image", "1.0"),
        ("org3/image", "latest"),
        ("org3/base", "latest"),
    ];
    pushes.iter().for_each(|(name, tag)| push(&machine, &image, name, tag));
    let scopes = ["registry", "org1", "org2", "org3", "org1/image", "org2/image", "org3/image", "org3/base"];
    check(&machine, &scopes.map(|scope| (scope, IMAGE_BYTES)));
}

#[test]
fn one_image_in_two_repositories_of_an_organisation_counts_once_there() {
    let machine = Machine::new();
    let image = image();
    push(&machine, &image, "org/one", "latest");
    push(&machine, &image, "org/two", "latest");
    check(&machine, &["registry", "org", "org/one", "org/two"].map(|scope| (scope, IMAGE_BYTES)));
}

/// A deleted manifest is held: what it names counts until it is dropped, but for blobs that are deleted themselves.
#[test]
fn a_blob_deleted_under_a_deleted_manifest_leaves_the_used_bytes() {
    let machine = Machine::new();
    let image = image();
    push(&machine, &image, "org/one", "latest");
    push(&machine, &image, "org/two", "latest");
    let manifest = Reference::Digest(image[3].digest);
    machine.registry().delete_manifest(&parse("org/one"), &manifest).unwrap();
    check(&machine, &[("org/one", 75_000), ("org", 75_000)]);
    machine.registry().delete_blob(&parse("org/one"), &image[1].digest).unwrap();
    check(&machine, &[("org/one", 25_000), ("org/two", 75_000), ("org", 75_000), ("registry", 75_000)]);
    machine.registry().delete_manifest(&parse("org/two"), &manifest).unwrap();
    machine.registry().delete_blob(&parse("org/two"), &image[1].digest).unwrap();
    check(&machine, &[("org/one", 25_000), ("org/two", 25_000), ("org", 25_000), ("registry", 25_000)]);
    push(&machine, &image, "org/one", "again");
    check(&machine, &[("org/one", 75_000), ("org/two", 25_000), ("org", 75_000), ("registry", 75_000)]);
}
