//! orlop-load: clients that load a registry over plain HTTP, write down what it acknowledged, and check it later; or measure
//! what it can do.
//!
//! Exit codes: 0 done, 1 done with findings, 2 not done. The last line of output is one JSON object with the figures, except
//! for `measure`, which prints a table unless it is asked for JSON.

mod acks;
mod admin;
mod cache;
mod check;
mod clients;
mod collecting;
mod content;
mod error;
mod http;
mod limits;
mod many_tags;
mod measure;
mod push_blobs;
mod push_images;
mod push_manifests;
mod registry;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{
    acks::{AckLog, Fact},
    error::{LoadError, file_error},
};

/// Loads a registry and checks what it acknowledged.
#[derive(Debug, Parser)]
enum Command {
    /// Push blobs of one size
    PushBlobs(push_blobs::PushBlobs),
    /// Push images until the time is over or the server is gone
    PushImages(push_images::PushImages),
    /// Push manifests as large as may be, and indexes of very many manifests; delete them again
    PushManifests(push_manifests::PushManifests),
    /// Set very many tags, page through them, delete what they point to
    ManyTags(many_tags::ManyTags),
    /// Collect deleted images, and take the tag of a large index, under a load of pulls and pushes
    Collecting(collecting::Collecting),
    /// Play traces of a build cache against a capped repository, and compare with simulated caches
    Cache(cache::Cache),
    /// Measure one kind of work: how many a second, how long each, at what cost of CPU
    Measure(measure::Measure),
    /// Measure what the machine can do of each part of a push
    Limits(limits::Limits),
    /// Check the registry against a log of acknowledgements, and resume what was cut off
    Check(check::Check),
}

/// What every workload needs to know.
#[derive(Debug, Clone, clap::Args)]
struct Server {
    /// The registry, as host:port
    #[arg(long, default_value = "127.0.0.1:5000")]
    address: String,
    /// Log of acknowledgements, appended to
    #[arg(long)]
    acks: Option<PathBuf>,
}

impl Server {
    fn open_log(&self) -> Result<AckLog, LoadError> {
        let path = self.acks.as_deref();
        AckLog::open(path).map_err(|error| self.log_error(error))
    }

    fn log(&self, log: &AckLog, fact: &Fact) -> Result<(), LoadError> {
        log.write(fact).map_err(|error| self.log_error(error))
    }

    fn log_error(&self, error: std::io::Error) -> LoadError {
        file_error(&self.acks.clone().unwrap_or_default())(error)
    }
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok((figures, wrong)) => {
            for finding in &wrong {
                eprintln!("wrong: {finding}");
            }
            println!("{figures}");
            ExitCode::from(u8::from(!wrong.is_empty()))
        }
        Err(error) => {
            eprintln!("orlop-load: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command) -> Result<(String, Vec<String>), LoadError> {
    match command {
        Command::PushBlobs(workload) => Ok((workload.run()?.to_json().to_string(), Vec::new())),
        Command::PushImages(workload) => Ok((workload.run()?.to_string(), Vec::new())),
        Command::PushManifests(workload) => Ok((workload.run()?.to_string(), Vec::new())),
        Command::ManyTags(workload) => {
            let (figures, wrong) = workload.run()?;
            Ok((figures.to_string(), wrong))
        }
        Command::Collecting(workload) => {
            let (figures, wrong) = workload.run()?;
            Ok((figures.to_string(), wrong))
        }
        Command::Cache(workload) => {
            let (figures, wrong) = workload.run()?;
            Ok((figures.to_string(), wrong))
        }
        Command::Measure(measure) => measure.run(),
        Command::Limits(limits) => Ok((limits.run()?.to_string(), Vec::new())),
        Command::Check(check) => {
            let findings = check.run()?;
            Ok((findings.to_json().to_string(), findings.wrong))
        }
    }
}
