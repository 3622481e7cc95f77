//! The tables: their keys and rows as bytes.
//!
//! One column family; a prefix byte names the table. Tables by digest share one: there the digest comes next, and then the
//! byte of the table, so that all rows of a digest lie side by side and its bytes are stored once. Keys hold numbers
//! big-endian, so that key order is number order; rows are little-endian. FORMAT.md, *Index*, tells all of them. The index
//! is derived: a change here raises [`INDEX_VERSION`], and every index of another version is rebuilt from the journal at
//! open.

use crate::{
    codec::DecodeError,
    digest::Digest,
    index::{IndexError, Overlay, View},
    journal::operation::{OrganisationId, RepositoryId},
};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod key;
mod row;
mod scan;
mod state_hash;

pub use row::*;
pub use scan::*;
pub use state_hash::StateHash;

/// Version of all tables together.
pub const INDEX_VERSION: u32 = 8;
/// The prefix byte of all tables by digest.
pub const BY_DIGEST: u8 = 0x20;
/// Digests in one row of the references table.
pub const REFERENCES_PER_ROW: usize = 1_000;

/// Why a row could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SchemaError {
    /// The index did not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// It answered with bytes that are no row.
    #[error("the index is damaged: a row of table {table} does not decode ({source})")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A row that another row calls for is not there.
    #[error("the index is damaged: table {table} lacks a row that another table names")]
    Missing {
        /// The table.
        table: &'static str,
    },
}

/// The byte of a table: the prefix of its keys; of a table by digest, what follows the digest in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "FORMAT.md tells each table; the names are theirs")]
pub enum Table {
    Meta = 0x01,
    OrganisationNames = 0x10,
    Organisations = 0x11,
    RepositoryNames = 0x12,
    Repositories = 0x13,
    Blobs = 0x21,
    RegistryCounts = 0x22,
    OrganisationCounts = 0x23,
    Links = 0x24,
    Manifests = 0x30,
    ManifestIds = 0x31,
    Names = 0x32,
    References = 0x33,
    Parents = 0x34,
    Tags = 0x40,
    History = 0x41,
    Referrers = 0x42,
    ManifestTags = 0x43,
    Pulls = 0x44,
    Counts = 0x50,
    Usage = 0x51,
    Samples = 0x53,
    DueLinks = 0x60,
    DueManifests = 0x61,
    DueHistory = 0x62,
    EmptyRepositories = 0x63,
    DueDrops = 0x64,
    Settling = 0x65,
    LaterRoots = 0x66,
    Segments = 0x70,
    Uploads = 0x71,
    Dead = 0x72,
    Sparse = 0x73,
    Drops = 0x80,
    Dropped = 0x81,
    Reports = 0x82,
    Pauses = 0x83,
    Quotas = 0x90,
    Policies = 0x91,
    PolicyUsage = 0x92,
    Governed = 0x93,
    NewestTags = 0x94,
    SpareTags = 0x95,
    DueTags = 0x96,
    DueRepositories = 0x97,
    Uses = 0x98,
    ByUse = 0x99,
    DueRoots = 0x9a,
    Reviewing = 0x9b,
}

impl Table {
    /// All tables, in the order of their bytes.
    pub const ALL: [Self; 49] = [
        Self::Meta,
        Self::OrganisationNames,
        Self::Organisations,
        Self::RepositoryNames,
        Self::Repositories,
        Self::Blobs,
        Self::RegistryCounts,
        Self::OrganisationCounts,
        Self::Links,
        Self::Manifests,
        Self::ManifestIds,
        Self::Names,
        Self::References,
        Self::Parents,
        Self::Tags,
        Self::History,
        Self::Referrers,
        Self::ManifestTags,
        Self::Pulls,
        Self::Counts,
        Self::Usage,
        Self::Samples,
        Self::DueLinks,
        Self::DueManifests,
        Self::DueHistory,
        Self::EmptyRepositories,
        Self::DueDrops,
        Self::Settling,
        Self::LaterRoots,
        Self::Segments,
        Self::Uploads,
        Self::Dead,
        Self::Sparse,
        Self::Drops,
        Self::Dropped,
        Self::Reports,
        Self::Pauses,
        Self::Quotas,
        Self::Policies,
        Self::PolicyUsage,
        Self::Governed,
        Self::NewestTags,
        Self::SpareTags,
        Self::DueTags,
        Self::DueRepositories,
        Self::Uses,
        Self::ByUse,
        Self::DueRoots,
        Self::Reviewing,
    ];

    /// The tables whose rows are facts of repositories, of which the state hash is.
    pub const HASHED: [Self; 5] = [Self::Repositories, Self::Links, Self::Manifests, Self::Tags, Self::History];

