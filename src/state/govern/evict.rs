//! What goes when the repositories of a policy use more than its cap: manifests in the order in which they were used last.
//!
//! Who evicts asks for one at a time, and again how much is used after it. What was used a moment ago may be known to the
//! caller better than to the index, where pulls are written now and then, so the caller says which of the first was used longest ago.

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        View, prefix_end,
        schema::{PolicyRow, SchemaError, Table, key},
    },
    journal::operation::RepositoryId,
    policy::PolicyName,
};

use super::{policies, usage};

/// Manifests that are looked at for the one that was used longest ago.
const CANDIDATES: usize = 1_000;

/// A manifest that may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its repository.
    pub repository: RepositoryId,
    /// Its digest.
    pub digest: Digest,
    /// When it was used last, as the index has it, in Unix milliseconds; 0 for one that is only held.
    pub used_ms: u64,
}

/// A policy whose repositories use more than its cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// The policy.
    pub policy: PolicyName,
    /// What they may use, in bytes.
    pub cap_bytes: u64,
    /// What they use, in bytes.
    pub used_bytes: u64,
    /// Whether some of that is not told yet: what was evicted is still counted.
    pub is_settling: bool,
}

/// Whether the repositories of a policy use more than its cap.
///
/// # Errors
/// When the index fails or is damaged; so with all that follow.
pub fn over(view: &dyn View, row: &PolicyRow) -> Result<Option<Over>, SchemaError> {
    let Some(cap_bytes) = row.policy.size_max_bytes else { return Ok(None) };
    let usage = usage(view, row.policy.name.as_str())?;
    Ok((usage.used_bytes > cap_bytes).then(|| Over {
        policy: row.policy.name.clone(),
        cap_bytes,
        used_bytes: usage.used_bytes,
        is_settling: usage.settling > 0,
    }))
}

/// All policies whose repositories use more than their caps.
pub fn all_over(view: &dyn View) -> Result<Vec<Over>, SchemaError> {
    policies(view)?.iter().filter_map(|row| over(view, row).transpose()).collect()
}

/// The manifest that was used longest ago, of those that the policy may evict and that are `free`. `pulled_ms` is what the caller
/// knows of pulls.
pub fn least_used(
    view: &dyn View,
    policy: &PolicyName,
    pulled_ms: impl Fn(RepositoryId, &Digest) -> Option<u64>,
    is_free: impl Fn(&Candidate) -> bool,
) -> Result<Option<Candidate>, SchemaError> {
    let mut best: Option<(u64, Candidate)> = None;
    for candidate in candidates(view, policy, CANDIDATES)? {
        if best.as_ref().is_some_and(|(used_ms, _)| candidate.used_ms >= *used_ms) {
            break;
        }
        if !is_free(&candidate) {
            continue;
        }
        let known_ms = if candidate.used_ms == 0 { None } else { pulled_ms(candidate.repository, &candidate.digest) };
        let used_ms = candidate.used_ms.max(known_ms.unwrap_or(0));
        if best.as_ref().is_none_or(|(best_ms, _)| used_ms < *best_ms) {
            best = Some((used_ms, candidate));
        }
    }
    Ok(best.map(|(_, candidate)| candidate))
}

/// The first of what a policy may evict, the least recently used first.
pub fn candidates(view: &dyn View, policy: &PolicyName, limit: usize) -> Result<Vec<Candidate>, SchemaError> {
    let Some(first_ms) = usage(view, policy.as_str())?.first_used_ms else { return Ok(Vec::new()) };
    let prefix = key::uses_of(policy.as_str()).bytes();
    let from = [prefix.as_slice(), &first_ms.to_be_bytes()].concat();
    let read = |key: &[u8]| {
        let mut d = Decoder::new(&key[prefix.len()..]);
        let used_ms = d.key_u64("used")?;
        Ok(Candidate { used_ms, repository: d.key_u32("repository")?, digest: d.digest("digest")? })
    };
    let rows = view.scan(&from, &prefix_end(&prefix), limit)?.into_iter().map(|(key, _)| read(&key));
    rows.collect::<Result<_, _>>().map_err(|source| SchemaError::Row { table: Table::ByUse.name(), source })
}
