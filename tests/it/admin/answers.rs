use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json as value;

use super::{ask, at_rest, check, json, text};
use crate::harness::{OCI_MANIFEST, Orlop, noise, sha256};

/// Two organisations, a deleted manifest, a tag with a past, a repository without a slash.
fn fill(server: &Orlop) {
    server.push_image("team/app", "one", 1);
    let two = server.push_image("team/app", "two", 2);
    server.push_image("team/app", "two", 3);
    server.put_manifest("team/app", "three", OCI_MANIFEST, &two).is(201);
    server.push_image("team/app", "gone", 4);
    server.delete("/v2/team/app/manifests/gone").is(202);
    server.push_image("other/app", "one", 1);
    server.push_image("plain", "one", 5);
    check(ask(server, &["quota", "team/", "1GiB"]), 0, &["quota of team/", "1.0 GiB"]);
    check(ask(server, &["quota", "team/app", "1"]), 0, &["quota of team/app", "Warning", "nothing more can be pushed"]);
    check(ask(server, &["policy", "set", "team", "--pattern", "team/*", "--keep-newest", "50"]), 0, &["policy team"]);
    reviewed(server, "team/app");
}

#[test]
fn a_quota_is_set_met_and_taken_away() {
    let server = Orlop::start();
    check(ask(&server, &["quota", "team/", "1KiB"]), 0, &["quota of team/", "1.0 KiB"]);
    let blob = noise(1, 2_000);
    let push = || server.send("POST", &format!("/v2/team/app/blobs/uploads/?digest={}", sha256(&blob)), &[], &blob);
    push().is(403);
    check(ask(&server, &["quota", "team/app"]), 0, &["team/", "1.0 KiB"]);
    check(ask(&server, &["quota", "team/", "none"]), 0, &["no quota"]);
    push().is(201);
    check(ask(&server, &["quota", "team/", "1GB"]), 2, &["1GB", "20GiB"]);
}

/// Waits until a repository has come under the policy that governs it.
fn reviewed(server: &Orlop, repository: &str) {
    let explained = || json(ask(server, &["policy", "explain", repository, "--json"]));
    let begun = std::time::Instant::now();
    while explained()["effect"]["under_review"] == true {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "{repository} is still under review");
    }
}

#[test]
fn a_policy_is_tried_set_explained_enforced_and_removed() {
    let server = Orlop::start();
    let one = server.push_image("team/app", "v1", 1);
    let two = server.push_image("team/app", "latest", 2);
    let policy =
        ["policy", "set", "releases", "--pattern", "team/**", "--tag-pattern=v*", "--immutable", "--keep-newest"];
    let tried = ask(&server, &[&policy[..], &["1", "--dry-run"]].concat());
    check(
        tried,
        0,
        &[
            "policy releases",
            "keep the 1 newest, immutable, of tags v*",
            "0 tags and 0 manifests would go now",
            "Nothing was changed",
        ],
    );
    check(ask(&server, &["policy", "ls"]), 0, &["no policies\n"]);
    check(ask(&server, &[&policy[..], &["1"]].concat()), 0, &["policy releases", "team/**, 1 now"]);
    let listed = text(ask(&server, &["policy", "ls"]));
    assert!(listed.contains("POLICY") && listed.contains("releases  team/**"), "{listed}");
    reviewed(&server, "team/app");
    let said = ["team/app is governed by policy releases (team/**)", "newest, which stay  1", "others that may go  0"];
    check(ask(&server, &["policy", "explain", "team/app"]), 0, &said);
    check(ask(&server, &["policy", "explain", "other/app"]), 0, &["no policy matches other/app"]);
    server.put_manifest("team/app", "v1", OCI_MANIFEST, &two).is(403);
    server.put_manifest("team/app", "v1", OCI_MANIFEST, &one).is(201);
    server.put_manifest("team/app", "latest", OCI_MANIFEST, &one).is(201);
    check(ask(&server, &["policy", "confirm", "releases"]), 0, &["policy releases is confirmed"]);
    check(ask(&server, &["policy", "rm", "releases"]), 0, &["policy releases is removed"]);
    check(ask(&server, &["policy", "rm", "releases"]), 2, &["\"releases\" is not known", "orlop policy ls"]);
    server.put_manifest("team/app", "v1", OCI_MANIFEST, &two).is(201);
}

