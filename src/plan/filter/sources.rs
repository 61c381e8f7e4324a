//! What rules compare sources, destinations and ports with: who asks must be chosen by it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::decode::{Filters, Table};
use super::expression::Bits as Operation;
use super::expression::{Comparison, Expression};
use super::sets::{Elements, Set, before};
use super::xt::Match;
use crate::model::Family;
use crate::model::ruleset::NftFamily;

/// Prefixes that are collected at most.
pub const MOST: usize = 64;

/// What rules compare with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Prefixes of sources.
    pub prefixes: BTreeSet<IpNet>,
    /// Sets in which sources are looked up and that are too large to be taken apart, as `inet filter allowed`.
    pub sets: BTreeSet<String>,
    /// How many prefixes were left out, because there are more than [`MOST`].
    pub left_out: usize,
    /// Destination ports in chains that translate, with their ends.
    pub translated_ports: BTreeSet<(u16, u16)>,
}

/// A value that a register holds while a rule is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Source(Family),
    Port,
}

impl Compared {
    /// Reads every rule.
    #[must_use]
    pub fn collect(filters: &Filters) -> Compared {
        let mut all = Compared::default();
        for chain in &filters.chains {
            let table = &filters.tables[chain.table];
            let translating = chain
                .base
                .as_ref()
                .map_or_else(|| table_translates(filters, chain.table), |base| base.kind == "nat");
            for rule in &chain.rules {
                all.rule(table, &rule.expressions, translating);
            }
        }
        if all.prefixes.len() > MOST {
            all.left_out = all.prefixes.len() - MOST;
            all.prefixes = all.prefixes.into_iter().take(MOST).collect();
        }
        all
    }

    /// The narrowest network with which rules compare sources that contains this address.
    #[must_use]
    pub fn narrowest(&self, address: IpAddr) -> Option<IpNet> {
        let containing = self.prefixes.iter().filter(|net| net.contains(&address));
        containing.max_by_key(|net| net.prefix_len()).copied()
    }

    fn rule(&mut self, table: &Table, expressions: &[Expression], translating: bool) {
        let mut held: Vec<(usize, Holds)> = Vec::new();
        let mut masks: Vec<(usize, Vec<u8>)> = Vec::new();
        for expression in expressions {
            let written = match expression {
                Expression::Payload { base, offset, length, to } => {
                    let holds = match (*base, *offset, *length, table.family) {
                        (1, 12, 1..=4, NftFamily::Ip | NftFamily::Inet) => Some(Holds::Source(Family::Ipv4)),
                        (1, 8, 1..=16, NftFamily::Ip6 | NftFamily::Inet) => Some(Holds::Source(Family::Ipv6)),
                        (2, 2, 2, _) => Some(Holds::Port),
                        _ => None,
                    };
                    held.retain(|(register, _)| register != to);
                    masks.retain(|(register, _)| register != to);
                    held.extend(holds.map(|holds| (*to, holds)));
                    continue;
                }
                Expression::Bitwise { from, to, bits: Operation::Mask(mask, _), .. } if from == to => {
                    masks.push((*to, mask.clone()));
                    continue;
                }
                Expression::Meta { to, .. }
                | Expression::Connection { to, .. }
                | Expression::Fib { to, .. }
                | Expression::Bitwise { to, .. } => Some(*to),
                _ => None,
            };
            held.retain(|(register, _)| Some(*register) != written);
            let of = |register: usize| held.iter().find(|(one, _)| *one == register).map(|(_, holds)| *holds);
            match expression {
                Expression::Compare { from, how: Comparison::Equal | Comparison::NotEqual, with } => {
                    match of(*from) {
                        Some(Holds::Source(family)) => {
                            let mask = masks.iter().rev().find(|(register, _)| register == from);
                            self.prefix(family, with, mask.map(|(_, mask)| &mask[..]));
                        }
                        Some(Holds::Port) if translating => self.port(with, with),
                        _ => {}
                    }
                }
                Expression::Range { from, low, high, .. } => match of(*from) {
                    Some(Holds::Source(family)) => self.range(family, low, high),
                    Some(Holds::Port) if translating => self.port(low, high),
                    _ => {}
                },
                Expression::Lookup { set: name, from, .. } => {
                    let Some(set) = table.sets.get(name) else { continue };
                    match of(*from) {
                        Some(Holds::Source(family)) => self.set(table, family, set),
                        Some(Holds::Port) if translating => self.ports_of(set),
                        _ => {}
                    }
                }
                Expression::Match(one) => self.xt(table, one, translating),
                _ => {}
            }
        }
    }

