//! What goes when, and what stays.

use super::*;

#[test]
fn a_blob_that_no_manifest_ever_named_goes_after_its_grace_and_its_bytes_with_it() {
    for len in [5_000, LARGE + 5_000] {
        let machine = Machine::new();
        let running = machine.start();
        let digest = running.put("team/app", &content(1, len));
        running.clock.advance(GRACE - 1);
        let report = running.collect();
        assert!(running.has(&digest));
        let kept = &report.kept[0];
        assert_eq!((kept.digest, kept.reason, kept.until_ms), (Some(digest), Reason::Grace, BEGIN + GRACE));
        assert!(!running.files_with(1).is_empty());

        running.clock.advance(1);
        let report = running.collect();
        assert!(!running.has(&digest));
        assert_eq!(running.files_with(1), [""; 0]);
        let dropped = Dropped {
            kind: Kind::Link,
            digest: Some(digest),
            repository: Some(name("team/app")),
            bytes: len as u64,
            last: true,
            tag: None,
            policy: None,
        };
        assert_eq!(report.dropped[0], dropped);
        assert_eq!((report.freed_bytes, report.erased_records), (len as u64, 1));
        assert!(report.returned_bytes >= len as u64 - 4_096 || len < LARGE, "{report:?}");
        assert!(
            running.registry.read(|reads| reads.repositories(None, 10)).unwrap().names.is_empty(),
            "the repository is gone, too"
        );
        assert_eq!((running.rows("dead"), running.rows("usage")), (0, 0));
        running.recount();
    }
}

#[test]
fn a_deleted_image_can_be_restored_in_its_window_and_is_gone_after_it() {
    let machine = Machine::new();
    let running = machine.start();
    let manifest = running.push_image("team/app", "latest", &[1, 2, 3], 6_000);
    running.delete("team/app", digest_of(&manifest));
    running.clock.advance(WINDOW - 1);
    let report = running.collect();
    assert_eq!((report.totals.len(), report.kept[0].reason), (0, Reason::Window));
    assert!(running.has(&digest_of(&manifest)) && running.has(&digest_of(&content(2, 6_000))));

    running.clock.advance(1);
    let plan = running.collector.collect(true).unwrap();
    assert!(running.has(&digest_of(&manifest)), "a plan changes nothing");
    let report = running.collect();
    assert_eq!((plan.totals.clone(), plan.freed_bytes), (report.totals.clone(), report.freed_bytes));
    assert_eq!(plan.dropped, report.dropped);
    assert_eq!(report.freed_bytes, 18_000 + manifest.len() as u64);
    let kinds: Vec<Kind> = report.totals.iter().map(|total| total.kind).collect();
    assert_eq!(kinds, [Kind::Manifest, Kind::History, Kind::Link, Kind::Repository]);
    for id in [1, 2, 3] {
        assert_eq!(running.files_with(id), [""; 0]);
        let search = running.collector.search(&digest_of(&content(id, 6_000))).unwrap();
        assert!(search.gone && !search.found && search.places.is_empty(), "{search:?}");
    }
    assert_eq!((running.rows("dead"), running.rows("usage"), running.rows("names")), (0, 0, 0));
    running.recount();
}

#[test]
fn what_others_still_name_stays() {
    let machine = Machine::new();
    let running = machine.start();
    let first = running.push_image("a/x", "1", &[1, 2], 6_000);
    running.push_image("b/y", "1", &[1, 3], 6_000);
    running.delete("a/x", digest_of(&first));
    running.clock.advance(WINDOW);
    let report = running.collect();
    let last = |id| {
        let digest = Some(digest_of(&content(id, 6_000)));
        report.dropped.iter().find(|dropped| dropped.digest == digest).map(|dropped| dropped.last)
    };
    assert_eq!((last(1), last(2), last(3)), (Some(false), Some(true), None));
    assert!(running.has(&digest_of(&content(1, 6_000))) && running.has(&digest_of(&content(3, 6_000))));
    assert_eq!(running.files_with(2), [""; 0]);
    let search = running.collector.search(&digest_of(&content(1, 6_000))).unwrap();
    assert!(!search.gone && search.place.is_some() && search.places[0].what == PlaceKind::Live);
    running.recount();
}

