//! Upload sessions: their names, who may write to them, and how they outlive a restart.
//!
//! A session is written to by one request at a time, which holds its lease. A session whose bytes lie in a segment of
//! their own is *marked* in the journal when a request ends and every so many bytes: what is marked is durable, and is
//! what a restart goes on from. A buffered session is gone with the process.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;

use crate::{
    digest::{Algorithm, Digest},
    index::schema::{self, BlobRow, RowValue, Table, UploadRow, key},
    journal::operation::SessionId,
    location::SegmentNumber,
    name::RepositoryName,
    state::{
        quota::{self, Coming},
        request::Request,
    },
    store::{Hold, Store, StoreError, Upload},
    sync::{Mutex, MutexGuard},
};

use super::RegistryError;

/// Bytes after which a long upload is marked again. Tests have shorter uploads.
pub(super) const MARK_BYTES: u64 = if cfg!(test) { 50_000 } else { 64 << 20 };

/// Idle sessions that keep their segments open; of more, the one with the fewest bytes rests, and those are read
/// again when somebody goes on with it. Without that, clients could use up the files that the process may open.
const OPEN_IDLE_MAX: usize = if cfg!(test) { 3 } else { 256 };

/// All open sessions.
#[derive(Debug)]
pub(super) struct Uploads {
    store: Arc<Store>,
    uploads_max: usize,
    slots: Mutex<HashMap<SessionId, Slot>>,
}

#[derive(Debug)]
struct Slot {
    repository: RepositoryName,
    state: State,
    /// Bytes that it has; while it is leased, those that it had before.
    offset: u64,
    /// Bytes that the journal knows of; `None` when it does not know the session.
    marked: Option<u64>,
    touched: Instant,
    /// What it holds of limits; while it is leased, the lease has that.
    hold: Option<Hold>,
}

#[derive(Debug)]
enum State {
    Idle(Box<Upload>),
    /// Of an earlier run: its bytes are read when somebody goes on with it.
    Resting(SegmentNumber),
    Leased,
}

impl Slot {
    /// The segment that the session keeps open although nobody writes to it.
    fn open_segment(&self) -> Option<SegmentNumber> {
        match &self.state {
            State::Idle(upload) => upload.segment(),
            State::Resting(_) | State::Leased => None,
        }
    }

    /// Closes the segment; its bytes are all marked, as no others are found again.
    fn rest(&mut self) -> Option<State> {
        let segment = self.open_segment()?;
        Some(std::mem::replace(&mut self.state, State::Resting(segment)))
    }
}

impl Uploads {
    /// The sessions that an earlier run has left.
    pub(super) fn load(store: Arc<Store>, uploads_max: usize) -> Result<Self, RegistryError> {
        let mut slots = HashMap::new();
        schema::each_row_of(&*store.snapshot(), Table::Uploads, |key, value| {
            let row = UploadRow::from_bytes(value)?;
            let mut session = [0; 16];
            session.copy_from_slice(key.get(1..17).ok_or(schema::SchemaError::Missing { table: "uploads" })?);
            let mut hold = store.hold(&row.repository);
            hold.set(row.bytes);
            let slot = Slot {
                repository: row.repository,
                state: State::Resting(row.segment),
                offset: row.bytes,
                marked: Some(row.bytes),
                touched: instant_of(row.time_ms),
                hold: Some(hold),
            };
            slots.insert(session, slot);
            Ok(ControlFlow::Continue(()))
        })
        .map_err(|error| RegistryError::from(StoreError::from(error)))?;
        Ok(Self { store, uploads_max, slots: Mutex::new(slots) })
    }

