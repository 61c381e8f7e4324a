//! What packet filters leave of the exposure of each socket: the rules are asked about a client of every network that they tell apart, on
//! every interface.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Finding, Site};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::addr;
use crate::model::{
    AddrClass, Decider, Exposure, Family, FilterVerdict, FilteredExposure, IfName, ListeningSocket, Outcome,
    Protocol, ReachedFrom, Source,
};
use crate::plan::bind_check::Rights;
use crate::plan::exposure::network_exposure;
use crate::plan::filter::Filters;
use crate::plan::filter::sources::Compared;
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{Foreign, Holder, predict_binds};
use crate::plan::reach::{self, Destination, Matrix, Reach};

/// The most results that are evaluated.
const MOST_RESULTS: usize = 400_000;
/// How many networks and interfaces are named in one sentence.
const MOST_NAMED: usize = 6;

/// A result for a socket.
struct Row {
    interface: IfName,
    /// The network of the client that rules name; `None` for one that no rule names.
    network: Option<IpNet>,
    to: Destination,
    result: Result,
}

enum Result {
    /// The socket gets it; by this rule, where one decides alone.
    In(Option<Decider>),
    /// A filter keeps it out.
    Out(Option<Decider>),
    /// A translation sends it elsewhere.
    Elsewhere,
    Unknown,
}

/// Sets what packet filters leave of the exposure of every socket of a site, and adds what is remarkable about it. Indexes of
/// sockets start at `first`. Returns why it is not known.
pub(super) fn evaluate(site: &mut Site, first: usize, findings: &mut Vec<Finding>) -> Option<String> {
    let Some(filters) = &site.host.packet_filters else {
        return (!site.sockets.is_empty()).then(|| "packet filters were not read".to_owned());
    };
    if let Some(because) = &filters.unknown_because {
        return Some(format!("packet filters could not be read: {because}"));
    }
    let Some(ruleset) = &filters.ruleset else {
        return Some("the rules of packet filters are not in the snapshot".to_owned());
    };
    let decoded = match Filters::decode(ruleset) {
        Ok(decoded) => decoded,
        Err(error) => return Some(error.to_string()),
    };
    if decoded.is_empty() {
        for socket in &mut site.sockets {
            let exposure = socket.view.exposure;
            socket.exposure_filtered = Some(FilteredExposure {
                ipv4: Some(exposure.ipv4),
                ipv6: Some(exposure.ipv6),
                narrowed: Vec::new(),
            });
        }
        return None;
    }
    let prefixes = Compared::collect(&decoded).prefixes.len();
    let mut rows = match rows(site, prefixes) {
        Ok(rows) => rows,
        Err(because) => return Some(because),
    };
    let mut ports: BTreeMap<(u16, Protocol), Vec<usize>> = BTreeMap::new();
    for (place, socket) in site.sockets.iter_mut().enumerate() {
        let own = rows.remove(&place).unwrap_or_default();
        let (left, from) = of_socket(socket, &own);
        (socket.exposure_filtered, socket.reached_from) = (Some(left), Some(from));
        findings.extend(narrowed(socket, &own).map(|message| {
            Finding::new(Code::FILTER_NARROWS, Severity::Note, Some(first + place), message)
                .help("write `exposure = \"filtered\"` in a policy to require the filter")
        }));
        rows.insert(place, own);
        ports.entry((socket.view.port, socket.view.protocol)).or_default().push(place);
    }
    for places in ports.values() {
        findings.extend(differently(site, places, &rows, first));
    }
    None
}

