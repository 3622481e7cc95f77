//! The routes over a registry on a simulated disk: statuses, codes and headers as clients see them.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, Request, response::Parts},
};
use bytes::Bytes;
use http_body_util::{BodyExt, channel::Channel};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{server::Service, *};
use crate::{
    collect::{CollectOptions, Collector},
    digest::{Algorithm, Digest},
    disk::sim::SimDisk,
    index::memory::MemoryIndex,
    registry::{Registry, RegistryError, RegistryOptions, Sparse},
    store::{Store, StoreOptions},
};

mod verify;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

struct Client {
    app: Arc<App>,
    disk: SimDisk,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and, where it is an error, its code.
    fn outcome(&self) -> (u16, String) {
        let is_json = self.header("content-type") == "application/json" && !self.body.is_empty();
        let code = if is_json {
            self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        };
        (self.status, code)
    }
}

/// A request, and its whole answer.
pub(super) async fn exchange(
    app: &Arc<App>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> (Parts, Bytes) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.clone().answer(request.body(body).unwrap(), Asked::default()).await;
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.unwrap().to_bytes())
}

fn client() -> Client {
    let (app, disk) = app();
    Client { app: Arc::new(app), disk }
}

pub(super) fn app() -> (App, SimDisk) {
    let disk = SimDisk::new();
    let options = StoreOptions { large_blob_bytes: 200_000, reserve_bytes: 0, ..StoreOptions::default() };
    let store = Store::open_on(Arc::new(disk.clone()), options, &|_| Ok(Box::new(MemoryIndex::new()))).unwrap();
    let registry = RegistryOptions {
        manifest_bytes_max: 4096,
        references_max: 100,
        json_depth_max: 16,
        uploads_max: 3,
        sparse: Sparse::Off,
    };
    let registry = Registry::new(Arc::new(store), registry).unwrap();
    let limits = Limits {
        uri_bytes_max: 600,
        request_timeout: Duration::from_secs(60),
        blob_bytes_max: 3_000_000,
        body_memory_bytes: 16 << 20,
        blocking_threads: 8,
        blocking_queue: 64,
        verify_memory_bytes: 1 << 30,
        verify_bytes_per_second: 1 << 30,
        verify_opening: false,
        api_hosts: vec!["registry.example".to_owned()],
    };
    let registry = Arc::new(registry);
    let collector = Collector::new(Arc::clone(&registry), CollectOptions::default()).unwrap();
    (App::new(registry, collector, Host::default(), limits, Handle::current()), disk)
}

impl Client {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (parts, body) = exchange(&self.app, method, path, headers, body.into()).await;
        assert_eq!(parts.headers["docker-distribution-api-version"], "registry/2.0", "{method} {path}");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    async fn start(&self, name: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], "").await;
        assert_eq!((answer.status, answer.header("range")), (202, "0-0"));
        assert!(answer.header("location").ends_with(answer.header("docker-upload-uuid")));
        answer.header("location").to_owned()
    }

    async fn push(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send("POST", &path, &[], content.to_vec()).await.status, 201);
        digest
    }

    /// Sends a request and compares what it comes to.
    async fn check(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        expected: (u16, &str),
    ) -> Answer {
        let answer = self.send(method, path, headers, body.to_vec()).await;
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{method} {path} {headers:?}");
        answer
    }
}

/// Bytes that differ from block to block.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| ((n * n) >> 7) as u8).collect()
}

fn image(config: &Digest, config_size: usize) -> Vec<u8> {
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": config_size });
    json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [] }).to_string().into_bytes()
}

/// A body without an announced length that breaks off in the end.
fn breaking(bytes: Vec<u8>) -> Body {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        sender.send_data(bytes.into()).await.unwrap();
        sender.abort(std::io::Error::other("the client went away"));
    });
    Body::new(body)
}

