//! What is foretold, as the document that `plan` writes; with what was seen beside it, the one of `probe` and `lab run`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::expectations::ExpectationReport;
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{
    Answer, Errno, FamilyExposure, FilterDecision, Host, IfName, Outcome, PacketsSeen, Phase, Protocol,
    Snapshot, SocketSpec, SocketView, Source, Translated,
};
use crate::plan::bind_check::Rights;
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{BindOutcome, BindPrediction, Binds, Foreign, Holder, predict_binds};
use crate::plan::reach::{self, Cell, Destination, Matrix};

/// Schema of a plan.
pub const PLAN_SCHEMA: &str = "bindscope.plan/1";
/// Schema of a probe.
pub const PROBE_SCHEMA: &str = "bindscope.probe/1";
/// Schema of a lab's run.
pub const LAB_SCHEMA: &str = "bindscope.lab/1";

/// Everything foretold for one list of sockets on one host.
#[derive(Debug)]
pub struct Plan {
    /// The sockets in the order in which they are bound.
    pub sockets: Vec<SocketSpec>,
    /// Sockets that are there already.
    pub foreign: Vec<Foreign>,
    /// What each bind will do.
    pub binds: Binds,
    /// Who reaches what.
    pub matrix: Matrix,
}

/// What is asked of a host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Destinations beside the host's addresses, which only a client on the host itself has.
    pub more: &'a [Destination],
    /// These destinations, in place of all the host's addresses and `more`.
    pub only: Option<&'a [Destination]>,
    /// TCP ports beside those of the sockets. They are asked of the host's addresses, and by the host itself alone.
    pub ports: &'a [u16],
}

impl Plan {
    /// Foretells the binds of `sockets` and what comes of every destination, `more` ones among them.
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

    /// Foretells the binds of `sockets` and what comes of all that is asked.
    #[must_use]
    pub fn of(
        sockets: Vec<SocketSpec>,
        snapshot: &Snapshot,
        rights: Rights,
        foreign: Vec<Foreign>,
        asked: Asked<'_>,
    ) -> Plan {
        let local = LocalAddresses::new(snapshot);
        let own = reach::services(&sockets);
        let mut services = own.clone();
        services.extend(asked.ports.iter().map(|&port| (Protocol::Tcp, port)));
        services.sort_unstable();
        services.dedup();
        // Only those on a port that is asked for matter.
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
        // What only a client of this host can ask for is not asked of wires.
        let ordinary: Vec<bool> =
            destinations.iter().map(|to| asked.only.is_some() || !asked.more.contains(to)).collect();
        let is_own: Vec<bool> = services.iter().map(|service| own.binary_search(service).is_ok()).collect();
        let axes = Matrix { sources: reach::sources(snapshot), destinations, services, cells: Vec::new() };
        let matrix = reach::predict_asked(&binds, snapshot, &local, axes, &|source, to, service| {
            if is_own[service] { source == 0 || ordinary[to] } else { source == 0 && ordinary[to] }
        });
        Plan { sockets, foreign, binds, matrix }
    }

    /// Adds, after the cells of this host, those of clients that bind an address of it first
    /// ([`reach::predict_from_addresses`]).
    pub fn add_source_addresses(&mut self, snapshot: &Snapshot) {
        let local = LocalAddresses::new(snapshot);
        let more = reach::predict_from_addresses(&self.binds, snapshot, &local, &self.matrix);
        let host = self.matrix.cells.iter().take_while(|cell| cell.source == 0).count();
        self.matrix.cells.splice(host..host, more);
    }

    /// The name of whoever holds or takes something.
    #[must_use]
    pub fn name(&self, holder: Holder) -> &str {
        match holder {
            Holder::Own(index) => self.sockets.get(index).map_or("", |socket| &socket.listener),
            Holder::Foreign(index) => self.foreign.get(index).map_or("", |socket| &socket.name),
        }
    }
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`PLAN_SCHEMA`] or [`PROBE_SCHEMA`], or that of a lab.
    pub schema: String,
    /// Version of the program.
    pub version: String,
    /// False when anything could not be read.
    pub complete: bool,
    /// One sentence for each thing that could not be read.
    pub incomplete_because: Vec<String>,
    /// The host it is about.
    pub host: Host,
    /// Name of the profile.
    pub profile: String,
    /// Which destinations were asked for.
    #[serde(default)]
    pub requested: Questions,
    /// In the order in which they are bound.
    pub sockets: Vec<SocketReport>,
    /// In the order of source, destination, protocol and port.
    pub cells: Vec<CellReport>,
    /// In the order of the profile.
    pub expectations: Vec<ExpectationReport>,
    /// What happened while a lab ran, in order; empty elsewhere.
    #[serde(default)]
    pub events: Vec<EventReport>,
    /// What a reader should know besides, one sentence each.
    pub notes: Vec<String>,
    /// Counts.
    pub summary: Summary,
}

