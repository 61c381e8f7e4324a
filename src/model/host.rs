//! Snapshot of a host's network: interfaces, addresses, routes and the settings that affect binds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::addr::{AddrClass, Family};
use super::filters::PacketFilters;
use super::ifname::IfName;
use super::link_kind::LinkKind;
use super::rule_action::RuleAction;

/// The host on which a document was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What identifies the host among others: `--host-id`, or else its name; null if neither is known.
    #[serde(default)]
    pub id: Option<String>,
    /// The host's name; null if it cannot be read.
    pub name: Option<String>,
    /// The operating system: `linux`, `macos`, `freebsd`, `windows`.
    pub system: String,
    /// The kernel's release, such as `6.18.44`; null if it cannot be read.
    pub release: Option<String>,
    /// Build of the kernel (`uname -v`), which on some systems identifies its release more exactly; null if it cannot
    /// be read.
    #[serde(default)]
    pub build: Option<String>,
    /// The inode of the network namespace (`/proc/thread-self/ns/net`), or null where there is none.
    pub netns: Option<u64>,
}

/// An immutable snapshot of the host's network. Lists are sorted: interfaces by index, addresses by family and value,
/// routes by table and destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The host.
    pub host: Host,
    /// False if anything could not be read; [`Snapshot::incomplete_because`] has the reasons.
    pub complete: bool,
    /// One sentence for each part that could not be read.
    pub incomplete_because: Vec<String>,
    /// Every interface, including those without addresses.
    pub interfaces: Vec<Interface>,
    /// Routes that do not follow from addresses: local routes (AnyIP), unicast routes, blackholes. Empty if the system
    /// does not report routes.
    pub routes: Vec<Route>,
    /// Policy rules except the three default rules of Linux. Empty if the system does not report rules.
    pub rules: Vec<Rule>,
    /// Default rules that were removed.
    #[serde(default)]
    pub missing_default_rules: Vec<Rule>,
    /// Settings of the whole network namespace, by dotted name (`net.ipv6.bindv6only`). Settings of interfaces are in
    /// [`Interface::settings`]. A setting that could not be read is absent.
    pub settings: BTreeMap<String, i64>,
    /// False if no AF_INET6 socket can be created (kernel started with `ipv6.disable=1`, module absent).
    pub ipv6_available: bool,
    /// Where two sources about interfaces differ, one sentence each (see `BS4001`).
    pub disagreements: Vec<String>,
    /// The multicast groups that interfaces have joined, with the indexes of the interfaces; null if not read.
    #[serde(default)]
    pub groups: Option<BTreeMap<IpAddr, Vec<u32>>>,
    /// Packet filters; null if not read.
    #[serde(default)]
    pub packet_filters: Option<PacketFilters>,
    /// Network features that this snapshot cannot represent, one sentence each.
    #[serde(default)]
    pub unsupported: Vec<String>,
}

/// A kernel network interface, identified by (index, name), never by an IPv4 label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The kernel's interface index, from 1; null in documents if the system does not report it. Inside the program such an
    /// interface has a stand-in, see [`number_interfaces`].
    #[serde(with = "index_or_null")]
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Alternative names (`IFLA_ALT_IFNAME`), by which the kernel finds it as well; sorted.
    #[serde(default)]
    pub altnames: Vec<IfName>,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Operational (IFF_RUNNING; on Linux operstate UP or UNKNOWN).
    pub running: bool,
    /// A loopback interface (IFF_LOOPBACK).
    pub loopback: bool,
    /// Point-to-point (IFF_POINTOPOINT).
    pub point_to_point: bool,
    /// Able to multicast (IFF_MULTICAST).
    pub multicast: bool,
    /// Kind: `loopback`, `ether`, or a driver's kind such as `veth`, `bridge`, `macvlan`, `tun`, `vxlan`; null if the
    /// system does not report it.
    pub kind: Option<LinkKind>,
    /// Maximum transmission unit in bytes; null when the system does not say.
    pub mtu: Option<u32>,
    /// Link-layer address as `02:fc:00:00:00:01`, or null.
    pub mac: Option<String>,
    /// Index of the bridge, VRF or bond it is enslaved to.
    pub master: Option<u32>,
    /// Index of the parent interface (macvlan, VLAN) or of the other end (veth) in this namespace; null if there is
    /// none here.
    #[serde(default)]
    pub link: Option<u32>,
    /// The routing table of a VRF; null for others.
    #[serde(default)]
    pub vrf_table: Option<u32>,
    /// Its group (`ip link set group`), which rules with `suppress_ifgroup` look at.
    #[serde(default)]
    pub group: u32,
    /// True when it neither sends nor answers ARP (IFF_NOARP).
    #[serde(default)]
    pub no_arp: bool,
    /// Its addresses, sorted.
    pub addresses: Vec<InterfaceAddress>,
    /// Per-interface settings that decide binds and delivery: `ipv4.route_localnet`, `ipv4.rp_filter`, `ipv4.arp_ignore`,
    /// `ipv4.accept_local`, `ipv4.forwarding`, `ipv6.disable_ipv6`, `ipv6.forwarding`, ... A setting that could not be read is absent.
    pub settings: BTreeMap<String, i64>,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The address itself.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Its family.
    pub family: Family,
    /// Its class.
    pub class: AddrClass,
    /// The interface's index for a link-local IPv6 address, null else.
    pub scope_id: Option<u32>,
    /// IPv4 label (`eth0:1`), which need not be the name of an interface; null for IPv6 and on systems without labels.
    pub label: Option<IfName>,
    /// The peer address of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// The broadcast address.
    pub broadcast: Option<IpAddr>,
    /// Its states, sorted; empty if the system does not report them.
    pub state: Vec<AddrState>,
    /// Scope; null if the system does not report it.
    #[serde(default)]
    pub scope: Option<Scope>,
}

