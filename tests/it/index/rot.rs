//! A store whose index is deleted, put back from earlier, or damaged, while it is closed or open: nothing wrong is served,
//! what is damaged is named by a verification and by the scrub, and the index comes back row for row, with the same state
//! hash worked out from scratch.
//!
//! `ORLOP_TEST_ROUNDS` tries as many, `ORLOP_TEST_SEED` begins with another seed.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use orlop::{
    Algorithm, Digest, RepositoryName,
    collect::{CollectOptions, Collector, Scrubbed},
    name::Owner,
    registry::{Reference, Registry, RegistryOptions, Sparse},
    store::{Opening, Recovery, Store, StoreError, StoreOptions},
    verify::{self, FindingKind, VerifyOptions, VerifyReport},
};
use serde_json::{Value, json};

/// Images of each part of the history; a stale index has seen two of three.
const IMAGES: u64 = 12;
const PARTS: u64 = 3;
const DEFAULT_ROUNDS: u64 = 30;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What was pushed and must be readable, and the rows and state hash of it all.
struct Filled {
    contents: Vec<Vec<u8>>,
    rows: Vec<String>,
    state_hash: Option<String>,
}

fn options() -> StoreOptions {
    StoreOptions {
        reserve_bytes: 0,
        index_memtable_bytes: 8 << 20,
        snapshot_bytes_min: 4 << 10,
        ..StoreOptions::default()
    }
}

fn open_registry(store: Store) -> Arc<Registry> {
    let options = RegistryOptions {
        manifest_bytes_max: 100_000,
        references_max: 100,
        json_depth_max: 16,
        uploads_max: 3,
        sparse: Sparse::Off,
    };
    Arc::new(Registry::new(Arc::new(store), options).unwrap())
}

fn close(registry: Arc<Registry>) {
    let store = Arc::clone(registry.store());
    drop(registry);
    Arc::into_inner(store).expect("nobody else has it").close().unwrap();
}

fn noise(n: u64, len: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n);
    (0..len).map(|_| random.u8(..)).collect()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(Algorithm::Sha256, bytes).to_string(), "size": bytes.len() })
}

/// Pushes one part of the history: images of shared and own layers, an index over the last two, a signature that refers
/// to one; deletes a manifest by its digest, puts back what another tag had, sets a quota.
struct Filling<'a> {
    registry: &'a Registry,
    contents: &'a mut Vec<Vec<u8>>,
}

impl Filling<'_> {
    fn blob(&mut self, repository: &RepositoryName, bytes: Vec<u8>) -> Value {
        self.registry.store().put(repository, Algorithm::Sha256, &bytes).unwrap();
        let told = descriptor("application/octet-stream", &bytes);
        self.contents.push(bytes);
        told
    }

    fn manifest(&mut self, repository: &RepositoryName, tag: Option<&str>, manifest: &Value) -> Vec<u8> {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let tags: Vec<_> = tag.iter().map(|tag| tag.parse().unwrap()).collect();
        let expected = tags.is_empty().then(|| Digest::of(Algorithm::Sha256, &bytes));
        self.registry.put_manifest(repository, expected, &tags, None, &bytes.clone().into()).unwrap();
        self.contents.push(bytes.clone());
        bytes
    }

    fn image(&mut self, repository: &RepositoryName, tag: Option<&str>, n: u64, subject: Option<&[u8]>) -> Vec<u8> {
        let config = self.blob(repository, noise(n, 200 + 37 * n));
        let layers =
            vec![self.blob(repository, noise(1_000 + n % 5, 3_000)), self.blob(repository, noise(2_000 + n, 900))];
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers, "annotations": { "n": n.to_string() } });
        if let Some(subject) = subject {
            manifest["subject"] = descriptor(IMAGE, subject);
        }
        self.manifest(repository, tag, &manifest)
    }

    fn part(&mut self, part: u64) {
        let repositories: Vec<RepositoryName> =
            (0..5).map(|n| format!("team{}/app{n}", n % 2).parse().unwrap()).collect();
        for n in part * IMAGES..(part + 1) * IMAGES {
            let repository = &repositories[n as usize % 5];
            let first = self.image(repository, Some(&format!("v{}", n % 7)), 3 * n, None);
            let second = self.image(repository, None, 3 * n + 1, None);
            if n % 3 == 0 {
                let manifests: Vec<_> = [&first, &second].iter().map(|bytes| descriptor(IMAGE, bytes)).collect();
                let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
                self.manifest(repository, Some("all"), &index);
            }
            self.image(repository, None, 3 * n + 2, Some(&first));
            let (digest, tag) = (Digest::of(Algorithm::Sha256, &first), "back".parse().unwrap());
            if n % 4 == 1 {
                self.registry.delete_manifest(repository, &Reference::Digest(digest)).unwrap();
            }
            if n % 8 == 5 {
                self.registry.restore(repository, &digest, Some(&tag)).unwrap();
            }
        }
        self.registry
            .set_quota(&Owner::Repository(repositories[part as usize].clone()), Some(1 << (30 + part)))
            .unwrap();
        self.registry.set_quota(&Owner::Repository(repositories[0].clone()), None).unwrap();
    }
}

