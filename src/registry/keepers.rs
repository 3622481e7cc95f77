//! Why some content is kept: the chains of manifests from it up to what is kept by itself.
//!
//! A walk in breadth from the content upwards, so that the shortest chains come first: from a blob to the manifests that
//! name it, from a manifest to the indexes that name it and to its subject. It looks at a bounded number of manifests
//! and tells a bounded number of chains.

use std::collections::{HashSet, VecDeque};

use super::{
    Reference, Registry, RegistryError,
    inventory::{self, ManifestState},
    repository_id, row,
    whereabouts::{owners, roles},
};
use crate::{
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{
            self, BlobRow, CountRow, LinkRow, ManifestIdRow, ManifestRow, NameRow, RepositoryRow, RowValue,
            SchemaError, Scope, TagRow, key,
        },
    },
    journal::operation::{RepositoryId, Role},
    name::RepositoryName,
    store::StoreError,
};

/// Manifests that are looked at.
const MANIFESTS_MAX: usize = 1_000;
/// Chains that are told.
const CHAINS_MAX: usize = 100;
/// Manifests that name one digest that are looked at.
const NAMES_MAX: usize = 1_000;
/// Repositories in which content is looked for.
const REPOSITORIES_MAX: usize = 100;

/// What is asked about.
#[derive(Debug, Clone)]
pub enum Sought {
    /// A digest, wherever it is, or in one repository.
    Digest(Digest, Option<RepositoryName>),
    /// What a tag or digest of a repository stands for.
    Reference(RepositoryName, Reference),
}

/// What keeps some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepers {
    /// The content.
    pub digest: Digest,
    /// The chains, shortest first.
    pub chains: Vec<Chain>,
    /// Whether there are, or may be, more.
    pub more: bool,
}

/// A chain from the content up to what is kept by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The repository in which it lies.
    pub repository: RepositoryName,
    /// From the content up.
    pub path: Vec<Link>,
    /// What keeps the last of them.
    pub keeper: Keeper,
}

/// A part of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// A blob or manifest.
    pub digest: Digest,
    /// How the next one keeps it, as it is called in answers; `None` for the last.
    pub kept_as: Option<&'static str>,
}

/// What keeps something by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// A tag: the first in byte order.
    Tag(String),
    /// It was pushed by digest, and not reached since.
    Root,
    /// It is held until then, in Unix milliseconds.
    Window(u64),
    /// No manifest names it; its grace lasts until then, in Unix milliseconds.
    Grace(u64),
}

/// How a role is called in answers.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Config => "config",
        Role::Layer => "layer",
        Role::ForeignLayer => "foreign-layer",
        Role::Child => "child",
        Role::IndexedBlob => "indexed-blob",
    }
}

impl Registry {
    /// The chains of tags and manifests that keep some content.
    ///
    /// # Errors
    /// When the repository, tag or digest is not known. What is known and kept by nothing has no chain.
    pub fn keepers(&self, sought: &Sought) -> Result<Keepers, RegistryError> {
        let view = self.store.snapshot();
        let (digest, only) = match sought {
            Sought::Digest(digest, None) => (*digest, None),
            Sought::Digest(digest, Some(name)) => {
                let id = repository_id(&*view, name)?.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?;
                (*digest, Some(id))
            }
            Sought::Reference(name, reference) => {
                let id = repository_id(&*view, name)?.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?;
                (resolve(&*view, id, name, reference)?, Some(id))
            }
        };
        let mut walk = Walk::new(&*view, digest);
        let known = walk.begin(only).map_err(StoreError::from)?;
        if !known && row::<BlobRow>(&*view, key::blob(&digest))?.is_none() {
            return Err(RegistryError::DigestUnknown(digest));
        }
        walk.run().map_err(StoreError::from)?;
        Ok(Keepers { digest, chains: walk.chains, more: walk.more })
    }
}

/// What keeps some content, wherever it is; no chains where nobody has it.
///
/// # Errors
/// When the index fails or is damaged.
pub(super) fn keepers_of(view: &dyn View, digest: Digest) -> Result<Keepers, SchemaError> {
    let mut walk = Walk::new(view, digest);
    walk.begin(None)?;
    walk.run()?;
    Ok(Keepers { digest, chains: walk.chains, more: walk.more })
}

