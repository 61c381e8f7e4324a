//! Predictions, as in the document of `plan`; with observations, as in the documents of `probe` and `lab run`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::expectations::ExpectationReport;
use super::network::{InterfaceReport, SourceReport};
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{
    Answer, Document, Errno, FamilyExposure, FilterDecision, HostReport, IfName, Outcome, PacketsSeen, Phase,
    Protocol, Snapshot, SocketSpec, SocketView, Source, Translated,
};
use crate::plan::bind_check::Rights;
use crate::plan::bind_error::{self, InTheWay};
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{BindOutcome, BindPrediction, Binds, Foreign, Holder, predict_binds};
use crate::plan::reach::{self, Cell, Destination, Matrix, NamedAnswer};
use crate::record::time::Time;

/// All predictions for one list of sockets on one host.
#[derive(Debug)]
pub struct Plan {
    /// The sockets, in bind order.
    pub sockets: Vec<SocketSpec>,
    /// Existing sockets.
    pub foreign: Vec<Foreign>,
    /// Prediction of each bind.
    pub binds: Binds,
    /// Prediction of reachability.
    pub matrix: Matrix,
}

/// The requested destinations and ports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Destinations in addition to the host's addresses. Only a client on the host itself can use them.
    pub more: &'a [Destination],
    /// These destinations, instead of all the host's addresses and `more`.
    pub only: Option<&'a [Destination]>,
    /// TCP ports in addition to those of the sockets. Only the host itself connects to them, at the host's addresses.
    pub ports: &'a [u16],
    /// Services in addition to those of the sockets, asked from every source: those of other combinations of an experiment.
    pub services: &'a [(Protocol, u16)],
}

impl Plan {
    /// Predicts the binds of `sockets` and the result for every destination, including `more`.
    #[must_use]
    pub fn new(
        sockets: Vec<SocketSpec>,
        snapshot: &Snapshot,
        rights: Rights,
        foreign: Vec<Foreign>,
        more: &[Destination],
    ) -> Plan {
        Plan::of(sockets, snapshot, rights, foreign, Asked { more, ..Asked::default() })
    }

    /// Predicts the binds of `sockets` and the requested results.
    #[must_use]
    pub fn of(
        sockets: Vec<SocketSpec>,
        snapshot: &Snapshot,
        rights: Rights,
        foreign: Vec<Foreign>,
        asked: Asked<'_>,
    ) -> Plan {
        let local = LocalAddresses::new(snapshot);
        let mut own = reach::services(&sockets);
        own.extend(asked.services);
        own.sort_unstable();
        own.dedup();
        let mut services = own.clone();
        services.extend(asked.ports.iter().map(|&port| (Protocol::Tcp, port)));
        services.sort_unstable();
        services.dedup();
        // Only those on a requested port matter.
        let foreign: Vec<Foreign> = foreign
            .into_iter()
            .filter(|socket| services.binary_search(&(socket.view.protocol, socket.view.port)).is_ok())
            .collect();
        let binds = predict_binds(&sockets, snapshot, rights, &foreign);
        let mut destinations = match asked.only {
            Some(only) => only.to_vec(),
            None => {
                let bound = reach::bound_by_route(&sockets, &local);
                [&reach::destinations(snapshot, &local), &*bound, asked.more].concat()
            }
        };
        destinations.sort_unstable();
        destinations.dedup();
        // Destinations that only a client of this host can use are not tested from links.
        let ordinary: Vec<bool> =
            destinations.iter().map(|to| asked.only.is_some() || !asked.more.contains(to)).collect();
        let is_own: Vec<bool> = services.iter().map(|service| own.binary_search(service).is_ok()).collect();
        let axes = Matrix { sources: reach::sources(snapshot), destinations, services, cells: Vec::new() };
        let matrix = reach::predict_asked(&binds, snapshot, &local, axes, &|source, to, service| {
            if is_own[service] { source == 0 || ordinary[to] } else { source == 0 && ordinary[to] }
        });
        Plan { sockets, foreign, binds, matrix }
    }

