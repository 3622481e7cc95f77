//! The bytes of one file: those that calls see, those that are durable, and the changes that lie between.
//!
//! It promises what a disk with a volatile cache promises and nothing more: what was not flushed survives or not by sectors
//! (of 512 bytes, or larger ones), each change of a sector by itself, so an older change may survive a newer one. A changed length likewise.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use fastrand::Rng;

/// The smallest part that survives whole.
const SECTOR_BYTES: u64 = 512;
/// What larger disks write whole.
pub(crate) const BLOCK_BYTES: u64 = 4096;

type Block = [u8; BLOCK_BYTES as usize];

/// How much of what was not flushed survives a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survival {
    /// Of a hundred changes, how many.
    pub(crate) percent: u8,
    /// What survives whole, in bytes: each such part of a change survives by itself.
    pub(crate) atom_bytes: u64,
}

impl Survival {
    /// One of the ways in which disks lose what they had promised to nobody.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            percent: [0, 10, 50, 90, 100][rng.usize(0..5)],
            atom_bytes: [SECTOR_BYTES, SECTOR_BYTES, BLOCK_BYTES, u64::MAX / 2][rng.usize(0..4)],
        }
    }

    /// Whether the next thing survives.
    pub(crate) fn keeps(self, rng: &mut Rng) -> bool {
        rng.u8(0..100) < self.percent
    }
}

/// Bytes by block; what is missing is zero.
#[derive(Debug, Clone, Default)]
struct Blocks(BTreeMap<u64, Arc<Block>>);

impl Blocks {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (at, range) in pieces(offset, buffer.len() as u64, BLOCK_BYTES) {
            let (number, start) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let part = &mut buffer[range];
            match self.0.get(&number) {
                Some(block) => part.copy_from_slice(&block[start..start + part.len()]),
                None => part.fill(0),
            }
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, range) in pieces(offset, bytes.len() as u64, BLOCK_BYTES) {
            let part = &bytes[range];
            let block = self.0.entry(at / BLOCK_BYTES).or_insert_with(|| Arc::new([0; BLOCK_BYTES as usize]));
            let start = (at % BLOCK_BYTES) as usize;
            Arc::make_mut(block)[start..start + part.len()].copy_from_slice(part);
        }
    }

    fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let (first, behind) = (offset / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
        let touched: Vec<u64> = self.0.range(first..behind.max(first)).map(|(&number, _)| number).collect();
        for number in touched {
            let (start, stop) = (number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES);
            if offset <= start && stop <= end {
                self.0.remove(&number);
            } else {
                let (from, to) = (offset.max(start), end.min(stop));
                self.write(from, &vec![0; (to - from) as usize]);
            }
        }
    }
}

/// A range cut at multiples of `size`: where each piece begins, and where it lies in the range.
fn pieces(offset: u64, len: u64, size: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut at = offset;
    let end = offset + len;
    std::iter::from_fn(move || {
        let begin = at;
        at = end.min((begin / size + 1) * size);
        (begin < end).then(|| (begin, (begin - offset) as usize..(at - offset) as usize))
    })
}

#[derive(Debug, Clone)]
enum Change {
    Bytes {
        offset: u64,
        bytes: Box<[u8]>,
    },
    Zeros {
        offset: u64,
        len: u64,
    },
    /// Another length of the file.
    Len(u64),
}

impl Change {
    fn range(&self) -> (u64, u64) {
        match self {
            Self::Bytes { offset, bytes } => (*offset, bytes.len() as u64),
            Self::Zeros { offset, len } => (*offset, *len),
            Self::Len(_) => (0, 0),
        }
    }

    fn apply(&self, blocks: &mut Blocks) {
        match self {
            Self::Bytes { offset, bytes } => blocks.write(*offset, bytes),
            Self::Zeros { offset, len } => blocks.zero(*offset, *len),
            Self::Len(_) => {}
        }
    }

