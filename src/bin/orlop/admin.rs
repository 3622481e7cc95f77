//! Administrative commands: each is a request to the admin API, and its answer as a table or as JSON.
//!
//! A command says what it asks ([`Plan`]); nothing else differs between them. The request goes to a running server, or,
//! with `--data`, to the same service in this process over a store that nobody serves (`transport`). Lists are followed to
//! their end page by page, so that memory does not grow with them. Tables go to standard output and are the same on a
//! terminal and elsewhere; what is said while something long runs goes to standard error.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use clap::Args;
use jiff::Timestamp;
use orlop::{
    config::{FILE_VARIABLE, SERVER_VARIABLE},
    http,
    store::OpenError,
    verify,
};
use serde_json::Value;

use crate::{ConfigArguments, Failure};
use call::Call;
use show::Shown;
use table::{Column, Table};
use transport::Transport;

mod agreeing;
mod arguments;
mod call;
pub(crate) mod commands;
mod format;
mod list;
mod policies;
mod show;
mod table;
mod transport;
mod waiting;

/// The server that is asked when nothing else is said: where `orlop serve` listens by default.
const SERVER: &str = "http://127.0.0.1:5000";

/// Who is asked, and how the answer is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Target {
    /// Server to ask [env: ORLOP_SERVER] [default: http://127.0.0.1:5000]
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    server: Option<String>,
    /// Open the store in this directory instead; no server may have it open.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// With --data: configuration file (TOML) [env: ORLOP_CONFIG]
    #[arg(long, value_name = "FILE", requires = "data")]
    config: Option<PathBuf>,
    /// Print the exact answer as JSON; sizes in bytes.
    #[arg(long)]
    json: bool,
}

/// What a command found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done.
    Done,
    /// It is done, and there is something to look at.
    Findings,
    /// Something could not be looked at, and what could be has no findings.
    Unchecked,
}

/// What a command asks and how the answer is shown.
#[derive(Debug)]
struct Plan {
    call: Call,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// One answer.
    One(fn(&Value, Timestamp) -> Shown),
    /// One answer that takes long: what is said meanwhile, and how to ask how far it is, where that is known.
    Long { show: fn(&Value, Timestamp) -> Shown, doing: &'static str, far: Option<Call> },
    /// Pages of `field`, at most so many entries in all, and what has to be said below.
    List { field: &'static str, columns: Vec<Column>, limit: Option<u64>, note: Option<&'static str> },
}

impl Target {
    fn open(&self) -> Result<Box<dyn Transport>, Failure> {
        if let Some(data) = &self.data {
            let config = self.config.clone().or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));
            return transport::local(&ConfigArguments { config, data: Some(data.clone()) });
        }
        let server = self.server.clone().or_else(|| std::env::var(SERVER_VARIABLE).ok());
        transport::remote(server.as_deref().unwrap_or(SERVER))
    }
}

/// Does a command: `plan` may ask before it says what is to be asked.
fn run(target: &Target, plan: impl FnOnce(&dyn Transport) -> Result<Plan, Failure>) -> Result<Outcome, Failure> {
    let transport = target.open()?;
    let done = plan(&*transport).and_then(|plan| plan.run(&*transport, target.json));
    // What was asked is done; a store that did not close well says so all the same.
    let closed = transport.close();
    done.and_then(|outcome| closed.map(|()| outcome))
}

/// A store that is too damaged to be opened has been looked at: that is a finding.
fn refused(target: &Target, error: Failure) -> Result<Outcome, Failure> {
    let now = Timestamp::now();
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let report = error.downcast_ref::<OpenError>().and_then(|error| verify::refused(error, now_ms));
    let Some(report) = report else { return Err(error) };
    let answer = http::verify_answer(&report);
    let mut out = BufWriter::new(io::stdout().lock());
    let Shown { text, outcome } = show::verify::show(&answer, now);
    let printed = if target.json { print_json(&mut out, &answer) } else { out.write_all(text.as_bytes()) };
    finish(printed.map_err(Failure::from), out).map(|()| outcome)
}

impl Plan {
    fn run(self, transport: &dyn Transport, json: bool) -> Result<Outcome, Failure> {
        let now = Timestamp::now();
        let mut out = BufWriter::new(io::stdout().lock());
        let (answer, show) = match self.shape {
            Shape::One(show) => (transport.ask(&self.call)?, show),
            Shape::Long { show, doing, far } => (waiting::ask(transport, &self.call, doing, far.as_ref())?, show),
            Shape::List { field, columns, limit, note } => {
                let pages = list::Pages::new(transport, self.call, field, limit);
                let printed =
                    if json { pages.print_json(&mut out) } else { pages.print(&mut out, Table::new(columns), note) };
                return finish(printed, out).map(|()| Outcome::Done);
            }
        };
        let Shown { text, outcome } = show(&answer, now);
        let printed = if json { print_json(&mut out, &answer) } else { out.write_all(text.as_bytes()) };
        finish(printed.map_err(Failure::from), out)?;
        Ok(outcome)
    }
}

fn print_json(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, answer)?;
    out.write_all(b"\n")
}

/// Ends the output. Who reads no more (`orlop ls | head`) has what they wanted.
fn finish(printed: Result<(), Failure>, mut out: impl Write) -> Result<(), Failure> {
    let printed = printed.and_then(|()| Ok(out.flush()?));
    let is_closed = |error: &Failure| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match printed {
        Err(error) if is_closed(&error) => Ok(()),
        printed => printed,
    }
}
