//! Erasing: the bytes are nowhere in the file, all else is as before, and nobody who reads is hurt.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::*;
use crate::disk::{
    RealDisk,
    sim::{Call, Failure},
};

const AT_ONCE: Duration = Duration::ZERO;

fn dead(kept: &Kept) -> DeadRecord {
    DeadRecord { offset: kept.appended.location.offset, record_len: kept.appended.record_len }
}

fn erase(segments: &Segments, kept: &Kept) -> Result<Vec<DeadRecord>, SegmentError> {
    segments.erase(kept.appended.location.segment, &[dead(kept)], AT_ONCE)
}

fn raw(disk: &dyn Disk, number: SegmentNumber) -> Vec<u8> {
    let file = disk.open(&format::path_of(number)).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// No 8 bytes of the content are left, wherever they begin.
#[track_caller]
fn check_gone(disk: &dyn Disk, kept: &Kept) {
    let pieces: std::collections::HashSet<&[u8]> = kept.payload.windows(8).collect();
    let bytes = raw(disk, kept.appended.location.segment);
    assert!(!bytes.windows(8).any(|piece| pieces.contains(piece)), "{} is not erased", kept.appended.location);
}

/// Records of `len` bytes behind a first one that moves them to every place relative to a block; the middle one is erased.
fn check_alignments(disk: Arc<dyn Disk>, len: usize, shifts: impl Iterator<Item = usize>) {
    let (segments, _) = Segments::open(disk.clone(), options(), 0, Vec::new(), UnlistedFiles::Remove).unwrap();
    for shift in shifts {
        let mut filler = append(&segments, content(shift, 1)).unwrap();
        while filler.appended.location.offset % 4096 != shift as u64 {
            filler = append(&segments, Vec::new()).unwrap();
        }
        let [before, gone, after] = [2, 3, 4].map(|seed| append(&segments, content(len, seed + shift as u64)).unwrap());
        let number = gone.appended.location.segment;
        let mut expected = raw(&*disk, number);
        let allocated = segments.usage(number).unwrap().allocated_bytes;

        assert_eq!(erase(&segments, &gone).unwrap(), []);
        let begin = gone.appended.location.offset;
        let end = begin + gone.appended.record_len;
        expected[begin as usize..end as usize].fill(0);
        assert!(raw(&*disk, number) == expected, "{len} {shift}: not these bytes alone are zero");
        assert!(read(&segments, &gone).unwrap_err().is_corrupt());
        check(&segments, &[filler, before, after]);
        let whole_blocks = (end / 4096).saturating_sub(begin.div_ceil(4096)) * 4096;
        let usage = segments.usage(number).unwrap();
        assert_eq!(
            (usage.len, usage.allocated_bytes),
            (expected.len() as u64, allocated - whole_blocks),
            "{len} {shift}"
        );
    }
}

#[test]
fn an_erased_record_is_nowhere_in_the_file_at_every_place_relative_to_a_block() {
    for len in [0, 8, 100, 3_900, 5_000, 70_000, 300_000] {
        let step = if len > 10_000 { 1_120 } else { 32 };
        check_alignments(Arc::new(SimDisk::new()), len, (0..4096).step_by(step));
    }
}

#[test]
fn the_same_holds_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
    let (segments, _) = Segments::open(disk.clone(), options(), 0, Vec::new(), UnlistedFiles::Remove).unwrap();
    let kept: Vec<Kept> =
        [100, 70_000, 5_000, 300_000, 20].map(|len| append(&segments, content(len, 1)).unwrap()).into();
    segments.sync().unwrap();
    let allocated = segments.usage(SegmentNumber(0)).unwrap().allocated_bytes;
    for gone in [1, 3] {
        assert_eq!(erase(&segments, &kept[gone]).unwrap(), []);
        check_gone(&*disk, &kept[gone]);
    }
    check(&segments, &[kept[0].clone(), kept[2].clone(), kept[4].clone()]);
    let usage = segments.usage(SegmentNumber(0)).unwrap();
    assert!(usage.allocated_bytes + 360_000 < allocated, "{usage:?} after {allocated}");
}