    /// The number of results that [`Plan::new`] would make and keep in memory: sources, destinations and services multiplied.
    #[must_use]
    pub fn size(sockets: &[SocketSpec], snapshot: &Snapshot) -> usize {
        let local = LocalAddresses::new(snapshot);
        let destinations =
            reach::destinations(snapshot, &local).len() + reach::bound_by_route(sockets, &local).len();
        reach::sources(snapshot)
            .len()
            .saturating_mul(destinations)
            .saturating_mul(reach::services(sockets).len())
    }

    /// Adds results of clients that first bind an address of the host ([`reach::predict_from_addresses`]), after the
    /// other results of this host.
    pub fn add_source_addresses(&mut self, snapshot: &Snapshot) {
        let local = LocalAddresses::new(snapshot);
        let more = reach::predict_from_addresses(&self.binds, snapshot, &local, &self.matrix);
        let host = self.matrix.cells.iter().take_while(|cell| cell.source == 0).count();
        self.matrix.cells.splice(host..host, more);
    }

    /// The name of a listener or owner.
    #[must_use]
    pub fn name(&self, holder: Holder) -> &str {
        match holder {
            Holder::Own(index) => self.sockets.get(index).map_or("", |socket| &socket.listener),
            Holder::Foreign(index) => self.foreign.get(index).map_or("", |socket| &socket.name),
        }
    }
}

/// The document of `plan`, `probe` or `lab run`.
pub type Report = Document<HostReport<Reachability>>;

/// Sockets, and which source reaches them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachability {
    /// The time at which the report was made; null for a prediction of the library, which reads no clock.
    #[serde(default)]
    pub time: Option<Time>,
    /// Name of the profile.
    pub profile: String,
    /// The host's interfaces with their addresses, sorted by index.
    #[serde(default)]
    pub interfaces: Vec<InterfaceReport>,
    /// The sources of the results, in their order.
    #[serde(default)]
    pub sources: Vec<SourceReport>,
    /// The requested destinations.
    #[serde(default)]
    pub requested: Questions,
    /// In bind order.
    pub sockets: Vec<SocketReport>,
    /// Sorted by source, destination, protocol and port.
    pub cells: Vec<CellReport>,
    /// In the order of the profile.
    pub expectations: Vec<ExpectationReport>,
    /// Events of a lab, in order; empty elsewhere.
    #[serde(default)]
    pub events: Vec<EventReport>,
    /// Further notes, one sentence each.
    pub notes: Vec<String>,
    /// Counts.
    pub summary: Summary,
}

/// Destinations that were tested in addition to, or instead of, every address of the host. A comparison can then
/// distinguish a missing address from one that was not tested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// Only these; null for every address.
    pub only: Option<Vec<String>>,
    /// Destinations that only the host's own clients can use: `0.0.0.0`, `127.0.0.2`, IPv4-mapped addresses.
    pub more: Vec<String>,
}

impl Questions {
    /// The requested destinations, as shown in results.
    #[must_use]
    pub fn of(asked: Asked<'_>, snapshot: &Snapshot) -> Questions {
        let texts = |list: &[Destination]| -> Vec<String> {
            let mut texts: Vec<String> = list.iter().map(|&to| destination_text(to, snapshot)).collect();
            texts.sort_unstable();
            texts
        };
        Questions { only: asked.only.map(texts), more: texts(asked.more) }
    }
}

/// An event in a lab's network, and the results that it changed. The results of the report are those before the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// The event, as commands.
    pub commands: Vec<String>,
    /// Number of results after the event.
    pub cells: usize,
    /// How many of them differed from the prediction, or from the captured ingress interface.
    pub disagree: usize,
    /// The results that changed, in order.
    pub changed: Vec<ChangedCell>,
}

/// A result before and after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedCell {
    /// Before; null if the destination was not an address of the host.
    pub before: Option<CellReport>,
    /// After; null if the destination is no longer an address of the host.
    pub after: Option<CellReport>,
}

