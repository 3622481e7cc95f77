//! The bytes of a segment: file header, record header, block checksums, padding (FORMAT.md, *Segments*).
//!
//! Pure: it touches no file, panics on no bytes and allocates by no stored number. What does not hold is a [`Fault`] that
//! says where.

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::{Algorithm, Digest, HASH_LEN_MAX},
    location::{RecordKind, SegmentNumber},
};

use super::error::{Fault, SegmentError};

const MAGIC: &[u8; 8] = b"ORLOPSEG";
/// The version of the files that are written.
pub const VERSION: u32 = 1;
const RECORD_MAGIC: &[u8; 4] = b"OREC";
/// Length of the header of a segment file; the first record of a shared segment begins behind it.
pub(super) const FILE_HEADER_LEN: u64 = 64;
/// Length of the header of a record.
pub(super) const RECORD_HEADER_LEN: u64 = 96;
/// Where the header of a single segment's record lies, so that its payload begins at a page.
pub(super) const SINGLE_RECORD_OFFSET: u64 = 4000;
/// Where the payload of a single segment begins.
pub(super) const SINGLE_PAYLOAD_OFFSET: u64 = SINGLE_RECORD_OFFSET + RECORD_HEADER_LEN;
/// Payload bytes under one checksum.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;
/// Records begin and end at multiples of this.
pub(super) const RECORD_ALIGN: u64 = 32;
const SUM_LEN: u64 = 4;
/// Segments in one directory. A power of ten, so that an operator finds a file by dropping its last three digits.
const FAN_OUT: u64 = 1000;

const _: () = assert!(SINGLE_PAYLOAD_OFFSET == 4096 && SINGLE_RECORD_OFFSET.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(FILE_HEADER_LEN.is_multiple_of(RECORD_ALIGN) && RECORD_HEADER_LEN.is_multiple_of(RECORD_ALIGN));

/// How a segment is filled. The number is its code in the file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum SegmentKind {
    /// Records of small content, appended.
    Shared = 1,
    /// One record of large content, written as it is uploaded.
    Single = 2,
}

impl SegmentKind {
    /// The kind of a stored code.
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Shared),
            2 => Some(Self::Single),
            _ => None,
        }
    }
}

/// The directory of a segment's file.
pub(super) fn directory_of(number: SegmentNumber) -> String {
    format!("segments/{:09}", fan_out(number))
}

/// The number of that directory.
pub(super) fn fan_out(number: SegmentNumber) -> u64 {
    number.0 / FAN_OUT
}

/// The last component of its path.
pub(super) fn file_name(number: SegmentNumber) -> String {
    format!("{:012}.segment", number.0)
}

/// Its path below the disk's root.
pub fn path_of(number: SegmentNumber) -> String {
    format!("{}/{}", directory_of(number), file_name(number))
}

/// The segment that a path belongs to; `None` unless it is exactly that segment's path.
pub fn number_of(path: &str) -> Option<SegmentNumber> {
    let name = path.rsplit('/').next()?.strip_suffix(".segment")?;
    let number = SegmentNumber(name.parse().ok()?);
    (path_of(number) == path).then_some(number)
}

/// The lengths of a record, all from that of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of content.
    pub(super) payload_len: u64,
    /// Bytes of checksums behind it.
    pub(super) table_len: u64,
    /// Bytes of the whole record, header and padding included.
    pub(super) record_len: u64,
}

impl Layout {
    /// `None` when no file could hold it.
    pub(super) fn of(payload_len: u64) -> Option<Self> {
        let table_len = payload_len.div_ceil(BLOCK_BYTES).checked_mul(SUM_LEN)?;
        let used = RECORD_HEADER_LEN.checked_add(payload_len)?.checked_add(table_len)?;
        let record_len = used.checked_next_multiple_of(RECORD_ALIGN)?;
        Some(Self { payload_len, table_len, record_len })
    }

    /// Offset in the record of the checksums.
    pub(super) fn table_offset(&self) -> u64 {
        RECORD_HEADER_LEN + self.payload_len
    }

    /// Offset in the record of the padding.
    pub(super) fn padding_offset(&self) -> u64 {
        self.table_offset() + self.table_len
    }
}