/// The results for each socket that other hosts could reach without filters, and whether this host reaches it.
fn rows(site: &Site, prefixes: usize) -> std::result::Result<HashMap<usize, Vec<Row>>, String> {
    let exposed = |socket: &ListeningSocket, family| exposure(socket, family) > Exposure::Loopback;
    let foreign: Vec<Foreign> =
        site.sockets.iter().map(|socket| Foreign::of(socket, String::new())).collect();
    let local = LocalAddresses::new(&site.host);
    let destinations = reach::destinations(&site.host, &local);
    let outside = || {
        site.sockets.iter().filter(|socket| Family::BOTH.into_iter().any(|family| exposed(socket, family)))
    };
    let services: BTreeSet<(Protocol, u16)> =
        outside().map(|socket| (socket.view.protocol, socket.view.port)).collect();
    let services: Vec<(Protocol, u16)> = services.into_iter().collect();
    let mut wanted: BTreeSet<(usize, usize)> = BTreeSet::new();
    for socket in outside() {
        let bound = socket.view.address.to_canonical();
        let Ok(service) = services.binary_search(&(socket.view.protocol, socket.view.port)) else { continue };
        for (place, to) in destinations.iter().enumerate() {
            let address = to.address.to_canonical();
            let fits = bound.is_unspecified() || bound == address;
            if fits && !address.is_loopback() && exposed(socket, Family::of(address)) {
                wanted.insert((place, service));
            }
        }
    }
    let sources = reach::sources(&site.host);
    let size = wanted.len().saturating_mul(sources.len()).saturating_mul(2 + prefixes) / 2;
    if size > MOST_RESULTS {
        return Err(format!(
            "the packet filters would have to be asked about {size} connections; at most {MOST_RESULTS} are evaluated"
        ));
    }
    let rights = Rights { uid: 0, privileged_ports: false, transparent: false };
    let binds = predict_binds(&[], &site.host, rights, &foreign);
    let axes = Matrix { sources, destinations, services, cells: Vec::new() };
    let asked = |_: usize, to: usize, service: usize| wanted.contains(&(to, service));
    let Some((without, with)) =
        reach::predict_with_and_without_filters(&binds, &site.host, &local, axes, &asked)
    else {
        return Ok(HashMap::new());
    };
    // The sockets that clients of an interface reach without filters.
    let mut takers: HashMap<(&IfName, usize, usize), BTreeSet<usize>> = HashMap::new();
    for cell in without.cells.iter().filter(|cell| cell.predicted.outcome == Some(Outcome::Accepted)) {
        if let Some(interface) = interface(&without.sources[cell.source]) {
            let sockets = cell.predicted.takers.iter().map(|holder| place(*holder));
            takers.entry((interface, cell.destination, cell.service)).or_default().extend(sockets);
        }
    }
    let mut rows: HashMap<usize, Vec<Row>> = HashMap::new();
    for cell in &with.cells {
        let source = &with.sources[cell.source];
        let Some(interface) = interface(source) else { continue };
        for socket in takers.get(&(interface, cell.destination, cell.service)).into_iter().flatten() {
            let Some(result) = result(&cell.predicted, *socket) else { continue };
            let filtered = cell.predicted.filtered.as_deref();
            let network = filtered.and_then(|filtered| filtered.client_in);
            let to = with.destinations[cell.destination];
            let row = Row { interface: interface.clone(), network, to, result };
            rows.entry(*socket).or_default().push(row);
        }
    }
    Ok(rows)
}

fn place(holder: Holder) -> usize {
    match holder {
        Holder::Own(place) | Holder::Foreign(place) => place,
    }
}

fn interface(source: &Source) -> Option<&IfName> {
    match source {
        Source::Link(name) | Source::Beyond(name) | Source::From(name, _) => Some(name),
        Source::Host | Source::Node(_) => None,
    }
}

/// What becomes of a connection that this socket would get without filters; `None` where something else than a filter decides.
fn result(reach: &Reach, socket: usize) -> Option<Result> {
    let filtered = reach.filtered.as_deref();
    let decision = filtered.and_then(|filtered| filtered.decision.as_ref());
    let by = decision.map(|decision| decision.by.clone());
    if reach.outcome == Some(Outcome::Accepted) && reach.takers.iter().any(|holder| place(*holder) == socket)
    {
        return Some(Result::In(by.filter(|by| by.rule.is_some())));
    }
    if filtered.is_some_and(|filtered| filtered.translated.is_some()) {
        return Some(Result::Elsewhere);
    }
    match (reach.outcome, decision.map(|decision| decision.verdict)) {
        (None, _) => Some(Result::Unknown),
        (_, Some(FilterVerdict::Drop | FilterVerdict::Reject)) => Some(Result::Out(by)),
        _ => None,
    }
}

fn exposure(socket: &ListeningSocket, family: Family) -> Exposure {
    match family {
        Family::Ipv4 => socket.view.exposure.ipv4,
        Family::Ipv6 => socket.view.exposure.ipv6,
    }
}

/// The results of one family.
fn of_family(rows: &[Row], family: Family) -> impl Iterator<Item = &Row> + Clone {
    rows.iter().filter(move |row| Family::of(row.to.address.to_canonical()) == family)
}

