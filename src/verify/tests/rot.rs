//! A changed place in a segment or the journal is named with file, offset, digest, and whom it hurts.
//!
//! `ORLOP_TEST_ROUNDS` changes as many places, `ORLOP_TEST_SEED` begins with another seed.

use super::*;
use crate::store::StoreError;

fn files(disk: &SimDisk, directory: &str) -> Vec<(String, u64)> {
    let entries = disk.list(directory).unwrap().into_iter();
    entries
        .flat_map(|entry| match entry.is_dir {
            true => files(disk, &format!("{directory}/{}", entry.name)),
            false => vec![(format!("{directory}/{}", entry.name), entry.len)],
        })
        .collect()
}

#[test]
fn a_changed_place_is_named_with_file_offset_digest_and_tags() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ORLOP_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let rounds = number("ORLOP_TEST_ROUNDS").unwrap_or(150);
    println!("{rounds} rounds from seed {first}");
    let machine = Machine::new();
    for seed in first..first + rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = if random.bool() { "segments" } else { "journal" };
        let (path, len) = random.choice(files(&machine.disk, directory)).unwrap();
        let (file, at) = (machine.disk.open(&path).unwrap(), random.u64(..len));
        let mut old = [0];
        file.read_exact_at(&mut old, at).unwrap();
        file.write_all_at(&[old[0] ^ 1 << random.u8(..8)], at).unwrap();
        check_named(&machine, &path, &format!("seed {seed}, {path} at {at}"));
        file.write_all_at(&old, at).unwrap();
    }
    assert_eq!(machine.verify(true).findings, [], "all was put back");
}

fn check_named(machine: &Machine, path: &str, what: &str) {
    let findings = machine.verify(true).findings;
    if path.starts_with("journal") {
        let named =
            findings.iter().all(|found| found.kind == FindingKind::Journal && found.file.as_deref() == Some(path));
        assert!(named && findings.len() == 1, "{what}: {findings:?}");
        return;
    }
    let (one, two) = ("one/app:latest".to_owned(), "two/app:latest".to_owned());
    for (layer, names) in [vec![one.clone()], vec![one, two.clone()], vec![two]].into_iter().enumerate() {
        let (digest, row) = (Machine::digest(layer), machine.blob(layer));
        let read = machine.store().content(&digest).and_then(|content| content.unwrap().read_all());
        let found = findings.iter().find(|found| found.digest == Some(digest.to_string()));
        match read {
            Ok(bytes) => assert!(bytes == LAYERS[layer] && found.is_none(), "{what}: {found:?}"),
            Err(StoreError::Corrupt(_)) => {
                let found = found.unwrap_or_else(|| panic!("{what}: {digest} is not named"));
                assert_eq!((found.file.as_deref(), found.offset), (Some(path), Some(row.location.offset)), "{what}");
                let hurt = names.iter().all(|name| found.hurts.contains(name));
                assert!(hurt && found.kind == FindingKind::Content, "{what}: {found:?}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}
