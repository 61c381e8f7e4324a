//! Clients of the host: on its links, and beyond.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Attachment, Builder, Role, eth0, families, plain};
use crate::lab::ops::Action;
use crate::model::addr::needs_zone;
use crate::model::{Family, IfName};
use crate::plan::clients::Addresses;
use crate::sys::{LinkSpec, NewAddress, NewRoute};

impl Builder<'_> {
    /// Whether other interfaces of the host may be on the same link, such as a macvlan interface and its parent. Each
    /// then answers ARP for the other, and the first reply is used.
    pub(super) fn shares_its_link(&self, index: u32) -> bool {
        let on = |role: &Role| *role == Role::Macvlan(index);
        let beside =
            matches!(self.seats.get(&index), Some(Attachment::ObservationMerger(_) | Attachment::Here(_)));
        // The other ends of its ports.
        let bridged = || {
            let ports = self.snapshot.interfaces.iter().filter(|port| port.master == Some(index));
            ports.into_iter().any(|port| matches!(self.role(port.index), Role::Pair(_)))
        };
        matches!(self.role(index), Role::Macvlan(_)) || beside || self.roles.values().any(on) || bridged()
    }

    /// The addresses of every client on a link.
    pub(super) fn peers(&mut self) {
        for (index, (node, Addresses { own, gateways, .. })) in &self.clients {
            let shares = self.shares_its_link(*index);
            let gateways = gateways.iter().filter(|gateway| !own.iter().any(|net| net.addr() == **gateway));
            for net in own.iter().copied().chain(gateways.map(|gateway| IpNet::from(*gateway))) {
                let alone = shares && !needs_zone(net.addr());
                let net = if alone { IpNet::from(net.addr()) } else { net };
                if families(self.snapshot).any(|family| family == Family::of(net.addr())) {
                    let address = NewAddress { net, prefix_route: !alone, ..plain(net.addr()) };
                    self.twin.plan.push(*node, Action::Address(eth0(), address));
                }
            }
        }
    }

    /// A client on a link sends every packet over it to the host, through an address that the host has there, found
    /// like any neighbour. If the host has none, or several interfaces would answer, the link-layer address is set
    /// explicitly. The same applies to link-local addresses of other links, which neighbour discovery could not find.
    pub(super) fn ways_of_peers(&mut self) {
        let clients: Vec<(u32, usize, Addresses)> =
            self.clients.iter().map(|(index, (node, own))| (*index, *node, own.clone())).collect();
        let elsewhere = |wire: u32| {
            let others = self.snapshot.interfaces.iter().filter(move |other| other.index != wire);
            let all: BTreeSet<IpAddr> = others
                .flat_map(|other| &other.addresses)
                .map(|own| own.address)
                .filter(|address| needs_zone(*address))
                .collect();
            all
        };
        let ways: Vec<(u32, usize, Addresses, BTreeSet<IpAddr>)> = clients
            .into_iter()
            .map(|(index, node, own)| {
                let mut others = elsewhere(index);
                let here = self.snapshot.interface(index).into_iter().flat_map(|wire| &wire.addresses);
                for own in here {
                    others.remove(&own.address);
                }
                (index, node, own, others)
            })
            .collect();
        for (index, node, Addresses { own, by_way_of: by, .. }, others) in ways {
            let mac = self.mac(index);
            let shares = self.shares_its_link(index);
            let plan = &mut self.twin.plan;
            for (family, by) in families(self.snapshot).zip(by) {
                let given = hop(family);
                plan.push(node, Action::Neighbour(eth0(), given, mac));
                let source = own.first().map(|net| net.addr()).filter(|_| family == Family::Ipv4);
                let default =
                    by_way_of(everywhere(family), by.filter(|_| !shares).or(Some(given)), &eth0(), source);
                plan.push(node, Action::Route(default));
                // On a link that is shared its addresses stand alone: each is the source towards its network.
                let networks = own.iter().filter(|net| {
                    shares && Family::of(net.addr()) == family && net.prefix_len() < net.max_prefix_len()
                });
                for net in networks.filter(|net| !needs_zone(net.addr())) {
                    let route = by_way_of(net.trunc(), Some(given), &eth0(), Some(net.addr()));
                    plan.push(node, Action::Route(route));
                }
                for &other in others.iter().filter(|_| family == Family::Ipv6) {
                    plan.push(node, Action::Route(by_way_of(IpNet::from(other), Some(given), &eth0(), None)));
                }
            }
        }
    }

    /// The client beyond the default route: the client on its link is the gateway.
    pub(super) fn beyond(&mut self) {
        let Some(beyond) = self.twin.beyond else { return };
        let mut ways: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for (address, interface, _) in self.ways_out().into_iter().flatten() {
            ways.entry(interface).or_default().push(address);
        }
        for (number, (interface, addresses)) in ways.into_iter().enumerate() {
            let Some(router) = self.clients.get(&interface).map(|(node, _)| *node) else { continue };
            let (inside, outside) = (IfName::from("up0"), IfName::from(format!("eth{number}").as_str()));
            let (near, far) = (self.fresh_mac(0xd, interface), self.fresh_mac(0xc, interface));
            let spec =
                |name: &IfName, mac| LinkSpec { name: name.clone(), mac: Some(mac), mtu: None, index: None };
            let (here, there) = (spec(&inside, near), spec(&outside, far));
            let plan = &mut self.twin.plan;
            plan.push(router, Action::Wire { here, there, other: beyond.node });
            for up in [|name| Action::Up(name, true), Action::Settle as fn(IfName) -> Action] {
                plan.push(router, up(inside.clone()));
                plan.push(beyond.node, up(outside.clone()));
            }
            for address in addresses {
                plan.push(beyond.node, Action::Address(outside.clone(), plain(address)));
                plan.push(router, Action::Neighbour(inside.clone(), address, far));
                plan.push(router, Action::Route(by_way_of(IpNet::from(address), None, &inside, None)));
                let (hop, everywhere) = (hop(Family::of(address)), everywhere(Family::of(address)));
                plan.push(beyond.node, Action::Neighbour(outside.clone(), hop, near));
                let route = by_way_of(everywhere, Some(hop), &outside, Some(address));
                plan.push(beyond.node, Action::Route(route));
            }
        }
    }
}

fn by_way_of(to: IpNet, via: Option<IpAddr>, interface: &IfName, source: Option<IpAddr>) -> NewRoute {
    NewRoute { via, interface: Some(interface.clone()), source, copied: true, ..NewRoute::to(to) }
}

/// A next hop with a fixed link-layer address, so that every packet is sent on the link. No host has the address.
fn hop(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(169, 254, 255, 254)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xfffe)),
    }
}

/// The default route's destination.
fn everywhere(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::from(Ipv4Net::default()),
        Family::Ipv6 => IpNet::from(Ipv6Net::default()),
    }
}
