//! The rows of all tables: their fields, in the order of their bytes.

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::Digest,
    index::schema::{SchemaError, StateHash, Table},
    journal::operation::{DropKind, ManifestId, NamedReference, OrganisationId, RepositoryId, Role},
    location::{Location, RecordKind, SegmentNumber},
    name::{RepositoryName, Tag},
    policy::Policy,
};

/// A row that knows its table and bytes.
pub trait RowValue: Sized {
    /// The table that it lies in.
    const TABLE: Table;
    /// Writes it.
    fn encode(&self, e: &mut Encoder);
    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are no such row.
    fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError>;

    /// Reads a whole row.
    ///
    /// # Errors
    /// When the bytes are no such row.
    fn from_bytes(bytes: &[u8]) -> Result<Self, SchemaError> {
        let mut d = Decoder::new(bytes);
        Self::decode(&mut d)
            .and_then(|row| d.finish("row").map(|()| row))
            .map_err(|source| SchemaError::Row { table: Self::TABLE.name(), source })
    }

    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode(&mut e);
        e.finish()
    }
}

/// Declares a row: its table, its fields in the order of their bytes, and each field's kind.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident in $table:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ident $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl RowValue for $name {
            const TABLE: Table = Table::$table;
            fn encode(&self, e: &mut Encoder) {
                let _ = &e;
                $(row!(@put e, self.$field, $kind);)*
            }
            fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let _ = &d;
                Ok(Self { $($field: row!(@get d, $kind, stringify!($field)),)* })
            }
        }
    };
    (@put $e:ident, $v:expr, u32) => { $e.varint($v.into()) };
    (@put $e:ident, $v:expr, u64) => { $e.varint($v) };
    (@put $e:ident, $v:expr, fixed_u32) => { $e.u32($v) };
    (@put $e:ident, $v:expr, fixed_u64) => { $e.u64($v) };
    (@put $e:ident, $v:expr, text) => { $e.str($v.as_str()) };
    (@put $e:ident, $v:expr, string) => { $e.str($v.as_str()) };
    (@put $e:ident, $v:expr, digest) => { $e.digest(&$v) };
    (@put $e:ident, $v:expr, optional_digest) => { $e.option($v, |e, digest| { e.digest(&digest); }) };
    (@put $e:ident, $v:expr, optional_text) => { $e.option($v.as_deref(), |e, text| { e.str(text); }) };
    (@put $e:ident, $v:expr, optional_u64) => { $e.option($v, |e, number| { e.varint(number); }) };
    (@put $e:ident, $v:expr, optional_age) => {
        $e.option($v.as_ref(), |e, (time_ms, tag)| { e.varint(*time_ms).str(tag.as_str()); })
    };
    (@put $e:ident, $v:expr, policy) => { $v.encode($e) };
    (@put $e:ident, $v:expr, optional_policy) => { $e.option($v.as_ref(), |e, policy| policy.encode(e)) };
    (@put $e:ident, $v:expr, bytes) => { $e.bytes(&$v) };
    (@put $e:ident, $v:expr, record_kind) => { $e.u8($v as u8) };
    (@put $e:ident, $v:expr, drop_kind) => { $e.u8($v as u8) };
    (@put $e:ident, $v:expr, location) => { $e.varint($v.segment.0).varint($v.offset) };
    (@put $e:ident, $v:expr, segment) => { $e.varint($v.0) };
    (@put $e:ident, $v:expr, named_digests) => { $e.list(&$v, encode_named) };
    (@put $e:ident, $v:expr, chain) => { $e.raw(&$v) };
    (@put $e:ident, $v:expr, state_hash) => { $v.encode($e) };
    (@put $e:ident, $v:expr, $number:ident) => { $e.$number($v) };
    (@get $d:ident, u32, $field:expr) => {
        u32::try_from($d.varint($field)?).map_err(|_| DecodeError { field: $field, problem: "too large" })?
    };
    (@get $d:ident, u64, $field:expr) => { $d.varint($field)? };
    (@get $d:ident, fixed_u32, $field:expr) => { $d.u32($field)? };
    (@get $d:ident, fixed_u64, $field:expr) => { $d.u64($field)? };
    (@get $d:ident, text, $field:expr) => { $d.parsed($field)? };
    (@get $d:ident, string, $field:expr) => { $d.str($field)?.to_owned() };
    (@get $d:ident, optional_digest, $field:expr) => { $d.option($field, |d| d.digest($field))? };
    (@get $d:ident, optional_text, $field:expr) => { $d.option($field, |d| d.str($field).map(str::to_owned))? };
    (@get $d:ident, optional_u64, $field:expr) => { $d.option($field, |d| d.varint($field))? };
    (@get $d:ident, optional_age, $field:expr) => { $d.option($field, |d| Ok((d.varint($field)?, d.parsed($field)?)))? };
    (@get $d:ident, policy, $field:expr) => { Policy::decode($d)? };
    (@get $d:ident, optional_policy, $field:expr) => { $d.option($field, Policy::decode)? };
    (@get $d:ident, bytes, $field:expr) => { $d.bytes($field)?.to_vec() };
    (@get $d:ident, record_kind, $field:expr) => {
        RecordKind::from_code($d.u8($field)?).ok_or(DecodeError { field: $field, problem: "unknown" })?
    };
    (@get $d:ident, drop_kind, $field:expr) => {
        DropKind::from_code($d.u8($field)?).ok_or(DecodeError { field: $field, problem: "unknown" })?
    };
    (@get $d:ident, location, $field:expr) => {
        Location { segment: SegmentNumber($d.varint($field)?), offset: $d.varint($field)? }
    };
    (@get $d:ident, segment, $field:expr) => { SegmentNumber($d.varint($field)?) };
    (@get $d:ident, named_digests, $field:expr) => { $d.list($field, decode_named)? };
    (@get $d:ident, chain, $field:expr) => {{
        let mut bytes = [0; 16];
        bytes.copy_from_slice($d.raw(16, $field)?);
        bytes
    }};
    (@get $d:ident, state_hash, $field:expr) => { StateHash::decode($d, $field)? };
    (@get $d:ident, $other:ident, $field:expr) => { $d.$other($field)? };
}