/// Scope of an address (`RT_SCOPE_*` of `linux/rtnetlink.h`); a number if it has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everywhere.
    Global,
    /// In this site.
    Site,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Nowhere.
    Nowhere,
    /// Another scope.
    #[serde(untagged)]
    Other(u8),
}

/// Names of scopes with the kernel's numbers.
const SCOPES: [(Scope, u8, &str); 5] = [
    (Scope::Global, 0, "global"),
    (Scope::Site, 200, "site"),
    (Scope::Link, 253, "link"),
    (Scope::Host, 254, "host"),
    (Scope::Nowhere, 255, "nowhere"),
];

impl Scope {
    /// The scope with the kernel's number.
    #[must_use]
    pub fn from_number(number: u8) -> Scope {
        SCOPES.iter().find(|known| known.1 == number).map_or(Scope::Other(number), |known| known.0)
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Scope::Other(number) => number,
            _ => SCOPES.iter().find(|known| known.0 == self).map_or(0, |known| known.1),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match SCOPES.iter().find(|known| known.0 == *self) {
            Some((_, _, name)) => f.write_str(name),
            None => write!(f, "{}", self.number()),
        }
    }
}

/// Indexes from here are stand-ins. The indexes of kernels are positive numbers of type `int`.
const FIRST_STAND_IN: u32 = 1 << 31;

/// The index, or `None` for a stand-in.
#[must_use]
pub fn known_index(index: u32) -> Option<u32> {
    (index < FIRST_STAND_IN).then_some(index)
}

/// Gives each interface with index 0, which the system did not report, a stand-in: interfaces stay apart, and no stand-in is
/// shown.
pub fn number_interfaces(interfaces: &mut [Interface]) {
    let unknown = interfaces.iter_mut().filter(|interface| interface.index == 0);
    for (interface, stand_in) in unknown.zip(FIRST_STAND_IN..) {
        interface.index = stand_in;
    }
}

/// [`Interface::index`] in documents. An unknown index is read as 0; [`number_interfaces`] has to follow.
mod index_or_null {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(index: &u32, to: S) -> Result<S::Ok, S::Error> {
        super::known_index(*index).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        Option::<u32>::deserialize(from).map(Option::unwrap_or_default)
    }
}

impl Interface {
    /// An interface of which only index and name are known: down, without addresses.
    #[must_use]
    pub fn new(index: u32, name: IfName) -> Interface {
        Interface {
            index,
            name,
            altnames: Vec::new(),
            up: false,
            running: false,
            loopback: false,
            point_to_point: false,
            multicast: false,
            kind: None,
            mtu: None,
            mac: None,
            master: None,
            link: None,
            vrf_table: None,
            group: 0,
            no_arp: false,
            addresses: Vec::new(),
            settings: BTreeMap::new(),
        }
    }
}

