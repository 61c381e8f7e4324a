//! Reachability: every source, every destination address of this host, every port.
//!
//! The stages are: the path of the packet to the host's sockets (`paths`), the lookup among them ([`super::lookup`]),
//! and the path of the reply (`answer`). Packet filters, translation and programs attached to the kernel can change the
//! result, and are not part of this module.
//!
//! A source `link:<interface>` is a client with an ordinary address of a network on that interface, whose packets
//! arrive there. `link:<interface> beyond` is a client beyond the routers of that link. Whether a client has a route to
//! an address of another interface is not modelled.

mod answer;
mod barred;
mod decide;
mod filtered;
mod paths;
pub mod steps;
mod unanswered;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

pub use answer::{Answer, NamedAnswer};
pub use barred::{Barred, barred};
pub use filtered::Filtered;
use filtered::{Attempt, Rules, arrive};
pub(in crate::plan) use paths::ipv6_is_off;
use paths::{HostView, Path};
pub use unanswered::{Service, Unanswered, unanswered};

use super::fib::{Fact, TABLE_MAIN};
use super::local_table::{LocalAddresses, local_routes};
use super::lookup::{Packet, Preference, Winner};
use super::predict::{Binds, Holder};
use super::socket_table::{Local, Tables};
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{
    AddrClass, Family, Interface, LinkKind, Outcome, Protocol, Route, RouteKind, Snapshot, SocketSpec, Source,
};

/// Destination of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The address as it is given to `connect(2)`; a v4-mapped one is connected to by an AF_INET6 socket.
    pub address: IpAddr,
    /// The interface of a link-local address; 0 else.
    pub zone: u32,
}

/// What comes of a packet, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The outcome; `None` when it depends on what is not known.
    pub outcome: Option<Outcome>,
    /// Who takes it: one, or several that share it; none unless it is accepted.
    pub takers: Vec<Holder>,
    /// Index of the interface that the kernel will report; `None` unless it is accepted.
    pub ingress: Option<u32>,
    /// The rule that decided.
    pub why: Code,
    /// Where the answer goes, when its route decided.
    pub answer: Option<Answer>,
    /// What packet filters do to it; `None` where they do nothing, or there are none.
    pub filtered: Option<Arc<Filtered>>,
}

impl Reach {
    /// The result of a packet that no socket receives.
    #[must_use]
    pub fn without_socket(outcome: Outcome, why: Code, answer: Option<Answer>) -> Reach {
        Reach { outcome: Some(outcome), takers: Vec::new(), ingress: None, why, answer, filtered: None }
    }

    /// A result that is not known; `takers` may receive the packet.
    #[must_use]
    pub fn unknown(why: Code, takers: Vec<Holder>, answer: Option<Answer>) -> Reach {
        Reach { outcome: None, takers, ingress: None, why, answer, filtered: None }
    }

    /// The missing facts of a result that is not known, in words; `None` of one that is.
    #[must_use]
    pub fn unknown_because(&self) -> Option<String> {
        if self.outcome.is_some() {
            return None;
        }
        let filters = self.filtered.as_deref().map(|filtered| filtered.depends_on.join("; "));
        if let Some(filters) = filters.filter(|filters| !filters.is_empty()) {
            return Some(filters);
        }
        if let Some(missing) = self.answer.and_then(|answer| answer.missing) {
            return Some(answer::missing_words(missing).to_owned());
        }
        let words = match self.why {
            Code::NOT_RESOLVED => {
                "neighbours get no answer about the address, unless they know it from requests of this host or a proxy entry answers (ip neigh show proxy)"
            }
            Code::RP_FILTER => {
                "the kernel drops requests of the neighbour, which may know the address from requests of this host"
            }
            Code::ANSWER_DIVERTED => "the packet leaves this host, and another host may send it back",
            Code::ANSWER_UNKNOWN => "the path of the answer depends on which of several hosts receives it",
            Code::OTHER_VRF => "the packet leaves this host for an address in one of its VRFs",
            Code::FILTER_UNKNOWN => "the packet filters cannot be followed for this packet",
            _ if self.takers.is_empty() => "several hosts or interfaces may receive the packet",
            _ => "the options of a socket of another process decide, and are not known",
        };
        Some(words.to_owned())
    }
}

