//! What comes back of the disk.

use super::*;

/// What a block of the file system is.
const BLOCK: u64 = 4_096;

/// What segments may take: what lives, a block for each record, and a tenth.
fn check_disk(running: &Running) {
    let segments = running.collector.segments(None, 1_000).unwrap();
    let sum = |of: fn(&SegmentInfo) -> u64| segments.iter().map(of).sum::<u64>();
    let (allocated, live) = (sum(|it| it.allocated_bytes), sum(|it| it.live_bytes));
    let allowed = live + live / 10 + BLOCK * sum(|it| it.live_records) + (64 << 10) + BLOCK;
    assert!(allocated <= allowed, "{allocated} bytes are taken, {allowed} are allowed: {segments:#?}");
    let disk = running.collector.disk().unwrap();
    assert_eq!((disk.live_bytes, disk.dead_bytes), (live, allocated - live));
    assert!(disk.disk_bytes >= allocated);
}

/// Drops everything but some, and brings the disk down.
fn keep_only(running: &Running, ids: std::ops::Range<u32>, len: usize, keep: impl Fn(u32) -> bool) {
    for id in ids.clone() {
        running.put("team/app", &content(id, len));
    }
    let kept: Vec<Vec<u8>> = ids.clone().filter(|id| keep(*id)).map(|id| content(id, len)).collect();
    for (at, some) in kept.chunks(500).enumerate() {
        let blobs: Vec<&[u8]> = some.iter().map(Vec::as_slice).collect();
        running.push("team/app", Some(&format!("t{at}")), &image(&blobs, "kept")).unwrap();
    }
    running.clock.advance(GRACE);
    for _ in 0..3 {
        running.collector.tick();
        running.collector.tick_compaction();
    }
    check_disk(running);
    for id in ids.filter(|id| !keep(*id)) {
        assert!(!running.has(&digest_of(&content(id, len))));
    }
    kept.iter().for_each(|blob| assert!(running.has(&digest_of(blob))));
    running.recount();
}

#[test]
fn the_disk_comes_down_to_what_lives_whatever_is_dropped() {
    for (seed, len) in [(1, 100), (2, 500), (3, 3_000), (4, 4_000), (5, 9_000), (6, 19_000)] {
        for share in [2, 3, 10, 50] {
            let machine = Machine::new();
            let running = machine.start();
            let count = (600_000 / len as u32).clamp(60, 1_500);
            keep_only(&running, 0..count, len, |id| (id * 7 + seed) % share == 0);
        }
    }
}

/// Erasing alone leaves the worst that it can: each record lies across two borders of blocks, whose other bytes are gone,
/// and yet not twice what lives is taken.
#[test]
fn records_across_the_borders_of_blocks_are_moved_together() {
    let machine = Machine::new();
    let running = machine.start();
    let mut kept = Vec::new();
    for id in 0..6 {
        // Record lengths 4,000 or 8,128, then 8,256: each of the latter begins 32 bytes before a border.
        running.put("team/app", &content(id * 2, if id == 0 { 3_890 } else { 8_010 }));
        kept.push(content(id * 2 + 1, 8_150));
        running.put("team/app", &kept[id as usize]);
    }
    // The next segment, which seals the first.
    kept.push(content(100, 15_000));
    running.put("team/app", &kept[6]);
    running.push("team/app", Some("1"), &image(&kept.iter().map(Vec::as_slice).collect::<Vec<_>>(), "")).unwrap();
    running.clock.advance(GRACE);
    running.collector.tick();
    let first = running.collector.segments(None, 1).unwrap().remove(0);
    assert_eq!((first.live_records, first.state, first.allocated_bytes), (6, SegmentState::Sealed, 6 * 16_384));
    assert!(first.dead_bytes * 2 < first.allocated_bytes);
    running.collector.tick_compaction();
    assert!(running.collector.segments(None, 10).unwrap().iter().all(|it| it.number != first.number));
    check_disk(&running);
    kept.iter().for_each(|blob| assert!(running.has(&digest_of(blob))));
}

#[test]
fn the_segment_that_takes_appends_gives_its_blocks_back_too() {
    let machine = Machine::new();
    let running = machine.start();
    for id in 0..10 {
        running.put("team/app", &content(id, 8_000));
    }
    let before = running.collector.segments(None, 10).unwrap();
    assert_eq!((before.len(), before[0].state), (1, SegmentState::Open));
    running.clock.advance(GRACE);
    let report = running.collect();
    let after = running.collector.segments(None, 10).unwrap();
    assert_eq!((after.len(), after[0].state, after[0].live_records), (1, SegmentState::Open, 0));
    assert!(after[0].allocated_bytes <= 2 * BLOCK, "{after:?}");
    assert_eq!(report.returned_bytes, before[0].allocated_bytes - after[0].allocated_bytes);
    running.put("team/app", &content(100, 8_000));
    assert!(running.has(&digest_of(&content(100, 8_000))));
}

