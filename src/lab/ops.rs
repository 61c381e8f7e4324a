//! The ordered operations that build a topology. Pure: a dry run shows exactly what is done.
//!
//! The order matters: settings that interfaces inherit come before the interfaces, addresses before their interface is
//! up, routes after it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::path::Segments;
use crate::model::ruleset::Ruleset;
use crate::model::topology::{
    Bridge, End, Event, LabAddress, LabRule, LinkChange, Node, Topology, setting_path,
};
use crate::model::{IfName, Protocol, RouteKind, Rule};
use crate::sys::{LinkSpec, NewAddress, NewRoute};

/// One step. Nodes are indexes into [`Plan::nodes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The node.
    pub node: usize,
    /// The operation.
    pub action: Action,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create the namespace.
    Namespace,
    /// Write a setting, by its path below `/proc/sys`.
    Setting {
        /// The path.
        path: String,
        /// The value.
        value: String,
        /// Whether a kernel without this setting is acceptable.
        optional: bool,
    },
    /// Create a link to another node.
    Wire {
        /// The end in this node.
        here: LinkSpec,
        /// The end in the other one.
        there: LinkSpec,
        /// The other node.
        other: usize,
    },
    /// Create a bridge.
    Bridge(LinkSpec),
    /// Create a VRF with a routing table.
    Vrf(LinkSpec, u32),
    /// Create a macvlan interface on the link of another one.
    Macvlan {
        /// The interface.
        link: LinkSpec,
        /// The parent interface in this node.
        parent: IfName,
        /// The node that gets it, if not this one.
        other: Option<usize>,
    },
    /// Attach an interface to a bridge or a VRF.
    Port(IfName, IfName),
    /// Remove an interface.
    Delete(IfName),
    /// Add an address to an interface.
    Address(IfName, NewAddress),
    /// Remove an address.
    RemoveAddress(IfName, ipnet::IpNet),
    /// Set an interface up or down.
    Up(IfName, bool),
    /// Rename an interface.
    Rename(IfName, IfName),
    /// Give an interface an alternative name.
    AltName(IfName, IfName),
    /// Add a route.
    Route(NewRoute),
    /// Add a policy rule.
    Rule(Rule),
    /// Remove a policy rule.
    RemoveRule(Rule),
    /// Add a permanent neighbour entry.
    Neighbour(IfName, IpAddr, [u8; 6]),
    /// Make the kernel notice that an interface works.
    Settle(IfName),
    /// Wait until duplicate address detection of an address has ended, with either result.
    Checked(IfName, IpAddr),
    /// Wait until every address can be used.
    Ready,
    /// Remove neighbour entries, so that results do not depend on earlier connections.
    ForgetNeighbours,
    /// Add a rule of nft(8) to the chain `input`.
    Filter(String),
    /// Replay the rules of packet filters that were read on another host.
    Ruleset(Arc<Ruleset>),
}

/// The operations for a topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// The node that has the listeners.
    pub host: usize,
    /// Operations that build it, in order.
    pub operations: Vec<Operation>,
    /// Operations of each event, in order.
    pub events: Vec<Vec<Operation>>,
    /// Whether it is a copy of another host: what the kernel refuses to copy is left out and reported.
    pub copies: bool,
    /// Whether it is a copy of this machine, so that a command can read here what is copied.
    pub of_this_machine: bool,
    /// Sockets that stand in for the targets of address translation, with their nodes.
    pub stand_ins: Vec<StandIn>,
}

/// A socket outside of the host that answers in place of a program to which address translation leads, such as one in a
/// container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StandIn {
    /// The node.
    pub node: usize,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
}

