//! Evaluates the expectations of a profile against predictions or observations. An expectation without any result is
//! undecided, never a pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};

mod against;

use super::matrix::{CellReport, SocketReport};
use crate::model::{Family, IfName, Interface, Outcome, Protocol, Source, Verdict};
use crate::plan::predict::BindOutcome;
use crate::profile::bind;
use crate::profile::expect::{BindResult, Expectation, ExpectedSource, Spread};

/// Evaluates shares: how many of the connections each socket received.
#[must_use]
pub fn judge_shares(wanted: Spread, counts: &[u32], lost: u32) -> Judged {
    let total = counts.iter().sum::<u32>() + lost;
    let least = counts.iter().copied().min().unwrap_or(0);
    if counts.len() < 2 || total == 0 {
        return (Verdict::Undecided, format!("{} sockets are open, and a share needs two", counts.len()));
    }
    let share = f64::from(least) / f64::from(total);
    let shares: Vec<String> = counts.iter().map(ToString::to_string).collect();
    let because = format!("of {total} connections the sockets took {}", shares.join(", "));
    if lost > 0 {
        return (Verdict::Fail, format!("{because}; {lost} came to none of them"));
    }
    (if share >= wanted.min_share { Verdict::Pass } else { Verdict::Fail }, because)
}

/// Whether a result is from this source.
fn covers(source: &ExpectedSource, cell: &CellReport) -> bool {
    match (source, &cell.source) {
        (ExpectedSource::Loopback, Source::Host) => is_loopback(&cell.destination),
        (ExpectedSource::OwnAddresses, Source::Host) => !is_loopback(&cell.destination),
        (source, from) => names(source, from),
    }
}

/// Whether an expectation's source stands for this one, for some destination at least.
fn names(source: &ExpectedSource, from: &Source) -> bool {
    match (source, from) {
        (ExpectedSource::Loopback | ExpectedSource::OwnAddresses | ExpectedSource::Host, Source::Host) => {
            true
        }
        (ExpectedSource::Link(glob), Source::Link(name) | Source::Beyond(name) | Source::From(name, _)) => {
            bind::glob(glob.as_bytes(), name.as_bytes())
        }
        (ExpectedSource::Node(glob), Source::Node(name)) => bind::glob(glob.as_bytes(), name.as_bytes()),
        (ExpectedSource::Others, Source::Link(_) | Source::Beyond(_) | Source::Node(_)) => true,
        _ => false,
    }
}

/// The narrowest source class of a result.
fn source_of(cell: &CellReport) -> ExpectedSource {
    match &cell.source {
        Source::Host if is_loopback(&cell.destination) => ExpectedSource::Loopback,
        Source::Host => ExpectedSource::OwnAddresses,
        Source::Link(name) | Source::Beyond(name) | Source::From(name, _) => {
            ExpectedSource::Link(name.to_string())
        }
        Source::Node(name) => ExpectedSource::Node(name.clone()),
    }
}

/// Why no connection from the source exists, and the command that makes one.
fn not_attempted(family: &str, source: &ExpectedSource) -> String {
    let command = match source {
        ExpectedSource::Loopback | ExpectedSource::OwnAddresses | ExpectedSource::Host => {
            "`probe` connects from this host"
        }
        ExpectedSource::Link(_) => "`plan` predicts from the links, `lab run --twin` connects from them",
        ExpectedSource::Node(_) => "`lab run` connects from the nodes of a lab",
        ExpectedSource::Others => "`plan` predicts from other hosts, `lab run` connects from them",
    };
    format!("no {family}connection was attempted from {source}; {command}")
}

pub use super::results::ExpectationReport;

/// What decides about a rule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// Only observed results count.
    pub observed_only: bool,
    /// Sources from which no client connects, each with the reason.
    pub without_client: &'a [(Source, String)],
    /// The interfaces of the host, for their alternative names.
    pub interfaces: &'a [Interface],
}

/// Evaluates every rule, as [`judge_with`] does if no connections can be made for a `spread`.
#[must_use]
pub fn judge(
    expectations: &[Expectation],
    sockets: &[SocketReport],
    cells: &[CellReport],
    evidence: Evidence<'_>,
) -> Vec<ExpectationReport> {
    judge_with(expectations, sockets, cells, evidence, &mut |_, _| None)
}