/// Each drop makes the next possible: index, children, what they name.
#[test]
fn an_index_takes_its_children_along_in_one_run() {
    let machine = Machine::new();
    let running = machine.start();
    let mut children = Vec::new();
    for id in 0..20 {
        let (config, layer) = (content(2 * id, 300), content(2 * id + 1, 3_000));
        running.put("team/app", &config);
        running.put("team/app", &layer);
        let child = image(&[&config, &layer], "child");
        running.push("team/app", None, &child).unwrap();
        children.push(child);
    }
    let index = index(&children.iter().map(Vec::as_slice).collect::<Vec<_>>());
    running.push("team/app", Some("multi"), &index).unwrap();
    running.clock.advance(30 * DAY);
    assert_eq!(running.collect().totals.len(), 0, "it is tagged");
    running.registry.delete_manifest(&name("team/app"), &Reference::Tag("multi".parse().unwrap())).unwrap();
    running.settle();
    running.clock.advance(WINDOW);
    let report = running.collect();
    let manifests = report.totals.iter().find(|total| total.kind == Kind::Manifest).unwrap();
    assert_eq!(manifests.count, 21, "{report:?}");
    assert!((0..40).all(|id| running.files_with(id).is_empty()));
    assert_eq!((running.rows("usage"), running.rows("blobs"), running.rows("segments")), (0, 0, 1));
    running.recount();
}

#[test]
fn what_was_pushed_by_digest_and_never_reached_stays() {
    let machine = Machine::new();
    let running = machine.start();
    let blobs = [content(1, 500), content(2, 500)];
    for blob in &blobs {
        running.put("team/app", blob);
    }
    let manifest = image(&[&blobs[0], &blobs[1]], "root");
    running.push("team/app", None, &manifest).unwrap();
    running.clock.advance(1_000 * DAY);
    assert_eq!(running.collect().totals.len(), 0);
    assert!(running.has(&digest_of(&manifest)) && running.has(&digest_of(&blobs[1])));
}

#[test]
fn a_purge_ends_the_windows_of_its_scope_only_and_tells_what_a_grace_still_keeps() {
    let machine = Machine::new();
    let running = machine.start();
    let mut manifests = Vec::new();
    for (id, repository) in ["a/x", "a/y", "a-b/x", "a0", "b"].into_iter().enumerate() {
        let manifest = running.push_image(repository, "1", &[id as u32 * 2, id as u32 * 2 + 1], 2_000);
        running.delete(repository, digest_of(&manifest));
        manifests.push(manifest);
    }
    running.put("a/x", &content(50, 2_000));
    running.clock.advance(1);
    let unknown = |scope| running.collector.purge(&scope, false).unwrap_err();
    assert!(matches!(unknown(Owner::Organisation("zz".into())), RegistryError::OrganisationUnknown(_)));
    assert!(matches!(unknown(Owner::Repository(name("zz"))), RegistryError::NameUnknown(_)));
    let alive = |running: &Running| -> Vec<bool> { manifests.iter().map(|it| running.has(&digest_of(it))).collect() };

    let scope = Owner::Organisation("a".to_owned());
    let plan = running.collector.purge(&scope, true).unwrap();
    assert_eq!(alive(&running), [true; 5]);
    let report = running.collector.purge(&scope, false).unwrap();
    assert_eq!(plan.totals, report.totals);
    assert_eq!((report.trigger, alive(&running)), (Trigger::Purge, vec![false, false, true, true, true]));
    let kept: Vec<_> = report.kept.iter().map(|kept| (kept.kind, kept.reason)).collect();
    assert_eq!(kept, [(Kind::Link, Reason::Grace)], "no manifest ever named it");
    assert!((0..4).all(|id| running.files_with(id).is_empty()) && !running.files_with(4).is_empty());

    running.clock.advance(GRACE);
    let report = running.collector.purge(&Owner::Organisation("_".to_owned()), false).unwrap();
    assert_eq!(alive(&running), [false, false, true, false, false]);
    assert!(report.freed_bytes > 10_000, "{report:?}");
    running.collector.purge(&Owner::Repository(name("a-b/x")), false).unwrap();
    assert_eq!(alive(&running), [false; 5]);
    assert!((0..10).all(|id| running.files_with(id).is_empty()));
    running.clock.advance(WINDOW);
    running.collect();
    assert_eq!(running.rows("usage"), 0, "the history of its tags had its own window");
    running.recount();
}

