//! Clients of a host: which addresses a client on a link has, and one beyond the routers of a link. Pure.
//!
//! A snapshot does not list the neighbours of a host, so addresses are chosen: on the link, and not the host's own. A plan predicts
//! for them, and a twin gives them to its nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::fib::TABLE_MAIN;
use super::local_table::{Ipv4Kind, LocalAddresses};
use crate::model::addr::needs_zone;
use crate::model::{AddrClass, AddrState, Family, Interface, InterfaceAddress, Route, RouteKind, Snapshot};

/// How many networks of an interface its neighbour is in, per family.
const MOST_NETWORKS: usize = 4;
/// How many addresses of a network are tried at either end.
const TRIED: u32 = 64;

/// Addresses of documentation and benchmarks (RFC 5737, RFC 2544), for clients that are on no network of the host.
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

/// The addresses of a client on a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Its addresses with the networks that it shares with the host: IPv4 first, of which there is always one, and the one it
    /// sends from before others; the link-local one last.
    pub own: Vec<IpNet>,
    /// The host's addresses that it sends packets by for other destinations, IPv4 first: `None` where the host has none on the link.
    pub by_way_of: [Option<IpAddr>; 2],
    /// Gateways of the host's routes over the interface: the client answers for them too.
    pub gateways: Vec<IpAddr>,
}

impl Addresses {
    /// The narrowest network that the client shares with the host and that contains `to`.
    #[must_use]
    pub fn shared(&self, to: IpAddr) -> Option<IpNet> {
        let own = self.own.iter().copied();
        own.filter(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&to))
            .min_by_key(|net| std::cmp::Reverse(net.prefix_len()))
    }

    /// The address that the client sends from to `to` (`fib_result_prefsrc()`; RFC 6724, section 5, rules 2, 6 and 8).
    #[must_use]
    pub fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let own = self.own.iter().filter(|net| net.addr().is_ipv4() == to.is_ipv4());
        match to {
            IpAddr::V4(_) => {
                let first = own.clone().next().map(|net| net.addr());
                self.shared(to).map(|net| net.addr()).or(first)
            }
            IpAddr::V6(to6) => {
                let link = needs_zone(to);
                let rank = |net: &&IpNet| {
                    let common = match net.addr() {
                        IpAddr::V6(own) => (u128::from(own) ^ u128::from(to6)).leading_zeros(),
                        IpAddr::V4(_) => 0,
                    };
                    let label = AddrClass::of(net.addr()) == AddrClass::of(to);
                    (needs_zone(net.addr()) == link, label, common.min(u32::from(net.prefix_len())))
                };
                own.max_by_key(rank).map(|net| net.addr())
            }
        }
    }
}

/// Chooses addresses of clients of one host.
pub struct Clients<'a> {
    snapshot: &'a Snapshot,
    local: &'a LocalAddresses,
}

