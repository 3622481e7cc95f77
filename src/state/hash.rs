//! The state hash: which facts of a repository it is of, as bytes, and how it is kept.
//!
//! Facts are what operations have made of a repository and what follows from nothing else: its name, links, manifests with
//! what they name, tags, history. FORMAT.md, *State hash*, tells their bytes. What follows from them (counts, dues, lives as
//! they were told) and what local records can change (places, renewed graces, reports) is none.
//!
//! Invariant: [`keep`] is what every write of the index goes through, so that no operation has to think of it. It sees
//! rows as they were and as they are; how they came to change does not matter.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::{Algorithm, Digest},
    index::{
        Overlay, View,
        schema::{
            self, HistoryRow, LinkRow, ManifestRow, NamedDigest, RepositoryRow, RowValue, SchemaError, StateHash,
            Table, TagRow, key,
        },
    },
    journal::operation::RepositoryId,
    name::{RepositoryName, Tag},
    state::counts,
};

/// Brings the hashes of repositories, organisations and the registry to what the overlay has made of their facts.
///
/// # Errors
/// When the index fails or is damaged.
pub(super) fn keep(overlay: &mut Overlay<'_>) -> Result<(), SchemaError> {
    let mut changed: BTreeMap<RepositoryId, (RepositoryRow, StateHash)> = BTreeMap::new();
    for table in Table::HASHED {
        for (key, after) in schema::changes_of(overlay.changes(), table) {
            let before = overlay.before(key)?;
            if before == *after {
                continue;
            }
            let damaged = |source| SchemaError::Row { table: table.name(), source };
            let (repository, of) = Of::key(table, key).map_err(damaged)?;
            let (row, by) = match changed.entry(repository) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert((named(overlay, repository)?, StateHash::default())),
            };
            let fact = |row_bytes: &Vec<u8>| of.fact(&row.name, row_bytes);
            let (before, after) = (before.as_ref().map(fact).transpose()?, after.as_ref().map(fact).transpose()?);
            // Most changes of a manifest's row are of what follows from others.
            if before != after {
                before.into_iter().for_each(|fact| *by -= StateHash::of(&fact));
                after.into_iter().for_each(|fact| *by += StateHash::of(&fact));
            }
        }
    }
    for (repository, (row, by)) in changed.into_iter().filter(|(_, (_, by))| *by != StateHash::default()) {
        counts::total_changed_in(overlay, repository, row.organisation, |usage| usage.state_hash += by)?;
    }
    Ok(())
}

/// A repository's row; of one that goes with the changes, what it was.
fn named(overlay: &Overlay<'_>, repository: RepositoryId) -> Result<RepositoryRow, SchemaError> {
    let key = key::repository(repository).bytes();
    let row = match overlay.get(&key)? {
        None => overlay.before(&key)?,
        row => row,
    };
    RepositoryRow::from_bytes(&row.ok_or(SchemaError::Missing { table: Table::Repositories.name() })?)
}

/// What of its repository a row tells of: its key without the repository.
enum Of {
    Repository,
    Link(Digest),
    Manifest(Digest),
    Tag(Tag),
    History(Tag, u64),
}

impl Of {
    fn key(table: Table, row_key: &[u8]) -> Result<(RepositoryId, Self), DecodeError> {
        let mut d = Decoder::new(&row_key[1..]);
        if table == Table::Links {
            let digest = key::read_by_digest(&mut d)?;
            return Ok((d.key_u32("repository")?, Self::Link(digest)));
        }
        let repository = d.key_u32("repository")?;
        let of = match table {
            Table::Manifests => Self::Manifest(d.digest("digest")?),
            Table::Tags => Self::Tag(key::read_tag(&mut d)?),
            Table::History => {
                let (tag, lsn) = key::read_history(&mut d)?;
                Self::History(tag, lsn)
            }
            _ => Self::Repository,
        };
        Ok((repository, of))
    }

    fn fact(&self, name: &RepositoryName, row: &[u8]) -> Result<Vec<u8>, SchemaError> {
        Ok(match self {
            Self::Repository => repository(name, &RepositoryRow::from_bytes(row)?),
            Self::Link(digest) => link(name, digest, &LinkRow::from_bytes(row)?),
            Self::Manifest(digest) => manifest(name, digest, &ManifestRow::from_bytes(row)?),
            Self::Tag(of) => tag(name, of, &TagRow::from_bytes(row)?),
            Self::History(tag, lsn) => history(name, tag, *lsn, &HistoryRow::from_bytes(row)?),
        })
    }
}

/// Begins a fact: its kind, which is that of the fact of a snapshot, and its repository.
fn begin(kind: u8, repository: &RepositoryName) -> Encoder {
    let mut e = Encoder::new();
    e.u8(kind).str(repository.as_str());
    e
}

