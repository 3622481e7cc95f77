//! Operations on manifests and tags.

use std::collections::BTreeMap;

use crate::{
    digest::Digest,
    index::{
        Overlay,
        schema::{
            self, Applied, DueHistoryRow, HistoryRow, ManifestIdRow, ManifestRow, ManifestTagRow, NameRow, NamedDigest,
            REFERENCES_PER_ROW, ReferencesRow, ReferrerRow, SchemaError, TagRow, key,
        },
    },
    journal::operation::{ManifestContent, ManifestId, NamedReference, Operation, RepositoryId},
    name::Tag,
    state::{
        counts::{self, Change},
        govern::order,
        hash,
        life::is_reached,
        settle::{Lives, later_roots},
    },
};

use super::Moment;

pub(super) fn apply(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    at: Moment,
    operation: &Operation,
) -> Result<(), SchemaError> {
    match operation {
        Operation::Push { repository, manifest, digest, content, tags, held_until_ms } => {
            if content.is_some() {
                applied.manifests = applied.manifests.max(*manifest);
            }
            let mut lives = Lives::new(overlay, applied, *held_until_ms);
            match content {
                Some(content) => first_push(&mut lives, at, *repository, *manifest, digest, content, tags.is_empty())?,
                None => revive(&mut lives, *repository, digest, Some(at.time_ms), tags.is_empty())?,
            }
            for tag in tags {
                set_tag(&mut lives, at, *repository, tag, Some((*manifest, digest)))?;
            }
            lives.settle()
        }
        Operation::Untag { repository, tags, held_until_ms } => {
            let mut lives = Lives::new(overlay, applied, *held_until_ms);
            tags.iter().try_for_each(|tag| set_tag(&mut lives, at, *repository, tag, None))?;
            lives.settle()
        }
        Operation::Delete { repository, digest, held_until_ms, .. } => {
            let mut lives = Lives::new(overlay, applied, *held_until_ms);
            lives.change(*repository, digest, |row, _| (row.deleted, row.root) = (true, false))?;
            lives.forget_later_root(*repository, digest)?;
            lives.settle()
        }
        Operation::Restore { repository, manifest, digest, tag, held_until_ms } => {
            let mut lives = Lives::new(overlay, applied, *held_until_ms);
            revive(&mut lives, *repository, digest, None, tag.is_none())?;
            if let Some(tag) = tag {
                set_tag(&mut lives, at, *repository, tag, Some((*manifest, digest)))?;
            }
            lives.settle()
        }
        Operation::RootLater { repository, digest } => {
            Lives::new(overlay, applied, 0).note_later_root(*repository, digest)
        }
        Operation::KeepTags { repository, tags } => {
            tags.iter().try_for_each(|(tag, pulled_ms)| keep_tag(overlay, *repository, tag, *pulled_ms))
        }
        Operation::EndWindows { repository, digests } => {
            let mut lives = Lives::exact(overlay, applied, 0);
            digests.iter().try_for_each(|digest| lives.change(*repository, digest, |row, _| row.held_until_ms = 0))
        }
        _ => Ok(()),
    }
}

/// The rows of a manifest that the repository did not have.
fn first_push(
    lives: &mut Lives<'_, '_>,
    at: Moment,
    repository: RepositoryId,
    manifest: ManifestId,
    digest: &Digest,
    content: &ManifestContent,
    by_digest: bool,
) -> Result<(), SchemaError> {
    let row = ManifestRow {
        manifest,
        size: content.size,
        deleted: false,
        root: by_digest,
        stays_root: false,
        attached: false,
        told: 0,
        tags: 0,
        references: 0,
        references_hash: hash::references(&[]),
        pushed_ms: at.time_ms,
        left_ms: 0,
        held_until_ms: 0,
        media_type: content.media_type.clone(),
        artifact_type: content.artifact_type.clone(),
        subject: content.subject,
    };
    put_manifest(lives, repository, digest, row, &content.references)
}

/// Brings a manifest into a repository that did not have it, with all that follows from what it names. The row's references
/// are counted here.
pub(in crate::state) fn put_manifest(
    lives: &mut Lives<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    mut row: ManifestRow,
    references: &[NamedReference],
) -> Result<(), SchemaError> {
    let named = by_digest_and_role(references);
    (row.references, row.references_hash) = (references.len() as u32, hash::references(&named));
    let (manifest, overlay) = (row.manifest, &mut *lives.overlay);
    schema::put(overlay, key::manifest_id(manifest), &ManifestIdRow { repository, digest: *digest });
    if let Some(subject) = &row.subject {
        schema::put(overlay, key::referrer(repository, subject, digest), &ReferrerRow { manifest });
    }
    counts::manifest_changed(overlay, repository, digest, row.size, Change::Enters)?;
    for (page, references) in named.chunks(REFERENCES_PER_ROW).enumerate() {
        schema::put(
            overlay,
            key::references(manifest, page as u32),
            &ReferencesRow { references: references.to_vec() },
        );
    }
    lives.insert(repository, digest, row)?;
    let has_later_roots = lives.applied.settling > 0 && later_roots::are_in(lives.overlay, repository)?;
    for named in &named {
        let key = key::name(&named.digest, repository, manifest);
        schema::put(lives.overlay, key, &NameRow { roles: named.roles });
        if named.is_blob() {
            counts::name_changed(lives.overlay, repository, &named.digest, Change::Enters)?;
        }
        if named.is_child() {
            lives.change_parents(repository, &named.digest, |parents| parents.all = parents.all.saturating_add(1))?;
            if has_later_roots {
                lives.forget_later_root(repository, &named.digest)?;
            }
        }
    }
    Ok(())
}

