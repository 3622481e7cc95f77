//! The program as a process: started on a port of its own and a directory of its own, killed when dropped.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Connection, OCI_MANIFEST, PATIENCE, image, noise, sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_orlop");
/// Small enough that tests push content of both kinds, into shared segments and into segments of its own.
pub(crate) const LARGE_BLOB_BYTES: usize = 64 << 10;

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end, which must come by itself.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(File::create(path("out")).unwrap())
        .stderr(File::create(path("err")).unwrap())
        .spawn()
        .unwrap();
    let ended = wait(&mut child);
    let text = |name: &str| String::from_utf8_lossy(&fs::read(path(name)).unwrap()).into_owned();
    let ran = Ran { code: ended.and_then(|ended| ended.code()), stdout: text("out"), stderr: text("err") };
    assert!(ended.is_some(), "{arguments:?} did not end: {ran:?}");
    ran
}

/// Waits for a process; kills one that does not end.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// A registry being served.
pub(crate) struct Orlop {
    directory: TempDir,
    child: Child,
    address: SocketAddr,
    starts: usize,
}

impl Orlop {
    /// Serves an empty store.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Serves an empty store with some settings.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = [
            ("data", directory.path().join("data").display().to_string()),
            ("listen", "127.0.0.1:0".to_owned()),
            ("log.format", "json".to_owned()),
            ("log.level", "debug".to_owned()),
            // The machine's disk may be nearly full; what happens then is tested elsewhere.
            ("store.reserve_bytes", "0".to_owned()),
            ("store.large_blob_bytes", LARGE_BLOB_BYTES.to_string()),
        ];
        // What a store holds is compared before and after: nothing goes by itself, but where a test is about that.
        let quiet =
            [("collect.interval", "1d")].into_iter().filter(|(key, _)| settings.iter().all(|(set, _)| set != key));
        let lines = own.iter().map(|(key, value)| (*key, value.as_str())).chain(quiet).chain(settings.iter().copied());
        let config: String = lines.map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
        fs::write(directory.path().join("orlop.toml"), config).unwrap();
        let (child, address) = spawn(directory.path(), 1);
        Self { directory, child, address, starts: 1 }
    }

    /// The process, as `/proc` names it.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Serves the same store again, after it was ended.
    pub(crate) fn start_again(&mut self) {
        self.starts += 1;
        (self.child, self.address) = spawn(self.directory.path(), self.starts);
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself; its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child).expect("it ends when it is asked to").code()
    }

    /// What the store holds, as `orlop dump` tells it, without the counters that every commit moves. The server is
    /// ended in good order for that.
    pub(crate) fn facts_at_end(&mut self) -> Vec<String> {
        self.terminate();
        assert_eq!(self.wait(), Some(0));
        let config = self.directory.path().join("orlop.toml");
        let ran = run(&["dump", "--config", config.to_str().unwrap()], &[]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout.lines().filter(|line| !line.starts_with("meta ")).map(str::to_owned).collect()
    }

    /// The same, and serves again.
    pub(crate) fn facts(&mut self) -> Vec<String> {
        let facts = self.facts_at_end();
        self.start_again();
        facts
    }

    /// Files of segments, open uploads included.
    pub(crate) fn segment_files(&self) -> BTreeSet<PathBuf> {
        let mut directories = vec![self.data().join("segments")];
        let mut files = BTreeSet::new();
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.insert(path);
                }
            }
        }
        files
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        let (body, len) = (body.as_ref(), body.as_ref().len().to_string());
        let mut headers = headers.to_vec();
        if !body.is_empty() || matches!(method, "POST" | "PATCH" | "PUT") {
            headers.push(("Content-Length", &len));
        }
        let mut connection = self.connect();
        connection.say_head(method, path, &headers).say(body);
        let answer = connection.try_answer(method == "HEAD");
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], "")
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str) -> Answer {
        self.send("POST", path, &[], "")
    }

    /// Starts an upload; its location.
    pub(crate) fn start_upload(&self, repository: &str) -> String {
        self.post(&format!("/v2/{repository}/blobs/uploads/")).is(202).location()
    }

    /// Sends a chunk that begins at `begins`.
    pub(crate) fn patch(&self, upload: &str, begins: usize, bytes: &[u8]) -> Answer {
        let range = format!("{begins}-{}", begins + bytes.len() - 1);
        self.send("PATCH", upload, &[("Content-Range", &range)], bytes)
    }

    /// Ends an upload with these bytes as its last.
    pub(crate) fn put(&self, upload: &str, digest: &str, bytes: &[u8]) -> Answer {
        self.send("PUT", &format!("{upload}?digest={digest}"), &[], bytes)
    }

    /// Bytes that an upload says it has, by its `Range`. `0-0` stands for none and for one.
    pub(crate) fn upload_last_byte(&self, upload: &str) -> usize {
        let answer = self.get(upload).is(204);
        let range = answer.header("range").and_then(|range| range.strip_prefix("0-")?.parse().ok());
        range.unwrap_or_else(|| panic!("no Range: {answer:?}"))
    }

    /// Stores a blob; its digest.
    pub(crate) fn push_blob(&self, repository: &str, bytes: impl AsRef<[u8]>) -> String {
        let digest = sha256(&bytes);
        self.send("POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"), &[], bytes).is(201);
        digest
    }

    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, text: &str) -> Answer {
        self.send("PUT", &format!("/v2/{repository}/manifests/{reference}"), &[("Content-Type", media_type)], text)
    }

    /// Stores an image that is like no other, under a tag; its manifest.
    pub(crate) fn push_image(&self, repository: &str, tag: &str, seed: u64) -> String {
        let (config, layer) = (noise(seed, 100), noise(seed + 1_000_000, 1_000));
        self.push_blob(repository, &config);
        self.push_blob(repository, &layer);
        let manifest = image(&config, &[&layer]).to_string();
        self.put_manifest(repository, tag, OCI_MANIFEST, &manifest).is(201);
        manifest
    }
}

impl Drop for Orlop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(log_path(self.directory.path(), self.starts)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!("its log ends with:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

fn log_path(directory: &Path, start: usize) -> PathBuf {
    directory.join(format!("log-{start}"))
}

/// Starts the program and waits until it says where it serves.
fn spawn(directory: &Path, start: usize) -> (Child, SocketAddr) {
    let log = log_path(directory, start);
    let mut child = Command::new(PROGRAM)
        .arg("serve")
        .arg("--config")
        .arg(directory.join("orlop.toml"))
        .env_clear()
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        let said = fs::read_to_string(&log).unwrap();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address =
            lines.filter(|line| line["message"] == "serving").find_map(|line| line["listen"].as_str()?.parse().ok());
        if let Some(address) = address {
            return (child, address);
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || begun.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it does not serve ({ended:?}): {said}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
