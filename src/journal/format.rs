//! The bytes of journal files: file headers, batches, names.
//!
//! Pure: nothing here touches a disk. Decoders take any bytes, never panic, and allocate nothing by a claimed count. The
//! layout is told in FORMAT.md and pinned by a golden test.
//!
//! Invariants:
//! - The id of the store goes into every batch's checksum, so bytes of another store, or bytes that a client had
//!   stored, never pass for a batch of this one.
//! - All lengths are multiples of 8, so every batch begins at one.

use super::{Chain, DIRECTORY, JournalError, Mark, Position, RawRecord, RecordClass};
use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::{Algorithm, Hasher},
};

const JOURNAL_SUFFIX: &str = ".journal";
pub(super) const SNAPSHOT_SUFFIX: &str = ".snapshot";
const TEMPORARY_SUFFIX: &str = ".new";

const FILE_MAGIC: &[u8; 8] = b"ORLOPJNL";
const BATCH_MAGIC: &[u8; 8] = b"ORLBATCH";
/// The version of the files that are written.
pub const VERSION: u32 = 1;

/// Bytes of a file before its first batch.
pub(super) const FILE_HEADER_LEN: usize = 72;
/// Bytes of a batch before its records.
pub(super) const BATCH_HEADER_LEN: usize = 80;
/// Every batch begins at a multiple of it.
pub(super) const ALIGNMENT: usize = 8;
pub(super) const CHAIN_OFFSET: usize = 64;
const RECORD_OVERHEAD: u64 = 5;
const _: () = assert!(FILE_HEADER_LEN.is_multiple_of(ALIGNMENT) && BATCH_HEADER_LEN.is_multiple_of(ALIGNMENT));

/// Most bytes of a batch's records, 5 bytes for each record included. Part of the format: a limit that could be
/// set lower later would turn batches that are already there into damage.
pub const BODY_BYTES_MAX: u32 = 32 << 20;

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// 1 for a store's first file, and so on without holes.
    pub(super) number: u64,
    /// The point in the history where the file begins.
    pub(super) before: Mark,
}

impl FileHeader {
    /// The file's path. Its name tells the numbers that its first records take.
    pub(super) fn path(&self) -> String {
        let Position { lsn, local } = self.before.position;
        format!("{DIRECTORY}/{:016x}-{:016x}{JOURNAL_SUFFIX}", lsn.saturating_add(1), local.saturating_add(1))
    }

    pub(super) fn encode(&self, store_id: &[u8; 16]) -> Vec<u8> {
        let mut fields = Encoder::new();
        fields.raw(store_id).u64(self.number).u64(self.before.position.lsn).u64(self.before.position.local);
        fields.raw(&self.before.chain.0);
        let fields = fields.finish();
        let mut header = Encoder::new();
        header.raw(FILE_MAGIC).u32(VERSION).u32(file_checksum(VERSION, &fields)).raw(&fields);
        header.finish()
    }

    /// # Errors
    /// `UnknownVersion`, `ForeignStore`, or `BadFile` for anything that is no sound header of the file `path`.
    pub(super) fn decode(bytes: &[u8], store_id: &[u8; 16], path: &str) -> Result<Self, JournalError> {
        let bad = |problem| JournalError::BadFile { file: path.to_owned(), problem };
        let short = |_: DecodeError| bad("it is shorter than a header");
        let mut header = Decoder::new(bytes);
        if header.raw(FILE_MAGIC.len(), "magic").map_err(short)? != FILE_MAGIC {
            return Err(bad("it does not begin with the journal's magic"));
        }
        // What follows the version is laid out by the version, so nothing else is looked at before it.
        let version = header.u32("version").map_err(short)?;
        if version != VERSION {
            return Err(JournalError::UnknownVersion { file: path.to_owned(), found: version, known: VERSION });
        }
        let checksum = header.u32("checksum").map_err(short)?;
        let fields = header.raw(FILE_HEADER_LEN - 16, "fields").map_err(short)?;
        if checksum != file_checksum(version, fields) {
            return Err(bad("its header's checksum is wrong"));
        }
        let mut fields = Decoder::new(fields);
        let found = chunk(&mut fields, "store id").map_err(short)?;
        if found != *store_id {
            return Err(JournalError::ForeignStore { file: path.to_owned(), expected: *store_id, found });
        }
        let number = fields.u64("number").map_err(short)?;
        let position = Position {
            lsn: fields.u64("last LSN before").map_err(short)?,
            local: fields.u64("last local number before").map_err(short)?,
        };
        let chain = Chain(chunk(&mut fields, "chain before").map_err(short)?);
        let header = Self { number, before: Mark { position, chain } };
        if header.path() != path {
            return Err(bad("its name is not that of its first record"));
        }
        Ok(header)
    }
}