impl<'a> Clients<'a> {
    /// For the host that `snapshot` is of; `local` is its addresses.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, local: &'a LocalAddresses) -> Clients<'a> {
        Clients { snapshot, local }
    }

    /// The route of a table that a packet of the host takes, policy rules apart.
    fn route_in(&self, table: u32, to: IpAddr) -> Option<&'a Route> {
        let routes = self.snapshot.routes.iter().filter(|route| {
            let kinds =
                [RouteKind::Unicast, RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit];
            let all = route.tos == 0 && route.from.is_none() && !route.dead;
            all && route.table == table && kinds.contains(&route.kind) && route.destination.contains(&to)
        });
        // The first of the best.
        routes.reduce(|best, other| {
            let key = |route: &Route| {
                (route.destination.prefix_len(), std::cmp::Reverse(route.metric.unwrap_or(0)))
            };
            if key(other) > key(best) { other } else { best }
        })
    }

    /// Whether the address is none of the host's.
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

    /// Whether the host finds the address on the link of `interface`, policy rules apart.
    fn is_on_link(&self, interface: u32, address: IpAddr) -> bool {
        if self.snapshot.routes.is_empty() {
            return true;
        }
        let route = self.route_in(self.table_of(interface), address);
        route.is_some_and(|route| {
            route.kind == RouteKind::Unicast && route.gateway.is_none() && route.interface == Some(interface)
        })
    }

    /// The networks on the link of an interface: those of its addresses, which its neighbours are in whatever the routes of the host
    /// are, then those of its routes without a gateway.
    fn networks(&self, interface: &Interface, family: Family) -> Vec<IpNet> {
        let whole = if family == Family::Ipv4 { 32 } else { 128 };
        let of_addresses = interface.addresses.iter().filter(|own| own.prefix < whole).filter_map(|own| {
            IpNet::new(own.peer.unwrap_or(own.address), own.prefix).ok().map(|net| net.trunc())
        });
        let mut own: Vec<IpNet> =
            of_addresses.filter(|net| Family::of(net.addr()) == family && !is_special(*net)).collect();
        own.sort_by_key(|net| (std::cmp::Reverse(net.prefix_len()), *net));
        own.dedup();
        let routes = self.snapshot.routes.iter().filter(|route| {
            route.kind == RouteKind::Unicast
                && route.gateway.is_none()
                && route.interface == Some(interface.index)
        });
        let mut others: Vec<IpNet> = routes.map(|route| route.destination).collect();
        others.retain(|net| {
            Family::of(net.addr()) == family
                && !is_special(*net)
                && own
                    .binary_search_by_key(&(std::cmp::Reverse(net.prefix_len()), *net), |net| {
                        (std::cmp::Reverse(net.prefix_len()), *net)
                    })
                    .is_err()
        });
        let holds = |net: &IpNet| interface.addresses.iter().any(|address| net.contains(&address.address));
        others.sort_by_cached_key(|net| (!holds(net), std::cmp::Reverse(net.prefix_len()), *net));
        others.dedup();
        own.extend(others);
        own
    }

    /// The addresses of a client on the link of `interface`.
    #[must_use]
    pub fn on_link(&self, interface: &Interface) -> Addresses {
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
            let before = own.len();
            for net in self.networks(interface, family) {
                // A network within another one has a client of its own.
                let taken: Vec<IpAddr> = own.iter().map(IpNet::addr).collect();
                own.extend(self.neighbour(interface, net, &gateways, &taken));
                if own.len() == before + MOST_NETWORKS {
                    break;
                }
            }
            if own.is_empty() {
                let gateway = gateways.iter().find(|gateway| gateway.is_ipv4());
                let alone = gateway.copied().unwrap_or_else(|| IpAddr::V4(self.nowhere(interface.index)));
                own.push(IpNet::from(alone));
            }
        }
        // A client on the same link by another interface has another one.
        let [high, low] = [interface.index >> 16, interface.index & 0xffff]
            .map(|half| u16::try_from(half).unwrap_or_default());
        let link_local = (0..u16::MAX)
            .map(|number| IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xb5, number, high, low)))
            .find(|address| !self.local.has_address(*address) && !gateways.contains(address));
        own.extend(link_local.and_then(|address| IpNet::new(address, 64).ok()));
        let by_way_of = Family::BOTH.map(|family| way_in(interface, family, &own));
        Addresses { own, by_way_of, gateways }
    }

    /// An address of a network on the link of `interface`, with the network where the host has an address of it too.
    fn neighbour(
        &self,
        interface: &Interface,
        net: IpNet,
        gateways: &[IpAddr],
        taken: &[IpAddr],
    ) -> Option<IpNet> {
        let mut candidates = candidates(net);
        candidates
            .retain(|address| self.is_free_on(*address, Some(interface.index)) && !taken.contains(address));
        let shared = interface.addresses.iter().any(|own| net.contains(&own.address));
        // One that the host finds there is chosen before others, and a gateway where there is no other.
        let rank =
            |address: &&IpAddr| (!self.is_on_link(interface.index, **address), gateways.contains(address));
        let best =
            |address: &&IpAddr| !gateways.contains(address) && self.is_on_link(interface.index, **address);
        let address = *candidates.iter().find(best).or_else(|| candidates.iter().min_by_key(rank))?;
        if !shared && !self.is_on_link(interface.index, address) {
            return None;
        }
        IpNet::new(address, if shared { net.prefix_len() } else { net.max_prefix_len() }).ok()
    }

    /// An address for a client on a link on which the host finds no IPv4 address.
    fn nowhere(&self, index: u32) -> Ipv4Addr {
        let start = u32::from(Ipv4Addr::new(198, 18, 1, 0)) + (index & 0xffff);
        (0..1 << 16)
            .map(|step| Ipv4Addr::from(start + step))
            .find(|address| self.is_free(IpAddr::V4(*address)))
            .unwrap_or(Ipv4Addr::from(start))
    }

    /// The address of a client beyond the routers of `interface`, and the router: of the widest route that has a gateway there.
    /// `None` where there is no router.
    #[must_use]
    pub fn beyond(&self, interface: &Interface, family: Family) -> Option<(IpAddr, IpAddr)> {
        let routes = self.snapshot.routes.iter().filter(|route| {
            route.kind == RouteKind::Unicast
                && route.interface == Some(interface.index)
                && !route.dead
                && Family::of(route.destination.addr()) == family
        });
        let with_gateway = routes.filter_map(|route| Some((route, route.gateway?)));
        let (route, gateway) = with_gateway.min_by_key(|(route, _)| {
            (route.destination.prefix_len(), route.table != TABLE_MAIN, route.metric.unwrap_or(0))
        })?;
        let mut candidates = candidates(route.destination);
        candidates.retain(|address| self.is_free_on(*address, Some(interface.index)));
        // One that no narrower route and no rule names, where there is one.
        let named = |address: &&IpAddr| {
            let narrower = self.snapshot.routes.iter().any(|other| {
                other.destination.prefix_len() > route.destination.prefix_len()
                    && other.destination.contains(*address)
            });
            let ruled = self
                .snapshot
                .rules
                .iter()
                .any(|rule| rule.to.is_some_and(|to| to.prefix_len() > 0 && to.contains(*address)));
            (narrower, ruled)
        };
        let plain = candidates.iter().find(|address| named(address) == (false, false));
        Some((*plain.or_else(|| candidates.iter().min_by_key(named))?, gateway))
    }
}