#[test]
fn a_policy_that_would_take_more_than_half_needs_a_yes_or_a_look() {
    let server = Orlop::start();
    for (tag, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        server.push_image("team/app", tag, seed);
    }
    let set = |more: &[&str]| {
        ask(&server, &[&["policy", "set", "one", "--pattern", "team/app", "--keep-newest", "1"], more].concat())
    };
    check(set(&[]), 2, &["would take 2 of 3 tags from repository team/app at once", "--yes", "--dry-run"]);
    check(set(&["--dry-run"]), 0, &["retention", "team/app", "More than half of repository team/app: 2 of 3 tags"]);
    check(set(&[]), 0, &["policy one"]);
    reviewed(&server, "team/app");
    check(ask(&server, &["gc", "--dry-run"]), 0, &["Would go by policies", "tag   one", "a", "b"]);
    check(ask(&server, &["gc"]), 0, &["Gone by policies", "tag   one     team/app"]);
    assert_eq!(json(ask(&server, &["usage", "team/app", "--json"]))["tags"], 1);
    check(ask(&server, &["policy", "rm", "one"]), 0, &["removed"]);
    let other = ["policy", "set", "two", "--pattern", "team/*", "--older-than", "3650d"];
    check(ask(&server, &[&other[..], &["--yes"]].concat()), 0, &["policy two"]);
    check(ask(&server, &["policy", "ls"]), 0, &["two", "yes", "older than 3650d"]);
}

