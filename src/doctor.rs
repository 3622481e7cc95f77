//! Whether all is well: a store, what it lies on, what it runs in. Each check is a sentence with a figure, and a remedy where
//! there is something to do.
//!
//! - `host`: the file system, its space, what the process may have.
//! - `files`: the store's own files: writes, the reserve, the journal, what the last start found.
//! - `upkeep`: what is done in the background: collecting, scrubbing; the clock; damage.
//! - `policies`: what is said for repositories, and cannot be done or does nothing.
//!
//! It looks at what is known already and reads no content. The only thing that it writes is a file that is tried out and
//! removed, once in a process. It heals nothing: the remedies are for who asked. A look that fails is a problem that is told
//! like the others, so there is always an answer.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use serde::Serialize;

use crate::{collect::Collector, disk::Disk, registry::Registry, store::Store, sync::Mutex};
use host::Abilities;

mod files;
mod host;
mod policies;
#[cfg(test)]
mod tests;
mod upkeep;

pub use host::Host;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Ok,
    /// Worth knowing; nothing need be done.
    Note,
    /// It works, and may not for long, or not after a mishap.
    Warning,
    /// Something does not work, or is damaged.
    Problem,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: one of [`NAMES`].
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, for people.
    pub what: String,
    /// What to do about it, for people; `None` where all is well.
    pub remedy: Option<String>,
}

/// All that is looked at, in the order in which it is told. Of `damage` there may be several.
pub const NAMES: [&str; 20] = [
    "writes",
    "file system",
    "holes",
    "space",
    "inodes",
    "reserve",
    "open files",
    "memory",
    "clock",
    "versions",
    "start",
    "journal",
    "lost",
    "pauses",
    "collection",
    "dead space",
    "quotas",
    "policies",
    "scrub",
    "damage",
];

impl Check {
    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, what: what.into(), remedy: None }
    }

    fn new(name: &'static str, level: Level, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, level, what: what.into(), remedy: Some(remedy.into()) }
    }

    /// What could not be looked at.
    fn failed(name: &'static str, error: &dyn std::fmt::Display) -> Self {
        let remedy =
            "look at the log; if it says nothing, look at the disk (the kernel's log), then run `orlop verify`";
        Self::new(name, Level::Problem, format!("this could not be looked at: {error}"), remedy)
    }

    /// The check, or that it could not be made.
    fn tried<E: std::fmt::Display>(name: &'static str, made: Result<Self, E>) -> Self {
        made.unwrap_or_else(|error| Self::failed(name, &error))
    }
}

/// Looks at a store and what is around it. Many threads may ask.
#[derive(Debug)]
pub struct Doctor {
    registry: Arc<Registry>,
    collector: Arc<Collector>,
    host: Host,
    /// What the file system can do, once it was tried: that does not change while it is mounted.
    abilities: Mutex<Option<Abilities>>,
}

impl Doctor {
    /// Knows whom to ask; nothing is looked at yet.
    pub fn new(registry: Arc<Registry>, collector: Arc<Collector>, host: Host) -> Self {
        Self { registry, collector, host, abilities: Mutex::new(None) }
    }

    /// Looks at everything.
    pub fn examine(&self) -> Vec<Check> {
        let (store, disk) = (self.store(), self.store().disk());
        let volume = disk.volume();
        let mut checks = vec![files::writes(store)];
        match &volume {
            Ok(volume) => {
                let reserve_bytes = store.options().reserve_bytes;
                let space =
                    disk.free_bytes().map(|free_bytes| host::space(free_bytes, volume.size_bytes, reserve_bytes));
                checks.push(host::file_system(volume));
                checks.push(host::holes(self.abilities(disk)));
                checks.extend([Check::tried("space", space), host::inodes(volume.files_free)]);
            }
            Err(error) => checks.push(Check::failed("file system", error)),
        }
        checks.extend([
            files::reserve(store, disk.free_bytes().unwrap_or(0)),
            host::open_files(&self.host),
            host::memory(&self.host),
            upkeep::clock(store, &self.collector),
            files::versions(),
            files::start(store),
            files::journal(store),
            files::lost(store),
            upkeep::pauses(&self.collector),
            upkeep::collection(&self.registry, &self.collector),
            upkeep::dead_space(&self.collector),
            upkeep::quotas(&self.registry),
            policies::policies(&self.registry, &self.collector),
        ]);
        checks.extend(upkeep::scrub_and_damage(store, &self.collector));
        checks
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn abilities(&self, disk: &dyn Disk) -> io::Result<Abilities> {
        let mut known = self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(abilities) = *known {
            return Ok(abilities);
        }
        let abilities = host::try_out(disk)?;
        *known = Some(abilities);
        Ok(abilities)
    }
}
