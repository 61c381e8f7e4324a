//! Attribution: the ingress interface of an arrival, and its evidence. Pure: all inputs are values.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ingress_interface::strongest_evidence;
use ipnet::IpNet;

use crate::model::addr::needs_zone;
use crate::model::{Arrival, Endpoint, Evidence, Family, IfName, Protocol, RouteKind, Snapshot, known_index};

/// Data from the system about one connection or datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Name of the listener that accepted it.
    pub listener: &'a str,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client, as the socket reports it (IPv4-mapped on an AF_INET6 socket).
    pub peer: SocketAddr,
    /// The destination, as the socket reports it.
    pub local: SocketAddr,
    /// The interface that the kernel reports.
    pub kernel: Option<KernelIngress<'a>>,
}

/// An interface reported by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelIngress<'a> {
    /// Index.
    pub index: u32,
    /// Name in the socket's network namespace; `None` if the interface no longer exists.
    pub name: Option<&'a IfName>,
}

/// Every local address with its interfaces; the list is empty if only a route makes it local. Sorted by number:
/// comparing the few addresses of a host takes less time than hashing one.
#[derive(Debug, Default)]
struct Owners {
    v4: BTreeMap<u32, Vec<(u32, IfName)>>,
    v6: BTreeMap<u128, Vec<(u32, IfName)>>,
}

impl Owners {
    fn entry(&mut self, address: IpAddr) -> &mut Vec<(u32, IfName)> {
        match address {
            IpAddr::V4(v4) => self.v4.entry(v4.to_bits()).or_default(),
            IpAddr::V6(v6) => self.v6.entry(v6.to_bits()).or_default(),
        }
    }

    fn get(&self, address: IpAddr) -> Option<&[(u32, IfName)]> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&v4.to_bits()),
            IpAddr::V6(v6) => self.v6.get(&v6.to_bits()),
        }
        .map(Vec::as_slice)
    }
}

/// The owners of addresses, for lookups of arrivals.
#[derive(Debug, Default)]
pub struct AddressBook {
    owners: Owners,
    /// Local routes that cover more than one address.
    local_prefixes: Vec<IpNet>,
    names: BTreeMap<u32, IfName>,
}

impl AddressBook {
    /// Sorts the addresses of a snapshot for lookups.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> AddressBook {
        let mut owners = Owners::default();
        for (interface, address) in snapshot.addresses() {
            owners.entry(address.address).push((interface.index, interface.name.clone()));
        }
        let mut local_prefixes = Vec::new();
        for route in snapshot.routes.iter().filter(|route| route.kind == RouteKind::Local) {
            // The kernel has a local route for each address; only wider ones need a search.
            if route.destination.prefix_len() == route.destination.max_prefix_len() {
                owners.entry(route.destination.addr());
            } else {
                local_prefixes.push(route.destination);
            }
        }
        let names =
            snapshot.interfaces.iter().map(|interface| (interface.index, interface.name.clone())).collect();
        AddressBook { owners, local_prefixes, names }
    }

    /// The interface that has this address. If several interfaces have the same link-local address, the scope id
    /// decides. If several have another address, there is no single owner, unless one of them is `preferred` (the
    /// ingress interface).
    #[must_use]
    pub fn owner(
        &self,
        address: IpAddr,
        scope_id: Option<u32>,
        preferred: Option<u32>,
    ) -> Option<&(u32, IfName)> {
        let owners = self.owners_of(address)?;
        if needs_zone(address) {
            return owners.iter().find(|(index, _)| scope_id == Some(*index));
        }
        match owners {
            [only] => Some(only),
            several => {
                several.iter().find(|(index, _)| preferred == Some(*index)).or_else(|| several.first())
            }
        }
    }

    /// The only interface that has this address.
    fn only_owner(&self, address: IpAddr) -> Option<u32> {
        match self.owners_of(address)? {
            [(index, _)] => Some(*index),
            _ => None,
        }
    }

    fn owners_of(&self, address: IpAddr) -> Option<&[(u32, IfName)]> {
        match self.owners.get(address) {
            Some(owners) if !owners.is_empty() => Some(owners),
            // All of 127.0.0.0/8 belongs to the interface that has 127.0.0.1/8, because of one local route.
            _ if matches!(address, IpAddr::V4(v4) if v4.is_loopback()) => {
                self.owners.get(IpAddr::V4(Ipv4Addr::LOCALHOST))
            }
            _ => None,
        }
    }

    /// Whether packets to this address stay on this host.
    #[must_use]
    pub fn is_local(&self, address: IpAddr, scope_id: Option<u32>) -> bool {
        if needs_zone(address) {
            return self.owner(address, scope_id, None).is_some();
        }
        matches!(address, IpAddr::V4(v4) if v4.is_loopback())
            || self.owners.get(address).is_some()
            || self.local_prefixes.iter().any(|prefix| prefix.contains(&address))
    }

    /// The interface with this index.
    #[must_use]
    pub fn name(&self, index: u32) -> Option<&IfName> {
        self.names.get(&index)
    }
}

