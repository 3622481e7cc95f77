//! What an operation or a local record changes in the index.
//!
//! Deterministic: the same operations give the same rows on every machine and at every replay. It reads only rows and the
//! operation itself, and refuses nothing; an error here is a failing or damaged index.

use crate::{
    digest::Digest,
    index::{
        Overlay,
        schema::{
            self, Applied, AwaitedRow, BlobRow, HistoryRow, LinkRow, ManifestIdRow, ManifestRow, ManifestTagRow,
            NameRow, OrganisationNameRow, OrganisationRow, REFERENCES_PER_ROW, ReferencesRow, ReferrerRow,
            RepositoryNameRow, RepositoryRow, SchemaError, SegmentRow, TagRow, UploadRow, key,
        },
    },
    journal::operation::{
        LocalRecord, ManifestContent, ManifestId, NamedReference, Operation, OrganisationId, Record, RepositoryId, Role,
    },
    location::SegmentNumber,
    name::{RepositoryName, Tag},
    state::counts::{self, Change},
};

/// When and as what an operation is applied.
#[derive(Debug, Clone, Copy)]
struct Moment {
    lsn: u64,
    time_ms: u64,
}

/// Applies the next record: it takes its number, and ids that it gives out are noted in `applied`. The time is that of
/// `applied`, in which the caller has put the batch's.
///
/// # Errors
/// When the index fails or is damaged.
pub fn record(overlay: &mut Overlay<'_>, applied: &mut Applied, record: &Record) -> Result<(), SchemaError> {
    match record {
        Record::Logical(record) => {
            applied.lsn += 1;
            let at = Moment { lsn: applied.lsn, time_ms: applied.time_ms };
            operation(overlay, applied, at, record)
        }
        Record::Local(record) => {
            applied.local += 1;
            local(overlay, applied, record)
        }
    }
}

fn operation(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    operation: &Operation,
) -> Result<(), SchemaError> {
    match operation {
        Operation::Intern { organisation, repository, name } => {
            intern(overlay, applied, at, *organisation, *repository, name);
            Ok(())
        }
        Operation::Link { repository, digest, size, mounted_from, due_ms } => {
            let row = LinkRow {
                size: *size,
                linked_ms: at.time_ms,
                due_ms: *due_ms,
                mounted_from: mounted_from.map_or(0, |id| u64::from(id) + 1),
            };
            link(overlay, *repository, digest, row)
        }
        Operation::Unlink { repository, digest } => unlink(overlay, *repository, digest),
        Operation::Push { repository, manifest, digest, content, tags, held_until_ms } => {
            if let Some(content) = content {
                applied.manifests = applied.manifests.max(*manifest);
                first_push(overlay, at, *repository, *manifest, digest, content)?;
            }
            revive(overlay, at, *repository, digest, tags.is_empty())?;
            for tag in tags {
                set_tag(overlay, at, *repository, tag, Some((*manifest, digest)), *held_until_ms)?;
            }
            Ok(())
        }
        Operation::Untag { repository, tags, held_until_ms } => {
            tags.iter().try_for_each(|tag| set_tag(overlay, at, *repository, tag, None, *held_until_ms))
        }
        Operation::Delete { repository, digest, held_until_ms, .. } => {
            delete(overlay, at, *repository, digest, *held_until_ms)
        }
    }
}

fn intern(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    organisation: OrganisationId,
    repository: RepositoryId,
    name: &RepositoryName,
) {
    if organisation > applied.organisations {
        applied.organisations = organisation;
        put_organisation(overlay, organisation, OrganisationRow { name: name.organisation().to_owned() });
    }
    applied.repositories = applied.repositories.max(repository);
    let row = RepositoryRow { name: name.clone(), organisation, created_ms: at.time_ms };
    put_repository(overlay, repository, &row);
}

pub(super) fn put_organisation(overlay: &mut Overlay<'_>, organisation: OrganisationId, row: OrganisationRow) {
    schema::put(overlay, key::organisation_name(&row.name), &OrganisationNameRow { organisation });
    schema::put(overlay, key::organisation(organisation), &row);
}

