//! Who is on the wires of a copied host: addresses that are on-link there and nobody's yet. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::addr::needs_zone;
use crate::model::{AddrState, Family, Interface, InterfaceAddress, Route, RouteKind, Snapshot};
use crate::plan::local_table::{Ipv4Kind, LocalAddresses};

/// `main` of `linux/rtnetlink.h`.
pub(super) const TABLE_MAIN: u32 = 254;
/// How many networks of an interface its neighbour is in, per family.
const MOST_NETWORKS: usize = 4;
/// How many addresses of a network are tried at either end.
const TRIED: u32 = 64;

/// Addresses outside of everything (RFC 5737, RFC 2544), of those who are not on any network of the host.
const OUTSIDE4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 77),
    Ipv4Addr::new(198, 51, 100, 77),
    Ipv4Addr::new(192, 0, 2, 77),
    Ipv4Addr::new(198, 18, 0, 77),
];
/// The same (RFC 3849, RFC 9637).
const OUTSIDE6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xb5, 0, 0, 0, 0x77),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0xb5, 0, 0, 0, 0x77),
    Ipv6Addr::new(0x3fff, 0xb5, 0, 0, 0, 0, 0, 0x77),
];

/// What a neighbour is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Its addresses with the networks that it shares with the host: IPv4 first, of which there is always one, and the one it
    /// speaks from before others; the link-local one last.
    pub(super) own: Vec<IpNet>,
    /// The host's addresses that it sends packets by for whatever else is there, IPv4 first: `None` where the host has none on
    /// the wire.
    pub(super) by_way_of: [Option<IpAddr>; 2],
    /// Gateways of the host's routes over the interface: it answers for them too.
    pub(super) gateways: Vec<IpAddr>,
}

