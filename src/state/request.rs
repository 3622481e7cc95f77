//! What callers ask the state for, and what they are told.

use crate::{
    digest::Digest,
    index::schema::SchemaError,
    journal::operation::{LocalRecord, ManifestContent, ManifestId, RepositoryId, Role, SessionId},
    location::{Location, RecordKind, SegmentNumber},
    name::{Owner, RepositoryName, Tag},
    policy::{POLICIES_MAX, Policy, PolicyName, RepositoryPattern},
    state::quota::QuotaExceeded,
};

/// Most tags that one operation removes; more take further operations.
pub const TAGS_PER_STEP: usize = 1_000;
/// Most entries of history, records of drops, or windows in one operation.
pub const DROPS_PER_STEP: usize = 1_000;
/// How often the grace of a blob that no manifest names can be had, counted from its last upload.
pub const GRACES_MAX: u64 = 7;

/// Content that was written to a segment and waits to be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Blob or manifest.
    pub kind: RecordKind,
    /// Whether the segment holds this record only.
    pub single: bool,
    /// Where the record begins.
    pub location: Location,
    /// Length of the record in bytes.
    pub record_len: u64,
}

impl Placement {
    /// The journal's record of it.
    pub fn record(&self, digest: Digest, len: u64) -> LocalRecord {
        let Self { kind, single, location, record_len } = *self;
        LocalRecord::Placed { digest, kind, single, location, len, record_len }
    }
}

/// Content that a request brings or relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Their length.
    pub len: u64,
    /// Where they were written; `None` where the store had them already when the caller looked.
    pub placement: Option<Placement>,
    /// Whether the stored copy, if there is one, is known to be damaged and is to be replaced.
    pub replaces_damaged: bool,
}

