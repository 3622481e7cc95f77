//! Disks that fail: one write or flush, or all from some moment on.
//!
//! A disk that has failed a flush keeps what was written visible and never makes it durable, as Linux and disks do. What is
//! asserted: whoever is refused is told so; once the store has said that it takes no more writes, every one gets 503 even
//! when the disk is sound again, and reads go on, as far as the file system itself can be read.

use std::{
    fs,
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
        if !self.read_log()?[log_len..].contains(POISONED) {
            // The file system has dealt with it, or nothing of the store was hit.
            return Ok(None);
        }
        self.figures.poisoned += 1;
        let probe = server.probe(&self.options.programs)?;
        if probe.status.success() || !said(&probe).contains("status 503") {
            return Ok(Some(format!("a write after the store was poisoned: {}", said(&probe))));
        }
        if !is_readable(&self.ground.path().join("data")) {
            self.figures.unreadable += 1;
            return Ok(None);
        }
        // Reads only: an upload cannot be resumed now.
        let acks = self.read_acks()?;
        let reads: Vec<&str> = whole_lines(&acks).lines().filter(|line| !line.starts_with("upload ")).collect();
        let reads_path = self.acks.with_extension("reads");
        fs::write(&reads_path, reads.join("\n") + "\n").map_err(file_error(&reads_path))?;
        Ok(server
            .check(&self.options.programs, &reads_path)?
            .map(|wrong| format!("reads of a poisoned store: {wrong}")))
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

/// Whether the file system lets anything be read: some shut themselves down.
fn is_readable(data: &Path) -> bool {
    fs::read_dir(data).is_ok_and(|entries| entries.flatten().count() > 0) && fs::read(data.join("FORMAT")).is_ok()
}
