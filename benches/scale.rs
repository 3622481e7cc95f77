//! What things cost by how much is stored: up to 10,000,000 images and more, or day by day.
//!
//! `cargo bench --bench scale -- DIR COMMAND`. `tools/bench --scale` runs it, and draws what it prints: lines of `point`, a
//! figure's name, its unit, how much was stored, and the figure, between tabs.
//!
//! - `at SIZE [FROM]` fills the store in DIR/store up to so many images, from as many as an earlier call has left, and
//!   measures it. The first open of a store is one after a kill: so this waits in the end until it is killed.
//! - `opened SIZE` measures that open alone, after the last of those.
//! - `fill IMAGES TAGS` fills it, and a repository with so many tags beside, as a server would by default; then it waits to be
//!   killed. It measures nothing: `tools/bench` starts a server on what it leaves.
//! - `each COUNT` stores so many blobs of 4 KiB in one store and sets so many tags in another, and measures what they take.
//! - `days DAYS TAGS` plays a CI that pushes each of its tags again on every day, with a clock that it moves (`days.rs`).

mod days;
mod engine;
mod fill;
mod process;
mod table;

use std::{
    collections::BTreeMap,
    fs, io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine::{Engine, INDEX};
use fill::{IMAGES_PER_LAYER, IMAGES_PER_REPOSITORY, Images, config, manifest, organisation, repository};
use orlop::{
    Algorithm, Digest, Store, StoreOptions, Tag,
    collect::{CollectOptions, Collector},
    disk::Reach,
    index::schema::{self, BlobRow, RowValue, Table as Rows},
    registry::Reference,
};
use process::{most_memory_mib, rest};
use table::{Failure, Outcome, Row, Table, quantile};

/// How often each thing is measured; quantiles are of all turns together.
const TURNS: u64 = 3;
/// Images that are deleted and collected in a turn.
const GARBAGE: u64 = 100;
/// Threads that share syncs.
const CROWD: usize = 64;
const PAGE: usize = 100;
const TAGS_AT_ONCE: u64 = 100;
/// Images that are pushed where commits are measured lie behind all others.
const BEHIND: u64 = 1_000_000_000_000;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |at: usize| -> Result<u64, Failure> { Ok(arguments.get(at).ok_or("a number is missing")?.parse()?) };
    let directory = PathBuf::from(arguments.first().ok_or("which directory?")?);
    let table = Table::begin(&format!("costs by size, {INDEX}"))?;
    match arguments.get(1).map(String::as_str) {
        Some("at") => at(&table, &directory, number(2)?, if arguments.len() > 3 { number(3)? } else { 0 }),
        Some("opened") => {
            let store = directory.join("store");
            let engine = open_killed(&store, &options(), number(2)?)?;
            engine.close()
        }
        Some("fill") => filled(&directory, number(2)?, number(3)?),
        Some("each") => each(&table, number(2)?),
        Some("days") => days::play(&table, number(2)?, number(3)?),
        _ => Err("a command is missing: at, opened, fill, each or days".into()),
    }
}

/// Prints a figure.
fn point(name: &str, unit: &str, size: u64, value: f64) {
    println!("point\t{name}\t{unit}\t{size}\t{value:.3}");
}

/// Tells that all is done, and waits to be killed.
fn wait_for_the_end() -> ! {
    println!("done");
    loop {
        thread::park();
    }
}

fn filled(directory: &Path, count: u64, tags: u64) -> Outcome {
    let engine = Engine::open(&directory.join("store"), StoreOptions::default())?;
    let images = Images::of(&engine.store)?;
    let began = Instant::now();
    images.fill(0..count)?;
    point("fill", "seconds", count, began.elapsed().as_secs_f64());
    fill_tags(&images, tags)?;
    wait_for_the_end()
}

