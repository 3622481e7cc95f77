//! What clients read: blobs, manifests, and lists of names, as far as the caller may wait.
//!
//! One view of the rows answers a question. Where nobody may wait it shows only what is in memory: what hot images have, and
//! what is pushed just now. So most requests are answered by the thread that has read them from their socket.

use bytes::Bytes;

use super::{Manifest, Page, Reference, Registry, RegistryError, repository_id, row};
use crate::{
    digest::Digest,
    disk::Reach,
    index::{
        View, prefix_end,
        schema::{ManifestRow, TagRow, key},
    },
    name::RepositoryName,
    store::{StoreError, StoredContent},
};

/// Most names that are listed where nobody may wait: some tens of microseconds.
const ROWS_AT_ONCE: usize = 256;

/// Reads of a registry. See [`Registry::reads`].
#[derive(Debug, Clone, Copy)]
pub struct Reads<'a> {
    pub(super) registry: &'a Registry,
    pub(super) reach: Reach,
}

impl<'a> Reads<'a> {
    /// The rows as they are now.
    pub(super) fn view(&self) -> Box<dyn View + 'a> {
        self.registry.store.snapshot_within(self.reach)
    }

    /// Opens a blob of a repository.
    ///
    /// # Errors
    /// [`RegistryError::BlobUnknown`] when the repository has no link to it, whoever else has.
    pub fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<StoredContent, RegistryError> {
        Ok(self.open(|| Ok((*digest, self.stored_len(repository, digest)?)))?.1)
    }

    /// Reads a manifest, with its bytes. Notes that it was pulled.
    ///
    /// # Errors
    /// When the repository, the tag or the manifest is not known.
    pub fn manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Manifest, RegistryError> {
        let (head, content) = self.open(|| {
            let head = self.manifest_head(repository, reference)?;
            Ok((head.digest, head))
        })?;
        Ok(Manifest { bytes: content.read_all()?, ..head })
    }

    /// A manifest's digest, type and length, without its bytes. Notes that it was pulled.
    ///
    /// # Errors
    /// As [`Reads::manifest`].
    pub fn manifest_head(&self, repository: &RepositoryName, reference: &Reference) -> Result<Manifest, RegistryError> {
        let unknown = || RegistryError::ManifestUnknown {
            repository: repository.clone(),
            reference: match reference {
                Reference::Tag(tag) => tag.to_string(),
                Reference::Digest(digest) => digest.to_string(),
            },
        };
        let view = self.view();
        let id = repository_id(&*view, repository)?.ok_or_else(|| RegistryError::NameUnknown(repository.clone()))?;
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => row::<TagRow>(&*view, key::tag(id, tag))?.ok_or_else(unknown)?.digest,
        };
        let row: Option<ManifestRow> = row(&*view, key::manifest(id, &digest))?;
        let row = row.filter(|row| !row.deleted).ok_or_else(unknown)?;
        self.registry.pulls.note(id, &digest, self.registry.store.options().clock.now_ms());
        Ok(Manifest { digest, media_type: row.media_type, len: row.size, bytes: Bytes::new() })
    }

    /// The first `limit` tags after `after`, in byte order.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`].
    pub fn tags(&self, repository: &RepositoryName, after: Option<&str>, limit: usize) -> Result<Page, RegistryError> {
        let view = self.view();
        let id = repository_id(&*view, repository)?.ok_or_else(|| RegistryError::NameUnknown(repository.clone()))?;
        self.page(&*view, &key::tags(id).bytes(), after, limit)
    }

    /// The first `limit` repositories after `after`, in byte order.
    ///
    /// # Errors
    /// When the index fails.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page, RegistryError> {
        self.page(&*self.view(), &key::repository_name("").bytes(), after, limit)
    }

    /// Names whose keys begin with `prefix`, one more read than asked for to know whether there are more.
    fn page(&self, view: &dyn View, prefix: &[u8], after: Option<&str>, limit: usize) -> Result<Page, RegistryError> {
        let from = after.map_or_else(|| prefix.to_vec(), |after| [prefix, after.as_bytes(), &[0]].concat());
        let wanted = limit.saturating_add(1);
        let most = if self.reach == Reach::Memory { wanted.min(ROWS_AT_ONCE) } else { wanted };
        let rows = view.scan(&from, &prefix_end(prefix), most).map_err(StoreError::from)?;
        if rows.len() == most && most < wanted {
            return Err(RegistryError::OutOfReach);
        }
        let more = rows.len() > limit;
        let name = |mut key: Vec<u8>| {
            key.drain(..prefix.len());
            String::from_utf8(key).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        };
        Ok(Page { more, names: rows.into_iter().take(limit).map(|(key, _)| name(key)).collect() })
    }
}