mod policies;
mod told;

pub use policies::{
    ByUseRow, DueRepositoryRow, DueRootRow, DueTagRow, GovernedRow, NewestTagRow, PolicyRow, PolicyUsageRow,
    ReviewPhase, ReviewRow, SpareTagRow, UseRow,
};
pub use told::{DropRow, DroppedRow, DueDropRow, PauseRow, PullRow, QuotaRow, ReportRow, SampleRow};

row! {
    /// How far the journal is applied, and what it has given out. One row, rewritten by every batch. Its numbers have a fixed
    /// width, so that the version can be read in whatever an orlop of another one has written.
    Applied in Meta {
        /// [`super::INDEX_VERSION`] of the orlop that wrote it.
        version: fixed_u32 u32,
        /// The store that the index belongs to.
        store: chain [u8; 16],
        /// Last logical operation.
        lsn: fixed_u64 u64,
        /// Last local record.
        local: fixed_u64 u64,
        /// The journal's chain value there.
        chain: chain [u8; 16],
        /// Time of the last batch, in Unix milliseconds.
        time_ms: fixed_u64 u64,
        /// Organisation ids that were given out.
        organisations: fixed_u32 u32,
        /// Repository ids that were given out.
        repositories: fixed_u32 u32,
        /// Manifest ids that were given out.
        manifests: fixed_u64 u64,
        /// Rows of the tables of what is settling and of later roots.
        settling: fixed_u64 u64,
        /// Whether a review of repositories is under way.
        reviewing: bool bool,
        /// The first segment number that the journal never named.
        next_segment: fixed_u64 u64,
    }
}

row! {
    /// organisation name → id
    OrganisationNameRow in OrganisationNames {
        /// Its id.
        organisation: u32 OrganisationId,
    }
}

row! {
    /// organisation id → name
    OrganisationRow in Organisations {
        /// Its name.
        name: text String,
    }
}

row! {
    /// repository name → ids
    RepositoryNameRow in RepositoryNames {
        /// Its id.
        repository: u32 RepositoryId,
        /// Its organisation's id.
        organisation: u32 OrganisationId,
    }
}

row! {
    /// repository id → name
    RepositoryRow in Repositories {
        /// Its name.
        name: text RepositoryName,
        /// Its organisation's id.
        organisation: u32 OrganisationId,
        /// When it was first named, in Unix milliseconds.
        created_ms: u64 u64,
        /// Whether it has a row among the governed ones.
        governed: bool bool,
        /// The policy that governs it; empty where none does.
        policy: string String,
    }
}

