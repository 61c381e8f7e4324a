//! The route look-up of the kernel as a pure function of a snapshot: policy rules, then tables, then routes.
//!
//! Sources: `fib_rules_lookup()` and `fib_rule_match()` of `net/core/fib_rules.c`, `fib4_rule_match()` and
//! `fib4_rule_suppress()` of `net/ipv4/fib_rules.c`, `fib6_rule_match()` of `net/ipv6/fib6_rules.c`, `fib_table_lookup()` of
//! `net/ipv4/fib_trie.c`, `fib6_table_lookup()` and `rt6_score_route()` of `net/ipv6/route.c`,
//! `ip_route_output_key_hash_rcu()` of `net/ipv4/route.c`.
//!
//! A fact that the snapshot does not have makes the result [`Decision::Unknown`] where it decides, never a guess.

mod tables;

use std::net::IpAddr;

use rustc_hash::FxHashMap;

pub use tables::Hops;
use tables::{Search, Tables};

use super::local_table::{LocalAddresses, TABLE_LOCAL};
use crate::model::addr::needs_zone;
use crate::model::{Family, IfName, Interface, Route, Rule, RuleAction, Snapshot};

/// Numbers of the tables `main` and `default` (`linux/rtnetlink.h`).
pub const TABLE_MAIN: u32 = 254;
const TABLE_DEFAULT: u32 = 253;

/// A value that a packet has, or that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact<T> {
    /// It is this.
    Known(T),
    /// It is not known.
    Unknown,
}

impl<T: Copy> Fact<T> {
    fn get(self) -> Option<T> {
        match self {
            Fact::Known(value) => Some(value),
            Fact::Unknown => None,
        }
    }
}

/// A packet as rules and routes look at it (`struct flowi`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Where it goes to; never a v4-mapped address.
    pub to: IpAddr,
    /// Where it comes from; `None` where the kernel still has to choose.
    pub from: Option<IpAddr>,
    /// The interface it arrived on; 0 for what this host sends.
    pub iif: u32,
    /// The interface that the sender asks for (SO_BINDTODEVICE, a zone); 0 for none.
    pub oif: u32,
    /// Whether no other interface will do (RT6_LOOKUP_F_IFACE): the socket is bound to it.
    pub strict: bool,
    /// The firewall mark.
    pub mark: Fact<u32>,
    /// The type of service.
    pub tos: u8,
    /// The IP protocol; 0 where the kernel does not look at it.
    pub protocol: u8,
    /// The source port; 0 likewise.
    pub source_port: Fact<u16>,
    /// The destination port; 0 likewise.
    pub destination_port: Fact<u16>,
    /// The user who owns the socket.
    pub user: Fact<u32>,
}

impl Flow {
    /// A packet that this host sends to `to`, of which nothing else is said.
    #[must_use]
    pub fn to(to: IpAddr) -> Flow {
        Flow {
            to: to.to_canonical(),
            from: None,
            iif: 0,
            oif: 0,
            strict: false,
            mark: Fact::Known(0),
            tos: 0,
            protocol: 0,
            source_port: Fact::Known(0),
            destination_port: Fact::Known(0),
            user: Fact::Known(0),
        }
    }
}

/// The error of a look-up that finds no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteError {
    /// ENETUNREACH: no route, or a rule `unreachable`.
    NoRoute,
    /// EHOSTUNREACH: a route `unreachable`.
    Unreachable,
    /// EACCES: a route or a rule `prohibit`.
    Prohibited,
    /// EINVAL: a route or a rule `blackhole`.
    Blackhole,
    /// ENODEV or ENETUNREACH: the interface that the sender asks for is not there or is down.
    NoDevice,
}

/// Why a result is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingFact {
    /// A rule has a condition or action that this program does not know.
    Rule,
    /// The port of the client, which a rule looks at.
    ClientPort,
    /// The firewall mark.
    Mark,
    /// The user who owns the socket.
    User,
    /// Which of several next hops the kernel takes.
    NextHop,
    /// The routes of the host: the system does not report them.
    Routes,
    /// Whether the kernel looks at the IPv6 rules, of which a default one was deleted.
    DeletedRule,
}

