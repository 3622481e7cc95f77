//! Proof that content is gone: every file that can hold bytes of content is looked at.
//!
//! Bytes of content lie in segments only; what else orlop writes (journal, snapshots, index) holds none. So content is gone
//! when no record of its digest is in any segment file or in `lost/`, and no byte there is unexplained: each belongs to a
//! record of something else that the index names, or is zero. What an erasing has not reached yet, or a killed process has
//! left, is unexplained until a collection has been there; it is told by place. Uploads that are not finished are told, and
//! prove nothing: they may bring the same content again. So does content that holds other content inside of it.
//!
//! Shared segments are read from end to end, at the pace that is set; of a segment with one record its header is enough.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    index::schema::{self, BlobRow, RowValue, SegmentRow, Table, UploadRow, key},
    location::{Location, SegmentNumber},
    segment::{self, Candidate},
    store::{Store, StoreError},
};

use super::{
    Pace, Stop, explain,
    report::{DROPPED_LISTED, FoundPlace, PlaceKind, SearchReport},
};

/// What lies in a data directory by right, beside segments.
const KNOWN: [&str; 9] =
    ["FORMAT", "FORMAT.new", "lock", "journal", "index", "segments", "lost+found", "scrub", "scrub.new"];
/// How often a segment is walked through that takes records meanwhile, and the time between: what was appended is named
/// soon.
const WALKS: u32 = 5;
const BETWEEN_WALKS: std::time::Duration = std::time::Duration::from_millis(200);

pub(super) struct Search<'a> {
    pub(super) store: &'a Store,
    pub(super) stop: &'a Stop,
    pub(super) pace: Pace<'a>,
    pub(super) report: SearchReport,
}

impl<'a> Search<'a> {
    pub(super) fn new(store: &'a Store, stop: &'a Stop, pace: Pace<'a>, digest: Digest) -> Self {
        let now_ms = store.options().clock.now_ms();
        let report = SearchReport {
            digest,
            began_ms: now_ms,
            ended_ms: now_ms,
            files: 0,
            bytes: 0,
            place: None,
            found: false,
            gone: false,
            places: Vec::new(),
            places_more: 0,
        };
        Self { store, stop, pace, report }
    }

    /// Looks everywhere.
    pub(super) fn run(mut self) -> Result<SearchReport, StoreError> {
        let uploads = uploads(self.store)?;
        for directory in self.list("segments")? {
            let path = format!("segments/{}", directory.0);
            let entries = if directory.1 { self.list(&path)? } else { vec![] };
            if !directory.1 {
                self.add(path.clone(), 0, directory.2, PlaceKind::Unlisted);
            }
            for (name, is_dir, len) in entries {
                let path = format!("{path}/{name}");
                match segment::number_of(&path).filter(|_| !is_dir) {
                    Some(number) if uploads.contains(&number) => self.add(path, 0, len, PlaceKind::Upload),
                    Some(number) => self.segment(path, number, len)?,
                    None if is_dir => self.add(path, 0, len, PlaceKind::Unlisted),
                    None => {
                        self.report.files += 1;
                        self.unnamed(path, len, PlaceKind::Unlisted)?;
                    }
                }
            }
        }
        for (name, is_dir, len) in self.list("")? {
            match name.as_str() {
                "lost" => self.lost("lost")?,
                known if KNOWN.contains(&known) => {}
                // Blocks that are set aside, without a byte in them.
                "reserve" if len == 0 => {}
                // Nothing that orlop writes: whoever put it there knows what it holds.
                _ => self.add(if is_dir { format!("{name}/") } else { name }, 0, len, PlaceKind::Unlisted),
            }
        }
        let row: Option<BlobRow> = schema::get(&*self.store.snapshot(), key::blob(&self.report.digest))?;
        self.report.place = row.map(|row| row.location);
        let is_doubt = |place: &FoundPlace| place.what != PlaceKind::Upload;
        self.report.gone = !self.report.found
            && self.report.place.is_none()
            && self.report.places_more == 0
            && !self.report.places.iter().any(is_doubt);
        self.report.ended_ms = self.store.options().clock.now_ms();
        Ok(self.report)
    }

    /// Names in a directory, whether they are directories, and lengths.
    fn list(&self, path: &str) -> Result<Vec<(String, bool, u64)>, StoreError> {
        let entries = match self.store.disk().list(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            entries => entries.map_err(|error| StoreError::Failed(format!("cannot list {path}: {error}")))?,
        };
        Ok(entries.into_iter().map(|entry| (entry.name, entry.is_dir, entry.len)).collect())
    }

    fn add(&mut self, path: String, offset: u64, len: u64, what: PlaceKind) {
        self.report.found |= matches!(what, PlaceKind::Live | PlaceKind::Record);
        if self.report.places.len() < DROPPED_LISTED {
            self.report.places.push(FoundPlace { path, offset, len, what });
        } else {
            self.report.places_more += 1;
        }
    }