/// A change that a caller asks for. Durations become times when the request is decided.
#[derive(Debug, Clone)]
pub enum Request {
    /// Link an uploaded blob.
    Upload {
        /// Where.
        repository: RepositoryName,
        /// What.
        content: Content,
        /// The upload session that ends with it, if it was marked.
        session: Option<SessionId>,
        /// What the upload holds of quotas, in bytes.
        held_bytes: u64,
        /// How long it is kept without a manifest, in milliseconds.
        grace_ms: u64,
    },
    /// Link a blob that another repository has.
    Mount {
        /// Where.
        repository: RepositoryName,
        /// What.
        digest: Digest,
        /// A repository that has it and that the caller may read.
        from: RepositoryName,
        /// How long it is kept without a manifest, in milliseconds.
        grace_ms: u64,
    },
    /// Remove a link.
    Unlink {
        /// Where.
        repository: RepositoryName,
        /// What.
        digest: Digest,
    },
    /// Store a manifest and point tags at it.
    Push(Box<PushRequest>),
    /// Delete a manifest and its tags.
    Delete {
        /// Where.
        repository: RepositoryName,
        /// What.
        digest: Digest,
        /// The tag that the step before ended at. Tags are looked for behind it first: the index steps over removed rows one
        /// by one, so that looking from the start each time would cost the square of their number.
        after: Option<Tag>,
        /// How long it can be restored, in milliseconds.
        window_ms: u64,
    },
    /// Remove a tag.
    Untag {
        /// Where.
        repository: RepositoryName,
        /// Which.
        tag: Tag,
        /// How long what it pointed to can be restored, in milliseconds.
        window_ms: u64,
    },
    /// Make a manifest that was deleted, or lost what reached it, present again.
    Restore {
        /// Where.
        repository: RepositoryName,
        /// What.
        digest: Digest,
        /// The tag that shall point to it; without one it lives by itself.
        tag: Option<Tag>,
        /// How long what the tag pointed to before can be restored, in milliseconds.
        window_ms: u64,
    },
    /// End the windows of held manifests.
    EndWindows {
        /// Where.
        repository: RepositoryId,
        /// Which; at most [`DROPS_PER_STEP`]. Those that live are left alone.
        digests: Vec<Digest>,
    },
    /// A client is to be told that a blob is there: keep it for as long as that is worth.
    Renew {
        /// Where.
        repository: RepositoryName,
        /// What.
        digest: Digest,
        /// How long content that no manifest names is kept, in milliseconds.
        grace_ms: u64,
    },
    /// Manifests were pulled. Those that are gone since are left out, and so are those that are known to be pulled in that
    /// hour.
    Pulled {
        /// Where.
        repository: RepositoryId,
        /// In Unix milliseconds: the beginning of the hour.
        pulled_ms: u64,
        /// Which; at most [`DROPS_PER_STEP`].
        digests: Vec<Digest>,
    },
    /// Manifests were pulled at these times, in Unix milliseconds, which is known more exactly than to the hour; at most
    /// [`DROPS_PER_STEP`].
    PulledAt(Vec<(RepositoryId, Digest, u64)>),
    /// Say what an owner may store, or that there is no limit any more.
    SetQuota {
        /// Whose.
        owner: Owner,
        /// In bytes.
        limit_bytes: Option<u64>,
    },
    /// Say what is to be done with the repositories that a pattern matches. Refused for a policy of the settings, unless it
    /// comes from there; and where another policy has the pattern.
    SetPolicy {
        /// The policy.
        policy: Box<Policy>,
        /// Whether it stands in the settings.
        from_settings: bool,
        /// Whether it may take more than half of a repository's tags at once. One that was confirmed stays so as long as it
        /// says the same.
        confirmed: bool,
    },
    /// Let a policy take more than half of a repository's tags at once.
    ConfirmPolicy {
        /// Its name.
        name: PolicyName,
    },
    /// Take a policy away; likewise.
    RemovePolicy {
        /// Its name.
        name: PolicyName,
        /// Whether the settings do that.
        from_settings: bool,
    },
    /// Take tags away that are due by a policy. Those that were pulled, or are not due any more, stay.
    Retain {
        /// Where.
        repository: RepositoryId,
        /// The policy as it was when they were found due; [`Refusal::NotDue`] when it is another by now.
        policy: Box<Policy>,
        /// Which; at most [`DROPS_PER_STEP`].
        tags: Vec<Tag>,
        /// How long what they point to can be restored, in milliseconds, where the policy does not say.
        window_ms: u64,
    },
    /// Delete a manifest that never got a tag in time. [`Refusal::NotDue`] when it did, or was pushed again.
    RetainRoot {
        /// Where.
        repository: RepositoryId,
        /// Which.
        digest: Digest,
        /// How long it can be restored, in milliseconds, where the policy does not say.
        window_ms: u64,
    },
    /// Evict a manifest with its tags, as long as the repositories of a policy use more than its cap; [`Refusal::NotDue`]
    /// when they do not, or it may not go. [`Outcome::Settling`] when what was evicted before is still counted: ask again.
    Evict {
        /// The policy.
        policy: PolicyName,
        /// Where.
        repository: RepositoryId,
        /// Which.
        digest: Digest,
    },
    /// Take the next steps of what earlier changes have begun.
    Settle {
        /// How long what loses its last reach by a step can be restored, in milliseconds.
        window_ms: u64,
        /// The manifest to begin with, or the next one: what a step before gave as next.
        from: ManifestId,
    },
    /// Drop something that is due. What is not due any more is refused with [`Refusal::NotDue`].
    Drop {
        /// What.
        due: Due,
        /// How long what lived for its sake only can be restored, in milliseconds, where no policy says.
        window_ms: u64,
    },
    /// A copy of some content was written: it lies there from now on, if it still lies where it was copied from. A copy
    /// that is of no use is erased.
    Move {
        /// The content.
        digest: Digest,
        /// The place of the record that was copied.
        from: Location,
        /// The place of the copy, in a shared segment.
        to: Location,
        /// The copy's length in bytes.
        record_len: u64,
    },
    /// Records that were written, or what is left of them, are named by nobody: place and length in bytes. At most
    /// [`DROPS_PER_STEP`].
    Discard(Vec<(Location, u64)>),
    /// A segment in which nothing lives goes. [`Refusal::NotDue`] when something lives there, it takes records, or is not
    /// known.
    RemoveSegment(SegmentNumber),
    /// Take note of what happened to files, or of what was done.
    Note(LocalRecord),
    /// An unfinished upload has this much, durably.
    MarkUpload {
        /// The session.
        session: SessionId,
        /// Where it was started.
        repository: RepositoryName,
        /// The segment that it writes.
        segment: SegmentNumber,
        /// Bytes of content that are synced.
        bytes: u64,
    },
    /// A marked upload was cancelled or has expired.
    EndUpload {
        /// The session.
        session: SessionId,
    },
}

