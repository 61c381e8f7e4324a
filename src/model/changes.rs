//! Differences between two snapshots of a host's network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::addr::text;
use super::host::{AddrState, Interface, InterfaceAddress, Snapshot};
use super::ifname::IfName;

/// One change. Interfaces are identified by index: a renamed interface is the same, one that was removed and created
/// again is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// An interface was added.
    InterfaceAdded {
        /// Its name.
        interface: IfName,
    },
    /// An interface was removed, or moved to another network namespace.
    InterfaceRemoved {
        /// Its name.
        interface: IfName,
    },
    /// An interface was renamed.
    InterfaceRenamed {
        /// The new name.
        interface: IfName,
        /// The old name.
        before: IfName,
    },
    /// An interface went up (IFF_UP) or its carrier came up.
    InterfaceUp {
        /// Its name.
        interface: IfName,
    },
    /// An interface went down, or lost its carrier.
    InterfaceDown {
        /// Its name.
        interface: IfName,
    },
    /// A usable address was added.
    AddressAdded {
        /// The interface that has it.
        interface: IfName,
        /// The address.
        address: IpAddr,
    },
    /// An address was removed, or can no longer be used (duplicate).
    AddressRemoved {
        /// The interface that had it.
        interface: IfName,
        /// The address.
        address: IpAddr,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::InterfaceAdded { interface } => write!(f, "interface {interface} is new"),
            Change::InterfaceRemoved { interface } => write!(f, "interface {interface} was removed"),
            Change::InterfaceRenamed { interface, before } => {
                write!(f, "interface {before} is now called {interface}")
            }
            Change::InterfaceUp { interface } => write!(f, "interface {interface} is up"),
            Change::InterfaceDown { interface } => write!(f, "interface {interface} is down"),
            Change::AddressAdded { interface, address } => {
                write!(f, "address {} is new on {interface}", text(*address, Some(interface)))
            }
            Change::AddressRemoved { interface, address } => {
                write!(f, "address {} was removed from {interface}", text(*address, Some(interface)))
            }
        }
    }
}

/// Every change from `before` to `after`, sorted; interfaces before their addresses.
#[must_use]
pub fn changes(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    changes_but(before, after, &BTreeSet::new())
}

/// As [`changes`], where the interfaces with the indexes of `deleted` were deleted in between: whatever has such an index now is
/// another interface.
#[must_use]
pub fn changes_but(before: &Snapshot, after: &Snapshot, deleted: &BTreeSet<u32>) -> Vec<Change> {
    let key = |index: u32, is_new: bool| (index, is_new && deleted.contains(&index));
    let by_index = |snapshot: &'_ Snapshot, is_new: bool| -> BTreeMap<(u32, bool), Interface> {
        let all = snapshot.interfaces.iter();
        all.map(|interface| (key(interface.index, is_new), interface.clone())).collect()
    };
    let (old, new) = (by_index(before, false), by_index(after, true));
    let mut out = Vec::new();
    for (index, was) in &old {
        let Some(is) = new.get(index) else {
            out.push(Change::InterfaceRemoved { interface: was.name.clone() });
            continue;
        };
        if is.name != was.name {
            out.push(Change::InterfaceRenamed { interface: is.name.clone(), before: was.name.clone() });
        }
        match (was.up && was.running, is.up && is.running) {
            (false, true) => out.push(Change::InterfaceUp { interface: is.name.clone() }),
            (true, false) => out.push(Change::InterfaceDown { interface: is.name.clone() }),
            _ => {}
        }
    }
    let added = new.iter().filter(|(index, _)| !old.contains_key(index));
    out.extend(added.map(|(_, interface)| Change::InterfaceAdded { interface: interface.name.clone() }));
    let (had, has) = (usable(&old), usable(&new));
    for &(index, address) in had.difference(&has) {
        // If the interface still exists, its current name is the useful one.
        if let Some(interface) = new.get(&index).or_else(|| old.get(&index)) {
            out.push(Change::AddressRemoved { interface: interface.name.clone(), address });
        }
    }
    for &(index, address) in has.difference(&had) {
        if let Some(interface) = new.get(&index) {
            out.push(Change::AddressAdded { interface: interface.name.clone(), address });
        }
    }
    out.sort();
    out
}

