//! What must hold for an index of any rows, as damage could leave it. For fuzzers and tests only.

use super::{dump, facts, recount::recount};
use crate::{
    codec::{DecodeError, Decoder, Encoder},
    disk::{Disk, sim::SimDisk},
    index::{
        Changes, Index, Row, View,
        memory::MemoryIndex,
        schema::{self, SchemaError, Table},
    },
    journal::{
        JournalError,
        fact::Fact,
        snapshot::{self, Part, SnapshotReader},
    },
};

/// Dump, recount and snapshot of any rows end, and panic on none. The input is a sequence of tables, keys and rows.
pub(crate) fn rows(input: &[u8]) {
    let index = MemoryIndex::new();
    let mut changes = Changes::new();
    let mut d = Decoder::new(input);
    while let Ok((table, key, value)) = next_row(&mut d) {
        schema::fuzzing::row(table, value);
        changes.insert([&[table as u8], key].concat(), Some(value.to_vec()));
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

fn next_row<'a>(d: &mut Decoder<'a>) -> Result<(Table, &'a [u8], &'a [u8]), DecodeError> {
    let table = Table::ALL[usize::from(d.u8("table")?) % Table::ALL.len()];
    let (key_len, value_len) = (d.u8("key")?, d.u16("value")?);
    Ok((table, d.raw(key_len.into(), "key")?, d.raw(value_len.into(), "value")?))
}

/// The rows of a snapshot of the store of the first format version: all, and each by itself.
pub(crate) fn row_seeds() -> Vec<Vec<u8>> {
    let rows = fixture().unwrap_or_default();
    let mut all = Vec::new();
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (key, value) in rows {
        let Some(table) = Table::ALL.iter().position(|&table| table as u8 == key[0]) else { continue };
        let mut e = Encoder::new();
        e.u8(table as u8).u8(key.len() as u8 - 1).u16(value.len() as u16).raw(&key[1..]).raw(&value);
        let row = e.finish();
        all.extend_from_slice(&row);
        seeds.push(row);
    }
    seeds.push(all);
    seeds
}

fn fixture() -> Result<Vec<Row>, SchemaError> {
    const NAME: &str = "journal/0000000000000014-0000000000000012.snapshot";
    const BYTES: &[u8] =
        include_bytes!("../../tests/fixtures/v1-snapshots/store/journal/0000000000000014-0000000000000012.snapshot");
    let (disk, index) = (SimDisk::new(), MemoryIndex::new());
    let written = disk.create_dir("journal").and_then(|()| disk.create(NAME)?.write_all_at(BYTES, 0));
    let Ok(Some(file)) = written.map(|()| snapshot::list(&disk).ok().and_then(|mut files| files.pop())) else {
        return Ok(Vec::new());
    };
    let mut store = [0; 16];
    store.copy_from_slice(&BYTES[16..32]);
    let Ok(mut reader) = SnapshotReader::open(&disk, store, &file) else { return Ok(Vec::new()) };
    let mut loader = facts::Loader::new(&index, store, reader.header());
    while let Ok(Part::Page(page)) = reader.next_part() {
        page.each(|fact| loader.load(fact).map_err(Unloaded)).map_err(|Unloaded(error)| error)?;
    }
    loader.finish()?;
    Ok(index.scan(&[], &[u8::MAX], usize::MAX)?)
}

struct Unloaded(SchemaError);

impl From<JournalError> for Unloaded {
    fn from(_: JournalError) -> Self {
        Self(SchemaError::Missing { table: "facts" })
    }
}
