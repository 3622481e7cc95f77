//! What it costs to put bytes into segments: appends to shared ones, with and without syncs, and single ones whole.
//!
//! `cargo bench --bench segments [-- DIR]`

mod table;

use std::sync::Arc;

use orlop::{
    Algorithm, Digest,
    disk::RealDisk,
    location::RecordKind,
    segment::{SegmentOptions, Segments, UnlistedFiles},
};
use table::{Outcome, Row, Table};

const LARGE_BYTES: usize = 64 << 20;
const PIECE_BYTES: usize = 1 << 20;

fn main() -> Outcome {
    let table = Table::begin("segments")?;
    let disk = Arc::new(RealDisk::new(table.path("store"))?);
    let options = SegmentOptions::new([7; 16]);
    let (segments, _) = Segments::open(disk, options, 0, Vec::new(), UnlistedFiles::Remove)?;
    let content: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(PIECE_BYTES).collect();

    for (name, len) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        let payload = &content[..len];
        let digest = Digest::of(Algorithm::Sha256, payload);
        let append = || -> Outcome {
            segments.append(RecordKind::Blob, &digest, payload)?;
            Ok(())
        };
        // Not more than the page cache takes without writing it out at once.
        let count = (256 << 20) / len as u64;
        for threads in [1, 4] {
            let row = Row { threads, count, bytes: len as u64 };
            table.row(&format!("append {name}"), row, |_| append())?;
            segments.sync()?;
        }
        let row = Row { threads: 1, count, bytes: len as u64 };
        table.row(&format!("append {name} and sync"), row, |_| {
            append()?;
            Ok(segments.sync()?)
        })?;
    }

    let digest = Digest::of(Algorithm::Sha256, b"not asked for here");
    let row = Row { threads: 1, count: 20, bytes: LARGE_BYTES as u64 };
    table.row("a single segment of 64 MiB, durable", row, |_| {
        let mut single = segments.create_single()?;
        for _ in 0..LARGE_BYTES / PIECE_BYTES {
            single.write(&content)?;
        }
        single.finish(RecordKind::Blob, &digest)?;
        Ok(())
    })?;
    Ok(())
}
