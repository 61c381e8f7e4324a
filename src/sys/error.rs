//! What went wrong with the system, always with the operation and its object.

use std::io;

/// A failure of the operating system, or a thing it cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error("cannot {operation} {object}: {source}")]
    Call {
        /// What was tried, as a verb phrase: `read`, `dump the addresses of`.
        operation: &'static str,
        /// What it was tried on.
        object: String,
        /// The system's answer.
        source: io::Error,
    },
    /// This system, or this kernel, does not offer it.
    #[error("{what} is not available on this system")]
    Unsupported {
        /// The thing that is missing.
        what: &'static str,
    },
}

impl Error {
    /// A failed call.
    pub fn call(operation: &'static str, object: impl Into<String>, source: io::Error) -> Error {
        Error::Call { operation, object: object.into(), source }
    }
}
