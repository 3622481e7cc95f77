//! A cache of downloads for CI jobs: content that a lock file pins by its digest is fetched once, and served from the
//! local disk from then on. It shows what such a cache needs of [`orlop::Store`]: open, put, read back, a miss, close.
//!
//! `cargo run --example ci_cache [directory]`; the second run finds what the first has stored.

use std::{
    error::Error,
    io::{self, Read, Write},
    path::PathBuf,
};

use orlop::{Algorithm, Digest, RepositoryName, Store, StoreError, StoreOptions};

/// Bytes that are moved at a time. Reads check whole blocks of 64 KiB, so a multiple of that is read once.
const PIECE_BYTES: usize = 1 << 20;

/// Many threads may share it.
struct Cache {
    store: Store,
    /// Whoever collects garbage later sees by it whose content this is.
    repository: RepositoryName,
}

impl Cache {
    /// One process at a time has the directory: a second one gets [`orlop::OpenError::InUse`].
    fn open(directory: PathBuf) -> Result<Self, Box<dyn Error>> {
        // How long content is kept that no manifest names, counted from its last upload.
        let month_ms = 30 * 24 * 60 * 60 * 1_000;
        let options = StoreOptions { grace_ms: month_ms, ..StoreOptions::default() };
        Ok(Self { store: Store::open(directory, options)?, repository: "ci/downloads".parse()? })
    }

    /// Writes the content to `out`; `false` for a miss.
    fn get(&self, digest: &Digest, out: &mut dyn Write) -> Result<bool, Box<dyn Error>> {
        let Some(content) = self.store.content(digest)? else { return Ok(false) };
        let mut at = 0;
        while at < content.len() {
            // Every byte is checked before it is returned.
            let piece = content.read(at, PIECE_BYTES)?;
            out.write_all(&piece)?;
            at += piece.len() as u64;
        }
        Ok(true)
    }

    /// Takes content in, of any size; durable on return. Bytes that have another digest are refused.
    fn put(&self, digest: Digest, content: &mut dyn Read) -> Result<(), Box<dyn Error>> {
        let mut upload = self.store.upload();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match content.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => upload.write(&piece[..len])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    upload.discard();
                    return Err(error.into());
                }
            }
        }
        Ok(self.store.finish_upload(upload, &self.repository, digest, None, None)?)
    }

    /// The content from the cache, or else from `download`.
    fn fetch(&self, digest: Digest, download: impl FnOnce() -> Box<dyn Read>) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = Vec::new();
        match self.get(&digest, &mut bytes) {
            Ok(true) => {
                println!("hit   {digest}");
                return Ok(bytes);
            }
            Ok(false) => println!("miss  {digest}"),
            // Damage is not absence, but a cache can heal it: the next upload replaces the damaged copy.
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Corrupt(_))) => println!("heal  {error}"),
            Err(error) => return Err(error),
        }
        self.put(digest, &mut download())?;
        bytes.clear();
        let stored = self.get(&digest, &mut bytes)?;
        if stored { Ok(bytes) } else { Err(format!("{digest} is gone right after it was stored").into()) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| std::env::temp_dir().join("orlop-ci-cache"));
    let cache = Cache::open(directory)?;

    // What a lock file would pin: a small source, and a large one that gets a file of its own while it comes in.
    let sources = [b"fn main() {}".to_vec(), vec![7; 20 << 20]];
    for source in sources {
        let pinned = Digest::of(Algorithm::Sha256, &source);
        let fetched = cache.fetch(pinned, || Box::new(io::Cursor::new(source.clone())))?;
        assert_eq!(fetched, source);
    }

    let wrong = Digest::of(Algorithm::Sha256, b"what the lock file says");
    let refused = cache.put(wrong, &mut &b"what the mirror sends"[..]);
    println!("wrong bytes: {}", refused.err().ok_or("bytes with another digest were stored")?);

    // What was put is durable already; closing makes the next open quick.
    cache.store.close()?;
    Ok(())
}