/// The outcome of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// The destination is this host's own: by the table with this number.
    Local {
        /// The table.
        table: u32,
        /// The interface that owns it; 0 when the route has none.
        interface: u32,
        /// The length of the prefix that matched.
        prefix: u8,
    },
    /// A route.
    Found(Found<'a>),
    /// The destination counts as on the link of the interface that the sender asks for, without any route (IPv4 only).
    OnLink(u32),
    /// No way.
    Refused {
        /// The error.
        error: RouteError,
        /// The rule that led there; `None` for the rules that every Linux has.
        rule: Option<&'a Rule>,
        /// The route that refuses; `None` when a rule does, or nothing was found.
        route: Option<&'a Route>,
    },
    /// It depends on what is not known.
    Unknown {
        /// What is missing.
        fact: MissingFact,
        /// The rule that asks for it.
        rule: Option<&'a Rule>,
    },
}

/// A route that a look-up found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The rule that led there; `None` for the rules that every Linux has.
    pub rule: Option<&'a Rule>,
    /// Its next hops, of which packets take one; all of one route.
    pub hops: Hops<'a>,
}

impl<'a> Found<'a> {
    /// The first next hop, which stands for the route where there is one only.
    #[must_use]
    pub fn route(&self) -> &'a Route {
        self.hops.first()
    }
}

/// A rule as the look-up asks it: one of the host's, or one of those that every Linux has.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Standard(u32),
    Own(&'a Rule, Resolved),
}

/// Names of a rule as indices; 0 for none, `u32::MAX` for an interface that does not exist.
#[derive(Debug, Clone, Copy)]
struct Resolved {
    iif: u32,
    oif: u32,
}

/// A host's rules and routes, indexed for look-ups.
#[derive(Debug)]
pub struct Fib<'a> {
    interfaces: FxHashMap<u32, Device>,
    steps: [Vec<Step<'a>>; 2],
    tables: Tables<'a>,
    /// Whether the rules of a family are those that every Linux has.
    standard: [bool; 2],
    /// Whether a rule looks at ports, protocol or user, so that results differ between sockets.
    by_socket: [bool; 2],
    /// Whether a rule looks at the mark.
    by_mark: [bool; 2],
    /// Whether the table `local` is asked first, without conditions.
    local_first: [bool; 2],
}

/// What of an interface decides.
#[derive(Debug, Clone, Copy)]
struct Device {
    vrf: u32,
    vrf_table: u32,
    group: u32,
    up: bool,
    is_vrf: bool,
}

fn side(family: Family) -> usize {
    usize::from(family == Family::Ipv6)
}

