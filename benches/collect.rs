//! What collecting costs: the garbage, or the store? And what usage and commits cost in the same stores.
//!
//! `cargo bench --bench collect [-- DIR]`. Stores of 1,000, 100,000 and 1,000,000 images, or as many as
//! `ORLOP_BENCH_IMAGES=1000,20000` says, are filled; then each is measured in its turn, again and again, so that a busy moment
//! of the machine does not hit one alone. 100 images from all over a store are deleted, their windows end, and one collection
//! drops and erases them: several times, as what an index has deleted can slow down what looks for more. The last table has
//! medians, and the ratio of the last store's to the first one's. No snapshots of the journal are written meanwhile; they
//! have a bench of their own.

mod engine;
mod fill;
mod process;
mod table;

use std::{
    collections::HashMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use engine::{Engine, INDEX};
use fill::{IMAGES_PER_LAYER, IMAGES_PER_REPOSITORY, Images, manifest, organisation, repository};
use orlop::{
    Algorithm, Digest, StoreOptions,
    collect::{CollectOptions, Collector},
    registry::Reference,
};
use process::{most_memory_mib, rest};
use table::{Failure, Outcome, Row, Table, quantile};

/// Images that are deleted before a collection.
const GARBAGE: u64 = 100;
/// Collections of garbage, and of nothing.
const COLLECTIONS: u64 = 7;
const IDLE_COLLECTIONS: u64 = 30;
/// How often usage and commits are measured in each store.
const TURNS: u64 = 3;
/// As many scopes or images as the smallest store has room for: what few are asked for lies in caches, in all stores alike.
const FEW: u64 = 10;
/// Threads that push at once in the rows that tell what a commit costs when it shares its sync.
const CROWD: usize = 64;

/// What was measured: all figures of a name in a store.
#[derive(Default)]
struct Figures {
    names: Vec<String>,
    of: HashMap<(String, u64), Vec<Duration>>,
}

impl Figures {
    fn add(&mut self, name: &str, size: u64, figure: Duration) {
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
        self.of.entry((name.to_owned(), size)).or_default().push(figure);
    }

    fn median_us(&self, name: &str, size: u64) -> f64 {
        let mut figures = self.of.get(&(name.to_owned(), size)).cloned().unwrap_or_default();
        figures.sort_unstable();
        figures.get(figures.len() / 2).map_or(0.0, |figure| figure.as_secs_f64() * 1e6)
    }

    /// The medians of all, with the ratio of the last store's to the first one's.
    fn print(&self, sizes: &[u64]) {
        let heads: String = sizes.iter().map(|size| format!("{size:>12}")).collect();
        println!("\n{:<40}{heads}{:>16}", "median µs by images in the store", "last to first");
        for name in &self.names {
            let medians: Vec<f64> = sizes.iter().map(|size| self.median_us(name, *size)).collect();
            let columns: String = medians.iter().map(|micros| format!("{micros:>12.1}")).collect();
            let ratio = medians.last().unwrap_or(&0.0) / medians.first().unwrap_or(&0.0).max(0.001);
            println!("{name:<40}{columns}{ratio:>16.2}");
        }
    }
}

/// A store under measurement.
struct Site {
    size: u64,
    engine: Engine,
    images: Images,
    collector: Arc<Collector>,
}

fn main() -> Outcome {
    let sizes = std::env::var("ORLOP_BENCH_IMAGES").unwrap_or_else(|_| "1000,100000,1000000".to_owned());
    let sizes: Vec<u64> = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let least = (COLLECTIONS + 1) * GARBAGE;
    if sizes.iter().any(|size| *size < least) {
        return Err(format!("each store needs {least} images or more, for all that is deleted").into());
    }
    let table = Table::begin(&format!("collections, {INDEX}"))?;
    let sites = sizes.iter().map(|size| Site::fill(&table, *size)).collect::<Result<Vec<_>, _>>()?;
    let mut figures = Figures::default();
    for turn in 0..TURNS {
        for site in &sites {
            rest();
            site.usage(&table, &mut figures)?;
            site.commits(&table, turn, &mut figures)?;
        }
    }
    for site in &sites {
        // What the pushes before have left.
        site.collector.collect(false)?;
    }
    rest();
    for site in &sites {
        site.collect_nothing("nothing due", &mut figures)?;
    }
    for round in 0..COLLECTIONS {
        for site in &sites {
            site.collect(round, &mut figures)?;
        }
    }
    for site in &sites {
        site.collect_nothing("nothing due, after those", &mut figures)?;
    }
    figures.print(&sizes);
    println!("{}", memory());
    sites.into_iter().try_for_each(Site::close)
}

impl Site {
    /// Opens a store and fills it.
    fn fill(table: &Table, size: u64) -> Result<Self, Failure> {
        // What nothing reaches is due at once: nobody collects here but where it is measured.
        let options =
            StoreOptions { grace_ms: 1, window_ms: 1, snapshot_bytes_min: u64::MAX, ..StoreOptions::default() };
        let engine = Engine::open(&table.path(&format!("store-{size}")), options)?;
        let images = Images::of(&engine.store)?;
        let began = Instant::now();
        images.fill(0..size)?;
        println!("{size} images pushed in {:.1} s; {}", began.elapsed().as_secs_f64(), memory());
        let collector = Collector::new(Arc::clone(&images.registry), CollectOptions::default())?;
        Ok(Self { size, engine, images, collector })
    }

    fn close(self) -> Outcome {
        let Self { engine, images, collector, .. } = self;
        drop((images, collector));
        engine.close()
    }

    /// A row of the table, whose median is one of the figures.
    fn row<Made>(
        &self,
        table: &Table,
        figures: &mut Figures,
        (operation, threads): (&str, usize),
        work: impl Fn(u64) -> Result<Made, Failure> + Sync,
    ) -> Outcome {
        let took = table.row(&format!("{operation}, {}", self.size), Row { threads, count: 50_000, bytes: 0 }, work)?;
        figures.add(&format!("{operation}, {threads} at once"), self.size, quantile(&took, 50));
        Ok(())
    }

    /// Asks for usage of each scope: of the same number of scopes in all stores, and of any.
    fn usage(&self, table: &Table, figures: &mut Figures) -> Outcome {
        let registry = &self.images.registry;
        self.row(table, figures, ("usage of the registry", 1), |_| Ok(registry.usage()?))?;
        let few = || fastrand::u64(..FEW) * self.size / FEW;
        let any = || fastrand::u64(..self.size);
        let of_repository = |image| Ok(registry.repository_usage(&repository(image)?)?);
        // The smallest store has one.
        let of_organisation = |image| Ok(registry.organisation_usage(&organisation(image))?);
        self.row(table, figures, ("usage of an organisation", 1), |_| of_organisation(0))?;
        self.row(table, figures, ("usage of few repositories", 1), |_| of_repository(few()))?;
        self.row(table, figures, ("usage of any repository", 1), |_| of_repository(any()))
    }

    /// Puts blobs, pushes new images, and tags old ones that are not deleted later: what is collected is the same in each
    /// store.
    fn commits(&self, table: &Table, turn: u64, figures: &mut Figures) -> Outcome {
        for threads in [1, CROWD] {
            let unique = turn * 1_000 + threads as u64;
            let Engine { store, repository } = &self.engine;
            let put = |number: u64| {
                let blob = format!("blob {number} of {unique}").repeat(200);
                Ok(store.put(repository, Algorithm::Sha256, blob.as_bytes())?)
            };
            self.row(table, figures, ("put of a blob", threads), put)?;
            // Behind all others, in repositories of their own.
            let first = (self.size / IMAGES_PER_REPOSITORY + 1 + unique * 1_000_000) * IMAGES_PER_REPOSITORY;
            let push = |number: u64| self.images.push(first + number * IMAGES_PER_REPOSITORY);
            self.row(table, figures, ("push of an image", threads), push)?;
            let tag = |number: u64| self.images.put_manifest(self.kept(FEW), &format!("again-{unique}-{number}"));
            self.row(table, figures, ("tag of one of few images", threads), tag)?;
            let tag = |number: u64| self.images.put_manifest(self.kept(self.size), &format!("any-{unique}-{number}"));
            self.row(table, figures, ("tag of any image", threads), tag)?;
        }
        Ok(())
    }

    /// Deletes images and collects them.
    fn collect(&self, round: u64, figures: &mut Figures) -> Outcome {
        self.delete(round)?;
        thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        let report = self.collector.collect(false)?;
        let took = began.elapsed();
        let erasing = Duration::from_millis(report.ended_ms.saturating_sub(report.dropped_ms));
        let drops = took.saturating_sub(erasing);
        println!(
            "{} images, collection {round}: {} dropped, {} erased; drops {:.1} ms, erasing {:.1} ms, whole {:.1} ms",
            self.size,
            report.totals.iter().map(|total| total.count).sum::<u64>(),
            report.erased_records,
            drops.as_secs_f64() * 1e3,
            erasing.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e3
        );
        figures.add("100 images: drops", self.size, drops);
        figures.add("100 images: erasing", self.size, erasing);
        figures.add("100 images: the whole collection", self.size, took);
        Ok(())
    }

    fn collect_nothing(&self, name: &str, figures: &mut Figures) -> Outcome {
        for _ in 0..IDLE_COLLECTIONS {
            let began = Instant::now();
            let report = self.collector.collect(false)?;
            if !report.totals.is_empty() {
                return Err(format!("{} kinds of things were due", report.totals.len()).into());
            }
            figures.add(name, self.size, began.elapsed());
        }
        Ok(())
    }

    /// Deletes images from all over the store: those of 25 layers, so that layers go too.
    fn delete(&self, round: u64) -> Outcome {
        for group in 0..GARBAGE / IMAGES_PER_LAYER {
            let first = (group * self.apart() + round) * IMAGES_PER_LAYER;
            for image in first..first + IMAGES_PER_LAYER {
                let digest = Digest::of(Algorithm::Sha256, &manifest(image));
                self.images.registry.delete_manifest(&repository(image)?, &Reference::Digest(digest))?;
            }
        }
        Ok(())
    }

    /// How many layers' images lie from one group that is deleted to the next.
    fn apart(&self) -> u64 {
        self.size / IMAGES_PER_LAYER / (GARBAGE / IMAGES_PER_LAYER)
    }

    /// One of `many` images that are not deleted, or of all of these.
    fn kept(&self, many: u64) -> u64 {
        let groups = GARBAGE / IMAGES_PER_LAYER;
        let within = (self.apart() - COLLECTIONS).min((many / groups).max(1));
        let layer = fastrand::u64(..groups) * self.apart() + COLLECTIONS + fastrand::u64(..within);
        layer * IMAGES_PER_LAYER
    }
}

fn memory() -> String {
    format!("most memory so far: {} MiB", most_memory_mib())
}
