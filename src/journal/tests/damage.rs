//! Files that are not what was written: what is cut, what is refused, and under which name.

use super::*;

/// A history in two or more files, with at least two batches in the first and the last.
fn broken_histories() -> (SimDisk, Vec<Batch>, Vec<String>) {
    let disk = SimDisk::new();
    let mut journal = open(&disk).unwrap();
    let batches =
        (0..8).map(|n| appended(&mut journal, n, vec![logical(&[b'a' + n as u8; 61]), local(b"12")])).collect();
    let files = files(&disk);
    assert_eq!(files.len(), 3);
    (disk, batches, files)
}

/// Length of each batch of `broken_histories`: header, body and padding.
const BATCH_LEN: usize = 80 + 66 + 7 + 7;
const PER_FILE: usize = 3;

/// The disk with one file changed.
fn changed(disk: &SimDisk, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let copy = disk.kill();
    let mut bytes = bytes_of(disk, path);
    change(&mut bytes);
    set_bytes(&copy, path, &bytes);
    copy
}

/// The history is cut to `expected`, goes on from there, and shows nothing of the cut afterwards.
#[track_caller]
fn check_cut(disk: &SimDisk, expected: &[Batch], cut_bytes: usize) {
    let (batches, read) = read_from(disk, Mark::ORIGIN).unwrap();
    assert_eq!(batches, expected);
    assert_eq!(read.cut_bytes(), cut_bytes as u64);
    let mut journal = Journal::start(Arc::new(disk.clone()), read).unwrap();
    let next = appended(&mut journal, 99, vec![logical(b"next")]);
    assert_eq!(history(disk).unwrap(), [expected, &[next]].concat());
    assert_eq!(read_from(disk, Mark::ORIGIN).unwrap().1.cut_bytes(), 0);
}

#[test]
fn every_truncation_of_the_last_batch_is_cut() {
    let (disk, batches, files) = broken_histories();
    let len = bytes_of(&disk, &files[2]).len();
    assert_eq!(len, 72 + 2 * BATCH_LEN);
    for missing in 1..=BATCH_LEN {
        let disk = changed(&disk, &files[2], |bytes| bytes.truncate(len - missing));
        check_cut(&disk, &batches[..7], BATCH_LEN - missing);
    }
}

#[test]
fn every_changed_byte_of_the_last_batch_is_cut() {
    let (disk, batches, files) = broken_histories();
    for offset in 0..BATCH_LEN {
        let disk = changed(&disk, &files[2], |bytes| bytes[72 + BATCH_LEN + offset] ^= 0x40);
        check_cut(&disk, &batches[..7], BATCH_LEN);
    }
}

