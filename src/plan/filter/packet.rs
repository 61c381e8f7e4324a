//! A packet as the rules see it: its bytes as far as they are known, its interfaces, its connection.

use std::net::IpAddr;

use super::bits::{Bits, Word};
use crate::model::Family;

/// Protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// TCP flags (RFC 9293, 3.1).
pub mod flag {
    /// The end of the data.
    pub const FIN: u8 = 1;
    /// The beginning of a connection.
    pub const SYN: u8 = 2;
    /// The connection is refused or broken.
    pub const RST: u8 = 4;
    /// Data to hand on.
    pub const PSH: u8 = 8;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 16;
}

/// Bits of a connection's status (`enum ip_conntrack_status`).
pub mod status {
    /// Packets of both directions were seen.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// It is in the table.
    pub const CONFIRMED: u32 = 1 << 3;
    /// The source is translated.
    pub const SOURCE: u32 = 1 << 4;
    /// The destination is translated.
    pub const DESTINATION: u32 = 1 << 5;
    /// All bits of which this program keeps account, and that of an expected connection, which none is.
    pub const KNOWN: u32 = 1 | SEEN_REPLY | CONFIRMED | SOURCE | DESTINATION;
}

/// An interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware type (`ARPHRD_*`); `None` where it is not known.
    pub hardware: Option<u16>,
}

/// What carries the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment with these flags.
    Tcp(u8),
    /// A datagram.
    Udp,
    /// A message of ICMP or ICMPv6 with type and code.
    Icmp(u8, u8),
}

/// An end of a connection, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    /// The address.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Option<u16>,
}

/// How the packet belongs to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// It has not been looked at yet, or it belongs to none: the state is `invalid`.
    Not,
    /// It is kept out of connection tracking.
    Untracked,
    /// It belongs to the connection that is followed.
    As {
        /// `new`, `established` or `related`.
        state: State,
        /// Whether it goes to the one who began.
        reply: bool,
    },
}

/// The state of a tracked packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The first packets of one direction.
    New,
    /// Both directions have been seen.
    Established,
    /// An error or answer that belongs to another connection.
    Related,
}

/// A packet.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Its family.
    pub family: Family,
    /// What it carries.
    pub transport: Transport,
    /// Where it comes from.
    pub source: End,
    /// Where it goes.
    pub destination: End,
    /// The interface it arrived on.
    pub input: Option<Device>,
    /// The interface it leaves by.
    pub output: Option<Device>,
    /// Its mark.
    pub mark: Word,
    /// How it belongs to the connection.
    pub tracked: Tracked,
    /// Its hop limit, where that is known.
    pub hops: Option<u8>,
    /// The first bytes of an ICMP message's body, where they are known.
    pub body: Option<[u8; 16]>,
    /// Whether a rule changed bytes of it, of which nothing is known then.
    pub rewritten: bool,
}

impl Packet {
    /// A packet without interfaces, mark and connection.
    #[must_use]
    pub fn new(family: Family, transport: Transport, source: End, destination: End) -> Packet {
        Packet {
            family,
            transport,
            source,
            destination,
            input: None,
            output: None,
            mark: Word::new(0),
            tracked: Tracked::Not,
            hops: None,
            body: None,
            rewritten: false,
        }
    }

