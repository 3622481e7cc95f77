//! Who pushes, mounts, asks and reads, against who collects and compacts: every race as a short story with two or three
//! actors, and what must be so whatever the order of their steps.
//!
//! What a caller was told is compared with what is there when all are done: told that content exists, it is there and stays;
//! told MANIFEST_BLOB_UNKNOWN, nothing was promised. The stories run on real threads here, some rounds each
//! (`ORLOP_TEST_ROUNDS` for more), and on `shuttle`'s under `cfg(shuttle)`, in as many orders (`tools/schedules`).
//! Whoever begins actors only waits for them: shuttle 0.9 wakes it when the last of them ends, whatever it waits for.
//! Rows of the index and open segments are held in memory here as in a server, few of them, so that they come and go: an answer
//! may come from there, and has to be what the index says.

use crate::sync::{
    atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use super::*;

const HERE: &str = "a/here";
const THERE: &str = "b/there";

/// A blob that nobody names, and whose grace is over: the next collection drops it.
fn due_blob(running: &Running, repository: &str, id: u32) -> Vec<u8> {
    let blob = content(id, 300);
    running.put(repository, &blob);
    running.clock.advance(GRACE + 1);
    blob
}

/// Pushes an image; whether it was taken. The only other answer is that something of it is unknown.
fn try_push(running: &Running, repository: &str, tag: Option<&str>, manifest: &[u8]) -> bool {
    match running.push(repository, tag, manifest) {
        Ok(_) => true,
        Err(RegistryError::ManifestBlobUnknown { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A blob can be read by a repository, byte for byte.
fn check_blob(running: &Running, repository: &str, blob: &[u8]) {
    let found = running.registry.read(|reads| reads.blob(&name(repository), &digest_of(blob))).unwrap();
    assert!(found.read_all().unwrap() == blob);
}

/// An image can be pulled whole, now and after another collection.
fn check_image(running: &Running, repository: &str, manifest: &[u8], blobs: &[&[u8]]) {
    for _ in 0..2 {
        let reference = Reference::Digest(digest_of(manifest));
        assert!(
            running.registry.read(|reads| reads.manifest(&name(repository), &reference)).unwrap().bytes == manifest
        );
        blobs.iter().for_each(|blob| check_blob(running, repository, blob));
        running.collect();
    }
}

/// A manifest whose blob is due is pushed while that is collected.
fn push_against_collect(running: &Running) {
    let blob = due_blob(running, HERE, 1);
    let manifest = image(&[&blob], "");
    let taken = thread::scope(|scope| {
        let pushing = scope.spawn(|| try_push(running, HERE, Some("1"), &manifest));
        scope.spawn(|| running.collect());
        pushing.join().unwrap()
    });
    if taken {
        check_image(running, HERE, &manifest, &[&blob]);
    } else {
        running.put(HERE, &blob);
        assert!(try_push(running, HERE, Some("1"), &manifest));
    }
}

/// Who is told by HEAD that a blob is there pushes a manifest with it, while time passes and all that is due is collected.
fn head_then_put_against_collect(running: &Running) {
    let blob = content(1, 300);
    running.put(HERE, &blob);
    running.clock.advance(GRACE - HOUR);
    let manifest = image(&[&blob], "");
    let told = thread::scope(|scope| {
        let asking =
            scope.spawn(|| match running.registry.read(|reads| reads.blob_len(&name(HERE), &digest_of(&blob))) {
                Ok(len) => {
                    assert_eq!(len, blob.len() as u64);
                    assert!(try_push(running, HERE, Some("1"), &manifest), "it was told to be there");
                    true
                }
                Err(RegistryError::BlobUnknown { .. }) => false,
                Err(error) => panic!("{error}"),
            });
        scope.spawn(|| {
            running.clock.advance(2 * HOUR);
            running.collect();
        });
        asking.join().unwrap()
    });
    if told {
        check_image(running, HERE, &manifest, &[&blob]);
    }
}

/// A blob is mounted elsewhere while its last link is collected.
fn mount_against_collect(running: &Running) {
    let blob = due_blob(running, THERE, 1);
    let manifest = image(&[&blob], "");
    let mounted = thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            let from = name(THERE);
            running.registry.mount(&name(HERE), &digest_of(&blob), Some(&from), |_| true).unwrap()
        });
        scope.spawn(|| running.collect());
        mounting.join().unwrap()
    });
    if mounted {
        check_blob(running, HERE, &blob);
        assert!(try_push(running, HERE, None, &manifest), "it was mounted");
        check_image(running, HERE, &manifest, &[&blob]);
    }
}

/// An image whose window is over is pushed again, layer by layer where it must, while all of it is collected.
fn manifest_against_collection_of_its_layers(running: &Running) {
    let blobs = [content(1, 300), content(2, 400)];
    let blobs = [&blobs[0][..], &blobs[1]];
    for blob in &blobs {
        running.put(HERE, blob);
    }
    let manifest = image(&blobs, "");
    running.push(HERE, None, &manifest).unwrap();
    running.delete(HERE, digest_of(&manifest));
    running.clock.advance(WINDOW + GRACE + 1);
    thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            while !try_push(running, HERE, Some("1"), &manifest) {
                for blob in &blobs {
                    running.put(HERE, blob);
                }
            }
        });
        scope.spawn(|| running.collect());
        pushing.join().unwrap();
    });
    check_image(running, HERE, &manifest, &blobs);
}

