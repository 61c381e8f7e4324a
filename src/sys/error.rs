//! Errors of the operating system, always with the operation and its object.

use std::io;

/// A failed system call, or a feature that the system does not support.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error("cannot {operation} {object}: {source}")]
    Call {
        /// The operation as a verb phrase: `read`, `dump the addresses of`.
        operation: &'static str,
        /// The object of the operation.
        object: String,
        /// The error from the system.
        source: io::Error,
    },
    /// The system or kernel does not support this.
    #[error("{what} is not available on this system")]
    Unsupported {
        /// The missing feature.
        what: &'static str,
    },
}

impl Error {
    /// A failed call.
    pub fn call(operation: &'static str, object: impl Into<String>, source: io::Error) -> Error {
        Error::Call { operation, object: object.into(), source }
    }
}
