use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::FileExt,
    thread,
};

use super::{ask, at_rest, check};
use crate::harness::{Orlop, noise, run, sha256};

const NOBODY: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn what_is_not_there_is_named_with_where_to_look() {
    let server = Orlop::start();
    server.push_image("team/app", "one", 1);
    for (command, said) in [
        (&["usage", "nobody"][..], &["\"nobody\"", "orlop ls"][..]),
        (&["usage", "team/nobody"], &["team/nobody", "orlop ls"]),
        (&["ls", "team/nobody"], &["team/nobody"]),
        (&["what-if", "team/app", "--tag", "none"], &["none"]),
        (&["history", "nobody/app"], &["nobody/app"]),
        (&["restore", "team/app", NOBODY], &[NOBODY, "orlop history"]),
        (&["purge", "nobody"], &["nobody"]),
        (&["blob", "sha256:00"], &["sha256:00"]),
        (&["why", "team/app:none"], &["none"]),
        (&["why", "what"], &["what"]),
        (&["usage", "Bad//Name"], &["Bad//Name"]),
        (&["usage", "team/app", "--history"], &["for the registry and for organisations"]),
        (&["ls", "team", "--own"], &["--own"]),
        (&["policy", "rm", "nothing"], &["policy \"nothing\"", "orlop policy ls"]),
        (&["policy", "confirm", "nothing"], &["policy \"nothing\"", "orlop policy ls"]),
        (&["policy", "explain", "Bad//Name"], &["Bad//Name"]),
        (&["policy", "set", "Bad", "--pattern", "x"], &["name = \"Bad\" is not accepted"]),
        (&["policy", "set", "a", "--pattern", "x//y"], &["pattern = \"x//y\" is not accepted"]),
        (
            &["policy", "set", "a", "--pattern", "x", "--older-than", "30"],
            &["older_than = \"30\"", "such as 12h or 30d"],
        ),
        (&["policy", "set", "a", "--pattern", "x", "--size-max", "20GB"], &["size_max_bytes = \"20GB\"", "20GiB"]),
        (&["policy", "set", "a", "--pattern", "x", "--size-max", "1GiB", "--held-for", "1d"], &["do not go together"]),
        (&["policy", "set", "--file", "/nowhere/policy.toml"], &["/nowhere/policy.toml: "]),
    ] {
        check(ask(&server, command), 2, said);
    }
}

#[test]
fn wrong_arguments_end_with_2_and_every_help_has_an_example() {
    for command in [
        &["restore", "team/app"][..],
        &["restore", "a/b", "c", NOBODY, "d"],
        &["pause", "everything"],
        &["usage", "--data", "x", "--server", "http://x"],
        &["usage", "--config", "x"],
        &["gc", "--status", "--dry-run"],
        &["gc", "--status", "--free", "1GiB"],
        &["gc", "--yes"],
        &["gc", "--free", "1GiB", "--yes", "--dry-run"],
        &["gc", "--free", "0"],
        &["gc", "--free", "much"],
        &["ls", "-n", "-1"],
        &["policy", "set"],
        &["policy", "set", "a"],
        &["policy", "set", "a", "--pattern", "x", "--keep-newest", "-1"],
        &["policy", "set", "a", "--pattern", "x", "--dry-run", "--yes"],
        &["policy", "set", "--file", "x", "--older-than", "1d"],
        &["what-if", "a/b", "--tag", "x", "--digest", NOBODY],
    ] {
        check(run(command, &[]), 2, &["error"]);
    }
    for command in [
        "usage", "ls", "quota", "policy", "what-if", "history", "restore", "purge", "gc", "compact", "segments",
        "blob", "why", "pause", "resume", "verify", "doctor", "top",
    ] {
        check(run(&[command, "--help"], &[]), 0, &[&format!("Example:\n  orlop {command}")]);
    }
}

#[test]
fn a_server_that_is_not_there_or_is_another_one_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1_000]).unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>").unwrap();
        // The second one is ended without an answer.
        drop(listener.accept().unwrap());
    });
    check(run(&["usage", "--server", &url], &[]), 2, &["no orlop", "404", "--server"]);
    check(run(&["usage", "--server", &url], &[]), 2, &["ended the connection", &url]);
    other.join().unwrap();
    check(run(&["usage", "--server", &url], &[]), 2, &["no server answers", &url, "--server", "--data"]);
    check(run(&["usage"], &[("ORLOP_SERVER", "https://localhost")]), 2, &["https is not built yet"]);
}

#[test]
fn a_store_that_is_served_or_is_none_is_left_alone() {
    let server = Orlop::start();
    check(at_rest(&server, &["usage"]), 2, &["in use by another orlop process", "--server"]);
    let nowhere = server.data().join("nowhere");
    let ran = run(&["usage", "--data", nowhere.to_str().unwrap()], &[]);
    check(ran, 2, &["no orlop data directory"]);
    assert!(!nowhere.exists());
    server.get("/v2/").is(200);
}

/// A changed byte is a finding with exit code 1, of the server and of the store at rest; reading rows alone does not see it.
#[test]
fn damage_is_a_finding() {
    let mut server = Orlop::start();
    let large = noise(9, 300_000);
    server.push_blob("team/app", &large);
    server.push_image("team/app", "one", 1);
    let file = server.segment_files().into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(b"x", 200_000).unwrap();
    check(ask(&server, &["verify"]), 0, &["no findings"]);
    check(ask(&server, &["verify", "--content"]), 1, &["content: ", &sha256(&large), "1 finding: "]);
    server.terminate();
    server.wait();
    check(at_rest(&server, &["verify", "--content", "--json"]), 1, &["\"kind\": \"content\"", &sha256(&large)]);
}
