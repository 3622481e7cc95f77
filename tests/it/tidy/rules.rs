//! The rules. Each gives what is wrong with a source, with the reason where it is not plain.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Token};

/// The layers from the lowest up; each uses only those below it. On the lowest, the small types use one another; on the
/// others, those of one level don't know each other.
const LAYERS: [&[&str]; 11] = [
    &["digest", "name", "location", "codec", "sync", "words", "policy"],
    &["disk"],
    &["segment", "journal", "index"],
    &["state"],
    &["store"],
    &["registry"],
    &["collect", "verify", "transfer"],
    &["doctor"],
    &["http"],
    &["config"],
    &["fuzzing"],
];

/// Uses within a level: rows hold ids that operations give out.
const NEIGHBOURS: [(&str, &str, &str); 1] = [("index", "journal", "operation")];

/// What only some may use, and who.
const DOORS: &[(&str, &[&str])] = &[
    ("std::fs", &["disk", "config", "bin"]),
    ("std::os", &["disk", "bin"]),
    ("rustix", &["disk", "bin"]),
    ("rocksdb", &["index"]),
    ("axum", &["http", "bin"]),
    ("hyper", &["http", "bin"]),
    ("hyper_util", &["http", "bin"]),
    ("http_body", &["http", "bin"]),
    ("http_body_util", &["http", "bin"]),
    ("tokio", &["http", "bin"]),
];

/// Most lines of a file.
const LENGTH_MAX: usize = 600;
/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];
/// Files that may hold `unsafe`.
const UNSAFE_FILES: &[&str] = &["fuzz/src/allocator.rs", "src/disk/mapped.rs"];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|level| level.contains(&module))
}

/// The module of the library that a source belongs to; `None` for roots, programs and tests.
fn module(source: &Source) -> Option<&str> {
    let first = source.path.starts_with("src/").then(|| source.modules().first().copied()).flatten();
    first.filter(|module| *module != "bin")
}

fn is_test(source: &Source) -> bool {
    source.path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Layers use what lies below them; tests also what lies beside, to hold one against the other.
pub(super) fn layers(source: &Source) -> Vec<String> {
    let Some(module) = module(source) else { return Vec::new() };
    let Some(own) = rank(module) else {
        return vec![format!("{}: {module} is in no layer", source.path)];
    };
    let depth = source.modules().len();
    let is_test = is_test(source);
    let mut wrong = BTreeSet::new();
    for path in source.paths() {
        let supers = path.parts.iter().take_while(|part| *part == "super").count();
        let from_crate = match path.parts.first().map(String::as_str) {
            Some("crate") => &path.parts[1..],
            Some("super") if supers == depth + path.inner_modules => &path.parts[supers..],
            _ => continue,
        };
        let Some(used) = from_crate.first().filter(|used| *used != module) else { continue };
        let inner = from_crate.get(1).map_or("", String::as_str);
        let is_neighbour = NEIGHBOURS.contains(&(module, used.as_str(), inner));
        match rank(used) {
            Some(rank) if rank < own || (rank == own && (own == 0 || is_test)) || is_neighbour => {}
            _ => drop(wrong.insert(format!("{}: {module} uses {used}::{inner}", source.path))),
        }
    }
    wrong.into_iter().collect()
}

/// Some things have one owner.
pub(super) fn closed_doors(source: &Source) -> Vec<String> {
    let Some(&module) = source.modules().first().filter(|_| source.path.starts_with("src/")) else {
        return Vec::new();
    };
    let paths = source.paths().into_iter().map(|path| path.parts.join("::"));
    let behind =
        |path: &str, door: &str| path.strip_prefix(door).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let closed = |path: &str| DOORS.iter().find(|(door, owners)| behind(path, door) && !owners.contains(&module));
    paths
        .filter_map(|path| closed(&path).map(|(_, owners)| format!("{}: {path} belongs to {owners:?}", source.path)))
        .collect()
}

/// Who waits for a lock that `shuttle` does not know stops all its threads. Above the collector nothing is run by it.
pub(super) fn foreign_threads(source: &Source) -> Vec<String> {
    let is_test = is_test(source);
    let is_free = source.modules().first().is_none_or(|module| ["sync", "http", "config", "bin"].contains(module));
    if is_test || is_free || !source.path.starts_with("src/") {
        return Vec::new();
    }
    let foreign = [
        "std::thread",
        "std::sync::Mutex",
        "std::sync::Condvar",
        "std::sync::RwLock",
        "std::sync::mpsc",
        "std::sync::atomic",
    ];
    let paths = source.paths().into_iter().map(|path| path.parts.join("::"));
    let paths = paths.filter(|path| foreign.iter().any(|foreign| path.starts_with(foreign)));
    paths.map(|path| format!("{}: {path} is not the one of crate::sync", source.path)).collect()
}

/// Nothing is unfinished, and the library does not print. Its tests print their seeds.
pub(super) fn forbidden_macros(source: &Source) -> Vec<String> {
    let is_test = source.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let prints = is_test || !source.path.starts_with("src/") || source.path.starts_with("src/bin/");
    let is_forbidden = |name: &str| match name {
        "todo" | "unimplemented" | "dbg" => true,
        "print" | "println" | "eprint" | "eprintln" => !prints,
        _ => false,
    };
    let calls = source.tokens.windows(2).filter_map(|pair| match pair {
        [Token::Word(name), Token::Other('!')] if is_forbidden(name) => Some(name),
        _ => None,
    });
    calls.map(|name| format!("{}: {name}! is not for here", source.path)).collect()
}

/// What is left to do stands in issues. This test itself must name the words.
pub(super) fn forbidden_words(source: &Source) -> Vec<String> {
    if source.path.starts_with("tests/it/tidy") {
        return Vec::new();
    }
    let words = source.text.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| ["TODO", "FIXME", "XXX", "HACK"].contains(word))
        .map(|word| format!("{}: {word}", source.path))
        .collect()
}

