//! What OCI means: repositories with blobs, uploads, manifests and tags, over the store.
//!
//! All calls are synchronous and may touch the disk. Status codes are not chosen here: `http` has the table.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    digest::{Digest, DigestError},
    name::{NameError, RepositoryName, Tag},
};

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
    /// How long content that no manifest names is kept after its last upload.
    pub grace: Duration,
    /// How long a manifest that nothing reaches any more can be restored.
    pub retention_window: Duration,
}

/// Why a call was not done. The texts are for the client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The repository has never had content.
    #[error("repository \"{0}\" is not known to this registry")]
    NameUnknown(RepositoryName),
    /// A name or tag out of its grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest out of its grammar.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The bytes that came have another digest.
    #[error("the content has digest {found}, not {expected}; nothing was stored under it")]
    DigestMismatch {
        /// What the client announced.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },
    /// The repository does not have this blob.
    #[error("blob {digest} is not known to repository \"{repository}\"")]
    BlobUnknown {
        /// Where it was asked for.
        repository: RepositoryName,
        /// What was asked for.
        digest: Digest,
    },
    /// A manifest of the repository still names the blob.
    #[error("blob {digest} is named by manifest {manifest} in this repository; delete that first")]
    BlobNamed {
        /// The blob.
        digest: Digest,
        /// One of the manifests that name it.
        manifest: Digest,
    },
    /// The repository does not have this manifest or tag.
    #[error("manifest {reference} is not known to repository \"{repository}\"")]
    ManifestUnknown {
        /// Where it was asked for.
        repository: RepositoryName,
        /// Tag or digest.
        reference: String,
    },
    /// The manifest names what the repository does not have.
    #[error("the manifest names content that repository \"{repository}\" does not have: {}", list(.missing))]
    ManifestBlobUnknown {
        /// Where it was pushed.
        repository: RepositoryName,
        /// What is missing; all of it.
        missing: Vec<Digest>,
    },
    /// The manifest is not acceptable.
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    /// The manifest is longer than the limit.
    #[error("the manifest is larger than {max} bytes, the most that this registry accepts")]
    ManifestTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// No such upload: never started, finished, cancelled or expired.
    #[error("upload {0} is not known: it was finished, cancelled or has expired; start a new one")]
    UploadUnknown(String),
    /// Another request is writing to this upload.
    #[error("upload {0} is being written to by another request; wait until that ends")]
    UploadBusy(String),
    /// A chunk does not begin where the upload stands.
    #[error("the chunk begins at byte {begins}, the upload has {offset} bytes; continue there")]
    UploadOutOfOrder {
        /// Where the chunk begins.
        begins: u64,
        /// Bytes that the upload has.
        offset: u64,
    },
    /// The limit of open uploads is reached.
    #[error("{max} uploads are open, the most that this registry allows; try again soon")]
    TooManyUploads {
        /// The limit.
        max: usize,
    },
    /// The disk is full, or only its reserve is left.
    #[error("the registry's disk is full: {0}")]
    Full(String),
    /// Writes are refused: the store is poisoned, closing or overloaded.
    #[error("the registry does not take writes now: {0}")]
    Unavailable(String),
    /// Stored bytes are not what was pushed. Never "not found".
    #[error("stored content is damaged: {0}")]
    Corrupt(String),
    /// Anything else that went wrong below.
    #[error("the registry failed: {0}")]
    Failed(String),
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
}

/// A blob that can be read, whole or in parts, by many threads.
#[derive(Debug, Clone)]
pub struct Blob {}

impl Blob {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        todo!()
    }
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Reads `len` bytes from `offset`, checked. The range must lie inside the blob.
    ///
    /// # Errors
    /// [`RegistryError::Corrupt`] when a checksum does not hold; nothing of the damaged block is returned.
    pub fn read(&self, _offset: u64, _len: usize) -> Result<Bytes, RegistryError> {
        todo!()
    }
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

/// The exclusive right to write to one upload, taken by one request. Dropped, it gives the upload back as it is.
#[derive(Debug)]
pub struct UploadLease {}