/// Which destinations were asked besides, or instead of, every address of the host: what tells a comparison an address that is not
/// there from one that nobody asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// These alone; null for every address.
    pub only: Option<Vec<String>>,
    /// Ways to name the host that only its own clients have: `0.0.0.0`, `127.0.0.2`, v4-mapped addresses.
    pub more: Vec<String>,
}

impl Questions {
    /// What is asked, in the words of the cells.
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

/// Something that happened to a lab's network, and the cells that it changed. The cells of the report are those of before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// What was done, as commands.
    pub commands: Vec<String>,
    /// How many cells there were afterwards.
    pub cells: usize,
    /// How many of them were not as foretold, or not where the packets came in.
    pub disagree: usize,
    /// The cells whose answer was another one afterwards, in their order.
    pub changed: Vec<ChangedCell>,
}

/// A cell before and after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedCell {
    /// As it was; null where the destination was not the host's.
    pub before: Option<CellReport>,
    /// As it is; null where the destination is not the host's any more.
    pub after: Option<CellReport>,
}

/// A socket and what comes of its bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReport {
    /// As it is asked for; in a probe, as it is.
    pub socket: SocketView,
    /// What comes of it.
    pub bind: BindReport,
    /// Why it is exposed as it is, one sentence each.
    pub exposure_because: Vec<String>,
}

/// The outcome of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindReport {
    /// As foretold.
    pub predicted: PredictedBind,
    /// As seen; null in a plan.
    pub observed: Option<ObservedBind>,
}

/// A foretold bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictedBind {
    /// `ok`, `error` or `uncertain`.
    pub outcome: BindOutcome,
    /// The call that fails.
    pub phase: Option<Phase>,
    /// What it answers.
    pub errno: Option<Errno>,
    /// Listeners in the way, then sockets of other programs.
    pub conflicts_with: Vec<String>,
    /// The rule.
    pub code: Option<Code>,
    /// What it means.
    pub message: Option<String>,
    /// The smallest change that would help.
    pub hint: Option<String>,
}

/// A bind as it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBind {
    /// `ok` or `error`.
    pub outcome: BindOutcome,
    /// The call that failed.
    pub phase: Option<Phase>,
    /// What it answered.
    pub errno: Option<Errno>,
}

/// One question, what is foretold, and what was seen. Cells share what they have in common: a sweep has many alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellReport {
    /// Who connects.
    pub source: Source,
    /// The address that the client has bound, a link-local one with its zone; null where the kernel chooses.
    #[serde(default)]
    pub source_address: Option<String>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address connected to, a link-local one with its zone.
    pub destination: Arc<str>,
    /// The interface that the destination address belongs to; null when it belongs to none (AnyIP, multicast).
    #[serde(default)]
    pub address_owner: Option<IfName>,
    /// The port.
    pub port: u16,
    /// What is foretold.
    pub predicted: Arc<PredictedCell>,
    /// What was seen; null where nobody looked.
    pub observed: Option<Arc<ObservedCell>>,
    /// Whether both are the same; null where nobody looked or nothing was foretold.
    pub agrees: Option<bool>,
}

/// What is foretold of a question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PredictedCell {
    /// What comes of it; null when it depends on what is not known.
    pub outcome: Option<Outcome>,
    /// The listener that takes it; null when none does, several may, or another program's socket does.
    pub listener: Option<String>,
    /// Those that may take it when it is not one: listeners that share, or sockets of other programs.
    pub candidates: Vec<String>,
    /// The interface the kernel will report.
    pub ingress: Option<IfName>,
    /// Whether the peer is this host itself; null unless accepted.
    pub peer_is_local: Option<bool>,
    /// The rule.
    pub why: Code,
}

/// What was seen of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCell {
    /// What came of it.
    pub outcome: Outcome,
    /// The listener that took it; null when none did or another program's socket did.
    pub listener: Option<String>,
    /// The interface the kernel reported.
    pub ingress: Option<IfName>,
    /// The address it was sent to.
    pub local: Option<IpAddr>,
    /// Who connected.
    pub peer: Option<IpAddr>,
    /// Whether IPv4 came to an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The error.
    pub errno: Option<Errno>,
    /// From the start until the connection was there, the datagram was received, or neither came of it; in microseconds.
    pub connect_us: u64,
    /// The packets, as a capture saw them; null where none was made, and where nothing was accepted.
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

/// What was seen, as whoever looked hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What came of it.
    pub outcome: Outcome,
    /// Index of the socket that took it.
    pub taker: Option<usize>,
    /// The interface the kernel reported.
    pub ingress: Option<IfName>,
    /// The address it was sent to.
    pub local: Option<SocketAddr>,
    /// Who connected.
    pub peer: Option<SocketAddr>,
    /// Whether IPv4 came to an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The error.
    pub errno: Option<Errno>,
    /// What the client received in place of a connection.
    pub answer: Option<Answer>,
    /// The client's end, where it was asked for.
    pub client: Option<SocketAddr>,
    /// From the start until the connection was there, the datagram was received, or neither came of it; in microseconds.
    pub connect_us: u64,
}

