//! What the journal says: logical operations and local records, and their bytes.
//!
//! An *operation* is a decision that was taken: it carries every fact that `state::apply` needs (ids, sizes, times, parsed
//! references), so that applying it reads no clock, no setting and no manifest bytes, and refuses nothing. A *local record*
//! says where this machine put things; it is never shipped and lies outside the state hash. Each begins with its kind and
//! its version; an unknown one is refused by name. The bytes are told in FORMAT.md, *Operations*.

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::Digest,
    name::{Owner, RepositoryName, Tag},
    policy::{Policy, PolicyName},
};

mod local;
#[cfg(test)]
mod tests;

pub use local::{LocalRecord, Pausable};

/// Interned number of an organisation.
pub type OrganisationId = u32;
/// Interned number of a repository.
pub type RepositoryId = u32;
/// Interned number of a manifest in one repository.
pub type ManifestId = u64;
/// Name of an upload session: 16 random bytes.
pub type SessionId = [u8; 16];

/// A logical operation. It takes an LSN and means the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// First mention of a repository: it and perhaps its organisation get their ids.
    Intern {
        /// Its organisation's id, new or known.
        organisation: OrganisationId,
        /// Its id.
        repository: RepositoryId,
        /// Its name.
        name: RepositoryName,
    },
    /// A repository may serve a blob: by an upload, or a mount. Repeated, it renews the due time.
    Link {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The repository that it was mounted from; `None` for an upload.
        mounted_from: Option<RepositoryId>,
        /// When its grace ends, in Unix milliseconds.
        due_ms: u64,
    },
    /// A repository may no longer serve a blob.
    Unlink {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// A manifest was pushed, and tags point to it.
    Push {
        /// The repository.
        repository: RepositoryId,
        /// Its id there, new or known.
        manifest: ManifestId,
        /// Digest of its bytes.
        digest: Digest,
        /// What it says; `None` when the repository has it already, present or deleted.
        content: Option<Box<ManifestContent>>,
        /// Tags that point to it from now on; none for a push by digest.
        tags: Vec<Tag>,
        /// Until when a manifest that this push takes the last reach from can be restored, in Unix milliseconds.
        held_until_ms: u64,
    },
    /// Tags are removed; what they point to stays.
    Untag {
        /// The repository.
        repository: RepositoryId,
        /// Tags that are there.
        tags: Vec<Tag>,
        /// Until when a manifest that loses its last reach can be restored, in Unix milliseconds.
        held_until_ms: u64,
    },
    /// A manifest without tags is deleted: it answers no more, but can be restored.
    Delete {
        /// The repository.
        repository: RepositoryId,
        /// Its id there.
        manifest: ManifestId,
        /// Digest of its bytes.
        digest: Digest,
        /// Until when it can be restored, in Unix milliseconds.
        held_until_ms: u64,
    },
    /// A manifest that was deleted, or lost what reached it, is there again.
    Restore {
        /// The repository.
        repository: RepositoryId,
        /// Its id there.
        manifest: ManifestId,
        /// Digest of its bytes.
        digest: Digest,
        /// The tag that points to it from now on; without one it lives by itself.
        tag: Option<Tag>,
        /// Until when a manifest that the tag pointed to can be restored, in Unix milliseconds.
        held_until_ms: u64,
    },
    /// The next steps of what earlier operations have begun.
    Settle {
        /// Until when a manifest that a step takes the last reach from can be restored, in Unix milliseconds.
        held_until_ms: u64,
        /// The manifest to begin with, or the next one that is settling; from the last one on with the first. So that one
        /// whose life changes again and again does not keep others from their turn.
        from: ManifestId,
    },
    /// A manifest was pushed or restored by its digest while others were settling in its repository: once nothing is, it
    /// lives by itself if nothing reaches it.
    RootLater {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// The windows of held manifests end with this operation.
    EndWindows {
        /// The repository.
        repository: RepositoryId,
        /// Held manifests; at most 1,000.
        digests: Vec<Digest>,
    },
    /// A link that no manifest names has ended its grace.
    DropLink {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// A held manifest that no other names as child has ended its window.
    DropManifest {
        /// The repository.
        repository: RepositoryId,
        /// Its id there.
        manifest: ManifestId,
        /// Digest of its bytes.
        digest: Digest,
        /// Until when what lived for its sake only can be restored, in Unix milliseconds; 0 in version 1: as long from now
        /// on as it could be itself.
        held_until_ms: u64,
    },
    /// Entries of the history of tags have ended their windows.
    DropHistory {
        /// The repository.
        repository: RepositoryId,
        /// Tag, LSN of the entry, and when it was due; at most 1,000.
        entries: Vec<(Tag, u64, u64)>,
    },
    /// A repository that has become empty goes.
    DropRepository {
        /// The repository.
        repository: RepositoryId,
    },
    /// What an organisation or a repository may store changes.
    SetQuota {
        /// Whose.
        owner: Owner,
        /// In bytes; `None` for no limit.
        limit_bytes: Option<u64>,
    },
    /// Records of drops are old enough to be forgotten.
    ForgetDrops {
        /// The operations that dropped; at most 1,000.
        lsns: Vec<u64>,
    },
    /// There is a policy, new or another than before of that name. What follows from it for repositories is done by
    /// reviews.
    SetPolicy {
        /// What it says.
        policy: Box<Policy>,
        /// Whether it stands in the settings.
        from_settings: bool,
        /// Whether it may take more than half of a repository's tags at once.
        confirmed: bool,
    },
    /// A policy goes, likewise.
    RemovePolicy {
        /// Its name.
        name: PolicyName,
    },
    /// The next step of what a change of policies has made to do.
    Review,
    /// Tags that were due to go stay, because what they point to was pulled.
    KeepTags {
        /// The repository.
        repository: RepositoryId,
        /// Tags that are there, and when what they point to was pulled, in Unix milliseconds; at most 1,000.
        tags: Vec<(Tag, u64)>,
    },
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It takes an LSN.
    Logical(Operation),
    /// It takes a local number.
    Local(LocalRecord),
}

/// What a manifest says, parsed when it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestContent {
    /// Length in bytes.
    pub size: u64,
    /// The Content-Type that it was pushed with.
    pub media_type: String,
    /// Its `artifactType`, or its config's media type.
    pub artifact_type: Option<String>,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
    /// What it names, each digest and role once, in the order of the manifest; the subject is not among them.
    pub references: Vec<NamedReference>,
}

/// A descriptor in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct NamedReference {
    /// What it is there.
    pub role: Role,
    /// What it names.
    pub digest: Digest,
    /// The size that it states, in bytes.
    pub size: u64,
}

