//! What collecting costs: the garbage, or the store? And what usage and commits cost in the same stores.
//!
//! `cargo bench --bench collect [-- DIR]`. Stores of 1,000, 100,000 and 1,000,000 images, or as many as
//! `ORLOP_BENCH_IMAGES=1000,20000` says, are filled one after the other. In each, 100 images from all over it are deleted,
//! their windows end, and one collection drops and erases them: again and again, as what an index has deleted can slow
//! down what looks for more. The last table has the ratio of each store's figures to the first one's. No snapshots of the
//! journal are written meanwhile; they have a bench of their own.

mod engine;
mod fill;
mod table;

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use engine::{Engine, INDEX};
use fill::{IMAGES_PER_LAYER, IMAGES_PER_REPOSITORY, Images, manifest, organisation, repository};
use orlop::{
    Algorithm, Digest, StoreOptions,
    collect::{CollectOptions, Collector},
    registry::Reference,
};
use table::{Failure, Outcome, Row, Table};

/// Images that are deleted before a collection.
const GARBAGE: u64 = 100;
/// Collections of garbage, and of nothing.
const COLLECTIONS: u64 = 7;
const IDLE_COLLECTIONS: u64 = 50;
/// Threads that push at once in the rows that tell what a commit costs when it shares its sync.
const CROWD: usize = 64;

/// What was measured in each of the stores, in their order.
#[derive(Default)]
struct Figures {
    names: Vec<String>,
    of: HashMap<String, Vec<Duration>>,
}

impl Figures {
    fn add(&mut self, name: &str, figure: Duration) {
        if !self.of.contains_key(name) {
            self.names.push(name.to_owned());
        }
        self.of.entry(name.to_owned()).or_default().push(figure);
    }

    /// All of them, with the ratio of the last to the first.
    fn print(&self, sizes: &[u64]) {
        let heads: String = sizes.iter().map(|size| format!("{size:>12}")).collect();
        println!("\n{:<40}{heads}{:>16}", "median µs by images in the store", "last to first");
        for name in &self.names {
            let figures = self.of.get(name).map_or(&[][..], Vec::as_slice);
            let micros: Vec<f64> = figures.iter().map(|figure| figure.as_secs_f64() * 1e6).collect();
            let columns: String = micros.iter().map(|micros| format!("{micros:>12.1}")).collect();
            let ratio = micros.last().unwrap_or(&0.0) / micros.first().unwrap_or(&0.0).max(0.001);
            println!("{name:<40}{columns}{ratio:>16.2}");
        }
    }
}

fn main() -> Outcome {
    let sizes = std::env::var("ORLOP_BENCH_IMAGES").unwrap_or_else(|_| "1000,100000,1000000".to_owned());
    let sizes: Vec<u64> = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    if sizes.iter().any(|size| *size < COLLECTIONS * GARBAGE) {
        return Err(
            format!("each store needs {} images or more, for all that is deleted", COLLECTIONS * GARBAGE).into()
        );
    }
    let table = Table::begin(&format!("collections, {INDEX}"))?;
    let mut figures = Figures::default();
    for size in &sizes {
        measure(&table, *size, &mut figures)?;
    }
    figures.print(&sizes);
    Ok(())
}

/// Fills a store, measures in it and removes it.
fn measure(table: &Table, size: u64, figures: &mut Figures) -> Outcome {
    // What nothing reaches is due at once: nobody collects here but where it is measured.
    let options = StoreOptions { grace_ms: 1, window_ms: 1, snapshot_bytes_min: u64::MAX, ..StoreOptions::default() };
    let path = table.path(&format!("store-{size}"));
    let engine = Engine::open(&path, options)?;
    let images = Images::of(&engine.store)?;
    let began = Instant::now();
    images.fill(size)?;
    println!("\n{size} images pushed in {:.1} s; {}", began.elapsed().as_secs_f64(), memory());
    rest();
    usage(table, &images, size, figures)?;
    commits(table, &engine, &images, size, figures)?;
    rest();
    collections(&images, size, figures)?;
    println!("{}", memory());
    drop(images);
    engine.close()?;
    Ok(fs::remove_dir_all(path)?)
}

/// Asks for usage of any scope.
fn usage(table: &Table, images: &Images, size: u64, figures: &mut Figures) -> Outcome {
    let registry = &images.registry;
    let row = Row { threads: 1, count: 100_000, bytes: 0 };
    figures.add("usage of the registry", table.row("usage of the registry", row, |_| Ok(registry.usage()?))?);
    let any = || fastrand::u64(..size);
    let of_organisation = |_| Ok(registry.organisation_usage(&organisation(any()))?);
    figures.add("usage of an organisation", table.row("usage of any organisation", row, of_organisation)?);
    let of_repository = |_| Ok(registry.repository_usage(&repository(any())?)?);
    figures.add("usage of a repository", table.row("usage of any repository", row, of_repository)?);
    Ok(())
}

