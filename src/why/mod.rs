//! Why a client of this host can or cannot connect: facts in, one diagnosis and its fix out. Pure.
//!
//! [`Facts`] hold what a name resolves to, the sockets on the port, the prediction and the result of a real connection for every
//! address. [`diagnose`] asks [`rules`] in their order; the first that applies is the answer, the others are kept as notes.

pub mod rules;
mod sockets;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::code::Code;
use crate::diag::Severity;
use crate::escape::escape;
use crate::model::addr::{is_mapped, text};
use crate::model::{Errno, IfName, ListeningSocket, Outcome, Protocol, SocketState};

/// How the addresses of the target became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ResolvedBy {
    /// The target is an address.
    #[serde(rename = "literal")]
    Literal,
    /// hosts(5).
    #[serde(rename = "/etc/hosts")]
    HostsFile,
    /// getaddrinfo(3), from another source than the hosts file.
    #[serde(rename = "resolver")]
    Resolver,
    /// The target is an interface of this host.
    #[serde(rename = "interface")]
    Interface,
}

impl ResolvedBy {
    /// The word in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ResolvedBy::Literal => "literal",
            ResolvedBy::HostsFile => "/etc/hosts",
            ResolvedBy::Resolver => "resolver",
            ResolvedBy::Interface => "interface",
        }
    }
}

/// Whether programs here can use IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// They can.
    Available,
    /// The kernel makes no AF_INET6 socket (`ipv6.disable=1`, module absent).
    NoKernelSupport,
    /// `net.ipv6.conf.all.disable_ipv6` is 1.
    DisabledEverywhere,
    /// `net.ipv6.conf.lo.disable_ipv6` is 1.
    DisabledOnLoopback,
    /// No interface has ::1.
    NoLoopbackAddress,
}

/// Where an address belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This host.
    Here,
    /// This host, once duplicate address detection on the interface has finished.
    Tentative(IfName),
    /// A link-local address of this host, on another link than the zone of the target: this one.
    OtherLink(IfName),
    /// A group of hosts.
    Multicast,
    /// All hosts of a network.
    Broadcast,
    /// Another host, or none.
    Elsewhere,
}

/// What a real connection met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// Outcome for the client.
    pub outcome: Outcome,
    /// The error of connect(2).
    pub errno: Option<Errno>,
    /// Microseconds until the outcome.
    pub connect_us: u64,
}

/// One address that the target stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The address.
    pub address: IpAddr,
    /// The zone of a link-local address.
    pub zone: Option<IfName>,
    /// Where it belongs.
    pub place: Place,
    /// The interface that it belongs to.
    pub owner: Option<IfName>,
    /// The predicted outcome; `None` where it is not known.
    pub predicted: Option<Outcome>,
    /// The rule of the prediction.
    pub because: Code,
    /// The rule of a packet filter or translation that decides, for people. Escaped.
    pub rule: Option<String>,
    /// The address and port to which a rule sends the connection.
    pub translated: Option<String>,
    /// Index in [`Facts::sockets`] of the socket that is predicted to accept.
    pub socket: Option<usize>,
    /// The real connection; `None` where none was made.
    pub observed: Option<Observed>,
}

impl Tried {
    /// Whether this host has the address.
    #[must_use]
    pub fn local(&self) -> bool {
        self.place == Place::Here
    }

    /// The outcome that counts: observed, else predicted.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.observed.map(|seen| seen.outcome).or(self.predicted)
    }

    /// Whether a client is accepted.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.outcome() == Some(Outcome::Accepted)
    }

    /// The address with its zone.
    #[must_use]
    pub fn text(&self) -> String {
        text(self.address, self.zone.as_ref())
    }

    /// Whether packets to it are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4() || is_mapped(self.address)
    }
}

/// A socket on the port in another network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The namespace, for people. Escaped.
    pub namespace: String,
    /// The socket.
    pub socket: ListeningSocket,
}

