//! The outcome of a packet at the sockets of a host with packet filters: the rules are asked before the sockets, because a translation
//! changes destination and port, and again about the answer.

mod facts;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::answer::Question as Client;
use super::decide;
use super::paths::{Arriving, Back, HostView, Path, RuleClient};
use super::{Destination, Reach, Source};
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{
    Answer, AnswerKind, Family, FilterDecision, FilterVerdict, IfName, Interface, LinkKind, Outcome,
    Protocol, Snapshot, Translated,
};
use crate::plan::fib::{Decision, Fact, Flow};
use crate::plan::filter::packet::{Device, Packet};
use crate::plan::filter::sources::{Compared, representative};
use crate::plan::filter::trail::Event;
use crate::plan::filter::{
    Delivery, ETHERNET, Facts, Fate, Filters, Incoming, LOOPBACK, Neighbour, Origin, Prediction, Question,
    Reply, address_type, follow, follow_with_trail,
};
use crate::plan::local_table::Ipv4Kind;
use crate::plan::predict::Binds;

/// How many look-ups of sockets are kept for one connection.
const MOST_LOOKED_UP: usize = 4;

/// What the rules of packet filters do to a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filtered {
    /// What was decided and by which rule; `None` where no rule was asked, or it is not known.
    pub decision: Option<FilterDecision>,
    /// Where the connection is sent to.
    pub translated: Option<Translated>,
    /// What the client receives in place of a connection.
    pub answer: Option<Answer>,
    /// What it depends on that is not known.
    pub depends_on: Vec<String>,
    /// The narrowest network with which rules compare sources that contains the client.
    pub client_in: Option<IpNet>,
}

/// Rules that can be interpreted.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) filters: Filters,
    compared: Compared,
    /// Whether each result says what becomes of clients in other networks.
    name_others: bool,
}

/// The rules of a host.
#[derive(Debug)]
pub(super) enum Rules {
    /// There are none, or they were not read.
    None,
    /// These.
    Known(Box<Known>),
    /// They cannot be decoded, for this reason.
    Damaged(String),
}

impl Rules {
    /// The rules of a snapshot.
    pub(super) fn of(snapshot: &Snapshot, name_others: bool) -> Rules {
        let ruleset = snapshot.packet_filters.as_ref().and_then(|filters| filters.ruleset.as_ref());
        let Some(ruleset) = ruleset.filter(|ruleset| !ruleset.is_empty()) else { return Rules::None };
        match Filters::decode(ruleset) {
            Ok(filters) if filters.is_empty() => Rules::None,
            Ok(filters) => {
                let compared = Compared::collect(&filters);
                Rules::Known(Box::new(Known { filters, compared, name_others }))
            }
            Err(error) => Rules::Damaged(error.to_string()),
        }
    }

    /// A client on or beyond a link in each network that rules tell apart, where there can be one.
    pub(super) fn clients(&self, view: &HostView<'_>, link: &IfName) -> Vec<(IpNet, RuleClient)> {
        let Rules::Known(known) = self else { return Vec::new() };
        let prefixes = &known.compared.prefixes;
        let own: Vec<IpNet> = view.networks(link).collect();
        let client_in = |net: &IpNet| -> Option<(IpNet, RuleClient)> {
            let inside: Vec<IpNet> =
                prefixes.iter().filter(|other| *other != net && net.contains(*other)).copied().collect();
            let behind = inside.iter().chain(own.iter().filter(|own| net.contains(*own)));
            let candidates = std::iter::once(representative(*net)).chain(behind.map(|other| after(*other)));
            let usable: Vec<RuleClient> = candidates
                .flatten()
                .filter(|address| net.contains(address) && !inside.iter().any(|one| one.contains(address)))
                .filter(|address| {
                    view.local.owner(*address, None).is_none() && !view.local.has_address(*address)
                })
                .filter_map(|address| {
                    let beyond = !own.iter().any(|net| net.contains(&address));
                    let family = Family::of(address);
                    (!beyond || !needs_zone(address) && view.has_beyond_in(link, family))
                        .then_some(RuleClient { address, beyond })
                })
                .collect();
            // Those on the link are asked about anyway, where they are in the network.
            let client = usable.iter().find(|client| client.beyond).or_else(|| usable.first())?;
            Some((*net, *client))
        };
        prefixes.iter().filter_map(client_in).collect()
    }