/// Each digest once, with all of its roles, sorted.
fn by_digest_and_role(references: &[NamedReference]) -> Vec<NamedDigest> {
    let mut named: BTreeMap<Digest, NamedDigest> = BTreeMap::new();
    for &NamedReference { role, digest, size } in references {
        named.entry(digest).or_insert(NamedDigest { digest, roles: 0, size }).roles |= 1 << role as u8;
    }
    named.into_values().collect()
}

/// Makes a manifest present again. A push or restoring by digest makes it live by itself where nothing reaches it.
fn revive(
    lives: &mut Lives<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    pushed_ms: Option<u64>,
    by_digest: bool,
) -> Result<(), SchemaError> {
    lives.change(repository, digest, |row, parents| {
        row.deleted = false;
        row.pushed_ms = pushed_ms.unwrap_or(row.pushed_ms);
        row.root |= by_digest && !is_reached(row, parents);
    })?;
    lives.weigh_sake(repository, digest, by_digest)
}

/// Points a tag at a manifest, or removes it; what it pointed to before loses it.
fn set_tag(
    lives: &mut Lives<'_, '_>,
    at: Moment,
    repository: RepositoryId,
    tag: &Tag,
    target: Option<(ManifestId, &Digest)>,
) -> Result<(), SchemaError> {
    let before: Option<TagRow> = schema::get(lives.overlay, key::tag(repository, tag))?;
    if let (Some(row), Some((manifest, _))) = (&before, target)
        && row.manifest == manifest
    {
        let after = TagRow { set_ms: at.time_ms, pulled_ms: 0, ..row.clone() };
        schema::put(lives.overlay, key::tag(repository, tag), &after);
        return order::tag_changed(lives.overlay, repository, tag, Some(row), Some(&after));
    }
    if before.is_none() && target.is_none() {
        return Ok(());
    }
    let held_until_ms = lives.held_until_ms(repository)?;
    let after = target.map(|(manifest, digest)| TagRow {
        manifest,
        digest: *digest,
        set_ms: at.time_ms,
        lsn: at.lsn,
        pulled_ms: 0,
    });
    // The new target first: moving a tag to a child of what it pointed to must not end the child's life in between.
    if let Some(row) = &after {
        schema::put(lives.overlay, key::tag(repository, tag), row);
        reached_by_tag(lives, repository, tag, row.manifest, &row.digest)?;
    } else {
        lives.overlay.delete(key::tag(repository, tag).bytes());
    }
    if let Some(before) = &before {
        lives.overlay.delete(key::manifest_tag(repository, before.manifest, tag).bytes());
        lives.change(repository, &before.digest, |row, _| row.tags = row.tags.saturating_sub(1))?;
        pass_entry(lives.overlay, repository, tag, before.lsn, held_until_ms)?;
    }
    order::tag_changed(lives.overlay, repository, tag, before.as_ref(), after.as_ref())?;
    if let Some(change) = Change::between(before.is_some(), target.is_some()) {
        counts::total_changed(lives.overlay, repository, |usage| change.step(&mut usage.tags, 1))?;
    }
    let row = HistoryRow { digest: target.map(|(_, digest)| *digest), time_ms: at.time_ms, until_ms: 0 };
    schema::put(lives.overlay, key::history(repository, tag, at.lsn), &row);
    counts::total_changed(lives.overlay, repository, |usage| Change::Enters.step(&mut usage.history, 1))?;
    if target.is_none() {
        // That a tag was removed is of no use any longer than what it pointed to.
        pass_entry(lives.overlay, repository, tag, at.lsn, held_until_ms)?;
    }
    Ok(())
}

/// What a tag points to was pulled since, so it goes later.
fn keep_tag(overlay: &mut Overlay<'_>, repository: RepositoryId, tag: &Tag, pulled_ms: u64) -> Result<(), SchemaError> {
    let Some(before) = schema::get::<TagRow>(overlay, key::tag(repository, tag))? else { return Ok(()) };
    let after = TagRow { pulled_ms, ..before.clone() };
    schema::put(overlay, key::tag(repository, tag), &after);
    order::tag_changed(overlay, repository, tag, Some(&before), Some(&after))
}

/// A manifest is reached by one tag more.
pub(in crate::state) fn reached_by_tag(
    lives: &mut Lives<'_, '_>,
    repository: RepositoryId,
    tag: &Tag,
    manifest: ManifestId,
    digest: &Digest,
) -> Result<(), SchemaError> {
    schema::put(lives.overlay, key::manifest_tag(repository, manifest, tag), &ManifestTagRow {});
    lives.forget_later_root(repository, digest)?;
    lives.change(repository, digest, |row, _| row.tags = row.tags.saturating_add(1))
}

/// An entry of a tag's history has passed: it is kept for a window from then on.
fn pass_entry(
    overlay: &mut Overlay<'_>,
    repository: RepositoryId,
    tag: &Tag,
    lsn: u64,
    until_ms: u64,
) -> Result<(), SchemaError> {
    let row: HistoryRow = schema::expect(overlay, key::history(repository, tag, lsn))?;
    schema::put(overlay, key::history(repository, tag, lsn), &HistoryRow { until_ms, ..row });
    schema::put(overlay, key::due_history(until_ms, repository, tag, lsn), &DueHistoryRow {});
    Ok(())
}
