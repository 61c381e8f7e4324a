//! The copy itself: interfaces, addresses, settings, routes and rules of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Attachment, Builder, COPIED, ETH0, Role, eth0, families, plain};
use crate::lab::ops::{Action, loopback};
use crate::model::{
    AddrState, Family, IfName, Interface, InterfaceAddress, Route, RouteKind, Rule, RuleAction,
};
use crate::sys::{LinkSpec, NewAddress, NewRoute};

impl<'a> Builder<'a> {
    pub(super) fn links(&mut self) {
        for node in 0..self.twin.plan.nodes.len() {
            self.twin.plan.push(node, Action::Up(loopback(), true));
            if node > 0 {
                for own in automatic() {
                    self.twin.plan.push(node, Action::RemoveAddress(loopback(), own));
                }
            }
        }
        let snapshot = self.snapshot;
        let of = |builder: &Builder<'_>, wanted: fn(Role) -> bool| -> Vec<&'a Interface> {
            let all = snapshot.interfaces.iter();
            all.filter(|interface| wanted(builder.role(interface.index))).collect()
        };
        for vrf in of(self, |role| matches!(role, Role::Vrf(_))) {
            let Role::Vrf(table) = self.role(vrf.index) else { continue };
            let link = LinkSpec { mtu: vrf.mtu, ..self.link(vrf) };
            self.twin.plan.push(0, Action::Vrf(link, table));
        }
        for bridge in of(self, |role| role == Role::Bridge) {
            let link = self.link(bridge);
            self.twin.plan.push(0, Action::Bridge(link));
        }
        for interface in of(self, |role| matches!(role, Role::Wire | Role::Pair(_))) {
            let here = self.link(interface);
            let (there, other) = match self.role(interface.index) {
                Role::Pair(other) if other > interface.index => {
                    let Some(other) = snapshot.interface(other) else { continue };
                    (self.link(other), 0)
                }
                Role::Pair(_) => continue,
                _ => {
                    let Some((node, name)) = self.far.get(&interface.index).cloned() else { continue };
                    let mac = self.fresh_mac(0xf, interface.index);
                    let index = (name == eth0()).then_some(ETH0);
                    (LinkSpec { name, mac: Some(mac), mtu: here.mtu, index }, node)
                }
            };
            self.twin.plan.push(0, Action::Wire { here, there: there.clone(), other });
            self.quick(other, &there.name, self.shares_its_link(interface.index));
        }
        for interface in of(self, |role| role != Role::Absent) {
            let master = interface.master.and_then(|master| snapshot.interface(master));
            // What is in a VRF may have to be made still.
            if let Some(master) = master.filter(|master| self.role(master.index) == Role::Bridge) {
                let action = Action::Port(interface.name.clone(), master.name.clone());
                self.twin.plan.push(0, action);
            }
        }
        for interface in of(self, |role| matches!(role, Role::Macvlan(_))) {
            let Role::Macvlan(parent) = self.role(interface.index) else { continue };
            let Some(parent) = snapshot.interface(parent) else { continue };
            let (link, parent) = (self.link(interface), parent.name.clone());
            self.twin.plan.push(0, Action::Macvlan { link, parent, other: None });
        }
        for (index, seat) in self.seats.clone() {
            let place = match seat {
                Attachment::End(_) => continue,
                Attachment::ObservationMerger(wire) => self.far.get(&wire).cloned(),
                Attachment::Here(other) => snapshot.interface(other).map(|other| (0, other.name.clone())),
            };
            let (Some((at, parent)), Some((node, _))) = (place, self.clients.get(&index)) else { continue };
            let (node, mtu) = (*node, snapshot.interface(index).and_then(|one| one.mtu));
            let mac = Some(self.fresh_mac(0xf, index));
            // Where that is looked up in the wrong namespace (measured on 6.1), the one of the parent must have neither name nor index.
            let mut names = (index..).map(|number| IfName::from(format!("mv{number}").as_str()));
            let Some(name) = names.find(|name| snapshot.interface_named(name).is_none()) else { continue };
            let mtu = mtu.map(|mtu| mtu.min(65_535));
            let link = LinkSpec { name: name.clone(), mac, mtu, index: Some(self.zone(index)) };
            self.twin.plan.push(at, Action::Macvlan { link, parent, other: Some(node) });
            self.twin.plan.push(node, Action::Rename(name, eth0()));
            self.quick(node, &eth0(), true);
        }
        for interface in of(self, |role| role != Role::Absent) {
            let master = interface.master.and_then(|master| snapshot.interface(master));
            if let Some(master) = master.filter(|master| matches!(self.role(master.index), Role::Vrf(_))) {
                let action = Action::Port(interface.name.clone(), master.name.clone());
                self.twin.plan.push(0, action);
            }
        }
        self.carriers();
        for interface in of(self, |role| role != Role::Absent) {
            for altname in &interface.altnames {
                let action = Action::AltName(interface.name.clone(), altname.clone());
                self.twin.plan.push(0, action);
            }
        }
    }