/// One question and its answer, by indices into [`Matrix`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Who connects.
    pub source: usize,
    /// The address that the client has bound, with its zone; `None` where the kernel chooses.
    pub source_address: Option<Destination>,
    /// Where to.
    pub destination: usize,
    /// Protocol and port.
    pub service: usize,
    /// What will come of it; the same for many, as a rule.
    pub predicted: Arc<Reach>,
}

/// Every source, destination and port, and what comes of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Who connects: the host itself first, then each interface.
    pub sources: Vec<Source>,
    /// Sorted by family and value.
    pub destinations: Vec<Destination>,
    /// Sorted.
    pub services: Vec<(Protocol, u16)>,
    /// In the order of sources, destinations, services.
    pub cells: Vec<Cell>,
}

/// Every destination address of this host, sorted: usable addresses of interfaces, and for each local route (AnyIP) its
/// first address.
#[must_use]
pub fn destinations(snapshot: &Snapshot, local: &LocalAddresses) -> Vec<Destination> {
    let mut found = BTreeSet::new();
    for (interface, address) in snapshot.addresses() {
        let link_local = address.address.is_ipv6() && address.class == AddrClass::Link;
        let zone = if link_local { interface.index } else { 0 };
        if local.owner(address.address, Some(interface.index)).is_some() {
            found.insert(Destination { address: address.address, zone });
        }
    }
    for (net, _) in local_routes(snapshot) {
        let first = match net {
            IpNet::V4(net) => IpAddr::V4(net.hosts().next().unwrap_or(net.addr())),
            IpNet::V6(net) => IpAddr::V6(first_host6(net)),
        };
        if !first.is_loopback() && local.owner(first, None).is_some() {
            found.insert(Destination { address: first, zone: 0 });
        }
    }
    found.into_iter().collect()
}

/// The addresses that sockets are bound to and that are this host's by a local route alone, where [`destinations`] asks for one of
/// the whole network.
pub fn bound_by_route(sockets: &[SocketSpec], local: &LocalAddresses) -> Vec<Destination> {
    let addresses = sockets.iter().map(|socket| socket.address.to_canonical());
    addresses
        .filter(|address| {
            !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_multicast()
                && !needs_zone(*address)
                && local.owner(*address, None).is_some()
        })
        .map(|address| Destination { address, zone: 0 })
        .collect()
}

/// The address after the subnet-router anycast one (RFC 4291, 2.6.1), where there is one.
fn first_host6(net: ipnet::Ipv6Net) -> Ipv6Addr {
    if net.prefix_len() < 127 { Ipv6Addr::from(u128::from(net.network()) | 1) } else { net.network() }
}

/// Who can connect: this host, clients on each link, and clients beyond the routers of each link. The latter are left out of a
/// matrix where their results are those of the clients on the link.
#[must_use]
pub fn sources(snapshot: &Snapshot) -> Vec<Source> {
    let links = wires(snapshot)
        .flat_map(|interface| [Source::Link(interface.name.clone()), Source::Beyond(interface.name.clone())]);
    std::iter::once(Source::Host).chain(links).collect()
}

/// Interfaces on which packets of others can arrive: those that are up. A port of a bridge or bond is no wire of its own, as its
/// packets arrive on the master, a VRF is none, as they arrive on what is in it, and nothing comes out of a dummy.
pub fn wires(snapshot: &Snapshot) -> impl Iterator<Item = &Interface> {
    let enslaved = move |interface: &Interface| {
        interface
            .master
            .and_then(|index| snapshot.interface(index))
            .is_some_and(|master| master.kind != Some(LinkKind::Vrf))
    };
    let has_none = |interface: &Interface| matches!(interface.kind, Some(LinkKind::Vrf | LinkKind::Dummy));
    let all = snapshot.interfaces.iter();
    all.filter(move |one| one.up && !one.loopback && !enslaved(one) && !has_none(one))
}

/// Protocols and ports of the sockets, sorted; port 0 is not known yet.
#[must_use]
pub fn services(sockets: &[SocketSpec]) -> Vec<(Protocol, u16)> {
    let all: BTreeSet<_> = sockets
        .iter()
        .filter(|socket| socket.port != 0)
        .map(|socket| (socket.protocol, socket.port))
        .collect();
    all.into_iter().collect()
}

/// What comes of every source, destination and service.
#[must_use]
pub fn predict_reach(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    sources: Vec<Source>,
    destinations: Vec<Destination>,
    services: Vec<(Protocol, u16)>,
) -> Matrix {
    let axes = Matrix { sources, destinations, services, cells: Vec::new() };
    predict_asked(binds, snapshot, local, axes, &|_, _, _| true)
}

