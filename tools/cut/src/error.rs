//! What ends an experiment without a verdict.

use std::{io, path::Path};

/// Why an experiment could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    /// A command of the system.
    #[error("{command}: {problem}")]
    Command {
        /// As it was called.
        command: String,
        /// What it says, or why it was not run.
        problem: String,
    },
    /// A file of this tool, or a place to mount at.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// An error of the file at `path`.
pub(crate) fn file_error(path: &Path) -> impl Fn(io::Error) -> CutError + '_ {
    move |source| CutError::File { path: path.display().to_string(), source }
}
