//! Who reaches which socket: every source, every destination address of this host, every port.
//!
//! First the way of the packet up to the host's sockets, which does not depend on the port: `Path`. Then the look-up among
//! them ([`super::lookup`]). A firewall, NAT and programs attached to the kernel can change all of it, and are not looked at.
//!
//! A source `link:<interface>` stands for somebody with an ordinary address of a network on that interface, whose packets do
//! arrive there. Whether they can find a way to an address of another interface is their affair (a route, or the ARP answers
//! that `arp_ignore` = 0 allows).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::bind_check::vrf_of;
use super::local_table::LocalAddresses;
use super::lookup::{Packet, Preference, Winner};
use super::predict::{Binds, Holder};
use super::socket_table::{Local, Tables};
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{
    AddrClass, Family, Interface, Outcome, Protocol, RouteKind, Snapshot, SocketSpec, Source,
};

/// Number of the routing table `main` (`RT_TABLE_MAIN` of `linux/rtnetlink.h`).
const TABLE_MAIN: u32 = 254;

/// Where somebody connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The address as it is given to `connect(2)`; a v4-mapped one is connected to by an AF_INET6 socket.
    pub address: IpAddr,
    /// The interface of a link-local address; 0 else.
    pub zone: u32,
}

/// What comes of a packet, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The outcome; `None` when it depends on what is not known.
    pub outcome: Option<Outcome>,
    /// Who takes it: one, or several that share it; none unless it is accepted.
    pub takers: Vec<Holder>,
    /// Index of the interface that the kernel will report; `None` unless it is accepted.
    pub ingress: Option<u32>,
    /// The rule that decided.
    pub why: Code,
}

/// One question and its answer, by indices into [`Matrix`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Who connects.
    pub source: usize,
    /// The address that the client has bound, with its zone; `None` where the kernel chooses.
    pub source_address: Option<Destination>,
    /// Where to.
    pub destination: usize,
    /// Protocol and port.
    pub service: usize,
    /// What will come of it; the same for many, as a rule.
    pub predicted: Arc<Reach>,
}

/// Every source, destination and port, and what comes of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Who connects: the host itself first, then each interface.
    pub sources: Vec<Source>,
    /// Sorted by family and value.
    pub destinations: Vec<Destination>,
    /// Sorted.
    pub services: Vec<(Protocol, u16)>,
    /// In the order of sources, destinations, services.
    pub cells: Vec<Cell>,
}

/// How far a packet gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// To the sockets.
    Arrives(Arriving),
    /// Nowhere.
    Lost(Outcome, Code),
    /// That depends on what is not known.
    Unknown(Code),
}

/// A packet at the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arriving {
    destination: IpAddr,
    /// The interface it counts as arrived on.
    device: u32,
    vrf: u32,
    /// The interface the kernel will report.
    ingress: u32,
    /// What is remarkable about its way.
    special: Option<Code>,
    /// Whether a socket without a device has a way back.
    answered: bool,
    /// Whether a socket bound to a device has one.
    answered_by_device: bool,
}

/// Every address of this host that somebody could connect to, sorted: addresses of interfaces that are usable, and for each local
/// route (AnyIP) its first address.
#[must_use]
pub fn destinations(snapshot: &Snapshot, local: &LocalAddresses) -> Vec<Destination> {
    let mut found = BTreeSet::new();
    for (interface, address) in snapshot.addresses() {
        let link_local = address.address.is_ipv6() && address.class == AddrClass::Link;
        let zone = if link_local { interface.index } else { 0 };
        if local.owner(address.address, Some(interface.index)).is_some() {
            found.insert(Destination { address: address.address, zone });
        }
    }
    for (net, _) in local.local_routes(snapshot) {
        let first = match net {
            IpNet::V4(net) => IpAddr::V4(net.hosts().next().unwrap_or(net.addr())),
            IpNet::V6(net) => IpAddr::V6(first_host6(net)),
        };
        if !first.is_loopback() && local.owner(first, None).is_some() {
            found.insert(Destination { address: first, zone: 0 });
        }
    }
    found.into_iter().collect()
}

