//! Sockets of other programs: read on Windows; elsewhere not read, and not guessed.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::{Inventory, ListeningSocket, Owners, Protocol};
use crate::sys::InventoryOptions;

#[cfg(not(windows))]
const BECAUSE: &str = "the sockets of other programs cannot be read on this system yet";
#[cfg(windows)]
const BECAUSE: &str = "the owners of some sockets cannot be read by this user";

/// The sockets of this host. Their options are not known.
#[cfg(windows)]
#[must_use]
pub fn inventory(options: &InventoryOptions) -> Inventory {
    match super::windows::sockets() {
        Ok(mut sockets) => {
            sockets.sort_by_key(ListeningSocket::order);
            let unknown = options.owners && sockets.iter().any(|socket| socket.owners.is_none());
            Inventory {
                sockets,
                all_sockets: true,
                complete: !unknown,
                incomplete_because: unknown.then(|| BECAUSE.to_owned()).into_iter().collect(),
                ..Inventory::default()
            }
        }
        Err(error) => Inventory { incomplete_because: vec![error.to_string()], ..Inventory::default() },
    }
}

/// An empty, incomplete list.
#[cfg(not(windows))]
#[must_use]
pub fn inventory(_options: &InventoryOptions) -> Inventory {
    Inventory { incomplete_because: vec![BECAUSE.to_owned()], ..Inventory::default() }
}

/// Leaves the owners as they are: on Windows they come with the sockets, elsewhere they are unknown.
#[must_use]
pub fn attach_owners<'a>(
    sockets: impl IntoIterator<Item = &'a mut ListeningSocket>,
    _socket_options: bool,
) -> Vec<String> {
    sockets
        .into_iter()
        .find(|socket| socket.owners.is_none())
        .map(|_| BECAUSE.to_owned())
        .into_iter()
        .collect()
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
