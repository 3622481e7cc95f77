//! Disks that fail: one write or flush, or all from some moment on.
//!
//! A disk that has failed a flush keeps what was written visible and never makes it durable, as Linux and disks do. It answers
//! nothing for a while then, as a disk that is being reset. What is asserted: whoever is refused is told so; once the store has
//! said that it takes no more writes, every one gets 503 even when the disk is sound again, the log and the status say why, and
//! reads go on. Where the file system itself does not give all files back any more (xfs shuts down when its log cannot be written,
//! btrfs answers EIO for what it has failed to write anew), reads may fail, but nothing is told to be gone, and nothing wrong is
//! served.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use crate::{
    command::{output, said},
    error::{CutError, file_error},
    mount::Faults,
    rounds::Run,
    server::Server,
    tally::whole_lines,
};

/// What the server's log says, once, when it takes no more writes.
const POISONED: &str = "the store takes no more writes";
/// How long an error may wait for a call that it can hit.
const PATIENCE: Duration = Duration::from_secs(3);

impl Run<'_> {
    /// Lets the disk fail under a server; what is wrong with how it takes that.
    pub(crate) fn break_disk(&mut self, server: &Server) -> Result<Option<String>, CutError> {
        let log_len = self.read_log()?.len();
        let (failed, left) = (self.ground.failed(), Some(self.rng.u64(0..30)));
        let lasting = self.rng.bool();
        let faults = if self.rng.bool() {
            Faults { writes_left: left, lasting, ..self.faults }
        } else {
            Faults { flushes_left: left, lasting, ..self.faults }
        };
        self.ground.set_faults(faults);
        let began = Instant::now();
        while self.ground.failed() == failed && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(300));
        self.ground.set_faults(self.faults);
        let log = self.read_log()?;
        let Some(told) = log[log_len..].lines().find(|line| line.contains(POISONED)) else {
            // The file system has dealt with it, or nothing of the store was hit.
            return Ok(None);
        };
        self.figures.poisoned += 1;
        if let Some(wrong) = self.say_why(server, told)? {
            return Ok(Some(wrong));
        }
        let probe = server.probe(&self.options.programs)?;
        if probe.status.success() || !said(&probe).contains("status 503") {
            return Ok(Some(format!("a write after the store was poisoned: {}", said(&probe))));
        }
        let is_readable = is_readable(&self.ground.path().join("data"));
        self.figures.unreadable += u64::from(!is_readable);
        // Reads only: an upload cannot be resumed now.
        let acks = self.read_acks()?;
        let reads = whole_lines(&acks).split_inclusive('\n').filter(|line| !line.starts_with("upload "));
        let reads_path = self.acks.with_extension("reads");
        fs::write(&reads_path, reads.collect::<String>()).map_err(file_error(&reads_path))?;
        let programs = &self.options.programs;
        let wrong = if is_readable {
            server.check(programs, &reads_path)?
        } else {
            server.check_on_failed_disk(programs, &reads_path)?
        };
        Ok(wrong.map(|wrong| format!("reads of a poisoned store, readable {is_readable}: {wrong}")))
    }

    /// Whether the line of the log, and the status, say why the store takes no writes; what is wrong.
    fn say_why(&self, server: &Server, told: &str) -> Result<Option<String>, CutError> {
        let status = match server.ask(&self.options.programs, &["status"])? {
            Ok(status) => status,
            Err(problem) => return Ok(Some(format!("the status of a poisoned store: {problem}"))),
        };
        let reason = status["reason"].as_str().unwrap_or_default();
        let is_why =
            |text: &str| ["sync", "write", "Input/output error", "Read-only"].iter().any(|why| text.contains(why));
        let is_told = status["writes"] == false && is_why(reason) && told.contains(" reason=");
        Ok((!is_told).then(|| format!("the status says {status}, the log: {told}")))
    }

    fn read_log(&self) -> Result<String, CutError> {
        fs::read_to_string(&self.log).map_err(file_error(&self.log))
    }
}

impl Server {
    /// Pushes one blob.
    fn probe(&self, programs: &crate::server::Programs) -> Result<Output, CutError> {
        let mut command = Command::new(&programs.load);
        command.args(["push-blobs", "--count", "1", "--clients", "1", "--repository", "cut/probe", "--address"]);
        output(command.arg(&self.address))
    }
}

/// Whether a load ended because it was refused in so many words.
pub(crate) fn is_refusal(loaded: &Output) -> bool {
    let said = said(loaded);
    ["status 500", "status 503", "status 507"].iter().any(|status| said.contains(status))
}

/// Whether the file system gives the files back: some shut themselves down, or single files.
fn is_readable(data: &Path) -> bool {
    fs::read_dir(data).is_ok_and(|entries| entries.flatten().count() > 0)
        && fs::read(data.join("FORMAT")).is_ok()
        && are_readable(&data.join("segments")).unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Reads all files below a directory; one that is removed meanwhile is none of them.
fn are_readable(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let (entry, mut sink) = (entry?, io::sink());
        let is_readable = if entry.file_type()?.is_dir() {
            are_readable(&entry.path())?
        } else {
            match File::open(entry.path()).and_then(|mut file| io::copy(&mut file, &mut sink)) {
                Err(error) => error.kind() == io::ErrorKind::NotFound,
                Ok(_) => true,
            }
        };
        if !is_readable {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_readable_when_each_of_its_segments_is() {
        let data = tempfile::tempdir().unwrap();
        assert!(!is_readable(data.path()));
        fs::write(data.path().join("FORMAT"), "orlop").unwrap();
        assert!(is_readable(data.path()));
        fs::create_dir_all(data.path().join("segments/0")).unwrap();
        fs::write(data.path().join("segments/0/1"), "content").unwrap();
        assert!(is_readable(data.path()));
        // Of this file no byte can be read, whoever asks.
        std::os::unix::fs::symlink("/proc/self/mem", data.path().join("segments/0/2")).unwrap();
        assert!(!is_readable(data.path()));
    }
}