impl UploadLease {
    /// Bytes that the upload has.
    pub fn offset(&self) -> u64 {
        todo!()
    }
    /// Appends bytes.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<(), RegistryError> {
        todo!()
    }
    /// Ends the request without finishing the upload; returns the bytes that it has. For large uploads they are durable.
    pub fn keep(self) -> Result<u64, RegistryError> {
        todo!()
    }
    /// Ends the upload: its content becomes the blob `digest` of the repository, durably.
    ///
    /// # Errors
    /// [`RegistryError::DigestMismatch`]: the upload is gone, as the OCI specification asks clients to start again.
    pub fn finish(self, _digest: Digest) -> Result<(), RegistryError> {
        todo!()
    }
}

/// The registry.
#[derive(Debug)]
pub struct Registry {}

impl Registry {
    /// The limits.
    pub fn options(&self) -> &RegistryOptions {
        todo!()
    }
    /// Opens a blob of a repository.
    pub fn blob(&self, _repository: &RepositoryName, _digest: &Digest) -> Result<Blob, RegistryError> {
        todo!()
    }
    /// Ends the repository's right to serve a blob.
    pub fn delete_blob(&self, _repository: &RepositoryName, _digest: &Digest) -> Result<(), RegistryError> {
        todo!()
    }
    /// Gives `repository` the right to serve a blob that `from` has (or, when `None`, that any repository which the
    /// caller may read has). `false` when there is none: the client has to upload.
    pub fn mount(
        &self,
        _repository: &RepositoryName,
        _digest: &Digest,
        _from: Option<&RepositoryName>,
    ) -> Result<bool, RegistryError> {
        todo!()
    }
    /// Starts an upload; returns its id (of `[0-9a-f-]`).
    pub fn start_upload(&self, _repository: &RepositoryName) -> Result<String, RegistryError> {
        todo!()
    }
    /// Bytes that an upload has.
    pub fn upload_offset(&self, _repository: &RepositoryName, _id: &str) -> Result<u64, RegistryError> {
        todo!()
    }
    /// Takes an upload for writing.
    pub fn lease_upload(&self, _repository: &RepositoryName, _id: &str) -> Result<UploadLease, RegistryError> {
        todo!()
    }
    /// Ends an upload and frees what it holds.
    pub fn cancel_upload(&self, _repository: &RepositoryName, _id: &str) -> Result<(), RegistryError> {
        todo!()
    }
    /// Stores a manifest, and points `tags` at it. All that it names must be there.
    ///
    /// `media_type` is the request's Content-Type, if it had one; `expected` the digest in the request's path.
    pub fn put_manifest(
        &self,
        _repository: &RepositoryName,
        _expected: Option<Digest>,
        _tags: &[Tag],
        _media_type: Option<&str>,
        _bytes: Bytes,
    ) -> Result<PushedManifest, RegistryError> {
        todo!()
    }
    /// Reads a manifest.
    pub fn manifest(&self, _repository: &RepositoryName, _reference: &Reference) -> Result<Manifest, RegistryError> {
        todo!()
    }
    /// A manifest's digest, type and length, without its bytes.
    pub fn manifest_head(&self, _repository: &RepositoryName, _reference: &Reference) -> Result<Manifest, RegistryError> {
        todo!()
    }
    /// Deletes a tag, or a manifest with all tags that point to it.
    pub fn delete_manifest(&self, _repository: &RepositoryName, _reference: &Reference) -> Result<(), RegistryError> {
        todo!()
    }
    /// The first `limit` tags after `after`, in byte order.
    pub fn tags(&self, _repository: &RepositoryName, _after: Option<&str>, _limit: usize) -> Result<Page, RegistryError> {
        todo!()
    }
    /// The first `limit` repositories after `after`, in byte order.
    pub fn repositories(&self, _after: Option<&str>, _limit: usize) -> Result<Page, RegistryError> {
        todo!()
    }
    /// Forgets uploads that nobody has written to for longer than `idle`.
    pub fn expire_uploads(&self, _idle: Duration) -> Result<usize, RegistryError> {
        todo!()
    }
}

/// A registry that many threads use.
pub type SharedRegistry = Arc<Registry>;
