//! Appending records to shared segments, by many threads at once.
//!
//! A thread reserves its range under a short lock, then computes checksums and writes outside of it. Nothing is durable
//! until [`SharedWriter::sync`]; what that covers is counted in appends that ended before it began, so an append that is
//! still writing then waits for the next one. A range whose write failed stays dead, and what was written of it is zeroed.
//!
//! Lock order: `rolling` or `syncing`, then `state`. No file is touched under `state`.

use std::sync::{Arc, PoisonError};

use crate::{
    digest::Digest,
    location::{Location, SegmentNumber},
    sync::{Mutex, MutexGuard},
};

use super::{
    Appended, RecordKind, SealedSegment, SegmentKind,
    error::SegmentError,
    files::{Files, SegmentFile},
    format::{self, BlockSums, Layout},
    recovery::Resumed,
};

/// Payloads up to this are copied next to their header and checksums, so that a record is one write.
const COPIED_PAYLOAD_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct SharedWriter {
    files: Arc<Files>,
    bytes_max: u64,
    state: Mutex<State>,
    /// Held while a new segment is created, so that its slow syncs stop only those who need it.
    rolling: Mutex<()>,
    /// One sync at a time: of two on one file the second can succeed because the first took the error.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// In the order of their creation; only the last may take appends.
    open: Vec<OpenSegment>,
    sealed: Vec<SealedSegment>,
}

/// A shared segment that takes appends, or whose appends are not all done and synced.
#[derive(Debug)]
struct OpenSegment {
    file: SegmentFile,
    /// Where the next record begins.
    end: u64,
    /// End of the last record whose write succeeded; the file is at least this long.
    written_end: u64,
    /// Whether a later segment takes the appends.
    full: bool,
    in_flight: usize,
    /// Appends that ended well, and how many of them are durable.
    appends: u64,
    synced: u64,
}

impl OpenSegment {
    fn new(file: SegmentFile, end: u64) -> Self {
        Self { file, end, written_end: end, full: false, in_flight: 0, appends: 0, synced: 0 }
    }
}

/// A range of a segment that one append writes. Dropped, it counts the append as ended.
struct Reservation<'a> {
    writer: &'a SharedWriter,
    file: SegmentFile,
    offset: u64,
    record_len: u64,
    written: bool,
}

impl SharedWriter {
    /// Appends go on where the last open left them.
    pub(super) fn new(files: Arc<Files>, bytes_max: u64, resumed: Resumed) -> Self {
        let open = resumed.active.into_iter().map(|(file, end)| OpenSegment::new(file, end)).collect();
        let state = Mutex::new(State { open, sealed: resumed.sealed });
        Self { files, bytes_max, state, rolling: Mutex::default(), syncing: Mutex::default() }
    }

    pub(super) fn append(&self, kind: RecordKind, digest: &Digest, payload: &[u8]) -> Result<Appended, SegmentError> {
        let payload_len = payload.len() as u64;
        let layout = Layout::of(payload_len).ok_or_else(|| self.files.full(payload_len))?;
        self.files.claim(layout.record_len)?;
        let mut reservation = self.reserve(layout.record_len)?;
        let mut sums = BlockSums::default();
        sums.update(payload);
        let mut header = format::encode_record_header(kind, digest, payload_len);
        let tail = sums.finish(&layout);
        if payload.len() <= COPIED_PAYLOAD_MAX {
            header.reserve_exact(payload.len() + tail.len());
            header.extend_from_slice(payload);
            header.extend_from_slice(&tail);
            reservation.write(&header, 0)?;
        } else {
            reservation.write(payload, format::RECORD_HEADER_LEN)?;
            reservation.write(&tail, layout.table_offset())?;
            reservation.write(&header, 0)?;
        }
        reservation.written = true;
        let location = Location { segment: reservation.file.number, offset: reservation.offset };
        Ok(Appended { location, record_len: layout.record_len })
    }

    /// Makes durable every append that returned before this call.
    pub(super) fn sync(&self) -> Result<(), SegmentError> {
        let _turn = lock(&self.syncing);
        self.files.poison.check()?;
        let unsynced = |segment: &&OpenSegment| segment.appends != segment.synced;
        let targets: Vec<(SegmentFile, u64)> = (lock(&self.state).open.iter().filter(unsynced))
            .map(|segment| (segment.file.clone(), segment.appends))
            .collect();
        for (file, appends) in targets {
            self.files.sync(&file)?;
            let mut state = lock(&self.state);
            if let Some(segment) = state.open.iter_mut().find(|segment| segment.file.number == file.number) {
                segment.synced = appends;
            }
        }
        Ok(())
    }

    /// Shared segments that will not change any more, and are durable. Each is told once.
    pub(super) fn take_sealed(&self) -> Vec<SealedSegment> {
        let mut state = lock(&self.state);
        let State { open, sealed } = &mut *state;
        open.retain(|segment| {
            let done = segment.full && segment.in_flight == 0 && segment.appends == segment.synced;
            if done {
                sealed.push(SealedSegment { number: segment.file.number, len: segment.written_end });
            }
            !done
        });
        std::mem::take(sealed)
    }

    /// The segment that takes appends.
    pub(super) fn active(&self) -> Option<SegmentNumber> {
        lock(&self.state).open.last().filter(|segment| !segment.full).map(|segment| segment.file.number)
    }

