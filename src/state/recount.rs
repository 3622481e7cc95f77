//! The derived rows, counted again from the primary ones.
//!
//! Primary are repositories, links, manifests with their references, tags, and the places of content. From these alone
//! every other row of names, ids, counts, usage and due times follows, and so do the live bytes of segments. A recount
//! shares no code with `counts`: it builds sets and adds them up, where that keeps totals by single steps. It changes
//! nothing, and it has no opinion on which side is right.
//!
//! Invariant: a row of these tables is either explained by primary rows, byte for byte, or reported. Not looked at are
//! history and open uploads, which nothing is derived from.

use std::{collections::BTreeMap, fmt, ops::ControlFlow};

use crate::{
    codec::{DecodeError, Decoder},
    digest::Digest,
    index::{
        View,
        schema::{
            self, Applied, AwaitedRow, BlobRow, DueRow, Key, LinkRow, ManifestIdRow, ManifestRow, ManifestTagRow,
            NameRow, OrganisationNameRow, OrganisationRow, ReferencesRow, ReferrerRow, RepositoryNameRow,
            RepositoryRow, RowValue, SchemaError, SegmentRow, Table, TagRow, key,
        },
    },
    journal::operation::{ManifestId, OrganisationId, RepositoryId, Role},
    name::Tag,
    state::dump,
};

mod usage;

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
const COUNTED: [Table; 16] = [
    Table::OrganisationNames,
    Table::Organisations,
    Table::RepositoryNames,
    Table::Manifests,
    Table::ManifestIds,
    Table::Names,
    Table::References,
    Table::Awaited,
    Table::Tags,
    Table::Referrers,
    Table::ManifestTags,
    Table::Counts,
    Table::Usage,
    Table::ManifestCounts,
    Table::Due,
    Table::Segments,
];

/// Counts everything again and reports each row that differs, in no particular order. It holds about as much memory as
/// the counted tables have bytes.
///
/// # Errors
/// When the index fails, or a row does not decode.
pub fn recount(view: &dyn View, report: &mut dyn FnMut(Difference)) -> Result<(), SchemaError> {
    let mut recount = Recount { view, report, rows: BTreeMap::new(), organisations: BTreeMap::new() };
    let mut ids = Ids::default();
    recount.repositories(&mut ids)?;
    let tags = recount.tags()?;
    let named = recount.manifests(&tags, &mut ids)?;
    recount.links(&named)?;
    recount.usage(&named, &tags)?;
    recount.segments(&mut ids)?;
    recount.ids(&ids)?;
    recount.compare()
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
    /// Manifests that name it as a child.
    as_child: u32,
}

type AllNamed = BTreeMap<(RepositoryId, Digest), Named>;
type AllTags = BTreeMap<(RepositoryId, ManifestId), u32>;

struct Recount<'a> {
    view: &'a dyn View,
    report: &'a mut dyn FnMut(Difference),
    /// The rows as they should be.
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    organisations: BTreeMap<RepositoryId, OrganisationId>,
}

