//! The return path: whether the answer of a socket gets to the client, and whether the kernel accepts the client's packet at all.
//!
//! Sources: `inet_csk_route_req()`, `tcp_v4_send_reset()` and `icmp_send()` for the packet that answers, `__fib_validate_source()` of
//! `net/ipv4/fib_frontend.c` for `rp_filter`, `arp_process()` of `net/ipv4/arp.c` and `ndisc_recv_ns()` of `net/ipv6/ndisc.c` for
//! neighbours.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::HostView;
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{
    AddrState, Family, IfName, Interface, InterfaceAddress, LinkKind, Protocol, RouteKind, Rule, RuleAction,
    Scope,
};
use crate::plan::fib::{Decision, Fact, Flow, MissingFact, RouteError};

/// What happens to the answer of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It gets to the client.
    Arrives,
    /// It does not, by this rule.
    Lost(Code, Answer),
    /// That depends on what is not known.
    Unknown(Answer),
}

/// Where an answer goes, when it does not go back to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Answer {
    /// The priority of the policy rule that decided; `None` for the rules that every Linux has.
    pub rule: Option<u32>,
    /// The routing table of the route.
    pub table: Option<u32>,
    /// The route's destination.
    pub to: Option<IpNet>,
    /// What a route or rule does that does not forward.
    pub error: Option<RouteError>,
    /// Index of the interface by which it leaves.
    pub interface: Option<u32>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The fact that is not known.
    pub missing: Option<MissingFact>,
}

impl Answer {
    fn of_rule(rule: Option<&Rule>) -> Answer {
        Answer {
            rule: rule.map(|rule| rule.priority),
            table: rule.and_then(|rule| rule.table),
            ..Answer::default()
        }
    }

    pub(super) fn of_decision(decision: &Decision<'_>) -> Answer {
        match decision {
            Decision::Found(found) => {
                let route = found.route();
                Answer {
                    table: Some(route.table),
                    to: Some(route.destination),
                    interface: route.interface,
                    gateway: route.gateway,
                    ..Answer::of_rule(found.rule)
                }
            }
            Decision::Refused { error, rule, route } => Answer {
                error: Some(match rule {
                    // The errno of a rule `unreachable` is that of a missing route.
                    Some(rule) if route.is_none() && rule.action == RuleAction::Unreachable => {
                        RouteError::Unreachable
                    }
                    _ => *error,
                }),
                to: route.map(|route| route.destination),
                table: route.map(|route| route.table).or(rule.and_then(|rule| rule.table)),
                ..Answer::of_rule(*rule)
            },
            Decision::Unknown { fact, rule } => Answer { missing: Some(*fact), ..Answer::of_rule(*rule) },
            Decision::OnLink(interface) => Answer { interface: Some(*interface), ..Answer::default() },
            Decision::Local { table, .. } => Answer { table: Some(*table), ..Answer::default() },
        }
    }

    /// The same in names, as a document carries it.
    #[must_use]
    pub fn named(&self, name: impl Fn(u32) -> Option<IfName>) -> NamedAnswer {
        NamedAnswer {
            rule: self.rule,
            table: self.table,
            to: self.to,
            error: self.error.map(error_word).map(str::to_owned),
            interface: self.interface.and_then(name),
            gateway: self.gateway,
            missing: self.missing.map(missing_words).map(str::to_owned),
        }
    }
}

fn error_word(error: RouteError) -> &'static str {
    match error {
        RouteError::NoRoute => "no route",
        RouteError::Unreachable => "unreachable",
        RouteError::Prohibited => "prohibit",
        RouteError::Blackhole => "blackhole",
        RouteError::NoDevice => "no device",
    }
}

pub(super) fn missing_words(fact: MissingFact) -> &'static str {
    match fact {
        MissingFact::Rule => "the rule has a condition or an action that bindscope does not know",
        MissingFact::ClientPort => "the rule matches the port of the client",
        MissingFact::Mark => "the rule matches a firewall mark",
        MissingFact::User => "the rule matches the user of the socket, which is not known",
        MissingFact::NextHop => {
            "the kernel chooses between several next hops by a hash or by the state of neighbours"
        }
        MissingFact::DeletedRule => {
            "a default IPv6 rule was deleted, which the kernel follows only if an IPv6 rule was ever added"
        }
        MissingFact::Routes => "the route is of a kind that bindscope does not know",
    }
}