#[test]
fn blocks_of_many_small_dead_records_come_back_in_whatever_order_they_die() {
    for (sealed, seed) in [(true, 1), (true, 2), (false, 3)] {
        let disk = SimDisk::new();
        let mut rng = fastrand::Rng::with_seed(seed);
        let segments = open(&disk, Vec::new());
        let kept: Vec<Kept> = (0..200).map(|seed| append(&segments, content(500, seed)).unwrap()).collect();
        let last = append(&segments, content(5_000, 1)).unwrap();
        segments.sync().unwrap();
        let all = [&kept[..], std::slice::from_ref(&last)].concat();
        let lists = listed(&all).into_iter().map(|segment| ListedSegment { sealed, ..segment }).collect();
        let segments = open(&disk, lists);
        let mut order: Vec<&Kept> = kept[1..].iter().collect();
        rng.shuffle(&mut order);
        for gone in order {
            assert_eq!(erase(&segments, gone).unwrap(), []);
        }
        check(&segments, &[kept[0].clone(), last.clone()]);
        // The first block, which holds the header and the first record, and those of the last one.
        let end = last.appended.location.offset + last.appended.record_len;
        let blocks = 1 + end.div_ceil(4096) - last.appended.location.offset / 4096;
        assert_eq!(segments.usage(SegmentNumber(0)).unwrap().allocated_bytes, blocks * 4096, "sealed {sealed}");
    }
}

#[test]
fn a_record_that_is_read_is_left_and_the_others_are_erased() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept: Vec<Kept> = [400_000, 100, 400_001].map(|len| append(&segments, content(len, 1)).unwrap()).into();
    let records: Vec<DeadRecord> = kept.iter().map(dead).collect();
    let small = reader(&segments, &kept[1]).unwrap();
    let large = reader(&segments, &kept[2]).unwrap();
    let clone = large.clone();
    drop(large);
    let patience = Duration::from_millis(20);
    assert_eq!(segments.erase(SegmentNumber(0), &records, patience).unwrap(), [records[2]]);
    assert!(clone.read(0, 400_001).unwrap() == kept[2].payload);
    assert!(small.read(0, 100).unwrap() == kept[1].payload, "a small record was read at once");
    kept[..2].iter().for_each(|gone| check_gone(&disk, gone));

    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(clone);
        });
        assert_eq!(segments.erase(SegmentNumber(0), &records, Duration::from_secs(60)).unwrap(), []);
    });
    check_gone(&disk, &kept[2]);
}

#[test]
fn nothing_is_erased_while_an_earlier_epoch_lasts() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(400_000, 1)).unwrap();
    let epoch = segments.enter();
    assert_eq!(erase(&segments, &kept).unwrap(), [dead(&kept)]);
    let reader = reader(&segments, &kept).unwrap();
    drop(epoch);
    assert_eq!(erase(&segments, &kept).unwrap(), [dead(&kept)]);
    assert!(reader.read(0, 400_000).unwrap() == kept.payload);
    drop(reader);
    assert_eq!(erase(&segments, &kept).unwrap(), []);
    check_gone(&disk, &kept);
}

/// Some threads append, read and give up records of the segment that others append to.
fn check_beside_appends(disk: Arc<dyn Disk>) {
    let options = SegmentOptions { shared_bytes_max: 1 << 20, ..options() };
    let (segments, _) = Segments::open(disk, options, 0, Vec::new(), UnlistedFiles::Remove).unwrap();
    let done = AtomicBool::new(false);
    let thread = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut live: Vec<Kept> = Vec::new();
        for count in 0..100 {
            live.push(append(&segments, content(rng.usize(..9_000), seed << 32 | count)).unwrap());
            if rng.bool() {
                let gone = live.swap_remove(rng.usize(..live.len()));
                let left = segments.erase(gone.appended.location.segment, &[dead(&gone)], Duration::from_secs(60));
                assert_eq!(left.unwrap(), []);
                assert!(read(&segments, &gone).unwrap_err().is_corrupt());
            }
        }
        check(&segments, &live);
    };
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                segments.sync().unwrap();
                segments.take_sealed();
            }
        });
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || thread(seed))).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Release);
        syncing.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
}

#[test]
fn appends_go_on_beside_erasing_and_lose_nothing() {
    check_beside_appends(Arc::new(SimDisk::new()));
    let directory = tempfile::tempdir().unwrap();
    check_beside_appends(Arc::new(RealDisk::new(directory.path()).unwrap()));
}

