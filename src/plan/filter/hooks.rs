//! What runs at each hook of a packet's path, in order.

use super::decode::{Chain, NotInterpreted, Scope, Table};
use super::expression::{Budget, Expression, Verdict};
use super::xt::{Match, Target};
use crate::model::Family;
use crate::model::ruleset::{HookEntry, NftFamily};

/// Hooks of IPv4 and IPv6 (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Every packet that arrives, before it is routed.
    Prerouting,
    /// Packets for this host.
    Input,
    /// Packets for others.
    Forward,
    /// Packets of this host.
    Output,
    /// Every packet that leaves.
    Postrouting,
}

impl Hook {
    const ALL: [Hook; 5] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }

    fn index(self) -> usize {
        self as usize
    }

    /// The priority at which connections are translated here, where they are.
    fn translates(self) -> Option<i32> {
        match self {
            Hook::Prerouting | Hook::Output => Some(-100),
            Hook::Input | Hook::Postrouting => Some(100),
            Hook::Forward => None,
        }
    }

    /// Whether packets are assigned to connections here, at priority -200.
    fn tracks(self) -> bool {
        matches!(self, Hook::Prerouting | Hook::Output)
    }
}

/// The priority at which packets are assigned to connections (`NF_IP_PRI_CONNTRACK`).
const TRACK: i32 = -200;
/// The hook of a device in a table of the family `inet` (`NF_INET_INGRESS`).
const INGRESS: u32 = 5;

/// One step of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A base chain.
    Chain(usize),
    /// The packet is assigned to its connection.
    Track,
    /// The connection is translated: these chains in this order until one translates.
    Translate(Vec<usize>),
}

/// The steps of a hook, and the runs of them whose order the dump does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// The steps in their most likely order.
    pub steps: Vec<Step>,
    /// Ranges of steps that may as well run in the opposite order, and where that makes a difference.
    pub doubtful: Vec<std::ops::Range<usize>>,
}

/// The steps of every hook of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    of: [[Steps; 5]; 2],
    translating: [bool; 2],
}

/// A step while the order is found.
struct Candidate {
    priority: i32,
    /// The later registered runs first.
    registered: usize,
    table: usize,
    /// Whether it does more than accept or drop.
    acts: bool,
    step: Step,
}

impl Hooks {
    /// Finds the order. `order` is that of the kernel, where it reports one; the tables from `nftables` on are those of legacy iptables,
    /// which it does not report.
    #[must_use]
    pub fn new(tables: &[Table], chains: &[Chain], nftables: usize, order: Option<&[HookEntry]>) -> Hooks {
        let mut hooks = Hooks::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            let side = side(family);
            let of_family = |chain: &Chain| {
                let table = &tables[chain.table];
                !table.dormant && (table.family == NftFamily::Inet || table.family == own(family))
            };
            let translates = |chain: &Chain| chain.base.as_ref().is_some_and(|base| base.kind == "nat");
            let nat: Vec<usize> = (0..chains.len())
                .filter(|index| of_family(&chains[*index]) && translates(&chains[*index]))
                .collect();
            let tracked = is_tracked(tables, chains, family);
            hooks.translating[side] = !nat.is_empty() && tracked;
            for hook in Hook::ALL {
                let here =
                    |index: &usize| chains[*index].base.as_ref().is_some_and(|base| base.hook == hook as u32);
                let mut all = Vec::new();
                for index in (0..chains.len()).filter(here).filter(|index| of_family(&chains[*index])) {
                    if let Some(base) = chains[index].base.as_ref().filter(|base| base.kind != "nat") {
                        all.push(Candidate {
                            priority: base.priority,
                            registered: position(
                                order,
                                &tables[chains[index].table],
                                &chains[index],
                                family,
                                hook,
                            )
                            .unwrap_or(index),
                            table: chains[index].table,
                            acts: acts(tables, chains, index),
                            step: Step::Chain(index),
                        });
                    }
                }
                if hook.tracks() && tracked {
                    let step = Step::Track;
                    all.push(Candidate {
                        priority: TRACK,
                        registered: usize::MAX,
                        table: usize::MAX,
                        acts: true,
                        step,
                    });
                }
                if let (Some(priority), Some(first)) = (hook.translates(), nat.first()) {
                    let mut ordered: Vec<usize> = nat.iter().copied().filter(|index| here(index)).collect();
                    let key = |index: &usize| chains[*index].base.as_ref().map_or(0, |base| base.priority);
                    ordered.sort_by_key(|index| (key(index), std::cmp::Reverse(*index)));
                    let table = chains[*first].table;
                    let step = Step::Translate(ordered);
                    all.push(Candidate { priority, registered: *first, table, acts: true, step });
                }
                all.sort_by_key(|one| (one.priority, std::cmp::Reverse(one.registered)));
                hooks.of[side][hook.index()] = steps(all, nftables, order.is_some());
            }
        }
        hooks
    }

    /// The steps of a hook.
    #[must_use]
    pub fn of(&self, family: Family, hook: Hook) -> &Steps {
        &self.of[side(family)][hook.index()]
    }

    /// Whether a chain is registered at a hook.
    #[must_use]
    pub fn has_chain(&self, family: Family, hook: Hook) -> bool {
        self.of(family, hook).steps.iter().any(|step| matches!(step, Step::Chain(_)))
    }

    /// Whether connections of this family can be translated at all.
    #[must_use]
    pub fn translate(&self, family: Family) -> bool {
        self.translating[side(family)]
    }

    /// Whether no chain is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.iter().flatten().all(|steps| steps.steps.iter().all(|step| *step == Step::Track))
    }
}