    /// The table's name, as FORMAT.md has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::OrganisationNames => "organisation-names",
            Self::Organisations => "organisations",
            Self::RepositoryNames => "repository-names",
            Self::Repositories => "repositories",
            Self::Blobs => "blobs",
            Self::RegistryCounts => "registry-counts",
            Self::OrganisationCounts => "organisation-counts",
            Self::Links => "links",
            Self::Manifests => "manifests",
            Self::ManifestIds => "manifest-ids",
            Self::Names => "names",
            Self::References => "references",
            Self::Parents => "parents",
            Self::Tags => "tags",
            Self::History => "history",
            Self::Referrers => "referrers",
            Self::ManifestTags => "manifest-tags",
            Self::Pulls => "pulls",
            Self::Counts => "counts",
            Self::Usage => "usage",
            Self::Samples => "samples",
            Self::DueLinks => "due-links",
            Self::DueManifests => "due-manifests",
            Self::DueHistory => "due-history",
            Self::EmptyRepositories => "empty-repositories",
            Self::DueDrops => "due-drops",
            Self::Settling => "settling",
            Self::LaterRoots => "later-roots",
            Self::Segments => "segments",
            Self::Uploads => "uploads",
            Self::Dead => "dead",
            Self::Sparse => "sparse",
            Self::Drops => "drops",
            Self::Dropped => "dropped",
            Self::Reports => "reports",
            Self::Pauses => "pauses",
            Self::Quotas => "quotas",
            Self::Policies => "policies",
            Self::PolicyUsage => "policy-usage",
            Self::Governed => "governed",
            Self::NewestTags => "newest-tags",
            Self::SpareTags => "spare-tags",
            Self::DueTags => "due-tags",
            Self::DueRepositories => "due-repositories",
            Self::Uses => "uses",
            Self::ByUse => "by-use",
            Self::DueRoots => "due-roots",
            Self::Reviewing => "reviewing",
        }
    }

    /// What the table's keys are made of, behind the prefix byte.
    pub fn key_parts(self) -> &'static [KeyPart] {
        use KeyPart::{Digest, Own, Scope, Session, Text, TextDown, U32, U64, U64Down};
        match self {
            Self::Meta | Self::OrganisationNames | Self::RepositoryNames => &[Text("name")],
            Self::Organisations => &[U32("organisation")],
            Self::Repositories | Self::EmptyRepositories => &[U32("repository")],
            Self::Blobs | Self::RegistryCounts => &[Digest("digest"), Own],
            Self::OrganisationCounts => &[Digest("digest"), Own, U32("organisation")],
            Self::Links => &[Digest("digest"), Own, U32("repository")],
            Self::Manifests | Self::Parents | Self::Counts => &[U32("repository"), Digest("digest")],
            Self::ManifestIds | Self::Settling => &[U64("manifest")],
            Self::Names => &[Digest("digest"), U32("repository"), U64("manifest")],
            Self::References => &[U64("manifest"), U32("page")],
            Self::Tags => &[U32("repository"), Text("tag")],
            Self::History => &[U32("repository"), Text("tag"), U64("lsn")],
            Self::Referrers => &[U32("repository"), Digest("subject"), Digest("referrer")],
            Self::Pulls | Self::LaterRoots => &[U32("repository"), Digest("digest")],
            Self::ManifestTags => &[U32("repository"), U64("manifest"), Text("tag")],
            Self::Usage => &[Scope("scope")],
            Self::Samples => &[Scope("scope"), U32("day")],
            Self::DueLinks | Self::DueManifests => &[U64("due_ms"), U32("repository"), Digest("digest")],
            Self::DueHistory => &[U64("due_ms"), U32("repository"), Text("tag"), U64("lsn")],
            Self::DueDrops => &[U64("due_ms"), U64("lsn")],
            Self::Segments | Self::Sparse => &[U64("segment")],
            Self::Uploads => &[Session("session")],
            Self::Dead => &[U64("segment"), U64("offset")],
            Self::Drops => &[U64("lsn")],
            Self::Reports => &[U64("number")],
            Self::Pauses => &[U32("what")],
            Self::Quotas => &[Text("owner")],
            Self::Policies => &[Text("name")],
            Self::PolicyUsage => &[Text("name")],
            Self::Governed => &[U32("repository")],
            Self::NewestTags => &[U32("repository"), U64("set_ms"), Text("tag")],
            Self::SpareTags => &[U32("repository"), U64Down("set_ms"), TextDown("tag")],
            Self::DueTags => &[U32("repository"), U64("due_ms"), Text("tag")],
            Self::DueRepositories => &[U64("due_ms"), U32("repository")],
            Self::Uses => &[U32("repository"), Digest("digest")],
            Self::ByUse => &[Text("policy"), U64("used_ms"), U32("repository"), Digest("digest")],
            Self::DueRoots => &[U64("due_ms"), U32("repository"), Digest("digest")],
            Self::Reviewing => &[],
            Self::Dropped => &[Digest("digest"), U64("lsn")],
        }
    }

    /// The table that a key belongs to.
    pub fn of(key: &[u8]) -> Option<Self> {
        let (&prefix, rest) = key.split_first()?;
        let byte = if prefix == BY_DIGEST { *crate::digest::Digest::decode(rest)?.1.first()? } else { prefix };
        // Whoever reads or changes a row asks: no search.
        static BY_BYTE: [Option<Table>; 256] = by_byte();
        BY_BYTE[usize::from(byte)].filter(|table| table.prefix() == prefix)
    }

    /// Whether its rows lie between those of other tables, by digest.
    pub fn is_by_digest(self) -> bool {
        matches!(self, Self::Blobs | Self::RegistryCounts | Self::OrganisationCounts | Self::Links)
    }

    /// The byte that its keys begin with.
    fn prefix(self) -> u8 {
        if self.is_by_digest() { BY_DIGEST } else { self as u8 }
    }

    /// Whether its rows are such ones.
    fn has<R: RowValue>(self) -> bool {
        // Those of the registry and of organisations are counts like those of repositories.
        let is_count = matches!(self, Self::RegistryCounts | Self::OrganisationCounts);
        self == R::TABLE || (is_count && R::TABLE == Self::Counts)
    }
}

