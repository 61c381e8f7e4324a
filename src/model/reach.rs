//! Sources and outcomes of connections.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ifname::IfName;

/// Source of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// This machine.
    Host,
    /// A client whose packets arrive on this interface.
    Link(IfName),
    /// A client beyond the routers of this interface's link, whose packets arrive on it.
    Beyond(IfName),
    /// A client whose packets arrive on this interface and whose address is in this network, which packet filters tell apart from
    /// the others.
    From(IfName, IpNet),
    /// A lab node.
    Node(String),
}

/// What follows the name of a link in the text of a source beyond it. No interface name has a blank (`dev_valid_name()`).
const BEYOND: &str = " beyond";
/// What stands between the name of a link and the network of a client.
const FROM: &str = " from ";

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Host => f.write_str("host"),
            Source::Link(name) => write!(f, "link:{name}"),
            Source::Beyond(name) => write!(f, "link:{name}{BEYOND}"),
            Source::From(name, network) => write!(f, "link:{name}{FROM}{network}"),
            Source::Node(name) => write!(f, "node:{}", crate::escape::escape(name)),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once(':') {
            None if text == "host" => Ok(Source::Host),
            Some(("link", name)) => Ok(match (name.strip_suffix(BEYOND), name.split_once(FROM)) {
                (Some(name), _) => Source::Beyond(IfName::from_escaped(name)),
                (None, Some((name, network))) => {
                    let network = network.parse().map_err(|_| {
                        serde::de::Error::custom(format_args!(
                            "{network:?} is not a network such as 10.0.0.0/8"
                        ))
                    })?;
                    Source::From(IfName::from_escaped(name), network)
                }
                (None, None) => Source::Link(IfName::from_escaped(name)),
            }),
            Some(("node", name)) => Ok(Source::Node(name.to_owned())),
            _ => Err(serde::de::Error::custom(format_args!(
                "{text:?} is not a source (host, link:NAME, node:NAME)"
            ))),
        }
    }
}

/// Outcome of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A listener accepted it.
    Accepted,
    /// The host replied that no socket listens (RST, ICMP port unreachable).
    Refused,
    /// No reply within the timeout.
    Timeout,
    /// No route (ENETUNREACH, EHOSTUNREACH).
    Unreachable,
    /// Another error.
    Error,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
            Outcome::Timeout => "timeout",
            Outcome::Unreachable => "unreachable",
            Outcome::Error => "error",
        })
    }
}

/// The interfaces of the host on which a capture recorded the packets of an arrival. Each list is in order and without
/// duplicates: a bridge port comes before its bridge. Empty if the capture recorded nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PacketsSeen {
    /// The SYN.
    pub syn: Vec<IfName>,
    /// The ACK that ends the handshake.
    pub ack: Vec<IfName>,
    /// The first packet with data; for UDP the datagram.
    pub data: Vec<IfName>,
    /// Whether they crossed `lo` from this host to itself. The kernel then reports the owner of the address.
    pub via_lo: bool,
    /// Whether they confirm the reported ingress interface; null if they were not recorded.
    pub confirms: Option<bool>,
}
