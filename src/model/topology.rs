//! The network of a lab: nodes, links, and events while the lab runs.
//!
//! The serde forms are those of `[lab]` in a profile (unknown keys are errors). [`Topology::problems`] checks
//! consistency (names, prefixes).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ifname::IfName;
use super::{RouteKind, Rule};

/// A lab's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The node that has the listeners; the first node if empty.
    pub host: Option<String>,
    /// Description, one sentence.
    pub description: Option<String>,
    /// Nodes: hosts with their own network. If empty, the nodes that links name.
    #[serde(default, rename = "node")]
    pub nodes: Vec<Node>,
    /// Links between nodes.
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
    /// Bridges inside nodes.
    #[serde(default, rename = "bridge")]
    pub bridges: Vec<Bridge>,
    /// Macvlan interfaces.
    #[serde(default, rename = "macvlan")]
    pub macvlans: Vec<Macvlan>,
    /// Routes.
    #[serde(default, rename = "route")]
    pub routes: Vec<LabRoute>,
    /// Policy rules, one for each family.
    #[serde(default, rename = "rule")]
    pub rules: Vec<LabRule>,
    /// Firewall rules, if `nft` is installed.
    #[serde(default, rename = "filter")]
    pub filters: Vec<Filter>,
    /// Events while the lab runs.
    #[serde(default, rename = "event")]
    pub events: Vec<Event>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it forwards packets between its interfaces.
    #[serde(default)]
    pub forwarding: bool,
    /// Settings of the node by dotted name (`net.ipv4.ip_nonlocal_bind`). Use slashes for an interface whose name
    /// contains dots.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
    /// Addresses on `lo` in addition to 127.0.0.1 and ::1.
    #[serde(default)]
    pub loopback: Vec<LabAddress>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// One end.
    pub a: End,
    /// The other end.
    pub b: End,
    /// Whether duplicate address detection runs for its addresses. If off, they are usable immediately.
    #[serde(default)]
    pub dad: bool,
    /// Whether both ends have a link-local IPv6 address. It is derived from the link-layer address, unless the
    /// addresses contain one.
    #[serde(default = "yes")]
    pub link_local: bool,
}

fn yes() -> bool {
    true
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Its node.
    pub node: String,
    /// Name of the interface there.
    pub interface: IfName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<LabAddress>,
    /// Whether it is set up.
    #[serde(default = "yes")]
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// The bridge of this node that it is a port of.
    pub bridge: Option<IfName>,
}

impl End {
    /// Whether its MTU is sufficient for IPv6 (RFC 8200, section 5). Otherwise the kernel assigns no IPv6 addresses to
    /// it.
    #[must_use]
    pub fn carries_ipv6(&self) -> bool {
        self.mtu.is_none_or(|mtu| mtu >= 1280)
    }
}

/// A bridge inside a node. Ends of links become its ports by naming it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Its node.
    pub node: String,
    /// Name of the interface there.
    pub interface: IfName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<LabAddress>,
    /// Whether it has a link-local IPv6 address.
    #[serde(default = "yes")]
    pub link_local: bool,
}

/// A macvlan interface: a second interface on the link of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Macvlan {
    /// Its node.
    pub node: String,
    /// Name of the interface there.
    pub interface: IfName,
    /// The parent interface.
    pub parent: IfName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<LabAddress>,
    /// Whether it has a link-local IPv6 address.
    #[serde(default = "yes")]
    pub link_local: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabRoute {
    /// Its node.
    pub node: String,
    /// Destination: a prefix or `default`, which needs `via`.
    pub to: String,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Outgoing interface.
    pub interface: Option<IfName>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Priority; the lowest wins.
    pub metric: Option<u32>,
    /// Whether the prefix belongs to the node (AnyIP).
    #[serde(default)]
    pub local: bool,
    /// The routing table; `main` if empty.
    pub table: Option<u32>,
    /// What the route does: `unicast`, `blackhole`, `unreachable`, `prohibit` or `throw`.
    #[serde(default = "unicast")]
    pub kind: RouteKind,
}