/// Chooses addresses for one host.
pub(super) struct Chooser<'a> {
    snapshot: &'a Snapshot,
    local: LocalAddresses,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Chooser<'a> {
        Chooser { snapshot, local: LocalAddresses::new(snapshot) }
    }

    /// The route of the table `main` that a packet of the host takes; policy rules are not asked.
    pub(super) fn route(&self, to: IpAddr) -> Option<&'a Route> {
        self.route_in(TABLE_MAIN, to)
    }

    /// The same of another table.
    fn route_in(&self, table: u32, to: IpAddr) -> Option<&'a Route> {
        let routes = self.snapshot.routes.iter().filter(|route| {
            let kinds =
                [RouteKind::Unicast, RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit];
            route.table == table && kinds.contains(&route.kind) && route.destination.contains(&to)
        });
        // The first of the best.
        routes.reduce(|best, other| {
            let key = |route: &Route| {
                (route.destination.prefix_len(), std::cmp::Reverse(route.metric.unwrap_or(0)))
            };
            if key(other) > key(best) { other } else { best }
        })
    }

    /// Whether nobody on the host has the address.
    fn is_free(&self, address: IpAddr) -> bool {
        self.is_free_on(address, None)
    }

    /// The same, and what is a broadcast address to the VRF of an interface is not free either.
    fn is_free_on(&self, address: IpAddr, interface: Option<u32>) -> bool {
        let broadcast = matches!(address, IpAddr::V4(v4)
            if !matches!(self.local.ipv4(v4, interface), Ipv4Kind::Foreign | Ipv4Kind::Unknown));
        !broadcast && self.local.owner(address, interface).is_none() && !self.local.has_address(address)
    }

    /// The table of an interface: that of its VRF, if it is in one.
    fn table_of(&self, interface: u32) -> u32 {
        let master = self.snapshot.interface(interface).and_then(|one| one.master);
        master.and_then(|master| self.snapshot.interface(master)?.vrf_table).unwrap_or(TABLE_MAIN)
    }

    /// Whether the host finds the address on the wire of `interface`.
    fn is_on_link(&self, interface: u32, address: IpAddr) -> bool {
        if self.snapshot.routes.is_empty() {
            return true;
        }
        let route = self.route_in(self.table_of(interface), address);
        route.is_some_and(|route| {
            route.kind == RouteKind::Unicast && route.gateway.is_none() && route.interface == Some(interface)
        })
    }

    /// The networks on the wire of an interface: those of its routes without a gateway, own networks first. Where the system does
    /// not tell routes, those of its addresses.
    fn networks(&self, interface: &Interface, family: Family) -> Vec<IpNet> {
        let own = |net: &IpNet| interface.addresses.iter().any(|address| net.contains(&address.address));
        let routes = self.snapshot.routes.iter().filter(|route| {
            route.kind == RouteKind::Unicast
                && route.gateway.is_none()
                && route.interface == Some(interface.index)
        });
        let mut networks: Vec<IpNet> = if self.snapshot.routes.is_empty() {
            let addresses = interface.addresses.iter();
            addresses
                .filter_map(|address| {
                    IpNet::new(address.peer.unwrap_or(address.address), address.prefix).ok()
                })
                .map(|net| net.trunc())
                .collect()
        } else {
            routes.map(|route| route.destination).collect()
        };
        networks.retain(|net| Family::of(net.addr()) == family && !is_special(*net));
        networks.sort_by_key(|net| (!own(net), std::cmp::Reverse(net.prefix_len()), *net));
        networks.dedup();
        networks
    }

    /// The addresses of whoever is on the wire of `interface`.
    pub(super) fn on_wire(&self, interface: &Interface) -> Addresses {
        let mut gateways: Vec<IpAddr> = self
            .snapshot
            .routes
            .iter()
            .filter(|route| route.interface == Some(interface.index))
            .filter_map(|route| route.gateway)
            .filter(|&gateway| {
                // A link-local address is another one on each link.
                let own = interface.addresses.iter().any(|own| own.address == gateway);
                if needs_zone(gateway) { !own } else { self.is_free(gateway) }
            })
            .collect();
        gateways.sort_unstable();
        gateways.dedup();
        let mut own: Vec<IpNet> = Vec::new();
        for family in Family::BOTH {
            let networks = self.networks(interface, family).into_iter();
            own.extend(
                networks.filter_map(|net| self.neighbour(interface, net, &gateways)).take(MOST_NETWORKS),
            );
            if own.is_empty() {
                let gateway = gateways.iter().find(|gateway| gateway.is_ipv4());
                let alone = gateway.copied().unwrap_or_else(|| IpAddr::V4(self.nowhere(interface.index)));
                own.push(IpNet::from(alone));
            }
        }
        // Whoever is on the same wire by another interface has another one.
        let [high, low] = [interface.index >> 16, interface.index & 0xffff]
            .map(|half| u16::try_from(half).unwrap_or_default());
        let link_local = (0..u16::MAX)
            .map(|number| IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xb5, number, high, low)))
            .find(|address| !self.local.has_address(*address) && !gateways.contains(address));
        own.extend(link_local.and_then(|address| IpNet::new(address, 64).ok()));
        let by_way_of = Family::BOTH.map(|family| way_in(interface, family, &own));
        Addresses { own, by_way_of, gateways }
    }

    /// An address of a network on the wire of `interface`, with the network where the host has an address of it too.
    fn neighbour(&self, interface: &Interface, net: IpNet, gateways: &[IpAddr]) -> Option<IpNet> {
        let mut candidates = candidates(net);
        candidates.retain(|address| {
            self.is_free_on(*address, Some(interface.index)) && self.is_on_link(interface.index, *address)
        });
        // A gateway is whoever forwards; it is chosen where there is nobody else.
        let other = candidates.iter().find(|address| !gateways.contains(address));
        let address = *other.or(candidates.first())?;
        let shared = interface.addresses.iter().any(|own| net.contains(&own.address));
        IpNet::new(address, if shared { net.prefix_len() } else { net.max_prefix_len() }).ok()
    }

    /// An address for whoever is on a wire that the host finds nobody on by IPv4.
    fn nowhere(&self, index: u32) -> Ipv4Addr {
        let start = u32::from(Ipv4Addr::new(198, 18, 1, 0)) + (index & 0xffff);
        (0..1 << 16)
            .map(|step| Ipv4Addr::from(start + step))
            .find(|address| self.is_free(IpAddr::V4(*address)))
            .unwrap_or(Ipv4Addr::from(start))
    }

    /// An address that the host finds by a default route with a gateway, the interface and the gateway. `None` where there is no
    /// such route, or several that packets are spread over.
    pub(super) fn beyond(&self, family: Family) -> Option<(IpAddr, u32, IpAddr)> {
        let outside: Vec<IpAddr> = match family {
            Family::Ipv4 => OUTSIDE4.map(IpAddr::V4).to_vec(),
            Family::Ipv6 => OUTSIDE6.map(IpAddr::V6).to_vec(),
        };
        outside.into_iter().filter(|address| self.is_free(*address)).find_map(|address| {
            let route = self.route(address)?;
            let default = route.destination.prefix_len() == 0 && route.kind == RouteKind::Unicast;
            let same = self.snapshot.routes.iter().filter(|other| {
                (other.table, other.destination, other.metric)
                    == (route.table, route.destination, route.metric)
            });
            let found = (address, route.interface?, route.gateway?);
            (default && same.count() == 1).then_some(found)
        })
    }
}

