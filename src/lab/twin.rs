//! The twin of a host: its network, rebuilt in a lab from a snapshot, with a client on every link and one beyond the
//! default route. Pure: from a snapshot to operations, and a list of what they leave out.
//!
//! Interfaces keep their names, indexes and link-layer addresses, so that zones, devices and reported interfaces are
//! the same. Every interface except bridges, macvlan interfaces and `lo` becomes one end of a veth pair. Addresses are
//! added without their prefix routes, and every route of the snapshot is added explicitly, so that the tables are
//! equal.
//!
//! Each client on a link is a separate node with an address that is on-link for the host. It sends every packet over
//! the link to the host, for any destination address. This is the meaning of `link:<interface>` in a plan.

mod compare;
mod host;
mod others;
pub mod run;
mod stand_ins;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use compare::differences;

use super::ops::{Action, Plan};
use crate::model::filters::PacketFilters;
use crate::model::topology::Node;
use crate::model::topology::setting_path;
use crate::model::{Family, IfName, Interface, LinkKind, Snapshot, Source};
use crate::plan::clients::{Addresses, Clients};
use crate::plan::local_table::LocalAddresses;
use crate::plan::reach;
use crate::sys::NewAddress;

/// The node with the copy.
pub const HOST: &str = "host";
/// The node beyond the default route.
pub const BEYOND: &str = "beyond";
/// The node that has the far ends of links without a client.
const FAR_ENDS: &str = "far-ends";

/// Settings of interfaces that affect results and are copied.
const COPIED: &[&str] = &[
    "ipv4.forwarding",
    "ipv4.rp_filter",
    "ipv4.arp_filter",
    "ipv4.arp_ignore",
    "ipv4.accept_local",
    "ipv4.route_localnet",
    "ipv4.src_valid_mark",
    "ipv6.forwarding",
    "ipv6.disable_ipv6",
    "ipv6.keep_addr_on_down",
];

/// A copy of a host, still to be built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Twin {
    /// Its operations. The copy is [`Plan::host`].
    pub plan: Plan,
    /// The client on each link: the sources of a plan that the twin has.
    pub clients: Vec<(Source, Client)>,
    /// The client beyond the default route.
    pub beyond: Option<Beyond>,
    /// The sources of a plan that the twin does not have, with reasons.
    pub without_client: Vec<(Source, String)>,
    /// Properties of the host that are not copied and may matter, one sentence each.
    pub skipped: Vec<String>,
    /// Further notes, one sentence each.
    pub notes: Vec<String>,
}

/// Origin of a source's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The node.
    pub node: usize,
    /// Index of its interface on the link: the zone of link-local addresses there.
    pub zone: u32,
}

/// The client beyond the default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// The node.
    pub node: usize,
    /// The host's interface for its IPv4 route.
    pub ipv4: Option<u32>,
    /// The host's interface for its IPv6 route.
    pub ipv6: Option<u32>,
}

/// The kind of copy of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Bridge,
    /// With this routing table.
    Vrf(u32),
    /// On the link of the interface with this index.
    Macvlan(u32),
    /// A veth pair whose other end has this index.
    Pair(u32),
    Wire,
    /// It cannot be copied.
    Absent,
}

/// Position of the client whose packets arrive on an interface of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attachment {
    /// At the far end of the link of the interface with this index.
    End(u32),
    /// Next to the client at that end, with a macvlan interface on it.
    ObservationMerger(u32),
    /// On the interface of the host with this index, the other end of a veth pair, with a macvlan interface on it.
    Here(u32),
}

/// The copy of the host of `snapshot`.
#[must_use]
pub fn of(snapshot: &Snapshot) -> Twin {
    let local = LocalAddresses::new(snapshot);
    let mut builder = Builder::new(snapshot, &local);
    builder.nodes();
    builder.settings();
    builder.links();
    builder.interface_settings();
    builder.addresses();
    builder.peers();
    builder.up();
    builder.unusable_addresses();
    builder.routes();
    builder.rules();
    builder.ways_of_peers();
    builder.beyond();
    builder.stand_ins();
    builder.end();
    builder.filters();
    builder.twin
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    chooser: Clients<'a>,
    roles: BTreeMap<u32, Role>,
    /// By the host's interface: the node and the interface at the other end of the link.
    far: HashMap<u32, (usize, IfName)>,
    /// By the host's interface: the client on its link.
    clients: BTreeMap<u32, (usize, Addresses)>,
    /// By the host's interface: the position of that client.
    seats: BTreeMap<u32, Attachment>,
    macs: HashMap<u32, [u8; 6]>,
    taken: HashSet<[u8; 6]>,
    twin: Twin,
}

