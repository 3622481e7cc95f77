//! Workload: manifests near the limit of their size, and indexes that name very many manifests, each under a tag of its own;
//! written down, and the older ones deleted again by their digests.
//!
//! A registry that is out of memory for bodies may say so (503): then a piece is tried again after a rest, as clients do it,
//! and its time has all of that. An answer that comes before the body was read can be lost with its connection; that is
//! tried again, too.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Server,
    acks::{AckLog, Fact, Referred, Tagged},
    clients::{self, Bounds, Figures, Sorted},
    content::{Content, Payload, digest_of},
    error::LoadError,
    registry::{CallError, Client, INDEX_TYPE, MANIFEST_TYPE},
};

const CONFIG_BYTES: u64 = 1000;
/// Of so many pieces one is an index.
const INDEX_EACH: u64 = 4;
/// Manifests of each client that are kept.
const KEPT: usize = 3;
/// Tries of a push that is answered 503, and the rest between them.
const TRIES: u32 = 100;
const TRY_REST: Duration = Duration::from_millis(100);

/// How large, how long, by whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PushManifests {
    #[command(flatten)]
    server: Server,
    /// The repository to push to
    #[arg(long, default_value = "load/manifests")]
    repository: String,
    /// How many clients push at once
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Names the content: other seeds, other manifests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of a manifest, about
    #[arg(long, default_value_t = 4_000_000)]
    size: usize,
    /// Manifests that an index names
    #[arg(long, default_value_t = 5_000)]
    children: u64,
    /// No piece is begun after so many seconds; those of an index are pushed before
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rest of each client after a piece, in milliseconds
    #[arg(long, default_value_t = 0)]
    rest_ms: u64,
}

/// A piece that was pushed.
struct Pushed {
    is_index: bool,
    took: Duration,
    /// Answers that said to come again.
    refusals: u64,
}

/// One client.
struct State {
    client: Client,
    kept: VecDeque<(String, String)>,
}

impl PushManifests {
    /// Pushes until the end; the figures as data, times in microseconds.
    ///
    /// # Errors
    /// The first call that was not done, or what the log's file has.
    pub(crate) fn run(&self) -> Result<Value, LoadError> {
        let log = self.server.open_log()?;
        let config = self.push_config(&log)?;
        let children = self.push_children(&log, &config)?;
        let bounds = Bounds { time: Some(Duration::from_secs(self.seconds)), ..Bounds::all(self.clients, u64::MAX) };
        let figures = clients::run(
            &bounds,
            |_| State { client: Client::new(&self.server.address), kept: VecDeque::new() },
            |state, index| {
                let pushed = self.push(state, &log, &config, &children, index)?;
                self.delete_oldest(state, &log)?;
                thread::sleep(Duration::from_millis(self.rest_ms));
                Ok(pushed)
            },
        )?;
        Ok(json!({ "manifests": row(&figures, false), "indexes": row(&figures, true) }))
    }

    fn push_config(&self, log: &AckLog) -> Result<Value, LoadError> {
        let content = Content::new(self.seed, 0, CONFIG_BYTES);
        let (digest, len) = (content.digest(), content.remaining());
        let mut client = Client::new(&self.server.address);
        let location = client.start_upload(&self.repository)?;
        client.finish_upload(&location, content, &digest)?;
        self.server.log(log, &Fact::Blob { repository: self.repository.clone(), digest: digest.clone() })?;
        Ok(json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len }))
    }

    /// Pushes what an index names; its descriptors.
    fn push_children(&self, log: &AckLog, config: &Value) -> Result<Vec<Value>, LoadError> {
        let bytes = |number| manifest(config, &format!("{}-{number}", self.seed));
        clients::run(
            &Bounds::all(self.clients, self.children),
            |_| Client::new(&self.server.address),
            |client, number| {
                let bytes = bytes(number);
                let digest = digest_of(&bytes);
                client.put_manifest(&self.repository, &digest, &bytes)?;
                self.server.log(log, &Fact::Manifest { repository: self.repository.clone(), digest })
            },
        )?;
        let descriptor = |number| {
            let bytes = bytes(number);
            json!({ "mediaType": MANIFEST_TYPE, "digest": digest_of(&bytes), "size": bytes.len() })
        };
        Ok((0..self.children).map(descriptor).collect())
    }

    fn push(
        &self,
        state: &mut State,
        log: &AckLog,
        config: &Value,
        children: &[Value],
        index: u64,
    ) -> Result<Pushed, LoadError> {
        let is_index = index.is_multiple_of(INDEX_EACH) && !children.is_empty();
        let (media_type, bytes) = if is_index {
            let annotations = json!({ "number": index.to_string() });
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": children, "annotations": annotations });
            (INDEX_TYPE, index.to_string().into_bytes())
        } else {
            let mut note = format!("{}-{index}-", self.seed);
            note.extend(std::iter::repeat_n('x', self.size));
            (MANIFEST_TYPE, manifest(config, &note))
        };
        let (digest, tag) = (digest_of(&bytes), format!("s{}-{index}", self.seed));
        let tagged = Tagged { repository: self.repository.clone(), tag: tag.clone(), digest: digest.clone() };
        self.server.log(log, &Fact::TryTag(tagged.clone()))?;
        let began = Instant::now();
        let mut refusals = 0;
        while let Err(error) = state.client.put_typed(&self.repository, &tag, media_type, &bytes) {
            let is_busy = matches!(error, CallError::Refused { status: 503, .. } | CallError::NoAnswer { .. });
            if !is_busy || refusals >= u64::from(TRIES) {
                return Err(error.into());
            }
            refusals += 1;
            thread::sleep(TRY_REST);
        }
        let took = began.elapsed();
        self.server.log(log, &Fact::Tag(tagged))?;
        self.server.log(log, &Fact::Manifest { repository: self.repository.clone(), digest: digest.clone() })?;
        state.kept.push_back((tag, digest));
        Ok(Pushed { is_index, took, refusals })
    }

    fn delete_oldest(&self, state: &mut State, log: &AckLog) -> Result<(), LoadError> {
        if state.kept.len() <= KEPT {
            return Ok(());
        }
        let Some((tag, digest)) = state.kept.pop_front() else { return Ok(()) };
        let referred =
            |reference: &String| Referred { repository: self.repository.clone(), reference: reference.clone() };
        for reference in [&digest, &tag] {
            self.server.log(log, &Fact::TryDelete(referred(reference)))?;
        }
        state.client.delete_manifest(&self.repository, &digest)?;
        for reference in [&digest, &tag] {
            self.server.log(log, &Fact::Delete(referred(reference)))?;
        }
        Ok(())
    }
}

/// A manifest of a config, with a note that makes it another one, or large.
fn manifest(config: &Value, note: &str) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": [],
        "annotations": { "note": note },
    });
    manifest.to_string().into_bytes()
}

fn row(figures: &Figures<Pushed>, indexes: bool) -> Value {
    let pieces = || figures.pieces.iter().map(|(_, pushed)| pushed).filter(move |pushed| pushed.is_index == indexes);
    let sorted = Sorted::of(pieces().map(|pushed| pushed.took));
    json!({
        "count": pieces().count(),
        "refusals": pieces().map(|pushed| pushed.refusals).sum::<u64>(),
        "p50_us": sorted.micros(0.5),
        "p99_us": sorted.micros(0.99),
        "max_us": sorted.micros(1.0),
    })
}
