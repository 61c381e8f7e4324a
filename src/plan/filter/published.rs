//! Ports that address translation sends elsewhere: published ports, which need no socket on the host.
//!
//! The rules of the `nat` chains at `prerouting` are followed through jumps, and what they compare on the way is collected. A rule
//! that tests more than protocol, port, address and interface is listed all the same: it publishes under further conditions.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::decode::{Chain, Filters, Table};
use super::expression::{Bits as Operation, Comparison, Expression, Verdict};
use super::sets::{Elements, Mapped};
use super::xt::{self, Match, Target};
use crate::model::ruleset::NftFamily;
use crate::model::{Decider, Family, Protocol};

/// How deep jumps are followed, and how many rules are read in all: chains may call each other in many ways.
const DEEPEST: usize = 16;
const MOST_RULES: usize = 200_000;
/// How many ports are listed.
const MOST: usize = 4096;
/// `NF_INET_PRE_ROUTING`.
const PREROUTING: u32 = 0;

/// A port that is sent elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The protocol; `None` for every one.
    pub protocol: Option<Protocol>,
    /// The ports, first and last; `None` for every one.
    pub ports: Option<(u16, u16)>,
    /// The addresses of this host that it is for; `None` for every one.
    pub address: Option<IpNet>,
    /// Where connections go; `None` for this host itself.
    pub to: Option<IpAddr>,
    /// The port there; `None` for the same one.
    pub to_port: Option<u16>,
    /// Interfaces on which packets must arrive, or must not (true).
    pub interfaces: Vec<(String, bool)>,
    /// Chain and number, from 0, of the rule.
    pub rule: (usize, usize),
}

impl Published {
    /// The rule that publishes it.
    #[must_use]
    pub fn by(&self, filters: &Filters) -> Decider {
        filters.decider(self.rule.0, Some(self.rule.1))
    }
}

/// What rules on the way compare.
#[derive(Debug, Clone, Default)]
struct Conditions {
    protocol: Option<Protocol>,
    ports: Option<(u16, u16)>,
    address: Option<IpNet>,
    interfaces: Vec<(String, bool)>,
}

/// Every published port, in order.
#[must_use]
pub fn published(filters: &Filters) -> Vec<Published> {
    let mut search = Search { filters, found: BTreeSet::new(), rules: 0 };
    for (index, chain) in filters.chains.iter().enumerate() {
        let at_prerouting =
            chain.base.as_ref().is_some_and(|base| base.kind == "nat" && base.hook == PREROUTING);
        if at_prerouting && !filters.tables[chain.table].dormant {
            search.chain(index, &Conditions::default(), 0);
        }
    }
    search.found.into_iter().collect()
}

struct Search<'a> {
    filters: &'a Filters,
    found: BTreeSet<Published>,
    rules: usize,
}

/// What a register holds while a rule is read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holds {
    Protocol,
    Port,
    Address(Family),
    Interface,
    Data(Vec<u8>),
    /// Values of a map that is looked up by a port.
    ByPort(Vec<(u16, Vec<u8>)>),
}