#[test]
fn every_changed_byte_of_an_earlier_batch_is_damage_at_its_place() {
    let (disk, _, files) = broken_histories();
    for (file, batch, next_valid) in
        [(2, 0, Some(72 + BATCH_LEN as u64)), (0, 0, None), (0, PER_FILE - 1, None), (1, 1, None)]
    {
        let begin = 72 + batch * BATCH_LEN;
        for offset in 0..BATCH_LEN {
            let disk = changed(&disk, &files[file], |bytes| bytes[begin + offset] ^= 0x40);
            match history(&disk) {
                Err(JournalError::Damaged { file: named, offset, next_valid_offset }) => {
                    assert_eq!((&named, offset, next_valid_offset), (&files[file], begin as u64, next_valid));
                }
                other => panic!("file {file} batch {batch} byte {offset}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_changed_byte_of_a_file_header_is_refused() {
    let (disk, _, files) = broken_histories();
    for path in &files {
        for offset in 0..72 {
            let disk = changed(&disk, path, |bytes| bytes[offset] ^= 0x40);
            match (offset, history(&disk)) {
                (8..12, Err(JournalError::UnknownVersion { file, known: 1, .. })) => assert_eq!(&file, path),
                (0..8 | 12..72, Err(JournalError::BadFile { file, .. })) => assert_eq!(&file, path),
                (_, other) => panic!("{path} byte {offset}: {other:?}"),
            }
        }
        for len in 0..72 {
            let disk = changed(&disk, path, |bytes| bytes.truncate(len));
            assert!(matches!(history(&disk), Err(JournalError::BadFile { .. })), "{path} cut at {len}");
        }
    }
}

#[test]
fn an_earlier_file_that_ends_too_soon_is_damage_or_a_gap() {
    let (disk, batches, files) = broken_histories();
    let len = bytes_of(&disk, &files[1]).len();
    for missing in 1..len - 72 {
        let disk = changed(&disk, &files[1], |bytes| bytes.truncate(len - missing));
        match history(&disk) {
            Err(JournalError::Gap { file, found, .. }) if missing % BATCH_LEN == 0 => {
                assert_eq!((file, found), (files[2].clone(), after(&batches[5])));
            }
            Err(JournalError::Damaged { file, .. }) if missing % BATCH_LEN != 0 => assert_eq!(file, files[1]),
            other => panic!("{missing} bytes missing: {other:?}"),
        }
    }
}

#[test]
fn after_an_earlier_file_zeros_are_nothing_and_all_else_is_damage() {
    let (disk, batches, files) = broken_histories();
    for surplus in [1, 8, 300_000] {
        let zeros = changed(&disk, &files[0], |bytes| bytes.resize(bytes.len() + surplus, 0));
        assert_eq!(history(&zeros).unwrap(), batches);
        let garbage = changed(&zeros, &files[0], |bytes| *bytes.last_mut().unwrap() = 1);
        assert!(matches!(history(&garbage), Err(JournalError::Damaged { .. })));
        let tail = changed(&disk, &files[2], |bytes| bytes.resize(bytes.len() + surplus, 1));
        check_cut(&tail, &batches, surplus);
    }
}

#[test]
fn only_a_batch_of_this_store_that_comes_later_makes_a_torn_end_damage() {
    let (disk, batches, files) = broken_histories();
    let encode =
        |store_id: &[u8; 16], before: Mark| format::encode_batch(store_id, before, 1, &[logical(b"x")]).unwrap().bytes;
    let later = Mark { position: Position { lsn: 100, local: 100 }, chain: Chain([5; 16]) };
    let earlier = Mark { position: Position { lsn: 100, local: 0 }, chain: Chain([5; 16]) };
    let with_tail = |batch: Vec<u8>| {
        changed(&disk, &files[2], |bytes| {
            bytes.extend([7; 40]);
            bytes.extend(batch);
        })
    };
    let own = encode(&STORE, later);
    let end = 72 + 2 * BATCH_LEN as u64;
    let result = history(&with_tail(own.clone()));
    assert!(
        matches!(&result, Err(JournalError::Damaged { offset, next_valid_offset: Some(next), .. })
            if (*offset, *next) == (end, end + 40)),
        "{result:?}"
    );
    for tail in [encode(&[7; 16], later), encode(&STORE, earlier), own[..own.len() - 1].to_vec()] {
        check_cut(&with_tail(tail.clone()), &batches, 40 + tail.len());
    }
    // The next batch by its numbers, but of another history.
    let forked = changed(&disk, &files[2], |bytes| {
        bytes.extend(encode(&STORE, Mark { chain: Chain([5; 16]), ..after(&batches[7]) }));
    });
    assert!(matches!(history(&forked), Err(JournalError::Damaged { offset, .. }) if offset == end));
}

#[test]
fn a_proven_batch_that_cannot_be_decoded_is_never_cut() {
    let (disk, batches, files) = broken_histories();
    // A class of a later version, sealed as that version would.
    let encoded = format::encode_batch(&STORE, after(&batches[7]), 1, &[logical(b"new")]).unwrap().bytes;
    let mut sealed = encoded[..88].to_vec();
    sealed[80] = 3;
    let mut hasher = crate::digest::Hasher::new(crate::digest::Algorithm::Sha256);
    [&STORE[..], &sealed[..64], &sealed[80..]].iter().for_each(|part| hasher.update(part));
    sealed[64..80].copy_from_slice(&hasher.finish().hash()[..16]);
    let disk = changed(&disk, &files[2], |bytes| bytes.extend(sealed));
    let result = history(&disk);
    assert!(
        matches!(&result, Err(JournalError::Malformed { offset, .. }) if *offset == 72 + 2 * BATCH_LEN as u64),
        "{result:?}"
    );
}

#[test]
fn a_missing_file_and_files_of_others_are_refused_by_name() {
    let (disk, _, files) = broken_histories();
    for missing in 0..2 {
        let disk = disk.kill();
        disk.remove(&files[missing]).unwrap();
        match history(&disk) {
            Err(JournalError::FileMissing { file, expected, found }) => {
                assert_eq!(
                    (file, expected, found),
                    (files[missing + 1].clone(), missing as u64 + 1, missing as u64 + 2)
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let foreign = JournalOptions { store_id: [9; 16], ..options() };
    let result = read::<JournalError>(&disk, &foreign, Mark::ORIGIN, |_| Ok(()));
    assert!(matches!(result, Err(JournalError::ForeignStore { found: STORE, .. })), "{result:?}");
    let renamed = disk.kill();
    renamed.rename(&files[2], "journal/backup.journal").unwrap();
    assert!(matches!(history(&renamed), Err(JournalError::BadFile { file, .. }) if file == "journal/backup.journal"));
}

#[test]
fn names_that_claim_nothing_are_left_alone_and_unfinished_files_removed() {
    let (disk, batches, files) = broken_histories();
    for path in ["journal/notes.txt", "journal/0000000000000005.snapshot"] {
        set_bytes(&disk, path, b"mine");
    }
    let unfinished = format!("{}.new", files[1]);
    set_bytes(&disk, &unfinished, b"torn");
    assert_eq!(history(&disk).unwrap(), batches);
    open(&disk).unwrap();
    assert_eq!(bytes_of(&disk, "journal/notes.txt"), b"mine");
    assert_eq!(bytes_of(&disk, "journal/0000000000000005.snapshot"), b"mine");
    assert!(disk.open(&unfinished).is_err());
}

#[test]
fn a_file_that_changes_after_it_was_read_is_not_taken_over() {
    let (disk, _, files) = broken_histories();
    for change in
        [|bytes: &mut Vec<u8>| bytes[72 + BATCH_LEN + 90] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(72 + BATCH_LEN)]
    {
        let disk = disk.kill();
        let (_, read) = read_from(&disk, Mark::ORIGIN).unwrap();
        let changed = changed(&disk, &files[2], change);
        let bytes = bytes_of(&changed, &files[2]);
        let result = Journal::start(Arc::new(changed.clone()), read);
        assert!(
            matches!(result, Err(JournalError::Damaged { offset, .. }) if offset == 72 + BATCH_LEN as u64),
            "{result:?}"
        );
        assert_eq!(bytes_of(&changed, &files[2]), bytes);
    }
}

#[test]
fn no_bytes_make_the_reader_panic_or_give_what_was_not_written() {
    let (disk, batches, files) = broken_histories();
    for seed in 0..4000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let path = &files[rng.usize(..3)];
        let disk = changed(&disk, path, |bytes| match rng.u8(..3) {
            // Random bytes all over, random bytes behind a header, or a few changes, which get deeper.
            0 => *bytes = (0..rng.usize(..2000)).map(|_| rng.u8(..)).collect(),
            1 => bytes[72..].fill_with(|| rng.u8(..)),
            _ => (0..rng.usize(1..4)).for_each(|_| {
                let at = rng.usize(..bytes.len());
                let end = (at + rng.usize(1..24)).min(bytes.len());
                bytes[at..end].fill_with(|| rng.choice([0, 1, 0x7f, 0xff]).unwrap());
            }),
        });
        let mut visited = Vec::new();
        let result = read(&disk, &options(), Mark::ORIGIN, |batch| {
            visited.push(batch);
            Ok::<_, JournalError>(())
        });
        assert!(batches.starts_with(&visited), "seed {seed}: {result:?}");
        assert!(result.is_err() || visited.len() >= 2 * PER_FILE, "seed {seed}: {result:?}");
        let bytes: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
        let mut sealed = b"ORLBATCH".to_vec();
        sealed.extend(&bytes);
        for bytes in [&bytes, &sealed] {
            if let Some(header) = format::BatchHeader::decode(bytes) {
                let _ = (header.proves(&STORE, bytes), header.batch(bytes));
            }
        }
    }
}

/// A file that could not be opened was taken for one that was removed meanwhile, so the check came to "all is sound".
#[test]
fn a_check_never_passes_over_a_file_that_it_could_not_read() {
    let (disk, ..) = broken_histories();
    for failure in [Failure::Io, Failure::NoFiles] {
        for lasts in [false, true] {
            let mut told = 0;
            for nth in 1..500 {
                let disk = disk.kill();
                match lasts {
                    true => disk.fail_from(Call::Read, nth, failure),
                    false => disk.fail(Call::Read, nth, failure),
                }
                let checked = check(&disk, &options(), &mut |_| Ok::<_, JournalError>(()));
                let wrong = checked.map_or_else(|error| vec![error], |checked| checked.wrong);
                let is_failing = disk.is_failing();
                assert!(!wrong.is_empty() || !is_failing, "{failure:?} from read {nth} on");
                for error in &wrong {
                    assert!(matches!(error, JournalError::Io { .. }) && !error.is_rot(), "{error}");
                    assert_eq!(error.may_pass(), failure == Failure::NoFiles);
                }
                told += usize::from(!wrong.is_empty());
                if lasts && !is_failing {
                    break;
                }
            }
            assert!(!lasts || told > 5, "{told}");
        }
    }
}
