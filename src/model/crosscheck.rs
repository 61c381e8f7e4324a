//! Two sources about addresses held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::addr;
use super::host::Snapshot;
use super::ifname::IfName;

/// An address as the C library's list (getifaddrs(3)) has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedAddress {
    /// The name it gives the interface. In IPv4 that is the address's label, which need not name the interface, nor any.
    pub name: IfName,
    /// The index of the interface of that name; null when there is none.
    pub index: Option<u32>,
    /// The address.
    pub address: IpAddr,
}

/// Where the two differ, one sentence each, sorted. The kernel's interface is that of the snapshot.
#[must_use]
pub fn disagreements(snapshot: &Snapshot, listed: &[ListedAddress]) -> Vec<String> {
    let mut kernel: BTreeMap<IpAddr, Vec<(u32, &IfName)>> = BTreeMap::new();
    for (interface, address) in snapshot.addresses() {
        kernel.entry(address.address).or_default().push((interface.index, &interface.name));
    }
    let mut library: BTreeMap<IpAddr, Vec<&ListedAddress>> = BTreeMap::new();
    for entry in listed {
        library.entry(entry.address).or_default().push(entry);
    }
    let mut sentences = BTreeSet::new();
    for (address, owners) in &kernel {
        let Some(entries) = library.get(address) else {
            for (_, name) in owners {
                sentences.insert(format!(
                    "the kernel has {} on {name}, but the C library does not list it",
                    addr::text(*address, Some(name))
                ));
            }
            continue;
        };
        // One address may be on several interfaces (fe80::1): only names that fit none of the owners count.
        for entry in entries.iter().filter(|entry| !owners.iter().any(|(_, name)| **name == entry.name)) {
            let real: Vec<String> = owners.iter().map(|(_, name)| name.to_string()).collect();
            let real = real.join(", ");
            let text = addr::text(*address, None);
            sentences.insert(match snapshot.interface_named(&entry.name) {
                Some(other) => format!(
                    "{text} is on {real}, but its label is {}, the name of another interface (index {}): programs that trust labels credit it to that one",
                    entry.name, other.index
                ),
                None => format!(
                    "{text} is on {real}, but its label is {}, which is no interface: programs that trust labels name one that does not exist",
                    entry.name
                ),
            });
        }
    }
    for (address, entries) in &library {
        if !kernel.contains_key(address) {
            for entry in entries {
                sentences.insert(format!(
                    "the C library lists {} on {}, but the kernel does not have it",
                    addr::text(*address, None),
                    entry.name
                ));
            }
        }
    }
    sentences.into_iter().collect()
}
