//! Commands of the system and of orlop, run to their end.

use std::{
    ffi::OsStr,
    process::{Command, Output},
};

use crate::error::CutError;

/// Runs a command; returns what it says.
///
/// # Errors
/// When it cannot be run or fails, with its own words.
pub(crate) fn run<Argument: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = Argument>,
) -> Result<String, CutError> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path());
    let output = output(&mut command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(CutError::Command { command: format!("{command:?}"), problem: said(&output) })
}

/// Runs a command, whatever its exit code.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn output(command: &mut Command) -> Result<Output, CutError> {
    command.output().map_err(|error| CutError::Command { command: format!("{command:?}"), problem: error.to_string() })
}

/// The exit code and all that a command said.
pub(crate) fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}: {}", output.status, format!("{err}\n{out}").trim())
}

/// Tools of the system's administrator are not on everybody's path.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