/// What blobs and tags take of the disk, above what an empty store does: all that is written when the store is closed.
fn each(table: &Table, count: u64) -> Outcome {
    const BLOB_BYTES: usize = 4096;
    let of = |name: &str, content: u64, fill: &dyn Fn(&Engine) -> Outcome| -> Outcome {
        let path = table.path(name);
        Engine::open(&path, StoreOptions::default())?.close()?;
        let room =
            || -> io::Result<[f64; 2]> { Ok([allocated(&path)? as f64, allocated(&path.join("index"))? as f64]) };
        let empty = room()?;
        let engine = Engine::open(&path, StoreOptions::default())?;
        fill(&engine)?;
        engine.close()?;
        let full = room()?;
        let [all, index] = [0, 1].map(|at: usize| (full[at] - empty[at]) / count as f64);
        point(&format!("bytes on the disk for each {name}, above its content"), "bytes", count, all - content as f64);
        point(&format!("bytes of the index for each {name}"), "bytes", count, index);
        Ok(())
    };
    of("blob", BLOB_BYTES as u64, &|engine| {
        by_many(count, |number| {
            let mut blob = format!("blob {number} ").into_bytes();
            blob.resize(BLOB_BYTES, b'.');
            Ok(engine.store.put(&engine.repository, Algorithm::Sha256, &blob).map(drop)?)
        })
    })?;
    of("tag", 0, &|engine| fill_tags(&Images::of(&engine.store)?, count))
}

/// Does `0..count` by many threads.
fn by_many(count: u64, work: impl Fn(u64) -> Outcome + Sync) -> Outcome {
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..CROWD as u64)
            .map(|first| scope.spawn(move || (first..count).step_by(CROWD).try_for_each(work)))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())))
    })
}

