//! The results of a report by listener and source: what the tables and the picture of a page show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::words::source_name;
use crate::escape::printable;
use crate::model::{FilterDecision, FilterVerdict, IfName, Outcome, Protocol, Source, Translated, Verdict};
use crate::render::filter;
use crate::report::matrix::{CellReport, Report, SocketReport};
use crate::report::network;
use crate::report::results::SourceReport;

/// The results of a report, by listener and source.
#[derive(Debug)]
pub(super) struct Crossings<'a> {
    /// The interfaces over which sources arrive, in the order of the host.
    pub(super) lanes: Vec<Lane>,
    /// The sources, in the order of their interfaces.
    pub(super) columns: Vec<Column>,
    /// Listeners in bind order, then other programs. Ports of a listener with equal results share a row.
    pub(super) rows: Vec<Row<'a>>,
    /// Number of rows beyond the limit.
    pub(super) rows_left_out: usize,
}

/// Maximum number of crossings in a page.
const MOST_CROSSINGS: usize = 60_000;

/// Maximum number of sources in a page.
const MOST_COLUMNS: usize = 2_000;

/// An interface of the host.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: IfName,
    /// Its addresses, as text.
    pub(super) addresses: Vec<String>,
    /// The bridge, VRF or bond that it is a port of.
    pub(super) master: Option<IfName>,
}

/// A source of connections.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) source: Source,
    /// Its name and what it is. Escaped.
    pub(super) name: String,
    pub(super) words: String,
    /// The lanes on which its packets arrive.
    pub(super) lanes: Vec<usize>,
}

/// A listener at some ports, or another program.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// `None` for the sockets of other programs.
    pub(super) listener: Option<&'a str>,
    pub(super) protocol: Protocol,
    pub(super) ports: Vec<u16>,
    /// The listener's sockets at the first port, and their indexes.
    pub(super) sockets: Vec<(usize, &'a SocketReport)>,
    /// By column.
    pub(super) cells: Vec<Crossing<'a>>,
}

/// What a source meets at a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Crossing<'a> {
    /// Accepted and tested addresses, IPv4 then IPv6.
    pub(super) families: [(u32, u32); 2],
    /// Results that are not known.
    pub(super) unknown: u32,
    /// Results that differ from the prediction.
    pub(super) differ: u32,
    /// Accepted, although an expectation forbids it: the destinations with the interfaces on which they arrive and that have them.
    pub(super) forbidden: Vec<Forbidden<'a>>,
    /// Whether an expectation requires a connection that is not accepted, for each family.
    pub(super) missing: [bool; 2],
    /// The interfaces on which accepted connections arrive.
    pub(super) over: BTreeSet<&'a IfName>,
    /// Accepted addresses of another interface than the one on which they arrive, with that interface.
    pub(super) elsewhere: BTreeSet<(&'a str, &'a IfName)>,
    /// What packet filters and translation do.
    pub(super) gates: BTreeSet<Gate>,
}

/// An accepted connection that an expectation forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forbidden<'a> {
    pub(super) destination: &'a str,
    pub(super) ingress: Option<&'a IfName>,
    pub(super) owner: Option<&'a IfName>,
}

/// A packet filter between an interface and a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gate {
    /// Whether it lets packets pass.
    pub(super) open: bool,
    /// Its rule in words. Escaped.
    pub(super) words: String,
}

/// What a crossing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Accepted, although an expectation forbids it.
    Forbidden,
    /// Not accepted over a family, although an expectation requires it.
    Missing,
    /// Some result differs from the prediction.
    Differs,
    /// Accepted at one address at least.
    Open,
    /// Not accepted, and some results are not known.
    Unknown,
    /// Not accepted.
    Shut,
    /// No connection was tested.
    Untested,
}