impl Request {
    /// Whether it adds to what is stored: a full disk refuses that, and nothing else for as long as it can.
    pub fn is_push(&self) -> bool {
        matches!(self, Self::Upload { .. } | Self::Mount { .. } | Self::Push(_) | Self::MarkUpload { .. })
    }
}

/// Something whose time has come, as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A link that no manifest names.
    Link {
        /// Its repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// A manifest that nothing reaches or names.
    Manifest {
        /// Its repository.
        repository: RepositoryId,
        /// Its digest.
        digest: Digest,
    },
    /// Entries of the history of a repository's tags: tag, LSN, when they were due. At most [`DROPS_PER_STEP`].
    History {
        /// Their repository.
        repository: RepositoryId,
        /// The entries.
        entries: Vec<(Tag, u64, u64)>,
    },
    /// An empty repository.
    Repository(RepositoryId),
    /// Records of drops, by their LSNs; at most [`DROPS_PER_STEP`].
    Records(Vec<u64>),
}

/// What a manifest may name although its repository does not have it. What comes later counts from then on.
///
/// Subjects and non-distributable layers may be absent always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sparse {
    /// Nothing else.
    #[default]
    Off,
    /// Also the entries of an index.
    Index,
    /// Also configs and layers.
    Any,
}

impl Sparse {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Index, Self::Any];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Index => "index",
            Self::Any => "any",
        }
    }

    /// The one of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sparse| sparse.name() == name)
    }

    /// Whether what is named in this role may be absent.
    pub fn allows(self, role: Role) -> bool {
        match role {
            Role::ForeignLayer => true,
            Role::Child | Role::IndexedBlob => self != Self::Off,
            Role::Config | Role::Layer => self == Self::Any,
        }
    }
}

/// A manifest's push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Where.
    pub repository: RepositoryName,
    /// Its bytes.
    pub content: Content,
    /// What it says.
    pub manifest: ManifestContent,
    /// Tags that shall point to it.
    pub tags: Vec<Tag>,
    /// What it may name that is not there.
    pub sparse: Sparse,
    /// How long what the tags pointed to before can be restored, in milliseconds.
    pub window_ms: u64,
}

/// What a request did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it; durable.
    Done,
    /// A bounded part; ask again for the rest.
    More {
        /// Where to go on.
        after: Option<Tag>,
    },
    /// A step of what is settling, which is not all of it.
    Settling {
        /// Where the next step is to begin, so that each has its turn.
        next: ManifestId,
    },
    /// Nothing: the stored copy that it relied on, or the segment that the content was written to, is gone; write the
    /// content, and ask again.
    ContentNeeded,
    /// Tags went by a policy; durable.
    Retained {
        /// Which.
        gone: Vec<Tag>,
    },
    /// A link or manifest was dropped; durable.
    Dropped {
        /// Its length in bytes.
        size: u64,
        /// Whether no repository has the content any more.
        last: bool,
    },
}

/// A tag that may not be moved was to be pointed at another manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tag \"{tag}\" is immutable by policy {policy} and points to {points_to}; push under another tag, or delete this one first"
)]
pub struct ImmutableTag {
    /// The tag.
    pub tag: Tag,
    /// The policy that says so.
    pub policy: PolicyName,
    /// What the tag points to.
    pub points_to: Digest,
}

