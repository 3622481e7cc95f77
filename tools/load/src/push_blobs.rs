//! Workload: blobs of one size from many clients, small ones in one PUT, large ones as a stream or in chunks.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Server,
    acks::{AckLog, Fact},
    clients::{self, Bounds, Figures},
    content::{Content, Payload},
    error::LoadError,
    registry::Client,
};

/// How many blobs, how large, by whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PushBlobs {
    #[command(flatten)]
    server: Server,
    /// The repository to push to
    #[arg(long, default_value = "load/blobs")]
    repository: String,
    /// How many blobs
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// No blob is begun after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Rest of each client after a blob, in milliseconds
    #[arg(long, default_value_t = 0)]
    rest_ms: u64,
    /// Bytes of each blob
    #[arg(long, default_value_t = 4096)]
    size: u64,
    /// How many clients push at once
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Names the content: other seeds, other blobs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of each PATCH before the closing PUT; without it all goes into the PUT
    #[arg(long)]
    chunk: Option<u64>,
}

impl PushBlobs {
    /// Pushes all.
    ///
    /// # Errors
    /// The first call that was not done.
    pub(crate) fn run(&self) -> Result<Figures, LoadError> {
        let log = self.server.open_log()?;
        let bounds = Bounds { time: self.seconds.map(Duration::from_secs), ..Bounds::all(self.clients, self.count) };
        let figures = clients::run(
            &bounds,
            |_| Client::new(&self.server.address),
            |client, index| {
                let began = Instant::now();
                self.push(client, &log, Content::new(self.seed, index, self.size))?;
                let took = began.elapsed();
                thread::sleep(Duration::from_millis(self.rest_ms));
                Ok(took)
            },
        )?;
        let Figures { elapsed, pieces, errors, first_error } = figures;
        Ok(Figures { elapsed, pieces: pieces.into_iter().map(|(_, took)| (took, ())).collect(), errors, first_error })
    }

    fn push(&self, client: &mut Client, log: &AckLog, content: Content) -> Result<(), LoadError> {
        let digest = content.digest();
        let mut location = client.start_upload(&self.repository)?;
        let mut rest = content;
        if let Some(chunk) = self.chunk.filter(|chunk| *chunk > 0) {
            while rest.remaining() > 0 {
                let begin = rest.len() - rest.remaining();
                let end = begin.saturating_add(chunk).min(rest.len());
                location = client.patch(&location, rest.until(end), None)?;
                rest = rest.from(end);
            }
        }
        client.finish_upload(&location, rest, &digest)?;
        self.server.log(log, &Fact::Blob { repository: self.repository.clone(), digest })
    }
}
