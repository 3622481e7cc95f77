//! What was promised to clients, worked out from their calls alone: small, naive, and blind to what the store keeps.
//!
//! It never says that something must be gone, because when that is so depends on when somebody collects; it says what has to
//! be there, and until when. Where it is not sure that something lives (a manifest that may have been dropped, a root that
//! something may have reached) it promises nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    GRACE_MS, WINDOW_MS,
    items::{BLOBS_END, Item},
};

/// A manifest that was pushed, and may be there.
#[derive(Debug, Clone, Default)]
pub(super) struct Pushed {
    /// It was deleted by digest: it answers no more.
    pub(super) deleted: bool,
    /// Until when it has to be there, to be read or restored.
    pub(super) until_ms: u64,
    /// It was pushed by digest, and nothing can have reached it since.
    root: bool,
    /// Its blobs that the repository had: they are there as long as it is.
    blobs: BTreeSet<usize>,
}

/// What was promised of one repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Repository {
    /// Exactly the tags that are there.
    pub(super) tags: BTreeMap<&'static str, usize>,
    pub(super) manifests: BTreeMap<usize, Pushed>,
    /// Blobs that clients were told are there, and until when that holds.
    told: BTreeMap<usize, u64>,
    /// When each was last uploaded or mounted.
    linked_ms: BTreeMap<usize, u64>,
    /// What a client took away by its digest, and nobody has brought again.
    taken: BTreeSet<usize>,
}

impl Repository {
    /// Manifests that surely live, and in which way; `now_ms` is when that was last looked at.
    fn lives(&self, items: &[Item], now_ms: u64) -> BTreeMap<usize, Life> {
        let mut lives: BTreeMap<usize, Life> = BTreeMap::new();
        loop {
            let mut next = lives.clone();
            for (&item, pushed) in self.manifests.iter().filter(|(_, it)| !it.deleted && it.until_ms > now_ms) {
                let of = |item: &usize| lives.get(item).copied().unwrap_or_default();
                let parents = self.parents(items, item).map(|parent| of(&parent)).collect::<Vec<_>>();
                let subject = items[item].subject.map(|subject| of(&subject)).unwrap_or_default();
                let life = Life {
                    strong: pushed.root
                        || self.tags.values().any(|tagged| *tagged == item)
                        || parents.iter().any(|parent| parent.strong),
                    attached: subject.strong || subject.attached,
                    carried: parents.iter().any(|parent| parent.attached || parent.carried),
                };
                next.insert(item, life);
            }
            if next == lives {
                lives.retain(|_, life| *life != Life::default());
                return lives;
            }
            lives = next;
        }
    }

    fn parents<'a>(&'a self, items: &'a [Item], child: usize) -> impl Iterator<Item = usize> + 'a {
        self.manifests.keys().copied().filter(move |&parent| items[parent].children().any(|item| item == child))
    }

    /// Draws the conclusions of a call: what lives now has to be there for a window from now on. To be called at least once a
    /// window.
    pub(super) fn conclude(&mut self, items: &[Item], now_ms: u64) {
        let reached: Vec<usize> =
            self.manifests.keys().copied().filter(|&item| self.may_be_reached(items, item)).collect();
        for item in reached {
            self.manifests.entry(item).and_modify(|pushed| pushed.root = false);
        }
        for item in self.lives(items, now_ms).into_keys() {
            self.manifests.entry(item).and_modify(|pushed| pushed.until_ms = now_ms + WINDOW_MS);
        }
    }

    fn may_be_reached(&self, items: &[Item], item: usize) -> bool {
        let is_there = |item: &usize| self.manifests.get(item).is_some_and(|pushed| !pushed.deleted);
        self.tags.values().any(|tagged| *tagged == item)
            || self.parents(items, item).any(|parent| is_there(&parent))
            || items[item].subject.is_some_and(|subject| is_there(&subject))
    }

    /// An upload or a mount was accepted.
    pub(super) fn linked(&mut self, items: &[Item], blob: usize, now_ms: u64) {
        self.linked_ms.insert(blob, now_ms);
        self.taken.remove(&blob);
        self.promise(blob, now_ms + GRACE_MS);
        // Those that named it before it came have it from now on.
        for (&item, pushed) in self.manifests.iter_mut().filter(|(_, pushed)| pushed.until_ms > now_ms) {
            if items[item].blobs().any(|named| named == blob) {
                pushed.blobs.insert(blob);
            }
        }
    }