    /// Lets a segment take no more appends.
    pub(super) fn retire(&self, number: SegmentNumber) {
        let mut state = lock(&self.state);
        if let Some(segment) = state.open.iter_mut().find(|segment| segment.file.number == number) {
            segment.full = true;
        }
    }

    /// Whether a segment takes appends, or has some that are not all done and synced. When it does not, it never will.
    pub(super) fn takes_appends(&self, number: SegmentNumber) -> bool {
        lock(&self.state).open.iter().any(|segment| segment.file.number == number)
    }

    /// Below this offset no append writes in a segment any more: 0 while that is not known.
    pub(super) fn settled_end(&self, number: SegmentNumber) -> u64 {
        match lock(&self.state).open.iter().find(|segment| segment.file.number == number) {
            None => u64::MAX,
            Some(segment) if segment.in_flight == 0 => segment.end,
            Some(_) => 0,
        }
    }

    /// Makes what was punched in a segment durable.
    pub(super) fn sync_punched(&self, file: &SegmentFile) -> Result<(), SegmentError> {
        // Where appends wait for a sync too, this one must not take the error that they have to see.
        let _turn = self.takes_appends(file.number).then(|| lock(&self.syncing));
        self.files.sync(file)
    }

    fn reserve(&self, record_len: u64) -> Result<Reservation<'_>, SegmentError> {
        loop {
            let mut state = lock(&self.state);
            if let Some(segment) = self.with_room(&mut state, record_len) {
                let offset = segment.end;
                segment.end = segment.end.saturating_add(record_len);
                segment.in_flight += 1;
                return Ok(Reservation {
                    writer: self,
                    file: segment.file.clone(),
                    offset,
                    record_len,
                    written: false,
                });
            }
            drop(state);
            self.roll(record_len)?;
        }
    }

    /// The segment that takes appends, if the record fits. A record larger than a segment gets a fresh one for itself.
    fn with_room<'a>(&self, state: &'a mut State, record_len: u64) -> Option<&'a mut OpenSegment> {
        let fits = |segment: &&mut OpenSegment| {
            let fresh = segment.end == format::FILE_HEADER_LEN;
            let end = segment.end.checked_add(record_len);
            !segment.full && end.is_some_and(|end| fresh || end <= self.bytes_max)
        };
        state.open.last_mut().filter(fits)
    }

    /// Opens a new segment for a record that does not fit. The old one takes smaller records until the new one is there.
    fn roll(&self, record_len: u64) -> Result<(), SegmentError> {
        let _turn = lock(&self.rolling);
        if self.with_room(&mut lock(&self.state), record_len).is_some() {
            return Ok(());
        }
        let file = self.files.create(SegmentKind::Shared)?;
        tracing::debug!(segment.id = file.number.0, "opened a shared segment");
        let mut state = lock(&self.state);
        if let Some(last) = state.open.last_mut() {
            last.full = true;
        }
        state.open.push(OpenSegment::new(file, format::FILE_HEADER_LEN));
        Ok(())
    }
}

impl Reservation<'_> {
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), SegmentError> {
        self.writer.files.write(&self.file, bytes, self.offset + offset)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.written {
            // Nothing names these bytes, so nothing would ever erase what was written of them.
            let punched = self.writer.files.punch(&self.file, self.offset, self.record_len);
            punched.unwrap_or_else(|error| tracing::warn!(%error, "bytes of a failed write stay in a segment"));
        }
        let mut state = lock(&self.writer.state);
        if let Some(segment) = state.open.iter_mut().find(|segment| segment.file.number == self.file.number) {
            segment.in_flight -= 1;
            if self.written {
                segment.appends += 1;
                segment.written_end = segment.written_end.max(self.offset + self.record_len);
            }
        }
    }
}

/// A panic of another holder leaves nothing half-changed: every change under these locks is made of calls that cannot.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Algorithm,
        disk::sim::SimDisk,
        segment::{ListedSegment, SegmentOptions, Segments, UnlistedFiles},
    };

    #[test]
    fn an_append_that_ends_after_a_sync_began_is_covered_by_the_next() {
        let disk = SimDisk::new();
        let open = |disk: SimDisk, listed| {
            Segments::open(Arc::new(disk), SegmentOptions::new([0; 16]), 0, listed, UnlistedFiles::Remove).unwrap().0
        };
        let segments = open(disk.clone(), Vec::new());
        let payload = [7; 2000];
        let digest = Digest::of(Algorithm::Sha256, &payload);
        let layout = Layout::of(payload.len() as u64).unwrap();
        let mut late = segments.shared.reserve(layout.record_len).unwrap();
        segments.append(RecordKind::Blob, &digest, &payload).unwrap();
        segments.sync().unwrap();

        let mut sums = BlockSums::default();
        sums.update(&payload);
        let header = format::encode_record_header(RecordKind::Blob, &digest, payload.len() as u64);
        late.write(&[&header[..], &payload, &sums.finish(&layout)].concat(), 0).unwrap();
        late.written = true;
        let location = Location { segment: late.file.number, offset: late.offset };
        drop(late);
        segments.sync().unwrap();
        let listed = ListedSegment {
            number: location.segment,
            kind: SegmentKind::Shared,
            committed_end: location.offset + 2 * layout.record_len,
            sealed: false,
        };
        for seed in 0..20 {
            let after = open(disk.crash(seed), vec![listed]);
            after.verify_record(location, &digest, payload.len() as u64).unwrap();
        }
    }
}