impl Search<'_> {
    fn chain(&mut self, index: usize, conditions: &Conditions, depth: usize) {
        let filters = self.filters;
        let Some(chain) = filters.chains.get(index).filter(|_| depth < DEEPEST) else { return };
        for number in 0..chain.rules.len() {
            self.rules += 1;
            if self.rules > MOST_RULES || self.found.len() >= MOST {
                return;
            }
            self.rule(chain, (index, number), conditions.clone(), depth);
        }
    }

    fn rule(&mut self, chain: &Chain, rule: (usize, usize), mut conditions: Conditions, depth: usize) {
        let table = &self.filters.tables[chain.table];
        let mut held: Vec<(usize, Holds)> = Vec::new();
        let mut mask: Option<Vec<u8>> = None;
        for expression in &chain.rules[rule.1].expressions {
            let of = |register: usize| held.iter().find(|(one, _)| *one == register).map(|(_, holds)| holds);
            let loaded = match expression {
                Expression::Payload { base, offset, length, to } => {
                    mask = None;
                    let holds = match (*base, *offset, *length, table.family) {
                        (1, 9, 1, NftFamily::Ip) | (1, 6, 1, NftFamily::Ip6) => Some(Holds::Protocol),
                        (1, 16, 1..=4, NftFamily::Ip | NftFamily::Inet) => Some(Holds::Address(Family::Ipv4)),
                        (1, 24, 1..=16, NftFamily::Ip6 | NftFamily::Inet) => {
                            Some(Holds::Address(Family::Ipv6))
                        }
                        (2, 2, 2, _) => Some(Holds::Port),
                        _ => None,
                    };
                    Some((*to, holds))
                }
                Expression::Meta { key: 16, to } => Some((*to, Some(Holds::Protocol))),
                Expression::Meta { key: 6, to } => Some((*to, Some(Holds::Interface))),
                Expression::Meta { to, .. }
                | Expression::Fib { to, .. }
                | Expression::Connection { to, .. } => Some((*to, None)),
                Expression::Immediate { to, data } => Some((*to, Some(Holds::Data(data.clone())))),
                Expression::Bitwise { bits: Operation::Mask(bits, _), .. } => {
                    mask = Some(bits.clone());
                    None
                }
                Expression::Lookup { set, from, to: Some(to), .. } if of(*from) == Some(&Holds::Port) => {
                    Some((*to, values_by_port(table, set).map(Holds::ByPort)))
                }
                _ => None,
            };
            if let Some((to, holds)) = loaded {
                held.retain(|(register, _)| *register != to);
                held.extend(holds.map(|holds| (to, holds)));
                continue;
            }
            match expression {
                Expression::Compare { from, how, with } => {
                    if let Some(holds) = of(*from)
                        && !compared(&mut conditions, holds, *how, with, mask.as_deref())
                    {
                        return;
                    }
                }
                Expression::Range { from, inverted: false, low, high } if of(*from) == Some(&Holds::Port) => {
                    if let (Some(low), Some(high)) = (port(low), port(high)) {
                        conditions.ports = Some((low, high));
                    }
                }
                Expression::Lookup { set, from, inverted: false, verdict: true, .. }
                    if of(*from) == Some(&Holds::Port) =>
                {
                    self.verdicts(chain, set, &conditions, depth);
                }
                Expression::Match(Match::Ports { protocol, destination, .. }) => {
                    conditions.protocol = protocol_of(*protocol).or(conditions.protocol);
                    if !destination.inverted && (destination.low, destination.high) != (0, u16::MAX) {
                        conditions.ports = Some((destination.low, destination.high));
                    }
                }
                Expression::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => {
                    if let Some(&to) = table.chains.get(to) {
                        self.chain(to, &conditions, depth + 1);
                    }
                }
                Expression::Nat { source: false, registers, .. } => {
                    let address = registers.address.and_then(|(low, _)| of(low));
                    let to_port = registers.port.and_then(|(low, _)| of(low));
                    self.translate(table, &conditions, (address, to_port), rule);
                }
                Expression::Redirect(registers) => {
                    let to_port = registers.port.and_then(|(low, _)| of(low));
                    self.translate(table, &conditions, (None, to_port), rule);
                }
                Expression::Target(Target::Nat { source: false, range }) => {
                    let family = if table.family == NftFamily::Ip6 { Family::Ipv6 } else { Family::Ipv4 };
                    let to = range.addresses.map(|(low, _)| xt::address(low, family));
                    self.add(&conditions, to, range.ports.map(|(low, _)| low), rule);
                }
                Expression::Target(Target::Redirect(range)) => {
                    self.add(&conditions, None, range.ports.map(|(low, _)| low), rule);
                }
                _ => {}
            }
        }
    }

    /// A map from ports to verdicts: each jump under its port.
    fn verdicts(&mut self, chain: &Chain, set: &str, conditions: &Conditions, depth: usize) {
        let table = &self.filters.tables[chain.table];
        let Some(Elements::Exact(all)) = table.sets.get(set).map(|set| &set.elements) else { return };
        for (key, element) in all {
            let (Some(port), Mapped::Verdict(Verdict::Jump(to) | Verdict::Goto(to))) =
                (port(key), &element.mapped)
            else {
                continue;
            };
            if let Some(&to) = table.chains.get(to) {
                let conditions = Conditions { ports: Some((port, port)), ..conditions.clone() };
                self.chain(to, &conditions, depth + 1);
            }
        }
    }

    fn translate(
        &mut self,
        table: &Table,
        conditions: &Conditions,
        (address, to_port): (Option<&Holds>, Option<&Holds>),
        rule: (usize, usize),
    ) {
        let constant = |holds: Option<&Holds>| match holds {
            Some(Holds::Data(data)) => port(data),
            _ => None,
        };
        match address {
            Some(Holds::Data(bytes)) => {
                if let Some(to) = address_of(bytes, table.family) {
                    self.add(conditions, Some(to), constant(to_port), rule);
                }
            }
            Some(Holds::ByPort(values)) => {
                for (key, bytes) in values {
                    let n = if bytes.len() >= 16 { 16 } else { 4 };
                    // A concatenation of address and port has the port behind it.
                    let to_port = bytes.get(n..).and_then(port).or(constant(to_port));
                    if let Some(to) = bytes.get(..n).and_then(|bytes| address_of(bytes, table.family)) {
                        let conditions = Conditions { ports: Some((*key, *key)), ..conditions.clone() };
                        self.add(&conditions, Some(to), to_port, rule);
                    }
                }
            }
            Some(_) => {}
            None => match to_port {
                Some(Holds::ByPort(values)) => {
                    for (key, bytes) in values {
                        let conditions = Conditions { ports: Some((*key, *key)), ..conditions.clone() };
                        self.add(&conditions, None, port(bytes), rule);
                    }
                }
                other => self.add(conditions, None, constant(other), rule),
            },
        }
    }

    fn add(
        &mut self,
        conditions: &Conditions,
        to: Option<IpAddr>,
        to_port: Option<u16>,
        rule: (usize, usize),
    ) {
        let Conditions { protocol, ports, address, interfaces } = conditions.clone();
        self.found.insert(Published { protocol, ports, address, to, to_port, interfaces, rule });
    }
}

