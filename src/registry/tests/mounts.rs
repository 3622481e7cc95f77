//! Mounts by callers who may not read everything.

use crate::{
    digest::{Algorithm, Digest},
    registry::{MOUNT_SOURCES_MAX, RegistryError},
};

use super::{machine::Machine, model::parse};

const CONTENT: &[u8] = b"a layer";

fn push(machine: &Machine, repository: &str) -> Digest {
    machine.registry().store().put(&parse(repository), Algorithm::Sha256, CONTENT).unwrap()
}

#[test]
fn a_mount_needs_the_right_to_read_the_source() {
    let machine = Machine::new();
    let digest = push(&machine, "secret/a");
    // Who may read what, the source that is named, whether the mount is done.
    let cases = [
        ("", None, false),
        ("", Some("secret/a"), false),
        ("public/a", None, false),
        ("public/a", Some("secret/a"), false),
        ("secret/a", Some("public/a"), false),
        ("secret/a", None, true),
        ("secret/a", Some("secret/a"), true),
    ];
    for (number, (readable, from, done)) in cases.into_iter().enumerate() {
        let target = parse(&format!("target/{number}"));
        let from = from.map(parse);
        let mounted = machine.registry().mount(&target, &digest, from.as_ref(), |name| name.as_str() == readable);
        assert_eq!(mounted.unwrap(), done, "{readable} {from:?}");
        let found = machine.registry().read(|reads| reads.blob_len(&target, &digest));
        assert_eq!(found.is_ok(), done, "{readable} {from:?}");
        assert!(done || matches!(found, Err(RegistryError::BlobUnknown { .. })));
        if done {
            machine.registry().delete_blob(&target, &digest).unwrap();
        }
    }
}

#[test]
fn a_mount_without_a_source_looks_at_a_bounded_number_of_them() {
    let machine = Machine::new();
    let names: Vec<String> = (0..=MOUNT_SOURCES_MAX).map(|n| format!("source/{n}")).collect();
    let digest = names.iter().fold(None, |_, name| Some(push(&machine, name))).unwrap();
    let mount = |readable: &str| {
        machine.registry().mount(&parse("target/a"), &digest, None, |name| name.as_str() == readable).unwrap()
    };
    assert!(!mount(&names[MOUNT_SOURCES_MAX]), "the one behind the last that is looked at");
    assert!(mount(&names[MOUNT_SOURCES_MAX - 1]));
}
