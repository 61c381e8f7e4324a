//! What labs ask of the system, the same on every one.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{IfName, RouteKind, RouterPreference, Scope};

/// Why no network namespace can be made.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct NamespaceRefusal {
    /// The call or file that was refused.
    pub step: &'static str,
    /// The answer.
    pub source: io::Error,
    /// The switch that would allow it, as a sentence.
    pub remedy: String,
}

/// An interface to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Its name.
    pub name: IfName,
    /// Its link-layer address; the kernel chooses without.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in bytes; the kernel chooses without.
    pub mtu: Option<u32>,
    /// Its index; the kernel chooses without.
    pub index: Option<u32>,
}

/// An address to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAddress {
    /// Address and prefix length.
    pub net: IpNet,
    /// Whether duplicate address detection runs, as far as the interface's settings let it (IPv6).
    pub duplicate_detection: bool,
    /// Whether it may be used while duplicate address detection runs (IPv6).
    pub optimistic: bool,
    /// Whether it is past its preferred lifetime.
    pub deprecated: bool,
    /// Whether a route to its prefix comes with it.
    pub prefix_route: bool,
    /// Broadcast address (IPv4).
    pub broadcast: Option<IpAddr>,
    /// Label (IPv4).
    pub label: Option<IfName>,
    /// The far end of a point-to-point link; the prefix length is then the far end's.
    pub peer: Option<IpAddr>,
    /// How far it goes (IPv4); without, as `ip` has it: this host for loopback addresses, everywhere for others.
    pub scope: Option<Scope>,
}

impl NewAddress {
    /// An address without a network, that is there at once.
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

/// A further next hop of a route: gateway, outgoing interface and weight.
pub type NextHop = (Option<IpAddr>, Option<IfName>, u32);

/// A route to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoute {
    /// Destination.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Outgoing interface; the kernel finds it by the next hop without.
    pub interface: Option<IfName>,
    /// What it does.
    pub kind: RouteKind,
    /// The table; 254 is `main`.
    pub table: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Priority.
    pub metric: Option<u32>,
    /// The share of the first next hop, from 1, where there are more.
    pub weight: u32,
    /// Further next hops among which packets are spread.
    pub more: Vec<NextHop>,
    /// The type of service of the packets it is for; 0 for all packets.
    pub tos: u8,
    /// The source prefix of the packets it is for (IPv6).
    pub from: Option<IpNet>,
    /// The router's preference (IPv6).
    pub preference: Option<RouterPreference>,
    /// What it says of connections: see [`crate::model::Route::metrics`].
    pub metrics: BTreeMap<String, u32>,
    /// Whether it is a copy of a route: its gateway is not asked to be on a link, and it may stand beside another one to the
    /// same destination.
    pub copied: bool,
}

impl NewRoute {
    /// A route in the table `main` of which nothing is said but where it goes.
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