    /// Whether results depend on ports, even of those without sockets.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Rules::None)
    }
}

/// A packet and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) source: &'a Source,
    /// The address that a client of this host has bound; `None` where the kernel chooses.
    pub(super) bound: Option<IpAddr>,
    pub(super) to: IpAddr,
    pub(super) path: Path,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// The outcome of a packet, with what the rules do to it.
pub(super) fn arrive(view: &HostView<'_>, binds: &Binds, rules: &Rules, attempt: Attempt<'_>) -> Reach {
    arrive_recorded(view, binds, rules, attempt, None)
}

/// What the packets of a connection met.
#[derive(Debug)]
pub(super) struct Trail {
    pub(super) events: Vec<Event>,
    /// The packets that the sockets were looked up for.
    pub(super) looked_up: Vec<(Path, u16)>,
}

/// As [`arrive`], and says what the packets met, where rules were asked.
pub(super) fn arrive_recorded(
    view: &HostView<'_>,
    binds: &Binds,
    rules: &Rules,
    attempt: Attempt<'_>,
    trail: Option<&mut Option<Trail>>,
) -> Reach {
    let Attempt { path, protocol, port, .. } = attempt;
    let unfiltered = || decide::arrive(view, binds, path, (protocol, port), Fact::Known(0));
    let known = match rules {
        Rules::None => return unfiltered(),
        Rules::Damaged(why) => {
            let filtered = Filtered { depends_on: vec![why.clone()], ..Filtered::default() };
            let unknown = Reach::unknown(Code::FILTER_UNKNOWN, Vec::new(), None);
            return Reach { filtered: Some(Arc::new(filtered)), ..unknown };
        }
        Rules::Known(known) => known,
    };
    let Known { filters, compared, name_others } = &**known;
    let arriving = match path {
        Path::Arrives(arriving) => Some(arriving),
        // The kernel drops it after the rules of `prerouting`, which may translate it before.
        Path::Lost(_, Code::LOOPBACK_FROM_WIRE) if filters.translates(Family::Ipv4) => {
            to_loopback(view, attempt.source, attempt.to)
        }
        _ => None,
    };
    let Some(arriving) = arriving else { return unfiltered() };
    let Some(question) = question(view, &attempt, &arriving) else {
        return Reach::unknown(Code::FILTER_UNKNOWN, Vec::new(), None);
    };
    let host = Host {
        view,
        binds,
        attempt,
        arriving,
        marks_answers: filters.sees_output(Family::of(arriving.destination)),
        seen: RefCell::default(),
        looked_up: RefCell::default(),
    };
    let mut prediction = match trail {
        Some(trail) => {
            let (prediction, events) = follow_with_trail(filters, &host, &question);
            let looked_up = host.looked_up.take();
            *trail = Some(Trail { events, looked_up });
            prediction
        }
        None => follow(filters, &host, &question),
    };
    if prediction.fate == Fate::Lost && prediction.translated.is_none() {
        return unfiltered();
    }
    if *name_others {
        prediction.assumes.extend(other_clients(filters, compared, &host, &question, &prediction));
    }
    let client_in = match question.origin {
        Origin::Link { .. } => question.source.and_then(|source| compared.narrowest(source)),
        Origin::Host(_) => None,
    };
    host.result(prediction, client_in)
}

/// An address of a client in a network, for a question about that network.
pub(super) fn client_of(view: &HostView<'_>, link: &IfName, network: IpNet) -> Option<IpAddr> {
    let behind = view.networks(link).filter(|own| network.contains(own)).collect::<Vec<_>>();
    let candidates = std::iter::once(representative(network)).chain(behind.into_iter().map(after)).flatten();
    candidates
        .chain(std::iter::once(network.addr()))
        .find(|address| network.contains(address) && view.local.owner(*address, None).is_none())
}

