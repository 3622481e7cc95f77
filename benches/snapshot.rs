//! What a snapshot of the journal costs: writing one from the index, reading it again, loading it into an empty index.
//!
//! `cargo bench --bench snapshot [-- BLOBS [DIR]]`, 100,000 blobs unless told, and a tenth as many manifests that name ten
//! each, with a tag and two entries of its history. Prints; asserts only that what was loaded is what was written. The
//! thread of a store rests after each page as long as the page took, so it takes twice as long.

use std::{error::Error, fs, path::PathBuf, time::Instant};

use orlop::{
    Algorithm, Digest,
    disk::{Disk, RealDisk},
    index::{
        Index, View,
        rocks::{RocksIndex, RocksOptions},
    },
    journal::{
        Chain, DIRECTORY, JournalError, Mark, Position,
        fact::Fact,
        operation::{NamedReference, Role},
        snapshot::{Part, SnapshotFile, SnapshotHeader, SnapshotReader, SnapshotWriter},
    },
    location::{Location, RecordKind, SegmentNumber},
    state::facts::{self, Loader},
};

const STORE: [u8; 16] = [7; 16];
const REPOSITORIES: u32 = 10;
const SEGMENTS: u64 = 100;
const NAMED: u64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let blobs: u64 = arguments.next().map_or(Ok(100_000), |blobs| blobs.parse())?;
    let scratch = tempfile::tempdir()?;
    let dir = arguments.next().map_or(scratch.path().to_owned(), PathBuf::from).join("snapshot-bench");
    let disk = RealDisk::new(&dir)?;
    disk.create_dir(DIRECTORY)?;
    let open = |name: &str| RocksIndex::open(&dir.join(name), &RocksOptions::default());

    let index = open("first")?;
    let mut loader = Loader::new(&index, STORE, &header(blobs));
    each_fact(blobs, &mut |fact| {
        loader.load(fact)?;
        Ok(loader.write()?)
    })?;
    loader.finish()?;
    index.flush()?;

    let (file, count) = write(&disk, &index)?;
    let begun = Instant::now();
    let (_, proven) = SnapshotReader::prove(&disk, STORE, &file)?;
    assert_eq!(proven.facts, count);
    report("read again", count, file.len, begun);
    let loaded = open("second")?;
    load(&disk, &loaded, &file, count)?;
    let begun = Instant::now();
    loaded.flush()?;
    println!("flush of the loaded index: {:.0} ms", 1e3 * begun.elapsed().as_secs_f64());
    let meta = |index: &RocksIndex| index.get(b"\x01applied");
    assert_eq!(meta(&index)?, meta(&loaded)?);
    drop((index, loaded));
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn write(disk: &RealDisk, index: &RocksIndex) -> Result<(SnapshotFile, u64), Box<dyn Error>> {
    let begun = Instant::now();
    let view = index.snapshot();
    let header = facts::header(&*view)?.ok_or("the index has no mark")?;
    let mut writer = SnapshotWriter::create(disk, STORE, header)?;
    facts::each::<Box<dyn Error>>(&*view, &mut |fact| {
        writer.push(&fact)?;
        if writer.is_page_full() {
            writer.write_page()?;
        }
        Ok(())
    })?;
    let sealed = writer.seal()?;
    let (count, bytes) = (sealed.facts(), sealed.bytes());
    report("write and sync", count, bytes, begun);
    let begun = Instant::now();
    let file = sealed.publish(|| Ok::<_, JournalError>(()))?;
    report("prove and publish", count, bytes, begun);
    Ok((file, count))
}

fn load(disk: &RealDisk, index: &RocksIndex, file: &SnapshotFile, count: u64) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut reader = SnapshotReader::open(disk, STORE, file)?;
    let mut loader = Loader::new(index, STORE, reader.header());
    while let Part::Page(page) = reader.next_part()? {
        page.each::<Box<dyn Error>>(|fact| Ok(loader.load(fact)?))?;
        loader.write()?;
    }
    loader.finish()?;
    report("load", count, file.len, begun);
    Ok(())
}

