//! What follows from policies, from each repository's tags, manifests and pulls: sorted and looked through as a whole.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    digest::Digest,
    index::schema::{
        ByUseRow, DueRepositoryRow, DueRootRow, DueTagRow, GovernedRow, NewestTagRow, PolicyRow, PolicyUsageRow,
        PullRow, ReviewPhase, RowValue, SchemaError, Scope, SpareTagRow, Table, TagRow, UsageRow, UseRow, key,
    },
    journal::operation::RepositoryId,
    name::Tag,
    policy::{self, Policy},
};

use super::{AllManifests, Found, Recount, each, lives};

/// The tags of each repository.
pub(super) type TagRows = BTreeMap<RepositoryId, Vec<(Tag, TagRow)>>;

impl Recount<'_> {
    /// All policies.
    pub(super) fn policies(&mut self) -> Result<Vec<Policy>, SchemaError> {
        let mut policies = Vec::new();
        each(
            self.view,
            Table::Policies,
            |d| key::read_rest::<policy::PolicyName>(d, "policy"),
            |name, row: PolicyRow| {
                self.expect(key::policy(&name), &row);
                policies.push(row.policy);
                Ok(())
            },
        )?;
        Ok(policies)
    }

    /// What each repository's policy makes of it, and what those of one policy have together.
    pub(super) fn governed(
        &mut self,
        policies: &[Policy],
        tags: TagRows,
        manifests: &AllManifests,
    ) -> Result<(), SchemaError> {
        let mut pulls = BTreeMap::new();
        each(
            self.view,
            Table::Pulls,
            |d| Ok((d.key_u32("repository")?, d.digest("digest")?)),
            |manifest: (RepositoryId, Digest), row: PullRow| {
                pulls.insert(manifest, row.pulled_ms);
                Ok(())
            },
        )?;
        let strong: BTreeSet<(RepositoryId, Digest)> =
            lives::parents(manifests).into_iter().filter(|(_, row)| row.strong > 0).map(|(key, _)| key).collect();
        let named: BTreeSet<(RepositoryId, Digest)> = lives::parents(manifests).into_keys().collect();
        let mut usage: BTreeMap<String, PolicyUsageRow> = BTreeMap::new();
        let mut by_repository: BTreeMap<RepositoryId, Vec<(&Digest, &Found)>> = BTreeMap::new();
        for ((repository, digest), it) in manifests {
            by_repository.entry(*repository).or_default().push((digest, it));
        }
        let ids: Vec<(RepositoryId, Option<Policy>)> = self
            .repositories
            .iter()
            .map(|(id, repository)| (*id, policy::governing(policies, &repository.name).cloned()))
            .collect();
        for (repository, policy) in ids {
            let Some(policy) = policy else { continue };
            let total = usage.entry(policy.name.as_str().to_owned()).or_default();
            total.repositories += 1;
            let row = self.rows.get(&key::usage(Scope::Repository(repository)).bytes());
            let used = row.map(|row| UsageRow::from_bytes(row)).transpose()?;
            total.used_bytes += used.map_or(0, |row| row.used_bytes);
            let spare = self.tags_of(repository, &policy, tags.get(&repository).map_or(&[], Vec::as_slice));
            for (digest, it) in by_repository.remove(&repository).unwrap_or_default() {
                let is_held = !it.is_live() && !named.contains(&(repository, *digest));
                let spare = spare.get(digest).copied().unwrap_or_default();
                let lives_by_spare = it.row.root || (it.row.tags > 0 && spare == it.row.tags);
                let is_free = it.is_live() && lives_by_spare && !strong.contains(&(repository, *digest));
                let pulled_ms = pulls.get(&(repository, *digest)).copied().unwrap_or_default();
                let used_ms = match policy.size_max_bytes {
                    Some(_) if is_held => Some(0),
                    Some(_) if is_free => Some(it.row.pushed_ms.max(pulled_ms)),
                    _ => None,
                };
                let due_ms = policy.never_tagged_for_ms.filter(|_| it.row.root).map(|ms| it.row.pushed_ms + ms);
                let row = UseRow { spare, used_ms, due_ms };
                if row != UseRow::default() {
                    self.expect(key::use_of(repository, digest), &row);
                }
                if let Some(due_ms) = due_ms {
                    self.expect(key::due_root(due_ms, repository, digest), &DueRootRow {});
                }
                if let Some(used_ms) = used_ms {
                    self.expect(key::by_use(policy.name.as_str(), used_ms, repository, digest), &ByUseRow {});
                    total.first_used_ms = Some(total.first_used_ms.map_or(used_ms, |first| first.min(used_ms)));
                }
            }
        }
        for (name, row) in usage {
            self.expect(key::policy_usage(&name), &row);
        }
        Ok(())
    }

    /// The order of a repository's tags; how many of each manifest's are none of the newest, where that counts.
    fn tags_of(&mut self, repository: RepositoryId, policy: &Policy, tags: &[(Tag, TagRow)]) -> BTreeMap<Digest, u32> {
        let mut ordered: Vec<&(Tag, TagRow)> =
            tags.iter().filter(|(tag, _)| policy.orders_tags() && policy.tag_pattern.matches(tag)).collect();
        ordered.sort_by_key(|(tag, row)| Reverse((row.set_ms, tag.clone())));
        let (newest, others) = ordered.split_at(ordered.len().min(policy.keep_newest.unwrap_or(0) as usize));
        for (tag, row) in newest {
            self.expect(key::newest_tag(repository, row.set_ms, tag), &NewestTagRow {});
        }
        let (mut first_ms, mut spare) = (None::<u64>, BTreeMap::new());
        for (tag, row) in others {
            let due_ms = policy.due_ms(row.set_ms, row.pulled_ms);
            self.expect(key::spare_tag(repository, row.set_ms, tag), &SpareTagRow { due_ms });
            if let Some(due_ms) = due_ms {
                self.expect(key::due_tag(repository, due_ms, tag), &DueTagRow {});
                first_ms = Some(first_ms.map_or(due_ms, |first| first.min(due_ms)));
            }
            if policy.size_max_bytes.is_some() {
                *spare.entry(row.digest).or_default() += 1;
            }
        }
        if let Some(due_ms) = first_ms {
            self.expect(key::due_repository(due_ms, repository), &DueRepositoryRow {});
        }
        let row = GovernedRow {
            newest: newest.len() as u32,
            boundary: newest.last().map(|(tag, row)| (row.set_ms, tag.clone())),
            due_ms: first_ms,
            ..GovernedRow::new(Some(policy.clone()), ReviewPhase::Done)
        };
        self.expect(key::governed(repository), &row);
        spare
    }
}
