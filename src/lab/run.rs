//! Runs a profile in a lab: listeners in the host node, real connections from the host and from every node, compared
//! with the predictions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::build::Lab;
use super::capture_check::Witness;
use super::filter_trace::{Flows, Rules, rule_number};
use super::ops;
use super::path::{Arrival, Nodes, Unreachable};
use super::twin::Client;
use crate::code::Code;
use crate::model::addr::{needs_zone, socket_addr};
use crate::model::ruleset::Ruleset;
use crate::model::{FamilyExposure, IfName, Outcome, Protocol, Snapshot, SocketSpec, Source, Translated};
use crate::plan::bind_check::Rights;
use crate::plan::expand::{Expansion, expand};
use crate::plan::filter::Filters;
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::Holder;
use crate::plan::reach::{Arrivals, Cell, Destination, Matrix, Reach};
use crate::probe::attempt::{self, Attempt, Limits};
use crate::probe::listeners as probe;
use crate::probe::run as probe_run;
use crate::profile::Profile;
use crate::report::matrix::{self, Asked, CellReport, Plan, Seen};
use crate::serve::bind::{self, Bound};
use crate::sys::{self, Capture, Error, netns};

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Timeout of one connection.
    pub connect: Duration,
    /// Timeout of all connections.
    pub all: Duration,
}

/// The listeners of a profile, bound in the host node.
pub struct Opened {
    /// Its sockets.
    pub sockets: probe::Opened,
    /// The requested sockets on this host.
    pub expansion: Expansion,
    /// The host as it was before.
    pub snapshot: Snapshot,
    /// Services that clients try in addition to those of the sockets.
    pub services: Vec<(Protocol, u16)>,
}

/// Prediction and observation of every result.
#[derive(Debug)]
pub struct Looked {
    /// Predictions; their sources are the host and the nodes.
    pub plan: Plan,
    /// The host during the connections.
    pub snapshot: Snapshot,
    /// Every result.
    pub cells: Vec<CellReport>,
    /// The host's interfaces on which packets of a node arrive, by the name of the node. Empty for a twin, whose sources are links.
    pub node_interfaces: BTreeMap<String, BTreeSet<IfName>>,
    /// Number of connections that the deadline cut off.
    pub unseen: usize,
    /// Why packets were not captured, or not all of them.
    pub uncaptured: Option<String>,
    /// Why packet filters were not traced, or not for every packet.
    pub untraced: Option<String>,
}

/// Results of all connections.
struct Connected {
    /// By cell.
    seen: Vec<Option<Seen>>,
    /// By cell: the stand-in that answered.
    forwarded: Vec<Option<SocketAddr>>,
    witness: io::Result<Witness>,
    /// What packets met in the packet filters; `None` where there are none.
    flows: Option<Result<Flows, String>>,
}

/// The rights of the caller on its own host: a lab binds with them, whatever a namespace of one's own would allow.
pub(super) fn rights() -> Rights {
    let sys::CallerRights { uid, privileged_ports, transparent } = sys::rights();
    Rights { uid, privileged_ports, transparent }
}

/// Binds the listeners of `profile` in the host node, without the privileges of the separate namespace.
///
/// # Errors
/// If the node cannot be read.
pub fn open(lab: &Lab, profile: &Profile) -> Result<Opened, Error> {
    open_as(lab, profile, lab.snapshot(lab.plan.host)?)
}

/// As [`open`], where the host node counts as the host that `snapshot` is of.
///
/// # Errors
/// As [`open`].
pub fn open_as(lab: &Lab, profile: &Profile, snapshot: Snapshot) -> Result<Opened, Error> {
    let expansion = expand(profile, &snapshot);
    let namespace =
        lab.namespaces().get(lab.plan.host).ok_or(Error::Unsupported { what: "the host node" })?;
    let caller = sys::rights();
    let opened = namespace
        .run(|| {
            netns::drop_network_rights(caller)?;
            let sockets = probe::Opened::all(&expansion.sockets, &snapshot);
            io::Result::Ok(Opened { sockets, expansion, snapshot, services: Vec::new() })
        })
        .map_err(|error| Error::call("enter", "the host node", error))?;
    opened.map_err(|error| Error::call("drop", "the privileges over the host node", error))
}

