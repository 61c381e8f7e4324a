//! Who connects, and what comes of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ifname::IfName;

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// This machine itself.
    Host,
    /// Somebody whose packets arrive on this interface.
    Link(IfName),
    /// A lab node.
    Node(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Host => f.write_str("host"),
            Source::Link(name) => write!(f, "link:{name}"),
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
            Some(("link", name)) => Ok(Source::Link(IfName::from_escaped(name))),
            Some(("node", name)) => Ok(Source::Node(name.to_owned())),
            _ => Err(serde::de::Error::custom(format_args!(
                "{text:?} is no source (host, link:NAME, node:NAME)"
            ))),
        }
    }
}

/// What comes of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A listener took it.
    Accepted,
    /// The host answered that nobody listens (RST, ICMP port unreachable).
    Refused,
    /// Nothing came back in time.
    Timeout,
    /// No way there (ENETUNREACH, EHOSTUNREACH).
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

/// On which interfaces of the host the packets of an accepted connection or datagram were seen, by a capture beside the kernel's
/// report. Each list is in order and holds each interface once: behind the port of a bridge comes the bridge. Empty where
/// nothing was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PacketsSeen {
    /// The SYN.
    pub syn: Vec<IfName>,
    /// The ACK that ends the handshake.
    pub ack: Vec<IfName>,
    /// The first packet with data; of UDP the datagram.
    pub data: Vec<IfName>,
    /// Whether they crossed `lo` from this host to itself, where the kernel reports the owner of the address.
    pub via_lo: bool,
    /// Whether they bear out the reported ingress interface; null when they were not seen.
    pub confirms: Option<bool>,
}
