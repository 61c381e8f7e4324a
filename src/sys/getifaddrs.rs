//! Interfaces from getifaddrs(3) and its equivalents, with the crate `if-addrs`: the source on systems without
//! rtnetlink, and a cross-check on Linux.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use crate::model::crosscheck::ListedAddress;
use crate::model::{IfName, Interface, InterfaceAddress, addr, number_interfaces};
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
    Ok(grouped(&if_addrs::get_if_addrs()?))
}

/// One interface for each index. A list can have the index at some entries of a name only (Windows, for addresses of a family
/// that the interface does not have), and IPv4 labels as names of the same index; entries without any index are told apart by
/// name.
fn grouped(listed: &[if_addrs::Interface]) -> Vec<Interface> {
    let mut indexes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut names: BTreeMap<u32, &str> = BTreeMap::new();
    for entry in listed {
        let name = entry.name.as_str();
        if let Some(index) = entry.index.filter(|index| *index != 0) {
            indexes.entry(name).or_insert(index);
            // A label begins with the name of its interface.
            names.entry(index).and_modify(|known| *known = (*known).min(name)).or_insert(name);
        }
    }
    let mut interfaces: BTreeMap<(u32, &str), Interface> = BTreeMap::new();
    for entry in listed {
        let index = indexes.get(entry.name.as_str()).copied().unwrap_or(0);
        let name = names.get(&index).copied().unwrap_or(&entry.name);
        let interface = interfaces.entry((index, name)).or_insert_with(|| Interface {
            up: true,
            running: entry.is_oper_up(),
            point_to_point: entry.is_p2p,
            ..Interface::new(index, IfName::from(name))
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
    let mut interfaces: Vec<Interface> = interfaces.into_values().collect();
    for interface in &mut interfaces {
        interface.addresses.sort_by_key(|address| (address.family, address.address, address.prefix));
        interface.addresses.dedup();
    }
    number_interfaces(&mut interfaces);
    interfaces.sort_by(|a, b| (a.index, &a.name).cmp(&(b.index, &b.name)));
    interfaces
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::known_index;

    fn entry(name: &str, index: Option<u32>, address: &str) -> if_addrs::Interface {
        let addr = match address.parse().unwrap() {
            IpAddr::V4(ip) => if_addrs::IfAddr::V4(if_addrs::Ifv4Addr {
                ip,
                netmask: [255, 255, 255, 0].into(),
                prefixlen: 24,
                broadcast: None,
            }),
            IpAddr::V6(ip) => if_addrs::IfAddr::V6(if_addrs::Ifv6Addr {
                ip,
                netmask: "ffff:ffff:ffff:ffff::".parse().unwrap(),
                prefixlen: 64,
                broadcast: None,
            }),
        };
        if_addrs::Interface {
            name: name.to_owned(),
            addr,
            index,
            oper_status: if_addrs::IfOperStatus::Up,
            is_p2p: false,
            #[cfg(windows)]
            adapter_name: name.to_owned(),
        }
    }

    #[test]
    fn interfaces_are_told_apart_by_index_and_else_by_name() {
        let listed = [
            entry("Ethernet", None, "fe80::1"),
            entry("Ethernet", Some(4), "192.0.2.1"),
            entry("tunnel", Some(0), "10.1.0.1"),
            entry("tunnel", None, "fe80::2"),
            entry("other", None, "10.2.0.1"),
            entry("Ethernet:1", Some(4), "192.0.2.2"),
        ];
        let found = grouped(&listed);
        let shown: Vec<String> =
            found.iter().map(|one| format!("{} {}", one.name, one.addresses.len())).collect();
        assert_eq!(shown, ["Ethernet 3", "other 1", "tunnel 2"]);
        let known: Vec<Option<u32>> = found.iter().map(|one| known_index(one.index)).collect();
        assert_eq!(known, [Some(4), None, None]);
        assert_ne!(found[1].index, found[2].index);
        let scopes: Vec<Option<u32>> = found
            .iter()
            .flat_map(|one| &one.addresses)
            .filter_map(|address| address.scope_id)
            .map(Some)
            .collect();
        assert_eq!(scopes, [Some(4)]);
    }
}
