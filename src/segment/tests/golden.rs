//! The bytes on the disk, as FORMAT.md tells them. The expected ones were computed by another program.

use super::*;

const RECORD: &str = "4f5245430101000005000000000000002cf24dba5fb0a30e26e83b2ac5b9e29e\
                      1b161e5c1fa7425e73043362938b982400000000000000000000000000000000\
                      00000000000000000000000000000000000000000000000000000000778db5a4\
                      68656c6c6f86a610360000000000000000000000000000000000000000000000";

fn file_in_hex(disk: &SimDisk, number: u64) -> String {
    let file = disk.open(&format!("segments/000000000/{number:012}.segment")).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    data_encoding::HEXLOWER.encode(&bytes)
}

fn open_at(disk: &SimDisk, next_number: u64) -> Segments {
    Segments::open(Arc::new(disk.clone()), options(), next_number, Vec::new(), UnlistedFiles::Remove).unwrap().0
}

#[test]
fn bytes_of_a_shared_segment() {
    let disk = SimDisk::new();
    let segments = open_at(&disk, 7);
    append(&segments, b"hello".to_vec()).unwrap();
    let empty = Digest::of(Algorithm::Sha512, b"");
    segments.append(RecordKind::Manifest, &empty, b"").unwrap();
    let header = "4f524c4f50534547010000000100000007000000000000001011121314151617\
                  18191a1b1c1d1e1f00000000000000000000000000000000000000008319da19";
    let second = "4f524543020200000000000000000000cf83e1357eefb8bdf1542850d66d8007\
                  d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f\
                  63b931bd47417a81a538327af927da3e00000000000000000000000067deabbc";
    assert_eq!(file_in_hex(&disk, 7), [header, RECORD, second].concat());
}

#[test]
fn bytes_of_a_single_segment() {
    let disk = SimDisk::new();
    let segments = open_at(&disk, 8);
    let mut writer = segments.create_single().unwrap();
    let header = "4f524c4f50534547010000000200000008000000000000001011121314151617\
                  18191a1b1c1d1e1f00000000000000000000000000000000000000009840e003";
    let zeros = |count| "00".repeat(count);
    assert_eq!(file_in_hex(&disk, 8), [header, &zeros(4096 - 64)].concat());
    writer.write(b"hel").unwrap();
    writer.write(b"lo").unwrap();
    assert_eq!(file_in_hex(&disk, 8), [header, &zeros(4096 - 64), "68656c6c6f"].concat());
    writer.finish(RecordKind::Blob, &Digest::of(Algorithm::Sha256, b"hello")).unwrap();
    assert_eq!(file_in_hex(&disk, 8), [header, &zeros(4000 - 64), RECORD].concat());
}

#[test]
fn files_lie_a_thousand_to_a_directory() {
    for (number, path) in [
        (0, "segments/000000000/000000000000.segment"),
        (999, "segments/000000000/000000000999.segment"),
        (1_234_567, "segments/000001234/000001234567.segment"),
        (u64::MAX, "segments/18446744073709551/18446744073709551615.segment"),
    ] {
        assert_eq!(format::path_of(SegmentNumber(number)), path);
        assert_eq!(format::number_of(path), Some(SegmentNumber(number)));
    }
    for path in [
        "segments/000000001/000000000000.segment",
        "segments/000000000/0.segment",
        "segments/000000000/+00000000000.segment",
        "segments/000000000/000000000000.segment.tmp",
        "segments/000000000/.segment",
        "000000000000.segment",
    ] {
        assert_eq!(format::number_of(path), None, "{path}");
    }
}

#[test]
fn records_of_all_lengths_come_back_from_both_kinds() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let mut kept = Vec::new();
    for len in LENGTHS {
        kept.push(append(&segments, content(len, 1)).unwrap());
        kept.push(single(&segments, content(len, 2)).unwrap());
    }
    check(&segments, &kept);
    segments.sync().unwrap();
    let (again, report) = open_with(&disk.kill(), options(), listed(&kept));
    assert_eq!(report, OpenReport::default());
    check(&again, &kept);
    let kinds = |kept: &Kept| reader(&again, kept).unwrap().kind();
    assert_eq!((kinds(&kept[0]), kinds(&kept[1])), (RecordKind::Blob, RecordKind::Manifest));
}

#[test]
fn any_range_reads_as_the_same_range_of_the_content() {
    let segments = open(&SimDisk::new(), Vec::new());
    for len in LENGTHS {
        let kept = append(&segments, content(len, 3)).unwrap();
        let reader = reader(&segments, &kept).unwrap();
        assert_eq!(reader.len(), len as u64);
        let near = [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000, 300_000, len.saturating_sub(1), len, len + 1];
        for begin in near {
            for count in near.into_iter().chain([usize::MAX]) {
                let expected = kept.payload.get(begin..begin.saturating_add(count).min(len)).unwrap_or_default();
                assert!(reader.read(begin as u64, count).unwrap() == expected, "{begin} {count} of {len}");
            }
        }
        assert_eq!(reader.read(u64::MAX, usize::MAX).unwrap(), "");
    }
}
