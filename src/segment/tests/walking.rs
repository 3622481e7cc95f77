//! Walking: every live record is found, whatever lies between them, and nothing there is believed.

use super::*;
use crate::{disk::RealDisk, disk::sim::Call};

/// All candidates; those that `is_live` confirms are passed.
fn walk(segments: &Segments, number: SegmentNumber, is_live: impl Fn(&Candidate) -> bool) -> Vec<Candidate> {
    let mut candidates = segments.candidates(number).unwrap();
    let mut found = Vec::new();
    while let Some(candidate) = candidates.next(&mut |_| ()).unwrap() {
        if is_live(&candidate) {
            candidates.pass(&candidate);
        }
        found.push(candidate);
    }
    found
}

fn is_record(candidate: &Candidate, kept: &Kept) -> bool {
    (candidate.location, candidate.digest) == (kept.appended.location, kept.digest)
}

/// The walk finds exactly these, when it passes those of them that are live.
#[track_caller]
fn check_found(segments: &Segments, live: &[Kept]) -> Vec<Candidate> {
    let is_live = |candidate: &Candidate| live.iter().any(|kept| is_record(candidate, kept));
    let found = walk(segments, live[0].appended.location.segment, is_live);
    let confirmed: Vec<Candidate> = found.iter().copied().filter(is_live).collect();
    assert_eq!(confirmed.len(), live.len(), "live records are passed over");
    for (candidate, kept) in confirmed.iter().zip(live) {
        assert!(is_record(candidate, kept));
        assert_eq!(candidate.record_len, kept.appended.record_len);
        assert_eq!(candidate.payload_len, kept.payload.len() as u64);
    }
    found
}

/// A header as content, which claims so many bytes of payload.
fn header(payload_len: u64) -> Vec<u8> {
    format::encode_record_header(RecordKind::Manifest, &Digest::of(Algorithm::Sha512, b"forged"), payload_len)
}

#[test]
fn records_are_found_over_holes_and_at_every_place_in_a_window() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let lens = (0..300).map(|count| if count % 50 == 0 { 300_000 } else { count * 13 });
    let kept: Vec<Kept> = lens.map(|len| append(&segments, content(len, 1)).unwrap()).collect();
    assert_eq!(check_found(&segments, &kept).len(), 300, "nothing was dead");
    let (dead, live): (Vec<_>, Vec<_>) = kept.into_iter().partition(|kept| kept.payload.len() % 3 != 0);
    let records: Vec<DeadRecord> = (dead.iter())
        .map(|kept| DeadRecord { offset: kept.appended.location.offset, record_len: kept.appended.record_len })
        .collect();
    segments.erase(SegmentNumber(0), &records, std::time::Duration::ZERO).unwrap();
    assert_eq!(check_found(&segments, &live).len(), live.len(), "erased records are no candidates");
}

#[test]
fn headers_in_dead_content_hide_no_live_record() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let forged: Vec<u8> = [0, 100, 5_000, 20_000, 60_000].into_iter().flat_map(header).collect();
    let mut live = Vec::new();
    for seed in 0..20 {
        let dead = append(&segments, [&forged[..], &content(2_000, seed)].concat()).unwrap();
        // A failed write may have left no header of its own.
        let file = disk.open(&format::path_of(SegmentNumber(0))).unwrap();
        file.write_all_at(&content(96, 1), dead.appended.location.offset).unwrap();
        live.push(append(&segments, [forged.clone(), content(1_000, seed + 100)].concat()).unwrap());
    }
    let found = check_found(&segments, &live);
    assert!(found.len() > 80, "the forged headers are no candidates, so nothing is shown");
}

#[test]
fn a_header_that_claims_more_than_the_file_has_is_no_candidate() {
    let segments = open(&SimDisk::new(), Vec::new());
    let dead = append(&segments, [1_000, u64::MAX, u64::MAX - 4_096, 1 << 40].into_iter().flat_map(header).collect());
    let found = walk(&segments, SegmentNumber(0), |_| false);
    assert_eq!(found.len(), 1);
    assert!(is_record(&found[0], &dead.unwrap()));
}

#[test]
fn bytes_without_sense_are_walked_to_their_end() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        let kept = append(&segments, content(rng.usize(..2_000), seed)).unwrap();
        let file = disk.open(&format::path_of(SegmentNumber(0))).unwrap();
        let mut bytes = content(rng.usize(..3_000), seed);
        for at in (0..bytes.len().saturating_sub(96)).step_by(32) {
            if rng.bool() {
                bytes[at..at + 96].copy_from_slice(&header(rng.u64(..) >> rng.u32(..64)));
                bytes[at + rng.usize(..96)] ^= rng.u8(..);
            }
        }
        file.write_all_at(&bytes, kept.appended.location.offset + kept.appended.record_len).unwrap();
        check_found(&segments, &[kept]);
    }
}

#[test]
fn a_walk_tells_what_it_reads_and_goes_on_where_the_disk_failed() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(100, 1)).unwrap();
    let large = append(&segments, content(700_000, 1)).unwrap();
    let last = append(&segments, content(100, 2)).unwrap();
    let len = segments.usage(SegmentNumber(0)).unwrap().len;
    let mut told = Vec::new();
    let mut candidates = segments.candidates(SegmentNumber(0)).unwrap();
    disk.fail(Call::Read, 1, crate::disk::sim::Failure::Io);
    assert!(matches!(candidates.next(&mut |_| ()), Err(SegmentError::Io { .. })));
    let mut found = Vec::new();
    while let Some(candidate) = candidates.next(&mut |bytes| told.push(bytes)).unwrap() {
        found.push(candidate.location);
    }
    assert_eq!(found, [&kept, &large, &last].map(|kept| kept.appended.location));
    assert!(told.iter().all(|&bytes| bytes <= 256 * 1024) && told.iter().sum::<u64>() >= len - 64, "{told:?}");
    assert!(told.iter().sum::<u64>() < len + 96 * told.len() as u64, "what is read twice is less than a header");
}

#[test]
fn holes_of_a_real_file_are_walked_over() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
    let (segments, _) = Segments::open(disk, options(), 0, Vec::new(), UnlistedFiles::Remove).unwrap();
    let kept: Vec<Kept> = (0..40).map(|seed| append(&segments, content(30_000, seed)).unwrap()).collect();
    let records: Vec<DeadRecord> = (kept[1..39].iter())
        .map(|kept| DeadRecord { offset: kept.appended.location.offset, record_len: kept.appended.record_len })
        .collect();
    segments.erase(SegmentNumber(0), &records, std::time::Duration::ZERO).unwrap();
    assert_eq!(check_found(&segments, &[kept[0].clone(), kept[39].clone()]).len(), 2);
}
