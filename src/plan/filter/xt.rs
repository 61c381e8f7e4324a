//! Matches and targets of iptables, whose data are structures of the kernel (`linux/netfilter/xt_*.h`, `linux/netfilter_ipv4`,
//! `linux/netfilter_ipv6`), in the byte order of the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attribute::{Attributes, Malformed, Read, malformed};
use super::expression::{Budget, Reject};
use crate::model::Family;

/// An address in a structure that does not say its family (`union nf_inet_addr`): IPv4 fills the first four bytes.
pub type Raw = [u8; 16];

/// The address that the bytes are in this family.
#[must_use]
pub fn address(raw: Raw, family: Family) -> IpAddr {
    match (family, raw) {
        (Family::Ipv4, [a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
        (Family::Ipv6, _) => Ipv6Addr::from(raw).into(),
    }
}

/// A match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Ports, and flags of TCP: mask and value.
    Ports { protocol: u8, source: Ports, destination: Ports, flags: Option<(u8, u8, bool)>, option: bool },
    /// Several ports of the source, the destination or either.
    Multiport { source: bool, destination: bool, ranges: Vec<(u16, u16)>, inverted: bool },
    /// Properties of the connection.
    Conntrack(Box<Conntrack>),
    /// Types of addresses: bits for the source and the destination.
    AddressType { source: (u16, bool), destination: (u16, bool), input: bool, output: bool },
    /// The mark of the packet, or of the connection.
    Mark { mark: u32, mask: u32, inverted: bool, connection: bool },
    /// Ranges of addresses, with inversion.
    AddressRange { source: Option<(Raw, Raw, bool)>, destination: Option<(Raw, Raw, bool)> },
    /// Type and codes of ICMP or ICMPv6.
    Icmp { v6: bool, kind: u8, codes: (u8, u8), inverted: bool },
    /// The hop limit.
    Hops { how: u8, limit: u8 },
    /// The type of the packet on its link.
    PacketType { kind: u32, inverted: bool },
    /// A header that the packet does not have.
    Absent { name: String },
    /// A budget; true beyond it if inverted.
    Limit { budget: Budget, inverted: bool },
    /// Always true.
    True { name: String },
    /// It depends on what is not known here.
    Opaque { name: String },
}

/// A range of ports, possibly inverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first one.
    pub low: u16,
    /// The last one.
    pub high: u16,
    /// Whether all others are meant.
    pub inverted: bool,
}

/// What `-m conntrack` compares; each with inversion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conntrack {
    /// Bits of states: 1 invalid, 2 established, 4 related, 8 new, 64 SNAT, 128 DNAT, 256 untracked.
    pub state: Option<(u16, bool)>,
    /// Protocol.
    pub protocol: Option<(u8, bool)>,
    /// Source and destination of the original direction, then of the reply: address, mask.
    pub addresses: [Option<(Raw, Raw, bool)>; 4],
    /// Ports in the same order.
    pub ports: [Option<(u16, u16, bool)>; 4],
    /// Bits of the status.
    pub status: Option<(u16, bool)>,
    /// Whether it is a packet of the original direction.
    pub direction: Option<bool>,
    /// Whether it asks for what is not followed.
    pub opaque: bool,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Answers and drops, by a number that means another answer in each family ([`reject_with`]).
    Reject(u8),
    /// Translates the source or the destination to a range.
    Nat { source: bool, range: Range },
    /// Translates to this host itself.
    Redirect(Range),
    /// Translates the source to the address of the interface.
    Masquerade(Range),
    /// Changes the mark: `(mark & !mask) ^ value`.
    Mark { value: u32, mask: u32 },
    /// Marks of connection and packet.
    ConnectionMark { value: u32, mask: u32, packet_mask: u32, how: u8 },
    /// Keeps the packet out of connection tracking.
    NoTrack,
    /// Changes nothing that decides.
    Neutral { name: String },
    /// It depends on what is not known here.
    Opaque { name: String },
}

/// Where a translation goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// The addresses; `None` keeps the address.
    pub addresses: Option<(Raw, Raw)>,
    /// The ports; `None` keeps the port.
    pub ports: Option<(u16, u16)>,
    /// Whether the port is an offset, or the address is mapped by its prefix.
    pub mapped: bool,
}

/// A reader of a structure.
pub(super) struct Data<'a>(pub(super) &'a [u8]);

