//! Routes and policy rules of a network that is built or changed: requests of rtnetlink(7) for [`Network`].

use std::net::IpAddr;

use ipnet::IpNet;

use super::netlink::attribute;
use super::network::{NESTED, NLM_F_CREATE_EXCL, Network, af, index, octets, terminated};
use crate::model::{Family, IfName, ROUTE_METRICS, RouteKind, RouterPreference, Rule, RuleAction};
use crate::sys::{Error, NewRoute};

// `linux/rtnetlink.h`
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const NLM_F_CREATE_APPEND: u16 = 0xc00;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTNH_F_ONLINK: u8 = 4;
const RTPROT_STATIC: u8 = 4;
const RTA_SRC: u16 = 2;
const RTA_PREF: u16 = 20;

impl Network {
    /// Adds a route.
    ///
    /// # Errors
    /// The kernel's refusal; ENETUNREACH when the gateway is not on any link.
    pub fn add_route(&mut self, route: &NewRoute) -> Result<(), Error> {
        let flags = if route.copied { NLM_F_CREATE_APPEND } else { NLM_F_CREATE_EXCL };
        self.route(route, "add the route", (RTM_NEWROUTE, flags))
    }

    /// Takes a route away.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete_route(&mut self, route: &NewRoute) -> Result<(), Error> {
        self.route(route, "delete the route", (RTM_DELROUTE, 0))
    }

    fn route(&mut self, route: &NewRoute, operation: &'static str, how: (u16, u16)) -> Result<(), Error> {
        // `struct rtmsg`: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
        let family = Family::of(route.to.addr());
        let kind = route_kind(route.kind);
        let scope = match route.kind {
            RouteKind::Local => 254,
            RouteKind::Broadcast | RouteKind::Anycast if family == Family::Ipv4 => 253,
            RouteKind::Unicast if route.via.is_none() && family == Family::Ipv4 => 253,
            _ => 0,
        };
        let table = u8::try_from(route.table).unwrap_or(0);
        let on_link = |(via, interface): (&Option<IpAddr>, &Option<IfName>)| {
            if route.copied && via.is_some() && interface.is_some() { RTNH_F_ONLINK } else { 0 }
        };
        let first = if route.more.is_empty() { on_link((&route.via, &route.interface)) } else { 0 };
        let from = route.from.map_or(0, |from| from.prefix_len());
        let mut message =
            vec![af(family), route.to.prefix_len(), from, route.tos, table, RTPROT_STATIC, scope, kind];
        message.extend(u32::from(first).to_ne_bytes());
        message.extend(attribute(RTA_TABLE, &route.table.to_ne_bytes()));
        if route.to.prefix_len() > 0 {
            message.extend(attribute(RTA_DST, &octets(route.to.addr())));
        }
        if let Some(from) = route.from {
            message.extend(attribute(RTA_SRC, &octets(from.addr())));
        }
        if let Some(preference) = route.preference {
            let number = if preference == RouterPreference::High { 1 } else { 3 };
            message.extend(attribute(RTA_PREF, &[number]));
        }
        if route.more.is_empty() {
            message.extend(route.via.map(|via| gateway(family, via)).unwrap_or_default());
            if let Some(interface) = &route.interface {
                message.extend(attribute(RTA_OIF, &index(interface)?.to_ne_bytes()));
            }
        } else {
            let first = (route.via, route.interface.clone(), route.weight);
            let mut hops = Vec::new();
            for (via, interface, weight) in std::iter::once(&first).chain(&route.more) {
                let words = via.map(|via| gateway(family, via)).unwrap_or_default();
                // `struct rtnexthop`: length, flags, weight less one, index.
                hops.extend(u16::try_from(8 + words.len()).unwrap_or(u16::MAX).to_ne_bytes());
                let less = u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX);
                hops.extend([on_link((via, interface)), less]);
                hops.extend(interface.as_ref().map(index).transpose()?.unwrap_or(0).to_ne_bytes());
                hops.extend(words);
            }
            message.extend(attribute(RTA_MULTIPATH, &hops));
        }
        if let Some(source) = route.source {
            message.extend(attribute(RTA_PREFSRC, &octets(source)));
        }
        if let Some(metric) = route.metric {
            message.extend(attribute(RTA_PRIORITY, &metric.to_ne_bytes()));
        }
        let metrics =
            (1..).zip(ROUTE_METRICS).filter_map(|(kind, name)| Some((kind, route.metrics.get(name)?)));
        let metrics: Vec<u8> =
            metrics.flat_map(|(kind, value)| attribute(kind, &value.to_ne_bytes())).collect();
        if !metrics.is_empty() {
            message.extend(attribute(RTA_METRICS | NESTED, &metrics));
        }
        let name = IfName::from(format!("to {}", route.to).as_str());
        self.ask(operation, &name, how, &message)
    }

    /// Adds a policy rule.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.rule(rule, "add the rule", (RTM_NEWRULE, NLM_F_CREATE_APPEND))
    }

    /// Takes a policy rule away.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.rule(rule, "delete the rule", (RTM_DELRULE, 0))
    }

    fn rule(&mut self, rule: &Rule, operation: &'static str, how: (u16, u16)) -> Result<(), Error> {
        // `FRA_*`, `FR_ACT_*` and FIB_RULE_INVERT of `linux/fib_rules.h`.
        const FRA_DST: u16 = 1;
        const FRA_SRC: u16 = 2;
        const FRA_IIFNAME: u16 = 3;
        const FRA_PRIORITY: u16 = 6;
        const FRA_FWMARK: u16 = 10;
        const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
        const FRA_TABLE: u16 = 15;
        const FRA_FWMASK: u16 = 16;
        const FRA_OIFNAME: u16 = 17;
        const FRA_L3MDEV: u16 = 19;
        const FRA_GOTO: u16 = 4;
        const FRA_SUPPRESS_IFGROUP: u16 = 13;
        const FRA_UID_RANGE: u16 = 20;
        const FRA_IP_PROTO: u16 = 22;
        const FRA_SPORT_RANGE: u16 = 23;
        const FRA_DPORT_RANGE: u16 = 24;
        const FRA_DSCP: u16 = 25;
        const INVERT: u32 = 2;
        let action = match rule.action {
            RuleAction::Lookup | RuleAction::L3mdev => 1,
            RuleAction::Goto => 2,
            RuleAction::Nop => 3,
            RuleAction::Blackhole => 6,
            RuleAction::Unreachable => 7,
            RuleAction::Prohibit => 8,
            RuleAction::Other => return Err(Error::Unsupported { what: "a rule of this kind" }),
        };
        let length = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
        let table = rule.table.unwrap_or(0);
        let small = u8::try_from(table).unwrap_or(0);
        let tos = rule.tos.unwrap_or(0);
        let mut message = vec![af(rule.family), length(rule.to), length(rule.from), tos, small, 0, 0, action];
        message.extend((if rule.inverted { INVERT } else { 0 }).to_ne_bytes());
        for (kind, net) in [(FRA_DST, rule.to), (FRA_SRC, rule.from)] {
            if let Some(net) = net.filter(|net| net.prefix_len() > 0) {
                message.extend(attribute(kind, &octets(net.addr())));
            }
        }
        for (kind, name) in [(FRA_IIFNAME, &rule.iif), (FRA_OIFNAME, &rule.oif)] {
            message.extend(name.as_ref().map(|name| attribute(kind, &terminated(name))).unwrap_or_default());
        }
        for (kind, value) in [
            (FRA_PRIORITY, Some(rule.priority)),
            (FRA_FWMARK, rule.fwmark),
            (FRA_FWMASK, rule.fwmask),
            (FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefix),
            (FRA_SUPPRESS_IFGROUP, rule.suppress_group),
            (FRA_GOTO, rule.goto),
            (FRA_TABLE, rule.table),
        ] {
            message.extend(value.map(|value| attribute(kind, &value.to_ne_bytes())).unwrap_or_default());
        }
        if rule.action == RuleAction::L3mdev {
            message.extend(attribute(FRA_L3MDEV, &[1]));
        }
        for (kind, value) in [(FRA_IP_PROTO, rule.ip_protocol), (FRA_DSCP, rule.dscp)] {
            message.extend(value.map(|value| attribute(kind, &[value])).unwrap_or_default());
        }
        for (kind, ports) in [(FRA_SPORT_RANGE, rule.source_ports), (FRA_DPORT_RANGE, rule.destination_ports)]
        {
            let range = ports.map(|(first, last)| [first.to_ne_bytes(), last.to_ne_bytes()].concat());
            message.extend(range.map(|range| attribute(kind, &range)).unwrap_or_default());
        }
        if let Some((first, last)) = rule.users {
            let range = [first.to_ne_bytes(), last.to_ne_bytes()].concat();
            message.extend(attribute(FRA_UID_RANGE, &range));
        }
        let name = IfName::from(format!("with priority {}", rule.priority).as_str());
        self.ask(operation, &name, how, &message)
    }
}

/// A gateway of a route, which may be of the other family (`struct rtvia`, RFC 5549).
fn gateway(family: Family, via: IpAddr) -> Vec<u8> {
    if Family::of(via) == family {
        return attribute(RTA_GATEWAY, &octets(via));
    }
    let mut value = u16::from(af(Family::of(via))).to_ne_bytes().to_vec();
    value.extend(octets(via));
    attribute(RTA_VIA, &value)
}

/// `RTN_*`.
fn route_kind(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Unicast | RouteKind::Other => 1,
        RouteKind::Local => 2,
        RouteKind::Broadcast => 3,
        RouteKind::Anycast => 4,
        RouteKind::Multicast => 5,
        RouteKind::Blackhole => 6,
        RouteKind::Unreachable => 7,
        RouteKind::Prohibit => 8,
        RouteKind::Throw => 9,
    }
}
