//! Socket lookup: which socket receives a packet for this host.
//!
//! A lookup walks the chain of the destination address, and only if nothing matches the chain of the wildcards. Within
//! a chain the highest score wins, and among equal scores the first socket. The first match with SO_REUSEPORT ends the
//! walk, whatever its score. Sources: `inet_lhash2_lookup()` of `net/ipv4/inet_hashtables.c`, `inet6_lhash2_lookup()`
//! of `net/ipv6/inet6_hashtables.c`, `udp4_lib_lookup2()` and `udp6_lib_lookup2()`, each with its `compute_score()`.
//! Programs attached to sk_lookup can override the result; they are not modelled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::socket_table::{Entry, Id, Local, Tables, all};
use crate::model::Protocol;

/// A packet, as seen by a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Destination: an IPv4 address for IPv4 traffic, never an IPv4-mapped one.
    pub destination: IpAddr,
    /// The destination port.
    pub port: u16,
    /// Index of the interface that it counts as arrived on: for local traffic the owner of the destination.
    pub device: u32,
    /// The VRF of that interface; 0 if none.
    pub vrf: u32,
}

/// Why one socket won over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// A specific address wins over a wildcard, even over one bound to the ingress device.
    SpecificAddress,
    /// An AF_INET socket wins over an AF_INET6 socket for IPv4 traffic.
    Ipv4Socket,
    /// A socket bound to the ingress device wins over one that is not.
    Device,
    /// The position in the chain decided: the last bound, or with SO_REUSEPORT on AF_INET6 the first.
    Order,
}

/// Result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Winner {
    /// No socket matches.
    NoSocket,
    /// One socket; or one of a SO_REUSEPORT group, by a hash of the connection.
    Found {
        /// The members of the group, in order of insertion; one socket without a group.
        ids: Vec<Id>,
        /// Another socket that also matched, and why it lost.
        over: Option<(Id, Preference)>,
    },
    /// Depends on unknown properties of these sockets.
    Unknown(Vec<Id>),
}

impl Tables {
    /// The socket that receives `packet`.
    #[must_use]
    pub fn winner(&self, packet: &Packet) -> Winner {
        let any = match packet.destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        match self.look_up(packet, packet.destination) {
            Winner::Found { ids, over: None } => {
                let beaten = self.matching(packet, any).find(|&(_, score)| score.is_some()).map(|(id, _)| id);
                Winner::Found { ids, over: beaten.map(|id| (id, Preference::SpecificAddress)) }
            }
            Winner::NoSocket => self.look_up(packet, any),
            found => found,
        }
    }

    /// Every socket with the protocol and port of a packet, in order of insertion: whether it matches (`None`: that is not known) and
    /// its score. One that is bound to the address itself is looked for before those of the wildcard.
    #[must_use]
    pub fn candidates(&self, packet: &Packet) -> Vec<(Id, Option<bool>, u8)> {
        let of_port = |entry: &&Entry| entry.protocol == packet.protocol && entry.port == packet.port;
        let all = self.entries.iter().enumerate().filter(|(_, entry)| of_port(entry));
        let any = match packet.destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        all.map(|(id, entry)| {
            let key = if entry.local.is_any() { any } else { packet.destination };
            (id, self.matches(packet, key, entry), score(packet, entry))
        })
        .collect()
    }