/// As [`predict_reach`], with the cells alone that `asked` names by source, destination and service. `axes` has no cells yet.
#[must_use]
pub fn predict_asked(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    axes: Matrix,
    asked: &dyn Fn(usize, usize, usize) -> bool,
) -> Matrix {
    let complete = with_routes(snapshot);
    let host = HostView::new(&complete, local);
    predict(&host, binds, &Rules::of(snapshot, true), axes, asked)
}

/// The results without packet filters and with them; `None` where there are no rules.
#[must_use]
pub fn predict_with_and_without_filters(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    axes: Matrix,
    asked: &dyn Fn(usize, usize, usize) -> bool,
) -> Option<(Matrix, Matrix)> {
    let rules = Rules::of(snapshot, false);
    if rules.is_none() {
        return None;
    }
    let complete = with_routes(snapshot);
    let host = HostView::new(&complete, local);
    let without = predict(&host, binds, &Rules::None, axes.clone(), asked);
    Some((without, predict(&host, binds, &rules, axes, asked)))
}

fn predict(
    host: &HostView<'_>,
    binds: &Binds,
    rules: &Rules,
    mut axes: Matrix,
    asked: &dyn Fn(usize, usize, usize) -> bool,
) -> Matrix {
    let all = std::mem::take(&mut axes.sources);
    let used = binds.tables.entries.iter().map(|entry| (entry.protocol, entry.port)).collect();
    let mut rows = Rows { host, binds, rules, asked, used, matrix: axes };
    // Where the cells of the clients on the link that was asked about before are.
    let mut on_link = 0..0;
    for (number, from) in all.into_iter().enumerate() {
        let Source::Beyond(link) = &from else {
            on_link = rows.add(number, from, |from, to| host.path(from, to));
            continue;
        };
        let link = link.clone();
        let mut base = on_link.clone();
        if host.has_beyond(&link) {
            // Clients beyond the routers are left out where their results are those of the clients on the link.
            let beyond = rows.add(number, from, |from, to| host.path(from, to));
            if rows.keep_if_different(&on_link, &beyond) {
                base = beyond;
            }
        }
        for (network, client) in rules.clients(host, &link) {
            let from = Source::From(link.clone(), network);
            let compared = if client.beyond { base.clone() } else { on_link.clone() };
            let new = rows.add(number, from, |_, to| host.path_of_client(&link, client, to));
            rows.keep_if_different(&compared, &new);
        }
    }
    rows.matrix
}

/// The cells of a matrix while they are found, one source after the other.
struct Rows<'a> {
    host: &'a HostView<'a>,
    binds: &'a Binds,
    rules: &'a Rules,
    asked: &'a dyn Fn(usize, usize, usize) -> bool,
    used: BTreeSet<(Protocol, u16)>,
    matrix: Matrix,
}

impl Rows<'_> {
    /// Adds the cells of a source and returns their places. `number` is what `asked` knows the source by.
    fn add(
        &mut self,
        number: usize,
        from: Source,
        path: impl Fn(&Source, Destination) -> Option<Path>,
    ) -> Range<usize> {
        let Rows { host, binds, rules, asked, used, matrix } = self;
        let (source, begin) = (matrix.sources.len(), matrix.cells.len());
        for (destination, to) in matrix.destinations.iter().enumerate() {
            let Some(path) = path(&from, *to) else { continue };
            // Ports without any socket differ in nothing, unless policy rules or packet filters look at them.
            let selective = !rules.is_none() || host.fib.is_selective(Family::of(to.address.to_canonical()));
            let mut unused: [Option<Arc<Reach>>; 2] = [None, None];
            for (service, &(protocol, port)) in matrix.services.iter().enumerate() {
                if !asked(number, destination, service) {
                    continue;
                }
                let attempt = Attempt { source: &from, bound: None, to: to.address, path, protocol, port };
                let answer = || Arc::new(arrive(host, binds, rules, attempt));
                let predicted = if selective || used.contains(&(protocol, port)) {
                    answer()
                } else {
                    let same = &mut unused[usize::from(protocol == Protocol::Udp)];
                    Arc::clone(same.get_or_insert_with(answer))
                };
                matrix.cells.push(Cell { source, source_address: None, destination, service, predicted });
            }
        }
        matrix.sources.push(from);
        begin..matrix.cells.len()
    }

    /// Removes the source that was added last if its results are those of other clients, which may be asked about more.
    fn keep_if_different(&mut self, others: &Range<usize>, last: &Range<usize>) -> bool {
        let key = |cell: &Cell| (cell.destination, cell.service);
        let mut others = self.matrix.cells[others.clone()].iter();
        // Both are in the same order.
        let differs = self.matrix.cells[last.clone()].iter().any(|cell| {
            others.find(|other| key(other) == key(cell)).is_none_or(|other| {
                (other.predicted.outcome, &other.predicted.takers)
                    != (cell.predicted.outcome, &cell.predicted.takers)
            })
        });
        if !differs {
            self.matrix.cells.truncate(last.start);
            self.matrix.sources.pop();
        }
        differs
    }
}