/// Where the kernel reports the chain: later registered ones come first there, so the place is counted from the end.
fn position(
    order: Option<&[HookEntry]>,
    table: &Table,
    chain: &Chain,
    family: Family,
    hook: Hook,
) -> Option<usize> {
    let order = order?;
    let entry = |one: &HookEntry| {
        one.table == table.name
            && one.chain == chain.name
            && one.family == own(family)
            && one.hook == hook as u32
    };
    order.iter().position(entry).map(|place| order.len() - place)
}

fn steps(all: Vec<Candidate>, nftables: usize, order_is_known: bool) -> Steps {
    let mut doubtful = Vec::new();
    let mut start = 0;
    for end in 1..=all.len() {
        if all.get(end).is_some_and(|one| one.priority == all[start].priority) {
            continue;
        }
        let run = &all[start..end];
        let several = run.iter().any(|one| one.table != run[0].table);
        let mixed = run.iter().any(|one| matches!(one.step, Step::Translate(_)));
        // Conntrack itself is no table.
        let legacy = run.iter().any(|one| (nftables..usize::MAX).contains(&one.table));
        if several && (!order_is_known || mixed || legacy) && run.iter().any(|one| one.acts) {
            doubtful.push(start..end);
        }
        start = end;
    }
    Steps { steps: all.into_iter().map(|one| one.step).collect(), doubtful }
}

fn side(family: Family) -> usize {
    usize::from(family == Family::Ipv6)
}

fn own(family: Family) -> NftFamily {
    match family {
        Family::Ipv4 => NftFamily::Ip,
        Family::Ipv6 => NftFamily::Ip6,
    }
}

/// Whether a chain, or one that it may jump to, does more than accept or drop, so that its place among others matters.
fn acts(tables: &[Table], chains: &[Chain], start: usize) -> bool {
    let mut seen = vec![false; chains.len()];
    let mut todo = vec![start];
    while let Some(index) = todo.pop() {
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        let table = &tables[chains[index].table];
        for expression in chains[index].rules.iter().flat_map(|rule| &rule.expressions) {
            match expression {
                Expression::Verdict(Verdict::Queue) => return true,
                Expression::Lookup { set, verdict: true, .. }
                    if table.verdicts(set).contains(&&Verdict::Queue) =>
                {
                    return true;
                }
                Expression::Target(Target::Neutral { .. }) => {}
                Expression::SetMeta { .. }
                | Expression::SetPayload { .. }
                | Expression::SetConnection { .. }
                | Expression::Nat { .. }
                | Expression::Redirect(_)
                | Expression::Masquerade(_)
                | Expression::Reject(_)
                | Expression::NoTrack
                | Expression::Target(_)
                | Expression::Unknown { .. } => return true,
                _ => {}
            }
        }
        todo.extend(jumps(tables, chains, index));
    }
    false
}

