//! Failing and full disks: a failed sync ends writes for good, a full disk only for now, and neither ends reads.

use super::*;
use crate::disk::sim::{Call, Failure};

#[track_caller]
fn check_poisoned(segments: &Segments, kept: &Kept) {
    assert!(append(segments, content(10, 9)).unwrap_err().is_poisoned());
    assert!(segments.sync().unwrap_err().is_poisoned());
    assert!(segments.create_single().unwrap_err().is_poisoned());
    assert!(segments.reopen_single(SegmentNumber(0), 0, &mut |_| ()).unwrap_err().is_poisoned());
    check(segments, std::slice::from_ref(kept));
}

#[test]
fn a_failed_sync_of_appends_poisons() {
    for failure in [Failure::Io, Failure::Full] {
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        let kept = append(&segments, content(10, 1)).unwrap();
        disk.fail(Call::SyncData, 1, failure);
        let error = segments.sync().unwrap_err();
        assert!(error.to_string().contains("cannot sync segments/000000000/000000000000.segment"), "{error}");
        check_poisoned(&segments, &kept);
    }
}

#[test]
fn a_failed_sync_of_a_single_segment_poisons() {
    for at_finish in [false, true] {
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        let kept = append(&segments, content(10, 1)).unwrap();
        let mut writer = segments.create_single().unwrap();
        writer.write(b"abc").unwrap();
        disk.fail(Call::SyncData, 1, Failure::Io);
        if at_finish {
            assert!(finish(writer, b"abc".to_vec()).unwrap_err().is_poisoned());
        } else {
            assert!(writer.sync().unwrap_err().is_poisoned());
            assert!(writer.write(b"d").unwrap_err().is_poisoned());
            assert!(writer.sync().unwrap_err().is_poisoned());
            assert!(finish(writer, b"abc".to_vec()).unwrap_err().is_poisoned());
        }
        check_poisoned(&segments, &kept);
    }
}

#[test]
fn a_failed_sync_of_a_directory_poisons() {
    // Creating the first segment of a directory syncs the parent, then the directory.
    for nth in [1, 2] {
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        disk.fail(Call::SyncDir, nth, Failure::Io);
        assert!(append(&segments, content(10, 1)).unwrap_err().is_poisoned());
        assert!(append(&segments, content(10, 1)).unwrap_err().is_poisoned());
        assert_eq!(files_below(&disk, "segments"), []);
    }
}

/// Pushes failed with 500 each, as if they were to blame, and nothing said that the disk was.
#[test]
fn a_read_only_file_system_poisons_before_any_sync_has_failed() {
    for (call, action) in [(Call::Write, "write"), (Call::Names, "create")] {
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        let kept = append(&segments, content(10, 1)).unwrap();
        disk.fail(call, 1, Failure::ReadOnly);
        let failed = if call == Call::Names {
            segments.create_single().map(drop)
        } else {
            append(&segments, content(10, 2)).map(drop)
        };
        let error = failed.unwrap_err();
        assert!(error.to_string().contains(&format!("cannot {action} segments/")), "{error}");
        check_poisoned(&segments, &kept);
    }
}

/// A client that opened more uploads than the process may open files ended all writes until a restart.
#[test]
fn a_directory_that_cannot_be_opened_for_its_sync_does_not_poison() {
    for nth in [1, 2] {
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        disk.fail(Call::SyncDir, nth, Failure::NoFiles);
        let error = append(&segments, content(10, 1)).unwrap_err();
        assert!(matches!(error, SegmentError::Io { .. }), "{error}");
        assert_eq!(files_below(&disk, "segments"), []);
        let kept = append(&segments, content(10, 1)).unwrap();
        segments.sync().unwrap();
        open_with(&disk.crash(7), options(), listed(std::slice::from_ref(&kept)))
            .0
            .verify_record(kept.appended.location, &kept.digest, kept.payload.len() as u64)
            .unwrap();
    }
}

