//! Many threads at once on the segments of one store.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::disk::RealDisk;

const THREADS: u64 = 4;
const APPENDS: u64 = 60;

/// Appends from many threads while others sync and read; every record, and the sealed segments.
fn append_from_many_threads(segments: &Segments) -> (Vec<Kept>, Vec<SealedSegment>) {
    let done = AtomicBool::new(false);
    let thread = |seed: u64| {
        let mut kept = Vec::new();
        for count in 0..APPENDS {
            let len = fastrand::Rng::with_seed(seed * APPENDS + count).usize(0..90_000);
            kept.push(append(segments, content(len, seed * APPENDS + count)).unwrap());
            check(segments, &kept[kept.len() - 1..]);
        }
        kept
    };
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| {
            let mut sealed = Vec::new();
            while !done.load(Ordering::Acquire) {
                segments.sync().unwrap();
                sealed.extend(segments.take_sealed());
            }
            sealed
        });
        let appenders: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || thread(seed))).collect();
        let kept = appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        (kept, committer.join().unwrap())
    })
}

fn check_many_threads(disk: Arc<dyn Disk>) -> Vec<Kept> {
    let options = SegmentOptions { shared_bytes_max: 1 << 20, open_files_max: 2, ..options() };
    let (segments, _) = Segments::open(disk, options, 0, Vec::new(), UnlistedFiles::Remove).unwrap();
    let (mut kept, mut sealed) = append_from_many_threads(&segments);
    segments.sync().unwrap();
    sealed.extend(segments.take_sealed());
    check(&segments, &kept);

    kept.sort_by_key(|kept| kept.appended.location);
    for pair in kept.windows(2) {
        let Appended { location, record_len } = pair[0].appended;
        let next = pair[1].appended.location;
        assert!(next.segment > location.segment || next.offset >= location.offset + record_len, "records overlap");
    }
    let lists = listed(&kept);
    assert!(lists.len() > 5);
    let (_active, full) = lists.split_last().unwrap();
    let ends: Vec<_> = full.iter().map(|full| SealedSegment { number: full.number, len: full.committed_end }).collect();
    sealed.sort_by_key(|sealed| sealed.number);
    assert_eq!(sealed, ends);
    kept
}

#[test]
fn appends_of_many_threads_neither_overlap_nor_get_lost() {
    let disk = SimDisk::new();
    let kept = check_many_threads(Arc::new(disk.clone()));
    let (again, report) = open_with(&disk.crash(7), options(), listed(&kept));
    assert_eq!(report, OpenReport::default());
    check(&again, &kept);
}

#[test]
fn the_same_holds_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    check_many_threads(Arc::new(RealDisk::new(directory.path()).unwrap()));
}

#[test]
fn single_segments_of_many_threads_get_numbers_of_their_own() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept: Vec<Kept> = std::thread::scope(|scope| {
        let write = |seed| single(&segments, content(150_000, seed)).unwrap();
        let writers: Vec<_> = (0..8).map(|seed| scope.spawn(move || write(seed))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(listed(&kept).len(), 8);
    check(&open(&disk.crash(3), listed(&kept)), &kept);
}