/// Sets tags in one repository, a hundred for each manifest; named as `orlop-load measure list-tags` names them.
fn fill_tags(images: &Images, tags: u64) -> Outcome {
    let (registry, repository) = (&images.registry, "bench/million".parse()?);
    let config = registry.store().put(&repository, Algorithm::Sha256, b"{}")?;
    let set = |first: u64| -> Outcome {
        let bytes = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{{\"mediaType\":\"application/json\",\"digest\":\
             \"{config}\",\"size\":2}},\"layers\":[],\"annotations\":{{\"n\":\"{first}\"}}}}",
            fill::TYPE
        );
        let names = (first..tags.min(first + TAGS_AT_ONCE)).map(|tag| format!("t{tag:08}").parse::<Tag>());
        let names = names.collect::<Result<Vec<_>, _>>()?;
        registry.put_manifest(&repository, None, &names, Some(fill::TYPE), &Bytes::from(bytes))?;
        Ok(())
    };
    by_many(tags.div_ceil(TAGS_AT_ONCE), |at| set(at * TAGS_AT_ONCE))
}

fn at(table: &Table, directory: &Path, size: u64, from: u64) -> Outcome {
    let multiple = IMAGES_PER_LAYER * IMAGES_PER_REPOSITORY;
    if size < from || size < GARBAGE * TURNS * IMAGES_PER_LAYER || !size.is_multiple_of(multiple) {
        return Err(
            format!("a size is a multiple of {multiple}, {} at least", GARBAGE * TURNS * IMAGES_PER_LAYER).into()
        );
    }
    let path = directory.join("store");
    let options = options();
    let mut engine = open_killed(&path, &options, from)?;
    let began = Instant::now();
    Images::of(&engine.store)?.fill(from..size)?;
    if size > from {
        point("images filled a second", "number", size, (size - from) as f64 / began.elapsed().as_secs_f64());
    }
    rest();
    for _ in 0..TURNS {
        engine.close()?;
        let opened = Instant::now();
        engine = Engine::open(&path, options.clone())?;
        point("start after a clean end", "ms", size, opened.elapsed().as_secs_f64() * 1e3);
    }
    room(&engine.store, &path, size)?;
    let images = Images::of(&engine.store)?;
    let collector = Collector::new(Arc::clone(&images.registry), CollectOptions::default())?;
    let mut site = Site { table, size, engine, images, collector, took: BTreeMap::new() };
    for turn in 0..TURNS {
        site.reads()?;
        site.commits(turn)?;
        site.collections(turn)?;
    }
    site.print();
    point("most memory", "mib-resident", size, most_memory_mib() as f64);
    wait_for_the_end()
}

/// What nothing reaches is due at once: nobody collects here but where it is measured.
fn options() -> StoreOptions {
    StoreOptions { grace_ms: 1, window_ms: 1, ..StoreOptions::default() }
}

/// Opens what a killed process has left; none where there were no images.
fn open_killed(path: &Path, options: &StoreOptions, images: u64) -> Result<Engine, Failure> {
    let opened = Instant::now();
    let engine = Engine::open(path, options.clone())?;
    if images > 0 {
        point("start after a kill", "ms", images, opened.elapsed().as_secs_f64() * 1e3);
    }
    Ok(engine)
}

/// What the store takes of the disk, and of what.
fn room(store: &Store, path: &Path, size: u64) -> Outcome {
    let (blobs, content) = content(store)?;
    let (all, index) = (allocated(path)?, allocated(&path.join("index"))?);
    point("bytes of the index for each blob and manifest", "bytes", size, index as f64 / blobs.max(1) as f64);
    point(
        "bytes of the journal for each blob and manifest",
        "bytes",
        size,
        allocated(&path.join("journal"))? as f64 / blobs.max(1) as f64,
    );
    point(
        "bytes on the disk above the content, for each blob and manifest",
        "bytes",
        size,
        all.saturating_sub(content) as f64 / blobs.max(1) as f64,
    );
    Ok(())
}

/// How many blobs and manifests there are, and their bytes.
fn content(store: &Store) -> Result<(u64, u64), Failure> {
    let (mut count, mut bytes) = (0, 0);
    schema::each_row_of(&*store.snapshot(), Rows::Blobs, |_, value| {
        (count, bytes) = (count + 1, bytes + BlobRow::from_bytes(value)?.size);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((count, bytes))
}

/// What a directory takes of the disk, as `du` sees it; nothing where there is none, as files go while the store is at work.
fn allocated(path: &Path) -> io::Result<u64> {
    let own = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        own => own?,
    };
    let mut bytes = own.blocks() * 512;
    if own.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += allocated(&entry?.path())?;
        }
    }
    Ok(bytes)
}

/// A store under measurement.
struct Site<'a> {
    table: &'a Table,
    size: u64,
    engine: Engine,
    images: Images,
    collector: Arc<Collector>,
    took: BTreeMap<String, Vec<Duration>>,
}

