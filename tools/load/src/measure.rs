//! Measures one kind of work against any registry: clients with kept connections, bounded by count and by time.
//!
//! What reads need is pushed before the clock runs; digests of what is pushed cost a few words (`stock`). What comes back is
//! compared with what was pushed, unless that is switched off. A piece that fails is counted and not timed; the first
//! failure is told. The times are all kept and sorted, so that quantiles are exact.

use std::{path::PathBuf, process, time::Duration};

use serde_json::{Value, json};

use crate::{
    clients::{self, Bounds, Figures, Sorted},
    error::LoadError,
    registry::Client,
};

pub(crate) mod cpu;
mod shelf;
pub(crate) mod stock;
mod work;

use shelf::Shelf;
use work::{Piece, Plan, Shape, Work};

/// Pieces that are deleted, unless told; they have to be pushed first.
const DELETED: u64 = 20;
/// Less CPU time than this is not told: the kernel counts in steps of 10 ms.
const CPU_LEAST: Duration = Duration::from_millis(50);

/// What, how much, by whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Measure {
    /// The kind of work
    work: Work,
    /// The registry, as host:port
    #[arg(long, default_value = "127.0.0.1:5000")]
    address: String,
    /// The repository
    #[arg(long, default_value = "load/measure")]
    repository: String,
    /// How many clients work at once, each on a connection of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Most pieces of work; of deletions 20 unless told
    #[arg(long)]
    count: Option<u64>,
    /// No piece begins after so many seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Names what is pushed, and places that are drawn: other seeds, other content
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of a blob [default: 64 MiB for large ones, 1 GiB for ranges, 4 KiB else]
    #[arg(long)]
    size: Option<u64>,
    /// Blobs or tags that are there before, drawn from at random
    #[arg(long)]
    items: Option<u64>,
    /// Do not compare what comes with what was pushed
    #[arg(long)]
    no_verify: bool,
    /// Write what reads need as files below this directory, for a web server that shows it, and push nothing
    #[arg(long)]
    files: Option<PathBuf>,
    /// A process of the server, whose CPU time is told; several times for several
    #[arg(long)]
    server_pid: Vec<u32>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Measure {
    /// Prepares and measures; returns the report, and what failed first.
    ///
    /// # Errors
    /// When what is needed cannot be put there.
    pub(crate) fn run(&self) -> Result<(String, Vec<String>), LoadError> {
        let shelf =
            Shelf { address: self.address.clone(), files: self.files.clone(), repository: self.repository.clone() };
        let deletes = self.work == Work::DeleteManifest;
        let count = self.count.unwrap_or(if deletes { DELETED } else { u64::MAX });
        let shape = Shape { size: self.size, items: self.items, count, seed: self.seed, verify: !self.no_verify };
        let plan = Plan::prepare(self.work, &shelf, shape)?;
        let bounds = Bounds {
            clients: self.clients.into(),
            count,
            time: Some(Duration::from_secs(self.seconds)),
            errors_max: u64::MAX,
        };
        let before = self.cpu();
        let figures = clients::run(
            &bounds,
            |number| {
                let mut client = Client::new(&self.address);
                // Who cannot connect now is told by the first request.
                let _ = client.connect();
                (client, fastrand::Rng::with_seed(self.seed.wrapping_mul(4099).wrapping_add(number)))
            },
            |(client, random), index| Ok(plan.piece(client, random, index)?),
        )?;
        let after = self.cpu();
        let each = |then: Duration, now: Duration| {
            let used = now.saturating_sub(then);
            (used >= CPU_LEAST).then(|| used.as_secs_f64() * 1e6 / (figures.pieces.len() as f64).max(1.0))
        };
        let report = json!({
            "clients": self.clients,
            "errors": figures.errors,
            "seconds": figures.elapsed.as_secs_f64(),
            "client_cpu_us": each(before.0, after.0),
            "server_cpu_us": each(before.1, after.1),
            "work": self.rows(&figures),
        });
        let wrong = figures.first_error.iter().map(|error| {
            format!("{} of {} failed, first: {error}", figures.errors, figures.errors + figures.pieces.len() as u64)
        });
        let wrong = wrong.collect();
        Ok((if self.json { report.to_string() } else { table(&report) }, wrong))
    }

    /// CPU time of this process and of the server's.
    fn cpu(&self) -> (Duration, Duration) {
        (cpu::used(&process::id().to_string()), self.server_pid.iter().map(|pid| cpu::used(&pid.to_string())).sum())
    }

    /// One row for the work, and one for each part of mixed work.
    fn rows(&self, figures: &Figures<Piece>) -> Vec<Value> {
        let mut rows = vec![row(&self.work.name(), figures, |_| true)];
        if self.work == Work::Mixed {
            let mut parts: Vec<Work> = figures.pieces.iter().map(|(_, piece)| piece.work).collect();
            parts.sort_unstable();
            parts.dedup();
            rows.extend(parts.iter().map(|part| row(&part.name(), figures, |piece| piece.work == *part)));
        }
        rows
    }
}

fn row(name: &str, figures: &Figures<Piece>, belongs: impl Fn(&Piece) -> bool) -> Value {
    let pieces = || figures.pieces.iter().filter(|(_, piece)| belongs(piece));
    let sorted = Sorted::of(pieces().map(|(duration, _)| *duration));
    let seconds = figures.elapsed.as_secs_f64().max(1e-9);
    let bytes: u64 = pieces().map(|(_, piece)| piece.bytes).sum();
    let count = pieces().count();
    json!({
        "name": name,
        "count": count,
        "per_second": count as f64 / seconds,
        "mib_per_second": bytes as f64 / seconds / f64::from(1 << 20),
        "p50_us": sorted.micros(0.5),
        "p99_us": sorted.micros(0.99),
        "max_us": sorted.micros(1.0),
    })
}

/// The report for people.
fn table(report: &Value) -> String {
    let mut lines = vec![format!(
        "{:<16} {:>9} {:>11} {:>9} {:>10} {:>10} {:>10}",
        "work", "done", "per second", "MiB/s", "median ms", "p99 ms", "max ms"
    )];
    for row in report["work"].as_array().into_iter().flatten() {
        let number = |key: &str| row[key].as_f64().unwrap_or(0.0);
        lines.push(format!(
            "{:<16} {:>9} {:>11.1} {:>9.1} {:>10.3} {:>10.3} {:>10.3}",
            row["name"].as_str().unwrap_or(""),
            number("count"),
            number("per_second"),
            number("mib_per_second"),
            number("p50_us") / 1e3,
            number("p99_us") / 1e3,
            number("max_us") / 1e3,
        ));
    }
    let cpu = |key: &str| report[key].as_f64().map_or("–".to_owned(), |micros| format!("{micros:.0} µs"));
    lines.push(format!(
        "{} clients, {:.2} s, {} errors; CPU for each piece: clients {}, server {}",
        report["clients"],
        report["seconds"].as_f64().unwrap_or(0.0),
        report["errors"],
        cpu("client_cpu_us"),
        cpu("server_cpu_us"),
    ));
    lines.join("\n")
}
