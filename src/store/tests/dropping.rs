//! Readers while content is dropped, moved, erased and removed: they get its bytes or are told that it is not there, and
//! never that it is damaged. Rows are changed here by hand; who decides that is tested elsewhere.

use std::{
    fmt,
    path::Path,
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{
    index::{
        Changes,
        double::{Watched, Watcher},
        schema::{self, BlobRow, RowValue, key},
    },
    location::Location,
    segment::{Candidate, DeadRecord, Removal},
    store::{FilePiece, Piece, StoredContent, VerifyReads},
};

const AT_ONCE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);

fn row(store: &Store, digest: &Digest) -> BlobRow {
    schema::expect(&*store.shared.index, key::blob(digest)).unwrap()
}

/// Makes the index name another place for content, or none.
fn set_row(store: &Store, digest: &Digest, row: Option<BlobRow>) {
    let changes = Changes::from([(key::blob(digest).bytes(), row.map(|row| row.to_bytes()))]);
    store.shared.index.write(&changes).unwrap();
}

/// Erases a record, or removes the file that it has for itself.
fn clear(store: &Store, row: &BlobRow) -> bool {
    erase(store, row, LONG)
        || store.shared.segments.remove_dead(row.location.segment, LONG).is_ok_and(|removal| removal == Removal::Freed)
}

fn erase(store: &Store, row: &BlobRow, patience: Duration) -> bool {
    let dead = DeadRecord { offset: row.location.offset, record_len: row.record_len };
    store.shared.segments.erase(row.location.segment, &[dead], patience).unwrap().is_empty()
}

/// Moves content to the end of a shared segment; its old place.
fn move_content(store: &Store, digest: &Digest) -> BlobRow {
    let old = row(store, digest);
    let BlobRow { location, kind, size: payload_len, record_len } = old;
    let copy =
        store.shared.segments.copy(&Candidate { location, kind, digest: *digest, payload_len, record_len }).unwrap();
    store.shared.segments.sync().unwrap();
    set_row(store, digest, Some(BlobRow { location: copy.location, record_len: copy.record_len, ..old.clone() }));
    old
}

/// A store whose small content is larger than what is read at once.
fn open(machine: &Machine, large_blob_bytes: u64) -> Store {
    let options = StoreOptions { large_blob_bytes, buffered_bytes_max: 1 << 24, ..Machine::options() };
    let index = Arc::clone(&*machine.index.lock().unwrap());
    Store::open_on(Arc::new(machine.disk.clone()), options, &|_| Ok(Box::new(Arc::clone(&index)))).unwrap()
}

/// A store on a disk of the operating system: content that has a file of its own is sent from there.
fn open_real(directory: &Path, large_blob_bytes: u64) -> Store {
    let disk = Arc::new(RealDisk::new(directory).unwrap());
    let options = StoreOptions { large_blob_bytes, buffered_bytes_max: 1 << 24, ..Machine::options() };
    Store::open_on(disk, options, &|_| Ok(Box::new(MemoryIndex::new()))).unwrap()
}

/// All of some content as it is sent, at hand or checked now.
fn in_pieces(content: &StoredContent, len: usize, rng: &mut fastrand::Rng) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < len {
        let wanted = rng.usize(1..200_000);
        let at_hand = content.at_hand(at as u64, wanted).filter(|_| rng.bool());
        let piece = at_hand.unwrap_or_else(|| content.piece(at as u64, wanted).unwrap());
        at += bytes_of(&piece).len();
        pieces.push(piece);
    }
    pieces
}

fn bytes_of(piece: &Piece) -> &[u8] {
    match piece {
        Piece::Bytes(bytes) => bytes,
        Piece::File(piece) => piece.as_ref(),
    }
}

