//! A request against the current state: the records that do it, or why it is refused.
//!
//! All that a request depends on is checked here, in the step whose records are journaled next: between this check and
//! its effect nothing else happens. What is decided is carried by the operation; `apply` decides nothing.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    index::{
        Overlay, View, prefix_end,
        schema::{
            self, Applied, BlobRow, CountRow, LinkRow, ManifestIdRow, ManifestRow, NameRow, QuotaRow,
            RepositoryNameRow, RowValue, SchemaError, Scope, TagRow, key,
        },
    },
    journal::operation::{LocalRecord, ManifestId, NamedReference, Operation, Record, RepositoryId, Role},
    location::SegmentNumber,
    name::{Owner, RepositoryName, Tag},
    state::{
        apply,
        life::Life,
        quota::{self, Account, Coming, NoUploads},
        request::{Content, Outcome, Placement, PushRequest, Refusal, Request, Sparse, TAGS_PER_STEP},
        settle::later_roots,
    },
};

mod due;
mod places;
mod policies;

pub use due::{is_given_up, renewed};

/// Writes the content that a request brings along.
pub trait Keeper {
    /// Where it was written, if it could be.
    fn write(&self, content: &Content) -> Option<Placement>;
}

/// A batch in the making: the state with the batch's own changes laid over it, and the records that make them.
pub struct Batch<'a> {
    /// The state as the next request sees it.
    pub overlay: Overlay<'a>,
    /// Positions and ids that were given out, the batch's own included.
    pub applied: Applied,
    /// The records so far.
    pub records: Vec<Record>,
    /// Shared segments that it removes.
    pub removed: Vec<SegmentNumber>,
    /// Shared segments that were removed since the store was opened.
    gone: Option<&'a BTreeSet<SegmentNumber>>,
    account: &'a dyn Account,
}

impl<'a> Batch<'a> {
    /// An empty batch at the state of `view`. Its time never runs back.
    pub fn new(view: &'a dyn View, applied: Applied, now_ms: u64) -> Self {
        let time_ms = applied.time_ms.max(now_ms);
        let (overlay, applied) = (Overlay::new(view), Applied { time_ms, ..applied });
        Self { overlay, applied, records: Vec::new(), removed: Vec::new(), gone: None, account: &NoUploads }
    }

    /// The batch knows these shared segments to be removed: what was written to one before that, and is to be named only
    /// now, has to be written again.
    pub fn without(self, gone: &'a BTreeSet<SegmentNumber>) -> Self {
        Self { gone: Some(gone), ..self }
    }

    /// The batch knows what open uploads hold of quotas.
    pub fn with(self, account: &'a dyn Account) -> Self {
        Self { account, ..self }
    }

