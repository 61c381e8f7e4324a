//! Kinds of network interfaces.

use serde::{Deserialize, Serialize};

/// The kind of an interface: of its hardware, or of its driver (`IFLA_INFO_KIND`). In documents this is the name that the system uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LinkKind {
    /// Several links as one.
    Bond,
    /// A bridge.
    Bridge,
    /// An interface that drops what it sends.
    Dummy,
    /// Ethernet hardware.
    Ether,
    /// The loopback interface.
    Loopback,
    /// A second address on the link of its parent.
    Macvlan,
    /// An Ethernet device of a process.
    Tap,
    /// Several links as one, controlled by a process.
    Team,
    /// One of two ends of a virtual link.
    Veth,
    /// One VLAN of its parent.
    Vlan,
    /// A set of interfaces with their own routing table.
    Vrf,
    /// Another kind, which has no rules of its own here.
    Other(String),
}

impl LinkKind {
    /// Whether hosts on such a link find each other by ARP and neighbour discovery, which `arp off` ends.
    #[must_use]
    pub fn asks_neighbours(&self) -> bool {
        match self {
            LinkKind::Bond
            | LinkKind::Bridge
            | LinkKind::Ether
            | LinkKind::Macvlan
            | LinkKind::Tap
            | LinkKind::Team
            | LinkKind::Veth
            | LinkKind::Vlan => true,
            LinkKind::Dummy | LinkKind::Loopback | LinkKind::Vrf | LinkKind::Other(_) => false,
        }
    }

    /// The system's name of the kind; unescaped.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            LinkKind::Bond => "bond",
            LinkKind::Bridge => "bridge",
            LinkKind::Dummy => "dummy",
            LinkKind::Ether => "ether",
            LinkKind::Loopback => "loopback",
            LinkKind::Macvlan => "macvlan",
            LinkKind::Tap => "tap",
            LinkKind::Team => "team",
            LinkKind::Veth => "veth",
            LinkKind::Vlan => "vlan",
            LinkKind::Vrf => "vrf",
            LinkKind::Other(name) => name,
        }
    }

    /// Whether its links carry Ethernet frames.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        !matches!(self, LinkKind::Loopback | LinkKind::Vrf | LinkKind::Other(_))
    }
}

impl From<String> for LinkKind {
    fn from(name: String) -> LinkKind {
        match name.as_str() {
            "bond" => LinkKind::Bond,
            "bridge" => LinkKind::Bridge,
            "dummy" => LinkKind::Dummy,
            "ether" => LinkKind::Ether,
            "loopback" => LinkKind::Loopback,
            "macvlan" => LinkKind::Macvlan,
            "tap" => LinkKind::Tap,
            "team" => LinkKind::Team,
            "veth" => LinkKind::Veth,
            "vlan" => LinkKind::Vlan,
            "vrf" => LinkKind::Vrf,
            _ => LinkKind::Other(name),
        }
    }
}

impl From<&str> for LinkKind {
    fn from(name: &str) -> LinkKind {
        name.to_owned().into()
    }
}

impl From<LinkKind> for String {
    fn from(kind: LinkKind) -> String {
        match kind {
            LinkKind::Other(name) => name,
            known => known.as_str().to_owned(),
        }
    }
}

impl AsRef<str> for LinkKind {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl std::fmt::Display for LinkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