#[test]
fn a_dry_run_of_compaction_tells_what_a_real_one_then_does() {
    let machine = Machine::new();
    let running = machine.start();
    running.collector.pause(Pausable::Compact).unwrap();
    for id in 0..300 {
        running.put("team/app", &content(id, 1_000));
    }
    let kept: Vec<Vec<u8>> = (0..300).step_by(10).map(|id| content(id, 1_000)).collect();
    running.push("team/app", Some("1"), &image(&kept.iter().map(Vec::as_slice).collect::<Vec<_>>(), "")).unwrap();
    running.clock.advance(GRACE);
    running.collect();
    assert_eq!(running.collector.compact(false).unwrap().segments, []);
    running.collector.resume(Pausable::Compact).unwrap();
    let plan = running.collector.compact(true).unwrap();
    assert!(plan.segments.len() >= 2 && plan.moved_records == 0, "{plan:?}");
    let report = running.collector.compact(false).unwrap();
    let numbers = |report: &CompactionReport| report.segments.iter().map(|it| it.segment).collect::<Vec<_>>();
    assert_eq!(numbers(&plan), numbers(&report));
    assert_eq!(report.segments_removed, plan.segments.len() as u64);
    assert_eq!(report.moved_records, plan.segments.iter().map(|it| it.live_records).sum::<u64>());
    assert!(report.returned_bytes > 0 && report.segments.iter().all(|it| it.removed));
    kept.iter().for_each(|blob| assert!(running.has(&digest_of(blob))));
    assert_eq!(running.collector.compact(false).unwrap().segments, [], "once is enough");
    running.recount();
}

/// A copy of content that was dropped, or pushed to another place, while it was copied is of no use: it is erased.
#[test]
fn compacting_beside_pushes_deletes_and_collections_loses_nothing_and_leaves_nothing() {
    let machine = Machine::new();
    let running = machine.start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                running.collector.compact(false).unwrap();
            }
        });
        for round in 0..25_u32 {
            let ids: Vec<u32> = (0..40).map(|id| round * 40 + id).collect();
            let manifest = running.push_image("team/app", &format!("t{round}"), &ids, 1_500);
            let keeper = image(&[&content(ids[0], 1_500), &content(ids[1], 1_500)], "keeper");
            running.push("team/app", Some(&format!("k{round}")), &keeper).unwrap();
            running.delete("team/app", digest_of(&manifest));
            running.clock.advance(GRACE);
            running.collector.purge(&Owner::Repository(name("team/app")), false).unwrap();
        }
        done.store(true, Ordering::Release);
        compacting.join().unwrap();
    });
    for _ in 0..2 {
        running.collect();
        running.collector.compact(false).unwrap();
    }
    running.collect();
    for round in 0..25 {
        assert!(running.has(&digest_of(&content(round * 40, 1_500))), "round {round}");
        assert_eq!(running.files_with(round * 40).len(), 1, "one copy of what lives");
        assert_eq!(running.files_with(round * 40 + 7), [""; 0]);
    }
    assert_eq!(running.rows("dead"), 0);
    check_disk(&running);
    running.recount();
}

#[test]
fn copies_of_what_is_there_already_and_of_what_is_refused_are_erased() {
    let machine = Machine::new();
    let running = machine.start();
    let blob = content(1, 900);
    running.put("a/x", &blob);
    // Two uploads of the same content at once: both write it before one of them is named.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let running = &running;
            scope.spawn(move || {
                for id in 10..30 {
                    running.put(&format!("t/{thread}"), &content(id, 900));
                }
            });
        }
    });
    running.collect();
    assert_eq!(running.rows("dead"), 0);
    for id in 10..30 {
        let search = running.collector.search(&digest_of(&content(id, 900))).unwrap();
        let found: Vec<PlaceKind> = search.places.iter().map(|place| place.what).collect();
        assert_eq!(found, [PlaceKind::Live], "one copy of {id}");
    }
    running.recount();
}

