//! Why a call was not done, in the client's words.

use crate::{
    digest::{Digest, DigestError},
    name::{NameError, RepositoryName},
    policy::PolicyName,
    state::{
        quota::QuotaExceeded,
        request::{CapExceeded, ImmutableTag, Refusal},
    },
    store::StoreError,
};

/// Why a call was not done. The texts are for the client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The repository has never had content.
    #[error("repository \"{0}\" is not known to this registry")]
    NameUnknown(RepositoryName),
    /// No repository belongs to the organisation.
    #[error("organisation \"{0}\" is not known to this registry")]
    OrganisationUnknown(String),
    /// Nobody has the content, and no record says that somebody had.
    #[error("{0} is not known to this registry, and was not dropped by it in the last 90 days")]
    DigestUnknown(Digest),
    /// A question whose answer takes more than may be spent on it.
    #[error("{what} takes more than {max} steps to work out, the most that this registry spends on it; ask for less")]
    TooMuch {
        /// The question.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A name or tag out of its grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest out of its grammar.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It does not fit into what its repository or organisation may store.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// A tag may not be moved.
    #[error(transparent)]
    ImmutableTag(#[from] ImmutableTag),
    /// It does not fit under the cap of a policy.
    #[error(transparent)]
    CapExceeded(#[from] CapExceeded),
    /// No policy has that name.
    #[error("policy \"{0}\" is not known to this registry")]
    PolicyUnknown(PolicyName),
    /// A policy cannot be as it was asked for, because of what there is.
    #[error("{0}")]
    PolicyConflict(String),
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
    /// The repository had this manifest, and can have it back only by a push.
    #[error("manifest {digest} was dropped from repository \"{repository}\" and cannot be restored; push it again")]
    Dropped {
        /// Where it was.
        repository: RepositoryName,
        /// What was dropped.
        digest: Digest,
        /// When, in Unix milliseconds.
        time_ms: u64,
    },
    /// The manifest names what the repository does not have.
    #[error(
        "the manifest names content that repository \"{repository}\" does not have: {}; push that first, \
         or let the operator of the registry allow its absence (setting registry.sparse)",
        list(.missing)
    )]
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
    /// Too many requests wait; nothing was changed.
    #[error("{0}")]
    Overloaded(String),
    /// Writes are refused: the store is poisoned or closing.
    #[error("the registry does not take writes now: {0}")]
    Unavailable(String),
    /// Stored bytes are not what was pushed. Never "not found".
    #[error("stored content is damaged: {0}")]
    Corrupt(String),
    /// A read that must not wait would have to go to the disk.
    #[error("that is not in memory; read it from the disk")]
    OutOfReach,
    /// Anything else that went wrong below.
    #[error("the registry failed: {0}")]
    Failed(String),
}

/// Most missing digests that a message names, for people; [`RegistryError::ManifestBlobUnknown`] has all.
const MISSING_SHOWN: usize = 100;

fn list(digests: &[Digest]) -> String {
    let shown = digests.iter().take(MISSING_SHOWN).map(Digest::to_string).collect::<Vec<_>>().join(", ");
    match digests.len().saturating_sub(MISSING_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Full(_) => Self::Full(text),
            StoreError::Overloaded => Self::Overloaded(text),
            StoreError::Unavailable(_) | StoreError::Stopped(_) => Self::Unavailable(text),
            StoreError::DigestMismatch { expected, found } => Self::DigestMismatch { expected, found },
            StoreError::OutOfReach => Self::OutOfReach,
            StoreError::Corrupt(_) => Self::Corrupt(text),
            StoreError::Refused(Refusal::QuotaExceeded(exceeded)) => exceeded.into(),
            StoreError::Refused(Refusal::PolicyUnknown(name)) => Self::PolicyUnknown(name),
            StoreError::Refused(
                Refusal::PolicyOfSettings(_) | Refusal::PatternTaken { .. } | Refusal::TooManyPolicies,
            ) => Self::PolicyConflict(text),
            StoreError::Refused(_) | StoreError::Unreadable(_) | StoreError::Failed(_) => Self::Failed(text),
        }
    }
}