impl InterfaceAddress {
    /// An address with only its prefix length.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> InterfaceAddress {
        InterfaceAddress {
            address,
            prefix,
            family: Family::of(address),
            class: AddrClass::of(address),
            scope_id: None,
            label: None,
            peer: None,
            broadcast: None,
            state: Vec::new(),
            scope: None,
        }
    }

    /// Whether it is in this state.
    #[must_use]
    pub fn is(&self, state: AddrState) -> bool {
        self.state.contains(&state)
    }
}

/// A state of an address (`IFA_F_*` of `linux/if_addr.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddrState {
    /// It has no lifetime (IFA_F_PERMANENT).
    Permanent,
    /// It came from a router or DHCP and has a lifetime.
    Dynamic,
    /// Duplicate address detection runs (IFA_F_TENTATIVE): bind gives EADDRNOTAVAIL.
    Tentative,
    /// Another host has it (IFA_F_DADFAILED): bind gives EADDRNOTAVAIL.
    Dadfailed,
    /// Usable while tentative (IFA_F_OPTIMISTIC, RFC 4429).
    Optimistic,
    /// Preferred lifetime has expired (IFA_F_DEPRECATED): it can be bound.
    Deprecated,
    /// A privacy address (IFA_F_TEMPORARY, RFC 8981).
    Temporary,
    /// An additional IPv4 address of the same subnet (IFA_F_SECONDARY).
    Secondary,
    /// Duplicate address detection is off for it (IFA_F_NODAD).
    Nodad,
}

/// A route as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Routing table: 255 is `local`, 254 is `main`.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Destination; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: IpNet,
    /// Index of the outgoing interface.
    pub interface: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Priority; the lowest wins.
    pub metric: Option<u32>,
    /// Weight, from 1, if it is one of several next hops for load sharing; null otherwise.
    #[serde(default)]
    pub weight: Option<u32>,
    /// The type of service of the packets it is for; 0 for all packets.
    #[serde(default)]
    pub tos: u8,
    /// The source prefix of the packets it is for (IPv6 only); null for all packets.
    #[serde(default)]
    pub from: Option<IpNet>,
    /// The router's preference (RFC 4191), which decides between IPv6 routes of one metric; null for medium.
    #[serde(default)]
    pub preference: Option<RouterPreference>,
    /// Number of the next hop object or group that it uses; null without one.
    #[serde(default)]
    pub nexthop: Option<u32>,
    /// True when the kernel does not use it (RTNH_F_DEAD): its interface is down, or has no carrier where
    /// `ignore_routes_with_linkdown` is on.
    #[serde(default)]
    pub dead: bool,
    /// True when it encapsulates packets (RTA_ENCAP).
    #[serde(default)]
    pub encapsulated: bool,
    /// Other metrics (`RTAX_*` of `linux/rtnetlink.h`), such as `mtu` in bytes, with the names of `ip route`.
    #[serde(default)]
    pub metrics: BTreeMap<String, u32>,
}

impl Route {
    /// A route with only a destination: without interface, gateway, source and metrics.
    #[must_use]
    pub fn new(table: u32, kind: RouteKind, destination: IpNet) -> Route {
        Route {
            table,
            kind,
            destination,
            interface: None,
            gateway: None,
            source: None,
            metric: None,
            weight: None,
            tos: 0,
            from: None,
            preference: None,
            nexthop: None,
            dead: false,
            encapsulated: false,
            metrics: BTreeMap::new(),
        }
    }
}

/// A router's preference other than medium (RFC 4191, section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouterPreference {
    /// Used after the others.
    Low,
    /// Used before the others.
    High,
}

/// Names of [`Route::metrics`], by `RTAX_*` from 1; irrelevant ones have no name.
pub const ROUTE_METRICS: [&str; 17] = [
    "lock",
    "mtu",
    "window",
    "rtt",
    "rttvar",
    "ssthresh",
    "cwnd",
    "advmss",
    "reordering",
    "hoplimit",
    "initcwnd",
    "features",
    "rto_min",
    "initrwnd",
    "quickack",
    "congctl",
    "fastopen_no_cookie",
];

/// Type of a route (`RTN_*` of `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Forwards the packet.
    Unicast,
    /// The destination is this host.
    Local,
    /// Broadcast.
    Broadcast,
    /// Anycast.
    Anycast,
    /// Multicast.
    Multicast,
    /// Drops the packet silently.
    Blackhole,
    /// Replies with "host unreachable".
    Unreachable,
    /// Replies with "administratively prohibited".
    Prohibit,
    /// Continues with the next rule.
    Throw,
    /// A type that this program does not know.
    Other,
}