impl Data<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Read<[u8; N]> {
        let bytes = self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| Malformed(format!("the data have {} bytes, {} are needed", self.0.len(), at + N)))
    }

    pub(super) fn u8(&self, at: usize) -> Read<u8> {
        Ok(self.bytes::<1>(at)?[0])
    }

    pub(super) fn u16(&self, at: usize) -> Read<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    fn be16(&self, at: usize) -> Read<u16> {
        self.bytes(at).map(u16::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Read<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn raw(&self, at: usize) -> Read<Raw> {
        self.bytes(at)
    }

    /// The four bytes of an IPv4 address.
    fn v4(&self, at: usize) -> Read<Raw> {
        let mut raw = [0; 16];
        raw[..4].copy_from_slice(&self.bytes::<4>(at)?);
        Ok(raw)
    }
}

fn parts<'a>(data: &Attributes<'a>) -> Read<(String, u32, Data<'a>)> {
    let name = data.text(1).ok_or_else(|| Malformed("the name is missing".into()))?;
    Ok((name, data.need_number(2, "the revision")?, Data(data.need(3, "the data")?)))
}

/// Decodes `NFTA_MATCH_*`.
pub fn decode_match(attributes: &Attributes<'_>) -> Read<Match> {
    let (name, revision, data) = parts(attributes)?;
    the_match(&name, revision, &data).map_err(|Malformed(what)| Malformed(format!("{name}: {what}")))
}

pub(super) fn the_match(name: &str, revision: u32, data: &Data<'_>) -> Read<Match> {
    let ports =
        |at, inverted| -> Read<Ports> { Ok(Ports { low: data.u16(at)?, high: data.u16(at + 2)?, inverted }) };
    Ok(match (name, revision) {
        ("tcp", 0) => {
            let inverted = data.u8(11)?;
            let (mask, value) = (data.u8(9)?, data.u8(10)?);
            Match::Ports {
                protocol: super::packet::TCP,
                source: ports(0, inverted & 1 != 0)?,
                destination: ports(4, inverted & 2 != 0)?,
                flags: (mask != 0 || inverted & 4 != 0).then_some((mask, value, inverted & 4 != 0)),
                option: data.u8(8)? != 0,
            }
        }
        ("udp", 0) => {
            let inverted = data.u8(8)?;
            Match::Ports {
                protocol: super::packet::UDP,
                source: ports(0, inverted & 1 != 0)?,
                destination: ports(4, inverted & 2 != 0)?,
                flags: None,
                option: false,
            }
        }
        ("multiport", 1) => {
            let count = usize::from(data.u8(1)?);
            if count > 15 {
                return malformed(format!("{count} ports"));
            }
            let mut ranges = Vec::new();
            let mut index = 0;
            while index < count {
                let low = data.u16(2 + 2 * index)?;
                let range = data.u8(32 + index)? != 0 && index + 1 < count;
                let high = if range { data.u16(4 + 2 * index)? } else { low };
                ranges.push((low, high));
                index += 1 + usize::from(range);
            }
            let which = data.u8(0)?;
            Match::Multiport {
                source: which != 1,
                destination: which != 0,
                ranges,
                inverted: data.u8(47)? != 0,
            }
        }
        ("conntrack", 2 | 3) => Match::Conntrack(Box::new(conntrack(data, revision)?)),
        ("state", 0) => {
            let state = u16::try_from(data.u32(0)?).unwrap_or(u16::MAX);
            Match::Conntrack(Box::new(Conntrack { state: Some((state, false)), ..Conntrack::default() }))
        }
        ("addrtype", 0) => Match::AddressType {
            source: (data.u16(0)?, data.u32(4)? != 0),
            destination: (data.u16(2)?, data.u32(8)? != 0),
            input: false,
            output: false,
        },
        ("addrtype", 1) => {
            let flags = data.u32(4)?;
            Match::AddressType {
                source: (data.u16(0)?, flags & 1 != 0),
                destination: (data.u16(2)?, flags & 2 != 0),
                input: flags & 4 != 0,
                output: flags & 8 != 0,
            }
        }
        ("mark" | "connmark", 1) => Match::Mark {
            mark: data.u32(0)?,
            mask: data.u32(4)?,
            inverted: data.u8(8)? != 0,
            connection: name == "connmark",
        },
        ("iprange", 1) => {
            let flags = data.u8(64)?;
            let range = |at, used: u8, inverted: u8| -> Read<_> {
                if flags & used == 0 {
                    return Ok(None);
                }
                Ok(Some((data.raw(at)?, data.raw(at + 16)?, flags & inverted != 0)))
            };
            Match::AddressRange { source: range(0, 1, 0x10)?, destination: range(32, 2, 0x20)? }
        }
        ("icmp" | "icmp6", 0) => Match::Icmp {
            v6: name == "icmp6",
            kind: data.u8(0)?,
            codes: (data.u8(1)?, data.u8(2)?),
            inverted: data.u8(3)? & 1 != 0,
        },
        ("ttl" | "hl", 0) => Match::Hops { how: data.u8(0)?, limit: data.u8(1)? },
        ("pkttype", 0) => Match::PacketType { kind: data.u32(0)?, inverted: data.u32(4)? != 0 },
        // Extension headers, which the packets that are followed do not have; `ah` and `esp` are other protocols.
        ("rt" | "frag" | "mh" | "ah" | "esp" | "sctp" | "dccp", 0) => Match::Absent { name: name.to_owned() },
        ("limit", 0) => Match::Limit { budget: Budget::Rate, inverted: false },
        ("hashlimit", 1) => Match::Limit { budget: Budget::Rate, inverted: data.u32(16)? & 0x10 != 0 },
        ("hashlimit", 2 | 3) => Match::Limit { budget: Budget::Rate, inverted: data.u32(272)? & 0x10 != 0 },
        // Beyond the limit, unless the flag inverts it.
        ("connlimit", 1) => Match::Limit { budget: Budget::Connections, inverted: data.u32(20)? & 1 == 0 },
        ("recent", 0 | 1) => {
            let (hits, how, inverted) = (data.u32(4)?, data.u8(8)?, data.u8(9)? != 0);
            match (how & 1 != 0, hits) {
                // It adds the source and matches.
                (true, _) if !inverted => Match::True { name: name.to_owned() },
                (false, 1..) => Match::Limit { budget: Budget::Rate, inverted: !inverted },
                _ => Match::Opaque { name: name.to_owned() },
            }
        }
        ("comment", 0) => Match::True { name: name.to_owned() },
        _ => Match::Opaque { name: name.to_owned() },
    })
}

