//! The command line. One file per subcommand; each returns what it found, and only here is it made an exit code:
//! 0 done, 1 done with findings, 2 not done.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use orlop::config::{FILE_VARIABLE, Layers, Loaded, memory};

mod admin;
mod dump;
mod engine;
mod logging;
mod rebuild;
mod serve;

/// Why a subcommand was not done, for the operator.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A registry of OCI images and artifacts on the local disk.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the registry until SIGTERM or SIGINT.
    Serve(serve::Arguments),
    /// Prints the state of a store that is not being served: every row of its index, one line each.
    Dump(dump::Arguments),
    /// Destroys the index of a store that is not being served, and builds it from the snapshots and the journal.
    #[command(
        after_help = "Ends with 1 when something acknowledged is lost.\n\nExample:\n  orlop rebuild-index --data /srv/orlop"
    )]
    RebuildIndex(rebuild::Rebuild),
    /// Replaces damaged files of the journal by a snapshot of the state that a sound index holds; nobody may serve the store.
    #[command(after_help = "Example:\n  orlop repair --data /srv/orlop")]
    Repair(rebuild::Repair),
    #[command(flatten)]
    Admin(admin::commands::Admin),
}

/// What every subcommand on a data directory takes. Flags win over the environment, which wins over the file.
#[derive(Debug, Args)]
struct ConfigArguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    /// Directory of everything that is stored.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl ConfigArguments {
    /// Reads the configuration; `flags` are settings from the subcommand's own arguments.
    fn load(&self, mut flags: Vec<(&'static str, String)>) -> Result<Loaded, Failure> {
        if let Some(data) = &self.data {
            let data = data.to_str().ok_or_else(|| format!("--data {}: the path is not UTF-8", data.display()))?;
            flags.push(("data", data.to_owned()));
        }
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let memory_bytes = memory::available();
        Ok(Loaded::read(&Layers { file: self.config.as_deref(), environment, flags, memory_bytes })?)
    }
}

/// Also RocksDB's. glibc's arenas are as many as cores, or else full of holes, and their locks took a quarter of the time of
/// small requests.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments).map(|()| admin::Outcome::Done),
        Command::Dump(arguments) => dump::run(&arguments).map(|()| admin::Outcome::Done),
        Command::RebuildIndex(arguments) => rebuild::rebuild(&arguments),
        Command::Repair(arguments) => rebuild::repair(&arguments),
        Command::Admin(command) => command.run(),
    };
    match done {
        Ok(admin::Outcome::Done) => ExitCode::SUCCESS,
        Ok(admin::Outcome::Findings) => ExitCode::from(1),
        Ok(admin::Outcome::Unchecked) => ExitCode::from(2),
        Err(error) => {
            // Standard error may be closed, and there is nowhere else to say it.
            let _ = writeln!(io::stderr(), "orlop: {error}");
            ExitCode::from(2)
        }
    }
}
