//! What is there to see: what is due when, segments, the disk, reports. Reads only.

use crate::{
    codec::Decoder,
    index::{
        View, prefix_end,
        schema::{
            self, Key, LinkRow, ManifestRow, ReportRow, RepositoryRow, RowValue, SchemaError, SegmentRow, Table, key,
        },
    },
    journal::operation::RepositoryId,
    location::SegmentNumber,
    state::{
        due,
        request::{DROPS_PER_STEP, Due},
    },
    store::{Store, StoreError},
};

use super::report::{
    CollectionReport, DiskUsage, DueKind, DueSummary, Filling, KEPT_LISTED, Kept, Kind, Reason, SegmentInfo,
    SegmentState,
};

/// Rows of what is not due that are read for a report: those of other repositories are passed over.
const KEPT_ROWS: usize = 10_000;
/// Segments in one page at most.
const SEGMENTS_MAX: usize = 1_000;

/// What is due.
pub(super) fn due_summary(view: &dyn View, now_ms: u64) -> Result<DueSummary, SchemaError> {
    let kind = |table| -> Result<DueKind, SchemaError> {
        let all = Key::of(table).bytes();
        let is_now = table == Table::EmptyRepositories;
        let until = match is_now {
            true => prefix_end(&all),
            false => Key::of(table).u64(now_ms.saturating_add(1)).bytes(),
        };
        let count = view.scan(&all, &until, DROPS_PER_STEP + 1)?.len();
        let next = if is_now { None } else { view.scan(&until, &prefix_end(&all), 1)?.pop() };
        let next_due_ms = next.and_then(|(key, _)| Decoder::new(&key[1..]).key_u64("due").ok());
        let kind = match table {
            Table::DueManifests => Kind::Manifest,
            Table::DueHistory => Kind::History,
            Table::DueLinks => Kind::Link,
            Table::EmptyRepositories => Kind::Repository,
            Table::DueRepositories => Kind::Tag,
            Table::DueRoots => Kind::Root,
            _ => Kind::DropRecord,
        };
        Ok(DueKind { kind, count: count.min(DROPS_PER_STEP) as u64, more: count > DROPS_PER_STEP, next_due_ms })
    };
    let kinds =
        [Table::DueRepositories, Table::DueRoots].into_iter().chain(due::TABLES).map(kind).collect::<Result<_, _>>()?;
    let dead = Key::of(Table::Dead).bytes();
    let dead = view.scan(&dead, &prefix_end(&dead), DROPS_PER_STEP + 1)?.len();
    let (dead_records, dead_more) = (dead.min(DROPS_PER_STEP) as u64, dead > DROPS_PER_STEP);
    Ok(DueSummary { now_ms, kinds, dead_records, dead_more })
}

