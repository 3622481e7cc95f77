//! The store against what was promised.

use super::*;
use crate::{
    collect::{PlaceKind, SearchReport},
    index::schema::ParentsRow,
    registry::Manifest,
    state::{dump, life::Life, recount::recount},
};

impl World {
    /// Every byte of the segments belongs to a record that the index names, or is zero.
    pub(super) fn check_bytes(&mut self) {
        // A session that was never kept has a segment that nobody knows but its process.
        if self.sessions.iter().any(Session::is_unknown_to_journal) {
            return;
        }
        let item = self.random.usize(..self.items.len());
        let search = self.collector().search(&self.items[item].digest).unwrap();
        assert!(is_accounted_for(&search), "{search:?}");
    }

    fn id(&self, view: &dyn View, name: &str) -> Option<u32> {
        find_repository(view, &parse(name)).unwrap()
    }

    pub(super) fn link(&self, view: &dyn View, name: &str, blob: usize) -> Option<LinkRow> {
        schema::get(view, key::link(self.id(view, name)?, &self.items[blob].digest)).unwrap()
    }

    fn manifest(&self, view: &dyn View, name: &str, item: usize) -> Option<ManifestRow> {
        schema::get(view, key::manifest(self.id(view, name)?, &self.items[item].digest)).unwrap()
    }

    /// What was promised of a repository has its rows.
    pub(super) fn check_rows(&self, name: &str) {
        let (view, now_ms) = (self.registry().store().snapshot(), self.now_ms());
        let promised = &self.promised[name];
        for item in BLOBS_END..self.items.len() {
            let Some(answers) = promised.manifest(item, now_ms) else { continue };
            let row = self.manifest(&*view, name, item);
            assert_eq!(row.map(|row| !row.deleted), Some(answers), "manifest {item} of {name}");
        }
        for blob in (0..BLOBS_END).filter(|blob| promised.has_blob(*blob, now_ms)) {
            assert!(self.link(&*view, name, blob).is_some(), "blob {blob} of {name}");
        }
    }

    /// What surely lives does so by its rows, too, and is not only held; where nothing is settling.
    pub(super) fn check_lives(&self, name: &str) {
        let view = self.registry().store().snapshot();
        let Some(id) = self.id(&*view, name).filter(|_| !facts::is_settling(&*view).unwrap()) else { return };
        for item in self.promised[name].living(&self.items, self.now_ms()) {
            let digest = &self.items[item].digest;
            let row: ManifestRow = schema::expect(&*view, key::manifest(id, digest)).unwrap();
            let parents: Option<ParentsRow> = schema::get(&*view, key::parents(id, digest)).unwrap();
            let life = Life::of(&row, &parents.unwrap_or_default());
            assert!(life.is_live(), "manifest {item} of {name} is held only");
        }
    }

    /// What was promised is served, bit for bit; what is served is whole; tags are exactly those that were set, and point
    /// to what they were set to; counts are those of a recount.
    pub(super) fn check(&self) {
        self.settle();
        self.check_answers();
        NAMES.into_iter().for_each(|name| self.check_lives(name));
        recount(&*self.registry().store().snapshot(), &mut |difference| panic!("{difference}")).unwrap();
    }

    /// The same but for counts, of a store that may take no writes.
    pub(super) fn check_answers(&self) {
        let now_ms = self.now_ms();
        for (name, promised) in &self.promised {
            let (repository, mut there) = (parse(name), BTreeSet::new());
            for (item, Item { bytes, digest, .. }) in self.items.iter().enumerate() {
                if item < BLOBS_END && promised.has_blob(item, now_ms) {
                    self.registry().read(|reads| reads.blob(&repository, digest)).unwrap();
                }
                if self.check_visible(&repository, item, bytes) {
                    there.insert(item);
                }
                match promised.manifest(item, now_ms) {
                    Some(true) => {
                        let manifest = self
                            .registry()
                            .read(|reads| reads.manifest(&repository, &Reference::Digest(*digest)))
                            .unwrap();
                        assert_eq!(manifest.bytes, bytes, "manifest {item} of {name}");
                    }
                    Some(false) => {
                        let manifest =
                            self.registry().read(|reads| reads.manifest(&repository, &Reference::Digest(*digest)));
                        assert!(matches!(manifest, Err(RegistryError::ManifestUnknown { .. })), "{item} of {name}");
                    }
                    None => {}
                }
            }
            self.check_references(name, &there);
            self.check_tags(name);
        }
    }

