//! The path of a packet from a node to the host, and of the reply. Pure: routing tables and neighbours of every node,
//! from their snapshots.
//!
//! [`crate::plan::reach`] starts at the ingress interface; this module computes which interface that is. It covers only
//! what a lab can build: no VRF.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::addr::needs_zone;
use crate::model::{
    AddrClass, AddrState, Family, Interface, InterfaceAddress, Outcome, Protocol, RouteKind, Snapshot,
};
use crate::plan::fib::{Decision, Fact, Fib, Flow, RouteError};
use crate::plan::local_table::LocalAddresses;
use crate::plan::reach::Destination;

/// More forwarders in a row than this are a loop (the TTL is 64; no lab is that long).
const MOST_HOPS: usize = 32;

/// Networks between interfaces: the link-layer addresses of each group share one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    groups: HashMap<String, usize>,
}

impl Segments {
    /// Joins the networks of these link-layer addresses.
    pub fn join(&mut self, a: String, b: String) {
        let fresh = self.groups.len();
        let to = *self.groups.entry(a).or_insert(fresh);
        let from = *self.groups.entry(b).or_insert(to);
        for group in self.groups.values_mut().filter(|group| **group == from) {
            *group = to;
        }
    }

    fn group(&self, interface: &Interface) -> Option<usize> {
        self.groups.get(interface.mac.as_deref()?).copied()
    }
}

/// Why a packet does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// The sender has no route.
    NoRoute,
    /// A rule or a route of the sender refuses to send: `prohibit` or `blackhole`.
    Refused,
    /// No node answers for the next hop, or a router on the path reports that there is no route.
    NoNeighbour,
    /// The destination refers to the sender itself.
    Itself,
    /// No node on the link has the link-local address.
    LinkLocal,
    /// A node on the path drops it.
    Dropped,
    /// Depends on unknown facts: several nodes would answer.
    Unknown,
}

impl Unreachable {
    /// The outcome at the sender; `None` if unknown. A connecting TCP socket receives "host unreachable" errors. A UDP
    /// socket receives no error that may be temporary (`udp_err()`, `icmp_err_convert`).
    #[must_use]
    pub fn outcome(self, protocol: Protocol) -> Option<Outcome> {
        match self {
            Unreachable::NoRoute => Some(Outcome::Unreachable),
            Unreachable::Refused => Some(Outcome::Error),
            Unreachable::NoNeighbour if protocol == Protocol::Udp => Some(Outcome::Timeout),
            Unreachable::NoNeighbour => Some(Outcome::Unreachable),
            Unreachable::Itself => Some(Outcome::Refused),
            // Failed neighbour discovery for a link-local address gives no error.
            Unreachable::LinkLocal | Unreachable::Dropped => Some(Outcome::Timeout),
            Unreachable::Unknown => None,
        }
    }
}

/// What policy rules look at in a packet besides addresses and interfaces. The sockets of a lab belong to root of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    protocol: u8,
    source: Fact<u16>,
    destination: Fact<u16>,
}

impl Ports {
    /// An ARP request, which has neither.
    const NONE: Ports = Ports { protocol: 0, source: Fact::Known(0), destination: Fact::Known(0) };

    /// A connection or datagram to a port: the kernel chooses the port of the client.
    fn to((protocol, port): (Protocol, u16)) -> Ports {
        Ports { protocol: protocol.number(), source: Fact::Unknown, destination: Fact::Known(port) }
    }

    /// The packet that answers: of the same ports, or an ICMP error, where type and code take the place of the ports
    /// (`struct flowi_uli`).
    fn answer((protocol, port): (Protocol, u16), family: Family) -> Ports {
        match (protocol, family) {
            (Protocol::Tcp, _) => Ports::to((protocol, port)).reversed(),
            (Protocol::Udp, Family::Ipv4) => {
                Ports { protocol: 1, source: Fact::Known(0), destination: Fact::Known(0x0303) }
            }
            (Protocol::Udp, Family::Ipv6) => {
                Ports { protocol: 58, source: Fact::Known(0), destination: Fact::Known(0x0104) }
            }
        }
    }

    fn reversed(self) -> Ports {
        Ports { source: self.destination, destination: self.source, ..self }
    }
}

/// How a packet of a node arrives at the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The host's ingress interface.
    pub interface: u32,
    /// The source address.
    pub source: IpAddr,
    /// Whether the reply of a socket without a device arrives; `None` where that depends on unknown facts.
    pub answered: Option<bool>,
    /// The same of a socket that is bound to the interface.
    pub answered_by_device: Option<bool>,
}

/// Every node with indexed addresses.
#[derive(Debug)]
pub struct Nodes<'a> {
    nodes: Vec<Known<'a>>,
    wiring: &'a Segments,
}