    /// A new bridge has a carrier until its first port goes (`br_port_state_selection()`): one without a carrier and without
    /// ports gets a port, and loses it.
    fn carriers(&mut self) {
        let snapshot = self.snapshot;
        let bridges = snapshot.interfaces.iter().filter(|one| {
            let has_port = snapshot.interfaces.iter().any(|port| port.master == Some(one.index));
            self.role(one.index) == Role::Bridge && one.up && !one.running && !has_port
        });
        let bridges: Vec<&Interface> = bridges.collect();
        let mut names = (0..).map(|number| IfName::from(format!("gone{number}").as_str()));
        let mut free = || names.find(|name| snapshot.interface_named(name).is_none());
        for bridge in bridges {
            let (Some(name), Some(end)) = (free(), free()) else { return };
            let spec = |name: &IfName| LinkSpec { name: name.clone(), mac: None, mtu: None, index: None };
            let (here, there) = (spec(&name), spec(&end));
            self.twin.plan.push(0, Action::Wire { here, there, other: 0 });
            self.twin.plan.push(0, Action::Port(name.clone(), bridge.name.clone()));
            self.twin.plan.push(0, Action::Delete(name));
        }
    }

    /// An interface of the host as it is to be made.
    fn link(&mut self, interface: &Interface) -> LinkSpec {
        LinkSpec {
            name: interface.name.clone(),
            mac: Some(self.mac(interface.index)),
            // A veth takes at most that; a tunnel or `lo` may have more.
            mtu: interface.mtu.map(|mtu| mtu.min(65_535)),
            index: Some(interface.index),
        }
    }

    /// Lets an interface give up a neighbour that does not answer soon. One of macvlan hears what is sent to many from a work
    /// queue, which a busy machine lets wait, so it asks more often.
    fn quick(&mut self, node: usize, interface: &IfName, macvlan: bool) {
        self.twin.plan.quick(node, interface);
        let Some(name) = interface.as_str().filter(|_| macvlan) else { return };
        for family in ["ipv4", "ipv6"] {
            self.twin.plan.set(node, format!("net/{family}/neigh/{name}/mcast_solicit"), "15", true);
        }
    }

    pub(super) fn interface_settings(&mut self) {
        for interface in &self.snapshot.interfaces {
            if self.role(interface.index) == Role::Absent && !interface.loopback {
                continue;
            }
            if !interface.loopback {
                self.quick(0, &interface.name, self.shares_its_link(interface.index));
            }
            for name in COPIED {
                let (Some((family, setting)), Some(value)) =
                    (name.split_once('.'), interface.settings.get(*name))
                else {
                    continue;
                };
                match interface.name.as_str() {
                    Some(own) => {
                        let path = format!("net/{family}/conf/{own}/{setting}");
                        self.twin.plan.set(0, path, &value.to_string(), true);
                    }
                    None if *value != 0 => self.skipped(format!(
                        "{name} of {} is not copied: the name is not UTF-8",
                        interface.name
                    )),
                    None => {}
                }
            }
        }
    }

    pub(super) fn addresses(&mut self) {
        for interface in &self.snapshot.interfaces {
            let rank = |address: &InterfaceAddress| address.is(AddrState::Secondary);
            let mut addresses: Vec<&InterfaceAddress> = interface.addresses.iter().collect();
            // The first address of a network becomes its primary one.
            addresses.sort_by_key(|address| rank(address));
            for address in addresses {
                if !(is_automatic(interface, address) || is_unusable(address)) {
                    self.address(interface, address);
                }
            }
            if interface.loopback {
                let has = |net: &IpNet| {
                    interface
                        .addresses
                        .iter()
                        .any(|own| is_automatic(interface, own) && own.address == net.addr())
                };
                for own in automatic().into_iter().filter(|net| !has(net)) {
                    self.twin.plan.push(0, Action::RemoveAddress(interface.name.clone(), own));
                }
            }
        }
    }

