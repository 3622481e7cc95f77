//! Snapshot files: their bytes, what is refused, and what a crash or a failing call leaves.

use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::*;
use crate::{
    disk::sim::{Call, Failure, SimDisk},
    journal::{
        Chain, Journal, JournalOptions, RawRecord, RecordClass,
        fact::Fact,
        fact::tests::examples,
        read, read_end,
        tests::{bytes_of, set_bytes},
    },
};

const STORE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn at(lsn: u64) -> SnapshotHeader {
    let mark = Mark { position: Position { lsn, local: 2 * lsn }, chain: Chain([lsn as u8; 16]) };
    let (time_ms, organisations, repositories) = (1_700_000_000_000, 1, 2);
    SnapshotHeader { mark, time_ms, organisations, repositories, manifests: 3, next_segment: 6 }
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(DIRECTORY).unwrap();
    disk.sync_dir("").unwrap();
    disk
}

fn write(disk: &SimDisk, header: SnapshotHeader, facts: &[Fact]) -> Result<SnapshotFile, JournalError> {
    let mut writer = SnapshotWriter::create(disk, STORE, header)?;
    for fact in facts {
        writer.push(fact)?;
        if writer.is_page_full() {
            writer.write_page()?;
        }
    }
    writer.seal()?.publish(|| Ok::<_, JournalError>(()))
}

fn facts_of(disk: &SimDisk, snapshot: &SnapshotFile) -> Result<Vec<Fact>, JournalError> {
    let mut reader = SnapshotReader::open(disk, STORE, snapshot)?;
    let mut facts = Vec::new();
    loop {
        match reader.next_part()? {
            Part::Page(page) => page.each(|fact| {
                facts.push(fact);
                Ok::<_, JournalError>(())
            })?,
            Part::End(proven) => {
                assert_eq!(proven.facts, facts.len() as u64);
                return Ok(facts);
            }
        }
    }
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(DIRECTORY).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn the_bytes_of_format_1_are_these() {
    let disk = disk();
    let facts = [
        Fact::Organisation { organisation: 1, name: "a".to_owned() },
        Fact::Organisation { organisation: 2, name: String::new() },
    ];
    let snapshot = write(&disk, at(5), &facts).unwrap();
    assert_eq!(snapshot.path, "journal/0000000000000005-000000000000000a.snapshot");
    let golden = concat!(
        "4f524c4f50534e50",
        "01000000",
        "e6a68a09",
        "000102030405060708090a0b0c0d0e0f",
        "0500000000000000",
        "0a00000000000000",
        "05050505050505050505050505050505",
        "0068e5cf8b010000",
        "01000000",
        "02000000",
        "0300000000000000",
        "0600000000000000",
        // The page.
        "4f524c5350414745",
        "1d000000",
        "02000000",
        "9e04f7bc",
        "00000000",
        "0b000000",
        "0101",
        "01000000",
        "01000000",
        "61",
        "0a000000",
        "0101",
        "02000000",
        "00000000",
        // The end.
        "4f524c5350454e44",
        "0100000000000000",
        "0200000000000000",
        "72b46099c7678345b6c74f7b80f24229c29088686552025a56df8d8b0f2cbe9b",
    );
    assert_eq!(HEXLOWER.encode(&bytes_of(&disk, &snapshot.path)), golden);
}

#[test]
fn facts_come_back_in_order_over_many_pages() {
    let disk = disk();
    for count in [0, 1, 5, 6_000] {
        let facts: Vec<Fact> = (0..count).flat_map(|_| examples()).collect();
        let snapshot = write(&disk, at(count), &facts).unwrap();
        assert_eq!(facts_of(&disk, &snapshot).unwrap(), facts);
        assert_eq!(snapshot.len, bytes_of(&disk, &snapshot.path).len() as u64);
        let (header, _) = SnapshotReader::prove(&disk, STORE, &snapshot).unwrap();
        assert_eq!(header, at(count));
        assert_eq!(list(&disk).unwrap()[0], snapshot, "the newest comes first");
    }
    let pages = bytes_of(&disk, &list(&disk).unwrap()[0].path).len() / PAGE_BYTES;
    assert!(pages > 10, "{pages} pages are too few to say much");
}

#[test]
fn a_fact_that_is_larger_than_a_page_makes_one_longer() {
    let disk = disk();
    let Some(Fact::Manifest { references, .. }) = examples().into_iter().nth(5) else { panic!() };
    let mut fact = examples().remove(5);
    if let Fact::Manifest { references: all, .. } = &mut fact {
        *all = std::iter::repeat_n(references, 15_000).flatten().collect();
    }
    let facts = [examples().remove(0), fact, examples().remove(1)];
    let snapshot = write(&disk, at(1), &facts).unwrap();
    assert_eq!(facts_of(&disk, &snapshot).unwrap(), facts);
}

#[test]
fn every_changed_byte_and_every_cut_is_refused_by_name() {
    let disk = disk();
    let facts = examples();
    let snapshot = write(&disk, at(5), &facts).unwrap();
    let whole = bytes_of(&disk, &snapshot.path);
    let check = |bytes: &[u8], what: String| {
        set_bytes(&disk, &snapshot.path, bytes);
        let error = SnapshotReader::prove(&disk, STORE, &snapshot).expect_err(&what).to_string();
        assert!(error.contains(&snapshot.path), "{what}: {error}");
    };
    for offset in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x40;
        check(&bytes, format!("byte {offset}"));
        check(&whole[..offset], format!("cut at {offset}"));
    }
    check(&[&whole[..], &[0]].concat(), "a byte too many".to_owned());
    // Whole pages that are missing, doubled or exchanged are proven each by itself, but not together.
    let page = &whole[HEADER_LEN..whole.len() - END_LEN];
    let end = &whole[whole.len() - END_LEN..];
    check(&[&whole[..HEADER_LEN], end].concat(), "no page".to_owned());
    check(&[&whole[..HEADER_LEN], page, page, end].concat(), "a page twice".to_owned());
    set_bytes(&disk, &snapshot.path, &whole);
    assert_eq!(facts_of(&disk, &snapshot).unwrap(), facts);
}

