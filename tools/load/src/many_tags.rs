//! Workload: a repository with very many tags, beside one with few. What a page of either costs, whether all pages together
//! are right, and whether others are served while the manifest under all of the tags is deleted.
//!
//! It judges what pages hold, never how long they took: times are printed for people, and in the last line's JSON.

mod others;
mod pages;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Server,
    content::{Content, digest_of},
    error::LoadError,
    http::{Connection, Request, Response},
    registry::{CallError, Client, MANIFEST_TYPE},
};

/// Most tags that one request may set.
const TAGS_PER_PUSH: u64 = 100;
/// The repository that few tags are in.
const FEW: &str = "load/few-tags";
/// The repository that many tags are in.
const MANY: &str = "load/many-tags";

/// How many tags, and how the pages are looked at.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ManyTags {
    #[command(flatten)]
    server: Server,
    /// How many tags the one repository gets
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// How many tags the repository beside it gets
    #[arg(long, default_value_t = 1_000)]
    few: u64,
    /// How many clients set tags at once
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// How often each page is asked for
    #[arg(long, default_value_t = 300)]
    samples: usize,
    /// Chooses the pages that are taken at random
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ManyTags {
    /// Sets the tags, asks, walks, deletes; figures, and what was wrong.
    ///
    /// # Errors
    /// The first call that was not done, or counts too small for a page at each place.
    pub(crate) fn run(&self) -> Result<(Value, Vec<String>), LoadError> {
        if self.few < pages::PAGE || self.count < 3 * pages::PAGE {
            let least = format!("--few needs at least {} and --count {} tags", pages::PAGE, 3 * pages::PAGE);
            return Err(LoadError::Usage(least));
        }
        let address = &self.server.address;
        let (few_digest, _) = self.fill(FEW, self.few)?;
        let (digest, filling) = self.fill(MANY, self.count)?;
        let rate = self.count as f64 / filling.as_secs_f64().max(1e-9);
        println!(
            "{} tags set in {:.1} s by {} clients: {rate:.0} a second",
            self.count,
            filling.as_secs_f64(),
            self.clients
        );

        let mut wrong = Vec::new();
        let costs = pages::measure(self, &mut wrong)?;
        for line in costs.lines() {
            println!("{line}");
        }
        let walk = pages::walk(address, MANY, self.count, &mut wrong)?;
        println!("all pages of 10,000: {} tags in {:.2} s", self.count, walk.as_secs_f64());

        let deletion = others::served_while_deleting(address, &digest, self.few, &mut wrong)?;
        println!("{}", deletion.line());
        pages::walk(address, MANY, 0, &mut wrong)?;
        pages::walk(address, FEW, self.few, &mut wrong)?;
        call(&mut Connection::new(address), &[202], "DELETE", &format!("/v2/{FEW}/manifests/{few_digest}"), b"")?;
        let figures = json!({
            "tags": self.count,
            "fill_seconds": filling.as_secs_f64(),
            "pages": costs.to_json(),
            "walk_seconds": walk.as_secs_f64(),
            "delete": deletion.to_json(),
            "wrong": wrong.len(),
        });
        Ok((figures, wrong))
    }

    /// Pushes an image to a repository and sets tags 0 to `count`; the image's digest, and how long the tags took.
    fn fill(&self, repository: &str, count: u64) -> Result<(String, Duration), LoadError> {
        let config = Content::new(self.seed, count, 100);
        let (config_digest, len) = (config.digest(), config.len());
        let mut client = Client::new(&self.server.address);
        let location = client.start_upload(repository)?;
        client.finish_upload(&location, config, &config_digest)?;
        let config =
            json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": len });
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [] }).to_string();
        let digest = digest_of(manifest.as_bytes());
        let pushes = count.div_ceil(TAGS_PER_PUSH);
        let (next, failure) = (AtomicU64::new(0), Mutex::new(None));
        let began = Instant::now();
        let work = || {
            let mut connection = Connection::new(&self.server.address);
            loop {
                let push = next.fetch_add(1, Ordering::Relaxed);
                if push >= pushes {
                    return;
                }
                // Each push sets tags from all over the order, as nobody tags a million times in a row by name.
                let tags: Vec<String> =
                    (push..count).step_by(pushes as usize).map(|number| format!("tag={}", tag(number))).collect();
                let target = format!("/v2/{repository}/manifests/{digest}?{}", tags.join("&"));
                if let Err(error) = call(&mut connection, &[201], "PUT", &target, manifest.as_bytes()) {
                    next.store(pushes, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.clients {
                scope.spawn(work);
            }
        });
        let filling = began.elapsed();
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok((digest, filling)),
            Some(error) => Err(error.into()),
        }
    }
}

/// The tag of a number; tags sort as their numbers do.
fn tag(number: u64) -> String {
    format!("v{number:09}")
}

/// One call that must end with one of the statuses.
fn call(
    connection: &mut Connection,
    expected: &[u16],
    method: &str,
    target: &str,
    body: &[u8],
) -> Result<Response, CallError> {
    let headers: &[(&str, &str)] = if method == "PUT" { &[("Content-Type", MANIFEST_TYPE)] } else { &[] };
    let name = || format!("{method} {}", target.split('?').next().unwrap_or_default());
    let response = connection
        .send(Request { method, target, headers }, &mut { body }, body.len() as u64)
        .map_err(|source| CallError::NoAnswer { call: name(), source })?;
    if expected.contains(&response.status) {
        return Ok(response);
    }
    let text = String::from_utf8_lossy(&response.body[..response.body.len().min(500)]).into_owned();
    Err(CallError::Refused { call: name(), status: response.status, text })
}

/// The median of some durations in microseconds.
fn median_us(durations: &mut [Duration]) -> u64 {
    durations.sort_unstable();
    durations.get(durations.len() / 2).map_or(0, |median| u64::try_from(median.as_micros()).unwrap_or(u64::MAX))
}
