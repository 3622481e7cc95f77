//! How long a start takes: after a clean end, after a kill, and when the index is gone and all of the journal is replayed.
//!
//! `cargo bench --bench replay [-- DIR]`. A store that is dropped and not closed leaves what a kill leaves, but for the
//! kernel's cache: its index was not flushed.

mod engine;
mod images;
mod table;

use std::{
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use engine::{Engine, INDEX};
use images::Images;
use orlop::Algorithm;
use table::{Failure, Outcome, Row, Table};

const BLOBS: u64 = 20_000;
const MANIFESTS: u64 = 1_000;
/// Tags of each.
const TAGS: u64 = 50;
const OPENS: u64 = 5;

fn main() -> Outcome {
    let table = Table::begin(&format!("starts, {INDEX}"))?;
    let path = table.path("store");
    let engine = Engine::open(&path)?;
    let row = |count| Row { threads: 64, count, bytes: 0 };
    table.row("put 20 bytes, 64 writers", row(BLOBS), |number| {
        let content = format!("content {number:012}");
        Ok(engine.store.put(&engine.repository, Algorithm::Sha256, content.as_bytes())?)
    })?;
    let images = Images::of(&engine)?;
    table.row("push a manifest with 50 tags, 64 writers", row(MANIFESTS), |number| {
        images.push(&format!("m{number}"), TAGS)
    })?;
    drop(images);
    drop(engine);
    opens(&table, "open after a kill", || Engine::open(&path))?;
    Engine::open(&path)?.close()?;
    opens(&table, "open after a clean end", || Engine::open(&path))?;
    opens(&table, "open without an index", || {
        remove(&path.join("index"))?;
        Engine::open(&path)
    })
}

/// Opens several times. None of the stores is closed, so that each finds what the one before found.
fn opens(table: &Table, operation: &str, open: impl Fn() -> Result<Engine, Failure> + Sync) -> Outcome {
    let said = Mutex::new(String::new());
    table.row(operation, Row { threads: 1, count: OPENS, bytes: 0 }, |_| {
        let engine = open()?;
        let recovery = engine.store.recovery();
        *said.lock().unwrap_or_else(PoisonError::into_inner) =
            format!("    {} records, {} KiB replayed", recovery.replayed_records, recovery.replayed_bytes >> 10);
        Ok(engine)
    })?;
    println!("{}", said.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