#[test]
fn a_policy_is_read_from_a_file() {
    let mut server = Orlop::start();
    let file = server.data().with_extension("policy");
    std::fs::write(&file, "name = 'filed'\npattern = 'a/**'\nsize_max_bytes = '1GiB'\n").unwrap();
    let path = file.display().to_string();
    check(ask(&server, &["policy", "set", "--file", &path]), 0, &["policy filed", "at most 1.0 GiB"]);
    std::fs::write(&file, r#"{"pattern":"b/**","keep_newest":0}"#).unwrap();
    check(ask(&server, &["policy", "set", "--file", &path]), 2, &["has no name"]);
    check(ask(&server, &["policy", "set", "named", "--file", &path]), 2, &["keep_newest = 0 is not accepted"]);
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    check(at_rest(&server, &["policy", "ls"]), 0, &["filed", "a/**"]);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn policies_of_the_settings_are_taken_over_at_each_start() {
    let mut server = Orlop::start();
    server.push_image("team/app", "one", 1);
    check(ask(&server, &["policy", "set", "mine", "--pattern", "**", "--keep-newest", "9"]), 0, &["policy mine"]);
    let settings = server.data().with_file_name("orlop.toml");
    let before = std::fs::read_to_string(&settings).unwrap();
    let start_with = |policies: &str, server: &mut Orlop| {
        std::fs::write(&settings, format!("{before}{policies}")).unwrap();
        server.terminate();
        assert_eq!(server.wait(), Some(0));
        server.start_again();
    };
    start_with("[[policies]]\nname = 'team'\npattern = 'team/**'\nkeep_newest = 5\n", &mut server);
    check(ask(&server, &["policy", "explain", "team/app"]), 0, &["governed by policy team", "It wins over mine"]);
    let remedy = "policy team stands in the settings; change it there";
    check(ask(&server, &["policy", "rm", "team"]), 2, &[remedy]);
    check(ask(&server, &["policy", "set", "team", "--pattern", "x"]), 2, &[remedy]);
    check(ask(&server, &["policy", "set", "team", "--pattern", "team/*", "--dry-run"]), 0, &["Nothing was changed"]);
    check(ask(&server, &["policy", "confirm", "team"]), 0, &["policy team is confirmed"]);
    start_with("[[policies]]\nname = 'team'\npattern = 'team/**'\nkeep_newest = 5\n", &mut server);
    check(ask(&server, &["policy", "ls"]), 0, &["mine", "settings  yes        keep the 5 newest"]);
    start_with("", &mut server);
    check(ask(&server, &["policy", "explain", "team/app"]), 0, &["governed by policy mine"]);
    assert!(!text(ask(&server, &["policy", "ls"])).contains("team"));
}

/// What stands in the settings and is malformed is refused, and nothing of it is taken over.
#[test]
fn a_malformed_policy_of_the_settings_is_refused_with_its_place() {
    let mut server = Orlop::start();
    check(ask(&server, &["policy", "set", "mine", "--pattern", "a/**"]), 0, &["policy mine"]);
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    let settings = server.data().with_file_name("orlop.toml");
    let before = std::fs::read_to_string(&settings).unwrap();
    let (path, lines) = (settings.display().to_string(), before.lines().count());
    let serve = |more: &[&str]| crate::harness::run(&[&["serve", "--config", &path], more].concat(), &[]);
    let malformed =
        "[[policies]]\nname = 'a'\npattern = 'a/*'\n[[policies]]\nname = 'b'\npattern = 'b'\nkeep_newest = 0\n";
    std::fs::write(&settings, format!("{before}{malformed}")).unwrap();
    let place = format!("policy 2 (line {}): keep_newest = 0 is not accepted: a whole number from 1", lines + 4);
    check(serve(&["--print-config"]), 2, &[&path, &place]);
    check(serve(&[]), 2, &[&path, &place]);
    std::fs::write(&settings, format!("{before}[[policies]]\nname = 'b'\npattern = 'a/**'\n")).unwrap();
    check(serve(&["--print-config"]), 0, &["[[policies]]\nname = \"b\"\npattern = \"a/**\""]);
    check(serve(&[]), 2, &["policy mine has the pattern a/** already"]);
    std::fs::write(&settings, &before).unwrap();
    check(at_rest(&server, &["policy", "ls"]), 0, &["mine", "a/**"]);
}

const QUESTIONS: [&[&str]; 23] = [
    &["usage"],
    &["usage", "team"],
    &["usage", "team/app"],
    &["usage", "plain"],
    &["usage", "--history"],
    &["usage", "team/", "--history"],
    &["ls"],
    &["ls", "team"],
    &["ls", "_"],
    &["ls", "team/app", "--own"],
    &["what-if", "team/app"],
    &["what-if", "team/app", "--tag", "one", "--tag", "two"],
    &["top"],
    &["top", "team", "-n", "1"],
    &["top", "team/app"],
    &["history", "team/app"],
    &["history", "team/app", "two"],
    &["why", "team/app:one"],
    &["quota"],
    &["quota", "team/app"],
    &["policy", "ls"],
    &["policy", "explain", "team/app"],
    &["segments"],
];

#[test]
fn a_server_and_its_store_at_rest_have_the_same_answers() {
    let mut server = Orlop::start();
    fill(&server);
    let blob = sha256(noise(1, 100));
    let of_blob: [&[&str]; 2] = [&["blob", &blob], &["why", &blob]];
    let questions = || QUESTIONS.iter().chain(&of_blob);
    let served: Vec<_> =
        questions().map(|question| json(ask(&server, &[question, &["--json"][..]].concat()))).collect();
    let tables: Vec<_> = questions().map(|question| text(ask(&server, question))).collect();
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    for ((question, mut served), table) in questions().zip(served).zip(tables) {
        let mut found = json(at_rest(&server, &[question, &["--json"][..]].concat()));
        let printed = text(at_rest(&server, question));
        if question == &["usage"] {
            // The journal begins a new file at each start.
            assert!(served["disk_bytes"].take().is_u64() && found["disk_bytes"].take().is_u64());
        } else if question != &["segments"] {
            assert_eq!(printed, table, "{question:?}");
        }
        if question == &["segments"] {
            (served, found) =
                (served["segments"][0]["live_records"].take(), found["segments"][0]["live_records"].take());
        }
        assert_eq!(found, served, "{question:?}");
    }
}

#[test]
fn names_are_told_apart_as_the_help_says() {
    let server = Orlop::start();
    fill(&server);
    server.push_image("plain/app", "one", 6);
    let scope = |name: &str| json(ask(&server, &["usage", name, "--json"]))["scope"].clone();
    assert_eq!(scope("team"), "organization");
    assert_eq!(scope("team/app"), "repository");
    assert_eq!(scope("plain"), "repository");
    assert_eq!(scope("plain/"), "organization");
    assert_eq!(scope("_"), "organization");
    let listed = |name: &str, field: &str| json(ask(&server, &["ls", name, "--json"]))[field].as_array().map(Vec::len);
    assert_eq!(listed("plain", "manifests"), Some(1));
    assert_eq!(listed("plain/", "repositories"), Some(1));
}

#[test]
fn a_list_of_several_pages_is_whole_and_can_be_cut() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "latest", 1);
    let digest = sha256(&manifest);
    for page in 0..11 {
        let tags: String = (0..99).map(|n| format!("&tag=t{page}-{n}")).collect();
        let reference = format!("{digest}?{}", tags.trim_start_matches('&'));
        server.put_manifest("team/app", &reference, OCI_MANIFEST, &manifest).is(201);
    }
    let count = |command: &[&str]| {
        let listed = json(ask(&server, &[command, &["--json"]].concat()));
        (listed["history"].as_array().unwrap().len(), listed["next"].is_null())
    };
    assert_eq!(count(&["history", "team/app"]), (1_090, true));
    assert_eq!(count(&["history", "team/app", "-n", "1001"]), (1_001, false));
    let table = text(ask(&server, &["history", "team/app"]));
    assert_eq!(table.lines().count(), 1_091);
}