/// Settings that affect results, for every node: a new namespace may inherit them from the machine
/// (`net.core.devconf_inherit_init_net`). The last group keeps a lab fast and its refusals reliable.
const SETTINGS: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/lo/rp_filter", "0"),
    ("net/ipv4/conf/all/arp_ignore", "0"),
    ("net/ipv4/conf/default/arp_ignore", "0"),
    ("net/ipv4/conf/all/arp_filter", "0"),
    ("net/ipv4/conf/default/arp_filter", "0"),
    ("net/ipv4/conf/all/accept_local", "0"),
    ("net/ipv4/conf/default/accept_local", "0"),
    ("net/ipv4/conf/all/route_localnet", "0"),
    ("net/ipv4/conf/default/route_localnet", "0"),
    ("net/ipv4/ip_nonlocal_bind", "0"),
    ("net/ipv4/ip_unprivileged_port_start", "1024"),
    ("net/ipv6/bindv6only", "0"),
    ("net/ipv6/ip_nonlocal_bind", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // No link-local address from the kernel: those of a lab exist immediately and are known in advance.
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/ipv6/icmp/ratelimit", "0"),
];

/// Settings of each interface: a neighbour that does not answer is given up after 150 ms instead of 3 s.
const NEIGHBOUR: &[(&str, &str)] = &[("retrans_time_ms", "50"), ("mcast_solicit", "3")];

/// The operations that build `topology`.
#[must_use]
pub fn plan(topology: &Topology) -> Plan {
    let nodes = topology.all_nodes();
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let host = topology.host_node().and_then(|host| names.iter().position(|name| *name == host)).unwrap_or(0);
    let mut plan = Plan { nodes: names, host, ..Plan::default() };
    for (index, node) in nodes.iter().enumerate() {
        plan.push(index, Action::Namespace);
        plan.settings_of(index, node);
    }
    for (index, node) in nodes.iter().enumerate() {
        plan.push(index, Action::Up(loopback(), true));
        for address in &node.loopback {
            plan.address(index, &loopback(), *address, false);
        }
    }
    plan.links(topology);
    plan.own_settings(&nodes, true);
    plan.addresses(topology);
    plan.up(topology);
    for route in &topology.routes {
        let (Some(node), Some(to)) = (plan.index(&route.node), route.destination()) else { continue };
        let interface = route.interface.clone().or_else(|| route.local.then(loopback));
        let (kind, main) = if route.local { (RouteKind::Local, 255) } else { (route.kind, 254) };
        let table = route.table.unwrap_or(main);
        let (via, source, metric) = (route.via, route.source, route.metric);
        let route = NewRoute { via, interface, kind, table, source, metric, ..NewRoute::to(to) };
        plan.push(node, Action::Route(route));
    }
    for LabRule { node, rule } in &topology.rules {
        if let Some(node) = plan.index(node) {
            plan.push(node, Action::Rule(rule.clone()));
        }
    }
    for (node, interface) in interfaces_up(topology) {
        if let Some(node) = plan.index(&node) {
            plan.push(node, Action::Settle(interface));
        }
    }
    plan.wait_for_checks();
    for node in 0..plan.nodes.len() {
        plan.push(node, Action::Ready);
    }
    for filter in &topology.filters {
        if let Some(node) = plan.index(&filter.node) {
            plan.push(node, Action::Filter(filter.rule.clone()));
        }
    }
    plan.events = topology.events.iter().map(|event| plan.event(event)).collect();
    plan
}

pub(super) fn loopback() -> IfName {
    IfName::from("lo")
}

impl Plan {
    pub(super) fn push(&mut self, node: usize, action: Action) {
        self.operations.push(Operation { node, action });
    }

    /// Waits for addresses in duplicate address detection that do not stay tentative, so that results do not depend on
    /// timing.
    fn wait_for_checks(&mut self) {
        let endless = |node: usize, interface: &IfName| {
            let path = format!("net/ipv6/conf/{interface}/dad_transmits");
            self.operations.iter().any(|operation| {
                operation.node == node
                    && matches!(&operation.action, Action::Setting { path: set, .. } if *set == path)
            })
        };
        let is_up = |node: usize, interface: &IfName| {
            let up = Action::Up(interface.clone(), true);
            self.operations.iter().any(|operation| operation.node == node && operation.action == up)
        };
        let checked = self.operations.iter().filter_map(|operation| match &operation.action {
            Action::Address(interface, new) if new.duplicate_detection && new.net.addr().is_ipv6() => {
                let waits = is_up(operation.node, interface) && !endless(operation.node, interface);
                waits.then(|| (operation.node, Action::Checked(interface.clone(), new.net.addr())))
            }
            _ => None,
        });
        let checked: Vec<(usize, Action)> = checked.collect();
        for (node, action) in checked {
            self.push(node, action);
        }
    }

