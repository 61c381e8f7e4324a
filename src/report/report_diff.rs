//! Comparison of two reports: entries in only one, and entries that differ.
//!
//! Reports of every kind are compared in the same way. Each has lists of entries with a key (a socket, a result, an
//! expectation, a finding, an interface), and each entry has a short value. Times and counts are not compared.
//!
//! A question that only one report was asked is no difference: a probe asks more than a plan, a sweep of ports more than both. It
//! is one when the other was asked of every address, and does not have that one. A plan that leaves open what a probe observed,
//! and a probe that could not observe what was predicted, do not contradict each other.

mod experiment;

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::document;
use crate::escape::{escape, printable};
use crate::model::{IfName, Schema};

/// One difference. Names are escaped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// `socket`, `cell`, `expectation`, `finding`, `interface`; of experiments `effect` or `combination`.
    pub kind: String,
    /// Key of the entry.
    pub key: String,
    /// Value in the first report; null if missing.
    pub a: Option<String>,
    /// Value in the second report; null if missing.
    pub b: Option<String>,
    /// The question, for a `cell`; null for other kinds.
    #[serde(default)]
    pub cell: Option<ComparedCell>,
}

/// A result of two reports: the question and both answers. Names are as in the reports, unescaped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ComparedCell {
    /// The source.
    pub source: String,
    /// The address that the client has bound; null if the kernel chooses.
    pub source_address: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The destination address.
    pub destination: String,
    /// The port.
    pub port: u16,
    /// The first report's answer; null if missing.
    pub a: Option<Answer>,
    /// The second report's answer; null if missing.
    pub b: Option<Answer>,
}

/// The body of the document of `bindscope diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the first report.
    pub a: String,
    /// Name of the second report.
    pub b: String,
    /// Number of compared entries.
    pub compared: usize,
    /// Sorted by kind and key.
    pub differences: Vec<Difference>,
    /// Entries that only one report tested, sorted in the same way: not compared, and not differences.
    #[serde(default)]
    pub only_in_one: Vec<Difference>,
}

/// Whether two kinds of reports have the same lists: plans, probes and lab runs do.
#[must_use]
pub fn comparable(a: Schema, b: Schema) -> bool {
    let has_results = |kind| matches!(kind, Schema::Plan | Schema::Probe | Schema::Lab);
    a == b || has_results(a) && has_results(b)
}

/// Reads the report that is to be compared: its kind, and its lists.
///
/// # Errors
/// See [`ReadError`](document::ReadError).
pub fn read(bytes: &[u8]) -> Result<(Schema, Lists), document::ReadError> {
    let document = document::read::<Lists>(&document::COMPARABLE, bytes)?;
    let schema = document.schema;
    let mut lists = document.body.body;
    if schema != Schema::Interfaces {
        // Beside results, the interfaces only serve to show them.
        lists.interfaces.clear();
    }
    Ok((schema, lists))
}

/// What is compared of a document: its body.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Lists {
    #[serde(default)]
    requested: Option<Requested>,
    #[serde(default)]
    sockets: Vec<SocketRow>,
    #[serde(default)]
    cells: Vec<CellRow>,
    #[serde(default)]
    expectations: Vec<ExpectationRow>,
    #[serde(default)]
    findings: Vec<FindingRow>,
    #[serde(default)]
    interfaces: Vec<InterfaceRow>,
    #[serde(flatten)]
    experiment: experiment::Experiment,
}