fn file_checksum(version: u32, fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(FILE_MAGIC);
    hasher.update(&version.to_le_bytes());
    hasher.update(fields);
    hasher.finalize()
}

/// A field of `N` bytes.
pub(super) fn chunk<const N: usize>(decoder: &mut Decoder<'_>, field: &'static str) -> Result<[u8; N], DecodeError> {
    let bytes = decoder.raw(N, field)?;
    bytes.try_into().map_err(|_| DecodeError { field, problem: "too short" })
}

/// Records that became durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Position before the batch.
    pub first: Position,
    /// Time of its records, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its records in order; at least one. Each class is numbered on from `first` by itself.
    pub records: Vec<RawRecord>,
    /// The chain after the batch.
    pub chain: Chain,
}

impl Batch {
    /// Position of the batch's last records.
    pub fn last(&self) -> Position {
        let logical = self.records.iter().filter(|record| record.class == RecordClass::Logical).count() as u64;
        let local = self.records.len() as u64 - logical;
        Position { lsn: self.first.lsn.saturating_add(logical), local: self.first.local.saturating_add(local) }
    }
}

/// A batch as it goes to the disk.
pub(super) struct EncodedBatch {
    /// All of its bytes, padding included.
    pub(super) bytes: Vec<u8>,
    /// The point after it.
    pub(super) after: Mark,
}

/// # Errors
/// `BatchTooLarge` when the records pass [`BODY_BYTES_MAX`].
pub(super) fn encode_batch(
    store_id: &[u8; 16],
    before: Mark,
    time_ms: u64,
    records: &[RawRecord],
) -> Result<EncodedBatch, JournalError> {
    let body_bytes: u64 = records.iter().map(|record| RECORD_OVERHEAD + record.payload.len() as u64).sum();
    let too_large =
        JournalError::BatchTooLarge { records: records.len(), bytes: body_bytes, bytes_max: BODY_BYTES_MAX.into() };
    let body_len = u32::try_from(body_bytes).ok().filter(|len| *len <= BODY_BYTES_MAX).ok_or(too_large.clone())?;
    // A record has 5 bytes or more, so the counts fit when the bytes do.
    let logical = records.iter().filter(|record| record.class == RecordClass::Logical).count() as u32;
    let local = records.len() as u32 - logical;
    let last = before.position.advance(logical, local).ok_or(too_large)?;

    let mut encoder = Encoder::new();
    encoder.raw(BATCH_MAGIC).u32(body_len).u32(logical).u32(local).u32(0);
    encoder.u64(before.position.lsn).u64(before.position.local).u64(time_ms).raw(&before.chain.0).raw(&[0; 16]);
    for record in records {
        encoder.u8(record.class as u8).bytes(&record.payload);
    }
    let mut bytes = encoder.finish();
    let chain = checksum(store_id, &bytes);
    bytes[CHAIN_OFFSET..BATCH_HEADER_LEN].copy_from_slice(&chain.0);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Ok(EncodedBatch { bytes, after: Mark { position: last, chain } })
}

/// The checksum over a batch without its padding.
pub(super) fn checksum(store_id: &[u8; 16], batch: &[u8]) -> Chain {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(store_id);
    hasher.update(&batch[..CHAIN_OFFSET]);
    hasher.update(&batch[BATCH_HEADER_LEN..]);
    let mut chain = [0; 16];
    chain.copy_from_slice(&hasher.finish().hash()[..16]);
    Chain(chain)
}

/// What stands before a batch's records; a claim until [`BatchHeader::proves`] it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// The point before the batch.
    pub(super) before: Mark,
    /// The point after it.
    pub(super) after: Mark,
    time_ms: u64,
    body_len: usize,
}