/// What a killed process has written and not named lies below what it has named, so no cut takes it away.
#[test]
fn what_a_killed_process_wrote_and_never_named_is_found_and_erased() {
    for (cut, flushed) in [(None, true), (Some(1), false), (Some(2), true)] {
        let machine = Machine::new();
        let running = machine.start();
        running.put("team/app", &content(1, 700));
        for id in 50..54 {
            // As if the process had ended between writing and naming them.
            let bytes = content(id, 700);
            running.store().write_for_nothing(&digest_of(&bytes), &bytes);
        }
        running.put("team/app", &content(2, 700));
        if flushed {
            crate::index::Index::flush(&*machine.index).unwrap();
        }
        let left = cut.map_or_else(|| machine.killed(), |seed| machine.cut(seed));
        drop(running);
        let running = left.start();
        let digest = digest_of(&content(51, 700));
        let search = running.collector.search(&digest).unwrap();
        assert!(!search.gone && (search.found || cut.is_some()), "{search:?}");
        running.collector.tick();
        for id in 50..54 {
            assert_eq!(running.files_with(id), [""; 0], "content {id}");
        }
        assert!(running.collector.search(&digest).unwrap().gone);
        assert!(running.has(&digest_of(&content(1, 700))) && running.has(&digest_of(&content(2, 700))));
        running.put("team/app", &content(3, 700));
        assert!(running.has(&digest_of(&content(3, 700))));
        running.recount();
    }
}

#[test]
fn a_search_tells_unlisted_files_and_uploads_and_files_of_others() {
    let machine = Machine::new();
    let running = machine.start();
    let blob = content(1, 30_000);
    let digest = running.put("team/app", &blob);
    let id = running.registry.start_upload(&name("team/app"), Algorithm::Sha256).unwrap();
    let mut lease = running.registry.lease_upload(&name("team/app"), &id).unwrap();
    lease.write(&content(2, 60_000)).unwrap();
    lease.keep().unwrap();
    // A copy that somebody has made by hand.
    let path = crate::segment::path_of(crate::location::SegmentNumber(0));
    let source = running.disk.open(&running.files_with(1)[0]).unwrap();
    let mut bytes = vec![0; source.len().unwrap() as usize];
    source.read_exact_at(&mut bytes, 0).unwrap();
    running.disk.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
    running.clock.advance(GRACE);
    running.registry.cancel_upload(&name("none/at/all"), &id).unwrap_err();
    running
        .store()
        .commit(Request::Drop { due: crate::state::request::Due::Link { repository: 1, digest }, window_ms: 0 })
        .unwrap();
    running.collector.collect(false).unwrap();
    let search = running.collector.search(&digest).unwrap();
    let mut found: Vec<(&str, PlaceKind)> = search.places.iter().map(|it| (it.path.as_str(), it.what)).collect();
    found.sort_by_key(|(path, what)| (path.to_string(), *what as u8));
    assert!(!search.gone && search.found && search.place.is_none(), "{search:?}");
    assert!(
        found.contains(&(path.as_str(), PlaceKind::Record)) && found.contains(&(path.as_str(), PlaceKind::Unlisted))
    );
    assert!(found.iter().any(|(_, what)| *what == PlaceKind::Upload));
    running.disk.remove(&path).unwrap();
    let search = running.collector.search(&digest).unwrap();
    assert!(search.gone, "an upload is no copy: {search:?}");
    running.disk.create("notes.txt").unwrap();
    assert!(!running.collector.search(&digest).unwrap().gone, "orlop does not know what others have put there");
}

#[test]
fn on_a_full_disk_collecting_works_and_gives_room_for_pushes() {
    let machine = Machine::new();
    let running = machine.start();
    for id in 0..12 {
        running.put("team/app", &content(id, 18_000));
    }
    let manifest = running.push_image("team/held", "1", &[100, 101], 18_000);
    running.delete("team/held", digest_of(&manifest));
    running.clock.advance(GRACE);
    running.disk.set_capacity(Some(0));
    let full = running.store().put(&name("team/app"), Algorithm::Sha256, &content(200, 18_000));
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    let report = running.collector.purge(&Owner::Repository(name("team/held")), false).unwrap();
    assert!(report.returned_bytes > 13 * 18_000, "{report:?}");
    assert!((0..12).all(|id| running.files_with(id).is_empty()));
    running.disk.set_capacity(None);
    running.put("team/app", &content(200, 18_000));
    running.recount();
}

#[test]
fn what_is_still_read_goes_when_its_reader_is_done() {
    for len in [LARGE - 1, 400_000] {
        let machine = Machine::new();
        let running = machine.start();
        let large = content(1, len);
        let digest = running.put("team/app", &large);
        let reader = running.store().content(&digest).unwrap().unwrap();
        running.clock.advance(GRACE);
        let report = running.collect();
        // Small records are read at once, and segments of their own go under their readers.
        assert_eq!(report.still_read, u64::from(len > LARGE), "{report:?}");
        assert!(reader.read_all().unwrap() == large);
        drop(reader);
        running.collector.tick();
        assert_eq!(running.files_with(1), [""; 0]);
        assert_eq!(running.rows("dead"), 0);
    }
}