#[test]
fn a_failed_write_leaves_dead_bytes_and_nothing_else() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let mut kept = vec![append(&segments, content(10, 1)).unwrap()];
    for (failure, len) in [(Failure::Io, 1000), (Failure::Full, 1000), (Failure::Io, 100_000)] {
        disk.fail(Call::Write, 1, failure);
        let error = append(&segments, content(len, 2)).unwrap_err();
        assert_eq!(error.is_full(), failure == Failure::Full, "{error}");
        kept.push(append(&segments, content(len, 3)).unwrap());
    }
    assert_eq!(kept[1].appended.location.offset, 64 + 128 + 1120);
    segments.sync().unwrap();
    check(&segments, &kept);
    let (segments, report) = open_with(&disk.crash(5), options(), listed(&kept));
    assert_eq!(report, OpenReport::default());
    check(&segments, &kept);
}

#[test]
fn a_seal_counts_only_bytes_that_were_written() {
    let disk = SimDisk::new();
    let (segments, _) = open_with(&disk, SegmentOptions { shared_bytes_max: 2000, ..options() }, Vec::new());
    let kept = append(&segments, content(10, 1)).unwrap();
    disk.fail(Call::Write, 1, Failure::Full);
    append(&segments, content(1000, 2)).unwrap_err();
    append(&segments, content(1000, 3)).unwrap();
    assert_eq!(segments.take_sealed(), [], "its record is not durable yet");
    segments.sync().unwrap();
    let len = kept.appended.location.offset + kept.appended.record_len;
    assert_eq!(segments.take_sealed(), [SealedSegment { number: SegmentNumber(0), len }]);
    assert_eq!(segments.take_sealed(), []);
}

#[test]
fn a_full_disk_refuses_writes_keeps_its_reserve_and_serves_reads() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(100_000));
    let options = SegmentOptions { reserve_bytes: 20_000, ..options() };
    let (segments, _) = open_with(&disk, options, Vec::new());
    let upload = single(&segments, content(30_000, 1)).unwrap();
    let mut kept = vec![upload.clone()];
    let mut writer = segments.create_single().unwrap();
    let error = loop {
        match append(&segments, content(5000, kept.len() as u64)) {
            Ok(appended) => kept.push(appended),
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && kept.len() > 5, "{error}");
    assert!(disk.free_bytes().unwrap() >= 20_000);
    assert!(writer.write(&[0; 10_000]).unwrap_err().is_full());
    assert_eq!(writer.len(), 0);
    assert!(append(&segments, content(5000, 0)).unwrap_err().is_full());
    segments.sync().unwrap();
    check(&segments, &kept);
    segments.remove(upload.appended.location.segment).unwrap();
    append(&segments, content(5000, 0)).unwrap();
    writer.write(&[7; 10_000]).unwrap();
    check(&segments, &[finish(writer, vec![7; 10_000]).unwrap()]);
}

#[test]
fn a_segment_that_cannot_be_created_leaves_no_file() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    disk.fail(Call::Write, 1, Failure::Full);
    assert!(append(&segments, content(10, 1)).unwrap_err().is_full());
    disk.fail(Call::Write, 1, Failure::Io);
    assert!(matches!(segments.create_single().unwrap_err(), SegmentError::Io { action: "write", .. }));
    assert_eq!(files_below(&disk, "segments"), []);
    check(&segments, &[append(&segments, content(10, 1)).unwrap()]);
}

#[test]
fn a_read_that_the_disk_fails_is_not_told_as_damage() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(400_000, 1)).unwrap();
    let reader = reader(&segments, &kept).unwrap();
    disk.fail(Call::Read, 1, Failure::Io);
    let error = reader.read(0, 10).unwrap_err();
    assert!(matches!(error, SegmentError::Io { action: "read", .. }), "{error}");
    assert_eq!(reader.read(0, 10).unwrap(), &kept.payload[..10]);
}
