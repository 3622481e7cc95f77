//! The rows of all tables: their fields, in the order of their bytes.

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::Digest,
    index::schema::{SchemaError, Table},
    journal::operation::{
        ManifestId, NamedReference, OrganisationId, RepositoryId, decode_reference, encode_reference,
    },
    location::{Location, RecordKind, SegmentNumber},
    name::RepositoryName,
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
    (@put $e:ident, $v:expr, text) => { $e.str($v.as_str()) };
    (@put $e:ident, $v:expr, digest) => { $e.digest(&$v) };
    (@put $e:ident, $v:expr, optional_digest) => { $e.option($v, |e, digest| { e.digest(&digest); }) };
    (@put $e:ident, $v:expr, optional_text) => { $e.option($v.as_deref(), |e, text| { e.str(text); }) };
    (@put $e:ident, $v:expr, record_kind) => { $e.u8($v as u8) };
    (@put $e:ident, $v:expr, location) => { $e.u64($v.segment.0).u64($v.offset) };
    (@put $e:ident, $v:expr, segment) => { $e.u64($v.0) };
    (@put $e:ident, $v:expr, references) => { $e.list(&$v, encode_reference) };
    (@put $e:ident, $v:expr, chain) => { $e.raw(&$v) };
    (@put $e:ident, $v:expr, $number:ident) => { $e.$number($v) };
    (@get $d:ident, text, $field:expr) => { $d.parsed($field)? };
    (@get $d:ident, optional_digest, $field:expr) => { $d.option($field, |d| d.digest($field))? };
    (@get $d:ident, optional_text, $field:expr) => { $d.option($field, |d| d.str($field).map(str::to_owned))? };
    (@get $d:ident, record_kind, $field:expr) => {
        RecordKind::from_code($d.u8($field)?).ok_or(DecodeError { field: $field, problem: "unknown" })?
    };
    (@get $d:ident, location, $field:expr) => {
        Location { segment: SegmentNumber($d.u64($field)?), offset: $d.u64($field)? }
    };
    (@get $d:ident, segment, $field:expr) => { SegmentNumber($d.u64($field)?) };
    (@get $d:ident, references, $field:expr) => { $d.list($field, decode_reference)? };
    (@get $d:ident, chain, $field:expr) => {{
        let mut bytes = [0; 16];
        bytes.copy_from_slice($d.raw(16, $field)?);
        bytes
    }};
    (@get $d:ident, $other:ident, $field:expr) => { $d.$other($field)? };
}

row! {
    /// How far the journal is applied, and what it has given out. One row, rewritten by every batch.
    Applied in Meta {
        /// [`super::INDEX_VERSION`] of the orlop that wrote it.
        version: u32 u32,
        /// The store that the index belongs to.
        store: chain [u8; 16],
        /// Last logical operation.
        lsn: u64 u64,
        /// Last local record.
        local: u64 u64,
        /// The journal's chain value there.
        chain: chain [u8; 16],
        /// Time of the last batch, in Unix milliseconds.
        time_ms: u64 u64,
        /// Organisation ids that were given out.
        organisations: u32 u32,
        /// Repository ids that were given out.
        repositories: u32 u32,
        /// Manifest ids that were given out.
        manifests: u64 u64,
        /// The first segment number that the journal never named.
        next_segment: u64 u64,
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
        /// When it was last uploaded or mounted, in Unix milliseconds.
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
        /// Tags that point to it.
        tags: u32 u32,
        /// Manifests of the repository that name it as child.
        parents: u32 u32,
        /// Descriptors that it names.
        references: u32 u32,
        /// When it was last pushed, in Unix milliseconds.
        pushed_ms: u64 u64,
        /// When it was deleted or lost its last tag or parent; 0 when neither happened since the last push.
        left_ms: u64 u64,
        /// Until when it can be restored, counted from there; 0 likewise.
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
    /// manifest id, page → a part of what it names
    ReferencesRow in References {
        /// At most [`super::REFERENCES_PER_ROW`].
        references: references Vec<NamedReference>,
    }
}

row! {
    /// repository, digest → how many manifests name as child what has not come there yet
    AwaitedRow in Awaited {
        /// Manifests of the repository, deleted ones included; they become the child's parents when it comes.
        parents: u32 u32,
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
    }
}

row! {
    /// repository, tag, 0, LSN → what the tag pointed to from then on
    HistoryRow in History {
        /// The manifest's digest; `None` when the tag was removed.
        digest: optional_digest Option<Digest>,
        /// When, in Unix milliseconds.
        time_ms: u64 u64,
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
    /// scope, digest → how often it is named there
    CountRow in Counts {
        /// In a repository: manifests that name it. In an organisation: repositories that name and link it. In the
        /// registry: organisations where that is so.
        named: u64 u64,
        /// The same of live manifests only.
        live: u64 u64,
        /// Length in bytes; in a repository 0 until it is linked.
        size: u64 u64,
    }
}

row! {
    /// scope, manifest digest → in how many parts of the scope it is
    ManifestCountRow in ManifestCounts {
        /// In an organisation: repositories that have it. In the registry: organisations that have it.
        count: u64 u64,
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
        /// Bytes that only held manifests keep.
        reclaimable_bytes: u64 u64,
        /// Follow-up steps that are still to be done.
        settling: u64 u64,
    }
}

row! {
    /// time, repository, digest → nothing: a link that no manifest names, and when its grace ends
    DueRow in Due {}
}

row! {
    /// segment number → what is known of it
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
    }
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
