//! Bytes that nothing names, found in the files of segments without the help of what wrote them.
//!
//! A segment is read as FORMAT.md tells it: records one behind the other, zeros between them. What a server says of its
//! segments is compared with that: each file is one of those that it lists, each has just the records and bytes that it says
//! live, and all else is zero. It holds after a collection, when no upload is under way and nothing is held back by readers.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufReader, Read},
    path::Path,
};

use serde_json::Value;

use crate::error::{CutError, file_error};

const FILE_HEADER_BYTES: u64 = 64;
/// Where the header of a single segment's record lies.
const SINGLE_AT: u64 = 4000;
const RECORD_HEADER_BYTES: u64 = 96;
const RECORD_MAGIC: &[u8] = b"OREC";
/// Payload that one checksum covers.
const CHECKED_BYTES: u64 = 65_536;
/// Records begin at multiples of this.
const STEP: u64 = 32;

/// What lives in a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lives {
    records: u64,
    bytes: u64,
}

/// What the files below a data directory have that `listed`, the server's list of segments, does not account for.
///
/// # Errors
/// When a file cannot be read, or the list cannot be understood.
pub(crate) fn find(data: &Path, listed: &Value) -> Result<Vec<String>, CutError> {
    let not_a_list = || CutError::Command { command: "segments".to_owned(), problem: listed.to_string() };
    let mut expected = BTreeMap::new();
    for segment in listed["segments"].as_array().ok_or_else(not_a_list)? {
        let number = |name: &str| segment[name].as_u64().ok_or_else(not_a_list);
        let lives = Lives { records: number("live_records")?, bytes: number("live_bytes")? };
        expected.insert(number("number")?, (segment["kind"] == "single", lives));
    }
    let mut wrong = Vec::new();
    for (number, path) in files(&data.join("segments"))? {
        let Some((is_single, lives)) = expected.remove(&number) else {
            wrong.push(format!("{}: no segment of the server's list", path.display()));
            continue;
        };
        let file = File::open(&path).map_err(file_error(&path))?;
        let len = file.metadata().map_err(file_error(&path))?.len();
        match walk(&mut BufReader::new(file), len, is_single).map_err(file_error(&path))? {
            Ok(found) if found == lives => {}
            Ok(found) => wrong.push(format!("{}: it has {found:?}, the server says {lives:?}", path.display())),
            Err(problem) => wrong.push(format!("{}: {problem}", path.display())),
        }
    }
    wrong.extend(expected.keys().map(|number| format!("segment {number} has no file")));
    let lost = data.join("lost");
    if fs::read_dir(&lost).is_ok_and(|entries| entries.count() > 0) {
        wrong.push(format!("{} is not empty", lost.display()));
    }
    Ok(wrong)
}

/// The files of segments, by number.
fn files(segments: &Path) -> Result<BTreeMap<u64, std::path::PathBuf>, CutError> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(segments) {
        // Nothing was ever stored.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(file_error(segments))?,
    };
    for directory in entries.flatten() {
        let files = fs::read_dir(directory.path()).map_err(file_error(&directory.path()))?;
        for path in files.flatten().map(|file| file.path()) {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            found.insert(number.unwrap_or(u64::MAX), path);
        }
    }
    Ok(found)
}

/// What lives in a segment's bytes, all of which are of records, or zero; else what is neither, and where.
fn walk(bytes: &mut impl Read, len: u64, is_single: bool) -> std::io::Result<Result<Lives, String>> {
    let mut piece = [0; STEP as usize];
    bytes.read_exact(&mut [0; FILE_HEADER_BYTES as usize])?;
    let (mut at, mut lives) = (FILE_HEADER_BYTES, Lives::default());
    while at < len {
        let rest = (len - at).min(STEP);
        let piece = &mut piece[..rest as usize];
        bytes.read_exact(piece)?;
        if piece.iter().all(|&byte| byte == 0) {
            at += rest;
            continue;
        }
        let mut header = [0; RECORD_HEADER_BYTES as usize];
        let is_whole = len - at >= RECORD_HEADER_BYTES;
        if is_whole {
            header[..piece.len()].copy_from_slice(piece);
            bytes.read_exact(&mut header[STEP as usize..])?;
        }
        let record_len = record_len(&header).filter(|record_len| is_whole && *record_len <= len - at);
        let Some(record_len) = record_len.filter(|_| !is_single || at == SINGLE_AT) else {
            return Ok(Err(format!("what lies at {at} is no record, and not zero")));
        };
        let behind = record_len - RECORD_HEADER_BYTES;
        std::io::copy(&mut bytes.by_ref().take(behind), &mut std::io::sink())?;
        at += record_len;
        lives.records += 1;
        lives.bytes += record_len;
    }
    Ok(Ok(lives))
}

/// The length of a record by its header; `None` when that is none.
fn record_len(header: &[u8; RECORD_HEADER_BYTES as usize]) -> Option<u64> {
    let (covered, sum) = header.split_at(92);
    let is_header = header.starts_with(RECORD_MAGIC) && crc32(covered).to_le_bytes() == sum;
    let payload = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let sums = payload.div_ceil(CHECKED_BYTES).checked_mul(4)?;
    let len = RECORD_HEADER_BYTES.checked_add(payload)?.checked_add(sums)?.checked_next_multiple_of(STEP)?;
    is_header.then_some(len)
}

/// The CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut bytes = [RECORD_MAGIC, &[1, 1, 0, 0], &(payload.len() as u64).to_le_bytes(), &[7; 76]].concat();
        bytes.extend(crc32(&bytes).to_le_bytes());
        bytes.extend(payload);
        bytes.resize((bytes.len() + payload.len().div_ceil(65_536) * 4).next_multiple_of(32), 0);
        bytes
    }

    fn walked(parts: &[&[u8]], is_single: bool) -> Result<Lives, String> {
        let bytes = [&[[9; 64].as_slice()], parts].concat().concat();
        walk(&mut bytes.as_slice(), bytes.len() as u64, is_single).unwrap()
    }

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn records_between_zeros_are_counted() {
        let (a, b) = (record(&[1; 10]), record(&[2; 70_000]));
        let expected = Lives { records: 2, bytes: (a.len() + b.len()) as u64 };
        assert_eq!(walked(&[&a, &[0; 320], &b, &[0; 7]], false), Ok(expected));
        assert_eq!(walked(&[], false), Ok(Lives::default()));
        let single = [vec![0; 4000 - 64], a].concat();
        assert_eq!(walked(&[&single], true).unwrap().records, 1);
    }

    #[test]
    fn what_is_neither_record_nor_zero_is_named_with_its_place() {
        let (a, torn) = (record(&[1; 10]), [&[0; 20][..], &[1]].concat());
        let place = |at: usize| Err(format!("what lies at {at} is no record, and not zero"));
        assert_eq!(walked(&[&a, &torn], false), place(64 + a.len()));
        assert_eq!(walked(&[&a[..a.len() - 32]], false), place(64));
        assert_eq!(walked(&[&a], true), place(64));
    }
}
