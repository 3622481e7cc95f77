//! A store whose index is deleted, put back from earlier, or damaged, while it is closed or open: nothing wrong is served,
//! and the index comes back row for row.
//!
//! `ORLOP_TEST_ROUNDS` tries as many, `ORLOP_TEST_SEED` begins with another seed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use orlop::{
    Algorithm, Digest,
    store::{Opening, Store, StoreError, StoreOptions},
};

const PUTS: u64 = 60;
const DEFAULT_ROUNDS: u64 = 30;

fn options() -> StoreOptions {
    StoreOptions {
        reserve_bytes: 0,
        index_memtable_bytes: 8 << 20,
        snapshot_bytes_min: 4 << 10,
        ..StoreOptions::default()
    }
}

fn content(n: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n);
    (0..200 + 37 * n).map(|_| random.u8(..)).collect()
}

/// A closed store with files of several flushes, a copy of its index from the middle, and its rows.
fn filled(directory: &Path) -> Vec<String> {
    let repositories: Vec<_> = (0..5).map(|n| format!("team{n}/app").parse().unwrap()).collect();
    for part in 0..3 {
        let store = Store::open(directory.join("data"), options()).unwrap();
        for n in part * PUTS / 3..(part + 1) * PUTS / 3 {
            store.put(&repositories[n as usize % 5], Algorithm::Sha256, &content(n)).unwrap();
        }
        store.close().unwrap();
        if part == 1 {
            copy(&directory.join("data/index"), &directory.join("stale"));
        }
    }
    let store = Store::open(directory.join("data"), options()).unwrap();
    let rows = dump(&store).unwrap();
    store.close().unwrap();
    rows
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

fn flip(index: &Path, random: &mut fastrand::Rng) -> String {
    let files = fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
    files.sort();
    let path = random.choice(&files).unwrap().clone();
    let mut bytes = fs::read(&path).unwrap();
    let at = random.usize(..bytes.len());
    let name = path.file_name().unwrap().display();
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
    done
}

/// All content is what was pushed, or told to be unreadable; whether all could be read.
fn check_content(store: &Store, what: &str) -> bool {
    let mut whole = true;
    for n in 0..PUTS {
        let bytes = content(n);
        match store.content(&Digest::of(Algorithm::Sha256, &bytes)) {
            Ok(Some(found)) => assert_eq!(found.read_all().unwrap(), bytes, "{what}: {n}"),
            Ok(None) => panic!("{what}: {n} is told to be absent"),
            Err(StoreError::Corrupt(_)) => whole = false,
            Err(error) => panic!("{what}: {n}: {error}"),
        }
    }
    whole
}

#[test]
fn an_index_that_is_deleted_stale_or_damaged_comes_back_row_for_row() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let rounds = number("ORLOP_TEST_ROUNDS").unwrap_or(DEFAULT_ROUNDS);
    println!("{rounds} rounds from seed {first}");
    let directory = tempfile::tempdir().unwrap();
    let rows = filled(directory.path());
    let mut outcomes = std::collections::BTreeMap::new();
    for seed in first..first + rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let data = directory.path().join("damaged");
        copy(&directory.path().join("data"), &data);
        let index = data.join("index");
        let open = (random.u8(..3) == 0).then(|| Store::open(&data, options()).unwrap());
        let done = match random.u8(..6) {
            0 if open.is_none() => {
                fs::remove_dir_all(&index).unwrap();
                "deleted".to_owned()
            }
            1 if open.is_none() => {
                fs::remove_dir_all(&index).unwrap();
                copy(&directory.path().join("stale"), &index);
                "stale".to_owned()
            }
            _ => flip(&index, &mut random),
        };
        let what = format!("seed {seed}, open {}, {done}", open.is_some());
        let outcome = check_trial(open, &data, &rows, &what);
        *outcomes.entry(outcome).or_insert(0) += 1;
        fs::remove_dir_all(&data).unwrap();
    }
    println!("{outcomes:?}");
}

fn check_trial(open: Option<Store>, data: &Path, rows: &[String], what: &str) -> &'static str {
    if let Some(store) = open {
        let checked = store.check_index(&mut |_| true);
        let whole = check_content(&store, what);
        assert!(whole || checked.is_err(), "{what}: reads fail, and the check of all files found nothing");
        drop(store);
    }
    let store = Store::open(data, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let rebuilt = store.recovery().rebuilt.is_some();
    match dump(&store) {
        Ok(found) => {
            assert_eq!(found, rows, "{what}");
            assert!(check_content(&store, what));
            if rebuilt { "rebuilt at the start" } else { "no effect" }
        }
        Err(StoreError::Corrupt(_)) => {
            check_content(&store, what);
            assert!(store.check_index(&mut |_| true).is_err(), "{what}: the check of all files found nothing");
            drop(store);
            let store = Store::open_as(data, options(), Opening::RebuildIndex).unwrap();
            assert_eq!(dump(&store).unwrap(), rows, "{what}, rebuilt");
            assert!(check_content(&store, what));
            "rebuilt on demand"
        }
        Err(error) => panic!("{what}: {error}"),
    }
}