/// The header of a segment file.
pub(super) fn encode_file_header(kind: SegmentKind, number: SegmentNumber, store_id: &[u8; 16]) -> Vec<u8> {
    let mut header = Encoder::new();
    header.raw(MAGIC).u32(VERSION).u32(kind as u32).u64(number.0).raw(store_id).raw(&[0; 20]);
    sealed_by_sum(header)
}

/// The header of a record.
pub(super) fn encode_record_header(kind: RecordKind, digest: &Digest, payload_len: u64) -> Vec<u8> {
    let mut hash = [0; HASH_LEN_MAX];
    hash[..digest.hash().len()].copy_from_slice(digest.hash());
    let mut header = Encoder::new();
    header.raw(RECORD_MAGIC).u8(kind as u8).u8(digest.algorithm() as u8).u16(0).u64(payload_len);
    header.raw(&hash).raw(&[0; 12]);
    sealed_by_sum(header)
}

fn sealed_by_sum(mut header: Encoder) -> Vec<u8> {
    let sum = crc32fast::hash(&header.clone().finish());
    header.u32(sum);
    header.finish()
}

/// Checks the header of the file of segment `number`; its kind.
pub(super) fn check_file_header(
    bytes: &[u8],
    number: SegmentNumber,
    store_id: &[u8; 16],
) -> Result<SegmentKind, SegmentError> {
    let unknown = |field, found| SegmentError::Version { segment: number, field, found };
    let damaged = |fault: Fault| fault.of(number, None);
    let short = |error: DecodeError| damaged(undecodable(0, &error));

    let mut fields = Decoder::new(bytes);
    expect(0, "the segment's magic", hex(MAGIC), hex(fields.raw(8, "magic").map_err(short)?)).map_err(damaged)?;
    // A version is refused by name before the checksum is tried: it may lie elsewhere in another version.
    match fields.u32("version").map_err(short)? {
        VERSION => {}
        found => return Err(unknown("format version", found)),
    }
    check_sum(bytes, 0, "the checksum of the segment's header").map_err(damaged)?;
    let kind = fields.u32("kind").map_err(short)?;
    let kind = SegmentKind::from_code(kind).ok_or_else(|| unknown("kind", kind))?;
    let found = fields.u64("number").map_err(short)?;
    expect(0, "the segment's number", number.0, found).map_err(damaged)?;
    let found = fields.raw(16, "store id").map_err(short)?;
    expect(0, "the store's id", hex(store_id), hex(found)).map_err(damaged)?;
    Ok(kind)
}

/// Checks the header of the record at `offset` of a segment; its kind.
pub(super) fn check_record_header(
    bytes: &[u8],
    offset: u64,
    digest: &Digest,
    payload_len: u64,
) -> Result<RecordKind, Fault> {
    let short = |error: DecodeError| undecodable(offset, &error);
    let mut fields = Decoder::new(bytes);
    expect(offset, "the record's magic", hex(RECORD_MAGIC), hex(fields.raw(4, "magic").map_err(short)?))?;
    check_sum(bytes, offset, "the checksum of the record's header")?;
    let kind = fields.u8("kind").map_err(short)?;
    let kind = RecordKind::from_code(kind).ok_or_else(|| Fault::new(offset, "the record's kind", "1 or 2", kind))?;
    let algorithm = fields.u8("algorithm").map_err(short)?;
    fields.u16("reserved").map_err(short)?;
    expect(offset, "the record's payload length", payload_len, fields.u64("payload length").map_err(short)?)?;
    let hash = fields.raw(HASH_LEN_MAX, "hash").map_err(short)?;
    let found = Algorithm::from_code(algorithm)
        .and_then(|algorithm| Digest::from_hash(algorithm, hash.get(..algorithm.hash_len())?))
        .map_or_else(|| format!("of the unknown algorithm {algorithm}"), |found| found.to_string());
    expect(offset, "the record's digest", digest.to_string(), found)?;
    Ok(kind)
}

/// What a header says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: RecordKind,
    pub(super) digest: Digest,
    pub(super) layout: Layout,
}

