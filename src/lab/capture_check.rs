//! Independent check of the ingress interface: the packets captured on the host's interfaces. Pure: packets are byte
//! slices.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::{IfName, PacketsSeen, Protocol, Snapshot};

/// An address and a port.
type End = (IpAddr, u16);

/// Interfaces on which the packets of one connection, or the datagrams between two endpoints, arrived: in order,
/// without duplicates.
#[derive(Debug, Default)]
struct Chain {
    /// Sequence number of the SYN.
    first: u32,
    /// Acknowledgement number of the handshake's ACK.
    answered: Option<u32>,
    syn: Vec<u32>,
    ack: Vec<u32>,
    data: Vec<u32>,
}

/// Packets of one capture, by connection.
#[derive(Debug, Default)]
pub struct Witness {
    chains: HashMap<(Protocol, End, End), Vec<Chain>>,
    /// Number of lost packets.
    pub lost: u32,
}

/// The relevant fields of a packet.
struct Packet {
    protocol: Protocol,
    from: End,
    to: End,
    /// For TCP: flags, sequence number, acknowledgement number. Zero for UDP.
    tcp: (u8, u32, u32),
    /// Number of data bytes.
    payload: usize,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Witness {
    /// Records a packet, given from its IP header on, that arrived on the interface with this index.
    pub fn note(&mut self, interface: u32, bytes: &[u8]) {
        let Some(Packet { protocol, from, to, tcp: (flags, sequence, acknowledged), payload }) = parse(bytes)
        else {
            return;
        };
        let add = |list: &mut Vec<u32>| {
            if !list.contains(&interface) {
                list.push(interface);
            }
        };
        let key = (protocol, from, to);
        if protocol == Protocol::Udp {
            let chains = self.chains.entry(key).or_default();
            if chains.is_empty() {
                chains.push(Chain::default());
            }
            return chains.iter_mut().for_each(|chain| add(&mut chain.data));
        }
        if flags & (SYN | ACK) == SYN {
            let chains = self.chains.entry(key).or_default();
            match chains.iter_mut().find(|chain| chain.first == sequence) {
                Some(chain) => add(&mut chain.syn),
                None => chains.push(Chain { first: sequence, syn: vec![interface], ..Chain::default() }),
            }
            return;
        }
        let chains = self.chains.get_mut(&key).into_iter().flatten();
        let begun = chains.filter(|chain| chain.first.wrapping_add(1) == sequence);
        if flags & (SYN | FIN | RST | ACK) == ACK {
            for chain in begun {
                if payload > 0 {
                    add(&mut chain.data);
                }
                // A later packet without data that acknowledges the host's data is not part of the handshake.
                if chain.data.is_empty() && *chain.answered.get_or_insert(acknowledged) == acknowledged {
                    add(&mut chain.ack);
                }
            }
        }
    }

    /// The captured packets of a connection from `peer` to `local`; `None` if there are none, or if several connections
    /// look alike.
    fn chain(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> Option<&Chain> {
        let end = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        match self.chains.get(&(protocol, end(peer), end(local)))?.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether the first data of this connection was captured, which comes last.
    #[must_use]
    pub fn is_whole(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> bool {
        self.chains
            .get(&(protocol, (peer.ip(), peer.port()), (local.ip(), local.port())))
            .is_some_and(|chains| !chains.is_empty() && chains.iter().all(|chain| !chain.data.is_empty()))
    }

    /// The captured packets of a connection that was reported to have arrived on `ingress`, and whether they confirm
    /// this.
    ///
    /// The packet that decides is the one that the kernel reports: for a connection over IPv4 the ACK that ends the
    /// handshake, over IPv6 the SYN (`bindscope explain arrival`); for UDP the datagram. Packets from a host to itself
    /// cross `lo`, and the kernel reports the owner of the address.
    #[must_use]
    pub fn seen(
        &self,
        protocol: Protocol,
        peer: SocketAddr,
        local: SocketAddr,
        ingress: Option<&IfName>,
        host: &Snapshot,
    ) -> PacketsSeen {
        let Some(chain) = self.chain(protocol, peer, local) else { return PacketsSeen::default() };
        let decides = match (protocol, local) {
            (Protocol::Udp, _) => &chain.data,
            (_, SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_none() => &chain.syn,
            _ => &chain.ack,
        };
        // Of a bridge port and its bridge, the last is the one that IP sees.
        let last = decides.last().and_then(|&index| host.interface(index));
        let reported = ingress.and_then(|name| host.interfaces.iter().find(|one| one.name == *name));
        let has = |address: IpAddr| host.addresses().any(|(_, own)| own.address == address.to_canonical());
        let via_lo = last.is_some_and(|last| last.loopback)
            && reported.is_some_and(|reported| !reported.loopback && has(peer.ip()));
        let confirms = last.zip(reported).map(|(last, reported)| {
            let owns = || reported.addresses.iter().any(|own| own.address == local.ip().to_canonical());
            last.index == reported.index || (via_lo && owns())
        });
        let names = |list: &[u32]| {
            let name = |index: &u32| match host.interface(*index) {
                Some(interface) => interface.name.clone(),
                None => IfName::from(format!("#{index}").as_str()),
            };
            list.iter().map(name).collect()
        };
        let (syn, ack, data) = (names(&chain.syn), names(&chain.ack), names(&chain.data));
        PacketsSeen { syn, ack, data, via_lo, confirms }
    }
}

/// Parses the headers of a packet (RFC 791, 8200, 9293, 768). IPv6 extension headers and fragments are not supported.
fn parse(bytes: &[u8]) -> Option<Packet> {
    let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let first = *bytes.first()?;
    let (from, to, number, header, total): (IpAddr, IpAddr, u8, usize, usize) = match first >> 4 {
        4 => (
            Ipv4Addr::from_bits(word(12)?).into(),
            Ipv4Addr::from_bits(word(16)?).into(),
            *bytes.get(9)?,
            usize::from(first & 15) * 4,
            usize::from(half(2)?),
        ),
        6 => {
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?));
            (address(8)?.into(), address(24)?.into(), *bytes.get(6)?, 40, usize::from(half(4)?) + 40)
        }
        _ => return None,
    };
    let (protocol, tcp, headers) = match number {
        6 => {
            let length = usize::from(*bytes.get(header + 12)? >> 4) * 4;
            let flags = *bytes.get(header + 13)?;
            (Protocol::Tcp, (flags, word(header + 4)?, word(header + 8)?), header + length)
        }
        17 => (Protocol::Udp, (0, 0, 0), header + 8),
        _ => return None,
    };
    let ends = ((from, half(header)?), (to, half(header + 2)?));
    Some(Packet { protocol, from: ends.0, to: ends.1, tcp, payload: total.saturating_sub(headers) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "192.0.2.1:80";
    const CLIENT: &str = "192.0.2.9:40000";

    fn host() -> Snapshot {
        let interface = |index: u32, name: &str, address: &str| {
            serde_json::json!({"index": index, "name": name, "up": true, "running": true, "loopback": name == "lo",
                "point_to_point": false, "multicast": true, "kind": null, "mtu": 1500, "mac": null, "master": null,
                "settings": {}, "addresses": [{"address": address, "prefix": 24, "family": "ipv4",
                "class": "global", "scope_id": null, "label": null, "peer": null, "broadcast": null, "state": []}]})
        };
        let list = [
            interface(1, "lo", "127.0.0.1"),
            interface(2, "eth0", "192.0.2.1"),
            interface(3, "eth1", "198.51.100.1"),
        ];
        Snapshot {
            interfaces: list.into_iter().map(|one| serde_json::from_value(one).unwrap()).collect(),
            ..Snapshot::default()
        }
    }

    fn tcp(from: &str, to: &str, flags: u8, sequence: u32, acknowledged: u32, payload: usize) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut out = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
                let mut out = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 6, 0, 0];
                out.extend(from.octets());
                out.extend(to.octets());
                out
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = u16::try_from(20 + payload).unwrap().to_be_bytes();
                let mut out = vec![0x60, 0, 0, 0, length[0], length[1], 6, 64];
                out.extend(from.octets());
                out.extend(to.octets());
                out
            }
            _ => panic!("two families"),
        };
        out.extend(from.port().to_be_bytes());
        out.extend(to.port().to_be_bytes());
        out.extend(sequence.to_be_bytes());
        out.extend(acknowledged.to_be_bytes());
        out.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        out.resize(out.len() + payload, 0);
        out
    }

    /// A handshake and data, each on another interface.
    fn split(client: &str, server: &str, on: [u32; 3]) -> Witness {
        let mut witness = Witness::default();
        witness.note(on[0], &tcp(client, server, SYN, u32::MAX, 0, 0));
        witness.note(on[0], &tcp(server, client, SYN | ACK, 70, 0, 0));
        witness.note(on[1], &tcp(client, server, ACK, 0, 71, 0));
        // A later packet that acknowledges the server's bytes does not count.
        witness.note(1, &tcp(client, server, ACK, 0, 95, 0));
        witness.note(on[2], &tcp(client, server, ACK | 8, 0, 95, 16));
        witness
    }

    fn seen(witness: &Witness, client: &str, server: &str, ingress: &str) -> PacketsSeen {
        let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
        witness.seen(Protocol::Tcp, client, server, Some(&IfName::from(ingress)), &host())
    }

    #[test]
    fn over_ipv4_the_last_packet_of_the_handshake_decides_over_ipv6_the_first() {
        let witness = split(CLIENT, SERVER, [2, 3, 2]);
        let packets = seen(&witness, CLIENT, SERVER, "eth1");
        assert_eq!(packets.syn, [IfName::from("eth0")]);
        assert_eq!(packets.ack, [IfName::from("eth1")]);
        assert_eq!(packets.data, [IfName::from("eth0")]);
        assert_eq!((packets.confirms, packets.via_lo), (Some(true), false));
        assert_eq!(seen(&witness, CLIENT, SERVER, "eth0").confirms, Some(false));
        let (client, server) = ("[2001:db8::9]:40000", "[2001:db8::1]:80");
        let witness = split(client, server, [2, 3, 3]);
        assert_eq!(seen(&witness, client, server, "eth0").confirms, Some(true));
        assert_eq!(seen(&witness, client, server, "eth1").confirms, Some(false));
    }

    #[test]
    fn a_bridge_counts_and_not_its_port() {
        let mut witness = split(CLIENT, SERVER, [3, 3, 3]);
        witness.note(2, &tcp(CLIENT, SERVER, ACK, 0, 71, 0));
        // Too late: the handshake has ended.
        assert_eq!(seen(&witness, CLIENT, SERVER, "eth1").confirms, Some(true));
        let mut witness = Witness::default();
        for port_then_bridge in [3, 2] {
            witness.note(port_then_bridge, &tcp(CLIENT, SERVER, SYN, 9, 0, 0));
        }
        for port_then_bridge in [3, 2] {
            witness.note(port_then_bridge, &tcp(CLIENT, SERVER, ACK, 10, 71, 0));
        }
        assert_eq!(seen(&witness, CLIENT, SERVER, "eth0").confirms, Some(true));
        assert_eq!(seen(&witness, CLIENT, SERVER, "eth1").confirms, Some(false));
    }

    #[test]
    fn packets_to_oneself_cross_lo_and_report_the_address_owner() {
        let own = "198.51.100.1:40000";
        let witness = split(own, SERVER, [1, 1, 1]);
        let packets = seen(&witness, own, SERVER, "eth0");
        assert_eq!((packets.confirms, packets.via_lo), (Some(true), true));
        assert_eq!(seen(&witness, own, SERVER, "eth1").confirms, Some(false));
        // Packets of another host do not arrive on lo.
        let witness = split(CLIENT, SERVER, [1, 1, 1]);
        assert_eq!(seen(&witness, CLIENT, SERVER, "eth0").confirms, Some(false));
    }

    #[test]
    fn missing_or_ambiguous_packets_confirm_nothing() {
        assert_eq!(seen(&Witness::default(), CLIENT, SERVER, "eth0"), PacketsSeen::default());
        let mut witness = split(CLIENT, SERVER, [2, 2, 2]);
        witness.note(3, &tcp(CLIENT, SERVER, SYN, 500, 0, 0));
        assert_eq!(seen(&witness, CLIENT, SERVER, "eth0").confirms, None);
        for length in 0..60 {
            witness.note(2, &tcp(CLIENT, SERVER, SYN, 1, 0, 0)[..length.min(39)]);
            witness.note(2, &vec![0x4f; length]);
            witness.note(2, &vec![0x6f; length]);
        }
    }
}
