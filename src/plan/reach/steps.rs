//! The path of one connection, step by step: where the packet arrives, each hook with the rules that matched, translations, the route,
//! the sockets among which one is chosen, and the way of the answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::filtered::{Attempt, Rules, Trail, arrive_recorded};
use super::paths::{Arriving, Back, HostView, Path, RuleClient};
use super::{Answer, Destination, Reach, Source, decide, with_routes};
use crate::code::Code;
use crate::model::addr::text_with_port;
use crate::model::{Decider, FilteredPacket, Outcome, Protocol, Snapshot};
use crate::plan::fib::{Decision, Flow};
use crate::plan::filter::Hook;
use crate::plan::filter::packet::End;
use crate::plan::filter::trail::{Event, What};
use crate::plan::local_table::LocalAddresses;
use crate::plan::lookup::{Preference, Winner};
use crate::plan::predict::{Binds, Holder};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The packet.
    pub packet: FilteredPacket,
    /// What kind of step it is.
    pub stage: Stage,
    /// What happens, one sentence. Unescaped.
    pub what: String,
    /// The rule that matched, or the policy that decided; null for other steps.
    pub by: Option<Decider>,
    /// The sockets that have the port, for a look-up.
    pub candidates: Vec<Candidate>,
    /// The code of what decides, or of what is assumed; null where neither is remarkable.
    pub code: Option<Code>,
}

/// Kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The packet arrives on an interface, or begins on this host.
    Ingress,
    /// The hook `prerouting`.
    Prerouting,
    /// The hook `input`.
    Input,
    /// The hook `forward`.
    Forward,
    /// The hook `output`.
    Output,
    /// The hook `postrouting`.
    Postrouting,
    /// Address translation.
    Translation,
    /// Policy rules and routes.
    Routing,
    /// The sockets among which one is chosen.
    SocketLookup,
    /// Something is taken for granted, or is not known.
    Assumption,
    /// The end.
    Result,
}

impl Stage {
    fn of(hook: Hook) -> Stage {
        match hook {
            Hook::Prerouting => Stage::Prerouting,
            Hook::Input => Stage::Input,
            Hook::Forward => Stage::Forward,
            Hook::Output => Stage::Output,
            Hook::Postrouting => Stage::Postrouting,
        }
    }

    /// Its name in texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Ingress => "ingress",
            Stage::Prerouting => "prerouting",
            Stage::Input => "input",
            Stage::Forward => "forward",
            Stage::Output => "output",
            Stage::Postrouting => "postrouting",
            Stage::Translation => "translation",
            Stage::Routing => "routing",
            Stage::SocketLookup => "socket lookup",
            Stage::Assumption => "assumption",
            Stage::Result => "result",
        }
    }
}

/// A socket with the port of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Whether it can receive the packet; null when that is not known.
    pub matches: Option<bool>,
    /// Its score: among those that match, the highest wins within the sockets of one address.
    pub score: u8,
    /// Whether it receives the packet.
    pub wins: bool,
}

/// The path of a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The result.
    pub reach: Reach,
}

/// Why there is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPath {
    /// The source cannot send a packet there: no router forwards it, or there is no client.
    CannotSend,
    /// There is no client with such an address on this interface.
    NoClient,
}