/// Threads read what was published, each in pieces, while `act` goes on; how often they got all, and how often were told
/// that it is not there.
fn read_beside(store: &Store, published: &RwLock<Vec<(Digest, Vec<u8>)>>, act: impl FnOnce()) -> (u64, u64) {
    let (done, whole, absent) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let thread = |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        while !done.load(Ordering::Acquire) {
            let choice = rng.choice(published.read().unwrap().iter()).cloned();
            let Some((digest, bytes)) = choice else { continue };
            let Some(content) = store.content(&digest).unwrap() else {
                absent.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            for (at, piece) in bytes.chunks(100_000).enumerate() {
                assert!(content.read(at as u64 * 100_000, piece.len()).unwrap() == piece);
            }
            let pieces = in_pieces(&content, bytes.len(), &mut rng);
            for _ in 0..2 {
                // The second time they have been held for a while.
                assert!(pieces.iter().flat_map(bytes_of).eq(&bytes), "{digest}");
            }
            whole.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || thread(seed))).collect();
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        done.store(true, Ordering::Release);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        acted.unwrap();
    });
    (whole.into_inner(), absent.into_inner())
}

#[test]
fn readers_of_dropped_content_get_its_bytes_or_are_told_that_it_is_not_there() {
    check_readers_of_dropped_content(&open(&Machine::new(), 1 << 20), 250);
    let directory = tempfile::tempdir().unwrap();
    check_readers_of_dropped_content(&open_real(directory.path(), 10_000), 100);
}

fn check_readers_of_dropped_content(store: &Store, count: u64) {
    let published = RwLock::new(Vec::new());
    let (whole, absent) = read_beside(store, &published, || {
        for seed in 0..count {
            let content = bytes(seed, if seed % 2 == 0 { 300_000 } else { 3_000 });
            let digest = put(store, &content).unwrap();
            published.write().unwrap().push((digest, content));
            std::thread::sleep(Duration::from_millis(2));
            let place = row(store, &digest);
            set_row(store, &digest, None);
            assert!(clear(store, &place), "readers do not end");
            assert!(store.content(&digest).unwrap().is_none());
            let mut published = published.write().unwrap();
            let excess = published.len().saturating_sub(3);
            published.drain(..excess);
        }
    });
    assert!(whole > count / 5 && absent > count / 5, "{whole} reads, {absent} absent");
    assert!(store.shared.damaged().is_empty());
}

#[test]
fn readers_of_content_that_is_moved_always_get_it() {
    let directory = tempfile::tempdir().unwrap();
    let machines = [Machine::new(), Machine::new()];
    let stores = [open(&machines[0], 10_000), open(&machines[1], 1 << 20), open_real(directory.path(), 10_000)];
    for store in stores {
        let contents: Vec<(Digest, Vec<u8>)> = [300_000, 3_000, 270_000]
            .map(|len| (put(&store, &bytes(len as u64, len)).unwrap(), bytes(len as u64, len)))
            .into();
        let published = RwLock::new(contents.clone());
        let (whole, absent) = read_beside(&store, &published, || {
            for turn in 0..300 {
                let digest = contents[turn % contents.len()].0;
                let old = move_content(&store, &digest);
                let places = contents.iter().map(|(digest, _)| row(&store, digest).location.segment);
                if places.into_iter().all(|segment| segment != old.location.segment) {
                    store.shared.segments.take_sealed();
                    // Without a wait for those who are about to open it.
                    store.shared.segments.remove_dead(old.location.segment, AT_ONCE).unwrap();
                } else {
                    assert!(erase(&store, &old, LONG), "readers do not end");
                }
            }
        });
        assert!(whole > 50 && absent == 0, "{whole} reads, {absent} absent");
        assert!(store.shared.damaged().is_empty());
    }
}

/// Something happens after one read of a blob's row.
#[derive(Default)]
struct Interruption(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl fmt::Debug for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interruption")
    }
}

impl Watcher for Interruption {
    fn read(&self, key: &[u8]) {
        let is_blob = schema::Table::of(key) == Some(schema::Table::Blobs);
        let then = is_blob.then(|| self.0.lock().unwrap().take()).flatten();
        then.into_iter().for_each(|then| then());
    }
}

