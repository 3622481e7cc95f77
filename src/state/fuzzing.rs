//! What must hold for an index of any rows, as damage could leave it. For fuzzers and tests only.

use super::{dump, facts, recount::recount};
use crate::{
    codec::{DecodeError, Decoder, Encoder},
    disk::{Disk, sim::SimDisk},
    index::{
        Changes, Index, View,
        memory::MemoryIndex,
        schema::{self, SchemaError, Table},
    },
    journal::{
        JournalError,
        fact::Fact,
        snapshot::{self, Part, SnapshotReader},
    },
};

/// Dump, recount and snapshot of any rows end, and panic on none. The input is a sequence of keys and rows.
pub(crate) fn rows(input: &[u8]) {
    let index = MemoryIndex::new();
    let mut changes = Changes::new();
    let mut d = Decoder::new(input);
    while let Ok((key, value)) = next_row(&mut d) {
        if let Some(table) = Table::of(key) {
            schema::fuzzing::row(table, value);
        }
        changes.insert(key.to_vec(), Some(value.to_vec()));
    }
    if index.write(&changes).is_err() {
        return;
    }
    for (key, value) in changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        let _ = Table::of(key).map(|table| dump::show(table, key, value));
    }
    let _ = recount(&index, &mut |difference| drop(difference.to_string()));
    let _ = facts::header(&index);
    let _ = facts::is_settling(&index);
    let _ = facts::each(&index, &mut |fact| {
        assert_eq!(Fact::decode(&fact.encode()).as_ref(), Ok(&fact));
        Ok::<_, SchemaError>(())
    });
}

fn next_row<'a>(d: &mut Decoder<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    let (key_len, value_len) = (d.u8("key")?, d.u16("value")?);
    Ok((d.raw(key_len.into(), "key")?, d.raw(value_len.into(), "value")?))
}

/// The rows of a snapshot of the store of the first format version: all, and each by itself.
pub(crate) fn row_seeds() -> Vec<Vec<u8>> {
    let rows = fixture(&mut |_| ()).and_then(|index| Ok(index.scan(&[], &[u8::MAX], usize::MAX)?)).unwrap_or_default();
    let mut all = Vec::new();
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (key, value) in rows {
        let mut e = Encoder::new();
        e.u8(key.len() as u8).u16(value.len() as u16).raw(&key).raw(&value);
        let row = e.finish();
        all.extend_from_slice(&row);
        seeds.push(row);
    }
    seeds.push(all);
    seeds
}

/// The state of that snapshot; `read` gets its facts in their order.
fn fixture(read: &mut dyn FnMut(&Fact)) -> Result<MemoryIndex, SchemaError> {
    const NAME: &str = "journal/0000000000000014-0000000000000012.snapshot";
    const BYTES: &[u8] =
        include_bytes!("../../tests/fixtures/v1-snapshots/store/journal/0000000000000014-0000000000000012.snapshot");
    let (disk, index) = (SimDisk::new(), MemoryIndex::new());
    let written = disk.create_dir("journal").and_then(|()| disk.create(NAME)?.write_all_at(BYTES, 0));
    let Ok(Some(file)) = written.map(|()| snapshot::list(&disk).ok().and_then(|mut files| files.pop())) else {
        return Ok(index);
    };
    let mut store = [0; 16];
    store.copy_from_slice(&BYTES[16..32]);
    let Ok(mut reader) = SnapshotReader::open(&disk, store, &file) else { return Ok(index) };
    let mut loader = facts::Loader::new(&index, store, reader.header());
    while let Ok(Part::Page(page)) = reader.next_part() {
        page.each(|fact| {
            read(&fact);
            loader.load(fact).map_err(Unloaded)
        })
        .map_err(|Unloaded(error)| error)?;
    }
    loader.finish()?;
    Ok(index)
}

struct Unloaded(SchemaError);

impl From<JournalError> for Unloaded {
    fn from(_: JournalError) -> Self {
        Self(SchemaError::Missing { table: "facts" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the keys of the index are: a snapshot has its facts in the order in which those of earlier versions had them.
    #[test]
    fn a_snapshot_of_the_first_version_gives_its_facts_again_in_the_same_order() {
        let (mut read, mut given) = (Vec::new(), Vec::new());
        let index = fixture(&mut |fact| read.push(fact.clone())).unwrap();
        facts::each(&index, &mut |fact| {
            given.push(fact);
            Ok::<_, SchemaError>(())
        })
        .unwrap();
        assert!(read.iter().filter(|fact| matches!(fact, Fact::Link { .. })).count() > 3);
        assert_eq!(given, read);
    }
}
