//! What the index costs: batches, random reads, scans, with rows as the store has them.
//!
//! `cargo bench --bench index [-- ROWS [DIR]]`, 1,000,000 rows unless told. Prints; asserts only that reads find what
//! they should. Reads come from RocksDB's cache or the kernel's, unless the rows are more than memory holds.

use std::{
    error::Error,
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use orlop::index::{
    Changes, Index, View, prefix_end,
    rocks::{RocksIndex, RocksOptions},
};

/// Rows in a batch: some ten small pushes.
const BATCH_ROWS: u64 = 1_000;
const READS: u64 = 200_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let rows: u64 = arguments.next().map_or(Ok(1_000_000), |rows| rows.parse())?;
    let scratch = tempfile::tempdir()?;
    let dir = arguments.next().map_or(scratch.path().to_owned(), PathBuf::from).join("index");
    let index = RocksIndex::open(&dir, &RocksOptions::default())?;

    write(&index, rows)?;
    read(&index, rows, "warm")?;
    drop(index);
    let begun = Instant::now();
    let index = RocksIndex::open(&dir, &RocksOptions::default())?;
    println!("open: {:.1} ms", ms(begun.elapsed()));
    read(&index, rows, "after open")?;
    scan(&index)?;
    drain(&index)?;
    println!("resident: {} MiB", resident_mib()?);
    drop(index);
    RocksIndex::destroy(&dir)?;
    Ok(())
}

/// Half of the keys are scattered as digests are, in table 1; table 2 is a queue in the order of time, as `due` is.
fn key(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let table = 1 + (number % 2) as u8;
    let mut key = vec![table];
    if table == 2 {
        key.extend(number.to_be_bytes());
    }
    key.resize_with(45, || random.u8(..));
    key
}

fn write(index: &RocksIndex, rows: u64) -> Result<(), Box<dyn Error>> {
    let mut spent = Vec::new();
    let begun = Instant::now();
    for first in (0..rows).step_by(BATCH_ROWS as usize) {
        let numbers = first..rows.min(first + BATCH_ROWS);
        let changes: Changes = numbers.map(|number| (key(number), Some(vec![number as u8; 40]))).collect();
        let begun = Instant::now();
        index.health()?;
        index.write(&changes)?;
        spent.push(begun.elapsed());
    }
    let total: Duration = spent.iter().sum();
    spent.sort();
    println!(
        "write: {:.0} rows/s in batches of {BATCH_ROWS}; a batch median {:.2} ms, p99 {:.2} ms, max {:.1} ms",
        rows as f64 / total.as_secs_f64(),
        ms(spent[spent.len() / 2]),
        ms(spent[spent.len() * 99 / 100]),
        ms(spent[spent.len() - 1]),
    );
    let flushing = Instant::now();
    index.flush()?;
    println!("flush of the rest: {:.0} ms; all: {:.1} s", ms(flushing.elapsed()), begun.elapsed().as_secs_f64());
    Ok(())
}

fn read(index: &RocksIndex, rows: u64, when: &str) -> Result<(), Box<dyn Error>> {
    for (what, first) in [("present", 0), ("absent", rows)] {
        let mut spent = Vec::new();
        for _ in 0..READS {
            let key = key(first + fastrand::u64(..rows));
            let begun = Instant::now();
            let value = index.get(&key)?;
            spent.push(begun.elapsed());
            assert_eq!(value.is_some(), what == "present");
        }
        spent.sort();
        let us = |share: usize| 1e3 * ms(spent[spent.len() * share / 1_000]);
        println!(
            "get {what} {when}: median {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs; mean {:.1} µs",
            us(500),
            us(990),
            us(999),
            1e3 * ms(spent.iter().sum()) / READS as f64
        );
    }
    Ok(())
}

fn scan(index: &RocksIndex) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let (mut from, until, mut count) = (vec![1], prefix_end(&[1]), 0);
    loop {
        let page = index.scan(&from, &until, 1_000)?;
        count += page.len();
        match page.into_iter().next_back() {
            Some((last, _)) => from = [last, vec![0]].concat(),
            None => break,
        }
    }
    println!("scan in pages of 1,000: {:.0} rows/s", count as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// The queue is emptied from its front by somebody who remembers the place, and then looked at from its beginning,
/// where the deletions lie: before a flush, after it, and when compactions had three seconds.
fn drain(index: &RocksIndex) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let (mut from, until, mut count) = (vec![2], prefix_end(&[2]), 0);
    loop {
        let page = index.scan(&from, &until, 1_000)?;
        let Some((last, _)) = page.last() else { break };
        from = [last, &[0][..]].concat();
        count += page.len();
        index.write(&page.into_iter().map(|(key, _)| (key, None)).collect())?;
    }
    println!("drain of a queue: {:.0} rows/s", count as f64 / begun.elapsed().as_secs_f64());
    let look = |when: &str| -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        index.scan(&[2], &until, 1)?;
        println!("look at its front {when}: {:.2} ms", ms(begun.elapsed()));
        Ok(())
    };
    look("before a flush")?;
    index.flush()?;
    look("after it")?;
    thread::sleep(Duration::from_secs(3));
    look("three seconds later")
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn resident_mib() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024)
}