/// `struct xt_conntrack_mtinfo2` and `3`.
fn conntrack(data: &Data<'_>, revision: u32) -> Read<Conntrack> {
    let (used, inverted) = (data.u16(146)?, data.u16(148)?);
    let flag = |bit: u32| (used & (1 << bit) != 0).then_some(inverted & (1 << bit) != 0);
    let mut all = Conntrack {
        state: flag(0).map(|inverted| Ok((data.u16(150)?, inverted))).transpose()?,
        protocol: flag(1)
            .map(|inverted| Ok((u8::try_from(data.u16(136)?).unwrap_or(u8::MAX), inverted)))
            .transpose()?,
        status: flag(6).map(|inverted| Ok((data.u16(152)?, inverted))).transpose()?,
        direction: flag(12).map(|inverted| !inverted),
        opaque: flag(7).is_some(),
        ..Conntrack::default()
    };
    for (index, bit) in [2, 3, 4, 5].into_iter().enumerate() {
        if let Some(inverted) = flag(bit) {
            let at = 32 * index;
            all.addresses[index] = Some((data.raw(at)?, data.raw(at + 16)?, inverted));
        }
    }
    for (index, bit) in [8, 9, 10, 11].into_iter().enumerate() {
        if let Some(inverted) = flag(bit) {
            let at = 138 + 2 * index;
            let (low, high) = if revision == 3 {
                (data.u16(at)?, data.u16(154 + 2 * index)?)
            } else {
                (data.be16(at)?, data.be16(at)?)
            };
            all.ports[index] = Some((low, high, inverted));
        }
    }
    Ok(all)
}

/// Decodes `NFTA_TARGET_*`. Whether the rule is of IPv4 or IPv6 shows in the revision and length of the data.
pub fn decode_target(attributes: &Attributes<'_>) -> Read<Target> {
    let (name, revision, data) = parts(attributes)?;
    target(&name, revision, &data).map_err(|Malformed(what)| Malformed(format!("{name}: {what}")))
}