    /// The number of what it carries.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match (self.transport, self.family) {
            (Transport::Tcp(_), _) => TCP,
            (Transport::Udp, _) => UDP,
            (Transport::Icmp(..), Family::Ipv4) => ICMP,
            (Transport::Icmp(..), Family::Ipv6) => ICMPV6,
        }
    }

    /// The bytes of the header of the network layer: 20 or 40, without options.
    #[must_use]
    pub fn network(&self) -> (Bits, usize) {
        let mut bits = Bits::UNKNOWN;
        match self.family {
            Family::Ipv4 => {
                bits.set(0, &[0x45]);
                // More fragments and the offset are zero; whether it may be fragmented is not known.
                bits.set_masked(6, 0, 0xbf);
                bits.set(7, &[0]);
                if let Some(hops) = self.hops {
                    bits.set(8, &[hops]);
                }
                bits.set(9, &[self.protocol()]);
                set_address(&mut bits, 12, self.source.address);
                set_address(&mut bits, 16, self.destination.address);
            }
            Family::Ipv6 => {
                bits.set_masked(0, 0x60, 0xf0);
                bits.set(6, &[self.protocol()]);
                if let Some(hops) = self.hops {
                    bits.set(7, &[hops]);
                }
                set_address(&mut bits, 8, self.source.address);
                set_address(&mut bits, 24, self.destination.address);
            }
        }
        if self.rewritten {
            bits = Bits::UNKNOWN;
        }
        (bits, if self.family == Family::Ipv4 { 20 } else { 40 })
    }

    /// The bytes of the header of the transport layer, and how many the packet has at least and at most.
    #[must_use]
    pub fn carried(&self) -> (Bits, usize, usize) {
        let mut bits = Bits::UNKNOWN;
        if let Transport::Icmp(kind, code) = self.transport {
            bits.set(0, &[kind, code]);
            if let Some(body) = self.body {
                bits.set(8, &body);
            }
        } else {
            if let Some(port) = self.source.port {
                bits.set(0, &port.to_be_bytes());
            }
            if let Some(port) = self.destination.port {
                bits.set(2, &port.to_be_bytes());
            }
        }
        let least = match self.transport {
            Transport::Tcp(flags) => {
                // Whether it offers explicit congestion notification is not known, nor how many options there are.
                bits.set_masked(12, 0, 0x0f);
                bits.set_masked(13, flags, 0x3f);
                20
            }
            Transport::Udp => 8,
            Transport::Icmp(..) if self.body.is_some() => 24,
            Transport::Icmp(..) => 8,
        };
        if self.rewritten {
            bits = Bits::UNKNOWN;
        }
        (bits, least, usize::MAX)
    }
}

/// Writes an address if it is known.
pub fn set_address(bits: &mut Bits, at: usize, address: Option<IpAddr>) {
    match address {
        Some(IpAddr::V4(v4)) => bits.set(at, &v4.octets()),
        Some(IpAddr::V6(v6)) => bits.set(at, &v6.octets()),
        None => {}
    }
}

/// The connection that is followed.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who began, as the packet came.
    pub source: End,
    /// Where to, as the packet came.
    pub destination: End,
    /// Whether it has an entry in the table; a packet that was never tracked makes none.
    pub exists: bool,
    /// Bits of its status.
    pub status: u32,
    /// Bits of its status that are not certain.
    pub doubtful: u32,
    /// Its mark.
    pub mark: Word,
    /// The translated destination.
    pub to: Option<End>,
    /// The translated source.
    pub from: Option<End>,
    /// Whether it is decided if the destination is translated.
    pub destination_done: bool,
    /// Whether it is decided if the source is translated.
    pub source_done: bool,
}

impl Connection {
    /// A connection of which no packet has been seen.
    #[must_use]
    pub fn new(source: End, destination: End) -> Connection {
        Connection {
            source,
            destination,
            exists: false,
            status: 0,
            doubtful: 0,
            mark: Word::new(0),
            to: None,
            from: None,
            destination_done: false,
            source_done: false,
        }
    }

    /// Its status, as far as this program keeps account of it.
    #[must_use]
    pub fn status(&self) -> Word {
        let known = status::KNOWN & !self.doubtful;
        Word { value: self.status & known, known }
    }

    /// The end that a packet of the reply direction comes from, or goes to.
    #[must_use]
    pub fn reply_end(&self, source: bool) -> End {
        if source { self.to.unwrap_or(self.destination) } else { self.from.unwrap_or(self.source) }
    }
}