/// What a descriptor is in the manifest that names it. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Role {
    /// An image's configuration: a blob.
    Config = 1,
    /// A layer or an artifact's file: a blob.
    Layer = 2,
    /// A layer that may be absent (non-distributable, foreign): a blob if it was pushed.
    ForeignLayer = 3,
    /// A child of an index: a manifest.
    Child = 4,
    /// An entry of an index whose type is no manifest's: a blob (build caches).
    IndexedBlob = 5,
}

impl Role {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Config, Self::Layer, Self::ForeignLayer, Self::Child, Self::IndexedBlob];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&role| role as u8 == code)
    }

    /// Whether it names a blob; else it names a manifest.
    pub fn is_blob(self) -> bool {
        self != Self::Child
    }
}

/// What was dropped. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum DropKind {
    /// A blob's link.
    Link = 1,
    /// A manifest.
    Manifest = 2,
}

impl DropKind {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Link, Self::Manifest].into_iter().find(|&kind| kind as u8 == code)
    }
}

const INTERN: u8 = 1;
const LINK: u8 = 2;
const UNLINK: u8 = 3;
const PUSH: u8 = 4;
const UNTAG: u8 = 5;
const DELETE: u8 = 6;
const RESTORE: u8 = 7;
const SETTLE: u8 = 8;
const END_WINDOWS: u8 = 9;
const DROP_LINK: u8 = 10;
const DROP_MANIFEST: u8 = 11;
const DROP_HISTORY: u8 = 12;
const DROP_REPOSITORY: u8 = 13;
const FORGET_DROPS: u8 = 14;
const SET_QUOTA: u8 = 15;
const SET_POLICY: u8 = 16;
const REMOVE_POLICY: u8 = 17;
const REVIEW: u8 = 18;
const KEEP_TAGS: u8 = 19;
const ROOT_LATER: u8 = 20;

