//! The keys of all tables, built from what they are made of.

use crate::{
    codec::{DecodeError, Decoder},
    digest::Digest,
    index::schema::{Key, Scope, Table},
    journal::operation::{ManifestId, OrganisationId, Pausable, RepositoryId, SessionId},
    location::{Location, SegmentNumber},
    name::{Owner, Tag},
    policy::PolicyName,
};

/// The one row of `meta`.
pub fn applied() -> Key {
    Key::of(Table::Meta).raw(b"applied")
}
/// Of [`super::OrganisationNameRow`].
pub fn organisation_name(name: &str) -> Key {
    Key::of(Table::OrganisationNames).raw(name.as_bytes())
}
/// Of [`super::OrganisationRow`].
pub fn organisation(id: OrganisationId) -> Key {
    Key::of(Table::Organisations).u32(id)
}
/// Of [`super::RepositoryNameRow`].
pub fn repository_name(name: &str) -> Key {
    Key::of(Table::RepositoryNames).raw(name.as_bytes())
}
/// Of [`super::RepositoryRow`].
pub fn repository(id: RepositoryId) -> Key {
    Key::of(Table::Repositories).u32(id)
}
/// Of [`super::BlobRow`].
pub fn blob(digest: &Digest) -> Key {
    Key::by_digest(Table::Blobs, digest)
}
/// The prefix of the [`super::LinkRow`]s of a digest.
pub fn links(digest: &Digest) -> Key {
    Key::by_digest(Table::Links, digest)
}
/// Of [`super::LinkRow`].
pub fn link(repository: RepositoryId, digest: &Digest) -> Key {
    links(digest).u32(repository)
}
/// Of [`super::ManifestRow`].
pub fn manifest(repository: RepositoryId, digest: &Digest) -> Key {
    Key::of(Table::Manifests).u32(repository).digest(digest)
}
/// Of [`super::ManifestIdRow`].
pub fn manifest_id(id: ManifestId) -> Key {
    Key::of(Table::ManifestIds).u64(id)
}
/// The prefix of the [`super::NameRow`]s of a digest.
pub fn all_names(digest: &Digest) -> Key {
    Key::of(Table::Names).digest(digest)
}
/// The prefix of the [`super::NameRow`]s of a digest in a repository.
pub fn names(digest: &Digest, repository: RepositoryId) -> Key {
    all_names(digest).u32(repository)
}
/// Of [`super::NameRow`].
pub fn name(digest: &Digest, repository: RepositoryId, manifest: ManifestId) -> Key {
    names(digest, repository).u64(manifest)
}
/// Of [`super::ReferencesRow`].
pub fn references(manifest: ManifestId, page: u32) -> Key {
    Key::of(Table::References).u64(manifest).u32(page)
}
/// Of [`super::ParentsRow`].
pub fn parents(repository: RepositoryId, child: &Digest) -> Key {
    Key::of(Table::Parents).u32(repository).digest(child)
}
/// The prefix of the [`super::TagRow`]s of a repository.
pub fn tags(repository: RepositoryId) -> Key {
    Key::of(Table::Tags).u32(repository)
}
/// Of [`super::TagRow`].
pub fn tag(repository: RepositoryId, tag: &Tag) -> Key {
    tags(repository).raw(tag.as_str().as_bytes())
}
/// Of [`super::HistoryRow`].
pub fn history(repository: RepositoryId, tag: &Tag, lsn: u64) -> Key {
    Key::of(Table::History).u32(repository).raw(tag.as_str().as_bytes()).raw(&[0]).u64(lsn)
}
/// The prefix of the [`super::ReferrerRow`]s of a subject.
pub fn referrers(repository: RepositoryId, subject: &Digest) -> Key {
    Key::of(Table::Referrers).u32(repository).digest(subject)
}
/// Of [`super::ReferrerRow`].
pub fn referrer(repository: RepositoryId, subject: &Digest, referrer: &Digest) -> Key {
    referrers(repository, subject).digest(referrer)
}
/// The prefix of the [`super::ManifestTagRow`]s of a manifest.
pub fn manifest_tags(repository: RepositoryId, manifest: ManifestId) -> Key {
    Key::of(Table::ManifestTags).u32(repository).u64(manifest)
}
/// Of [`super::ManifestTagRow`].
pub fn manifest_tag(repository: RepositoryId, manifest: ManifestId, tag: &Tag) -> Key {
    manifest_tags(repository, manifest).raw(tag.as_str().as_bytes())
}
/// The prefix of the [`super::CountRow`]s of a repository.
pub fn counts(repository: RepositoryId) -> Key {
    Key::of(Table::Counts).u32(repository)
}
/// Of [`super::CountRow`].
pub fn count(scope: Scope, digest: &Digest) -> Key {
    match scope {
        Scope::Registry => Key::by_digest(Table::RegistryCounts, digest),
        Scope::Organisation(organisation) => Key::by_digest(Table::OrganisationCounts, digest).u32(organisation),
        Scope::Repository(repository) => counts(repository).digest(digest),
    }
}
/// Of [`super::UsageRow`].
pub fn usage(scope: Scope) -> Key {
    Key::of(Table::Usage).scope(scope)
}
/// The prefix of the [`super::SampleRow`]s of a scope.
pub fn samples(scope: Scope) -> Key {
    Key::of(Table::Samples).scope(scope)
}
/// Of [`super::SampleRow`].
pub fn sample(scope: Scope, day: u32) -> Key {
    samples(scope).u32(day)
}
/// Of [`super::DueLinkRow`].
pub fn due_link(due_ms: u64, repository: RepositoryId, digest: &Digest) -> Key {
    Key::of(Table::DueLinks).u64(due_ms).u32(repository).digest(digest)
}
/// Of [`super::DueManifestRow`].
pub fn due_manifest(due_ms: u64, repository: RepositoryId, digest: &Digest) -> Key {
    Key::of(Table::DueManifests).u64(due_ms).u32(repository).digest(digest)
}
/// Of [`super::DueHistoryRow`].
pub fn due_history(due_ms: u64, repository: RepositoryId, tag: &Tag, lsn: u64) -> Key {
    Key::of(Table::DueHistory).u64(due_ms).u32(repository).raw(tag.as_str().as_bytes()).raw(&[0]).u64(lsn)
}
/// Of [`super::EmptyRepositoryRow`].
pub fn empty_repository(repository: RepositoryId) -> Key {
    Key::of(Table::EmptyRepositories).u32(repository)
}
/// Of [`super::DueDropRow`].
pub fn due_drop(due_ms: u64, lsn: u64) -> Key {
    Key::of(Table::DueDrops).u64(due_ms).u64(lsn)
}
/// Of [`super::SettlingRow`].
pub fn settling(manifest: ManifestId) -> Key {
    Key::of(Table::Settling).u64(manifest)
}
/// The prefix of the [`super::LaterRootRow`]s of a repository.
pub fn later_roots(repository: RepositoryId) -> Key {
    Key::of(Table::LaterRoots).u32(repository)
}
/// Of [`super::LaterRootRow`].
pub fn later_root(repository: RepositoryId, digest: &Digest) -> Key {
    later_roots(repository).digest(digest)
}
/// Of [`super::SegmentRow`].
pub fn segment(number: SegmentNumber) -> Key {
    Key::of(Table::Segments).u64(number.0)
}
/// Of [`super::UploadRow`].
pub fn upload(session: &SessionId) -> Key {
    Key::of(Table::Uploads).raw(session)
}
/// Of [`super::DeadRow`].
pub fn dead(location: Location) -> Key {
    Key::of(Table::Dead).u64(location.segment.0).u64(location.offset)
}
/// Of [`super::DropRow`].
pub fn drop_record(lsn: u64) -> Key {
    Key::of(Table::Drops).u64(lsn)
}
/// The prefix of the [`super::DroppedRow`]s of a digest.
pub fn dropped_of(digest: &Digest) -> Key {
    Key::of(Table::Dropped).digest(digest)
}
/// Of [`super::DroppedRow`].
pub fn dropped(digest: &Digest, lsn: u64) -> Key {
    dropped_of(digest).u64(lsn)
}
/// Of [`super::ReportRow`].
pub fn report(number: u64) -> Key {
    Key::of(Table::Reports).u64(number)
}
/// Of [`super::PauseRow`].
pub fn pause(what: Pausable) -> Key {
    Key::of(Table::Pauses).u32(u32::from(what as u8))
}
/// Of [`super::PullRow`].
pub fn pull(repository: RepositoryId, digest: &Digest) -> Key {
    Key::of(Table::Pulls).u32(repository).digest(digest)
}
/// Of [`super::QuotaRow`].
pub fn quota(owner: &Owner) -> Key {
    Key::of(Table::Quotas).raw(owner.code().as_bytes())
}
/// Of [`super::PolicyRow`].
pub fn policy(name: &PolicyName) -> Key {
    Key::of(Table::Policies).raw(name.as_str().as_bytes())
}
/// Of [`super::PolicyUsageRow`].
pub fn policy_usage(name: &str) -> Key {
    Key::of(Table::PolicyUsage).raw(name.as_bytes())
}
/// Of [`super::GovernedRow`].
pub fn governed(repository: RepositoryId) -> Key {
    Key::of(Table::Governed).u32(repository)
}
/// Of [`super::NewestTagRow`].
pub fn newest_tag(repository: RepositoryId, set_ms: u64, tag: &Tag) -> Key {
    Key::of(Table::NewestTags).u32(repository).u64(set_ms).raw(tag.as_str().as_bytes())
}
/// Of [`super::SpareTagRow`].
pub fn spare_tag(repository: RepositoryId, set_ms: u64, tag: &Tag) -> Key {
    // The last byte is behind all others, so that a tag comes behind those that it is the beginning of.
    let down: Vec<u8> = tag.as_str().bytes().map(|byte| !byte).chain([u8::MAX]).collect();
    Key::of(Table::SpareTags).u32(repository).u64(!set_ms).raw(&down)
}
/// Of [`super::DueTagRow`].
pub fn due_tag(repository: RepositoryId, due_ms: u64, tag: &Tag) -> Key {
    Key::of(Table::DueTags).u32(repository).u64(due_ms).raw(tag.as_str().as_bytes())
}
/// Of [`super::DueRepositoryRow`].
pub fn due_repository(due_ms: u64, repository: RepositoryId) -> Key {
    Key::of(Table::DueRepositories).u64(due_ms).u32(repository)
}
/// Of [`super::UseRow`].
pub fn use_of(repository: RepositoryId, digest: &Digest) -> Key {
    Key::of(Table::Uses).u32(repository).digest(digest)
}
/// The prefix of the [`super::ByUseRow`]s of a policy.
pub fn uses_of(policy: &str) -> Key {
    Key::of(Table::ByUse).raw(policy.as_bytes()).raw(&[0])
}
/// Of [`super::ByUseRow`].
pub fn by_use(policy: &str, used_ms: u64, repository: RepositoryId, digest: &Digest) -> Key {
    uses_of(policy).u64(used_ms).u32(repository).digest(digest)
}
/// Of [`super::DueRootRow`].
pub fn due_root(due_ms: u64, repository: RepositoryId, digest: &Digest) -> Key {
    Key::of(Table::DueRoots).u64(due_ms).u32(repository).digest(digest)
}
/// The one row of `reviewing`.
pub fn review() -> Key {
    Key::of(Table::Reviewing)
}
/// Of [`super::SparseRow`].
pub fn sparse(number: SegmentNumber) -> Key {
    Key::of(Table::Sparse).u64(number.0)
}