/// The addresses that sockets are bound to and that are this host's by a local route alone, where [`destinations`] asks for one of
/// the whole network.
pub fn bound_by_route(sockets: &[SocketSpec], local: &LocalAddresses) -> Vec<Destination> {
    let addresses = sockets.iter().map(|socket| socket.address.to_canonical());
    addresses
        .filter(|address| {
            !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_multicast()
                && !needs_zone(*address)
                && local.owner(*address, None).is_some()
        })
        .map(|address| Destination { address, zone: 0 })
        .collect()
}

/// The address after the subnet-router anycast one (RFC 4291, 2.6.1), where there is one.
fn first_host6(net: ipnet::Ipv6Net) -> Ipv6Addr {
    if net.prefix_len() < 127 { Ipv6Addr::from(u128::from(net.network()) | 1) } else { net.network() }
}

/// Who can connect: this host, and whoever is on a wire.
#[must_use]
pub fn sources(snapshot: &Snapshot) -> Vec<Source> {
    let links = wires(snapshot).map(|interface| Source::Link(interface.name.clone()));
    std::iter::once(Source::Host).chain(links).collect()
}

/// Interfaces on which packets of others can arrive: those that are up. A port of a bridge or bond is no wire of its own, as its
/// packets arrive on the master, a VRF is none, as they arrive on what is in it, and nothing comes out of a dummy.
pub fn wires(snapshot: &Snapshot) -> impl Iterator<Item = &Interface> {
    let enslaved = move |interface: &Interface| {
        interface
            .master
            .and_then(|index| snapshot.interface(index))
            .is_some_and(|master| master.kind.as_deref() != Some("vrf"))
    };
    let has_none = |interface: &Interface| matches!(interface.kind.as_deref(), Some("vrf" | "dummy"));
    let all = snapshot.interfaces.iter();
    all.filter(move |one| one.up && !one.loopback && !enslaved(one) && !has_none(one))
}

/// Protocols and ports of the sockets, sorted; port 0 is not known yet.
#[must_use]
pub fn services(sockets: &[SocketSpec]) -> Vec<(Protocol, u16)> {
    let all: BTreeSet<_> = sockets
        .iter()
        .filter(|socket| socket.port != 0)
        .map(|socket| (socket.protocol, socket.port))
        .collect();
    all.into_iter().collect()
}

/// What comes of every source, destination and service.
#[must_use]
pub fn predict_reach(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    sources: Vec<Source>,
    destinations: Vec<Destination>,
    services: Vec<(Protocol, u16)>,
) -> Matrix {
    let axes = Matrix { sources, destinations, services, cells: Vec::new() };
    predict_asked(binds, snapshot, local, axes, &|_, _, _| true)
}

/// As [`predict_reach`], with the cells alone that `asked` names by source, destination and service. `axes` has no cells yet.
#[must_use]
pub fn predict_asked(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    mut axes: Matrix,
    asked: &dyn Fn(usize, usize, usize) -> bool,
) -> Matrix {
    let host = HostView::new(snapshot, local);
    let used: BTreeSet<_> = binds.tables.entries.iter().map(|entry| (entry.protocol, entry.port)).collect();
    let mut cells = Vec::new();
    for (source, from) in axes.sources.iter().enumerate() {
        for (destination, to) in axes.destinations.iter().enumerate() {
            let path = host.path(from, *to);
            // Ports without any socket differ in nothing.
            let mut unused: [Option<Arc<Reach>>; 2] = [None, None];
            for (service, &(protocol, port)) in axes.services.iter().enumerate() {
                if asked(source, destination, service) {
                    let answer = || Arc::new(arrive(binds, path, protocol, port));
                    let predicted = if used.contains(&(protocol, port)) {
                        answer()
                    } else {
                        let same = &mut unused[usize::from(protocol == Protocol::Udp)];
                        Arc::clone(same.get_or_insert_with(answer))
                    };
                    cells.push(Cell { source, source_address: None, destination, service, predicted });
                }
            }
        }
    }
    axes.cells = cells;
    axes
}

