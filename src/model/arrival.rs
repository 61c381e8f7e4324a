//! What arrived, and on which interface.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::addr::Family;
use super::ifname::IfName;
use super::socket::Protocol;

/// How the ingress interface is known, from strong to weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The kernel named it for this very connection or datagram.
    Kernel,
    /// The peer's or local address carries the zone.
    ScopeId,
    /// Inferred from the interface that owns the local address; under the weak host model it may be wrong.
    Address,
    /// Not known.
    Unknown,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Evidence::Kernel => "kernel",
            Evidence::ScopeId => "scope id",
            Evidence::Address => "address",
            Evidence::Unknown => "unknown",
        })
    }
}

/// The interface a connection's handshake or a datagram came in on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ingress {
    /// Its index; null when unknown.
    pub index: Option<u32>,
    /// Its name; null when unknown, or when the interface was gone before its name could be read.
    pub name: Option<IfName>,
    /// How it is known.
    pub evidence: Evidence,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address; a v4-mapped one is given as IPv4.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its scope id; null when it has none.
    pub scope_id: Option<u32>,
}

impl From<SocketAddr> for Endpoint {
    // Inlined, the addresses are taken apart into bytes: 40 instructions more for a connection (`cargo bench --bench cost`).
    #[inline(never)]
    fn from(address: SocketAddr) -> Endpoint {
        match address {
            SocketAddr::V4(v4) => Endpoint { address: IpAddr::V4(*v4.ip()), port: v4.port(), scope_id: None },
            SocketAddr::V6(v6) => Endpoint {
                address: v6.ip().to_canonical(),
                port: v6.port(),
                scope_id: (v6.scope_id() != 0).then_some(v6.scope_id()),
            },
        }
    }
}

/// A connection or datagram with everything known of how it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Name of the listener that took it.
    pub listener: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Family of the traffic: a v4-mapped peer is IPv4.
    pub family: Family,
    /// Whether it came as IPv4 to an AF_INET6 socket.
    pub v4_mapped: bool,
    /// Who connected or sent.
    pub peer: Endpoint,
    /// The address and port it was sent to.
    pub local: Endpoint,
    /// Where it came in.
    pub ingress: Ingress,
    /// The interface that has the local address; null when none has (AnyIP, broadcast, address gone).
    pub address_owner: Option<IfName>,
    /// Whether the peer's address is one of this host's own; null when that could not be told.
    pub peer_is_local: Option<bool>,
}

impl Arrival {
    /// An arrival of which nothing is known, to be filled in.
    #[must_use]
    pub fn nowhere() -> Arrival {
        let end = Endpoint { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port: 0, scope_id: None };
        Arrival {
            listener: String::new(),
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
            v4_mapped: false,
            peer: end.clone(),
            local: end,
            ingress: Ingress { index: None, name: None, evidence: Evidence::Unknown },
            address_owner: None,
            peer_is_local: None,
        }
    }
}

/// A connection whose later packets came in on another interface than its handshake. Only native IPv6 tells that on Linux, and
/// only of the packet that was the latest when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    /// Name of the listener that took it.
    pub listener: String,
    /// Who connected.
    pub peer: Endpoint,
    /// The address and port it was made to.
    pub local: Endpoint,
    /// Where its handshake came in.
    pub ingress: Ingress,
    /// Where its latest packets came in.
    pub later: Ingress,
}