/// A node's network with an index of its addresses and routes.
#[derive(Debug)]
struct Known<'a> {
    snapshot: &'a Snapshot,
    local: LocalAddresses,
    fib: Fib<'a>,
}

/// The end of a path: node, interface, and whether it could also be another interface of this node, because several
/// answer for the address ("ARP flux").
type End = (usize, u32, bool);

impl<'a> Nodes<'a> {
    /// Indexes these snapshots, in the order of the nodes.
    #[must_use]
    pub fn new(snapshots: &'a [Snapshot], wiring: &'a Segments) -> Nodes<'a> {
        let known =
            |snapshot| Known { snapshot, local: LocalAddresses::new(snapshot), fib: Fib::new(snapshot) };
        Nodes { nodes: snapshots.iter().map(known).collect(), wiring }
    }

    /// The interface of `node` that is used as the zone for a link-local address of the host's interface `zone`.
    /// Preferred is one on the same link (then true), then one that leads to the host, then any.
    #[must_use]
    pub fn zone_of(&self, node: usize, host: usize, zone: u32) -> Option<(u32, bool)> {
        let (own, host) = (self.nodes.get(node)?.snapshot, self.nodes.get(host)?.snapshot);
        let target = host.interface(zone).and_then(|interface| self.wiring.group(interface));
        let leads = |interface: &Interface| {
            let group = self.wiring.group(interface);
            let to_host =
                host.interfaces.iter().any(|other| group.is_some() && self.wiring.group(other) == group);
            (group.is_some() && group == target, to_host)
        };
        let up = own.interfaces.iter().filter(|interface| !interface.loopback && interface.up);
        up.max_by_key(|interface| (leads(interface), std::cmp::Reverse(interface.index)))
            .map(|interface| (interface.index, leads(interface).0))
    }

    /// Whether results depend on protocol and port.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        self.nodes.iter().any(|node| Family::BOTH.into_iter().any(|family| node.fib.is_selective(family)))
    }

    /// How a packet from `node` to `to` arrives at `host`, sent with the zone `zone` (of the node) if needed.
    ///
    /// # Errors
    /// Why it does not arrive.
    pub fn arrival(
        &self,
        node: usize,
        host: usize,
        (to, zone): (Destination, u32),
        service: (Protocol, u16),
    ) -> Result<Arrival, Unreachable> {
        let destination = match to.address.to_canonical() {
            IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        let oif = needs_zone(destination).then_some(zone);
        let own = self.nodes.get(node).ok_or(Unreachable::Unknown)?;
        if own.local.owner(destination, oif).is_some() {
            return Err(Unreachable::Itself);
        }
        let ports = Ports::to(service);
        let hop = own.next_hop(destination, None, oif, 0, ports)?.ok_or(Unreachable::NoRoute)?;
        if let Some(error) = hop.refuses {
            return Err(refused(error, 0));
        }
        let source = source_address(own.snapshot, &hop, destination).ok_or(Unreachable::NoRoute)?;
        let (end, interface, flux) = self.travel(node, source, destination, oif, ports)?;
        if end != host || flux {
            return Err(Unreachable::Unknown);
        }
        let answer = Ports::answer(service, Family::of(destination));
        let back = |oif: Option<u32>| match self.travel(host, destination, source, oif, answer) {
            Ok((end, ..)) => Some(end == node),
            Err(Unreachable::Unknown) => None,
            Err(_) => Some(false),
        };
        // The reply to a link-local address leaves on the ingress interface.
        let plain = needs_zone(source).then_some(interface);
        Ok(Arrival { interface, source, answered: back(plain), answered_by_device: back(Some(interface)) })
    }

    /// Follows a packet to the node that accepts it as local.
    fn travel(
        &self,
        from: usize,
        source: IpAddr,
        destination: IpAddr,
        oif: Option<u32>,
        ports: Ports,
    ) -> Result<End, Unreachable> {
        let mut here = from;
        let mut oif = oif;
        let mut iif = 0;
        for hops in 0..MOST_HOPS {
            let node = self.nodes.get(here).ok_or(Unreachable::Unknown)?;
            let no_route = if hops == 0 { Unreachable::NoRoute } else { Unreachable::NoNeighbour };
            let hop = node.next_hop(destination, Some(source), oif.take(), iif, ports)?.ok_or(no_route)?;
            if let Some(error) = hop.refuses {
                return Err(refused(error, hops));
            }
            let (next, interface, flux) = self.neighbour(here, &hop, source)?;
            let node = self.nodes.get(next).ok_or(Unreachable::Unknown)?;
            let arrives_on = node.snapshot.interface(interface).ok_or(Unreachable::Unknown)?;
            if !lets_in(node, arrives_on, source, destination, ports)? {
                return Err(Unreachable::Dropped);
            }
            if node.local.owner(destination, Some(interface)).is_some() {
                return Ok((next, interface, flux));
            }
            // A link-local packet is not forwarded.
            if needs_zone(destination) {
                return Err(Unreachable::LinkLocal);
            }
            if !forwards(node.snapshot, Family::of(destination)) || hops + 1 == MOST_HOPS {
                return Err(Unreachable::Dropped);
            }
            (here, iif) = (next, interface);
        }
        Err(Unreachable::Dropped)
    }

    /// The nodes that answer for the next hop on its link (ARP, neighbour discovery), for a packet from `source`.
    fn neighbour(&self, from: usize, hop: &Hop, source: IpAddr) -> Result<End, Unreachable> {
        let Known { snapshot, local: own, .. } = self.nodes.get(from).ok_or(Unreachable::Unknown)?;
        // ARP uses the source address of the packet, unless the packet is forwarded (`arp_solicit()` with
        // `arp_announce` = 0).
        let asks = match own.owner(source, None) {
            Some(_) => Some(source),
            None => source_address(snapshot, &Hop { source: None, ..*hop }, hop.address),
        };
        let out = snapshot.interface(hop.interface).ok_or(Unreachable::Unknown)?;
        let group = self.wiring.group(out).filter(|_| out.up && out.running);
        let mut answers = Vec::new();
        for (index, other) in self.nodes.iter().enumerate() {
            for interface in
                other.snapshot.interfaces.iter().filter(|interface| interface.up && interface.running)
            {
                let there =
                    group.is_some() && self.wiring.group(interface) == group && interface.master.is_none();
                let itself = index == from && interface.index == hop.interface;
                if there && !itself && answers_for(other, interface, hop.address, asks)? {
                    answers.push((index, interface.index, false));
                }
            }
        }
        match answers.as_slice() {
            [one] => Ok(*one),
            [] if needs_zone(hop.address) => Err(Unreachable::LinkLocal),
            [] => Err(Unreachable::NoNeighbour),
            [first, rest @ ..] if rest.iter().all(|other| other.0 == first.0) => Ok((first.0, first.1, true)),
            _ => Err(Unreachable::Unknown),
        }
    }
}

