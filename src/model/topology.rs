//! The network of a lab: nodes, what connects them, and what happens to it while it runs.
//!
//! The serde shapes are those of the `[lab]` part of a profile (unknown keys are errors). What hangs together (names, prefixes) is
//! checked by [`Topology::problems`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ifname::IfName;

/// A lab's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The node in which the listeners are bound; the first one without.
    pub host: Option<String>,
    /// What it is for, in a sentence.
    pub description: Option<String>,
    /// Its nodes: hosts with a network of their own. Without any, those that links name.
    #[serde(default, rename = "node")]
    pub nodes: Vec<Node>,
    /// Wires between nodes.
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
    /// Firewall rules, where `nft` is at hand.
    #[serde(default, rename = "filter")]
    pub filters: Vec<Filter>,
    /// What happens while the lab runs.
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
    /// Settings of the node by dotted name (`net.ipv4.ip_nonlocal_bind`); for an interface whose name holds dots with slashes.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
    /// Addresses on `lo` besides 127.0.0.1 and ::1.
    #[serde(default)]
    pub loopback: Vec<LabAddress>,
}

/// A wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// One end.
    pub a: End,
    /// The other end.
    pub b: End,
    /// Whether duplicate address detection runs for its addresses. Off, they are usable at once.
    #[serde(default)]
    pub dad: bool,
    /// Whether both ends have a link-local IPv6 address. Made from the link-layer address, unless one is among the addresses.
    #[serde(default = "yes")]
    pub link_local: bool,
}

fn yes() -> bool {
    true
}

/// One end of a wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The node it is in.
    pub node: String,
    /// The interface's name there.
    pub interface: IfName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<LabAddress>,
    /// Whether it is put up.
    #[serde(default = "yes")]
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// The bridge of this node whose port it is.
    pub bridge: Option<IfName>,
}

impl End {
    /// Whether its MTU suffices for IPv6 (RFC 8200, section 5). The kernel gives it no IPv6 addresses without.
    #[must_use]
    pub fn carries_ipv6(&self) -> bool {
        self.mtu.is_none_or(|mtu| mtu >= 1280)
    }
}

/// A bridge inside a node. Ends of links become its ports by naming it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// The node it is in.
    pub node: String,
    /// Its name there.
    pub interface: IfName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<LabAddress>,
    /// Whether it has a link-local IPv6 address.
    #[serde(default = "yes")]
    pub link_local: bool,
}

/// A macvlan interface: a second interface on the wire of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Macvlan {
    /// The node it is in.
    pub node: String,
    /// Its name there.
    pub interface: IfName,
    /// The interface on whose wire it is.
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
    /// The node that has it.
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
    /// Whether the prefix is the node's own (AnyIP).
    #[serde(default)]
    pub local: bool,
}

impl LabRoute {
    /// The destination as a prefix; `None` when it is none.
    #[must_use]
    pub fn destination(&self) -> Option<IpNet> {
        match (self.to.as_str(), self.via) {
            ("default", Some(IpAddr::V4(_))) => "0.0.0.0/0".parse().ok(),
            ("default", Some(IpAddr::V6(_))) => "::/0".parse().ok(),
            (text, _) => text.parse().ok(),
        }
    }
}

/// A firewall rule, in the words of nft(8), in the chain `input` of a table of the lab's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The node that has it.
    pub node: String,
    /// The rule, such as `iifname eth1 tcp dport 9901 drop`.
    pub rule: String,
}

/// Something that happens while the lab runs. Events happen in their order; after each one every cell is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The node to which it happens; the host without.
    pub node: Option<String>,
    /// The interface to which it happens.
    pub interface: Option<IfName>,
    /// `down` or `up`.
    pub link: Option<LinkChange>,
    /// An address that is added to the interface.
    pub add: Option<LabAddress>,
    /// An address that is taken from the interface.
    pub remove: Option<IpNet>,
    /// The interface's new name.
    pub rename: Option<IfName>,
    /// Settings that change.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
}

/// What happens to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkChange {
    /// It is put down.
    Down,
    /// It is put up.
    Up,
}