#[derive(Debug, Clone, Deserialize)]
struct Requested {
    only: Option<Vec<String>>,
    more: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct SocketRow {
    socket: View,
    bind: Option<Answers>,
    owners: Option<Vec<OwnerRow>>,
}

#[derive(Debug, Clone, Deserialize)]
struct View {
    listener: Option<String>,
    protocol: String,
    address: String,
    port: u16,
    scope_id: Option<u32>,
    device: Option<String>,
    v6only: Option<bool>,
    exposure: Option<Exposures>,
}

#[derive(Debug, Clone, Deserialize)]
struct Exposures {
    ipv4: Option<String>,
    ipv6: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct OwnerRow {
    command: String,
}

/// What was predicted and what was observed.
#[derive(Debug, Clone, Deserialize)]
struct Answers {
    predicted: Option<Answer>,
    observed: Option<Answer>,
}

/// What a report says of a result or a bind: the observation, or else the prediction. Unescaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Answer {
    /// Outcome; null if it is not known.
    pub outcome: Option<String>,
    /// The errno.
    pub errno: Option<String>,
    /// The listener that accepts it.
    pub listener: Option<String>,
    /// The possible sockets if there is more than one.
    pub candidates: Option<Vec<String>>,
    /// The ingress interface.
    pub ingress: Option<String>,
    /// Code of the rule of the prediction.
    pub why: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct CellRow {
    source: String,
    source_address: Option<String>,
    protocol: String,
    destination: String,
    port: u16,
    predicted: Option<Answer>,
    observed: Option<Answer>,
}

impl CellRow {
    fn compared(&self, a: Option<&Entry<'_>>, b: Option<&Entry<'_>>) -> ComparedCell {
        // An observation has no rule of its own.
        let answer = |entry: &Entry<'_>| {
            let (answer, _) = entry.answer?;
            let predicted = entry.cell.and_then(|cell| cell.predicted.as_ref());
            let why = predicted.and_then(|predicted| predicted.why.clone());
            Some(Answer { why, ..answer.clone() })
        };
        ComparedCell {
            source: self.source.clone(),
            source_address: self.source_address.clone(),
            protocol: self.protocol.clone(),
            destination: self.destination.clone(),
            port: self.port,
            a: a.and_then(answer),
            b: b.and_then(answer),
        }
    }
}

/// What a report says of a thing whose outcome it leaves open.
static UNKNOWN: Answer =
    Answer { outcome: None, errno: None, listener: None, candidates: None, ingress: None, why: None };

#[derive(Debug, Clone, Deserialize)]
struct ExpectationRow {
    listener: String,
    rule: String,
    verdict: String,
}

#[derive(Debug, Clone, Deserialize)]
struct FindingRow {
    code: String,
    message: String,
    severity: String,
}

#[derive(Debug, Clone, Deserialize)]
struct InterfaceRow {
    name: String,
    up: bool,
    addresses: Vec<AddressRow>,
}

#[derive(Debug, Clone, Deserialize)]
struct AddressRow {
    address: String,
    prefix: u8,
}

/// Compares two documents. The names are shown.
#[must_use]
pub fn compare(a: (&str, &Lists), b: (&str, &Lists)) -> Comparison {
    let (left, right) = (entries(a.1), entries(b.1));
    let (of_left, of_right) = (Asked::of(a.1), Asked::of(b.1));
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let (mut differences, mut only_in_one) = (Vec::new(), Vec::new());
    for key in &keys {
        let (one, two) = (left.get(*key), right.get(*key));
        let asked = match (one, two) {
            (Some(one), Some(two)) if one.agrees(two) => continue,
            (Some(one), None) => one.cell.is_none_or(|cell| of_right.covers(cell, &of_left)),
            (None, Some(two)) => two.cell.is_none_or(|cell| of_left.covers(cell, &of_right)),
            _ => true,
        };
        let text = |entry: Option<&Entry<'_>>| entry.map(|entry| entry.text.clone());
        let cell = one.or(two).and_then(|entry| entry.cell).map(|cell| cell.compared(one, two));
        let found =
            Difference { kind: key.0.to_owned(), key: key.1.clone(), a: text(one), b: text(two), cell };
        if asked { &mut differences } else { &mut only_in_one }.push(found);
    }
    Comparison {
        a: a.0.to_owned(),
        b: b.0.to_owned(),
        compared: keys.len() - only_in_one.len(),
        differences,
        only_in_one,
    }
}

/// What a report tested.
struct Asked<'a> {
    /// Only these destinations, if not all of the host.
    only: bool,
    /// Destinations in addition to the host's addresses.
    more: BTreeSet<&'a str>,
    destinations: BTreeSet<&'a str>,
    /// Protocol, port, and `host`, `link` or `node`.
    services: BTreeSet<(&'a str, u16, &'a str)>,
    /// Whether clients bound addresses.
    from_addresses: bool,
    sources: BTreeSet<&'a str>,
}

/// Protocol, port and the kind of source of a cell.
fn service(cell: &CellRow) -> (&str, u16, &str) {
    (&cell.protocol, cell.port, cell.source.split(':').next().unwrap_or_default())
}

