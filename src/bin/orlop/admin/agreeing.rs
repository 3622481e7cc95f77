//! Asking on a terminal before something is done: its plan is shown first, on standard error, as the answer is another one.

use std::io::{self, BufRead, IsTerminal, Write};

use jiff::Timestamp;
use serde_json::Value;

use super::{Call, show::Shown, transport::Transport, waiting};
use crate::Failure;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 100;

/// Shows the plan, and returns when somebody agrees to it.
///
/// # Errors
/// When there is no terminal to ask on; nobody agrees; there is no plan.
pub(super) fn agree(
    transport: &dyn Transport,
    plan: &Call,
    show: fn(&Value, Timestamp) -> Shown,
) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err("there is no terminal to ask on: --dry-run shows what would be done, --yes does it".into());
    }
    let answer = waiting::ask(transport, plan, "planning", None)?;
    let mut err = io::stderr().lock();
    write!(err, "{}\nDo it? [y/N] ", show(&answer, Timestamp::now()).text)?;
    err.flush()?;
    if is_yes(&mut io::stdin().lock())? {
        return Ok(());
    }
    Err("nothing was done".into())
}

fn is_yes(input: &mut dyn BufRead) -> io::Result<bool> {
    let mut line = String::new();
    io::Read::take(input, ANSWER_BYTES_MAX).read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (text, yes) in
            [("y\n", true), ("yes\n", true), ("Y", true), ("", false), ("\n", false), ("n\n", false), ("yet\n", false)]
        {
            assert_eq!(is_yes(&mut text.as_bytes()).unwrap(), yes, "{text:?}");
        }
    }
}