/// Opens content; `then` happens after its place was looked up and before it is opened.
fn content_after(
    content: &[u8],
    large_blob_bytes: u64,
    then: impl FnOnce(&Store, Digest) + Send + 'static,
) -> Result<bool, StoreError> {
    let machine = Machine::new();
    let interruption = Arc::new(Interruption::default());
    let index = Arc::new(Watched { index: Arc::default(), watcher: Arc::clone(&interruption) });
    // Each read goes to the index.
    let row_cache_bytes = 0;
    let options = StoreOptions { large_blob_bytes, buffered_bytes_max: 1 << 24, row_cache_bytes, ..Machine::options() };
    let opened =
        Store::open_on(Arc::new(machine.disk.clone()), options, &|_| Ok(Box::new(Arc::clone(&index)))).unwrap();
    let store = Arc::new(opened);
    let digest = put(&store, content).unwrap();
    let other = Arc::clone(&store);
    *interruption.0.lock().unwrap() = Some(Box::new(move || then(&other, digest)));
    let found = store.content(&digest)?;
    let found = found.map(|found| found.read_all().unwrap());
    assert!(found.as_ref().is_none_or(|found| found == content));
    Ok(found.is_some())
}

#[test]
fn what_happens_between_lookup_and_opening_never_looks_like_damage() {
    let content = bytes(1, 300_000);
    let kept = content_after(&content, 1 << 20, |store, digest| {
        let place = row(store, &digest);
        set_row(store, &digest, None);
        assert!(!erase(store, &place, Duration::from_millis(5)), "it is about to be opened");
    });
    assert!(kept.unwrap(), "what was found is read to its end");

    let removed = content_after(&content, 10_000, |store, digest| {
        let place = row(store, &digest);
        set_row(store, &digest, None);
        assert_eq!(store.shared.segments.remove_dead(place.location.segment, AT_ONCE).unwrap(), Removal::Freed);
    });
    assert!(!removed.unwrap(), "it is not there any more");

    let moved = content_after(&content, 10_000, |store, digest| {
        let place = move_content(store, &digest);
        assert_eq!(store.shared.segments.remove_dead(place.location.segment, AT_ONCE).unwrap(), Removal::Freed);
    });
    assert!(moved.unwrap(), "it lies elsewhere");

    let lost = content_after(&content, 10_000, |store, digest| {
        store.shared.segments.remove_dead(row(store, &digest).location.segment, AT_ONCE).unwrap();
    });
    assert!(matches!(lost, Err(StoreError::Corrupt(_))), "the index still names a place that is gone");
}

#[test]
fn a_damaged_block_is_damage_while_its_place_is_named_and_not_after() {
    let machine = Machine::new();
    let store = open(&machine, 1 << 20);
    let digest = put(&store, &bytes(1, 300_000)).unwrap();
    let content = store.content(&digest).unwrap().unwrap();
    let Location { segment, offset } = row(&store, &digest).location;
    let file = machine.disk.open(&format!("segments/000000000/{:012}.segment", segment.0)).unwrap();
    file.write_all_at(b"damage", offset + 200_000).unwrap();
    let dropped = row(&store, &digest);
    set_row(&store, &digest, None);
    assert!(matches!(content.read(190_000, 20_000), Err(StoreError::Failed(text)) if text.contains("was dropped")));
    assert!(store.shared.damaged().is_empty());
    set_row(&store, &digest, Some(dropped));
    assert!(matches!(content.read(190_000, 20_000), Err(StoreError::Corrupt(_))));
    assert!(store.shared.damaged().contains(&digest));
}

/// Content of a real store that is sent from its file, with the piece that says so.
fn file_piece(store: &Store, digest: &Digest) -> FilePiece {
    let content = store.content(digest).unwrap().unwrap();
    match content.piece(0, 1 << 20).unwrap() {
        Piece::File(piece) => piece,
        Piece::Bytes(_) => panic!("it is not sent from its file"),
    }
}

/// Overwrites some bytes of the record of some content.
fn rot(store: &Store, digest: &Digest, at: u64) {
    let place = row(store, digest).location;
    let file = store.shared.disk.open(&crate::segment::path_of(place.segment)).unwrap();
    file.write_all_at(&[0xbd; 7], place.offset + at).unwrap();
}