    /// The number of addresses at which the host node can be tested, before and after events: those of the plan, `127.0.0.1`,
    /// `::1`, and the destinations that only its own clients can use.
    #[must_use]
    pub fn addresses_of_host(&self) -> usize {
        const OF_EVERY_HOST: usize = 5;
        let all = self.operations.iter().chain(self.events.iter().flatten());
        let added = |one: &&Operation| one.node == self.host && matches!(one.action, Action::Address(..));
        OF_EVERY_HOST + all.filter(added).count()
    }

    /// The index of a node.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node == name)
    }

    /// Writes a setting of the host node, by its dotted name; that it does not exist is no failure.
    pub fn set_on_host(&mut self, name: &str, value: &str) {
        if let Some(path) = setting_path(name) {
            self.set(self.host, path, value, true);
        }
    }

    pub(super) fn set(&mut self, node: usize, path: String, value: &str, optional: bool) {
        self.push(node, Action::Setting { path, value: value.to_owned(), optional });
    }

    pub(super) fn settings_of(&mut self, index: usize, node: &Node) {
        for (path, value) in SETTINGS {
            self.set(index, (*path).to_owned(), value, true);
        }
        let forwarding = if node.forwarding { "1" } else { "0" };
        for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            self.set(index, path.to_owned(), forwarding, true);
        }
        self.own_settings_of(index, node, false);
    }

    fn own_settings(&mut self, nodes: &[Node], of_interfaces: bool) {
        for (index, node) in nodes.iter().enumerate() {
            self.own_settings_of(index, node, of_interfaces);
        }
    }

    /// The settings of the topology; settings of interfaces are written only after the interfaces exist.
    fn own_settings_of(&mut self, index: usize, node: &Node, of_interfaces: bool) {
        for (name, value) in &node.sysctl {
            let Some(path) = setting_path(name) else { continue };
            if is_of_interface(&path) == of_interfaces {
                self.set(index, path, value, false);
            }
        }
    }

    fn links(&mut self, topology: &Topology) {
        for (number, bridge) in topology.bridges.iter().enumerate() {
            if let Some(node) = self.index(&bridge.node) {
                self.push(
                    node,
                    Action::Bridge(LinkSpec { mtu: None, ..spec(&bridge.interface, 0xb, number, 1) }),
                );
                self.quick(node, &bridge.interface);
            }
        }
        for (number, link) in topology.links.iter().enumerate() {
            let (Some(a), Some(b)) = (self.index(&link.a.node), self.index(&link.b.node)) else { continue };
            let here = LinkSpec { mtu: link.a.mtu, ..spec(&link.a.interface, 0, number, 1) };
            let there = LinkSpec { mtu: link.b.mtu, ..spec(&link.b.interface, 0, number, 2) };
            self.push(a, Action::Wire { here, there, other: b });
            self.quick(a, &link.a.interface);
            self.quick(b, &link.b.interface);
            for (node, end) in [(a, &link.a), (b, &link.b)] {
                if let Some(bridge) = &end.bridge {
                    self.push(node, Action::Port(end.interface.clone(), bridge.clone()));
                }
            }
        }
        for (number, macvlan) in topology.macvlans.iter().enumerate() {
            if let Some(node) = self.index(&macvlan.node) {
                let link = spec(&macvlan.interface, 0xc, number, 1);
                self.push(node, Action::Macvlan { link, parent: macvlan.parent.clone(), other: None });
                self.quick(node, &macvlan.interface);
            }
        }
    }

    /// Shortens the time after which an interface gives up on a neighbour that does not answer.
    pub(super) fn quick(&mut self, node: usize, interface: &IfName) {
        let Some(name) = interface.as_str() else { return };
        for (family, (setting, value)) in ["ipv4", "ipv6"]
            .into_iter()
            .flat_map(|family| NEIGHBOUR.iter().map(move |setting| (family, *setting)))
        {
            self.set(node, format!("net/{family}/neigh/{name}/{setting}"), value, true);
        }
    }

    /// Extends duplicate address detection to two minutes. The kernel counts its probes in a byte (`dad_probes` of
    /// `net/if_inet6.h`), and waits between them as long as for a neighbour.
    pub(super) fn endless_checks(&mut self, node: usize, name: &str) {
        self.set(node, format!("net/ipv6/conf/{name}/dad_transmits"), "255", true);
        for (setting, value) in [("retrans_time_ms", "500"), ("mcast_solicit", "1")] {
            self.set(node, format!("net/ipv6/neigh/{name}/{setting}"), value, true);
        }
    }

    fn addresses(&mut self, topology: &Topology) {
        for (number, link) in topology.links.iter().enumerate() {
            for (end, side) in [(&link.a, 1), (&link.b, 2)] {
                let own = if link.link_local && end.bridge.is_none() && end.carries_ipv6() {
                    link_local(0, number, side, &end.addresses)
                } else {
                    None
                };
                self.addresses_of(&end.node, &end.interface, &end.addresses, own, link.dad);
            }
        }
        for (number, Bridge { node, interface, addresses, link_local: own }) in
            topology.bridges.iter().enumerate()
        {
            let own = own.then(|| link_local(0xb, number, 1, addresses)).flatten();
            self.addresses_of(node, interface, addresses, own, false);
        }
        for (number, macvlan) in topology.macvlans.iter().enumerate() {
            let own = macvlan.link_local.then(|| link_local(0xc, number, 1, &macvlan.addresses)).flatten();
            self.addresses_of(&macvlan.node, &macvlan.interface, &macvlan.addresses, own, false);
        }
    }

    fn addresses_of(
        &mut self,
        node: &str,
        interface: &IfName,
        addresses: &[LabAddress],
        own: Option<LabAddress>,
        dad: bool,
    ) {
        let Some(node) = self.index(node) else { return };
        if addresses.iter().any(|address| address.tentative)
            && let Some(name) = interface.as_str()
        {
            self.endless_checks(node, name);
        }
        for address in addresses.iter().copied().chain(own) {
            self.address(node, interface, address, dad);
        }
    }

    fn address(&mut self, node: usize, interface: &IfName, address: LabAddress, dad: bool) {
        self.push(node, Action::Address(interface.clone(), new_address(address, dad)));
    }

    fn up(&mut self, topology: &Topology) {
        for (node, interface) in interfaces_up(topology) {
            if let Some(node) = self.index(&node) {
                self.push(node, Action::Up(interface, true));
            }
        }
    }

    fn event(&self, event: &Event) -> Vec<Operation> {
        let node = event.node.as_deref().and_then(|name| self.index(name)).unwrap_or(self.host);
        let mut actions = Vec::new();
        if let Some(interface) = &event.interface {
            match event.link {
                Some(LinkChange::Down) => actions.push(Action::Up(interface.clone(), false)),
                Some(LinkChange::Up) => {
                    actions.push(Action::Up(interface.clone(), true));
                    actions.push(Action::Settle(interface.clone()));
                }
                None => {}
            }
            if let Some(address) = event.add {
                let new = new_address(address, false);
                let checked = new.duplicate_detection && !address.tentative && new.net.addr().is_ipv6();
                actions.push(Action::Address(interface.clone(), new));
                if checked {
                    actions.push(Action::Checked(interface.clone(), address.net.addr()));
                }
            }
            if let Some(net) = event.remove {
                actions.push(Action::RemoveAddress(interface.clone(), net));
            }
            if let Some(name) = &event.rename {
                actions.push(Action::Rename(interface.clone(), name.clone()));
            }
        }
        for (name, value) in &event.sysctl {
            if let Some(path) = setting_path(name) {
                actions.push(Action::Setting { path, value: value.clone(), optional: false });
            }
        }
        let every = |action: Action| {
            (0..self.nodes.len()).map(move |node| Operation { node, action: action.clone() })
        };
        let actions = actions.into_iter().map(|action| Operation { node, action });
        actions.chain(every(Action::Ready)).chain(every(Action::ForgetNeighbours)).collect()
    }
}

