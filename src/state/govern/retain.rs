//! What goes by policies: tags and roots whose time has come. Bounded reads; what they find may have changed when it is taken
//! away, so `decide` looks again.

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{self, GovernedRow, Key, ManifestRow, PullRow, SchemaError, SpareTagRow, Table, TagRow, key},
    },
    journal::operation::RepositoryId,
    name::Tag,
    policy::Policy,
};

use super::{governed, prefix};

/// What becomes of a tag that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Goes,
    /// It stays for now, as what it points to was pulled then.
    Stays {
        /// In Unix milliseconds.
        pulled_ms: u64,
    },
    /// It is not due any more, or gone.
    NotDue,
}

/// What a policy says of one of a repository's tags now.
///
/// # Errors
/// When the index fails or is damaged; so with all that follow.
pub fn verdict(
    view: &dyn View,
    repository: RepositoryId,
    policy: &Policy,
    tag: &Tag,
    now_ms: u64,
) -> Result<Verdict, SchemaError> {
    let Some(row) = schema::get::<TagRow>(view, key::tag(repository, tag))? else { return Ok(Verdict::NotDue) };
    let spare: Option<SpareTagRow> = schema::get(view, key::spare_tag(repository, row.set_ms, tag))?;
    if spare.and_then(|spare| spare.due_ms).is_none_or(|due_ms| due_ms > now_ms) {
        return Ok(Verdict::NotDue);
    }
    let pulled: Option<PullRow> = schema::get(view, key::pull(repository, &row.digest))?;
    let pulled_ms = pulled.map_or(0, |pulled| pulled.pulled_ms).max(row.pulled_ms);
    let goes = policy.due_ms(row.set_ms, pulled_ms).is_some_and(|due_ms| due_ms <= now_ms);
    Ok(if goes { Verdict::Goes } else { Verdict::Stays { pulled_ms } })
}

/// Repositories in which tags are due, from a key on or the first, and where the next page begins, if there is more.
pub fn due_repositories(
    view: &dyn View,
    from: Option<&[u8]>,
    now_ms: u64,
    limit: usize,
) -> Result<(Vec<RepositoryId>, Option<Vec<u8>>), SchemaError> {
    let all = Key::of(Table::DueRepositories).bytes();
    let until = [all.as_slice(), &now_ms.saturating_add(1).to_be_bytes()].concat();
    let rows = view.scan(from.unwrap_or(&all), &until, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| [key.as_slice(), &[0]].concat());
    let id = |key: &[u8]| {
        let mut d = Decoder::new(&key[1..]);
        d.key_u64("due").and_then(|_| d.key_u32("repository"))
    };
    let ids = rows.iter().map(|(key, _)| id(key)).collect::<Result<_, _>>();
    Ok((ids.map_err(|source| SchemaError::Row { table: Table::DueRepositories.name(), source })?, next))
}

/// Tags of a repository that are due, behind one of them or the first, with their due times; at most `limit`.
pub fn due_tags(
    view: &dyn View,
    repository: RepositoryId,
    after: Option<&(u64, Tag)>,
    now_ms: u64,
    limit: usize,
) -> Result<Vec<(u64, Tag)>, SchemaError> {
    let Some(GovernedRow { due_ms: Some(first_ms), .. }) = governed(view, repository)? else { return Ok(Vec::new()) };
    let begin = prefix(Table::DueTags, repository);
    let from = match after {
        Some((due_ms, tag)) => [key::due_tag(repository, *due_ms, tag).bytes().as_slice(), &[0]].concat(),
        None => [begin.as_slice(), &first_ms.to_be_bytes()].concat(),
    };
    let until = [begin.as_slice(), &now_ms.saturating_add(1).to_be_bytes()].concat();
    let read = |key: &[u8]| {
        let mut d = Decoder::new(&key[begin.len()..]);
        Ok((d.key_u64("due")?, key::read_tag(&mut d)?))
    };
    let rows = view.scan(&from, &until, limit)?.into_iter().map(|(key, _)| read(&key));
    rows.collect::<Result<_, _>>().map_err(|source| SchemaError::Row { table: Table::DueTags.name(), source })
}

/// How many of a repository's tags go now; counting ends when they are more than `limit`.
pub fn count_going(
    view: &dyn View,
    repository: RepositoryId,
    policy: &Policy,
    now_ms: u64,
    limit: u64,
) -> Result<u64, SchemaError> {
    const PAGE: usize = 1_000;
    let (mut count, mut after) = (0, None);
    loop {
        let page = due_tags(view, repository, after.as_ref(), now_ms, PAGE)?;
        for (_, tag) in &page {
            count += u64::from(verdict(view, repository, policy, tag, now_ms)? == Verdict::Goes);
            if count > limit {
                return Ok(count);
            }
        }
        if page.len() < PAGE {
            return Ok(count);
        }
        after = page.into_iter().next_back();
    }
}

/// A page of roots that are due: repository and digest; and where the next page begins.
pub type DueRoots = (Vec<(RepositoryId, Digest)>, Option<Vec<u8>>);

/// Roots whose time is over, from a key on or the first.
pub fn due_roots(view: &dyn View, from: Option<&[u8]>, now_ms: u64, limit: usize) -> Result<DueRoots, SchemaError> {
    let all = Key::of(Table::DueRoots).bytes();
    let until = [all.as_slice(), &now_ms.saturating_add(1).to_be_bytes()].concat();
    let rows = view.scan(from.unwrap_or(&all), &until, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| [key.as_slice(), &[0]].concat());
    let read = |key: &[u8]| {
        let mut d = Decoder::new(&key[1..]);
        d.key_u64("due")?;
        Ok((d.key_u32("repository")?, d.digest("digest")?))
    };
    let roots = rows.iter().map(|(key, _)| read(key)).collect::<Result<_, _>>();
    Ok((roots.map_err(|source| SchemaError::Row { table: Table::DueRoots.name(), source })?, next))
}

/// Whether a manifest is a root whose time is over by the policy.
pub fn is_due_root(policy: &Policy, row: &ManifestRow, now_ms: u64) -> bool {
    let due_ms = policy.never_tagged_for_ms.map(|ms| row.pushed_ms.saturating_add(ms));
    row.root && !row.deleted && due_ms.is_some_and(|due_ms| due_ms <= now_ms)
}

/// Whether anything goes by policies now: tags, or roots.
pub fn is_any_due(view: &dyn View, now_ms: u64) -> Result<bool, SchemaError> {
    for table in [Table::DueRepositories, Table::DueRoots] {
        let all = Key::of(table).bytes();
        let until = [all.as_slice(), &now_ms.saturating_add(1).to_be_bytes()].concat();
        if !view.scan(&all, &until.min(prefix_end(&all)), 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