/// Attributes one arrival by the strongest evidence ([`strongest_evidence`]): the interface that the kernel recorded, then the
/// scope id of a link-local address, then the only owner of the local address. Under the weak host model (RFC 1122, 3.3.4.2)
/// the owner can be another interface than the one the packets arrived on.
///
/// Without `book` the owner and locality are unknown: the socket belongs to another network namespace, or the host
/// could not be read.
#[must_use]
pub fn attribute(raw: &Raw<'_>, book: Option<&AddressBook>) -> Arrival {
    let mut arrival = Arrival::nowhere();
    attribute_into(&mut arrival, raw, book);
    arrival
}

/// Like [`attribute`], but reuses the memory of an old arrival.
pub fn attribute_into(arrival: &mut Arrival, raw: &Raw<'_>, book: Option<&AddressBook>) {
    let v4_mapped = matches!(raw.peer, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some());
    let peer = Endpoint::from(raw.peer);
    let local = Endpoint::from(raw.local);
    let named = raw.kernel.map(|kernel| kernel.index);
    let owner = book.and_then(|book| book.owner(local.address, local.scope_id, named));
    let only_owner = |address| book.and_then(|book| book.only_owner(address));
    let known = strongest_evidence(named, Some(raw.local), raw.peer, only_owner);
    let (index, name, evidence) = match (known, raw.kernel) {
        (Some((index, evidence)), Some(kernel)) => (Some(index), kernel.name, evidence.into()),
        (Some((index, evidence)), None) => {
            (Some(index), book.and_then(|book| book.name(index)), evidence.into())
        }
        (None, _) => (None, None, Evidence::Unknown),
    };
    arrival.ingress.index = index.and_then(known_index);
    set_name(&mut arrival.ingress.name, name);
    arrival.ingress.evidence = evidence;
    set_name(&mut arrival.address_owner, owner.map(|(_, name)| name));
    raw.listener.clone_into(&mut arrival.listener);
    arrival.protocol = raw.protocol;
    arrival.family = Family::of(peer.address);
    arrival.v4_mapped = v4_mapped;
    arrival.peer_is_local = book.map(|book| book.is_local(peer.address, peer.scope_id));
    arrival.peer = peer;
    arrival.local = local;
}

