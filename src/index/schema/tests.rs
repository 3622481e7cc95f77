//! Keys of tables by digest, and pages of tables against a model.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::*;
use crate::{
    digest::Algorithm,
    index::{Changes, Index, Row, memory::MemoryIndex, prefix_end},
};

const TABLES_BY_DIGEST: [Table; 4] = [Table::Blobs, Table::RegistryCounts, Table::OrganisationCounts, Table::Links];

fn digest(algorithm: Algorithm, number: u64) -> Digest {
    Digest::of(algorithm, &number.to_le_bytes())
}

/// A key of a table, of example parts.
fn example(table: Table, digest: &Digest) -> Vec<u8> {
    let begun = Key(vec![table.prefix()]);
    let parts = table.key_parts().iter();
    let key = parts.fold(begun, |key, part| match part {
        KeyPart::U32(_) => key.u32(7),
        KeyPart::U64(_) | KeyPart::U64Down(_) => key.u64(8),
        KeyPart::Digest(_) => key.digest(digest),
        KeyPart::Own => key.raw(&[table as u8]),
        KeyPart::Text(_) => key.raw(b"text\0"),
        KeyPart::TextDown(_) => key.raw(b"\x90\xff"),
        KeyPart::Scope(_) => key.scope(Scope::Organisation(3)),
        KeyPart::Session(_) => key.raw(&[9; 16]),
    });
    key.bytes()
}

/// A change here is one of FORMAT.md and of the index's version.
#[test]
fn the_bytes_of_keys_by_digest_are_pinned() {
    for (algorithm, code) in [(Algorithm::Sha256, 1), (Algorithm::Sha512, 2)] {
        let digest = digest(algorithm, 1);
        let check = |key: Key, rest: &[u8]| {
            assert_eq!(key.bytes(), [&[0x20, code], digest.hash(), rest].concat());
        };
        check(key::blob(&digest), &[0x21]);
        check(key::count(Scope::Registry, &digest), &[0x22]);
        check(key::count(Scope::Organisation(5), &digest), &[0x23, 0, 0, 0, 5]);
        check(key::links(&digest), &[0x24]);
        check(key::link(5, &digest), &[0x24, 0, 0, 0, 5]);
        let expected = [&[0x50, 0, 0, 0, 5, code], digest.hash()].concat();
        assert_eq!(key::count(Scope::Repository(5), &digest).bytes(), expected);
    }
}

#[test]
fn a_key_tells_its_table() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = digest(algorithm, 1);
        for table in Table::ALL {
            assert_eq!(Table::of(&example(table, &digest)), Some(table));
            assert_eq!(table.is_by_digest(), TABLES_BY_DIGEST.contains(&table));
            assert_eq!(table.is_by_digest(), table.key_parts().contains(&KeyPart::Own), "{table:?}");
        }
        let of_digest = [&[BY_DIGEST][..], &key::blob(&digest).bytes()[1..][..1 + algorithm.hash_len()]].concat();
        assert_eq!(Table::of(&of_digest), None, "nothing behind the digest");
        assert_eq!(Table::of(&of_digest[..20]), None, "a part of a digest");
        for byte in 0..=u8::MAX {
            let by_digest = TABLES_BY_DIGEST.into_iter().find(|&table| table as u8 == byte);
            assert_eq!(Table::of(&[&of_digest[..], &[byte]].concat()), by_digest);
            let plain = Table::ALL.into_iter().find(|&table| table as u8 == byte && !table.is_by_digest());
            assert_eq!(Table::of(&[byte, 1, 2]), plain);
        }
    }
    assert_eq!(Table::of(&[]), None);
    assert_eq!(Table::of(&[BY_DIGEST, 3, 3, 3]), None, "no algorithm");
    let bytes: BTreeSet<u8> = Table::ALL.iter().map(|&table| table as u8).collect();
    assert!(bytes.len() == Table::ALL.len() && !bytes.contains(&BY_DIGEST));
    assert!(Table::ALL.is_sorted_by_key(|&table| table as u8));
}

/// A view that counts the rows that were read through it.
struct Counting<'a> {
    view: &'a MemoryIndex,
    rows: Cell<usize>,
}

impl View for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.view.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let rows = self.view.scan(from, until, limit)?;
        self.rows.set(self.rows.get() + rows.len());
        Ok(rows)
    }
}

fn index_of(rows: impl IntoIterator<Item = Vec<u8>>) -> MemoryIndex {
    let index = MemoryIndex::new();
    let changes: Changes = rows.into_iter().map(|key| (key, Some(vec![1]))).collect();
    index.write(&changes).unwrap();
    index
}

/// Rows of all tables by digest and of their neighbours; few digests, so that some have many rows and some lack the first.
fn random_key(random: &mut fastrand::Rng, digests: &[Digest]) -> Vec<u8> {
    let digest = &digests[random.usize(..digests.len())];
    match random.u8(..13) {
        0 => key::blob(digest).bytes(),
        1 => key::count(Scope::Registry, digest).bytes(),
        2..8 => key::link(random.u32(..20), digest).bytes(),
        8 => key::name(digest, random.u32(..3), random.u64(..20)).bytes(),
        9 => key::count(Scope::Organisation(random.u32(..3)), digest).bytes(),
        10 => key::count(Scope::Repository(random.u32(..3)), digest).bytes(),
        11 => key::manifest(random.u32(..3), digest).bytes(),
        _ => key::repository(random.u32(..9)).bytes(),
    }
}