#[test]
fn what_was_deleted_is_restored_and_what_is_held_is_purged() {
    let server = Orlop::start();
    fill(&server);
    let gone = json(ask(&server, &["history", "team/app", "gone", "--json"]));
    let digest = gone["history"][0]["digest"].as_str().unwrap().to_owned();
    server.get("/v2/team/app/manifests/gone").is(404);
    assert_eq!(
        text(ask(&server, &["restore", "team/app", "back", &digest])),
        format!("team/app:back is {digest} again\n")
    );
    server.get("/v2/team/app/manifests/back").is(200);
    server.delete("/v2/team/app/manifests/back").is(202);
    check(ask(&server, &["restore", "team/app", &digest]), 0, &["is live again, without a tag"]);
    server.delete(&format!("/v2/team/app/manifests/{digest}")).is(202);

    let plan = json(ask(&server, &["purge", "team/app", "--dry-run", "--json"]));
    assert_eq!(plan["dry_run"], true);
    let done = json(ask(&server, &["purge", "team/app", "--json"]));
    let dropped = |report: &serde_json::Value| {
        let dropped = report["dropped"].as_array().unwrap().clone();
        dropped.into_iter().any(|dropped| dropped["digest"] == digest.as_str())
    };
    assert!(dropped(&plan) && dropped(&done), "{plan} {done}");
    check(ask(&server, &["restore", "team/app", &digest]), 2, &["dropped", "orlop history"]);
    check(ask(&server, &["gc", "--status"]), 0, &["purge", "paused"]);
    check(ask(&server, &["gc"]), 0, &["dropped"]);
    check(ask(&server, &["compact", "--dry-run"]), 0, &["nothing was changed"]);
}