    fn segment(&mut self, path: String, number: SegmentNumber, len: u64) -> Result<(), StoreError> {
        self.stop.check()?;
        let row: Option<SegmentRow> = schema::get(&*self.store.snapshot(), key::segment(number))?;
        self.report.files += 1;
        match row {
            Some(row) if row.single => self.single(path, number),
            Some(_) => self.shared(path, number),
            // Begun by this process: nothing in it is finished yet, or it could not be removed.
            None if self.store.settled_end(number).is_none() => self.unnamed(path, len, PlaceKind::Upload),
            None => self.unnamed(path, len, PlaceKind::Unlisted),
        }
    }

    fn shared(&mut self, path: String, number: SegmentNumber) -> Result<(), StoreError> {
        let digest = self.report.digest;
        for walk in 1.. {
            let pace = &mut self.pace;
            let Some(walked) =
                explain::walk(self.store, number, u64::MAX, Some(&digest), &mut |bytes| pace.spend(bytes))?
            else {
                return Ok(());
            };
            let remains = walked.remains()?;
            if walk < WALKS && !(remains.is_empty() && walked.is_whole) {
                self.stop.rest(BETWEEN_WALKS);
                self.stop.check()?;
                continue;
            }
            self.report.bytes += walked.candidates.end();
            for found in walked.wanted {
                let what = if found.is_live { PlaceKind::Live } else { PlaceKind::Record };
                self.add(path.clone(), found.piece.0, found.piece.1, what);
            }
            walked.dead.into_iter().for_each(|(at, len)| self.add(path.clone(), at, len, PlaceKind::Dead));
            remains.into_iter().for_each(|(at, len)| self.add(path.clone(), at, len, PlaceKind::Unknown));
            return Ok(());
        }
        Ok(())
    }

    /// The one record of a segment covers all of it.
    fn single(&mut self, path: String, number: SegmentNumber) -> Result<(), StoreError> {
        let Some(mut candidates) = self.store.candidates(number)? else { return Ok(()) };
        let end = candidates.end();
        self.report.bytes += end;
        let pace = &mut self.pace;
        // Once, as little as there is of a header: a window of the walk.
        let first = candidates.next(&mut |bytes| pace.spend(bytes))?;
        let view = self.store.snapshot();
        let named = |candidate: &Candidate| {
            let row: Option<BlobRow> = schema::get(&*view, key::blob(&candidate.digest))?;
            Ok::<_, StoreError>(row.is_some_and(|row| row.location == candidate.location))
        };
        let Some(first) = first else {
            drop(view);
            if !candidates.is_zero(segment::FIRST_RECORD_OFFSET..end).map_err(StoreError::from)? {
                self.add(path, 0, end, PlaceKind::Unknown);
            }
            return Ok(());
        };
        let is_live = named(&first)?;
        drop(view);
        let Location { offset, .. } = first.location;
        let what = match (first.digest == self.report.digest, is_live) {
            (true, true) => PlaceKind::Live,
            (true, false) => PlaceKind::Record,
            (false, false) => PlaceKind::Dead,
            (false, true) => return Ok(()),
        };
        self.add(path, offset, first.record_len, what);
        Ok(())
    }

    /// A file that nothing names: its headers are looked at, whatever it is.
    fn unnamed(&mut self, path: String, len: u64, what: PlaceKind) -> Result<(), StoreError> {
        self.stop.check()?;
        let mut candidates = self.store.candidates_in(&path)?;
        self.report.bytes += candidates.end();
        let pace = &mut self.pace;
        let mut found = Vec::new();
        while let Some(candidate) = candidates.next(&mut |bytes| pace.spend(bytes))? {
            if candidate.digest == self.report.digest {
                found.push((candidate.location.offset, candidate.record_len));
            }
        }
        found.into_iter().for_each(|(at, len)| self.add(path.clone(), at, len, PlaceKind::Record));
        self.add(path, 0, len, what);
        Ok(())
    }

    /// What opens have put aside, one directory deep: an index that was put there holds no content.
    fn lost(&mut self, path: &str) -> Result<(), StoreError> {
        for (name, is_dir, len) in self.list(path)? {
            if !is_dir {
                self.report.files += 1;
                self.unnamed(format!("{path}/{name}"), len, PlaceKind::Unlisted)?;
            }
        }
        Ok(())
    }
}

/// Segments of uploads that are not finished.
fn uploads(store: &Store) -> Result<BTreeSet<SegmentNumber>, StoreError> {
    let mut segments = BTreeSet::new();
    schema::each_row_of(&*store.snapshot(), Table::Uploads, |_, value| {
        segments.insert(UploadRow::from_bytes(value)?.segment);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(segments)
}