fn unicast() -> RouteKind {
    RouteKind::Unicast
}

impl LabRoute {
    /// Whether it needs no next hop: the prefix is the node's own, or packets are not sent.
    #[must_use]
    pub fn ends_here(&self) -> bool {
        self.local || self.kind != RouteKind::Unicast
    }

    /// The destination as a prefix; `None` if it is not one.
    #[must_use]
    pub fn destination(&self) -> Option<IpNet> {
        match (self.to.as_str(), self.via) {
            ("default", Some(IpAddr::V4(_))) => "0.0.0.0/0".parse().ok(),
            ("default", Some(IpAddr::V6(_))) => "::/0".parse().ok(),
            (text, _) => text.parse().ok(),
        }
    }
}

/// A policy rule of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabRule {
    /// Its node.
    pub node: String,
    /// The rule.
    pub rule: Rule,
}

/// A firewall rule in the syntax of nft(8), in the chain `input` of a separate table of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Its node.
    pub node: String,
    /// The rule, such as `iifname eth1 tcp dport 9901 drop`.
    pub rule: String,
}

/// An event while the lab runs. Events happen in order; after each one all connections are repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The affected node; the host if empty.
    pub node: Option<String>,
    /// The affected interface.
    pub interface: Option<IfName>,
    /// `down` or `up`.
    pub link: Option<LinkChange>,
    /// An address to add to the interface.
    pub add: Option<LabAddress>,
    /// An address to remove from the interface.
    pub remove: Option<IpNet>,
    /// The new name of the interface.
    pub rename: Option<IfName>,
    /// Settings to change.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
}

/// State change of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkChange {
    /// Set down.
    Down,
    /// Set up.
    Up,
}

/// An address with its prefix length and, after a blank, its state: `192.0.2.1/24`, `2001:db8::1/64 deprecated`,
/// `2001:db8::2/64 tentative`. With `dad`, an address that the other end of the link has too becomes a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabAddress {
    /// Address and prefix length.
    pub net: IpNet,
    /// Preferred lifetime has expired.
    pub deprecated: bool,
    /// Kept in duplicate address detection for longer than the lab runs.
    pub tentative: bool,
    /// Whether it is checked for duplicates (IPv6); by default, as its link.
    pub dad: Option<bool>,
}

impl From<IpNet> for LabAddress {
    fn from(net: IpNet) -> LabAddress {
        LabAddress { net, deprecated: false, tentative: false, dad: None }
    }
}