#[test]
fn so_much_is_freed_of_what_is_held_and_no_more() {
    let server = Orlop::start();
    let held: Vec<String> = (0..3)
        .map(|number| {
            let digest = sha256(server.push_image("team/app", "gone", 10 + number));
            server.delete(&format!("/v2/team/app/manifests/{digest}")).is(202);
            thread::sleep(Duration::from_millis(5));
            digest
        })
        .collect();
    check(ask(&server, &["gc", "--free", "1B"]), 2, &["no terminal", "--dry-run", "--yes"]);
    check(
        ask(&server, &["gc", "--free", "1B", "--dry-run"]),
        0,
        &["Would end before its time", &held[0], "That reaches the 1 B"],
    );
    let ended = |report: &serde_json::Value| {
        let ended = report["goal"]["ended"].as_array().unwrap().iter();
        ended.map(|ended| ended["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let plan = json(ask(&server, &["gc", "--free", "1B", "--dry-run", "--json"]));
    assert_eq!((ended(&plan), &plan["goal"]["reached"]), (held[..1].to_vec(), &value!(true)), "{plan:#}");
    let done = json(ask(&server, &["gc", "--free", "1B", "--yes", "--json"]));
    assert_eq!((ended(&done), &done["freed_bytes"]), (held[..1].to_vec(), &plan["freed_bytes"]), "{done:#}");
    check(ask(&server, &["restore", "team/app", &held[0]]), 2, &["dropped"]);
    check(ask(&server, &["gc", "--free", "1TiB", "--dry-run"]), 1, &["not reached", "orlop top"]);
    check(ask(&server, &["restore", "team/app", &held[1]]), 0, &["live again"]);
    check(ask(&server, &["gc", "--free", "1TiB", "--yes"]), 1, &[&held[2], "not reached", "nothing more is held"]);
    check(ask(&server, &["gc", "--status"]), 0, &["free"]);
    server.get(&format!("/v2/team/app/manifests/{}", held[1])).is(200);
}

#[test]
fn a_pause_outlives_a_restart_and_a_collection_says_that_it_did_nothing() {
    let mut server = Orlop::start();
    check(ask(&server, &["pause", "collect"]), 0, &["paused: collect\n"]);
    server.kill();
    server.start_again();
    check(ask(&server, &["gc"]), 1, &["orlop resume collect"]);
    check(ask(&server, &["resume", "collect"]), 0, &["paused: nothing\n"]);
    check(ask(&server, &["gc"]), 0, &["0 things dropped"]);
}

/// What else the doctor finds is up to the machine.
#[test]
fn the_doctor_finds_what_is_paused_and_says_how_it_goes_on() {
    let mut server = Orlop::start();
    check(ask(&server, &["pause", "compact"]), 0, &["paused: compact\n"]);
    check(ask(&server, &["doctor"]), 1, &["compact is paused", "orlop resume compact", "warning"]);
    server.terminate();
    assert_eq!(server.wait(), Some(0));
    check(at_rest(&server, &["doctor", "--json"]), 1, &["\"name\": \"file system\"", "orlop resume compact"]);
}

#[test]
fn the_environment_can_name_the_server() {
    let server = Orlop::start();
    let url = format!("http://{}", server.address());
    let ran = crate::harness::run(&["usage"], &[("ORLOP_SERVER", &url)]);
    check(ran, 0, &["registry\n"]);
    let data = server.data().display().to_string();
    // What --data asks for is not for the server that happens to be named.
    let ran = crate::harness::run(&["usage", "--data", &data], &[("ORLOP_SERVER", &url)]);
    check(ran, 2, &["in use", "--server"]);
}

/// `orlop ls | head` ends when `head` does.
#[test]
fn output_that_nobody_reads_is_no_failure() {
    let server = Orlop::start();
    fill(&server);
    let url = format!("http://{}", server.address());
    for arguments in [&["ls"][..], &["usage", "--json"], &["history", "team/app"], &["verify"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_orlop"))
            .args(arguments)
            .args(["--server", &url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(0) && !said.contains("panicked"), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_sound_store_is_verified_with_all_of_its_content() {
    let server = Orlop::start();
    fill(&server);
    let report = json(ask(&server, &["verify", "--content", "--json"]));
    assert_eq!(report["findings"], value!([]));
    assert!(report["content_bytes"].as_u64().unwrap() > 5_000, "{report}");
    check(ask(&server, &["verify"]), 0, &["no findings", "no content read", "verifying: done after"]);
}
