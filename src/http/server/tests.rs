//! The accept loop over real sockets, with handlers that have nothing to do with registries.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use http_body_util::channel::Channel;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::http::body;

/// Longer than every bound here, shorter than what a hanging test costs.
const PATIENCE: Duration = Duration::from_secs(10);

fn limits() -> ServerLimits {
    ServerLimits {
        connections_max: 8,
        connection_wait: Duration::from_millis(200),
        header_timeout: Duration::from_millis(300),
        header_bytes_max: 8 << 10,
        pace: PaceLimits { window: Duration::from_millis(300), bytes_min: 1000 },
        shutdown_grace: Duration::from_secs(5),
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Drained>,
    /// What `/wait` waits for, and whether its handler has begun.
    go_on: Arc<Notify>,
    begun: Arc<AtomicBool>,
}

/// What answers, by path.
#[derive(Clone, Default)]
struct Handlers {
    go_on: Arc<Notify>,
    begun: Arc<AtomicBool>,
}

impl Service for Handlers {
    type Body = Body;

    async fn answer(self, request: Request, _: Asked) -> Response {
        Response::new(match request.uri().path() {
            "/" => Body::from("hello"),
            "/thread" => Body::from(format!("{:?}", thread::current().id())),
            "/wait" => {
                self.begun.store(true, Ordering::SeqCst);
                self.go_on.notified().await;
                Body::from("waited")
            }
            "/take" => Body::from(match body::whole(request.into_body(), "body", 1 << 20).await {
                Ok(bytes) => bytes.len().to_string(),
                Err(error) => format!("refused {}", error.status()),
            }),
            "/endless" => endless(),
            path => Body::from(format!("{path} is nothing")),
        })
    }
}

async fn start(limits: ServerLimits) -> Running {
    let handlers = Handlers::default();
    let Handlers { go_on, begun } = handlers.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let workers = Workers::start(2).unwrap();
        let drained = serve(listener, &workers, handlers, limits, async { drop(stopped.await) }).await;
        drop(workers);
        drained
    });
    Running { address, stop, server, go_on, begun }
}

fn endless() -> Body {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move { while sender.send_data(Bytes::from(vec![0; 1 << 20])).await.is_ok() {} });
    Body::new(body)
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn until_begun(&self) {
        while !self.begun.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// All that comes until the server ends the connection, in whichever way.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            bytes.extend_from_slice(&part[..count]);
        }
    };
    timeout(PATIENCE, reading).await.expect("the server did not end the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends `byte` again and again until the server ends the connection; what it said.
async fn dribble(mut stream: TcpStream, byte: &'static [u8]) -> String {
    let (mut reader, mut writer) = stream.split();
    let mut said = Vec::new();
    let writing = async {
        while writer.write_all(byte).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let reading = async { drop(reader.read_to_end(&mut said).await) };
    timeout(PATIENCE, async {
        tokio::select! { () = writing => {}, () = reading => {} }
    })
    .await
    .expect("the server did not end the connection");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_connection_stays_on_its_thread_and_the_next_one_goes_to_the_other() {
    let server = start(limits()).await;
    let request = "GET /thread HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = server.send(request).await;
        // It has its thread once it was answered.
        let mut first = [0; 1024];
        assert!(stream.read(&mut first).await.unwrap() > 0);
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push((String::from_utf8_lossy(&first).into_owned(), stream));
    }
    let mut threads = BTreeMap::new();
    for (first, mut stream) in streams {
        let second = rest(&mut stream).await;
        let thread = second.rsplit("\r\n\r\n").next().unwrap();
        assert!(thread.starts_with("ThreadId") && first.contains(thread), "{first} {second}");
        *threads.entry(thread.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(threads.into_values().collect::<Vec<_>>(), [2, 2]);
}

#[tokio::test]
async fn a_silent_connection_is_cut() {
    let server = start(limits()).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
}

#[tokio::test]
async fn a_connection_that_idles_after_a_request_is_cut() {
    let server = start(limits()).await;
    let mut stream = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let begun = Instant::now();
    assert!(rest(&mut stream).await.ends_with("hello"));
    assert!(begun.elapsed() >= Duration::from_millis(250), "it was cut before its time: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_dribbled_head_is_cut() {
    let server = start(limits()).await;
    let said = dribble(server.send("GET / HTTP/1.1\r\nX: ").await, b"x").await;
    assert!(!said.contains("200"), "{said}");
}

#[tokio::test]
async fn a_dribbled_body_is_cut_and_told_why() {
    let server = start(limits()).await;
    let head = "POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    assert!(dribble(server.send(head).await, b"x").await.contains("refused 408"));
    assert!(rest(&mut server.send(head).await).await.contains("refused 408"));
}

#[tokio::test]
async fn a_long_body_at_a_fair_pace_is_taken() {
    let server = start(limits()).await;
    let mut stream = server.send("POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n").await;
    for _ in 0..20 {
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(rest(&mut stream).await.ends_with("20000"));
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = start(limits()).await;
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    for fields in [many, format!("x: {}\r\n", "y".repeat(9 << 10))] {
        let said = rest(&mut server.send(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).await).await;
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let server = start(limits()).await;
    let mut stream = server.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // Nothing is read for longer than the window; then only what the kernel had taken is there.
    sleep(Duration::from_secs(1)).await;
    rest(&mut stream).await;
}

#[tokio::test]
async fn an_answer_arrives_although_the_body_goes_on() {
    let server = start(limits()).await;
    let head = "POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n";
    let mut stream = server.send(head).await;
    let (mut reader, mut writer) = stream.split();
    let mut said = Vec::new();
    let bytes = vec![0; 8 << 20];
    let (sent, read) = tokio::join!(writer.write_all(&bytes), timeout(PATIENCE, reader.read_to_end(&mut said)));
    assert!(sent.is_ok() && read.unwrap().is_ok());
    assert!(String::from_utf8_lossy(&said).contains("refused 413"));
}

#[tokio::test]
async fn shutdown_finishes_what_is_under_way_and_closes_the_rest() {
    let server = start(ServerLimits { header_timeout: PATIENCE, ..limits() }).await;
    let mut waiting = server.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut idle = server.connect().await;
    server.until_begun().await;
    server.stop.send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
    assert!(!server.server.is_finished());
    server.go_on.notify_one();
    assert!(rest(&mut waiting).await.ends_with("waited"));
    assert_eq!(timeout(PATIENCE, server.server).await.unwrap().unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn shutdown_cuts_what_outlasts_the_grace() {
    let server = start(ServerLimits { shutdown_grace: Duration::from_millis(100), ..limits() }).await;
    let mut waiting = server.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.until_begun().await;
    server.stop.send(()).unwrap();
    assert_eq!(rest(&mut waiting).await, "");
    assert_eq!(timeout(PATIENCE, server.server).await.unwrap().unwrap(), Drained { cut: 1 });
}

#[tokio::test]
async fn a_connection_too_many_waits_and_is_then_refused() {
    let server = start(ServerLimits { connections_max: 1, ..limits() }).await;
    let mut first = server.send("GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    server.until_begun().await;
    let refused = rest(&mut server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{refused}");
    serde_json::from_str::<serde_json::Value>(body).unwrap();

    let mut second = server.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    server.go_on.notify_one();
    assert!(rest(&mut first).await.ends_with("waited"));
    assert!(rest(&mut second).await.ends_with("hello"));
}
