//! What must hold for the bytes of rows, whatever they are. For fuzzers and tests only.

use super::*;

/// What decodes as a row of a table has exactly these bytes.
pub(crate) fn row(table: Table, bytes: &[u8]) {
    let again = encoded_again(table, bytes);
    assert!(again.is_none() || again.as_deref() == Some(bytes), "{table:?}: {again:?} {bytes:?}");
}

fn again<R: RowValue>(bytes: &[u8]) -> Option<Vec<u8>> {
    R::from_bytes(bytes).ok().map(|row| row.to_bytes())
}

fn encoded_again(table: Table, bytes: &[u8]) -> Option<Vec<u8>> {
    let again = match table {
        Table::Meta => again::<Applied>,
        Table::OrganisationNames => again::<OrganisationNameRow>,
        Table::Organisations => again::<OrganisationRow>,
        Table::RepositoryNames => again::<RepositoryNameRow>,
        Table::Repositories => again::<RepositoryRow>,
        Table::Blobs => again::<BlobRow>,
        Table::RegistryCounts => again::<CountRow>,
        Table::OrganisationCounts => again::<CountRow>,
        Table::Links => again::<LinkRow>,
        Table::Manifests => again::<ManifestRow>,
        Table::ManifestIds => again::<ManifestIdRow>,
        Table::Names => again::<NameRow>,
        Table::References => again::<ReferencesRow>,
        Table::Parents => again::<ParentsRow>,
        Table::Tags => again::<TagRow>,
        Table::History => again::<HistoryRow>,
        Table::Referrers => again::<ReferrerRow>,
        Table::Pulls => again::<PullRow>,
        Table::ManifestTags => again::<ManifestTagRow>,
        Table::Counts => again::<CountRow>,
        Table::Usage => again::<UsageRow>,
        Table::Samples => again::<SampleRow>,
        Table::DueLinks => again::<DueLinkRow>,
        Table::DueManifests => again::<DueManifestRow>,
        Table::DueHistory => again::<DueHistoryRow>,
        Table::EmptyRepositories => again::<EmptyRepositoryRow>,
        Table::DueDrops => again::<DueDropRow>,
        Table::Settling => again::<SettlingRow>,
        Table::LaterRoots => again::<LaterRootRow>,
        Table::Segments => again::<SegmentRow>,
        Table::Uploads => again::<UploadRow>,
        Table::Dead => again::<DeadRow>,
        Table::Sparse => again::<SparseRow>,
        Table::Drops => again::<DropRow>,
        Table::Dropped => again::<DroppedRow>,
        Table::Reports => again::<ReportRow>,
        Table::Pauses => again::<PauseRow>,
        Table::Quotas => again::<QuotaRow>,
        Table::Policies => again::<PolicyRow>,
        Table::PolicyUsage => again::<PolicyUsageRow>,
        Table::Governed => again::<GovernedRow>,
        Table::NewestTags => again::<NewestTagRow>,
        Table::SpareTags => again::<SpareTagRow>,
        Table::DueTags => again::<DueTagRow>,
        Table::DueRepositories => again::<DueRepositoryRow>,
        Table::Uses => again::<UseRow>,
        Table::ByUse => again::<ByUseRow>,
        Table::DueRoots => again::<DueRootRow>,
        Table::Reviewing => again::<ReviewRow>,
    };
    again(bytes)
}
