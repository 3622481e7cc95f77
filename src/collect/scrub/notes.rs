//! What the scrub knows over restarts: where it is, what the last pass came to, what it has found. A file beside the store's,
//! `scrub`: JSON and its checksum.
//!
//! It is advice and no state: one that is lost or damaged costs a pass from the beginning, so nothing fails for it.

use serde::{Deserialize, Serialize};

use super::{Pass, ScrubFinding, ScrubReport};
use crate::{disk::Disk, store::Store};

const PATH: &str = "scrub";
const NEW_PATH: &str = "scrub.new";
const MAGIC: &str = "orlop scrub 1";
/// A longer file is not ours: findings are bounded.
const LEN_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Notes {
    /// The pass under way.
    pub(super) pass: Option<Pass>,
    /// The last pass that was done.
    pub(super) last: Option<ScrubReport>,
    /// What stands.
    pub(super) findings: Vec<ScrubFinding>,
    /// How many more there are.
    pub(super) findings_more: u64,
}

impl Notes {
    /// What an earlier process has left; nothing where that can't be read.
    pub(super) fn load(store: &Store) -> Self {
        match read(store.disk()) {
            Ok(notes) => notes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "what the scrub knew is of no use; it begins anew");
                Self::default()
            }
        }
    }

    /// Keeps it. Where that fails the scrub goes on.
    pub(super) fn save(&self, store: &Store) {
        if let Err(error) = self.write(store.disk()) {
            tracing::warn!(%error, "where the scrub is could not be kept; after a restart it goes on from earlier");
        }
    }

    fn write(&self, disk: &dyn Disk) -> std::io::Result<()> {
        let json = serde_json::to_string(self)?;
        let text = format!("{MAGIC}\n{json}\n{:08x}\n", crc32fast::hash(json.as_bytes()));
        match disk.remove(NEW_PATH) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(NEW_PATH)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(NEW_PATH, PATH)
    }
}

fn read(disk: &dyn Disk) -> std::io::Result<Notes> {
    let file = disk.open(PATH)?;
    let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, "the file `scrub` is damaged");
    let len = file.len()?;
    if len > LEN_MAX {
        return Err(damaged());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged())?];
    file.read_exact_at(&mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
    let mut lines = text.lines();
    let (magic, json, sum) = (lines.next(), lines.next(), lines.next());
    let json = json.filter(|_| magic == Some(MAGIC)).ok_or_else(damaged)?;
    if sum != Some(format!("{:08x}", crc32fast::hash(json.as_bytes())).as_str()) {
        return Err(damaged());
    }
    serde_json::from_str(json).map_err(|_| damaged())
}