impl Crossing<'_> {
    pub(super) fn accepted(&self) -> bool {
        self.families.iter().any(|(accepted, _)| *accepted > 0)
    }

    /// The families over which an expectation requires a connection, and none is accepted: 0 for IPv4, 1 for IPv6.
    pub(super) fn missing_families(&self) -> impl Iterator<Item = usize> {
        let missing = |family: &usize| self.missing[*family] && self.families[*family].0 == 0;
        (0..2).filter(missing)
    }

    pub(super) fn state(&self) -> State {
        match () {
            () if !self.forbidden.is_empty() => State::Forbidden,
            () if self.missing_families().next().is_some() => State::Missing,
            () if self.differ > 0 => State::Differs,
            () if self.accepted() => State::Open,
            () if self.unknown > 0 => State::Unknown,
            () if self.families.iter().all(|(_, tested)| *tested == 0) => State::Untested,
            () => State::Shut,
        }
    }
}

impl Row<'_> {
    /// Its name. Escaped.
    pub(super) fn name(&self) -> String {
        self.listener.map_or_else(|| "another program".to_owned(), printable)
    }

    /// The worst state of its crossings.
    pub(super) fn worst(&self) -> State {
        self.cells.iter().map(Crossing::state).min().unwrap_or(State::Untested)
    }

    /// Whether a source that is not this host is accepted.
    pub(super) fn open_to_others(&self, columns: &[Column]) -> bool {
        let others = self.cells.iter().zip(columns).filter(|(_, column)| column.source != Source::Host);
        others.into_iter().any(|(cell, _)| cell.accepted())
    }
}

/// 0 for IPv4 packets, 1 for IPv6 packets.
fn family(address: Option<IpAddr>) -> usize {
    usize::from(address.is_some_and(|address| address.to_canonical().is_ipv6()))
}

/// The address of a destination, which is before its zone.
fn address_of(destination: &str) -> Option<IpAddr> {
    destination.split('%').next()?.parse().ok()
}

impl<'a> Crossings<'a> {
    /// Arranges the results of a report.
    pub(super) fn of(report: &'a Report) -> Crossings<'a> {
        let sources = sources(report);
        let lanes = lanes(report, &sources);
        let columns = columns(&sources, &lanes);
        let Rows { rows, left_out } = rows(report, &columns);
        Crossings { lanes, columns, rows: fold(rows), rows_left_out: left_out }
    }
}

/// The sources of a report; those of the results where a report of an older version has no list.
fn sources(report: &Report) -> Vec<SourceReport> {
    if report.sources.is_empty() {
        return network::sources(&report.cells, &crate::model::Snapshot::default(), &BTreeMap::new());
    }
    report.sources.clone()
}

/// The interfaces over which a source or a result arrives.
fn lanes(report: &Report, sources: &[SourceReport]) -> Vec<Lane> {
    let mut used: BTreeSet<&IfName> = sources.iter().flat_map(|source| &source.interfaces).collect();
    let others = report.cells.iter().filter(|cell| cell.source != Source::Host);
    used.extend(others.filter_map(CellReport::ingress));
    let listed = report.interfaces.iter().filter(|interface| used.remove(&interface.name));
    let mut lanes: Vec<Lane> = listed
        .map(|interface| Lane {
            name: interface.name.clone(),
            addresses: interface.addresses.iter().map(|one| one.address.to_string()).collect(),
            master: interface.master.and_then(|index| {
                let master = report.interfaces.iter().find(|one| one.index == index)?;
                Some(master.name.clone())
            }),
        })
        .collect();
    lanes.extend(used.into_iter().map(|name| Lane {
        name: name.clone(),
        addresses: Vec::new(),
        master: None,
    }));
    lanes
}

fn columns(sources: &[SourceReport], lanes: &[Lane]) -> Vec<Column> {
    let places: HashMap<&IfName, usize> =
        lanes.iter().enumerate().map(|(place, lane)| (&lane.name, place)).collect();
    let place = |name: &IfName| places.get(name).copied();
    let mut columns: Vec<Column> = sources
        .iter()
        .take(MOST_COLUMNS)
        .map(|one| Column {
            source: one.source.clone(),
            name: source_name(&one.source),
            words: printable(&one.description),
            lanes: one.interfaces.iter().filter_map(place).collect(),
        })
        .collect();
    columns.sort_by_key(|column| column.lanes.first().copied().unwrap_or(usize::MAX));
    columns
}

type Service = (Protocol, u16);

/// Rows, and the number of those beyond the limit.
struct Rows<'a> {
    rows: Vec<Row<'a>>,
    left_out: usize,
}

