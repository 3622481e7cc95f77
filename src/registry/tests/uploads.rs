//! Upload sessions over failures and restarts.

use std::time::Duration;

use crate::{
    digest::{Algorithm, Digest},
    disk::{
        Disk,
        sim::{Call, Failure},
    },
    registry::RegistryError,
    state::request::Request,
};

use super::{
    machine::{BUFFERED_BYTES_MAX, End, IndexAfter, LARGE_BLOB_BYTES, Machine},
    model::parse,
};

const LARGE: usize = 20_000;

/// An upload that is large enough to be marked, and was.
fn kept_upload(machine: &Machine, content: &[u8]) -> String {
    let repository = parse("a/x");
    let id = machine.registry().start_upload(&repository, Algorithm::Sha256).unwrap();
    let mut lease = machine.registry().lease_upload(&repository, &id).unwrap();
    lease.write(content).unwrap();
    assert_eq!(lease.keep().unwrap(), content.len() as u64);
    id
}

fn finish(machine: &Machine, id: &str, content: &[u8]) -> Result<(), RegistryError> {
    let lease = machine.registry().lease_upload(&parse("a/x"), id)?;
    lease.finish(Digest::of(Algorithm::Sha256, content))
}

fn segment_files(machine: &Machine) -> usize {
    let directories = machine.disk.list("segments").unwrap_or_default();
    let files = |name: &str| machine.disk.list(&format!("segments/{name}")).unwrap().len();
    directories.iter().map(|directory| files(&directory.name)).sum()
}

/// A mark whose sync failed may be in the journal: its segment was removed with the upload, and the next start missed it.
#[test]
fn an_upload_whose_mark_may_be_journaled_is_not_removed() {
    let (mut machine, repository, content) = (Machine::new(), parse("a/x"), [7; LARGE]);
    let id = machine.registry().start_upload(&repository, Algorithm::Sha256).unwrap();
    let mut lease = machine.registry().lease_upload(&repository, &id).unwrap();
    lease.write(&content).unwrap();
    // The first sync is that of the segment, the second that of the journal.
    machine.disk.fail(Call::SyncData, 2, Failure::Io);
    assert!(matches!(lease.keep(), Err(RegistryError::Unavailable(_))));
    assert!(machine.registry().cancel_upload(&repository, &id).is_err());
    machine.end(End::Kill(IndexAfter::Flushed));
    machine.open().unwrap();
    finish(&machine, &id, &content).unwrap();
    machine.check();
}

/// The segment went before the journal forgot the upload: when the journal then failed, the upload was known after the
/// restart, but nobody could go on with it.
#[test]
fn an_upload_that_could_not_be_ended_can_be_gone_on_with_after_a_restart() {
    let content = [7; LARGE];
    for wrong in [true, false] {
        let mut machine = Machine::new();
        let id = kept_upload(&machine, &content);
        // With the right digest the record's tail and header are written before the journal.
        machine.disk.fail(Call::Write, if wrong { 1 } else { 3 }, Failure::Io);
        finish(&machine, &id, if wrong { b"other" } else { &content }).unwrap_err();
        machine.end(End::Kill(IndexAfter::Flushed));
        machine.open().unwrap();
        finish(&machine, &id, &content).unwrap();
        let stored = machine
            .registry()
            .read(|reads| reads.blob(&parse("a/x"), &Digest::of(Algorithm::Sha256, &content)))
            .unwrap();
        assert_eq!(stored.read_all().unwrap(), &content[..]);
        machine.check();
    }
}

/// The segment of a large upload that did not fit at its very end stayed until the next start, and kept the disk full.
#[test]
fn an_upload_that_did_not_fit_gives_its_room_back_at_once() {
    let content = [7; LARGE];
    let mut machine = Machine::new();
    let before = segment_files(&machine);
    let id = kept_upload(&machine, &content);
    assert_eq!(segment_files(&machine), before + 1);
    machine.disk.set_capacity(Some(0));
    assert!(matches!(finish(&machine, &id, &content), Err(RegistryError::Full(_))));
    assert_eq!(segment_files(&machine), before);
    machine.disk.set_capacity(None);
    machine.end(End::PowerCut(1, IndexAfter::Flushed));
    machine.open().unwrap();
    let offset = machine.registry().upload_offset(&parse("a/x"), &id);
    assert!(matches!(offset, Err(RegistryError::UploadUnknown(_))), "{offset:?}");
}

#[test]
fn a_kept_upload_outlives_every_end_and_a_buffered_one_none() {
    let content = [7; LARGE];
    let ends = [End::Close, End::Drop, End::Kill(IndexAfter::Lost), End::PowerCut(3, IndexAfter::Flushed)];
    for end in ends {
        let mut machine = Machine::new();
        let large = kept_upload(&machine, &content[..LARGE / 2]);
        let small = kept_upload(&machine, b"small");
        let dropped = machine.registry().start_upload(&parse("a/x"), Algorithm::Sha256).unwrap();
        machine.registry().lease_upload(&parse("a/x"), &dropped).unwrap().write(&content).unwrap();
        assert_eq!(machine.registry().upload_offset(&parse("a/x"), &dropped).unwrap(), LARGE as u64);
        machine.end(end);
        machine.open().unwrap();
        let offsets = [&large, &small, &dropped].map(|id| machine.registry().upload_offset(&parse("a/x"), id).ok());
        assert_eq!(offsets, [Some(LARGE as u64 / 2), None, None], "{end:?}");
        machine.registry().lease_upload(&parse("a/x"), &large).unwrap().write(&content[LARGE / 2..]).unwrap();
        finish(&machine, &large, &content).unwrap();
        assert_eq!(segment_files(&machine), 1, "{end:?}: nothing is left of the others");
    }
}

