//! The derived rows, counted again from the primary ones.
//!
//! Primary are policies, repositories, links, manifests with their references, tags, pulls, and the places of content. From these alone
//! every other row of names, ids, counts, usage and due times follows, and so do the live bytes of segments. The state hash
//! is worked out anew from the facts of each repository. A recount
//! shares no code with `counts`: it builds sets and adds them up, where that keeps totals by single steps. It changes
//! nothing, and it has no opinion on which side is right.
//!
//! Invariant: a row of these tables is either explained by primary rows, byte for byte, or reported. Not looked at are
//! open uploads, which nothing is derived from. The memory is taken for the rows, and for the tags of governed repositories.

use std::{collections::BTreeMap, fmt, ops::ControlFlow};

use crate::{
    codec::{DecodeError, Decoder},
    digest::Digest,
    index::{
        View,
        schema::{
            self, Applied, BlobRow, DeadRow, DropRow, DroppedRow, DueDropRow, DueHistoryRow, DueLinkRow, HistoryRow,
            Key, LinkRow, ManifestIdRow, ManifestRow, ManifestTagRow, NameRow, NamedDigest, OrganisationNameRow,
            OrganisationRow, PullRow, ReferencesRow, ReferrerRow, RepositoryNameRow, RepositoryRow, RowValue,
            SchemaError, SegmentRow, SparseRow, StateHash, Table, TagRow, key,
        },
    },
    journal::operation::{ManifestId, OrganisationId, RepositoryId},
    location::SegmentNumber,
    name::RepositoryName,
    policy::{self, Policy},
    state::{dump, hash},
};

mod lives;
mod policies;
mod usage;

use lives::{AllManifests, Found};
use policies::TagRows;
use usage::Parts;

/// Bytes of memory that counting may take for each byte of manifests, references, links, tags and places in the index: twice
/// what was measured.
pub const MEMORY_FACTOR: u64 = 16;

/// Whether counting reads a row for itself. Counts of the registry and of organisations are told by other rows; they are read
/// only where they lie between these.
pub fn is_counted_from(key: &[u8]) -> bool {
    !matches!(Table::of(key), Some(Table::RegistryCounts | Table::OrganisationCounts))
}

/// A row that is not what the primary rows add up to; the rows are told as `dump` tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What the index has; `None` when the row is missing.
    pub stored: Option<String>,
    /// What it should have; `None` when nothing explains the row.
    pub expected: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |row: &Option<String>| row.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "the index has {}; counted was {}", shown(&self.stored), shown(&self.expected))
    }
}

/// Tables of which every row is counted again.
const COUNTED: [Table; 39] = [
    Table::OrganisationNames,
    Table::Organisations,
    Table::RepositoryNames,
    Table::Manifests,
    Table::ManifestIds,
    Table::Names,
    Table::References,
    Table::Parents,
    Table::Tags,
    Table::Referrers,
    Table::ManifestTags,
    Table::Pulls,
    Table::Counts,
    Table::RegistryCounts,
    Table::OrganisationCounts,
    Table::Usage,
    Table::DueLinks,
    Table::DueManifests,
    Table::DueHistory,
    Table::EmptyRepositories,
    Table::DueDrops,
    Table::Settling,
    Table::LaterRoots,
    Table::Sparse,
    Table::Dropped,
    Table::History,
    Table::Segments,
    Table::Repositories,
    Table::Policies,
    Table::PolicyUsage,
    Table::Governed,
    Table::NewestTags,
    Table::SpareTags,
    Table::DueTags,
    Table::DueRepositories,
    Table::Uses,
    Table::ByUse,
    Table::DueRoots,
    Table::Reviewing,
];

/// Counts everything again and reports each row that differs, in no particular order. It holds about as much memory as
/// the counted tables have bytes.
///
/// # Errors
/// When the index fails, or a row does not decode.
pub fn recount(view: &dyn View, report: &mut dyn FnMut(Difference)) -> Result<(), SchemaError> {
    explain(view, report)?.compare(view, report)
}

