//! How long a start takes: after a clean end, after a kill, and when the index is gone and all of the journal is replayed.
//!
//! `cargo bench --bench replay [-- DIR]`. Each start has a copy of the store for itself.

mod engine;
mod images;
mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use engine::{Engine, INDEX};
use images::Images;
use orlop::{Algorithm, StoreOptions};
use table::{Failure, Outcome, Row, Table};

const BLOBS: u64 = 20_000;
const MANIFESTS: u64 = 1_000;
/// Tags of each.
const TAGS: u64 = 50;
const OPENS: u64 = 5;

fn main() -> Outcome {
    let table = Table::begin(&format!("starts, {INDEX}"))?;
    let path = table.path("store");
    let engine = Engine::open(&path, StoreOptions::default())?;
    let row = |count| Row { threads: 64, count, bytes: 0 };
    table.row("put 20 bytes", row(BLOBS), |number| {
        let content = format!("content {number:012}");
        Ok(engine.store.put(&engine.repository, Algorithm::Sha256, content.as_bytes())?)
    })?;
    let images = Images::of(&engine)?;
    table.row("push a manifest with 50 tags", row(MANIFESTS), |number| images.push(&format!("m{number}"), TAGS))?;
    drop(images);
    // Dropped, RocksDB would write out what it has in memory; the files under a store that lives are what a kill leaves.
    let copies = |name: &str| -> Result<Vec<PathBuf>, Failure> {
        let copies = (0..OPENS).map(|number| table.path(&format!("{name}-{number}")));
        copies.map(|to| copy(&path, &to).map(|()| to).map_err(Failure::from)).collect()
    };
    let killed = copies("killed")?;
    engine.close()?;
    let ended = copies("ended")?;
    let bare = copies("bare")?;
    for copy in &bare {
        remove(&copy.join("index"))?;
    }
    opens(&table, "open after a clean end", &ended)?;
    opens(&table, "open after a kill", &killed)?;
    opens(&table, "open without an index", &bare)
}

/// Opens each of some directories once.
fn opens(table: &Table, operation: &str, paths: &[PathBuf]) -> Outcome {
    let said = Mutex::new(String::new());
    table.row(operation, Row { threads: 1, count: OPENS, bytes: 0 }, |number| {
        let engine = Engine::open(&paths[number as usize], StoreOptions::default())?;
        let recovery = engine.store.recovery();
        *said.lock().unwrap_or_else(PoisonError::into_inner) =
            format!("    {} records, {} KiB replayed", recovery.replayed_records, recovery.replayed_bytes >> 10);
        Ok(engine)
    })?;
    println!("{}", said.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
