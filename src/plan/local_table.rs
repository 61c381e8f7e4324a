//! Local addresses of a host and their owners: the routing table `local`, from a snapshot.
//!
//! Each VRF has its own table instead. An address of one VRF is therefore not an address of another VRF or of the
//! default VRF (`inet_addr_type_table()`, `l3mdev_fib_table()`). The ingress interface determines the table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{AddrClass, AddrState, Interface, InterfaceAddress, Route, RouteKind, Snapshot};

/// Number of the routing table `local` (`RT_TABLE_LOCAL` of `linux/rtnetlink.h`).
pub(super) const TABLE_LOCAL: u32 = 255;

/// Type of an IPv4 address for this host (`__inet_dev_addr_type()` of `net/ipv4/fib_frontend.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv4Kind {
    /// A local address, from an address or a local route of the interface with this index.
    Local(u32),
    /// 255.255.255.255, the wildcard, or a broadcast address of a network that is up.
    Broadcast,
    /// A group.
    Multicast,
    /// An address of another host.
    Foreign,
    /// The host may have no table, and then treats every address as local: a namespace in which IPv4 was never used.
    Unknown,
}

/// An IPv6 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Owner {
    /// Index of the interface.
    pub interface: u32,
    /// Why it cannot be used now; `None` if it can.
    pub unusable: Option<AddrState>,
}

/// The VRF of an interface, by its index; 0 outside VRFs.
type Vrf = u32;

/// Addresses of a host, indexed.
#[derive(Debug)]
pub struct LocalAddresses {
    /// Interfaces that are a VRF or in one.
    vrfs: FxHashMap<u32, Vrf>,
    /// Addresses and their interfaces, sorted. Repeated lookups are usually in order and near each other. In a hash map
    /// every lookup would be a cache miss, which was most of the cost of fifty thousand lookups.
    exact4: Vec<((Vrf, Ipv4Addr), u32)>,
    /// Addresses of VRFs.
    inner4: FxHashSet<Ipv4Addr>,
    broadcast4: FxHashSet<(Vrf, Ipv4Addr)>,
    routes4: Vec<(Vrf, Ipv4Net, u32)>,
    owners6: FxHashMap<Ipv6Addr, Vec<Ipv6Owner>>,
    routes6: Vec<(Vrf, Ipv6Net, u32)>,
    ipv4_used: bool,
}