/// Evaluates every rule. `spread` makes the connections for a `spread` rule, if possible. A result counts as observed
/// if it was, otherwise as predicted, unless the evidence is [`Evidence::observed_only`].
#[must_use]
pub fn judge_with(
    expectations: &[Expectation],
    sockets: &[SocketReport],
    cells: &[CellReport],
    evidence: Evidence<'_>,
    spread: &mut dyn FnMut(&Expectation, Spread) -> Option<Judged>,
) -> Vec<ExpectationReport> {
    // Indexed by service, because an expectation needs few of many results.
    let mut by_service: HashMap<Service, Vec<Numbered<'_>>> = HashMap::new();
    if !expectations.is_empty() {
        // An expectation is about hosts, not about the addresses that a client binds.
        let counts = |cell: &CellReport| {
            cell.source_address.is_none() && (!evidence.observed_only || cell.observed.is_some())
        };
        for (index, cell) in cells.iter().enumerate().filter(|(_, cell)| counts(cell)) {
            by_service.entry((cell.protocol, cell.port)).or_default().push((index, cell));
        }
    }
    let mut reports = Vec::new();
    for expectation in expectations {
        let expectation = &expectation.with_names_of(evidence.interfaces);
        let (numbers, matched): (Vec<usize>, Vec<&SocketReport>) = sockets
            .iter()
            .enumerate()
            .filter(|(_, socket)| expectation.names(socket.socket.listener.as_deref().unwrap_or_default()))
            .unzip();
        let case = Case {
            expectation,
            sockets: &matched,
            cells: &by_service,
            without_client: evidence.without_client,
        };
        let mut rules = case.judge();
        if let Some(wanted) = expectation.spread {
            let no_series = "no series of connections was made to count shares in".to_owned();
            let judged = spread(expectation, wanted).unwrap_or((Verdict::Undecided, no_series));
            rules.push(("spread", judged, Vec::new()));
        }
        for (rule, judged, cells) in rules {
            let (verdict, because) = match judged {
                _ if matched.is_empty() => (Verdict::Undecided, "no listener has such a name".to_owned()),
                judged => judged,
            };
            let listener = expectation.listeners.join(", ");
            let (rule, sockets) = (rule.to_owned(), numbers.clone());
            reports.push(ExpectationReport { listener, rule, verdict, because, sockets, cells });
        }
    }
    reports
}

/// A verdict with its reason.
pub type Judged = (Verdict, String);

/// A service: protocol and port.
type Service = (Protocol, u16);

/// A result with its index in the report.
type Numbered<'a> = (usize, &'a CellReport);

/// The name of a rule, its verdict, and the results against it.
type JudgedRule = (&'static str, Judged, Vec<usize>);

struct Case<'a> {
    expectation: &'a Expectation,
    sockets: &'a [&'a SocketReport],
    cells: &'a HashMap<Service, Vec<Numbered<'a>>>,
    /// See [`Evidence::without_client`].
    without_client: &'a [(Source, String)],
}

