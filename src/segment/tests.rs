//! Segments over the simulated disk. Each module holds one promise of the layer.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    digest::Algorithm,
    disk::{Disk, sim::SimDisk},
};

mod crash;
mod damage;
mod erasing;
mod faults;
mod golden;
mod opening;
mod reclaiming;
mod removing;
mod schedules;
mod sharing;
mod walking;

const STORE_ID: [u8; 16] = *b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";
/// Payload lengths around the ends of blocks, and around the length from which a record is not read whole.
const LENGTHS: [usize; 9] = [0, 1, 65_535, 65_536, 65_537, 200_000, 262_000, 262_144, 400_001];

/// A record that was written, and what it has to give back.
#[derive(Debug, Clone)]
struct Kept {
    appended: Appended,
    digest: Digest,
    payload: Vec<u8>,
}

fn options() -> SegmentOptions {
    SegmentOptions { reserve_bytes: 0, ..SegmentOptions::new(STORE_ID) }
}

fn open_with(disk: &SimDisk, options: SegmentOptions, listed: Vec<ListedSegment>) -> (Segments, OpenReport) {
    let next = listed.iter().map(|segment| segment.number.0 + 1).max().unwrap_or(0);
    Segments::open(Arc::new(disk.clone()), options, next, listed, UnlistedFiles::Remove).unwrap()
}

fn open(disk: &SimDisk, listed: Vec<ListedSegment>) -> Segments {
    open_with(disk, options(), listed).0
}

/// Bytes that no two lengths and seeds share.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed ^ ((len as u64) << 32)).fill(&mut bytes);
    bytes
}

fn append(segments: &Segments, payload: Vec<u8>) -> Result<Kept, SegmentError> {
    let digest = Digest::of(Algorithm::Sha256, &payload);
    let appended = segments.append(RecordKind::Blob, &digest, &payload)?;
    Ok(Kept { appended, digest, payload })
}

fn finish(writer: SingleWriter, payload: Vec<u8>) -> Result<Kept, SegmentError> {
    let digest = Digest::of(Algorithm::Sha512, &payload);
    let appended = writer.finish(RecordKind::Manifest, &digest)?;
    Ok(Kept { appended, digest, payload })
}

fn single(segments: &Segments, payload: Vec<u8>) -> Result<Kept, SegmentError> {
    let mut writer = segments.create_single()?;
    for piece in payload.chunks(100_000) {
        writer.write(piece)?;
    }
    finish(writer, payload)
}

fn reader(segments: &Segments, kept: &Kept) -> Result<RecordReader, SegmentError> {
    segments.reader(kept.appended.location, &kept.digest, kept.payload.len() as u64)
}

fn read(segments: &Segments, kept: &Kept) -> Result<Vec<u8>, SegmentError> {
    Ok(reader(segments, kept)?.read(0, kept.payload.len())?.to_vec())
}

fn verify(segments: &Segments, kept: &Kept) -> Result<(), SegmentError> {
    segments.verify_record(kept.appended.location, &kept.digest, kept.payload.len() as u64)
}

#[track_caller]
fn check(segments: &Segments, kept: &[Kept]) {
    for kept in kept {
        assert!(read(segments, kept).unwrap() == kept.payload, "{}", kept.appended.location);
        verify(segments, kept).unwrap();
    }
}

/// What the index lists when it knows these records.
fn listed(kept: &[Kept]) -> Vec<ListedSegment> {
    let mut segments = BTreeMap::new();
    for Kept { appended: Appended { location, record_len }, digest, .. } in kept {
        let kind = if digest.algorithm() == Algorithm::Sha256 { SegmentKind::Shared } else { SegmentKind::Single };
        let (_, end) = segments.entry(location.segment).or_insert((kind, 0));
        *end = (location.offset + record_len).max(*end);
    }
    let listed = |(number, (kind, committed_end))| ListedSegment { number, kind, committed_end, sealed: false };
    segments.into_iter().map(listed).collect()
}

/// All files below a directory of directories, with their lengths.
fn files_below(disk: &SimDisk, path: &str) -> Vec<(String, u64)> {
    let directories = disk.list(path).unwrap().into_iter().filter(|entry| entry.is_dir);
    let files = directories.flat_map(|entry| disk.list(&format!("{path}/{}", entry.name)).unwrap());
    files.map(|entry| (entry.name, entry.len)).collect()
}