/// What comes of every destination and service of `matrix` when a client of this host binds another of its addresses first.
///
/// Asked of each address that can be bound without a device: of a loopback one towards loopback addresses only, of a link-local
/// IPv6 one towards its own zone only, and of none towards itself, which is what the kernel chooses anyway.
#[must_use]
pub fn predict_from_addresses(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    matrix: &Matrix,
) -> Vec<Cell> {
    let host = HostView::new(snapshot, local);
    let Some(source) = matrix.sources.iter().position(|source| *source == Source::Host) else {
        return Vec::new();
    };
    let mut from: BTreeMap<Destination, BTreeSet<u32>> = BTreeMap::new();
    for (interface, address) in snapshot.addresses() {
        let zone = if needs_zone(address.address) { interface.index } else { 0 };
        let owner = local.owner(address.address, Some(interface.index));
        if owner.is_some_and(|owner| host.vrf(owner) == 0) {
            from.entry(Destination { address: address.address, zone }).or_default().insert(interface.index);
        }
    }
    let mut cells = Vec::new();
    for (address, interfaces) in &from {
        for (destination, to) in matrix.destinations.iter().enumerate() {
            let Some(path) = host.path_from(*address, interfaces, *to) else { continue };
            for (service, &(protocol, port)) in matrix.services.iter().enumerate() {
                let predicted = Arc::new(arrive(binds, path, protocol, port));
                cells.push(Cell { source, source_address: Some(*address), destination, service, predicted });
            }
        }
    }
    cells
}

/// What is asked of a snapshot again and again, indexed.
struct HostView<'a> {
    snapshot: &'a Snapshot,
    local: &'a LocalAddresses,
    by_name: HashMap<&'a crate::model::IfName, &'a Interface>,
    by_index: HashMap<u32, &'a Interface>,
    /// Interfaces over which a packet of a family can leave.
    ways: HashMap<u32, [bool; 2]>,
    loopback: Option<u32>,
    loopback_up: bool,
    /// All local traffic runs over it, so `disable_ipv6` there stops a host from talking IPv6 to itself.
    loopback_refuses_ipv6: bool,
}