/// The chains to which the rules of one may jump.
fn jumps(tables: &[Table], chains: &[Chain], index: usize) -> Vec<usize> {
    let table = &tables[chains[index].table];
    let mut targets = Vec::new();
    for expression in chains[index].rules.iter().flat_map(|rule| &rule.expressions) {
        let verdicts = match expression {
            Expression::Verdict(verdict) => vec![verdict],
            Expression::Lookup { set, verdict: true, .. } => table.verdicts(set),
            _ => continue,
        };
        for verdict in verdicts {
            if let Verdict::Jump(name) | Verdict::Goto(name) = verdict {
                targets.extend(table.chains.get(name));
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// A chain whose jumps lead back to it. The kernel refuses such rules.
pub fn jumps_in_a_circle(tables: &[Table], chains: &[Chain]) -> Option<usize> {
    let targets: Vec<Vec<usize>> = (0..chains.len()).map(|index| jumps(tables, chains, index)).collect();
    let mut callers = vec![0usize; chains.len()];
    targets.iter().flatten().for_each(|target| callers[*target] += 1);
    // Chains without callers are taken away, one after the other; what is left over goes in circles.
    let mut free: Vec<usize> = (0..chains.len()).filter(|index| callers[*index] == 0).collect();
    while let Some(index) = free.pop() {
        for target in &targets[index] {
            callers[*target] -= 1;
            if callers[*target] == 0 {
                free.push(*target);
            }
        }
    }
    callers.iter().position(|count| *count > 0)
}

/// Whether connections of a family are tracked at all: the kernel begins to when a rule asks for it, and a chain of type `nat` alone
/// does not. Without tracking such chains are never run.
fn is_tracked(tables: &[Table], chains: &[Chain], family: Family) -> bool {
    chains.iter().any(|chain| {
        let table = tables[chain.table].family;
        let here = table == NftFamily::Inet || table == own(family);
        here && chain
            .rules
            .iter()
            .flat_map(|rule| &rule.expressions)
            .any(|one| asks_for_tracking(one, family))
    })
}

fn asks_for_tracking(expression: &Expression, family: Family) -> bool {
    match expression {
        Expression::Connection { .. }
        | Expression::SetConnection { .. }
        | Expression::Redirect(_)
        | Expression::Masquerade(_)
        | Expression::Limit { budget: Budget::Connections, .. }
        | Expression::Object { kind: 3 | 5 | 7 | 9 | 10, .. }
        | Expression::ObjectMap { .. }
        | Expression::Match(
            Match::Conntrack(_)
            | Match::Mark { connection: true, .. }
            | Match::Limit { budget: Budget::Connections, .. },
        )
        | Expression::Target(
            Target::Nat { .. }
            | Target::Redirect(_)
            | Target::Masquerade(_)
            | Target::ConnectionMark { .. }
            | Target::NoTrack,
        ) => true,
        Expression::Nat { family: of, .. } => *of == u32::from(own(family).number()),
        Expression::Dynamic { limited, .. } => limited.iter().any(|one| asks_for_tracking(one, family)),
        Expression::Neutral { name } => name == "flow_offload",
        Expression::Match(Match::Opaque { name }) => {
            matches!(name.as_str(), "connbytes" | "connlabel" | "helper" | "cluster")
        }
        Expression::Target(Target::Neutral { name }) => name == "CT",
        Expression::Target(Target::Opaque { name }) => {
            matches!(name.as_str(), "SYNPROXY" | "NETMAP" | "CONNSECMARK")
        }
        Expression::Unknown { name } => name == "synproxy",
        _ => false,
    }
}

/// Base chains at which the interpreter does not look.
pub fn not_interpreted(tables: &[Table], chains: &[Chain]) -> Vec<NotInterpreted> {
    let mut all = Vec::new();
    for chain in chains {
        let table = &tables[chain.table];
        let Some(base) = chain.base.as_ref().filter(|_| !table.dormant) else { continue };
        if chain.rules.is_empty() && !base.drops {
            continue;
        }
        let scope = match table.family {
            NftFamily::Netdev => Scope::Links(None, base.devices.clone()),
            NftFamily::Inet if base.hook == INGRESS => Scope::Links(None, base.devices.clone()),
            NftFamily::Bridge => Scope::Links(None, Vec::new()),
            NftFamily::Arp => Scope::Links(Some(Family::Ipv4), Vec::new()),
            NftFamily::Ip | NftFamily::Ip6 | NftFamily::Inet => continue,
        };
        all.push(NotInterpreted {
            what: format!("chain {} {} {}", table.family.name(), table.name, chain.name),
            scope,
        });
    }
    all
}