/// A test that is not run proves nothing.
pub(super) fn ignored_tests(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut depth, mut in_attribute) = (0_usize, false);
    for (at, token) in source.tokens.iter().enumerate() {
        match token {
            Token::Other('[') => {
                in_attribute |= at > 0 && source.tokens[at - 1].is("#");
                depth += usize::from(in_attribute);
            }
            Token::Other(']') if in_attribute => {
                depth -= 1;
                in_attribute = depth > 0;
            }
            Token::Word(word) if in_attribute && word == "ignore" => {
                wrong.push(format!("{}: a test is told to be ignored", source.path));
            }
            _ => {}
        }
    }
    wrong
}

/// A file that grows past a limit holds more than one thing.
pub(super) fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let is_known = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines <= LENGTH_MAX || is_known {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, more than {LENGTH_MAX}", source.path)]
}

/// A file of the library or the program tells first what it is.
pub(super) fn opening(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{}: it does not begin with //!", source.path)]
}

/// `unsafe` has at most a few homes.
pub(super) fn unsafe_code(source: &Source) -> Vec<String> {
    let is_home = UNSAFE_FILES.contains(&source.path.as_str());
    let found = source.tokens.iter().filter(|token| !is_home && token.is("unsafe"));
    found.map(|_| format!("{}: unsafe code", source.path)).collect()
}

/// Every file is reached from the root of a library, program, test or bench by modules; none is called `mod.rs`.
pub(super) fn dead_files(sources: &[Source]) -> Vec<String> {
    let files: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let is_root = |path: &str| {
        path == "src/lib.rs"
            || path.ends_with("/main.rs")
            || ["fuzz/src/lib.rs", "fuzz/src/bin/corpus.rs"].contains(&path)
            || path.starts_with("fuzz/fuzz_targets/")
            || (["benches/", "examples/"].iter().any(|root| path.starts_with(root)) && path.matches('/').count() == 1)
    };
    let mut open: Vec<&Source> = sources.iter().filter(|source| is_root(&source.path)).collect();
    let mut reached: BTreeSet<&str> = open.iter().map(|source| source.path.as_str()).collect();
    while let Some(source) = open.pop() {
        for declared in source.declared_modules() {
            if let Some((path, source)) = files.get_key_value(declared.as_str())
                && reached.insert(path)
            {
                open.push(source);
            }
        }
    }
    let dead = files.keys().filter(|path| !reached.contains(*path));
    dead.map(|path| format!("{path}: no module reaches it")).collect()
}
