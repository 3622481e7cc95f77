//! A file of the simulated disk: the bytes that calls see, the bytes that are durable, and which sectors differ.

use std::{collections::BTreeSet, fmt, io};

use fastrand::Rng;

use super::{Call, DiskFile, Failure, SimDisk};

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// What a file takes of the disk or gives back.
const BLOCK_BYTES: usize = 4096;

#[derive(Clone, Default)]
pub(super) struct FileState {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors of `bytes` that the next sync writes.
    dirty: BTreeSet<usize>,
    /// Whether the next sync writes the length.
    len_dirty: bool,
    /// End of the reserved blocks.
    reserved: u64,
    /// Blocks that were punched whole and not written since.
    holes: BTreeSet<usize>,
}

impl FileState {
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes that count against the disk's capacity.
    pub(super) fn footprint(&self) -> u64 {
        self.end().saturating_sub(self.hole_bytes())
    }

    fn end(&self) -> u64 {
        self.len().max(self.reserved)
    }

    fn hole_bytes(&self) -> u64 {
        (self.holes.len() * BLOCK_BYTES) as u64
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.end().next_multiple_of(BLOCK_BYTES as u64).saturating_sub(self.hole_bytes())
    }

    /// The file after a power cut.
    pub(super) fn crash(&self, rng: &mut Rng) -> Self {
        let mut left = self.durable.clone();
        if self.len_dirty {
            let (low, high) = (left.len().min(self.bytes.len()), left.len().max(self.bytes.len()));
            let choices = [left.len(), self.bytes.len(), rng.usize(low..=high)];
            left.resize(choices[rng.usize(..choices.len())], 0);
        }
        for &sector in &self.dirty {
            if rng.bool() {
                copy_sector(&self.bytes, &mut left, sector);
            }
        }
        // A hole that was punched in vain has its bytes again; of one that came to be partly, no block is known to be back.
        let zero = |block: usize| left.iter().skip(block * BLOCK_BYTES).take(BLOCK_BYTES).all(|&byte| byte == 0);
        let holes =
            self.holes.iter().copied().filter(|&block| block * BLOCK_BYTES < left.len() && zero(block)).collect();
        Self { bytes: left.clone(), durable: left, holes, ..Self::default() }
    }

    /// Sectors, and the length, that a power cut could take.
    pub(super) fn unsynced(&self) -> usize {
        self.dirty.len() + usize::from(self.len_dirty)
    }

    /// Forgets pages that are clean by mistake: those of a sync that failed.
    pub(super) fn evict(&mut self) {
        let mut bytes = self.durable.clone();
        // The length is in memory for as long as the file is open.
        bytes.resize(self.bytes.len(), 0);
        for &sector in &self.dirty {
            copy_sector(&self.bytes, &mut bytes, sector);
        }
        self.bytes = bytes;
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for &sector in &self.dirty {
            copy_sector(&self.bytes, &mut self.durable, sector);
        }
        self.forget_dirty();
    }

    /// Takes all for clean: what a sync does, that one that fails did in vain.
    pub(super) fn forget_dirty(&mut self) {
        self.dirty.clear();
        self.len_dirty = false;
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.bytes.len() {
            self.set_len(end);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.fill_holes(offset, end);
        self.touch(offset, end);
    }

    fn punch(&mut self, offset: usize, end: usize) {
        // The end of the last block is beyond the file's end, and a range that covers the rest of it gives it back.
        self.holes.extend(
            offset.div_ceil(BLOCK_BYTES)..end.min(self.bytes.len().next_multiple_of(BLOCK_BYTES)) / BLOCK_BYTES,
        );
        let (offset, end) = (offset.min(self.bytes.len()), end.min(self.bytes.len()));
        self.bytes[offset..end].fill(0);
        self.touch(offset, end);
    }

    fn fill_holes(&mut self, from: usize, to: usize) {
        self.holes.retain(|block| !(from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES)).contains(block));
    }

    fn set_len(&mut self, len: usize) {
        let old_len = self.bytes.len();
        self.bytes.resize(len, 0);
        self.len_dirty = true;
        // Zeros that a longer file shows are data too: an earlier, longer version may lie below them.
        self.touch(old_len.min(len), len);
        let sectors = len.div_ceil(SECTOR_BYTES);
        self.dirty.retain(|&sector| sector < sectors);
        self.holes.retain(|&block| block < len.div_ceil(BLOCK_BYTES));
    }

    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let begin = sector * SECTOR_BYTES;
    let end = (begin + SECTOR_BYTES).min(from.len()).min(to.len());
    if begin < end {
        to[begin..end].copy_from_slice(&from[begin..end]);
    }
}

/// A handle.
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
}

impl SimFile {
    fn with<T>(&self, call: Call, act: impl FnOnce(&mut FileState) -> T) -> io::Result<T> {
        let mut state = self.disk.enter(call)?;
        state.files.get_mut(&self.id).map(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// How much of `len` bytes is done.
fn done_of(len: usize, fault: Result<(), Failure>) -> usize {
    match fault {
        Ok(()) => len,
        Err(Failure::Short) => len.saturating_sub(1),
        Err(_) => len / 2,
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = position(offset)?;
        let mut state = self.disk.lock_state();
        state.count(Call::Read)?;
        let is_short = match state.fault(Call::Read) {
            Err(Failure::Short) => true,
            Err(failure) => return Err(failure.into()),
            Ok(()) => false,
        };
        let Some(file) = state.files.get(&self.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let there = file.bytes.get(offset..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        // Half, rounded up: none at all would say that the file ends here.
        let count = if is_short { count.div_ceil(2) } else { count };
        buffer[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    /// All of it is in memory.
    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        let mut state = self.disk.lock_state();
        state.count(Call::Write)?;
        let fault = state.fault(Call::Write);
        let free = state.free_bytes();
        let Some(file) = state.files.get_mut(&self.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut len = done_of(bytes.len(), fault);
        let mut result = fault.map_err(io::Error::from);
        let end_max = file.end().saturating_add(free);
        if (offset + len) as u64 > end_max {
            len = usize::try_from(end_max).unwrap_or(usize::MAX).saturating_sub(offset);
            result = Err(Failure::Full.into());
        }
        if len > 0 {
            file.write(&bytes[..len], offset);
        }
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.meet_interruption();
        let mut state = self.disk.lock_state();
        state.count(Call::SyncData)?;
        let result = state.sync_fault(Call::SyncData).map_err(io::Error::from);
        if let Some(file) = state.files.get_mut(&self.id) {
            if result.is_ok() { file.sync() } else { file.forget_dirty() }
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Call::Read, |file| file.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = position(len)?;
        self.with(Call::SetLen, |file| {
            file.set_len(len);
            file.reserved = file.reserved.min(len as u64);
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.disk.enter(Call::Allocate)?;
        let free = state.free_bytes();
        let Some(file) = state.files.get_mut(&self.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        if end > file.end().saturating_add(free) {
            return Err(Failure::Full.into());
        }
        file.reserved = file.reserved.max(end);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let (begin, end) = (position(offset)?, position(offset.saturating_add(len))?);
        let mut state = self.disk.lock_state();
        state.count(Call::Punch)?;
        let fault = state.fault(Call::Punch);
        let Some(file) = state.files.get_mut(&self.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.punch(begin, begin + done_of(end - begin, fault));
        Ok(fault?)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.with(Call::Read, |file| file.allocated_bytes())
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.id)
    }
}