impl BatchHeader {
    /// The header at the front of `bytes`; `None` when there can be none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut header = Decoder::new(bytes.get(..BATCH_HEADER_LEN)?);
        if header.raw(BATCH_MAGIC.len(), "magic").ok()? != BATCH_MAGIC {
            return None;
        }
        let body_len = header.u32("body length").ok()?;
        let (logical, local) = (header.u32("logical records").ok()?, header.u32("local records").ok()?);
        let zero = header.u32("zero").ok()?;
        let position = Position { lsn: header.u64("lsn").ok()?, local: header.u64("local").ok()? };
        let time_ms = header.u64("time").ok()?;
        let before = Mark { position, chain: Chain(chunk(&mut header, "previous chain").ok()?) };
        let after =
            Mark { position: position.advance(logical, local)?, chain: Chain(chunk(&mut header, "chain").ok()?) };
        let sound = zero == 0 && body_len <= BODY_BYTES_MAX && after.position != before.position;
        sound.then_some(Self { before, after, time_ms, body_len: body_len as usize })
    }

    /// Length of the whole batch in bytes, padding included.
    pub(super) fn batch_len(&self) -> usize {
        self.sealed_len().next_multiple_of(ALIGNMENT)
    }

    /// Bytes of the batch without its padding.
    pub(super) fn sealed_len(&self) -> usize {
        BATCH_HEADER_LEN + self.body_len
    }

    /// Whether `batch` is what this store wrote under this header: checksum and padding.
    pub(super) fn proves(&self, store_id: &[u8; 16], batch: &[u8]) -> bool {
        batch.len() == self.batch_len() && {
            let (sealed, padding) = batch.split_at(self.sealed_len());
            checksum(store_id, sealed) == self.after.chain && padding.iter().all(|byte| *byte == 0)
        }
    }

    /// The records of a batch that the header proves.
    ///
    /// # Errors
    /// When they are not the header's records: a bug or a later version wrote them, not a torn write.
    pub(super) fn batch(&self, bytes: &[u8]) -> Result<Batch, DecodeError> {
        let wrong = |problem| DecodeError { field: "records of a batch", problem };
        let body = bytes.get(BATCH_HEADER_LEN..self.sealed_len()).ok_or(wrong("too short"))?;
        let mut body = Decoder::new(body);
        let mut records = Vec::new();
        while !body.rest().is_empty() {
            let class = match body.u8("record class")? {
                1 => RecordClass::Logical,
                2 => RecordClass::Local,
                _ => return Err(wrong("a class that is not known")),
            };
            records.push(RawRecord { class, payload: body.bytes("record")?.to_vec() });
        }
        let batch = Batch { first: self.before.position, time_ms: self.time_ms, records, chain: self.after.chain };
        if batch.last() == self.after.position { Ok(batch) } else { Err(wrong("their counts are not the header's")) }
    }
}

/// Whether a name in the journal's directory claims to be a journal file.
pub(super) fn is_journal_file(name: &str) -> bool {
    name.ends_with(JOURNAL_SUFFIX)
}

/// Where the journal file of a name begins: the numbers of the last records before it.
pub(super) fn journal_position(name: &str) -> Option<Position> {
    let first = position(name, JOURNAL_SUFFIX)?;
    Some(Position { lsn: first.lsn.checked_sub(1)?, local: first.local.checked_sub(1)? })
}

/// Where the snapshot of a name stands; `None` for what is no snapshot's name.
pub(super) fn snapshot_position(name: &str) -> Option<Position> {
    position(name, SNAPSHOT_SUFFIX)
}

/// The two numbers of a name, in 16 lower-case hexadecimal digits each.
fn position(name: &str, suffix: &str) -> Option<Position> {
    let (lsn, local) = name.strip_suffix(suffix)?.split_once('-')?;
    let number = |text: &str| {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(text, 16).ok().filter(|_| digits)
    };
    Some(Position { lsn: number(lsn)?, local: number(local)? })
}

/// The name under which a file is prepared. It is never read; a crash leaves it behind.
pub(super) fn temporary(path: &str) -> String {
    format!("{path}{TEMPORARY_SUFFIX}")
}

/// Whether a name in the journal's directory is one that a crash left behind.
pub(super) fn is_temporary(name: &str) -> bool {
    let prepared = name.strip_suffix(TEMPORARY_SUFFIX);
    prepared.is_some_and(|name| name.ends_with(JOURNAL_SUFFIX) || name.ends_with(SNAPSHOT_SUFFIX))
}
