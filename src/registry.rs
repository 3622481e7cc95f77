//! What OCI means: repositories with blobs, uploads, manifests and tags, over the store.
//!
//! All calls are synchronous and may touch the disk. Status codes are not chosen here: `http` has the table.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    digest::{Algorithm, Digest},
    disk::Reach,
    index::{
        View, prefix_end,
        schema::{self, Key, RepositoryRow, RowValue, key},
    },
    journal::operation::{ManifestContent, RepositoryId},
    name::{RepositoryName, Tag},
    registry::{manifest::ManifestBounds, policies::Tried, pulls::Pulls, uploads::Uploads},
    state::{
        decide::find_repository,
        request::{Content, Outcome, PushRequest, Refusal, Request},
    },
    store::{Store, StoreError},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

mod caps;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod history;
mod hurt;
mod images;
mod inventory;
mod json;
mod keep;
mod keepers;
pub mod manifest;
mod platform;
mod policies;
mod pulls;
mod quotas;
mod reads;
mod referrers;
mod samples;
#[cfg(test)]
mod tests;
mod top;
mod uploads;
mod usage;
mod what_if;
mod whereabouts;

pub use crate::state::request::Sparse;
pub use error::RegistryError;
pub use history::{HistoryEntry, HistoryPlace};
pub use hurt::hurt;
pub(crate) use images::{held_reach, reach};
pub use inventory::{ManifestInfo, ManifestState, ManifestsWanted};
pub use keepers::{Chain, Keeper, Keepers, Link, Sought, role_name};
pub use policies::{Effect, Explanation, PolicyInfo, PolicySet, SetPolicy, Waiting};
pub use pulls::PULL_PRECISION_MS;
pub use quotas::Quota;
pub use reads::Reads;
pub use referrers::{ReferrersPage, ReferrersWanted};
pub use samples::Sample;
pub use top::{TOP_MAX, Top, TopManifest, TopScope};
pub use uploads::UploadLease;
pub use usage::{OrganisationUsage, RepositoryUsage};
pub use what_if::{Deletion, Gain, Going, GoingBy, OverHalf, PolicyPlan, Stay, WhatIf};
pub use whereabouts::{Linked, Naming, Owning, Whereabouts, WhereaboutsWanted};

/// Most repositories that a mount without a source looks at.
const MOUNT_SOURCES_MAX: usize = 100;

/// What a client names a manifest by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A tag.
    Tag(Tag),
    /// The digest of its bytes.
    Digest(Digest),
}

/// Limits of the registry. Bounds are inclusive.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Largest manifest in bytes.
    pub manifest_bytes_max: usize,
    /// Most descriptors that one manifest may name.
    pub references_max: usize,
    /// Deepest nesting of a manifest's JSON.
    pub json_depth_max: usize,
    /// Most uploads that may be open at once.
    pub uploads_max: usize,
    /// What a manifest may name that its repository does not have.
    pub sparse: Sparse,
}

/// A manifest as it was pushed.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Digest of its bytes.
    pub digest: Digest,
    /// The Content-Type that it was pushed with.
    pub media_type: String,
    /// Length in bytes.
    pub len: u64,
    /// Its bytes; empty where only the head was asked for.
    pub bytes: Bytes,
}

/// What a manifest push did.
#[derive(Debug, Clone)]
pub struct PushedManifest {
    /// Digest of its bytes.
    pub digest: Digest,
    /// The subject that it names.
    pub subject: Option<Digest>,
}

/// A page of names in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The names.
    pub names: Vec<String>,
    /// Whether more follow.
    pub more: bool,
}

/// A page of a list that an operator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, P = String> {
    /// The entries.
    pub items: Vec<T>,
    /// The place behind which the next page begins; `None` at the end. A page can be short, or empty, and have one.
    pub next: Option<P>,
}

/// The registry. Many threads use it at once.
#[derive(Debug)]
pub struct Registry {
    store: Arc<Store>,
    options: RegistryOptions,
    uploads: Arc<Uploads>,
    pulls: Pulls,
    /// Policies whose plan somebody has seen.
    tried: Mutex<Tried>,
    /// How often clients have asked for something.
    asked: AtomicU64,
}

impl Registry {
    /// A registry over an open store, with the upload sessions that an earlier run has left.
    ///
    /// # Errors
    /// When those cannot be read.
    pub fn new(store: Arc<Store>, options: RegistryOptions) -> Result<Self, RegistryError> {
        let uploads = Arc::new(Uploads::load(Arc::clone(&store), options.uploads_max)?);
        Ok(Self { store, options, uploads, pulls: Pulls::default(), tried: Mutex::default(), asked: AtomicU64::new(0) })
    }

