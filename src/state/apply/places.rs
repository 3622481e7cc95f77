//! Local records: where this machine has what.

use crate::{
    digest::Digest,
    index::{
        Overlay, View,
        schema::{
            self, Applied, BlobRow, DeadRow, LinkRow, PauseRow, PullRow, ReportRow, SchemaError, SegmentRow, SparseRow,
            UploadRow, key,
        },
    },
    journal::operation::LocalRecord,
    location::SegmentNumber,
    state::{counts, govern::uses},
};

/// Reports of collections that are kept, and how many of them with each thing that was dropped: those are long.
const REPORTS_KEPT: u64 = 1_000;
const REPORTS_WITH_ITEMS: u64 = 100;

pub(super) fn apply(overlay: &mut Overlay<'_>, applied: &mut Applied, record: &LocalRecord) -> Result<(), SchemaError> {
    match record {
        LocalRecord::Placed { digest, kind, single, location, len, record_len } => {
            release(overlay, applied, digest)?;
            let row = BlobRow { kind: *kind, size: *len, location: *location, record_len: *record_len };
            place(overlay, applied, digest, &row, *single)
        }
        LocalRecord::Moved { digest, from, to } => {
            match schema::get::<BlobRow>(overlay, key::blob(digest))?.filter(|row| row.location == *from) {
                Some(row) => {
                    release(overlay, applied, digest)?;
                    place(overlay, applied, digest, &BlobRow { location: *to, ..row }, false)
                }
                // Dropped or replaced while it was copied: the copy is of no use.
                None => Ok(()),
            }
        }
        LocalRecord::Discarded { location, record_len } => {
            schema::put(overlay, key::dead(*location), &DeadRow { record_len: *record_len });
            with_segment(overlay, applied, location.segment, |segment| {
                segment.committed_end = segment.committed_end.max(location.offset.saturating_add(*record_len));
            })
        }
        LocalRecord::Erased { records } => records.iter().try_for_each(|location| {
            let Some(row) = schema::get::<DeadRow>(overlay, key::dead(*location))? else { return Ok(()) };
            overlay.delete(key::dead(*location).bytes());
            if overlay.get(&key::segment(location.segment).bytes())?.is_none() {
                return Ok(());
            }
            with_segment(overlay, applied, location.segment, |segment| {
                segment.erased_bytes = segment.erased_bytes.saturating_add(row.record_len);
            })
        }),
        LocalRecord::SegmentRemoved { segment } => {
            overlay.delete(key::segment(*segment).bytes());
            overlay.delete(key::sparse(*segment).bytes());
            Ok(())
        }
        LocalRecord::Renewed { repository, digest, due_ms } => {
            let Some(before) = schema::get::<LinkRow>(overlay, key::link(*repository, digest))? else { return Ok(()) };
            let after = LinkRow { due_ms: before.due_ms.max(*due_ms), ..before.clone() };
            counts::link_changed(overlay, *repository, digest, Some(&before), Some(&after))?;
            schema::put(overlay, key::link(*repository, digest), &after);
            Ok(())
        }
        LocalRecord::Pulled { repository, pulled_ms, digests } => {
            let row = PullRow { pulled_ms: *pulled_ms };
            digests.iter().try_for_each(|digest| {
                schema::put(overlay, key::pull(*repository, digest), &row);
                uses::changed(overlay, *repository, digest)
            })
        }
        LocalRecord::Reported { number, summary, items } => report(overlay, *number, summary, items),
        LocalRecord::Paused { what, until_ms: 0 } => {
            overlay.delete(key::pause(*what).bytes());
            Ok(())
        }
        LocalRecord::Paused { what, until_ms } => {
            schema::put(overlay, key::pause(*what), &PauseRow { until_ms: *until_ms });
            Ok(())
        }
        LocalRecord::Sealed { segment, len } => with_segment(overlay, applied, *segment, |row| {
            row.sealed = true;
            row.committed_end = row.committed_end.max(*len);
        }),
        LocalRecord::UploadMarked { session, repository, segment, bytes } => {
            applied.next_segment = applied.next_segment.max(segment.0.saturating_add(1));
            let row = UploadRow {
                repository: repository.clone(),
                segment: *segment,
                bytes: *bytes,
                time_ms: applied.time_ms,
            };
            schema::put(overlay, key::upload(session), &row);
            Ok(())
        }
        LocalRecord::UploadEnded { session } => {
            overlay.delete(key::upload(session).bytes());
            Ok(())
        }
    }
}

/// Keeps a report, and less of older ones.
fn report(overlay: &mut Overlay<'_>, number: u64, summary: &str, items: &str) -> Result<(), SchemaError> {
    let row = ReportRow { summary: summary.to_owned(), items: items.to_owned() };
    schema::put(overlay, key::report(number), &row);
    if let Some(older) = number.checked_sub(REPORTS_WITH_ITEMS)
        && let Some(row) = schema::get::<ReportRow>(overlay, key::report(older))?
    {
        schema::put(overlay, key::report(older), &ReportRow { items: String::new(), ..row });
    }
    if let Some(oldest) = number.checked_sub(REPORTS_KEPT) {
        overlay.delete(key::report(oldest).bytes());
    }
    Ok(())
}

/// Puts content at its place.
fn place(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    digest: &Digest,
    row: &BlobRow,
    single: bool,
) -> Result<(), SchemaError> {
    schema::put(overlay, key::blob(digest), row);
    with_segment(overlay, applied, row.location.segment, |segment| {
        segment.single = single;
        segment.sealed |= single;
        segment.committed_end = segment.committed_end.max(row.location.offset.saturating_add(row.record_len));
        segment.add_live(row.record_len);
    })
}

/// Takes content from its place, if it has one; its bytes are to be erased.
pub(super) fn release(overlay: &mut Overlay<'_>, applied: &mut Applied, digest: &Digest) -> Result<(), SchemaError> {
    let Some(row) = schema::get::<BlobRow>(overlay, key::blob(digest))? else { return Ok(()) };
    overlay.delete(key::blob(digest).bytes());
    schema::put(overlay, key::dead(row.location), &DeadRow { record_len: row.record_len });
    with_segment(overlay, applied, row.location.segment, |segment| {
        segment.live_bytes = segment.live_bytes.saturating_sub(row.record_len);
        segment.live_records = segment.live_records.saturating_sub(1);
    })
}

pub(in crate::state) fn with_segment(
    overlay: &mut Overlay<'_>,
    applied: &mut Applied,
    number: SegmentNumber,
    change: impl FnOnce(&mut SegmentRow),
) -> Result<(), SchemaError> {
    applied.next_segment = applied.next_segment.max(number.0.saturating_add(1));
    let mut row: SegmentRow = schema::get(overlay, key::segment(number))?.unwrap_or_default();
    change(&mut row);
    if row.is_sparse() {
        schema::put(overlay, key::sparse(number), &SparseRow {});
    } else {
        overlay.delete(key::sparse(number).bytes());
    }
    schema::put(overlay, key::segment(number), &row);
    Ok(())
}
