//! Joins what a trace of packet filters reports to the connections of a lab: which rule decided about each, and where a
//! translation sent it. Pure: events in, decisions out.
//!
//! A chain with a hook begins with the headers of the packet; what follows under the same number, until the next headers, is the
//! same packet in the same chain and the chains that it calls. Rules that do not match are not reported: that a rule was asked
//! follows from the one behind it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::model::ruleset::{NftKind, Ruleset};
use crate::model::{Decider, FilterDecision, FilterVerdict, FilteredPacket, Protocol, Translated};
use crate::sys::{ChainName, Met, Replayed, TraceEvent, TraceVerdict};

/// A connection: protocol, client, server.
type Key = (Protocol, SocketAddr, SocketAddr);

const ACK: u8 = 16;

/// The packets of a run, by connection.
#[derive(Debug, Default)]
pub struct Flows {
    chains: Vec<ChainName>,
    numbers: HashMap<ChainName, usize>,
    flows: HashMap<Key, Vec<Pass>>,
    by_client: HashMap<(Protocol, SocketAddr), Vec<Key>>,
    /// By the kernel's number of a packet: the connection, and which of its passes goes on; none where it is known already.
    open: HashMap<u32, (Key, Option<usize>)>,
    /// Whether the kernel had to leave events out.
    pub lost: bool,
}

/// One packet in one chain with a hook.
#[derive(Debug)]
struct Pass {
    answer: bool,
    base: usize,
    /// The destination that the packet had.
    to: SocketAddr,
    last: Option<(usize, Met, TraceVerdict)>,
    /// How far each chain was asked: up to the rule with this handle, or to its end.
    asked: Vec<(usize, Asked)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    To(u64),
    All,
}

/// What was traced of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// What the filters decided; `None` where no chain asked.
    pub decision: Option<FilterDecision>,
    /// Where a translation sent it.
    pub translated: Option<Translated>,
}

/// The rules that a copy has, by which handles of a trace are rules of the original.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The rules of the original.
    pub ruleset: &'a Ruleset,
    /// What the replay made of them.
    pub replayed: &'a Replayed,
    /// A rule in words, by its place.
    pub text: &'a dyn Fn(usize) -> String,
}

impl Flows {
    /// Takes note of an event.
    pub fn note(&mut self, event: TraceEvent) {
        let chain = self.number(&event.chain);
        if let Some(packet) = event.packet {
            let answer = packet.protocol == Protocol::Tcp && packet.flags & ACK != 0;
            let (client, server) = if answer { (packet.to, packet.from) } else { (packet.from, packet.to) };
            let key = self.key(event.id, (packet.protocol, client, server));
            let passes = self.flows.entry(key).or_default();
            // A packet that is sent again meets what the first one met.
            let known = passes.iter().any(|pass| pass.answer == answer && pass.base == chain);
            let number = (!known).then_some(passes.len());
            if !known {
                passes.push(Pass { answer, base: chain, to: packet.to, last: None, asked: Vec::new() });
            }
            self.open.insert(event.id, (key, number));
        }
        let called = match &event.verdict {
            TraceVerdict::Jump(to) | TraceVerdict::Goto(to) => {
                let (family, table, _) = &event.chain;
                Some(self.number(&(*family, table.clone(), to.clone())))
            }
            _ => None,
        };
        let Some((key, Some(number))) = self.open.get(&event.id) else { return };
        let Some(pass) = self.flows.get_mut(key).and_then(|passes| passes.get_mut(*number)) else { return };
        let asked = match event.met {
            Met::Rule(handle) => Asked::To(handle),
            Met::Return | Met::Policy => Asked::All,
        };
        pass.asked.push((chain, asked));
        // What it asks, if it says no more of it, it asks to its end.
        pass.asked.extend(called.map(|called| (called, Asked::All)));
        if let Some(earlier) =
            pass.asked.iter().position(|(other, how)| *other == chain && *how == Asked::All)
            && matches!(asked, Asked::To(_))
        {
            pass.asked.remove(earlier);
        }
        pass.last = Some((chain, event.met, event.verdict));
    }