/// A policy routing rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its family.
    pub family: Family,
    /// Priority; the lowest is evaluated first.
    pub priority: u32,
    /// Source prefix it matches.
    pub from: Option<IpNet>,
    /// Destination prefix it matches.
    pub to: Option<IpNet>,
    /// Incoming interface it matches.
    pub iif: Option<IfName>,
    /// Outgoing interface it matches.
    pub oif: Option<IfName>,
    /// Firewall mark it matches.
    pub fwmark: Option<u32>,
    /// The bits of the mark that count; null for all of them.
    #[serde(default)]
    pub fwmask: Option<u32>,
    /// Whether the conditions are inverted.
    #[serde(default)]
    pub inverted: bool,
    /// Routes with a prefix of at most this length are ignored; null for none.
    #[serde(default)]
    pub suppress_prefix: Option<u32>,
    /// Routes over an interface of this group are ignored; null for none.
    #[serde(default)]
    pub suppress_group: Option<u32>,
    /// The type of service it matches; null for all.
    #[serde(default)]
    pub tos: Option<u8>,
    /// The DSCP it matches exactly, 0 included; null for all.
    #[serde(default)]
    pub dscp: Option<u8>,
    /// The IP protocol number it matches; null for all.
    #[serde(default)]
    pub ip_protocol: Option<u8>,
    /// First and last source port it matches; null for all.
    #[serde(default)]
    pub source_ports: Option<(u16, u16)>,
    /// First and last destination port it matches; null for all.
    #[serde(default)]
    pub destination_ports: Option<(u16, u16)>,
    /// First and last user id it matches; null for all.
    #[serde(default)]
    pub users: Option<(u32, u32)>,
    /// The priority of the rule that a `goto` continues with; null for other actions.
    #[serde(default)]
    pub goto: Option<u32>,
    /// The table; null for an action other than a lookup.
    pub table: Option<u32>,
    /// What it does with a packet that it matches.
    pub action: RuleAction,
}

impl Rule {
    /// A rule without conditions that is evaluated first and has no effect yet.
    #[must_use]
    pub fn any(family: Family) -> Rule {
        Rule {
            family,
            priority: 0,
            from: None,
            to: None,
            iif: None,
            oif: None,
            fwmark: None,
            fwmask: None,
            inverted: false,
            suppress_prefix: None,
            suppress_group: None,
            tos: None,
            dscp: None,
            ip_protocol: None,
            source_ports: None,
            destination_ports: None,
            users: None,
            goto: None,
            table: None,
            action: RuleAction::Nop,
        }
    }
}

impl Snapshot {
    /// The index of the VRF that an interface is or belongs to; 0 if none.
    #[must_use]
    pub fn vrf_of(&self, interface: &Interface) -> u32 {
        let is_vrf = |interface: &Interface| interface.kind == Some(LinkKind::Vrf);
        if is_vrf(interface) {
            return interface.index;
        }
        let master = interface.master.and_then(|index| self.interface(index));
        master.filter(|master| is_vrf(master)).map_or(0, |master| master.index)
    }

    /// The interface with this index.
    #[must_use]
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        // Sorted by index; but snapshots edited by users may not be, so there is no binary search.
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The interface with this name or alternative name, as the kernel looks names up (`netdev_name_node_lookup()` of
    /// `net/core/dev.c`).
    #[must_use]
    pub fn interface_named(&self, name: &IfName) -> Option<&Interface> {
        let by_name = self.interfaces.iter().find(|interface| &interface.name == name);
        by_name.or_else(|| self.interfaces.iter().find(|interface| interface.altnames.contains(name)))
    }

    /// The address that has this IPv4 label, with its interface.
    #[must_use]
    pub fn labelled(&self, label: &IfName) -> Option<(&Interface, &InterfaceAddress)> {
        self.addresses().find(|(_, address)| address.label.as_ref() == Some(label))
    }

    /// Every address with its interface.
    pub fn addresses(&self) -> impl Iterator<Item = (&Interface, &InterfaceAddress)> {
        self.interfaces
            .iter()
            .flat_map(|interface| interface.addresses.iter().map(move |address| (interface, address)))
    }

    /// A setting of the namespace by its dotted name.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<i64> {
        self.settings.get(name).copied()
    }
}