/// The address after the last one of a network.
fn after(net: IpNet) -> Option<IpAddr> {
    match net.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

/// A packet to an IPv4 loopback address on a link, as if it arrived: in everything but the address as one to the link's own address.
fn to_loopback(view: &HostView<'_>, source: &Source, to: IpAddr) -> Option<Arriving> {
    let IpAddr::V4(_) = to.to_canonical() else { return None };
    let (Source::Link(name) | Source::Beyond(name)) = source else { return None };
    let interface = view.snapshot.interfaces.iter().find(|interface| interface.name == *name)?;
    let own = interface.addresses.iter().find(|address| address.family == Family::Ipv4)?;
    let Path::Arrives(arriving) = view.path(source, Destination { address: own.address, zone: 0 })? else {
        return None;
    };
    let (Back::Same { question, .. } | Back::Each(question)) = arriving.back else { return None };
    let to = to.to_canonical();
    Some(Arriving { destination: to, back: Back::Each(Client { to, ..question }), ..arriving })
}

/// The question about a packet that arrives.
fn question(view: &HostView<'_>, attempt: &Attempt<'_>, arriving: &Arriving) -> Option<Question> {
    let (source, origin) = match &arriving.back {
        Back::Here { .. } => {
            let loopback = view.snapshot.interfaces.iter().find(|interface| interface.loopback)?;
            (Some(attempt.bound.unwrap_or(arriving.destination)), Origin::Host(device(loopback)))
        }
        Back::Same { question, .. } | Back::Each(question) => {
            let input = device(view.by_index.get(&question.link)?);
            let origin =
                Origin::Link { input, output: back(view, question), neighbour: neighbour(view, question) };
            (Some(question.client), origin)
        }
    };
    Some(Question {
        protocol: attempt.protocol,
        source,
        source_port: None,
        destination: arriving.destination,
        port: attempt.port,
        origin,
    })
}

/// The interface by which answers to a client leave, where it is one.
fn back(view: &HostView<'_>, client: &Client) -> Option<Device> {
    let flow = Flow { from: Some(client.to), ..Flow::to(client.client) };
    route_device(view, &view.fib.output(view.local, &flow)).flatten()
}

/// The interface of a route: `None` where it is not known, `Some(None)` where there is none.
fn route_device(view: &HostView<'_>, decision: &Decision<'_>) -> Option<Option<Device>> {
    match decision {
        Decision::Found(found) => {
            let mut hops = found.hops.iter().map(|hop| hop.interface);
            let first = hops.next().flatten()?;
            if hops.any(|other| other != Some(first)) {
                return None;
            }
            Some(view.by_index.get(&first).map(|interface| device(interface)))
        }
        Decision::OnLink(interface) => Some(view.by_index.get(interface).map(|interface| device(interface))),
        Decision::Refused { .. } => Some(None),
        Decision::Local { .. } | Decision::Unknown { .. } => None,
    }
}

fn neighbour(view: &HostView<'_>, client: &Client) -> Option<Neighbour> {
    let v6 = |address: IpAddr| match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    v6(client.to)?;
    let (asks, asked): (Option<IpAddr>, Option<IpAddr>) = view.discovery(client)?;
    let of = |address: Option<IpAddr>| -> Option<Ipv6Addr> { address.and_then(v6) };
    Some(Neighbour { source: of(asks), target: of(asked) })
}

fn device(interface: &Interface) -> Device {
    let ethernet = interface.mac.is_some() && interface.kind.as_ref().is_some_and(LinkKind::is_ethernet);
    let hardware = match (interface.loopback, ethernet) {
        (true, _) => Some(LOOPBACK),
        (_, true) => Some(ETHERNET),
        _ => None,
    };
    Device {
        index: interface.index,
        name: String::from_utf8_lossy(interface.name.as_bytes()).into_owned(),
        hardware,
    }
}

/// What becomes of clients whose addresses rules tell apart from the one that was asked about, one sentence each.
fn other_clients(
    filters: &Filters,
    compared: &Compared,
    host: &Host<'_>,
    question: &Question,
    prediction: &Prediction,
) -> Vec<String> {
    let (Back::Same { question: client, .. } | Back::Each(client)) = &host.arriving.back else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let own = compared.narrowest(client.client);
    // A row about clients in a network says nothing about those outside.
    let apart = matches!(host.attempt.source, Source::From(..));
    let inside = |net: &&IpNet| !apart || own.is_some_and(|own| own != **net && own.contains(*net));
    for net in compared.prefixes.iter().filter(inside) {
        let Some(other) = host.view.client_in(client, *net) else { continue };
        let fate = follow(filters, host, &Question { source: Some(other), ..question.clone() }).fate;
        if fate != prediction.fate {
            all.push(format!("the client's address is not in {net}, from which it is {}", word(&fate)));
        }
    }
    for set in &compared.sets {
        all.push(format!("the client's address is not in the set {}", crate::escape::escape(set)));
    }
    if compared.left_out > 0 {
        all.push(format!(
            "the client's address is in none of {} more networks that rules name",
            compared.left_out
        ));
    }
    all
}

fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::Delivered(Delivery::Accepted(_)) => "accepted",
        Fate::Delivered(Delivery::Refused) => "refused",
        Fate::Rejected(_) => "rejected",
        Fate::Forwarded { .. } => "forwarded",
        Fate::Uncertain | Fate::Delivered(_) => "not known",
        _ => "dropped",
    }
}

