//! What every call should answer, and what it leaves: small and naive.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    digest::Digest,
    journal::operation::Role,
    name::RepositoryName,
    registry::{RegistryError, Sparse, uploads::MARK_BYTES},
};

use super::{
    items::{Document, Item},
    machine::LARGE_BLOB_BYTES,
};

/// A call that may change something. Items are named by their index.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// All at once, without a session.
    Put {
        repository: String,
        item: usize,
    },
    /// The next `len` bytes of the session's item.
    Write {
        session: String,
        len: usize,
        keep: bool,
    },
    Finish {
        session: String,
    },
    Cancel {
        session: String,
    },
    Mount {
        repository: String,
        item: usize,
        from: Option<String>,
    },
    DeleteBlob {
        repository: String,
        item: usize,
        /// Whether a live manifest names it: told by the index, whose lives are held against a recount.
        live: bool,
    },
    Push {
        repository: String,
        item: usize,
        media_type: &'static str,
        tags: Vec<String>,
        expected: Option<Digest>,
    },
    Delete {
        repository: String,
        reference: String,
    },
}

/// What a call answers: something to compare, or the name of an error and what it names.
pub(super) type Answer = Result<String, String>;

#[derive(Debug, Clone, Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeSet<Digest>,
    pub(super) manifests: BTreeMap<Digest, Manifest>,
    pub(super) tags: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) item: usize,
    pub(super) media_type: &'static str,
    pub(super) deleted: bool,
}

/// An upload under way.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) repository: String,
    pub(super) item: usize,
    pub(super) written: u64,
    /// What a restart leaves of it.
    pub(super) kept: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) sparse: Sparse,
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) sessions: BTreeMap<String, Session>,
    /// Sessions that have ended, and stay so.
    pub(super) ended: BTreeSet<String>,
}

impl Model {
    /// Does a step, and tells what the registry should answer.
    pub(super) fn step(&mut self, items: &[Item], step: &Step) -> Answer {
        match step {
            Step::Put { repository, item } => {
                self.link(repository, items[*item].digest);
                Ok(String::new())
            }
            Step::Write { session, len, keep } => Ok(self.write(items, session, *len, *keep)),
            Step::Finish { session: id } => {
                let session = self.end_session(id);
                let Item { digest, bytes, .. } = &items[session.item];
                if session.written != bytes.len() as u64 {
                    return Err("DigestMismatch".to_owned());
                }
                self.link(&session.repository, *digest);
                Ok(String::new())
            }
            Step::Cancel { session } => {
                self.end_session(session);
                Ok(String::new())
            }
            Step::Mount { repository, item, from } => {
                let digest = items[*item].digest;
                let has = |repository: &Repository| repository.blobs.contains(&digest);
                let found = match from {
                    Some(from) => self.repositories.get(from).is_some_and(has),
                    None => self.repositories.values().any(has),
                };
                if found {
                    self.link(repository, digest);
                }
                Ok(found.to_string())
            }
            Step::DeleteBlob { repository, item, live } => {
                self.delete_blob(items, repository, &items[*item].digest, *live)
            }
            Step::Push { repository, item, media_type, tags, expected } => {
                self.push(items, repository, *item, media_type, tags, *expected)
            }
            Step::Delete { repository, reference } => self.delete(repository, reference),
        }
    }