impl fmt::Display for LabAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.net.fmt(f)?;
        let dad = |wanted| self.dad == Some(wanted);
        for (is, word) in [
            (self.deprecated, " deprecated"),
            (self.tentative, " tentative"),
            (dad(true), " dad"),
            (dad(false), " nodad"),
        ] {
            if is {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

impl FromStr for LabAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<LabAddress, String> {
        let mut words = text.split_whitespace();
        let net = words.next().unwrap_or_default();
        let net = net.parse::<IpNet>().map_err(|_| {
            format!("{net:?} is not an address with a prefix length, such as 192.0.2.1/24 or 2001:db8::1/64")
        })?;
        if let IpAddr::V6(v6) = net.addr()
            && (v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some())
        {
            return Err(format!("no interface can be given the address {v6}"));
        }
        let mut address = LabAddress::from(net);
        for word in words {
            match word {
                "deprecated" => address.deprecated = true,
                "tentative" if net.addr().is_ipv6() => address.tentative = true,
                "dad" if net.addr().is_ipv6() => address.dad = Some(true),
                "nodad" if net.addr().is_ipv6() => address.dad = Some(false),
                "tentative" => return Err(format!("{net} is IPv4, which is never tentative")),
                "dad" | "nodad" => return Err(format!("{net} is IPv4, which is not checked for duplicates")),
                _ => {
                    return Err(format!(
                        "{word:?} is not an address state (deprecated, tentative, dad, nodad)"
                    ));
                }
            }
        }
        if address.tentative && address.dad == Some(false) {
            return Err(format!("{net} cannot be tentative without being checked for duplicates"));
        }
        Ok(address)
    }
}

impl Serialize for LabAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LabAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LabAddress, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Topology {
    /// Every node, in order: first the named ones, then those that only ends of links name.
    #[must_use]
    pub fn all_nodes(&self) -> Vec<Node> {
        let mut nodes = self.nodes.clone();
        let ends = self.links.iter().flat_map(|link| [&link.a.node, &link.b.node]);
        for name in ends {
            if !nodes.iter().any(|node| &node.name == name) {
                nodes.push(Node { name: name.clone(), ..Node::default() });
            }
        }
        nodes
    }

    /// The node that has the listeners.
    #[must_use]
    pub fn host_node(&self) -> Option<String> {
        self.host.clone().or_else(|| self.all_nodes().first().map(|node| node.name.clone()))
    }

    /// Every inconsistency, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            if !names.insert(node.name.as_str()) {
                out.push(format!("two nodes are called {:?}", node.name));
            }
        }
        // If nodes are declared, a link to another name is a mistake. If none is, the links define the nodes.
        let declared = !self.nodes.is_empty();
        let nodes = self.all_nodes();
        let known: BTreeSet<&str> =
            if declared { names } else { nodes.iter().map(|node| node.name.as_str()).collect() };
        let mut asked = |name: &str, by: &str| {
            if !known.contains(name) {
                let all = known.iter().copied().collect::<Vec<_>>().join(", ");
                out.push(format!("{by} names the node {name:?}, and there is none (nodes: {all})"));
            }
        };
        if let Some(host) = &self.host {
            asked(host, "host");
        }
        for end in self.links.iter().flat_map(|link| [&link.a, &link.b]) {
            asked(&end.node, "a link");
        }
        for (node, by) in self.bridges.iter().map(|bridge| (&bridge.node, "a bridge")).chain(
            self.macvlans
                .iter()
                .map(|macvlan| (&macvlan.node, "a macvlan"))
                .chain(self.routes.iter().map(|route| (&route.node, "a route")))
                .chain(self.rules.iter().map(|rule| (&rule.node, "a rule")))
                .chain(self.filters.iter().map(|filter| (&filter.node, "a filter")))
                .chain(self.events.iter().filter_map(|event| Some((event.node.as_ref()?, "an event")))),
        ) {
            asked(node, by);
        }
        if nodes.is_empty() {
            out.push("the lab has no node: write at least one [[lab.link]] or [[lab.node]]".to_owned());
        }
        let mut interfaces = BTreeSet::new();
        for (node, interface) in self.interfaces() {
            if let Some(why) = bad_name(interface) {
                out.push(format!("{interface} in node {node:?}: {why}"));
            }
            if !interfaces.insert((node, interface.clone())) {
                out.push(format!("two interfaces of node {node:?} are called {interface}"));
            }
        }
        for end in self.links.iter().flat_map(|link| [&link.a, &link.b]) {
            if let Some(bridge) = &end.bridge
                && !self.bridges.iter().any(|b| b.node == end.node && &b.interface == bridge)
            {
                out.push(format!(
                    "{} is to be a port of {bridge}, which is not a bridge of node {:?}",
                    end.interface, end.node
                ));
            }
        }
        for macvlan in &self.macvlans {
            if !interfaces.contains(&(macvlan.node.as_str(), macvlan.parent.clone())) {
                out.push(format!(
                    "{} is to be on the link of {}, which node {:?} does not have",
                    macvlan.interface, macvlan.parent, macvlan.node
                ));
            }
            if macvlan.parent == macvlan.interface {
                out.push(format!("{} is its own parent interface", macvlan.interface));
            }
        }
        if let Some((a, b)) = self.circle() {
            out.push(format!(
                "the bridges {a} and {b} form a loop, in which packets would circulate forever: remove one of the links"
            ));
        }
        for route in &self.routes {
            if route.destination().is_none() {
                out.push(format!("{:?} is not a valid route destination: write a prefix such as 192.0.2.0/24, or \"default\" with via", route.to));
            }
            if route.via.is_none() && route.interface.is_none() && !route.ends_here() {
                out.push(format!("the route to {} needs via or interface", route.to));
            }
        }
        for event in &self.events {
            let asks = usize::from(event.link.is_some())
                + usize::from(event.add.is_some())
                + usize::from(event.remove.is_some())
                + usize::from(event.rename.is_some());
            if asks + usize::from(!event.sysctl.is_empty()) != 1 {
                out.push("an event is exactly one of link, add, remove, rename, sysctl".to_owned());
            }
            if asks > 0 && event.interface.is_none() {
                out.push("an event with link, add, remove or rename needs interface".to_owned());
            }
        }
        let settings =
            self.nodes.iter().map(|node| &node.sysctl).chain(self.events.iter().map(|event| &event.sysctl));
        for name in settings.flat_map(BTreeMap::keys) {
            if setting_path(name).is_none() {
                out.push(format!(
                    "{name:?} is not a network setting that a lab may change: `bindscope explain lab` lists them"
                ));
            }
        }
        out
    }

    /// Two bridges that a link joins although they are already joined.
    fn circle(&self) -> Option<(&IfName, &IfName)> {
        let mut groups: Vec<BTreeSet<(&str, &IfName)>> = Vec::new();
        for Link { a, b, .. } in &self.links {
            let (Some(left), Some(right)) = (&a.bridge, &b.bridge) else { continue };
            let ends = [(a.node.as_str(), left), (b.node.as_str(), right)];
            let (touched, others): (Vec<_>, Vec<_>) =
                groups.into_iter().partition(|group| ends.iter().any(|end| group.contains(end)));
            if ends[0] == ends[1] || touched.iter().any(|group| ends.iter().all(|end| group.contains(end))) {
                return Some((left, right));
            }
            groups = others;
            groups.push(touched.into_iter().flatten().chain(ends).collect());
        }
        None
    }

    /// Every interface except `lo`, with its node.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &IfName)> {
        let ends = self.links.iter().flat_map(|link| [&link.a, &link.b]);
        ends.map(|end| (end.node.as_str(), &end.interface))
            .chain(self.bridges.iter().map(|bridge| (bridge.node.as_str(), &bridge.interface)))
            .chain(self.macvlans.iter().map(|macvlan| (macvlan.node.as_str(), &macvlan.interface)))
    }
}