    /// The time of its operations, in Unix milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.applied.time_ms
    }

    /// Decides a request, and applies what was decided.
    ///
    /// # Errors
    /// Why the request is refused; then the batch is as before. After [`Refusal::Schema`] it must not be used.
    pub fn decide(&mut self, request: &Request) -> Result<Outcome, Refusal> {
        self.decide_with(request, None)
    }

    /// The same for a push whose manifest is still to be written, which `keeper` is told to do when it is needed. Only a quota can
    /// refuse it after that.
    ///
    /// # Errors
    /// As [`Batch::decide`].
    pub fn decide_with(&mut self, request: &Request, keeper: Option<&dyn Keeper>) -> Result<Outcome, Refusal> {
        match request {
            Request::Upload { repository, content, session, held_bytes, grace_ms } => {
                let outcome = self.upload(repository, content, *held_bytes, *grace_ms)?;
                if let (Outcome::Done, Some(session)) = (&outcome, session) {
                    self.local(LocalRecord::UploadEnded { session: *session })?;
                }
                Ok(outcome)
            }
            Request::Mount { repository, digest, from, grace_ms } => self.mount(repository, digest, from, *grace_ms),
            Request::Unlink { repository, digest } => self.unlink(repository, digest),
            Request::Push(push) => self.push(push, keeper),
            Request::Delete { repository, digest, after, window_ms } => {
                self.delete(repository, digest, after.as_ref(), *window_ms)
            }
            Request::Untag { repository, tag, window_ms } => self.untag(repository, tag, *window_ms),
            Request::Restore { repository, digest, tag, window_ms } => {
                self.restore(repository, digest, tag.as_ref(), *window_ms)
            }
            Request::EndWindows { repository, digests } => self.end_windows(*repository, digests),
            Request::Renew { repository, digest, grace_ms } => self.renew(repository, digest, *grace_ms),
            Request::Pulled { repository, pulled_ms, digests } => self.pulled(*repository, *pulled_ms, digests),
            Request::PulledAt(pulls) => {
                for (repository, digest, pulled_ms) in pulls {
                    self.pulled(*repository, *pulled_ms, std::slice::from_ref(digest))?;
                }
                Ok(Outcome::Done)
            }
            Request::SetQuota { owner, limit_bytes } => self.set_quota(owner, *limit_bytes),
            Request::SetPolicy { policy, from_settings, confirmed } => {
                self.set_policy(policy, *from_settings, *confirmed)
            }
            Request::ConfirmPolicy { name } => self.confirm_policy(name),
            Request::RemovePolicy { name, from_settings } => self.remove_policy(name, *from_settings),
            Request::Retain { repository, policy, tags, window_ms } => {
                self.retain(*repository, policy, tags, *window_ms)
            }
            Request::RetainRoot { repository, digest, window_ms } => self.retain_root(*repository, digest, *window_ms),
            Request::Evict { policy, repository, digest } => self.evict(policy, *repository, digest),
            Request::Settle { window_ms, from } => self.settle(*window_ms, *from),
            Request::Drop { due, window_ms } => self.drop_due(due, *window_ms),
            Request::Move { digest, from, to, record_len } => self.move_content(digest, *from, *to, *record_len),
            Request::Discard(records) => {
                records.iter().try_for_each(|(location, len)| self.discard(*location, *len))?;
                Ok(Outcome::Done)
            }
            Request::RemoveSegment(segment) => self.remove_segment(*segment),
            Request::Note(record) => {
                self.local(record.clone())?;
                Ok(Outcome::Done)
            }
            Request::MarkUpload { session, repository, segment, bytes } => {
                let (session, repository, segment, bytes) = (*session, repository.clone(), *segment, *bytes);
                self.local(LocalRecord::UploadMarked { session, repository, segment, bytes })?;
                Ok(Outcome::Done)
            }
            Request::EndUpload { session } => {
                self.local(LocalRecord::UploadEnded { session: *session })?;
                Ok(Outcome::Done)
            }
        }
    }

    /// Adds a local record that needs no decision.
    ///
    /// # Errors
    /// When the index fails.
    pub fn local(&mut self, record: LocalRecord) -> Result<(), SchemaError> {
        self.add(Record::Local(record))
    }

    fn logical(&mut self, operation: Operation) -> Result<(), SchemaError> {
        self.add(Record::Logical(operation))
    }

    fn add(&mut self, record: Record) -> Result<(), SchemaError> {
        apply::record(&mut self.overlay, &mut self.applied, &record)?;
        self.records.push(record);
        Ok(())
    }

    fn upload(
        &mut self,
        repository: &RepositoryName,
        content: &Content,
        held_bytes: u64,
        grace_ms: u64,
    ) -> Result<Outcome, Refusal> {
        if !self.is_there(content)? {
            return Ok(Outcome::ContentNeeded);
        }
        self.admit(repository, Coming::Blob(&content.digest), content.len, held_bytes)?;
        self.place(content)?;
        let repository = self.intern(repository)?;
        let due_ms = self.time_ms().saturating_add(grace_ms);
        let (digest, size) = (content.digest, content.len);
        self.logical(Operation::Link { repository, digest, size, mounted_from: None, due_ms })?;
        Ok(Outcome::Done)
    }

    /// Lets the owners of a repository that have limits grow. The last check of a request: it is accounted for from then on.
    fn admit(
        &self,
        repository: &RepositoryName,
        coming: Coming<'_>,
        size: u64,
        held_bytes: u64,
    ) -> Result<(), Refusal> {
        let growths = quota::growths(&self.overlay, repository, coming, size)?;
        if growths.is_empty() && held_bytes == 0 {
            return Ok(());
        }
        Ok(self.account.admit(&Owner::of(repository), held_bytes, &growths)?)
    }

    fn set_quota(&mut self, owner: &Owner, limit_bytes: Option<u64>) -> Result<Outcome, Refusal> {
        let row: Option<QuotaRow> = schema::get(&self.overlay, key::quota(owner))?;
        if row.map(|row| row.limit_bytes) != limit_bytes {
            self.logical(Operation::SetQuota { owner: owner.clone(), limit_bytes })?;
        }
        Ok(Outcome::Done)
    }

    /// Whether there is a copy of some content, stored or just written.
    fn is_there(&self, content: &Content) -> Result<bool, SchemaError> {
        let is_written = content.placement.is_some_and(|placement| !self.is_gone(placement.location.segment));
        Ok(is_written
            || (!content.replaces_damaged && self.overlay.get(&key::blob(&content.digest).bytes())?.is_some()))
    }

    /// Keeps the first copy of some content that is there, unless it is known to be damaged.
    fn place(&mut self, content: &Content) -> Result<(), Refusal> {
        let stored: Option<BlobRow> = schema::get(&self.overlay, key::blob(&content.digest))?;
        let placement = content.placement.filter(|placement| !self.is_gone(placement.location.segment));
        if let Some(stored) = stored.filter(|_| !content.replaces_damaged) {
            // A segment of its own is removed by who wrote it.
            let unused = placement.filter(|placement| !placement.single && placement.location != stored.location);
            if let Some(Placement { location, record_len, .. }) = unused {
                self.discard(location, record_len)?;
            }
        } else if let Some(placement) = placement {
            self.local(placement.record(content.digest, content.len))?;
        }
        Ok(())
    }

    fn mount(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
        grace_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let unknown = || Refusal::BlobUnknown(*digest);
        let source = find_repository(&self.overlay, from)?.ok_or_else(unknown)?;
        let link: LinkRow = schema::get(&self.overlay, key::link(source, digest))?.ok_or_else(unknown)?;
        self.admit(repository, Coming::Blob(digest), link.size, 0)?;
        let repository = self.intern(repository)?;
        let due_ms = self.time_ms().saturating_add(grace_ms);
        let (digest, size) = (*digest, link.size);
        self.logical(Operation::Link { repository, digest, size, mounted_from: Some(source), due_ms })?;
        Ok(Outcome::Done)
    }

    fn unlink(&mut self, name: &RepositoryName, digest: &Digest) -> Result<Outcome, Refusal> {
        let repository = self.repository(name)?;
        if schema::get::<LinkRow>(&self.overlay, key::link(repository, digest))?.is_none() {
            return Err(Refusal::BlobUnknown(*digest));
        }
        if let Some(manifest) = self.live_namer(repository, digest)? {
            return Err(Refusal::BlobNamed { digest: *digest, manifest });
        }
        self.logical(Operation::Unlink { repository, digest: *digest })?;
        Ok(Outcome::Done)
    }

    /// A live manifest that names the digest as a blob. As long as something settles in the repository, counts and lives are
    /// not yet what they will be: then each that was not deleted counts. Of very many that name it only the first are looked
    /// at: when there is none among those, the first is named.
    fn live_namer(&self, repository: RepositoryId, digest: &Digest) -> Result<Option<Digest>, SchemaError> {
        let view = &self.overlay;
        let count: Option<CountRow> = schema::get(view, key::count(Scope::Repository(repository), digest))?;
        let Some(count) = count else { return Ok(None) };
        let is_settling = self.applied.settling > 0
            && (later_roots::is_settling(view, repository)? || later_roots::are_in(view, repository)?);
        if count.live == 0 && !is_settling {
            return Ok(None);
        }
        let (namers, are_all) = namers(view, repository, digest)?;
        let mut first = None;
        for (id, name) in namers {
            if name.roles & !(1 << Role::Child as u8) == 0 {
                continue;
            }
            let row: ManifestIdRow = schema::expect(view, key::manifest_id(id))?;
            let manifest: Option<ManifestRow> = schema::get(view, key::manifest(repository, &row.digest))?;
            if manifest.is_some_and(|it| if is_settling { !it.deleted } else { Life::told(&it).is_live() }) {
                return Ok(Some(row.digest));
            }
            first = first.or(Some(row.digest));
        }
        Ok(first.filter(|_| !are_all))
    }

    fn push(&mut self, push: &PushRequest, keeper: Option<&dyn Keeper>) -> Result<Outcome, Refusal> {
        let digest = push.content.digest;
        let known = find_repository(&self.overlay, &push.repository)?;
        check_references(&self.overlay, known, &push.manifest.references, push.sparse)?;
        let stored: Option<ManifestRow> = match known {
            Some(repository) => schema::get(&self.overlay, key::manifest(repository, &digest))?,
            None => None,
        };
        if let Some(row) = stored.as_ref().filter(|row| row.media_type != push.manifest.media_type) {
            return Err(Refusal::TypeDiffers { digest, stored: row.media_type.clone() });
        }
        if let Some(repository) = known {
            self.check_immutable(repository, &push.tags, &digest)?;
        }
        if stored.is_none() {
            self.admit_under_cap(push, known)?;
        }
        let mut body = push.content;
        if !self.is_there(&body)? {
            body.placement = keeper.and_then(|keeper| keeper.write(&body));
            if body.placement.is_none() {
                return Ok(Outcome::ContentNeeded);
            }
        }
        self.admit(&push.repository, Coming::Manifest(&digest), push.manifest.size, 0)?;
        self.place(&body)?;
        let repository = self.intern(&push.repository)?;
        let manifest = stored.as_ref().map_or(self.applied.manifests + 1, |row| row.manifest);
        let content = stored.is_none().then(|| Box::new(push.manifest.clone()));
        let held_until_ms = self.time_ms().saturating_add(push.window_ms);
        let tags = push.tags.clone();
        let may_be_root = tags.is_empty() && stored.as_ref().is_none_or(|row| row.tags == 0);
        let push = Operation::Push { repository, manifest, digest, content, tags, held_until_ms };
        self.ask_for(repository, digest, may_be_root, push)?;
        Ok(Outcome::Done)
    }

    /// Pushes or restores a manifest. One that no tag reaches and that is asked for by its digest becomes a root unless something
    /// else reaches it, which is answered later where its rows may not tell yet.
    fn ask_for(
        &mut self,
        repository: RepositoryId,
        digest: Digest,
        may_be_root: bool,
        asked: Operation,
    ) -> Result<(), Refusal> {
        let is_later = may_be_root && later_roots::is_settling(&self.overlay, repository)?;
        self.logical(asked)?;
        if is_later {
            self.logical(Operation::RootLater { repository, digest })?;
        }
        Ok(())
    }

    fn delete(
        &mut self,
        name: &RepositoryName,
        digest: &Digest,
        after: Option<&Tag>,
        window_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let repository = self.repository(name)?;
        let row: Option<ManifestRow> = schema::get(&self.overlay, key::manifest(repository, digest))?;
        let row = row.filter(|row| !row.deleted).ok_or(Refusal::ManifestUnknown(*digest))?;
        let held_until_ms = self.time_ms().saturating_add(window_ms);
        let mut tags = self.some_tags(repository, row.manifest, after)?;
        if tags.is_empty() && after.is_some() {
            // What is left was set meanwhile, before that place.
            tags = self.some_tags(repository, row.manifest, None)?;
        }
        let (all, last) = (tags.len() == row.tags as usize, tags.last().cloned());
        if !tags.is_empty() {
            self.logical(Operation::Untag { repository, tags, held_until_ms })?;
        }
        if !all {
            return Ok(Outcome::More { after: last });
        }
        let (manifest, digest) = (row.manifest, *digest);
        self.logical(Operation::Delete { repository, manifest, digest, held_until_ms })?;
        Ok(Outcome::Done)
    }

    fn some_tags(&self, repository: RepositoryId, manifest: u64, after: Option<&Tag>) -> Result<Vec<Tag>, SchemaError> {
        let prefix = key::manifest_tags(repository, manifest).bytes();
        let from = match after {
            Some(tag) => [key::manifest_tag(repository, manifest, tag).bytes().as_slice(), &[0]].concat(),
            None => prefix.clone(),
        };
        let rows = self.overlay.scan(&from, &prefix_end(&prefix), TAGS_PER_STEP)?;
        let tag = |key: &[u8]| std::str::from_utf8(&key[prefix.len()..]).ok()?.parse().ok();
        rows.iter().map(|(key, _)| tag(key).ok_or(SchemaError::Missing { table: "manifest-tags" })).collect()
    }

    fn untag(&mut self, name: &RepositoryName, tag: &Tag, window_ms: u64) -> Result<Outcome, Refusal> {
        let repository = self.repository(name)?;
        if schema::get::<TagRow>(&self.overlay, key::tag(repository, tag))?.is_none() {
            return Err(Refusal::TagUnknown(tag.clone()));
        }
        let held_until_ms = self.time_ms().saturating_add(window_ms);
        self.logical(Operation::Untag { repository, tags: vec![tag.clone()], held_until_ms })?;
        Ok(Outcome::Done)
    }

    fn repository(&self, name: &RepositoryName) -> Result<RepositoryId, Refusal> {
        find_repository(&self.overlay, name)?.ok_or_else(|| Refusal::RepositoryUnknown(name.clone()))
    }

    fn intern(&mut self, name: &RepositoryName) -> Result<RepositoryId, SchemaError> {
        if let Some(repository) = find_repository(&self.overlay, name)? {
            return Ok(repository);
        }
        let row: Option<schema::OrganisationNameRow> =
            schema::get(&self.overlay, key::organisation_name(name.organisation()))?;
        let organisation = row.map_or(self.applied.organisations + 1, |row| row.organisation);
        let repository = self.applied.repositories + 1;
        self.logical(Operation::Intern { organisation, repository, name: name.clone() })?;
        Ok(repository)
    }
}

