use std::{fs, net::TcpListener, path::Path};

use crate::harness::{Orlop, Ran, run};

/// It ends with code 2, says nothing as a result, and its message holds `named`.
#[track_caller]
fn not_done(ran: &Ran, named: &str) {
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(ran.stderr.contains(named), "\"{named}\" is not named: {ran:?}");
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_second_process_on_a_data_directory_is_refused_by_name() {
    let server = Orlop::start();
    let data = text(&server.data());
    for arguments in [vec!["serve", "--data", &data, "--listen", "127.0.0.1:0"], vec!["dump", "--data", &data]] {
        let ran = run(&arguments, &[]);
        not_done(&ran, &data);
        not_done(&ran, "in use");
    }
    server.push_blob("a", b"the first goes on");
}

#[test]
fn arguments_that_are_not_known_are_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["serve", "--dta", "x"], "--dta"),
        (&["serve", "--data"], "--data"),
        (&["serve", "extra"], "extra"),
        (&["srve"], "srve"),
        (&[], "Usage"),
        (&["serve", "--listen", "nonsense"], "nonsense"),
        (&["serve", "--listen", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (&["serve", "--config", "/nowhere/orlop.toml"], "/nowhere/orlop.toml"),
        (&["serve", "--data", ""], "data"),
    ];
    for (arguments, named) in cases {
        not_done(&run(arguments, &[]), named);
    }
}

#[test]
fn configurations_that_are_wrong_are_refused_by_the_name_of_the_setting() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orlop.toml");
    let cases = [
        ("[http]\nconections_max = 5\n", "http.conections_max"),
        ("nonsense = 1\n", "nonsense"),
        ("[nonsense]\na = 1\n", "nonsense"),
        ("[http]\nconnections_max = 0\n", "http.connections_max"),
        ("[http]\nconnections_max = \"many\"\n", "http.connections_max"),
        ("[http]\nheader_timeout = \"5 parsecs\"\n", "http.header_timeout"),
        ("[log]\nlevel = \"loud\"\n", "log.level"),
        ("[log]\nlevel = [1]\n", "log.level"),
        ("log = 1\n", "log"),
        ("[registry]\nmanifest_bytes_max = \"1MiB\"\n[http]\nbody_memory = \"1KiB\"\n", "http.body_memory"),
        ("[store]\nlarge_blob_bytes = \"128MiB\"\n", "store.large_blob_bytes"),
        ("data = \n", &text(&file)),
        ("= 5", &text(&file)),
    ];
    for (config, named) in cases {
        fs::write(&file, config).unwrap();
        not_done(&run(&["serve", "--config", &text(&file)], &[]), named);
        not_done(&run(&["dump", "--config", &text(&file)], &[]), named);
    }
    not_done(&run(&["serve"], &[("ORLOP_HTTP_CONNECTIONS_MAX", "none")]), "http.connections_max");
    fs::write(&file, [0xff, 0xfe]).unwrap();
    not_done(&run(&["serve", "--config", &text(&file)], &[]), &text(&file));
}

#[test]
fn directories_that_are_no_data_directories_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "a file").unwrap();
    fs::create_dir(path("foreign")).unwrap();
    fs::write(path("foreign/letter.txt"), "dear").unwrap();
    fs::create_dir(path("future")).unwrap();
    fs::write(path("future/FORMAT"), "orlop 99\nstore 00\ncreated x\ncrc32 00000000\n").unwrap();
    fs::create_dir(path("damaged")).unwrap();
    fs::write(path("damaged/FORMAT"), [0, 1, 2]).unwrap();
    let cases =
        [("file", ""), ("file/below", ""), ("foreign", "letter.txt"), ("future", "version 99"), ("damaged", "FORMAT")];
    for (name, named) in cases {
        let data = text(&path(name));
        let ran = run(&["serve", "--data", &data, "--listen", "127.0.0.1:0"], &[]);
        not_done(&ran, &data);
        not_done(&ran, named);
    }
    assert_eq!(fs::read(path("foreign/letter.txt")).unwrap(), b"dear");
    assert!(!path("foreign/journal").exists() && !path("future/journal").exists() && !path("damaged/journal").exists());
    let data = text(&path("missing"));
    not_done(&run(&["dump", "--data", &data], &[]), &data);
    assert!(!path("missing").exists(), "a store that was only asked for came to be");
}

#[test]
fn a_port_in_use_is_refused_by_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    not_done(&run(&["serve", "--data", &text(directory.path()), "--listen", &address], &[]), &address);
}