impl Case<'_> {
    /// Every rule of the expectation with its verdict.
    fn judge(&self) -> Vec<JudgedRule> {
        let wanted = self.expectation;
        let mut verdicts: Vec<JudgedRule> = Vec::new();
        let mut add = |rule, judged: Judged, against: &dyn Fn() -> Vec<usize>| {
            let cells = if judged.0 == Verdict::Fail { against() } else { Vec::new() };
            verdicts.push((rule, judged, cells));
        };
        let none = &Vec::new;
        let covered =
            |from: &[ExpectedSource], cell: &CellReport| from.iter().any(|source| covers(source, cell));
        let from = &wanted.reachable_from[..];
        if !from.is_empty() {
            add("reachable_from", self.reachable(from), &|| self.missing(from));
        }
        let from = &wanted.not_reachable_from[..];
        if !from.is_empty() {
            add("not_reachable_from", self.not_reachable(from), &|| {
                self.forbidden(&|cell| covered(from, cell))
            });
        }
        let from = &wanted.only_from[..];
        if !from.is_empty() {
            add("only_from", self.only_from(from), &|| match self.missing(from) {
                missing if missing.is_empty() => self.forbidden(&|cell| !covered(from, cell)),
                missing => missing,
            });
        }
        let globs = &wanted.arrives_on[..];
        if !globs.is_empty() {
            add("arrives_on", self.arrives_on(globs), &|| self.arrives_elsewhere(globs));
        }
        if let Some(expected) = wanted.bind {
            add("bind", self.bind(expected), none);
        }
        if !wanted.conflicts_with.is_empty() {
            add("conflicts_with", self.conflicts_with(&wanted.conflicts_with), none);
        }
        verdicts
    }

    fn not_attempted(&self, family: &str, source: &ExpectedSource) -> String {
        self.why_no_client(source, not_attempted(family, source))
    }

    /// Adds to a message about missing results of this source why no client connects from there, if that is known.
    fn why_no_client(&self, source: &ExpectedSource, message: String) -> String {
        match self.without_client.iter().find(|(missing, _)| names(source, missing)) {
            Some((_, why)) => format!("{message}: no client connects from there, because {why}"),
            None => message,
        }
    }

    /// The listeners, without duplicates.
    fn names(&self) -> BTreeSet<&str> {
        self.sockets.iter().filter_map(|socket| socket.socket.listener.as_deref()).collect()
    }

    /// Results of a service, in the requested families.
    fn at(&self, service: Service) -> impl Iterator<Item = Numbered<'_>> {
        let families = &self.expectation.families;
        let cells = self.cells.get(&service).map_or(&[][..], Vec::as_slice).iter().copied();
        cells.filter(move |(_, cell)| families.is_empty() || families.contains(&family_of(&cell.destination)))
    }

    /// Results for the ports and families of these listeners, with their indexes.
    fn numbered(&self) -> impl Iterator<Item = Numbered<'_>> {
        let services: BTreeSet<Service> = self.sockets.iter().map(|socket| service_of(socket)).collect();
        services.into_iter().flat_map(|service| self.at(service))
    }

    /// Results for the ports and families of these listeners.
    fn about(&self) -> impl Iterator<Item = &CellReport> {
        self.numbered().map(|(_, cell)| cell)
    }

    /// The ports and families that a source must reach. Each port separately: reaching one port says nothing about another.
    fn required(&self) -> BTreeMap<(&str, Service), BTreeSet<Family>> {
        let mut required: BTreeMap<(&str, Service), BTreeSet<Family>> = BTreeMap::new();
        for socket in self.sockets {
            let name = socket.socket.listener.as_deref().unwrap_or_default();
            let families = required.entry((name, service_of(socket))).or_default();
            if self.expectation.families.is_empty() {
                families.extend(families_of(socket));
            } else {
                families.extend(&self.expectation.families);
            }
        }
        required
    }

    /// A listener without an open socket, so that reachability is unknown; none if that is expected.
    fn closed(&self) -> Option<&str> {
        if matches!(self.expectation.bind, Some(BindResult::Error(_))) {
            return None;
        }
        let open: BTreeSet<&str> = self
            .sockets
            .iter()
            .filter(|socket| outcome_of(socket) != BindOutcome::Error)
            .filter_map(|socket| socket.socket.listener.as_deref())
            .collect();
        self.names().into_iter().find(|name| !open.contains(name))
    }

    /// Whether one of these listeners accepts a connection; `None` if unknown.
    fn takes(&self, cell: &CellReport, names: &BTreeSet<&str>) -> Option<bool> {
        if let Some(seen) = &cell.observed {
            return Some(seen.listener.as_deref().is_some_and(|name| names.contains(name)));
        }
        let possible = cell.predicted.listener.iter().chain(&cell.predicted.candidates);
        let concerned = possible.filter(|name| names.contains(name.as_str())).count() > 0;
        match (cell.predicted.outcome, concerned) {
            (None, true) => None,
            (outcome, concerned) => Some(concerned && outcome == Some(Outcome::Accepted)),
        }
    }

    fn reachable(&self, from: &[ExpectedSource]) -> Judged {
        let mut count = 0;
        let mut undecided = None;
        for ((name, service), families) in self.required() {
            let only = BTreeSet::from([name]);
            for source in from {
                for &family in &families {
                    let looks: Vec<_> = self
                        .at(service)
                        .map(|(_, cell)| cell)
                        .filter(|cell| covers(source, cell) && family_of(&cell.destination) == family)
                        // That some clients are let in does not make the listener reachable for the others.
                        .filter(|cell| !matches!(cell.source, Source::From(..)))
                        .collect();
                    let taken: Vec<_> = looks.iter().map(|cell| self.takes(cell, &only)).collect();
                    if taken.contains(&Some(true)) {
                        count += 1;
                    } else if looks.is_empty() {
                        undecided = Some(self.not_attempted(&format!("{family} "), source));
                    } else if taken.contains(&None) {
                        let message = format!("whether {source} reaches {name} is not known");
                        undecided = Some(self.why_no_client(source, message));
                    } else {
                        let first = looks[0];
                        return (
                            Verdict::Fail,
                            format!(
                                "{source} does not reach {name} over {family}: {} port {} is {}",
                                first.destination,
                                first.port,
                                outcome_text(first)
                            ),
                        );
                    }
                }
            }
        }
        match undecided {
            Some(because) => (Verdict::Undecided, because),
            None if count == 0 => (Verdict::Undecided, "no listener to check".to_owned()),
            None => (Verdict::Pass, format!("reached in {count} of {count} combinations")),
        }
    }

    fn not_reachable(&self, from: &[ExpectedSource]) -> Judged {
        if let Some(name) = self.closed() {
            return (Verdict::Undecided, format!("no socket of {name} is open, so it cannot be reached"));
        }
        let names = self.names();
        let mut count = 0;
        let mut tried = BTreeSet::new();
        for source in from {
            let before = count;
            for cell in self.about().filter(|cell| covers(source, cell)) {
                count += 1;
                match self.takes(cell, &names) {
                    Some(false) => {
                        if !self.refuses_as_wanted(cell.outcome()) {
                            return (Verdict::Fail, self.wrong_refusal(cell, source));
                        }
                        tried.insert(source_of(cell).to_string());
                    }
                    Some(true) => return (Verdict::Fail, reached(cell, source)),
                    None => {
                        let message = format!("whether {source} reaches it is not known");
                        return (Verdict::Undecided, self.why_no_client(source, message));
                    }
                }
            }
            if count == before {
                return (Verdict::Undecided, self.not_attempted("", source));
            }
        }
        if tried.len() < self.min_sources() {
            let because =
                format!("{} other sources tested, but min_sources is {}", tried.len(), self.min_sources());
            return (Verdict::Undecided, because);
        }
        (Verdict::Pass, format!("not reached in {count} attempts"))
    }

    fn only_from(&self, from: &[ExpectedSource]) -> Judged {
        let (verdict, because) = self.reachable(from);
        if verdict != Verdict::Pass {
            return (verdict, because);
        }
        let names = self.names();
        let min_sources = self.min_sources();
        let mut others = BTreeSet::new();
        let other_results = self.about().filter(|cell| !from.iter().any(|source| covers(source, cell)));
        for cell in other_results {
            let source = source_of(cell);
            match self.takes(cell, &names) {
                Some(true) => return (Verdict::Fail, reached(cell, &source)),
                None => {
                    let message = format!("whether {source} reaches it is not known");
                    return (Verdict::Undecided, self.why_no_client(&source, message));
                }
                Some(false) => {}
            }
            if !self.refuses_as_wanted(cell.outcome()) {
                return (Verdict::Fail, self.wrong_refusal(cell, &source));
            }
            others.insert(source.to_string());
        }
        if others.len() < min_sources {
            let tried = others.len();
            return (
                Verdict::Undecided,
                format!("{tried} other sources tested, but min_sources is {min_sources}"),
            );
        }
        (Verdict::Pass, format!("{because}; not from {} other sources", others.len()))
    }

    fn min_sources(&self) -> usize {
        usize::try_from(self.expectation.min_sources).unwrap_or(usize::MAX)
    }

    /// Whether an outcome other than `accepted` is allowed.
    fn refuses_as_wanted(&self, outcome: Option<Outcome>) -> bool {
        let wanted = &self.expectation.how_refused;
        outcome.is_none_or(|outcome| {
            outcome == Outcome::Accepted || wanted.is_empty() || wanted.contains(&outcome)
        })
    }

    fn wrong_refusal(&self, cell: &CellReport, source: &ExpectedSource) -> String {
        let how = format!("{source} to {} port {} is {}", cell.destination, cell.port, outcome_text(cell));
        let wanted: Vec<String> = self.expectation.how_refused.iter().map(ToString::to_string).collect();
        format!("{how}, and only {} is allowed", wanted.join(" or "))
    }

    fn arrives_on(&self, globs: &[String]) -> Judged {
        let names = self.names();
        let mut count = 0;
        for cell in self.about() {
            if self.takes(cell, &names) != Some(true) {
                continue;
            }
            let Some(name) = cell.ingress().and_then(IfName::as_str) else {
                return (Verdict::Undecided, "the ingress interface is not known".to_owned());
            };
            if !globs.iter().any(|glob| bind::glob(glob.as_bytes(), name.as_bytes())) {
                let (source, to) = (&cell.source, &cell.destination);
                return (Verdict::Fail, format!("{source} to {to} port {} arrives on {name}", cell.port));
            }
            count += 1;
        }
        match count {
            0 => (Verdict::Undecided, "nothing arrives".to_owned()),
            _ => (Verdict::Pass, format!("{count} of {count} arrive there")),
        }
    }

    fn bind(&self, expected: BindResult) -> Judged {
        let expected = match expected {
            BindResult::Ok => None,
            BindResult::Error(errno) => Some(errno),
        };
        for socket in self.sockets {
            let (outcome, errno) = match &socket.bind.observed {
                Some(seen) => (seen.outcome, seen.errno),
                None => (socket.bind.predicted.outcome, socket.bind.predicted.errno),
            };
            let found = match outcome {
                BindOutcome::Ok => None,
                BindOutcome::Error => errno,
                BindOutcome::Uncertain => {
                    return (Verdict::Undecided, format!("{} is uncertain", socket.socket));
                }
            };
            if found != expected {
                let found =
                    found.map_or_else(|| "succeeds".to_owned(), |errno| format!("fails with {errno}"));
                return (Verdict::Fail, format!("{} {found}", socket.socket));
            }
        }
        (Verdict::Pass, format!("so for {} sockets", self.sockets.len()))
    }

    fn conflicts_with(&self, expected: &[String]) -> Judged {
        for socket in self.sockets {
            let predicted = &socket.bind.predicted;
            if predicted.outcome == BindOutcome::Uncertain {
                return (Verdict::Undecided, format!("{} is uncertain", socket.socket));
            }
            let missing = expected.iter().find(|glob| {
                !predicted.conflicts_with.iter().any(|name| bind::glob(glob.as_bytes(), name.as_bytes()))
            });
            if let Some(missing) = missing {
                return (Verdict::Fail, format!("{missing} does not conflict with {}", socket.socket));
            }
        }
        (Verdict::Pass, format!("so for {} sockets", self.sockets.len()))
    }
}