/// Version of every operation and record but those that follow.
pub const VERSION: u8 = 1;
/// Version of [`Operation::Settle`]: the first had no place to begin at, and began with the first manifest.
const SETTLE_VERSION: u8 = 2;
/// Version of [`Operation::DropManifest`]: the first had no window for what it releases, which got that of the manifest.
const DROP_MANIFEST_VERSION: u8 = 2;

impl Operation {
    /// The repository that it changes; `None` where it changes several, or none.
    pub fn repository(&self) -> Option<RepositoryId> {
        match self {
            Self::Intern { repository, .. }
            | Self::Link { repository, .. }
            | Self::Unlink { repository, .. }
            | Self::Push { repository, .. }
            | Self::Untag { repository, .. }
            | Self::Delete { repository, .. }
            | Self::Restore { repository, .. }
            | Self::RootLater { repository, .. }
            | Self::EndWindows { repository, .. }
            | Self::DropLink { repository, .. }
            | Self::DropManifest { repository, .. }
            | Self::DropHistory { repository, .. }
            | Self::DropRepository { repository }
            | Self::KeepTags { repository, .. } => Some(*repository),
            Self::Settle { .. }
            | Self::ForgetDrops { .. }
            | Self::SetQuota { .. }
            | Self::SetPolicy { .. }
            | Self::RemovePolicy { .. }
            | Self::Review => None,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        match self {
            Self::Intern { organisation, repository, name } => {
                e.u8(INTERN).u8(VERSION).u32(*organisation).u32(*repository).str(name.as_str());
            }
            Self::Link { repository, digest, size, mounted_from, due_ms } => {
                e.u8(LINK).u8(VERSION).u32(*repository).digest(digest).u64(*size);
                e.option(*mounted_from, |e, from| {
                    e.u32(from);
                })
                .u64(*due_ms);
            }
            Self::Unlink { repository, digest } => {
                e.u8(UNLINK).u8(VERSION).u32(*repository).digest(digest);
            }
            Self::Push { repository, manifest, digest, content, tags, held_until_ms } => {
                e.u8(PUSH).u8(VERSION).u32(*repository).u64(*manifest).digest(digest);
                e.option(content.as_deref(), encode_content);
                e.list(tags, |e, tag| {
                    e.str(tag.as_str());
                })
                .u64(*held_until_ms);
            }
            Self::Untag { repository, tags, held_until_ms } => {
                e.u8(UNTAG).u8(VERSION).u32(*repository);
                e.list(tags, |e, tag| {
                    e.str(tag.as_str());
                })
                .u64(*held_until_ms);
            }
            Self::Delete { repository, manifest, digest, held_until_ms } => {
                e.u8(DELETE).u8(VERSION).u32(*repository).u64(*manifest).digest(digest).u64(*held_until_ms);
            }
            Self::Restore { repository, manifest, digest, tag, held_until_ms } => {
                e.u8(RESTORE).u8(VERSION).u32(*repository).u64(*manifest).digest(digest);
                e.option(tag.as_ref(), |e, tag| {
                    e.str(tag.as_str());
                })
                .u64(*held_until_ms);
            }
            Self::Settle { held_until_ms, from } => {
                e.u8(SETTLE).u8(SETTLE_VERSION).u64(*held_until_ms).u64(*from);
            }
            Self::EndWindows { repository, digests } => {
                e.u8(END_WINDOWS).u8(VERSION).u32(*repository).list(digests, |e, digest| {
                    e.digest(digest);
                });
            }
            Self::DropLink { repository, digest } => {
                e.u8(DROP_LINK).u8(VERSION).u32(*repository).digest(digest);
            }
            Self::DropManifest { repository, manifest, digest, held_until_ms } => {
                e.u8(DROP_MANIFEST).u8(DROP_MANIFEST_VERSION).u32(*repository).u64(*manifest).digest(digest);
                e.u64(*held_until_ms);
            }
            Self::DropHistory { repository, entries } => {
                e.u8(DROP_HISTORY).u8(VERSION).u32(*repository).list(entries, |e, (tag, lsn, due_ms)| {
                    e.str(tag.as_str()).u64(*lsn).u64(*due_ms);
                });
            }
            Self::DropRepository { repository } => {
                e.u8(DROP_REPOSITORY).u8(VERSION).u32(*repository);
            }
            Self::SetQuota { owner, limit_bytes } => {
                e.u8(SET_QUOTA).u8(VERSION).str(&owner.code()).option(*limit_bytes, |e, limit| {
                    e.u64(limit);
                });
            }
            Self::ForgetDrops { lsns } => {
                e.u8(FORGET_DROPS).u8(VERSION).list(lsns, |e, lsn| {
                    e.u64(*lsn);
                });
            }
            Self::SetPolicy { policy, from_settings, confirmed } => {
                policy.encode(e.u8(SET_POLICY).u8(VERSION));
                e.bool(*from_settings).bool(*confirmed);
            }
            Self::RemovePolicy { name } => {
                e.u8(REMOVE_POLICY).u8(VERSION).str(name.as_str());
            }
            Self::Review => {
                e.u8(REVIEW).u8(VERSION);
            }
            Self::RootLater { repository, digest } => {
                e.u8(ROOT_LATER).u8(VERSION).u32(*repository).digest(digest);
            }
            Self::KeepTags { repository, tags } => {
                e.u8(KEEP_TAGS).u8(VERSION).u32(*repository).list(tags, |e, (tag, pulled_ms)| {
                    e.str(tag.as_str()).u64(*pulled_ms);
                });
            }
        }
        e.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// On anything else, an unknown kind or version included.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(bytes);
        let kind = d.u8("operation kind")?;
        let newest = match kind {
            SETTLE => SETTLE_VERSION,
            DROP_MANIFEST => DROP_MANIFEST_VERSION,
            _ => VERSION,
        };
        let version = version(&mut d, newest, "operation version")?;
        let operation = match kind {
            INTERN => Self::Intern {
                organisation: d.u32("organisation")?,
                repository: d.u32("repository")?,
                name: d.parsed("repository name")?,
            },
            LINK => Self::Link {
                repository: d.u32("repository")?,
                digest: d.digest("digest")?,
                size: d.u64("size")?,
                mounted_from: d.option("mounted from", |d| d.u32("mounted from"))?,
                due_ms: d.u64("due")?,
            },
            UNLINK => Self::Unlink { repository: d.u32("repository")?, digest: d.digest("digest")? },
            PUSH => Self::Push {
                repository: d.u32("repository")?,
                manifest: d.u64("manifest")?,
                digest: d.digest("digest")?,
                content: d.option("content", decode_content)?,
                tags: d.list("tags", |d| d.parsed("tag"))?,
                held_until_ms: d.u64("held until")?,
            },
            UNTAG => Self::Untag {
                repository: d.u32("repository")?,
                tags: d.list("tags", |d| d.parsed("tag"))?,
                held_until_ms: d.u64("held until")?,
            },
            DELETE => Self::Delete {
                repository: d.u32("repository")?,
                manifest: d.u64("manifest")?,
                digest: d.digest("digest")?,
                held_until_ms: d.u64("held until")?,
            },
            RESTORE => Self::Restore {
                repository: d.u32("repository")?,
                manifest: d.u64("manifest")?,
                digest: d.digest("digest")?,
                tag: d.option("tag", |d| d.parsed("tag"))?,
                held_until_ms: d.u64("held until")?,
            },
            SETTLE => Self::Settle {
                held_until_ms: d.u64("held until")?,
                from: if version < SETTLE_VERSION { 0 } else { d.u64("from")? },
            },
            END_WINDOWS => Self::EndWindows {
                repository: d.u32("repository")?,
                digests: d.list("digests", |d| d.digest("digest"))?,
            },
            DROP_LINK => Self::DropLink { repository: d.u32("repository")?, digest: d.digest("digest")? },
            DROP_MANIFEST => Self::DropManifest {
                repository: d.u32("repository")?,
                manifest: d.u64("manifest")?,
                digest: d.digest("digest")?,
                held_until_ms: if version < DROP_MANIFEST_VERSION { 0 } else { d.u64("held until")? },
            },
            DROP_HISTORY => Self::DropHistory {
                repository: d.u32("repository")?,
                entries: d.list("entries", |d| Ok((d.parsed("tag")?, d.u64("entry")?, d.u64("due")?)))?,
            },
            DROP_REPOSITORY => Self::DropRepository { repository: d.u32("repository")? },
            SET_QUOTA => {
                Self::SetQuota { owner: d.parsed("owner")?, limit_bytes: d.option("limit", |d| d.u64("limit"))? }
            }
            FORGET_DROPS => Self::ForgetDrops { lsns: d.list("drops", |d| d.u64("drop"))? },
            SET_POLICY => Self::SetPolicy {
                policy: Box::new(Policy::decode(&mut d)?),
                from_settings: d.bool("from settings")?,
                confirmed: d.bool("confirmed")?,
            },
            REMOVE_POLICY => Self::RemovePolicy { name: d.parsed("policy name")? },
            REVIEW => Self::Review,
            KEEP_TAGS => Self::KeepTags {
                repository: d.u32("repository")?,
                tags: d.list("tags", |d| Ok((d.parsed("tag")?, d.u64("pulled")?)))?,
            },
            ROOT_LATER => Self::RootLater { repository: d.u32("repository")?, digest: d.digest("digest")? },
            _ => return Err(DecodeError { field: "operation kind", problem: "unknown; a newer orlop wrote it" }),
        };
        d.finish("operation")?;
        Ok(operation)
    }
}

fn version(d: &mut Decoder<'_>, newest: u8, field: &'static str) -> Result<u8, DecodeError> {
    match d.u8(field)? {
        version if (1..=newest).contains(&version) => Ok(version),
        _ => Err(DecodeError { field, problem: "unknown; a newer orlop wrote it" }),
    }
}

fn encode_content(e: &mut Encoder, content: &ManifestContent) {
    e.u64(content.size).str(&content.media_type);
    e.option(content.artifact_type.as_deref(), |e, text| {
        e.str(text);
    });
    e.option(content.subject, |e, digest| {
        e.digest(&digest);
    });
    e.list(&content.references, encode_reference);
}

fn decode_content(d: &mut Decoder<'_>) -> Result<Box<ManifestContent>, DecodeError> {
    Ok(Box::new(ManifestContent {
        size: d.u64("size")?,
        media_type: d.str("media type")?.to_owned(),
        artifact_type: d.option("artifact type", |d| d.str("artifact type").map(str::to_owned))?,
        subject: d.option("subject", |d| d.digest("subject"))?,
        references: d.list("references", decode_reference)?,
    }))
}

/// A reference's bytes, the same in operations and in facts.
pub(super) fn encode_reference(e: &mut Encoder, reference: &NamedReference) {
    e.u8(reference.role as u8).digest(&reference.digest).u64(reference.size);
}

pub(super) fn decode_reference(d: &mut Decoder<'_>) -> Result<NamedReference, DecodeError> {
    let role = Role::from_code(d.u8("role")?).ok_or(DecodeError { field: "role", problem: "unknown" })?;
    Ok(NamedReference { role, digest: d.digest("reference")?, size: d.u64("reference size")? })
}
