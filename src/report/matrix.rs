//! Computes the results of a report: predictions, and the observations that are merged with them.

use std::sync::Arc;

use crate::model::addr::needs_zone;
use crate::model::{FamilyExposure, IfName, Outcome, Protocol, Snapshot, SocketSpec, SocketView, Source};
use crate::plan::bind_check::Rights;
use crate::plan::bind_error::{self, InTheWay};
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{BindPrediction, Binds, Foreign, Holder, predict_binds};
use crate::plan::reach::{self, Cell, Destination, Matrix};

pub use super::results::{
    BindReport, CellReport, ChangedCell, EventReport, ObservedBind, ObservedCell, PredictedBind,
    PredictedCell, Questions, Reachability, Report, Seen, SocketReport, Summary,
};

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
        unknown_because: predicted.unknown_because(),
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