/// Everything that is known about a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The target as it was written.
    pub target: String,
    /// The name or address in it.
    pub name: String,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How the addresses became known.
    pub resolved_by: ResolvedBy,
    /// The addresses, in the order of the resolver.
    pub addresses: Vec<Tried>,
    /// Sockets of this network namespace, in every state.
    pub sockets: Vec<ListeningSocket>,
    /// Sockets on the port in other network namespaces that could be read.
    pub elsewhere: Vec<Elsewhere>,
    /// Whether IPv6 can be used.
    pub ipv6: Ipv6,
    /// Interfaces that are up, and on which `disable_ipv6` is 1. Loopback is not in the list.
    pub ipv6_off: Vec<IfName>,
    /// The name of this host, where it is known.
    pub host_name: Option<String>,
    /// Whether the loopback interface is up.
    pub loopback_up: bool,
    /// Tables of packet filters that exist here.
    pub filters: Vec<String>,
    /// Why there may be filters that are not in the list.
    pub filters_unknown: Option<String>,
    /// Clients of other hosts that get no answer from the listeners of the port: who, and the rule or route that decides it.
    pub lost_answers: Vec<String>,
    /// The program that the user expects to answer.
    pub expected: Option<String>,
}

impl Facts {
    /// Sockets on the port that serve clients of the protocol, with their index.
    pub fn serving(&self) -> impl Iterator<Item = (usize, &ListeningSocket)> {
        self.on_port(self.protocol).filter(|(_, socket)| serves(socket))
    }

    /// Sockets on the port in every state.
    pub fn on_port(&self, protocol: Protocol) -> impl Iterator<Item = (usize, &ListeningSocket)> {
        let port = self.port;
        self.sockets
            .iter()
            .enumerate()
            .filter(move |(_, socket)| socket.view.port == port && socket.view.protocol == protocol)
    }

    /// The socket that answers at an address.
    #[must_use]
    pub fn socket_of(&self, tried: &Tried) -> Option<&ListeningSocket> {
        tried.socket.and_then(|index| self.sockets.get(index))
    }

    /// The target's port with an address, as a client writes it.
    #[must_use]
    pub fn with_port(&self, address: &str) -> String {
        if address.contains(':') {
            format!("[{address}]:{}", self.port)
        } else {
            format!("{address}:{}", self.port)
        }
    }
}

/// Whether a socket can accept clients.
#[must_use]
pub fn serves(socket: &ListeningSocket) -> bool {
    matches!(socket.state, SocketState::Listen | SocketState::Unconnected)
}

/// The program of a socket, as `node (4211)`. Escaped.
#[must_use]
pub fn program(socket: &ListeningSocket) -> String {
    match socket.owners.as_deref() {
        Some([first, rest @ ..]) => {
            let more = if rest.is_empty() { String::new() } else { format!(" +{}", rest.len()) };
            format!("{} ({}){more}", escape(&first.command), first.pid)
        }
        Some([]) => socket.kernel.as_ref().map_or_else(|| "the kernel".to_owned(), ToString::to_string),
        None => match socket.uid {
            Some(uid) => format!("a program of user {uid}"),
            None => "a program that could not be read".to_owned(),
        },
    }
}

/// The name of the program of a socket, to be compared; `None` when it is not known.
fn command(socket: &ListeningSocket) -> Option<&str> {
    socket.owners.as_deref().and_then(<[_]>::first).map(|owner| owner.command.as_str())
}

/// What is the matter, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The kind of cause.
    pub code: Code,
    /// `error` for what makes a client fail, `note` for what else is worth knowing.
    pub severity: Severity,
    /// The cause in one or two sentences.
    pub message: String,
    /// The smallest change that helps.
    pub help: String,
    /// The page to read next: a code or a topic of `bindscope explain`.
    #[serde(skip)]
    pub page: &'static str,
}

