//! What the picture of a report shows: sources, interfaces, listeners, and what passes between them.

use std::collections::{BTreeMap, BTreeSet};

use super::crossing::{Crossing, Crossings, Gate, Row, State};
use super::words::{counted, listed};
use crate::escape::printable;
use crate::model::{IfName, Source, Verdict};
use crate::plan::predict::BindOutcome;
use crate::report::matrix::{Report, SocketReport};

/// Maximum number of listeners, interfaces and sources in a picture.
const MOST_LISTENERS: usize = 12;
const MOST_LANES: usize = 8;
const MOST_SOURCES: usize = 16;

/// Maximum number of gates that are named below a picture.
const MOST_GATES: usize = 12;

/// A picture. All texts are escaped.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) title: String,
    /// The picture as sentences.
    pub(super) sentences: Vec<String>,
    pub(super) host: String,
    pub(super) lanes: Vec<PictureLane>,
    pub(super) sources: Vec<PictureSource>,
    pub(super) listeners: Vec<PictureListener>,
    pub(super) flows: Vec<Flow>,
    pub(super) gates: Vec<Gate>,
    /// What the picture leaves out.
    pub(super) left_out: Option<String>,
}

#[derive(Debug)]
pub(super) struct PictureLane {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    /// The lane of the bridge, VRF or bond that it is a port of.
    pub(super) master: Option<usize>,
}

#[derive(Debug)]
pub(super) struct PictureSource {
    pub(super) name: String,
    pub(super) words: String,
    pub(super) lanes: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct PictureListener {
    pub(super) name: String,
    pub(super) bound: String,
    pub(super) status: Status,
    /// The sources that reach it.
    pub(super) reached_by: Vec<String>,
    /// Why it is not as expected.
    pub(super) alarms: Vec<String>,
}

/// How a listener stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// An expectation failed.
    Fails,
    /// A result differs from the prediction.
    Differs,
    /// No socket of it is open.
    NotOpen,
    /// An expectation could not be decided.
    Undecided,
    /// All expectations hold.
    Holds,
    /// Without expectations.
    None,
}

impl Status {
    pub(super) fn words(self) -> &'static str {
        match self {
            Status::Fails => "NOT AS EXPECTED",
            Status::Differs => "NOT AS PREDICTED",
            Status::NotOpen => "NOT OPEN",
            Status::Undecided => "undecided",
            Status::Holds => "as expected",
            Status::None => "",
        }
    }

    pub(super) fn is_bad(self) -> bool {
        matches!(self, Status::Fails | Status::Differs | Status::NotOpen)
    }
}

/// What passes from a source over an interface to a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) kind: FlowKind,
    pub(super) lane: usize,
    pub(super) source: usize,
    pub(super) listener: usize,
    /// The gates on it, as indexes.
    pub(super) gates: Vec<usize>,
}

/// Kinds of flows, the ones in front last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FlowKind {
    /// It is not known whether it is accepted.
    Unknown,
    /// A packet filter stops it.
    Blocked,
    /// Accepted.
    Open,
    /// Required by an expectation, and not accepted.
    Missing,
    /// Accepted, although an expectation forbids it.
    Forbidden,
}

