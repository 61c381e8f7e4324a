//! Arrivals: accepted connections and received datagrams, with their ingress interface.

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
    /// The kernel reported the interface for this connection or datagram.
    Kernel,
    /// The client's or the local address has the zone.
    ScopeId,
    /// Inferred from the interface that has the local address. With the weak host model it may be wrong.
    Address,
    /// Not known.
    Unknown,
}

impl From<ingress_interface::Evidence> for Evidence {
    fn from(evidence: ingress_interface::Evidence) -> Evidence {
        match evidence {
            ingress_interface::Evidence::Kernel => Evidence::Kernel,
            ingress_interface::Evidence::ScopeId => Evidence::ScopeId,
            ingress_interface::Evidence::Address => Evidence::Address,
        }
    }
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

/// The ingress interface of a connection's handshake or of a datagram.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ingress {
    /// Index; null when unknown.
    pub index: Option<u32>,
    /// Name; null when unknown, or when the interface was removed before its name could be read.
    pub name: Option<IfName>,
    /// The evidence.
    pub evidence: Evidence,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address; an IPv4-mapped address is shown as IPv4.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Scope id; null if it has none.
    pub scope_id: Option<u32>,
}

impl From<SocketAddr> for Endpoint {
    // Inlining would split the addresses into bytes: 40 more instructions per connection (`cargo bench --bench cost`).
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

/// A connection or datagram with all that is known about its arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Name of the listener that accepted it.
    pub listener: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Family of the traffic: an IPv4-mapped client is IPv4.
    pub family: Family,
    /// Whether it arrived as IPv4 at an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The client.
    pub peer: Endpoint,
    /// The destination address and port.
    pub local: Endpoint,
    /// The ingress interface.
    pub ingress: Ingress,
    /// The interface that has the local address; null if none has it (AnyIP, broadcast, removed address).
    pub address_owner: Option<IfName>,
    /// Whether the client's address belongs to this host; null if unknown.
    pub peer_is_local: Option<bool>,
}

impl Arrival {
    /// An arrival with unknown values, to be filled in.
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

    /// The interface that has the destination address, if the packets of another host arrived on a different one (weak host
    /// model).
    #[must_use]
    pub fn other_owner(&self) -> Option<&IfName> {
        let (name, owner) = (self.ingress.name.as_ref()?, self.address_owner.as_ref()?);
        (name != owner && self.peer_is_local != Some(true)).then_some(owner)
    }
}

/// A connection whose later packets arrived on another interface than its handshake. Linux reports this only for native
/// IPv6, and only for the latest packet at the time of the query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    /// Name of the listener that accepted it.
    pub listener: String,
    /// The client.
    pub peer: Endpoint,
    /// The destination address and port.
    pub local: Endpoint,
    /// The ingress interface of its handshake.
    pub ingress: Ingress,
    /// The ingress interface of its latest packet.
    pub later: Ingress,
}