/// Why a node cannot have this name: it becomes part of commands, paths and reports.
#[must_use]
pub fn bad_node_name(name: &str) -> Option<&'static str> {
    match name.chars().next() {
        Some(first) if first.is_alphanumeric() || first == '_' => {}
        _ => return Some("begins with something else than a letter, a digit or _"),
    }
    if name.chars().count() > 64 {
        return Some("has more than 64 characters");
    }
    let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
    (!name.chars().all(plain)).then_some("contains other characters than letters, digits, . _ and -")
}

/// Why the kernel would refuse this interface name (`dev_valid_name()` of `net/core/dev.c`).
fn bad_name(name: &IfName) -> Option<&'static str> {
    let bytes = name.as_bytes();
    match bytes {
        [] => Some("an interface needs a name"),
        b"." | b".." | b"lo" | b"all" | b"default" => Some("the name is taken"),
        _ if bytes.len() > IfName::MAX_LEN => Some("a name has at most 15 bytes"),
        _ if bytes.iter().any(|byte| b"/:%".contains(byte) || byte.is_ascii_whitespace()) => {
            Some("a name must not contain a blank, slash, colon or percent sign")
        }
        _ => None,
    }
}

/// The path of a setting below `/proc/sys`: dots become slashes, unless the name already has slashes. `None` for a name that is not
/// one of those that a lab may change.
#[must_use]
pub fn setting_path(name: &str) -> Option<String> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    super::setting::is_changeable(&path).then_some(path)
}