impl Picture {
    /// The picture of a report.
    pub(super) fn of(report: &Report, crossings: &Crossings<'_>) -> Picture {
        let groups = by_listener(&crossings.rows);
        let shown = chosen_listeners(&groups);
        let lanes = chosen_lanes(crossings, &shown);
        let lane_of: BTreeMap<usize, usize> =
            lanes.iter().enumerate().map(|(place, &lane)| (lane, place)).collect();
        let mut columns: Vec<usize> = (0..crossings.columns.len())
            .filter(|&column| {
                let of = &crossings.columns[column].lanes;
                of.is_empty() || of.iter().any(|lane| lane_of.contains_key(lane))
            })
            .collect();
        columns.truncate(MOST_SOURCES);
        let mut picture = Picture {
            title: "Who reaches which listener, over which interface".to_owned(),
            sentences: Vec::new(),
            host: report.host.name.as_deref().map(printable).unwrap_or_default(),
            lanes: lanes
                .iter()
                .map(|&lane| &crossings.lanes[lane])
                .map(|lane| PictureLane {
                    name: lane.name.to_string(),
                    addresses: lane.addresses.clone(),
                    master: lane.master.as_ref().and_then(|name| {
                        let index = crossings.lanes.iter().position(|lane| lane.name == *name)?;
                        lane_of.get(&index).copied()
                    }),
                })
                .collect(),
            sources: columns
                .iter()
                .map(|&column| &crossings.columns[column])
                .map(|column| PictureSource {
                    name: column.name.clone(),
                    words: column.words.clone(),
                    lanes: column.lanes.iter().filter_map(|lane| lane_of.get(lane).copied()).collect(),
                })
                .collect(),
            listeners: shown.iter().map(|rows| listener(report, crossings, rows)).collect(),
            flows: Vec::new(),
            gates: Vec::new(),
            left_out: left_out(crossings, &groups, shown.len(), lanes.len(), columns.len()),
        };
        for (place, rows) in shown.iter().enumerate() {
            for (source, &column) in columns.iter().enumerate() {
                let lane = |name: &IfName| {
                    let index = crossings.lanes.iter().position(|lane| lane.name == *name)?;
                    lane_of.get(&index).copied()
                };
                let cells = rows.iter().map(|row| &row.cells[column]);
                picture.add_flows(cells, &crossings.columns[column].source, (source, place), &lane);
            }
        }
        picture.flows.sort();
        picture.sentences = picture.in_words();
        picture
    }

    fn gate(&mut self, gate: &Gate) -> Option<usize> {
        if let Some(known) = self.gates.iter().position(|known| known == gate) {
            return Some(known);
        }
        if self.gates.len() >= MOST_GATES {
            return None;
        }
        self.gates.push(gate.clone());
        Some(self.gates.len() - 1)
    }

    /// The flows of one source to one listener.
    fn add_flows<'c, 'a: 'c>(
        &mut self,
        cells: impl Iterator<Item = &'c Crossing<'a>>,
        from: &Source,
        (source, listener): (usize, usize),
        lane_of: &dyn Fn(&IfName) -> Option<usize>,
    ) {
        let own: Option<usize> = self.sources[source].lanes.first().copied();
        // What is accepted, and what is not although it should be, are two flows.
        let mut kinds: BTreeMap<(usize, bool), FlowKind> = BTreeMap::new();
        let mut gates: BTreeSet<usize> = BTreeSet::new();
        let mut put = |lane: Option<usize>, kind: FlowKind| {
            if let Some(lane) = lane {
                let known = kinds.entry((lane, kind == FlowKind::Missing)).or_insert(kind);
                *known = kind.max(*known);
            }
        };
        for cell in cells {
            // Packets of the host to itself cross the loopback interface, whichever interface the kernel reports.
            let place = |name: &IfName| if *from == Source::Host { own } else { lane_of(name).or(own) };
            for name in &cell.over {
                put(place(name), FlowKind::Open);
            }
            if cell.accepted() && cell.over.is_empty() {
                put(own, FlowKind::Open);
            }
            for one in &cell.forbidden {
                put(one.ingress.map_or(own, place), FlowKind::Forbidden);
            }
            match cell.state() {
                State::Missing => put(own, FlowKind::Missing),
                State::Unknown => put(own, FlowKind::Unknown),
                State::Shut if cell.gates.iter().any(|gate| !gate.open) => put(own, FlowKind::Blocked),
                _ => {}
            }
            let open = cell.accepted();
            let unknown = cell.state() == State::Unknown;
            for gate in cell.gates.iter().filter(|gate| gate.open == open || unknown) {
                gates.extend(self.gate(gate));
            }
        }
        let gates: Vec<usize> = gates.into_iter().collect();
        let flows = kinds.into_iter().map(|((lane, _), kind)| Flow {
            kind,
            lane,
            source,
            listener,
            gates: gates.clone(),
        });
        self.flows.extend(flows);
    }

    /// A sentence for each listener.
    fn in_words(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (place, listener) in self.listeners.iter().enumerate() {
            let of = |wanted: FlowKind| -> Vec<String> {
                let flows = self.flows.iter().filter(|flow| flow.listener == place && flow.kind == wanted);
                let words = flows.map(|flow| {
                    format!("{} over {}", self.sources[flow.source].name, self.lanes[flow.lane].name)
                });
                words.collect()
            };
            let open = of(FlowKind::Open);
            let accepted = if open.is_empty() { "no source".to_owned() } else { listed(&open, 40) };
            let mut sentence = format!("{} accepts {accepted}", listener.name);
            for (kind, words) in [
                (FlowKind::Forbidden, "it accepts, although an expectation forbids it, "),
                (FlowKind::Missing, "it does not accept, although an expectation requires it, "),
                (FlowKind::Blocked, "a packet filter stops "),
                (FlowKind::Unknown, "it is not known whether it accepts "),
            ] {
                let flows = of(kind);
                if !flows.is_empty() {
                    sentence.push_str("; ");
                    sentence.push_str(words);
                    sentence.push_str(&listed(&flows, 40));
                }
            }
            sentence.push('.');
            sentences.push(sentence);
        }
        sentences.extend(self.left_out.clone());
        sentences
    }
}

