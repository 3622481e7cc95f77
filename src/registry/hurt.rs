//! Whom damaged content hurts: the repositories, and the tags and digests there that can't be pulled whole.
//!
//! It reads rows only, in the bounds of [`keepers`](super::keepers), and tells a bounded number of names.

use super::{
    Keeper,
    keepers::{Keepers, keepers_of},
};
use crate::{
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{self, ManifestRow, RepositoryNameRow, SchemaError, key},
    },
};

/// Names that are told.
const NAMES_MAX: usize = 100;

/// The names under which some content is reached: `repository:tag`, `repository@digest` of a manifest without a tag, and
/// `repository` alone where no manifest names it; sorted. And whether there are, or may be, more.
///
/// # Errors
/// When the index fails or is damaged.
pub fn hurt(view: &dyn View, digest: &Digest) -> Result<(Vec<String>, bool), SchemaError> {
    let Keepers { chains, mut more, .. } = keepers_of(view, *digest)?;
    let mut names = Vec::new();
    for chain in chains {
        let repository = &chain.repository;
        let top = chain.path.last().map_or(*digest, |link| link.digest);
        match chain.keeper {
            Keeper::Grace(_) => names.push(repository.to_string()),
            Keeper::Root | Keeper::Window(_) => names.push(format!("{repository}@{top}")),
            Keeper::Tag(first) => {
                let tags = tags_of(view, repository.as_str(), &top)?;
                more |= tags.len() > NAMES_MAX;
                let tags = if tags.is_empty() { vec![first] } else { tags };
                names.extend(tags.iter().map(|tag| format!("{repository}:{tag}")));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    more |= names.len() > NAMES_MAX;
    names.truncate(NAMES_MAX);
    Ok((names, more))
}

/// The tags of a manifest, and one more than are told.
fn tags_of(view: &dyn View, repository: &str, digest: &Digest) -> Result<Vec<String>, SchemaError> {
    let id: Option<RepositoryNameRow> = schema::get(view, key::repository_name(repository))?;
    let Some(RepositoryNameRow { repository, .. }) = id else { return Ok(Vec::new()) };
    let row: Option<ManifestRow> = schema::get(view, key::manifest(repository, digest))?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let prefix = key::manifest_tags(repository, row.manifest).bytes();
    let rows = view.scan(&prefix, &prefix_end(&prefix), NAMES_MAX + 1)?;
    Ok(rows.iter().map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect())
}