impl Recount<'_> {
    fn expect<R: RowValue>(&mut self, key: Key, row: &R) {
        self.rows.insert(key.bytes(), row.to_bytes());
    }

    fn organisation(&self, repository: RepositoryId) -> Result<OrganisationId, SchemaError> {
        self.organisations.get(&repository).copied().ok_or(SchemaError::Missing { table: "repositories" })
    }

    fn repositories(&mut self, ids: &mut Ids) -> Result<(), SchemaError> {
        each(
            self.view,
            Table::Repositories,
            |d| be32(d, "repository"),
            |repository, row: RepositoryRow| {
                let RepositoryRow { name, organisation, .. } = row;
                let organisation_name = name.organisation().to_owned();
                self.organisations.insert(repository, organisation);
                ids.repository = ids.repository.max(repository);
                ids.organisation = ids.organisation.max(organisation);
                self.expect(key::repository_name(name.as_str()), &RepositoryNameRow { repository, organisation });
                self.expect(key::organisation_name(&organisation_name), &OrganisationNameRow { organisation });
                self.expect(key::organisation(organisation), &OrganisationRow { name: organisation_name });
                Ok(())
            },
        )
    }

    /// Every tag points to a manifest that is there and not deleted; how many point to each.
    fn tags(&mut self) -> Result<AllTags, SchemaError> {
        let mut tags = AllTags::new();
        let parts = |d: &mut Decoder<'_>| {
            let repository = be32(d, "repository")?;
            let text = std::str::from_utf8(d.rest()).ok().and_then(|text| text.parse::<Tag>().ok());
            d.raw(d.rest().len(), "tag")?;
            Ok((repository, text.ok_or(DecodeError { field: "tag", problem: "is none" })?))
        };
        each(self.view, Table::Tags, parts, |(repository, tag), row: TagRow| {
            let target: Option<ManifestRow> = schema::get(self.view, key::manifest(repository, &row.digest))?;
            if let Some(target) = target.filter(|target| !target.deleted) {
                self.expect(key::tag(repository, &tag), &TagRow { manifest: target.manifest, ..row.clone() });
            }
            self.expect(key::manifest_tag(repository, row.manifest, &tag), &ManifestTagRow {});
            *tags.entry((repository, row.manifest)).or_default() += 1;
            Ok(())
        })?;
        Ok(tags)
    }

    /// What each manifest brings: its id, references, names and referrer row; then its own row, which counts tags and
    /// parents.
    fn manifests(&mut self, tags: &AllTags, ids: &mut Ids) -> Result<AllNamed, SchemaError> {
        let mut named = AllNamed::new();
        let mut references = BTreeMap::new();
        each(self.view, Table::Manifests, manifest_parts, |(repository, digest), row: ManifestRow| {
            let manifest = row.manifest;
            ids.manifest = ids.manifest.max(manifest);
            self.expect(key::manifest_id(manifest), &ManifestIdRow { repository, digest });
            if let Some(subject) = &row.subject {
                self.expect(key::referrer(repository, subject, &digest), &ReferrerRow { manifest });
            }
            self.expect_content(&digest, row.size)?;
            references.insert(manifest, self.references(repository, manifest, &mut named)?);
            Ok(())
        })?;
        each(self.view, Table::Manifests, manifest_parts, |(repository, digest), row: ManifestRow| {
            let references = references.get(&row.manifest).copied().unwrap_or_default();
            let tags = tags.get(&(repository, row.manifest)).copied().unwrap_or_default();
            let parents = named.get(&(repository, digest)).map_or(0, |named| named.as_child);
            // Whether it ever lived by itself cannot be counted, only that it does not where something reaches it.
            let root = row.root && tags == 0 && parents == 0 && !row.deleted;
            self.expect(key::manifest(repository, &digest), &ManifestRow { references, tags, parents, root, ..row });
            Ok(())
        })?;
        for (&(repository, child), of) in named.iter().filter(|(_, of)| of.as_child > 0) {
            if schema::get::<ManifestRow>(self.view, key::manifest(repository, &child))?.is_none() {
                self.expect(key::awaited(repository, &child), &AwaitedRow { parents: of.as_child });
            }
        }
        Ok(named)
    }

    fn references(
        &mut self,
        repository: RepositoryId,
        manifest: ManifestId,
        named: &mut AllNamed,
    ) -> Result<u32, SchemaError> {
        let mut count = 0;
        let mut roles: BTreeMap<Digest, u8> = BTreeMap::new();
        let mut pages = Vec::new();
        schema::each_row(self.view, &Key::of(Table::References).u64(manifest).bytes(), |_, value| {
            pages.push(ReferencesRow::from_bytes(value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        for (page, row) in pages.iter().enumerate() {
            count += row.references.len() as u32;
            for reference in &row.references {
                *roles.entry(reference.digest).or_default() |= 1 << reference.role as u8;
            }
            self.expect(key::references(manifest, page as u32), row);
        }
        let child = 1 << Role::Child as u8;
        for (digest, roles) in roles {
            self.expect(key::name(&digest, repository, manifest), &NameRow { roles });
            let named = named.entry((repository, digest)).or_default();
            named.as_blob += u64::from(roles & !child != 0);
            named.as_child += u32::from(roles & child != 0);
        }
        Ok(count)
    }

    /// A link is due exactly when no manifest of its repository names it.
    fn links(&mut self, named: &AllNamed) -> Result<(), SchemaError> {
        let parts = |d: &mut Decoder<'_>| Ok((d.digest("digest")?, be32(d, "repository")?));
        each(self.view, Table::Links, parts, |(digest, repository), row: LinkRow| {
            self.expect_content(&digest, row.size)?;
            if named.get(&(repository, digest)).is_none_or(|named| named.as_blob == 0) {
                self.expect(key::due(row.due_ms, repository, &digest), &DueRow {});
            }
            Ok(())
        })
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

    /// What is live in each segment, and that the journal names it at least as far.
    fn segments(&mut self, ids: &mut Ids) -> Result<(), SchemaError> {
        let mut segments: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        each(
            self.view,
            Table::Blobs,
            |d| d.digest("digest"),
            |_, row: BlobRow| {
                let (bytes, records, end) = segments.entry(row.location.segment.0).or_default();
                *bytes = bytes.saturating_add(row.record_len);
                *records += 1;
                *end = (*end).max(row.location.offset.saturating_add(row.record_len));
                Ok(())
            },
        )?;
        each(
            self.view,
            Table::Segments,
            |d| be64(d, "segment"),
            |number, row: SegmentRow| {
                ids.segment = ids.segment.max(number);
                let (live_bytes, live_records, end) = segments.remove(&number).unwrap_or_default();
                let committed_end = row.committed_end.max(end);
                let row = SegmentRow { live_bytes, live_records, committed_end, ..row };
                self.expect(Key::of(Table::Segments).u64(number), &row);
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

    fn compare(mut self) -> Result<(), SchemaError> {
        for table in COUNTED {
            schema::each_row(self.view, &[table as u8], |key, value| {
                let expected = self.rows.remove(key);
                if expected.as_deref() != Some(value) {
                    let expected = expected.map(|row| dump::show(table, key, &row)).transpose()?;
                    let stored = Some(dump::show(table, key, value)?);
                    (self.report)(Difference { stored, expected });
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        for (key, row) in self.rows {
            let table = Table::of(&key).ok_or(SchemaError::Missing { table: "any" })?;
            (self.report)(Difference { stored: None, expected: Some(dump::show(table, &key, &row)?) });
        }
        Ok(())
    }
}

/// Visits all rows of a table with what their keys are made of.
fn each<R: RowValue, K>(
    view: &dyn View,
    table: Table,
    parts: impl Fn(&mut Decoder<'_>) -> Result<K, DecodeError>,
    mut visit: impl FnMut(K, R) -> Result<(), SchemaError>,
) -> Result<(), SchemaError> {
    schema::each_row(view, &[table as u8], |key, value| {
        let mut d = Decoder::new(&key[1..]);
        let key = parts(&mut d).and_then(|key| d.finish("key").map(|()| key));
        visit(key.map_err(|source| SchemaError::Row { table: table.name(), source })?, R::from_bytes(value)?)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn manifest_parts(d: &mut Decoder<'_>) -> Result<(RepositoryId, Digest), DecodeError> {
    Ok((be32(d, "repository")?, d.digest("digest")?))
}

/// Keys are big-endian.
fn be32(d: &mut Decoder<'_>, field: &'static str) -> Result<u32, DecodeError> {
    Ok(d.u32(field)?.swap_bytes())
}

fn be64(d: &mut Decoder<'_>, field: &'static str) -> Result<u64, DecodeError> {
    Ok(d.u64(field)?.swap_bytes())
}
