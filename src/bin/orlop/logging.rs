//! Where logs go: standard error, as text or as one JSON object per line.
//!
//! A server's lines of requests are gathered for a moment and written together: a write for each costs a tenth of what
//! answering does, and workers wait for each other at it. All others are written at once, behind what was gathered before
//! them. A process that is killed takes the lines of its last moment along.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use orlop::{config::Config, http};
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::fmt::MakeWriter;

use crate::Failure;

/// How long lines are gathered.
const MOMENT: Duration = Duration::from_millis(20);
/// Bytes that are gathered at most; whoever adds more writes them.
const GATHERED_MAX: usize = 64 << 10;

/// Starts logging. Levels and formats were checked when the configuration was read.
pub(crate) fn start(config: &Config) {
    start_at(config, level(config), io::stderr);
}

/// The same for a server, whose lines of requests are gathered until what is returned is dropped.
pub(crate) fn start_serving(config: &Config) -> Result<Gathering<io::Stderr>, Failure> {
    let gathering = Gathering::start(io::stderr())?;
    start_at(config, level(config), gathering.lines.clone());
    Ok(gathering)
}

/// The same for commands of which people read the output: a line for each request would be in their way. Who sets another
/// level than the default gets it.
pub(crate) fn start_quiet(config: &Config) {
    let level = level(config);
    start_at(config, if level == LevelFilter::INFO { LevelFilter::WARN } else { level }, io::stderr);
}

fn level(config: &Config) -> LevelFilter {
    config.log_level.parse().unwrap_or(LevelFilter::INFO)
}

fn start_at(config: &Config, level: LevelFilter, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(writer).with_target(false);
    if config.log_format == "json" {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// The thread that writes what is gathered; when dropped, it writes what is left.
#[derive(Debug)]
pub(crate) struct Gathering<W: Write> {
    lines: Lines<W>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Write + Send + 'static> Gathering<W> {
    fn start(to: W) -> Result<Self, Failure> {
        let lines = Lines(Arc::new(Shared {
            gathered: Mutex::default(),
            first: Condvar::new(),
            to: Mutex::new(Output { to, scrap: Vec::new() }),
        }));
        let writing = lines.clone();
        let thread = thread::Builder::new().name("orlop-log".to_owned()).spawn(move || writing.write_on())?;
        Ok(Self { lines, thread: Some(thread) })
    }
}

impl<W: Write> Drop for Gathering<W> {
    fn drop(&mut self) {
        self.lines.gathered().ended = true;
        self.lines.0.first.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic has been told by itself.
            let _ = thread.join();
        }
    }
}

/// Lines on their way. Clones share them.
#[derive(Debug)]
struct Lines<W>(Arc<Shared<W>>);

impl<W> Clone for Lines<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Shared<W> {
    gathered: Mutex<Gathered>,
    /// A line came where none was, or the end.
    first: Condvar,
    /// Taken before `gathered`, so that what was gathered first is written first.
    to: Mutex<Output<W>>,
}

#[derive(Debug, Default)]
struct Gathered {
    lines: Vec<u8>,
    ended: bool,
}

#[derive(Debug)]
struct Output<W> {
    to: W,
    /// An empty buffer, to be exchanged for one with lines.
    scrap: Vec<u8>,
}

impl<W: Write> Lines<W> {
    /// Writes what is gathered, a moment after the first line came, until the end.
    fn write_on(&self) {
        loop {
            let mut gathered = self.gathered();
            while gathered.lines.is_empty() && !gathered.ended {
                gathered = self.0.first.wait(gathered).unwrap_or_else(PoisonError::into_inner);
            }
            let ended = gathered.ended;
            drop(gathered);
            if !ended {
                thread::sleep(MOMENT);
            }
            // Nobody is left to be told.
            let _ = self.write_gathered(&[]);
            if ended {
                return;
            }
        }
    }

    /// Writes what is gathered, and a line behind it.
    fn write_gathered(&self, line: &[u8]) -> io::Result<()> {
        let mut output = self.0.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Output { to, scrap } = &mut *output;
        std::mem::swap(&mut self.gathered().lines, scrap);
        scrap.extend_from_slice(line);
        let written = to.write_all(scrap);
        scrap.clear();
        written
    }

    /// Adds a line to what is gathered.
    fn gather(&self, line: &[u8]) -> io::Result<()> {
        let mut gathered = self.gathered();
        if gathered.lines.is_empty() {
            self.0.first.notify_one();
        }
        gathered.lines.extend_from_slice(line);
        let is_full = gathered.lines.len() >= GATHERED_MAX;
        drop(gathered);
        if is_full { self.write_gathered(&[]) } else { Ok(()) }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What writes one line.
struct Line<'a, W> {
    lines: &'a Lines<W>,
    is_gathered: bool,
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Lines<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self, is_gathered: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line { lines: self, is_gathered: meta.target() == http::REQUESTS }
    }
}

impl<W: Write> Write for Line<'_, W> {
    /// A line comes as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_gathered {
            self.lines.gather(line)?
        } else {
            self.lines.write_gathered(line)?
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    /// What was written, write by write.
    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl Written {
        fn all(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logging(log: impl FnOnce()) -> String {
        let written = Written::default();
        let gathering = Gathering::start(written.clone()).unwrap();
        let lines = gathering.lines.clone();
        let subscriber = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
        with_default(subscriber.with_writer(lines).finish(), log);
        drop(gathering);
        written.all().concat()
    }

    #[test]
    fn lines_come_whole_in_order_and_to_the_last() {
        let all = logging(|| {
            tracing::info!(target: http::REQUESTS, "1");
            tracing::info!("2");
            tracing::info!(target: http::REQUESTS, "3");
        });
        assert_eq!(all, " INFO 1\n INFO 2\n INFO 3\n");
        let long = "x".repeat(1_000);
        let all = logging(|| (0..1_000).for_each(|at| tracing::info!(target: http::REQUESTS, "{at} {long}")));
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 1_000);
        assert!(lines.iter().enumerate().all(|(at, line)| *line == format!(" INFO {at} {long}")));
    }

    #[test]
    fn lines_of_many_threads_stay_whole() {
        let written = Written::default();
        let gathering = Gathering::start(written.clone()).unwrap();
        thread::scope(|scope| {
            for at in 0..8 {
                let lines = &gathering.lines;
                scope.spawn(move || {
                    for number in 0..2_000 {
                        let mut line = Line { lines, is_gathered: number % 7 > 0 };
                        line.write_all(format!("{at} {number}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        drop(gathering);
        let all = written.all().concat();
        for at in 0..8 {
            let own: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix(&format!("{at} "))).collect();
            assert_eq!(own, (0..2_000).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_gathered_is_written_after_a_moment_and_never_much_at_once() {
        let written = Written::default();
        let gathering = Gathering::start(written.clone()).unwrap();
        let mut line = Line { lines: &gathering.lines, is_gathered: true };
        line.write_all(b"alone\n").unwrap();
        let began = std::time::Instant::now();
        while written.all().is_empty() && began.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(written.all(), ["alone\n"]);
        (0..10_000).for_each(|_| line.write_all(&[b'x'; 100]).unwrap());
        drop(gathering);
        let all = written.all();
        assert!(all.len() >= 10 && all.iter().all(|write| write.len() <= GATHERED_MAX + 100));
        assert_eq!(all.concat().len(), 6 + 1_000_000);
    }
}
