//! What a client was told to be there: kept for as long as that is worth, and looked for again before it is called lost.
//!
//! The committer drops and renews one after the other, so a renewal either comes before a drop, which then finds that
//! nothing is due, or finds no link any more, which the client is told.

use crate::{
    digest::Digest,
    index::{
        View,
        schema::{BlobRow, CountRow, LinkRow, Scope, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    state::{
        decide::renewed,
        govern,
        request::{Refusal, Request},
    },
    store::{StoreError, StoredContent},
};

use super::{Registry, RegistryError, missing, repository_id, row};

/// How often content is looked up that is dropped and comes back in between.
const LOOKS: usize = 8;

impl Registry {
    /// Opens what `head` finds, and finds it again when the content was dropped in between: who drops it does not wait for
    /// those who are about to open it.
    pub(super) fn open<T>(
        &self,
        head: impl Fn() -> Result<(Digest, T), RegistryError>,
    ) -> Result<(T, StoredContent), RegistryError> {
        let mut last = None;
        for _ in 0..LOOKS {
            let (digest, head) = head()?;
            match self.store.content(&digest)? {
                Some(content) => return Ok((head, content)),
                None => last = Some(digest),
            }
        }
        Err(last.map_or_else(|| RegistryError::Failed("nothing was looked up".to_owned()), |digest| missing(&digest)))
    }

    /// The length of a blob that a repository links.
    pub(super) fn stored_len(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, RegistryError> {
        Ok(linked(&*self.store.snapshot(), repository, digest)?.len)
    }

    /// The same for a client that is told of the blob by it: its grace is prolonged before. Nothing is written while more
    /// than half of it is left, nor while a live manifest names the blob whose own end would leave a window of at least a
    /// grace.
    ///
    /// When the store takes no writes, the answer is right for as long as the grace lasts; without one it would be a lie.
    pub(super) fn kept_len(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, RegistryError> {
        let (grace_ms, now_ms) = (self.store.options().grace_ms, self.store.options().clock.now_ms());
        let view = self.store.snapshot();
        let Linked { repository: id, link, len } = linked(&*view, repository, digest)?;
        let count: Option<CountRow> = row(&*view, key::count(Scope::Repository(id), digest))?;
        let is_named = count.is_some_and(|count| count.live > 0) && self.window_in(&*view, id)? >= grace_ms;
        if is_named || renewed(&link, now_ms, grace_ms).is_none() {
            return Ok(len);
        }
        drop(view);
        let request = Request::Renew { repository: repository.clone(), digest: *digest, grace_ms };
        match self.store.commit(request) {
            Ok(_) => Ok(len),
            Err(StoreError::Refused(Refusal::BlobUnknown(_) | Refusal::RepositoryUnknown(_))) => {
                Err(unknown(repository, digest))
            }
            Err(_) if link.due_ms > now_ms => Ok(len),
            Err(error) => Err(error.into()),
        }
    }

    /// How long what loses its last reach in a repository is held, in milliseconds.
    fn window_in(&self, view: &dyn View, repository: RepositoryId) -> Result<u64, RegistryError> {
        let window_ms = govern::window_ms(view, repository).map_err(StoreError::from)?;
        Ok(window_ms.unwrap_or_else(|| self.window_ms()))
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
