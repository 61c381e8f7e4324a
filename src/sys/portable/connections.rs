//! Connections of other programs: not read on this system.

use crate::sys::ServerConnections;

/// An empty, incomplete list.
#[must_use]
pub fn connections(_serves: &dyn Fn(u16) -> bool, _may_set: bool) -> ServerConnections {
    let because = "the connections of other programs cannot be read on this system yet";
    ServerConnections { incomplete_because: vec![because.to_owned()], ..ServerConnections::default() }
}

/// Not known on this system.
#[must_use]
pub fn handshakes(_serves: &dyn Fn(u16) -> bool) -> Option<usize> {
    None
}