    fn promise(&mut self, blob: usize, until_ms: u64) {
        let until = self.told.entry(blob).or_default();
        *until = (*until).max(until_ms);
    }

    /// A client was told that a blob is there.
    pub(super) fn told(&mut self, blob: usize, now_ms: u64) {
        let last_ms = self.linked_ms.get(&blob).copied().unwrap_or_default();
        self.promise(blob, (now_ms + GRACE_MS / 2).min(last_ms + 7 * GRACE_MS));
    }

    /// A manifest was accepted, or restored; `has` are the blobs of it that the repository has.
    pub(super) fn pushed(
        &mut self,
        items: &[Item],
        item: usize,
        tags: &[&'static str],
        has: BTreeSet<usize>,
        now_ms: u64,
    ) {
        let by_digest = tags.is_empty();
        let pushed = self.manifests.entry(item).or_default();
        (pushed.deleted, pushed.blobs, pushed.until_ms) = (false, has, now_ms + WINDOW_MS);
        self.taken.remove(&item);
        self.tags.extend(tags.iter().map(|tag| (*tag, item)));
        let reached = self.may_be_reached(items, item);
        self.manifests.entry(item).and_modify(|pushed| pushed.root |= by_digest && !reached);
    }

    pub(super) fn untagged(&mut self, tag: &str) {
        self.tags.remove(tag);
    }

    /// A client took it away by its digest.
    pub(super) fn deleted(&mut self, item: usize) {
        self.gone(item);
        self.taken.insert(item);
    }

    /// It answers no more.
    pub(super) fn gone(&mut self, item: usize) {
        self.tags.retain(|_, tagged| *tagged != item);
        self.manifests.entry(item).and_modify(|pushed| (pushed.deleted, pushed.root) = (true, false));
    }

    /// A client took back a blob's link.
    pub(super) fn unlinked(&mut self, blob: usize) {
        self.told.remove(&blob);
        self.taken.insert(blob);
        for pushed in self.manifests.values_mut() {
            pushed.blobs.remove(&blob);
        }
    }

    /// The windows of what does not live were ended, and with them the graces of what was uploaded for it.
    pub(super) fn purged(&mut self, items: &[Item], now_ms: u64) {
        let lives = self.lives(items, now_ms);
        for (_, pushed) in self.manifests.iter_mut().filter(|(item, _)| !lives.contains_key(item)) {
            pushed.until_ms = 0;
        }
        let ended: Vec<usize> = self.manifests.keys().copied().filter(|item| !lives.contains_key(item)).collect();
        self.told.retain(|blob, _| !ended.iter().any(|&item| items[item].blobs().any(|named| named == *blob)));
    }

    /// Whether a client took it away by its digest, so that what names it lacks it.
    pub(super) fn is_taken(&self, item: usize) -> bool {
        self.taken.contains(&item)
    }

    /// Whether a manifest has to be there, and whether it answers; `None` where nothing was promised.
    pub(super) fn manifest(&self, item: usize, now_ms: u64) -> Option<bool> {
        self.manifests.get(&item).filter(|pushed| pushed.until_ms > now_ms).map(|pushed| !pushed.deleted)
    }

    /// Whether a blob has to be there.
    pub(super) fn has_blob(&self, blob: usize, now_ms: u64) -> bool {
        self.told.get(&blob).is_some_and(|until_ms| *until_ms > now_ms)
            || self.manifests.values().any(|pushed| pushed.until_ms > now_ms && pushed.blobs.contains(&blob))
    }

    /// The manifests that surely live.
    pub(super) fn living(&self, items: &[Item], now_ms: u64) -> impl Iterator<Item = usize> {
        self.lives(items, now_ms).into_keys()
    }

    /// Whether something that surely lives names a blob that is surely there.
    pub(super) fn needs_blob(&self, items: &[Item], blob: usize, now_ms: u64) -> bool {
        self.lives(items, now_ms).keys().any(|item| self.manifests[item].blobs.contains(&blob))
    }

    /// Whether all that a manifest names is there, so that its push has to be accepted.
    pub(super) fn has_references(&self, items: &[Item], item: usize, now_ms: u64) -> bool {
        items[item].references.iter().all(|&(_, named)| match named < BLOBS_END {
            true => self.has_blob(named, now_ms),
            false => self.manifest(named, now_ms) == Some(true),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Life {
    strong: bool,
    attached: bool,
    carried: bool,
}