    pub(super) fn start(&self, repository: &RepositoryName, algorithm: Algorithm) -> Result<String, RegistryError> {
        let mut session = [0; 16];
        getrandom::fill(&mut session)
            .map_err(|error| RegistryError::Failed(format!("cannot draw an upload id: {error}")))?;
        let mut slots = self.slots();
        if slots.len() >= self.uploads_max {
            return Err(RegistryError::TooManyUploads { max: self.uploads_max });
        }
        let mut upload = self.store.upload();
        upload.hash_with(algorithm);
        let slot = Slot {
            repository: repository.clone(),
            state: State::Idle(Box::new(upload)),
            offset: 0,
            marked: None,
            touched: Instant::now(),
            hold: Some(self.store.hold(repository)),
        };
        slots.insert(session, slot);
        Ok(HEXLOWER.encode(&session))
    }

    pub(super) fn offset(&self, repository: &RepositoryName, id: &str) -> Result<u64, RegistryError> {
        let session = parse(id)?;
        let slots = self.slots();
        Ok(find(&slots, repository, id, &session)?.offset)
    }

    pub(super) fn lease(self: &Arc<Self>, repository: &RepositoryName, id: &str) -> Result<UploadLease, RegistryError> {
        let session = parse(id)?;
        let (state, marked, hold) = {
            let mut slots = self.slots();
            let slot = find(&slots, repository, id, &session)?;
            if matches!(slot.state, State::Leased) {
                return Err(RegistryError::UploadBusy(id.to_owned()));
            }
            let marked = slot.marked;
            let slot = slots.get_mut(&session).ok_or_else(|| RegistryError::UploadUnknown(id.to_owned()))?;
            (std::mem::replace(&mut slot.state, State::Leased), marked, slot.hold.take())
        };
        let upload = match state {
            State::Idle(upload) => *upload,
            State::Resting(segment) => match self.store.resume_upload(segment, marked.unwrap_or_default()) {
                Ok(upload) => upload,
                Err(error) => {
                    // It may be readable later; until it expires nothing is thrown away.
                    self.give_back(session, None, marked, State::Resting(segment), hold);
                    return Err(error.into());
                }
            },
            State::Leased => return Err(RegistryError::UploadBusy(id.to_owned())),
        };
        let uploads = Arc::clone(self);
        let (repository, upload) = (repository.clone(), Some(upload));
        Ok(UploadLease { uploads, session, repository, upload, marked, resting: None, hold, free_bytes: 0 })
    }

    pub(super) fn cancel(self: &Arc<Self>, repository: &RepositoryName, id: &str) -> Result<(), RegistryError> {
        let session = parse(id)?;
        find(&self.slots(), repository, id, &session)?;
        self.end(session, None)
    }

    /// Where sessions are open.
    pub(super) fn repositories(&self) -> HashSet<RepositoryName> {
        self.slots().values().map(|slot| slot.repository.clone()).collect()
    }