/// The rows that the primary ones add up to.
#[derive(Debug)]
pub struct Explained {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    state_hash: StateHash,
}

/// The first half of [`recount`]: works the rows out, and reports what is wrong with primary ones already. All of its
/// memory is taken here.
///
/// # Errors
/// As [`recount`].
pub fn explain(view: &dyn View, report: &mut dyn FnMut(Difference)) -> Result<Explained, SchemaError> {
    let mut recount = Recount { view, report, rows: BTreeMap::new(), repositories: BTreeMap::new() };
    let mut ids = Ids::default();
    let policies = recount.policies()?;
    recount.repositories(&policies, &mut ids)?;
    let mut totals = Totals::default();
    let (tags, tag_rows) = recount.tags(&mut totals)?;
    let mut manifests = recount.manifests(&tags, &mut ids)?;
    recount.lives(&mut manifests)?;
    let named = named_of(&manifests);
    let links = recount.links(&named, &mut totals)?;
    recount.history(&mut totals)?;
    recount.usage(&named, &links, &totals)?;
    recount.governed(&policies, tag_rows, &manifests)?;
    recount.pulls()?;
    recount.drops()?;
    recount.segments(&mut ids)?;
    recount.ids(&ids)?;
    let state_hash = recount.state_hash();
    Ok(Explained { rows: recount.rows, state_hash })
}

impl Explained {
    /// The hash over the facts of all repositories, from these alone.
    pub fn state_hash(&self) -> StateHash {
        self.state_hash
    }