impl LocalAddresses {
    /// Indexes the addresses and local routes of `snapshot`.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> LocalAddresses {
        let vrfs = snapshot.interfaces.iter().map(|interface| (interface.index, snapshot.vrf_of(interface)));
        let mut new = LocalAddresses {
            vrfs: vrfs.filter(|&(_, vrf)| vrf != 0).collect(),
            exact4: Vec::new(),
            inner4: FxHashSet::default(),
            broadcast4: FxHashSet::default(),
            routes4: Vec::new(),
            owners6: FxHashMap::default(),
            routes6: Vec::new(),
            ipv4_used: false,
        };
        for (interface, address) in snapshot.addresses() {
            match address.address {
                IpAddr::V4(v4) => new.add4(interface, address, v4),
                IpAddr::V6(v6) => {
                    let owner = Ipv6Owner { interface: interface.index, unusable: unusable(address) };
                    new.owners6.entry(v6).or_default().push(owner);
                }
            }
        }
        // The first interface that has an address is its owner; the sort is stable.
        new.exact4.sort_by_key(|(address, _)| *address);
        for route in &snapshot.routes {
            let interface = route.interface.unwrap_or(0);
            let vrf = new.vrf(Some(interface));
            // Entries of a VRF's interface in the table `local` apply to the default VRF.
            let vrf = if route.table == TABLE_LOCAL { 0 } else { vrf };
            if vrf == 0 && route.table != TABLE_LOCAL {
                continue;
            }
            match (route.kind, route.destination) {
                (RouteKind::Local, IpNet::V4(net)) => new.routes4.push((vrf, net, interface)),
                (RouteKind::Local, IpNet::V6(net)) => new.routes6.push((vrf, net, interface)),
                (RouteKind::Broadcast, IpNet::V4(net)) => {
                    new.broadcast4.insert((vrf, net.addr()));
                }
                _ => {}
            }
        }
        new.ipv4_used |= snapshot.routes.iter().any(|route| matches!(route.destination, IpNet::V4(_)));
        // The longest prefix wins.
        new.routes4.sort_by_key(|(_, net, _)| std::cmp::Reverse(net.prefix_len()));
        new.routes6.sort_by_key(|(_, net, _)| std::cmp::Reverse(net.prefix_len()));
        new
    }

    /// The entries for an IPv4 address (`fib_add_ifaddr()`).
    fn add4(&mut self, interface: &Interface, address: &InterfaceAddress, v4: Ipv4Addr) {
        let vrf = self.vrf(Some(interface.index));
        self.ipv4_used = true;
        self.exact4.push(((vrf, v4), interface.index));
        if vrf != 0 {
            self.inner4.insert(v4);
        }
        let whose = address.peer.map_or(v4, |peer| if let IpAddr::V4(peer) = peer { peer } else { v4 });
        let Ok(net) = Ipv4Net::new(whose, address.prefix) else { return };
        let net = net.trunc();
        let secondary = address.is(AddrState::Secondary);
        if interface.loopback && !secondary && net.prefix_len() < 32 {
            self.routes4.push((vrf, net, interface.index));
        }
        if interface.up {
            let named = address.broadcast.and_then(|b| if let IpAddr::V4(b) = b { Some(b) } else { None });
            let implied = (!secondary && net.prefix_len() < 31).then(|| net.broadcast());
            self.broadcast4.extend(named.into_iter().chain(implied).map(|address| (vrf, address)));
        }
    }

    /// The VRF of an interface; 0 if none.
    fn vrf(&self, interface: Option<u32>) -> Vrf {
        interface.and_then(|interface| self.vrfs.get(&interface)).copied().unwrap_or(0)
    }

    /// The interface in a VRF (0: outside VRFs) that has an IPv4 address.
    pub(super) fn exact4(&self, vrf: Vrf, address: Ipv4Addr) -> Option<u32> {
        self.owners4(vrf, address).next()
    }

    /// The interfaces in a VRF (0: outside VRFs) that have an IPv4 address, the owner first.
    pub(super) fn owners4(&self, vrf: Vrf, address: Ipv4Addr) -> impl Iterator<Item = u32> + '_ {
        let start = self.exact4.partition_point(|(other, _)| *other < (vrf, address));
        let rest = self.exact4.get(start..).unwrap_or_default().iter();
        rest.take_while(move |(other, _)| *other == (vrf, address)).map(|(_, interface)| *interface)
    }

    /// The type of an IPv4 address for this host, or for the VRF of the interface `device`.
    #[must_use]
    pub fn ipv4(&self, address: Ipv4Addr, device: Option<u32>) -> Ipv4Kind {
        let vrf = self.vrf(device);
        if address.is_broadcast() || address.is_unspecified() {
            return Ipv4Kind::Broadcast;
        }
        if address.is_multicast() {
            return Ipv4Kind::Multicast;
        }
        if let Some(interface) = self.exact4(vrf, address) {
            return Ipv4Kind::Local(interface);
        }
        if self.broadcast4.contains(&(vrf, address)) {
            return Ipv4Kind::Broadcast;
        }
        let mut routes = self.routes4.iter().filter(|(of, ..)| *of == vrf);
        if let Some(&(_, _, interface)) = routes.find(|(_, net, _)| net.contains(&address)) {
            return Ipv4Kind::Local(interface);
        }
        if self.ipv4_used { Ipv4Kind::Foreign } else { Ipv4Kind::Unknown }
    }

    /// The interface in a VRF (0: outside VRFs) that has a usable IPv6 address; only the interface `only`, unless that
    /// is 0.
    pub(super) fn exact6(&self, vrf: Vrf, address: Ipv6Addr, only: u32) -> Option<u32> {
        let owners = self.ipv6_owners(address).iter().filter(|owner| owner.unusable.is_none());
        let mut owners = owners.map(|owner| owner.interface);
        owners.find(|&owner| self.vrf(Some(owner)) == vrf && (only == 0 || owner == only))
    }

    /// The interfaces that have an IPv6 address.
    #[must_use]
    pub fn ipv6_owners(&self, address: Ipv6Addr) -> &[Ipv6Owner] {
        self.owners6.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The interface that makes a destination local, by address or by local route, for packets that arrive on `over`.
    /// The VRF of `over` decides, and for a link-local address `over` itself. Without `over`, for the default VRF.
    #[must_use]
    pub fn owner(&self, destination: IpAddr, over: Option<u32>) -> Option<u32> {
        let vrf = self.vrf(over);
        match destination.to_canonical() {
            IpAddr::V4(v4) => match self.ipv4(v4, over) {
                Ipv4Kind::Local(interface) => Some(interface),
                _ => None,
            },
            IpAddr::V6(v6) => {
                let link_local = AddrClass::of(destination) == AddrClass::Link;
                self.ipv6_owners(v6)
                    .iter()
                    .filter(|owner| owner.unusable.is_none())
                    .map(|owner| owner.interface)
                    .filter(|&interface| self.vrf(Some(interface)) == vrf)
                    .find(|&interface| !link_local || Some(interface) == over)
                    .or_else(|| {
                        let mut routes = self.routes6.iter().filter(|(of, ..)| *of == vrf);
                        let route = routes.find(|(_, net, _)| net.contains(&v6));
                        route.filter(|_| !link_local).map(|&(_, _, interface)| interface)
                    })
            }
        }
    }

    /// The interface in a VRF that has a destination which is not an address of the default VRF.
    #[must_use]
    pub fn owner_in_a_vrf(&self, destination: IpAddr) -> Option<u32> {
        self.vrfs.keys().copied().filter_map(|interface| self.owner(destination, Some(interface))).min()
    }

    /// Whether any interface has a usable IPv6 address.
    #[must_use]
    pub fn any_usable_ipv6(&self) -> bool {
        self.owners6.values().flatten().any(|owner| owner.unusable.is_none())
    }

    /// The gateway to which the kernel sends the packets of a route. An IPv4 gateway that is an address of this host is not
    /// used: its next hop has the scope `host`, and the kernel looks for the destination itself on the link (`fib_check_nh_*()`
    /// of `net/ipv4/fib_semantics.c`, `rt_set_nexthop()` of `net/ipv4/route.c`). The scope is that of the time when the route was
    /// made, which is not read: the address counts as older than the route.
    #[must_use]
    pub fn gateway_of(&self, route: &Route) -> Option<IpAddr> {
        route.gateway.filter(|gateway| match gateway {
            IpAddr::V4(v4) => !matches!(self.ipv4(*v4, route.interface), Ipv4Kind::Local(_)),
            IpAddr::V6(_) => true,
        })
    }

    /// Whether an interface has exactly this address.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.exact4(0, v4).is_some() || self.inner4.contains(&v4),
            IpAddr::V6(v6) => self.owners6.contains_key(&v6),
        }
    }
}