/// A session that the journal had no room to forget was gone until the restart, and its segment with it for good.
#[test]
fn an_upload_that_the_journal_cannot_forget_stays_until_it_can() {
    let content = [7; LARGE];
    for cancelled in [true, false] {
        let machine = Machine::new();
        let id = kept_upload(&machine, &content);
        let end = || match cancelled {
            true => machine.registry().cancel_upload(&parse("a/x"), &id),
            false => finish(&machine, &id, b"other"),
        };
        machine.disk.set_capacity(Some(0));
        // Until the journal's file has no more room for just such a record.
        let forget = Request::EndUpload { session: [9; 16] };
        while machine.registry().store().commit(forget.clone()).is_ok() {}
        let error = end().unwrap_err();
        let expected = if cancelled { "Full" } else { "DigestMismatch" };
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        machine.disk.set_capacity(None);
        assert_eq!(machine.registry().upload_offset(&parse("a/x"), &id).unwrap(), LARGE as u64);
        assert_eq!(machine.registry().expire_uploads(Duration::ZERO).unwrap(), 1);
        assert_eq!(segment_files(&machine), 0);
        machine.check();
    }
}

/// While the index took no writes for a moment, the end of an upload made its session unknown, although the journal knew it
/// still and nothing had been done; its segment, or that of one that was not marked, stayed until the next start.
#[test]
fn an_upload_that_ends_while_the_index_takes_no_writes_is_there_after_it() {
    let content = [7; LARGE];
    let machine = Machine::new();
    let before = segment_files(&machine);
    let id = kept_upload(&machine, &content);
    machine.stop_index(true);
    assert!(matches!(finish(&machine, &id, &content), Err(RegistryError::Unavailable(_))));
    let unmarked = machine.registry().start_upload(&parse("a/x"), Algorithm::Sha256).unwrap();
    let mut lease = machine.registry().lease_upload(&parse("a/x"), &unmarked).unwrap();
    lease.write(&content).unwrap();
    assert!(matches!(lease.finish(Digest::of(Algorithm::Sha256, &content)), Err(RegistryError::Unavailable(_))));
    assert_eq!(segment_files(&machine), before + 1, "nothing is left of the one that was not marked");
    machine.stop_index(false);
    assert_eq!(machine.registry().upload_offset(&parse("a/x"), &id).unwrap(), LARGE as u64);
    finish(&machine, &id, &content).unwrap();
    machine.check();
}

/// 64 uploads of 1 MiB that nobody went on with filled all buffers for a day, and each small blob that came then was left
/// in a file of its own for ever.
#[test]
fn a_small_upload_that_found_the_buffers_full_ends_in_a_shared_segment() {
    let mut machine = Machine::new();
    for _ in 0..BUFFERED_BYTES_MAX / LARGE_BLOB_BYTES {
        kept_upload(&machine, &[1; LARGE_BLOB_BYTES]);
    }
    let before = segment_files(&machine);
    let contents: Vec<Vec<u8>> = (0..20).map(|seed| vec![seed; 1_000]).collect();
    for content in &contents {
        let id = kept_upload(&machine, content);
        assert!(segment_files(&machine) > before, "it was not buffered");
        finish(&machine, &id, content).unwrap();
    }
    let left = kept_upload(&machine, &contents[0]);
    finish(&machine, &left, b"other").unwrap_err();
    assert_eq!(segment_files(&machine), before + 1);
    machine.end(End::PowerCut(1, IndexAfter::Flushed));
    machine.open().unwrap();
    for content in &contents {
        let stored = machine
            .registry()
            .read(|reads| reads.blob(&parse("a/x"), &Digest::of(Algorithm::Sha256, content)))
            .unwrap();
        assert_eq!(stored.read_all().unwrap(), content[..]);
    }
    machine.check();
}

/// Each idle upload kept its file open: ten thousand of them took all that a process may open, and with that the store.
#[test]
fn many_idle_uploads_keep_few_files_open_and_all_can_be_gone_on_with() {
    let machine = Machine::new();
    let ids: Vec<String> = (0..10).map(|seed| kept_upload(&machine, &[seed; LARGE])).collect();
    for (seed, id) in ids.iter().enumerate() {
        assert_eq!(machine.registry().upload_offset(&parse("a/x"), id).unwrap(), LARGE as u64);
        let resumed = machine.disk.changes();
        let mut lease = machine.registry().lease_upload(&parse("a/x"), id).unwrap();
        assert_eq!(
            machine.disk.changes() > resumed,
            seed < 7,
            "upload {seed}: only one that rested is cut where it was marked"
        );
        lease.write(b"end").unwrap();
        let content = [&[seed as u8; LARGE], &b"end"[..]].concat();
        lease.finish(Digest::of(Algorithm::Sha256, &content)).unwrap();
    }
    machine.check();
}

/// The time that an upload was idle began anew with every start: where the process is restarted each night, none ever
/// expired.
#[test]
fn a_restart_does_not_make_an_idle_upload_younger() {
    let mut machine = Machine::new();
    let id = kept_upload(&machine, &[7; LARGE]);
    std::thread::sleep(Duration::from_millis(60));
    machine.end(End::Close);
    machine.open().unwrap();
    assert_eq!(machine.registry().expire_uploads(Duration::from_secs(60)).unwrap(), 0);
    assert_eq!(machine.registry().expire_uploads(Duration::from_millis(50)).unwrap(), 1);
    assert!(machine.registry().upload_offset(&parse("a/x"), &id).is_err());
}