impl<'a> HostView<'a> {
    fn new(snapshot: &'a Snapshot, local: &'a LocalAddresses) -> HostView<'a> {
        let mut ways: HashMap<u32, [bool; 2]> = HashMap::new();
        let side = |family| usize::from(family == Family::Ipv6);
        for (interface, address) in snapshot.addresses() {
            ways.entry(interface.index).or_default()[side(address.family)] = true;
        }
        for route in snapshot.routes.iter().filter(|route| route.kind == RouteKind::Unicast) {
            if let Some(index) = route.interface {
                ways.entry(index).or_default()[side(Family::of(route.destination.addr()))] = true;
            }
        }
        let loopback = snapshot.interfaces.iter().find(|interface| interface.loopback);
        HostView {
            snapshot,
            local,
            by_name: snapshot.interfaces.iter().map(|interface| (&interface.name, interface)).collect(),
            by_index: snapshot.interfaces.iter().map(|interface| (interface.index, interface)).collect(),
            ways,
            loopback: loopback.map(|interface| interface.index),
            loopback_up: loopback.is_some_and(|interface| interface.up),
            loopback_refuses_ipv6: loopback.is_some_and(ipv6_is_off),
        }
    }

    fn vrf(&self, index: u32) -> u32 {
        self.by_index.get(&index).map_or(0, |interface| vrf_of(self.snapshot, interface))
    }

    fn path(&self, source: &Source, to: Destination) -> Path {
        match source {
            Source::Host => self.path_of_host(to),
            Source::Link(name) => match self.by_name.get(name) {
                Some(interface) => self.path_of_wire(interface, to),
                None => Path::Lost(Outcome::Error, Code::REACH_UNKNOWN),
            },
            // Nodes of a lab are told apart by the interface their packets arrive on; the lab asks with that.
            Source::Node(_) => Path::Lost(Outcome::Error, Code::REACH_UNKNOWN),
        }
    }

    /// Local traffic runs over `lo` but counts as arrived on the interface that owns the destination
    /// (`ip_route_output_key_hash_rcu()`, `ip6_rcv_core()`).
    fn path_of_host(&self, to: Destination) -> Path {
        // "This host" (RFC 1122, 3.2.1.3) means the loopback address to connect.
        let destination = match to.address.to_canonical() {
            IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        let zone = (to.zone != 0).then_some(to.zone);
        let Some(owner) = self.local.owner(destination, zone) else {
            if self.local.owner_in_a_vrf(destination).is_some() {
                // What the host's own table has no route for goes nowhere; by a default route it would be asked of others.
                return if self.has_route(destination) {
                    Path::Unknown(Code::OTHER_VRF)
                } else {
                    Path::Lost(Outcome::Unreachable, Code::OTHER_VRF)
                };
            }
            let outcome = match destination {
                // Like any address that is not here: out by a default route, from where nobody answers. But `0.0.0.0` stays inside.
                _ if !destination.is_loopback() => Outcome::Error,
                IpAddr::V4(_) if to.address.to_canonical().is_unspecified() => Outcome::Unreachable,
                _ if self.has_default_route(Family::of(destination)) => Outcome::Timeout,
                // Without any IPv6 address the search for a source fails first, with EADDRNOTAVAIL.
                IpAddr::V6(_) if !self.local.any_usable_ipv6() => Outcome::Error,
                _ => Outcome::Unreachable,
            };
            return Path::Lost(outcome, Code::DESTINATION_NOT_HERE);
        };
        if !self.loopback_up {
            return Path::Lost(Outcome::Timeout, Code::LOOPBACK_DOWN);
        }
        if destination.is_ipv6() && self.loopback_refuses_ipv6 {
            return Path::Lost(Outcome::Timeout, Code::IPV6_OFF);
        }
        let special = self.is_local_route(destination).then_some(Code::LOCAL_ROUTE);
        // An answer over a device must find its peer there. The peer's address is the destination itself, but for IPv6 local routes.
        // A device that is down sends nothing (`ip_route_output_key_hash_rcu()`), though its IPv4 address stays the host's.
        let answered_by_device = self.by_index.get(&owner).is_some_and(|interface| interface.up)
            && (special.is_none() || destination.is_ipv4() || self.source_is_on(owner));
        // A link-local address of a VRF's interface is reached as if the interface were in none.
        Path::Arrives(Arriving {
            destination,
            device: owner,
            vrf: 0,
            ingress: owner,
            special,
            answered: true,
            answered_by_device,
        })
    }

    fn has_default_route(&self, family: Family) -> bool {
        self.own_routes().any(|to| to.prefix_len() == 0 && Family::of(to.addr()) == family)
    }

    /// Whether the host would send packets for `destination` out.
    fn has_route(&self, destination: IpAddr) -> bool {
        self.own_routes().any(|to| to.contains(&destination))
    }

    /// Where routes outside of VRFs lead.
    fn own_routes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.snapshot
            .routes
            .iter()
            .filter(|route| route.kind == RouteKind::Unicast)
            .filter(|route| {
                route.table == TABLE_MAIN || route.interface.is_none_or(|index| self.vrf(index) == 0)
            })
            .map(|route| route.destination)
    }

    /// The way of a packet whose source address is `from`, which these interfaces have. `None` where that is not asked.
    fn path_from(&self, from: Destination, interfaces: &BTreeSet<u32>, to: Destination) -> Option<Path> {
        let mut target = Destination { address: to.address.to_canonical(), zone: to.zone };
        if Family::of(target.address) != Family::of(from.address) {
            return None;
        }
        match target.address {
            // To connect, "this host" is the address that is bound (`ip_route_output_key_hash_rcu()`).
            IpAddr::V4(v4) if v4.is_unspecified() => target = from,
            IpAddr::V6(v6) if v6.is_unspecified() => target.address = IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ if target == from => return None,
            _ => {}
        }
        let loopback = !from.address.is_loopback() || target.address.is_loopback();
        let link = from.zone == 0 || from.zone == target.zone;
        if !(loopback && link) {
            return None;
        }
        Some(match self.path_of_host(target) {
            // An answer over a device must find the client's address there, and what comes from a link-local address goes over
            // its own (`rt6_need_strict()` of `net/ipv6/route.c`).
            Path::Arrives(arriving) => {
                // IPv4 leaves over a device without a route too, and what leaves over `lo` is back at once.
                let back = arriving.destination.is_ipv4() && Some(arriving.device) == self.loopback;
                let up = self.by_index.get(&arriving.device).is_some_and(|interface| interface.up);
                let there = up && (back || interfaces.contains(&arriving.device));
                let answered = there || !needs_zone(arriving.destination);
                Path::Arrives(Arriving { answered, answered_by_device: there, ..arriving })
            }
            // Who looks for an address elsewhere with a source of the own choice is not this host's own affair.
            Path::Lost(_, Code::DESTINATION_NOT_HERE) => return None,
            lost => lost,
        })
    }

    /// Whether this host would talk to a global IPv6 destination behind `interface` from an address of that interface: it prefers
    /// one, but not to an address of wider scope elsewhere (RFC 6724, 5, rules 2 and 5).
    fn source_is_on(&self, interface: u32) -> bool {
        let wide = |interface: &Interface| {
            interface.addresses.iter().any(|address| {
                let wide = matches!(address.class, AddrClass::Global | AddrClass::Private);
                address.family == Family::Ipv6 && wide
            })
        };
        self.by_index.get(&interface).is_some_and(|interface| wide(interface))
            || !self.snapshot.interfaces.iter().any(wide)
    }

    /// Whether no interface has the address, only a route.
    fn is_local_route(&self, destination: IpAddr) -> bool {
        !destination.is_loopback() && !self.local.has_address(destination)
    }

    fn path_of_wire(&self, wire: &Interface, to: Destination) -> Path {
        let destination = to.address.to_canonical();
        let family = Family::of(destination);
        let mut special = None;
        match destination {
            IpAddr::V4(v4) if v4.is_loopback() => {
                if !self.route_localnet(wire) {
                    return Path::Lost(Outcome::Timeout, Code::LOOPBACK_FROM_WIRE);
                }
                special = Some(Code::ROUTE_LOCALNET);
            }
            IpAddr::V6(_) if ipv6_is_off(wire) => {
                return Path::Lost(Outcome::Timeout, Code::IPV6_OFF);
            }
            // `ip6_rcv_core()`; RFC 4291, 2.5.3.
            IpAddr::V6(v6) if v6.is_loopback() => {
                return Path::Lost(Outcome::Timeout, Code::LOOPBACK_FROM_WIRE);
            }
            _ => {}
        }
        // On this link the address means this link's, whatever zone it was shown with. The rule for the table `local` comes before
        // the one for the VRF's (ip-rule(8)), so a VRF's packets find the addresses of the host at large, too.
        let owner = self.local.owner(destination, None);
        let Some(owner) = owner.or_else(|| self.local.owner(destination, Some(wire.index))) else {
            let link_local = AddrClass::of(destination) == AddrClass::Link;
            let why = if link_local { Code::LINK_LOCAL_ELSEWHERE } else { Code::OTHER_VRF };
            return Path::Lost(Outcome::Timeout, why);
        };
        let vrf = self.vrf(wire.index);
        let answered =
            self.ways.get(&wire.index).is_some_and(|ways| ways[usize::from(family == Family::Ipv6)]);
        if special.is_none() && owner != wire.index {
            let by_route = self.is_local_route(destination);
            special = Some(if by_route { Code::LOCAL_ROUTE } else { Code::WEAK_HOST });
        }
        // A socket bound to a device answers IPv4 over that device without a route (`ip_route_output_key_hash_rcu()`).
        let answered_by_device = answered || family == Family::Ipv4;
        Path::Arrives(Arriving {
            destination,
            device: wire.index,
            vrf,
            ingress: wire.index,
            special,
            answered,
            answered_by_device,
        })
    }

    /// Whether 127.0.0.0/8 is taken from a wire: `all` or the interface's own setting (`IN_DEV_NET_ROUTE_LOCALNET()` of
    /// `include/linux/inetdevice.h`).
    fn route_localnet(&self, wire: &Interface) -> bool {
        self.snapshot.setting("net.ipv4.conf.all.route_localnet").is_some_and(|on| on != 0)
            || wire.settings.get("ipv4.route_localnet").is_some_and(|&on| on != 0)
    }
}

