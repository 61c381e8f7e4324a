//! Types of lab operations, the same on every system.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{IfName, RouteKind, RouterPreference, Scope};

/// The reason why network namespaces cannot be created.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct NamespaceRefusal {
    /// The refused system call or file.
    pub step: &'static str,
    /// The error.
    pub source: io::Error,
    /// The setting that would permit it, as a sentence.
    pub remedy: String,
}

/// An interface to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Its name.
    pub name: IfName,
    /// Link-layer address; if empty, the kernel chooses.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes; if empty, the kernel chooses.
    pub mtu: Option<u32>,
    /// Index; if empty, the kernel chooses.
    pub index: Option<u32>,
}

/// An address to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAddress {
    /// Address and prefix length.
    pub net: IpNet,
    /// Whether duplicate address detection runs, if the interface's settings enable it (IPv6).
    pub duplicate_detection: bool,
    /// Whether the address can be used while duplicate address detection runs (IPv6).
    pub optimistic: bool,
    /// Whether the preferred lifetime has expired.
    pub deprecated: bool,
    /// Whether the kernel adds a route to its prefix.
    pub prefix_route: bool,
    /// Broadcast address (IPv4).
    pub broadcast: Option<IpAddr>,
    /// Label (IPv4).
    pub label: Option<IfName>,
    /// Peer address of a point-to-point link; the prefix length then belongs to the peer.
    pub peer: Option<IpAddr>,
    /// Scope (IPv4). If empty, the default of `ip`: host for loopback addresses, global for others.
    pub scope: Option<Scope>,
}

impl NewAddress {
    /// An address without a prefix route, usable immediately.
    #[must_use]
    pub fn of(net: IpNet) -> NewAddress {
        NewAddress {
            net,
            duplicate_detection: false,
            optimistic: false,
            deprecated: false,
            prefix_route: false,
            broadcast: None,
            label: None,
            peer: None,
            scope: None,
        }
    }
}

/// An additional next hop of a route: gateway, outgoing interface and weight.
pub type NextHop = (Option<IpAddr>, Option<IfName>, u32);

/// A route to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoute {
    /// Destination.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Outgoing interface; if empty, the kernel derives it from the next hop.
    pub interface: Option<IfName>,
    /// Type of the route.
    pub kind: RouteKind,
    /// Table; 254 is `main`.
    pub table: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Priority.
    pub metric: Option<u32>,
    /// Weight of the first next hop, from 1, if there are several.
    pub weight: u32,
    /// Additional next hops for load sharing.
    pub more: Vec<NextHop>,
    /// The type of service of the packets it is for; 0 for all packets.
    pub tos: u8,
    /// The source prefix of the packets it is for (IPv6).
    pub from: Option<IpNet>,
    /// The router's preference (IPv6).
    pub preference: Option<RouterPreference>,
    /// What it says of connections: see [`crate::model::Route::metrics`].
    pub metrics: BTreeMap<String, u32>,
    /// Whether it is a copy of a route. The gateway is then not checked to be on a link, and several routes may have
    /// the same destination.
    pub copied: bool,
}

impl NewRoute {
    /// A route in the table `main` with only a destination.
    #[must_use]
    pub fn to(to: IpNet) -> NewRoute {
        NewRoute {
            to,
            via: None,
            interface: None,
            kind: RouteKind::Unicast,
            table: 254,
            source: None,
            metric: None,
            weight: 1,
            more: Vec::new(),
            tos: 0,
            from: None,
            preference: None,
            metrics: BTreeMap::new(),
            copied: false,
        }
    }
}
