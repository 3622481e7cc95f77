//! What reads need, put there before the clock runs: in a registry, or as plain files for a web server beside it.
//!
//! What is there already is not put there again: the last thing is put when all others are, and asked for first. So a
//! measurement can be repeated, and the names do not depend on the seed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    clients::{self, Bounds},
    content::Payload,
    error::{LoadError, file_error},
    measure::stock::{Blob, Manifests, NAMED_BLOBS, Stock},
    registry::{CallError, Client},
};

/// The key of all that is stored before.
pub(crate) const STORED_KEY: u64 = 0;
const CLIENTS: usize = 8;

/// The tag `index`; byte order is the order of the numbers.
pub(crate) fn tag(index: u64) -> String {
    format!("t{index:08}")
}

/// Where things are put.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// The registry.
    pub(crate) address: String,
    /// The directory that a web server shows as its root; nothing is pushed then.
    pub(crate) files: Option<PathBuf>,
    /// The repository.
    pub(crate) repository: String,
}

impl Shelf {
    /// Puts the first `count` blobs of a stock there.
    pub(crate) fn blobs(&self, stock: &Stock, count: u64) -> Result<(), LoadError> {
        let has = |client: &mut Client, index| self.has_with(client, &stock.blob(STORED_KEY, index));
        self.all(count, has, |client, index| {
            let blob = stock.blob(STORED_KEY, index);
            match self.path("blobs", &blob.digest) {
                Some(path) => write(&path, &blob),
                None => Ok(push_blob(client, &self.repository, &blob)?),
            }
        })
    }

    /// Puts `count` tagged manifests there, and the blobs that they name.
    pub(crate) fn tags(&self, named: &Stock, manifests: &Manifests, count: u64) -> Result<(), LoadError> {
        self.blobs(named, NAMED_BLOBS)?;
        let has = |client: &mut Client, index| match self.path("manifests", &tag(index)) {
            Some(path) => Ok(path.exists()),
            None => Ok(client.has_manifest(&self.repository, &tag(index))?),
        };
        self.all(count, has, |client, index| {
            let bytes = manifests.bytes(STORED_KEY, index);
            match self.path("manifests", &tag(index)) {
                Some(path) => write(&path, bytes.as_slice()),
                None => Ok(client.put_manifest(&self.repository, &tag(index), &bytes)?),
            }
        })
    }

    /// Whether a blob is there.
    pub(crate) fn has(&self, blob: &Blob) -> Result<bool, LoadError> {
        self.has_with(&mut Client::new(&self.address), blob)
    }

    fn has_with(&self, client: &mut Client, blob: &Blob) -> Result<bool, LoadError> {
        match self.path("blobs", &blob.digest) {
            Some(path) => Ok(path.exists()),
            None => Ok(client.has_blob(&self.repository, &blob.digest)?),
        }
    }

    /// Puts manifests with tags of their own there, to be deleted; returns their digests.
    pub(crate) fn victims(&self, manifests: &Manifests, key: u64, count: u64) -> Result<Vec<String>, LoadError> {
        self.run(count, |client, index| {
            let bytes = manifests.bytes(key, index);
            Ok(client.put_manifest(&self.repository, &format!("v{key}-{index}"), &bytes)?)
        })?;
        Ok((0..count).map(|index| manifests.digest(key, index)).collect())
    }

    fn all(
        &self,
        count: u64,
        has: impl Fn(&mut Client, u64) -> Result<bool, LoadError>,
        put: impl Fn(&mut Client, u64) -> Result<(), LoadError> + Sync,
    ) -> Result<(), LoadError> {
        let Some(last) = count.checked_sub(1) else { return Ok(()) };
        let mut client = Client::new(&self.address);
        if !has(&mut client, last)? {
            self.run(last, &put)?;
            put(&mut client, last)?;
        }
        Ok(())
    }

    fn run(&self, count: u64, put: impl Fn(&mut Client, u64) -> Result<(), LoadError> + Sync) -> Result<(), LoadError> {
        clients::run(&Bounds::all(CLIENTS, count), |_| Client::new(&self.address), put).map(drop)
    }

    /// The file of a thing, if things are files.
    fn path(&self, kind: &str, name: &str) -> Option<PathBuf> {
        Some(self.files.as_ref()?.join("v2").join(&self.repository).join(kind).join(name))
    }
}

/// Pushes as containerd does: POST, then all of it in a PUT.
pub(crate) fn push_blob(client: &mut Client, repository: &str, blob: &Blob) -> Result<(), CallError> {
    let location = client.start_upload(repository)?;
    client.finish_upload(&location, blob, &blob.digest)
}

fn write(path: &Path, content: impl Payload) -> Result<(), LoadError> {
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::io::copy(&mut content.into_reader(), &mut fs::File::create(path)?)
    };
    write().map(drop).map_err(file_error(path))
}
