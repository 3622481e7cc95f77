//! The store against what was promised.

use super::*;
use crate::{
    collect::{PlaceKind, SearchReport},
    state::{dump, recount::recount},
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

    /// What was promised is served, bit for bit; tags are exactly those that were set; counts are those of a recount.
    pub(super) fn check(&self) {
        self.settle();
        let now_ms = self.now_ms();
        for (name, promised) in &self.promised {
            let repository = parse(name);
            for (item, Item { bytes, digest, .. }) in self.items.iter().enumerate() {
                if item < BLOBS_END && promised.has_blob(item, now_ms) {
                    self.registry().blob(&repository, digest).unwrap();
                }
                self.check_visible(&repository, item, bytes);
                match promised.manifest(item, now_ms) {
                    Some(true) => {
                        let manifest = self.registry().manifest(&repository, &Reference::Digest(*digest)).unwrap();
                        assert_eq!(manifest.bytes, bytes, "manifest {item} of {name}");
                    }
                    Some(false) => {
                        let manifest = self.registry().manifest(&repository, &Reference::Digest(*digest));
                        assert!(matches!(manifest, Err(RegistryError::ManifestUnknown { .. })), "{item} of {name}");
                    }
                    None => {}
                }
            }
            let tags = self.registry().tags(&repository, None, 100).map(|page| page.names).unwrap_or_default();
            assert_eq!(tags, promised.tags.keys().copied().collect::<Vec<_>>(), "tags of {name}");
        }
        recount(&*self.registry().store().snapshot(), &mut |difference| panic!("{difference}")).unwrap();
    }

    /// What answers is there wholly, whether it was promised or not.
    fn check_visible(&self, repository: &RepositoryName, item: usize, bytes: &[u8]) {
        let digest = &self.items[item].digest;
        match self.registry().blob(repository, digest).and_then(|content| Ok(content.read_all()?)) {
            Ok(found) => assert_eq!(found, bytes, "blob {item} of {repository}"),
            Err(RegistryError::BlobUnknown { .. }) => {}
            Err(error) => panic!("blob {item} of {repository}: {error}"),
        }
        match self.registry().manifest(repository, &Reference::Digest(*digest)) {
            Ok(found) => assert_eq!(found.bytes, bytes, "manifest {item} of {repository}"),
            Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown(_)) => {}
            Err(error) => panic!("manifest {item} of {repository}: {error}"),
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

/// Whether each byte that was read belongs to a record that the index names, or to an upload, or is zero.
fn is_accounted_for(search: &SearchReport) -> bool {
    search.places_more == 0
        && search.places.iter().all(|place| matches!(place.what, PlaceKind::Live | PlaceKind::Upload))
}
