//! orlop-cut: cuts the power below a real server under load, and looks from outside whether anything is lost.
//!
//! It needs root, /dev/fuse, and loop devices for all but `files`; `calls` kills without a cut, and needs none of these. Exit codes: 0 done, 1 something is wrong, 2 not done.
//! The last line of output is one JSON object with the figures.

mod breaking;
mod calls;
mod command;
mod content;
mod device;
mod directory;
mod error;
mod figures;
mod mount;
mod rounds;
mod server;
mod tally;
mod tracer;
mod tree;
mod unlisted;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use serde_json::Value;

use crate::{
    calls::Calls,
    device::{Device, Kind},
    directory::Directory,
    error::{CutError, file_error},
    rounds::Rounds,
    server::Programs,
    tracer::Trace,
};

/// Cuts the power below a server, again and again.
#[derive(Debug, Parser)]
struct Arguments {
    /// An empty directory on another disk than what is cut, for logs and places to mount at
    #[arg(long, global = true, default_value = "/tmp/orlop-cut")]
    work: PathBuf,
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Debug, clap::Subcommand)]
enum Experiment {
    /// Cut below a file system: a block device loses sectors that were not flushed
    Blocks {
        /// The file system
        #[arg(long, value_enum, default_value = "ext4")]
        fs: Kind,
        #[command(flatten)]
        rounds: Rounds,
    },
    /// Cut a file system itself: it loses data and names that were not synced
    Files {
        #[command(flatten)]
        rounds: Rounds,
    },
    /// Kill the server before each of its calls of a kind, on the disk as it is
    Calls(Calls),
    /// Collect in a server that nobody uses, and look into its files for what nothing names: part of `tools/kill-loop`
    #[command(hide = true)]
    Unlisted(Unlisted),
    /// Watch a process, and kill it before its Nth call of a kind: part of `calls`
    #[command(hide = true)]
    Trace(Trace),
}

/// Where to look.
#[derive(Debug, clap::Args)]
struct Unlisted {
    /// The server, as host:port
    #[arg(long)]
    address: String,
    /// Its data directory
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    programs: Programs,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok((figures, wrong)) => {
            for finding in &wrong {
                eprintln!("wrong: {finding}");
            }
            println!("{figures}");
            ExitCode::from(u8::from(!wrong.is_empty()))
        }
        Err(error) => {
            eprintln!("orlop-cut: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(Value, Vec<String>), CutError> {
    let work = &arguments.work;
    std::fs::create_dir_all(work).map_err(file_error(work))?;
    match &arguments.experiment {
        Experiment::Blocks { fs, rounds } => rounds.run(work, &mut Device::new(work, *fs, rounds.seed)?),
        Experiment::Unlisted(Unlisted { address, data, programs }) => {
            let wrong = server::find_unlisted(address, programs, data)?;
            Ok((serde_json::json!({ "unlisted": wrong.is_some() }), wrong.into_iter().collect()))
        }
        Experiment::Trace(trace) => Ok((trace.run()?, Vec::new())),
        Experiment::Calls(calls) => calls.run(work),
        Experiment::Files { rounds } => rounds.run(work, &mut Directory::new(work, rounds.seed)?),
    }
}
