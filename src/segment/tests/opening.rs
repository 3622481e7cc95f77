//! Opening makes files fit the list: it cuts, removes, moves, resumes, and tells what is lost.

use super::*;
use crate::disk::sim::{Call, Failure};

fn numbers(kept: &[Kept]) -> Vec<u64> {
    kept.iter().map(|kept| kept.appended.location.segment.0).collect()
}

#[test]
fn what_lies_beyond_the_committed_end_is_cut_and_appends_go_on_there() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(100, 1)).unwrap();
    let lost = append(&segments, content(50_000, 2)).unwrap();
    let (from, to) = (lost.appended.location.offset + lost.appended.record_len, lost.appended.location.offset);
    let (segments, report) = open_with(&disk, options(), listed(std::slice::from_ref(&kept)));
    assert_eq!(
        report,
        OpenReport { cut: vec![CutSegment { number: SegmentNumber(0), from, to }], ..OpenReport::default() }
    );
    assert!(read(&segments, &lost).unwrap_err().is_corrupt());
    let next = append(&segments, content(7, 3)).unwrap();
    assert_eq!(next.appended.location, lost.appended.location);
    check(&segments, &[kept, next]);
}

#[test]
fn the_newest_unsealed_segment_with_room_takes_appends_and_the_others_are_sealed() {
    let disk = SimDisk::new();
    let small = SegmentOptions { shared_bytes_max: 1000, ..options() };
    let (segments, _) = open_with(&disk, small.clone(), Vec::new());
    let mut kept: Vec<Kept> = (0..3).map(|seed| append(&segments, content(500, seed)).unwrap()).collect();
    assert_eq!(numbers(&kept), [0, 1, 2]);
    let (segments, _) = open_with(&disk, small, listed(&kept));
    let sealed = segments.take_sealed();
    assert_eq!(sealed, [0, 1].map(|number| SealedSegment { number: SegmentNumber(number), len: 64 + 608 }));
    assert_eq!(segments.take_sealed(), []);
    kept.push(append(&segments, content(100, 9)).unwrap());
    kept.push(append(&segments, content(500, 9)).unwrap());
    assert_eq!(numbers(&kept), [0, 1, 2, 2, 3]);
    check(&segments, &kept);
}

#[test]
fn a_sealed_segment_takes_no_appends() {
    let disk = SimDisk::new();
    let kept = append(&open(&disk, Vec::new()), content(10, 1)).unwrap();
    let sealed = ListedSegment { sealed: true, ..listed(std::slice::from_ref(&kept))[0] };
    let segments = open(&disk, vec![sealed]);
    assert_eq!(segments.take_sealed(), []);
    assert_eq!(append(&segments, content(10, 2)).unwrap().appended.location.segment, SegmentNumber(1));
}

#[test]
fn unlisted_files_are_removed_and_their_numbers_not_used_again() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    append(&segments, content(10, 1)).unwrap();
    single(&segments, content(10, 1)).unwrap();
    disk.create("segments/000000000/notes.txt").unwrap();
    disk.create("segments/README").unwrap();
    let (segments, report) = open_with(&disk, options(), Vec::new());
    assert_eq!(report.removed, [SegmentNumber(0), SegmentNumber(1)]);
    assert_eq!(files_below(&disk, "segments"), [("notes.txt".to_owned(), 0)]);
    assert_eq!(segments.next_number(), 2);
}

#[test]
fn unlisted_files_that_may_have_worth_go_to_lost_and_replace_nothing_there() {
    let disk = SimDisk::new();
    for round in 0..3 {
        append(&open(&disk, Vec::new()), content(10, round)).unwrap();
        let sim = Arc::new(disk.clone());
        let (_, report) = Segments::open(sim, options(), 0, Vec::new(), UnlistedFiles::MoveToLost).unwrap();
        assert_eq!(report.moved, [SegmentNumber(0)]);
    }
    let after = disk.crash(1);
    let names: Vec<String> = after.list("lost").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["000000000000.segment", "000000000000.segment.1", "000000000000.segment.2"]);
    assert_eq!(files_below(&after, "segments"), []);
}

#[test]
fn missing_and_short_segments_are_told_and_read_as_damage_while_the_rest_is_served() {
    let disk = SimDisk::new();
    let small = SegmentOptions { shared_bytes_max: 1000, ..options() };
    let (segments, _) = open_with(&disk, small.clone(), Vec::new());
    let kept: Vec<Kept> = (0..4).map(|seed| append(&segments, content(500, seed)).unwrap()).collect();
    let end = 64 + 608;
    disk.remove(&format::path_of(SegmentNumber(1))).unwrap();
    disk.open(&format::path_of(SegmentNumber(3))).unwrap().set_len(300).unwrap();
    let (segments, report) = open_with(&disk, small, listed(&kept));
    let damaged = [
        DamagedSegment { number: SegmentNumber(1), expected: end, found: None },
        DamagedSegment { number: SegmentNumber(3), expected: end, found: Some(300) },
    ];
    assert_eq!(report, OpenReport { damaged: damaged.to_vec(), ..OpenReport::default() });
    for lost in [1, 3] {
        let error = read(&segments, &kept[lost]).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains(&kept[lost].digest.to_string()), "{error}");
    }
    check(&segments, &[kept[0].clone(), kept[2].clone()]);
    assert_eq!(append(&segments, content(100, 9)).unwrap().appended.location.segment, SegmentNumber(2));
}