#[test]
fn what_an_append_may_be_writing_is_not_taken_for_erased() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(5_000, 1)).unwrap();
    let end = kept.appended.location.offset + kept.appended.record_len;
    let usage = || segments.usage(SegmentNumber(0)).unwrap().allocated_bytes;
    erase(&segments, &kept).unwrap();
    // The header's block, and the one in which the next append begins.
    assert_eq!((usage(), end.div_ceil(4096)), (8192, 2));
    let next = append(&segments, content(20, 2)).unwrap();
    erase(&segments, &kept).unwrap();
    check(&segments, &[next]);
}

#[test]
fn a_place_of_no_record_or_of_another_is_refused_and_nothing_erased() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept: Vec<Kept> = (0..3).map(|seed| append(&segments, content(500, seed)).unwrap()).collect();
    let DeadRecord { offset, record_len } = dead(&kept[1]);
    for (offset, record_len) in [
        (offset, record_len + 32),
        (offset, record_len - 32),
        (offset + 1, record_len),
        (offset, record_len + 1),
        (offset, 64),
        (32, record_len),
        (0, 0),
        (u64::MAX - 31, 96),
    ] {
        let wrong = [dead(&kept[0]), DeadRecord { offset, record_len }];
        match segments.erase(SegmentNumber(0), &wrong, AT_ONCE) {
            Err(error) => assert!(error.is_corrupt() && error.to_string().contains("dead record"), "{error}"),
            Ok(_) => assert_eq!(offset, u64::MAX - 31, "what is not in the file need not be erased"),
        }
    }
    check(&segments, &kept[1..]);
    assert!(matches!(segments.erase(SegmentNumber(9), &[], AT_ONCE), Err(SegmentError::Missing { .. })));
}

#[test]
fn a_half_erased_or_damaged_record_is_erased_and_an_erased_one_again() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept: Vec<Kept> = (0..3).map(|seed| append(&segments, content(5_000, seed)).unwrap()).collect();
    let gone = kept[1].appended.location.offset;
    disk.open(&format::path_of(SegmentNumber(0))).unwrap().write_all_at(&[0; 50], gone).unwrap();
    for _ in 0..2 {
        assert_eq!(erase(&segments, &kept[1]).unwrap(), []);
        check_gone(&disk, &kept[1]);
        check(&segments, &[kept[0].clone(), kept[2].clone()]);
    }
}

#[test]
fn a_failed_punch_can_be_tried_again_and_a_failed_sync_ends_writes() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let [kept, gone] = [1, 2].map(|seed| append(&segments, content(5_000, seed)).unwrap());
    segments.sync().unwrap();
    for (failure, is_full) in [(Failure::Io, false), (Failure::Full, true)] {
        disk.fail(Call::Punch, 1, failure);
        let error = erase(&segments, &gone).unwrap_err();
        assert_eq!((error.is_full(), error.is_poisoned()), (is_full, false), "{error}");
    }
    assert_eq!(erase(&segments, &gone).unwrap(), []);
    disk.fail(Call::SyncData, 1, Failure::Io);
    assert!(erase(&segments, &gone).unwrap_err().is_poisoned());
    assert!(erase(&segments, &gone).unwrap_err().is_poisoned());
    assert!(append(&segments, content(10, 3)).unwrap_err().is_poisoned());
    check(&segments, &[kept]);
}

#[test]
fn what_a_failed_write_left_is_zeroed() {
    for (len, nth) in [(5_000, 1), (100_000, 1), (100_000, 2), (100_000, 3)] {
        let disk = SimDisk::new();
        let segments = open(&disk, Vec::new());
        let before = append(&segments, content(100, 1)).unwrap();
        disk.fail(Call::Write, nth, Failure::Full);
        assert!(append(&segments, content(len, 2)).unwrap_err().is_full());
        let after = append(&segments, content(100, 3)).unwrap();
        let end = before.appended.location.offset + before.appended.record_len;
        let between = &raw(&disk, SegmentNumber(0))[end as usize..after.appended.location.offset as usize];
        assert!(between.len() > len && between.iter().all(|&byte| byte == 0), "{len} {nth}");
        check(&segments, &[before, after]);
    }
}
