//! Workload: images from a few clients until the time is over or the server is gone, every answer written down.
//!
//! Each client has a repository of its own. An image is a config and one to four layers, most small, some of megabytes sent in
//! chunks; a tag of its own; and a tag that moves from image to image. Now and then an upload is left open half-way, so
//! that there is always something to resume. Some layers are mounted into a second repository of the client's; some images
//! have no tag and are named by a tagged index. On demand images and indexes are deleted again, by tag or digest, and blobs;
//! and some of these are restored.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Server,
    acks::{AckLog, Fact, Referred, Tagged, Upload},
    clients::{self, Bounds},
    content::{Content, Payload, digest_of},
    error::LoadError,
    registry::{Client, INDEX_TYPE, MANIFEST_TYPE},
};

const SMALL_BYTES_MAX: u64 = 32 * 1024;
/// Of so many images one is an index.
const INDEX_EACH: u64 = 5;
const LARGE_BYTES: std::ops::Range<u64> = 1024 * 1024..5 * 1024 * 1024;

/// How long, by whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PushImages {
    #[command(flatten)]
    server: Server,
    /// The repositories are this and a client's number
    #[arg(long, default_value = "load/images")]
    repository: String,
    /// How many clients push at once
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Names content and shapes: other seeds, other images
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// When to stop
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most images of each client
    #[arg(long, default_value_t = u64::MAX)]
    images: u64,
    /// Also delete earlier images of this run, and blobs; what is held ends at once only without a retention window
    #[arg(long)]
    deletes: bool,
    /// Also restore some of what was deleted, by orlop's own call
    #[arg(long)]
    restores: bool,
}

impl PushImages {
    /// Pushes until the end; returns the figures as data. A server that goes away is one; an answer that is not the right one is an error.
    ///
    /// # Errors
    /// The first wrong answer, or what the log's file has.
    pub(crate) fn run(&self) -> Result<Value, LoadError> {
        let log = self.server.open_log()?;
        let pushed = AtomicU64::new(0);
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let figures = clients::run(
            &Bounds::all(self.clients, self.clients as u64),
            |_| (),
            |(), number| {
                let pusher = Pusher {
                    client: Client::new(&self.server.address),
                    server: &self.server,
                    log: &log,
                    repository: format!("{}-{number}", self.repository),
                    seed: self.seed.wrapping_mul(1009).wrapping_add(number),
                    next: 0,
                    restores: self.restores,
                    pushed: Vec::new(),
                };
                pusher.push_until(until, self, &pushed)
            },
        )?;
        Ok(json!({ "images": pushed.into_inner(), "seconds": figures.elapsed.as_secs_f64() }))
    }
}

/// One client at work.
struct Pusher<'a> {
    client: Client,
    server: &'a Server,
    log: &'a AckLog,
    repository: String,
    seed: u64,
    /// Number of the next blob.
    next: u64,
    /// Whether what was deleted may be restored.
    restores: bool,
    /// Images and indexes that are not deleted.
    pushed: Vec<Image>,
}

/// An image, or an index of some, by its own tag.
struct Image {
    tag: String,
    digest: String,
    blobs: Vec<String>,
    /// What an index names.
    manifests: Vec<String>,
}

