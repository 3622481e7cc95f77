//! Samples of usage: what an organisation, and the registry, used at the end of each day on which it changed.
//!
//! Today's sample is put again by every operation that changes the totals, so yesterday's is what was so at its end, and
//! nothing has to run at midnight. A day is one of UTC, by the times of operations. The first sample of a day takes the
//! place of those that are too old.

use crate::{
    codec::{DecodeError, Decoder},
    index::{
        Overlay, View,
        schema::{self, RepositoryRow, SampleRow, SchemaError, Scope, UsageRow, key},
    },
    journal::operation::{OrganisationId, RepositoryId},
};

/// Days for which samples are kept.
pub const DAYS_KEPT: u32 = 400;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Samples what the organisation of a repository, and the registry, use now. Nothing for one that has just gone.
pub(super) fn take(overlay: &mut Overlay<'_>, time_ms: u64, repository: RepositoryId) -> Result<(), SchemaError> {
    match schema::get::<RepositoryRow>(overlay, key::repository(repository))? {
        Some(row) => take_of(overlay, time_ms, row.organisation),
        None => Ok(()),
    }
}

/// The same, of an organisation.
pub(super) fn take_of(
    overlay: &mut Overlay<'_>,
    time_ms: u64,
    organisation: OrganisationId,
) -> Result<(), SchemaError> {
    let day = day_of(time_ms);
    for scope in [Scope::Organisation(organisation), Scope::Registry] {
        let usage: UsageRow = schema::get(overlay, key::usage(scope))?.unwrap_or_default();
        let sample = SampleRow {
            used_bytes: usage.used_bytes,
            blobs: usage.blobs,
            manifest_bytes: usage.manifest_bytes,
            manifests: usage.manifests,
            tags: usage.tags,
            repositories: usage.repositories,
            reclaimable_bytes: usage.reclaimable_bytes,
        };
        let before: Option<SampleRow> = schema::get(overlay, key::sample(scope, day))?;
        if before.is_none() {
            forget(overlay, scope, day.saturating_sub(DAYS_KEPT - 1))?;
        }
        if before.as_ref() != Some(&sample) {
            schema::put(overlay, key::sample(scope, day), &sample);
        }
    }
    Ok(())
}

/// Takes away the samples of days before `until`.
pub(super) fn forget(overlay: &mut Overlay<'_>, scope: Scope, until: u32) -> Result<(), SchemaError> {
    // All that can be there: one for each of so many days.
    let rows = overlay.scan(&key::samples(scope).bytes(), &key::sample(scope, until).bytes(), DAYS_KEPT as usize)?;
    rows.into_iter().for_each(|(key, _)| overlay.delete(key));
    Ok(())
}

/// The day of a time, counted from 1970-01-01.
pub fn day_of(time_ms: u64) -> u32 {
    u32::try_from(time_ms / DAY_MS).unwrap_or(u32::MAX)
}

/// The scope in a sample's key: an organisation, or `None` for the registry.
pub(super) fn organisation(d: &mut Decoder<'_>) -> Result<Option<OrganisationId>, DecodeError> {
    let (kind, id) = (d.u8("scope")?, d.key_u32("id")?);
    match kind {
        0 => Ok(None),
        1 => Ok(Some(id)),
        _ => Err(DecodeError { field: "scope", problem: "has no samples" }),
    }
}
