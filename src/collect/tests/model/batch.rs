//! Several requests in one batch of the committer: an index that lets it wait until all of them are there.
//!
//! Bytes are written before, as uploads do; then the requests are handed over at once. They are such as cannot be refused
//! whatever the store has dropped, so they are all done, or, where the power goes, none is.

use std::{
    ops::Range,
    sync::{Condvar, mpsc::channel},
};

use bytes::Bytes;

use super::*;
use crate::{
    digest::Digest,
    index::{Index, double::Watcher},
    location::RecordKind,
    registry::manifest::{ManifestBounds, parse as parse_manifest},
    state::request::{Outcome, PushRequest},
};

/// What the committer waits for before it begins a batch.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    /// Writes to the index until it becomes durable by itself, as RocksDB's can after any.
    writes_left: Mutex<Option<u64>>,
    kept: Mutex<Option<MemoryIndex>>,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }

    /// Keeps a copy of the index as it is after so many more writes.
    pub(super) fn keep_after(&self, writes: u64) {
        *self.writes_left.lock().unwrap() = Some(writes);
    }

    pub(super) fn take_kept(&self) -> Option<MemoryIndex> {
        self.kept.lock().unwrap().take()
    }
}

impl Watcher for Gate {
    fn written(&self, index: &MemoryIndex) {
        let mut left = self.writes_left.lock().unwrap();
        *left = left.and_then(|left| left.checked_sub(1));
        if *left == Some(0) {
            index.flush().unwrap();
            *self.kept.lock().unwrap() = Some(index.crashed());
        }
    }

    /// When the first request of a batch is taken, and before the others are.
    fn asked_for_health(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
    }
}

impl World {
    pub(super) fn batch(&mut self) {
        self.batch_of(&NAMES, 0..10);
    }

    /// A batch of requests to some repositories, of some of the choices that `request` has.
    pub(super) fn batch_of(&mut self, names: &[&'static str], choices: Range<u8>) {
        let (mut after, mut requests) = (self.promised.clone(), Vec::new());
        for _ in 0..self.random.usize(2..=12) {
            let (name, choice) = (names[self.random.usize(..names.len())], self.random.u8(choices.clone()));
            match self.request(&mut after, name, choice) {
                Ok(request) => requests.extend(request),
                Err(error) => return self.cut_short(error, |_| ()),
            }
            let now_ms = self.now_ms();
            after.values_mut().for_each(|repository| repository.conclude(&self.items, now_ms));
        }
        self.lsn = self.last_lsn();
        let (count, said) = (requests.len(), requests.iter().map(|it| self.describe(it)).collect::<Vec<_>>());
        (self.operations, self.under_way) = (self.operations + count.max(1) as u64 - 1, count as u64);
        let (send, receive) = channel();
        self.gate.set(true);
        for request in requests {
            let send = send.clone();
            self.registry().store().submit(request, Box::new(move |result| send.send(result).unwrap()));
        }
        self.gate.set(false);
        let results: Vec<_> = receive.iter().take(count).collect();
        self.log("batch", "", &said, &results.iter().find(|result| result.is_err()));
        match results.into_iter().collect::<Result<Vec<Outcome>, StoreError>>() {
            Ok(outcomes) => {
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
                self.promised = after;
            }
            Err(error) => self.cut_short(error, move |world| world.promised = after),
        }
        self.saw("batch");
    }

    /// A request that is surely accepted, and what is promised after it.
    fn request(&mut self, after: &mut Promised, name: &'static str, choice: u8) -> Result<Option<Request>, StoreError> {
        let (items, now_ms) = (Arc::clone(&self.items), self.now_ms());
        let blob = self.random.usize(..BLOBS_END);
        let item = self.random.usize(BLOBS_END..items.len());
        let (repository, digest) = (parse(name), items[item].digest);
        let tag = TAGS[self.random.usize(..TAGS.len())];
        let from = NAMES[self.random.usize(..NAMES.len())];
        let mountable = after[from].has_blob(blob, now_ms);
        let to = after.get_mut(name).expect("it is one of the names");
        Ok(match choice {
            0..3 => {
                let Item { digest, bytes, .. } = &items[blob];
                let content = self.registry().store().stage(RecordKind::Blob, *digest, bytes)?;
                to.linked(&items, blob, now_ms);
                Some(Request::Upload { repository, content, session: None, held_bytes: 0, grace_ms: GRACE_MS })
            }
            3 if mountable => {
                to.linked(&items, blob, now_ms);
                let (digest, from) = (items[blob].digest, parse(from));
                Some(Request::Mount { repository, digest, from, grace_ms: GRACE_MS })
            }
            4..8 if to.has_references(&items, item, now_ms) => {
                let tags = if self.random.bool() { vec![tag] } else { Vec::new() };
                let has = items[item].blobs().filter(|blob| to.has_blob(*blob, now_ms)).collect();
                let request = self.push_request(name, item, &tags)?;
                to.pushed(&items, item, &tags, has, now_ms);
                Some(request)
            }
            8 if to.tags.contains_key(tag) => {
                to.untagged(tag);
                Some(Request::Untag { repository, tag: tag.parse().unwrap(), window_ms: WINDOW_MS })
            }
            9 if to.manifest(item, now_ms) == Some(true) => {
                to.deleted(item);
                Some(Request::Delete { repository, digest, after: None, window_ms: WINDOW_MS })
            }
            _ => None,
        })
    }

    fn describe(&self, request: &Request) -> String {
        let number = |digest: &Digest| self.items.iter().position(|item| item.digest == *digest).unwrap_or(usize::MAX);
        match request {
            Request::Upload { repository, content, .. } => format!("put {repository} {}", number(&content.digest)),
            Request::Mount { repository, digest, from, .. } => format!("mount {repository} {} {from}", number(digest)),
            Request::Push(push) => format!("push {} {} {:?}", push.repository, number(&push.content.digest), push.tags),
            Request::Untag { repository, tag, .. } => format!("untag {repository} {tag}"),
            Request::Delete { repository, digest, .. } => format!("delete {repository} {}", number(digest)),
            other => format!("{other:?}"),
        }
    }

    fn push_request(&self, name: &str, item: usize, tags: &[&str]) -> Result<Request, StoreError> {
        let Item { digest, bytes, media_type, .. } = &self.items[item];
        let bounds = ManifestBounds { references_max: 100, depth_max: 16 };
        let manifest = parse_manifest(&Bytes::clone(bytes), Some(media_type), bounds).unwrap();
        Ok(Request::Push(Box::new(PushRequest {
            repository: parse(name),
            content: self.registry().store().stage(RecordKind::Manifest, *digest, bytes)?,
            manifest,
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            sparse: self.sparse,
            window_ms: WINDOW_MS,
        })))
    }
}

/// Batch after batch of pushes, untags and deletes in one repository, and only sometimes a pause in which all is told: what a
/// client pushed by its digest lives, whatever was about to be taken back by then.
#[test]
fn what_is_pushed_while_lives_are_told_lives() {
    each_seed(20, |seed| {
        let _seed = Seed(seed);
        let mut world = World::of_seed(seed, false);
        let name = NAMES[0];
        for _ in 0..2_000 {
            match world.random.u8(..100) {
                0..3 => (0..BLOBS_END).for_each(|blob| world.put(name, blob)),
                3 => world.purge(name),
                4..30 => world.settle(),
                _ => world.batch_of(&[name], 4..10),
            }
            world.conclude();
            world.check_rows(name);
            world.check_lives(name);
        }
    });
}