/// A socket and the outcome of its bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReport {
    /// The requested socket; in a probe, the actual one.
    pub socket: SocketView,
    /// Outcome of the bind.
    pub bind: BindReport,
    /// Reasons for the exposure, one sentence each.
    pub exposure_because: Vec<String>,
}

/// The outcome of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindReport {
    /// Predicted.
    pub predicted: PredictedBind,
    /// Observed; null in a plan.
    pub observed: Option<ObservedBind>,
}

/// A predicted bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictedBind {
    /// `ok`, `error` or `uncertain`.
    pub outcome: BindOutcome,
    /// The system call that fails.
    pub phase: Option<Phase>,
    /// Its errno.
    pub errno: Option<Errno>,
    /// Conflicting listeners, then sockets of other programs.
    pub conflicts_with: Vec<String>,
    /// Code of the rule.
    pub code: Option<Code>,
    /// Explanation.
    pub message: Option<String>,
    /// The smallest change that would help.
    pub hint: Option<String>,
}

/// An observed bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBind {
    /// `ok` or `error`.
    pub outcome: BindOutcome,
    /// The system call that failed.
    pub phase: Option<Phase>,
    /// Its errno.
    pub errno: Option<Errno>,
}

/// One result: source and destination, with prediction and observation. Results share equal parts, because a port scan
/// has many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellReport {
    /// The source.
    pub source: Source,
    /// The address that the client has bound, with its zone if link-local; null if the kernel chooses.
    #[serde(default)]
    pub source_address: Option<String>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The destination address, with its zone if link-local.
    pub destination: Arc<str>,
    /// The interface that has the destination address; null if none has it (AnyIP, multicast).
    #[serde(default)]
    pub address_owner: Option<IfName>,
    /// The port.
    pub port: u16,
    /// Prediction.
    pub predicted: Arc<PredictedCell>,
    /// Observation; null if not tested.
    pub observed: Option<Arc<ObservedCell>>,
    /// Whether both agree; null if not tested or not predicted.
    pub agrees: Option<bool>,
}

impl CellReport {
    /// Whether a listener of the profile accepted and the predicted ingress interface was not observed.
    fn lacks_ingress(&self) -> bool {
        let observed = self.observed.as_ref();
        self.predicted.ingress.is_some()
            && observed.is_some_and(|seen| seen.listener.is_some() && seen.ingress.is_none())
    }
}

/// A predicted result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PredictedCell {
    /// Outcome; null if it depends on unknown facts.
    pub outcome: Option<Outcome>,
    /// The listener that accepts it; null if none does, if several may, or if another program's socket does.
    pub listener: Option<String>,
    /// The possible sockets if there is more than one: listeners that share a port, or sockets of other programs.
    pub candidates: Vec<String>,
    /// The ingress interface that the kernel will report.
    pub ingress: Option<IfName>,
    /// Whether the client is this host itself; null unless accepted.
    pub peer_is_local: Option<bool>,
    /// Code of the rule.
    pub why: Code,
    /// Where the answer goes and by which policy rule, when that decided; null otherwise.
    #[serde(default)]
    pub return_path: Option<NamedAnswer>,
    /// What the packet filters decide; null where no rule is asked, they were not read, or it is not known.
    #[serde(default)]
    pub filter: Option<FilterDecision>,
    /// Where address translation sends the connection; null where it does not.
    #[serde(default)]
    pub translated: Option<Translated>,
    /// What the client receives in place of a connection, from a rule; null where it receives nothing from one.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Why the result is not known, where packet filters are the reason; null else.
    #[serde(default)]
    pub unknown_because: Option<String>,
}

