//! The real `orlop serve`, its load, and the checks from outside.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;

use serde_json::Value;

use crate::{
    command::{output, said},
    error::{CutError, file_error},
    unlisted,
};

const START_MAX: Duration = Duration::from_secs(60);
/// Seconds after which a check that hangs is ended.
const CHECK_SECONDS_MAX: &str = "120";
/// Collections after which all that is dead has to be erased: one may meet a compaction, or a reader that is leaving.
const COLLECTIONS: u32 = 20;

/// Where the programs are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Programs {
    /// The server
    #[arg(long)]
    pub(crate) orlop: PathBuf,
    /// The clients and the checker
    #[arg(long)]
    pub(crate) load: PathBuf,
}

/// Settings of a store, as variables of the environment.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// Mostly small bounds, so that within a second files are ended, the index is flushed, snapshots are written, content is
/// collected, and segments are compacted.
pub(crate) fn draw_settings(rng: &mut Rng) -> Settings {
    // With a window what was deleted can be restored; without one it leaves the disk.
    let window = ["0s", "0s", "1h"][rng.usize(0..3)];
    let mut settings = vec![
        ("ORLOP_REGISTRY_RETENTION_WINDOW", window.to_owned()),
        ("ORLOP_COLLECT_INTERVAL", "100ms".to_owned()),
        ("ORLOP_STORE_RESERVE_BYTES", "32MiB".to_owned()),
        ("ORLOP_HTTP_VERIFY_BYTES_PER_SECOND", "10GiB".to_owned()),
        ("ORLOP_LOG_LEVEL", "info".to_owned()),
    ];
    let mut small = |name, value: &str| {
        if rng.u8(0..3) > 0 {
            settings.push((name, value.to_owned()));
        }
    };
    small("ORLOP_STORE_SHARED_SEGMENT_BYTES_MAX", "1MiB");
    small("ORLOP_STORE_FLUSH_BYTES", "1MiB");
    small("ORLOP_STORE_JOURNAL_FILE_BYTES_MAX", "16KiB");
    small("ORLOP_STORE_SNAPSHOT_BYTES_MIN", "4KiB");
    small("ORLOP_STORE_LARGE_BLOB_BYTES", "64KiB");
    settings
}

/// How much is pushed, and by how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadBounds {
    /// Clients at once.
    pub(crate) clients: u64,
    /// Images of each client.
    pub(crate) images: u64,
    /// Longest time.
    pub(crate) seconds: u64,
}

/// A server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// As host:port.
    pub(crate) address: String,
}