/// An address with its prefix length and, after blanks, its state: `192.0.2.1/24`, `2001:db8::1/64 deprecated`,
/// `2001:db8::2/64 tentative`. With `dad`, an address that the other end of the wire has too ends as a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabAddress {
    /// Address and prefix length.
    pub net: IpNet,
    /// Past its preferred lifetime.
    pub deprecated: bool,
    /// Kept in duplicate address detection for longer than a lab lasts.
    pub tentative: bool,
    /// Whether it is checked for duplicates (IPv6); without, as its link says.
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
            format!("{net:?} is no address with a prefix length, such as 192.0.2.1/24 or 2001:db8::1/64")
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
                        "{word:?} is no state of an address (deprecated, tentative, dad, nodad)"
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
    /// Every node, in order: those that are named, then those that only ends of links name.
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

    /// The node in which listeners are bound.
    #[must_use]
    pub fn host_node(&self) -> Option<String> {
        self.host.clone().or_else(|| self.all_nodes().first().map(|node| node.name.clone()))
    }

    /// Everything that does not hang together, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            if !names.insert(node.name.as_str()) {
                out.push(format!("two nodes are called {:?}", node.name));
            }
        }
        // Where nodes are named, a link to another name is a slip; where none is, links are the list.
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
                    "{} is to be a port of {bridge}, which is no bridge of node {:?}",
                    end.interface, end.node
                ));
            }
        }
        for macvlan in &self.macvlans {
            if !interfaces.contains(&(macvlan.node.as_str(), macvlan.parent.clone())) {
                out.push(format!(
                    "{} is to be on the wire of {}, which node {:?} does not have",
                    macvlan.interface, macvlan.parent, macvlan.node
                ));
            }
            if macvlan.parent == macvlan.interface {
                out.push(format!("{} is to be on its own wire", macvlan.interface));
            }
        }
        if let Some((a, b)) = self.circle() {
            out.push(format!(
                "the bridges {a} and {b} are joined in a circle, in which a packet would go round for ever: take one of the links away"
            ));
        }
        for route in &self.routes {
            if route.destination().is_none() {
                out.push(format!("{:?} is no destination of a route: write a prefix such as 192.0.2.0/24, or \"default\" with via", route.to));
            }
            if route.via.is_none() && route.interface.is_none() && !route.local {
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
                    "{name:?} is no setting of a network: it begins with net. and holds neither blanks nor .."
                ));
            }
        }
        out
    }

    /// Two bridges that a link joins though they are joined already.
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

    /// Every interface but `lo`, with its node.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &IfName)> {
        let ends = self.links.iter().flat_map(|link| [&link.a, &link.b]);
        ends.map(|end| (end.node.as_str(), &end.interface))
            .chain(self.bridges.iter().map(|bridge| (bridge.node.as_str(), &bridge.interface)))
            .chain(self.macvlans.iter().map(|macvlan| (macvlan.node.as_str(), &macvlan.interface)))
    }
}

/// Why a node may not have this name: it is written into commands, paths and reports.
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
    (!name.chars().all(plain)).then_some("holds something else than letters, digits, . _ and -")
}

/// Why the kernel would not take the name of an interface (`dev_valid_name()` of `net/core/dev.c`).
fn bad_name(name: &IfName) -> Option<&'static str> {
    let bytes = name.as_bytes();
    match bytes {
        [] => Some("an interface needs a name"),
        b"." | b".." | b"lo" | b"all" | b"default" => Some("the name is taken"),
        _ if bytes.len() > IfName::MAX_LEN => Some("a name has at most 15 bytes"),
        _ if bytes.iter().any(|byte| b"/:%".contains(byte) || byte.is_ascii_whitespace()) => {
            Some("a name holds no blank, slash, colon or per cent sign")
        }
        _ => None,
    }
}

/// The path of a setting below `/proc/sys`: dots become slashes, unless it has slashes already. `None` for what is not
/// below `net`.
#[must_use]
pub fn setting_path(name: &str) -> Option<String> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let mut parts = path.split('/');
    let ok = parts.next() == Some("net")
        && parts.clone().count() > 0
        && parts.all(|part| {
            !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_whitespace)
        });
    ok.then_some(path)
}
