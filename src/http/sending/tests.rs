//! The socket over real connections and real files: what comes out at the other end, whatever is sent how.

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    digest::{Algorithm, Digest},
    disk::RealDisk,
    index::memory::MemoryIndex,
    store::{Store, StoreOptions, StoredContent},
};

/// More than what the kernel takes for a client that does not read.
const LEN: usize = 24 << 20;

struct Fixture {
    _directory: TempDir,
    _store: Store,
    content: StoredContent,
    bytes: Vec<u8>,
    sending: Sending,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
        let options = StoreOptions { reserve_bytes: 0, ..StoreOptions::default() };
        let store = Store::open_on(disk, options, &|_| Ok(Box::new(MemoryIndex::new()))).unwrap();
        let mut bytes = vec![0; LEN];
        fastrand::Rng::with_seed(1).fill(&mut bytes);
        let digest: Digest = store.put(&"team/app".parse().unwrap(), Algorithm::Sha256, &bytes).unwrap();
        let content = store.content(&digest).unwrap().unwrap();
        Self { _directory: directory, _store: store, content, bytes, sending: Sending::default() }
    }

    fn slice(&self, at: usize, len: usize) -> Bytes {
        self.sending.bytes(self.content.piece(at as u64, len).unwrap())
    }

    fn entries(&self) -> usize {
        assert_eq!(self.sending.0.entries().len(), self.sending.0.count.load(Ordering::Acquire));
        self.sending.0.entries().len()
    }

    async fn connected(&self) -> (SendingSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (SendingSocket::new(accepted.unwrap().0, self.sending.clone()), client.unwrap())
    }
}

/// Writes all of some slices as hyper does, and ends; what was taken by each call.
async fn write_all(mut socket: SendingSocket, mut slices: Vec<Bytes>) -> Vec<usize> {
    let mut taken = Vec::new();
    while !slices.is_empty() {
        let count = {
            let parts: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            std::future::poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &parts)).await.unwrap()
        };
        taken.push(count);
        let mut left = count;
        while let Some(first) = slices.first_mut().filter(|first| left > 0 || first.is_empty()) {
            let part = first.split_to(left.min(first.len()));
            left -= part.len();
            if first.is_empty() {
                slices.remove(0);
            }
        }
    }
    socket.shutdown().await.unwrap();
    taken
}

async fn read_all(mut client: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn what_stands_around_files_and_the_files_come_in_order() {
    let fixture = Fixture::new();
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let slices = vec![
        text("head"),
        text("part one"),
        fixture.slice(1_000, 70_000),
        text("part two"),
        fixture.slice(0, 3),
        // Sent by others than this connection: written as it lies there.
        Sending::default().bytes(fixture.content.piece(5_000_000, 300_000).unwrap()),
        fixture.slice(LEN - 10, 10),
        fixture.slice(1_000, 70_000),
        text("tail"),
    ];
    assert_eq!(fixture.entries(), 4);
    let expected = slices.concat();
    let (socket, client) = fixture.connected().await;
    let (taken, came) = tokio::join!(write_all(socket, slices), read_all(client));
    assert!(came == expected);
    assert_eq!(taken[0], 4 + 8 + 70_000, "the head goes with the first file");
    assert_eq!(fixture.entries(), 0);
}

#[tokio::test]
async fn a_client_that_reads_late_and_slowly_gets_all_of_it() {
    let fixture = Fixture::new();
    let (socket, mut client) = fixture.connected().await;
    let sending = tokio::spawn(write_all(socket, vec![Bytes::from_static(b"head"), fixture.slice(0, LEN)]));
    let mut came = Vec::new();
    let mut part = vec![0; 300_000];
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!sending.is_finished(), "the kernel takes all of it: this tests nothing");
    while let count @ 1.. = client.read(&mut part).await.unwrap() {
        came.extend_from_slice(&part[..count]);
    }
    assert!(came[..4] == *b"head" && came[4..] == fixture.bytes);
    let taken = sending.await.unwrap();
    assert!(taken.iter().all(|count| *count <= CALL_BYTES + 4), "{taken:?}");
    assert_eq!(fixture.entries(), 0);
}

#[tokio::test]
async fn parts_of_a_slice_are_found_and_others_are_not() {
    let fixture = Fixture::new();
    let slice = fixture.slice(100_000, 10_000);
    let found = |slice: &[u8]| fixture.sending.find(&[IoSlice::new(b"x"), IoSlice::new(slice)]).map(|found| found.skip);
    assert_eq!([found(&slice), found(&slice[17..20]), found(&slice[..0])], [Some(0), Some(17), None]);
    // The same mapping, but no bytes that were checked.
    let beside = fixture.content.piece(110_000, 5).unwrap();
    let Piece::File(beside) = beside else { panic!("it is not sent from its file") };
    assert_eq!(found(beside.as_ref()), None);
    let (part, copy) = (slice.slice(5..), slice.to_vec());
    drop(slice);
    assert_eq!([found(&part), found(&copy)], [Some(5), None]);
    drop(part);
    assert_eq!(fixture.entries(), 0);
}

#[tokio::test]
async fn a_client_that_takes_all_at_once_lets_others_have_their_turn() {
    let fixture = Fixture::new();
    let (socket, client) = fixture.connected().await;
    let turns = Arc::new(AtomicUsize::new(0));
    let (counter, slices) = (Arc::clone(&turns), vec![fixture.slice(0, LEN)]);
    let others = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let reading = std::thread::spawn(move || {
        use std::io::Read;
        let mut client = client.into_std().unwrap();
        client.set_nonblocking(false).unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        bytes
    });
    write_all(socket, slices).await;
    others.abort();
    assert!(turns.load(Ordering::Relaxed) >= LEN / TURN_BYTES - 1, "{turns:?}");
    assert!(reading.join().unwrap() == fixture.bytes);
}