impl<'a> Asked<'a> {
    fn of(lists: &'a Lists) -> Asked<'a> {
        let requested = lists.requested.as_ref();
        Asked {
            only: requested.is_some_and(|requested| requested.only.is_some()),
            more: requested
                .and_then(|requested| requested.more.as_deref())
                .unwrap_or_default()
                .iter()
                .map(String::as_str)
                .collect(),
            destinations: lists.cells.iter().map(|cell| cell.destination.as_str()).collect(),
            services: lists.cells.iter().map(service).collect(),
            from_addresses: lists.cells.iter().any(|cell| cell.source_address.is_some()),
            sources: lists.cells.iter().map(|cell| cell.source.as_str()).collect(),
        }
    }

    /// Whether it was asked a question of `other`, or would have been if its host had the address or the interface.
    fn covers(&self, cell: &CellRow, other: &Asked<'_>) -> bool {
        let (to, from) = (cell.destination.as_str(), cell.source.as_str());
        let has_both = self.destinations.contains(to) && self.sources.contains(from);
        self.services.contains(&service(cell))
            && (self.from_addresses || cell.source_address.is_none())
            && (!has_both || cell.source_address.is_some())
            && !self.only
            && !other.more.contains(to)
    }
}

type Entries<'a> = BTreeMap<(&'static str, String), Entry<'a>>;

/// An entry of a report.
struct Entry<'a> {
    text: String,
    /// The question, when it is one.
    cell: Option<&'a CellRow>,
    /// What a report says of it, and whether that was observed; `None` for what is neither predicted nor observed.
    answer: Option<(&'a Answer, bool)>,
}

impl Entry<'_> {
    /// Whether two reports agree about an entry, as far as both have a value.
    fn agrees(&self, other: &Entry<'_>) -> bool {
        if self.text == other.text {
            return true;
        }
        let (predicted, observed) = match (self.answer, other.answer) {
            (Some((one, false)), Some((two, true))) => (one, two),
            (Some((two, true)), Some((one, false))) => (one, two),
            _ => return false,
        };
        if self.cell.is_none() {
            return predicted.outcome.as_deref() == Some("uncertain");
        }
        let is_candidate =
            |name: &String| predicted.candidates.as_ref().is_some_and(|candidates| candidates.contains(name));
        let listener =
            predicted.listener == observed.listener || observed.listener.as_ref().is_some_and(is_candidate);
        // Foreign servers and some systems do not report the ingress interface.
        let ingress = predicted.ingress == observed.ingress || observed.ingress.is_none();
        predicted.outcome.is_none() || predicted.outcome == observed.outcome && listener && ingress
    }
}

/// The things of a report by kind and key. Things that look alike (the sockets of a SO_REUSEPORT group) are numbered.
#[derive(Default)]
struct Numbered<'a> {
    entries: Entries<'a>,
    /// The last number of each key that was used more than once.
    last: HashMap<(&'static str, String), usize>,
}

impl<'a> Numbered<'a> {
    fn add(&mut self, kind: &'static str, key: String, entry: Entry<'a>) {
        if let btree_map::Entry::Vacant(free) = self.entries.entry((kind, key.clone())) {
            free.insert(entry);
            return;
        }
        let number = self.last.entry((kind, key.clone())).or_insert(1);
        loop {
            *number += 1;
            // A thing may be called so itself.
            if let btree_map::Entry::Vacant(free) = self.entries.entry((kind, format!("{key} #{number}"))) {
                free.insert(entry);
                return;
            }
        }
    }
}

