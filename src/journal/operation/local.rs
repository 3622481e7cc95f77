//! Local records: what this machine did with its files, and their bytes.

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::Digest,
    location::{Location, RecordKind, SegmentNumber},
    name::RepositoryName,
};

use super::{RepositoryId, SessionId, VERSION, version};

/// Work that can be paused. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Pausable {
    /// Drops, and the erasing of what they leave.
    Collect = 1,
    /// Moving what lives out of sparse segments.
    Compact = 2,
    /// Drops, because the clock has jumped; nobody asks for that.
    Clock = 3,
    /// Reading everything again.
    Scrub = 4,
}

impl Pausable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Collect, Self::Compact, Self::Clock, Self::Scrub];

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&what| what as u8 == code)
    }
}

/// A record of what this machine did with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalRecord {
    /// Content lies in a segment from now on.
    Placed {
        /// The content.
        digest: Digest,
        /// What it is.
        kind: RecordKind,
        /// Whether the segment holds this record only.
        single: bool,
        /// Where its record begins.
        location: Location,
        /// Length of the content in bytes.
        len: u64,
        /// Length of the whole record with checksums and padding.
        record_len: u64,
    },
    /// A shared segment takes no more records.
    Sealed {
        /// The segment.
        segment: SegmentNumber,
        /// Its length in bytes.
        len: u64,
    },
    /// An unfinished upload has this much, durably.
    UploadMarked {
        /// The session.
        session: SessionId,
        /// Where it was started.
        repository: RepositoryName,
        /// The single segment that it writes.
        segment: SegmentNumber,
        /// Bytes of content that are synced.
        bytes: u64,
    },
    /// An upload that was marked is finished, cancelled or expired.
    UploadEnded {
        /// The session.
        session: SessionId,
    },
    /// Content was copied to another place; it lies there if it still lay where it was copied from.
    Moved {
        /// The content.
        digest: Digest,
        /// The place of the record that was copied.
        from: Location,
        /// The place of the copy, in a shared segment.
        to: Location,
    },
    /// A record that was written is named by nobody.
    Discarded {
        /// Its place.
        location: Location,
        /// Its length in bytes.
        record_len: u64,
    },
    /// The bytes of dead records are gone from the disk.
    Erased {
        /// Their places; at most 1,000.
        records: Vec<Location>,
    },
    /// A segment in which nothing lived is gone.
    SegmentRemoved {
        /// The segment.
        segment: SegmentNumber,
    },
    /// A client was told that a blob is there, and its grace was prolonged.
    Renewed {
        /// The repository that links it.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
        /// When the grace ends, in Unix milliseconds.
        due_ms: u64,
    },
    /// A collection has ended. What it says is text that no state follows from.
    Reported {
        /// Its number: one more than the last one's.
        number: u64,
        /// What it came to, as JSON.
        summary: String,
        /// What it dropped one by one, as JSON.
        items: String,
    },
    /// Some work is paused, or goes on.
    Paused {
        /// What.
        what: Pausable,
        /// Until when, in Unix milliseconds: 0 says that it goes on, [`u64::MAX`] until somebody lets it.
        until_ms: u64,
    },
    /// Manifests were pulled.
    Pulled {
        /// The repository that they were pulled from.
        repository: RepositoryId,
        /// When, in Unix milliseconds: the beginning of the hour.
        pulled_ms: u64,
        /// Which; at most 1,000.
        digests: Vec<Digest>,
    },
}

const PLACED: u8 = 1;
const SEALED: u8 = 2;
const UPLOAD_MARKED: u8 = 3;
const UPLOAD_ENDED: u8 = 4;
const MOVED: u8 = 5;
const DISCARDED: u8 = 6;
const ERASED: u8 = 7;
const SEGMENT_REMOVED: u8 = 8;
const RENEWED: u8 = 9;
const REPORTED: u8 = 10;
const PAUSED: u8 = 11;
const PULLED: u8 = 12;