#[tokio::test]
async fn a_blob_in_chunks_comes_back_whole_and_in_parts() {
    let client = client();
    let bytes = content(2_500_000);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let location = client.start("team/app").await;
    let first =
        client.check("PATCH", &location, &[("content-range", "0-1499999")], &bytes[..1_500_000], (202, "")).await;
    assert_eq!(first.header("range"), "0-1499999");
    for range in ["0-9", "1499999-1500008", "bytes 1500001-1500010/*"] {
        let refused =
            client.check("PATCH", &location, &[("content-range", range)], &[0; 10], (416, "BLOB_UPLOAD_INVALID")).await;
        assert_eq!((refused.header("range"), refused.header("location")), ("0-1499999", location.as_str()));
    }
    let status = client.check("GET", &location, &[], b"", (204, "")).await;
    assert_eq!((status.header("range"), status.header("location")), ("0-1499999", location.as_str()));
    let last = format!("{location}?digest={digest}");
    let made =
        client.check("PUT", &last, &[("content-range", "1500000-2499999")], &bytes[1_500_000..], (201, "")).await;
    let path = made.header("location").to_owned();
    assert_eq!(
        (path.as_str(), made.header("docker-content-digest")),
        (&*format!("/v2/team/app/blobs/{digest}"), &*digest.to_string())
    );

    let whole = client.check("GET", &path, &[], b"", (200, "")).await;
    assert!(whole.body == bytes);
    for (name, value) in
        [("content-length", "2500000"), ("accept-ranges", "bytes"), ("content-type", "application/octet-stream")]
    {
        assert_eq!(whole.header(name), value);
    }
    assert_eq!(whole.header("etag"), format!("\"{digest}\""));
    let head = client.check("HEAD", &path, &[], b"", (200, "")).await;
    assert_eq!((head.header("content-length"), head.body.len()), ("2500000", 0));
    let part = client.check("GET", &path, &[("range", "bytes=65000-2000000")], b"", (206, "")).await;
    assert!(part.body == bytes[65_000..=2_000_000]);
    assert_eq!(part.header("content-range"), "bytes 65000-2000000/2500000");
    let none = client.check("GET", &path, &[("range", "bytes=2500000-")], b"", (416, "SIZE_INVALID")).await;
    assert_eq!(none.header("content-range"), "bytes */2500000");
    client.check("GET", &path, &[("if-none-match", whole.header("etag"))], b"", (304, "")).await;
    client.check("GET", &location, &[], b"", (404, "BLOB_UPLOAD_UNKNOWN")).await;
}

#[tokio::test]
async fn a_stream_of_many_chunks_is_stored_as_it_came() {
    let client = client();
    let bytes = content(2_900_000);
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let location = client.start("a").await;
    client.check("PATCH", &location, &[], &bytes, (202, "")).await;
    client.check("PUT", &format!("{location}?digest={digest}"), &[("content-range", "0-0")], b"", (201, "")).await;
    assert!(client.get(&format!("/v2/a/blobs/{digest}")).await.body == bytes);
}

#[tokio::test]
async fn what_came_of_a_broken_body_is_kept_and_the_upload_goes_on() {
    let client = client();
    for len in [5_000, 1_200_000] {
        let bytes = content(len + 10);
        let location = client.start("a").await;
        let broken = client.send("PATCH", &location, &[], breaking(bytes[..len].to_vec())).await;
        assert_eq!(broken.outcome(), (400, "SIZE_INVALID".to_owned()));
        let status = client.get(&location).await;
        assert_eq!(status.header("range"), format!("0-{}", len - 1));
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let last = format!("{location}?digest={digest}");
        let broken = client.send("PUT", &last, &[], breaking(bytes[len..len + 5].to_vec())).await;
        assert_eq!(broken.status, 400);
        client.check("PUT", &last, &[], &bytes[len + 5..], (201, "")).await;
    }
}

#[tokio::test]
async fn lengths_that_disagree_are_refused_and_what_was_announced_is_kept() {
    let client = client();
    let location = client.start("a").await;
    let longer = [("content-range", "0-9")];
    client.check("PATCH", &location, &longer, &[1; 11], (400, "SIZE_INVALID")).await;
    assert_eq!(client.get(&location).await.header("range"), "0-0");
    let answer = client.send("PATCH", &location, &longer, breaking(vec![1; 11])).await;
    assert_eq!(answer.outcome(), (400, "SIZE_INVALID".to_owned()));
    assert_eq!(client.get(&location).await.header("range"), "0-9");
    client.check("PATCH", &location, &[("content-range", "ten")], b"x", (400, "SIZE_INVALID")).await;
    client.check("PATCH", &location, &[], &[1; 3_000_001], (413, "SIZE_INVALID")).await;
    client.check("PATCH", &location, &[], &[1; 2_999_999], (413, "SIZE_INVALID")).await;
}

#[tokio::test]
async fn digests_are_checked_on_every_way_in() {
    let client = client();
    let other = Digest::of(Algorithm::Sha256, b"other");
    let location = client.start("a").await;
    client.check("PUT", &location, &[], b"x", (400, "DIGEST_INVALID")).await;
    client.check("PUT", &format!("{location}?digest=sha256:00"), &[], b"x", (400, "DIGEST_INVALID")).await;
    client.check("PUT", &format!("{location}?digest={other}"), &[], b"x", (400, "DIGEST_INVALID")).await;
    client.check("GET", &location, &[], b"", (404, "BLOB_UPLOAD_UNKNOWN")).await;
    for query in ["digest=md5:00", "mount=x", &format!("digest={other}")] {
        client.check("POST", &format!("/v2/a/blobs/uploads/?{query}"), &[], b"x", (400, "DIGEST_INVALID")).await;
    }
    client.check("PUT", &format!("/v2/a/manifests/{other}"), &[], b"{}", (400, "DIGEST_INVALID")).await;
    client.check("GET", &format!("/v2/a/blobs/{other}"), &[], b"", (404, "BLOB_UNKNOWN")).await;
}