/// An observed result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCell {
    /// Outcome.
    pub outcome: Outcome,
    /// The listener that accepted it; null if none did or another program's socket did.
    pub listener: Option<String>,
    /// The ingress interface that the kernel reported.
    pub ingress: Option<IfName>,
    /// The destination address.
    pub local: Option<IpAddr>,
    /// The client.
    pub peer: Option<IpAddr>,
    /// Whether IPv4 arrived at an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The errno.
    pub errno: Option<Errno>,
    /// Time from the start until the connection was established, the datagram was received, or the attempt failed; in
    /// microseconds.
    pub connect_us: u64,
    /// The captured packets; null without a capture, or if nothing was accepted.
    #[serde(default)]
    pub packets: Option<PacketsSeen>,
    /// What the client received in place of a connection; null where it received nothing, or was accepted.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// What the packet filters of a copy decided; null where they were not traced, or nothing was decided.
    #[serde(default)]
    pub filter: Option<FilterDecision>,
    /// Where address translation sent the connection; null where it did not, or was not traced.
    #[serde(default)]
    pub translated: Option<Translated>,
}

/// An observation, as passed to the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Outcome.
    pub outcome: Outcome,
    /// Index of the socket that accepted it.
    pub taker: Option<usize>,
    /// The ingress interface that the kernel reported.
    pub ingress: Option<IfName>,
    /// The destination address.
    pub local: Option<SocketAddr>,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// Whether IPv4 arrived at an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The errno.
    pub errno: Option<Errno>,
    /// What the client received in place of a connection.
    pub answer: Option<Answer>,
    /// The client's end, where it was asked for.
    pub client: Option<SocketAddr>,
    /// Time from the start until the connection was established, the datagram was received, or the attempt failed; in
    /// microseconds.
    pub connect_us: u64,
}

/// Counts of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of results.
    pub cells: usize,
    /// Number of results in which prediction and observation agree.
    pub agree: usize,
    /// Number of results in which they do not.
    pub disagree: usize,
    /// Number of results with outcome `accepted`: observed, or else predicted.
    pub accepted: usize,
    /// Number of results whose outcome could not be predicted.
    pub unknown: usize,
    /// Number of results that a listener of the profile accepted and whose ingress interface was predicted, but not observed.
    #[serde(default)]
    pub ingress_not_observed: usize,
    /// Number of accepted results whose captured packets confirm the reported ingress interface; null without a
    /// capture.
    #[serde(default)]
    pub confirmed: Option<usize>,
    /// Number of accepted results whose packets arrived on another interface; null without a capture.
    #[serde(default)]
    pub contradicted: Option<usize>,
}

/// The text of a destination, with its zone.
#[must_use]
pub fn destination_text(destination: Destination, snapshot: &Snapshot) -> String {
    let zone = snapshot.interface(destination.zone).filter(|_| needs_zone(destination.address));
    match zone {
        Some(interface) => format!("{}%{}", destination.address, interface.name),
        None => destination.address.to_string(),
    }
}

/// The interface that has an address; for a link-local address, its zone.
fn address_owner(destination: Destination, snapshot: &Snapshot) -> Option<IfName> {
    if destination.zone != 0 {
        return snapshot.interface(destination.zone).map(|interface| interface.name.clone());
    }
    let address = destination.address.to_canonical();
    let owner = snapshot.addresses().find(|(_, one)| one.address == address).map(|(interface, _)| interface);
    let loopback = || snapshot.interfaces.iter().find(|interface| interface.loopback);
    owner.or_else(|| loopback().filter(|_| address.is_loopback())).map(|interface| interface.name.clone())
}