fn entries(lists: &Lists) -> Entries<'_> {
    let mut numbered = Numbered::default();
    let plain = |text: String| Entry { text, cell: None, answer: None };
    for socket in &lists.sockets {
        let bind = socket.bind.as_ref();
        let answer = bind.and_then(|bind| answer(bind.predicted.as_ref(), bind.observed.as_ref()));
        let entry =
            Entry { text: socket_value(socket, answer.map(|(answer, _)| answer)), cell: None, answer };
        numbered.add("socket", socket_key(&socket.socket), entry);
    }
    for cell in &lists.cells {
        let mut source = printable(&cell.source);
        if let Some(address) = &cell.source_address {
            source = format!("{source} as {}", printable(address));
        }
        let (protocol, destination) = (printable(&cell.protocol), printable(&cell.destination));
        let answer = answer(cell.predicted.as_ref(), cell.observed.as_ref()).unwrap_or((&UNKNOWN, false));
        let key = format!("{source} to {protocol} {destination} port {}", cell.port);
        let entry = Entry { text: cell_value(answer.0), cell: Some(cell), answer: Some(answer) };
        numbered.add("cell", key, entry);
    }
    for expectation in &lists.expectations {
        let key = format!("{} {}", escape(&expectation.listener), escape(&expectation.rule));
        numbered.add("expectation", key, plain(escape(&expectation.verdict)));
    }
    for finding in &lists.findings {
        let key = format!("{} {}", escape(&finding.code), printable(&finding.message));
        numbered.add("finding", key, plain(escape(&finding.severity)));
    }
    for interface in &lists.interfaces {
        let address = |address: &AddressRow| format!("{}/{}", escape(&address.address), address.prefix);
        let addresses: Vec<String> = interface.addresses.iter().map(address).collect();
        let up = if interface.up { "up" } else { "down" };
        let value = format!("{up} {}", addresses.join(" ")).trim().to_owned();
        numbered.add("interface", if_name(&interface.name), plain(value));
    }
    for (kind, key, value) in lists.experiment.entries() {
        numbered.add(kind, key, plain(value));
    }
    numbered.entries
}

/// What was observed, else what is predicted.
fn answer<'a>(predicted: Option<&'a Answer>, observed: Option<&'a Answer>) -> Option<(&'a Answer, bool)> {
    observed.map(|observed| (observed, true)).or_else(|| predicted.map(|predicted| (predicted, false)))
}

/// The name of an interface, which a document has escaped where it is not text.
fn if_name(name: &str) -> String {
    IfName::from_escaped(name).to_string()
}

fn socket_key(view: &View) -> String {
    let mut key = format!("{} {} port {}", escape(&view.protocol), escape(&view.address), view.port);
    if let Some(scope) = view.scope_id {
        let _ = write!(key, " scope {scope}");
    }
    if let Some(device) = &view.device {
        let _ = write!(key, " device {}", if_name(device));
    }
    if view.v6only == Some(false) && view.address == "::" {
        key.push_str(" dual-stack");
    }
    key
}

fn socket_value(socket: &SocketRow, bind: Option<&Answer>) -> String {
    let view = &socket.socket;
    let mut words = vec![escape(view.listener.as_deref().unwrap_or_default())];
    match bind.map(|bind| (bind.outcome.as_deref(), bind.errno.as_deref())) {
        Some((Some("error"), Some(errno))) => words.push(escape(errno)),
        Some((Some(outcome), _)) => words.push(escape(outcome)),
        _ => {}
    }
    let exposure = view.exposure.as_ref();
    for (family, exposure) in [
        ("ipv4", exposure.and_then(|exposure| exposure.ipv4.as_deref())),
        ("ipv6", exposure.and_then(|exposure| exposure.ipv6.as_deref())),
    ] {
        if let Some(exposure) = exposure.filter(|exposure| !exposure.is_empty() && *exposure != "none") {
            words.push(format!("{family} {}", escape(exposure)));
        }
    }
    let owners = socket.owners.as_deref().unwrap_or_default();
    let mut commands: Vec<String> = owners.iter().map(|owner| escape(&owner.command)).collect();
    commands.sort_unstable();
    commands.dedup();
    words.extend(commands);
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

fn cell_value(answer: &Answer) -> String {
    let mut text = answer.outcome.as_deref().map_or_else(|| "unknown".to_owned(), escape);
    if let Some(listener) = &answer.listener {
        let _ = write!(text, " by {}", escape(listener));
    } else if let Some(candidates) = answer.candidates.as_ref().filter(|candidates| !candidates.is_empty()) {
        let candidates: Vec<String> = candidates.iter().map(|name| printable(name)).collect();
        let _ = write!(text, " by {}", candidates.join(" or "));
    }
    if let Some(ingress) = &answer.ingress {
        let _ = write!(text, " on {}", if_name(ingress));
    }
    text
}

#[cfg(test)]
mod tests;