/// Reads the digest that the key of a table by digest begins with behind its prefix, and the byte of the table.
///
/// # Errors
/// When it does not begin so.
pub fn read_by_digest(d: &mut Decoder<'_>) -> Result<Digest, DecodeError> {
    let digest = d.digest("digest")?;
    d.u8("table")?;
    Ok(digest)
}

/// Reads the tag that a key ends with.
///
/// # Errors
/// When it is none.
pub fn read_tag(d: &mut Decoder<'_>) -> Result<Tag, DecodeError> {
    read_text(d, d.rest().len(), "tag")
}

/// Reads the name that a key ends with.
///
/// # Errors
/// When it is none.
pub fn read_rest<T: std::str::FromStr>(d: &mut Decoder<'_>, field: &'static str) -> Result<T, DecodeError> {
    read_text(d, d.rest().len(), field)
}

/// Reads the tag and the number of an operation that the key of an entry of a history, or of one that is due, ends with.
///
/// # Errors
/// When it does not end so.
pub fn read_history(d: &mut Decoder<'_>) -> Result<(Tag, u64), DecodeError> {
    // A zero byte and the number.
    const END_LEN: usize = 9;
    let tag = read_text(d, d.rest().len().saturating_sub(END_LEN), "tag")?;
    d.raw(1, "tag's end")?;
    Ok((tag, d.key_u64("lsn")?))
}

