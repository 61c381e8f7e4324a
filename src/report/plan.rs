//! Assembly of the document of `plan`, in parts that `probe` and `lab run` use too.

use std::collections::{BTreeMap, BTreeSet};

use super::expectations::{self, Evidence};
use super::matrix::{
    self, Asked, BindReport, EventReport, Plan, PredictedBind, Questions, Reachability, Report, SocketReport,
};
use super::network;
use crate::model::filters::{self, PacketFilters};
use crate::model::inventory::ClientPorts;
use crate::model::{Document, FamilyExposure, HostReport, IfName, Phase, Schema, Snapshot, SocketSpec};
use crate::plan::bind_check::Rights;
use crate::plan::expand::Expansion;
use crate::plan::exposure::{Exposer, Facts};
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{BindOutcome, Foreign};
use crate::plan::reach::{self, Service};
use crate::profile::Profile;

/// The host that a prediction is about.
#[derive(Debug)]
pub struct TargetHost {
    /// Its network.
    pub snapshot: Snapshot,
    /// Sockets that exist already.
    pub foreign: Vec<Foreign>,
    /// The privileges of the process that binds.
    pub rights: Rights,
    /// The ports from which the kernel chooses; `None` for a snapshot.
    pub client_ports: Option<ClientPorts>,
    /// Facts about the planned ports, one sentence each.
    pub notes: Vec<String>,
    /// One sentence for each part that could not be read, in addition to those of the snapshot.
    pub incomplete_because: Vec<String>,
}

impl TargetHost {
    /// The host of a snapshot. A snapshot does not list sockets, so every port is taken to be free, and the process that binds is
    /// taken to be one of an ordinary user.
    ///
    /// ```
    /// let host = bindscope::TargetHost::of_snapshot(bindscope::Snapshot::default());
    /// assert!(!host.rights.privileged_ports);
    /// ```
    #[must_use]
    pub fn of_snapshot(snapshot: Snapshot) -> TargetHost {
        TargetHost {
            snapshot,
            foreign: Vec::new(),
            rights: Rights { uid: 1000, privileged_ports: false, transparent: false },
            client_ports: None,
            notes: Vec::new(),
            incomplete_because: vec![
                "a snapshot does not tell what listens on its host already, so ports are taken to be free; who binds is taken for an ordinary user"
                    .to_owned(),
            ],
        }
    }
}

/// The document of `plan`: every bind of a profile on a host, and which source reaches which socket.
#[must_use]
pub fn assemble(profile: &Profile, expansion: &Expansion, host: TargetHost) -> Report {
    assemble_asked(profile, expansion, host, Asked::default())
}

/// As [`assemble`], for the requested destinations and services.
#[must_use]
pub fn assemble_asked(
    profile: &Profile,
    expansion: &Expansion,
    host: TargetHost,
    asked: Asked<'_>,
) -> Report {
    let Expansion { sockets, .. } = expansion;
    let barred = barred_clients(sockets, &host.snapshot, host.rights.uid);
    let plan = Plan::of(sockets.clone(), &host.snapshot, host.rights, host.foreign, asked);
    let cells = matrix::cells(&plan, &host.snapshot, &[]);
    let mut sockets = sockets_of(&plan, &host.snapshot);
    sockets.extend(missing_of(expansion, &host.snapshot));
    let evidence = Evidence { interfaces: &host.snapshot.interfaces, ..Evidence::default() };
    let expectations = expectations::judge(&profile.expectations, &sockets, &cells, evidence);
    finish(
        Schema::Plan,
        profile,
        &host.snapshot,
        host.incomplete_because,
        Parts {
            requested: Questions::default(),
            sockets,
            cells,
            expectations,
            events: Vec::new(),
            node_interfaces: BTreeMap::new(),
            notes: [notes_of(expansion, host.snapshot.packet_filters.as_ref()), host.notes, barred].concat(),
        },
    )
}