/// The interfaces that share a network, by the link-layer addresses that [`plan`] assigns.
#[must_use]
pub fn wiring(plan: &Plan) -> Segments {
    let mut wiring = Segments::default();
    let mut macs: HashMap<(usize, &IfName), String> = HashMap::new();
    for operation in &plan.operations {
        let mac_of = |node: usize, name| macs.get(&(node, name)).cloned();
        match &operation.action {
            Action::Wire { here, there, other } => {
                if let (Some(a), Some(b)) = (mac_text(here), mac_text(there)) {
                    macs.insert((operation.node, &here.name), a.clone());
                    macs.insert((*other, &there.name), b.clone());
                    wiring.join(a, b);
                }
            }
            Action::Bridge(link) => {
                macs.extend(mac_text(link).map(|mac| ((operation.node, &link.name), mac)));
            }
            Action::Port(port, bridge) => {
                if let (Some(a), Some(b)) = (mac_of(operation.node, port), mac_of(operation.node, bridge)) {
                    wiring.join(a, b);
                }
            }
            Action::Macvlan { link, parent, .. } => {
                if let (Some(a), Some(b)) = (mac_of(operation.node, parent), mac_text(link)) {
                    macs.insert((operation.node, &link.name), b.clone());
                    wiring.join(a, b);
                }
            }
            _ => {}
        }
    }
    wiring
}