/// The results of clients that no rule names; those of all where rules name every client.
fn of_others(rows: &[Row], family: Family) -> impl Iterator<Item = &Row> + Clone {
    let all_named = of_family(rows, family).all(|row| row.network.is_some());
    of_family(rows, family).filter(move |row| all_named || row.network.is_none())
}

/// What clients of one network get on one interface.
#[derive(Default)]
struct Entrance<'a> {
    by: Option<&'a Decider>,
    at: BTreeSet<IpAddr>,
    /// Whether they do not get in at every address.
    kept_out: bool,
}

fn of_socket(socket: &ListeningSocket, rows: &[Row]) -> (FilteredExposure, Arc<[ReachedFrom]>) {
    let mut left = FilteredExposure { ipv4: None, ipv6: None, narrowed: Vec::new() };
    let mut from: BTreeMap<(Family, &IfName, Option<IpNet>), Entrance<'_>> = BTreeMap::new();
    for family in Family::BOTH {
        let own = exposure(socket, family);
        let class = |row: &Row| {
            let at = Exposure::of(AddrClass::of(row.to.address.to_canonical()));
            own.min(at).min(row.network.map_or(Exposure::Global, network_exposure))
        };
        let widest = |unknown: bool| {
            let of_kind = of_family(rows, family).filter(|row| match row.result {
                Result::In(_) => !unknown,
                Result::Unknown => unknown,
                _ => false,
            });
            of_kind.map(class).max()
        };
        let mut others = of_others(rows, family);
        let value =
            if own <= Exposure::Loopback || others.clone().all(|row| matches!(row.result, Result::In(_))) {
                // Without a result, as for a group that interfaces have joined, nothing is known.
                (own <= Exposure::Loopback || others.clone().next().is_some()).then_some(own)
            } else {
                let found = widest(false).unwrap_or(Exposure::Loopback);
                Some(found).filter(|found| widest(true).is_none_or(|unknown| unknown <= *found))
            };
        match family {
            Family::Ipv4 => left.ipv4 = value,
            Family::Ipv6 => left.ipv6 = value,
        }
        if others.any(|row| matches!(row.result, Result::Out(_))) {
            left.narrowed.push(family);
        }
        for row in of_family(rows, family) {
            let entrance = from.entry((family, &row.interface, row.network)).or_default();
            match &row.result {
                Result::In(by) => {
                    entrance.by = entrance.by.or(by.as_ref());
                    entrance.at.insert(row.to.address.to_canonical());
                }
                _ => entrance.kept_out = true,
            }
        }
    }
    let open = from.into_iter().filter(|(_, entrance)| !entrance.at.is_empty());
    let from = open.map(|((family, interface, network), entrance)| ReachedFrom {
        family,
        interface: interface.clone(),
        network,
        destinations: entrance.kept_out.then(|| entrance.at.into_iter().collect()),
        by: entrance.by.cloned(),
    });
    (left, from.collect())
}

/// What packet filters leave of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// No other host.
    Nothing,
    /// Networks or interfaces, with the rule that lets them in.
    Only(String),
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Left::Nothing => f.write_str("no other host"),
            Left::Only(what) => write!(f, "only {what}"),
        }
    }
}