/// Counts of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All cells.
    pub cells: usize,
    /// Cells in which prediction and observation are the same.
    pub agree: usize,
    /// Cells in which they are not.
    pub disagree: usize,
    /// Cells whose outcome is `accepted`: as seen, else as foretold.
    pub accepted: usize,
    /// Cells whose outcome could not be foretold.
    pub unknown: usize,
    /// Accepted cells whose packets were captured and bear out the reported ingress interface; null without a capture.
    #[serde(default)]
    pub confirmed: Option<usize>,
    /// Accepted cells whose packets came in elsewhere; null without a capture.
    #[serde(default)]
    pub contradicted: Option<usize>,
}

/// The text of a destination: as it is connected to, with its zone.
#[must_use]
pub fn destination_text(destination: Destination, snapshot: &Snapshot) -> String {
    let zone = snapshot.interface(destination.zone).filter(|_| needs_zone(destination.address));
    match zone {
        Some(interface) => format!("{}%{}", destination.address, interface.name),
        None => destination.address.to_string(),
    }
}

/// The interface that an address belongs to; that of the zone for a link-local address.
fn address_owner(destination: Destination, snapshot: &Snapshot) -> Option<IfName> {
    if destination.zone != 0 {
        return snapshot.interface(destination.zone).map(|interface| interface.name.clone());
    }
    let address = destination.address.to_canonical();
    let owner = snapshot.addresses().find(|(_, one)| one.address == address).map(|(interface, _)| interface);
    let loopback = || snapshot.interfaces.iter().find(|interface| interface.loopback);
    owner.or_else(|| loopback().filter(|_| address.is_loopback())).map(|interface| interface.name.clone())
}

/// A predicted cell in names.
fn predicted_cell(plan: &Plan, cell: &Cell, snapshot: &Snapshot) -> PredictedCell {
    let predicted = &cell.predicted;
    let mut candidates: Vec<&str> = predicted.takers.iter().map(|&holder| plan.name(holder)).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let own = predicted.takers.iter().all(|holder| matches!(holder, Holder::Own(_)));
    let one = (candidates.len() == 1 && own && predicted.outcome.is_some()).then(|| candidates[0].to_owned());
    let here = plan.matrix.sources[cell.source] == Source::Host;
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
    }
}

/// All cells in names, with nothing seen yet.
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

/// All cells in names. `seen` is by the cells of the matrix; empty in a plan.
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

/// Puts what is seen beside what is foretold.
pub struct ObservationMerger<'a> {
    plan: &'a Plan,
    /// Seen lately, by the time it took: the refusals of a sweep differ in little else.
    lately: [Option<Arc<ObservedCell>>; 32],
}

impl<'a> ObservationMerger<'a> {
    /// For the cells of `plan`.
    #[must_use]
    pub fn new(plan: &'a Plan) -> ObservationMerger<'a> {
        ObservationMerger { plan, lately: [const { None }; 32] }
    }

    /// Puts it into the cell with this index.
    pub fn put(&mut self, cells: &mut [CellReport], index: usize, seen: &Seen) {
        let cell = &mut cells[index];
        let predicted = &self.plan.matrix.cells[index].predicted;
        cell.agrees = predicted.outcome.map(|outcome| {
            let strangers = predicted.takers.iter().any(|holder| matches!(holder, Holder::Foreign(_)));
            let taker = match seen.taker {
                Some(taker) => predicted.takers.contains(&Holder::Own(taker)),
                None => predicted.takers.is_empty() || strangers,
            };
            // A stranger does not tell where it saw us arrive.
            let ingress = seen.ingress == cell.predicted.ingress || (strangers && seen.taker.is_none());
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

/// What is foretold of a bind, in names and words.
#[must_use]
pub fn bind_report(plan: &Plan, index: usize, snapshot: &Snapshot) -> PredictedBind {
    let prediction: &BindPrediction = &plan.binds.predictions[index];
    let mut conflicts_with: Vec<String> = Vec::new();
    for &holder in &prediction.in_the_way {
        let name = plan.name(holder);
        if !conflicts_with.iter().any(|other| other == name) {
            conflicts_with.push(name.to_owned());
        }
    }
    let words =
        crate::plan::bind_error::of_prediction(&plan.sockets[index], prediction, &conflicts_with, snapshot);
    // What is said before is what is said after: the code goes with the words.
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

/// A socket as it is shown in a plan. `exposure` is what it has when it is open.
#[must_use]
pub fn view(spec: &SocketSpec, exposure: FamilyExposure, snapshot: &Snapshot) -> SocketView {
    let mut view = spec.view(exposure);
    // What the system decides is known here.
    if view.v6only.is_none() && spec.domain() == crate::model::Family::Ipv6 {
        view.v6only = snapshot.setting("net.ipv6.bindv6only").map(|value| value != 0);
    }
    view
}

/// Counts the cells.
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
        confirmed: confirm(true),
        contradicted: confirm(false),
    }
}