fn resolve(
    view: &dyn View,
    id: RepositoryId,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Digest, RegistryError> {
    match reference {
        Reference::Digest(digest) => Ok(*digest),
        Reference::Tag(tag) => {
            let unknown = || RegistryError::ManifestUnknown { repository: name.clone(), reference: tag.to_string() };
            Ok(row::<TagRow>(view, key::tag(id, tag))?.ok_or_else(unknown)?.digest)
        }
    }
}

/// A manifest or blob on the way up, and from where it was reached.
struct Node {
    repository: RepositoryId,
    digest: Digest,
    /// The node below, and how this one keeps that.
    below: Option<(usize, &'static str)>,
}

struct Walk<'a> {
    view: &'a dyn View,
    digest: Digest,
    nodes: Vec<Node>,
    seen: HashSet<(RepositoryId, Digest)>,
    /// Manifests that are still to be looked at.
    waiting: VecDeque<usize>,
    chains: Vec<Chain>,
    more: bool,
}

impl<'a> Walk<'a> {
    fn new(view: &'a dyn View, digest: Digest) -> Self {
        let (nodes, seen, waiting) = (Vec::new(), HashSet::new(), VecDeque::new());
        Self { view, digest, nodes, seen, waiting, chains: Vec::new(), more: false }
    }

    /// Finds the content as manifest and as blob, in one repository or wherever it is; whether anybody has it.
    fn begin(&mut self, only: Option<RepositoryId>) -> Result<bool, SchemaError> {
        let mut repositories = match only {
            Some(repository) => vec![repository],
            None => self.repositories()?,
        };
        repositories.dedup();
        let mut known = false;
        for repository in repositories {
            let link: Option<LinkRow> = schema::get(self.view, key::link(repository, &self.digest))?;
            let manifest: Option<ManifestRow> = schema::get(self.view, key::manifest(repository, &self.digest))?;
            if link.is_none() && manifest.is_none() {
                continue;
            }
            known = true;
            let at = self.add(repository, self.digest, None);
            if manifest.is_some() {
                self.seen.insert((repository, self.digest));
                self.waiting.push_back(at);
            }
            let Some(link) = link else { continue };
            let count: Option<CountRow> =
                schema::get(self.view, key::count(Scope::Repository(repository), &self.digest))?;
            if count.is_none_or(|count| count.named == 0) {
                self.tell(at, Keeper::Grace(link.due_ms))?;
            } else if manifest.is_none() {
                self.climb_names(at)?;
            }
        }
        Ok(known)
    }

    /// Repositories that link the content or have it as a manifest, sorted.
    fn repositories(&mut self) -> Result<Vec<RepositoryId>, SchemaError> {
        let prefix = key::links(&self.digest).bytes();
        let rows = self.view.scan(&prefix, &prefix_end(&prefix), REPOSITORIES_MAX + 1)?;
        let linking = rows.iter().filter_map(|(key, _)| key[prefix.len()..].try_into().ok().map(u32::from_be_bytes));
        let mut repositories: Vec<RepositoryId> = linking.take(REPOSITORIES_MAX).collect();
        let (owners, more) = owners::of(self.view, &self.digest, REPOSITORIES_MAX)?;
        self.more |= more || rows.len() > REPOSITORIES_MAX;
        repositories.extend(owners);
        repositories.sort_unstable();
        Ok(repositories)
    }

    fn add(&mut self, repository: RepositoryId, digest: Digest, below: Option<(usize, &'static str)>) -> usize {
        self.nodes.push(Node { repository, digest, below });
        self.nodes.len() - 1
    }

    fn run(&mut self) -> Result<(), SchemaError> {
        while let Some(at) = self.waiting.pop_front() {
            if self.chains.len() >= CHAINS_MAX {
                self.more = true;
                break;
            }
            self.look_at(at)?;
        }
        Ok(())
    }

    /// A manifest: what keeps it by itself, then what is above it.
    fn look_at(&mut self, at: usize) -> Result<(), SchemaError> {
        let (repository, digest) = (self.nodes[at].repository, self.nodes[at].digest);
        let row: Option<ManifestRow> = schema::get(self.view, key::manifest(repository, &digest))?;
        let Some(row) = row else { return Ok(()) };
        let state = ManifestState::of(self.view, repository, &digest, &row)?;
        if row.tags > 0 {
            let tags = key::manifest_tags(repository, row.manifest).bytes();
            let first = self.view.scan(&tags, &prefix_end(&tags), 1)?.pop();
            let tag = first.map(|(key, _)| String::from_utf8_lossy(&key[tags.len()..]).into_owned());
            self.tell(at, Keeper::Tag(tag.ok_or(SchemaError::Missing { table: "manifest-tags" })?))?;
        }
        if row.root {
            self.tell(at, Keeper::Root)?;
        }
        if let Some(until_ms) = inventory::held_until_ms(state, &row) {
            self.tell(at, Keeper::Window(until_ms))?;
        }
        self.climb_names(at)?;
        if let Some(subject) = row.subject.filter(|_| row.attached) {
            self.climb(at, subject, "subject");
        }
        Ok(())
    }

    /// To the manifests that name this one or this blob.
    fn climb_names(&mut self, at: usize) -> Result<(), SchemaError> {
        let (repository, digest) = (self.nodes[at].repository, self.nodes[at].digest);
        let prefix = key::names(&digest, repository).bytes();
        let rows = self.view.scan(&prefix, &prefix_end(&prefix), NAMES_MAX)?;
        self.more |= rows.len() == NAMES_MAX;
        for (key, value) in rows {
            let id = key[prefix.len()..].try_into().map_err(|_| SchemaError::Missing { table: "names" })?;
            let role = roles(NameRow::from_bytes(&value)?.roles).first().map_or("layer", |role| role_name(*role));
            let row: Option<ManifestIdRow> = schema::get(self.view, key::manifest_id(u64::from_be_bytes(id)))?;
            if let Some(row) = row {
                self.climb(at, row.digest, role);
            }
        }
        Ok(())
    }

    fn climb(&mut self, from: usize, digest: Digest, kept_as: &'static str) {
        let repository = self.nodes[from].repository;
        if self.seen.len() >= MANIFESTS_MAX {
            self.more = true;
        } else if self.seen.insert((repository, digest)) {
            let at = self.add(repository, digest, Some((from, kept_as)));
            self.waiting.push_back(at);
        }
    }

    fn tell(&mut self, at: usize, keeper: Keeper) -> Result<(), SchemaError> {
        let node = &self.nodes[at];
        let RepositoryRow { name, .. } = schema::expect(self.view, key::repository(node.repository))?;
        let mut path = vec![Link { digest: node.digest, kept_as: None }];
        let mut below = node.below;
        while let Some((at, kept_as)) = below {
            path.push(Link { digest: self.nodes[at].digest, kept_as: Some(kept_as) });
            below = self.nodes[at].below;
        }
        path.reverse();
        self.chains.push(Chain { repository: name, path, keeper });
        Ok(())
    }
}