/// A repository's id.
///
/// # Errors
/// When the index fails or is damaged; so with all that follow.
pub fn find_repository(view: &dyn View, name: &RepositoryName) -> Result<Option<RepositoryId>, SchemaError> {
    let row: Option<RepositoryNameRow> = schema::get(view, key::repository_name(name.as_str()))?;
    Ok(row.map(|row| row.repository))
}

/// Checks that everything is there that a manifest needs, and that the stated sizes of what is there are true. All that
/// is missing is named, so that a client needs no second try to learn the next.
fn check_references(
    view: &dyn View,
    repository: Option<RepositoryId>,
    references: &[NamedReference],
    sparse: Sparse,
) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    for &NamedReference { role, digest, size: stated } in references {
        let stored = match repository {
            Some(repository) => stored_size(view, repository, role, &digest)?,
            None => None,
        };
        match stored {
            Some(stored) if stored != stated => return Err(Refusal::SizeDisagrees { digest, stated, stored }),
            None if !sparse.allows(role) => missing.push(digest),
            _ => {}
        }
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { Err(Refusal::ReferencesMissing(missing)) }
}

fn stored_size(
    view: &dyn View,
    repository: RepositoryId,
    role: Role,
    digest: &Digest,
) -> Result<Option<u64>, SchemaError> {
    if role.is_blob() {
        Ok(schema::get::<LinkRow>(view, key::link(repository, digest))?.map(|row| row.size))
    } else {
        let row: Option<ManifestRow> = schema::get(view, key::manifest(repository, digest))?;
        Ok(row.filter(|row| !row.deleted).map(|row| row.size))
    }
}

/// The first of the manifests that name some content in a repository, and whether these are all.
fn namers(
    view: &dyn View,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(Vec<(ManifestId, NameRow)>, bool), SchemaError> {
    const NAMERS_READ: usize = 1_000;
    let prefix = key::names(digest, repository).bytes();
    let names = view.scan(&prefix, &prefix_end(&prefix), NAMERS_READ)?;
    let namer = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let id = name[prefix.len()..].try_into().map_err(|_| SchemaError::Missing { table: "names" })?;
        Ok((u64::from_be_bytes(id), NameRow::from_bytes(value)?))
    };
    Ok((names.iter().map(namer).collect::<Result<_, SchemaError>>()?, names.len() < NAMERS_READ))
}