/// A host as the rules ask about it.
struct Host<'a> {
    view: &'a HostView<'a>,
    binds: &'a Binds,
    attempt: Attempt<'a>,
    arriving: Arriving,
    /// Whether a chain of the hook `output` may give answers a mark.
    marks_answers: bool,
    /// Results at the sockets that were asked for.
    seen: RefCell<Vec<Reach>>,
    /// The packets that the sockets were looked up for, each once.
    looked_up: RefCell<Vec<(Path, u16)>>,
}

impl Host<'_> {
    fn setting(&self, name: &str) -> bool {
        self.view.snapshot.setting(name).is_some_and(|value| value != 0)
    }

    /// The path of a packet whose destination was translated to an address of this host.
    fn translated_path(&self, destination: IpAddr) -> Option<Path> {
        match self.arriving.back {
            Back::Here { .. } => self.view.path(&Source::Host, Destination { address: destination, zone: 0 }),
            Back::Same { question, .. } | Back::Each(question) => {
                let back = Back::Each(Client { to: destination, ..question });
                Some(Path::Arrives(Arriving { destination, special: None, back, ..self.arriving }))
            }
        }
    }

    /// A prediction as a result.
    fn result(&self, prediction: Prediction, client_in: Option<IpNet>) -> Reach {
        let Prediction { fate, by, packet, translated, assumes, depends_on } = prediction;
        let timeout = |why| Reach::without_socket(Outcome::Timeout, why, None);
        let v6 = self.arriving.destination.is_ipv6();
        let udp = self.attempt.protocol == Protocol::Udp;
        let mut answer = None;
        let mut verdict = FilterVerdict::Drop;
        let mut reach = match &fate {
            Fate::Delivered(delivery) => {
                verdict = FilterVerdict::Accept;
                let mut reach = self.at_sockets(*delivery);
                if translated.is_some() {
                    reach.why = Code::REDIRECTED;
                } else if !assumes.is_empty() && reach.outcome == Some(Outcome::Accepted) {
                    reach.why = Code::FILTER_ASSUMED;
                }
                reach
            }
            Fate::Dropped => timeout(Code::FILTER_DROPS),
            Fate::Rejected(reply) | Fate::Broken(_, reply) => {
                verdict = FilterVerdict::Reject;
                answer = Some(answer_of(*reply, v6));
                let outcome = match (&fate, reply) {
                    // The client was connected before.
                    (Fate::Broken(..), Reply::Reset) => Outcome::Accepted,
                    _ => outcome_of(*reply, v6, udp),
                };
                let broken = matches!(fate, Fate::Broken(..));
                let why = if broken { Code::FILTER_HALF_OPEN } else { Code::FILTER_REJECTS };
                Reach::without_socket(outcome, why, None)
            }
            Fate::AnswerDropped(_) => timeout(Code::FILTER_DROPS_ANSWER),
            Fate::HalfOpen(_) => Reach::without_socket(Outcome::Accepted, Code::FILTER_HALF_OPEN, None),
            Fate::Forwarded { .. } => {
                verdict = FilterVerdict::Accept;
                Reach::unknown(Code::FORWARDED, Vec::new(), None)
            }
            // The kernel does not report a transient error to a UDP socket.
            Fate::NoNeighbour if udp => timeout(Code::FILTER_DROPS_NEIGHBOURS),
            Fate::NoNeighbour => {
                Reach::without_socket(Outcome::Unreachable, Code::FILTER_DROPS_NEIGHBOURS, None)
            }
            Fate::Lost => timeout(Code::NOT_FORWARDED),
            Fate::SendRefused => Reach::without_socket(Outcome::Error, Code::FILTER_DROPS, None),
            Fate::Uncertain => Reach::unknown(Code::FILTER_UNKNOWN, Vec::new(), None),
        };
        let known = fate != Fate::Uncertain;
        let decision = by.filter(|_| known).map(|by| FilterDecision {
            verdict,
            by,
            packet,
            assumes,
            depends_on: depends_on.clone(),
        });
        let translated = translated.filter(|_| known).and_then(|translation| {
            let (address, port) = (translation.to.address?, translation.to.port?);
            Some(Translated { address, port, by: Some(translation.by) })
        });
        let filtered = Filtered { decision, translated, answer, depends_on, client_in };
        if filtered != Filtered::default() {
            reach.filtered = Some(Arc::new(filtered));
        }
        reach
    }

    /// The result at the sockets that was delivered to.
    fn at_sockets(&self, delivery: Delivery) -> Reach {
        let seen = self.seen.borrow();
        let found = match delivery {
            Delivery::Accepted(number) => seen.get(number as usize),
            Delivery::Refused => seen.iter().find(|reach| reach.outcome == Some(Outcome::Refused)),
            Delivery::Silent => seen.iter().find(|reach| is_silent(reach)),
            Delivery::Unknown => seen.iter().find(|reach| reach.outcome.is_none()),
        };
        found.cloned().unwrap_or_else(|| Reach::unknown(Code::REACH_UNKNOWN, Vec::new(), None))
    }
}

