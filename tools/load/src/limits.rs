//! What this machine can do of each thing that a push is made of, one at a time: SHA-256, bytes through the loopback, bytes
//! onto the disk; and what a push by many clients comes to at most where all of it shares the cores.
//!
//! The limit is no program's: each part has the cores to itself here, and nothing of a server is in it but these parts. A
//! push costs their CPU time added up, client's and server's; so many cores give so many MiB a second, and never more than
//! the disk takes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    clients::Sorted,
    content::Hasher,
    error::{LoadError, file_error},
    measure::{cpu, stock::block},
};

/// Bytes that are hashed, sent or written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// What a direct write begins at, in memory and in the file.
const ALIGNMENT: usize = 4096;
const MIB: f64 = 1024.0 * 1024.0;

/// Where, and how much.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Limits {
    /// A directory on the file system that is written to
    #[arg(long)]
    dir: PathBuf,
    /// MiB that are written, each way
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Milliseconds that is hashed, and sent
    #[arg(long, default_value_t = 1000)]
    ms: u64,
    /// Syncs of a small append
    #[arg(long, default_value_t = 200)]
    syncs: u64,
}

/// How fast something goes, and the CPU time that it takes on all cores.
#[derive(Debug, Clone, Copy)]
struct Part {
    mib_per_second: f64,
    cpu_us_per_mib: f64,
}

impl Part {
    /// Measures what moves so many bytes as it says.
    fn of(work: impl FnOnce() -> io::Result<u64>) -> io::Result<Self> {
        let own = || cpu::used(&process::id().to_string());
        let (began, before) = (Instant::now(), own());
        let mib = work()? as f64 / MIB;
        let (elapsed, used) = (began.elapsed(), own().saturating_sub(before));
        Ok(Self {
            mib_per_second: mib / elapsed.as_secs_f64().max(1e-9),
            cpu_us_per_mib: used.as_secs_f64() * 1e6 / mib.max(1e-9),
        })
    }

    fn to_json(self) -> Value {
        json!({ "mib_per_second": self.mib_per_second, "cpu_us_per_mib": self.cpu_us_per_mib })
    }
}

impl Limits {
    /// Measures one after the other.
    ///
    /// # Errors
    /// When the directory cannot be written to, or there is no loopback.
    pub(crate) fn run(&self) -> Result<Value, LoadError> {
        let time = Duration::from_millis(self.ms);
        let file = self.dir.join(format!("orlop-load-limits-{}", process::id()));
        let at_file = || file_error(&file);
        let hash = Part::of(|| Ok(hash(time))).map_err(at_file())?;
        let loopback = Part::of(|| loopback(time)).map_err(file_error(Path::new("the loopback")))?;
        let measured = (|| -> io::Result<_> {
            let buffered = Part::of(|| self.write(&file, 0))?;
            // Not every file system has it.
            let direct = Part::of(|| self.write(&file, libc::O_DIRECT)).ok();
            Ok((buffered, direct, self.sync_us(&file)?))
        })();
        // Whether it is there or not, it is to be gone.
        let _ = std::fs::remove_file(&file);
        let (buffered, direct, sync_us) = measured.map_err(at_file())?;
        let disk = [Some(buffered), direct].into_iter().flatten();
        let cores = available_parallelism().map_or(1, usize::from) as f64;
        // The way of writing with which all of it is quickest.
        let push = disk.map(|disk| {
            let cpu_us = hash.cpu_us_per_mib + loopback.cpu_us_per_mib + disk.cpu_us_per_mib;
            (cores * 1e6 / cpu_us.max(1e-9)).min(disk.mib_per_second)
        });
        Ok(json!({
            "sha256": hash.to_json(),
            "loopback": loopback.to_json(),
            "write": buffered.to_json(),
            "write_direct": direct.map(Part::to_json),
            "sync_us": sync_us,
            "push_mib_per_second": push.fold(0.0, f64::max),
        }))
    }

    /// Writes a new file from its beginning to its end, and syncs it.
    fn write(&self, path: &Path, flags: i32) -> io::Result<u64> {
        let mut file = create(path, flags)?;
        let room = vec![b'x'; PIECE_BYTES + ALIGNMENT];
        let begin = room.as_ptr().align_offset(ALIGNMENT);
        let piece = &room[begin..begin + PIECE_BYTES];
        for _ in 0..self.mib {
            file.write_all(piece)?;
        }
        file.sync_data()?;
        Ok(self.mib * PIECE_BYTES as u64)
    }

    /// The median of appending 4 KiB and syncing them.
    fn sync_us(&self, path: &Path) -> io::Result<u64> {
        let mut file = create(path, 0)?;
        let mut times = Vec::new();
        for _ in 0..self.syncs {
            let began = Instant::now();
            file.write_all(&[b'x'; 4096])?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        Ok(Sorted::of(times.into_iter()).micros(0.5))
    }
}

fn create(path: &Path, flags: i32) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path)
}

/// Hashes on one core.
fn hash(time: Duration) -> u64 {
    let (block, mut hasher) = (block(), Hasher::default());
    let began = Instant::now();
    let mut bytes = 0;
    while began.elapsed() < time {
        hasher.update(&block[..PIECE_BYTES]);
        bytes += PIECE_BYTES as u64;
    }
    std::hint::black_box(hasher.finish());
    bytes
}

/// Sends from one thread to another, which reads into the same memory again and again.
fn loopback(time: Duration) -> io::Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let block = block();
            let began = Instant::now();
            // Dropping it ends the other side's reading.
            while began.elapsed() < time && sender.write_all(&block[..PIECE_BYTES]).is_ok() {}
        });
        let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
        loop {
            match receiver.read(&mut piece)? {
                0 => return Ok(bytes),
                count => bytes += count as u64,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_measured_and_nothing_is_left() {
        let dir = std::env::temp_dir().join(format!("orlop-load-limits-test-{}", process::id()));
        std::fs::create_dir(&dir).unwrap();
        let found = Limits { dir: dir.clone(), mib: 2, ms: 20, syncs: 2 }.run();
        let left = std::fs::read_dir(&dir).unwrap().count();
        std::fs::remove_dir(&dir).unwrap();
        let found = found.unwrap();
        for part in ["sha256", "loopback", "write"] {
            assert!(found[part]["mib_per_second"].as_f64().unwrap() > 0.0, "{found}");
        }
        assert!(found["push_mib_per_second"].as_f64().unwrap() > 0.0, "{found}");
        assert_eq!(left, 0);
    }
}