    /// Applies each atom or not, at random.
    fn apply_some(&self, blocks: &mut Blocks, survival: Survival, rng: &mut Rng) {
        let (offset, len) = self.range();
        for (at, range) in pieces(offset, len, survival.atom_bytes) {
            if survival.keeps(rng) {
                match self {
                    Self::Bytes { bytes, .. } => blocks.write(at, &bytes[range]),
                    Self::Zeros { .. } => blocks.zero(at, range.len() as u64),
                    Self::Len(_) => {}
                }
            }
        }
    }
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    seen: Blocks,
    len: u64,
    durable: Blocks,
    durable_len: u64,
    pending: Vec<Change>,
    /// How many changes came before those that are pending.
    settled: u64,
}

impl Content {
    /// A durable file of zeros.
    pub(crate) fn zeros(len: u64) -> Self {
        Self { len, durable_len: len, ..Self::default() }
    }

    /// Its length, as calls see it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Blocks of 512 bytes that it takes.
    pub(crate) fn sectors(&self) -> u64 {
        self.seen.0.len() as u64 * (BLOCK_BYTES / SECTOR_BYTES)
    }

    /// Blocks of 4 KiB with changes that were not flushed.
    pub(crate) fn unflushed_blocks(&self) -> u64 {
        let mut blocks = BTreeSet::new();
        for change in self.pending.iter().filter(|change| matches!(change, Change::Bytes { .. })) {
            let (offset, len) = change.range();
            blocks.extend(offset / BLOCK_BYTES..(offset + len).div_ceil(BLOCK_BYTES));
        }
        blocks.len() as u64
    }

