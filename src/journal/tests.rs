//! The journal as its callers use it; `damage` breaks its files, `crash` cuts the power.

use std::sync::Arc;

use super::*;
use crate::disk::{
    Disk,
    sim::{Call, Failure, SimDisk},
};

mod crash;
mod damage;

const STORE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const FIRST_FILE: &str = "journal/0000000000000001-0000000000000001.journal";

/// Files of a few small batches, so that short histories have several.
fn options() -> JournalOptions {
    JournalOptions { store_id: STORE, file_bytes_max: 600, allocate_bytes: 256 }
}

fn logical(payload: &[u8]) -> RawRecord {
    RawRecord { class: RecordClass::Logical, payload: payload.to_vec() }
}

fn local(payload: &[u8]) -> RawRecord {
    RawRecord { class: RecordClass::Local, payload: payload.to_vec() }
}

/// All batches after a point, or why the journal is refused.
fn read_from(disk: &SimDisk, from: Mark) -> Result<(Vec<Batch>, ReadJournal), JournalError> {
    let mut batches = Vec::new();
    let read = read(disk, &options(), from, |batch| {
        batches.push(batch);
        Ok::<_, JournalError>(())
    })?;
    Ok((batches, read))
}

fn history(disk: &SimDisk) -> Result<Vec<Batch>, JournalError> {
    read_from(disk, Mark::ORIGIN).map(|(batches, _)| batches)
}

fn open(disk: &SimDisk) -> Result<Journal, JournalError> {
    let (_, read) = read_from(disk, Mark::ORIGIN)?;
    Journal::start(Arc::new(disk.clone()), read)
}

/// A batch as the journal would give it back.
fn appended(journal: &mut Journal, time_ms: u64, records: Vec<RawRecord>) -> Batch {
    let first = journal.position();
    let appended = journal.append(time_ms, &records).unwrap();
    assert_eq!((appended.last, appended.chain), (journal.position(), journal.mark().chain));
    let batch = Batch { first, time_ms, records, chain: appended.chain };
    assert_eq!(batch.last(), appended.last);
    batch
}

/// `count` batches, among them ones of only local records, reopened in between.
fn written(disk: &SimDisk, count: u64) -> Vec<Batch> {
    let mut journal = open(disk).unwrap();
    let mut batches = Vec::new();
    for n in 0..count {
        if n % 5 == 4 {
            journal = open(disk).unwrap();
        }
        let text = vec![b'a' + (n % 26) as u8; 3 * n as usize];
        let records = match n % 3 {
            0 => vec![logical(&text)],
            1 => vec![local(&text), local(b"")],
            _ => vec![logical(&text), local(b"x"), logical(b"")],
        };
        batches.push(appended(&mut journal, 1000 + n, records));
    }
    batches
}

fn files(disk: &SimDisk) -> Vec<String> {
    disk.list(DIRECTORY).unwrap().into_iter().map(|entry| format!("{DIRECTORY}/{}", entry.name)).collect()
}