impl Site<'_> {
    /// Medians of all turns, and p99 where there are enough of them to have one.
    fn print(&mut self) {
        for (name, took) in &mut self.took {
            took.sort_unstable();
            for (quantile_name, percent) in [("median", 50), ("p99", 99)] {
                if percent > 50 && took.len() < 100 {
                    continue;
                }
                let micros = quantile(took, percent).as_secs_f64() * 1e6;
                point(&format!("{name}: {quantile_name}"), "us", self.size, micros);
            }
        }
    }

    fn add(&mut self, name: &str, mut took: Vec<Duration>) {
        self.took.entry(name.to_owned()).or_default().append(&mut took);
    }

    /// Measures by some threads at once.
    fn row<Made>(
        &mut self,
        operation: &str,
        (threads, count): (usize, u64),
        work: impl Fn(&Self, u64) -> Result<Made, Failure> + Sync,
    ) -> Outcome {
        let name = match threads {
            1 => operation.to_owned(),
            CROWD => format!("{operation}, {threads} at once"),
            _ => format!("{operation}, one on each core"),
        };
        let took = self.table.row(&name, Row { threads, count, bytes: 0 }, |number| work(self, number))?;
        self.add(&name, took);
        Ok(())
    }

    /// Any image: all of them are there when this is asked.
    fn any(&self) -> u64 {
        fastrand::u64(..self.size)
    }

    fn reads(&mut self) -> Outcome {
        // As many at once as there are cores: of more, some wait for a core, and their p99 is the length of a turn on one.
        let cores = thread::available_parallelism()?.get();
        for shape in [(1, 20_000), (cores, 20_000 * cores as u64)].into_iter().take(cores) {
            self.row("read of any blob", shape, |site, _| {
                let stored = site.engine.store.content(&config(site.any()))?.ok_or("a blob is gone")?;
                Ok(stored.read_all()?)
            })?;
            self.row("read of any manifest by tag", shape, |site, _| {
                let image = site.any();
                Ok(site
                    .images
                    .registry
                    .reads(Reach::Disk)
                    .manifest(&repository(image)?, &Reference::Tag(format!("v{image}").parse()?))?)
            })?;
        }
        self.row("a page of 100 tags of any repository", (1, 5_000), |site, _| {
            Ok(site.images.registry.reads(Reach::Disk).tags(&repository(site.any())?, None, PAGE)?)
        })?;
        self.row("usage of any repository", (1, 20_000), |site, _| {
            Ok(site.images.registry.repository_usage(&repository(site.any())?)?)
        })?;
        self.row("usage of any organisation", (1, 20_000), |site, _| {
            Ok(site.images.registry.organisation_usage(&organisation(site.any()))?)
        })
    }

    fn commits(&mut self, turn: u64) -> Outcome {
        for shape in [(1, 1_000), (CROWD, 4_000)] {
            // A store keeps what an earlier call pushed into it, at another size.
            let unique = (self.size * 16 + turn) * 128 + shape.0 as u64;
            self.row("put of a blob", shape, |site, number| {
                let blob = format!("blob {number} of {unique} ").repeat(150);
                Ok(site.engine.store.put(&site.engine.repository, Algorithm::Sha256, blob.as_bytes())?)
            })?;
            self.row("push of an image", shape, |site, number| {
                site.images.push(BEHIND + (unique * 10_000 + number) * IMAGES_PER_REPOSITORY)
            })?;
            self.row("tag of any image", shape, |site, number| {
                site.images.put_manifest(site.any(), &format!("again-{unique}-{number}"))
            })?;
        }
        Ok(())
    }

    /// Deletes images from all over the store, collects them, collects nothing, and pushes them again.
    fn collections(&mut self, turn: u64) -> Outcome {
        // Blobs that no manifest names, from the commits before.
        self.collector.collect(false)?;
        let apart = self.size / IMAGES_PER_LAYER / (GARBAGE / IMAGES_PER_LAYER);
        let group = |group: u64| (group * apart + turn) * IMAGES_PER_LAYER;
        let gone: Vec<u64> =
            (0..GARBAGE / IMAGES_PER_LAYER).flat_map(|at| group(at)..group(at) + IMAGES_PER_LAYER).collect();
        self.row("deletion of an image", (1, GARBAGE), |site, number| {
            let image = gone[number as usize];
            let digest = Digest::of(Algorithm::Sha256, &manifest(image));
            Ok(site.images.registry.delete_manifest(&repository(image)?, &Reference::Digest(digest))?)
        })?;
        thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        let report = self.collector.collect(false)?;
        self.add("collection of 100 deleted images", vec![began.elapsed()]);
        let dropped = report.totals.iter().map(|total| total.count).sum::<u64>();
        if dropped < 2 * GARBAGE {
            return Err(format!("{dropped} things were dropped, which are fewer than what was deleted").into());
        }
        for _ in 0..10 {
            let began = Instant::now();
            self.collector.collect(false)?;
            self.add("collection of nothing", vec![began.elapsed()]);
        }
        gone.iter().try_for_each(|image| self.images.push(*image))
    }
}
