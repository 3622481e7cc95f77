//! Administrative commands, run as processes: against a server, and on the store that it leaves.

/// What each command does and tells; both ways to ask have the same answers.
mod answers;
/// Mistakes, damage, servers that are not there: exit codes, and what is said.
mod refusals;
/// `orlop verify` on a store that is damaged while nobody serves it.
mod verifying;

use serde_json::Value;

use crate::harness::{Orlop, Ran, run};

/// Asks the server.
fn ask(server: &Orlop, command: &[&str]) -> Ran {
    let url = format!("http://{}", server.address());
    run(&[command, &["--server", &url]].concat(), &[])
}

/// Asks the store of a server that has ended.
fn at_rest(server: &Orlop, command: &[&str]) -> Ran {
    let data = server.data().display().to_string();
    run(&[command, &["--data", &data]].concat(), &[])
}

/// The answer to a command that is done without findings.
#[track_caller]
fn json(ran: Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// What a command that is done without findings prints.
#[track_caller]
fn text(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}

/// The command ends with a code, and says something.
#[track_caller]
fn check(ran: Ran, code: i32, said: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for said in said {
        assert!(ran.stdout.contains(said) || ran.stderr.contains(said), "\"{said}\" is not said: {ran:?}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}