/// Where an answer goes, in names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct NamedAnswer {
    /// The priority of the policy rule that decided; null for the rules that every Linux has.
    pub rule: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// The route's destination; null where a rule decided alone, or there is no route.
    pub to: Option<IpNet>,
    /// `no route`, `unreachable`, `prohibit`, `blackhole`, `no device`; null where the answer leaves the host.
    pub error: Option<String>,
    /// The interface by which it leaves.
    pub interface: Option<IfName>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Why the result is not known.
    pub missing: Option<String>,
}

impl fmt::Display for NamedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = |table: u32| match table {
            253 => "default".to_owned(),
            254 => "main".to_owned(),
            255 => "local".to_owned(),
            number => number.to_string(),
        };
        if let Some(rule) = self.rule {
            write!(f, "ip rule {rule}: ")?;
        }
        if let Some(missing) = &self.missing {
            return f.write_str(missing);
        }
        match (&self.error, self.to) {
            (Some(error), Some(to)) => write!(f, "{error} {to}")?,
            (Some(error), None) => f.write_str(error)?,
            (None, to) => {
                f.write_str("the answer leaves")?;
                if let Some(interface) = &self.interface {
                    write!(f, " by {interface}")?;
                }
                if let Some(gateway) = self.gateway {
                    write!(f, " via {gateway}")?;
                }
                if let Some(to) = to {
                    write!(f, " (route to {to}")?;
                    if let Some(number) = self.table {
                        write!(f, " in table {}", table(number))?;
                    }
                    f.write_str(")")?;
                }
                return Ok(());
            }
        }
        match self.table {
            Some(number) if self.rule.is_some() || self.to.is_some() => {
                write!(f, " in table {}", table(number))
            }
            _ => Ok(()),
        }
    }
}

/// What answers a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answering {
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// The port of the socket.
    pub(super) port: u16,
    /// The user who owns the socket; root where the kernel itself answers.
    pub(super) user: Fact<u32>,
    /// Whether there is a socket: without one the kernel answers by a reset or by ICMP.
    pub(super) accepts: bool,
    /// The device that the socket is bound to; 0 for none.
    pub(super) device: u32,
    /// The mark that packet filters have given to the client's packet.
    pub(super) mark: Fact<u32>,
    /// The mark of the socket (SO_MARK). Where it could not be read, the socket counts as one without: few programs set it, and
    /// those need a capability.
    pub(super) socket_mark: Option<u32>,
}

impl Answering {
    /// The kernel, where no socket receives the packet.
    pub(super) const KERNEL: Answering = Answering {
        protocol: Protocol::Tcp,
        port: 0,
        user: Fact::Known(0),
        accepts: false,
        device: 0,
        mark: Fact::Known(0),
        socket_mark: None,
    };
}

/// A client on a link or beyond its routers, and the address that it connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// The client's address.
    pub(super) client: IpAddr,
    /// Whether it is beyond the routers of the link.
    pub(super) beyond: bool,
    /// Index of the interface on which its packets arrive.
    pub(super) link: u32,
    /// The address that it connects to.
    pub(super) to: IpAddr,
}

/// Settings by the names of a snapshot: of all interfaces, and of one.
const RP_FILTER: (&str, &str) = ("net.ipv4.conf.all.rp_filter", "ipv4.rp_filter");
const ACCEPT_LOCAL: (&str, &str) = ("net.ipv4.conf.all.accept_local", "ipv4.accept_local");
const SRC_VALID_MARK: (&str, &str) = ("net.ipv4.conf.all.src_valid_mark", "ipv4.src_valid_mark");
const PROXY_NDP: (&str, &str) = ("net.ipv6.conf.all.proxy_ndp", "ipv6.proxy_ndp");
const ARP_IGNORE: (&str, &str) = ("net.ipv4.conf.all.arp_ignore", "ipv4.arp_ignore");
const ARP_FILTER: (&str, &str) = ("net.ipv4.conf.all.arp_filter", "ipv4.arp_filter");