/// The address by which somebody with these addresses sends packets to the host: one of a shared network before others, and one
/// that is not link-local before one that is.
fn way_in(interface: &Interface, family: Family, peer: &[IpNet]) -> Option<IpAddr> {
    let usable = interface.addresses.iter().filter(|own| {
        let waits = own.is(AddrState::Tentative) && !own.is(AddrState::Optimistic);
        own.family == family && !own.address.is_loopback() && !waits && !own.is(AddrState::Dadfailed)
    });
    let rank = |own: &InterfaceAddress| {
        let shared = peer.iter().any(|net| net.contains(&own.address));
        (needs_zone(own.address), !shared, own.is(AddrState::Deprecated), own.is(AddrState::Secondary))
    };
    usable.min_by_key(|own| rank(own)).map(|own| own.address)
}

/// Networks in which no neighbour has an address of its own choice.
fn is_special(net: IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// Some addresses of a network, the ones to try first first.
fn candidates(net: IpNet) -> Vec<IpAddr> {
    match net {
        // Of half the Internet no address is more likely than another, so it is one of nobody.
        IpNet::V4(net) if net.prefix_len() < 8 => {
            OUTSIDE4.into_iter().filter(|address| net.contains(address)).map(IpAddr::V4).collect()
        }
        IpNet::V6(net) if net.prefix_len() < 16 => {
            OUTSIDE6.into_iter().filter(|address| net.contains(address)).map(IpAddr::V6).collect()
        }
        IpNet::V4(net) => hosts4(net),
        IpNet::V6(net) => hosts6(net),
    }
}

fn hosts4(net: Ipv4Net) -> Vec<IpAddr> {
    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
    // RFC 3021: both addresses of a /31 are hosts.
    let (first, last) = if net.prefix_len() >= 31 { (first, last) } else { (first + 1, last - 1) };
    let head = first..=last.min(first.saturating_add(TRIED));
    let tail = first.max(last.saturating_sub(TRIED))..=last;
    head.chain(tail.rev()).map(|number| IpAddr::V4(Ipv4Addr::from(number))).collect()
}

fn hosts6(net: Ipv6Net) -> Vec<IpAddr> {
    let first = u128::from(net.network());
    let size = u128::from(net.broadcast()) - first;
    // The first one is the router's anycast address (RFC 4291, 2.6.1).
    let numbers = if size == 0 { 0..=0 } else { 1..=size.min(u128::from(TRIED)) };
    let odd = if size > 0xffff { Some(0xb5) } else { None };
    odd.into_iter().chain(numbers).map(|number| IpAddr::V6(Ipv6Addr::from(first | number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IfName, InterfaceAddress};

    fn interface(index: u32, name: &str, addresses: &[(&str, u8)]) -> Interface {
        let addresses = addresses.iter().map(|&(text, prefix)| {
            let address: IpAddr = text.parse().unwrap();
            InterfaceAddress::new(address, prefix)
        });
        Interface {
            up: true,
            running: true,
            multicast: true,
            kind: Some("veth".to_owned()),
            addresses: addresses.collect(),
            ..Interface::new(index, IfName::from(name))
        }
    }

    fn route(to: &str, interface: u32, gateway: Option<&str>) -> Route {
        Route {
            interface: Some(interface),
            gateway: gateway.map(|text| text.parse().unwrap()),
            ..Route::new(TABLE_MAIN, RouteKind::Unicast, to.parse().unwrap())
        }
    }

    fn host(addresses: &[(&str, u8)], routes: Vec<Route>) -> Snapshot {
        Snapshot { interfaces: vec![interface(2, "eth0", addresses)], routes, ..Snapshot::default() }
    }

    fn chosen(snapshot: &Snapshot) -> Vec<String> {
        let found = Chooser::new(snapshot).on_wire(&snapshot.interfaces[0]);
        let own = found.own.iter().filter(|net| !needs_zone(net.addr()));
        own.map(ToString::to_string).collect()
    }

    #[test]
    fn a_neighbour_is_on_link_and_collides_with_nobody() {
        let net = |to| route(to, 2, None);
        let default = route("0.0.0.0/0", 2, Some("10.0.0.2"));
        let all = host(
            &[("10.0.0.1", 24), ("10.0.0.3", 24), ("2001:db8::b5", 64)],
            vec![net("10.0.0.0/24"), net("2001:db8::/64"), default],
        );
        assert_eq!(chosen(&all), ["10.0.0.4/24", "2001:db8::1/64"]);
        // A part of the network is behind a router, and another one elsewhere.
        let part = host(
            &[("10.0.0.1", 24)],
            vec![
                net("10.0.0.0/24"),
                route("10.0.0.0/25", 2, Some("10.0.0.200")),
                route("10.0.0.192/26", 3, None),
            ],
        );
        assert_eq!(chosen(&part), ["10.0.0.191/24"]);
    }

    #[test]
    fn small_and_odd_networks_have_neighbours_too() {
        let net = |to| route(to, 2, None);
        assert_eq!(chosen(&host(&[("10.0.0.1", 31)], vec![net("10.0.0.0/31")])), ["10.0.0.0/31"]);
        // A cloud's address of one bit less than a network, with a gateway on the link.
        let cloud =
            host(&[("10.0.0.5", 32)], vec![net("10.0.0.1/32"), route("0.0.0.0/0", 2, Some("10.0.0.1"))]);
        assert_eq!(chosen(&cloud), ["10.0.0.1/32"]);
        let behind = host(&[("10.0.0.5", 32)], vec![route("0.0.0.0/0", 2, Some("172.31.1.1"))]);
        assert_eq!(chosen(&behind), ["172.31.1.1/32"]);
        assert_eq!(chosen(&host(&[("10.0.0.5", 32)], vec![net("0.0.0.0/0")])), ["203.0.113.77/0"]);
        // Nobody is found there: somebody is, all the same.
        assert_eq!(
            chosen(&host(&[("10.0.0.5", 32)], vec![route("10.9.0.0/16", 3, None)])),
            ["198.18.1.2/32"]
        );
        // A system that tells no routes.
        assert_eq!(chosen(&host(&[("10.0.0.1", 30)], Vec::new())), ["10.0.0.2/30"]);
    }

    #[test]
    fn whoever_is_beyond_is_on_no_network_of_the_host() {
        let gateway = route("0.0.0.0/0", 2, Some("10.0.0.254"));
        let snapshot = host(&[("203.0.113.77", 24)], vec![route("203.0.113.0/24", 2, None), gateway.clone()]);
        let beyond = |snapshot: &Snapshot| Chooser::new(snapshot).beyond(Family::Ipv4);
        let expected = ("198.51.100.77".parse().unwrap(), 2, "10.0.0.254".parse().unwrap());
        assert_eq!(beyond(&snapshot), Some(expected));
        let other = Route { interface: Some(3), ..gateway.clone() };
        assert_eq!(beyond(&host(&[], vec![gateway.clone(), other.clone()])), None, "two ways at once");
        let spare = Route { metric: Some(100), ..other };
        assert_eq!(beyond(&host(&[], vec![spare, gateway])).unwrap().1, 2);
        assert_eq!(beyond(&host(&[], vec![route("0.0.0.0/0", 2, None)])), None, "no gateway");
    }
}