/// The next step of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    interface: u32,
    address: IpAddr,
    /// Preferred source address of the route.
    source: Option<IpAddr>,
    /// The error of a route or a rule that refuses.
    refuses: Option<RouteError>,
}

impl Known<'_> {
    /// The next step of a packet that this node sends (`iif` is 0) or forwards; `None` without a route.
    ///
    /// # Errors
    /// [`Unreachable::Unknown`] where the route depends on facts that are not known.
    fn next_hop(
        &self,
        destination: IpAddr,
        source: Option<IpAddr>,
        oif: Option<u32>,
        iif: u32,
        ports: Ports,
    ) -> Result<Option<Hop>, Unreachable> {
        let flow = Flow {
            from: source,
            iif,
            oif: oif.unwrap_or(0),
            strict: oif.is_some(),
            protocol: ports.protocol,
            source_port: ports.source,
            destination_port: ports.destination,
            ..Flow::to(destination)
        };
        Ok(match self.fib.output(&self.local, &flow) {
            Decision::Found(found) => {
                let route = found.route();
                if found.hops.iter().nth(1).is_some() {
                    return Err(Unreachable::Unknown);
                }
                route.interface.filter(|_| route.kind == RouteKind::Unicast).map(|interface| Hop {
                    interface,
                    address: self.local.gateway_of(route).unwrap_or(destination),
                    source: route.source,
                    refuses: None,
                })
            }
            // With a device and no route the destination counts as on the link.
            Decision::OnLink(interface) => {
                Some(Hop { interface, address: destination, source: None, refuses: None })
            }
            Decision::Refused { route: None, rule: None, .. } | Decision::Local { .. } => None,
            Decision::Refused { error, .. } => {
                Some(Hop { interface: 0, address: destination, source: None, refuses: Some(error) })
            }
            Decision::Unknown { .. } => return Err(Unreachable::Unknown),
        })
    }
}

/// What a client sees of a refusal after this many routers: the error itself, a message of the router, or nothing.
fn refused(error: RouteError, hops: usize) -> Unreachable {
    match (error, hops) {
        (RouteError::Prohibited | RouteError::Blackhole, 0) => Unreachable::Refused,
        (_, 0) => Unreachable::NoRoute,
        (RouteError::Blackhole, _) => Unreachable::Dropped,
        _ => Unreachable::NoNeighbour,
    }
}

