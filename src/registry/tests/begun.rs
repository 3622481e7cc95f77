//! Manifests whose bytes the committer is given with the change that names them: what comes of both.

use std::{ops::ControlFlow, sync::mpsc};

use crate::{
    digest::Algorithm,
    disk::{
        Disk,
        sim::{Call, Failure},
    },
    index::schema::{Table, each_row_of},
    journal::operation::Role,
    name::Owner,
    policy::Policy,
    registry::{PushedManifest, Reference, RegistryError, manifest::OCI_MANIFEST},
    state::request::Request,
};

use super::{
    items::{Document, Item},
    machine::{End, IndexAfter, Machine},
    model::parse,
};

const NAME: &str = "team/app";

/// A machine whose repository has a blob, and a manifest that names it, of so many bytes at least.
fn machine(bytes: usize) -> (Machine, Item) {
    let machine = Machine::new();
    let config = Item::blob(Algorithm::Sha256, b"{}".to_vec());
    machine.registry().store().put(&parse(NAME), Algorithm::Sha256, &config.bytes).unwrap();
    (machine, manifest(&config, bytes))
}

fn manifest(config: &Item, bytes: usize) -> Item {
    let references = vec![(Role::Config, config.digest, config.len())];
    let document = Document { media_type: OCI_MANIFEST, references, subject: None, artifact_type: None };
    let short = Item::manifest(Algorithm::Sha256, document, 0);
    let text = [&short.bytes[..short.bytes.len() - 1], b",\"pad\":\"", &vec![b'.'; bytes], b"\"}"].concat();
    Item { document: short.document, ..Item::blob(Algorithm::Sha256, text) }
}

fn begin(machine: &Machine, name: &str, item: &Item) -> Result<PushedManifest, RegistryError> {
    let (tell, told) = mpsc::channel();
    let ended = move |pushed| tell.send(pushed).unwrap();
    let tag = "latest".parse().unwrap();
    machine.registry().begin_manifest(&parse(name), None, &[tag], Some(OCI_MANIFEST), &item.bytes, ended)?;
    told.recv().unwrap()
}

/// Bytes of all segments, and of those of records in them that are dead.
fn written(machine: &Machine) -> (u64, u64) {
    fn lengths(disk: &dyn Disk, directory: &str) -> u64 {
        let entries = disk.list(directory).unwrap();
        let len = |path: String, is_dir, len| if is_dir { lengths(disk, &path) } else { len };
        entries.into_iter().map(|entry| len(format!("{directory}/{}", entry.name), entry.is_dir, entry.len)).sum()
    }
    let mut dead = 0;
    each_row_of(&*machine.registry().store().snapshot(), Table::Dead, |_, _| {
        dead += 1;
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    (lengths(&machine.disk, "segments"), dead)
}

#[test]
fn what_was_begun_is_there_when_its_end_is_told_and_after_a_restart() {
    let (mut machine, manifest) = machine(3_000);
    assert_eq!(begin(&machine, NAME, &manifest).unwrap().digest, manifest.digest);
    for _ in 0..2 {
        let tag = Reference::Tag("latest".parse().unwrap());
        let read = machine.registry().read(|reads| reads.manifest(&parse(NAME), &tag)).unwrap();
        assert_eq!(read.bytes, manifest.bytes);
        machine.check();
        machine.end(End::PowerCut(1, IndexAfter::Lost));
        machine.open().unwrap();
    }
    let before = written(&machine);
    begin(&machine, NAME, &manifest).unwrap();
    assert_eq!(written(&machine), before, "it was there");
}

#[test]
fn what_may_need_room_under_a_cap_is_out_of_reach() {
    let (machine, manifest) = machine(10);
    let begun = begin(&machine, "team/new", &manifest);
    assert!(matches!(begun, Err(RegistryError::OutOfReach)), "{begun:?}: a policy may come to govern it");
    let cap =
        Policy { size_max_bytes: Some(1_000_000), ..Policy::new("cap".parse().unwrap(), "team/**".parse().unwrap()) };
    let request = Request::SetPolicy { policy: Box::new(cap), from_settings: false, confirmed: true };
    machine.registry().store().commit(request).unwrap();
    machine.settle();
    let begun = begin(&machine, NAME, &manifest);
    assert!(matches!(begun, Err(RegistryError::OutOfReach)), "{begun:?}");
}

#[test]
fn a_damaged_copy_is_replaced() {
    let (machine, manifest) = machine(3_000);
    let before = written(&machine);
    for times in 1..=2 {
        begin(&machine, NAME, &manifest).unwrap();
        assert!(written(&machine).0 > before.0 + times * 3_000, "{times}");
        assert!(!machine.registry().store().is_damaged(&manifest.digest));
        machine.registry().store().note_damage(&manifest.digest);
    }
    machine.check();
}

#[test]
fn what_is_refused_is_not_written_and_what_a_quota_refuses_is_erased() {
    let (machine, manifest) = machine(5_000);
    let before = written(&machine);
    let missing = self::manifest(&Item::blob(Algorithm::Sha256, b"not pushed".to_vec()), 5_000);
    let refused = begin(&machine, NAME, &missing);
    assert!(matches!(refused, Err(RegistryError::ManifestBlobUnknown { .. })), "{refused:?}");
    assert_eq!(written(&machine), before);

    let owner = Owner::Repository(parse(NAME));
    machine.registry().set_quota(&owner, Some(2_000)).unwrap();
    let refused = begin(&machine, NAME, &manifest);
    assert!(matches!(refused, Err(RegistryError::QuotaExceeded(_))), "{refused:?}");
    machine.registry().set_quota(&owner, None).unwrap();
    let (len, dead) = written(&machine);
    assert!(len > before.0 + 5_000 && dead == before.1 + 1, "{before:?}, {len} bytes and {dead} records since");
    begin(&machine, NAME, &manifest).unwrap();
    machine.check();
}

#[test]
fn a_full_disk_refuses_what_was_begun_and_leaves_nothing_of_it() {
    let (machine, manifest) = machine(5_000);
    machine.disk.set_capacity(Some(0));
    let refused = begin(&machine, NAME, &manifest);
    assert!(matches!(refused, Err(RegistryError::Full(_))), "{refused:?}");
    machine.disk.set_capacity(None);
    assert!(machine.registry().store().content(&manifest.digest).unwrap().is_none());
    begin(&machine, NAME, &manifest).unwrap();
    machine.check();
}

#[test]
fn a_sync_that_fails_is_told_to_who_waits() {
    for nth in 1..=2 {
        let (machine, manifest) = machine(5_000);
        machine.disk.fail(Call::SyncData, nth, Failure::Io);
        let failed = begin(&machine, NAME, &manifest);
        assert!(matches!(failed, Err(RegistryError::Unavailable(_))), "sync {nth}: {failed:?}");
        let later = begin(&machine, NAME, &manifest);
        assert!(matches!(later, Err(RegistryError::Unavailable(_))), "sync {nth}: {later:?}");
    }
}