/// The sockets that replace the targets of address translation; a socket that cannot be opened does not answer.
fn open_stand_ins(lab: &Lab) -> Vec<Bound> {
    let open = |one: &ops::StandIn| {
        let spec = SocketSpec {
            listener: "stand-in".to_owned(),
            ..SocketSpec::plain(one.protocol, one.address.ip(), one.address.port())
        };
        let namespace = lab.namespaces().get(one.node)?;
        namespace.run(|| bind::open(&spec, FamilyExposure::default())).ok()?.ok()
    };
    lab.plan.stand_ins.iter().filter_map(open).collect()
}

/// Predicts every result of the lab in its current state, makes every connection, and compares.
///
/// # Errors
/// If a node cannot be read, or the system refuses to create or use the poller.
pub fn look(
    lab: &Lab,
    opened: &Opened,
    patience: Patience,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Looked, Error> {
    let snapshots: Vec<Snapshot> =
        (0..lab.plan.nodes.len()).map(|node| lab.snapshot(node)).collect::<Result<_, _>>()?;
    let Some(snapshot) = snapshots.get(lab.plan.host).cloned() else {
        return Err(Error::Unsupported { what: "the host node" });
    };
    // Binds were made on the host as it was then; what reaches them is asked of the host as it is now.
    let more = names_of_oneself(&snapshot);
    let asked = Asked { more: &more, services: &opened.services, ..Asked::default() };
    let mut plan = Plan::of(opened.sockets.specs.clone(), &snapshot, rights(), Vec::new(), asked);
    let wiring = ops::wiring(&lab.plan);
    let nodes = Nodes::new(&snapshots, &wiring);
    let (matrix, zones, node_interfaces) = matrix(lab, &plan, &snapshot, &nodes, &more);
    plan.matrix = matrix;
    let clients: Vec<Option<Client>> = plan
        .matrix
        .cells
        .iter()
        .zip(zones)
        .map(|(cell, zone)| {
            let node = match &plan.matrix.sources[cell.source] {
                Source::Node(name) => lab.plan.index(name)?,
                Source::Host | Source::Link(_) | Source::Beyond(_) | Source::From(..) => lab.plan.host,
            };
            Some(Client { node, zone })
        })
        .collect();
    let looked = look_from(lab, opened, plan, &clients, snapshot, patience, progress)?;
    Ok(Looked { node_interfaces, ..looked })
}

/// Makes every connection of `plan` that has a client, and adds the observations.
///
/// # Errors
/// If the system refuses to create or use the poller.
pub(super) fn look_from(
    lab: &Lab,
    opened: &Opened,
    plan: Plan,
    clients: &[Option<Client>],
    snapshot: Snapshot,
    patience: Patience,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Looked, Error> {
    let Connected { seen, forwarded, witness, flows } =
        connect_all(lab, &opened.sockets, &plan, clients, &snapshot, patience, progress)?;
    let asked = seen.iter().zip(clients).filter(|(_, client)| client.is_some());
    let unseen = asked.filter(|(seen, _)| seen.is_none()).count();
    let mut cells = matrix::cells(&plan, &snapshot, &seen);
    if let Ok(witness) = &witness {
        for (cell, seen) in cells.iter_mut().zip(&seen) {
            let (Some(observed), Some((peer, local))) = (&mut cell.observed, seen.as_ref().and_then(ends))
            else {
                continue;
            };
            let ingress = observed.ingress.as_ref();
            Arc::make_mut(observed).packets =
                Some(witness.seen(cell.protocol, peer, local, ingress, &snapshot));
        }
    }
    let mut untraced = None;
    match (flows, lab.ruleset().zip(lab.rules())) {
        (Some(Ok(flows)), Some((ruleset, replayed))) => {
            let filters = Filters::decode(ruleset).ok();
            let text = |place: usize| {
                filters.as_ref().and_then(|filters| text_of(filters, ruleset, place)).unwrap_or_default()
            };
            let rules = Rules { ruleset, replayed, text: &text };
            join(&mut cells, &plan, &seen, &flows, rules);
            if flows.lost {
                untraced =
                    Some("the trace of packet filters is incomplete: the kernel dropped events".to_owned());
            }
        }
        (Some(Err(error)), _) => untraced = Some(format!("packet filters were not traced: {error}")),
        _ => {}
    }
    for (cell, to) in cells.iter_mut().zip(forwarded) {
        if let (Some(observed), Some(to)) = (&mut cell.observed, to) {
            let unseen = || Translated { address: to.ip(), port: to.port(), by: None };
            Arc::make_mut(observed).translated.get_or_insert_with(unseen);
        }
    }
    let uncaptured = match witness {
        Ok(Witness { lost: 0, .. }) => None,
        Ok(Witness { lost, .. }) => Some(format!("the capture missed {lost} packets")),
        Err(error) => Some(format!("packets were not captured: {error}")),
    };
    let node_interfaces = BTreeMap::new();
    Ok(Looked { plan, snapshot, cells, node_interfaces, unseen, uncaptured, untraced })
}

/// The ends of an accepted connection.
fn ends(seen: &Seen) -> Option<(SocketAddr, SocketAddr)> {
    seen.taker.and(seen.peer.zip(seen.local))
}

/// Ways to name this host that only a client on it has.
#[must_use]
pub fn names_of_oneself(snapshot: &Snapshot) -> Vec<Destination> {
    let mut more = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))];
    if snapshot.ipv6_available {
        more.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    more.into_iter().map(|address| Destination { address, zone: 0 }).collect()
}