impl LocalRecord {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        match self {
            Self::Placed { digest, kind, single, location, len, record_len } => {
                e.u8(PLACED).u8(VERSION).digest(digest).u8(*kind as u8).bool(*single);
                encode_location(&mut e, location).u64(*len).u64(*record_len);
            }
            Self::Sealed { segment, len } => {
                e.u8(SEALED).u8(VERSION).u64(segment.0).u64(*len);
            }
            Self::UploadMarked { session, repository, segment, bytes } => {
                e.u8(UPLOAD_MARKED).u8(VERSION).raw(session).str(repository.as_str()).u64(segment.0).u64(*bytes);
            }
            Self::UploadEnded { session } => {
                e.u8(UPLOAD_ENDED).u8(VERSION).raw(session);
            }
            Self::Moved { digest, from, to } => {
                e.u8(MOVED).u8(VERSION).digest(digest);
                encode_location(encode_location(&mut e, from), to);
            }
            Self::Discarded { location, record_len } => {
                encode_location(e.u8(DISCARDED).u8(VERSION), location).u64(*record_len);
            }
            Self::Erased { records } => {
                e.u8(ERASED).u8(VERSION).list(records, |e, location| {
                    encode_location(e, location);
                });
            }
            Self::SegmentRemoved { segment } => {
                e.u8(SEGMENT_REMOVED).u8(VERSION).u64(segment.0);
            }
            Self::Renewed { repository, digest, due_ms } => {
                e.u8(RENEWED).u8(VERSION).u32(*repository).digest(digest).u64(*due_ms);
            }
            Self::Reported { number, summary, items } => {
                e.u8(REPORTED).u8(VERSION).u64(*number).str(summary).str(items);
            }
            Self::Paused { what, until_ms } => {
                e.u8(PAUSED).u8(VERSION).u8(*what as u8).u64(*until_ms);
            }
            Self::Pulled { repository, pulled_ms, digests } => {
                e.u8(PULLED).u8(VERSION).u32(*repository).u64(*pulled_ms).list(digests, |e, digest| {
                    e.digest(digest);
                });
            }
        }
        e.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// On anything else, an unknown kind or version included.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(bytes);
        let kind = d.u8("local record kind")?;
        version(&mut d, VERSION, "local record version")?;
        let record = match kind {
            PLACED => Self::Placed {
                digest: d.digest("digest")?,
                kind: RecordKind::from_code(d.u8("record kind")?)
                    .ok_or(DecodeError { field: "record kind", problem: "unknown" })?,
                single: d.bool("single")?,
                location: decode_location(&mut d)?,
                len: d.u64("length")?,
                record_len: d.u64("record length")?,
            },
            SEALED => Self::Sealed { segment: SegmentNumber(d.u64("segment")?), len: d.u64("length")? },
            UPLOAD_MARKED => Self::UploadMarked {
                session: session(&mut d)?,
                repository: d.parsed("repository name")?,
                segment: SegmentNumber(d.u64("segment")?),
                bytes: d.u64("bytes")?,
            },
            UPLOAD_ENDED => Self::UploadEnded { session: session(&mut d)? },
            MOVED => Self::Moved {
                digest: d.digest("digest")?,
                from: decode_location(&mut d)?,
                to: decode_location(&mut d)?,
            },
            DISCARDED => Self::Discarded { location: decode_location(&mut d)?, record_len: d.u64("record length")? },
            ERASED => Self::Erased { records: d.list("records", decode_location)? },
            SEGMENT_REMOVED => Self::SegmentRemoved { segment: SegmentNumber(d.u64("segment")?) },
            RENEWED => {
                Self::Renewed { repository: d.u32("repository")?, digest: d.digest("digest")?, due_ms: d.u64("due")? }
            }
            REPORTED => Self::Reported {
                number: d.u64("report")?,
                summary: d.str("summary")?.to_owned(),
                items: d.str("items")?.to_owned(),
            },
            PAUSED => Self::Paused {
                what: Pausable::from_code(d.u8("what is paused")?)
                    .ok_or(DecodeError { field: "what is paused", problem: "unknown" })?,
                until_ms: d.u64("until")?,
            },
            PULLED => Self::Pulled {
                repository: d.u32("repository")?,
                pulled_ms: d.u64("pulled")?,
                digests: d.list("digests", |d| d.digest("digest"))?,
            },
            _ => return Err(DecodeError { field: "local record kind", problem: "unknown; a newer orlop wrote it" }),
        };
        d.finish("local record")?;
        Ok(record)
    }
}

fn encode_location<'a>(e: &'a mut Encoder, location: &Location) -> &'a mut Encoder {
    e.u64(location.segment.0).u64(location.offset)
}

fn decode_location(d: &mut Decoder<'_>) -> Result<Location, DecodeError> {
    Ok(Location { segment: SegmentNumber(d.u64("segment")?), offset: d.u64("offset")? })
}

fn session(d: &mut Decoder<'_>) -> Result<SessionId, DecodeError> {
    let mut session = [0; 16];
    session.copy_from_slice(d.raw(16, "session")?);
    Ok(session)
}