/// Tells in a report what could go one day, of some repositories (sorted) or all: what goes next first.
pub(super) fn tell_kept(
    view: &dyn View,
    now_ms: u64,
    scope: Option<&[RepositoryId]>,
    report: &mut CollectionReport,
) -> Result<(), SchemaError> {
    for table in [Table::DueManifests, Table::DueLinks] {
        let mut from = Key::of(table).u64(now_ms.saturating_add(1)).bytes();
        let mut rows = 0;
        while rows < KEPT_ROWS && report.kept.len() < KEPT_LISTED {
            let page = due::page(view, table, Some(&from), u64::MAX - 1, DROPS_PER_STEP)?;
            rows += DROPS_PER_STEP;
            for item in page.items {
                if let Some(kept) = kept(view, &item, scope)? {
                    report.keep(kept);
                }
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        report.kept_more |= report.kept.len() == KEPT_LISTED || rows >= KEPT_ROWS;
    }
    Ok(())
}

fn kept(view: &dyn View, item: &Due, scope: Option<&[RepositoryId]>) -> Result<Option<Kept>, SchemaError> {
    let (Due::Link { repository, digest } | Due::Manifest { repository, digest }) = item else { return Ok(None) };
    if scope.is_some_and(|scope| scope.binary_search(repository).is_err()) {
        return Ok(None);
    }
    let found = match item {
        Due::Link { .. } => {
            let row: Option<LinkRow> = schema::get(view, key::link(*repository, digest))?;
            row.map(|row| (Kind::Link, Reason::Grace, row.size, row.due_ms))
        }
        _ => {
            let row: Option<ManifestRow> = schema::get(view, key::manifest(*repository, digest))?;
            row.map(|row| (Kind::Manifest, Reason::Window, row.size, row.held_until_ms))
        }
    };
    let name = schema::get::<RepositoryRow>(view, key::repository(*repository))?.map(|row| row.name);
    Ok(found.map(|(kind, reason, bytes, until_ms)| Kept {
        kind,
        digest: Some(*digest),
        repository: name,
        bytes,
        reason,
        until_ms,
    }))
}

/// A page of segments, in order of their numbers.
pub(super) fn segments(store: &Store, after: Option<u64>, limit: usize) -> Result<Vec<SegmentInfo>, StoreError> {
    let all = Key::of(Table::Segments).bytes();
    let from =
        after.map_or_else(|| all.clone(), |after| [key::segment(SegmentNumber(after)).bytes(), vec![0]].concat());
    let rows = store.snapshot().scan(&from, &prefix_end(&all), limit.min(SEGMENTS_MAX))?;
    rows.iter().map(|(key, value)| segment(store, key, value)).collect()
}

fn segment(store: &Store, key: &[u8], value: &[u8]) -> Result<SegmentInfo, StoreError> {
    let number = number(key)?;
    let row = SegmentRow::from_bytes(value)?;
    let usage = store.segment_usage(number)?;
    let allocated_bytes = usage.map_or(0, |usage| usage.allocated_bytes);
    Ok(SegmentInfo {
        number: number.0,
        kind: if row.single { Filling::Single } else { Filling::Shared },
        state: if row.sealed { SegmentState::Sealed } else { SegmentState::Open },
        allocated_bytes,
        len: usage.map_or(0, |usage| usage.len),
        live_bytes: row.live_bytes,
        dead_bytes: allocated_bytes.saturating_sub(row.live_bytes),
        live_records: row.live_records,
        created_ms: usage.and_then(|usage| usage.created_ms),
    })
}

fn number(key: &[u8]) -> Result<SegmentNumber, SchemaError> {
    let number = Decoder::new(key.get(1..).unwrap_or_default()).key_u64("segment");
    let number = number.map_err(|source| SchemaError::Row { table: Table::Segments.name(), source })?;
    Ok(SegmentNumber(number))
}

/// What the data directory takes: a look at the name of each file, and at the row of each segment.
pub(super) fn disk(store: &Store) -> Result<DiskUsage, StoreError> {
    let mut live_bytes: u64 = 0;
    schema::each_row_of(&*store.snapshot(), Table::Segments, |_, value| {
        live_bytes = live_bytes.saturating_add(SegmentRow::from_bytes(value)?.live_bytes);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    let (mut disk_bytes, mut segment_bytes): (u64, u64) = (0, 0);
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        let entries = match store.disk().list(&path) {
            // Removed since its parent was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|error| StoreError::Failed(format!("cannot list {path}/: {error}")))?,
        };
        for entry in entries {
            disk_bytes = disk_bytes.saturating_add(entry.allocated_bytes);
            let inner = if path.is_empty() { entry.name } else { format!("{path}/{}", entry.name) };
            if entry.is_dir {
                open.push(inner);
            } else if inner.starts_with("segments/") {
                segment_bytes = segment_bytes.saturating_add(entry.allocated_bytes);
            }
        }
    }
    Ok(DiskUsage { disk_bytes, live_bytes, dead_bytes: segment_bytes.saturating_sub(live_bytes) })
}

/// The number that the next report gets.
pub(super) fn next_report(view: &dyn View) -> Result<u64, SchemaError> {
    let mut next = 1;
    schema::each_row_of(view, Table::Reports, |key, _| {
        let number = Decoder::new(key.get(1..).unwrap_or_default()).key_u64("number");
        let number = number.map_err(|source| SchemaError::Row { table: Table::Reports.name(), source })?;
        next = number.saturating_add(1);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(next)
}

/// The last `limit` reports before the next one's number, newest first.
pub(super) fn reports(view: &dyn View, next: u64, limit: usize) -> Result<Vec<CollectionReport>, StoreError> {
    let mut reports = Vec::new();
    for number in (1..next).rev().take(limit) {
        let Some(row) = schema::get::<ReportRow>(view, key::report(number))? else { break };
        reports.push(report(&row).map_err(|error| StoreError::Corrupt(format!("report {number}: {error}")))?);
    }
    Ok(reports)
}

fn report(row: &ReportRow) -> Result<CollectionReport, serde_json::Error> {
    let mut report: CollectionReport = serde_json::from_str(&row.summary)?;
    if row.items.is_empty() {
        let counted = report.totals.iter().filter(|total| !matches!(total.kind, Kind::History | Kind::DropRecord));
        report.dropped_more = counted.map(|total| total.count).sum();
    } else {
        report.dropped = serde_json::from_str(&row.items)?;
    }
    Ok(report)
}