/// All causes that apply, the deciding one first. Empty when every address answers, with the same program.
#[must_use]
pub fn diagnose(facts: &Facts) -> Vec<Diagnosis> {
    let mut found: Vec<Diagnosis> = Vec::new();
    for rule in rules::ALL {
        if let Some(mut diagnosis) = rule(facts)
            && found.iter().all(|earlier| earlier.code != diagnosis.code)
            // That nothing listens is the last resort: every other cause says so, too, except a packet filter.
            && (diagnosis.code != Code::NO_LISTENER
                || found.iter().all(|earlier| rules::FILTER_CODES.contains(&earlier.code)))
        {
            if !found.is_empty() {
                diagnosis.severity = Severity::Note;
            }
            found.push(diagnosis);
        }
    }
    if found.is_empty() {
        found.extend(rules::unexplained(facts));
    }
    found
}

/// The answer in one sentence.
#[must_use]
pub fn headline(facts: &Facts, diagnosis: &[Diagnosis]) -> String {
    let target = escape(&facts.target);
    let local: Vec<&Tried> = facts.addresses.iter().filter(|one| one.local()).collect();
    if facts.addresses.is_empty() {
        return format!("{target} cannot be reached: the name does not resolve.");
    }
    if local.is_empty() {
        let group = |one: &Tried| matches!(one.place, Place::Multicast | Place::Broadcast);
        return if facts.addresses.iter().all(group) {
            format!("{target} is not an address of one host.")
        } else if !decided(facts) {
            format!("{target} is not an address of this host, and bindscope looks at this host only.")
        } else {
            format!("{target} cannot be used here.")
        };
    }
    let accepted = local.iter().filter(|one| one.accepted()).count();
    let programs: BTreeSet<String> = local
        .iter()
        .filter(|one| one.accepted())
        .filter_map(|one| facts.socket_of(one))
        .map(program)
        .collect();
    let by = match programs.len() {
        1 => programs.first().map(|program| format!(": {program}")).unwrap_or_default(),
        _ => String::new(),
    };
    if accepted == local.len() {
        return match (programs.len() > 1, diagnosis.is_empty()) {
            (true, _) => format!("{target} answers, but with different programs."),
            (false, true) => format!("{target} answers{by}."),
            (false, false) => format!("{target} answers{by}, with a finding."),
        };
    }
    if accepted == 0 {
        let outcomes: BTreeSet<Option<Outcome>> = local.iter().map(|one| one.outcome()).collect();
        let word = match (outcomes.len(), outcomes.first()) {
            (1, Some(Some(Outcome::Refused))) => "is refused",
            (1, Some(Some(Outcome::Timeout))) => "does not answer",
            (1, Some(Some(Outcome::Unreachable))) => "is unreachable",
            (_, Some(None)) => "was not tried, and what would happen is not known",
            _ => "does not answer",
        };
        return format!("{target} {word}.");
    }
    let (v4, v6): (Vec<&&Tried>, Vec<&&Tried>) = local.iter().partition(|one| one.is_ipv4());
    let all = |list: &[&&Tried]| !list.is_empty() && list.iter().all(|one| one.accepted());
    let none = |list: &[&&Tried]| list.iter().all(|one| !one.accepted());
    if all(&v4) && none(&v6) {
        return format!("{target} answers over IPv4 only. A client that tries IPv6 first fails there.");
    }
    if all(&v6) && none(&v4) {
        return format!("{target} answers over IPv6 only. A client that tries IPv4 first fails there.");
    }
    format!("{target} answers at {accepted} of {} addresses.", local.len())
}

/// Whether the question could be answered at all.
#[must_use]
pub fn decided(facts: &Facts) -> bool {
    facts.addresses.is_empty()
        || (facts.addresses.iter().any(|one| one.place != Place::Elsewhere)
            && facts.addresses.iter().filter(|one| one.local()).all(|one| one.outcome().is_some()))
}
