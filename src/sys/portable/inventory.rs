//! Sockets of other programs: not read on this system, and not guessed.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::{Inventory, ListeningSocket, Owners, Protocol};
use crate::sys::InventoryOptions;

const BECAUSE: &str = "the sockets of other programs cannot be read on this system yet";

/// An empty, incomplete list.
#[must_use]
pub fn inventory(_options: &InventoryOptions) -> Inventory {
    Inventory { incomplete_because: vec![BECAUSE.to_owned()], ..Inventory::default() }
}

/// Leaves every owner unknown.
#[must_use]
pub fn attach_owners<'a>(
    sockets: impl IntoIterator<Item = &'a mut ListeningSocket>,
    _socket_options: bool,
) -> Vec<String> {
    sockets.into_iter().next().map(|_| BECAUSE.to_owned()).into_iter().collect()
}

/// Owners are unknown.
#[must_use]
pub fn owners(_inodes: &[u64]) -> (HashMap<u64, Owners>, Option<String>) {
    (HashMap::new(), Some(BECAUSE.to_owned()))
}

/// Sockets that hold ports: not known on this system.
#[must_use]
pub fn port_holders(_ports: &std::collections::BTreeSet<(Protocol, u16)>) -> Vec<crate::model::PortHolder> {
    Vec::new()
}

/// The owner of a port is unknown.
#[must_use]
pub fn port_holder(_protocol: Protocol, _address: IpAddr, _port: u16) -> Vec<ListeningSocket> {
    Vec::new()
}