#[test]
fn a_piece_that_is_being_sent_keeps_its_record_from_being_erased_and_nothing_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_real(directory.path(), 10_000);
    let sent = put(&store, &bytes(2, 700_000)).unwrap();
    drop(file_piece(&store, &sent));
    let place = row(&store, &sent);
    set_row(&store, &sent, None);
    assert!(!erase(&store, &place, AT_ONCE), "what a socket has taken would change on its way");
    assert!(clear(&store, &place));
    let content = bytes(1, 700_000);
    let digest = put(&store, &content).unwrap();
    let piece = file_piece(&store, &digest);
    let place = row(&store, &digest);
    set_row(&store, &digest, None);
    assert!(!erase(&store, &place, AT_ONCE));
    assert_eq!(store.shared.segments.remove_dead(place.location.segment, AT_ONCE).unwrap(), Removal::StillRead);
    assert!(piece.as_ref() == content);
    drop(piece);
    assert_eq!(store.shared.segments.remove_dead(place.location.segment, AT_ONCE).unwrap(), Removal::Freed);
}

#[test]
fn only_what_was_or_is_soon_checked_is_at_hand_and_nothing_of_it_after_damage() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_real(directory.path(), 10_000);
    let content = bytes(1, 700_000);
    let digest = put(&store, &content).unwrap();
    let open = || store.content(&digest).unwrap().unwrap();
    let at_hand = |at, len| open().at_hand(at, len).map(|piece| bytes_of(&piece).len());
    assert_eq!(at_hand(0, 1 << 20), None);
    // Blocks of 64 KiB: the second and the third.
    open().piece(70_000, 100_000).unwrap();
    assert_eq!(
        [at_hand(0, 1 << 20), at_hand(65_536, 1 << 20), at_hand(100_000, 1 << 20)],
        [None, Some(131_072), Some(96_608)]
    );
    // One that was not is checked at once.
    assert_eq!([at_hand(10, 1_000), at_hand(0, 1 << 20)], [Some(1_000), Some(196_608)]);
    assert!(
        matches!(open().at_hand(100_000, 5), Some(Piece::File(piece)) if piece.as_ref() == &content[100_000..][..5])
    );
    let held = open();
    rot(&store, &digest, 300_000);
    assert_eq!([at_hand(300_000, 10), at_hand(0, 1 << 20)], [None, None]);
    assert!(matches!(held.piece(250_000, 100_000), Err(StoreError::Corrupt(_))));
    assert_eq!([at_hand(0, 1 << 20), held.at_hand(0, 1 << 20).map(|piece| bytes_of(&piece).len())], [None, None]);
    assert!(store.shared.damaged().contains(&digest));
    // Pushed again it lies elsewhere, and all of it is sent again.
    assert_eq!(put(&store, &content).unwrap(), digest);
    assert!(file_piece(&store, &digest).as_ref() == content && at_hand(300_000, 1 << 20) == Some(400_000));
}

#[test]
fn the_scrub_reads_what_is_known_again_and_takes_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_real(directory.path(), 10_000);
    let digest = put(&store, &bytes(1, 700_000)).unwrap();
    // A block, the table of checksums, the header.
    for at in [300_000, 700_100, 4] {
        let digest = put(&store, &bytes(at, 700_000)).unwrap();
        file_piece(&store, &digest);
        let content = store.content(&digest).unwrap().unwrap();
        // More than is checked at once.
        assert!(content.at_hand(0, 1 << 20).is_some());
        rot(&store, &digest, at);
        assert!(store.examine::<StoreError>(&digest, &mut |_| Ok(())).unwrap().is_some(), "{at}");
        assert!(content.at_hand(0, 1 << 20).is_none(), "{at}");
    }
    file_piece(&store, &digest);
    assert_eq!(store.examine::<StoreError>(&digest, &mut |_| Ok(())).unwrap(), None);
    assert!(store.content(&digest).unwrap().unwrap().at_hand(0, 1 << 20).is_some(), "what is sound stays at hand");
}

#[test]
fn where_all_reads_are_checked_nothing_is_at_hand() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
    let options = StoreOptions { verify_reads: VerifyReads::Always, ..Machine::options() };
    let store = Store::open_on(disk, options, &|_| Ok(Box::new(MemoryIndex::new()))).unwrap();
    let digest = put(&store, &bytes(1, 700_000)).unwrap();
    let content = store.content(&digest).unwrap().unwrap();
    assert!(matches!(content.piece(0, 1 << 20).unwrap(), Piece::Bytes(_)));
    assert!(content.at_hand(0, 10).is_none());
    rot(&store, &digest, 300_000);
    assert!(matches!(content.piece(0, 1 << 20), Err(StoreError::Corrupt(_))));
}
