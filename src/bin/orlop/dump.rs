//! `orlop dump`: the state as text, for tests and for people.

use std::io::{self, BufWriter, Write};

use clap::Args;

use crate::{ConfigArguments, Failure, engine, logging};

/// Arguments of `orlop dump`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// Prints the store, which must exist.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = arguments.config.load(Vec::new())?;
    engine::must_exist(&loaded.config.data)?;
    // Opening can find that something is lost; that must not go unsaid.
    logging::start(&loaded.config);
    let store = engine::open_store(&loaded.config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    store.dump(&mut |line| {
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    })?;
    match written.and_then(|()| out.flush()) {
        // `orlop dump | head` has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
    .map_err(|error| format!("the dump could not be written: {error}"))?;
    engine::close_store(store)
}