/// Content is uploaded again while it is collected.
fn collect_then_push_again(running: &Running) {
    let blob = due_blob(running, HERE, 1);
    thread::scope(|scope| {
        let pushing = scope.spawn(|| running.put(HERE, &blob));
        scope.spawn(|| running.collect());
        pushing.join().unwrap();
    });
    check_blob(running, HERE, &blob);
    running.clock.advance(GRACE - HOUR);
    running.collect();
    check_blob(running, HERE, &blob);
}

/// An index is pushed that names a child which nothing reaches any more, while that is collected.
fn child_of_an_index_against_collect(running: &Running) {
    let blob = content(1, 300);
    running.put(HERE, &blob);
    let child = image(&[&blob], "");
    running.push(HERE, None, &child).unwrap();
    let before = index(&[&child]);
    running.push(HERE, Some("1"), &before).unwrap();
    running.delete(HERE, digest_of(&before));
    running.settle();
    running.clock.advance(WINDOW + GRACE + 1);
    let after = index(&[&child, &child]);
    let taken = thread::scope(|scope| {
        let pushing = scope.spawn(|| try_push(running, HERE, Some("2"), &after));
        scope.spawn(|| running.collect());
        pushing.join().unwrap()
    });
    if taken {
        check_image(running, HERE, &after, &[]);
        check_image(running, HERE, &child, &[&blob]);
    }
}