impl<'a> Fib<'a> {
    /// Indexes the rules and routes of `snapshot`.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Fib<'a> {
        let device = |interface: &'a Interface| {
            let vrf = snapshot.vrf_of(interface);
            let master = if vrf == 0 { None } else { snapshot.interface(vrf) };
            Device {
                vrf,
                vrf_table: master.and_then(|master| master.vrf_table).unwrap_or(0),
                group: interface.group,
                up: interface.up,
                is_vrf: vrf == interface.index,
            }
        };
        let interfaces = snapshot.interfaces.iter().map(|one| (one.index, device(one))).collect();
        let steps = Family::BOTH.map(|family| steps(snapshot, family));
        let is_own = |step: &Step<'_>| matches!(step, Step::Own(..));
        let missing = |family| snapshot.missing_default_rules.iter().any(|rule| rule.family == family);
        let of = |family: Family| steps[side(family)].as_slice();
        Fib {
            standard: Family::BOTH.map(|family| !of(family).iter().any(is_own) && !missing(family)),
            by_socket: Family::BOTH.map(|family| {
                of(family).iter().any(|step| match step {
                    Step::Standard(_) => false,
                    Step::Own(rule, _) => looks_at_sockets(rule),
                })
            }),
            by_mark: Family::BOTH.map(|family| {
                of(family)
                    .iter()
                    .any(|step| matches!(step, Step::Own(rule, _) if rule.fwmark.or(rule.fwmask).is_some()))
            }),
            local_first: Family::BOTH
                .map(|family| matches!(of(family).first(), Some(Step::Standard(TABLE_LOCAL)))),
            tables: Tables::new(snapshot),
            interfaces,
            steps,
        }
    }

    /// Whether results depend on ports, protocol, user or mark of a packet.
    #[must_use]
    pub fn is_selective(&self, family: Family) -> bool {
        self.depends_on_sockets(family) || self.routes_by_mark(family)
    }

    /// Whether results depend on ports, protocol or user.
    #[must_use]
    pub fn depends_on_sockets(&self, family: Family) -> bool {
        self.by_socket[side(family)]
    }

    /// Whether results depend on the firewall mark of a packet.
    #[must_use]
    pub fn routes_by_mark(&self, family: Family) -> bool {
        self.by_mark[side(family)]
    }

    /// Whether IPv4 has other rules than those that every Linux has (`fib_has_custom_rules`).
    #[must_use]
    pub fn is_customised(&self) -> bool {
        !self.standard[0]
    }

    /// Whether the table `local` is asked before any other.
    #[must_use]
    pub fn asks_local_first(&self, family: Family) -> bool {
        self.local_first[side(family)]
    }

    /// The route of a packet that this host sends (`ip_route_output_key_hash_rcu()`, `ip6_route_output_flags()`).
    #[must_use]
    pub fn output(&self, local: &LocalAddresses, flow: &Flow) -> Decision<'a> {
        let family = Family::of(flow.to);
        if flow.oif != 0 && !self.interfaces.get(&flow.oif).is_some_and(|device| device.up) {
            return Decision::Refused { error: RouteError::NoDevice, rule: None, route: None };
        }
        let mut flow = *flow;
        // `ip6_route_output_flags()`
        flow.strict &= flow.oif != 0;
        if family == Family::Ipv6 && flow.oif != 0 {
            flow.strict |= needs_zone(flow.to) || flow.to.is_loopback() || flow.from.is_none();
        }
        match self.look_up(local, &flow) {
            // "Apparently, routing tables are wrong. Assume, that the destination is on link."
            Decision::Refused { .. }
                if family == Family::Ipv4 && flow.oif != 0 && self.vrf(flow.oif) == 0 =>
            {
                Decision::OnLink(flow.oif)
            }
            decision => decision,
        }
    }

    fn vrf(&self, interface: u32) -> u32 {
        self.interfaces.get(&interface).map_or(0, |device| device.vrf)
    }

    /// The rules and tables alone (`fib_lookup()`, `fib6_rule_lookup()`).
    #[must_use]
    pub fn look_up(&self, local: &LocalAddresses, flow: &Flow) -> Decision<'a> {
        let family = Family::of(flow.to);
        // `l3mdev_update_flow()`: an interface in a VRF leads into its table; a VRF itself is no condition on the next hop.
        let through = if flow.oif != 0 { flow.oif } else { flow.iif };
        let vrf_table = self.interfaces.get(&through).map_or(0, |device| device.vrf_table);
        let mut search = Search { flow: *flow, local, vrf_table };
        if self.interfaces.get(&flow.oif).is_some_and(|device| device.is_vrf) {
            search.flow.oif = 0;
        }
        if family == Family::Ipv4 && self.standard[0] {
            return self.merged(&search);
        }
        let steps = self.steps[side(family)].as_slice();
        let found = self.walk(steps, 0, &search, 0);
        // The kernel looks at IPv6 rules only after a rule was added once (`fib6_has_custom_rules`); a deleted rule does not count.
        let ignored = family == Family::Ipv6 && !steps.iter().any(|step| matches!(step, Step::Own(..)));
        if ignored && !self.standard[side(family)] {
            let all = [Step::Standard(TABLE_LOCAL), Step::Standard(TABLE_MAIN)];
            if !same_effect(&found, &self.walk(&all, 0, &search, 0)) {
                return Decision::Unknown { fact: MissingFact::DeletedRule, rule: None };
            }
        }
        found
    }

    /// IPv4 without rules of its own: `local` and `main` are one trie, so the longest prefix of both wins (`fib_trie_unmerge()`).
    fn merged(&self, search: &Search<'_>) -> Decision<'a> {
        let own = self.tables.find(search, TABLE_LOCAL, None);
        let main = self.tables.find(search, TABLE_MAIN, None);
        let length = |found: &Option<(u8, Decision<'a>)>| found.as_ref().map(|(length, _)| *length);
        let best = if length(&own) >= length(&main) { own } else { main };
        let found = best.map(|(_, decision)| decision).filter(|decision| !is_throw(decision));
        let found = found.or_else(|| self.tables.find(search, TABLE_DEFAULT, None).map(|(_, found)| found));
        found.filter(|decision| !is_throw(decision)).unwrap_or(NOTHING)
    }

    /// Asks the rules from `start` on.
    fn walk(&self, steps: &[Step<'a>], start: usize, search: &Search<'_>, jumps: usize) -> Decision<'a> {
        let mut next = start;
        while let Some(step) = steps.get(next) {
            next += 1;
            let (rule, matches) = match step {
                Step::Standard(table) => {
                    match self.tables.find(search, *table, None).map(|(_, found)| found) {
                        Some(found) if !is_throw(&found) => return found,
                        _ => continue,
                    }
                }
                Step::Own(rule, names) => (*rule, self.matches(rule, *names, search)),
            };
            match matches {
                Ok(false) => {}
                Ok(true) if rule.action == RuleAction::Goto => {
                    let target = rule.goto.and_then(|priority| position(steps, next, priority));
                    // The kernel only jumps forwards.
                    next = target.unwrap_or(next);
                }
                Ok(true) => {
                    if let Some(decision) = self.act(rule, search) {
                        return decision;
                    }
                }
                Err(fact) => {
                    let unknown = Decision::Unknown { fact, rule: Some(rule) };
                    if rule.action == RuleAction::Goto
                        || rule.action == RuleAction::Other
                        || jumps > steps.len()
                    {
                        return unknown;
                    }
                    // What is not known decides only if the rest would decide otherwise.
                    let rest = self.walk(steps, next, search, jumps + 1);
                    return match self.act(rule, search) {
                        Some(decision) if !same_effect(&decision, &rest) => unknown,
                        _ => rest,
                    };
                }
            }
        }
        NOTHING
    }

    /// What a rule that matches does; `None` where the next rule is asked.
    fn act(&self, rule: &'a Rule, search: &Search<'_>) -> Option<Decision<'a>> {
        let refused = |error| Some(Decision::Refused { error, rule: Some(rule), route: None });
        match rule.action {
            // A jump is followed where the rules are walked.
            RuleAction::Nop | RuleAction::Goto => None,
            RuleAction::Unreachable => refused(RouteError::NoRoute),
            RuleAction::Prohibit => refused(RouteError::Prohibited),
            RuleAction::Blackhole => refused(RouteError::Blackhole),
            RuleAction::Lookup | RuleAction::L3mdev => {
                let of_vrf = rule.action == RuleAction::L3mdev;
                let table = if of_vrf { search.vrf_table } else { rule.table.unwrap_or(0) };
                let (length, found) = self.tables.find(search, table, Some(rule))?;
                let suppressed = || {
                    let interface = match &found {
                        Decision::Local { interface, .. } => Some(*interface),
                        Decision::Found(found) => found.route().interface,
                        _ => return false,
                    };
                    let group = interface.and_then(|one| self.interfaces.get(&one)).map(|one| one.group);
                    rule.suppress_prefix.is_some_and(|most| u32::from(length) <= most)
                        || (rule.suppress_group.is_some() && rule.suppress_group == group)
                };
                (!is_throw(&found) && !suppressed()).then_some(found)
            }
            RuleAction::Other => Some(Decision::Unknown { fact: MissingFact::Rule, rule: Some(rule) }),
        }
    }

    /// Whether a rule is for a packet.
    ///
    /// # Errors
    /// The fact that decides and is not known.
    fn matches(&self, rule: &Rule, names: Resolved, search: &Search<'_>) -> Result<bool, MissingFact> {
        let flow = &search.flow;
        // What this host sends counts as arrived on `lo` (LOOPBACK_IFINDEX).
        let iif = if flow.iif == 0 { LOOPBACK_INDEX } else { flow.iif };
        let inside = |net: Option<ipnet::IpNet>, address: Option<IpAddr>| match (net, address) {
            (None, _) => true,
            (Some(net), None) => {
                net.prefix_len() == 0 || net.contains(&Family::of(flow.to).wildcard()) && flow.to.is_ipv4()
            }
            (Some(net), Some(address)) => net.contains(&address),
        };
        let through = |wanted: u32, is: u32| wanted == 0 || wanted == is || self.is_vrf_of(wanted, is);
        let mut known = through(names.iif, iif)
            && through(names.oif, flow.oif)
            && inside(rule.from, flow.from)
            && inside(rule.to, Some(flow.to))
            && rule.tos.is_none_or(|tos| tos == flow.tos)
            && rule.dscp.is_none_or(|dscp| dscp == flow.tos >> 2)
            && rule.ip_protocol.is_none_or(|protocol| protocol == flow.protocol);
        known &= rule.action != RuleAction::L3mdev || search.vrf_table != 0;
        let mut missing = (rule.action == RuleAction::Other).then_some(MissingFact::Rule);
        let mut check = |is: Option<bool>, fact: MissingFact| match is {
            Some(is) => known &= is,
            None => missing = missing.or(Some(fact)),
        };
        let mask = rule.fwmask.unwrap_or(if rule.fwmark.is_some() { u32::MAX } else { 0 });
        if mask != 0 {
            let mark = rule.fwmark.unwrap_or(0);
            check(flow.mark.get().map(|is| (is ^ mark) & mask == 0), MissingFact::Mark);
        }
        if let Some((first, last)) = rule.users {
            check(flow.user.get().map(|user| (first..=last).contains(&user)), MissingFact::User);
        }
        for (range, port) in
            [(rule.source_ports, flow.source_port), (rule.destination_ports, flow.destination_port)]
        {
            if let Some((first, last)) = range {
                check(port.get().map(|port| (first..=last).contains(&port)), MissingFact::ClientPort);
            }
        }
        match missing {
            _ if !known => Ok(rule.inverted),
            None => Ok(!rule.inverted),
            Some(fact) => Err(fact),
        }
    }

    /// Whether `vrf` is a VRF that the interface belongs to.
    fn is_vrf_of(&self, vrf: u32, interface: u32) -> bool {
        let of = self.vrf(interface);
        of != 0 && of == vrf
    }
}