pub(super) fn target(name: &str, revision: u32, data: &Data<'_>) -> Read<Target> {
    // `struct nf_nat_ipv4_multi_range_compat` has 20 bytes, `struct nf_nat_range` 40, the later one 44; rounded up to 8.
    let range = || -> Read<Range> {
        if data.0.len() < 40 {
            let flags = data.u32(4)?;
            return Ok(Range {
                addresses: (flags & 1 != 0).then(|| Ok((data.v4(8)?, data.v4(12)?))).transpose()?,
                ports: (flags & 2 != 0).then(|| Ok((data.be16(16)?, data.be16(18)?))).transpose()?,
                mapped: flags & 0x60 != 0,
            });
        }
        let flags = data.u32(0)?;
        Ok(Range {
            addresses: (flags & 1 != 0).then(|| Ok((data.raw(4)?, data.raw(20)?))).transpose()?,
            ports: (flags & 2 != 0).then(|| Ok((data.be16(36)?, data.be16(38)?))).transpose()?,
            mapped: flags & 0x60 != 0,
        })
    };
    Ok(match (name, revision) {
        ("REJECT", 0) => Target::Reject(u8::try_from(data.u32(0)?).unwrap_or(u8::MAX)),
        ("DNAT", 0..=2) => Target::Nat { source: false, range: range()? },
        ("SNAT", 0..=2) => Target::Nat { source: true, range: range()? },
        ("REDIRECT", 0) => Target::Redirect(range()?),
        ("MASQUERADE", 0) => Target::Masquerade(range()?),
        ("MARK", 2) => Target::Mark { value: data.u32(0)?, mask: data.u32(4)? },
        ("CONNMARK", 1 | 2) => Target::ConnectionMark {
            value: data.u32(0)?,
            mask: data.u32(4)?,
            packet_mask: data.u32(8)?,
            // With a shift it is not followed.
            how: match revision {
                2 if data.u8(13)? != 0 => u8::MAX,
                2 => data.u8(14)?,
                _ => data.u8(12)?,
            },
        },
        ("CT", 0..=2) if data.u16(0)? & 1 != 0 => Target::NoTrack,
        ("NOTRACK", _) => Target::NoTrack,
        (
            "LOG" | "NFLOG" | "TCPMSS" | "CT" | "TEE" | "CHECKSUM" | "CLASSIFY" | "AUDIT" | "TRACE" | "LED"
            | "RATEEST" | "TCPOPTSTRIP" | "DSCP" | "TOS" | "ECN" | "TTL" | "HL" | "IDLETIMER",
            _,
        ) => Target::Neutral { name: name.to_owned() },
        _ => Target::Opaque { name: name.to_owned() },
    })
}

impl Match {
    /// Its name as `iptables` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Match::Ports { protocol: super::packet::TCP, .. } => "tcp",
            Match::Ports { .. } => "udp",
            Match::Multiport { .. } => "multiport",
            Match::Conntrack(_) => "conntrack",
            Match::AddressType { .. } => "addrtype",
            Match::Mark { connection: false, .. } => "mark",
            Match::Mark { .. } => "connmark",
            Match::AddressRange { .. } => "iprange",
            Match::Icmp { v6: false, .. } => "icmp",
            Match::Icmp { .. } => "icmp6",
            Match::Hops { .. } => "hl",
            Match::PacketType { .. } => "pkttype",
            Match::Limit { .. } => "limit",
            Match::Absent { name } | Match::True { name } | Match::Opaque { name } => name,
        }
    }
}

/// The answer of `-j REJECT` in a family, by the number of iptables; `None` where it answers nothing that is known.
#[must_use]
pub fn reject_with(ipv6: bool, number: u8) -> Option<Reject> {
    Some(match (ipv6, number) {
        (false, 0) => Reject::Unreachable(0),
        (false, 1) => Reject::Unreachable(1),
        (false, 2) => Reject::Unreachable(2),
        (false, 3) => Reject::Unreachable(3),
        (false, 5) => Reject::Unreachable(9),
        (false, 6) => Reject::Unreachable(10),
        (false, 7) => Reject::Reset,
        (false, 8) => Reject::Unreachable(13),
        (true, 0) => Reject::Unreachable(0),
        (true, 1) => Reject::Unreachable(1),
        (true, 2) => Reject::Unreachable(2),
        (true, 3) => Reject::Unreachable(3),
        (true, 4) => Reject::Unreachable(4),
        (true, 6) => Reject::Reset,
        (true, 7) => Reject::Unreachable(5),
        (true, 8) => Reject::Unreachable(6),
        _ => return None,
    })
}
