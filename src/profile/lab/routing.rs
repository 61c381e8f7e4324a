//! `[[lab.route]]` and `[[lab.rule]]`: the routes and policy rules of the nodes of a lab.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::de::DeTable;

use super::{INTERFACE_OUT, NODE_KEY, Reader};
use crate::code::Code;
use crate::model::topology::{LabRoute, LabRule, Topology};
use crate::model::{Family, IfName, RouteKind, Rule, RuleAction};
use crate::profile::bind::interface_name;
use crate::profile::keys::{Key, Keys, Kind, optional, required};
use crate::profile::ports;
use crate::profile::value::{boolean, integer, number, one_or_many, tables, text};

const LARGEST: i64 = 4_294_967_295;
const TABLE: Key = optional("table", Kind::Integer(1, LARGEST), "number of the routing table (254: main)");

pub(super) static ROUTE: Keys = Keys {
    what: "[[lab.route]]",
    keys: &[
        NODE_KEY,
        required("to", Kind::Text, "a prefix, or \"default\""),
        optional("via", Kind::Text, "address of the next hop"),
        INTERFACE_OUT,
        optional("source", Kind::Text, "preferred source address"),
        optional("metric", Kind::Integer(0, LARGEST), "priority; the lowest wins"),
        optional("local", Kind::Bool, "whether the prefix is the node's own (AnyIP)"),
        TABLE,
        optional(
            "kind",
            Kind::Choice(&["unicast", "blackhole", "unreachable", "prohibit", "throw"]),
            "what the route does with packets (default unicast)",
        ),
    ],
};

pub(super) static RULE: Keys = Keys {
    what: "[[lab.rule]]",
    keys: &[
        NODE_KEY,
        required("priority", Kind::Integer(0, LARGEST), "the kernel evaluates the lowest first"),
        optional(
            "family",
            Kind::Choice(&["ipv4", "ipv6"]),
            "its family (default: that of its prefixes, or both)",
        ),
        optional("not", Kind::Bool, "whether it is for packets that do not match (default false)"),
        optional("from", Kind::Text, "source prefix"),
        optional("to", Kind::Text, "destination prefix"),
        optional("iif", Kind::Text, "ingress interface; \"lo\" for packets that the node sends"),
        optional("oif", Kind::Text, "interface to which the socket is bound"),
        optional("fwmark", Kind::Integer(0, LARGEST), "firewall mark"),
        optional("fwmask", Kind::Integer(0, LARGEST), "the bits of the mark that count (default all)"),
        optional("tos", Kind::Integer(0, 255), "type of service, without its two lowest bits"),
        optional("dscp", Kind::Integer(0, 63), "DSCP (Linux 6.13 or later)"),
        optional("ipproto", Kind::Text, "protocol: \"tcp\", \"udp\", or a number as text"),
        optional("sport", Kind::Ports, "source port, or a range such as \"1000-2000\""),
        optional("dport", Kind::Ports, "destination port, or a range"),
        optional("uidrange", Kind::Text, "user ids of the node, such as \"1000-2000\""),
        TABLE,
        optional("suppress_prefixlength", Kind::Integer(0, 128), "ignore routes that are not longer"),
        optional(
            "suppress_ifgroup",
            Kind::Integer(0, 2_147_483_647),
            "ignore routes over interfaces of this group",
        ),
        optional(
            "action",
            Kind::Choice(&["lookup", "goto", "nop", "blackhole", "unreachable", "prohibit"]),
            "what it does (default lookup, or goto)",
        ),
        optional("goto", Kind::Integer(1, LARGEST), "priority of the rule with which to continue"),
    ],
};

