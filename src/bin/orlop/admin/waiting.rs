//! What is said while something long runs: a spinner or a bar on a terminal, plain lines elsewhere; on standard error.
//!
//! A verification tells how far it is when it is asked; of the others only the time is known that has passed.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use serde_json::Value;

use super::{call::Call, format, transport::Transport};
use crate::Failure;

/// How often is asked how far it is.
const ASK_EACH: Duration = Duration::from_millis(500);
/// How often a line is written where there is no terminal.
const LINE_EACH: Duration = Duration::from_secs(30);

/// Asks, and tells meanwhile what is being done.
pub(super) fn ask(
    transport: &dyn Transport,
    call: &Call,
    doing: &'static str,
    far: Option<&Call>,
) -> Result<Value, Failure> {
    let began = Instant::now();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let said = scope.spawn(|| {
            // Where that is not told, the time is.
            let progress = || far.and_then(|far| transport.ask(far).ok());
            if io::stderr().is_terminal() {
                spin(is_done, doing, &progress)
            } else {
                write_lines(is_done, doing, &progress)
            }
        });
        let answer = transport.ask(call);
        drop(done);
        // It says things only, and ends when it is told to.
        let _ = said.join();
        if !io::stderr().is_terminal() {
            let end = if answer.is_ok() { "done" } else { "not done" };
            say(&format!("{doing}: {end} after {}", elapsed(began)));
        }
        answer
    })
}

/// Standard error may be closed; what is said there is not what was asked for.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn elapsed(began: Instant) -> String {
    SignedDuration::try_from(began.elapsed()).map_or_else(|_| format::NONE.to_owned(), format::duration)
}

fn is_over(is_done: &Receiver<()>, wait: Duration) -> bool {
    !matches!(is_done.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}

fn spin(is_done: Receiver<()>, doing: &'static str, progress: &dyn Fn() -> Option<Value>) {
    let bar = ProgressBar::new_spinner();
    bar.set_style(style("{spinner} {msg} {elapsed}"));
    bar.set_message(doing);
    bar.enable_steady_tick(Duration::from_millis(100));
    while !is_over(&is_done, ASK_EACH) {
        let Some(far) = progress().filter(|far| far["running"] == true) else { continue };
        match (far["done"].as_u64(), far["total"].as_u64()) {
            (Some(done), Some(total)) => {
                bar.set_style(style(if is_of_bytes(&far) {
                    "{spinner} {msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}"
                } else {
                    "{spinner} {msg} {wide_bar} {pos}/{len} {eta}"
                }));
                bar.set_length(total);
                bar.set_position(done);
                let phase = far["phase"].as_str().map_or_else(String::new, format::plain);
                bar.set_message(format!("{doing}: {phase}"));
            }
            _ => {
                bar.set_style(style("{spinner} {msg} {elapsed}"));
                bar.set_message(describe(doing, &far));
            }
        }
    }
    bar.finish_and_clear();
}

/// The templates are constants; were one wrong, the default would do.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn write_lines(is_done: Receiver<()>, doing: &'static str, progress: &dyn Fn() -> Option<Value>) {
    let began = Instant::now();
    while !is_over(&is_done, LINE_EACH) {
        let far = progress().filter(|far| far["running"] == true);
        let text = far.map_or_else(|| doing.to_owned(), |far| describe(doing, &far));
        say(&format!("{text}, for {} now", elapsed(began)));
    }
}

/// `verifying: counting, 12000 rows`
fn describe(doing: &str, far: &Value) -> String {
    let Some(phase) = far["phase"].as_str() else { return doing.to_owned() };
    let (done, total) = (far["done"].as_u64().unwrap_or_default(), far["total"].as_u64());
    let phase_name = format::plain(phase);
    match (phase, total) {
        ("index" | "journal" | "content", Some(total)) => {
            format!("{doing}: {phase_name}, {} of {}", format::bytes(done), format::bytes(total))
        }
        ("index" | "journal" | "content", None) => format!("{doing}: {phase_name}, {}", format::bytes(done)),
        ("places", Some(total)) => format!("{doing}: {phase_name}, {done} of {total} records"),
        ("places", None) => format!("{doing}: {phase_name}, {done} records"),
        _ => format!("{doing}: {phase_name}, {done} rows"),
    }
}

/// Whether a phase is counted in bytes.
fn is_of_bytes(far: &Value) -> bool {
    matches!(far["phase"].as_str(), Some("index" | "journal" | "content"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn how_far_it_is_reads_well_in_every_phase() {
        let shown = |far: Value| describe("verifying", &far);
        assert_eq!(
            shown(json!({ "phase": "counting", "done": 12_000, "total": null })),
            "verifying: counting, 12000 rows"
        );
        assert_eq!(
            shown(json!({ "phase": "content", "done": 1_024, "total": 2_048 })),
            "verifying: content, 1.0 KiB of 2.0 KiB"
        );
        assert_eq!(shown(json!({ "phase": "places", "done": 5, "total": 9 })), "verifying: places, 5 of 9 records");
        assert_eq!(shown(json!({ "phase": "journal", "done": 1_024, "total": null })), "verifying: journal, 1.0 KiB");
        assert_eq!(shown(json!({})), "verifying");
    }
}