/// Puts blobs, pushes new images, and tags old ones that are not deleted later: what is collected is the same in each store.
fn commits(table: &Table, engine: &Engine, images: &Images, size: u64, figures: &mut Figures) -> Outcome {
    for threads in [1, CROWD] {
        let row = Row { threads, count: 20_000, bytes: 0 };
        let put = |number: u64| {
            let blob = format!("blob {number} of {threads}").repeat(200);
            Ok(engine.store.put(&engine.repository, Algorithm::Sha256, blob.as_bytes())?)
        };
        figures.add(&format!("put of a blob, {threads} at once"), table.row("put of a blob", row, put)?);
        // Behind all others, in repositories of their own.
        let first = (size / IMAGES_PER_REPOSITORY + 1 + threads as u64 * 1_000_000) * IMAGES_PER_REPOSITORY;
        let push = |number: u64| images.push(first + number * IMAGES_PER_REPOSITORY);
        figures.add(&format!("push of an image, {threads} at once"), table.row("push of an image", row, push)?);
        let tag = |number: u64| images.put_manifest(kept(size), &format!("again-{threads}-{number}"));
        figures.add(&format!("tag of an image, {threads} at once"), table.row("tag of an image", row, tag)?);
    }
    Ok(())
}

/// How many layers' images lie from one group that is deleted to the next.
fn apart(size: u64) -> u64 {
    size / IMAGES_PER_LAYER / (GARBAGE / IMAGES_PER_LAYER)
}

/// Any image that is not deleted.
fn kept(size: u64) -> u64 {
    let group = fastrand::u64(..GARBAGE / IMAGES_PER_LAYER) * apart(size) + fastrand::u64(COLLECTIONS..apart(size));
    group * IMAGES_PER_LAYER + fastrand::u64(..IMAGES_PER_LAYER)
}

/// Deletes images and collects them, and collects where nothing is due.
fn collections(images: &Images, size: u64, figures: &mut Figures) -> Outcome {
    let collector = Collector::new(images.registry.clone(), CollectOptions::default())?;
    // What the pushes before have left.
    collector.collect(false)?;
    figures.add("nothing due", median(&mut collect_nothing(&collector)?));

    let (mut drops, mut erasing, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..COLLECTIONS {
        delete(images, size, round)?;
        thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        let report = collector.collect(false)?;
        let took = began.elapsed();
        let erased = Duration::from_millis(report.ended_ms.saturating_sub(report.dropped_ms));
        println!(
            "collection {round}: {} dropped, {} erased; drops {:.1} ms, erasing {:.1} ms, whole {:.1} ms",
            report.totals.iter().map(|total| total.count).sum::<u64>(),
            report.erased_records,
            took.saturating_sub(erased).as_secs_f64() * 1e3,
            erased.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e3
        );
        drops.push(took.saturating_sub(erased));
        erasing.push(erased);
        whole.push(took);
    }
    figures.add("100 images: drops", median(&mut drops));
    figures.add("100 images: erasing", median(&mut erasing));
    figures.add("100 images: the whole collection", median(&mut whole));
    figures.add("nothing due, after those", median(&mut collect_nothing(&collector)?));
    Ok(())
}

fn collect_nothing(collector: &Collector) -> Result<Vec<Duration>, Failure> {
    let collect = |_| {
        let began = Instant::now();
        let report = collector.collect(false)?;
        if !report.totals.is_empty() {
            return Err(format!("{} kinds of things were due", report.totals.len()).into());
        }
        Ok(began.elapsed())
    };
    (0..IDLE_COLLECTIONS).map(collect).collect()
}

/// Deletes images from all over the store: those of 25 layers, so that layers go too.
fn delete(images: &Images, size: u64, round: u64) -> Outcome {
    for group in 0..GARBAGE / IMAGES_PER_LAYER {
        let first = (group * apart(size) + round) * IMAGES_PER_LAYER;
        for image in first..first + IMAGES_PER_LAYER {
            let digest = Digest::of(Algorithm::Sha256, &manifest(image));
            images.registry.delete_manifest(&repository(image)?, &Reference::Digest(digest))?;
        }
    }
    Ok(())
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

/// Waits until RocksDB has put in order what came in a rush, as far as the CPU time of this process tells; two minutes at
/// most.
fn rest() {
    for _ in 0..120 {
        let before = cpu_ticks();
        thread::sleep(Duration::from_secs(1));
        if cpu_ticks().saturating_sub(before) < 5 {
            return;
        }
    }
}

/// Hundredths of a second of CPU time that this process has used.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default().to_owned();
    format!("most memory so far: {}", line.trim_start_matches("VmHWM:").trim())
}
