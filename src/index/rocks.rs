//! The index in RocksDB: the only door to it.
//!
//! One column family and no write-ahead log: a batch lies in one memtable, so every flush, ours or one of RocksDB's own,
//! is a cut between two batches, and the journal brings back what a crash took. Closing flushes too, but nobody learns
//! whether that worked; only [`Index::flush`] tells. No merge operators and no range deletions: a row is put or deleted.
//!
//! It refuses to hand out what fails a checksum, and to call damage "absent": a missing file, a bad block and a broken
//! manifest are [`IndexError::Corrupt`]. Two things it cannot see, and the store can by its meta row: an index that was
//! lost whole, which opens with no rows, and one that lost the end of its manifest, which opens as it was at an earlier
//! flush.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::PoisonError,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, DataBlockIndexType, ErrorKind,
    LogLevel, Options, ReadOptions, ReadTier, Snapshot, WriteBatch, WriteOptions,
};

use super::{
    Changes, Index, IndexError, Row, View,
    fronts::{Fronts, Seen},
};
use crate::sync::Mutex;

/// Memtables that share [`RocksOptions::memtable_bytes`]: one is written to while others go to disk.
const MEMTABLES: usize = 3;
/// Largest file of RocksDB's own log, in bytes, and how many of them are kept.
const LOG_FILE_BYTES_MAX: usize = 1 << 20;
const LOG_FILES_MAX: usize = 4;
/// Size in bytes from which the manifest is written anew.
const MANIFEST_BYTES: usize = 4 << 20;
/// The part of a memtable's memory that its filter takes: some 20 bits for each row. Most rows that a change asks for are not there,
/// and the filter knows that ten times as fast as the table.
const MEMTABLE_FILTER: f64 = 0.02;
/// A file in which half of this many consecutive rows are deletions is compacted soon, because scans wade through them.
const DELETIONS_WINDOW: usize = 8192;
/// Rows of a page that there is room for from the beginning; most pages have fewer.
const ROWS_RESERVED: usize = 128;
/// Memory for the blocks that a check of all files reads.
const CHECK_CACHE_BYTES: usize = 4 << 20;
/// How long a healthy index may stop writes, to catch up, before they are refused.
const WRITE_STOP_MAX: Duration = Duration::from_secs(2);

/// What the index may use of the machine.
#[derive(Debug, Clone)]
pub struct RocksOptions {
    /// Memory for rows that are not yet on disk, in bytes.
    pub memtable_bytes: usize,
    /// Memory for blocks read from disk, with indexes and filters, in bytes.
    pub cache_bytes: usize,
    /// Most files open at once.
    pub open_files_max: u16,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { memtable_bytes: 96 << 20, cache_bytes: 128 << 20, open_files_max: 256 }
    }
}

/// An index in a directory of its own.
pub struct RocksIndex {
    db: DB,
    path: PathBuf,
    fronts: Fronts,
    /// Held for a write: one at a time.
    writes: Mutex<()>,
}

