//! How long a change takes until it is durable, and how many a second, with one writer and with many that share a sync.
//!
//! `cargo bench --bench commits [-- DIR]`. *Put* is a blob of 4 KiB: its bytes and the journal are synced. *Link* gives a
//! repository what is stored already: the journal alone. *Tag* is a manifest of its own with one tag.

mod engine;
mod images;
mod table;

use engine::{Engine, INDEX};
use images::Images;
use orlop::{Algorithm, StoreOptions};
use table::{Outcome, Row, Table};

const BLOB_BYTES: usize = 4096;
const WRITERS: [usize; 4] = [1, 4, 16, 64];

fn main() -> Outcome {
    let table = Table::begin(&format!("commits, {INDEX}"))?;
    let engine = Engine::open(&table.path("store"), StoreOptions::default())?;
    let stored = blob(u64::MAX, 0);
    engine.store.put(&engine.repository, Algorithm::Sha256, &stored)?;
    for threads in WRITERS {
        let row = Row { threads, count: 100_000, bytes: BLOB_BYTES as u64 };
        table.row("put 4 KiB", row, |number| {
            engine.store.put(&engine.repository, Algorithm::Sha256, &blob(threads as u64, number))?;
            Ok(())
        })?;
    }
    for threads in WRITERS {
        let row = Row { threads, count: 100_000, bytes: 0 };
        table.row("link", row, |number| {
            let repository = format!("bench/{threads}-{number}").parse()?;
            engine.store.put(&repository, Algorithm::Sha256, &stored)?;
            Ok(())
        })?;
    }
    let images = Images::of(&engine)?;
    for threads in WRITERS {
        let row = Row { threads, count: 100_000, bytes: 0 };
        table.row("tag", row, |number| images.push(&format!("t{threads}-{number}"), 1))?;
    }
    drop(images);
    engine.close()
}

/// Content that two different pairs of numbers do not share.
fn blob(key: u64, number: u64) -> Vec<u8> {
    let mut blob = vec![0; BLOB_BYTES];
    blob[..8].copy_from_slice(&key.to_le_bytes());
    blob[8..16].copy_from_slice(&number.to_le_bytes());
    blob
}
