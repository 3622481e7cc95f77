//! Bytes of operations and local records: pinned, round trips, refusals.

use super::*;
use crate::{
    digest::Algorithm,
    location::{Location, RecordKind, SegmentNumber},
};

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn policy() -> Policy {
    let mut policy = Policy::new("ci".parse().unwrap(), "ci/**".parse().unwrap());
    (policy.keep_newest, policy.older_than_ms, policy.never_tagged_for_ms) = (Some(3), Some(86_400_000), Some(7_000));
    policy
}

fn operations() -> Vec<Operation> {
    let content = ManifestContent {
        size: 700,
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        artifact_type: Some("application/example".into()),
        subject: Some(digest("subject")),
        references: vec![
            NamedReference { role: Role::Config, digest: digest("config"), size: 2 },
            NamedReference { role: Role::Layer, digest: digest("layer"), size: 1 << 40 },
        ],
    };
    let tags = vec!["latest".parse().unwrap(), "1.0".parse().unwrap()];
    vec![
        Operation::Intern { organisation: 1, repository: 2, name: "team/app".parse().unwrap() },
        Operation::Link { repository: 2, digest: digest("layer"), size: 9, mounted_from: Some(1), due_ms: 77 },
        Operation::Unlink { repository: 2, digest: digest("layer") },
        Operation::Push {
            repository: 2,
            manifest: 3,
            digest: digest("manifest"),
            content: Some(Box::new(content)),
            tags: tags.clone(),
            held_until_ms: 99,
        },
        Operation::Untag { repository: 2, tags, held_until_ms: 99 },
        Operation::Delete { repository: 2, manifest: 3, digest: digest("manifest"), held_until_ms: 99 },
    ]
}

fn local_records() -> Vec<LocalRecord> {
    let location = Location { segment: SegmentNumber(4), offset: 64 };
    let (session, repository) = ([7; 16], "team/app".parse().unwrap());
    vec![
        LocalRecord::Placed {
            digest: digest("layer"),
            kind: RecordKind::Blob,
            single: false,
            location,
            len: 5,
            record_len: 128,
        },
        LocalRecord::Sealed { segment: SegmentNumber(4), len: 4096 },
        LocalRecord::UploadMarked { session, repository, segment: SegmentNumber(5), bytes: 1 << 20 },
        LocalRecord::UploadEnded { session },
    ]
}

#[test]
fn every_kind_round_trips_and_every_cut_is_refused() {
    for operation in operations() {
        let bytes = operation.encode();
        assert_eq!(Operation::decode(&bytes), Ok(operation));
        (0..bytes.len()).for_each(|len| assert!(Operation::decode(&bytes[..len]).is_err()));
    }
    for record in local_records() {
        let bytes = record.encode();
        assert_eq!(LocalRecord::decode(&bytes), Ok(record));
        (0..bytes.len()).for_each(|len| assert!(LocalRecord::decode(&bytes[..len]).is_err()));
    }
}

/// The digest over all kinds' bytes pins the format; a change here is a change of FORMAT.md and CHANGELOG.md.
#[test]
fn bytes_of_version_1_are_pinned() {
    let operations: Vec<u8> = operations().iter().flat_map(Operation::encode).collect();
    let records: Vec<u8> = local_records().iter().flat_map(LocalRecord::encode).collect();
    let link = Operation::Unlink { repository: 2, digest: digest("layer") }.encode();
    assert_eq!(&link[..7], [UNLINK, VERSION, 2, 0, 0, 0, 1]);
    assert_eq!((operations.len(), records.len()), (488, 151));
    assert_eq!(
        Digest::of(Algorithm::Sha256, &operations).to_string(),
        "sha256:45c3f09b15c5e1bccf139d3c32ff7bb4aa251ec19a6372bccf0426750e46d09f"
    );
    assert_eq!(
        Digest::of(Algorithm::Sha256, &records).to_string(),
        "sha256:53be1a94c98e7a7b0efae1b1a1b83ebb36ed90f7b4ea76034714173fe78fb6c5"
    );
}

