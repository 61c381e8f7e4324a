//! Routing tables, indexed by prefix: the longest one first, then what the kernel compares within it.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::{Decision, Flow, Found, MissingFact, RouteError, TABLE_LOCAL, side};
use crate::model::{Family, Route, RouteKind, RouterPreference, Rule, Snapshot};
use crate::plan::local_table::LocalAddresses;

/// A look-up in one table.
pub(super) struct Search<'s> {
    pub(super) flow: Flow,
    pub(super) local: &'s LocalAddresses,
    /// The table of the VRF that the packet belongs to; 0 outside of all.
    pub(super) vrf_table: u32,
}

/// The next hops of one route that the kernel can use now, through the interface that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Hops<'a> {
    all: &'a [Route],
    /// The first one that can be used.
    first: usize,
    oif: u32,
}

impl<'a> Hops<'a> {
    /// The first one.
    #[must_use]
    pub fn first(&self) -> &'a Route {
        &self.all[self.first]
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a Route> + use<'a> {
        let oif = self.oif;
        self.all.iter().filter(move |hop| is_usable(hop, oif))
    }
}

impl PartialEq for Hops<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Hops<'_> {}

fn is_usable(hop: &Route, oif: u32) -> bool {
    !hop.dead && (oif == 0 || hop.interface == Some(oif))
}

/// One route: its next hops stand one after the other in the snapshot.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    hops: &'a [Route],
    head: &'a Route,
}

#[derive(Debug, Default)]
struct Table<'a> {
    /// The lengths of the prefixes that are there, the longest first.
    lengths: Vec<u8>,
    routes: FxHashMap<(u8, u128), Vec<Entry<'a>>>,
}

/// The tables of a host, by number and family.
#[derive(Debug, Default)]
pub(super) struct Tables<'a> {
    tables: FxHashMap<(u32, usize), Table<'a>>,
    /// The VRF of a table, by number.
    vrfs: FxHashMap<u32, u32>,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The first `length` bits of an address.
fn masked(address: IpAddr, length: u8) -> u128 {
    let (value, bits) = (number(address), if address.is_ipv4() { 32 } else { 128u8 });
    let rest = u32::from(bits.saturating_sub(length));
    value.checked_shr(rest).and_then(|value| value.checked_shl(rest)).unwrap_or(0)
}

impl<'a> Tables<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Tables<'a> {
        let mut new = Tables::default();
        let vrfs = snapshot.interfaces.iter().filter_map(|vrf| Some((vrf.vrf_table?, vrf.index)));
        new.vrfs.extend(vrfs);
        let mut rest = snapshot.routes.as_slice();
        while let Some(head) = rest.first() {
            let count = 1 + rest.iter().skip(1).take_while(|other| is_hop_of(head, other)).count();
            let (hops, others) = rest.split_at(count);
            rest = others;
            let family = Family::of(head.destination.addr());
            let table = new.tables.entry((head.table, side(family))).or_default();
            let length = head.destination.prefix_len();
            let key = (length, number(head.destination.network()));
            table.routes.entry(key).or_default().push(Entry { hops, head });
        }
        for ((_, family), table) in &mut new.tables {
            for entries in table.routes.values_mut().filter(|entries| entries.len() > 1) {
                if *family == side(Family::Ipv4) {
                    entries.sort_by_key(|one| (Reverse(one.head.tos), one.head.metric.unwrap_or(0)));
                } else {
                    let from = |one: &Entry<'_>| one.head.from.map(|from| (from.prefix_len(), from));
                    entries.sort_by_key(|one| (Reverse(from(one)), one.head.metric.unwrap_or(0)));
                }
            }
            table.lengths = table.routes.keys().map(|(length, _)| *length).collect();
            table.lengths.sort_unstable_by_key(|length| Reverse(*length));
            table.lengths.dedup();
        }
        new
    }

    /// What a table says of a packet, with the length of the prefix; `None` where it has no route.
    pub(super) fn find(
        &self,
        search: &Search<'_>,
        table: u32,
        rule: Option<&'a Rule>,
    ) -> Option<(u8, Decision<'a>)> {
        let flow = &search.flow;
        let ipv4 = flow.to.is_ipv4();
        if let Some(interface) = self.own_address(search, table) {
            let prefix = if ipv4 { 32 } else { 128 };
            return Some((prefix, Decision::Local { table, interface, prefix }));
        }
        let routes = self.tables.get(&(table, usize::from(!ipv4)))?;
        let mut started = false;
        for &length in &routes.lengths {
            let Some(entries) = routes.routes.get(&(length, masked(flow.to, length))) else { continue };
            let found =
                if ipv4 { find4(entries, length, flow) } else { find6(entries, length, flow, &mut started) };
            if let Some(found) = found {
                return Some((length, decision(found, flow, table, length, rule)));
            }
        }
        None
    }

    /// The interface whose address the destination is, by the route that every address brings into a table.
    fn own_address(&self, search: &Search<'_>, table: u32) -> Option<u32> {
        let vrf = match table {
            TABLE_LOCAL => 0,
            table => *self.vrfs.get(&table)?,
        };
        let oif = search.flow.oif;
        match search.flow.to {
            IpAddr::V4(v4) => search.local.owners4(vrf, v4).find(|owner| oif == 0 || *owner == oif),
            IpAddr::V6(v6) => search.local.exact6(vrf, v6, if search.flow.strict { oif } else { 0 }),
        }
    }
}