fn reached(cell: &CellReport, source: &ExpectedSource) -> String {
    format!("{source} reaches it at {} port {}", cell.destination, cell.port)
}

fn outcome_text(cell: &CellReport) -> String {
    match (cell.outcome(), cell.predicted.listener.as_deref()) {
        (Some(Outcome::Accepted), Some(name)) => format!("accepted by {name}"),
        (Some(outcome), _) => outcome.to_string(),
        (None, _) => "unknown".to_owned(),
    }
}

fn service_of(socket: &SocketReport) -> Service {
    (socket.socket.protocol, socket.socket.port)
}

/// Outcome of a bind, observed or else predicted.
fn outcome_of(socket: &SocketReport) -> BindOutcome {
    socket.bind.observed.map_or(socket.bind.predicted.outcome, |seen| seen.outcome)
}

/// Families that a socket serves.
fn families_of(socket: &SocketReport) -> impl Iterator<Item = Family> {
    let view = &socket.socket;
    let own = Family::of(view.address);
    let both = own == Family::Ipv6 && view.address.is_unspecified() && view.v6only == Some(false);
    std::iter::once(own).chain(both.then_some(Family::Ipv4))
}

/// Parses the address of a destination, which is before its zone.
fn address(destination: &str) -> Option<std::net::IpAddr> {
    destination.split('%').next()?.parse().ok()
}

fn family_of(destination: &str) -> Family {
    address(destination).map_or(Family::Ipv6, Family::of)
}

fn is_loopback(destination: &str) -> bool {
    address(destination).is_some_and(|address| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    })
}