/// Whether an interface drops every IPv6 packet (`ip6_rcv_core()`).
pub(super) fn ipv6_is_off(interface: &Interface) -> bool {
    interface.settings.get("ipv6.disable_ipv6").is_some_and(|&off| off != 0)
}

/// What comes of a packet at the sockets.
fn arrive(binds: &Binds, path: Path, protocol: Protocol, port: u16) -> Reach {
    let lost = |outcome, why| Reach { outcome: Some(outcome), takers: Vec::new(), ingress: None, why };
    let Arriving { destination, device, vrf, ingress, special, answered, answered_by_device } = match path {
        Path::Lost(outcome, why) => return lost(outcome, why),
        Path::Unknown(why) => return Reach { outcome: None, takers: Vec::new(), ingress: None, why },
        Path::Arrives(arriving) => arriving,
    };
    let packet = Packet { protocol, destination, port, device, vrf };
    let holders = |ids: &[usize]| ids.iter().map(|&id| binds.holder(id)).collect::<Vec<_>>();
    match binds.tables.winner(&packet) {
        // Without a way back there is no handshake and no word that nobody listens; but a datagram needs no answer.
        Winner::Found { ids, .. }
            if protocol == Protocol::Tcp
                && !ids.iter().all(|&id| match binds.tables.entry(id).device {
                    0 => answered,
                    _ => answered_by_device,
                }) =>
        {
            lost(Outcome::Timeout, Code::NO_WAY_BACK)
        }
        Winner::Nobody if !answered => lost(Outcome::Timeout, Code::NO_WAY_BACK),
        Winner::Nobody => lost(Outcome::Refused, why_refused(&binds.tables, &packet)),
        Winner::Unknown(ids) => {
            Reach { outcome: None, takers: holders(&ids), ingress: None, why: Code::REACH_UNKNOWN }
        }
        Winner::Found { ids, over } => Reach {
            outcome: Some(Outcome::Accepted),
            takers: holders(&ids),
            // A connection over IPv4 reports the VRF; one over IPv6, and every datagram, the interface in it.
            ingress: Some(match (protocol, destination, vrf) {
                (Protocol::Tcp, IpAddr::V4(_), 1..) => vrf,
                _ => ingress,
            }),
            why: why_accepted(binds, &packet, &ids, over.map(|(_, preference)| preference), special),
        },
    }
}