#[test]
fn a_segment_with_a_damaged_header_takes_no_appends_and_one_of_a_newer_version_stops_the_open() {
    let disk = SimDisk::new();
    let kept = append(&open(&disk, Vec::new()), content(10, 1)).unwrap();
    let listed = listed(std::slice::from_ref(&kept));
    let file = disk.open(&format::path_of(SegmentNumber(0))).unwrap();
    file.write_all_at(b"X", 0).unwrap();
    let segments = open(&disk, listed.clone());
    assert_eq!(append(&segments, content(10, 2)).unwrap().appended.location.segment, SegmentNumber(1));
    file.write_all_at(b"O", 0).unwrap();
    file.write_all_at(&[2], 8).unwrap();
    let error = Segments::open(Arc::new(disk), options(), 1, listed, UnlistedFiles::Remove).unwrap_err();
    assert!(matches!(error, SegmentError::Version { found: 2, .. }), "{error}");
}

#[test]
fn an_unfinished_upload_goes_on_where_its_durable_bytes_end() {
    for (durable, written) in [(0, 0), (0, 5), (70_000, 70_000), (65_536, 70_000), (70_000, 400_000)] {
        let disk = SimDisk::new();
        let payload = content(500_000, durable as u64);
        let segments = open(&disk, Vec::new());
        let mut writer = segments.create_single().unwrap();
        writer.write(&payload[..durable]).unwrap();
        writer.sync().unwrap();
        writer.write(&payload[durable..written]).unwrap();
        let number = writer.number();
        // The death comes after the finish was written and before it was acknowledged.
        writer.finish(RecordKind::Blob, &Digest::of(Algorithm::Sha256, &payload[..written])).unwrap();
        let committed_end = SingleWriter::committed_end(durable as u64);
        let listed = ListedSegment { number, kind: SegmentKind::Single, committed_end, sealed: false };
        let segments = open(&disk, vec![listed]);
        let mut seen = Vec::new();
        let mut each = |block: &[u8]| seen.extend_from_slice(block);
        let mut writer = segments.reopen_single(number, durable as u64, &mut each).unwrap();
        assert!(seen == payload[..durable] && writer.len() == durable as u64);
        let before = Kept {
            appended: Appended { location: Location { segment: number, offset: 4000 }, record_len: 0 },
            digest: Digest::of(Algorithm::Sha256, &payload[..durable]),
            payload: payload[..durable].to_vec(),
        };
        assert!(read(&segments, &before).unwrap_err().is_corrupt());
        writer.write(&payload[durable..]).unwrap();
        let mut again = vec![0; 600_000];
        assert_eq!(writer.read_at(100, &mut again).unwrap(), payload.len() - 100);
        assert!(again[..payload.len() - 100] == payload[100..]);
        let kept = finish(writer, payload).unwrap();
        check(&segments, &[kept]);
    }
}

#[test]
fn an_upload_that_is_shorter_than_its_offset_or_shared_is_not_taken_up() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let mut writer = segments.create_single().unwrap();
    writer.write(b"abc").unwrap();
    assert!(segments.reopen_single(writer.number(), 4, &mut |_| ()).unwrap_err().is_corrupt());
    let shared = append(&segments, content(5000, 1)).unwrap().appended.location.segment;
    assert!(segments.reopen_single(shared, 0, &mut |_| ()).unwrap_err().is_corrupt());
    check(&segments, &[finish(writer, b"abc".to_vec()).unwrap()]);
}

#[test]
fn a_removed_segment_is_missing_for_new_readers_and_whole_for_old_ones() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = single(&segments, content(400_000, 1)).unwrap();
    let reader = reader(&segments, &kept).unwrap();
    segments.remove(kept.appended.location.segment).unwrap();
    assert!(matches!(read(&segments, &kept), Err(SegmentError::Missing { .. })));
    assert!(matches!(segments.remove(kept.appended.location.segment), Err(SegmentError::Missing { .. })));
    assert!(reader.read(0, 400_000).unwrap() == kept.payload);
    segments.create_single().unwrap().discard().unwrap();
    assert_eq!(files_below(&disk, "segments"), []);
}

#[test]
fn an_open_that_the_disk_fails_is_an_error() {
    let disk = SimDisk::new();
    disk.fail(Call::SyncDir, 1, Failure::Io);
    let error = Segments::open(Arc::new(disk), options(), 0, Vec::new(), UnlistedFiles::Remove).unwrap_err();
    assert!(matches!(error, SegmentError::Io { action: "sync", .. }), "{error}");
}
