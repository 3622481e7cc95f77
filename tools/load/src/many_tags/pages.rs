//! Pages of tags: what one costs at each place, and whether they all add up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{FEW, MANY, ManyTags, call, median_us, tag};
use crate::{
    error::LoadError,
    http::{Connection, Response},
};

/// Tags of a page that is measured.
pub(super) const PAGE: u64 = 100;
/// Most findings that are kept: one wrong page tends to have company.
const WRONG_MAX: usize = 20;

/// What pages cost: place and median, the repository with few tags first.
pub(super) struct Costs(Vec<(&'static str, u64)>);

impl Costs {
    /// A line for each place, with its ratio to the first.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let first = self.0.first().map_or(1, |(_, us)| *us).max(1);
        self.0.iter().map(move |(place, us)| {
            format!("a page of {PAGE}, {place}: median {us} µs, {:.2} times", *us as f64 / first as f64)
        })
    }

    pub(super) fn to_json(&self) -> Value {
        self.0.iter().map(|(place, us)| json!({ "place": place, "median_us": us })).collect()
    }
}

/// Asks for the pages in turns, so that a busy moment of the machine does not hit one place alone.
pub(super) fn measure(options: &ManyTags, wrong: &mut Vec<String>) -> Result<Costs, LoadError> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut connection = Connection::new(&options.server.address);
    let (few, many) = (options.few, options.count);
    let mut places = [
        ("of few tags, at the start", FEW, few, Some(0), Vec::new()),
        ("of few tags, in the middle", FEW, few, Some((few - PAGE) / 2), Vec::new()),
        ("of many tags, at the start", MANY, many, Some(0), Vec::new()),
        ("of many tags, in the middle", MANY, many, Some((many - PAGE) / 2), Vec::new()),
        ("of many tags, at the end", MANY, many, Some(many - PAGE), Vec::new()),
        ("of many tags, anywhere", MANY, many, None, Vec::new()),
    ];
    for _ in 0..options.samples {
        for (_, repository, count, first, durations) in &mut places {
            let first = first.unwrap_or_else(|| random.u64(1..=many - PAGE));
            let last = if first == 0 { String::new() } else { format!("&last={}", tag(first - 1)) };
            let target = format!("/v2/{repository}/tags/list?n={PAGE}{last}");
            let began = Instant::now();
            let page = call(&mut connection, &[200], "GET", &target, b"")?;
            durations.push(began.elapsed());
            check(&target, &page, first, PAGE, *count, wrong);
        }
    }
    Ok(Costs(places.into_iter().map(|(place, _, _, _, mut durations)| (place, median_us(&mut durations))).collect()))
}

/// Follows `Link` through pages of 10,000 to the end; all tags must be there in order, each once.
pub(super) fn walk(
    address: &str,
    repository: &str,
    count: u64,
    wrong: &mut Vec<String>,
) -> Result<Duration, LoadError> {
    const LARGE: u64 = 10_000;
    let mut connection = Connection::new(address);
    let mut target = format!("/v2/{repository}/tags/list?n={LARGE}");
    let mut first = 0;
    let began = Instant::now();
    loop {
        let page = call(&mut connection, &[200], "GET", &target, b"")?;
        let next = check(&target, &page, first, LARGE, count, wrong);
        first += LARGE;
        match next {
            Some(next) if first < count => target = next,
            _ => return Ok(began.elapsed()),
        }
    }
}

/// A page holds the tags from `first` on, and links to the next exactly when there is one; that link.
fn check(target: &str, page: &Response, first: u64, len: u64, count: u64, wrong: &mut Vec<String>) -> Option<String> {
    let end = (first + len).min(count);
    let expected: Vec<Value> = (first..end).map(|number| Value::from(tag(number))).collect();
    let found: Value = serde_json::from_slice(&page.body).unwrap_or_default();
    let next = page.header("link").and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\""));
    let is_right = found["tags"].as_array() == Some(&expected) && next.is_some() == (end < count);
    if !is_right && wrong.len() < WRONG_MAX {
        let has = found["tags"].as_array().map_or(0, Vec::len);
        wrong.push(format!("GET {target}: {has} tags, link {next:?}; there are tags {first} to {end} of {count}"));
    }
    next.map(str::to_owned)
}