/// The path of a connection to a destination. `name` names a socket for people.
///
/// # Errors
/// If the source cannot send it.
pub fn steps(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    (source, to): (&Source, Destination),
    (protocol, port): (Protocol, u16),
    name: &dyn Fn(Holder) -> String,
) -> Result<Steps, NoPath> {
    let complete = with_routes(snapshot);
    let view = HostView::new(&complete, local);
    let rules = Rules::of(snapshot, true);
    let path = match source {
        Source::From(link, network) => {
            let of_rules = rules.clients(&view, link).into_iter().find(|(own, _)| own == network);
            let client = match of_rules {
                Some((_, client)) => client,
                None => {
                    let address =
                        super::filtered::client_of(&view, link, *network).ok_or(NoPath::NoClient)?;
                    let beyond = !view.networks(link).any(|own| own.contains(&address));
                    RuleClient { address, beyond }
                }
            };
            view.path_of_client(link, client, to)
        }
        source => view.path(source, to),
    };
    let path = path.ok_or(NoPath::CannotSend)?;
    let attempt = Attempt { source, bound: None, to: to.address, path, protocol, port };
    let mut trail = None;
    let reach = arrive_recorded(&view, binds, &rules, attempt, Some(&mut trail));
    let arriving = match path {
        Path::Arrives(arriving) => Some(arriving),
        _ => None,
    };
    let client = match arriving.map(|arriving| arriving.back) {
        Some(Back::Same { question, .. } | Back::Each(question)) => Some(question.client),
        Some(Back::Here { .. }) => arriving.map(|arriving| arriving.destination),
        None => None,
    };
    let first = if protocol == Protocol::Tcp { FilteredPacket::Syn } else { FilteredPacket::Datagram };
    let mut walk = Walk { view: &view, rules: &rules, binds, name, first, steps: Vec::new() };
    walk.ingress(source, client, to, (protocol, port));
    walk.filters(snapshot);
    let looked_up = match (&trail, arriving) {
        (Some(trail), _) => trail.looked_up.first().copied(),
        (None, Some(arriving)) => Some((Path::Arrives(arriving), port)),
        (None, None) => None,
    };
    let events = trail.as_ref().map_or(&[][..], |trail| &trail.events);
    walk.events(events, |event| event.role == FilteredPacket::Neighbour);
    let before = |event: &Event| {
        event.role == first
            && matches!(event.hook, Hook::Output | Hook::Postrouting | Hook::Prerouting)
            && !after_forward(events, event)
    };
    if *source == Source::Host {
        walk.arrival(path, trail.as_ref(), client, to.address);
        walk.events(events, before);
    } else {
        walk.events(events, before);
        walk.arrival(path, trail.as_ref(), client, to.address);
    }
    walk.events(events, |event| event.role == first && !before(event));
    let delivered = !matches!(
        (&reach.outcome, reach.why),
        (_, Code::FILTER_DROPS | Code::FILTER_REJECTS | Code::FILTER_DROPS_NEIGHBOURS | Code::FORWARDED)
    );
    if let (true, Some((Path::Arrives(arriving), port))) = (delivered, looked_up) {
        walk.lookup(&arriving, protocol, port);
        walk.way_back(&arriving);
    }
    walk.events(events, |event| event.role == FilteredPacket::Answer);
    walk.events(events, |event| event.role == FilteredPacket::Ack);
    walk.result(&reach);
    Ok(Steps { client, steps: walk.steps, reach })
}

/// Whether an event of the hook `postrouting` belongs to a packet that is forwarded.
fn after_forward(events: &[Event], event: &Event) -> bool {
    let forward = events.iter().position(|one| one.hook == Hook::Forward && one.role == event.role);
    let own = events.iter().position(|one| std::ptr::eq(one, event));
    matches!((forward, own), (Some(forward), Some(own)) if own > forward)
}

