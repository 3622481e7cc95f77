//! Ways to the admin API: over HTTP to a running server, or in this process over a store that nobody serves.

use serde_json::Value;

use super::call::{Answer, Call};
use crate::{ConfigArguments, Failure};

mod local;
mod remote;

/// Most bytes of an answer: a page of a thousand entries with all that they may name is far below.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Who answers.
pub(super) trait Transport: Sync {
    /// Sends a request and waits for its answer, however long that takes.
    fn send(&self, call: &Call) -> Result<Answer, Failure>;

    /// Ends what was begun for it.
    fn close(self: Box<Self>) -> Result<(), Failure>;
}

impl dyn Transport + '_ {
    /// The answer to a request that is done; a refusal is an error.
    pub(super) fn ask(&self, call: &Call) -> Result<Value, Failure> {
        self.send(call)?.into_json()
    }
}

/// A running server.
pub(super) fn remote(url: &str) -> Result<Box<dyn Transport>, Failure> {
    Ok(Box::new(remote::Remote::new(url)?))
}

/// A store that is opened here.
pub(super) fn local(config: &ConfigArguments) -> Result<Box<dyn Transport>, Failure> {
    Ok(Box::new(local::Local::open(config)?))
}