pub(super) fn put_repository(overlay: &mut Overlay<'_>, repository: RepositoryId, row: &RepositoryRow) {
    let name_row = RepositoryNameRow { repository, organisation: row.organisation };
    schema::put(overlay, key::repository_name(row.name.as_str()), &name_row);
    schema::put(overlay, key::repository(repository), row);
}

pub(super) fn link(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    row: LinkRow,
) -> Result<(), SchemaError> {
    let before: Option<LinkRow> = schema::get(overlay, key::link(repository, digest))?;
    let named = counts::is_named(overlay, repository, digest)?;
    if let Some(before) = &before {
        overlay.delete(key::due(before.due_ms, repository, digest).bytes());
    } else {
        counts::link_changed(overlay, repository, digest, row.size, Change::Enters)?;
    }
    if !named {
        schema::put(overlay, key::due(row.due_ms, repository, digest), &schema::DueRow {});
    }
    schema::put(overlay, key::link(repository, digest), &row);
    Ok(())
}

fn unlink(overlay: &mut Overlay<'_>, repository: RepositoryId, digest: &Digest) -> Result<(), SchemaError> {
    let Some(row) = schema::get::<LinkRow>(overlay, key::link(repository, digest))? else { return Ok(()) };
    overlay.delete(key::due(row.due_ms, repository, digest).bytes());
    overlay.delete(key::link(repository, digest).bytes());
    counts::link_changed(overlay, repository, digest, row.size, Change::Leaves)
}

/// The rows of a manifest that the repository did not have.
fn first_push(
    overlay: &mut Overlay<'_>,
    at: Moment,
    repository: RepositoryId,
    manifest: ManifestId,
    digest: &Digest,
    content: &ManifestContent,
) -> Result<(), SchemaError> {
    let row = ManifestRow {
        manifest,
        size: content.size,
        deleted: false,
        root: false,
        tags: 0,
        parents: 0,
        references: 0,
        pushed_ms: at.time_ms,
        left_ms: 0,
        held_until_ms: 0,
        media_type: content.media_type.clone(),
        artifact_type: content.artifact_type.clone(),
        subject: content.subject,
    };
    put_manifest(overlay, repository, digest, row, &content.references)
}

/// Brings a manifest into a repository that did not have it, with all that follows from what it names. The row's parents
/// and references are counted here.
pub(super) fn put_manifest(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    digest: &Digest,
    mut row: ManifestRow,
    references: &[NamedReference],
) -> Result<(), SchemaError> {
    row.parents = count_parents(overlay, repository, digest)?;
    row.references = references.len() as u32;
    let manifest = row.manifest;
    schema::put(overlay, key::manifest(repository, digest), &row);
    schema::put(overlay, key::manifest_id(manifest), &ManifestIdRow { repository, digest: *digest });
    for (page, references) in references.chunks(REFERENCES_PER_ROW).enumerate() {
        let row = ReferencesRow { references: references.to_vec() };
        schema::put(overlay, key::references(manifest, page as u32), &row);
    }
    if let Some(subject) = &row.subject {
        schema::put(overlay, key::referrer(repository, subject, digest), &ReferrerRow { manifest });
    }
    counts::manifest_changed(overlay, repository, digest, row.size, Change::Enters)?;
    name_all(overlay, repository, manifest, references)
}

/// Writes the names of a manifest: one row for each digest, which counts once however often it is named.
fn name_all(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    manifest: ManifestId,
    references: &[NamedReference],
) -> Result<(), SchemaError> {
    for reference in references {
        let key = key::name(&reference.digest, repository, manifest);
        let before: Option<NameRow> = schema::get(overlay, key.clone())?;
        let roles = before.as_ref().map_or(0, |row| row.roles);
        schema::put(overlay, key, &NameRow { roles: roles | 1 << reference.role as u8 });
        let is_first = |of_blobs: bool| roles & roles_of(of_blobs) == 0 && reference.role.is_blob() == of_blobs;
        if is_first(true) {
            counts::name_changed(overlay, repository, &reference.digest, Change::Enters)?;
        }
        if is_first(false) {
            parent_changed(overlay, repository, &reference.digest)?;
        }
    }
    Ok(())
}