/// The interface name of every client on one link, and its index if the client has a separate link.
fn eth0() -> IfName {
    IfName::from("eth0")
}
const ETH0: u32 = 2;

/// The families that the host has.
fn families(snapshot: &Snapshot) -> impl Iterator<Item = Family> + use<> {
    let ipv6 = snapshot.ipv6_available;
    Family::BOTH.into_iter().filter(move |family| *family == Family::Ipv4 || ipv6)
}

impl<'a> Builder<'a> {
    fn new(snapshot: &'a Snapshot, local: &'a LocalAddresses) -> Builder<'a> {
        let plan = Plan { nodes: vec![HOST.to_owned()], host: 0, copies: true, ..Plan::default() };
        let mut builder = Builder {
            snapshot,
            chooser: Clients::new(snapshot, local),
            roles: BTreeMap::new(),
            far: HashMap::new(),
            clients: BTreeMap::new(),
            seats: BTreeMap::new(),
            macs: HashMap::new(),
            taken: HashSet::new(),
            twin: Twin { plan, ..Twin::default() },
        };
        for interface in snapshot.interfaces.iter().filter(|interface| !interface.loopback) {
            builder.roles.insert(interface.index, role(snapshot, interface));
            if let Some(mac) = interface.mac.as_deref().and_then(mac_of) {
                builder.macs.insert(interface.index, mac);
                builder.taken.insert(mac);
            }
        }
        builder.note_what_is_lost();
        builder
    }

    fn skipped(&mut self, sentence: String) {
        self.twin.skipped.push(sentence);
    }

    fn role(&self, index: u32) -> Role {
        self.roles.get(&index).copied().unwrap_or(Role::Absent)
    }

    /// An unused link-layer address.
    fn fresh_mac(&mut self, kind: u8, index: u32) -> [u8; 6] {
        let [a, b, c, d] = index.to_be_bytes();
        let mut mac = [0x02, 0xb5 ^ a ^ b, kind, c, d, 1];
        while !self.taken.insert(mac) {
            mac[5] = mac[5].wrapping_add(1);
        }
        mac
    }

    fn mac(&mut self, index: u32) -> [u8; 6] {
        if let Some(mac) = self.macs.get(&index) {
            return *mac;
        }
        let mac = self.fresh_mac(0xe, index);
        self.macs.insert(index, mac);
        mac
    }

    fn note_what_is_lost(&mut self) {
        let snapshot = self.snapshot;
        for interface in &snapshot.interfaces {
            let name = &interface.name;
            let kind = interface.kind.as_ref().map_or("of an unknown kind", LinkKind::as_str);
            match self.roles.get(&interface.index) {
                Some(Role::Wire) if kind != "veth" => self.skipped(format!(
                    "{name} ({kind}) is one end of a veth pair: what its driver, or what it is made of, does to packets is not copied"
                )),
                Some(Role::Absent) => self.skipped(format!(
                    "{name} ({kind}) is not copied, because the snapshot does not contain its table: its interfaces are outside of it, and its table is not used"
                )),
                _ => {}
            }
            let master = interface.master.and_then(|master| snapshot.interface(master));
            if let Some(master) = master.filter(|master| {
                !matches!(self.roles.get(&master.index), Some(Role::Bridge | Role::Vrf(_) | Role::Absent))
            }) {
                self.skipped(format!("{name} is a part of {}, and stands alone in the twin", master.name));
            }
        }
        match &snapshot.packet_filters {
            None => self.skipped(
                "packet filters are not copied, and whether the host has any is not known".to_owned(),
            ),
            Some(PacketFilters { ruleset: Some(rules), .. }) => {
                if !rules.consistent {
                    self.skipped("the rules of packet filters kept changing while they were read".to_owned());
                }
            }
            Some(filters) => {
                if !filters.tables.is_empty() {
                    let tables = filters.tables.join(", ");
                    self.skipped(format!("packet filters and address translation are not copied: {tables}"));
                }
                if let Some(why) = &filters.unknown_because {
                    self.skipped(format!(
                        "packet filters are not copied, and whether the host has any cannot be seen: {why}"
                    ));
                }
            }
        }
        for sentence in &snapshot.unsupported {
            self.skipped(format!("{sentence}; that is not copied"));
        }
        if !snapshot.ipv6_available {
            self.skipped(
                "the host's kernel has no IPv6; in the twin IPv6 is off, and sockets of it can be made"
                    .to_owned(),
            );
        }
        if snapshot.routes.is_empty() {
            self.skipped("the host's routes are not known; those of its addresses are made".to_owned());
        }
    }

    /// The last step: chains of `netdev` want their devices, and the kernel has found its neighbours.
    fn filters(&mut self) {
        let rules = self.snapshot.packet_filters.as_ref().and_then(|filters| filters.ruleset.as_ref());
        if let Some(rules) = rules.filter(|rules| !rules.is_empty()) {
            self.twin.plan.push(0, Action::Ruleset(Arc::new(rules.clone())));
        }
    }

    /// The position that a client needs for its packets to arrive on an interface.
    fn seat(&self, interface: &Interface) -> Option<Attachment> {
        match self.role(interface.index) {
            Role::Wire => Some(Attachment::End(interface.index)),
            Role::Bridge => {
                let ports = self.ports(interface);
                let other = |port: &Interface| match self.role(port.index) {
                    Role::Pair(other) => {
                        self.snapshot.interface(other).filter(|other| other.master.is_none())
                    }
                    _ => None,
                };
                let wire = ports.iter().find(|port| self.role(port.index) == Role::Wire);
                let here =
                    || ports.iter().find_map(|port| other(port)).map(|other| Attachment::Here(other.index));
                wire.map(|wire| Attachment::End(wire.index)).or_else(here)
            }
            Role::Macvlan(parent) => {
                let parent = self.snapshot.interface(parent)?;
                let seat = if parent.up && parent.running { self.seat(parent)? } else { return None };
                Some(if let Attachment::End(wire) = seat {
                    Attachment::ObservationMerger(wire)
                } else {
                    seat
                })
            }
            Role::Pair(other) => {
                let other = self.snapshot.interface(other)?;
                let Some(master) = other.master.and_then(|master| self.snapshot.interface(master)) else {
                    return other.master.is_none().then_some(Attachment::Here(other.index));
                };
                // Packets that arrive on another port are forwarded.
                let bridge = Some(master).filter(|one| one.up && self.role(one.index) == Role::Bridge)?;
                let wire = self.ports(bridge).into_iter().find(|port| self.role(port.index) == Role::Wire);
                wire.map(|wire| Attachment::ObservationMerger(wire.index))
            }
            Role::Vrf(_) | Role::Absent => None,
        }
    }

    /// Index of the interface `eth0` of the client on the link of an interface of the host: a free index where it is
    /// created.
    fn zone(&self, interface: u32) -> u32 {
        match self.seats.get(&interface) {
            None | Some(Attachment::End(_)) => ETH0,
            _ => {
                let highest = self.snapshot.interfaces.iter().map(|one| one.index).max().unwrap_or(ETH0);
                highest.saturating_add(interface).min(i32::MAX.unsigned_abs())
            }
        }
    }

    /// The active ports of a bridge.
    fn ports(&self, bridge: &Interface) -> Vec<&'a Interface> {
        let all = self.snapshot.interfaces.iter();
        all.filter(|port| port.master == Some(bridge.index) && port.up && port.running).collect()
    }

    /// Chooses the client on each link, and creates the nodes.
    fn nodes(&mut self) {
        for source in reach::sources(self.snapshot) {
            let Source::Link(name) = &source else { continue };
            let Some(interface) = self.snapshot.interface_named(name) else { continue };
            let Some(seat) = self.seat(interface).filter(|_| interface.running) else {
                let why = match self.role(interface.index) {
                    _ if !interface.running => "it has no carrier".to_owned(),
                    Role::Pair(other) => {
                        let other = self.snapshot.interface(other).map(|other| other.name.to_string());
                        format!("its other end is {}, on this host", other.unwrap_or_default())
                    }
                    _ => "it has no link".to_owned(),
                };
                self.twin.notes.push(format!("there is no client on link:{name}: {why}"));
                self.twin.without_client.push((source, why));
                continue;
            };
            let node = self.twin.plan.nodes.len();
            self.twin.plan.nodes.push(source.to_string());
            self.clients.insert(interface.index, (node, self.chooser.on_link(interface)));
            self.seats.insert(interface.index, seat);
            if let Attachment::End(wire) = seat {
                self.far.insert(wire, (node, eth0()));
            }
            let zone = self.zone(interface.index);
            self.twin.clients.push((source, Client { node, zone }));
        }
        for interface in &self.snapshot.interfaces {
            if self.role(interface.index) == Role::Wire && !self.far.contains_key(&interface.index) {
                let node = match self.twin.plan.index(FAR_ENDS) {
                    Some(node) => node,
                    None => {
                        self.twin.plan.nodes.push(FAR_ENDS.to_owned());
                        self.twin.plan.nodes.len() - 1
                    }
                };
                let name = IfName::from(format!("w{}", interface.index).as_str());
                self.far.insert(interface.index, (node, name));
            }
        }
        let ways = self.ways_out();
        if ways.iter().any(Option::is_some) {
            let node = self.twin.plan.nodes.len();
            self.twin.plan.nodes.push(BEYOND.to_owned());
            let [ipv4, ipv6] = ways.map(|way| way.map(|(_, interface, _)| interface));
            self.twin.beyond = Some(Beyond { node, ipv4, ipv6 });
        }
    }

    /// The default routes with a gateway that the twin can provide, IPv4 first.
    fn ways_out(&self) -> [Option<(IpAddr, u32, IpAddr)>; 2] {
        let ways = Family::BOTH.map(|family| self.chooser.beyond_default(family));
        ways.map(|way| way.filter(|(_, interface, _)| self.clients.contains_key(interface)))
    }

    fn settings(&mut self) {
        for (index, name) in self.twin.plan.nodes.clone().into_iter().enumerate() {
            let plan = &mut self.twin.plan;
            plan.push(index, Action::Namespace);
            let router = self.clients.iter().any(|(interface, (node, _))| {
                let beyond = self.twin.beyond;
                *node == index
                    && beyond.is_some_and(|beyond| [beyond.ipv4, beyond.ipv6].contains(&Some(*interface)))
            });
            plan.settings_of(index, &Node { name, forwarding: router, ..Node::default() });
            if index > 0 {
                // It accepts replies from the host's loopback addresses, and sends no redirects.
                for (setting, value) in [("route_localnet", "1"), ("send_redirects", "0")] {
                    for which in ["all", "default"] {
                        plan.set(index, format!("net/ipv4/conf/{which}/{setting}"), value, true);
                    }
                }
            }
        }
        let mut refused = Vec::new();
        for (name, value) in &self.snapshot.settings {
            // The range of ephemeral ports does not affect results.
            if name.starts_with("net.ipv4.ip_local_port_range.") {
                continue;
            }
            match setting_path(name) {
                Some(path) => self.twin.plan.set(0, path, &value.to_string(), true),
                None => refused.push(name),
            }
        }
        const SHOWN: usize = 10;
        for name in refused.iter().take(SHOWN) {
            self.skipped(format!(
                "{} is not copied: it is not a setting of a network namespace that a lab may change",
                crate::escape::escape(name)
            ));
        }
        if let Some(more) = refused.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            self.skipped(format!("{more} more settings are not copied, for the same reason"));
        }
        if !self.snapshot.ipv6_available {
            self.twin.plan.set(0, "net/ipv6/conf/all/disable_ipv6".to_owned(), "1", true);
        }
    }
}

fn role(snapshot: &Snapshot, interface: &Interface) -> Role {
    let link = interface.link.and_then(|link| snapshot.interface(link));
    match (interface.kind.as_ref(), link) {
        (Some(LinkKind::Bridge), _) => Role::Bridge,
        (Some(LinkKind::Vrf), _) => interface.vrf_table.map_or(Role::Absent, Role::Vrf),
        (Some(LinkKind::Macvlan), Some(parent))
            if !parent.loopback && parent.kind != Some(LinkKind::Macvlan) =>
        {
            Role::Macvlan(parent.index)
        }
        (Some(LinkKind::Veth), Some(other))
            if other.kind == Some(LinkKind::Veth) && other.link == Some(interface.index) =>
        {
            Role::Pair(other.index)
        }
        _ => Role::Wire,
    }
}

/// A valid Ethernet address for an interface.
fn mac_of(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map_while(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mac: [u8; 6] = bytes.try_into().ok()?;
    (mac != [0; 6] && mac[0] & 1 == 0).then_some(mac)
}

/// An address of another host, without a network.
fn plain(address: IpAddr) -> NewAddress {
    NewAddress::of(IpNet::from(address))
}