fn is_silent(reach: &Reach) -> bool {
    !matches!(reach.outcome, None | Some(Outcome::Accepted | Outcome::Refused))
}

fn answer_of(reply: Reply, v6: bool) -> Answer {
    match reply {
        Reply::Reset => Answer::RESET,
        Reply::Icmp { kind, code } => Answer {
            kind: if v6 { AnswerKind::Icmpv6 } else { AnswerKind::Icmp },
            icmp_type: Some(kind),
            code: Some(code),
            from: None,
        },
    }
}

/// What the client sees of an answer (`icmp_err_convert` of `net/ipv4/icmp.c`, `tab_unreach` of `net/ipv6/icmp.c`).
fn outcome_of(reply: Reply, v6: bool, udp: bool) -> Outcome {
    match reply {
        Reply::Reset => Outcome::Refused,
        Reply::Icmp { code, .. } => match (v6, code) {
            (false, 3) | (true, 4) => Outcome::Refused,
            (false, 2 | 4 | 5) => Outcome::Error,
            // The kernel does not report a transient error to a UDP socket.
            (false, 0 | 1 | 11 | 12) | (true, 0 | 2 | 3) if udp => Outcome::Timeout,
            _ => Outcome::Unreachable,
        },
    }
}

impl HostView<'_> {
    /// An address of another client in a network, on the same link or beyond it as the client that is asked about.
    fn client_in(&self, client: &Client, net: IpNet) -> Option<IpAddr> {
        if net.contains(&client.client) || net.addr().is_ipv4() != client.client.is_ipv4() {
            return None;
        }
        let address = representative(net)?;
        let own = self.local.owner(address, None).is_some() || self.local.has_address(address);
        (!own && self.is_on_link(client.link, address) != client.beyond).then_some(address)
    }
}