    /// Ends sessions that nobody has written to for longer than `idle`; how many.
    pub(super) fn expire(&self, idle: Duration) -> Result<usize, RegistryError> {
        let is_idle = |slot: &Slot| !matches!(slot.state, State::Leased) && slot.touched.elapsed() > idle;
        let expired: Vec<SessionId> =
            self.slots().iter().filter(|(_, slot)| is_idle(slot)).map(|(session, _)| *session).collect();
        let mut count = 0;
        for session in expired {
            match self.end(session, Some(idle)) {
                Ok(()) => count += 1,
                // Somebody came back to it, or ended it, in between.
                Err(RegistryError::UploadBusy(_) | RegistryError::UploadUnknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// The journal first: a segment that it names must not be missing. A session that it could not forget stays, so
    /// that it can be ended later. With `idle`, only if nobody has written to it for longer: many sessions take a while to
    /// be ended, and somebody may have come back to a late one meanwhile.
    fn end(&self, session: SessionId, idle: Option<Duration>) -> Result<(), RegistryError> {
        let id = || HEXLOWER.encode(&session);
        let (state, marked, hold) = {
            let mut slots = self.slots();
            let slot = slots.get_mut(&session).ok_or_else(|| RegistryError::UploadUnknown(id()))?;
            let in_use = matches!(slot.state, State::Leased);
            if in_use || idle.is_some_and(|idle| slot.touched.elapsed() <= idle) {
                return Err(RegistryError::UploadBusy(id()));
            }
            (std::mem::replace(&mut slot.state, State::Leased), slot.marked, slot.hold.take())
        };
        if marked.is_some()
            && let Err(error) = self.store.commit(Request::EndUpload { session })
        {
            self.give_back(session, None, marked, state, hold);
            return Err(error.into());
        }
        self.slots().remove(&session);
        match state {
            State::Idle(upload) => upload.discard(),
            State::Resting(segment) => self.store.remove_unlisted(segment),
            State::Leased => {}
        }
        Ok(())
    }

    /// What was announced and did not come is held no longer.
    fn give_back(
        &self,
        session: SessionId,
        offset: Option<u64>,
        marked: Option<u64>,
        state: State,
        mut hold: Option<Hold>,
    ) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&session) else { return };
        slot.offset = offset.unwrap_or(slot.offset);
        if let Some(hold) = hold.as_mut().filter(|hold| hold.bytes() > slot.offset) {
            hold.set(slot.offset);
        }
        slot.hold = hold;
        slot.marked = marked;
        slot.touched = Instant::now();
        slot.state = state;
        let closed = if slot.open_segment().is_some() { rest_one(&mut slots) } else { None };
        // Its file is closed when nobody waits for the lock.
        drop(slots);
        drop(closed);
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<SessionId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a session was last written to, by the wall clock of then and now. Without that, sessions would never be idle for
/// long enough where the process is restarted every night.
fn instant_of(time_ms: u64) -> Instant {
    let idle = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(time_ms)).unwrap_or_default();
    let now = Instant::now();
    now.checked_sub(idle).unwrap_or(now)
}

/// A look at all sessions costs less than the sync that every large upload's request has just ended with.
fn rest_one(slots: &mut HashMap<SessionId, Slot>) -> Option<State> {
    let open = slots.values().filter(|slot| slot.open_segment().is_some()).count();
    if open <= OPEN_IDLE_MAX {
        return None;
    }
    let marked = slots.values_mut().filter(|slot| slot.open_segment().is_some() && slot.marked == Some(slot.offset));
    marked.min_by_key(|slot| (slot.offset, slot.touched))?.rest()
}

fn parse(id: &str) -> Result<SessionId, RegistryError> {
    let bytes = HEXLOWER.decode(id.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| RegistryError::UploadUnknown(id.chars().take(64).collect()))
}

/// A session is known only in the repository that it was started in.
fn find<'a>(
    slots: &'a HashMap<SessionId, Slot>,
    repository: &RepositoryName,
    id: &str,
    session: &SessionId,
) -> Result<&'a Slot, RegistryError> {
    let slot = slots.get(session).filter(|slot| slot.repository == *repository);
    slot.ok_or_else(|| RegistryError::UploadUnknown(id.to_owned()))
}

/// The exclusive right to write to one upload, taken by one request. Dropped, it gives the upload back as it is.
#[derive(Debug)]
pub struct UploadLease {
    uploads: Arc<Uploads>,
    session: SessionId,
    repository: RepositoryName,
    /// `None` once it was finished.
    upload: Option<Upload>,
    marked: Option<u64>,
    /// Where it rests after a finish that failed, if the journal still knows it.
    resting: Option<SegmentNumber>,
    /// What it holds of limits; `None` once it was finished.
    hold: Option<Hold>,
    /// Bytes that need not be held: its owners have them already.
    free_bytes: u64,
}

impl UploadLease {
    /// Bytes that the upload has.
    pub fn offset(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::len)
    }

    /// Hashes with the algorithm of the digest that will end the upload, if nothing has come yet. Without it another one than
    /// was announced costs that everything is read again.
    pub fn hash_with(&mut self, algorithm: Algorithm) {
        if let Some(upload) = &mut self.upload {
            upload.hash_with(algorithm);
        }
    }

