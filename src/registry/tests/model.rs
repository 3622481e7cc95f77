//! What every call should answer, and what should then be there: small and naive.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    digest::Digest,
    index::schema::{self, Scope, UsageRow, key},
    journal::operation::Role,
    name::RepositoryName,
    registry::{Reference, Registry, RegistryError, uploads::MARK_BYTES},
    state::decide::find_repository,
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
    item: usize,
    media_type: &'static str,
    deleted: bool,
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
            Step::DeleteBlob { repository, item } => self.delete_blob(items, repository, &items[*item].digest),
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

    fn delete_blob(&mut self, items: &[Item], name: &str, digest: &Digest) -> Answer {
        let repository = self.repositories.get_mut(name).ok_or("NameUnknown")?;
        if !repository.blobs.contains(digest) {
            return Err("BlobUnknown".to_owned());
        }
        let names_it = |manifest: &&Manifest| !manifest.deleted && blobs_of(&items[manifest.item]).contains(digest);
        if repository.manifests.values().any(|manifest| names_it(&manifest)) {
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
            if !is_there && *role != Role::ForeignLayer {
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

    /// Used bytes, blobs, manifest bytes, manifests and tags of the repositories that `chosen` picks.
    fn usage(&self, items: &[Item], chosen: impl Fn(&str) -> bool) -> UsageRow {
        let (mut blobs, mut manifests) = (BTreeSet::new(), BTreeSet::new());
        let mut usage = UsageRow::default();
        for (_, repository) in self.repositories.iter().filter(|(name, _)| chosen(name)) {
            for (digest, manifest) in &repository.manifests {
                manifests.insert(*digest);
                blobs.extend(blobs_of(&items[manifest.item]).intersection(&repository.blobs).copied());
            }
            usage.tags += repository.tags.len() as u64;
        }
        let len = |digest: &Digest| items.iter().find(|item| item.digest == *digest).map_or(0, Item::len);
        (usage.blobs, usage.used_bytes) = (blobs.len() as u64, blobs.iter().map(len).sum());
        (usage.manifests, usage.manifest_bytes) = (manifests.len() as u64, manifests.iter().map(len).sum());
        usage
    }

    /// The first thing in which the registry is not like the model.
    pub(super) fn difference(&self, items: &[Item], names: &[&str], registry: &Registry) -> Result<(), String> {
        for (id, session) in &self.sessions {
            let repository = parse(&session.repository);
            let found = registry.upload_offset(&repository, id).map_err(|error| error_name(&error));
            same(id, "upload", Ok(session.written), found)?;
        }
        for (id, name) in self.ended.iter().flat_map(|id| names.iter().map(move |name| (id, name))) {
            let found = registry.upload_offset(&parse(name), id).map_err(|error| error_name(&error));
            same(id, "ended upload", Err("UploadUnknown".to_owned()), found)?;
        }
        for name in names {
            self.repository_difference(items, name, registry)?;
        }
        let catalog: Vec<String> = self.repositories.keys().cloned().collect();
        same("catalog", "page", &catalog, &all_pages(|after, limit| registry.repositories(after, limit).unwrap()))?;
        self.usage_difference(items, names, registry)
    }

    fn repository_difference(&self, items: &[Item], name: &str, registry: &Registry) -> Result<(), String> {
        let expected = self.repositories.get(name);
        let repository = parse(name);
        for item in items {
            let blob = expected.filter(|repository| repository.blobs.contains(&item.digest));
            let blob = blob.map(|_| item.bytes.clone()).ok_or_else(|| "BlobUnknown".to_owned());
            let found = registry.blob(&repository, &item.digest).and_then(|content| Ok(content.read_all()?));
            same(name, "blob", blob, found.map_err(|error| error_name(&error)))?;
            let manifest = self.manifest(items, name, &item.digest);
            let reference = Reference::Digest(item.digest);
            same(name, "manifest", manifest, read_manifest(registry, &repository, &reference))?;
        }
        let Some(expected) = expected else {
            let found = registry.tags(&repository, None, 1).map_err(|error| error_name(&error));
            return same(name, "tags", Err("NameUnknown".to_owned()), found);
        };
        for (tag, digest) in &expected.tags {
            let reference = Reference::Tag(tag.parse().unwrap());
            let manifest = self.manifest(items, name, digest);
            same(name, "tag", manifest, read_manifest(registry, &repository, &reference))?;
        }
        let tags: Vec<String> = expected.tags.keys().cloned().collect();
        same(name, "tags", &tags, &all_pages(|after, limit| registry.tags(&repository, after, limit).unwrap()))
    }

    fn manifest(&self, items: &[Item], name: &str, digest: &Digest) -> Result<String, String> {
        let repository = self.repositories.get(name).ok_or("NameUnknown")?;
        let manifest = repository.manifests.get(digest).filter(|manifest| !manifest.deleted);
        let manifest = manifest.ok_or("ManifestUnknown")?;
        Ok(format!("{digest} {} {:?}", manifest.media_type, items[manifest.item].bytes))
    }

    fn usage_difference(&self, items: &[Item], names: &[&str], registry: &Registry) -> Result<(), String> {
        let view = registry.store().snapshot();
        let check = |of: &str, scope: Scope, chosen: &dyn Fn(&str) -> bool| {
            let found: Option<UsageRow> = schema::get(&*view, key::usage(scope)).unwrap();
            same(of, "usage", self.usage(items, chosen), found.unwrap_or_default())
        };
        check("the registry", Scope::Registry, &|_| true)?;
        for name in names {
            let repository = parse(name);
            let Some(id) = find_repository(&*view, &repository).unwrap() else { continue };
            check(name, Scope::Repository(id), &|other| other == *name)?;
            let organisation = repository.organisation();
            let row: schema::OrganisationNameRow =
                schema::expect(&*view, key::organisation_name(organisation)).unwrap();
            let chosen = |other: &str| parse(other).organisation() == organisation;
            check(organisation, Scope::Organisation(row.organisation), &chosen)?;
        }
        Ok(())
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

fn blobs_of(item: &Item) -> BTreeSet<Digest> {
    let references = item.document.iter().flat_map(|document| &document.references);
    references.filter(|(role, ..)| role.is_blob()).map(|(_, digest, _)| *digest).collect()
}

fn read_manifest(registry: &Registry, name: &RepositoryName, reference: &Reference) -> Result<String, String> {
    let manifest = registry.manifest(name, reference).map_err(|error| error_name(&error))?;
    assert_eq!(manifest.len, manifest.bytes.len() as u64);
    Ok(format!("{} {} {:?}", manifest.digest, manifest.media_type, manifest.bytes))
}

/// A whole list, read in pages of two.
fn all_pages(page: impl Fn(Option<&str>, usize) -> crate::registry::Page) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let next = page(names.last().map(String::as_str), 2);
        names.extend(next.names);
        if !next.more {
            return names;
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(of: &str, what: &str, expected: T, found: T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let clip = |value: T| format!("{value:?}").chars().take(300).collect::<String>();
    Err(format!("{what} of {of}: expected {}, found {}", clip(expected), clip(found)))
}