    /// The second half: reports each row of the same view that is not explained, or not as it is.
    ///
    /// # Errors
    /// As [`recount`].
    pub fn compare(mut self, view: &dyn View, report: &mut dyn FnMut(Difference)) -> Result<(), SchemaError> {
        for table in COUNTED {
            schema::each_row_of(view, table, |key, value| {
                let expected = self.rows.remove(key);
                if expected.as_deref() != Some(value) {
                    let expected = expected.map(|row| dump::show(table, key, &row)).transpose()?;
                    let stored = Some(dump::show(table, key, value)?);
                    report(Difference { stored, expected });
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        for (key, row) in self.rows {
            let table = Table::of(&key).ok_or(SchemaError::Missing { table: "any" })?;
            report(Difference { stored: None, expected: Some(dump::show(table, &key, &row)?) });
        }
        Ok(())
    }
}

/// Ids that are in use; none of them may be given out again.
#[derive(Default)]
struct Ids {
    organisation: OrganisationId,
    repository: RepositoryId,
    manifest: ManifestId,
    segment: u64,
}

/// Who names a digest in a repository.
#[derive(Default)]
struct Named {
    /// Manifests that name it as a blob.
    as_blob: u64,
    /// Live ones of them.
    live: u64,
}

/// What is summed up in a repository.
#[derive(Default)]
struct Totals {
    tags: BTreeMap<RepositoryId, u64>,
    links: BTreeMap<RepositoryId, u64>,
    history: BTreeMap<RepositoryId, u64>,
}

type AllNamed = BTreeMap<(RepositoryId, Digest), Named>;
type AllTags = BTreeMap<(RepositoryId, ManifestId), u32>;

struct Recount<'a> {
    view: &'a dyn View,
    report: &'a mut dyn FnMut(Difference),
    /// The rows as they should be.
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    repositories: BTreeMap<RepositoryId, Repository>,
}

/// A repository that is there.
struct Repository {
    name: RepositoryName,
    organisation: OrganisationId,
    /// Over its facts so far.
    state_hash: StateHash,
}

impl Recount<'_> {
    fn expect<R: RowValue>(&mut self, key: Key, row: &R) {
        self.rows.insert(key.bytes(), row.to_bytes());
    }

    fn organisation(&self, repository: RepositoryId) -> Result<OrganisationId, SchemaError> {
        let repository = self.repositories.get(&repository);
        repository.map(|it| it.organisation).ok_or(SchemaError::Missing { table: "repositories" })
    }

    /// Adds a fact to the hash of its repository. That one is missing is told by other rows that name it.
    fn hash(&mut self, repository: RepositoryId, fact: impl FnOnce(&RepositoryName) -> Vec<u8>) {
        if let Some(repository) = self.repositories.get_mut(&repository) {
            repository.state_hash += StateHash::of(&fact(&repository.name));
        }
    }

    fn repositories(&mut self, policies: &[Policy], ids: &mut Ids) -> Result<(), SchemaError> {
        each(
            self.view,
            Table::Repositories,
            |d| d.key_u32("repository"),
            |repository, row: RepositoryRow| {
                let state_hash = StateHash::of(&hash::repository(&row.name, &row));
                let policy = policy::governing(policies, &row.name).map(|policy| policy.name.as_str().to_owned());
                let (governed, policy) = (policy.is_some(), policy.unwrap_or_default());
                let row = RepositoryRow { governed, policy, ..row };
                self.expect(key::repository(repository), &row);
                let RepositoryRow { name, organisation, .. } = row;
                let organisation_name = name.organisation().to_owned();
                ids.repository = ids.repository.max(repository);
                ids.organisation = ids.organisation.max(organisation);
                self.expect(key::repository_name(name.as_str()), &RepositoryNameRow { repository, organisation });
                self.expect(key::organisation_name(&organisation_name), &OrganisationNameRow { organisation });
                self.expect(key::organisation(organisation), &OrganisationRow { name: organisation_name });
                self.repositories.insert(repository, Repository { name, organisation, state_hash });
                Ok(())
            },
        )
    }

    /// Every tag points to a manifest that is there and not deleted; how many point to each.
    fn tags(&mut self, totals: &mut Totals) -> Result<(AllTags, TagRows), SchemaError> {
        let (mut tags, mut rows) = (AllTags::new(), TagRows::new());
        let parts = |d: &mut Decoder<'_>| Ok((d.key_u32("repository")?, key::read_tag(d)?));
        each(self.view, Table::Tags, parts, |(repository, tag), row: TagRow| {
            self.hash(repository, |name| hash::tag(name, &tag, &row));
            let target: Option<ManifestRow> = schema::get(self.view, key::manifest(repository, &row.digest))?;
            if let Some(target) = target.filter(|target| !target.deleted) {
                self.expect(key::tag(repository, &tag), &TagRow { manifest: target.manifest, ..row.clone() });
            }
            self.expect(key::manifest_tag(repository, row.manifest, &tag), &ManifestTagRow {});
            *tags.entry((repository, row.manifest)).or_default() += 1;
            *totals.tags.entry(repository).or_default() += 1;
            rows.entry(repository).or_default().push((tag, row));
            Ok(())
        })?;
        Ok((tags, rows))
    }

    /// Every entry of a tag's history but its present one is due some time.
    fn history(&mut self, totals: &mut Totals) -> Result<(), SchemaError> {
        let parts = |d: &mut Decoder<'_>| Ok((d.key_u32("repository")?, key::read_history(d)?));
        each(self.view, Table::History, parts, |(repository, (tag, lsn)), row: HistoryRow| {
            self.hash(repository, |name| hash::history(name, &tag, lsn, &row));
            let present: Option<TagRow> = schema::get(self.view, key::tag(repository, &tag))?;
            if present.is_some_and(|present| present.lsn == lsn && Some(present.digest) == row.digest) {
                self.expect(key::history(repository, &tag, lsn), &HistoryRow { until_ms: 0, ..row });
            } else {
                self.expect(key::due_history(row.until_ms, repository, &tag, lsn), &DueHistoryRow {});
                self.expect(key::history(repository, &tag, lsn), &row);
            }
            *totals.history.entry(repository).or_default() += 1;
            Ok(())
        })
    }

    /// What each manifest brings: its id, references, names and referrer row.
    fn manifests(&mut self, tags: &AllTags, ids: &mut Ids) -> Result<AllManifests, SchemaError> {
        let mut manifests = AllManifests::new();
        each(self.view, Table::Manifests, manifest_parts, |(repository, digest), row: ManifestRow| {
            let manifest = row.manifest;
            ids.manifest = ids.manifest.max(manifest);
            self.expect(key::manifest_id(manifest), &ManifestIdRow { repository, digest });
            if let Some(subject) = &row.subject {
                self.expect(key::referrer(repository, subject, &digest), &ReferrerRow { manifest });
            }
            self.expect_content(&digest, row.size)?;
            let named = self.references(repository, manifest)?;
            let references = named.iter().map(|named| named.roles.count_ones()).sum();
            let tags = tags.get(&(repository, manifest)).copied().unwrap_or_default();
            let row = ManifestRow { references, references_hash: hash::references(&named), tags, ..row };
            self.hash(repository, |name| hash::manifest(name, &digest, &row));
            manifests.insert((repository, digest), Found::new(row, named));
            Ok(())
        })?;
        Ok(manifests)
    }

    fn references(&mut self, repository: RepositoryId, manifest: ManifestId) -> Result<Vec<NamedDigest>, SchemaError> {
        let mut named = Vec::new();
        schema::each_row(self.view, &Key::of(Table::References).u64(manifest).bytes(), |_, value| {
            named.extend(ReferencesRow::from_bytes(value)?.references);
            Ok(ControlFlow::Continue(()))
        })?;
        for (page, references) in named.chunks(schema::REFERENCES_PER_ROW).enumerate() {
            let row = ReferencesRow { references: references.to_vec() };
            self.expect(key::references(manifest, page as u32), &row);
        }
        for named in &named {
            self.expect(key::name(&named.digest, repository, manifest), &NameRow { roles: named.roles });
        }
        Ok(named)
    }

    /// A link is due exactly when no manifest of its repository names it. Who links what.
    fn links(&mut self, named: &AllNamed, totals: &mut Totals) -> Result<Parts, SchemaError> {
        let mut parts = Parts::default();
        each(self.view, Table::Links, link_parts, |(repository, digest), row: LinkRow| {
            self.hash(repository, |name| hash::link(name, &digest, &row));
            self.expect_content(&digest, row.size)?;
            if named.get(&(repository, digest)).is_none_or(|named| named.as_blob == 0) {
                self.expect(key::due_link(row.due_ms, repository, &digest), &DueLinkRow {});
            }
            *totals.links.entry(repository).or_default() += 1;
            parts.add(self.organisation(repository)?, repository, digest, row.size);
            Ok(())
        })?;
        Ok(parts)
    }

    /// Whatever was pulled is there.
    fn pulls(&mut self) -> Result<(), SchemaError> {
        each(
            self.view,
            Table::Pulls,
            |d| Ok((d.key_u32("repository")?, d.digest("digest")?)),
            |(repository, digest), row: PullRow| {
                if self.rows.contains_key(&key::manifest(repository, &digest).bytes()) {
                    self.expect(key::pull(repository, &digest), &row);
                }
                Ok(())
            },
        )
    }

    /// The records of drops can be found by digest, and are forgotten some time.
    fn drops(&mut self) -> Result<(), SchemaError> {
        each(
            self.view,
            Table::Drops,
            |d| d.key_u64("lsn"),
            |lsn, row: DropRow| {
                self.expect(key::dropped(&row.digest, lsn), &DroppedRow {});
                self.expect(key::due_drop(row.until_ms, lsn), &DueDropRow {});
                Ok(())
            },
        )
    }

    /// The bytes of what is linked or stored as manifest lie somewhere, in the right length.
    fn expect_content(&mut self, digest: &Digest, size: u64) -> Result<(), SchemaError> {
        let stored: Option<BlobRow> = schema::get(self.view, key::blob(digest))?;
        if stored.as_ref().is_none_or(|stored| stored.size != size) {
            let stored = stored.map(|row| format!("blobs digest={digest} of {} bytes", row.size));
            let expected = Some(format!("blobs digest={digest} of {size} bytes"));
            (self.report)(Difference { stored, expected });
        }
        Ok(())
    }

    /// What is live in each segment, that the journal names it at least as far, and that no byte counts as erased twice.
    fn segments(&mut self, ids: &mut Ids) -> Result<(), SchemaError> {
        let mut segments: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        each(self.view, Table::Blobs, key::read_by_digest, |_, row: BlobRow| {
            let (bytes, records, end) = segments.entry(row.location.segment.0).or_default();
            *bytes = bytes.saturating_add(row.record_len);
            *records += 1;
            *end = (*end).max(row.location.offset.saturating_add(row.record_len));
            Ok(())
        })?;
        let mut dead_bytes: BTreeMap<u64, u64> = BTreeMap::new();
        let place = |d: &mut Decoder<'_>| Ok((d.key_u64("segment")?, d.key_u64("offset")?));
        each(self.view, Table::Dead, place, |(segment, _), row: DeadRow| {
            *dead_bytes.entry(segment).or_default() += row.record_len;
            Ok(())
        })?;
        each(
            self.view,
            Table::Segments,
            |d| d.key_u64("segment"),
            |number, row: SegmentRow| {
                ids.segment = ids.segment.max(number);
                let (live_bytes, live_records, end) = segments.remove(&number).unwrap_or_default();
                let committed_end = row.committed_end.max(end);
                let known_bytes = live_bytes.saturating_add(dead_bytes.remove(&number).unwrap_or_default());
                let erased_bytes = row.erased_bytes.min(committed_end.saturating_sub(known_bytes));
                let row = SegmentRow { live_bytes, live_records, committed_end, erased_bytes, ..row };
                self.expect(key::segment(SegmentNumber(number)), &row);
                if row.is_sparse() {
                    self.expect(key::sparse(SegmentNumber(number)), &SparseRow {});
                }
                Ok(())
            },
        )?;
        for (number, (_, records, _)) in segments {
            let expected = Some(format!("segments segment={number} with {records} live records"));
            (self.report)(Difference { stored: None, expected });
        }
        Ok(())
    }

    fn ids(&mut self, used: &Ids) -> Result<(), SchemaError> {
        let Some(applied) = schema::get::<Applied>(self.view, key::applied())? else { return Ok(()) };
        let free = applied.organisations >= used.organisation
            && applied.repositories >= used.repository
            && applied.manifests >= used.manifest
            && applied.next_segment > used.segment;
        if !free {
            let Ids { organisation, repository, manifest, segment } = used;
            let used = format!(
                "organisation {organisation}, repository {repository}, manifest {manifest} and segment {segment} in use"
            );
            (self.report)(Difference { stored: Some(format!("{applied:?}")), expected: Some(used) });
        }
        Ok(())
    }
}

/// Who names what as a blob.
fn named_of(manifests: &AllManifests) -> AllNamed {
    let mut all = AllNamed::new();
    for ((repository, _), manifest) in manifests {
        for named in manifest.named.iter().filter(|named| named.is_blob()) {
            let named = all.entry((*repository, named.digest)).or_default();
            named.as_blob += 1;
            named.live += u64::from(manifest.is_live());
        }
    }
    all
}

/// Visits all rows of a table with what their keys are made of.
fn each<R: RowValue, K>(
    view: &dyn View,
    table: Table,
    parts: impl Fn(&mut Decoder<'_>) -> Result<K, DecodeError>,
    mut visit: impl FnMut(K, R) -> Result<(), SchemaError>,
) -> Result<(), SchemaError> {
    schema::each_row_of(view, table, |key, value| {
        let mut d = Decoder::new(&key[1..]);
        let key = parts(&mut d).and_then(|key| d.finish("key").map(|()| key));
        visit(key.map_err(|source| SchemaError::Row { table: table.name(), source })?, R::from_bytes(value)?)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn link_parts(d: &mut Decoder<'_>) -> Result<(RepositoryId, Digest), DecodeError> {
    let digest = key::read_by_digest(d)?;
    Ok((d.key_u32("repository")?, digest))
}

fn manifest_parts(d: &mut Decoder<'_>) -> Result<(RepositoryId, Digest), DecodeError> {
    Ok((d.key_u32("repository")?, d.digest("digest")?))
}
