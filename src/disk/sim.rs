//! A disk in memory that keeps apart what calls see and what a power cut would leave: the faulty double of `RealDisk`.
//!
//! It promises what POSIX promises and nothing more. Bytes that were not synced survive or not by 512-byte sector, each by
//! itself, punched zeros like written bytes; a changed length likewise; a created, renamed or removed name survives or not until its directory is synced,
//! and a rename between two directories is then two changes. A failed `sync_data` leaves the sectors clean and *not*
//! durable, as Linux does: reads see the new bytes, and the next sync succeeds without having written them. With `EIO` that goes for
//! all files: a device whose flush fails loses what lies in its cache, whosever it is.
//! Everything that is random comes from the seed given to [`SimDisk::crash`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::Path,
    sync::{Arc, PoisonError},
};

use fastrand::Rng;
use rustix::io::Errno;

use crate::sync::{Mutex, MutexGuard};

use super::{DirEntry, Disk, DiskFile, FileSystem, Nature, Volume};

mod file;
mod names;
#[cfg(test)]
mod tests;

use file::FileState;
use names::{Names, Node};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    interruption: Arc<Mutex<Option<(u64, Interruption)>>>,
}

/// A kind of call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `read_at`
    Read,
    /// `write_all_at`: the first half of the bytes is written, then it fails; see [`Failure::Short`].
    Write,
    /// `set_len`
    SetLen,
    /// `allocate`
    Allocate,
    /// `punch`: the first half of the range is zeroed, then it fails.
    Punch,
    /// `sync_data`
    SyncData,
    /// `sync_dir`
    SyncDir,
    /// `create`, `create_dir`, `rename`, `remove`, `remove_dir_all`
    Names,
}

/// What a call fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`
    Io,
    /// `ENOSPC`
    Full,
    /// `EMFILE`
    NoFiles,
    /// `EROFS`
    ReadOnly,
    /// A write or punch stops one byte before its end, with `EIO`; a read tells half of its bytes, as if it were all well.
    Short,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io | Failure::Short => Errno::IO.into(),
            Failure::Full => Errno::NOSPC.into(),
            Failure::NoFiles => Errno::MFILE.into(),
            Failure::ReadOnly => Errno::ROFS.into(),
        }
    }
}

/// What another thread does right before a sync, which comes after so many others.
type Interruption = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
struct State {
    names: Names,
    /// By number; kept when the name goes, because open handles and durable names may still mean it.
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    capacity_bytes: Option<u64>,
    faults: Vec<Fault>,
    locks: BTreeSet<String>,
    changes: u64,
    changes_max: Option<u64>,
}

/// A call that is to fail.
#[derive(Clone)]
struct Fault {
    call: Call,
    /// Calls of the kind until then; 0 once it fails for good.
    countdown: u64,
    failure: Failure,
    /// Whether all later ones fail as well.
    lasts: bool,
}

impl SimDisk {
    /// An empty disk without end.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as a power cut now would leave it: one of the possible ones, chosen by `seed`. Faults, locks and
    /// the limit on calls are gone; handles on the old disk stay on the old disk.
    pub fn crash(&self, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let state = self.lock_state();
        let names = state.names.crash(&mut rng);
        // In the order of their numbers, whatever their names, so that a seed means one outcome.
        let reachable: BTreeSet<u64> = names.files().collect();
        let reachable = state.files.iter().filter(|(id, _)| reachable.contains(id));
        let files = reachable.map(|(&id, file)| (id, file.crash(&mut rng))).collect();
        let State { next_file, capacity_bytes, .. } = *state;
        Self::from_state(State { names, files, next_file, capacity_bytes, ..State::default() })
    }

    /// The disk as the death of the process now would leave it: all that was written is there, though no more durable
    /// than it was.
    pub fn kill(&self) -> Self {
        let state = self.lock_state().clone();
        Self::from_state(State { faults: Vec::new(), locks: BTreeSet::new(), changes: 0, changes_max: None, ..state })
    }

    /// Lets the `nth` call of a kind from now on fail once; 1 is the next one.
    pub fn fail(&self, call: Call, nth: u64, failure: Failure) {
        self.lock_state().faults.push(Fault { call, countdown: nth.max(1), failure, lasts: false });
    }

    /// Lets the `nth` call of a kind from now on fail, and all after it.
    pub fn fail_from(&self, call: Call, nth: u64, failure: Failure) {
        self.lock_state().faults.push(Fault { call, countdown: nth.max(1), failure, lasts: true });
    }

    /// Lets `act` happen right before the `nth` sync of a file's data from now on, as if by another thread; 1 is the next one.
    pub fn interrupt_sync(&self, nth: u64, act: impl FnOnce() + Send + 'static) {
        *self.interruption.lock().unwrap_or_else(PoisonError::into_inner) = Some((nth, Box::new(act)));
    }

    fn meet_interruption(&self) {
        let mut waiting = self.interruption.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((nth, act)) = waiting.take() else { return };
        if nth > 1 {
            *waiting = Some((nth - 1, act));
            return;
        }
        drop(waiting);
        act();
    }

    /// Takes over the faults of another disk, those to come and those that last.
    pub fn take_faults_of(&self, other: &Self) {
        let faults = other.lock_state().faults.clone();
        self.lock_state().faults = faults;
    }

