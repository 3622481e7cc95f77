//! What the benches share: a directory on a real disk, many threads at work, and a table of what it took.
//!
//! Every row is bounded by a count and by time, whatever the machine; nothing is asserted about how long it takes.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// As the program has.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Why a bench failed.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;
/// What a bench gives back.
pub(crate) type Outcome = Result<(), Failure>;

/// A row begins nothing after this time.
const ROW_TIME: Duration = Duration::from_millis(1500);

/// A table on the standard output, and the directory that its rows work in.
pub(crate) struct Table {
    scratch: tempfile::TempDir,
}

/// How much a row does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Threads that work at once.
    pub(crate) threads: usize,
    /// Most operations.
    pub(crate) count: u64,
    /// Bytes that one operation moves; 0 where that says nothing.
    pub(crate) bytes: u64,
}

impl Table {
    /// Prints the head. The directory is temporary, below the one that the command line names, if any.
    pub(crate) fn begin(subject: &str) -> Result<Self, Failure> {
        let below = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
        let below = below.map_or_else(std::env::temp_dir, PathBuf::from);
        let scratch = tempfile::tempdir_in(&below)?;
        println!("{subject}, on {}", file_system(scratch.path()));
        println!(
            "{:<40} {:>7} {:>8} {:>11} {:>11} {:>11} {:>9}",
            "operation", "threads", "count", "median µs", "p99 µs", "per second", "MiB/s"
        );
        Ok(Self { scratch })
    }

    /// A place for files; another name, another place.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Lets threads work, each with numbers of its own out of `0..count`, and prints the row; returns how long each piece took,
    /// in order. What the work gives is dropped when its clock has stopped.
    pub(crate) fn row<Made>(
        &self,
        operation: &str,
        row: Row,
        work: impl Fn(u64) -> Result<Made, Failure> + Sync,
    ) -> Result<Vec<Duration>, Failure> {
        let next = AtomicU64::new(0);
        let ready = Barrier::new(row.threads + 1);
        let all = Mutex::new((Vec::new(), Ok(())));
        let thread = || {
            let mut spent = Vec::new();
            let mut outcome = Ok(());
            ready.wait();
            let until = Instant::now() + ROW_TIME;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let began = Instant::now();
                if number >= row.count || began >= until {
                    break;
                }
                let made = work(number);
                spent.push(began.elapsed());
                if let Err(error) = made {
                    outcome = Err(error);
                    break;
                }
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.0.append(&mut spent);
            if outcome.is_err() {
                all.1 = outcome;
            }
        };
        let began = thread::scope(|scope| {
            for _ in 0..row.threads {
                scope.spawn(thread);
            }
            ready.wait();
            Instant::now()
        });
        let elapsed = began.elapsed();
        let (mut spent, outcome) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome?;
        spent.sort_unstable();
        print(operation, &spent, elapsed, row);
        Ok(spent)
    }
}

/// One line of the table; `spent` is in order.
fn print(operation: &str, spent: &[Duration], elapsed: Duration, row: Row) {
    let micros = |percent| quantile(spent, percent).as_secs_f64() * 1e6;
    let each_second = spent.len() as f64 / elapsed.as_secs_f64().max(1e-9);
    let rate = match row.bytes {
        0 => "–".to_owned(),
        bytes => format!("{:.1}", each_second * bytes as f64 / f64::from(1 << 20)),
    };
    println!(
        "{operation:<40} {:>7} {:>8} {:>11.1} {:>11.1} {each_second:>11.1} {rate:>9}",
        row.threads,
        spent.len(),
        micros(50),
        micros(99)
    );
}

/// What so many percent of some durations stay within; they are in order.
pub(crate) fn quantile(spent: &[Duration], percent: usize) -> Duration {
    spent.get(spent.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// Type and device of the file system that a path lies on.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holds = words.filter(|words| words.len() > 2 && path.starts_with(words[1]));
    let mount = holds.max_by_key(|words| words[1].len());
    mount.map_or_else(|| "an unknown file system".to_owned(), |words| format!("{} ({})", words[2], words[0]))
}