impl RocksIndex {
    /// Opens the index in a directory; where there is none, makes an empty one. One process at a time.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] when files are missing or damaged: [`RocksIndex::destroy`] it and rebuild.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, IndexError> {
        let db = DB::open(&database_options(options), path)
            .map_err(|error| failure(&format!("opening {}", path.display()), &error))?;
        Ok(Self { db, path: path.to_owned(), fronts: Fronts::new(), writes: Mutex::new(()) })
    }

    /// Removes the index in a directory, damaged or not, so that `open` begins with no rows; it may be missing.
    ///
    /// # Errors
    /// When it is open, or a file cannot be removed.
    pub fn destroy(path: &Path) -> Result<(), IndexError> {
        DB::destroy(&Options::default(), path).map_err(|error| failure(&format!("removing {}", path.display()), &error))
    }

    fn view(&self, tier: ReadTier) -> RocksSnapshot<'_> {
        let (snapshot, seen) = self.fronts.around(|| self.db.snapshot());
        RocksSnapshot { snapshot, seen, fronts: &self.fronts, tier }
    }

    fn apply(&self, batch: WriteBatch, tried: &str) -> Result<(), IndexError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|error| failure(tried, &error))
    }

    fn check_once(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<(), IndexError> {
        const PAGE: usize = 1_000;
        let settings = RocksOptions { cache_bytes: CHECK_CACHE_BYTES, ..RocksOptions::default() };
        let mut options = database_options(&settings);
        options.create_if_missing(false);
        // All of them at once, before a compaction removes some.
        options.set_max_open_files(-1);
        let tried = format!("checking {}", self.path.display());
        let opened = DB::open_for_read_only(&options, &self.path, false);
        let db = opened.map_err(|error| unreadable_is_damage(failure(&tried, &error)))?;
        let mut from = Vec::new();
        loop {
            let rows = page(&from, &[u8::MAX], PAGE, ReadTier::All, |options| db.raw_iterator_opt(options));
            let rows = rows.map_err(unreadable_is_damage)?;
            let bytes = rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
            if !read(bytes) {
                return Ok(());
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => from = [last.as_slice(), &[0]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Errors of flushes and compactions so far. It never falls, although RocksDB recovers from a disk that was full, and does not
    /// rise by the flush of a recovery.
    fn background_errors(&self) -> Result<u64, IndexError> {
        self.property("rocksdb.background-errors")
    }

    /// Whether a write goes through now, after so many errors, and with which error not: a write of nothing tells.
    fn goes_on_after(&self, errors: u64) -> Result<(), IndexError> {
        if errors > 0 { self.apply(WriteBatch::default(), "after a background error, writing") } else { Ok(()) }
    }

    fn property(&self, name: &str) -> Result<u64, IndexError> {
        let value = self.db.property_int_value(name).map_err(|error| failure("reading a property", &error))?;
        value.ok_or_else(|| IndexError::Failed(format!("RocksDB does not tell {name}")))
    }
}

impl View for RocksIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.db.get_opt(key, &read_options(ReadTier::All)).map_err(|error| read_failure("reading", key, &error))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.view(ReadTier::All).scan(from, until, limit)
    }
}

impl Index for RocksIndex {
    fn write(&self, changes: &Changes) -> Result<(), IndexError> {
        let mut batch = WriteBatch::default();
        for (key, change) in changes {
            match change {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let _one = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        self.fronts.write(changes, || self.apply(batch, "writing a batch"))
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.db.flush().map_err(|error| failure("flushing", &error))
    }

    /// A stop of writes without errors is waited for (up to 2 s): that is a flush or compaction catching up.
    fn health(&self) -> Result<(), IndexError> {
        let errors = self.background_errors()?;
        let begun = Instant::now();
        while self.property("rocksdb.is-write-stopped")? > 0 {
            if errors > 0 || begun.elapsed() >= WRITE_STOP_MAX {
                return Err(IndexError::Failed(format!(
                    "RocksDB takes no writes, after {errors} errors of its flushes and compactions; see {}",
                    self.path.join("LOG").display()
                )));
            }
            crate::sync::sleep(Duration::from_millis(1));
        }
        self.goes_on_after(errors)
    }

    fn flushed(&self) -> Result<(), IndexError> {
        match self.goes_on_after(self.background_errors()?) {
            Err(error) if !error.to_string().contains("No space left on device") => Err(error),
            _ => Ok(()),
        }
    }

    /// A second instance, which only reads and has no cache yet, sees every block of every file. A file that a compaction
    /// has removed while it was opened is no damage, so it is tried again.
    fn check(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<(), IndexError> {
        const TRIES: usize = 3;
        let mut result = Ok(());
        for _ in 0..TRIES {
            result = self.check_once(read);
            match &result {
                Err(IndexError::Corrupt(_)) => {}
                _ => break,
            }
        }
        result
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        Box::new(self.view(ReadTier::All))
    }

    fn in_memory(&self) -> Box<dyn View + '_> {
        Box::new(self.view(ReadTier::BlockCache))
    }

    fn at_hand(&self) -> Box<dyn View + '_> {
        Box::new(AtHand(self))
    }
}

impl fmt::Debug for RocksIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocksIndex({})", self.path.display())
    }
}

/// What memory has, without a snapshot for all reads.
struct AtHand<'a>(&'a RocksIndex);

