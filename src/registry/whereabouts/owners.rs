//! Who has some content as a manifest: organisations are asked whether they count it, then their repositories.

use crate::{
    digest::Digest,
    index::{
        Row, View, prefix_end,
        schema::{
            self, CountRow, ManifestRow, OrganisationNameRow, RepositoryNameRow, RowValue, SchemaError, Scope, key,
        },
    },
    journal::operation::RepositoryId,
    name::NO_ORGANISATION,
};

/// Organisations and repositories that are asked.
const ASKED_MAX: usize = 20_000;
/// Names that are read at once.
const PAGE: usize = 1_000;

/// The first `limit` repositories that have it, and whether more may.
pub(in crate::registry) fn of(
    view: &dyn View,
    digest: &Digest,
    limit: usize,
) -> Result<(Vec<RepositoryId>, bool), SchemaError> {
    let mut search = Search { view, digest, asked: 0, left: 0, limit, found: Vec::new() };
    search.run()?;
    let more = search.left > 0 || search.found.len() > limit;
    search.found.truncate(limit);
    Ok((search.found, more))
}

struct Search<'a> {
    view: &'a dyn View,
    digest: &'a Digest,
    asked: usize,
    /// Organisations that count it and were not found yet.
    left: u64,
    limit: usize,
    found: Vec<RepositoryId>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), SchemaError> {
        self.left = self.counted(Scope::Registry)?;
        if self.left == 0 {
            return Ok(());
        }
        let table = key::organisation_name("").bytes();
        self.each(&table, |search, name, value| {
            let id = OrganisationNameRow::from_bytes(value)?.organisation;
            let count = search.counted(Scope::Organisation(id))?;
            if count > 0 && search.in_organisation(name, count)? {
                search.left -= 1;
            }
            Ok(search.left == 0)
        })?;
        Ok(())
    }

    fn counted(&self, scope: Scope) -> Result<u64, SchemaError> {
        let row: Option<CountRow> = schema::get(self.view, key::count(scope, self.digest))?;
        Ok(row.map_or(0, |row| row.manifests))
    }

    /// Whether all of an organisation's that have it were found.
    fn in_organisation(&mut self, name: &str, mut count: u64) -> Result<bool, SchemaError> {
        let table = key::repository_name("").bytes();
        let within = if name == NO_ORGANISATION { String::new() } else { format!("{name}/") };
        self.each(&[table.as_slice(), within.as_bytes()].concat(), |search, rest, value| {
            let belongs = name != NO_ORGANISATION || !rest.contains('/');
            let id = RepositoryNameRow::from_bytes(value)?.repository;
            let has = || schema::get::<ManifestRow>(search.view, key::manifest(id, search.digest));
            if belongs && has()?.is_some() {
                search.found.push(id);
                count = count.saturating_sub(1);
            }
            Ok(count == 0)
        })
    }

    /// Visits names behind a prefix until the visitor has all that it looks for; whether it has.
    fn each(
        &mut self,
        prefix: &[u8],
        mut visit: impl FnMut(&mut Self, &str, &[u8]) -> Result<bool, SchemaError>,
    ) -> Result<bool, SchemaError> {
        let (mut from, until) = (prefix.to_vec(), prefix_end(prefix));
        loop {
            let rows: Vec<Row> = self.view.scan(&from, &until, PAGE)?;
            for (key, value) in &rows {
                self.asked += 1;
                if self.asked > ASKED_MAX || self.found.len() > self.limit {
                    return Ok(false);
                }
                let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
                if visit(self, &name, value)? {
                    return Ok(true);
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => from = [last.as_slice(), &[0]].concat(),
                _ => return Ok(false),
            }
        }
    }
}
