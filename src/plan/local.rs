//! Which addresses are this host's own, and whose: the table `local` of the routing look-up, from a snapshot.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::{AddrClass, AddrState, Interface, InterfaceAddress, RouteKind, Snapshot};

/// Number of the routing table `local` (`RT_TABLE_LOCAL` of `linux/rtnetlink.h`).
const TABLE_LOCAL: u32 = 255;

/// What an IPv4 address is to this host (`__inet_dev_addr_type()` of `net/ipv4/fib_frontend.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv4Kind {
    /// The host's own, by an address or a local route of the interface with this index.
    Local(u32),
    /// 255.255.255.255, the wildcard, or a broadcast address of a network that is up.
    Broadcast,
    /// A group.
    Multicast,
    /// Somebody else's.
    Foreign,
    /// The host may have no table at all, and then takes every address for its own: a namespace in which IPv4 was never used.
    Unknown,
}

/// An IPv6 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Owner {
    /// Index of the interface.
    pub interface: u32,
    /// Why it cannot be used now; `None` when it can.
    pub unusable: Option<AddrState>,
}

/// Addresses of a host, indexed.
#[derive(Debug)]
pub struct LocalAddresses {
    exact4: HashMap<Ipv4Addr, u32>,
    broadcast4: HashSet<Ipv4Addr>,
    routes4: Vec<(Ipv4Net, u32)>,
    owners6: HashMap<Ipv6Addr, Vec<Ipv6Owner>>,
    routes6: Vec<(Ipv6Net, u32)>,
    ipv4_used: bool,
}

impl LocalAddresses {
    /// Indexes the addresses and local routes of `snapshot`.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> LocalAddresses {
        let mut new = LocalAddresses {
            exact4: HashMap::new(),
            broadcast4: HashSet::new(),
            routes4: Vec::new(),
            owners6: HashMap::new(),
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
        for route in snapshot.routes.iter().filter(|route| route.table == TABLE_LOCAL) {
            let interface = route.interface.unwrap_or(0);
            match (route.kind, route.destination) {
                (RouteKind::Local, IpNet::V4(net)) => new.routes4.push((net, interface)),
                (RouteKind::Local, IpNet::V6(net)) => new.routes6.push((net, interface)),
                (RouteKind::Broadcast, IpNet::V4(net)) => {
                    new.broadcast4.insert(net.addr());
                }
                _ => {}
            }
        }
        new.ipv4_used |= snapshot.routes.iter().any(|route| matches!(route.destination, IpNet::V4(_)));
        // The longest prefix wins.
        new.routes4.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        new.routes6.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        new
    }

    /// What an IPv4 address brings into the table (`fib_add_ifaddr()`).
    fn add4(&mut self, interface: &Interface, address: &InterfaceAddress, v4: Ipv4Addr) {
        self.ipv4_used = true;
        self.exact4.entry(v4).or_insert(interface.index);
        let whose = address.peer.map_or(v4, |peer| if let IpAddr::V4(peer) = peer { peer } else { v4 });
        let Ok(net) = Ipv4Net::new(whose, address.prefix) else { return };
        let net = net.trunc();
        let secondary = address.is(AddrState::Secondary);
        if interface.loopback && !secondary && net.prefix_len() < 32 {
            self.routes4.push((net, interface.index));
        }
        if interface.up {
            let named = address.broadcast.and_then(|b| if let IpAddr::V4(b) = b { Some(b) } else { None });
            let implied = (!secondary && net.prefix_len() < 31).then(|| net.broadcast());
            self.broadcast4.extend(named.into_iter().chain(implied));
        }
    }

    /// What an IPv4 address is to this host.
    #[must_use]
    pub fn ipv4(&self, address: Ipv4Addr) -> Ipv4Kind {
        if address.is_broadcast() || address.is_unspecified() {
            return Ipv4Kind::Broadcast;
        }
        if address.is_multicast() {
            return Ipv4Kind::Multicast;
        }
        if let Some(&interface) = self.exact4.get(&address) {
            return Ipv4Kind::Local(interface);
        }
        if self.broadcast4.contains(&address) {
            return Ipv4Kind::Broadcast;
        }
        if let Some(&(_, interface)) = self.routes4.iter().find(|(net, _)| net.contains(&address)) {
            return Ipv4Kind::Local(interface);
        }
        if self.ipv4_used { Ipv4Kind::Foreign } else { Ipv4Kind::Unknown }
    }

    /// The interfaces that have an IPv6 address.
    #[must_use]
    pub fn ipv6_owners(&self, address: Ipv6Addr) -> &[Ipv6Owner] {
        self.owners6.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The interface through which a destination is this host's own, by address or by local route. For a link-local address the
    /// zone `interface` decides.
    #[must_use]
    pub fn owner(&self, destination: IpAddr, zone: Option<u32>) -> Option<u32> {
        match destination.to_canonical() {
            IpAddr::V4(v4) => match self.ipv4(v4) {
                Ipv4Kind::Local(interface) => Some(interface),
                _ => None,
            },
            IpAddr::V6(v6) => {
                let link_local = AddrClass::of(destination) == AddrClass::Link;
                self.ipv6_owners(v6)
                    .iter()
                    .filter(|owner| owner.unusable.is_none())
                    .map(|owner| owner.interface)
                    .find(|&interface| !link_local || Some(interface) == zone)
                    .or_else(|| {
                        let route = self.routes6.iter().find(|(net, _)| net.contains(&v6));
                        route.filter(|_| !link_local).map(|&(_, interface)| interface)
                    })
            }
        }
    }

    /// Networks that only a local route makes ours.
    pub fn local_routes(&self, snapshot: &Snapshot) -> impl Iterator<Item = (IpNet, u32)> {
        snapshot
            .routes
            .iter()
            .filter(|route| route.table == TABLE_LOCAL && route.kind == RouteKind::Local)
            .map(|route| (route.destination, route.interface.unwrap_or(0)))
    }

    /// Whether any interface has an IPv6 address that can be used now.
    #[must_use]
    pub fn any_usable_ipv6(&self) -> bool {
        self.owners6.values().flatten().any(|owner| owner.unusable.is_none())
    }

    /// Whether an interface has this very address.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.exact4.contains_key(&v4),
            IpAddr::V6(v6) => self.owners6.contains_key(&v6),
        }
    }
}

/// The state that keeps an IPv6 address from being used (`__ipv6_chk_addr_and_flags()` of `net/ipv6/addrconf.c`).
fn unusable(address: &InterfaceAddress) -> Option<AddrState> {
    if address.is(AddrState::Dadfailed) {
        Some(AddrState::Dadfailed)
    } else if address.is(AddrState::Tentative) && !address.is(AddrState::Optimistic) {
        Some(AddrState::Tentative)
    } else {
        None
    }
}