fn set_name(to: &mut Option<IfName>, from: Option<&IfName>) {
    match (to, from) {
        (Some(to), Some(from)) => to.clone_from(from),
        (to, from) => *to = from.cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Interface, InterfaceAddress, Route};

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let addresses = addresses
            .iter()
            .map(|text| {
                let address: IpAddr = text.parse().unwrap();
                InterfaceAddress {
                    scope_id: needs_zone(address).then_some(index),
                    ..InterfaceAddress::new(address, 24)
                }
            })
            .collect();
        Interface {
            up: true,
            running: true,
            loopback: name == "lo",
            multicast: true,
            addresses,
            ..Interface::new(index, name.into())
        }
    }

    fn book() -> AddressBook {
        AddressBook::new(&Snapshot {
            interfaces: vec![
                interface(1, "lo", &["127.0.0.1", "::1"]),
                interface(2, "eth0", &["192.0.2.1", "2001:db8:1::1", "fe80::1", "10.0.0.9"]),
                interface(3, "eth1", &["198.51.100.1", "fe80::1", "10.0.0.9"]),
            ],
            routes: ["203.0.113.0/24", "203.0.114.9/32", "192.0.2.1/32"]
                .map(|destination| Route {
                    interface: Some(1),
                    ..Route::new(255, RouteKind::Local, destination.parse().unwrap())
                })
                .into(),
            ..Snapshot::default()
        })
    }

    fn arrival(peer: &str, local: &str, kernel: Option<u32>) -> Arrival {
        let name = IfName::from(format!("k{}", kernel.unwrap_or(0)).as_str());
        let kernel = kernel.map(|index| KernelIngress { index, name: Some(&name) });
        let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
        attribute(&Raw { listener: "l", protocol: Protocol::Tcp, peer, local, kernel }, Some(&book()))
    }

    #[test]
    fn the_kernels_interface_wins_over_the_address_owner() {
        let weak = arrival("198.51.100.7:999", "192.0.2.1:80", Some(3));
        assert_eq!((weak.ingress.index, weak.ingress.evidence), (Some(3), Evidence::Kernel));
        assert_eq!(weak.address_owner, Some("eth0".into()));
        assert_eq!(weak.peer_is_local, Some(false));
    }

    #[test]
    fn without_the_kernel_the_scope_id_counts_and_then_the_owner() {
        let link = arrival("[fe80::9%3]:999", "[fe80::1%3]:80", None);
        assert_eq!((link.ingress.index, link.ingress.evidence), (Some(3), Evidence::ScopeId));
        assert_eq!(link.address_owner, Some("eth1".into()));
        let guess = arrival("192.0.2.7:999", "192.0.2.1:80", None);
        assert_eq!((guess.ingress.index, guess.ingress.evidence), (Some(2), Evidence::Address));
        for unowned in ["203.0.113.5:80", "203.0.114.9:80"] {
            let none = arrival("192.0.2.7:999", unowned, None);
            assert_eq!((none.ingress.index, none.ingress.evidence), (None, Evidence::Unknown));
            assert_eq!(none.address_owner, None);
        }
    }

    #[test]
    fn v4_mapped_is_shown_as_ipv4() {
        let mapped = arrival("[::ffff:192.0.2.7]:999", "[::ffff:192.0.2.1]:80", Some(2));
        assert!(mapped.v4_mapped);
        assert_eq!(mapped.family, Family::Ipv4);
        assert_eq!(mapped.peer.address.to_string(), "192.0.2.7");
        assert_eq!(mapped.local.address.to_string(), "192.0.2.1");
        assert_eq!(mapped.address_owner, Some("eth0".into()));
    }

    #[test]
    fn locality_knows_loopback_any_ip_and_zones() {
        for (peer, expected) in [
            ("127.0.0.5:1", true),
            ("192.0.2.1:1", true),
            ("203.0.113.77:1", true),
            ("203.0.114.9:1", true),
            ("203.0.114.8:1", false),
            ("192.0.2.2:1", false),
            ("[::1]:1", true),
            ("[fe80::1%2]:1", true),
            ("[fe80::1%4]:1", false),
            ("[fe80::2%2]:1", false),
        ] {
            assert_eq!(arrival(peer, "192.0.2.1:80", Some(2)).peer_is_local, Some(expected), "{peer}");
        }
    }

    #[test]
    fn an_address_on_two_interfaces_is_owned_by_the_one_it_arrived_on() {
        assert_eq!(arrival("10.0.0.1:1", "10.0.0.9:80", Some(3)).address_owner, Some("eth1".into()));
        assert_eq!(arrival("10.0.0.1:1", "10.0.0.9:80", None).address_owner, Some("eth0".into()));
    }

    #[test]
    fn an_address_on_two_interfaces_is_not_evidence_of_the_interface() {
        let shared = arrival("10.0.0.1:1", "10.0.0.9:80", None);
        assert_eq!((shared.ingress.index, shared.ingress.evidence), (None, Evidence::Unknown));
    }

    #[test]
    fn every_127_address_is_owned_by_lo() {
        assert_eq!(arrival("127.0.0.1:1", "127.9.9.9:80", Some(1)).address_owner, Some("lo".into()));
    }

    #[test]
    fn an_arrival_that_is_used_again_keeps_nothing() {
        let book = book();
        let name = IfName::from("eth1");
        let mut raws = Vec::new();
        for (peer, local) in [
            ("198.51.100.7:999", "192.0.2.1:80"),
            ("[fe80::9%3]:999", "[fe80::1%3]:81"),
            ("[::ffff:192.0.2.7]:9", "[::ffff:203.0.113.5]:80"),
            ("127.0.0.1:1", "127.9.9.9:80"),
        ] {
            for kernel in [
                None,
                Some(KernelIngress { index: 3, name: None }),
                Some(KernelIngress { index: 3, name: Some(&name) }),
            ] {
                for listener in ["a", "another"] {
                    let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
                    raws.push(Raw { listener, protocol: Protocol::Tcp, peer, local, kernel });
                }
            }
        }
        let mut used = Arrival::nowhere();
        for (first, book) in raws.iter().flat_map(|raw| [(raw, Some(&book)), (raw, None)]) {
            for then in &raws {
                attribute_into(&mut used, first, book);
                attribute_into(&mut used, then, book);
                assert_eq!(used, attribute(then, book));
            }
        }
    }

    #[test]
    fn without_a_book_nothing_is_guessed() {
        let (peer, local) = ("192.0.2.7:999".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        let raw = Raw { listener: "l", protocol: Protocol::Udp, peer, local, kernel: None };
        let unknown = attribute(&raw, None);
        assert_eq!(unknown.peer_is_local, None);
        assert_eq!(unknown.ingress.evidence, Evidence::Unknown);
    }
}