/// Networks whose clients get no answer from any address of this host, or not from some; one sentence each.
fn barred_clients(sockets: &[SocketSpec], snapshot: &Snapshot, user: u32) -> Vec<String> {
    let services: Vec<Service> = sockets
        .iter()
        .map(|socket| Service {
            protocol: socket.protocol,
            port: socket.port,
            user: Some(user),
            mark: Some(0),
        })
        .collect();
    let all = reach::barred(snapshot, &LocalAddresses::new(snapshot), &services);
    all.iter().map(ToString::to_string).collect()
}

/// Listeners that this host cannot provide, and the limits of a prediction; one sentence each.
#[must_use]
pub fn notes_of(expansion: &Expansion, filters: Option<&PacketFilters>) -> Vec<String> {
    let mut notes: Vec<String> =
        expansion.notes.iter().map(|note| format!("{}: {}", note.listener, note.message)).collect();
    notes.extend(
        expansion.missing.iter().map(|missing| format!("{}: {}", missing.spec.listener, missing.message)),
    );
    notes.push(filters::note(filters));
    notes
}

/// The sockets of a plan, with the predictions of their binds and their exposure.
#[must_use]
pub fn sockets_of(plan: &Plan, snapshot: &Snapshot) -> Vec<SocketReport> {
    let exposer = Exposer::new(snapshot);
    plan.sockets
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let (exposure, reasons) = exposer.explain(&Facts::of_spec(spec, snapshot));
            SocketReport {
                socket: matrix::view(spec, exposure, snapshot),
                bind: BindReport { predicted: matrix::bind_report(plan, index, snapshot), observed: None },
                exposure_because: reasons
                    .into_iter()
                    .map(|reason| format!("{}: {}", reason.family, reason.text))
                    .collect(),
            }
        })
        .collect()
}

/// Sockets that cannot be requested because the interface or address that they name is missing.
pub fn missing_of<'a>(
    expansion: &'a Expansion,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = SocketReport> + 'a {
    expansion.missing.iter().map(|missing| SocketReport {
        socket: matrix::view(&missing.spec, FamilyExposure::default(), snapshot),
        bind: BindReport {
            predicted: PredictedBind {
                outcome: BindOutcome::Error,
                phase: Some(Phase::Bind),
                errno: Some(missing.errno),
                conflicts_with: Vec::new(),
                code: Some(missing.code),
                message: Some(missing.message.clone()),
                hint: missing.hint.clone(),
            },
            observed: None,
        },
        exposure_because: Vec::new(),
    })
}

/// The lists of a report.
#[derive(Debug)]
pub struct Parts {
    /// The requested destinations.
    pub requested: Questions,
    /// In bind order.
    pub sockets: Vec<SocketReport>,
    /// Sorted by source, destination, protocol and port.
    pub cells: Vec<matrix::CellReport>,
    /// In the order of the profile.
    pub expectations: Vec<expectations::ExpectationReport>,
    /// Events of a lab, in order; empty elsewhere.
    pub events: Vec<EventReport>,
    /// Further notes, one sentence each.
    pub notes: Vec<String>,
    /// The interfaces on which packets of a lab's node arrive, by its name.
    pub node_interfaces: BTreeMap<String, BTreeSet<IfName>>,
}

/// Assembles a report.
#[must_use]
pub fn finish(
    schema: Schema,
    profile: &Profile,
    snapshot: &Snapshot,
    more_incomplete: Vec<String>,
    parts: Parts,
) -> Report {
    let mut incomplete_because = snapshot.incomplete_because.clone();
    incomplete_because.extend(more_incomplete);
    let Parts { requested, sockets, cells, expectations, events, notes, node_interfaces } = parts;
    let body = Reachability {
        time: None,
        profile: profile.name.clone(),
        interfaces: network::interfaces(snapshot),
        sources: network::sources(&cells, snapshot, &node_interfaces),
        requested,
        summary: matrix::summary(&cells),
        sockets,
        cells,
        expectations,
        events,
        notes,
    };
    let complete = incomplete_because.is_empty() && snapshot.complete;
    let report = HostReport { complete, incomplete_because, host: snapshot.host.clone(), body };
    Document::new(schema, report)
}
