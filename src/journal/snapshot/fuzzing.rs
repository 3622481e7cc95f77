//! Snapshots whose checksums are right, whatever else they hold. For fuzzers and tests only.

use super::{
    END_FIELDS_LEN, END_LEN, END_MAGIC, HEADER_LEN, PAGE_HEADER_LEN, PAGE_MAGIC, SnapshotHeader, header_checksum,
    page_checksum,
};
use crate::{
    codec::Decoder,
    digest::{Algorithm, Hasher},
    journal::{Position, fact::Fact},
};

/// Makes a snapshot's store and checksums right: of its header always, and of pages and end, as far as there seem to be
/// any, `with_pages`. Tells where it says that it stands.
pub(in crate::journal) fn seal(bytes: &mut Vec<u8>, store_id: &[u8; 16], with_pages: bool) -> Position {
    bytes.resize(bytes.len().max(HEADER_LEN), 0);
    bytes[16..32].copy_from_slice(store_id);
    let sum = header_checksum(&bytes[16..HEADER_LEN]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    if with_pages {
        seal_pages(bytes);
    }
    let path = "the snapshot";
    SnapshotHeader::decode(&bytes[..HEADER_LEN], store_id, path).map_or(Position::default(), |it| it.mark.position)
}

fn seal_pages(bytes: &mut Vec<u8>) {
    let (mut at, mut pages, mut facts) = (HEADER_LEN, 0_u64, 0_u64);
    while let Some(head) = bytes.get(at..at + PAGE_HEADER_LEN).filter(|head| head.starts_with(PAGE_MAGIC)) {
        let mut fields = Decoder::new(&head[PAGE_MAGIC.len()..]);
        let (Ok(len), Ok(count)) = (fields.u32("length"), fields.u32("facts")) else { return };
        let begin = at + PAGE_HEADER_LEN;
        let Some(body) = begin.checked_add(len as usize).and_then(|end| bytes.get(begin..end)) else { return };
        let sum = page_checksum(len, count, body);
        bytes[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
        (at, pages, facts) = (begin + len as usize, pages + 1, facts + u64::from(count));
    }
    if bytes.get(at..).is_some_and(|rest| rest.starts_with(END_MAGIC)) {
        bytes.resize(at + END_LEN, 0);
        bytes[at + 8..at + 16].copy_from_slice(&pages.to_le_bytes());
        bytes[at + 16..at + 24].copy_from_slice(&facts.to_le_bytes());
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&bytes[..at + END_FIELDS_LEN]);
        bytes[at + END_FIELDS_LEN..].copy_from_slice(hasher.finish().hash());
    }
}

/// The facts of a sound snapshot.
pub(in crate::journal) fn each_fact(bytes: &[u8], visit: &mut dyn FnMut(Fact)) {
    let mut at = HEADER_LEN;
    while let Some(head) = bytes.get(at..at + PAGE_HEADER_LEN).filter(|head| head.starts_with(PAGE_MAGIC)) {
        let mut fields = Decoder::new(&head[PAGE_MAGIC.len()..]);
        let (Ok(len), Ok(count)) = (fields.u32("length"), fields.u32("facts")) else { return };
        at += PAGE_HEADER_LEN;
        let mut body = Decoder::new(bytes.get(at..at + len as usize).unwrap_or_default());
        (0..count).filter_map(|_| Fact::decode(body.bytes("fact").ok()?).ok()).for_each(&mut *visit);
        at += len as usize;
    }
}