const fn by_byte() -> [Option<Table>; 256] {
    let (mut tables, mut at) = ([None; 256], 0);
    while at < Table::ALL.len() {
        tables[Table::ALL[at] as usize] = Some(Table::ALL[at]);
        at += 1;
    }
    tables
}

/// A part of a key and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPart {
    /// Four bytes, big-endian.
    U32(&'static str),
    /// Eight bytes, big-endian.
    U64(&'static str),
    /// The same, each bit turned around: the greatest comes first.
    U64Down(&'static str),
    /// A digest's binary form.
    Digest(&'static str),
    /// The byte of the table itself.
    Own,
    /// Text up to a zero byte or the end.
    Text(&'static str),
    /// Text up to the end, each bit turned around, and a byte 255: the last in byte order comes first.
    TextDown(&'static str),
    /// A scope: its kind, and an id of four bytes.
    Scope(&'static str),
    /// Sixteen bytes.
    Session(&'static str),
}

/// A key under construction.
#[derive(Debug, Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// The empty key of a table that is none by digest: the prefix of all its keys.
    pub fn of(table: Table) -> Self {
        debug_assert!(!table.is_by_digest());
        Self::begin(table)
    }

    /// The key of what a table by digest has of one: the prefix of all its keys of that.
    pub fn by_digest(table: Table, digest: &Digest) -> Self {
        debug_assert!(table.is_by_digest());
        Self::begin(table).digest(digest).raw(&[table as u8])
    }

    fn begin(table: Table) -> Self {
        // Enough for nearly all: growing step by step took more than all else of making a key.
        let mut bytes = Vec::with_capacity(72);
        bytes.push(table.prefix());
        Self(bytes)
    }

    /// Appends a number of four bytes.
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a number of eight bytes.
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a digest.
    pub fn digest(mut self, digest: &Digest) -> Self {
        digest.encode(&mut self.0);
        self
    }

    /// Appends text or other bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a scope.
    pub fn scope(self, scope: Scope) -> Self {
        let (kind, id) = scope.code();
        self.raw(&[kind]).u32(id)
    }

    /// The key's bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// What a count or a usage is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole registry.
    Registry,
    /// An organisation.
    Organisation(OrganisationId),
    /// A repository.
    Repository(RepositoryId),
}

impl Scope {
    fn code(self) -> (u8, u32) {
        match self {
            Self::Registry => (0, 0),
            Self::Organisation(id) => (1, id),
            Self::Repository(id) => (2, id),
        }
    }
}

/// Reads and decodes a row.
///
/// # Errors
/// When the index fails or the row is damaged.
pub fn get<R: RowValue>(view: &dyn View, key: Key) -> Result<Option<R>, SchemaError> {
    debug_assert!(Table::of(&key.0).is_some_and(Table::has::<R>));
    view.get(&key.0)?.map(|bytes| R::from_bytes(&bytes)).transpose()
}

/// Reads a row that another row calls for.
///
/// # Errors
/// When it is missing, too: that is damage.
pub fn expect<R: RowValue>(view: &dyn View, key: Key) -> Result<R, SchemaError> {
    get(view, key)?.ok_or(SchemaError::Missing { table: R::TABLE.name() })
}

/// Sets a row.
pub fn put<R: RowValue>(overlay: &mut Overlay<'_>, key: Key, row: &R) {
    debug_assert!(Table::of(&key.0).is_some_and(Table::has::<R>));
    overlay.put(key.0, row.to_bytes());
}

#[cfg(test)]
mod tests;