/// The bits of the roles that name blobs, or of those that name manifests.
fn roles_of(blobs: bool) -> u8 {
    let child = 1 << Role::Child as u8;
    if blobs { !child } else { child }
}

/// A child is reached by one manifest more, and lives by itself no longer. One that has not come yet (sparse indexes) is
/// counted aside, so that its first push costs one read however many name it.
fn parent_changed(overlay: &mut Overlay<'_>, repository: RepositoryId, child: &Digest) -> Result<(), SchemaError> {
    if let Some(mut row) = schema::get::<ManifestRow>(overlay, key::manifest(repository, child))? {
        row.parents = row.parents.saturating_add(1);
        row.root = false;
        schema::put(overlay, key::manifest(repository, child), &row);
    } else {
        let awaited: Option<AwaitedRow> = schema::get(overlay, key::awaited(repository, child))?;
        let parents = awaited.map_or(0, |row| row.parents).saturating_add(1);
        schema::put(overlay, key::awaited(repository, child), &AwaitedRow { parents });
    }
    Ok(())
}

/// Manifests that have named a child before it came (sparse indexes); it is awaited no longer.
fn count_parents(overlay: &mut Overlay<'_>, repository: RepositoryId, child: &Digest) -> Result<u32, SchemaError> {
    let awaited: Option<AwaitedRow> = schema::get(overlay, key::awaited(repository, child))?;
    Ok(awaited.map_or(0, |row| {
        overlay.delete(key::awaited(repository, child).bytes());
        row.parents
    }))
}

/// A push makes a manifest present again; by digest, and with nothing that reaches it, it lives by itself.
fn revive(
    overlay: &mut Overlay<'_>,
    at: Moment,
    repository: RepositoryId,
    digest: &Digest,
    by_digest: bool,
) -> Result<(), SchemaError> {
    let mut row: ManifestRow = schema::expect(overlay, key::manifest(repository, digest))?;
    row.deleted = false;
    row.pushed_ms = at.time_ms;
    row.left_ms = 0;
    row.held_until_ms = 0;
    row.root |= by_digest && row.tags == 0 && row.parents == 0 && row.subject.is_none();
    schema::put(overlay, key::manifest(repository, digest), &row);
    Ok(())
}

/// Points a tag at a manifest, or removes it; what it pointed to before loses it.
fn set_tag(
    overlay: &mut Overlay<'_>,
    at: Moment,
    repository: RepositoryId,
    tag: &Tag,
    target: Option<(ManifestId, &Digest)>,
    held_until_ms: u64,
) -> Result<(), SchemaError> {
    let before: Option<TagRow> = schema::get(overlay, key::tag(repository, tag))?;
    let unchanged = matches!((&before, target), (Some(row), Some((manifest, _))) if row.manifest == manifest);
    if let Some(before) = before.as_ref().filter(|_| !unchanged) {
        overlay.delete(key::manifest_tag(repository, before.manifest, tag).bytes());
        let mut row: ManifestRow = schema::expect(overlay, key::manifest(repository, &before.digest))?;
        row.tags = row.tags.saturating_sub(1);
        if row.tags == 0 && !row.deleted {
            (row.left_ms, row.held_until_ms) = (at.time_ms, held_until_ms);
        }
        schema::put(overlay, key::manifest(repository, &before.digest), &row);
    }
    match target {
        Some((manifest, digest)) => {
            let row = TagRow { manifest, digest: *digest, set_ms: at.time_ms };
            schema::put(overlay, key::tag(repository, tag), &row);
            if unchanged {
                return Ok(());
            }
            reached_by_tag(overlay, repository, tag, manifest, digest)?;
            if before.is_none() {
                counts::tags_changed(overlay, repository, Change::Enters)?;
            }
        }
        None if before.is_some() => {
            overlay.delete(key::tag(repository, tag).bytes());
            counts::tags_changed(overlay, repository, Change::Leaves)?;
        }
        None => return Ok(()),
    }
    let row = HistoryRow { digest: target.map(|(_, digest)| *digest), time_ms: at.time_ms };
    schema::put(overlay, key::history(repository, tag, at.lsn), &row);
    Ok(())
}

