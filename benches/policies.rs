//! What policies cost in a repository of few tags and of very many: what goes, or all tags?
//!
//! `cargo bench --bench policies [-- DIR]`. Repositories of 1,000 and 1,000,000 tags, or as many as
//! `ORLOP_BENCH_TAGS=1000,20000` says, under a policy that keeps the newest ones, and takes others away after 30 days. A hundred
//! tags become due each hour. The last table has medians, and the ratio of the last repository's to the first one's. Only the
//! review after a change of policies may cost more where there are more tags.

mod engine;
mod images;
mod table;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use engine::{Engine, INDEX};
use images::Images;
use orlop::{
    StoreOptions,
    collect::{CollectOptions, Collector},
    policy::Policy,
    registry::{Registry, RegistryOptions, Sparse},
    state::{facts, request::Request},
    store::Clock,
};
use table::{Failure, Outcome, Row, Table, quantile};

/// Tags of each manifest.
const TAGS_AT_ONCE: u64 = 100;
const WRITERS: u64 = 32;
const TURNS: usize = 15;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// Some day.
const BEGIN: u64 = 1_700_000_000_000;

type Figures = Vec<(&'static str, Vec<Duration>)>;

fn main() -> Outcome {
    let table = Table::begin(&format!("policies, {INDEX}"))?;
    let sizes = std::env::var("ORLOP_BENCH_TAGS").unwrap_or_else(|_| "1000,1000000".to_owned());
    let sizes = sizes.split(',').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let measured: Result<Vec<Figures>, Failure> = sizes.iter().map(|size| measure(&table, *size)).collect();
    print(&sizes, &mut measured?);
    Ok(())
}

fn print(sizes: &[u64], measured: &mut [Figures]) {
    let heads: String = sizes.iter().map(|size| format!("{size:>12}")).collect();
    println!("\n{:<40}{heads}{:>16}", "median µs by tags", "last to first");
    for row in 0..measured.first().map_or(0, Vec::len) {
        let name = measured[0][row].0;
        let medians: Vec<f64> = measured
            .iter_mut()
            .map(|figures| {
                let all = &mut figures[row].1;
                all.sort_unstable();
                all.get(all.len() / 2).map_or(0.0, |figure| figure.as_secs_f64() * 1e6)
            })
            .collect();
        let columns: String = medians.iter().map(|micros| format!("{micros:>12.1}")).collect();
        let ratio = medians.last().unwrap_or(&0.0) / medians.first().unwrap_or(&0.0).max(0.001);
        println!("{name:<40}{columns}{ratio:>16.2}");
    }
}

/// Tags that become due hour by hour, and then the many.
fn fill(images: &Images<'_>, clock: &Clock, size: u64) -> Outcome {
    for turn in 0..TURNS {
        images.push(&format!("old{turn}"), TAGS_AT_ONCE)?;
        clock.advance(HOUR);
    }
    clock.advance(DAY);
    thread::scope(|scope| {
        let push = |writer| {
            (writer..size / TAGS_AT_ONCE)
                .step_by(WRITERS as usize)
                .try_for_each(|at| images.push(&format!("m{at}"), TAGS_AT_ONCE))
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || push(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| Err("a writer panicked".into())))
    })
}

fn measure(table: &Table, size: u64) -> Result<Figures, Failure> {
    let clock = Clock::manual(BEGIN);
    let options = StoreOptions { clock: clock.clone(), ..StoreOptions::default() };
    let engine = Engine::open(&table.path(&format!("{size}")), options)?;
    let images = Images::of(&engine)?;
    fill(&images, &clock, size)?;
    let options = RegistryOptions {
        sparse: Sparse::Off,
        manifest_bytes_max: 4 << 20,
        references_max: 30_000,
        json_depth_max: 64,
        uploads_max: 10_000,
    };
    let registry = Arc::new(Registry::new(Arc::clone(&engine.store), options)?);
    let collector = Collector::new(registry, CollectOptions::default())?;
    let timed = |work: &dyn Fn() -> Outcome| -> Result<Duration, Failure> {
        let began = Instant::now();
        work()?;
        Ok(began.elapsed())
    };
    let row = Row { threads: 1, count: TURNS as u64 * 10, bytes: 0 };
    let tag = |name: &str| {
        let took = table
            .row(&format!("push of a tag to {size}, {name}"), row, |turn| images.push(&format!("{name}{turn}"), 1));
        took.map(|took| quantile(&took, 50))
    };
    let ungoverned = tag("free")?;
    let mut policy = Policy::new("bench".parse()?, "bench/**".parse()?);
    (policy.keep_newest, policy.older_than_ms) = (Some(100), Some(30 * DAY));
    let review = timed(&|| {
        let policy = Box::new(policy.clone());
        engine.store.commit(Request::SetPolicy { policy, from_settings: false, confirmed: true })?;
        while facts::is_settling(&*engine.store.snapshot())? {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;
    let governed = tag("governed")?;
    let collect = || -> Outcome {
        collector.collect(false)?;
        Ok(())
    };
    let plan = || -> Outcome {
        collector.collect(true)?;
        Ok(())
    };
    let idle = (0..TURNS).map(|_| timed(&collect)).collect::<Result<_, _>>()?;
    clock.advance(29 * DAY - TURNS as u64 * HOUR);
    let (mut planned, mut gone) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        clock.advance(if turn == 0 { 0 } else { HOUR });
        planned.push(timed(&plan)?);
        gone.push(timed(&collect)?);
    }
    let reports = collector.reports(TURNS)?;
    let taken = reports.iter().flat_map(|report| &report.totals).map(|total| total.count).sum::<u64>();
    println!("{size} tags: reviewed in {} ms, {taken} dropped or taken in {TURNS} runs", review.as_millis());
    drop((collector, images));
    engine.close()?;
    Ok(vec![
        ("push of a tag, no policy", vec![ungoverned]),
        ("push of a tag under the policy", vec![governed]),
        ("review of the repository", vec![review]),
        ("collection, nothing due", idle),
        ("dry run of 100 tags that go", planned),
        ("collection of 100 tags that go", gone),
    ])
}