/// A tag is set to another manifest while the one that it had is deleted, and while it is deleted itself.
fn tag_overwrite_against_delete(running: &Running) {
    let blob = content(1, 300);
    running.put(HERE, &blob);
    let [old, new] = ["old", "new"].map(|note| image(&[&blob], note));
    running.push(HERE, Some("1"), &old).unwrap();
    running.push(HERE, Some("2"), &old).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            running.push(HERE, Some("1"), &new).unwrap();
            running.push(HERE, Some("2"), &new).unwrap();
        });
        scope.spawn(|| match running.registry.delete_manifest(&name(HERE), &Reference::Tag("2".parse().unwrap())) {
            // Its manifest was deleted, and it was not set again yet.
            Ok(()) | Err(RegistryError::ManifestUnknown { .. }) => {}
            Err(error) => panic!("{error}"),
        });
        scope.spawn(|| running.delete(HERE, digest_of(&old)));
    });
    let at =
        |tag: &str| running.registry.read(|reads| reads.manifest(&name(HERE), &Reference::Tag(tag.parse().unwrap())));
    assert!(at("1").unwrap().bytes == new, "nobody has taken this tag away");
    // Deleted before it was set again, or after.
    match at("2") {
        Ok(found) => assert!(found.bytes == new),
        Err(RegistryError::ManifestUnknown { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let deleted = running.registry.read(|reads| reads.manifest(&name(HERE), &Reference::Digest(digest_of(&old))));
    assert!(matches!(deleted, Err(RegistryError::ManifestUnknown { .. })));
    check_image(running, HERE, &new, &[&blob]);
}

/// The same content is uploaded by three at once, small and large: all are told that it is there, and it is there once.
fn identical_uploads_at_once(running: &Running, len: usize) {
    let blob = content(1, len);
    thread::scope(|scope| {
        let uploads = [HERE, THERE, HERE].map(|repository| scope.spawn(|| running.put(repository, &blob)));
        uploads.into_iter().for_each(|upload| assert_eq!(upload.join().unwrap(), digest_of(&blob)));
    });
    check_blob(running, HERE, &blob);
    check_blob(running, THERE, &blob);
    running.collect();
    assert_eq!((running.rows("blobs"), running.rows("dead")), (1, 0));
    let segments = running.collector.segments(None, 1_000).unwrap();
    let live: u64 = segments.iter().map(|segment| segment.live_records).sum();
    let allocated: u64 = segments.iter().map(|segment| segment.allocated_bytes).sum();
    assert_eq!(live, 1);
    // A copy that was written in vain beside it leaves parts of two blocks.
    let copies = allocated / len.next_multiple_of(4_096) as u64;
    assert!(len < LARGE || copies == 1, "{allocated} bytes are taken for {len}");
    assert_eq!(files_with(&running.disk, 1).len(), 1);
}

fn identical_small_uploads(running: &Running) {
    identical_uploads_at_once(running, 500);
}

fn identical_large_uploads(running: &Running) {
    identical_uploads_at_once(running, LARGE + 5_000);
}

/// Ranges of a record that is too long to be read at once are read while it is moved out of a segment whose other records
/// are dropped.
fn compaction_against_ranged_read(running: &Running) {
    let kept = content(1, 300_000);
    running.put(HERE, &kept);
    for id in 2..6 {
        running.put(HERE, &content(id, 100_000));
    }
    running.store().retire_segment(running.store().active_segment().unwrap());
    running.push(HERE, Some("1"), &image(&[&kept], "")).unwrap();
    running.clock.advance(GRACE + 1);
    let mut report = CollectionReport::new(Trigger::Request, false, running.collector.now_ms());
    let mut live = Live { store: running.store(), stop: &Stop::default() };
    running.collector.drop_due(&mut live, &mut Untouched::new(), Task::Due, &mut report).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let opened = running.registry.read(|reads| reads.blob(&name(HERE), &digest_of(&kept))).unwrap();
            for at in [0, 70_000, 299_000] {
                assert!(opened.read(at, 1_000).unwrap()[..] == kept[at as usize..at as usize + 1_000]);
            }
            check_blob(running, HERE, &kept);
        });
        scope.spawn(|| running.collect());
        scope.spawn(|| {
            let report = running.collector.compact(false).unwrap();
            MOVED.fetch_add(report.moved_records, std::sync::atomic::Ordering::Relaxed);
        });
    });
    check_blob(running, HERE, &kept);
}

/// Records that compaction has moved: a race that it never takes part in would show nothing.
static MOVED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// A large blob is read all the time, by one who opened it before and by one who opens it again and again, while it is dropped
/// and erased.
fn erasing_against_readers(running: &Running) {
    let blob = content(1, 300_000);
    running.put(HERE, &blob);
    running.clock.advance(GRACE + 1);
    let opened = running.registry.read(|reads| reads.blob(&name(HERE), &digest_of(&blob))).unwrap();
    let collected = AtomicBool::new(false);
    // Once more after the collection, too.
    let until_collected = |read: &dyn Fn()| {
        let mut is_over = false;
        while !is_over {
            is_over = collected.load(Ordering::SeqCst);
            read();
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            until_collected(&|| {
                for at in [0, 100_000, 299_000] {
                    let read = opened.read(at, 1_000).unwrap();
                    assert!(read[..] == blob[at as usize..at as usize + 1_000], "who has it open reads what it was");
                }
            });
        });
        scope.spawn(|| {
            until_collected(&|| match running.store().content(&digest_of(&blob)).unwrap() {
                Some(found) => {
                    assert!(found.read(200_000, 1_000).unwrap()[..] == blob[200_000..201_000], "it was opened")
                }
                None => assert!(!running.has(&digest_of(&blob)), "what was dropped came back"),
            });
        });
        scope.spawn(|| {
            running.collect();
            collected.store(true, Ordering::SeqCst);
        });
    });
    drop(opened);
    assert_eq!(running.collect().still_read, 0);
    assert!(running.files_with(1).is_empty(), "its bytes are left");
}

