//! Stores that earlier versions wrote open for ever: `tests/fixtures/v1` is one of the first format version, and so is
//! `tests/fixtures/v1-snapshots`, whose journal begins where a snapshot stands.
//!
//! A fixture has a journal of several files with every kind of operation and local record (or of fact), shared and single
//! segments, and no index: opening it is a rebuild. Its files are never written again. `dump.txt` follows the text of `dump`.
//!
//! `tell` is the story that was told to the stores. A test tells it to this version as well, so that the story, the
//! checks and the code stay together; with `ORLOP_FIXTURE` set to an empty directory that test leaves there what the
//! fixtures of a new format version consist of.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    codec::Encoder,
    digest::{Algorithm, Digest},
    disk::{Disk, RealDisk},
    index::{
        memory::MemoryIndex,
        schema::{self, INDEX_VERSION, UploadRow, key},
    },
    journal::operation::{ManifestContent, NamedReference, Role, SessionId},
    name::RepositoryName,
    state::request::{PushRequest, Request, Sparse},
    store::{Store, StoreOptions},
};

use super::dump;

/// A store that is kept.
struct Fixture {
    /// Its directory in `tests/fixtures`.
    name: &'static str,
    dump: &'static str,
    /// The rows of its index, all keys and values, as this version builds them. When they change, so must
    /// [`INDEX_VERSION`]: indexes that are there would otherwise be read in the wrong way.
    rows: (u32, &'static str),
    has_snapshots: bool,
}

const FIXTURES: [Fixture; 2] = [
    Fixture {
        name: "v1",
        dump: include_str!("../../../tests/fixtures/v1/dump.txt"),
        rows: (8, "sha256:9de98233ca94d0f291be7070abe33082cc77715695a58743ffb57d3540529503"),
        has_snapshots: false,
    },
    Fixture {
        name: "v1-snapshots",
        dump: include_str!("../../../tests/fixtures/v1-snapshots/dump.txt"),
        rows: (8, "sha256:7aed6147093ebe49b5410cec6bb3ad796e6537d41b7868f376d193d625abd2df"),
        has_snapshots: true,
    },
];

const APP: &str = "team/app";
const TOOLS: &str = "team/tools";
const SOLO: &str = "solo";
const FINISHED: SessionId = [1; 16];
const UNFINISHED: SessionId = [2; 16];
const CANCELLED: SessionId = [3; 16];
const WINDOW_MS: u64 = 14 * 24 * 60 * 60 * 1_000;

/// Bounds so low that a few kilobytes fill several files of each kind.
fn options() -> StoreOptions {
    StoreOptions {
        large_blob_bytes: 3_000,
        shared_segment_bytes_max: 3_000,
        journal_file_bytes_max: 2_048,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn open(directory: &Path) -> Store {
    let disk = RealDisk::new(directory).unwrap();
    Store::open_on(Arc::new(disk), options(), &|_| Ok(Box::new(MemoryIndex::new()))).unwrap()
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// Content that every version makes alike.
fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|at| (at * at + 7 * at + 31 * seed) as u8).collect()
}

fn layer() -> Vec<u8> {
    pattern(1, 900)
}
fn long_digest() -> Vec<u8> {
    pattern(2, 700)
}
fn large() -> Vec<u8> {
    pattern(3, 3_500)
}
fn resumed() -> Vec<u8> {
    pattern(4, 3_400)
}
fn unfinished() -> Vec<u8> {
    pattern(5, 3_200)
}
fn unlinked() -> Vec<u8> {
    pattern(6, 1_200)
}
const CONFIG: &[u8] = b"{}";

/// A manifest: its bytes, and what they say.
pub(super) struct Document {
    digest: Digest,
    bytes: Vec<u8>,
    content: ManifestContent,
}

/// What a manifest names: role, media type, digest, size.
type Named<'a> = (Role, &'a str, Digest, u64);

fn named<'a>(role: Role, media_type: &'a str, algorithm: Algorithm, content: &[u8]) -> Named<'a> {
    (role, media_type, Digest::of(algorithm, content), content.len() as u64)
}