/// Kinds that came later than those whose bytes are pinned together.
#[test]
fn later_kinds_round_trip_and_every_cut_is_refused() {
    let (from, to) =
        (Location { segment: SegmentNumber(4), offset: 64 }, Location { segment: SegmentNumber(5), offset: 96 });
    let report = LocalRecord::Reported { number: 7, summary: "{}".into(), items: "[1]".into() };
    let records = [
        LocalRecord::Moved { digest: digest("layer"), from, to },
        LocalRecord::Discarded { location: from, record_len: 96 },
        LocalRecord::Erased { records: vec![from, to] },
        LocalRecord::SegmentRemoved { segment: SegmentNumber(4) },
        LocalRecord::Renewed { repository: 2, digest: digest("layer"), due_ms: 77 },
        report,
        LocalRecord::Pulled { repository: 2, pulled_ms: 77, digests: vec![digest("layer"), digest("config")] },
    ];
    let pulled = LocalRecord::Pulled { repository: 2, pulled_ms: 77, digests: Vec::new() };
    assert_eq!(pulled.encode(), [12, VERSION, 2, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let pauses = Pausable::ALL.map(|what| LocalRecord::Paused { what, until_ms: u64::MAX });
    assert_eq!(pauses[1].encode(), [&[11, VERSION, 2][..], &[255; 8]].concat());
    for record in pauses.into_iter().chain(records) {
        let bytes = record.encode();
        assert_eq!(LocalRecord::decode(&bytes), Ok(record));
        (0..bytes.len()).for_each(|len| assert!(LocalRecord::decode(&bytes[..len]).is_err()));
    }
    assert_eq!(LocalRecord::decode(&[11, 1, 9]).unwrap_err().field, "what is paused");
    let (repository, manifest, digest) = (2, 3, digest("manifest"));
    let operations = [
        Operation::Restore { repository, manifest, digest, tag: Some("v1".parse().unwrap()), held_until_ms: 99 },
        Operation::Settle { held_until_ms: 99, from: 5 },
        Operation::EndWindows { repository, digests: vec![digest, digest] },
        Operation::DropLink { repository, digest },
        Operation::DropManifest { repository, manifest, digest, held_until_ms: 99 },
        Operation::DropHistory { repository, entries: vec![("v1".parse().unwrap(), 5, 77)] },
        Operation::DropRepository { repository },
        Operation::ForgetDrops { lsns: vec![1, 2] },
        Operation::SetQuota { owner: "r:team/app".parse().unwrap(), limit_bytes: Some(7) },
        Operation::SetQuota { owner: "o:_".parse().unwrap(), limit_bytes: None },
        Operation::SetPolicy { policy: Box::new(policy()), from_settings: true, confirmed: false },
        Operation::RemovePolicy { name: "ci".parse().unwrap() },
        Operation::Review,
        Operation::KeepTags { repository, tags: vec![("v1".parse().unwrap(), 77)] },
        Operation::RootLater { repository, digest },
    ];
    assert_eq!(operations[11].encode(), [REMOVE_POLICY, VERSION, 2, 0, 0, 0, b'c', b'i']);
    assert_eq!(operations[12].encode(), [REVIEW, VERSION]);
    let kept = [KEEP_TAGS, VERSION, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, b'v', b'1', 77, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(operations[13].encode(), kept);
    let mut root_later = vec![ROOT_LATER, VERSION, 2, 0, 0, 0];
    digest.encode(&mut root_later);
    assert_eq!(operations[14].encode(), root_later);
    assert_eq!(operations[9].encode(), [SET_QUOTA, VERSION, 3, 0, 0, 0, b'o', b':', b'_', 0]);
    for operation in operations {
        let bytes = operation.encode();
        assert_eq!(Operation::decode(&bytes), Ok(operation));
        (0..bytes.len()).for_each(|len| assert!(Operation::decode(&bytes[..len]).is_err()));
    }
}

/// Journals of the first version have it without a place to begin at.
#[test]
fn settling_of_the_first_version_begins_with_the_first() {
    let operation = Operation::Settle { held_until_ms: 7, from: 0 };
    assert_eq!(Operation::decode(&[SETTLE, 1, 7, 0, 0, 0, 0, 0, 0, 0]), Ok(operation.clone()));
    assert_eq!(operation.encode(), [&[SETTLE, 2, 7, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat());
    assert!(Operation::decode(&[SETTLE, 3, 7, 0, 0, 0, 0, 0, 0, 0]).is_err());
}

/// In those of the first version what a drop releases has the window that the manifest had.
#[test]
fn drops_of_the_first_version_are_read() {
    let digest = digest("manifest");
    let mut e = Encoder::new();
    e.u8(DROP_MANIFEST).u8(1).u32(2).u64(3).digest(&digest);
    let (first, repository, manifest) = (e.finish(), 2, 3);
    let dropped = |held_until_ms| Operation::DropManifest { repository, manifest, digest, held_until_ms };
    assert_eq!(Operation::decode(&first), Ok(dropped(0)));
    assert_eq!(dropped(77).encode(), [&[DROP_MANIFEST, 2], &first[2..], &[77, 0, 0, 0, 0, 0, 0, 0]].concat());
}

#[test]
fn unknown_kinds_and_versions_are_refused_by_name() {
    assert_eq!(Operation::decode(&[200, 1]).unwrap_err().field, "operation kind");
    assert_eq!(Operation::decode(&[INTERN, 9]).unwrap_err().field, "operation version");
    assert_eq!(LocalRecord::decode(&[200, 1]).unwrap_err().field, "local record kind");
}
