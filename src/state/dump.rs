//! Every row as a line of text: what `orlop dump` prints, and what tests compare.
//!
//! A line is the table's name, the key's parts as `name=value`, and the row as JSON. Two stores with the same lines have the
//! same state, places included.

use std::{fmt::Write as _, ops::ControlFlow};

use data_encoding::HEXLOWER;

use crate::{
    codec::{DecodeError, Decoder},
    digest::Digest,
    index::{
        View,
        schema::{
            self, Applied, BlobRow, ByUseRow, CountRow, DeadRow, DropRow, DroppedRow, DueDropRow, DueHistoryRow,
            DueLinkRow, DueManifestRow, DueRepositoryRow, DueRootRow, DueTagRow, EmptyRepositoryRow, GovernedRow,
            HistoryRow, KeyPart, LaterRootRow, LinkRow, ManifestIdRow, ManifestRow, ManifestTagRow, NameRow,
            NewestTagRow, OrganisationNameRow, OrganisationRow, ParentsRow, PauseRow, PolicyRow, PolicyUsageRow,
            PullRow, QuotaRow, ReferencesRow, ReferrerRow, ReportRow, RepositoryNameRow, RepositoryRow, ReviewRow,
            RowValue, SampleRow, SchemaError, SegmentRow, SettlingRow, SpareTagRow, SparseRow, Table, TagRow,
            UploadRow, UsageRow, UseRow, key,
        },
    },
};

/// Gives every row, table by table and in key order, as a line without its end.
///
/// # Errors
/// When the index fails or a row does not decode.
pub fn dump(view: &dyn View, line: &mut dyn FnMut(&str)) -> Result<(), SchemaError> {
    Table::ALL.into_iter().try_for_each(|table| {
        schema::each_row_of(view, table, |key, value| {
            line(&show(table, key, value)?);
            Ok(ControlFlow::Continue(()))
        })
    })
}

/// One row as a line.
pub(super) fn show(table: Table, key: &[u8], value: &[u8]) -> Result<String, SchemaError> {
    let mut text = table.name().to_owned();
    show_key(table, &key[1..], &mut text).map_err(|source| SchemaError::Row { table: table.name(), source })?;
    let row = match table {
        Table::Meta => json::<Applied>(value),
        Table::OrganisationNames => json::<OrganisationNameRow>(value),
        Table::Organisations => json::<OrganisationRow>(value),
        Table::RepositoryNames => json::<RepositoryNameRow>(value),
        Table::Repositories => json::<RepositoryRow>(value),
        Table::Blobs => json::<BlobRow>(value),
        Table::RegistryCounts => json::<CountRow>(value),
        Table::OrganisationCounts => json::<CountRow>(value),
        Table::Links => json::<LinkRow>(value),
        Table::Manifests => json::<ManifestRow>(value),
        Table::ManifestIds => json::<ManifestIdRow>(value),
        Table::Names => json::<NameRow>(value),
        Table::References => json::<ReferencesRow>(value),
        Table::Parents => json::<ParentsRow>(value),
        Table::Tags => json::<TagRow>(value),
        Table::History => json::<HistoryRow>(value),
        Table::Referrers => json::<ReferrerRow>(value),
        Table::Pulls => json::<PullRow>(value),
        Table::ManifestTags => json::<ManifestTagRow>(value),
        Table::Counts => json::<CountRow>(value),
        Table::Usage => json::<UsageRow>(value),
        Table::Samples => json::<SampleRow>(value),
        Table::DueLinks => json::<DueLinkRow>(value),
        Table::DueManifests => json::<DueManifestRow>(value),
        Table::DueHistory => json::<DueHistoryRow>(value),
        Table::EmptyRepositories => json::<EmptyRepositoryRow>(value),
        Table::DueDrops => json::<DueDropRow>(value),
        Table::Settling => json::<SettlingRow>(value),
        Table::LaterRoots => json::<LaterRootRow>(value),
        Table::Segments => json::<SegmentRow>(value),
        Table::Uploads => json::<UploadRow>(value),
        Table::Dead => json::<DeadRow>(value),
        Table::Sparse => json::<SparseRow>(value),
        Table::Drops => json::<DropRow>(value),
        Table::Dropped => json::<DroppedRow>(value),
        Table::Reports => json::<ReportRow>(value),
        Table::Pauses => json::<PauseRow>(value),
        Table::Quotas => json::<QuotaRow>(value),
        Table::Policies => json::<PolicyRow>(value),
        Table::PolicyUsage => json::<PolicyUsageRow>(value),
        Table::Governed => json::<GovernedRow>(value),
        Table::NewestTags => json::<NewestTagRow>(value),
        Table::SpareTags => json::<SpareTagRow>(value),
        Table::DueTags => json::<DueTagRow>(value),
        Table::DueRepositories => json::<DueRepositoryRow>(value),
        Table::Uses => json::<UseRow>(value),
        Table::ByUse => json::<ByUseRow>(value),
        Table::DueRoots => json::<DueRootRow>(value),
        Table::Reviewing => json::<ReviewRow>(value),
    }?;
    text.push(' ');
    text.push_str(&row);
    Ok(text)
}

fn show_key(table: Table, key: &[u8], text: &mut String) -> Result<(), DecodeError> {
    let mut d = Decoder::new(key);
    for part in table.key_parts() {
        match *part {
            KeyPart::U32(name) => push(text, name, &d.key_u32(name)?.to_string()),
            KeyPart::U64(name) => push(text, name, &d.key_u64(name)?.to_string()),
            KeyPart::U64Down(name) => push(text, name, &(!d.key_u64(name)?).to_string()),
            KeyPart::TextDown(name) => push(text, name, &key::read_down(&mut d, name)?),
            KeyPart::Digest(name) => push(text, name, &Digest::to_string(&d.digest(name)?)),
            KeyPart::Own => drop(d.u8("table")?),
            KeyPart::Session(name) => push(text, name, &HEXLOWER.encode(d.raw(16, name)?)),
            KeyPart::Scope(name) => {
                let kind = match d.u8(name)? {
                    0 => "registry",
                    1 => "organisation",
                    2 => "repository",
                    _ => return Err(DecodeError { field: name, problem: "unknown" }),
                };
                push(text, name, &format!("{kind}:{}", d.key_u32(name)?));
            }
            KeyPart::Text(name) => {
                let len = d.rest().iter().position(|&byte| byte == 0).unwrap_or(d.rest().len());
                push(text, name, &String::from_utf8_lossy(d.raw(len, name)?));
                if !d.rest().is_empty() {
                    d.raw(1, name)?;
                }
            }
        }
    }
    d.finish("key")
}

fn push(text: &mut String, name: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, " {name}={value}");
}

fn json<R: RowValue + serde::Serialize>(value: &[u8]) -> Result<String, SchemaError> {
    let row = R::from_bytes(value)?;
    let problem = DecodeError { field: "row", problem: "has no JSON form" };
    serde_json::to_string(&row).map_err(|_| SchemaError::Row { table: R::TABLE.name(), source: problem })
}