    /// Holds room for so many more bytes before they come. What the repository and its organisation have already, if the digest
    /// is told, needs none.
    ///
    /// # Errors
    /// [`RegistryError::QuotaExceeded`].
    pub fn announce(&mut self, bytes: u64, digest: Option<&Digest>) -> Result<(), RegistryError> {
        if let Some(digest) = digest {
            let view = self.uploads.store.snapshot();
            let growths =
                quota::growths(&*view, &self.repository, Coming::Blob(digest), 1).map_err(StoreError::from)?;
            if !growths.is_empty() && growths.iter().all(|growth| growth.added_bytes == 0) {
                let row: Option<BlobRow> = schema::get(&*view, key::blob(digest)).map_err(StoreError::from)?;
                self.free_bytes = row.map_or(0, |row| row.size);
            }
        }
        self.room_for(bytes)
    }

    fn room_for(&mut self, bytes: u64) -> Result<(), RegistryError> {
        let needed = self.offset().saturating_add(bytes).saturating_sub(self.free_bytes);
        match &mut self.hold {
            Some(hold) => Ok(hold.grow_to(needed)?),
            None => Ok(()),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When the disk is full or fails, a limit would be passed, or the store takes no writes; the upload is as before.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.room_for(bytes.len() as u64)?;
        if let Some(upload) = &mut self.upload {
            upload.write(bytes)?;
        }
        if self.offset() - self.marked.unwrap_or_default() >= MARK_BYTES { self.mark() } else { Ok(()) }
    }

    /// Ends the request without finishing the upload; returns the bytes that it has. What does not fit into a buffer is
    /// durable then.
    ///
    /// # Errors
    /// When it cannot be made durable. The upload stays.
    pub fn keep(mut self) -> Result<u64, RegistryError> {
        if self.marked != Some(self.offset()) {
            self.mark()?;
        }
        Ok(self.offset())
    }

    /// Ends the upload: its content becomes the blob `digest` of the repository, durably.
    ///
    /// # Errors
    /// [`RegistryError::DigestMismatch`] and whatever keeps it from being stored. The upload is gone then: the client
    /// has to start again. Only where the journal has no room to forget it, it is as it was last kept.
    pub fn finish(mut self, digest: Digest) -> Result<(), RegistryError> {
        let Some(upload) = self.upload.take() else { return Ok(()) };
        let session = self.marked.map(|_| self.session);
        let store = &self.uploads.store;
        let result = store.finish_upload(upload, &self.repository, digest, session, self.hold.take());
        // After `Unavailable` the journal may name the segment as the blob's: nobody may write to it any more.
        if !matches!(result, Ok(()) | Err(StoreError::Unavailable(_))) {
            let row: Option<UploadRow> =
                schema::get(&*store.snapshot(), key::upload(&self.session)).map_err(StoreError::from)?;
            self.resting = row.map(|row| row.segment);
        }
        Ok(result?)
    }

    fn mark(&mut self) -> Result<(), RegistryError> {
        let Some(upload) = &self.upload else { return Ok(()) };
        let Some(segment) = upload.sync()? else { return Ok(()) };
        let (session, repository, bytes) = (self.session, self.repository.clone(), upload.len());
        let result = self.uploads.store.commit(Request::MarkUpload { session, repository, segment, bytes });
        // After `Unavailable` the journal may name the segment, so it must not be removed without being forgotten there.
        if matches!(result, Ok(_) | Err(StoreError::Unavailable(_))) {
            self.marked = Some(bytes);
        }
        Ok(result.map(|_| ())?)
    }
}

impl Drop for UploadLease {
    fn drop(&mut self) {
        match (self.upload.take(), self.resting) {
            (Some(upload), _) => {
                let offset = Some(upload.len());
                let state = State::Idle(Box::new(upload));
                self.uploads.give_back(self.session, offset, self.marked, state, self.hold.take());
            }
            (None, Some(segment)) => {
                let hold = Some(self.uploads.store.hold(&self.repository));
                self.uploads.give_back(self.session, self.marked, self.marked, State::Resting(segment), hold);
            }
            (None, None) => drop(self.uploads.slots().remove(&self.session)),
        }
    }
}