/// The rows of each port: every listener with a socket there, and other programs that accept.
fn rows<'a>(report: &'a Report, columns: &[Column]) -> Rows<'a> {
    let most = (MOST_CROSSINGS / columns.len().max(1)).max(1);
    let mut left_out = 0;
    let mut rows: Vec<Row<'a>> = Vec::new();
    let mut by_service: HashMap<Service, Vec<usize>> = HashMap::new();
    let mut named: HashMap<(Service, Option<&'a str>), usize> = HashMap::new();
    let empty = || vec![Crossing::default(); columns.len()];
    let failing: BTreeSet<usize> = report
        .expectations
        .iter()
        .filter(|one| one.verdict == Verdict::Fail)
        .flat_map(|one| one.sockets.iter().copied())
        .collect();
    let mut order: Vec<(usize, &SocketReport)> = report.sockets.iter().enumerate().collect();
    order.sort_by_key(|(index, _)| !failing.contains(index));
    for (index, socket) in order {
        let view = &socket.socket;
        let service = (view.protocol, view.port);
        let listener = view.listener.as_deref();
        if rows.len() >= most && !named.contains_key(&(service, listener)) {
            left_out += 1;
            continue;
        }
        let row = *named.entry((service, listener)).or_insert_with(|| {
            let (protocol, ports) = (view.protocol, vec![view.port]);
            rows.push(Row { listener, protocol, ports, sockets: Vec::new(), cells: empty() });
            by_service.entry(service).or_default().push(rows.len() - 1);
            rows.len() - 1
        });
        rows[row].sockets.push((index, socket));
    }
    let against: BTreeSet<usize> = report
        .expectations
        .iter()
        .filter(|one| one.verdict == Verdict::Fail)
        .flat_map(|one| one.cells.iter().copied())
        .collect();
    let column: HashMap<&Source, usize> =
        columns.iter().enumerate().map(|(index, column)| (&column.source, index)).collect();
    let mut last: Option<(&'a str, (usize, bool))> = None;
    for (index, cell) in report.cells.iter().enumerate().filter(|(_, cell)| cell.source_address.is_none()) {
        let Some(&column) = column.get(&cell.source) else { continue };
        let destination = &*cell.destination;
        let (family, loopback) = match last {
            Some((known, facts)) if std::ptr::eq(known, destination) => facts,
            _ => {
                let address = address_of(destination);
                (family(address), address.is_some_and(|address| address.to_canonical().is_loopback()))
            }
        };
        last = Some((destination, (family, loopback)));
        let service = (cell.protocol, cell.port);
        let accepted = cell.outcome() == Some(Outcome::Accepted);
        // The loopback addresses are those of the client itself, except in the rare case that the host accepts them from a link.
        let tested = accepted || !loopback || cell.source == Source::Host;
        let takers: Vec<Option<&str>> = match cell.listener() {
            _ if !accepted => Vec::new(),
            Some(name) => vec![Some(name)],
            None if cell.predicted.candidates.is_empty() => vec![None],
            None => {
                let own = |name: &&String| named.contains_key(&(service, Some(name.as_str())));
                let names: Vec<_> = cell.predicted.candidates.iter().filter(own).collect();
                if names.is_empty() {
                    vec![None]
                } else {
                    names.into_iter().map(|name| Some(name.as_str())).collect()
                }
            }
        };
        for &listener in &takers {
            if rows.len() >= most && !named.contains_key(&(service, listener)) {
                continue;
            }
            named.entry((service, listener)).or_insert_with(|| {
                let (protocol, ports) = (service.0, vec![service.1]);
                rows.push(Row { listener, protocol, ports, sockets: Vec::new(), cells: empty() });
                by_service.entry(service).or_default().push(rows.len() - 1);
                rows.len() - 1
            });
        }
        let is_against = against.contains(&index);
        let gate = gate(cell);
        for &place in by_service.get(&service).map_or(&[][..], Vec::as_slice) {
            let row = &mut rows[place];
            let taken = takers.contains(&row.listener);
            let concerned = taken || (takers.is_empty() && row.serves(destination));
            let crossing = &mut row.cells[column];
            crossing.families[family].1 += u32::from(tested);
            crossing.unknown += u32::from(cell.outcome().is_none());
            crossing.differ += u32::from(cell.agrees == Some(false) && (taken || takers.is_empty()));
            if taken {
                crossing.families[family].0 += 1;
                crossing.over.extend(cell.ingress());
                if let (true, Some(owner)) = (cell.arrives_elsewhere(), &cell.address_owner) {
                    crossing.elsewhere.insert((destination, owner));
                }
            }
            match (is_against, taken) {
                (true, true) => crossing.forbidden.push(Forbidden {
                    destination,
                    ingress: cell.ingress(),
                    owner: cell.address_owner.as_ref(),
                }),
                (true, false) => crossing.missing[family] = true,
                (false, _) => {}
            }
            if let Some(gate) = gate.as_ref().filter(|_| concerned) {
                crossing.gates.insert(gate.clone());
            }
        }
    }
    let order = |row: &Row<'_>| row.sockets.first().map_or(usize::MAX, |(index, _)| *index);
    rows.sort_by_key(order);
    Rows { rows, left_out }
}

impl Row<'_> {
    /// Whether a socket of the row would receive what is sent to this address, if nothing stopped it.
    fn serves(&self, destination: &str) -> bool {
        let Some(to) = address_of(destination).map(|address| address.to_canonical()) else { return false };
        self.sockets.iter().any(|(_, socket)| {
            let view = &socket.socket;
            match view.address.to_canonical() {
                address if !address.is_unspecified() => address == to,
                IpAddr::V4(_) => to.is_ipv4(),
                IpAddr::V6(_) => to.is_ipv6() || view.v6only == Some(false),
            }
        })
    }
}

