//! How fast a tag is looked up, and a page of tags listed, in a repository of many.
//!
//! `cargo bench --bench tags [-- DIR]`

mod engine;
mod images;
mod table;

use std::thread;

use engine::{Engine, INDEX};
use images::Images;
use orlop::{StoreOptions, disk::Reach, registry::Reference};
use table::{Outcome, Row, Table};

const MANIFESTS: u64 = 1_000;
/// Tags of each.
const TAGS: u64 = 100;
const WRITERS: usize = 32;
const PAGE: usize = 100;

fn main() -> Outcome {
    let table = Table::begin(&format!("tags, {INDEX}, {} in one repository", MANIFESTS * TAGS))?;
    let engine = Engine::open(&table.path("store"), StoreOptions::default())?;
    let images = Images::of(&engine)?;
    let pushed: Outcome = thread::scope(|scope| {
        let push =
            |writer| (writer..MANIFESTS).step_by(WRITERS).try_for_each(|at| images.push(&format!("m{at}"), TAGS));
        let writers: Vec<_> = (0..WRITERS as u64).map(|writer| scope.spawn(move || push(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| Err("a writer panicked".into())))
    });
    pushed?;

    let reads = images.registry.reads(Reach::Disk);
    let any = || format!("m{}-{}", fastrand::u64(..MANIFESTS), fastrand::u64(..TAGS));
    for threads in [1, 4] {
        let row = Row { threads, count: 200_000, bytes: 0 };
        table.row("head of a manifest by tag", row, |_| {
            reads.manifest_head(&engine.repository, &Reference::Tag(any().parse()?))?;
            Ok(())
        })?;
        table.row("manifest by tag", row, |_| {
            reads.manifest(&engine.repository, &Reference::Tag(any().parse()?))?;
            Ok(())
        })?;
        table.row("page of 100 tags from anywhere", row, |_| {
            reads.tags(&engine.repository, Some(&any()), PAGE)?;
            Ok(())
        })?;
    }
    drop(images);
    engine.close()
}