impl Applied {
    /// Whether steps are left of what earlier operations have begun.
    pub fn is_settling(&self) -> bool {
        self.settling > 0 || self.reviewing
    }
}

row! {
    /// digest → where its bytes lie
    BlobRow in Blobs {
        /// Blob or manifest.
        kind: record_kind RecordKind,
        /// Length in bytes.
        size: u64 u64,
        /// Its record.
        location: location Location,
        /// The record's length with checksums and padding.
        record_len: u64 u64,
    }
}

row! {
    /// digest, repository → the right to serve it
    LinkRow in Links {
        /// Length of the blob in bytes.
        size: u64 u64,
        /// When it was last uploaded or mounted, in Unix milliseconds; one later where a manifest named it already.
        linked_ms: u64 u64,
        /// When its grace ends, in Unix milliseconds.
        due_ms: u64 u64,
        /// The repository that it was first mounted from, plus one; 0 for an upload.
        mounted_from: u64 u64,
    }
}

row! {
    /// repository, digest → a manifest's head
    ManifestRow in Manifests {
        /// Its id.
        manifest: u64 ManifestId,
        /// Length in bytes.
        size: u64 u64,
        /// Whether it was deleted by digest: it answers no more.
        deleted: bool bool,
        /// Whether it lives by itself: pushed by digest, and not reached since.
        root: bool bool,
        /// Whether it stays a root although its subject attaches it, because that was merely carried once: what keeps the
        /// subject may be this manifest.
        stays_root: bool bool,
        /// Whether its subject is strong or attached.
        attached: bool bool,
        /// The [`crate::state::life::Life`] that what it names was told.
        told: u8 u8,
        /// Tags that point to it.
        tags: u32 u32,
        /// Descriptors that it names.
        references: u32 u32,
        /// SHA-256 of all that it names, for the state hash.
        references_hash: digest Digest,
        /// When it was last pushed, in Unix milliseconds.
        pushed_ms: u64 u64,
        /// When it was deleted or lost the last that reached it; 0 while it lives.
        left_ms: u64 u64,
        /// Until when it can be restored; 0 while it lives, and when its window was ended.
        held_until_ms: u64 u64,
        /// The Content-Type that it was pushed with.
        media_type: text String,
        /// Its `artifactType`, or its config's media type.
        artifact_type: optional_text Option<String>,
        /// The manifest that it refers to.
        subject: optional_digest Option<Digest>,
    }
}

row! {
    /// manifest id → repository and digest
    ManifestIdRow in ManifestIds {
        /// Its repository.
        repository: u32 RepositoryId,
        /// Its digest.
        digest: digest Digest,
    }
}

row! {
    /// digest, repository, manifest id → how the manifest names it
    NameRow in Names {
        /// Bit `n` is set for role `n`.
        roles: u8 u8,
    }
}

row! {
    /// manifest id, page → a part of what it names, sorted by digest
    ReferencesRow in References {
        /// At most [`super::REFERENCES_PER_ROW`].
        references: named_digests Vec<NamedDigest>,
    }
}

/// A digest that a manifest names, in all of its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct NamedDigest {
    /// What it names.
    pub digest: Digest,
    /// Bit `n` is set for role `n`.
    pub roles: u8,
    /// The size that the manifest states, in bytes.
    pub size: u64,
}

impl NamedDigest {
    const CHILD: u8 = 1 << Role::Child as u8;

    /// Whether it names a blob.
    pub fn is_blob(&self) -> bool {
        self.roles & !Self::CHILD != 0
    }

    /// What stands in the manifest: a descriptor for each role.
    pub fn each_role(&self) -> impl Iterator<Item = NamedReference> {
        let &Self { digest, roles, size } = self;
        Role::ALL.into_iter().filter(move |&role| roles & 1 << role as u8 != 0).map(move |role| NamedReference {
            role,
            digest,
            size,
        })
    }

    /// Whether it names a child.
    pub fn is_child(&self) -> bool {
        self.roles & Self::CHILD != 0
    }
}

fn encode_named(e: &mut Encoder, named: &NamedDigest) {
    e.digest(&named.digest).u8(named.roles).varint(named.size);
}