/// The cells of the host as they are, and those of each node: what would come of its packets on the interface on which they
/// arrive. The second value is the zone, in the cell's source, of each cell's destination; the third has the interfaces on which
/// packets of each node arrive.
fn matrix(
    lab: &Lab,
    plan: &Plan,
    host: &Snapshot,
    nodes: &Nodes<'_>,
    more: &[Destination],
) -> (Matrix, Vec<u32>, BTreeMap<String, BTreeSet<IfName>>) {
    let old = &plan.matrix;
    let mut sources = vec![Source::Host];
    let mut cells: Vec<Cell> = old.cells.iter().filter(|cell| cell.source == 0).cloned().collect();
    let mut zones: Vec<u32> = cells.iter().map(|cell| old.destinations[cell.destination].zone).collect();
    let local = LocalAddresses::new(host);
    let arrivals = Arrivals::new(host, &local);
    let mut node_interfaces = BTreeMap::new();
    // Asking for a link-local address of another link leaves an unanswered neighbour behind, and all namespaces share a table of
    // 1024 of them (`net.ipv6.neigh.default.gc_thresh3`); a large lab leaves these questions out.
    let few = lab.plan.nodes.len() * old.destinations.len() <= 512;
    for (node, name) in lab.plan.nodes.iter().enumerate().filter(|(node, _)| *node != lab.plan.host) {
        sources.push(Source::Node(name.clone()));
        let arrives_on: &mut BTreeSet<IfName> = node_interfaces.entry(name.clone()).or_default();
        for (destination, &to) in old.destinations.iter().enumerate().filter(|(_, to)| !more.contains(to)) {
            let zone = if needs_zone(to.address) {
                // A node without any interface up cannot even name it.
                let Some((zone, same_link)) = nodes.zone_of(node, lab.plan.host, to.zone) else { continue };
                if !same_link && !few {
                    continue;
                }
                zone
            } else {
                0
            };
            let arrival = |service| nodes.arrival(node, lab.plan.host, (to, zone), service);
            let mut same = None;
            for (service, (protocol, port)) in old.services.iter().enumerate() {
                let arrival = if nodes.is_selective() {
                    arrival((*protocol, *port))
                } else {
                    *same.get_or_insert_with(|| arrival((*protocol, *port)))
                };
                let ingress = arrival.ok().and_then(|arrival| host.interface(arrival.interface));
                arrives_on.extend(ingress.map(|interface| interface.name.clone()));
                let predicted = match arrival {
                    Err(loss) => lost(loss, *protocol),
                    Ok(arrival) => {
                        match arrivals.reach(&plan.binds, arrival.interface, to, (*protocol, *port)) {
                            Some(reach) => answered(reach, arrival, *protocol, plan),
                            None => lost(Unreachable::Unknown, *protocol),
                        }
                    }
                };
                cells.push(Cell {
                    source: sources.len() - 1,
                    source_address: None,
                    destination,
                    service,
                    predicted: predicted.into(),
                });
                zones.push(zone);
            }
        }
    }
    let (destinations, services) = (old.destinations.clone(), old.services.clone());
    (Matrix { sources, destinations, services, cells }, zones, node_interfaces)
}

fn lost(loss: Unreachable, protocol: Protocol) -> Reach {
    let why = match loss {
        Unreachable::NoRoute | Unreachable::Refused | Unreachable::NoNeighbour => Code::NO_ROUTE,
        Unreachable::Itself => Code::MEANS_ITSELF,
        Unreachable::LinkLocal => Code::LINK_LOCAL_ELSEWHERE,
        Unreachable::Dropped => Code::NOT_FORWARDED,
        Unreachable::Unknown => Code::REACH_UNKNOWN,
    };
    Reach {
        outcome: loss.outcome(protocol),
        takers: Vec::new(),
        ingress: None,
        why,
        answer: None,
        filtered: None,
    }
}

