//! What must hold for what clients send, whatever it is. For fuzzers and tests only.
//!
//! - `texts`: paths, queries and headers by themselves, against what they have to mean.
//! - `requests`: whole requests over a registry in memory: each gets an answer, and none the blame of the server.

use std::{cell::RefCell, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Request, header},
};
use http_body_util::BodyExt;
use percent_encoding::utf8_percent_encode;

use super::{
    App, Limits, Route,
    accept::Accept,
    api,
    listings::{self, Paging},
    namespace, path,
    query::Query,
    range::{self, Wanted},
    server::{Asked, Service},
};
use crate::{
    collect::{CollectOptions, Collector},
    digest::Algorithm,
    disk::sim::SimDisk,
    doctor::Host,
    index::memory::MemoryIndex,
    registry::{Registry, RegistryOptions, Sparse, manifest::MEDIA_TYPES},
    store::{Store, StoreOptions},
};

/// A `Range` against content of some length, and a `Content-Range`.
pub(crate) fn ranges(input: &[u8]) {
    let (&len, text) = input.split_first().unwrap_or((&0, &[]));
    let len = if len == u8::MAX { u64::MAX } else { u64::from(len) };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Wanted::Parts(parts) = range::wanted(text, len) {
        assert!(!parts.is_empty() && parts.iter().all(|part| part.start < part.end && part.end <= len));
        let apart = |a: &std::ops::Range<u64>, b: &std::ops::Range<u64>| a.end < b.start || b.end < a.start;
        assert!((0..parts.len()).all(|a| (0..a).all(|b| apart(&parts[a], &parts[b]))));
    }
    if let Some(chunk) = range::chunk(text) {
        assert!(chunk.len > 0);
        let last = chunk.begins.checked_add(chunk.len - 1);
        assert_eq!(last.and_then(|last| range::chunk(&format!("{}-{last}", chunk.begins))), Some(chunk));
    }
}

/// A path, a query and `Accept`, each of them the whole input.
pub(crate) fn texts(input: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(input) {
        let headers = HeaderMap::from_iter([(header::ACCEPT, value)]);
        let accept = Accept::parse(&headers);
        let _ = MEDIA_TYPES.iter().any(|media_type| accept.takes(media_type));
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(route) = path::parse(text) {
        assert_eq!(path::parse(&written(&route)).ok(), Some(route));
    }
    let _ = namespace(Some(text));
    if let Ok(query) = Query::parse(Some(text)) {
        let encoded = |text: &str| utf8_percent_encode(text, listings::ENCODED).to_string();
        let pairs = query.keys().zip(query.keys().map(|key| query.get(key).unwrap_or_default()));
        for (key, value) in pairs {
            let again = Query::parse(Some(&format!("{}={}", encoded(key), encoded(value))));
            assert_eq!(again.ok().as_ref().and_then(|again| again.get(key)), Some(value));
        }
    }
    if let Ok(paging) = Paging::parse(Some(text)) {
        assert!(paging.limit <= 10_000);
    }
    api::fuzzing::parameters(text);
}

/// The path of a route, in the one way in which each is written.
fn written(route: &Route) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, listings::ENCODED).to_string();
    match route {
        Route::Base => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Tags { repository } => format!("/v2/{repository}/tags/list"),
        Route::Manifest { repository, reference } => format!("/v2/{repository}/manifests/{}", encoded(reference)),
        Route::Referrers { repository, subject } => format!("/v2/{repository}/referrers/{subject}"),
        Route::Blob { repository, digest } => format!("/v2/{repository}/blobs/{digest}"),
        Route::Uploads { repository } => format!("/v2/{repository}/blobs/uploads/"),
        Route::Upload { repository, id } => format!("/v2/{repository}/blobs/uploads/{}", encoded(id)),
    }
}

/// A registry with some content, and who asks it.
struct World {
    runtime: tokio::runtime::Runtime,
    app: Arc<App>,
    registry: Arc<Registry>,
    requests: u32,
    names: [(&'static str, String); 2],
}

/// Requests to one registry. What they push stays, so it is begun anew now and then.
const REQUESTS_MAX: u32 = 2_000;

thread_local!(static WORLD: RefCell<Option<World>> = const { RefCell::new(None) });

/// A request: method and target, headers line by line, an empty line, the body. `{blob}`, `{manifest}` and `{upload}` stand
/// for what is there. The answer is no 500, and comes to its end.
pub(crate) fn request(input: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_some_and(|world| world.requests >= REQUESTS_MAX) {
            world.take();
        }
        if world.is_none() {
            *world = World::new();
        }
        if let Some(world) = world {
            world.requests += 1;
            world.ask(input);
        }
    });
}

