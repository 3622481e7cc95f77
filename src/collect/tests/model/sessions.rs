//! Uploads in parts: what a session has told to be durable is there after any restart, and only that.

use super::*;
use crate::digest::Algorithm;

const SESSIONS_MAX: usize = 4;

/// An upload under way.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    repository: &'static str,
    blob: usize,
    written: usize,
    /// Whether it has a segment of its own.
    large: bool,
    /// What a restart leaves of it.
    kept: Option<usize>,
    /// What it may have been kept at by a call that was cut short.
    maybe: Option<usize>,
    /// A call that was to end it was cut short.
    ending: bool,
}

impl Session {
    pub(super) fn is_unknown_to_journal(&self) -> bool {
        self.large && self.kept.is_none()
    }
}

impl World {
    pub(super) fn step_session(&mut self, name: &'static str) {
        if self.sessions.is_empty() || (self.sessions.len() < SESSIONS_MAX && self.random.u8(..3) == 0) {
            return self.start_session(name);
        }
        let at = self.random.usize(..self.sessions.len());
        let is_whole = self.sessions[at].written == self.items[self.sessions[at].blob].bytes.len();
        match self.random.u8(..10) {
            0 => self.cancel(at),
            1 => self.finish(at),
            _ if is_whole => self.finish(at),
            _ => self.write(at),
        }
    }

    fn start_session(&mut self, repository: &'static str) {
        let blob = if self.random.bool() { self.random.usize(8..10) } else { self.random.usize(..BLOBS_END) };
        let algorithm = if self.random.bool() { Algorithm::Sha256 } else { Algorithm::Sha512 };
        let id = self.registry().start_upload(&parse(repository), algorithm).unwrap();
        self.log("start", repository, blob, &id);
        let (written, large, kept, maybe, ending) = (0, false, None, None, false);
        self.sessions.push(Session { id, repository, blob, written, large, kept, maybe, ending });
    }

    fn write(&mut self, at: usize) {
        let keep = self.random.u8(..3) > 0;
        let Session { id, repository, blob, written, .. } = &self.sessions[at];
        let left = &self.items[*blob].bytes[*written..];
        let len = if self.random.bool() { left.len() } else { self.random.clone().usize(..=left.len()) };
        let written = written + len;
        let done = self.registry().lease_upload(&parse(repository), id).and_then(|mut lease| {
            lease.write(&left[..len])?;
            let offset = lease.offset();
            if keep { lease.keep() } else { Ok(offset) }
        });
        let (id, repository) = (id.clone(), *repository);
        self.log("write", repository, (&id, written, keep), &done);
        let session = &mut self.sessions[at];
        session.large |= written > LARGE_BLOB_BYTES;
        let is_kept = (session.large && keep).then_some(written);
        match done {
            Ok(offset) => {
                assert_eq!(offset, written as u64);
                (session.written, session.kept) = (written, is_kept.or(session.kept));
                // What is small again, after a write that failed, may lie in memory only.
                session.maybe = (keep && is_kept.is_none()).then_some(written).or(session.maybe);
                if is_kept.is_some() {
                    session.maybe = None;
                }
                self.saw("write to a session");
            }
            Err(error) => {
                session.maybe = is_kept.or(session.maybe);
                self.cut_short(error, |_| ());
                self.look_again(at);
            }
        }
    }

    /// After a call that failed while the process goes on: the session is where it says.
    fn look_again(&mut self, at: usize) {
        if self.is_down() {
            return;
        }
        let session = &mut self.sessions[at];
        match self.open.as_ref().expect("it runs").0.upload_offset(&parse(session.repository), &session.id) {
            Ok(offset) => {
                (session.written, session.ending) = (offset as usize, false);
                session.large &= session.written > LARGE_BLOB_BYTES;
            }
            Err(RegistryError::UploadUnknown(_)) => self.ended(at),
            Err(error) => panic!("{error}"),
        }
    }

    fn finish(&mut self, at: usize) {
        let Session { id, repository, blob, written, .. } = &self.sessions[at];
        let (repository, blob, written) = (*repository, *blob, *written);
        let Item { digest, bytes, .. } = &self.items[blob];
        let is_whole = written == bytes.len();
        let lease = self.registry().lease_upload(&parse(repository), id);
        let done = lease.and_then(|lease| lease.finish(*digest));
        self.log("finish", repository, (at, blob, written), &done);
        match done {
            Ok(()) => {
                assert!(is_whole, "it has {written} bytes of blob {blob}");
                self.linked(repository, blob);
                self.ended(at);
                self.saw("finish of a session");
            }
            Err(RegistryError::DigestMismatch { .. }) if !self.is_down() => {
                assert!(!is_whole);
                self.ended(at);
            }
            Err(error) => {
                self.sessions[at].ending = true;
                self.cut_short(error, move |world| {
                    if is_whole {
                        world.linked(repository, blob);
                    }
                });
                self.look_again(at);
            }
        }
    }

    fn cancel(&mut self, at: usize) {
        let Session { id, repository, .. } = &self.sessions[at];
        let done = self.registry().cancel_upload(&parse(repository), id);
        match done {
            Ok(()) => self.ended(at),
            Err(error) => {
                self.sessions[at].ending = true;
                self.cut_short(error, |_| ());
                self.look_again(at);
            }
        }
    }

    fn ended(&mut self, at: usize) {
        let Session { id, repository, .. } = self.sessions.swap_remove(at);
        self.ended.push((id, repository));
    }

    pub(super) fn end_sessions(&mut self) {
        while !self.sessions.is_empty() {
            self.cancel(0);
        }
    }

    /// After a start: sessions are there as they were kept, and no others; `done` tells whether the operation that was cut
    /// short is there.
    pub(super) fn find_sessions(&mut self, done: bool) {
        let mut at = 0;
        while at < self.sessions.len() {
            let session = &self.sessions[at];
            match self.registry().upload_offset(&parse(session.repository), &session.id) {
                Ok(offset) => {
                    let written = offset as usize;
                    let offset = Some(written);
                    let may_be = offset == session.kept || offset == session.maybe;
                    assert!(may_be && !(session.ending && done), "{offset:?} of {session:?}, {done}");
                    let session = &mut self.sessions[at];
                    (session.written, session.kept) = (written, offset);
                    (session.maybe, session.ending) = (None, false);
                    at += 1;
                }
                Err(RegistryError::UploadUnknown(_)) => {
                    assert!(session.kept.is_none() || session.ending, "{session:?} is gone");
                    self.ended(at);
                }
                Err(error) => panic!("{error}"),
            }
        }
        for (id, repository) in &self.ended {
            let found = self.registry().upload_offset(&parse(repository), id);
            assert!(matches!(found, Err(RegistryError::UploadUnknown(_))), "{id} is back: {found:?}");
        }
        let old = self.ended.len().saturating_sub(8);
        self.ended.drain(..old);
    }
}
