//! What ends a workload, and the exit code that tells it.

use std::io;

use crate::registry::CallError;

/// Why a workload was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A call of the registry.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A file of this tool.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// What the user asked for does not make sense.
    #[error("{0}")]
    Usage(String),
}

/// An error of the file at `path`.
pub(crate) fn file_error(path: &std::path::Path) -> impl Fn(io::Error) -> LoadError + '_ {
    move |source| LoadError::File { path: path.display().to_string(), source }
}
