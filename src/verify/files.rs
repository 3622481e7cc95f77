//! The files of the index, read past every cache; and what opening the store had to do, which would not be seen otherwise.

use std::ops::ControlFlow;

use crate::{
    index,
    store::{OpenError, Recovery, Store, StoreError},
};

use super::{Finding, FindingKind, Phase, Progress, VerifyError, VerifyReport, content::Paced};

/// Damage there is met by whoever reads the rows concerned, and by nobody else.
pub(super) fn check_index(
    store: &Store,
    bytes_per_second: Option<u64>,
    report: &mut VerifyReport,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), VerifyError> {
    let mut pace = Paced::new(Phase::Index, bytes_per_second, None, watch);
    pace.read(0)?;
    let mut ended = None;
    let checked = store.check_index(&mut |bytes| {
        ended = pace.read(bytes).err();
        ended.is_none()
    });
    if let Some(ended) = ended {
        return Err(ended);
    }
    match checked {
        Ok(()) => {}
        Err(StoreError::Corrupt(what)) => report.add(about_index(what)),
        Err(StoreError::Failed(what)) => report.add_unchecked(about_index(what)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn about_index(what: String) -> Finding {
    let file = index::file_named(&what).unwrap_or_else(|| index::DIRECTORY.to_owned());
    Finding { kind: FindingKind::Index, file: Some(file), what, ..Finding::nowhere() }
}

/// What shows that something was lost or damaged is a finding; what a killed process leaves, and every start takes away,
/// is told.
pub(super) fn tell_opening(store: &Store, report: &mut VerifyReport) {
    let recovery = store.recovery();
    let Recovery { rebuilt, index_was_damaged, lost_records, journal_cut_bytes, segments, .. } = recovery;
    if let Some(reason) = rebuilt {
        let what = format!("opening the store built the index anew: {reason}");
        if *index_was_damaged { report.add(about_index(what)) } else { report.opening.push(what) }
    }
    if *lost_records > 0 {
        let what = format!(
            "at least {lost_records} records that were acknowledged are lost: the journal ends before what the index or a \
             snapshot had; what knew of them is in lost/"
        );
        let file = Some(crate::journal::DIRECTORY.to_owned());
        report.add(Finding { kind: FindingKind::Journal, file, what, ..Finding::nowhere() });
    }
    for number in &segments.moved {
        let path = crate::segment::path_of(*number);
        let what = format!("opening the store moved {path} to lost/, as nothing names it any more");
        report.add(Finding { kind: FindingKind::File, file: Some(path), what, ..Finding::nowhere() });
    }
    if *journal_cut_bytes > 0 {
        report.opening.push(format!(
            "cut {journal_cut_bytes} bytes behind the journal's last whole batch: the torn end of what was not \
             acknowledged, as far as anything tells"
        ));
    }
    for cut in &segments.cut {
        let path = crate::segment::path_of(cut.number);
        report.opening.push(format!("cut {path} from {} to {} bytes: no more was acknowledged", cut.from, cut.to));
    }
    for number in &segments.removed {
        let path = crate::segment::path_of(*number);
        report.opening.push(format!("removed {path}, which nothing names"));
    }
}

/// The report on a store that is too damaged to be opened; `None` where another reason keeps it from that.
pub fn refused(error: &OpenError, now_ms: u64) -> Option<VerifyReport> {
    let (file, offset) = error.damage()?;
    let mut report = VerifyReport::begun(now_ms);
    let what = error.to_string();
    report.add(Finding { kind: FindingKind::Journal, file, offset, what, ..Finding::nowhere() });
    Some(report)
}