pub(super) fn bytes_of(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub(super) fn set_bytes(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(path).or_else(|_| disk.create(path)).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn after(batch: &Batch) -> Mark {
    Mark { position: batch.last(), chain: batch.chain }
}

#[test]
fn the_bytes_of_format_1_are_these() {
    let disk = SimDisk::new();
    let mut journal = open(&disk).unwrap();
    journal.append(1_700_000_000_000, &[logical(b"tag"), local(b"placed"), logical(b"")]).unwrap();
    journal.append(1_700_000_000_001, &[local(b"seal")]).unwrap();
    let golden = concat!(
        "4f524c4f504a4e4c",
        "01000000",
        "4f721e2d",
        "000102030405060708090a0b0c0d0e0f",
        "0100000000000000",
        "0000000000000000",
        "0000000000000000",
        "00000000000000000000000000000000",
        // The first batch.
        "4f524c4241544348",
        "18000000",
        "02000000",
        "01000000",
        "00000000",
        "0000000000000000",
        "0000000000000000",
        "0068e5cf8b010000",
        "00000000000000000000000000000000",
        "bc1a0ae19ea45a6a813fe5155cdd4b3c",
        "01",
        "03000000",
        "746167",
        "02",
        "06000000",
        "706c61636564",
        "01",
        "00000000",
        // The second batch, with padding.
        "4f524c4241544348",
        "09000000",
        "00000000",
        "01000000",
        "00000000",
        "0200000000000000",
        "0100000000000000",
        "0168e5cf8b010000",
        "bc1a0ae19ea45a6a813fe5155cdd4b3c",
        "9b5286999833f4b9aaa6f1c55c1bcd75",
        "02",
        "04000000",
        "7365616c",
        "00000000000000",
    );
    assert_eq!(HEXLOWER.encode(&bytes_of(&disk, FIRST_FILE)), golden);
}

#[test]
fn batches_come_back_in_order_over_files_and_reopens() {
    let disk = SimDisk::new();
    let batches = written(&disk, 40);
    assert!(files(&disk).len() > 5, "{:?}", files(&disk));
    assert!(disk.list(DIRECTORY).unwrap().iter().all(|entry| entry.len <= options().file_bytes_max));
    assert_eq!(history(&disk).unwrap(), batches);
    let (_, read) = read_from(&disk, Mark::ORIGIN).unwrap();
    assert_eq!((read.end(), read.cut_bytes(), read.is_new()), (after(&batches[39]), 0, false));
}

#[test]
fn a_missing_directory_and_an_empty_one_begin_a_durable_journal() {
    let disk = SimDisk::new();
    let (batches, read) = read_from(&disk, Mark::ORIGIN).unwrap();
    assert!(batches.is_empty() && read.is_new() && read.end() == Mark::ORIGIN);
    disk.create_dir(DIRECTORY).unwrap();
    assert!(read_from(&disk, Mark::ORIGIN).unwrap().1.is_new());
    Journal::start(Arc::new(disk.clone()), read).unwrap();
    for seed in 0..50 {
        assert!(!read_from(&disk.crash(seed), Mark::ORIGIN).unwrap().1.is_new(), "seed {seed}");
    }
}

#[test]
fn reading_from_any_point_of_the_history_gives_what_follows_it() {
    let disk = SimDisk::new();
    let batches = written(&disk, 30);
    for (n, batch) in batches.iter().enumerate() {
        let (rest, read) = read_from(&disk, after(batch)).unwrap();
        assert_eq!(rest, batches[n + 1..]);
        assert_eq!(read.end(), after(&batches[29]));
        let journal = Journal::start(Arc::new(disk.clone()), read).unwrap();
        assert_eq!(journal.position(), batches[29].last());
    }
}

#[test]
fn a_point_that_is_not_in_the_history_is_refused_and_nothing_is_visited() {
    let disk = SimDisk::new();
    let batches = written(&disk, 30);
    let mut points: Vec<Mark> = Vec::new();
    for batch in &batches {
        let mark = after(batch);
        points.push(Mark { chain: Chain([9; 16]), ..mark });
        // Inside the batch, or one past it in the other sequence.
        points.extend(
            mark.position.lsn.checked_sub(1).map(|lsn| Mark { position: Position { lsn, ..mark.position }, ..mark }),
        );
        points.push(Mark { position: Position { local: mark.position.local + 1, ..mark.position }, ..mark });
    }
    points.push(Mark { position: Position { lsn: u64::MAX, local: u64::MAX }, ..after(&batches[29]) });
    points.push(Mark { chain: Chain([1; 16]), ..Mark::ORIGIN });
    for from in points {
        let result =
            read(&disk, &options(), from, |batch| -> Result<(), JournalError> { panic!("{batch:?} at {from}") });
        assert!(matches!(result, Err(JournalError::NotInHistory { mark }) if mark == from), "{from}: {result:?}");
    }
    assert!(matches!(read_from(&SimDisk::new(), after(&batches[3])), Err(JournalError::NotInHistory { .. })));
}

#[test]
fn files_before_the_asked_point_are_checked_by_their_headers_only() {
    let disk = SimDisk::new();
    let batches = written(&disk, 30);
    let mut bytes = bytes_of(&disk, FIRST_FILE);
    bytes[100] ^= 1;
    set_bytes(&disk, FIRST_FILE, &bytes);
    assert_eq!(read_from(&disk, after(&batches[20])).unwrap().0, batches[21..]);
    assert!(matches!(history(&disk), Err(JournalError::Damaged { .. })));
    bytes[20] ^= 1;
    set_bytes(&disk, FIRST_FILE, &bytes);
    assert!(matches!(read_from(&disk, after(&batches[20])), Err(JournalError::BadFile { .. })));
}

#[test]
fn an_error_of_the_visitor_ends_the_read() {
    let disk = SimDisk::new();
    written(&disk, 10);
    let mut visits = 0;
    let result = read(&disk, &options(), Mark::ORIGIN, |batch| {
        visits += 1;
        Err::<(), _>(JournalError::NotInHistory { mark: after(&batch) })
    });
    assert!(result.is_err() && visits == 1);
}

#[test]
fn no_records_write_nothing_and_too_many_bytes_are_refused() {
    let disk = SimDisk::new();
    let mut journal = open(&disk).unwrap();
    let before = disk.changes();
    assert_eq!(
        journal.append(1, &[]).unwrap(),
        Appended { last: Position::default(), chain: Mark::ORIGIN.chain, bytes: 0 }
    );
    let largest = BODY_BYTES_MAX as usize - 5;
    let result = journal.append(1, &[logical(&vec![0; largest + 1])]);
    assert!(matches!(result, Err(JournalError::BatchTooLarge { records: 1, .. })), "{result:?}");
    assert_eq!(disk.changes(), before);
    let batches =
        [appended(&mut journal, 1, vec![logical(&vec![7; largest])]), appended(&mut journal, 2, vec![local(b"")])];
    assert_eq!(history(&disk).unwrap(), batches);
}

#[test]
fn a_full_disk_refuses_batches_writes_nothing_and_recovers() {
    for capacity in 200..1500 {
        let disk = SimDisk::new();
        let mut journal = open(&disk).unwrap();
        disk.set_capacity(Some(capacity));
        let mut batches = Vec::new();
        let full = loop {
            let before: Vec<Vec<u8>> = files(&disk).iter().map(|path| bytes_of(&disk, path)).collect();
            match journal.append(5, &[logical(&[3; 77])]) {
                Ok(_) => batches.push(journal.position()),
                Err(error) => {
                    let now: Vec<Vec<u8>> = files(&disk).iter().map(|path| bytes_of(&disk, path)).collect();
                    assert_eq!(now, before, "capacity {capacity}");
                    break error;
                }
            }
        };
        assert!(matches!(full, JournalError::Full { .. }), "{full:?}");
        assert!(matches!(journal.append(5, &[logical(&[3; 77])]), Err(JournalError::Full { .. })));
        disk.set_capacity(None);
        journal.append(6, &[local(b"room again")]).unwrap();
        batches.push(journal.position());
        let read: Vec<Position> = history(&disk).unwrap().iter().map(Batch::last).collect();
        assert_eq!(read, batches, "capacity {capacity}");
    }
}

#[test]
fn a_file_may_use_the_disk_to_the_last_block_that_a_batch_needs() {
    let disk = SimDisk::new();
    let mut journal = open(&disk).unwrap();
    let batch_bytes = 80 + 16;
    disk.set_capacity(Some(256 + batch_bytes));
    for _ in 0..(256 + batch_bytes - 72) / batch_bytes {
        journal.append(1, &[logical(b"elevenbytes")]).unwrap();
    }
    assert!(matches!(journal.append(1, &[logical(b"elevenbytes")]), Err(JournalError::Full { .. })));
}

#[test]
fn the_first_failed_write_or_sync_ends_the_journal() {
    let failures = [(Call::Write, Failure::Io), (Call::Write, Failure::Full), (Call::SyncData, Failure::Io)];
    for (call, failure) in failures {
        let disk = SimDisk::new();
        let mut journal = open(&disk).unwrap();
        let first = appended(&mut journal, 1, vec![logical(b"first")]);
        disk.fail(call, 1, failure);
        for _ in 0..3 {
            let result = journal.append(2, &[logical(b"second")]);
            assert!(matches!(result, Err(JournalError::Poisoned { .. })), "{call:?}: {result:?}");
        }
        assert_eq!(journal.position(), first.last());
        assert_eq!(history(&disk).unwrap()[0], first);
        let next = appended(&mut open(&disk).unwrap(), 3, vec![local(b"third")]);
        assert_eq!(history(&disk).unwrap().pop(), Some(next));
    }
}

#[test]
fn a_failure_while_a_file_is_begun_ends_the_journal_too() {
    for call in [Call::Names, Call::Write, Call::SyncData, Call::SyncDir, Call::Allocate] {
        let disk = SimDisk::new();
        let mut journal = open(&disk).unwrap();
        let mut batches = vec![appended(&mut journal, 1, vec![logical(&[1; 440])])];
        assert_eq!(files(&disk).len(), 1);
        disk.fail(call, 1, Failure::Io);
        for _ in 0..2 {
            let result = journal.append(2, &[logical(b"second")]);
            assert!(matches!(result, Err(JournalError::Poisoned { .. })), "{call:?}: {result:?}");
        }
        let mut journal = open(&disk).unwrap();
        batches.push(appended(&mut journal, 3, vec![logical(b"third")]));
        assert_eq!(history(&disk).unwrap(), batches, "{call:?}");
    }
}