    /// The matching sockets of a chain, in order, with their scores; no score if it is unknown whether they match.
    fn matching<'a>(
        &'a self,
        packet: &'a Packet,
        key: IpAddr,
    ) -> impl Iterator<Item = (Id, Option<u8>)> + 'a {
        self.chain(packet.protocol, packet.port, Local::of(key)).filter_map(move |id| {
            let entry = &self.entries[id];
            match self.matches(packet, key, entry) {
                Some(false) => None,
                Some(true) => Some((id, Some(score(packet, entry)))),
                None => Some((id, None)),
            }
        })
    }

    fn look_up(&self, packet: &Packet, key: IpAddr) -> Winner {
        let mut best: Option<(Id, u8)> = None;
        let mut shared = false;
        let mut others: Vec<(Id, u8)> = Vec::new();
        let mut blurred = false;
        for (id, score) in self.matching(packet, key) {
            let entry = &self.entries[id];
            blurred |= !(entry.certain && score.is_some());
            // A single foreign socket gives a certain result; with others its unknown options and position may decide.
            blurred |= !entry.is_known() && !others.is_empty();
            blurred |= others.last().is_some_and(|&(other, _)| !self.entries[other].is_known());
            let score = score.unwrap_or(0);
            others.push((id, score));
            if !shared && best.is_none_or(|(_, highest)| score > highest) {
                best = Some((id, score));
                shared = entry.reuse_port == Some(true);
            }
        }
        if blurred {
            return Winner::Unknown(others.into_iter().map(|(id, _)| id).collect());
        }
        let Some((winner, score)) = best else { return Winner::NoSocket };
        let mut ids = vec![winner];
        if shared {
            let same_group = |&(id, _): &(Id, u8)| self.same_group(winner, id);
            ids = others.iter().filter(|other| same_group(other)).map(|&(id, _)| id).collect();
            ids.sort_unstable();
        }
        let over = others
            .iter()
            .find(|(id, _)| !ids.contains(id))
            .map(|&(id, other_score)| (id, self.preference(winner, id, score > other_score)));
        Winner::Found { ids, over }
    }

    /// Whether a socket accepts packets to `key`, which is the destination or the wildcard of its family.
    fn matches(&self, packet: &Packet, key: IpAddr, entry: &Entry) -> Option<bool> {
        let address = match (key, entry.local) {
            (IpAddr::V4(key), Local::V4(local)) => Some(key == local),
            // `::` without V6ONLY has 0.0.0.0 as its IPv4 side.
            (IpAddr::V4(key), Local::V6(local)) => all([
                Some(key.is_unspecified() && local.is_unspecified()),
                entry.v6only.map(|v6only| !v6only),
            ]),
            (IpAddr::V6(key), Local::V6(local)) => Some(key == local),
            (IpAddr::V6(_), Local::V4(_)) => Some(false),
        };
        let serves_vrfs = match packet.protocol {
            Protocol::Tcp => self.tcp_l3mdev_accept,
            Protocol::Udp => self.udp_l3mdev_accept,
        };
        let device = match entry.device {
            0 => packet.vrf == 0 || serves_vrfs,
            device => device == packet.device || device == packet.vrf,
        };
        all([address, Some(device)])
    }

    /// Whether two sockets share one SO_REUSEPORT group (`inet_reuseport_add_sock()`, `udp_reuseport_add_sock()`).
    fn same_group(&self, a: Id, b: Id) -> bool {
        let (a, b) = (&self.entries[a], &self.entries[b]);
        a.reuse_port == Some(true)
            && b.reuse_port == Some(true)
            && (a.inet6, a.local, a.v6only, a.device, a.uid) == (b.inet6, b.local, b.v6only, b.device, b.uid)
    }

    fn preference(&self, winner: Id, loser: Id, by_score: bool) -> Preference {
        let (winner, loser) = (&self.entries[winner], &self.entries[loser]);
        if !by_score {
            Preference::Order
        } else if winner.device != 0 && loser.device == 0 {
            Preference::Device
        } else {
            Preference::Ipv4Socket
        }
    }
}

/// `compute_score()` of the four lookups, without the part for connected sockets.
fn score(packet: &Packet, entry: &Entry) -> u8 {
    let device = u8::from(entry.device != 0);
    let inet = u8::from(!entry.inet6);
    match (packet.protocol, packet.destination) {
        (Protocol::Tcp, IpAddr::V4(_)) => 1 + device + inet,
        (Protocol::Udp, IpAddr::V4(_)) => 1 + inet + 4 * device,
        (_, IpAddr::V6(_)) => 1 + device,
    }
}
