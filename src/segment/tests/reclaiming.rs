//! Giving space back under kills and power cuts: what is live always reads back, what was dropped is in no file.
//!
//! The model does what the layers above do: what its journal says is durable when a step ends, and it says so before
//! bytes are destroyed.

use std::{collections::BTreeSet, time::Duration};

use super::*;

/// The upper half of every 8 bytes that name the content in its payload.
const MARK: u64 = 0xa5c3_96e7 << 32;
const AT_ONCE: Duration = Duration::ZERO;

/// Content of `words` times 16 bytes, each of which names it; so that any of them is found in a raw file.
fn marked(id: u64, words: u64) -> Vec<u8> {
    (0..words).flat_map(|word| [(MARK | id).to_le_bytes(), word.to_le_bytes()].concat()).collect()
}

/// What the journal knows.
#[derive(Default)]
struct Known {
    live: BTreeMap<u64, Kept>,
    /// Committed ends, and whether sealed.
    segments: BTreeMap<SegmentNumber, (SegmentKind, u64, bool)>,
    /// Dead records that are still to be erased.
    dead: BTreeMap<SegmentNumber, Vec<DeadRecord>>,
    /// What was dropped.
    dropped: BTreeSet<u64>,
    next_id: u64,
    next_number: u64,
}

struct Store {
    disk: SimDisk,
    segments: Segments,
    known: Known,
    /// Appended, and not committed.
    waiting: Vec<(u64, Kept)>,
}

fn dead(appended: Appended) -> DeadRecord {
    DeadRecord { offset: appended.location.offset, record_len: appended.record_len }
}

impl Known {
    fn place(&mut self, appended: Appended, kind: SegmentKind) {
        let Appended { location, record_len } = appended;
        let (_, end, _) = self.segments.entry(location.segment).or_insert((kind, 0, kind == SegmentKind::Single));
        *end = (*end).max(location.offset + record_len);
    }

    fn bury(&mut self, appended: Appended) {
        self.dead.entry(appended.location.segment).or_default().push(dead(appended));
    }

    fn is_live(&self, candidate: &Candidate) -> bool {
        self.live.values().any(|kept| kept.appended.location == candidate.location && kept.digest == candidate.digest)
    }

    fn has_live(&self, number: SegmentNumber) -> bool {
        self.live.values().any(|kept| kept.appended.location.segment == number)
    }
}

impl Store {
    fn open(disk: SimDisk, known: Known) -> Result<Self, SegmentError> {
        let listed = known.segments.iter().map(|(&number, &(kind, committed_end, sealed))| ListedSegment {
            number,
            kind,
            committed_end,
            sealed,
        });
        let options = SegmentOptions { shared_bytes_max: 40_000, open_files_max: 3, ..options() };
        let sim = Arc::new(disk.clone());
        let next = known.next_number;
        let (segments, report) = Segments::open(sim, options, next, listed.collect(), UnlistedFiles::Remove)?;
        assert_eq!(report.damaged, [], "live bytes are gone");
        Ok(Self { disk, segments, known, waiting: Vec::new() })
    }

    /// One random step.
    fn step(&mut self, rng: &mut fastrand::Rng) -> Result<(), SegmentError> {
        match rng.u32(..14) {
            0..5 => {
                let (id, words) = (self.new_id(), if rng.u32(..20) == 0 { rng.u64(..18_000) } else { rng.u64(..600) });
                let kept = append(&self.segments, marked(id, words))?;
                self.waiting.push((id, kept));
            }
            5 => {
                let id = self.new_id();
                let kept = single(&self.segments, marked(id, rng.u64(..2_000)))?;
                self.known.place(kept.appended, SegmentKind::Single);
                self.known.live.insert(id, kept);
            }
            6..8 => self.commit()?,
            8..11 => {
                if let Some(&id) = rng.choice(self.known.live.keys().collect::<Vec<_>>()) {
                    self.drop_content(id);
                }
            }
            11 => {
                if let Some(&number) = rng.choice(self.known.dead.keys().collect::<Vec<_>>()) {
                    self.erase(number)?;
                }
            }
            12 => {
                if let Some(&number) = rng.choice(self.known.segments.keys().collect::<Vec<_>>()) {
                    self.compact(number)?;
                }
            }
            _ => self.remove_dead()?,
        }
        Ok(())
    }

    fn new_id(&mut self) -> u64 {
        self.known.next_id += 1;
        self.known.next_id
    }

    fn commit(&mut self) -> Result<(), SegmentError> {
        self.segments.sync()?;
        for (id, kept) in self.waiting.drain(..) {
            self.known.place(kept.appended, SegmentKind::Shared);
            self.known.live.insert(id, kept);
        }
        for SealedSegment { number, len } in self.segments.take_sealed() {
            self.known.segments.insert(number, (SegmentKind::Shared, len, true));
        }
        Ok(())
    }

    fn drop_content(&mut self, id: u64) {
        let Some(kept) = self.known.live.remove(&id) else { return };
        self.known.dropped.insert(id);
        self.known.bury(kept.appended);
    }