impl World {
    fn new() -> Option<Self> {
        let options = StoreOptions { large_blob_bytes: 2_000, reserve_bytes: 0, ..StoreOptions::default() };
        let index = |_| Ok(Box::new(MemoryIndex::new()) as Box<dyn crate::index::Index>);
        let store = Store::open_on(Arc::new(SimDisk::new()), options, &index).ok()?;
        let options = RegistryOptions {
            manifest_bytes_max: 4_096,
            references_max: 8,
            json_depth_max: 16,
            uploads_max: 100_000,
            sparse: Sparse::Off,
        };
        let registry = Arc::new(Registry::new(Arc::new(store), options).ok()?);
        let collector = Collector::new(Arc::clone(&registry), CollectOptions::default()).ok()?;
        let name = "a/b".parse().ok()?;
        let blob = registry.store().put(&name, Algorithm::Sha256, &[7; 100]).ok()?;
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"c/c","digest":"{blob}","size":100}},"layers":[]}}"#);
        let tag = "latest".parse().ok()?;
        let manifest = registry.put_manifest(&name, None, &[tag], None, &manifest.into()).ok()?.digest;
        let limits = Limits {
            uri_bytes_max: 2_000,
            request_timeout: Duration::from_secs(60),
            blob_bytes_max: 10_000,
            body_memory_bytes: 16 << 20,
            blocking_threads: 2,
            blocking_queue: 64,
            verify_memory_bytes: 1 << 30,
            verify_bytes_per_second: 1 << 30,
            verify_opening: false,
            api_hosts: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        let pool = runtime.handle().clone();
        let app = App::new(Arc::clone(&registry), collector, Host::default(), limits, pool);
        let names = [("{blob}", blob.to_string()), ("{manifest}", manifest.to_string())];
        Some(Self { runtime, app: Arc::new(app), registry, requests: 0, names })
    }

    fn ask(&self, input: &[u8]) {
        let end = input.windows(2).position(|two| two == b"\n\n");
        let (head, body) = end.map_or((input, &[][..]), |end| (&input[..end], &input[end + 2..]));
        let Ok(head) = std::str::from_utf8(head) else { return };
        let head = self.filled_in(head);
        let body = std::str::from_utf8(body).map_or_else(|_| body.to_vec(), |text| self.filled_in(text).into_bytes());
        let mut lines = head.lines();
        let Some((method, target)) = lines.next().and_then(|line| line.split_once(' ')) else { return };
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            request = request.header(name, value.trim());
        }
        let Ok(request) = request.body(Body::from(body)) else { return };
        let shown = format!("{method} {target}");
        self.runtime.block_on(async {
            let response = self.app.clone().answer(request, Asked::default()).await;
            let status = response.status();
            assert!(status.as_u16() != 500, "{shown}: {status}");
            let whole = response.into_body().collect().await;
            assert!(whole.is_ok(), "{shown}: {status} breaks off");
        });
    }

    fn filled_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replacen(name, value, 4);
        }
        if text.contains("{upload}")
            && let Ok(name) = "a/b".parse()
            && let Ok(upload) = self.registry.start_upload(&name, Algorithm::Sha256)
        {
            text = text.replacen("{upload}", &upload, 1);
        }
        text
    }
}

/// Headers as clients write them.
pub(crate) fn range_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "bytes=0-9",
        "bytes=2-4,7-,-3",
        "bytes=0-99999999999999999999999",
        "bytes=4-2",
        "bytes=-0",
        "10-19",
        "bytes 10-19/*",
        "bytes 10-19/200",
        "0-18446744073709551615",
        "Bytes= 2-4 , 1-1,,3-3",
    ];
    texts.iter().flat_map(|text| [0, 10, u8::MAX].map(|len| [&[len], text.as_bytes()].concat())).collect()
}

/// Paths, queries and lists of types as clients write them.
pub(crate) fn text_seeds() -> Vec<Vec<u8>> {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let texts = [
        "/v2/",
        "/v2/_catalog",
        "/v2/a/b/tags/list",
        "/v2/a/manifests/latest",
        "/v2/te%61m/app/blobs/uploads/x-1",
        "/v2/a%2fb/manifests/x",
        "n=5&last=a%2Fb",
        "digest=sha256%3Aab&mount=&tag=a+b&tag=b%2526&x&&n=1=2",
        "own=true&repository=a/b&organization=_&n=1000",
        "application/vnd.oci.image.index.v1+json;q=0.1, */*;q=0",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.extend(["blobs", "referrers", "manifests"].map(|kind| format!("/v2/a/{kind}/{digest}").into_bytes()));
    seeds
}

/// A request of each route and method.
pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<String> = [
        "GET /v2/", "GET /v2/_catalog?n=1&last=a", "GET /v2/a/b/tags/list", "GET /v2/a/b/manifests/latest\naccept: */*",
        "HEAD /v2/a/b/manifests/{manifest}", "DELETE /v2/a/b/manifests/latest", "GET /v2/a/b/referrers/{manifest}?artifactType=x",
        "GET /v2/a/b/blobs/{blob}\nrange: bytes=1-2,5-", "HEAD /v2/a/b/blobs/{blob}", "DELETE /v2/a/b/blobs/{blob}",
        "POST /v2/c/blobs/uploads/?mount={blob}&from=a/b", "POST /v2/a/b/blobs/uploads/?digest={blob}\n\nx",
        "PATCH /v2/a/b/blobs/uploads/{upload}\ncontent-range: 0-2\ncontent-length: 3\n\nabc",
        "PUT /v2/a/b/blobs/uploads/{upload}?digest=sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\n\nfoo",
        "GET /v2/a/b/blobs/uploads/{upload}", "DELETE /v2/a/b/blobs/uploads/{upload}",
        "PUT /v2/a/b/manifests/1?tag=x&tag=y\ncontent-type: application/vnd.oci.image.manifest.v1+json\n\n{\"schemaVersion\":2,\"config\":{\"mediaType\":\"c/c\",\"digest\":\"{blob}\",\"size\":100},\"layers\":[]}",
    ].map(str::to_owned).into();
    seeds.extend(api::fuzzing::requests());
    seeds.into_iter().map(String::into_bytes).collect()
}