impl Clients<'_> {
    /// A client beyond the default route of the table `main`, the interface and the router. `None` where there is no such route with a
    /// router, or several that packets are spread over.
    #[must_use]
    pub fn beyond_default(&self, family: Family) -> Option<(IpAddr, u32, IpAddr)> {
        let outside: Vec<IpAddr> = match family {
            Family::Ipv4 => OUTSIDE4.map(IpAddr::V4).to_vec(),
            Family::Ipv6 => OUTSIDE6.map(IpAddr::V6).to_vec(),
        };
        let free = outside.into_iter().filter(|address| self.is_free(*address));
        let route = free.filter_map(|address| self.route_in(TABLE_MAIN, address)).find(|route| {
            let same = self.snapshot.routes.iter().filter(|other| {
                (other.table, other.destination, other.metric)
                    == (route.table, route.destination, route.metric)
            });
            route.destination.prefix_len() == 0
                && route.kind == RouteKind::Unicast
                && route.gateway.is_some()
                && same.count() == 1
        })?;
        let interface = self.snapshot.interface(route.interface?)?;
        let (client, _) = self.beyond(interface, family)?;
        Some((client, interface.index, route.gateway?))
    }
}

/// The address by which a client with these addresses sends packets to the host: one of a shared network before others, and one
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
        // In half the Internet no address is more likely than another, so an unused one is chosen.
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
    use crate::model::{IfName, InterfaceAddress, LinkKind};

    fn interface(index: u32, name: &str, addresses: &[(&str, u8)]) -> Interface {
        let addresses = addresses.iter().map(|&(text, prefix)| {
            let address: IpAddr = text.parse().unwrap();
            InterfaceAddress::new(address, prefix)
        });
        Interface {
            up: true,
            running: true,
            multicast: true,
            kind: Some(LinkKind::Veth),
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
        let local = LocalAddresses::new(snapshot);
        let found = Clients::new(snapshot, &local).on_link(&snapshot.interfaces[0]);
        let own = found.own.iter().filter(|net| !needs_zone(net.addr()));
        own.map(ToString::to_string).collect()
    }

    #[test]
    fn a_neighbour_is_on_link_and_has_a_free_address() {
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
        // The host's routes lead to no client there, but there is one.
        assert_eq!(
            chosen(&host(&[("10.0.0.5", 32)], vec![route("10.9.0.0/16", 3, None)])),
            ["198.18.1.2/32"]
        );
        // A system that tells no routes.
        assert_eq!(chosen(&host(&[("10.0.0.1", 30)], Vec::new())), ["10.0.0.2/30"]);
    }

    #[test]
    fn a_client_beyond_is_on_no_network_of_the_host() {
        let gateway = route("0.0.0.0/0", 2, Some("10.0.0.254"));
        let snapshot = host(&[("203.0.113.77", 24)], vec![route("203.0.113.0/24", 2, None), gateway.clone()]);
        let beyond = |snapshot: &Snapshot| {
            let local = LocalAddresses::new(snapshot);
            Clients::new(snapshot, &local).beyond(&snapshot.interfaces[0], Family::Ipv4)
        };
        let expected = ("198.51.100.77".parse().unwrap(), "10.0.0.254".parse().unwrap());
        assert_eq!(beyond(&snapshot), Some(expected));
        let other = Route { interface: Some(3), ..gateway };
        assert_eq!(beyond(&host(&[], vec![other])), None, "the router is on another link");
        assert_eq!(beyond(&host(&[], vec![route("0.0.0.0/0", 2, None)])), None, "no gateway");
        let inner = route("10.9.0.0/16", 2, Some("10.0.0.254"));
        assert_eq!(beyond(&host(&[], vec![inner])).unwrap().0.to_string(), "10.9.0.1");
    }
}