impl From<ImmutableTag> for Refusal {
    fn from(tag: ImmutableTag) -> Self {
        Self::Immutable(Box::new(tag))
    }
}

/// An image does not fit under the cap of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CapExceeded {
    /// The policy.
    pub policy: PolicyName,
    /// What its repositories may use together, in bytes.
    pub cap_bytes: u64,
    /// What they use, in bytes.
    pub used_bytes: u64,
    /// What the image's blobs take, in bytes.
    pub image_bytes: u64,
    /// Whether it is too large by itself. Else nothing more may be evicted for it.
    pub is_too_large: bool,
}

impl std::fmt::Display for CapExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { policy, cap_bytes, used_bytes, image_bytes, is_too_large } = self;
        match is_too_large {
            true => write!(
                f,
                "the image has {image_bytes} bytes, and all repositories of policy {policy} may use {cap_bytes} bytes \
                 together; push a smaller one, or raise the policy's size_max_bytes"
            ),
            false => write!(
                f,
                "the repositories of policy {policy} may use {cap_bytes} bytes together and use {used_bytes}, and nothing \
                 more may be evicted: all that is left is pinned, among the newest, or kept by an index. Delete something, \
                 or change the policy's tag_pattern, keep_newest or size_max_bytes"
            ),
        }
    }
}

/// Why a request was refused. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// No such repository.
    #[error("repository {0} is not known")]
    RepositoryUnknown(RepositoryName),
    /// The repository has no link to the blob.
    #[error("blob {0} is not linked there")]
    BlobUnknown(Digest),
    /// The repository does not have the manifest.
    #[error("manifest {0} is not known there")]
    ManifestUnknown(Digest),
    /// The repository does not have the tag.
    #[error("tag {0} is not known there")]
    TagUnknown(Tag),
    /// A present manifest names the blob.
    #[error("blob {digest} is named by manifest {manifest}")]
    BlobNamed {
        /// The blob.
        digest: Digest,
        /// One that names it.
        manifest: Digest,
    },
    /// References that the repository does not have; all of them.
    #[error("{} references are missing", .0.len())]
    ReferencesMissing(Vec<Digest>),
    /// A descriptor's size is not the content's.
    #[error("descriptor {digest} states {stated} bytes, the content has {stored}")]
    SizeDisagrees {
        /// The content.
        digest: Digest,
        /// What the manifest says.
        stated: u64,
        /// What is stored.
        stored: u64,
    },
    /// The digest is there under another type.
    #[error("manifest {digest} is stored as {stored}")]
    TypeDiffers {
        /// The manifest.
        digest: Digest,
        /// The media type that it has.
        stored: String,
    },
    /// It does not fit into what its repository or organisation may store.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// A tag may not be moved.
    #[error(transparent)]
    Immutable(#[from] Box<ImmutableTag>),
    /// The repositories of a policy use more than its cap, or the image is too large for it.
    #[error(transparent)]
    CapExceeded(#[from] CapExceeded),
    /// No such policy.
    #[error("policy {0} is not known")]
    PolicyUnknown(PolicyName),
    /// The policy stands in the settings.
    #[error("policy {0} stands in the settings; change it there and restart orlop")]
    PolicyOfSettings(PolicyName),
    /// Another policy has the pattern.
    #[error("policy {by} has the pattern {pattern} already; change that policy, or use another pattern")]
    PatternTaken {
        /// The pattern.
        pattern: RepositoryPattern,
        /// The policy.
        by: PolicyName,
    },
    /// There are as many policies as there may be.
    #[error("there are {POLICIES_MAX} policies, the most that a registry has; remove one first")]
    TooManyPolicies,
    /// What was to be dropped is not due: it was used again, is named, or gone.
    #[error("it is not due")]
    NotDue,
    /// The manifest is not there any more.
    #[error("manifest {digest} was dropped")]
    Dropped {
        /// The manifest.
        digest: Digest,
        /// When, in Unix milliseconds.
        time_ms: u64,
    },
    /// The index failed; nothing is known about the request.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}
