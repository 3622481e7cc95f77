//! A file of nothing but real blocks, given back when the disk has no room left.
//!
//! The store's own pushes stop before a disk is full, but somebody else may take the last block. Then RocksDB could neither
//! open nor flush, and an open could not write the journal's tail anew. So the store keeps blocks that nobody else can take:
//! they are spent when less is free than they are, or when the journal finds no room for what makes room, and set aside
//! again once twice as much is free.
//!
//! It refuses to be more than a help: a file that cannot be made, or is not large enough, is no error. Nothing reads it, and a
//! crash at any moment leaves it or not.

use std::io;

use crate::disk::Disk;

use super::StoreOptions;

pub(super) const PATH: &str = "reserve";

/// How much is set aside, in bytes: what an open and a few flushes write. Who reserves nothing on the disk gets none.
pub(super) fn wanted(options: &StoreOptions) -> u64 {
    let needed = options.journal_file_bytes_max.saturating_add(options.flush_bytes.saturating_mul(4));
    needed.min(options.reserve_bytes / 2)
}

/// Gives the blocks back when less is free than they are.
pub(super) fn spend_if_short(disk: &dyn Disk, options: &StoreOptions) {
    match disk.free_bytes() {
        Ok(free) if free < wanted(options) => drop(spend(disk)),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the disk does not tell what is free"),
    }
}

/// Gives the blocks back, durably, as some file systems free blocks with that only. Whether there were any.
pub(super) fn spend(disk: &dyn Disk) -> bool {
    let spend = || -> io::Result<bool> {
        if !is_there(disk)? {
            return Ok(false);
        }
        disk.remove(PATH)?;
        disk.sync_dir("")?;
        Ok(true)
    };
    match spend() {
        Ok(true) => {
            tracing::warn!("the disk is full: the blocks that were set aside for that are spent; make room");
            true
        }
        Ok(false) => false,
        Err(error) => {
            tracing::warn!(%error, "the blocks that were set aside could not be given back");
            false
        }
    }
}

/// Whether the blocks were given back, and less is free than they were: what is left then is for what makes room.
pub(super) fn is_spent(disk: &dyn Disk, options: &StoreOptions) -> bool {
    // Who cannot tell keeps nobody from trying.
    disk.free_bytes().is_ok_and(|free| free < wanted(options)) && !is_there(disk).unwrap_or(true)
}

/// Sets blocks aside when there are none and enough are free.
pub(super) fn keep(disk: &dyn Disk, options: &StoreOptions) {
    let bytes = wanted(options);
    let keep = || -> io::Result<()> {
        if bytes == 0 || is_there(disk)? || disk.free_bytes()? < bytes.saturating_mul(2) {
            return Ok(());
        }
        let file = disk.create(PATH)?;
        let kept = file.allocate(0, bytes).and_then(|()| file.sync_data()).and_then(|()| disk.sync_dir(""));
        kept.or_else(|error| disk.remove(PATH).and(Err(error)))
    };
    if let Err(error) = keep() {
        tracing::warn!(%error, "no blocks could be set aside for a full disk");
    }
}

fn is_there(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list("")?.iter().any(|entry| entry.name == PATH))
}
