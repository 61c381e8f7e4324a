//! Interfaces from getifaddrs(3) and its equivalents, with the crate `if-addrs`: the source on systems without
//! rtnetlink, and a cross-check on Linux.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use crate::model::crosscheck::ListedAddress;
use crate::model::{IfName, Interface, InterfaceAddress, addr};
use crate::sys::Error;

/// Every address in the list of `if-addrs`. The list has IPv4 labels as interface names, and looks up indexes by these
/// names.
///
/// # Errors
/// If the system's list cannot be read.
pub fn listed_addresses() -> Result<Vec<ListedAddress>, Error> {
    let listed =
        if_addrs::get_if_addrs().map_err(|error| Error::call("list", "the interface addresses", error))?;
    Ok(listed
        .into_iter()
        .map(|entry| ListedAddress {
            name: IfName::from(entry.name.as_str()),
            index: entry.index,
            address: entry.addr.ip(),
        })
        .collect())
}

/// The interfaces with addresses, as far as `if-addrs` reports them.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut by_name: BTreeMap<IfName, Interface> = BTreeMap::new();
    for entry in if_addrs::get_if_addrs()? {
        let name = IfName::from(entry.name.as_str());
        let index = entry.index.unwrap_or(0);
        let interface = by_name.entry(name.clone()).or_insert_with(|| Interface {
            up: true,
            running: entry.is_oper_up(),
            point_to_point: entry.is_p2p,
            ..Interface::new(index, name)
        });
        let (address, prefix, broadcast) = match &entry.addr {
            if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen, v4.broadcast.map(IpAddr::V4)),
            if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen, None),
        };
        // An interface with a loopback address is the loopback interface; there is no other indication.
        interface.loopback |= address.is_loopback();
        interface.addresses.push(InterfaceAddress {
            scope_id: (addr::needs_zone(address) && index != 0).then_some(index),
            broadcast,
            ..InterfaceAddress::new(address, prefix)
        });
    }
    let mut interfaces: Vec<Interface> = by_name.into_values().collect();
    for interface in &mut interfaces {
        interface.addresses.sort_by_key(|address| (address.family, address.address, address.prefix));
        interface.addresses.dedup();
    }
    interfaces.sort_by(|a, b| (a.index, &a.name).cmp(&(b.index, &b.name)));
    Ok(interfaces)
}

/// The host's name.
#[cfg(unix)]
pub(super) fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
}

/// The host's name.
#[cfg(not(unix))]
pub(super) fn host_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