/// Source address selection (`inet_select_addr()`; RFC 6724, section 5, as far as it matters here).
fn source_address(snapshot: &Snapshot, hop: &Hop, destination: IpAddr) -> Option<IpAddr> {
    if hop.source.is_some() {
        return hop.source;
    }
    let usable = |address: &InterfaceAddress| {
        !address.is(AddrState::Dadfailed)
            && (!address.is(AddrState::Tentative) || address.is(AddrState::Optimistic))
    };
    let on = |interface: &Interface| interface.index == hop.interface;
    let all = snapshot.addresses().filter(|(interface, address)| {
        address.family == Family::of(destination)
            && interface.up
            && usable(address)
            && !address.address.is_loopback()
    });
    match destination {
        IpAddr::V4(_) => {
            let rank = |(interface, address): &(&Interface, &InterfaceAddress)| {
                let net = IpNet::new(address.address, address.prefix).ok();
                (
                    on(interface),
                    net.is_some_and(|net| net.contains(&hop.address)),
                    !address.is(AddrState::Secondary),
                )
            };
            // The first of the best ones, in the order of the kernel's list.
            all.map(|candidate| (rank(&candidate), candidate.1.address))
                .reduce(|best, other| if other.0 > best.0 { other } else { best })
                .map(|(_, address)| address)
        }
        IpAddr::V6(to) => {
            let link = needs_zone(destination);
            let rank = |(interface, address): &(&Interface, &InterfaceAddress)| {
                let same_scope = (address.class == AddrClass::Link) == link;
                let same_label = address.class == AddrClass::of(destination);
                let common = match address.address {
                    IpAddr::V6(own) => (u128::from(own) ^ u128::from(to)).leading_zeros(),
                    IpAddr::V4(_) => 0,
                };
                (same_scope, !address.is(AddrState::Deprecated), on(interface), same_label, common)
            };
            all.filter(|(interface, _)| !link || on(interface))
                .map(|candidate| (rank(&candidate), candidate.1.address))
                .reduce(|best, other| if other.0 > best.0 { other } else { best })
                .map(|(_, address)| address)
        }
    }
}

/// An IPv4 setting whose effective value is the maximum of `all` and the interface's own value.
fn in_force(snapshot: &Snapshot, interface: &Interface, name: &str) -> i64 {
    let all = snapshot.setting(&format!("net.ipv4.conf.all.{name}")).unwrap_or(0);
    all.max(interface.settings.get(&format!("ipv4.{name}")).copied().unwrap_or(0))
}

/// Whether `rp_filter` accepts packets of `source` on `interface`: 1 requires that the return route uses this
/// interface, 2 any return route (`__fib_validate_source()`). IPv6 has no such check.
fn lets_in(
    node: &Known<'_>,
    interface: &Interface,
    source: IpAddr,
    destination: IpAddr,
    ports: Ports,
) -> Result<bool, Unreachable> {
    let mode = in_force(node.snapshot, interface, "rp_filter");
    if source.is_ipv6() || mode == 0 {
        return Ok(true);
    }
    let back = node.next_hop(source, Some(destination), None, 0, ports.reversed())?;
    let back = back.filter(|hop| hop.refuses.is_none());
    Ok(back.is_some_and(|hop| mode != 1 || hop.interface == interface.index))
}

/// Whether a node answers on `interface` for `address` to a request from `asks`. ARP answers for every local address,
/// unless `rp_filter`, `arp_ignore` or `arp_filter` forbids it (`arp_process()`). Neighbour discovery answers for the
/// addresses of the interface (`ndisc_recv_ns()`).
fn answers_for(
    node: &Known<'_>,
    interface: &Interface,
    address: IpAddr,
    asks: Option<IpAddr>,
) -> Result<bool, Unreachable> {
    let own = || interface.addresses.iter().find(|own| own.address == address);
    let IpAddr::V4(v4) = address else {
        return Ok(own().is_some_and(|own| !own.is(AddrState::Tentative) && !own.is(AddrState::Dadfailed)));
    };
    let asks = asks.unwrap_or(address);
    let near =
        |own: &InterfaceAddress| IpNet::new(own.address, own.prefix).is_ok_and(|net| net.contains(&asks));
    let has = match in_force(node.snapshot, interface, "arp_ignore") {
        1 => own().is_some(),
        2 => own().is_some_and(near),
        8 => false,
        _ => node.local.owner(address, None).is_some(),
    };
    if v4.is_loopback() || !has {
        return Ok(false);
    }
    let filters = in_force(node.snapshot, interface, "arp_filter") > 0;
    let elsewhere = |hop: Option<Hop>| hop.is_none_or(|hop| hop.interface != interface.index);
    if filters && elsewhere(node.next_hop(asks, Some(address), None, 0, Ports::NONE)?) {
        return Ok(false);
    }
    lets_in(node, interface, asks, address, Ports::NONE)
}

fn forwards(snapshot: &Snapshot, family: Family) -> bool {
    let name = match family {
        Family::Ipv4 => "net.ipv4.conf.all.forwarding",
        Family::Ipv6 => "net.ipv6.conf.all.forwarding",
    };
    snapshot.setting(name).is_some_and(|on| on != 0)
}
