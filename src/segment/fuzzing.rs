//! What must hold for the bytes of segments, whatever they are. For fuzzers and tests only.
//!
//! Checksums are made right where a record seems to begin, for half of the inputs: else nearly all of them would end there.

use std::sync::Arc;

use super::{
    ListedSegment, SegmentKind, SegmentOptions, Segments, UnlistedFiles,
    format::{self, FILE_HEADER_LEN, RECORD_ALIGN, RECORD_HEADER_LEN},
};
use crate::{
    digest::{Algorithm, Digest},
    disk::{Disk, sim::SimDisk},
    location::{Location, RecordKind, SegmentNumber},
};

const STORE_ID: [u8; 16] = [7; 16];
const NUMBER: SegmentNumber = SegmentNumber(1);

/// Headers of files and records, and names of files.
pub(crate) fn headers(input: &[u8]) {
    let _ = format::check_file_header(input, NUMBER, &STORE_ID);
    let _ = format::decode_record_header(input);
    if let Ok(path) = std::str::from_utf8(input)
        && let Some(number) = format::number_of(path)
    {
        assert_eq!(format::path_of(number), path);
    }
    let mut file_header = padded(input, FILE_HEADER_LEN);
    seal(&mut file_header);
    if let Ok(kind) = format::check_file_header(&file_header, NUMBER, &STORE_ID) {
        let again = format::encode_file_header(kind, NUMBER, &STORE_ID);
        assert_eq!(format::check_file_header(&again, NUMBER, &STORE_ID).ok(), Some(kind));
    }
    let mut header = padded(input, RECORD_HEADER_LEN);
    seal(&mut header);
    if let Some(record) = format::decode_record_header(&header) {
        let len = record.layout.payload_len;
        assert!(record.layout.record_len >= len && record.layout.record_len.is_multiple_of(RECORD_ALIGN));
        let again = format::encode_record_header(record.kind, &record.digest, len);
        assert_eq!(format::decode_record_header(&again), Some(record));
        assert_eq!(format::check_record_header(&header, 0, &record.digest, len).ok(), Some(record.kind));
    }
}

/// A segment file of any bytes: the walk ends, and what is read of its candidates was covered by checksums.
pub(crate) fn walk(input: &[u8]) {
    let (&mode, body) = input.split_first().unwrap_or((&0, &[]));
    let kind = if mode & 2 == 0 { SegmentKind::Shared } else { SegmentKind::Single };
    let mut bytes = format::encode_file_header(kind, NUMBER, &STORE_ID);
    bytes.extend_from_slice(body);
    if mode & 1 == 0 {
        seal_records(&mut bytes);
    }
    let disk = SimDisk::new();
    let Ok(file) = write_file(&disk, &bytes) else { return };
    let listed = ListedSegment { number: NUMBER, kind, committed_end: bytes.len() as u64, sealed: true };
    let options = SegmentOptions { reserve_bytes: 0, ..SegmentOptions::new(STORE_ID) };
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let Ok((segments, _)) = Segments::open(disk, options, 2, vec![listed], UnlistedFiles::Remove) else { return };
    let Ok(mut candidates) = segments.candidates_in(&file) else { return };
    let mut count = 0;
    while let Ok(Some(candidate)) = candidates.next(&mut |_| {}) {
        count += 1;
        assert!(candidate.location.offset + candidate.record_len <= bytes.len() as u64);
        let place = Location { segment: NUMBER, ..candidate.location };
        let Ok(reader) = segments.reader(place, &candidate.digest, candidate.payload_len) else { continue };
        if let Ok(read) = reader.read(0, candidate.payload_len as usize) {
            let begin = (candidate.location.offset + RECORD_HEADER_LEN) as usize;
            assert!(read[..] == bytes[begin..begin + read.len()] && read.len() as u64 == candidate.payload_len);
        }
        let is_sound = segments.verify_record(place, &candidate.digest, candidate.payload_len).is_ok();
        if is_sound && candidate.digest.hash()[0] & 1 == 0 {
            candidates.pass(&candidate);
        }
    }
    assert!(count <= bytes.len() / RECORD_ALIGN as usize, "a walk goes on");
}

/// A file under the name of the segment.
fn write_file(disk: &SimDisk, bytes: &[u8]) -> std::io::Result<String> {
    disk.create_dir("segments")?;
    disk.create_dir(&format::directory_of(NUMBER))?;
    let path = format::path_of(NUMBER);
    disk.create(&path)?.write_all_at(bytes, 0)?;
    Ok(path)
}

fn padded(input: &[u8], len: u64) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes.resize(len as usize, 0);
    bytes
}

/// Makes a header's checksum right.
fn seal(header: &mut [u8]) {
    if let Some((covered, sum)) = header.split_last_chunk_mut::<4>() {
        *sum = crc32fast::hash(covered).to_le_bytes();
    }
}

/// Makes the checksums of records right that begin where one can begin, as far as their lengths are in the file.
fn seal_records(bytes: &mut [u8]) {
    let mut at = FILE_HEADER_LEN as usize;
    while let Some(header) = bytes.get_mut(at..at + RECORD_HEADER_LEN as usize) {
        seal(header);
        let record = format::decode_record_header(header);
        let end = record.and_then(|record| at.checked_add(usize::try_from(record.layout.record_len).ok()?));
        if let (Some(record), Some(end)) = (record, end)
            && let Some(whole) = bytes.get_mut(at..end)
        {
            let mut sums = format::BlockSums::default();
            sums.update(&whole[RECORD_HEADER_LEN as usize..record.layout.table_offset() as usize]);
            let tail = sums.finish(&record.layout);
            whole[record.layout.table_offset() as usize..].copy_from_slice(&tail);
        }
        at += RECORD_ALIGN as usize;
    }
}

/// Headers, and the name of a file.
pub(crate) fn header_seeds() -> Vec<Vec<u8>> {
    let header = records()[..RECORD_HEADER_LEN as usize].to_vec();
    vec![header, format::encode_file_header(SegmentKind::Single, NUMBER, &STORE_ID), format::path_of(NUMBER).into()]
}

/// Records of some lengths, as they lie in a shared segment.
pub(crate) fn walk_seeds() -> Vec<Vec<u8>> {
    (0..4).map(|mode| [&[mode], &records()[..]].concat()).collect()
}

fn records() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (len, kind) in [(0, RecordKind::Blob), (5, RecordKind::Manifest), (300, RecordKind::Blob)] {
        let payload = vec![len as u8; len];
        let digest = Digest::of(if len == 5 { Algorithm::Sha512 } else { Algorithm::Sha256 }, &payload);
        let Some(layout) = format::Layout::of(len as u64) else { continue };
        bytes.extend(format::encode_record_header(kind, &digest, len as u64));
        bytes.extend_from_slice(&payload);
        let mut sums = format::BlockSums::default();
        sums.update(&payload);
        bytes.extend(sums.finish(&layout));
    }
    bytes
}
