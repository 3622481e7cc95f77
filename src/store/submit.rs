//! Changes on their way to the committer: the rows that it will ask for are read first, and content goes with them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Reply, Store, StoreError};
use crate::{
    digest::Digest,
    disk::Reach,
    state::{
        ahead,
        request::{Content, Outcome, Request},
    },
    sync::mpsc,
};

impl Store {
    /// Does a change; durable on return. Many threads' changes share a sync.
    ///
    /// # Errors
    /// When it is refused, or could not be made durable.
    pub fn commit(&self, request: Request) -> Result<Outcome, StoreError> {
        let (reply, told) = waited_for();
        self.submit(request, reply);
        told()
    }

    /// Does a change, and tells `reply` from the committer's thread, which must not be held up.
    pub fn submit(&self, request: Request, reply: Reply) {
        // Nothing is out of reach of the disk.
        let _ = self.read_ahead(Reach::Disk, &request);
        self.committer.submit(request, None, reply);
    }

    /// Stores bytes of a manifest and does the change that names them; durable on return. `request` makes the change from what
    /// is known of the content.
    ///
    /// # Errors
    /// When the change is refused, the disk is full or the store takes no writes.
    pub fn commit_manifest(
        &self,
        digest: Digest,
        bytes: Bytes,
        request: impl FnOnce(Content) -> Request,
    ) -> Result<(), StoreError> {
        let (reply, told) = waited_for();
        self.submit_manifest(Reach::Disk, digest, bytes, request, reply)?;
        told().map(drop)
    }

    /// Begins the same as far as `reach`, and tells `reply` from the committer's thread, which must not be held up. It is the
    /// committer that writes the bytes, when it has decided that they are needed: what is refused leaves none.
    ///
    /// # Errors
    /// [`StoreError::OutOfReach`] when the change depends on what is not in memory: then nothing was begun.
    pub fn submit_manifest(
        &self,
        reach: Reach,
        digest: Digest,
        bytes: Bytes,
        request: impl FnOnce(Content) -> Request,
        reply: Reply,
    ) -> Result<(), StoreError> {
        let replaces_damaged = self.is_damaged(&digest);
        let request = request(Content { digest, len: bytes.len() as u64, placement: None, replaces_damaged });
        self.read_ahead(reach, &request)?;
        let reply = if replaces_damaged { self.healing(digest, reply) } else { reply };
        self.committer.submit(request, Some(bytes), reply);
        Ok(())
    }

    /// Reads what the committer will ask for.
    ///
    /// # Errors
    /// [`StoreError::OutOfReach`], where `reach` is memory. Whatever else keeps a row from being read, the committer will meet.
    fn read_ahead(&self, reach: Reach, request: &Request) -> Result<(), StoreError> {
        let read = match reach {
            Reach::Memory => ahead::read(&*self.at_hand(), request),
            Reach::Disk => ahead::read(&*self.shared.index, request),
        };
        match read.map_err(StoreError::from) {
            Err(StoreError::OutOfReach) => return Err(StoreError::OutOfReach),
            Err(error) => tracing::debug!(%error, "the committer will meet it"),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Tells of content that is not damaged any more when it was stored.
    fn healing(&self, digest: Digest, reply: Reply) -> Reply {
        let shared = Arc::clone(&self.shared);
        Box::new(move |result| {
            if result.is_ok() {
                shared.damaged().remove(&digest);
            }
            reply(result);
        })
    }
}

/// A reply, and what waits for it.
fn waited_for() -> (Reply, impl FnOnce() -> Result<Outcome, StoreError>) {
    let (send, receive) = mpsc::sync_channel(1);
    let closed = || Err(StoreError::Unavailable("the store was closed".to_owned()));
    (Box::new(move |result| drop(send.send(result))), move || receive.recv().unwrap_or_else(|_| closed()))
}