    fn erase(&mut self, number: SegmentNumber) -> Result<(), SegmentError> {
        let Some(records) = self.known.dead.get(&number) else { return Ok(()) };
        assert_eq!(self.segments.erase(number, records, AT_ONCE)?, []);
        self.known.dead.remove(&number);
        Ok(())
    }

    /// Moves what is live in a sealed segment elsewhere, in small commits, so that a cut comes between them.
    fn compact(&mut self, number: SegmentNumber) -> Result<(), SegmentError> {
        if self.known.segments.get(&number).is_none_or(|&(kind, _, sealed)| kind == SegmentKind::Single || !sealed) {
            return Ok(());
        }
        let mut candidates = self.segments.candidates(number)?;
        while let Some(candidate) = candidates.next(&mut |_| ())? {
            if !self.known.is_live(&candidate) {
                continue;
            }
            let copy = self.segments.copy(&candidate)?;
            self.commit()?;
            self.known.place(copy, SegmentKind::Shared);
            let moved = self.known.live.values_mut().find(|kept| kept.appended.location == candidate.location).unwrap();
            let old = std::mem::replace(&mut moved.appended, copy);
            self.known.bury(old);
            candidates.pass(&candidate);
        }
        assert!(!self.known.has_live(number), "the walk has left a live record behind");
        Ok(())
    }

    /// Removes all segments that are sealed and have nothing live.
    fn remove_dead(&mut self) -> Result<(), SegmentError> {
        let sealed = self.known.segments.iter().filter(|(_, (_, _, sealed))| *sealed).map(|(number, _)| *number);
        let all_dead: Vec<SegmentNumber> = sealed.filter(|&number| !self.known.has_live(number)).collect();
        for number in all_dead {
            self.known.segments.remove(&number);
            self.known.dead.remove(&number);
            assert_eq!(self.segments.remove_dead(number, AT_ONCE)?, Removal::Freed);
        }
        Ok(())
    }

    /// Opens what is left after the end of this process, and checks all that it promised. What was dropped and not yet
    /// erased, or never committed, is erased then: nothing of it is left.
    fn restart(mut self, disk: SimDisk, check_gone: bool) -> Self {
        // What was given out may have been named by nothing, and is not in a file any more.
        self.known.next_number = self.segments.next_number();
        self.known.dropped.extend(self.waiting.drain(..).map(|(id, _)| id));
        let mut again = Self::open(disk, self.known).unwrap();
        let live: Vec<Kept> = again.known.live.values().cloned().collect();
        check(&again.segments, &live);
        if check_gone {
            while let Some(&number) = again.known.dead.keys().next() {
                again.erase(number).unwrap();
            }
            again.remove_dead().unwrap();
            again.check_gone();
            check(&again.segments, &live);
        }
        again
    }

    /// Searches all files for anything that was dropped.
    fn check_gone(&self) {
        for (name, _) in files_below(&self.disk, "segments") {
            let path = format!("segments/000000000/{name}");
            let file = self.disk.open(&path).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            for (at, word) in bytes.chunks_exact(8).enumerate() {
                let word = u64::from_le_bytes(word.try_into().unwrap());
                let id = word & u64::from(u32::MAX);
                assert!(word - id != MARK || !self.known.dropped.contains(&id), "{id} is left in {path} at {}", at * 8);
            }
        }
    }
}

#[test]
fn through_many_lives_live_records_stay_and_dropped_ones_are_in_no_file() {
    let mut moved_on = 0;
    for seed in 0..40 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = Store::open(SimDisk::new(), Known::default()).unwrap();
        for _life in 0..5 {
            for _ in 0..rng.usize(..80) {
                store.step(&mut rng).unwrap();
            }
            let left = if rng.u32(..4) == 0 { store.disk.kill() } else { store.disk.crash(rng.u64(..)) };
            store = store.restart(left, rng.bool());
        }
        let highest = store.known.segments.keys().next_back().map_or(0, |number| number.0);
        moved_on += u64::from(highest > store.known.segments.len() as u64 + 2);
    }
    assert!(moved_on > 20, "segments were hardly ever removed");
}

#[test]
fn the_power_may_go_at_any_call() {
    let run = |power: u64| {
        let mut rng = fastrand::Rng::with_seed(5);
        let disk = SimDisk::new();
        let mut store = Store::open(disk.clone(), Known::default()).unwrap();
        disk.power_off_after(power);
        for _ in 0..150 {
            if store.step(&mut rng).is_err() {
                return (store, false);
            }
        }
        (store, true)
    };
    let mut power = 0;
    loop {
        let (store, finished) = run(power);
        let left = store.disk.crash(power);
        store.restart(left, true);
        if finished {
            break;
        }
        power += 1;
    }
    assert!(power > 150, "{power} calls");
}

#[test]
fn what_was_dropped_is_still_there_until_it_is_erased() {
    let mut store = Store::open(SimDisk::new(), Known::default()).unwrap();
    let id = store.new_id();
    let kept = append(&store.segments, marked(id, 100)).unwrap();
    store.waiting.push((id, kept));
    store.commit().unwrap();
    store.drop_content(id);
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.check_gone()));
    assert!(found.is_err(), "the search finds nothing, so the tests here prove nothing");
}