/// Without a return route there is neither a handshake nor a refusal; a datagram needs none.
fn answered(reach: Reach, arrival: Arrival, protocol: Protocol, plan: &Plan) -> Reach {
    let by_device = |holder: &Holder| match holder {
        Holder::Own(index) => {
            plan.sockets.get(*index).is_some_and(|socket| socket.device.is_some() || socket.scope_id != 0)
        }
        Holder::Foreign(_) => false,
    };
    let devices = !reach.takers.is_empty() && reach.takers.iter().all(by_device);
    let back = if devices { arrival.answered_by_device } else { arrival.answered };
    let needs_answer = match reach.outcome {
        Some(Outcome::Accepted) => protocol == Protocol::Tcp,
        Some(Outcome::Refused) => true,
        _ => false,
    };
    match back {
        Some(false) if needs_answer => Reach::without_socket(Outcome::Timeout, Code::NO_WAY_BACK, None),
        None if needs_answer => Reach::unknown(Code::ANSWER_UNKNOWN, reach.takers, None),
        _ => reach,
    }
}

/// How long to wait for the last packets. They are on their way: nothing but a busy machine keeps them.
const LAST_PACKETS: Duration = Duration::from_millis(250);

/// Makes every connection that has a client, from the client's node, with the destination's zone there. All run at the
/// same time, as far as descriptors suffice, on one thread that opens each client's socket in its node and captures
/// packets at the host. Without a client, or after the deadline, the result is `None`.
fn connect_all(
    lab: &Lab,
    opened: &probe::Opened,
    plan: &Plan,
    clients: &[Option<Client>],
    snapshot: &Snapshot,
    patience: Patience,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Connected, Error> {
    let mut nodes = Vec::new();
    let mut asked = Vec::new();
    let mut attempts = Vec::new();
    for (index, (cell, client)) in plan.matrix.cells.iter().zip(clients).enumerate() {
        let Some(client) = client else { continue };
        let (protocol, port) = plan.matrix.services[cell.service];
        let to = socket_addr(plan.matrix.destinations[cell.destination].address, port, client.zone);
        asked.push(index);
        nodes.push(client.node);
        attempts.push(Attempt { protocol, to, patience: patience.connect });
    }
    let total = attempts.len();
    let stand_ins = open_stand_ins(lab);
    let listeners: Vec<&Bound> = opened.bound.iter().chain(&stand_ins).collect();
    let work = || {
        let host = lab.namespaces().get(lab.plan.host).ok_or(io::ErrorKind::NotFound)?;
        host.enter()?;
        let mut capture = Capture::here();
        let mut witness = Witness::default();
        let tracing = RefCell::new(lab.rules().map(|_| Tracing::here(plan)));
        let mut here = None;
        let mut open = |index: usize| {
            // A packet may meet a hundred rules, and the kernel keeps few events.
            drain(&tracing);
            let node = nodes[index];
            if here != Some(node) {
                lab.namespaces().get(node).ok_or(io::ErrorKind::NotFound)?.enter()?;
                here = Some(node);
            }
            attempt::client(&attempts[index], None)
        };
        // Each connection has two ends here. Without a descriptor for the second one it would look like a stranger's.
        let spare = sys::spare_descriptors().unwrap_or(usize::MAX);
        let in_flight = (spare.saturating_sub(4) / 2).clamp(1, 4096);
        let limits =
            Limits { in_flight, deadline: Instant::now() + patience.all, ends: lab.rules().is_some() };
        let mut step = |done| {
            drain(&tracing);
            listen_in(&mut capture, &mut witness);
            progress(done, total);
        };
        let mut seen = probe_run::run_among(&listeners, &attempts, limits, &mut open, &mut step)?;
        // A busy machine loses packets of many simultaneous connections, and a lost SYN looks like a filter. A timeout
        // that was not predicted is therefore repeated once.
        let odd = |index: &usize| {
            let predicted = plan.matrix.cells[asked[*index]].predicted.outcome;
            let timed_out = seen[*index].as_ref().is_some_and(|one| one.outcome == Outcome::Timeout);
            timed_out && predicted.is_some_and(|outcome| outcome != Outcome::Timeout)
        };
        let again: Vec<usize> = (0..total).filter(odd).collect();
        if !again.is_empty() {
            let attempts: Vec<Attempt> = again.iter().map(|&index| attempts[index]).collect();
            let mut open = |index: usize| open(again[index]);
            let second = probe_run::run_among(&listeners, &attempts, limits, &mut open, &mut |_| {
                listen_in(&mut capture, &mut witness);
            })?;
            for (&index, one) in again.iter().zip(second) {
                seen[index] = one.or(seen[index].take());
            }
        }
        let mut by_cell: Vec<Option<Seen>> = vec![None; plan.matrix.cells.len()];
        let mut forwarded = vec![None; plan.matrix.cells.len()];
        for (&cell, one) in asked.iter().zip(seen) {
            let taker = one.as_ref().and_then(|one| one.taker?.checked_sub(opened.bound.len()));
            forwarded[cell] = taker
                .and_then(|taker| stand_ins.get(taker))
                .map(|bound| SocketAddr::new(bound.spec.address, bound.spec.port));
            by_cell[cell] = one.map(|one| probe::in_names(&one, &opened.owners, snapshot));
        }
        let until = Instant::now() + LAST_PACKETS;
        let whole = |witness: &Witness| {
            let mut accepted = attempts.iter().zip(&asked).filter_map(|(attempt, &cell)| {
                Some((attempt.protocol, by_cell[cell].as_ref().and_then(ends)?))
            });
            accepted.all(|(protocol, (peer, local))| witness.is_whole(protocol, peer, local))
        };
        listen_in(&mut capture, &mut witness);
        while capture.is_ok() && !whole(&witness) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            listen_in(&mut capture, &mut witness);
        }
        let lost = capture.and_then(|mut capture| capture.lost());
        let witness = lost.map(|lost| {
            witness.lost = lost;
            witness
        });
        drain(&tracing);
        let flows = tracing.into_inner().map(|tracing| tracing.map(|tracing| tracing.flows));
        io::Result::Ok(Connected { seen: by_cell, forwarded, witness, flows })
    };
    let result = std::thread::scope(|scope| scope.spawn(work).join());
    result
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map_err(|error| Error::call("wait for", "connections", error))
}

