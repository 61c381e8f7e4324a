//! Connections of other programs: not read on this system.

use crate::sys::ServerConnection;

/// Nothing, and that it is not all.
#[must_use]
pub fn connections(_serves: &dyn Fn(u16) -> bool) -> (Vec<ServerConnection>, Vec<String>) {
    (Vec::new(), vec!["the connections of other programs cannot be read on this system yet".to_owned()])
}