/// A manifest is reached by one tag more, and lives by itself no longer.
pub(super) fn reached_by_tag(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    tag: &Tag,
    manifest: ManifestId,
    digest: &Digest,
) -> Result<(), SchemaError> {
    schema::put(overlay, key::manifest_tag(repository, manifest, tag), &ManifestTagRow {});
    let mut row: ManifestRow = schema::expect(overlay, key::manifest(repository, digest))?;
    row.tags = row.tags.saturating_add(1);
    row.root = false;
    schema::put(overlay, key::manifest(repository, digest), &row);
    Ok(())
}

fn delete(
    overlay: &mut Overlay<'_>,
    at: Moment,
    repository: RepositoryId,
    digest: &Digest,
    held_until_ms: u64,
) -> Result<(), SchemaError> {
    let mut row: ManifestRow = schema::expect(overlay, key::manifest(repository, digest))?;
    row.deleted = true;
    row.root = false;
    (row.left_ms, row.held_until_ms) = (at.time_ms, held_until_ms);
    schema::put(overlay, key::manifest(repository, digest), &row);
    Ok(())
}

fn local(overlay: &mut Overlay<'_>, applied: &mut Applied, record: &LocalRecord) -> Result<(), SchemaError> {
    match record {
        LocalRecord::Placed { digest, kind, single, location, len, record_len } => {
            if let Some(before) = schema::get::<BlobRow>(overlay, key::blob(digest))? {
                with_segment(overlay, applied, before.location.segment, |segment| {
                    segment.live_bytes = segment.live_bytes.saturating_sub(before.record_len);
                    segment.live_records = segment.live_records.saturating_sub(1);
                })?;
            }
            let row = BlobRow { kind: *kind, size: *len, location: *location, record_len: *record_len };
            schema::put(overlay, key::blob(digest), &row);
            with_segment(overlay, applied, location.segment, |segment| {
                segment.single = *single;
                segment.sealed |= *single;
                segment.committed_end = segment.committed_end.max(location.offset.saturating_add(*record_len));
                add_live(segment, *record_len);
            })
        }
        LocalRecord::Sealed { segment, len } => with_segment(overlay, applied, *segment, |row| {
            row.sealed = true;
            row.committed_end = row.committed_end.max(*len);
        }),
        LocalRecord::UploadMarked { session, repository, segment, bytes } => {
            applied.next_segment = applied.next_segment.max(segment.0.saturating_add(1));
            let row = UploadRow {
                repository: repository.clone(),
                segment: *segment,
                bytes: *bytes,
                time_ms: applied.time_ms,
            };
            schema::put(overlay, key::upload(session), &row);
            Ok(())
        }
        LocalRecord::UploadEnded { session } => {
            overlay.delete(key::upload(session).bytes());
            Ok(())
        }
    }
}

/// A segment has one live record more.
pub(super) fn add_live(segment: &mut SegmentRow, record_len: u64) {
    segment.live_bytes = segment.live_bytes.saturating_add(record_len);
    segment.live_records += 1;
}

pub(super) fn with_segment(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    number: SegmentNumber,
    change: impl FnOnce(&mut SegmentRow),
) -> Result<(), SchemaError> {
    applied.next_segment = applied.next_segment.max(number.0.saturating_add(1));
    let row = schema::get(overlay, key::segment(number))?;
    let mut row =
        row.unwrap_or(SegmentRow { single: false, sealed: false, committed_end: 0, live_bytes: 0, live_records: 0 });
    change(&mut row);
    schema::put(overlay, key::segment(number), &row);
    Ok(())
}
