//! Reads the rows that a request's decision will ask for, before it waits for the committer.
//!
//! The committer is one thread, and a row that lies in no memory costs it as much as all else that a small request takes.
//! Whoever submits a request reads first what can be told from it, so that these reads share the machine's cores and the
//! committer finds the rows in memory. Nothing is decided here: what is read may change until the request's turn, or be left
//! out here, and only time is lost.

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{self, ManifestRow, ReferencesRow, RepositoryRow, SchemaError, Scope, TagRow, key},
    },
    journal::operation::{OrganisationId, RepositoryId},
    name::{Owner, RepositoryName, Tag},
    state::{
        decide,
        request::{Due, PushRequest, Request},
    },
};

/// Reads what a request will ask for, as far as it is worth it.
///
/// # Errors
/// When a row cannot be read. The committer tells who asks for the change.
pub fn read(view: &dyn View, request: &Request) -> Result<(), SchemaError> {
    match request {
        Request::Upload { repository, content, .. } => {
            quotas(view, repository)?;
            within(view, repository, |ahead| ahead.link(&content.digest))
        }
        Request::Mount { repository, digest, from, .. } => {
            quotas(view, repository)?;
            within(view, from, |ahead| ahead.row(key::link(ahead.repository, digest)))?;
            within(view, repository, |ahead| ahead.link(digest))
        }
        Request::Unlink { repository, digest } => within(view, repository, |ahead| ahead.link(digest)),
        Request::Push(push) => {
            quotas(view, &push.repository)?;
            within(view, &push.repository, |ahead| ahead.push(push))
        }
        Request::Delete { repository, digest, .. } => {
            within(view, repository, |ahead| ahead.manifest(digest).map(|_| ()))
        }
        Request::Untag { repository, tag, .. } => within(view, repository, |ahead| ahead.tag(tag)),
        Request::Drop { due: Due::Link { repository, digest }, .. } => Ahead::of(view, *repository)?.link(digest),
        Request::Drop { due: Due::Manifest { repository, digest }, .. } => {
            Ahead::of(view, *repository)?.drop_manifest(digest)
        }
        _ => Ok(()),
    }
}

fn quotas(view: &dyn View, name: &RepositoryName) -> Result<(), SchemaError> {
    let rows = Owner::of(name).map(|owner| view.get(&key::quota(&owner).bytes()));
    rows.into_iter().try_for_each(|row| Ok(row.map(drop)?))
}

/// In a repository that is not there yet nothing is.
fn within(
    view: &dyn View,
    name: &RepositoryName,
    read: impl FnOnce(Ahead<'_>) -> Result<(), SchemaError>,
) -> Result<(), SchemaError> {
    match decide::find_repository(view, name)? {
        Some(repository) => read(Ahead::of(view, repository)?),
        None => Ok(()),
    }
}

struct Ahead<'a> {
    view: &'a dyn View,
    repository: RepositoryId,
    organisation: OrganisationId,
}

impl<'a> Ahead<'a> {
    fn of(view: &'a dyn View, repository: RepositoryId) -> Result<Self, SchemaError> {
        let row: RepositoryRow = schema::expect(view, key::repository(repository))?;
        let ahead = Self { view, repository, organisation: row.organisation };
        if row.governed {
            ahead.row(key::governed(repository))?;
        }
        Ok(ahead)
    }

    fn row(&self, key: schema::Key) -> Result<(), SchemaError> {
        self.view.get(&key.bytes())?;
        Ok(())
    }

    fn counts(&self, digest: &Digest) -> Result<(), SchemaError> {
        let scopes = [Scope::Repository(self.repository), Scope::Organisation(self.organisation), Scope::Registry];
        scopes.into_iter().try_for_each(|scope| self.row(key::count(scope, digest)))
    }

    /// A link that comes or goes.
    fn link(&self, digest: &Digest) -> Result<(), SchemaError> {
        self.row(key::blob(digest))?;
        self.row(key::link(self.repository, digest))?;
        self.counts(digest)
    }

    /// A tag that is set or removed: what it points to may cease to live.
    fn tag(&self, tag: &Tag) -> Result<(), SchemaError> {
        let row: Option<TagRow> = schema::get(self.view, key::tag(self.repository, tag))?;
        let Some(row) = row else { return Ok(()) };
        self.row(key::history(self.repository, tag, row.lsn))?;
        self.manifest(&row.digest).map(|_| ())
    }

    /// A manifest whose life may change: what it names is counted. The blobs that it names, of very many the first.
    fn manifest(&self, digest: &Digest) -> Result<Vec<Digest>, SchemaError> {
        let row: Option<ManifestRow> = schema::get(self.view, key::manifest(self.repository, digest))?;
        self.row(key::parents(self.repository, digest))?;
        let Some(row) = row else { return Ok(Vec::new()) };
        self.row(key::settling(row.manifest))?;
        let references: Option<ReferencesRow> = schema::get(self.view, key::references(row.manifest, 0))?;
        let named = references.map(|row| row.references).unwrap_or_default();
        let blobs: Vec<Digest> = named.iter().filter(|named| named.is_blob()).map(|named| named.digest).collect();
        blobs.iter().try_for_each(|blob| self.counts(blob))?;
        Ok(blobs)
    }

    /// What it named may be linked no longer than that.
    fn drop_manifest(&self, digest: &Digest) -> Result<(), SchemaError> {
        self.row(key::blob(digest))?;
        self.counts(digest)?;
        let blobs = self.manifest(digest)?;
        blobs.iter().try_for_each(|blob| self.row(key::link(self.repository, blob)))
    }

    /// All that it names has to be there; the first push counts it, too.
    fn push(&self, push: &PushRequest) -> Result<(), SchemaError> {
        let digest = &push.content.digest;
        self.row(key::blob(digest))?;
        push.tags.iter().try_for_each(|tag| self.tag(tag))?;
        for named in &push.manifest.references {
            let key = if named.role.is_blob() { key::link } else { key::manifest };
            self.row(key(self.repository, &named.digest))?;
        }
        self.row(key::parents(self.repository, digest))?;
        let known: Option<ManifestRow> = schema::get(self.view, key::manifest(self.repository, digest))?;
        if let Some(known) = known {
            return self.row(key::settling(known.manifest));
        }
        self.counts(digest)?;
        push.manifest.references.iter().try_for_each(|named| match named.role.is_blob() {
            true => self.counts(&named.digest),
            false => self.row(key::parents(self.repository, &named.digest)),
        })
    }
}