    /// Whether it answers; what does is there bit for bit, whether it was promised or not.
    fn check_visible(&self, repository: &RepositoryName, item: usize, bytes: &[u8]) -> bool {
        let digest = &self.items[item].digest;
        let is_blob = match self
            .registry()
            .read(|reads| reads.blob(repository, digest))
            .and_then(|content| Ok(content.read_all()?))
        {
            Ok(found) => {
                assert_eq!(found, bytes, "blob {item} of {repository}");
                true
            }
            Err(RegistryError::BlobUnknown { .. }) => false,
            Err(error) => panic!("blob {item} of {repository}: {error}"),
        };
        let is_manifest = match self.registry().read(|reads| reads.manifest(repository, &Reference::Digest(*digest))) {
            Ok(found) => {
                assert_eq!(found.bytes, bytes, "manifest {item} of {repository}");
                true
            }
            Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown(_)) => false,
            Err(error) => panic!("manifest {item} of {repository}: {error}"),
        };
        is_blob || is_manifest
    }

    /// Whatever manifest answers can be pulled whole, but for what a client took away by its digest.
    fn check_references(&self, name: &str, there: &BTreeSet<usize>) {
        for &item in there {
            let mut needed = self.needed_by(item);
            let lacking = needed.find(|named| !there.contains(named) && !self.promised[name].is_taken(*named));
            assert_eq!(lacking, None, "what manifest {item} of {name} lacks");
        }
    }

    /// What a manifest names that has to be there for it to be accepted.
    pub(super) fn needed_by(&self, item: usize) -> impl Iterator<Item = usize> {
        let needed = self.items[item].references.iter().filter(|(role, _)| !self.sparse.allows(*role));
        needed.map(|(_, named)| *named).collect::<Vec<_>>().into_iter()
    }

    /// Whether something is not unknown. Where the disk fails, that it is damaged or cannot be read is no absence.
    pub(super) fn answers(&self, name: &str, item: usize) -> bool {
        let (repository, digest) = (parse(name), self.items[item].digest);
        let found = match item < BLOBS_END {
            true => self.registry().read(|reads| reads.blob(&repository, &digest)).map(|_| ()),
            false => self.registry().read(|reads| reads.manifest(&repository, &Reference::Digest(digest))).map(|_| ()),
        };
        match found {
            Ok(()) => true,
            Err(RegistryError::BlobUnknown { .. } | RegistryError::ManifestUnknown { .. }) => false,
            Err(error) => {
                assert!(self.is_down() || self.is_faulty(), "{item} of {name}: {error}");
                true
            }
        }
    }

    /// The tags are those that were set, and each gives the bytes of what it was set to last.
    fn check_tags(&self, name: &str) {
        let (repository, promised) = (parse(name), &self.promised[name].tags);
        let tags =
            self.registry().read(|reads| reads.tags(&repository, None, 100)).map(|page| page.names).unwrap_or_default();
        assert_eq!(tags, promised.keys().copied().collect::<Vec<_>>(), "tags of {name}");
        for tag in TAGS {
            match self.registry().read(|reads| reads.manifest(&repository, &Reference::Tag(tag.parse().unwrap()))) {
                Ok(found) => self.check_tagged(name, tag, &found),
                Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown(_)) => {
                    assert!(!promised.contains_key(tag), "{tag} of {name} points to nothing");
                }
                Err(error) => panic!("{tag} of {name}: {error}"),
            }
        }
    }

    fn check_tagged(&self, name: &str, tag: &str, found: &Manifest) {
        let wanted = self.promised[name].tags.get(tag);
        let is = self.items.iter().position(|item| item.digest == found.digest);
        assert_eq!(is, wanted.copied(), "what {tag} of {name} points to");
        assert!(wanted.is_some_and(|&item| self.items[item].bytes == found.bytes), "{tag} of {name} is {found:?}");
    }

    /// Somebody pulls by a tag or a digest, and is given what was pushed, or told that it is not there, or cannot be read.
    pub(super) fn pull(&mut self, name: &'static str, blob: usize, item: usize, tag: &'static str) {
        let (repository, now_ms) = (parse(name), self.now_ms());
        let promised = &self.promised[name];
        let done = match self.random.u8(..3) {
            0 => {
                let found =
                    self.registry().read(|reads| reads.manifest(&repository, &Reference::Tag(tag.parse().unwrap())));
                found.map(|found| self.check_tagged(name, tag, &found)).or_else(|error| {
                    let is_promised = promised.tags.contains_key(tag);
                    unknown(error, || assert!(!is_promised, "{tag} of {name} points to nothing"))
                })
            }
            1 => {
                let found = self
                    .registry()
                    .read(|reads| reads.manifest(&repository, &Reference::Digest(self.items[item].digest)));
                let promised = promised.manifest(item, now_ms);
                found
                    .map(|found| {
                        assert_ne!(promised, Some(false), "manifest {item} of {name} was deleted");
                        assert_eq!(found.bytes, self.items[item].bytes);
                    })
                    .or_else(|error| unknown(error, || assert_ne!(promised, Some(true), "manifest {item} of {name}")))
            }
            _ => {
                let found = self.registry().read(|reads| reads.blob(&repository, &self.items[blob].digest));
                let is_promised = promised.has_blob(blob, now_ms);
                found
                    .and_then(|found| Ok(found.read_all()?))
                    .map(|found| assert_eq!(found, self.items[blob].bytes))
                    .or_else(|error| unknown(error, || assert!(!is_promised, "blob {blob} of {name}")))
            }
        };
        self.log("pull", name, (blob, item, tag), &done);
        match done {
            Ok(()) => self.saw("pull"),
            Err(error) => self.cut_short(error, |_| ()),
        }
    }

    /// Deletes all that is there, waits for long enough, and collects: nothing is left.
    pub(super) fn check_that_all_can_go(&mut self) {
        self.end_sessions();
        for name in NAMES {
            for item in BLOBS_END..self.items.len() {
                self.delete(name, item);
            }
        }
        for _ in 0..8 {
            self.advance(WINDOW_MS + 8 * GRACE_MS);
            self.collect();
        }
        self.advance(100 * GRACE_MS);
        self.collect();
        self.check();
        let mut left = Vec::new();
        dump::dump(&*self.registry().store().snapshot(), &mut |line| left.push(line.to_owned())).unwrap();
        let known = ["meta ", "samples ", "segments ", "reports ", "pauses ", "policies "];
        left.retain(|line| !known.iter().any(|table| line.starts_with(table)));
        assert!(left.is_empty(), "left are {left:#?}");
        for item in self.items.iter() {
            let search = self.collector().search(&item.digest).unwrap();
            assert!(search.gone, "{search:?}");
        }
        self.saw("all gone");
    }
}

/// Looks at an answer that something is not known; other failures are left.
fn unknown(error: RegistryError, check: impl FnOnce()) -> Result<(), RegistryError> {
    use RegistryError::{BlobUnknown, ManifestUnknown, NameUnknown};
    match error {
        BlobUnknown { .. } | ManifestUnknown { .. } | NameUnknown(_) => check(),
        other => return Err(other),
    }
    Ok(())
}

/// Whether each byte that was read belongs to a record that the index names, or to an upload, or is zero.
fn is_accounted_for(search: &SearchReport) -> bool {
    search.places_more == 0
        && search.places.iter().all(|place| matches!(place.what, PlaceKind::Live | PlaceKind::Upload))
}