/// A trace that runs, and what it reported.
struct Tracing {
    trace: sys::Trace,
    flows: Flows,
}

impl Tracing {
    /// Begins in the calling thread's namespace.
    fn here(plan: &Plan) -> Result<Tracing, String> {
        let services = plan.matrix.services.iter();
        let udp: Vec<u16> =
            services.filter(|(protocol, _)| *protocol == Protocol::Udp).map(|(_, port)| *port).collect();
        let trace = sys::Trace::here(&udp).map_err(|error| error.to_string())?;
        Ok(Tracing { trace, flows: Flows::default() })
    }
}

fn drain(tracing: &RefCell<Option<Result<Tracing, String>>>) {
    if let Some(Ok(Tracing { trace, flows })) = tracing.borrow_mut().as_mut() {
        let lost = trace.drain(&mut |event| flows.note(event));
        flows.lost |= lost.unwrap_or(true);
    }
}

/// A rule in words, by its place in the ruleset.
fn text_of(filters: &Filters, ruleset: &Ruleset, place: usize) -> Option<String> {
    let rule = ruleset.nftables.get(place)?;
    let table =
        filters.tables.iter().find(|table| (table.family, &table.name) == (rule.family, &rule.table))?;
    let chain = *table.chains.get(rule.chain.as_deref()?)?;
    Some(filters.decider(chain, Some(rule_number(place, ruleset).checked_sub(1)?)).text)
}

/// Puts what was traced beside what was seen.
fn join(cells: &mut [CellReport], plan: &Plan, seen: &[Option<Seen>], flows: &Flows, rules: Rules<'_>) {
    for ((report, cell), seen) in cells.iter_mut().zip(&plan.matrix.cells).zip(seen) {
        let Some(client) = seen.as_ref().and_then(|seen| seen.client) else { continue };
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let address = plan.matrix.destinations[cell.destination].address.to_canonical();
        let server = SocketAddr::new(address, report.port);
        let traced = flows.traced(report.protocol, plain(client), server, rules);
        if let (Some(observed), Some(traced)) = (&mut report.observed, traced) {
            let observed = Arc::make_mut(observed);
            observed.filter = traced.decision;
            observed.translated = traced.translated;
        }
    }
}

fn listen_in(capture: &mut io::Result<Capture>, witness: &mut Witness) {
    if let Ok(capture) = capture {
        capture.drain(&mut |interface, bytes| witness.note(interface, bytes));
    }
}
