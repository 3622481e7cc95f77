//! How fast stored content comes back, checked: whole, and by ranges at random offsets; and how fast ranges are ready for
//! the kernel to send.
//!
//! `cargo bench --bench reads [-- DIR]`. The bytes lie in the kernel's page cache: it is the engine that is measured, not
//! the disk. Each read opens the content anew, as a request does.

mod engine;
mod table;

use engine::{Engine, INDEX};
use orlop::{Algorithm, Digest, StoreOptions, StoredContent};
use table::{Failure, Outcome, Row, Table};

/// Bytes that a download reads at a time.
const PIECE_BYTES: usize = 512 << 10;
const LARGE_BYTES: usize = 256 << 20;

fn main() -> Outcome {
    let table = Table::begin(&format!("reads, {INDEX}"))?;
    let engine = Engine::open(&table.path("store"), StoreOptions::default())?;
    let content: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
    let open = |digest: &Digest| -> Result<StoredContent, Failure> {
        Ok(engine.store.content(digest)?.ok_or("it was stored before")?)
    };

    for (name, len) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        let digests: Result<Vec<Digest>, _> = (0..64)
            .map(|at| engine.store.put(&engine.repository, Algorithm::Sha256, &[&[at], &content[1..len]].concat()))
            .collect();
        let digests = digests?;
        for threads in [1, 4] {
            let row = Row { threads, count: 200_000, bytes: len as u64 };
            table.row(&format!("whole, {name}"), row, |_| {
                let stored = open(&digests[fastrand::usize(..digests.len())])?;
                stored.read_all()?;
                Ok(())
            })?;
        }
    }

    let large = content.repeat(LARGE_BYTES / content.len());
    let digest = engine.store.put(&engine.repository, Algorithm::Sha256, &large)?;
    drop(large);
    let row = Row { threads: 1, count: 20, bytes: LARGE_BYTES as u64 };
    table.row("whole, 256 MiB", row, |_| {
        let stored = open(&digest)?;
        let mut at = 0;
        while at < stored.len() {
            at += stored.read(at, PIECE_BYTES)?.len() as u64;
        }
        Ok(())
    })?;
    for (name, len) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        for threads in [1, 4] {
            let row = Row { threads, count: 200_000, bytes: len as u64 };
            table.row(&format!("range of {name} of 256 MiB"), row, |_| {
                open(&digest)?.read(fastrand::u64(..LARGE_BYTES as u64 - len as u64), len)?;
                Ok(())
            })?;
            // All of it was checked above, or is now: nothing is read but whether the kernel has the bytes.
            table.row(&format!("range of {name} of 256 MiB, to be sent"), row, |_| {
                let (stored, at) = (open(&digest)?, fastrand::u64(..LARGE_BYTES as u64 - len as u64));
                match stored.at_hand(at, len) {
                    Some(_) => {}
                    None => drop(stored.piece(at, len)?),
                }
                Ok(())
            })?;
        }
    }
    engine.close()
}
