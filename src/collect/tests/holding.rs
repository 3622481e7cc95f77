//! What clients were told to be there stays for its grace.

use super::*;
use crate::{
    index::schema::{self, Applied, key},
    state::decide::find_repository,
};

#[test]
fn a_head_that_finds_less_than_half_of_the_grace_left_prolongs_it() {
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    let written = |running: &Running| {
        let applied: Applied = schema::get(&*running.store().snapshot(), key::applied()).unwrap().unwrap();
        applied.local
    };
    let before = written(&running);
    running.clock.advance(GRACE / 2);
    running.registry.read(|reads| reads.blob_len(&name("team/app"), &digest)).unwrap();
    assert_eq!(written(&running), before, "half is left: nothing is written");
    running.clock.advance(GRACE / 2 - 1);
    running.registry.read(|reads| reads.blob(&name("team/app"), &digest)).unwrap();
    assert_eq!(written(&running), before, "a download promises nothing");
    running.registry.read(|reads| reads.blob_len(&name("team/app"), &digest)).unwrap();
    assert_eq!(written(&running), before + 1);
    running.clock.advance(GRACE - 1);
    running.collect();
    assert!(running.has(&digest), "it was told to be there less than a grace ago");
    running.clock.advance(1);
    running.collect();
    assert!(!running.has(&digest));
    let error = running.registry.read(|reads| reads.blob_len(&name("team/app"), &digest)).unwrap_err();
    assert!(matches!(error, RegistryError::BlobUnknown { .. }), "{error}");
}

#[test]
fn nobody_can_keep_a_blob_for_ever_by_asking_for_it() {
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("team/app", &content(1, 500));
    let mut hours = 0;
    while running.registry.read(|reads| reads.blob_len(&name("team/app"), &digest)).is_ok() {
        running.clock.advance(HOUR);
        hours += 1;
        running.collect();
        assert!(hours < 10 * 24, "it is still there");
    }
    assert_eq!(hours, 7 * 24);
}

/// A client that was told that a layer is there has a grace for the rest of its push, also when the image that named it is
/// deleted and its window ends.
#[test]
fn what_only_a_held_manifest_names_is_prolonged_too() {
    let machine = Machine { window_ms: 2 * DAY, ..Machine::new() };
    let running = machine.start();
    let manifest = running.push_image("team/app", "1", &[1, 2], 500);
    let layer = digest_of(&content(2, 500));
    running.delete("team/app", digest_of(&manifest));
    running.settle();
    running.clock.advance(2 * DAY - 1);
    running.registry.read(|reads| reads.blob_len(&name("team/app"), &layer)).unwrap();
    running.clock.advance(GRACE / 2);
    running.collect();
    assert!(running.has(&layer) && !running.has(&digest_of(&content(1, 500))));
}

/// Found by the crash model (seed 20850, once): a purge that was cut short had ended windows, a client was told of a layer,
/// and the next collection dropped what the purge had left, with the layer.
#[test]
fn what_a_client_is_told_of_between_the_end_of_windows_and_the_drop_is_not_purged() {
    let machine = Machine::new();
    let running = machine.start();
    // More layers than a drop tells in one operation.
    let layers: Vec<u32> = (1..30).collect();
    let manifest = running.push_image("team/app", "1", &layers, 500);
    running.delete("team/app", digest_of(&manifest));
    running.settle();
    let repository = find_repository(&*running.store().snapshot(), &name("team/app")).unwrap().unwrap();
    let request = Request::EndWindows { repository, digests: vec![digest_of(&manifest)] };
    running.store().commit(request).unwrap();
    let told = digest_of(&content(20, 500));
    running.registry.read(|reads| reads.blob_len(&name("team/app"), &told)).unwrap();
    running.collect();
    let left: Vec<u32> = layers.into_iter().filter(|id| running.has(&digest_of(&content(*id, 500)))).collect();
    assert_eq!(left, [20], "and all else went");
    running.clock.advance(GRACE - 1);
    running.collect();
    assert!(running.has(&told));
    running.clock.advance(1);
    running.collect();
    assert!(!running.has(&told));
    running.recount();
}

#[test]
fn a_mount_has_a_grace_of_its_own() {
    let machine = Machine::new();
    let running = machine.start();
    let digest = running.put("a/x", &content(1, 500));
    running.clock.advance(GRACE - 1);
    assert!(running.registry.mount(&name("b/y"), &digest, Some(&name("a/x")), |_| true).unwrap());
    running.clock.advance(GRACE - 1);
    running.collect();
    assert!(running.has(&digest));
    assert!(running.registry.read(|reads| reads.blob_len(&name("a/x"), &digest)).is_err());
    running.clock.advance(GRACE);
    running.collect();
    assert!(!running.has(&digest));
}

#[test]
fn an_open_upload_keeps_what_was_pushed_before_it_for_seven_graces_at_most() {
    for ends_early in [true, false] {
        let machine = Machine::new();
        let running = machine.start();
        let digest = running.put("team/app", &content(1, 500));
        let other = running.put("team/other", &content(2, 500));
        let id = running.registry.start_upload(&name("team/app"), Algorithm::Sha256).unwrap();
        running.clock.advance(GRACE);
        let report = running.collect();
        assert!(running.has(&digest) && !running.has(&other));
        assert_eq!(report.kept.len(), 1, "{report:?}");
        let kept = &report.kept[0];
        assert_eq!((kept.reason, kept.until_ms), (Reason::OpenUpload, BEGIN + 2 * GRACE));
        if ends_early {
            running.registry.cancel_upload(&name("team/app"), &id).unwrap();
            running.clock.advance(GRACE - 1);
            running.collect();
            assert!(running.has(&digest), "time for the manifest that comes after the last layer");
            running.clock.advance(1);
        } else {
            for _ in 2..7 {
                running.clock.advance(GRACE);
                running.collect();
                assert!(running.has(&digest));
            }
            running.clock.advance(GRACE);
        }
        running.collect();
        assert!(!running.has(&digest));
        running.recount();
    }
}

/// The second look of a reader decides: dropped content is unknown, not damaged.
#[test]
fn readers_beside_the_collector_are_told_that_content_is_unknown_never_that_it_is_damaged() {
    let machine = Machine::new();
    let running = machine.start();
    for round in 0..20 {
        let blobs: Vec<Vec<u8>> = (0..8).map(|id| content(round * 8 + id, if id < 4 { 900 } else { 30_000 })).collect();
        let digests: Vec<Digest> = blobs.iter().map(|blob| running.put("team/app", blob)).collect();
        running.clock.advance(GRACE);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for digest in digests.iter().cycle().take(200) {
                    match running
                        .registry
                        .read(|reads| reads.blob(&name("team/app"), digest))
                        .and_then(|found| Ok(found.read_all()?))
                    {
                        Ok(bytes) => assert_eq!(digest_of(&bytes), *digest),
                        Err(RegistryError::BlobUnknown { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            running.collect();
            reader.join().unwrap();
        });
        assert!(digests.iter().all(|digest| !running.has(digest)));
    }
}
