//! Bit rot: bytes of segments, journal and snapshots change behind the back of a store, open or closed.
//!
//! The oracle is what was pushed. Nothing else is ever served; what is damaged is named with file, offset, digest, and whom
//! it hurts; the rest stays readable; a push heals. `ORLOP_TEST_ROUNDS` changes as many places, `ORLOP_TEST_SEED` begins
//! with another seed.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    index::schema::{self, BlobRow, RowValue, Table, key},
    store::StoreError,
};

use super::*;

const DEFAULT_ROUNDS: u64 = 150;

/// Calls `trial` with random numbers of a known seed each.
fn trials(mut trial: impl FnMut(u64, &mut fastrand::Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let rounds = number("ORLOP_TEST_ROUNDS").unwrap_or(DEFAULT_ROUNDS);
    println!("{rounds} rounds from seed {first}");
    (first..first + rounds).for_each(|seed| trial(seed, &mut fastrand::Rng::with_seed(seed)));
}

/// What was pushed, and under which names each part of it is reached.
type Oracle = BTreeMap<Digest, (Vec<u8>, BTreeSet<String>)>;

/// Repositories that share layers, small ones and some with a segment of their own; one snapshot in the middle.
fn filled() -> (Machine, Oracle) {
    let machine = Machine::new();
    let running = machine.start();
    let mut oracle = Oracle::new();
    for n in 0..8_u32 {
        let (repository, tag) = (format!("team{}/app", n % 3), format!("v{n}"));
        let ids = [n, 100 + n % 4, 200];
        let len = [900, 5_000, 30_000, 70_000][n as usize % 4];
        let manifest = running.push_image(&repository, &tag, &ids, len);
        let blobs = ids.iter().map(|id| content(*id, len));
        for bytes in blobs.chain([manifest]) {
            let entry = oracle.entry(digest_of(&bytes)).or_insert_with(|| (bytes, BTreeSet::new()));
            entry.1.insert(format!("{repository}:{tag}"));
        }
        if n == 4 {
            running.store().write_snapshot().unwrap();
        }
    }
    drop(running);
    (machine, oracle)
}

fn files(disk: &SimDisk, directory: &str) -> Vec<(String, u64)> {
    let entries = disk.list(directory).unwrap().into_iter();
    entries
        .flat_map(|entry| match entry.is_dir {
            true => files(disk, &format!("{directory}/{}", entry.name)),
            false => vec![(format!("{directory}/{}", entry.name), entry.len)],
        })
        .collect()
}

/// Changes a place of some file; the file, the changed range, and what was done.
fn rot(disk: &SimDisk, directory: &str, random: &mut fastrand::Rng) -> (String, std::ops::Range<u64>, String) {
    let (path, len) = random.choice(files(disk, directory)).unwrap();
    let file = disk.open(&path).unwrap();
    let at = random.u64(..len);
    match random.u8(..10) {
        0 => {
            file.set_len(at).unwrap();
            (path.clone(), at..u64::MAX, format!("{path}: cut at {at}"))
        }
        1 | 2 => {
            let (at, end) = (at / 512 * 512, (at / 512 * 512 + 512).min(len));
            file.write_all_at(&vec![0; usize::try_from(end - at).unwrap()], at).unwrap();
            (path.clone(), at..end, format!("{path}: zeros at {at}"))
        }
        _ => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << random.u8(..8)], at).unwrap();
            (path.clone(), at..at + 1, format!("{path}: a bit at {at}"))
        }
    }
}