/// Whether `other` is a further next hop of the route whose first one is `head`.
fn is_hop_of(head: &Route, other: &Route) -> bool {
    let key =
        |route: &Route| (route.table, route.destination, route.tos, route.from, route.metric, route.source);
    head.weight.is_some()
        && other.weight.is_some()
        && head.nexthop == other.nexthop
        && key(head) == key(other)
}

/// What was found: one entry, or several of which the kernel takes one by the state of neighbours.
enum Choice<'a> {
    One(Entry<'a>),
    Several,
}

/// `fib_table_lookup()` within one prefix, then `fib_select_default()`.
fn find4<'a>(entries: &[Entry<'a>], length: u8, flow: &Flow) -> Option<Choice<'a>> {
    let fits = |entry: &&Entry<'a>| {
        (entry.head.tos == 0 || entry.head.tos == flow.tos)
            && (!forwards(entry.head.kind) || entry.hops.iter().any(|hop| is_usable(hop, flow.oif)))
    };
    let mut all = entries.iter().filter(fits);
    let found = all.next()?;
    let alike = |other: &&Entry<'a>| {
        let key = |one: &Entry<'_>| (one.head.tos, one.head.metric.unwrap_or(0), one.head.kind);
        key(found) == key(other) && other.head.gateway.is_some()
    };
    let many = length == 0 && found.head.gateway.is_some() && all.any(|other| alike(&other));
    Some(if many { Choice::Several } else { Choice::One(*found) })
}

/// `rt6_select()` for each source prefix, the longest first, then for the routes without one. The lowest metric is asked alone
/// before the others.
///
/// A prefix that has routes for some sources hides those for all from a source that none of the former is for, unless the walk
/// began at a longer prefix (`fib6_node_lookup_1()` and `fib6_backtrack()` of `net/ipv6`); the default route is never hidden.
fn find6<'a>(entries: &[Entry<'a>], length: u8, flow: &Flow, started: &mut bool) -> Option<Choice<'a>> {
    let is_from = |from: Option<IpNet>| match (from, flow.from) {
        (None, _) => true,
        (Some(from), Some(source)) => from.contains(&source),
        (Some(from), None) => from.contains(&IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let divided = entries.iter().any(|entry| entry.head.from.is_some());
    let fits = entries.iter().any(|entry| entry.head.from.is_some() && is_from(entry.head.from));
    if !*started && divided && !fits && length != 0 {
        return None;
    }
    *started = true;
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|other| other.head.from == first.head.from).count();
        let (node, others) = rest.split_at(count);
        rest = others;
        if !is_from(first.head.from) {
            continue;
        }
        let lowest = node.iter().take_while(|one| one.head.metric == first.head.metric).count();
        let (lowest, higher) = node.split_at(lowest);
        if let Some(found) = best6(lowest, flow).or_else(|| best6(higher, flow)) {
            return Some(Choice::One(found));
        }
    }
    None
}

/// The first of those with the highest score (`rt6_score_route()`).
fn best6<'a>(entries: &[Entry<'a>], flow: &Flow) -> Option<Entry<'a>> {
    let mut best: Option<(u8, Entry<'a>)> = None;
    for entry in entries {
        let score = entry.hops.iter().filter(|hop| !hop.dead).filter_map(|hop| {
            let through = flow.oif == 0 || hop.interface == Some(flow.oif);
            let preference = match hop.preference {
                Some(RouterPreference::Low) => 1,
                None => 2,
                Some(RouterPreference::High) => 3,
            };
            (through || !flow.strict).then_some((u8::from(through) * 2) | (preference << 2))
        });
        if let Some(score) = score.max().filter(|score| best.is_none_or(|(highest, _)| *score > highest)) {
            best = Some((score, *entry));
        }
    }
    best.map(|(_, entry)| entry)
}

/// Whether a route has a next hop that must work.
fn forwards(kind: RouteKind) -> bool {
    !matches!(kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw)
}

fn decision<'a>(
    choice: Choice<'a>,
    flow: &Flow,
    table: u32,
    prefix: u8,
    rule: Option<&'a Rule>,
) -> Decision<'a> {
    let Choice::One(entry) = choice else {
        return Decision::Unknown { fact: MissingFact::NextHop, rule };
    };
    let route = entry.head;
    let refused = |error| Decision::Refused { error, rule, route: Some(route) };
    match route.kind {
        RouteKind::Local => Decision::Local { table, interface: route.interface.unwrap_or(0), prefix },
        RouteKind::Blackhole => refused(RouteError::Blackhole),
        RouteKind::Unreachable => refused(RouteError::Unreachable),
        RouteKind::Prohibit => refused(RouteError::Prohibited),
        RouteKind::Throw => refused(RouteError::NoRoute),
        RouteKind::Other => Decision::Unknown { fact: MissingFact::Routes, rule },
        RouteKind::Unicast | RouteKind::Broadcast | RouteKind::Anycast | RouteKind::Multicast => {
            // Among the next hops of one route IPv6 does not prefer an interface (`fib6_select_path()`).
            let oif = if flow.to.is_ipv4() || flow.strict { flow.oif } else { 0 };
            let first = entry.hops.iter().position(|hop| is_usable(hop, oif)).unwrap_or(0);
            Decision::Found(Found { rule, hops: Hops { all: entry.hops, first, oif } })
        }
    }
}