    fn xt(&mut self, table: &Table, one: &Match, translating: bool) {
        match one {
            Match::AddressRange { source: Some((low, high, _)), .. } => {
                let family = if table.family == NftFamily::Ip6 { Family::Ipv6 } else { Family::Ipv4 };
                let n = if family == Family::Ipv4 { 4 } else { 16 };
                self.range(family, &low[..n], &high[..n]);
            }
            Match::Ports { destination, .. }
                if translating && (destination.low, destination.high) != (0, u16::MAX) =>
            {
                self.translated_ports.insert((destination.low, destination.high));
            }
            Match::Multiport { destination: true, ranges, .. } if translating => {
                self.translated_ports.extend(ranges.iter().copied());
            }
            _ => {}
        }
    }

    fn prefix(&mut self, family: Family, value: &[u8], mask: Option<&[u8]>) {
        // Without a mask, as many bits as there are bytes.
        let bits =
            mask.map_or(value.len() * 8, |mask| mask.iter().map(|byte| byte.count_ones() as usize).sum());
        if let (Some(address), Ok(bits)) = (address(family, value), u8::try_from(bits)) {
            self.prefixes.extend(IpNet::new(address, bits).ok().map(|net| net.trunc()));
        }
    }

    fn range(&mut self, family: Family, low: &[u8], high: &[u8]) {
        match (address(family, low), address(family, high)) {
            (Some(IpAddr::V4(low)), Some(IpAddr::V4(high))) if low <= high => {
                self.prefixes.extend(ipnet::Ipv4Subnets::new(low, high, 0).map(IpNet::V4).take(MOST + 1));
            }
            (Some(IpAddr::V6(low)), Some(IpAddr::V6(high))) if low <= high => {
                self.prefixes.extend(ipnet::Ipv6Subnets::new(low, high, 0).map(IpNet::V6).take(MOST + 1));
            }
            _ => {}
        }
    }

    fn set(&mut self, table: &Table, family: Family, set: &Set) {
        let elements = match &set.elements {
            Elements::Exact(all) => all.len(),
            Elements::Ranges(all) => all.len(),
            Elements::Fields(all, _) => all.len(),
        };
        if set.dynamic || elements > MOST || matches!(set.elements, Elements::Fields(..)) {
            self.sets.insert(format!("{} {} {}", table.family.name(), table.name, set.name));
            return;
        }
        match &set.elements {
            Elements::Exact(all) => {
                for key in all.keys() {
                    self.prefix(family, key, None);
                }
            }
            Elements::Ranges(all) => {
                for (low, end, _) in all {
                    let last = end.as_deref().map_or_else(|| vec![0xff; low.len()], before);
                    self.range(family, low, &last);
                }
            }
            Elements::Fields(..) => {}
        }
    }

    fn ports_of(&mut self, set: &Set) {
        match &set.elements {
            Elements::Exact(all) => {
                for key in all.keys().take(usize::from(u16::MAX)) {
                    self.port(key, key);
                }
            }
            Elements::Ranges(all) => {
                for (low, end, _) in all {
                    let last = end.as_deref().and_then(number).unwrap_or(0).wrapping_sub(1);
                    self.port(low, &last.to_be_bytes());
                }
            }
            Elements::Fields(..) => {}
        }
    }

    fn port(&mut self, low: &[u8], high: &[u8]) {
        if let (Some(low), Some(high)) = (number(low), number(high)) {
            self.translated_ports.insert((low, high));
        }
    }
}

fn number(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// An address of which the first bytes are given.
fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    let mut raw = [0; 16];
    raw.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(match family {
        Family::Ipv4 if bytes.len() <= 4 => Ipv4Addr::new(raw[0], raw[1], raw[2], raw[3]).into(),
        Family::Ipv4 => return None,
        Family::Ipv6 => Ipv6Addr::from(raw).into(),
    })
}

fn table_translates(filters: &Filters, table: usize) -> bool {
    let of_table = filters.chains.iter().filter(|chain| chain.table == table);
    of_table.filter_map(|chain| chain.base.as_ref()).any(|base| base.kind == "nat")
}

/// A representative of a prefix, and whether it is one that a peer can have.
#[must_use]
pub fn representative(net: IpNet) -> Option<IpAddr> {
    let first = match net {
        IpNet::V4(net) => IpAddr::V4(net.hosts().next()?),
        IpNet::V6(net) if net.prefix_len() < 127 => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | 1)),
        IpNet::V6(net) => IpAddr::V6(net.network()),
    };
    (!first.is_loopback() && !first.is_multicast() && !first.is_unspecified()).then_some(first)
}
