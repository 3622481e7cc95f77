//! How fast a tag is looked up, and a page of tags listed, in a repository of many.
//!
//! `cargo bench --bench tags [-- DIR]`

mod engine;
mod images;
mod table;

use engine::{Engine, INDEX};
use images::Images;
use orlop::registry::Reference;
use table::{Outcome, Row, Table};

const MANIFESTS: u64 = 1_000;
/// Tags of each.
const TAGS: u64 = 100;
const PAGE: usize = 100;

fn main() -> Outcome {
    let table = Table::begin(&format!("tags, {INDEX}, {} in one repository", MANIFESTS * TAGS))?;
    let engine = Engine::open(&table.path("store"))?;
    let images = Images::of(&engine)?;
    let row = Row { threads: 16, count: MANIFESTS, bytes: 0 };
    // What the row's time leaves undone is done after it: the lookups need all of them.
    let pushed = std::sync::atomic::AtomicU64::new(0);
    table.row("push a manifest with 100 tags, 16 writers", row, |number| {
        pushed.fetch_max(number + 1, std::sync::atomic::Ordering::Relaxed);
        images.push(&format!("m{number}"), TAGS)
    })?;
    for number in pushed.into_inner()..MANIFESTS {
        images.push(&format!("m{number}"), TAGS)?;
    }

    let registry = &images.registry;
    let any = || format!("m{}-{}", fastrand::u64(..MANIFESTS), fastrand::u64(..TAGS));
    for threads in [1, 4] {
        let row = Row { threads, count: 200_000, bytes: 0 };
        table.row(&format!("head of a manifest by tag, {threads} threads"), row, |_| {
            registry.manifest_head(&engine.repository, &Reference::Tag(any().parse()?))?;
            Ok(())
        })?;
        table.row(&format!("manifest by tag, {threads} threads"), row, |_| {
            registry.manifest(&engine.repository, &Reference::Tag(any().parse()?))?;
            Ok(())
        })?;
        table.row(&format!("page of 100 tags from anywhere, {threads} threads"), row, |_| {
            registry.tags(&engine.repository, Some(&any()), PAGE)?;
            Ok(())
        })?;
    }
    drop(images);
    engine.close()
}