impl Pusher<'_> {
    fn push_until(mut self, until: Instant, bounds: &PushImages, pushed: &AtomicU64) -> Result<(), LoadError> {
        for image in 0..bounds.images {
            if Instant::now() >= until {
                break;
            }
            let done =
                if image % INDEX_EACH == INDEX_EACH - 1 { self.push_index(image) } else { self.push_image(image) };
            match if bounds.deletes { done.and_then(|()| self.delete_some(image)) } else { done } {
                Err(LoadError::Call(error)) if !error.is_answer() => break,
                done => done?,
            }
            pushed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn push_image(&mut self, image: u64) -> Result<(), LoadError> {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (image << 20));
        let (bytes, blobs) = self.push_content(&mut random)?;
        if random.u8(0..10) == 0 {
            self.leave_upload(random.u64(LARGE_BYTES))?;
        }
        if let Some(layer) = random.choice(&blobs).filter(|_| random.u8(0..4) == 0) {
            let other = format!("{}-mounts", self.repository);
            self.client.mount(&other, layer, &self.repository)?;
            self.write(&Fact::Blob { repository: other, digest: layer.clone() })?;
        }
        let own = format!("s{}-{image}", self.seed);
        for tag in [own.as_str(), "latest"] {
            self.tag(tag, MANIFEST_TYPE, &bytes)?;
        }
        self.pushed.push(Image { tag: own, digest: digest_of(&bytes), blobs, manifests: Vec::new() });
        Ok(())
    }

    /// Two images without tags, and an index that names them.
    fn push_index(&mut self, image: u64) -> Result<(), LoadError> {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (image << 20));
        let (mut children, mut manifests, mut all_blobs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let (bytes, blobs) = self.push_content(&mut random)?;
            let digest = digest_of(&bytes);
            self.client.put_manifest(&self.repository, &digest, &bytes)?;
            self.write(&Fact::Manifest { repository: self.repository.clone(), digest: digest.clone() })?;
            children.push(json!({ "mediaType": MANIFEST_TYPE, "digest": digest, "size": bytes.len() }));
            manifests.push(digest);
            all_blobs.extend(blobs);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": children });
        let (bytes, tag) = (index.to_string().into_bytes(), format!("s{}-{image}", self.seed));
        self.tag(&tag, INDEX_TYPE, &bytes)?;
        // Before the last one, to which `latest` points.
        let at = self.pushed.len().saturating_sub(1);
        self.pushed.insert(at, Image { tag, digest: digest_of(&bytes), blobs: all_blobs, manifests });
        Ok(())
    }

    /// Config and layers of an image; its manifest's bytes, and their digests.
    fn push_content(&mut self, random: &mut fastrand::Rng) -> Result<(Vec<u8>, Vec<String>), LoadError> {
        let config = self.push_blob(random.u64(1..=2048), random)?;
        let mut layers = Vec::new();
        for _ in 0..random.usize(1..=4) {
            let large = random.u8(0..8) == 0;
            let len = if large { random.u64(LARGE_BYTES) } else { random.u64(1..=SMALL_BYTES_MAX) };
            layers.push(self.push_blob(len, random)?);
        }
        let descriptor = |media_type: &str, blob: &(String, u64)| json!({ "mediaType": media_type, "digest": blob.0, "size": blob.1 });
        let layer = |blob| descriptor("application/vnd.oci.image.layer.v1.tar", blob);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let blobs = layers.into_iter().chain([config]).map(|(digest, _)| digest).collect();
        Ok((manifest.to_string().into_bytes(), blobs))
    }

    /// Deletes an image that `latest` does not point to, or a blob that no image names, or nothing.
    fn delete_some(&mut self, image: u64) -> Result<(), LoadError> {
        let mut random = fastrand::Rng::with_seed(!self.seed ^ (image << 20));
        if random.u8(0..6) == 0 {
            let (blob, _) = self.push_blob(random.u64(1..=SMALL_BYTES_MAX), &mut random)?;
            self.write(&Fact::TryDelete(self.referred(&blob)))?;
            self.client.delete_blob(&self.repository, &blob)?;
            self.write(&Fact::Delete(self.referred(&blob)))?;
        }
        if self.pushed.len() < 2 || random.bool() {
            return Ok(());
        }
        // The last one stays the last: `latest` points to it.
        let image = self.pushed.remove(random.usize(0..self.pushed.len() - 1));
        let Image { tag, digest, blobs, manifests } = &image;
        for released in blobs.iter().chain(manifests).chain([digest]) {
            self.write(&Fact::Release(self.referred(released)))?;
        }
        // By digest its tag goes, too; by tag, the manifest goes at the end of its window.
        let deleted = if random.bool() { vec![digest, tag] } else { vec![tag] };
        for reference in &deleted {
            self.write(&Fact::TryDelete(self.referred(reference)))?;
        }
        self.client.delete_manifest(&self.repository, deleted[0])?;
        for reference in &deleted {
            self.write(&Fact::Delete(self.referred(reference)))?;
        }
        if self.restores && random.u8(0..3) == 0 { self.restore(image) } else { Ok(()) }
    }

    /// Brings back what was deleted a moment ago, with its tag, unless its window is over.
    fn restore(&mut self, image: Image) -> Result<(), LoadError> {
        let Image { tag, digest, blobs, manifests } = &image;
        for reference in [digest, tag] {
            self.write(&Fact::TryRestore(self.referred(reference)))?;
        }
        let repository = || self.repository.clone();
        let tagged = Tagged { repository: repository(), tag: tag.clone(), digest: digest.clone() };
        self.write(&Fact::TryTag(tagged.clone()))?;
        if !self.client.restore(&self.repository, tag, digest)? {
            for reference in [digest, tag] {
                self.write(&Fact::Delete(self.referred(reference)))?;
            }
            return Ok(());
        }
        self.write(&Fact::Tag(tagged))?;
        for digest in manifests.iter().chain([digest]) {
            self.write(&Fact::Manifest { repository: repository(), digest: digest.clone() })?;
        }
        for digest in blobs {
            self.write(&Fact::Blob { repository: repository(), digest: digest.clone() })?;
        }
        let at = self.pushed.len().saturating_sub(1);
        self.pushed.insert(at, image);
        Ok(())
    }

    fn referred(&self, reference: &str) -> Referred {
        Referred { repository: self.repository.clone(), reference: reference.to_owned() }
    }

    fn tag(&mut self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<(), LoadError> {
        let digest = digest_of(bytes);
        let tagged = Tagged { repository: self.repository.clone(), tag: tag.to_owned(), digest: digest.clone() };
        self.write(&Fact::TryTag(tagged.clone()))?;
        self.client.put_typed(&self.repository, tag, media_type, bytes)?;
        self.write(&Fact::Tag(tagged))?;
        self.write(&Fact::Manifest { repository: self.repository.clone(), digest })
    }

    fn push_blob(&mut self, len: u64, random: &mut fastrand::Rng) -> Result<(String, u64), LoadError> {
        let (content, mut location) = self.start(len)?;
        let digest = content.digest();
        let mut rest = content;
        if len > SMALL_BYTES_MAX {
            // Real clients send one PATCH or several, with and without a range; all forms have to survive.
            let chunk = random.u64(200_000..2_000_000);
            let ranged = random.bool();
            while rest.remaining() > 0 {
                let begin = rest.len() - rest.remaining();
                let end = begin.saturating_add(chunk).min(rest.len());
                let range = ranged.then(|| format!("{begin}-{}", end - 1));
                location = self.patch(location, rest.until(end), &rest, range.as_deref())?;
                rest = rest.from(end);
            }
        }
        self.client.finish_upload(&location, rest, &digest)?;
        self.write(&Fact::Blob { repository: self.repository.clone(), digest: digest.clone() })?;
        self.write(&Fact::Ended { location })?;
        Ok((digest, len))
    }

    /// Opens an upload, sends half of it, and forgets it.
    fn leave_upload(&mut self, len: u64) -> Result<(), LoadError> {
        let (content, location) = self.start(len)?;
        self.patch(location, content.until(len / 2), &content, None).map(drop)
    }

    fn start(&mut self, len: u64) -> Result<(Content, String), LoadError> {
        let content = Content::new(self.seed, self.next, len);
        self.next += 1;
        let location = self.client.start_upload(&self.repository)?;
        self.write(&self.upload(&location, &content))?;
        Ok((content, location))
    }

    fn patch(
        &mut self,
        location: String,
        part: Content,
        whole: &Content,
        range: Option<&str>,
    ) -> Result<String, LoadError> {
        let moved = self.client.patch(&location, part, range)?;
        if moved != location {
            self.write(&self.upload(&moved, whole))?;
            self.write(&Fact::Ended { location })?;
        }
        Ok(moved)
    }

    fn upload(&self, location: &str, content: &Content) -> Fact {
        let index = self.next - 1;
        let upload = Upload { repository: self.repository.clone(), seed: self.seed, index, len: content.len() };
        Fact::Upload { location: location.to_owned(), upload }
    }

    fn write(&self, fact: &Fact) -> Result<(), LoadError> {
        self.server.log(self.log, fact)
    }
}