#[test]
fn a_segment_that_cannot_be_unlinked_is_tried_again() {
    use crate::disk::sim::{Call, Failure};
    let machine = Machine::new();
    let running = machine.start();
    running.put("team/app", &content(1, 30_000));
    running.clock.advance(GRACE);
    running.disk.fail(Call::Names, 1, Failure::Io);
    running.collect();
    assert_eq!(running.files_with(1).len(), 1);
    assert!(!running.collector.search(&digest_of(&content(1, 30_000))).unwrap().gone);
    running.collect();
    assert_eq!(running.files_with(1), [""; 0]);
    assert!(running.collector.search(&digest_of(&content(1, 30_000))).unwrap().gone);
}

#[test]
fn a_poisoned_store_is_waited_for_and_nothing_is_dropped() {
    use crate::disk::sim::{Call, Failure};
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    running.disk.fail(Call::SyncData, 1, Failure::Io);
    running.store().put(&name("team/app"), Algorithm::Sha256, &content(2, 500)).unwrap_err();
    running.clock.advance(GRACE);
    for _ in 0..3 {
        assert_eq!(running.collector.tick(), running.collector.options().interval);
        assert_eq!(running.collector.tick_compaction(), running.collector.options().interval);
    }
    assert!(matches!(running.collector.collect(false), Err(RegistryError::Unavailable(_))));
    assert!(running.has(&digest));
}

/// The segment of a record was filled, and all else in it dropped, before the committer came to the request that names it.
#[test]
fn a_record_in_a_segment_that_was_removed_meanwhile_is_written_again() {
    use crate::{
        location::RecordKind,
        state::request::{Content, Outcome, Placement},
    };
    let machine = Machine::new();
    let running = machine.start();
    running.put("team/app", &content(1, 500));
    let bytes = content(2, 500);
    let (digest, appended) = (digest_of(&bytes), running.store().write_for_nothing(&digest_of(&bytes), &bytes));
    let segment = appended.location.segment;
    running.store().retire_segment(segment);
    running.clock.advance(GRACE);
    // The first batch syncs, the second notes the seal; then nothing lives there.
    running.collect();
    running.collect();
    assert!(running.collector.segments(None, 10).unwrap().iter().all(|it| it.number != segment.0));
    let placement = Placement {
        kind: RecordKind::Blob,
        single: false,
        location: appended.location,
        record_len: appended.record_len,
    };
    let content = Content { digest, len: 500, placement: Some(placement), replaces_damaged: false };
    let repository = name("team/app");
    let upload =
        Request::Upload { repository: repository.clone(), content, session: None, held_bytes: 0, grace_ms: GRACE };
    assert_eq!(running.store().commit(upload).unwrap(), Outcome::ContentNeeded);
    let (from, to, record_len) = (appended.location, appended.location, appended.record_len);
    let moved = running.store().commit(Request::Move { digest, from, to, record_len }).unwrap();
    assert_eq!(moved, Outcome::ContentNeeded);
    running.store().commit(Request::Discard(vec![(from, record_len)])).unwrap();
    assert_eq!((running.rows("blobs"), running.rows("dead")), (0, 0));
    running.store().put(&repository, Algorithm::Sha256, &bytes).unwrap();
    assert!(running.has(&digest));
    drop(running);
    assert!(machine.start().has(&digest), "no segment is listed that has no file");
}

#[test]
fn compaction_without_room_fails_and_loses_nothing() {
    let machine = Machine::new();
    let running = machine.start();
    for id in 0..300 {
        running.put("team/app", &content(id, 1_000));
    }
    let kept: Vec<Vec<u8>> = (0..300).step_by(10).map(|id| content(id, 1_000)).collect();
    running.push("team/app", Some("1"), &image(&kept.iter().map(Vec::as_slice).collect::<Vec<_>>(), "")).unwrap();
    running.clock.advance(GRACE);
    running.collect();
    running.disk.set_capacity(Some(0));
    assert!(matches!(running.collector.compact(false), Err(RegistryError::Full(_))));
    running.collector.tick_compaction();
    kept.iter().for_each(|blob| assert!(running.has(&digest_of(blob))));
    running.disk.set_capacity(None);
    assert!(running.collector.compact(false).unwrap().segments_removed > 0);
    kept.iter().for_each(|blob| assert!(running.has(&digest_of(blob))));
    check_disk(&running);
    running.recount();
}

#[test]
fn a_pace_is_kept_and_ends_with_a_stop() {
    let stop = Stop::default();
    let began = Instant::now();
    let mut pace = Pace::new(&stop, 1_000_000);
    (0..10).for_each(|_| pace.spend(10_000));
    assert!(began.elapsed() >= Duration::from_millis(95), "{:?}", began.elapsed());
    std::thread::scope(|scope| {
        scope.spawn(|| Pace::new(&stop, 1).spend(1_000_000));
        std::thread::sleep(Duration::from_millis(20));
        stop.set();
    });
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(stop.check().is_err());
}