    fn number(&mut self, chain: &ChainName) -> usize {
        if let Some(number) = self.numbers.get(chain) {
            return *number;
        }
        let number = self.chains.len();
        self.chains.push(chain.clone());
        self.numbers.insert(chain.clone(), number);
        number
    }

    /// The connection of a packet with these ends: after a translation its destination is another one.
    fn key(&mut self, id: u32, key: Key) -> Key {
        if self.flows.contains_key(&key) {
            return key;
        }
        let open = self.open.get(&id).map(|(open, _)| *open);
        if let Some(open) = open.filter(|open| (open.0, open.1) == (key.0, key.1)) {
            return open;
        }
        self.by_client.entry((key.0, key.1)).or_default().push(key);
        key
    }

    /// Whether anything was traced of a connection.
    #[must_use]
    pub fn has(&self, protocol: Protocol, client: SocketAddr, server: SocketAddr) -> bool {
        self.find((protocol, client, server)).is_some()
    }

    fn find(&self, key: Key) -> Option<Key> {
        if self.flows.contains_key(&key) {
            return Some(key);
        }
        // An address that means the host itself, such as 0.0.0.0, is another one in the packets.
        match self.by_client.get(&(key.0, key.1)).map(Vec::as_slice) {
            Some([only]) if key.2.ip().is_unspecified() => Some(*only),
            _ => None,
        }
    }

    /// What the filters of a copy did to a connection; `None` where nothing was traced.
    #[must_use]
    pub fn traced(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        server: SocketAddr,
        rules: Rules<'_>,
    ) -> Option<Traced> {
        let key = self.find((protocol, client, server))?;
        let mut passes: Vec<&Pass> = self.flows.get(&key)?.iter().collect();
        let translated = self.translated(&passes, key.2, rules);
        // On the way from the host to itself the packet comes back under the new destination.
        let back = translated.as_ref().map(|one| (protocol, client, SocketAddr::new(one.address, one.port)));
        passes.extend(
            back.filter(|back| *back != key).and_then(|back| self.flows.get(&back)).into_iter().flatten(),
        );
        Some(Traced { decision: self.decision(protocol, &passes, rules), translated })
    }

    fn translated(&self, passes: &[&Pass], server: SocketAddr, rules: Rules<'_>) -> Option<Translated> {
        let to = passes.iter().find(|pass| !pass.answer && pass.to != server)?.to;
        let by = passes.iter().filter(|pass| !pass.answer).find_map(|pass| match &pass.last {
            Some((chain, met @ Met::Rule(_), TraceVerdict::Accept)) => {
                let base = rules.replayed.bases.get(self.chains.get(pass.base)?)?;
                (base.kind == "nat" && matches!(base.hook, 0 | 3))
                    .then(|| self.decider(*chain, *met, "", rules))
            }
            _ => None,
        });
        Some(Translated { address: to.ip(), port: to.port(), by: by.flatten() })
    }