pub(super) fn mac_text(link: &LinkSpec) -> Option<String> {
    let bytes: Vec<String> = link.mac?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(bytes.join(":"))
}

/// Interfaces that are set up; ports and parents come before the interfaces on them.
fn interfaces_up(topology: &Topology) -> Vec<(String, IfName)> {
    let ends = topology.links.iter().flat_map(|link| [&link.a, &link.b]);
    ends.filter(|End { up, .. }| *up)
        .map(|end| (end.node.clone(), end.interface.clone()))
        .chain(topology.bridges.iter().map(|bridge| (bridge.node.clone(), bridge.interface.clone())))
        .chain(topology.macvlans.iter().map(|macvlan| (macvlan.node.clone(), macvlan.interface.clone())))
        .collect()
}

/// Whether a setting belongs to an interface that does not exist in a new namespace.
fn is_of_interface(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts.as_slice(), ["net", _, "conf" | "neigh", name, ..] if !matches!(*name, "all" | "default" | "lo"))
}

fn new_address(address: LabAddress, dad: bool) -> NewAddress {
    NewAddress {
        duplicate_detection: address.dad.unwrap_or(dad) || address.tentative,
        deprecated: address.deprecated,
        prefix_route: true,
        broadcast: match address.net {
            ipnet::IpNet::V4(net) if net.prefix_len() < 31 => Some(IpAddr::V4(net.broadcast())),
            _ => None,
        },
        ..NewAddress::of(address.net)
    }
}

/// An interface with a link-layer address that is equal in every run.
fn spec(name: &IfName, kind: u8, number: usize, side: u8) -> LinkSpec {
    let [high, low] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    LinkSpec { name: name.clone(), mac: Some([0x02, 0xb5, kind, high, low, side]), mtu: None, index: None }
}

/// The link-local address of an interface; `None` if its addresses contain one.
fn link_local(kind: u16, number: usize, side: u16, addresses: &[LabAddress]) -> Option<LabAddress> {
    let has_one = addresses
        .iter()
        .any(|address| matches!(address.net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local()));
    let number = u16::try_from(number + 1).unwrap_or(u16::MAX);
    let address = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, kind, number, side));
    (!has_one).then(|| ipnet::IpNet::new(address, 64).ok().map(LabAddress::from)).flatten()
}
