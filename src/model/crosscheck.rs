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
        for entry in entries.iter().filter(|entry| !owners.iter().any(|(_, name)| is_called(entry, name))) {
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

/// Whether the library means this name. It hands out text, so that a name which is not UTF-8 comes with replacement characters.
fn is_called(entry: &ListedAddress, name: &IfName) -> bool {
    entry.name == *name || entry.name.as_bytes() == String::from_utf8_lossy(name.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{AddrClass, Family, Interface, InterfaceAddress};

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let address = |text: &&str| {
            let address: IpAddr = text.parse().unwrap();
            InterfaceAddress {
                address,
                prefix: 24,
                family: Family::of(address),
                class: AddrClass::of(address),
                scope_id: None,
                label: None,
                peer: None,
                broadcast: None,
                state: Vec::new(),
            }
        };
        Interface {
            index,
            name: IfName::from(name),
            up: true,
            running: true,
            loopback: false,
            point_to_point: false,
            multicast: false,
            kind: None,
            mtu: None,
            mac: None,
            master: None,
            link: None,
            addresses: addresses.iter().map(address).collect(),
            settings: BTreeMap::new(),
        }
    }

    fn listed(name: &str, address: &str) -> ListedAddress {
        ListedAddress { name: IfName::from(name), index: None, address: address.parse().unwrap() }
    }

    #[test]
    fn each_kind_of_difference_has_its_sentence() {
        let snapshot = Snapshot {
            interfaces: vec![
                interface(2, "a", &["192.0.2.1", "192.0.2.2", "fe80::1"]),
                interface(3, "b", &["fe80::1"]),
            ],
            ..Snapshot::default()
        };
        let same = [
            listed("a", "192.0.2.1"),
            listed("a", "192.0.2.2"),
            listed("a", "fe80::1"),
            listed("b", "fe80::1"),
        ];
        assert_eq!(disagreements(&snapshot, &same), [""; 0]);
        let mut odd = interface(2, "", &["192.0.2.1"]);
        odd.name = IfName::from_bytes(b"a\xff");
        let odd = Snapshot { interfaces: vec![odd], ..Snapshot::default() };
        assert_eq!(disagreements(&odd, &[listed("a\u{fffd}", "192.0.2.1")]), [""; 0], "not UTF-8");
        let other = [listed("b", "192.0.2.1"), listed("a:0", "fe80::1"), listed("a", "198.51.100.1")];
        let sentences = disagreements(&snapshot, &other);
        for expected in [
            "192.0.2.1 is on a, but its label is b, the name of another interface (index 3)",
            "fe80::1 is on a, b, but its label is a:0, which is no interface",
            "the kernel has 192.0.2.2 on a, but the C library does not list it",
            "the C library lists 198.51.100.1 on a, but the kernel does not have it",
        ] {
            assert!(
                sentences.iter().any(|sentence| sentence.starts_with(expected)),
                "{expected}: {sentences:?}"
            );
        }
        assert_eq!(sentences.len(), 4, "{sentences:?}");
    }
}
