//! What of a copied host did not come out as it is. Pure: two snapshots in, sentences out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::COPIED;
use crate::model::{AddrState, Interface, InterfaceAddress, LinkKind, RuleAction, Snapshot};

/// How the host of `copy` differs from `original` in what a twin copies, one sentence for each difference.
#[must_use]
pub fn differences(original: &Snapshot, copy: &Snapshot) -> Vec<String> {
    let mut out = Vec::new();
    for interface in &original.interfaces {
        let name = &interface.name;
        match copy.interface_named(name) {
            // Said where it is left out.
            None if interface.kind == Some(LinkKind::Vrf) && interface.vrf_table.is_none() => {}
            None => out.push(format!("{name} could not be copied")),
            Some(other) => of_interface(interface, other, &mut out),
        }
    }
    let names = |snapshot: &Snapshot| -> BTreeMap<u32, String> {
        snapshot.interfaces.iter().map(|one| (one.index, one.name.to_string())).collect()
    };
    let routes = |snapshot: &Snapshot| -> BTreeSet<String> {
        let names = names(snapshot);
        let shown = |index: Option<u32>| {
            index.and_then(|index| names.get(&index)).map_or(String::new(), |name| format!(" dev {name}"))
        };
        let routes = snapshot.routes.iter();
        routes
            .map(|route| {
                let via = route.gateway.map_or(String::new(), |via| format!(" via {via}"));
                let mut words = format!(
                    "{:?} {}{via}{} in table {} with metric {}",
                    route.kind,
                    route.destination,
                    shown(route.interface),
                    route.table,
                    route.metric.unwrap_or(0)
                )
                .to_lowercase();
                if let Some(source) = route.source {
                    words.push_str(&format!(" from {source}"));
                }
                if route.tos != 0 {
                    words.push_str(&format!(" tos {:#x}", route.tos));
                }
                if let Some(from) = route.from {
                    words.push_str(&format!(" for packets from {from}"));
                }
                if let Some(preference) = route.preference {
                    words.push_str(&format!(" preference {preference:?}").to_lowercase());
                }
                if let Some(weight) = route.weight {
                    words.push_str(&format!(" with weight {weight}"));
                }
                for (name, value) in &route.metrics {
                    words.push_str(&format!(" {name} {value}"));
                }
                words
            })
            .collect()
    };
    if !original.routes.is_empty() {
        sets("route", &routes(original), &routes(copy), &mut out);
    }
    let rules = |snapshot: &Snapshot| -> BTreeSet<String> {
        let rules = snapshot.rules.iter().chain(&snapshot.missing_default_rules);
        rules
            .map(|rule| {
                let mut words = format!("{} {} {} {:?}", rule.family, rule.priority, rule.action, rule.table);
                for (name, net) in [("from", rule.from), ("to", rule.to)] {
                    words.extend(net.map(|net| format!(" {name} {net}")));
                }
                for (name, interface) in [("iif", &rule.iif), ("oif", &rule.oif)] {
                    words.extend(interface.as_ref().map(|interface| format!(" {name} {interface}")));
                }
                let mark = (rule.fwmark, rule.fwmask, rule.tos, rule.dscp);
                let socket = (rule.ip_protocol, rule.source_ports, rule.destination_ports, rule.users);
                let rest = (rule.inverted, rule.suppress_prefix, rule.suppress_group, rule.goto);
                format!("{words} {mark:?} {socket:?} {rest:?}")
            })
            .collect()
    };
    // What is too much for a copy was said already.
    let known = |snapshot: &Snapshot| {
        let mut snapshot = snapshot.clone();
        snapshot.rules.retain(|rule| rule.action != RuleAction::Other);
        rules(&snapshot)
    };
    sets("rule", &known(original), &known(copy), &mut out);
    for (name, value) in &original.settings {
        let now = copy.settings.get(name);
        if now.is_some_and(|now| now != value) && !name.starts_with("net.ipv4.ip_local_port_range.") {
            let now = now.copied().unwrap_or_default();
            out.push(format!("{name} is {now} in the twin and not {value}"));
        }
    }
    out
}

fn sets(what: &str, original: &BTreeSet<String>, copy: &BTreeSet<String>, out: &mut Vec<String>) {
    out.extend(original.difference(copy).map(|one| format!("the {what} {one} is not in the twin")));
    out.extend(copy.difference(original).map(|one| format!("the {what} {one} is in the twin only")));
}

fn of_interface(original: &Interface, copy: &Interface, out: &mut Vec<String>) {
    let name = &original.name;
    let mut compare = |what: &str, was: &dyn Debug, is: &dyn Debug| {
        let (was, is) = (format!("{was:?}"), format!("{is:?}"));
        if was != is {
            out.push(format!("{what} of {name} is {is} in the twin and not {was}"));
        }
    };
    compare("the index", &original.index, &copy.index);
    compare("the state (up, running)", &(original.up, original.running), &(copy.up, copy.running));
    compare("the MTU", &original.mtu, &copy.mtu);
    compare("the alternative names", &original.altnames, &copy.altnames);
    // What is copied as something else was said already.
    if matches!(original.kind, Some(LinkKind::Veth | LinkKind::Bridge | LinkKind::Macvlan | LinkKind::Ether))
    {
        compare("multicast", &original.multicast, &copy.multicast);
    }
    for setting in COPIED {
        if let (Some(was), Some(is)) = (original.settings.get(*setting), copy.settings.get(*setting)) {
            compare(setting, was, is);
        }
    }
    let addresses =
        |interface: &Interface| -> BTreeSet<String> { interface.addresses.iter().map(words).collect() };
    sets(&format!("address of {name}"), &addresses(original), &addresses(copy), out);
}

/// An address with what of its state decides.
fn words(address: &InterfaceAddress) -> String {
    let mut text = format!("{}/{}", address.address, address.prefix);
    if let Some(peer) = address.peer {
        text.push_str(&format!(" peer {peer}"));
    }
    if let Some(label) = &address.label {
        text.push_str(&format!(" label {label}"));
    }
    if let Some(scope) = address.scope {
        text.push_str(&format!(" scope {scope}"));
    }
    for state in [
        AddrState::Tentative,
        AddrState::Dadfailed,
        AddrState::Optimistic,
        AddrState::Deprecated,
        AddrState::Secondary,
    ] {
        // IFA_F_TEMPORARY is the same bit as IFA_F_SECONDARY, and decides nothing.
        if address.is(state) {
            text.push_str(&format!(" {state:?}").to_lowercase());
        }
    }
    text
}