/// Reads when a tag was set, and the tag, from the rest of a key of [`super::NewestTagRow`]s behind the repository.
///
/// # Errors
/// When it is none.
pub fn read_newest(d: &mut Decoder<'_>) -> Result<(u64, Tag), DecodeError> {
    Ok((d.key_u64("set")?, read_tag(d)?))
}

/// The same from one of [`super::SpareTagRow`]s.
///
/// # Errors
/// When it is none.
pub fn read_spare(d: &mut Decoder<'_>) -> Result<(u64, Tag), DecodeError> {
    let set_ms = !d.key_u64("set")?;
    let tag = read_down(d, "tag")?;
    Ok((set_ms, tag.parse().map_err(|_| DecodeError { field: "tag", problem: "is none" })?))
}

/// Reads the text that is turned around and goes to the end.
///
/// # Errors
/// When it is none.
pub fn read_down(d: &mut Decoder<'_>, field: &'static str) -> Result<String, DecodeError> {
    let down = d.raw(d.rest().len(), field)?;
    let bytes = down.split_last().filter(|(last, _)| **last == u8::MAX).map(|(_, down)| down);
    let text = bytes.and_then(|down| String::from_utf8(down.iter().map(|byte| !byte).collect()).ok());
    text.ok_or(DecodeError { field, problem: "is none" })
}

fn read_text<T: std::str::FromStr>(d: &mut Decoder<'_>, len: usize, field: &'static str) -> Result<T, DecodeError> {
    let text = std::str::from_utf8(d.raw(len, field)?).ok();
    text.and_then(|text| text.parse().ok()).ok_or(DecodeError { field, problem: "is none" })
}
