//! The table of all settings. Their defaults are those of [`Config`]; `orlop serve --print-config` shows both.

use std::time::Duration;

use super::{
    Config, ConfigError,
    value::{self, Bounds},
};
use crate::{registry::Sparse, store::VerifyReads};

/// A setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its name; the part before a dot is its table.
    pub(super) key: &'static str,
    /// What it means.
    pub(super) about: &'static str,
    /// What it accepts, and where it lies.
    pub(super) kind: Kind,
}

/// What a setting accepts. Getters and setters know where it lies in [`Config`].
#[derive(Debug)]
pub(super) enum Kind {
    Text { accepted: &'static str, check: fn(&str) -> bool, get: fn(&Config) -> String, set: fn(&mut Config, String) },
    Count { bounds: Bounds, get: fn(&Config) -> u64, set: fn(&mut Config, u64) },
    Bytes { bounds: Bounds, get: fn(&Config) -> u64, set: fn(&mut Config, u64) },
    Duration { bounds_ms: Bounds, get: fn(&Config) -> Duration, set: fn(&mut Config, Duration) },
}

impl Kind {
    /// Sets the value; else what is accepted.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match self {
            Self::Text { check, set, .. } => check(text).then(|| set(config, text.to_owned())),
            Self::Count { bounds, set, .. } => value::count(text, *bounds).map(|count| set(config, count)),
            Self::Bytes { bounds, set, .. } => value::bytes(text, *bounds).map(|bytes| set(config, bytes)),
            Self::Duration { bounds_ms, set, .. } => {
                value::duration(text, *bounds_ms).map(|duration| set(config, duration))
            }
        }
        .ok_or_else(|| self.accepted())
    }

    /// The value as TOML.
    pub(super) fn get(&self, config: &Config) -> String {
        match self {
            Self::Text { get, .. } => toml::Value::String(get(config)).to_string(),
            Self::Count { get, .. } => get(config).to_string(),
            Self::Bytes { get, .. } => format!("\"{}\"", value::show_bytes(get(config))),
            Self::Duration { get, .. } => format!("\"{}\"", value::show_duration(get(config))),
        }
    }

    /// What is accepted, for people.
    pub(super) fn accepted(&self) -> String {
        match self {
            Self::Text { accepted, .. } => (*accepted).to_owned(),
            Self::Count { bounds: (min, max), .. } => format!("a whole number from {min} to {max}"),
            Self::Bytes { bounds: (min, max), .. } => {
                let (min, max) = (value::show_bytes(*min), value::show_bytes(*max));
                format!("a size from {min} to {max}, such as 64MiB")
            }
            Self::Duration { bounds_ms: (min, max), .. } => {
                let [min, max] = [min, max].map(|ms| value::show_duration(Duration::from_millis(*ms)));
                format!("a duration from {min} to {max}, such as 500ms, 30s, 24h or 14d")
            }
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

macro_rules! text {
    ($key:literal, $($field:ident).+, $check:expr, $accepted:literal, $about:literal) => {
        Setting { key: $key, about: $about, kind: Kind::Text {
            accepted: $accepted,
            check: $check,
            get: |config| config.$($field).+.clone(),
            set: |config, text| config.$($field).+ = text,
        } }
    };
}

// The bounds of every number lie inside those of its field, so no conversion here loses anything.
macro_rules! number {
    ($kind:ident, $key:literal, $($field:ident).+, $min:expr, $max:expr, $about:literal) => {
        Setting { key: $key, about: $about, kind: Kind::$kind {
            bounds: ($min, $max),
            get: |config| config.$($field).+ as u64,
            set: |config, number| config.$($field).+ = number as _,
        } }
    };
}

macro_rules! duration {
    ($key:literal, $($field:ident).+, $min_ms:expr, $max_ms:expr, $about:literal) => {
        Setting { key: $key, about: $about, kind: Kind::Duration {
            bounds_ms: ($min_ms, $max_ms),
            get: |config| config.$($field).+,
            set: |config, duration| config.$($field).+ = duration,
        } }
    };
}

/// All of them, those of one table together.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "data", about: "The directory of everything that is stored", kind: Kind::Text {
        accepted: "a path",
        check: |text| !text.is_empty() && !text.contains('\0'),
        get: |config| config.data.display().to_string(),
        set: |config, text| config.data = text.into(),
    } },
    text!("listen", listen, value::is_address, "host and port, such as 127.0.0.1:5000 or [::]:5000",
        "Where clients connect. There is no TLS and no login: put a proxy in front before opening it to others"),

    text!("log.level", log_level, |text| ["error", "warn", "info", "debug", "trace"].contains(&text),
        "error, warn, info, debug or trace", "What is logged"),
    text!("log.format", log_format, |text| ["text", "json"].contains(&text), "text or json", "How it is logged"),

    number!(Count, "http.connections_max", server.connections_max, 1, 65_536,
        "Connections that are served at once; as many more wait for a place"),
    duration!("http.connection_wait", server.connection_wait, 0, 60 * SECOND,
        "How long a connection waits for a place before it is refused with 503"),
    duration!("http.header_timeout", server.header_timeout, 100, HOUR,
        "Longest time for the head of a request, and longest idling before it"),
    number!(Bytes, "http.header_bytes_max", server.header_bytes_max, 8 * KIB, MIB, "Largest head of a request"),
    number!(Bytes, "http.uri_bytes_max", http.uri_bytes_max, KIB, 64 * KIB, "Longest path and query of a request"),
    duration!("http.body_window", server.pace.window, 100, HOUR,
        "A window of waiting for a client; one that moves too few bytes in it is cut"),
    number!(Bytes, "http.body_window_bytes_min", server.pace.bytes_min, 1, GIB,
        "Fewest bytes that a client must send or read in a window"),
    duration!("http.request_timeout", http.request_timeout, 100, HOUR,
        "Longest time until a request is answered, except for uploads"),
    duration!("http.shutdown_grace", server.shutdown_grace, 0, HOUR,
        "How long requests under way may go on at shutdown"),
    number!(Count, "http.blocking_threads", http.blocking_threads, 1, 4_096,
        "Threads that work on the disk for requests"),
    number!(Count, "http.blocking_queue", http.blocking_queue, 0, 1_000_000,
        "Requests that may wait for such a thread; more are answered 503"),
    number!(Bytes, "http.body_memory", http.body_memory_bytes, 8 * MIB, TIB,
        "Memory for bodies on their way; beyond it they move in small steps"),
    Setting { key: "http.api_hosts", about: "Names by which the admin API may be reached, separated by commas; IP addresses and localhost always are. No name of a site whose pages you don't trust",
        kind: Kind::Text {
            accepted: "host names without ports, separated by commas, such as registry.example,registry",
            check: |text| hosts(text).iter().all(|name| value::is_host_name(name)),
            get: |config| config.http.api_hosts.join(","),
            set: |config, text| config.http.api_hosts = hosts(&text),
        },
    },
    number!(Bytes, "http.verify_memory", http.verify_memory_bytes, MIB, TIB,
        "Memory that a verification of the store may take in the server; orlop verify --data has no such bound"),
    number!(Bytes, "http.verify_bytes_per_second", http.verify_bytes_per_second, MIB, TIB,
        "Content that a verification reads in a second in the server; orlop verify --data has no such bound"),

    number!(Bytes, "registry.blob_bytes_max", http.blob_bytes_max, 0, 1024 * TIB, "Largest blob"),
    number!(Bytes, "registry.manifest_bytes_max", registry.manifest_bytes_max, KIB, 64 * MIB, "Largest manifest"),
    number!(Count, "registry.references_max", registry.references_max, 1, 1_000_000,
        "Most descriptors that one manifest may name"),
    number!(Count, "registry.json_depth_max", registry.json_depth_max, 4, 120, "Deepest nesting of a manifest"),
    Setting { key: "registry.sparse", about: "What a manifest may name that is absent: off (non-distributable layers only), index (also an index's entries), any (also configs and layers)",
        kind: Kind::Text {
            accepted: "off, index or any",
            check: |text| Sparse::of_name(text).is_some(),
            get: |config| config.registry.sparse.name().to_owned(),
            set: |config, text| config.registry.sparse = Sparse::of_name(&text).unwrap_or_default(),
        },
    },
    number!(Count, "registry.uploads_max", registry.uploads_max, 1, 1_000_000, "Uploads that may be open at once"),
    duration!("registry.upload_idle", upload_idle, SECOND, 365 * DAY,
        "How long an upload is kept that nobody writes to"),
    Setting { key: "registry.grace", about: "How long content that no manifest names is kept after its last upload",
        kind: Kind::Duration {
            bounds_ms: (SECOND, 365 * DAY),
            get: |config| Duration::from_millis(config.store.grace_ms),
            set: |config, grace| config.store.grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        },
    },
    Setting { key: "registry.retention_window", about: "How long a manifest that nothing reaches any more can be restored",
        kind: Kind::Duration {
            bounds_ms: (0, 3_650 * DAY),
            get: |config| Duration::from_millis(config.store.window_ms),
            set: |config, window| config.store.window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        },
    },

    number!(Bytes, "store.large_blob_bytes", store.large_blob_bytes, 64 * KIB, GIB,
        "A blob that is larger gets a file of its own"),
    number!(Bytes, "store.buffered_bytes_max", store.buffered_bytes_max, MIB, TIB,
        "Memory of all smaller uploads together"),
    number!(Bytes, "store.shared_segment_bytes_max", store.shared_segment_bytes_max, MIB, TIB,
        "Length at which a file of small blobs is ended"),
    number!(Count, "store.open_files_max", store.open_files_max, 16, 1_000_000, "Files kept open for reading"),
    Setting { key: "store.verify_reads", about: "Which reads of large blobs are checked against their checksums: first (that of each block since the start, from then on the kernel sends it), always (all of them)",
        kind: Kind::Text {
            accepted: "first or always",
            check: |text| VerifyReads::of_name(text).is_some(),
            get: |config| config.store.verify_reads.name().to_owned(),
            set: |config, text| config.store.verify_reads = VerifyReads::of_name(&text).unwrap_or_default(),
        },
    },
    number!(Bytes, "store.reserve_bytes", store.reserve_bytes, 0, TIB,
        "Space that uploads leave free on the disk, so that deleting still works when it is full"),
    number!(Bytes, "store.flush_bytes", store.flush_bytes, MIB, 4 * GIB,
        "Journal after which the index is made durable; about what a start has to replay"),
    number!(Bytes, "store.journal_file_bytes_max", store.journal_file_bytes_max, 16 * KIB, 4 * GIB,
        "Length at which a journal file is ended"),
    number!(Bytes, "store.snapshot_bytes_min", store.snapshot_bytes_min, 4 * KIB, TIB,
        "Journal after which a snapshot of it is written; more where the last one is larger"),
    number!(Count, "store.queue_max", store.queue_max, 1, 1_000_000, "Requests that may wait for the committer"),
    number!(Bytes, "store.row_cache_bytes", store.row_cache_bytes, MIB, TIB,
        "Memory for rows of the index that are read often"),
    number!(Bytes, "store.index_cache_bytes", store.index_cache_bytes, MIB, TIB, "Memory for reads of the index"),
    number!(Bytes, "store.index_memtable_bytes", store.index_memtable_bytes, 8 * MIB, 64 * GIB,
        "Memory for changes of the index"),

    duration!("collect.interval", collect.interval, 100, DAY,
        "Time between two looks at what is due; that late it is dropped and its space comes back, at most"),
    number!(Bytes, "collect.compact_bytes_per_second", collect.compact_bytes_per_second, 64 * KIB, TIB,
        "What compaction reads and writes in a second"),
    number!(Bytes, "collect.read_bytes_per_second", collect.read_bytes_per_second, 64 * KIB, TIB,
        "What searches for content, and for remains of killed processes, read in a second"),
    duration!("collect.reader_patience", collect.reader_patience, 0, HOUR,
        "How long a collection waits for downloads of what it is to erase, before it leaves that to the next one"),

    duration!("scrub.pass", collect.scrub.pass, SECOND, 3_650 * DAY,
        "How long reading all content again may take, and how often it begins; at 1 MiB a second at least"),
    number!(Bytes, "scrub.bytes_per_second_max", collect.scrub.bytes_per_second_max, 64 * KIB, TIB,
        "What the scrub reads in a second at most, and when somebody waits for it"),
];

/// The names of a list, in lower case.
fn hosts(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect()
}

/// Holds settings against each other.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let store = &config.store;
    let conflicts = [
        (
            store.large_blob_bytes > store.shared_segment_bytes_max,
            ("store.large_blob_bytes", store.large_blob_bytes),
            "it must be at most store.shared_segment_bytes_max, or the largest small blob fits into no file",
        ),
        (
            store.large_blob_bytes > store.buffered_bytes_max,
            ("store.large_blob_bytes", store.large_blob_bytes),
            "it must be at most store.buffered_bytes_max, where smaller blobs are collected",
        ),
        (
            config.registry.manifest_bytes_max as u64 > config.http.body_memory_bytes,
            ("registry.manifest_bytes_max", config.registry.manifest_bytes_max as u64),
            "it must be at most http.body_memory, where manifests are received",
        ),
    ];
    match conflicts.into_iter().find(|(conflict, ..)| *conflict) {
        Some((_, (key, value), reason)) => Err(ConfigError::Conflict { key, value, reason: reason.to_owned() }),
        None => Ok(()),
    }
}
