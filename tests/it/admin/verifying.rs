//! `orlop verify` on a store at rest: what opening it has to mend is not passed over, and each exit code says what it says.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{at_rest, check};
use crate::harness::{Orlop, Ran};

/// A server that has ended, with some images.
fn ended() -> Orlop {
    let mut server = Orlop::start();
    for n in 0..6 {
        server.push_image("team/app", &format!("v{n}"), n);
    }
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    server
}

fn last_journal_file(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "journal")).max().unwrap()
}

fn change(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

fn remove_index(data: &Path) {
    let index = data.join("index");
    if index.exists() {
        fs::remove_dir_all(index).unwrap();
    }
}

/// The findings of one kind.
#[track_caller]
fn findings(ran: &Ran, code: i32, kind: &str) -> Vec<Value> {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["kind"] == kind).cloned().collect()
}

#[test]
fn a_sound_store_ends_with_0_and_one_that_is_none_with_2() {
    let server = ended();
    check(at_rest(&server, &["verify", "--content"]), 0, &["no findings: "]);
    fs::remove_file(server.data().join("FORMAT")).unwrap();
    check(at_rest(&server, &["verify"]), 2, &["no orlop data directory"]);
}

/// It was "not done": whoever asks whether a store is damaged was told that nobody knows.
#[test]
fn a_journal_that_is_too_damaged_to_be_opened_is_a_finding() {
    let server = ended();
    let file = last_journal_file(&server.data());
    change(&file, 200);
    remove_index(&server.data());
    let name = format!("journal/{}", file.file_name().unwrap().display());
    check(at_rest(&server, &["verify"]), 1, &["journal: ", &name, " at ", "1 finding: ", "--lose-after"]);
    let found = findings(&at_rest(&server, &["verify", "--json"]), 1, "journal");
    assert_eq!((found.len(), found[0]["file"].as_str()), (1, Some(name.as_str())), "{found:?}");
    assert!(found[0]["offset"].is_u64(), "{found:?}");
    // The header, and not a batch.
    change(&file, 200);
    change(&file, 5);
    let found = findings(&at_rest(&server, &["verify", "--json"]), 1, "journal");
    assert_eq!((found.len(), found[0]["file"].as_str()), (1, Some(name.as_str())), "{found:?}");
    change(&file, 5);
    check(at_rest(&server, &["verify"]), 0, &["no findings"]);
}

/// All that was acknowledged is there; but what a start takes away is told.
#[test]
fn what_a_start_takes_away_is_told() {
    let server = ended();
    let segments = server.segment_files();
    let segment = segments.first().unwrap();
    let unlisted = segment.with_file_name("000000000255.segment");
    fs::copy(segment, &unlisted).unwrap();
    let mut torn = fs::read(last_journal_file(&server.data())).unwrap();
    torn.extend([7; 100]);
    fs::write(last_journal_file(&server.data()), torn).unwrap();
    let ran = at_rest(&server, &["verify"]);
    check(ran, 0, &["opening: ", "bytes behind the journal's last whole batch", "no findings"]);
    assert!(!unlisted.exists());
}

#[test]
fn a_segment_that_lacks_acknowledged_bytes_is_a_finding() {
    let server = ended();
    let segment = server.segment_files().into_iter().next().unwrap();
    let len = fs::metadata(&segment).unwrap().len();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 1).unwrap();
    assert_eq!(findings(&at_rest(&server, &["verify", "--json"]), 1, "segment").len(), 1);
}

/// The end of the journal is gone, and only the index knows that there was more: opening moved it to lost/, built another
/// one from what was left, and there was nothing to find.
#[cfg(feature = "rocksdb")]
#[test]
fn acknowledged_history_that_is_lost_is_a_finding() {
    let server = ended();
    let file = last_journal_file(&server.data());
    let bytes = fs::read(&file).unwrap();
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    change(&file, end as u64 - 20);
    let ran = at_rest(&server, &["verify", "--json"]);
    let found = findings(&ran, 1, "journal");
    assert!(found.iter().any(|it| it["what"].as_str().unwrap().contains("are lost")), "{found:?}");
    assert!(server.data().join("lost").exists());
}

#[cfg(feature = "rocksdb")]
#[test]
fn an_index_that_had_to_be_built_anew_because_it_was_damaged_is_a_finding_and_a_missing_one_is_none() {
    let server = ended();
    remove_index(&server.data());
    check(at_rest(&server, &["verify"]), 0, &["no findings"]);
    fs::write(server.data().join("index/CURRENT"), "MANIFEST-99").unwrap();
    let found = findings(&at_rest(&server, &["verify", "--json"]), 1, "index");
    assert!(found.len() == 1 && found[0]["what"].as_str().unwrap().contains("built the index anew"), "{found:?}");
    assert!(found[0]["file"].as_str().unwrap().starts_with("index"), "{found:?}");
    check(at_rest(&server, &["verify"]), 0, &["no findings"]);
}
