//! What is done in the background, and what it has found: pauses, collections, dead bytes, the scrub, damage; and the clock
//! and the quotas that decide what may be done.

use std::collections::BTreeMap;

use crate::{
    collect::{Collector, DiskUsage, DueSummary, Pausable, Pause, ScrubFinding, ScrubOptions, ScrubStatus, Scrubbed},
    index::schema::{self, Applied, key},
    registry::{Registry, RegistryError},
    store::{Store, StoreError},
    words::{bytes, counted, duration},
};

use super::{Check, Level};

const MINUTE_MS: u64 = 60 * 1_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A clock before this was not set: 2025-01-01, when there was no orlop.
const CLOCK_FROM_MS: u64 = 1_735_689_600_000;
/// Dead bytes that are no matter, however little lives.
const DEAD_BYTES_FEW: u64 = 1 << 30;
/// Findings that are told one by one.
const FINDINGS_TOLD: usize = 100;
/// Names that a sentence has.
const NAMES_TOLD: usize = 5;
/// Quotas that are looked at.
const QUOTAS_MAX: usize = 1_000;

fn span(ms: u64) -> String {
    duration(jiff::SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
}

fn date(ms: u64) -> String {
    let time = i64::try_from(ms / 1_000).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A few names, and how many more.
pub(super) fn some<T: ToString>(names: &[T]) -> String {
    let told: Vec<String> = names.iter().take(NAMES_TOLD).map(T::to_string).collect();
    let more = names.len().saturating_sub(NAMES_TOLD);
    if more > 0 { format!("{} and {more} more", told.join(", ")) } else { told.join(", ") }
}

/// The clock, by which all windows end.
pub(super) fn clock(store: &Store, collector: &Collector) -> Check {
    let times = || -> Result<Check, RegistryError> {
        let applied: Option<Applied> = schema::get(&*store.snapshot(), key::applied()).map_err(StoreError::from)?;
        let recovery = store.recovery();
        let pause = collector.status()?.pauses.into_iter().find(|pause| pause.what == Pausable::Clock);
        Ok(clock_of(&Times {
            now_ms: store.options().clock.now_ms(),
            last_ms: applied.map_or(0, |applied| applied.time_ms),
            rested_ms: match recovery.last_operation_ms {
                0 => 0,
                last_ms => recovery.opened_ms.saturating_sub(last_ms),
            },
            paused_until_ms: pause.map(|pause| pause.until_ms.unwrap_or(u64::MAX)),
        }))
    };
    Check::tried("clock", times())
}

/// Times in Unix milliseconds, but for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now_ms: u64,
    /// Of the last operation; 0 for none.
    pub(super) last_ms: u64,
    /// How long nothing was done before the last start.
    pub(super) rested_ms: u64,
    /// Until when nothing is dropped because of the clock.
    pub(super) paused_until_ms: Option<u64>,
}

pub(super) fn clock_of(times: &Times) -> Check {
    const NAME: &str = "clock";
    let Times { now_ms, last_ms, rested_ms, paused_until_ms } = *times;
    let now = date(now_ms);
    if now_ms < CLOCK_FROM_MS {
        let what = format!("the clock says {now}, which cannot be: it was never set");
        return Check::new(NAME, Level::Problem, what, "set the clock (NTP), then restart orlop");
    }
    if last_ms > now_ms.saturating_add(MINUTE_MS) {
        let what = format!(
            "the clock says {now}, and the last operation has a time {} later: one of them is wrong, and operations keep \
             that time until the clock has come to it",
            span(last_ms - now_ms)
        );
        return Check::new(
            NAME,
            Level::Warning,
            what,
            "set the clock right (NTP); if it is right, nothing but waiting helps",
        );
    }
    let Some(until_ms) = paused_until_ms else { return Check::ok(NAME, format!("the clock says {now}")) };
    let until = date(until_ms);
    match rested_ms > HOUR_MS {
        true => Check::new(
            NAME,
            Level::Note,
            format!(
                "the clock says {now}; at the last start that was {} after the last operation, so nothing is dropped until \
                 {until}",
                span(rested_ms)
            ),
            "nothing, or `orlop resume collect` if the clock is right",
        ),
        false => Check::new(
            NAME,
            Level::Warning,
            format!("the clock says {now}, and has jumped ahead: nothing is dropped until {until}"),
            "set the clock right (NTP); once it is, `orlop resume collect`",
        ),
    }
}

/// What somebody has paused and perhaps forgotten.
pub(super) fn pauses(collector: &Collector) -> Check {
    Check::tried("pauses", collector.status().map(|status| paused(&status.pauses)))
}

pub(super) fn paused(pauses: &[Pause]) -> Check {
    const NAME: &str = "pauses";
    let name = |pause: &Pause| match pause.what {
        Pausable::Collect => Some(("collect", "nothing that is due leaves the disk")),
        Pausable::Compact => Some(("compact", "sparse segments keep their space")),
        Pausable::Scrub => Some(("scrub", "damage is not looked for")),
        Pausable::Clock => None,
    };
    let paused: Vec<_> = pauses.iter().filter_map(name).collect();
    if paused.is_empty() {
        return Check::ok(NAME, "nothing is paused");
    }
    let what: Vec<String> = paused.iter().map(|(name, effect)| format!("{name} is paused, so {effect}")).collect();
    let remedy: Vec<String> = paused.iter().map(|(name, _)| format!("`orlop resume {name}`")).collect();
    Check::new(NAME, Level::Warning, what.join("; "), remedy.join(", "))
}

/// What is due, and whether it is worked off.
pub(super) fn collection(registry: &Registry, collector: &Collector) -> Check {
    let look = || -> Result<Check, RegistryError> {
        Ok(due(&collector.due()?, registry.usage()?.settling, &collector.failures()))
    };
    Check::tried("collection", look())
}

pub(super) fn due(due: &DueSummary, settling: u64, failures: &BTreeMap<Pausable, String>) -> Check {
    const NAME: &str = "collection";
    let is_more = due.dead_more || due.kinds.iter().any(|kind| kind.more);
    let count: u64 = due.kinds.iter().map(|kind| kind.count).sum();
    let more = if is_more { " or more" } else { "" };
    let figures = format!(
        "{count}{more} things are due, {}{more} wait to be erased, {} settle",
        counted(due.dead_records, "dead record"),
        counted(settling, "manifest")
    );
    if let Some((work, why)) = failures.iter().next() {
        let work = if *work == Pausable::Compact { "compacting" } else { "collecting" };
        let what = format!("{work} fails: {why}; {figures}");
        return Check::new(NAME, Level::Warning, what, "remove the cause; it is tried again by itself");
    }
    if is_more {
        let remedy = "nothing, while it becomes less (`orlop gc --status`); a server works it off by itself";
        return Check::new(NAME, Level::Note, figures, remedy);
    }
    let next = due.next_due_ms().map_or_else(String::new, |next| format!("; the next at {}", date(next)));
    Check::ok(NAME, format!("{figures}{next}"))
}

/// What segments take beyond what lives in them.
pub(super) fn dead_space(collector: &Collector) -> Check {
    Check::tried("dead space", collector.disk().map(|usage| dead(&usage)))
}

pub(super) fn dead(usage: &DiskUsage) -> Check {
    const NAME: &str = "dead space";
    let (live, dead) = (bytes(usage.live_bytes), bytes(usage.dead_bytes));
    let what = format!("segments take {dead} beyond the {live} that live in them");
    if usage.dead_bytes > DEAD_BYTES_FEW.saturating_add(usage.live_bytes / 4) {
        let remedy = "`orlop gc`, then `orlop compact`; a server does both by itself unless they are paused, and as fast as \
                      collect.compact_bytes_per_second says";
        return Check::new(NAME, Level::Note, what, remedy);
    }
    Check::ok(NAME, what)
}

/// Owners that can push little more.
pub(super) fn quotas(registry: &Registry) -> Check {
    const NAME: &str = "quotas";
    let look = || -> Result<Check, RegistryError> {
        let quotas = registry.quotas(None, QUOTAS_MAX)?.items;
        let is_short = |used: u64, limit: u64| used >= limit - limit / 10;
        let short = quotas.iter().filter(|quota| is_short(quota.used_bytes(), quota.limit_bytes));
        let short: Vec<String> = short.map(|quota| quota.owner.to_string()).collect();
        if short.is_empty() {
            return Ok(Check::ok(
                NAME,
                format!("of {}, none is used to nine tenths", counted(quotas.len() as u64, "quota")),
            ));
        }
        let what = format!("nine tenths or more are used of the quota of {}", some(&short));
        let remedy = "`orlop quota` tells what of it is reclaimable; `orlop purge` gives that back, `orlop quota O|R SIZE` \
                      allows more";
        Ok(Check::new(NAME, Level::Note, what, remedy))
    };
    Check::tried(NAME, look())
}

/// How long ago all was read, and what is damaged.
pub(super) fn scrub_and_damage(store: &Store, collector: &Collector) -> Vec<Check> {
    let now_ms = store.options().clock.now_ms();
    match collector.scrub_status() {
        Ok(status) => {
            let mut checks = vec![scrubbed(&status, &collector.options().scrub, now_ms)];
            checks.extend(damage(&status, store.damaged_count() as u64));
            checks
        }
        Err(error) => vec![Check::failed("scrub", &error)],
    }
}

pub(super) fn scrubbed(status: &ScrubStatus, options: &ScrubOptions, now_ms: u64) -> Check {
    const NAME: &str = "scrub";
    let pass_ms = u64::try_from(options.pass.as_millis()).unwrap_or(u64::MAX);
    let far = status.pass.as_ref().map(|pass| {
        let (read, total) = (bytes(pass.bytes), bytes(pass.total_bytes));
        format!("a pass is under way since {}: {read} of about {total}", date(pass.began_ms))
    });
    // Twice the time that a pass may take: the last one was in time, and this one is over it.
    let late_ms = pass_ms.saturating_mul(2).saturating_add(DAY_MS);
    let since_ms = match (&status.last, &status.pass) {
        (Some(last), _) => Some(last.began_ms),
        (None, pass) => pass.as_ref().map(|pass| pass.began_ms),
    };
    let repaired = status.last.as_ref().and_then(|last| last.repaired.as_ref());
    let what = match &status.last {
        Some(last) => {
            let last = format!(
                "all was read last until {}: {}, {}",
                date(last.ended_ms),
                counted(last.records, "record"),
                bytes(last.bytes)
            );
            far.map_or_else(|| last.clone(), |far| format!("{last}; {far}"))
        }
        None => far.unwrap_or_else(|| "what is stored was never read again".to_owned()),
    };
    if since_ms.is_some_and(|since_ms| since_ms.saturating_add(late_ms) < now_ms) {
        let what = format!("{what}; a pass should take {} (scrub.pass)", span(pass_ms));
        let remedy =
            "see that the scrub is not paused and a server runs; raise scrub.bytes_per_second_max or scrub.pass";
        return Check::new(NAME, Level::Warning, what, remedy);
    }
    match (repaired, since_ms) {
        (Some(repaired), _) => {
            let remedy = "see that the disk is sound: what is repaired now was damaged by something";
            Check::new(NAME, Level::Note, format!("{what}; the last pass repaired something: {repaired}"), remedy)
        }
        (None, None) => {
            let remedy = "nothing: a server begins by itself; `orlop scrub` reads all now";
            Check::new(NAME, Level::Note, what, remedy)
        }
        (None, Some(_)) => Check::ok(NAME, what),
    }
}

pub(super) fn damage(status: &ScrubStatus, damaged: u64) -> Vec<Check> {
    const NAME: &str = "damage";
    let mut checks: Vec<Check> = status.findings.iter().take(FINDINGS_TOLD).map(finding).collect();
    let more = (status.findings.len() - checks.len()) as u64 + status.findings_more;
    if more > 0 {
        let what = format!("the scrub has found {} more", counted(more, "damaged place"));
        checks.push(Check::new(NAME, Level::Problem, what, "`orlop scrub --status` lists them"));
    }
    let content = status.findings.iter().filter(|finding| finding.kind == Scrubbed::Content).count() as u64;
    let unread = damaged.saturating_sub(content.saturating_add(status.findings_more));
    if unread > 0 {
        let what = format!("damage was met in {} that somebody read", counted(unread, "blob"));
        let remedy = "`orlop scrub` tells which, and whom they hurt; pushing them again heals them";
        checks.push(Check::new(NAME, Level::Problem, what, remedy));
    }
    if checks.is_empty() {
        checks.push(Check::ok(NAME, "nothing is known to be damaged"));
    }
    checks
}

fn finding(finding: &ScrubFinding) -> Check {
    let hurts = match (finding.hurts.is_empty(), finding.hurts_more) {
        (true, _) => String::new(),
        (false, true) => format!("; it hurts {}, and more", some(&finding.hurts)),
        (false, false) => format!("; it hurts {}", some(&finding.hurts)),
    };
    let place = match (&finding.file, finding.offset) {
        (Some(file), Some(offset)) => format!("{file} at {offset}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    };
    let remedy = match finding.kind {
        Scrubbed::Content => "push it again, which replaces the damaged copy; see that the disk is sound",
        Scrubbed::Segment => {
            "push again what lies in it, as `orlop verify --content` names it; see that the disk is sound"
        }
        Scrubbed::Journal => "stop orlop, run `orlop repair --data DIR`, start it again; see that the disk is sound",
        Scrubbed::Index => {
            "stop orlop, run `orlop rebuild-index --data DIR`, start it again; see that the disk is sound"
        }
    };
    Check::new("damage", Level::Problem, format!("{place}{}{hurts}", finding.what), remedy)
}