/// A closed store with files of several flushes, and a copy of its index from the middle.
fn filled(directory: &Path) -> Filled {
    let mut contents = Vec::new();
    for part in 0..PARTS {
        let registry = open_registry(Store::open(directory.join("data"), options()).unwrap());
        Filling { registry: &registry, contents: &mut contents }.part(part);
        assert_eq!(verified(registry.store()).findings, []);
        close(registry);
        if part == 1 {
            copy(&directory.join("data/index"), &directory.join("stale"));
        }
    }
    let store = Store::open(directory.join("data"), options()).unwrap();
    let rows = dump(&store).unwrap();
    for table in ["manifests", "referrers", "history", "quotas", "parents", "counts"] {
        assert!(rows.iter().any(|row| row.starts_with(&format!("{table} "))), "no row of {table}");
    }
    let state_hash = verified(&store).state_hash;
    assert!(state_hash.is_some());
    store.close().unwrap();
    Filled { contents, rows, state_hash }
}

fn verified(store: &Store) -> VerifyReport {
    let options =
        VerifyOptions { content: false, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
    verify::verify(store, &options, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn dump(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut rows = Vec::new();
    store.dump(&mut |row| rows.push(row.to_owned()))?;
    Ok(rows)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes a place of some file; its name, and what was done.
fn flip(index: &Path, random: &mut fastrand::Rng) -> (String, String) {
    let files = fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
    files.sort();
    let path = random.choice(&files).unwrap().clone();
    let mut bytes = fs::read(&path).unwrap();
    let at = random.usize(..bytes.len());
    let name = path.file_name().unwrap().display().to_string();
    let done = match random.u8(..8) {
        0 => {
            bytes.truncate(at);
            format!("{name}: cut at {at}")
        }
        1 => {
            let end = (at / 512 * 512 + 512).min(bytes.len());
            bytes[at / 512 * 512..end].fill(0);
            format!("{name}: zeros at {at}")
        }
        _ => {
            bytes[at] ^= 1 << random.u8(..8);
            format!("{name}: a bit at {at}")
        }
    };
    // In place, as rot is: an open file sees it.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    (name, done)
}

/// All content is what was pushed, or told to be unreadable; whether all could be read.
fn check_content(store: &Store, filled: &Filled, what: &str) -> bool {
    let mut whole = true;
    for (n, bytes) in filled.contents.iter().enumerate() {
        match store.content(&Digest::of(Algorithm::Sha256, bytes)) {
            Ok(Some(found)) => assert_eq!(found.read_all().unwrap(), *bytes, "{what}: {n}"),
            Ok(None) => panic!("{what}: {n} is told to be absent"),
            Err(StoreError::Corrupt(_)) => whole = false,
            Err(error) => panic!("{what}: {n}: {error}"),
        }
    }
    whole
}

/// The same rows, the same content, and the same hash of the facts worked out anew.
fn check_same(store: &Store, filled: &Filled, what: &str) {
    assert!(check_content(store, filled, what));
    let report = verified(store);
    assert_eq!((report.findings, report.state_hash), (Vec::new(), filled.state_hash.clone()), "{what}");
}

/// A verification and the scrub name the file that was changed, where a check of all files meets the damage at all.
/// Whether it does.
fn check_named(store: Store, changed: &str, what: &str) -> bool {
    let is_damaged = store.check_index(&mut |_| true).is_err();
    let is_table = changed.ends_with(".sst");
    let options =
        VerifyOptions { content: false, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
    let report =
        verify::verify(&store, &options, &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string());
    let report = report.unwrap_or_else(|error| panic!("{what}: {error}"));
    let named = |file: Option<&str>| match is_table {
        true => file == Some(&format!("index/{changed}")),
        false => file.is_some_and(|file| file.starts_with("index")),
    };
    let found: Vec<_> = report.findings.iter().filter(|it| it.kind == FindingKind::Index).collect();
    let expected = usize::from(is_damaged);
    assert!(found.len() == expected && found.iter().all(|it| named(it.file.as_deref())), "{what}: {report:#?}");
    let registry = open_registry(store);
    let collector = Collector::new(Arc::clone(&registry), CollectOptions::default()).unwrap();
    // What lies behind the damage may not be listed.
    let _ = collector.scrub();
    let findings = collector.scrub_status().map(|status| status.findings).unwrap_or_default();
    let found: Vec<_> = findings.iter().filter(|it| it.kind == Scrubbed::Index).collect();
    assert!(found.len() == expected && found.iter().all(|it| named(it.file.as_deref())), "{what}: {findings:#?}");
    is_damaged
}

/// What rebuilds have done in all.
#[derive(Default)]
struct Rebuilds {
    count: u64,
    bytes: u64,
    operations: u64,
    took: Duration,
}

impl Rebuilds {
    fn add(&mut self, data: &Path, recovery: &Recovery) {
        // A deleted index is no more than one that stands at the beginning.
        if recovery.rebuilt.is_some() || recovery.loaded_facts > 0 {
            let snapshot = recovery.snapshot.iter().map(|path| fs::metadata(data.join(path)).unwrap().len());
            self.count += 1;
            self.bytes += recovery.replayed_bytes + snapshot.sum::<u64>();
            self.operations += recovery.replayed_records + recovery.loaded_facts;
            self.took += recovery.duration;
        }
    }
}

#[test]
fn an_index_that_is_deleted_stale_or_damaged_comes_back_row_for_row() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let rounds = number("ORLOP_TEST_ROUNDS").unwrap_or(DEFAULT_ROUNDS);
    println!("{rounds} rounds from seed {first}");
    let directory = tempfile::tempdir().unwrap();
    let filled = filled(directory.path());
    let (mut outcomes, mut rebuilds) = (BTreeMap::new(), Rebuilds::default());
    for seed in first..first + rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let data = directory.path().join("damaged");
        copy(&directory.path().join("data"), &data);
        let index = data.join("index");
        let open = (random.u8(..3) == 0).then(|| Store::open(&data, options()).unwrap());
        let (changed, done) = match random.u8(..6) {
            0 if open.is_none() => {
                fs::remove_dir_all(&index).unwrap();
                (None, "deleted".to_owned())
            }
            1 if open.is_none() => {
                fs::remove_dir_all(&index).unwrap();
                copy(&directory.path().join("stale"), &index);
                (None, "stale".to_owned())
            }
            _ => {
                let (name, done) = flip(&index, &mut random);
                (Some(name), done)
            }
        };
        let what = format!("seed {seed}, open {}, {done}", open.is_some());
        let trial = Trial { data: &data, filled: &filled, changed: changed.as_deref(), what: &what };
        let outcome = trial.check(open, &mut rebuilds);
        *outcomes.entry(outcome).or_insert(0) += 1;
        fs::remove_dir_all(&data).unwrap();
    }
    println!("{outcomes:?}");
    let seconds = rebuilds.took.as_secs_f64().max(1e-9);
    println!(
        "{} rebuilds of {} operations and facts in {seconds:.2} s: {:.1} MB/s of snapshots and journal, {:.0} operations/s",
        rebuilds.count,
        rebuilds.operations,
        rebuilds.bytes as f64 / 1e6 / seconds,
        rebuilds.operations as f64 / seconds
    );
}

struct Trial<'a> {
    data: &'a Path,
    filled: &'a Filled,
    changed: Option<&'a str>,
    what: &'a str,
}

impl Trial<'_> {
    fn check(&self, open: Option<Store>, rebuilds: &mut Rebuilds) -> &'static str {
        let Self { data, filled, changed, what } = *self;
        if let Some(store) = open {
            let whole = check_content(&store, filled, what);
            let is_named = check_named(store, changed.unwrap_or_default(), what);
            assert!(whole || is_named, "{what}: reads fail, and the check of all files found nothing");
        }
        let store = Store::open(data, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        rebuilds.add(data, store.recovery());
        let rebuilt = store.recovery().rebuilt.is_some();
        match dump(&store) {
            Ok(found) => {
                assert_eq!(found, filled.rows, "{what}");
                check_same(&store, filled, what);
                if rebuilt { "rebuilt at the start" } else { "no effect" }
            }
            Err(StoreError::Corrupt(_)) => {
                check_content(&store, filled, what);
                assert!(check_named(store, changed.unwrap_or_default(), what), "{what}: nothing was found");
                let store = Store::open_as(data, options(), Opening::RebuildIndex).unwrap();
                rebuilds.add(data, store.recovery());
                assert_eq!(dump(&store).unwrap(), filled.rows, "{what}, rebuilt");
                check_same(&store, filled, what);
                "rebuilt on demand"
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}