    /// The limits.
    pub fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// Notes that a client asks for something.
    pub fn note_asked(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// How often clients have asked for something so far. While it grows, work in the background gives way.
    pub fn times_asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The store below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Ends the repository's right to serve a blob.
    ///
    /// # Errors
    /// [`RegistryError::BlobNamed`] while a present manifest of the repository names it.
    pub fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), RegistryError> {
        let request = Request::Unlink { repository: repository.clone(), digest: *digest };
        self.store.commit(request).map_err(|error| refused(error, repository, &digest.to_string()))?;
        Ok(())
    }

    /// Gives `repository` the right to serve a blob that `from` has or, when `None`, that any repository has. Only those count
    /// that the caller `may_read`: a digest that somebody knows by guess gives nothing. `false` when there is none, or it is
    /// not among the first `MOUNT_SOURCES_MAX` that have the blob: the client has to upload.
    ///
    /// # Errors
    /// When the store fails or takes no writes.
    pub fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
        may_read: impl Fn(&RepositoryName) -> bool,
    ) -> Result<bool, RegistryError> {
        let from = match from {
            Some(from) => Some(from.clone()).filter(may_read),
            None => self.linker(digest, may_read)?,
        };
        let Some(from) = from else { return Ok(false) };
        let grace_ms = self.store.options().grace_ms;
        let request = Request::Mount { repository: repository.clone(), digest: *digest, from, grace_ms };
        match self.store.commit(request) {
            Ok(_) => Ok(true),
            Err(StoreError::Refused(Refusal::BlobUnknown(_))) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A repository that has the blob and meets `may_read`.
    fn linker(
        &self,
        digest: &Digest,
        may_read: impl Fn(&RepositoryName) -> bool,
    ) -> Result<Option<RepositoryName>, RegistryError> {
        let view = self.store.snapshot();
        let prefix = key::links(digest).bytes();
        for (name, _) in view.scan(&prefix, &prefix_end(&prefix), MOUNT_SOURCES_MAX).map_err(StoreError::from)? {
            let id = name[prefix.len()..].try_into().map_err(|_| missing(digest))?;
            let row: Option<RepositoryRow> = row(&*view, key::repository(u32::from_be_bytes(id)))?;
            if let Some(row) = row.filter(|row| may_read(&row.name)) {
                return Ok(Some(row.name));
            }
        }
        Ok(None)
    }

    /// Starts an upload; returns its id: 32 hexadecimal digits. It hashes with `algorithm` while bytes come; a final digest in
    /// another one works, and reads them again. After a restart it hashes with SHA-256.
    ///
    /// # Errors
    /// [`RegistryError::TooManyUploads`].
    pub fn start_upload(&self, repository: &RepositoryName, algorithm: Algorithm) -> Result<String, RegistryError> {
        self.uploads.start(repository, algorithm)
    }

    /// Bytes that an upload has; while a request writes to it, those that it had before.
    ///
    /// # Errors
    /// [`RegistryError::UploadUnknown`], also for an upload of another repository; so with all that follow.
    pub fn upload_offset(&self, repository: &RepositoryName, id: &str) -> Result<u64, RegistryError> {
        self.uploads.offset(repository, id)
    }

    /// Takes an upload for writing.
    ///
    /// # Errors
    /// [`RegistryError::UploadBusy`] while another request has it.
    pub fn lease_upload(&self, repository: &RepositoryName, id: &str) -> Result<UploadLease, RegistryError> {
        self.uploads.lease(repository, id)
    }

    /// Ends an upload and frees what it holds.
    ///
    /// # Errors
    /// [`RegistryError::UploadBusy`] while a request writes to it.
    pub fn cancel_upload(&self, repository: &RepositoryName, id: &str) -> Result<(), RegistryError> {
        self.uploads.cancel(repository, id)
    }

    /// The repositories in which uploads are open.
    pub fn uploading(&self) -> std::collections::HashSet<RepositoryName> {
        self.uploads.repositories()
    }

    /// Ends uploads that nobody has written to for longer than `idle`; how many.
    ///
    /// # Errors
    /// When the store takes no writes.
    pub fn expire_uploads(&self, idle: Duration) -> Result<usize, RegistryError> {
        self.uploads.expire(idle)
    }

    /// Stores a manifest, and points `tags` at it. All that it names must be there, but for what
    /// [`RegistryOptions::sparse`] lets be absent.
    ///
    /// `expected` is the digest in the request's path, `media_type` its Content-Type, if it had them.
    ///
    /// # Errors
    /// When the manifest is not acceptable, names what is not there, or is there under another type.
    pub fn put_manifest(
        &self,
        repository: &RepositoryName,
        expected: Option<Digest>,
        tags: &[Tag],
        media_type: Option<&str>,
        bytes: &Bytes,
    ) -> Result<PushedManifest, RegistryError> {
        let (digest, manifest) = self.read_manifest(expected, media_type, bytes)?;
        let subject = manifest.subject;
        let push = |content| self.push_request(content, repository, manifest.clone(), tags);
        loop {
            match self.store.commit_manifest(digest, bytes.clone(), push) {
                Err(StoreError::Refused(Refusal::CapExceeded(exceeded)))
                    if !exceeded.is_too_large && self.make_room(&exceeded.policy, None)? => {}
                Err(error) => return Err(refused(error, repository, &digest.to_string())),
                Ok(_) => break,
            }
        }
        self.keep_under_cap(repository, &digest);
        Ok(PushedManifest { digest, subject })
    }

    /// Begins what [`Registry::put_manifest`] does, and waits for nothing: `ended` is told what came of it by another thread, which must
    /// not be held up.
    ///
    /// # Errors
    /// What is refused for the manifest's sake. [`RegistryError::OutOfReach`], here or told to `ended`, when it is to be done by
    /// [`Registry::put_manifest`]: nothing was changed then.
    pub fn begin_manifest(
        &self,
        repository: &RepositoryName,
        expected: Option<Digest>,
        tags: &[Tag],
        media_type: Option<&str>,
        bytes: &Bytes,
        ended: impl FnOnce(Result<PushedManifest, RegistryError>) + Send + 'static,
    ) -> Result<(), RegistryError> {
        if self.may_have_cap(&*self.store.at_hand(), repository).unwrap_or(true) {
            return Err(RegistryError::OutOfReach);
        }
        let (digest, manifest) = self.read_manifest(expected, media_type, bytes)?;
        let pushed = PushedManifest { digest, subject: manifest.subject };
        let name = repository.clone();
        let reply = move |result| {
            ended(match result {
                // There is one since.
                Err(StoreError::Refused(Refusal::CapExceeded(_))) => Err(RegistryError::OutOfReach),
                Err(error) => Err(refused(error, &name, &digest.to_string())),
                Ok(_) => Ok(pushed),
            });
        };
        let push = |content| self.push_request(content, repository, manifest, tags);
        Ok(self.store.submit_manifest(Reach::Memory, digest, bytes.clone(), push, Box::new(reply))?)
    }

    /// What a manifest's bytes say, and their digest.
    fn read_manifest(
        &self,
        expected: Option<Digest>,
        media_type: Option<&str>,
        bytes: &Bytes,
    ) -> Result<(Digest, ManifestContent), RegistryError> {
        let options = &self.options;
        if bytes.len() > options.manifest_bytes_max {
            return Err(RegistryError::ManifestTooLarge { max: options.manifest_bytes_max });
        }
        let digest = Digest::of(expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()), bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(RegistryError::DigestMismatch { expected, found: digest });
        }
        let bounds = ManifestBounds { references_max: options.references_max, depth_max: options.json_depth_max };
        let manifest = manifest::parse(bytes, media_type, bounds)
            .map_err(|error| RegistryError::ManifestInvalid(error.to_string()))?;
        Ok((digest, manifest))
    }

    fn push_request(
        &self,
        content: Content,
        repository: &RepositoryName,
        manifest: ManifestContent,
        tags: &[Tag],
    ) -> Request {
        Request::Push(Box::new(PushRequest {
            repository: repository.clone(),
            content,
            manifest,
            tags: tags.to_vec(),
            sparse: self.options.sparse,
            window_ms: self.window_ms(),
        }))
    }

    /// Deletes a tag, or a manifest with all tags that point to it. A manifest with very many tags loses them in several
    /// steps; after a crash in between, the rest is still there and the call can be made again.
    ///
    /// # Errors
    /// When it is not known.
    pub fn delete_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<(), RegistryError> {
        let (name, window_ms) = (repository.clone(), self.window_ms());
        let (mut request, shown) = match reference {
            Reference::Tag(tag) => (Request::Untag { repository: name, tag: tag.clone(), window_ms }, tag.to_string()),
            Reference::Digest(digest) => {
                (Request::Delete { repository: name, digest: *digest, after: None, window_ms }, digest.to_string())
            }
        };
        loop {
            match self.store.commit(request.clone()) {
                Ok(Outcome::More { after: last }) => {
                    if let Request::Delete { after, .. } = &mut request {
                        *after = last;
                    }
                }
                Ok(_) => return Ok(()),
                Err(error) => return Err(refused(error, repository, &shown)),
            }
        }
    }

    /// Reads of what clients ask for, as far as `reach`: where that is memory, they end in [`RegistryError::OutOfReach`] when
    /// they would have to wait, and have changed nothing.
    pub fn reads(&self, reach: Reach) -> Reads<'_> {
        Reads { registry: self, reach }
    }

    /// Reads as a server does: from memory, and what is not there from the disk.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn read<T>(&self, read: impl Fn(Reads<'_>) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        match read(self.reads(Reach::Memory)) {
            Err(RegistryError::OutOfReach) => read(self.reads(Reach::Disk)),
            read => read,
        }
    }

    /// Puts a manifest as a server does: begins it, and does here what is out of reach.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn push_manifest(
        &self,
        repository: &RepositoryName,
        expected: Option<Digest>,
        tags: &[Tag],
        media_type: Option<&str>,
        bytes: &Bytes,
    ) -> Result<PushedManifest, RegistryError> {
        let (tell, told) = crate::sync::mpsc::sync_channel(1);
        let ended = move |pushed| drop(tell.send(pushed));
        let begun = self.begin_manifest(repository, expected, tags, media_type, bytes, ended);
        let pushed = begun.and_then(|()| told.recv().unwrap_or(Err(RegistryError::OutOfReach)));
        match pushed {
            Err(RegistryError::OutOfReach) => self.put_manifest(repository, expected, tags, media_type, bytes),
            pushed => pushed,
        }
    }

    fn window_ms(&self) -> u64 {
        self.store.options().window_ms
    }
}

