//! Which sockets are there: not read on this system, and not guessed.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::{Inventory, ListeningSocket, Owner, Protocol};
use crate::sys::InventoryOptions;

const BECAUSE: &str = "the sockets of other programs cannot be read on this system yet";

/// Nothing, and that it is not all.
#[must_use]
pub fn inventory(_options: &InventoryOptions) -> Inventory {
    Inventory { incomplete_because: vec![BECAUSE.to_owned()], ..Inventory::default() }
}

/// Leaves every owner unknown.
#[must_use]
pub fn attach_owners(sockets: &mut [ListeningSocket], _socket_options: bool) -> Vec<String> {
    if sockets.is_empty() { Vec::new() } else { vec![BECAUSE.to_owned()] }
}

/// No owner is known.
#[must_use]
pub fn owners(_inodes: &[u64]) -> (HashMap<u64, Vec<Owner>>, Option<String>) {
    (HashMap::new(), Some(BECAUSE.to_owned()))
}

/// Who has a port is not known.
#[must_use]
pub fn port_holder(_protocol: Protocol, _address: IpAddr, _port: u16) -> Vec<ListeningSocket> {
    Vec::new()
}
