//! What must hold for the bytes of journal files, records and snapshots, whatever they are. For fuzzers and tests only.
//!
//! Checksums, and what stands in headers about what came before, are made right for half of the inputs: else nearly all of
//! them would end there.

use std::fmt::Debug;

use super::{
    Batch, DIRECTORY, JournalError, JournalOptions, Mark, RecordClass,
    fact::Fact,
    format::{self, BATCH_HEADER_LEN, BatchHeader, CHAIN_OFFSET, FILE_HEADER_LEN, FileHeader},
    operation::{LocalRecord, Operation},
    snapshot,
};
use crate::{
    codec::DecodeError,
    disk::{Disk, sim::SimDisk},
};

const STORE_ID: [u8; 16] = [7; 16];

/// An operation, a local record or a fact: what decodes has exactly these bytes, or is of an earlier version and says the same in
/// the present one.
pub(crate) fn record(input: &[u8]) {
    let Some((&class, bytes)) = input.split_first() else { return };
    match class % 3 {
        0 => same_again(bytes, Operation::decode, Operation::encode),
        1 => same_again(bytes, LocalRecord::decode, LocalRecord::encode),
        _ => same_again(bytes, Fact::decode, Fact::encode),
    }
}

fn same_again<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, DecodeError>,
    encode: fn(&T) -> Vec<u8>,
) {
    let Ok(value) = decode(bytes) else { return };
    let again = encode(&value);
    // The second byte is the version.
    let is_earlier = bytes[1] < again[1];
    assert!(again == bytes || (is_earlier && decode(&again) == Ok(value)), "{again:?} {bytes:?}");
}

/// A journal of two files of any bytes: it is read the same way twice, in order, and each batch has its bytes.
pub(crate) fn files(input: &[u8]) {
    let (&mode, body) = input.split_first().unwrap_or((&0, &[]));
    let disk = SimDisk::new();
    if disk.create_dir(DIRECTORY).is_err() {
        return;
    }
    let (first, second) = body.split_at(if mode & 2 == 0 { body.len() } else { body.len() / 16 * 8 });
    let mut before = Mark::ORIGIN;
    for (number, part) in [(1, first), (2, second)] {
        if number == 2 && mode & 2 == 0 {
            break;
        }
        let header = FileHeader { number, before };
        let mut bytes = header.encode(&STORE_ID);
        bytes.extend_from_slice(part);
        if mode & 1 == 0 {
            before = seal_batches(&mut bytes, before);
        }
        let Ok(file) = disk.create(&header.path()) else { return };
        if file.write_all_at(&bytes, 0).is_err() {
            return;
        }
    }
    let options = JournalOptions::new(STORE_ID);
    let mut at = Mark::ORIGIN;
    let read = super::read(&disk, &options, Mark::ORIGIN, |batch| {
        let encoded = format::encode_batch(&STORE_ID, at, batch.time_ms, &batch.records)?;
        assert_eq!((batch.first, batch.chain), (at.position, encoded.after.chain));
        assert_eq!(batch.last(), encoded.after.position);
        at = encoded.after;
        Ok::<_, JournalError>(())
    });
    let Ok(read) = read else { return };
    assert_eq!(read.end(), at);
    assert_eq!(super::read_end(&disk, &options).map(|read| read.end()).ok(), Some(at));
    assert_eq!(super::read(&disk, &options, at, no_batch).map(|read| read.end()).ok(), Some(at));
}

fn no_batch(batch: Batch) -> Result<(), JournalError> {
    panic!("a batch follows the end: {batch:?}");
}

/// Makes headers and checksums right of batches that seem to be there; the point after the last one.
fn seal_batches(bytes: &mut [u8], mut before: Mark) -> Mark {
    let mut at = FILE_HEADER_LEN;
    while let Some(header) = bytes.get_mut(at..at + BATCH_HEADER_LEN) {
        header[24..32].copy_from_slice(&before.position.lsn.to_le_bytes());
        header[32..40].copy_from_slice(&before.position.local.to_le_bytes());
        header[48..64].copy_from_slice(&before.chain.0);
        let Some(decoded) = BatchHeader::decode(header) else { break };
        let Some(batch) = bytes.get_mut(at..at + decoded.batch_len()) else { break };
        let (sealed, padding) = batch.split_at_mut(decoded.sealed_len());
        padding.fill(0);
        let chain = format::checksum(&STORE_ID, sealed);
        batch[CHAIN_OFFSET..BATCH_HEADER_LEN].copy_from_slice(&chain.0);
        let Some(decoded) = BatchHeader::decode(batch) else { break };
        (before, at) = (decoded.after, at + decoded.batch_len());
    }
    before
}