fn report(what: &str, facts: u64, bytes: u64, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{what}: {facts} facts, {:.1} MiB in {:.0} ms: {:.0} facts/s, {:.1} MiB/s",
        bytes as f64 / f64::from(1 << 20),
        1e3 * seconds,
        facts as f64 / seconds,
        bytes as f64 / f64::from(1 << 20) / seconds,
    );
}

fn header(blobs: u64) -> SnapshotHeader {
    let mark = Mark { position: Position { lsn: 3 * blobs, local: 2 * blobs }, chain: Chain([9; 16]) };
    let (organisations, repositories, manifests) = (1, REPOSITORIES, blobs / 10);
    SnapshotHeader { mark, time_ms: 1, organisations, repositories, manifests, next_segment: SEGMENTS + 1 }
}

/// The facts of the store, in the order in which they are loaded.
fn each_fact(blobs: u64, visit: &mut dyn FnMut(Fact) -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let digest = |kind: &str, n: u64| Digest::of(Algorithm::Sha256, format!("{kind} {n}").as_bytes());
    visit(Fact::Organisation { organisation: 1, name: "team".to_owned() })?;
    for repository in 1..=REPOSITORIES {
        let name = format!("team/app-{repository}").parse()?;
        visit(Fact::Repository { repository, organisation: 1, name, created_ms: 1 })?;
    }
    for segment in (1..=SEGMENTS).map(SegmentNumber) {
        visit(Fact::Segment { segment, single: false, sealed: true, committed_end: 256 << 20, erased_bytes: 0 })?;
    }
    let manifests = blobs / 10;
    for n in 0..blobs + manifests {
        let (kind, name) = if n < blobs { (RecordKind::Blob, "blob") } else { (RecordKind::Manifest, "manifest") };
        let location = Location { segment: SegmentNumber(n % SEGMENTS + 1), offset: 64 + 1_024 * n };
        let digest = digest(name, if n < blobs { n } else { n - blobs });
        visit(Fact::Blob { digest, kind, size: 900, location, record_len: 1_024 })?;
    }
    for n in 0..blobs {
        let repository = repository(n / NAMED);
        let (digest, linked_ms) = (digest("blob", n), 1);
        visit(Fact::Link { repository, digest, size: 900, linked_ms, due_ms: 2, mounted_from: 0 })?;
    }
    for n in 0..manifests {
        let named = (0..NAMED).map(|at| NamedReference {
            role: if at == 0 { Role::Config } else { Role::Layer },
            digest: digest("blob", (NAMED * n + at) % blobs.max(1)),
            size: 900,
        });
        visit(Fact::Manifest {
            repository: repository(n),
            manifest: n + 1,
            digest: digest("manifest", n),
            size: 900,
            deleted: false,
            root: false,
            stays_root: false,
            pushed_ms: 1,
            left_ms: 0,
            held_until_ms: 0,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            artifact_type: None,
            subject: None,
            references: named.collect(),
        })?;
    }
    for n in 0..manifests {
        let (tag, digest) = (format!("build-{n}").parse()?, digest("manifest", n));
        visit(Fact::Tag { repository: repository(n), tag, manifest: n + 1, digest, set_ms: 1, pulled_ms: 0 })?;
    }
    for n in 0..2 * manifests {
        let (tag, digest) = (format!("build-{}", n / 2).parse()?, Some(digest("manifest", n / 2)));
        visit(Fact::History {
            repository: repository(n / 2),
            tag,
            lsn: n,
            digest,
            time_ms: 1,
            until_ms: u64::from(n % 2 == 0),
        })?;
    }
    Ok(())
}

fn repository(manifest: u64) -> u32 {
    (manifest % u64::from(REPOSITORIES)) as u32 + 1
}