fn usable(interfaces: &BTreeMap<(u32, bool), Interface>) -> BTreeSet<((u32, bool), IpAddr)> {
    let can_be_used = |address: &&InterfaceAddress| {
        !address.is(AddrState::Dadfailed)
            && (!address.is(AddrState::Tentative) || address.is(AddrState::Optimistic))
    };
    interfaces
        .iter()
        .flat_map(|(&index, interface)| {
            interface.addresses.iter().filter(can_be_used).map(move |address| (index, address.address))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, state: &[AddrState]) -> InterfaceAddress {
        let address: IpAddr = text.parse().unwrap();
        InterfaceAddress { state: state.to_vec(), ..InterfaceAddress::new(address, 24) }
    }

    fn snapshot(interfaces: &[(u32, &str, bool, &[InterfaceAddress])]) -> Snapshot {
        let interfaces = interfaces.iter().map(|&(index, name, up, addresses)| Interface {
            up,
            running: up,
            addresses: addresses.to_vec(),
            ..Interface::new(index, name.into())
        });
        Snapshot { interfaces: interfaces.collect(), ..Snapshot::default() }
    }

    #[test]
    fn interfaces_are_identified_by_index_not_by_name() {
        let before = snapshot(&[(2, "eth0", true, &[address("192.0.2.1", &[])])]);
        let renamed = snapshot(&[(2, "lan", true, &[address("192.0.2.1", &[])])]);
        assert_eq!(
            changes(&before, &renamed),
            [Change::InterfaceRenamed { interface: "lan".into(), before: "eth0".into() }]
        );
        let again = snapshot(&[(3, "eth0", true, &[address("192.0.2.1", &[])])]);
        let texts: Vec<_> = changes(&before, &again).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "interface eth0 is new",
                "interface eth0 was removed",
                "address 192.0.2.1 is new on eth0",
                "address 192.0.2.1 was removed from eth0"
            ]
        );
    }

    #[test]
    fn an_index_that_is_used_again_is_no_rename() {
        let before = snapshot(&[(2, "eth0", true, &[address("192.0.2.1", &[])])]);
        let after = snapshot(&[(2, "eth1", true, &[address("192.0.2.1", &[])])]);
        let texts: Vec<_> =
            changes_but(&before, &after, &BTreeSet::from([2, 9])).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "interface eth1 is new",
                "interface eth0 was removed",
                "address 192.0.2.1 is new on eth1",
                "address 192.0.2.1 was removed from eth0"
            ]
        );
    }

    #[test]
    fn an_address_counts_from_when_it_can_be_used() {
        let with = |state: &[AddrState]| snapshot(&[(2, "eth0", true, &[address("2001:db8::1", state)])]);
        assert_eq!(changes(&snapshot(&[(2, "eth0", true, &[])]), &with(&[AddrState::Tentative])), []);
        let text = changes(&with(&[AddrState::Tentative]), &with(&[]))[0].to_string();
        assert_eq!(text, "address 2001:db8::1 is new on eth0");
        assert_eq!(changes(&with(&[]), &with(&[])), []);
    }

    #[test]
    fn going_down_is_reported_once() {
        let state = |up| snapshot(&[(2, "eth0", up, &[])]);
        assert_eq!(
            changes(&state(true), &state(false)),
            [Change::InterfaceDown { interface: "eth0".into() }]
        );
        assert_eq!(changes(&state(false), &state(true)), [Change::InterfaceUp { interface: "eth0".into() }]);
        assert_eq!(changes(&state(false), &state(false)), []);
    }
}
