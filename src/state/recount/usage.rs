//! Counts and usage of every scope, from who names what and what is linked.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    digest::Digest,
    index::schema::{
        self, CountRow, EmptyRepositoryRow, LinkRow, ManifestRow, RowValue, SchemaError, Scope, StateHash, Table,
        UsageRow, key,
    },
    journal::operation::{OrganisationId, RepositoryId},
};

use super::{AllNamed, Difference, Recount, Repository, Totals, each, manifest_parts};

impl Recount<'_> {
    /// Counts of every scope, and what they add up to: each blob and manifest once per scope.
    pub(super) fn usage(&mut self, named: &AllNamed, links: &Parts, totals: &Totals) -> Result<(), SchemaError> {
        let (mut used, mut live) = (Parts::default(), Parts::default());
        for (&(repository, digest), of) in named {
            let link: Option<LinkRow> = schema::get(self.view, key::link(repository, &digest))?;
            let (links, size) = link.map_or((0, 0), |link| (1, link.size));
            let row = CountRow { named: of.as_blob, live: of.live, links, manifests: 0, size };
            self.expect(key::count(Scope::Repository(repository), &digest), &row);
            if links > 0 {
                let organisation = self.organisation(repository)?;
                used.add(organisation, repository, digest, size);
                if of.live > 0 {
                    live.add(organisation, repository, digest, size);
                }
            }
        }
        let manifests = self.manifest_owners()?;
        let mut sums = Sums::default();
        sums.add(
            &used,
            |count| &mut count.named,
            |usage, size| {
                usage.blobs += 1;
                usage.used_bytes = usage.used_bytes.saturating_add(size);
                usage.reclaimable_bytes = usage.reclaimable_bytes.saturating_add(size);
            },
        );
        let lives = |usage: &mut UsageRow, size| usage.reclaimable_bytes = usage.reclaimable_bytes.saturating_sub(size);
        sums.add(&live, |count| &mut count.live, lives);
        let linked = |usage: &mut UsageRow, size| usage.linked_bytes = usage.linked_bytes.saturating_add(size);
        sums.add(links, |count| &mut count.links, linked);
        sums.add(
            &manifests,
            |count| &mut count.manifests,
            |usage, size| {
                usage.manifests += 1;
                usage.manifest_bytes = usage.manifest_bytes.saturating_add(size);
            },
        );
        let Sums { counts, mut usage } = sums;
        self.rows.extend(counts.into_iter().map(|(key, row)| (key, row.to_bytes())));
        self.totals(&mut usage, totals);
        self.state_hashes(&mut usage)?;
        let rows = usage.into_iter().filter(|(_, row)| *row != UsageRow::default());
        self.rows.extend(rows.map(|(key, row)| (key, row.to_bytes())));
        Ok(())
    }

    /// Who has each manifest.
    fn manifest_owners(&self) -> Result<Parts, SchemaError> {
        let mut parts = Parts::default();
        each(self.view, Table::Manifests, manifest_parts, |(repository, digest), row: ManifestRow| {
            parts.add(self.organisation(repository)?, repository, digest, row.size);
            Ok(())
        })?;
        Ok(parts)
    }

    /// Plain sums; and a repository in which they are all 0, but that had something once, is empty.
    fn totals(&mut self, usage: &mut BTreeMap<Vec<u8>, UsageRow>, totals: &Totals) {
        let organisations = self.repositories.values().map(|it| it.organisation).collect::<BTreeSet<_>>().len() as u64;
        usage.entry(key::usage(Scope::Registry).bytes()).or_default().organisations = organisations;
        for (&repository, &Repository { organisation, .. }) in &self.repositories {
            let of = |totals: &BTreeMap<RepositoryId, u64>| totals.get(&repository).copied().unwrap_or_default();
            for scope in [Scope::Registry, Scope::Organisation(organisation), Scope::Repository(repository)] {
                let row = usage.entry(key::usage(scope).bytes()).or_default();
                row.tags += of(&totals.tags);
                row.links += of(&totals.links);
                row.history += of(&totals.history);
                row.repositories += u64::from(!matches!(scope, Scope::Repository(_)));
            }
            if usage.get(&key::usage(Scope::Repository(repository)).bytes()).is_none_or(UsageRow::is_empty) {
                self.rows.insert(key::empty_repository(repository).bytes(), EmptyRepositoryRow {}.to_bytes());
            }
        }
    }

    /// That of a repository which is not what its facts are is told by name; sums are held against what they are of, so
    /// that one fact is not three differences.
    fn state_hashes(&mut self, usage: &mut BTreeMap<Vec<u8>, UsageRow>) -> Result<(), SchemaError> {
        for (&repository, Repository { name, organisation, state_hash }) in &self.repositories {
            let of = Scope::Repository(repository);
            let stored: Option<UsageRow> = schema::get(self.view, key::usage(of))?;
            let stored = stored.map(|row| row.state_hash).unwrap_or_default();
            if stored != *state_hash {
                let shown = |hash| Some(format!("state hash {hash} of repository {name}"));
                (self.report)(Difference { stored: shown(stored), expected: shown(*state_hash) });
            }
            for scope in [Scope::Registry, Scope::Organisation(*organisation), of] {
                usage.entry(key::usage(scope).bytes()).or_default().state_hash += stored;
            }
        }
        Ok(())
    }

    /// The sum over all repositories.
    pub(super) fn state_hash(&self) -> StateHash {
        let mut sum = StateHash::default();
        self.repositories.values().for_each(|repository| sum += repository.state_hash);
        sum
    }
}

/// What the parts of all digests add up to.
#[derive(Default)]
struct Sums {
    counts: BTreeMap<Vec<u8>, CountRow>,
    usage: BTreeMap<Vec<u8>, UsageRow>,
}

impl Sums {
    fn add(&mut self, parts: &Parts, counter: impl Fn(&mut CountRow) -> &mut u64, total: impl Fn(&mut UsageRow, u64)) {
        parts.each(|scope, digest, size, count| {
            if let Some(count) = count {
                let row = self.counts.entry(key::count(scope, digest).bytes()).or_default();
                *counter(row) = count;
                row.size = size;
            }
            total(self.usage.entry(key::usage(scope).bytes()).or_default(), size);
        });
    }
}

/// Who has each digest, by digest: organisation and repository. The sizes are all the same.
#[derive(Default)]
pub(super) struct Parts(BTreeMap<Digest, (u64, BTreeSet<(OrganisationId, RepositoryId)>)>);

impl Parts {
    pub(super) fn add(&mut self, organisation: OrganisationId, repository: RepositoryId, digest: Digest, size: u64) {
        let (stored, parts) = self.0.entry(digest).or_default();
        *stored = size;
        parts.insert((organisation, repository));
    }

    /// Gives every scope that has a digest: its size, and, but for a repository, in how many parts of the scope it is.
    fn each(&self, mut give: impl FnMut(Scope, &Digest, u64, Option<u64>)) {
        for (digest, (size, parts)) in &self.0 {
            let mut organisations: BTreeMap<OrganisationId, u64> = BTreeMap::new();
            for &(organisation, repository) in parts {
                give(Scope::Repository(repository), digest, *size, None);
                *organisations.entry(organisation).or_default() += 1;
            }
            for (&organisation, &count) in &organisations {
                give(Scope::Organisation(organisation), digest, *size, Some(count));
            }
            give(Scope::Registry, digest, *size, Some(organisations.len() as u64));
        }
    }
}
