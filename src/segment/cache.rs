//! Open segment files for reading, bounded in number; the one that was not used for longest is closed first.
//!
//! A handle that is in use stays open for its user after it has left the cache. A removed segment's handle must not come
//! back into it: it would hold the file's blocks for as long as it is used.

use std::{collections::HashMap, sync::PoisonError};

use crate::{
    location::SegmentNumber,
    sync::{Mutex, MutexGuard},
};

use super::files::SegmentFile;

#[derive(Debug)]
pub(super) struct Cache {
    files_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the time of its last use.
    files: HashMap<SegmentNumber, (SegmentFile, u64)>,
    uses: u64,
    removals: u64,
}

/// The removals at the time of a lookup: an insert is refused when there were more since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removals(u64);

impl Cache {
    pub(super) fn new(files_max: usize) -> Self {
        Self { files_max: files_max.max(1), state: Mutex::default() }
    }

    pub(super) fn get(&self, number: SegmentNumber) -> Result<SegmentFile, Removals> {
        let mut state = self.lock();
        state.uses += 1;
        let now = state.uses;
        match state.files.get_mut(&number) {
            Some((file, used)) => {
                *used = now;
                Ok(file.clone())
            }
            None => Err(Removals(state.removals)),
        }
    }

    /// Remembers a file that was opened after `seen` was looked up.
    pub(super) fn insert(&self, file: SegmentFile, seen: Removals) {
        let mut state = self.lock();
        if state.removals != seen.0 {
            return;
        }
        // A scan of all is cheaper than the open that led here.
        if state.files.len() >= self.files_max
            && let Some(oldest) = state.files.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number)
        {
            state.files.remove(&oldest);
        }
        state.uses += 1;
        let now = state.uses;
        state.files.insert(file.number, (file, now));
    }

    /// Forgets a file whose name is gone.
    pub(super) fn remove(&self, number: SegmentNumber) {
        let mut state = self.lock();
        state.removals += 1;
        state.files.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{Disk, sim::SimDisk},
        segment::SegmentKind,
    };

    fn file(disk: &SimDisk, number: u64) -> SegmentFile {
        let file = disk.create(&number.to_string()).unwrap();
        SegmentFile { number: SegmentNumber(number), kind: SegmentKind::Shared, file }
    }

    #[test]
    fn the_least_recently_used_file_is_closed_first() {
        let (disk, cache) = (SimDisk::new(), Cache::new(2));
        for number in [1, 2] {
            let seen = cache.get(SegmentNumber(number)).unwrap_err();
            cache.insert(file(&disk, number), seen);
        }
        assert!(cache.get(SegmentNumber(1)).is_ok());
        let seen = cache.get(SegmentNumber(3)).unwrap_err();
        cache.insert(file(&disk, 3), seen);
        assert_eq!([1, 2, 3].map(|number| cache.get(SegmentNumber(number)).is_ok()), [true, false, true]);
    }

    #[test]
    fn a_file_opened_before_its_removal_is_not_remembered_after_it() {
        let (disk, cache) = (SimDisk::new(), Cache::new(2));
        let seen = cache.get(SegmentNumber(1)).unwrap_err();
        cache.remove(SegmentNumber(1));
        cache.insert(file(&disk, 1), seen);
        assert!(cache.get(SegmentNumber(1)).is_err());
    }
}