/// A predicted result, with names.
fn predicted_cell(plan: &Plan, cell: &Cell, snapshot: &Snapshot) -> PredictedCell {
    let predicted = &cell.predicted;
    let mut candidates: Vec<&str> = predicted.takers.iter().map(|&holder| plan.name(holder)).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let own = predicted.takers.iter().all(|holder| matches!(holder, Holder::Own(_)));
    let one = (candidates.len() == 1 && own && predicted.outcome.is_some()).then(|| candidates[0].to_owned());
    let here = plan.matrix.sources[cell.source] == Source::Host;
    let filtered = predicted.filtered.as_deref();
    PredictedCell {
        outcome: predicted.outcome,
        candidates: if one.is_some() {
            Vec::new()
        } else {
            candidates.into_iter().map(str::to_owned).collect()
        },
        listener: one,
        ingress: predicted.ingress.and_then(|index| snapshot.interface(index)).map(|i| i.name.clone()),
        peer_is_local: (predicted.outcome == Some(Outcome::Accepted)).then_some(here),
        why: predicted.why,
        return_path: predicted
            .answer
            .map(|answer| answer.named(|index| Some(snapshot.interface(index)?.name.clone()))),
        filter: filtered.and_then(|filtered| filtered.decision.clone()),
        translated: filtered.and_then(|filtered| filtered.translated.clone()),
        answer: filtered.and_then(|filtered| filtered.answer),
        unknown_because: filtered
            .filter(|filtered| predicted.outcome.is_none() && !filtered.depends_on.is_empty())
            .map(|filtered| filtered.depends_on.join("; ")),
    }
}

/// All results with names, without observations.
#[must_use]
pub fn predicted_cells(plan: &Plan, snapshot: &Snapshot) -> Vec<CellReport> {
    let text = |to| destination_text(to, snapshot);
    let destinations: Vec<Arc<str>> = plan.matrix.destinations.iter().map(|&to| text(to).into()).collect();
    let owners: Vec<Option<IfName>> =
        plan.matrix.destinations.iter().map(|&to| address_owner(to, snapshot)).collect();
    let mut last: Option<(&Cell, Arc<PredictedCell>)> = None;
    let mut cells = Vec::with_capacity(plan.matrix.cells.len());
    for cell in &plan.matrix.cells {
        let alike =
            |(other, _): &(&Cell, _)| (other.source, &other.predicted) == (cell.source, &cell.predicted);
        let predicted = match last.take().filter(alike) {
            Some((_, predicted)) => predicted,
            None => predicted_cell(plan, cell, snapshot).into(),
        };
        last = Some((cell, Arc::clone(&predicted)));
        let (protocol, port) = plan.matrix.services[cell.service];
        cells.push(CellReport {
            source: plan.matrix.sources[cell.source].clone(),
            source_address: cell.source_address.map(text),
            protocol,
            destination: Arc::clone(&destinations[cell.destination]),
            address_owner: owners[cell.destination].clone(),
            port,
            predicted,
            observed: None,
            agrees: None,
        });
    }
    cells
}

/// All results with names. `seen` is indexed like the matrix; empty in a plan.
#[must_use]
pub fn cells(plan: &Plan, snapshot: &Snapshot, seen: &[Option<Seen>]) -> Vec<CellReport> {
    let mut cells = predicted_cells(plan, snapshot);
    let mut beside = ObservationMerger::new(plan);
    for (index, seen) in seen.iter().enumerate() {
        if let Some(seen) = seen {
            beside.put(&mut cells, index, seen);
        }
    }
    cells
}

/// Combines observations with predictions.
pub struct ObservationMerger<'a> {
    plan: &'a Plan,
    /// Recent observations, by connect time: the refusals of a port scan differ in little else.
    lately: [Option<Arc<ObservedCell>>; 32],
}