/// How far an image has come that is collected and pushed again: each step is noted when it begins, and when it is done.
#[derive(Default)]
struct Fate {
    begun: AtomicU64,
    done: AtomicU64,
}

/// The steps of a fate, by their numbers.
const UNTAGGED: u64 = 1;
const COLLECTED: u64 = 2;
const PUSHED: u64 = 3;
const OVER: u64 = 4;

impl Fate {
    fn step(&self, number: u64, step: impl FnOnce()) {
        self.begun.store(number, Ordering::SeqCst);
        step();
        self.done.store(number, Ordering::SeqCst);
    }

    /// Asks for something that is there until the step `until`, and is back after [`PUSHED`]; `was_gone` is what was answered
    /// before.
    fn ask(&self, until: u64, was_gone: &mut bool, ask: impl FnOnce() -> bool) {
        let done = self.done.load(Ordering::SeqCst);
        let is_there = ask();
        let begun = self.begun.load(Ordering::SeqCst);
        if begun < until || done >= PUSHED {
            assert!(is_there, "it is there: {done} was done, and {begun} begun");
        }
        if begun < PUSHED {
            assert!(done < until || !is_there, "gone, and a stale answer gave it: {done} was done, and {begun} begun");
            assert!(!*was_gone || !is_there, "it was gone, and came back by itself");
        }
        *was_gone = !is_there;
    }
}

/// Someone asks for a tag, for the head of a manifest and for the manifest, for a blob, all the time,
/// while they are untagged, dropped, erased and pushed again. What is gone stays gone until it is pushed again, and never is
/// there less, or other bytes, than there should be.
fn collect_against_readers(running: &Running) {
    let (blob, fate) = (content(1, 300), Fate::default());
    running.put(HERE, &blob);
    let manifest = image(&[&blob], "");
    running.push(HERE, Some("1"), &manifest).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| ask_all_the_time(running, &fate, &manifest, &blob));
        scope.spawn(|| {
            fate.step(UNTAGGED, || {
                running.registry.delete_manifest(&name(HERE), &Reference::Tag("1".parse().unwrap())).unwrap();
                running.settle();
            });
            running.clock.advance(WINDOW + GRACE + 1);
            fate.step(COLLECTED, || drop((running.collect(), running.collect())));
            fate.step(PUSHED, || {
                running.put(HERE, &blob);
                running.push(HERE, Some("1"), &manifest).unwrap();
            });
            fate.step(OVER, || {});
        });
    });
    check_image(running, HERE, &manifest, &[&blob]);
}

fn ask_all_the_time(running: &Running, fate: &Fate, manifest: &[u8], blob: &[u8]) {
    let (registry, repository) = (&running.registry, name(HERE));
    let references = [Reference::Tag("1".parse().unwrap()), Reference::Digest(digest_of(manifest))];
    let mut were_gone = [false; 5];
    let mut is_over = false;
    while !is_over {
        // Once more after the end.
        is_over = fate.done.load(Ordering::SeqCst) == OVER;
        for (at, (reference, until)) in references.iter().zip([UNTAGGED, COLLECTED]).enumerate() {
            fate.ask(until, &mut were_gone[at], || {
                known(registry.read(|reads| reads.manifest_head(&repository, reference))).is_some()
            });
            fate.ask(until, &mut were_gone[2 + at], || {
                let found = known(registry.read(|reads| reads.manifest(&repository, reference)));
                found.map(|found| assert!(found.bytes == manifest, "other bytes")).is_some()
            });
        }
        fate.ask(COLLECTED, &mut were_gone[4], || {
            let found = known(registry.read(|reads| reads.blob(&repository, &digest_of(blob))));
            found.map(|found| assert!(found.read_all().unwrap() == blob, "other bytes")).is_some()
        });
        thread::yield_now();
    }
}

