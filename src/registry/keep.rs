//! What a client was told to be there: kept for as long as that is worth, and looked for again before it is called lost.
//!
//! The committer drops and renews one after the other, so a renewal either comes before a drop, which then finds that
//! nothing is due, or finds no link any more, which the client is told.

use crate::{
    digest::Digest,
    disk::Reach,
    index::{
        View,
        schema::{BlobRow, CountRow, LinkRow, Scope, UsageRow, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    state::{
        decide::{is_given_up, renewed},
        govern,
        request::{Refusal, Request},
    },
    store::{StoreError, StoredContent},
};

use super::{Reads, RegistryError, missing, repository_id, row};

/// How often content is looked up that is dropped and comes back in between.
const LOOKS: usize = 8;

impl Reads<'_> {
    /// Opens what `head` finds, and finds it again when the content was dropped in between: who drops it does not wait for
    /// those who are about to open it.
    pub(super) fn open<T>(
        &self,
        head: impl Fn() -> Result<(Digest, T), RegistryError>,
    ) -> Result<(T, StoredContent), RegistryError> {
        let mut last = None;
        for _ in 0..LOOKS {
            let (digest, head) = head()?;
            match self.registry.store.content_within(self.reach, &digest)? {
                Some(content) => return Ok((head, content)),
                None => last = Some(digest),
            }
        }
        Err(last.map_or_else(|| RegistryError::Failed("nothing was looked up".to_owned()), |digest| missing(&digest)))
    }

    /// The length of a blob that a repository links.
    pub(super) fn stored_len(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, RegistryError> {
        Ok(linked(&*self.view(), repository, digest)?.len)
    }

    /// The length of a blob of a repository in bytes; reads none of them. Who asks is told that the blob is there, and may
    /// rely on that: its grace is prolonged before. Nothing is written while a live manifest names the blob whose own end would
    /// leave a window of at least a grace; else, while more than half of the grace is left and no purge is about to take the
    /// blob.
    ///
    /// When the store takes no writes, the answer is right for as long as the grace lasts; without one it would be a lie.
    ///
    /// # Errors
    /// As [`Reads::blob`].
    pub fn blob_len(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, RegistryError> {
        let store = &self.registry.store;
        let (grace_ms, now_ms) = (store.options().grace_ms, store.options().clock.now_ms());
        let view = self.view();
        let Linked { repository: id, link, len } = linked(&*view, repository, digest)?;
        let scope = Scope::Repository(id);
        let count = row::<CountRow>(&*view, key::count(scope, digest))?.unwrap_or_default();
        // While something settles there, what is counted as live may live no more.
        let is_settling = || {
            Ok::<_, RegistryError>(row::<UsageRow>(&*view, key::usage(scope))?.is_some_and(|usage| usage.settling > 0))
        };
        if count.live > 0 && self.window_in(&*view, id)? >= grace_ms && !is_settling()? {
            return Ok(len);
        }
        let is_given_up = count.named > 0 && is_given_up(&*view, id, digest, &link).map_err(StoreError::from)?;
        if !is_given_up && renewed(&link, now_ms, grace_ms).is_none() {
            return Ok(len);
        }
        drop(view);
        if self.reach == Reach::Memory {
            return Err(RegistryError::OutOfReach);
        }
        let request = Request::Renew { repository: repository.clone(), digest: *digest, grace_ms };
        match store.commit(request) {
            Ok(_) => Ok(len),
            Err(StoreError::Refused(Refusal::BlobUnknown(_) | Refusal::RepositoryUnknown(_))) => {
                Err(unknown(repository, digest))
            }
            Err(_) if link.due_ms > now_ms && !is_given_up => Ok(len),
            Err(error) => Err(error.into()),
        }
    }

    /// How long what loses its last reach in a repository is held, in milliseconds.
    fn window_in(&self, view: &dyn View, repository: RepositoryId) -> Result<u64, RegistryError> {
        let window_ms = govern::window_ms(view, repository).map_err(StoreError::from)?;
        Ok(window_ms.unwrap_or_else(|| self.registry.window_ms()))
    }
}

/// A blob as a repository has it.
struct Linked {
    repository: RepositoryId,
    link: LinkRow,
    /// Its length in bytes.
    len: u64,
}

fn linked(view: &dyn View, repository: &RepositoryName, digest: &Digest) -> Result<Linked, RegistryError> {
    let id = repository_id(view, repository)?.ok_or_else(|| unknown(repository, digest))?;
    let link: LinkRow = row(view, key::link(id, digest))?.ok_or_else(|| unknown(repository, digest))?;
    let len = row::<BlobRow>(view, key::blob(digest))?.ok_or_else(|| missing(digest))?.size;
    Ok(Linked { repository: id, link, len })
}

fn unknown(repository: &RepositoryName, digest: &Digest) -> RegistryError {
    RegistryError::BlobUnknown { repository: repository.clone(), digest: *digest }
}