/// The rows of each listener, in their order.
fn by_listener<'r, 'a>(rows: &'r [Row<'a>]) -> Vec<Vec<&'r Row<'a>>> {
    let mut groups: Vec<Vec<&'r Row<'a>>> = Vec::new();
    let mut places: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for row in rows {
        let place = *places.entry(row.listener).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(row);
    }
    groups
}

/// The listeners of the picture, in their order: those with the worst results, then the widest.
fn chosen_listeners<'r, 'a>(groups: &[Vec<&'r Row<'a>>]) -> Vec<Vec<&'r Row<'a>>> {
    let rank = |rows: &Vec<&Row<'_>>| {
        let worst = rows.iter().map(|row| row.worst()).min();
        let sockets = rows.iter().flat_map(|row| &row.sockets);
        let widest = sockets.map(|(_, socket)| socket.socket.exposure.widest()).max();
        let failing = worst.filter(|state| *state <= State::Differs);
        (failing.is_none(), failing, std::cmp::Reverse(widest))
    };
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&place| rank(&groups[place]));
    order.truncate(MOST_LISTENERS);
    order.sort_unstable();
    order.into_iter().map(|place| groups[place].clone()).collect()
}

/// The interfaces of the picture, in their order: those with failing crossings, then those over which most arrives.
fn chosen_lanes(crossings: &Crossings<'_>, shown: &[Vec<&Row<'_>>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..crossings.lanes.len()).collect();
    let rank = |lane: usize| {
        let name = &crossings.lanes[lane].name;
        let cells = || {
            shown
                .iter()
                .flatten()
                .flat_map(|row| row.cells.iter().zip(&crossings.columns))
                .filter(move |(cell, column)| cell.over.contains(name) || column.lanes.contains(&lane))
        };
        let failing = cells().filter(|(cell, _)| cell.state() <= State::Missing).count();
        (std::cmp::Reverse(failing), std::cmp::Reverse(cells().filter(|(cell, _)| cell.accepted()).count()))
    };
    if order.len() > MOST_LANES {
        order.sort_by_cached_key(|&lane| rank(lane));
        order.truncate(MOST_LANES);
        order.sort_unstable();
    }
    order
}