    fn address(&mut self, interface: &Interface, address: &InterfaceAddress) {
        if self.role(interface.index) == Role::Absent && !interface.loopback {
            let (address, name) = (address.address, &interface.name);
            self.skipped(format!("{address} of {name} is not copied, as its interface is not"));
            return;
        }
        let Ok(net) = IpNet::new(address.address, address.prefix) else { return };
        let new = NewAddress {
            net,
            duplicate_detection: is_unusable(address),
            optimistic: address.is(AddrState::Optimistic) && address.is(AddrState::Tentative),
            deprecated: address.is(AddrState::Deprecated),
            prefix_route: interface.loopback || self.snapshot.routes.is_empty(),
            broadcast: address.broadcast,
            label: address.label.clone(),
            peer: address.peer,
            scope: address.scope,
        };
        self.twin.plan.push(0, Action::Address(interface.name.clone(), new));
    }

    pub(super) fn up(&mut self) {
        let mut up = Vec::new();
        for interface in &self.snapshot.interfaces {
            // Without a carrier at the far end there is none at this end either.
            if let Some((node, name)) = self.far.get(&interface.index).filter(|_| interface.running) {
                up.push((*node, name.clone()));
            }
            let there = self.role(interface.index) != Role::Absent;
            if interface.up && there && !interface.loopback {
                up.push((0, interface.name.clone()));
            }
        }
        for (index, (node, _)) in &self.clients {
            if !matches!(self.seats.get(index), Some(Attachment::End(_))) {
                up.push((*node, eth0()));
            }
        }
        for action in [|name| Action::Up(name, true), Action::Settle as fn(IfName) -> Action] {
            for (node, name) in &up {
                self.twin.plan.push(*node, action(name.clone()));
            }
        }
    }

    /// Addresses that are being checked for duplicates, and stay so, or were found to be duplicates, and are.
    pub(super) fn unusable_addresses(&mut self) {
        let settled: Vec<usize> = (0..self.twin.plan.nodes.len()).collect();
        let mut waited = false;
        for interface in &self.snapshot.interfaces {
            let (mut checked, mut duplicate): (Vec<_>, Vec<_>) = interface
                .addresses
                .iter()
                .filter(|address| is_unusable(address))
                .partition(|address| !address.is(AddrState::Dadfailed));
            let client = self.clients.get(&interface.index).map(|(node, _)| *node);
            if client.is_none() {
                for address in duplicate.drain(..) {
                    self.skipped(format!(
                        "{} on {}, a duplicate, is kept in duplicate address detection: no client on that link has it",
                        address.address, interface.name
                    ));
                    checked.push(address);
                }
            }
            if let Some(node) = client.filter(|_| !duplicate.is_empty()) {
                if !std::mem::replace(&mut waited, true) {
                    settled.iter().for_each(|node| self.twin.plan.push(*node, Action::Ready));
                }
                self.duplicate_detection(interface, "1");
                for address in &duplicate {
                    self.twin.plan.push(node, Action::Address(eth0(), plain(address.address)));
                }
                self.twin.plan.push(node, Action::Ready);
                for address in &duplicate {
                    self.address(interface, address);
                    let action = Action::Checked(interface.name.clone(), address.address);
                    self.twin.plan.push(0, action);
                    let own = IpNet::from(address.address);
                    self.twin.plan.push(node, Action::RemoveAddress(eth0(), own));
                }
            }
            if !checked.is_empty() {
                if let Some(name) = interface.name.as_str() {
                    self.twin.plan.endless_checks(0, name);
                }
                self.duplicate_detection(interface, "255");
            }
            for address in checked {
                self.address(interface, address);
            }
        }
    }

    /// How often an address that comes is asked for, a second between: of the kernel's own delay nothing is left.
    fn duplicate_detection(&mut self, interface: &Interface, times: &str) {
        let Some(name) = interface.name.as_str() else { return };
        for (setting, value) in [("dad_transmits", times), ("router_solicitation_delay", "0")] {
            self.twin.plan.set(0, format!("net/ipv6/conf/{name}/{setting}"), value, true);
        }
    }

    pub(super) fn routes(&mut self) {
        let mut routes = self.snapshot.routes.iter().peekable();
        while let Some(route) = routes.next() {
            if !matches!(
                route.kind,
                RouteKind::Unicast
                    | RouteKind::Local
                    | RouteKind::Broadcast
                    | RouteKind::Anycast
                    | RouteKind::Multicast
                    | RouteKind::Blackhole
                    | RouteKind::Unreachable
                    | RouteKind::Prohibit
                    | RouteKind::Throw
            ) {
                self.skipped(format!("a route to {} is of a kind that is not known", route.destination));
                continue;
            }
            let Some(mut new) = self.route(route) else { continue };
            while let Some(hop) = routes.next_if(|other| is_next_hop(route, other)) {
                let Some(other) = self.route(hop) else { continue };
                new.more.push((other.via, other.interface, other.weight));
            }
            let again = routes.peek().filter(|other| is_another(route, other));
            if again.is_some() && route.weight.is_none() {
                self.twin.notes.push(format!(
                    "of several routes to {} the first is used; in a snapshot of an earlier version they may have been one that spread packets",
                    route.destination
                ));
            }
            self.twin.plan.push(0, Action::Route(new));
        }
    }