#[tokio::test]
async fn uploads_of_one_request_leave_none_behind() {
    let client = client();
    let other = Digest::of(Algorithm::Sha256, b"other");
    let path = format!("/v2/a/blobs/uploads/?digest={other}");
    for _ in 0..5 {
        client.check("POST", &path, &[], b"x", (400, "DIGEST_INVALID")).await;
        assert_eq!(client.send("POST", &path, &[], breaking(vec![0; 10])).await.status, 400);
        client.check("POST", &path, &[], &[0; 3_000_001], (413, "SIZE_INVALID")).await;
    }
    for _ in 0..3 {
        client.start("a").await;
    }
    let refused = client.check("POST", "/v2/a/blobs/uploads/", &[], b"", (429, "TOOMANYREQUESTS")).await;
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn mounts_need_content_that_is_there() {
    let client = client();
    let digest = client.push("a", b"layer").await;
    for query in [format!("mount={digest}&from=a"), format!("mount={digest}&from="), format!("mount={digest}")] {
        client.check("POST", &format!("/v2/b/blobs/uploads/?{query}"), &[], b"", (201, "")).await;
    }
    assert_eq!(client.get(&format!("/v2/b/blobs/{digest}")).await.body, "layer");
    let other = Digest::of(Algorithm::Sha256, b"other");
    for query in [format!("mount={digest}&from=none"), format!("mount={other}")] {
        client.check("POST", &format!("/v2/c/blobs/uploads/?{query}"), &[], b"", (202, "")).await;
    }
    client
        .check("POST", &format!("/v2/c/blobs/uploads/?mount={digest}&from=..%2Fa"), &[], b"", (400, "NAME_INVALID"))
        .await;
    client.check("GET", &format!("/v2/c/blobs/{digest}"), &[], b"", (404, "BLOB_UNKNOWN")).await;
}

#[tokio::test]
async fn a_manifest_comes_back_as_it_was_pushed_until_it_is_deleted() {
    let client = client();
    let config = client.push("a", b"{}").await;
    let bytes = image(&config, 2);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let typed = [("content-type", MANIFEST_TYPE)];
    let made = client.check("PUT", "/v2/a/manifests/one", &typed, &bytes, (201, "")).await;
    assert_eq!(made.header("location"), format!("/v2/a/manifests/{digest}"));
    client.check("PUT", &format!("/v2/a/manifests/{digest}?tag=two&tag=three"), &typed, &bytes, (201, "")).await;
    for reference in ["one", "two", "three", &digest.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        let found = client.send("GET", &path, &[("accept", "text/plain, */*")], "").await;
        assert_eq!((found.status, found.header("content-type")), (200, MANIFEST_TYPE));
        assert_eq!(found.body, bytes);
        let head = client.send("HEAD", &path, &[], "").await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, &*bytes.len().to_string(), 0));
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
    }
    client.check("DELETE", &format!("/v2/a/blobs/{config}"), &[], b"", (405, "UNSUPPORTED")).await;
    client.check("DELETE", "/v2/a/manifests/two", &[], b"", (202, "")).await;
    client.check("GET", "/v2/a/manifests/two", &[], b"", (404, "MANIFEST_UNKNOWN")).await;
    assert_eq!(client.get("/v2/a/tags/list").await.json(), json!({ "name": "a", "tags": ["one", "three"] }));
    client.check("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"", (202, "")).await;
    client.check("GET", "/v2/a/manifests/one", &[], b"", (404, "MANIFEST_UNKNOWN")).await;
    client.check("DELETE", &format!("/v2/a/blobs/{config}"), &[], b"", (202, "")).await;
}