impl Reader<'_> {
    pub(super) fn route(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> LabRoute {
        let route = LabRoute {
            node: text(table, "node").unwrap_or_default().to_owned(),
            to: text(table, "to").unwrap_or_default().to_owned(),
            via: self.parsed(table, "via", "an address such as 192.0.2.1"),
            interface: self.interface(table, "interface"),
            source: self.parsed(table, "source", "an address such as 192.0.2.1"),
            metric: number(table, "metric"),
            local: boolean(table, "local").unwrap_or(false),
            table: number(table, "table"),
            kind: match text(table, "kind") {
                Some("blackhole") => RouteKind::Blackhole,
                Some("unreachable") => RouteKind::Unreachable,
                Some("prohibit") => RouteKind::Prohibit,
                Some("throw") => RouteKind::Throw,
                _ => RouteKind::Unicast,
            },
        };
        if let Some(value) =
            table.get("to").filter(|value| value.get_ref().as_str().is_some_and(|to| !to.is_empty()))
        {
            match (route.destination(), route.via) {
                (None, _) if route.to == "default" => {
                    let message = "a default route needs `via`, which determines its family";
                    let problem = self.problems.add(Code::BAD_NETWORK, value.span(), message);
                    if route.ends_here() {
                        problem.help("write \"0.0.0.0/0\" or \"::/0\"");
                    }
                }
                (None, _) => {
                    self.problems
                        .add(
                            Code::BAD_ADDRESS,
                            value.span(),
                            format!("\"{}\" is not a valid destination", route.to),
                        )
                        .help("write a prefix such as \"192.0.2.0/24\", or \"default\"");
                }
                (Some(IpNet::V4(_)), Some(IpAddr::V6(_))) | (Some(IpNet::V6(_)), Some(IpAddr::V4(_))) => {
                    self.problems.add(
                        Code::BAD_NETWORK,
                        value.span(),
                        "destination and `via` are of different families",
                    );
                }
                _ => {}
            }
        }
        if route.via.is_none()
            && route.interface.is_none()
            && !route.ends_here()
            && !table.contains_key("via")
        {
            self.problems
                .add(Code::MISSING_KEY, span.clone(), "a route needs `via` or `interface`")
                .help("or local = true, when the prefix is the node's own");
        }
        if route.kind != RouteKind::Unicast {
            for key in ["via", "interface", "local"] {
                if let Some(value) = table.get(key) {
                    let kind = text(table, "kind").unwrap_or_default();
                    let message = format!("a route of kind \"{kind}\" has no `{key}`");
                    self.problems.add(Code::CONTRADICTION, value.span(), message);
                }
            }
        }
        route
    }

    /// The rule, once for each family that it is for.
    pub(super) fn policy_rule(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Vec<LabRule> {
        let node = text(table, "node").unwrap_or_default().to_owned();
        let wanted = "a prefix such as 192.0.2.0/24";
        let (from, to) = (self.prefix(table, "from", wanted), self.prefix(table, "to", wanted));
        let action = match text(table, "action") {
            Some("goto") => RuleAction::Goto,
            Some("nop") => RuleAction::Nop,
            Some("blackhole") => RuleAction::Blackhole,
            Some("unreachable") => RuleAction::Unreachable,
            Some("prohibit") => RuleAction::Prohibit,
            None if table.contains_key("goto") => RuleAction::Goto,
            _ => RuleAction::Lookup,
        };
        let rule = Rule {
            priority: number(table, "priority").unwrap_or(0),
            inverted: boolean(table, "not").unwrap_or(false),
            from,
            to,
            iif: self.any_interface(table, "iif"),
            oif: self.any_interface(table, "oif"),
            fwmark: number(table, "fwmark"),
            fwmask: number(table, "fwmask"),
            tos: number(table, "tos"),
            dscp: number(table, "dscp"),
            ip_protocol: self.ip_protocol(table),
            source_ports: self.port_range(table, "sport"),
            destination_ports: self.port_range(table, "dport"),
            users: self.users(table),
            table: number(table, "table"),
            suppress_prefix: number(table, "suppress_prefixlength"),
            suppress_group: number(table, "suppress_ifgroup"),
            goto: number(table, "goto"),
            action,
            ..Rule::any(Family::Ipv4)
        };
        self.rule_is_consistent(table, span, &rule);
        let named = match text(table, "family") {
            Some("ipv4") => Some(Family::Ipv4),
            Some("ipv6") => Some(Family::Ipv6),
            _ => None,
        };
        let mut family = named;
        for (key, net) in [("from", rule.from), ("to", rule.to)] {
            let Some((net, value)) = net.zip(table.get(key)) else { continue };
            let own = Family::of(net.addr());
            if family.is_some_and(|family| family != own) {
                let message = format!("`{key}` is of another family than the rest of the rule");
                self.problems.add(Code::BAD_NETWORK, value.span(), message);
            }
            family.get_or_insert(own);
        }
        let families = family.map_or(Family::BOTH.to_vec(), |family| vec![family]);
        let of = |family| LabRule { node: node.clone(), rule: Rule { family, ..rule.clone() } };
        families.into_iter().map(of).collect()
    }

    /// What the kernel refuses (`fib_nl2rule()` of `net/core/fib_rules.c`), or what has no effect.
    fn rule_is_consistent(&mut self, table: &DeTable<'_>, span: &Range<usize>, rule: &Rule) {
        let action = rule.action;
        let mut needs = |key: &str| {
            if !table.contains_key(key) {
                let message = format!("a rule with the action {action} needs `{key}`");
                self.problems.add(Code::MISSING_KEY, span.clone(), message);
            }
        };
        match action {
            RuleAction::Lookup => needs("table"),
            RuleAction::Goto => needs("goto"),
            _ => {}
        }
        for (key, of) in [
            ("table", RuleAction::Lookup),
            ("suppress_prefixlength", RuleAction::Lookup),
            ("suppress_ifgroup", RuleAction::Lookup),
            ("goto", RuleAction::Goto),
        ] {
            if let Some(value) = table.get(key).filter(|_| action != of) {
                let message = format!("a rule with the action {action} has no `{key}`");
                self.problems.add(Code::CONTRADICTION, value.span(), message);
            }
        }
        if let (Some(goto), Some(value)) = (rule.goto, table.get("goto"))
            && goto <= rule.priority
        {
            let message = "the kernel continues only with a rule of a higher priority number";
            self.problems.add(Code::BAD_NETWORK, value.span(), message);
        }
        if let (Some(tos), Some(value)) = (rule.tos, table.get("tos"))
            && tos & 3 != 0
        {
            let message = "the two lowest bits of a type of service are those of ECN, and must be 0";
            self.problems.add(Code::BAD_NETWORK, value.span(), message);
        }
        if let Some(value) = table.get("dscp").filter(|_| rule.tos.is_some()) {
            self.problems.add(Code::CONTRADICTION, value.span(), "a rule has either `tos` or `dscp`");
        }
        if let Some(value) = table.get("fwmask").filter(|_| rule.fwmark.is_none()) {
            self.problems.add(Code::CONTRADICTION, value.span(), "`fwmask` needs `fwmark`");
        }
    }

    /// A prefix; an address stands for itself.
    fn prefix(&mut self, table: &DeTable<'_>, key: &str, wanted: &str) -> Option<IpNet> {
        let word = text(table, key).filter(|word| !word.is_empty())?;
        let net = word.parse().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
        if let (None, Some(value)) = (&net, table.get(key)) {
            let message = format!("`{key}` is \"{word}\", but must be {wanted}");
            self.problems.add(Code::BAD_ADDRESS, value.span(), message);
        }
        net.map(|net| net.trunc())
    }

    /// The name of an interface, or `lo`.
    fn any_interface(&mut self, table: &DeTable<'_>, key: &str) -> Option<IfName> {
        if text(table, key) == Some("lo") {
            return interface_name("lo").ok();
        }
        self.interface(table, key)
    }

    fn ip_protocol(&mut self, table: &DeTable<'_>) -> Option<u8> {
        let word = text(table, "ipproto").filter(|word| !word.is_empty())?;
        let found = match word {
            "tcp" => Some(6),
            "udp" => Some(17),
            "icmp" => Some(1),
            "ipv6-icmp" => Some(58),
            number => number.parse().ok().filter(|&number| number != 0),
        };
        if let (None, Some(value)) = (found, table.get("ipproto")) {
            let message = format!("\"{word}\" is not a protocol");
            self.problems
                .add(Code::BAD_NETWORK, value.span(), message)
                .help("write \"tcp\", \"udp\", \"icmp\", \"ipv6-icmp\" or a number from 1 to 255");
        }
        found
    }

    /// One port or one range; the kernel accepts neither 0 nor 65535 (`fib_rule_port_range_valid()`).
    fn port_range(&mut self, table: &DeTable<'_>, key: &str) -> Option<(u16, u16)> {
        let value = table.get(key)?;
        let many = one_or_many(value);
        let one = match many.as_slice() {
            [one] => match (integer(one.get_ref()), one.get_ref().as_str()) {
                (Some(number), _) => u16::try_from(number).ok().map(|port| port..=port),
                (None, Some(text)) => ports::parse(text).ok(),
                (None, None) => None,
            },
            _ => None,
        };
        let range =
            one.map(|one| (*one.start(), *one.end())).filter(|&(first, last)| first > 0 && last < 65535);
        if range.is_none() {
            let message = format!("`{key}` must be one port or one range from 1 to 65534");
            self.problems
                .add(Code::BAD_PORT, value.span(), message)
                .help("write one [[lab.rule]] for each range");
        }
        range
    }

    fn users(&mut self, table: &DeTable<'_>) -> Option<(u32, u32)> {
        let word = text(table, "uidrange").filter(|word| !word.is_empty())?;
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range =
            first.trim().parse().ok().zip(last.trim().parse().ok()).filter(|(first, last)| first <= last);
        if let (None, Some(value)) = (range, table.get("uidrange")) {
            let message = format!("\"{word}\" is not a range of user ids, such as \"1000-2000\"");
            self.problems.add(Code::BAD_NETWORK, value.span(), message);
        }
        range
    }

    /// Rules refer to interfaces that their node has.
    pub(super) fn rules_name_interfaces(&mut self, table: &DeTable<'_>, topology: &Topology) {
        for (entry, _) in tables(table, "rule") {
            let Some(node) = text(entry, "node") else { continue };
            // Another check reports missing nodes.
            if !topology.all_nodes().iter().any(|other| other.name == node) {
                continue;
            }
            for key in ["iif", "oif"] {
                let (Some(name), Some(value)) = (text(entry, key), entry.get(key)) else { continue };
                let own = topology.interfaces().filter(|(other, _)| *other == node);
                let own: Vec<String> =
                    own.map(|(_, name)| name.to_string()).filter(|name| !name.is_empty()).collect();
                if name != "lo" && !name.is_empty() && !own.iter().any(|other| other == name) {
                    self.problems
                        .add(
                            Code::UNKNOWN_REFERENCE,
                            value.span(),
                            format!("\"{node}\" has no interface \"{name}\""),
                        )
                        .help(format!(
                            "it has lo{}{}",
                            if own.is_empty() { "" } else { ", " },
                            own.join(", ")
                        ));
                }
            }
        }
    }
}
