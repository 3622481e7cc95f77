//! The overlay against a plain map, and the ends of prefixes.

use super::{memory::MemoryIndex, *};

/// A base whose pages come from a map, so that what the overlay shows can be recounted from two maps.
fn overlay_over<'a>(base: &'a MemoryIndex, rows: &[(&str, &str)]) -> Overlay<'a> {
    let changes = rows.iter().map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
    base.write(&changes.collect()).unwrap();
    Overlay::new(base)
}

fn keys(rows: &[Row]) -> String {
    rows.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect::<Vec<_>>().join(" ")
}

#[test]
fn changes_at_page_boundaries_are_seen() {
    // Rows b d f h; what is put (+) or deleted (-), the limit, and what a scan of all shows.
    let cases = [
        ("", 0, ""),
        ("", 1, "b"),
        ("", 2, "b d"),
        ("", 9, "b d f h"),
        ("-b", 1, "d"),
        ("-d", 2, "b f"),
        ("-d -f", 2, "b h"),
        ("-b -d -f", 1, "h"),
        ("-b -d -f -h", 1, ""),
        ("-b -d -f -h", 4, ""),
        ("+a", 1, "a"),
        ("+c", 2, "b c"),
        ("+e", 2, "b d"),
        ("+i", 4, "b d f h"),
        ("+i", 5, "b d f h i"),
        ("-h +i", 4, "b d f i"),
        ("-f -h +i +j", 3, "b d i"),
        ("+b +d", 2, "b d"),
        ("-x", 4, "b d f h"),
    ];
    for (changes, limit, expected) in cases {
        let base = MemoryIndex::new();
        let mut overlay = overlay_over(&base, &[("b", "0"), ("d", "0"), ("f", "0"), ("h", "0")]);
        for change in changes.split_whitespace() {
            match change.split_at(1) {
                ("+", key) => overlay.put(key.into(), b"1".to_vec()),
                (_, key) => overlay.delete(key.into()),
            }
        }
        assert_eq!(keys(&overlay.scan(b"", b"~", limit).unwrap()), expected, "{changes:?} limit {limit}");
    }
}

#[test]
fn an_overlay_shows_what_the_changed_map_would() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..2_000 {
        let base = MemoryIndex::new();
        let mut model = Changes::new();
        for _ in 0..random.usize(..20) {
            model.insert(random_key(&mut random), Some(vec![0]));
        }
        base.write(&model).unwrap();
        let mut overlay = Overlay::new(&base);
        for _ in 0..random.usize(..20) {
            let key = random_key(&mut random);
            if random.bool() {
                overlay.put(key.clone(), vec![1]);
                model.insert(key, Some(vec![1]));
            } else {
                overlay.delete(key.clone());
                model.insert(key, None);
            }
        }
        for limit in [0, 1, 2, 3, 7, usize::MAX] {
            let (from, until) = (random_key(&mut random), random_key(&mut random));
            let in_range = model.iter().filter(|(key, _)| (&from..&until).contains(key));
            let present = in_range.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
            let expected: Vec<Row> = present.take(limit).collect();
            assert_eq!(overlay.scan(&from, &until, limit).unwrap(), expected, "{from:?}..{until:?} limit {limit}");
        }
        for (key, value) in &model {
            assert_eq!(&overlay.get(key).unwrap(), value, "{key:?}");
        }
    }
}

/// Short keys of few bytes, so that ranges, rows and changes meet; the empty key and prefixes of others among them.
fn random_key(random: &mut fastrand::Rng) -> Vec<u8> {
    (0..random.usize(..4)).map(|_| *random.choice(&[0, 1, 2, 255]).unwrap()).collect()
}

#[test]
fn a_prefix_ends_before_the_first_key_that_does_not_begin_with_it() {
    let cases: [(&[u8], &[u8]); 7] = [
        (b"a", b"b"),
        (b"ab", b"ac"),
        (b"a\xfe", b"a\xff"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"\x00", b"\x01"),
        (b"", b"\xff"),
    ];
    for (prefix, end) in cases {
        assert_eq!(prefix_end(prefix), end, "{prefix:?}");
    }
    assert_eq!(prefix_end(b"\xff"), b"\xff", "no table begins with it");

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..5_000 {
        let prefix = [vec![random.u8(..255)], random_key(&mut random)].concat();
        let key = [vec![random.u8(..255)], random_key(&mut random)].concat();
        let in_range = prefix <= key && key < prefix_end(&prefix);
        assert_eq!(in_range, key.starts_with(&prefix), "{key:?} in {prefix:?}");
    }
}