/// Whoever wins, the answer is right: a manifest that was accepted has its layers, and one that was not is told which are
/// missing.
#[test]
fn a_push_that_races_the_collector_keeps_its_layers_or_is_told() {
    let (mut kept, mut told) = (0, 0);
    for round in 0..30 {
        let machine = Machine::new();
        let running = machine.start();
        let blobs: Vec<Vec<u8>> = (0..20).map(|id| content(id, 400)).collect();
        for blob in &blobs {
            running.put("team/app", blob);
        }
        let manifest = image(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>(), "race");
        running.clock.advance(GRACE);
        std::thread::scope(|scope| {
            scope.spawn(|| running.collect());
            std::thread::sleep(Duration::from_micros(round * 20));
            match running.push("team/app", Some("latest"), &manifest) {
                Ok(digest) => {
                    kept += 1;
                    assert!(running.has(&digest));
                }
                Err(RegistryError::ManifestBlobUnknown { missing, .. }) => {
                    told += 1;
                    assert!(!missing.is_empty());
                }
                Err(error) => panic!("{error}"),
            }
        });
        let accepted = running
            .registry
            .read(|reads| reads.tags(&name("team/app"), None, 1))
            .is_ok_and(|page| !page.names.is_empty());
        assert!(!accepted || blobs.iter().all(|blob| running.has(&digest_of(blob))), "round {round}");
        running.collect();
        assert!(!accepted || blobs.iter().all(|blob| running.has(&digest_of(blob))), "round {round}");
        running.recount();
    }
    println!("{kept} pushes kept their layers, {told} were told");
}

#[test]
fn reports_of_drops_are_forgotten_after_ninety_days() {
    let machine = Machine::new();
    let running = machine.start();
    running.put("team/app", &content(1, 500));
    running.clock.advance(GRACE);
    running.collect();
    assert_eq!(running.rows("drops"), 1);
    running.clock.advance(90 * DAY);
    let report = running.collect();
    assert_eq!((report.totals[0].kind, running.rows("drops"), running.rows("due-drops")), (Kind::DropRecord, 0, 0));
    running.recount();
}

#[test]
fn an_expired_upload_leaves_no_file() {
    let machine = Machine::new();
    let running = machine.start();
    let id = running.registry.start_upload(&name("team/app"), Algorithm::Sha256).unwrap();
    let mut lease = running.registry.lease_upload(&name("team/app"), &id).unwrap();
    lease.write(&content(1, 60_000)).unwrap();
    lease.keep().unwrap();
    assert_eq!(running.files_with(1).len(), 1);
    assert_eq!(running.registry.expire_uploads(Duration::ZERO).unwrap(), 1);
    assert_eq!(running.files_with(1), [""; 0]);
    assert_eq!((running.rows("uploads"), running.collect().totals.len()), (0, 0));
}

/// Others change what has to settle without a pause; whoever purges or collects has its own done all the same.
#[test]
fn a_purge_comes_to_its_end_while_others_never_pause() {
    let machine = Machine::new();
    let running = machine.start();
    let children: Vec<Vec<u8>> =
        (0..500).map(|id| running.push_image("busy/app", &format!("c{id}"), &[id], 300)).collect();
    let manifest = running.push_image("quiet/app", "1", &[100, 101], 300);
    running.delete("quiet/app", digest_of(&manifest));
    let (began, is_done) = (std::time::Instant::now(), std::sync::atomic::AtomicBool::new(false));
    let stopped = |is_done: &std::sync::atomic::AtomicBool| {
        is_done.load(std::sync::atomic::Ordering::Acquire) || began.elapsed() > Duration::from_secs(120)
    };
    std::thread::scope(|scope| {
        for busy in 0..8 {
            let (running, children, is_done) = (&running, &children, &is_done);
            scope.spawn(move || {
                let all = index(&children[busy..].iter().map(Vec::as_slice).collect::<Vec<_>>());
                let one = index(&[&children[busy]]);
                while !stopped(is_done) {
                    running.push("busy/app", Some(&format!("t{busy}")), &all).unwrap();
                    running.push("busy/app", Some(&format!("t{busy}")), &one).unwrap();
                }
            });
        }
        let report = running.collector.purge(&Owner::Repository(name("quiet/app")), false).unwrap();
        let took = began.elapsed();
        is_done.store(true, std::sync::atomic::Ordering::Release);
        assert!(took < Duration::from_secs(120), "it waited until the others stopped");
        assert!(report.dropped.iter().any(|dropped| dropped.kind == Kind::Manifest), "{report:?}");
    });
    running.recount();
}