/// Content whose records, or the header of whose file, lie in the range.
fn hit(running: &Running, path: &str, range: &std::ops::Range<u64>) -> BTreeSet<Digest> {
    let mut hit = BTreeSet::new();
    schema::each_row_of(&*running.store().snapshot(), Table::Blobs, |key, value| {
        let digest = crate::codec::Decoder::new(&key[1..]).digest("digest").unwrap();
        let BlobRow { location, record_len, .. } = BlobRow::from_bytes(value)?;
        let overlaps = location.offset < range.end && range.start < location.offset + record_len;
        if running.store().segment_path(location.segment) == path && (overlaps || range.start < 4_096) {
            hit.insert(digest);
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })
    .unwrap();
    hit
}

/// Reads all that was pushed; what could not be read. Anything else than what was pushed fails.
fn read_all(running: &Running, oracle: &Oracle, what: &str) -> BTreeSet<Digest> {
    let mut failed = BTreeSet::new();
    for (digest, (bytes, _)) in oracle {
        let read = running.store().content(digest).and_then(|content| {
            let content = content.unwrap_or_else(|| panic!("{what}: {digest} is told to be absent"));
            content.read_all()
        });
        match read {
            Ok(read) => assert_eq!(read, *bytes, "{what}: {digest}"),
            Err(StoreError::Corrupt(_)) => drop(failed.insert(*digest)),
            Err(error) => panic!("{what}: {digest}: {error}"),
        }
    }
    failed
}

fn check_named(running: &Running, oracle: &Oracle, failed: &BTreeSet<Digest>, what: &str) {
    running.collector.scrub().unwrap();
    let scrubbed = running.collector.scrub_status().unwrap().findings;
    for digest in failed {
        let row: BlobRow = schema::expect(&*running.store().snapshot(), key::blob(digest)).unwrap();
        let place = (Some(running.store().segment_path(row.location.segment)), Some(row.location.offset));
        let text = Some(digest.to_string());
        let found = scrubbed.iter().find(|finding| finding.digest == text);
        let found = found.unwrap_or_else(|| panic!("{what}: the scrub does not name {digest}"));
        assert_eq!((found.file.clone(), found.offset), place, "{what}");
        for name in &oracle[digest].1 {
            assert!(found.hurts.contains(name), "{what}: {name} in {:?}", found.hurts);
        }
    }
    let others: Vec<_> = scrubbed.iter().filter(|finding| finding.kind == Scrubbed::Content).collect();
    assert_eq!(others.len(), failed.len(), "{what}: {others:?}");
}

/// Pushes what is damaged again: it can be read, and is no finding any more, after a restart of the store, too.
fn check_healed(running: &Running, oracle: &Oracle, failed: &BTreeSet<Digest>, what: &str) {
    for digest in failed {
        let (bytes, names) = &oracle[digest];
        let (repository, tag) = names.iter().next().unwrap().split_once(':').unwrap();
        match bytes.starts_with(b"{") {
            true => drop(running.push(repository, Some(tag), bytes).unwrap()),
            false => drop(running.put(repository, bytes)),
        }
    }
    assert!(read_all(running, oracle, what).is_empty(), "{what}: pushed again");
    assert_eq!(running.collector.scrub_status().unwrap().findings, [], "{what}: pushed again");
}

#[test]
fn rot_in_segments_is_named_and_never_served_and_healed_by_a_push() {
    let (machine, oracle) = filled();
    let (mut damaged, mut harmless) = (0, 0);
    trials(|seed, random| {
        let machine = machine.killed();
        // Open: handles and what they have checked are there before the rot.
        let is_open = random.bool();
        let early = is_open.then(|| {
            let running = machine.start();
            assert!(read_all(&running, &oracle, "before").is_empty());
            running
        });
        let (path, range, done) = rot(&machine.disk, "segments", random);
        let what = format!("seed {seed}, open {is_open}, {done}");
        let mut running = match early {
            Some(running) => running,
            None => machine.try_start().unwrap_or_else(|error| panic!("{what}: {error}")),
        };
        read_all(&running, &oracle, &what);
        // It reads headers of files that are open, too, which reads do once.
        running.collector.scrub().unwrap();
        let failed = read_all(&running, &oracle, &what);
        let hit = hit(&running, &path, &range);
        assert!(failed.is_subset(&hit), "{what}: {failed:?} of {hit:?}");
        check_named(&running, &oracle, &failed, &what);
        if random.bool() {
            drop(running);
            running = machine.start();
        }
        check_healed(&running, &oracle, &failed, &what);
        if failed.is_empty() { harmless += 1 } else { damaged += 1 }
    });
    println!("{damaged} hurt content, {harmless} did not");
    assert!(damaged > 0);
}

/// Zeros behind a large record, and before one that has a segment of its own, were looked at by nobody.
#[test]
fn rot_in_what_must_be_zero_is_found_by_the_scrub_and_healed_by_a_push() {
    let machine = Machine::new();
    let running = machine.start();
    let bytes = content(1, 70_001);
    let digest = digest_of(&bytes);
    let oracle = Oracle::from([(digest, (bytes.clone(), BTreeSet::from(["team0/app:".to_owned()])))]);
    for before in [true, false] {
        running.put("team0/app", &bytes);
        let row: BlobRow = schema::expect(&*running.store().snapshot(), key::blob(&digest)).unwrap();
        assert_eq!(row.location.offset, 4_000, "a segment of its own");
        let at = if before { 2_000 } else { row.location.offset + row.record_len - 1 };
        let file = machine.disk.open(&running.store().segment_path(row.location.segment)).unwrap();
        file.write_all_at(&[1], at).unwrap();
        let what = format!("a byte at {at}");
        running.collector.scrub().unwrap();
        let failed = read_all(&running, &oracle, &what);
        assert_eq!(failed, BTreeSet::from([digest]), "{what}");
        let findings = running.collector.scrub_status().unwrap().findings;
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
        let expected = [&[Scrubbed::Segment][..], &[Scrubbed::Content]].concat();
        assert_eq!(kinds, expected[usize::from(!before)..], "{what}: a header is named, too");
        check_healed(&running, &oracle, &failed, &what);
    }
}

#[test]
fn rot_in_the_journal_of_an_open_store_is_replaced_by_a_snapshot() {
    let (machine, oracle) = filled();
    let (mut repaired, mut harmless) = (0, 0);
    trials(|seed, random| {
        let machine = machine.killed();
        let running = machine.start();
        let (.., done) = rot(&machine.disk, "journal", random);
        let what = format!("seed {seed}, {done}");
        let wrong = running.store().check_history(&mut |_| Ok(())).unwrap();
        let report = running.collector.scrub().unwrap();
        assert_eq!(report.repaired.is_some(), !wrong.is_empty(), "{what}: {report:?}");
        assert_eq!(running.collector.scrub_status().unwrap().findings, [], "{what}");
        let left = running.store().check_history(&mut |_| Ok(())).unwrap();
        assert!(left.is_empty(), "{what}: {left:?}");
        assert!(read_all(&running, &oracle, &what).is_empty());
        running.put("team0/app", b"goes on");
        let mut rows = Vec::new();
        running.store().dump(&mut |row| rows.push(row.to_owned())).unwrap();
        drop(running);
        let lost = Machine { index: Arc::default(), ..machine.killed() };
        let again = lost.try_start().unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut rebuilt = Vec::new();
        again.store().dump(&mut |row| rebuilt.push(row.to_owned())).unwrap();
        assert_eq!(rebuilt, rows, "{what}");
        if wrong.is_empty() { harmless += 1 } else { repaired += 1 }
    });
    println!("{repaired} were repaired, {harmless} were in nobody's way");
    assert!(repaired > 0);
}

#[test]
fn a_scrub_goes_on_where_it_was_and_stops_while_it_is_paused() {
    let (machine, oracle) = filled();
    let running = machine.start();
    let status = running.collector.scrub_status().unwrap();
    assert_eq!((status.pass, status.last), (None, None));
    running.collector.pause(Pausable::Scrub).unwrap();
    running.collector.tick_scrub();
    assert_eq!(running.collector.scrub_status().unwrap().last, None);
    // Who waits for it gets it.
    let report = running.collector.scrub().unwrap();
    assert!(report.complete && report.records == oracle.len() as u64, "{report:?}");
    running.collector.resume(Pausable::Scrub).unwrap();
    drop(running);

    let running = machine.start();
    assert_eq!(running.collector.scrub_status().unwrap().last, Some(report.clone()), "kept over a restart");
    running.collector.tick_scrub();
    assert_eq!(running.collector.scrub_status().unwrap().last, Some(report.clone()), "none is due");
    running.clock.advance(31 * DAY);
    running.collector.tick_scrub();
    let next = running.collector.scrub_status().unwrap().last.unwrap();
    assert!(next.began_ms > report.began_ms && next.records == report.records, "{next:?}");
}