    fn link(&mut self, repository: &str, digest: Digest) {
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest);
    }

    pub(super) fn end_session(&mut self, id: &str) -> Session {
        self.ended.insert(id.to_owned());
        self.sessions.remove(id).expect("the step names an open session")
    }

    fn write(&mut self, items: &[Item], id: &str, len: usize, keep: bool) -> String {
        let session = self.sessions.get_mut(id).expect("the step names an open session");
        session.written += next_bytes(items, session, len).len() as u64;
        let is_large = session.written > LARGE_BLOB_BYTES as u64 || session.kept.is_some();
        if is_large && (keep || session.written - session.kept.unwrap_or(0) >= MARK_BYTES) {
            session.kept = Some(session.written);
        }
        session.written.to_string()
    }

    fn delete_blob(&mut self, items: &[Item], name: &str, digest: &Digest, live: bool) -> Answer {
        let repository = self.repositories.get_mut(name).ok_or("NameUnknown")?;
        if !repository.blobs.contains(digest) {
            return Err("BlobUnknown".to_owned());
        }
        let names_it = |manifest: &&Manifest| !manifest.deleted && blobs_of(&items[manifest.item]).contains(digest);
        if live {
            assert!(repository.manifests.values().any(|manifest| names_it(&manifest)), "what lives is there");
            return Err("BlobNamed".to_owned());
        }
        repository.blobs.remove(digest);
        Ok(String::new())
    }

    fn push(
        &mut self,
        items: &[Item],
        name: &str,
        item: usize,
        media_type: &'static str,
        tags: &[String],
        expected: Option<Digest>,
    ) -> Answer {
        let Item { digest, document, .. } = &items[item];
        if expected.is_some_and(|expected| expected != *digest) {
            return Err("DigestMismatch".to_owned());
        }
        let document = document.as_ref().expect("the step names a manifest");
        let none = Repository::default();
        self.check_references(items, self.repositories.get(name).unwrap_or(&none), document)?;
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let manifest = Manifest { item, media_type, deleted: false };
        let stored = repository.manifests.entry(*digest).or_insert(manifest);
        if stored.media_type != media_type {
            return Err("ManifestInvalid".to_owned());
        }
        stored.deleted = false;
        repository.tags.extend(tags.iter().map(|tag| (tag.clone(), *digest)));
        Ok(format!("{digest} {:?}", document.subject))
    }

    fn check_references(&self, items: &[Item], repository: &Repository, document: &Document) -> Result<(), String> {
        let mut missing = BTreeSet::new();
        for (role, digest, stated) in &document.references {
            let is_there = match role {
                Role::Child => repository.manifests.get(digest).is_some_and(|manifest| !manifest.deleted),
                _ => repository.blobs.contains(digest),
            };
            let len = items.iter().find(|item| item.digest == *digest).map(Item::len);
            if is_there && len != Some(*stated) {
                return Err("ManifestInvalid".to_owned());
            }
            let may_be_absent = match self.sparse {
                Sparse::Off => *role == Role::ForeignLayer,
                Sparse::Index => matches!(role, Role::ForeignLayer | Role::Child | Role::IndexedBlob),
                Sparse::Any => true,
            };
            if !is_there && !may_be_absent {
                missing.insert(*digest);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("ManifestBlobUnknown {missing:?}")) }
    }

    fn delete(&mut self, name: &str, reference: &str) -> Answer {
        let repository = self.repositories.get_mut(name).ok_or("NameUnknown")?;
        match reference.parse::<Digest>() {
            Ok(digest) => {
                let manifest = repository.manifests.get_mut(&digest).filter(|manifest| !manifest.deleted);
                manifest.ok_or("ManifestUnknown")?.deleted = true;
                repository.tags.retain(|_, target| *target != digest);
            }
            Err(_) => drop(repository.tags.remove(reference).ok_or("ManifestUnknown")?),
        }
        Ok(String::new())
    }

    /// What a restart leaves.
    pub(super) fn restart(&mut self) {
        for (id, mut session) in std::mem::take(&mut self.sessions) {
            match session.kept {
                Some(kept) => {
                    session.written = kept;
                    self.sessions.insert(id, session);
                }
                None => drop(self.ended.insert(id)),
            }
        }
    }
}

/// The bytes that a write of `len` adds.
pub(super) fn next_bytes<'a>(items: &'a [Item], session: &Session, len: usize) -> &'a [u8] {
    let left = &items[session.item].bytes[session.written as usize..];
    &left[..len.min(left.len())]
}

pub(super) fn parse(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// The name of an error, and for a manifest's missing references what they are.
pub(super) fn error_name(error: &RegistryError) -> String {
    let text = format!("{error:?}");
    match error {
        RegistryError::ManifestBlobUnknown { missing, .. } => {
            format!("ManifestBlobUnknown {:?}", missing.iter().collect::<BTreeSet<_>>())
        }
        _ => text.split([' ', '(']).next().unwrap_or_default().to_owned(),
    }
}

pub(super) fn blobs_of(item: &Item) -> BTreeSet<Digest> {
    let references = item.document.iter().flat_map(|document| &document.references);
    references.filter(|(role, ..)| role.is_blob()).map(|(_, digest, _)| *digest).collect()
}