#[test]
fn other_versions_stores_and_places_are_refused() {
    let disk = disk();
    let snapshot = write(&disk, at(5), &examples()).unwrap();
    let open = |store: [u8; 16], snapshot: &SnapshotFile| SnapshotReader::open(&disk, store, snapshot).err();
    assert!(matches!(open([9; 16], &snapshot), Some(JournalError::ForeignStore { found: STORE, .. })));
    let other = SnapshotFile { position: Position { lsn: 6, local: 10 }, ..snapshot.clone() };
    assert!(matches!(open(STORE, &other), Some(JournalError::BadSnapshot { .. })));
    let mut bytes = bytes_of(&disk, &snapshot.path);
    bytes[8] = 2;
    set_bytes(&disk, &snapshot.path, &bytes);
    assert!(matches!(open(STORE, &snapshot), Some(JournalError::UnknownVersion { found: 2, known: 1, .. })));
}

#[test]
fn no_bytes_make_the_reader_panic_or_take_memory_by_a_claim() {
    let disk = disk();
    let snapshot = write(&disk, at(5), &examples()).unwrap();
    let whole = bytes_of(&disk, &snapshot.path);
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = whole.clone();
        let from = random.usize(..bytes.len());
        match random.u8(..3) {
            0 => bytes[from..].fill_with(|| random.u8(..)),
            1 => bytes[HEADER_LEN + 8..HEADER_LEN + 12].copy_from_slice(&random.u32(..).to_le_bytes()),
            _ => bytes.rotate_left(from),
        }
        set_bytes(&disk, &snapshot.path, &bytes);
        let same = bytes == whole;
        assert_eq!(SnapshotReader::prove(&disk, STORE, &snapshot).is_ok(), same, "seed {seed}");
        let _ = Fact::decode(&bytes[from..]);
    }
}