#[tokio::test]
async fn a_small_manifest_needs_no_thread_that_waits_for_it() {
    let client = client();
    let config = client.push("team/app", b"{}").await;
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (bridge, wait) = (client.app.bridge.clone(), Arc::clone(&wait));
            tokio::spawn(async move {
                bridge.call(move || Ok::<_, RegistryError>(wait.lock().unwrap().recv().is_err())).await.ok()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let put = client.send("PUT", "/v2/team/app/manifests/v1", &[("content-type", MANIFEST_TYPE)], image(&config, 2));
    let put = tokio::time::timeout(Duration::from_secs(20), put).await.expect("all threads are taken");
    assert_eq!(put.status, 201);
    drop(release);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    client.check("GET", "/v2/team/app/manifests/v1", &[], b"", (200, "")).await;
}

#[tokio::test]
async fn manifests_that_are_not_acceptable() {
    let client = client();
    let there = client.push("a", b"{}").await;
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    let large = vec![b' '; 4097];
    let cases: [(&str, &[u8], (u16, &str)); 5] = [
        ("one", b"no json", (400, "MANIFEST_INVALID")),
        ("one", &image(&there, 3), (400, "MANIFEST_INVALID")),
        ("one", &image(&missing, 2), (400, "MANIFEST_BLOB_UNKNOWN")),
        ("one", &large, (413, "SIZE_INVALID")),
        (".one", &image(&there, 2), (400, "NAME_INVALID")),
    ];
    for (reference, bytes, expected) in cases {
        let path = format!("/v2/a/manifests/{reference}");
        client.check("PUT", &path, &[("content-type", MANIFEST_TYPE)], bytes, expected).await;
    }
    assert_eq!(client.send("PUT", "/v2/a/manifests/one", &[], breaking(large)).await.status, 413);
    client.check("GET", "/v2/a/manifests/one", &[], b"", (404, "MANIFEST_UNKNOWN")).await;
    client.check("GET", "/v2/a/manifests/.one", &[], b"", (404, "MANIFEST_UNKNOWN")).await;
}

#[tokio::test]
async fn listings_link_from_page_to_page() {
    let client = client();
    for name in ["b", "a/b", "c/d"] {
        client.push(name, b"{}").await;
    }
    let mut path = "/v2/_catalog?n=2".to_owned();
    let mut pages = Vec::new();
    while !path.is_empty() {
        let answer = client.get(&path).await;
        pages.push(answer.json()["repositories"].clone());
        path = answer.header("link").trim_start_matches('<').split('>').next().unwrap_or_default().to_owned();
    }
    assert_eq!(pages, [json!(["a/b", "b"]), json!(["c/d"])]);
    let none = client.get("/v2/_catalog?n=0").await;
    assert_eq!((none.json(), none.header("link")), (json!({ "repositories": [] }), ""));
    client.check("GET", "/v2/none/tags/list?n=0", &[], b"", (404, "NAME_UNKNOWN")).await;
    client.check("GET", "/v2/b/tags/list?n=-1", &[], b"", (400, "UNSUPPORTED")).await;
}

/// A page of long names has megabytes: clients that did not read theirs could fill the memory.
#[tokio::test]
async fn pages_that_wait_for_their_clients_are_held_in_the_budget() {
    let (app, _disk) = app();
    let page = json!({ "tags": ["a".repeat(1 << 20)] });
    let mut unread: Vec<_> = (0..15).map(|_| listings::listed(&app, &page, None).unwrap()).collect();
    while unread.len() < 17
        && let Ok(answer) = listings::listed(&app, &page, None)
    {
        unread.push(answer);
    }
    assert_eq!(unread.len(), 16);
    assert_eq!(listings::listed(&app, &page, None).unwrap_err().status().as_u16(), 503);
    unread.pop();
    assert!(listings::listed(&app, &page, None).is_ok());
}

#[tokio::test]
async fn what_is_no_route_or_method_is_told_so() {
    let client = client();
    assert_eq!(client.get("/v2/").await.json(), json!({}));
    client.check("GET", "/", &[], b"", (404, "UNSUPPORTED")).await;
    client.check("GET", &format!("/v2/{}", "a".repeat(600)), &[], b"", (414, "UNSUPPORTED")).await;
    let digest = Digest::of(Algorithm::Sha256, b"");
    let cases = [
        ("POST", "/v2/".to_owned(), "GET, HEAD"),
        ("DELETE", "/v2/_catalog".to_owned(), "GET, HEAD"),
        ("POST", "/v2/a/manifests/x".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("PUT", format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("GET", "/v2/a/blobs/uploads/".to_owned(), "POST"),
        ("POST", "/v2/a/blobs/uploads/x".to_owned(), "GET, HEAD, PATCH, PUT, DELETE"),
    ];
    for (method, path, allowed) in cases {
        assert_eq!(
            client.check(method, &path, &[], b"", (405, "UNSUPPORTED")).await.header("allow"),
            allowed,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_full_disk_is_507_and_pulls_go_on() {
    let client = client();
    let digest = client.push("a", b"before").await;
    client.disk.set_capacity(Some(0));
    let bytes = content(1_000_000);
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(Algorithm::Sha256, &bytes));
    client.check("POST", &path, &[], &bytes, (507, "UNKNOWN")).await;
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).await.body, "before");
    client.disk.set_capacity(None);
    client.check("POST", &path, &[], &bytes, (201, "")).await;
}