/// The most telling of the rules that brought a packet to its socket.
fn why_accepted(
    binds: &Binds,
    packet: &Packet,
    ids: &[usize],
    over: Option<Preference>,
    special: Option<Code>,
) -> Code {
    let Some(&first) = ids.first() else { return Code::REACH_UNKNOWN };
    let entry = binds.tables.entry(first);
    if matches!(binds.holder(first), Holder::Foreign(_)) {
        return Code::FOREIGN_SOCKET;
    }
    match over {
        Some(Preference::Order) => return Code::ORDER_DECIDES,
        Some(Preference::SpecificAddress) => return Code::SPECIFIC_WINS,
        Some(Preference::Ipv4Socket) => return Code::IPV4_SOCKET_WINS,
        Some(Preference::Device) => return Code::DEVICE_WINS,
        None if ids.len() > 1 => return Code::GROUP_SHARES,
        None => {}
    }
    if let Some(special) = special {
        return special;
    }
    if entry.device != 0 {
        return Code::DEVICE_BOUND;
    }
    match (packet.destination, entry.local) {
        (IpAddr::V4(_), Local::V6(_)) => Code::DUAL_STACK,
        (_, local) if local.is_any() => Code::WILDCARD,
        _ => Code::EXACT_ADDRESS,
    }
}

/// Why nobody took a packet: a socket that nearly would have, or none at all.
fn why_refused(tables: &Tables, packet: &Packet) -> Code {
    let own = Local::of(packet.destination);
    let mut other_family = false;
    for id in tables.near(packet.protocol, packet.port, own) {
        let entry = tables.entry(id);
        let takes_family = match (packet.destination, entry.local) {
            (IpAddr::V4(_), Local::V4(_)) | (IpAddr::V6(_), Local::V6(_)) => true,
            (IpAddr::V4(_), Local::V6(_)) => entry.v6only == Some(false),
            (IpAddr::V6(_), Local::V4(_)) => false,
        };
        if takes_family {
            return Code::OTHER_DEVICE;
        }
        other_family = true;
    }
    if other_family { Code::OTHER_FAMILY } else { Code::NOBODY_LISTENS }
}
