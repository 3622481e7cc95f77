//! The rules of the house, held by reading the sources: layers, doors, length, dead files, words.
//!
//! The rules are pure functions of sources, so that each can be shown to fail on a small bad one.

use std::{fs, path::Path};

/// The rules.
mod rules;
/// Rust sources as far as the rules need to understand them.
mod source;

use rules::{
    closed_doors, dead_files, forbidden_macros, forbidden_words, foreign_threads, ignored_tests, layers, length,
    opening, unsafe_code,
};
use source::Source;

/// A rule: what is wrong with a source.
type Rule = fn(&Source) -> Vec<String>;

const RULES: [Rule; 9] = [
    layers,
    closed_doors,
    foreign_threads,
    forbidden_macros,
    forbidden_words,
    ignored_tests,
    length,
    opening,
    unsafe_code,
];

/// All sources below some directories of the package.
fn tree(directories: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<_> = directories.iter().map(|directory| root.join(directory)).collect();
    let mut sources = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}

#[test]
fn the_tree_keeps_the_rules() {
    let sources = tree(&["src", "tests", "benches", "examples", "tools", "fuzz/src", "fuzz/fuzz_targets"]);
    assert!(sources.len() > 80, "only {} sources were found", sources.len());
    let mut wrong: Vec<String> = sources.iter().flat_map(|source| RULES.iter().flat_map(|rule| rule(source))).collect();
    wrong.extend(dead_files(&sources));
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rule finds as many things as there are names in `named`, each named by one.
#[track_caller]
fn check(rule: Rule, path: &str, text: &str, named: &[&str]) {
    let found = rule(&Source::new(path, text));
    assert_eq!(found.len(), named.len(), "{path}: {text}\n{found:#?}");
    for (found, named) in found.iter().zip(named) {
        assert!(found.contains(path) && found.contains(named), "\"{named}\" is not named: {found}");
    }
}

#[test]
fn layers_are_used_downward_only() {
    let good = [
        ("src/store/open.rs", "use crate::{disk::Disk, index::{self, schema::{key, Row}}, journal, store::Store};"),
        ("src/index/schema.rs", "use crate::journal::operation::{RepositoryId, Role};"),
        ("src/registry.rs", "mod uploads; fn f() { crate::store::g() } use self::uploads; use super::digest;"),
        ("src/codec.rs", "use crate::digest::Digest;"),
        ("src/config.rs", "use crate::{http::Limits, store::StoreOptions};"),
        ("src/store/read.rs", "// use crate::http;\nfn f() { \"crate::http\"; g::<'a>(); '\"'; super::h(); }"),
        ("src/bin/orlop/main.rs", "use crate::Failure; use orlop::http;"),
        ("tests/it/main.rs", "use crate::http;"),
        ("src/lib.rs", "use crate::http;"),
    ];
    for (path, text) in good {
        check(layers, path, text, &[]);
    }
    check(layers, "src/store.rs", "use crate::http::Limits;", &["store uses http"]);
    check(layers, "src/store/read.rs", "fn f() { crate::registry::g() }", &["store uses registry"]);
    check(layers, "src/store/read.rs", "use crate::{disk::{self}, config::{Config}};", &["store uses config"]);
    check(layers, "src/segment/files.rs", "use crate::index::Index;", &["segment uses index"]);
    check(layers, "src/journal.rs", "use crate::index::schema::Row;", &["journal uses index"]);
    check(layers, "src/index.rs", "use crate::journal::Journal;", &["index uses journal"]);
    check(layers, "src/digest.rs", "use crate::disk::Disk;", &["digest uses disk"]);
    check(layers, "src/disk.rs", "use super::state;", &["disk uses state"]);
    check(layers, "src/disk/sim.rs", "use super::super::state::apply;", &["disk uses state"]);
    check(layers, "src/disk/sim.rs", "mod tests { use super::super::super::state::apply; }", &["disk uses state"]);
    check(layers, "src/disk/sim.rs", "pub(in crate::state) fn f() {}", &["disk uses state"]);
    check(layers, "src/collect.rs", "use crate::verify;", &["collect uses verify"]);
    check(layers, "src/store.rs", "use crate::cellar::Wine;", &["cellar"]);
    check(layers, "src/cellar.rs", "", &["cellar"]);
}

#[test]
fn doors_are_passed_only_by_their_owners() {
    let good = [
        ("src/disk/real.rs", "use std::{fs::File, io};"),
        ("src/config.rs", "fn f() { std::fs::read(x) }"),
        ("src/bin/orlop/main.rs", "use std::fs; use tokio::net;"),
        ("src/index/rocks.rs", "use rocksdb::DB; fn f(e: &rocksdb::Error) {}"),
        ("src/store.rs", "use crate::index::rocks; #[cfg(feature = \"rocksdb\")] fn f() {}"),
        ("src/http/server.rs", "use hyper::Request; use axum::{body::Body, http::StatusCode};"),
        ("src/config.rs", "use crate::{http::{Limits}}; use std::path::Path;"),
        ("tests/it/main.rs", "use std::fs;"),
    ];
    for (path, text) in good {
        check(closed_doors, path, text, &[]);
    }
    check(closed_doors, "src/store.rs", "use std::fs::File;", &["std::fs"]);
    check(closed_doors, "src/store.rs", "use std::{io, fs::{self, File}};", &["std::fs", "std::fs"]);
    check(closed_doors, "src/diskette.rs", "fn f() { ::std::fs::read(x) }", &["std::fs"]);
    check(closed_doors, "src/segment.rs", "use std::os::unix::fs::FileExt;", &["std::os"]);
    check(closed_doors, "src/store.rs", "fn f(e: &rocksdb::Error) {}", &["rocksdb"]);
    check(closed_doors, "src/store.rs", "use rocksdb;", &["rocksdb"]);
    check(closed_doors, "src/registry.rs", "use axum::http::StatusCode;", &["axum"]);
    check(closed_doors, "src/registry.rs", "use {bytes::Bytes, hyper::{Request, Response}};", &["hyper", "hyper"]);
    check(closed_doors, "src/store.rs", "fn f() { tokio::spawn(g()) }", &["tokio"]);
}

#[test]
fn threads_and_locks_come_from_one_module() {
    for text in ["use std::sync::{Arc, OnceLock, PoisonError};", "use crate::sync::{Mutex, thread};"] {
        check(foreign_threads, "src/store.rs", text, &[]);
    }
    for path in
        ["src/sync.rs", "src/http/bridge.rs", "src/bin/orlop/serve.rs", "src/store/tests.rs", "tests/it/main.rs"]
    {
        check(foreign_threads, path, "use std::{sync::Mutex, thread};", &[]);
    }
    check(foreign_threads, "src/store.rs", "use std::sync::{Arc, Mutex};", &["Mutex"]);
    check(foreign_threads, "src/store.rs", "use std::sync::atomic::{AtomicBool};", &["atomic"]);
    check(foreign_threads, "src/store/flush.rs", "fn f() { std::thread::sleep(x) }", &["thread"]);
}

#[test]
fn words_and_macros_of_unfinished_work_are_found() {
    for name in ["todo", "unimplemented", "dbg"] {
        check(forbidden_macros, "tests/it/main.rs", &format!("fn f() {{ {name}!() }}"), &[name]);
    }
    for name in ["println", "print", "eprintln", "eprint"] {
        let text = format!("fn f() {{ {name}!(\"x\") }}");
        check(forbidden_macros, "src/store.rs", &text, &[name]);
        for path in ["src/bin/orlop/main.rs", "src/store/tests.rs", "src/store/tests/crash.rs", "tests/it/main.rs"] {
            check(forbidden_macros, path, &text, &[]);
        }
    }
    check(forbidden_macros, "src/store.rs", "// println!(x)\nfn f() { write!(\"println!()\"); g(println) }", &[]);
    for word in ["TODO", "FIXME", "XXX", "HACK"] {
        check(forbidden_words, "src/store.rs", &format!("fn f() {{}}\n// {word}: later"), &[word]);
    }
    check(forbidden_words, "src/store.rs", "// TODOS, XXXL", &[]);
    check(ignored_tests, "tests/it/x.rs", "#[test]\n#[ignore]\nfn f() {}", &["ignore"]);
    check(ignored_tests, "tests/it/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &["ignore"]);
    check(ignored_tests, "tests/it/x.rs", "#[cfg_attr(unix, ignore)]\nfn f() {}", &["ignore"]);
    check(ignored_tests, "tests/it/x.rs", "#[test]\nfn ignore() { ignore() }", &[]);
}

#[test]
fn unsafe_code_openings_and_lengths_are_found() {
    check(unsafe_code, "src/disk.rs", "fn f() { unsafe { g() } }", &["unsafe"]);
    check(unsafe_code, "src/disk.rs", "// unsafe\nfn f() { \"unsafe\"; r#\"unsafe\"#; unsafe_g() }", &[]);
    check(opening, "src/disk.rs", "use std::io;\n//! Late.", &["//!"]);
    check(opening, "src/disk.rs", "//! Disks.", &[]);
    check(opening, "src/disk.rs", "", &["//!"]);
    check(opening, "tests/it/served/lists.rs", "use std::io;", &[]);
    check(length, "src/disk.rs", &"\n".repeat(600), &[]);
    check(length, "src/disk.rs", &"\n".repeat(601), &["601"]);
}

#[test]
fn files_that_no_module_reaches_are_found() {
    let check = |files: &[(&str, &str)], named: &[&str]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let found = dead_files(&sources);
        assert_eq!(found.len(), named.len(), "{found:#?}");
        assert!(found.iter().zip(named).all(|(found, named)| found.contains(named)), "{found:#?}");
    };
    let library = ("src/lib.rs", "pub mod a; #[cfg(test)] mod tests { mod inner; }");
    let program = ("src/bin/x/main.rs", "mod c;");
    let reached =
        [("src/a.rs", "pub(crate) mod b;"), ("src/a/b.rs", ""), ("src/bin/x/c.rs", ""), ("src/tests/inner.rs", "")];
    check(&[&[library, program][..], &reached].concat(), &[]);
    check(&[library, program, ("src/a/b.rs", "")], &["src/a/b.rs"]);
    check(&[library, ("src/a.rs", "// mod b;\nfn f() { \"mod b;\" }"), ("src/a/b.rs", "")], &["src/a/b.rs"]);
    check(&[library, ("src/b.rs", "")], &["src/b.rs"]);
    check(&[library, ("src/a/mod.rs", "")], &["src/a/mod.rs"]);
    check(&[("tests/it/main.rs", ""), ("tests/it/x.rs", ""), ("benches/index.rs", "")], &["tests/it/x.rs"]);
}