impl HostView<'_> {
    /// What happens to the answer to a client.
    pub(super) fn answer(&self, question: &Question, answering: &Answering) -> Verdict {
        let Question { client, link, to, .. } = *question;
        let family = Family::of(to);
        let vrf = self.vrf(link);
        // A link-local peer is answered over the interface on which it was heard, and an answer within a VRF stays in it.
        let oif = match answering.device {
            0 if needs_zone(client) => link,
            0 => vrf,
            device => device,
        };
        let mut flow = Flow {
            from: Some(to),
            oif,
            strict: answering.device != 0,
            protocol: answering.protocol.number(),
            source_port: Fact::Known(answering.port),
            destination_port: Fact::Unknown,
            user: answering.user,
            mark: self.mark_of_answer(family, answering),
            ..Flow::to(client)
        };
        if answering.protocol == Protocol::Udp && !answering.accepts {
            // Type and code of the ICMP error stand where the ports are (`struct flowi_uli`).
            (flow.protocol, flow.source_port) = (if family == Family::Ipv4 { 1 } else { 58 }, Fact::Known(0));
            flow.destination_port = Fact::Known(if family == Family::Ipv4 { 0x0303 } else { 0x0104 });
        }
        let decision = self.fib.output(self.local, &flow);
        let answer = Answer::of_decision(&decision);
        match &decision {
            Decision::Found(found) => {
                if found.route().kind != RouteKind::Unicast {
                    return Verdict::Lost(Code::NO_WAY_BACK, answer);
                }
                let mut ways = found.hops.iter().map(|hop| {
                    let back =
                        self.leads_back(question, hop.interface.unwrap_or(0), self.local.gateway_of(hop));
                    if hop.encapsulated { None } else { Some(back) }
                });
                let first = ways.next().flatten();
                if ways.any(|other| other != first) || first.is_none() {
                    return Verdict::Unknown(Answer { missing: Some(MissingFact::NextHop), ..answer });
                }
                match first.unwrap_or(Way::Back) {
                    Way::Back if self.is_martian_answer(to, found.route().interface) => {
                        Verdict::Lost(Code::NO_WAY_BACK, answer)
                    }
                    Way::Back => Verdict::Arrives,
                    Way::Nowhere => Verdict::Lost(Code::NO_WAY_BACK, answer),
                    Way::Elsewhere if found.rule.is_some() => Verdict::Lost(Code::ANSWER_DIVERTED, answer),
                    Way::Elsewhere => Verdict::Lost(Code::ANSWER_ELSEWHERE, answer),
                }
            }
            Decision::OnLink(interface) => match self.leads_back(question, *interface, None) {
                Way::Back if self.is_martian_answer(to, Some(*interface)) => {
                    Verdict::Lost(Code::NO_WAY_BACK, answer)
                }
                Way::Back => Verdict::Arrives,
                _ => Verdict::Lost(Code::NO_WAY_BACK, answer),
            },
            Decision::Refused { rule: Some(_), .. } => Verdict::Lost(Code::ANSWER_DIVERTED, answer),
            Decision::Refused { rule: None, .. } | Decision::Local { .. } => {
                Verdict::Lost(Code::NO_WAY_BACK, answer)
            }
            Decision::Unknown { .. } => Verdict::Unknown(answer),
        }
    }

    /// Whether an answer that leaves over `interface` by a gateway gets to the client.
    fn leads_back(&self, question: &Question, interface: u32, gateway: Option<IpAddr>) -> Way {
        let Some(out) = self.by_index.get(&interface) else { return Way::Nowhere };
        if !out.running {
            return Way::Nowhere;
        }
        if !self.same_wire(interface, question.link) {
            return Way::Elsewhere;
        }
        // Without a gateway the host looks for the client itself on the link, where it is not.
        let resolves = !out.no_arp && !out.point_to_point && out.mac.is_some();
        if question.beyond && gateway.is_none() && resolves { Way::Nowhere } else { Way::Back }
    }

    /// Whether two interfaces are on one link: the same, or a macvlan interface and its parent.
    pub(super) fn same_wire(&self, a: u32, b: u32) -> bool {
        let root = |index: u32| match self.by_index.get(&index) {
            Some(one) if one.kind == Some(LinkKind::Macvlan) => one.link.unwrap_or(index),
            _ => index,
        };
        let bridge = |index: u32| {
            let master = self.by_index.get(&index).and_then(|one| one.master);
            let is_bridge = |master: &u32| {
                self.by_index.get(master).is_some_and(|one| one.kind == Some(LinkKind::Bridge))
            };
            master.filter(is_bridge).unwrap_or(index)
        };
        a == b || bridge(root(a)) == bridge(root(b))
    }

    /// Whether IPv4 refuses to send from a loopback address over an interface (`__mkroute_output()`).
    fn is_martian_answer(&self, from: IpAddr, out: Option<u32>) -> bool {
        let out = out.and_then(|out| self.by_index.get(&out));
        matches!(from, IpAddr::V4(v4) if v4.is_loopback()) && out.is_some_and(|out| !self.route_localnet(out))
    }

    /// Whether IPv4 accepts the source address of a packet that arrives (`fib_validate_source()`): `rp_filter`, and addresses of the
    /// host itself. `answering` is `None` for an ARP request, which has neither ports nor a protocol.
    pub(super) fn accepts_source(&self, question: &Question, answering: Option<&Answering>) -> Verdict {
        let Question { client, link, to, .. } = *question;
        let Some(interface) = self.by_index.get(&link).filter(|_| to.is_ipv4()) else {
            return Verdict::Arrives;
        };
        let mode = self.in_force(interface, RP_FILTER);
        let full = mode != 0 || self.fib.is_customised();
        if !full {
            return Verdict::Arrives;
        }
        // The look-up of the answer, with ports exchanged, and with the mark of the packet where `src_valid_mark` is on.
        let fib = &self.fib;
        let mut flow = Flow { from: Some(to), ..Flow::to(client) };
        if let Some(answering) = answering.filter(|_| fib.is_selective(Family::Ipv4)) {
            flow.protocol = answering.protocol.number();
            (flow.source_port, flow.destination_port) = (Fact::Known(answering.port), Fact::Unknown);
            if self.in_force(interface, SRC_VALID_MARK) != 0 {
                flow.mark = answering.mark;
            }
        }
        let flow = if self.vrf(link) == 0 { flow } else { Flow { oif: self.vrf(link), ..flow } };
        let decision = fib.look_up(self.local, &flow);
        let answer = Answer::of_decision(&decision);
        let filtered = Verdict::Lost(Code::RP_FILTER, answer);
        match &decision {
            Decision::Unknown { .. } => Verdict::Unknown(answer),
            // The last resort: without any way back loose mode drops as well.
            Decision::Refused { .. } | Decision::OnLink(_) if mode == 0 => Verdict::Arrives,
            Decision::Refused { .. } | Decision::OnLink(_) => filtered,
            Decision::Local { .. } => {
                if self.accepts_own(interface) {
                    Verdict::Arrives
                } else {
                    filtered
                }
            }
            Decision::Found(found) if found.route().kind != RouteKind::Unicast => filtered,
            Decision::Found(found) => {
                // `fib_info_nh_uses_dev()`: the interface itself, or another one of its VRF.
                let vrf = self.vrf(link);
                let uses = |hop: u32| hop == link || (vrf != 0 && self.vrf(hop) == vrf);
                let matches = found.hops.iter().any(|hop| hop.interface.is_some_and(uses));
                let no_address = !interface.addresses.iter().any(|own| own.family == Family::Ipv4);
                if matches || (mode != 1 && !(no_address && mode != 0)) { Verdict::Arrives } else { filtered }
            }
        }
    }

    /// The mark of an answer: that of the socket, or that of the packet, where a setting says so (`inet_request_mark()`, `IP4_REPLY_MARK()`).
    fn mark_of_answer(&self, family: Family, answering: &Answering) -> Fact<u32> {
        if let Some(mark) = answering.socket_mark.filter(|mark| *mark != 0 && answering.accepts) {
            return Fact::Known(mark);
        }
        let is_on = |name| self.snapshot.setting(name).is_some_and(|on| on != 0);
        let copied = match (answering.accepts, family) {
            (true, _) => is_on("net.ipv4.tcp_fwmark_accept"),
            (false, Family::Ipv4) => is_on("net.ipv4.fwmark_reflect"),
            (false, Family::Ipv6) => is_on("net.ipv6.fwmark_reflect"),
        };
        if copied { answering.mark } else { Fact::Known(0) }
    }

    /// Whether IPv4 accepts packets from addresses of this host on an interface (`accept_local`).
    pub(super) fn accepts_own(&self, interface: &Interface) -> bool {
        self.in_force(interface, ACCEPT_LOCAL) != 0
    }

    /// A setting that is in force as the larger of that of all interfaces and the interface's own.
    pub(super) fn in_force(&self, interface: &Interface, (all, own): (&str, &str)) -> i64 {
        let all = self.snapshot.setting(all).unwrap_or(0);
        all.max(interface.settings.get(own).copied().unwrap_or(0))
    }

    /// Whether the host answers a neighbour that asks on `interface` for `address` from the address `asks`: ARP for every address of
    /// the host unless `arp_ignore` or `arp_filter` forbids it, neighbour discovery for the addresses of the interface alone. `None`
    /// where the neighbour may know it without an answer, from requests that the host itself sends from an address of the interface.
    pub(super) fn resolves(&self, interface: &Interface, address: IpAddr, asks: IpAddr) -> Option<bool> {
        let own = interface.addresses.iter().find(|own| own.address == address);
        match address {
            IpAddr::V4(_) => {
                let near = |own: &InterfaceAddress| {
                    IpNet::new(own.address, own.prefix).is_ok_and(|net| net.contains(&asks))
                };
                let has = match self.in_force(interface, ARP_IGNORE) {
                    1 => own.is_some(),
                    2 => own.is_some_and(near),
                    3 => own.is_none_or(|own| own.scope != Some(Scope::Host)),
                    8.. => false,
                    _ => true,
                };
                let has = has && self.delivers(interface, asks, address);
                let filtered = self.in_force(interface, ARP_FILTER) != 0;
                match has && (!filtered || self.answers_over(interface, asks, address)) {
                    true => Some(true),
                    false if own.is_some() => None,
                    false => Some(false),
                }
            }
            // Whether there is an entry for the address (`ip neigh add proxy`) is not in a snapshot.
            IpAddr::V6(_) if own.is_none() && self.in_force(interface, PROXY_NDP) != 0 => None,
            IpAddr::V6(_) => {
                Some(own.is_some_and(|own| !own.is(AddrState::Tentative) && !own.is(AddrState::Dadfailed)))
            }
        }
    }

    /// Whether policy rules let the host deliver a packet that arrives on `interface` to its own address (`arp_process()` asks the
    /// routes, too).
    fn delivers(&self, interface: &Interface, from: IpAddr, to: IpAddr) -> bool {
        let flow = Flow { iif: interface.index, from: Some(from), ..Flow::to(to) };
        self.fib.asks_local_first(Family::of(to))
            || matches!(self.fib.look_up(self.local, &flow), Decision::Local { .. })
    }

    /// Whether the route from `from` to `to` leaves over `interface` (`arp_filter()`).
    fn answers_over(&self, interface: &Interface, to: IpAddr, from: IpAddr) -> bool {
        let flow = Flow { from: Some(from), ..Flow::to(to) };
        match self.fib.output(self.local, &flow) {
            Decision::Found(found) => found.hops.iter().any(|hop| hop.interface == Some(interface.index)),
            Decision::OnLink(out) => out == interface.index,
            _ => false,
        }
    }
}

/// Where an answer that leaves the host ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With the client.
    Back,
    /// On another link.
    Elsewhere,
    /// On the right link or on none, and not with the client.
    Nowhere,
}