/// What packet filters leave in one family, as `only 10.0.0.0/8 (ip filter ufw-user-input rule 1)`; `None` where they keep out no
/// client that no rule names. Unescaped.
#[must_use]
pub fn left(socket: &ListeningSocket, family: Family) -> Option<Left> {
    let left = socket.exposure_filtered.as_ref()?;
    if !left.narrowed.contains(&family) {
        return None;
    }
    let from = socket.reached_from.as_deref().unwrap_or_default();
    let of_family = || from.iter().filter(|one| one.family == family);
    let mut rules: BTreeSet<String> = of_family().filter_map(|one| Some(one.by.as_ref()?.place())).collect();
    let mut named: Vec<String> = Vec::new();
    for one in of_family() {
        let anyone = || of_family().any(|other| other.network.is_none() && other.interface == one.interface);
        let mut name = match one.network {
            // Clients that no rule names get in there anyway.
            Some(_) if anyone() => continue,
            Some(network) => network.to_string(),
            None => format!("on {}", super::plain(&one.interface)),
        };
        if let Some(at) = &one.destinations {
            let at: Vec<String> = at.iter().map(|address| addr::text(*address, None)).collect();
            name.push_str(&format!(" at {}", at.join(" and ")));
        }
        if !named.contains(&name) {
            named.push(name);
        }
    }
    if named.is_empty() {
        return Some(Left::Nothing);
    }
    let more = named.len().saturating_sub(MOST_NAMED);
    named.truncate(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let rule = match (rules.pop_first(), rules.len()) {
        (None, _) => String::new(),
        (Some(rule), 0) => format!(" ({rule})"),
        (Some(rule), others) => format!(" ({rule} and {others} more)"),
    };
    Some(Left::Only(format!("{}{more}{rule}", named.join(", "))))
}

/// The message about a socket, with what filters leave of it, from which they keep clients away.
fn narrowed(socket: &ListeningSocket, rows: &[Row]) -> Option<String> {
    let mut parts: Vec<(String, Vec<Family>)> = Vec::new();
    for family in Family::BOTH {
        let out = || of_family(rows, family).filter(|row| matches!(row.result, Result::Out(_)));
        let rule = |row: &Row| match &row.result {
            Result::Out(Some(by)) => Some(by.place()),
            _ => None,
        };
        let what = match left(socket, family) {
            Some(nothing @ Left::Nothing) => {
                let by = of_others(rows, family).find_map(rule);
                let elsewhere = of_family(rows, family).any(|row| matches!(row.result, Result::Elsewhere));
                let elsewhere = if elsewhere { "; address translation sends clients elsewhere" } else { "" };
                format!("{nothing}{}{elsewhere}", by.map_or_else(String::new, |by| format!(" ({by})")))
            }
            Some(only) => only.to_string(),
            None => {
                let networks: BTreeSet<IpNet> = out().filter_map(|row| row.network).collect();
                let Some(first) = networks.first() else { continue };
                let more = match networks.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more networks"),
                };
                let by = out().find_map(rule).map_or_else(String::new, |by| format!(" ({by})"));
                format!("all except {first}{more}{by}")
            }
        };
        let what = format!("{}; filtered: {what}", exposure(socket, family).words());
        match parts.iter_mut().find(|(other, _)| *other == what) {
            Some((_, families)) => families.push(family),
            None => parts.push((what, vec![family])),
        }
    }
    let sentences = parts.into_iter().map(|(what, families)| {
        let families: Vec<String> = families.iter().map(ToString::to_string).collect();
        format!("{}: {what}", families.join(" and "))
    });
    let sentences: Vec<String> = sentences.collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// How far packet filters open a port in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    No,
    Partly,
    Yes,
}

impl Open {
    fn words(self) -> &'static str {
        match self {
            Open::No => "keep all other hosts out",
            Open::Partly => "let some clients in",
            Open::Yes => "let every client in",
        }
    }
}

/// A port that filters open in one family and not in the other.
fn differently(
    site: &Site,
    places: &[usize],
    rows: &HashMap<usize, Vec<Row>>,
    first: usize,
) -> Option<Finding> {
    let mut open: [Option<Open>; 2] = [None, None];
    for place in places {
        let (socket, rows) = (site.sockets.get(*place)?, rows.get(place)?);
        for (family, open) in Family::BOTH.into_iter().zip(&mut open) {
            let mut others = of_others(rows, family).peekable();
            if exposure(socket, family) <= Exposure::Loopback || others.peek().is_none() {
                continue;
            }
            if of_family(rows, family).any(|row| matches!(row.result, Result::Unknown)) {
                return None;
            }
            let found = if !others.clone().any(|row| matches!(row.result, Result::Out(_)))
                || others.any(|row| matches!(row.result, Result::Elsewhere))
            {
                Open::Yes
            } else if of_family(rows, family).any(|row| matches!(row.result, Result::In(_))) {
                Open::Partly
            } else {
                Open::No
            };
            *open = Some(open.map_or(found, |other| other.max(found)));
        }
    }
    let [Some(ipv4), Some(ipv6)] = open else { return None };
    if ipv4 == ipv6 {
        return None;
    }
    let place = *places.first()?;
    let view = &site.sockets.get(place)?.view;
    let message = format!(
        "packet filters {} over IPv4 and {} over IPv6 at {} port {}",
        ipv4.words(),
        ipv6.words(),
        view.protocol,
        view.port
    );
    let severity = if ipv4.max(ipv6) == Open::Yes { Severity::Warning } else { Severity::Note };
    let finding = Finding::new(Code::FILTERED_DIFFERENTLY, severity, Some(first + place), message);
    Some(
        finding.help(
            "write the rule for both families (a table of the family `inet`, or iptables and ip6tables)",
        ),
    )
}
