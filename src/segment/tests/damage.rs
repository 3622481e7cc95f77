//! Damaged bytes are found, told as damage, and never returned as good.

use super::*;
use crate::disk::DiskFile;

fn flip(file: &dyn DiskFile, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Flips bytes of a record, one at a time: `verify` has to find each, and `read` to give the right bytes or none.
fn check_flips(disk: &SimDisk, kept: &Kept, offsets: impl Iterator<Item = u64>) {
    let segments = open(disk, listed(std::slice::from_ref(kept)));
    let file = disk.open(&format::path_of(kept.appended.location.segment)).unwrap();
    check(&segments, std::slice::from_ref(kept));
    let begin = kept.appended.location.offset;
    let payload = begin + format::RECORD_HEADER_LEN..begin + format::RECORD_HEADER_LEN + kept.payload.len() as u64;
    for offset in offsets {
        flip(&*file, offset);
        let error = verify(&segments, kept).expect_err("a flipped byte was not found");
        assert!(error.is_corrupt(), "{offset}: {error}");
        match read(&segments, kept) {
            Err(error) => assert!(error.is_corrupt(), "{offset}: {error}"),
            Ok(bytes) => assert!(bytes == kept.payload && !payload.contains(&offset), "{offset}"),
        }
        flip(&*file, offset);
    }
    check(&segments, std::slice::from_ref(kept));
}

#[test]
fn every_flipped_byte_of_a_small_record_is_found() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    for len in [0, 1, 1000] {
        let kept = append(&segments, content(len, 1)).unwrap();
        let begin = kept.appended.location.offset;
        check_flips(&disk, &kept, begin..begin + kept.appended.record_len);
    }
}

#[test]
fn flipped_bytes_of_a_large_record_are_found() {
    for write in [append, single] {
        let disk = SimDisk::new();
        let kept = write(&open(&disk, Vec::new()), content(400_001, 1)).unwrap();
        let begin = kept.appended.location.offset;
        let tail = begin + format::RECORD_HEADER_LEN + kept.payload.len() as u64;
        let sampled = (begin + 96..tail).step_by(9973).chain([tail - 1]);
        check_flips(&disk, &kept, (begin..begin + 96).chain(sampled).chain(tail..begin + kept.appended.record_len));
    }
}

#[test]
fn a_flipped_byte_before_a_single_record_is_found() {
    let disk = SimDisk::new();
    let kept = single(&open(&disk, Vec::new()), content(10, 1)).unwrap();
    check_flips(&disk, &kept, 64..4000);
}

#[test]
fn damage_names_content_and_place() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(400_000, 1)).unwrap();
    let file = disk.open(&format::path_of(kept.appended.location.segment)).unwrap();
    let block = 64 + 96 + 2 * 65_536;
    flip(&*file, block + 5);
    let reader = reader(&segments, &kept).unwrap();
    assert_eq!(reader.read(0, 131_072).unwrap(), &kept.payload[..131_072]);
    let Err(SegmentError::Corrupt(damage)) = reader.read(131_071, 2) else { panic!("damage was not found") };
    assert_eq!((damage.digest, damage.segment, damage.offset), (Some(kept.digest), SegmentNumber(0), block));
    assert_eq!(damage.what, "the checksum of a block");
    assert!(reader.read(196_608, 10).is_ok());
}

#[test]
fn every_flipped_byte_of_a_file_header_is_refused() {
    let disk = SimDisk::new();
    let kept = append(&open(&disk, Vec::new()), content(10, 1)).unwrap();
    let file = disk.open(&format::path_of(SegmentNumber(0))).unwrap();
    for offset in 0..64 {
        let sealed =
            listed(std::slice::from_ref(&kept)).into_iter().map(|segment| ListedSegment { sealed: true, ..segment });
        let segments = open(&disk, sealed.collect());
        flip(&*file, offset);
        match read(&segments, &kept) {
            Err(SegmentError::Corrupt(damage)) => assert_eq!(damage.digest, Some(kept.digest)),
            Err(SegmentError::Version { field: "format version", .. }) => assert!((8..12).contains(&offset)),
            other => panic!("{offset}: {other:?}"),
        }
        flip(&*file, offset);
    }
}

#[test]
fn unknown_versions_and_kinds_and_other_stores_are_refused_by_name() {
    let good = format::encode_file_header(SegmentKind::Shared, SegmentNumber(3), &STORE_ID);
    let check = |at: usize, value: u8, expected: &str| {
        let mut bytes = good.clone();
        bytes[at] = value;
        let sum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        let error = format::check_file_header(&bytes, SegmentNumber(3), &STORE_ID).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(8, 9, "segment 3 has format version 9, which");
    check(12, 7, "segment 3 has kind 7, which");
    check(16, 4, "the segment's number is 4, not 3");
    check(24, 0, "the store's id is 0011");
    for len in 0..good.len() {
        assert!(format::check_file_header(&good[..len], SegmentNumber(3), &STORE_ID).is_err());
    }
}

#[test]
fn asking_for_what_is_not_at_a_place_is_damage_and_allocates_nothing() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(1000, 1)).unwrap();
    let other = Digest::of(Algorithm::Sha512, &kept.payload);
    let Location { segment, offset } = kept.appended.location;
    for (offset, digest, len) in [
        (offset, other, 1000),
        (offset, kept.digest, 999),
        (offset, kept.digest, 1 << 50),
        (offset, kept.digest, u64::MAX),
        (offset + 32, kept.digest, 1000),
        (1 << 40, kept.digest, 1000),
        (u64::MAX, kept.digest, 0),
    ] {
        let error = segments.reader(Location { segment, offset }, &digest, len).unwrap_err();
        assert!(error.is_corrupt(), "{offset} {len}: {error}");
    }
    let nowhere = Location { segment: SegmentNumber(99), offset };
    assert!(matches!(segments.reader(nowhere, &kept.digest, 1000), Err(SegmentError::Missing { .. })));
}
