//! `orlop rebuild-index` and `orlop repair`: what is derived is built anew, on a store that nobody serves.

use std::ops::ControlFlow;

use clap::Args;
use orlop::{
    config::Config,
    store::{Opening, Recovery, Store},
    verify::{self, VerifyOptions},
};

use crate::{ConfigArguments, Failure, admin::Outcome, engine, logging};

/// Arguments of `orlop rebuild-index`.
#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    #[command(flatten)]
    config: ConfigArguments,
    /// Give up all that came after this LSN, where the journal is damaged; a refused start names it. What is given up goes
    /// to lost/.
    #[arg(long, value_name = "LSN")]
    lose_after: Option<u64>,
}

/// Arguments of `orlop repair`.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    config: ConfigArguments,
}

/// Destroys the index and builds it from snapshot and journal.
pub(crate) fn rebuild(arguments: &Rebuild) -> Result<Outcome, Failure> {
    let config = config(&arguments.config)?;
    let opening = arguments.lose_after.map_or(Opening::RebuildIndex, Opening::LoseAfter);
    let store = engine::open_store_as(&config, opening)?;
    let recovery = store.recovery().clone();
    engine::close_store(store)?;
    println!("{}", engine::rebuilt(&recovery));
    Ok(told(&recovery))
}

/// Says what is lost, and whether anything is.
fn told(recovery: &Recovery) -> Outcome {
    if let Some(given_up) = &recovery.given_up {
        println!("given up: all behind {}, because {}", given_up.after, given_up.damage);
        match given_up.went_on_to {
            Some(to) => println!("the history had gone on to {to} at least; its files are in lost/"),
            None => println!("what was damaged is in lost/"),
        }
    } else if recovery.lost_records > 0 {
        println!("lost: {} records that were acknowledged; what knew of them is in lost/", recovery.lost_records);
    }
    if let Some(reason) = &recovery.read_only {
        println!("{reason}");
    }
    if recovery.lost_records > 0 || recovery.read_only.is_some() { Outcome::Findings } else { Outcome::Done }
}

/// Makes damaged files of the journal superfluous, by a snapshot of the state that the index holds.
pub(crate) fn repair(arguments: &Repair) -> Result<Outcome, Failure> {
    let config = config(&arguments.config)?;
    let store = engine::open_store(&config)?;
    let done = repair_store(&store);
    engine::close_store(store)?;
    done
}

fn repair_store(store: &Store) -> Result<Outcome, Failure> {
    let wrong = store.check_history(&mut |_| Ok(()))?;
    if wrong.is_empty() && store.read_only().is_none() {
        println!("journal and snapshots are sound; there is nothing to repair");
        return Ok(Outcome::Done);
    }
    for error in &wrong {
        println!("damaged: {error}");
    }
    // From here on the index is the only witness, so it is heard first.
    store.check_index(&mut |_| true)?;
    let options =
        VerifyOptions { content: false, content_bytes_per_second: None, memory_bytes_max: None, opening: false };
    let report = verify::verify_rows(store, &options, &mut |_| ControlFlow::Continue(()))?;
    if let Some(finding) = report.findings.first() {
        return Err(format!(
            "the index does not add up, so no snapshot is made of it: {} (and {} more findings of `orlop verify`); put a \
             sound copy of the journal's files back",
            finding.what,
            report.findings.len() - 1
        )
        .into());
    }
    match store.repair(&mut || ())? {
        Some(report) => println!(
            "repaired: {} holds the state ({} facts, {} bytes); {} files that it makes superfluous were removed",
            report.path, report.facts, report.bytes, report.removed.files
        ),
        None => println!("repaired: nothing was ever stored"),
    }
    Ok(Outcome::Done)
}

fn config(arguments: &ConfigArguments) -> Result<Config, Failure> {
    let loaded = arguments.load(Vec::new())?;
    engine::must_exist(&loaded.config.data)?;
    logging::start(&loaded.config);
    Ok(loaded.config)
}