const LOOPBACK_INDEX: u32 = 1;
const NOTHING: Decision<'static> = Decision::Refused { error: RouteError::NoRoute, rule: None, route: None };

fn is_throw(decision: &Decision<'_>) -> bool {
    matches!(decision, Decision::Refused { route: Some(route), .. }
        if route.kind == crate::model::RouteKind::Throw)
}

/// Whether two decisions send a packet to the same place, whichever rule led there.
fn same_effect(a: &Decision<'_>, b: &Decision<'_>) -> bool {
    match (a, b) {
        (Decision::Found(a), Decision::Found(b)) => a.hops == b.hops,
        (Decision::Refused { error: a, .. }, Decision::Refused { error: b, .. }) => a == b,
        _ => a == b,
    }
}

fn looks_at_sockets(rule: &Rule) -> bool {
    rule.users.is_some()
        || rule.ip_protocol.is_some()
        || rule.source_ports.is_some()
        || rule.destination_ports.is_some()
        || rule.action == RuleAction::Other
}

/// The rules of a family in the order in which the kernel asks them. Rules with the priority of one that every Linux has come after
/// it, as they were added later.
fn steps(snapshot: &Snapshot, family: Family) -> Vec<Step<'_>> {
    let index = |name: &Option<IfName>| match name {
        None => 0,
        Some(name) => snapshot.interface_named(name).map_or(u32::MAX, |interface| interface.index),
    };
    let standard = [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)];
    let missing = |priority: u32| {
        let all = &mut snapshot.missing_default_rules.iter();
        all.any(|rule| rule.family == family && rule.priority == priority)
    };
    let mut steps: Vec<(u32, Step<'_>)> = standard
        .into_iter()
        .filter(|&(priority, table)| !missing(priority) && (family == Family::Ipv4 || table != TABLE_DEFAULT))
        .map(|(priority, table)| (priority, Step::Standard(table)))
        .collect();
    let own = snapshot.rules.iter().filter(|rule| rule.family == family);
    steps.extend(own.map(|rule| {
        let names = Resolved { iif: index(&rule.iif), oif: index(&rule.oif) };
        (rule.priority, Step::Own(rule, names))
    }));
    steps.sort_by_key(|(priority, _)| *priority);
    steps.into_iter().map(|(_, step)| step).collect()
}

/// The first rule with this priority, from `start` on.
fn position(steps: &[Step<'_>], start: usize, priority: u32) -> Option<usize> {
    let of = |step: &Step<'_>| match step {
        Step::Standard(TABLE_LOCAL) => 0,
        Step::Standard(TABLE_MAIN) => 32766,
        Step::Standard(_) => 32767,
        Step::Own(rule, _) => rule.priority,
    };
    steps.iter().skip(start).position(|step| of(step) == priority).map(|place| place + start)
}