/// A writer that is given up, by an error or by whoever has it, leaves no file, and one that came to its end is whole.
#[test]
fn a_failing_call_leaves_nothing_behind_or_a_whole_snapshot() {
    let facts: Vec<Fact> = (0..2_000).flat_map(|_| examples()).collect();
    let mut outcomes = [0; 2];
    for call in [Call::Write, Call::SyncData, Call::SyncDir, Call::Names, Call::Read] {
        for failure in [Failure::Io, Failure::Full] {
            for nth in 1..30 {
                let disk = disk();
                disk.fail(call, nth, failure);
                let done = write(&disk, at(5), &facts);
                let disk = disk.kill();
                outcomes[usize::from(done.is_ok())] += 1;
                match done {
                    Ok(snapshot) => assert_eq!(facts_of(&disk, &snapshot).unwrap().len(), facts.len()),
                    Err(error) => {
                        assert_eq!(names(&disk), Vec::<String>::new(), "{call:?} {nth}: {error}");
                        assert_eq!(matches!(error, JournalError::Poisoned { .. }), call == Call::SyncDir);
                    }
                }
            }
        }
    }
    assert!(outcomes.iter().all(|&count| count > 20), "{outcomes:?}");
    let disk = disk();
    drop(SnapshotWriter::create(&disk, STORE, at(5)).unwrap());
    assert_eq!(names(&disk), Vec::<String>::new());
}

#[test]
fn a_power_cut_at_any_call_leaves_a_snapshot_whole_or_without_its_name() {
    let facts: Vec<Fact> = (0..600).flat_map(|_| examples()).collect();
    for changes in 0..40 {
        for seed in 0..8 {
            let disk = disk();
            disk.power_off_after(changes);
            let done = write(&disk, at(5), &facts).is_ok();
            let disk = disk.crash(seed);
            let snapshots = list(&disk).unwrap();
            assert!(!done || snapshots.len() == 1, "a snapshot that was there is gone: {changes} {seed}");
            for snapshot in snapshots {
                SnapshotReader::prove(&disk, STORE, &snapshot).unwrap();
            }
        }
    }
}

fn options() -> JournalOptions {
    JournalOptions { store_id: STORE, file_bytes_max: 400, allocate_bytes: 256 }
}

/// A journal of several files, and the points between its batches.
fn journal(disk: &SimDisk, batches: u64) -> Vec<Mark> {
    let read = read(disk, &options(), Mark::ORIGIN, |_| Ok::<_, JournalError>(())).unwrap();
    let mut journal = Journal::start(Arc::new(disk.clone()), read).unwrap();
    let mut marks = vec![Mark::ORIGIN];
    for n in 0..batches {
        let payload = vec![n as u8; 40];
        journal.append(n, &[RawRecord { class: RecordClass::Logical, payload }]).unwrap();
        marks.push(journal.mark());
    }
    marks
}

fn snapshot_at(disk: &SimDisk, mark: Mark) {
    write(disk, SnapshotHeader { mark, ..at(0) }, &[]).unwrap();
}

fn batches_from(disk: &SimDisk, from: Mark) -> Result<usize, JournalError> {
    let mut batches = 0;
    read(disk, &options(), from, |_| {
        batches += 1;
        Ok::<_, JournalError>(())
    })
    .map(|_| batches)
}

#[test]
fn the_first_snapshot_removes_nothing_and_each_next_what_lies_below_the_one_before() {
    let disk = disk();
    let marks = journal(&disk, 40);
    let before = names(&disk).len();
    snapshot_at(&disk, marks[13]);
    assert_eq!(trim(&disk).unwrap(), Trimmed::default());
    snapshot_at(&disk, marks[26]);
    let trimmed = trim(&disk).unwrap();
    assert!(trimmed.files > 3 && trimmed.bytes > 1_000, "{trimmed:?}");
    assert_eq!(names(&disk).len() as u64, before as u64 + 2 - trimmed.files);
    assert_eq!(trim(&disk).unwrap(), Trimmed::default(), "it is done");
    for (n, mark) in marks.iter().enumerate() {
        match batches_from(&disk, *mark) {
            Ok(batches) => assert_eq!(batches, 40 - n),
            Err(error) => {
                assert!(n < 13 && matches!(error, JournalError::NotInHistory { .. }), "{n}: {error}");
            }
        }
    }
    snapshot_at(&disk, marks[40]);
    trim(&disk).unwrap();
    assert_eq!(list(&disk).unwrap().len(), 2, "the snapshot before the previous one went, too");
    snapshot_at(&disk, Mark { position: Position { lsn: 41, local: 0 }, ..marks[40] });
    trim(&disk).unwrap();
    assert_eq!(names(&disk).iter().filter(|name| format::is_journal_file(name)).count(), 1, "the last file stays");
    assert_eq!(batches_from(&disk, marks[40]).unwrap(), 0);
}

