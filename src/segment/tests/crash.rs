//! Power cuts: what was acknowledged reads back, whatever subset of the unsynced sectors and names survived.

use super::*;
use crate::disk::sim::{Call, Failure};

/// A store as the layers above use it: what a sync covered is acknowledged, and listed at the next open.
struct Store {
    disk: SimDisk,
    segments: Segments,
    acknowledged: Vec<Kept>,
    /// Appended, not yet synced.
    waiting: Vec<Kept>,
    upload: Option<Upload>,
    /// Kept only to be dropped or to go on: the writer of `upload`.
    writer: Option<SingleWriter>,
}

/// An upload that is listed with its durable bytes.
#[derive(Clone)]
struct Upload {
    number: SegmentNumber,
    payload: Vec<u8>,
    durable: usize,
}

impl Store {
    fn open(disk: SimDisk, acknowledged: Vec<Kept>, upload: Option<Upload>) -> Result<Self, SegmentError> {
        let mut listed = listed(&acknowledged);
        listed.extend(upload.as_ref().map(|upload| ListedSegment {
            number: upload.number,
            kind: SegmentKind::Single,
            committed_end: SingleWriter::committed_end(upload.durable as u64),
            sealed: false,
        }));
        let next = listed.iter().map(|segment| segment.number.0 + 1).max().unwrap_or(0);
        let options = SegmentOptions { shared_bytes_max: 20_000, open_files_max: 2, ..options() };
        let sim = Arc::new(disk.clone());
        let (segments, report) = Segments::open(sim, options, next, listed, UnlistedFiles::Remove)?;
        assert_eq!(report.damaged, [], "acknowledged bytes are gone");
        Ok(Self { disk, segments, acknowledged, waiting: Vec::new(), upload, writer: None })
    }

    /// One random step.
    fn step(&mut self, rng: &mut fastrand::Rng) -> Result<(), SegmentError> {
        match rng.u32(..10) {
            0..5 => {
                let len = rng.usize(..9000);
                self.waiting.push(append(&self.segments, content(len, rng.u64(..)))?);
            }
            5..7 => {
                self.segments.sync()?;
                self.acknowledged.append(&mut self.waiting);
                self.segments.take_sealed();
            }
            7 => self.write_upload(&content(rng.usize(..90_000), rng.u64(..)))?,
            8 => {
                if let (Some(writer), Some(upload)) = (&self.writer, &mut self.upload) {
                    writer.sync()?;
                    upload.durable = upload.payload.len();
                }
            }
            _ => {
                if let (Some(writer), Some(upload)) = (self.writer.take(), &self.upload) {
                    let kept = finish(writer, upload.payload.clone())?;
                    self.upload = None;
                    self.acknowledged.push(kept);
                }
            }
        }
        Ok(())
    }

    fn write_upload(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        if self.upload.is_none() {
            let writer = self.segments.create_single()?;
            self.upload = Some(Upload { number: writer.number(), payload: Vec::new(), durable: 0 });
            self.writer = Some(writer);
        }
        let (Some(upload), writer) = (&mut self.upload, &mut self.writer) else { return Ok(()) };
        if writer.is_none() {
            let mut seen = Vec::new();
            let mut each = |block: &[u8]| seen.extend_from_slice(block);
            *writer = Some(self.segments.reopen_single(upload.number, upload.durable as u64, &mut each)?);
            upload.payload.truncate(upload.durable);
            assert!(seen == upload.payload, "durable bytes of the upload are gone");
        }
        if let Some(writer) = writer {
            writer.write(bytes)?;
            upload.payload.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Opens what is left after the end of this process, and checks all that was acknowledged.
    fn restart(self, disk: SimDisk) -> Self {
        let again = Self::open(disk, self.acknowledged, self.upload).unwrap();
        check(&again.segments, &again.acknowledged);
        again
    }
}

#[test]
fn acknowledged_records_survive_many_lives() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = Store::open(SimDisk::new(), Vec::new(), None).unwrap();
        for _life in 0..5 {
            for _ in 0..rng.usize(..40) {
                store.step(&mut rng).unwrap();
            }
            let left = if rng.u32(..4) == 0 { store.disk.kill() } else { store.disk.crash(rng.u64(..)) };
            store = store.restart(left);
        }
    }
}

#[test]
fn the_power_may_go_at_any_call() {
    let run = |power: u64| {
        let mut rng = fastrand::Rng::with_seed(11);
        let disk = SimDisk::new();
        let mut store = Store::open(disk.clone(), Vec::new(), None).unwrap();
        disk.power_off_after(power);
        for _ in 0..120 {
            if store.step(&mut rng).is_err() {
                return (store, false);
            }
        }
        (store, true)
    };
    let mut power = 0;
    loop {
        let (store, finished) = run(power);
        let (left, other) = (store.disk.crash(power), store.disk.crash(!power));
        let (acknowledged, upload) = (store.acknowledged.clone(), store.upload.clone());
        store.restart(left);
        let again = Store::open(other, acknowledged, upload).unwrap();
        check(&again.segments, &again.acknowledged);
        if finished {
            break;
        }
        power += 1;
    }
    assert!(power > 100, "{power} calls");
}

#[test]
fn nothing_is_acknowledged_after_a_sync_that_failed() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = Store::open(SimDisk::new(), Vec::new(), None).unwrap();
        let call = if rng.bool() { Call::SyncData } else { Call::SyncDir };
        store.disk.fail(call, rng.u64(1..8), Failure::Io);
        let mut failed = false;
        for _ in 0..80 {
            let acknowledged = store.acknowledged.len();
            let result = store.step(&mut rng);
            failed |= result.is_err();
            assert!(!failed || store.acknowledged.len() == acknowledged);
        }
        let left = if rng.bool() { store.disk.kill() } else { store.disk.crash(rng.u64(..)) };
        let mut store = store.restart(left);
        for _ in 0..20 {
            store.step(&mut rng).unwrap();
        }
        let left = store.disk.crash(rng.u64(..));
        store.restart(left);
    }
}

#[test]
fn an_append_that_was_not_synced_may_be_lost() {
    let disk = SimDisk::new();
    let segments = open(&disk, Vec::new());
    let kept = append(&segments, content(5000, 1)).unwrap();
    let lost = (0..50).filter(|&seed| {
        let (after, _) = open_with(&disk.crash(seed), options(), listed(std::slice::from_ref(&kept)));
        verify(&after, &kept).is_err()
    });
    assert!(lost.count() > 25, "the simulated disk forgets nothing, so the tests here prove nothing");
}
