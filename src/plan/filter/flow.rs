//! One connection on its way through the hooks: neighbour discovery, the SYN, the answer, the ACK; or one datagram and its answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::decode::Filters;
use super::facts::{Because, Choices, Delivery, Facts};
use super::packet::{Device, End};
use super::path::{Flow, Once};
use super::trail::Event;
use crate::model::{Decider, FilteredPacket as Role, Protocol};

/// Runs with different choices before a result counts as uncertain.
const MOST_RUNS: usize = 96;

/// Who connects, and how packets go between them and the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The host itself, by its loopback interface.
    Host(Device),
    /// A peer on a link.
    Link {
        /// The interface on which its packets arrive.
        input: Device,
        /// The interface by which answers leave; `None` where it is not known.
        output: Option<Device>,
        /// What the peer asks in neighbour discovery; `None` where there is none.
        neighbour: Option<Neighbour>,
    },
}

/// A neighbour solicitation (RFC 4861, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Who asks; `None` where it is not known.
    pub source: Option<Ipv6Addr>,
    /// Which address is asked for; `None` where it is not known.
    pub target: Option<Ipv6Addr>,
}

/// A connection to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address; `None` where it is not known.
    pub source: Option<IpAddr>,
    /// The client's port; `None` where the client's system chooses it, from 32768 on.
    pub source_port: Option<u16>,
    /// The address that the client connects to.
    pub destination: IpAddr,
    /// The port that the client connects to.
    pub port: u16,
    /// Who connects.
    pub origin: Origin,
}

/// An answer other than that of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// A TCP segment with RST.
    Reset,
    /// An ICMP or ICMPv6 error.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The filters let it pass; the sockets decide.
    Delivered(Delivery),
    /// Its first packet is dropped without an answer.
    Dropped,
    /// Its first packet is answered by a rule.
    Rejected(Reply),
    /// The answer is dropped.
    AnswerDropped(Delivery),
    /// The last packet of the handshake is dropped: the client counts as connected, the server does not.
    HalfOpen(Delivery),
    /// The last packet of the handshake is answered by a rule: the client is connected, then refused.
    Broken(Delivery, Reply),
    /// It goes on to another host.
    Forwarded {
        /// The translated destination.
        to: End,
        /// The interface it leaves by.
        by: Device,
    },
    /// Neighbour discovery is dropped.
    NoNeighbour,
    /// After a translation, the kernel has no way for it.
    Lost,
    /// The system refuses to send the datagram (EPERM).
    SendRefused,
    /// It depends on what is not known.
    Uncertain,
}

/// A translation of the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// The new destination.
    pub to: End,
    /// The rule.
    pub by: Decider,
}

/// A prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// What becomes of the connection.
    pub fate: Fate,
    /// The rule or policy that decided; `None` where no chain did.
    pub by: Option<Decider>,
    /// The packet that it decided about.
    pub packet: Role,
    /// Where the destination is translated to.
    pub translated: Option<Translation>,
    /// Assumptions under which this holds.
    pub assumes: Vec<String>,
    /// What it depends on that is not known.
    pub depends_on: Vec<String>,
}

/// Predicts a connection.
#[must_use]
pub fn follow(filters: &Filters, facts: &dyn Facts, question: &Question) -> Prediction {
    run_all(filters, facts, question, &mut None)
}

/// As [`follow`], with what each packet met; where something is not known, by the first of the possibilities.
#[must_use]
pub fn follow_with_trail(
    filters: &Filters,
    facts: &dyn Facts,
    question: &Question,
) -> (Prediction, Vec<Event>) {
    let mut trail = Some(Vec::new());
    let prediction = run_all(filters, facts, question, &mut trail);
    (prediction, trail.unwrap_or_default())
}

fn run_all(
    filters: &Filters,
    facts: &dyn Facts,
    question: &Question,
    trail: &mut Option<Vec<Event>>,
) -> Prediction {
    let first_role = if question.protocol == Protocol::Tcp { Role::Syn } else { Role::Datagram };
    let out_of_sight = filters.not_interpreted_for(question);
    if !out_of_sight.is_empty() {
        return Prediction {
            fate: Fate::Uncertain,
            by: None,
            packet: first_role,
            translated: None,
            assumes: Vec::new(),
            depends_on: out_of_sight,
        };
    }
    let mut choices = Choices::default();
    let mut first: Option<(Once, BTreeSet<&'static str>, Option<Translation>)> = None;
    let mut uncertain: Vec<String> = Vec::new();
    let mut changed: Option<Because> = None;
    for run in 0.. {
        let mut flow = Flow::new(filters, facts, question, &mut choices);
        flow.machine.trail = trail.as_ref().filter(|_| run == 0).map(|_| Vec::new());
        let once = flow.run();
        if flow.machine.trail.is_some() {
            *trail = flow.machine.trail.take();
        }
        let assumes = std::mem::take(&mut flow.machine.assumes);
        let translated = match (flow.machine.connection.to, flow.machine.translated_by[0]) {
            (Some(to), Some(place)) => Some(Translation { to, by: filters.decider(place.chain, place.rule) }),
            _ => None,
        };
        let stops = once.fate == Fate::Uncertain || once.fate == Fate::Delivered(Delivery::Unknown);
        match &mut first {
            None => first = Some((once.clone(), assumes, translated)),
            Some((one, all, _)) if one.fate == once.fate => all.extend(assumes),
            Some(_) => {
                uncertain.extend(changed.map(|because| describe(filters, because)));
                break;
            }
        }
        if stops {
            uncertain.extend(once.place.map(|place| describe(filters, Because::Rule(place))));
            break;
        }
        if !choices.advance() {
            break;
        }
        changed = choices.last();
        if run == MOST_RUNS {
            uncertain.extend(changed.map(|because| describe(filters, because)));
            break;
        }
    }
    let Some((once, assumes, translated)) = first else {
        return Prediction {
            fate: Fate::Uncertain,
            by: None,
            packet: first_role,
            translated: None,
            assumes: Vec::new(),
            depends_on: Vec::new(),
        };
    };
    let certain = uncertain.is_empty();
    Prediction {
        by: once.place.map(|place| filters.decider(place.chain, place.rule)),
        fate: if certain { once.fate } else { Fate::Uncertain },
        packet: once.role,
        translated,
        assumes: assumes.into_iter().map(str::to_owned).collect(),
        depends_on: uncertain,
    }
}

fn describe(filters: &Filters, because: Because) -> String {
    match because {
        Because::Rule(place) => filters.decider(place.chain, place.rule).to_string(),
        Because::Order(place) => {
            let chain = filters.decider(place.chain, None);
            format!(
                "the order of {} {} {} and another chain of the same hook and priority",
                chain.family.name(),
                crate::escape::escape(&chain.table),
                crate::escape::escape(&chain.chain)
            )
        }
        Because::Port => "the port that the client's system chooses".to_owned(),
        Because::Address(place) => {
            format!("the address that is taken by {}", filters.decider(place.chain, place.rule))
        }
    }
}
