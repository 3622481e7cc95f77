//! Journal and snapshots, read to their ends, and files that nothing names.

use std::ops::ControlFlow;

use crate::{
    disk::is_gone,
    index::schema::{self, RowValue, SegmentRow, Table, UploadRow, key},
    journal,
    location::{Location, SegmentNumber},
    segment,
    store::{Store, StoreError},
};

use super::{Finding, FindingKind, Phase, Progress, VerifyError, VerifyReport, content::Paced};

pub(super) fn check(
    store: &Store,
    bytes_per_second: Option<u64>,
    report: &mut VerifyReport,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), VerifyError> {
    // Where it cannot be listed, the check says so.
    let total = store.disk().list(journal::DIRECTORY).ok().map(|files| files.iter().map(|file| file.len).sum());
    let mut pace = Paced::new(Phase::Journal, bytes_per_second, total, watch);
    let mut ended = pace.read(0).err();
    let wrong = store.check_history(&mut |bytes| {
        ended = ended.take().or_else(|| pace.read(bytes).err());
        if ended.is_some() { Err(StoreError::Unavailable("the check was ended".to_owned())) } else { Ok(()) }
    });
    if let Some(ended) = ended {
        return Err(ended);
    }
    let wrong = match wrong {
        Err(StoreError::Failed(what)) => {
            let file = Some(journal::DIRECTORY.to_owned());
            report.add_unchecked(Finding { kind: FindingKind::Journal, file, what, ..Finding::nowhere() });
            Vec::new()
        }
        wrong => wrong?,
    };
    for error in wrong {
        let (file, offset) = error.place();
        let (file, what) = (file.map(str::to_owned), error.to_string());
        let finding = Finding { kind: FindingKind::Journal, file, offset, what, ..Finding::nowhere() };
        if error.may_pass() { report.add_unchecked(finding) } else { report.add(finding) }
    }
    match unlisted(store, report) {
        Err(StoreError::Failed(what)) => {
            let file = Some("segments".to_owned());
            report.add_unchecked(Finding { kind: FindingKind::File, file, what, ..Finding::nowhere() });
            Ok(())
        }
        looked => Ok(looked?),
    }
}

/// Segments that were there when the store was opened and that nothing names, and names that are no segment's. What this
/// process has begun itself can wait to be named.
fn unlisted(store: &Store, report: &mut VerifyReport) -> Result<(), StoreError> {
    let disk = store.disk();
    let failed = |error: std::io::Error| StoreError::Failed(format!("segments/ cannot be listed: {error}"));
    let mut uploads = Vec::new();
    schema::each_row_of(&*store.snapshot(), Table::Uploads, |_, value| {
        uploads.push(UploadRow::from_bytes(value)?.segment);
        Ok(ControlFlow::Continue(()))
    })?;
    for directory in disk.list("segments").map_err(failed)? {
        let path = format!("segments/{}", directory.name);
        if !directory.is_dir {
            add(report, path, None, directory.len);
            continue;
        }
        for entry in disk.list(&path).map_err(failed)? {
            let path = format!("{path}/{}", entry.name);
            let number = segment::number_of(&path);
            if let Some(number) = number {
                let row: Option<SegmentRow> = schema::get(&*store.snapshot(), key::segment(number))?;
                let is_new = store.settled_end(number).is_none();
                if is_new || row.is_some() || uploads.contains(&number) || is_gone(disk, &path) {
                    continue;
                }
            }
            add(report, path, number, entry.len);
        }
    }
    Ok(())
}

fn add(report: &mut VerifyReport, path: String, number: Option<SegmentNumber>, len: u64) {
    let what = format!("{path} has {len} bytes, and nothing names it");
    report.add(match number {
        Some(segment) => Finding::at(FindingKind::File, Location { segment, offset: 0 }, None, what),
        None => Finding { kind: FindingKind::File, file: Some(path), what, ..Finding::nowhere() },
    });
}
