//! Comparison of two sources of addresses.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::addr;
use super::host::{Interface, InterfaceAddress, Snapshot};
use super::ifname::IfName;

/// An address in the C library's list (getifaddrs(3)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedAddress {
    /// The interface name in that list. For IPv4 this is the address label, which need not be the name of an interface.
    pub name: IfName,
    /// Index of the interface with that name; null if there is none.
    pub index: Option<u32>,
    /// The address.
    pub address: IpAddr,
}

/// Labels that are not the name of the address's interface, one sentence each, sorted. Computed from the kernel's data
/// alone.
#[must_use]
pub fn labels(snapshot: &Snapshot) -> Vec<String> {
    sorted(label_sentences(snapshot))
}

fn label_sentences(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    snapshot.addresses().filter_map(|(interface, address)| {
        let label = address.label.as_ref().filter(|label| **label != interface.name)?;
        let (text, name) = (addr::text(address.address, None), &interface.name);
        Some(match snapshot.interface_named(label) {
            Some(other) => format!(
                "{text} is on {name}, but its label is {label}, the name of another interface (index {}): programs that trust labels credit it to that one",
                other.index
            ),
            None => format!(
                "{text} is on {name}, but its label is {label}, which is not an interface: programs that trust labels name one that does not exist"
            ),
        })
    })
}

/// The findings of [`labels`], and the differences between the C library's list and the snapshot, which comes from the
/// kernel.
#[must_use]
pub fn disagreements(snapshot: &Snapshot, listed: &[ListedAddress]) -> Vec<String> {
    let mut kernel: HashMap<IpAddr, Vec<(&Interface, &InterfaceAddress)>> = HashMap::new();
    for (interface, address) in snapshot.addresses() {
        kernel.entry(address.address).or_default().push((interface, address));
    }
    let library: HashSet<IpAddr> = listed.iter().map(|entry| entry.address).collect();
    let missing = snapshot.addresses().filter(|(_, address)| !library.contains(&address.address)).map(
        |(Interface { name, .. }, address)| {
            let text = addr::text(address.address, Some(name));
            format!("the kernel has {text} on {name}, but the C library does not list it")
        },
    );
    let other = listed.iter().filter_map(|entry| {
        let text = addr::text(entry.address, None);
        let Some(owners) = kernel.get(&entry.address) else {
            return Some(format!(
                "the C library lists {text} on {}, but the kernel does not have it",
                entry.name
            ));
        };
        // Several interfaces can have the same address (fe80::1). Only a name that matches none of them counts, and it
        // may be a label.
        let fits = |(interface, address): &(&Interface, &InterfaceAddress)| {
            is_called(entry, &interface.name)
                || address.label.as_ref().is_some_and(|label| is_called(entry, label))
        };
        (!owners.iter().any(fits)).then(|| {
            let names: Vec<String> = owners.iter().map(|(interface, _)| interface.name.to_string()).collect();
            format!(
                "the kernel has {text} on {}, but the C library lists it on {}",
                names.join(", "),
                entry.name
            )
        })
    });
    sorted(label_sentences(snapshot).chain(missing).chain(other))
}

fn sorted(sentences: impl Iterator<Item = String>) -> Vec<String> {
    let mut sentences: Vec<String> = sentences.collect();
    sentences.sort_unstable();
    sentences.dedup();
    sentences
}

/// Whether the library means this name. The library returns text, so a name that is not UTF-8 contains replacement
/// characters.
fn is_called(entry: &ListedAddress, name: &IfName) -> bool {
    entry.name == *name || entry.name.as_bytes() == String::from_utf8_lossy(name.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {

    use super::*;

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let address = |text: &&str| {
            let address: IpAddr = text.parse().unwrap();
            InterfaceAddress::new(address, 24)
        };
        Interface {
            up: true,
            running: true,
            addresses: addresses.iter().map(address).collect(),
            ..Interface::new(index, IfName::from(name))
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
        assert_eq!(labels(&snapshot), [""; 0]);
        let mut labelled = snapshot.clone();
        labelled.interfaces[0].addresses[0].label = Some(IfName::from("b"));
        labelled.interfaces[0].addresses[1].label = Some(IfName::from("a:0"));
        let expected = [
            "192.0.2.1 is on a, but its label is b, the name of another interface (index 3)",
            "192.0.2.2 is on a, but its label is a:0, which is not an interface",
        ];
        let as_labelled =
            [same[2].clone(), same[3].clone(), listed("b", "192.0.2.1"), listed("a:0", "192.0.2.2")];
        for sentences in [labels(&labelled), disagreements(&labelled, &as_labelled)] {
            assert_eq!(sentences.len(), 2, "{sentences:?}");
            for (sentence, expected) in sentences.iter().zip(expected) {
                assert!(sentence.starts_with(expected), "{sentence}");
            }
        }
        let other = [listed("b", "192.0.2.1"), listed("c", "fe80::1"), listed("a", "198.51.100.1")];
        assert_eq!(
            disagreements(&snapshot, &other),
            [
                "the C library lists 198.51.100.1 on a, but the kernel does not have it",
                "the kernel has 192.0.2.1 on a, but the C library lists it on b",
                "the kernel has 192.0.2.2 on a, but the C library does not list it",
                "the kernel has fe80::1 on a, b, but the C library lists it on c",
            ]
        );
    }
}