    fn decision(&self, protocol: Protocol, passes: &[&Pass], rules: Rules<'_>) -> Option<FilterDecision> {
        let hook = |pass: &Pass| {
            let base = rules.replayed.bases.get(self.chains.get(pass.base)?)?;
            (base.kind != "nat").then_some(base.hook)
        };
        let last = |pass: &&&Pass| pass.last.is_some();
        let dropping =
            |pass: &&&Pass| matches!(pass.last, Some((_, _, TraceVerdict::Drop | TraceVerdict::Stolen)));
        let by_rule = |pass: &&&Pass| matches!(pass.last, Some((_, Met::Rule(_), TraceVerdict::Accept)));
        let local = |pass: &&&Pass| !pass.answer && hook(pass) == Some(1);
        let through = |pass: &&&Pass| !pass.answer && hook(pass) == Some(2);
        let all = || passes.iter().filter(last);
        let decides = all()
            .find(dropping)
            .or_else(|| all().rev().find(|pass| local(pass) && by_rule(pass)))
            .or_else(|| all().rev().find(local))
            .or_else(|| all().rev().find(|pass| through(pass) && by_rule(pass)))
            .or_else(|| all().rev().find(through))
            .or_else(|| all().find(|pass| !pass.answer))?;
        let (chain, met, verdict) = decides.last.as_ref()?;
        let (verdict, word) = match verdict {
            TraceVerdict::Drop => (FilterVerdict::Drop, "policy drop"),
            TraceVerdict::Stolen => (FilterVerdict::Drop, "stolen"),
            _ => (FilterVerdict::Accept, "policy accept"),
        };
        let place = self.place(*chain, *met, rules);
        let rejects = place.is_some_and(|place| rules.replayed.rejecting.contains(&place));
        let verdict = if rejects && verdict == FilterVerdict::Drop { FilterVerdict::Reject } else { verdict };
        let packet = match (decides.answer, protocol) {
            (true, _) => FilteredPacket::Answer,
            (false, Protocol::Tcp) => FilteredPacket::Syn,
            (false, Protocol::Udp) => FilteredPacket::Datagram,
        };
        let by = self.decider(*chain, *met, word, rules)?;
        let asked: Vec<usize> = self.places_asked(passes, rules);
        let name = |place: usize| {
            let object = rules.ruleset.nftables.get(place);
            let chain = object.and_then(|object| object.chain.clone()).unwrap_or_default();
            let table = object.map(|object| format!("{} {}", object.family.name(), object.table));
            let escape = crate::escape::escape;
            format!(
                "rule {} of {} {}",
                rule_number(place, rules.ruleset),
                escape(&table.unwrap_or_default()),
                escape(&chain)
            )
        };
        let assumes = asked.iter().filter(|place| rules.replayed.limited.contains(place));
        let assumes =
            assumes.map(|place| format!("the rate limit of {} is not reached", name(*place))).collect();
        let depends_on = asked.iter().filter_map(|place| {
            let reasons = rules.replayed.unfaithful.get(place)?;
            Some(format!("{} depends on {}", name(*place), reasons.join(" and on ")))
        });
        Some(FilterDecision { verdict, by, packet, assumes, depends_on: depends_on.collect() })
    }

    /// The rules of the original about which something is to be said and that a packet was asked, by place.
    fn places_asked(&self, passes: &[&Pass], rules: Rules<'_>) -> Vec<usize> {
        let special = rules.replayed.limited.iter().chain(rules.replayed.unfaithful.keys());
        let mut found: Vec<usize> = special
            .filter(|place| {
                let Some(object) = rules.ruleset.nftables.get(**place) else { return false };
                let chain = object.chain.clone().unwrap_or_default();
                let name = (object.family, object.table.clone(), chain);
                let Some(number) = self.numbers.get(&name) else { return false };
                let asked = passes.iter().flat_map(|pass| &pass.asked).filter(|(chain, _)| chain == number);
                asked.into_iter().any(|(chain, asked)| match asked {
                    Asked::All => true,
                    Asked::To(handle) => {
                        self.place(*chain, Met::Rule(*handle), rules).is_none_or(|last| **place <= last)
                    }
                })
            })
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The place of a rule in the original.
    fn place(&self, chain: usize, met: Met, rules: Rules<'_>) -> Option<usize> {
        let Met::Rule(handle) = met else { return None };
        let list = rules.replayed.rules.get(self.chains.get(chain)?)?;
        list.iter().find(|(own, _)| *own == handle).map(|(_, place)| *place)
    }

    fn decider(&self, chain: usize, met: Met, policy: &str, rules: Rules<'_>) -> Option<Decider> {
        let (family, table, chain_name) = self.chains.get(chain)?.clone();
        let place = self.place(chain, met, rules);
        Some(Decider {
            family,
            table,
            chain: chain_name,
            rule: place.map(|place| rule_number(place, rules.ruleset)),
            handle: place.and_then(|place| rules.ruleset.nftables.get(place)?.handle),
            text: place.map_or_else(|| policy.to_owned(), rules.text),
        })
    }
}

/// The number of a rule in its chain, from 1.
#[must_use]
pub fn rule_number(place: usize, ruleset: &Ruleset) -> usize {
    let Some(rule) = ruleset.nftables.get(place) else { return 0 };
    let same = |other: &&crate::model::ruleset::NftObject| {
        other.kind == NftKind::Rule
            && (other.family, &other.table, &other.chain) == (rule.family, &rule.table, &rule.chain)
    };
    ruleset.nftables.iter().take(place + 1).filter(same).count()
}