struct Walk<'a> {
    view: &'a HostView<'a>,
    rules: &'a Rules,
    binds: &'a Binds,
    name: &'a dyn Fn(Holder) -> String,
    first: FilteredPacket,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn add(&mut self, packet: FilteredPacket, stage: Stage, what: String) -> &mut Step {
        let index = self.steps.len();
        self.steps.push(Step { packet, stage, what, by: None, candidates: Vec::new(), code: None });
        &mut self.steps[index]
    }

    fn ingress(
        &mut self,
        source: &Source,
        client: Option<IpAddr>,
        to: Destination,
        (protocol, port): (Protocol, u16),
    ) {
        let to = text_with_port(to.address, None, port);
        let client = client.map_or_else(|| "a client".to_owned(), |client| client.to_string());
        let what = match source {
            Source::Host => format!("this host connects to {protocol} {to}, over its loopback interface"),
            Source::Link(name) => format!(
                "{client} on the link of {name} sends to {protocol} {to}; the packet arrives on {name}"
            ),
            Source::Beyond(name) => {
                format!(
                    "{client} beyond the routers of {name} sends to {protocol} {to}; the packet arrives on {name}"
                )
            }
            Source::From(name, network) => {
                format!("{client}, in {network}, sends to {protocol} {to}; the packet arrives on {name}")
            }
            Source::Node(name) => format!("the node {name} sends to {protocol} {to}"),
        };
        self.add(self.first, Stage::Ingress, what);
    }

    /// What is known of packet filters, where no rule is asked.
    fn filters(&mut self, snapshot: &Snapshot) {
        let known = snapshot.packet_filters.as_ref();
        let unknown =
            known.is_none_or(|filters| filters.unknown_because.is_some() || filters.ruleset.is_none());
        if unknown {
            let because = known.and_then(|filters| filters.unknown_because.clone());
            let because = because.unwrap_or_else(|| "they were not read".to_owned());
            let what =
                format!("no packet filter drops or changes the packets; the rules are not known: {because}");
            self.add(self.first, Stage::Assumption, what).code = Some(Code::FILTERS_UNREADABLE);
        }
    }

    fn events(&mut self, events: &[Event], wanted: impl Fn(&Event) -> bool) {
        let Rules::Known(known) = self.rules else { return };
        for (index, event) in events.iter().enumerate().filter(|(_, event)| wanted(event)) {
            let stage = Stage::of(event.hook);
            let end = |end: &End| match (end.address, end.port) {
                (Some(address), Some(port)) => text_with_port(address, None, port),
                (Some(address), None) => address.to_string(),
                (None, _) => "an address that is not known".to_owned(),
            };
            match &event.what {
                What::Enters { input, output } => {
                    let next = events.get(index + 1);
                    let any = next.is_some_and(|next| {
                        (next.hook, next.role) == (event.hook, event.role)
                            && !matches!(next.what, What::Enters { .. })
                    });
                    // A hook without a chain is no step.
                    if any {
                        let side = |word: &str, name: &Option<String>| {
                            name.as_ref().map(|name| format!("{word} {name}"))
                        };
                        let sides: Vec<String> =
                            [side("from", input), side("to", output)].into_iter().flatten().collect();
                        let what =
                            format!("the packet comes to the hook {} {}", event.hook.name(), sides.join(" "));
                        self.add(event.role, stage, what.trim_end().to_owned());
                    }
                }
                What::Meets(place) => {
                    let by = known.filters.decider(place.chain, place.rule);
                    let what = by.text.clone();
                    self.add(event.role, stage, what).by = Some(by);
                }
                What::Destination { from, to } => {
                    let what = format!("the destination {} becomes {}", end(from), end(to));
                    self.add(event.role, Stage::Translation, what);
                }
                What::Source { from, to } => {
                    let what = format!("the source {} becomes {}", end(from), end(to));
                    self.add(event.role, Stage::Translation, what);
                }
            }
        }
    }

    /// Whether the packet is for this host, and by which rule and route.
    fn arrival(&mut self, path: Path, trail: Option<&Trail>, client: Option<IpAddr>, to: IpAddr) {
        match path {
            Path::Lost(_, code) => {
                let what = format!("{}; no socket is asked", code.title());
                self.add(self.first, Stage::Routing, what).code = Some(code);
                return;
            }
            Path::Dropped(code, answer)
            | Path::Unresolved(code, Some(answer))
            | Path::Unknown(code, Some(answer)) => {
                let what = format!("{}: {}", code.title(), self.words(&answer));
                self.add(self.first, Stage::Routing, what).code = Some(code);
                return;
            }
            Path::Unresolved(code, None) | Path::Unknown(code, None) => {
                self.add(self.first, Stage::Routing, code.title().to_owned()).code = Some(code);
                return;
            }
            Path::Arrives(_) => {}
        }
        let here = matches!(path, Path::Arrives(Arriving { back: Back::Here { .. }, .. }));
        let stopped = !here
            && trail.is_some_and(|trail| {
                trail.looked_up.is_empty()
                    && !trail.events.iter().any(|event| matches!(event.hook, Hook::Input | Hook::Forward))
            });
        if stopped {
            return;
        }
        let Path::Arrives(arriving) = path else { return };
        let moved = trail.filter(|_| !here).and_then(|trail| {
            trail.events.iter().rev().find_map(|event| match &event.what {
                What::Destination { to, .. } if event.role == self.first => to.address,
                _ => None,
            })
        });
        let to = moved.unwrap_or_else(|| to.to_canonical());
        let iif = match arriving.back {
            Back::Here { .. } => 0,
            Back::Same { question, .. } | Back::Each(question) => question.link,
        };
        let flow = Flow { iif, from: client.filter(|_| iif != 0), ..Flow::to(to) };
        let decision = self.view.fib.look_up(self.view.local, &flow);
        let what = self.decision(&decision, to);
        let code = arriving.special.filter(|_| moved.is_none());
        self.add(self.first, Stage::Routing, what).code = code;
    }

    fn decision(&self, decision: &Decision<'_>, to: IpAddr) -> String {
        match decision {
            Decision::Local { table, interface, .. } => {
                let name = self.interface(*interface);
                format!("the table {} says that {to} is an address of this host{name}", table_name(*table))
            }
            other => self.words(&Answer::of_decision(other)),
        }
    }

    fn interface(&self, index: u32) -> String {
        self.view
            .by_index
            .get(&index)
            .map_or_else(String::new, |interface| format!(", on {}", interface.name))
    }

    fn words(&self, answer: &Answer) -> String {
        let named = answer.named(|index| Some(self.view.by_index.get(&index)?.name.clone()));
        named.to_string()
    }

    fn lookup(&mut self, arriving: &Arriving, protocol: Protocol, port: u16) {
        let packet = decide::packet(arriving, protocol, port);
        let tables = &self.binds.tables;
        let winner = tables.winner(&packet);
        let winners = match &winner {
            Winner::Found { ids, .. } => ids.clone(),
            _ => Vec::new(),
        };
        let candidates: Vec<Candidate> = tables
            .candidates(&packet)
            .into_iter()
            .map(|(id, matches, score)| Candidate {
                name: (self.name)(self.binds.holder(id)),
                matches,
                score,
                wins: winners.contains(&id),
            })
            .collect();
        let named = |id: usize| (self.name)(self.binds.holder(id));
        let what = match &winner {
            Winner::NoSocket if candidates.is_empty() => format!("no socket has {protocol} port {port}"),
            Winner::NoSocket => format!("no socket with {protocol} port {port} matches the packet"),
            Winner::Unknown(_) => "which socket receives the packet is not known".to_owned(),
            Winner::Found { ids, over } => {
                let all: Vec<String> = ids.iter().map(|id| named(*id)).collect();
                let shared =
                    if ids.len() > 1 { ", which share the port by a hash of the connection" } else { "" };
                let over = over.map_or_else(String::new, |(id, preference)| {
                    let why = match preference {
                        Preference::SpecificAddress => "it is bound to the address, not to the wildcard",
                        Preference::Ipv4Socket => "it is an IPv4 socket",
                        Preference::Device => "it is bound to the device",
                        Preference::Order => "of its place among the sockets",
                    };
                    format!(" before {}, because {why}", named(id))
                });
                format!("{} receives the packet{shared}{over}", all.join(", "))
            }
        };
        self.add(self.first, Stage::SocketLookup, what).candidates = candidates;
    }

    /// The route of the answer.
    fn way_back(&mut self, arriving: &Arriving) {
        let question = match arriving.back {
            Back::Here { .. } => {
                self.add(FilteredPacket::Answer, Stage::Routing, "the answer stays on this host".to_owned());
                return;
            }
            Back::Same { question, .. } | Back::Each(question) => question,
        };
        let flow = Flow { from: Some(question.to), ..Flow::to(question.client) };
        let decision = self.view.fib.output(self.view.local, &flow);
        let what = format!(
            "the answer to {} leaves by: {}",
            question.client,
            self.decision(&decision, question.client)
        );
        self.add(FilteredPacket::Answer, Stage::Routing, what);
    }

    fn result(&mut self, reach: &Reach) {
        let filtered = reach.filtered.as_deref();
        if let Some(decision) = filtered.and_then(|filtered| filtered.decision.as_ref()) {
            for assumption in &decision.assumes {
                self.add(decision.packet, Stage::Assumption, assumption.clone()).code =
                    Some(Code::FILTER_ASSUMED);
            }
        }
        for fact in filtered.map(|filtered| &filtered.depends_on).into_iter().flatten() {
            let what = format!("the result depends on {fact}");
            self.add(self.first, Stage::Assumption, what).code = Some(Code::FILTER_UNKNOWN);
        }
        let takers: Vec<String> = reach.takers.iter().map(|holder| (self.name)(*holder)).collect();
        let what = match reach.outcome {
            None => "not known".to_owned(),
            Some(Outcome::Accepted) if !takers.is_empty() => format!("accepted by {}", takers.join(", ")),
            Some(outcome) => outcome.to_string(),
        };
        let last = self.steps.last().map_or(self.first, |step| step.packet);
        let what = format!("{what}: {}", reach.why.title());
        self.add(last, Stage::Result, what).code = Some(reach.why);
    }
}

fn table_name(table: u32) -> String {
    match table {
        255 => "local".to_owned(),
        254 => "main".to_owned(),
        253 => "default".to_owned(),
        number => number.to_string(),
    }
}