fn decode_named(d: &mut Decoder<'_>) -> Result<NamedDigest, DecodeError> {
    Ok(NamedDigest { digest: d.digest("reference")?, roles: d.u8("roles")?, size: d.varint("reference size")? })
}

row! {
    /// repository, child → what names it as child there, whether it is there itself or not
    #[derive(Default)]
    ParentsRow in Parents {
        /// Manifests that name it.
        all: u32 u32,
        /// Those that told it that they are strong.
        strong: u32 u32,
        /// Those that told it that they are attached or carried.
        carried: u32 u32,
    }
}

row! {
    /// repository, tag → what it points to
    TagRow in Tags {
        /// The manifest's id.
        manifest: u64 ManifestId,
        /// The manifest's digest.
        digest: digest Digest,
        /// When it was set, in Unix milliseconds.
        set_ms: u64 u64,
        /// The operation that set it: its row in the history.
        lsn: u64 u64,
        /// When the manifest was known to be pulled when the tag was last due to go, in Unix milliseconds; 0 before that.
        pulled_ms: u64 u64,
    }
}

row! {
    /// repository, tag, 0, LSN → what the tag pointed to from then on
    HistoryRow in History {
        /// The manifest's digest; `None` when the tag was removed.
        digest: optional_digest Option<Digest>,
        /// When, in Unix milliseconds.
        time_ms: u64 u64,
        /// Until when it is kept, in Unix milliseconds; 0 while it is what the tag is.
        until_ms: u64 u64,
    }
}

row! {
    /// repository, subject, referrer → the referrer's id
    ReferrerRow in Referrers {
        /// The referrer's id.
        manifest: u64 ManifestId,
    }
}

row! {
    /// repository, manifest id, tag → nothing: the tags of a manifest
    ManifestTagRow in ManifestTags {}
}

row! {
    /// scope, digest → how often it is named there, and how many have it
    #[derive(Default)]
    CountRow in Counts {
        /// In a repository: manifests that name it. In an organisation: repositories that name and link it. In the
        /// registry: organisations where that is so.
        named: u64 u64,
        /// The same of live manifests only.
        live: u64 u64,
        /// In a repository: 1 when that links it. In an organisation: repositories that do. In the registry:
        /// organisations where one does.
        links: u64 u64,
        /// In an organisation: repositories that have it as a manifest. In the registry: organisations where one does. 0
        /// in a repository.
        manifests: u64 u64,
        /// Length in bytes; in a repository 0 until it is linked.
        size: u64 u64,
    }
}

row! {
    /// scope → totals
    #[derive(Default)]
    UsageRow in Usage {
        /// Bytes of the blobs that are named and linked there, each counted once.
        used_bytes: u64 u64,
        /// Number of those blobs.
        blobs: u64 u64,
        /// Bytes of the manifests, each counted once.
        manifest_bytes: u64 u64,
        /// Manifests, each counted once.
        manifests: u64 u64,
        /// Tags.
        tags: u64 u64,
        /// Links.
        links: u64 u64,
        /// Bytes of the blobs that are linked there, whether anything names them or not, each counted once.
        linked_bytes: u64 u64,
        /// Entries in the history of tags.
        history: u64 u64,
        /// Repositories; 0 in a repository.
        repositories: u64 u64,
        /// Bytes of blobs that only held manifests keep.
        reclaimable_bytes: u64 u64,
        /// Manifests whose life is still to be told to what they name.
        settling: u64 u64,
        /// Organisations; 0 in an organisation and a repository.
        organisations: u64 u64,
        /// Hash over the facts of its repositories.
        state_hash: state_hash StateHash,
    }
}

row! {
    /// time, repository, digest → nothing: a link that no manifest names, and when its grace ends
    DueLinkRow in DueLinks {}
}

row! {
    /// time, repository, digest → nothing: a held manifest that no other names as child, and when its window ends
    DueManifestRow in DueManifests {}
}

row! {
    /// time, repository, tag, 0, LSN → nothing: an entry of a tag's history that has passed, and when its window ends
    DueHistoryRow in DueHistory {}
}

row! {
    /// repository → nothing: a repository that has become empty, and is due
    EmptyRepositoryRow in EmptyRepositories {}
}