/// Removals reach the disk in any order and number; what is left of the superfluous files may not disturb.
#[test]
fn any_subset_of_the_removals_leaves_a_journal_that_reads() {
    let whole = disk();
    let marks = journal(&whole, 40);
    snapshot_at(&whole, marks[13]);
    snapshot_at(&whole, marks[26]);
    for seed in 0..200 {
        let disk = whole.kill();
        disk.sync_dir(DIRECTORY).unwrap();
        trim(&disk).unwrap();
        let disk = disk.crash(seed);
        for (n, mark) in marks.iter().enumerate() {
            match batches_from(&disk, *mark) {
                Ok(batches) => assert_eq!(batches, 40 - n, "seed {seed}"),
                Err(JournalError::NotInHistory { .. }) if n < 13 => {}
                Err(error) => panic!("seed {seed}, point {n}: {error}"),
            }
        }
        trim(&disk).unwrap();
        assert!(batches_from(&disk, Mark::ORIGIN).is_err());
        let read = read_end(&disk, &options()).unwrap();
        Journal::start(Arc::new(disk.clone()), read).unwrap();
    }
}

#[test]
fn damage_and_holes_above_the_base_are_refused_and_below_it_superfluous() {
    let whole = disk();
    let marks = journal(&whole, 40);
    snapshot_at(&whole, marks[20]);
    let files: Vec<String> = names(&whole).into_iter().filter(|name| format::is_journal_file(name)).collect();
    for (n, name) in files.iter().enumerate() {
        for damage in [false, true] {
            let disk = whole.kill();
            let path = format!("{DIRECTORY}/{name}");
            if damage {
                let mut bytes = bytes_of(&disk, &path);
                bytes[30] ^= 1;
                set_bytes(&disk, &path, &bytes);
            } else {
                disk.remove(&path).unwrap();
            }
            let is_last = n + 1 == files.len();
            let superfluous = !is_last && format::journal_position(&files[n + 1]).unwrap() <= marks[20].position;
            let result = batches_from(&disk, marks[20]);
            if superfluous {
                assert_eq!(result.unwrap(), 20, "{name}");
                let old = batches_from(&disk, Mark::ORIGIN);
                assert!(matches!(old, Err(JournalError::NotInHistory { .. })), "{name}: {old:?}");
            } else if damage || !is_last {
                assert!(
                    matches!(result, Err(JournalError::BadFile { .. } | JournalError::FileMissing { .. })),
                    "{name}: {result:?}"
                );
            }
        }
    }
}

#[test]
fn a_journal_that_ends_before_a_snapshot_goes_on_behind_it() {
    let disk = disk();
    let marks = journal(&disk, 10);
    let beyond = Mark { position: Position { lsn: 50, local: 7 }, chain: Chain([5; 16]) };
    snapshot_at(&disk, beyond);
    assert!(matches!(batches_from(&disk, beyond), Err(JournalError::NotInHistory { .. })));
    let read = read_end(&disk, &options()).unwrap();
    assert_eq!(read.end(), marks[10]);
    let mut journal = Journal::start(Arc::new(disk.clone()), read.resume_at(beyond)).unwrap();
    journal.append(1, &[RawRecord { class: RecordClass::Local, payload: vec![1] }]).unwrap();
    assert_eq!(batches_from(&disk, beyond).unwrap(), 1);
    assert!(batches_from(&disk, marks[10]).is_err(), "nothing bridges the gap");
    let read = read_end(&disk, &options()).unwrap();
    Journal::start(Arc::new(disk.clone()), read).unwrap();
    assert_eq!(batches_from(&disk, beyond).unwrap(), 1);
}