/// What the packet filters and address translation do to a connection, where a rule or a policy of theirs decides.
fn gate(cell: &CellReport) -> Option<Gate> {
    let (decision, translated): (Option<&FilterDecision>, Option<&Translated>) = match &cell.observed {
        Some(seen) => (seen.filter.as_ref(), seen.translated.as_ref()),
        None => (cell.predicted.filter.as_ref(), cell.predicted.translated.as_ref()),
    };
    if decision.is_none() && translated.is_none() {
        return None;
    }
    Some(Gate {
        open: decision.is_none_or(|one| one.verdict == FilterVerdict::Accept),
        words: filter::of(cell)?,
    })
}

/// Combines rows of one listener that differ only in the port.
fn fold(rows: Vec<Row<'_>>) -> Vec<Row<'_>> {
    let mut folded: Vec<Row<'_>> = Vec::new();
    let mut known: HashMap<(Option<&str>, Protocol), Vec<usize>> = HashMap::new();
    for row in rows {
        let alike = known.entry((row.listener, row.protocol)).or_default();
        let bound = |row: &Row<'_>| -> Vec<String> {
            row.sockets.iter().map(|(_, socket)| socket.socket.bound_address()).collect()
        };
        let same = alike.iter().copied().find(|&other| {
            let other = &folded[other];
            other.cells == row.cells && bound(other) == bound(&row)
        });
        match same {
            Some(other) => folded[other].ports.extend(row.ports),
            None => {
                alike.push(folded.len());
                folded.push(row);
            }
        }
    }
    folded
}