    /// Forgets all faults, those to come and those that last.
    pub fn heal(&self) {
        self.lock_state().faults.clear();
    }

    /// Faults that are still to come. One that lasts is never over.
    pub fn faults_to_come(&self) -> usize {
        self.lock_state().faults.iter().filter(|fault| fault.countdown > 0).count()
    }

    /// Whether a fault that lasts has begun.
    pub fn is_failing(&self) -> bool {
        self.lock_state().faults.iter().any(|fault| fault.countdown == 0)
    }

    /// Whether the disk has power.
    pub fn has_power(&self) -> bool {
        let state = self.lock_state();
        state.changes_max.is_none_or(|max| state.changes < max)
    }

    /// Sectors, lengths and names that a power cut now could take.
    pub fn unsynced(&self) -> usize {
        let state = self.lock_state();
        state.files.values().map(FileState::unsynced).sum::<usize>() + state.names.unsynced()
    }

    /// Lets the operating system forget all pages that it takes for clean: where a sync has failed, reads show from now
    /// on what is durable.
    pub fn evict(&self) {
        self.lock_state().files.values_mut().for_each(FileState::evict);
    }

    /// Lets every call fail with `EIO` after `changes` more changing calls, so that a test can cut the power at each.
    pub fn power_off_after(&self, changes: u64) {
        let mut state = self.lock_state();
        state.changes_max = Some(state.changes.saturating_add(changes));
    }

    /// Changing calls so far, whether they failed or not.
    pub fn changes(&self) -> u64 {
        self.lock_state().changes
    }

    /// Bounds the sum of all files' lengths and reserved blocks, less the punched ones, in bytes; `None` for a disk without end.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock_state().capacity_bytes = bytes;
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), interruption: Arc::default() }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for a call, unless the call is to fail.
    fn enter(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock_state();
        state.count(call)?;
        state.fault(call)?;
        Ok(state)
    }

    fn handle(&self, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(file::SimFile { disk: self.clone(), id })
    }
}

impl State {
    fn count(&mut self, call: Call) -> io::Result<()> {
        if self.changes_max.is_some_and(|max| self.changes >= max) {
            return Err(Failure::Io.into());
        }
        if call != Call::Read {
            self.changes += 1;
        }
        Ok(())
    }

    fn fault(&mut self, call: Call) -> Result<(), Failure> {
        for at in 0..self.faults.len() {
            let Fault { call: kind, countdown, failure, lasts } = &mut self.faults[at];
            if *kind != call {
                continue;
            }
            *countdown = countdown.saturating_sub(1);
            if *countdown == 0 {
                let (failure, lasts) = (*failure, *lasts);
                if !lasts {
                    self.faults.remove(at);
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    /// The fault of a sync. The device's own failure takes what it was given of all files.
    fn sync_fault(&mut self, call: Call) -> Result<(), Failure> {
        self.fault(call).inspect_err(|failure| {
            if *failure == Failure::Io {
                self.files.values_mut().for_each(FileState::forget_dirty);
            }
        })
    }

    fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.capacity_bytes else {
            return u64::MAX;
        };
        capacity.saturating_sub(self.names.files().map(|id| self.files[&id].footprint()).sum())
    }

    fn create(&mut self, path: &str) -> io::Result<u64> {
        let id = self.next_file;
        self.names.create(path, Node::File(id))?;
        self.files.insert(id, FileState::default());
        self.next_file += 1;
        Ok(id)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.enter(Call::Names)?.create(path)?;
        Ok(self.handle(id))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.enter(Call::Read)?.names.file(path)?;
        Ok(self.handle(id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.enter(Call::Names)?.names.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.enter(Call::Names)?.names.remove(path)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.enter(Call::Names)?.names.remove_dir_all(path);
        Ok(())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.enter(Call::Names)?;
        if state.names.get(path) == Some(Node::Dir) { Ok(()) } else { state.names.create(path, Node::Dir) }
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let state = self.enter(Call::Read)?;
        let entry = |(name, node): (&str, Node)| match node {
            Node::Dir => DirEntry { name: name.to_owned(), is_dir: true, len: 0, allocated_bytes: 0 },
            Node::File(id) => {
                let (len, allocated_bytes) = (state.files[&id].len(), state.files[&id].allocated_bytes());
                DirEntry { name: name.to_owned(), is_dir: false, len, allocated_bytes }
            }
        };
        let mut entries: Vec<DirEntry> = state.names.list(path)?.map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.count(Call::SyncDir)?;
        state.sync_fault(Call::SyncDir)?;
        state.names.sync(path)
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut state = self.enter(Call::Names)?;
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        if state.names.get(path).is_none() {
            state.create(path)?;
        }
        Ok(Some(Box::new(Lock { disk: self.clone(), path: path.to_owned() })))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.enter(Call::Read)?.free_bytes())
    }

    fn volume(&self) -> io::Result<Volume> {
        let size_bytes = self.enter(Call::Read)?.capacity_bytes.unwrap_or(u64::MAX);
        let file_system = FileSystem { name: "simulated".to_owned(), nature: Nature::Local };
        Ok(Volume { file_system, size_bytes, files_free: None, is_read_only: false })
    }

    fn root(&self) -> &Path {
        Path::new("simulated")
    }
}

struct Lock {
    disk: SimDisk,
    path: String,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.lock_state().locks.remove(&self.path);
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}