/// The header that `bytes` are, if they are one. That a record lies there is not proven by it: content can hold such bytes.
pub(super) fn decode_record_header(bytes: &[u8]) -> Option<RecordHeader> {
    if !bytes.starts_with(RECORD_MAGIC) || check_sum(bytes, 0, "the checksum of the record's header").is_err() {
        return None;
    }
    let mut fields = Decoder::new(bytes.get(RECORD_MAGIC.len()..)?);
    let kind = RecordKind::from_code(fields.u8("kind").ok()?)?;
    let algorithm = Algorithm::from_code(fields.u8("algorithm").ok()?)?;
    fields.u16("reserved").ok()?;
    let layout = Layout::of(fields.u64("payload length").ok()?)?;
    let hash = fields.raw(HASH_LEN_MAX, "hash").ok()?;
    let digest = Digest::from_hash(algorithm, hash.get(..algorithm.hash_len())?)?;
    Some(RecordHeader { kind, digest, layout })
}

/// A header's last four bytes are the checksum of all before them.
fn check_sum(header: &[u8], offset: u64, what: &'static str) -> Result<(), Fault> {
    let Some((covered, &stored)) = header.split_last_chunk() else {
        return Err(Fault::new(offset, what, "4 bytes", header.len()));
    };
    let (computed, stored) = (crc32fast::hash(covered), u32::from_le_bytes(stored));
    expect(offset, what, format!("{computed:08x}"), format!("{stored:08x}"))
}

/// Checks whole blocks of payload against their checksums. `blocks` begins at a block's begin, `table` with that block's
/// checksum, and `offset` is where `blocks` lies in the segment.
pub(super) fn check_blocks(blocks: &[u8], table: &[u8], offset: u64) -> Result<(), Fault> {
    let mut sums = table.chunks_exact(SUM_LEN as usize);
    for (at, block) in (0u64..).zip(blocks.chunks(BLOCK_BYTES as usize)) {
        let computed = crc32fast::hash(block).to_le_bytes();
        let stored = sums.next().unwrap_or_default();
        if computed != stored {
            let offset = offset.saturating_add(at.saturating_mul(BLOCK_BYTES));
            return Err(Fault::new(offset, "the checksum of a block", hex(&computed), hex(stored)));
        }
    }
    Ok(())
}

/// Checks that `bytes`, which lie at `offset`, are all zero.
pub(super) fn check_zeros(bytes: &[u8], offset: u64) -> Result<(), Fault> {
    match (offset..).zip(bytes).find(|(_, byte)| **byte != 0) {
        None => Ok(()),
        Some((offset, byte)) => Err(Fault::new(offset, "a byte of padding", "00", hex(&[*byte]))),
    }
}

fn expect<T: PartialEq + ToString>(offset: u64, what: &'static str, expected: T, found: T) -> Result<(), Fault> {
    if expected == found { Ok(()) } else { Err(Fault::new(offset, what, expected, found)) }
}

fn undecodable(offset: u64, error: &DecodeError) -> Fault {
    Fault::new(offset, error.field, "there", error.problem)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Computes the checksums of a payload's blocks as its bytes come. Holds 4 bytes per 64 KiB of payload.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockSums {
    table: Vec<u8>,
    block: crc32fast::Hasher,
    payload_len: u64,
}

impl BlockSums {
    /// Takes more of the payload.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.payload_len % BLOCK_BYTES;
            let (taken, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.block.update(taken);
            self.payload_len += taken.len() as u64;
            if self.payload_len.is_multiple_of(BLOCK_BYTES) {
                self.end_block();
            }
            bytes = rest;
        }
    }

    /// What follows the payload in its record: checksums and padding.
    pub(super) fn finish(mut self, layout: &Layout) -> Vec<u8> {
        if !self.payload_len.is_multiple_of(BLOCK_BYTES) {
            self.end_block();
        }
        self.table.resize((layout.record_len - layout.table_offset()) as usize, 0);
        self.table
    }

    fn end_block(&mut self) {
        let sum = std::mem::take(&mut self.block).finalize();
        self.table.extend_from_slice(&sum.to_le_bytes());
    }
}