#[test]
fn pages_of_a_table_are_its_rows_in_order_and_nothing_else() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let digests: Vec<Digest> = (0..random.u64(1..8))
            .map(|number| digest(if random.bool() { Algorithm::Sha256 } else { Algorithm::Sha512 }, number))
            .collect();
        let keys: Vec<Vec<u8>> = (0..random.usize(..200)).map(|_| random_key(&mut random, &digests)).collect();
        let mut model: BTreeMap<&'static str, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for key in &keys {
            model.entry(Table::of(key).unwrap().name()).or_default().insert(key.clone());
        }
        let index = index_of(keys.iter().cloned());
        let changes: Changes = keys.iter().map(|key| (key.clone(), None)).collect();
        for table in Table::ALL {
            let expected: Vec<Vec<u8>> = model.remove(table.name()).into_iter().flatten().collect();
            let mut visited = Vec::new();
            each_row_of(&index, table, |key, _| {
                visited.push(key.to_vec());
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
            assert_eq!(visited, expected, "{table:?}");
            assert!(changes_of(&changes, table).map(|(key, _)| key).eq(&expected), "{table:?}");

            let limit = random.usize(1..20);
            let (mut paged, mut from) = (Vec::new(), None);
            loop {
                let view = Counting { view: &index, rows: Cell::new(0) };
                let Page { rows, next } = page(&view, table, from.as_deref(), limit).unwrap();
                assert!(view.rows.get() <= limit);
                paged.extend(rows.into_iter().map(|(key, _)| key));
                assert!(next.is_none() || next > from, "{table:?}");
                from = next;
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(paged, expected, "{table:?} in pages of {limit}");
        }
        let total = index.scan(&[BY_DIGEST], &prefix_end(&[BY_DIGEST]), usize::MAX).unwrap().len();
        for table in TABLES_BY_DIGEST {
            let view = Counting { view: &index, rows: Cell::new(0) };
            each_row_of(&view, table, |_, _| Ok(ControlFlow::Continue(()))).unwrap();
            assert!(view.rows.get() <= total, "{table:?}");
        }
    }
}

#[test]
fn a_visitor_ends_where_it_breaks() {
    let digests: Vec<Digest> = (0..10).map(|number| digest(Algorithm::Sha256, number)).collect();
    let index = index_of(digests.iter().flat_map(|digest| [key::blob(digest).bytes(), key::link(1, digest).bytes()]));
    let mut visited = 0;
    each_row_of(&index, Table::Links, |_, _| {
        visited += 1;
        Ok(if visited < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .unwrap();
    assert_eq!(visited, 3);
}

/// Who reads blobs, the scrub for one, must not pay for all links of a layer that every repository has.
#[test]
fn a_digest_with_very_many_links_costs_who_reads_blobs_one_page() {
    const LINKS: u32 = 20_000;
    const ROWS_READ: usize = 100;
    let digests: Vec<Digest> = (0..10).map(|number| digest(Algorithm::Sha256, number)).collect();
    let blobs = digests.iter().map(|digest| key::blob(digest).bytes());
    let index = index_of(blobs.chain((0..LINKS).map(|repository| key::link(repository, &digests[3]).bytes())));
    let view = Counting { view: &index, rows: Cell::new(0) };
    let (mut blobs, mut from) = (0, None);
    loop {
        let Page { rows, next } = page(&view, Table::Blobs, from.as_deref(), ROWS_READ).unwrap();
        blobs += rows.len();
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(blobs, digests.len());
    assert!(view.rows.get() <= 2 * ROWS_READ + digests.len(), "{} rows", view.rows.get());

    let from = behind_digest(&digests[3]);
    let rest = page(&index, Table::Blobs, Some(&from), ROWS_READ).unwrap();
    let expected = digests.iter().filter(|digest| **digest > digests[3]).count();
    assert_eq!((rest.rows.len(), rest.next), (expected, None));
}

/// It could be a row of this table, and would be lost from a snapshot without a word.
#[test]
fn a_key_of_no_table_among_those_by_digest_is_damage() {
    let digest = digest(Algorithm::Sha256, 1);
    let blob = key::blob(&digest).bytes();
    let unknown = [&blob[..blob.len() - 1], &[0x25]].concat();
    let (short, no_algorithm) = (blob[..9].to_vec(), vec![BY_DIGEST, 3, 0]);
    for damaged in [unknown, short, no_algorithm] {
        let index = index_of([blob.clone(), damaged.clone()]);
        for table in TABLES_BY_DIGEST {
            let visit = each_row_of(&index, table, |_, _| Ok(ControlFlow::Continue(())));
            assert!(matches!(visit, Err(SchemaError::Row { .. })), "{damaged:?}");
            // At the end of a page as well.
            assert!(matches!(page(&index, table, Some(&damaged), 1), Err(SchemaError::Row { .. })), "{damaged:?}");
        }
        each_row_of(&index, Table::Manifests, |_, _| Ok(ControlFlow::Continue(()))).unwrap();
    }
}