fn document(algorithm: Algorithm, media_type: &str, all: &[Named<'_>], subject: Option<&Document>) -> Document {
    let descriptor = |&(_, media_type, digest, size): &Named<'_>| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let part = |is_wanted: fn(Role) -> bool| -> Vec<String> {
        all.iter().filter(|(role, ..)| is_wanted(*role)).map(descriptor).collect()
    };
    let config = part(|role| role == Role::Config);
    let rest = part(|role| role != Role::Config).join(",");
    let fields = match config.first() {
        Some(config) => format!(r#""config":{config},"layers":[{rest}]"#),
        None => format!(r#""manifests":[{rest}]"#),
    };
    let artifact_type = subject.map(|_| "application/vnd.example.signature".to_owned());
    let extra = subject.map_or_else(String::new, |subject| {
        let descriptor = descriptor(&(Role::Child, &subject.content.media_type, subject.digest, subject.content.size));
        format!(r#","artifactType":"application/vnd.example.signature","subject":{descriptor}"#)
    });
    let bytes = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}",{fields}{extra}}}"#).into_bytes();
    let config_type = all.iter().find(|(role, ..)| *role == Role::Config).map(|(_, media_type, ..)| *media_type);
    let references = all.iter().map(|&(role, _, digest, size)| NamedReference { role, digest, size }).collect();
    let content = ManifestContent {
        size: bytes.len() as u64,
        media_type: media_type.to_owned(),
        artifact_type: artifact_type.or_else(|| config_type.map(str::to_owned)),
        subject: subject.map(|subject| subject.digest),
        references,
    };
    Document { digest: Digest::of(algorithm, &bytes), bytes, content }
}

/// The manifests of the story: an image, one of Docker's under a long digest and with a layer that is not there, an
/// index of an image and a build cache, a signature.
pub(super) fn documents() -> [Document; 4] {
    use Algorithm::{Sha256, Sha512};
    let config = named(Role::Config, "application/vnd.oci.image.config.v1+json", Sha256, CONFIG);
    let oci_layer = "application/vnd.oci.image.layer.v1.tar";
    let oci_image = "application/vnd.oci.image.manifest.v1+json";
    let docker_image = "application/vnd.docker.distribution.manifest.v2+json";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let layers = [layer(), large()].map(|content| named(Role::Layer, oci_layer, Sha256, &content));
    let image = document(Sha256, oci_image, &[config, layers[0], layers[1]], None);
    let docker = document(
        Sha512,
        docker_image,
        &[
            named(Role::Config, "application/vnd.docker.container.image.v1+json", Sha256, CONFIG),
            named(Role::Layer, "application/vnd.docker.image.rootfs.diff.tar.gzip", Sha512, &long_digest()),
            named(Role::ForeignLayer, foreign, Sha256, b"not pushed"),
        ],
        None,
    );
    let child = (Role::Child, oci_image, image.digest, image.content.size);
    let cache = named(Role::IndexedBlob, "application/vnd.buildkit.cacheconfig.v0", Sha256, &resumed());
    let index = document(Sha256, "application/vnd.oci.image.index.v1+json", &[child, cache], None);
    let signature = document(Sha256, oci_image, &[config, named(Role::Layer, "text/plain", Sha256, b"")], Some(&image));
    [image, docker, index, signature]
}

pub(super) fn push(store: &Store, document: &Document, tags: &[&str]) {
    let request = |content| {
        Request::Push(Box::new(PushRequest {
            repository: name(APP),
            content,
            manifest: document.content.clone(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            sparse: Sparse::Off,
            window_ms: WINDOW_MS,
        }))
    };
    store.commit_manifest(document.digest, document.bytes.clone().into(), request).unwrap();
}

pub(super) fn tell_uploads(store: &Store) {
    for content in [CONFIG, b"", &layer(), &large(), &unlinked()] {
        store.put(&name(APP), Algorithm::Sha256, content).unwrap();
    }
    store.put(&name(APP), Algorithm::Sha512, &long_digest()).unwrap();
    store.put(&name(SOLO), Algorithm::Sha256, &layer()).unwrap();
    let sessions = [(FINISHED, resumed()), (UNFINISHED, unfinished()), (CANCELLED, unfinished())];
    for (session, content) in sessions {
        let repository = name(APP);
        let mut upload = store.upload();
        upload.write(&content).unwrap();
        let (segment, bytes) = (upload.sync().unwrap().unwrap(), upload.len());
        store.commit(Request::MarkUpload { session, repository: repository.clone(), segment, bytes }).unwrap();
        if session == FINISHED {
            let digest = Digest::of(Algorithm::Sha256, &content);
            store.finish_upload(upload, &repository, digest, Some(session), None).unwrap();
        } else if session == CANCELLED {
            store.commit(Request::EndUpload { session }).unwrap();
            upload.discard();
        }
    }
}

/// Tells the story, with a snapshot after each part but the last.
fn tell(store: &Store, with_snapshots: bool) {
    let pause = || {
        if with_snapshots {
            store.write_snapshot().unwrap().unwrap();
        }
    };
    tell_uploads(store);
    pause();
    tell_pushes(store);
    pause();
    tell_ends(store);
}

fn tell_pushes(store: &Store) {
    let digest = Digest::of(Algorithm::Sha256, &layer());
    let grace_ms = store.options().grace_ms;
    store.commit(Request::Mount { repository: name(TOOLS), digest, from: name(APP), grace_ms }).unwrap();
    let [image, docker, index, signature] = &documents();
    push(store, image, &["latest", "1.0"]);
    push(store, docker, &[]);
    push(store, index, &["multi"]);
    push(store, signature, &[]);
    push(store, docker, &["latest", "docker"]);
    let (repository, window_ms) = (name(APP), WINDOW_MS);
    store.commit(Request::Untag { repository, tag: "1.0".parse().unwrap(), window_ms }).unwrap();
    store.commit(Request::Delete { repository: name(APP), digest: index.digest, after: None, window_ms }).unwrap();
}

fn tell_ends(store: &Store) {
    let digest = Digest::of(Algorithm::Sha256, &unlinked());
    store.commit(Request::Unlink { repository: name(APP), digest }).unwrap();
}

/// Every content of the story reads back, the unfinished upload goes on, and the store takes more.
fn check(store: &Store) {
    assert!(store.content(&Digest::of(Algorithm::Sha256, &unlinked())).unwrap().is_none(), "nothing links it");
    let mut contents = [CONFIG.to_vec(), Vec::new(), layer(), large(), resumed()]
        .map(|content| (Digest::of(Algorithm::Sha256, &content), content))
        .to_vec();
    contents.push((Digest::of(Algorithm::Sha512, &long_digest()), long_digest()));
    contents.extend(documents().map(|document| (document.digest, document.bytes)));
    for (digest, content) in contents {
        let stored = store.content(&digest).unwrap().unwrap_or_else(|| panic!("{digest} is gone"));
        assert_eq!(stored.read_all().unwrap(), content, "{digest}");
    }
    let row: UploadRow = schema::expect(&*store.snapshot(), key::upload(&UNFINISHED)).unwrap();
    let mut upload = store.resume_upload(row.segment, row.bytes).unwrap();
    upload.write(b"the rest").unwrap();
    let whole = [unfinished(), b"the rest".to_vec()].concat();
    let digest = Digest::of(Algorithm::Sha256, &whole);
    store.finish_upload(upload, &row.repository, digest, Some(UNFINISHED), None).unwrap();
    assert_eq!(store.content(&digest).unwrap().unwrap().read_all().unwrap(), whole);
}

fn text(store: &Store) -> String {
    dump(store).into_iter().map(|line| line + "\n").collect()
}

/// A digest over all rows.
fn rows(store: &Store) -> String {
    let mut bytes = Encoder::new();
    for (key, value) in store.snapshot().scan(&[], &[u8::MAX], usize::MAX).unwrap() {
        bytes.bytes(&key).bytes(&value);
    }
    Digest::of(Algorithm::Sha256, &bytes.finish()).to_string()
}

fn copy(from: &RealDisk, to: &RealDisk, directory: &str) {
    for entry in from.list(directory).unwrap() {
        let path = if directory.is_empty() { entry.name } else { format!("{directory}/{}", entry.name) };
        if entry.is_dir {
            to.create_dir(&path).unwrap();
            copy(from, to, &path);
        } else {
            let mut bytes = vec![0; entry.len as usize];
            from.open(&path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
            to.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
        }
    }
}

#[test]
fn stores_of_version_1_open_with_the_same_rows_and_contents() {
    for fixture in FIXTURES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture.name).join("store");
        let directory = tempfile::tempdir().unwrap();
        copy(&RealDisk::new(path).unwrap(), &RealDisk::new(directory.path()).unwrap(), "");
        let store = open(directory.path());
        assert_eq!((store.recovery().created, store.recovery().snapshot.is_some()), (false, fixture.has_snapshots));
        assert_eq!(text(&store), fixture.dump);
        assert_eq!((INDEX_VERSION, rows(&store).as_str()), fixture.rows, "{}", fixture.name);
        check(&store);
        store.close().unwrap();
        // What this version has added to the old files is there with them.
        let store = open(directory.path());
        store.put(&name(SOLO), Algorithm::Sha256, b"more").unwrap();
        assert!(schema::get::<UploadRow>(&*store.snapshot(), key::upload(&UNFINISHED)).unwrap().is_none());
    }
}

#[test]
fn the_story_of_the_fixtures_comes_back_from_the_files_of_this_version() {
    for fixture in FIXTURES {
        let temporary = tempfile::tempdir().unwrap();
        let directory = std::env::var_os("ORLOP_FIXTURE").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
        let directory = directory.join(fixture.name);
        let disk = RealDisk::new(&directory).unwrap();
        let store = open(&directory.join("store"));
        tell(&store, fixture.has_snapshots);
        let told = text(&store);
        disk.create("dump.txt").unwrap().write_all_at(told.as_bytes(), 0).unwrap();
        store.close().unwrap();
        // One process at a time holds this file; it belongs to no copy.
        disk.remove("store/lock").unwrap();

        let copied = tempfile::tempdir().unwrap();
        copy(&RealDisk::new(directory.join("store")).unwrap(), &RealDisk::new(copied.path()).unwrap(), "");
        let store = open(copied.path());
        assert_eq!(store.recovery().snapshot.is_some(), fixture.has_snapshots);
        assert_eq!(text(&store), told);
        check(&store);
    }
}