/// A refusal in the words of the client that caused it.
fn refused(error: StoreError, repository: &RepositoryName, reference: &str) -> RegistryError {
    let StoreError::Refused(refusal) = error else { return error.into() };
    let (repository, reference) = (repository.clone(), reference.to_owned());
    match refusal {
        Refusal::RepositoryUnknown(name) => RegistryError::NameUnknown(name),
        Refusal::BlobUnknown(digest) => RegistryError::BlobUnknown { repository, digest },
        Refusal::BlobNamed { digest, manifest } => RegistryError::BlobNamed { digest, manifest },
        Refusal::ManifestUnknown(_) | Refusal::TagUnknown(_) => {
            RegistryError::ManifestUnknown { repository, reference }
        }
        Refusal::Dropped { digest, time_ms } => RegistryError::Dropped { repository, digest, time_ms },
        Refusal::QuotaExceeded(exceeded) => exceeded.into(),
        Refusal::Immutable(tag) => (*tag).into(),
        Refusal::CapExceeded(exceeded) => exceeded.into(),
        refusal @ (Refusal::PolicyUnknown(_)
        | Refusal::PolicyOfSettings(_)
        | Refusal::PatternTaken { .. }
        | Refusal::TooManyPolicies) => StoreError::Refused(refusal).into(),
        Refusal::NotDue => RegistryError::Failed(refusal.to_string()),
        Refusal::ReferencesMissing(missing) => RegistryError::ManifestBlobUnknown { repository, missing },
        Refusal::SizeDisagrees { .. } => RegistryError::ManifestInvalid(format!("{refusal}; push the right size")),
        Refusal::TypeDiffers { .. } => {
            RegistryError::ManifestInvalid(format!("{refusal}; push it with that Content-Type"))
        }
        Refusal::Schema(error) => StoreError::from(error).into(),
    }
}

fn repository_id(view: &dyn View, name: &RepositoryName) -> Result<Option<RepositoryId>, RegistryError> {
    Ok(find_repository(view, name).map_err(StoreError::from)?)
}

fn row<R: RowValue>(view: &dyn View, key: Key) -> Result<Option<R>, RegistryError> {
    Ok(schema::get(view, key).map_err(StoreError::from)?)
}

/// A link or manifest whose bytes no segment has: damage, not absence.
fn missing(digest: &Digest) -> RegistryError {
    RegistryError::Corrupt(format!("{digest} has no place in any segment; push it again"))
}