    /// What lies in a range, up to the end of the file.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let len = len.min(self.len.saturating_sub(offset));
        let mut buffer = vec![0; len as usize];
        self.seen.read(offset, &mut buffer);
        buffer
    }

    /// Changes bytes, and the length where they go beyond it.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.change(Change::Bytes { offset, bytes: bytes.into() });
        self.lengthen(offset + bytes.len() as u64);
    }

    /// Zeroes a range inside of the file.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        let len = len.min(self.len.saturating_sub(offset));
        self.change(Change::Zeros { offset, len });
    }

    /// Makes it at least so long.
    pub(crate) fn lengthen(&mut self, len: u64) {
        if len > self.len {
            self.set_len(len);
        }
    }

    /// Changes the length; what a shorter one cuts off is zero when it comes back.
    pub(crate) fn set_len(&mut self, len: u64) {
        self.zero(len, self.len.saturating_sub(len));
        self.len = len;
        self.pending.push(Change::Len(len));
    }

    fn change(&mut self, change: Change) {
        if change.range().1 > 0 {
            change.apply(&mut self.seen);
            self.pending.push(change);
        }
    }

    /// Where a flush that begins now ends: what is changed after it began need not become durable by it.
    pub(crate) fn mark(&self) -> u64 {
        self.settled + self.pending.len() as u64
    }

    /// Makes durable what was changed before a mark.
    pub(crate) fn flush(&mut self, mark: u64) {
        let count = mark.saturating_sub(self.settled).min(self.pending.len() as u64);
        for change in self.pending.drain(..count as usize) {
            change.apply(&mut self.durable);
            if let Change::Len(len) = change {
                self.durable_len = len;
            }
        }
        self.settled += count;
    }

    /// A flush that failed: what was written stays visible, and no later flush makes it durable, as disks do that drop
    /// their cache.
    pub(crate) fn lose(&mut self) {
        self.settled = self.mark();
        self.pending.clear();
    }

    /// The file as a power cut now would leave it; all of that is durable.
    pub(crate) fn cut(&self, survival: Survival, rng: &mut Rng) -> Self {
        let mut blocks = self.durable.clone();
        for change in &self.pending {
            change.apply_some(&mut blocks, survival, rng);
        }
        let lens = self.pending.iter().filter_map(|change| match change {
            Change::Len(len) => Some(*len),
            _ => None,
        });
        let len = lens.filter(|_| survival.keeps(rng)).last().unwrap_or(self.durable_len);
        blocks.zero(len, u64::MAX - len);
        Self { seen: blocks.clone(), len, durable: blocks, durable_len: len, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(content: &Content, survival: Survival) -> BTreeSet<Vec<u8>> {
        (0..200).map(|seed| content.cut(survival, &mut Rng::with_seed(seed)).read(0, 4096)).collect()
    }

    const TORN: Survival = Survival { percent: 50, atom_bytes: 512 };

    #[test]
    fn flushed_bytes_survive_every_cut() {
        let mut content = Content::zeros(0);
        content.write(100, &[7; 3000]);
        content.flush(content.mark());
        assert_eq!(survivors(&content, TORN), [content.read(0, 4096)].into());
    }

    #[test]
    fn sectors_that_were_not_flushed_survive_each_by_itself() {
        let mut content = Content::zeros(1024);
        content.write(0, &[1; 1024]);
        content.write(0, &[2; 512]);
        let expected: BTreeSet<Vec<u8>> =
            [0, 1, 2].iter().flat_map(|&a| [0, 1].map(|b| [[a; 512], [b; 512]].concat())).collect();
        assert_eq!(survivors(&content, TORN), expected);
        let whole: BTreeSet<Vec<u8>> =
            [(0, 0), (1, 1), (2, 0), (2, 1)].map(|(a, b)| [[a; 512], [b; 512]].concat()).into();
        assert_eq!(survivors(&content, Survival { atom_bytes: 4096, ..TORN }), whole);
        assert_eq!(content.unflushed_blocks(), 1);
    }

    #[test]
    fn a_flush_covers_what_came_before_it() {
        let mut content = Content::zeros(1024);
        content.write(0, &[1; 512]);
        let mark = content.mark();
        content.write(512, &[1; 512]);
        content.flush(mark);
        content.flush(mark);
        let expected = [[[1; 512], [0; 512]].concat(), [[1; 512], [1; 512]].concat()];
        assert_eq!(survivors(&content, TORN), expected.into());
    }

    #[test]
    fn a_new_length_survives_or_not() {
        let mut content = Content::zeros(0);
        content.write(0, &[1; 512]);
        content.flush(content.mark());
        content.write(512, &[1; 512]);
        let lens: BTreeSet<usize> = survivors(&content, TORN).iter().map(Vec::len).collect();
        assert_eq!(lens, [512, 1024].into());
        content.set_len(10);
        content.flush(content.mark());
        content.set_len(600);
        content.flush(content.mark());
        assert_eq!(content.read(0, 4096), [vec![1; 10], vec![0; 590]].concat());
    }

    #[test]
    fn what_a_failed_flush_lost_is_seen_but_never_durable() {
        let mut content = Content::zeros(512);
        content.write(0, &[1; 512]);
        content.lose();
        content.write(0, &[2; 10]);
        content.flush(content.mark());
        assert_eq!(content.read(0, 512), [vec![2; 10], vec![1; 502]].concat());
        assert_eq!(survivors(&content, TORN), [[vec![2; 10], vec![0; 502]].concat()].into());
    }

    #[test]
    fn zeroed_ranges_read_as_zeros_whatever_blocks_they_cover() {
        let mut content = Content::zeros(0);
        content.write(0, &[1; 20_000]);
        for (offset, len) in [(10, 5), (4000, 9000), (8192, 4096), (19_000, 100_000)] {
            content.zero(offset, len);
            let end = (offset + len).min(20_000);
            assert!(content.read(offset, end - offset).iter().all(|&byte| byte == 0), "{offset} {len}");
        }
        assert_eq!((content.read(0, 11)[9], content.read(18_999, 1)[0], content.len()), (1, 1, 20_000));
    }
}