/// A snapshot of any bytes: what is proven is read the same way twice, and its facts have their bytes.
pub(crate) fn snapshot(input: &[u8]) {
    let (&mode, body) = input.split_first().unwrap_or((&0, &[]));
    let mut bytes = body.to_vec();
    let position = snapshot::fuzzing::seal(&mut bytes, &STORE_ID, mode & 1 == 0);
    let disk = SimDisk::new();
    let path = format!("{DIRECTORY}/{:016x}-{:016x}{}", position.lsn, position.local, format::SNAPSHOT_SUFFIX);
    let file = disk.create_dir(DIRECTORY).and_then(|()| disk.create(&path));
    if file.and_then(|file| file.write_all_at(&bytes, 0)).is_err() {
        return;
    }
    let Ok(listed) = snapshot::list(&disk) else { return };
    let Some(listed) = listed.first() else { return };
    let proven = snapshot::SnapshotReader::prove(&disk, STORE_ID, listed);
    let Ok((header, proven)) = proven else { return };
    assert_eq!(header.mark.position, position);
    let mut facts = 0;
    let Ok(mut reader) = snapshot::SnapshotReader::open(&disk, STORE_ID, listed) else { return };
    while let Ok(snapshot::Part::Page(page)) = reader.next_part() {
        let read = page.each(|fact| {
            assert_eq!(Fact::decode(&fact.encode()), Ok(fact));
            facts += 1;
            Ok::<_, JournalError>(())
        });
        assert!(read.is_ok(), "a page that was proven does not decode any more");
    }
    assert_eq!(facts, proven.facts);
}

/// Every record of the store of the first format version, and the facts of its snapshot.
pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for batch in batches() {
        for record in batch.records {
            let class = u8::from(record.class == RecordClass::Local);
            seeds.push([&[class], &record.payload[..]].concat());
        }
    }
    // A Settle of version 1, which decodes and is written as version 2.
    seeds.push([&[0, 8, 1][..], &[1; 8]].concat());
    snapshot::fuzzing::each_fact(SNAPSHOT, &mut |fact| seeds.push([&[2], &fact.encode()[..]].concat()));
    seeds.sort();
    seeds.dedup();
    seeds
}

/// Its batches, as one journal.
pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    let (mut at, mut bytes) = (Mark::ORIGIN, Vec::new());
    for batch in batches() {
        let Ok(encoded) = format::encode_batch(&STORE_ID, at, batch.time_ms, &batch.records) else { continue };
        at = encoded.after;
        bytes.extend_from_slice(&encoded.bytes);
    }
    (0..4).map(|mode| [&[mode], &bytes[..]].concat()).collect()
}

/// Its snapshot.
pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    (0..2).map(|mode| [&[mode], SNAPSHOT].concat()).collect()
}

fn batches() -> Vec<Batch> {
    let mut batches = Vec::new();
    for file in JOURNAL {
        let mut rest = &file[FILE_HEADER_LEN..];
        while let Some(header) = BatchHeader::decode(rest)
            && let Some(bytes) = rest.get(..header.batch_len())
        {
            rest = &rest[header.batch_len()..];
            batches.extend(header.batch(bytes));
        }
    }
    batches
}

const JOURNAL: [&[u8]; 3] = [
    include_bytes!("../../tests/fixtures/v1/store/journal/0000000000000001-0000000000000001.journal"),
    include_bytes!("../../tests/fixtures/v1/store/journal/000000000000000b-000000000000000b.journal"),
    include_bytes!("../../tests/fixtures/v1/store/journal/0000000000000010-0000000000000011.journal"),
];
const SNAPSHOT: &[u8] =
    include_bytes!("../../tests/fixtures/v1-snapshots/store/journal/0000000000000014-0000000000000012.snapshot");