/// Packets that are known to arrive at a host, whose answers are followed elsewhere: those of the nodes of a lab.
pub struct Arrivals<'a> {
    view: HostView<'a>,
}

impl<'a> Arrivals<'a> {
    /// At the host that `snapshot` is of; `local` is its addresses.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, local: &'a LocalAddresses) -> Arrivals<'a> {
        Arrivals { view: HostView::new(snapshot, local) }
    }

    /// The outcome of a packet that arrives on the interface with this index; `None` where there is none.
    #[must_use]
    pub fn reach(
        &self,
        binds: &Binds,
        interface: u32,
        to: Destination,
        (protocol, port): (Protocol, u16),
    ) -> Option<Reach> {
        let wire = self.view.by_index.get(&interface)?;
        let path = self.view.arriving(wire, to.address.to_canonical());
        Some(decide::arrive(&self.view, binds, path, (protocol, port), Fact::Known(0)))
    }
}

/// A snapshot with the routes that its addresses bring, where the system does not report routes.
fn with_routes(snapshot: &Snapshot) -> Cow<'_, Snapshot> {
    if snapshot.host.system == "linux" {
        return Cow::Borrowed(snapshot);
    }
    let implied = snapshot.addresses().filter_map(|(interface, address)| {
        let net = IpNet::new(address.peer.unwrap_or(address.address), address.prefix).ok()?.trunc();
        let there = snapshot.routes.iter().any(|route| {
            route.destination == net && route.interface == Some(interface.index) && route.table == TABLE_MAIN
        });
        (interface.up && !interface.loopback && !there).then(|| Route {
            interface: Some(interface.index),
            metric: address.address.is_ipv6().then_some(256),
            ..Route::new(TABLE_MAIN, RouteKind::Unicast, net)
        })
    });
    let implied: Vec<Route> = implied.collect();
    let mut complete = snapshot.clone();
    complete.routes.extend(implied);
    Cow::Owned(complete)
}

/// What comes of every destination and service of `matrix` when a client of this host binds another of its addresses first.
///
/// Asked of each address that can be bound without a device: of a loopback one towards loopback addresses only, of a link-local
/// IPv6 one towards its own zone only, and of none towards itself, which is what the kernel chooses anyway.
#[must_use]
pub fn predict_from_addresses(
    binds: &Binds,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    matrix: &Matrix,
) -> Vec<Cell> {
    let complete = with_routes(snapshot);
    let host = HostView::new(&complete, local);
    let rules = Rules::of(snapshot, true);
    let Some(source) = matrix.sources.iter().position(|source| *source == Source::Host) else {
        return Vec::new();
    };
    let mut from: BTreeMap<Destination, BTreeSet<u32>> = BTreeMap::new();
    for (interface, address) in snapshot.addresses() {
        let zone = if needs_zone(address.address) { interface.index } else { 0 };
        let owner = local.owner(address.address, Some(interface.index));
        if owner.is_some_and(|owner| host.vrf(owner) == 0) {
            from.entry(Destination { address: address.address, zone }).or_default().insert(interface.index);
        }
    }
    let mut cells = Vec::new();
    for (address, interfaces) in &from {
        for (destination, to) in matrix.destinations.iter().enumerate() {
            let Some(path) = host.path_from(*address, interfaces, *to) else { continue };
            for (service, &(protocol, port)) in matrix.services.iter().enumerate() {
                let (from, to) = (&Source::Host, to.address);
                let bound = Some(address.address);
                let attempt = Attempt { source: from, bound, to, path, protocol, port };
                let predicted = Arc::new(arrive(&host, binds, &rules, attempt));
                cells.push(Cell { source, source_address: Some(*address), destination, service, predicted });
            }
        }
    }
    cells
}