impl View for AtHand<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let tier = ReadTier::BlockCache;
        self.0.db.get_opt(key, &read_options(tier)).map_err(|error| read_failure("reading", key, &error))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        self.0.view(ReadTier::BlockCache).scan(from, until, limit)
    }
}

struct RocksSnapshot<'a> {
    snapshot: Snapshot<'a>,
    seen: Seen,
    fronts: &'a Fronts,
    tier: ReadTier,
}

impl View for RocksSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.snapshot.get_opt(key, read_options(self.tier)).map_err(|error| read_failure("reading", key, &error))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let iterate = |options| self.snapshot.raw_iterator_opt(options);
        let Some(scan) = self.seen.scan(from, until) else { return page(from, until, limit, self.tier, iterate) };
        let rows = page(scan.from(), until, limit, self.tier, iterate)?;
        self.fronts.found(&scan, &self.seen, rows.first().map_or(until, |(key, _)| key));
        Ok(rows)
    }
}

fn page<'a>(
    from: &[u8],
    until: &[u8],
    limit: usize,
    tier: ReadTier,
    iterate: impl FnOnce(ReadOptions) -> DBRawIterator<'a>,
) -> Result<Vec<Row>, IndexError> {
    let mut rows = Vec::new();
    if from >= until {
        return Ok(rows);
    }
    rows.reserve(limit.min(ROWS_RESERVED));
    let mut options = read_options(tier);
    options.set_iterate_upper_bound(until);
    let mut iterator = iterate(options);
    iterator.seek(from);
    while let Some((key, value)) = iterator.item() {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() == limit {
            break;
        }
        iterator.next();
    }
    // An iterator that meets damage ends as if there were no more rows; only its status tells.
    iterator.status().map_err(|error| read_failure("scanning from", from, &error))?;
    Ok(rows)
}

fn read_options(tier: ReadTier) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(tier);
    options.set_verify_checksums(true);
    options
}

fn database_options(settings: &RocksOptions) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(settings.memtable_bytes / MEMTABLES);
    options.set_max_write_buffer_number(MEMTABLES as i32);
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER);
    options.set_memtable_whole_key_filtering(true);
    options.set_max_open_files(settings.open_files_max.into());
    options.set_max_background_jobs(2);
    options.set_compression_type(DBCompressionType::Lz4);
    // Written out as it is made, so that a large file's sync does not hold up the journal's.
    options.set_bytes_per_sync(1 << 20);
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_WINDOW / 2, 0.0);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(LOG_FILE_BYTES_MAX);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_block_based_table_factory(&table_options(settings));
    options
}

fn table_options(settings: &RocksOptions) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(settings.cache_bytes));
    // Indexes and filters grow with the store, so they lie in the bounded cache, in parts that are small enough to come
    // and go: a whole filter is some hundred times a row's block.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    // Rows are small and read one by one: a hash in each block saves most of the search in it.
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table
}

fn read_failure(tried: &str, key: &[u8], error: &rocksdb::Error) -> IndexError {
    // Of the block cache: what was asked for is not in it.
    if error.kind() == ErrorKind::Incomplete {
        return IndexError::OutOfReach;
    }
    failure(&format!("{tried} row {}", HEXLOWER.encode(key)), error)
}

/// A file that is missing is damage like a bad one, though RocksDB calls it an I/O error: only the journal brings it back.
fn failure(tried: &str, error: &rocksdb::Error) -> IndexError {
    let text = format!("{tried}: {error}");
    let is_missing = error.kind() == ErrorKind::IOError && text.contains("No such file or directory");
    if is_missing || error.kind() == ErrorKind::Corruption {
        IndexError::Corrupt(text)
    } else {
        IndexError::Failed(text)
    }
}

/// A file that the device does not give back, several times over, comes back from the journal like a damaged one.
fn unreadable_is_damage(error: IndexError) -> IndexError {
    match error {
        IndexError::Failed(text) if text.contains("Input/output error") => IndexError::Corrupt(text),
        error => error,
    }
}