/// The local routes of the table `local`, with the index of their interface.
pub fn local_routes(snapshot: &Snapshot) -> impl Iterator<Item = (IpNet, u32)> {
    snapshot
        .routes
        .iter()
        .filter(|route| route.table == TABLE_LOCAL && route.kind == RouteKind::Local)
        .map(|route| (route.destination, route.interface.unwrap_or(0)))
}

/// The local routes that no address implies: they make networks this host's own, and no interface shows it (AnyIP).
pub fn any_ip_routes(snapshot: &Snapshot) -> impl Iterator<Item = (IpNet, u32)> {
    local_routes(snapshot).filter(|(network, _)| {
        let single = network.prefix_len() == network.max_prefix_len();
        !snapshot.addresses().any(|(interface, address)| {
            single && address.address == network.addr()
                || interface.loopback
                    && network.contains(&address.address)
                    && address.prefix == network.prefix_len()
        })
    })
}

/// The state that makes an IPv6 address unusable (`__ipv6_chk_addr_and_flags()` of `net/ipv6/addrconf.c`).
fn unusable(address: &InterfaceAddress) -> Option<AddrState> {
    if address.is(AddrState::Dadfailed) {
        Some(AddrState::Dadfailed)
    } else if address.is(AddrState::Tentative) && !address.is(AddrState::Optimistic) {
        Some(AddrState::Tentative)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IfName;

    fn interface(index: u32, name: &str, kind: &str, master: Option<u32>, addresses: &[&str]) -> Interface {
        let address = |text: &&str| {
            let net: IpNet = text.parse().unwrap();
            InterfaceAddress::new(net.addr(), net.prefix_len())
        };
        let mut interface: Interface = serde_json::from_value(serde_json::json!({
            "index": index, "name": name, "up": true, "running": true, "loopback": kind == "loopback",
            "point_to_point": false, "multicast": true, "kind": kind, "mtu": null, "mac": null, "master": master,
            "link": null, "addresses": [], "settings": {}
        }))
        .unwrap();
        assert_eq!(interface.name, IfName::from(name));
        interface.addresses = addresses.iter().map(address).collect();
        interface
    }

    #[test]
    fn each_vrf_has_addresses_of_its_own() {
        let host = Snapshot {
            interfaces: vec![
                interface(1, "lo", "loopback", None, &["127.0.0.1/8", "::1/128"]),
                interface(2, "w0", "veth", None, &["10.0.0.1/24"]),
                interface(3, "blue", "vrf", None, &[]),
                interface(4, "w1", "veth", Some(3), &["10.1.0.1/24", "fd01::1/64"]),
                interface(5, "red", "vrf", None, &["10.9.0.1/32"]),
                interface(6, "w2", "veth", Some(5), &["10.1.0.1/24"]),
            ],
            ..Snapshot::default()
        };
        let local = LocalAddresses::new(&host);
        let owner = |address: &str, over| local.owner(address.parse().unwrap(), over);
        assert_eq!(owner("10.0.0.1", None), Some(2));
        assert_eq!(owner("10.0.0.1", Some(4)), None);
        assert_eq!(owner("127.0.0.1", Some(3)), None);
        assert_eq!(owner("10.1.0.1", None), None);
        assert_eq!((owner("10.1.0.1", Some(3)), owner("10.1.0.1", Some(6))), (Some(4), Some(6)));
        assert_eq!((owner("fd01::1", None), owner("fd01::1", Some(3))), (None, Some(4)));
        assert_eq!(owner("10.9.0.1", Some(6)), Some(5));
        assert_eq!(local.ipv4("10.1.0.255".parse().unwrap(), None), Ipv4Kind::Foreign);
        assert_eq!(local.ipv4("10.1.0.255".parse().unwrap(), Some(4)), Ipv4Kind::Broadcast);
        assert_eq!(local.owner_in_a_vrf("10.1.0.1".parse().unwrap()), Some(4));
        assert_eq!(local.owner_in_a_vrf("10.2.0.1".parse().unwrap()), None);
    }
}