pub(super) fn repository(name: &RepositoryName, row: &RepositoryRow) -> Vec<u8> {
    let mut e = begin(2, name);
    e.u64(row.created_ms);
    e.finish()
}

/// Without its due time, which local records prolong.
pub(super) fn link(name: &RepositoryName, digest: &Digest, row: &LinkRow) -> Vec<u8> {
    let mut e = begin(5, name);
    e.digest(digest).u64(row.size).u64(row.linked_ms).u64(row.mounted_from);
    e.finish()
}

/// Without what follows from tags, references and other manifests.
pub(super) fn manifest(name: &RepositoryName, digest: &Digest, row: &ManifestRow) -> Vec<u8> {
    let mut e = begin(6, name);
    e.digest(digest).u64(row.size).bool(row.deleted).bool(row.root).bool(row.stays_root);
    e.u64(row.pushed_ms).u64(row.left_ms).u64(row.held_until_ms).str(&row.media_type);
    e.option(row.artifact_type.as_deref(), |e, text| {
        e.str(text);
    });
    e.option(row.subject, |e, digest| {
        e.digest(&digest);
    });
    e.digest(&row.references_hash);
    e.finish()
}

pub(super) fn tag(name: &RepositoryName, tag: &Tag, row: &TagRow) -> Vec<u8> {
    let mut e = begin(7, name);
    e.str(tag.as_str()).digest(&row.digest).u64(row.set_ms).u64(row.pulled_ms);
    e.finish()
}

pub(super) fn history(name: &RepositoryName, tag: &Tag, lsn: u64, row: &HistoryRow) -> Vec<u8> {
    let mut e = begin(8, name);
    e.str(tag.as_str()).u64(lsn).option(row.digest, |e, digest| {
        e.digest(&digest);
    });
    e.u64(row.time_ms).u64(row.until_ms);
    e.finish()
}

/// The hash of what a manifest names, in the order of its rows: it stands in the manifest's row, so that a change of that
/// needs none of them.
pub(super) fn references(named: &[NamedDigest]) -> Digest {
    let mut e = Encoder::new();
    for NamedDigest { digest, roles, size } in named {
        e.digest(digest).u8(*roles).u64(*size);
    }
    Digest::of(Algorithm::Sha256, &e.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    /// One fact of each kind.
    fn examples() -> Vec<Vec<u8>> {
        let name: RepositoryName = "team/app".parse().unwrap();
        let latest: Tag = "latest".parse().unwrap();
        let named = [
            NamedDigest { digest: digest("config"), roles: 2, size: 2 },
            NamedDigest { digest: digest("layer"), roles: 4, size: 1 << 40 },
        ];
        let manifest_row = ManifestRow {
            manifest: 3,
            size: 700,
            deleted: true,
            root: false,
            stays_root: false,
            attached: true,
            told: 2,
            tags: 4,
            references: 2,
            references_hash: references(&named),
            pushed_ms: 7,
            left_ms: 8,
            held_until_ms: 99,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            artifact_type: Some("application/example".to_owned()),
            subject: Some(digest("subject")),
        };
        let tag_row = TagRow { manifest: 3, digest: digest("manifest"), set_ms: 9, lsn: 10, pulled_ms: 11 };
        vec![
            repository(
                &name,
                &RepositoryRow {
                    name: name.clone(),
                    organisation: 1,
                    created_ms: 5,
                    governed: true,
                    policy: "all".to_owned(),
                },
            ),
            link(&name, &digest("layer"), &LinkRow { size: 5, linked_ms: 6, due_ms: 77, mounted_from: 2 }),
            manifest(&name, &digest("manifest"), &manifest_row),
            tag(&name, &latest, &tag_row),
            history(&name, &latest, 10, &HistoryRow { digest: None, time_ms: 11, until_ms: 99 }),
        ]
    }

    /// A change here is one of FORMAT.md and of the index's version.
    #[test]
    fn the_bytes_of_facts_are_pinned() {
        let facts = examples();
        assert_eq!(facts[0], b"\x02\x08\0\0\0team/app\x05\0\0\0\0\0\0\0");
        let history = b"\x08\x08\0\0\0team/app\x06\0\0\0latest\x0a\0\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x63\0\0\0\0\0\0\0";
        assert_eq!(facts[4], history);
        let mut sum = StateHash::default();
        facts.iter().for_each(|fact| sum += StateHash::of(fact));
        assert_eq!(
            (facts.iter().map(Vec::len).collect::<Vec<_>>(), sum.to_string().as_str()),
            (vec![21, 70, 218, 72, 48], "13561ad3cb650305b8f00951aa0468b73032262ea6dbce7db274258d826321a0")
        );
    }
}