impl<'a> ObservationMerger<'a> {
    /// For the results of `plan`.
    #[must_use]
    pub fn new(plan: &'a Plan) -> ObservationMerger<'a> {
        ObservationMerger { plan, lately: [const { None }; 32] }
    }

    /// Adds the observation of the result with this index.
    pub fn put(&mut self, cells: &mut [CellReport], index: usize, seen: &Seen) {
        let cell = &mut cells[index];
        let predicted = &self.plan.matrix.cells[index].predicted;
        cell.agrees = predicted.outcome.map(|outcome| {
            let strangers = predicted.takers.iter().any(|holder| matches!(holder, Holder::Foreign(_)));
            let taker = match seen.taker {
                Some(taker) => predicted.takers.contains(&Holder::Own(taker)),
                None => predicted.takers.is_empty() || strangers,
            };
            // An interface that was not observed does not contradict the prediction; the summary counts it.
            let ingress = seen.ingress.is_none() || seen.ingress == cell.predicted.ingress;
            outcome == seen.outcome && taker && ingress
        });
        let observed = ObservedCell {
            outcome: seen.outcome,
            listener: seen.taker.map(|taker| self.plan.name(Holder::Own(taker)).to_owned()),
            ingress: seen.ingress.clone(),
            local: seen.local.map(|address| address.ip()),
            peer: seen.peer.map(|address| address.ip()),
            v4_mapped: seen.v4_mapped,
            errno: seen.errno,
            connect_us: seen.connect_us,
            packets: None,
            answer: seen.answer,
            filter: None,
            translated: None,
        };
        let place = seen.connect_us % self.lately.len() as u64;
        let lately = &mut self.lately[usize::try_from(place).unwrap_or(0)];
        let alike = lately.take().filter(|other| **other == observed);
        cell.observed = Some(Arc::clone(lately.insert(alike.unwrap_or_else(|| observed.into()))));
    }
}

/// A predicted bind, with names and messages.
#[must_use]
pub fn bind_report(plan: &Plan, index: usize, snapshot: &Snapshot) -> PredictedBind {
    let prediction: &BindPrediction = &plan.binds.predictions[index];
    let mut in_the_way: Vec<InTheWay<'_>> = Vec::new();
    for &holder in &prediction.in_the_way {
        let name = plan.name(holder);
        if in_the_way.iter().all(|other| other.name != name) {
            let socket = match holder {
                Holder::Foreign(index) => plan.foreign.get(index),
                Holder::Own(_) => None,
            };
            in_the_way.push(InTheWay { name, socket });
        }
    }
    let words = bind_error::of_prediction(&plan.sockets[index], prediction, &in_the_way, snapshot);
    let conflicts_with = in_the_way.iter().map(|one| one.name.to_owned()).collect();
    // The code determines the message, so equal codes have equal messages.
    let code = words.as_ref().map(|words| words.code).or(prediction.code);
    let (message, hint) = words.map_or((None, None), |words| (Some(words.message), words.hint));
    PredictedBind {
        outcome: prediction.outcome,
        phase: prediction.phase,
        errno: prediction.errno,
        conflicts_with,
        code,
        message,
        hint,
    }
}

/// A socket as shown in a plan. `exposure` applies if it is open.
#[must_use]
pub fn view(spec: &SocketSpec, exposure: FamilyExposure, snapshot: &Snapshot) -> SocketView {
    let mut view = spec.view(exposure);
    // The value that the system chooses is known here.
    if view.v6only.is_none() && spec.domain() == crate::model::Family::Ipv6 {
        view.v6only = snapshot.setting("net.ipv6.bindv6only").map(|value| value != 0);
    }
    view
}

/// Counts the results.
#[must_use]
pub fn summary(cells: &[CellReport]) -> Summary {
    let outcome = |cell: &CellReport| match &cell.observed {
        Some(seen) => Some(seen.outcome),
        None => cell.predicted.outcome,
    };
    let packets = || cells.iter().filter_map(|cell| cell.observed.as_ref()?.packets.as_ref());
    let confirm =
        |word: bool| packets().next().map(|_| packets().filter(|seen| seen.confirms == Some(word)).count());
    Summary {
        cells: cells.len(),
        agree: cells.iter().filter(|cell| cell.agrees == Some(true)).count(),
        disagree: cells.iter().filter(|cell| cell.agrees == Some(false)).count(),
        accepted: cells.iter().filter(|cell| outcome(cell) == Some(Outcome::Accepted)).count(),
        unknown: cells.iter().filter(|cell| cell.predicted.outcome.is_none()).count(),
        ingress_not_observed: cells.iter().filter(|cell| cell.lacks_ingress()).count(),
        confirmed: confirm(true),
        contradicted: confirm(false),
    }
}