/// Takes note of a comparison; false where the rule is for another protocol than TCP and UDP.
fn compared(
    conditions: &mut Conditions,
    holds: &Holds,
    how: Comparison,
    with: &[u8],
    mask: Option<&[u8]>,
) -> bool {
    match (holds, how) {
        (Holds::Protocol, Comparison::Equal) => {
            let protocol = with.first().copied().and_then(protocol_of);
            conditions.protocol = protocol;
            return protocol.is_some();
        }
        (Holds::Port, Comparison::Equal) => conditions.ports = port(with).map(|port| (port, port)),
        (Holds::Address(family), Comparison::Equal) => {
            let full = with.len() * 8;
            let bits = mask.map_or(full, |mask| mask.iter().map(|byte| byte.count_ones() as usize).sum());
            let mut raw = [0; 16];
            if let Some(room) = raw.get_mut(..with.len()) {
                room.copy_from_slice(with);
                let bits = u8::try_from(bits).ok();
                conditions.address = bits.and_then(|bits| IpNet::new(xt::address(raw, *family), bits).ok());
            }
        }
        (Holds::Interface, Comparison::Equal | Comparison::NotEqual) => {
            let name: Vec<u8> = with.iter().copied().take_while(|byte| *byte != 0).collect();
            let name = String::from_utf8_lossy(&name).into_owned();
            conditions.interfaces.push((name, how == Comparison::NotEqual));
        }
        _ => {}
    }
    true
}

fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

fn port(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

fn address_of(bytes: &[u8], family: NftFamily) -> Option<IpAddr> {
    let family = match (bytes.len(), family) {
        (4, _) => Family::Ipv4,
        (16, _) => Family::Ipv6,
        (5.., NftFamily::Ip) => Family::Ipv4,
        _ => return None,
    };
    let mut raw = [0; 16];
    let n = if family == Family::Ipv4 { 4 } else { 16 };
    raw[..n].copy_from_slice(bytes.get(..n)?);
    Some(xt::address(raw, family))
}

/// The values of a map by the ports that lead to them.
fn values_by_port(table: &Table, set: &str) -> Option<Vec<(u16, Vec<u8>)>> {
    let Elements::Exact(all) = &table.sets.get(set)?.elements else { return None };
    let values = all.iter().filter_map(|(key, element)| match &element.mapped {
        Mapped::Value(value) => Some((port(key)?, value.clone())),
        _ => None,
    });
    Some(values.collect())
}