    fn route(&mut self, route: &Route) -> Option<NewRoute> {
        let forwards = !matches!(
            route.kind,
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw
        );
        let interface = match route.interface.filter(|_| forwards) {
            None => None,
            Some(index) => {
                let found = self.snapshot.interface(index);
                let found = found.filter(|found| found.loopback || self.role(index) != Role::Absent);
                if found.is_none() {
                    self.skipped(format!(
                        "the route to {} is not copied, as its interface is not",
                        route.destination
                    ));
                    return None;
                }
                found.map(|found| found.name.clone())
            }
        };
        Some(NewRoute {
            to: route.destination,
            via: route.gateway,
            interface,
            kind: route.kind,
            table: route.table,
            source: route.source,
            metric: route.metric,
            weight: route.weight.unwrap_or(1),
            more: Vec::new(),
            tos: route.tos,
            from: route.from,
            preference: route.preference,
            metrics: route.metrics.clone(),
            copied: true,
        })
    }

    pub(super) fn rules(&mut self) {
        let vrfs = self.roles.values().any(|role| matches!(role, Role::Vrf(_)));
        let mut gone: Vec<Rule> = families(self.snapshot).filter(|_| vrfs).map(rule_of_vrfs).collect();
        for rule in &self.snapshot.rules {
            if let Some(own) = gone.iter().position(|own| own == rule) {
                gone.remove(own);
            } else if match rule.action {
                RuleAction::L3mdev => vrfs,
                RuleAction::Other => false,
                _ => true,
            } {
                self.twin.plan.push(0, Action::Rule(rule.clone()));
            } else {
                self.skipped(format!(
                    "the {} rule with priority {} is not copied: it asks for more than bindscope knows ({})",
                    rule.family, rule.priority, rule.action
                ));
            }
        }
        // The first VRF adds a rule; if it is missing, it was removed.
        for rule in self.snapshot.missing_default_rules.iter().chain(&gone) {
            self.twin.plan.push(0, Action::RemoveRule(rule.clone()));
        }
    }

    pub(super) fn end(&mut self) {
        for node in 0..self.twin.plan.nodes.len() {
            self.twin.plan.push(node, Action::Ready);
        }
        let lo = self.snapshot.interfaces.iter().find(|interface| interface.loopback);
        if let Some(lo) = lo.filter(|lo| !lo.up) {
            self.twin.plan.push(0, Action::Up(lo.name.clone(), false));
        }
    }
}

/// The rule that comes with the first VRF (`vrf_add_fib_rules()`).
fn rule_of_vrfs(family: Family) -> Rule {
    Rule { priority: 1000, action: RuleAction::L3mdev, ..Rule::any(family) }
}

fn is_automatic(interface: &Interface, address: &InterfaceAddress) -> bool {
    let own = IpNet::new(address.address, address.prefix);
    interface.loopback && address.peer.is_none() && own.is_ok_and(|own| automatic().contains(&own))
}

/// Whether an address waits for, or failed, duplicate address detection.
fn is_unusable(address: &InterfaceAddress) -> bool {
    let tentative = address.is(AddrState::Tentative) && !address.is(AddrState::Optimistic);
    address.address.is_ipv6() && (tentative || address.is(AddrState::Dadfailed))
}

/// Whether `other` is a further next hop of `route`.
fn is_next_hop(route: &Route, other: &Route) -> bool {
    let key = |route: &Route| {
        let packets = (route.destination, route.tos, route.from);
        (route.table, packets, route.metric, route.source, route.kind, route.nexthop)
    };
    key(route) == key(other) && route.weight.is_some() && other.weight.is_some()
}

/// Whether `other` is a route of its own that IPv4 never takes, as `route` is asked first.
fn is_another(route: &Route, other: &Route) -> bool {
    let key = |route: &Route| (route.table, route.destination, route.tos, route.metric.unwrap_or(0));
    route.destination.addr().is_ipv4()
        && key(route) == key(other)
        && route.gateway.is_some()
        && other.gateway.is_some()
}

/// The addresses that the kernel gives to `lo`.
fn automatic() -> [IpNet; 2] {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8);
    [IpNet::from(v4), IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))]
}