row! {
    /// manifest id → what it still has to tell to what it names
    SettlingRow in Settling {
        /// Its repository.
        repository: u32 RepositoryId,
        /// Its digest.
        digest: digest Digest,
        /// The life that it tells; 0 for one that was dropped.
        target: u8 u8,
        /// Whether it was dropped: then it takes its names back.
        dropped: bool bool,
        /// When it was pushed, in Unix milliseconds, if it was dropped because its window was ended: blobs that were not
        /// uploaded since are due at once. 0 else.
        purged_ms: u64 u64,
        /// Digests that it names that were told.
        references: u32 u32,
        /// The last referrer that was told; `None` before the first.
        referrer: optional_digest Option<Digest>,
    }
}

impl SettlingRow {
    /// Whether it is a later state of the same pass.
    pub fn goes_on_from(&self, before: &Self) -> bool {
        self.target == before.target
            && self.dropped == before.dropped
            && self.references >= before.references
            && self.referrer >= before.referrer
    }
}

row! {
    /// repository, digest → nothing: a manifest that was asked for by its digest while something was settling; once nothing
    /// is, it lives by itself where nothing reaches it
    LaterRootRow in LaterRoots {}
}

row! {
    /// segment number → what is known of it
    #[derive(Default)]
    SegmentRow in Segments {
        /// Whether it holds one record only.
        single: bool bool,
        /// Whether it takes no more records.
        sealed: bool bool,
        /// The highest place that the journal has in it.
        committed_end: u64 u64,
        /// Bytes of live records.
        live_bytes: u64 u64,
        /// Live records.
        live_records: u64 u64,
        /// Bytes of dead records that were erased: they take no room any more.
        erased_bytes: u64 u64,
    }
}

impl UsageRow {
    /// Whether a repository with these totals has nothing that any listing shows, no history, and nothing to settle.
    pub fn is_empty(&self) -> bool {
        self.manifests == 0 && self.links == 0 && self.tags == 0 && self.history == 0 && self.settling == 0
    }
}

impl SegmentRow {
    /// It has one live record more.
    pub fn add_live(&mut self, record_len: u64) {
        self.live_bytes = self.live_bytes.saturating_add(record_len);
        self.live_records = self.live_records.saturating_add(1);
    }

    /// Whether its file may be worth going: nothing in it lives, or enough of it is dead, were the dead blocks all still
    /// there. How many are is known to the file system only, so who compacts asks that again ([`Self::wastes`]).
    pub fn is_sparse(&self) -> bool {
        // One live record is all that a single segment has, whatever lies before it.
        self.sealed && (self.live_records == 0 || (!self.single && self.wastes(self.committed_end)))
    }

    /// Whether a segment that takes so many bytes of the disk takes too many for what lives in it: at least twice as many,
    /// or more than a block per record and a tenth.
    pub fn wastes(&self, allocated_bytes: u64) -> bool {
        let dead = allocated_bytes.saturating_sub(self.live_bytes);
        dead.saturating_mul(2) >= allocated_bytes || self.wastes_blocks(allocated_bytes)
    }

    /// Whether it takes more than a block per record, and a tenth, beyond what lives in it. Erasing alone can leave two
    /// blocks for a record that lies across their border. Records of more than ten blocks never waste so much by that.
    pub fn wastes_blocks(&self, allocated_bytes: u64) -> bool {
        const BLOCK_BYTES: u64 = 4_096;
        let blocks = self.live_records.saturating_mul(BLOCK_BYTES);
        let dead = allocated_bytes.saturating_sub(self.live_bytes);
        dead > blocks.saturating_add(self.live_bytes / 10) && self.live_bytes < blocks.saturating_mul(10)
    }
}

row! {
    /// segment number → nothing: a sealed segment of which at least half is dead
    SparseRow in Sparse {}
}

row! {
    /// session → an unfinished upload that survives a restart
    UploadRow in Uploads {
        /// Where it was started.
        repository: text RepositoryName,
        /// The segment that it writes.
        segment: segment SegmentNumber,
        /// Bytes of content that are durable.
        bytes: u64 u64,
        /// When they became so, in Unix milliseconds.
        time_ms: u64 u64,
    }
}

row! {
    /// segment, offset → a record that is dead and not erased yet
    DeadRow in Dead {
        /// The record's length in bytes.
        record_len: u64 u64,
    }
}