fn left_out(
    crossings: &Crossings<'_>,
    groups: &[Vec<&Row<'_>>],
    listeners: usize,
    lanes: usize,
    sources: usize,
) -> Option<String> {
    if groups.is_empty() {
        return Some("The report has no listener.".to_owned());
    }
    let parts: Vec<String> = [
        (groups.len() - listeners + crossings.rows_left_out, "listener"),
        (crossings.lanes.len() - lanes, "interface"),
        (crossings.columns.len() - sources, "source"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, noun)| counted(count, noun))
    .collect();
    (!parts.is_empty()).then(|| format!("The picture leaves out {}; the table has all.", listed(&parts, 3)))
}

/// The outcome of a socket's bind: observed, else predicted.
pub(super) fn bind_outcome(socket: &SocketReport) -> BindOutcome {
    socket.bind.observed.as_ref().map_or(socket.bind.predicted.outcome, |seen| seen.outcome)
}

/// How the sockets of some rows stand.
pub(super) fn status(report: &Report, rows: &[&Row<'_>]) -> Status {
    let sockets: BTreeSet<usize> =
        rows.iter().flat_map(|row| &row.sockets).map(|(index, _)| *index).collect();
    let verdicts: Vec<Verdict> = report
        .expectations
        .iter()
        .filter(|one| one.sockets.iter().any(|index| sockets.contains(index)))
        .map(|one| one.verdict)
        .collect();
    let failing = verdicts.contains(&Verdict::Fail);
    let differs = rows.iter().any(|row| row.cells.iter().any(|cell| cell.differ > 0));
    let closed = !sockets.is_empty()
        && sockets.iter().all(|&index| bind_outcome(&report.sockets[index]) == BindOutcome::Error);
    match () {
        () if failing && rows.iter().any(|row| row.worst() <= State::Missing) => Status::Fails,
        () if differs => Status::Differs,
        () if failing && closed => Status::NotOpen,
        () if failing => Status::Fails,
        () if closed && verdicts.is_empty() => Status::NotOpen,
        () if verdicts.contains(&Verdict::Undecided) => Status::Undecided,
        () if verdicts.is_empty() => Status::None,
        () => Status::Holds,
    }
}

fn listener(report: &Report, crossings: &Crossings<'_>, rows: &[&Row<'_>]) -> PictureListener {
    let columns = || crossings.columns.iter().enumerate();
    let accepted = |column: usize| rows.iter().any(|row| row.cells[column].accepted());
    let mut bound: Vec<String> =
        rows.iter().flat_map(|row| &row.sockets).map(|(_, socket)| socket.socket.to_string()).collect();
    bound.dedup();
    let more = bound.len().saturating_sub(1);
    let bound = match bound.into_iter().next() {
        Some(first) if more > 0 => format!("{first} and {more} more"),
        Some(first) => first,
        None => rows
            .iter()
            .map(|row| format!("{} port {}", row.protocol, row.ports[0]))
            .next()
            .unwrap_or_default(),
    };
    PictureListener {
        name: rows.first().map(|row| row.name()).unwrap_or_default(),
        bound,
        status: status(report, rows),
        reached_by: columns()
            .filter(|(index, _)| accepted(*index))
            .map(|(_, one)| one.name.clone())
            .collect(),
        alarms: columns()
            .flat_map(|(index, column)| {
                let of_row = |row: &&Row<'_>| alarms(&row.cells[index], &column.name, &column.source);
                rows.iter().flat_map(of_row).collect::<Vec<_>>()
            })
            .collect(),
    }
}

/// Why a crossing is not as expected, in a sentence for each fact.
pub(super) fn alarms(cell: &Crossing<'_>, source: &str, from: &Source) -> Vec<String> {
    let mut sentences: BTreeSet<String> = BTreeSet::new();
    for one in &cell.forbidden {
        let to = printable(one.destination);
        sentences.insert(match (one.ingress, one.owner) {
            (Some(ingress), Some(owner)) if *from != Source::Host && ingress != owner => {
                format!("{source} reaches {to}, {owner}'s address, over {ingress}")
            }
            (Some(ingress), _) if *from != Source::Host => format!("{source} reaches {to} over {ingress}"),
            _ => format!("{source} reaches {to}"),
        });
    }
    for family in cell.missing_families() {
        let family = if family == 0 { "IPv4" } else { "IPv6" };
        sentences.insert(format!("{source} does not reach it over {family}"));
    }
    sentences.into_iter().collect()
}
