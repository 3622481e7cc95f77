//! The deletion of a manifest with very many tags, while other clients read and write.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{FEW, MANY, call, median_us, pages::PAGE, tag};
use crate::{content::Content, error::LoadError, http::Connection, registry::Client};

/// Longest that a deletion may take before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the deletion took, and what others noticed of it.
pub(super) struct Deletion {
    took: Duration,
    /// How often it was asked for: a registry may say "go on later" to a large one.
    requests: u64,
    reads: Vec<Duration>,
    writes: Vec<Duration>,
}

impl Deletion {
    /// For people.
    pub(super) fn line(&self) -> String {
        let of = |durations: &[Duration]| {
            let max = durations.iter().max().copied().unwrap_or_default();
            format!(
                "{} at a median of {} µs, at most {} ms",
                durations.len(),
                median_us(&mut durations.to_vec()),
                max.as_millis()
            )
        };
        format!(
            "the manifest under all tags deleted in {:.2} s (requests for it: {}); meanwhile reads: {}; pushes: {}",
            self.took.as_secs_f64(),
            self.requests,
            of(&self.reads),
            of(&self.writes)
        )
    }

    pub(super) fn to_json(&self) -> Value {
        let of = |durations: &[Duration]| {
            let max = durations.iter().max().map_or(0, Duration::as_micros);
            json!({ "count": durations.len(), "median_us": median_us(&mut durations.to_vec()), "max_us": max })
        };
        json!({
            "seconds": self.took.as_secs_f64(),
            "requests": self.requests,
            "reads": of(&self.reads),
            "pushes": of(&self.writes),
        })
    }
}

/// Deletes the manifest; others go on, and must get right answers, until it is gone.
pub(super) fn served_while_deleting(
    address: &str,
    digest: &str,
    few: u64,
    wrong: &mut Vec<String>,
) -> Result<Deletion, LoadError> {
    let is_done = AtomicBool::new(false);
    let (deleted, reads, writes) = thread::scope(|scope| {
        let reads = scope.spawn(|| read(address, few, &is_done));
        let writes = scope.spawn(|| write(address, &is_done));
        let deleted = delete(address, digest);
        is_done.store(true, Ordering::Relaxed);
        (deleted, reads.join(), writes.join())
    });
    let (took, requests) = deleted?;
    let panicked = |_| LoadError::Usage("a client panicked".to_owned());
    let (reads, writes) = (reads.map_err(panicked)??, writes.map_err(panicked)??);
    let mut connection = Connection::new(address);
    for reference in [digest.to_owned(), tag(0)] {
        let target = format!("/v2/{MANY}/manifests/{reference}");
        let status = call(&mut connection, &[200, 404], "GET", &target, b"")?.status;
        if status != 404 {
            wrong.push(format!("GET {target}: {status} after it was deleted"));
        }
    }
    Ok(Deletion { took, requests, reads, writes })
}

fn delete(address: &str, digest: &str) -> Result<(Duration, u64), LoadError> {
    let mut connection = Connection::new(address);
    let target = format!("/v2/{MANY}/manifests/{digest}");
    let began = Instant::now();
    let mut requests = 1;
    while call(&mut connection, &[202, 404, 503], "DELETE", &target, b"")?.status == 503 {
        if began.elapsed() > PATIENCE {
            return Err(LoadError::Usage(format!("DELETE {target} is not done after {} s", PATIENCE.as_secs())));
        }
        thread::sleep(Duration::from_secs(1));
        requests += 1;
    }
    Ok((began.elapsed(), requests))
}

/// Pages of the other repository.
fn read(address: &str, few: u64, is_done: &AtomicBool) -> Result<Vec<Duration>, LoadError> {
    let mut connection = Connection::new(address);
    let target = format!("/v2/{FEW}/tags/list?n={PAGE}&last={}", tag(few / 2));
    let mut durations = Vec::new();
    while !is_done.load(Ordering::Relaxed) {
        let began = Instant::now();
        call(&mut connection, &[200], "GET", &target, b"")?;
        durations.push(began.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(durations)
}

/// Blobs into the other repository; each waits for the committer, which the deletion goes through.
fn write(address: &str, is_done: &AtomicBool) -> Result<Vec<Duration>, LoadError> {
    let mut client = Client::new(address);
    let mut durations = Vec::new();
    while !is_done.load(Ordering::Relaxed) {
        let content = Content::new(u64::MAX, durations.len() as u64, 500);
        let digest = content.digest();
        let began = Instant::now();
        let location = client.start_upload(FEW)?;
        client.finish_upload(&location, content, &digest)?;
        durations.push(began.elapsed());
    }
    Ok(durations)
}