/// An answer, unless it is that something is not known; nothing else may be wrong.
fn known<T>(answer: Result<T, RegistryError>) -> Option<T> {
    match answer {
        Ok(found) => Some(found),
        Err(
            RegistryError::ManifestUnknown { .. } | RegistryError::BlobUnknown { .. } | RegistryError::NameUnknown(_),
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Two go on with one upload and a third cancels it: it is written to by one at a time, finished once or not at all.
fn leases_of_one_upload(running: &Running) {
    let blob = content(1, 600);
    let repository = name(HERE);
    let id = running.registry.start_upload(&repository, Algorithm::Sha256).unwrap();
    let finished = AtomicU64::new(0);
    let refused = |error: RegistryError| {
        let expected = matches!(error, RegistryError::UploadBusy(_) | RegistryError::UploadUnknown(_));
        assert!(expected, "{error}");
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| match running.registry.lease_upload(&repository, &id) {
                Ok(mut lease) => {
                    lease.write(&blob).unwrap();
                    lease.finish(digest_of(&blob)).unwrap();
                    finished.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => refused(error),
            });
        }
        scope.spawn(|| running.registry.cancel_upload(&repository, &id).unwrap_or_else(refused));
    });
    match finished.load(Ordering::SeqCst) {
        0 => assert!(!running.has(&digest_of(&blob))),
        1 => check_blob(running, HERE, &blob),
        more => panic!("finished {more} times"),
    }
    assert!(matches!(running.registry.upload_offset(&repository, &id), Err(RegistryError::UploadUnknown(_))));
}

/// A story: its name, from how many bytes on content has a segment of its own, and what happens.
type Race = (&'static str, usize, fn(&Running));

const RACES: [Race; 14] = [
    ("collect against readers", LARGE, collect_against_readers),
    ("push against collect", LARGE, push_against_collect),
    ("HEAD, then PUT against collect", LARGE, head_then_put_against_collect),
    ("mount against collect", LARGE, mount_against_collect),
    ("manifest against the collection of its layers", LARGE, manifest_against_collection_of_its_layers),
    ("collect, then push again", LARGE, collect_then_push_again),
    ("child of an index against collect", LARGE, child_of_an_index_against_collect),
    ("tag overwrite against delete", LARGE, tag_overwrite_against_delete),
    ("identical small uploads", LARGE, identical_small_uploads),
    ("identical large uploads", LARGE, identical_large_uploads),
    ("compaction against ranged read", 400_000, compaction_against_ranged_read),
    ("erasing against readers", LARGE, erasing_against_readers),
    ("punching against readers", 400_000, erasing_against_readers),
    ("leases of one upload", LARGE, leases_of_one_upload),
];

/// One order of a story, and the sums over all rows afterwards.
fn run(large: usize, race: fn(&Running)) {
    let machine = Machine { large_bytes: large as u64, ..Machine::new() };
    let running = machine.start();
    race(&running);
    running.recount();
}

fn rounds(least: usize) -> usize {
    std::env::var("ORLOP_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(least)
}

#[cfg(not(shuttle))]
#[test]
fn whatever_real_threads_do_first_nothing_is_lost_that_was_told_to_be_there() {
    for (what, large, race) in RACES.into_iter().skip(1) {
        println!("{what}");
        (0..rounds(25)).for_each(|_| run(large, race));
    }
    assert!(MOVED.load(std::sync::atomic::Ordering::Relaxed) > 0, "nothing was ever compacted");
}

#[cfg(not(shuttle))]
#[test]
fn what_is_collected_stays_gone_for_whoever_reads_until_it_is_pushed_again() {
    (0..rounds(25)).for_each(|_| run(LARGE, collect_against_readers));
}

#[cfg(shuttle)]
#[test]
fn in_any_order_of_steps_nothing_is_lost_that_was_told_to_be_there() {
    use shuttle::{
        Runner,
        scheduler::{PctScheduler, RandomScheduler},
    };
    let wanted = std::env::var("ORLOP_TEST_RACE").unwrap_or_default();
    let seed = std::env::var("ORLOP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    println!("ORLOP_TEST_SEED={seed}");
    for (what, large, race) in RACES.into_iter().filter(|(what, ..)| what.contains(&wanted)) {
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 20;
        config.silence_warnings = true;
        let began = Instant::now();
        // At random, and by priorities that change at a few places: the latter let one actor be far ahead of another.
        let half = rounds(1_000).div_ceil(2);
        let random = RandomScheduler::new_from_seed(seed, half);
        let pct = PctScheduler::new_from_seed(seed, 3, half);
        let done = Runner::new(random, config.clone()).run(move || run(large, race))
            + Runner::new(pct, config).run(move || run(large, race));
        println!("ok: {what}: {done} schedules in {} s", began.elapsed().as_secs());
    }
}