impl Server {
    /// Starts one; it need not answer yet.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn launch(programs: &Programs, data: &Path, log: &Path, settings: &Settings) -> Result<Self, CutError> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.map_err(file_error(Path::new("127.0.0.1:0")))?.to_string();
        let file = File::options().create(true).append(true).open(log).map_err(file_error(log))?;
        let mut command = Command::new(&programs.orlop);
        command.arg("serve").arg("--data").arg(data).args(["--listen", &address]);
        command.envs(settings.iter().map(|(name, value)| (name, value))).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(file));
        let child = command.spawn().map_err(file_error(&programs.orlop))?;
        Ok(Self { child, address })
    }

    /// Waits until it listens, which it does when its store is open; how long that took, or why it does not.
    pub(crate) fn await_start(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if TcpStream::connect(&self.address).is_ok() {
                return Ok(began.elapsed());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended at its start: {status}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("the server does not listen after {START_MAX:?}"))
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Compares the registry with the log of acknowledgements; what is wrong.
    ///
    /// # Errors
    /// When the checker cannot be run.
    pub(crate) fn check(&self, programs: &Programs, acks: &Path) -> Result<Option<String>, CutError> {
        let mut command = Command::new("timeout");
        command.arg(CHECK_SECONDS_MAX).arg(&programs.load).args(["check", "--address", &self.address, "--acks"]);
        wrong(command.arg(acks), "check")
    }

    /// As [`Server::check`], where the disk may keep the server from reading.
    ///
    /// # Errors
    /// When the checker cannot be run.
    pub(crate) fn check_on_failed_disk(&self, programs: &Programs, acks: &Path) -> Result<Option<String>, CutError> {
        let mut command = Command::new("timeout");
        command.arg(CHECK_SECONDS_MAX).arg(&programs.load).args(["check", "--failed-disk", "--address", &self.address]);
        wrong(command.arg("--acks").arg(acks), "check on a failed disk")
    }

    /// Lets orlop count its store again, and read all of its content if asked; what is wrong.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn verify(&self, programs: &Programs, content: bool) -> Result<Option<String>, CutError> {
        let mut command = Command::new("timeout");
        command.arg(CHECK_SECONDS_MAX).arg(&programs.orlop).arg("verify");
        command.args(content.then_some("--content"));
        wrong(command.arg("--server").arg(format!("http://{}", self.address)), "verify")
    }

    /// As [`find_unlisted`].
    ///
    /// # Errors
    /// As [`find_unlisted`].
    pub(crate) fn find_unlisted(&self, programs: &Programs, data: &Path) -> Result<Option<String>, CutError> {
        find_unlisted(&self.address, programs, data)
    }

    /// As [`ask`].
    ///
    /// # Errors
    /// As [`ask`].
    pub(crate) fn ask(&self, programs: &Programs, arguments: &[&str]) -> Result<Result<Value, String>, CutError> {
        ask(&self.address, programs, arguments)
    }

    /// Lets an administrative command work on the store; whether it was done.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn order(&self, programs: &Programs, arguments: &[&str]) -> Result<bool, CutError> {
        let mut command = Command::new("timeout");
        command.arg(CHECK_SECONDS_MAX).arg(&programs.orlop).args(arguments);
        command.arg("--server").arg(format!("http://{}", self.address));
        Ok(output(&mut command)?.status.success())
    }

    /// Pushes and deletes by parallel clients until the server is gone, each has pushed so many images, or the time is over.
    ///
    /// # Errors
    /// When the load cannot be run.
    pub(crate) fn load(
        &self,
        programs: &Programs,
        acks: &Path,
        seed: u64,
        bounds: LoadBounds,
    ) -> Result<Child, CutError> {
        let LoadBounds { clients, images, seconds } = bounds;
        let mut command = Command::new(&programs.load);
        command.args([
            "push-images",
            "--deletes",
            "--restores",
            "--repository",
            "cut/images",
            "--address",
            &self.address,
        ]);
        for (name, value) in [("--clients", clients), ("--images", images), ("--seconds", seconds), ("--seed", seed)] {
            command.arg(name).arg(value.to_string());
        }
        command.arg("--acks").arg(acks).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(file_error(&programs.load))
    }

    /// Ends the process as a power cut does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Collects, and looks into the files of segments for what nothing names; what is wrong. Nobody else may use the store.
///
/// # Errors
/// When a command cannot be run, or a file not be read.
pub(crate) fn find_unlisted(address: &str, programs: &Programs, data: &Path) -> Result<Option<String>, CutError> {
    let mut wrong = Vec::new();
    for tries in 0..COLLECTIONS {
        thread::sleep(Duration::from_millis(20 * u64::from(tries)));
        if let Err(problem) = ask(address, programs, &["gc"])? {
            return Ok(Some(format!("collect: {problem}")));
        }
        let listed = match ask(address, programs, &["segments"])? {
            Ok(listed) => listed,
            Err(problem) => return Ok(Some(format!("segments: {problem}"))),
        };
        wrong = unlisted::find(data, &listed)?;
        if wrong.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(format!("after a collection: {}", wrong.join("; "))))
}

/// The answer to an administrative command, or what it says in place of one.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn ask(address: &str, programs: &Programs, arguments: &[&str]) -> Result<Result<Value, String>, CutError> {
    let mut command = Command::new("timeout");
    command.arg(CHECK_SECONDS_MAX).arg(&programs.orlop).args(arguments).arg("--json");
    command.arg("--server").arg(format!("http://{}", address));
    let output = output(&mut command)?;
    // A status that is not good comes with an exit code of its own.
    Ok(serde_json::from_slice(&output.stdout).map_err(|_| said(&output)))
}

fn wrong(command: &mut Command, name: &str) -> Result<Option<String>, CutError> {
    let output = output(command)?;
    Ok((!output.status.success()).then(|| format!("{name}: {}", said(&output))))
}
