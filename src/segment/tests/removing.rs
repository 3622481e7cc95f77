//! Removing dead segments, copying live records out of them, and what segments take of the disk.

use std::time::Duration;

use super::*;
use crate::disk::sim::{Call, Failure};

const AT_ONCE: Duration = Duration::ZERO;

fn candidate(kept: &Kept) -> Candidate {
    let Appended { location, record_len } = kept.appended;
    let payload_len = kept.payload.len() as u64;
    Candidate { location, kind: RecordKind::Blob, digest: kept.digest, payload_len, record_len }
}

#[test]
fn a_removed_segment_is_gone_after_every_crash_and_its_readers_read_on() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = single(&segments, content(400_000, 1)).unwrap();
    let number = kept.appended.location.segment;
    let (large, small) = (reader(&segments, &kept).unwrap(), single(&segments, content(10, 2)).unwrap());
    assert_eq!(segments.remove_dead(number, AT_ONCE).unwrap(), Removal::StillRead);
    for seed in 0..20 {
        assert_eq!(files_below(&disk.crash(seed), "segments").len(), 1);
    }
    assert!(matches!(read(&segments, &kept), Err(SegmentError::Missing { .. })));
    assert!(large.read(0, 400_000).unwrap() == kept.payload);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            drop(large);
        });
        assert_eq!(segments.remove_dead(number, Duration::from_secs(60)).unwrap(), Removal::Freed, "again");
    });
    let _small = reader(&segments, &small).unwrap();
    assert_eq!(segments.remove_dead(small.appended.location.segment, AT_ONCE).unwrap(), Removal::Freed);
    assert_eq!(files_below(&disk, "segments"), []);
}

#[test]
fn a_segment_that_takes_appends_or_has_unsynced_ones_stays() {
    let disk = SimDisk::new();
    let (segments, _) = open_with(&disk, SegmentOptions { shared_bytes_max: 1_000, ..options() }, Vec::new());
    let kept: Vec<Kept> = (0..2).map(|seed| append(&segments, content(500, seed)).unwrap()).collect();
    let remove = |number| segments.remove_dead(SegmentNumber(number), AT_ONCE).unwrap();
    assert_eq!([remove(0), remove(1)], [Removal::TakesAppends; 2]);
    segments.sync().unwrap();
    check(&segments, &kept);
    assert_eq!(segments.take_sealed().len(), 1);
    assert_eq!([remove(0), remove(1)], [Removal::Freed, Removal::TakesAppends]);
    check(&segments, &kept[1..]);
}

#[test]
fn a_removal_that_cannot_be_made_durable_ends_writes() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = single(&segments, content(10, 1)).unwrap();
    let number = kept.appended.location.segment;
    disk.fail(Call::Names, 1, Failure::Io);
    assert!(matches!(segments.remove_dead(number, AT_ONCE), Err(SegmentError::Io { action: "remove", .. })));
    check(&segments, std::slice::from_ref(&kept));
    disk.fail(Call::SyncDir, 1, Failure::Io);
    assert!(segments.remove_dead(number, AT_ONCE).unwrap_err().is_poisoned());
    assert!(append(&segments, content(10, 2)).unwrap_err().is_poisoned());
    assert!(segments.remove_dead(number, AT_ONCE).unwrap_err().is_poisoned());
}

#[test]
fn a_copy_is_durable_with_the_next_sync_and_reads_like_the_record() {
    let disk = SimDisk::new();
    let small = SegmentOptions { shared_bytes_max: 1_000, ..options() };
    let (segments, _) = open_with(&disk, small, Vec::new());
    let kept: Vec<Kept> = LENGTHS.map(|len| append(&segments, content(len, 1)).unwrap()).into();
    let copies: Vec<Kept> =
        (kept.iter()).map(|kept| Kept { appended: segments.copy(&candidate(kept)).unwrap(), ..kept.clone() }).collect();
    segments.sync().unwrap();
    for (kept, copy) in kept.iter().zip(&copies) {
        assert_eq!(kept.appended.record_len, copy.appended.record_len);
        assert!(copy.appended.location > kept.appended.location);
    }
    check(&open(&disk.crash(5), listed(&copies)), &copies);
}

#[test]
fn damage_is_not_copied_even_under_good_checksums() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(100, 1)).unwrap();
    let other = Digest::of(Algorithm::Sha256, b"other");
    let forged = segments.append(RecordKind::Blob, &other, &content(100, 2)).unwrap();
    let file = disk.open(&format::path_of(SegmentNumber(0))).unwrap();
    let len = file.len().unwrap();
    let forged = Candidate { location: forged.location, digest: other, ..candidate(&kept) };
    let error = segments.copy(&forged).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("the digest of the content"), "{error}");
    file.write_all_at(b"x", kept.appended.location.offset + 100).unwrap();
    assert!(segments.copy(&candidate(&kept)).unwrap_err().is_corrupt());
    assert_eq!(file.len().unwrap(), len, "nothing of them was written");
}

#[test]
fn usage_tells_length_and_blocks_of_any_segment_that_has_a_file() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    append(&segments, content(10_000, 1)).unwrap();
    single(&segments, content(10_000, 1)).unwrap();
    let usage = |number| segments.usage(SegmentNumber(number)).unwrap();
    assert_eq!(usage(0), SegmentUsage { len: 64 + 10_112, allocated_bytes: 12_288, created_ms: None });
    assert_eq!(usage(1), SegmentUsage { len: 4_000 + 10_112, allocated_bytes: 16_384, created_ms: None });
    disk.open(&format::path_of(SegmentNumber(1))).unwrap().write_all_at(b"X", 0).unwrap();
    assert_eq!(usage(1).len, 14_112);
    assert!(matches!(segments.usage(SegmentNumber(2)), Err(SegmentError::Missing { .. })));
}
